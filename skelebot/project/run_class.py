"""Build a class of the project from the values of a job, and call a method of it.

Python runs this text with -c, in the image or natively, where there may be no Skelebot; any Python from
3.7 on reads it. It imports next to nothing, as a module of the project may have the name of one of Python.
Arguments: FILE CLASS METHOD VALUES [WORD ...]. VALUES has a line NAME=OPTION=TYPE=ACCEPTS for each value,
with an empty option for an arg. The words are those of the args, then each option with one value; a list
repeats its option.
"""

from __future__ import annotations

import os
import sys

# What a function gives that has run nothing of its body, by the name of its type.
NOT_RUN = {
    "coroutine": "is async, so it did not run; call asyncio.run in it",
    "async_generator": "is async, so it did not run; call asyncio.run in it",
    "generator": "has a `yield`, so it did not run; call a generator in it",
}


def parsed(kind: str, text: str) -> object:
    if kind == "date":
        import datetime

        if not hasattr(datetime, "date"):
            sys.exit(f"ERROR | {datetime.__file__} has the name of another module, datetime; rename the file")
        return datetime.date(*map(int, text.split("-")))
    return {"int": int, "float": float}.get(kind, str)(text)


def read(described: str, words: list[str]) -> dict[str, object]:
    """Return the values by name: None for one that was not given, False for a flag, [] for a list."""
    values: dict[str, object] = {}
    options = {}
    waiting = iter(words)
    for line in described.splitlines():
        name, option, kind, accepts = line.split("=")
        if option:
            options[option] = (name, kind, accepts)
            values[name] = {"boolean": False, "list": []}.get(accepts)
        else:
            values[name] = parsed(kind, next(waiting))
    for option in waiting:
        name, kind, accepts = options[option]
        before = values[name]
        if accepts == "boolean":
            values[name] = True
        elif isinstance(before, list):
            before.append(parsed(kind, next(waiting)))
        else:
            values[name] = parsed(kind, next(waiting))
    return values


def load(file: str) -> object:
    """Import a file under its own name, in the package that it is in, so that its objects can be pickled."""
    if not os.path.isfile(file):
        sys.exit(f"ERROR | there is no file {file} in {os.getcwd()}")
    folder, name = os.path.split(os.path.abspath(file))
    name = name[: -len(".py")]
    while folder != os.getcwd() and os.path.isfile(os.path.join(folder, "__init__.py")):
        folder, package = os.path.split(folder)
        name = package + "." + name
    # As for a script; Python has put an empty text there, unless it was told not to.
    sys.path[:1] = [folder] if sys.path[:1] == [""] else [folder, *sys.path[:1]]
    __import__(name)
    found = sys.modules[name]
    origin = getattr(found, "__file__", None)
    if not origin or not os.path.samefile(origin, file):
        sys.exit(f"ERROR | {file} has the name of another module, {origin or name}; rename the file")
    return found


def hide_own_frames() -> None:
    """Begin a traceback where the project's code begins."""
    own, show = load.__code__.co_filename, sys.excepthook

    def hook(kind, error, trace):  # type: ignore[no-untyped-def]
        while trace and trace.tb_frame.f_code.co_filename == own:
            trace = trace.tb_next
        show(kind, error.with_traceback(trace), trace)

    sys.excepthook = hook


def main(file: str, name: str, method: str, described: str, *words: str) -> None:
    hide_own_frames()
    sys.argv[:] = [file]
    values = read(described, list(words))
    build = getattr(load(file), name, None)
    if not callable(build):
        sys.exit(f"ERROR | {file} has no class {name}")
    call = getattr(build(values), method, None)
    if not callable(call):
        sys.exit(f"ERROR | the class {name} in {file} has no method {method}")
    result = call()
    if type(result).__name__ in NOT_RUN:
        if hasattr(result, "close"):
            result.close()  # else Python warns of it as well
        sys.exit(f"ERROR | {name}.{method} in {file} {NOT_RUN[type(result).__name__]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
