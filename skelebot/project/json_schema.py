"""The JSON Schema of skelebot.yaml, with which editors complete and check the file."""

import re
import types
import typing
from dataclasses import MISSING, is_dataclass
from typing import Any

from skelebot.keys import Pattern
from skelebot.model import Environment, Json, Sections
from skelebot.project.schema import FORMER, keys, of_mapping


def of(cls: type) -> dict[str, Any]:
    """The JSON Schema (draft 7) of a record: https://json-schema.org/draft-07/schema.

    What it requires is in `requirements`, because an environment's file need not be complete.
    """
    properties: dict[str, Any] = {}
    for name, field in keys(cls):
        described = _json_type(field.type, field.metadata["check"])
        properties[name] = {**described, "description": field.metadata["help"]}
        if field.metadata["old"]:
            old = {"deprecationMessage": f"Renamed to {name}"}
            properties[field.metadata["old"]] = {**properties[name], **old}
        if field.default is not MISSING:
            properties[name] = {"anyOf": [properties[name], {"type": "null"}]} | {
                "description": field.metadata["help"]
            }
    properties |= {name: {"deprecationMessage": f"It {text}"} for name, text in FORMER.get(cls, {}).items()}
    whole = {"type": "object", "properties": properties, "additionalProperties": False}
    short = [_json_type(f.type, f.metadata["check"]) for _, f in keys(cls) if f.metadata["short"]]
    return {"anyOf": [whole, *short]} if short else whole


def requirements(cls: type) -> dict[str, Any]:
    """The JSON Schema of the keys that a record must have, and the records in it."""
    required = [name for name, field in keys(cls) if field.default is MISSING]
    below = {name: inside for name, field in keys(cls) if (inside := _requirements_of(field.type))}
    return {
        **({"required": required} if required else {}),
        **({"properties": below} if below else {}),
    }


def _requirements_of(want: Any) -> dict[str, Any]:
    """The same of a type. A keyword says nothing of values that it is not for, as `items` of mappings."""
    if is_dataclass(want):
        return requirements(typing.cast(type, want))
    inside = typing.get_args(want)
    if (below := of_mapping(want)) is not None:
        needed = _requirements_of(below)
        return {"additionalProperties": needed} if needed else {}
    found = {
        key: value for each in inside if each is not Any for key, value in _requirements_of(each).items()
    }
    is_list = typing.get_origin(want) is tuple
    return {**found, **({"items": found} if found and is_list else {})}


def _pattern(check: Any) -> dict[str, str]:
    """Return the pattern of texts. With units, only the limit above zero can be said."""
    if not isinstance(check, Pattern):
        return {}
    above_zero = "(?=.*[1-9])" if check.measure and check.least > 0 else ""
    return {"pattern": f"^{above_zero}(?:{check.regex})$"}


def _limits(check: Any) -> dict[str, float]:
    """Return the limits of numbers."""
    has_limits = isinstance(check, Pattern) and check.measure
    return {"minimum": check.least, "maximum": check.most} if has_limits else {}


def _others_than_text(check: Any) -> list[str]:
    """Return the types of values that the reader takes for the text that they are written as."""
    if not isinstance(check, Pattern):
        return ["number", "boolean"]
    if not check.measure:  # what an editor reads as a number may be written otherwise, as 22:22
        return ["number", *(["boolean"] if check("true") is None else [])]
    return ["number" if re.fullmatch(check.regex, "0.5", re.ASCII) else "integer"]


def _json_type(want: Any, check: Any) -> dict[str, Any]:
    pattern = _pattern(check)
    simple: dict[Any, dict[str, Any]] = {
        str: {"type": ["string", *_others_than_text(check)], **pattern, **_limits(check)},
        bool: {"type": "boolean"},
        int: {"type": "integer", "minimum": 0, **_limits(check)},
        Environment: {
            "type": "object",
            "propertyNames": pattern,
            "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
        },
        Sections: {"type": ["object", "null"]},
        Json: {"type": ["object", "array"]},
    }
    if want in simple:
        return simple[want]
    if (below := of_mapping(want)) is not None:
        item = _json_type(below, None)
        return {"type": "object", "propertyNames": pattern, "additionalProperties": item}
    if is_dataclass(want):
        return of(typing.cast(type, want))
    origin, inside = typing.get_origin(want), typing.get_args(want)
    if origin is typing.Literal:
        return {"enum": list(inside)}
    if origin is tuple:
        item = _json_type(inside[0], check)
        if is_dataclass(inside[0]) and "name" in dict(keys(typing.cast(type, inside[0]))):
            item |= {"required": ["name"]}  # without a name, nothing in another file can be meant
        return {"anyOf": [{"type": "array", "items": item}, item]}
    options = [_json_type(w, check) for w in inside if w is not types.NoneType]
    return options[0] if len(options) == 1 else {"anyOf": options}
