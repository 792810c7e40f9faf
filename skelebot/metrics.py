"""Log what a job measures, from a job in Python: `skelebot.metrics.log(loss=0.2, step=3)`.

It needs nothing else of Skelebot, and does nothing in a job that is no run: one that was neither queued nor
recorded.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

_VARIABLE = "SKELEBOT_METRICS"  # the file to which a run's job appends


def log(values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
    """Append numbers by name, in a line of their own; `step` and `progress` (from 0 to 1) are special.

    values: for names that are no identifiers, such as `valid.f1`; a mapping below a name adds a dot. A number
    is whatever float() takes, an element of an array among them. Any process or thread may call it.
    Raises TypeError and ValueError for what is not a number, and OSError.
    """
    path = os.environ.get(_VARIABLE)
    if not path:
        return
    line = json.dumps(_plain({**(values or {}), **more})).encode("ascii") + b"\n"
    number = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(number, line)  # whole, as nobody else's line is to come between
    finally:
        os.close(number)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        str(name): _plain(value) if isinstance(value, Mapping) else float(value)
        for name, value in values.items()
    }
