"""What it costs to push and pull: against tools that do nothing else, in one run.

usage: python benchmarks/transfers.py [--rounds N] [--size MIB] [--aws PROGRAM] [ROW ...]

Takes the `skelebot` that is installed beside the Python that runs it, the S3 server that tests/s3_server.sh
exports, tests/artifactory_server.py, `curl`, and `aws` from a scratch environment unless one is named.
The commands of a row take turns, in an order that turns as well. With 1 GiB it takes about ten minutes,
3 GB of disk and 4 GB of memory for the S3 server. Leaves nothing behind. A busy machine shows more in the
seconds than in those of the processor; TMPDIR=/dev/shm leaves out what a disk adds to either side.
"""

import argparse
import http.client
import importlib.util
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from startup import installed

TESTS = Path(__file__).resolve().parent.parent / "tests"
MB = 1 << 20
KEYS = 10_000
MOST_MEMORY = 150  # MB

S3_ROW, ARTIFACTORY_ROW, FAST_ROW, LATEST_ROW = ROWS = ("s3", "artifactory", "fast", "latest")


# --- what is run ---


@dataclass(frozen=True)
class Measured:
    seconds: float
    processor: float  # its seconds
    memory: float  # the process's peak, in MB


@dataclass(frozen=True)
class Command:
    """A program to measure, in a folder, and what makes the world ready for it."""

    name: str
    argv: tuple[str, ...]
    folder: Path
    env: Mapping[str, str]
    ready: Callable[[], object]

    def run(self) -> Measured:
        """Raises CalledProcessError when it fails."""
        self.ready()
        os.sync()  # what another has written is not to be waited for by this one
        start = time.perf_counter()
        child = subprocess.Popen(self.argv, cwd=self.folder, env=self.env, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise subprocess.CalledProcessError(child.returncode, self.argv)
        return Measured(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6)


@dataclass(frozen=True)
class Row:
    """A promise: `ours` has at least `limit` of the throughput of `theirs`."""

    work: str
    ours: Command
    theirs: Command
    limit: float
    bounded: bool = True  # in memory

    def measure(self, rounds: int) -> bool:
        """Prints what came out, and says whether it keeps the promise; the first round only warms up."""
        found: dict[str, list[Measured]] = {"ours": [], "theirs": []}
        for number in range(rounds + 1):
            turns = (("ours", self.ours), ("theirs", self.theirs))
            for name, command in turns if number % 2 else turns[::-1]:
                measured = command.run()
                if number:
                    found[name].append(measured)
        return self._report(found["ours"], found["theirs"])

    def _report(self, ours: list[Measured], theirs: list[Measured]) -> bool:
        mine, other = ([one.seconds for one in runs] for runs in (ours, theirs))
        ratio = statistics.median(other) / statistics.median(mine)
        best = min(other) / min(mine)
        busy = (_seconds([one.processor for one in runs]) for runs in (ours, theirs))
        said = f"{ratio:.2f} (best runs {best:.2f}; {_seconds(mine)} against {_seconds(other)}; "
        said += f"processor {' against '.join(busy)})"
        kept = show(
            f"{self.work}, against {self.theirs.name}",
            f"at least {self.limit:.2f}",
            said,
            ratio >= self.limit,
        )
        if not self.bounded:
            return kept
        peak, others = (max(one.memory for one in runs) for runs in (ours, theirs))
        said = f"{peak:.0f} MB ({self.theirs.name}: {others:.0f} MB)"
        return show(f"{self.work}, memory", f"at most {MOST_MEMORY} MB", said, peak <= MOST_MEMORY) and kept


def _seconds(times: list[float]) -> str:
    return f"{statistics.median(times):.2f} s"


def show(work: str, must: str, measured: str, kept: bool) -> bool:
    print(f"{work:<42} | {must:<14} | {measured}{'' if kept else '  MISSED'}", flush=True)
    return kept


# --- the world ---


@dataclass(frozen=True)
class World:
    folder: Path
    file: Path  # what is transferred
    aws: str

    def project(self, name: str, repository: object, version: str = "1.0.0") -> Path:
        """A new project with the artifact `model`, which is the file."""
        folder = self.folder / name
        folder.mkdir()
        parts = {"repository": repository}
        (folder / "skelebot.yaml").write_text(json.dumps({"name": name, "components": parts}))
        (folder / "VERSION").write_text(f"{version}\n")
        os.link(self.file, folder / "model.bin")
        return folder


def environment(**more: str) -> dict[str, str]:
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "SKELEBOT_")) and k != "VIRTUAL_ENV"
    }
    return kept | {"AWS_EC2_METADATA_DISABLED": "true"} | more


def artifact(**store: object) -> dict[str, object]:
    return {**store, "artifacts": [{"name": "model", "file": "model.bin"}]}


def remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


@contextmanager
def bucket() -> Iterator[tuple[str, Any, dict[str, str]]]:
    """An empty bucket of the test server: its name, a client for it, and the caller's environment."""
    url = os.environ.get("SKELEBOT_TEST_S3")
    if not url:
        sys.exit('ERROR | there is no S3 server: eval "$(tests/s3_server.sh)"')
    key, _, secret = os.environ["SKELEBOT_TEST_S3_KEYS"].partition(":")
    env = environment(
        AWS_ACCESS_KEY_ID=key,
        AWS_SECRET_ACCESS_KEY=secret,
        AWS_ENDPOINT_URL=url,
        AWS_DEFAULT_REGION="us-east-1",
    )
    config = Config("us-east-1", "s3v4", s3={"addressing_style": "path"})
    keys = {"aws_access_key_id": key, "aws_secret_access_key": secret}
    client: Any = boto3.client("s3", endpoint_url=url, config=config, **keys)
    name = f"b-{os.getpid()}-{time.time_ns()}"
    client.create_bucket(Bucket=name)
    try:
        yield name, client, env
    finally:
        empty(name, client)
        client.delete_bucket(Bucket=name)


def empty(name: str, client: Any) -> None:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
        keys = [{"Key": found["Key"]} for found in page.get("Contents", ())]
        if keys:
            client.delete_objects(Bucket=name, Delete={"Objects": keys, "Quiet": True})


# --- the rows ---


def s3_rows(world: World) -> Iterator[Row]:
    with bucket() as (name, client, env):
        root = world.project("s3", artifact(s3={"bucket": name, "endpoint": env["AWS_ENDPOINT_URL"]}))
        skelebot, copy = installed(), (world.aws, "s3", "cp", "--only-show-errors")
        theirs, out = f"s3://{name}/theirs", root / "theirs"

        def fresh() -> None:
            empty(name, client)

        yield Row(
            "push to S3",
            Command("skelebot", (*skelebot, "push", "model"), root, env, fresh),
            Command("aws s3 cp", (*copy, str(world.file), theirs), root, env, fresh),
            1.0,
        )
        empty(name, client)
        client.upload_file(str(world.file), name, "theirs")
        subprocess.run((*skelebot, "push", "model"), cwd=root, env=env, check=True, stdout=subprocess.DEVNULL)

        def absent() -> None:
            remove(out, root / "model_v1.0.0.bin")

        yield Row(
            "pull from S3",
            Command("skelebot", (*skelebot, "pull", "model", "1.0.0"), root, env, absent),
            Command("aws s3 cp", (*copy, theirs, str(out)), root, env, absent),
            1.0,
        )
        absent()


def artifactory_rows(world: World) -> Iterator[Row]:
    yield from rows_against_curl(world, "Artifactory", (), push=0.9, pull=0.9)


def fast_rows(world: World) -> Iterator[Row]:
    """A server that transfers 1 GB/s, so that only what we do ourselves can make a difference."""
    yield from rows_against_curl(world, "a fast server", ("fast",), push=0.9, pull=0.8)


def rows_against_curl(
    world: World, name: str, options: tuple[str, ...], push: float, pull: float
) -> Iterator[Row]:
    with artifactory(world.folder / name, options) as (url, folder, user, password):
        root = world.project(f"to {name}", artifact(artifactory={"url": url, "repo": folder.name}))
        env = environment(SKELEBOT_ARTIFACTORY_USER=user, SKELEBOT_ARTIFACTORY_TOKEN=password)
        skelebot, curl = installed(), ("curl", "-sSf", "-u", f"{user}:{password}")
        theirs, out = f"{url}/artifactory/{folder.name}/theirs", root / "theirs"
        ours = folder / "model_v1.0.0.bin"

        def fresh() -> None:
            remove(folder / "theirs", ours)

        yield Row(
            f"push to {name}",
            Command("skelebot", (*skelebot, "push", "model"), root, env, fresh),
            Command("curl", (*curl, "-o", os.devnull, "-T", str(world.file), theirs), root, env, fresh),
            push,
        )
        fresh()
        os.link(world.file, ours)
        os.link(world.file, folder / "theirs")

        def absent() -> None:
            remove(out, root / "model_v1.0.0.bin")

        yield Row(
            f"pull from {name}",
            Command("skelebot", (*skelebot, "pull", "model", "1.0.0"), root, env, absent),
            Command("curl", (*curl, "-o", str(out), theirs), root, env, absent),
            pull,
        )
        absent()


@contextmanager
def artifactory(folder: Path, options: tuple[str, ...]) -> Iterator[tuple[str, Path, str, str]]:
    """The test server as a program: its address, the folder of its repository, a user and the password."""
    spec = importlib.util.spec_from_file_location("artifactory_server", TESTS / "artifactory_server.py")
    assert spec
    assert spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for it
    spec.loader.exec_module(module)
    repository = folder / module.REPO
    repository.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = (sys.executable, str(TESTS / "artifactory_server.py"), str(folder), str(port), *options)
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as server:
        try:
            wait_for_port(port)
            yield f"http://127.0.0.1:{port}", repository, module.USER, module.PASSWORD
        finally:
            server.terminate()


def wait_for_port(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit("ERROR | the test Artifactory server did not start")


BARE = """
import sys, boto3
pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=sys.argv[1], Prefix="model_v")
assert sum(len(page["Contents"]) for page in pages) == int(sys.argv[2])
"""


def latest_rows(world: World) -> Iterator[Row]:
    """Half of the keys are look-alikes on the same pages."""
    with bucket() as (name, client, env):
        fill(name, client, [f"model_v1.{n // 2}.0{('.bin', '.txt')[n % 2]}" for n in range(KEYS)])
        settings = artifact(s3={"bucket": name, "endpoint": env["AWS_ENDPOINT_URL"]})
        root = world.project("latest", settings, f"1.{KEYS}.0")
        target = root / f"model_v1.{KEYS // 2 - 1}.0.bin"
        listing = (sys.executable, "-c", BARE, name, str(KEYS))
        yield Row(
            f"LATEST over {KEYS:,} keys",
            Command("skelebot", (*installed(), "pull", "model", "LATEST"), root, env, lambda: remove(target)),
            Command("a bare listing", listing, root, env, lambda: None),
            1 / 1.3,
            bounded=False,
        )


def fill(name: str, client: Any, keys: list[str]) -> None:
    def put(some: list[str]) -> None:
        connection = http.client.HTTPConnection(urlsplit(client.meta.endpoint_url).netloc)
        for key in some:
            url = client.generate_presigned_url("put_object", {"Bucket": name, "Key": key})
            connection.request("PUT", url, b"x")
            connection.getresponse().read()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, [keys[n::4] for n in range(4)]))


# --- the program ---


def main() -> int:
    parser = argparse.ArgumentParser(description="What it costs to push and pull")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=1024, metavar="MIB")
    parser.add_argument("--aws", metavar="PROGRAM")
    given = parser.parse_args()
    wanted = given.rows or ROWS
    if unknown := set(wanted) - set(ROWS):
        parser.error(f"unknown row {', '.join(sorted(unknown))}")
    makers = {
        S3_ROW: s3_rows,
        ARTIFACTORY_ROW: artifactory_rows,
        FAST_ROW: fast_rows,
        LATEST_ROW: latest_rows,
    }
    print(
        f"Python {sys.version.split()[0]}, {given.size} MiB, {given.rounds} rounds; ratios of throughputs\n"
    )
    show("work", "must reach", "measured", True)
    with tempfile.TemporaryDirectory() as scratch:
        world = make_world(Path(scratch), given.size, given.aws, S3_ROW in wanted)
        kept = [row.measure(given.rounds) for name in wanted for row in makers[name](world)]
    return 0 if all(kept) else 1


def make_world(folder: Path, size: int, aws: str | None, needs_aws: bool) -> World:
    file = folder / "file"
    with file.open("wb") as out:
        for _ in range(size):
            out.write(os.urandom(MB))
    if needs_aws and not aws:
        aws = install_aws(folder / "aws")
    return World(folder, file, aws or "")


def install_aws(folder: Path) -> str:
    """The AWS command line in an environment of its own; one on PATH may be started by way of a shim."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    uv = shutil.which("uv", path=os.path.dirname(sys.executable))
    pip = (uv, "pip", "install", "--python", python) if uv else (python, "-m", "pip", "install")
    subprocess.run((*pip, "-q", "awscli"), check=True, stdout=subprocess.DEVNULL)
    return str(folder / "bin" / "aws")


if __name__ == "__main__":
    sys.exit(main())
