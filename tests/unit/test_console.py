"""What Skelebot prints shows no password of an address."""

import pytest

from skelebot import console


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:s3cret@host/x", "https://user:***@host/x"),
        ("git+ssh://u:p%40q:r@host", "git+ssh://u:***@host"),
        ("a tcp://u:p@ss@h:1 and https://:p@h", "a tcp://u:***@h:1 and https://:***@h"),
        ("https://ghp_0123456789abcdefghij@github.com/o/r", "https://***@github.com/o/r"),
        ("https://user@host:80/a@b", "https://user@host:80/a@b"),
        ("ssh://git@host", "ssh://git@host"),
        ("https://u:${PIP_TOKEN}@h https://u:$T@h", "https://u:${PIP_TOKEN}@h https://u:$T@h"),
        ("http://host:8080/?mail=a@b.c", "http://host:8080/?mail=a@b.c"),
        ('{"a":"http://h:1","b":"x@y"}', '{"a":"http://h:1","b":"x@y"}'),
        ("user:pass@host", "user:pass@host"),
    ],
)
def test_a_password_in_an_address_is_masked(
    text: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert console.masked(text) == shown
    for show in (console.info, console.error, console.detail, console.out):
        show(text)
    printed = capsys.readouterr()
    assert [line.removeprefix("INFO  | ").removeprefix("ERROR | ") for line in printed.err.splitlines()] == [
        shown
    ] * 3
    assert printed.out == f"{shown}\n"
