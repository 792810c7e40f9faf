"""The order of versions: that of https://semver.org, with builds compared too."""

import re
from typing import TypeAlias

_ID = r"[0-9A-Za-z-]+"
_PRE_ID = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_NUMBER = r"(0|[1-9][0-9]*)"
_FORM = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-({_PRE_ID}(?:\.{_PRE_ID})*))?(?:\+({_ID}(?:\.{_ID})*))?"
)

_Ids: TypeAlias = tuple[tuple[bool, int, str], ...]
# The numbers; whether it is a release; the pre-release; the build.
Precedence: TypeAlias = tuple[tuple[int, int, int], bool, _Ids, _Ids]


def precedence(version: str) -> Precedence | None:
    """What orders a version among others, or None if the text is not a version.

    Versions that are equal to SemVer are ordered by their builds, which are compared as pre-releases are;
    one without a build is the lowest.
    """
    match = _FORM.fullmatch(version)
    if match is None:
        return None
    major, minor, patch, pre, build = match.groups()
    return (int(major), int(minor), int(patch)), not pre, _ids(pre), _ids(build)


def _ids(text: str | None) -> _Ids:
    """Numbers are compared as numbers, and are lower than words."""
    ids = text.split(".") if text else ()
    return tuple((False, int(i), i) if i.isdigit() else (True, 0, i) for i in ids)


def is_above(version: Precedence, other: Precedence) -> bool:
    """Whether a version is higher as SemVer compares them, which ignores builds."""
    return version[:3] > other[:3]
