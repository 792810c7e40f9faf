"""Jobs whose values name files, whose source is a class, and which are validated before a chain runs."""

import json
import os
import signal
import subprocess

import pytest
from harness import Sandbox, job, project, wait_for

FILE = "[{name: data, type: file}]"
SHOW = "cat"


def refused(sandbox: Sandbox, *words: str, **options: object) -> str:
    """The only line that Skelebot writes about a chain of which nothing runs."""
    result = sandbox.run(*words, **options)  # type: ignore[arg-type]
    assert (result.code, result.out, len(result.errors)) == (2, "", 1), result
    return result.errors[0].removeprefix("ERROR | ")


# --- files, natively ---


def test_a_file_has_to_exist(sandbox: Sandbox) -> None:
    sandbox.write("data/a b.csv", "1\n")
    project(sandbox, "n", job("cat", args=FILE))
    assert sandbox.ok("-n", "run", "data/a b.csv") == "1\n"
    assert sandbox.ok("-n", "run", str(sandbox.root / "data/a b.csv")) == "1\n"
    root = sandbox.root.resolve()
    assert refused(sandbox, "-n", "run", "nope") == f"run: data: 'nope' does not exist in {root}"
    assert refused(sandbox, "-n", "run", "data") == "run: data: 'data' is a folder; name a file"


def test_a_path_counts_from_the_root(sandbox: Sandbox) -> None:
    sandbox.write("sub/x.csv", "1\n")
    project(sandbox, "n", job("cat", args=FILE))
    assert sandbox.ok("-n", "run", "sub/x.csv", cwd=sandbox.root / "sub") == "1\n"
    assert refused(sandbox, "-n", "run", "x.csv", cwd=sandbox.root / "sub") == (
        f"run: data: 'x.csv' does not exist in {sandbox.root.resolve()}; "
        "paths count from the project's root: write sub/x.csv"
    )


def test_defaults_and_lists_are_checked_and_secrets_kept(sandbox: Sandbox) -> None:
    sandbox.write("a", "1\n")
    params = (
        "[{name: conf, type: file, default: missing}, {name: many, type: file, accepts: list}, "
        "{name: key, type: file, secret: true, default: $KEY}]"
    )
    project(sandbox, "n", job("echo", params=params))
    assert refused(sandbox, "-n", "run").startswith("run: --conf: 'missing' does not exist in ")
    assert refused(sandbox, "-n", "run", "--conf", "a", "--many", "a", "b").startswith("run: --many: 'b' ")
    secret = refused(sandbox.with_env(KEY="geheim"), "-n", "run", "--conf", "a")
    assert secret == "run: --key: expected a file that exists where the job runs"
    assert sandbox.ok("-n", "run", "--conf", "a", "--many", "a") == "--conf a --many a\n"


def test_python_has_no_warnings_about_a_pattern_for_users(sandbox: Sandbox) -> None:
    project(sandbox, "n", job("echo '[1'", metrics="{loss: '[[]([0-9]+)'}"))
    result = sandbox.run("-n", "run")
    assert (result.code, result.out, result.err) == (0, "[1\n", "")


def test_the_folder_in_which_a_file_is_missing(sandbox: Sandbox) -> None:
    outside = sandbox.write("../outside/y.csv", "1\n").resolve().parent
    project(sandbox, "n", job("cat", args=FILE, mappings=json.dumps([f"{outside}:/srv:ro"])))
    assert refused(sandbox, "-n", "run", f"{outside}/no").endswith(f"/no' does not exist in {outside}")
    assert refused(sandbox, "run", "/srv/no") == f"run: data: '/srv/no' does not exist in {outside}"


def test_no_part_of_a_secret_path_is_shown(sandbox: Sandbox) -> None:
    (sandbox.root / "link").symlink_to("/etc/geheim/key")
    project(sandbox, "n", job("cat", params="[{name: key, type: file, secret: true}]"))
    for path in ("/etc/geheim/key", "geheim/../link", "geheim"):
        assert refused(sandbox, "run", "--key", path) == (
            "run: --key: expected a file that exists where the job runs"
        )


def test_a_file_that_an_earlier_job_may_write(sandbox: Sandbox) -> None:
    project(sandbox, "n", job("echo 1 > made", "make"), job("echo 2", "not"), job("cat", args=FILE))
    assert sandbox.ok("-n", "make", "+", "run", "made") == "1\n"
    os.remove(sandbox.root / "made")
    result = sandbox.run("-n", "not", "+", "run", "made")
    assert (result.code, result.out) == (2, "2\n")
    assert "run: data: 'made' does not exist" in result.errors[1]


# --- files, in Docker; nothing of it needs an engine, as nothing is built ---


def test_what_is_not_in_the_image(sandbox: Sandbox) -> None:
    sandbox.write("data/x.csv", "1\n")
    sandbox.write("secret.env", "A=1\n")
    outside = sandbox.write("../outside/y.csv", "1\n").resolve()
    (sandbox.root / "away").symlink_to("../outside/y.csv")
    (sandbox.root / "absolute").symlink_to(sandbox.root / "data/x.csv")
    (sandbox.root / "inside").symlink_to("data/x.csv")
    project(sandbox, "n", job("cat", args=FILE, envFile="secret.env"), ignores="['*.csv', '!data/*.csv']")
    sandbox.write("z.csv", "1\n")

    def why(text: str) -> str:
        return refused(sandbox, "--dry-run", "run", text).removeprefix(f"run: data: {text!r} ")

    assert why("nope") == f"does not exist in {sandbox.root.resolve()}"
    left_out = "is not in the image, as the ignores leave it out; add a mapping of its folder"
    assert why("z.csv") == why("secret.env") == left_out
    folder = outside.parent
    assert why(str(outside)) == f"is not in the image; add a mapping of its folder, such as {folder}:ro"
    assert why("away") == (
        "is a link to ../outside/y.csv, which is not in the image; "
        "add a mapping of its folder, such as /outside:ro"
    )
    assert why("absolute").startswith(f"is a link to {sandbox.root}/data/x.csv, which is not in the image; ")
    sandbox.ok("--dry-run", "run", "inside")
    sandbox.ok("--dry-run", "run", "data/x.csv")
    sandbox.ok("--dry-run", "run", "/app/data/x.csv")
    assert why(str(sandbox.root / "data/x.csv")).endswith(
        "; paths count from the project's root: write data/x.csv"
    )


def test_what_is_below_a_mapping(sandbox: Sandbox) -> None:
    sandbox.write("../shared/x.csv", "1\n")
    sandbox.write("data/y.csv", "1\n")
    (sandbox.root / "data/link").symlink_to("y.csv")
    (sandbox.root / "data/away").symlink_to("../../shared/x.csv")
    mappings = "['../shared:/srv/shared:ro', 'data/', '../shared:/app/inner']"
    project(sandbox, "n", job("cat", args=FILE, mappings=mappings), ignores="[data]")
    for text in (
        "/srv/shared/x.csv",
        "data/y.csv",
        "/app/data/y.csv",
        "data/link",
        "inner/x.csv",
        "./inner/../data/y.csv",
    ):
        sandbox.ok("--dry-run", "run", text)
    assert "'/srv/shared/nope' does not exist" in refused(sandbox, "--dry-run", "run", "/srv/shared/nope")
    assert "is a link to" in refused(sandbox, "--dry-run", "run", "data/away")


def test_a_mapping_of_a_file_and_one_of_the_whole_project(sandbox: Sandbox) -> None:
    sandbox.write("conf.yaml", "a: 1\n")
    sandbox.write("x.csv", "1\n")
    of_file = job("cat", "of-file", args=FILE, mappings="['conf.yaml:ro']")
    of_all = job("cat", "of-all", args=FILE, mappings="['./:/app']")
    project(sandbox, "n", of_file, of_all, ignores="['*.yaml', '*.csv']")
    sandbox.ok("--dry-run", "of-file", "conf.yaml")
    sandbox.ok("--dry-run", "of-all", "x.csv")
    assert "the ignores leave it out" in refused(sandbox, "--dry-run", "of-file", "x.csv")


def test_a_mapping_that_an_earlier_job_writes(sandbox: Sandbox) -> None:
    made = job("echo", "make", mappings="[out/]")
    other = job("echo", "other", mappings="['out/:ro']")
    project(sandbox, "n", made, other, job("cat", args=FILE, mappings="['out/:ro']"))
    (sandbox.root / "out").mkdir()
    sandbox.ok("--dry-run", "make", "+", "run", "out/x")
    assert "'out/x' does not exist" in refused(sandbox, "--dry-run", "other", "+", "run", "out/x")


def test_the_content_of_a_file_and_the_type_of_a_value_keep_nothing_up_to_date(sandbox: Sandbox) -> None:
    sandbox.write("data/x.csv", "1\n")
    sandbox.write("t.py", """\
        class T:
            def __init__(self, values): self.values = values
            def run(self): open("out/y", "w").write(repr(self.values))
        """)  # fmt: skip
    more = {"inputs": "[t.py]", "outputs": "[out/]"}
    one = "{name: data, type: file, default: data/x.csv}, {name: n, default: 1, type: %s}"

    def write(kind: str) -> None:
        project(sandbox, "n", job("t.py:T", params=f"[{one % kind}]", **more))

    write("int")
    sandbox.ok("-n", "run")
    assert "run is up to date" in sandbox.run("-n", "run").err
    sandbox.write("data/x.csv", "2\n")
    assert sandbox.ok("-n", "why", "run") == "files of values: changed\n"
    sandbox.ok("-n", "run")
    write("float")
    assert sandbox.ok("-n", "why", "run") == "source: changed\n"


def test_the_content_of_a_file_with_a_secret_name_keeps_nothing_up_to_date(sandbox: Sandbox) -> None:
    sandbox.write("geheim.key", "1\n")
    project(
        sandbox, "n",
        job('cat "$2" > out/y', inputs="[skelebot.yaml]", outputs="[out/]",
            params="[{name: key, type: file, secret: true}, {name: token, secret: true}]"),
    )  # fmt: skip
    sandbox.ok("-n", "run", "--key", "geheim.key")
    why = sandbox.ok("-n", "why", "run", "--key", "geheim.key", "--token", "x")
    assert why == "arguments: --key '***' --token '***'; before: --key '***'\n"
    assert "run is up to date" in sandbox.run("-n", "run", "--key", "geheim.key").err
    sandbox.write("geheim.key", "2\n")
    assert sandbox.ok("-n", "why", "run", "--key", "geheim.key") == "files of values: changed\n"
    for path in (sandbox.root / ".skelebot").rglob("*"):
        assert not path.is_file() or b"geheim" not in path.read_bytes()


def test_a_value_that_names_an_output_is_no_input(sandbox: Sandbox) -> None:
    params = "[{name: data, type: file}, {name: into, type: path, default: out/y}]"
    project(sandbox, "n", job('date +%N > "$4"', params=params, inputs="[in]", outputs="[out/]"))
    sandbox.write("in", "1\n")
    sandbox.ok("-n", "run", "--data", "in")
    assert sandbox.run("-n", "run", "--data", "in").err == "INFO  | run is up to date\n"


@pytest.mark.engine
def test_the_content_of_a_mapped_file_keeps_nothing_up_to_date(sandbox: Sandbox, name: str) -> None:
    file = sandbox.write("../outside/x.csv", "1\n").resolve()
    for target, shown in (("/srv", "/srv/x.csv"), ("~/srv", "/root/srv/x.csv")):
        mappings = json.dumps([f"{file.parent}:{target}:ro"])
        project(sandbox, name, job("cp $2 out/", params=FILE, outputs="[out/]", mappings=mappings))
        sandbox.ok("run", "--data", shown)
        if target == "/srv":
            assert "run is up to date" in sandbox.run("run", "--data", shown).err
        sandbox.write("../outside/x.csv", f"2 {target}\n")
        sandbox.ok("run", "--data", shown)
        assert sandbox.read("out/x.csv") == f"2 {target}\n"


def test_a_job_that_is_up_to_date_is_not_validated(sandbox: Sandbox) -> None:
    sandbox.write("in/a", "1\n")
    more = {"inputs": "[in/]", "outputs": "[out/]", "validate": "'echo validated'"}
    first = job("echo 1 > first/x", "first", inputs="[in/]", outputs="[first/]")
    project(sandbox, "n", first, job("echo 1 > out/x", needs="[first]", **more))
    assert sandbox.run("-n", "run").err.startswith("validated\n")
    assert "validated" not in sandbox.run("-n", "run").err
    sandbox.write("in/a", "2\n")
    assert "validated" in sandbox.run("-n", "run").err


# --- classes ---

TASKS = """\
import datetime
import multiprocessing
import pickle
import sys

import helper


class Train:
    def __init__(self, values):
        self.values = values

    def run(self):
        print(sorted(self.values.items()), __name__)
        if self.values["how"] == "raise":
            helper.fail()
        if self.values["how"] == "exit":
            sys.exit(7)
        if self.values["how"] == "spawn":
            assert pickle.loads(pickle.dumps(self)).values == self.values
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.map(Train.double, [self]))
        return 5

    def double(self):
        return self.values["n"] * 2


class Nothing:
    def __init__(self, values):
        pass


class Derived(helper.Base):
    pass


class Later:
    def __init__(self, values):
        pass

    async def run(self):
        pass
"""
HELPER = "class Base:\n    def __init__(self, values): ...\n\n\ndef fail():\n    raise ValueError('boom')\n"
VALUES = {
    "args": "[{name: day, type: date}]",
    "params": "[{name: n, type: int, default: 3}, {name: how}, {name: key, secret: true, default: $KEY}]",
}


def of_classes(sandbox: Sandbox, name: str) -> None:
    sandbox.write("src/tasks.py", TASKS)
    sandbox.write("src/helper.py", HELPER)
    jobs = [job(f"src/tasks.py:{each}", each.lower(), **VALUES) for each in ("Train", "Derived", "Later")]
    project(sandbox, name, *jobs)


def check_a_class(sandbox: Sandbox, *how: str) -> None:
    shown = "[('day', datetime.date(2024, 2, 29)), ('how', {}), ('key', {}), ('n', {})] tasks\n"
    assert sandbox.ok(*how, "train", "2024-02-29") == shown.format(None, None, 3)
    with_key = sandbox.with_env(KEY="$a\n'b'\\")
    result = with_key.run(*how, "-V", "train", "2024-02-29", "-n", "-4", "--how", "$(id)")
    assert (result.code, result.out) == (0, shown.format("'$(id)'", repr("$a\n'b'\\"), -4))
    assert "$a" not in result.err
    raised = sandbox.run(*how, "train", "2024-02-29", "--how", "raise")
    lines = raised.err[raised.err.index("Traceback") :].splitlines()
    assert raised.code == 1
    assert [line.split('"')[1].rpartition("/")[2] for line in lines if line.startswith("  File")] == [
        "tasks.py",
        "helper.py",
    ]
    assert lines[-1] == "ValueError: boom"
    assert sandbox.run(*how, "train", "2024-02-29", "--how", "exit").code == 7
    assert sandbox.ok(*how, "train", "2024-02-29", "--how", "spawn").splitlines()[1:] == ["[6]"]
    missing = sandbox.run(*how, "derived", "2024-02-29")
    assert (missing.code, missing.out) == (1, "")
    assert missing.errors == ["ERROR | the class Derived in src/tasks.py has no method run"]
    later = sandbox.run(*how, "later", "2024-02-29")
    assert (later.code, later.errors) == (
        1,
        ["ERROR | Later.run in src/tasks.py is async, so it did not run; call asyncio.run in it"],
    )
    assert "RuntimeWarning" not in later.err


def test_a_class_runs_natively(sandbox: Sandbox) -> None:
    of_classes(sandbox, "n")
    check_a_class(sandbox, "-n")


@pytest.mark.engine
def test_a_class_runs_in_docker(sandbox: Sandbox, name: str) -> None:
    of_classes(sandbox, name)
    check_a_class(sandbox)


def test_mistakes_that_are_known_before_a_class_runs(sandbox: Sandbox) -> None:
    sandbox.write("src/tasks.py", TASKS)
    sources = {"a": "src/tasks.py:Trian", "b": "src/tasks.py:Nothing", "c": "src/no.py:T"}
    project(sandbox, "n", *(job(source, name) for name, source in sources.items()))
    at = "skelebot.yaml:{}:3: jobs[{}].source:"
    assert refused(sandbox, "-n", "a") == (
        f"{at.format(4, 0)} src/tasks.py has no class Trian; did you mean `Train`?"
    )
    assert refused(sandbox, "-n", "b") == (
        f"{at.format(5, 1)} the class Nothing in src/tasks.py has no method run; add one"
    )
    assert f"{at.format(6, 2)} there is no file src/no.py in " in refused(sandbox, "c")


def test_a_class_in_a_package_and_one_with_the_name_of_another_module(sandbox: Sandbox) -> None:
    text = "class T:\n    def __init__(self, values): ...\n    def run(self): print(__name__, X)\n"
    sandbox.write("src/pkg/__init__.py", "")
    sandbox.write("src/pkg/sub/__init__.py", "X = 1\n")
    sandbox.write("src/pkg/sub/tasks.py", f"from . import X\n{text}")
    sandbox.write("src/json.py", f"X = 2\n{text}")
    sandbox.write("src/sys.py", text)
    project(
        sandbox, "n",
        job("src/pkg/sub/tasks.py:T", "a"), job("src/json.py:T", "b"), job("src/sys.py:T", "c"),
    )  # fmt: skip
    assert sandbox.ok("-n", "a") == "pkg.sub.tasks 1\n"
    assert sandbox.ok("-n", "b") == "json 2\n"
    result = sandbox.run("-n", "c")
    assert result.code == 1
    assert result.errors == ["ERROR | src/sys.py has the name of another module, sys; rename the file"]


def test_a_method_of_which_nothing_has_run_is_no_success(sandbox: Sandbox) -> None:
    sandbox.write("t.py", """\
        class T:
            def __init__(self, values): ...
            def run(self): yield print("ran")
            async def validate(self): yield 1

        class Remote:
            def __init__(self, values): ...
            def __await__(self): ...
            def run(self): return self
        """)  # fmt: skip
    project(sandbox, "n", job("t.py:T", "a"), job("echo", "b", validate="t.py:T"), job("t.py:Remote", "c"))
    result = sandbox.run("-n", "b")
    assert (result.code, result.out) == (2, "")
    assert result.errors[0] == (
        "ERROR | T.validate in t.py is async, so it did not run; call asyncio.run in it"
    )
    sandbox.write("t.py", sandbox.read("t.py").replace("async def validate", "def check"))
    result = sandbox.run("-n", "a")
    assert (result.code, result.out) == (1, "")
    assert result.errors == ["ERROR | T.run in t.py has a `yield`, so it did not run; call a generator in it"]
    assert sandbox.ok("-n", "c") == ""


def test_a_module_of_the_project_with_the_name_of_one_that_is_needed(sandbox: Sandbox) -> None:
    sandbox.write("src/datetime.py", "")
    sandbox.write("t.py", "class T:\n    def __init__(self, v): ...\n    def run(self): print(1)\n")
    project(sandbox, "n", job("t.py:T", params="[{name: d, type: date}]"))
    assert sandbox.ok("-n", "run") == "1\n"
    result = sandbox.run("-n", "run", "-d", "2024-01-31")
    assert (result.code, len(result.errors)) == (1, 1)
    assert "datetime.py has the name of another module, datetime; rename the file" in result.errors[0]


# --- validation ---


def test_all_that_fail_are_reported_before_anything_runs(sandbox: Sandbox) -> None:
    sandbox.write("check.py", "import sys\nprint(sys.argv[1:])\nprint(sys.stdin.read())\nsys.exit(4)\n")
    sandbox.write("tasks.py", """\
        class Train:
            def __init__(self, values): self.values = values
            def validate(self): assert self.values["rate"] < 1, "too fast"
            def run(self): print("trained")
        """)  # fmt: skip
    rate = "[{name: rate, type: float, default: 0.5}]"
    project(
        sandbox, "n",
        job("touch ran; echo ran", "first"),
        job("echo", "second", validate="check.py", args="[{name: a}]", params="[{name: l, accepts: list}]"),
        job("tasks.py:Train", "third", params=rate),
        job("echo", "fourth", validate="'test -d . && true'"),
    )  # fmt: skip
    chain = ("first", "+", "second", "$x", "-l", "1", "2", "+", "third", "--rate", "2", "+", "fourth")
    result = sandbox.run("-n", *chain, stdin=b"of the job")
    assert (result.code, result.out) == (2, "")
    ending = "no job was run, see the output above"
    assert result.errors == [
        f"ERROR | second: its validation ended with exit code 4; {ending}",
        f"ERROR | third: its validation ended with exit code 1; {ending}",
    ]
    assert "['$x', '-l', '1', '2']\n\n" in result.err
    assert "AssertionError: too fast" in result.err
    assert not (sandbox.root / "ran").exists()
    assert sandbox.ok("-n", "first", "+", "third", "+", "fourth") == "ran\ntrained\n\n"


def test_a_validation_gets_the_same_values_whatever_its_source_is(sandbox: Sandbox) -> None:
    """A script has the root's params, and a command line has not."""
    sandbox.write("show.py", "import sys\nprint(sys.argv[1:])\n")
    own = {"params": "[{name: a, default: 1}]"}
    project(
        sandbox, "n",
        job("show.py", "script", validate="'echo validated'", **own),
        job("echo", "line", validate="show.py", **own),
        params="[{name: level, default: 2}]",
    )  # fmt: skip
    result = sandbox.run("-n", "script")
    assert (result.out, result.err) == ("['-a', '1', '--level', '2']\n", "validated -a 1 --level 2\n")
    result = sandbox.run("-n", "line")
    assert (result.out, result.err) == ("-a 1\n", "['-a', '1']\n")


def test_a_validation_that_cannot_run(sandbox: Sandbox) -> None:
    project(
        sandbox, "n", job("echo", validate="no.py"), job("echo", "b", validate="'a ;'", args="[{name: x}]")
    )
    assert "skelebot.yaml:4:3: jobs[0].validate: there is no file no.py in " in refused(sandbox, "-n", "run")
    assert "skelebot.yaml:5:3: jobs[1].validate: the source ends where a command" in refused(
        sandbox, "-n", "b", "1"
    )


def test_a_dry_run_shows_a_validation_and_runs_none(sandbox: Sandbox) -> None:
    project(sandbox, "n", job("echo ran", validate="touch validated"))
    shown = sandbox.ok("-n", "--dry-run", "run").splitlines()
    assert [line for line in shown if not line.startswith("  where")] == [
        "run (validation)",
        "  run      bash -c 'touch validated' run",
        "run",
        "  run      bash -c 'echo ran' run",
    ]
    assert not (sandbox.root / "validated").exists()


def test_an_interrupted_validation_ends_all(sandbox: Sandbox) -> None:
    waiting = "touch waiting; exec sleep 60"
    project(
        sandbox,
        "n",
        job("touch ran", "a", validate=json.dumps(waiting)),
        job("touch ran", "b", validate="touch b"),
    )
    child = sandbox.start("-n", "a", "+", "b", stderr=subprocess.PIPE)
    wait_for((sandbox.root / "waiting").exists)
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=60)[1] == b"ERROR | interrupted\n"
    assert child.returncode == 130
    assert not {"ran", "b"} & set(os.listdir(sandbox.root))


@pytest.mark.engine
def test_a_validation_runs_in_the_same_image_with_the_same_mappings(sandbox: Sandbox, name: str) -> None:
    sandbox.write("data/x", "1\n")
    sandbox.write("check.py", "import os, sys\nprint(sys.argv[1:], os.environ['A'], os.listdir('data'))\n")
    more = {"environment": "{A: b}", "mappings": "['data/:ro', 'out/:ro']", "ports": "['1:1']"}
    project(
        sandbox, name,
        job("mkdir -p out; echo made > out/y", "make", mappings="[out/]"),
        job("cat out/y && echo", validate="check.py", args="[{name: a}]", mode="i", ignores="[data]", **more),
        job("echo", "bad", validate="exit 9", mappings="[data/]"),
    )  # fmt: skip
    result = sandbox.run("make", "+", "run", "a b")
    assert (result.code, result.out) == (0, "made\na b\n")
    assert "['a b'] b ['x']" in result.err
    failed = sandbox.run("make", "+", "bad")
    assert (failed.code, failed.out) == (2, "")
    assert failed.errors == [
        "ERROR | bad: its validation ended with exit code 9; no job was run, see the output above"
    ]
