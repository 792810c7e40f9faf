"""A class as a job's source: what counts as one, what its file says of it, and the values that it gets."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skelebot.image import dockerfile
from skelebot.model import Arg, Job, Param, Project
from skelebot.project import classes, run_class
from skelebot.project.run_class import read
from skelebot.project.sources import ClassSource, class_source, job_params, script

from .helpers import argv_of, load, problems, warnings, write
from .test_plan import HOSTILE, executable, job, project
from .test_properties import examples

# --- which sources ---


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("tasks.py:Train", ("tasks.py", "Train")),
        (" src/tasks.py:Train\n", ("src/tasks.py", "Train")),
        ("my tasks.py:Train", ("my tasks.py", "Train")),
        ("src/tasks.py:Été", ("src/tasks.py", "Été")),
        ("pytest tasks.py:Train", None),
        ("src/tasks.py:Train --fast", None),
        ("src/tasks.py:Train.run", None),
        ("src/tasks.py:1", None),
        ("src/tasks.py:", None),
        ("src/tasks:Train", None),
        ("/app/tasks.py:Train", None),
        ("echo\ntasks.py:Train", None),
        ("odd.py:Name", None),
    ],
)
def test_what_is_a_class(tmp_path: Path, source: str, named: Any) -> None:
    write(tmp_path, "", "my tasks.py")
    executable(tmp_path, "odd.py:Name")
    assert class_source(str(tmp_path), source) == named
    if named:
        assert script(str(tmp_path), source) == named[0]


def test_a_file_with_such_a_name_runs_as_before(tmp_path: Path) -> None:
    executable(tmp_path, "odd.py:Name")
    assert argv_of(project(tmp_path), job("odd.py:Name")) == ("./odd.py:Name",)


def test_params_of_the_root_belong_to_a_class(tmp_path: Path) -> None:
    root = Project(name="demo", root=str(tmp_path), params=(Param("level"),))
    assert [p.name for p in job_params(root, job("tasks.py:Train"))] == ["level"]


def test_all_values_of_a_class_have_names_of_their_own(tmp_path: Path) -> None:
    text = "name: demo\nparams: [{name: day}]\njobs: [{name: a, source: %s, help: h, args: [name: day]}]\n"
    assert problems(tmp_path, text % "a.py") == []
    assert problems(tmp_path, text % "a.py:A") == [
        "skelebot.yaml:3:50: jobs[0].args[0].name: the job already has a value named 'day'"
    ]


# --- what the file says ---


def problem(
    folder: Path, text: str, name: str = "Train", method: str = "run", file: str = "t.py"
) -> str | None:
    return classes.problem(str(write(folder, text, file)), ClassSource(file, name), method)


@pytest.mark.parametrize(
    "text",
    [
        "class Train:\n    def __init__(self, v): ...\n    def run(self): ...\n",
        "class Train:\n    __init__ = run = print\n",
        "class Train:\n    def __new__(cls, v): ...\n    if True:\n        def run(self): ...\n",
        "if True:\n    class Train:\n        def __init__(self, v): ...\n        def run(self): ...\n",
        "try:\n    import x\nexcept ImportError:\n    class Train:\n        run = __init__ = print\n",
        "class Base:\n    run = print\n    def __init__(self, v): ...\nclass Train(Base): ...\n",
        "from base import Base\nclass Train(Base): ...\n",
        "import base\nclass Train(base.Base): ...\n",
        "@decorated\nclass Train: ...\n",
        "@dataclass\nclass Train:\n    values: dict\n    def run(self): ...\n",
        "class Train(metaclass=Meta): ...\n",
        "class Train(Train): ...\n",
        "from other import Train\n",
        "from other import Training as Train\n",
        "from other import *\n",
        "Train = make()\n",
        "Train: type = make()\n",
        "def Train(values): ...\n",
        "def __getattr__(name): ...\n",
        "for Train in []: ...\n",
        "class :\n",
        "\0",
    ],
)
def test_what_may_be_a_class_with_a_method(tmp_path: Path, text: str) -> None:
    assert problem(tmp_path, text) is None


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "t.py has no class Train"),
        ("class Trains:\n    def run(self): ...\n", "t.py has no class Train; did you mean `Trains`?"),
        ("class A:\n    class Train:\n        def run(self): ...\n", "t.py has no class Train; known: a"),
        ("def f():\n    class Train: ...\n", "t.py has no class Train"),
        ("class Train: ...\n", "the class Train in t.py has no method run; add one"),
        (
            "class Train(object):\n    def fit(self): ...\n",
            "the class Train in t.py has no method run; add one",
        ),
        ("class Base: ...\nclass Train(Base): ...\n", "the class Train in t.py has no method run; add one"),
        (
            "class Base:\n    def run(self): ...\nclass Train(Base): ...\n",
            "the class Train in t.py takes no values; add `def __init__(self, values)`",
        ),
        ("class A(Train): ...\nclass Train(A): ...\n", None),
    ],
)
def test_what_is_sure_to_be_wrong(tmp_path: Path, text: str, wrong: str | None) -> None:
    found = problem(tmp_path, text)
    assert (found or "").lower() == (wrong or "").lower()


def test_a_name_with_a_dot_cannot_be_imported(tmp_path: Path) -> None:
    text = "class Train:\n    __init__ = run = print\n"
    assert "has a dot" in str(problem(tmp_path, text, file="tasks.v2.py"))
    assert problem(tmp_path, text, file="my-tasks.py") is None


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("class Train:\n    def validate(self): ...\n", True),
        ("class Base:\n    def validate(self): ...\nclass Train(Base): ...\n", True),
        ("class Train:\n    def run(self): ...\n", False),
        ("from base import Base\nclass Train(Base): ...\n", False),
        ("class Other:\n    def validate(self): ...\n", False),
        ("class :\n", False),
    ],
)
def test_whether_a_class_validates(tmp_path: Path, text: str, has: bool) -> None:
    write(tmp_path, text, "t.py")
    assert classes.has_validate(str(tmp_path), ClassSource("t.py", "Train")) is has


@pytest.mark.parametrize(
    "text",
    [
        "from base import Base\nclass Train(Base): ...\n",
        "from base import Base as B\nclass A(B): ...\nclass Train(object, A): ...\n",
        "from .base import Base\nclass Train(Base): ...\n",
        "from . import base\nclass Train(base.Base): ...\n",
        "from .. import Base\nclass Train(Base): ...\n",
        "from ..pkg.base import Base\nclass Train(Base): ...\n",
        "import common.top as up\nclass Train(up.Base): ...\n",
        "import common.top\nclass Train(common.top.Base): ...\n",
        "from common import top\nclass Train(top.Base): ...\n",
        "from common.again import Again\nclass Train(Again): ...\n",
        "from base import Base as Train\n",
        "from common.top import *\nclass Train(Base): ...\n",
        "from base import Base\nclass Train(Base[int]): ...\n",
        "try:\n    import fast\nexcept ImportError:\n    from base import Base\nclass Train(Base): ...\n",
    ],
)
def test_a_validation_that_is_inherited_from_another_file(tmp_path: Path, text: str) -> None:
    for file in ("src/pkg/base.py", "src/__init__.py", "common/top.py"):
        write(tmp_path, "class Base:\n    def validate(self): ...\n", file)
    write(tmp_path, "import common.top as t\nclass Again(t.Base, Again): ...\n", "common/again.py")
    write(tmp_path, text, "src/pkg/t.py")
    assert classes.has_validate(str(tmp_path), ClassSource("src/pkg/t.py", "Train"))
    write(tmp_path, "class Base: ...\n", "src/pkg/base.py")
    write(tmp_path, "class Base: ...\n", "src/__init__.py")
    write(tmp_path, "class Base: ...\n", "common/top.py")
    assert not classes.has_validate(str(tmp_path), ClassSource("src/pkg/t.py", "Train"))


# --- the values ---


def test_an_old_python_reads_what_builds_the_class() -> None:
    """An image may have one; what else it takes is tried with today's alone."""
    ast.parse(Path(run_class.__file__).read_text(), feature_version=(3, 7))


ARGS = (Arg("day", type="date"), Arg("text"))
PARAMS = (
    Param("rate", alt="r", type="float", default="0.10"),
    Param("n", type="int"),
    Param("cities", accepts="list", default=("Bern", "Basel")),
    Param("counts", accepts="list", type="int"),
    Param("cache", accepts="boolean", default="true"),
    Param("all", accepts="boolean"),
    Param("data", type="path"),
)
TRAIN = Job(name="train", source="src/tasks.py:Train", help="h", args=ARGS, params=PARAMS)
TASKS = """\
class Train:
    def __init__(self, values):
        self.values = values
    def run(self):
        import sys
        assert sys.argv == ["src/tasks.py"]
        for name, value in self.values.items():
            text = f"{name}={value!r}" if not isinstance(value, str) else f"{name}:{value}"
            sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape") + b"\\0")
        return 3
"""


def arrived(folder: Path, **values: Any) -> dict[str, str]:
    """The values that a class gets in a Python that was really run."""
    write(folder, TASKS, "src/tasks.py")
    words = argv_of(project(folder), TRAIN, {"day": "2024-02-29", "text": "t", **values})
    assert words[:3] == ("python", "-u", "-c")
    result = subprocess.run([sys.executable, *words[1:]], cwd=folder, capture_output=True, check=True)
    return dict(
        (text.partition("=") if "=" in text.partition(":")[0] else text.partition(":"))[::2]
        for text in result.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]
    )


def test_values_have_types_and_defaults(tmp_path: Path) -> None:
    assert arrived(tmp_path) == {
        "day": "datetime.date(2024, 2, 29)",
        "text": "t",
        "rate": "0.1",
        "n": "None",
        "cities": "['Bern', 'Basel']",
        "counts": "[]",
        "cache": "True",
        "all": "False",
        "data": "None",
    }


def test_values_that_were_given(tmp_path: Path) -> None:
    given = {"rate": "1e-3", "n": "-007", "cities": (), "counts": ("3", "+4"), "cache": False, "all": True}
    found = arrived(tmp_path, **given, data="a b/c")
    assert [found[name] for name in (*given, "data")] == [
        "0.001", "-7", "[]", "[3, 4]", "False", "True", "a b/c",
    ]  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE)
def test_a_text_arrives_as_it_was_typed(tmp_path: Path, value: str) -> None:
    found = arrived(tmp_path, text=value, cities=(value, "--rate", "--", value))
    assert found["text"] == value
    assert found["cities"] == repr([value, "--rate", "--", value])


_TEXT = st.one_of(st.text(), st.sampled_from(["--a", "--b", "-c", "--", "--list", ""]))


@given(_TEXT, st.none() | _TEXT, st.booleans(), st.lists(_TEXT))
@examples(300)
def test_what_is_read_is_what_was_given(arg: str, value: str | None, flag: bool, many: list[str]) -> None:
    params = (Param("a"), Param("b", accepts="boolean"), Param("list", accepts="list"))
    of = Job(name="x", source="t.py:T", help="h", args=(Arg("c"),), params=params)
    values: dict[str, Any] = {"c": arg, "b": flag, "list": tuple(many)}
    values |= {} if value is None else {"a": value}
    words = argv_of(Project(name="demo", root="/nowhere"), of, values)
    assert read(words[7], list(words[8:])) == {"c": arg, "a": value, "b": flag, "list": many}


# --- the image's own command ---


def test_a_class_is_the_images_command_with_its_defaults(tmp_path: Path) -> None:
    text = """\
name: demo
primaryJob: train
jobs:
- name: train
  source: tasks.py:Train
  help: h
  params: [{name: many, accepts: list, default: [a, b]}, {name: key, default: $KEY}]
"""
    found = load(tmp_path, text)
    command = dockerfile.command_of(found, found.jobs[0])
    write(tmp_path, "class Train:\n    def __init__(self, v): print(v)\n    def run(self): ...\n", "tasks.py")
    env = {"PATH": f"{Path(sys.executable).parent}:/bin:/usr/bin", "KEY": "$x y"}
    shown = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert shown.stdout == "{'many': ['a', 'b'], 'key': '$x y'}\n"


def test_a_class_cannot_be_the_images_entrypoint(tmp_path: Path) -> None:
    text = "name: demo\nprimaryJob: t\nprimaryExe: ENTRYPOINT\njobs: [{name: t, source: t.py:T, help: h}]\n"
    assert warnings(tmp_path, text) == [
        "skelebot.yaml:4:8: jobs[0].source: the arguments of `docker run` cannot become the values of "
        "a class; set primaryExe: CMD; `prime` and `publish` fail until then"
    ]
