"""Artifacts in Artifactory: credentials, and a server and a network that fail in every way."""

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import termios
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from artifactory_server import (
    API_KEY,
    EXPIRED,
    PASSWORD,
    READER,
    REPO,
    TOKEN,
    USER,
    Server,
    serving,
)
from harness import SKELEBOT, Result, Sandbox, Terminal, peak_memory, wait_for
from moto.server import ThreadedMotoServer
from socks_proxy import socks_proxy

MODEL = "{name: model, file: models/m.pkl}"
SECRETS = (PASSWORD, TOKEN, EXPIRED, API_KEY, "wrong-password")

AUTHENTICATIONS = {
    "user_pass": {"SKELEBOT_ARTIFACTORY_USER": USER, "SKELEBOT_ARTIFACTORY_TOKEN": PASSWORD},
    "token": {"SKELEBOT_ARTIFACTORY_TOKEN": TOKEN},
    "api_key": {"SKELEBOT_ARTIFACTORY_TOKEN": API_KEY},
    "apikey": {"SKELEBOT_ARTIFACTORY_TOKEN": API_KEY},
}


@pytest.fixture
def server(sandbox: Sandbox) -> Iterator[Server]:
    with serving(sandbox.root.parent / "artifactory") as running:
        yield running


@pytest.fixture
def ada(sandbox: Sandbox, server: Server) -> Sandbox:
    """Someone whose environment has the credentials, with a project that has a model."""
    project(sandbox, server.url)
    sandbox.write("models/m.pkl", b"a model")
    return sandbox.with_env(**AUTHENTICATIONS["user_pass"])


def project(
    sandbox: Sandbox, url: str, *artifacts: str, auth: str = "{}", more: str = "", version: str = "1.4.0"
) -> None:
    lines = [f"    - {artifact}" for artifact in artifacts or (MODEL,)]
    store = f"    artifactory: {{url: '{url}', repo: {REPO}, path: team/models, auth: {auth}{more}}}"
    text = ["name: a", "components:", "  repository:", store, "    artifacts:", *lines, ""]
    sandbox.write("skelebot.yaml", "\n".join(text))
    sandbox.write("VERSION", f"{version}\n")


def place(server: Server, key: str) -> Path:
    return server.folder / REPO / "team/models" / key


def put(server: Server, key: str, content: bytes = b"stored") -> Path:
    """Something in the repository that Skelebot has not brought there."""
    path = place(server, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def put_large(server: Server, size: int) -> Path:
    path = put(server, "model_v1.4.0.pkl", b"")
    with open(path, "wb") as file:
        for i in range(size >> 20):
            file.write(hashlib.sha256(b"%d" % i).digest() * 32768)
    server.sums_of(path)
    return path


def failed(result: Result, said: str, code: int = 1) -> None:
    """One clear line, and the exit code of something that did not work."""
    assert (result.code, result.out, len(result.errors)) == (code, "", 1), result
    assert said in result.errors[0]
    assert "Traceback" not in result.err
    assert not any(secret in result.err for secret in SECRETS)


def part_of(sandbox: Sandbox) -> Path | None:
    return next((sandbox.root / ".skelebot").glob("parts/*/data"), None)


# --- push and pull ---


@pytest.mark.parametrize("kind", AUTHENTICATIONS)
def test_push_and_pull(sandbox: Sandbox, server: Server, kind: str) -> None:
    project(sandbox, server.url, auth=f"{{authType: {kind}}}")
    content = os.urandom(3_000_000)
    sandbox.write("models/m.pkl", content)
    caller = sandbox.with_env(**AUTHENTICATIONS[kind])
    assert caller.ok("push", "model") == "model_v1.4.0.pkl\n"
    assert place(server, "model_v1.4.0.pkl").read_bytes() == content
    [checked, sent] = server.asked("PUT")
    assert "X-Checksum-Deploy" in checked.headers
    assert sent.headers["X-Checksum-Sha256"] == hashlib.sha256(content).hexdigest()
    assert caller.ok("pull", "model", "1.4.0") == f"{sandbox.root.resolve()}/model_v1.4.0.pkl\n"
    assert (sandbox.root / "model_v1.4.0.pkl").read_bytes() == content
    sandbox.write("models/m.pkl", b"other")
    caller.ok("pull", "model", "LATEST", "-o")
    assert (sandbox.root / "models/m.pkl").read_bytes() == content
    header = "X-JFrog-Art-Api" if "key" in kind else "Authorization"
    assert all(header in request.headers for request in server.requests)


def test_a_version_is_stored_once(ada: Sandbox, server: Server) -> None:
    ada.ok("push", "model")
    ada.write("models/m.pkl", b"another")
    server.forget()
    failed(ada.run("push", "model"), "-f")
    assert (server.asked("PUT"), server.received) == ([], 0)
    ada.ok("push", "model", "-f")
    assert place(server, "model_v1.4.0.pkl").read_bytes() == b"another"


def test_it_is_looked_up_just_before(ada: Sandbox, server: Server) -> None:
    """Someone stores the second artifact while the first is on its way."""
    project(ada, server.url, MODEL, "{name: second, file: second.csv}")
    with open(ada.root / "models/m.pkl", "wb") as file:
        file.truncate(512 << 20)
    ada.write("second.csv", b"mine")
    child = ada.start("push", "ALL", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: server.received > 0)
    child.send_signal(signal.SIGSTOP)
    assert not place(server, "second_v1.4.0.csv").exists()
    put(server, "second_v1.4.0.csv", b"of someone else")
    child.send_signal(signal.SIGCONT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (1, b"model_v1.4.0.pkl\n")
    assert b"second_v1.4.0.csv is already in the store" in err
    assert place(server, "second_v1.4.0.csv").read_bytes() == b"of someone else"


def test_what_the_server_has_is_not_sent_again(ada: Sandbox, server: Server) -> None:
    [first] = json.loads(ada.ok("push", "model", "--json"))
    [again] = json.loads(ada.ok("push", "model", "-f", "--json"))
    [elsewhere] = json.loads(ada.ok("push", "model", "-p", "staging/", "--json"))
    assert (first["sent"], again["sent"], elsewhere["sent"], server.received) == (7, 0, 0, 7)
    assert first["sha256"] == again["sha256"] == hashlib.sha256(b"a model").hexdigest()
    assert place(server, "staging/model_v1.4.0.pkl").read_bytes() == b"a model"


def test_a_large_file_is_sent_at_once_and_its_checksum_after(ada: Sandbox, server: Server) -> None:
    content = os.urandom(17 << 20)
    ada.write("models/m.pkl", content)
    [done] = json.loads(ada.ok("push", "model", "--json"))
    digest = hashlib.sha256(content).hexdigest()
    assert (done["sha256"], done["sent"], server.received) == (digest, len(content), len(content))
    assert [r.headers.get("X-Checksum-Sha256") for r in server.asked("PUT")] == [None, digest]
    [again] = json.loads(ada.ok("push", "model", "-f", "--json"))
    assert (again["sha256"], again["sent"], server.received) == (digest, 0, len(content))
    assert place(server, "model_v1.4.0.pkl").read_bytes() == content


@pytest.mark.parametrize("size", [256 << 20, 1 << 20])
def test_a_large_file_that_is_written_to_meanwhile(ada: Sandbox, server: Server, size: int) -> None:
    path = ada.write("models/m.pkl", b"")
    os.truncate(path, 256 << 20)
    child = ada.start("push", "model", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: server.received > 0)
    with open(path, "r+b") as file:
        file.write(b"another beginning")
        file.truncate(size)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (1, b""), err
    assert b"m.pkl changed while it was pushed; push it again" in err
    assert not place(server, "model_v1.4.0.pkl").exists()


@pytest.mark.parametrize("size", [1 << 20, 17 << 20])
@pytest.mark.parametrize("options", [(), ("-f",)])
def test_what_is_damaged_on_its_way_is_not_stored(
    ada: Sandbox, server: Server, size: int, options: tuple[str, ...]
) -> None:
    ada.write("models/m.pkl", os.urandom(size))
    server.faults.damage = True
    failed(ada.run("push", "model", *options), "hecksum" if size < 16 << 20 or options else "arrived damaged")
    assert not place(server, "model_v1.4.0.pkl").exists()
    server.faults.damage = False
    ada.ok("push", "model")


def test_names_that_addresses_have_to_spell_out(sandbox: Sandbox, server: Server) -> None:
    project(
        sandbox,
        server.url,
        "{name: my model+x, file: m.tar.gz}",
        "{name: one, file: one, singular: true}",
        version="1.4.0-rc.1+b5",
    )
    sandbox.write("m.tar.gz", b"packed")
    sandbox.write("one", b"")
    caller = sandbox.with_env(**AUTHENTICATIONS["user_pass"])
    key = "a%20b;x=1/c?d#/my model+x_v1.4.0-rc.1+b5.tar.gz"
    assert caller.ok("push", "ALL", "-p", "a%20b;x=1/c?d#/") == f"{key}\na%20b;x=1/c?d#/one\n"
    assert place(server, key).read_bytes() == b"packed"
    caller.ok("pull", "ALL", "LATEST", "-p", "a%20b;x=1/c?d#/")
    assert sandbox.read("my model+x_v1.4.0-rc.1+b5.tar.gz") == "packed"
    assert sandbox.read("one") == ""


def test_a_prefix_does_not_leave_the_path(ada: Sandbox, server: Server) -> None:
    put(server, "model_v1.3.0.pkl")
    for prefix in ("../", "./", "a/../../other/"):
        failed(ada.run("push", "model", "-p", prefix), "--prefix", code=2)
        failed(ada.run("pull", "model", "LATEST", "-p", prefix), "--prefix", code=2)
    assert server.requests == []


def test_a_folder(sandbox: Sandbox, server: Server) -> None:
    project(sandbox, server.url, "{name: model, file: model/}")
    sandbox.write("model/a/b", b"1")
    caller = sandbox.with_env(**AUTHENTICATIONS["user_pass"])
    assert caller.ok("push", "model") == "model_v1.4.0.tar.gz\n"
    caller.ok("pull", "model", "LATEST")
    assert sandbox.read("model_v1.4.0/a/b") == "1"


def test_latest_and_the_list(ada: Sandbox, server: Server) -> None:
    versions = ("1.2.0", "1.4.0-rc.1", "1.10.0", "2.0.0")
    for version in versions:
        put(server, f"model_v{version}.pkl", version.encode())
    for other in ("model_big_v1.4.0.pkl", "model_v1.4.0.h5", "sub/model_v1.4.0.pkl"):
        put(server, other)
    ada.ok("pull", "model", "LATEST", "-o")
    assert ada.read("models/m.pkl") == "1.4.0-rc.1"
    rows = json.loads(ada.ok("artifacts", "model", "--json"))
    assert [row["version"] for row in rows] == list(versions)
    assert [row["version"] for row in rows if row["latest"]] == ["1.4.0-rc.1"]
    assert rows[0]["sha256"] == hashlib.sha256(b"1.2.0").hexdigest()
    assert rows[0]["modified"].endswith("+00:00")
    assert "sha256" not in json.loads(ada.ok("artifacts", "--json"))[0]
    ada.write("VERSION", "3.0.0\n")
    failed(ada.run("pull", "model", "LATEST"), "there are: 1.2.0, 1.4.0-rc.1, 1.10.0, 2.0.0")


def test_a_singular_artifacts_time_is_written_as_the_others_are(sandbox: Sandbox, server: Server) -> None:
    project(sandbox, server.url, "{name: one, file: one.csv, singular: true}")
    os.utime(put(server, "one.csv"), (1_700_000_000, 1_700_000_000))
    caller = sandbox.with_env(**AUTHENTICATIONS["user_pass"])
    [row] = json.loads(caller.ok("artifacts", "--json"))
    assert row["modified"] == "2023-11-14T22:13:20+00:00"


def test_all_is_checked_before_the_first_byte_moves(ada: Sandbox, server: Server) -> None:
    second = "{name: second, file: second.csv}"
    project(ada, server.url, MODEL, second, "{name: absent, file: absent.csv}")
    ada.write("second.csv", b"1,2")
    result = ada.run("push", "ALL")
    assert (result.code, result.out) == (1, "model_v1.4.0.pkl\nsecond_v1.4.0.csv\n")
    assert "transferred: model, second; failed: absent" in result.err
    methods = [(r.method, r.path.rpartition("/")[2]) for r in server.requests]
    first_put = next(i for i, (method, _) in enumerate(methods) if method == "PUT")
    assert {("HEAD", "model_v1.4.0.pkl"), ("HEAD", "second_v1.4.0.csv")} <= set(methods[:first_put])
    server.forget()
    result = ada.run("pull", "ALL", "1.4.0")
    assert (result.code, len(result.errors)) == (1, 1)
    paths = [(r.method, r.path.rpartition("/")[2]) for r in server.requests]
    assert paths.index(("HEAD", "absent_v1.4.0.csv")) < paths.index(("GET", "model_v1.4.0.pkl"))


def test_the_call_for_jobs_and_notebooks(ada: Sandbox, server: Server) -> None:
    put(server, "model_v1.3.0.pkl", b"of the server")
    script = "from skelebot import artifacts; print(artifacts.read('model'))"
    with ada.popen(sys.executable, "-c", script, stdout=subprocess.PIPE) as child:
        assert child.communicate(timeout=60)[0] == b"b'of the server'\n"


# --- what is not there, and who may not ---

COMMANDS = [("push", "model"), ("pull", "model", "1.4.0"), ("pull", "model", "LATEST")]


def test_a_missing_artifact_never_succeeds(ada: Sandbox, server: Server) -> None:
    for words in (("1.4.0",), ("LATEST",), ("1.4.0", "-o")):
        failed(ada.run("pull", "model", *words), "model")
        put(server, "model_v1.4.0.h5")
    assert ada.read("models/m.pkl") == "a model"
    assert part_of(ada) is None


@pytest.mark.parametrize(
    "words", [("push", "model"), ("pull", "model", "1.4.0"), ("pull", "model", "LATEST")]
)
def test_a_missing_repository(ada: Sandbox, server: Server, words: tuple[str, ...]) -> None:
    (server.folder / REPO).rename(server.folder / "another")
    failed(ada.run(*words), f"there is no repository {REPO}")
    failed(ada.run("artifacts"), f"there is no repository {REPO}")


@pytest.mark.parametrize(
    "words", [("push", "model"), ("pull", "model", "1.4.0"), ("pull", "model", "LATEST")]
)
@pytest.mark.parametrize(
    ("kind", "token"), [("user_pass", "wrong-password"), ("token", EXPIRED), ("api_key", "wrong-password")]
)
def test_wrong_credentials(
    sandbox: Sandbox, server: Server, words: tuple[str, ...], kind: str, token: str
) -> None:
    put(server, "model_v1.4.0.pkl")
    project(sandbox, server.url, auth=f"{{authType: {kind}}}")
    sandbox.write("models/m.pkl", b"mine")
    caller = sandbox.with_env(SKELEBOT_ARTIFACTORY_USER=USER, SKELEBOT_ARTIFACTORY_TOKEN=token)
    failed(caller.run(*words), "does not accept these credentials")
    assert sandbox.read("models/m.pkl") == "mine"
    assert part_of(sandbox) is None


def test_someone_who_may_only_read(ada: Sandbox, server: Server) -> None:
    put(server, "model_v1.3.0.pkl")
    reader = ada.with_env(SKELEBOT_ARTIFACTORY_USER=READER)
    failed(reader.run("push", "model"), "does not allow this")
    reader.ok("pull", "model", "LATEST")


def test_no_network(ada: Sandbox) -> None:
    project(ada, "http://127.0.0.1:9")
    failed(ada.run("push", "model"), "; check the network and `url`")
    failed(ada.run("pull", "model", "LATEST"), "cannot be reached")


def test_a_conflict_is_told_with_the_servers_reason(ada: Sandbox, server: Server) -> None:
    place(server, "model_v1.4.0.pkl").mkdir(parents=True)
    failed(ada.run("push", "model"), "A folder is in the way")


@pytest.mark.parametrize("page", [b"<html>log in", b"[1]", b'{"files": 3}', b'{"files": [{"uri": "/a"}]}'])
def test_what_is_not_artifactory_gives_no_model(ada: Sandbox, server: Server, page: bytes) -> None:
    server.faults.page = page
    for words in (("1.4.0", "-o"), ("LATEST", "-o")):
        failed(ada.run("pull", "model", *words), "does not answer as Artifactory does")
    failed(ada.run("artifacts"), "does not answer as Artifactory does")
    assert ada.read("models/m.pkl") == "a model"


def test_a_length_that_is_none(ada: Sandbox, server: Server) -> None:
    put(server, "model_v1.4.0.pkl")
    server.faults.length = "long"
    failed(ada.run("pull", "model", "1.4.0"), "does not answer as Artifactory does")
    failed(ada.run("push", "model"), "does not answer as Artifactory does")


def test_memory_is_bounded(ada: Sandbox, server: Server) -> None:
    os.truncate(ada.root / "models/m.pkl", 200 << 20)
    for words in (("push", "model"), ("pull", "model", "LATEST")):
        assert peak_memory(ada, *words) < 100, words


def test_plain_lines_tell_how_far_a_long_transfer_has_come(ada: Sandbox, server: Server) -> None:
    put_large(server, 8 << 20)
    server.faults.hold_after = 2 << 20
    child = ada.start("pull", "model", "LATEST", stderr=subprocess.PIPE)
    assert server.held.wait(60)
    time.sleep(10.5)
    server.release.set()
    _, err = child.communicate(timeout=60)
    first, second = err.decode().splitlines()
    assert first == "INFO  | pulling model_v1.4.0.pkl (8.4 MB)"
    assert re.fullmatch(r"INFO  \| pulling model_v1\.4\.0\.pkl: \d+ %", second)


# --- a server and a network that fail ---


@pytest.mark.parametrize("code", [500, 502, 503, 429])
def test_what_passes_is_tried_again(ada: Sandbox, server: Server, code: int) -> None:
    server.faults.failing, server.faults.code = 2, code
    ada.ok("push", "model")
    server.faults.failing = 2
    ada.ok("pull", "model", "LATEST")
    server.faults.failing = 1
    ada.ok("artifacts")
    assert ada.read("model_v1.4.0.pkl") == "a model"


@pytest.mark.parametrize(("header", "seconds"), [("2", 2), ("soon", 0), ("-5", 0)])
def test_a_server_says_when_to_ask_again(ada: Sandbox, server: Server, header: str, seconds: float) -> None:
    put(server, "model_v1.4.0.pkl")
    server.faults.failing, server.faults.code, server.faults.retry_after = 1, 429, header
    ada.ok("pull", "model", "1.4.0")
    refused, repeated, *_ = server.requests
    assert repeated.path == refused.path
    assert seconds <= repeated.when - refused.when < seconds + 2


def test_a_server_that_asks_for_too_long_a_wait(ada: Sandbox, server: Server) -> None:
    server.faults.failing, server.faults.code, server.faults.retry_after = 1000, 429, "3600"
    failed(ada.run("pull", "model", "1.4.0"), "answered 429")
    assert len(server.requests) == 1


def test_what_does_not_pass_is_told(ada: Sandbox, server: Server) -> None:
    put(server, "model_v1.4.0.pkl")
    server.faults.failing = 1000
    failed(ada.run("push", "model", "-f"), "503: the server is not itself")
    failed(ada.run("pull", "model", "1.4.0", "-o"), "503")
    assert ada.read("models/m.pkl") == "a model"


@pytest.mark.parametrize("every", [2, 3, 5])
def test_a_server_that_drops_connections(ada: Sandbox, server: Server, every: int) -> None:
    project(ada, server.url, MODEL, "{name: second, file: second.csv}")
    files = {"models/m.pkl": os.urandom(5 << 20), "second.csv": os.urandom(1 << 20)}
    for name, content in files.items():
        ada.write(name, content)
    server.faults.drop_every = every
    ada.ok("push", "ALL")
    for name in files:
        ada.write(name, b"")
    ada.ok("pull", "ALL", "LATEST", "-o")
    assert {name: (ada.root / name).read_bytes() for name in files} == files


def test_a_deploy_whose_answer_is_lost_is_not_sent_again(ada: Sandbox, server: Server) -> None:
    """As where a proxy has less patience than the server needs to store a large file."""
    size = 17 << 20
    ada.write("models/m.pkl", os.urandom(size))
    server.faults.lost = 1
    [done] = json.loads(ada.ok("push", "model", "--json"))
    assert (done["sent"], server.received) == (size, size)
    assert place(server, "model_v1.4.0.pkl").read_bytes() == (ada.root / "models/m.pkl").read_bytes()
    ada.write("models/m.pkl", b"a small one")
    server.faults.lost = 1
    ada.ok("push", "model", "-f")
    assert place(server, "model_v1.4.0.pkl").read_bytes() == b"a small one"


def test_a_download_that_is_cut_goes_on_where_it_was(ada: Sandbox, server: Server) -> None:
    size = put_large(server, 8 << 20).stat().st_size
    server.faults.cuts = [3_000_000, 2_500_000]
    [done] = json.loads(ada.ok("pull", "model", "LATEST", "-o", "--json"))
    ranges = [r.headers.get("Range", "") for r in server.asked("GET") if "/api/" not in r.path]
    assert [given.partition("=")[0] for given in ranges] == ["", "bytes", "bytes"]
    assert done["sent"] == size
    assert server.sent < size + (2 << 20)  # of each piece that was cut off, less than 1 MiB
    assert (ada.root / "models/m.pkl").read_bytes() == place(server, "model_v1.4.0.pkl").read_bytes()


def test_connections_that_each_bring_little(ada: Sandbox, server: Server) -> None:
    content = os.urandom(15_000)
    put(server, "model_v1.4.0.pkl", content)
    server.faults.cuts = [5_000] * 20
    ada.ok("pull", "model", "LATEST", "-o")
    assert (ada.root / "models/m.pkl").read_bytes() == content


def test_a_server_without_ranges(ada: Sandbox, server: Server) -> None:
    put_large(server, 4 << 20)
    server.faults.cuts, server.faults.no_ranges = [3_000_000], True
    ada.ok("pull", "model", "LATEST", "-o")
    assert (ada.root / "models/m.pkl").read_bytes() == place(server, "model_v1.4.0.pkl").read_bytes()


def test_a_proxy_that_packs(ada: Sandbox, server: Server) -> None:
    put_large(server, 2 << 20)
    server.faults.gzips = True
    ada.ok("pull", "model", "LATEST", "-o")
    assert (ada.root / "models/m.pkl").stat().st_size == 2 << 20


def test_a_damaged_byte_is_found(ada: Sandbox, server: Server) -> None:
    put_large(server, 3 << 20)
    server.faults.corrupt = True
    for words in (("-o",), ()):
        failed(ada.run("pull", "model", "LATEST", *words), "damaged")
    assert ada.read("models/m.pkl") == "a model"
    assert not (ada.root / "model_v1.4.0.pkl").exists()
    assert list((ada.root / ".skelebot/parts").iterdir()) == []
    server.faults.corrupt = False
    ada.ok("pull", "model", "LATEST", "-o")


def test_a_killed_pull_goes_on_where_it_was(ada: Sandbox, server: Server) -> None:
    """Killed at random points of 200 MB, and then again to the end."""
    size = put_large(server, 200 << 20).stat().st_size
    seed = random.randrange(1 << 32)
    points = random.Random(seed)
    have, killed = 0, 0
    while have < size - (60 << 20):
        server.held.clear()
        server.release.clear()
        server.faults.hold_after = points.randrange(1 << 20, 50 << 20)
        expected = have + server.faults.hold_after
        child = ada.start("pull", "model", "LATEST", "-o", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert server.held.wait(60), seed
        wait_for(lambda at=expected: _size(part_of(ada)) >= at - (1 << 20))  # type: ignore[misc]
        child.kill()
        child.communicate(timeout=60)
        server.release.set()
        assert server.asked("GET")[-1].headers.get("Range") == (f"bytes={have}-" if have else None)
        have, killed = _size(part_of(ada)), killed + 1
        assert ada.read("models/m.pkl") == "a model"
    sent_before = server.sent
    [done] = json.loads(ada.ok("pull", "model", "LATEST", "-o", "--json"))
    assert (done["sent"], server.sent - sent_before) == (size - have, size - have), seed
    # Of each call that was killed, what had left the server and not reached the file may come twice.
    assert server.sent <= size + killed * (16 << 20), seed
    assert (ada.root / "models/m.pkl").read_bytes() == place(server, "model_v1.4.0.pkl").read_bytes()
    assert list((ada.root / ".skelebot/parts").iterdir()) == []


def _size(path: Path | None) -> int:
    return path.stat().st_size if path else 0


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_pull_leaves_the_old_file(ada: Sandbox, server: Server, signum: int) -> None:
    project(ada, server.url, MODEL, "{name: second, file: second.csv}")
    put_large(server, 8 << 20)
    put(server, "second_v1.4.0.csv")
    server.faults.hold_after = 2 << 20
    child = ada.start("pull", "ALL", "LATEST", "-o", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert server.held.wait(60)
    child.send_signal(signum)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (128 + signum, b""), err
    assert ada.read("models/m.pkl") == "a model"
    assert not (ada.root / "second.csv").exists()
    server.release.set()
    ada.ok("pull", "ALL", "LATEST", "-o")
    assert (ada.root / "models/m.pkl").stat().st_size == 8 << 20


def test_what_was_replaced_meanwhile_is_pulled_anew(ada: Sandbox, server: Server) -> None:
    path = put_large(server, 4 << 20)
    server.faults.hold_after = 2 << 20
    child = ada.start("pull", "model", "LATEST", "-o", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert server.held.wait(60)
    wait_for(lambda: _size(part_of(ada)) > 0)
    child.kill()
    child.communicate()
    server.release.set()
    path.write_bytes(b"n" * (4 << 20))
    server.sums.clear()
    ada.ok("pull", "model", "LATEST", "-o")
    assert (ada.root / "models/m.pkl").read_bytes() == b"n" * (4 << 20)


def test_an_interrupted_push_stores_nothing(ada: Sandbox, server: Server) -> None:
    with open(ada.root / "models/m.pkl", "wb") as file:
        file.truncate(512 << 20)
    child = ada.start("push", "model", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: server.received > 0)
    child.kill()
    child.communicate()
    assert not place(server, "model_v1.4.0.pkl").exists()
    ada.write("models/m.pkl", b"a model")
    ada.ok("push", "model")


def test_a_full_disk_during_a_pull(sandbox: Sandbox, server: Server) -> None:
    words = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=755", "none", str(sandbox.root)]
    if os.getuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        project(sandbox, server.url)
        sandbox.write("models/m.pkl", b"mine")
        caller = sandbox.with_env(**AUTHENTICATIONS["user_pass"])
        size = put_large(server, 20 << 20).stat().st_size
        failed(caller.run("pull", "model", "LATEST", "-o"), "no space left")
        assert sandbox.read("models/m.pkl") == "mine"
        subprocess.run(["mount", "-o", "remount,size=64m", str(sandbox.root)], check=True)
        [done] = json.loads(caller.ok("pull", "model", "LATEST", "-o", "--json"))
        assert 0 < done["sent"] < size
        assert (sandbox.root / "models/m.pkl").stat().st_size == size
    finally:
        subprocess.run(["umount", "-l", str(sandbox.root)], check=True)


# --- where credentials come from ---


def test_options_come_before_the_environment(ada: Sandbox, server: Server) -> None:
    wrong = ada.with_env(SKELEBOT_ARTIFACTORY_USER="nobody", SKELEBOT_ARTIFACTORY_TOKEN="wrong-password")
    failed(wrong.run("push", "model"), "credentials")
    for words in (("-u", USER, "-t", PASSWORD), (f"--user={USER}", f"--token={PASSWORD}")):
        wrong.ok("push", "model", "-f", *words)
        wrong.ok("pull", "model", "LATEST", *words)
        wrong.ok("artifacts", *words)
    failed(ada.run("push", "model", "-f", "-u", "nobody"), "credentials")


@pytest.mark.parametrize(
    ("auth", "options"),
    [("{authType: token}", "t"), ("{authType: api_key}", "t"), ("{aws: true}", ""), ("{}", "ut")],
)
def test_which_options_there_are(sandbox: Sandbox, auth: str, options: str) -> None:
    project(sandbox, "art.example.org", auth=auth)
    for command in ("push", "pull", "artifacts"):
        page = sandbox.ok(command, "-h")
        assert [o for o in "ut" if f"-{o}, " in page] == sorted(options, key="ut".index)
    for option in set("ut") - set(options):
        failed(sandbox.run("push", "model", f"-{option}", "x"), f"-{option}", code=2)


@pytest.mark.parametrize("given", [{}, {"SKELEBOT_ARTIFACTORY_USER": USER}])
def test_without_a_terminal_nobody_is_asked(sandbox: Sandbox, server: Server, given: dict[str, str]) -> None:
    project(sandbox, server.url)
    sandbox.write("models/m.pkl", b"mine")
    variable = "SKELEBOT_ARTIFACTORY_TOKEN" if given else "SKELEBOT_ARTIFACTORY_USER"
    for words in (("push", "model"), ("pull", "model", "LATEST"), ("artifacts",)):
        failed(sandbox.with_env(**given).run(*words, stdin=b"ada\nlovelace\n"), variable)
    assert server.requests == []


def _asked(screen: Terminal, question: str) -> None:
    """The question is there, and the terminal does not show what is typed."""
    screen.expect(f"{question}: ")
    assert not termios.tcgetattr(screen.fd)[3] & termios.ECHO  # from the very moment at which it asks


def test_a_prompt_that_does_not_show_what_is_typed(sandbox: Sandbox, server: Server) -> None:
    project(sandbox, server.url, MODEL, "{name: second, file: second.csv}")
    sandbox.write("models/m.pkl", b"mine")
    sandbox.write("second.csv", b"1,2")
    screen = Terminal(sandbox, f"{SKELEBOT} -V push ALL; echo status $?")
    screen.expect("Artifactory user: ")
    screen.send(f"{USER}\r".encode())
    _asked(screen, "Artifactory password")
    screen.send(f"{PASSWORD}\r".encode())
    screen.expect("status 0")
    assert screen.output.count(b"Artifactory password") == 1
    assert USER.encode() in screen.output  # the terminal shows the one and not the other
    assert PASSWORD.encode() not in screen.output
    screen.close()
    assert place(server, "second_v1.4.0.csv").read_bytes() == b"1,2"


@pytest.mark.parametrize(("kind", "label"), [("token", "token"), ("apikey", "API key")])
def test_a_prompt_for_a_token(sandbox: Sandbox, server: Server, kind: str, label: str) -> None:
    project(sandbox, server.url, auth=f"{{authType: {kind}}}")
    sandbox.write("models/m.pkl", b"mine")
    secret = AUTHENTICATIONS[kind]["SKELEBOT_ARTIFACTORY_TOKEN"]
    screen = Terminal(sandbox, f"{SKELEBOT} push model; echo status $?")
    _asked(screen, f"Artifactory {label}")
    screen.send(f"{secret}\r".encode())
    screen.expect("status 0")
    assert secret.encode() not in screen.output
    screen.close()


@pytest.mark.parametrize("typed", [b"\x04", b"\r"])
def test_a_prompt_that_gets_no_answer(sandbox: Sandbox, server: Server, typed: bytes) -> None:
    project(sandbox, server.url, auth="{authType: token}")
    sandbox.write("models/m.pkl", b"mine")
    screen = Terminal(sandbox, f"{SKELEBOT} push model; echo status $?")
    _asked(screen, "Artifactory token")
    screen.send(typed)
    screen.expect("status 1")
    assert b"no Artifactory token was given" in screen.output
    assert b"Traceback" not in screen.output
    screen.close()
    assert server.requests == []


def test_ctrl_c_at_a_prompt(sandbox: Sandbox, server: Server) -> None:
    project(sandbox, server.url, auth="{authType: token}")
    sandbox.write("models/m.pkl", b"mine")
    screen = Terminal(sandbox, f"trap : INT; {SKELEBOT} push model; echo status $?; stty -a")
    _asked(screen, "Artifactory token")
    screen.send(b"\x03")
    screen.expect("status 130")
    screen.expect(" echo ")  # the terminal shows what is typed again
    screen.close()


@pytest.mark.parametrize("kind", ["user_pass", "token", "api_key"])
@pytest.mark.parametrize("token", ["secret-ü€", " secret-1", "secret-2\n", "secret-\x1b[31m"])
def test_credentials_that_fit_in_no_request(sandbox: Sandbox, server: Server, kind: str, token: str) -> None:
    project(sandbox, server.url, auth=f"{{authType: {kind}}}")
    sandbox.write("models/m.pkl", b"mine")
    caller = sandbox.with_env(SKELEBOT_ARTIFACTORY_USER=USER, SKELEBOT_ARTIFACTORY_TOKEN=token)
    is_sent = kind == "user_pass" and token.isprintable()  # packed into another alphabet
    result = caller.run("push", "model")
    failed(result, "does not accept" if is_sent else "enter them again")
    assert "secret" not in result.err
    assert is_sent == bool(server.requests)


# --- AWS Secrets Manager ---


@pytest.fixture(scope="module")
def aws() -> Iterator[dict[str, str]]:
    """The environment of someone who talks to an AWS Secrets Manager on this machine."""
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    _, port = running.get_host_and_port()
    yield {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }
    running.stop()


def _secret(aws: dict[str, str], value: str, region: str = "us-east-1") -> str:
    """Keeps a secret and gives its name."""
    name = f"artifactory-{uuid.uuid4().hex}"
    client: Any = boto3.client(
        "secretsmanager",
        region_name=region,
        endpoint_url=aws["AWS_ENDPOINT_URL"],
        aws_access_key_id="AKIATEST",
        aws_secret_access_key="test",
    )
    client.create_secret(Name=name, SecretString=value)
    return name


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("user_pass", "token"),
        ("user_pass", "password"),
        ("token", "token"),
        ("api_key", "apikey"),
        ("apikey", "api_key"),
    ],
)
def test_credentials_of_aws(
    sandbox: Sandbox, server: Server, aws: dict[str, str], field: str, kind: str
) -> None:
    token = AUTHENTICATIONS[kind]["SKELEBOT_ARTIFACTORY_TOKEN"]
    name = _secret(aws, json.dumps({"user": USER, field: token}), "eu-west-1")
    auth = f"{{authType: {kind}, aws: true, awsSecret: {name}, awsRegion: eu-west-1}}"
    project(sandbox, server.url, auth=auth)
    sandbox.write("models/m.pkl", b"mine")
    # What would come first otherwise does not count.
    caller = sandbox.with_env(**aws, SKELEBOT_ARTIFACTORY_TOKEN="wrong-password")
    result = caller.run("-V", "push", "model")
    assert (result.code, result.out) == (0, "model_v1.4.0.pkl\n"), result
    assert token not in result.err


def test_the_profile_and_the_secret_that_are_meant_by_default(
    sandbox: Sandbox, server: Server, aws: dict[str, str]
) -> None:
    client: Any = boto3.client(
        "secretsmanager",
        region_name="us-east-1",
        endpoint_url=aws["AWS_ENDPOINT_URL"],
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    client.create_secret(Name="Artifactory", SecretString=json.dumps({"user": USER, "token": PASSWORD}))
    sandbox.write("models/m.pkl", b"mine")
    project(sandbox, server.url, auth="{aws: true}")
    sandbox.with_env(**aws).ok("push", "model")
    project(sandbox, server.url, auth="{aws: true, awsProfile: company}")
    bare = sandbox.with_env(**aws).without_env("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE")
    failed(bare.run("push", "model", "-f"), "company")
    sandbox.write("../home/.aws/credentials", "[company]\naws_access_key_id = A\naws_secret_access_key = B\n")
    bare.ok("push", "model", "-f")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "cannot be read"),
        ("no json", "has no `token`"),
        ("[]", "has no `token`"),
        ('{"user": "ada"}', "has no `token`"),
        ('{"user": "ada", "token": ""}', "has no `token`"),
        ('{"token": "lovelace-1815"}', "has no `user`"),
    ],
)
def test_a_secret_that_is_none(
    sandbox: Sandbox, server: Server, aws: dict[str, str], value: str | None, said: str
) -> None:
    name = _secret(aws, value) if value else "absent"
    project(sandbox, server.url, auth=f"{{aws: true, awsSecret: {name}}}")
    sandbox.write("models/m.pkl", b"mine")
    failed(sandbox.with_env(**aws).run("push", "model"), said)
    assert server.requests == []


def test_aws_out_of_reach(sandbox: Sandbox, server: Server, aws: dict[str, str]) -> None:
    project(sandbox, server.url, auth="{aws: true}")
    sandbox.write("models/m.pkl", b"mine")
    away = sandbox.with_env(**aws, AWS_MAX_ATTEMPTS="1").with_env(AWS_ENDPOINT_URL="http://127.0.0.1:9")
    failed(away.run("push", "model"), "cannot be read")
    nobody = sandbox.with_env(**aws).without_env("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE")
    failed(nobody.run("push", "model"), "; check the login to AWS")


# --- where credentials do not go ---


def test_credentials_are_never_shown(ada: Sandbox, server: Server) -> None:
    put(server, "model_v1.3.0.pkl")
    token = ["-u", USER, "-t", PASSWORD]
    for words in (
        ["-V", "push", "model", *token],
        ["-V", "push", "model", *token],  # which is refused
        ["-V", "pull", "model", "LATEST", *token],
        ["-V", "pull", "model", "7.7.7", *token],
        ["-V", "artifacts", "--json", *token],
        ["-V", "--dry-run", "push", "model", *token],
        ["-V", "--dry-run", "pull", "model", "LATEST", *token],
        ["-V", "push", *token],
        ["-V", "push", "model", "-t"],
        ["-V", "push", "model", "-u", "nobody", "-t", "wrong-password"],
    ):
        result = ada.run(*words)
        assert not any(secret in result.out + result.err for secret in SECRETS), result
    server.faults.failing = 1000
    result = ada.run("-V", "push", "model", "-f", *token)
    assert result.code == 1
    assert PASSWORD not in result.err
    for path in ada.root.rglob("*"):
        assert path.is_dir() or PASSWORD.encode() not in path.read_bytes()


def test_credentials_are_in_no_list_of_processes(ada: Sandbox, server: Server) -> None:
    project(ada, server.url, auth="{authType: token}")
    put_large(server, 4 << 20)
    server.faults.hold_after = 1 << 20
    caller = ada.with_env(SKELEBOT_ARTIFACTORY_TOKEN=TOKEN)  # which no other test gives as an option
    child = caller.start("-V", "pull", "model", "LATEST", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert server.held.wait(60)
    listed = subprocess.run(["ps", "axww", "-o", "pid,args"], capture_output=True, text=True, check=True)
    assert str(child.pid) in listed.stdout
    assert TOKEN not in listed.stdout
    server.release.set()
    _, err = child.communicate(timeout=60)
    assert (child.returncode, TOKEN.encode() in err) == (0, False)


def test_plain_http_is_for_this_machine(ada: Sandbox, server: Server) -> None:
    away = ada.with_env(NO_PROXY="0.0.0.0")
    project(ada, f"http://0.0.0.0:{server.port}")
    failed(away.run("push", "model"), "insecure")
    failed(away.run("pull", "model", "LATEST"), "insecure")
    assert server.requests == []
    project(ada, f"http://0.0.0.0:{server.port}", more=", insecure: true")
    away.ok("push", "model")
    project(ada, f"http://localhost:{server.port}")
    away.ok("pull", "model", "LATEST")


def test_without_a_scheme_it_is_https(ada: Sandbox, server: Server) -> None:
    project(ada, f"127.0.0.1:{server.port}")
    failed(ada.run("push", "model"), "cannot be reached")
    assert server.requests == []


def test_credentials_do_not_follow_to_another_host(ada: Sandbox, server: Server, tmp_path: Path) -> None:
    path = put_large(server, 3 << 20)
    with serving(tmp_path) as other:
        other.faults.anonymous = True
        (tmp_path / REPO / "team/models").mkdir(parents=True)
        (tmp_path / REPO / "team/models" / path.name).write_bytes(path.read_bytes())
        server.faults.redirect = f"http://localhost:{other.port}"
        other.faults.cuts = [1_000_000]
        ada.write("../home/.netrc", f"machine localhost login {USER} password {PASSWORD}\n", 0o600)
        ada.ok("pull", "model", "LATEST", "-o")
        assert len(other.requests) == 2
        for request in other.requests:
            assert not {"Authorization", "X-JFrog-Art-Api", "Cookie"} & request.headers.keys()
    assert (ada.root / "models/m.pkl").read_bytes() == path.read_bytes()


def test_a_redirect_to_nowhere(ada: Sandbox, server: Server) -> None:
    put(server, "model_v1.4.0.pkl")
    server.faults.redirect = "http://["
    failed(ada.run("pull", "model", "LATEST"), "redirects to an invalid address")


def test_credentials_do_not_follow_from_https_to_http(ada: Sandbox, tmp_path: Path) -> None:
    """The same host and port, which speaks both."""
    key, certificate = str(tmp_path / "key"), str(tmp_path / "certificate")
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-addext"]
    names = ["subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate]
    subprocess.run([*words, *names], check=True, capture_output=True)
    both = tmp_path / "both"
    both.write_bytes(Path(certificate).read_bytes() + Path(key).read_bytes())
    with serving(tmp_path / "files", certificate=str(both)) as server:
        put(server, "model_v1.4.0.pkl", b"of the server")
        server.faults.redirect = f"http://localhost:{server.port}"
        server.faults.anonymous = True
        project(ada, f"https://localhost:{server.port}")
        ada.with_env(REQUESTS_CA_BUNDLE=certificate).ok("pull", "model", "LATEST", "-o")
        assert ada.read("models/m.pkl") == "of the server"
        plain = [request for request in server.requests if not request.private]
        assert len(plain) == 1
        assert "Authorization" not in plain[0].headers
        assert all("Authorization" in request.headers for request in server.requests if request.private)
        failed(ada.run("pull", "model", "LATEST"), "cannot be reached")  # nobody vouches for it


def test_no_proxy_sees_what_goes_to_this_machine(ada: Sandbox, server: Server, tmp_path: Path) -> None:
    with serving(tmp_path) as proxy:
        behind = ada.without_env("no_proxy", "NO_PROXY").with_env(http_proxy=proxy.url, HTTP_PROXY=proxy.url)
        behind.ok("push", "model")
        behind.ok("pull", "model", "LATEST")
        assert proxy.requests == []


def test_a_socks_proxy(ada: Sandbox, server: Server) -> None:
    project(ada, "http://art.example.org", more=", insecure: true")
    with socks_proxy(server.port) as proxy:
        address = f"socks5h://127.0.0.1:{proxy.port}"
        behind = ada.without_env("no_proxy", "NO_PROXY").with_env(all_proxy=address, ALL_PROXY=address)
        behind.ok("push", "model")
        behind.ok("pull", "model", "LATEST")
        assert set(proxy.asked) == {"art.example.org"}


@pytest.mark.parametrize(
    ("proxy", "has_socks", "message"),
    [
        ("socks5://127.0.0.1:9", False, "its SOCKS proxy needs PySocks; run `pip install PySocks`"),
        (
            "socks5://127.0.0.1:9",
            True,
            "; check the proxy; socks5h://HOST:PORT is one that also looks up names",
        ),
        ("socks://127.0.0.1:9", True, "its SOCKS proxy names no known version; check the proxy; socks5h://"),
        ("socks://127.0.0.1:9", False, "its SOCKS proxy needs PySocks; run `pip install PySocks`"),
        ("http://", True, "cannot be reached: "),
    ],
)
def test_a_proxy_that_cannot_be_used(ada: Sandbox, proxy: str, has_socks: bool, message: str) -> None:
    project(ada, "http://art.example.org", more=", insecure: true")
    behind = ada.without_env("no_proxy", "NO_PROXY").with_env(http_proxy=proxy, HTTP_PROXY=proxy)
    if not has_socks:
        ada.write("../without/socks.py", "raise ImportError\n")
        path = f"{(ada.root.parent / 'without').resolve()}{os.pathsep}{ada.env.get('PYTHONPATH', '')}"
        behind = behind.with_env(PYTHONPATH=path)
    result = behind.run("pull", "model", "1.4.0")
    failed(result, message)
    assert "redirects" not in result.err


def test_doctor_about_a_store_that_cannot_be_written(ada: Sandbox) -> None:
    assert "can be used" in ada.run("doctor").out
    result = ada.with_env(SKELEBOT_ARTIFACTORY_USER=READER).run("doctor")
    assert "can be read, but not written: " in result.out
    assert result.code == 1


def test_no_other_credentials_are_used(ada: Sandbox, server: Server) -> None:
    ada.write("../home/.netrc", "machine 127.0.0.1 login somebody password else\n", 0o600)
    ada.ok("push", "model")
    assert len({request.headers["Authorization"] for request in server.requests}) == 1
