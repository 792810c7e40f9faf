"""Where a run goes among the places of a worker, and what `--on` takes."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skelebot.errors import UsageError
from skelebot.json_form import from_json, to_json
from skelebot.model import NATIVE, Flags, Image, Limits, Place, Task
from skelebot.runners.runner import Capacity
from skelebot.runs import places
from skelebot.runs.places import HERE, Choice
from skelebot.runs.record import RunRecord, TaskRecord
from skelebot.runs.store import Candidate, Slots, slots_of

IMAGE = Image("demo:latest", "demo", base="", context="/p")
DEFAULT, A, B = Place(), Place("docker", "ssh://a"), Place("docker", "b")
KNOWN = {HERE: Capacity(4, 8000, 0), A: Capacity(8, 16000, None), B: Capacity(2, 4000, 2)}


def run(*where: Place, **limits: float) -> RunRecord:
    tasks = tuple(
        TaskRecord(
            "train",
            "0" * 40,
            IMAGE,
            Task("train", (), "/p", "demo", place, limits=Limits(**limits)),  # type: ignore[arg-type]
        )
        for place in where or (DEFAULT,)
    )
    return RunRecord("u", "demo", "/p", ("train",), tasks)


def queued(*where: Place, **limits: float) -> Candidate:
    """A run as a worker knows it that looks for the next one."""
    one = run(*where, **limits)
    return Candidate(1, slots_of(one), (), one.engine or NATIVE, one.is_movable)


def chosen(
    run: Candidate,
    *free: Place,
    slots: tuple[Place, ...] = (HERE, A, B),
    **taken: Slots,
) -> Choice:
    by_place = {{"here": HERE, "a": A, "b": B}[name]: slots for name, slots in taken.items()}
    return places.choose(run, slots, free, by_place, KNOWN.get)


# --- what --on takes ---


def test_places_and_their_slots() -> None:
    words = ("ssh://me@gpu2:2222=2", "gpu3-context=4", "tcp://10.0.0.1:2376=1", "k8s://gpu/ml=20")
    assert {str(place): slots for place, slots in places.parse(words).items()} == {
        "ssh://me@gpu2:2222": 2,
        "gpu3-context": 4,
        "tcp://10.0.0.1:2376": 1,
        "k8s://gpu/ml": 20,
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("gpu2",), "expected PLACE=SLOTS"),
        (("=2",), "expected PLACE=SLOTS"),
        (("gpu2=0",), "expected PLACE=SLOTS"),
        (("gpu2=two",), "expected PLACE=SLOTS"),
        (("gpu2=²",), "expected PLACE=SLOTS"),
        (("gpu2=10000",), "expected PLACE=SLOTS"),
        (("me@gpu2=2",), "name of a Docker context"),
        (("ssh://=2",), "name of a Docker context"),
        (("ssh://a b=2",), "name of a Docker context"),
        (("http://gpu2=2",), "expected an address with ssh://, tcp://, unix://"),
        (("default=2",), "engine of this machine"),
        (("gpu2=1", "gpu2=2"), "gpu2 is named twice"),
    ],
)
def test_what_is_no_place(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        places.parse(words)
    assert str(raised.value).startswith("--on: ")
    assert "\n" not in str(raised.value)


# --- where a run goes ---


def test_this_machine_comes_first_and_then_the_others_in_their_order() -> None:
    assert chosen(queued(), HERE, A, B) == Choice(HERE, HERE)
    assert chosen(queued(), A, B) == Choice(A, A)
    assert chosen(queued(), B) == Choice(B, B)
    assert chosen(queued()) == Choice(None, None)


@pytest.mark.parametrize("where", [(NATIVE,), (DEFAULT, NATIVE)])
def test_native_runs_stay_here(where: tuple[Place, ...]) -> None:
    assert chosen(queued(*where), A, B) == Choice(None, None)
    assert chosen(queued(*where), HERE, A).place == HERE
    assert chosen(queued(*where), A, slots=(A,)) == Choice(None, None)


def test_a_run_for_an_engine_of_its_own_stays_there() -> None:
    assert chosen(queued(B), HERE, A, B) == Choice(B, B)
    assert chosen(queued(B), HERE, A) == Choice(None, None)
    # Without slots there it takes one of this machine, but nothing of its CPUs.
    assert chosen(queued(B), HERE, A, slots=(HERE, A)) == Choice(HERE, B)
    assert chosen(queued(B), A, slots=(A,)) == Choice(None, None)


def test_what_a_run_needs_is_counted_on_each_machine() -> None:
    needy = queued(cpus=3.0)
    assert chosen(needy, HERE, A, B) == Choice(HERE, HERE)
    assert chosen(needy, HERE, A, B, here=Slots(2.0)) == Choice(A, A)
    assert chosen(needy, HERE, A, B, here=Slots(2.0), a=Slots(6.0)) == Choice(None, HERE)
    assert chosen(queued(), HERE, here=Slots(4.0, 8000)) == Choice(HERE, HERE)  # which needs nothing


def test_a_run_is_not_tried_on_a_machine_that_never_has_enough() -> None:
    assert chosen(queued(memory=10_000), HERE, B) == Choice(None, None)  # A has it, once it is free
    assert chosen(queued(gpus=1), HERE, B, slots=(HERE, B)) == Choice(B, B)
    assert chosen(queued(memory=10**9), HERE, A, B) == Choice(HERE, HERE)  # none has: it tries alone
    assert chosen(queued(memory=10**9), HERE, slots=(HERE,), here=Slots(1.0)) == Choice(None, HERE)


def test_gpus_whose_number_is_not_known_are_given_to_one_run_at_a_time() -> None:
    assert chosen(queued(gpus=1), A, slots=(A,)) == Choice(A, A)
    assert chosen(queued(gpus=1), A, slots=(A,), a=Slots(0.0, 0, 1)) == Choice(None, A)


@given(st.sets(st.sampled_from([HERE, A, B])), st.sampled_from([(), (A,), (NATIVE,)]), st.floats(0, 9))
def test_a_run_gets_a_free_slot_where_it_may_be(
    free: set[Place], where: tuple[Place, ...], cpus: float
) -> None:
    place = chosen(queued(*where, cpus=cpus), *free).place
    assert place is None or place in free
    assert place in (None, *where) or (place == HERE and where == (NATIVE,)) or not where


# --- a run in a place ---


def test_a_run_is_taken_to_places_and_comes_home() -> None:
    there = run(DEFAULT, DEFAULT).becoming("running").at_place(A)
    assert (there.engine, there.where, there.is_movable) == (A, "ssh://a", True)
    assert {task.task.place for task in there.tasks} == {A}
    assert from_json(RunRecord, to_json(there)) == there
    again = there.becoming("queued")
    assert (again.engine, again.where, again.taken_to) == (None, "default", (A,))
    both = again.becoming("running").at_place(B)
    assert (both.engine, both.taken_to) == (B, (A, B))
    assert both.becoming("done").where == "b"


def test_what_was_frozen_for_a_place_is_taken_nowhere() -> None:
    for where in (A,), (NATIVE,), (DEFAULT, NATIVE):
        frozen = run(*where)
        assert not frozen.is_movable
        assert frozen.at_home() == frozen
    assert not replace(run(), own=False).is_movable
    assert run(A).engine == A
    assert run(A, B).engine is run(NATIVE).engine is run(DEFAULT).engine is None


def test_a_place_that_does_not_answer_is_reported_once_and_not_asked_at_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    machines = places.Machines(Flags())
    assert machines.answers(A)
    assert machines.silent == []
    machines.note_silent(A, "no engine answers at ssh://a, or choose another with -d")
    machines.note_silent(A, "no engine answers at ssh://a")
    assert (machines.answers(A), machines.answers(B), machines.silent) == (False, True, [A])
    assert capsys.readouterr().err == (
        "WARN  | no engine answers at ssh://a; its runs wait in the queue, and it is asked again later\n"
    )
    assert machines.capacity(A, None) is None
