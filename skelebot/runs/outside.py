"""The secret variables that a run takes from outside."""

from collections.abc import Mapping, Sequence

from skelebot.errors import SkelebotError
from skelebot.pipeline.key import keyed_hash
from skelebot.runs.record import TaskRecord
from skelebot.secret import Secret, reveal


def secrets(tasks: Sequence[TaskRecord]) -> dict[str, Secret]:
    """Return what the tasks take from elsewhere: arguments by the name of their variable."""
    found: dict[str, Secret] = {}
    for task in tasks:
        found |= {name: word for name, word in task.task.env if isinstance(word, Secret)}
        found |= {word.name: word for word in task.task.argv if isinstance(word, Secret)}
    return dict(sorted(found.items()))


def secret_hash(store: str, secret: Secret, env: Mapping[str, str]) -> str:
    """Return a hash of a secret's value with the store's own key. Raises SkelebotError for a missing one."""
    return keyed_hash(store, reveal(secret, env).encode("utf-8", "surrogateescape"))


def known_hash(store: str, secret: Secret, env: Mapping[str, str]) -> str | None:
    """Return the same hash; None where the variable is missing."""
    try:
        return secret_hash(store, secret, env)
    except SkelebotError:
        return None
