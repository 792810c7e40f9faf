"""`scaffold` and `template`: a folder becomes a project, and follows its template's changes."""

import os
from collections.abc import Iterable

from skelebot import console
from skelebot.component import Command, Component, Session
from skelebot.errors import SkelebotError, UsageError
from skelebot.model import Arg, Param, Project
from skelebot.options import Values
from skelebot.project import read
from skelebot.project.read import FILE

# What makes or changes a project is imported when it runs, as every start of Skelebot comes by here.


class Scaffold(Component):
    def commands(self, project: Project | None) -> Iterable[Command]:
        scaffold = Command(
            "scaffold", "Make a project of this folder", _scaffold, (), _SCAFFOLD, changes=True
        )
        action = Arg("action", ("update",), "update: bring in what has changed in the template")
        template = Command(
            "template",
            "Bring in what has changed in the project's template",
            _template,
            (action,),
            _UPDATE,
            changes=True,
        )
        return (scaffold, template) if project else (scaffold,)


_YES = Param("yes", "y", accepts="boolean", help="Take the defaults, and ask nothing")
_VAR = Param("var", accepts="list", placeholder="NAME=VALUE", help="Answers to the template's own questions")
_SCAFFOLD = (
    Param("name", help="The project's name; this folder's by default"),
    Param("description", help="One or two sentences about it"),
    Param("maintainer", help="Who looks after it; git's user.name by default"),
    Param("contact", help="Where to ask about it; git's user.email by default"),
    Param("language", choices=("Python", "R", "R+Python"), help="What its jobs are written in"),
    Param("template", help="default, dash, r, or URL[@REF] or FOLDER[@REF] of a template of your own"),
    _VAR,
    Param("existing", "e", accepts="boolean", help="Make a project of what is in this folder"),
    Param("force", "f", accepts="boolean", help="Write over files that are there"),
    _YES,
)
_UPDATE = (
    Param("to", placeholder="REF", help="The template's branch, tag or commit; the one of before by default"),
    _VAR,
    _YES,
)


def _scaffold(session: Session, values: Values) -> int:
    from skelebot.components.scaffold import answers, existing, new

    root, force = os.getcwd(), bool(values.get("force"))
    _check_place(session.optional_project, root, force)
    asker, dry_run = answers.asker(values), session.flags.dry_run
    if values.get("existing"):
        for name in ("template", "var"):
            if name in values:
                raise UsageError(f"--{name} is for a new project; -e makes one of what is there")
        code = existing.adopt(root, asker, force, dry_run, session.reserved_names)
    else:
        code = new.scaffold(root, asker, force, dry_run)
    if code == 0 and not dry_run:
        _say_what_is_next(root)
    return code


def _say_what_is_next(root: str) -> None:
    """A VERSION that was there, and was left alone, can be one that no command takes."""
    try:
        read.project(root, None)[1].raise_problems()
    except SkelebotError as error:
        console.warn(f"the project is made, but needs this mended before it can do anything: {error}")
    else:
        console.info(f"the project is ready: see {FILE}, and `skelebot -h` for what it can do")


def _check_place(project: Project | None, root: str, force: bool) -> None:
    """Raises UsageError in a project, and below one, unless that is asked for."""
    if project is None or force:
        return
    name, where = console.one_line(project.name), console.one_line(project.root)
    if os.path.samefile(project.root, root):
        raise UsageError(f"there is a project here already, {name}: see {FILE}, or make it anew with --force")
    raise UsageError(
        f"this is inside of the project {name} in {where}; change to a folder outside of it, or say --force"
    )


def _template(session: Session, values: Values) -> int:
    from skelebot.components.scaffold import answers, update

    to = values.get("to")
    asker = answers.asker(values)
    return update.update(session.project.root, asker, str(to) if to else None, session.flags.dry_run)
