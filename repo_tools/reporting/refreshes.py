"""Timestamps that were live between two publishes: what `history` says of them, and their proof.

Each file of `history/refreshes` holds the bytes as they were live (`publishing.replaced`). A
refresh changes versions and times and nothing else: what else one says, no record accounts for.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tuf.api.metadata import Metadata, Snapshot, Timestamp

from client_reference.errors import NotTrustedError
from client_reference.trust.verified import accept_snapshot, accept_timestamp, first_root
from repo_tools.metadata.edits import ISSUED_FIELD, ROOT_FIELD
from repo_tools.metadata.repository import parse, sha256
from repo_tools.publishing.journal import read_kept
from repo_tools.publishing.replaced import refresh_paths, snapshot_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from repo_tools.metadata.repository import RepositoryState
    from repo_tools.workspace import Workspace

__all__ = ["Refresh", "Renewals", "check_refresh", "in_words", "read_refreshes", "runs"]

_EXPIRY_IGNORED = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Refresh:
    """One timestamp that was live and that no publish of this history made.

    Attributes:
        name: of the file.
        digest: of its bytes.
        data: its bytes.
        signed: what it says.
        signed_by: names of the keys whose signatures it carries, as they are called today.
        snapshot_signed_by: likewise, of the snapshot that it names; empty if that is not here.
    """

    name: str
    digest: str
    data: bytes
    signed: Timestamp
    signed_by: tuple[str, ...]
    snapshot_signed_by: tuple[str, ...]

    @property
    def when(self) -> str:
        """As the machine that signed it said, UTC."""
        return str(self.signed.unrecognized_fields.get(ISSUED_FIELD, ""))

    @property
    def facts(self) -> dict[str, object]:
        """For scripts."""
        return {
            "name": self.name,
            "when": self.when,
            "version": self.signed.version,
            "snapshot": self.signed.snapshot_meta.version,
            "sha256": self.digest,
            "signed_by": list(self.signed_by),
            "snapshot_signed_by": list(self.snapshot_signed_by),
        }


@dataclass(frozen=True)
class Renewals:
    """Refreshes with no publish between them; at least one.

    Attributes:
        each: all of them.
        snapshots: those that renewed the snapshot as well.
    """

    each: Sequence[Refresh]
    snapshots: Sequence[Refresh]

    @property
    def when(self) -> str:
        """When the first one was."""
        return self.each[0].when

    def lines(self) -> Iterator[str]:
        """How often, from when to when, and whose keys signed."""
        first, last = self.each[0], self.each[-1]
        names = dict.fromkeys(name for each in self.each for name in each.signed_by)
        if first is last:
            yield f"{self.when}  refreshed: timestamp {first.signed.version}"
        else:
            yield (
                f"{self.when}  refreshed {len(self.each)} times until {last.when}: "
                f"timestamp {first.signed.version} to {last.signed.version}"
            )
        yield f"  signed by {', '.join(names)}"
        for each in self.snapshots:
            signers = ", ".join(each.snapshot_signed_by) or "nobody known: it is not here"
            yield f"  snapshot {each.signed.snapshot_meta.version}, signed by {signers}"


def read_refreshes(workspace: Workspace) -> tuple[Refresh, ...]:
    """Every one of this epoch, by version.

    Raises:
        NotTrustedError: a file cannot be read; names it.
    """
    return tuple(_read(workspace, path) for path in refresh_paths(workspace))


def _read(workspace: Workspace, path: Path) -> Refresh:
    data, name = path.read_bytes(), f"history/refreshes/{path.name}"
    try:
        metadata: Metadata[Timestamp] = parse(data, Timestamp, name)
    except NotTrustedError as error:
        raise NotTrustedError(error.message, f"take it from git: {name}") from error
    signers = tuple(sorted(workspace.key_name(keyid) for keyid in metadata.signatures))
    listed = _snapshot_signers(workspace, snapshot_digest(metadata.signed))
    return Refresh(path.name, sha256(data), data, metadata.signed, signers, listed)


def _snapshot_signers(workspace: Workspace, digest: str) -> tuple[str, ...]:
    """Names of the keys that signed it, as far as it is here; the proof says where it is not."""
    if not digest:
        return ()
    with contextlib.suppress(NotTrustedError):
        metadata: Metadata[Snapshot] = parse(read_kept(workspace, digest), Snapshot, "snapshot")
        return tuple(sorted(workspace.key_name(keyid) for keyid in metadata.signatures))
    return ()


def check_refresh(workspace: Workspace, each: Refresh, before: RepositoryState) -> RepositoryState:
    """The state that was live from then on, with the checks of the device's own code.

    Args:
        workspace: with the roots, and the bytes of snapshots.
        each: the timestamp.
        before: what was live before it, verified.

    Raises:
        NotTrustedError: it does not verify, is no newer, or changes more than a refresh may.
    """
    trusted, listed = before.parsed_timestamp(), before.parsed_snapshot()
    roots, number = workspace.roots(), each.signed.unrecognized_fields.get(ROOT_FIELD)
    if not isinstance(number, int) or not 0 < number <= len(roots):
        raise NotTrustedError(f"it was made under root {number}, which metadata/root does not have")
    if number < len(before.roots):
        # Attack: a thief of a key that a root took away signs what follows that root.
        raise NotTrustedError(
            f"it was made under root {number}, and root {len(before.roots)} was live before it"
        )
    root = first_root(roots[number - 1])
    timestamp = accept_timestamp(root, each.data, trusted, _EXPIRY_IGNORED)
    if timestamp is trusted:
        raise NotTrustedError(f"another timestamp of version {timestamp.version} was live as well")
    digest = snapshot_digest(timestamp)
    if not digest:
        raise NotTrustedError("it names its snapshot by no digest")
    data = read_kept(workspace, digest)
    snapshot = accept_snapshot(root, timestamp, data, listed, _EXPIRY_IGNORED)
    if changed := sorted(_changed(listed, snapshot)):
        raise NotTrustedError(
            f"snapshot {snapshot.version} has another {', '.join(changed)}, and no record says who "
            "published that"
        )
    return replace(before, roots=roots[:number], timestamp=each.data, snapshot=data)


def _changed(before: Snapshot | None, after: Snapshot) -> set[str]:
    known = before.meta if before is not None else {}
    names = known.keys() | after.meta.keys()
    return {name.removesuffix(".json") for name in names if known.get(name) != after.meta.get(name)}


def runs(versions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Pure: the versions that are not there, from the first to the last, as ranges."""
    for one, other in itertools.pairwise(versions):
        if other > one + 1:
            yield one + 1, other - 1


def in_words(missing: Sequence[tuple[int, int]]) -> str:
    """Pure: ranges of versions, to be read."""
    return ", ".join(f"{a} to {b}" if a < b else str(a) for a, b in missing)
