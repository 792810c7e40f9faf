"""Projects in R: the words of a job, and packages from a mirror of the tests' own, with a real R."""

import io
import json
import re
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from harness import BASE, CLIENTS, R_BASE, Sandbox, docker, job, project
from page_server import Server, repository, sign

import skelebot

pytestmark = [pytest.mark.engine, pytest.mark.r]

Serve = Callable[..., Server]


# --- words ---

SHOW = 'cat(commandArgs(trailingOnly = TRUE), sep = "\\x1e")\n'

# Beside what a shell would change: the options of R, of Rscript and of the script that starts R.
WORDS = [
    "a b", "", "$HOME", "$(id)", "`id`", "'", '"', "\\", "\\n", "a\nb", "*", "~", ";", "&&", "-", "--", "+",
    "é", "日本", "\t", "a=b", "~+~", "~n~", "-1e5", "x" * 5000,
    "-e", "print(1)", "--args", "--version", "--help", "-h", "-g", "Tk", "--gui=X11", "-d", "gdb",
    "--debugger=gdb", "--encoding=latin1", "--encoding", "-f", "x.R", "--file=x.R", "--vanilla", "--no-save",
    "--slave", "--interactive", "--arch", "--arch=x", "RHOME", "CMD", "--print-home", "--verbose", "-q", "-s",
    "--default-packages=x", "--min-vsize=1", "--max-ppsize=1", "--restore", "--no-readline", "--ess",
]  # fmt: skip


def test_words_arrive_as_they_were_typed(sandbox: Sandbox, name: str) -> None:
    sandbox.write("src/my show.R", SHOW)
    show = job("src/my show.R", args="[{name: word}]", params="[{name: xs, accepts: list}]")
    project(sandbox, name, show, language="R", baseImage=R_BASE)
    listed = [f"--xs={word}" for word in WORDS]
    out = sandbox.ok("run", *listed, "--", "--args")
    assert out.split("\x1e") == ["--args", "--xs", *WORDS]


# --- packages ---


def package(name: str, version: str, code: str = "", **fields: str) -> bytes:
    """The source of a package whose function `version` gives its version."""
    described = {"Package": name, "Version": version, "Title": "T", "License": "MIT", **fields}
    files = {
        "DESCRIPTION": "".join(f"{key}: {value}\n" for key, value in described.items()),
        "NAMESPACE": "export(version)\n" + "".join(f"import({p.split()[0]})\n" for p in fields.values()),
        "R/code.R": f'version <- function() "{version}"\n{code}',
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for path, text in files.items():
            info = tarfile.TarInfo(f"{name}/{path}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def mirror(current: dict[str, bytes], archived: dict[str, bytes]) -> dict[str, bytes]:
    """The pages of a CRAN mirror; both name their packages `NAME_VERSION`.

    https://cran.r-project.org/doc/manuals/r-release/R-admin.html#Setting-up-a-package-repository
    """
    files = {f"{full}.tar.gz": data for full, data in current.items()}
    files |= {f"Archive/{full.partition('_')[0]}/{full}.tar.gz": data for full, data in archived.items()}
    described = "\n".join(description(data) for data in current.values())
    pages = {f"/src/contrib/{path}": data for path, data in files.items()}
    return pages | {"/src/contrib/PACKAGES": described.encode()}


def description(source: bytes) -> str:
    """What the index of a mirror says of a package."""
    with tarfile.open(fileobj=io.BytesIO(source)) as archive:
        found = archive.extractfile(next(m for m in archive if m.name.count("/") == 1 and "DESC" in m.name))
        assert found
        lines = found.read().decode().splitlines(keepends=True)
    return "".join(line for line in lines if line.startswith(("Package:", "Version:", "Imports:")))


PAGES = mirror(
    {
        "alpha_1.1": package("alpha", "1.1"),
        "beta_2.0": package("beta", "2.0", Imports="alpha (>= 1.1)"),
        "delta_3.0": package("delta", "3.0", Imports="alpha"),
        "zeta_4.0-1": package("zeta", "4.0-1"),
    },
    {"alpha_1.0": package("alpha", "1.0")},
)


@pytest.fixture
def cran(gateway: str, serve: Serve) -> Server:
    return serve(gateway, dict(PAGES))


def shows(*packages: str, **more: str) -> str:
    calls = ", ".join(f"{package}::version()" for package in packages)
    return job(f"Rscript -e 'cat({calls})'", **more)


def r_project(sandbox: Sandbox, name: str, entries: list[str], *jobs: str, **keys: str) -> None:
    listed = {"dependencies": json.dumps(entries), "language": "R", "baseImage": R_BASE}
    project(sandbox, name, *jobs, **{**listed, **keys})


def layers(name: str) -> list[str]:
    return list(json.loads(docker("image", "inspect", "-f", "{{json .RootFS.Layers}}", name)))


def test_packages_of_every_kind(sandbox: Sandbox, name: str, cran: Server) -> None:
    files = {"DESCRIPTION": "Package: epsilon\nVersion: 0.2\nImports: zeta\n"}
    files |= {"NAMESPACE": "export(version)\n", "R/code.R": "version <- function() 'the tag'\n"}
    tags = {"v1": files, "v2": {"R/code.R": "version <- function() 'a later one'\n"}}
    cran.pages |= repository(sandbox.root.parent / "repo", tags, "/o/epsilon")
    sandbox.write("libs/my gamma.tar.gz", package("gamma", "0.1", Imports="zeta"))
    sandbox = sandbox.with_env(SKELEBOT_CRAN="https://nowhere.invalid")
    build = f"{{cran: 'http://{cran.host}'}}"
    entries = ["alpha=1.0", "delta", f"github:http://{cran.host}/o/epsilon@v1", "file:libs/my gamma.tar.gz"]
    r_project(sandbox, name, entries, shows("alpha", "delta", "epsilon", "gamma", "zeta"), build=build)
    result = sandbox.run("-V", "run")
    assert (result.code, result.out) == (0, "1.0 3.0 the tag 0.1 4.0-1")
    assert "* DONE (delta)" in result.err
    assert "install.packages(" not in result.err  # the step that brings the installer is not shown whole

    before, asked = layers(name), len(cran.asked)
    r_project(sandbox, name, [*entries, "stats"], job("true"), build=build)
    sandbox.ok("run")
    kept = sum(1 for a, b in zip(before, layers(name), strict=False) if a == b)
    assert kept == len(before) - 1  # all but the project's files
    assert len(cran.asked) == asked

    r_project(sandbox, name, [*entries, "beta"], job("true"), build=build)
    result = sandbox.run("run")
    assert (result.code, len(result.errors)) == (1, 1)
    assert "an entry asks for alpha 1.0, but 1.1 is installed" in result.err


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        (["nosuch"], "'nosuch' is not available for this version of R"),
        (["alpha=9.9"], "there is no version 9.9 of the package alpha"),
        (["zeta", "file:libs/broken.tar.gz"], "unexpected symbol"),
        (["beta", "alpha=1.0"], "the packages do not go together"),
        (["github:http://127.0.0.1:9/owner/repo"], "git could not fetch"),
    ],
)
def test_what_cannot_be_installed_fails_the_build(
    sandbox: Sandbox, name: str, cran: Server, entries: list[str], told: str
) -> None:
    sandbox.write("libs/broken.tar.gz", package("zeta", "4.0-1", code="two words\n"))
    sandbox = sandbox.with_env(SKELEBOT_CRAN=f"http://{cran.host}")
    r_project(sandbox, name, entries, job("true"))
    result = sandbox.run("run")
    assert (result.code, len(result.errors)) == (1, 1)
    assert "could not be built" in result.errors[0]
    assert told in result.err


def test_a_mirror_with_a_certificate_of_the_company(
    buildkit: Sandbox, name: str, gateway: str, serve: Serve, authority: Path
) -> None:
    server = serve(gateway, dict(PAGES))
    server.socket = sign(authority, gateway).wrap_socket(server.socket, server_side=True)
    caller = buildkit.with_env(
        SSL_CERT_FILE=str(authority / "ca.pem"), SKELEBOT_CRAN=f"https://{server.host}"
    )
    r_project(caller, name, ["alpha"], shows("alpha"))
    assert caller.run("run").code == 1
    r_project(caller, name, ["alpha"], shows("alpha"), build="{inherit: [ca]}")
    result = caller.run("-V", "run")
    assert (result.code, result.out) == (0, "1.1")
    assert "install.packages(" not in result.err


def test_a_base_without_r_is_told(sandbox: Sandbox, name: str) -> None:
    r_project(sandbox, name, ["alpha"], job("true"), baseImage=BASE)
    result = sandbox.run("run")
    assert (result.code, len(result.errors)) == (1, 1)
    assert "the base image has no R: name one that has" in result.err


def test_another_python_than_the_project_asks_for_is_told(sandbox: Sandbox, name: str) -> None:
    keys = {"language": "R+Python", "pythonVersion": "3.1", "baseImage": "null"}
    project(sandbox, name, job("true"), **keys)
    result = sandbox.with_env(SKELEBOT_BASE_IMAGE=BASE).run("run")
    assert (result.code, len(result.errors)) == (1, 1)
    assert re.search(r"the image has Python 3\.\d\d\.\d+, and pythonVersion is 3\.1;", result.err)


# --- renv ---

RENV = "/usr/local/share/skelebot-test/r-cran-renv_*.orig.tar.gz"  # in the image, see tests/provision.sh


@pytest.fixture(scope="module")
def renv() -> bytes:
    """The source of renv itself."""
    reading = [CLIENTS[0], "run", "--rm", R_BASE, "sh", "-c", f"cat {RENV}"]
    return subprocess.run(reading, check=True, capture_output=True).stdout


def lock(mirror: str, **versions: str) -> str:
    """A lock file with some packages."""
    r = {"Version": "4.2.2", "Repositories": [{"Name": "CRAN", "URL": mirror}]}
    packages = {
        name: {"Package": name, "Version": version, "Source": "Repository", "Repository": "CRAN"}
        for name, version in versions.items()
    }
    return json.dumps({"R": r, "Packages": packages})


def activation(renv: bytes) -> str:
    """The script with which a project of renv switches to a library of its own."""
    with tarfile.open(fileobj=io.BytesIO(renv)) as archive:
        found = archive.extractfile("renv/inst/resources/activate.R")
        assert found
        return found.read().decode().replace("..version..", '"1.1.2"').replace("..sha..", "NULL")


def test_a_lock_file(buildkit: Sandbox, name: str, cran: Server, renv: bytes) -> None:
    cran.pages["/src/contrib/renv_1.1.2.tar.gz"] = renv
    cran.pages["/src/contrib/PACKAGES"] += b"\nPackage: renv\nVersion: 1.1.2\n"
    buildkit.write(".Rprofile", 'source("renv/activate.R")\n')
    buildkit.write("renv/activate.R", activation(renv))
    # Nearly every lock file names renv itself, and seldom in the version that restores it.
    cran.pages["/src/contrib/Archive/renv/renv_0.9.tar.gz"] = package("renv", "0.9")
    buildkit.write("renv.lock", lock("https://nowhere.invalid", alpha="1.0", renv="0.9"))
    build = f"{{cran: 'http://{cran.host}'}}"
    r_project(buildkit, name, ["renv:renv.lock"], shows("alpha", "renv"), build=build)
    assert buildkit.ok("run") == "1.0 0.9"
    buildkit.write("renv.lock", lock("https://nowhere.invalid", alpha="9.9"))
    result = buildkit.run("run")
    assert (result.code, len(result.errors)) == (1, 1)
    assert "failed to retrieve package 'alpha@9.9'" in result.err


# --- together with Python, and natively ---


def test_both_languages(sandbox: Sandbox, name: str, cran: Server) -> None:
    sandbox.write("show.R", SHOW)
    uses_uv = "grep -o 'uv pip install' /usr/local/share/skelebot-installer"
    python = "python -c 'import six; print(six.__version__)'"
    sandbox.write("both.sh", f"Rscript -e 'alpha::version()'; {python}; {uses_uv}\n")
    entries = "{R: [alpha=1.0], Python: [six=1.16.0]}"
    build = f"{{cran: 'http://{cran.host}'}}"
    both = {"language": "R+Python", "dependencies": entries, "build": build}
    project(sandbox, name, job("both.sh"), baseImage=R_BASE, **both)
    assert sandbox.ok("run") == '[1] "1.0"\n1.16.0\nuv pip install\n'

    show = job("show.R", args="[{name: word}]", params="[{name: xs, accepts: list}]")
    project(sandbox, name, show, language="R", dependencies="[alpha]")
    out = on_a_machine_with_r(name, sandbox, "-n", "run", *(f"--xs={word}" for word in WORDS), "--", "-e")
    assert out.split("\x1e") == ["-e", "--xs", *WORDS]


def on_a_machine_with_r(image: str, sandbox: Sandbox, *words: str) -> str:
    """What Skelebot prints in a container of an image that has R and Python."""
    mounts = [
        f"{Path(module.__file__ or '').parent}:/lib-of-test/{module.__name__}" for module in (skelebot, yaml)
    ]
    options = [option for mount in mounts for option in ("-v", f"{mount}:ro")]
    options += ["-v", f"{sandbox.root}:/project", "-w", "/project", "-e", "PYTHONPATH=/lib-of-test"]
    running = [CLIENTS[0], "run", "--rm", *options, image, "python", "-m", "skelebot", *words]
    done = subprocess.run(running, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    return done.stdout
