"""What doctor makes of what it finds."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from skelebot.component import Check, Component, Session
from skelebot.components.doctor import checks
from skelebot.errors import SkelebotError
from skelebot.model import Flags


class Fine(Component):
    def checks(self, session: Session) -> Iterator[Check]:
        yield Check("fine", "all there")


class Broken(Component):
    def checks(self, session: Session) -> Iterator[Check]:
        raise SkelebotError("nothing there; add it")


class Buggy(Component):
    def checks(self, session: Session) -> Iterator[Check]:
        yield Check("half", "seen")
        raise KeyError("x")


@pytest.mark.parametrize(
    ("component", "code", "rows"),
    [
        (Fine(), 0, [("fine", True, "all there", None)]),
        (Broken(), 1, [("broken", False, "nothing there", "add it")]),
    ],
)
def test_a_components_checks(
    component: Component,
    code: int,
    rows: list[tuple[str, bool, str, str | None]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    session = Session(None, (component,), Flags(native=True), set(), set())
    assert checks.show(session, as_json=True) == code
    found = json.loads(capsys.readouterr().out)
    names = {row[0] for row in rows}
    assert [tuple(row.values()) for row in found if row["name"] in names] == rows


def test_a_bug_is_one_line_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    session = Session(None, (Buggy(), Fine()), Flags(native=True), set(), set())
    assert checks.show(session, as_json=False) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "| Python" not in line]
    assert "ok    | half: seen" in lines
    assert "ok    | fine: all there" in lines
    assert any(
        line.startswith("WRONG | buggy: KeyError: 'x' (") and "a bug in Skelebot" in line for line in lines
    )
