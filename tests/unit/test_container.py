"""The arguments of `docker run` as golden files, and what travels beside them."""

import hashlib
import io
import os
import re
import tarfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from skelebot.model import ALL_GPUS, Limits, Mount, Task
from skelebot.project.state import checkout_id
from skelebot.runners.docker.client import Client
from skelebot.runners.docker.container import (
    WORDS_FILE,
    Container,
    Variables,
    container_name,
    has_secrets,
    variables,
    words_tar,
)
from skelebot.runners.docker.volumes import Volumes, _take_file
from skelebot.runners.gpus import Device
from skelebot.secret import Secret, typed_secret
from skelebot.units import G, M

GOLDEN = Path(__file__).parent / "golden"
ID = "sha256:" + "a" * 64

PLAIN = Task("train", ("python", "train.py", "--rate", "a b"), "/p", project="demo")
PLAIN_CONTAINER = Container("demo-train-0123abcd", ID, "demo", PLAIN, owner="1000:1000")


def with_task(**changes: object) -> Container:
    return replace(PLAIN_CONTAINER, task=replace(PLAIN, **changes))  # type: ignore[arg-type]


CONTAINERS = {
    "plain": PLAIN_CONTAINER,
    "terminal": replace(PLAIN_CONTAINER, terminal=True, labels=(("skelebot.root", "/p, q"),)),
    "detached": replace(with_task(mode="d"), terminal=True),
    "mounts": replace(
        PLAIN_CONTAINER,
        mounts=(
            Mount("/p/data", "/app/data"),
            Mount('/p/a, "b"', "/app/a, b", read_only=True),
            Mount("/p/two\nlines", "/app/lines"),
        ),
    ),
    "everything": replace(
        with_task(
            ports=("80:80", "127.0.0.1:81:81/udp", "80:80"),
            limits=Limits(2.5, 4 * G, 512 * M, ALL_GPUS, G),
            timeout=5400.5,
            mode="it",
        ),
        user="1000:1000",
        labels=(("skelebot.maker", "7-9"),),
    ),
    "devices": replace(
        with_task(limits=Limits(gpus=2)), devices=(Device("0", "GPU-a"), Device("2", "GPU-b"))
    ),
    "secrets": replace(
        with_task(argv=("run", "--token", typed_secret("hunter2")), timeout=90), words_file=True
    ),
}


def shown(container: Container) -> str:
    """One argument to a line, a line end as \\n; of the script that every container runs its name alone."""
    words = container.arguments()
    words[words.index("-c") + 1] = "(job.sh)"
    return "".join(word.replace("\\", "\\\\").replace("\n", "\\n") + "\n" for word in words)


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_arguments_of_a_run(name: str) -> None:
    assert shown(CONTAINERS[name]) == (GOLDEN / f"{name}.run").read_text()


def test_devices_that_are_not_known_here_are_the_engines_to_choose() -> None:
    words = with_task(limits=Limits(gpus=2)).arguments()
    assert words[words.index("--gpus") + 1] == "2"
    assert not any("skelebot.gpus" in word for word in words)


def test_the_arguments_on_another_machine(tmp_path: Path) -> None:
    """A volume stands for each folder, a file is copied, and nothing there is handed over to the caller."""
    root = tmp_path.resolve()
    for name in ("data", "out"):
        (root / name).mkdir()
    (root / "one.csv").write_text("1\n")
    mounts = (
        Mount(f"{root}/data", "/app/da,ta", read_only=True),
        Mount(f"{root}/out", "/app/out"),
        Mount(f"{root}/one.csv", "/app/one.csv"),
    )
    volumes = Volumes.of(Client("ssh://far"), ID, "demo", str(root), mounts)
    container = replace(PLAIN_CONTAINER, labels=volumes.labels(), volumes=volumes.arguments())
    text = shown(container).replace(checkout_id(str(root)), "CHECKOUT").replace(str(root), "/p")
    sources = sorted(set(re.findall("source=(demo-CHECKOUT-[0-9a-f]{10})", text)))
    assert len(sources) == 2
    text = re.sub("(source=demo-CHECKOUT)-[0-9a-f]{10}", r"\1-FOLDER", text)
    assert text == (GOLDEN / "volumes.run").read_text()


def test_what_is_neither_a_folder_nor_a_file_cannot_go_far(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Exception, match=r"pipe is neither a folder nor a file, and cannot be mapped on ssh:"):
        Volumes.of(Client("ssh://far"), ID, "demo", str(tmp_path), [Mount(str(tmp_path / "pipe"), "/app/x")])


def test_names_of_containers() -> None:
    task = replace(PLAIN, name="do it; now/é")
    assert container_name(task, "demo") == "demo-do-it-now-"
    assert container_name(task, "demo", "0123") == "demo-do-it-now--0123"
    assert container_name(PLAIN, "demo-dev") == "demo-dev-train"


@pytest.mark.parametrize(
    ("theirs", "own", "is_later", "taken"),
    [
        ("sent", "sent", True, False),
        ("same", "same", True, False),
        ("job", "sent", False, True),
        ("job", None, False, True),
        ("job", "changed", True, True),
        ("job", "changed", False, False),
        ("sent", "changed", True, False),
    ],
)
def test_whose_mapped_file_counts(
    tmp_path: Path, theirs: str, own: str | None, is_later: bool, taken: bool
) -> None:
    """What the job has changed, unless it was changed here later."""
    target, stream = tmp_path / "file", io.BytesIO()
    if own:
        target.write_text(own)
    with tarfile.open(fileobj=stream, mode="w") as tar:
        member = tarfile.TarInfo("file")
        member.size, member.mtime = len(theirs), (time.time() + 60 if is_later else 1)
        tar.addfile(member, io.BytesIO(theirs.encode()))
    stream.seek(0)
    _take_file(stream, str(target), hashlib.sha256(b"sent").hexdigest(), ".part")
    assert (target.exists() and target.read_text()) == (theirs if taken else own)
    assert not (tmp_path / ".part").exists()


# --- what travels beside the arguments ---


def test_values_of_variables_stand_in_no_argument() -> None:
    long = "x" * 60_000
    task = replace(
        PLAIN,
        env=(
            ("A", "1"),
            ("TOKEN", Secret("variable", "SKELEBOT_TEST_TOKEN")),
            ("TWO", "two\nlines"),
            ("BACK", "a\rb"),
            ("LONG", long),
            ("EMPTY", ""),
        ),
    )
    with ExitStack() as files, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKELEBOT_TEST_TOKEN", "hunter2")
        found = variables(task, files)
        (fd,) = found.fds
        assert found.options == (
            *("--env", "TWO", "--env", "BACK", "--env", "LONG"),
            *("--env-file", f"/dev/fd/{fd}"),
        )
        assert found.env == (("TWO", "two\nlines"), ("BACK", "a\rb"), ("LONG", long))
        assert os.read(fd, 1000) == b"A=1\nTOKEN=hunter2\nEMPTY=\n"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_without_variables_there_is_no_file() -> None:
    with ExitStack() as files:
        assert variables(PLAIN, files) == Variables()
        only_odd = variables(replace(PLAIN, env=(("A", "a\nb"),)), files)
        assert only_odd == Variables(("--env", "A"), (("A", "a\nb"),))


def test_words_with_secrets_are_a_file_that_only_root_reads() -> None:
    words = ("run", Secret("variable", "T"), "a\\n\nb", "", "é☃")
    task = replace(PLAIN, argv=words, env=(("T", "of the job"),))
    assert has_secrets(words)
    assert not has_secrets(PLAIN.argv)
    with tarfile.open(fileobj=io.BytesIO(words_tar(task))) as tar:
        (member,) = tar.getmembers()
        content = tar.extractfile(member)
        assert content
        assert (f"/{member.name}", member.mode, member.uid, member.gid) == (WORDS_FILE, 0o600, 0, 0)
        assert content.read().decode() == "run\nof the job\na\\\\n\\nb\n\né☃\n"
