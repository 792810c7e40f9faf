"""Jinja in its sandbox, which replaces the variables in the texts of a template."""

import json
import traceback
from collections.abc import Mapping

from jinja2 import StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

from skelebot.components.scaffold.limits import within_limits
from skelebot.errors import ConfigError
from skelebot.keys import image_name

Answers = Mapping[str, str]


class Renderer:
    """The answers are the variables; an unknown variable is an error."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self._jinja = SandboxedEnvironment(
            undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
        )
        self._jinja.filters |= {"quoted": _quoted, "slug": image_name}

    def content(self, content: bytes, name: str) -> bytes:
        """Render the content of a file of the template. Raises ConfigError."""
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise ConfigError([f"{name}: this is not UTF-8; `render: false` copies it unchanged"]) from None
        return self.text(text, name, 0).encode()

    def text(self, text: str, place: str, above: int | None = None) -> str:
        """Render a text. Raises ConfigError.

        above: for a text of several lines, how many lines of the file `place` stand above it.
        """
        if "{" not in text:
            return text
        return within_limits(lambda: self._render(text, place, above), place)

    def _render(self, text: str, place: str, above: int | None) -> str:
        jinja = self._jinja.overlay(newline_sequence="\r\n") if "\r\n" in text else self._jinja
        try:
            code = jinja.compile(text, filename=place)
            return jinja.template_class.from_code(jinja, code, dict(jinja.globals)).render(self.answers)
        except MemoryError:
            raise  # the process has reached its limit
        except Exception as error:  # a template can raise whatever its expressions do
            where = place if above is None else f"{place}:{above + _line(error, place)}"
            raise ConfigError([f"{where}: {_message(error)}"]) from None


def _quoted(value: object) -> str:
    """A text in double quotes, as YAML, JSON, Python and R read it."""
    return json.dumps(str(value), ensure_ascii=False)


def _line(error: Exception, place: str) -> int:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == place and frame.lineno]
    return int(getattr(error, "lineno", None) or (lines[-1] if lines else 1))


def _message(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())
