"""Copy what is live to another storage, from which devices can be served.

Rules:

* What is copied is the verified live state, never a listing: metadata verify as for a publish, and
  the bytes of each target are held against the signed digest before the destination gets them.
* The order is that of a publish, `timestamp.json` last: a device at the destination sees the state
  of before or that of after. Interrupted anywhere, running it again goes on.
* The destination never goes back: what it shows must be signed by this repository's own keys, and
  be no newer than what is copied. Objects are created, never replaced; another object in the place
  of one is an alarm.
* A target that is there in its full length is not copied again: its name has its digest, and it was
  verified when it was written. `check` reads it back all the same, as metadata always are.

Several roots at once become visible just before the timestamp; a device that comes in between tries
again. The inbox is not copied, nor are other epochs or the recovery anchor, which is published to
storages of its own.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO

from tuf.api.metadata import Root, Targets

from client_reference.errors import (
    ActionRequiredError,
    LockedError,
    NotFoundError,
    NotTrustedError,
    RefusedError,
)
from client_reference.trust import rootchain
from client_reference.trust.verified import BadSignatureError, accept_timestamp
from repo_tools.files import make_directory, sweep, temporary_file
from repo_tools.metadata.bins import bins_of, files_of, listed_bins
from repo_tools.metadata.repository import parse
from repo_tools.publishing.artifacts import stored_name
from repo_tools.publishing.live import (
    MAX_METADATA,
    TIMESTAMP,
    metadata_path,
    read_bins,
    root_chain_object,
)
from repo_tools.publishing.plan import Upload
from repo_tools.publishing.prepare import read_base
from repo_tools.storage.epoch import EpochStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tuf.api.metadata import TargetFile, Timestamp

    from repo_tools.metadata.repository import RepositoryState
    from repo_tools.storage.protocol import Storage
    from repo_tools.workspace import Workspace

__all__ = ["Mirrored", "mirror"]

_CHUNK = 1 << 20
_AT_ONCE = 64
"""Hash bins in memory; each time, the snapshot is read again."""
_EXPIRY_IGNORED = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Mirrored:
    """What a copy did.

    Attributes:
        version: of the timestamp that is there now.
        before: of the one that was there before; None if there was none.
        objects: how many were copied.
        length: bytes of them.
        present: how many were there.
    """

    version: int
    before: int | None
    objects: int
    length: int
    present: int


def mirror(
    workspace: Workspace,
    destination: Storage,
    *,
    check: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Mirrored:
    """Bring a destination to what is live.

    Args:
        workspace: whose storage is copied; its roots say what is trusted.
        destination: the other storage, with every epoch.
        check: read back what is there already.
        progress: told each object that is copied.

    Raises:
        ActionRequiredError: nothing is live, or a publish must be finished first.
        RefusedError: the destination is ahead of what is live.
        NotTrustedError: what is live does not verify, or the destination has something else.
        LockedError: somebody else writes to the destination as well.
        RetryLaterError: a storage failed; run it again.
    """
    source = workspace.storage()
    live = read_base(workspace, source)
    if live.state.timestamp is None or live.root_ahead:
        raise ActionRequiredError(
            "nothing is published yet, or a publish was interrupted", "firmroot publish"
        )
    if workspace.epoch:
        destination = EpochStorage(destination, workspace.epoch)
    tag, before = _check_destination(destination, live.state)
    copy = _Copy(destination, progress)
    directory = workspace.memory / "mirror"
    make_directory(directory)
    sweep(directory)
    for path, target in _targets(live.state):
        copy.target(source, path, target, directory, check=check)
    for bin_ in _bins(source, live.state):
        copy.role(source, bin_, directory, check=check)
    for upload in _metadata(live.state):
        if not copy.is_there(upload.path, upload.length, upload.sha256, check=True):
            copy.create(upload)
    if before is None or before.data != live.state.timestamp:
        progress(f"replace {TIMESTAMP}")
        destination.replace(TIMESTAMP, live.state.timestamp, tag)
    version = live.state.newest()["timestamp"].version
    old = None if before is None else before.version
    return Mirrored(version, old, copy.objects, copy.length, copy.present)


def _bins(source: Storage, state: RepositoryState) -> Iterator[RepositoryState]:
    """Every hash bin that is live, verified: some at a time, as a state that has no other role."""
    snapshot = state.parsed_snapshot()
    for role in state.roles:
        bins = bins_of(state.role(role))
        left = listed_bins(snapshot, bins) if bins is not None else []
        while left:
            names, left = left[:_AT_ONCE], left[_AT_ONCE:]
            found = read_bins(source, state, names)
            yield replace(state, roles={name: found.roles[name] for name in names})


@dataclass(frozen=True)
class _Before:
    data: bytes
    version: int


def _check_destination(
    destination: Storage, state: RepositoryState
) -> tuple[str | None, _Before | None]:
    """What is at the destination: the tag of its timestamp, and that itself."""
    following = metadata_path("root", len(state.roots) + 1)
    if _exists(destination, following):
        raise RefusedError(
            f"{destination.url} has {following}, which is newer than what is live here",
            "a mirror never goes back: is this the right destination, and this storage the newest?",
        )
    try:
        blob = destination.read(TIMESTAMP, MAX_METADATA)
    except NotFoundError:
        return None, None
    there = _authentic(destination, blob.data, state)
    ours = state.parsed_timestamp()
    if ours is None:
        raise AssertionError("a live state has a timestamp")
    if there.version > ours.version or there.snapshot_meta.version > ours.snapshot_meta.version:
        raise RefusedError(
            f"{destination.url} shows timestamp {there.version} and snapshot "
            f"{there.snapshot_meta.version}; live here are {ours.version} and "
            f"{ours.snapshot_meta.version}, which is older",
            "a mirror never goes back: is this storage the newest? If the keys of that timestamp "
            "were stolen, remove it from the mirror and run this again",
        )
    if there.version == ours.version and blob.data != state.timestamp:
        raise NotTrustedError(
            f"{destination.url} shows another timestamp {there.version} than what is live here",
            "somebody else signs with the online keys; find out who before anything else",
        )
    return blob.tag, _Before(blob.data, there.version)


def _exists(storage: Storage, path: str) -> bool:
    try:
        with storage.open(path):
            return True
    except NotFoundError:
        return False


def _authentic(destination: Storage, data: bytes, state: RepositoryState) -> Timestamp:
    """The timestamp of a mirror, which an older root of ours may vouch for."""
    for root in reversed(state.roots):
        try:
            return accept_timestamp(parse(root, Root, "root").signed, data, None, _EXPIRY_IGNORED)
        except BadSignatureError:
            continue
    raise NotTrustedError(
        f"{destination.url} has a {TIMESTAMP} that no root of this repository vouches for",
        "another repository lives there, or somebody wrote to it; name an empty destination",
    )


@contextmanager
def _verified(source: Storage, path: str, target: TargetFile, directory: Path) -> Iterator[Path]:
    """The bytes of a target in a file of this machine, which are those that were signed for."""
    expected = target.hashes["sha256"]
    with temporary_file(directory, "target") as (descriptor, file):
        digest, length = hashlib.sha256(), 0
        try:
            with source.open(path) as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
                    length += len(chunk)
                    view = memoryview(chunk)
                    while view:
                        view = view[os.write(descriptor, view) :]
        except NotFoundError as error:
            raise NotTrustedError(
                f"{path} is named by live metadata and is not in the storage",
                "restore it from a mirror or a backup; `firmroot verify` lists everything missing",
            ) from error
        if (digest.hexdigest(), length) != (expected, target.length):
            raise NotTrustedError(
                f"{path} is not the file that was signed for: sha256 {digest.hexdigest()}, "
                f"expected {expected}",
                "nothing of it was copied; `firmroot verify` says what else is wrong",
            )
        yield file


def _targets(state: RepositoryState) -> Iterator[tuple[str, TargetFile]]:
    """Every target file that a live role names, by storage path, each once."""
    found: dict[str, TargetFile] = {}
    for name in state.roles:
        role = state.role(name)
        for target in role.targets.values() if role is not None else ():
            for file in files_of(target):
                found[stored_name(file.path, file.hashes["sha256"])] = file
    yield from sorted(found.items())


def _metadata(state: RepositoryState) -> Iterator[Upload]:
    """Metadata in the order of a publish, without the timestamp; roots and their bundles last."""
    for role, data in sorted(state.roles.items(), key=lambda item: item[0] == "targets"):
        yield _upload(role, data, state)
    if state.snapshot is not None:
        yield _upload("snapshot", state.snapshot, state)
    for version, data in enumerate(state.roots, 1):
        yield Upload.of(metadata_path("root", version), data)
    path, bundle = root_chain_object(state)
    for last in rootchain.parse(bundle).blocks:
        part = rootchain.make(state.roots[:last])
        yield Upload.of(f"metadata/{rootchain.location(last)}", part)
    yield Upload.of(path, bundle)


def _upload(role: str, data: bytes, state: RepositoryState) -> Upload:
    return Upload.of(metadata_path(role, state.newest()[role].version), data)


class _Copy:
    """Objects on their way to the destination, and the count of them."""

    def __init__(self, destination: Storage, progress: Callable[[str], None]) -> None:
        self._destination = destination
        self._progress = progress
        self.objects = self.length = self.present = 0

    def is_there(self, path: str, length: int, digest: str, *, check: bool) -> bool:
        """Whether the destination has it, whole.

        Raises:
            NotTrustedError: it has something else.
        """
        try:
            with self._destination.open(path) as stream:
                found = stream.seek(0, os.SEEK_END)
                if found == length and check:
                    stream.seek(0)
                    found = length if _digest(stream) == digest else -1
        except NotFoundError:
            return False
        if found != length:
            raise NotTrustedError(
                f"{self._destination.url} has another {path} than what is signed",
                "the mirror is damaged, or somebody else writes to it: remove that object there "
                "and run this again",
            )
        self.present += 1
        return True

    def target(
        self, source: Storage, path: str, target: TargetFile, directory: Path, *, check: bool
    ) -> None:
        """Put a target there, verified on the way. Raises as `create`."""
        digest = target.hashes["sha256"]
        if not self.is_there(path, target.length, digest, check=check):
            with _verified(source, path, target, directory) as file:
                self.create(Upload(path, file, target.length, digest))

    def role(
        self, source: Storage, state: RepositoryState, directory: Path, *, check: bool
    ) -> None:
        """Put the roles of a state there, after what they name. Raises as `create`."""
        for path, target in _targets(state):
            self.target(source, path, target, directory, check=check)
        for role, data in state.roles.items():
            version = parse(data, Targets, role).signed.version
            upload = Upload.of(metadata_path(role, version), data)
            if not self.is_there(upload.path, upload.length, upload.sha256, check=True):
                self.create(upload)

    def create(self, upload: Upload) -> None:
        """Put it there. Raises as `is_there`, and what the storage raises."""
        self._progress(f"copy {upload.path}")
        try:
            self._destination.create(upload.path, upload.source, upload.sha256)
        except LockedError as error:
            raise NotTrustedError(
                f"{self._destination.url}: {error.message}",
                "somebody else writes to the mirror: find out who",
            ) from error
        self.objects += 1
        self.length += upload.length


def _digest(stream: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
