"""What is live: the state that the origin's `timestamp.json` references, verified from a root.

Truth is never a bucket listing. Reading verifies with the checks of the device's own code, but it
consults no clock: whoever is about to renew an expired state must be able to read it. Expiry is
judged by the rehearsal and by `verify`.

The high-water mark is what was live before, kept outside the storage: a storage that goes back to
an older state, or shows another state of the same version, is not believed. `.firmroot` has what
this machine saw; git has what all of them published (`repo_tools.publishing.journal`).
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from tuf.api.metadata import TOP_LEVEL_ROLE_NAMES

from client_reference.errors import NotFoundError, NotTrustedError
from client_reference.trust import rootchain
from client_reference.trust.verified import (
    BadSignatureError,
    MalformedError,
    MismatchError,
    accept_snapshot,
    accept_targets,
    accept_timestamp,
    first_root,
    listed,
    next_root,
)
from repo_tools.metadata.bins import builds_of, check_bins
from repo_tools.metadata.edits import ROOT_FIELD
from repo_tools.metadata.repository import RepositoryState, sha256
from repo_tools.publishing.cache import NO_CACHE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Self

    from tuf.api.metadata import MetaFile, Root, Snapshot, Targets

    from repo_tools.publishing.cache import Cache
    from repo_tools.storage.protocol import Blob

__all__ = [
    "MAX_METADATA",
    "TIMESTAMP",
    "HighWater",
    "Live",
    "Mark",
    "Readable",
    "metadata_objects",
    "metadata_path",
    "read_bins",
    "read_live",
    "root_chain_object",
]

MAX_METADATA = 64 * 1024 * 1024
"""Bytes that the release side reads of one metadata object; devices allow far less."""

TIMESTAMP = "metadata/timestamp.json"

_EXPIRY_IGNORED = datetime.min.replace(tzinfo=UTC)


class Readable(Protocol):
    """The part of a storage that reading needs; `verify` reads over HTTP."""

    def read(self, path: str, max_length: int) -> Blob:
        """See `Storage.read`."""


@dataclass(frozen=True)
class Live:
    """A verified live state.

    Attributes:
        state: its metadata; `timestamp` is None before the first publish.
        tag: of `timestamp.json` as it was read, for `Storage.replace`; None before the first.
        root_ahead: the newest root is there, but not yet a timestamp that was made after it: a
            publish was interrupted past the point of no return, and must be finished.
    """

    state: RepositoryState
    tag: str | None
    root_ahead: bool = False


def metadata_path(role: str, version: int) -> str:
    """The storage path of a metadata object of that version."""
    return TIMESTAMP if role == "timestamp" else f"metadata/{version}.{role}.json"


def root_chain_object(state: RepositoryState) -> tuple[str, bytes]:
    """Pure: storage path and bytes of the bundle of the newest root.

    Args:
        state: with the whole chain, from version 1 on.
    """
    return f"metadata/{rootchain.location(len(state.roots))}", rootchain.make(state.roots)


def metadata_objects(state: RepositoryState) -> dict[str, bytes]:
    """Pure: every metadata object of a state that is signed, by storage path."""
    files = [("root", data) for data in state.roots] + list(_below_root(state).items())
    return {metadata_path(role, _version(data)): data for role, data in files}


def _below_root(state: RepositoryState) -> dict[str, bytes]:
    """The newest file of each role but root."""
    files = {"timestamp": state.timestamp, "snapshot": state.snapshot, **state.roles}
    return {role: data for role, data in files.items() if data is not None}


def _version(data: bytes) -> int:
    """The version of a file that was verified before."""
    return int(json.loads(data)["signed"]["version"])


def read_live(
    storage: Readable,
    trusted_root: bytes,
    cache: Cache = NO_CACHE,
    *,
    root_later: bool = False,
) -> Live:
    """Read and verify the live state.

    Args:
        storage: the origin.
        trusted_root: a root that the workspace trusts; newer ones are followed from it.
        cache: of what this machine read before, by digest.
        root_later: do not ask for a newer root if the timestamp was made under this one and knows
            of none. For who asks before anything becomes visible.

    Raises:
        NotTrustedError: something there does not verify.
        RetryLaterError: the storage does not answer.
    """
    if root_later and (found := _read_without_root(storage, trusted_root, cache)) is not None:
        return found
    chain, roots = _read_roots(storage, trusted_root)
    try:
        blob = storage.read(TIMESTAMP, MAX_METADATA)
    except NotFoundError:
        return Live(RepositoryState(roots=chain), None)
    try:
        state = _read_below(storage, roots[-1], blob.data, cache)
        ahead = _made_before(blob.data, roots[-1])
    except BadSignatureError:
        # A root with new keys and nothing yet signed with them: what its predecessor trusted is
        # the base of the publish that was interrupted. No device goes on from there.
        if len(roots) == 1:
            raise
        state, ahead = _read_below(storage, roots[-2], blob.data, cache), True
    return Live(replace(state, roots=chain), blob.tag, ahead)


def _read_without_root(storage: Readable, trusted_root: bytes, cache: Cache) -> Live | None:
    """What is live, if it is of the root that is trusted, and says that there is no newer one."""
    root = first_root(trusted_root)
    with contextlib.suppress(NotFoundError, NotTrustedError):
        blob = storage.read(TIMESTAMP, MAX_METADATA)
        state = _read_below(storage, root, blob.data, cache)
        if json.loads(blob.data)["signed"].get(ROOT_FIELD) == root.version:
            return Live(replace(state, roots=(trusted_root,)), blob.tag)
    return None


def _made_before(timestamp: bytes, root: Root) -> bool:
    """Whether a timestamp says that it knew older roots only. One that does not say is current."""
    hint = json.loads(timestamp)["signed"].get(ROOT_FIELD)
    return isinstance(hint, int) and hint < root.version


def _read_below(
    storage: Readable, root: Root, timestamp_data: bytes, cache: Cache
) -> RepositoryState:
    """Everything under a root, from the bytes of the timestamp down."""
    with _named(TIMESTAMP):
        timestamp = accept_timestamp(root, timestamp_data, None, _EXPIRY_IGNORED)
    meta = timestamp.snapshot_meta
    snapshot_data = _read_listed(storage, "snapshot", meta, cache)
    with _named(metadata_path("snapshot", meta.version)):
        snapshot = accept_snapshot(root, timestamp, snapshot_data, None, _EXPIRY_IGNORED)
    roles = _read_roles(storage, root, snapshot, cache)
    return RepositoryState((), timestamp_data, snapshot_data, roles)


def _read_roots(storage: Readable, trusted_root: bytes) -> tuple[tuple[bytes, ...], list[Root]]:
    chain, roots = [trusted_root], [first_root(trusted_root)]
    while True:
        path = metadata_path("root", roots[-1].version + 1)
        try:
            data = storage.read(path, MAX_METADATA).data
        except NotFoundError:
            return tuple(chain), roots
        try:
            roots.append(next_root(roots[-1], data))
        except (MalformedError, MismatchError, BadSignatureError) as error:
            if isinstance(error, BadSignatureError) and error.unusable:
                raise  # of whose library is too old here
            raise _planted(path, roots[-1].version, error) from error
        chain.append(data)


def _planted(path: str, before: int, error: NotTrustedError) -> NotTrustedError:
    """Nothing is to be restored where nothing was published, and devices go no further than that.

    Attack: whoever may write to the storage puts something under the name of the next root.
    """
    kept = f"metadata/root/{before + 1}.json"
    return NotTrustedError(
        f"{path} does not follow root {before}: {error.message}",
        f"git pull; if there is no {kept} then, nobody published it and it must go: "
        "docs/runbooks/planted-root.md; if there is, put that back",
    )


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    """Name the object that is damaged: its publisher asks no other mirror, and can mend it."""
    try:
        yield
    except (MalformedError, MismatchError) as error:
        raise type(error)(
            f"{path} is damaged, or is not what was published: {error.message}",
            "restore it from a mirror or a backup, then run the command again",
        ) from error


def _read_roles(
    storage: Readable, root: Root, snapshot: Snapshot, cache: Cache
) -> dict[str, bytes]:
    """Targets and every role that it delegates to and the snapshot lists."""
    newest = listed(snapshot, "targets")
    data = _read_listed(storage, "targets", newest, cache)
    with _named(metadata_path("targets", newest.version)):
        targets = accept_targets(root, "targets", snapshot, data, _EXPIRY_IGNORED)
    roles = {"targets": data}
    delegations = targets.delegations
    for name in (delegations.roles if delegations else None) or ():
        if (entry := snapshot.meta.get(f"{name}.json")) is not None:
            roles[name] = _read_listed(storage, name, entry, cache)
            with _named(metadata_path(name, entry.version)):
                accept_targets(targets, name, snapshot, roles[name], _EXPIRY_IGNORED)
    return roles


def read_bins(
    storage: Readable, state: RepositoryState, names: Iterable[str], cache: Cache = NO_CACHE
) -> RepositoryState:
    """The state with these hash bins, each read and verified unless it is there already.

    A bin that the snapshot does not list has never been written: it is left out.

    Args:
        storage: the origin.
        state: verified, and never with a bin of its own choice: nobody needs all of them.
        names: of bins whose builds role is in the state.
        cache: of what this machine read before.

    Raises:
        NotTrustedError: one does not verify, or is missing.
        RefusedError: its builds role lets other keys sign for it.
        RetryLaterError: the storage does not answer.
    """
    snapshot, targets = state.parsed_snapshot(), state.targets
    if snapshot is None or targets is None:
        return state
    found: dict[str, bytes] = {}
    parents: dict[str, Targets] = {}
    for name in dict.fromkeys(names):
        entry = snapshot.meta.get(f"{name}.json")
        if name in state.roles or entry is None:
            continue
        above = builds_of(name)
        if above not in parents:
            if (parent := state.role(above)) is None:
                raise NotTrustedError(f"the snapshot lists {name}, and there is no {above}")
            check_bins(above, parent, targets)
            parents[above] = parent
        path, builds = metadata_path(name, entry.version), parents[above]
        if (known := cache.recall(path)) is not None:
            with contextlib.suppress(NotTrustedError):
                accept_targets(builds, name, snapshot, known, _EXPIRY_IGNORED)
                found[name] = known
                continue
        data = _read_listed(storage, name, entry, NO_CACHE)
        with _named(path):
            accept_targets(builds, name, snapshot, data, _EXPIRY_IGNORED)
        cache.remember(path, data)
        found[name] = data
    return state.with_roles(found)


def _read_listed(storage: Readable, role: str, meta: MetaFile, cache: Cache) -> bytes:
    path = metadata_path(role, meta.version)
    try:
        return cache.read(storage, path, MAX_METADATA, (meta.hashes or {}).get("sha256", ""))
    except NotFoundError as error:
        raise NotTrustedError(
            f"{path} is referenced by live metadata and is not in the storage",
            "restore it from a mirror or a backup; `firmroot verify` lists everything missing",
        ) from error


@dataclass(frozen=True)
class Mark:
    """One object that was seen live.

    Attributes:
        version: of the metadata.
        sha256: hex digest of its bytes.
        source: the file that knows of it, for messages.
    """

    version: int
    sha256: str
    source: str = field(default=".firmroot/high-water.json", compare=False)

    @classmethod
    def of(cls, data: bytes, source: str) -> Self:
        """The mark of a metadata file that was live.

        Raises:
            NotTrustedError: it is damaged; guessing would disarm it.
        """
        try:
            return cls(_version(data), sha256(data), source)
        except (ValueError, KeyError, TypeError) as error:
            raise NotTrustedError(
                f"{source} is damaged: {error!r}",
                "take it from git: it says what was live before",
            ) from error


@dataclass(frozen=True)
class HighWater:
    """The newest live state that was ever seen, by role name. A pure value."""

    marks: Mapping[str, Mark] = field(default_factory=dict)

    @classmethod
    def of(cls, state: RepositoryState) -> Self:
        """The mark that a state leaves."""
        files = _below_root(state)
        if state.roots:
            files["root"] = state.roots[-1]
        return cls({role: Mark(_version(data), sha256(data)) for role, data in files.items()})

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read a mark that `to_json` wrote.

        Raises:
            NotTrustedError: it is damaged; guessing would disarm it.
        """
        try:
            document: dict[str, Any] = json.loads(data)
            marks = {
                str(role): Mark(int(mark["version"]), str(mark["sha256"]))
                for role, mark in document["roles"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise NotTrustedError(
                f"the high-water mark is damaged: {error!r}",
                "if `firmroot verify` finds nothing wrong with the storage, remove "
                ".firmroot/high-water.json and run the command again",
            ) from error
        return cls(marks)

    def raised(self, other: HighWater) -> HighWater:
        """This mark, and where the other one is newer that one; it never falls."""
        newer = {
            role: mark
            for role, mark in other.marks.items()
            if role not in self.marks or mark.version > self.marks[role].version
        }
        return HighWater({**self.marks, **newer})

    def to_json(self) -> bytes:
        """The mark as a file."""
        document = {
            "schema": 1,
            "roles": {
                role: {"version": mark.version, "sha256": mark.sha256}
                for role, mark in sorted(self.marks.items())
            },
        }
        return json.dumps(document, indent=1).encode() + b"\n"

    def check(self, state: RepositoryState) -> None:
        """Refuse a live state that is older than, or another than, what was seen before.

        Raises:
            NotTrustedError: the storage was rolled back or forked.
        """
        found = HighWater.of(state).marks
        hint = (
            "somebody rolled the storage back or writes to it without this workspace; find out who "
            "before publishing anything, then restore what is newer from a mirror or a backup"
        )
        for role, mark in self.marks.items():
            if role not in found and role not in TOP_LEVEL_ROLE_NAMES:
                continue  # its delegation was removed; `targets` itself cannot go back
            if role not in found:
                raise NotTrustedError(
                    f"{role} version {mark.version} was live before and is gone ({mark.source})",
                    hint,
                )
            if found[role].version < mark.version:
                raise NotTrustedError(
                    f"live {role} has version {found[role].version}, but version {mark.version} "
                    f"was live before: a rollback of the storage ({mark.source})",
                    hint,
                )
            if found[role].version == mark.version and found[role].sha256 != mark.sha256:
                raise NotTrustedError(
                    f"live {role} version {mark.version} is not the one that was live before "
                    f"(sha256 {found[role].sha256}, expected {mark.sha256} of {mark.source})",
                    hint,
                )
