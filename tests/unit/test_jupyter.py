"""What `skelebot jupyter` would build and run, and what it refuses. --dry-run shows it."""

import re
from pathlib import Path

import pytest

from .helpers import problems, run_cli, write

PROJECT = "name: demo\nbaseImage: base\n"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "VIRTUAL_ENV", "SKELEBOT_BASE_IMAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


@pytest.fixture
def shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> "Shown":
    return Shown(tmp_path, capsys)


class Shown:
    """What --dry-run prints for a project."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys

    def __call__(self, yaml: str, *words: str, native: bool = False) -> str:
        write(self.folder, yaml)
        flags = ["-n"] if native else []
        code = run_cli(["--dry-run", *flags, "jupyter", *words])
        out, err = self._capsys.readouterr()
        assert (code, err) == (0, "")
        return out

    def error(self, yaml: str, *words: str) -> str:
        write(self.folder, yaml)
        code = run_cli(list(words))
        out, err = self._capsys.readouterr()
        assert (code, out, err.count("\n")) == (2, "", 1), err
        return err


def settings(**keys: str) -> str:
    return PROJECT + "components:\n  jupyter:\n" + "".join(f"    {k}: {v}\n" for k, v in keys.items())


def installed(out: str) -> list[str]:
    """The words of each installing step."""
    return re.findall(r'skelebot-install", (.*)\]', out)


# --- in Docker ---


def test_without_settings(shown: Shown) -> None:
    out = shown(PROJECT)
    assert "image    demo:jupyter" in out
    assert " notebook --ip=0.0.0.0 --port=8888 --port-retries=0 --notebook-dir=/app " in out
    assert "port     127.0.0.1:8888:8888\n" in out
    assert f"mapping  {shown.folder} -> /app\n" in out


def test_the_settings(shown: Shown) -> None:
    (shown.folder / "work").mkdir()
    text = settings(
        port="9000", folder="work", lab="true", mappings="[~/more:/more:ro]", environment="{A: 1}"
    )
    out = shown(text)
    assert " jupyterlab --ip=0.0.0.0 --port=8888 --port-retries=0 --notebook-dir=/app/work " in out
    assert "port     127.0.0.1:9000:8888\n" in out
    assert "-> /more:ro\n" in out
    assert "variable A\n" in out


def test_the_command_line_wins(shown: Shown) -> None:
    (shown.folder / "notes").mkdir()
    text = settings(port="9000", folder="work", lab="true")
    out = shown(text, "-p", "9001", "-f", "notes", "--no-lab", "-b", "0.0.0.0")
    assert " notebook --ip=0.0.0.0 --port=8888 --port-retries=0 --notebook-dir=/app/notes " in out
    assert "port     0.0.0.0:9001:8888\n" in out
    assert " jupyterlab --ip" in shown(PROJECT, "--lab")


@pytest.mark.parametrize(("given", "port"), [("::1", "[::1]"), ("[::]", "[::]"), ("192.0.2.1", "192.0.2.1")])
def test_addresses(shown: Shown, given: str, port: str) -> None:
    assert f"port     {port}:8888:8888\n" in shown(PROJECT, "--bind", given)


def test_jupyter_is_added_after_the_dependencies(shown: Shown) -> None:
    out = shown(PROJECT + "dependencies: [numpy, six]\n")
    assert installed(out) == ['"numpy"', '"numpy", "six"', '"numpy", "six", "notebook"']


@pytest.mark.parametrize(
    ("entry", "words", "added"),
    [
        ("notebook", [], False),
        ("Notebook>=7", [], False),
        ("notebook=7.2", [], False),
        ("jupyter", [], False),
        ("jupyter", ["--lab"], False),
        ("jupyterlab", ["--lab"], False),
        ("jupyterlab", [], True),
        ("notebook", ["--lab"], False),
        ("notebook-shim", [], True),
    ],
)
def test_what_is_among_the_dependencies_is_not_added(
    shown: Shown, entry: str, words: list[str], added: bool
) -> None:
    out = shown(PROJECT + f"dependencies: ['{entry}']\n", *words)
    assert installed(out)[1:] == ([f'"{entry}", "notebook"'] if added else [])
    assert f"image    demo:{'jupyter' if added else 'latest'}" in out


def test_the_roots_ports_and_variables(shown: Shown) -> None:
    out = shown(PROJECT + "ports: ['8888:8888', '1:2']\nenvironment: {B: 2}\n")
    assert re.findall("^  port +(.*)", out, re.MULTILINE) == ["127.0.0.1:8888:8888"]
    assert "variable B\n" in out


# --- natively ---


def test_natively(shown: Shown) -> None:
    out = shown(PROJECT + "dependencies: [six]\n", "-p", "9000", native=True)
    assert f" notebook --ip=127.0.0.1 --port=9000 --port-retries=0 --notebook-dir={shown.folder} " in out
    assert "python   .skelebot/venv-jupyter, with six, notebook\n" in out
    assert "image" not in out


def test_natively_the_jobs_environment_does_where_it_has_jupyter(shown: Shown) -> None:
    out = shown(PROJECT + "dependencies: [notebook]\n", native=True)
    assert "python   .skelebot/venv, with notebook\n" in out


# --- what is refused ---


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--port", "0"], "--port: expected a port from 1 to 65535, found '0'"),
        (["--port", "65536"], "from 1 to 65535"),
        (["--port", "٣"], "from 1 to 65535"),
        (["--port", "80a"], "from 1 to 65535"),
        (["--bind", "localhost"], "--bind: expected an address"),
        (["--bind", ""], "--bind: expected an address"),
        (["--folder", ".."], "outside of the project"),
        (["--folder", "/"], "outside of the project"),
        (["--folder", "link"], "outside of the project"),
        (["--folder", "none"], "there is no folder none"),
        (["--folder", "skelebot.yaml"], "there is no folder skelebot.yaml"),
        (["word"], "unexpected argument 'word'"),
    ],
)
def test_values_that_are_none(shown: Shown, words: list[str], expected: str) -> None:
    (shown.folder / "link").symlink_to("/")
    assert expected in shown.error(PROJECT, "jupyter", *words)


@pytest.mark.parametrize("chain", [["jupyter", "-p0", "+", "run"], ["run", "+", "jupyter", "-p0"]])
def test_a_chain_is_refused_before_it_begins(shown: Shown, chain: list[str]) -> None:
    write(shown.folder, "touch ran\n", "run.sh")
    yaml = PROJECT + "jobs: [{name: run, source: run.sh, help: h}]\n"
    shown.error(yaml, "-n", *chain)
    assert not (shown.folder / "ran").exists()


def test_another_machines_engine(shown: Shown) -> None:
    found = shown.error(PROJECT, "-d", "ssh://me@far", "jupyter")
    assert "ssh://me@far does not see this project folder" in found
    assert "ssh -L" in found
    assert "-d default" in shown.error(PROJECT + "host: tcp://far:2375\n", "jupyter")


def test_a_project_of_r_alone(shown: Shown) -> None:
    assert "`language: R` leaves out" in shown.error(PROJECT + "language: R\n", "jupyter")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("port", "0", "expected a port from 1 to 65535, found 0"),
        ("port", "99999", "found 99999"),
        ("port", "x", "expected a whole number"),
        ("lab", "3", "expected true or false"),
        ("mappings", "['a:b:c']", "expected FOLDER or LOCAL:CONTAINER"),
        ("mappings", "['other:/app/']", "other:/app/ lies over /app"),
        ("mappings", "['other:app/x/..']", "lies over /app"),
        ("environment", "{a-b: 1}", "expected a variable's name"),
        ("token", "x", "unknown key"),
    ],
)
def test_settings_that_are_none(tmp_path: Path, key: str, value: str, expected: str) -> None:
    found = problems(tmp_path, settings(**{key: value}))
    assert len(found) == 1
    assert expected in found[0]
    assert re.match(r"skelebot.yaml:\d+:\d+: components.jupyter", found[0])
