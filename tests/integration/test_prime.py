"""`prime`: what it builds, and the file it saves, whole or not at all."""

import gzip
import io
import json
import os
import re
import signal
import stat
import subprocess
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import CLIENTS, Result, Sandbox, docker, make_sandbox, wait_for
from registry_server import tiny

pytestmark = pytest.mark.engine

COMMIT = "org.opencontainers.image.revision"
KEPT = f"t-{uuid.uuid4().hex[:10]}"  # the project of those tests that change nothing


def project(sandbox: Sandbox, name: str) -> None:
    sandbox.write(
        "skelebot.yaml",
        f"""\
        name: {name}
        baseImage: {tiny()}
        primaryJob: show
        jobs:
        - {{name: show, source: cat data.txt, help: h}}
        - {{name: few, source: ls, help: h, ignores: [data.txt]}}
        - {{name: write, source: echo x >out/x, help: h, mappings: [out/]}}
        """,
    )
    sandbox.write("data.txt", "first")


def tags(name: str) -> set[str]:
    """Those of the project's images, less each checkout's own."""
    found = docker("images", "--format", "{{.Tag}}", name).split()
    return {tag for tag in found if not re.search("-[0-9a-f]{8}$", tag)}


def image_id(name: str) -> str:
    return docker("image", "inspect", "-f", "{{.Id}}", name)


def labels(image: str) -> dict[str, str]:
    return dict(json.loads(docker("image", "inspect", "-f", "{{json .Config.Labels}}", image)))


def dangling(name: str) -> str:
    label = f"label=skelebot.project={name}"
    return docker("images", "-q", "--filter", "dangling=true", "--filter", label)


def commit(sandbox: Sandbox) -> str:
    """The commit of all that is there."""
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "all")):
        subprocess.run(["git", *who, *words], cwd=sandbox.root, env=dict(sandbox.env), check=True)
    head = ["git", "rev-parse", "HEAD"]
    return subprocess.run(head, cwd=sandbox.root, capture_output=True, text=True, check=True).stdout.strip()


def failed(result: Result, said: str, code: int = 1) -> None:
    assert (result.code, result.out, len(result.errors)) == (code, "", 1), result
    assert said in result.errors[0]
    assert "Traceback" not in result.err


def test_prime_builds_all_that_runs_need(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name)
    assert sandbox.ok("--dry-run", "prime") == f"build {name}:latest\nbuild {name}:job-few\n"
    assert sandbox.ok("prime") == ""
    assert tags(name) == {"latest", "job-few"}
    ids = {image_id(f"{name}:{tag}") for tag in tags(name)}
    assert sandbox.ok("-s", "few") == "Dockerfile\nskelebot.yaml\n" or "data.txt" not in sandbox.ok(
        "-s", "few"
    )
    result = sandbox.run("-V", "show", "+", "few", "+", "prime", "+", "write")
    assert result.code == 0, result
    assert " build " not in result.err
    assert {image_id(f"{name}:{tag}") for tag in tags(name)} == ids


@pytest.mark.slow
def test_a_saved_image_can_be_loaded_and_run(builder: Sandbox, name: str) -> None:
    project(builder, name)
    revision = commit(builder)
    (builder.root / "sub").mkdir()
    saved = builder.ok("prime", "-o", "../image.tar", cwd=builder.root / "sub").strip()
    assert saved == str(builder.root / "image.tar")
    assert COMMIT not in labels(name)
    assert (tags(name), dangling(name)) == ({"latest", "job-few"}, "")
    # Neither the file nor what else was written makes the next run build, and the file is in no image.
    result = builder.run("-V", "show", "+", "few")
    assert (result.code, " build " in result.err, "image.tar" in result.out) == (0, False, False), result
    run_id = image_id(name)
    docker("rmi", *(f"{name}:{tag}" for tag in tags(name)))
    assert f"Loaded image: {name}:latest" in docker("load", "-i", saved)
    assert docker("run", "--rm", name) == "first"
    assert (labels(name)[COMMIT], labels(name)["skelebot.dirty"]) == (revision, "false")
    # It is as good as the one that was built here.
    assert image_id(name) != run_id
    assert " build " not in builder.run("-V", "show").err


def test_a_compressed_file(sandbox: Sandbox, name: str) -> None:
    """The same image makes the same one."""
    project(sandbox, name)
    first, second = (Path(sandbox.ok("prime", "-o", f"a.{ending}").strip()) for ending in ("tar.gz", "tgz"))
    assert first.read_bytes() == second.read_bytes()
    assert gzip.decompress(first.read_bytes())[257:262] == b"ustar"
    assert stat.S_IMODE(first.stat().st_mode) == 0o644
    docker("rmi", f"{name}:latest")
    assert f"Loaded image: {name}:latest" in docker("load", "-i", str(first))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-o", "missing/image.tar"), "there is no folder"),
        (("-o", "."), ". is a folder"),
        (("-o", "image.tar.zst"), "expected a name that ends in .tar or .tar.gz"),
        (("-o", "/dev/null"), "/dev/null is not an ordinary file"),
    ],
)
def test_what_cannot_be_written_is_told_before_anything_is_built(
    sandbox: Sandbox, name: str, words: tuple[str, ...], said: str
) -> None:
    project(sandbox, name)
    failed(sandbox.run("prime", *words), said, code=2)
    assert tags(name) == set()


def test_natively_it_prepares_what_native_runs_need(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name)
    sandbox.write(
        "skelebot.yaml", sandbox.read("skelebot.yaml") + f"dependencies: ['file:{wheel(sandbox)}']\n"
    )
    assert sandbox.ok("-n", "prime") == ""
    python = str(sandbox.root / ".skelebot/venv/bin/python")
    assert subprocess.run([python, "-c", "import tool; print(tool.A)"], capture_output=True).stdout == b"1\n"
    failed(sandbox.run("-n", "prime", "-o", "image.tar"), "a native run has no image to save", code=2)
    assert tags(name) == set()


def wheel(sandbox: Sandbox) -> str:
    """The path of a small Python package."""
    data = io.BytesIO()
    about = "tool-1.dist-info"
    with zipfile.ZipFile(data, "w") as file:
        file.writestr("tool.py", "A = 1\n")
        file.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tool\nVersion: 1\n")
        file.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{about}/RECORD", "")
    sandbox.write("tool-1-py3-none-any.whl", data.getvalue())
    return "tool-1-py3-none-any.whl"


# --- whole or not at all ---


@pytest.fixture(scope="module")
def primed() -> Iterator[Sandbox]:
    """A project whose images are built, with a file from before in a folder of its own.

    One for all tests, as none of them is to change anything.
    """
    for sandbox in make_sandbox(os.getuid()):
        project(sandbox, KEPT)
        sandbox.write("skelebot.yaml", sandbox.read("skelebot.yaml") + "ignores: [saved]\n")
        sandbox.write("saved/image.tar", "old")
        commit(sandbox)
        sandbox.ok("prime")
        yield sandbox
        docker("rmi", f"{KEPT}:latest", f"{KEPT}:job-few")


def with_client(sandbox: Sandbox, save: str) -> Sandbox:
    """With a client that saves as the shell text `save` says."""
    text = f'#!/bin/bash\nif [ "$1" = save ]; then {save}; else exec {CLIENTS[0]} "$@"; fi\n'
    sandbox.write("../bin/docker", text, 0o755)
    return sandbox.with_env(PATH=f"{sandbox.root.parent}/bin:{sandbox.env['PATH']}")


def nothing_changed(sandbox: Sandbox) -> None:
    assert [path.name for path in (sandbox.root / "saved").iterdir()] == ["image.tar"]
    assert sandbox.read("saved/image.tar") == "old"
    assert (tags(KEPT), dangling(KEPT)) == ({"latest", "job-few"}, "")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_save_that_is_interrupted(primed: Sandbox, signum: int) -> None:
    stuck = with_client(primed, f'{CLIENTS[0]} "$@" | {{ head -c 4000000; sleep 100; }}')
    child = stuck.start("prime", "-o", "saved/image.tar", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: any(path.stat().st_size > 3 for path in (primed.root / "saved").iterdir()))  # than "old"
    child.send_signal(signum)
    out, err = child.communicate(timeout=60)
    failed(Result(child.returncode, out.decode(), err.decode()), "interrupted", 128 + signum)
    nothing_changed(primed)


@pytest.mark.parametrize(
    ("save", "said"),
    [
        (f'{CLIENTS[0]} "$@" | head -c 2000000', "the engine closed the connection"),
        ("echo no such luck >&2; exit 1", "no such luck"),
    ],
)
def test_an_engine_that_breaks_off(primed: Sandbox, save: str, said: str) -> None:
    result = with_client(primed, save).run("prime", "-o", "saved/image.tar")
    failed(result, f"the image {KEPT}:latest could not be saved: {said}")
    nothing_changed(primed)


@pytest.fixture
def small_disk(primed: Sandbox) -> Iterator[None]:
    """Puts a file system with too little room below the file."""
    words = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "none", str(primed.root / "saved")]
    if os.getuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    primed.write("saved/image.tar", "old")
    yield
    subprocess.run(["umount", "-l", str(primed.root / "saved")], check=True)


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
@pytest.mark.usefixtures("small_disk")
def test_a_full_disk(primed: Sandbox, ending: str) -> None:
    (primed.root / "saved/image.tar").rename(primed.root / f"saved/image.{ending}")
    failed(primed.run("prime", "-o", f"saved/image.{ending}"), "cannot be written: no space left on device")
    (primed.root / f"saved/image.{ending}").rename(primed.root / "saved/image.tar")
    nothing_changed(primed)
