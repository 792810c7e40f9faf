"""Build an image with either of Docker's builders."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from skelebot import console, process
from skelebot.errors import SkelebotError
from skelebot.files import private_folder
from skelebot.image import context, dockerfile
from skelebot.image.context import ContextEntry
from skelebot.image.installer import conflict_hint
from skelebot.image.tar import write_tar
from skelebot.model import Step, Task
from skelebot.runners.docker import labels
from skelebot.runners.docker.build_source import BuildSource
from skelebot.runners.docker.client import BuiltImage, Client, explained
from skelebot.runners.docker.labels import FILES_TAG, PROJECT_LABEL, own_tag, repository

_FOLDER = "project/"  # where the project's files stand in the context, beside the Dockerfile


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


@dataclass(frozen=True)
class Builder:
    """Builds from private copies of all that two builds could share."""

    client: Client
    source: BuildSource
    task: Task
    buildkit: bool

    def files_image(
        self, lines: list[str], entries: list[ContextEntry], heavy: tuple[str, ...], base: BuiltImage | None
    ) -> str:
        """The tag of an image with what is installed and the heavy files, built where it is missing.

        It stands apart so that a change of a script neither sends nor stores them again.
        """
        copied = (*heavy, *self.source.image.copied)
        needed = [e for e in entries if context.is_below(e.path, copied)]
        content = self.source.content("\n".join([base.id if base else "", *lines]), needed)
        tag = f"{repository(self.source.image)}:{FILES_TAG}{content[:16]}"
        if self.client.inspect(tag, self.task) is None:
            self.build(lines, needed, labels.of_checkout(self.source.image.context), (tag,))
        return tag

    def build(
        self, lines: list[str], entries: list[ContextEntry], of_image: dict[str, str], tags: tuple[str, ...]
    ) -> BuiltImage:
        """Build an image of Skelebot's own lines from the entries of the context."""
        from skelebot.runners.docker import inherited

        with private_folder() as folder:
            settings = inherited.inherit(self.source.image, folder, self.buildkit)
            lines = dockerfile.from_folder(settings.lines(lines, self.buildkit), _FOLDER)
            lines += [dockerfile.label_line(sorted(of_image.items()))]
            text = "\n".join(lines) + "\n"

            def feed(stream: IO[bytes]) -> None:
                write_tar(stream, entries, _FOLDER, ("Dockerfile", text))

            return self._build(feed, "Dockerfile", settings.arguments, {}, tags, folder)

    def build_own(self, entries: list[ContextEntry], of_image: dict[str, str]) -> BuiltImage:
        """Build a custom Dockerfile; BuildKit gets it unchanged."""
        from skelebot.runners.docker import inherited

        image, path = self.source.image, os.path.normpath(self.source.image.dockerfile or "")
        text, options = self.source.text, {PROJECT_LABEL: image.project} | of_image | dict(image.labels)
        if not self.buildkit:
            text, options = dockerfile.label_stages(text, image.project, options)
        with private_folder() as folder:
            settings = inherited.inherit(image, folder, self.buildkit)

            def feed(stream: IO[bytes]) -> None:
                write_tar(stream, entries, "", (path, text))

            return self._build(feed, path, settings.arguments, options, (image.tag, own_tag(image)), folder)

    def build_upon(self, tag: str, of_image: dict[str, str]) -> BuiltImage:
        """Builds what the image of a tag holds once more, with further labels; the tag moves to it."""

        text = f"FROM {tag}\n{dockerfile.label_line(sorted(of_image.items()))}\n"

        def feed(stream: IO[bytes]) -> None:
            write_tar(stream, [], "", ("Dockerfile", text))

        with private_folder() as folder:
            return self._build(feed, "Dockerfile", (), {}, (tag,), folder)

    def _build(
        self,
        feed: Feed,
        file: str,
        arguments: tuple[str, ...],
        options: dict[str, str],
        tags: tuple[str, ...],
        folder: str,
    ) -> BuiltImage:
        """Sends the context as a stream: BuildKit's own transfer of a folder takes a file of the same
        size and time for unchanged."""
        id_file = os.path.join(folder, "id")
        words = ["build", *(word for tag in tags for word in ("--tag", tag))]
        words += ["--iidfile", id_file, "--file", file, *arguments]
        words += [word for label in sorted(options.items()) for word in ("--label", "=".join(label))]
        words += [*([] if self.buildkit else ["--force-rm"]), "-"]
        env = (("DOCKER_BUILDKIT", str(int(self.buildkit))), ("BUILDX_BUILDER", "default"))
        self._run(self.client.step(*words, env=env), feed, tags[0])
        built = self.client.inspect(_id_in(id_file), self.task)
        if built is None:
            raise SkelebotError(f"the image {tags[0]} was removed after it was built; run again")
        return built

    @property
    def _shows_all(self) -> bool:
        return self.client.verbose or not console.is_terminal()

    def _on_line(self, tag: str, show: Callable[[str], None]) -> Callable[[str], None]:
        """What becomes of the builder's lines: on a terminal, only which step is running, unless with -V."""
        if self._shows_all:
            return _show_line

        def on_line(line: str) -> None:
            if step := _STEP.match(_ESCAPES.sub("", line)):
                show(f"building {tag}: step {step[1] or step[2]}: {_shortened(step[3])}")

        return on_line

    def _run(self, step: Step, feed: Feed, tag: str) -> None:
        failed: list[SkelebotError] = []

        def guarded(stream: IO[bytes]) -> None:
            try:
                feed(stream)
            except SkelebotError as error:
                failed.append(error)

        for _ in range(_TRIES):
            with console.status() as show:
                code, lines = process.tee(step, self._on_line(tag, show), guarded)
            if failed:
                raise failed[0]
            if code == 0:
                return
            if not _TRANSIENT.search(lines[-1] if lines else ""):
                break
        if not self._shows_all:
            for line in lines:
                _show_line(line)
        output = "\n".join(lines)
        hint = conflict_hint(output, self.task.dependencies)
        otherwise = f"the image {tag} could not be built; see the builder's message above{hint}"
        raise explained(self.client, output, otherwise, self.task)


def _id_in(path: str) -> str:
    """The id that the builder has written; empty where it has written none."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError):
        return ""


_TRIES = 3

# What an engine says that is busy with another client: its classic builder looks for its cache among all
# images upon the same base, of whatever project, and gives up when one of them is removed meanwhile.
_TRANSIENT = re.compile(
    r'^unable to find image "sha256:|failed to get digest sha256:.*no such file'
    "|failed to get destination image"
)

_ADVICE = re.compile(
    r"DEPRECATED: The legacy builder|\s+(Install the buildx|BuildKit is currently disabled"
    r"|environment-variable\.|https://docs.docker.com/go)"
)


# A step as either builder names it, with its number and what it runs, which may be a whole script.
_STEP = re.compile(r"(?:Step (\d+/\d+) :|#\d+ \[(?:[^\]]* )?(\d+/\d+)\]) (.*)", re.DOTALL)
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def _shortened(text: str) -> str:
    return text if len(text) < 80 else f"{text[:77]}..."


def _show_line(line: str) -> None:
    """Show a line of the builder, less its advice to the owner of the client."""
    line = _ESCAPES.sub("", line)
    if not _ADVICE.match(line):
        step = _STEP.match(line)
        console.detail(f"{line[:120]} ..." if step and len(line) > 120 else line)
