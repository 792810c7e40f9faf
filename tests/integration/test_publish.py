"""`publish`, to a real registry with a password on loopback."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import CLIENTS, SKELEBOT, Result, Sandbox, Terminal, docker, wait_for
from registry_server import PASSWORD, USER, Line, Registry, push_only, running, tiny

pytestmark = pytest.mark.engine

COMMIT = "org.opencontainers.image.revision"
ECR_PASSWORD = "123456789012-auth-token"  # what moto gives for its account


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that requires a login."""
    with running(tmp_path_factory.mktemp("registry"), USER, PASSWORD) as server:
        yield server


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that asks for none."""
    with running(tmp_path_factory.mktemp("free")) as server:
        yield server


@pytest.fixture
def caller(sandbox: Sandbox) -> Sandbox:
    """Who has a temporary folder of his own, in which nothing may be left, and no login."""
    (sandbox.root.parent / "tmp").mkdir()
    return sandbox.with_env(
        TMPDIR=str(sandbox.root.parent / "tmp"), AWS_EC2_METADATA_DISABLED="true"
    ).without_env("DOCKER_CONFIG")


def project(sandbox: Sandbox, name: str, port: int, more: str = "", version: str | None = "1.2.0") -> str:
    """A project that is published to a port of this machine; gives its name there."""
    sandbox.write(
        "skelebot.yaml",
        f"""\
        name: {name}
        baseImage: {tiny()}
        primaryJob: show
        jobs:
        - {{name: show, source: cat data.txt, help: h}}
        components:
          registry: {{host: 127.0.0.1, port: {port}, user: team{more}}}
        """,
    )
    sandbox.write("data.txt", "first")
    if version is not None:
        sandbox.write("VERSION", f"{version}\n")
    return f"127.0.0.1:{port}/team/{name}"


def with_login(sandbox: Sandbox, password: str = PASSWORD) -> Sandbox:
    return sandbox.with_env(SKELEBOT_REGISTRY_USER=USER, SKELEBOT_REGISTRY_PASSWORD=password)


def git(sandbox: Sandbox, *words: str) -> str:
    settings = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(
        ["git", *settings, *words], cwd=sandbox.root, env=dict(sandbox.env), capture_output=True, check=True
    )
    return done.stdout.decode().strip()


def committed(sandbox: Sandbox) -> str:
    """The commit of all that is there."""
    git(sandbox, "init", "-q")
    git(sandbox, "add", ".")
    git(sandbox, "commit", "-qm", "all")
    return git(sandbox, "rev-parse", "HEAD")


def labels(image: str) -> dict[str, str]:
    return dict(json.loads(docker("image", "inspect", "-f", "{{json .Config.Labels}}", image)) or {})


def tags_here(repository: str) -> set[str]:
    return set(docker("images", "--format", "{{.Tag}}", repository).split())


def digest_of(registry: Registry, name: str, tag: str) -> str:
    """The digest that a tag has in the registry."""
    return registry.digest(f"team/{name}", tag)


def dangling(name: str) -> str:
    label = f"label=skelebot.project={name}"
    return docker("images", "-q", "--filter", "dangling=true", "--filter", label)


def failed(result: Result, *said: str, code: int = 1) -> None:
    """One clear line."""
    assert (result.code, result.out, len(result.errors)) == (code, "", 1), result
    assert all(text in result.errors[0] for text in said), result.errors
    assert "Traceback" not in result.err


def nothing_left(sandbox: Sandbox) -> None:
    """Neither a login in the caller's settings nor one in a temporary folder."""
    assert not (sandbox.root.parent / "home/.docker/config.json").exists()
    assert list((sandbox.root.parent / "tmp").iterdir()) == []


# --- what is published ---


def test_a_published_image_can_be_pulled_and_run(
    builder: Sandbox, caller: Sandbox, name: str, registry: Registry
) -> None:
    sandbox = with_login(caller).with_env(**{k: v for k, v in builder.env.items() if "DOCKER" in k})
    repository = project(sandbox, name, registry.port)
    commit = committed(sandbox)
    digest = sandbox.ok("publish", "-t", "candidate", "1.2").strip()
    assert registry.tags(f"team/{name}") == {"1.2.0", "latest", "candidate", "1.2"} == tags_here(repository)
    nothing_left(sandbox)
    # The same again is the same, and leaves nothing behind.
    assert sandbox.ok("publish").strip() == digest
    assert dangling(name) == ""
    assert {tag.partition("-")[0] for tag in tags_here(name)} == {"latest"}  # and this checkout's
    for tag in tags_here(repository):
        docker("rmi", f"{repository}:{tag}")
    settings = sandbox.write(
        "../pulls/config.json", json.dumps({"auths": {registry.server: {"auth": registry.auth}}})
    )
    docker("--config", str(settings.parent), "pull", f"{repository}@{digest}")
    try:
        assert docker("run", "--rm", f"{repository}@{digest}") == "first"
        assert labels(f"{repository}@{digest}")[COMMIT] == commit
        assert labels(f"{repository}@{digest}")["skelebot.dirty"] == "false"
    finally:
        docker("rmi", f"{repository}@{digest}")


def test_what_jobs_make_is_published_though_no_image_of_a_run_holds_it(
    caller: Sandbox, name: str, free: Registry
) -> None:
    repository = project(caller, name, free.port)
    made = "{name: make, source: echo model > models/m, help: h, outputs: [models/]}"
    look = "{name: look, source: 'ls', help: h}"
    caller.write(
        "skelebot.yaml", caller.read("skelebot.yaml").replace("jobs:\n", f"jobs:\n- {made}\n- {look}\n")
    )
    caller.ok("make")
    assert "models" not in caller.ok("look").split()
    caller.ok("publish")
    assert docker("run", "--rm", f"{repository}:latest", "cat", "/app/models/m") == "model"
    assert "models" not in caller.ok("look").split()


def test_a_commit_changes_what_is_published_and_not_what_is_run(
    caller: Sandbox, name: str, free: Registry
) -> None:
    repository = project(caller, name, free.port)
    caller.ok("publish")
    assert not {COMMIT, "skelebot.dirty"} & labels(f"{repository}:latest").keys()
    commit = committed(caller)
    caller.ok("publish", "--force")
    first = labels(f"{repository}:latest")
    assert (first[COMMIT], first["skelebot.dirty"]) == (commit, "false")
    caller.write("data.txt", "second")
    answer = json.loads(caller.ok("publish", "-l", "-f", "--json"))
    assert answer == {"image": repository, "tags": ["1.2.0"], "digest": answer["digest"]}
    second = labels(f"{repository}:1.2.0")
    assert (second[COMMIT], second["skelebot.dirty"]) == (commit, "true")
    assert labels(f"{repository}:latest") == first
    assert COMMIT not in labels(name)
    git(caller, "commit", "-qam", "more")
    result = caller.run("-V", "show")
    assert result.out == "second"
    assert " build " not in result.err
    caller.ok("publish", "-v")
    assert dangling(name) == ""


def test_an_old_image_is_published_as_it_is(caller: Sandbox, name: str, free: Registry) -> None:
    repository = project(caller, name, free.port)
    committed(caller)
    failed(caller.run("-s", "publish"), f"no image {name}:latest yet")
    caller.ok("show")
    caller.ok("-s", "publish")
    assert COMMIT in labels(f"{repository}:latest")
    caller.write("data.txt", "second")
    result = caller.run("-s", "publish", "-f")
    assert (result.code, "older than the project's files" in result.err) == (0, True)
    assert COMMIT not in labels(f"{repository}:latest")
    assert docker("run", "--rm", f"{repository}:latest") == "first"


# --- a version that is already published ---


def test_a_published_version_is_not_replaced(
    builder: Sandbox, caller: Sandbox, name: str, free: Registry
) -> None:
    caller = caller.with_env(**{k: v for k, v in builder.env.items() if "DOCKER" in k})
    repository = project(caller, name, free.port)
    first = caller.ok("publish").strip()
    caller.write("data.txt", "second")
    result = caller.run("publish")
    failed(result, f"{repository}:1.2.0 is already published with other content", "`skelebot bump`", "-f")
    assert docker("run", "--rm", f"{repository}:1.2.0") == "first"
    assert digest_of(free, name, "1.2.0") == digest_of(free, name, "latest") == first
    second = caller.ok("publish", "-f").strip()
    assert digest_of(free, name, "1.2.0") == digest_of(free, name, "latest") == second != first
    assert dangling(name) == ""


def test_the_same_image_is_not_published_again(caller: Sandbox, name: str, free: Registry) -> None:
    repository = project(caller, name, free.port)
    first = caller.ok("publish").strip()
    caller.write("VERSION", "1.3.0\n")
    second = caller.ok("publish").strip()
    caller.write("VERSION", "1.2.0\n")
    result = caller.run("publish")
    assert (result.code, result.out.strip()) == (0, first)
    assert f"INFO  | {repository}:1.2.0 is already published\n" in result.err
    assert digest_of(free, name, "latest") == second
    assert caller.ok("publish", "-t", "stable").strip() == first
    assert digest_of(free, name, "stable") == first
    assert digest_of(free, name, "latest") == second


def test_another_commit_of_the_same_files_is_not_published_again(
    caller: Sandbox, name: str, free: Registry
) -> None:
    repository = project(caller, name, free.port)
    commit = committed(caller)
    first = caller.ok("publish").strip()
    git(caller, "commit", "-q", "--allow-empty", "-m", "none of the files")
    result = caller.run("publish", "-t", "stable")
    assert (result.code, result.out.strip()) == (0, first), result
    assert f"INFO  | {repository}:1.2.0 is already published, from commit {commit[:12]}\n" in result.err
    assert digest_of(free, name, "stable") == digest_of(free, name, "1.2.0") == first
    second = caller.ok("publish", "-f").strip()
    assert digest_of(free, name, "1.2.0") == second != first
    assert dangling(name) == ""


def test_a_project_on_a_cluster_is_published_from_the_default_engine(
    caller: Sandbox, name: str, free: Registry
) -> None:
    project(caller, name, free.port)
    caller.write("skelebot.yaml", caller.read("skelebot.yaml") + "host: k8s://nowhere\n")
    digest = caller.ok("publish").strip()
    assert digest_of(free, name, "latest") == digest
    doctor = caller.run("doctor")
    assert f"registry: 127.0.0.1:{free.port} answers" in doctor.out + doctor.err, doctor


def test_another_image_is_refused_without_fetching_it(caller: Sandbox, name: str, free: Registry) -> None:
    """The engine has none of its layers, as when someone else published it."""
    repository = project(caller, name, free.port)
    caller.ok("publish")
    for image in (f"{repository}:1.2.0", f"{repository}:latest", f"{name}:latest"):
        docker("rmi", image)
    with Line(free.port, b"/blobs/sha256:", breaks=False) as line:
        project(caller, name, line.port)
        caller.write("data.txt", "second")
        failed(caller.run("publish", timeout=60), "is already published with other content")
    assert tags_here(repository) == set()


def test_a_login_that_may_push_but_not_pull_is_warned_that_nothing_was_checked(
    caller: Sandbox, name: str, registry: Registry
) -> None:
    caller = with_login(caller)
    with push_only(registry) as port:
        repository = project(caller, name, port)
        unseen = f"does not let this login see whether {repository}:1.2.0 is already published"
        first = caller.run("publish")
        assert (first.code, unseen in first.err) == (0, True), first
        assert digest_of(registry, name, "1.2.0") == first.out.strip()
        text = json.dumps({"auths": {f"127.0.0.1:{port}": {"auth": registry.auth}}})
        caller.write("../home/.docker/config.json", text)
        caller.write("data.txt", "second")
        own = caller.without_env("SKELEBOT_REGISTRY_USER", "SKELEBOT_REGISTRY_PASSWORD").run("publish")
        assert (own.code, unseen in own.err) == (0, True), own
        assert digest_of(registry, name, "1.2.0") == own.out.strip() != first.out.strip()


# --- logins ---


def test_an_existing_login_is_used(caller: Sandbox, name: str, registry: Registry) -> None:
    repository = project(caller, name, registry.port)
    text = json.dumps({"auths": {registry.server: {"auth": registry.auth}}})
    settings = caller.write("../home/.docker/config.json", text)
    caller.ok("publish")
    assert settings.read_text() == text
    assert tags_here(repository) == {"1.2.0", "latest"}


def test_an_existing_login_of_a_helper_is_used(caller: Sandbox, name: str, registry: Registry) -> None:
    project(caller, name, registry.port)
    caller.write("../home/.docker/config.json", json.dumps({"credHelpers": {registry.server: "test"}}))
    answer = json.dumps({"ServerURL": registry.server, "Username": USER, "Secret": PASSWORD})
    caller.write("../bin/docker-credential-test", f"#!/bin/sh\necho '{answer}'\n", 0o755)
    caller = caller.with_env(PATH=f"{caller.root.parent}/bin:{caller.env['PATH']}")
    caller.ok("publish")
    assert registry.tags(f"team/{name}") == {"1.2.0", "latest"}


def test_a_login_that_no_longer_holds_gives_way_to_the_environments(
    caller: Sandbox, name: str, registry: Registry
) -> None:
    project(caller, name, registry.port)
    text = json.dumps({"auths": {registry.server: {"auth": "b2xkOm9sZA=="}}})
    settings = caller.write("../home/.docker/config.json", text)
    failed(
        caller.run("publish"),
        "refuses",
        f"run `docker login {registry.server}`, or set SKELEBOT_REGISTRY_USER",
    )
    with_login(caller).ok("publish")
    assert settings.read_text() == text


def test_the_password_is_in_no_argument_and_no_file(caller: Sandbox, name: str, registry: Registry) -> None:
    """Nor in a keychain, which the client would look for by itself."""
    project(caller, name, registry.port)
    caller.write("../home/.docker/contexts/meta/x", "")
    keychains = {"credsStore": "secretservice", "credHelpers": {registry.server: "pass"}}
    caller.write("../home/.docker/config.json", json.dumps({"HttpHeaders": {"X-Mine": "1"}, **keychains}))
    log = caller.root.parent / "log"
    spy = f"""\
        #!/bin/sh
        echo "$@" >>{log}
        if [ "$1" = push ]; then
            stat -c 'mode %a' "$DOCKER_CONFIG" "$DOCKER_CONFIG/config.json" >>{log}
            cat "$DOCKER_CONFIG/config.json" >{log}.config
            ls "$DOCKER_CONFIG/contexts/meta" >>{log}.config
        fi
        exec {CLIENTS[0]} "$@"
        """
    caller.write("../bin/docker", spy, 0o755)
    for keychain in ("pass", "secretservice"):
        asked = f"#!/bin/sh\necho keychain $1 >>{log}\ncat >>{log}\n"
        caller.write(f"../bin/docker-credential-{keychain}", asked, 0o755)
    caller.write("../bin/pass", "#!/bin/sh\n", 0o755)
    path = f"{caller.root.parent}/bin:{caller.env['PATH']}"
    result = with_login(caller).with_env(PATH=path).run("-V", "publish")
    assert result.code == 0, result
    said = log.read_text()
    assert f"login --username {USER} --password-stdin {registry.server}" in said
    assert "mode 700\nmode 600\n" in said
    assert "keychain store" not in said
    for secret in (PASSWORD, registry.auth):
        assert secret not in said + result.out + result.err
    used = Path(f"{log}.config").read_text()
    assert '"X-Mine": "1"' in used
    assert used.endswith("x\n")
    assert list((caller.root.parent / "tmp").iterdir()) == []
    assert registry.auth not in caller.read("../home/.docker/config.json")


def test_a_registry_that_asks_for_no_login_is_not_given_one(
    caller: Sandbox, name: str, free: Registry
) -> None:
    project(caller, name, free.port)
    with Line(free.port, b"Authorization:", breaks=True) as line:
        project(caller, name, line.port)
        caller.ok("publish")
        assert not line.reached.is_set()
    assert free.tags(f"team/{name}") == {"1.2.0", "latest"}


def test_who_sits_at_a_terminal_is_asked(caller: Sandbox, name: str, registry: Registry) -> None:
    project(caller, name, registry.port)
    terminal = Terminal(caller, f"{SKELEBOT} publish")
    terminal.expect(f"user of {registry.server}: ")
    terminal.send(f"{USER}\n".encode())
    terminal.expect(f"password of {registry.server}: ")
    terminal.send(f"{PASSWORD}\n".encode())
    terminal.expect("sha256:")
    assert terminal.close() == 0
    assert PASSWORD.encode() not in terminal.output
    nothing_left(caller)


def test_ctrl_c_at_the_question_ends_it(caller: Sandbox, name: str, registry: Registry) -> None:
    repository = project(caller, name, registry.port)
    terminal = Terminal(caller, f"{SKELEBOT} publish")
    terminal.expect(f"user of {registry.server}: ")
    terminal.send(b"\x03")
    terminal.expect("ERROR")
    assert terminal.close() == 130
    assert tags_here(repository) == set()


def test_amazons_registry_takes_the_token_of_boto3(
    caller: Sandbox, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moto.server import ThreadedMotoServer

    aws = ThreadedMotoServer(port=0, verbose=False)
    aws.start()
    try:
        host, port = aws.get_host_and_port()
        with running(tmp_path, "AWS", ECR_PASSWORD) as ecr:
            project(caller, name, ecr.port, ", aws: {region: eu-west-1, profile: work}")
            failed(caller.run("publish"), "AWS issued no login", "work")
            keys = "[work]\naws_access_key_id = a\naws_secret_access_key = b\n"
            caller.write("../home/.aws/credentials", keys)
            caller.with_env(AWS_ENDPOINT_URL=f"http://{host}:{port}").ok("publish")
            assert ecr.tags(f"team/{name}") == {"1.2.0", "latest"}
    finally:
        aws.stop()
    nothing_left(caller)


# --- what goes wrong ---


def test_build_metadata_gets_an_underscore(caller: Sandbox, name: str, free: Registry) -> None:
    project(caller, name, free.port, version="1.0.0-rc.1+build.5")
    caller.ok("publish", "-l")
    assert free.tags(f"team/{name}") == {"1.0.0-rc.1_build.5"}


def test_a_chain_publishes_the_version_that_it_has_made(caller: Sandbox, name: str, free: Registry) -> None:
    project(caller, name, free.port)
    caller.ok("bump", "minor", "+", "publish", "-l")
    assert free.tags(f"team/{name}") == {"1.3.0"}


def test_nothing_is_built_for_what_cannot_be_published(caller: Sandbox, name: str) -> None:
    repository = project(caller, name, 1)
    failed(caller.run("publish", "-t", "a/b"), "'a/b' cannot be a tag", code=2)
    failed(caller.run("publish", "-v", "-l"), "there is nothing to publish")
    failed(caller.run("-n", "publish"), "publish cannot run natively", code=2)
    shown = caller.ok("--dry-run", "publish", "-t", "b", "latest", "b")
    tags = [f"push {repository}:{tag}" for tag in ("1.2.0", "b", "latest")]
    assert shown.splitlines() == [f"build {name}:latest", *tags]
    assert docker("images", "-q", name) == ""


def test_refused_and_missing_logins(caller: Sandbox, name: str, registry: Registry) -> None:
    repository = project(caller, name, registry.port)
    login = (
        f"run `docker login {registry.server}`, or set SKELEBOT_REGISTRY_USER and SKELEBOT_REGISTRY_PASSWORD"
    )
    failed(caller.run("publish"), registry.server, "requires a login", login)
    result = with_login(caller, "wrong").run("publish")
    failed(result, registry.server, f"refuses the credentials of {USER}", "check the user, the password")
    assert login not in result.err
    half = caller.with_env(SKELEBOT_REGISTRY_USER=USER)
    failed(half.run("publish"), "requires a login", login)
    failed(with_login(caller, "two\nlines").run("publish"), "control character")
    assert tags_here(repository) == set()
    assert dangling(name) == ""
    nothing_left(caller)


def test_an_unreachable_registry(caller: Sandbox, name: str, free: Registry) -> None:
    repository = project(caller, name, 1)
    failed(caller.run("publish"), "127.0.0.1:1 cannot be reached")
    failed(with_login(caller).run("publish"), "127.0.0.1:1 cannot be reached")
    assert tags_here(repository) == set()
    nothing_left(caller)


def test_a_push_that_is_cut_off(caller: Sandbox, name: str, free: Registry) -> None:
    """The engine tries for most of a minute to go on."""
    with Line(free.port, b"PATCH ", breaks=True) as line:
        repository = project(caller, name, line.port)
        result = caller.run("publish")
    failed(result, f"push of {repository}:1.2.0 was cut off; run again")
    assert 1 <= result.err.count("Retrying") <= 3  # not each second of each layer's
    assert tags_here(repository) == set()


def test_the_tags_that_arrived_are_named(caller: Sandbox, name: str, free: Registry) -> None:
    with Line(free.port, b"manifests/latest", breaks=True) as line:
        repository = project(caller, name, line.port)
        docker("tag", tiny(), f"{repository}:latest")
        result = caller.run("publish")
        failed(result, line.server, "cannot be reached")
    assert f"published: {repository}:1.2.0; not: {repository}:latest\n" in result.err
    assert tags_here(repository) == {"1.2.0", "latest"}
    assert "skelebot.project" not in labels(f"{repository}:latest")
    docker("rmi", f"{repository}:latest")
    assert free.tags(f"team/{name}") == {"1.2.0"}


def test_another_image_by_the_same_name_is_not_taken_for_the_published_one(
    caller: Sandbox, name: str, free: Registry
) -> None:
    repository = project(caller, name, free.port)
    moved = f'case "$2" in *:latest) {CLIENTS[0]} tag {tiny()} "$2";; esac'
    caller.write(
        "../bin/docker", f'#!/bin/sh\n[ "$1" != push ] || {{ {moved}; }}\nexec {CLIENTS[0]} "$@"\n', 0o755
    )
    other = caller.with_env(PATH=f"{caller.root.parent}/bin:{caller.env['PATH']}")
    failed(other.run("publish"), "someone else published")
    docker("rmi", f"{repository}:latest")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_push_that_is_interrupted(caller: Sandbox, name: str, free: Registry, signum: int) -> None:
    with Line(free.port, b"PATCH ", breaks=False) as line:
        repository = project(caller, name, line.port)
        child = with_login(caller).start("publish", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_for(line.reached.is_set)
        child.send_signal(signum)
        out, err = child.communicate(timeout=60)
    failed(Result(child.returncode, out.decode(), err.decode()), "interrupted", code=128 + signum)
    assert tags_here(repository) == set()
    assert dangling(name) == ""
    nothing_left(caller)


def test_a_login_of_a_killed_push_goes_with_the_next_one(caller: Sandbox, name: str, free: Registry) -> None:
    folder = caller.root.parent / "tmp"
    who = with_login(caller)
    with Line(free.port, b"PATCH ", breaks=False) as line:
        project(caller, name, line.port)
        child = who.start("publish", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(line.reached.is_set)
        child.kill()
        child.wait()
    left = list(folder.glob("*/config.json"))
    assert len(left) == 1
    caller.ok("-h")
    assert list(folder.glob("*/config.json")) == left
    project(caller, name, free.port)
    caller.ok("publish")
    nothing_left(caller)


# --- doctor ---


def test_doctor_tells_whether_the_registry_takes_the_login(
    caller: Sandbox, name: str, registry: Registry, free: Registry
) -> None:
    def found() -> tuple[str, str | None]:
        [row] = [row for row in json.loads(who.run("doctor", "--json").out) if row["name"] == "registry"]
        return row["found"], row["advice"]

    who = with_login(caller)
    project(caller, name, registry.port)
    assert found() == (f"{registry.server} answers and accepts the login", None)
    who = with_login(caller, "wrong")
    assert "refuses the credentials" in found()[0]
    who = caller
    assert "requires a login" in found()[0]
    project(caller, name, free.port)
    assert found() == (f"{free.server} answers and accepts the login", None)
    project(caller, name, 1)
    assert found()[0].startswith("127.0.0.1:1 cannot be reached")
    nothing_left(caller)
