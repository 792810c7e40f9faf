"""Load a plugin and call its hooks in a separate process, where it can do no harm."""

import json
import sys
from dataclasses import dataclass

from skelebot import console, process
from skelebot.component import Activation, Check
from skelebot.model import Flags, Step
from skelebot.plugins.find import Plugin

# Isolated from the current folder and the environment, then with the path that is in use here.
_WORKER = (
    "import json, sys; request = json.load(sys.stdin); sys.path[:] = request.pop('path')\n"
    "from skelebot.plugins.worker import main; main(request)"
)


@dataclass(frozen=True)
class Probe:
    """What a plugin did in its own process.

    off: why it cannot be active. loads: whether it has a class, and names of its own. checks: lines for
    doctor; empty if it is not active.
    """

    off: str | None
    loads: bool = False
    activation: Activation = Activation.CONFIGURED
    checks: tuple[Check, ...] = ()


def probe(
    plugin: Plugin, seconds: float, root: str | None, flags: Flags | None = None, own_checks: bool = False
) -> Probe:
    """Probe a plugin, in a project if `root` is one, for at most that many seconds.

    flags: those of the command line, for the project's environment. own_checks: also run the plugin's
    checks for doctor.
    """
    flags = flags or Flags()
    request = {"plugin": plugin._asdict(), "root": root, "flags": flags._asdict(), "own_checks": own_checks}
    step = Step((sys.executable, "-I", "-c", _WORKER), stdin=json.dumps({"path": sys.path, **request}))
    try:
        code, out, _ = process.capture(step, seconds)
        answer = json.loads(out)
        checks = tuple(Check(**check) for check in answer["checks"])
        return Probe(answer["off"], answer["loads"], Activation[answer["activation"]], checks)
    except TimeoutError:
        return Probe(f"it has not finished after {console.counted(seconds, 'second')}")
    except (ValueError, TypeError, KeyError):
        return Probe(f"it ended Python, with exit code {code}")
