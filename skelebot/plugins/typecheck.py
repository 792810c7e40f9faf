"""Check the values that a plugin's hooks return against the types they are declared to have."""

import re
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")

MOST = 1000  # values that a hook may return


def list_of(values: Iterable[T], cls: type[T]) -> list[T]:
    """The values as a list. Raises TypeError, and ValueError for an iterator that may have no end."""
    found = [instance_of(value, cls) for value in islice(values, MOST + 1)]
    if len(found) > MOST:
        raise ValueError(f"a hook returned more than {MOST} values")
    return found


def instance_of(value: T, cls: type[T]) -> T:
    """The value itself. Raises TypeError unless it and each of its fields have their declared type.

    The error names types alone: a field may hold a secret.
    """
    if not isinstance(value, cls):
        raise TypeError(f"a hook returned {type(value).__name__}, not {cls.__name__}")
    for name, want in _declared(cls):
        found = getattr(value, name)
        if not _fits(found, want):
            raise TypeError(f"{cls.__name__}.{name} is {_type_of(found)}, not {_name_of(want)}")
    return value


def _declared(cls: Any) -> list[tuple[str, Any]]:
    """Return the fields of a dataclass or a named tuple, with their types."""
    return [(f.name, f.type) for f in fields(cls)] if is_dataclass(cls) else [*cls.__annotations__.items()]


def _type_of(value: object) -> str:
    inside = sorted({type(each).__name__ for each in value}) if isinstance(value, (tuple, list)) else ()
    return type(value).__name__ + (f" of {' and '.join(inside)}" if inside else "")


def _name_of(want: Any) -> str:
    text = str(want) if typing.get_args(want) else want.__name__
    return re.sub(r"[\w.]+\.(?=\w)", "", text)  # without the names of modules


def _fits(value: object, want: Any) -> bool:
    want = getattr(want, "__supertype__", want)  # what a NewType is made of
    origin, inside = typing.get_origin(want), typing.get_args(want)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, option) for option in inside)
    if origin is typing.Literal:
        return value in inside
    if origin is tuple and inside[-1] is not Ellipsis:
        return isinstance(value, tuple) and len(value) == len(inside) and all(map(_fits, value, inside))
    if origin in (tuple, frozenset, Sequence):
        return isinstance(value, origin) and all(_fits(each, inside[0]) for each in value)
    if is_dataclass(want) or hasattr(want, "_fields"):
        own = isinstance(value, typing.cast(type, want))
        return own and all(_fits(getattr(value, name), its) for name, its in _declared(want))
    if want is float:
        return isinstance(value, (int, float))
    return want is Any or isinstance(value, origin or want)
