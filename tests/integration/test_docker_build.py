"""Images built by a real engine: what goes in, what stays out, and what failures say."""

import json
import os
import re
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from harness import BASE, CLIENTS, ORDINARY, Sandbox, docker, job, project

engine = pytest.mark.engine


# --- what goes in ---


@engine
@pytest.mark.parametrize("client", CLIENTS)
def test_dependencies_are_installed(sandbox: Sandbox, name: str, client: str) -> None:
    source = "python -c 'import six, idna; print(six.__version__, idna.__version__)'"
    project(sandbox, name, job(source), dependencies="[six=1.16.0, 'idna>=3.6,<3.7']")
    assert sandbox.with_env(SKELEBOT_DOCKER=client).ok("run") == "1.16.0 3.6\n"


@engine
def test_a_dependency_that_is_not_there_fails_with_the_installers_message(
    sandbox: Sandbox, name: str
) -> None:
    project(sandbox, name, job("true"), dependencies="[six=999]")
    result = sandbox.run("run")
    assert result.code == 1
    assert re.search(r"no version of six==999|No matching distribution found for six==999", result.err)
    assert len(result.errors) == 1


@engine
def test_without_dependencies_nothing_is_installed(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("true"))
    assert "install" not in sandbox.ok("--dry-run", "run")
    assert "pip install" not in sandbox.run("run").err


@engine
def test_the_project_is_the_working_folder(sandbox: Sandbox, name: str) -> None:
    sandbox.write("src/pkg/mod.py", "print('ran')")
    sandbox.write("src/pkg/__init__.py", "")
    project(sandbox, name, job("pwd; python -m src.pkg.mod"))
    below = sandbox.root / "src/pkg"
    assert sandbox.ok("run", cwd=below) == "/app\nran\n"


@engine
@pytest.mark.parametrize("client", CLIENTS)
def test_ignores_are_the_engines(sandbox: Sandbox, name: str, client: str) -> None:
    files = """a.log keep.log sub/b.log data/x data/deep/y data/keep/z tmp1/f tmpx/f doc.md README.md
        sub/README.md .env .git/config venv/x env.list weird[1].txt sub/deep/n.py"""
    for file in files.split():
        sandbox.write(file, "x")
    sandbox.write(".dockerignore", "# comment\n*.md\n")
    ignores = ["**/*.log", "!keep.log", "data", "!data/keep", "tmp?", "!README.md", "/sub/deep/*.py"]
    find = "find . -type f | sort"
    project(sandbox, name, job(find, ignores="['weird*']"), job(find, "all"),
            ignores=json.dumps(ignores), envFile="env.list")  # fmt: skip
    sandbox.write("env.list", "A=1\n")
    mine = sandbox.with_env(SKELEBOT_DOCKER=client)
    kept = {"./keep.log", "./data/keep/z", "./README.md", "./sub/README.md", "./skelebot.yaml"}
    assert set(mine.ok("run").split("\n")) == {*kept, ""}
    assert set(mine.ok("all").split("\n")) == {*kept, "./weird[1].txt", ""}
    # The same patterns read by the engine itself.
    defaults = ["**/.git", "**/.env", "**/venv", ".skelebot", "env.list", ".dockerignore", "Dockerfile"]
    theirs = sandbox.root.parent / "theirs"
    shutil.copytree(sandbox.root, theirs)
    (theirs / ".dockerignore").write_text("\n".join(["*.md", *ignores, *defaults]))
    (theirs / "Dockerfile").write_text(f"FROM {BASE}\nCOPY . /app/\nWORKDIR /app\n")
    subprocess.run(
        [client, "build", "-q", "-t", f"{name}-theirs", str(theirs)], check=True, capture_output=True
    )
    listed = docker("run", "--rm", f"{name}-theirs", "sh", "-c", "find . -type f | sort")
    docker("rmi", "-f", f"{name}-theirs")
    assert set(listed.split("\n")) == kept | {"./weird[1].txt"}


@engine
def test_an_ignored_source_is_an_error_and_can_be_brought_back(sandbox: Sandbox, name: str) -> None:
    sandbox.write("gen/x.py", "print(1)")
    project(sandbox, name, job("gen/x.py"), job("gen/x.py", "back", ignores="['!gen/x.py']"), ignores="[gen]")
    result = sandbox.run("run")
    assert result.code == 2
    assert "left out of the image" in result.errors[0]
    assert sandbox.ok("back") == "1\n"
    assert sandbox.ok("-n", "run") == "1\n"


@engine
def test_the_file_modes_and_links_of_the_project_arrive(sandbox: Sandbox, name: str) -> None:
    sandbox.write("tool", "#!/bin/sh\necho ran\n", mode=0o755)
    (sandbox.root / "link").symlink_to("tool")
    project(sandbox, name, job("./tool; readlink link; ./link"))
    assert sandbox.ok("run") == "ran\ntool\nran\n"


@engine
def test_hostile_values_never_become_dockerfile_lines(sandbox: Sandbox, name: str) -> None:
    hostile = "a\"b'c $(touch /pwned) ; RUN touch /pwned # $HOME \\ `id`"
    sandbox.write("VERSION", '1.0 $(id)"x')
    sandbox.write("skelebot.yaml", json.dumps({
        "name": name, "baseImage": BASE, "maintainer": hostile, "description": hostile, "contact": hostile,
        "jobs": [{"name": hostile, "source": "ls /pwned", "help": hostile}],
    }))  # fmt: skip
    result = sandbox.run(hostile)
    assert "No such file" in result.err
    labels = json.loads(docker("image", "inspect", "-f", "{{json .Config.Labels}}", name))
    assert labels["org.opencontainers.image.authors"] == hostile
    assert labels["org.opencontainers.image.version"] == '1.0 $(id)"x'


@engine
@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"baseImage": '"x\\nRUN touch /pwned"'}, "baseImage"),
        ({"baseImage": '"$(id)"'}, "baseImage"),
        ({"maintainer": '"a\\nRUN id"'}, "maintainer"),
        ({"dependencies": '["six; $(id)"]'}, "dependencies"),
        ({"dependencies": '["six\\nRUN id"]'}, "dependencies"),
        ({"dependencies": '["--index-url=http://x"]'}, "dependencies"),
        ({"build": '{packages: ["git; id"]}'}, "packages"),
        ({"host": '"-v /:/x"'}, "host"),
        ({"user": '"root; id"'}, "user"),
        ({"pythonVersion": '"3.12\\nRUN id"'}, "pythonVersion"),
        ({"timezone": '"../etc/passwd"'}, "timezone"),
    ],
)
def test_hostile_values_are_refused(sandbox: Sandbox, name: str, keys: dict[str, str], words: str) -> None:
    given = {"name": name, "baseImage": BASE, **keys}
    text = "\n".join(f"{k}: {v}" for k, v in given.items())
    sandbox.write("skelebot.yaml", f"{text}\njobs:\n- {job('true')}\n")
    result = sandbox.run("run")
    assert (result.code, result.out) == (2, ""), result
    assert words in result.errors[0]


@engine
def test_ones_own_dockerfile(sandbox: Sandbox, name: str) -> None:
    sandbox.write("docker/Mine", f"FROM {BASE}\nRUN echo mine > /mine\nWORKDIR /app\nCOPY . .\n")
    project(sandbox, name, job("cat /mine; ls"), dockerfile="docker/Mine")
    assert sandbox.ok("run") == "mine\ndocker\nskelebot.yaml\n"
    assert docker("images", "-q", "--filter", f"label=skelebot.project={name}")


@engine
def test_build_packages_commands_and_timezone_in_order(sandbox: Sandbox, name: str) -> None:
    sandbox.write("mark", "")
    project(
        sandbox, name, job("cat /early /late; date +%Z; command -v tree"),
        build="{packages: [tree], commands: ['command -v tree && ls -A /app 2>/dev/null | wc -l > /early']}",
        commands="['ls mark > /late']", timezone="Asia/Tokyo",
    )  # fmt: skip
    assert sandbox.ok("run") == "0\nmark\nJST\n/usr/bin/tree\n"


# --- skipping, sharing, leaving alone ---


@engine
def test_skip_build_uses_the_last_image(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("cat f"))
    missing = sandbox.run("-s", "run")
    assert missing.code == 1
    assert "no image" in missing.errors[0]
    sandbox.write("f", "one")
    assert sandbox.ok("run") == "one"
    sandbox.write("f", "two")
    assert sandbox.ok("-s", "run") == "one"
    assert sandbox.ok("run") == "two"


@engine
def test_parallel_runs_do_not_disturb_each_other(sandbox: Sandbox, name: str) -> None:
    jobs = [job(f"ls; sleep 1; echo {i}", f"j{i}", ignores=f"['only{i}']") for i in range(4)]
    for i in range(4):
        sandbox.write(f"only{i}", "")
    project(sandbox, name, *jobs)
    out: dict[int, str] = {}
    threads = [threading.Thread(target=lambda i=i: out.update({i: sandbox.ok(f"j{i}")})) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        assert out[i].split() == [f"only{k}" for k in range(4) if k != i] + ["skelebot.yaml", str(i)]


@engine
def test_the_environment_names_the_image(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name.upper(), job("true"))
    sandbox.write("skelebot-Dev_1.yaml", "description: dev\n")
    sandbox.ok("-e", "Dev_1", "run")
    assert docker("images", "-q", f"{name}-dev_1")
    docker("rmi", f"{name}-dev_1")  # its label has the name in capitals


@engine
def test_an_ephemeral_project_gets_no_dockerfile(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("true"), ephemeral="true")
    sandbox.ok("run")
    assert sorted(os.listdir(sandbox.root)) == [".skelebot", "skelebot.yaml"]
    assert (sandbox.root / ".skelebot/.gitignore").read_text() == "*\n"


# --- failures ---


def test_no_engine(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("true"), job("true", "only", native="never"))
    dead = sandbox.with_env(DOCKER_HOST="unix:///nowhere/docker.sock")
    result = dead.run("run")
    assert (result.code, len(result.errors)) == (1, 1)
    assert "no Docker engine answers at unix:///nowhere/docker.sock" in result.errors[0]
    assert "-n" in result.errors[0]
    assert "-n" not in dead.run("only").errors[0]


def test_no_client(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("true"))
    result = sandbox.with_env(SKELEBOT_DOCKER="no-such-docker").run("run")
    assert result.code == 127
    assert "no-such-docker is not installed" in result.errors[0]


@engine
def test_no_such_host(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("true"))
    for host in ("tcp://no-such-host.invalid:2375", "no-such-context"):
        result = sandbox.run("-d", host, "run")
        assert (result.code, len(result.errors)) == (1, 1), result
        assert host in result.errors[0]
        assert "-n" in result.errors[0]


@engine
@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a socket that another user may not open")
def test_no_permission_on_the_socket(name: str, tmp_path: Path) -> None:
    from harness import make_sandbox

    for sandbox in make_sandbox(ORDINARY):
        path = sandbox.root.parent / "docker.sock"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen()
            path.chmod(0o600)
            project(sandbox, name, job("true"))
            result = sandbox.with_env(DOCKER_HOST=f"unix://{path}").run("run")
        assert (result.code, len(result.errors)) == (1, 1), result
        assert "no permission on the Docker socket" in result.errors[0]


@engine
@pytest.mark.parametrize("client", CLIENTS)
def test_a_base_image_that_cannot_be_pulled(sandbox: Sandbox, name: str, client: str) -> None:
    sandbox.write(
        "skelebot.yaml", f"name: {name}\nbaseImage: no-such-org/no-such-image:1\njobs:\n- {job('true')}\n"
    )
    result = sandbox.with_env(SKELEBOT_DOCKER=client).run("run")
    assert (result.code, len(result.errors)) == (1, 1), result
    assert "the base image no-such-org/no-such-image:1 cannot be pulled" in result.errors[0]


@engine
def test_a_command_that_fails(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("true"), commands="['echo broken >&2; false']")
    result = sandbox.run("run")
    assert (result.code, len(result.errors)) == (1, 1)
    assert "could not be built" in result.errors[0]
    assert "broken" in result.err


@engine
def test_a_file_that_cannot_be_read(anyone: Sandbox, name: str) -> None:
    if anyone.uid == 0:
        pytest.skip("root can read every file")
    anyone.write("locked", "x", mode=0)
    project(anyone, name, job("true"), job("true", "without", ignores="[locked]"))
    result = anyone.run("run")
    assert (result.code, len(result.errors)) == (1, 1)
    assert "locked cannot be read: permission denied" in result.errors[0]
    anyone.ok("without")


@engine
@pytest.mark.parametrize("signum", [2, 15])
def test_a_build_can_be_stopped(sandbox: Sandbox, name: str, signum: int) -> None:
    project(sandbox, name, job("true"), commands="['echo building; sleep 600']")
    child = sandbox.start("run", stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stderr
    for line in child.stderr:
        if b"sleep 600" in line:
            break
    child.send_signal(signum)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 128 + signum
    assert b"ERROR | interrupted" in err


@engine
def test_an_env_file_of_any_environment_is_in_no_image(sandbox: Sandbox, name: str) -> None:
    for file in ("dev.env", "prod.env", "job.env", "real.env", "abs.env"):
        sandbox.write(file, "A=1\n")
    (sandbox.root / "link.env").symlink_to("real.env")
    second = f"{{name: b, source: ls, help: h, envFile: {sandbox.root}/abs.env}}"
    third = "{name: c, source: ls, help: h, envFile: link.env}"
    project(sandbox, name, job("ls", envFile="job.env"), second, third, envFile="dev.env")
    sandbox.write("skelebot-prod.yaml", "envFile: prod.env\n")
    assert sandbox.ok("run") == sandbox.ok("-e", "prod", "run") == "skelebot-prod.yaml\nskelebot.yaml\n"


@engine
def test_another_removes_an_image_while_the_classic_builder_looks_for_its_cache(
    classic: Sandbox, name: str
) -> None:
    """The engine takes that for an error of the build, as it asks for all images upon the same base."""
    real = shutil.which(classic.env.get("SKELEBOT_DOCKER", "docker"))
    client = classic.write(
        "../docker",
        "#!/bin/sh\n"
        'case " $* " in *" build "*) if mkdir "$0.once" 2>/dev/null; then\n'
        """    echo 'unable to find image "sha256:7d498b69b0e3369c01f9"'; exit 1; fi ;; esac\n"""
        f'exec {real} "$@"\n',
        0o755,
    )
    project(classic, name, job("echo built"))
    assert classic.with_env(SKELEBOT_DOCKER=str(client.resolve())).ok("run") == "built\n"
    assert (client.parent / "docker.once").is_dir()
