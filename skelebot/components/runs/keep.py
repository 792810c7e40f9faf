"""Take something out of a run: its files beside the checkout or as a branch, its outputs into the project."""

import os
import stat

from skelebot import console, files
from skelebot.component import Session
from skelebot.components.runs.look import number_of
from skelebot.errors import SkelebotError, UsageError, did_you_mean
from skelebot.files import reason, remove_tree
from skelebot.options import Values
from skelebot.runs import branch, outputs, snapshot, workspace
from skelebot.runs import store as stores
from skelebot.runs.record import RunRecord
from skelebot.runs.store import Store

# --- its files ---


def checkout(session: Session, values: Values) -> int:
    """Write a run's files into a new folder, or make a branch of them."""
    store = stores.opened()
    run = store.get(number_of(values))
    folder, name = values.get("<dir>"), values.get("branch")
    if (folder is None) == (name is None):
        raise UsageError("runs checkout: name either a folder or --branch NAME")
    tree = _tree(run, values.get("job"))
    if folder is not None:
        _restore(session, store, run, tree, os.path.abspath(str(folder)))
    else:
        _make_branch(session, store, run, tree, str(name))
    return 0


def _tree(run: RunRecord, job: object) -> str:
    """Return the snapshot of a job; of the first one where none is named."""
    trees = {task.job: task.tree for task in run.tasks}
    if job is not None and job not in trees:
        raise UsageError(f"run {run.number} has no job {job!r}{did_you_mean(str(job), trees)}")
    if job is None and len(set(trees.values())) > 1:
        console.info(f"these are the files of {run.tasks[0].job}; --job JOB gives those of another job")
    return trees[str(job)] if job is not None else run.tasks[0].tree


def _restore(session: Session, store: Store, run: RunRecord, tree: str, folder: str) -> None:
    roots = {run.root, *([session.optional_project.root] if session.optional_project else [])}
    for root in map(os.path.realpath, roots):
        if f"{os.path.realpath(folder)}/".startswith(f"{root}/"):
            raise UsageError(
                f"{folder} is in the checkout {root}, which is left alone; name a folder beside it"
            )
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise UsageError(f"{folder} is a file; name a new folder")
    if os.path.isdir(folder) and os.listdir(folder):
        raise UsageError(f"{folder} is not empty; name an empty folder or a new one")
    if session.flags.dry_run:
        console.out(f"write the files of run {run.number} to {folder}")
        return
    was_there = os.path.isdir(folder)
    try:
        snapshot.restore(store.folder, tree, folder)
    except BaseException:
        remove_tree(folder)
        if was_there:
            os.makedirs(folder, exist_ok=True)
        raise
    console.info(f"the files of run {run.number} are in {folder}")


def _make_branch(session: Session, store: Store, run: RunRecord, tree: str, name: str) -> None:
    folder = project_folder(session, run)
    if session.flags.dry_run:
        console.out(f"make the branch {name} of the files of run {run.number} in {folder}")
        return
    branch.create(store.folder, run, tree, folder, name)
    console.info(f"the branch {name} has the files of run {run.number}")
    if left := snapshot.not_in_git(store.folder, tree):
        console.warn(f"git cannot hold {', '.join(left[:5])}{', …' if len(left) > 5 else ''}")


def project_folder(session: Session, run: RunRecord) -> str:
    """Return the checkout that a run belongs to: the one here, if it is of the same project, or its own."""
    here = session.optional_project
    if here and here.name == run.project:
        return here.root
    if os.path.isdir(run.root):
        return run.root
    raise SkelebotError(f"there is no folder {run.root} any more; change into a checkout of {run.project}")


# --- its outputs ---


def get(session: Session, values: Values) -> int:
    """Copy outputs of a run into the project, all or, where files would be replaced unasked, none."""
    store = stores.opened()
    run = store.get(number_of(values))
    top, root = _outputs(store, run), project_folder(session, run)
    found = outputs.listing(top, [_path(values.get("<path>"))])
    wanted = {path: status for path, status in found.items() if path}
    if not any(stat.S_ISREG(s.st_mode) or stat.S_ISLNK(s.st_mode) for s in wanted.values()):
        named = f" below {values['<path>']}" if values.get("<path>") else ""
        raise SkelebotError(
            f"run {run.number} has no outputs{named}; `skelebot runs show {run.number}` lists it"
        )
    replaced = [path for path, status in wanted.items() if _is_replaced(top, root, path, status)]
    if session.flags.dry_run:
        for path in wanted:
            console.out(f"{'replace' if path in replaced else 'write'} {path}")
        return 0
    if replaced and not values.get("force") and not _may_replace(replaced):
        named = ", ".join(replaced[:5]) + (", …" if len(replaced) > 5 else "")
        raise SkelebotError(f"{named} would be replaced, so nothing was; -f replaces what is there")
    count = _copy(top, root, wanted)
    console.info(f"{console.counted(count, 'file')} of run {run.number} in {root}")
    return 0


def _outputs(store: Store, run: RunRecord) -> str:
    """Return the folder of a run's outputs. Raises SkelebotError where there is none to take from."""
    if not run.own:
        raise SkelebotError(f"run {run.number} wrote to the checkout itself; its outputs are there")
    if not run.has_ended:
        raise SkelebotError(
            f"run {run.number} is {run.state}, and its outputs may be incomplete; "
            f"`skelebot runs logs -f {run.number}` follows it to its end"
        )
    if run.state != "done":
        console.warn(f"run {run.number} is {run.state}, so its outputs may be incomplete")
    return workspace.outputs_folder(store, run)


def _path(text: object) -> str:
    """Return a path from the project's root; "" for everything."""
    if text is None:
        return ""
    path = os.path.normpath(str(text))
    if path.startswith(("/", "..")):
        raise UsageError(f"runs get: expected a path in the project such as models/; found {str(text)!r}")
    return "" if path == "." else path


def _is_replaced(top: str, root: str, path: str, status: os.stat_result) -> bool:
    """Tell whether other content is in the way of a file. Raises SkelebotError for another type."""
    target = os.path.join(root, path)
    if stat.S_ISDIR(status.st_mode):
        if os.path.lexists(target) and not os.path.isdir(target):
            raise SkelebotError(f"{path} is a file in the project, and a folder in the run; move it away")
        return False
    if os.path.isdir(target) and not os.path.islink(target):
        raise SkelebotError(f"{path} is a folder in the project, and a file in the run; move it away")
    if not os.path.lexists(target):
        return False
    return bool(outputs.compare(top, root, [path]).differing)


def _may_replace(replaced: list[str]) -> bool:
    if not console.can_ask():
        return False
    for path in replaced[:20]:
        console.detail(path)
    question = f"replace {console.counted(len(replaced), 'file')} of the project"
    answer = console.prompt(f"{question}? (y/n)", "n", lambda a: None if a in ("y", "n") else "y or n")
    return answer == "y"


def _copy(top: str, root: str, wanted: dict[str, os.stat_result]) -> int:
    """Copy files and links; return their count. Each file is whole, whatever interrupts this."""
    count = 0
    for path, status in wanted.items():
        source, target = os.path.join(top, path), os.path.join(root, path)
        try:
            if stat.S_ISDIR(status.st_mode):
                os.makedirs(target, exist_ok=True)
                continue
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if stat.S_ISLNK(status.st_mode):
                fresh = f"{target}.{os.urandom(4).hex()}{files.PART}"
                os.symlink(os.readlink(source), fresh)
                os.replace(fresh, target)
            elif stat.S_ISREG(status.st_mode):
                files.copy_file(source, target)
            else:
                continue  # a pipe or a socket has no content
        except OSError as error:
            raise SkelebotError(f"{target} cannot be written: {reason(error)}") from None
        count += 1
    return count
