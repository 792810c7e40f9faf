"""`completion`: print a shell's completion script, which complete.py answers."""

from collections.abc import Iterable

from skelebot import console
from skelebot.component import Command, Component, Session
from skelebot.model import Arg, Project
from skelebot.options import Values

VARIABLE = "_SKELEBOT_COMPLETE"  # set by the script, and checked in __main__


class Completion(Component):
    def commands(self, project: Project | None) -> Iterable[Command]:
        return (_COMPLETION,)


def _run(session: Session, values: Values) -> int:
    import click  # only for this
    from click.shell_completion import get_completion_class

    shell = get_completion_class(str(values["<shell>"]))
    assert shell
    console.out(shell(click.Command("skelebot"), {}, "skelebot", VARIABLE).source())
    return 0


_COMPLETION = Command(
    "completion",
    "Print the completion script for a shell",
    _run,
    (Arg("shell", ("bash", "zsh", "fish"), "The shell to print it for"),),
)
