"""What was ever published, by whom: the records of `history/`, and the proof of them.

A record names its predecessor by digest and every metadata object that was live with it; the bytes
of those are in `history/metadata/`, by digest. So each state is verified again from the first root
on, with the checks of the device's own code and without a network. Refreshes leave no record.

A record of an older firmroot names no objects: it is shown, and said to hold less. Whoever may
write to the whole of git can remove the newest records; newer files in `metadata/` then have none,
but if only builds were new, nothing here misses them. When a publish was is as its publisher said.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from client_reference.errors import FirmrootError, NotFoundError, NotTrustedError
from repo_tools.metadata.repository import sha256
from repo_tools.publishing.journal import committed
from repo_tools.publishing.live import HighWater, read_live
from repo_tools.storage.protocol import Blob

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from repo_tools.workspace import Workspace

__all__ = ["Record", "problems", "records"]


@dataclass(frozen=True)
class Record:
    """One publish.

    Attributes:
        name: of its file.
        digest: of its file.
        facts: what it says.
    """

    name: str
    digest: str
    facts: Mapping[str, Any]

    @property
    def whole(self) -> bool:
        """Whether it names what was live; those of older versions do not."""
        return "state" in self.facts

    def about(self, reference: str | None) -> bool:
        """Whether it changed a role, a channel (`gateway/stable`) or a build (`gateway@1.1`)."""
        if reference is None:
            return True
        product, at, version = reference.partition("@")
        if at:
            start = f"targets/builds/{product}/{version}/"
            return any(each["path"].startswith(start) for each in self.facts["objects"])
        return reference.replace("/", "-") in {*self.facts["roles"], "timestamp"}

    def lines(self) -> Iterator[str]:
        """Who signed what, and what was new."""
        facts = self.facts
        roles = {**facts["roles"], "timestamp": facts["timestamp"]}
        less = "" if self.whole else "  (an older record: who signed, but not the bytes)"
        yield f"{facts['when']}  {self.name}{less}"
        for role, each in roles.items():
            yield f"  {role} {each['version']}, signed by {', '.join(each['signed_by'])}"
        for each in facts["objects"]:
            yield f"  new {each['path']} ({each['length']} bytes)"


def records(workspace: Workspace) -> tuple[Record, ...]:
    """Every record of this epoch, the oldest first.

    Raises:
        NotTrustedError: one cannot be read; names it.
    """
    return tuple(_read(path) for path in sorted(workspace.history.glob("*.json")))


def _read(path: Path) -> Record:
    data = path.read_bytes()
    try:
        record = Record(path.name, sha256(data), json.loads(data))
        list(record.lines())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotTrustedError(
            f"history/{path.name} is damaged: {error!r}", "take it from git"
        ) from error
    return record


def problems(workspace: Workspace, found: tuple[Record, ...]) -> Iterator[str]:
    """What is not as it was recorded, each by the name of its record.

    Args:
        workspace: its first root is trusted, and nothing else.
        found: its records.
    """
    digests = {record.name: record.digest for record in found}
    before = HighWater()
    for record in found:
        previous = record.facts.get("previous")
        if previous is not None and previous["name"] not in digests:
            yield f"history/{previous['name']} is missing: {record.name} was made after it"
        elif previous is not None and digests[previous["name"]] != previous["sha256"]:
            yield f"history/{previous['name']} is not the one that {record.name} was made after"
        if not record.whole:
            continue
        try:
            before = _verified(workspace, record, before)
        except FirmrootError as error:
            yield f"history/{record.name}: {error.message}"
    marks = HighWater()
    for record in found:
        marks = marks.raised(_claimed(record))
    for role, mark in committed(workspace).marks.items():
        known = marks.marks.get(role)
        if mark.source.startswith("metadata/") and (known is None or known != mark):
            yield f"no record says how {mark.source} (version {mark.version}) came to be live"


def _claimed(record: Record) -> HighWater:
    roles = {**record.facts["roles"], "timestamp": record.facts["timestamp"]}
    return HighWater.from_json(json.dumps({"roles": roles}).encode())


def _verified(workspace: Workspace, record: Record, before: HighWater) -> HighWater:
    """The mark of a state that verifies, is what the record says, and is no older than `before`."""
    roots = workspace.roots()
    if not roots:
        raise NotTrustedError("there is no root to trust: metadata/root/1.json is missing")
    state = read_live(_Kept(workspace, record.facts["state"]), roots[0]).state
    mark = HighWater.of(state)
    for role, claimed in _claimed(record).marks.items():
        if mark.marks.get(role) != claimed:
            raise NotTrustedError(f"{role} is not the one that was live")
    before.check(state)
    _check_signers(workspace, record)
    return mark


def _check_signers(workspace: Workspace, record: Record) -> None:
    """Attack: a record is edited to name another signer. Verified bytes say who it was."""
    roles = {**record.facts["roles"], "timestamp": record.facts["timestamp"]}
    for role, each in roles.items():
        data = _kept(workspace, each["sha256"])
        keyids = {str(signature["keyid"]) for signature in json.loads(data)["signatures"]}
        said = each["signed_by"]
        # Nobody here may have known the key then, or may know it any more.
        wrong = [
            name
            for name, unknown in ((workspace.key_name(i), f"unknown key {i[:8]}") for i in keyids)
            if name != unknown and name not in said and unknown not in said
        ]
        if wrong or len(keyids) != len(said):
            raise NotTrustedError(
                f"{role} was signed by {', '.join(sorted(map(workspace.key_name, keyids)))}, "
                f"and the record says {', '.join(said)}"
            )


def _kept(workspace: Workspace, digest: str) -> bytes:
    path = workspace.history / "metadata" / f"{digest}.json"
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise NotTrustedError(f"history/metadata/{path.name} is missing") from error
    if sha256(data) != digest:
        raise NotTrustedError(f"history/metadata/{path.name} was changed")
    return data


@dataclass(frozen=True)
class _Kept:
    """What was live at one record, to be read like a storage."""

    workspace: Workspace
    state: Mapping[str, str]

    def read(self, path: str, max_length: int) -> Blob:
        """The object of that path then. Raises as `Storage.read`."""
        del max_length
        if path not in self.state:
            raise NotFoundError(f"{path} was not live")
        digest = self.state[path]
        return Blob(_kept(self.workspace, digest), digest)
