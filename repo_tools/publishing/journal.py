"""What a workspace remembers of a publish: before it, to be able to finish; after it, for good.

The journal (`.firmroot/publish.json`) holds the signed online roles of the publish in hand and the
record that it will leave. It is written before the first upload and removed after everything that
`settle` does, each part of which may be repeated.

What was live before is known in two places: `.firmroot/high-water.json` is what this machine saw,
refreshes included; `metadata/` and `history/` are what git knows, and all that a fresh clone or a
CI runner has. Neither ever goes back.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuf.api.metadata import Root, Targets, Timestamp

from client_reference.errors import NotTrustedError, RefusedError
from repo_tools.files import create_file, remove_file, replace_file
from repo_tools.metadata.bins import files_of, is_bin
from repo_tools.metadata.edits import ISSUED_FIELD, format_time
from repo_tools.metadata.repository import parse, sha256
from repo_tools.publishing.artifacts import stored_name
from repo_tools.publishing.live import HighWater, Mark

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from repo_tools.metadata.repository import RepositoryState
    from repo_tools.publishing.plan import Admitted, Plan
    from repo_tools.workspace import Workspace

__all__ = [
    "MAX_JUMP",
    "Journal",
    "check_jump",
    "committed",
    "high_water",
    "kept_path",
    "load_journal",
    "people_roles",
    "read_kept",
    "record_path",
    "records",
    "settle",
    "write_journal",
]

MAX_JUMP = 100_000
"""Versions between two states that this workspace saw: one each five minutes for a year."""

FRESH = timedelta(hours=1)
"""How long what was signed for an interrupted publish is still used; later it is signed anew."""


@dataclass(frozen=True)
class Journal:
    """A publish that was begun.

    Attributes:
        base: tag of the `timestamp.json` that it replaces; None for the first.
        root: digest of the newest root whose keys signed it.
        roles: digests of the roles that it changes.
        snapshot: signed bytes.
        timestamp: signed bytes.
        record: for `history/`; None for a refresh.
    """

    base: str | None
    root: str
    roles: Mapping[str, str]
    snapshot: bytes
    timestamp: bytes
    record: Mapping[str, Any] | None

    @classmethod
    def of(cls, plan: Plan, record: Mapping[str, Any] | None) -> Journal:
        """What must be remembered before a plan is carried out."""
        return cls(
            base=plan.base_tag,
            root=sha256(plan.admitted.signing_roots[-1]),
            roles={role: sha256(data) for role, data in plan.admitted.roles.items()},
            snapshot=plan.candidate.snapshot or b"",
            timestamp=plan.timestamp,
            record=record,
        )

    def fits(self, admitted: Admitted, tag: str | None, now: datetime) -> bool:
        """Whether what was signed then is what would be signed now."""
        issued = parse(self.timestamp, Timestamp, "timestamp").signed.unrecognized_fields
        return (
            self.base == tag
            and self.root == sha256(admitted.signing_roots[-1])
            and self.roles == {role: sha256(data) for role, data in admitted.roles.items()}
            and format_time(now - FRESH) <= str(issued.get(ISSUED_FIELD)) <= format_time(now)
        )


def load_journal(workspace: Workspace) -> Journal | None:
    """The publish that was begun last and not finished, if any.

    Raises:
        NotTrustedError: the journal is damaged.
    """
    path = _journal(workspace)
    try:
        document = json.loads(path.read_bytes())
        return Journal(
            base=document["base"],
            root=document["root"],
            roles=document["roles"],
            snapshot=document["snapshot"].encode(),
            timestamp=document["timestamp"].encode(),
            record=document["record"],
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotTrustedError(
            f"{path} is damaged: {error!r}",
            "remove it and run the command again: what it would have resumed is signed anew",
        ) from error


def write_journal(workspace: Workspace, journal: Journal) -> None:
    """Remember what is about to be published, durably."""
    document = {
        "schema": 1,
        "base": journal.base,
        "root": journal.root,
        "roles": dict(journal.roles),
        "snapshot": journal.snapshot.decode(),
        "timestamp": journal.timestamp.decode(),
        "record": journal.record,
    }
    replace_file(_journal(workspace), json.dumps(document, indent=1).encode() + b"\n")


def _journal(workspace: Workspace) -> Path:
    return workspace.memory / "publish.json"


def high_water(workspace: Workspace) -> HighWater:
    """What this workspace has seen live."""
    try:
        data = (workspace.memory / "high-water.json").read_bytes()
    except FileNotFoundError:
        return HighWater()
    return HighWater.from_json(data)


def committed(workspace: Workspace) -> HighWater:
    """What git knows to have been live: every record of a publish, and the roles of people.

    What is live may be newer: somebody else has published, and this clone is behind.

    Raises:
        NotTrustedError: a file of it is damaged.
    """
    found = HighWater()
    for path in records(workspace):
        found = found.raised(_recorded(path))
    return found.raised(
        HighWater(
            {
                path.stem: Mark.of(path.read_bytes(), f"metadata/{path.name}")
                for path in workspace.metadata.glob("*.json")
            }
        )
    )


def check_jump(workspace: Workspace, state: RepositoryState) -> None:
    """Whether versions moved no further than publishers and refreshers can have moved them.

    Attack: a thief of the online key writes a version near the last one to the storage. Whoever
    signs the next one makes it the newest that was ever live, and an older state that is restored
    afterwards is no longer believed.

    Raises:
        RefusedError: one did; nothing was signed.
    """
    known = high_water(workspace).raised(committed(workspace)).marks
    for role, mark in HighWater.of(state).marks.items():
        before = known.get(role)
        if before is not None and mark.version > before.version + MAX_JUMP:
            raise RefusedError(
                f"live {role} has version {mark.version}, and version {before.version} was live "
                f"before ({before.source}): nobody publishes that often",
                "somebody moved it forward on purpose: restore metadata/timestamp.json in the "
                "storage from before, then rotate the key that signed it (firmroot recover "
                "stolen-key KEY); if this is right all the same: --accept-jump",
            )


def _recorded(path: Path) -> HighWater:
    """What one publish made live."""
    source = f"history/{path.name}"
    try:
        record = json.loads(path.read_bytes())
        return HighWater(
            {
                str(role): Mark(int(facts["version"]), str(facts["sha256"]), source)
                for role, facts in {**record["roles"], "timestamp": record["timestamp"]}.items()
            }
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotTrustedError(
            f"{source} is damaged: {error!r}", "take it from git: it says what was live before"
        ) from error


def settle(
    workspace: Workspace, state: RepositoryState, record: Mapping[str, Any] | None = None
) -> None:
    """Make the workspace agree with what is live. Killed anywhere and run again, it finishes.

    Nothing that it remembers is ever replaced by something older.

    Args:
        workspace: the caller holds its lock.
        state: the verified live state, with the whole root chain.
        record: of the publish that made it, for `history/`.
    """
    seen = high_water(workspace)
    if (mark := seen.raised(HighWater.of(state))) != seen:
        replace_file(workspace.memory / "high-water.json", mark.to_json())
    for data in state.roots:
        version = parse(data, Root, "root").signed.version
        _keep(workspace.metadata / "root" / f"{version}.json", data)
    for role in people_roles(state):
        _keep(workspace.metadata / f"{role}.json", state.roles[role])
    if record is not None:
        for data in _worth_keeping(workspace, state, record):
            with contextlib.suppress(FileExistsError):
                create_file(kept_path(workspace, sha256(data)), data)
        with contextlib.suppress(FileExistsError):
            create_file(
                record_path(workspace, record["timestamp"]["version"]),
                json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n",
            )
    _remove_published(workspace, state)
    if workspace.config.lab:
        _forget_replaced(workspace, state)
    remove_file(_journal(workspace))


def records(workspace: Workspace) -> list[Path]:
    """The records of publishes, oldest first: a version may outgrow the digits of its name."""
    return sorted(workspace.history.glob("*.json"), key=lambda path: (len(path.name), path.name))


def record_path(workspace: Workspace, version: int) -> Path:
    """Where `history/` has the record of the publish that made that timestamp."""
    return workspace.history / f"{version:06d}.json"


def kept_path(workspace: Workspace, digest: str) -> Path:
    """Where `history/` keeps the bytes of that digest."""
    return workspace.history / "objects" / digest


def read_kept(workspace: Workspace, digest: str) -> bytes:
    """The bytes of that digest in `history/`.

    Raises:
        NotTrustedError: they are missing, or were changed.
    """
    path = kept_path(workspace, digest)
    name = path.relative_to(workspace.directory)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise NotTrustedError(f"{name} is missing") from error
    if sha256(data) != digest:
        raise NotTrustedError(f"{name} was changed")
    return data


def _worth_keeping(
    workspace: Workspace, state: RepositoryState, record: Mapping[str, Any]
) -> Iterator[bytes]:
    """The metadata that a publish changed, and what people signed with it: manifests and holds."""
    yield state.timestamp or b""
    yield state.snapshot or b""
    waiting = workspace.staged_targets()
    people = people_roles(state)
    for role in record["roles"]:
        if role in state.roles:
            yield state.roles[role]
        if role in people:
            for path, target in parse(state.roles[role], Targets, role).signed.targets.items():
                carried = waiting.get(stored_name(path, target.hashes["sha256"]))
                if carried is not None:
                    yield carried.read_bytes()


def _forget_replaced(workspace: Workspace, state: RepositoryState) -> None:
    """A lab forgets where keys of root and targets are that a root which is live has replaced."""
    *before, live = (
        {
            keyid
            for role in ("root", "targets")
            for keyid in parse(data, Root, "root").signed.roles[role].keyids
        }
        for data in state.roots
    )
    for name in workspace.key_uris():
        key = workspace.keyring.get(name)
        replaced = key is not None and any(key.key.keyid in each - live for each in before)
        if replaced and not any(workspace.policy.roles_of(name)):
            workspace.remove_key_uri(name)


def _keep(path: Path, data: bytes) -> None:
    """Write what is live, unless git has brought something newer meanwhile: no file goes back."""
    found = Mark.of(data, "live metadata")
    if not path.exists() or Mark.of(path.read_bytes(), str(path)).version < found.version:
        replace_file(path, data)


def _remove_published(workspace: Workspace, state: RepositoryState) -> None:
    """What was staged and is live now, byte for byte, waits no longer."""
    live = {"root": state.roots[-1], **state.roles}
    for directory in (workspace.staged, workspace.memory / "staged"):
        for path in sorted(directory.glob("*.json")):
            if path.read_bytes() == live.get(path.stem):
                remove_file(path)
    published = set(_stored_targets(state))
    for stored, path in workspace.staged_targets().items():
        if stored in published:
            remove_file(path)
    # Each version had a directory, and every command looks through them for what waits.
    for folder, _, _ in os.walk(workspace.outbox, topdown=False):
        with contextlib.suppress(OSError):  # something is in it
            Path(folder).rmdir()


def people_roles(state: RepositoryState) -> tuple[str, ...]:
    """The roles that people sign and git keeps: everything but builds (and online roles)."""
    targets = state.targets
    delegations = targets.delegations if targets is not None else None
    builds = {
        role.name
        for role in ((delegations.roles or {}) if delegations else {}).values()
        if any(path.startswith("builds/") for path in role.paths or ())
    }
    return tuple(role for role in state.roles if role not in builds and not is_bin(role))


def _stored_targets(state: RepositoryState) -> Iterator[str]:
    for role, data in state.roles.items():
        for target in parse(data, Targets, role).signed.targets.values():
            for file in files_of(target):
                yield stored_name(file.path, file.hashes["sha256"])
