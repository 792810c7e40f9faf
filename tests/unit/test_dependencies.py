"""An entry of `dependencies` becomes the words for the installer and the files that they name."""

from pathlib import Path

import pytest

from skelebot.errors import ConfigError
from skelebot.image import dependencies

from .helpers import run_cli, write


def one(root: Path, entry: str) -> dependencies.Dependency:
    (found,) = dependencies.python(str(root), (entry,))
    return found


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ("numpy", "numpy"),
        ("numpy=1.26.4", "numpy==1.26.4"),
        ("numpy = 1.26.4", "numpy==1.26.4"),
        ("numpy==1.26.4", "numpy==1.26.4"),
        ("numpy===1.26.4", "numpy===1.26.4"),
        ("numpy=1.26.*", "numpy==1.26.*"),
        ("numpy>=1.26", "numpy>=1.26"),
        ("numpy~=1.26", "numpy~=1.26"),
        ("numpy!=1.26", "numpy!=1.26"),
        ("numpy<2,>=1.26", "numpy<2,>=1.26"),
        ("scikit-learn=1.4.0", "scikit-learn==1.4.0"),
        ("dask[array]=2024.1.0", "dask[array]==2024.1.0"),
        ("dask[array]>=2024", "dask[array]>=2024"),
        ('numpy=1.26.4; python_version < "3.12"', 'numpy==1.26.4; python_version < "3.12"'),
        ("own @ https://example.org/own.whl", "own@ https://example.org/own.whl"),
        ("own @ git+https://example.org/own.git@v1", "own@ git+https://example.org/own.git@v1"),
    ],
)
def test_a_package_is_one_word(tmp_path: Path, entry: str, word: str) -> None:
    found = one(tmp_path, entry)
    assert [w.replace(" @ ", "@ ") for w in found.words] == [word]
    assert found.files == ()


@pytest.mark.parametrize(
    "entry",
    [
        "numpy=",
        "=1.0",
        "numpy 1.26",
        "numpy=>1.26",
        "numpy; touch evil",
        "numpy && touch evil",
        "$(touch evil)",
        "numpy=$(touch evil)",
        "-r requirements.txt",
        "--index-url=https://example.org",
        "--index-url https://example.org",
        "numpy --pre",
        "./own.whl",
        "numpy\nscipy",
        "'numpy'",
        'numpy"',
        "req:",
        "file:",
        "req:nosuch.txt",
        "file:nosuch.whl",
        "req:../outside.txt",
        "req:folder/../../outside.txt",
        "req:/etc/hostname",
        "file:folder",
        "req:a\0b",
    ],
)
def test_an_entry_that_names_no_package_or_file_is_refused(tmp_path: Path, entry: str) -> None:
    root = tmp_path / "project"
    (root / "folder").mkdir(parents=True)
    write(tmp_path, "", "outside.txt")
    write(root, "", "requirements.txt")
    write(root, "", "own.whl")
    with pytest.raises(ConfigError) as caught:
        one(root, entry)
    assert caught.value.code == 2
    assert "dependencies[0]" in caught.value.problems[0]


def test_all_wrong_entries_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        dependencies.python(str(tmp_path), ("a b", "numpy", "req:gone.txt"))
    assert [p.partition(":")[0] for p in caught.value.problems] == [
        "dependencies[0]",
        "dependencies[2]",
    ]


@pytest.mark.parametrize(
    ("entry", "words", "files"),
    [
        ("req:requirements.txt", ("-r", "requirements.txt"), ("requirements.txt",)),
        ("req:./sub/../requirements.txt", ("-r", "requirements.txt"), ("requirements.txt",)),
        ("req:sub/my requirements.txt", ("-r", "sub/my requirements.txt"), ("sub/my requirements.txt",)),
        ("file:sub/own.whl", ("./sub/own.whl",), ("sub/own.whl",)),
        ("file:./own.tar.gz", ("./own.tar.gz",), ("own.tar.gz",)),
    ],
)
def test_a_file_of_the_project(
    tmp_path: Path, entry: str, words: tuple[str, ...], files: tuple[str, ...]
) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path, "", files[0])
    found = one(tmp_path, entry)
    assert (found.words, found.files) == (words, files)


@pytest.mark.parametrize(
    "line",
    [
        "-r base.txt",
        "-rbase.txt",
        "-r=base.txt",
        "  -r   base.txt  # the base",
        "--requirement base.txt",
        "--requirement=base.txt",
        "-c base.txt",
        "--constraint base.txt",
        "-r ./base.txt",
    ],
)
def test_a_requirements_file_brings_those_it_names(tmp_path: Path, line: str) -> None:
    write(tmp_path, f"numpy\n{line}\n", "sub/req.txt")
    write(tmp_path, "scipy\n", "sub/base.txt")
    assert one(tmp_path, "req:sub/req.txt").files == ("sub/req.txt", "sub/base.txt")


@pytest.mark.parametrize(
    "line", ["# -r base.txt", "numpy # -r base.txt", "-r https://example.org/r.txt", "--pre"]
)
def test_other_lines_name_no_file(tmp_path: Path, line: str) -> None:
    write(tmp_path, f"{line}\n", "req.txt")
    assert one(tmp_path, "req:req.txt").files == ("req.txt",)


def test_requirements_are_followed_to_any_depth_each_once(tmp_path: Path) -> None:
    write(tmp_path, "-r a/one.txt\n-r a/two.txt\n", "req.txt")
    write(tmp_path, "-r two.txt\n-r ../req.txt\n", "a/one.txt")
    write(tmp_path, "-c ../b/three.txt\n", "a/two.txt")
    write(tmp_path, "numpy<2\n", "b/three.txt")
    assert one(tmp_path, "req:req.txt").files == ("req.txt", "a/one.txt", "a/two.txt", "b/three.txt")


@pytest.mark.parametrize("name", ["gone.txt", "../outside.txt", "/etc/hostname"])
def test_a_nested_file_that_is_not_in_the_project_is_told(tmp_path: Path, name: str) -> None:
    root = tmp_path / "project"
    write(tmp_path, "", "outside.txt")
    write(root, f"-r {name}\n", "req.txt")
    with pytest.raises(ConfigError):
        one(root, "req:req.txt")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("github:owner/repo", ("git+https://github.com/owner/repo",)),
        ("github:owner/repo@v1.0", ("git+https://github.com/owner/repo@v1.0",)),
        ("github:https://git.example.org/a.git@main", ("git+https://git.example.org/a.git@main",)),
    ],
)
def test_a_repository_is_fetched_with_git(tmp_path: Path, entry: str, words: tuple[str, ...]) -> None:
    found = one(tmp_path, entry)
    assert (found.words, found.git) == (words, True)


@pytest.mark.parametrize("profile", [None, "dev"])
def test_a_codeartifact_package(tmp_path: Path, profile: str | None) -> None:
    found = one(tmp_path, "ca_file:dom:123:repo:pkg:1.0" + (f":{profile}" if profile else ""))
    expected = dependencies.CodeArtifact("dom", "123", "repo", "pkg", "1.0", profile)
    assert found.fetch == expected
    assert found.words[-1] == "pkg==1.0"
    assert found.files == (expected.folder,)


@pytest.mark.parametrize(
    "entry",
    [
        *("github:owner", "github:owner/repo;x", "github:ext::sh -c x/y", "github:-x/y z", "github:"),
        *(
            "ca_file:a:b:c:d",
            "ca_file:a:b:c:d:e:f:g",
            "ca_file:a:b:c:d:../e",
            "ca_file:a:b:c:d:$(e)",
            "ca_file:",
        ),
    ],
)
def test_a_wrong_repository_or_package_is_refused(tmp_path: Path, entry: str) -> None:
    with pytest.raises(ConfigError):
        one(tmp_path, entry)


def test_a_requirements_file_need_not_be_utf_8(tmp_path: Path) -> None:
    (tmp_path / "req.txt").write_bytes(b"# caf\xe9\n-r base.txt\n")
    write(tmp_path, "", "base.txt")
    assert one(tmp_path, "req:req.txt").files == ("req.txt", "base.txt")


def test_a_wrong_entry_is_told_with_its_place_and_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "name: demo\ndependencies:\n  - numpy\n  - a b\njobs: [{name: a, source: ls, help: A}]\n"
    write(tmp_path, text)
    monkeypatch.chdir(tmp_path)
    assert run_cli(["--dry-run", "a"]) == 2
    assert capsys.readouterr().err.startswith(
        "ERROR | skelebot.yaml:4:5: dependencies[1]: expected a package"
    )


@pytest.mark.parametrize("words", ["s + -e dev dk", "-e dev dk"])
def test_a_wrong_entry_is_told_natively_before_any_job_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    jobs = "{name: s, source: touch ran, help: S}, {name: dk, source: touch ran, help: D}"
    write(tmp_path, f"name: demo\njobs: [{jobs}]\n")
    write(tmp_path, "dependencies:\n- 'req:none.txt'\n", "skelebot-dev.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.delenv("CONDA_DEFAULT_ENV", raising=False)
    assert run_cli(["-n", *words.split()]) == 2
    err = capsys.readouterr().err
    assert err.startswith("ERROR | skelebot-dev.yaml:2:3: dependencies[0]: there is no file 'none.txt'")
    assert not (tmp_path / "ran").exists()
