"""From a task to the Job and the Secret that a cluster gets. Nothing here runs anything."""

import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

from skelebot.keys import seconds
from skelebot.model import WORKDIR, Claim, Mount, Task
from skelebot.project.state import FOLDER
from skelebot.runners.attempts import METRICS
from skelebot.secret import Secret, Word, reveal, reveal_all
from skelebot.units import size

TOP = "/skelebot"  # the mapped folders, each by its number; see exchange.TOP
RUN = "/skelebot-run"  # what the run keeps
WORDS_FILE = "/skelebot-words/words"
METRICS_FILE = f"{RUN}/metrics.jsonl"
PATIENCE = 600  # seconds after which a gate that hears nothing ends
KEEP = 3600.0  # seconds that results wait where no key says otherwise

PROJECT, JOB, CHECKOUT = "skelebot.project", "skelebot.job", "skelebot.checkout"
TOKEN, ATTEMPT = "skelebot.run", "skelebot.attempt"
ROOT, MOUNTS = "skelebot.root", "skelebot.mounts"
MAKER = "skelebot.maker"  # the process that attends a run which is not kept
SCHEDULE = "skelebot.schedule"  # of a CronJob, and of all that is its own
ENV, STATE = "skelebot.environment", "skelebot.fingerprint"
CLAIM = "skelebot.claim"
STDIN = "skelebot.stdin"  # of a run that takes records from whoever sends them

_LONGEST = 52  # a CronJob adds eleven letters to the 63 that a name has
_LARGE = 100_000  # bytes of words from which they travel as a file

Manifest = dict[str, Any]


class Claimed(NamedTuple):
    """The mapped folders of a run that stay on the cluster.

    name: of the claim that holds them. root: of the checkout whose folders they are. folders: the place of
    each on the claim, by the mapping's number.
    """

    name: str = ""
    root: str = ""
    folders: tuple[tuple[int, str], ...] = ()


class Where(NamedTuple):
    """What a manifest is made of besides its task.

    image: the reference, by digest where it was pushed. user: UID[:GID] where the job does not run as the
    image's own. has_stdin: whether the client sends the job's input. is_open: whether the job begins without
    a client, and nobody comes for its results.
    """

    image: str
    namespace: str
    token: str
    checkout: str = ""
    user: str = ""
    arch: str = ""
    has_stdin: bool = False
    is_open: bool = False
    maker: str = ""
    claimed: Claimed = Claimed()


def job(task: Task, where: Where) -> Manifest:
    """Return the Job of a task."""
    name = job_name(task, where.token)
    labels = {**run_labels(task, where.checkout), TOKEN: where.token}
    if task.attempt:
        labels[ATTEMPT] = task.attempt.token
    queue = {"kueue.x-k8s.io/queue-name": task.cluster.local_queue} if task.cluster.local_queue else {}
    mounts = json.dumps([[m.source, m.target, m.read_only] for m in task.mounts])
    notes = {PROJECT: task.project, JOB: task.name, ROOT: task.root, MOUNTS: mounts, MAKER: where.maker}
    if where.claimed.folders:
        labels[CLAIM] = dns(where.claimed.name, 63)
        notes[CLAIM] = json.dumps(where.claimed)
    notes |= {STDIN: "true"} if task.stdin else {}
    mesh = {} if task.cluster.mesh is not False else {"sidecar.istio.io/inject": "false"}
    waits = {"proxy.istio.io/config": '{"holdApplicationUntilProxyStarts": true}'}
    waits = {**mesh, "linkerd.io/inject": "disabled"} if mesh else waits  # older ones know the annotation
    pod = _pod(task, where, name)
    if task.cluster.pod_spec:
        pod = merged(pod, json.loads(task.cluster.pod_spec))
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": where.namespace,
            "labels": {**labels, **queue},
            "annotations": notes,
        },
        "spec": {
            **({"suspend": True} if queue else {}),
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": int(keep_seconds(task)),
            "template": {"metadata": {"labels": {**labels, **mesh}, "annotations": waits}, "spec": pod},
        },
    }


class Schedule(NamedTuple):
    """What a CronJob is made of besides the Job.

    api: the version of batch/ that the cluster has. retries: how often a failed job is tried again.
    state: a fingerprint of what is deployed, by which a later one is compared.
    """

    cron: str
    env: str = ""
    retries: int = 0
    is_paused: bool = False
    api: str = "v1"
    state: str = ""


_BEGINS_WITHIN = 300  # seconds; what was due before, as while it was paused, is not made up for
_KEPT = 3  # ended runs of either kind


def cron_job(task: Task, where: Where, schedule: Schedule) -> Manifest:
    """Return the CronJob of a task, whose gate is open. It belongs to no checkout."""
    made = job(task, where)
    about, spec = made["metadata"], made["spec"]
    del spec["ttlSecondsAfterFinished"]  # a number of them is kept, however old they are
    spec["backoffLimit"] = schedule.retries
    notes = {PROJECT: task.project, JOB: task.name, ENV: schedule.env}
    own = {SCHEDULE: about["name"]}
    for each in (about, spec["template"]["metadata"]):
        each["labels"] |= own
    of_runs = {"labels": about["labels"], "annotations": {**about["annotations"], **notes, ROOT: ""}}
    return {
        "apiVersion": f"batch/{schedule.api}",
        "kind": "CronJob",
        "metadata": {**about, "annotations": {**notes, STATE: schedule.state}},
        "spec": {
            "schedule": schedule.cron,
            "suspend": schedule.is_paused,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": _BEGINS_WITHIN,
            "successfulJobsHistoryLimit": _KEPT,
            "failedJobsHistoryLimit": _KEPT,
            "jobTemplate": {"metadata": of_runs, "spec": spec},
        },
    }


def schedule_token(project: str, job: str, env: str) -> str:
    """What tells a job's CronJob from any other's, for all checkouts of the project."""
    return f"{zlib.crc32(json.dumps([project, job, env]).encode()):08x}"


def keep_seconds(task: Task) -> float:
    """How long results wait for their client; the job gives its own sign of life every 20 seconds."""
    return max(seconds(task.cluster.keep), 60) if task.cluster.keep else KEEP


def _pod(task: Task, where: Where, name: str) -> Manifest:
    cluster = task.cluster
    spec: Manifest = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": bool(cluster.service_account),
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 15,
        "securityContext": {**_pod_rights(where.user), **(_GROUP if where.claimed.folders else {})},
        **({"serviceAccountName": cluster.service_account} if cluster.service_account else {}),
        **({"priorityClassName": cluster.priority_class} if cluster.priority_class else {}),
        **({"tolerations": json.loads(cluster.tolerations)} if cluster.tolerations else {}),
    }
    selector = {"kubernetes.io/arch": where.arch} if where.arch else {}
    if cluster.node_selector:
        selector |= json.loads(cluster.node_selector)
    if selector:
        spec["nodeSelector"] = selector
    if cluster.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": each} for each in cluster.image_pull_secrets]
    spec["initContainers"] = [_gate(task, where)]
    spec["containers"] = [_job_container(task, where, name), _keeper(task, where)]
    spec["volumes"] = _volumes(task, where, name)
    return spec


def _pod_rights(user: str) -> Manifest:
    rights: Manifest = {"seccompProfile": {"type": "RuntimeDefault"}}
    if user:
        uid, _, gid = user.partition(":")
        rights |= {"runAsUser": int(uid), "runAsNonRoot": int(uid) != 0}
        rights |= {"runAsGroup": int(gid)} if gid else {}
    return rights


_RIGHTS = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
_HELPER = {"resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}, "securityContext": _RIGHTS}
# A claim is root's own: it becomes that of a group, which all containers are in.
_GROUP = {"fsGroup": 1000, "fsGroupChangePolicy": "OnRootMismatch"}


def _shared(where: Where) -> list[Manifest]:
    """What gate and keeper see: all mapped folders, and the run's own."""
    claimed = where.claimed.folders
    return [
        {"name": "files", "mountPath": TOP},
        {"name": "run", "mountPath": RUN},
        *({"name": "claim", "mountPath": f"{TOP}/{number}", "subPath": at} for number, at in claimed),
    ]


def _gate(task: Task, where: Where) -> Manifest:
    pod = {"name": "_SK_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}
    words = ("gate", "0" if where.is_open else str(PATIENCE), str(len(task.mounts)))
    return {"name": "gate", "image": where.image, **_command(words), "env": [pod], **_HELPER,
            "volumeMounts": _shared(where)}  # fmt: skip


def _keeper(task: Task, where: Where) -> Manifest:
    words = ("keeper", "0" if where.is_open else str(int(keep_seconds(task))))
    return {"name": "keeper", "image": where.image, **_command(words), **_HELPER,
            "volumeMounts": _shared(where)}  # fmt: skip


def _job_container(task: Task, where: Where, name: str) -> Manifest:
    limit = f"{task.timeout:f}".rstrip("0").rstrip(".")
    file = words_file(task)
    has_stdin = "1" if where.has_stdin or task.stdin else ""
    words = ("job", limit, has_stdin, file, *(() if file else map(str, task.argv)))
    container: Manifest = {
        "name": "job",
        "image": where.image,
        **_command(words),
        "workingDir": WORKDIR,
        "env": [*(_variable(each, value, name) for each, value in task.env), *_measured(task)],
        "resources": _resources(task),
        "securityContext": _RIGHTS,
        "volumeMounts": list(_job_mounts(task, where)),
    }
    if ports := sorted({port.rpartition("/")[0] or port for port in task.ports}):
        container["ports"] = [{"containerPort": int(port.rpartition(":")[2].split("-")[0])} for port in ports]
    return {key: value for key, value in container.items() if value not in ([], {})}


def _command(words: Iterable[str]) -> Manifest:
    return {"command": ["/bin/sh", "-c", literal(_script()), "skelebot"], "args": [*map(literal, words)]}


def literal(text: str) -> str:
    """Return a text that Kubernetes gives to the container as it was: it replaces `$(NAME)` and `$$`."""
    return text.replace("$", "$$")


def _variable(name: str, value: Word, secret: str) -> Manifest:
    if isinstance(value, Secret):
        return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": f"env.{name}"}}}
    return {"name": name, "value": literal(value)}


def _measured(task: Task) -> list[Manifest]:
    return [{"name": METRICS, "value": METRICS_FILE}] if task.metrics else []


def _resources(task: Task) -> Manifest:
    """The job's limits; what it gets of a node is reserved for it."""
    limits = task.limits
    own = {
        "cpu": f"{limits.cpus:g}" if limits.cpus else "",
        "memory": str(limits.memory) if limits.memory else "",
        "nvidia.com/gpu": str(limits.gpus) if limits.gpus > 0 else "",
    }
    own = {name: value for name, value in own.items() if value}
    requests = {**own, **({"ephemeral-storage": str(limits.disk)} if limits.disk else {})}
    return {name: value for name, value in (("limits", own), ("requests", requests)) if value}


def _job_mounts(task: Task, where: Where) -> Iterable[Manifest]:
    claimed = dict(where.claimed.folders)
    yield {"name": "run", "mountPath": RUN}
    if words_file(task) == WORDS_FILE:
        yield {"name": "words", "mountPath": os.path.dirname(WORDS_FILE), "readOnly": True}
    if task.limits.shm:
        yield {"name": "shm", "mountPath": "/dev/shm"}  # noqa: S108 - the container's
    for number, mount in enumerate(task.mounts):
        below = f"{number}/{os.path.basename(mount.source)}" if is_file(mount) else str(number)
        place = {"name": "files", "mountPath": mount.target, "subPath": below}
        if number in claimed:
            place |= {"name": "claim", "subPath": claimed[number]}
        yield {**place, "readOnly": True} if mount.read_only else place


def sent_folders(task: Task, where: Where) -> list[str]:
    """Return the mapped paths of the job that a client has to send, as they are not on the cluster."""
    return [each["mountPath"] for each in _job_mounts(task, where) if each["name"] == "files"]


def is_file(mount: Mount) -> bool:
    """Whether a mapping is one file."""
    return os.path.isfile(mount.source)


def _volumes(task: Task, where: Where, name: str) -> list[Manifest]:
    volumes: list[Manifest] = [{"name": "files", "emptyDir": {}}, {"name": "run", "emptyDir": {}}]
    if where.claimed.folders:
        volumes.append({"name": "claim", "persistentVolumeClaim": {"claimName": where.claimed.name}})
    if task.limits.shm:
        shm = {"medium": "Memory", "sizeLimit": str(task.limits.shm)}
        volumes.append({"name": "shm", "emptyDir": shm})
    if words_file(task) == WORDS_FILE:
        items = [{"key": "words", "path": os.path.basename(WORDS_FILE)}]
        volumes.append({"name": "words", "secret": {"secretName": name, "items": items}})
    return volumes


def arch_alone(made: Manifest, where: Where) -> str:
    """Return the image's architecture if a Job asks no more of a node, and its author has not named it."""
    spec = made["spec"]["template"]["spec"]
    is_alone = spec.get("nodeSelector") == {"kubernetes.io/arch": where.arch} and "affinity" not in spec
    return where.arch if is_alone else ""


# --- what stays on the cluster ---


def claimed(task: Task, root: str, checkout: str) -> Claimed:
    """Return which mapped folders of a task stay on its claim, and where.

    root, checkout: of the project, also for a recorded run, whose outputs are its own and go with it.
    """
    claim = task.cluster.claim
    if claim is None or f"/{FOLDER}/" in root:  # a rehearsal's copy goes with all that is its own
        return Claimed()
    name = claim if isinstance(claim, str) else f"{dns(task.project, 54)}-{checkout}"
    own = os.path.dirname(task.root)
    folders = (
        (number, f"{checkout}/{_folder_name(mount.source)}")
        for number, mount in enumerate(task.mounts)
        if not is_file(mount)
        and not (task.attempt and (not mount.read_only or f"{mount.source}/".startswith(f"{own}/")))
    )
    return Claimed(name, root, tuple(folders))


def claimed_of(job: Manifest) -> Claimed:
    """Return what the Job of a run has on a claim."""
    text = (job["metadata"].get("annotations") or {}).get(CLAIM)
    if not text:
        return Claimed()
    name, root, folders = json.loads(text)
    return Claimed(name, root, tuple((number, at) for number, at in folders))


def _folder_name(source: str) -> str:
    """The name of a mapped folder on a claim; different folders have different ones."""
    return f"{dns(os.path.basename(source), 40)}-{zlib.crc32(os.fsencode(source)):08x}"


def volume_claim(task: Task, where: Where) -> Manifest | None:
    """Return the claim that a task makes where it is missing; it belongs to no run."""
    claim = task.cluster.claim
    if not (isinstance(claim, Claim) and where.claimed.folders):
        return None
    labels = {PROJECT: dns(task.project, 63), CHECKOUT: where.claimed.name[-8:]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": where.claimed.name,
            "namespace": where.namespace,
            "labels": labels,
            "annotations": {PROJECT: task.project, ROOT: where.claimed.root},
        },
        "spec": {
            "accessModes": [claim.access_mode],
            "resources": {"requests": {"storage": str(size(claim.size))}},
            **({"storageClassName": claim.storage_class} if claim.storage_class else {}),
        },
    }


# --- words and secrets ---


def words_file(task: Task) -> str:
    """Where the job finds its words, if not in its arguments: a Secret, or a file that the client sends."""
    if any(isinstance(word, Secret) for word in task.argv):
        return WORDS_FILE
    size = sum(len(word.encode()) for word in task.argv if isinstance(word, str))
    return f"{RUN}/words" if size > _LARGE else ""


def words_data(task: Task, env: Mapping[str, str]) -> str:
    """The file of a job's words: one to a line, with \\ and \\n escaped."""
    known = {**env, **reveal_all(task.env, env)}
    words = (reveal(word, known) for word in task.argv)
    return "".join(word.replace("\\", "\\\\").replace("\n", "\\n") + "\n" for word in words)


def secret(task: Task, where: Where, env: Mapping[str, str]) -> Manifest | None:
    """Return the Secret of a task; None where it has no secrets."""
    values = reveal_all(task.env, env)
    data = {f"env.{name}": values[name] for name, value in task.env if isinstance(value, Secret)}
    if words_file(task) == WORDS_FILE:
        data["words"] = words_data(task, env)
    if not data:
        return None
    labels = {**run_labels(task, where.checkout), TOKEN: where.token}
    about = {"name": job_name(task, where.token), "namespace": where.namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": about, "stringData": data}


# --- names ---


def job_name(task: Task, token: str) -> str:
    """The name of a run's Job, and of all that is its own."""
    return f"{dns(f'{task.project}-{task.name}', _LONGEST - 1 - len(token))}-{token}"


def dns(text: str, longest: int) -> str:
    """A name that Kubernetes takes, different for different texts: https://www.rfc-editor.org/rfc/rfc1123."""
    clean = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if clean and clean == text and len(clean) <= longest:
        return clean
    sum = zlib.crc32(text.encode(errors="surrogatepass"))
    return f"{clean[: longest - 9].strip('-') or 'x'}-{sum:08x}"


def run_labels(task: Task, checkout: str) -> dict[str, str]:
    """The labels by which runs are found; the whole names are in the annotations."""
    labels = {PROJECT: dns(task.project, 63), JOB: dns(task.name, 63), CHECKOUT: checkout}
    return {name: value for name, value in labels.items() if value}


# --- what the user has to say about the pod ---


def merged(base: Any, over: Any) -> Any:
    """Return what `over` makes of a part of a manifest: keys replace keys, lists are merged by `name`."""
    if isinstance(base, dict) and isinstance(over, dict):
        both = {key: merged(base[key], over[key]) for key in base.keys() & over.keys()}
        return {**base, **over, **both}
    if isinstance(base, list) and isinstance(over, list) and all(map(_is_named, [*base, *over])):
        by_name = {each["name"]: each for each in base}
        for each in over:
            by_name[each["name"]] = merged(by_name.get(each["name"], {}), each)
        return list(by_name.values())
    return over


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and "name" in value


@cache
def _script() -> str:
    with open(os.path.join(os.path.dirname(__file__), "pod.sh"), encoding="utf-8") as file:
        lines = file.read().splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))


# --- as YAML ---


def yaml_text(manifest: Manifest) -> str:
    """The manifest as `kubectl apply` takes it."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
        # kubectl's parser takes 12e3 for a number, and y for true; this one's does neither.
        is_doubtful = re.fullmatch(r"[-+.\d][-+.:_\da-foxA-FOX]*|[yYnN]", data)
        style = "|" if "\n" in data else "'" if is_doubtful else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    Dumper.add_representer(str, text)
    return str(yaml.dump(manifest, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=200))
