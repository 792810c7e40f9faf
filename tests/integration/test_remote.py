"""Jobs on the engine of another machine: a second one behind a real sshd, with no view of our folders."""

import json
import os
import re
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest
from harness import (
    ORDINARY,
    SKELEBOT,
    Result,
    Sandbox,
    Terminal,
    job,
    make_sandbox,
    project,
    wait_for,
)
from remote_engine import SSH, by_tcp, listening, there, with_ssh

pytestmark = pytest.mark.engine


@pytest.fixture
def far(sandbox: Sandbox, name: str) -> Iterator[Sandbox]:
    """A caller whose engine is the other machine's, by TCP; what the tests leave there goes."""
    with by_tcp(sandbox, name) as found:
        yield found


@pytest.fixture
def by_ssh(far: Sandbox) -> Sandbox:
    """A caller who can reach the other machine by ssh, and has an engine of their own."""
    return with_ssh(far)


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
    assert "data/sub was kept" in linked.err
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
    far.write(".skelebot/images.lock.untidy", "")  # it is asked, too, for what an earlier run has left
    with listening(answer=False) as relay:
        host = f"{scheme}://127.0.0.1:{relay.port}"
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


# --- one project, whose jobs do what a test says ---


@pytest.fixture(scope="module")
def built() -> Iterator[Sandbox]:
    name = f"t-{uuid.uuid4().hex[:10]}"
    for sandbox in make_sandbox(os.getuid()):
        with by_tcp(sandbox, name) as far:
            say = {"source": 'eval "$1"', "args": "[{name: script}]"}
            project(
                far,
                name,
                job(name="do", mappings="[out/]", **say),
                job(name="look", mappings="['out/:ro']", **say),
                job(name="begin", mappings="[out/]", mode="d", **say),
                job(name="file", mappings="[in.txt]", mode="d", **say),
                job(name="late", mappings="[out/]", timeout="1", **say),
                job(name="nested", mappings="[., 'out/inner:/inner', 'new/:~/new']", **say),
                ignores="['*.txt', own]",
            )
            far.ok("do", "true")
            yield far


@pytest.fixture
def lab(built: Sandbox) -> Iterator[Sandbox]:
    """The project with an empty folder out/, and nothing on the other machine but its image."""
    (built.root / "out").mkdir(exist_ok=True)
    yield built
    project_name = built.read("skelebot.yaml").split()[1]
    for kind, remove in (("ps -aq", "rm -fv"), ("volume ls -q", "volume rm -f")):
        if left := there(*kind.split(), "--filter", f"label=skelebot.project={project_name}").split():
            there(*remove.split(), *left)
    for made in ("out", "new", "in.txt"):
        path = built.root / made
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def ended(container: str) -> None:
    wait_for(lambda: there("inspect", "--format", "{{.State.Status}}", container) == "exited")


def with_client(lab: Sandbox, script: str) -> Sandbox:
    """A caller whose client does something else first, by a shell script that goes on to the real one."""
    client = lab.root.parent / "client"
    client.write_text(f'#!/bin/sh\n{script}\nexec docker "$@"\n')
    client.chmod(0o755)
    return lab.with_env(SKELEBOT_DOCKER=str(client))


def test_two_names_of_one_file_come_back_as_two_files(lab: Sandbox) -> None:
    lab.ok("do", "echo x >out/a; ln out/a out/b")
    assert (lab.read("out/a"), lab.read("out/b")) == ("x\n", "x\n")


def test_a_job_that_only_reads_loses_nothing_of_what_another_wrote(lab: Sandbox) -> None:
    ended(lab.ok("begin", "echo model >out/model").strip())
    assert lab.ok("look", "cat out/model; touch out/no 2>/dev/null || echo read-only") == "model\nread-only\n"
    assert lab.read("out/model") == "model\n"


def test_what_a_running_job_is_writing_comes_when_it_has_ended(lab: Sandbox) -> None:
    writing = "while :; do echo x >>out/log; done & sleep 1; echo >out/part; wait"
    container = lab.ok("begin", writing).strip()
    wait_for(lambda: "part" in there("exec", container, "ls", "out"))
    assert lab.ok("do", "echo mine >out/mine; ls out") == "log\nmine\npart\n"
    assert lab.read("out/mine") == "mine\n"  # though the log was being written to as it was packed
    (lab.root / "out/part").unlink()
    lab.ok("look", "true")
    assert not (lab.root / "out/part").exists()
    lab.ok("stop")
    assert there("exec", container, "true") == ""


def test_a_folder_that_a_link_leads_to(lab: Sandbox) -> None:
    elsewhere = lab.root.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    (elsewhere / "given").write_text("x")
    (lab.root / "out").rmdir()
    (lab.root / "out").symlink_to(elsewhere)
    assert lab.ok("do", "ls out; echo made >out/made") == "given\n"
    assert (elsewhere / "made").read_text() == "made\n"
    assert (lab.root / "out").is_symlink()


def test_a_folder_in_the_place_of_a_file(lab: Sandbox) -> None:
    lab.write("out/x", "file")
    result = lab.run("do", "rm out/x; mkdir out/x; echo inner >out/x/inner")
    assert (result.code, lab.read("out/x")) == (0, "file")
    assert f"{lab.root}/out/x was kept" in result.err
    assert lab.ok("look", "cat out/x") == "file"
    lab.ok("do", "rm out/x; mkdir out/x; echo inner >out/x/inner")
    (lab.root / "out/x").rename(lab.root / "out/y")
    lab.ok("look", "true")
    assert lab.read("out/x/inner") == "inner\n"


def test_mappings_within_one_another(lab: Sandbox) -> None:
    """The project's folder without Skelebot's own, one of its folders elsewhere, and one that is missing."""
    lab.write("out/inner/given", "x")
    script = "ls -A; cat /inner/given; echo 1 >/inner/made; echo 2 >/root/new/made; echo 3 >out/made"
    listed = lab.ok("nested", script).splitlines()
    assert "skelebot.yaml" in listed
    assert ".skelebot" not in listed
    assert listed[-1] == "x"
    made = [lab.read(path) for path in ("out/inner/made", "new/made", "out/made")]
    assert made == ["1\n", "2\n", "3\n"]


def test_a_mapped_file_that_changes_here_meanwhile(lab: Sandbox) -> None:
    target = lab.write("target.txt", "given\n")
    (lab.root / "in.txt").symlink_to(target)
    ended(lab.ok("file", "cat in.txt").strip())
    target.write_text("edited here\n")
    assert lab.ok("logs", "file") == "given\n"
    assert lab.read("in.txt") == "edited here\n"  # the job has changed nothing

    ended(lab.ok("file", "echo there >in.txt").strip())
    lab.ok("logs", "file")
    assert lab.read("in.txt") == "there\n"
    assert (lab.root / "in.txt").is_symlink()
    target.write_text("and here\n")
    lab.ok("logs", "file")
    assert lab.read("in.txt") == "and here\n"  # later than what the job wrote

    ended(lab.ok("file", "echo again >in.txt").strip())
    target.unlink()
    lab.ok("logs", "file")
    assert target.read_text() == "again\n"

    ended(lab.ok("file", "rm in.txt; ln -s /etc/passwd in.txt").strip())
    assert lab.run("logs", "file").err == ""
    assert lab.read("in.txt") == "again\n"


def test_a_lost_connection_does_not_end_the_job(lab: Sandbox) -> None:
    with listening(answer=True) as relay:
        near = lab.with_env(DOCKER_HOST=f"tcp://127.0.0.1:{relay.port}")
        script = "echo begun; until [ -e /tmp/go ]; do sleep 0.1; done; echo whole >out/made"
        child = near.start("do", script, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert child.stdout
        assert child.stdout.readline() == b"begun\n"
        relay.cut()
        err = child.communicate(timeout=60)[1].decode()
        assert child.returncode == 1
        assert f"ERROR | the connection to tcp://127.0.0.1:{relay.port} was lost, but do may still run" in err
        (row,) = json.loads(near.ok("ps", "--json"))
        assert row["status"] == "running"
        there("exec", row["container"], "touch", "/tmp/go")
        assert near.ok("logs", "-f", "do") == "begun\n"
        assert near.read("out/made") == "whole\n"


def test_a_second_ctrl_c_right_after_the_job_has_ended(lab: Sandbox) -> None:
    """The first went to the job alone, as it does on a terminal."""
    hasty = with_client(lab, '[ "$1 $3" != "inspect {{.State.Running}}" ] || kill -INT $PPID')
    result = hasty.run("do", "echo half >out/half; exit 130")
    assert (result.code, result.errors) == (130, [])
    assert lab.read("out/half") == "half\n"
    assert json.loads(lab.ok("ps", "--json")) == []


def test_a_disk_that_is_full_when_the_results_come(lab: Sandbox) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can mount a small disk")
    small = lab.root / "out"
    subprocess.run(("mount", "-t", "tmpfs", "-o", "size=64k", "none", small), check=True)
    try:
        (small / "ballast").write_bytes(b"x" * 40_000)
        result = lab.run("do", "echo small >out/a; head -c 50000 /dev/zero >out/b")
        assert (result.code, len(result.errors)) == (1, 1)
        assert f"{small}/b cannot be written: no space left on device" in result.errors[0]
        assert "WARN  | the job's results are still on tcp://" in result.err
        assert sorted(os.listdir(small)) == ["a", "ballast"]
        (small / "ballast").unlink()
        lab.ok("logs", "do")
        assert (small / "b").stat().st_size == 50_000
        assert json.loads(lab.ok("clean", "--json"))["containers"] != []
    finally:
        subprocess.run(("umount", small), check=True)


def test_a_folder_that_lets_nobody_write(lab: Sandbox) -> None:
    """As somebody else than root, whom nothing stops."""
    if os.getuid() != 0:
        pytest.skip("only root can be somebody else")
    ordinary = replace(lab, uid=ORDINARY)
    subprocess.run(("chown", "-R", str(ORDINARY), lab.root), check=True)
    (lab.root / "out").chmod(0o555)
    result = ordinary.run("do", "echo x >out/made")
    assert (result.code, len(result.errors)) == (1, 1)
    assert "out/made cannot be written: permission denied" in result.errors[0]
    (lab.root / "out").chmod(0o755)
    ordinary.ok("logs", "do")
    assert lab.read("out/made") == "x\n"
    assert lab.owner("out/made") == ORDINARY
    subprocess.run(("chown", "-R", "0", lab.root), check=True)


def test_killed_while_results_come(lab: Sandbox) -> None:
    child = lab.start("do", "head -c 30000000 /dev/zero >out/large", stderr=subprocess.PIPE)
    assert child.stderr
    for line in child.stderr:
        if b"results of" in line:
            break
    wait_for(lambda: any(name.endswith("-part") for name in os.listdir(lab.root / "out")))
    child.kill()
    child.communicate()
    assert not (lab.root / "out/large").exists()
    lab.ok("logs", "do")
    assert os.listdir(lab.root / "out") == ["large"]
    assert (lab.root / "out/large").stat().st_size == 30_000_000


def test_an_answer_that_breaks_off_is_not_taken_for_all(lab: Sandbox) -> None:
    lab.write("out/model", "old")
    ended(lab.ok("begin", "echo new >out/model; head -c 3000000 /dev/zero >out/large").strip())
    cut_off = (
        'docker "$@" </dev/null | head -c 50; exit 125',
        'docker "$@" | stdbuf -o0 head -c 99999; exit 1',
    )
    for script in ("exit 125", *cut_off):
        broken = with_client(lab, f'case "$*" in *"--network none"*) {script};; esac')
        for command in (("do", "true"), ("logs", "begin")):
            result = broken.run(*command)
            assert (result.code, len(result.errors)) == (1, 1), result
            assert "the mappings could not be synchronized with tcp://" in result.errors[0]
    lab.ok("do", "true")
    assert lab.read("out/model") == "new\n"
    assert (lab.root / "out/large").stat().st_size == 3_000_000


def test_a_run_that_is_just_beginning_is_left_alone(lab: Sandbox) -> None:
    """Its container is there and not started yet when the same job is run, and when all is tidied up."""
    gate = lab.root.parent / "gate"
    slow = with_client(lab, f'case "$1" in start) while [ ! -e {gate} ]; do sleep 0.1; done;; esac')
    first = slow.start("begin", "true", stdout=subprocess.PIPE)
    wait_for(lambda: "created" in lab.ok("ps"))
    assert json.loads(lab.ok("clean", "--json"))["containers"] == []
    second = lab.ok("begin", "true").strip()
    gate.touch()
    name, _ = first.communicate()
    assert first.returncode == 0
    ended(second)
    ended(name.decode().strip())
    assert len(json.loads(lab.ok("clean", "--json"))["containers"]) == 2


def test_what_another_checkout_runs_is_not_ours(lab: Sandbox) -> None:
    for other in make_sandbox(lab.uid):
        colleague = replace(other, env=lab.env)
        colleague.write("skelebot.yaml", lab.read("skelebot.yaml"))
        theirs = colleague.ok("begin", "sleep 300").strip()
        assert theirs not in lab.ok("ps")
        assert theirs in lab.ok("ps", "--all")
        result = lab.run("stop")
        assert (result.code, result.out) == (0, "")
        assert lab.run("logs", "begin").code == 1
        result = lab.run("exec", stdin=b"exit 3\n")
        assert (result.code, f"in {theirs}" in result.err) == (3, False)
        assert colleague.ok("stop") == f"{theirs}\n"
        assert json.loads(lab.ok("clean", "--json"))["containers"] == []


def test_a_container_that_goes_while_it_is_stopped(lab: Sandbox) -> None:
    first, second = (lab.ok("begin", "sleep 300").strip() for _ in range(2))
    hasty = with_client(lab, f'[ "$1" != stop ] || docker rm -f {first} >/dev/null')
    assert hasty.run("stop").code == 0
    assert there("inspect", "--format", "{{.State.Status}}", second) == "exited"


def test_an_engine_that_is_away_holds_nothing_up(lab: Sandbox) -> None:
    with listening(answer=False) as relay:
        lab.write(".skelebot/hosts", f"tcp://127.0.0.1:{relay.port}\n")
        result = lab.run("clean", timeout=60)
    (lab.root / ".skelebot/hosts").unlink()
    assert (result.code, result.errors) == (0, [])
    assert f"WARN  | no Docker engine answers at tcp://127.0.0.1:{relay.port} in 9 seconds" in result.err
    assert "delete it from .skelebot/hosts" in result.err


def test_a_time_limit_and_a_host_without_a_scheme(lab: Sandbox) -> None:
    bare = lab.with_env(DOCKER_HOST=lab.env["DOCKER_HOST"].removeprefix("tcp://"))
    assert bare.run("late", "echo half >out/half; sleep 300").code == 124
    assert lab.read("out/half") == "half\n"


def test_what_can_be_mapped_far_away(lab: Sandbox) -> None:
    os.mkfifo(lab.root / "in.txt")
    result = lab.run("file", "true")
    assert (result.code, len(result.errors)) == (1, 1)
    assert "in.txt is neither a folder nor a file, and cannot be mapped on tcp://" in result.errors[0]


# --- what is up to date ---


def test_a_pipeline_far_away_runs_once(far: Sandbox, name: str) -> None:
    far.write("raw/a", "1\n")
    load = job("cat raw/* > data/x; echo loaded", "load", inputs="[raw/]", outputs="[data/]")
    train = job("cp data/x models/m; echo trained", "train", needs="[load]", outputs="[models/]")
    project(far, name, load, train)
    assert far.ok("train") == "loaded\ntrained\n"
    assert far.read("models/m") == "1\n"
    again = far.run("train")
    assert (again.code, again.out) == (0, "")
    assert again.err.splitlines() == ["INFO  | load is up to date", "INFO  | train is up to date"]
    far.write("raw/b", "2\n")
    assert far.ok("train") == "loaded\ntrained\n"
    assert far.read("models/m") == "1\n2\n"
    (far.root / "models/m").unlink()
    assert far.ok("-j", "2", "train") == "trained\n"
    assert far.read("models/m") == "1\n2\n"


def test_times_say_nothing_about_what_was_written(far: Sandbox, name: str) -> None:
    """A file that was written to is transferred, whatever its size and time: a clock can be set back."""
    future, past = 4_000_000_000, 1_000_000_000
    source = f"cat raw/a > data/x; touch -d @{past} data/x; cat data/x"
    project(far, name, job(source, inputs="[raw/]", outputs="[data/]"), ignores="[raw]")
    for content in ("1", "2", "3"):
        os.utime(far.write("raw/a", content), (future, future))
        assert far.ok("run") == content
        assert far.read("data/x") == content
        assert far.run("run").err == "INFO  | run is up to date\n"
    os.utime(far.write("data/x", "4"), (past, past))
    assert far.ok("run") == "3"
    assert far.read("data/x") == "3"
