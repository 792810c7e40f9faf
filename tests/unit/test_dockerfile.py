"""The image of a project: its Dockerfile, its ignored files, and the command of the bare image."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from skelebot.errors import ConfigError, UsageError
from skelebot.image import dependencies, dependencies_r, dockerfile, instructions
from skelebot.image.ignores import DEFAULTS, Ignores
from skelebot.model import Flags, Image, Job, Param, Project
from skelebot.project import plan, read

from .helpers import FULL, arrived, load, problems, read_all, write

GOLDEN = Path(__file__).parent / "golden"

PROJECTS = {
    "minimal": "name: demo\n",
    "everything": FULL,
    "dependencies": """\
name: Two Words
pythonVersion: 3.10
dependencies:
  - numpy
  - pandas=2.2.0
  - "scikit-learn>=1.4,<2"
  - "req: requirements.txt"
  - file:dist/own.whl
""".replace("req: ", "req:"),
    "steps": """\
name: demo
timezone: Europe/Berlin
user: worker
build:
  packages: [git, libgomp1]
  commands: ["echo $HOME && echo \\"a b\\""]
commands:
  - echo ready
  - '[ -d /app ] && echo there'
  - "echo one\\necho two"
  - --mount=type=bind echo
  - '<<EOF echo'
  - 'echo \\'
""",
    "hostile": r"""
name: "$(touch evil); \"Quoted\" 'Name' \\ `id`"
maintainer: "Ada \"$(touch evil)\" $HOME ${PATH} \\ 'x'; LABEL evil=1 #"
description: "one\nRUN touch evil"
contact: "$(touch evil)"
primaryJob: "$(touch evil)\"; touch evil"
jobs:
  - name: "$(touch evil)\"; touch evil"
    source: "it's $(touch evil).py"
    help: "\nRUN touch evil"
    params:
      - {name: "$(touch evil)", default: "\nRUN touch evil"}
      - {name: home, default: $HOME}
""",
    "r": """\
name: demo
language: R
build: {cran: https://cran.example.org}
dependencies: [data.table, zoo=1.8-12, github:owner/repo@v1, "file:libs/own 1.tar.gz", renv:renv.lock]
""",
    "pip": """\
name: demo
build: {commands: [echo first]}
dependencies:
  - "req:pre.txt"
  - foo @ git+https://example.org/foo
  - a<2,>=1
  - b[x,y]
  - c; python_version<"4"
""",
    "both": """\
name: demo
language: R+Python
pythonVersion: 3.11
dependencies:
  R: [zoo, github:owner/repo]
  Python: [numpy, github:owner/tool]
""",
    "entrypoint": """\
name: demo
primaryJob: train
primaryExe: ENTRYPOINT
jobs:
  - name: train
    source: train.py
    help: Trains
    params:
      - {name: rate, default: 1.0}
      - {name: fast, accepts: boolean, default: true}
""",
    "command": """\
name: demo
primaryJob: train
params: [{name: level, default: 3}]
jobs:
  - name: train
    source: python -m train && echo "$HOME"
    help: Trains
    params:
      - {name: rate, default: 1.0}
      - {name: fast, accepts: boolean, default: true}
      - {name: slow, accepts: boolean}
      - {name: columns, accepts: list, default: [a, b c]}
      - {name: none}
""",
}


def project(root: Path, text: str) -> Project:
    for name in (
        "requirements.txt",
        "dist/own.whl",
        "libs/own 1.tar.gz",
        "renv.lock",
        "it's $(touch evil).py",
    ):
        write(root, "", name)
    write(root, "", "train.py")
    write(root, "six\n--pre\n", "pre.txt")
    return load(root, text)


ANY = Job(name="any", source="ls", help="")


def image(the_project: Project, job: Job = ANY, **more: Any) -> Image:
    found = dependencies.Dependencies(
        dependencies.python(the_project.root, the_project.entries("Python")),
        dependencies_r.r(the_project.root, the_project.entries("R")),
    )
    return dockerfile.image(the_project, found, job, **more)


@pytest.mark.parametrize("name", PROJECTS)
def test_the_dockerfile_is_the_golden_one(tmp_path: Path, name: str) -> None:
    assert without_installer(dockerfile.text(image(project(tmp_path, PROJECTS[name])))) == golden(name)


def without_installer(text: str) -> str:
    """The text without the script that install.R is, which may change at any time."""
    written = instructions.write_program("skelebot-r-install", dependencies_r.script())
    return text.replace(written, "write skelebot-r-install")


def golden(name: str) -> str:
    return (GOLDEN / f"{name}.Dockerfile").read_text(encoding="utf-8")


def test_every_golden_dockerfile_belongs_to_a_project() -> None:
    assert {path.stem for path in GOLDEN.glob("*.Dockerfile")} == set(PROJECTS)


@pytest.mark.parametrize("name", PROJECTS)
def test_no_line_begins_with_what_is_no_instruction(name: str) -> None:
    begins = re.compile(r"(FROM|ENV|RUN|WORKDIR|COPY|USER|CMD|ENTRYPOINT|LABEL) \S|# ")
    lines = golden(name).replace("\\\n", "").splitlines()
    assert [line for line in lines if not begins.match(line)] == []


@pytest.mark.parametrize("name", sorted(PROJECTS.keys() - {"hostile", "command"}))
def test_the_lines_are_short(name: str) -> None:
    assert [
        line for line in golden(name).splitlines() if len(line) > 112 and not line.startswith("CMD")
    ] == []


def test_the_hostile_words_are_each_one_word() -> None:
    lines = golden("hostile").splitlines()
    (command,) = (json.loads(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD "))
    assert "it's $(touch evil).py" in command
    assert command[:2] == ["sh", "-c"]
    assert "evil" not in command[2]


def test_no_dependencies_no_install_step(tmp_path: Path) -> None:
    assert "pip" not in dockerfile.text(image(project(tmp_path, "name: demo\n")))


@pytest.mark.parametrize("name", ["$HOME", "it's", 'a"b', "a\\b", "a*", "a[1]", "a?"])
@pytest.mark.parametrize("kind", ["req", "file"])
def test_a_file_whose_name_copy_would_read_otherwise_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    """COPY expands variables, quotes and patterns, also in its JSON form."""
    name += ".whl" if kind == "file" else ""
    write(tmp_path, "", name)
    with pytest.raises(ConfigError, match="rename the file"):
        image(load(tmp_path, json.dumps({"name": "demo", "dependencies": [f"{kind}:{name}"]})))


# --- what is refused rather than written ---


@pytest.mark.parametrize(
    "text",
    [
        'baseImage: "python\\nRUN touch evil"',
        "baseImage: python; touch evil",
        "baseImage: $(touch evil)",
        'pythonVersion: "3.12\\nRUN touch evil"',
        "pythonVersion: 3.12 AS x",
        "pythonVersion: $(touch evil)",
        'maintainer: "Ada\\nRUN touch evil"',
        'maintainer: "Ada\\u2028RUN touch evil"',
        'name: "demo\\nRUN touch evil"',
        'user: "root\\nRUN touch evil"',
        "user: $(touch evil)",
        'timezone: "UTC\\nRUN touch evil"',
        "timezone: UTC; touch evil",
        'build: {packages: ["git\\ntouch evil"]}',
        "build: {packages: ['git && touch evil']}",
        "build: {packages: ['$(touch evil)']}",
        "build: {packages: ['-y']}",
        'ignores: ["a\\n!b"]',
        'host: "tcp://a\\nb"',
        "host: -x",
    ],
)
def test_a_text_that_could_be_more_than_itself_is_refused(tmp_path: Path, text: str) -> None:
    base = "" if text.startswith("name") else "name: demo\n"
    assert len(problems(tmp_path, f"{base}{text}\n")) == 1


# --- names ---


@pytest.mark.parametrize(
    ("name", "env", "tag"),
    [
        ("demo", None, "demo"),
        ("Demo Project", None, "demo-project"),
        ("Demo  &  Project!", None, "demo-project"),
        ("My_Project.v2", None, "my_project.v2"),
        ("a__b", None, "a__b"),
        ("a--b", None, "a--b"),
        ("a..b", None, "a-b"),
        ("a___b", None, "a-b"),
        ("a._b", None, "a-b"),
        ("_demo.", None, "demo"),
        ("Ünïcode", None, "n-code"),
        ("demo", "dev", "demo-dev"),
        ("demo", "Dev Two", "demo-dev-two"),
    ],
)
def test_the_image_is_named_after_the_project(name: str, env: str | None, tag: str) -> None:
    assert Project(name=name, env=env).image == tag
    assert re.fullmatch(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*", tag)


def test_the_image_of_an_environment_has_a_name_too() -> None:
    assert re.fullmatch(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*", Project(name="demo", env="é").image)


# --- the base ---


@pytest.mark.parametrize(
    ("text", "default", "base"),
    [
        ("", None, "python:3.12-slim"),
        ("pythonVersion: 3.10", None, "python:3.10-slim"),
        ("pythonVersion: 3.10", "own:1", "own:1"),
        ("baseImage: mine:2", None, "mine:2"),
        ("baseImage: mine:2", "own:1", "mine:2"),
    ],
)
def test_the_base_image_is_the_projects_before_the_machines(
    tmp_path: Path, text: str, default: str | None, base: str
) -> None:
    the_project = load(tmp_path, f"name: demo\n{text}\n")
    assert dockerfile.image(the_project, dependencies.Dependencies(), ANY, default_base=default).base == base


# --- ignores and labels ---


def test_the_ignores_are_the_defaults_then_the_users_from_far_to_near(tmp_path: Path) -> None:
    text = """\
name: demo
envFile: ./.env
ignores: [from-root, "!keep"]
jobs:
  - {name: a, source: a, help: A, ignores: [of-a], envFile: "conf/a[1].env"}
  - {name: b, source: b, help: B, ignores: [of-b]}
"""
    the_project = load(tmp_path, text)
    own = {"own_ignores": ("from-dockerignore",), "env_files": read.env_files(str(tmp_path))}
    found = image(the_project, the_project.jobs[0], **own).ignores
    expected = ("from-dockerignore", "from-root", "!keep", "of-a", ".env", "conf/a\\[1\\].env")
    assert found == (*DEFAULTS, *expected)


@pytest.mark.parametrize("file", ["skelebot.yaml", "skelebot-prod.yaml"])
@pytest.mark.parametrize(("value", "is_kept"), [("true", False), ("Yes", False), ("false", True), ("", True)])
def test_no_pattern_brings_the_file_of_dotenv_into_an_image(
    tmp_path: Path, file: str, value: str, is_kept: bool
) -> None:
    jobs = "jobs: [{name: a, source: a, help: A, ignores: ['!**/.env']}]\n"
    base = f"name: demo\nignores: ['!.env', '!real']\n{jobs}"
    write(tmp_path, base)
    write(tmp_path, f"{base if file == 'skelebot.yaml' else ''}dotenv: {value}\n", file)
    (tmp_path / ".env").symlink_to("real")
    the_project = load(tmp_path)
    never = {"env_files": read.env_files(str(tmp_path))}
    left_out = Ignores(image(the_project, the_project.jobs[0], **never).ignores)
    assert [left_out.excludes(path) for path in (".env", "real", "below/.env")] == [
        not is_kept,
        not is_kept,
        False,
    ]


def test_an_unknown_home_concerns_only_the_job_that_names_it(tmp_path: Path) -> None:
    text = """\
name: demo
jobs:
- {name: a, source: ls, help: A}
- {name: b, source: ls, help: B, mappings: [data, "~no-such-user/x:/y"]}
- {name: c, source: ls, help: C, envFile: "~no-such-user/x"}
"""
    the_project = load(tmp_path, text)
    one, two, three = the_project.jobs
    assert ("data",) in image(the_project, one, env_files=read.env_files(str(tmp_path))).shadow_sets
    assert plan.task(the_project, one, {}, Flags(), {}).mounts == ()
    with pytest.raises(UsageError, match=r"^skelebot\.yaml:4:3: jobs\[1\]\.mappings\[1\]: ~no-such-user/x: "):
        plan.task(the_project, two, {}, Flags(), {})
    with pytest.raises(UsageError, match=r"^envFile: ~no-such-user/x: "):
        plan.task(the_project, three, {}, Flags(), {})


def test_the_labels_of_an_image(tmp_path: Path) -> None:
    write(tmp_path, "1.4.0\n", "VERSION")
    labels = dict(image(load(tmp_path, "name: My Demo\nmaintainer: Ada\n")).labels)
    assert labels == {
        "org.opencontainers.image.authors": "Ada",
        "org.opencontainers.image.version": "1.4.0",
    }


def test_every_image_tells_whose_it_is(tmp_path: Path) -> None:
    text = dockerfile.text(image(load(tmp_path, "name: My Demo\n")))
    assert 'LABEL skelebot.project="My Demo"' in text.splitlines()


@pytest.mark.parametrize(
    ("text", "stages"),
    [
        ("FROM a\nRUN ls\nfrom b AS c\n", 2),
        ("# a \\\nFROM a\n", 1),
        ("FROM a \\\n  AS b\nRUN ls \\\n# comment\n\n  FROM b\n", 1),
        ("FROM a\r\nRUN ls\r\n", 1),
        ("FROM a\nRUN echo \x0c\u2028FROM x\n\nFROM b", 2),
        ("FROM a\nRUN FROM x\nONBUILD RUN ls \\ \nFROM x\n", 1),
        ("# syntax=x/y:1\n#Escape = `\nFROM a `\n AS b\nRUN dir C:\\\nFROM b\n", 2),
        ("# a comment\n# escape=`\nFROM a\nRUN ls `\nFROM b\n", 2),
    ],
)
def test_the_label_follows_each_stage_of_a_dockerfile_and_nothing_else_changes(
    text: str, stages: int
) -> None:
    label = 'LABEL skelebot.project="demo"'
    written, left = dockerfile.label_stages(text, "demo", {"a": "b"})
    lines = written.removesuffix('\nLABEL a="b"\n').split("\n")
    assert (written == "\n".join(lines)) == bool(left)
    assert lines.count(label) == stages
    assert [line for line in lines if line != label] == text.split("\n")
    assert all(
        re.match("(?i)from [ab]|  ?AS b", before)
        for before, line in itertools.pairwise(lines)
        if line == label
    )


def test_a_dockerfile_that_ends_within_an_instruction_gets_its_labels_as_options() -> None:
    assert dockerfile.label_stages("FROM a\nRUN ls\n", "demo", {"a": "b"}) == (
        'FROM a\nLABEL skelebot.project="demo"\nRUN ls\n\nLABEL a="b"\n',
        {},
    )
    written, left = dockerfile.label_stages("FROM a\nRUN ls \\\n", "demo", {"a": "b"})
    assert ("a=" in written, left) == (False, {"a": "b"})


def test_a_job_with_ignores_of_its_own_has_an_image_of_its_own(tmp_path: Path) -> None:
    the_project = load(tmp_path, "name: demo\n")
    own = Job(name="Score It", source="ls", help="", ignores=("data",))
    assert [image(the_project, job).tag for job in (ANY, own)] == [
        "demo:latest",
        "demo:job-Score-It-3c0373ac",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a b", '"a b"'),
        ('a"b', '"a\\"b"'),
        ("a\\b", '"a\\\\b"'),
        ("$A ${B}", '"\\$A \\${B}"'),
        ("it's", '"it\'s"'),
    ],
)
def test_a_value_is_quoted_as_docker_reads_it(value: str, text: str) -> None:
    assert instructions.quoted(value) == text


# --- the primary job, as sh really runs it ---

PRINT = "printf '%s\\0'"


def primary(root: Path, *params: Param, name: str = "run") -> tuple[str, ...]:
    job = Job(name=name, source=PRINT, help="", params=params)
    return dockerfile.command_of(Project(name="demo", jobs=(job,), root=str(root)), job)


def test_without_references_no_shell_is_between(tmp_path: Path) -> None:
    words = primary(tmp_path, Param("rate", default="$(id)"), Param("all", accepts="boolean", default="true"))
    assert words == ("bash", "-c", f'{PRINT} "$@"', "run", "--rate", "$(id)", "--all")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, []),
        ({"RATE": "0.1"}, ["--rate", "0.1"]),
        ({"RATE": ""}, ["--rate", ""]),
        ({"RATE": "a  b*"}, ["--rate", "a  b*"]),
        (
            {"RATE": "$(touch evil) `touch evil`; $X \" ' \\"},
            ["--rate", "$(touch evil) `touch evil`; $X \" ' \\"],
        ),
        ({"RATE": "a\nb\n"}, ["--rate", "a\nb\n"]),
    ],
)
@pytest.mark.parametrize("default", ["$RATE", "${RATE}"])
def test_a_reference_gets_the_containers_value_and_nothing_else_is_expanded(
    tmp_path: Path, environment: dict[str, str], expected: list[str], default: str
) -> None:
    words = primary(
        tmp_path,
        Param("a", default="$(touch evil)"),
        Param("rate", default=default),
        Param("b", default="$X `touch evil` \" ' \\"),
        Param("list", accepts="list", default=("*", "", "a\nb", "${RATE}")),
        name="$(touch evil) \" '",
    )
    found = arrived(words, tmp_path, X="x", **environment)
    before, after = ["-a", "$(touch evil)"], ["-b", "$X `touch evil` \" ' \\"]
    assert found == [*before, *expected, *after, "--list", "*", "", "a\nb", "${RATE}"]
    assert list(tmp_path.iterdir()) == []


def test_more_than_nine_words_stay_in_order(tmp_path: Path) -> None:
    params = [Param(f"p{i}", default=f"v{i}") for i in range(20)]
    words = primary(tmp_path, Param("rate", default="$RATE"), *params)
    expected = [word for i in range(20) for word in (f"--p{i}", f"v{i}")]
    assert arrived(words, tmp_path, RATE="1") == ["--rate", "1", *expected]


@pytest.mark.parametrize(
    "param", ["default: hunter2", "accepts: list, default: [hunter2]", "accepts: list, default: hunter2"]
)
@pytest.mark.parametrize("level", ["job", "root"])
def test_the_default_of_a_secret_stays_out_of_the_image(tmp_path: Path, param: str, level: str) -> None:
    params = f"params: [{{name: token, secret: true, {param}}}]"
    text = "name: demo\nprimaryJob: a\njobs:\n  - name: a\n    source: a.py\n    help: A\n"
    project = load(tmp_path, text + ("    " if level == "job" else "") + params + "\n")
    assert "hunter2" not in dockerfile.text(image(project))
    (warning,) = read_all(tmp_path)[1].warnings
    assert "hunter2" not in warning
    assert "use $NAME" in warning
    assert warning.startswith("skelebot.yaml:7:")


def test_a_primary_job_with_arguments_leaves_the_image_without_a_command(tmp_path: Path) -> None:
    job = "{name: a, source: a.py, help: A, args: [{name: x}]}"
    lines = dockerfile.text(image(load(tmp_path, f"name: demo\nprimaryJob: a\njobs: [{job}]\n"))).splitlines()
    assert not lines[-1].startswith(("CMD", "ENTRYPOINT"))


def test_a_secret_may_be_a_reference(tmp_path: Path) -> None:
    words = primary(tmp_path, Param("token", default="$TOKEN", secret=True))
    assert arrived(words, tmp_path, TOKEN="hunter2") == ["--token", "hunter2"]


@pytest.mark.parametrize("text", ["primaryExe: CMD", "primaryExe: ENTRYPOINT"], ids=["CMD", "ENTRYPOINT"])
def test_the_primary_job_is_the_images_command(tmp_path: Path, text: str) -> None:
    body = f"name: demo\n{text}\nprimaryJob: a\njobs: [{{name: a, source: a.py, help: A}}]\n"
    last = dockerfile.text(image(load(tmp_path, body))).splitlines()[-1]
    assert last == f'{text.split()[1]} ["python", "-u", "a.py"]'


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("echo a", "RUN echo a"),
        ("  echo a \n", "RUN echo a"),
        ("[ -f a ]", 'RUN ["/bin/sh", "-c", "[ -f a ]"]'),
        ("--flag", 'RUN ["/bin/sh", "-c", "--flag"]'),
        ("<<EOF", 'RUN ["/bin/sh", "-c", "<<EOF"]'),
        ("a \\", 'RUN ["/bin/sh", "-c", "a \\\\"]'),
        ("a\nb", 'RUN ["/bin/sh", "-c", "a\\nb"]'),
        ("a\rb", 'RUN ["/bin/sh", "-c", "a\\rb"]'),
    ],
)
def test_a_shell_line_is_one_instruction(command: str, line: str) -> None:
    assert instructions.shell_form("RUN", command) == line
