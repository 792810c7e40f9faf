"""`components.experiments.notify`: the project's command at the end of runs and of the queue."""

import json
import os
import subprocess
from pathlib import Path

from harness import SKELEBOT, Sandbox, Terminal, job, queueing, runs_of, wait_for

# Appends what it is given to a file beside the project.
NOTE = 'echo "$SKELEBOT_RUN|$SKELEBOT_STATE|$SKELEBOT_CODE|$SKELEBOT_NAME|" >>../notes'
SHELL = job('eval "$1"', args="[{name: id}]")


def noting(sandbox: Sandbox, command: str = NOTE) -> Sandbox:
    """A project that runs any shell text, and this command at its end."""
    settings = {"experiments": {"notify": command}}
    own = queueing(sandbox, SHELL, components=json.dumps(settings), environment="{TOP: null}")
    return own.with_env(TOP=str(sandbox.root.parent))


def notes(sandbox: Sandbox) -> list[str]:
    file = sandbox.root.parent / "notes"
    return file.read_text().splitlines() if file.exists() else []


def drained(sandbox: Sandbox, *words: str) -> str:
    """What a worker reports until the queue is empty."""
    return sandbox.run("worker", "--drain", *words).err


def states(sandbox: Sandbox) -> list[str]:
    shown = runs_of(sandbox)
    return [shown[number]["state"] for number in sorted(shown)]


# --- when ---


def test_at_the_end_of_each_run_and_of_the_queue(sandbox: Sandbox) -> None:
    own = noting(sandbox)
    own.ok("queue", "--name", 'a "$(touch ../forged)"; b', "run", "true")
    own.ok("queue", "run", "exit 7")
    assert drained(own).splitlines() == ["INFO  | run 1: done", "INFO  | run 2: failed"]
    assert notes(own) == ['1|done|0|a "$(touch ../forged)"; b|', "2|failed|7|run exit 7|", "|empty|1|demo|"]
    assert not (own.root.parent / "forged").exists()
    own.ok("queue", "run", "true")
    drained(own)
    assert notes(own)[3:] == ["3|done|0|run true|", "|empty|0|demo|"]
    drained(own)
    assert len(notes(own)) == 5


def test_not_before_the_queue_is_empty(sandbox: Sandbox) -> None:
    own = noting(sandbox, 'echo "$SKELEBOT_RUN" >>../notes')
    for _ in range(3):
        own.ok("queue", "run", "true")
    drained(own)
    assert notes(own) == ["1", "2", "3", ""]


def test_a_run_in_front(sandbox: Sandbox) -> None:
    own = noting(sandbox)
    assert own.run("queue", "--now", "run", "exit 3").code == 3
    assert notes(own) == ["1|failed|3|run exit 3|"]


def test_a_run_that_is_stopped(sandbox: Sandbox) -> None:
    own = noting(sandbox)
    own.ok("queue", "run", "touch $TOP/begun; sleep 60")
    own.ok("queue", "run", "true")
    own.ok("runs", "stop", "2")  # it never began
    worker = own.start("worker", "--drain", stderr=subprocess.DEVNULL)
    wait_for((own.root.parent / "begun").exists)
    own.ok("runs", "stop", "1")
    assert worker.wait(60) == 0
    assert [line.split("|")[:2] for line in notes(own)] == [["1", "stopped"], ["", "empty"]]


def test_two_workers_report_the_end_of_the_queue_once(sandbox: Sandbox) -> None:
    own = noting(sandbox, 'echo "$SKELEBOT_RUN" >>../notes')
    for _ in range(6):
        own.ok("queue", "run", "sleep 0.2")
    workers = [own.start("worker", "--drain", stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [worker.wait(60) for worker in workers] == [0, 0]
    assert sorted(notes(own)) == ["", "1", "2", "3", "4", "5", "6"]


# --- which command ---


def test_the_command_is_the_one_of_the_time_of_queueing(sandbox: Sandbox) -> None:
    own = noting(sandbox, "echo first >>../notes")
    own.ok("queue", "run", "true")
    noting(sandbox, "echo second >>../notes")
    drained(own)
    assert notes(own) == ["first", "first"]


def test_a_worker_of_all_projects(sandbox: Sandbox) -> None:
    own = noting(sandbox)
    own.ok("queue", "run", "true")
    own.run("worker", "--drain", "--all", cwd=own.root.parent)
    assert notes(own) == ["1|done|0|run true|", "|empty|0|demo|"]


def test_a_worker_that_was_asked_to_end(sandbox: Sandbox) -> None:
    own = noting(sandbox)
    own.ok("queue", "run", "touch $TOP/begun; until [ -e $TOP/end ]; do sleep 0.05; done")
    worker = own.start("worker", stderr=subprocess.PIPE)
    wait_for((own.root.parent / "begun").exists)
    own.ok("worker", "--stop")
    assert worker.stderr
    assert b"waiting for 1 run" in worker.stderr.readline()
    Path(own.root.parent, "end").touch()
    worker.communicate(timeout=60)
    assert [line.split("|")[:2] for line in notes(own)] == [["1", "done"], ["", "empty"]]


def test_a_run_that_is_repeated(sandbox: Sandbox) -> None:
    own = noting(sandbox)
    own.ok("queue", "--now", "run", "true")
    own.ok("runs", "rerun", "--now", "1")
    assert [line.split("|")[0] for line in notes(own)] == ["1", "2"]


# --- what goes wrong ---


def test_a_failing_command_is_a_warning(sandbox: Sandbox) -> None:
    own = noting(sandbox, "echo out; echo no mail >&2; exit 3")
    own.ok("queue", "run", "true")
    done = own.run("worker", "--drain")
    warning = "WARN  | notify: the command ended with exit code 3: no mail"
    assert done.err.splitlines() == ["INFO  | run 1: done", warning, warning]
    assert (done.code, done.out, states(own)) == (0, "", ["done"])


def test_a_missing_program_is_a_warning(sandbox: Sandbox) -> None:
    own = noting(sandbox, "no-such-program")
    own.ok("queue", "run", "true")
    assert "WARN  | notify: the command ended with exit code 127: " in drained(own)
    assert states(own) == ["done"]


def test_a_command_that_writes_without_end_takes_no_memory(sandbox: Sandbox) -> None:
    own = noting(sandbox, "head -c 500M /dev/zero; head -c 500M /dev/zero >&2; echo; echo no >&2; exit 5")
    own.ok("queue", "run", "true")
    limited = f"ulimit -v 700000; exec {SKELEBOT} worker --drain"
    done = subprocess.run(["bash", "-c", limited], cwd=own.root, env=own.env, capture_output=True)
    assert b"notify: the command ended with exit code 5: " in done.stderr, done.stderr
    assert done.stderr.rstrip().endswith(b"no")


def test_a_command_that_hangs_is_killed_with_all_that_it_started(sandbox: Sandbox) -> None:
    own = noting(sandbox, '[ "$SKELEBOT_RUN" ] || exit 0; echo $$ >../pid; sleep 600 & sleep 600')
    own.ok("queue", "run", "true")
    own.ok("queue", "run", "true")
    assert drained(own).count("WARN  | notify: the command took longer than 10 seconds and was killed") == 2
    assert states(own) == ["done", "done"]
    group = int((own.root.parent / "pid").read_text())
    wait_for(lambda: not _is_group(group))


def _is_group(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_run_whose_worker_was_killed_is_reported_once(sandbox: Sandbox) -> None:
    own = noting(sandbox)
    own.ok("queue", "run", "touch $TOP/begun; until [ -e $TOP/end ]; do sleep 0.05; done")
    worker = own.start("worker", stderr=subprocess.DEVNULL)
    wait_for((own.root.parent / "begun").exists)
    worker.kill()
    worker.wait()
    Path(own.root.parent, "end").touch()
    wait_for(lambda: states(own) == ["done"] and notes(own))
    drained(own)
    assert [line.split("|")[:2] for line in notes(own)] == [["1", "done"], ["", "empty"]]


def test_ctrl_c_does_not_end_the_command(sandbox: Sandbox) -> None:
    own = noting(sandbox, "touch ../telling; sleep 1; echo told >>../notes")
    own.ok("queue", "run", "true")
    terminal = Terminal(own, f"{SKELEBOT} worker")
    wait_for((own.root.parent / "telling").exists)
    terminal.send(b"\x03")
    assert terminal.close() == 0
    assert notes(own)[0] == "told"
