"""Push images to a registry, and explain the answers of registries."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from skelebot import console, foreground, process
from skelebot.errors import Interrupted, SkelebotError
from skelebot.model import Task
from skelebot.runners.docker.client import BuiltImage, Client
from skelebot.runners.docker.labels import DIRTY_LABEL, REVISION_LABEL

Env = tuple[tuple[str, str], ...]

_PATIENCE = 10.0  # seconds for a registry to accept or refuse a login
_NO_TAG = "skelebot-doctor"


class Refused(SkelebotError):
    """The registry demands a login, or one with other rights."""


def push(
    client: Client, server: str, found: BuiltImage, references: Sequence[str], task: Task, env: Env
) -> str:
    """Push an image under each name and return its digest; the names stay with the engine.

    env: the client's login. Raises Refused, and SkelebotError for any other answer of the registry.
    """
    digests: list[str] = []
    try:
        for reference in references:
            with _named(client, found, reference, task):
                digests.append(_push_one(client, server, reference, env))
    except (SkelebotError, Interrupted):
        if done := len(digests):
            console.warn(f"published: {', '.join(references[:done])}; not: {', '.join(references[done:])}")
        raise
    if len(set(digests)) > 1:  # everyone shares the names on the engine
        raise SkelebotError(f"someone else published to {server} under the same names meanwhile; run again")
    return digests[0]


@contextmanager
def _named(client: Client, found: BuiltImage, reference: str, task: Task) -> Iterator[None]:
    """Give an image another name; if the block fails, its former image gets the name back."""
    with _name_restored(client, reference, task):
        client.query("tag", found.id, reference)
        yield


@contextmanager
def _name_restored(client: Client, reference: str, task: Task) -> Iterator[None]:
    """If the block fails, the name goes back to the image that had it."""
    before = client.inspect(reference, task)
    try:
        yield
    except BaseException:
        with foreground.uninterrupted():
            client.capture(*(("tag", before.id, reference) if before else ("rmi", reference)))
        raise


def _push_one(client: Client, server: str, reference: str, env: Env) -> str:
    code, lines = process.tee(client.step("push", reference, env=env), _printer())
    digest = re.search(r"digest: (sha256:[0-9a-f]{64})", "\n".join(lines))
    if code != 0 or digest is None:
        raise explained(lines, server, reference, "{reference} could not be pushed")
    return digest[1]


def _printer() -> Callable[[str], None]:
    """Print the lines of a push: of a countdown the first, and no refusal, as a login may follow."""
    begun: set[str] = set()

    def print_line(line: str) -> None:
        beginning = re.sub(r" in \d+ seconds?$", "", line)
        if (
            beginning not in begun
            and not re.search(r": (Preparing|Waiting)$", line)
            and not _is_refusal(line)
        ):
            console.detail(line)
        begun.add(beginning)

    return print_line


# --- what a registry has ---


class _Different(Exception):
    """The registry has another image under the name."""


def published_image(
    client: Client, server: str, found: BuiltImage, reference: str, task: Task, env: Env
) -> tuple[str, BuiltImage] | None:
    """The image that the registry has by that name, after its digest; None where the name is free.

    It is this one, or one that differs in its commit alone. Where the login may not pull, a warning says so,
    and the name counts as free. Raises SkelebotError where it is another one or the registry cannot be
    reached.
    """
    try:
        with _name_restored(client, reference, task):
            digest = _pull(client, server, reference, env)
            there = client.inspect(reference, task) if digest else None
            if there and not _is_same(there, found):
                raise _Different
    except _Different:
        raise SkelebotError(
            f"{reference} is already published with other content; change the version with `skelebot bump`, "
            "or replace it with -f"
        ) from None
    if not (digest and there):
        return None
    commit = there.labels.get(REVISION_LABEL, "")
    is_other = commit not in ("", found.labels.get(REVISION_LABEL))
    console.info(f"{reference} is already published{f', from commit {commit[:12]}' if is_other else ''}")
    return digest, there


def _is_same(one: BuiltImage, other: BuiltImage) -> bool:
    """Whether two images differ in nothing but the commit that they name."""
    if one.id == other.id:
        return True
    return bool(one.layers) and _without_commit(one) == _without_commit(other)


def _without_commit(image: BuiltImage) -> BuiltImage:
    labels = {n: v for n, v in image.labels.items() if n not in (REVISION_LABEL, DIRTY_LABEL)}
    return replace(image, id="", labels=labels)


def _pull(client: Client, server: str, reference: str, env: Env) -> str | None:
    """Pull an image of which the engine has every layer, and return its digest; None where there is none.

    The engine reaches the registry as a push does, which the client may not. Raises _Different as soon as
    a layer would have to be fetched, so that nothing large is.
    """
    step = client.step("pull", reference, env=env)
    process.trace(client.verbose, step)
    code, lines = process.tee(step, _refuse_new_layer)
    said = "\n".join(lines)
    if digest := re.search(r"^Digest: (sha256:[0-9a-f]{64})", said, re.MULTILINE):
        return digest[1]
    if code == 0 or _is_missing(said):
        return None
    error = explained(lines, server, reference, "{server} could not be asked for {reference}")
    if not isinstance(error, Refused):
        raise error
    # Many registries answer the same for a repository that the push will create; without a login, it fails.
    if env or _has_login(client, server):
        console.warn(
            f"{server} does not let this login see whether {reference} is already published "
            f"({_last_line(lines)}); it is pushed unseen"
        )
    return None


def _has_login(client: Client, server: str) -> bool:
    """Whether the registry accepts the client's own login; without a terminal it asks for no other."""
    try:
        return process.capture(client.step("login", server), _PATIENCE)[0] == 0
    except TimeoutError:
        return False


def _refuse_new_layer(line: str) -> None:
    if line.endswith(": Pulling fs layer"):
        raise _Different


def _is_missing(said: str) -> bool:
    return re.search(r"manifest unknown|not found|name unknown", said.lower()) is not None


def check_login(client: Client, server: str, repository: str, env: Env) -> None:
    """Ask the registry for a tag that does not exist, to see whether it accepts the login.

    Raises Refused, and SkelebotError where the registry cannot be reached.
    """
    reference = f"{repository}:{_NO_TAG}"
    try:
        code, _, said = process.capture(client.step("pull", reference, env=env), _PATIENCE)
    except TimeoutError:
        raise SkelebotError(
            f"{server} did not answer within {console.counted(_PATIENCE, 'second')}; check that it is up"
        ) from None
    if code != 0 and not _is_missing(said):
        raise explained(said.splitlines(), server, repository, "{server} could not be asked")


# --- what a registry's answer means ---

# Amazon ECR, Harbor, Google's Artifact Registry, Docker Hub and Mirantis use the word; Nexus has its own.
# TAG_INVALID is the code of Amazon's answer, of which clients show either spelling. The others answer with
# codes that mean other refusals too, and the client shows no HTTP status.
_IMMUTABLE = r"immutab|\btag[ _]invalid\b|does not allow updating"

_MEANINGS = (
    (
        _IMMUTABLE,
        "{server} lets no tag be replaced and already has {reference}; change the version with "
        "`skelebot bump`, and leave out the tag latest with -l",
    ),
    (
        r"http response to https client",
        "{server} speaks http, which Docker accepts only from this machine; use https, or add it to the "
        "engine's insecure-registries",
    ),
    (
        r"x509|certificate",
        "the engine does not trust the certificate of {server}; copy its CA to "
        "/etc/docker/certs.d/{server}/ca.crt on the engine's machine",
    ),
    (
        r"name unknown|name_unknown|repository .*(does not exist|not found)",
        "{server} has no repository for {reference}; create it there first",
    ),
    (
        r"dial tcp|no such host|refused|time-?out|deadline|unreachable|eof|reset|broken pipe|no route",
        "{server} cannot be reached from the Docker engine; check components.registry and the network",
    ),
)


_REFUSALS = (
    r"no basic auth credentials|unauthorized|authentication required|denied|forbidden|incorrect username"
    r"|status: 40[13]|token has expired|insufficient.scope"
)


def _is_refusal(line: str) -> bool:
    return re.search(_REFUSALS, line.lower()) is not None


def _last_line(lines: Sequence[str]) -> str:
    last = next((line.strip() for line in reversed(lines) if line.strip()), "without a message")
    return last.removeprefix("Error response from daemon: ")


def explained(lines: Sequence[str], server: str, reference: str, otherwise: str) -> SkelebotError:
    """The error for the last line of a failed client, with what to do.

    otherwise: the text for a line that is not known.
    """
    said = _last_line(lines)
    if "no basic auth credentials" in said:
        return Refused(f"{server} requires a login ({said})")
    if _is_refusal(said) and not re.search(_IMMUTABLE, said.lower()):
        return Refused(f"{server} refuses {reference} ({said}); check the user, the password and the rights")
    if any("Retrying in" in line for line in lines):
        text = "the push of {reference} was cut off; run again: {server} keeps what has arrived"
    else:
        known = (text for pattern, text in _MEANINGS if re.search(pattern, said.lower()))
        text = next(known, otherwise)
    return SkelebotError(f"{text.format(server=server, reference=reference)} ({said})")
