"""The commands that the documentation shows do what it says; docs/contributing.md has the convention."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import registry_server
from harness import BASE, R_BASE, SCIENCE, Sandbox, docker, with_skelebot

from skelebot.keys import image_name

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITHOUT_COMMANDS = {"index.md", "contributing.md", "architecture.md"}
WITH_R = {ROOT / "docs" / "r.md"}
MOST_NOT_RUN = 14

FENCE = re.compile(r"```(\w*)")
FILE = re.compile(r"`([^`]+)`:")
MARK = re.compile(r"<!-- (engine|not run: \S.*) -->")


# --- reading a page ---


@dataclass(frozen=True)
class Block:
    """A fenced block. `file` is the name that the line before it gives, `mark` that of a comment."""

    language: str
    text: str
    place: str
    file: str = ""
    mark: str = ""

    @property
    def is_run(self) -> bool:
        return self.language == "console" and not self.mark.startswith("not run")


@dataclass(frozen=True)
class Command:
    """A command with the lines it should print."""

    text: str
    expected: tuple[str, ...]
    place: str


def blocks(page: Path) -> Iterator[Block]:
    before, lines = "", iter(enumerate(page.read_text(encoding="utf-8").splitlines(), 1))
    for number, line in lines:
        if fence := FENCE.fullmatch(line):
            inside = "\n".join(_until_fence(lines))
            file, mark = FILE.fullmatch(before), MARK.fullmatch(before)
            place = f"{page.name}:{number}"
            yield Block(fence[1], inside, place, file[1] if file else "", mark[1] if mark else "")
        before = line or before


def _until_fence(lines: Iterable[tuple[int, str]]) -> Iterator[str]:
    for _, line in lines:
        if line == "```":
            return
        yield line


def commands(block: Block) -> Iterator[Command]:
    """A line after `$ ` is a command, one after `> ` continues it, all others are output."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        lines = part.split("\n")
        count = next((i for i, line in enumerate(lines) if i and not line.startswith("> ")), len(lines))
        words = [lines[0], *(line[2:] for line in lines[1:count])]
        expected = "\n".join(lines[count:]).rstrip().split("\n")
        yield Command("\n".join(words), tuple(expected) if expected != [""] else (), block.place)


# --- running it ---


@dataclass(frozen=True)
class Done:
    command: Command
    code: int
    output: str


# The registries that pages speak of, by their ports there; the second asks for this login.
REGISTRIES: dict[str, tuple[str, ...]] = {"5000": (), "5001": ("ada", "lovelace")}


def run(page: Path, sandbox: Sandbox, engine: bool) -> list[Done]:
    """Runs a page's commands in one shell, in a folder that holds nothing but the page's files."""
    with ExitStack() as servers:
        ports = {}
        if engine and "localhost:5000" in page.read_text(encoding="utf-8"):
            for port, login in REGISTRIES.items():
                folder = sandbox.write(f"../registry-{port}/x", "").parent
                ports[port] = servers.enter_context(registry_server.running(folder, *login)).port
        return _run(page, sandbox, engine, ports)


def _run(page: Path, sandbox: Sandbox, engine: bool, ports: dict[str, int]) -> list[Done]:
    known: list[Command] = []
    has_example = "examples/iris" in page.read_text(encoding="utf-8")
    image = SCIENCE if has_example else R_BASE if page in WITH_R else BASE
    image = registry_server.tiny() if ports else image
    script = ["exec 2>&1"]
    for block in (_at_ports(block, ports) for block in blocks(page)):
        if block.file:
            script.append(_write(block))
        elif block.is_run and (engine or block.mark != "engine"):
            # What needs no engine shows the base image that a reader gets.
            needs_base = block.mark == "engine"
            script.append(
                f"export SKELEBOT_BASE_IMAGE={image}" if needs_base else "unset SKELEBOT_BASE_IMAGE"
            )
            for command in commands(block):
                known.append(command)
                # The next command may ask for this one's `$?`.
                script += [command.text, "code=$?; printf '\\n\\036%s\\036' $code; (exit $code)"]
    if has_example:
        leave = shutil.ignore_patterns("data", "models", "output", ".skelebot", "__pycache__", "Dockerfile")
        shutil.copytree(ROOT / "examples", sandbox.root / "examples", ignore=leave)
    parts = _shell(sandbox, "\n".join(script)).split("\x1e")
    assert len(parts) == 2 * len(known) + 1, f"the shell ended early, after {parts[-3:]}"
    return [Done(c, int(parts[2 * i + 1]), parts[2 * i]) for i, c in enumerate(known)]


def _at_ports(block: Block, ports: dict[str, int]) -> Block:
    """The block with the ports at which this test's registries are."""
    text = re.sub(r"\b500[01]\b", lambda match: str(ports.get(match[0], match[0])), block.text)
    return replace(block, text=text)


def _write(block: Block) -> str:
    folder = os.path.dirname(block.file) or "."
    return f"mkdir -p '{folder}'; cat >'{block.file}' <<'END OF FILE'\n{block.text}\nEND OF FILE"


def _shell(sandbox: Sandbox, script: str) -> str:
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
    # In the order in which a reader's terminal shows it, and as wide as the pages. A page's own pytest
    # would otherwise clear away what earlier runs of these tests have left.
    env = {"PYTHONUNBUFFERED": "1", "COLUMNS": "100", "PYTEST_DEBUG_TEMPROOT": str(sandbox.root.parent)}
    with with_skelebot(sandbox).with_env(**env).popen("bash", "-c", script, **streams) as shell:
        output, _ = shell.communicate(timeout=900)
    return str(output.decode())


def check(done: list[Done]) -> None:
    wrong = []
    for i, this in enumerate(done):
        asked = i + 1 < len(done) and done[i + 1].command.text == "echo $?"
        may_fail = asked or any(line.startswith("ERROR") for line in this.command.expected)
        if not _matches(this) or (this.code != 0 and not may_fail):
            shown = "\n".join(this.command.expected)
            wrong.append(
                f"{this.command.place}: $ {this.command.text}\n--- the page says\n{shown}\n"
                f"--- it ended with {this.code} and said\n{this.output}"
            )
    assert not wrong, "\n\n".join(wrong)


def _matches(done: Done) -> bool:
    """Whether the output is the page's: `...` stands for any text, alone on a line for any lines."""
    parts = []
    for line in done.command.expected:
        text = re.escape(line).replace(r"\.\.\.", ".*")
        parts.append(r"(?:.*\n)*?" if line.strip() == "..." else text + r"\n")
    output = "".join(line.rstrip() + "\n" for line in done.output.rstrip().splitlines())
    return re.fullmatch("".join(parts), output) is not None


# --- the tests ---


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page(page: Path, sandbox: Sandbox) -> None:
    """What needs no engine."""
    check(run(page, sandbox, engine=False))


WITH_ENGINE = [page for page in PAGES if any(block.mark == "engine" for block in blocks(page))]


@pytest.mark.engine
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.r] * (page in WITH_R), id=page.name) for page in WITH_ENGINE],
)
def test_page_with_engine(page: Path, sandbox: Sandbox) -> None:
    before = _made_for(page)
    try:
        check(run(page, sandbox, engine=True))
    finally:
        for made in _made_for(page) - before:
            docker(*made, check=False)


def _made_for(page: Path) -> set[tuple[str, ...]]:
    """The words that remove each container and image of the page's projects."""
    made: set[tuple[str, ...]] = set()
    names = {each for name in _projects(page) for each in (name, image_name(name))}
    for label in (f"label=skelebot.project={name}" for name in names):
        made |= {("rm", "-fv", id) for id in docker("ps", "-aq", "--filter", label).split()}
        made |= {("rmi", "-f", id) for id in docker("images", "-q", "--filter", label).split()}
    return made


def _projects(page: Path) -> set[str]:
    """The names of the projects that a page shows. Two pages share none, as their tests run at once."""
    files = [block.text for block in blocks(page) if block.file]
    return set(re.findall(r"^name: (.*)", "\n".join(files), re.MULTILINE)) or {"Iris"}


def test_engine_pages_share_no_image() -> None:
    names = [name for page in WITH_ENGINE for name in _projects(page)]
    assert len(names) == len(set(names)), names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_yaml_loads(page: Path, sandbox: Sandbox) -> None:
    """What a page shows as a part of skelebot.yaml is one."""
    for block in blocks(page):
        if block.language == "yaml" and not block.file:
            whole = (
                block.text if re.search("^name:", block.text, re.MULTILINE) else f"name: part\n{block.text}"
            )
            sandbox.write("skelebot.yaml", whole)
            result = sandbox.run("-h")
            assert (result.code, result.err) == (0, ""), block.place


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_is_run(page: Path) -> None:
    run_here = [block for block in blocks(page) if block.is_run]
    assert run_here or page.name in WITHOUT_COMMANDS


def test_few_blocks_are_not_run() -> None:
    left_out = [b.place for page in PAGES for b in blocks(page) if b.language == "console" and not b.is_run]
    assert len(left_out) <= MOST_NOT_RUN, left_out


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} names {target}"


def test_marks_are_known() -> None:
    """A misspelt mark would run a block that must not, or skip one."""
    for page in PAGES:
        for comment in re.findall(r"<!--.*?-->", page.read_text(encoding="utf-8")):
            assert MARK.fullmatch(comment), f"{page.name}: {comment}"


@pytest.mark.parametrize(
    ("expected", "output", "fits"),
    [
        ((), "", True),
        ((), "something", False),
        (("a", "...", "b"), "a\nb", True),
        (("a", "...", "b"), "a\n1\n2\nb", True),
        (("it took ... s",), "it took 3 s", True),
        (("it took ... s",), "it took 3 s\nand more", False),
        (("a.c",), "abc", False),
    ],
)
def test_matching(expected: tuple[str, ...], output: str, fits: bool) -> None:
    assert _matches(Done(Command("true", expected, ""), 0, output)) is fits


def test_architecture_names_every_room_and_each_file_says_what_it_does() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = text[text.index("## The rooms") : text.index("## Places")]
    source = ROOT / "skelebot"
    there = {
        *(f"{path.parent.name}/" for path in source.glob("*/__init__.py")),
        *(path.stem for path in source.glob("[a-z]*.py")),
    }
    assert {name for name in there if f"`{name}`" not in rooms} == set()
    texts = {
        path: path.read_text(encoding="utf-8")
        for path in source.rglob("*.py")
        if "templates" not in path.parts
    }
    assert [path for path, code in texts.items() if not code.startswith('"""')] == []


def test_architecture_gives_a_reason_for_every_dependency() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    wanted = re.search(r"install_requires=\[([^]]*)\]", (ROOT / "setup.py").read_text(encoding="utf-8"))
    assert wanted
    names = re.findall(r"^\s*[\"']([A-Za-z0-9._-]+)", wanted[1], re.MULTILINE)
    assert names
    assert [name for name in names if f"| {name} |" not in text] == []
