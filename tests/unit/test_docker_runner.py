"""Builds, containers and what is left of them; a program answers in the place of Docker's client."""

import os
import re
import resource
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from skelebot import files, process
from skelebot.errors import SkelebotError
from skelebot.image import written
from skelebot.model import ALL_GPUS, Image, Limits, Place, Run, Step, Task
from skelebot.project import state
from skelebot.project.state import checkout_id
from skelebot.runners.docker import Docker, cleanup, images, labels, runs
from skelebot.runners.docker.attended import Attended
from skelebot.runners.docker.build_source import BuildSource
from skelebot.runners.docker.builder import Builder, has_buildkit
from skelebot.runners.docker.client import BuiltImage, Client
from skelebot.runners.docker.container import Container

from .fake_client import FakeClient, make_client
from .helpers import ordinary_user, run_cli, write

ID = "sha256:" + "a" * 64
IMAGE = f'{{"Id": "{ID}", "Config": null}}'
# Docker's client notes the id of what it has built in the file that follows --iidfile.
NOTE_ID = f"""
cat >context.tar
while [ "$1" != --iidfile ]; do shift; done
printf '{ID}' >"$2"
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("SKELEBOT_BUILD_INHERIT", raising=False)
    return make_client(tmp_path, monkeypatch)


@pytest.fixture
def image(tmp_path: Path) -> Image:
    (tmp_path / "p").mkdir()
    return Image("demo:latest", "demo", base="base", context=str(tmp_path / "p"))


def builder(image: Image, buildkit: bool) -> Builder:
    return Builder(Client(None), BuildSource(image), Task("run", ("true",), image.context), buildkit)


# --- building ---


@pytest.mark.parametrize(
    ("version", "buildx", "expected"),
    [
        ("20.10.24 1.41 linux", 1, True),
        ("20.10.24 1.38 linux", 1, False),
        ("28.0.1 1.48 linux", 0, True),
        ("28.0.1 1.48 linux", 1, False),
        ("28.0.1 1.48 windows", 0, False),
        ("{}", 0, False),
    ],
)
def test_which_clients_have_buildkit(
    fake: FakeClient, monkeypatch: pytest.MonkeyPatch, version: str, buildx: int, expected: bool
) -> None:
    fake.says("version", version)
    fake.says("buildx version", "", buildx)
    assert has_buildkit(Client(None)) is expected
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")
    assert has_buildkit(Client(None)) is False


TRANSIENT = (
    'unable to find image "sha256:0123"',
    "failed to get digest sha256:0123: open /var/x: no such file or directory",
    'failed to get destination image "sha256:0123": No such image',
)


@pytest.mark.parametrize("text", TRANSIENT)
def test_a_builder_that_another_build_disturbs_is_tried_again(
    fake: FakeClient, image: Image, text: str
) -> None:
    said = f"cat >/dev/null; echo Step 1; echo '{text}'"
    fails = f"echo >>tries; if [ $(wc -l <tries) -lt 3 ]; then {said}; exit 1; fi"
    fake.says("build", "built\n", hook=fails + NOTE_ID)
    fake.says("image inspect", IMAGE)
    assert builder(image, False).build(["FROM base"], [], {}, ("demo:latest",)) == BuiltImage(ID, "", {})
    assert fake.calls.count("--iidfile") == 3


@pytest.mark.parametrize("text", [*TRANSIENT, "failed to get digest sha256:0123: permission denied", "E: x"])
def test_a_build_that_fails_for_good(fake: FakeClient, image: Image, text: str) -> None:
    fake.says("build", f"{text}\n", 1)
    with pytest.raises(
        SkelebotError, match=r"the image demo:latest could not be built; see the builder's message"
    ):
        builder(image, False).build(["FROM base"], [], {}, ("demo:latest",))
    assert fake.calls.count("--iidfile") == (3 if text in TRANSIENT else 1)


def test_files_that_cannot_be_read_fail_the_build_whatever_the_client_says(
    fake: FakeClient, image: Image
) -> None:
    def feed(stream: object) -> None:
        raise SkelebotError("data.csv cannot be read")

    with pytest.raises(SkelebotError, match=r"^data\.csv cannot be read"):
        builder(image, True)._run(Client(None).step("build", "-"), feed, "demo:latest")


CUSTOM = "# syntax=docker/dockerfile:1\nFROM a AS one\nRUN <<EOF\nFROM x\nEOF\nFROM one\n"


@pytest.mark.parametrize("buildkit", [True, False])
def test_a_custom_dockerfile_goes_to_buildkit_unchanged(
    fake: FakeClient, image: Image, buildkit: bool
) -> None:
    custom = replace(image, dockerfile="Own.Dockerfile", labels=(("own", "1"),))
    write(Path(image.context), CUSTOM, "Own.Dockerfile")
    fake.says("build", "", hook=NOTE_ID)
    fake.says("image inspect", IMAGE)
    builder(custom, buildkit).build_own([], {"skelebot.context": "f"})
    with tarfile.open(fake.folder / "context.tar") as tar:
        content = tar.extractfile("Own.Dockerfile")
        assert content
        assert (content.read().decode() == CUSTOM) is buildkit
    options = re.findall("--label\n(.*)", fake.calls)
    labels = ["own=1", "skelebot.context=f", "skelebot.project=demo"]
    assert options == (labels if buildkit else [])  # each of them is a step to the classic builder
    assert ("--force-rm" in fake.calls) is not buildkit


def test_a_build_that_leaves_no_image_is_an_error(fake: FakeClient, image: Image) -> None:
    fake.says("build", "")
    fake.says("image inspect", "", 1, "Error: No such image: \n")
    with pytest.raises(SkelebotError, match="demo:latest was removed after it was built; run again"):
        builder(image, True).build(["FROM base"], [], {}, ("demo:latest",))


# --- names and labels ---


def test_the_names_and_labels_of_a_checkout(image: Image) -> None:
    checkout = checkout_id(image.context)
    assert labels.repository(image) == "demo"
    assert labels.own_tag(image) == f"demo:latest-{checkout}"
    assert labels.of_checkout(image.context) == {
        "skelebot.checkout": checkout,
        "skelebot.root": image.context,
    }


# --- what a killed Skelebot leaves behind ---

PROJECT = """\
name: demo
build: {inherit: [pip]}
jobs:
- {name: run, source: "true", help: h, params: [{name: token, secret: true, default: hunter2}]}
"""


def skelebot(folder: Path, *words: str) -> int:
    root = str(Path(process.__file__).parents[1])
    argv = (sys.executable, "-m", "skelebot", *words)
    env = {**os.environ, "PYTHONPATH": root}
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, check=False).returncode


@pytest.fixture
def checkout(tmp_path: Path, fake: FakeClient, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "p"
    write(folder, PROJECT)
    monkeypatch.delenv("SKELEBOT_BASE_IMAGE", raising=False)
    monkeypatch.chdir(folder)
    fake.says("version", "20.10.24 1.41 linux")
    return folder


def test_what_never_started_goes_unless_its_maker_lives(fake: FakeClient, checkout: Path) -> None:
    program = process.start(Step(("true",)))
    dead = process.identity(program.pid)
    program.wait()
    fake.says("image inspect", IMAGE)
    fake.says("ps", f"living {process.identity(os.getpid())}\nleft {dead}\nold \n")
    assert run_cli(["-s", "run"]) == 0
    assert re.findall("rm\n--force\n--volumes\n(.*)", fake.calls) == ["left"]


def test_a_build_that_is_killed_leaves_its_settings_for_the_next_command_to_sweep(
    fake: FakeClient, checkout: Path, tmp_path: Path
) -> None:
    fake.says("image inspect", "", 1, "Error: No such image: x\n")
    fake.says("images", "")
    fake.says("ps", "")
    fake.says("pull", "")
    fake.says("build", "", hook='ls -d "$TMPDIR"/skelebot-private-*/pip >held; kill -9 $PPID')
    assert skelebot(checkout, "run") == -signal.SIGKILL, fake.calls
    held = Path((fake.folder / "held").read_text().strip())
    assert held.exists()
    assert run_cli(["-h"]) == 0
    assert held.exists()
    assert run_cli(["ps"]) == 0
    assert not held.parent.exists()


# --- the default engine, which a project may never have used ---


@pytest.mark.parametrize("used", [False, True])
def test_an_engine_that_was_never_used_is_not_missed(
    fake: FakeClient, checkout: Path, used: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    if used:
        fake.says("image inspect", IMAGE)
        assert run_cli(["-s", "run"]) == 0
    fake.says("ps", "", 1, "Cannot connect to the Docker daemon\n")
    write(checkout, PROJECT + '- {name: native, source: "true", help: h, native: always, mode: d}\n')
    assert run_cli(["ps"]) == 1  # where no run is known, the answer is not
    assert "no Docker engine answers" in capfd.readouterr().err
    assert skelebot(checkout, "native") == 0
    for command in ("ps", "clean"):
        assert run_cli([command]) == 0
        assert ("WARN  | no Docker engine answers" in capfd.readouterr().err) is used
        assert skelebot(checkout, "native") == 0


# --- the Dockerfile for people ---


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can be longer than ten bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_nothing_of_the_dockerfile(image: Image) -> None:
    with full_disk():
        written.write(image, "")
        with pytest.raises(OSError, match="File too large"):
            files.replace_file(f"{image.context}/other", b"x" * 100)
    assert os.listdir(image.context) == []
    written.write(image, "")
    before = Path(image.context, "Dockerfile").read_bytes()
    with full_disk():
        written.write(replace(image, base="another"), "")
    assert os.listdir(image.context) == ["Dockerfile"]
    assert Path(image.context, "Dockerfile").read_bytes() == before


@pytest.mark.parametrize("change", ["text", "link", "folder"])
def test_a_dockerfile_of_somebody_else_stays(image: Image, change: str) -> None:
    path = Path(image.context, "Dockerfile")
    written.write(image, "")
    assert written.own_dockerfile(image) == ("Dockerfile",)
    if change == "text":
        path.write_text(path.read_text() + "RUN x\n")
    else:
        path.unlink()
        path.symlink_to("nowhere") if change == "link" else path.mkdir()
    assert written.own_dockerfile(image) == ()
    written.write(replace(image, base="another"), "")
    assert path.is_symlink() or path.is_dir() or path.read_text().endswith("RUN x\n")


# --- images that were superseded ---


def flag(image: Image) -> Path:
    return Path(image.context, ".skelebot/images.lock.untidy")


def test_superseded_images_go_when_nobody_else_runs(fake: FakeClient, image: Image) -> None:
    client = Client(None)
    with cleanup.images_in_use(client, image) as lock:
        lock.mark_untidy()
    assert not flag(image).exists()
    assert "dangling=true" in fake.calls
    with cleanup.images_in_use(client, image) as lock, cleanup.images_in_use(client, image):
        lock.mark_untidy()
        with cleanup.alone(image) as alone:
            assert not alone
        assert flag(image).exists()


def test_whoever_has_tidied_up_or_tried_to_keeps_the_lock_with_others(fake: FakeClient, image: Image) -> None:
    client = Client(None)
    os.mkdir(f"{image.context}/.skelebot")
    flag(image).touch()
    with cleanup.images_in_use(client, image) as first:
        assert not flag(image).exists()
        with cleanup.images_in_use(client, image):  # it would wait for ever
            first.mark_untidy()
            with first.alone() as alone:
                assert not alone
        with cleanup.alone(image) as alone:
            assert not alone


def test_a_lock_that_somebody_keeps_stops_no_run(
    fake: FakeClient, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkdir(f"{image.context}/.skelebot")
    with files.locked(f"{image.context}/.skelebot/images.lock"):
        began = threading.Event()

        def run() -> None:
            with cleanup.images_in_use(Client(None), image) as lock, lock.alone() as alone:
                assert not alone
                began.set()

        threading.Thread(target=run, daemon=True).start()
        assert not began.wait(0.5)
        assert began.wait(30)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def test_a_lock_that_somebody_else_has_made_is_held_too(public: Path) -> None:
    path = public / "images.lock"
    path.touch()
    path.chmod(0o644)
    with ordinary_user(), files.open_lock(str(path)) as theirs:
        assert files.try_lock(theirs)
        with files.open_lock(str(path)) as other:
            assert not files.try_lock(other)


def test_a_checkout_that_cannot_be_written_has_its_lock_in_the_cache(
    fake: FakeClient, image: Image, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(public / "cache"))
    (public / "cache").mkdir()
    (public / "cache").chmod(0o777)
    (public / ".skelebot").mkdir(0o755)
    here = replace(image, context=str(public))
    with ordinary_user(), cleanup.images_in_use(Client(None), here):
        assert Path(state.folder_in_cache(str(public)), "images.lock").exists()
    assert os.listdir(public / ".skelebot") == []
    monkeypatch.setenv("XDG_CACHE_HOME", "/nowhere")
    with ordinary_user(), cleanup.images_in_use(Client(None), here) as lock:
        lock.mark_untidy()
        with lock.alone() as alone:
            assert not alone  # without a lock nothing is removed


MINE = '{"Id": "mine", "RepoTags": ["demo:files-1"], "Config": {"Labels": {"skelebot.checkout": "CHECKOUT"}}}'
THEIRS = '{"Id": "theirs", "RepoTags": ["demo:files-2"], "Config": {"Labels": {"skelebot.checkout": "x"}}}'
OLD = '{"Id": "old", "RepoTags": ["demo:files-3"], "Config": {"Labels": null}}'
USED = '{"Id": "used", "RepoTags": ["demo:files-4"], "Config": {"Labels": {"skelebot.checkout": "CHECKOUT"}}}'


@pytest.mark.parametrize(
    ("every_checkout", "gone"), [(False, ["files-1", "files-3"]), (True, ["files-1", "files-2", "files-3"])]
)
def test_images_of_other_checkouts_and_those_in_use_stay(
    fake: FakeClient, image: Image, every_checkout: bool, gone: list[str]
) -> None:
    """Of those with heavy files, the one that demo:latest is built upon is in use."""
    upon = '{"RepoTags": ["demo:latest"], "Config": {"Labels": {"skelebot.files": "demo:files-4"}}}'
    answers = "\n".join((MINE, THEIRS, OLD, USED, upon)).replace("CHECKOUT", checkout_id(image.context))
    fake.says("images", "", hook='case $* in *Tag*) printf "latest\\nfiles-%s\\n" 1 2 3 4 ;; esac')
    fake.says("image inspect", answers)
    names = [f"demo:{tag}" for tag in gone]
    fake.says("rmi", "".join(f"Untagged: {name}\n" for name in names))
    assert cleanup.remove_superseded(Client(None), image, every_checkout) == names
    assert fake.calls.partition("rmi\n")[2].split()[: len(names)] == names


@pytest.mark.parametrize(
    ("labels_of", "expected"),
    [
        ("{}", None),
        ('{"skelebot.checkout": "OWN"}', None),
        ('{"skelebot.checkout": "x"}', "another checkout"),
    ],
)
def test_whose_image_is_run_without_a_build(
    fake: FakeClient, image: Image, labels_of: str, expected: str | None
) -> None:
    task = Task("run", ("true",), image.context)
    config = labels_of.replace("OWN", checkout_id(image.context))
    # Under its own tag it is this checkout's, whoever has built it.
    fake.says("image inspect", f'{{"Id": "{ID}", "Config": {{"Labels": {config}}}}}')
    assert images.last_built(Client(None), image, task).id == ID
    missing = 'case "$*" in *:latest-*) echo No such image: x >&2; exit 1 ;; esac'
    fake.says("image inspect", f'{{"Id": "{ID}", "Config": {{"Labels": {config}}}}}', hook=missing)
    if expected is None:
        assert images.last_built(Client(None), image, task).id == ID
    else:
        with pytest.raises(SkelebotError, match=f"demo:latest was built in {expected}; run once without -s"):
            images.last_built(Client(None), image, task)
    fake.says("image inspect", "", 1, "No such image: x")
    with pytest.raises(SkelebotError, match="there is no image demo:latest yet; run once without -s"):
        images.last_built(Client(None), image, task)


# --- a container in front, and its end ---


def attended(image: Image, words_file: bool = False, code: int = 0, **task: Any) -> Attended:
    the_task = replace(Task("run", ("true",), image.context, project="demo"), **task)
    container = Container("demo-run-1", ID, "demo", the_task, words_file=words_file)
    program = process.start(Step(("sh", "-c", f"exit {code}")))
    return Attended(Client(None), container, None, program)


@pytest.mark.parametrize(
    ("code", "words_file", "started", "is_error"),
    [
        (0, False, False, False),
        (7, False, False, False),
        (1, False, False, False),
        (125, False, False, True),
        (127, False, False, True),
        (125, False, True, False),
        (1, True, False, True),
        (1, True, True, False),
        (2, True, False, False),
    ],
)
def test_an_exit_code_is_the_engines_or_the_jobs(
    fake: FakeClient, image: Image, code: int, words_file: bool, started: bool, is_error: bool
) -> None:
    fake.says("container inspect", "", 1, "Error: No such container: demo-run-1")
    fake.says("info", "2026-01-02T03:04:05Z\n")  # by the engine's clock
    fake.says("events", "start\n" if started else "")
    fake.says("rm", "", 1, "Error: No such container: demo-run-1")
    run = attended(image, words_file, code, limits=Limits(gpus=ALL_GPUS))
    if is_error:
        with pytest.raises(SkelebotError, match=r"the container of run could not be started \(GPUs need"):
            run.wait()
    else:
        assert run.wait() == code
    assert ("--force" in fake.calls) is is_error
    assert ("--until\n2026-01-02T03:04:05Z\n" in fake.calls) is ("events" in fake.calls)


def test_a_job_whose_client_has_ended_before_it_is_stopped(fake: FakeClient, image: Image) -> None:
    fake.says("container inspect", "true\n")
    with pytest.raises(SkelebotError, match="Docker's client ended before run did, which was stopped"):
        attended(image, code=1).wait()
    assert "stop\n--time\n10\ndemo-run-1\n" in fake.calls
    assert "rm\n--force\n--volumes\ndemo-run-1\n" in fake.calls


def test_a_container_that_the_engine_is_removing_is_waited_for(fake: FakeClient, image: Image) -> None:
    late = "echo >>tries; if [ $(wc -l <tries) -lt 3 ]; then echo '{}' >&2; exit 1; fi"
    fake.says("rm", "", hook=late.format("removal of container demo-run-1 is already in progress"))
    attended(image).remove()
    assert fake.calls.count("rm\n--force\n--volumes\ndemo-run-1\n") == 3


def test_a_signal_is_tried_again_until_the_container_has_it(fake: FakeClient, image: Image) -> None:
    run = attended(image)
    run.program = process.start(Step(("sleep", "60")))
    late = "echo >>tries; if [ $(wc -l <tries) -lt 3 ]; then echo 'No such container: x' >&2; exit 1; fi"
    fake.says("kill", "", hook=late)
    run.signal(signal.SIGTERM, delivered=False)
    assert fake.calls.count("kill\n--signal\n15\ndemo-run-1\n") == 3
    fake.says("kill", "", 1, "Error: permission denied")
    run.signal(signal.SIGKILL, delivered=False)
    assert run.program.wait() == 137
    fake.says("rm", "demo-run-1\n")
    assert run.wait() == 137
    assert fake.calls.count("rm\n--force\n--volumes\ndemo-run-1\n") == 1


def test_a_signal_that_the_terminal_has_delivered_is_not_sent(fake: FakeClient, image: Image) -> None:
    run = attended(image)
    run.signal(signal.SIGINT, delivered=True)
    assert (run.asked, fake.calls) == (True, "")


@pytest.mark.parametrize(("taken", "name"), [(False, "demo-run"), (True, "demo-run-[0-9a-f]{8}")])
def test_a_detached_job_has_the_plain_name_where_it_is_free(
    fake: FakeClient, checkout: Path, taken: bool, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    write(checkout, PROJECT.replace("help: h", "help: h, mode: d"))
    fake.says("image inspect", IMAGE)
    fake.says(
        "rename", "", 1 if taken else 0, "Conflict. The container name is already in use" if taken else ""
    )
    assert run_cli(["-s", "run"]) == 0
    assert re.fullmatch(name, capfd.readouterr().out.strip())


# --- the runs that there are ---


def container(**state: object) -> dict[str, object]:
    return {
        "Id": "i",
        "Name": "/demo-run",
        "Created": "2026-01-01T00:00:00Z",
        "State": {
            "Status": "exited",
            "StartedAt": "2026-01-02",
            "FinishedAt": "2026-01-03",
            "ExitCode": 7,
            **state,
        },
        "Config": {"Labels": {"skelebot.project": "demo", "skelebot.job": "run"}},
    }


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({}, ("exited", 7, "2026-01-02", "2026-01-03")),
        ({"Status": "dead"}, ("exited", 7, "2026-01-02", "2026-01-03")),
        ({"Status": "running"}, ("running", None, "2026-01-02", "")),
        ({"Status": "restarting"}, ("running", None, "2026-01-02", "")),
        ({"Status": "paused"}, ("paused", None, "2026-01-02", "")),
        (
            {"Status": "created", "StartedAt": "0001-01-01T00:00:00Z"},
            ("created", None, "2026-01-01T00:00:00Z", ""),
        ),
    ],
)
def test_the_run_of_a_container(state: dict[str, object], expected: tuple[object, ...]) -> None:
    run = runs.read_run(container(**state), Place("docker", "far"))
    assert (run.state, run.code, run.began, run.ended) == expected
    assert (run.id, run.name, run.project, run.job, run.checkout) == ("i", "demo-run", "demo", "run", "")


def test_the_exit_code_of_a_run_of_another_process(fake: FakeClient) -> None:
    run = Run("i", "demo-run", "demo", "run", Place())
    fake.says("wait", "137\n")
    assert runs.wait(Client(None), run) == 137
    for said in ("", "x", "1234\n", "-1"):
        fake.says("wait", said)
        with pytest.raises(SkelebotError, match="`docker wait` gave no exit code for demo-run"):
            runs.wait(Client(None), run)


def test_what_has_gone_meanwhile_needs_no_end(fake: FakeClient) -> None:
    run = Run("i", "demo-run", "demo", "run", Place())
    fake.says("rm", "", 1, "Error: No such container: demo-run\nremoval of x is already in progress\n")
    assert [each.name for each in runs.remove(Client(None), [run])] == ["demo-run"]
    fake.says("rm", "", 1, "Error: No such container: x\nError: device or resource busy\n")
    with pytest.raises(SkelebotError, match=r"`docker rm` failed \(Error: device or resource busy\)"):
        list(runs.remove(Client(None), [run]))
    assert list(runs.remove(Client(None), [])) == []


def test_an_engine_that_does_not_answer_leaves_only_the_base_image_open(image: Image) -> None:
    engine = Docker("unix:///nowhere/docker.sock")
    found = engine.surroundings(image, Task("run", ("true",), image.context))
    assert found.keys() == {"image", "base image"}
    assert found["base image"] == ""
    other = engine.surroundings(replace(image, base="another"), Task("run", ("true",), image.context))
    assert other["image"] != found["image"]
