"""The page "From skelebot 2.5" says what really happens to a file of 2.5."""

import re
from pathlib import Path

import pytest

from .helpers import read_all, write

PAGE = Path(__file__).parents[2] / "docs" / "from-2.5.md"
ROWS = [row.split(" | ") for row in re.findall(r"^\| (.* \| .* \| .*) \|$", PAGE.read_text(), re.MULTILINE)]
ROWS = [row for row in ROWS if row[0].startswith("`")]


def project(folder: Path, snippet: str) -> tuple[list[str], list[str]]:
    """The problems and warnings of a project that has the snippet in its file."""
    text = snippet.strip("`")
    write(folder, f"{{name: demo, {text[1:]}" if text.startswith("{") else f"name: demo\n{text}\n")
    report = read_all(folder)[1]
    return list(report.problems), list(report.warnings)


def test_the_page_has_rows() -> None:
    assert len(ROWS) > 20


@pytest.mark.parametrize(("old", "reported", "new"), ROWS, ids=[row[0].strip("`{")[:40] for row in ROWS])
def test_a_file_of_2_5(tmp_path: Path, old: str, reported: str, new: str) -> None:
    problems, warnings = project(tmp_path, old)
    kind, _, text = reported.partition(": ")
    found = {"a warning": warnings, "an error": problems, "nothing": []}[kind]
    assert len(problems + warnings) == len(found)
    if kind != "nothing":
        (line,) = found
        assert text in line
        assert re.match(r"skelebot\.yaml:\d+:\d+: ", line)
    if re.fullmatch(r"`[^`]*`", new):
        problems, warnings = project(tmp_path, new)
        assert problems == []
        assert warnings == []
