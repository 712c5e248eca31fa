"""Each timestamp that was live is kept, those of refreshes too, so that history has every state.

A refresh runs where there is no git. So it keeps what it is about to replace in the storage, under
its version (`metadata/12.timestamp.json`; no device asks for that), unless a record here has it.
The next publish, or clean-up, takes these into `history/refreshes/`, with the snapshots that they
name; a file there is the bytes as they were live, so two clones that take the same do not conflict.

What cannot be verified is not taken: whoever may write to the storage could put it there.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING

from tuf.api.metadata import Timestamp

from client_reference.errors import LockedError, NotFoundError, NotTrustedError
from client_reference.trust.verified import BadSignatureError, MalformedError, authentic, first_root
from repo_tools.files import create_file
from repo_tools.metadata.repository import parse, sha256
from repo_tools.publishing.journal import MAX_JUMP, kept_path, record_path, records
from repo_tools.publishing.live import MAX_METADATA, TIMESTAMP, metadata_path
from repo_tools.signing.ceremony import DIGITS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tuf.api.metadata import Root

    from repo_tools.storage.protocol import Storage
    from repo_tools.workspace import Workspace

__all__ = [
    "keep",
    "refresh_name",
    "refresh_paths",
    "replaced_path",
    "snapshot_digest",
    "take",
    "take_before",
    "taken_since",
    "was_live",
]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_TIMESTAMP = 64 * 1024
_TOLD = 100
_HOLE = 8
"""As many versions in a row are missing where they jumped; fewer, where an older tool refreshed."""


def replaced_path(version: int) -> str:
    """Where the storage keeps the timestamp of a version that is no longer live."""
    return f"metadata/{version}.timestamp.json"


def refresh_paths(workspace: Workspace) -> list[Path]:
    """Timestamps that were live and that no publish made, by version; of this epoch."""
    return sorted((workspace.history / "refreshes").glob("*.json"), key=_version)


def refresh_name(version: int, digest: str) -> str:
    """Of the file that has a timestamp of that version and digest."""
    return f"{version:06d}-{digest[:DIGITS]}.json"


def snapshot_digest(timestamp: Timestamp) -> str:
    """Pure: the digest of the snapshot that it names; empty if it names none, as ours always do."""
    digest = (timestamp.snapshot_meta.hashes or {}).get("sha256", "")
    return digest if _DIGEST.fullmatch(digest) else ""


def _version(path: Path) -> int:
    number = path.name.partition("-")[0]
    return int(number) if number.isdecimal() else 0


def keep(
    workspace: Workspace, storage: Storage, timestamp: bytes, progress: Callable[[str], None]
) -> None:
    """Before a refresh replaces it: keep the live timestamp in the storage.

    Raises:
        RetryLaterError: the storage failed.
    """
    version = parse(timestamp, Timestamp, "timestamp").signed.version
    if _is_recorded(workspace, version, timestamp):
        return
    path = replaced_path(version)
    try:
        storage.create(path, timestamp, sha256(timestamp))
    except LockedError:
        # Attack: somebody takes the name, so that every refresh fails and the repository expires.
        # What is lost is a line of history, and that shows: `history --verify` counts it.
        progress(f"{path} is not what was live: history will lack that timestamp")


def take(
    workspace: Workspace, storage: Storage, timestamp: bytes | None, progress: Callable[[str], None]
) -> None:
    """Before a publish replaces it: take what was live since the last record into `history/`.

    Killed anywhere and run again, it finishes. Versions are taken from both ends of the range up to
    a hole of `_HOLE`: refreshes of an older firmroot kept none, and a jump leaves a wide one.

    Args:
        workspace: the caller holds its lock.
        storage: the origin.
        timestamp: what is live, verified; None before the first publish.
        progress: told how far it is.

    Raises:
        RetryLaterError: the storage failed.
    """
    since = _last_recorded(workspace)
    if timestamp is None or not since:
        return
    live = parse(timestamp, Timestamp, "timestamp").signed.version
    have = {_version(path) for path in refresh_paths(workspace)}
    between = [version for version in range(since + 1, live) if version not in have]
    roots = _roots_since(workspace, since)
    taken = _take_while(workspace, storage, roots, between, progress)
    rest = list(reversed(between[taken:]))
    _take_while(workspace, storage, roots, rest, progress)
    if live > since:
        _keep(workspace, storage, timestamp)


def take_before(workspace: Workspace, progress: Callable[[str], None]) -> None:
    """Before the first publish of an epoch: what was live last in the epoch before.

    No publish there will take it. What is live there may be a thief's: then only what was kept
    before that is taken, as far as roots of this repository vouch for it.

    Raises:
        RetryLaterError: the storage failed.
    """
    before = workspace.before()
    if before is None or _last_recorded(workspace):
        return
    since = _last_recorded(before)
    storage, roots = before.storage(), _roots_since(before, since)
    live = _live_of(roots, storage)
    if live is None:
        _take_while(before, storage, roots, range(since + 1, since + MAX_JUMP), progress)
    take(before, storage, live, progress)


def _live_of(roots: Sequence[Root], storage: Storage) -> bytes | None:
    """What is live, if a root vouches for it."""
    with contextlib.suppress(NotFoundError, NotTrustedError):
        data = storage.read(TIMESTAMP, _MAX_TIMESTAMP).data
        if _is_ours(roots, data, parse(data, Timestamp, TIMESTAMP).signed.version):
            return data
    return None


def was_live(workspace: Workspace, storage: Storage, timestamp: bytes) -> bool:
    """Whether that timestamp, signed here, was live before what is live now.

    A refresh of somebody else has kept it in the storage, or a publish of theirs in `history/`.

    Raises:
        RetryLaterError: the storage failed.
    """
    version = parse(timestamp, Timestamp, "timestamp").signed.version
    if (workspace.history / "refreshes" / refresh_name(version, sha256(timestamp))).exists():
        return True
    with contextlib.suppress(NotFoundError, NotTrustedError):
        return storage.read(replaced_path(version), _MAX_TIMESTAMP).data == timestamp
    return False


def taken_since(workspace: Workspace) -> list[str]:
    """Names of what was taken after the newest record: the next record says them."""
    since = _last_recorded(workspace)
    return [path.name for path in refresh_paths(workspace) if _version(path) > since]


def _take_while(
    workspace: Workspace,
    storage: Storage,
    roots: Sequence[Root],
    versions: Sequence[int],
    progress: Callable[[str], None],
) -> int:
    """How many were asked for: all, or those before `_HOLE` in a row that are not there."""
    missing = 0
    for number, version in enumerate(versions):
        if number % _TOLD == _TOLD - 1:
            progress(f"take refreshes into history: {number + 1}")
        try:
            data = _read(storage, roots, version)
        except NotFoundError:
            missing += 1
            if missing == _HOLE:
                return number + 1
            continue
        except NotTrustedError as error:
            # Attack: two of these, and what lies between them would be in no history.
            progress(f"{replaced_path(version)} is not taken into history: {error.message}")
        else:
            _keep(workspace, storage, data)
        missing = 0
    return len(versions)


def _read(storage: Storage, roots: Sequence[Root], version: int) -> bytes:
    """What the storage has of that version.

    Raises:
        NotFoundError: nothing.
        NotTrustedError: something else; says what.
    """
    data = storage.read(replaced_path(version), _MAX_TIMESTAMP).data
    if not _is_ours(roots, data, version):
        raise NotTrustedError("it does not verify")
    return data


def _is_ours(roots: Sequence[Root], data: bytes, version: int) -> bool:
    """Whether a root of this repository vouches for it, under that version."""
    for root in roots:
        with contextlib.suppress(BadSignatureError, MalformedError):
            return authentic(Timestamp, root, Timestamp.type, data).version == version
    return False


def _keep(workspace: Workspace, storage: Storage, timestamp: bytes) -> None:
    """The snapshot that it names comes first: what is half taken is taken again."""
    signed = parse(timestamp, Timestamp, "timestamp").signed
    digest = snapshot_digest(signed)
    if not kept_path(workspace, digest).exists():
        path = metadata_path("snapshot", signed.snapshot_meta.version)
        with contextlib.suppress(NotFoundError, FileExistsError):
            data = storage.read(path, MAX_METADATA).data
            if sha256(data) == digest:
                create_file(kept_path(workspace, digest), data)
    name = refresh_name(signed.version, sha256(timestamp))
    with contextlib.suppress(FileExistsError):
        create_file(workspace.history / "refreshes" / name, timestamp)


def _last_recorded(workspace: Workspace) -> int:
    """The timestamp of the newest publish that git knows; 0 if it knows none."""
    stems = (path.stem for path in records(workspace))
    return max((int(stem) for stem in stems if stem.isdecimal()), default=0)


def _roots_since(workspace: Workspace, since: int) -> list[Root]:
    """Roots that can vouch for what followed that record, the newest first.

    Attack: a thief of a key that a root took away signs what follows that root.
    """
    number = 1
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        number = int(json.loads(record_path(workspace, since).read_bytes())["root"])
    return [first_root(data) for data in reversed(workspace.roots()[number - 1 :])]


def _is_recorded(workspace: Workspace, version: int, timestamp: bytes) -> bool:
    try:
        record = json.loads(record_path(workspace, version).read_bytes())
        return bool(record["timestamp"]["sha256"] == sha256(timestamp))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False
