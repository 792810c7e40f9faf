"""Names in a store, LATEST, and what is wrong with a repository's settings; all without a store."""

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from semver import Version

from skelebot.components.repository import names
from skelebot.components.repository.artifactory.http import base_url
from skelebot.components.repository.settings import Artifactory
from skelebot.errors import SkelebotError
from skelebot.project.read import parsed_version
from skelebot.project.versions import is_above, precedence

from .helpers import problems

# --- names ---


@pytest.mark.parametrize(
    ("file", "ending"),
    [
        ("models/m.pkl", ".pkl"),
        ("./models/m.pkl", ".pkl"),
        ("../m.pkl", ".pkl"),
        ("model.tar.gz", ".tar.gz"),
        ("a.b/model", ""),
        ("model", ""),
        (".hidden", ""),
        (".hidden.json", ".json"),
        ("..two.json", ".json"),
        ("model.", "."),
        ("models.v2/m.h5", ".h5"),
        ("näme.pkl", ".pkl"),
    ],
)
def test_the_extension_starts_at_the_first_dot_that_does_not_lead(file: str, ending: str) -> None:
    assert names.extension(file, is_folder=False) == ending


@pytest.mark.parametrize("file", ["models/", "models", "a.b/", "data.parquet"])
def test_a_folder_travels_as_an_archive(file: str) -> None:
    assert names.extension(file, is_folder=True) == ".tar.gz"


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("", "model", "1.4.0", ".pkl"), "model_v1.4.0.pkl"),
        (("staging/", "model", "1.4.0", ".tar.gz"), "staging/model_v1.4.0.tar.gz"),
        (("staging-", "model", "1.4.0-rc.1+b5", ""), "staging-model_v1.4.0-rc.1+b5"),
        (("", "model", None, ".pkl"), "model.pkl"),
        (("p/", "model", None, ""), "p/model"),
    ],
)
def test_keys(words: tuple[str, str, str | None, str], key: str) -> None:
    assert names.key(*words) == key


def test_versions_are_of_exactly_that_artifact() -> None:
    keys = [
        "model_v1.0.0.pkl",
        "model_v1.10.0-rc.1+b.pkl",
        "model_big_v1.0.0.pkl",
        "big_model_v1.0.0.pkl",
        "model_v1.0.0.pkl.gz",
        "model_v1.0.0.tar.pkl",
        "model_v1.0.0.h5",
        "model_v1.0.0",
        "model_v1.0.pkl",
        "model_v01.0.0.pkl",
        "model_vmodel_v1.0.0.pkl",
        "model_v1.0.0xpkl",
        "model_v1.0.0.pkl\n",
        "model.pkl",
        "p/model_v1.0.0.pkl",
    ]
    found = names.versions(keys, "", "model", ".pkl")
    assert list(found) == ["model_v1.0.0.pkl", "model_v1.10.0-rc.1+b.pkl"]


def test_a_name_is_no_pattern() -> None:
    assert names.versions(["axb_v1.0.0.pkl", "a.b_v1.0.0.pkl"], "", "a.b", ".pkl").keys() == {
        "a.b_v1.0.0.pkl"
    }


# --- LATEST ---


@pytest.mark.parametrize(
    ("project", "there", "expected"),
    [
        ("1.10.0", "1.9.0 1.10.0 1.2.0", "1.10.0"),
        ("1.11.0", "1.9.0 1.10.0", "1.10.0"),
        ("1.4.0", "1.4.0-rc.1 1.3.9", "1.4.0-rc.1"),
        ("1.4.0", "1.4.0 1.4.0-rc.1", "1.4.0"),
        ("1.4.0-rc.2", "1.4.0 1.4.0-rc.1 1.4.0-rc.10", "1.4.0-rc.1"),
        ("1.4.0", "2.0.0 1.5.0 1.4.1 0.9.0 1.0.0", "1.0.0"),
        ("1.4.0", "1.4.1-alpha 1.3.0", "1.3.0"),
        ("0.2.0", "0.1.0 1.0.0", "0.1.0"),
        ("2.0.0", "2.0.0-alpha.2 2.0.0-alpha.10 2.0.0-1", "2.0.0-alpha.10"),
        ("1.4.0", "1.4.0+build.5", "1.4.0+build.5"),
        # The project's own version if it is there, and else the highest build.
        ("1.0.0", "1.0.0+build.1 1.0.0+build.2 1.0.0+build.10 1.0.0", "1.0.0"),
        ("1.0.0+build.10", "1.0.0+build.1 1.0.0+build.2 1.0.0+build.10 1.0.0", "1.0.0+build.10"),
        ("1.0.0+build.2", "1.0.0+build.1 1.0.0+build.2 1.0.0+build.10 1.0.0", "1.0.0+build.2"),
        ("1.0.0+build.3", "1.0.0+build.1 1.0.0+build.2 1.0.0+build.10 1.0.0", "1.0.0+build.10"),
        ("1.0.1", "1.0.0+build.1 1.0.0+build.2 1.0.0+build.10 1.0.0", "1.0.0+build.10"),
        ("1.0.1", "1.0.0+9.z 1.0.0 1.0.0+9 1.0.0+10 1.0.0+a", "1.0.0+a"),
        ("1.0.0-rc.1+b", "1.0.0-rc.1+a 1.0.0-rc.1+b 1.0.0-rc.1+c 1.0.0", "1.0.0-rc.1+b"),
        ("1.0.0-rc.2", "1.0.0-rc.1+10 1.0.0-rc.1+9 1.0.0+1", "1.0.0-rc.1+10"),
    ],
)
def test_latest(project: str, there: str, expected: str) -> None:
    for order in (1, -1):
        found = names.versions([f"m_v{version}" for version in there.split()][::order], "", "m", "")
        assert names.latest(found, project) == f"m_v{expected}"


@given(
    st.lists(st.from_regex(r"[0-2]\.[0-2]\.[0-9]{1,2}(-[a-c0-2]{1,2}(\.[a-c0-2]{1,2})?)?", fullmatch=True))
)
def test_versions_are_ordered_as_semver_orders_them(texts: list[str]) -> None:
    """https://semver.org/#spec-item-11"""
    ranks = {text: precedence(text) for text in texts}
    assert {text for text in texts if ranks[text]} == {text for text in texts if Version.is_valid(text)}
    for one, two in product([text for text in texts if ranks[text]], repeat=2):
        first, second = ranks[one], ranks[two]
        assert first
        assert second
        assert is_above(first, second) == (Version.parse(one) > Version.parse(two))


def test_thousands_of_versions_are_ordered_in_seconds() -> None:
    keys = [f"model_v1.{n // 7}.{n}.pkl" for n in range(300_000)]
    found = names.versions(reversed(keys), "", "model", ".pkl")
    assert names.latest(found, "1.99999.0") == keys[-1]


@pytest.mark.parametrize("there", ["2.0.0 3.0.0", "1.4.1", "0.9.0"])
def test_no_compatible_version_lists_those_there_are(there: str) -> None:
    found = {version: version for version in there.split()}
    assert names.latest(found, "1.4.0") is None
    error = names.no_compatible_version(found, "1.4.0", "model")
    assert str(error).endswith(f"there are: {', '.join(there.split())}")


def test_without_any_version_the_error_says_what_to_do() -> None:
    error = names.no_compatible_version({}, "1.4.0", "model")
    assert "none at all; push one" in str(error)


@pytest.mark.parametrize("text", ["", "1.4", "v1.4.0", "1.4.0.0", "one", "1.4.0 beta", "01.4.0", "../1.4.0"])
def test_a_malformed_project_version(text: str) -> None:
    with pytest.raises(SkelebotError, match="VERSION"):
        parsed_version(text)


# --- the address of Artifactory ---


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("art.example.org", "https://art.example.org/artifactory"),
        ("art.example.org:8443/", "https://art.example.org:8443/artifactory"),
        ("https://art.example.org/artifactory/", "https://art.example.org/artifactory"),
        ("https://example.org/tools/art", "https://example.org/tools/art"),
        ("http://localhost:8081", "http://localhost:8081/artifactory"),
        ("http://127.0.0.1:8081", "http://127.0.0.1:8081/artifactory"),
        ("HTTP://[::1]:8081", "HTTP://[::1]:8081/artifactory"),
    ],
)
def test_addresses(url: str, expected: str) -> None:
    assert base_url(Artifactory(url, "r")) == expected


@pytest.mark.parametrize(
    "host",
    ["art.example.org", "localhost.example.org", "127.0.0.1.example.org", "10.0.0.1", "0.0.0.0", "[::2]"],
)
def test_http_is_for_loopback_unless_it_is_allowed(host: str) -> None:
    with pytest.raises(SkelebotError, match="http"):
        base_url(Artifactory(f"http://{host}", "r"))
    assert base_url(Artifactory(f"http://{host}", "r", insecure=True)) == f"http://{host}/artifactory"


@pytest.mark.parametrize(
    "url", ["ftp://example.org", "https://", "http://[", "https://a:b", "https://ada:lovelace@example.org"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(SkelebotError, match="fix `url`") as error:
        base_url(Artifactory(url, "r", insecure=True))
    assert "lovelace" not in str(error.value)


# --- settings ---


def _settings(*lines: str) -> str:
    return "\n".join(["name: a", "components:", "  repository:", *(f"    {line}" for line in lines), ""])


ONE = "artifacts: {name: model, file: m.pkl}"


@pytest.mark.parametrize(
    "lines",
    [
        ("local: ../store", ONE),
        ("local: {path: ../store}", "artifacts: [{name: model, file: m.pkl, singular: true}]"),
        ("s3: {bucket: b/models/, region: eu-west-1, profile: p, endpoint: 'http://localhost:1'}", ONE),
        ("artifactory: {url: art.example.org, repo: r, path: p/q}", ONE),
        ("artifactory: {url: u, repo: r, insecure: true, auth: {authType: apikey}}", ONE),
        ("artifactory: {url: u, repo: r, auth: {authType: api_key}}", ONE),
        (
            "artifactory:",
            "  url: u",
            "  repo: r",
            "  auth: {authType: token, aws: true, awsSecret: s, awsProfile: p, awsRegion: eu-west-1}",
            "artifacts: [{name: a, file: a.pkl}, {name: b, file: b/}]",
        ),
        ("local: ../store",),
    ],
)
def test_settings_that_load(tmp_path: Path, lines: tuple[str, ...]) -> None:
    assert problems(tmp_path, _settings(*lines)) == []


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((ONE,), "expected exactly one of s3, artifactory and local; found none"),
        (("s3: {bucket: b}", "local: ../store", ONE), "found s3 and local"),
        (("s3: {bucket: b}", "artifactory: {url: u, repo: r}", ONE), "found s3 and artifactory"),
        (("local: s", "artifacts: {name: ALL, file: m.pkl}"), "cannot be named ALL"),
        (("local: s", "artifacts: [{name: m, file: a}, {name: m, file: b}]"), "two artifacts named 'm'"),
        (("local: s", "artifacts: {name: m/../n, file: a}"), "expected a name"),
        (("local: s", "artifacts: {name: -m, file: a}"), "expected a name"),
        (("local: s", "artifacts: {name: m, file: ./}"), "is the whole project"),
        (("local: s", "artifacts: {name: m}"), "file"),
        (("local: {}", ONE), "path"),
        (("local: ''", ONE), "text that is not empty"),
        (("artifactory: {url: ' ', repo: r}", ONE), "text that is not empty"),
        (("artifactory: {url: u, repo: ''}", ONE), "text that is not empty"),
        (("s3: {bucket: /models}", ONE), "the name of a bucket"),
        (("s3: {region: r}", ONE), "bucket"),
        (("artifactory: {url: u}", ONE), "repo"),
        (("artifactory: {url: u, repo: r, auth: {authType: magic}}", ONE), "authType"),
        (("local: s", "artifact: {name: m, file: a}"), "artifact"),
    ],
)
def test_settings_with_a_mistake(tmp_path: Path, lines: tuple[str, ...], said: str) -> None:
    found = problems(tmp_path, _settings(*lines))
    assert len(found) == 1, found
    assert said in found[0]
    assert found[0].startswith("skelebot.yaml:")
