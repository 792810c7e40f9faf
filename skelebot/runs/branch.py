"""Give the code of a run to the user's repository as a branch.

`git fast-import` adds objects and the branch. It touches no file, no index and no HEAD, and applies no
filter. https://git-scm.com/docs/git-fast-import
"""

import os
import shutil
from typing import IO

from skelebot import git
from skelebot.errors import SkelebotError, UsageError
from skelebot.runs import snapshot
from skelebot.runs.record import RunRecord
from skelebot.runs.snapshot import GitFile


def create(store: str, run: RunRecord, tree: str, folder: str, name: str) -> None:
    """Make a branch of the repository that a folder is in, with one commit of a run's files in that folder.

    Its parent is the commit that the run was frozen at, where the repository still has it. Raises UsageError
    for a name that cannot be a new branch, and SkelebotError.
    """
    try:
        prefix = os.fsencode(git.answer(folder, "rev-parse", "--show-prefix").removesuffix("\n"))
    except SkelebotError:
        raise SkelebotError(
            f"{folder} is not in a git repository; `skelebot runs checkout {run.number} DIR` needs none"
        ) from None
    _check_name(folder, name)
    ident = _identity(folder)
    parent = run.commit if run.commit and _has_commit(folder, run.commit) else ""

    def write(stdin: IO[bytes]) -> None:
        message = _message(run)
        stdin.write(b"feature done\ncommit refs/heads/%s\n" % os.fsencode(name))
        stdin.write(b"committer %s\ndata %d\n%s\n" % (os.fsencode(ident), len(message), message))
        if parent:
            stdin.write(b"from %s\n" % parent.encode("ascii"))
        stdin.write(b"D %s\n" % _quoted(prefix.rstrip(b"/")) if prefix else b"deleteall\n")

        def write_file(file: GitFile) -> None:
            stdin.write(b"M %s inline %s\ndata %d\n" % (file.mode, _quoted(prefix + file.path), file.size))
            shutil.copyfileobj(file.content, stdin, 1 << 20)
            stdin.write(b"\n")

        snapshot.read_files(store, tree, write_file)
        stdin.write(b"done\n")

    git.feed(folder, "fast-import", "--quiet", write=write)


def _check_name(folder: str, name: str) -> None:
    ref = f"refs/heads/{name}"
    if name.startswith("-") or git.ask(folder, "check-ref-format", ref)[0]:
        raise UsageError(f"--branch: git does not accept {name!r} as the name of a branch")
    _, head, _ = git.ask(folder, "symbolic-ref", "--quiet", "HEAD")
    if head.strip() == ref or not git.ask(folder, "show-ref", "--verify", "--quiet", ref)[0]:
        raise UsageError(f"--branch: there is a branch {name} already; choose another name")


def _identity(folder: str) -> str:
    try:
        return git.answer(folder, "var", "GIT_COMMITTER_IDENT").strip()
    except SkelebotError:
        raise SkelebotError(
            "git does not know who commits; set `git config user.name NAME` and `git config user.email MAIL`"
        ) from None


def _has_commit(folder: str, commit: str) -> bool:
    return git.ask(folder, "cat-file", "-e", f"{commit}^{{commit}}")[0] == 0


def _message(run: RunRecord) -> bytes:
    chain = " ".join(run.shown_chain.split())
    params = [f"{task.job}.{name}: {value}" for task in run.tasks for name, value in task.params]
    text = "\n".join([f"Run {run.number} of {run.project}: {chain}", "", f"uid: {run.uid}", *params])
    return f"{text}\n".encode("utf-8", "surrogateescape")


def _quoted(path: bytes) -> bytes:
    path = path.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    return b'"' + path + b'"'
