"""A repository in a local directory: the embedded storage, and the model for every other.

The three operations of `repo_tools.storage.protocol`, made of what a POSIX file system guarantees:
`link` fails if the name exists (create only), `rename` replaces in one step, `flock` makes "compare
the tag, then replace" one step among processes on this machine. Nothing is reported as stored
before it is durable; names that begin with a dot are ours and are never listed. What a killed
publisher left half-written goes with the next commit, whoever makes it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import stat
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO

from client_reference.errors import (
    LockedError,
    NotFoundError,
    NotTrustedError,
    RefusedError,
    RetryLaterError,
)
from repo_tools.files import (
    describe,
    exclusive_lock,
    make_directory,
    replace_file,
    sweep,
    sweep_directory,
    sync_directory,
    temporary_file,
    translate_disk_full,
)
from repo_tools.storage.protocol import Blob, Created, Entry, Unfinished, check_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["LocalStorage"]

_CHUNK = 1 << 20
_CLEARED = "inbox/"
_ARTIFACTS = "targets/builds"
_MISSING = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


class LocalStorage:
    """Objects as files below one directory. See `repo_tools.storage.protocol.Storage`."""

    def __init__(self, root: Path, url: str = "") -> None:
        self._root = root
        self._url = url or f"file://{root.absolute()}"
        self._written: set[Path] = set()

    @property
    def url(self) -> str:
        """How this storage is written in `firmroot.toml`."""
        return self._url

    @property
    def root(self) -> Path:
        """The directory, for a server or a fetcher that reads it in place."""
        return self._root

    def read(self, path: str, max_length: int) -> Blob:
        """One whole object; its tag is the SHA-256 of its bytes. See `Storage.read`."""
        with self.open(path) as file, _failures(path, self._root):
            data = file.read(max_length + 1)
        if len(data) > max_length:
            raise NotTrustedError(f"{path} is longer than the {max_length} bytes allowed")
        return Blob(data, _tag(data))

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """A seekable stream of one object. See `Storage.open`."""
        with _failures(path, self._root):
            place = self._file(path)
            # A pipe in the inbox would keep the publisher waiting for ever.
            if not stat.S_ISREG(place.stat().st_mode):
                raise FileNotFoundError(errno.ENOENT, "not a regular file", str(place))
            file = place.open("rb")
        with file:
            yield file

    def create(self, path: str, source: bytes | Path, sha256: str) -> Created:
        """Create the object durably, or find the identical one. See `Storage.create`."""
        final = self._file(path)
        self._written.add(final.parent)
        with _failures(path, self._root), translate_disk_full(final):
            if self._is_there(final, path, sha256):
                return Created.IDENTICAL
            make_directory(final.parent)
            with temporary_file(final.parent, final.name) as (descriptor, temporary):
                if (found := _copy(source, descriptor)) != sha256:
                    raise RefusedError(
                        f"{path}: expected sha256 {sha256}, the source has {found}",
                        "the file changed while it was read; add it again",
                    )
                os.fsync(descriptor)
                try:
                    os.link(temporary, final)
                except FileExistsError:
                    if not self._is_there(final, path, sha256):
                        raise
                    return Created.IDENTICAL
                sync_directory(final.parent)
        return Created.NEW

    def replace(self, path: str, data: bytes, tag: str | None) -> str:
        """Replace the object if its tag is still `tag`, durably. See `Storage.replace`."""
        final = self._file(path)
        with (
            _failures(path, self._root),
            exclusive_lock(self._root / ".lock", wait=True, owner=str(self._root)),
        ):
            # Artifacts may be a million, and are not looked through: where a killed publish wrote
            # one, the publish that finishes it writes again.
            sweep(self._root, but=(self._root / _ARTIFACTS,))
            for directory in self._written:
                sweep_directory(directory)
            try:
                found = _tag(final.read_bytes())
            except FileNotFoundError:
                found = None
            if found != tag:
                raise LockedError(
                    f"{path} changed since it was read: somebody else published",
                    "run the command again; it starts from what is live now",
                )
            replace_file(final, data)
        return _tag(data)

    def remove(self, path: str) -> None:
        """Remove an object durably, or find it gone. See `Storage.remove`."""
        final = self._file(path)
        with contextlib.suppress(NotFoundError), _failures(path, self._root):
            final.unlink()
            sync_directory(final.parent)
        # Elsewhere a publisher may be about to create the next object in the same directory.
        if path.startswith(_CLEARED):
            with contextlib.suppress(OSError):  # others are in it, or it is gone
                final.parent.rmdir()

    def remove_all(self, paths: Sequence[str]) -> None:
        """One by one. See `Storage.remove_all`."""
        for path in paths:
            self.remove(path)

    def unfinished(self, before: datetime) -> Sequence[Unfinished]:
        """None: what a killed publisher left half-written goes with the next commit."""
        del before
        return ()

    def abandon(self, upload: Unfinished) -> None:
        """There is none. See `Storage.abandon`."""

    def paths(self, prefix: str) -> Iterator[str]:
        """Every object under a prefix, sorted. See `Storage.paths`."""
        top = self._root / prefix.rpartition("/")[0]
        found = (
            file.relative_to(self._root).as_posix()
            for file in top.rglob("*")
            if file.is_file() and not file.name.startswith(".")
        )
        yield from sorted(path for path in found if path.startswith(prefix))

    def entries(self, prefix: str) -> Iterator[Entry]:
        """The same with size and age. See `Storage.entries`."""
        for path in self.paths(prefix):
            with contextlib.suppress(FileNotFoundError):
                found = (self._root / path).stat()
                modified = datetime.fromtimestamp(found.st_mtime, UTC)
                yield Entry(path, found.st_size, modified)

    def _file(self, path: str) -> Path:
        """The file of an object; a path may never lead out of the storage."""
        check_path(path)
        return self._root / path

    def _is_there(self, final: Path, path: str, sha256: str) -> bool:
        """Whether the identical object is there, durably; a different one is a rival."""
        try:
            with final.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return False
        if found != sha256:
            raise LockedError(
                f"{path} exists with sha256 {found}, expected {sha256}: a rival published it",
                "run the command again; it starts from what is live now",
            )
        # Whoever linked it may have been killed before the directory was synced.
        sync_directory(final.parent)
        return True


@contextlib.contextmanager
def _failures(path: str, root: Path) -> Iterator[None]:
    """The one place where errors of the file system become those of the protocol."""
    try:
        yield
    except _MISSING as error:
        raise NotFoundError(f"{path} is not in {root}") from error
    except OSError as error:
        raise RetryLaterError(f"{path} in {root}: {describe(error)}") from error


def _copy(source: bytes | Path, descriptor: int) -> str:
    """Write the source; the digest is of exactly the bytes that were written."""
    digest = hashlib.sha256()
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            view = memoryview(chunk)
            while view:
                view = view[os.write(descriptor, view) :]
    return digest.hexdigest()


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
