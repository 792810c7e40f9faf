"""`skelebot package`: what is in the zip, that its bytes are always the same, and where it goes."""

import os
import resource
import shutil
import stat
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from skelebot import launch
from skelebot.component import Session
from skelebot.image.ignores import Ignores
from skelebot.model import Flags
from skelebot.project import state

from .helpers import load, problems, run_cli, write


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    write(root, "name: My Project\n")
    write(root, "1.4.2\n", "VERSION")
    write(root, "print(1)\n", "src/a.py")
    monkeypatch.chdir(root)
    return root


def configure(project: Path, package: str, **keys: str) -> None:
    lines = [f"{name}: {value}" for name, value in keys.items()]
    write(project, "\n".join(["name: My Project", *lines, f"components: {{package: {package}}}", ""]))


def packaged(capsys: pytest.CaptureFixture[str], *words: str) -> Path:
    """The zip that a package which succeeds tells of."""
    assert run_cli(["package", *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return Path(out.removesuffix("\n"))


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a failing package ends with."""
    assert run_cli(["package", *words]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


def names(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        return opened.namelist()


def files(project: Path) -> set[str]:
    return {str(path.relative_to(project)) for path in project.rglob("*") if ".skelebot" not in path.parts}


CODE = ["VERSION", "skelebot.yaml", "src/", "src/a.py"]

# --- where it goes ---


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("1.4.2\n", "my-project-1.4.2.zip"),
        ("1.5.0-rc.1+build\n", "my-project-1.5.0-rc.1+build.zip"),
        ("../../x y\n", "my-project-..-..-x-y.zip"),
        ("", "my-project.zip"),
    ],
)
def test_its_name(project: Path, capsys: pytest.CaptureFixture[str], version: str, name: str) -> None:
    write(project, version, "VERSION")
    assert packaged(capsys) == project / name
    assert names(project / name) == CODE


@pytest.mark.parametrize("path", ["code.zip", "dist/new/code.zip", "../beside.zip", "{tmp}/absolute.zip"])
def test_its_place(project: Path, capsys: pytest.CaptureFixture[str], path: str) -> None:
    path = path.format(tmp=project.parent)
    configure(project, f"{{path: {path}}}")
    assert packaged(capsys) == Path(os.path.normpath(project / path))
    assert names(project / path) == CODE


def test_home_and_a_folder_below(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(project, "{path: ~/code.zip}")
    monkeypatch.setenv("HOME", str(project.parent))
    monkeypatch.chdir(project / "src")
    assert packaged(capsys) == project.parent / "code.zip"


def test_a_link_is_followed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(project, "{path: code.zip, ignores: [code.zip]}")
    (project / "code.zip").symlink_to("../there.zip")
    assert packaged(capsys) == project.parent / "there.zip"
    assert (project / "code.zip").is_symlink()


@pytest.mark.parametrize("path", ["src", "src/", "new/"])
def test_a_folder_is_not_a_zip(project: Path, capsys: pytest.CaptureFixture[str], path: str) -> None:
    configure(project, f"{{path: {path}}}")
    assert run_cli(["package"]) == 2
    assert "is a folder" in capsys.readouterr().err


@pytest.mark.parametrize("setting", ["{path: ''}", "{paths: x}", "{ignores: {}}", '{ignores: ["a\\nb"]}'])
def test_wrong_settings(tmp_path: Path, setting: str) -> None:
    assert len(problems(tmp_path, f"name: a\ncomponents: {{package: {setting}}}\n")) == 1


# --- what is in it ---


def test_what_an_image_would_hold(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left_out = [".git/HEAD", ".env", "a/.venv/x", "__pycache__/a.pyc", ".skelebot/x", "secrets.env"]
    left_out += ["data/a.csv", "notes/a.md", "dist/x", "Dockerfile.tmp.skelebot-part"]
    for name in (*left_out, "data/kept.csv", "notes/kept.md", "Dockerfile"):
        write(project, "x\n", name)
    write(project, "notes\n!notes/kept.md\n", ".dockerignore")
    (project / "empty").mkdir()
    ignored = "['data/*', '!data/kept.csv']"
    configure(project, "{ignores: [dist]}", ignores=ignored, envFile="secrets.env")
    assert names(packaged(capsys)) == [
        *(".dockerignore", "Dockerfile", "VERSION", "a/", "data/", "data/kept.csv", "empty/"),
        *("notes/kept.md", "skelebot.yaml", "src/", "src/a.py"),
    ]


def test_own_patterns_bring_nothing_back(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("src/.env", "src/secrets.env", "src/a.csv", "src/b.md"):
        write(project, "x\n", name)
    own = "{ignores: ['**', '!src/**', '**/*.md']}"
    configure(project, own, ignores="['**/*.csv']", envFile="src/secrets.env")
    assert names(packaged(capsys)) == ["src/a.py"]


def test_a_dockerfile_of_skelebots_is_left_out(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = "# Written by Skelebot from skelebot.yaml, to be looked at; it is not read. Checksum 00000000\n"
    write(project, first, "Dockerfile")
    assert names(packaged(capsys)) == CODE
    write(project, first + "RUN mine\n", "Dockerfile")
    assert "Dockerfile" in names(packaged(capsys))


def test_no_package_holds_a_package(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = packaged(capsys).read_bytes()
    for version in ("1.4.3", "1.4.4"):
        write(project, f"{version}\n", "VERSION")
        assert names(packaged(capsys)) == CODE
    configure(project, "{path: src/code.zip, ignores: ['!**/*.zip']}")
    assert names(packaged(capsys)) == CODE
    # Nor where nothing remembers them, or they have gone elsewhere.
    shutil.rmtree(project / ".skelebot")
    (project / "my-project-1.4.2.zip").rename(project / "src/renamed.zip")
    write(project, "another.zip is not one of its packages\n", "another.zip")
    assert names(packaged(capsys)) == ["VERSION", "another.zip", "skelebot.yaml", "src/", "src/a.py"]
    assert (project / "src/renamed.zip").read_bytes() == first


def test_images_leave_it_out(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(project, "{path: dist/code.zip}")
    packaged(capsys)
    patterns = launch.image(Session(load(project), (), Flags(), set(), set())).ignores
    assert Ignores(patterns).excludes("dist/code.zip")
    assert not Ignores(patterns).excludes("dist/other.zip")


def test_nothing_to_package(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(project, "{ignores: ['**/*.*', VERSION]}")
    assert "nothing to package" in refused(capsys)
    assert files(project) == {"VERSION", "skelebot.yaml", "src", "src/a.py"}


# --- its bytes ---


def test_the_same_files_give_the_same_bytes(
    project: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(project, "#!/bin/sh\n", "run.sh").chmod(0o755)
    write(project, "x" * 100_000, "src/b.txt")
    (project / "link").symlink_to("src/a.py")
    first = packaged(capsys).read_bytes()
    other = tmp_path / "other" / "checkout"
    before = os.umask(0o077)
    try:
        for name in ("src/b.txt", "src/a.py", "skelebot.yaml", "run.sh", "VERSION"):  # in another order
            write(other, (project / name).read_text(), name)
            os.utime(other / name, (1e9, 1e9))
        (other / "run.sh").chmod(0o700)
        (other / "link").symlink_to("src/a.py")
    finally:
        os.umask(before)
    monkeypatch.chdir(other)
    assert packaged(capsys).read_bytes() == first
    assert packaged(capsys).read_bytes() == first
    (other / "run.sh").chmod(0o600)
    assert packaged(capsys).read_bytes() != first


@pytest.mark.skipif(not shutil.which("unzip"), reason="unzip is not installed")
def test_it_unpacks_to_what_was_packed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project, "#!/bin/sh\necho ran\n", "src/run.sh").chmod(0o750)
    write(project, "ä\n", "größe/ein file [1].txt").chmod(0o664)
    (project / "src/up").symlink_to("../größe")
    (project / "src/dangling").symlink_to("nothing")
    archive = packaged(capsys)
    there = project.parent / "there"
    subprocess.run(["unzip", "-q", archive, "-d", there], check=True)
    archive.unlink()
    shutil.rmtree(project / ".skelebot")
    assert files(there) == files(project)
    assert (there / "größe/ein file [1].txt").read_text() == "ä\n"
    assert os.readlink(there / "src/up") == "../größe"
    assert os.readlink(there / "src/dangling") == "nothing"
    assert subprocess.run([there / "src/run.sh"], capture_output=True, check=True).stdout == b"ran\n"
    modes = {stat.S_IMODE((there / name).stat().st_mode) for name in ("VERSION", "größe/ein file [1].txt")}
    assert modes == {0o644}


# --- what is refused ---


@pytest.mark.parametrize(
    "link",
    ["{root}/src/a.py", "/etc/passwd", "../outside", "..", "../project/src/a.py", "through/../../outside"],
)
def test_a_link_out_of_the_project(project: Path, capsys: pytest.CaptureFixture[str], link: str) -> None:
    (project / "a").mkdir()
    (project / "through").symlink_to("a")
    (project / "bad").symlink_to(link.format(root=project))
    assert "bad is a link out of the project" in refused(capsys)
    assert not (project / "my-project-1.4.2.zip").exists()
    configure(project, "{ignores: [bad]}")
    assert "bad" not in names(packaged(capsys))


def test_two_links_that_lead_out_together(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "deep/er").mkdir(parents=True)
    (project / "top").symlink_to("deep/er/..")
    (project / "deep/er/out").symlink_to("../../top/../..")
    assert "deep/er/out is a link out of the project" in refused(capsys)


def test_a_name_that_is_not_utf8(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open(os.fsencode(project) + b"/caf\xe9.txt", "w"):
        pass
    assert "has a name that is not UTF-8" in refused(capsys)


def test_a_pipe(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(project / "pipe")
    assert "pipe is not a file, folder or link" in refused(capsys)


def test_a_file_of_the_users_is_not_replaced(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = write(project, "mine", "my-project-1.4.2.zip")
    assert "is not a package of this project" in refused(capsys)
    assert target.read_text() == "mine"
    assert names(packaged(capsys, "--force")) == CODE
    assert names(packaged(capsys)) == CODE  # which it now is


def test_a_package_of_another_project_is_not_replaced(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(project, "{path: ../code.zip}")
    packaged(capsys)
    write(project, "name: another\ncomponents: {package: {path: ../code.zip}}\n")
    assert "is not a package of this project" in refused(capsys)


# --- whole or not at all ---


@pytest.fixture
def little_room() -> Iterator[None]:
    """No file of this process may become larger than 50 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_room(project: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> None:
    before = packaged(capsys).read_bytes()
    (project / "noise").write_bytes(os.urandom(100_000))
    request.getfixturevalue("little_room")
    assert "my-project-1.4.2.zip cannot be written: file too large" in refused(capsys)
    assert (project / "my-project-1.4.2.zip").read_bytes() == before
    assert files(project) == {"VERSION", "skelebot.yaml", "src", "src/a.py", "noise", "my-project-1.4.2.zip"}


def test_dry_run_writes_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(project, "{path: dist/code.zip}")
    assert run_cli(["--dry-run", "package"]) == 0
    listed = [f"  {name.rstrip('/')}" for name in CODE]
    assert capsys.readouterr().out.splitlines() == [str(project / "dist/code.zip"), *listed]
    assert files(project) == {name.rstrip("/") for name in CODE}


def test_what_comes_after_a_bump_has_its_version(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["bump", "minor", "+", "package"]) == 0
    assert capsys.readouterr().out == f"1.5.0\n{project}/my-project-1.5.0.zip\n"
    with zipfile.ZipFile(project / "my-project-1.5.0.zip") as archive:
        assert archive.read("VERSION") == b"1.5.0\n"


def test_a_pulled_version_is_left_out(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("model_v0.2.0.joblib", "model_v0.3.0.joblib"):
        write(project, "x", name)
    state.remember_output(str(project), str(project / "model_v0.2.0.joblib"))
    assert names(packaged(capsys)) == ["VERSION", "model_v0.3.0.joblib", *CODE[1:]]


def test_a_link_that_leads_out_through_another_that_is_left_out(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(project.parent, "secret", "secret")
    (project / "up").symlink_to("..")
    (project / "a").symlink_to("up/secret")
    configure(project, "{ignores: [up]}")
    assert "a is a link out of the project, to up/secret" in refused(capsys)


def test_a_pipe_called_dockerfile_is_not_read(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(project / "Dockerfile")
    assert "Dockerfile is not a file, folder or link" in refused(capsys)
