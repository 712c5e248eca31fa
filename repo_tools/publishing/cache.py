"""What this machine has read of a storage, so that it need not read it again. `.firmroot/cache/`.

Only objects that never change: metadata of one version and small targets. A file is found by the
digest that signed metadata give for it, so it is what a reading would have brought or it is not
found. A hash bin has no such digest: it is found by its path, and whoever reads it verifies it as
if it came from the storage. Nothing rests on the cache, and anybody may remove it.

Only a workspace with hash bins has one. What it costs: a publish no longer notices that an object
which it read before is gone from the storage or damaged there. Who asks that does without it:
`verify`, and `mirror` for what it copies.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from client_reference.manifest import MAX_MANIFEST
from repo_tools.files import make_directory
from repo_tools.metadata.repository import sha256

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from repo_tools.publishing.live import Readable
    from repo_tools.publishing.plan import Upload
    from repo_tools.workspace import Workspace

__all__ = ["NO_CACHE", "Cache"]

KEPT = 256
"""Files; the oldest go. A publish needs about as many as there are channels."""


@dataclass(frozen=True)
class Cache:
    """A directory of files; None for one that keeps nothing."""

    directory: Path | None

    @classmethod
    def of(cls, workspace: Workspace) -> Cache:
        """The cache of a workspace, in its epoch; none where everything is small."""
        return cls(workspace.memory / "cache") if workspace.is_large else NO_CACHE

    def read(self, storage: Readable, path: str, max_length: int, digest: str) -> bytes:
        """One whole object, by its digest from here, or from the storage. Raises as `read` there.

        Args:
            storage: the origin.
            path: of the object.
            max_length: bytes.
            digest: SHA-256 that signed metadata give for it; empty if they give none.
        """
        known = self._get(digest) if digest else None
        if known is not None and sha256(known) == digest:
            return known
        data = storage.read(path, max_length).data
        if sha256(data) == digest:
            self._put(digest, data)
        return data

    def recall(self, path: str) -> bytes | None:
        """What was remembered of a path; the caller verifies it."""
        return self._get(sha256(path.encode()))

    def remember(self, path: str, data: bytes) -> None:
        """Remember what an object was that has no digest in signed metadata."""
        self._put(sha256(path.encode()), data)

    def keep(self, uploads: Iterable[Upload]) -> None:
        """What a publish has just written need not be read by the next one."""
        for upload in uploads:
            if isinstance(upload.source, bytes):
                self._put(upload.sha256, upload.source)
                self.remember(upload.path, upload.source)
            elif upload.length <= MAX_MANIFEST and upload.path.startswith("targets/channels/"):
                self._put(upload.sha256, upload.source.read_bytes())

    def knows_stored(self, data: bytes) -> bool:
        """Whether this machine has seen an object of these bytes in the storage."""
        return self._get(sha256(data)) == data

    def note_stored(self, data: bytes) -> None:
        """This machine has just seen it there."""
        self._put(sha256(data), data)

    def _get(self, name: str) -> bytes | None:
        if self.directory is None:
            return None
        with contextlib.suppress(OSError):
            return (self.directory / name).read_bytes()
        return None

    def _put(self, name: str, data: bytes) -> None:
        if self.directory is None:
            return
        with contextlib.suppress(OSError):  # a cache that cannot be written stops nothing
            make_directory(self.directory)
            (self.directory / name).write_bytes(data)  # half of it has another digest
            files = sorted(self.directory.iterdir(), key=lambda each: each.stat().st_mtime)
            for old in files[:-KEPT]:
                old.unlink()


NO_CACHE = Cache(None)
