"""What a pod is doing, and why one does not run: from what the cluster says to what people read."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

Json = dict[str, Any]


class State(NamedTuple):
    """What a run's pod is doing.

    name: queued, pulling, waiting (for files), running, ended, failed. why: what people read about it.
    is_final: whether it will not get better by itself. code: of the job's container, once that has ended.
    has_begun: whether the job may have.
    """

    name: str
    why: str = ""
    is_final: bool = False
    code: int | None = None
    is_out_of_memory: bool = False
    has_begun: bool = True


def state(pod: Json) -> State:
    """Return what a pod is doing."""
    status = pod.get("status") or {}
    statuses = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    by_name = {each["name"]: each for each in statuses}
    ended = _part(by_name, "job", "terminated")
    if ended and ended.get("reason") in ("StartError", "ContainerCannotRun"):
        why = f"its container could not be started: {_line(ended.get('message'))}"
        return State("failed", why, True, has_begun=False)
    if ended:
        is_killed = ended.get("reason") == "OOMKilled"
        return State("ended", code=int(ended["exitCode"]), is_out_of_memory=is_killed)
    if pod["metadata"].get("deletionTimestamp"):
        return State("failed", "its pod was deleted", True)
    if status.get("phase") in ("Failed", "Succeeded"):
        return State("failed", _why_failed(status, by_name), True)
    for each in statuses:
        if failure := _why_waiting(each):
            return failure
    if _part(by_name, "job", "running") is not None:
        return State("running")
    if _part(by_name, "gate", "running") is not None:
        return State("waiting")
    if (_part(by_name, "gate", "terminated") or {}).get("exitCode") == 0:
        return State("running")  # its containers are being made
    return _before(status)


def _part(by_name: dict[str, Json], name: str, part: str) -> Json | None:
    found = (by_name.get(name, {}).get("state") or {}).get(part)
    return found if isinstance(found, dict) else None


def _before(status: Json) -> State:
    """Of a pod of which nothing runs yet."""
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return State("queued", f"no node takes it yet: {_line(condition.get('message'))}")
        if condition.get("type") == "PodScheduled" and condition.get("status") == "True":
            return State("pulling")
    return State("queued")


def _why_failed(status: Json, by_name: dict[str, Json]) -> str:
    if said := _line(status.get("message") or status.get("reason")):
        return f"its pod was ended by the cluster: {said}"
    gate = _part(by_name, "gate", "terminated")
    if gate and gate.get("exitCode"):
        return "its gate was not opened in time"
    return "its pod was ended by the cluster"


# What registries and runtimes say of an image that will not come by waiting: it is missing, or refused, which
# some say of one that is missing.
_MISSING = r"not found|manifest unknown"
_REFUSED = r"denied|unauthorized|authentication|forbidden|no basic auth"
_NEVER = rf"{_MISSING}|{_REFUSED}|no match for platform|invalid"
_NOT_PULLED = (
    "ErrImagePull",
    "ErrImageNeverPull",
    "ImagePullBackOff",
    "InvalidImageName",
    "RegistryUnavailable",
)


def _why_waiting(status: Json) -> State | None:
    """Why a container does not start, where that is known."""
    waiting = (status.get("state") or {}).get("waiting") or {}
    reason, said = waiting.get("reason", ""), _line(waiting.get("message"))
    if reason in _NOT_PULLED:
        text = f"the cluster cannot pull {status.get('image')}: {said}"
        if re.search(_REFUSED, said.lower()):
            text += "; name a secret with its login in cluster.imagePullSecrets"
        is_final = reason in ("ErrImageNeverPull", "InvalidImageName") or bool(
            re.search(_NEVER, said.lower())
        )
        return State("failed" if is_final else "pulling", text, is_final, has_begun=False)
    if reason in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
        return State("failed", f"its container could not be made: {said}", True, has_begun=False)
    return None


def why_no_pod(events: Iterable[Json]) -> str:
    """Why a Job has no pod, by its events: a quota, a missing service account, a policy."""
    for event in events:
        if event.get("reason") == "FailedCreate":
            return f"the cluster makes no pod for it: {_line(event.get('message'))}"
    return ""


def why_not_mounted(events: Iterable[Json]) -> str:
    """Why a pod does not have its volumes yet, by its events."""
    last = max(events, key=lambda each: str(each.get("lastTimestamp") or ""), default={})
    is_it = last.get("reason") in ("FailedMount", "FailedAttachVolume")
    return f"its volumes cannot be mounted yet: {_line(last.get('message'))}" if is_it else ""


def is_restricted(why: str) -> bool:
    """Whether it is the pod's user, or what that may do, for which a namespace refuses it."""
    return bool(re.search("violates PodSecurity|pod ?security ?policy", why, re.IGNORECASE))


def is_unavailable(why: str) -> bool:
    """Whether the registry does not have the image, or may not have it."""
    return bool(re.search(f"cannot pull .*({_MISSING}|{_REFUSED})", why, re.IGNORECASE))


def why_no_node(said: str, arch: str, others: Sequence[str] | None) -> str:
    """Why no node will ever take a pod, by what the scheduler says; "" where one may.

    arch: the image's, where the pod needs no more of a node than that. others: the architectures that the
    nodes have instead; None where that is unknown, and the scheduler's counts tell it.
    """
    if missing := re.search(r'persistentvolumeclaim "([^"]+)" not found', said):
        return (
            f"the claim {missing[1]} does not exist in its namespace; create it, "
            "or give cluster.claim a size to have one made"
        )
    of_all = re.search(
        r"0/(\d+) nodes are available: (\d+) node\(s\) didn't match [^,.]*node (?:affinity|selector)", said
    )
    if not arch or not of_all or (others is None and of_all[1] != of_all[2]) or others == []:
        return ""
    found = f"; they are {' and '.join(others)}" if others else ""
    return (
        f"its image is for {arch}, and no node is{found}; remove the image, and set "
        f"DOCKER_DEFAULT_PLATFORM=linux/{(others or ['ARCHITECTURE'])[0]} to have it built for them"
    )


def has_proxy(pod: Json) -> bool:
    """Whether a service mesh has added its Envoy, which is ready when it says so at port 15021."""
    for each in pod["spec"]["containers"]:
        probe = (each.get("readinessProbe") or {}).get("httpGet") or {}
        if each["name"] == "istio-proxy" or probe.get("port") == 15021:
            return True
    return False


def has_failed(job: Json) -> bool:
    """Whether the cluster has given a Job up."""
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(each.get("type") == "Failed" and each.get("status") == "True" for each in conditions)


def has_succeeded(job: Json) -> bool:
    """Whether the cluster counts a Job as done."""
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(each.get("type") == "Complete" and each.get("status") == "True" for each in conditions)


def has_ended(job: Json) -> bool:
    """Whether the cluster has done with a Job."""
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(
        each.get("type") in ("Complete", "Failed") and each.get("status") == "True" for each in conditions
    )


def _line(text: object) -> str:
    return " ".join(str(text or "").split())
