"""What a process asks of the disk, in order: syncs, names given and names taken away.

Wraps the system calls of this process, so that a test can say "synced before it got its name". A
cut of power at any point of such a list is replayed by `tests.power`.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["full_disk", "names", "recorded"]


@contextmanager
def recorded() -> Iterator[list[str]]:
    """The calls made inside, such as `sync file`, `link a`, `rename b`, `sync directory d`."""
    calls: list[str] = []
    sync, link, rename, unlink = os.fsync, os.link, Path.replace, Path.unlink

    def on_sync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        calls.append(f"sync directory {path.name}" if path.is_dir() else "sync file")
        sync(descriptor)

    def on_link(source: Any, target: Any) -> None:  # noqa: ANN401  as the call it stands for
        calls.append(f"link {Path(target).name}")
        link(source, target)

    def on_rename(self: Path, target: Any) -> Path:  # noqa: ANN401  likewise
        calls.append(f"rename {Path(target).name}")
        return rename(self, target)

    def on_unlink(self: Path, missing_ok: bool = False) -> None:  # noqa: FBT001, FBT002  likewise
        if self.exists() and not self.name.startswith("."):
            calls.append(f"unlink {self.name}")
        unlink(self, missing_ok=missing_ok)

    with (
        patch("os.fsync", on_sync),
        patch("os.link", on_link),
        patch.object(Path, "replace", on_rename),
        patch.object(Path, "unlink", on_unlink),
    ):
        yield calls


def names(directory: Path) -> list[str]:
    """What is in a directory, temporary files included."""
    return sorted(path.name for path in directory.iterdir())


@contextmanager
def full_disk(error: int) -> Iterator[None]:
    """Every write inside fails with this error number."""

    def fails(*_: object) -> int:
        raise OSError(error, os.strerror(error))

    with patch("os.write", fails):
        yield
