"""Images: found where nothing has changed, and else built, by whichever builder there is."""

import fcntl
import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO

from skelebot import console, foreground, process
from skelebot.errors import SkelebotError, UsageError
from skelebot.image import context, dockerfile, sizes
from skelebot.image.context import ContextEntry
from skelebot.image.dependencies import ODD_NAME
from skelebot.image.fingerprint import FingerprintCache
from skelebot.image.ignores import Ignores
from skelebot.image.tar import write_tar
from skelebot.model import Image, Step, Task
from skelebot.project.state import own_folder
from skelebot.runners.docker.client import Client, Found, explained

CONTEXT_LABEL = "skelebot.context"
BASE_LABEL = "skelebot.base"
FILES_LABEL = "skelebot.files"

_FILES = "files-"  # begins the tags of what goes when no other image is made of it

_FOLDER = "project/"  # where the project's files stand in the context, beside the Dockerfile

_HEAVY = 10_000_000  # bytes from which a file or folder gets a layer of its own
_LARGE = 50_000_000  # bytes of context from which a warning names what is largest


def provided(client: Client, image: Image, task: Task, lock: "Lock", skip_build: bool) -> Found:
    """The image, built where something has changed, or as it was built last. Raises SkelebotError."""
    return last(client, image, task) if skip_build else current(client, image, task, lock)


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
    if found and is_current(client, found, source, task):
        return found
    built = _build(client, source, task)
    lock.untidy()  # a failed build's steps stay, for the next attempt to go on from
    return built


def is_current(client: Client, found: Found, source: "Source", task: Task) -> bool:
    """Whether an image holds what the project now is."""
    if found.labels.get(_context_label(source.unused(task.shadowed))) != source.fingerprint(task.shadowed):
        return False
    # Another image may go by the base's name by now; through the client the question takes too long.
    base = client.quickly(source.image.base)
    return base is None or found.labels.get(BASE_LABEL, base.id) == base.id


@contextmanager
def labelled(
    client: Client, image: Image, found: Found, labels: dict[str, str], task: Task
) -> Iterator[Found]:
    """The image with further labels; it goes again at the end unless it was given a name meanwhile."""
    # BuildKit takes no id to build upon. Should the name be left behind, it goes as a files image does.
    name = f"{image.tag.partition(':')[0]}:{_FILES}{os.urandom(8).hex()}"
    client.answer("tag", found.id, name)
    try:
        yield Builder(client, Source(image), task, has_buildkit(client)).build_upon(name, labels)
    finally:
        with foreground.uninterrupted():
            client.capture("rmi", name)


def _context_label(shadowed: tuple[str, ...]) -> str:
    """The label of the fingerprint that leaves out what a job's mappings lie over."""
    return f"{CONTEXT_LABEL}.{_shadows(shadowed)}" if shadowed else CONTEXT_LABEL


def _shadows(shadowed: tuple[str, ...]) -> str:
    text = "\n".join(sorted(shadowed)).encode("utf-8", "surrogateescape")
    return f"{zlib.crc32(text):08x}" if shadowed else "all"


class Source:
    """All that an image is made of: the text of its Dockerfile, the files, the patterns."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.text = text(image)
        self.ignores = Ignores((*image.ignores, *own_dockerfile(image)))
        self._fingerprint_cache = _fingerprint_cache(image)

    def fingerprint(self, shadowed: tuple[str, ...], entries: list[ContextEntry] | None = None) -> str:
        """The fingerprint less what is shadowed; `entries` of the whole context, where they are known."""
        shadowed = self.unused(shadowed)
        if "" in shadowed:
            entries = []
        elif entries is None:
            entries = context.walk(self.image.context, self.ignores, shadowed)
        else:
            entries = [e for e in entries if not context.is_below(e.path, shadowed)]
        return self._fingerprint_cache.fingerprint(self.text, entries, _shadows(shadowed))

    def unused(self, shadowed: tuple[str, ...]) -> tuple[str, ...]:
        """Of the shadowed paths those whose content has no part in the image otherwise."""
        return tuple(
            path
            for path in shadowed
            if not any(not path or context.is_below(used, (path,)) for used in self.image.copied)
        )

    def content(self, text: str, entries: list[ContextEntry]) -> str:
        """The fingerprint of a part of the context under a text of its own."""
        return self._fingerprint_cache.hashed(text, entries)


def _fingerprint_cache(image: Image) -> FingerprintCache:
    folder = os.path.join(image.context, ".skelebot")
    with suppress(SkelebotError):  # a project that cannot be written is read anew each time
        folder = own_folder(image.context)
    return FingerprintCache(folder, image.tag.replace(":", "."))


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


def _build(client: Client, source: Source, task: Task) -> Found:
    image = source.image
    entries = context.walk(image.context, source.ignores)
    _warn_if_large(entries)
    shadow_sets = {(), task.shadowed, *image.shadow_sets}
    labels = {_context_label(source.unused(s)): source.fingerprint(s, entries) for s in shadow_sets}
    labels[FILES_LABEL] = ""  # a base that is a project's image has one of its own
    builder = Builder(client, source, task, has_buildkit(client))
    if image.dockerfile:
        return builder.build_own(entries, labels)
    base = _base(client, image, task)
    labels |= {BASE_LABEL: base.id} if base else {}
    user = base.user if base and base.user.split(":")[0] not in ("", "0", "root") else ""
    heavy = tuple(path for path in sizes.heavy_paths(entries, _HEAVY) if not _is_odd(path))
    if not heavy:
        lines = dockerfile.first_part(image, (), user) + dockerfile.second_part(image, None, user)
        built = builder.build(lines, entries, labels, image.tag)
    else:
        first = builder.files_image(dockerfile.first_part(image, heavy, user), entries, heavy, base)
        labels[FILES_LABEL] = first
        light = [e for e in entries if not context.is_below(e.path, heavy)]
        lines = dockerfile.second_part(image, first, user)
        built = builder.build(lines, light, labels, image.tag)
    _show_dockerfile(image, user)
    return built


def _is_odd(path: str) -> bool:
    """Whether COPY would read a path otherwise than as a name."""
    return ODD_NAME.search(path) is not None or not path.isprintable()


def _base(client: Client, image: Image, task: Task) -> Found | None:
    """The base image, pulled where the engine does not have it."""
    found = client.inspect(image.base, task)
    if found is None:
        step = client.step("pull", image.base)
        process.trace(client.verbose, step)
        code, lines = process.tee(step, console.detail)
        if code != 0:
            said = "\n".join(lines)
            raise explained(client, said, f"{image.base} cannot be pulled", task, pulled=image.base)
        found = client.inspect(image.base, task)
    return found


def has_buildkit(client: Client) -> bool:
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


Feed = Callable[[IO[bytes]], None]


@contextmanager
def _private_folder() -> Iterator[str]:
    import tempfile  # only for builds

    with tempfile.TemporaryDirectory(prefix="skelebot-") as folder:
        yield folder


@dataclass(frozen=True)
class Builder:
    """Builds from private copies of all that two builds could share."""

    client: Client
    source: Source
    task: Task
    buildkit: bool

    def files_image(
        self, lines: list[str], entries: list[ContextEntry], heavy: tuple[str, ...], base: Found | None
    ) -> str:
        """The tag of an image with what is installed and the heavy files, built where it is missing.

        It stands apart so that a change of a script neither sends nor stores them again.
        """
        copied = (*heavy, *self.source.image.copied)
        needed = [e for e in entries if context.is_below(e.path, copied)]
        content = self.source.content("\n".join([base.id if base else "", *lines]), needed)
        tag = f"{self.source.image.tag.partition(':')[0]}:{_FILES}{content[:16]}"
        if self.client.inspect(tag, self.task) is None:
            self.build(lines, needed, {}, tag)
        return tag

    def build(self, lines: list[str], entries: list[ContextEntry], labels: dict[str, str], tag: str) -> Found:
        """Builds an image of Skelebot's own lines from the entries of the context."""
        from skelebot.runners.docker import inherited

        with _private_folder() as folder:
            loan = inherited.lend(self.source.image, folder, self.buildkit)
            lines = dockerfile.from_folder(loan.lines(lines, self.buildkit), _FOLDER)
            lines += [dockerfile.label_line(sorted(labels.items()))] if labels else []
            text = "\n".join(lines) + "\n"

            def feed(stream: IO[bytes]) -> None:
                write_tar(stream, entries, _FOLDER, ("Dockerfile", text))

            return self._build(feed, "Dockerfile", loan.words, {}, tag, folder)

    def build_own(self, entries: list[ContextEntry], labels: dict[str, str]) -> Found:
        """Build a custom Dockerfile, unchanged where the builder leaves nothing behind."""
        image, path = self.source.image, os.path.normpath(self.source.image.dockerfile or "")
        text = self.source.text
        text = text if self.buildkit else dockerfile.label_stages(text, image.project)
        from skelebot.runners.docker import inherited

        with _private_folder() as folder:
            loan = inherited.lend(image, folder, self.buildkit)

            def feed(stream: IO[bytes]) -> None:
                write_tar(stream, entries, "", (path, text))

            own = labels | dict(image.labels) | {dockerfile.PROJECT_LABEL: image.project}
            return self._build(feed, path, loan.words, own, image.tag, folder)

    def build_upon(self, tag: str, labels: dict[str, str]) -> Found:
        """Builds what the image of a tag holds once more, with further labels; the tag moves to it."""

        text = f"FROM {tag}\n{dockerfile.label_line(sorted(labels.items()))}\n"

        def feed(stream: IO[bytes]) -> None:
            write_tar(stream, [], "", ("Dockerfile", text))

        with _private_folder() as folder:
            return self._build(feed, "Dockerfile", (), {}, tag, folder)

    def _build(
        self, feed: Feed, file: str, loan: tuple[str, ...], labels: dict[str, str], tag: str, folder: str
    ) -> Found:
        """Sends the context as a stream: BuildKit's own transfer of a folder takes a file of the same
        size and time for unchanged."""
        id_file = os.path.join(folder, "id")
        words = ["build", "--tag", tag, "--iidfile", id_file, "--file", file, *loan]
        words += [word for label in sorted(labels.items()) for word in ("--label", "=".join(label))]
        words += [*([] if self.buildkit else ["--force-rm"]), "-"]
        env = (("DOCKER_BUILDKIT", str(int(self.buildkit))), ("BUILDX_BUILDER", "default"))
        self._run(self.client.step(*words, env=env), feed, tag)
        with open(id_file, encoding="ascii") as written:
            found = self.client.inspect(written.read().strip(), self.task)
        if found is None:
            raise SkelebotError(f"the image {tag} was built and is gone; run again")
        return found

    def _run(self, step: Step, feed: Feed, tag: str) -> None:
        failed: list[SkelebotError] = []

        def guarded(stream: IO[bytes]) -> None:
            try:
                feed(stream)
            except SkelebotError as error:
                failed.append(error)

        for _ in range(_TRIES):
            process.trace(self.client.verbose, step)
            code, lines = process.tee(step, _show, guarded)
            if failed:
                raise failed[0]
            if code == 0:
                return
            if not _SIBLING_GONE.match(lines[-1] if lines else ""):
                break
        otherwise = f"the image {tag} could not be built; the builder's message stands above"
        raise explained(self.client, "\n".join(lines), otherwise, self.task)


_TRIES = 3

# The classic builder looks for its cache among all images upon the same base, of whatever project, and
# gives up when another client removes one of them meanwhile.
_SIBLING_GONE = re.compile(r'unable to find image "sha256:')

_ADVICE = re.compile(
    r"DEPRECATED: The legacy builder|\s+(Install the buildx|BuildKit is currently disabled"
    r"|environment-variable\.|https://docs.docker.com/go)"
)


# A step as the builder names it, which may be a whole script.
_STEP = re.compile(r"(?:Step \d+/\d+ :|#\d+ \[).{120}", re.DOTALL)


def _show(line: str) -> None:
    """A line of the builder, less its advice to the owner of the client."""
    if _ADVICE.match(line):
        return
    step = _STEP.match(line)
    console.detail(f"{step[0]} ..." if step else line)


def _warn_if_large(entries: list[ContextEntry]) -> None:
    total = sum(size for path, size in sizes.folder_sizes(entries).items() if "/" not in path)
    if total > _LARGE:
        named = ", ".join(f"{path} ({size / 1e6:.0f} MB)" for path, size in sizes.largest(entries))
        console.warn(f"the image takes {total / 1e6:.0f} MB of files; leave some out with `ignores`: {named}")


# --- tidying up ---


class Lock:
    """Held by every run of a project's images, so that none is removed between its finding and its use."""

    def __init__(self, file: IO[str], flag: str) -> None:
        self._file, self._flag = file, flag

    def untidy(self) -> None:
        """Leaves word that there is something to tidy up, for whoever is alone next."""
        with suppress(OSError), _opened(self._flag):
            pass

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether there is something to tidy up and no other run of the project is going on."""
        if not os.path.exists(self._flag):
            yield False
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
        with suppress(OSError):
            os.unlink(self._flag)


def _opened(path: str) -> IO[str]:
    """A file whose content is of no account; no link, which others could put into a folder for all."""
    return open(path, "a", encoding="ascii", opener=lambda p, flags: os.open(p, flags | os.O_NOFOLLOW, 0o666))


@contextmanager
def images_in_use(client: Client, image: Image) -> Iterator[Lock]:
    """Keeps the project's images from being removed, and removes superseded ones at the end."""
    path = _lock_path(image)
    with _opened(path) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        lock = Lock(file, f"{path}.untidy")
        with lock.alone() as alone:  # what a run before could not
            if alone:
                tidy(client, image)
        fcntl.flock(file, fcntl.LOCK_SH)
        yield lock
        with suppress(SkelebotError), lock.alone() as alone:  # the run itself has gone well
            if alone:
                tidy(client, image)


@contextmanager
def alone(image: Image) -> Iterator[bool]:
    """Whether no run of the project is going on, in which case none begins before the block ends.

    Otherwise superseded images are left for a later run.
    """
    path = _lock_path(image)
    with _opened(path) as file:
        lock = Lock(file, f"{path}.untidy")
        lock.untidy()
        with lock.alone() as is_alone:
            yield is_alone


def _lock_path(image: Image) -> str:
    try:
        return os.path.join(own_folder(image.context), "images.lock")
    except SkelebotError:  # a project that cannot be written
        import tempfile

        name = f"skelebot-{os.getuid()}-{zlib.crc32(os.fsencode(image.context)):08x}.lock"
        return os.path.join(tempfile.gettempdir(), name)


def tidy(client: Client, image: Image) -> list[str]:
    """Removes what builds have superseded and no container uses; gives what has gone.

    Raises SkelebotError where no engine answers.
    """
    gone: list[str] = []
    whose = f"label={dockerfile.PROJECT_LABEL}={image.project}"
    name = image.tag.partition(":")[0]
    tags = client.first_answer("images", "--format", "{{.Tag}}", name)
    files = {tag for tag in tags.split() if tag.startswith(_FILES)}
    if files:
        others = [f"{name}:{tag}" for tag in tags.split() if tag not in files]
        wanted = f'{{{{index .Config.Labels "{FILES_LABEL}"}}}}'
        _, used, _ = (
            client.capture("image", "inspect", "--format", wanted, *others) if others else (0, "", "")
        )
        if unused := [f"{name}:{tag}" for tag in files if f"{name}:{tag}" not in used.split()]:
            gone += _removed(client, unused)
    # Not `image prune`, of which an engine runs one at a time and refuses a second.
    listed = ("images", "--quiet", "--no-trunc", "--filter", "dangling=true", "--filter", whose)
    before: list[str] = []
    while (superseded := client.capture(*listed)[1].split()) and superseded != before:
        gone += _removed(client, superseded)
        before = superseded  # with these has gone, what else nothing is built upon any more shows up
    return gone


def _removed(client: Client, images: list[str]) -> list[str]:
    """Those of the images that could be removed; the engine keeps what a container uses."""
    _, out, _ = client.capture("rmi", *images)
    words = set(out.split())
    return [image for image in images if image in words]


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
        return False if os.path.islink(os.path.join(root, "Dockerfile")) else None
    except OSError:
        return False
    return first == _header(body)


def own_dockerfile(image: Image) -> tuple[str, ...]:
    """The pattern that keeps the Dockerfile for the user out of the context it describes."""
    return ("Dockerfile",) if _is_written(image.context) is not False and not image.dockerfile else ()


def _show_dockerfile(image: Image, user: str) -> None:
    if image.ephemeral or image.dockerfile:
        return
    written = _is_written(image.context)
    if written is False:
        console.info("the Dockerfile here is yours and stays; to build it, add `dockerfile: Dockerfile`")
        return
    body = dockerfile.text(image, user)
    path = os.path.join(image.context, "Dockerfile")
    fresh = f"{path}.{os.getpid()}"
    with suppress(OSError):  # a project that cannot be written is built all the same
        with open(fresh, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(_header(body) + body)
        os.replace(fresh, path)
