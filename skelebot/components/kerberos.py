"""Kerberos: a ticket is there before a job starts, and stays fresh while it runs."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace

from skelebot.component import Check, Component, Session
from skelebot.errors import ConfigError, UsageError
from skelebot.model import Image, Mount, Project, Task, key, not_blank, pattern
from skelebot.project import plan

KEYTAB = "/run/secrets/krb5.keytab"  # where the image expects it
KEYTAB_LABEL = "skelebot.keytab"

_principal = pattern(r"[A-Za-z0-9_][\w.$/-]*(@[\w.-]+)?", "a principal, as in alice or alice@EXAMPLE.COM")

_CLIENT = (
    "command -v kinit >/dev/null || { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y "
    "--no-install-recommends krb5-user && rm -rf /var/lib/apt/lists/*; }"
)
_SETTINGS = 'printf %s "$1" >/etc/krb5.conf'


@dataclass(frozen=True)
class Kerberos(Component):
    """Whose ticket jobs get, and from where."""

    krb_conf: str = key(help="The krb5.conf that goes into the image", check=not_blank)
    keytab: str = key(help="The keytab, which is mounted for each run", check=not_blank)
    hdfs_user: str = key(help="The principal to get a ticket for", check=_principal)

    def image(self, image: Image, project: Project) -> Image:
        """The client and its settings in the image, the keytab not even near it."""
        from skelebot.image.dockerfile import exec_form  # not for native runs

        settings = _settings(project, self.krb_conf)
        entrypoint = None if image.entrypoint is None else self._wrapped(image.entrypoint)
        setup = (f"RUN {_CLIENT}", exec_form("RUN", ("sh", "-c", _SETTINGS, "krb5.conf", settings)))
        return replace(
            image,
            setup=(*image.setup, *setup),
            ignores=(*image.ignores, *self._never(project)),
            labels=(*image.labels, (KEYTAB_LABEL, KEYTAB)),
            entrypoint=entrypoint,
        )

    def task(self, task: Task, project: Project) -> Task:
        """The job behind what gets it a ticket; natively it has the caller's."""
        if task.native == "always":
            return task
        keytab = _path(project, self.keytab)
        if not os.path.isfile(keytab):
            raise ConfigError(
                [f"components.kerberos.keytab: there is no file {keytab}; get one from your KDC"]
            )
        mount = Mount(keytab, KEYTAB, read_only=True)
        return replace(task, argv=self._wrapped(task.argv), mounts=(*task.mounts, mount))

    def _never(self, project: Project) -> Iterable[str]:
        """The patterns that keep the keytab out of every context, by its name and by where links lead."""
        from skelebot.image.ignores import literal

        keytab = _path(project, self.keytab)
        roots = ((project.root, keytab), (os.path.realpath(project.root), os.path.realpath(keytab)))
        paths = {os.path.relpath(path, root) for root, path in roots}
        return (literal(path) for path in sorted(paths) if not path.startswith(".."))

    def _wrapped(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        return ("sh", "-c", _script(), "kerberos", KEYTAB, self.hdfs_user, *argv)

    def checks(self, session: Session) -> Iterable[Check]:
        if session.optional_project:
            keytab = _path(session.project, self.keytab)
            readable = os.access(keytab, os.R_OK)
            advice = None if readable else f"let {keytab} be a keytab that you can read"
            yield Check("kerberos", f"keytab {keytab}" if readable else "no keytab", advice)


def _path(project: Project, name: str) -> str:
    return os.path.normpath(os.path.join(project.root, plan.at_home(name)))


def _settings(project: Project, name: str) -> str:
    """The text of the krb5.conf. Raises UsageError."""
    try:
        with open(_path(project, name), encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"components.kerberos.krbConf: {name} cannot be read: {reason.lower()}") from None


def _script() -> str:
    with open(os.path.join(os.path.dirname(__file__), "kerberos.sh"), encoding="utf-8") as file:
        return file.read()
