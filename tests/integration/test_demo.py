"""The picture in the README shows what the program prints today."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Sandbox, docker, with_skelebot
from test_docs import ROOT

pytestmark = pytest.mark.engine

DEMO = ROOT / "docs" / "demo.svg"
REFRESH = "SKELEBOT_TEST_PICTURE=docs/demo.svg tests/run.sh -- tests/integration/test_demo.py"


@pytest.fixture
def image() -> Iterator[str]:
    """A base image with the example's dependencies; what is built from it goes again."""
    name = os.environ.get("SKELEBOT_TEST_SCIENCE", "")
    if not name:
        pytest.skip("no image with scikit-learn (SKELEBOT_TEST_SCIENCE)")
    yield name
    label = "label=skelebot.project=Irises"
    if built := docker("images", "-q", "--filter", label).split():
        docker("rmi", "-f", *built, check=False)


def test_the_picture_in_the_readme_is_what_the_program_prints(
    sandbox: Sandbox, image: str, tmp_path: Path
) -> None:
    drawn = tmp_path / "demo.svg"
    words = [sys.executable, str(ROOT / "docs" / "make_demo.py"), str(drawn)]
    env = with_skelebot(sandbox).with_env(SKELEBOT_BASE_IMAGE=image).env
    subprocess.run(words, env=dict(env), check=True)
    if target := os.environ.get("SKELEBOT_TEST_PICTURE"):
        shutil.copy(drawn, ROOT / target)
    assert without_figures(drawn) == without_figures(DEMO), f"docs/demo.svg is stale; refresh it: {REFRESH}"


def without_figures(picture: Path) -> str:
    """The picture without the accuracy, which depends on the version of scikit-learn."""
    return re.sub(r"\b0\.\d{2,}", "0.", picture.read_text(encoding="utf-8"))
