"""Whose turn it is: of the runs that have the same folders on a claim, one that writes there runs alone."""

import json
import time
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

from skelebot import console, process
from skelebot.model import WAITING, Mount
from skelebot.runners.kubernetes import pod
from skelebot.runners.kubernetes.client import Client
from skelebot.runners.kubernetes.manifest import CLAIM, MAKER, MOUNTS, Claimed, claimed_of, dns

Json = dict[str, Any]


def await_turn(
    client: Client,
    task: str,
    claimed: Claimed,
    mounts: Sequence[Mount],
    own: str = "",
    since: float = 0,
    on_wait: Callable[[], object] = dict,
) -> None:
    """Wait until no other run uses the same folders of a claim, unless all of them only read.

    own: the name of the run's own Job once it is made, since when by the monotonic clock; only runs that were
    made before it count then. on_wait: called again and again meanwhile.
    """
    if not claimed.folders:
        return
    # The cluster's times are in whole seconds: a second later, no Job is made that would be before it.
    time.sleep(max(0, since + 1 - time.monotonic()) if own else 0)
    said = ""
    while name := _first_user(client, folders(claimed, mounts), claimed.name, own):
        if name != said:
            said = name
            console.info(f"{task} waits for {name}, which uses the same folders of the claim {claimed.name}")
        on_wait()
        time.sleep(1)


def folders(claimed: Claimed, mounts: Sequence[Mount]) -> dict[str, bool]:
    """The folders of a run on its claim, each with whether the run may write there."""
    return {place: not mounts[number].read_only for number, place in claimed.folders}


def _first_user(client: Client, used: dict[str, bool], claim: str, own: str) -> str:
    """The name of a run that is to end first."""
    selector = f"{CLAIM}={dns(claim, 63)}"
    before = before_it(client.list("jobs", labelSelector=selector), used, own)
    pods: dict[str, Json] = {}
    for each in sorted(client.list("pods", labelSelector=selector), key=_order) if before else ():
        pods.setdefault(each["metadata"]["labels"].get("job-name", ""), each)
    return next((name for job in before if is_at_it(job, pods.get(name := job["metadata"]["name"]))), "")


def before_it(jobs: Sequence[Json], used: dict[str, bool], own: str = "") -> list[Json]:
    """Return the Jobs, made before a run's own if there is one, that must not use its folders beside it."""
    first = takewhile(lambda job: job["metadata"]["name"] != own, sorted(jobs, key=_order))
    return [
        job
        for job in first
        if any(place in used and (writes or used[place]) for place, writes in _folders_of(job))
    ]


def _order(each: Json) -> tuple[str, str]:
    return each["metadata"]["creationTimestamp"], each["metadata"]["name"]


def _folders_of(job: Json) -> list[tuple[str, bool]]:
    mounts = [Mount(*fields) for fields in json.loads(job["metadata"]["annotations"][MOUNTS])]
    return [*folders(claimed_of(job), mounts).items()]


def is_at_it(job: Json, its_pod: Json | None) -> bool:
    """Whether a run uses its folders, or will."""
    state = pod.state(its_pod) if its_pod else pod.State("failed" if pod.has_ended(job) else "queued")
    maker = job["metadata"]["annotations"].get(MAKER, "")
    if state.name in WAITING and maker and not process.is_alive(maker):
        return False  # nobody opens its gate any more
    return state.name not in ("ended", "failed")
