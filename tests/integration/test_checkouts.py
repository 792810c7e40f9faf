"""Two checkouts of one project on one engine: neither disturbs the other."""

import json
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from harness import Sandbox, containers, docker, job, make_sandbox, project, wait_for

pytestmark = pytest.mark.engine

JOBS = (
    job("cat who", "says"),
    job("cat who; echo; sleep 300", "waits", mode="d"),
    job("cat who", "ends", mode="d"),
)


def checkout(sandbox: Sandbox, name: str, who: str) -> Sandbox:
    sandbox.write("who", who)
    project(sandbox, name, *JOBS)
    return sandbox


@pytest.fixture
def two(sandbox: Sandbox, name: str) -> Iterator[tuple[Sandbox, Sandbox]]:
    for other in make_sandbox(sandbox.uid):
        yield checkout(sandbox, name, "mine"), checkout(other, name, "theirs")


def rows(sandbox: Sandbox, *words: str) -> list[dict[str, str]]:
    return list(json.loads(sandbox.ok("ps", "--json", *words)))


def test_each_lists_stops_and_cleans_its_own_runs(two: tuple[Sandbox, Sandbox], name: str) -> None:
    mine, theirs = two
    own, other = mine.ok("waits").strip(), theirs.ok("waits").strip()
    assert [row["container"] for row in rows(mine)] == [own]
    assert {row["checkout"] for row in rows(mine, "--all")} == {str(mine.root), str(theirs.root)}
    wait_for(lambda: mine.ok("logs", "waits") == "mine\n")
    assert mine.ok("stop") == f"{own}\n"
    assert rows(theirs)[0]["status"] == "running"
    theirs.ok("ends")
    assert json.loads(mine.ok("clean", "--json"))["containers"] == [own]
    wait_for(lambda: any(row["status"] == "exited" for row in rows(theirs)))
    assert theirs.ok("logs", "ends") == "theirs"
    assert mine.ok("stop", "--all") == f"{other}\n"
    assert len(json.loads(mine.ok("clean", "--all", "--json"))["containers"]) == 2
    assert containers(name) == []


def test_each_finds_its_own_image_though_the_other_has_the_name(
    two: tuple[Sandbox, Sandbox], name: str
) -> None:
    mine, theirs = two
    assert mine.ok("says") == "mine"
    own = docker("image", "inspect", "-f", "{{.Id}}", f"{name}:latest")
    assert theirs.ok("says") == "theirs"
    assert docker("image", "inspect", "-f", "{{.Id}}", f"{name}:latest") != own
    for words in (("says",), ("-s", "says")):
        result = mine.run(*words)
        assert (result.out, "Step" in result.err) == ("mine", False)
    assert theirs.ok("-s", "says") == "theirs"
    built = set(docker("images", "-q", "--no-trunc", "--filter", f"label=skelebot.project={name}").split())
    assert len(built) == 2


def test_the_same_files_need_no_second_build(two: tuple[Sandbox, Sandbox], name: str) -> None:
    mine, theirs = two
    mine.ok("says")
    theirs.write("who", "mine")
    result = theirs.run("says")
    assert (result.out, "Step" in result.err) == ("mine", False)
    assert theirs.ok("-s", "says") == "mine"
    built = set(docker("images", "-q", "--no-trunc", "--filter", f"label=skelebot.project={name}").split())
    assert len(built) == 1


def test_an_image_of_another_checkout_is_not_run_without_a_word(
    two: tuple[Sandbox, Sandbox], name: str
) -> None:
    mine, theirs = two
    theirs.ok("says")
    result = mine.run("-s", "says")
    assert (result.code, result.out) == (1, "")
    assert result.errors == [
        f"ERROR | {name}:latest was built in {theirs.root}; run once without -s to build it here"
    ]


def test_what_one_supersedes_the_others_builds_leave(two: tuple[Sandbox, Sandbox], name: str) -> None:
    mine, theirs = two
    mine.ok("says")
    for text in ("a", "b", "c"):
        theirs.write("who", text)
        assert theirs.ok("says") == text
    result = mine.run("says")
    assert (result.out, "Step" in result.err) == ("mine", False)
    built = set(docker("images", "-q", "--no-trunc", "--filter", f"label=skelebot.project={name}").split())
    assert len(built) == 2


def test_two_that_start_at_once_disturb_each_other_in_nothing(
    two: tuple[Sandbox, Sandbox], name: str
) -> None:
    for sandbox in two:
        sandbox.ok("says")
    started = [sandbox.start("waits", stdout=subprocess.PIPE) for sandbox in (*two, *two)]
    names = [child.communicate(timeout=120)[0].decode().strip() for child in started]
    assert [child.returncode for child in started] == [0, 0, 0, 0]
    assert len(set(names)) == 4
    assert set(containers(name)) == set(names)


def test_clean_leaves_what_another_checkout_is_about_to_start(
    two: tuple[Sandbox, Sandbox], name: str
) -> None:
    mine, theirs = two
    script = '#!/bin/sh\ncase $1 in start) touch made; sleep 4 ;; esac\nexec docker "$@"\n'
    client = theirs.write("client", script, mode=0o755)
    project(theirs, name, job("echo $1", "tells", params="[{name: k, secret: true}]"))
    theirs.ok("tells", "-k", "x")
    child = theirs.with_env(SKELEBOT_DOCKER=str(client)).start("tells", "-k", "x", stdout=subprocess.PIPE)
    wait_for((theirs.root / "made").exists)
    assert json.loads(mine.ok("clean", "--all", "--json"))["containers"] == []
    assert child.communicate(timeout=60)[0] == b"-k\n"
    assert child.returncode == 0


def test_the_tag_of_a_deleted_checkout_goes_with_clean_all(two: tuple[Sandbox, Sandbox], name: str) -> None:
    mine, theirs = two
    for sandbox in two:
        sandbox.ok("says")
    tags = docker("images", name, "--format", "{{.Tag}}").split()
    shutil.rmtree(theirs.root)
    mine.ok("clean", "--all")
    left = docker("images", name, "--format", "{{.Tag}}").split()
    assert len(tags) - len(left) == 1
    assert mine.ok("-s", "says") == "mine"
