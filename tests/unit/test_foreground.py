"""The signals of this process, put off or passed on."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from skelebot import foreground
from skelebot.errors import STOPPING, Interrupted
from skelebot.model import Step

Launch = Callable[[], AbstractContextManager[None]]


def kill(signum: int) -> None:
    """Send this thread a signal: of a test runner's other threads, one could take that of the process."""
    signal.pthread_kill(threading.get_ident(), signum)
    time.sleep(0.01)


# --- uninterrupted ---


@pytest.fixture
def seen() -> list[int]:
    return []


@pytest.fixture(autouse=True)
def _handlers(seen: list[int]) -> Iterator[None]:
    before = {s: signal.signal(s, lambda number, frame: seen.append(number)) for s in STOPPING}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.mark.parametrize("signum", STOPPING)
def test_a_signal_is_put_off_until_the_block_has_ended(seen: list[int], signum: int) -> None:
    with foreground.uninterrupted():
        kill(signum)
        assert seen == []
    time.sleep(0.01)
    assert seen == [signum]


def test_blocks_within_one_another_put_off_to_the_last(seen: list[int]) -> None:
    with foreground.uninterrupted():
        with foreground.uninterrupted():
            kill(signal.SIGTERM)
        assert seen == []
    assert seen == [signal.SIGTERM]


def test_a_block_that_fails_lets_signals_through_again(seen: list[int]) -> None:
    with pytest.raises(ValueError, match="x"), foreground.uninterrupted():
        raise ValueError("x")
    kill(signal.SIGINT)
    assert seen == [signal.SIGINT]


def test_a_thread_may_be_uninterrupted_too(seen: list[int]) -> None:
    def run() -> None:
        with foreground.uninterrupted():
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    time.sleep(0.05)
    assert seen == [signal.SIGTERM]


# --- attend ---


class Job:
    """Something to attend: it records each signal, and the functions given to it decide what happens."""

    def __init__(self, on_start: Callable[[], None], on_wait: Callable[[], None], code: int = 7) -> None:
        self.on_start, self.on_wait, self.code = on_start, on_wait, code
        self.sent: list[tuple[int, bool]] = []

    def attend(self, raw: bool = True) -> int:
        return foreground.attend(self.start, self.wait, self.send, raw)

    def start(self, launch: Launch) -> "Job":
        with launch():
            self.on_start()
        return self

    def wait(self, job: "Job") -> int:
        self.on_wait()
        return self.code

    def send(self, job: "Job", signum: int, delivered: bool) -> None:
        self.sent.append((signum, delivered))


def nothing() -> None: ...


def test_without_a_signal_the_code_is_the_jobs() -> None:
    assert Job(nothing, nothing).attend() == 7


def test_a_signal_while_the_job_runs_is_passed_on_and_is_the_code() -> None:
    job = Job(nothing, lambda: kill(signal.SIGTERM))
    assert job.attend() == 128 + signal.SIGTERM
    assert job.sent == [(signal.SIGTERM, False)]


# Skelebot cannot handle SIGKILL; the others tell of its own faults.
FATAL = ("SIGKILL", "SIGABRT", "SIGBUS", "SIGEMT", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP")
HARMLESS = ("SIGCHLD", "SIGCONT", "SIGURG", "SIGWINCH", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGINFO")
IGNORED = ("SIGPIPE", "SIGXFSZ")  # by Python
OTHERS = [
    signum
    for signum in signal.Signals
    if signum.name not in (*FATAL, *HARMLESS, *IGNORED) and "SIGRT" not in signum.name
]


@pytest.mark.parametrize("signum", sorted(set(OTHERS) - set(STOPPING)))
def test_a_signal_that_is_no_request_to_stop_is_passed_on(signum: signal.Signals) -> None:
    job = Job(nothing, lambda: kill(signum))
    assert job.attend() == 7
    assert job.sent == [(signum, False)]


def test_signals_while_the_job_starts_reach_it_once_it_has_started() -> None:
    def on_start() -> None:
        kill(signal.SIGTERM)
        kill(signal.SIGHUP)
        assert job.sent == []

    job = Job(on_start, nothing)
    assert job.attend() == 128 + signal.SIGTERM
    assert job.sent == [(signal.SIGTERM, False), (signal.SIGHUP, False)]


def test_a_signal_before_anything_is_launched_ends_skelebot() -> None:
    def start(launch: Launch) -> Job:
        kill(signal.SIGTERM)
        raise AssertionError

    job = Job(nothing, nothing)
    with pytest.raises(Interrupted) as interrupted:
        foreground.attend(start, job.wait, job.send)
    assert interrupted.value.code == 143
    assert job.sent == []


def test_the_third_request_to_stop_kills() -> None:
    def on_wait() -> None:
        for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM, signal.SIGTERM):
            kill(signum)

    job = Job(nothing, on_wait)
    assert job.attend() == 143
    first, second, *others = (signum for signum, _ in job.sent)
    assert (first, second, others) == (signal.SIGTERM, signal.SIGHUP, [signal.SIGKILL] * 2)


def test_requests_while_the_job_starts_count() -> None:
    def on_wait() -> None:
        kill(signal.SIGTERM)
        kill(signal.SIGTERM)

    job = Job(lambda: kill(signal.SIGTERM), on_wait)
    job.attend()
    assert [signum for signum, _ in job.sent] == [signal.SIGTERM, signal.SIGTERM, signal.SIGKILL]


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    job = Job(nothing, lambda: kill(signal.SIGHUP))
    assert job.attend() == 7
    assert job.sent == []


def fail() -> None:
    raise ValueError("x")


def test_handlers_come_back_when_the_job_has_ended(seen: list[int]) -> None:
    Job(nothing, nothing).attend()
    with pytest.raises(ValueError, match="x"):
        Job(nothing, fail).attend()
    kill(signal.SIGTERM)
    assert seen == [signal.SIGTERM]


def test_a_program_in_front_gets_each_signal() -> None:
    step = Step(("sh", "-c", "trap 'exit 9' TERM; kill -TERM $PPID; while :; do sleep 0.05; done"))
    assert foreground.attend_program(step) == 128 + signal.SIGTERM


# --- Skelebot's own handlers ---

_INSTALL = """
import os, signal, sys
from skelebot import foreground
from skelebot.errors import STOPPING, Interrupted
foreground.install_signal_handlers()
try:
    os.kill(os.getpid(), int(sys.argv[1]))
    print("went on")
except Interrupted as error:
    print(error.code)
"""


@pytest.mark.parametrize("signum", STOPPING)
@pytest.mark.parametrize("ignored", [False, True])
def test_a_signal_unwinds_skelebot_unless_its_caller_ignores_it(signum: int, ignored: bool) -> None:
    def ignore() -> None:
        if ignored:
            signal.signal(signum, signal.SIG_IGN)

    argv = [sys.executable, "-c", _INSTALL, str(int(signum))]
    root = str(Path(foreground.__file__).parents[1])
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=ignore,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert done.stdout == ("went on\n" if ignored else f"{128 + signum}\n")
