"""Whether git has what a command wrote, so that the command can end by saying what to do.

A workspace lives in git, and what one person signs reaches the others by `git push`, which is
easily forgotten. Also what its last commit says of a file. Nothing here changes anything, and there
is silence where there is no git, no work tree, or nothing to say.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["committed", "has_conflict", "reminder", "sentence"]

_PRIVATE = ".firmroot"
_SECONDS = 10.0


def has_conflict(data: bytes) -> bool:
    """Whether git left both sides in a file that it could not merge."""
    return any(line.startswith(b"<<<<<<< ") for line in data.splitlines())


def reminder(directory: Path) -> str:
    """One line on what git does not have yet of a workspace; empty if it has everything.

    Args:
        directory: of the workspace, as the user named it.
    """
    # Of an index that is being used it takes no lock; a watcher that the work tree configures is
    # not started.
    command = ["-c", "core.fsmonitor=false", "--no-optional-locks"]
    command += ["status", "--porcelain=v1", "--branch", "-z", "--untracked-files=normal", "--", "."]
    answer = _ask(directory, command)
    return sentence(os.fsdecode(answer), "" if str(directory) == "." else str(directory))


def committed(directory: Path, path: str) -> bytes:
    """What the last commit has in a file of a workspace; empty if it has none.

    Args:
        directory: of the workspace, which may be below the top of the work tree.
        path: of the file, relative to the workspace.
    """
    return _ask(directory, ["cat-file", "blob", f"HEAD:./{path}"])


def _ask(directory: Path, arguments: list[str]) -> bytes:
    """What git prints; nothing where it fails: then it prints nothing on standard output."""
    command = ["git", "-C", str(directory), *arguments]
    try:
        done = subprocess.run(  # noqa: S603  a fixed command
            command,
            check=False,
            capture_output=True,
            timeout=_SECONDS,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout


def sentence(porcelain: str, directory: str) -> str:
    """Pure: the line for an answer of `git status --porcelain=v1 --branch -z`.

    Args:
        porcelain: what git said.
        directory: of the workspace, as git must be told; empty for the current one.
    """
    branch, *entries = porcelain.split("\0")
    paths = [entry[3:] for entry in entries if entry[2:3] == " "]
    if not paths:
        return ""
    if any(_PRIVATE in path.split("/") for path in paths):
        return (
            f"git would take {_PRIVATE}/, which holds private keys: put the line /{_PRIVATE}/ "
            "back into .gitignore before you commit"
        )
    git = f"git -C {shlex.quote(directory)}" if directory else "git"
    steps = [f"{git} add --all .", f"{git} commit"]
    if "..." in branch:  # it follows a branch elsewhere
        steps.append(f"{git} push")
    return f"not in git yet; share it: {' && '.join(steps)}"
