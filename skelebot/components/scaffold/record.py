"""What a project records about the template that it was made from."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import yaml

import skelebot
from skelebot.components.scaffold.location import Location
from skelebot.components.scaffold.templates import variable
from skelebot.errors import UsageError
from skelebot.keys import key, not_blank, pattern
from skelebot.model import Environment
from skelebot.project import nodes, schema
from skelebot.project.read import read_file

RECORD = ".skelebot-template.yaml"


@dataclass(frozen=True)
class Record:
    """Where the project's template came from, and the answers."""

    template: str = key(help="Its name, address or folder", check=not_blank)
    ref: str | None = key(None, help="The branch, tag or commit that was requested", check=not_blank)
    commit: str | None = key(
        None, help="The commit that was used", check=pattern(r"[0-9a-f]{40,64}", "the id of a commit")
    )
    version: str | None = key(None, help="The Skelebot that the template came with")
    answers: Environment = key((), help="The answers", check=variable)


_RECORD_HEAD = "# The project's template, for `skelebot template update`: keep this file in git.\n"


def record_text(location: Location, commit: str | None, answers: Mapping[str, str]) -> bytes:
    version = skelebot.__version__ if location.kind == "built-in" else None
    values = {"template": location.address, "ref": location.ref, "commit": commit, "version": version}
    known = {name: value for name, value in values.items() if value is not None}
    text = yaml.safe_dump({**known, "answers": dict(answers)}, sort_keys=False, allow_unicode=True, width=200)
    return (_RECORD_HEAD + text).encode()


def read_record(root: str) -> Record:
    """Read the record of the project in `root`. Raises ConfigError, and UsageError without a record."""
    if not os.path.lexists(os.path.join(root, RECORD)):
        raise UsageError(f"{root} has no {RECORD}, so it was not created from a template")
    report = nodes.Report()
    node = nodes.parse(RECORD, read_file(root, RECORD), report)
    record = schema.record(node, Record, "", report) if node is not None else None
    report.raise_problems()
    assert isinstance(record, Record)
    return record
