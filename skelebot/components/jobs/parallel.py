"""Needed jobs that run at once: `-j N`."""

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import IO, Any

from skelebot import console, foreground
from skelebot.component import Aside, Link
from skelebot.errors import STOPPING, ConfigError, Interrupted, SkelebotError
from skelebot.process import GUARD, Streams

_COLOURS = (36, 33, 32, 35, 34)


def run(links: Sequence[Link], limit: int) -> tuple[int, list[str]]:
    """Run the links, each once those have ended that it needs.

    Return the exit code of the first failure, after which no other begins, and the names of those that did
    not. limit: how many run at once.
    """
    group = _Group(links, limit)
    code = foreground.attend(lambda launch: group, _Group.run, _Group.send)
    return code, group.waiting


class _Group:
    """Links that run at once, each in a thread; signals come to the main thread, which passes them on."""

    def __init__(self, links: Sequence[Link], limit: int) -> None:
        self._links, self._limit = {link.command.name: link for link in links}, limit
        self._width = max(map(len, self._links))
        self._ended: queue.SimpleQueue[tuple[str, int | BaseException]] = queue.SimpleQueue()
        self._live: dict[str, Callable[[int, bool], None]] = {}
        self._lock = threading.RLock()  # a handler may come while the main thread holds it
        self.waiting = list(self._links)
        self._signum, self._stopped = 0, threading.Event()
        self._output = threading.Lock()

    def run(self) -> int:
        """Run all of them."""
        graph = {name: [n for n in _needs(link) if n in self._links] for name, link in self._links.items()}
        running, code = 0, 0
        broken: BaseException | None = None
        done: set[str] = set()
        while self.waiting or running:
            ready = [name for name in self.waiting if done.issuperset(graph[name])]
            for name in ready[: self._limit - running] if not (code or broken or self._signum) else ():
                self.waiting.remove(name)
                running += 1
                threading.Thread(target=self._run, args=(name,), daemon=True).start()
            if not running:
                break
            name, outcome = self._next()
            running -= 1
            if isinstance(outcome, BaseException):  # such as that nobody reads stdout any more
                broken = broken or outcome
            else:
                done.add(name)
                code = code or outcome
        if broken:
            raise broken
        return code

    def _next(self) -> tuple[str, int | BaseException]:
        while True:
            try:
                return self._ended.get(timeout=1)  # to run handlers of signals that another thread got
            except queue.Empty:
                continue

    def send(self, signum: int, delivered: bool) -> None:
        """Pass a signal on to all that run."""
        with self._lock:
            if signum in STOPPING or signum == signal.SIGKILL:
                self._signum = signum
                self._stopped.set()
            live = list(self._live.values())
        for send in live:
            send(signum, delivered)

    # --- in a thread of its own ---

    def _run(self, name: str) -> None:
        try:
            self._ended.put((name, self._code_of(self._links[name])))
        except BaseException as error:
            self._ended.put((name, error))

    def _code_of(self, link: Link) -> int:
        command, name = link.command, link.command.name
        GUARD.value = self._guard
        sinks = [self._sink(name, stream) for stream in (sys.stdout, sys.stderr)]
        streams = Streams(b"", *sinks)
        session = link.session._replace(aside=Aside(streams, self._attend, self._pause))
        try:
            if command.is_up_to_date and command.is_up_to_date(session, link.values):
                console.info(f"{name} is up to date")
                return 0
            code = command.run(session, link.values)
            if code:
                console.error(f"{name} ended with exit code {code}")
            return code
        except Interrupted as error:
            return error.code
        except SkelebotError as error:
            if self._signum:  # of what it has ended
                return 128 + self._signum
            for problem in error.problems if isinstance(error, ConfigError) else (str(error),):
                console.error(f"{name}: {problem}")
            return error.code
        finally:
            for sink in sinks:
                sink.finish()

    def _sink(self, name: str, stream: IO[str] | None) -> "_Lines":
        label = f"{name:<{self._width}} | "
        if stream and stream.isatty() and not os.environ.get("NO_COLOR"):
            colour = _COLOURS[list(self._links).index(name) % len(_COLOURS)]
            label = f"\x1b[{colour}m{label}\x1b[0m"
        return _Lines(stream.fileno() if stream else None, console.printable(label).encode(), self._output)

    def _attend(
        self,
        start: Callable[[Callable[[], Any]], Any],
        wait: Callable[[Any], int],
        send: Callable[[Any, int, bool], None],
        raw_terminal: bool = False,
    ) -> int:
        """Start a program and wait for it; `send` passes it the signals that come meanwhile."""
        if self._signum:
            raise Interrupted(self._signum)
        run = start(nullcontext)
        name = threading.current_thread().name
        with self._lock:
            self._live[name] = lambda signum, delivered: send(run, signum, delivered)
            missed = self._signum
        if missed:
            send(run, missed, False)
        try:
            code = wait(run)
        finally:
            with self._lock:
                del self._live[name]
        return 128 + self._signum if self._signum else code

    @contextmanager
    def _guard(self, end: Callable[[], None]) -> Iterator[None]:
        """Let a signal end a program that prepares a job, such as a build; none that fetches its results."""
        name = threading.current_thread().name
        with self._lock:
            is_waiting = name in self._live
            if not is_waiting:
                self._live[name] = lambda signum, delivered: end()
            missed = self._signum
        try:
            if missed and not is_waiting:
                end()
            yield
        finally:
            if not is_waiting:
                with self._lock:
                    del self._live[name]

    def _pause(self, seconds: float) -> None:
        """Wait. Raises Interrupted once a signal has asked Skelebot to end."""
        if self._stopped.wait(seconds):
            raise Interrupted(self._signum)


def _needs(link: Link) -> tuple[str, ...]:
    return link.command.job.needs if link.command.job else ()


class _Lines:
    """Where a stream of a job goes: to the same one of Skelebot's own, each line after a label.

    fd: None where that is closed.
    """

    def __init__(self, fd: int | None, label: bytes, lock: threading.Lock) -> None:
        self._fd, self._label, self._lock, self._rest = fd, label, lock, b""

    def __call__(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._write(lines)

    def finish(self) -> None:
        """Write what came without a line end."""
        if self._rest:
            self._write([self._rest])
            self._rest = b""

    def _write(self, lines: list[bytes]) -> None:
        data = b"".join(self._label + line + b"\n" for line in lines)
        with self._lock:
            while data and self._fd is not None:
                data = data[os.write(self._fd, data) :]
