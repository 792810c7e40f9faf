"""Jobs in containers of a real engine: words, files, streams, users, what is left behind."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from harness import (
    BASE,
    CLEANING,
    CLIENTS,
    SKELEBOT,
    Sandbox,
    Terminal,
    containers,
    docker,
    job,
    project,
    wait_for,
)

pytestmark = pytest.mark.engine

SHOW = "import json, sys\nprint(json.dumps(sys.argv[1:]))\n"

HOSTILE = [
    "a b", "", "$HOME", "$(id)", "`id`", "'", '"', "\\", "\\n", "a\nb", "*", "~", ";", "&&", "--", "+",
    "%", "{}", "é", "日本", "\t", "a=b", "\\c", "$", "#", "!", "\u202e", "x" * 5000,
]  # fmt: skip


# --- words ---


def test_words_arrive_as_they_were_typed(sandbox: Sandbox, name: str) -> None:
    sandbox.write("show.py", SHOW)
    count = range(len(HOSTILE))
    params = [*(f"{{name: p{i}}}" for i in count), "{name: list, accepts: list}"]
    args = [f"{{name: a{i}}}" for i in count]
    project(sandbox, name, job("show.py", args=f"[{', '.join(args)}]", params=f"[{', '.join(params)}]"))
    given = [f"--p{i}={value}" for i, value in enumerate(HOSTILE)]
    given += [f"--list={value}" for value in HOSTILE]
    arrived = [word for i, value in enumerate(HOSTILE) for word in (f"--p{i}", value)]
    wanted = [*HOSTILE, *arrived, "--list", *HOSTILE]
    for flag in ("-V", "-s"):
        assert json.loads(sandbox.ok(flag, "run", *given, "--", *HOSTILE)) == wanted


def test_words_reach_a_command_line_and_a_shell_script(sandbox: Sandbox, name: str) -> None:
    sandbox.write("show.py", SHOW)
    sandbox.write("show.sh", 'python show.py "$@"\n')
    args = {"args": "[{name: a}, {name: b}]"}
    project(
        sandbox, name,
        job("python show.py", "command", **args),
        job('python show.py x "$2" "$1"', "own", **args),
        job("python show.py\necho end", "lines"),
        job("show.sh", "script", **args),
        job("./show.py", "missing", **args),
    )  # fmt: skip
    values = ("it's", '$(id) "x"')
    assert json.loads(sandbox.ok("command", *values)) == list(values)
    assert json.loads(sandbox.ok("own", *values)) == ["x", values[1], values[0]]
    assert sandbox.ok("lines") == "[]\nend\n"
    assert json.loads(sandbox.ok("script", *values)) == list(values)


def test_an_executable_file_is_run(sandbox: Sandbox, name: str) -> None:
    sandbox.write("my tool", "#!/bin/sh\nprintf '%s|' \"$@\"\n", mode=0o755)
    project(sandbox, name, job("my tool", args="[{name: a}]"))
    assert sandbox.ok("run", "a b") == "a b|"


def test_words_that_are_not_utf8_are_refused(sandbox: Sandbox, name: str) -> None:
    sandbox.write("show.py", SHOW)
    project(sandbox, name, job("show.py", args="[{name: a}]"))
    result = sandbox.run("run", b"\xff")
    assert result.code == 2
    assert "not UTF-8" in result.errors[0]
    assert "-n" in result.errors[0]


# --- how it ends ---


def test_a_container_that_cannot_start_is_the_engines_failure(sandbox: Sandbox, name: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        project(sandbox, name, job("true", ports=f'["127.0.0.1:{port}:80"]'))
        result = sandbox.run("run")
    assert result.code == 1
    assert "could not be started" in result.errors[-1]
    assert containers(name) == []


@pytest.mark.parametrize("client", CLIENTS)
def test_a_timeout_lets_the_job_clean_up(sandbox: Sandbox, name: str, client: str) -> None:
    sandbox.write("slow.sh", 'trap "echo cleaned; exit 3" TERM\nsleep 60 & wait\n')
    project(sandbox, name, job("bash slow.sh && echo no", timeout="1"))
    result = sandbox.with_env(SKELEBOT_DOCKER=client).run("run")
    assert (result.code, result.out) == (124, "cleaned\n")
    assert "longer than its timeout of 1 second" in result.errors[0]
    assert containers(name) == []


# --- terminals ---


def test_a_terminal_only_where_all_three_streams_are_one(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("test -t 0 && echo tty || echo none"))
    for redirect, expected in (
        ("", "tty"),
        (" 2>/dev/null", "none"),
        (" | cat", "none"),
        ("</dev/null", "none"),
    ):
        screen = Terminal(sandbox, f"{SKELEBOT} run {redirect}")
        screen.expect(expected)
        screen.close()


def test_a_shell_is_usable_on_a_terminal(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("bash --norc -i", mode="it"))
    screen = Terminal(sandbox, f"{SKELEBOT} run")
    screen.expect("bash-5")
    screen.send(b"echo $((40+2)); exit 5\r")
    screen.expect("42")
    assert screen.close() == 5


# --- files and users ---


def test_new_files_belong_to_the_caller(anyone: Sandbox, name: str) -> None:
    source = (
        "mkdir out/sub; touch out/sub/a; ln -s a out/sub/l; touch 'out/a b' here; touch deep/er/x; exit 3"
    )
    project(
        anyone, name, job(source, mappings="[out/, 'deep/er:deep/er']".replace("deep/er'", "app/deep/er'"))
    )
    assert anyone.run("run").code == 3
    for path in ("out", "out/sub", "out/sub/a", "out/sub/l", "out/a b", "deep", "deep/er", "deep/er/x"):
        assert anyone.owner(path) == anyone.uid, path
    assert not (anyone.root / "here").exists()


def test_files_that_the_job_did_not_write_keep_their_owner(anyone: Sandbox, name: str) -> None:
    old = anyone.write("out/old", "x")
    if os.getuid() == 0:
        os.chown(old, 0, 0)
    before = old.stat().st_uid
    time.sleep(2.1)
    project(anyone, name, job("touch out/new", mappings="[out/]"))
    anyone.ok("run")
    assert anyone.owner("out/old") == before
    assert anyone.owner("out/new") == anyone.uid


def test_a_signal_leaves_the_files_to_the_caller(anyone: Sandbox, name: str) -> None:
    anyone.write("clean.py", CLEANING)
    project(anyone, name, job("clean.py", mappings="[out/]"))
    child = anyone.start("run", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for((anyone.root / "out/ready").exists)
    child.terminate()
    child.communicate(timeout=60)
    assert {anyone.owner(f"out/{f}") for f in ("ready", "cleaned")} == {anyone.uid}


@pytest.fixture(scope="module")
def base_with_user() -> str:
    """A base image whose own user is not root."""
    tag = "skelebot-test/with-user"
    text = f"FROM {BASE}\nRUN useradd --uid 4321 --create-home worker\nUSER worker\n"
    subprocess.run(
        [CLIENTS[0], "build", "-q", "-t", tag, "-"], input=text.encode(), check=True, capture_output=True
    )
    return tag


@pytest.mark.parametrize(("when", "seconds"), [("date", 30), ("find", 3)])
def test_a_signal_while_nothing_of_the_job_runs(anyone: Sandbox, name: str, when: str, seconds: int) -> None:
    """Before the job, which does not begin then; and after it, while its files are handed over."""
    if when == "find" and anyone.uid == 0:
        pytest.skip("what root writes is root's")
    slow = f'#!/bin/sh\necho now >&2\nsleep {seconds}\nexec /usr/bin/{when} "$@"\n'
    anyone.write(f"bin/{when}", slow, 0o755)
    more = {"mappings": "[out/]", "environment": "{PATH: '/app/bin:/usr/local/bin:/usr/bin:/bin'}"}
    project(anyone, name, job("touch out/x", **more))
    with anyone.start("run", stderr=subprocess.PIPE) as child:
        assert child.stderr
        while b"now" not in child.stderr.readline():
            assert child.poll() is None
        child.terminate()
        assert child.wait(60) == 143
    assert (anyone.root / "out/x").exists() == (when == "find")
    assert when == "date" or anyone.owner("out/x") == anyone.uid
    assert containers(name) == []


def test_a_mapped_folder_may_be_a_link(anyone: Sandbox, name: str) -> None:
    elsewhere = anyone.root.parent / "elsewhere"
    anyone.write("../elsewhere/.keep", "")
    (anyone.root / "out").symlink_to(elsewhere)
    project(anyone, name, job("touch out/x", mappings="[out/]"))
    anyone.ok("run")
    assert anyone.owner("../elsewhere/x") == anyone.uid


@pytest.mark.parametrize(
    ("user", "identity"),
    [
        (None, "4321:4321:worker:/home/worker"),
        ("root", "0:0:root:/root"),
        ("worker", "4321:4321:worker:/home/worker"),
        ("'777:888'", "777:888::/"),
        ("'4321'", "4321:4321:worker:/home/worker"),
    ],
)
def test_a_job_of_another_user_can_write(
    anyone: Sandbox, name: str, base_with_user: str, user: str | None, identity: str
) -> None:
    source = 'echo "$(id -u):$(id -g):$(id -un 2>/dev/null | tr -d 0-9):$HOME"; touch out/x here src/new'
    anyone.write("src/old", "x")
    keys = {"name": name, "baseImage": base_with_user} | ({"user": user} if user else {})
    lines = [*(f"{k}: {v}" for k, v in keys.items()), "jobs:", f"- {job(source, mappings='[out/]')}"]
    anyone.write("skelebot.yaml", "\n".join(lines))
    result = anyone.run("run")
    assert (result.code, result.out) == (0, identity + "\n"), result.err
    assert anyone.owner("out/x") == anyone.uid


def test_a_job_of_another_user_sets_times_and_modes_again(anyone: Sandbox, name: str) -> None:
    anyone.write("keep.py", "import shutil\nshutil.copy2('keep.py', 'out/keep.py')\n")
    project(anyone, name, job("keep.py", mappings="[out/]"), user='"1234"')
    for _ in range(2):
        assert anyone.run("run").code == 0
        assert anyone.owner("out/keep.py") == anyone.uid


def test_user_caller_is_the_caller(anyone: Sandbox, name: str) -> None:
    project(anyone, name, job('echo "$(id -u):$(id -g)"; touch out/x here', mappings="[out/]"), user="caller")
    assert anyone.ok("run") == f"{anyone.uid}:{anyone.uid}\n"
    assert anyone.owner("out/x") == anyone.uid


def test_an_unknown_user_is_an_error(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("true"), user="nobody-here")
    result = sandbox.run("run")
    assert result.code == 1
    assert "nobody-here" in result.err


def test_mappings(sandbox: Sandbox, name: str) -> None:
    home = Path(sandbox.env["HOME"])
    (home / "keys").mkdir()
    (home / "keys/k").write_text("key")
    sandbox.write("in/a,b", "comma")
    sandbox.write("models/m", "model")
    absolute = sandbox.write("elsewhere/e", "abs").parent
    source = "cat ~/keys/k in/* model-output/m /mnt/e; touch in/x 2>/dev/null || echo ' ro'"
    mappings = f"['~/keys:~/keys', 'in/:ro', 'models/:app/model-output/', '{absolute}:/mnt']"
    project(sandbox, name, job(source, mappings=mappings))
    assert sandbox.ok("run") == "keycommamodelabs ro\n"


def test_nested_mappings_belong_to_the_caller(anyone: Sandbox, name: str) -> None:
    project(anyone, name, job("touch data/raw/x data/y", mappings="[data/, 'raw/:app/data/raw']"))
    anyone.ok("run")
    assert {anyone.owner(p) for p in ("data", "data/raw", "data/y", "raw", "raw/x")} == {anyone.uid}


# --- environment and secrets ---


@pytest.mark.parametrize("client", CLIENTS)
def test_environment_and_env_file(sandbox: Sandbox, name: str, client: str) -> None:
    sandbox.write("secrets.env", "# c\nA=from file\nB=b=c  \nPASSED\n")
    sandbox.write("skelebot.yaml", f"""
        name: {name}
        baseImage: {BASE}
        envFile: secrets.env
        environment: {{C: "x\\ny", D: 1.0, PATH: "/opt/bin:/usr/bin:/bin", PASSED2: }}
        jobs:
        - name: run
          source: printf '%s|' "$A" "$B" "$C" "$D" "$PASSED" "$PASSED2" "$PATH" "$BIG"; ls -A
          help: h
          environment: {{A: own, BIG: "{"y" * 70000}"}}
    """)  # fmt: skip
    out = sandbox.with_env(PASSED="p", PASSED2="q", SKELEBOT_DOCKER=client).ok("run")
    big = "y" * 70000
    assert out == f"own|b=c|x\ny|1.0|p|q|/opt/bin:/usr/bin:/bin|{big}|skelebot.yaml\n"


def test_nobody_reads_what_a_job_writes(sandbox: Sandbox, name: str) -> None:
    """It ends as it would natively, and leaves no container that goes on."""
    project(sandbox, name, job("yes"), job("while sleep 0.1; do echo on; done", "full"))
    with sandbox.start("run", stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stdout.readline() == b"y\n"
        child.stdout.close()
        assert child.wait(60) == 141
    with open("/dev/full", "wb") as full, sandbox.start("full", stdout=full, stderr=subprocess.PIPE) as child:
        _, err = child.communicate(timeout=60)
    assert child.returncode == 1
    assert "Docker's client ended before full did" in err.decode().splitlines()[-1]
    assert containers(name) == []


@pytest.mark.parametrize("client", CLIENTS)
def test_a_secret_is_only_seen_by_the_job(sandbox: Sandbox, name: str, client: str) -> None:
    sandbox = sandbox.with_env(SKELEBOT_DOCKER=client)
    secret = "s3cr\\et $(x)\n'y' "
    sandbox.write(
        "slow.py",
        """\
        import os, sys, time
        print(repr(sys.argv[1:]), flush=True)
        while not os.path.exists("data/end"):
            time.sleep(0.1)
        """,
    )
    params = "[{name: password, secret: true}, {name: other}]"
    project(sandbox, name, job("slow.py", params=params, mappings="[data/]"))
    with sandbox.start(
        "-V", "run", f"--password={secret}", "--other", "1", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout
        said = child.stdout.readline().decode()  # it runs
        (running,) = containers(name)
        inspected = docker("inspect", running)
        left = docker("exec", running, "ls", "-A", "/run")
        seen = [
            Path(f"/proc/{p}/cmdline") for p in os.listdir("/proc") if p.isdigit() and int(p) != os.getpid()
        ]
        clients = [c for c in map(read_or_nothing, seen) if b"skelebot.project" in c or b"\0start\0" in c]
        sandbox.write("data/end", "")
        _, err = child.communicate(timeout=60)
    assert said == repr(["--password", secret, "--other", "1"]) + "\n"
    assert "skelebot.words" not in left
    for text in (inspected, err.decode(), repr(clients)):
        assert "s3cr" not in text
    dry = sandbox.ok("--dry-run", "run", f"--password={secret}")
    assert "s3cr" not in dry
    assert "***" in dry


def read_or_nothing(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


# --- what the container is ---


def test_names_labels_and_detached_runs(sandbox: Sandbox, name: str) -> None:
    sandbox.write("data/keep", "")
    project(
        sandbox, name, job("echo logged; touch data/x", "my job", mode="d", mappings="[data/]", timeout="60")
    )
    first = sandbox.ok("my job").strip()
    assert first == f"{name}-my-job"
    before = docker("inspect", "-f", "{{.Id}}", first)
    wait_for(lambda: docker("inspect", "-f", "{{.State.Running}}", first) == "false")
    assert docker("logs", first) == "logged"
    labels = json.loads(docker("inspect", "-f", "{{json .Config.Labels}}", first))
    assert (labels["skelebot.project"], labels["skelebot.job"]) == (name, "my job")
    image = docker("inspect", "-f", "{{.Config.Image}}", first)
    assert image == docker("image", "inspect", "-f", "{{.Id}}", name)
    second = sandbox.ok("my job").strip()
    assert containers(name) == [second] == [first]
    assert docker("inspect", "-f", "{{.Id}}", second) != before
    third = sandbox.ok("my job").strip()  # while the second may still run
    assert third == first or re.fullmatch(rf"{first}-[0-9a-f]{{8}}", third)
    assert sandbox.owner("data/x") == sandbox.uid


def test_a_detached_job_takes_a_secret(sandbox: Sandbox, name: str) -> None:
    sandbox.write("show.py", SHOW)
    project(sandbox, name, job("show.py", mode="d", params="[{name: k, secret: true}]"))
    container = sandbox.ok("run", "-k", "v w").strip()
    wait_for(lambda: docker("inspect", "-f", "{{.State.Running}}", container) == "false")
    assert json.loads(docker("logs", container)) == ["-k", "v w"]
    assert "v w" not in docker("inspect", container)


def test_ports_of_the_root_and_of_the_job(sandbox: Sandbox, name: str) -> None:
    serve = job("python -m http.server 8000", mode="d", ports='["127.0.0.1:39219:9/udp"]')
    project(sandbox, name, serve, ports='["127.0.0.1:39218:8000"]')
    container = sandbox.ok("run").strip()
    published = docker("port", container)
    assert "8000/tcp -> 127.0.0.1:39218" in published
    assert "9/udp -> 127.0.0.1:39219" in published

    def answers() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", 39218)) == 0

    wait_for(answers)
    docker("rm", "-f", container)


def test_a_chain_stops_at_the_link_that_fails(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("echo one", "one"), job("exit 4", "two"), job("echo three", "three"))
    result = sandbox.run("one", "+", "two", "+", "three", "+", "one")
    assert (result.code, result.out) == (4, "one\n")
    assert "two ended with exit code 4; not run: three, one" in result.errors[-1]


def test_the_next_link_sees_what_the_last_one_wrote(sandbox: Sandbox, name: str) -> None:
    project(
        sandbox, name, job("echo 'print(42)' > gen/x.py", "write", mappings="[gen/]"), job("gen/x.py", "use")
    )
    assert sandbox.ok("write", "+", "use") == "42\n"


def test_the_host_of_the_flag_wins_over_the_jobs_and_the_roots(sandbox: Sandbox, name: str) -> None:
    dead = {n: f"unix:///nowhere/{n}.sock" for n in ("flag", "job", "root")}
    project(sandbox, name, job("true", "a", host=dead["job"]), job("true", "b"), host=dead["root"])
    for words, which in ((("-d", dead["flag"], "a"), "flag"), (("a",), "job"), (("b",), "root")):
        result = sandbox.run(*words)
        assert result.code == 1
        assert dead[which] in result.errors[-1]


# --- what surrounds the job is not changed by what runs it ---


def test_the_wrapper_takes_no_variable_of_the_jobs(sandbox: Sandbox, name: str) -> None:
    names = [
        "user",
        "owner",
        "limit",
        "words",
        "folders",
        "uid",
        "gid",
        "home",
        "id",
        "group",
        "line",
        "word",
        "code",
        "left",
        "begun",
        "late",
        "asked",
    ]
    sandbox.write("show.py", f"import os\nprint([os.environ.get(n) for n in {names!r}])\n")
    given = "{" + ", ".join(f"{n}: v {n}" for n in names) + "}"
    project(sandbox, name, job("show.py", environment=given, timeout="60", mappings="[out/]"))
    assert sandbox.ok("run") == f"{[f'v {n}' for n in names]}\n"


def test_odd_values_of_variables(sandbox: Sandbox, name: str) -> None:
    sandbox.write("show.py", "import os\nprint(repr(os.environ['A']), len(os.environ['B']))\n")
    project(sandbox, name, job("show.py", environment='{A: "x\\r", B: "' + "é" * 40_000 + '"}'))
    assert sandbox.ok("run") == "'x\\r' 40000\n"


def test_a_path_of_the_jobs_own(sandbox: Sandbox, name: str) -> None:
    sandbox.write("bin/tool", "#!/bin/sh\necho $PATH\n", mode=0o755)
    project(sandbox, name, job("bin/tool", environment="{PATH: /app/bin}", mappings="[out/]"))
    assert sandbox.ok("run") == "/app/bin\n"


def test_a_group_beside_root(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job('echo "$(id -u):$(id -g)"'), user="'0:100'")
    assert sandbox.ok("run") == "0:100\n"


def test_an_exit_code_of_the_engines_is_the_jobs_also_after_many_events(sandbox: Sandbox, name: str) -> None:
    project(
        sandbox,
        name,
        job("touch out/ready; until [ -e out/go ]; do sleep 0.1; done; exit 127", mappings="[out/]"),
    )
    child = sandbox.start("run", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for((sandbox.root / "out/ready").exists)
    image = docker("inspect", "-f", "{{.Image}}", containers(name)[0])
    others = [docker("create", image, "true") for _ in range(130)]  # an engine remembers 256 events
    docker("rm", *others)
    sandbox.write("out/go", "")
    _, err = child.communicate(timeout=60)
    assert child.returncode == 127, err
    assert b"could not be started" not in err


@pytest.mark.parametrize("secret", [False, True])
@pytest.mark.parametrize("mode", ["i", "d"])
def test_a_signal_at_any_time_leaves_no_container(
    sandbox: Sandbox, name: str, mode: str, secret: bool
) -> None:
    params = "[{name: password, secret: true}]"
    project(sandbox, name, job("sleep 50", mode=mode, params=params))
    words = ["--password=x"] if secret else []
    sandbox.run("--dry-run", "run")
    first = sandbox.start("run", *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: containers(name))
    first.terminate()
    first.communicate(timeout=60)
    for left in containers(name):
        docker("rm", "-f", left)
    for delay in (0.15, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.8):
        child = sandbox.start("run", *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(delay)
        child.terminate()
        try:
            out, err = child.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            child.terminate()  # docker-init drops what comes in the instant between its fork and setpgid
            out, err = child.communicate(timeout=20)
        assert b"Traceback" not in err
        if mode == "d" and out:  # the signal came when it was running detached already
            docker("rm", "-f", out.decode().strip())
        assert containers(name) == [], (delay, child.returncode, err)


@pytest.mark.parametrize("program", ["docker", "client"])  # for the second the engine's socket is not asked
def test_a_container_that_was_never_started_goes_with_the_next_run(
    sandbox: Sandbox, name: str, program: str
) -> None:
    """Skelebot is killed between `create` and `start`, with a secret in the container."""
    script = f"""\
        #!/bin/sh
        [ "$1" != start ] || [ ! -e "{sandbox.root}/../kill" ] || exec kill -9 $PPID
        exec {shutil.which(CLIENTS[0])} "$@"
        """
    client = sandbox.write(f"../bin/{program}", script, 0o755)
    project(sandbox, name, job("true", params="[{name: password, secret: true}]"))
    caller = sandbox.with_env(SKELEBOT_DOCKER=str(client))
    caller.ok("run", "--password=x")
    kill = sandbox.write("../kill", "")
    assert caller.run("run", "--password=x").code == -signal.SIGKILL
    assert len(containers(name)) == 1
    kill.unlink()
    caller.ok("run", "--password=x")
    assert containers(name) == []


def test_all_links_are_checked_before_the_first_runs(sandbox: Sandbox, name: str) -> None:
    project(
        sandbox, name, job("touch out/ran", "one", mappings="[out/]"), job("true", "two", args="[{name: a}]")
    )
    assert sandbox.run("one", "+", "two", b"\xff").code == 2
    assert not (sandbox.root / "out").exists()
