"""`worker` and the verbs of `runs`: runs are worked off, looked at, stopped and tried again."""

import csv
import fcntl
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness import SKELEBOT, Sandbox, Terminal, job, queueing, run_folder, runs_of, wait_for

from skelebot.runs.record import RunRecord
from skelebot.runs.store import Store

ID = "[{name: id}]"
# A job that says when it is there, and that ends when a file is.
HELD = 'echo $$ >"$TOP/begun-$1"; until [ -e "$TOP/end-$1" ]; do sleep 0.05; done; echo "$1"'


def held(sandbox: Sandbox, source: str = HELD, **keys: str) -> Sandbox:
    """A project with a job that waits for `end(ID)`."""
    own = queueing(sandbox, job(source, args=ID, **keys), environment="{TOP: null}")
    return own.with_env(TOP=str(sandbox.root.parent))


def begun(sandbox: Sandbox, id: str) -> Path:
    return sandbox.root.parent / f"begun-{id}"


def end(sandbox: Sandbox, *ids: str) -> None:
    for id in ids:
        (sandbox.root.parent / f"end-{id}").touch()


def queue(sandbox: Sandbox, *ids: str) -> None:
    for id in ids:
        sandbox.ok("queue", "run", id)


def states(sandbox: Sandbox) -> str:
    """The states of all runs, from the first one."""
    shown = runs_of(sandbox)
    return " ".join(shown[number]["state"] for number in sorted(shown))


def drain(sandbox: Sandbox, *words: str, code: int = 0) -> str:
    done = sandbox.run("worker", "--drain", *words)
    assert done.code == code, done
    return done.err


def supervisor(sandbox: Sandbox, number: int) -> int:
    return int((run_folder(sandbox, number) / "supervisor").read_text().partition("-")[0])


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- working off ---


def test_as_many_at_once_as_there_are_slots(sandbox: Sandbox) -> None:
    own = held(sandbox)
    queue(own, "a", "b", "c")
    worker = own.start("worker", "-j", "2", "--drain")
    wait_for(lambda: begun(own, "a").exists() and begun(own, "b").exists())
    assert states(own) == "running running queued"
    end(own, "b")
    wait_for(begun(own, "c").exists)
    end(own, "a", "c")
    assert worker.wait(60) == 0
    assert states(own) == "done done done"


def test_drain_ends_with_1_if_a_run_failed(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("sh -c", args=ID))
    own.ok("queue", "run", "exit 4")
    own.ok("queue", "run", "true")
    assert "run 1: failed" in drain(own, code=1)
    assert states(own) == "failed done"
    assert drain(own) == ""


@pytest.mark.parametrize("who", ["queue", "worker"])
def test_whoever_reads_much_data_blocks_nobody(sandbox: Sandbox, who: str) -> None:
    """It is stopped while it reads, and others queue runs and work them off meanwhile."""
    own = queueing(sandbox, job("true", mappings="[../data/:ro]"), job("true", "other"))
    data = sandbox.root.parent / "data/file"
    data.parent.mkdir()
    data.touch()
    if who == "worker":
        own.ok("queue", "run")
    os.truncate(data, 1 << 36)
    words = ("queue", "run") if who == "queue" else ("worker", "--drain")
    child = own.start(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: readers(data, child.pid))
    (reader,) = readers(data, child.pid)
    reader.suspend()
    own.ok("queue", "other")
    drain(own)
    found = {run["chain"]: run["state"] for run in runs_of(own).values()}
    assert found == {"other": "done"} | ({"run": "running"} if who == "worker" else {})
    reader.kill()
    child.kill()
    child.wait()


def readers(path: Path, starter: int) -> list[psutil.Process]:
    """The processes of a starter that read a file."""
    found = []
    for each in (psutil.Process(starter), *psutil.Process(starter).children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # others come and go
            found += [each] * (str(path) in (file.path for file in each.open_files()))
    return found


def test_drain_waits_for_what_comes_after_runs_of_other_workers(sandbox: Sandbox) -> None:
    own = held(sandbox)
    queue(own, "a")
    first = own.start("worker", "--drain", stderr=subprocess.DEVNULL)
    wait_for(begun(own, "a").exists)
    own.ok("queue", "--after", "1", "run", "b")
    end(own, "b")
    second = own.start("worker", "--drain", stderr=subprocess.DEVNULL)
    end(own, "a")
    assert (first.wait(60), second.wait(60)) == (0, 0)
    assert states(own) == "done done"


def test_drain_leaves_nothing_that_its_own_stopping_has_stopped(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("exit $1", args=ID))
    own.ok("queue", "run", "1")
    own.ok("queue", "--after", "1", "run", "0")
    own.ok("queue", "--after", "2", "--priority", "5", "run", "0")
    drain(own, code=1)
    assert states(own) == "failed stopped stopped"


def test_two_workers_at_once_run_each_run_once(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job('echo $1 >>"$TOP/trace"; sleep 0.1', args=ID), environment="{TOP: null}")
    own = own.with_env(TOP=str(sandbox.root.parent))
    queue(own, *map(str, range(12)))
    workers = [own.start("worker", "-j", "2", "--drain", stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [worker.wait(120) for worker in workers] == [0, 0]
    assert sorted(own.read("../trace").split(), key=int) == [str(n) for n in range(12)]


def test_a_worker_takes_its_own_projects_runs_alone(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("true"))
    own.ok("queue", "run")
    own.write("../other/skelebot.yaml", own.read("skelebot.yaml"))
    other = own.root.parent / "other"
    own.ok("queue", "run", cwd=other)
    drain(own)
    assert states(own) == "done queued"
    assert len(json.loads(own.ok("runs", "--json"))) == 1
    assert own.run("worker", "--drain", "--all", cwd=own.root.parent).code == 0
    assert states(own) == "done done"


def test_verbs_from_anywhere(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("echo out; exit 3"))
    own.ok("queue", "run")
    drain(own, code=1)
    top = own.root.parent
    assert own.ok("runs", "logs", "1", cwd=top) == "out\n"
    assert "exit code 3" in own.ok("runs", "show", "1", cwd=top)
    assert own.ok("runs", "retry", "1", cwd=top) == "1\n"
    own.ok("runs", "stop", "1", cwd=top)
    own.ok("runs", "rm", "1", cwd=top)
    assert own.run("runs", "show", "1", cwd=top).code == 2
    assert not run_folder(own, 1).exists()


# --- ending workers ---


def test_ctrl_c_waits_for_the_runs(sandbox: Sandbox) -> None:
    own = held(sandbox)
    queue(own, "a", "b")
    terminal = Terminal(own, f"{SKELEBOT} worker")
    wait_for(begun(own, "a").exists)
    terminal.send(b"\x03")
    terminal.expect("waiting for 1 run; Ctrl-C once more stops them and queues them again")
    end(own, "a")
    assert terminal.close() == 0
    assert states(own) == "done queued"


def test_second_ctrl_c_queues_the_runs_again(sandbox: Sandbox) -> None:
    """Their jobs are asked once, and have time to clean up."""
    own = held(sandbox, "trap 'sleep 0.7; echo cleaned; exit 1' TERM; " + HELD)
    queue(own, "a", "b")
    terminal = Terminal(own, f"{SKELEBOT} worker")
    wait_for(begun(own, "a").exists)
    job_pid = int(begun(own, "a").read_text())
    terminal.send(b"\x03")
    terminal.expect("waiting for 1 run")
    terminal.send(b"\x03")
    terminal.expect("run 1: queued again")
    assert terminal.close() == 0
    assert states(own) == "queued queued"
    assert runs_of(own)[1]["tasks"][0]["code"] is None
    assert not is_alive(job_pid)
    assert own.ok("runs", "logs", "1").endswith("cleaned\n")
    end(own, "a", "b")
    drain(own)
    assert runs_of(own)[1]["tasks"][0]["attempt"] == 2


def test_two_signals_at_once_are_two(sandbox: Sandbox) -> None:
    own = held(sandbox)
    queue(own, "a")
    worker = own.start("worker", stderr=subprocess.DEVNULL)
    wait_for(begun(own, "a").exists)
    worker.send_signal(signal.SIGTERM)
    worker.send_signal(signal.SIGINT)
    assert worker.wait(60) == 0
    assert states(own) == "queued"


def test_worker_in_the_background(sandbox: Sandbox) -> None:
    own = held(sandbox)
    pid = int(own.ok("worker", "-d", "-j", "3"))
    log = Path(own.env["SKELEBOT_STORE"], "workers", f"{pid}.log")
    wait_for(lambda: str(pid) in own.ok("worker", "--list"))
    shown = own.ok("worker", "--list").splitlines()
    assert shown[1].split()[:2] == [str(pid), "3"]
    assert len(shown) == 2
    (facts,) = json.loads(own.ok("worker", "--list", "--json"))
    assert (facts["pid"], facts["slots"], facts["root"]) == (pid, 3, str(own.root))
    assert own.run("worker", "--json").code == 2
    assert own.ok("--dry-run", "worker", "--stop") == "stop 1 worker\n"
    queue(own, "a")
    wait_for(begun(own, "a").exists)
    for _ in range(2):  # an impatient user's runs go on to their end, too
        own.ok("worker", "--stop")
        wait_for(lambda: log.read_text().count("waiting for 1 run"))
    end(own, "a")
    wait_for(lambda: not is_alive(pid))
    assert (
        own.run("worker", "--list").err == "INFO  | no worker is running; `skelebot worker -d` starts one\n"
    )
    assert states(own) == "done"
    assert "run 1: done" in log.read_text()


def test_killed_worker_is_not_listed(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("true"))
    worker = own.start("worker")
    wait_for(lambda: own.ok("worker", "--list"))
    worker.kill()
    worker.wait()
    assert own.ok("worker", "--list") == ""


# --- pausing ---


def test_pause_and_resume(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("true"))
    own.ok("queue", "run")
    own.ok("runs", "pause")
    own.ok("--dry-run", "runs", "resume")
    said = drain(own, code=1)
    assert said == "WARN  | the queue is paused: somebody has paused it; `skelebot runs resume` resumes it\n"
    assert states(own) == "queued"
    assert "the queue is paused" in own.run("runs").err
    own.ok("runs", "resume")
    drain(own)
    assert states(own) == "done"


def test_five_quick_failures_pause_the_queue(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("exit $1", args=ID))
    queue(own, "1", "1", "1", "1", "0", *"111111")
    said = drain(own, code=1)
    assert states(own) == " ".join(["failed"] * 4 + ["done"] + ["failed"] * 5 + ["queued"])
    assert "the queue is paused: 5 runs in a row failed within 10 seconds, the last was 10" in said


def test_stopped_runs_are_no_failures(sandbox: Sandbox) -> None:
    own = held(sandbox)
    ids = [str(n) for n in range(5)]
    queue(own, *ids)
    worker = own.start("worker", "-j", "5", stderr=subprocess.DEVNULL)
    for id in ids:
        wait_for(begun(own, id).exists)
    own.ok("runs", "stop", *(str(n + 1) for n in range(5)))
    worker.terminate()
    worker.wait(60)
    assert "paused" not in own.run("runs").err


def test_too_little_disk_pauses_the_queue(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("true"), components="{experiments: {keepFree: 1024t}}")
    own.ok("queue", "run")
    assert re.search(r"the queue is paused: only .* of the disk are free", drain(own, code=1))
    assert states(own) == "queued"


# --- attempts ---


def test_retries(sandbox: Sandbox) -> None:
    """Each attempt has its own log, and knows its number."""
    own = queueing(sandbox, job("echo attempt $SKELEBOT_ATTEMPT; test $SKELEBOT_ATTEMPT = 3", retries="2"))
    own.ok("queue", "run")
    drain(own)
    logs = [own.ok("runs", "logs", "1", "run", "--attempt", str(n)) for n in (1, 2, 3)]
    assert logs == ["attempt 1\n", "attempt 2\n", "attempt 3\n"]
    assert own.ok("runs", "logs", "1") == "attempt 3\n"
    assert own.run("runs", "logs", "1", "--attempt", "4").code == 2
    task = runs_of(own)[1]["tasks"][0]
    assert (task["attempt"], task["code"]) == (3, 0)


@pytest.mark.parametrize("options", [(), ("-f",)])
def test_a_log_that_is_gone(sandbox: Sandbox, options: tuple[str, ...]) -> None:
    own = queueing(sandbox, job("echo hi"))
    own.ok("queue", "--now", "run")
    (run_folder(own, 1) / "tasks/1-run.1/log").unlink()
    result = own.run("runs", "logs", *options, "1", timeout=20)
    assert (result.code, result.err.endswith("/log cannot be read: no such file or directory\n")) == (1, True)


def test_timeout(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("sleep 60", timeout="1s"))
    own.ok("queue", "run")
    drain(own, code=1)
    assert runs_of(own)[1]["tasks"][0]["code"] == 124
    assert "longer than its timeout of 1 second" in own.ok("runs", "logs", "1")


@pytest.mark.parametrize("on_term", ["", "trap '' TERM; "], ids=["ends", "has to be killed"])
def test_timeout_of_a_job_whose_supervisor_was_killed(sandbox: Sandbox, on_term: str) -> None:
    own = held(sandbox, on_term + HELD, timeout="2s")
    killed_with_its_worker(own)
    drain(own, code=1)
    (task,) = runs_of(own)[1]["tasks"]
    assert (task["state"], task["attempt"], task["code"]) == ("failed", 1, 124)


def test_log_is_byte_for_byte(sandbox: Sandbox) -> None:
    own = queueing(
        sandbox,
        job('cat "$TOP/bytes"; printf "\\377\\r\\n" >&2; cat "$TOP/bytes" >&2; printf end'),
        environment="{TOP: null}",
    )
    own = own.with_env(TOP=str(sandbox.root.parent))
    data = os.urandom(1_000_000)
    own.write("../bytes", data)
    own.ok("queue", "run")
    drain(own)
    log = run_folder(own, 1) / "tasks" / "1-run.1" / "log"
    assert log.read_bytes() == data + b"\xff\r\n" + data + b"end"
    with own.start("runs", "logs", "1", stdout=subprocess.PIPE) as shown:
        assert shown.communicate()[0] == log.read_bytes()


def test_logs_follow_until_the_run_ends(sandbox: Sandbox) -> None:
    own = held(sandbox)
    queue(own, "a")
    with own.start("runs", "logs", "-f", "1", stdout=subprocess.PIPE) as following:
        worker = own.start("worker", "--drain", stderr=subprocess.DEVNULL)
        wait_for(begun(own, "a").exists)
        end(own, "a")
        assert following.communicate(timeout=60)[0] == b"a\n"
    assert worker.wait(60) == 0


def test_logs_follow_into_the_next_attempt(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("echo attempt $SKELEBOT_ATTEMPT; test $SKELEBOT_ATTEMPT = 2", retries="1"))
    own.ok("queue", "run")
    with own.start("runs", "logs", "-f", "1", stdout=subprocess.PIPE) as following:
        drain(own)
        assert following.communicate(timeout=60)[0] == b"attempt 1\nattempt 2\n"


def test_a_failure_before_the_start_has_a_log(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("true", mappings='["data/:ro"]'))
    own.write("data/x", "")
    own.ok("queue", "run")
    (own.root / "data" / "x").unlink()
    (own.root / "data").rmdir()
    drain(own, code=1)
    reason = runs_of(own)[1]["reason"]
    assert "data" in reason
    assert "ERROR | the mapping" in own.ok("runs", "logs", "1")


# --- what jobs do ---


@pytest.mark.parametrize(
    "source",
    [
        "sleep 300 & echo $! >$TOP/pid",
        "setsid sleep 300 & echo $! >$TOP/pid; sleep 0.2",
        "(trap '' TERM; sleep 300) & echo $! >$TOP/pid",
    ],
    ids=["background", "session", "stubborn"],
)
def test_what_a_job_leaves_ends_with_it(sandbox: Sandbox, source: str) -> None:
    own = queueing(sandbox, job(source), job("cat $TOP/pid", "next"), environment="{TOP: null}")
    own = own.with_env(TOP=str(sandbox.root.parent))
    own.ok("queue", *["run", "+", "next"])
    drain(own)
    assert not is_alive(int(own.read("../pid")))
    assert states(own) == "done"


def test_job_that_closes_its_streams(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("exec <&- >&- 2>&-; sleep 0.2; exit 6"))
    own.ok("queue", "run")
    drain(own, code=1)
    assert runs_of(own)[1]["tasks"][0]["code"] == 6


def test_a_crash_touches_no_other_run(sandbox: Sandbox) -> None:
    own = held(sandbox, 'case "$1" in die) kill -9 $$;; esac; ' + HELD)
    queue(own, "a", "die", "b")
    worker = own.start("worker", "-j", "3", "--drain", stderr=subprocess.DEVNULL)
    wait_for(lambda: runs_of(own)[2]["state"] == "failed")
    end(own, "a", "b")
    assert worker.wait(60) == 1
    assert states(own) == "done failed done"
    assert runs_of(own)[2]["tasks"][0]["code"] == 137


def test_a_run_that_cannot_be_supervised_is_left_to_the_next_worker(sandbox: Sandbox) -> None:
    """The same worker would try for ever."""
    own = queueing(sandbox, job("true"))
    own.ok("queue", "run")
    own.ok("queue", "run")
    (run_folder(own, 1) / "tasks").touch()
    assert "run 1: its supervisor could not go on" in drain(own, code=1)
    assert states(own) == "running done"
    (run_folder(own, 1) / "tasks").unlink()
    drain(own)
    assert states(own) == "done done"


def test_no_copy_of_the_files_is_left(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("pwd; mkdir x; chmod 500 x"))
    own.ok("queue", "run")
    drain(own)
    assert not (run_folder(own, 1) / "work").exists()


# --- stopping ---


def test_stop_a_waiting_run(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("true"))
    own.ok("queue", "run")
    assert own.run("runs", "stop", "1").err == "INFO  | run 1 is stopped\n"
    drain(own)
    assert (states(own), runs_of(own)[1]["reason"]) == ("stopped", "it was stopped")


def test_stop_a_running_run(sandbox: Sandbox) -> None:
    """It is asked first; what it still writes is in its log."""
    own = held(sandbox, "trap 'echo cleaned; exit 0' TERM; " + HELD)
    queue(own, "a")
    worker = own.start("worker", "--drain", stderr=subprocess.DEVNULL)
    wait_for(begun(own, "a").exists)
    assert own.run("runs", "stop", "1").err == "INFO  | run 1 is stopped\n"
    assert worker.wait(60) == 0
    assert own.ok("runs", "logs", "1").endswith("cleaned\n")


def test_stop_ends_what_does_not_end_by_itself(sandbox: Sandbox) -> None:
    own = held(sandbox, "trap '' TERM; " + HELD)
    queue(own, "a")
    worker = own.start("worker", "--drain", stderr=subprocess.DEVNULL)
    wait_for(begun(own, "a").exists)
    own.ok("runs", "stop", "1")
    assert not is_alive(int(begun(own, "a").read_text()))
    assert worker.wait(60) == 0
    assert states(own) == "stopped"


def test_stop_runs_of_which_one_waits_for_another_to_end(sandbox: Sandbox) -> None:
    """The worker does not start it in the place of the one that is ended before it."""
    own = held(sandbox, "trap 'sleep 1; exit 1' TERM; " + HELD)
    for name in ("a", "b", "c"):
        queue(own, name)
    worker = own.start("worker", "--drain", stderr=subprocess.DEVNULL)
    wait_for(begun(own, "a").exists)
    stopped = own.run("runs", "stop", "1", "2", "3").err.splitlines()
    assert stopped == [f"INFO  | run {number} is stopped" for number in (1, 2, 3)]
    assert worker.wait(60) == 0
    assert not begun(own, "b").exists()


def killed_with_its_worker(own: Sandbox) -> int:
    """A run whose worker and supervisor were killed; the process of its job."""
    queue(own, "a")
    worker = own.start("worker", stderr=subprocess.DEVNULL)
    wait_for(begun(own, "a").exists)
    wait_for((run_folder(own, 1) / "tasks" / "1-run.1" / "run").exists)
    worker.kill()
    worker.wait()
    os.kill(supervisor(own, 1), signal.SIGKILL)
    return int(begun(own, "a").read_text())


def test_stop_a_run_whose_supervisor_was_killed(sandbox: Sandbox) -> None:
    own = held(sandbox)
    pid = killed_with_its_worker(own)
    assert "the supervisor of run 1 was killed" in own.run("runs").err
    assert is_alive(pid)
    assert own.run("runs", "stop", "1").err.splitlines()[-1] == "INFO  | run 1 is stopped"
    assert not is_alive(pid)
    assert states(own) == "stopped"


def test_a_killed_supervisors_job_is_adopted(sandbox: Sandbox) -> None:
    own = held(sandbox)
    killed_with_its_worker(own)
    worker = own.start("worker", "--drain", stderr=subprocess.PIPE)
    wait_for(lambda: supervisor(own, 1) != worker.pid and is_alive(supervisor(own, 1)))
    end(own, "a")
    _, err = worker.communicate(timeout=60)
    assert worker.returncode == 0
    assert b"going on with run 1" in err
    assert runs_of(own)[1]["tasks"][0]["attempt"] == 1
    assert own.ok("runs", "logs", "1") == "a\n"


def test_what_ended_unseen_counts(sandbox: Sandbox) -> None:
    own = held(sandbox, HELD + "; exit 5")
    pid = killed_with_its_worker(own)
    end(own, "a")
    wait_for(lambda: not is_alive(pid))
    drain(own, code=1)
    task = runs_of(own)[1]["tasks"][0]
    assert (task["attempt"], task["code"]) == (1, 5)


def test_what_died_is_repeated_once(sandbox: Sandbox) -> None:
    """It costs no try of `retries`, as it has not failed."""
    own = held(sandbox, 'echo $SKELEBOT_ATTEMPT >>"$TOP/attempts"; ' + HELD)
    pid = killed_with_its_worker(own)
    session = os.getsid(pid)
    kill_session(session)
    begun(own, "a").unlink()
    worker = own.start("worker", "--drain", stderr=subprocess.DEVNULL)
    wait_for(begun(own, "a").exists)
    assert runs_of(own)[1]["tasks"][0]["attempt"] == 2
    worker.kill()
    worker.wait()
    number = supervisor(own, 1)
    kill_session(number)
    drain(own, code=1)
    shown = runs_of(own)[1]
    assert (shown["state"], shown["tasks"][0]["attempt"]) == ("failed", 2)
    assert shown["reason"] == "run failed: run and all of its processes were killed"
    assert own.read("../attempts") == "1\n2\n"


def test_what_died_and_is_done_now_is_reported(sandbox: Sandbox) -> None:
    own = held(sandbox, f"test $SKELEBOT_ATTEMPT = 2 && exit; {HELD}")
    kill_session(os.getsid(killed_with_its_worker(own)))
    said = "WARN  | run 1: run had been killed, so it was started once more\n"
    assert said in drain(own)
    assert ", attempt 2, once killed\n" in own.ok("runs", "show", "1")


def kill_session(leader: int) -> None:
    """Kill all processes of a session, its leader first."""
    for pid in (leader, *(int(name) for name in os.listdir("/proc") if name.isdecimal())):
        try:
            if os.getsid(pid) == leader:
                os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.fixture
def small(sandbox: Sandbox) -> Iterator[Sandbox]:
    """A project with a store on a disk of 2 MB. It has a job that fills the disk, and one that does not."""
    own = queueing(sandbox, job("head -c 5000000 /dev/zero; exit 4", "fill"), job("echo fine", "fine"))
    disk = os.path.dirname(own.env["SKELEBOT_STORE"]) + "/small"
    os.mkdir(disk)
    if os.getuid() != 0:
        pytest.skip("only root can mount a small disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=True)
    yield own.with_env(SKELEBOT_STORE=f"{disk}/store")
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("options", ["", "-R"])
def test_a_store_that_may_not_be_written_to(anyone: Sandbox, options: str) -> None:
    if anyone.uid == 0:
        pytest.skip("root may write anywhere")
    store = anyone.root.parent / "home/store"
    own = queueing(anyone, job("echo fine")).with_env(SKELEBOT_STORE=str(store))
    own.ok("queue", "run")
    subprocess.run(["chmod", *options.split(), "u-w", store], check=True)
    for words in (("queue", "run"), ("worker", "--drain"), ("runs", "tag", "1", "x"), ("runs", "rebuild")):
        done = own.run(*words)
        assert (done.code, len(done.errors)) == (1, 1)
        assert f"is read-only for you; run `chmod -R u+w {store}`" in done.err
    subprocess.run(["chmod", *options.split(), "u+w", store], check=True)
    own.ok("worker", "--drain")


@pytest.mark.parametrize("command", ["queue", "retry", "checkout", "diff"])
def test_code_that_may_not_be_read_is_one_error_with_what_to_do(anyone: Sandbox, command: str) -> None:
    if anyone.uid == 0:
        pytest.skip("root may read anything")
    home = anyone.root.parent / "home"
    own = queueing(anyone, job("exit 1")).with_env(SKELEBOT_STORE=str(home / "store"))
    own.ok("queue", "run")
    own.run("worker", "--drain")
    own.write("new", "a file")
    own.ok("queue", "run")
    code = home / "store/code.git"
    code.chmod(0)
    words = {"checkout": ("1", str(home / "there")), "diff": ("1", "2"), "retry": ("1", "--now")}
    done = own.run(*(("queue", "run") if command == "queue" else ("runs", command, *words[command])))
    code.chmod(0o700)
    said = f"ERROR | {code} may not be read and written by you; run `chmod -R u+rwX {code}`"
    assert (done.code, done.errors) == (1, [said])


def test_a_job_that_fills_the_disk_keeps_its_exit_code(small: Sandbox) -> None:
    for name in ("fill", "fine"):
        small.ok("queue", name)
    for words in (
        ("worker", "--drain"),
        ("queue", "fine"),
        ("queue", "--now", "fine"),
        ("runs", "tag", "1", "x"),
    ):
        done = small.run(*words)
        assert done.code == 1
        assert len(done.errors) == 1
        assert f"the disk of the store {small.env['SKELEBOT_STORE']} is full; free some space" in done.err
    subprocess.run(
        ["mount", "-o", "remount,size=20m", os.path.dirname(small.env["SKELEBOT_STORE"])], check=True
    )
    drain(small, code=1)
    runs = runs_of(small)
    assert [(runs[n]["state"], runs[n]["tasks"][0]["attempt"]) for n in (1, 2)] == [
        ("failed", 1),
        ("done", 1),
    ]
    assert runs[1]["tasks"][0]["code"] == 4
    assert len(runs) == 2


# --- trying again ---


def chain(sandbox: Sandbox) -> Sandbox:
    """A queued chain of three jobs whose second one fails as long as there is no file `ok`."""
    own = queueing(
        sandbox,
        job('echo load >>"$TOP/trace"; echo l >load/x', "load", outputs="[load/]"),
        job(
            'echo train >>"$TOP/trace"; cat load/x; ls train; >train/$SKELEBOT_ATTEMPT; test -e "$TOP/ok"',
            "train",
            outputs="[train/]",
            mappings='["load/:ro"]',
        ),
        job('echo score >>"$TOP/trace"', "score"),
        environment="{TOP: null}",
    )
    own = own.with_env(TOP=str(sandbox.root.parent))
    own.write("load/.keep", "")
    own.ok("queue", *["load", "+", "train", "+", "score"])
    drain(own, code=1)
    return own


def test_retry_goes_on_at_the_job_that_failed(sandbox: Sandbox) -> None:
    own = chain(sandbox)
    shown = runs_of(own)[1]
    assert [task["state"] for task in shown["tasks"]] == ["done", "failed", "queued"]
    assert shown["reason"] == "train failed: it ended with exit code 1"
    own.write("../ok", "")
    own.write("skelebot.yaml", own.read("skelebot.yaml").replace("cat load/x", "exit 9"))  # its own code
    assert own.ok("runs", "retry", "1") == "1\n"
    drain(own)
    assert own.read("../trace").split() == ["load", "train", "train", "score"]
    assert own.ok("runs", "logs", "1", "train") == "l\n1\n"  # with what the failed attempt left
    done = own.run("runs", "retry", "1")
    assert done.code == 2
    assert "run 1 is done; --from JOB runs it again from a job" in done.err


def test_retry_clean(sandbox: Sandbox) -> None:
    own = chain(sandbox)
    own.write("../ok", "")
    assert own.run("runs", "retry", "--clean", "--now", "1").code == 0
    assert own.ok("runs", "logs", "1", "train") == "l\n"


def test_retry_clean_removes_nothing_of_a_run_that_has_just_been_started(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("touch out/x; false", outputs="[out/]"))
    own.ok("queue", "run")
    drain(own, code=1)
    with open(run_folder(own, 1) / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as its supervisor would
        done = own.run("runs", "retry", "1", "--clean")
    assert (done.code, done.errors) == (1, ["ERROR | run 1 is in use again, so nothing was removed"])
    assert (run_folder(own, 1) / "outputs/out/x").exists()
    own.ok("runs", "retry", "1", "--clean")
    assert not (run_folder(own, 1) / "outputs/out").exists()


def test_retry_from(sandbox: Sandbox) -> None:
    own = chain(sandbox)
    own.write("../ok", "")
    own.ok("runs", "retry", "1")
    drain(own)
    own.ok("runs", "retry", "--from", "train", "1")
    drain(own)
    assert own.read("../trace").split() == ["load", "train", "train", "score", "train", "score"]
    assert "no job 'trian'; did you mean `train`?" in own.run("runs", "retry", "--from", "trian", "1").err


def test_retry_after_a_run_that_was_removed(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("exit $1", args=ID))
    own.ok("queue", "run", "0")
    own.ok("queue", "--after", "1", "run", "4")
    drain(own, code=1)
    own.ok("runs", "rm", "1")
    own.ok("runs", "retry", "2")
    drain(own, code=1)
    assert runs_of(own)[2]["reason"] == "run failed: it ended with exit code 4"


def test_retry_all_that_failed(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("exit $1", args=ID))
    own.ok("queue", "--tag", "x", "run", "1")
    own.ok("queue", "run", "1")
    own.ok("queue", "--name", "n", "run", "1")
    own.ok("queue", "run", "0")
    drain(own, code=1)
    assert own.ok("runs", "retry", "--failed", "--tag", "x") == "1\n"
    assert own.ok("runs", "retry", "--failed", "--name", "n") == "3\n"
    assert own.ok("runs", "retry", "--failed") == "2\n"
    assert own.run("runs", "retry", "--failed").err == "INFO  | no run has failed\n"
    assert states(own) == "queued queued queued done"


def test_retry_all_that_failed_at_once(sandbox: Sandbox) -> None:
    """One that cannot be tried again, or fails again, keeps none of the others from it."""
    own = queueing(
        sandbox, job('echo $1 >>"$TOP/trace"; exit $1', args=ID, outputs="[out/]"), environment="{TOP: null}"
    )
    own = own.with_env(TOP=str(sandbox.root.parent))
    for code in ("4", "5", "6"):
        own.ok("queue", "run", code)
    drain(own, code=1)
    (run_folder(own, 1) / "lock").unlink()
    (run_folder(own, 1) / "lock").mkdir()
    done = own.run("runs", "retry", "--failed", "--now")
    assert (done.code, len(done.errors)) == (1, 1)
    assert own.read("../trace").split() == ["4", "5", "6", "5", "6"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["retry", "1", "--tag", "x"], "--tag only applies to --failed"),
        (["retry", "1", "--name", "x"], "--name only applies to --failed"),
        (["retry", "1", "--anyway"], "--anyway only applies to --code"),
        (["retry", "1", "--code", "now", "--from", "run"], "--from and --code now do not go together"),
        (["retry", "1", "--code", "now", "--clean"], "--clean and --code now do not go together"),
        (["tag", "1", ""], "expected a word; found an empty one"),
        (["retry"], "name a run, or write --failed"),
        (["retry", "1", "--failed"], "not both"),
        (["retry", "1"], "run 1 is queued; only one that has ended can be tried again"),
        (["rm", "1"], "run 1 is queued; stop it first"),
        (["logs", "1"], "run of run 1 has not begun: the run is queued"),
        (["logs", "1", "rnu"], "did you mean `run`?"),
        (["show", "2"], "there is no run 2; `skelebot runs --all` lists all runs"),
        (["show", "x"], "expected"),
        (["stop", "1", "x"], "expected"),
        (["stop", "2"], "there is no run 2"),
        (["tag", "1"], "missing argument"),
        (["shwo"], "shwo"),
    ],
)
def test_wrong_use(sandbox: Sandbox, words: list[str], error: str) -> None:
    own = queueing(sandbox, job("true"))
    own.ok("queue", "run")
    done = own.run("runs", *words)
    assert done.code in (1, 2)
    assert len(done.errors) == 1
    assert error in done.err
    assert states(own) == "queued"


def test_rm_removes_all_or_none(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("mkdir out/x; touch out/x/y; chmod 500 out/x", outputs="[out/]"))
    own.ok("queue", "run")
    drain(own)
    own.ok("queue", "run")
    assert own.run("runs", "rm", "1", "2").code == 2
    assert states(own) == "done queued"
    own.ok("runs", "rm", "1")
    assert not run_folder(own, 1).exists()


def test_rm_leaves_what_is_queued_again_meanwhile(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("false"))
    own.ok("queue", "run")
    drain(own, code=1)

    def retry(run: RunRecord) -> RunRecord:
        removing.append(own.start("runs", "rm", "1", stderr=subprocess.DEVNULL))
        time.sleep(1)  # it has found that the run has ended
        return replace(run, state="queued")

    removing: list[subprocess.Popen[bytes]] = []
    Store(own.env["SKELEBOT_STORE"]).update(1, retry)
    assert removing[0].wait(60) in (1, 2)
    assert states(own) == "queued"


# --- the table ---


def test_table(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("true", args=ID, params="[{name: rate, default: 1}]"))
    own.ok("queue", *["run", "a", "--rate", "2"])
    own.ok("queue", *["run", "a"])
    shown = own.run("runs")
    assert shown.out.splitlines()[0].split()[:4] == ["RUN", "STATE", "CHAIN", "run.rate"]
    assert "run.id" not in shown.out
    assert shown.err.splitlines()[0] == "INFO  | 0 running, 2 waiting"
    rows = own.ok("runs", "--csv", "--last", "1").splitlines()
    assert rows[0].startswith("run,state,chain")
    assert rows[1].startswith("2,queued,run a")
    assert rows[0].endswith(",created,took")
    own.ok("worker", "--drain")
    for row in csv.DictReader(own.ok("runs", "--csv").splitlines()):
        record = runs_of(own)[int(row["run"])]
        assert (row["created"], float(row["took"])) == (record["created"], record["seconds"])


def test_rebuild(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("true"))
    own.ok("queue", "run")
    drain(own)
    before = runs_of(own)
    Path(own.env["SKELEBOT_STORE"], "runs.db").write_bytes(b"x" * 5000)
    done = own.run("runs")
    assert done.code == 1
    assert "is damaged; `skelebot runs rebuild` rebuilds it" in done.err
    assert own.run("runs", "rebuild").err == "INFO  | the database was rebuilt from 1 run\n"
    assert runs_of(own) == before


def test_rebuild_beside_a_worker(sandbox: Sandbox) -> None:
    own = held(sandbox)
    queue(own, "a")
    worker = own.start("worker", "--drain", stderr=subprocess.DEVNULL)
    wait_for(begun(own, "a").exists)
    own.ok("runs", "rebuild")
    queue(own, "b")
    end(own, "a", "b")
    assert worker.wait(60) == 0
    assert states(own) == "done done"


def open_files(pid: int) -> list[str]:
    links: Any = Path(f"/proc/{pid}/fd").iterdir()
    return [os.readlink(link) for link in links if link.exists()]


def test_no_database_is_open_across_a_fork(sandbox: Sandbox) -> None:
    """SQLite's locks do not survive one: https://www.sqlite.org/howtocorrupt.html"""
    own = held(sandbox)
    queue(own, "a")
    worker = own.start("worker", stderr=subprocess.DEVNULL)
    wait_for(begun(own, "a").exists)
    lives = {"worker": worker.pid, "supervisor": supervisor(own, 1), "job": int(begun(own, "a").read_text())}
    for pid in lives.values():
        assert open_files(pid)
        assert [name for name in open_files(pid) if "runs.db" in name] == []
    assert [name for name in open_files(lives["job"]) if name.endswith("000001/lock")] == []
    end(own, "a")
    worker.terminate()
    worker.wait(60)


# --- how long it still takes ---


def test_the_table_says_how_long_the_queue_still_takes(sandbox: Sandbox) -> None:
    own = held(sandbox)
    queue(own, "a")
    assert "INFO  | time left: unknown: run has never ended here" in own.run("runs").err
    assert "TIME LEFT" not in own.ok("runs")
    end(own, "a")
    drain(own)
    queue(own, "b", "c")
    shown = own.run("runs")
    titles, last, first, ended = shown.out.splitlines()
    assert titles.endswith("  TOOK   TIME LEFT")
    assert all(re.search(r" ago +\d[\d.]* m?s$", line) for line in (last, first))
    assert re.search(r"done .* ago +[\d.]+ s$", ended)
    pattern = r"time left: about [\d.]+ s, until (\w{3} )?\d\d:\d\d \(from 1 run\), with one slot\n"
    assert re.search(pattern, shown.err)
    assert "TIME LEFT" not in own.ok("runs", "--csv").upper()
    worker = own.start("worker", "-j", "2", stderr=subprocess.DEVNULL)
    wait_for(begun(own, "c").exists)
    assert "with one slot" not in own.run("runs").err
    end(own, "b", "c")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert "time left" not in own.run("runs").err
