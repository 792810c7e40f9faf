"""The settings of `components.cluster`, for jobs on Kubernetes, and `cluster` with its verbs."""

from collections.abc import Iterable
from dataclasses import fields, replace

from skelebot.component import Check, Command, Component, Link, Session
from skelebot.keys import CLUSTER
from skelebot.model import Cluster, Json, Place, Project, Task
from skelebot.options import Values


class ClusterSettings(Cluster, Component):
    """What `k8s://` alone means, and how jobs run on a cluster."""

    def commands(self, project: Project | None) -> Iterable[Command]:
        return (Command("cluster", "Prepare and check a cluster for the jobs", _check, verbs=_verbs),)

    def task(self, task: Task, project: Project) -> Task:
        # Also elsewhere: a worker may take a queued run to a cluster.
        return replace(task, cluster=self._with(task.cluster))

    def place(self, place: Place, project: Project) -> Place:
        """Return the place of a cluster with the context and the namespace that it leaves out."""
        if not place.is_cluster:
            return place
        from urllib.parse import quote  # only for a cluster

        context, _, namespace = (place.host or "").removeprefix(CLUSTER).partition("/")
        context = context or quote(self.context or "", safe="")
        namespace = namespace or self.namespace or ""
        return Place.at(f"{CLUSTER}{context}/{namespace}" if namespace else f"{CLUSTER}{context}")

    def checks(self, session: Session) -> Iterable[Check]:
        from skelebot.components.cluster import commands

        return commands.checks(session)

    def _with(self, own: Cluster) -> Cluster:
        """Return a job's settings, over these."""
        default = Cluster()
        given = {f.name: getattr(own, f.name) for f in fields(Cluster)}
        changed = {name: value for name, value in given.items() if value != getattr(default, name)}
        if own.pod_spec and self.pod_spec:
            changed["pod_spec"] = _merged(self.pod_spec, own.pod_spec)
        above = Cluster(**{f.name: getattr(self, f.name) for f in fields(Cluster)})
        return replace(above, **changed)


def _merged(above: Json, own: Json) -> Json:
    import json

    from skelebot.runners.kubernetes.manifest import merged

    return Json(json.dumps(merged(json.loads(above), json.loads(own))))


def _verbs() -> tuple[Command, ...]:
    return (
        Command("cluster manifest", "Print the manifest of a job with its values", _check, bind=_manifest),
        Command("cluster role", "Print the role that the jobs need, for an administrator", _role),
        Command("cluster check", "Check that the cluster takes the jobs", _check),
    )


def _manifest(link: Link) -> Command:
    def run(session: Session, values: Values) -> int:
        from skelebot.components.cluster import commands

        return commands.manifest(link)

    return Command("cluster manifest", "", run)


def _role(session: Session, values: Values) -> int:
    from skelebot.components.cluster import commands

    return commands.role(session)


def _check(session: Session, values: Values) -> int:
    from skelebot.components.cluster import commands

    return commands.check(session)
