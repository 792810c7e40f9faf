"""Whatever is written or typed: no traceback, no value changed, no line of a Dockerfile added."""

import os
import random
import re
import string
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from skelebot import options
from skelebot.errors import ConfigError, SkelebotError
from skelebot.image import dependencies, dockerfile
from skelebot.model import Arg, Flags, Job, Param, Project
from skelebot.project import plan
from skelebot.secret import reveal

from .helpers import FULL, arrived, read_all, run_cli

settings.register_profile(
    "stable",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
stable = settings.get_profile("stable")


def examples(count: int) -> settings:
    return settings(stable, max_examples=count)


# --- any document ---

KEYS = sorted(set(re.findall(r"\b([a-zA-Z]+):", FULL))) + ["<<", "mapped", "ignore", "=", ""]
KEYS += ["type", "min", "max", "pattern", "validate"]
WORDS = [
    "",
    "a",
    "a.py",
    "data/",
    "$X",
    "1.0",
    "010",
    "yes",
    "~",
    "22:22",
    "list",
    "boolean",
    "h",
    "-x",
    "train",
    "i",
    "int",
    "date",
    "2024-01-31",
    "[a",
    "a.py:B",
]

scalars = st.one_of(
    st.sampled_from(WORDS + KEYS),
    st.text(max_size=8),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.dates(),
    st.binary(max_size=4),
)
keys = st.one_of(st.sampled_from(KEYS), st.text(max_size=4), st.integers(), st.none())
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=6),
    max_leaves=25,
)

JOB_KEYS = "mode args params mappings ports ignores environment timeout host".split()  # noqa: SIM905
jobs = st.lists(
    st.fixed_dictionaries(
        {"name": scalars, "source": scalars, "help": scalars},
        optional=dict.fromkeys(JOB_KEYS, documents),
    ),
    max_size=3,
)
projects = st.fixed_dictionaries(
    {"name": scalars},
    optional={key: documents for key in KEYS if key.isalpha() and key != "name"} | {"jobs": jobs},
)


@pytest.fixture
def project() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def check_document(project: Path, data: bytes) -> None:
    """Reading a file gives a project or problems; each of these is one line with a place."""
    (project / "skelebot.yaml").write_bytes(data)
    loaded, report = read_all(project)
    assert loaded is not None or report.problems
    for line in [*report.problems, *report.warnings]:
        assert re.match(r"(skelebot\.yaml|VERSION):\d+:\d+: ", line), line
        assert line.isprintable(), line
    if report.problems:
        with pytest.raises(ConfigError) as caught:
            report.raise_problems()
        assert caught.value.code == 2


@given(projects)
@settings(examples(150), phases=[Phase.generate])  # large examples take minutes to shrink
def test_a_structure_of_known_keys_gives_no_traceback(project: Path, document: Any) -> None:
    check_document(project, yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "surrogatepass"))


@given(documents)
@examples(300)
def test_any_structure_gives_no_traceback(project: Path, document: Any) -> None:
    check_document(project, yaml.safe_dump(document).encode("utf-8", "surrogatepass"))


@given(st.text(alphabet=string.printable + "é\u2028\ufeff\x00\x07&*<!", max_size=60))
@examples(500)
def test_any_text_gives_no_traceback(project: Path, text: str) -> None:
    check_document(project, text.encode())


@given(st.binary(max_size=60))
@examples(300)
def test_any_bytes_give_no_traceback(project: Path, data: bytes) -> None:
    check_document(project, data)


PIECES = [
    *":-[]{}\"'&*!|>%@`#,?=\n\t ~",
    "- ",
    ": ",
    "<<: ",
    "*a",
    "&a ",
    "null",
    "true",
    "\x00",
    "\xe9",
    "'",
    "!!int ",
]


@given(st.randoms(use_true_random=False))
@examples(500)
def test_a_good_file_with_some_characters_changed_gives_no_traceback(
    project: Path, rng: random.Random
) -> None:
    text = FULL
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice([*PIECES, ""]) + text[at + rng.choice((0, 1, 2, 20)) :]
    check_document(project, text.encode("utf-8"))


@given(st.randoms(use_true_random=False))
@examples(300)
def test_a_good_file_with_its_lines_mixed_gives_no_traceback(project: Path, rng: random.Random) -> None:
    lines = FULL.splitlines(keepends=True)
    for _ in range(rng.randint(1, 3)):
        line = lines.pop(rng.randrange(len(lines)))
        if rng.random() < 0.7:
            lines.insert(rng.randrange(len(lines)), " " * rng.choice((0, 0, 2, 4)) + line)
    check_document(project, "".join(lines).encode("utf-8"))


@given(
    projects,
    st.lists(st.sampled_from([*WORDS, "-h", "-n", "--dry-run", "+", "--", "-e", "schema"]), max_size=5),
)
@examples(100)
def test_a_command_line_in_any_project_gives_an_exit_code(
    project: Path, document: Any, words: list[str]
) -> None:
    data = yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "surrogatepass")
    (project / "skelebot.yaml").write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        assert run_cli(["--dry-run", "-n", *words]) in (0, 1, 2)


# --- any value ---

# What the words of a process can hold: all but NUL, and bytes that are not UTF-8 as lone surrogates.
values = st.text(
    st.characters(exclude_characters="\0", codec="utf-8")
    | st.integers(0xDC80, 0xDCFF).map(chr)
    | st.sampled_from("-+=$\"'\\`*~#!;&|<>(){}[]? \t\n")
)
ARGS = (Arg("first"), Arg("second"))
PARAMS = (
    Param("value", "v"),
    Param("list", "l", accepts="list"),
    Param("flag", "f", accepts="boolean"),
    Param("token", secret=True),
)


def through(words: list[str], source: str = "run.py", args: tuple[Arg, ...] = ARGS) -> tuple[str, ...]:
    """What a job gets for the words that were typed."""
    job = Job(name="run", source=source, help="", args=args, params=PARAMS)
    project = Project(name="demo", jobs=(job,), root="/nowhere")
    parsed = options.parse(args, PARAMS, words)
    return tuple(reveal(word, {}) for word in plan.task(project, job, parsed, Flags(), {}).argv)


def looks_like_an_option(value: str) -> bool:
    return value.startswith("-") and value != "-"


@given(values, values)
@examples(400)
def test_arguments_arrive_as_they_were_typed(first: str, second: str) -> None:
    assert through(["--", first, second])[3:] == (first, second)
    if not looks_like_an_option(first):
        assert through([first, "--", second])[3:] == (first, second)
        assert through([first, "-f", "--", second])[3:] == (first, second, "--flag")


@given(values, st.sampled_from(["value", "token"]))
@examples(400)
def test_the_value_of_a_param_arrives_as_it_was_typed(value: str, name: str) -> None:
    expected = ("a", "b", f"--{name}", value)
    assert through(["a", "b", f"--{name}={value}"])[3:] == expected
    assert through([f"--{name}={value}", "a", "b"])[3:] == expected
    taken = {*(flag for param in PARAMS for flag in param.flags), "-h", "--help", "--"}
    if value not in taken:
        assert through(["a", f"--{name}", value, "b"])[3:] == expected


@given(values.filter(bool))
@examples(300)
def test_the_value_right_behind_a_letter_arrives_as_it_was_typed(value: str) -> None:
    assert through([f"-v{value}", "a", "b"])[3:] == ("a", "b", "--value", value)
    assert through([f"-fv{value}", "a", "b"])[3:] == ("a", "b", "--value", value, "--flag")


@given(st.lists(values, max_size=5))
@examples(300)
def test_the_values_of_a_list_arrive_as_they_were_typed(given_values: list[str]) -> None:
    equals = [f"--list={value}" for value in given_values]
    expected = ("a", "b", *(["--list", *given_values] if given_values else []))
    assert through([*equals, "a", "b"])[3:] == expected
    plain = [value for value in given_values if not looks_like_an_option(value)]
    assert through(["--list", *plain, "--", "a", "b"])[3:] == ("a", "b", "--list", *plain)


@given(st.lists(values, min_size=1, max_size=6))
@examples(60)
def test_values_arrive_through_a_real_shell(project: Path, given_values: list[str]) -> None:
    args = tuple(Arg(f"a{i}") for i in range(len(given_values)))
    argv = through(["--", *given_values], "printf '%s\\0'", args)
    assert [os.fsencode(value) for value in arrived(argv, project)] == [os.fsencode(v) for v in given_values]
    assert list(project.iterdir()) == []


@given(st.text(max_size=30), st.text(max_size=30))
@examples(300)
def test_a_default_in_the_file_arrives_as_it_was_written(project: Path, value: str, other: str) -> None:
    params = [
        {"name": "value", "default": f"v{value}"},
        {"name": "list", "accepts": "list", "default": [f"v{other}", f"v{value}"]},
    ]
    job = {"name": "run", "source": "run.py", "help": "x", "params": params}
    (project / "skelebot.yaml").write_text(yaml.safe_dump({"name": "demo", "jobs": [job]}))
    loaded, report = read_all(project)
    if "\0" in value + other:
        assert report.problems
        return
    assert loaded is not None
    assert not report.problems
    argv = plan.task(loaded, loaded.jobs[0], {}, Flags(), {}).argv
    assert argv[3:] == ("--value", f"v{value}", "--list", f"v{other}", f"v{value}")


# --- any name ---

INSTRUCTION = re.compile("(FROM|ENV|RUN|WORKDIR|COPY|USER|CMD|ENTRYPOINT|LABEL|#) ")
TEXT_KEYS = "name maintainer contact description baseImage pythonVersion user timezone".split()  # noqa: SIM905
names = st.text(max_size=20) | st.sampled_from(
    ["a\nRUN evil", 'a"\nRUN evil', "a\\", "$(evil)", "a;b", "'", "\\\n"]
)


@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(TEXT_KEYS, names),
    ),
    names,
    names,
)
@examples(300)
def test_no_name_adds_a_line_to_a_dockerfile(
    project: Path, texts: dict[str, str], job: str, dependency: str
) -> None:
    document: dict[str, Any] = {
        "name": "demo",
        **texts,
        "primaryJob": f"j{job}",
        "dependencies": ["numpy", f"a{dependency}"],
    }
    document["jobs"] = [
        {"name": f"j{job}", "source": f"{job}.py", "help": job, "params": [{"name": f"p{job}"}]}
    ]
    (project / "skelebot.yaml").write_text(yaml.safe_dump(document))
    loaded, report = read_all(project)
    if loaded is None or report.problems:
        return
    try:
        found = dependencies.python(loaded.root, loaded.entries("Python"))
    except SkelebotError:
        found = ()
    image = dockerfile.image(loaded, dependencies.Dependencies(found), loaded.jobs[0])
    lines = dockerfile.text(image).replace(" \\\n", "").split("\n")
    assert lines.pop() == ""
    for line in lines:
        assert INSTRUCTION.match(line), line
        assert line.isprintable(), line
        assert not line.endswith("\\"), line
    expected = 7 + len(found) + 2 * bool(found) + 4 * bool(loaded.timezone) + bool(loaded.maintainer)
    expected += bool(loaded.user and loaded.user != "caller")
    assert len(lines) == expected
