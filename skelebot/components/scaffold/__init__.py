"""The commands `scaffold` and `template`."""

import os
from collections.abc import Iterable

from skelebot import console
from skelebot.component import Command, Component, Session
from skelebot.errors import SkelebotError, UsageError
from skelebot.model import Arg, Param, Project
from skelebot.options import Values
from skelebot.project import read
from skelebot.project.read import FILE

# Every start of Skelebot imports this file, so the rest is imported when a command runs.


class Scaffold(Component):
    def commands(self, project: Project | None) -> Iterable[Command]:
        scaffold = Command(
            "scaffold", "Turn this folder into a project", _scaffold, (), _SCAFFOLD, changes=True
        )
        action = Arg("action", ("update",), "update: merge the template's changes")
        template = Command(
            "template",
            "Bring the template's changes into this project",
            _template,
            (action,),
            _UPDATE,
            changes=True,
        )
        return (scaffold, template) if project else (scaffold,)


_YES = Param("yes", "y", accepts="boolean", help="Use the defaults and ask nothing")
_VAR = Param("var", accepts="list", placeholder="NAME=VALUE", help="Answers to the template's own questions")
_SCAFFOLD = (
    Param("name", help="The project's name (default: this folder's)"),
    Param("description", help="One or two sentences about it"),
    Param("maintainer", help="Who maintains it (default: git's user.name)"),
    Param("contact", help="Where to ask about it (default: git's user.email)"),
    Param("language", choices=("Python", "R", "R+Python"), help="The language of its jobs"),
    Param(
        "template",
        help="default, dash, r, or URL[@REF] or FOLDER[@REF] of a custom template",
        offered=("default", "dash", "r"),
    ),
    _VAR,
    Param("existing", "e", accepts="boolean", help="Turn what is in this folder into a project"),
    Param("force", "f", accepts="boolean", help="Overwrite existing files"),
    _YES,
)
_UPDATE = (
    Param("to", placeholder="REF", help="The template's branch, tag or commit; by default as before"),
    _VAR,
    Param("from-scratch", accepts="boolean", help="Compare with the version nearest to the project"),
    _YES,
)


def _scaffold(session: Session, values: Values) -> int:
    from skelebot.components.scaffold import answers, existing, new

    root, force = os.getcwd(), bool(values.get("force"))
    _check_no_project(session.optional_project, root, force)
    asker, dry_run = answers.asker(values), session.flags.dry_run
    if values.get("existing"):
        for name in ("template", "var"):
            if name in values:
                raise UsageError(f"--{name} is for a new project; -e uses what is in this folder")
        code = existing.adopt(root, asker, force, dry_run, session.reserved_names, session.schema())
    else:
        code = new.scaffold(root, asker, force, dry_run, session.schema())
    if code == 0 and not dry_run:
        _report(root)
    return code


def _report(root: str) -> None:
    """Say what comes next; an existing VERSION, which stays, may be wrong."""
    try:
        read.project(root, None)[1].raise_problems()
    except SkelebotError as error:
        console.warn(f"the project is created, but fix this before you use it: {error}")
    else:
        console.info(f"the project is ready: see {FILE}, and `skelebot -h` for its commands")


def _check_no_project(project: Project | None, root: str, force: bool) -> None:
    """Raise UsageError in a project, and below one, unless the user insists."""
    if project is None or force:
        return
    name, where = console.one_line(project.name), console.one_line(project.root)
    if os.path.samefile(project.root, root):
        raise UsageError(f"this folder is already the project {name}; use --force to replace it")
    raise UsageError(
        f"this folder is inside the project {name} in {where}; change to a folder outside it, or use --force"
    )


def _template(session: Session, values: Values) -> int:
    from skelebot.components.scaffold import answers, update

    to, root = values.get("to"), session.project.root
    from_scratch = bool(values.get("from-scratch"))
    asker = answers.asker(values)
    return update.update(root, asker, str(to) if to else None, from_scratch, session.flags.dry_run)
