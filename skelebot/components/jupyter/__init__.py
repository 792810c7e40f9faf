"""`jupyter`: notebooks with the project's dependencies."""

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from skelebot.component import Command, Component, Link, Session
from skelebot.keys import key, port_number, variable_name
from skelebot.model import WORKDIR, Environment, Mapping, Param, Project, mapping_text
from skelebot.options import Values


@dataclass(frozen=True, repr=False, eq=False)
class Jupyter(Component):
    """Where Jupyter listens, and what it shows."""

    port: int = key(
        8888, help="The port of this machine; the next free one if it is in use", check=port_number
    )
    folder: str = key(".", help="The folder that Jupyter shows, relative to the project root")
    lab: bool = key(False, help="Use JupyterLab instead of Jupyter Notebook")
    mappings: tuple[str, ...] = key((), help="More folders that the notebooks see", check=mapping_text)
    environment: Environment = key((), help="Environment variables of the notebooks", check=variable_name)

    def problems(self) -> Iterator[str]:
        for text in self.mappings:
            if posixpath.normpath(Mapping.parse(text).container) == WORKDIR:
                yield f"{text} covers {WORKDIR}, where the project folder is mapped; remove it"

    def commands(self, project: Project | None) -> Iterable[Command]:
        return (
            Command(
                "jupyter", "Start Jupyter in the project's image", self._run, (), self._params(), self._check
            ),
        )

    def _params(self) -> tuple[Param, ...]:
        lab = "true" if self.lab else None
        return (
            Param("port", "p", str(self.port), help="The port; the next free one if it is in use"),
            Param("folder", "f", self.folder, help="The folder to show, relative to the project root"),
            Param("lab", "l", lab, accepts="boolean", help="Use JupyterLab instead of Jupyter Notebook"),
            Param("bind", "b", "127.0.0.1", placeholder="ADDRESS", help="The address to listen on"),
            Param("open", "o", accepts="boolean", help="Open the address in a browser"),
        )

    def _check(self, session: Session, values: Values, earlier: Sequence[Link]) -> None:
        from skelebot.components.jupyter import run  # only for Jupyter

        run.check(self, session, values)

    def _run(self, session: Session, values: Values) -> int:
        from skelebot.components.jupyter import run

        return run.run(self, session, values)
