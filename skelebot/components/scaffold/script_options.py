"""The options of a Python script, read from its argparse, click or typer definitions without running it."""

import ast
from typing import Any, NamedTuple

from skelebot.keys import one_line

_UNKNOWN = object()  # a value that is only known when the script runs


class Options(NamedTuple):
    """args and params: as in a job. skipped: what a job cannot express, in words."""

    args: list[dict[str, Any]]
    params: list[dict[str, Any]]
    skipped: list[str]


def options(tree: ast.Module) -> Options:
    """Find the script's options; those of a program with subcommands are skipped."""
    found = Options([], [], [])
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    commands = [f for f in functions if any(_method(d) == "command" for d in f.decorator_list)]
    if _calls(tree, "add_subparsers") or len(commands) > 1:
        found.skipped.append("subcommands")
        return found
    for call in _calls(tree, "add_argument"):
        _argparse(call, found)
    for decorator in [d for command in commands for d in _click(command)]:
        _decorator(decorator, found)
    if _imports(tree, "typer"):
        names = {n.args[0].id for n in _calls(tree, "run") if n.args and isinstance(n.args[0], ast.Name)}
        for function in functions:
            if (function in commands or function.name in names) and not _click(function):
                _typer(function, found)
    return found


def _calls(tree: ast.AST, method: str) -> list[ast.Call]:
    return [n for n in ast.walk(tree) if isinstance(n, ast.Call) and _method(n) == method]


def _method(node: ast.AST | None) -> str:
    """The last part of the name of what is called: `option` for `@click.option(...)`."""
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _click(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.Call]:
    kinds = ("option", "argument")
    return [d for d in function.decorator_list if isinstance(d, ast.Call) and _method(d) in kinds]


def _imports(tree: ast.Module, module: str) -> bool:
    nodes = ast.walk(tree)
    return any(
        (isinstance(n, ast.Import) and any(a.name == module for a in n.names))
        or (isinstance(n, ast.ImportFrom) and n.module == module)
        for n in nodes
    )


def _value(node: ast.AST | None, default: Any = None) -> Any:
    if node is None:
        return default
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return _UNKNOWN


def _keywords(call: ast.Call) -> dict[str, ast.expr]:
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}


# --- argparse: https://docs.python.org/3/library/argparse.html#the-add-argument-method ---


def _argparse(call: ast.Call, found: Options) -> None:
    names, given = [_value(node) for node in call.args], _keywords(call)
    if not names or not all(isinstance(name, str) for name in names):
        found.skipped.append("an option whose name is computed")
        return
    nargs, default = _value(given.get("nargs")), _value(given.get("default"))
    action = _value(given.get("action"), "store")
    if action is _UNKNOWN:
        action = _method(given["action"])
    about = {"choices": _value(given.get("choices")), "help": _value(given.get("help"))}
    if not names[0].startswith("-"):
        _add_arg(found, names[0], about, plain=nargs in (None, 1) and action == "store")
    elif action in ("store_true", "store_false", "BooleanOptionalAction"):
        off = action == "BooleanOptionalAction" and default is True
        _add_flag(found, [f"--no-{n.lstrip('-')}" for n in names] if off else names, about)
    elif action != "store" or nargs not in (None, "?", "+", "*"):
        found.skipped.append(str(names[-1]))
    else:
        required = _value(given.get("required")) is True
        _add_param(found, names, about, default, required, many=nargs in ("+", "*"))


# --- click: https://click.palletsprojects.com/en/stable/options/ ---


def _decorator(call: ast.Call, found: Options) -> None:
    names, given = [_value(node) for node in call.args], _keywords(call)
    names = [name for name in names if isinstance(name, str)]
    if not names:
        found.skipped.append("an option whose name is computed")
        return
    kind = given.get("type")
    choices = _value(kind.args[0]) if isinstance(kind, ast.Call) and kind.args else None
    about = {"choices": choices, "help": _value(given.get("help"))}
    nargs, required = _value(given.get("nargs"), 1), _value(given.get("required"))
    default = _value(given.get("default"))
    if _method(call) == "argument":
        _add_arg(found, names[0], about, plain=nargs == 1 and required is not False and default is None)
        return
    flags = [name for name in names if name.startswith("-")]
    if any("/" in name for name in flags):
        which = 1 if default is True else 0
        _add_flag(
            found, [part.strip() for name in flags for part in name.split("/")[which : which + 1]], about
        )
    elif _value(given.get("is_flag")) is True or isinstance(default, bool):
        _add_flag(found, flags, about)
    elif not flags or nargs != 1 or {"multiple", "count"} & given.keys():
        found.skipped.append(names[-1])
    else:
        _add_param(found, flags, about, default, required is True)


# --- typer: https://typer.tiangolo.com/tutorial/ ---


def _typer(function: ast.FunctionDef | ast.AsyncFunctionDef, found: Options) -> None:
    arguments = [*function.args.posonlyargs, *function.args.args]
    defaults: list[ast.expr | None] = [None] * (len(arguments) - len(function.args.defaults))
    pairs = [*zip(arguments, [*defaults, *function.args.defaults], strict=True)]
    pairs += list(zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True))
    for argument, node in pairs:
        call, default, annotation = _typer_call(argument.annotation, node)
        names = [n for n in map(_value, call.args if call else ()) if isinstance(n, str) and n[:1] == "-"]
        about = {"choices": None, "help": _value(_keywords(call).get("help")) if call else None}
        dashed = argument.arg.replace("_", "-")
        required = default is ...
        if annotation is not None and not isinstance(annotation, ast.Name | ast.BinOp | ast.Attribute):
            found.skipped.append(argument.arg)  # a list or the like, whose option is repeated
        elif _method(call) == "Argument" or (required and _method(call) != "Option"):
            _add_arg(found, argument.arg, about, plain=required)
        elif _method(annotation) == "bool":
            _add_flag(found, names or [f"--no-{dashed}" if default is True else f"--{dashed}"], about)
        else:
            _add_param(found, names or [f"--{dashed}"], about, default, required)


def _typer_call(
    annotation: ast.expr | None, node: ast.expr | None
) -> tuple[ast.Call | None, Any, ast.expr | None]:
    """The call of typer.Option or typer.Argument, the default (`...`: none), and the type."""
    call, default = None, _value(node, ...)
    if isinstance(annotation, ast.Subscript) and _method(annotation.value) == "Annotated":
        annotation, *more = getattr(annotation.slice, "elts", [annotation.slice])
        call = next((m for m in more if isinstance(m, ast.Call)), None)
    elif isinstance(node, ast.Call) and _method(node) in ("Option", "Argument"):
        call, default = node, _value(node.args[0] if node.args else _keywords(node).get("default"), ...)
    if isinstance(annotation, ast.Subscript) and _method(annotation.value) == "Optional":
        annotation = annotation.slice
    return call, default, annotation


# --- what a job can express ---


def _add_arg(found: Options, name: str, about: dict[str, Any], plain: bool) -> None:
    if plain and name not in [arg["name"] for arg in found.args]:
        found.args.append({"name": name, **_about(about)})
    else:
        found.skipped.append(name)


def _add_flag(found: Options, flags: list[str], about: dict[str, Any]) -> None:
    _add(found, flags, {"accepts": "boolean", **_about({"help": about["help"]})})


def _add_param(
    found: Options, flags: list[str], about: dict[str, Any], default: Any, required: bool, many: bool = False
) -> None:
    more = _about(about)
    if required:
        more["help"] = f"Required. {more.get('help', '')}".strip()
    each = default if isinstance(default, list) else [default]
    known = all(_is_plain(value) and value in more.get("choices", [value]) for value in each)
    keys = {"default": default} if known and (many or not isinstance(default, list)) else {}
    _add(found, flags, {**({"accepts": "list"} if many else {}), **keys, **more})


def _add(found: Options, flags: list[str], keys: dict[str, Any]) -> None:
    used = {"h", "help", *(p[k] for p in found.params for k in ("name", "alt") if k in p)}
    names = [flag.lstrip("-") for flag in sorted(flags, key=lambda flag: not flag.startswith("--"))]
    if not names or not all(names) or used & set(names[:2]):
        found.skipped.extend(flags[-1:])
        return
    alt = {"alt": names[1]} if len(names) > 1 else {}
    found.params.append({"name": names[0], **alt, **keys})


def _about(about: dict[str, Any]) -> dict[str, Any]:
    """The keys `choices` and `help`, where they are known."""
    choices, text = about.get("choices"), about.get("help")
    keys: dict[str, Any] = {}
    if isinstance(choices, list | tuple) and choices and all(_is_plain(choice) for choice in choices):
        keys["choices"] = list(choices)
    if isinstance(text, str) and (first := " ".join(text.split())) and one_line(first) is None:
        keys["help"] = first
    return keys


def _is_plain(value: Any) -> bool:
    """Whether it is a number, or a text that means the same in a skelebot.yaml."""
    if isinstance(value, str):
        return bool(value) and value.isprintable() and value[0] != "$"
    return isinstance(value, int | float) and not isinstance(value, bool)


def runs_at_import(tree: ast.Module) -> bool:
    """Whether importing the file does something, as with a script that has no main part."""
    texts = [n for n in tree.body if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]
    kinds = ast.Expr | ast.For | ast.While | ast.With
    return any(isinstance(node, kinds) and node not in texts for node in tree.body)
