"""Durable files: whole or not there, and on the disk before the call returns.

Not for objects of a repository (that is `repo_tools.storage`), but for everything that a workspace
keeps. The rules, in the order in which they are carried out:

1. new bytes go to a temporary file in the *same* directory (a rename never crosses a file system);
2. the file is synced before it gets its name: a name must never point to bytes that a cut can lose;
3. it gets its name in one step, by rename (replace) or by link (create only);
4. the directory is synced, otherwise a cut forgets the name.

A process killed anywhere leaves the old file or the new one, and at worst a `.…tmp` beside it. Who
writes a temporary file holds a lock on it, which the kernel drops with the process: `sweep` removes
those that nobody holds, and may run at any time beside any number of writers.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from client_reference.errors import LockedError, RetryLaterError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = [
    "TEMPORARY_SUFFIX",
    "DiskFullError",
    "create_file",
    "describe",
    "exclusive_lock",
    "make_directory",
    "remove_file",
    "replace_file",
    "sweep",
    "sweep_directory",
    "sync_directory",
    "temporary_file",
    "translate_disk_full",
]

TEMPORARY_SUFFIX = ".tmp"
_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp", re.DOTALL)
"""The names that `temporary_file` gives, and nobody else."""


class DiskFullError(RetryLaterError):
    """No space is left; nothing was half-written. The same command finishes once there is space."""


def describe(error: OSError) -> str:
    """What the operating system said, without Python's own wrapping."""
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


@contextlib.contextmanager
def translate_disk_full(path: Path) -> Iterator[None]:
    """Give a full disk its own error, with what to do about it.

    Args:
        path: what was being written; a failing write does not know it.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise DiskFullError(
            f"the disk is full: {path}: {error.strerror}; nothing was half-written",
            "free some space, then run the same command again",
        ) from error


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(directory: Path, mode: int = 0o777) -> None:
    """Create a directory and its missing parents, each durably."""
    if directory.is_dir():
        return
    make_directory(directory.parent)
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode)
    sync_directory(directory.parent)


@contextlib.contextmanager
def temporary_file(directory: Path, name: str, mode: int = 0o644) -> Iterator[tuple[int, Path]]:
    """An open descriptor and the path of a new file, gone again afterwards unless renamed."""
    descriptor, temporary = _create_locked(directory, name)
    try:
        os.fchmod(descriptor, mode)
        yield descriptor, temporary
    finally:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)


def _create_locked(directory: Path, name: str) -> tuple[int, Path]:
    """A new file that no `sweep` removes while the descriptor is open."""
    while True:
        descriptor, path = tempfile.mkstemp(
            prefix=f".{name[:64]}.", suffix=TEMPORARY_SUFFIX, dir=directory
        )
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor, Path(path)
        os.close(descriptor)  # a sweep came between creating and locking


def sweep(top: Path, *, but: Collection[Path] = ()) -> None:
    """Remove what killed processes left half-written anywhere below a directory.

    Args:
        top: the directory; links to other directories are not followed.
        but: directories to leave alone.
    """
    for directory, below, files in os.walk(top):
        here = Path(directory)
        below[:] = [name for name in below if here / name not in but]
        for name in filter(_TEMPORARY.fullmatch, files):
            _remove_abandoned(here / name)


def sweep_directory(directory: Path) -> None:
    """Remove what killed processes left half-written in one directory, not below it."""
    with contextlib.suppress(OSError):
        for path in directory.iterdir():
            if _TEMPORARY.fullmatch(path.name):
                _remove_abandoned(path)


def _remove_abandoned(temporary: Path) -> None:
    """Remove a temporary file unless somebody holds it, or it is gone, or it is not ours."""
    with contextlib.suppress(OSError):
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(temporary, flags)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary.unlink()
        finally:
            os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def replace_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Give `path` these bytes, whatever it held before.

    Raises:
        DiskFullError: no space is left; the old file is untouched.
        OSError: likewise, for any other reason.
    """
    with translate_disk_full(path):
        make_directory(path.parent)
        with temporary_file(path.parent, path.name, mode) as (descriptor, temporary):
            _write_all(descriptor, data)
            os.fsync(descriptor)
            temporary.replace(path)
            sync_directory(path.parent)


def create_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Create `path` with these bytes; never touch a file that is already there.

    Raises:
        FileExistsError: there is one.
        DiskFullError: no space is left; `path` does not exist.
    """
    with translate_disk_full(path):
        make_directory(path.parent)
        with temporary_file(path.parent, path.name, mode) as (descriptor, temporary):
            _write_all(descriptor, data)
            os.fsync(descriptor)
            os.link(temporary, path)
            sync_directory(path.parent)


def remove_file(path: Path) -> None:
    """Remove a file durably; one that is not there is no error."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        sync_directory(path.parent)


@contextlib.contextmanager
def exclusive_lock(path: Path, *, wait: bool, owner: str) -> Iterator[None]:
    """Hold an advisory lock; the kernel drops it when the process dies, however it dies.

    Args:
        path: the lock file, created if need be and never removed (removing it would let two in).
        wait: wait for the other, or fail at once.
        owner: what is locked, for the message.

    Raises:
        LockedError: another process holds it, and `wait` is false.
    """
    make_directory(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise LockedError(
                f"another firmroot command is at work on {owner}",
                "wait for it to end, then run this command again",
            ) from error
        yield
    finally:
        os.close(descriptor)
