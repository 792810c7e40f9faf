"""Who installs the packages, with which command line, in an image and natively."""

import pytest

from skelebot.image import dockerfile, installer
from skelebot.image.dependencies import Dependency


def test_uv_takes_the_best_version_of_all_indexes_as_pip_does() -> None:
    uv = "/bin/uv pip install --index-strategy unsafe-best-match --python /v/python"
    assert installer.command("/v/python", "/bin/uv") == tuple(uv.split())
    assert installer.command("/v/python", None)[:4] == ("/v/python", "-m", "pip", "install")
    assert installer.command("/v/python", None, ("mine",))[:2] == ("mine", "install")


def test_image_and_native_environment_have_one_command_line() -> None:
    text = "\n".join(installer.steps(None))
    assert " ".join(installer.command("python", "uv")[:-1]) in text
    assert " ".join(installer.command("python", None)) in text
    alone = "\n".join(installer.steps("r.txt:1: --pre"))
    assert "r.txt:1: --pre" in alone
    assert "uv pip" not in alone


def test_one_entry_for_pip_is_enough() -> None:
    entries = (Dependency("a", ("a",)), Dependency("b", ("b",), only_pip="b.tgz"))
    assert installer.only_pip(entries) == "b.tgz"
    assert installer.only_pip(entries[:1]) is None


@pytest.mark.parametrize(
    ("output", "entry", "has_hint"),
    [
        ("  No solution found when resolving dependencies:", "proj:a.toml", True),
        ("ERROR: ResolutionImpossible: for help", "proj:a.toml", True),
        ("ResolutionImpossible", "proj:a.toml[cpu]", False),
        ("ResolutionImpossible", "numpy", False),
        ("no space left on device", "proj:a.toml", False),
    ],
)
def test_extras_that_exclude_each_other_are_named(output: str, entry: str, has_hint: bool) -> None:
    hint = installer.conflict_hint(output, ("six", entry))
    assert ("proj:a.toml[EXTRA]" in hint) is has_hint


def test_inherited_settings_are_in_force_at_each_run_and_nowhere_else() -> None:
    lines = ["FROM a", "RUN skelebot-install six", 'RUN ["ls", "-l"]', "COPY . /app/", "# RUN"]
    env = (("A", "/x"),)
    assert dockerfile.with_inherited_settings(lines, "type=cache", ("type=secret",), env) == [
        "FROM a",
        "RUN --mount=type=cache --mount=type=secret export A=/x; skelebot-install six",
        'RUN --mount=type=secret ["env", "A=/x", "ls", "-l"]',
        "COPY . /app/",
        "# RUN",
    ]
