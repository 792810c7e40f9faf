"""Mirror runs to an MLflow server, by its REST API: `components.experiments.mlflow`.

A server that does not answer costs a run a moment at most. What it has not got yet is noted in the store, and
sent at the next end of a run, or when a worker begins.
https://mlflow.org/docs/latest/api_reference/rest-api.html
"""

import math
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from skelebot import console
from skelebot.errors import SkelebotError, UsageError
from skelebot.files import locked, replace_file
from skelebot.model import Task
from skelebot.runs import difference, metrics, workspace
from skelebot.runs.record import RunRecord
from skelebot.runs.store import Store

if TYPE_CHECKING:
    import requests

_QUICK, _PATIENT = (1.0, 5.0), (3.0, 30.0)  # seconds to connect, and to wait for an answer
_PAUSE = 60  # seconds for which a server is left alone, at the beginning of runs, that has not answered
_MOST_METRICS, _MOST_OTHERS = 1000, 100  # in a request
_LONGEST_NAME, _LONGEST_VALUE = 250, 5000
_FARTHEST = 2.0**53  # step, which the server keeps in 64 bits
_STATES = {"running": "RUNNING", "done": "FINISHED", "failed": "FAILED"}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_OF_CONTAINERS = "host.docker.internal"  # how a container calls this machine


class Refused(SkelebotError):
    """The server refuses what it was sent, however often that is tried."""


# --- a run ---


def begin(store: Store, run: RunRecord) -> RunRecord:
    """Make the run's counterpart, whose id the job gets; return the run as it is then.

    Whatever happens, the rest is sent later.
    """
    if not run.mlflow:
        return run
    try:
        _note(store, run.number)
        if run.mlflow_run or _is_left_alone(store, run.mlflow):
            return run
        return _ensure_run(store, run, _Server(run.mlflow, _QUICK))
    except (SkelebotError, OSError) as error:
        with suppress(SkelebotError):
            store.set(_setting(run.mlflow), str(time.time()))
        later = "" if isinstance(error, Refused) else "the run is mirrored later, and "
        console.warn(f"{error}; {later}the job gets no MLFLOW_RUN_ID")
        return run


def variables(run: RunRecord, task: Task, is_far: bool) -> tuple[tuple[str, str], ...]:
    """Return the variables by which the job's own calls of MLflow land in the run's counterpart.

    is_far: whether it runs on another machine, which does not see a server that only this one does.
    """
    address = urlsplit(run.mlflow)
    is_own = address.hostname in _LOOPBACK
    if not run.mlflow_run or (is_far and is_own):
        return ()
    if is_own and not task.place.is_native:
        port = f":{address.port}" if address.port else ""
        address = address._replace(netloc=f"{_OF_CONTAINERS}{port}")
    return ("MLFLOW_TRACKING_URI", urlunsplit(address)), ("MLFLOW_RUN_ID", run.mlflow_run)


def send_pending(store: Store, after: RunRecord | None = None) -> None:
    """Send what servers have not got yet of runs that have ended, as far as they answer.

    after: a run whose end somebody waits for. Its server alone is asked, and has to answer soon.
    """
    if not _pending(store):
        return
    silent: set[str] = set()
    with locked(os.path.join(_folder(store), "lock")):  # what two send at once would be made twice
        for number in _pending(store):
            with suppress(SkelebotError):  # of a record that cannot be read
                run = _ended(store, number)
                if run and run.mlflow not in silent and (not after or run.mlflow == after.mlflow):
                    silent |= _try_to_send(store, run, _QUICK if after else _PATIENT)


def _ended(store: Store, number: int) -> RunRecord | None:
    """Return a run that has ended; None for one that has not, or is gone. Raises SkelebotError."""
    try:
        run = store.get(number)
    except UsageError:  # somebody has removed it
        _forget(store, number)
        return None
    return run if run.has_ended else None


def _try_to_send(store: Store, run: RunRecord, patience: tuple[float, float]) -> set[str]:
    """Send all of a run; return its server's address if that does not answer."""
    try:
        _send(store, run, patience)
    except Refused as error:
        console.warn(f"run {run.number} cannot be mirrored: {error}")
    except (SkelebotError, OSError) as error:
        console.warn(f"{error}; its runs are mirrored later")
        return {run.mlflow}
    _forget(store, run.number)
    return set()


def _send(store: Store, run: RunRecord, patience: tuple[float, float]) -> None:
    """Send all of a run; what has been sent before changes nothing. patience: until the first answers."""
    server = _Server(run.mlflow, patience)
    run = _ensure_run(store, run, server)
    tags = [{"key": key, "value": value[:_LONGEST_VALUE]} for key, value in _tags(store, run).items()]
    server.post("runs/log-batch", {"run_id": run.mlflow_run, "tags": tags})
    server = server._replace(patience=_PATIENT)  # for as much as it has to write
    for some in _in_parts(_params(run), _MOST_OTHERS):
        server.post("runs/log-batch", {"run_id": run.mlflow_run, "params": some})
    for some in _in_parts(_points(store, run), _MOST_METRICS):
        server.post("runs/log-batch", {"run_id": run.mlflow_run, "metrics": some})
    status = _STATES.get(run.state, "KILLED")
    server.post(
        "runs/update", {"run_id": run.mlflow_run, "status": status, "end_time": _milliseconds(run.ended)}
    )


def _ensure_run(store: Store, run: RunRecord, server: "_Server") -> RunRecord:
    """Return the run with the id of its counterpart, which is made where there is none."""
    if run.mlflow_run:
        return run
    experiment = server.experiment(run.project)
    # The answer to an earlier request may have been lost.
    where = {"experiment_ids": [experiment], "filter": f"tags.`skelebot.uid` = '{run.uid}'"}
    known = server.post("runs/search", {**where, "max_results": 1})
    if known.get("runs"):
        id = server.text(known, "runs", 0, "info", "run_id")
    else:
        made = {
            "experiment_id": experiment,
            "run_name": (run.name or run.shown_chain)[:_LONGEST_NAME],
            "start_time": _milliseconds(run.started or run.created),
            "tags": [{"key": "skelebot.uid", "value": run.uid}],
        }
        id = server.text(server.post("runs/create", made), "run", "info", "run_id")
    return store.update(run.number, lambda run: replace(run, mlflow_run=id))


def _tags(store: Store, run: RunRecord) -> dict[str, str]:
    outputs = workspace.outputs_folder(store, run)
    tags = {
        "skelebot.uid": run.uid,
        "skelebot.run": str(run.number),
        "skelebot.state": run.state,
        "skelebot.reason": run.reason,
        "skelebot.chain": run.shown_chain,
        "skelebot.where": run.where,
        "skelebot.tags": " ".join(run.tags),
        "skelebot.sweep": run.sweep.name if run.sweep else "",
        "skelebot.outputs": f"{socket.gethostname()}:{outputs}" if os.path.isdir(outputs) else "",
        "mlflow.runName": run.name or run.shown_chain,
        "mlflow.note.content": run.note,
        "mlflow.source.name": run.shown_chain,
        "mlflow.source.git.commit": run.commit,
        "mlflow.source.git.branch": run.branch,
    }
    return {key: value for key, value in tags.items() if value}


def _params(run: RunRecord) -> Iterator[dict[str, str]]:
    for name, value in difference.params(run).items():
        text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        yield {"key": _name(name), "value": text[:_LONGEST_VALUE]}


def _points(store: Store, run: RunRecord) -> Iterator[dict[str, Any]]:
    """Yield all that was measured. Sent again, a point has the same time, by which the server knows it."""
    counts: dict[str, int] = {}
    for at, task in enumerate(run.tasks):
        if not task.attempt:
            continue
        path = workspace.metrics_file(workspace.attempt_of(store, run, at))
        for number, point in enumerate(metrics.points(path)):
            when = _milliseconds(task.started) + number
            for name, value in point.values.items():
                if not math.isfinite(value):  # which JSON cannot hold
                    continue
                count = counts[name] = counts.get(name, -1) + 1
                step = count if point.step is None else _step(point.step)
                yield {"key": _name(name), "value": value, "timestamp": when, "step": step}


def _step(number: float) -> int:
    return round(max(-_FARTHEST, min(number, _FARTHEST)))


def _name(name: str) -> str:
    """Return a name that MLflow takes, which could be a path without dots in place of a folder."""
    parts = re.sub(r"[^\w. :/-]", "_", name)[:_LONGEST_NAME].split("/")
    return "/".join(part for part in parts if part.strip(".")) or "_"


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def _in_parts(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(values)
    while some := list(islice(rest, size)):
        yield some


# --- what is to be sent: an empty file for each run ---


def _folder(store: Store) -> str:
    return os.path.join(store.folder, "mlflow")


def _note(store: Store, number: int) -> None:
    os.makedirs(_folder(store), exist_ok=True)
    replace_file(os.path.join(_folder(store), str(number)), b"")


def _forget(store: Store, number: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(_folder(store), str(number)))


def _pending(store: Store) -> list[int]:
    with suppress(FileNotFoundError):
        return sorted(int(name) for name in os.listdir(_folder(store)) if name.isdecimal())
    return []


def has_pending(store: Store) -> bool:
    return bool(_pending(store))


def _setting(address: str) -> str:
    return f"silent {address}"


def _is_left_alone(store: Store, address: str) -> bool:
    since = store.setting(_setting(address))
    return bool(since) and 0 <= time.time() - float(since) < _PAUSE


# --- the server ---


class _Server(NamedTuple):
    address: str
    patience: tuple[float, float]

    def experiment(self, name: str) -> str:
        """Return the id of an experiment, which is made where there is none."""
        found = self._request(
            "GET", "experiments/get-by-name", params={"experiment_name": name}, or_none=True
        )
        if found is None:
            return self.text(self.post("experiments/create", {"name": name}), "experiment_id")
        return self.text(found, "experiment", "experiment_id")

    def text(self, answer: Any, *where: str | int) -> str:
        """Return a text in an answer. Raises SkelebotError if another kind of server gave it."""
        try:
            for each in where:
                answer = answer[each]
        except (KeyError, IndexError, TypeError):
            answer = None
        if not isinstance(answer, str) or not answer:
            raise SkelebotError(f"{self.address} does not answer as an MLflow server does")
        return answer

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._request("POST", path, json=body) or {}

    def _request(
        self, method: str, path: str, or_none: bool = False, **options: Any
    ) -> dict[str, Any] | None:
        """Return the answer; None for what does not exist, if that may be. Raises SkelebotError."""
        import requests  # takes as long as a whole run of a small job

        url = f"{self.address.rstrip('/')}/api/2.0/mlflow/{path}"
        try:
            answer = requests.request(
                method, url, timeout=self.patience, auth=_credentials, allow_redirects=False, **options
            )
        except (requests.RequestException, ValueError) as error:
            raise SkelebotError(f"no MLflow server answers at {self.address}: {_reason(error)}") from None
        code, found = answer.status_code, _object(answer)
        if found is None and code not in (401, 403):  # a proxy's page, or another program's
            raise SkelebotError(f"{self.address} answers {code}, but not as an MLflow server does")
        if found is not None and code < 300:
            return found
        if code == 404 and or_none:
            return None
        said = console.one_line(str((found or {}).get("message", ""))[:200])
        text = f"the MLflow server {self.address} answered {code} {said}".strip()
        raise (Refused if code in (400, 404) else SkelebotError)(text)


def _object(answer: "requests.Response") -> dict[str, Any] | None:
    """Return the JSON object of an answer; None if it has none."""
    with suppress(ValueError):
        found = answer.json() if answer.content or answer.status_code >= 300 else {}
        return found if isinstance(found, dict) else None
    return None


def _credentials(request: "requests.PreparedRequest") -> "requests.PreparedRequest":
    """Add the credentials that MLflow's own client would take from the environment."""
    from requests.auth import HTTPBasicAuth

    if user := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        HTTPBasicAuth(user, os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))(request)
    elif token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        request.headers["Authorization"] = f"Bearer {token}"
    return request


def _reason(error: Exception) -> str:
    """Return the innermost reason in the library's nested errors, on one line."""
    inner: Any = error
    while True:
        nested = getattr(inner, "reason", None) or next(iter(getattr(inner, "args", ())), None)
        if not isinstance(nested, Exception):
            return console.one_line(str(inner).rpartition(": ")[2][:100])
        inner = nested
