"""When images are built, when they are not, and what is left behind; with either builder."""

import json
import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest
from harness import BASE, CLIENTS, Sandbox, docker, job, project

pytestmark = pytest.mark.engine


def image_id(name: str) -> str:
    return docker("image", "inspect", "-f", "{{.Id}}", name)


def labels(name: str) -> dict[str, str]:
    return dict(json.loads(docker("image", "inspect", "-f", "{{json .Config.Labels}}", name)))


def dangling() -> set[str]:
    return set(docker("images", "-q", "--no-trunc", "--filter", "dangling=true").split())


def builds(sandbox: Sandbox, *words: str) -> bool:
    """Whether a run built something."""
    result = sandbox.run("-V", *words)
    assert result.code == 0, result.err
    return re.search(r"^\+ .* build ", result.err, re.M) is not None


# --- when ---


@pytest.mark.slow
def test_unchanged_means_no_build(builder: Sandbox, name: str) -> None:
    builder.write("a.txt", "1")
    project(builder, name, job("cat a.txt"))
    assert builds(builder, "run")
    first = image_id(name)
    assert not builds(builder, "run")
    os.utime(builder.root / "a.txt", (1, 1))
    assert not builds(builder, "run")
    assert image_id(name) == first
    builder.write("a.txt", "2")
    os.utime(builder.root / "a.txt", (1, 1))
    assert builds(builder, "run")
    assert builder.ok("run") == "2"
    (builder.root / "a.txt").chmod(0o755)
    assert builds(builder, "run")
    builder.write("b.txt", "")
    assert builds(builder, "run")
    (builder.root / "b.txt").unlink()
    assert builds(builder, "run")
    builder.write("skelebot.yaml", (builder.root / "skelebot.yaml").read_text() + "commands: ['true']\n")
    assert builds(builder, "run")
    assert not builds(builder, "run")


def test_what_was_hashed_is_remembered(sandbox: Sandbox, name: str) -> None:
    big = sandbox.write("data/big", b"x" * 5_000_000)
    sandbox.write("script", "1")
    project(sandbox, name, job("true"))
    old = time.time() - 100
    os.utime(big, (old, old))
    time.sleep(2.1)
    sandbox.ok("run")
    sandbox.write("script", "2")
    trace = sandbox.root.parent / "trace"
    opened = sandbox.with_env(PYTHONPATH=str(audit(sandbox.root.parent, trace)))
    assert builds(opened, "run")
    read = trace.read_text()
    assert "/script" in read
    # Read for the context that is sent, but not to be hashed: once, not twice.
    assert read.count(f"{sandbox.root}/data/big\n") <= 1


def audit(folder: Path, trace: Path) -> Path:
    """A folder whose sitecustomize notes every file that Python opens."""
    import skelebot

    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import sys\n"
        f"sys.path.append({str(Path(skelebot.__file__).parent.parent)!r})\n"
        f"out = open({str(trace)!r}, 'a', buffering=1)\n"
        "sys.addaudithook(lambda e, a: e == 'open' and isinstance(a[0], str) and print(a[0], file=out))\n"
    )
    return site


def test_the_same_tree_elsewhere_has_the_same_fingerprint(sandbox: Sandbox, name: str) -> None:
    sandbox.write("src/a.py", "1", mode=0o644)
    (sandbox.root / "link").symlink_to("src/a.py")
    project(sandbox, name, job("true"))
    sandbox.ok("run")
    first = labels(name)["skelebot.context"]
    there = sandbox.root.parent / "there"
    shutil.copytree(
        sandbox.root, there, symlinks=True, ignore=shutil.ignore_patterns(".skelebot", "Dockerfile")
    )
    (there / "src/a.py").chmod(0o664)
    os.utime(there / "src/a.py", (5, 5))
    remove_images(name)
    sandbox.ok("run", cwd=there)
    assert labels(name)["skelebot.context"] == first


@pytest.mark.slow
def test_a_jobs_own_mapped_folder_does_not_make_it_rebuild(builder: Sandbox, name: str) -> None:
    project(
        builder, name,
        job("date +%N > out/x", "write", mappings="[out/]"),
        job("cat out/x", "read"),
        job("true", "other", mappings="['elsewhere/:app/out/']"),
    )  # fmt: skip
    assert builds(builder, "write")
    assert not builds(builder, "write")
    assert not builds(builder, "other")
    written = builder.ok("write", "+", "read")
    assert written == builder.read("out/x")
    assert not builds(builder, "read")
    assert not builds(builder, "write")


def test_the_next_link_sees_a_change_of_the_same_size_at_once(sandbox: Sandbox, name: str) -> None:
    project(
        sandbox, name,
        job("echo $1 > out/x", "write", mappings="[out/]", args="[{name: a}]"), job("cat out/x", "read"),
    )  # fmt: skip
    chain = [w for i in range(4) for w in ("write", str(i), "+", "read", "+")][:-1]
    assert sandbox.ok(*chain) == "0\n1\n2\n3\n"


def test_an_image_removed_by_hand_is_built_again(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("true"))
    sandbox.ok("run")
    remove_images(name)
    assert builds(sandbox, "run")


def remove_images(name: str) -> None:
    """The project's images by all their names: each checkout has one of its own."""
    docker("rmi", "-f", *docker("images", name, "--format", "{{.Repository}}:{{.Tag}}").split())


def test_two_first_builds_at_once(builder: Sandbox, name: str) -> None:
    project(builder, name, job("echo ok"), commands="['sleep 1']")
    out: list[str] = []
    threads = [threading.Thread(target=lambda: out.append(builder.ok("run"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert out == ["ok\n"] * 3


def test_torn_memory_is_no_harm(sandbox: Sandbox, name: str) -> None:
    sandbox.write("f", "x")
    project(sandbox, name, job("true"))
    time.sleep(2.1)
    sandbox.ok("run")
    for file in (sandbox.root / ".skelebot").glob(f"{name}*"):
        file.write_bytes(b'{"f": [1')
    assert not builds(sandbox, "run")
    for file in (sandbox.root / ".skelebot").glob(f"{name}*.hashes"):
        file.write_text('["not", "a", "mapping"]')
    for file in (sandbox.root / ".skelebot").glob(f"{name}*.stats"):
        file.unlink()
    assert not builds(sandbox, "run")


def test_a_project_that_cannot_be_written_runs(anyone: Sandbox, name: str) -> None:
    project(anyone, name, job("echo ok"))
    anyone.root.chmod(0o555)
    assert anyone.ok("run") == "ok\n"
    assert anyone.uid == 0 or os.listdir(anyone.root) == ["skelebot.yaml"]


# --- what is left behind ---


@pytest.mark.slow
def test_repeated_builds_leave_nothing(builder: Sandbox, name: str) -> None:
    for i in range(3):
        builder.write("f", str(i))
        builder.write("big", os.urandom(1000) * 11_000)
        project(builder, name, job("true"), commands=f"['echo {name} {i}']")
        builder.ok("run")
        assert not mine(dangling(), name)
    tags = docker("images", name, "--format", "{{.Tag}}").split()
    assert sorted(re.sub("-.*", "", tag) for tag in tags) == ["files", "latest", "latest"]  # and its own


def mine(images: set[str], name: str) -> dict[str, str]:
    """Of images those whose history has the name of a project in it, and whose they say they are."""
    found = {}
    for image in images:
        if name in docker("history", "--no-trunc", image, check=False):
            inspected = docker("image", "inspect", "-f", '{{index .Config.Labels "skelebot.project"}}', image)
            found[image] = inspected
    return found


def test_a_failed_build_leaves_only_what_is_labelled(builder: Sandbox, name: str) -> None:
    project(builder, name, job("true"), build=f"{{commands: ['echo {name}', 'false']}}")
    assert builder.run("run").code == 1
    assert set(mine(dangling(), name).values()) <= {name}
    project(builder, name, job("true"), build=f"{{commands: ['echo {name}']}}")
    builder.ok("run")
    assert not mine(dangling(), name)


def test_a_failed_build_is_gone_on_with(builder: Sandbox, name: str) -> None:
    slow = f"'echo {name} > /once && date +%N >> /once'"
    project(builder, name, job("cat /once"), build=f"{{commands: [{slow}, 'cat /once; false']}}")
    failed = builder.run("run")
    assert failed.code == 1
    project(builder, name, job("cat /once"), build=f"{{commands: [{slow}]}}")
    kept = builder.ok("run").splitlines()[1]
    assert kept in failed.err


def test_a_superseded_image_stays_while_a_container_uses_it(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("sleep 100", mode="d"), job("true", "b"))
    container = sandbox.ok("run").strip()
    first = image_id(name)
    sandbox.write("f", "")
    sandbox.ok("b")
    assert image_id(first) == first
    docker("rm", "-f", container)
    sandbox.write("f", "2")
    sandbox.ok("b")
    assert docker("image", "inspect", first, check=False) == "[]"


# --- heavy files ---


def layers(name: str) -> list[str]:
    return list(json.loads(docker("image", "inspect", "-f", "{{json .RootFS.Layers}}", name)))


@pytest.mark.slow
def test_a_heavy_folder_keeps_its_layer_when_a_script_changes(builder: Sandbox, name: str) -> None:
    for i in range(15):
        builder.write(f"data/many/{i}", os.urandom(1_000_000))
    builder.write("src/big.bin", os.urandom(12_000_000))
    builder.write("data/many/odd [1]$x", "odd")
    builder.write("data/small", "s")
    builder.write("src/a.py", "print(1)")
    project(
        builder,
        name,
        job("ls data data/many src | wc -l; md5sum src/big*; cat data/many/o* src/a.py data/small"),
    )
    first = builder.ok("run")
    assert first.startswith("25\n"), first
    assert first.endswith("oddprint(1)s")
    before = layers(name)
    result = builder.run("run")
    assert result.code == 0
    builder.write("src/a.py", "print(2)")
    changed = builder.run("-V", "run")
    assert changed.out == first.replace("print(1)", "print(2)")
    assert layers(name)[:-1] == before[:-1]
    sent = re.findall(
        r"(?:Sending build context to Docker daemon|transferring context:) +([\d.]+)([kM]?B)", changed.err
    )
    assert all(unit in ("kB", "B") for _, unit in sent), sent
    builder.write("data/many/3", os.urandom(1_000_000))
    builder.ok("run")
    assert builder.ok("-n", "run") == builder.ok("run")


@pytest.mark.slow
def test_a_changed_requirements_file_counts_beside_a_heavy_one(builder: Sandbox, name: str) -> None:
    builder.write("big", os.urandom(11_000_000))
    show = job("python -c 'import six; print(six.__version__)'")
    project(builder, name, show, dependencies="['req:r.txt']", ignores="[r.txt]")
    for version in ("1.15.0", "1.16.0"):
        builder.write("r.txt", f"six=={version}\n")
        assert builder.ok("run") == f"{version}\n"


def test_a_large_context_is_warned_about(sandbox: Sandbox, name: str) -> None:
    sandbox.write("data/one", b"\0" * 40_000_000)
    sandbox.write("models/two", b"\0" * 20_000_000)
    project(sandbox, name, job("true"))
    err = sandbox.run("run").err
    parts = r"data \(40\.0 MB\), models \(20\.0 MB\)"
    assert re.search(rf"WARN +\| the image gets 60\.0 MB of files; .*: {parts}", err)
    assert "WARN" not in sandbox.run("run").err


# --- the Dockerfile for the user ---


def test_the_dockerfile_is_written_for_the_user(builder: Sandbox, name: str) -> None:
    project(builder, name, job("ls"), dependencies="[six=1.16.0]")
    assert builder.ok("run") == "skelebot.yaml\n"
    written = builder.read("Dockerfile")
    assert "Written by Skelebot" in written
    assert f"FROM {BASE}" in written
    client = builder.env.get("SKELEBOT_DOCKER", "docker")
    subprocess.run(
        [client, "build", "-q", "-t", f"{name}-own", "."], cwd=builder.root, check=True, capture_output=True
    )
    assert (
        docker("run", "--rm", f"{name}-own", "python", "-c", "import six; print(six.__version__)") == "1.16.0"
    )
    docker("rmi", "-f", f"{name}-own")
    (builder.root / "Dockerfile").write_text(written.replace("WORKDIR", "# WORKDIR"))
    builder.write("f", "")
    result = builder.run("run")
    assert result.out == "Dockerfile\nf\nskelebot.yaml\n"
    assert "your Dockerfile was kept but not built" in result.err
    assert "# WORKDIR" in builder.read("Dockerfile")


def test_a_users_own_dockerfile_is_never_touched(sandbox: Sandbox, name: str) -> None:
    sandbox.write("Dockerfile", "FROM nowhere\n")
    sandbox.write(".dockerignore", "x\n")
    project(sandbox, name, job("ls"))
    assert sandbox.ok("run") == "Dockerfile\nskelebot.yaml\n"
    assert sandbox.read("Dockerfile") == "FROM nowhere\n"
    assert sandbox.read(".dockerignore") == "x\n"


def test_a_dockerfile_of_ones_own_is_built_as_it_is(buildkit: Sandbox, name: str) -> None:
    text = f"""FROM {BASE}
WORKDIR /app
RUN --mount=type=cache,target=/x echo {name} > /y \\
 && echo "RUN not one"
COPY . .
"""
    buildkit.write("Mine", text)
    project(buildkit, name, job("cat /y"), dockerfile="Mine", build="{inherit: [proxy, ca]}")
    assert buildkit.ok("run") == f"{name}\n"
    assert "skelebot.project" not in docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", name)
    assert docker("images", "-q", "--filter", f"label=skelebot.project={name}")


def test_what_a_command_caches_stays_in_the_image(builder: Sandbox, name: str) -> None:
    caching = "{commands: ['mkdir -p ~/.cache && echo w > ~/.cache/w']}"
    project(builder, name, job("cat ~/.cache/w"), build=caching, dependencies="[six]")
    assert builder.ok("run") == "w\n"
    assert docker("run", "--rm", name, "ls", "-A", "/root/.cache") == "w"


# --- jobs' own images, the primary job ---


def test_a_job_with_ignores_has_an_image_of_its_own(sandbox: Sandbox, name: str) -> None:
    sandbox.write("secret", "")
    project(sandbox, name, job("ls", ignores="[secret]"), job("ls", "all"))
    assert sandbox.ok("run") == "skelebot.yaml\n"
    assert sandbox.ok("all") == "secret\nskelebot.yaml\n"
    for which in ("run", "all"):
        assert not builds(sandbox, which)
    tags = docker("images", name, "--format", "{{.Tag}}").split()
    assert {re.sub("-[0-9a-f]{8}$", "", tag) for tag in tags} == {"job-run", "latest"}


def test_the_primary_job_as_cmd(builder: Sandbox, name: str) -> None:
    builder.write("show.py", "import json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    weird = "$HOME `id` \"'\\\\ é"
    params = (
        "[{name: runner, alt: r, default: $RUNNER}, {name: other, default: '${OTHER}'}, "
        f"{{name: text, default: {json.dumps(weird)}}}, {{name: fast, accepts: boolean, default: true}}, "
        "{name: slow, accepts: boolean}, {name: xs, accepts: list, default: [1.0, b c]}]"
    )
    project(builder, name, job("show.py", params=params), primaryJob="run")
    builder.ok("run")
    rest = ["--text", weird, "--fast", "--xs", "1.0", "b c"]
    assert json.loads(docker("run", "--rm", name)) == rest
    mine = ("-e", "RUNNER=$(id) x", "-e", "OTHER=")
    assert json.loads(docker("run", "--rm", *mine, name)) == ["--runner", "$(id) x", "--other", "", *rest]
    assert json.loads(builder.with_env(RUNNER="me").ok("run")) == ["--runner", "me", *rest]


def test_the_primary_job_as_entrypoint(builder: Sandbox, name: str) -> None:
    builder.write("show.py", "import json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    args = {"args": "[{name: a}]", "params": "[{name: runner}]"}
    project(
        builder, name, job("show.py", **args), job("echo hi", "b"), primaryJob="run", primaryExe="ENTRYPOINT"
    )
    assert json.loads(builder.ok("run", "x")) == ["x"]
    assert json.loads(docker("run", "--rm", name, "--runner", "M E", "$x")) == ["--runner", "M E", "$x"]
    assert builder.ok("b") == "hi\n"


@pytest.mark.parametrize("what", ["args: '[{name: a}]'", "params: '[{name: p, secret: true, default: x}]'"])
def test_a_primary_job_that_cmd_cannot_hold(sandbox: Sandbox, name: str, what: str) -> None:
    key, _, value = what.partition(": ")
    project(sandbox, name, job("true", **{key: value.strip("'")}), primaryJob="run")
    result = sandbox.run("prime")
    assert (result.code, len(result.errors)) == (2, 1)
    assert "primary" in result.errors[0]


def test_the_user_of_the_base_may_not_install_but_the_build_can(sandbox: Sandbox, name: str) -> None:
    tag = f"{name}-base"
    text = f"FROM {BASE}\nRUN useradd -u 4321 -m worker\nUSER worker\n".encode()
    subprocess.run([CLIENTS[0], "build", "-q", "-t", tag, "-"], input=text, check=True, capture_output=True)
    sandbox.write("skelebot.yaml", f"""
        name: {name}
        baseImage: {tag}
        build: {{packages: [tree]}}
        dependencies: [six=1.16.0]
        jobs:
        - {job("id -un; command -v tree; python -c 'import six; print(six.__version__)'")}
    """)  # fmt: skip
    assert sandbox.ok("run") == "worker\n/usr/bin/tree\n1.16.0\n"
    assert docker("image", "inspect", "-f", "{{.Config.User}}", name) == "worker"
    shown = [line for line in sandbox.read("Dockerfile").splitlines() if line.startswith(("USER", "RUN"))]
    assert (shown[0], shown[-1]) == ("USER root", "USER worker")
    docker("rmi", "-f", name, tag)


# --- small things ---


def test_defaults_are_left_out_and_can_be_brought_back(sandbox: Sandbox, name: str) -> None:
    for file in (".env", ".git/HEAD", ".venv/x", "sub/__pycache__/a.pyc", ".skelebot/x"):
        sandbox.write(file, "")
    find = "find . -type f | sort"
    project(sandbox, name, job(find), job(find, "back", ignores="['!.env']"))
    assert sandbox.ok("run") == "./skelebot.yaml\n"
    assert sandbox.ok("back") == "./.env\n./skelebot.yaml\n"


def test_a_timezone_without_tzdata(sandbox: Sandbox, name: str) -> None:
    debian = os.environ.get("SKELEBOT_TEST_DEBIAN", BASE)
    sandbox.write(
        "skelebot.yaml",
        f"name: {name}\nbaseImage: {debian}\ntimezone: Asia/Tokyo\njobs:\n- {job('date +%Z')}\n",
    )
    assert sandbox.ok("run") == "JST\n"


def test_a_gpu_that_is_not_there_is_a_clear_error(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("true"), gpu="true")
    result = sandbox.run("run")
    if result.code != 0:
        assert (result.code, len(result.errors)) == (1, 1)
        assert "GPUs need" in result.errors[0]


# --- what makes an image stale ---


def test_a_change_that_keeps_size_and_time_is_seen(builder: Sandbox, name: str) -> None:
    project(builder, name, job("cat a.txt"))
    for text in ("1", "2", "3"):
        path = builder.write("a.txt", text)
        os.utime(path, (1000, 1000))
        assert builder.ok("run") == text


def test_a_change_of_mode_is_seen(sandbox: Sandbox, name: str) -> None:
    path = sandbox.write("tool", "x", mode=0o755)
    project(sandbox, name, job("stat -c %a tool"))
    for mode in ("755", "700", "600"):
        path.chmod(int(mode, 8))
        assert sandbox.ok("run") == f"{mode}\n"


def test_a_base_that_was_rebuilt_is_seen(sandbox: Sandbox, name: str) -> None:
    base = f"{name}-base"
    project(sandbox, name, job("cat /v"))
    text = (sandbox.root / "skelebot.yaml").read_text().replace(BASE, base)
    sandbox.write("skelebot.yaml", text)
    for version in ("one", "two"):
        lines = f"FROM {BASE}\nRUN echo {version} > /v\n".encode()
        subprocess.run(
            [CLIENTS[0], "build", "-q", "-t", base, "-"], input=lines, check=True, capture_output=True
        )
        assert sandbox.ok("run") == f"{version}\n"
    assert not builds(sandbox, "run")
    docker("rmi", "-f", name, base)


def test_a_requirements_file_under_a_mapping_counts(sandbox: Sandbox, name: str) -> None:
    show = job("python -c 'import six; print(six.__version__)'", mappings="[conf/]")
    project(sandbox, name, show, dependencies="['req:conf/r.txt']")
    for version in ("1.15.0", "1.16.0"):
        sandbox.write("conf/r.txt", f"six=={version}\n")
        assert sandbox.ok("run") == f"{version}\n"


def test_a_mapping_of_the_whole_project_does_not_make_it_rebuild(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("date > made", mappings="['./:app/']"))
    assert builds(sandbox, "run")
    assert not builds(sandbox, "run")


def test_jobs_that_look_alike_as_tags_have_images_of_their_own(sandbox: Sandbox, name: str) -> None:
    for file in ("x", "y"):
        sandbox.write(file, "")
    project(sandbox, name, job("ls", "a b", ignores="[x]"), job("ls", "a-b", ignores="[y]"))
    assert (sandbox.ok("a b"), sandbox.ok("a-b")) == ("skelebot.yaml\ny\n", "skelebot.yaml\nx\n")
    assert not builds(sandbox, "a b")
    assert sandbox.ok("-s", "a-b") == "skelebot.yaml\nx\n"


@pytest.mark.slow
def test_as_many_heavy_files_as_have_layers_of_their_own(builder: Sandbox, name: str) -> None:
    for i in range(20):
        path = builder.write(f"data/f{i}", b"")
        os.truncate(path, 10_000_001)
    project(builder, name, job("ls data | wc -l"))
    assert builder.ok("run") == "20\n"
    assert docker("history", "--format", "{{.Size}}", name).split().count("10MB") == 20


def test_a_file_that_vanishes_meanwhile_is_no_harm(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("true"))
    busy = sandbox.popen(
        "bash", "-c", "while :; do for i in 1 2 3 4 5 6 7 8; do echo > f$i; done; rm -f f?; done"
    )
    try:
        results = [sandbox.run("run") for _ in range(5)]
    finally:
        busy.kill()
        busy.wait()
    assert [(r.code, r.errors) for r in results] == [(0, [])] * 5


def test_a_primary_command_on_a_base_with_an_entrypoint(sandbox: Sandbox, name: str) -> None:
    base = f"{name}-base"
    lines = f'FROM {BASE}\nENTRYPOINT ["python3"]\n'.encode()
    subprocess.run([CLIENTS[0], "build", "-q", "-t", base, "-"], input=lines, check=True, capture_output=True)
    project(sandbox, name, job("echo hi"), primaryJob="run")
    text = (sandbox.root / "skelebot.yaml").read_text().replace(BASE, base)
    sandbox.write("skelebot.yaml", text)
    assert sandbox.ok("run") == "hi\n"
    assert docker("run", "--rm", name) == "hi"
    docker("rmi", "-f", name, base)


def test_images_that_were_in_use_are_tidied_up_later(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("touch out/ready; sleep 6", "slow", mappings="[out/]"), job("true"))
    slow = sandbox.start("slow", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not (sandbox.root / "out/ready").exists():
        time.sleep(0.1)
    for i in range(2):
        sandbox.write("f", str(i))
        sandbox.ok("run")
    slow.communicate(timeout=60)
    label = ("--filter", f"label=skelebot.project={name}", "--filter", "dangling=true")
    assert docker("images", "-q", *label) == ""
