"""Jobs on this machine: words, signals, environments. None of it needs an engine."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from harness import SKELEBOT, Sandbox, Terminal, job, project, wait_for

SHOW = "import json, os, sys\nprint(json.dumps(sys.argv[1:]))\n"


@pytest.fixture(autouse=True)
def _no_docker(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing native may touch Docker."""
    dead = {"SKELEBOT_DOCKER": "/nowhere/docker", "DOCKER_HOST": "unix:///nowhere"}
    sandbox.env.update(dead)  # type: ignore[attr-defined]


# --- words, code, streams ---


def test_words_arrive_as_bytes(sandbox: Sandbox) -> None:
    sandbox.write("show.py", "import os, sys\nprint([os.fsencode(w) for w in sys.argv[1:]])\n")
    project(sandbox, "n", job("show.py", args="[{name: a}]", params="[{name: pp}]"))
    every = bytes(range(1, 256))
    assert sandbox.ok("-n", "run", b"--pp=" + every, b"--", every) == f"{[every, b'--pp', every]}\n"


def test_a_script_runs_in_the_project_root(sandbox: Sandbox) -> None:
    sandbox.write("src/here.py", "import os\nprint(os.getcwd())\n")
    project(sandbox, "n", job("src/here.py"))
    assert sandbox.ok("-n", "run", cwd=sandbox.root / "src") == f"{sandbox.root.resolve()}\n"


def test_python_is_unbuffered(sandbox: Sandbox) -> None:
    sandbox.write("slow.py", "import time\nprint(1)\ntime.sleep(600)\n")
    project(sandbox, "n", job("slow.py"))
    child = sandbox.start("-n", "run", stdout=subprocess.PIPE)
    assert child.stdout
    assert child.stdout.readline() == b"1\n"
    child.terminate()
    assert child.wait(120) == 143


def test_a_missing_program_is_127(sandbox: Sandbox) -> None:
    sandbox.write("x.R", "1\n")
    project(sandbox, "n", job("x.R"))
    result = sandbox.with_env(PATH="/nowhere").run("-n", "run")
    assert (result.code, len(result.errors)) == (127, 1)
    assert "Rscript is not installed" in result.errors[0]


def test_native_always_and_never(sandbox: Sandbox) -> None:
    project(sandbox, "n", job("echo always", "a", native="always"), job("echo never", "b", native="never"))
    assert sandbox.ok("a") == "always\n"
    result = sandbox.run("-n", "a", "+", "b")
    assert (result.code, result.out) == (2, "")
    assert "native: never" in result.errors[0]


def test_missing_mapped_folders_are_made(sandbox: Sandbox) -> None:
    project(sandbox, "n", job("ls -d data models", mappings="[data/, 'models/:app/m']"))
    assert sandbox.ok("-n", "run") == "data\nmodels\n"


def test_environment(sandbox: Sandbox) -> None:
    sandbox.write("job.env", "FROM_FILE=a b\n")
    project(
        sandbox, "n", job('echo "$FROM_FILE|$OWN|$CALLER|$HOME"', envFile="job.env", environment="{OWN: 010}")
    )
    out = sandbox.with_env(CALLER="c").ok("-n", "run")
    assert out == f"a b|010|c|{sandbox.env['HOME']}\n"


# --- signals and time ---


def test_ctrl_c_on_a_terminal_reaches_the_job_once(sandbox: Sandbox) -> None:
    sandbox.write("count.py", """
        import signal, time
        hits = []
        signal.signal(signal.SIGINT, lambda *a: hits.append(1))
        print("ready", flush=True)
        end = time.time() + 2
        while time.time() < end: time.sleep(0.1)
        print("hits", len(hits), flush=True)
    """)  # fmt: skip
    project(sandbox, "n", job("count.py"))
    screen = Terminal(sandbox, f"{SKELEBOT} -n run; echo status $?")
    screen.expect("ready")
    screen.send(b"\x03")
    screen.expect("hits 1")
    screen.close()
    quiet = Terminal(sandbox, f"trap : INT; {SKELEBOT} -n run + run; echo status $?")
    quiet.expect("ready")
    quiet.send(b"\x03")
    quiet.expect("status 130")
    assert quiet.output.count(b"ready") == 1
    quiet.close()


def test_the_terminal_is_the_jobs(sandbox: Sandbox) -> None:
    project(sandbox, "n", job("read -p 'name? ' x; test -t 1 && echo hello $x"))
    screen = Terminal(sandbox, f"{SKELEBOT} -n run")
    screen.expect("name? ")
    screen.send(b"world\r")
    screen.expect("hello world")
    assert screen.close() == 0


def test_an_ignored_hangup_stays_ignored(sandbox: Sandbox) -> None:
    project(sandbox, "n", job("echo ready; sleep 1; echo done"))
    with sandbox.popen("nohup", *SKELEBOT.split(), "-n", "run", stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(1)
        assert child.stdout.read() == b"done\n"
    assert child.returncode == 0


# --- the Python environment ---

VERSION_OF_SIX = "import six, sys\nprint(six.__version__, sys.prefix)\n"


@pytest.fixture(params=["uv", "pip"])
def installer(request: pytest.FixtureRequest, sandbox: Sandbox) -> Sandbox:
    """With uv on PATH, and without."""
    folder = sandbox.root.parent / "bin"
    folder.mkdir(mode=0o755)
    if request.param == "uv":
        uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
        (folder / "uv").symlink_to(uv)
    return sandbox.with_env(PATH=f"{folder}:/usr/bin:/bin")


def test_dependencies_get_an_environment(installer: Sandbox) -> None:
    installer.write("six_version.py", VERSION_OF_SIX)
    project(
        installer,
        "n",
        job("six_version.py"),
        job("python six_version.py", "command"),
        dependencies="[six=1.16.0]",
    )
    first = installer.run("-n", "run")
    venv = installer.root / ".skelebot/venv"
    assert first.out == f"1.16.0 {venv}\n", first.err
    assert "installing" in first.err
    again = installer.run("-n", "command")
    assert (again.out, again.err) == (first.out, "")
    made = venv.stat().st_ino
    project(installer, "n", job("six_version.py"), dependencies="[six=1.15.0]")
    assert installer.ok("-n", "run") == f"1.15.0 {venv}\n"
    assert venv.stat().st_ino != made
    assert (installer.root / ".skelebot/.gitignore").read_text() == "*\n"


def test_the_environments_own_pip_comes_first(installer: Sandbox) -> None:
    script = "pip --version; python -m pip --version"
    project(installer, "n", job(script), dependencies="[six]")
    venv = f"{installer.root.resolve()}/.skelebot/venv/"
    assert [venv in line for line in installer.ok("-n", "run").splitlines()] == [True, True]


def test_the_environments_own_pip_installs_the_packages(installer: Sandbox) -> None:
    # Machines have old ones: pip knows this option of a line since 23.1.
    installer.write("needs.txt", "six --config-settings=a=b\n")
    project(installer, "n", job("true"), dependencies="['req:needs.txt']")
    result = installer.run("-n", "-V", "run")
    assert result.code == 0, result.err
    assert re.search(r"^\+ \S+/\.skelebot/venv/bin/python -m pip install .*needs\.txt$", result.err, re.M)


def test_a_job_without_dependencies_waits_for_none(sandbox: Sandbox) -> None:
    project(sandbox, "n", job("echo done", dependencies="false"), dependencies="[nosuch-package-of-anyone]")
    assert sandbox.ok("-n", "run") == "done\n"
    assert not (sandbox.root / ".skelebot").exists()


def test_a_command_line_does_without_a_python_that_is_missing(sandbox: Sandbox) -> None:
    keys = {"pythonVersion": "3.99", "dependencies": "[six]"}
    sandbox.write("x.py", "print(1)\n")
    project(sandbox, "n", job("echo done"), job("x.py", "script"), **keys)
    without_uv = sandbox.with_env(PATH="/usr/bin:/bin")
    result = without_uv.run("-n", "run")
    assert (result.code, result.out) == (0, "done\n")
    assert "WARN  | Python 3.99 (pythonVersion) is not on this machine" in result.err
    assert without_uv.run("-n", "script").code == 1


def test_a_failed_installation_leaves_the_old_environment(installer: Sandbox) -> None:
    installer.write("six_version.py", VERSION_OF_SIX)
    project(installer, "n", job("six_version.py"), dependencies="[six=1.16.0]")
    installer.ok("-n", "run")
    project(installer, "n", job("six_version.py"), dependencies="[six=999]")
    result = installer.run("-n", "run")
    assert (result.code, len(result.errors)) == (1, 1)
    assert "999" in result.err
    project(installer, "n", job("six_version.py"), dependencies="[six=1.16.0]")
    again = installer.run("-n", "run")
    assert (again.code, again.err) == (0, "")


def test_an_interrupted_installation_is_made_good(sandbox: Sandbox) -> None:
    sandbox.write("six_version.py", VERSION_OF_SIX)
    project(sandbox, "n", job("six_version.py"), dependencies="[six=1.16.0]")
    child = sandbox.start("-n", "run", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for((sandbox.root / ".skelebot/venv").exists)
    child.kill()
    child.communicate()
    assert sandbox.ok("-n", "run").startswith("1.16.0 ")


def test_an_installer_that_outlives_a_killed_run_is_waited_for(sandbox: Sandbox) -> None:
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    sandbox.write("slow/uv", f'#!/bin/sh\ntouch started\nsleep 1\nexec {uv} "$@"\n', 0o755)
    sandbox.write("six_version.py", VERSION_OF_SIX)
    project(sandbox, "n", job("six_version.py"), dependencies="[six=1.16.0]")
    slowly = sandbox.with_env(PATH=f"{sandbox.root}/slow:{sandbox.env['PATH']}")
    child = slowly.start("-n", "run", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for((sandbox.root / "started").exists)
    child.kill()
    child.communicate()
    assert slowly.ok("-n", "run").startswith("1.16.0 ")


def test_two_first_runs_at_once(sandbox: Sandbox) -> None:
    sandbox.write("six_version.py", VERSION_OF_SIX)
    project(sandbox, "n", job("six_version.py"), dependencies="[six=1.16.0]")
    out: list[str] = []
    threads = [threading.Thread(target=lambda: out.append(sandbox.ok("-n", "run"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(out)) == 1
    assert len(out) == 3


def test_a_changed_requirements_file_makes_it_anew(sandbox: Sandbox) -> None:
    sandbox.write("six_version.py", VERSION_OF_SIX)
    sandbox.write("req/all.txt", "-r more.txt\n")
    sandbox.write("req/more.txt", "six==1.16.0\n")
    project(sandbox, "n", job("six_version.py"), dependencies="['req:req/all.txt']")
    assert sandbox.ok("-n", "run").startswith("1.16.0 ")
    sandbox.write("req/more.txt", "six==1.15.0\n")
    assert sandbox.ok("-n", "run").startswith("1.15.0 ")


@pytest.mark.parametrize("kind", ["venv", "conda", "conda base"])
def test_an_active_environment_is_used_as_it_is(sandbox: Sandbox, kind: str) -> None:
    active = sandbox.root.parent / "active"
    (active / "bin").mkdir(parents=True)
    python = active / "bin/python"
    python.write_text("#!/bin/sh\necho active\n")
    python.chmod(0o755)
    sandbox.write("x.py", "print('venv')\n")
    project(sandbox, "n", job("x.py"), dependencies="[six]")
    env = {
        "venv": {"VIRTUAL_ENV": str(active)},
        "conda": {"CONDA_PREFIX": str(active), "CONDA_DEFAULT_ENV": "mine"},
        "conda base": {"CONDA_PREFIX": str(active), "CONDA_DEFAULT_ENV": "base"},
    }[kind]
    expected = "venv\n" if kind == "conda base" else "active\n"
    assert sandbox.with_env(**env).ok("-n", "run") == expected
    assert (sandbox.root / ".skelebot").exists() == (kind == "conda base")


def test_python_is_found_where_only_python3_is(sandbox: Sandbox) -> None:
    folder = sandbox.root.parent / "only3"
    folder.mkdir()
    for program in ("bash", "env"):
        (folder / program).symlink_to(shutil.which(program) or "")
    (folder / "python3").symlink_to(os.path.realpath(sys.executable))
    sandbox.write("show.py", SHOW)
    project(sandbox, "n", job("show.py"), job("python show.py", "command"))
    only = sandbox.with_env(PATH=str(folder))
    assert only.ok("-n", "run") == "[]\n"
    assert only.ok("-n", "command") == "[]\n"


def test_a_python_that_is_not_there(sandbox: Sandbox) -> None:
    sandbox.write("show.py", SHOW)
    project(sandbox, "n", job("show.py"), dependencies="[six]", pythonVersion="3.99")
    result = sandbox.with_env(PATH="/usr/bin:/bin").run("-n", "run")
    assert (result.code, len(result.errors)) == (1, 1)
    assert "3.99" in result.errors[0]


def test_an_ordinary_users_environment(anyone: Sandbox) -> None:
    anyone.write("six_version.py", VERSION_OF_SIX)
    project(anyone, "n", job("python six_version.py; touch made"), dependencies="[six=1.16.0]")
    assert anyone.ok("-n", "run").startswith("1.16.0 ")
    assert {anyone.owner(p) for p in (".skelebot", ".skelebot/venv", "made")} == {anyone.uid}


def test_a_project_that_cannot_be_written(anyone: Sandbox) -> None:
    if anyone.uid == 0:
        pytest.skip("root can write everywhere")
    anyone.write("x.py", "print(1)\n")
    project(anyone, "n", job("x.py"), dependencies="[six]")
    anyone.root.chmod(0o555)
    result = anyone.run("-n", "run")  # its environment lies in the user's cache
    assert (result.code, result.out, result.errors) == (0, "1\n", [])


def test_lists_flags_and_alternative_names(sandbox: Sandbox) -> None:
    sandbox.write("show.py", SHOW)
    on = "{name: on, accepts: boolean, default: true}"
    params = f"[{on}, {{name: xs, accepts: list}}, {{name: lr, alt: l, default: 1.0}}]"
    project(sandbox, "n", job("show.py", args="[{name: date}]", params=params))
    assert json.loads(sandbox.ok("-n", "run", "--xs", "1", "2", "--", "d")) == \
        ["d", "--on", "--xs", "1", "2", "--lr", "1.0"]  # fmt: skip
    assert json.loads(sandbox.ok("-n", "run", "-l", "-1e-5", "--no-on", "d")) == ["d", "--lr", "-1e-5"]
