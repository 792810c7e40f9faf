"""What decides whether a run takes over what another has made."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from skelebot.model import NATIVE, Image, Limits, Mount, Place, Task
from skelebot.runs import cache, workspace
from skelebot.runs import store as stores
from skelebot.runs.record import RunRecord, TaskRecord
from skelebot.runs.store import Store
from skelebot.secret import Secret

LABELS = Mount("/p/labels", "/app/labels", read_only=True)
TASK = Task("train", ("python", "train.py"), "/p", "demo", NATIVE, env=(("A", "1"),), mounts=(LABELS,))
LOAD = TaskRecord("load", "0" * 40, Image("demo:latest", "demo", "", "/p"), TASK, outputs=("data/",))
TRAIN = replace(LOAD, job="train", outputs=("models/",))
RUN = RunRecord("u1", "demo", "/p", ("train",), (LOAD, TRAIN), packages=("sha256:1",))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return stores.opened(str(tmp_path / "store"))


def with_train(**facts: Any) -> RunRecord:
    return replace(RUN, tasks=(LOAD, replace(TRAIN, **facts)))


def with_task(**facts: Any) -> RunRecord:
    return with_train(task=replace(TASK, **facts))


@pytest.mark.parametrize(
    "changed",
    [
        with_train(job="score"),
        with_train(tree="1" * 40),
        with_train(image=replace(TRAIN.image, pinned="sha256:2")),
        with_train(outputs=("models/", "report/")),
        with_task(argv=("python", "other.py")),
        with_task(env=(("A", "2"),)),
        with_task(env=(("B", "1"),)),
        with_task(mounts=(LABELS._replace(target="/app/other"),)),
        with_task(mounts=(LABELS._replace(read_only=False),)),
        with_task(mounts=(LABELS._replace(output=True),)),
        with_task(user="root"),
        with_task(place=Place()),
        replace(RUN, packages=("sha256:2",)),
        replace(RUN, data=(("/p/labels", "another"),)),
    ],
)
def test_what_decides_a_result_is_in_the_key(store: Store, changed: RunRecord) -> None:
    assert cache.key(store, changed, 1) != cache.key(store, RUN, 1)


@pytest.mark.parametrize(
    "same",
    [
        replace(RUN, uid="u2", number=7, name="fast", tags=("x",), priority=3),
        with_task(limits=Limits(cpus=2), timeout=60),
    ],
)
def test_what_decides_no_result_is_not(store: Store, same: RunRecord) -> None:
    assert cache.key(store, same, 1) == cache.key(store, RUN, 1)


def test_the_engine_to_which_a_worker_takes_a_run_decides_no_result(store: Store) -> None:
    in_docker = with_task(place=Place())
    taken = in_docker.at_place(Place.at("ssh://gpu2"))
    assert taken.tasks[1].task.place == Place.at("ssh://gpu2")
    assert cache.key(store, taken, 1) == cache.key(store, in_docker, 1)


def test_where_the_checkout_is_decides_no_result(store: Store) -> None:
    mount = LABELS._replace(source="/q/labels")
    moved = replace(with_task(root="/q", mounts=(mount,)), root="/q")
    assert cache.key(store, moved, 1) == cache.key(store, RUN, 1)


def test_what_an_earlier_job_has_made_is_in_the_key(store: Store) -> None:
    before = [cache.key(store, RUN, at) for at in (0, 1)]
    data = Path(workspace.outputs_folder(store, RUN), "data")
    data.mkdir(parents=True)
    (data / "days").write_text("5")
    assert [cache.key(store, RUN, at) == before[at] for at in (0, 1)] == [True, False]


def test_the_value_of_a_secret_is_in_the_key(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = with_task(env=(("TOKEN", Secret("variable", "TOKEN")),))
    keys: list[str] = []
    for value in ("one", "two", "one"):
        monkeypatch.setenv("TOKEN", value)
        keys.append(cache.key(store, run, 1))
    assert keys[0] == keys[2] != keys[1]


@pytest.fixture
def pair(store: Store) -> list[RunRecord]:
    """A run that has made something, and one that may take it over."""
    both = store.add([replace(RUN, uid=uid) for uid in ("u1", "u2")])
    data = Path(workspace.outputs_folder(store, both[0]), "data")
    (data / "empty").mkdir(parents=True)
    (data / "x").write_text("made")
    (data / "link").symlink_to("/nowhere")
    os.mkfifo(data / "pipe")
    made = workspace.made(store, both[0], 0)
    store.update(both[0].number, lambda run: run.with_task(0, made=made))
    store.note_made("key", both[0].number, 0)
    os.makedirs(workspace.attempt_of(store, both[1], 0).folder)
    return both


def test_what_is_taken_over_is_all_but_pipes(store: Store, pair: list[RunRecord]) -> None:
    assert cache.take_over(store, pair[1], 0, "key") == pair[0].number
    data = Path(workspace.outputs_folder(store, pair[1]), "data")
    assert sorted(os.listdir(data)) == ["empty", "link", "x"]
    assert (os.readlink(data / "link"), (data / "x").read_text()) == ("/nowhere", "made")


def test_a_run_takes_over_nothing_from_itself(store: Store, pair: list[RunRecord]) -> None:
    assert cache.take_over(store, pair[0], 0, "key") == 0


def test_what_cannot_be_copied_is_made_again(
    store: Store, pair: list[RunRecord], capsys: pytest.CaptureFixture[str]
) -> None:
    in_the_way = Path(workspace.outputs_folder(store, pair[1]), "data")
    in_the_way.parent.mkdir()
    in_the_way.touch()
    assert cache.take_over(store, pair[1], 0, "key") == 0
    assert not in_the_way.exists()
    assert f"the outputs of run 1 cannot be copied: {in_the_way}: file exists" in capsys.readouterr().err
