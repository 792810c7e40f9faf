"""Which jobs need which: the order in which they run, and what is wrong with it."""

from collections.abc import Iterator

from skelebot.errors import did_you_mean
from skelebot.model import Job, Output, Project, place_of, project_path


def needed(project: Project, job: Job) -> tuple[Job, ...]:
    """Return the jobs that a job names in its `needs`."""
    by_name = {each.name: each for each in project.jobs} if job.needs else {}
    return tuple(by_name[name] for name in dict.fromkeys(job.needs))


def order(project: Project, job: Job) -> list[Job]:
    """Return all the jobs that have to run before a job, in the order in which they do."""
    by_name = {each.name: each for each in project.jobs} if job.needs else {}
    ordered: dict[str, Job] = {}
    above = [(job, iter(job.needs))]
    while above:
        each, needs = above[-1]
        need = next((name for name in needs if name not in ordered), None)
        if need is not None:
            above.append((by_name[need], iter(by_name[need].needs)))
        else:
            above.pop()
            ordered[each.name] = each
    return list(ordered.values())[:-1]


# --- what is wrong ---


def problems(project: Project) -> Iterator[str]:
    """Return what is wrong with needs, inputs and outputs, with its place."""
    by_name = {job.name: job for job in project.jobs}
    for job in project.jobs:
        yield from _wrong_needs(job, by_name)
        yield from _wrong_inputs(job)
        if job.outputs and job.mode == "d":
            yield f"{place_of(job, 'outputs')}: nobody waits for a job with mode: d; leave out one of the two"
    yield from _circle(project, by_name)
    yield from _shared_outputs(project)


def _wrong_needs(job: Job, by_name: dict[str, Job]) -> Iterator[str]:
    for number, name in enumerate(job.needs):
        at, need = f"{place_of(job, 'needs')}[{number}]", by_name.get(name)
        if need is None:
            yield f"{at}: there is no job named {name!r}{did_you_mean(name, by_name)}"
        elif need.args:
            yield (
                f"{at}: a needed job runs with its defaults, and {name} has the argument "
                f"{need.args[0].name}; give it a param with a default instead"
            )
        elif need.mode == "d":
            yield f"{at}: nobody waits for {name}, which has mode: d; remove that, or this need"


def _wrong_inputs(job: Job) -> Iterator[str]:
    for number, text in enumerate(job.inputs or ()):
        for output in job.results:
            if output.holds(project_path(text)):
                at = f"{place_of(job, 'inputs')}[{number}]"
                yield f"{at}: {text} is an output of the same job; remove it here"


def _circle(project: Project, by_name: dict[str, Job]) -> Iterator[str]:
    """Report a circle of needs, at the need that closes it."""
    if not any(job.needs for job in project.jobs):
        return
    import graphlib  # only for a pipeline

    known = {job.name: [name for name in job.needs if name in by_name] for job in project.jobs}
    try:
        graphlib.TopologicalSorter(known).prepare()
    except graphlib.CycleError as error:
        circle: list[str] = error.args[1][::-1]  # each of them needs the next
        last = by_name[circle[-2]]
        at = f"{place_of(last, 'needs')}[{last.needs.index(circle[-1])}]"
        yield f"{at}: the jobs need each other: {' -> '.join(circle)}; remove one of these needs"


def _shared_outputs(project: Project) -> Iterator[str]:
    """Report the outputs that two jobs make, or one job twice, also where one is inside the other."""
    owners: dict[str, tuple[Job, Output]] = {}
    outputs = [(o.path, n, o, job) for job in project.jobs for n, o in enumerate(job.results)]
    for path, number, output, job in sorted(outputs, key=lambda each: each[0].count("/")):
        parts = path.split("/")
        above = ("/".join(parts[:length]) for length in range(1, len(parts) + 1))
        if other := next((owners[folder] for folder in above if folder in owners), None):
            owner, theirs = other
            where = "is" if theirs.path == path else f"is inside {theirs}, which is"
            yield (
                f"{place_of(job, 'outputs')}[{number}]: {output} {where} an output of {owner.name!r} too; "
                "give each job a folder of its own"
            )
        else:
            owners[path] = (job, output)
