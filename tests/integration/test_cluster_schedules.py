"""Jobs that a real Kubernetes cluster runs by their schedules."""

import json
import subprocess
from typing import Any

import pytest
import yaml
from harness import Result, Sandbox, job, project, wait_for
from manifests import problems
from real_cluster import Namespace, begin_run, keys

pytestmark = [pytest.mark.engine, pytest.mark.kubernetes]

NEVER = "0 0 29 2 *"  # but once in four years


def write(space: Namespace, name: str, *jobs: str, **more: str) -> None:
    project(space.sandbox, name, *jobs, components=keys(), **more)


def run(space: Namespace, *words: str, **options: Any) -> Result:
    return space.sandbox.run("-d", space.place, *words, **options)


def ok(space: Namespace, *words: str) -> str:
    return space.sandbox.ok("-d", space.place, *words)


def listed(space: Namespace) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(ok(space, "deploy", "--list", "--json"))
    return found


def runs(space: Namespace) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ok(space, "ps", "--json"))
    return found


def test_a_deployed_job_runs_at_its_time_and_failed_is_failed(space: Namespace, name: str) -> None:
    source = "echo out; echo err >&2; sleep 1; exit 3"
    write(space, name, job(source, "report", schedule='"*/1 * * * *"'))
    deployed = run(space, "deploy", "report")
    assert deployed.code == 0, deployed
    assert f"report is deployed at {space.place}; it runs next at 20" in deployed.err
    wait_for(lambda: any(row["status"] == "exited" for row in runs(space)), 300)
    row = runs(space)[-1]
    assert (row["job"], row["code"]) == ("report", 3)
    assert row["container"].startswith(deployed.out.strip())
    assert "exited (3)" in ok(space, "ps")
    wait_for(lambda: space.state("keeper") == "terminated")  # from then on the cluster has one log
    shown = run(space, "logs", "report")
    assert (shown.code, sorted((shown.out + shown.err).split())) == (0, ["err", "out"]), shown
    (schedule,) = listed(space)
    assert schedule["last"].startswith("20")
    assert run(space, "wait", "report").code == 3
    ok(space, "clean")
    assert runs(space) != []  # a schedule looks after its own
    ok(space, "undeploy", "report")


def test_what_is_deployed_is_listed_paused_resumed_and_removed(space: Namespace, name: str) -> None:
    params = "[{name: token, secret: true, default: $TOKEN}]"
    write(space, name, job('echo "$2"', "report", schedule=f'"{NEVER}"', params=params))
    own = Namespace(space.name, space.sandbox.with_env(TOKEN="hunter2"))
    deployed = ok(own, "deploy", "report").strip()
    (row,) = listed(space)
    assert (row["job"], row["schedule"], row["state"], row["name"]) == ("report", NEVER, "waiting", deployed)
    assert row["next"].endswith("-02-29T00:00Z")
    assert "@sha256:" in row["image"]
    assert f"report  {NEVER}  waiting" in ok(space, "deploy", "--list")
    (secret,) = (each for each in space.all("secrets") if each["type"] == "Opaque")
    assert secret["metadata"]["ownerReferences"][0]["kind"] == "CronJob"
    assert "hunter2" not in json.dumps(space.all("cronjobs"))

    assert ok(space, "pause", "report").strip() == deployed
    assert "already paused" in run(space, "pause", "report").err
    assert (listed(space)[0]["state"], listed(space)[0]["next"]) == ("paused", "")
    again = run(own, "deploy", "report")
    assert "report is unchanged" in again.err
    changed = run(own, "deploy", "report", "--token", "hunter3")
    assert "report was updated" in changed.err
    assert "it is paused until `skelebot resume report`" in changed.err
    ok(space, "resume", "report")
    assert listed(space)[0]["state"] == "waiting"

    begin_run(space, deployed, "one")
    wait_for(lambda: [row["status"] for row in runs(space)] == ["exited"])
    assert ok(space, "logs", "report") == "hunter3\n"
    ok(space, "undeploy", "report")
    wait_for(lambda: not space.left(), 30)
    assert listed(space) == []
    assert run(space, "undeploy", "report").errors == ["ERROR | report is not deployed"]


def test_a_run_of_a_schedule_is_followed_and_stopped(space: Namespace, name: str) -> None:
    source = "echo begun; echo e >&2; trap 'echo tidied; exit 0' TERM; while :; do sleep 0.1; done"
    write(space, name, job(source, "report", schedule=f'"{NEVER}"'))
    deployed = ok(space, "deploy", "report").strip()
    begin_run(space, deployed, "one")
    wait_for(lambda: [row["status"] for row in runs(space)] == ["running"])
    words = ("-d", space.place, "logs", "-f", "report")
    with space.sandbox.start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as follower:
        assert follower.stdout
        assert follower.stdout.readline() == b"begun\n"
        ok(space, "stop", "report")
        out, err = follower.communicate(timeout=60)
    assert (out, b"e\n" in err) == (b"tidied\n", True)
    wait_for(lambda: [(row["status"], row["code"]) for row in runs(space)] == [("exited", 143)])
    ok(space, "undeploy", "report")


def test_the_output_of_a_run_is_there_at_each_moment_of_its_end(space: Namespace, name: str) -> None:
    write(space, name, job("echo out; sleep 1", "report", schedule=f'"{NEVER}"'))
    deployed = ok(space, "deploy", "report").strip()
    begin_run(space, deployed, "one")
    wait_for(lambda: [row["status"] for row in runs(space)] == ["exited"])
    given = []
    while space.state("keeper") != "terminated":  # the cluster says so a moment after it has
        given.append(ok(space, "logs", "report"))
        given.append(ok(space, "logs", "-f", "report"))
    assert set(given) == {"out\n"}, given
    ok(space, "undeploy", "report")


def test_another_checkout_updates_the_same_schedule(space: Namespace, name: str) -> None:
    write(space, name, job("echo 1", "report", schedule=f'"{NEVER}"'))
    first = ok(space, "deploy", "report")
    other = space.sandbox.root.parent / "other"
    changed = space.sandbox.read("skelebot.yaml").replace("echo 1", "echo 2")
    space.sandbox.write("../other/skelebot.yaml", changed)
    there = Namespace(space.name, Sandbox(other, space.sandbox.uid, space.sandbox.env))
    assert ok(there, "deploy", "report") == first
    assert [row["name"] for row in listed(space)] == [first.strip()]
    begin_run(space, first.strip(), "one")
    wait_for(lambda: [row["status"] for row in runs(space)] == ["exited"])
    assert ok(space, "logs", "report") == "2\n"
    ok(there, "undeploy", "report")


def test_a_failed_run_is_tried_again_where_the_job_says_so(space: Namespace, name: str) -> None:
    write(space, name, job("exit 5", "report", schedule=f'"{NEVER}"', retries="1"))
    deployed = ok(space, "deploy", "report").strip()
    begin_run(space, deployed, "one")
    wait_for(lambda: len(space.all("pods")) == 2, 90)
    wait_for(lambda: [(row["status"], row["code"]) for row in runs(space)] == [("exited", 5)])
    ok(space, "undeploy", "report")


def test_a_run_that_gets_no_pod_says_why(space: Namespace, name: str) -> None:
    space.make("resourcequotas", "none", spec={"hard": {"pods": "0"}})
    write(space, name, job("true", "report", schedule=f'"{NEVER}"'))
    deployed = ok(space, "deploy", "report").strip()
    run_name = begin_run(space, deployed, "one")
    wait_for(lambda: "exceeded quota" in run(space, "logs", "report").err)
    (error,) = run(space, "logs", "-f", "report").errors
    assert error.startswith(f"ERROR | {run_name} has no output: the cluster makes no pod for it")
    assert [row["status"] for row in runs(space)] == ["queued"]
    ok(space, "stop", "report")
    assert runs(space) == []
    ok(space, "undeploy", "report")


def test_the_role_for_schedules_is_enough_and_each_right_is_named(space: Namespace, name: str) -> None:
    params = "[{name: token, secret: true, default: $TOKEN}]"
    write(space, name, job("true", "report", schedule=f'"{NEVER}"', params=params))
    role = yaml.safe_load(ok(space, "cluster", "role"))
    own = Namespace(space.name, space.sandbox.with_env(TOKEN="t"))
    enough = own.as_user("enough", *role["rules"])
    ok(enough, "deploy", "report")
    ok(enough, "deploy", "report", "--token", "other")
    for words in (("deploy", "--list"), ("pause", "report"), ("resume", "report"), ("undeploy", "report")):
        ok(enough, *words)
    wait_for(lambda: not space.left(), 30)
    rules = [rule for rule in role["rules"] if rule["resources"] == ["cronjobs"]]
    assert rules == [{"apiGroups": ["batch"], "resources": ["cronjobs"],
                      "verbs": ["create", "get", "list", "update", "delete"]}]  # fmt: skip
    others = [rule for rule in role["rules"] if rule not in rules]
    for verb, words in {
        "create": ("deploy", "report"),
        "get": ("deploy", "report"),
        "list": ("deploy", "--list"),
    }.items():
        fewer = {**rules[0], "verbs": [each for each in rules[0]["verbs"] if each != verb]}
        result = run(own.as_user(f"without-{verb}", *others, fewer), *words)
        assert result.code == 1, result
        assert f'cannot {verb} resource "cronjobs"' in result.errors[0]
        assert "`skelebot cluster role` prints" in result.errors[0]
    assert space.left() == {}


def test_the_manifest_is_shown_and_known_to_each_version(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("true", "report", schedule='"@daily"'), components=keys())
    shown = yaml.safe_load(sandbox.ok("-d", "k8s://nowhere/ml", "--dry-run", "deploy", "report"))
    assert (shown["kind"], shown["spec"]["schedule"]) == ("CronJob", "@daily")
    assert problems(shown) == []


def test_a_place_that_is_not_there_is_reported_in_a_line(space: Namespace, name: str) -> None:
    write(space, name, job("true", "report", schedule='"@daily"'))
    result = space.sandbox.run("-d", "k8s://nowhere", "deploy", "--list")
    assert (result.code, len(result.errors)) == (1, 1), result
    assert "nowhere" in result.errors[0]
