"""What `cluster manifest`, `cluster role` and `cluster check` do."""

import os
from dataclasses import replace

from skelebot import console, launch
from skelebot.component import Check, Link, Session
from skelebot.errors import SkelebotError, UsageError
from skelebot.keys import CLUSTER
from skelebot.model import Claim, Cluster, Place
from skelebot.project import plan
from skelebot.runners.kubernetes import Kubernetes
from skelebot.runners.kubernetes.manifest import yaml_text


def manifest(link: Link) -> int:
    """Print the manifest of a job with the values that were typed, without secrets."""
    session, job = link.session, link.command.job
    if job is None:
        raise UsageError(f"{link.command.name} is not a job; name one, as in `skelebot cluster manifest JOB`")
    task = plan.task(session.project, job, link.values, session.flags, os.environ)
    task = task if task.place.is_cluster else replace(task, place=Place.at(CLUSTER))
    task = launch.amended(session, task)
    runner = Kubernetes(task.place, session.flags)
    console.out(runner.manifest(launch.image(session, job), task).rstrip("\n"))
    return 0


# What each step of a run needs, and nothing else.
RULES = (
    ("batch", "jobs", ("create", "get", "list", "delete")),
    ("", "pods", ("get", "list", "delete")),
    ("", "pods/exec", ("create", "get")),
    ("", "secrets", ("create",)),
    ("", "events", ("list",)),
)
# Where a job has a schedule.
_SCHEDULE_RULES = (
    ("batch", "cronjobs", ("create", "get", "list", "update", "delete")),
    ("", "pods/log", ("get",)),
    ("", "secrets", ("update", "delete")),
)
# Where a job has a claim made for it.
_CLAIM_RULES = (("", "persistentvolumeclaims", ("create", "list")),)


def rules(session: Session) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """Return what the jobs of the project need: API group, resource and verbs."""
    settings: list[Cluster] = [each for each in session.components if isinstance(each, Cluster)]
    settings += [job.cluster for job in session.project.jobs]
    makes_claims = any(isinstance(each.claim, Claim) for each in settings)
    has_schedules = any(job.schedule for job in session.project.jobs)
    return (
        *RULES,
        *(_CLAIM_RULES if makes_claims else ()),
        *(_SCHEDULE_RULES if has_schedules else ()),
    )


def role(session: Session) -> int:
    """Print the role that the jobs need, for an administrator to apply."""
    namespace = _client(session).client.namespace
    needed = [{"apiGroups": [g], "resources": [r], "verbs": [*verbs]} for g, r, verbs in rules(session)]
    about = {"name": "skelebot", "namespace": namespace}
    made = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": about, "rules": needed}
    console.out(yaml_text(made).rstrip("\n"))
    return 0


def check(session: Session) -> int:
    """Print what was checked; 1 if something is wrong."""
    found = list(checks(session))
    for each in found:
        (console.error if each.advice else console.out)(
            f"{each.name}: {each.found}" + (f"; {each.advice}" if each.advice else "")
        )
    return 1 if any(each.advice for each in found) else 0


def checks(session: Session) -> list[Check]:
    """Check that the cluster answers and allows what a run does."""
    runner = _client(session)
    client = runner.client
    try:
        version = client.request("GET", "/version")["gitVersion"]
        missing = [
            f"{verb} {resource}"
            for group, resource, verbs in rules(session)
            for verb in verbs
            if not _may(runner, group, resource, verb)
        ]
    except SkelebotError as error:
        return [Check.failed("cluster", error)]
    where = f"Kubernetes {version} at {runner.place}, namespace {client.namespace}"
    if missing:
        advice = "ask an administrator for the role that `skelebot cluster role` prints"
        return [Check("cluster", where), Check("rights", f"you may not {', '.join(missing)}", advice)]
    return [Check("cluster", where), Check("rights", "all that a run needs")]


def _client(session: Session) -> Kubernetes:
    """The cluster of -d or of the project, or else the one that k8s:// means."""
    named = Place.at(session.flags.docker_host or session.project.host)
    place = named if named.is_cluster else Place.at(CLUSTER)
    return Kubernetes(launch.place(session, place), session.flags)


def _may(runner: Kubernetes, group: str, resource: str, verb: str) -> bool:
    name, _, below = resource.partition("/")
    asked = {"namespace": runner.client.namespace, "group": group, "resource": name, "verb": verb}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {**asked, **({"subresource": below} if below else {})}},
    }
    answer = runner.client.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)
    return bool(answer["status"].get("allowed"))
