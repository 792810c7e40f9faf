"""Jobs that a cluster runs by their schedules: a CronJob for each, which all checkouts share."""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, NamedTuple

from skelebot.errors import SkelebotError
from skelebot.model import Place, Task
from skelebot.runners.kubernetes import manifest
from skelebot.runners.kubernetes.client import Answer, Client, Json
from skelebot.runners.kubernetes.manifest import ENV, JOB, SCHEDULE, STATE, Schedule, Where
from skelebot.runners.kubernetes.run import missing


class Change(NamedTuple):
    """What deploying has changed: the CronJob's name, and whether it stays paused."""

    name: str
    what: Literal["new", "updated", "unchanged"]
    is_paused: bool


class Deployed(NamedTuple):
    """What is deployed of a job. last: when its last run was due, in ISO 8601. env: the environment."""

    name: str
    job: str
    env: str
    cron: str
    image: str
    is_paused: bool
    is_running: bool
    last: str
    place: Place


def deploy(
    client: Client, task: Task, where: Where, schedule: Schedule, keyed_hash: Callable[[bytes], str]
) -> Change:
    """Make a job's CronJob and its Secret, or replace them where something differs.

    keyed_hash: of secrets, which only this side can make.
    """
    found = before = client.get("cronjobs", manifest.job_name(task, where.token))
    state = ((found or {}).get("metadata", {}).get("annotations") or {}).get(STATE, "")
    is_paused = bool(found and state and found["spec"].get("suspend"))
    secret = manifest.secret(task, where, os.environ)
    schedule = schedule._replace(api=client.cron_api)
    text = json.dumps(manifest.cron_job(task, where, schedule), sort_keys=True)
    text += keyed_hash(json.dumps(secret["stringData"]).encode()) if secret else ""
    schedule = schedule._replace(state=hashlib.sha256(text.encode()).hexdigest(), is_paused=is_paused)
    made = manifest.cron_job(task, where, schedule)
    name = made["metadata"]["name"]
    if state == schedule.state:
        return Change(name, "unchanged", is_paused)
    if claim := manifest.volume_claim(task, where):
        client.ensure("persistentvolumeclaims", claim)
    try:
        if secret and not found:  # nothing begins before its Secret is there, even if this is killed
            unready = manifest.cron_job(task, where, schedule._replace(is_paused=True, state=""))
            found = client.create("cronjobs", unready)
        if found:
            _keep_secret(client, secret, found)
        answer = client.replace("cronjobs", made) if found else client.create("cronjobs", made)
        if gone := sorted(missing(made["spec"], answer["spec"])):
            raise SkelebotError(
                f"{client.place} does not know {', '.join(gone)}; its Kubernetes is too old for that"
            )
    except SkelebotError:
        if not before:
            with suppress(SkelebotError):
                client.delete("cronjobs", name)
        raise
    return Change(name, "updated" if before else "new", is_paused)


def _keep_secret(client: Client, secret: Json | None, cron_job: Json) -> None:
    """Give a CronJob the Secret that it needs, which goes with it, or take away that of before."""
    about = cron_job["metadata"]
    if secret is None:
        client.delete("secrets", about["name"])
        return
    owner = {"apiVersion": f"batch/{client.cron_api}", "kind": "CronJob", "name": about["name"]}
    secret["metadata"]["ownerReferences"] = [{**owner, "uid": about["uid"]}]
    try:
        client.request("POST", client.path("secrets"), secret)
    except Answer as error:
        if error.reason != "AlreadyExists":
            raise
        client.replace("secrets", secret)


def deployed(client: Client, project: str) -> list[Deployed]:
    """Return what is deployed of a project."""
    selector = f"{manifest.PROJECT}={manifest.dns(project, 63)},{SCHEDULE}"
    found = [_read(client.place, each) for each in client.list("cronjobs", labelSelector=selector, lasting=5)]
    return sorted(found, key=lambda each: (each.job, each.env))


def _read(place: Place, found: Json) -> Deployed:
    about, spec, status = found["metadata"], found["spec"], found.get("status") or {}
    notes = about.get("annotations") or {}
    containers = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return Deployed(
        about["name"],
        notes.get(JOB, ""),
        notes.get(ENV, ""),
        spec["schedule"],
        next((each["image"] for each in containers if each["name"] == "job"), ""),
        bool(spec.get("suspend")),
        bool(status.get("active")),
        status.get("lastScheduleTime") or "",
        place,
    )


def pause(client: Client, name: str, is_paused: bool) -> bool:
    """Let a schedule begin no more runs, or again; tell whether that was not so before."""
    while (found := client.get("cronjobs", name)) and bool(found["spec"].get("suspend")) != is_paused:
        found["spec"]["suspend"] = is_paused
        try:
            client.replace("cronjobs", found)
            return True
        except Answer as error:
            if error.status != 409:  # the cluster has changed it meanwhile
                raise
    return False


def undeploy(client: Client, name: str) -> None:
    """Remove a schedule with its runs and its Secret."""
    client.delete("cronjobs", name)
