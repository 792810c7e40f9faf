"""Jobs on a real Kubernetes cluster: what a user can rely on while nothing breaks."""

import hashlib
import json
import os
import random
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml
from harness import CLEANING, SKELEBOT, Result, job, project, wait_for
from real_cluster import REGISTRY, Namespace, ask, clients, forbid_pulling, keys

pytestmark = [pytest.mark.engine, pytest.mark.kubernetes]


def write(space: Namespace, name: str, *jobs: str, settings: str = "", **more: str) -> None:
    """A project whose image goes through the cluster's registry, with settings of `components.cluster`."""
    project(space.sandbox, name, *jobs, components=keys(settings), **more)


def run(space: Namespace, *words: str | bytes, **options: Any) -> Result:
    return space.sandbox.run("-d", space.place, *words, **options)


def start(space: Namespace, *words: str, **options: Any) -> "subprocess.Popen[bytes]":
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return space.sandbox.start("-d", space.place, *words, **options)


GO = "until [ -e /tmp/go ]; do sleep 0.1; done"  # until a test has made that file

# --- exit codes ---

CODES = (0, 1, 2, 3, 9, 77, 124, 125, 126, 127, 130, 137, 143, 254, 255)


def test_the_exit_code_is_the_containers(space: Namespace, name: str) -> None:
    write(space, name, job('exit "$1"', args="[{name: code}]"))
    assert run(space, "run", "0").code == 0  # and the image is there
    with ThreadPoolExecutor(3) as several:
        results = list(several.map(lambda code: run(space, "run", str(code)), CODES))
    assert [(result.code, result.errors) for result in results] == [(code, []) for code in CODES]


def test_a_job_that_kills_itself_is_137(space: Namespace, name: str) -> None:
    write(space, name, job("kill -9 $$"))
    assert run(space, "run").code == 137


def test_out_of_memory_is_137_and_names_the_limit_and_the_key(space: Namespace, name: str) -> None:
    space.sandbox.write("fill.py", "x = bytearray(1 << 30)\nprint(len(x))\n")
    write(space, name, job("fill.py", resources="{memory: 64Mi}"))
    result = run(space, "run")
    assert (result.code, result.out) == (137, "")
    assert "64" in result.err
    assert "resources.memory" in result.err


def test_a_timeout_is_124_after_the_jobs_own_clean_up(space: Namespace, name: str) -> None:
    space.sandbox.write("slow.sh", 'trap "echo cleaned; exit 3" TERM\nsleep 60 & wait\n')
    write(space, name, job("slow.sh", timeout="2"))
    result = run(space, "run")
    assert (result.code, result.out) == (124, "cleaned\n")
    assert "longer than its timeout of 2 seconds" in result.errors[0]


# --- words ---


def random_words(count: int) -> list[str]:
    pieces = [
        "$",
        "$$",
        "$(TOKEN)",
        "$(HOME)",
        "${X}",
        "`",
        "'",
        '"',
        "\\",
        "\n",
        "\t",
        " ",
        "é",
        "😀",
        "*",
        "-",
        "=",
        "%",
    ]
    pieces += ["a", "{{.x}}", "#", "\r", "\x7f", "~", "!"]
    chosen = random.Random(15)
    words = ["".join(chosen.choices(pieces, k=chosen.randrange(30))) for _ in range(count - 1)]
    return [*words, "x$(TOKEN)" * 12_000]


SHOW = """
import json, os, sys
json.dump([sys.argv[1:], os.environ["TOKEN"], os.environ["ODD"]], sys.stdout)
"""


def test_a_thousand_random_words_arrive_as_they_were_typed(space: Namespace, name: str) -> None:
    space.sandbox.write("show.py", SHOW)
    environment = "{TOKEN: hunter2, ODD: }"
    write(space, name, job("show.py", params="[{name: word, accepts: list}]", environment=environment))
    words = random_words(1000)
    odd = "$(TOKEN) $$ $(NO) a\nb"
    own = Namespace(space.name, space.sandbox.with_env(ODD=odd))
    result = run(own, "run", *(f"--word={word}" for word in words))
    assert result.code == 0, result.err[-2000:]
    argv, token, got = json.loads(result.out)
    assert [word for word, typed in zip(argv[1:], words, strict=True) if word != typed] == []
    assert (token, got) == ("hunter2", odd)


# --- streams ---


def test_both_streams_come_as_bytes_and_apart(space: Namespace, name: str) -> None:
    write(space, name, job(r"printf 'a\r\nb\377'; printf 'e\r\n\376' >&2; exit 9"))
    with start(space, "run") as child:
        out, err = child.communicate(timeout=300)
    assert (child.returncode, out) == (9, b"a\r\nb\xff")
    assert b"e\r\n\xfe" in err


def test_output_is_there_while_the_job_runs(space: Namespace, name: str) -> None:
    write(space, name, job("echo first; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo last"))
    with start(space, "run") as child:
        assert child.stdout
        assert child.stdout.readline() == b"first\n"
        space.touch("/tmp/go")
        assert child.stdout.read() == b"last\n"
    assert child.returncode == 0


# A million lines on each stream, of which both have some that are longer than what a log holds in a piece.
MANY = """
import sys
for n in range(1_000_000):
    line = f"{n} {'y' * 100_000 if n % 100_000 == 7 else ''}\\n"
    sys.stdout.write(line)
    if n % 10 == 0:
        sys.stderr.write("e" + line)
sys.stdout.write("no newline")
"""


def many() -> tuple[bytes, bytes]:
    lines = [f"{n} {'y' * 100_000 if n % 100_000 == 7 else ''}\n" for n in range(1_000_000)]
    return ("".join(lines) + "no newline").encode(), "".join("e" + line for line in lines[::10]).encode()


def test_a_million_lines_through_rotating_logs(space: Namespace, name: str) -> None:
    space.sandbox.write("many.py", MANY)
    write(space, name, job("many.py"))
    with start(space, "run") as child:
        out, err = child.communicate(timeout=600)
    assert child.returncode == 0
    expected = many()
    assert hashlib.sha256(out).hexdigest() == hashlib.sha256(expected[0]).hexdigest()
    assert expected[1] in err


def test_jobs_are_joined_by_a_pipe_here_or_there(space: Namespace, name: str) -> None:
    jobs = (job("echo 1; sleep 1; echo 2", "extract"), job("sed -u s/^/got-/", "score"))
    write(space, name, *jobs)
    there = f"{SKELEBOT} -d {space.place}"
    for first, second in ((there, there), (there, f"{SKELEBOT} -n"), (f"{SKELEBOT} -n", there)):
        both = f"{first} extract | {second} score"
        with space.sandbox.popen("bash", "-c", both, stdout=subprocess.PIPE) as done:
            out, _ = done.communicate(timeout=300)
        assert out == b"got-1\ngot-2\n", both


def test_the_clusters_own_log_has_the_lines_too(space: Namespace, name: str) -> None:
    write(space, name, job(f"echo to-the-log; {GO}", mode="d"))
    assert run(space, "run").code == 0
    wait_for(lambda: space.state("job") == "running")
    words = ("kubectl", "logs", "-n", space.name, space.pod()["metadata"]["name"], "-c", "job")

    def log() -> bytes:
        with space.sandbox.popen(*words, stdout=subprocess.PIPE) as done:
            return done.communicate(timeout=60)[0]

    wait_for(lambda: b"to-the-log" in log())
    space.touch("/tmp/go")
    assert run(space, "wait", "run").code == 0
    run(space, "clean")


# --- files ---

FILES = """
set -e
find data ro -type f | sort | xargs -d '\\n' sha256sum | sha256sum
cat 'data/ready' data/out data/err
mkdir -p results/sub; echo result >results/out; ln -s ../out results/sub/link; mkdir results/empty
printf x >'results/a b
c'
echo changed >data/in.txt; rm data/deep/er.txt
chmod 755 results/out
exit "$1"
"""


@pytest.mark.parametrize("code", [0, 5])
def test_files_go_there_and_come_back(space: Namespace, name: str, code: int) -> None:
    for path in ("ready", "done", "out", "err", "code", "stop", "in.txt", "deep/er.txt", "-x", "é $(id)"):
        space.sandbox.write(f"data/{path}", f"{path}\n")  # among them those that a run may use itself
    space.sandbox.write("ro/fixed", "fixed")
    space.sandbox.write("same/large", os.urandom(1 << 20))
    before = (space.sandbox.root / "same/large").stat()
    space.sandbox.write("work.sh", FILES)
    mappings = "['data/', 'results/', 'ro/:ro', same/]"
    write(space, name, job("work.sh", mappings=mappings, args="[{name: code}]"))
    result = run(space, "run", str(code))
    assert result.code == code, result
    assert result.out.split("\n", 1)[1] == "ready\nout\nerr\n"
    root = space.sandbox.root
    assert space.sandbox.read("results/out") == "result\n"
    assert (root / "results/out").stat().st_mode & 0o777 == 0o755
    assert os.readlink(root / "results/sub/link") == "../out"
    assert (root / "results/empty").is_dir()
    assert space.sandbox.read("results/a b\nc") == "x"
    assert space.sandbox.read("data/in.txt") == "changed\n"
    assert space.sandbox.read("data/deep/er.txt") == "deep/er.txt\n"  # nothing is deleted here
    after = (root / "same/large").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


# --- secrets ---


def test_a_secret_is_seen_by_the_job_alone(space: Namespace, name: str) -> None:
    params = "[{name: token, secret: true}]"
    write(space, name, job(f'echo "$2" | rev; {GO}', params=params, environment="{OTHER: }"))
    own = Namespace(space.name, space.sandbox.with_env(OTHER="plain"))
    for words in (("--dry-run", "run"), ("cluster", "manifest", "run")):
        shown = run(own, *words, "--token", "hunter2-typed")
        assert shown.code == 0, shown
        assert "hunter2" not in shown.out + shown.err
    with start(own, "run", "--token", "hunter2-typed") as child:
        wait_for(lambda: space.state("job") == "running")
        for kind in ("jobs", "pods", "configmaps"):
            assert "hunter2" not in json.dumps(space.all(kind))
        assert not any("hunter2" in line for line in clients(own))
        (secret,) = (each for each in space.all("secrets") if each["type"] == "Opaque")
        (owner,) = secret["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"]) == ("Job", space.all("jobs")[0]["metadata"]["name"])
        space.touch("/tmp/go")
        out, err = child.communicate(timeout=300)
    assert out == b"depyt-2retnuh\n"
    assert b"hunter2" not in err


# --- asked to end ---


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_job_that_is_asked_to_end_cleans_up(space: Namespace, name: str, signum: int, code: int) -> None:
    space.sandbox.write("clean.py", CLEANING.replace("time.sleep(0.7)", 'print("tidied", flush=True)'))
    write(space, name, job("echo ready; exec python clean.py", mappings="[out/]"))
    with start(space, "run") as child:
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
        wait_for(lambda: space.state("job") == "running")
        wait_for(lambda: space.has("out/ready"))
        child.send_signal(signum)
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (code, b"tidied\n"), err
    assert space.sandbox.read("out/cleaned")


def test_a_second_ctrl_c_ends_a_deaf_job_at_once(space: Namespace, name: str) -> None:
    write(space, name, job("trap '' INT TERM; echo ready; while :; do sleep 1; done"))
    with start(space, "run") as child:
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGINT)
        assert child.stderr
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)
    assert child.returncode == 130


# --- detached ---


def test_a_detached_job_is_listed_followed_and_waited_for(space: Namespace, name: str) -> None:
    source = "echo out; echo err >&2; echo r >out/result; while [ ! -e /tmp/go ]; do sleep 0.1; done; exit 3"
    write(space, name, job(source, "bg", mode="d", mappings="[out/]"))
    run_name = run(space, "bg").out.strip()
    wait_for(lambda: space.state("job") == "running")
    (row,) = json.loads(run(space, "ps", "--json").out)
    assert (row["job"], row["container"], row["status"]) == ("bg", run_name, "running")
    with start(space, "logs", "-f", "bg") as follower:
        assert follower.stdout
        assert follower.stdout.readline() == b"out\n"
        space.touch("/tmp/go")
        follower.communicate(timeout=120)
    again = run(space, "wait", "bg")
    assert again.code == 3, again
    assert space.sandbox.read("out/result") == "r\n"
    assert run(space, "wait", "bg").code == 3
    run(space, "clean")
    assert json.loads(run(space, "ps", "--json").out) == []


def test_a_stopped_job_is_143_and_its_results_come(space: Namespace, name: str) -> None:
    source = "trap 'echo tidied; echo r >out/result; exit 0' TERM; echo begun; while :; do sleep 0.1; done"
    write(space, name, job(source, "bg", mode="d", mappings="[out/]"))
    assert run(space, "bg").code == 0
    wait_for(lambda: "begun" in run(space, "logs", "bg").out)
    stopped = run(space, "stop", "bg")
    assert stopped.code == 0, stopped
    assert space.sandbox.read("out/result") == "r\n"
    assert run(space, "wait", "bg").code == 143
    run(space, "clean")


def test_clean_leaves_results_that_cannot_be_brought(space: Namespace, name: str) -> None:
    write(space, name, job("echo r >out/result", "bg", mode="d", mappings="[out/]"))
    assert run(space, "bg").code == 0
    wait_for(lambda: space.state("job") == "terminated")
    rules = [
        rule for rule in rules_of(run(space, "cluster", "role").out) if rule["resources"] != ["pods/exec"]
    ]
    refused = run(space.as_user("reader", *rules), "clean")
    assert (refused.code, len(refused.errors)) == (1, 1), refused
    assert "pods/exec" in refused.errors[0]
    assert not (space.sandbox.root / "out/result").exists()
    assert run(space, "clean").code == 0
    assert space.sandbox.read("out/result") == "r\n"


def test_a_running_job_can_be_entered_and_its_ports_reached(space: Namespace, name: str) -> None:
    write(space, name, job(f"echo x >/tmp/mark; {GO}", "bg", mode="d", ports="['8080:80', '90-91:90-91']"))
    started = run(space, "bg")
    forward = (
        f"`kubectl --context test --namespace {space.name} port-forward job/{started.out.strip()} 8080:80`"
    )
    assert f"its ports are not published; {forward} reaches them" in started.err
    wait_for(lambda: space.state("job") == "running")
    entered = run(space, "exec", "bg", stdin=b"cat /tmp/mark; touch /tmp/go; exit 3\n")
    assert (entered.code, entered.out) == (3, "x\n"), entered
    assert run(space, "wait", "bg").code == 0
    run(space, "clean")


# --- what cannot run ---


def failure(space: Namespace, *texts: str) -> str:
    """The only error line of a run that never started, which says all of this."""
    result = run(space, "run", timeout=150)
    assert (result.code, result.out, len(result.errors)) == (1, "", 1), result
    for text in texts:
        assert text in result.errors[0]
    return result.errors[0]


def test_an_image_that_is_not_there_is_named_with_the_cause(space: Namespace, name: str) -> None:
    image = f"{REGISTRY}/team/nowhere:1"
    write(space, name, job("echo no"), settings=f"podSpec: {{containers: [{{name: job, image: {image}}}]}}")
    error = failure(space, "nowhere:1", "not found")
    assert "back-off" not in error.lower()


def test_a_wrong_pull_secret_is_named_with_the_key(space: Namespace, name: str) -> None:
    forbid_pulling(space)
    write(space, name, job("echo no"))
    failure(space, "imagePullSecrets", "401")


def test_a_pull_secret_of_the_project_is_used(space: Namespace, name: str) -> None:
    forbid_pulling(space)
    write(space, name, job("echo yes"), settings="imagePullSecrets: [pull]")
    assert run(space, "run").out == "yes\n"


def test_a_quota_is_named_at_once(space: Namespace, name: str) -> None:
    space.make("resourcequotas", "none", spec={"hard": {"pods": "0"}})
    write(space, name, job("echo no"))
    failure(space, "exceeded quota", "none")


def test_a_missing_service_account_is_named(space: Namespace, name: str) -> None:
    write(space, name, job("echo no"), settings="serviceAccount: nobody")
    failure(space, "nobody", "not found")


def test_a_config_error_is_named(space: Namespace, name: str) -> None:
    variable = "{name: X, valueFrom: {secretKeyRef: {name: missing-one, key: x}}}"
    settings = f"podSpec: {{containers: [{{name: job, env: [{variable}]}}]}}"
    write(space, name, job("echo no"), settings=settings)
    failure(space, "missing-one")


def test_a_job_that_no_node_takes_waits_and_says_so(space: Namespace, name: str) -> None:
    write(space, name, job("echo no"), settings="nodeSelector: {no/such: label}")
    with start(space, "run") as child:
        assert child.stderr
        said = b""
        while b"didn't match" not in said:
            line = child.stderr.readline()
            assert line, said
            said += line
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=60)
    assert (child.returncode, out) == (130, b"")


# --- beside the job ---


def test_a_container_that_ignores_sigterm_beside_the_job(space: Namespace, name: str) -> None:
    deaf = "trap '' TERM; while :; do sleep 1; done"
    write(space, name, job("true", "first"), job("echo done; exit 4"))
    assert run(space, "first").code == 0
    manifest = yaml.safe_load(run(space, "cluster", "manifest", "run").out)
    containers = manifest["spec"]["template"]["spec"]["containers"]
    image = next(each["image"] for each in containers if each["name"] == "job")
    mesh = json.dumps({"name": "mesh", "image": image, "command": ["bash", "-c", deaf]})
    write(space, name, job("echo done; exit 4"), settings=f"podSpec: {{containers: [{mesh}]}}")
    result = run(space, "run", timeout=120)
    assert (result.code, result.out) == (4, "done\n")


# --- rights ---


def rules_of(text: str) -> list[dict[str, list[str]]]:
    roles = [each for each in yaml.safe_load_all(text) if each and each["kind"] == "Role"]
    return [rule for role in roles for rule in role["rules"]]


def test_the_role_that_is_printed_is_enough_and_each_right_is_needed(space: Namespace, name: str) -> None:
    space.sandbox.write("data/x", "x")
    params = "[{name: token, secret: true, default: $TOKEN}]"
    write(space, name, job("cat data/x; bash -c 'exit 3'", mappings="[data/]", params=params))
    shown = run(space, "cluster", "role")
    assert shown.code == 0, shown
    rules = rules_of(shown.out)
    own = Namespace(space.name, space.sandbox.with_env(TOKEN="t"))
    enough = run(own.as_user("enough", *rules), "run")
    assert (enough.code, enough.out) == (3, "x"), enough
    needed = [(rule, kind, verb) for rule in rules for kind in rule["resources"] for verb in rule["verbs"]]
    silent = []
    for number, (without, kind, verb) in enumerate(needed):
        others = [rule for rule in rules if rule is not without]
        kinds = [each for each in without["resources"] if each != kind]
        verbs = [each for each in without["verbs"] if each != verb]
        fewer = [{**without, "resources": kinds}] if kinds else []
        rest = [{**without, "resources": [kind], "verbs": verbs}] if verbs else []
        result = run(own.as_user(f"user{number}", *others, *fewer, *rest), "run", timeout=150)
        named = any(verb in line and kind in line for line in result.err.splitlines())
        if not (result.code == 3 or (result.code == 1 and named)) or (result.code == 3 and not result.out):
            silent.append((kind, verb, result))
        for kind_left, names in space.left().items():  # what it could not remove itself
            for each in names:
                ask("DELETE", space.path(kind_left, each), {"propagationPolicy": "Background"})
    assert silent == []


# --- what is shown ---


def test_kubectl_takes_the_manifest_and_the_job_runs_by_itself(space: Namespace, name: str) -> None:
    # To kubectl's parser, the first is a number without quotes, and the second is true.
    values = ("12e3", "y")
    write(space, name, job(f'[ "$*" = "{" ".join(values)}" ]', args="[{name: a}, {name: b}]"))
    assert run(space, "run", *values).code == 0  # the image has been pushed
    shown = run(space, "cluster", "manifest", "run", *values)
    assert shown.code == 0, shown
    assert re.search(r"image: \S+@sha256:[0-9a-f]{64}", shown.out)
    apply = ("kubectl", "apply", "-n", space.name, "-f", "-")
    with space.sandbox.popen(*apply, stdin=subprocess.PIPE) as done:
        done.communicate(shown.out.encode(), timeout=60)
    assert done.returncode == 0
    wait_for(lambda: space.all("jobs")[0]["status"].get("succeeded") == 1)
    space.delete("jobs", space.all("jobs")[0]["metadata"]["name"])


def test_check_reaches_the_cluster(space: Namespace, name: str) -> None:
    write(space, name, job("true"))
    shown = run(space, "cluster", "check")
    assert shown.code == 0, shown
    assert "1.20.2" in shown.out + shown.err


def test_restricted_pods_have_every_right_dropped(space: Namespace, name: str) -> None:
    write(space, name, job('id -u; grep -i "capeff\\|nonewprivs" /proc/self/status'), user='"1234"')
    result = run(space, "run")
    assert result.code == 0, result
    assert result.out.split() == ["1234", "CapEff:", "0" * 16, "NoNewPrivs:", "1"]
    (manifest,) = yaml.safe_load_all(run(space, "cluster", "manifest", "run").out)
    pod = manifest["spec"]["template"]["spec"]
    for each in (*pod["initContainers"], *pod["containers"]):
        context = {**pod.get("securityContext", {}), **each.get("securityContext", {})}
        assert context["runAsNonRoot"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"]["drop"] == ["ALL"]
        assert context["seccompProfile"]["type"] == "RuntimeDefault"


def test_a_place_that_is_not_there_is_reported_in_a_line(space: Namespace, name: str) -> None:
    write(space, name, job("echo no"))
    for place, text in (
        ("k8s://nowhere", "nowhere"),
        (f"k8s://test/{space.name}-no", f"{space.name}-no"),
    ):
        result = space.sandbox.run("-d", place, "run")
        assert (result.out, len(result.errors)) == ("", 1), result
        assert result.code in (1, 2)
        assert text in result.errors[0]
