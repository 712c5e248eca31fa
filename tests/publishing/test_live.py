"""Reading what is live, and the high-water mark: pure cases over a storage in memory."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)

from client_reference.errors import NotFoundError, NotTrustedError, RefusedError
from client_reference.trust.verified import BadSignatureError, MalformedError, MismatchError
from repo_tools.metadata.bins import delegating
from repo_tools.metadata.edits import ROOT_FIELD, assemble, signed_bytes
from repo_tools.metadata.repository import RepositoryState
from repo_tools.publishing import live as module
from repo_tools.publishing.cache import Cache
from repo_tools.publishing.live import HighWater, Mark, metadata_objects, read_bins, read_live
from repo_tools.storage.protocol import Blob
from tests.publishing.lab import NOW

if TYPE_CHECKING:
    from pathlib import Path

    from tuf.api.metadata import Key

OLD, NEW, STRANGER = (CryptoSigner.generate_ed25519() for _ in range(3))
ENDS = NOW + timedelta(days=1)


class Memory:
    """A storage that only reads, and notes what."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects
        self.asked: list[str] = []

    def read(self, path: str, max_length: int) -> Blob:
        """See `Storage.read`."""
        self.asked.append(path)
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


# The newest root is asked for later: whoever only looks spares that request.


def test_a_timestamp_that_knows_of_no_newer_root_spares_the_question() -> None:
    storage = Memory({**_repository(1), "metadata/2.root.json": _root(2)})
    live = read_live(storage, _root(1), root_later=True)
    assert live.state.roots == (_root(1),)
    assert metadata_objects(live.state) == _repository(1)
    assert live.tag == hashlib.sha256(storage.objects["metadata/timestamp.json"]).hexdigest()
    assert "metadata/2.root.json" not in storage.asked


@pytest.mark.parametrize("hint", [2, None])
def test_one_that_knows_of_a_newer_root_or_does_not_say_does_not(hint: object) -> None:
    objects = {**_repository(hint), "metadata/2.root.json": _root(2)}
    live = read_live(Memory(objects), _root(1), root_later=True)
    assert metadata_objects(live.state) == objects


def test_what_the_root_does_not_trust_is_asked_for_with_the_newest() -> None:
    objects = {**_repository(1, NEW), "metadata/2.root.json": _root(2, NEW)}
    live = read_live(Memory(objects), _root(1), root_later=True)
    assert metadata_objects(live.state) == objects
    with pytest.raises(NotTrustedError):
        read_live(Memory(_repository(1, STRANGER)), _root(1), root_later=True)


# Hash bins, of which everybody reads those that he needs.


def _binned(bins: CryptoSigner = NEW, **given: bytes) -> dict[str, bytes]:
    """Builds of `p` in two bins that `bins` signs, and the bins that are given, as `p_N`."""
    key = NEW.public_key
    role = DelegatedRole("p-builds", [key.keyid], 1, True, paths=["builds/p/*/*"])  # noqa: FBT003  the order of the library
    delegations = Delegations({key.keyid: key}, {role.name: role})
    targets = _sign(Targets(version=1, expires=ENDS, delegations=delegations), OLD)
    builds = _sign(delegating("p", 2, [bins.public_key], 1, ENDS), NEW)
    roles = {f"metadata/1.{name.replace('_', '_-')}.json": data for name, data in given.items()}
    objects = _with_targets(targets, {"metadata/1.p-builds.json": builds, **roles})
    # The snapshot lists a bin by its version alone.
    snapshot = Metadata[Snapshot].from_bytes(objects["metadata/1.snapshot.json"]).signed
    snapshot.meta |= {name: MetaFile(1) for name in snapshot.meta if "_" in name}
    objects["metadata/1.snapshot.json"] = _sign(snapshot, OLD)
    timestamp = Metadata[Timestamp].from_bytes(objects["metadata/timestamp.json"]).signed
    timestamp.snapshot_meta = _listed(objects["metadata/1.snapshot.json"])
    objects["metadata/timestamp.json"] = _sign(timestamp, OLD)
    return objects


def _bin(signer: CryptoSigner = NEW) -> bytes:
    return _sign(Targets(version=1, expires=ENDS), signer)


def test_a_bin_is_read_once_and_only_if_something_was_put_into_it() -> None:
    storage = Memory(_binned(p_0=_bin()))
    state = read_live(storage, _root(1)).state
    assert state.roles.keys() == {"targets", "p-builds"}, "nobody asked for a bin"
    found = read_bins(storage, state, ["p_-0", "p_-1", "p_-0"])
    assert metadata_objects(found) == storage.objects
    assert storage.asked.count("metadata/1.p_-0.json") == 1
    assert read_bins(storage, found, ["p_-0"]) == found
    assert storage.asked.count("metadata/1.p_-0.json") == 1


def test_a_bin_that_another_key_signed_is_not_believed() -> None:
    storage = Memory(_binned(p_0=_bin(STRANGER), p_1=_bin()))
    state = read_live(storage, _root(1)).state
    with pytest.raises(NotTrustedError):
        read_bins(storage, state, ["p_-0"])
    assert "p_-1" in read_bins(storage, state, ["p_-1"]).roles


def test_a_builds_role_that_lets_another_key_sign_its_bins_is_refused() -> None:
    storage = Memory(_binned(STRANGER, p_0=_bin(STRANGER)))
    state = read_live(storage, _root(1)).state
    with pytest.raises(RefusedError, match="gives its hash bins other keys"):
        read_bins(storage, state, ["p_-0"])


def test_a_bin_that_is_listed_needs_its_builds_role_and_its_file() -> None:
    storage = Memory(_binned(p_0=_bin()))
    state = read_live(storage, _root(1)).state
    alone = replace(state, roles={"targets": state.roles["targets"]})
    with pytest.raises(NotTrustedError, match="the snapshot lists p_-0, and there is no p-builds"):
        read_bins(storage, alone, ["p_-0"])
    del storage.objects["metadata/1.p_-0.json"]
    with pytest.raises(NotTrustedError, match=r"1\.p_-0\.json is referenced by live metadata"):
        read_bins(storage, state, ["p_-0"])


@pytest.mark.parametrize("missing", ["snapshot", "targets"])
def test_before_anything_is_live_there_are_no_bins(missing: str) -> None:
    state = read_live(Memory(_binned(p_0=_bin())), _root(1)).state
    less = replace(state, snapshot=None) if missing == "snapshot" else replace(state, roles={})
    assert read_bins(Memory({}), less, ["p_-0"]) == less


def test_what_this_machine_remembers_of_a_bin_is_verified_like_what_it_reads(
    tmp_path: Path,
) -> None:
    storage, cache = Memory(_binned(p_0=_bin())), Cache(tmp_path)
    path = "metadata/1.p_-0.json"
    state = read_live(storage, _root(1)).state
    cache.remember(path, _bin(STRANGER))
    assert read_bins(storage, state, ["p_-0"], cache).roles["p_-0"] == storage.objects[path]
    assert storage.asked.count(path) == 1
    assert read_bins(storage, state, ["p_-0"], cache).roles["p_-0"] == storage.objects[path]
    assert storage.asked.count(path) == 1, "what was read is remembered"


def test_what_metadata_give_a_digest_of_is_read_once(tmp_path: Path) -> None:
    storage, cache = Memory(_binned()), Cache(tmp_path)
    before = read_live(storage, _root(1), cache)
    storage.asked.clear()
    assert read_live(storage, _root(1), cache) == before
    assert storage.asked == ["metadata/2.root.json", "metadata/timestamp.json"]


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


@pytest.mark.parametrize(
    ("error", "planted"),
    [
        (BadSignatureError("root", 1, 0, ["k"]), False),
        (BadSignatureError("root", 1, 0), True),
        (MalformedError("no JSON"), True),
        (MismatchError("another version"), True),
    ],
    ids=["keys that cannot be used here", "other keys", "garbage", "another version"],
)
def test_a_root_that_this_library_cannot_verify_is_not_called_planted(
    error: NotTrustedError, *, planted: bool
) -> None:
    """Nobody is to remove a root because the tool that looks at it is too old."""
    trusted = _root(1)
    storage = Memory({"metadata/2.root.json": b"a root"})
    with (
        patch.object(module, "next_root", side_effect=error),
        pytest.raises(NotTrustedError) as said,
    ):
        module._read_roots(storage, trusted)
    assert ("planted-root.md" in said.value.hint) is planted
    assert (said.value is error) is not planted
    assert module._read_roots(Memory({}), trusted)[0] == (trusted,)
