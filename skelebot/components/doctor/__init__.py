"""`doctor`: check that everything Skelebot needs is there, and say what to do where it is not."""

from collections.abc import Iterable

from skelebot.component import Command, Component, Session
from skelebot.model import Param, Project
from skelebot.options import Values


class Doctor(Component):
    def commands(self, project: Project | None) -> Iterable[Command]:
        params = (Param("json", accepts="boolean", help="Print the results as JSON"),)
        return (Command("doctor", "Check that everything needed is installed", _run, params=params),)


def _run(session: Session, values: Values) -> int:
    from skelebot.components.doctor.checks import show

    return show(session, as_json=bool(values.get("json")))
