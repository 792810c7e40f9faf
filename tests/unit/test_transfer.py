"""An image of a recorded run on another engine, whose store may give it another id."""

import json
from pathlib import Path
from typing import Any

import pytest

from skelebot.errors import SkelebotError
from skelebot.model import Image
from skelebot.runners.docker.client import Client
from skelebot.runners.docker.transfer import receive

OWN, OTHER = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
IMAGE = Image("demo:latest", "demo", base="", context="/p", pinned=OWN)

# Answers for the default engine and for another by files: `here image inspect ...` as its words are.
SCRIPT = """\
#!/bin/sh
where=here
[ "$1" = --host ] && where=there && shift 2
echo "$where $*" >>{folder}/calls
for last; do :; done
case "$where $*" in
*" --format {{{{.Size}}}}"*) echo 1000 amd64 ;;
*version*) cat {folder}/arch ;;
*" tag "*) ;;
"there images "*) cat {folder}/listed ;;
*inspect*) cat "{folder}/$where-$last" 2>/dev/null || {{ echo "No such image" >&2; exit 1; }} ;;
"here save "*) echo archive ;;
"there load") cat >/dev/null; cp {folder}/here-$(cat {folder}/loaded) {folder}/there-$(cat {folder}/loaded) ;;
esac
"""


class Engines:
    """Two engines, behind one program."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "client").write_text(SCRIPT.format(folder=folder))
        (folder / "client").chmod(0o755)
        for name, text in (("arch", "amd64"), ("listed", ""), ("loaded", OWN)):
            (folder / name).write_text(f"{text}\n")

    def has(self, where: str, id: str, **facts: Any) -> None:
        config = {"Labels": {"skelebot.project": "demo"}, "Env": ["A=1"], "User": "", "WorkingDir": "/app"}
        known = {"Id": id, "Created": "2026-01-01", "Architecture": "amd64", "RootFS": {"Layers": ["a", "b"]}}
        (self.folder / f"{where}-{id}").write_text(json.dumps({**known, "Config": config, **facts}))
        if where == "there":
            (self.folder / "listed").write_text(f"{id}\n")

    def receive(self) -> str:
        return receive(Client("tcp://there"), Client(None), IMAGE, "run-1")

    def calls(self, *words: str) -> list[str]:
        lines = (self.folder / "calls").read_text().splitlines()
        return [line for line in lines if line.split(" ")[1] in words]


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engines:
    found = Engines(tmp_path)
    monkeypatch.setenv("SKELEBOT_DOCKER", str(tmp_path / "client"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found.has("here", OWN)
    return found


def test_an_image_is_sent_that_is_missing(engines: Engines) -> None:
    assert engines.receive() == OWN
    assert sorted(engines.calls("save", "load")) == ["here save demo:run-1", "there load"]  # at once
    assert engines.calls("tag") == [f"here tag {OWN} demo:run-1", f"there tag {OWN} demo:run-1"]
    assert engines.receive() == OWN
    assert len(engines.calls("load")) == 1


def test_the_same_image_may_have_another_id(engines: Engines) -> None:
    engines.has("there", OTHER)
    assert engines.receive() == OTHER
    assert engines.calls("save", "load") == []
    assert engines.calls("tag") == [f"there tag {OTHER} demo:run-1"]


@pytest.mark.parametrize("facts", [{"Created": "2026-01-02"}, {"RootFS": {"Layers": ["a"]}}])
def test_another_image_is_not_taken_for_it(engines: Engines, facts: dict[str, Any]) -> None:
    engines.has("there", OTHER, **facts)
    assert engines.receive() == OWN
    assert len(engines.calls("load")) == 1


def test_an_image_for_another_processor_is_not_sent(engines: Engines) -> None:
    (engines.folder / "arch").write_text("arm64\n")
    with pytest.raises(SkelebotError, match="is for amd64, and tcp://there has arm64; leave out"):
        engines.receive()
    assert engines.calls("save", "load") == []


def test_an_image_that_did_not_arrive_is_reported(engines: Engines) -> None:
    (engines.folder / "loaded").write_text("nothing\n")
    with pytest.raises(SkelebotError, match=r"could not be sent|does not have the image"):
        engines.receive()
