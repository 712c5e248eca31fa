"""Reading what is live, and the high-water mark: pure cases over a storage in memory."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    MetaFile,
    Role,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)

from client_reference.errors import NotFoundError, NotTrustedError
from repo_tools.metadata.edits import ROOT_FIELD, assemble, signed_bytes
from repo_tools.metadata.repository import RepositoryState
from repo_tools.publishing.live import HighWater, Mark, metadata_objects, read_live
from repo_tools.storage.protocol import Blob
from tests.publishing.lab import NOW

if TYPE_CHECKING:
    from tuf.api.metadata import Key

OLD, NEW, STRANGER = (CryptoSigner.generate_ed25519() for _ in range(3))
ENDS = NOW + timedelta(days=1)


class Memory:
    """A storage that only reads."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects

    def read(self, path: str, max_length: int) -> Blob:
        """See `Storage.read`."""
        if path not in self.objects:
            raise NotFoundError(f"{path} is not there")
        assert len(self.objects[path]) <= max_length
        return Blob(self.objects[path], hashlib.sha256(self.objects[path]).hexdigest())


def _sign(signed: Root | Timestamp | Snapshot | Targets, *signers: CryptoSigner) -> bytes:
    return assemble(signed, [signer.sign(signed_bytes(signed)) for signer in signers])


def _root(version: int, online: CryptoSigner = OLD) -> bytes:
    keys: dict[str, Key] = {each.public_key.keyid: each.public_key for each in (OLD, online)}
    roles = {name: Role([online.public_key.keyid], 1) for name in ("snapshot", "timestamp")}
    roles |= {name: Role([OLD.public_key.keyid], 1) for name in ("root", "targets")}
    return _sign(Root(version=version, expires=ENDS, keys=keys, roles=roles), OLD)


def _listed(data: bytes, version: int = 1) -> MetaFile:
    return MetaFile(version, len(data), {"sha256": hashlib.sha256(data).hexdigest()})


def _repository(hint: object = 1, online: CryptoSigner = OLD) -> dict[str, bytes]:
    """Root 1, and a timestamp that names the root `hint`; no delegations at all."""
    return _with_targets(_sign(Targets(version=1, expires=ENDS), OLD), {}, hint, online)


def _with_targets(
    targets: bytes, roles: dict[str, bytes], hint: object = 1, online: CryptoSigner = OLD
) -> dict[str, bytes]:
    """A repository with those targets and delegated roles."""
    files = {"metadata/1.targets.json": targets, **roles}
    meta = {path.removeprefix("metadata/1."): _listed(data) for path, data in files.items()}
    snapshot = _sign(Snapshot(version=1, expires=ENDS, meta=meta), online)
    fields = {} if hint is None else {ROOT_FIELD: hint}
    timestamp = Timestamp(
        version=1, expires=ENDS, snapshot_meta=_listed(snapshot), unrecognized_fields=fields
    )
    return {
        "metadata/1.root.json": _root(1),
        "metadata/timestamp.json": _sign(timestamp, online),
        "metadata/1.snapshot.json": snapshot,
        **files,
    }


def test_the_live_state_is_what_the_timestamp_references() -> None:
    objects = _repository()
    live = read_live(Memory(objects), _root(1))
    assert metadata_objects(live.state) == objects
    assert live.tag == hashlib.sha256(objects["metadata/timestamp.json"]).hexdigest()
    assert not live.root_ahead


def test_delegated_roles_are_read_where_the_snapshot_lists_them() -> None:
    key = NEW.public_key
    names = ("p-hold", "p-builds")
    roles = {name: DelegatedRole(name, [key.keyid], 1, True, paths=["x/*"]) for name in names}  # noqa: FBT003  the order of the library
    targets = Targets(version=1, expires=ENDS, delegations=Delegations({key.keyid: key}, roles))
    builds = _sign(Targets(version=1, expires=ENDS), NEW)
    objects = _with_targets(_sign(targets, OLD), {"metadata/1.p-builds.json": builds})
    state = read_live(Memory(objects), _root(1)).state
    assert state.roles.keys() == {"targets", "p-builds"}, "p-hold is delegated and not there yet"
    assert metadata_objects(state) == objects
    objects["metadata/1.p-builds.json"] = _sign(Targets(version=1, expires=ENDS), STRANGER)
    with pytest.raises(NotTrustedError):
        read_live(Memory(objects), _root(1))


def test_an_empty_storage_has_no_tag() -> None:
    live = read_live(Memory({}), _root(1))
    assert (live.tag, live.state.roots, live.state.timestamp) == (None, (_root(1),), None)


HINTS = {
    "the timestamp knows the newest root": (2, False),
    "the timestamp knows only the one before": (1, True),
    "the timestamp is from elsewhere and does not say": (None, False),
    "what the timestamp says is no version": ("1", False),
}


@pytest.mark.parametrize("case", HINTS)
def test_a_root_that_nothing_was_made_after_is_noticed(case: str) -> None:
    hint, ahead = HINTS[case]
    objects = {**_repository(hint), "metadata/2.root.json": _root(2)}
    live = read_live(Memory(objects), _root(1))
    assert len(live.state.roots) == 2
    assert live.root_ahead is ahead


def test_a_root_with_new_keys_and_nothing_signed_by_them_can_be_built_upon() -> None:
    objects = {**_repository(None), "metadata/2.root.json": _root(2, NEW)}
    live = read_live(Memory(objects), _root(1))
    assert live.root_ahead
    assert live.state.timestamp == objects["metadata/timestamp.json"]


def test_what_neither_of_the_last_roots_trusts_is_not_believed() -> None:
    objects = {**_repository(None, STRANGER), "metadata/2.root.json": _root(2, NEW)}
    with pytest.raises(NotTrustedError):
        read_live(Memory(objects), _root(1))


def test_with_one_root_there_is_no_other_to_ask() -> None:
    with pytest.raises(NotTrustedError, match="timestamp"):
        read_live(Memory(_repository(1, STRANGER)), _root(1))


def test_an_expired_state_can_be_read_by_who_renews_it() -> None:
    # Nothing here asks what time it is.
    assert read_live(Memory(_repository()), _root(1)).state.timestamp


SEEN = HighWater(
    {
        "root": Mark(2, "r"),
        "timestamp": Mark(5, "t"),
        "snapshot": Mark(4, "s"),
        "targets": Mark(3, "u"),
        "p-stable": Mark(2, "p"),
    }
)

BELIEVED: dict[str, dict[str, Mark | None]] = {
    "the same": {},
    "a newer timestamp": {"timestamp": Mark(6, "x")},
    "a newer role": {"p-stable": Mark(3, "x")},
    "a role whose delegation was removed": {"p-stable": None},
    "a role that is new": {"p-beta": Mark(1, "x")},
}

NOT_BELIEVED: dict[str, tuple[dict[str, Mark | None], str]] = {
    "an older timestamp": ({"timestamp": Mark(4, "t")}, "a rollback of the storage"),
    "an older role": ({"p-stable": Mark(1, "p")}, "a rollback of the storage"),
    "another root of that version": ({"root": Mark(2, "x")}, "is not the one that was live"),
    "another role of that version": ({"p-stable": Mark(2, "x")}, "is not the one that was live"),
    "no targets any more": ({"targets": None}, "targets version 3 was live before and is gone"),
}


def _found(changes: dict[str, Mark | None]) -> HighWater:
    marks = {**SEEN.marks, **changes}
    return HighWater({role: mark for role, mark in marks.items() if mark is not None})


@pytest.mark.parametrize("case", BELIEVED)
def test_a_state_that_goes_on_is_believed(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _found(BELIEVED[case])
    monkeypatch.setattr(HighWater, "of", lambda _: found)
    SEEN.check(read_live(Memory(_repository()), _root(1)).state)


@pytest.mark.parametrize("case", NOT_BELIEVED)
def test_a_state_that_goes_back_is_not(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changes, message = NOT_BELIEVED[case]
    found = _found(changes)
    monkeypatch.setattr(HighWater, "of", lambda _: found)
    with pytest.raises(NotTrustedError, match=message):
        SEEN.check(read_live(Memory(_repository()), _root(1)).state)


def test_a_mark_rises_role_by_role_and_never_falls() -> None:
    other = {"root": Mark(3, "R"), "timestamp": Mark(4, "T"), "targets": Mark(3, "U")}
    raised = SEEN.raised(HighWater({**other, "p-beta": Mark(1, "b")}))
    assert raised.marks == {**SEEN.marks, "root": Mark(3, "R"), "p-beta": Mark(1, "b")}


def test_a_mark_is_made_of_every_role_and_survives_its_file() -> None:
    state = read_live(Memory(_repository()), _root(1)).state
    mark = HighWater.of(state)
    assert mark.marks.keys() == {"root", "timestamp", "snapshot", "targets"}
    assert HighWater.from_json(mark.to_json()) == mark
    mark.check(state)
    assert HighWater.of(replace(state, roots=())).marks.keys() == mark.marks.keys() - {"root"}


def test_before_the_first_publish_there_is_only_the_root() -> None:
    state = RepositoryState(roots=(_root(1),))
    assert metadata_objects(state) == {"metadata/1.root.json": _root(1)}
    assert HighWater.of(state).marks.keys() == {"root"}


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"roles": {"root": {"version": "x"}}}'])
def test_a_damaged_mark_is_not_taken_for_none(data: bytes) -> None:
    with pytest.raises(NotTrustedError, match="the high-water mark is damaged"):
        HighWater.from_json(data)
