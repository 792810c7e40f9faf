"""An entry of R's `dependencies` becomes one word for its installer; each language has its own list."""

from pathlib import Path

import pytest

from skelebot.errors import ConfigError
from skelebot.image import dependencies, dependencies_r, dockerfile
from skelebot.keys import cran_mirror

from .helpers import load, problems, run_cli, write


def one(root: Path, entry: str) -> dependencies.Dependency:
    (found,) = dependencies_r.r(str(root), (entry,))
    return found


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ("data.table", "data.table"),
        (" zoo ", "zoo"),
        ("R6", "R6"),
        ("data.table=1.14.8", "data.table=1.14.8"),
        ("data.table==1.14.8", "data.table=1.14.8"),
        ("zoo = 1.8-12", "zoo=1.8-12"),
    ],
)
def test_a_package(tmp_path: Path, entry: str, word: str) -> None:
    found = one(tmp_path, entry)
    assert (found.words, found.files, found.git) == ((word,), (), False)


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ("github:owner/repo", "git:https://github.com/owner/repo"),
        ("github:owner/repo@v1.0", "git:https://github.com/owner/repo#v1.0"),
        ("github:owner/repo@feature/x", "git:https://github.com/owner/repo#feature/x"),
        ("github:https://git.example.org/a.git", "git:https://git.example.org/a.git"),
        ("github:https://git.example.org/a.git@main", "git:https://git.example.org/a.git#main"),
        ("github:ssh://git@example.org/a@1.0", "git:ssh://git@example.org/a#1.0"),
        ("github:ssh://git@example.org/a", "git:ssh://git@example.org/a"),
    ],
)
def test_a_repository(tmp_path: Path, entry: str, word: str) -> None:
    found = one(tmp_path, entry)
    assert (found.words, found.git) == ((word,), True)


@pytest.mark.parametrize(
    ("entry", "word", "file"),
    [
        ("file:libs/own_1.0.tar.gz", "file:libs/own_1.0.tar.gz", "libs/own_1.0.tar.gz"),
        ("file:./libs/../my own.tar.gz", "file:my own.tar.gz", "my own.tar.gz"),
        ("renv:renv.lock", "renv:renv.lock", "renv.lock"),
        ("renv:sub/other.lock", "renv:sub/other.lock", "sub/other.lock"),
    ],
)
def test_a_file_of_the_project(tmp_path: Path, entry: str, word: str, file: str) -> None:
    (tmp_path / "libs").mkdir()
    write(tmp_path, "", file)
    found = one(tmp_path, entry)
    assert (found.words, found.files) == ((word,), (file,))


@pytest.mark.parametrize(
    "entry",
    [
        *(
            "data.table>=1.14",
            "data.table=",
            "data.table=new",
            "=1.0",
            "data table",
            "z",
            "zoo.",
            "_zoo",
            "-e",
        ),
        *("zoo;x", "$(touch evil)", "zoo=1.0;x", "zoo\nx", "zoo=1.0=2.0", "bioc:x", "req:a.txt", "zoo@1.0"),
        *("github:", "github:owner", "github:owner/repo;x", "github:owner/repo@-x", "github:ext::sh -c x/y"),
        *(
            "github:https://example.org/a@",
            "github:https://example.org/a#v1",
            "github:https://example.org/a@-x",
        ),
        *("file:", "file:gone.tar.gz", "file:own.whl", "file:../outside.tar.gz", "file:/etc/hostname"),
        *("renv:", "renv:gone.lock", "renv:../outside.tar.gz", "file:odd[1].tar.gz"),
    ],
)
def test_an_entry_that_names_nothing_is_refused(tmp_path: Path, entry: str) -> None:
    root = tmp_path / "project"
    for name in ("own.whl", "odd[1].tar.gz", "../outside.tar.gz"):
        write(root, "", name)
    with pytest.raises(ConfigError) as caught:
        one(root, entry)
    assert caught.value.problems[0].startswith("dependencies[0]: ")


# --- a list for each language ---


@pytest.mark.parametrize(
    ("text", "python", "r"),
    [
        ("dependencies: [numpy]", ("numpy",), ()),
        ("language: R\ndependencies: [zoo]", (), ("zoo",)),
        ("language: R+Python\ndependencies: {R: [zoo], Python: [numpy]}", ("numpy",), ("zoo",)),
        ("language: R+Python\ndependencies: {R: [zoo]}", (), ("zoo",)),
        ("language: R+Python\ndependencies: {R: [], Python: null}", (), ()),
        ("language: R+Python\ndependencies: []", (), ()),
        ("language: R+Python", (), ()),
        ("language: R\ndependencies: {R: [zoo], Python: []}", (), ("zoo",)),
        ("dependencies: {Python: [numpy]}", ("numpy",), ()),
    ],
)
def test_each_language_has_its_entries(
    tmp_path: Path, text: str, python: tuple[str, ...], r: tuple[str, ...]
) -> None:
    project = load(tmp_path, f"name: demo\n{text}\n")
    assert (project.entries("Python"), project.entries("R")) == (python, r)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "language: R+Python\ndependencies: [zoo]",
            "3:15: dependencies: with language R+Python, expected a list below `R:` and one below `Python:`",
        ),
        (
            "language: R\ndependencies: {R: [zoo], Python: [numpy]}",
            "3:34: dependencies.Python: the project's language is R; for packages of Python too, "
            "write `language: R+Python`",
        ),
        (
            "dependencies: {R: [zoo]}",
            "2:19: dependencies.R: the project's language is Python; for packages of R too, "
            "write `language: R+Python`",
        ),
        (
            "language: R+Python\ndependencies: {r: [zoo]}",
            "3:16: dependencies.r: unknown key; did you mean `R`?",
        ),
        (
            "language: R+Python\ndependencies: {R: {a: b}}",
            "3:19: dependencies.R: expected a list, found keys with values",
        ),
    ],
)
def test_entries_of_no_language_of_the_project_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    assert problems(tmp_path, f"name: demo\n{text}\n") == [f"skelebot.yaml:{problem}"]


def test_wrong_entries_of_both_languages_are_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "name: demo\nlanguage: R+Python\ndependencies:\n  R: [zoo, a b]\n  Python:\n  - a b\n"
    write(tmp_path, f"{text}jobs: [{{name: a, source: ls, help: A}}]\n")
    monkeypatch.chdir(tmp_path)
    assert run_cli(["--dry-run", "a"]) == 2
    lines = [line.partition(": expected")[0] for line in capsys.readouterr().err.splitlines()]
    assert sorted(lines) == [
        "ERROR | skelebot.yaml:4:12: dependencies.R[1]",
        "ERROR | skelebot.yaml:6:5: dependencies.Python[0]",
    ]


# --- the mirror ---


@pytest.mark.parametrize(
    "address",
    [
        *("https://cloud.r-project.org", "https://cran.example.org:8443/a/b", "file:///srv/cran"),
        *("http://localhost:8000", "http://127.0.0.1:1", "http://10.1.2.3/cran", "http://[::1]:80"),
        "http://192.168.0.5",
    ],
)
def test_a_mirror(address: str) -> None:
    assert cran_mirror(address) is None


@pytest.mark.parametrize(
    "address",
    [
        *("http://cloud.r-project.org", "http://8.8.8.8", "http://10.evil.org", "cloud.r-project.org", ""),
        *("ftp://localhost", "https://", "file://host/cran", "file:cran", "https://a b", "https://a:x"),
        *(
            "https://me:secret@cran.example.org",
            "https://me@cran.example.org",
            "https://é.org",
            "https://[::",
        ),
    ],
)
def test_a_mirror_that_may_be_another_is_refused(address: str) -> None:
    assert cran_mirror(address)


def test_a_password_of_a_mirror_is_not_for_the_image_nor_for_a_log(tmp_path: Path) -> None:
    (told,) = problems(tmp_path, "name: demo\nbuild: {cran: 'https://me:secret@cran.example.org/x'}\n")
    assert "the image would reveal it" in told
    assert told.endswith("found 'https://***@cran.example.org/x'")


def installs(root: Path, text: str, **more: str) -> list[str]:
    project = load(root, f"name: demo\nlanguage: R\n{text}\n")
    found = dependencies.Dependencies(r=dependencies_r.r(str(root), project.entries("R")))
    text = dockerfile.text(dockerfile.image(project, found, **more))  # type: ignore[arg-type]
    lines = text.replace("\\\n   ", "").splitlines()
    return [line for line in lines if line.startswith(f"RUN {dependencies_r.INSTALLER} ")]


def test_the_mirror_of_the_project_comes_before_that_of_the_machine(tmp_path: Path) -> None:
    here, machine = "https://a.example.org", "https://b.example.org"
    both = installs(tmp_path, f"build: {{cran: {here}}}\ndependencies: [zoo]", default_cran=machine)
    assert both == [f"RUN skelebot-r-install {here} zoo"]
    assert machine in installs(tmp_path, "dependencies: [zoo]", default_cran=machine)[0]
    assert "'' zoo" in installs(tmp_path, "dependencies: [zoo]")[0]


@pytest.mark.parametrize(
    ("language", "entries", "brings"),
    [("R", (), False), ("R", ("jupyterlab",), True), ("R+Python", (), True), ("Python", ("numpy",), False)],
)
def test_python_is_brought_where_it_is_needed(
    tmp_path: Path, language: str, entries: tuple[str, ...], brings: bool
) -> None:
    project = load(tmp_path, f"name: demo\nlanguage: {language}\n")
    found = dependencies.Dependencies(dependencies.python(str(tmp_path), entries))
    assert ("python3-pip" in dockerfile.text(dockerfile.image(project, found))) is brings


def test_of_very_many_packages_ten_share_a_step(tmp_path: Path) -> None:
    names = [f"package{i}" for i in range(75)]
    lines = installs(tmp_path, f"dependencies: [{', '.join(names)}]")
    assert len(lines) == 7 + 5
    assert [name for name in names if sum(name in line.split() for line in lines) != 1] == []


@pytest.mark.parametrize("address", ["http://cloud.r-project.org", "https://me:secret@example.org"])
def test_a_wrong_mirror_of_the_machine_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    write(tmp_path, "name: demo\nlanguage: R\njobs: [{name: a, source: ls, help: A}]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKELEBOT_CRAN", address)
    assert run_cli(["--dry-run", "a"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("ERROR | SKELEBOT_CRAN: expected https://")
    assert "secret" not in told
