"""What the transport remembers from one cycle to the next: which mirror worked, and one ETag.

A hint, never trusted: the file may be torn, altered or gone at any time and is then ignored. It is
written only when what it says changes, and it says nothing new as long as the same mirror serves
the same timestamp: a check without news writes nothing.

The ETag belongs to the timestamp that the device has verified and stored. Only the hash of that is
here; a "304 Not Modified" stands for the stored bytes, which are checked again like received ones.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import TYPE_CHECKING

from client_reference.transport.policy import strong_etag
from client_reference.values import frozen

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Memory"]

_MAX_FILE = 4096
_FIELDS = ("mirror", "object", "etag", "sha256")


@frozen
class _Hint:
    """The content of the file. `mirror` is a URL; the rest is the ETag and what it stands for."""

    mirror: str = ""
    object: str = ""
    etag: str = ""
    sha256: str = ""


class Memory:
    """The hint, as it was read and as it will be kept.

    Args:
        path: of the file.
        timestamp: the verified timestamp that is stored; None if there is none.
    """

    def __init__(self, path: Path, timestamp: bytes | None) -> None:
        self._path = path
        self._timestamp = timestamp
        self._kept = _read(path)
        self._tags: dict[str, _Hint] = {}

    @property
    def mirror(self) -> str:
        """URL of the mirror that worked last time; empty if nothing is known."""
        return self._kept.mirror

    def condition(self, mirror: str, name: str) -> tuple[str, bytes]:
        """The ETag by which a mirror may answer "not modified", and the bytes that it stands for.

        Both are empty if the object must be sent whole.

        Args:
            mirror: URL of the mirror that will be asked.
            name: path of the object in the repository.
        """
        kept, data = self._kept, self._timestamp
        if data is None or (mirror, name) != (kept.mirror, kept.object):
            return "", b""
        return (kept.etag, data) if _sha256(data) == kept.sha256 else ("", b"")

    def received(self, mirror: str, name: str, etag: str | None, data: bytes) -> None:
        """A mirror sent an object whose ETag is worth remembering."""
        kept, digest = self._kept, _sha256(data)
        if (mirror, name, digest) == (kept.mirror, kept.object, kept.sha256):
            # A mirror that gives the same bytes another name each time must cause no writes.
            self._tags[mirror] = kept
        elif strong := strong_etag(etag):
            self._tags[mirror] = _Hint(mirror, name, strong, digest)
        else:
            self._tags.pop(mirror, None)

    def keep(self, mirror: str, *, first: bool) -> None:
        """Write down what worked, if that is news.

        Args:
            mirror: URL of the mirror that answered last and was not found to lie.
            first: whether it would be asked first anyway.
        """
        kept = self._kept
        hint = self._tags.get(mirror, kept if mirror == kept.mirror else _Hint(mirror))
        if hint == kept or (first and not kept.mirror and not hint.etag):
            return
        document = {name: vars(hint)[name] for name in _FIELDS}
        # Neither durable nor atomic: it is a hint. A full disk is no reason to fail either.
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(document), "utf-8")
            self._kept = hint


def _read(path: Path) -> _Hint:
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_MAX_FILE))
        found = [document[name] for name in _FIELDS]
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return _Hint()
    if not all(isinstance(each, str) for each in found):
        return _Hint()
    hint = _Hint(*found)
    # Without an ETag the rest would stand for nothing, and keep a new one from being written.
    good = hint.etag and strong_etag(hint.etag) == hint.etag
    return hint if good else _Hint(hint.mirror)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
