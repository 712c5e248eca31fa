"""Pure: what a repository says at one moment, as exact bytes and as parsed metadata.

The bytes that were hashed and signed are the bytes that are kept and written; parsed metadata are
only ever looked at. Nothing here verifies: whoever builds a `RepositoryState` has.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from client_reference.errors import NotTrustedError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["RepositoryState", "parse", "sha256"]

S = TypeVar("S", Root, Timestamp, Snapshot, Targets)


def sha256(data: bytes) -> str:
    """Hex digest, as metadata, tags and bases write it."""
    return hashlib.sha256(data).hexdigest()


def parse(data: bytes, kind: type[S], name: str) -> Metadata[S]:
    """Read a metadata file of a known kind.

    Raises:
        NotTrustedError: it is truncated, not metadata, or metadata of another kind.
    """
    try:
        metadata = Metadata[S].from_bytes(data)
    except DeserializationError as error:
        raise NotTrustedError(
            f"{name} is not readable TUF metadata ({len(data)} bytes): {error.__cause__ or error}",
            "it may be truncated; fetch it again or take it from git",
        ) from error
    if not isinstance(metadata.signed, kind):
        raise NotTrustedError(
            f"{name} is {metadata.signed.type} metadata, expected {kind.type}",
        )
    return metadata


@lru_cache(maxsize=4)
def _snapshot(data: bytes) -> Snapshot:
    """Of a repository with thousands of hash bins: many ask, and reading it takes long."""
    return parse(data, Snapshot, "snapshot").signed


@dataclass(frozen=True)
class RepositoryState:
    """All metadata of a repository.

    Attributes:
        roots: the root chain, oldest first; the last one is the newest.
        timestamp: None before the first publish.
        snapshot: likewise.
        roles: newest bytes of `targets` and of every delegated role, by role name.
    """

    roots: tuple[bytes, ...] = ()
    timestamp: bytes | None = None
    snapshot: bytes | None = None
    roles: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def root(self) -> Root | None:
        """The newest root, None before there is any."""
        return parse(self.roots[-1], Root, "root").signed if self.roots else None

    @property
    def targets(self) -> Targets | None:
        """The top-level targets role, None before there is any."""
        return self.role("targets")

    def role(self, name: str) -> Targets | None:
        """`targets` or a delegated role, None if it has no metadata yet."""
        data = self.roles.get(name)
        return None if data is None else parse(data, Targets, name).signed

    def parsed_snapshot(self) -> Snapshot | None:
        """The snapshot, None before the first publish. To be looked at only: it is shared."""
        return None if self.snapshot is None else _snapshot(self.snapshot)

    def parsed_timestamp(self) -> Timestamp | None:
        """The timestamp, None before the first publish."""
        if self.timestamp is None:
            return None
        return parse(self.timestamp, Timestamp, "timestamp").signed

    def newest(self) -> dict[str, Root | Timestamp | Snapshot | Targets]:
        """What each role says now, by role name; only roles that have metadata."""
        found = {
            "root": self.root,
            "timestamp": self.parsed_timestamp(),
            "snapshot": self.parsed_snapshot(),
            **{name: self.role(name) for name in self.roles},
        }
        return {name: signed for name, signed in found.items() if signed is not None}

    def with_roles(self, changes: Mapping[str, bytes]) -> RepositoryState:
        """The same repository with newer bytes of some roles."""
        return replace(self, roles={**self.roles, **changes})
