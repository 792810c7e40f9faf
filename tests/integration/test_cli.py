"""The command line from the outside, where neither engine nor job is needed."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from harness import SKELEBOT, Sandbox, Terminal, job, project

import skelebot


def test_outside_of_a_project(sandbox: Sandbox) -> None:
    assert sandbox.ok("-v") == f"skelebot {skelebot.__version__}\n"
    assert "no skelebot.yaml in this folder or its parents" in sandbox.ok("-h")
    assert "schema" in sandbox.ok()
    assert json.loads(sandbox.ok("schema"))["else"]["required"] == ["name"]
    result = sandbox.run("train")
    assert (result.code, len(result.errors)) == (2, 1)
    assert "unknown command 'train': no skelebot.yaml" in result.errors[0]
    assert sandbox.run("-e", "dev", "-h").code == 2


def test_help_tells_what_the_project_can_do(sandbox: Sandbox) -> None:
    project(sandbox, "Iris", job("src/train.py", "train"), job("echo a\necho b", "two lines"),
            description='"What it is, 100%"')  # fmt: skip
    sandbox.write("VERSION", "1.2.3\n")
    sandbox.write("skelebot-dev.yaml", "maintainer: me\n")
    text = sandbox.ok("-e", "dev", "-h")
    for part in ("Iris · 1.2.3 · environment dev", "What it is, 100%", "train", "[src/train.py]", "two lines",
                 "[echo a ...]", f"Skelebot {skelebot.__version__}", "--docker-host"):  # fmt: skip
        assert part in text
    assert "\x1b" not in text


def test_help_of_a_job(sandbox: Sandbox) -> None:
    params = "[{name: env, alt: e, default: local, choices: [local, dev], help: where, 5 % of it}]"
    project(
        sandbox,
        "x",
        job("s.py", args="[{name: the date, help: which}]", params=params.replace(", 5 %", " 5 %")),
    )
    text = sandbox.ok("run", "-h")
    for part in ("usage: skelebot run [options] THE_DATE", "-e, --env ENV", "where 5 % of it",
                 "one of local, dev; default: local", "which"):  # fmt: skip
        assert part in text
    assert sandbox.ok("run", "x", "+", "run", "-h") == text


def test_contact(sandbox: Sandbox) -> None:
    project(sandbox, "x", job("true"), contact="me@here.org")
    assert sandbox.ok("-c") == "me@here.org\n"
    project(sandbox, "x", job("true"))
    assert sandbox.run("-c").code == 2


def test_dry_run_does_nothing(sandbox: Sandbox) -> None:
    project(sandbox, "x", job("touch made", mappings="[data/]", ports="['8080:80']"), job("true", "b"))
    dead = sandbox.with_env(SKELEBOT_DOCKER="/nowhere", DOCKER_HOST="unix:///nowhere")
    text = dead.ok("--dry-run", "run", "+", "b")
    for part in ("FROM ", "COPY ", "touch made", f"{sandbox.root}/data -> /app/data", "8080:80"):
        assert part in text
    assert "natively" in dead.ok("--dry-run", "-n", "run")
    assert os.listdir(sandbox.root) == ["skelebot.yaml"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nope"], "unknown command 'nope'"),
        (["rnu"], "did you mean `run`?"),
        (["run", "+"], "missing before or after a `+`"),
        (["+", "run"], "missing before or after a `+`"),
        (["run", "+", "+", "run"], "missing before or after a `+`"),
        (["run", "--nop"], "unknown option --nop"),
        (["--nativ", "run"], "unknown option --nativ; did you mean `--native`?"),
        (["run", "x"], "unexpected argument 'x'"),
        (["-e"], "-e expects a value"),
        (["-e", "prod", "run"], "unknown environment 'prod'"),
        (["-e", "../x", "run"], "unknown environment '../x'"),
        (["run", "+", "run", "--bad"], "unknown option --bad"),
        (["-n", "only"], "native: never"),
        (["-n"], "a command is missing"),
        (["gone"], "there is no file gone.py"),
        (["run", "+", "gone"], "there is no file gone.py"),
    ],
)
def test_wrong_usage_runs_nothing(sandbox: Sandbox, words: list[str], expected: str) -> None:
    project(sandbox, "x", job("touch made", native="always"), job("true", "only", native="never"),
            job("gone.py", "gone"))  # fmt: skip
    result = sandbox.run(*words)
    if words == ["-n"]:
        assert result.code == 0  # flags alone ask for help
        return
    assert (result.code, len(result.errors)) == (2, 1), result
    assert expected in result.errors[0]
    assert not (sandbox.root / "made").exists()


def test_flags_hold_for_the_chain_or_for_their_link(sandbox: Sandbox) -> None:
    project(sandbox, "x", job("echo base $E", environment="{E: 1}"))
    sandbox.write("skelebot-dev.yaml", "jobs:\n- {name: run, source: echo dev, help: h}\n")
    sandbox.write("skelebot-prod.yaml", "jobs:\n- {name: run, source: echo prod, help: h}\n")
    chain = ["-n", "-e", "dev", "run", "+", "-eprod", "run", "+", "run"]
    assert sandbox.ok(*chain) == "dev\nprod\ndev\n"
    assert sandbox.ok("-n", "--env=dev", "run") == "dev\n"
    assert sandbox.ok("-nedev", "run") == "dev\n"


def test_everything_after_two_dashes_belongs_to_the_link(sandbox: Sandbox) -> None:
    project(sandbox, "x", job('printf "%s|" "$@"', args="[{name: a}, {name: b}, {name: c}]"))
    assert sandbox.ok("-n", "run", "1", "--", "+", "--") == "1|+|--|"


def test_a_script_that_an_earlier_link_may_write(sandbox: Sandbox) -> None:
    project(
        sandbox, "x", job("echo 'echo made' > gen/x.sh", "write", mappings="[gen/]"), job("gen/x.sh", "use")
    )
    assert sandbox.ok("-n", "write", "+", "use") == "made\n"
    (sandbox.root / "gen/x.sh").unlink()
    result = sandbox.run("use", "+", "write")
    assert (result.code, result.out) == (2, "")


def test_a_flag_of_skelebot_can_be_a_jobs_param(sandbox: Sandbox) -> None:
    params = "[{name: env, alt: e}, {name: native, alt: n, accepts: boolean}, {name: docker-host, alt: d}]"
    project(sandbox, "x", job('printf "%s|" "$@"', params=params))
    out = sandbox.ok("-n", "run", "-e", "x", "-n", "-d", "y")
    assert out == "--env|x|--native|--docker-host|y|"


@pytest.mark.parametrize("words", [["-h"], ["schema"], ["--dry-run", "run"]])
def test_a_reader_that_goes_away_is_no_traceback(sandbox: Sandbox, words: list[str]) -> None:
    project(sandbox, "x", *(job("true", f"j{i}") for i in range(2000)), job("true"))
    with sandbox.popen("bash", "-c", f"{SKELEBOT} {' '.join(words)} | true; echo ${{PIPESTATUS[0]}}",
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:  # fmt: skip
        out, err = child.communicate(timeout=60)
    assert out.strip() in (b"0", b"141")
    assert err == b""


def test_a_full_disk_is_one_line(sandbox: Sandbox) -> None:
    with open("/dev/full", "w") as full:
        child = sandbox.start("-h", stdout=full, stderr=subprocess.PIPE)
        _, err = child.communicate(timeout=60)
    assert child.returncode == 1
    assert err.decode().splitlines() == ["ERROR | no space left on device"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty"),
        (b"\xff", "not UTF-8"),
        (b"name: [", "not YAML"),
        (b"a: &a [*a]", "alias contains itself"),
        (b"[" * 100000, "nested too deeply"),
        (b"name: x\nname: y", "already on line 1"),
    ],
)
def test_a_broken_file_is_never_a_traceback(sandbox: Sandbox, content: bytes, expected: str) -> None:
    sandbox.write("skelebot.yaml", content)
    for words in (["-h"], ["run"], []):
        result = sandbox.run(*words)
        assert result.code == 2
        assert expected in result.err
        assert all(line.startswith("ERROR | skelebot.yaml:") for line in result.err.splitlines())


def test_every_mistake_is_told_at_once(sandbox: Sandbox) -> None:
    sandbox.write(
        "skelebot.yaml", "nme: x\ngpu: maybe\njobs:\n- {name: a, source: b}\ncomponents: {nope: 1}\n"
    )
    result = sandbox.run("-h")
    assert result.code == 2
    assert [line.split(": ", 2)[:2] for line in result.errors] == [
        ["ERROR | skelebot.yaml:1:1", "nme"],
        ["ERROR | skelebot.yaml:1:1", "`name` is missing"],
        ["ERROR | skelebot.yaml:2:6", "gpu"],
        ["ERROR | skelebot.yaml:4:3", "jobs[0]"],
    ]


def test_a_skelebot_yaml_that_is_a_folder(sandbox: Sandbox) -> None:
    (sandbox.root / "skelebot.yaml").mkdir()
    result = sandbox.run("-h")
    assert (result.code, len(result.errors)) == (2, 1)


def test_a_folder_that_is_gone(sandbox: Sandbox) -> None:
    with sandbox.popen(
        "bash", "-c", f"mkdir x; cd x; rmdir ../x; {SKELEBOT} -h", stderr=subprocess.PIPE
    ) as child:
        _, err = child.communicate(timeout=60)
    assert child.returncode == 2
    assert b"ERROR | the current folder no longer exists" in err


def test_colour_only_on_a_terminal(sandbox: Sandbox) -> None:
    project(sandbox, "x", job("true"))
    screen = Terminal(sandbox, f"{SKELEBOT} nope; NO_COLOR=1 {SKELEBOT} nope; echo it-is-over")
    screen.expect("it-is-over")
    assert screen.output.count(b"\x1b[31mERROR") == 1
    assert screen.output.count(b"ERROR") == 2
    screen.close()


def test_hostile_words_cannot_forge_a_message(sandbox: Sandbox) -> None:
    project(sandbox, "x", job("true"))
    result = sandbox.run("no\nERROR | forged\x1b[31m")
    assert len(result.err.splitlines()) == 1
    assert "\x1b" not in result.err


def test_a_configuration_from_below(sandbox: Sandbox) -> None:
    project(sandbox, "Found", job("true"))
    below = Path(sandbox.root / "a/b")
    below.mkdir(parents=True)
    assert "Found" in sandbox.ok("-h", cwd=below)


def test_dry_run_of_a_chain_whose_link_makes_a_script(sandbox: Sandbox) -> None:
    project(sandbox, "x", job("true", "gen", mappings="[gen/]"), job("gen/x.sh", "use"))
    assert "gen/x.sh" in sandbox.ok("--dry-run", "gen", "+", "use")


@pytest.mark.parametrize(
    "source", ["for i in 1 2; do echo $i; done", "(echo hi)", "if true; then echo a; fi"]
)
def test_words_cannot_follow_a_compound_command(sandbox: Sandbox, source: str) -> None:
    project(sandbox, "x", job(source, params="[{name: x}]"), job(source, "plain"))
    result = sandbox.run("-n", "run")
    assert (result.code, len(result.errors)) == (2, 1)
    assert "compound command" in result.errors[0]
    assert sandbox.run("-n", "plain").code == 0


def test_words_follow_a_substitution(sandbox: Sandbox) -> None:
    project(sandbox, "x", job("echo $(echo a)", args="[{name: b}]"))
    assert sandbox.ok("-n", "run", "c") == "a c\n"


@pytest.mark.parametrize(("redirect", "code"), [(">&-", 1), ("2>&-", 0), ("</dev/null >&- 2>&-", 1)])
def test_closed_streams_are_no_traceback(sandbox: Sandbox, redirect: str, code: int) -> None:
    project(sandbox, "x", job("true"))
    with sandbox.popen("bash", "-c", f"{SKELEBOT} -h {redirect}", stderr=subprocess.PIPE) as child:
        _, err = child.communicate(timeout=60)
    assert child.returncode == code
    assert b"Traceback" not in err


def test_a_terminal_of_another_encoding(sandbox: Sandbox) -> None:
    project(sandbox, "x", job("true"), description="größer 日本")
    ascii_only = sandbox.with_env(PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert "gr\\xf6\\xdfer" in ascii_only.ok("-h")


def test_an_old_spelling_is_replaced_by_the_environments_new_one(sandbox: Sandbox) -> None:
    sandbox.write("skelebot.yaml", "name: x\nignore: [a]\n")
    sandbox.write("skelebot-dev.yaml", "ignores: [b]\n")
    assert sandbox.run("-e", "dev", "-h").errors == []


def test_a_timeout_beyond_all_measure(sandbox: Sandbox) -> None:
    project(sandbox, "x", job("true", timeout="999999999d"))
    assert sandbox.run("-h").code == 2
