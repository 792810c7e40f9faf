"""Records that go to jobs on a real Kubernetes cluster while they run: through pipes, and by `send`."""

import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import SKELEBOT, Result, job, project, wait_for
from real_cluster import Forwarder, Namespace, keys

pytestmark = [pytest.mark.engine, pytest.mark.kubernetes]

LISTEN = job("cat", "listen", mode="d", stdin="true")


def write(space: Namespace, name: str, *jobs: str) -> None:
    project(space.sandbox, name, *jobs, components=keys())


def run(space: Namespace, *words: str, stdin: bytes = b"") -> Result:
    return space.sandbox.run("-d", space.place, *words, stdin=stdin)


@pytest.fixture
def listening(space: Namespace, name: str) -> Iterator[Namespace]:
    """A namespace with a job that takes records and prints them."""
    write(space, name, LISTEN, job("sleep 300", "deaf", mode="d"))
    assert run(space, "listen").code == 0
    yield space
    run(space, "stop")
    run(space, "clean")


# --- pipes ---


@pytest.mark.parametrize("places", ["there there", "there here", "here there"])
def test_each_record_comes_through_a_pipe_before_the_next_is_sent(
    space: Namespace, name: str, places: str
) -> None:
    write(space, name, job("sed -u s/^/a-/", "extract"), job("sed -u s/^/b-/", "score"))
    where = {"there": f"{SKELEBOT} -d {space.place}", "here": f"{SKELEBOT} -n"}
    first, second = (where[place] for place in places.split())
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with space.sandbox.popen("bash", "-c", f"{first} extract | {second} score", **pipes) as both:
        assert both.stdin
        assert both.stdout
        for n in range(20):
            both.stdin.write(b"%d\n" % n)
            both.stdin.flush()
            assert both.stdout.readline() == b"b-a-%d\n" % n
        both.stdin.close()
        assert both.stdout.read() == b""
    assert both.returncode == 0


def test_a_job_whose_reader_ends_is_ended(space: Namespace, name: str) -> None:
    source = "trap 'echo r >out/tidied; exit 0' TERM; while :; do echo line; sleep 0.1; done"
    write(space, name, job(source, mappings="[out/]"))
    piped = f"{SKELEBOT} -d {space.place} run | head -1; echo ${{PIPESTATUS[0]}}"
    with space.sandbox.popen("bash", "-c", piped, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as both:
        out, err = both.communicate(timeout=300)
    assert (out, b"ERROR" in err) == (b"line\n141\n", False), err
    assert space.sandbox.read("out/tidied") == "r\n"


# --- send ---


def test_records_are_sent_to_a_detached_job_until_its_input_ends(listening: Namespace) -> None:
    space = listening
    binary = bytes(range(256)).replace(b"\n", b"") * 1000
    for records in (b"first\n", b"", b"no end", binary):
        assert run(space, "send", "listen", stdin=records).code == 0
    expected = b"first\nno end\n" + binary + b"\n"
    wait_for(lambda: len(run(space, "logs", "listen").out) == len(expected.decode(errors="replace")))
    assert run(space, "send", "listen", "--end", stdin=b"last\n").code == 0
    with space.sandbox.start("-d", space.place, "logs", "-f", "listen", stdout=subprocess.PIPE) as child:
        assert child.communicate(timeout=120)[0] == expected + b"last\n"
    assert run(space, "wait", "listen").code == 0


def test_records_of_two_senders_and_of_one_that_is_killed_stay_whole(listening: Namespace) -> None:
    space = listening
    lines = [[f"{n} {i} {'x' * 100}\n" for i in range(5000)] for n in range(2)]
    with ThreadPoolExecutor() as threads:
        both = threads.map(lambda own: run(space, "send", "listen", stdin="".join(own).encode()), lines)
        assert [result.code for result in both] == [0, 0]
    third = "".join(f"2 {i} {'x' * 100}\n" for i in range(20_000)).encode()
    words = ("-d", space.place, "send", "listen")
    with space.sandbox.start(*words, stdin=subprocess.PIPE) as killed:
        assert killed.stdin
        killed.stdin.write(third[:1_000_050])
        killed.stdin.flush()
        killed.send_signal(signal.SIGKILL)
        killed.stdin.close()
    assert run(space, "send", "listen", "--end", stdin=b"3 0\n").code == 0
    assert run(space, "wait", "listen").code == 0
    out = run(space, "logs", "listen").out.splitlines(keepends=True)
    for n, own in enumerate(lines):
        assert [line for line in out if line.startswith(f"{n} ")] == own
    rest = [line for line in out if line[0] not in "01"]
    assert third.decode().startswith("".join(rest[:-1]))
    assert rest[-1] == "3 0\n"


def test_records_arrive_once_though_the_line_breaks(listening: Namespace) -> None:
    space = listening
    data = b"".join(b"%d\n" % n for n in range(200_000))
    with Forwarder() as line:
        far = space.through(line.port)
        with far.sandbox.start("-d", far.place, "send", "listen", "--end", stdin=subprocess.PIPE) as child:
            assert child.stdin
            for at in range(0, len(data), 100_000):
                child.stdin.write(data[at : at + 100_000])
                line.cut()
            child.stdin.close()
            assert child.wait(120) == 0
    assert run(space, "wait", "listen").code == 0
    assert run(space, "logs", "listen").out == data.decode()


def test_what_takes_no_records_is_named(listening: Namespace) -> None:
    space = listening

    def error(*words: str) -> str:
        result = run(space, "send", *words, stdin=b"x\n")
        assert (result.code, result.out, len(result.errors)) == (1, "", 1), result
        return result.errors[0]

    assert "deaf has no run" in error("deaf")
    assert run(space, "deaf").code == 0
    assert "deaf takes no records; add `stdin: true`" in error("deaf")
    assert run(space, "send", "listen", "--end").code == 0
    assert run(space, "wait", "listen").code == 0
    assert "listen has ended, and takes no more records" in error("listen")


def test_the_job_is_refused_elsewhere(space: Namespace, name: str) -> None:
    write(space, name, LISTEN)
    for place in ((), ("-n",)):
        result = space.sandbox.run(*place, "listen")
        assert (result.code, result.out, len(result.errors)) == (2, "", 1), result
        assert "listen: `stdin: true` is only available on a cluster" in result.errors[0]


def test_the_end_alone_is_sent_from_a_terminal(listening: Namespace) -> None:
    space = listening
    primary, secondary = os.openpty()
    words = ("-d", space.place, "send", "listen", "--end")
    with space.sandbox.start(*words, stdin=secondary) as child:
        assert child.wait(60) == 0
    os.close(primary)
    os.close(secondary)
    assert run(space, "wait", "listen").code == 0
