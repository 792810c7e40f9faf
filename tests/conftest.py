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


# The files whose tests take turns, because they share a server or a bridge, or would take each other's ports.
TAKE_TURNS = ("test_engine_restart.py", "test_jupyter.py", "test_kerberos.py")


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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests that need what is not here; on CI they fail."""
    for mark, (found, what, variable) in NEEDED.items():
        skip = pytest.mark.skip(reason=f"needs {what} ({variable})")
        fail = pytest.mark.usefixtures("missing_need")
        for item in items:
            if not found and item.get_closest_marker(mark):
                item.add_marker(fail if os.environ.get("CI") == "true" else skip)
    if os.environ.get("SKELEBOT_TEST_ALL") != "true":
        left_out = beyond_the_core(items)
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    items[:] = spread(items)


# The tests of a cluster that are always run, one of each kind; `tests/run.sh --all` runs all of them.
CORE_OF_CLUSTER = frozenset(
    (
        "test_a_claim_of_this_size_is_made_once_and_stays",
        "test_a_client_that_is_killed_loses_nothing",
        "test_a_detached_job_is_listed_followed_and_waited_for",
        "test_a_job_ends_its_proxy_so_that_its_pod_ends",
        "test_a_job_that_is_asked_to_end_cleans_up",
        "test_a_job_whose_pod_is_taken_away_has_failed_and_is_not_started_again",
        "test_a_quota_is_named_at_once",
        "test_a_secret_is_seen_by_the_job_alone",
        "test_every_version_knows_every_field",
        "test_every_version_knows_the_role",
        "test_files_go_there_and_come_back",
        "test_kubectl_takes_the_manifest_and_the_job_runs_by_itself",
        "test_out_of_memory_is_137_and_names_the_limit_and_the_key",
        "test_output_is_whole_though_the_api_server_ends_three_times",
        "test_records_of_two_senders_and_of_one_that_is_killed_stay_whole",
        "test_runs_go_on_side_by_side_in_threads",
        "test_signals_reach_the_job",
        "test_the_environment_and_a_secret",
        "test_the_exit_code_is_the_jobs_own",
        "test_the_streams_are_the_jobs",
        "test_values_arrive_as_they_were_typed",
        "test_what_is_deployed_is_listed_paused_resumed_and_removed",
    )
)


def beyond_the_core(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return what is not run each time: most tests of a cluster, and all but the first case of slow ones."""
    seen: set[str] = set()
    left_out = []
    for item in items:
        name, is_of_cluster = item.name.partition("[")[0], item.get_closest_marker("kubernetes")
        if not is_of_cluster and not item.get_closest_marker("slow"):
            continue
        if name in seen or (is_of_cluster and name not in CORE_OF_CLUSTER):
            left_out.append(item)
        seen.add(name)
    return left_out


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


@pytest.fixture(params=["buildkit", "classic"])
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
