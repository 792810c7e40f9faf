"""`doctor`: whether what Skelebot needs is there, and what to do where it is not."""

from collections.abc import Iterable

from skelebot.component import Command, Component, Session
from skelebot.model import Param, Project
from skelebot.options import Values


class Doctor(Component):
    def commands(self, project: Project | None) -> Iterable[Command]:
        params = (Param("json", accepts="boolean", help="Print what was found as JSON"),)
        return (Command("doctor", "Look whether all that is needed is there", _run, params=params),)


def _run(session: Session, values: Values) -> int:
    from skelebot.components.doctor import examination

    return examination.show(session, as_json=bool(values.get("json")))
