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
        "--pre -r base.txt",
        "-r \\\n  base.txt",
        '-r "base.txt"',
    ],
)
def test_a_requirements_file_brings_those_it_names(tmp_path: Path, line: str) -> None:
    write(tmp_path, f"numpy\n{line}\n", "sub/req.txt")
    write(tmp_path, "scipy\n", "sub/base.txt")
    assert one(tmp_path, "req:sub/req.txt").files == ("sub/req.txt", "sub/base.txt")


@pytest.mark.parametrize("line", ['-r "my base.txt"', "-r my\\ base.txt", "--constraint='my base.txt'"])
def test_a_name_with_a_blank_is_one_name(tmp_path: Path, line: str) -> None:
    write(tmp_path, f"{line}\n", "req.txt")
    write(tmp_path, "", "my base.txt")
    assert one(tmp_path, "req:req.txt").files == ("req.txt", "my base.txt")


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


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ("git+https://example.org/a.git", "git+https://example.org/a.git"),
        ("git+ssh://git@example.org/a.git@v1", "git+ssh://git@example.org/a.git@v1"),
        ("-e git+https://example.org/a#egg=a", "git+https://example.org/a#egg=a"),
        ("--editable=git+https://example.org/a#egg=a&subdirectory=b", None),
        ("a @ git+https://example.org/a.git@v1", "a@ git+https://example.org/a.git@v1"),
    ],
)
def test_what_git_fetches_needs_git(tmp_path: Path, entry: str, word: str | None) -> None:
    found = one(tmp_path, entry)
    expected = word or entry.partition("=")[2]
    assert [w.replace(" @ ", "@ ") for w in found.words] == [expected]
    assert found.git


@pytest.mark.parametrize("line", ["-e git+https://h/a#egg=a", "a @ git+https://h/a", "git+https://h/a"])
def test_a_requirements_file_that_names_a_repository_needs_git(tmp_path: Path, line: str) -> None:
    write(tmp_path, "-r more.txt\n", "req.txt")
    write(tmp_path, f"six\n{line}\n", "more.txt")
    assert one(tmp_path, "req:req.txt").git
    write(tmp_path, f"six\n# {line}\n", "more.txt")
    assert not one(tmp_path, "req:req.txt").git


@pytest.mark.parametrize(
    "entry",
    [
        "six @ http://u:PASSWORD@host/six.whl",
        "github:https://u:PASSWORD@host/six.git",
        "git+https://:PASSWORD@host/six",
        "git+https://ghp_0123456789abcdefPASSWORD@github.com/o/r",
        "req:req.txt",
        "proj:pyproject.toml",
    ],
)
def test_a_password_in_an_address_is_refused_and_not_shown(tmp_path: Path, entry: str) -> None:
    write(tmp_path, "six\n--index-url https://u:PASSWORD@host/simple\n", "req.txt")
    dependency = '["six @ https://u:PASSWORD@host/six.whl"]'
    write(tmp_path, f'[project]\nname="a"\nversion="1"\ndependencies={dependency}\n', "pyproject.toml")
    with pytest.raises(ConfigError, match=r"add netrc to build\.inherit") as caught:
        one(tmp_path, entry)
    assert "PASSWORD" not in str(caught.value)
    if entry.startswith("req:"):
        assert "req.txt:2: " in str(caught.value)


@pytest.mark.parametrize(
    "address", ["https://host/six.whl", "https://user@host/six.whl", "https://u:${TOKEN}@host/six.whl"]
)
def test_an_address_without_a_password_is_taken(tmp_path: Path, address: str) -> None:
    write(tmp_path, f"six @ {address}\n", "req.txt")
    assert one(tmp_path, "req:req.txt").files == ("req.txt",)


# --- which installer reads a requirements file ---


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("six --only-binary :all:", "six --only-binary"),
        ('six --global-option="--quiet"', "six --global-option"),
        ("six --config-settings='a=b'", "six --config-settings"),
        ("six>=1.15.*", "six>=1.15.*"),
        ("--pre", "--pre"),
        ("--trusted-host example.org", "--trusted-host"),
        ("--prefer-binary", "--prefer-binary"),
        ("-e git+https://example.org/a#egg=a", "--editable git+https://example.org/a#egg=a"),
        ("hg+https://example.org/a#egg=a", "hg+https://example.org/a#egg=a"),
        ("./libs/a.tgz", "./libs/a.tgz"),
        ("six \\\n    --no-binary \\\n    :all:", "six --no-binary"),
    ],
)
def test_what_uv_does_not_read_as_pip_does_is_for_pip(tmp_path: Path, line: str, reason: str) -> None:
    write(tmp_path, f"# a comment \\\n{line}\n", "req.txt")
    assert one(tmp_path, "req:req.txt").only_pip == f"req.txt:2: {reason}"


@pytest.mark.parametrize(
    "line",
    [
        *("six", "six==1.15.*", "six ; python_version > '3'", "six[a,b] (>=1.0)  # --pre", "# --pre"),
        *("--only-binary=:all:", "--no-binary six", "-i https://h/simple", "--extra-index-url https://h/s"),
        *("-f https://h/links", "--no-index", "--require-hashes", "six==1 --hash=sha256:ab --hash sha256:cd"),
        *("-e .", "./a.whl", "a.tar.gz", "/a/b.zip[x]", "https://h/a.tgz", "git+https://h/a#egg=a"),
        *("a @ git+https://h/a", "file:///a.whl"),
    ],
)
def test_what_both_read_alike_is_for_uv(tmp_path: Path, line: str) -> None:
    write(tmp_path, f"{line}\n", "req.txt")
    assert one(tmp_path, "req:req.txt").only_pip is None


@pytest.mark.parametrize("ending", ["tgz", "tar", "tar.bz2", "txz"])
def test_an_archive_that_uv_does_not_take_is_for_pip(tmp_path: Path, ending: str) -> None:
    write(tmp_path, "", f"libs/pkg.{ending}")
    found = one(tmp_path, f"file:libs/pkg.{ending}")
    assert (found.words, found.only_pip) == ((f"./libs/pkg.{ending}",), f"libs/pkg.{ending}")


def test_hashes_for_all_are_refused_beside_other_entries(tmp_path: Path) -> None:
    write(tmp_path, "six==1.16.0 --hash=sha256:ab\n--require-hashes\n", "req.txt")
    assert one(tmp_path, "req:req.txt").hashed
    with pytest.raises(ConfigError, match=r"dependencies\[1\]: req\.txt:2: --require-hashes holds for all"):
        dependencies.python(str(tmp_path), ("six", "req:req.txt"))


def test_a_requirements_file_of_a_windows_shell_is_read(tmp_path: Path) -> None:
    (tmp_path / "req.txt").write_text("-r base.txt\r\n", encoding="utf-16")
    write(tmp_path, "", "base.txt")
    assert one(tmp_path, "req:req.txt").files == ("req.txt", "base.txt")


def test_a_wrong_line_of_a_requirements_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, "six\n-r 'base.txt\n", "req.txt")
    with pytest.raises(ConfigError, match=r"req\.txt:2: no closing quotation"):
        one(tmp_path, "req:req.txt")
    write(tmp_path, "six\n-r none.txt\n", "req.txt")
    with pytest.raises(ConfigError, match=r"req\.txt:2: there is no file 'none.txt'"):
        one(tmp_path, "req:req.txt")


# --- pyproject.toml ---

HEAD = '[project]\nname = "Own_Pkg"\nversion = "1"\n'
EXTRAS = """\
dependencies = ["six", "a @ git+https://h/a"]
[project.optional-dependencies]
cpu = ["torch==2.0"]
GPU_x = ["torch==2.1"]
all = ["own-pkg[cpu,dev]", "idna"]
dev = ["pytest"]
"""


@pytest.mark.parametrize(
    ("brackets", "words"),
    [
        ("", "six a torch==2.0 torch==2.1 idna pytest"),
        ("[]", "six a"),
        ("[cpu]", "six a torch==2.0"),
        ("[gpu.X, dev]", "six a pytest torch==2.1"),
        ("[all]", "six a idna torch==2.0 pytest"),
    ],
)
def test_brackets_choose_the_extras(tmp_path: Path, brackets: str, words: str) -> None:
    write(tmp_path, HEAD + EXTRAS, "py/pyproject.toml")
    found = one(tmp_path, f"proj:py/pyproject.toml{brackets}")
    assert [word.partition("@")[0].strip() for word in found.words] == words.split()
    assert found.git


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (HEAD + 'dependencies = "six"', "project.dependencies: expected a list of text, found 'six'"),
        (HEAD + "dependencies = [1]", "project.dependencies[0]: expected a text, found 1"),
        (HEAD + "dependencies = ['a b']", "project.dependencies: expected a package, "),
        (
            HEAD + '[project.optional-dependencies]\ndev = "pytest"',
            "project.optional-dependencies.dev: expected a list of text, found 'pytest'",
        ),
        (
            HEAD + "optional-dependencies = []",
            "project.optional-dependencies: expected a table of list of text",
        ),
        (HEAD + "keywords = 'a'", "project.keywords: expected a list of text"),
        (HEAD + "license = 1", "project.license: expected a text or table of text, found 1"),
        (HEAD + "authors = ['a']", "project.authors[0]: expected a table of text, found 'a'"),
        ("project = 'a'", "project: expected a table, found 'a'"),
        ("[project]\nversion = '1'\ndependencies = ['six']", "project.name: expected a name, found none"),
        (
            HEAD + "[project.optional-dependencies]\n'a b' = ['six']",
            "project.optional-dependencies: expected a name, found 'a b'",
        ),
        (
            HEAD + "[project.optional-dependencies]\na-b = ['six']\nA_B = ['idna']",
            "project.optional-dependencies: a-b and A_B are one name; rename one",
        ),
        ("[project]\nname = 'a b'\nversion = '1'", "project.name: expected a name, found 'a b'"),
        ("[project]\nname = 'a'\ndependencies = ['six']", "project.version: expected a version"),
        (HEAD + "dynamic = ['version']", "project.version: the key is in project.dynamic too"),
        (
            HEAD + "dynamic = ['dependencies']",
            "project.dynamic: only the build backend knows the dependencies; use",
        ),
        (
            HEAD + "dynamic = ['dependencies']\n[tool.setuptools.dynamic]\ndependencies = {file = ['r.txt']}",
            "project.dynamic: only the build backend knows the dependencies; use req:r.txt, or list them",
        ),
        (
            HEAD + "dynamic = ['optional-dependencies']\ndependencies = ['six']",
            "project.dynamic: only the build backend knows the optional-dependencies",
        ),
        (HEAD, "there are no dependencies under [project]"),
        (
            "[tool.poetry.dependencies]\nsix = '^1'",
            "under [project], and tool.poetry is not read",
        ),
        (
            "[tool.uv]\ndev-dependencies = ['six']",
            "under [project], and tool.uv is not read",
        ),
        (HEAD + "[dependency-groups]\na = ['six']", "[dependency-groups] is not read"),
        (
            HEAD + "dependencies = ['My.Lib']\n[tool.uv.sources]\nmy-lib = {workspace = true}",
            "tool.uv.sources.my-lib: only uv reads where this package comes from; run `uv export",
        ),
        (
            HEAD + "dependencies = ['a']\n[tool.poetry.dependencies]\na = {path = 'a'}",
            "tool.poetry.dependencies.a: only poetry reads",
        ),
        ("a =", "is not a pyproject.toml"),
    ],
)
def test_a_pyproject_that_is_wrong_or_read_by_another_tool_is_refused(
    tmp_path: Path, text: str, problem: str
) -> None:
    write(tmp_path, text, "pyproject.toml")
    with pytest.raises(ConfigError) as caught:
        one(tmp_path, "proj:pyproject.toml")
    assert problem in str(caught.value)
    assert str(caught.value).startswith("dependencies[0]: pyproject.toml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD + "dependencies = ['six']\n[tool.uv.sources]\nother = {path = 'o'}", ("six",)),
        (HEAD + "dependencies = ['six']\n[tool.poetry.dependencies]\nsix = {extras = ['a']}", ("six",)),
        (HEAD + "dependencies = ['six']\nreadme = {file = 'a'}\ntool = 1", ("six",)),
        (
            "tool = 1\n"
            + HEAD.replace("version", "dynamic").replace('"1"', '["version"]')
            + "dependencies=['six']",
            ("six",),
        ),
    ],
)
def test_other_tables_do_not_matter(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    write(tmp_path, text, "pyproject.toml")
    assert one(tmp_path, "proj:pyproject.toml").words == words


@pytest.mark.parametrize(
    ("brackets", "problem"),
    [
        ("[cup]", "no 'cup' under project.optional-dependencies; did you mean `cpu`?"),
        ("[cpu", "expected proj:FILE"),
    ],
)
def test_an_unknown_extra_is_named(tmp_path: Path, brackets: str, problem: str) -> None:
    write(tmp_path, HEAD + EXTRAS, "pyproject.toml")
    with pytest.raises(ConfigError) as caught:
        one(tmp_path, f"proj:pyproject.toml{brackets}")
    assert problem in str(caught.value)


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
