"""What goes into an image for Kerberos, what wraps a run, and what is refused before either."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from skelebot.component import Session
from skelebot.components.kerberos import KEYTAB, Kerberos, krb5_conf
from skelebot.errors import UsageError
from skelebot.model import Flags, Image, Mount, Task

from .helpers import load, ordinary_user, run_cli, write

YAML = """\
name: demo
baseImage: base
jobs: [{name: train, source: "true", help: h}]
components: {kerberos: {krbConf: krb5.conf, keytab: a.keytab, hdfsUser: alice}}
"""
MAIN = "/etc/krb5.conf"


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "VIRTUAL_ENV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    write(tmp_path, YAML)
    write(tmp_path, "[libdefaults]\n", "krb5.conf")
    write(tmp_path, "key", "a.keytab")


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run_cli(["--dry-run", *words]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run_cli([*words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


# --- runs ---


@pytest.mark.parametrize("command", ["train", "jupyter"])
def test_only_runs_in_docker_are_wrapped(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "krb5.keytab" in shown(capsys, command)
    native = shown(capsys, "-n", command)
    assert "kerberos" not in native
    assert "keytab" not in native
    Path("a.keytab").unlink()
    assert shown(capsys, "-n", command) == native


def component(**keys: str) -> Kerberos:
    return Kerberos(**{"krb_conf": "krb5.conf", "keytab": "a.keytab", "hdfs_user": "alice", **keys})


def test_a_run_mounts_the_keytab_and_gets_a_ticket(tmp_path: Path) -> None:
    project = load(tmp_path, YAML)
    task = component().task(Task("train", ("a", "b c"), str(tmp_path)), project)
    assert task.mounts == (Mount(f"{tmp_path}/a.keytab", KEYTAB, read_only=True),)
    assert task.argv[:2] == ("sh", "-c")
    assert task.argv[3:] == ("kerberos", KEYTAB, "alice", "a", "b c")


def test_an_image_has_the_client_and_leaves_the_keytab_out(tmp_path: Path) -> None:
    write(tmp_path, "key", "secrets/a [1].keytab")
    (tmp_path / "link").symlink_to("secrets/a [1].keytab")
    project = load(tmp_path, YAML)
    image = Image("demo", "demo", "base", str(tmp_path), ignores=("*.csv",), entrypoint=("a",))
    changed = component(keytab="link").image(image, project)
    assert changed.ignores == ("*.csv", "link", r"secrets/a \[1\].keytab")
    assert changed.labels == (("skelebot.keytab", KEYTAB),)
    assert changed.entrypoint
    assert changed.entrypoint[3:] == ("kerberos", KEYTAB, "alice", "a")
    assert [line[:3] for line in changed.setup] == ["RUN", "RUN"]
    assert max(map(len, changed.setup[0].splitlines())) < 100
    assert changed.setup[1].endswith("&& printf '%s\\n' \\\n    '[libdefaults]' \\\n    >/etc/krb5.conf")
    plain = component(keytab="/elsewhere/a.keytab").image(replace(image, entrypoint=None), project)
    assert (plain.ignores, plain.entrypoint) == (("*.csv",), None)


# --- the configuration ---


def read(tmp_path: Path, **files: str) -> dict[str, str]:
    for name, text in files.items():
        write(tmp_path, text, name.replace("__", "/"))
    return krb5_conf.read(str(tmp_path), "main")


def test_a_file_that_includes_nothing_is_unchanged(tmp_path: Path) -> None:
    text = "\n[a]\n  include x\nincluded = y\nmodule = z\n[b]\r\n  c = d\n\n"
    assert read(tmp_path, main=text) == {MAIN: text}


def test_included_files_keep_their_place_and_order(tmp_path: Path) -> None:
    files = read(
        tmp_path,
        main=f"include  {tmp_path}/one \n[a]\n  b = {{\nincludedir {tmp_path}/more\n  }}\ninclude\tone",
        one="[one]",
        more__z="[z]\n",
        more__a="includedir empty/\n[a]\n",
        empty__none="",
    )
    lines = [f"include {MAIN}.d/{number}" for number in (1, 2, 3, 4)]
    main = f"{lines[0]}\n[a]\n  b = {{\n{lines[1]}\n{lines[3]}\n  }}\ninclude {MAIN}.d/5"
    assert files == {
        MAIN: main,
        f"{MAIN}.d/1": "[one]",
        f"{MAIN}.d/2": f"{lines[2]}\n[a]\n",
        f"{MAIN}.d/3": "",
        f"{MAIN}.d/4": "[z]\n",
        f"{MAIN}.d/5": "[one]",
    }


def test_the_files_of_a_folder_that_kerberos_would_read(tmp_path: Path) -> None:
    wanted = ("10-realm", "a_b", "REALM", "x.conf", "two.words.conf", "with blank.conf")
    others = (".hidden", ".hidden.conf", "x.conf.rpmnew", "x~", "#x#", "x.bak")
    for name in wanted + others:
        write(tmp_path, name, f"d/{name}")
    (tmp_path / "d/folder").mkdir()
    files = read(tmp_path, main="includedir d\n")
    assert list(files.values())[1:] == sorted(wanted)
    assert files[MAIN].count("\n") == len(wanted)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a]\ninclude nowhere\n", "main:2: {0}/nowhere cannot be read: no such file or directory; "),
        ("includedir /nowhere\n", "main:1: the folder /nowhere cannot be read: no such file or directory; "),
        ("includedir main\n", "main:1: the folder {0}/main cannot be read: not a directory; "),
        ("include pipe\n", "main:1: {0}/pipe cannot be read: is not an ordinary file; "),
        ("include /dev/zero\n", "main:1: /dev/zero cannot be read: is not an ordinary file; "),
        ("include .\n", "main:1: {0}/. cannot be read: is a directory; "),
        ("include link\n", "main:1: {0}/link includes itself; "),
        ("include one\n", "one:1: {0}/main includes itself; "),
        ("# c\nmodule x.so:y\n", "main:2: a module cannot be copied into the image; "),
    ],
)
def test_what_cannot_come_along_is_an_error(tmp_path: Path, text: str, expected: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("main")
    write(tmp_path, "include main\n", "one")
    with pytest.raises(UsageError) as caught:
        read(tmp_path, main=text)
    assert str(caught.value).startswith(f"{tmp_path}/{expected.format(tmp_path)}")


@pytest.mark.parametrize("command", [["train"], ["--dry-run", "train"]])
def test_a_missing_folder_is_reported_before_the_build(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "includedir /nowhere\n", "krb5.conf")
    assert "krb5.conf:1: the folder /nowhere cannot be read" in refused(capsys, *command)


@pytest.mark.parametrize("name", ["krb5.conf", "a.keytab"])
def test_a_pipe_is_an_error_and_never_waited_for(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    found = refused(capsys, "train")
    assert found.startswith("ERROR | components.kerberos.")
    assert f"{tmp_path}/{name}" in found
    assert "is not an ordinary file" in found


def kerberos_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What doctor finds about Kerberos."""
    run_cli(["-n", "doctor"])
    out, err = capsys.readouterr()
    lines = (out + err).splitlines()
    start = next(number for number, line in enumerate(lines) if "kerberos" in line)
    return "\n".join(lines[start : start + 2])


def test_doctor_looks_at_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"keytab {tmp_path}/a.keytab" in kerberos_line(capsys)
    write(tmp_path, "includedir /nowhere\n", "krb5.conf")
    assert "the folder /nowhere cannot be read" in kerberos_line(capsys)
    write(tmp_path, "", "krb5.conf")
    (tmp_path / "a.keytab").unlink()
    os.mkfifo(tmp_path / "a.keytab")
    assert "a.keytab is not an ordinary file" in kerberos_line(capsys)


def test_a_keytab_that_cannot_be_read(tmp_path: Path) -> None:
    with tempfile.NamedTemporaryFile() as keytab, tempfile.NamedTemporaryFile() as conf:
        os.chmod(conf.name, 0o644)
        os.chmod(keytab.name, 0)
        kerberos = component(keytab=keytab.name, krb_conf=conf.name)
        session = Session(load(tmp_path, YAML), (), Flags(), set(), set())
        with ordinary_user():
            (check,) = kerberos.checks(session)
    assert check.found == f"{keytab.name} cannot be read: permission denied"
    assert check.advice
