"""Files and directories that survive a power cut.

Rules: a small file is replaced whole, through a synced temporary file in the same directory; a name
counts only once its directory is synced; what was written counts only once the medium gave it back.
Nothing here translates errors: the caller knows what the file was for.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "SPARE",
    "free_bytes",
    "make_private_directory",
    "read_back_sha256",
    "replace_file",
    "sha256_of",
    "sync_directory",
    "write_at",
]

SPARE = 256 * 1024
"""Bytes that nothing else may take of a file system that the trust store may be on.

A device whose store cannot change accepts nothing any more, not even what would free some space.
"""
_CHUNK = 1024 * 1024


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private_directory(path: Path) -> None:
    """Create a directory for this user only (0700), and its parents, each durably."""
    if path.is_dir():
        return
    make_private_directory(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    sync_directory(path.parent)


def replace_file(path: Path, content: bytes) -> None:
    """Replace, or create, a small file: after a cut it is the old one or the new one, whole.

    Of a failure nothing is left: on a full disk that would be what keeps it full.
    """
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_at(descriptor: int, offset: int, content: bytes) -> None:
    """Write all of `content`; the kernel may take less at a time."""
    left = memoryview(content)
    while left:
        count = os.pwrite(descriptor, left, offset)
        offset, left = offset + count, left[count:]


def read_back_sha256(descriptor: int, length: int) -> str:
    """Make a file durable, forget what is cached of it, and hash what the medium gives back."""
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return sha256_of(descriptor, length)


def sha256_of(descriptor: int, length: int) -> str:
    """Hex SHA-256 of the first `length` bytes, or of all if there are fewer."""
    digest, offset = hashlib.sha256(), 0
    while chunk := os.pread(descriptor, min(_CHUNK, length - offset), offset):
        digest.update(chunk)
        offset += len(chunk)
    return digest.hexdigest()


def free_bytes(descriptor: int) -> int:
    """What the file system of an open file still has for this user."""
    volume = os.fstatvfs(descriptor)
    return volume.f_bavail * volume.f_frsize
