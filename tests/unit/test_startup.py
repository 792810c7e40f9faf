"""What a start of Skelebot imports: no more than it needs, and nothing of Docker, cloud or network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .helpers import write

NEVER = {
    "argparse",
    "asyncio",
    "boto3",
    "botocore",
    "concurrent",
    "docker",
    "email",
    "http",
    "importlib.metadata",
    "jsonschema",
    "logging",
    "multiprocessing",
    "packaging",
    "pkg_resources",
    "psutil",
    "requests",
    "secrets",
    "setuptools",
    "shutil",
    "socket",
    "ssl",
    "tempfile",
    "urllib",
    "urllib3",
    "zipfile",
    "zoneinfo",
}

JOBS = "name: demo\njobs:\n" + "".join(
    f"""\
  - name: job{i}
    source: run.sh
    help: Runs {i}
    args: [{{name: a, choices: [1, 2]}}]
    params: [{{name: b, default: 3}}]
"""
    for i in range(10)
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write(tmp_path, JOBS)
    write(tmp_path, "echo ran $1\n", "run.sh")
    return tmp_path


MAIN = "from skelebot.cli import main; assert main(sys.argv[1:]) == 0"


def imported(folder: Path, *words: str, code: str = MAIN) -> tuple[set[str], str]:
    """The modules that a Python has imported after `code`, and what it printed."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV"))}
    env |= {"PYTHONPATH": str(Path(__file__).parents[2]), "VIRTUAL_ENV": ""}
    whole = f"import sys\n{code}\nprint(*sys.modules, sep='\\n', file=sys.stderr)"
    result = subprocess.run(
        [sys.executable, "-c", whole, *words], cwd=folder, env=env, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return set(result.stderr.split()), result.stdout


def heavy(modules: set[str]) -> set[str]:
    return {m for m in modules if m in NEVER or m.partition(".")[0] in NEVER}


@pytest.mark.parametrize("words", [["-h"], [], ["-v"], ["job3", "-h"], ["-n", "--dry-run", "job3", "1"]])
def test_what_needs_no_job_to_run_imports_nothing_heavy(project: Path, words: list[str]) -> None:
    empty = heavy(imported(project, code="")[0])
    modules, out = imported(project, *words)
    assert out
    assert heavy(modules) - empty == set()


ASKED = """\
import os
os.environ |= {"_SKELEBOT_COMPLETE": "bash_complete", "COMP_WORDS": "skelebot\\njob", "COMP_CWORD": "1"}
errors = os.dup(2)
from skelebot.complete import answer
answer()
os.dup2(errors, 2)
"""


def test_a_completion_imports_no_more_than_the_help(project: Path) -> None:
    helped, _ = imported(project, "-h")
    modules, out = imported(project, code=ASKED)
    assert out.splitlines() == [f"plain,job{i}" for i in range(10)]
    assert modules - helped - {"os"} == {"skelebot.complete"}


def test_a_native_job_imports_nothing_of_docker_cloud_or_network(project: Path) -> None:
    modules, out = imported(project, "-n", "job3", "1")
    assert out == "ran 1\n"
    assert heavy(modules) - heavy(imported(project, code="")[0]) == set()


def test_a_start_imports_few_modules_beyond_a_yaml_reader(project: Path) -> None:
    """A bound on the number, as imports are what a start spends its time on."""
    base, _ = imported(project, code="import argparse, yaml")
    modules, _ = imported(project, "-h")
    more = {m for m in modules - base if not m.startswith("skelebot")}
    assert len(more) <= 45, sorted(more)


def test_a_command_imports_no_runner_but_its_own(project: Path) -> None:
    helped, _ = imported(project, "-h")
    native, _ = imported(project, "-n", "job3", "1")
    assert not {"skelebot.runners.docker", "skelebot.runners.native"} & helped
    assert "skelebot.runners.native" in native
    assert "skelebot.runners.docker" not in native


def test_only_an_environment_imports_what_lays_its_file_over_the_base(project: Path) -> None:
    (project / "skelebot-dev.yaml").write_text("merge: true\n")
    assert "skelebot.project.overlay" not in imported(project, "-h")[0]
    assert "skelebot.project.overlay" in imported(project, "-e", "dev", "-h")[0]


def test_a_start_without_plugins_imports_nothing_for_them(project: Path) -> None:
    modules, _ = imported(project, "-h")
    ours = {m for m in modules if m.startswith("skelebot.plugins")}
    assert ours == {"skelebot.plugins", "skelebot.plugins.find"}
    assert not [
        m for m in modules if m.startswith(("skelebot.components.plugin.", "skelebot.components.doctor."))
    ]
