"""Images: found where nothing has changed, and else built, by whichever builder there is."""

import fcntl
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO

from skelebot import console, context, dockerfile, shell
from skelebot.context import Entry, Memory
from skelebot.dependencies import ODD_NAME
from skelebot.errors import SkelebotError, UsageError
from skelebot.ignores import Ignores, literal
from skelebot.model import Image, Step, Task
from skelebot.runners import lent
from skelebot.runners.engine import Client, Found, explained
from skelebot.runners.folders import own_folder

CONTEXT_LABEL = "skelebot.context"
FILES_LABEL = "skelebot.files"

_HEAVY = 10_000_000  # bytes from which a file or folder gets a layer of its own
_LARGE = 50_000_000  # bytes of context from which a warning names what is largest


def last(client: Client, image: Image, task: Task) -> Found:
    """The image as it was built last. Raises SkelebotError where there is none."""
    found = client.inspect(image.tag, task)
    if found is None:
        raise SkelebotError(f"there is no image {image.tag} yet; run once without -s to build it")
    return found


def current(client: Client, image: Image, task: Task, lock: "Lock") -> Found:
    """The image of the project as it is now, built only where something has changed.

    Raises SkelebotError with what the engine or the builder said.
    """
    found = client.inspect(image.tag, task)
    source = Source(image)
    if found and found.labels.get(_view_label(task.hidden)) == source.fingerprint(task.hidden):
        return found
    built = _build(client, source, task, found)
    _tidy(client, image, lock)  # a failed build's steps stay, for the next attempt to go on from
    return built


def _view_label(hidden: frozenset[str]) -> str:
    """The label of the fingerprint that leaves out what a job's mappings lie over."""
    return f"{CONTEXT_LABEL}.{_view(hidden)}" if hidden else CONTEXT_LABEL


def _view(hidden: frozenset[str]) -> str:
    text = "\n".join(sorted(hidden)).encode("utf-8", "surrogateescape")
    return f"{zlib.crc32(text):08x}" if hidden else "all"


class Source:
    """All that an image is made of: the text of its Dockerfile, the files, the patterns."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.text = text(image)
        self.patterns = (*image.ignores, *_own_dockerfile(image))
        self.ignores = Ignores(self.patterns)
        self._memory = _memory(image)

    def fingerprint(self, hidden: frozenset[str], entries: list[Entry] | None = None) -> str:
        """The fingerprint less what is hidden; `entries` of the whole context, where they are known."""
        if entries is None:
            entries = context.walk(self.image.context, self.ignores, hidden)
        elif hidden:
            entries = [e for e in entries if not context.is_below(e.path, hidden)]
        return self._memory.fingerprint(self.text, entries, _view(hidden))

    def content(self, text: str, entries: list[Entry]) -> str:
        """The fingerprint of a part of the context under a text of its own."""
        return self._memory.hashed(text, entries)


def _memory(image: Image) -> Memory:
    folder = os.path.join(image.context, ".skelebot")
    with suppress(SkelebotError):  # a project that cannot be written is read anew each time
        folder = own_folder(image.context)
    return Memory(folder, image.tag.replace(":", "."))


def text(image: Image) -> str:
    """The Dockerfile of an image, the user's own where it names one. Raises UsageError."""
    if not image.dockerfile:
        return dockerfile.text(image)
    try:
        with open(os.path.join(image.context, image.dockerfile), encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"dockerfile: {image.dockerfile} cannot be read: {reason.lower()}") from None


# --- building ---


def _build(client: Client, source: Source, task: Task, before: Found | None) -> Found:
    image = source.image
    entries = context.walk(image.context, source.ignores)
    _warn_if_large(entries)
    views = {frozenset[str](), task.hidden, *image.views}
    labels = {_view_label(hidden): source.fingerprint(hidden, entries) for hidden in views}
    builder = Builder(client, source, task, _has_buildkit(client))
    if image.dockerfile:
        labels[dockerfile.PROJECT_LABEL] = image.project
        labels |= dict(image.labels)
        return builder.build(source.text.splitlines(), entries, labels, image.tag)
    base = _base(client, image, task)
    user = base.user if base and base.user.split(":")[0] not in ("", "0", "root") else ""
    heavy = tuple(path for path in context.heavy(entries, _HEAVY) if not ODD_NAME.search(path))
    if not heavy:
        lines = dockerfile.first_part(image, (), user) + dockerfile.second_part(image, None, user)
        built = builder.build(lines, entries, labels, image.tag)
    else:
        first = builder.files_image(dockerfile.first_part(image, heavy, user), entries, heavy, base)
        labels[FILES_LABEL] = first
        light = [e for e in entries if not context.is_below(e.path, heavy)]
        lines = dockerfile.second_part(image, first, user)
        built = builder.build(lines, light, labels, image.tag, left_out=heavy)
    _forget_files_image(client, before, labels.get(FILES_LABEL))
    _show_dockerfile(image)
    return built


def _base(client: Client, image: Image, task: Task) -> Found | None:
    """The base image, pulled where the engine does not have it."""
    found = client.inspect(image.base, task)
    if found is None:
        step = client.step("pull", image.base)
        shell.trace(client.verbose, step)
        code, lines = shell.tee(step, console.detail)
        if code != 0:
            raise explained(client, "\n".join(lines), task, image.base, pulling=True)
        found = client.inspect(image.base, task)
    return found


def _has_buildkit(client: Client) -> bool:
    """Whether client and engine together have BuildKit: the one question on which all else depends."""
    if os.environ.get("DOCKER_BUILDKIT") == "0":
        return False
    wanted = "{{.Client.Version}} {{.Server.APIVersion}} {{.Server.Os}}"
    code, out, _ = client.capture("version", "--format", wanted)
    match = re.match(r"(\d+)\.\S* 1\.(\d+) linux", out)
    if code != 0 or match is None or int(match[2]) < 39:
        return False
    # The clients before 23 have it built in; since then it is a plugin.
    return int(match[1]) < 23 or client.capture("buildx", "version")[0] == 0


@dataclass(frozen=True)
class Builder:
    """Builds from private copies of all that two builds could share."""

    client: Client
    source: Source
    task: Task
    buildkit: bool

    def files_image(
        self, lines: list[str], entries: list[Entry], heavy: tuple[str, ...], base: Found | None
    ) -> str:
        """The tag of an image with what is installed and the heavy files, built where it is missing.

        It stands apart so that a change of a script neither sends nor stores them again.
        """
        copied = (*heavy, *self.source.image.copied)
        needed = [e for e in entries if context.is_below(e.path, copied)]
        content = self.source.content("\n".join([base.id if base else "", *lines]), needed)
        tag = f"{self.source.image.tag.partition(':')[0]}:files-{content[:16]}"
        if self.client.inspect(tag, self.task) is None:
            self.build(lines, needed, {}, tag)
        return tag

    def build(
        self,
        lines: list[str],
        entries: list[Entry],
        labels: dict[str, str],
        tag: str,
        left_out: tuple[str, ...] = (),
    ) -> Found:
        """Builds an image from the entries of the context, which `left_out` are none of."""
        import tempfile  # only for builds

        with tempfile.TemporaryDirectory(prefix="skelebot-") as folder:
            loan = lent.lend(self.source.image, folder, self.buildkit)
            if not self.source.image.dockerfile:  # one of the user's own mounts what it wants itself
                lines = loan.lines(lines, self.buildkit)
            content = "\n".join(lines) + "\n"
            id_file = os.path.join(folder, "id")
            words = ["build", "--tag", tag, "--iidfile", id_file, *loan.words]
            words += [word for label in sorted(labels.items()) for word in ("--label", "=".join(label))]
            if self.buildkit:
                feed = None
                words += ["--file", self._private(folder, content, left_out), self.source.image.context]
            else:
                feed = context.feed(entries, content)
                words += ["--force-rm", "--file", context.DOCKERFILE, "-"]
            env = (("DOCKER_BUILDKIT", str(int(self.buildkit))), ("BUILDX_BUILDER", "default"))
            self._run(self.client.step(*words, env=env), feed, tag)
            with open(id_file, encoding="ascii") as file:
                found = self.client.inspect(file.read().strip(), self.task)
        if found is None:
            raise SkelebotError(f"the image {tag} was built and is gone; run again")
        return found

    def _private(self, folder: str, content: str, left_out: tuple[str, ...]) -> str:
        """The path of a Dockerfile with its own ignore file beside it, as BuildKit looks for one.

        https://docs.docker.com/build/concepts/context/#filename-and-location
        """
        path = os.path.join(folder, "Dockerfile")
        patterns = (*self.source.patterns, *map(literal, left_out))
        for name, lines in ((path, content), (f"{path}.dockerignore", "\n".join(patterns) + "\n")):
            with open(name, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(lines)
        return path

    def _run(self, step: Step, feed: context.Feed | None, tag: str) -> None:
        failed: list[SkelebotError] = []

        def guarded(stream: IO[bytes]) -> None:
            assert feed
            try:
                feed(stream)
            except SkelebotError as error:
                failed.append(error)

        shell.trace(self.client.verbose, step)
        code, lines = shell.tee(step, _show, guarded if feed else None)
        if failed:
            raise failed[0]
        if code != 0:
            raise explained(self.client, "\n".join(lines), self.task, tag)


_ADVICE = re.compile(
    r"DEPRECATED: The legacy builder|\s+(Install the buildx|BuildKit is currently disabled"
    r"|environment-variable\.|https://docs.docker.com/go)"
)


def _show(line: str) -> None:
    """A line of the builder, less its advice to the owner of the client."""
    if not _ADVICE.match(line):
        console.detail(line)


def _warn_if_large(entries: list[Entry]) -> None:
    total = sum(size for path, size in context.folder_sizes(entries).items() if "/" not in path)
    if total > _LARGE:
        named = ", ".join(f"{path} ({size / 1e6:.0f} MB)" for path, size in context.largest(entries))
        console.warn(f"the image takes {total / 1e6:.0f} MB of files; leave some out with `ignores`: {named}")


# --- tidying up ---


class Lock:
    """Held by every run of a project's images, so that none is removed between its finding and its use."""

    def __init__(self, file: IO[str] | None) -> None:
        self._file = file

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether no other run of this project is going on, for the length of the block."""
        if self._file is None:
            yield False
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
        except BlockingIOError:
            yield False
        finally:
            fcntl.flock(self._file, fcntl.LOCK_SH)


@contextmanager
def images_in_use(root: str) -> Iterator[Lock]:
    try:
        file = open(os.path.join(own_folder(root), "images.lock"), "w", encoding="ascii")  # noqa: SIM115
    except (OSError, SkelebotError):
        yield Lock(None)
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield Lock(file)


def _tidy(client: Client, image: Image, lock: Lock) -> None:
    """Removes what this and earlier builds have superseded and no container uses."""
    with lock.alone() as alone:
        if not alone:
            return
        # Not `image prune`, of which an engine runs one at a time and refuses a second.
        whose = f"label={dockerfile.PROJECT_LABEL}={image.project}"
        listed = ("images", "--quiet", "--no-trunc", "--filter", "dangling=true", "--filter", whose)
        _, superseded, _ = client.capture(*listed)
        if superseded.split():
            client.capture("rmi", *superseded.split())


def _forget_files_image(client: Client, before: Found | None, now: str | None) -> None:
    old = before.labels.get(FILES_LABEL) if before else None
    if old and old != now:
        client.capture("rmi", old)


# --- the Dockerfile that the user sees ---

_HEADER = "# Written by Skelebot from skelebot.yaml, to be looked at; it is not read. Checksum "


def _header(body: str) -> str:
    return f"{_HEADER}{zlib.crc32(body.encode('utf-8', 'surrogateescape')):08x}\n"


def _is_written(root: str) -> bool | None:
    """Whether the project's Dockerfile is Skelebot's, untouched; None where there is no such file."""
    try:
        with open(os.path.join(root, "Dockerfile"), encoding="utf-8", errors="surrogateescape") as file:
            first, body = file.readline(), file.read()
    except FileNotFoundError:
        return None
    except OSError:
        return False
    return first == _header(body)


def _own_dockerfile(image: Image) -> tuple[str, ...]:
    """The pattern that keeps the Dockerfile for the user out of the context it describes."""
    return ("Dockerfile",) if _is_written(image.context) is not False and not image.dockerfile else ()


def _show_dockerfile(image: Image) -> None:
    if image.ephemeral or image.dockerfile:
        return
    written = _is_written(image.context)
    if written is False:
        console.info("the Dockerfile here is yours and stays; to build it, add `dockerfile: Dockerfile`")
        return
    body = dockerfile.text(image)
    path = os.path.join(image.context, "Dockerfile")
    fresh = f"{path}.{os.getpid()}"
    with suppress(OSError):  # a project that cannot be written is built all the same
        with open(fresh, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(_header(body) + body)
        os.replace(fresh, path)
