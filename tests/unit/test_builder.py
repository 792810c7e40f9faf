"""What people see of a build."""

import pytest

from skelebot.runners.docker import builder


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("Step 3/9 : RUN pip install six", ("3/9", "RUN pip install six")),
        ("#7 [3/9] RUN pip install six", ("3/9", "RUN pip install six")),
        ("#7 [stage-1 3/9] COPY . /app/", ("3/9", "COPY . /app/")),
        ("\x1b[91mStep 1/2 : FROM x\x1b[0m", ("1/2", "FROM x")),
        ("#1 [internal] load build definition", None),
        ("#7 DONE 0.1s", None),
        (" ---> Running in 021bc7dd0600", None),
    ],
)
def test_the_steps_of_either_builder(line: str, step: tuple[str, str] | None) -> None:
    match = builder._STEP.match(builder._ESCAPES.sub("", line))
    assert (match and (match[1] or match[2], match[3])) == step


def test_the_builders_lines_come_without_escapes_and_advice(capsys: pytest.CaptureFixture[str]) -> None:
    for line in (
        "\x1b[91mwarning\x1b[0m",
        "DEPRECATED: The legacy builder is ...",
        f"Step 1/2 : RUN {'x' * 500}",
    ):
        builder._show_line(line)
    assert capsys.readouterr().err == f"warning\nStep 1/2 : RUN {'x' * 105} ...\n"


def test_a_long_step_is_one_short_line() -> None:
    assert builder._shortened("x" * 200) == "x" * 77 + "..."
