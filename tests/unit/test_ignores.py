"""The patterns of files that an image leaves out mean what they mean in a .dockerignore."""

import os
from pathlib import Path

import pytest

from skelebot.errors import UsageError
from skelebot.image import ignores
from skelebot.image.context import walk
from skelebot.image.ignores import DEFAULTS, Ignores

from .helpers import run_cli, write

# The examples of https://docs.docker.com/build/concepts/context/#dockerignore-files, and what follows
# from the text there.
EXCLUDED = [
    (["*/temp*"], ["a/temp", "a/temporary.txt", "a/temp/b"], ["temp", "a/b/temp"]),
    (["*/*/temp*"], ["a/b/temp", "a/b/temporary.txt"], ["a/temp", "a/b/c/temp"]),
    (["temp?"], ["tempa", "tempb", "tempa/x"], ["temp", "tempab", "a/tempa"]),
    (["**/*.go"], ["a.go", "a/b.go", "a/b/c.go"], ["a.gox", "a/go"]),
    (["*.md", "!README.md"], ["a.md", "b.md"], ["README.md", "a/b.md"]),
    (["*.md", "!README*.md", "README-secret.md"], ["a.md", "README-secret.md"], ["README.md", "README-a.md"]),
    (["*.md", "README-secret.md", "!README*.md"], ["a.md"], ["README.md", "README-secret.md"]),
    (["foo/bar"], ["foo/bar", "foo/bar/x"], ["foo", "bar", "a/foo/bar", "foo/barn"]),
    (["/foo/bar"], ["foo/bar"], ["foo"]),
    (["foo/bar/"], ["foo/bar", "foo/bar/x"], ["foo"]),
    (["./foo"], ["foo", "foo/x"], ["foox"]),
    (["a/../foo"], ["foo"], ["a"]),
    (["  foo  "], ["foo"], ["  foo  "]),
    (["# comment", "foo"], ["foo"], ["# comment", "comment"]),
    (["", "   ", "."], [], ["a", "."]),
    (["*"], ["a", "a/b", ".hidden"], []),
    (["*", "!src"], ["a", "b/src"], ["src", "src/x/y"]),
    (["*", "!src/**"], ["a", "src"], ["src/x", "src/x/y"]),
    (["!src", "*"], ["a", "src", "src/x"], []),
    (["foo/**"], ["foo/a", "foo/a/b"], ["foo", "a/foo/b"]),
    (["**/foo"], ["foo", "a/foo", "a/b/foo", "a/foo/b"], ["afoo", "foox"]),
    (["**"], ["a", "a/b"], []),
    (["a/**/z"], ["a/z", "a/b/z", "a/b/c/z"], ["z", "b/a/z", "a/bz"]),
    (["**/.git"], [".git", "a/.git/config"], [".gitignore", "a.git"]),
    (["[ab].txt"], ["a.txt", "b.txt"], ["c.txt", "[ab].txt"]),
    (["[^a].txt"], ["b.txt"], ["a.txt"]),
    (["[a-c]"], ["a", "c"], ["d", "-"]),
    (["a[[]1]", "[a[]b"], ["a[1]", "ab", "[b"], ["a1", "a[[]1]"]),
    (["[a&&b]", "**/[~~|]"], ["a", "b", "&", "x/~", "|"], ["&&", "~~"]),
    (["\\*.txt"], ["*.txt"], ["a.txt"]),
    (["\\!a"], ["!a"], ["a"]),
    (["\\#a"], ["#a"], ["a"]),
    (["a.b+c(d)|{e}$"], ["a.b+c(d)|{e}$"], ["axb+c(d)|{e}$"]),
    (["a*"], ["a", "ab", "a\nb"], ["ba"]),
    (["a b"], ["a b"], ["a", "b"]),
    (["é?"], ["éa"], ["é"]),
    (["foo", "! foo/keep"], ["foo", "foo/x"], ["foo/keep"]),
    # An exception that begins with no folder's name reaches into none that is left out.
    (["*", "!**/*.py"], ["sub/s.py", "a/b/s.py", "s.txt"], ["s.py"]),
    (["sub", "!*/s.py"], ["sub/s.py"], ["s.py"]),
    (["*", "!sub/**/*.py"], ["sub/a.txt", "other/s.py", "sub/a/s.py"], ["sub/s.py"]),
    # More stars than a regular expression can bear.
    (["*a*b*c*"], ["abc", "xaxbxcx", "abc/d"], ["acb", "ab/c"]),
    (["**/a/**/b/**/c"], ["a/b/c", "x/a/y/b/z/z/c", "a/b/c/d"], ["a/c/b", "xa/b/c"]),
    (["**/a**/b**/c*"], ["ab/c", "ac/abc", "x/a/y/b/z/cd"], ["b/a/c", "a/bd/e"]),
    (["*/*/*/**"], ["a/b/c/d", "a/b/c/d/e"], ["a/b", "a/b/c"]),
    (["\\**?*[ab]*.x"], ["*1a.x", "*zzbzz.x/y"], ["1a.x", "*a.x", "*1c.x"]),
]


@pytest.mark.filterwarnings("error")  # such as those of Python for what it may read otherwise one day
@pytest.mark.parametrize(("patterns", "out", "kept"), EXCLUDED, ids=lambda value: ",".join(value) or "none")
def test_the_patterns_mean_what_they_mean_to_docker(
    patterns: list[str], out: list[str], kept: list[str]
) -> None:
    rules = Ignores(patterns)
    assert [path for path in (*out, *kept) if rules.excludes(path)] == out


@pytest.mark.parametrize("pattern", ["**/a" * 40 + "/b", "*a" * 40 + "b", "**/*a*/" * 20 + "b"])
@pytest.mark.parametrize("exception", [(), ("!x",)])
def test_many_stars_do_not_take_forever(pattern: str, exception: tuple[str, ...]) -> None:
    """With a regular expression they would take years."""
    for path in ("a" * 200 + "c", "a/" * 100 + "c"):
        assert not Ignores((pattern, *exception)).excludes(path)
        assert not Ignores((pattern, *exception)).excludes_entry(path, path.rpartition("/")[2])


@pytest.mark.parametrize("pattern", ["[", "a[b", "[b-a]", "*a*b*["])
def test_a_pattern_that_is_none_is_told(pattern: str) -> None:
    with pytest.raises(UsageError, match="is not a pattern"):
        Ignores([pattern])


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        "sub/.git/HEAD",
        ".env",
        "a/.env",
        "x/__pycache__/y.pyc",
        "a.pyc",
        ".venv/bin/python",
        ".skelebot/x",
    ],
)
def test_what_no_image_wants_is_left_out_unless_it_is_asked_for(path: str) -> None:
    assert Ignores(DEFAULTS).excludes(path)
    assert not Ignores((*DEFAULTS, f"!{path}")).excludes(path)


@pytest.mark.parametrize(
    "name", ["a", "*.txt", "a[1]?", "!a", "#a", "a\\b", "a b", "{a}$(x)", "a ", " a", "  a\t\n", " "]
)
def test_a_literal_pattern_matches_its_own_path_alone(name: str) -> None:
    rules = Ignores([ignores.literal(name)])
    assert rules.excludes(name)
    assert not rules.excludes("a.txt")
    assert not rules.excludes("b")


def test_the_users_own_dockerignore_is_read(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_bytes(b"\xef\xbb\xbfa\r\n# comment\r\n!b\r\n")
    rules = Ignores(("b", *ignores.of_user(str(tmp_path))))
    paths = ("a", "b", "# comment", "comment")
    assert [path for path in paths if rules.excludes(path)] == ["a"]


def test_no_dockerignore_ignores_nothing(tmp_path: Path) -> None:
    assert ignores.of_user(str(tmp_path)) == ()


def test_a_dockerignore_in_bytes_names_files_in_bytes(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_bytes(b"caf\xe9\n")
    assert ignores.of_user(str(tmp_path)) == ("caf\udce9",)


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_a_dockerignore_that_cannot_be_read_is_reported(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ".dockerignore"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(UsageError, match=r"\.dockerignore cannot be read: is "):
        ignores.of_user(str(tmp_path))


def test_the_check_of_a_source_agrees_with_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "name: demo\nignores: ['*', '!**/*.py']\njobs: [{name: a, source: sub/s.py, help: A}]\n")
    write(tmp_path, "", "sub/s.py")
    monkeypatch.chdir(tmp_path)
    assert run_cli(["--dry-run", "a"]) == 2
    assert "sub/s.py is left out of the image" in capsys.readouterr().err
    assert run_cli(["-n", "--dry-run", "a"]) == 0  # natively there is no image
    assert [e.path for e in walk(str(tmp_path), Ignores(("*", "!**/*.py")))] == []
