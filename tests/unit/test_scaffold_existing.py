"""`skelebot scaffold -e`: what is found in a folder, and that nothing of it is changed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from skelebot import catalog
from skelebot.model import Packages

from .helpers import load, run_cli, warnings, write

MAIN = '"""Trains a model. And more.\n\nDetails."""\nif __name__ == "__main__":\n    print(1)\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "rain"
    made.mkdir()
    monkeypatch.chdir(made)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def adopt(*words: str) -> int:
    return run_cli(["scaffold", "-e", "-y", *words])


def jobs(folder: Path) -> dict[str, str]:
    return {job.name: job.source for job in load(folder).jobs}


def test_only_what_is_needed_is_added(folder: Path) -> None:
    for name in ("README.md", "Dockerfile", ".gitignore", "VERSION", ".dockerignore"):
        write(folder, f"my {name}\n", name)
    write(folder, MAIN, "src/train.py").chmod(0o400)
    write(folder, "1", "data/a.csv")
    write(folder, "print(1)\n", "setup.py")
    before = contents(folder)
    assert adopt() == 0
    after = contents(folder)
    assert after.pop(".gitignore").startswith(before.pop(".gitignore"))
    assert after.keys() - before.keys() == {"skelebot.yaml", "skelebot.schema.json"}
    assert {name: after[name] for name in before} == before
    assert warnings(folder, (folder / "skelebot.yaml").read_text()) == []
    assert load(folder).version == "my VERSION"


def test_a_version_is_added_where_there_is_none(folder: Path) -> None:
    assert adopt() == 0
    assert contents(folder).keys() == {"skelebot.yaml", "skelebot.schema.json", "VERSION"}
    assert load(folder).version == "0.1.0"
    assert "# - name: train\n" in (folder / "skelebot.yaml").read_text()


@pytest.mark.parametrize("content", [b"1.2.3\nbuild 5\n", b"\xff\n", None])
def test_a_version_that_no_command_accepts_is_reported(
    folder: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    if content is None:
        (folder / "VERSION").mkdir()
    else:
        (folder / "VERSION").write_bytes(content)
    assert adopt() == 0
    said = capsys.readouterr().err
    assert "WARN  | the project is created, but fix this before you use it: " in said
    assert ("VERSION:1:1: expected one line with the version" if content else "VERSION") in said
    assert "ready" not in said
    assert run_cli(["config"]) == 2
    assert content is None or (folder / "VERSION").read_bytes() == content


def test_scripts_become_jobs(folder: Path) -> None:
    write(folder, MAIN, "src/train.py")
    write(folder, "def helper(): ...\n", "src/helper.py")
    write(folder, "if __name__ == '__main__':\n    main(\n", "src/broken.py")
    write(folder, "import sys\nif not sys.argv or __name__ != '__main__':\n    pass\n", "score.py")
    write(folder, "echo 1\n", "src/deep/er/fetch data.sh")
    for left_out in ("tests/run.py", ".hidden/a.py", "venv/lib/a.py", "src/__pycache__/a.py", "data/a.py"):
        write(folder, MAIN, left_out)
    (folder / "models").mkdir()
    assert adopt() == 0
    found = {job.name: job for job in load(folder).jobs}
    assert {job.name: job.source for job in found.values()} == {
        "train": "src/train.py",
        "score": "score.py",
        "fetch-data": "src/deep/er/fetch data.sh",
    }
    assert found["train"].help == "Trains a model. And more."
    assert found["fetch-data"].help == "Run src/deep/er/fetch data.sh"
    assert found["train"].mappings == ("data/", "models/")
    assert load(folder).ignores == ("data/", "models/")


def test_names_of_jobs_are_free(folder: Path) -> None:
    """They neither take each other's, nor those of Skelebot's commands in any project."""
    for path in (
        "a/train.sh",
        "b/train.sh",
        "push.sh",
        "scaffold.sh",
        "x/schema.sh",
        "TRAIN.sh",
        "日本.sh",
        "+.sh",
    ):
        write(folder, "true\n", path)
    assert adopt() == 0
    names = jobs(folder)
    assert len(names) == 8
    assert set(names) & catalog.names() == set()
    assert {names["train"], names["a-train"], names["b-train"]} == {"TRAIN.sh", "a/train.sh", "b/train.sh"}
    assert names["x-schema"] == "x/schema.sh"


def test_odd_names_of_files(folder: Path) -> None:
    for name in ("-x.sh", "a\nb.sh", "it's.sh", "a: b #c.sh", "{{ x }}.sh", "\x1b[31m.sh"):
        write(folder, "true\n", f"src/{name}")
    assert adopt() == 0
    assert sorted(jobs(folder).values()) == ["src/a: b #c.sh", "src/it's.sh", "src/{{ x }}.sh"]


@pytest.mark.parametrize(
    "name", ["train.py", "fit.R", "run.sh", "pyproject.toml", "DESCRIPTION", "requirements.txt", "renv.lock"]
)
def test_what_is_not_a_file_is_skipped(folder: Path, name: str) -> None:
    """A pipe that nobody writes to, which would be read for ever, and a link to nowhere."""
    write(folder, "true\n", "own.sh")
    os.mkfifo(folder / name)
    (folder / "link").mkdir()
    (folder / "link" / name).symlink_to("nowhere")
    assert (
        subprocess.run([sys.executable, "-m", "skelebot", "scaffold", "-e", "-y"], timeout=60).returncode == 0
    )
    assert jobs(folder) == {"own": "own.sh"}
    assert (load(folder).language, load(folder).dependencies) == ("Python", ())


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"requirements.txt": "tabulate\n"}, ("req:requirements.txt",)),
        (
            {"pyproject.toml": "[project]\nname = 'x'\nversion = '1'\ndependencies = ['numpy']\n"},
            ("proj:pyproject.toml",),
        ),
        (
            {
                "requirements.txt": "a\n",
                "pyproject.toml": "[project]\nname = 'x'\nversion = '1'\ndependencies = ['numpy']\n",
            },
            ("req:requirements.txt", "proj:pyproject.toml"),
        ),
        ({}, ()),
    ],
)
def test_python_dependencies(folder: Path, files: dict[str, str], expected: tuple[str, ...]) -> None:
    for name, text in files.items():
        write(folder, text, name)
    assert adopt() == 0
    assert load(folder).dependencies == expected


@pytest.mark.parametrize(
    "text", ["[tool.poetry.dependencies]\nnumpy = '*'\n", "not toml", "\xff", "project = 1"]
)
def test_a_pyproject_without_dependencies_is_reported(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    write(folder, text, "pyproject.toml")
    assert adopt() == 0
    assert "WARN  | no dependencies were read from pyproject.toml: " in capsys.readouterr().err
    assert load(folder).dependencies == ()


def test_what_a_pyproject_says_about_the_project(folder: Path) -> None:
    write(
        folder,
        "[project]\nname = 'Snow'\nversion = '3.1.4'\ndescription = 'White: #1'\ndependencies = ['numpy']\n",
        "pyproject.toml",
    )
    assert adopt("--contact", "me") == 0
    project = load(folder)
    assert (project.name, project.description, project.version) == ("Snow", "White: #1", "3.1.4")
    assert project.contact == "me"


def test_an_r_package(folder: Path) -> None:
    write(
        folder,
        "Package: snow\nTitle: How much\n  falls\nVersion: 0.2\nDepends: R (>= 4.1), methods\n"
        "Imports:\n    data.table (>= 1.14),\n    jsonlite, stats\nLinkingTo: Rcpp\n",
        "DESCRIPTION",
    )
    write(folder, "f <- 1\n", "R/library.R")
    write(folder, "cat(1)\n", "scripts/fit.R")
    assert adopt() == 0
    project = load(folder)
    assert (project.name, project.description, project.version) == ("snow", "How much falls", "0.2")
    assert (project.language, project.dependencies) == ("R", ("data.table", "jsonlite", "Rcpp"))
    assert jobs(folder) == {"fit": "scripts/fit.R"}


def test_both_languages(folder: Path) -> None:
    write(folder, MAIN, "train.py")
    write(folder, "tabulate\n", "requirements.txt")
    write(folder, "cat(1)\n", "fit.R")
    write(folder, "{}", "renv.lock")
    assert adopt() == 0
    project = load(folder)
    assert project.language == "R+Python"
    assert project.dependencies == Packages(("req:requirements.txt",), ("renv:renv.lock",))
    assert jobs(folder) == {"train": "train.py", "fit": "fit.R"}


def test_a_lock_file_of_renv(folder: Path) -> None:
    write(folder, "{}", "renv.lock")
    write(folder, "source('x')\n", "renv/activate.R")
    assert adopt() == 0
    assert (load(folder).language, load(folder).dependencies) == ("R", ("renv:renv.lock",))
    assert jobs(folder) == {}


def test_the_language_decides_which_scripts_count(folder: Path) -> None:
    write(folder, MAIN, "train.py")
    write(folder, "cat(1)\n", "fit.R")
    write(folder, "true\n", "fetch.sh")
    assert adopt("--language", "Python") == 0
    assert jobs(folder) == {"train": "train.py", "fetch": "fetch.sh"}


def test_a_project_is_not_adopted_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "name: mine\n")
    assert adopt() == 2
    assert "this folder is already the project mine" in capsys.readouterr().err
    assert contents(folder) == {"skelebot.yaml": b"name: mine\n"}


# --- packages, options, and what is not used ---


def test_the_modules_of_a_package_run_as_modules(folder: Path) -> None:
    package = {"__init__.py": "", "share.py": "VALUE = 1\n", "more/__init__.py": "", "__main__.py": MAIN}
    for name, text in package.items():
        write(folder, text, f"src/pkg/{name}")
    main = "if __name__ == '__main__':\n    from pkg.share import VALUE\n    print(VALUE)\n"
    write(folder, main, "src/pkg/train.py")
    write(folder, main, "src/pkg/more/deep.py")
    write(folder, main.replace("pkg", "flat"), "flat/fit.py")
    write(folder, "", "flat/__init__.py")
    write(folder, "VALUE = 1\n", "flat/share.py")
    write(folder, main, "src/alone.py")
    assert adopt() == 0
    assert jobs(folder) == {
        "fit": "python -m flat.fit",
        "alone": "src/alone.py",
        "main": "python -m pkg",
        "deep": "python -m pkg.more.deep",
        "train": "python -m pkg.train",
    }
    assert dict(load(folder).environment) == {"PYTHONPATH": "src"}
    for name in ("fit", "deep", "train", "alone"):
        assert run_job(name) == "1\n"


def run_job(*words: str) -> str:
    command = [sys.executable, "-m", "skelebot", "-n", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_entry_points_come_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scripts = 'flat = "flat:main"\nMy-Train = "pkg.train:main"\n'
    scripts += 'score = "pkg.score:App.run"\ngone = "elsewhere:main"\n'
    write(folder, f"[project]\nname = 'pkg'\n[project.scripts]\n{scripts}", "pyproject.toml")
    write(folder, "def main(): ...\n", "flat.py")
    write(folder, "", "src/pkg/__init__.py")
    write(folder, f"def main(): ...\n{MAIN}", "src/pkg/train.py")
    score = "import sys\nclass App:\n    def run():\n        print(sys.argv[1:])\n        return 0\n"
    write(folder, score, "src/pkg/score.py")
    write(folder, "true\n", "a.sh")
    assert adopt() == 0
    assert list(jobs(folder).items()) == [
        ("flat", "python -c 'from flat import main; raise SystemExit(main())'"),
        ("my-train", "python -m pkg.train"),
        ("score", "python -c 'from pkg.score import App; raise SystemExit(App.run())'"),
        ("a", "a.sh"),
    ]
    said = capsys.readouterr().err
    assert "INFO  | not used: pyproject.toml: the script 'gone' is not in a file of this folder\n" in said
    assert run_job("score") == "[]\n"


def test_options_become_args_and_params(folder: Path) -> None:
    parser = "import argparse\np = argparse.ArgumentParser()\np.add_argument('file')\n"
    parser += "p.add_argument('--in', required=True)\np.add_argument('-q', action='store_true')\n"
    write(folder, f"{parser}if __name__ == '__main__':\n    print(vars(p.parse_args()))\n", "fit.py")
    assert adopt() == 0
    (job,) = load(folder).jobs
    assert [arg.name for arg in job.args] == ["file"]
    assert [(p.name, p.accepts, p.help) for p in job.params] == [
        ("in", "value", "Required."),
        ("q", "boolean", ""),
    ]
    assert run_job("fit", "x", "--in", "a b", "-q") == "{'file': 'x', 'in': 'a b', 'q': True}\n"


def test_what_is_not_used_is_listed_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        folder, "X := 1\n.PHONY: all\nall: train\n\ttrue\ntrain test: data\n\ttrue\nall: more\n", "Makefile"
    )
    write(folder, "import pandas\npandas.read_csv('x')\n", "explore.py")
    write(folder, '"""Functions."""\nimport os\nX = 1\nif X:\n    X = 2\ndef f(): ...\n', "library.py")
    write(folder, "print 1\n", "old.py")
    write(folder, f"import argparse\np.add_subparsers()\n{MAIN}", "cli.py")
    write(folder, "1.4\n", "VERSION")
    assert adopt() == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "not used" in line]
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert said == [
        'INFO  | not used: explore.py: it has no `if __name__ == "__main__":`',
        f"INFO  | not used: old.py: Python {version} cannot read it",
        "INFO  | not used: cli.py: a job cannot express subcommands",
        "INFO  | not used: Makefile: all, train, test; a job for one has `source: make all`",
        "INFO  | not used: VERSION: '1.4' is not a version such as 1.4.0; bump, push and publish need one",
    ]


@pytest.mark.parametrize(
    ("before", "added"),
    [
        ("", ["/.skelebot/", "/Dockerfile", "/skelebot.schema.json"]),
        ("*.pyc", ["/.skelebot/", "/Dockerfile", "/skelebot.schema.json"]),
        ("Dockerfile\n.skelebot\n", ["/skelebot.schema.json"]),
        ("/.skelebot/\nDockerfile\nskelebot.schema.json\n", []),
    ],
)
def test_gitignore_gets_what_skelebot_writes(
    folder: Path, capsys: pytest.CaptureFixture[str], before: str, added: list[str]
) -> None:
    write(folder, before, ".gitignore")
    assert adopt() == 0
    start = before if not before or before.endswith("\n") else f"{before}\n"
    more = "".join(f"{line}\n" for line in ("# written by Skelebot", *added)) if added else ""
    assert (folder / ".gitignore").read_text() == start + more
    assert (f"  .gitignore ({len(added)} line" in capsys.readouterr().err) == bool(added)


def test_gitignore_is_made_only_where_there_is_git(folder: Path) -> None:
    write(folder, "FROM mine\n", "Dockerfile")
    assert adopt() == 0
    assert not (folder / ".gitignore").exists()
    (folder / ".git").mkdir()
    assert adopt("--force") == 0
    assert (
        folder / ".gitignore"
    ).read_text() == "# written by Skelebot\n/.skelebot/\n/skelebot.schema.json\n"


def test_a_gitignore_that_is_a_link_stays(folder: Path) -> None:
    write(folder.parent, "*.pyc\n", "shared")
    (folder / ".gitignore").symlink_to("../shared")
    assert adopt() == 0
    assert (folder.parent / "shared").read_text() == "*.pyc\n"
    assert (folder / ".gitignore").is_symlink()
