"""Jobs on a cluster: the place, the settings, the manifest and what a pod's state means, all by value."""

import contextlib
import io
import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from skelebot.components.cluster import ClusterSettings
from skelebot.errors import SkelebotError, UsageError
from skelebot.json_form import from_json, to_json
from skelebot.model import Attempt, Claim, Cluster, Flags, Job, Json, Limits, Mount, Place, Project, Task
from skelebot.options import parse_options
from skelebot.process import Streams
from skelebot.project import plan
from skelebot.runners.attempts import Unreachable
from skelebot.runners.kubernetes import files, manifest, pod, turn
from skelebot.runners.kubernetes.client import Answer, Broken, Client, Ended
from skelebot.runners.kubernetes.logs import Noted, OutputCopy
from skelebot.runners.kubernetes.manifest import Claimed, Where, dns, literal, merged
from skelebot.runners.kubernetes.run import ClusterRun, Known, missing
from skelebot.secret import Secret, typed_secret

from .helpers import problems

GOLDEN = Path(__file__).with_name("golden")

PROJECT = Project("demo")
WHERE = Where("registry.example.com/team/demo@sha256:" + "a" * 64, "ml", "0a1b2c3d", "deadbeef", arch="amd64")
TASK = Task(
    "train", ("bash", "-c", 'python train.py "$@"', "train", "--rate", "0.1"), "/home/me/demo", "demo"
)


# --- the place ---


@pytest.mark.parametrize(
    ("host", "kind"),
    [("k8s://", "cluster"), ("k8s://gpu/ml", "cluster"), ("ssh://box", "docker"), (None, "docker")],
)
def test_a_host_with_k8s_is_a_cluster(host: str | None, kind: str) -> None:
    job = Job("train", "true", "h", host=host)
    assert plan.place(PROJECT, job, Flags()) == Place(kind, host)  # type: ignore[arg-type]


def test_host_is_a_second_name_of_docker_host() -> None:
    from skelebot.chain import OPTIONS

    words = ["--host", "k8s://a/b", "train"]
    assert parse_options(OPTIONS, words) == ({"docker-host": "k8s://a/b"}, ["train"])


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("k8s://", "k8s://gpu%2Feu%3A1/ml"),
        ("k8s:///other", "k8s://gpu%2Feu%3A1/other"),
        ("k8s://laptop", "k8s://laptop/ml"),
        ("k8s://laptop/x", "k8s://laptop/x"),
        ("ssh://box", "ssh://box"),
    ],
)
def test_what_a_place_leaves_out_is_the_components(written: str, meant: str) -> None:
    component = ClusterSettings(context="gpu/eu:1", namespace="ml")
    assert component.place(Place.at(written), PROJECT) == Place.at(meant)
    assert ClusterSettings().place(Place.at(written), PROJECT).host == written.replace(":///", ":///")


def test_a_context_is_percent_encoded() -> None:
    client = Client(Place.at("k8s://arn%3Aaws%2Fx/ml"))
    assert (client.context, client.namespace) == ("arn:aws/x", "ml")
    with pytest.raises(UsageError, match="expected k8s://CONTEXT/NAMESPACE; write / and : as %2F and %3A"):
        Client(Place.at("k8s://a/b/c"))


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (500, "dial tcp 10.0.0.1:443: connect: connection refused", Unreachable),  # of kubectl's proxy
        (500, "getting credentials: exec: executable aws failed with exit code 255", Unreachable),
        (502, "EOF", Unreachable),
        (503, '{"message": "apiserver is shutting down"}', Unreachable),
        (500, '{"message": "etcdserver: mvcc: database space exceeded"}', Answer),
        (404, '{"message": "namespaces \\"x\\" not found"}', Answer),
    ],
)
def test_what_kubectl_says_itself_means_that_the_cluster_cannot_be_reached(
    status: int, text: str, kind: type[SkelebotError]
) -> None:
    error = Client(Place.at("k8s://gpu/ml"))._refused(status, text)
    assert type(error) is kind
    assert ("cannot be reached" in str(error)) == (kind is Unreachable)


# --- the settings ---


def test_a_job_overrides_the_component_key_by_key() -> None:
    spec = {"containers": [{"name": "job", "tty": True}], "hostNetwork": True}
    above = ClusterSettings(
        priority_class="low",
        keep="2h",
        mesh=False,
        pod_spec=Json(json.dumps(spec)),
        image_pull_secrets=("a",),
    )
    over = {"containers": [{"name": "job", "stdin": True}, {"name": "more"}]}
    own = Cluster(priority_class="high", pod_spec=Json(json.dumps(over)))
    task = replace(TASK, place=Place.at("k8s://"), cluster=own)
    found = above.task(task, PROJECT).cluster
    assert (found.priority_class, found.keep, found.mesh, found.image_pull_secrets) == (
        "high",
        "2h",
        False,
        ("a",),
    )
    assert json.loads(found.pod_spec) == {
        "containers": [{"name": "job", "tty": True, "stdin": True}, {"name": "more"}],
        "hostNetwork": True,
    }
    assert above.task(replace(task, place=Place()), PROJECT).cluster == found


def test_the_settings_are_checked_with_their_place(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """\
name: demo
components:
  cluster: {context: gpu, nodeSelector: [a], mesh: off, keep: 2h}
jobs:
- {name: a, source: "true", help: h, host: "k8s://gpu/UPPER"}
- {name: b, source: "true", help: h, cluster: {tolerations: {}, podSpec: {a: 1}, namespace: A}}
- {name: c, source: "true", help: h, cluster: {claim: Data}}
- {name: d, source: "true", help: h, cluster: {claim: {size: much, accessMode: ReadWriteOnce}}}
- {name: e, source: "true", help: h, cluster: {claim: {storageClass: fast}}}
""",
    )
    text = "\n".join(found)
    assert "cluster.nodeSelector: expected keys with values, found a list" in text
    assert "jobs[0].host: expected ssh://user@host, tcp://host:port, k8s://CONTEXT/NAMESPACE" in text
    assert "cluster.tolerations: expected a list, found" in text
    assert "cluster.namespace: expected a name of Kubernetes" in text
    assert "jobs[2].cluster.claim: expected a name of Kubernetes" in text
    assert "jobs[3].cluster.claim.size: expected a size from 1b to 1024t" in text
    assert "jobs[4].cluster.claim: `size` is missing" in text
    assert len(found) == 7


def test_a_task_for_a_cluster_can_be_stored() -> None:
    for claim in (None, "data", Claim("50Gi", "fast")):
        cluster = Cluster(keep="1h", claim=claim, pod_spec=Json('{"a": [1]}'))
        task = replace(TASK, place=Place.at("k8s://a/b"), cluster=cluster)
        assert from_json(Task, json.loads(json.dumps(to_json(task)))) == task


# --- the manifest ---

TASKS = {
    "plain": TASK,
    "full": replace(
        TASK,
        argv=("bash", "-c", "echo $(HOME) $$", "é\n", typed_secret("hunter2")),
        mounts=(
            Mount("/home/me/demo/data", "/app/data", True),
            Mount("/home/me/demo/out", "/app/out", output=True),
        ),
        env=(("A", "$(TOKEN) $$"), ("TOKEN", Secret("variable", "TOKEN"))),
        limits=Limits(1.5, 8 << 30, 1 << 30, 2, 10 << 30),
        timeout=90.0,
        ports=("8080:80",),
        attempt=Attempt("/f", "00ff"),
        cluster=Cluster(
            service_account="runner",
            node_selector=Json('{"disk": "ssd"}'),
            tolerations=Json('[{"key": "gpu", "operator": "Exists"}]'),
            priority_class="high",
            image_pull_secrets=("pull",),
            keep="2h",
            mesh=False,
            pod_spec=Json('{"containers": [{"name": "job", "resources": {"limits": {"cpu": "4"}}}]}'),
        ),
    ),
    "stdin": replace(TASK, mode="d", stdin=True),
    "queue": replace(TASK, cluster=Cluster(local_queue="team-a")),
    "claim": replace(
        TASK,
        mounts=(
            Mount("/home/me/demo/data", "/app/data", True),
            Mount(__file__, "/app/file"),
            Mount("/home/me/demo/out", "/app/out", output=True),
        ),
        cluster=Cluster(claim=Claim("50Gi", "fast")),
    ),
    "long": replace(TASK, name="Train_" + "x" * 200, project="Ünï demo"),
    "many words": replace(TASK, argv=("bash", "-c", "true", "x" * 200_000)),
}
WHERES = {
    "here": WHERE,
    "open": WHERE._replace(is_open=True),
    "as a user": WHERE._replace(user="1000:2000"),
    "as root": WHERE._replace(user="0"),
}


def where_of(task: Task, where: Where = WHERE) -> Where:
    return where._replace(claimed=manifest.claimed(task, task.root, where.checkout))


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")


@pytest.mark.parametrize("name", ["plain", "full", "queue", "claim"])
def test_manifests_are_as_recorded(name: str) -> None:
    where = where_of(TASKS[name])
    both = filter(None, (manifest.volume_claim(TASKS[name], where), manifest.job(TASKS[name], where)))
    made = "---\n".join(map(manifest.yaml_text, both)).replace(__file__, "/home/me/demo/file")
    script = re.compile(r"- \|-?\n( {10,}.*\n|\n)+")
    made = script.sub("- SCRIPT\n", made)
    path = GOLDEN / f"kubernetes-{name}.yaml"
    if os.environ.get("SKELEBOT_TEST_GOLDEN"):
        path.write_text(made)
    assert made == path.read_text()


VERSIONS = [f"1.{minor}" for minor in range(25, 38)]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.usefixtures("token")
def test_manifests_are_valid_for_each_version(version: str) -> None:
    validation = pytest.importorskip("kubernetes_validate")
    for task in TASKS.values():
        for where in WHERES.values():
            where = where_of(task, where)
            validation.validate(manifest.job(task, where), version, strict=True)
            if claim := manifest.volume_claim(task, where):
                validation.validate(claim, version, strict=True)
            if made := manifest.secret(task, where, os.environ):
                validation.validate(made, version, strict=True)


@pytest.mark.usefixtures("token")
def test_no_secret_is_in_a_manifest() -> None:
    task = TASKS["full"]
    assert "hunter2" not in manifest.yaml_text(manifest.job(task, WHERE))
    made = manifest.secret(task, WHERE, os.environ)
    assert made
    assert made["stringData"]["env.TOKEN"] == "hunter2"
    assert made["stringData"]["words"].splitlines()[-1] == "hunter2"
    assert manifest.secret(TASK, WHERE, os.environ) is None


def test_a_job_that_takes_records_has_an_input() -> None:
    job = plan.task(PROJECT, Job("train", "true", "h", mode="d", stdin=True), {}, Flags(), {})
    made = manifest.job(replace(job, place=Place.at("k8s://")), WHERE)
    (of_job, _) = made["spec"]["template"]["spec"]["containers"]
    assert of_job["args"][:3] == ["job", "0", "1"]
    assert made["metadata"]["annotations"]["skelebot.stdin"] == "true"


def test_stdin_is_for_jobs_in_the_background(tmp_path: Path) -> None:
    text = "name: demo\njobs:\n- {name: a, source: b, help: c, stdin: true}\n"
    (problem,) = problems(tmp_path, text)
    assert problem.endswith(
        "jobs[0].stdin: a job in the foreground reads what is piped into it; remove `stdin` or add `mode: d`"
    )
    assert problems(tmp_path, text.replace("stdin", "mode: d, stdin")) == []
    (problem,) = problems(tmp_path, text.replace("stdin", "mode: d, schedule: '@daily', stdin"))
    assert problem.endswith(
        "jobs[0].stdin: nobody sends records to a job that runs by a schedule; remove `stdin` or `schedule`"
    )


def test_an_open_pod_begins_and_ends_without_a_client() -> None:
    spec = manifest.job(TASK, WHERES["open"])["spec"]["template"]["spec"]
    (gate,), (_, keeper) = spec["initContainers"], spec["containers"]
    assert (gate["args"][:2], keeper["args"]) == (["gate", "0"], ["keeper", "0"])


def test_a_pod_is_restricted_where_its_user_is_named() -> None:
    spec = manifest.job(TASK, WHERES["as a user"])["spec"]["template"]["spec"]
    assert spec["securityContext"] == {
        "seccompProfile": {"type": "RuntimeDefault"},
        "runAsUser": 1000,
        "runAsGroup": 2000,
        "runAsNonRoot": True,
    }
    for container in (*spec["initContainers"], *spec["containers"]):
        rights = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["securityContext"] == rights
    root = manifest.job(TASK, WHERES["as root"])["spec"]["template"]["spec"]["securityContext"]
    assert root["runAsNonRoot"] is False


def expanded(text: str) -> str:
    """What a container gets for a text, as the kubelet reads it.

    https://github.com/kubernetes/kubernetes/blob/master/third_party/forked/golang/expansion/expand.go
    """

    def replaced(match: "re.Match[str]") -> str:
        return "$" if match[0] == "$$" else "EXPANDED"

    return re.sub(r"\$\$|\$\([^)]*\)", replaced, text)


@given(st.text(alphabet=st.sampled_from("$()A {}\n")) | st.text())
def test_any_text_arrives_as_it_was(text: str) -> None:
    assert expanded(literal(text)) == text


@given(st.text(), st.integers(min_value=12, max_value=63))
def test_any_text_gives_a_name_that_kubernetes_takes(text: str, longest: int) -> None:
    name = dns(text, longest)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)
    assert len(name) <= longest


def test_names_stay_apart_and_leave_room() -> None:
    names = {dns(text, 20) for text in ("a_b", "a-b", "A-b", "a-b-", "x" * 30, "x" * 31, "")}
    assert len(names) == 7
    assert len(manifest.job_name(TASKS["long"], "0a1b2c3d")) <= 52


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), min_size=1, max_size=5))
def test_words_of_a_file_are_read_by_the_shell_as_they_were(words: list[str]) -> None:
    script = Path(manifest.__file__).with_name("pod.sh").read_text()
    loop = re.search(r"    set --\n    while.*?<\"\$_sk_words\"\n", script, re.DOTALL)
    assert loop
    data = manifest.words_data(replace(TASK, argv=tuple(words)), {})
    read = f"_sk_words=/dev/stdin; {loop[0]}\nprintf '%s\\0' \"$@\""
    done = subprocess.run(["sh", "-c", read], input=data.encode(), stdout=subprocess.PIPE, check=True)
    assert done.stdout.decode().split("\0")[:-1] == words


def test_parts_of_a_pod_are_merged_by_name() -> None:
    base = {"a": 1, "containers": [{"name": "job", "x": {"y": 1}}, {"name": "keeper"}], "words": ["a"]}
    over = {"containers": [{"name": "job", "x": {"z": 2}}, {"name": "new"}], "words": ["b"]}
    assert merged(base, over) == {
        "a": 1,
        "containers": [{"name": "job", "x": {"y": 1, "z": 2}}, {"name": "keeper"}, {"name": "new"}],
        "words": ["b"],
    }


@pytest.mark.parametrize(
    "text", ["789e3949", "12e-3", "+1e5", ".5", "1_0", "0o17", "0b1", "1:30", "y", "N", "-"]
)
def test_text_that_another_parser_takes_for_something_else_is_quoted(text: str) -> None:
    assert manifest.yaml_text({"a": text, text: "b"}) == f"a: '{text}'\n'{text}': b\n"


def test_the_yaml_is_read_as_it_was_meant() -> None:
    made = manifest.job(TASKS["full"], WHERE)
    assert yaml.safe_load(manifest.yaml_text(made)) == made


# --- what stays on a claim ---


def claimed(task: Task, root: str = "/home/me/demo") -> Claimed:
    return manifest.claimed(task, root, "deadbeef")


def test_mapped_folders_stay_on_a_claim_and_files_do_not() -> None:
    found = claimed(TASKS["claim"])
    assert (found.name, found.root) == ("demo-deadbeef", "/home/me/demo")
    (data, at), (out, _) = found.folders
    assert (data, out) == (0, 2)
    assert re.fullmatch("deadbeef/data-[0-9a-f]{8}", at)
    made = manifest.job(TASKS["claim"], where_of(TASKS["claim"]))
    assert manifest.claimed_of(made) == found
    assert manifest.claimed_of(manifest.job(TASK, WHERE)) == Claimed()


def test_folders_of_one_name_are_apart_on_a_claim() -> None:
    mounts = (Mount("/a/data", "/app/a"), Mount("/b/data", "/app/b"), Mount("/é/DATA", "/app/c"))
    task = replace(TASK, mounts=mounts, cluster=Cluster(claim="shared"))
    assert len({at for _, at in claimed(task).folders}) == 3


def test_what_a_recorded_run_makes_stays_its_own() -> None:
    mounts = (
        Mount("/home/me/demo/data", "/app/data", True),
        Mount("/store/7/outputs/models", "/app/models", output=True),
        Mount("/store/7/outputs/clean", "/app/clean", True),
        Mount("/home/me/demo/log", "/app/log"),
    )
    task = replace(TASK, root="/store/7/engine", mounts=mounts, attempt=Attempt("/f", "00ff"))
    found = claimed(replace(task, cluster=Cluster(claim="shared")))
    assert [number for number, _ in found.folders] == [0]
    of_checkout = replace(TASK, mounts=mounts, cluster=Cluster(claim="shared"))
    assert found.folders[0] == claimed(of_checkout).folders[0]


def test_a_rehearsal_leaves_a_claim_alone() -> None:
    assert claimed(TASKS["claim"], "/home/me/demo/.skelebot/rehearsal/home/me/demo") == Claimed()


def of_job(name: str, second: int, *mounts: Mount, maker: str = "", ended: bool = False) -> Any:
    task = replace(TASK, mounts=mounts, cluster=Cluster(claim="shared"))
    made = manifest.job(task, where_of(task, WHERE._replace(maker=maker)))
    made["metadata"] |= {"name": name, "creationTimestamp": f"2026-01-01T00:00:0{second}Z"}
    conditions = [{"type": "Complete", "status": "True"}] if ended else []
    return {**made, "status": {"conditions": conditions}}


READS, WRITES = Mount("/demo/data", "/app/data", True), Mount("/demo/data", "/app/data")
ELSEWHERE = Mount("/demo/out", "/app/out")


@pytest.mark.parametrize(
    ("mine", "theirs", "waits"),
    [
        (READS, READS, False),
        (READS, WRITES, True),
        (WRITES, READS, True),
        (WRITES, WRITES, True),
        (WRITES, ELSEWHERE, False),
    ],
)
def test_runs_that_write_to_the_same_folder_take_turns(mine: Mount, theirs: Mount, waits: bool) -> None:
    used = turn.folders(manifest.claimed_of(of_job("b", 2, mine)), (mine,))
    assert turn.before_it([of_job("a", 1, theirs)], used) == [of_job("a", 1, theirs)] * waits


def test_the_run_that_was_made_first_is_first() -> None:
    jobs = [of_job(name, at, WRITES) for name, at in (("z", 1), ("b", 2), ("a", 2), ("c", 3))]
    used = turn.folders(manifest.claimed_of(jobs[0]), (WRITES,))
    firsts = {name: [job["metadata"]["name"] for job in turn.before_it(jobs, used, name)] for name in "zabc"}
    assert firsts == {"z": [], "a": ["z"], "b": ["z", "a"], "c": ["z", "a", "b"]}


def test_a_run_is_at_its_folders_until_it_has_ended() -> None:
    running, ended = of_pod("Running", job={"running": {}}), of_pod(job={"terminated": {"exitCode": 0}})
    gone = "1 1 gone"
    for job, its_pod, is_at_it in (
        (of_job("a", 1, WRITES), None, True),
        (of_job("a", 1, WRITES, ended=True), None, False),
        (of_job("a", 1, WRITES), running, True),
        (of_job("a", 1, WRITES), ended, False),
        (of_job("a", 1, WRITES, maker=gone), of_pod(gate={"running": {}}), False),
        (of_job("a", 1, WRITES, maker=gone), running, True),
    ):
        assert turn.is_at_it(job, its_pod) is is_at_it


# --- what a pod is doing ---


def of_pod(phase: str = "Pending", conditions: Any = (), deleted: bool = False, **states: Any) -> Any:
    waiting = [{"name": name, "image": "img", "state": state} for name, state in states.items()]
    gate = [each for each in waiting if each["name"] == "gate"]
    others = [each for each in waiting if each["name"] != "gate"]
    status = {
        "phase": phase,
        "conditions": conditions,
        "initContainerStatuses": gate,
        "containerStatuses": others,
    }
    return {"metadata": {"deletionTimestamp": "now"} if deleted else {}, "status": status}


def why(reason: str, message: str = "") -> Any:
    return {"waiting": {"reason": reason, "message": message}}


SCHEDULED = [{"type": "PodScheduled", "status": "True"}]
UNSCHEDULABLE = [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes\nare available"}]
OOM = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}


@pytest.mark.parametrize(
    ("found", "name", "text", "is_final"),
    [
        (of_pod(), "queued", "", False),
        (of_pod(conditions=UNSCHEDULABLE), "queued", "no node takes it yet: 0/1 nodes are available", False),
        (of_pod(conditions=SCHEDULED), "pulling", "", False),
        (of_pod(gate=why("ErrImagePull", "x: not found")), "failed", "cannot pull img: x: not found", True),
        (of_pod(gate=why("ErrImagePull", "pull access denied")), "failed", "imagePullSecrets", True),
        (of_pod(gate=why("ErrImagePull", "no basic auth credentials")), "failed", "imagePullSecrets", True),
        (of_pod(gate=why("ErrImagePull", "dial tcp: timeout")), "pulling", "dial tcp: timeout", False),
        (of_pod(gate=why("ImagePullBackOff", "Back-off")), "pulling", "cannot pull img: Back-off", False),
        (of_pod(gate=why("ImagePullBackOff", "Back-off: x: not found")), "failed", "not found", True),
        (of_pod(gate={"running": {}}), "waiting", "", False),
        (of_pod("Running", job={"running": {}}), "running", "", False),
        (of_pod(job=why("CreateContainerConfigError", "no secret")), "failed", "no secret", True),
        (of_pod("Running", job={"terminated": {"exitCode": 3}}), "ended", "", False),
        (of_pod("Running", job=OOM), "ended", "", False),
        (
            of_pod(job={"terminated": {"reason": "StartError", "exitCode": 128}}),
            "failed",
            "not be started",
            True,
        ),
        (of_pod("Running", deleted=True, job={"running": {}}), "failed", "its pod was deleted", True),
        (of_pod("Failed", job={"running": {}}), "failed", "ended by the cluster", True),
        (of_pod("Failed", gate={"terminated": {"exitCode": 1}}), "failed", "its gate was not opened", True),
    ],
)
def test_what_a_pod_is_doing(found: Any, name: str, text: str, is_final: bool) -> None:
    state = pod.state(found)
    assert (state.name, state.is_final) == (name, is_final)
    assert text in state.why


def test_the_end_of_a_job_is_its_containers() -> None:
    assert pod.state(of_pod("Running", job=OOM)).code == 137
    assert pod.state(of_pod("Running", job=OOM)).is_out_of_memory
    assert pod.state(of_pod("Running", job={"terminated": {"exitCode": 0}})).code == 0


def test_why_a_job_has_no_pod() -> None:
    quota = {"reason": "FailedCreate", "message": "exceeded quota"}
    assert pod.why_no_pod([{"reason": "Other"}, quota]) == "the cluster makes no pod for it: exceeded quota"
    assert pod.why_no_pod([]) == ""


def test_why_a_pod_has_no_volumes_is_its_last_event() -> None:
    mount = {"reason": "FailedMount", "message": 'configmap "x"\nnot found', "lastTimestamp": "2"}
    said = pod.why_not_mounted([mount, {"reason": "Scheduled", "lastTimestamp": "1"}])
    assert said == 'its volumes cannot be mounted yet: configmap "x" not found'
    assert pod.why_not_mounted([mount, {"reason": "Pulling", "lastTimestamp": "3"}]) == ""
    assert pod.why_not_mounted([]) == ""


@pytest.mark.parametrize(
    ("said", "is_it"),
    [
        # https://kubernetes.io/docs/concepts/security/pod-security-standards
        ('pods "x-1" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true', True),
        ('pods "x-" is forbidden: PodSecurityPolicy: unable to admit pod: [spec.containers[0]', True),
        ('pods "x-" is forbidden: unable to validate against any pod security policy: []', True),
        ('pods "x-1" is forbidden: exceeded quota: none, requested: pods=1', False),
    ],
)
def test_a_namespace_that_refuses_the_pods_user_is_known_by_its_words(said: str, is_it: bool) -> None:
    assert pod.is_restricted(said) is is_it


@pytest.mark.parametrize(
    ("said", "arch", "others", "text"),
    [
        (
            "0/3 nodes are available: 3 node(s) didn't match node selector.",
            "arm64",
            None,
            "for arm64, and no",
        ),
        (
            "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.",
            "arm64",
            None,
            "arm",
        ),
        ("0/3 nodes are available: 3 node(s) didn't match node selector.", "arm64", ["amd64"], "are amd64"),
        ("0/3 nodes are available: 2 node(s) didn't match node selector.", "arm64", ["amd64"], "are amd64"),
        (
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't match node selector.",
            "arm64",
            None,
            "",
        ),
        ("0/3 nodes are available: 3 node(s) didn't match node selector.", "arm64", [], ""),
        ("0/3 nodes are available: 3 node(s) didn't match node selector.", "", None, ""),
        ("0/1 nodes are available: 1 Insufficient cpu.", "amd64", None, ""),
        ('persistentvolumeclaim "data" not found', "amd64", [], "claim data does not exist"),
    ],
)
def test_why_no_node_takes_a_pod_ever(said: str, arch: str, others: list[str] | None, text: str) -> None:
    found = pod.why_no_node(f"no node takes it yet: {said}", arch, others)
    assert text in found
    assert bool(found) is bool(text)


def test_an_architecture_is_only_the_images_where_nobody_else_asks_for_nodes() -> None:
    def arch_of(cluster: Cluster) -> str:
        return manifest.arch_alone(manifest.job(replace(TASK, cluster=cluster), WHERE), WHERE)

    assert arch_of(Cluster()) == "amd64"
    assert arch_of(Cluster(node_selector=Json('{"disk": "ssd"}'))) == ""
    assert arch_of(Cluster(node_selector=Json('{"kubernetes.io/arch": "arm64"}'))) == ""
    assert arch_of(Cluster(pod_spec=Json('{"affinity": {"nodeAffinity": {}}}'))) == ""


def test_the_proxy_of_a_mesh_is_known_by_where_it_says_that_it_is_ready() -> None:
    def of(container: Any) -> Any:
        return {"spec": {"containers": [{"name": "job"}, {"name": "keeper"}, container]}}

    assert pod.has_proxy(of({"name": "istio-proxy"}))
    assert pod.has_proxy(of({"name": "envoy", "readinessProbe": {"httpGet": {"port": 15021}}}))
    assert not pod.has_proxy(of({"name": "db", "readinessProbe": {"exec": {}}}))


def test_an_image_that_the_registry_may_not_have_is_known_by_what_the_cluster_says() -> None:
    assert pod.is_unavailable("the cluster cannot pull x@sha256:1: rpc error: code = NotFound: x: not found")
    assert pod.is_unavailable("the cluster cannot pull x@sha256:1: manifest unknown: manifest unknown")
    # Docker Hub, GitLab and Quay say this of an image that they no longer have, too.
    assert pod.is_unavailable(
        "the cluster cannot pull x@sha256:1: pull access denied, repository does not exist"
    )
    assert pod.is_unavailable("the cluster cannot pull x@sha256:1: unexpected status: 403 Forbidden")
    assert not pod.is_unavailable("the cluster cannot pull x@sha256:1: dial tcp: timeout")
    assert not pod.is_unavailable("the claim data does not exist: not found")


# --- what old servers drop, and what connections lose ---


def test_what_a_server_has_dropped_is_named() -> None:
    sent = {"suspend": True, "a": {"b": [{"c": 1, "d": 2}]}, "empty": {}, "x": "500m"}
    made = {"a": {"b": [{"c": 1}], "more": 1}, "x": "0.5"}
    assert sorted(missing(sent, made)) == ["a.b[0].d", "suspend"]
    assert missing(sent, {**sent, "uid": "u"}) == []


class FakePod:
    """A pod whose job has written something, over connections that break after so many bytes each."""

    place = Place.at("k8s://gpu/ml")

    def __init__(self, written: bytes, piece: int, keeper: str, log: bytes = b"") -> None:
        states = {"job": {"terminated": {"exitCode": 0}}, "keeper": {keeper: {}}}
        statuses = [{"name": name, "state": state} for name, state in states.items()]
        about = {"name": "p", "uid": "u", "creationTimestamp": ""}
        self._pod = {"metadata": about, "status": {"containerStatuses": statuses}}
        self._written, self._piece, self._log = written, piece, log

    def list(self, kind: str, **options: Any) -> Any:
        return [self._pod]

    def get(self, kind: str, name: str) -> Any:
        return self._pod

    def log(self, pod: str) -> bytes:
        return self._log

    def run(self, pod: str, container: str, *words: str) -> Ended:
        if not self._written:
            raise Broken("the keeper has gone")
        return Ended(0, f"0 {len(self._written)} 0\n".encode(), b"")

    @contextlib.contextmanager
    def connected(self, pod: str, container: str, *words: str) -> Iterator["FakePod"]:
        self._at = int(words[-4])
        yield self

    def read(self) -> Iterator[tuple[int, bytes]]:
        yield 1, self._written[self._at : self._at + self._piece]
        raise Broken("the line is cut")


def written(pod: FakePod, is_scheduled: bool = False) -> bytes:
    known = Known("demo-1", "train", "/home/me/demo", (), is_scheduled=is_scheduled)
    run, found = ClusterRun(pod, known), bytearray()  # type: ignore[arg-type]
    run.output = OutputCopy(Streams(b"", found.extend, found.extend))
    run.give_written()
    return bytes(found)


def test_what_was_written_arrives_whole_over_a_line_that_is_cut() -> None:
    assert written(FakePod(b"0123456789", 4, "running")) == b"0123456789"


def test_what_cannot_be_read_is_an_error_and_no_success() -> None:
    with pytest.raises(SkelebotError, match="of train cannot be read; its pod at k8s://gpu/ml has ended"):
        written(FakePod(b"0123456789", 0, "terminated"))


def test_the_clusters_log_takes_the_place_of_a_scheduled_runs_own() -> None:
    assert written(FakePod(b"", 0, "terminated", b"logged\n"), is_scheduled=True) == b"logged\n"
    with pytest.raises(SkelebotError, match="cannot be read"):
        written(FakePod(b"", 0, "terminated", b"logged\n"))


class Wire:
    """A stream that gives back what was written to it, in pieces, from one place on with another byte."""

    def __init__(self, broken_at: int | None = None, ends_at: int | None = None) -> None:
        self.data, self._broken_at, self._ends_at = b"", broken_at, ends_at

    def write(self, data: bytes) -> None:
        self.data += data

    def read(self) -> Iterator[tuple[int, bytes]]:
        data = bytearray(self.data)
        if self._broken_at is not None:
            data[self._broken_at % len(data)] ^= 1
        data = data[: self._ends_at]
        for at in range(0, len(data), 1000):
            yield 1, bytes(data[at : at + 1000])


def through(wire: Wire, pieces: list[bytes]) -> bytes:
    sink = files.Sink(wire)  # type: ignore[arg-type]
    for piece in pieces:
        sink.write(piece)
        sink.flush()
    sink.close()
    with io.BufferedReader(files.Blocks(wire)) as reader:  # type: ignore[arg-type, type-var]
        return reader.read()


@pytest.mark.parametrize("data", [b"", b"\0", b"123456789", bytes(range(256)) * 300])
def test_a_checksum_is_that_of_cksum(data: bytes) -> None:
    done = subprocess.run(("cksum",), input=data, stdout=subprocess.PIPE, check=True)
    assert f"{files.checksum(data)} {len(data)}\n".encode() == done.stdout


@given(st.lists(st.binary(max_size=3000), max_size=5))
def test_blocks_arrive_as_they_were_sent(pieces: list[bytes]) -> None:
    assert through(Wire(), pieces) == b"".join(pieces)


@given(st.lists(st.binary(min_size=1, max_size=3000), min_size=1, max_size=5), st.integers(min_value=0))
def test_a_block_with_another_byte_is_noticed(pieces: list[bytes], at: int) -> None:
    with contextlib.suppress(Broken, ValueError):
        # Where the end itself was hit, nothing that came before it may be wrong.
        assert through(Wire(broken_at=at), pieces) == b"".join(pieces)


@given(st.lists(st.binary(min_size=1, max_size=3000), min_size=1, max_size=5), st.integers(1, 80))
def test_blocks_that_end_too_early_are_noticed(pieces: list[bytes], before: int) -> None:
    with pytest.raises(Broken):
        through(Wire(ends_at=-before), pieces)


def test_output_continues_where_it_was_left(tmp_path: Path) -> None:
    given: list[bytes] = []
    first = OutputCopy(Streams(b"", given.append, given.append))
    first.keep_at(str(tmp_path / "offset"))
    first.give(1, b"out")
    first.give(2, b"error")
    second = OutputCopy(Streams(b"", given.append, given.append))
    second.keep_at(str(tmp_path / "offset"))
    assert (second.out, second.err) == (3, 5)
    assert second.is_complete(Noted(0, 3, 5))
    assert given == [b"out", b"error"]
