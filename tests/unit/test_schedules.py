"""Jobs that a cluster runs by a schedule: the CronJob by value, and what is said without a cluster."""

import contextlib
import copy
import hashlib
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from skelebot.complete import candidates
from skelebot.errors import SkelebotError, UsageError
from skelebot.model import Cluster, Flags, Image, Place, Task
from skelebot.runners.kubernetes import Kubernetes, manifest, pod
from skelebot.runners.kubernetes import schedule as schedules
from skelebot.runners.kubernetes.manifest import Schedule, Where, cron_job, schedule_token, yaml_text
from skelebot.secret import Secret

from .helpers import run_cli, write

GOLDEN = Path(__file__).with_name("golden")

TOKEN = schedule_token("demo", "report", "")
WHERE = Where("registry.example.com/team/demo@sha256:" + "a" * 64, "ml", TOKEN, arch="amd64", is_open=True)
TASK = Task("report", ("bash", "-c", "echo $(HOME)"), "/home/me/demo", "demo")
TASKS = {
    "plain": TASK,
    "secret": replace(TASK, env=(("TOKEN", Secret("variable", "TOKEN")),), user="1000", timeout=60.0),
    "queue": replace(TASK, cluster=Cluster(local_queue="team-a", mesh=False, service_account="runner")),
}
DAILY = Schedule("0 3 * * *")
SCHEDULES = {"daily": DAILY, "other": Schedule("@hourly", "prod", 2, is_paused=True, state="x")}


def test_the_manifest_is_as_recorded() -> None:
    script = re.compile(r"^( *)- \|-?\n(?:\1  .*\n|\n)+", re.MULTILINE)
    made = script.sub(r"\1- SCRIPT\n", yaml_text(cron_job(TASK, WHERE, DAILY)))
    path = GOLDEN / "kubernetes-schedule.yaml"
    if os.environ.get("SKELEBOT_TEST_GOLDEN"):
        path.write_text(made)
    assert made == path.read_text()


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_manifests_are_valid_for_each_version(name: str, schedule: str) -> None:
    pytest.importorskip("kubernetes_validate")
    from manifests import problems

    assert problems(cron_job(TASKS[name], WHERE, SCHEDULES[schedule])) == []


def test_what_a_schedule_says_is_in_the_manifest() -> None:
    made = cron_job(TASK, WHERE, SCHEDULES["other"])
    spec, runs = made["spec"], made["spec"]["jobTemplate"]
    assert (spec["schedule"], spec["suspend"], runs["spec"]["backoffLimit"]) == ("@hourly", True, 2)
    assert made["metadata"]["annotations"][manifest.ENV] == "prod"
    assert cron_job(TASK, WHERE, DAILY)["spec"]["jobTemplate"]["spec"]["backoffLimit"] == 0


def test_its_runs_are_found_by_their_labels_and_belong_to_no_checkout() -> None:
    made = cron_job(TASK, WHERE, DAILY)
    runs = made["spec"]["jobTemplate"]
    for each in (made, runs, runs["spec"]["template"]):
        labels = each["metadata"]["labels"]
        assert (labels[manifest.PROJECT], labels[manifest.JOB]) == ("demo", "report")
        assert labels[manifest.SCHEDULE] == made["metadata"]["name"]
        assert manifest.CHECKOUT not in labels
    assert runs["metadata"]["annotations"][manifest.ROOT] == ""
    assert "ttlSecondsAfterFinished" not in runs["spec"]


def test_the_gate_is_open_and_the_keeper_waits_for_nobody() -> None:
    spec = cron_job(TASK, WHERE, DAILY)["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (gate,), (_, keeper) = spec["initContainers"], spec["containers"]
    assert (gate["args"][:2], keeper["args"]) == (["gate", "0"], ["keeper", "0"])


def test_each_job_of_each_environment_has_its_own_name() -> None:
    jobs = [("a", "b-c", ""), ("a-b", "c", ""), ("a", "b", "c"), ("a", "b", ""), ("a", "B", "")]
    names = [
        manifest.job_name(replace(TASK, project=project, name=job), schedule_token(project, job, env))
        for project, job, env in jobs
    ]
    assert len(set(names)) == len(jobs)
    long = replace(TASK, project="x" * 200, name="y" * 200)
    assert len(manifest.job_name(long, schedule_token("x", "y", ""))) <= 52


def test_a_secret_is_in_no_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")
    assert "hunter2" not in json.dumps(cron_job(TASKS["secret"], WHERE, DAILY))
    made = manifest.secret(TASKS["secret"], WHERE, os.environ)
    assert made
    assert made["metadata"]["name"] == cron_job(TASKS["secret"], WHERE, DAILY)["metadata"]["name"]


@pytest.mark.parametrize(
    ("kind", "succeeded", "failed"),
    [("Complete", True, False), ("Failed", False, True), ("Suspended", False, False)],
)
def test_what_a_job_without_a_pod_has_come_to(kind: str, succeeded: bool, failed: bool) -> None:
    job: Any = {"status": {"conditions": [{"type": kind, "status": "True"}]}}
    assert (pod.has_succeeded(job), pod.has_failed(job)) == (succeeded, failed)


# --- the commands, as far as they ask no cluster ---

YAML = """\
name: demo
components: {registry: {host: example.com, user: me}}
jobs:
- {name: plain, source: "true", help: h, host: "k8s://no/ml"}
- {name: here, source: "true", help: h, schedule: "0 3 * * *"}
- {name: native, source: "true", help: h, native: always, schedule: "0 3 * * *"}
- {name: files, source: "true", help: h, host: "k8s://no/ml", schedule: "@daily", outputs: [models/]}
- {name: report, source: "true", help: h, host: "k8s://no/ml", schedule: "@daily",
   args: [{name: n, type: int}]}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write(tmp_path, YAML)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("deploy plain", 'jobs[0].schedule: plain has none; add one such as `schedule: "0 3 * * *"`'),
        (
            "deploy here",
            "here runs in Docker, and only a cluster runs jobs by a schedule; set its `host` to k8s://",
        ),
        ("deploy native", "native runs natively, and only a cluster runs"),
        (
            "deploy files",
            "files: a schedule runs without this machine, which would have to send /app/models; keep folders",
        ),
        ("deploy report", "report: missing argument: n"),
        ("deploy report x", "n: expected a whole number; found 'x'"),
        ("deploy graph", "graph is not a job; name one, as in `skelebot deploy JOB`"),
        ("deploy", "deploy: missing argument: the job"),
        ("deploy --json", "deploy: name a job, or list what is deployed with --list"),
        ("-d ssh://box pause here", "no job runs on a cluster; name one with -d k8s://CONTEXT/NAMESPACE"),
    ],
)
def test_what_cannot_be_deployed_is_said_in_a_line(
    capsys: pytest.CaptureFixture[str], words: str, expected: str
) -> None:
    assert run_cli(words.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line


def test_only_projects_with_clusters_list_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for more, is_listed in (("", False), (", schedule: '@daily'", True), (", host: 'k8s://'", True)):
        write(tmp_path, f"name: demo\njobs:\n- {{name: a, source: 'true', help: h{more}}}\n")
        assert run_cli(["-h"]) == 0
        assert ("\n  undeploy " in capsys.readouterr().out) is is_listed
    write(tmp_path, "name: demo\n")
    assert run_cli(["deploy", "a"]) == 2
    assert "give a job a `schedule`, see docs/schedules.md" in capsys.readouterr().err


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("words", "word", "expected"),
    [
        ("deploy", "pl", ["plain"]),
        ("deploy", "--", ["--list", "--json"]),
        ("deploy --list", "--j", ["--json"]),
        ("pause", "re", ["report"]),
        ("undep", "", []),
    ],
)
def test_completion(words: str, word: str, expected: list[str]) -> None:
    if words == "undep":
        assert [c.value for c in candidates([], words)] == ["undeploy"]
    else:
        assert [c.value for c in candidates(words.split(), word) if not c.is_file] == expected


@pytest.mark.parametrize("argv", [("true", "x" * 200_000), ("true", "x" * 90_000)])
def test_many_words_cannot_be_sent(argv: tuple[str, ...]) -> None:
    runner = Kubernetes(Place.at("k8s://no/ml"), Flags())
    image = Image("demo", "demo", "", "/home/me/demo")
    expected = "at most 100 kB of arguments" if len(argv[1]) > 100_000 else ""
    with pytest.raises(UsageError, match=expected) if expected else contextlib.nullcontext():
        runner.check_schedule(image, replace(TASK, argv=argv), DAILY)


# --- deploying ---


class FakeCluster:
    """Keeps what it is sent, and drops the fields that an old server does not know."""

    place, cron_api = Place.at("k8s://gpu/ml"), "v1"

    def __init__(self, unknown: str = "") -> None:
        self.objects: dict[tuple[str, str], Any] = {}
        self.log: list[str] = []
        self.unknown = unknown

    def get(self, kind: str, name: str) -> Any:
        return copy.deepcopy(self.objects.get((kind, name)))

    def create(self, kind: str, body: Any) -> Any:
        name = body["metadata"]["name"]
        stored = copy.deepcopy(body)
        stored["metadata"]["uid"] = f"uid of {name}"
        stored["spec"].pop(self.unknown, None)
        self.log.append(f"{kind} {'suspended' if body['spec']['suspend'] else 'active'}")
        self.objects[kind, name] = stored
        return stored

    replace = create

    def delete(self, kind: str, name: str) -> bool:
        self.log.append(f"delete {kind}")
        return self.objects.pop((kind, name), None) is not None

    def path(self, kind: str) -> str:
        return kind

    def request(self, method: str, path: str, body: Any) -> Any:
        self.log.append(f"{method} {path} of {body['metadata']['ownerReferences'][0]['uid']}")
        self.objects[path, body["metadata"]["name"]] = body


def deploy(cluster: FakeCluster, task: Task = TASK, schedule: Schedule = DAILY, key: bytes = b"") -> str:
    def keyed_hash(data: bytes) -> str:
        return hashlib.sha256(key + data).hexdigest()

    return schedules.deploy(cluster, task, WHERE, schedule, keyed_hash).what  # type: ignore[arg-type]


def test_a_deployed_job_is_updated_only_where_something_differs() -> None:
    cluster = FakeCluster()
    assert [deploy(cluster), deploy(cluster)] == ["new", "unchanged"]
    assert deploy(cluster, replace(TASK, argv=("true",))) == "updated"
    assert cluster.log == ["cronjobs active", "delete secrets", "cronjobs active"]


def test_an_update_leaves_a_schedule_paused() -> None:
    cluster = FakeCluster()
    deploy(cluster)
    (stored,) = cluster.objects.values()
    stored["spec"]["suspend"] = True
    assert deploy(cluster, schedule=DAILY._replace(cron="@hourly")) == "updated"
    assert cluster.log[-1] == "cronjobs suspended"


def test_nothing_begins_before_its_secret_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s3cret")
    cluster = FakeCluster()
    assert deploy(cluster, TASKS["secret"]) == "new"
    first, second, third = cluster.log
    assert (first, third) == ("cronjobs suspended", "cronjobs active")
    assert re.fullmatch("POST secrets of uid of demo-report-[0-9a-f]+", second)
    assert deploy(cluster, TASKS["secret"]) == "unchanged"
    monkeypatch.setenv("TOKEN", "other")
    assert deploy(cluster, TASKS["secret"]) == "updated"


def test_a_failed_update_keeps_what_was_deployed() -> None:
    cluster = FakeCluster(unknown="startingDeadlineSeconds")
    with pytest.raises(
        SkelebotError, match="does not know startingDeadlineSeconds; its Kubernetes is too old"
    ):
        deploy(cluster)
    assert cluster.objects == {}
    cluster.unknown = ""
    deploy(cluster)
    cluster.unknown = "startingDeadlineSeconds"
    with pytest.raises(SkelebotError, match="its Kubernetes is too old"):
        deploy(cluster, schedule=DAILY._replace(cron="@hourly"))
    assert list(cluster.objects) != []
