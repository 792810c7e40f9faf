"""`queue`: what was recorded is what runs, and nothing secret is recorded."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from harness import SKELEBOT, Sandbox, Terminal, job, project, queueing, run_folder, runs_of, wait_for

SECRET = "correct-horse-battery"


def drain(sandbox: Sandbox, code: int = 0) -> str:
    """Work the queue off; return what the worker reported."""
    done = sandbox.run("worker", "--drain")
    assert done.code == code, done
    return done.err


def git(sandbox: Sandbox, *words: str) -> str:
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    child = sandbox.popen("git", *identity, *words, stdout=subprocess.PIPE)
    out, _ = child.communicate()
    assert child.returncode == 0
    return str(out.decode().strip())


# --- freezing ---


@pytest.fixture(params=["outside git", "clean", "dirty", "untracked"])
def checkout(request: pytest.FixtureRequest, sandbox: Sandbox) -> tuple[Sandbox, bool | None]:
    """A project, and whether it differs from a commit."""
    own = queueing(sandbox, job("cat src/text; stat -c %A src/run.sh; readlink src/link; ls src"))
    own.write("src/text", b"first\r\n")
    own.write("src/run.sh", "echo", 0o755)
    (own.root / "src" / "link").symlink_to("text")
    if request.param == "outside git":
        return own, None
    own.write(".gitattributes", "* text eol=lf\n")
    git(own, "init", "-q")
    git(own, "add", ".")
    git(own, "commit", "-qm", "first")
    if request.param == "dirty":
        own.write("src/text", b"second\r\n")
    elif request.param == "untracked":
        own.write("src/new", "n")
    return own, request.param != "clean"


def test_what_was_recorded_is_what_runs(checkout: tuple[Sandbox, bool | None]) -> None:
    sandbox, is_dirty = checkout
    before = sandbox.run("run")
    assert sandbox.ok("queue", "run") == "1\n"
    sandbox.write("src/text", "edited")
    sandbox.write("src/run.sh", "edited", 0o644)
    sandbox.write("src/added", "")
    (sandbox.root / "src" / "link").unlink()
    project(sandbox, "demo", job("exit 9", native="always"))
    drain(sandbox)
    assert sandbox.ok("runs", "logs", "1") == before.out
    shown = runs_of(sandbox)[1]
    assert shown["dirty"] is is_dirty
    assert shown["commit"] == (None if is_dirty is None else git(sandbox, "rev-parse", "HEAD"))
    assert shown["state"] == "done"


def test_checkout_may_go_before_the_start(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("cat text"))
    own.write("text", "kept")
    own.ok("queue", "run")
    for path in own.root.iterdir():
        path.unlink() if path.is_file() else subprocess.run(["rm", "-r", path], check=True)
    os.rmdir(own.root)
    top = own.root.parent
    assert own.run("worker", "--drain", "--all", cwd=top).code == 0
    assert own.ok("runs", "logs", "1", cwd=top) == "kept"


def test_repository_is_left_as_it_was(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("true"))
    git(own, "init", "-q")
    git(own, "add", ".")
    git(own, "commit", "-qm", "first")

    def state() -> dict[str, bytes]:
        files = (path for path in (own.root / ".git").rglob("*") if path.is_file())
        return {str(path): path.read_bytes() for path in files}

    before = state()
    own.ok("queue", "run")
    assert state() == before
    assert git(own, "status", "--porcelain") == ""


def test_password_of_the_remote_is_not_recorded(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("true"))
    git(own, "init", "-q")
    git(own, "remote", "add", "origin", f"https://ada:{SECRET}@example.org/x.git")
    git(own, "add", ".")
    git(own, "commit", "-qm", "first")
    own.ok("queue", "run")
    text = Path(run_folder(own, 1), "run.json").read_text()
    assert "https://example.org/x.git" in text
    assert SECRET not in text


def test_values_of_the_run_are_those_of_the_moment(sandbox: Sandbox) -> None:
    """A variable that the YAML names a value for is frozen; one without comes from whoever runs it."""
    own = queueing(sandbox, job('echo "$A $B $1"', args="[{name: id}]"), environment="{A: one, B: null}")
    own.with_env(B="queued").ok("queue", "run", "x y")
    project(own, "demo", job("true", native="always"), environment="{A: two}")
    assert own.with_env(B="worker").run("worker", "--drain").code == 0
    assert own.ok("runs", "logs", "1") == "one worker x y\n"
    assert runs_of(own)[1]["params"] == {"run": {"id": "x y"}}


# --- whose folders ---


def test_outputs_are_the_runs_own_and_shared_by_its_tasks(sandbox: Sandbox) -> None:
    own = queueing(
        sandbox,
        job("ls out; echo $2 >out/x", "make", outputs="[out/]", params="[{name: id, default: z}]"),
        job("cat out/x", "read", needs="[make]", mappings="[out/:ro]"),
    )
    own.write("out/from-before", "")
    for value in ("a", "b"):
        own.ok("queue", *f"make --id {value} + read".split())
    drain(own)
    assert [own.ok("runs", "logs", number) for number in ("1", "2")] == ["a\n", "b\n"]
    assert os.listdir(own.root / "out") == ["from-before"]


def test_mappings(sandbox: Sandbox) -> None:
    """Read-only ones are the project's, also beside it; `:rw` is shared on purpose."""
    own = queueing(
        sandbox,
        job(
            "cat data/x ../beside/y; echo $SKELEBOT_ATTEMPT >>cache/z",
            mappings='["data/:ro", "../beside/:ro", "cache/:rw"]',
        ),
    )
    own.write("data/x", "data ")
    own.write("../beside/y", "beside")
    own.write("cache/z", "")
    own.ok("queue", "run")
    own.ok("queue", "run")
    drain(own)
    assert own.ok("runs", "logs", "2") == "data beside"
    assert own.read("cache/z") == "1\n1\n"


def test_other_writable_mappings_are_refused_with_what_to_write(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("true", "a", mappings="[models/]"), job("true", "b", mappings="[x/, y/]"))
    for folder in ("models", "x", "y"):
        own.write(f"{folder}/.keep", "")
    done = own.run("queue", *["a", "+", "b"])
    assert done.code == 2
    assert len(done.errors) == 3
    assert "mappings[0]: several runs would write to models/; add it to the outputs of a" in done.errors[0]
    assert "or write models/:rw if they may share it" in done.errors[0]
    assert "skelebot.yaml:4:" in done.errors[0]
    assert runs_of(own) == {}


def test_store_inside_the_project_is_refused(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("true")).with_env(SKELEBOT_STORE=str(sandbox.root / "store"))
    done = own.run("queue", "run")
    assert done.code == 2
    assert "is inside the project; set SKELEBOT_STORE" in done.err


# --- all or nothing ---


@pytest.mark.parametrize(
    ("chain", "errors"),
    [
        ("run + nothing", ["unknown command 'nothing'"]),
        ("run + gone", ["there is no file gone.sh"]),
        ("gone + run + lost", ["there is no file gone.sh", "there is no file lost.sh"]),
        ("run + picky 1 + picky 2", ["picky: its validation ended with exit code 1"] * 2),
        ("run + clean", ["queue runs jobs alone; leave out clean"]),
        ("run + back", ["queue waits for each job, and back has mode: d"]),
    ],
)
def test_mistakes(sandbox: Sandbox, chain: str, errors: list[str]) -> None:
    """All at once, whichever links they are of, and nothing is queued."""
    own = queueing(
        sandbox,
        job(f"echo ran >>{sandbox.root.parent}/ran"),
        job("gone.sh", "gone"),
        job("lost.sh", "lost"),
        job("true", "picky", args="[{name: id}]", validate="check.sh"),
        job("true", "back", mode="d"),
    )
    own.write("check.sh", '#!/bin/sh\necho "$1 is not allowed"; exit 1\n', 0o755)
    done = own.run("queue", *chain.split())
    assert done.code == 2
    assert len(done.errors) == len(errors), done.err
    for found, expected in zip(done.errors, errors, strict=True):
        assert expected in found
    assert runs_of(own) == {}
    assert not (own.root.parent / "ran").exists()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--now", "--wait", "run"], "--now and --wait do not go together"),
        (["--now", "--after", "1", "run"], "--now and --after do not go together"),
        (["--after", "x", "run"], "--after: expected numbers of runs, such as 41,42; found 'x'"),
        (["--after", "7", "run"], "there is no run 7"),
        (["--after", "9" * 30, "run"], "there is no run"),
        (["--after", "9" * 5000, "run"], "--after: expected numbers of runs"),
        (["--after", "", "run"], "--after: expected numbers of runs, such as 41,42; found ''"),
        (["--priority", "9" * 30, "run"], "--priority: expected a whole number from -1000000 to 1000000"),
        (["--priority", "high", "run"], "--priority"),
        (["--wrong", "run"], "--wrong"),
        ([], "a job is missing"),
    ],
)
def test_wrong_use(sandbox: Sandbox, words: list[str], error: str) -> None:
    own = queueing(sandbox, job("true"))
    done = own.run("queue", *words)
    assert done.code == 2
    assert error in done.err
    assert runs_of(own) == {}


def test_needs_of_a_job_are_queued_with_it(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("echo 1 >a/x", "make", outputs="[a/]"), job("cat a/x", "use", needs="[make]"))
    own.ok("queue", "use")
    own.ok("make")  # that it is up to date in the checkout is nothing to the run
    own.ok("queue", "use")
    own.ok("--no-needs", "queue", "make")
    drain(own)
    shown = runs_of(own)
    assert [[task["job"] for task in shown[n]["tasks"]] for n in (1, 2, 3)] == [["make", "use"]] * 2 + [
        ["make"]
    ]
    assert {each["state"] for each in shown.values()} == {"done"}
    assert shown[1]["chain"] == "use"


# --- secrets ---


def grep(folder: Path, text: str) -> list[Path]:
    """The files that hold a text. What git holds is compressed, but is made of the project's files alone."""
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_secrets_come_from_whoever_runs_it(sandbox: Sandbox) -> None:
    params = "[{name: token, secret: true, default: $TOKEN}]"
    own = queueing(
        sandbox,
        job(
            'test "$2" = "$EXPECTED" && test "$FILED" = "$EXPECTED" && test "$KEY" = "$EXPECTED"',
            params=params,
            envFile="job.env",
        ),
        environment="{EXPECTED: null, KEY: null}",
    )
    own.write(".skelebotignore", "")
    own.write("job.env", f"FILED={SECRET}\n")
    queueing_user = own.with_env(TOKEN=SECRET, EXPECTED="x", KEY=SECRET)
    queueing_user.ok("queue", "run")
    store = Path(own.env["SKELEBOT_STORE"])
    assert grep(store, SECRET) == []
    changed = "another-value"
    own.write("job.env", f"FILED={changed}\n")  # it is read when the run starts
    done = own.with_env(TOKEN=changed, EXPECTED=changed, KEY=changed).run("worker", "--drain")
    assert done.code == 0, own.run("runs", "logs", "1")
    assert grep(store, changed) == []
    assert runs_of(own)[1]["params"] == {"run": {"token": "***"}}
    assert "variable   KEY, from the worker's environment" in own.ok("runs", "show", "1")


def test_missing_secret_fails_the_run_with_that_reason(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("true", params="[{name: token, secret: true, default: $TOKEN}]"))
    own.with_env(TOKEN=SECRET).ok("queue", "run")
    drain(own, code=1)
    shown = runs_of(own)[1]
    assert (shown["state"], shown["tasks"][0]["code"]) == ("failed", 1)
    assert shown["reason"] == "run failed: TOKEN is not set in the environment; set it"
    assert own.ok("runs", "logs", "1") == "ERROR | TOKEN is not set in the environment; set it\n"


def test_what_is_not_set_is_not_recorded_and_reported(sandbox: Sandbox) -> None:
    params = "[{name: token, secret: true, default: $TOKEN}, {name: rate, default: $RATE}]"
    own = queueing(sandbox, job("echo $# $KEY", params=params), environment="{KEY: null}")
    done = own.run("queue", "run")
    assert done.err == "WARN  | TOKEN is not set here, so run runs without it, whatever the worker has\n"
    own.with_env(TOKEN=SECRET, KEY="k").ok("worker", "--drain")
    assert own.ok("runs", "logs", "1") == "0 k\n"  # the environment of a native job is the worker's
    assert own.with_env(TOKEN=SECRET).run("queue", "run").err == ""


@pytest.mark.parametrize("typed", [SECRET, "$TOKEN"])
def test_secret_in_a_queued_line_is_refused(sandbox: Sandbox, typed: str) -> None:
    own = queueing(sandbox, job("true", params="[{name: token, secret: true, default: $TOKEN}]"))
    own = own.with_env(TOKEN=SECRET)
    done = own.run("queue", "run", "--token", typed)
    assert done.code == 2
    assert "--token is a secret, and secrets are not stored" in done.err
    assert SECRET not in done.err
    assert runs_of(own) == {}
    assert grep(Path(own.env["SKELEBOT_STORE"]), SECRET) == []


# --- in front ---


def test_now(sandbox: Sandbox) -> None:
    """Its streams and its exit code are the job's; it is recorded like any other."""
    own = queueing(sandbox, job('cat; echo "out $1"; echo err >&2; exit $1', args="[{name: code}]"))
    done = own.run("queue", "--now", "--name", "seven", "run", "7", stdin=b"in\n")
    assert (done.code, done.out) == (7, "in\nout 7\n")
    assert done.err.splitlines() == ["INFO  | run 1", "err"]
    shown = runs_of(own)[1]
    assert (shown["state"], shown["name"], shown["tasks"][0]["code"]) == ("failed", "seven", 7)
    assert sorted(own.ok("runs", "logs", "1").splitlines()) == ["err", "in", "out 7"]
    assert own.run("queue", "--now", "run", "0").code == 0


def test_now_logs_what_skelebot_itself_reports(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("true", outputs="[out/]"))
    done = own.run("queue", "--now", "run")
    assert done.code == 1
    assert done.errors == ["ERROR | run: it ended with 0 but left nothing in out/"]
    assert own.ok("runs", "logs", "1").splitlines() == done.errors


def test_an_output_that_cannot_be_read_fails_the_run(sandbox: Sandbox) -> None:
    """It does not keep the run running, which no worker could end."""
    own = queueing(sandbox, job("ln -s m.bin out/m.bin", outputs="[out/m.bin]"))
    own.ok("queue", "run")
    assert "run 1: failed" in drain(own, code=1)
    assert own.ok("runs", "logs", "1").startswith("ERROR | run: out/m.bin cannot be read: ")
    assert runs_of(own)[1]["state"] == "failed"


def test_now_interrupted_is_stopped(sandbox: Sandbox) -> None:
    """It does not go into the queue, where a worker would go on with it."""
    own = queueing(sandbox, job("trap 'echo cleaned; exit 5' INT; echo ready; while :; do sleep 0.1; done"))
    terminal = Terminal(own, f"{SKELEBOT} queue --now run")
    terminal.expect("ready")
    terminal.send(b"\x03")
    terminal.expect("cleaned")
    terminal.expect("run 1 was interrupted")
    assert terminal.close() == 130
    assert runs_of(own)[1]["state"] == "stopped"


@pytest.mark.parametrize("words", ["queue --now run", "run"])
def test_a_job_whose_reader_is_gone_is_ended_as_without_a_record(sandbox: Sandbox, words: str) -> None:
    own = queueing(sandbox, job("yes"), components="{experiments: {record: true}}")
    with own.start(*words.split(), stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stdout.readline() == b"y\n"
        child.stdout.close()
        assert child.wait(60) == 141
    shown = runs_of(own)[1]
    assert (shown["state"], shown["tasks"][0]["code"]) == ("failed", 141)


def test_now_ended_by_sigterm_has_the_code_of_a_run_without_a_queue(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("echo ready; while :; do sleep 0.1; done"))
    with own.start("queue", "--now", "run", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        assert running.stdout
        assert running.stdout.readline() == b"ready\n"
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 143
    run = runs_of(own)[1]
    assert (run["state"], run["tasks"][0]["code"]) == ("stopped", 143)


def test_now_ends_its_leftovers_and_nothing_else(sandbox: Sandbox) -> None:
    """What the terminal's session has besides is the user's."""
    own = queueing(sandbox, job(f"sleep 300 & echo $! >{sandbox.root.parent}/left"))
    command = f"sleep 299 & {SKELEBOT} queue --now run; kill -0 %1 && echo lives; kill %1"
    terminal = Terminal(own, command)
    terminal.expect("lives")
    terminal.close()
    left = int(own.read("../left"))
    assert not Path(f"/proc/{left}").exists() or "Z" in Path(f"/proc/{left}/stat").read_text()


def test_wait(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("echo a; exit $1", args="[{name: code}]", retries="1"))
    waiting = own.start("queue", "--wait", "run", "4", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: runs_of(own))
    drain(own, code=1)
    out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, out) == (4, b"a\na\n")
    assert err == b"INFO  | run 1 waits for a worker\n"


def test_wait_says_why_a_run_never_began(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("exit $1", args="[{name: code}]"))
    own.ok("queue", "run", "4")
    waiting = own.start("queue", "--wait", "--after", "1", "run", "0", stderr=subprocess.PIPE)
    wait_for(lambda: len(runs_of(own)) == 2)
    drain(own, code=1)
    _, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 130
    assert err.endswith(b"ERROR | run 2 is stopped: run 1, which it comes after, is failed\n")


def test_wait_interrupted_leaves_the_run_alone(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("true"))
    waiting = own.start("queue", "--wait", "run", stderr=subprocess.PIPE)
    wait_for(lambda: runs_of(own))
    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 130
    assert b"run 1 goes on; `skelebot runs logs -f 1` shows it" in err
    assert runs_of(own)[1]["state"] == "queued"


# --- what is said of a run ---


def test_words_to_find_it_by(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("true"))
    words = (
        "--name",
        "deep\nline",
        "--tag",
        "a",
        "--tag=b",
        "--tag",
        "a",
        "--note",
        "why\tnot",
        "--priority",
        "-3",
    )
    assert own.ok("queue", *words, "run") == "1\n"
    shown = runs_of(own)[1]
    assert {n: shown[n] for n in ("name", "tags", "note", "priority")} == {
        "name": "deep\nline",
        "tags": ["a", "b"],
        "note": "why\tnot",
        "priority": -3,
    }
    own.ok("runs", "tag", "1", "c", "a")
    own.ok("runs", "note", "1", "another")
    assert (runs_of(own)[1]["tags"], runs_of(own)[1]["note"]) == (["a", "b", "c"], "another")
    assert len(own.ok("runs").splitlines()) == 2
    assert json.loads(own.ok("runs", "--tag", "c", "--json"))[0]["run"] == 1
    assert json.loads(own.ok("runs", "--name", "deep", "--json")) == []
    assert "no such runs; `skelebot runs` lists the latest" in own.run("runs", "--name", "deep").err
    assert "--csv and --json do not go together" in own.run("runs", "--csv", "--json").err


def test_a_value_forges_no_line_of_what_is_shown(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("true", args="[{name: word}]"))
    own.ok("queue", "run", "a\nstate      done\x1b[31m")
    shown = own.ok("runs", "show", "1")
    assert "\nstate      done" not in shown
    assert "\x1b" not in shown


def test_dry_run_queues_nothing(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("true"))
    done = own.run("--dry-run", "queue", "run")
    assert done.code == 0
    assert "nothing was queued" in done.err
    assert runs_of(own) == {}


def test_rehearsal_goes_first(sandbox: Sandbox) -> None:
    own = queueing(
        sandbox,
        job("echo $1 >>$TRACE; exit $1", args="[{name: code}]", rehearse="{code: 0}"),
        environment="{TRACE: null}",
    )
    own = own.with_env(TRACE=str(own.root.parent / "trace"))
    assert own.ok("--rehearse", "queue", "run", "3") == "1\n"
    assert own.read("../trace") == "0\n"
    assert runs_of(own)[1]["params"] == {"run": {"code": "3"}}


def test_failed_rehearsal_queues_nothing(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("exit 3"))
    assert own.run("--rehearse", "queue", "run").code == 3
    assert runs_of(own) == {}


def test_after_can_be_repeated(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("true"))
    for words in ("run", "run", "run", "--after 1,2 --after 3 run"):
        own.ok("queue", *words.split())
    assert "\nafter      run 1, run 2, run 3\n" in own.ok("runs", "show", "4")


@pytest.mark.parametrize("name", ["queue", "worker", "runs"])
def test_a_job_of_that_name_hides_the_command(sandbox: Sandbox, name: str) -> None:
    own = queueing(sandbox, job("echo job", name))
    assert own.ok(name) == "job\n"
    assert not Path(own.env["SKELEBOT_STORE"]).exists()


def test_outside_a_project(sandbox: Sandbox) -> None:
    own = sandbox.with_env(SKELEBOT_STORE=str(sandbox.root.parent / "store"))
    assert own.run("queue", "run").code == 2
    assert own.run("worker").code == 2
    assert own.run("runs").code == 0


# --- completion ---


def complete(sandbox: Sandbox, line: str) -> list[str]:
    words = line.split(" ")
    asking = {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    out = sandbox.with_env(_SKELEBOT_COMPLETE="bash_complete", **asking).ok()
    return [each.partition(",")[2] for each in out.splitlines()]


def test_completion(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("true", "train", params="[{name: rate}]"))
    assert {"--name", "--tag", "--now", "--wait", "--after"} <= set(complete(own, "skelebot queue --"))
    assert complete(own, "skelebot queue tr") == ["train"]
    assert complete(own, "skelebot queue --now train --ra") == ["--rate"]
    assert {"show", "logs", "retry", "stop", "rebuild"} <= set(complete(own, "skelebot runs "))
    assert "--attempt" in complete(own, "skelebot runs logs --")
    assert {"--drain", "--detach"} <= set(complete(own, "skelebot worker --"))
