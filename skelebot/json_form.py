"""The frozen values of the model as JSON, and back: the same values, by their types alone."""

import math
import typing
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from skelebot.secret import Secret

T = TypeVar("T")


class UnknownField(ValueError):
    """The data has a field that only a later version knows."""


def to_json(value: object) -> Any:
    """What `json.dumps` takes: records as objects of what differs from the defaults, tuples as lists."""
    if is_dataclass(value):
        return _named({f.name: (getattr(value, f.name), f.default) for f in fields(value)})
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        default = value._field_defaults  # type: ignore[attr-defined]
        return _named({name: (given, default.get(name, MISSING)) for name, given in value._asdict().items()})
    if isinstance(value, tuple):
        return [to_json(each) for each in value]
    return value


def _named(values: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Return an object of the values that are not their defaults."""
    return {name: to_json(given) for name, (given, default) in values.items() if given != default}


def from_json(kind: type[T], data: Any) -> T:
    """The value of that type that `to_json` made the data of. Raises ValueError for any other data."""
    try:
        return typing.cast(T, _decoded(kind, data))
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"not a {kind.__name__}: {error}") from None


def _decoded(kind: Any, data: Any) -> Any:
    kind = getattr(kind, "__supertype__", kind)  # what a NewType is made of
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return tuple(data) if isinstance(data, list) else data
    if origin in (Union, UnionType):
        return _decoded(_member(args, data), data)
    if origin is tuple:
        if not isinstance(data, list) or (args[-1] is not ... and len(data) != len(args)):
            raise TypeError(f"expected a list for {kind}")
        kinds = args[:1] * len(data) if args[-1] is ... else args
        return tuple(_decoded(each, item) for each, item in zip(kinds, data, strict=True))
    if origin is Literal:
        if data not in args:
            raise TypeError(f"expected one of {args}, found {data!r}")
        return data
    if is_dataclass(kind) or hasattr(kind, "_fields"):
        return _record(kind, data)
    if kind is float and type(data) is int:
        return float(data)
    if type(data) is not kind or (kind is float and not math.isfinite(data)):
        raise TypeError(f"expected {kind.__name__}, found {data!r}")
    return data


def _record(kind: Any, data: Any) -> Any:
    hints = _hints(kind)
    if unknown := data.keys() - hints.keys():
        raise UnknownField(f"not a {kind.__name__}, as it has {min(unknown)}")
    return kind(**{name: _decoded(hints[name], given) for name, given in data.items()})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _member(members: tuple[Any, ...], data: Any) -> Any:
    """The member of a union that the data is of: None, a text, or the only one that is neither."""
    if data is None:
        return type(None)
    if isinstance(data, str) and str in members:
        return str
    if isinstance(data, dict) and Secret in members:
        return Secret
    others = [member for member in members if member not in (type(None), str)]
    if not others:
        raise TypeError(f"expected one of {members}, found {data!r}")
    return others[0]
