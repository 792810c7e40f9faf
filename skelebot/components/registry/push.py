"""`docker push` to a registry, and what the answers of registries mean."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from skelebot import console, foreground, process
from skelebot.errors import Interrupted, SkelebotError
from skelebot.model import Task
from skelebot.runners.docker.client import Client, Found

Env = tuple[tuple[str, str], ...]

_PATIENCE = 10.0  # seconds for a registry to say whether it takes a login
_NO_TAG = "skelebot-doctor"


class Refused(SkelebotError):
    """The registry wants a login, or one with other rights."""


def push(client: Client, server: str, found: Found, references: Sequence[str], task: Task, env: Env) -> str:
    """Pushes an image under each name and gives its digest; the names stay with the engine.

    env: the client's login. Raises Refused, and SkelebotError with what else the registry's answer means.
    """
    digests: list[str] = []
    try:
        for reference in references:
            with _named(client, found, reference, task):
                digests.append(_push(client, server, reference, env))
    except (SkelebotError, Interrupted):
        if done := len(digests):
            console.warn(f"published: {', '.join(references[:done])}; not: {', '.join(references[done:])}")
        raise
    if len(set(digests)) > 1:  # the names on the engine are everyone's
        raise SkelebotError(f"somebody else published to {server} by the same names meanwhile; run again")
    return digests[0]


@contextmanager
def _named(client: Client, found: Found, reference: str, task: Task) -> Iterator[None]:
    """Gives an image another name, which goes back to what had it where the block fails."""
    before = client.inspect(reference, task)
    client.answer("tag", found.id, reference)
    try:
        yield
    except BaseException:
        with foreground.uninterrupted():
            client.capture(*(("tag", before.id, reference) if before else ("rmi", reference)))
        raise


def _push(client: Client, server: str, reference: str, env: Env) -> str:
    step = client.step("push", reference, env=env)
    process.trace(client.verbose, step)
    code, lines = process.tee(step, _shown())
    digest = re.search(r"digest: (sha256:[0-9a-f]{64})", "\n".join(lines))
    if code != 0 or digest is None:
        raise explained(lines, server, reference, "{reference} could not be pushed")
    return digest[1]


def _shown() -> Callable[[str], None]:
    """Shows what a push says: of a countdown its beginning, and no refusal, which may lead to a login."""
    begun: set[str] = set()

    def show(line: str) -> None:
        beginning = re.sub(r" in \d+ seconds?$", "", line)
        if (
            beginning not in begun
            and not re.search(r": (Preparing|Waiting)$", line)
            and not _is_refusal(line)
        ):
            console.detail(line)
        begun.add(beginning)

    return show


def look(client: Client, server: str, repository: str, env: Env) -> None:
    """Asks the engine for an image that there is not, which tells whether the registry takes the login.

    Raises Refused, and SkelebotError where the registry cannot be reached.
    """
    reference = f"{repository}:{_NO_TAG}"
    step = client.step("pull", reference, env=env)
    process.trace(client.verbose, step)
    try:
        code, _, said = process.capture(step, _PATIENCE)
    except TimeoutError:
        raise SkelebotError(
            f"{server} gave no answer in {_PATIENCE:g} seconds; check that it is up"
        ) from None
    if code != 0 and not re.search(r"manifest unknown|not found", said.lower()):
        raise explained(said.splitlines(), server, repository, "{server} could not be asked")


# --- what a registry's answer means ---

_MEANINGS = (
    (
        r"http response to https client",
        "{server} speaks http, which Docker takes only from this machine; use https, or name it in the "
        "engine's insecure-registries",
    ),
    (
        r"x509|certificate",
        "the engine does not trust the certificate of {server}; put its CA into "
        "/etc/docker/certs.d/{server}/ca.crt there",
    ),
    (
        r"name unknown|name_unknown|repository .*(does not exist|not found)",
        "{server} has no repository for {reference}; make it there first",
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


def explained(lines: Sequence[str], server: str, reference: str, otherwise: str) -> SkelebotError:
    """What the last line of a failed client means, and what to do about it.

    otherwise: what to say where that is not known.
    """
    last = next((line.strip() for line in reversed(lines) if line.strip()), "without a word")
    said = last.removeprefix("Error response from daemon: ")
    if "no basic auth credentials" in said:
        return Refused(f"{server} asks for a login ({said})")
    if _is_refusal(said):
        return Refused(f"{server} refuses {reference} ({said}); check the user, the password and the rights")
    if any("Retrying in" in line for line in lines):
        text = "the push of {reference} was cut off; run again: what {server} has already is not sent again"
    else:
        known = (text for pattern, text in _MEANINGS if re.search(pattern, said.lower()))
        text = next(known, otherwise)
    return SkelebotError(f"{text.format(server=server, reference=reference)} ({said})")
