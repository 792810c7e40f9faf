"""Fixtures of all tests, and what happens to those that need what is not installed."""

import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path

import hypothesis
import pytest
import real_cluster
from harness import (
    BASE,
    BROWSER,
    CLIENTS,
    CLUSTER,
    ORDINARY,
    R_BASE,
    Sandbox,
    docker,
    has_buildkit,
    make_sandbox,
)
from page_server import Server, make_authority
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# A busy machine may take any time for an example.
hypothesis.settings.register_profile(
    "tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("tests")


def pytest_configure() -> None:
    """Keep the caller's plugins, cache and ignored signals (nohup, a background job) away from the tests."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for signum in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)
    os.environ["XDG_DATA_HOME"] = "/nonexistent"
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="skelebot-test-cache-")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Show a failure at once, as a run that is cut off gives no summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        crash = getattr(report.longrepr, "reprcrash", None)
        print(
            f"\nFAILED {report.nodeid}: {crash or report.longreprtext[-500:]}",
            file=sys.__stdout__,
            flush=True,
        )


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)


# The files whose tests take turns, because they share a server or would take each other's ports.
TAKE_TURNS = ("test_jupyter.py", "test_kerberos.py")


class TurnTaking(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Give each test to whichever process is free, but those of some files to one.

    That is `--dist loadgroup`, which forgets its groups: https://github.com/pytest-dev/pytest-xdist/issues/1386
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return path if path.endswith(TAKE_TURNS) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> TurnTaking:
    return TurnTaking(config, log)


# What the tests with a mark need, and the variable that names it.
NEEDED = {
    "engine": (BASE, "a Docker engine with a base image", "SKELEBOT_TEST_BASE"),
    "r": (R_BASE, "a base image with R", "SKELEBOT_TEST_R_BASE"),
    "browser": (BROWSER, "Chromium with its driver", "SKELEBOT_TEST_BROWSER"),
    "kubernetes": (CLUSTER, "a Kubernetes cluster", "SKELEBOT_TEST_KUBECONFIG"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that need what is not here; on CI they fail."""
    for mark, (found, what, variable) in NEEDED.items():
        skip = pytest.mark.skip(reason=f"needs {what} ({variable})")
        fail = pytest.mark.usefixtures("missing_need")
        for item in items:
            if not found and item.get_closest_marker(mark):
                item.add_marker(fail if os.environ.get("CI") == "true" else skip)
    items[:] = spread(items)


def spread(items: list[pytest.Item]) -> list[pytest.Item]:
    """Put the tests of a cluster, which mostly wait, evenly among the others, which need the CPUs."""
    of_cluster = [item for item in items if item.get_closest_marker("kubernetes")]
    others = [item for item in items if not item.get_closest_marker("kubernetes")]
    for number, item in enumerate(of_cluster):
        others.insert(number * len(items) // len(of_cluster), item)
    return others


@pytest.fixture
def missing_need() -> None:
    missing = [f"{what} ({variable})" for found, what, variable in NEEDED.values() if not found]
    pytest.fail(f"this test needs what is not here: {', '.join(missing)}")


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A project folder of the user who runs the tests."""
    yield from make_sandbox(os.getuid())


@pytest.fixture(params=["root", "ordinary"])
def anyone(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """The same as root and as an ordinary user; without root only as oneself."""
    if os.getuid() != 0 and request.param == "root":
        pytest.skip("only root can test as root")
    uid = ORDINARY if request.param == "ordinary" and os.getuid() == 0 else os.getuid()
    yield from make_sandbox(uid)


@pytest.fixture
def buildkit(sandbox: Sandbox) -> Sandbox:
    """A caller whose client has BuildKit."""
    for client in CLIENTS:
        if has_buildkit(client):
            return sandbox.with_env(SKELEBOT_DOCKER=client)
    pytest.skip("no Docker client here has BuildKit")


@pytest.fixture
def classic(sandbox: Sandbox) -> Sandbox:
    """A caller whose client has no BuildKit, or has it switched off."""
    for client in CLIENTS:
        if not has_buildkit(client):
            return sandbox.with_env(SKELEBOT_DOCKER=client)
    return sandbox.with_env(DOCKER_BUILDKIT="0")


@pytest.fixture(params=["classic", "buildkit"])
def builder(request: pytest.FixtureRequest) -> Sandbox:
    """With either builder."""
    sandbox: Sandbox = request.getfixturevalue(request.param)
    return sandbox


@pytest.fixture
def name() -> Iterator[str]:
    """A project name that no other test has; its containers and images go when the test is over."""
    unique = f"t-{uuid.uuid4().hex[:10]}"
    yield unique
    label = f"label=skelebot.project={unique}"
    for kind, remove in (("ps", ("rm", "-fv")), ("images", ("rmi", "-f"))):
        found = docker(kind, "-aq", "--filter", label, check=False).split()
        if found:
            docker(*remove, *found, check=False)


@pytest.fixture
def space(sandbox: Sandbox) -> Iterator[real_cluster.Namespace]:
    """A namespace of the test's own on a Kubernetes cluster, where it must leave nothing."""
    with real_cluster.turn(alone=False), real_cluster.namespace(sandbox) as own:
        yield own
        real_cluster.assert_nothing_left(own)


@pytest.fixture
def quiet_space(sandbox: Sandbox) -> Iterator[real_cluster.Namespace]:
    """The same while no other test uses the cluster."""
    with real_cluster.turn(alone=True), real_cluster.namespace(sandbox) as own:
        yield own
        real_cluster.assert_nothing_left(own)


@pytest.fixture
def gateway() -> str:
    """The address at which containers and builds reach this machine."""
    subnet = docker("network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Subnet}}")
    return str(
        next(ip_network(subnet).hosts())
    )  # an engine does not list the gateway of a bridge that was there


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start servers of pages: `serve(address, pages, password)`."""
    servers: list[Server] = []

    def start(address: str, pages: dict[str, bytes], password: str = "") -> Server:
        servers.append(Server(address, pages, password))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """The folder of a CA that nobody trusts yet."""
    return make_authority(tmp_path)
