"""The places in which a worker has slots: this machine, and engines of others."""

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from skelebot import console, runners
from skelebot.errors import SkelebotError, UsageError
from skelebot.model import NATIVE, Flags, Image, Place
from skelebot.runners.attempts import Unreachable
from skelebot.runners.runner import Capacity
from skelebot.runs.record import RunRecord
from skelebot.runs.store import Candidate, Slots

HERE = NATIVE  # stands for this machine with its engine
THIS_MACHINE = "this machine"

_MOST = 9999
_SCHEMES = ("ssh", "tcp", "unix", "k8s")
_AGAIN = 10.0  # seconds until a place that does not answer is asked again, at least
_SHARE = 10  # and so many times as long as asking has taken

_CONTEXT = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9_.+-]*"
)  # https://docs.docker.com/engine/manage-resources/contexts/


def parse(words: Iterable[str]) -> dict[Place, int]:
    """Return the slots in each place by the words of `--on`, PLACE=SLOTS. Raises UsageError."""
    found: dict[Place, int] = {}
    for word in words:
        place, _, slots = word.rpartition("=")
        shown = repr(console.one_line(word))
        if not place or not slots.isdecimal() or not slots.isascii() or not 0 < int(slots) <= _MOST:
            raise UsageError(
                f"--on: expected PLACE=SLOTS, such as ssh://gpu2=2, with 1 to {_MOST} slots; found {shown}"
            )
        if problem := _problem(place):
            raise UsageError(f"--on: {problem}; found {shown}")
        if Place.at(place) in found:
            raise UsageError(f"--on: {place} is named twice; write its slots once")
        found[Place.at(place)] = int(slots)
    return found


def _problem(place: str) -> str:
    """Return what is wrong with a place; "" if nothing is."""
    scheme, separator, rest = place.partition("://")
    if place == "default":
        return "default is the engine of this machine; give its slots with -j"
    if separator and scheme not in _SCHEMES:
        return f"expected an address with {', '.join(f'{each}://' for each in _SCHEMES)}, or a Docker context"
    if (separator and re.fullmatch(r"[^\s,]+", rest)) or (not separator and _CONTEXT.fullmatch(place)):
        return ""
    return "expected ssh://USER@MACHINE:PORT, tcp://MACHINE:PORT or the name of a Docker context"


def name(place: Place) -> str:
    """Return how a place is called where slots are shown."""
    return THIS_MACHINE if place == HERE else str(place)


def home(run: RunRecord, places: Collection[Place]) -> Place:
    """Return whose slot a run takes where it is: an engine's that the worker has slots on, or else HERE's."""
    return run.engine if run.engine in places else HERE  # type: ignore[return-value]


class Choice(NamedTuple):
    """Whose slot a run gets, or None; and of which machine it takes, or waits for, what it needs."""

    place: Place | None
    machine: Place | None


def choose(
    run: Candidate,
    slots: Collection[Place],
    free: Collection[Place],
    taken: Mapping[Place, Slots],
    capacity: Callable[[Place], Capacity | None],
) -> Choice:
    """Choose a place for a run: the first that has a free slot, and as much free of what the run needs.

    slots: all places of the worker; free: those with a free slot, that answer. taken: of each machine, by its
    engine's place, or HERE. capacity: gives what a machine has, or None if that is not known. A run that fits
    nowhere waits for the first machine that has enough in all.
    """
    own = run.place if run.place in slots else HERE
    others = [place for place in slots if place != HERE] if run.is_movable else []
    places = [place for place in (own, *others) if place in slots]

    def machine(place: Place) -> Place:
        return run.place if place == own else place

    needed = run.slots
    if any(needed) and len(places) > 1:
        places = [place for place in places if _has(capacity(machine(place)), needed)] or places
    places = [place for place in places if place in free]
    for place in places:
        at = machine(place)
        if not any(needed) or _fits(needed, taken.get(at, Slots()), capacity(at)):
            return Choice(place, at)
    return Choice(None, machine(places[0]) if places else None)


def _has(capacity: Capacity | None, needed: Slots) -> bool:
    """Tell whether a machine may have that much in all."""
    if capacity is None:
        return True
    return all(m is None or n <= m for n, m in zip(needed, capacity, strict=True))


def _fits(needed: Slots, taken: Slots, capacity: Capacity | None) -> bool:
    """Tell whether a machine has that much left. What it never has may try when nothing else runs."""
    if not any(taken) or capacity is None:
        return True
    pairs = zip(needed, taken, capacity, strict=True)
    return all(n == 0 or (t == 0 if m is None else t + n <= m) for n, t, m in pairs)


class Machines:
    """What is known of the machines of places: what they have, and which do not answer."""

    def __init__(self, flags: Flags) -> None:
        self._flags = flags
        self._known: dict[tuple[Place, bool], Capacity] = {}
        self._again: dict[Place, float] = {}  # when to ask again those that do not answer

    def capacity(self, machine: Place, image: Image | None) -> Capacity | None:
        """Return what a machine has, asked once; None if that is not known."""
        key = (machine, image is not None)
        if key not in self._known and self.answers(machine):
            try:
                found = runners.at(machine, self._flags).capacity(image)
            except SkelebotError:  # the run will say what is wrong
                return None
            if image is not None and found.gpus is None:
                return found  # its image may bring the answer
            self._known[key] = found
        return self._known.get(key)

    def answers(self, place: Place) -> bool:
        """Tell whether a place answers, as far as is known; one that did not is asked again in time."""
        until = self._again.get(place)
        if until is None:
            return True
        try:
            if time.monotonic() < until or not self.ask(place):
                return False
        except SkelebotError as error:
            self.note_silent(place, str(error))
            return False
        console.info(f"{place} answers again")
        return True

    def ask(self, place: Place) -> bool:
        """Ask a place whether it is there. Raises SkelebotError if it can never be."""
        began = time.monotonic()
        try:
            self._known[place, False] = runners.at(place, self._flags).capacity()
        except Unreachable as error:
            self.note_silent(place, str(error), time.monotonic() - began)
            return False
        self._again.pop(place, None)
        return True

    def note_silent(self, place: Place, why: str, took: float = 0.0) -> None:
        """Note that a place does not answer; say so unless it was known."""
        if place not in self._again:
            why = why.replace(", or choose another with -d", "")
            console.warn(f"{why}; its runs wait in the queue, and it is asked again later")
        self._again[place] = time.monotonic() + max(_AGAIN, _SHARE * took)

    @property
    def silent(self) -> list[Place]:
        """Return the places that do not answer."""
        return list(self._again)
