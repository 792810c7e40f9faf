"""What the libraries cost that Skelebot does without, as ratios measured in one run.

usage: python benchmarks/alternatives.py [ROUNDS]

Each statement runs in a Python of its own, taking turns with `import argparse, yaml`. Libraries that the
Python which runs this does not have are left out: pip install pydantic jsonschema msgspec click
"""

import importlib.util
import statistics
import sys

from startup import IMPORTS, Command, measure

ROUNDS = 20

# Reading a configuration into checked values: the models of a project, as small as they can be.
MODELS = {
    "pydantic": """
import yaml
from pydantic import BaseModel
class Param(BaseModel): name: str; alt: str | None = None; choices: list[str] = []
class Job(BaseModel): name: str; source: str; help: str; params: list[Param] = []
class Project(BaseModel): name: str; description: str = ""; jobs: list[Job] = []
Project.model_validate({"name": "x", "jobs": []})
""",
    "jsonschema": """
import yaml, jsonschema
jsonschema.validate({"name": "x"}, {"type": "object", "properties": {"name": {"type": "string"}}})
""",
    "msgspec": """
import yaml, msgspec
class Project(msgspec.Struct): name: str; jobs: list[str] = []
msgspec.convert({"name": "x"}, Project)
""",
}

# A command line with 500 jobs, each with an argument and two options.
PARSERS = {
    "argparse": """
import argparse, yaml
commands = argparse.ArgumentParser().add_subparsers()
for number in range(500):
    job = commands.add_parser(f"job-{number}", help="help")
    job.add_argument("date", help="help")
    job.add_argument("-r", "--rate", default="0.1", help="help")
    job.add_argument("-l", "--level", choices=["debug", "info"], help="help")
""",
    "click": """
import click, yaml
main = click.Group()
for number in range(500):
    options = [click.Argument(["date"]), click.Option(["-r", "--rate"]), click.Option(["-l", "--level"])]
    main.add_command(click.Command(f"job-{number}", params=options, help="help"))
""",
}

# Which installed distributions bring a plugin.
FINDERS = {
    "skelebot, plugins": "import argparse, yaml; from skelebot import plugins; plugins.find()",
    "importlib, metadata": """
import argparse, yaml
from importlib.metadata import entry_points
entry_points(group="skelebot.components")
""",
}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    named = {**MODELS, **FINDERS, **{f"{name}, 500 jobs": code for name, code in PARSERS.items()}}
    found = {n: code for n, code in named.items() if importlib.util.find_spec(n.partition(",")[0])}
    runs = [Command(n, (sys.executable, "-c", code), ".") for n, code in {IMPORTS: IMPORTS, **found}.items()]
    times = measure(runs, rounds)
    base = times[IMPORTS]
    print(f"Python {sys.version.split()[0]}, {rounds} rounds; against `{IMPORTS}`\n")
    print(f"  {'what':<24}{'median':>7}{'min':>7}")
    for name in found:
        median = statistics.median(times[name]) / statistics.median(base)
        print(f"  {name:<24}{median:7.2f}{min(times[name]) / min(base):7.2f}")


if __name__ == "__main__":
    main()
