"""Mapped folders for an engine on another machine: volumes there, kept in step with the folders here.

Each mapping of a checkout has its own volume on the engine, which outlives its containers, so that
what has not changed is not sent again. A read-only mapping is one for the engine, which lets no job write
there: what another job wrote to the same folder is not lost by it. A mapped file has no volume: it is
copied into the container and back.
"""

import hashlib
import json
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

from skelebot import console, process
from skelebot.errors import SkelebotError
from skelebot.files import PART, locked, reason
from skelebot.keys import image_name
from skelebot.model import Mount
from skelebot.project.state import FOLDER, checkout_id, own_folder
from skelebot.runners.docker import sync
from skelebot.runners.docker.client import Client, csv, explained
from skelebot.runners.docker.exchange import TOP, Folder, exchange, unseen
from skelebot.runners.docker.labels import CHECKOUT_LABEL, JOB_LABEL, PROJECT_LABEL

MOUNTS_LABEL = "skelebot.mounts"


@dataclass(frozen=True)
class Volumes:
    """What stands for a checkout's mappings on one engine: a volume for each folder, copies of the files.

    image: the id of one that has find and tar. files: the mapped files, each with the checksum of what
    the container was given; without one those that are read-only. checkout: of a recorded run, whose root is
    a folder of its own: the read-only mappings that are not its own are those of the checkout.
    """

    client: Client
    image: str
    project: str
    root: str
    folders: tuple[Mount, ...]
    files: tuple[tuple[Mount, str], ...]
    checkout: str = ""

    @classmethod
    def of(
        cls, client: Client, image: str, project: str, root: str, mounts: Iterable[Mount], checkout: str = ""
    ) -> "Volumes":
        """Those of what is mapped now. Raises SkelebotError for what is neither a folder nor a file."""
        folders, files = [], []
        for mount in mounts:
            if os.path.isdir(mount.source):
                folders.append(mount)
            elif os.path.isfile(mount.source):
                files.append((mount, "" if mount.read_only else sync.checksum(mount.source)))
            else:
                raise SkelebotError(
                    f"{mount.source} is neither a folder nor a file, and cannot be mapped on {client.where}"
                )
        return cls(client, image, project, root, tuple(folders), tuple(files), checkout)

    def labels(self) -> tuple[tuple[str, str], ...]:
        """What a container carries for it to be told from others', and its results to be brought back."""
        mapped = [*((mount, None) for mount in self.folders), *self.files]
        mounts = [[m.source, m.target, m.read_only, sent] for m, sent in mapped]
        return ((MOUNTS_LABEL, json.dumps(mounts)),)

    def arguments(self) -> tuple[str, ...]:
        """The arguments of `docker run` that stand for the mapped folders."""
        mounts = ((self._fields(m, m.target), ["readonly"] if m.read_only else []) for m in self.folders)
        return tuple(word for fields, more in mounts for word in ("--mount", csv([*fields, *more])))

    def _fields(self, mount: Mount, target: str) -> list[str]:
        labels = {PROJECT_LABEL: self.project, CHECKOUT_LABEL: checkout_id(self._root(mount))}
        words = ["type=volume", f"source={self._name(mount)}", f"target={target}", "volume-nocopy"]
        return words + [f"volume-label={name}={value}" for name, value in labels.items()]

    def _name(self, mount: Mount) -> str:
        source = hashlib.sha256(os.fsencode(mount.source)).hexdigest()[:10]
        return f"{image_name(self.project)}-{checkout_id(self._root(mount))}-{source}"

    def _root(self, mount: Mount) -> str:
        """Return the root of the checkout whose volume a mapping has: many runs read the same data."""
        own = os.path.dirname(self.root)
        is_own = not mount.read_only or f"{mount.source}/".startswith(f"{own}/")
        return self.checkout if self.checkout and not is_own else self.root

    def send(self) -> None:
        """Bring the volumes in step with the folders; what an earlier job wrote comes back first."""
        with self._alone(self.folders):
            self._exchange(self.folders, both_ways=True)

    def fetch(self, container: str) -> None:
        """Bring back what a job has written. Where that fails, it stays for another attempt."""
        try:
            folders = tuple(mount for mount in self.folders if not mount.read_only)
            with self._alone(folders):
                self._exchange(folders, both_ways=False)
                for mount, sent in self.files:
                    if not mount.read_only:
                        self._fetch_file(container, mount, sent)
        except BaseException:
            console.warn(
                f"the job's results are still on {self.client.where}; `skelebot logs JOB` brings them back"
            )
            raise

    @contextmanager
    def _alone(self, mounts: tuple[Mount, ...]) -> Iterator[None]:
        """Wait until no other run of the checkout, or of one whose volumes it has, is at it."""

        def on_wait() -> None:
            console.info("waiting for another run to synchronize its mappings")

        roots = dict.fromkeys((self.root, *map(self._root, mounts)))
        with ExitStack() as locks:
            for root in roots:
                locks.enter_context(locked(os.path.join(_state_folder(root), "lock"), on_wait=on_wait))
            yield

    # --- mapped folders ---

    def _exchange(self, mounts: tuple[Mount, ...], both_ways: bool) -> None:
        """Let one container that sees the volumes look after them. Raises SkelebotError."""

        def transport(
            script: str, write_stdin: Callable[[IO[bytes]], None], read_stdout: Callable[[IO[bytes]], bool]
        ) -> None:
            words = ["run", "--rm", "--init", "--interactive", "--user", "0:0", "--network", "none"]
            # What the container writes is what is on its way here: the engine is not to keep it as a log.
            words += ["--log-driver", "none", "--label", f"{PROJECT_LABEL}={self.project}"]
            for number, mount in enumerate(mounts):
                words += ["--mount", csv(self._fields(mount, f"{TOP}/{number}"))]
            words += ["--entrypoint", "/bin/sh", self.image, "-c", script]
            code, whole, said = process.pipe(self.client.step(*words), write_stdin, read_stdout)
            if code != 0 or not whole:
                lines = (line for line in said.splitlines() if "Exiting with failure status" not in line)
                raise explained(
                    self.client,
                    "\n".join(lines) or "the connection was lost",
                    f"the mappings could not be synchronized with {self.client.where}",
                )

        folders = [self._folder(mount) for mount in mounts]
        exchange(folders, self.client.where, transport, both_ways, self.client.verbose)

    def _folder(self, mount: Mount) -> Folder:
        where = zlib.crc32(f"{self.client.where} {self._name(mount)}".encode())

        def is_in_use() -> bool:
            which = ("--filter", f"volume={self._name(mount)}", "--filter", f"label={JOB_LABEL}")
            return self.client.query("ps", "--quiet", *which).strip() != ""

        return Folder(
            os.path.realpath(mount.source),
            os.path.join(_state_folder(self._root(mount)), f"{self._name(mount)}.{where:08x}.json"),
            os.path.realpath(os.path.join(self._root(mount), FOLDER)),
            self._part,
            is_in_use,
        )

    @property
    def _part(self) -> str:
        """How a file is called that is on its way here: no other checkout's is called so."""
        return f".{checkout_id(self.root)}{PART}"

    # --- mapped files ---

    def send_files(self, container: str) -> None:
        """Copy the mapped files into a container that was not started yet."""
        if not self.files:
            return

        def feed(stdin: IO[bytes]) -> None:
            with tarfile.open(fileobj=stdin, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                for mount, _ in self.files:
                    sync.add(tar, mount.target.lstrip("/"), os.path.realpath(mount.source), unseen)

        code, _, said = process.pipe(self.client.step("cp", "-", f"{container}:/"), feed, IO.read)
        if code != 0:
            raise explained(self.client, said, f"the mapped files could not be sent to {self.client.where}")

    def _fetch_file(self, container: str, mount: Mount, sent: str) -> None:
        def take(stdout: IO[bytes]) -> bool:
            try:
                _take_file(stdout, os.path.realpath(mount.source), sent, self._part)
                return True
            except tarfile.TarError:
                return False  # it breaks off, or there was nothing: the client says why

        code, whole, said = process.pipe(
            self.client.step("cp", f"{container}:{mount.target}", "-"), None, take
        )
        has_gone = re.search(r"no such container|could not find the file", said.lower())
        if not has_gone and not (code == 0 and whole):
            raise explained(self.client, said, f"{mount.source} could not be brought back")


def _state_folder(root: str) -> str:
    folder = os.path.join(own_folder(root), "remote")
    os.makedirs(folder, exist_ok=True)
    return folder


def _take_file(stream: IO[bytes], target: str, sent: str, part: str) -> None:
    """Put a mapped file into its place where the job has changed it, and nobody later here.

    sent: the checksum of what the job was given. Raises SkelebotError, and tarfile.TarError for a tar
    that breaks off.
    """
    fresh = os.path.join(os.path.dirname(target), part)
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        member = tar.next()
        source = tar.extractfile(member) if member and member.isreg() else None
        if member is None or source is None:
            return  # the job has put something of another kind in its place
        try:
            sync.copy(source, fresh, member, unseen)
            if _is_news(fresh, target, sent, member):
                os.replace(fresh, target)
        except OSError as error:
            raise SkelebotError(f"{target} cannot be written: {reason(error)}") from None
        finally:
            with suppress(OSError):
                os.unlink(fresh)


def _is_news(fresh: str, target: str, sent: str, member: tarfile.TarInfo) -> bool:
    theirs, own = sync.checksum(fresh), sync.checksum(target)
    if theirs in (sent, own):
        return False
    return own in (sent, "") or sync.mtime(member) > os.stat(target).st_mtime_ns


# --- what a job has left behind ---


def bring_back(client: Client, root: str, name: str) -> None:
    """Bring back the results of a container that this checkout started, once it has ended."""

    def read(found: dict[str, Any]) -> Volumes | None:
        labels = found["Config"].get("Labels") or {}
        is_own = MOUNTS_LABEL in labels and labels.get(CHECKOUT_LABEL) == checkout_id(root)
        if not is_own or found["State"]["Running"]:
            return None
        mapped = [(Mount(*fields), sent) for *fields, sent in json.loads(labels[MOUNTS_LABEL])]
        folders = tuple(mount for mount, sent in mapped if sent is None)
        files = tuple((mount, sent) for mount, sent in mapped if sent is not None)
        return Volumes(client, found["Image"], labels[PROJECT_LABEL], root, folders, files)

    for volumes in client.inspect_all((name,), read):
        if volumes:
            volumes.fetch(name)
