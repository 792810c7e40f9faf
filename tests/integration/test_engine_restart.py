"""A queued run whose engine is restarted: one of the test's own, as nobody else may use it then."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Sandbox, docker, job, project, run_folder, runs_of, wait_for

from skelebot.files import remove_tree

pytestmark = pytest.mark.engine

_BRIDGE, _SUBNET = "skelebot-t7", "172.31.246.1/24"
# The first attempt is held, the second one ends.
HELD = "echo $SKELEBOT_ATTEMPT >>/trace/attempts; test $SKELEBOT_ATTEMPT = 2 || sleep 60; echo y >out/y"


class Engine:
    """A Docker engine of its own in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = f"unix://{folder}/docker.sock"
        self._daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        paths = {"data-root": "data", "exec-root": "exec", "pidfile": "pid", "config-file": "daemon.json"}
        options = [f"--{option}={self.folder / name}" for option, name in paths.items()]
        options += ["-H", self.host, f"--bridge={_BRIDGE}", "--iptables=false", "--ip-masq=false"]
        (self.folder / "daemon.json").write_text("{}")
        with open(self.folder / "log", "ab") as log:
            self._daemon = subprocess.Popen(("dockerd", *options), stdout=log, stderr=log)
        wait_for(lambda: docker("-H", self.host, "info", "-f", "{{.ID}}", check=False))

    def end(self) -> None:
        if not self._daemon:
            return
        self._daemon.terminate()
        self._daemon.wait(60)
        self._daemon = None
        (self.folder / "pid").unlink(missing_ok=True)


@pytest.fixture
def engine() -> Iterator[Engine]:
    if os.getuid() != 0:
        pytest.skip("only root can start an engine")
    folder = tempfile.mkdtemp(prefix="skelebot-test-")  # a short path, as the engine's sockets are below it
    own = Engine(Path(folder))
    subprocess.run(("ip", "link", "del", _BRIDGE), check=False)  # of a test that was killed
    subprocess.run(("ip", "link", "add", "name", _BRIDGE, "type", "bridge"), check=True)
    try:
        subprocess.run(("ip", "addr", "add", _SUBNET, "dev", _BRIDGE), check=True)
        own.start()
        image = os.environ["SKELEBOT_TEST_BASE"]
        with subprocess.Popen(("docker", "save", image), stdout=subprocess.PIPE) as saved:
            subprocess.run(("docker", "--host", own.host, "load", "-q"), stdin=saved.stdout, check=True)
        yield own
    finally:
        own.end()
        remove_tree(folder)
        subprocess.run(("ip", "link", "del", _BRIDGE), check=True)


@pytest.mark.slow
@pytest.mark.parametrize("is_attended", [True, False])
def test_a_restarted_engine_repeats_what_it_has_killed_once(
    sandbox: Sandbox, name: str, engine: Engine, is_attended: bool
) -> None:
    own = sandbox.with_env(DOCKER_HOST=engine.host, SKELEBOT_STORE=str(sandbox.root.parent / "store"))
    trace = sandbox.root.parent / "trace"
    trace.mkdir()
    project(own, name, job(HELD, mappings=f"['{trace}:/trace:rw']", outputs="[out/]"))
    own.ok("queue", "run")
    worker = own.start("worker", "--drain", stderr=subprocess.PIPE)
    wait_for((trace / "attempts").exists)
    if not is_attended:
        worker.kill()
        os.kill(int((run_folder(own, 1) / "supervisor").read_text().partition("-")[0]), signal.SIGKILL)
        worker.communicate()
    engine.end()
    engine.start()
    worker = worker if is_attended else own.start("worker", "--drain", stderr=subprocess.PIPE)
    _, err = worker.communicate(timeout=60)
    assert worker.returncode == 0, own.run("runs", "logs", "1")
    assert b"WARN  | run 1: run had been killed, so it was started once more\n" in err
    assert (trace / "attempts").read_text() == "1\n2\n"
    assert (run_folder(own, 1) / "outputs/out/y").read_text() == "y\n"
    task = runs_of(own)[1]["tasks"][0]
    assert (task["attempt"], task["code"]) == (2, 0)
