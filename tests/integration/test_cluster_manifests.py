"""The manifests that the command line prints, against the schemas of all versions; no cluster is asked."""

from typing import Any

import pytest
import yaml
from harness import Sandbox, job, project
from manifests import problems
from real_cluster import keys

PLACE = "k8s://nowhere/ml"
EVERYTHING = (
    "serviceAccount: runner, nodeSelector: {disk: ssd}, priorityClass: high, imagePullSecrets: [pull], "
    "tolerations: [{key: gpu, operator: Exists, effect: NoSchedule}], mesh: off, keep: 2h, "
    "podSpec: {hostAliases: [{ip: 10.0.0.1, hostnames: [db]}], containers: [{name: job, tty: false}]}"
)

CLAIMS = ("claim: cache", "claim: {size: 50Gi}")


def shown(sandbox: Sandbox, *words: str) -> list[Any]:
    sandbox.write("data/x", "x")
    return [each for each in yaml.safe_load_all(sandbox.ok("-d", PLACE, "cluster", *words)) if each]


def test_the_checks_find_what_a_server_would_drop() -> None:
    container = {"name": "job", "image": "x"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    spec = {"backoffLimit": 0, "template": template}
    manifest = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": spec}
    assert problems(manifest) == []
    assert len(problems({**manifest, "spec": {**spec, "backofflimit": 0}})) == 13


@pytest.mark.engine
@pytest.mark.kubernetes
@pytest.mark.parametrize("settings", ["", EVERYTHING, "localQueue: team", *CLAIMS])
@pytest.mark.parametrize("more", [{}, {"resources": "{cpus: 4, memory: 8Gi, gpus: 1}", "timeout": "1h"}])
def test_every_version_knows_every_field(
    sandbox: Sandbox, name: str, settings: str, more: dict[str, str]
) -> None:
    params = "[{name: token, secret: true, default: $TOKEN}, {name: many, accepts: list}]"
    the_job = job("true", mappings="[data/]", params=params, environment="{A: $(B)}", **more)
    project(sandbox, name, the_job, components=keys(settings))
    own = sandbox.with_env(TOKEN="hunter2")
    manifests = shown(own, "manifest", "run", "--many=$(TOKEN)")
    assert [problem for manifest in manifests for problem in problems(manifest)] == []
    assert "Job" in {manifest["kind"] for manifest in manifests}
    assert "hunter2" not in str(manifests)


@pytest.mark.engine
@pytest.mark.kubernetes
def test_every_version_knows_the_role(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("true"), components=keys())
    manifests = shown(sandbox, "role")
    assert {"Role", "RoleBinding"} >= {manifest["kind"] for manifest in manifests}
    assert [problem for manifest in manifests for problem in problems(manifest)] == []
