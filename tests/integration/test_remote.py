"""Jobs on the engine of another machine: a second one behind a real sshd, with no view of our folders."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest
from harness import SKELEBOT, Result, Sandbox, Terminal, docker, job, project, wait_for

pytestmark = pytest.mark.engine

SSH = os.environ.get("SKELEBOT_TEST_REMOTE", "")
SOCKET = os.environ.get("SKELEBOT_TEST_REMOTE_SOCKET", "")


@contextlib.contextmanager
def listening(answer: bool) -> Iterator[int]:
    """A port that leads to the other engine's socket, or takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_serve, args=(server, answer), daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def _serve(server: socket.socket, answer: bool) -> None:
    kept = []
    with contextlib.suppress(OSError):
        while True:
            client, _ = server.accept()
            kept.append(client)
            if answer:
                engine = socket.socket(socket.AF_UNIX)
                engine.connect(SOCKET.removeprefix("unix://"))
                for pair in ((client, engine), (engine, client)):
                    threading.Thread(target=_pass, args=pair, daemon=True).start()


def _pass(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def far(sandbox: Sandbox, name: str) -> Iterator[Sandbox]:
    """A caller whose engine is the other machine's, by TCP; what the tests leave there goes."""
    if not SSH:
        reason = "no engine of another machine (SKELEBOT_TEST_REMOTE; see tests/remote_engine.sh)"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    with listening(answer=True) as port:
        yield sandbox.with_env(DOCKER_HOST=f"tcp://127.0.0.1:{port}")
    label = f"label=skelebot.project={name}"
    for kind, remove in (("ps -aq", "rm -fv"), ("images -aq", "rmi -f"), ("volume ls -q", "volume rm -f")):
        if found := there(*kind.split(), "--filter", label).split():
            there(*remove.split(), *dict.fromkeys(found))


@pytest.fixture
def by_ssh(far: Sandbox) -> Sandbox:
    """A caller who can reach the other machine by ssh, and has an engine of their own."""
    config = far.root.parent / "ssh_config"
    lines = (
        "Host *",
        f"IdentityFile {os.environ['SKELEBOT_TEST_REMOTE_KEY']}",
        "StrictHostKeyChecking no",
        "UserKnownHostsFile /dev/null",
    )
    config.write_text("\n".join(lines) + "\n")
    # ssh looks for its settings in the home of the password file, whatever HOME says.
    ssh = far.root.parent / "bin/ssh"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {config} "$@"\n')
    ssh.chmod(0o755)
    own = os.environ["DOCKER_HOST"]
    return far.with_env(PATH=f"{ssh.parent}:{far.env['PATH']}", DOCKER_HOST=own)


def there(*words: str) -> str:
    """What the other machine's engine answers."""
    return docker("--host", SOCKET, *words, check=False)


def test_mapped_folders_go_there_and_back(by_ssh: Sandbox, name: str) -> None:
    by_ssh.write("data/in.txt", "one")
    by_ssh.write("data/deep/er.txt", "two")
    (by_ssh.root / "data/link").symlink_to("in.txt")
    by_ssh.write("ro/fixed.txt", "three")
    by_ssh.write(
        "work.sh",
        """\
        set -e
        cat data/in.txt data/deep/er.txt data/link ro/fixed.txt
        echo result >results/out.txt
        mkdir results/sub && echo more >results/sub/more.txt && ln -s more.txt results/sub/link
        echo changed >data/in.txt; rm data/deep/er.txt
        ! echo no >ro/no.txt
        """,
    )
    project(by_ssh, name, job("work.sh", mappings="['data/', 'results/', 'ro/:ro']"))
    result = by_ssh.run("-d", SSH, "run")
    assert (result.code, result.out) == (0, "onetwoonethree"), result
    assert by_ssh.read("results/out.txt") == "result\n"
    assert by_ssh.read("results/sub/link") == "more\n"
    assert by_ssh.read("data/in.txt") == "changed\n"
    assert by_ssh.read("data/deep/er.txt") == "two"  # nothing is deleted here
    assert os.listdir(by_ssh.root / "ro") == ["fixed.txt"]
    assert there("ps", "-aq", "--filter", f"label=skelebot.project={name}") == ""


def seen_there(far: Sandbox, name: str, folder: str = "data/") -> list[str]:
    """What a job on the other machine finds in a mapped folder."""
    return far.ok("list").splitlines()


LIST = job("cd data && find . -mindepth 1 | sort", "list", mappings="[data/]")


def sent(result: Result) -> bool:
    """Whether anything of the mappings went there, of a run with -V."""
    assert " to send, " in result.err
    return re.search(r"  [1-9]\d* to send", result.err) is not None


def test_only_what_has_changed_is_sent(far: Sandbox, name: str) -> None:
    far.write("data/one", "1")
    project(far, name, LIST)
    assert sent(far.run("-V", "list"))
    assert not sent(far.run("-V", "list"))
    far.write("data/two", "2")
    (far.root / "data/one").chmod(0o755)
    assert sent(far.run("-V", "list"))
    assert seen_there(far, name) == ["./one", "./two"]
    (far.root / "data/one").unlink()
    assert seen_there(far, name) == ["./two"]  # deleted here, and hence there
    assert os.listdir(far.root / "data") == ["two"]


def test_odd_names_and_kinds(far: Sandbox, name: str) -> None:
    odd = ["a b", "new\nline", "quo\"te'", "$HOME", "-rf", "dir/x", "ü"]
    for each in odd:
        far.write(f"data/{each}", each)
    (far.root / os.fsdecode(b"data/\xff")).write_text("bytes")
    (far.root / "data/dangling").symlink_to("/nowhere")
    os.mkfifo(far.root / "data/pipe")
    far.write(
        "work.py",
        """\
        import os, shutil
        for path in sorted(os.listdir(b"data")):
            if path not in (b"dangling", b"dir"):
                shutil.copy(b"data/" + path, b"out/" + path)
        print(len(os.listdir("data")), os.readlink("data/dangling"))
        """,
    )
    project(far, name, job("work.py", mappings="[data/, out/]"))
    assert far.ok("run") == "9 /nowhere\n"
    assert sorted(os.listdir(os.fsencode(far.root / "out"))) == sorted(
        [*(os.fsencode(each) for each in odd if "/" not in each), b"\xff"]
    )
    assert far.read("out/new\nline") == "new\nline"


def test_results_come_back_when_the_job_fails(far: Sandbox, name: str) -> None:
    project(far, name, job("echo half >out/half; exit 42", mappings="[out/]"))
    result = far.run("run")
    assert (result.code, result.errors) == (42, [])
    assert far.read("out/half") == "half\n"


def test_ctrl_c_stops_the_container_and_brings_back_what_there_is(far: Sandbox, name: str) -> None:
    project(far, name, job("echo half >out/half; echo begun; sleep 300", mappings="[out/]"))
    terminal = Terminal(far, f"{SKELEBOT} run")
    terminal.expect("begun", 120)
    terminal.send(b"\x03")
    assert terminal.close() == 130
    assert far.read("out/half") == "half\n"
    assert there("ps", "-aq", "--filter", f"label=skelebot.project={name}") == ""


def test_a_job_cannot_write_outside_of_its_mapping(far: Sandbox, name: str) -> None:
    outside = far.root.parent / "outside"
    outside.mkdir()
    far.write("data/sub/file", "before")
    link, write = (
        "rm -r data/sub && ln -s /tmp data/sub",
        "mkdir data/evil; echo x | tee data/evil/x >data/plain",
    )
    project(
        far,
        name,
        job(link, "link", mappings="[data/]"),
        job(f"rm -rf data/evil; {write}", "write", mappings="[data/]"),
    )
    linked = far.run("link")
    assert linked.code == 0
    assert "data/sub stays as it is" in linked.err
    assert far.read("data/sub/file") == "before"
    (far.root / "data/evil").symlink_to(outside)
    result = far.run("write")
    assert os.listdir(outside) == []
    assert far.read("data/plain") == "x\n", result


def test_what_both_have_changed_is_the_later_ones(by_ssh: Sandbox, name: str) -> None:
    by_ssh.write("data/mine", "0")
    by_ssh.write("data/theirs", "0")
    project(
        by_ssh,
        name,
        job(
            "touch -d '2020-01-01' data/mine; echo there >data/theirs; echo begun; sleep 300",
            mode="d",
            mappings="[data/]",
        ),
        LIST,
    )
    by_ssh.ok("-d", SSH, "run")
    wait_for(lambda: "begun" in by_ssh.ok("-d", SSH, "logs", "run"))
    assert by_ssh.read("data/theirs") == "0"  # not before it has ended
    by_ssh.write("data/mine", "here")
    os.utime(by_ssh.root / "data/theirs", (1, 1))
    by_ssh.ok("stop")  # the host is remembered
    assert by_ssh.read("data/mine") == "here"
    assert by_ssh.read("data/theirs") == "there\n"


def test_a_detached_jobs_results_come_with_its_logs(by_ssh: Sandbox, name: str) -> None:
    by_ssh.write("in.txt", "given")
    project(
        by_ssh,
        name,
        job("cat in.txt >out/made; echo more >>in.txt; echo done", mode="d", mappings="[out/, in.txt]"),
        host=SSH,
    )
    container = by_ssh.ok("run").strip()
    wait_for(lambda: there("inspect", "--format", "{{.State.Status}}", container) == "exited")
    assert by_ssh.ok("logs", "run") == "done\n"
    assert by_ssh.read("out/made") == "given"
    assert by_ssh.read("in.txt") == "givenmore\n"
    assert f'"host": "{SSH}"' in by_ssh.ok("ps", "--json")


def test_mapped_files(far: Sandbox, name: str) -> None:
    far.write("in.txt", "one\n", 0o640)
    far.write("ro.txt", "two\n")
    source = "cat in.txt ro.txt; echo x >>in.txt; echo y >>ro.txt"
    project(far, name, job(source, mappings="[in.txt, 'ro.txt:ro']"))
    assert far.ok("run") == "one\ntwo\n"
    assert (far.read("in.txt"), far.read("ro.txt")) == ("one\nx\n", "two\n")
    assert (far.root / "in.txt").stat().st_mode & 0o777 == 0o640


def test_secrets_and_the_callers_id(far: Sandbox, name: str) -> None:
    project(
        far,
        name,
        job("echo $1 $2; id -u; touch out/mine", params="[{name: key, secret: true}]", mappings="[out/]"),
        user="caller",
    )
    assert far.ok("run", "--key", "hunter2") == f"--key hunter2\n{far.uid}\n"
    assert far.owner("out/mine") == far.uid


def test_a_large_folder_shows_progress(far: Sandbox, name: str) -> None:
    far.write("data/large", os.urandom(6_000_000))
    project(far, name, job("cp data/large out/", mappings="[data/, out/]"))
    result = far.run("run")
    assert f"mappings to {far.env['DOCKER_HOST']} (6.0 MB)" in result.err
    assert f"results of {far.env['DOCKER_HOST']} (6.0 MB)" in result.err
    assert (far.root / "out/large").read_bytes() == (far.root / "data/large").read_bytes()


def test_a_send_that_was_killed_leaves_the_file_here_alone(far: Sandbox, name: str) -> None:
    """What arrived in part is newer there, and yet not what the job wrote."""
    content = os.urandom(30_000_000)
    far.write("data/large", content)
    project(far, name, LIST)
    child = far.start("list", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stderr
    for line in child.stderr:
        if b"mappings to" in line:
            break
    child.kill()
    child.communicate()
    (volume,) = there("volume", "ls", "-q", "--filter", f"label=skelebot.project={name}").split()
    mount = f"{volume}:/v"
    there("run", "--rm", "-v", mount, os.environ["SKELEBOT_TEST_BASE"], "sh", "-c", "echo part >/v/large")
    assert seen_there(far, name) == ["./large"]
    assert (far.root / "data/large").read_bytes() == content


def test_a_context_names_the_engine(by_ssh: Sandbox, name: str) -> None:
    settings = by_ssh.with_env(DOCKER_CONFIG=str(by_ssh.root.parent / "docker"))
    created = ("docker", "context", "create", "lab", "--docker", f"host={SSH}")
    subprocess.run(created, env=dict(settings.env), check=True, capture_output=True)
    settings = settings.without_env("DOCKER_HOST")
    project(settings, name, job("echo x >out/x", mappings="[out/]", host="lab"))
    assert settings.run("run").code == 0
    assert by_ssh.read("out/x") == "x\n"
    assert there("images", "-q", "--filter", f"label=skelebot.project={name}") != ""


@pytest.mark.parametrize("scheme", ["tcp", "ssh"])
def test_a_host_that_gives_no_answer(far: Sandbox, name: str, scheme: str) -> None:
    project(far, name, job("true"))
    with listening(answer=False) as port:
        host = f"{scheme}://127.0.0.1:{port}"
        result = far.run("-d", host, "run", timeout=60)
    assert (result.code, len(result.errors)) == (1, 1)
    assert f"no Docker engine answers at {host} in 9 seconds" in result.err


def test_a_host_that_refuses(by_ssh: Sandbox, name: str) -> None:
    project(by_ssh, name, job("true"))
    result = by_ssh.run("-d", "ssh://nobody@127.0.0.1:2223", "run")
    assert (result.code, len(result.errors)) == (1, 1)
    assert "no Docker engine answers at ssh://nobody@127.0.0.1:2223" in result.err


def test_sigterm_brings_back_what_there_is(far: Sandbox, name: str) -> None:
    project(far, name, job("echo half >out/half; echo begun; sleep 300", mappings="[out/]"))
    child = far.start("run", stdout=subprocess.PIPE)
    assert child.stdout
    assert child.stdout.readline() == b"begun\n"
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 143
    assert far.read("out/half") == "half\n"
