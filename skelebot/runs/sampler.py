"""Choose the values of a trial by Optuna, from the trials of its sweep that there are: no second database.

Optuna is the extra `skelebot[optuna]`. It is imported only here, in a process of its own that ends with the
answer: it starts threads, which a supervisor must not have, as one of them could take its signals.
https://optuna.readthedocs.io/en/stable/reference/generated/optuna.study.Study.html
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple

from skelebot import process
from skelebot.errors import SkelebotError
from skelebot.files import locked
from skelebot.model import Step
from skelebot.project import sweep as values_of
from skelebot.project.sweep import Domain, Range, Trial
from skelebot.runs import trial
from skelebot.runs.record import RunRecord, Sweep
from skelebot.runs.store import Store
from skelebot.runs.trial import Goal

if TYPE_CHECKING:
    import optuna

Outcome = Literal["COMPLETE", "RUNNING", "FAIL", "PRUNED"]


_FEWEST = 4  # trials that say which parameter matters


class Row(NamedTuple):
    """A trial as the study gets it. number: what it measured, as far as that is known; step: when."""

    values: Trial
    outcome: Outcome
    number: float | None = None
    step: float | None = None


def check_installed() -> None:
    """Raise SkelebotError if Optuna is missing."""
    if find_spec("optuna") is None:
        raise SkelebotError("--sampler tpe needs Optuna; install it: pip install 'skelebot[optuna]'")


def choose(store: Store, number: int) -> RunRecord:
    """Fill the blanks of a run that is about to start, and note that; return it. Raises SkelebotError."""
    run = store.get(number)
    if run.sweep is None or not any(task.blanks for task in run.tasks):
        return run
    # One at a time, so that each knows what the others are about to try.
    with locked(os.path.join(store.folder, "sampler.lock")):
        trials = [each for each in store.find(root=run.root, sweep=run.sweep.name) if each.number != number]
        values = _asked(
            {
                "domains": dict(zip(run.sweep.params, run.sweep.values, strict=True)),
                "goal": run.sweep.goal,
                "seed": run.sweep.seed,
                "rows": list(rows(trials, Goal.parse(run.sweep.goal))),
            }
        )
        return store.update(number, lambda run: trial.with_values(run, values))


def rows(trials: Iterable[RunRecord], goal: Goal) -> Iterator[Row]:
    """Yield what the study learns from, of the trials that have values; the first one first."""
    outcomes: dict[str, Outcome] = {"done": "COMPLETE", "running": "RUNNING", "pruned": "PRUNED"}
    for run in sorted(trials, key=lambda run: run.number):
        if run.state == "queued" or any(task.blanks for task in run.tasks):
            continue
        number, metric = goal.value(run), run.metrics.get(goal.metric)
        outcome = outcomes.get(run.state, "FAIL")
        if outcome == "COMPLETE" and number is None:
            outcome = "FAIL"
        yield Row(trial.values_of(run), outcome, number, metric.step if metric else None)


def _asked(question: dict[str, Any]) -> Trial:
    """Return the answer of a process of its own. Raises SkelebotError."""
    check_installed()
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = "from skelebot.runs import sampler; sampler.main()"
    step, text = Step((sys.executable, "-c", code), cwd=package), json.dumps(question).encode()

    def write(stdin: IO[bytes]) -> None:
        stdin.write(text)

    ended, answer, errors = process.pipe(step, write, lambda stdout: stdout.read())
    if ended:
        last = errors.strip().rpartition("\n")[2]
        raise SkelebotError(f"Optuna has not chosen the values of the run: {last}")
    found: Trial = json.loads(answer)
    return found


# --- in that process ---


def main() -> None:
    """Answer the question on stdin."""
    question = json.load(sys.stdin)
    domains = {name: values_of.domain(text) for name, text in question["domains"].items()}
    known = [Row(*row) for row in question["rows"]]
    json.dump(ask(domains, known, Goal.parse(question["goal"]), question["seed"]), sys.stdout)


def ask(domains: dict[str, Domain], known: list[Row], goal: Goal, seed: int) -> Trial:
    """Return the values to try next. The same rows and the same seed give the same values."""
    found = study(domains, known, goal, seed).ask(_distributions(domains)).params
    return {name: _text(domains[name], value) for name, value in found.items()}


def study(domains: dict[str, Domain], known: list[Row], goal: Goal, seed: int) -> "optuna.Study":
    """Return the study of a sweep, made from its rows."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Each trial has a seed of its own: the same one would draw the same values from the same rows.
    sampler = optuna.samplers.TPESampler(seed=(seed + len(known)) % 2**32, constant_liar=True)
    found = optuna.create_study(sampler=sampler, direction="maximize" if goal.is_max else "minimize")
    distributions = _distributions(domains)
    for row in known:
        with suppress(ValueError, KeyError):  # of values that this sweep does not offer
            found.add_trial(_trial(row, domains, distributions))
    return found


def importance(sweep: Sweep, trials: Iterable[RunRecord], goal: Goal) -> dict[str, float]:
    """Return how much of the goal's differences each swept param explains, from 0 to 1.

    Nothing while too few trials are done, and where all of them measure the same. Needs Optuna.
    """
    import warnings

    import optuna

    known = [row for row in rows(trials, goal) if row.outcome == "COMPLETE"]
    if len(known) < _FEWEST:
        return {}
    tried = {name: tuple(sorted({row.values.get(name, "") for row in known})) for name in sweep.params}
    offered = zip(sweep.params, map(values_of.domain, sweep.values), strict=False)  # nothing, of a grid
    found = study({**tried, **dict(offered)}, known, goal, 0)
    with suppress(ValueError, RuntimeError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is called experimental; the other one needs scikit-learn
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        return dict(optuna.importance.get_param_importances(found, evaluator=evaluator))
    return {}


def _trial(row: Row, domains: dict[str, Domain], distributions: dict[str, Any]) -> "optuna.trial.FrozenTrial":
    import optuna

    steps = {int(row.step or 0): row.number} if row.number is not None and row.outcome == "PRUNED" else None
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState[row.outcome],
        value=row.number if row.outcome == "COMPLETE" else None,
        params={name: _parsed(domains[name], row.values[name]) for name in domains},
        distributions=distributions,
        intermediate_values=steps,
    )


def _distributions(domains: dict[str, Domain]) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    def of(domain: Domain) -> Any:
        if not isinstance(domain, Range):
            return CategoricalDistribution(domain)
        if domain.is_whole:
            step = int(domain.step or 1)
            return IntDistribution(int(domain.low), int(domain.high), domain.is_log, step)
        width = None if domain.step is None else float(domain.step)
        return FloatDistribution(float(domain.low), float(domain.high), domain.is_log, width)

    return {name: of(domain) for name, domain in domains.items()}


def _parsed(of: Domain, text: str) -> Any:
    """Return a value as a distribution has it. Raises ValueError."""
    if not isinstance(of, Range):
        return text
    return int(text) if of.is_whole else float(text)


def _text(of: Domain, value: Any) -> str:
    """Return the text of a value; of a step, the one that is exact."""
    if not isinstance(of, Range):
        return str(value)
    if of.is_whole:
        return str(value)
    if of.step is not None:
        return of.at(round((value - float(of.low)) / float(of.step)))
    return values_of.number_text(of, value)
