"""Whether a job is up to date: what it reads and makes, its key, its record, and the reasons."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skelebot import launch
from skelebot.component import Session
from skelebot.components.jobs import up_to_date
from skelebot.components.jobs.up_to_date import State
from skelebot.errors import SkelebotError
from skelebot.image import dockerfile
from skelebot.image.ignores import Ignores, of_user
from skelebot.model import Flags, Image, Job, Output, Param, Project, Task
from skelebot.options import Values
from skelebot.pipeline import contents, key, reasons, record
from skelebot.pipeline.key import Key
from skelebot.pipeline.record import Success, Unfinished
from skelebot.project import plan
from skelebot.runners.docker.build_source import setup_digest
from skelebot.runners.native import environment
from skelebot.secret import Secret, typed_secret

from .helpers import load, ordinary_user, write


def job(name: str = "train", source: str = "train.py", **more: Any) -> Job:
    return Job(name=name, source=source, help="h", place=f"skelebot.yaml:1:1: {name}", **more)


def project(root: Path, *jobs: Job, **more: Any) -> Project:
    return Project("demo", jobs=jobs, root=str(root), **more)


def left_out(project: Project, job: Job) -> tuple[str, ...]:
    return dockerfile.left_out(project, job, of_user(project.root))


def inputs(
    root: Path, *declared: str, outputs: tuple[str, ...] = (), ignores: tuple[str, ...] = ()
) -> set[str]:
    """The paths of a job's inputs."""
    contents.forget()
    the_job = job(inputs=declared or None, outputs=outputs)
    patterns = left_out(project(root, the_job, ignores=ignores), the_job)
    return {entry.path for entry in contents.inputs(str(root), the_job, patterns).entries}


# --- inputs ---


def test_a_job_without_the_key_reads_all_and_one_with_an_empty_list_none(tmp_path: Path) -> None:
    write(tmp_path, "1", "data/x")
    contents.forget()
    found = {
        declared: len(contents.inputs(str(tmp_path), job(inputs=declared), ()).entries)
        for declared in (None, (), ("data/",))
    }
    assert found == {None: 1, (): 0, ("data/",): 1}
    text = "name: d\njobs:\n- {name: a, source: 'true', help: h%s}\n"
    read = [load(tmp_path, text % more).jobs[0].inputs for more in ("", ", inputs: []", ", inputs: [x]")]
    assert read == [None, (), ("x",)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        *("train.py", "src/a.py", "src/b/c.py", "src/b/d.txt", "src/__pycache__/a.pyc", "src/x.pyc"),
        *("data/1.csv", "data/2.csv", "data/in/3.csv", "models/m", ".git/HEAD", ".skelebot/x", ".env"),
    ):
        write(tmp_path, name, name)
    return tmp_path


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (["src/"], "src/a.py src/b/c.py src/b/d.txt"),
        (["src"], "src/a.py src/b/c.py src/b/d.txt"),
        (["./src//b/"], "src/b/c.py src/b/d.txt"),
        (["src/a.py"], "src/a.py"),
        (["src/a.py", "src"], "src/a.py src/b/c.py src/b/d.txt"),
        (["src/*.py"], "src/a.py"),
        (["**/*.py"], "train.py src/a.py src/b/c.py"),
        (["src/**/*.py"], "src/a.py src/b/c.py"),
        (["data/[12].csv"], "data/1.csv data/2.csv"),
        (["data/?.csv"], "data/1.csv data/2.csv"),
        (["*/in"], "data/in/3.csv"),
        ([".env"], ".env"),
        (["nosuch", "src/a.py/x", "nosuch/*"], ""),
    ],
)
def test_declared_inputs(tree: Path, declared: list[str], expected: str) -> None:
    assert inputs(tree, *declared) == set(expected.split())


def test_inputs_are_by_default_what_the_image_holds(tree: Path) -> None:
    everything = {"train.py", "src/a.py", "src/b/c.py", "src/b/d.txt", "data/1.csv", "data/2.csv"}
    assert inputs(tree) == everything | {"data/in/3.csv", "models/m"}
    assert inputs(tree, outputs=("models/",), ignores=("data",)) == {p for p in everything if p[0] != "d"}
    write(tree, "**/*.txt\n", ".dockerignore")
    assert "src/b/d.txt" not in inputs(tree)


def test_what_the_job_makes_is_no_input(tree: Path) -> None:
    assert inputs(tree, "data/", outputs=("data/in/",)) == {"data/1.csv", "data/2.csv"}
    assert inputs(tree, "data/*", outputs=("data/1.csv",)) == {"data/2.csv", "data/in/3.csv"}


def hashed(root: Path, *declared: str) -> str:
    contents.forget()
    the_job = job(inputs=declared or None)
    patterns = left_out(project(root, the_job), the_job)
    return contents.inputs(str(root), the_job, patterns).fingerprint()


@pytest.mark.parametrize("declared", [(), ("link",), ("*nk",), ("in/",), ("in/deep",)])
@pytest.mark.parametrize("folder", [True, False])
def test_the_content_behind_a_link_counts(tmp_path: Path, declared: tuple[str, ...], folder: bool) -> None:
    """Also where the file itself is not among the inputs, such as one below an ignored folder."""
    real = write(tmp_path, "1", "venv/real/file" if folder and declared != () else "elsewhere/real")
    outside = Path(tempfile.mkdtemp(dir=tmp_path.parent))
    if declared == ():  # there only what is outside is not seen otherwise
        folder, real = False, write(outside, "1", "real")
    elif folder:
        real = write(tmp_path, "1", "elsewhere/folder/file")
    target = real.parent if folder else real
    for link in ("link", "in/deep"):
        (tmp_path / link).parent.mkdir(exist_ok=True)
        (tmp_path / link).symlink_to(target)
    before = hashed(tmp_path, *declared)
    assert hashed(tmp_path, *declared) == before
    real.write_text("2")
    assert hashed(tmp_path, *declared) != before


def test_links_in_circles_and_to_nowhere(tmp_path: Path) -> None:
    write(tmp_path, "1", "a/file")
    for link, target in (("a/up", ".."), ("a/self", "self"), ("a/b", "../c"), ("c", "a"), ("gone", "x/y")):
        (tmp_path / link).symlink_to(target)
    assert "a/file" in inputs(tmp_path)
    assert "c/file" in inputs(tmp_path, "c")
    before = hashed(tmp_path, "gone")
    write(tmp_path, "now", "x/y")
    assert hashed(tmp_path, "gone") != before


def test_a_pattern_looks_through_links_in_the_project(tmp_path: Path) -> None:
    write(tmp_path, "1", "other/deep/x.yaml")
    write(tmp_path, "1", "conf/a.yaml")
    (tmp_path / "conf/sub").symlink_to("../other")
    for pattern in ("conf/**/*.yaml", "conf/*/deep/*.yaml", "**/*.yaml"):
        assert "conf/sub/deep/x.yaml" in inputs(tmp_path, pattern)
        before = hashed(tmp_path, pattern)
        write(tmp_path, before, "other/deep/x.yaml")
        assert hashed(tmp_path, pattern) != before


def test_a_link_to_an_output_is_no_input(tmp_path: Path) -> None:
    write(tmp_path, "1", "models/m")
    (tmp_path / "latest").symlink_to("models")
    assert inputs(tmp_path, outputs=("models/",)) == {"latest"}
    write(tmp_path, "1", "src/a.py")
    (tmp_path / "src/latest").symlink_to("../models")
    assert inputs(tmp_path, "src/", outputs=("models/",)) == {"src/a.py", "src/latest"}


def test_a_link_out_of_the_project(tmp_path: Path) -> None:
    root = tmp_path / "project"
    write(tmp_path, "1", "disk/big/file")
    write(root, "1", "src/a.py")
    (root / "src/link").symlink_to("../../disk")
    with pytest.raises(SkelebotError, match="the link src/link leads to a folder outside the project"):
        inputs(root, "src")
    with pytest.raises(SkelebotError, match="outside the project"):
        inputs(root)
    assert inputs(root, ignores=("src/link",)) == {"src/a.py"}
    assert inputs(root, "src/link") == {"src/link", "src/link/big/file"}
    assert inputs(root, "src", "src/link") == {"src/a.py", "src/link", "src/link/big/file"}
    assert inputs(root, "**/*.py") == {"src/a.py"}
    before = hashed(root, "src/link")
    write(tmp_path, "2", "disk/big/file")
    assert hashed(root, "src/link") != before


def test_unreadable_inputs(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for path in (tmp_path, *list(tmp_path.parents)[:-2]):
        path.chmod(path.stat().st_mode | 0o055)
    write(tmp_path, "1", "src/a.py").chmod(0)
    write(tmp_path, "1", "closed/b/c.py")
    (tmp_path / "closed").chmod(0)
    with ordinary_user():
        for declared, shown in (("src", "src/a.py"), ("closed", "closed"), ("closed/b", "closed/b")):
            with pytest.raises(SkelebotError, match=f"^{shown} cannot be read: permission denied"):
                hashed(tmp_path, declared)
    (tmp_path / "closed").chmod(0o755)


def test_a_walk_that_began_before_the_files_changed_is_not_used(tmp_path: Path) -> None:
    """It ends in another thread after `forget`, and would be found by whoever comes next."""
    write(tmp_path, "1", "a")
    began = contents._generation
    contents.forget()
    contents._all_files(str(tmp_path), (), began)
    write(tmp_path, "1", "b")
    found = contents.inputs(str(tmp_path), job(), ())
    assert {entry.path for entry in found.entries} == {"a", "b"}


# --- outputs ---


def left(root: Path, *texts: str) -> str:
    return contents.outputs(str(root), job(outputs=texts).results).fingerprint()


def add(root: Path) -> None:
    write(root, "new", "models/new")


def change(root: Path) -> None:
    write(root, "2", "models/a/m")


def remove(root: Path) -> None:
    (root / "models/a/m").unlink()


def rename(root: Path) -> None:
    (root / "models/a/m").rename(root / "models/a/n")


def let_run(root: Path) -> None:
    (root / "models/a/m").chmod(0o755)


def change_behind_a_link(root: Path) -> None:
    write(root, "2", "../store/real")


def make_a_link(root: Path) -> None:
    (root / "models/a/m").rename(root / "kept")
    (root / "models/a/m").symlink_to("../../kept")


@pytest.mark.parametrize("does", [add, change, remove, rename, let_run, change_behind_a_link, make_a_link])
def test_outputs_that_differ(tmp_path: Path, does: Callable[[Path], None]) -> None:
    root = tmp_path / "project"
    write(root, "1", "models/a/m")
    write(tmp_path, "1", "store/real")
    (root / "models/link").symlink_to("../../store/real")
    before = left(root, "models/")
    os.utime(root / "models/a/m", (1, 1))
    assert left(root, "models/") == before
    does(root)
    assert left(root, "models/") != before


@pytest.mark.parametrize(
    ("text", "made", "is_missing"),
    [
        ("models/", [], True),
        ("models/", ["models/a/"], True),
        ("models/", ["models/a/m"], False),
        ("models/", ["models"], True),  # a file
        ("models/m.pkl", ["models/"], True),
        ("models/m.pkl", ["models/n.pkl"], True),
        ("models/m.pkl", ["models/m.pkl/x"], True),  # a folder
        ("models/m.pkl", ["models"], True),
        ("models/m.pkl", ["models/m.pkl"], False),
    ],
)
def test_an_output_that_is_missing_or_empty(
    tmp_path: Path, text: str, made: list[str], is_missing: bool
) -> None:
    for name in made:
        if name.endswith("/"):
            (tmp_path / name).mkdir(parents=True)
        else:
            write(tmp_path, "", name)
    found = contents.missing(str(tmp_path), job(outputs=(text,)).results)
    assert found == ([Output.parse(text)] if is_missing else [])


# --- the key ---


@dataclass
class World:
    """All that could have to do with a job's key; each of its values can change."""

    script: str = "print(1)"
    input: str = "x,y"
    input_mode: int = 0o644
    input_name: str = "in.csv"
    more: bool = False
    made: str = "made"
    arg: str = "day"
    default: str = "0.1"
    option: str | None = None
    secret: str = "hunter2"
    typed: str = "t0ken"
    variable: str = "one"
    of_caller: str = "mine"
    from_file: str = "F=1"
    named: str = "a table"
    mapping: str = "cache/"
    outside: str = "/srv/data:/data:ro"
    source: str = "train.py"
    packages: tuple[str, ...] = ("numpy==1",)
    requirements: str = "pandas==2\n"
    base: str = "python:3.12-slim"
    # what has no part in it
    help: str = "h"
    timeout: str | None = None
    ports: tuple[str, ...] = ()
    description: str = ""
    version: str | None = None
    contact: str = ""
    other_job: str = "true"
    keys_order: bool = False
    age: int = 0
    owner: int = 0
    foreign: str = ""
    checkout: str = "here"
    flags: Flags = field(default_factory=Flags)

    def key(self, place: str) -> Key:
        with tempfile.TemporaryDirectory() as above:
            root = Path(above) / self.checkout
            self._write(root)
            try:
                return self._key(root, place)
            finally:
                contents.forget()

    def _write(self, root: Path) -> None:
        (root / ".skelebot").mkdir(parents=True)
        (root / ".skelebot/hash-key").write_bytes(b"k" * 32)
        write(root, "name: demo\n")
        write(root, self.script, "train.py")
        write(root, self.input, f"data/{self.input_name}").chmod(self.input_mode)
        if self.more:
            write(root, "", "data/more")
        write(root, self.made, "models/m")
        write(root, self.from_file, "job.env")
        write(root, self.named, "tables/table.txt")
        write(root, self.requirements, "requirements.txt")
        write(root, self.foreign, "notes.txt")
        for folder, _, names in os.walk(root):
            for path in (os.path.join(folder, name) for name in names):
                os.utime(path, (self.age, self.age))
                if self.owner and os.getuid() == 0:
                    os.chown(path, self.owner, self.owner)

    def _key(self, root: Path, place: str) -> Key:
        table = Param("table", type="file", default="tables/table.txt")
        params = [table, Param("rate", default=self.default), Param("level"), Param("token", secret=True)]
        the_job = Job(
            name="train",
            source=self.source,
            help=self.help,
            timeout=self.timeout,
            ports=self.ports,
            params=(
                *params,
                Param("password", default="$PASSWORD", secret=True),
                Param("day", default=self.arg),
            ),
            environment=(("V", self.variable), ("C", None)),
            env_file="job.env",
            mappings=(self.mapping, self.outside),
            needs=("load",),
            inputs=("data/",),
            outputs=("out/",),
        )
        jobs = [Job("load", "true", "h", outputs=("models/",)), the_job, Job("z", self.other_job, self.help)]
        whole = Project(
            "demo",
            jobs=tuple(jobs[::-1] if self.keys_order else jobs),
            root=str(root),
            description=self.description,
            version=self.version,
            contact=self.contact,
            dependencies=(*self.packages, "req:requirements.txt"),
            base_image=self.base,
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("C", self.of_caller)
            patch.setenv("PASSWORD", self.secret)
            patch.setenv("FOREIGN", self.foreign)
            values: Values = {"token": self.typed}
            if self.option:
                values["level"] = self.option
            flags = self.flags._replace(native=place == "native")
            task = plan.task(whole, the_job, values, flags, os.environ)
            session = Session(whole, (), flags, set(), set())
            image = launch.image(session, the_job)
            read = contents.read_by(whole, the_job, image.ignores)
            around = environment.digest(task) if place == "native" else setup_digest(image)
            return key.key(whole, the_job, task, read, {"around": around})


text = st.text("ab -$'\"\\é\n", max_size=8)

# Each part of the key, with what changes it.
PARTS: dict[str, tuple[str, st.SearchStrategy[Any]]] = {
    "script": ("source", text),
    "source": ("source", st.sampled_from(["python train.py", "true", "./train.py"])),
    "input": ("inputs", text),
    "input_mode": ("inputs", st.sampled_from([0o755, 0o444, 0o600])),
    "input_name": ("inputs", st.text("abc", min_size=1)),
    "more": ("inputs", st.just(True)),
    "made": ("needed outputs", text),
    "arg": ("arguments", text),
    "default": ("arguments", text),
    "option": ("arguments", text.filter(bool)),
    "secret": ("arguments", text),
    "typed": ("arguments", text),
    "named": ("files of values", text),
    "variable": ("variables", text),
    "of_caller": ("variables", text),
    "from_file": ("variables", st.sampled_from(["F=2", "G=1", "F=1\nG=1", ""])),
    "mapping": ("mappings", st.sampled_from(["cache/:ro", "cache2/", "cache:/cache"])),
    "outside": ("mappings", st.sampled_from(["/srv/data:/data", "/srv/other:/data:ro", "/srv/data:/d:ro"])),
    "packages": ("around", st.sampled_from([("numpy==2",), (), ("numpy==1", "scipy")])),
    "requirements": ("around", st.sampled_from(["pandas==3\n", "pandas==2\nx\n", ""])),
}
OF_IMAGES = {"base": ("around", st.sampled_from(["python:3.11-slim", "debian"]))}
NO_PARTS: dict[str, st.SearchStrategy[Any]] = {
    "help": text,
    "timeout": st.sampled_from(["1m", "2h"]),
    "ports": st.just(("80:80",)),
    "description": text,
    "version": st.sampled_from(["1.0", "2.0"]),
    "contact": st.text("ab"),
    "other_job": text,
    "keys_order": st.just(True),
    "age": st.integers(1, 2**32),
    "owner": st.integers(1, 60000),
    "foreign": st.text("ab"),
    "checkout": st.sampled_from(["there", "deeper/ein anderer Ort"]),
    "flags": st.sampled_from([Flags(verbose=True), Flags(jobs=4), Flags(force=True), Flags(dry_run=True)]),
}


@pytest.fixture(scope="module")
def usual() -> dict[str, Key]:
    return {place: World().key(place) for place in ("native", "docker")}


def altered(name: str, value: Any) -> World:
    world = World()
    setattr(world, name, value)
    return world


@pytest.mark.parametrize("place", ["native", "docker"])
@pytest.mark.parametrize("name", [*PARTS, *OF_IMAGES])
@settings(max_examples=8)
@given(data=st.data())
def test_each_part_changes_the_key_and_no_other(
    usual: dict[str, Key], place: str, name: str, data: st.DataObject
) -> None:
    if name in OF_IMAGES and place == "native":
        return
    part, values = (PARTS | OF_IMAGES)[name]
    value = data.draw(values.filter(lambda value: value != getattr(World(), name)))
    changed = reasons.changed_parts(usual[place], altered(name, value).key(place))
    # How a source takes its arguments, and what runs it, is of the source.
    assert changed == [part] or (name == "source" and set(changed) <= {"source", "around"})
    assert part in changed


@pytest.mark.parametrize("place", ["native", "docker"])
@pytest.mark.parametrize("name", [*NO_PARTS, *OF_IMAGES])
@settings(max_examples=5)
@given(data=st.data())
def test_nothing_else_changes_the_key(
    usual: dict[str, Key], place: str, name: str, data: st.DataObject
) -> None:
    if name in OF_IMAGES:
        if place == "docker":
            return
        value = data.draw(OF_IMAGES[name][1])
    else:
        value = data.draw(NO_PARTS[name])
    assert reasons.changed_parts(usual[place], altered(name, value).key(place)) == []


def test_every_value_is_tried() -> None:
    assert {*PARTS, *OF_IMAGES, *NO_PARTS} == set(World.__dataclass_fields__)


@pytest.mark.parametrize("kind", ["typed", "variable", "file"])
def test_no_secret_is_stored(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T", "hunter2")
    write(tmp_path, "T=hunter2", "job.env")
    word = {
        "typed": typed_secret("hunter2"),
        "variable": Secret("variable", "T"),
        "file": Secret("file", "T", str(tmp_path / "job.env")),
    }[kind]
    shown = key._shown(str(tmp_path), word, dict(os.environ))
    assert shown == key._shown(str(tmp_path), word, dict(os.environ))
    assert "hunter2" not in shown
    (found,) = (tmp_path / ".skelebot").glob("hash-key")
    assert found.stat().st_mode & 0o777 == 0o600
    shutil.rmtree(tmp_path / ".skelebot")  # another random key
    assert key._shown(str(tmp_path), word, dict(os.environ)) != shown


@pytest.mark.parametrize("keys", ["commands: [pip install .]", "dockerfile: my.Dockerfile"])
def test_files_that_the_image_is_made_of_are_a_part_of_it(tmp_path: Path, keys: str) -> None:
    """Its commands may read each of them, whatever a job declares as its inputs."""
    write(tmp_path, "FROM python\nCOPY . .\nRUN pip install -r more.txt\n", "my.Dockerfile")
    write(tmp_path, "x==1", "more.txt")
    digests = []
    for version in ("x==1", "x==2"):
        write(tmp_path, version, "more.txt")
        session = Session(load(tmp_path, f"name: demo\n{keys}\n"), (), Flags(), set(), set())
        digests.append(setup_digest(launch.image(session)))
    assert digests[0] != digests[1]


# --- the native environment ---


def native(root: Path, *argv: str, **more: Any) -> str:
    return environment.digest(Task("train", argv, str(root), **more))


def test_packages_of_the_environment_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("VIRTUAL_ENV", "CONDA_DEFAULT_ENV"):
        monkeypatch.delenv(variable, raising=False)
    subprocess.run(["/bin/sh", "-c", "mkdir -p bin lib/python3.9/site-packages"], cwd=tmp_path, check=True)
    (tmp_path / "bin/python").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin")
    before = native(tmp_path, "python", "train.py")
    assert native(tmp_path, "python", "other.py") == before
    write(tmp_path, "", "lib/python3.9/site-packages/numpy-1.0.dist-info/METADATA")
    after = native(tmp_path, "python", "train.py")
    assert after != before
    assert native(tmp_path, "bash", "-c", "python x") != before
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path))
    activated = native(tmp_path, "python", "train.py")
    write(tmp_path, "", "lib/python3.9/site-packages/torch-1.0.dist-info/METADATA")
    assert native(tmp_path, "python", "train.py") != activated


def test_the_folder_in_which_somebody_types_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "#!/bin/sh\n", "tools/run").chmod(0o755)
    digests = []
    for folder in (tmp_path, tmp_path / "tools"):
        monkeypatch.chdir(folder)
        digests.append(native(tmp_path, "./tools/run"))
    assert digests[0] == digests[1]


# --- the record ---

KEY = {"source": "1", "inputs": "2", "arguments": ["a"]}
SUCCESS = Success(KEY, "o")
FILES = {"inputs": {"a": "1"}, "outputs": {"m": "2"}}


def succeed(root: Path, the_job: Job, place: str = "native") -> None:
    with record.attempt(str(root), the_job) as attempt:
        record.succeeded(str(root), the_job, place, attempt, SUCCESS, FILES)


def last(root: Path, the_job: Job, place: str = "native") -> Success | None:
    return record.last_success(str(root), the_job, place)


def test_a_success_is_remembered_until_the_next_run_begins(tmp_path: Path) -> None:
    assert last(tmp_path, job()) is None
    succeed(tmp_path, job())
    assert last(tmp_path, job()) == SUCCESS
    assert record.files(str(tmp_path), job(), "native") == FILES
    with record.attempt(str(tmp_path), job()):
        assert last(tmp_path, job()) is None
    assert last(tmp_path, job()) is None
    succeed(tmp_path, job())
    assert last(tmp_path, job()) == SUCCESS


def test_each_place_has_a_success_of_its_own(tmp_path: Path) -> None:
    succeed(tmp_path, job(), "docker")
    assert last(tmp_path, job(), "native") is None
    succeed(tmp_path, job(), "native")
    assert last(tmp_path, job(), "docker") == last(tmp_path, job(), "native") == SUCCESS
    with record.attempt(str(tmp_path), job()):
        assert last(tmp_path, job(), "docker") is None  # its outputs may be half written


def test_names_of_jobs_do_not_meet(tmp_path: Path) -> None:
    names = [
        "a b",
        "a/b",
        "a-b",
        "ä",
        "train.native",
        "train+native",
        "train.files",
        "train",
        "..",
        "a" * 300,
    ]
    for name in names:
        assert last(tmp_path, job(name)) is None
        succeed(tmp_path, job(name))
    for name in names:
        assert last(tmp_path, job(name)) == SUCCESS
        assert record.files(str(tmp_path), job(name), "native") == FILES


def test_two_runs_at_the_same_time_have_no_success(tmp_path: Path) -> None:
    """Either may have changed what the other left."""
    root = str(tmp_path)
    with record.attempt(root, job()) as first, record.attempt(root, job()) as second:
        for attempt in (first, second):
            with pytest.raises(SkelebotError, match="another run of it went on at the same time"):
                record.succeeded(root, job(), "native", attempt, SUCCESS, FILES)
    assert last(tmp_path, job()) is None
    succeed(tmp_path, job())
    with record.attempt(root, job()) as first:
        with record.attempt(root, job()):
            pass
        with pytest.raises(SkelebotError, match="another run"):
            record.succeeded(root, job(), "native", first, SUCCESS, FILES)


def test_a_record_that_cannot_be_written_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    succeed(tmp_path, job())
    (path,) = (tmp_path / ".skelebot/jobs").glob("job-train.json")
    with small_files(), record.attempt(str(tmp_path), job()) as attempt:
        assert attempt == Unfinished(None)
        assert not path.exists()
        with pytest.raises(OSError, match="too large"):
            record.succeeded(str(tmp_path), job(), "native", attempt, SUCCESS, FILES)
    assert last(tmp_path, job()) is None


@contextmanager
def small_files() -> Iterator[None]:
    """Let no file have a byte, as on a full disk."""
    import resource
    import signal

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(st.data())
def test_a_damaged_record_costs_a_run(data: st.DataObject) -> None:
    names = ("key", "outputs", "native", "successes", "inputs", "running", "arguments", "variables")

    def damaged(value: Any) -> Any:
        if data.draw(st.integers(0, 9)) == 0:
            return data.draw(values)
        if isinstance(value, dict):
            return {data.draw(st.sampled_from((k, k, k, *names))): damaged(v) for k, v in value.items()}
        return [damaged(v) for v in value] if isinstance(value, list) else value

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        succeed(root, job())
        for path in (root / ".skelebot/jobs").glob("*.json"):
            text = json.dumps(damaged(json.loads(path.read_text())))
            path.write_text(text[: data.draw(st.sampled_from((None, None, len(text) // 2)))])
        found = last(root, job())
        assert found is None or isinstance(found.key, dict)
        if found:
            parts = reasons.changed_parts(found.key, KEY)
            then = record.files(str(root), job(), "native")
            today = {"inputs": {"a": "2"}, "outputs": {"m": "3"}}
            list(reasons.describe([*parts, "outputs"], found.key, KEY, then, today))


# --- reasons ---


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        ({}, {}, ""),
        ({"a": "1"}, {"a": "2"}, "a changed"),
        ({"a": "1"}, {}, "a gone"),
        ({}, {"a": "1"}, "a new"),
        ({"a": "1", "b": "1"}, {"b": "2", "c": "3"}, "b changed; c new; a gone"),
        ({}, {str(n): "" for n in range(7)}, "0, 1, 2, 3, 4 and 2 more new"),
        ({}, {f"{n:04}": "" for n in range(2000)}, "0000, 0001, 0002, 0003, 0004 and 1,995 more new"),
    ],
)
def test_differences(then: dict[str, str], now: dict[str, str], expected: str) -> None:
    assert reasons.differences(then, now) == expected


def described(before: Key, now: Key, then: dict[str, str] | None = None) -> list[str]:
    parts = reasons.changed_parts(before, now)
    files = {} if then is None else {"inputs": then}
    return list(reasons.describe(parts, before, now, files, {"inputs": {"a": "2"}}))


def test_reasons_name_what_changed_but_no_secret() -> None:
    secret = f"{key.HASHED}0123"
    before = {"source": "1", "inputs": "1", "arguments": ["--rate", "0.1", secret], "variables": {"A": "1"}}
    now = {"source": "2", "inputs": "2", "arguments": ["--rate", "a b"], "variables": {"A": secret, "B": ""}}
    assert described(before, now, {"a": "1"}) == [
        "source: changed",
        "inputs: a changed",
        "arguments: --rate 'a b'; before: --rate 0.1 '***'",
        "variables: A changed; B new",
    ]
    assert described(before, now, {})[1] == "inputs: a new"
    assert described(before, now)[1] == "inputs: changed"  # those of before are lost
    assert described(before, {**now, "arguments": []})[2] == "arguments: none; before: --rate 0.1 '***'"
    assert described({"arguments": ["--rate"]}, {}) == ["arguments: changed"]
    mapped = {"mappings": [["data", "/app/data", True]]}, {"mappings": [["data", "/app/data", False]]}
    assert described(*mapped) == ["mappings: data:/app/data; before: data:/app/data:ro"]
    assert described({"mappings": [[], 1]}, {"mappings": []}) == ["mappings: none; before: '[]' 1"]  # damaged


def test_a_secret_that_changed_alone_is_said_to_have() -> None:
    before, now = (["--key", f"{key.HASHED}{digest}"] for digest in ("0123", "4567"))
    assert described({"arguments": before}, {"arguments": now}) == [
        "arguments: another secret in --key '***'"
    ]


def test_a_base_image_of_which_the_engine_says_nothing_has_not_changed() -> None:
    for then, now, changed in (("a", "", []), ("", "a", []), ("a", "a", []), ("a", "b", ["base image"])):
        assert reasons.changed_parts({"base image": then}, {"base image": now}) == changed


def test_an_image_holds_no_outputs_unless_it_leaves_this_machine(tmp_path: Path) -> None:
    yaml = "name: demo\njobs:\n- {name: a, source: 'true', help: h, outputs: ['models/[1]/', x/m.pkl]}\n"
    session = Session(load(tmp_path, yaml), (), Flags(), set(), set())

    def excluded(image: Image) -> list[bool]:
        return [Ignores(image.ignores).excludes(p) for p in ("models/[1]/m", "x/m.pkl", "models/1/m", "x/n")]

    assert excluded(launch.image(session)) == [True, True, False, False]
    assert excluded(launch.image(session, with_outputs=True)) == [False] * 4


def test_a_success_has_the_base_image_that_the_run_has_downloaded(tmp_path: Path) -> None:
    """Before it, the engine has none of that name; a later change of it is to be seen."""
    write(tmp_path, "1", "out/x")
    the_job = job(outputs=("out/",))
    read = contents.read_by(project(tmp_path, the_job), the_job, ())
    before, after = ({**KEY, "base image": base} for base in ("", "sha256:1"))
    with record.attempt(str(tmp_path), the_job) as attempt:
        up_to_date._remember(
            the_job, State(before, read, "docker"), lambda: State(after, read, "docker"), attempt
        )
    found = last(tmp_path, the_job, "docker")
    assert found is not None
    assert found.key == after
