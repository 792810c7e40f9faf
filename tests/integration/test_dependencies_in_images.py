"""Dependencies of every kind in real images, and builds in a company's network."""

import hashlib
import io
import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from harness import BASE, Sandbox, docker, job, project
from page_server import repository, sign

pytestmark = pytest.mark.engine


def wheel(name: str, version: str, requires: str = "") -> bytes:
    """A wheel of one module that knows its version."""
    out = io.BytesIO()
    info = f"{name}-{version}.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in files) + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(out, "w") as archive:
        for file, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(file, text)
    return out.getvalue()


def shows(module: str) -> str:
    return f"python -c 'import {module}; print({module}.version)'"


# --- the kinds of entries ---


@pytest.mark.slow
def test_files_projects_and_requirements(builder: Sandbox, name: str) -> None:
    builder.write("libs/mine-1.0-py3-none-any.whl", wheel("mine", "1.0"))
    builder.write("req/all.txt", "six==1.16.0\n-r more.txt\n")
    builder.write("req/more.txt", "idna==3.6\n")
    builder.write(
        "py/pyproject.toml",
        '[project]\nname = "p"\nversion = "1"\ndependencies = ["iniconfig==2.0.0"]\n'
        '[project.optional-dependencies]\nx = ["toml==0.10.2", "p[y]"]\n',
    )
    entries = ["file:libs/mine-1.0-py3-none-any.whl", "req:req/all.txt", "proj:py/pyproject.toml"]
    entries += ['colorama; sys_platform == "win32"', "requests[socks]>=2.31,<3"]
    source = """python - <<'END'
from importlib.metadata import version
import socks
print([version(n) for n in ("mine", "six", "idna", "iniconfig", "toml")])
END"""
    project(builder, name, job(source), dependencies=json.dumps(entries))
    assert builder.ok("run") == "['1.0', '1.16.0', '3.6', '2.0.0', '0.10.2']\n"


def test_github_with_a_protocol_and_a_ref(sandbox: Sandbox, name: str, gateway: str, serve: Any) -> None:
    pyproject = '[project]\nname = "gitmod"\nversion = "0.1"\n[tool.setuptools]\npy-modules=["gitmod"]\n'
    repo = sandbox.root.parent / "repo"
    tags = {
        f"v-{version}": {"pyproject.toml": pyproject, "gitmod.py": f"version = {version!r}\n"}
        for version in ("one", "two")
    }
    files = repository(repo, tags, "/o/gitmod")
    server = serve(gateway, files)
    project(
        sandbox, name, job(shows("gitmod")), dependencies=f"['github:http://{server.host}/o/gitmod@v-one']"
    )
    assert sandbox.ok("run") == "one\n"


def test_github_is_githubs(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("true"), dependencies="['github:owner/repo@v1']")
    assert "skelebot-install git+https://github.com/owner/repo@v1" in sandbox.ok("--dry-run", "run")


def codeartifact(data: bytes, checksum: str) -> dict[str, bytes]:
    assets = {"assets": [{"name": "priv-2.0-py3-none-any.whl", "hashes": {"SHA-256": checksum}}]}
    return {"/v1/package/version/assets": json.dumps(assets).encode(), "/v1/package/version/asset": data}


@pytest.mark.slow
def test_codeartifact(builder: Sandbox, name: str, serve: Any) -> None:
    data = wheel("priv", "2.0")
    server = serve("127.0.0.1", codeartifact(data, hashlib.sha256(data).hexdigest()))
    aws = builder.with_env(
        AWS_ENDPOINT_URL_CODEARTIFACT=f"http://{server.host}", AWS_DEFAULT_REGION="us-east-1",
        AWS_ACCESS_KEY_ID="AKIDTEST", AWS_SECRET_ACCESS_KEY="s3cr3tkey",
    )  # fmt: skip
    project(aws, name, job(shows("priv")), dependencies="['six', 'ca_file:dom:123456789012:repo:priv:2.0']")
    assert aws.ok("run") == "2.0\n"
    asked = len(server.asked)
    assert asked == 2
    assert aws.ok("-n", "run") == "2.0\n"
    assert aws.ok("run") == "2.0\n"
    assert len(server.asked) == asked
    assert "s3cr3tkey" not in history_and_layers(name)


def test_a_damaged_file_from_codeartifact_is_refused(sandbox: Sandbox, name: str, serve: Any) -> None:
    server = serve("127.0.0.1", codeartifact(b"damaged", "0" * 64))
    aws = sandbox.with_env(
        AWS_ENDPOINT_URL_CODEARTIFACT=f"http://{server.host}", AWS_DEFAULT_REGION="us-east-1",
        AWS_ACCESS_KEY_ID="AKIDTEST", AWS_SECRET_ACCESS_KEY="x", AWS_MAX_ATTEMPTS="1",
    )  # fmt: skip
    project(aws, name, job("true"), dependencies="['ca_file:dom:123456789012:repo:priv:2.0']")
    result = aws.run("run")
    assert (result.code, len(result.errors)) == (1, 1)
    assert "damaged" in result.errors[0]
    server.pages.clear()
    result = aws.run("run")
    assert (result.code, len(result.errors)) == (1, 1)
    assert "is not available from CodeArtifact" in result.errors[0]


# --- together, and one after the other ---


def test_a_new_entry_at_the_bottom_keeps_those_above(builder: Sandbox, name: str) -> None:
    project(builder, name, job("true"), dependencies="[six=1.16.0, idna=3.6]")
    builder.ok("run")
    before = layers(name)
    project(builder, name, job("python -c 'import toml'"), dependencies="[six=1.16.0, idna=3.6, toml]")
    builder.ok("run")
    kept = sum(1 for a, b in zip(before, layers(name), strict=False) if a == b)
    assert kept == len(before) - 1  # all but the project's files


def layers(name: str) -> list[str]:
    return list(json.loads(docker("image", "inspect", "-f", "{{json .RootFS.Layers}}", name)))


def test_a_conflict_fails_and_downgrades_nothing(builder: Sandbox, name: str) -> None:
    builder.write("libs/needs-1.0-py3-none-any.whl", wheel("needs", "1.0", "six<1.16"))
    project(builder, name, job("true"), dependencies="[six=1.16.0, 'file:libs/needs-1.0-py3-none-any.whl']")
    result = builder.run("run")
    assert (result.code, len(result.errors)) == (1, 1)
    assert re.search(r"six<1\.16", result.err), result


def test_pip_serves_where_it_has_settings_of_its_own(sandbox: Sandbox, name: str) -> None:
    commands = "{commands: ['pip config --global set global.extra-index-url https://example.invalid/simple']}"
    settings = {"build": commands, "dependencies": "[six=1.16.0]"}
    project(sandbox, name, job("cat /usr/local/share/skelebot-installer; ls /usr/local/bin"), **settings)
    result = sandbox.run("run")
    if result.code == 0:
        assert "pip install" in result.out
        assert "uv" not in result.out.split()


def test_bytecode_is_compiled_once(sandbox: Sandbox, name: str) -> None:
    project(
        sandbox,
        name,
        job("python -c 'import six, os; print(os.path.exists(six.__cached__))'"),
        dependencies="[six]",
    )
    sandbox.ok("run")
    listed = docker(
        "run", "--rm", name, "sh", "-c", "find / -name 'six*.pyc' -not -path '*/_vendor/*' 2>/dev/null"
    )
    assert "six" in listed


# --- company networks ---

PASSWORD = "pr1vate-pass"


def history_and_layers(name: str) -> str:
    """All that an image tells about how it was made, and all its files."""
    text = docker("history", "--no-trunc", name) + docker("inspect", name)
    with subprocess.Popen(["docker", "save", name], stdout=subprocess.PIPE) as saved:
        assert saved.stdout
        return text + saved.stdout.read().decode("latin-1")


def test_pip_settings_and_ca_are_lent(
    buildkit: Sandbox, name: str, gateway: str, serve: Any, authority: Path
) -> None:
    import base64

    file = "priv-2.0-py3-none-any.whl"
    pages = {"/simple/priv/": f'<a href="/{file}">{file}</a>'.encode(), f"/{file}": wheel("priv", "2.0")}
    token = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
    server = serve(gateway, pages, token)
    server.socket = sign(authority, gateway).wrap_socket(server.socket, server_side=True)
    caller = buildkit.with_env(
        PIP_INDEX_URL=f"https://user:{PASSWORD}@{server.host}/simple", SSL_CERT_FILE=str(authority / "ca.pem")
    )
    project(caller, name, job(shows("priv")), dependencies="[priv]")
    assert caller.run("run").code == 1
    project(caller, name, job(shows("priv")), dependencies="[priv]", build="{inherit: [pip, ca]}")
    result = caller.run("run")
    assert (result.code, result.out) == (0, "2.0\n"), result.err
    told = history_and_layers(name)
    certificate = (authority / "ca.pem").read_text().splitlines()[5]
    for secret in (PASSWORD, token, certificate):
        assert secret not in told
        assert secret not in result.err.replace(f"user:{PASSWORD}", "user:****") or secret == PASSWORD
    by_variable = caller.with_env(SKELEBOT_BUILD_INHERIT="ca,pip")
    docker("rmi", "-f", name)
    project(caller, name, job(shows("priv")), dependencies="[priv]")
    assert by_variable.ok("run") == "2.0\n"
    # In a Dockerfile of the user's own, by the step that the page shows.
    page = (Path(__file__).parents[2] / "docs/company-networks.md").read_text()
    step = page.partition("```dockerfile\n")[2].partition("```")[0]
    caller.write("Mine", f"FROM {BASE}\nWORKDIR /app\nCOPY . .\n{step}")
    caller.write("requirements.txt", "priv\n")
    project(caller, name, job(shows("priv")), dockerfile="Mine")
    assert by_variable.ok("run") == "2.0\n"
    assert PASSWORD not in history_and_layers(name)


def test_a_build_can_read_the_callers_logins_and_keeps_none(buildkit: Sandbox, name: str) -> None:
    login = f"machine example.org login u password {PASSWORD}\n"
    buildkit.write("../logins", login)
    caller = buildkit.with_env(NETRC=str(buildkit.root.parent / "logins"))
    commands = "['wc -c < /root/.netrc > /size; wc -c < $NETRC >> /size']"
    project(
        caller, name, job("cat /size /root/.netrc; env"), build=f"{{commands: {commands}, inherit: [netrc]}}"
    )
    result = caller.run("run")
    assert result.out.startswith(f"{len(login)}\n{len(login)}\n"), result.err
    assert PASSWORD not in result.out
    assert PASSWORD not in history_and_layers(name)
    missing = caller.with_env(NETRC="/nowhere/netrc")
    caller.write("skelebot.yaml", caller.read("skelebot.yaml").replace("size;", "size ;"))
    assert "netrc, but /nowhere/netrc cannot be read: no such file" in missing.run("run").errors[0]


def test_the_classic_builder_says_that_it_cannot(classic: Sandbox, name: str) -> None:
    project(classic, name, job("true"), dependencies="[six]", build="{inherit: [pip, ca]}")
    result = classic.run("run")
    assert (result.code, len(result.errors)) == (1, 1)
    assert "the classic builder cannot keep ca and pip" in result.errors[0]


def test_an_unknown_word_of_inherit(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("true"))
    result = sandbox.with_env(SKELEBOT_BUILD_INHERIT="pip,cq").run("run")
    assert result.code == 2
    assert "'cq'" in result.errors[0]


@pytest.mark.slow
def test_the_proxy_is_lent(builder: Sandbox, name: str, gateway: str, serve: Any) -> None:
    server = serve(gateway, {"http://only.proxy.invalid/x": b"through"})
    proxy = f"http://user:{PASSWORD}@{server.host}"
    caller = builder.with_env(http_proxy=proxy, HTTP_PROXY=proxy, NO_PROXY="localhost")
    got = 'print(urllib.request.urlopen("http://only.proxy.invalid/x").read())'
    fetch = f"python3 -c 'import urllib.request; {got}' > /got"
    build = f"{{commands: [{json.dumps(fetch)}], inherit: [proxy]}}"
    project(caller, name, job("cat /got; env"), build=build)
    result = caller.run("run")
    assert result.code == 0, result.err
    assert result.out.startswith("b'through'\n")
    assert PASSWORD not in result.out
    assert PASSWORD not in history_and_layers(name)


def test_nothing_is_lent_unasked(builder: Sandbox, name: str) -> None:
    caller = builder.with_env(
        HTTP_PROXY="http://127.0.0.1:9", http_proxy="http://127.0.0.1:9", PIP_INDEX_URL="http://x"
    )
    project(caller, name, job("cat /env"), build="{commands: ['env > /env']}")
    result = caller.run("run")
    assert "127.0.0.1:9" not in result.out
    assert "PIP_INDEX_URL" not in result.out


def test_git_is_brought_where_the_base_lacks_it(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("true"), dependencies="['github:a/b', 'github:c/d']")
    text = sandbox.ok("--dry-run", "run")
    assert text.count("command -v git") == 1
    assert shutil.which("git")


# --- image and native environment alike ---


def source_archive() -> bytes:
    import tarfile

    out = io.BytesIO()
    setup = "from setuptools import setup\nsetup(name='packed', version='1.0', py_modules=['packed'])\n"
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for file, text in {"setup.py": setup, "packed.py": "version = '1.0'\n"}.items():
            info = tarfile.TarInfo(f"packed-1.0/{file}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def test_what_uv_does_not_read_is_for_pip_in_both(sandbox: Sandbox, name: str) -> None:
    sandbox.write("libs/packed.tgz", source_archive())
    sandbox.write("all of them.txt", "six --only-binary :all:\n")
    sandbox.write("req.txt", '--pre\n-r "all of them.txt"\n')
    shown = job("python -c 'import packed, six; print(packed.version, six.__version__)'")
    project(sandbox, name, shown, dependencies="['req:req.txt', 'file:libs/packed.tgz']")
    natively, in_image = sandbox.run("-n", "run"), sandbox.run("run")
    assert (natively.code, in_image.code) == (0, 0), natively.err + in_image.err
    assert natively.out == in_image.out
    assert docker("run", "--rm", name, "cat", "/usr/local/share/skelebot-installer").startswith(
        "python -m pip"
    )


def test_jobs_share_the_modules_of_src(sandbox: Sandbox, name: str) -> None:
    sandbox.write("src/common.py", "word = 'shared'\n")
    sandbox.write("settings.py", "word = 'settings'\n")
    for which in ("one", "two"):
        text = "import common, settings, src.common\nprint(common.word, settings.word, src.common.word)\n"
        sandbox.write(f"src/jobs/{which}.py", text)
    jobs = [job(f"src/jobs/{which}.py", which) for which in ("one", "two")]
    project(sandbox, name, *jobs)
    for words in (("one",), ("two",), ("-n", "one"), ("-n", "two")):
        assert sandbox.ok(*words) == "shared settings shared\n"


def test_a_failing_resolution_names_the_brackets(sandbox: Sandbox, name: str) -> None:
    extras = 'cpu = ["six==1.15.0"]\ngpu = ["six==1.16.0"]\n'
    head = '[project]\nname = "p"\nversion = "1"\n[project.optional-dependencies]\n'
    sandbox.write("pyproject.toml", head + extras)
    shown = job("python -c 'import six; print(six.__version__)'")
    project(sandbox, name, shown, dependencies="['proj:pyproject.toml']")
    for words in (("run",), ("-n", "run")):
        result = sandbox.run(*words)
        assert result.code == 1
        assert "choose those that fit together, as in proj:pyproject.toml[EXTRA]" in result.errors[0]
    project(sandbox, name, shown, dependencies="['proj:pyproject.toml[gpu]']")
    assert sandbox.ok("run") == sandbox.ok("-n", "run") == "1.16.0\n"


def test_two_projects_share_the_installer(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("true"), dependencies="[six]")
    sandbox.ok("run")
    project(sandbox, f"{name}-b", job("true"), dependencies="[idna]")
    sandbox.ok("run")
    first, second = layers(name), layers(f"{name}-b")
    base = len(layers(BASE))
    assert first[: base + 1] == second[: base + 1]
    docker("rmi", f"{name}-b")
