"""Jobs on the engine of another machine: a second one behind a real sshd, with no view of our folders."""

import os
import shutil
from collections.abc import Iterator

import pytest
from harness import Sandbox, docker, job, project

pytestmark = pytest.mark.engine

HOST = os.environ.get("SKELEBOT_TEST_REMOTE", "")
SOCKET = os.environ.get("SKELEBOT_TEST_REMOTE_SOCKET", "")


@pytest.fixture
def far(sandbox: Sandbox, name: str) -> Iterator[Sandbox]:
    """A caller who reaches the other machine's engine by ssh; what its tests leave there goes."""
    if not HOST:
        reason = "no engine of another machine (SKELEBOT_TEST_REMOTE; see tests/remote_engine.sh)"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    config = sandbox.root.parent / "ssh_config"
    key = os.environ["SKELEBOT_TEST_REMOTE_KEY"]
    config.write_text(f"Host *\nIdentityFile {key}\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\n")
    # ssh looks for its settings in the home of the password file, whatever HOME says.
    ssh = sandbox.root.parent / "bin/ssh"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {config} "$@"\n')
    ssh.chmod(0o755)
    yield sandbox.with_env(PATH=f"{ssh.parent}:{sandbox.env['PATH']}")
    label = f"label=skelebot.project={name}"
    for kind, remove in (("ps -aq", "rm -fv"), ("images -aq", "rmi -f"), ("volume ls -q", "volume rm -f")):
        if found := there(*kind.split(), "--filter", label).split():
            there(*remove.split(), *dict.fromkeys(found))


def there(*words: str) -> str:
    """What the other machine's engine answers."""
    return docker("--host", SOCKET, *words, check=False)


def test_mapped_folders_go_there_and_back(far: Sandbox, name: str) -> None:
    far.write("data/in.txt", "one")
    far.write("data/deep/er.txt", "two")
    (far.root / "data/link").symlink_to("in.txt")
    far.write("ro/fixed.txt", "three")
    far.write(
        "work.sh",
        """\
        set -e
        cat data/in.txt data/deep/er.txt data/link ro/fixed.txt
        echo result >results/out.txt
        mkdir results/sub && echo more >results/sub/more.txt && ln -s more.txt results/sub/link
        echo changed >data/in.txt; rm data/deep/er.txt
        ! echo no >ro/no.txt
        """,
    )
    project(far, name, job("work.sh", mappings="['data/', 'results/', 'ro/:ro']"))
    result = far.run("-d", HOST, "run")
    assert (result.code, result.out) == (0, "onetwoonethree"), result
    assert far.read("results/out.txt") == "result\n"
    assert far.read("results/sub/link") == "more\n"
    assert far.read("data/in.txt") == "changed\n"
    assert far.read("data/deep/er.txt") == "two"  # nothing is deleted here
    assert os.listdir(far.root / "ro") == ["fixed.txt"]
    assert there("ps", "-aq", "--filter", f"label=skelebot.project={name}") == ""
