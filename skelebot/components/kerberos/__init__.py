"""Kerberos: get a ticket before a job starts, and renew it while the job runs."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace

from skelebot.component import Check, Component, Session
from skelebot.components.kerberos import krb5_conf
from skelebot.errors import ConfigError, SkelebotError
from skelebot.files import open_regular, reason
from skelebot.keys import key, not_blank, pattern
from skelebot.model import Image, Mount, Project, Task
from skelebot.project import plan

KEYTAB = "/run/secrets/krb5.keytab"  # where the image expects it
KEYTAB_LABEL = "skelebot.keytab"

_principal = pattern(r"[A-Za-z0-9_][\w.$/-]*(@[\w.-]+)?", "a principal, such as alice or alice@EXAMPLE.COM")


@dataclass(frozen=True)
class Kerberos(Component):
    """The principal whose ticket jobs get, and what is needed for that."""

    krb_conf: str = key(help="The krb5.conf that goes into the image", check=not_blank)
    keytab: str = key(help="The keytab, which is mounted for each run", check=not_blank)
    hdfs_user: str = key(help="The principal to get a ticket for", check=_principal)

    def image(self, image: Image, project: Project) -> Image:
        """The image with the client and its configuration, and without the keytab."""
        from skelebot.image.instructions import apt_install, write_files  # not for native runs

        entrypoint = None if image.entrypoint is None else (*self._ticket(), *image.entrypoint)
        client = apt_install("krb5-user", unless="command -v kinit >/dev/null")
        setup = (client, write_files(krb5_conf.FOLDER, self._configuration(project)))
        return replace(
            image,
            setup=(*image.setup, *setup),
            ignores=(*image.ignores, *self._keytab_patterns(project)),
            labels=(*image.labels, (KEYTAB_LABEL, KEYTAB)),
            entrypoint=entrypoint,
        )

    def task(self, task: Task, project: Project) -> Task:
        """The job behind the script that gets its ticket; a native job has the caller's ticket."""
        if task.place.is_native:
            return task
        mount = Mount(self._existing_keytab(project), KEYTAB, read_only=True)
        return replace(task, argv=(*self._ticket(), *task.argv), mounts=(*task.mounts, mount))

    def _configuration(self, project: Project) -> dict[str, str]:
        return krb5_conf.read(project.root, plan.at_home(self.krb_conf))

    def _existing_keytab(self, project: Project) -> str:
        keytab = _path(project, self.keytab)
        if os.path.isfile(keytab):
            return keytab
        problem = "is not an ordinary file" if os.path.exists(keytab) else "does not exist"
        raise ConfigError([f"components.kerberos.keytab: {keytab} {problem}; get a keytab from your KDC"])

    def _keytab_patterns(self, project: Project) -> Iterable[str]:
        """The patterns that keep the keytab out of every context, by its name and by where links lead."""
        from skelebot.image.ignores import literal

        keytab = _path(project, self.keytab)
        roots = ((project.root, keytab), (os.path.realpath(project.root), os.path.realpath(keytab)))
        paths = {os.path.relpath(path, root) for root, path in roots}
        return (literal(path) for path in sorted(paths) if not path.startswith(".."))

    def _ticket(self) -> tuple[str, ...]:
        """The words before a job's own, which get it a ticket."""
        return ("sh", "-c", _script(), "kerberos", KEYTAB, self.hdfs_user)

    def checks(self, session: Session) -> Iterable[Check]:
        if not session.optional_project:
            return
        keytab = _path(session.project, self.keytab)
        try:
            self._configuration(session.project)
            self._existing_keytab(session.project)
            open_regular(keytab).close()
            yield Check("kerberos", f"keytab {keytab}")
        except SkelebotError as error:
            yield Check.failed("kerberos", error)
        except OSError as error:
            yield Check("kerberos", f"{keytab} cannot be read: {reason(error)}", "change its owner or mode")


def _path(project: Project, name: str) -> str:
    return os.path.normpath(os.path.join(project.root, plan.at_home(name)))


def _script() -> str:
    with open(os.path.join(os.path.dirname(__file__), "ticket.sh"), encoding="utf-8") as file:
        return file.read()
