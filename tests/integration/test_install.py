"""install.sh on a machine with nothing but Python, and the example that it runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import CLIENTS, Result, Sandbox

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def machine(anyone: Sandbox) -> Sandbox:
    """A checkout in a fresh home, and a PATH without uv, pipx and Docker."""
    names = ("skelebot", "examples", "setup.py", "pyproject.toml", "install.sh", "README.md", "LICENSE")
    for name in names:
        source, target = ROOT / name, anyone.root / name
        if source.is_dir():
            ignored = shutil.ignore_patterns(
                "__pycache__", ".skelebot", "data", "models", "output", "Dockerfile"
            )
            shutil.copytree(source, target, ignore=ignored)
        else:
            shutil.copy(source, target)
    folder = anyone.root.parent / "bin"
    folder.mkdir()
    (folder / "python3").symlink_to(os.path.realpath(sys.executable))
    for path in (anyone.root, *anyone.root.rglob("*")):
        if os.getuid() == 0:
            os.chown(path, anyone.uid, anyone.uid, follow_symlinks=False)
    return anyone.with_env(PATH=f"{folder}:/usr/bin:/bin").without_env("PYTHONPATH", "VIRTUAL_ENV")


def install(machine: Sandbox, *words: str) -> Result:
    child = machine.popen("./install.sh", *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = child.communicate(timeout=580)
    return Result(child.returncode, out.decode(), err.decode())


def installed(machine: Sandbox) -> Path:
    return Path(machine.env["HOME"]) / ".local/bin/skelebot"


@pytest.mark.slow
def test_install_twice_and_uninstall(machine: Sandbox) -> None:
    before = sorted(p.name for p in machine.root.iterdir())
    for _ in range(2):
        result = install(machine)
        assert result.code == 0, result
    version = subprocess.run(
        [installed(machine), "-v"], capture_output=True, text=True, env=dict(machine.env)
    )
    assert version.stdout.startswith("skelebot "), version
    scaffold_each(machine)
    assert sorted(p.name for p in machine.root.iterdir()) == before
    assert install(machine, "--uninstall").code == 0
    assert not installed(machine).exists()
    home = Path(machine.env["HOME"])
    assert not list(home.glob(".local/share/skelebot*"))


def scaffold_each(machine: Sandbox) -> None:
    """What was installed has the templates."""
    for name, language in (("default", "Python"), ("dash", "Python"), ("r", "R")):
        folder = machine.root.parent / "home" / name
        made = machine.popen("mkdir", str(folder)).wait()
        words = ("scaffold", "-y", "--template", name, "--language", language)
        child = machine.popen(str(installed(machine)), *words, cwd=folder, stderr=subprocess.PIPE)
        assert (made, child.communicate()[1] and child.returncode) == (0, 0)
        assert (folder / "README.md").is_file()
        assert (folder / "skelebot.yaml").is_file()


def test_a_program_of_that_name_is_not_overwritten(machine: Sandbox) -> None:
    home = Path(machine.env["HOME"])
    (home / ".local/bin").mkdir(parents=True)
    installed(machine).write_text("mine")
    for folder in (home / ".local", home / ".local/bin", installed(machine)):
        if os.getuid() == 0:
            os.chown(folder, machine.uid, machine.uid)
    result = install(machine)
    assert result.code != 0
    assert "ERROR" in result.err
    assert installed(machine).read_text() == "mine"


def test_an_unknown_option_is_an_error(machine: Sandbox) -> None:
    result = install(machine, "--nope")
    assert result.code == 2
    assert "ERROR" in result.err


# Root's installation is tried above; what the example takes is the same.
ordinary = pytest.mark.parametrize("anyone", ["ordinary"], indirect=True)


@ordinary
def test_what_uv_installs_is_compiled(machine: Sandbox) -> None:
    """Whoever may not write there, or has Python not compile, would compile it at each start."""
    uv = shutil.which("uv")
    if not uv:
        pytest.skip("needs uv")
    (machine.root.parent / "bin/uv").symlink_to(os.path.realpath(uv))
    machine = machine.with_env(PYTHONDONTWRITEBYTECODE="1")
    result = install(machine)
    assert result.code == 0, result
    (package,) = Path(machine.env["HOME"]).glob(".local/share/uv/tools/skelebot/lib/python*/*/skelebot")
    sources = {path.with_suffix("") for path in package.rglob("*.py")}
    compiled = {path.parent.parent / path.name.split(".")[0] for path in package.rglob("*.pyc")}
    assert compiled == sources


@ordinary
def test_the_example_natively(machine: Sandbox) -> None:
    machine = machine.with_env(SKELEBOT_DOCKER="/nowhere/docker", DOCKER_HOST="unix:///nowhere.sock")
    result = install(machine, "--example")
    assert result.code == 0, result
    check_example(machine, result, "nativ")


@ordinary
@pytest.mark.engine
def test_the_example_in_docker(machine: Sandbox) -> None:
    client = Path(CLIENTS[0]).parent
    image = os.environ.get("SKELEBOT_TEST_SCIENCE", "")
    if not image:
        pytest.skip("no image with scikit-learn (SKELEBOT_TEST_SCIENCE)")
    machine = machine.with_env(SKELEBOT_BASE_IMAGE=image, PATH=f"{machine.env['PATH']}:{client}")
    result = install(machine, "--example")
    assert result.code == 0, result
    check_example(machine, result, "Docker")


def check_example(machine: Sandbox, result: Result, where: str) -> None:
    assert where in result.out + result.err
    assert "accuracy" in result.out
    example = machine.root / "examples/iris"
    made = [*example.glob("models/*"), *example.glob("output/scored.csv")]
    assert len(made) >= 2
    assert {path.stat().st_uid for path in made} == {machine.uid}
    rows = (example / "output/scored.csv").read_text().splitlines()
    assert len(rows) > 30


# --- the base image of the example, without an installation ---


def pull_problem(tmp_path: Path, pull: str) -> subprocess.CompletedProcess[str]:
    """What install.sh says of a base image that a client has to pull in a second."""
    client = tmp_path / "client"
    client.write_text(f'#!/bin/sh\n[ "$1" != image ] || exit 1\n{pull}\n')
    client.chmod(0o755)
    lines = (ROOT / "install.sh").read_text().splitlines(keepends=True)
    (tmp_path / "functions").write_text("".join(lines[:-1]))  # all but the call of main
    command = f"source {tmp_path}/functions; WORK={tmp_path}; PULL_SECONDS=1; "
    command += f"pull_problem {client} python:3.12-slim"
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)


PULLING = "pulling the base image python:3.12-slim, which may take up to 1 seconds\n"


@pytest.mark.parametrize(
    ("pull", "said"),
    [
        ("sleep 30", "did not arrive within 1 seconds (`docker pull python:3.12-slim` takes longer)"),
        ("echo trying >&2; echo manifest unknown >&2; exit 1", "could not be pulled: manifest unknown"),
    ],
)
def test_a_slow_registry_is_told_from_a_missing_image(tmp_path: Path, pull: str, said: str) -> None:
    result = pull_problem(tmp_path, pull)
    assert result.returncode == 0, result
    assert (result.stdout, result.stderr) == (f"the base image python:3.12-slim {said}\n", PULLING)


def test_an_image_that_arrives_is_no_problem(tmp_path: Path) -> None:
    result = pull_problem(tmp_path, "exit 0")
    assert (result.returncode, result.stdout, result.stderr) == (1, "", PULLING)
