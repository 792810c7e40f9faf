"""Plugins as their users and authors meet them: the one of docs/plugins.md, and others that misbehave."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import SKELEBOT, Sandbox, job, make_sandbox, project, wait_for
from test_docs import ROOT, blocks

PAGE = {block.file: block.text for block in blocks(ROOT / "docs" / "plugins.md") if block.file}
SEED = PAGE["seed/__init__.py"] + "\n"

# A plugin that says when it is imported; the tests put hooks below it.
NOTES = """
import os
from dataclasses import dataclass, replace
from skelebot.component import Activation, Check, Command, Component
from skelebot.keys import key

with open(os.environ.get("NOTES_LOG", os.devnull), "a") as log:
    log.write("imported ")

@dataclass(frozen=True)
class Notes(Component):
    activation = Activation.{activation}
    title: str = key("Notes", help="A title")
    {hooks}

COMPONENT = Notes
"""

GREET = "def commands(self, project): return [Command('greet', self.title, lambda s, v: 0)]"


def notes(sandbox: Sandbox, hooks: str = "", activation: str = "ALWAYS", name: str = "notes") -> str:
    """Writes a plugin's package beside the project, and gives its path."""
    body = textwrap.indent(textwrap.dedent(hooks), "    ").strip()
    text = NOTES.replace("{activation}", activation).replace("{hooks}", body)
    sandbox.write(f"../work/{name}/__init__.py", text)
    return str(sandbox.root.parent / "work" / name)


def hello(sandbox: Sandbox, more: str = "") -> None:
    """A project with a job that runs natively."""
    sandbox.write("skelebot.yaml", f"name: demo\njobs:\n- {job('echo hello', 'hello')}\n{more}")


def kept(sandbox: Sandbox) -> Path:
    return sandbox.root.parent / "home" / ".local" / "share" / "skelebot" / "plugins"


def left(sandbox: Sandbox) -> list[str]:
    """The files that are kept, compiled ones left out."""
    found = kept(sandbox).rglob("*")
    return sorted(str(p) for p in found if p.is_file() and p.suffix != ".pyc" and p.name != ".lock")


@pytest.fixture
def seed(sandbox: Sandbox) -> Sandbox:
    """With the page's plugin beside a project that names it."""
    sandbox.write("../work/seed/__init__.py", SEED)
    hello(sandbox, "components:\n  seed:\n")
    return sandbox


# --- from a zip file and from a folder ---


@pytest.mark.parametrize("kind", ["zip", "package", "folder around it"])
def test_a_plugin_is_installed_used_and_removed(seed: Sandbox, kind: str) -> None:
    work = seed.root.parent / "work"
    source = {"zip": work / "seed.zip", "package": work / "seed", "folder around it": work}[kind]
    if kind == "zip":
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr("seed/__init__.py", SEED)
    seed.ok("plugin", "install", str(source))
    listed = json.loads(seed.ok("plugin", "list", "--json"))
    assert [(row["name"], row["owned"], row["origin"]) for row in listed] == [
        ("seed", True, str(kept(seed) / "seed"))
    ]
    shutil.rmtree(work)  # it is a copy that was installed
    assert seed.ok("seed", "42") == "42\n"
    assert re.search("^  seed +Show or set the seed of all jobs$", seed.ok("-h"), re.MULTILINE)
    assert seed.ok("plugin", "remove", "seed") == ""
    assert left(seed) == []
    result = seed.run("seed")
    assert (result.code, "unknown command 'seed'" in result.err) == (2, True)


def test_a_job_in_the_project_gets_what_the_plugin_adds(seed: Sandbox) -> None:
    seed.ok("plugin", "install", "../work/seed")
    seed.write(
        "skelebot.yaml", f"name: demo\ncomponents: {{seed: {{variable: S}}}}\njobs:\n- {job('echo $S')}\n"
    )
    seed.write("seed.txt", "42")
    assert seed.ok("-n", "run") == "42\n"


def test_a_recorded_run_keeps_what_the_plugin_added(seed: Sandbox) -> None:
    seed.ok("plugin", "install", "../work/seed")
    components = "components: {seed: {variable: S}, experiments: {record: true}}"
    seed.write("skelebot.yaml", f"name: demo\n{components}\njobs:\n- {job('echo $S')}\n")
    seed.write("seed.txt", "42")
    assert seed.ok("-n", "prime", "+", "run") == "42\n"
    assert seed.ok("-n", "queue", "run") == "2\n"
    seed.write("seed.txt", "43")
    seed.ok("worker", "--drain")
    assert seed.ok("runs", "rerun", "1", "--now") == "42\n"
    logs = [seed.ok("runs", "logs", number) for number in ("1", "2", "3")]
    assert logs == ["42\n"] * 3
    assert json.loads(seed.ok("runs", "show", "1", "--json"))["chain"] == "prime + run"


@pytest.mark.engine
def test_a_container_gets_what_the_plugin_adds(seed: Sandbox, name: str) -> None:
    seed.ok("plugin", "install", "../work/seed")
    project(seed, name, job("echo $SEED $PYTHONHASHSEED"), components="{seed: {}}")
    seed.write("seed.txt", "7")
    assert seed.ok("run") == "7 0\n"


def test_reinstalling_is_asked_for(seed: Sandbox) -> None:
    seed.ok("plugin", "install", "../work/seed")
    before = left(seed)
    result = seed.run("plugin", "install", "../work/seed")
    assert (result.code, result.errors) == (
        1,
        ["ERROR | the plugin seed is already installed; replace it with -f"],
    )
    assert left(seed) == before
    seed.write("../work/seed/__init__.py", SEED.replace('"0"', '"1"'))
    seed.ok("plugin", "install", "-f", "../work/seed")
    assert seed.ok("seed") == "1\n"
    assert len(left(seed)) == 1


def test_a_version_that_does_not_load_leaves_the_one_before(seed: Sandbox) -> None:
    seed.ok("plugin", "install", "../work/seed")
    before = left(seed)
    seed.write("../work/seed/__init__.py", "raise SystemExit(0)\n")
    result = seed.run("plugin", "install", "--force", "../work/seed")
    assert (result.code, len(result.errors)) == (1, 1)
    assert "../work/seed was not installed: SystemExit: 0" in result.err
    assert left(seed) == before
    assert seed.ok("seed") == "0\n"


@pytest.mark.parametrize(
    ("name", "hooks", "told"),
    [
        ("jobs", "", "a built-in component has the same name"),
        ("doctor", "", "a built-in component has the same name"),
        ("wave", "", "another Python module is named wave"),
        ("semver", "", "another Python module is named semver"),
        ("notes", GREET.replace("greet", "push"), "the command 'push' already exists"),
        ("notes", GREET.replace("greet", "schema"), "the command 'schema' already exists"),
    ],
)
def test_a_name_that_is_taken_is_refused(sandbox: Sandbox, name: str, hooks: str, told: str) -> None:
    result = sandbox.run("plugin", "install", notes(sandbox, hooks, name=name))
    assert (result.code, len(result.errors)) == (1, 1)
    assert told in result.err
    assert left(sandbox) == []


def test_a_hostile_zip_file_leaves_nothing(sandbox: Sandbox) -> None:
    with zipfile.ZipFile(sandbox.root / "evil.zip", "w") as archive:
        archive.writestr("evil/__init__.py", SEED)
        archive.writestr("../../evil.py", "import os\n")
    result = sandbox.run("plugin", "install", "evil.zip")
    assert (result.code, len(result.errors)) == (1, 1)
    assert "'../../evil.py' leads out of the folder; nothing was installed" in result.err
    assert left(sandbox) == []
    assert not list(sandbox.root.parent.rglob("evil.py"))


WRONG_WORDS = [
    (["install"], "plugin install: a zip file or a folder is missing"),
    (["install", "nosuch.zip"], "there is no zip file or folder nosuch.zip"),
    (["install", "/dev/zero"], "there is no zip file or folder /dev/zero"),
    (["remove"], "plugin remove: the name of a plugin is missing"),
    (["remove", "sed"], "there is no plugin 'sed'; did you mean `seed`?"),
    (["remove", "../plugins/seed"], "there is no plugin '../plugins/seed'"),
    (["list", "seed"], "plugin list: unexpected argument"),
    (["lst"], "action: expected install or list or remove"),
]


def test_wrong_words(seed: Sandbox) -> None:
    seed.ok("plugin", "install", "../work/seed")
    before = left(seed)
    for words, told in WRONG_WORDS:
        result = seed.run("plugin", *words)
        assert (result.code, len(result.errors), result.out) == (2, 1, ""), words
        assert told in result.err
    assert left(seed) == before


def test_a_dry_run_installs_and_removes_nothing(seed: Sandbox) -> None:
    seed.ok("--dry-run", "plugin", "install", "../work/seed")
    assert not kept(seed).exists()
    seed.ok("plugin", "install", "../work/seed")
    seed.ok("--dry-run", "plugin", "remove", "seed")
    assert seed.ok("seed") == "0\n"


# --- all or nothing ---


def test_of_two_at_once_one_installs(seed: Sandbox) -> None:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    runs = [seed.start("plugin", "install", "../work/seed", **streams) for _ in range(4)]
    ended = [(run.communicate()[1].decode(), run.returncode) for run in runs]
    assert sorted(code for _, code in ended) == [0, 1, 1, 1]
    assert sum("is already installed" in err for err, _ in ended) == 3
    assert len(left(seed)) == 1


def test_of_two_that_replace_at_once_one_is_kept_whole(seed: Sandbox) -> None:
    for number in range(3):
        more = f"\nNUMBER = {number}\n"
        seed.write(f"../work/{number}/seed/__init__.py", SEED + more)
        seed.write(f"../work/{number}/seed/more.py", more)
    runs = [seed.start("plugin", "install", "-f", f"../work/{number}") for number in range(3)]
    assert [run.wait() for run in runs] == [0, 0, 0]
    (first, second) = left(seed)
    assert Path(first).read_text().splitlines()[-1] == Path(second).read_text().splitlines()[-1]
    assert seed.ok("seed") == "0\n"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_an_installation_that_is_stopped_leaves_the_one_before(seed: Sandbox, signum: signal.Signals) -> None:
    seed.ok("plugin", "install", "../work/seed")
    before = left(seed)
    started = seed.root / "started"
    seed.write(
        "../work/seed/__init__.py", f"open({str(started)!r}, 'w').close()\nimport time; time.sleep(30)\n"
    )
    run = seed.start("plugin", "install", "-f", "../work/seed", stderr=subprocess.DEVNULL)
    wait_for(started.exists)
    run.send_signal(signum)
    assert run.wait() == (130 if signum == signal.SIGINT else -signum)
    assert seed.ok("seed") == "0\n"
    if signum == signal.SIGKILL:  # what it had to leave goes with the next one
        assert set(before) < set(left(seed))
        seed.write("../work/seed/__init__.py", SEED)
        seed.ok("plugin", "install", "-f", "../work/seed")
        assert len(left(seed)) == 1
    else:
        assert left(seed) == before


def test_a_full_disk_leaves_the_one_before(seed: Sandbox) -> None:
    seed.ok("plugin", "install", "../work/seed")
    before = left(seed)
    seed.write("../work/seed/data", "x" * 100_000)
    command = f"ulimit -f 8; exec {SKELEBOT} plugin install -f ../work/seed"
    uncompiled = seed.with_env(PYTHONDONTWRITEBYTECODE="1")
    with uncompiled.popen("bash", "-c", command, stderr=subprocess.PIPE) as run:
        _, err = run.communicate()
    assert (run.returncode, err.decode().count("ERROR")) == (1, 1)
    assert left(seed) == before


def test_a_folder_of_somebody_elses_is_left_alone(seed: Sandbox) -> None:
    seed.write(f"{kept(seed)}/seed/__init__.py", SEED)
    assert seed.ok("seed") == "0\n"
    for words in (("install", "-f", "../work/seed"), ("remove", "seed")):
        result = seed.run("plugin", *words)
        assert (result.code, "was not made by Skelebot" in result.err) == (1, True)
    assert len(left(seed)) == 1


# --- when a plugin takes part ---


@pytest.fixture
def logged(sandbox: Sandbox) -> Sandbox:
    """Whose plugins say in `log` that they are imported."""
    hello(sandbox)
    return sandbox.with_env(NOTES_LOG=str(sandbox.root.parent / "log"))


def imports(sandbox: Sandbox) -> int:
    path = Path(sandbox.env["NOTES_LOG"])
    count = path.read_text().count("imported") if path.exists() else 0
    path.unlink(missing_ok=True)
    return count


@pytest.mark.parametrize(
    ("activation", "configured", "inside", "outside"),
    [
        ("CONFIGURED", True, False, False),
        ("PROJECT", True, True, False),
        ("ALWAYS", True, True, True),
        ("OUTSIDE", False, False, True),
    ],
)
def test_where_a_plugin_takes_part(
    sandbox: Sandbox, activation: str, configured: bool, inside: bool, outside: bool
) -> None:
    sandbox.ok("plugin", "install", notes(sandbox, GREET, activation))
    assert ("  greet" in sandbox.ok("-h")) is outside
    hello(sandbox)
    assert ("  greet" in sandbox.ok("-h")) is inside
    hello(sandbox, "components:\n  notes: {title: My own}\n")
    assert bool(re.search("  greet +My own", sandbox.ok("-h"))) is configured


def test_one_that_has_to_be_configured_is_imported_where_it_is(logged: Sandbox) -> None:
    logged.ok("plugin", "install", notes(logged, activation="CONFIGURED"))
    assert imports(logged) == 1
    logged.ok("-h")
    logged.ok("-n", "hello")
    assert imports(logged) == 0
    hello(logged, "components: {notes: }\n")
    logged.ok("-h")
    assert imports(logged) == 1


def test_what_a_class_says_is_asked_again_when_its_file_has_changed(logged: Sandbox) -> None:
    """As that of a distribution which is installed to be edited."""
    where = Path(notes(logged, GREET, "CONFIGURED")).parent
    logged.write(
        "../work/notes-1.0.dist-info/entry_points.txt", "[skelebot.components]\nnotes = notes:Notes\n"
    )
    editing = logged.with_env(PYTHONPATH=f"{where}{os.pathsep}{logged.env.get('PYTHONPATH', '')}")
    assert "greet" not in editing.ok("-h") + editing.ok("-h")
    assert imports(editing) == 1
    notes(logged, GREET, "PROJECT")
    assert "greet" in editing.ok("-h")


@pytest.mark.parametrize("words", [["-v"], ["schema"], ["plugin", "list"], ["plugin", "-h"]])
def test_what_needs_no_plugin_imports_none(logged: Sandbox, words: list[str]) -> None:
    logged.ok("plugin", "install", notes(logged))
    imports(logged)
    logged.ok(*words)
    assert imports(logged) == 0


# --- settings and names ---


def test_settings_are_checked_as_the_built_in_ones_are(sandbox: Sandbox) -> None:
    hooks = "def problems(self): return ['a title must not shout'] if self.title.isupper() else []"
    sandbox.ok("plugin", "install", notes(sandbox, hooks, "CONFIGURED"))
    hello(sandbox, "components: {notes: {titel: a}}\n")
    assert sandbox.run("-n", "hello").errors == [
        "ERROR | skelebot.yaml:4:22: components.notes.titel: unknown key; did you mean `title`?"
    ]
    hello(sandbox, "components: {notes: {title: AAA}}\n")
    result = sandbox.run("-n", "hello")
    assert (result.code, result.out) == (2, "")
    assert result.errors == ["ERROR | skelebot.yaml:4:21: components.notes: a title must not shout"]


def test_the_annotations_of_settings_may_be_text(sandbox: Sandbox) -> None:
    sandbox.ok("plugin", "install", notes(sandbox, GREET))
    path = sandbox.root.parent / "work" / "notes" / "__init__.py"
    sandbox.write(str(path), "from __future__ import annotations\n" + path.read_text())
    sandbox.ok("plugin", "install", "-f", "../work/notes")
    hello(sandbox, "components: {notes: {title: 010}}\n")
    assert re.search("  greet +010", sandbox.ok("-h"))


def test_only_what_is_unknown_is_warned_of(seed: Sandbox) -> None:
    seed.ok("plugin", "install", "../work/seed")
    assert seed.run("-n", "hello").err == ""
    hello(seed, "components: {sed: {}}\n")
    err = seed.run("-n", "hello").err
    assert err.count("WARN") == 1
    assert "components.sed: unknown component; its plugin may not be installed; did you mean `seed`?" in err
    seed.write(f"{kept(seed)}/seed/__init__.py", "1 / 0\n")
    hello(seed, "components: {seed: {}}\n")
    err = seed.run("-n", "hello").err
    assert (err.count("WARN"), "unknown component" in err) == (1, False)


def test_a_job_is_meant_before_a_plugins_command(sandbox: Sandbox) -> None:
    sandbox.ok("plugin", "install", notes(sandbox, GREET))
    sandbox.write("skelebot.yaml", f"name: demo\njobs:\n- {job('echo from the job', 'greet')}\n")
    result = sandbox.run("-n", "greet")
    assert (result.code, result.out) == (0, "from the job\n")
    assert result.err == "WARN  | 'greet' runs the project's job, not the command of the plugin notes\n"


def test_of_two_with_one_name_the_first_takes_part(sandbox: Sandbox) -> None:
    sandbox.ok("plugin", "install", notes(sandbox, GREET))
    notes(sandbox, GREET.replace("greet", "other"), name="others")
    sandbox.write(
        "../work/others-1.0.dist-info/entry_points.txt", "[skelebot.components]\nnotes = others:Notes\n"
    )
    paths = [str(sandbox.root.parent / "work"), sandbox.env.get("PYTHONPATH", "")]
    both = sandbox.with_env(PYTHONPATH=os.pathsep.join(paths))
    result = both.run("-h")
    assert ("  greet" in result.out, "  other" in result.out) == (True, False)
    assert result.err.count("WARN") == 1
    assert "the plugin notes is switched off for this run: the plugin of" in result.err


def test_of_two_with_one_command_the_second_is_switched_off(sandbox: Sandbox) -> None:
    sandbox.ok("plugin", "install", notes(sandbox, GREET, name="a_notes"))
    sandbox.ok("plugin", "install", notes(sandbox, GREET, name="b_notes"))
    result = sandbox.run("-h")
    assert result.out.count("  greet") == 1
    assert result.err == (
        "WARN  | the plugin b_notes is switched off for this run: the command 'greet' already exists\n"
    )


# --- what breaks ---


@pytest.mark.parametrize(
    "hooks",
    [
        "1 / 0",
        "raise SystemExit(3)",
        "def __post_init__(self): raise KeyError('x')",
        "def problems(self): raise ValueError('two\\nlines')",
        "def commands(self, project): yield 1 / 0",
        "def commands(self, project): return open('/nowhere')",
        "def image(self, image, project): return None",
        "def task(self, task, project): raise SystemExit(0)",
        "def task(self, task, project): return replace(task, argv=None)",
    ],
)
def test_a_plugin_that_breaks_is_switched_off_and_the_rest_goes_on(sandbox: Sandbox, hooks: str) -> None:
    hello(sandbox)
    before = sandbox.ok("--dry-run", "hello")
    hello(sandbox, "components: {notes: {}}\n")
    spoken = "import os; print('a word on stdout'); os.system('echo a word on stdout')\n"
    source = notes(sandbox, spoken + hooks)
    kept(sandbox).mkdir(parents=True)
    shutil.copytree(source, kept(sandbox) / "notes")
    files = left(sandbox)
    result = sandbox.run("--dry-run", "hello")
    assert (result.code, result.out) == (0, before)
    (line,) = [line for line in result.err.splitlines() if line != "a word on stdout"]
    assert line.startswith("WARN  | the plugin notes is switched off for this run: ")
    assert sandbox.ok("-n", "hello") == "hello\n"
    assert left(sandbox) == files


def test_a_command_that_breaks_fails_with_one_line(sandbox: Sandbox) -> None:
    hooks = "def commands(self, project): return [Command('go', 'Goes', lambda s, v: 1 / 0)]"
    sandbox.ok("plugin", "install", notes(sandbox, hooks))
    hello(sandbox)
    result = sandbox.run("go", "+", "hello")
    assert (result.code, result.out) == (1, "")
    assert result.errors == [
        "ERROR | go failed; not run: hello",
        "ERROR | plugin notes: ZeroDivisionError: division by zero (notes/__init__.py:14)",
    ]


def test_a_thread_that_never_ends_does_not_keep_skelebot(sandbox: Sandbox) -> None:
    thread = (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), name='forever').start()\n"
    )
    sandbox.ok("plugin", "install", notes(sandbox, thread))
    sandbox.write("skelebot.yaml", f"name: demo\njobs:\n- {job('exit 3', 'hello')}\n")
    result = sandbox.run("-n", "hello", timeout=120)
    assert result.code == 3
    assert "WARN  | ended without waiting for the threads of a plugin: forever\n" in result.err


@pytest.mark.parametrize("code", ["import os; os._exit(7)", "import time; time.sleep(600)"])
def test_a_plugin_that_ends_or_stops_everything_can_still_be_removed(sandbox: Sandbox, code: str) -> None:
    sandbox.ok("plugin", "install", notes(sandbox))
    sandbox.write(f"{kept(sandbox)}/notes/__init__.py", code)
    assert "notes" in sandbox.ok("plugin", "list")
    sandbox.ok("plugin", "remove", "notes")
    assert "notes" not in sandbox.ok("-h")


@pytest.mark.parametrize("loop", ["while True: pass", "sum(itertools.count())"])
def test_ctrl_c_ends_a_plugin_that_never_returns(sandbox: Sandbox, loop: str) -> None:
    sandbox.ok("plugin", "install", notes(sandbox))
    hello(sandbox)
    started = sandbox.root / "started"
    code = f"import itertools\nopen({str(started)!r}, 'w').close()\n{loop}\n"
    sandbox.write(f"{kept(sandbox)}/notes/__init__.py", code)
    run = sandbox.start("-n", "hello", stderr=subprocess.DEVNULL)
    wait_for(started.exists)
    run.send_signal(signal.SIGINT)
    assert run.wait() == -signal.SIGINT


def test_plugins_are_looked_after_where_the_configuration_is_wrong(seed: Sandbox) -> None:
    seed.write("skelebot.yaml", "name: [\n")
    seed.ok("plugin", "install", "../work/seed")
    assert seed.run("plugin", "list").err == ""
    seed.ok("plugin", "remove", "seed")
    assert seed.run("-h").code == 2


# --- from a distribution ---


@pytest.fixture(scope="module")
def distribution() -> Iterator[Path]:
    """The page's plugin as the page packs it, really built and installed, into a folder."""
    sandboxes = make_sandbox(os.getuid())
    sandbox = next(sandboxes)
    for name in ("pyproject.toml", "seed/__init__.py"):
        sandbox.write(name, PAGE[name] + "\n")
    target = sandbox.root.parent / "site"
    uv = shutil.which("uv")
    installer = (
        [uv, "pip", "install", "--python", sys.executable] if uv else [sys.executable, "-m", "pip", "install"]
    )
    words = [*installer, "--quiet", "--no-deps", "--target", str(target), "."]
    subprocess.run(words, cwd=sandbox.root, check=True)
    yield target
    next(sandboxes, None)


def test_an_installed_distribution_brings_a_plugin(sandbox: Sandbox, distribution: Path) -> None:
    paths = [str(distribution), sandbox.env.get("PYTHONPATH", "")]
    user = sandbox.with_env(PYTHONPATH=os.pathsep.join(paths))
    assert user.ok("plugin", "list") == "seed skelebot_seed 1.0.0\n"
    hello(user)
    assert "  seed" not in user.ok("-h")
    hello(user, "components: {seed: {file: my.txt}}\n")
    assert user.ok("seed", "42") == "42\n"
    assert user.read("my.txt") == "42"
    result = user.run("plugin", "remove", "seed")
    assert (result.code, "skelebot_seed 1.0.0 provides the plugin seed" in result.err) == (
        2,
        True,
    )
    sandbox.write("../work/seed/__init__.py", SEED)
    result = user.run("plugin", "install", "../work/seed")
    assert (result.code, "skelebot_seed 1.0.0 already provides the plugin seed" in result.err) == (1, True)
    sandbox.ok("plugin", "install", "../work/seed")  # where the distribution cannot be seen
    user.ok("plugin", "remove", "seed")
    assert left(sandbox) == []
