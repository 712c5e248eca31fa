"""Clean-up: objects of the storage that no state needs, older than a window, are removed.

What is never removed, however old it is:

* roots, root chains, `timestamp.json`, metadata of other epochs, and whatever does not have the
  name of an object that a publish writes;
* everything that the live state references;
* everything of an older state that some device could still have accepted within the window: its
  snapshot had not expired before the window began;
* target files of other epochs, whose devices may still be on their way;
* what a kept manifest offers, stepping stones first of all, with the lists of segments;
* what this workspace has signed and not published;
* whatever is younger than the window: a publish may have uploaded it and not yet committed.

Parts of large objects whose upload was begun before the window and never ended go as well: no
listing shows them, and the storage is paid for them. Should somebody still go on with one after all
that time, their publish begins it anew.

An old object may become needed again at this very moment: a publish finds the identical bytes there
and relies on them. Age does not help against that, so a clean-up is *fenced*: it puts a mark into
the storage, then has `timestamp.json` replaced (a refresh), and only then looks and removes. A
publish that did not see the mark began before it, and can no longer commit: its base has gone. One
that sees the mark waits. The mark is removed last; killed anywhere, the next clean-up goes on.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuf.api.metadata import Snapshot, Targets

from client_reference import manifest as formats
from client_reference.errors import LockedError, NotFoundError, NotTrustedError
from client_reference.payload.segments import SUFFIX
from client_reference.strictjson import format_time, parse_time
from repo_tools.metadata.bins import files_of
from repo_tools.metadata.repository import parse
from repo_tools.publishing.artifacts import stored_name
from repo_tools.publishing.live import MAX_METADATA
from repo_tools.storage.epoch import epoch_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from typing import Self

    from repo_tools.metadata.repository import RepositoryState
    from repo_tools.storage.protocol import Entry, Storage, Unfinished

__all__ = [
    "MARK",
    "Garbage",
    "begin",
    "check_no_sweep",
    "end",
    "find_garbage",
    "is_marked",
    "sweep",
]

MARK = "gc/running.json"
"""The fence; never served."""

_BATCH = 1000
_MAX_MARK = 4096
_METADATA = re.compile(
    r"metadata/(?:e([1-9]\d*)/)?([1-9]\d*)\.([a-z0-9]+(?:-[a-z0-9]+)*(?:_-[0-9a-f]+)?)\.json"
)
_TARGET = re.compile(r"targets/((?:.+/)?)([0-9a-f]{64})\.([^/]+)")
_UNFINISHED = re.compile(r"inbox/submissions/([0-9a-f]{64})/.+")
_ANSWER = re.compile(r"inbox/answers/([0-9a-f]{64})\.json")


@dataclass(frozen=True)
class Garbage:
    """What nobody needs.

    Attributes:
        entries: sorted by path.
        kept: how many objects stay.
        strangers: old objects that no publish would write; they are never touched.
        unfinished: uploads that somebody began before the window and never ended.
    """

    entries: tuple[Entry, ...]
    kept: int
    strangers: tuple[str, ...]
    unfinished: tuple[Unfinished, ...] = ()

    @property
    def length(self) -> int:
        """Bytes of all of them."""
        return sum(entry.length for entry in self.entries)


def find_garbage(
    storage: Storage,
    state: RepositoryState,
    epoch: int,
    waiting: Iterable[bytes],
    cutoff: datetime,
) -> Garbage:
    """Look for what can go.

    Args:
        storage: the whole one, with every epoch.
        state: what is live; read after the fence, and before this.
        epoch: of that state.
        waiting: metadata of this workspace that is signed and not live.
        cutoff: what is younger stays.

    Raises:
        NotTrustedError, RetryLaterError: as the storage.
    """
    entries = list(storage.entries(""))
    needed = _Needed(storage, epoch, {entry.path for entry in entries})
    for data in (state.snapshot, *state.roles.values(), *waiting):
        if data is not None:
            needed.metadata(data)
    for entry in entries:
        match = _METADATA.fullmatch(entry.path)
        if match is None or match[3] in {"root", "timestamp"}:
            continue
        if int(match[1] or 0) != epoch or entry.modified >= cutoff:
            needed.object(entry.path)
        elif match[3] == "snapshot":
            needed.object(entry.path, since=cutoff)
    inbox = _Inbox.of(entries, cutoff)
    old = [entry for entry in entries if entry.modified < cutoff]
    garbage = [entry for entry in old if needed.is_garbage(entry.path, inbox)]
    return Garbage(
        entries=tuple(sorted(garbage, key=lambda entry: entry.path)),
        kept=len(entries) - len(garbage),
        strangers=tuple(sorted(entry.path for entry in old if _is_strange(entry))),
        unfinished=tuple(storage.unfinished(cutoff)),
    )


def _is_strange(entry: Entry) -> bool:
    path = entry.path
    return not (
        _METADATA.fullmatch(path)
        or _TARGET.fullmatch(path)
        or path.startswith(("inbox/", "gc/"))
        or re.fullmatch(r"metadata/(e[1-9]\d*/)?(timestamp\.json|root-chain/\d+)", path)
    )


@dataclass(frozen=True)
class _Inbox:
    """What lies in the inbox, by id.

    Attributes:
        begun: submissions of which anything is there.
        unfinished: those whose document was never written, and of which nothing is young.
    """

    begun: frozenset[str]
    unfinished: frozenset[str]

    @classmethod
    def of(cls, entries: Iterable[Entry], cutoff: datetime) -> Self:
        """Look at the names and ages."""
        found: dict[str, bool] = {}
        for entry in entries:
            if match := _UNFINISHED.fullmatch(entry.path):
                stays = entry.path.endswith("/submission.json") or entry.modified >= cutoff
                found[match[1]] = found.get(match[1], False) or stays
        left = frozenset(identity for identity, stays in found.items() if not stays)
        return cls(frozenset(found), left)

    def is_garbage(self, path: str) -> bool:
        """Whether an old object of the inbox can go.

        An answer stays as long as anything of its submission: without it, that would wait again.
        """
        if match := _UNFINISHED.fullmatch(path):
            return match[1] in self.unfinished
        match = _ANSWER.fullmatch(path)
        return match is not None and match[1] not in self.begun


class _Needed:
    """What is needed, gathered metadata by metadata.

    Args:
        storage: the whole one.
        epoch: of what is live.
        there: every path that is there.
    """

    def __init__(self, storage: Storage, epoch: int, there: set[str]) -> None:
        self._storage = storage
        self._epoch = epoch
        self._there = there
        self._seen: set[str] = set()
        self._paths: set[str] = set()
        # By target path, whatever the digest: a published path never changes its bytes.
        self._targets: set[str] = set()

    def is_garbage(self, path: str, inbox: _Inbox) -> bool:
        """Whether an old object can go."""
        if match := _METADATA.fullmatch(path):
            ours = int(match[1] or 0) == self._epoch
            return ours and match[3] not in {"root", "timestamp"} and path not in self._paths
        if match := _TARGET.fullmatch(path):
            return path not in self._paths and match[1] + match[3] not in self._targets
        return inbox.is_garbage(path)

    def object(self, path: str, since: datetime | None = None) -> None:
        """A metadata object of the storage is needed, unless it expired before `since`."""
        if path in self._seen or path not in self._there:
            return
        data = self._storage.read(path, MAX_METADATA).data
        if since is None or not _expired(data, since):
            self._seen.add(path)
            self._paths.add(path)
            self.metadata(data)

    def metadata(self, data: bytes) -> None:
        """Everything that a snapshot or a targets role names is needed.

        What cannot be read names nothing: nobody believes it. (What is live was verified.)
        """
        try:
            kind = json.loads(data)["signed"]["_type"]
            if kind == "snapshot":
                self._snapshot(parse(data, Snapshot, "snapshot").signed)
            elif kind == "targets":
                self._role(parse(data, Targets, "targets").signed)
        except (ValueError, KeyError, TypeError, NotTrustedError):
            return

    def _snapshot(self, snapshot: Snapshot) -> None:
        self._paths.add(self._path(f"{snapshot.version}.snapshot.json"))
        for name, meta in snapshot.meta.items():
            self.object(self._path(f"{meta.version}.{name}"))

    def _path(self, name: str) -> str:
        return epoch_path(f"metadata/{name}", self._epoch)

    def _role(self, role: Targets) -> None:
        for path, target in role.targets.items():
            digest = target.hashes.get("sha256", "")
            stored = stored_name(path, digest)
            for file in files_of(target):
                self._paths.add(stored_name(file.path, file.hashes.get("sha256", "")))
            if path.startswith("channels/") and stored in self._there and stored not in self._seen:
                self._seen.add(stored)
                self._manifest(stored)

    def _manifest(self, stored: str) -> None:
        """What it offers is needed: a path through a stone that is gone strands who is behind."""
        try:
            data = self._storage.read(stored, formats.MAX_MANIFEST).data
            manifest = formats.parse(data)
        except NotTrustedError:
            return
        for release in manifest.releases:
            for payload in release.payloads:
                artifacts = (payload.artifact, *(each.artifact for each in payload.deltas))
                for artifact in artifacts:
                    self._targets |= {artifact.path, artifact.path + SUFFIX}


def _expired(data: bytes, moment: datetime) -> bool:
    """Whether no device could accept metadata from that moment on. What says nothing, has not."""
    try:
        expires = parse_time(json.loads(data)["signed"]["expires"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return expires is not None and expires < moment


# The fence


def check_no_sweep(storage: Storage) -> None:
    """Refuse to publish while a clean-up removes what the publish may be about to need again.

    Raises:
        LockedError: one is under way, or was interrupted.
    """
    try:
        data = storage.read(MARK, _MAX_MARK).data
    except NotFoundError:
        return
    raise LockedError(
        f"a clean-up of the storage began at {_since(data)} and has not ended ({MARK})",
        "wait for it; if it was interrupted: firmroot gc finishes it",
    )


def begin(storage: Storage, now: datetime, token: str, *, take_over: datetime) -> str:
    """Set the mark.

    Args:
        storage: where.
        now: the time.
        token: tells this clean-up from every other.
        take_over: a mark that is older was left by a clean-up that was interrupted.

    Returns:
        the tag of the mark.

    Raises:
        LockedError: another clean-up is under way.
    """
    tag: str | None = None
    try:
        found = storage.read(MARK, _MAX_MARK)
    except NotFoundError:
        pass
    else:
        tag = found.tag
        since = parse_time(_since(found.data))
        if since is not None and since > take_over and not _is_of(found.data, token):
            raise LockedError(
                f"another clean-up of the storage began at {_since(found.data)}",
                "wait for it; if it was interrupted, run this again an hour after it began",
            )
    mark = json.dumps({"schema": 1, "since": format_time(now), "token": token}).encode()
    return storage.replace(MARK, mark, tag)


def _since(mark: bytes) -> str:
    try:
        return str(json.loads(mark)["since"])
    except (ValueError, KeyError, TypeError):
        return "an unknown time"


def is_marked(storage: Storage) -> bool:
    """Whether a clean-up is under way, or was interrupted."""
    try:
        storage.read(MARK, _MAX_MARK)
    except NotFoundError:
        return False
    return True


def _is_of(mark: bytes, token: str) -> bool:
    try:
        return bool(json.loads(mark)["token"] == token)
    except (ValueError, KeyError, TypeError):
        return False


def end(storage: Storage, tag: str) -> None:
    """Take the mark away, if it is still ours."""
    try:
        ours = storage.read(MARK, _MAX_MARK).tag == tag
    except NotFoundError:
        return
    if ours:
        storage.remove(MARK)


def sweep(
    storage: Storage, garbage: Garbage, tag: str, progress: Callable[[str], None]
) -> tuple[int, int]:
    """Remove what was found behind the fence.

    Args:
        storage: the whole one.
        garbage: found after the fence was complete.
        tag: of our mark; without it nothing is removed.
        progress: told each object.

    Returns:
        how many objects and bytes went.

    Raises:
        LockedError: somebody else took the mark.
        RetryLaterError: the storage failed; run it again.
    """
    for first in range(0, len(garbage.entries), _BATCH):
        _check_ours(storage, tag)
        some = garbage.entries[first : first + _BATCH]
        for entry in some:
            progress(f"remove {entry.path}")
        storage.remove_all([entry.path for entry in some])
    for upload in garbage.unfinished:
        progress(f"drop the unfinished upload of {upload.path}")
        storage.abandon(upload)
    return len(garbage.entries), garbage.length


def _check_ours(storage: Storage, tag: str) -> None:
    try:
        found: str | None = storage.read(MARK, _MAX_MARK).tag
    except NotFoundError:
        found = None
    if found != tag:
        raise LockedError(
            "somebody else took this clean-up over; nothing more is removed",
            "wait for theirs, then run this again",
        )
