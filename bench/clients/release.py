"""`firmroot`, exactly as its console script starts it, on a storage that counts what it is asked.

Writes to the file of BENCH_REQUESTS one line for each request: what, the path, and bytes.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bench.clients import report

report.at_exit()

from client_reference.errors import FirmrootError  # noqa: E402 - measured from here on
from repo_tools import workspace  # noqa: E402
from repo_tools.cli.main import run  # noqa: E402
from repo_tools.storage.local import LocalStorage  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from repo_tools.storage.protocol import Blob, Created


class Counted(LocalStorage):
    """Every request of a storage, noted."""

    def read(self, path: str, max_length: int) -> Blob:
        """See `Storage.read`."""
        try:
            blob = super().read(path, max_length)
        except FirmrootError:
            _note("GET", path, 0)
            raise
        _note("GET", path, len(blob.data))
        return blob

    def create(self, path: str, source: bytes | Path, sha256: str) -> Created:
        """See `Storage.create`."""
        length = len(source) if isinstance(source, bytes) else source.stat().st_size
        _note("PUT", path, length)
        return super().create(path, source, sha256)

    def replace(self, path: str, data: bytes, tag: str | None) -> str:
        """See `Storage.replace`."""
        _note("PUT", path, len(data))
        return super().replace(path, data, tag)


class Opened(Counted):
    """Streams are requests too; `read` is made of one, and counted as itself."""

    _reading = False

    def read(self, path: str, max_length: int) -> Blob:
        """See `Storage.read`."""
        self._reading = True
        try:
            return super().read(path, max_length)
        finally:
            self._reading = False

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """See `Storage.open`."""
        if not self._reading:
            _note("GET", path, 0)
        with super().open(path) as file:
            yield file

    def paths(self, prefix: str) -> Iterator[str]:
        """See `Storage.paths`."""
        _note("LIST", prefix, 0)
        return super().paths(prefix)


def _note(what: str, path: str, length: int) -> None:
    if place := os.environ.get("BENCH_REQUESTS"):
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(f"{what} {path} {length}\n")


# The one place that opens a directory.
setattr(workspace, "LocalStorage", Opened)  # noqa: B010 # mypy: it exports no such name
run()
