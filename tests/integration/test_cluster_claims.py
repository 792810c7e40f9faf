"""Mapped folders that stay on a claim of the cluster: what crosses over, who waits for whom, what is left."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import Result, job, project, runs_of, wait_for
from real_cluster import CONTEXT, Namespace, begin_run, done, keys

pytestmark = [pytest.mark.engine, pytest.mark.kubernetes]

VOLUMES = "api/v1/persistentvolumes"


@dataclass(frozen=True)
class Disk:
    """A folder of the node that is a volume of the cluster, of a storage class of its own."""

    space: Namespace
    name: str  # of the project
    folder: Path

    @property
    def storage_class(self) -> str:
        return self.space.name

    def write(self, *jobs: str, claim: str = "kept", **more: str) -> None:
        project(self.space.sandbox, self.name, *jobs, components=keys(f"claim: {claim}"), **more)

    def run(self, *words: str, **options: Any) -> Result:
        return self.space.sandbox.run("-d", self.space.place, *words, **options)

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return self.space.sandbox.start("-d", self.space.place, *words, **pipes)

    def clean(self) -> None:
        """Remove what has ended, once the cluster says that it has."""
        wait_for(lambda: all(r["status"] == "exited" for r in json.loads(self.run("ps", "--json").out)))
        assert self.run("clean").code == 0

    def find(self, path: str) -> Path:
        """The only file of that name on the claim."""
        (found,) = self.folder.rglob(path)
        return found

    def make_claim(self, name: str = "kept") -> None:
        spec = {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": self.storage_class,
            "resources": {"requests": {"storage": "1Gi"}},
        }
        self.space.make("persistentvolumeclaims", name, spec=spec)

    def delete_claims(self) -> None:
        with contextlib.suppress(
            AssertionError
        ):  # a node's agent waits for a claim that is gone before a pod
            wait_for(lambda: not self.space.all("pods"), 30)
        for each in self.space.all("persistentvolumeclaims"):
            self.space.delete("persistentvolumeclaims", each["metadata"]["name"])


@pytest.fixture
def disk(space: Namespace, name: str) -> Iterator[Disk]:
    made = Disk(space, name, space.sandbox.root.parent / "disk")
    made.folder.mkdir()
    made.folder.chmod(0o777)
    spec = {
        "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
        "capacity": {"storage": "1Gi"},
        "storageClassName": made.storage_class,
        "hostPath": {"path": str(made.folder)},
    }
    done("POST", VOLUMES, {"metadata": {"name": space.name}, "spec": spec})
    try:
        yield made
    finally:
        made.delete_claims()
        done("DELETE", f"{VOLUMES}/{space.name}")


@pytest.fixture
def kept(disk: Disk) -> Disk:
    """The same with a claim that an administrator has made."""
    disk.make_claim()
    return disk


# --- what crosses over ---

WORK = "sha256sum <data/large; ls data; cat data/open data/done data/code; echo $1 >>out/log; cat out/log"


def test_what_has_not_changed_goes_there_once(kept: Disk) -> None:
    sandbox = kept.space.sandbox
    sandbox.write("data/large", os.urandom(5_000_000))
    for each in ("open", "done", "code", "alive", "old"):  # among them names that a run uses itself
        sandbox.write(f"data/{each}", f"{each}\n")
    sandbox.write("work.sh", WORK)
    kept.write(job("work.sh", mappings="['data/:ro', out/]", args="[{name: word}]"))
    first = kept.run("run", "one")
    assert first.code == 0, first
    assert first.out.endswith("open\ndone\ncode\none\n")
    before = kept.find("large").stat()
    (sandbox.root / "data/old").unlink()
    sandbox.write("data/new", "new\n")
    second = kept.run("run", "two")
    assert second.code == 0, second
    assert second.out.splitlines()[0] == first.out.splitlines()[0]
    assert second.out.endswith("one\ntwo\n")
    after = kept.find("large").stat()
    assert (after.st_ino, after.st_ctime_ns) == (before.st_ino, before.st_ctime_ns)
    assert ("old" in first.out, "old" in second.out, "new" in second.out) == (True, False, True)
    assert sandbox.read("out/log") == "one\ntwo\n"


def test_what_a_lost_pod_has_written_comes_with_the_next_run(kept: Disk) -> None:
    kept.write(job('echo "$1" >out/"$1"; [ "$1" = two ] || sleep 600', mappings="[out/]", args="[{name: n}]"))
    with kept.start("run", "one") as child:
        wait_for(lambda: list(kept.folder.rglob("one")), 120)
        kept.space.delete("jobs", kept.space.all("jobs")[0]["metadata"]["name"])
        child.communicate(timeout=120)
    assert child.returncode == 1
    assert kept.run("run", "two").code == 0
    assert [kept.space.sandbox.read(f"out/{each}") for each in ("one", "two")] == ["one\n", "two\n"]


def test_a_recorded_run_reads_from_the_claim_and_makes_its_own(kept: Disk) -> None:
    sandbox = kept.space.sandbox.with_env(SKELEBOT_STORE=str(kept.space.sandbox.root.parent / "store"))
    sandbox.write("data/x", "x")
    kept.write(job("cp data/x out/y", mappings="['data/:ro']", outputs="[out/]"))
    for _ in range(2):
        sandbox.ok("queue", "run")
    worked = sandbox.run("worker", "--drain", "--on", f"k8s://{CONTEXT}/{kept.space.name}=2")
    assert [run["state"] for run in runs_of(sandbox).values()] == ["done", "done"], worked
    assert len([*kept.folder.rglob("x")]) == 1
    assert [*kept.folder.rglob("y")] == []


# --- two runs at once ---

ALONE = """
mkdir out/busy || exit 5
while [ ! -e /tmp/go ] && [ "$1" = slow ]; do sleep 0.1; done
sleep 1
rmdir out/busy
echo "$1" >>out/done
"""


def test_a_run_that_writes_waits_for_one_that_does(kept: Disk) -> None:
    kept.space.sandbox.write("work.sh", ALONE)
    more = {"mappings": "[out/]", "args": "[{name: word}]"}
    kept.write(job("work.sh", "bg", mode="d", **more), job("work.sh", **more))
    name = kept.run("bg", "slow").out.strip()
    wait_for(lambda: list(kept.folder.rglob("busy")), 120)
    with kept.start("run", "quick") as child:
        assert child.stderr
        said = b""
        while f"waits for {name}".encode() not in said:
            said = child.stderr.readline()
            assert said
        kept.space.touch("/tmp/go")
        _, err = child.communicate(timeout=180)
    assert child.returncode == 0, err
    assert kept.space.sandbox.read("out/done") == "slow\nquick\n"
    assert kept.run("wait", "bg").code == 0
    kept.clean()


def test_runs_that_start_at_the_same_time_take_turns(kept: Disk) -> None:
    kept.space.sandbox.write("work.sh", ALONE)
    kept.write(job("work.sh", mappings="[out/]", args="[{name: word}]"))
    assert kept.run("run", "first").code == 0  # the image is there
    several = [kept.start("run", str(number)) for number in range(3)]
    ends = [child.communicate(timeout=300) for child in several]
    assert [child.returncode for child in several] == [0, 0, 0], ends
    assert sorted(kept.space.sandbox.read("out/done").split()) == ["0", "1", "2", "first"]


def test_runs_that_only_read_run_at_once(kept: Disk) -> None:
    kept.space.sandbox.write("data/x", "x")
    source = "cat data/x; while [ ! -e /tmp/go ] && [ $1 = slow ]; do sleep 0.1; done"
    more = {"mappings": "['data/:ro']", "args": "[{name: word}]"}
    kept.write(job(source, "bg", mode="d", **more), job(source, **more))
    assert kept.run("bg", "slow").code == 0
    result = kept.run("run", "quick")
    assert (result.code, result.out) == (0, "x"), result
    kept.space.touch("/tmp/go")
    assert kept.run("wait", "bg").code == 0
    kept.clean()


# --- whose the claim is ---


def test_a_claim_of_this_size_is_made_once_and_stays(disk: Disk) -> None:
    claim = f"{{size: 100m, storageClass: {disk.storage_class}}}"
    disk.write(job("echo $1 >>out/log", mappings="[out/]", args="[{name: word}]"), claim=claim)
    role = disk.run("cluster", "role").out
    rules = [rule for each in yaml.safe_load_all(role) for rule in each["rules"]]
    own = Disk(disk.space.as_user("enough", *rules), disk.name, disk.folder)
    assert own.run("cluster", "check").code == 0
    for word in ("one", "two"):
        result = own.run("run", word)
        assert result.code == 0, result
    assert disk.find("log").read_text() == "one\ntwo\n"
    (made,) = disk.space.all("persistentvolumeclaims")
    assert made["metadata"]["labels"]["skelebot.project"] == disk.name
    assert "ownerReferences" not in made["metadata"]
    cleaned = own.run("clean")
    assert cleaned.code == 0, cleaned
    assert f"persistentvolumeclaim {made['metadata']['name']}" in cleaned.err
    assert disk.space.all("persistentvolumeclaims")


def test_who_makes_no_claim_needs_no_right_to(kept: Disk) -> None:
    kept.write(job("true", mappings="[out/]"))
    assert "persistentvolumeclaims" not in kept.run("cluster", "role").out


def test_a_claim_that_is_not_there_is_named_at_once(space: Namespace, name: str) -> None:
    project(space.sandbox, name, job("true", mappings="[out/]"), components=keys("claim: nowhere"))
    result = space.sandbox.run("-d", space.place, "run", timeout=120)
    assert (result.code, len(result.errors)) == (1, 1), result
    assert "the claim nowhere does not exist" in result.errors[0]


def test_the_printed_manifest_runs_with_what_is_on_the_claim(kept: Disk) -> None:
    sandbox = kept.space.sandbox
    sandbox.write("data/x", "x")
    kept.write(job("cp data/x out/y", mappings="['data/:ro', out/]"))
    assert kept.run("run").code == 0
    (sandbox.root / "out/y").unlink()
    kept.find("y").unlink()
    shown = kept.run("cluster", "manifest", "run").out
    apply = ("kubectl", "apply", "-n", kept.space.name, "-f", "-")
    with sandbox.popen(*apply, stdin=subprocess.PIPE) as applied:
        applied.communicate(shown.encode(), timeout=60)
    wait_for(lambda: kept.space.all("jobs")[0]["status"].get("succeeded") == 1, 120)
    assert kept.find("y").read_text() == "x"
    kept.space.delete("jobs", kept.space.all("jobs")[0]["metadata"]["name"])
    assert json.loads(kept.run("ps", "--json").out) == []


# --- schedules ---


def test_a_job_of_a_schedule_has_its_folders_on_the_claim(disk: Disk) -> None:
    disk.make_claim()
    space = disk.space
    space.sandbox.write("data/in.txt", "sent")
    source = "cat data/in.txt; echo again >>out/log"
    keys_of_job = {"mappings": "['data/:ro', out/]", "schedule": '"0 0 29 2 *"'}
    disk.write(job(source, "report", **keys_of_job))
    assert disk.run("report").out == "sent"
    deployed = disk.run("deploy", "report")
    assert deployed.code == 0, deployed
    begin_run(space, deployed.out.strip(), "one")
    wait_for(lambda: any(each.get("status", {}).get("succeeded") for each in space.all("jobs")))
    assert disk.find("log").read_text() == "again\nagain\n"
    assert disk.run("logs", "report").out == "sent"
    assert disk.run("report").out == "sent"  # which brings back what is new on the claim
    assert space.sandbox.read("out/log") == "again\n" * 3
    assert disk.run("undeploy", "report").code == 0


def test_a_schedule_refuses_a_mapped_file_which_no_claim_keeps(disk: Disk) -> None:
    disk.space.sandbox.write("data/in.txt", "x")
    disk.write(job("true", "report", mappings="[data/in.txt, out/]", schedule='"@daily"'))
    result = disk.run("deploy", "report")
    assert (result.code, len(result.errors)) == (2, 1), result
    assert "would have to send /app/data/in.txt; keep folders" in result.errors[0]
