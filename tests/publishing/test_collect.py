"""Clean-up: what can go, what never goes, and what happens beside it."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from tuf.api.metadata import Metadata, MetaFile, Snapshot, TargetFile, Targets

from client_reference.errors import LockedError, NotFoundError, RetryLaterError
from client_reference.manifest import Artifact, Manifest, Payload, Release, Rollout, serialize
from repo_tools.metadata.repository import RepositoryState
from repo_tools.publishing import cleaning
from repo_tools.publishing.artifacts import stored_name
from repo_tools.publishing.collect import MARK, begin, end, find_garbage, is_marked, sweep
from repo_tools.storage.local import LocalStorage
from tests.publishing.kills import count_operations, run_killed
from tests.publishing.lab import PRODUCT, Lab

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from repo_tools.storage.protocol import Created

FULL = os.environ.get("FIRMROOT_KILLS") == "full"
CUTOFF = datetime(2031, 1, 1, tzinfo=UTC)
OLD = CUTOFF - timedelta(seconds=1)
NONE = RepositoryState()
A, B = "a" * 64, "b" * 64


def _put(storage: LocalStorage, path: str, data: bytes, modified: datetime = OLD) -> str:
    storage.create(path, data, hashlib.sha256(data).hexdigest())
    os.utime(storage.root / path, (modified.timestamp(), modified.timestamp()))
    return path


def _targets(version: int, **files: bytes) -> bytes:
    role = Targets(version=version, expires=CUTOFF + timedelta(days=9))
    for name, data in files.items():
        path = name.replace("__", "/").replace("_", ".")
        role.targets[path] = TargetFile.from_data(path, data, ["sha256"])
    return Metadata(role).to_bytes()


def _snapshot(version: int, expires: datetime = CUTOFF, *, role: int = 9) -> bytes:
    meta = {"gateway-stable.json": MetaFile(role)}
    return Metadata(Snapshot(version=version, expires=expires, meta=meta)).to_bytes()


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "repository")


def _found(storage: LocalStorage, epoch: int = 0, *waiting: bytes) -> list[str]:
    garbage = find_garbage(storage, NONE, epoch, waiting, CUTOFF)
    return [entry.path for entry in garbage.entries]


# Old and referenced by nothing: (path, goes in epoch 0, goes in epoch 1).
NAMES = {
    "a role": ("metadata/7.gateway-stable.json", True, False),
    "a snapshot that cannot be read": ("metadata/7.snapshot.json", False, False),
    "a root": ("metadata/7.root.json", False, False),
    "a root chain": ("metadata/root-chain/8", False, False),
    "the timestamp": ("metadata/timestamp.json", False, False),
    "a timestamp with a version": ("metadata/7.timestamp.json", False, False),
    "a role of another epoch": ("metadata/e1/7.gateway-stable.json", False, True),
    "a root of another epoch": ("metadata/e1/7.root.json", False, False),
    "a target": (f"targets/builds/gateway/1.0/{A}.x.img", True, True),
    "a target at the top": (f"targets/{A}.x", True, True),
    "a target without a digest": ("targets/builds/x.img", False, False),
    "a file of somebody else": ("backup/2031.tar", False, False),
    "a role without a version": ("metadata/gateway-stable.json", False, False),
    "a part of a submission that was never finished": (f"inbox/submissions/{A}/{B}", True, True),
    "an answer": (f"inbox/answers/{A}.json", True, True),
    "a note": (f"inbox/waiting/{A}.json", False, False),
    "a stranger in the inbox": ("inbox/readme", False, False),
}


@pytest.mark.parametrize("case", NAMES)
def test_what_goes_by_its_name(case: str, storage: LocalStorage) -> None:
    path, *goes = NAMES[case]
    _put(storage, path, b"{}")
    assert [_found(storage, epoch) == [path] for epoch in (0, 1)] == goes


@pytest.mark.parametrize("case", NAMES)
def test_what_is_younger_than_the_window_stays(case: str, storage: LocalStorage) -> None:
    _put(storage, NAMES[case][0], b"{}", CUTOFF)
    assert [*_found(storage, 0), *_found(storage, 1)] == []


def test_only_what_no_publish_writes_is_told_as_strange(storage: LocalStorage) -> None:
    for path, *_ in NAMES.values():
        _put(storage, path, b"{}")
    _put(storage, "young", b"{}", CUTOFF)
    _put(storage, stored_name("builds/x", hashlib.sha256(b"x").hexdigest()), b"x")
    needed = _targets(3, builds__x=b"x")
    assert find_garbage(storage, NONE, 0, [needed], CUTOFF).strangers == (
        "backup/2031.tar",
        "metadata/gateway-stable.json",
        "targets/builds/x.img",
    )


def test_a_submission_that_waits_or_grows_stays(storage: LocalStorage) -> None:
    _put(storage, f"inbox/submissions/{A}/{B}", b"x")
    _put(storage, f"inbox/submissions/{A}/submission.json", b"{}")
    _put(storage, f"inbox/submissions/{B}/{A}", b"x")
    young = _put(storage, f"inbox/submissions/{B}/{B}", b"y", CUTOFF)
    assert _found(storage) == []
    storage.remove(young)
    assert _found(storage) == [f"inbox/submissions/{B}/{A}"]
    _put(storage, f"inbox/submissions/{B}/{'0' * 64}", b"z", CUTOFF)
    assert _found(storage) == [], "the young one may come first"


def test_an_answer_stays_as_long_as_what_it_answers(storage: LocalStorage) -> None:
    answer = _put(storage, f"inbox/answers/{A}.json", b"{}")
    document = _put(storage, f"inbox/submissions/{A}/submission.json", b"{}")
    assert _found(storage) == []
    storage.remove(document)
    assert _found(storage) == [answer]


def test_what_a_signed_role_names_stays_and_the_rest_goes(storage: LocalStorage) -> None:
    role = _targets(3, builds__x=b"x")
    kept = _put(storage, stored_name("builds/x", hashlib.sha256(b"x").hexdigest()), b"x")
    other = _put(storage, stored_name("builds/x", hashlib.sha256(b"y").hexdigest()), b"y")
    assert _found(storage, 0, role) == [other]
    assert _found(storage) == sorted([kept, other])


def test_a_young_role_that_is_not_committed_keeps_its_old_targets(storage: LocalStorage) -> None:
    target = _put(storage, stored_name("builds/x", hashlib.sha256(b"x").hexdigest()), b"x")
    role = _put(storage, "metadata/3.gateway-builds.json", _targets(3, builds__x=b"x"), CUTOFF)
    assert _found(storage) == []
    os.utime(storage.root / role, (OLD.timestamp(), OLD.timestamp()))
    assert _found(storage) == sorted([role, target])


def test_targets_of_another_epoch_stay(storage: LocalStorage) -> None:
    _put(storage, stored_name("builds/x", hashlib.sha256(b"x").hexdigest()), b"x")
    role = _put(storage, "metadata/3.gateway-builds.json", _targets(3, builds__x=b"x"))
    assert _found(storage, 1) == []
    (storage.root / role).rename(storage.root / "metadata/3.elsewhere")
    assert len(_found(storage, 1)) == 1
    _put(storage, "metadata/e1/3.gateway-builds.json", _targets(3, builds__x=b"x"))
    assert _found(storage, 0) == []


def test_what_a_manifest_offers_stays_even_if_no_builds_role_lists_it(
    storage: LocalStorage,
) -> None:
    stone = Artifact("builds/gateway/1.0/x.img", 3, A)
    rollout = Rollout(CUTOFF, "0" * 16, paused=False, waves=())
    releases = (Release("1.0", 1, rollout, (Payload(("acme,gw-2",), "slot", stone),), stone=True),)
    manifest = serialize(Manifest("gateway", "stable", 0, releases))
    place = stored_name("channels/gateway/stable.json", hashlib.sha256(manifest).hexdigest())
    _put(storage, place, manifest)
    image = _put(storage, f"targets/builds/gateway/1.0/{A}.x.img", b"img")
    segments = _put(storage, f"targets/builds/gateway/1.0/{B}.x.img.segments", b"list")
    role = _targets(3, channels__gateway__stable_json=manifest)
    assert _found(storage, 0, role) == []
    (storage.root / place).write_bytes(b"damaged")
    assert _found(storage, 0, role) == sorted([image, segments])


def test_only_a_channel_offers_anything(storage: LocalStorage) -> None:
    """Firmware may contain whatever its maker likes."""
    stone = Artifact("builds/gateway/1.0/x.img", 3, A)
    rollout = Rollout(CUTOFF, "0" * 16, paused=False, waves=())
    releases = (Release("1.0", 1, rollout, (Payload(("acme,gw-2",), "slot", stone),)),)
    manifest = serialize(Manifest("gateway", "stable", 0, releases))
    image = _put(storage, f"targets/builds/gateway/1.0/{A}.x.img", b"img")
    for path in ("builds/y", "channels/y"):
        _put(storage, stored_name(path, hashlib.sha256(manifest).hexdigest()), manifest)
    both = {"builds__y": manifest, "channels__y": manifest}
    assert _found(storage, 0, _targets(3, **both)) == []
    channel = stored_name("channels/y", hashlib.sha256(manifest).hexdigest())
    assert _found(storage, 0, _targets(3, builds__y=manifest)) == sorted([channel, image])


def test_what_is_named_and_not_there_is_passed_over(storage: LocalStorage) -> None:
    """Signed here and not uploaded yet, or left by a publish that was killed."""
    path = _put(storage, f"targets/{A}.x", b"x")
    assert _found(storage, 0, _targets(3, channels__gateway__stable_json=b"m"), _snapshot(7)) == [
        path
    ]


@pytest.mark.parametrize(
    ("expires", "goes"),
    [(CUTOFF, False), (OLD, True), (CUTOFF + timedelta(days=1), False)],
    ids=["when the window begins", "a second before it", "a day after it"],
)
def test_a_snapshot_that_expired_before_the_window_goes(
    expires: datetime, storage: LocalStorage, *, goes: bool
) -> None:
    path = _put(storage, "metadata/7.snapshot.json", _snapshot(7, expires))
    assert _found(storage) == [path] * goes


def test_a_snapshot_that_does_not_say_when_it_expires_stays(storage: LocalStorage) -> None:
    _put(storage, "metadata/7.snapshot.json", b'{"signed": {"expires": "soon"}}')
    assert _found(storage) == []


def test_what_many_states_name_is_read_once(storage: LocalStorage) -> None:
    manifest = serialize(Manifest("gateway", "stable", 0, ()))
    place = stored_name("channels/x", hashlib.sha256(manifest).hexdigest())
    _put(storage, place, manifest)
    roles = [_targets(version, channels__x=manifest) for version in (3, 4)]
    for version, role in enumerate(roles, 3):
        _put(storage, f"metadata/{version}.gateway-stable.json", role)
    with patch.object(storage, "read", wraps=storage.read) as read:
        snapshots = [_snapshot(each, role=each) for each in (3, 4)]
        assert _found(storage, 0, *snapshots, *snapshots) == []
    assert sorted(call.args[0] for call in read.call_args_list) == sorted(
        [place, "metadata/3.gateway-stable.json", "metadata/4.gateway-stable.json"]
    )


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"signed": {"_type": "targets"}}'])
def test_what_cannot_be_read_names_nothing(data: bytes, storage: LocalStorage) -> None:
    _put(storage, "metadata/3.gateway-builds.json", data, CUTOFF)
    assert _found(storage, 0, data) == []


# The mark


def test_a_second_clean_up_waits_for_the_first(storage: LocalStorage) -> None:
    hour = timedelta(hours=1)
    begin(storage, CUTOFF, "one", take_over=CUTOFF - hour)
    later = CUTOFF + timedelta(minutes=59)
    with pytest.raises(LockedError, match="another clean-up of the storage began at 2031-01-01"):
        begin(storage, later, "two", take_over=later - hour)
    own = begin(storage, later, "one", take_over=later - hour)
    latest = later + hour
    other = begin(storage, latest, "two", take_over=latest - hour)
    end(storage, own)
    assert is_marked(storage), "only its own"
    end(storage, other)
    assert not is_marked(storage)
    end(storage, other)


def test_a_damaged_mark_stops_no_clean_up(storage: LocalStorage) -> None:
    for data in (b"", b"[]", b'{"since": 7}'):
        tag = storage.replace(MARK, data, None)
        end(storage, begin(storage, CUTOFF, "one", take_over=CUTOFF))
        assert tag


def test_without_its_mark_nothing_is_removed(storage: LocalStorage) -> None:
    path = _put(storage, f"targets/{A}.x", b"x")
    garbage = find_garbage(storage, NONE, 0, (), CUTOFF)
    tag = begin(storage, CUTOFF, "one", take_over=CUTOFF)
    begin(storage, CUTOFF, "two", take_over=CUTOFF)
    with pytest.raises(LockedError, match="somebody else took this clean-up over"):
        sweep(storage, garbage, tag, lambda _: None)
    storage.remove(MARK)
    with pytest.raises(LockedError, match="somebody else took"):
        sweep(storage, garbage, tag, lambda _: None)
    assert list(storage.paths("")) == [path]


# Through the command line


def _age(lab: Lab, days: int) -> None:
    """Everything in the storage was put there so long ago."""
    then = (lab.now - timedelta(days=days)).timestamp()
    for path in lab.repository.rglob("*"):
        os.utime(path, (then, then))


def _names(lab: Lab) -> set[str]:
    return set(lab.workspace.whole_storage().paths(""))


@pytest.fixture(scope="module")
def _aged(moments: dict[str, Lab], tmp_path_factory: pytest.TempPathFactory) -> Lab:
    lab = moments["next"].copy(tmp_path_factory.mktemp("aged") / "acme")
    lab.ok("publish")
    for word in ("hold", "unhold"):
        lab.ok("channel", word, f"{PRODUCT}@1.1", "--on", "stable")
        lab.ok("sign")
        lab.ok("publish")
    _age(lab, 0)
    later = lab.later(days=90)
    later.ok("refresh")
    return later


@pytest.fixture
def aged(_aged: Lab, tmp_path: Path) -> Lab:
    """1.0 and 1.1 were published, and 1.1 was held for a while: three months ago."""
    root = (_aged.directory / "metadata/root/1.json").read_bytes()
    (tmp_path / "factory-root.json").write_bytes(root)
    return _aged.copy(tmp_path / "acme")


def _whole(lab: Lab) -> None:
    """What is live is complete, and a device from the factory finds its way."""
    lab.ok("verify")
    assert lab.fresh_device()[1] == "installs 1.1"


def test_what_no_state_of_the_window_needs_goes_and_devices_notice_nothing(aged: Lab) -> None:
    before = _names(aged)
    shown = aged.ok("gc", "--older", "30d", "--dry-run")
    assert _names(aged) == before
    assert "metadata/: " in shown.out
    done = aged.ok("--yes", "--json", "gc", "--older", "30d").json
    gone = before - _names(aged)
    assert sorted(gone) == done["paths"]
    assert len(gone) == done["objects"] == done["removed"]
    assert done["bytes"] == done["removed_bytes"] > 0
    assert {path.split(".")[1] for path in gone if path.startswith("metadata/")} == {
        *("snapshot", "gateway-stable", "gateway-stable-hold", "gateway-builds"),
    }
    assert not [path for path in gone if "root" in path or "builds/" in path]
    assert len([path for path in gone if path.startswith("targets/channels/")]) == 1
    assert not is_marked(aged.workspace.whole_storage())
    _whole(aged)
    aged.ship("1.2")
    assert aged.fresh_device()[1] == "installs 1.2"
    assert "nothing can go" in aged.ok("--yes", "gc", "--older", "30d").out


def test_a_state_that_devices_could_accept_within_the_window_stays(aged: Lab) -> None:
    """Its snapshot expires after the window begins, so some device may have it."""
    snapshots = {path for path in _names(aged) if path.endswith(".snapshot.json")}
    expires = max(
        Metadata.from_bytes((aged.repository / path).read_bytes()).signed.expires
        for path in sorted(snapshots, key=lambda path: int(path.split("/")[1].split(".")[0]))[:-1]
    )
    for days, goes in ((1, False), (-1, True)):
        older = (aged.now - expires).days + days
        found = aged.ok("--json", "gc", "--older", f"{older}d", "--dry-run").json["paths"]
        assert bool(snapshots.intersection(found)) is goes


def test_nothing_is_removed_without_an_answer(aged: Lab) -> None:
    before = aged.tree()
    done = aged.run("gc", "--older", "30d")
    assert done.code == 3
    assert "for ever?" in done.err
    assert aged.tree() == before


@pytest.mark.parametrize(("older", "says"), [("23h", "1d at least"), ("x", "is not a time")])
def test_a_window_has_a_length(live: Lab, older: str, says: str) -> None:
    done = live.run("gc", "--older", older)
    assert done.code == 2
    assert says in done.err


def test_before_anything_is_published_nothing_is_garbage(ready: Lab) -> None:
    done = ready.run("gc")
    assert done.code == 3
    assert "nothing is published yet" in done.err


def test_a_publish_waits_for_a_clean_up_that_was_interrupted_and_a_refresh_does_not(
    aged: Lab,
) -> None:
    def die(*_: object) -> None:
        raise RetryLaterError("the network is gone")

    with patch.object(LocalStorage, "remove_all", die):
        assert aged.run("--yes", "gc", "--older", "30d").code == 4
    aged.add("1.2")
    aged.promote("1.2")
    before = aged.repository.joinpath("metadata/timestamp.json").read_bytes()
    done = aged.run("publish")
    assert done.code == 7
    assert "a clean-up of the storage began at 2026-05-31T06:00:00Z and has not ended" in done.err
    assert "firmroot gc" in done.err
    assert aged.repository.joinpath("metadata/timestamp.json").read_bytes() == before
    aged.ok("refresh")
    aged.ok("--yes", "gc", "--older", "30d")
    aged.ok("publish")
    assert aged.fresh_device()[1] == "installs 1.2"


def test_what_was_interrupted_is_ended_even_if_nothing_is_left(live: Lab) -> None:
    storage = live.workspace.whole_storage()
    begin(storage, live.now - timedelta(days=1), "somebody", take_over=live.now)
    live.ok("--yes", "gc")
    assert not is_marked(storage)


def test_where_the_renewal_fails_nothing_is_removed_and_no_mark_stays(aged: Lab) -> None:
    before = _names(aged)
    (aged.directory / ".firmroot/keys/publisher.pem").unlink()
    assert aged.run("--yes", "gc", "--older", "30d").code != 0
    assert _names(aged) == before


class _Meanwhile(LocalStorage):
    """A storage on which something happens before the first object of a publish is created."""

    happens: Callable[[], None] | None = None

    def create(self, path: str, source: bytes | Path, sha256: str) -> Created:
        """See `LocalStorage.create`."""
        done = super().create(path, source, sha256)
        if "holds/" in path and (happens := type(self).happens) is not None:
            type(self).happens = None
            happens()
        return done


def test_a_publish_that_relies_on_an_old_object_which_goes_meanwhile_loses_and_repairs(
    aged: Lab, tmp_path: Path
) -> None:
    """The same hold as months ago: its file is there, old, and nobody needs it. Then one does."""
    other = aged.copy(tmp_path / "other")
    config = other.directory / "firmroot.toml"
    config.write_text(
        config.read_text().replace(
            'storage = "repository"', f'storage = "file://{aged.repository}"'
        )
    )
    aged.ok("channel", "hold", f"{PRODUCT}@1.1", "--on", "stable")
    aged.ok("sign")
    gone: list[int] = []

    def clean() -> None:
        gone.append(other.ok("--yes", "--json", "gc", "--older", "30d").json["removed"])

    with (
        patch.object(_Meanwhile, "happens", clean),
        patch("repo_tools.workspace.LocalStorage", _Meanwhile),
    ):
        aged.ok("publish")
    assert gone
    assert gone[0] > 0
    aged.ok("verify")
    assert "on hold" in aged.fresh_device()[1]


def test_killed_anywhere_devices_notice_nothing_and_the_next_run_ends_it(
    aged: Lab, tmp_path: Path
) -> None:
    words = ("--yes", "gc", "--older", "30d")
    count = count_operations(aged.copy(tmp_path / "counted"), *words)
    spread = {2, count // 2, count - 8, count - 3}
    for kill_at in range(1, count + 1) if FULL else sorted(spread):
        lab = aged.copy(tmp_path / f"killed-{kill_at}" / "acme")
        (lab.directory.parent / "factory-root.json").write_bytes(
            (tmp_path / "factory-root.json").read_bytes()
        )
        run_killed(lab, kill_at, *words)
        assert lab.fresh_device()[1] == "installs 1.1", kill_at
        lab.ok(*words)
        _whole(lab)
        assert not is_marked(lab.workspace.whole_storage())


def test_the_second_look_decides(aged: Lab) -> None:
    """What became needed between the question and the answer stays."""
    looks: list[int] = []

    def find(storage: LocalStorage, *rest: object) -> object:
        looks.append(1)
        if len(looks) == 2:
            _age(aged, 0)
        return find_garbage(storage, *rest)  # type: ignore[arg-type]

    with patch.object(cleaning, "find_garbage", find):
        done = aged.ok("--yes", "--json", "gc", "--older", "30d").json
    assert (len(looks), done["removed"]) == (2, 0)
    with pytest.raises(NotFoundError):
        aged.workspace.whole_storage().read(MARK, 99)
