"""The whole workflow of one device against a repository that is honest, attacked, or repaired."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tuf.api.metadata import Delegations, Metadata, SuccinctRoles, Targets

from client_reference.errors import (
    ConfigurationError,
    ExitCode,
    FirmrootError,
    LocalFailureError,
    NotFoundError,
    NotTrustedError,
    RetryLaterError,
)
from client_reference.trust.clock import ISSUED, Freshness
from client_reference.trust.state import InstallState, MemoryStore, Phase
from client_reference.trust.updater import Floors, Hints, Limits, Updater, initial_state, lacking
from client_reference.trust.verified import (
    BadSignatureError,
    DelegationError,
    ExpiredError,
    MalformedError,
    MismatchError,
    ReplacedKeysError,
    RollbackError,
)
from tests.simulators.repository import NOW, SECONDS, RepositorySimulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from client_reference.trust.state import DeviceState, TrustState

LEAF = "gateway-stable"
MANIFEST = "channels/gateway/stable.json"
FLOORS = Floors(time=0, minimum_sequence=0, epoch=0)


@pytest.fixture
def repo() -> RepositorySimulator:
    repo = RepositorySimulator()
    repo.delegate(LEAF, [MANIFEST])
    repo.add_target(LEAF, MANIFEST, b"{}")
    repo.publish(LEAF, "targets")
    return repo


class Device:
    """A store, and checks that begin anew each time as a process would."""

    def __init__(self, repo: RepositorySimulator, floors: Floors = FLOORS) -> None:
        self.store = MemoryStore(initial_state(repo.files["metadata/1.root.json"], floors))

    def check(self, repo: RepositorySimulator, now: datetime = NOW) -> Updater:
        """One whole check: refresh and the leaf role."""
        repo.requests.clear()
        updater = Updater(self.store, repo, now)
        updater.refresh()
        updater.role(LEAF)
        updater.keep()
        return updater

    @property
    def trust(self) -> TrustState:
        assert self.store.state is not None
        return self.store.state.trust

    def versions(self) -> dict[str, int]:
        """What is trusted durably, by role."""
        trust = self.trust
        files = {"timestamp": trust.timestamp, "snapshot": trust.snapshot, **trust.roles}
        found = {"root": trust.root_version}
        for role, data in files.items():
            if data is not None:
                found[role] = Metadata.from_bytes(data).signed.version
        return found


def requested(repo: RepositorySimulator) -> list[str]:
    return [path.removeprefix("metadata/") for path in repo.requests]


# Honest repositories


def test_the_first_check_asks_in_the_order_of_the_specification(repo: RepositorySimulator) -> None:
    device = Device(repo)
    updater = device.check(repo)
    assert requested(repo) == [
        "2.root.json",
        "timestamp.json",
        "2.snapshot.json",
        "2.targets.json",
        "1.gateway-stable.json",
    ]
    assert device.versions() == {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, LEAF: 1}
    assert (updater.root.version, updater.timestamp.version) == (1, 2)
    assert (updater.snapshot.version, updater.targets.version) == (2, 2)
    assert updater.state == device.store.state


def test_a_check_without_news_asks_twice_and_writes_nothing(repo: RepositorySimulator) -> None:
    device = Device(repo)
    repo.timestamp.unrecognized_fields[ISSUED] = NOW.strftime(SECONDS)
    repo.publish("timestamp")
    device.check(repo)
    before, commits = device.store.state, device.store.commits
    device.check(repo)
    assert requested(repo) == ["2.root.json", "timestamp.json"]
    assert device.store.state is before
    assert device.store.commits == commits


def test_a_refreshed_timestamp_alone_is_one_request_more_and_one_transaction(
    repo: RepositorySimulator,
) -> None:
    device = Device(repo)
    device.check(repo)
    commits = device.store.commits
    repo.timestamp.unrecognized_fields[ISSUED] = repo.later(hours=-1).strftime(SECONDS)
    repo.publish("timestamp")
    device.check(repo)
    assert requested(repo) == ["2.root.json", "timestamp.json"]
    assert device.store.commits == commits + 1
    assert device.trust.time_floor == int(repo.later(hours=-1).timestamp())


def test_a_new_leaf_leaves_the_stored_targets_alone(repo: RepositorySimulator) -> None:
    device = Device(repo)
    device.check(repo)
    repo.publish(LEAF)
    device.check(repo)
    assert requested(repo) == [
        "2.root.json",
        "timestamp.json",
        "3.snapshot.json",
        "2.gateway-stable.json",
    ]


def test_without_consistent_snapshots_names_carry_no_version() -> None:
    repo = RepositorySimulator(consistent=False)
    repo.add_target("targets", "a/b.img", b"x")
    repo.publish("targets")
    device = Device(repo)
    updater = Updater(device.store, repo, NOW)
    updater.refresh()
    assert requested(repo)[1:] == ["timestamp.json", "snapshot.json", "targets.json"]
    target = updater.find("a/b.img")
    assert target is not None
    assert updater.target_location(target) == "targets/a/b.img"
    assert updater.fetch_target(target, 1) == b"x"


def test_metadata_without_lengths_and_hashes_are_followed() -> None:
    repo = RepositorySimulator(hashes=False)
    repo.delegate(LEAF, [MANIFEST])
    repo.publish(LEAF, "targets")
    device = Device(repo)
    device.check(repo)
    device.check(repo)
    assert requested(repo) == ["2.root.json", "timestamp.json"]


def test_a_shelf_device_walks_three_hundred_expired_roots(repo: RepositorySimulator) -> None:
    device = Device(repo)
    repo.root.expires = repo.later(days=-1)
    for _ in range(299):
        repo.publish("root")
    repo.root.expires = repo.later(days=1)
    repo.publish("root")
    updater = device.check(repo)
    assert updater.root.version == 301
    assert device.trust.root_version == 301
    assert len(device.store.chain) == 301
    # The first link alone, 299 in transactions of 64; timestamp, snapshot, targets and leaf.
    assert device.store.commits == 1 + 5 + 4
    assert [Metadata.from_bytes(data).signed.version for data in device.store.chain] == [
        *range(1, 302)
    ]


def test_an_install_that_moved_on_meanwhile_is_not_taken_back(repo: RepositorySimulator) -> None:
    device = Device(repo)
    updater = Updater(device.store, repo, NOW)
    updater.refresh()
    moved = InstallState(phase=Phase.STAGED, confirmed_sequence=7)
    device.store.commit(updater.state.with_install(moved))
    updater.role(LEAF)
    updater.keep()
    assert device.store.state is not None
    assert device.store.state.install == moved
    assert LEAF in device.trust.roles


def test_a_factory_state_carries_the_floors_of_the_image(repo: RepositorySimulator) -> None:
    state = initial_state(repo.files["metadata/1.root.json"], Floors(1234, 5, 6))
    assert (state.trust.time_floor, state.trust.factory_floor, state.trust.epoch) == (1234, 1234, 6)
    assert state.install.confirmed_sequence == 5
    assert state.trust.factory_sha256 == hashlib.sha256(state.trust.root).hexdigest()


def test_a_factory_root_that_is_not_signed_is_refused(repo: RepositorySimulator) -> None:
    repo.signers["root"].clear()
    with pytest.raises(BadSignatureError):
        initial_state(repo.sign("root"), FLOORS)


def test_an_empty_store_is_a_configuration_error(repo: RepositorySimulator) -> None:
    with pytest.raises(ConfigurationError, match="trust store is empty"):
        Updater(MemoryStore(), repo, NOW)


def test_asking_before_the_refresh_is_a_bug_that_says_so(repo: RepositorySimulator) -> None:
    updater = Updater(Device(repo).store, repo, NOW)
    with pytest.raises(RuntimeError, match=r"before refresh\(\)"):
        _ = updater.targets


HINTS = [
    ("both", {"x-firmroot-root": 7, "x-firmroot-epoch": 1}, Hints(7, 1)),
    ("none", {}, Hints(None, None)),
    ("below zero", {"x-firmroot-root": 0, "x-firmroot-epoch": -1}, Hints(0, None)),
    ("no integers", {"x-firmroot-root": "7", "x-firmroot-epoch": True}, Hints(None, None)),
]


@pytest.mark.parametrize(("fields", "hints"), [c[1:] for c in HINTS], ids=[c[0] for c in HINTS])
def test_hints_are_shown_and_change_nothing(
    repo: RepositorySimulator, fields: dict[str, object], hints: Hints
) -> None:
    device = Device(repo)
    repo.timestamp.unrecognized_fields.update(fields)
    repo.publish("timestamp")
    assert device.check(repo).hints == hints
    assert requested(repo)[:2] == ["2.root.json", "timestamp.json"]
    assert device.trust.epoch == 0


# Attacks: each is refused, keeps what was accepted before it, and an honest update follows.

Attack = tuple[str, "Callable[[RepositorySimulator], object]", type[FirmrootError], str]


def served_root(
    change: Callable[[RepositorySimulator], object],
) -> Callable[[RepositorySimulator], None]:
    """The next root, after a change, at the place where devices ask for it."""

    def attack(repo: RepositorySimulator) -> None:
        repo.root.version += 1
        change(repo)
        repo.files["metadata/2.root.json"] = repo.sign("root")

    return attack


def sign_with_stranger(role: str) -> Callable[[RepositorySimulator], None]:
    def attack(repo: RepositorySimulator) -> None:
        stranger = repo.new_signer()
        repo.signers[role] = {stranger.public_key.keyid: stranger}

    return attack


def published(
    *roles: str, change: Callable[[RepositorySimulator], object]
) -> Callable[[RepositorySimulator], None]:
    """New versions of some roles, after a change."""

    def attack(repo: RepositorySimulator) -> None:
        change(repo)
        repo.publish(*roles)

    return attack


def expire(role: str) -> Callable[[RepositorySimulator], None]:
    return lambda repo: setattr(repo.signed[role], "expires", repo.later(days=-1))


def tampered(path: str) -> Callable[[RepositorySimulator], None]:
    """A file whose signed part was changed on the way."""

    def attack(repo: RepositorySimulator) -> None:
        repo.publish(LEAF, "targets")
        repo.files[path] = repo.files[path].replace(b"1.0.31", b"1.0.32")

    return attack


def missing(path: str) -> Callable[[RepositorySimulator], None]:
    def attack(repo: RepositorySimulator) -> None:
        repo.publish(LEAF, "targets")
        del repo.files[path]

    return attack


def replayed_timestamp(repo: RepositorySimulator) -> None:
    """The state before the device's: every file of it was honest once."""
    repo.timestamp.version = 1
    repo.write("timestamp")


def older_snapshot(repo: RepositorySimulator) -> None:
    repo.snapshot.version = 0
    repo.publish("snapshot")


def older_targets(repo: RepositorySimulator) -> None:
    repo.targets.version = 0
    repo.publish("targets")


def dropped_role(repo: RepositorySimulator) -> None:
    del repo.snapshot.meta[f"{LEAF}.json"]
    repo.publish("snapshot")


def swapped(path: str, other: str) -> Callable[[RepositorySimulator], None]:
    """A file in the place of another."""

    def attack(repo: RepositorySimulator) -> None:
        repo.publish(LEAF, "targets")
        repo.files[path] = repo.files[other]

    return attack


def issued(role: str, days: float) -> Callable[[RepositorySimulator], None]:
    """A timestamp issued on the day when some role ends."""

    def attack(repo: RepositorySimulator) -> None:
        repo.signed[role].expires = repo.later(days=days)
        repo.timestamp.unrecognized_fields[ISSUED] = repo.later(days=days).strftime(SECONDS)
        repo.publish(*({"root", "timestamp"} if role == "root" else {role, "timestamp"}))

    return attack


def no_time(repo: RepositorySimulator) -> None:
    repo.timestamp.unrecognized_fields[ISSUED] = "soon"
    repo.publish("timestamp")


def two_roots_the_second_forged(repo: RepositorySimulator) -> None:
    repo.publish("root")
    repo.root.version += 1
    sign_with_stranger("root")(repo)
    repo.files["metadata/3.root.json"] = repo.sign("root")


def too_long(path: str, limit: int) -> Callable[[RepositorySimulator], None]:
    def attack(repo: RepositorySimulator) -> None:
        repo.files[path] = b" " * limit + b"{}"

    return attack


ATTACKS: list[Attack] = [
    (
        "a root signed by strangers",
        served_root(sign_with_stranger("root")),
        BadSignatureError,
        "root",
    ),
    (
        "a root that skips a version",
        served_root(lambda r: setattr(r.root, "version", 3)),
        MismatchError,
        "root",
    ),
    (
        "the trusted root again as the next",
        swapped("metadata/2.root.json", "metadata/1.root.json"),
        MismatchError,
        "root",
    ),
    (
        "a timestamp in the place of a root",
        swapped("metadata/2.root.json", "metadata/timestamp.json"),
        MalformedError,
        "root",
    ),
    (
        "a web page in the place of a root",
        lambda r: r.files.update({"metadata/2.root.json": b"<html>"}),
        MalformedError,
        "root",
    ),
    ("a root without end", too_long("metadata/2.root.json", 512_000), NotTrustedError, "root"),
    ("a good root and a forged one", two_roots_the_second_forged, BadSignatureError, "root v2"),
    (
        "a timestamp signed by strangers",
        published("timestamp", change=sign_with_stranger("timestamp")),
        BadSignatureError,
        "root",
    ),
    (
        "a timestamp without signatures",
        published("timestamp", change=lambda r: r.signers["timestamp"].clear()),
        BadSignatureError,
        "root",
    ),
    (
        "a timestamp changed on the way",
        tampered("metadata/timestamp.json"),
        BadSignatureError,
        "root",
    ),
    ("an older timestamp", replayed_timestamp, RollbackError, "root"),
    ("a timestamp of an older snapshot", older_snapshot, RollbackError, "root"),
    (
        "an expired timestamp",
        published("timestamp", change=expire("timestamp")),
        ExpiredError,
        "root",
    ),
    ("no timestamp", missing("metadata/timestamp.json"), NotFoundError, "root"),
    (
        "a timestamp without end",
        too_long("metadata/timestamp.json", 65_536),
        NotTrustedError,
        "root",
    ),
    (
        "a snapshot in the place of a timestamp",
        swapped("metadata/timestamp.json", "metadata/3.snapshot.json"),
        MalformedError,
        "root",
    ),
    ("a timestamp issued when it ends", issued("timestamp", 1), MismatchError, "root"),
    ("a timestamp issued when root ends", issued("root", 1), MismatchError, "root v2"),
    ("a timestamp issued at no time", no_time, MalformedError, "root"),
    (
        "a timestamp issued when snapshot ends",
        issued("snapshot", 1),
        MismatchError,
        "timestamp snapshot",
    ),
    (
        "a timestamp issued when targets end",
        issued("targets", 1),
        MismatchError,
        "timestamp snapshot targets",
    ),
    (
        "a snapshot signed by strangers",
        published("snapshot", change=sign_with_stranger("snapshot")),
        BadSignatureError,
        "timestamp",
    ),
    (
        "a snapshot changed on the way",
        tampered("metadata/3.snapshot.json"),
        MismatchError,
        "timestamp",
    ),
    (
        "the old snapshot as the new",
        swapped("metadata/3.snapshot.json", "metadata/2.snapshot.json"),
        MismatchError,
        "timestamp",
    ),
    ("a snapshot with older targets", older_targets, RollbackError, "timestamp"),
    ("a snapshot without a role", dropped_role, RollbackError, "timestamp"),
    (
        "an expired snapshot",
        published("snapshot", change=expire("snapshot")),
        ExpiredError,
        "timestamp",
    ),
    ("no snapshot", missing("metadata/3.snapshot.json"), NotFoundError, "timestamp"),
    (
        "targets signed by strangers",
        published("targets", change=sign_with_stranger("targets")),
        BadSignatureError,
        "timestamp snapshot",
    ),
    (
        "targets changed on the way",
        tampered("metadata/3.targets.json"),
        MismatchError,
        "timestamp snapshot",
    ),
    (
        "the old targets as the new",
        swapped("metadata/3.targets.json", "metadata/2.targets.json"),
        MismatchError,
        "timestamp snapshot",
    ),
    (
        "the leaf in the place of targets",
        swapped("metadata/3.targets.json", "metadata/2.gateway-stable.json"),
        MismatchError,
        "timestamp snapshot",
    ),
    (
        "expired targets",
        published("targets", change=expire("targets")),
        ExpiredError,
        "timestamp snapshot",
    ),
    ("no targets", missing("metadata/3.targets.json"), NotFoundError, "timestamp snapshot"),
    (
        "a leaf signed by strangers",
        published(LEAF, change=sign_with_stranger(LEAF)),
        BadSignatureError,
        "timestamp snapshot",
    ),
    (
        "a leaf signed by the targets key",
        published(LEAF, change=lambda r: r.signers.update({LEAF: r.signers["targets"]})),
        BadSignatureError,
        "timestamp snapshot",
    ),
    (
        "a leaf changed on the way",
        tampered("metadata/2.gateway-stable.json"),
        MismatchError,
        "timestamp snapshot targets",
    ),
    ("an expired leaf", published(LEAF, change=expire(LEAF)), ExpiredError, "timestamp snapshot"),
    (
        "no leaf",
        missing("metadata/2.gateway-stable.json"),
        NotFoundError,
        "timestamp snapshot targets",
    ),
]


@pytest.mark.parametrize(
    ("attack", "error", "accepted"), [c[1:] for c in ATTACKS], ids=[c[0] for c in ATTACKS]
)
def test_an_attack_is_refused_and_an_honest_update_follows(
    repo: RepositorySimulator,
    attack: Callable[[RepositorySimulator], object],
    error: type[FirmrootError],
    accepted: str,
) -> None:
    device = Device(repo)
    device.check(repo)
    before, floor = device.versions(), device.trust.time_floor
    evil = repo.fork()
    attack(evil)
    with pytest.raises(FirmrootError) as caught:
        device.check(evil)
    assert type(caught.value) is error
    if error not in {NotFoundError, NotTrustedError}:  # whose hints are the transport's
        assert caught.value.hint, caught.value.message
    if error is NotFoundError and accepted != "root":
        assert "the mirror lacks version" in caught.value.message
        assert "which signed metadata list" in caught.value.message
    changed = {role for role, version in device.versions().items() if version != before[role]}
    wanted = {"root"} if accepted == "root v2" else set(accepted.split()) - {"root"}
    assert changed == wanted
    assert device.trust.time_floor == floor, "evidence counts after a whole refresh only"

    # Whoever could sign timestamps had those keys: the honest side publishes beyond them.
    for _ in range(2):
        repo.publish(LEAF, "targets")
    if "root v2" in accepted:
        repo.files["metadata/2.root.json"] = evil.files["metadata/2.root.json"]
    device.check(repo)
    assert {**device.versions(), "root": 1} == {
        "root": 1, "timestamp": 4, "snapshot": 4, "targets": 4, LEAF: 3,
    }  # fmt: skip


class Offline:
    """A fetcher for which one path fails in a way that is not "not there"."""

    def __init__(self, repo: RepositorySimulator, path: str) -> None:
        self.repo = repo
        self.path = path

    def fetch(self, path: str, max_length: int) -> bytes:
        if path == self.path:
            raise RetryLaterError("the network is down")
        return self.repo.fetch(path, max_length)

    def stream(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        return self.repo.stream(path, offset, length)


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("metadata/2.root.json", {"root": 1}),
        ("metadata/3.root.json", {"root": 2}),
        ("metadata/timestamp.json", {"root": 2}),
        ("metadata/2.snapshot.json", {"root": 2, "timestamp": 2}),
        ("metadata/2.targets.json", {"root": 2, "timestamp": 2, "snapshot": 2}),
    ],
)
def test_a_network_failure_ends_the_refresh_and_keeps_what_was_accepted(
    repo: RepositorySimulator, path: str, kept: dict[str, int]
) -> None:
    repo.publish("root")
    device = Device(repo)
    with pytest.raises(RetryLaterError, match="the network is down"):
        Updater(device.store, Offline(repo, path), NOW).refresh()
    assert device.versions() == kept


# Rotations and recovery


def rotate_and_publish(repo: RepositorySimulator, *roles: str) -> None:
    for role in roles:
        repo.rotate(role)
    repo.publish("root")
    for role in ("snapshot", "timestamp"):
        repo.signed[role].version = 0
    repo.publish("snapshot")


@pytest.mark.parametrize("role", ["timestamp", "snapshot"])
def test_rotating_an_online_key_makes_devices_forget_its_versions(
    repo: RepositorySimulator, role: str
) -> None:
    device = Device(repo)
    repo.timestamp.version = repo.snapshot.version = 2**53 - 3
    repo.publish(LEAF, "targets")
    device.check(repo)
    assert device.versions()["timestamp"] == 2**53 - 2
    rotate_and_publish(repo, role)
    device.check(repo)
    assert device.versions() == {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 3, LEAF: 2}


def test_what_the_keys_before_signed_is_told_from_what_nobody_signed(
    repo: RepositorySimulator,
) -> None:
    device = Device(repo)
    device.check(repo)
    repo.rotate("timestamp")
    repo.publish("root")
    before = device.versions()
    for _ in range(2):  # as the root comes, and when it is known
        with pytest.raises(ReplacedKeysError, match="with the keys before root 2") as caught:
            device.check(repo)
        assert caught.value.exit_code == ExitCode.RETRY_LATER
        assert device.versions() == {"root": 2, "targets": before["targets"], LEAF: before[LEAF]}
    repo.rotate("timestamp")
    repo.publish("root")
    with pytest.raises(BadSignatureError) as other:
        device.check(repo)
    assert other.value.exit_code == ExitCode.NOT_TRUSTED, "no key of the root before either"
    repo.publish("timestamp")
    device.check(repo)
    assert device.versions()["root"] == 3


@pytest.mark.parametrize("role", ["root", "targets"])
def test_rotating_another_key_does_not(repo: RepositorySimulator, role: str) -> None:
    device = Device(repo)
    repo.publish(LEAF, "targets")
    device.check(repo)
    before = device.versions()
    rotate_and_publish(repo, role)
    with pytest.raises(RollbackError):
        device.check(repo)
    assert device.versions() == {**before, "root": 2}


def test_a_rotation_forgets_in_the_transaction_of_its_root(repo: RepositorySimulator) -> None:
    device = Device(repo)
    device.check(repo)
    repo.rotate("timestamp")
    repo.publish("root")
    commits = device.store.commits
    with pytest.raises(RetryLaterError):
        Updater(device.store, Offline(repo, "metadata/timestamp.json"), NOW).refresh()
    assert device.store.commits == commits + 1
    assert device.versions() == {"root": 2, "targets": 2, LEAF: 1}


def test_roles_that_the_snapshot_no_longer_lists_leave_the_store(repo: RepositorySimulator) -> None:
    device = Device(repo)
    device.check(repo)
    repo.rotate("snapshot")
    assert repo.targets.delegations is not None
    repo.targets.delegations.roles = {}
    del repo.snapshot.meta[f"{LEAF}.json"]
    repo.publish("root", "targets")
    device.check(repo)
    assert device.versions() == {"root": 2, "timestamp": 3, "snapshot": 3, "targets": 3}


def test_a_stored_leaf_is_verified_by_the_delegator_of_today(repo: RepositorySimulator) -> None:
    device = Device(repo)
    device.check(repo)
    repo.rotate(LEAF, "targets")
    repo.publish("targets")
    with pytest.raises(BadSignatureError, match=LEAF):
        device.check(repo)
    repo.publish(LEAF)
    device.check(repo)
    assert device.versions()[LEAF] == 2


def test_stored_targets_are_verified_by_the_root_of_today(repo: RepositorySimulator) -> None:
    device = Device(repo)
    device.check(repo)
    repo.rotate("targets")
    repo.publish("root")
    with pytest.raises(BadSignatureError, match="targets"):
        device.check(repo)
    repo.publish("targets")
    device.check(repo)
    assert device.versions()["targets"] == 3


def alter(data: bytes | None) -> bytes:
    assert data is not None
    parsed = json.loads(data)
    parsed["signed"]["expires"] = "2099-01-01T00:00:00Z"
    return json.dumps(parsed).encode()


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", LEAF])
def test_a_stored_file_that_no_longer_verifies_is_fetched_again(
    repo: RepositorySimulator, role: str
) -> None:
    device = Device(repo)
    device.check(repo)
    good = device.store.state
    assert good is not None
    trust = good.trust
    if role == "timestamp":
        trust = replace(trust, timestamp=alter(trust.timestamp))
    elif role == "snapshot":
        trust = replace(trust, snapshot=alter(trust.snapshot))
    else:
        trust = replace(trust, roles={**trust.roles, role: alter(trust.roles[role])})
    device.store.state = good.with_trust(trust)
    device.check(repo)
    assert device.store.state.trust == good.trust


def test_a_stored_snapshot_that_the_timestamp_does_not_hash_is_only_a_rollback_base(
    repo: RepositorySimulator,
) -> None:
    device = Device(repo)
    device.check(repo)
    repo.snapshot.unrecognized_fields["other"] = "bytes"
    repo.write("snapshot")  # the same version, another file: a repository that says two things
    repo.publish("timestamp")
    device.check(repo)
    assert requested(repo)[-1] == "2.snapshot.json"


# Expiry


@pytest.mark.parametrize(
    ("role", "refetched"),
    [
        ("timestamp", ["timestamp.json"]),
        ("snapshot", ["timestamp.json", "4.snapshot.json"]),
        ("targets", ["timestamp.json", "4.snapshot.json", "4.targets.json"]),
    ],
)
def test_expired_stored_metadata_only_guard_against_rollback(
    repo: RepositorySimulator, role: str, refetched: list[str]
) -> None:
    device = Device(repo)
    repo.signed[role].expires = repo.later(days=1)
    repo.publish(role)
    device.check(repo)
    later = repo.later(days=2)
    with pytest.raises(ExpiredError, match=role):
        device.check(repo, later)
    evil = repo.fork()
    evil.signed[role].expires = repo.later(days=9)
    evil.timestamp.version = 1
    evil.write("timestamp")
    with pytest.raises(RollbackError):
        device.check(evil, later)
    repo.signed[role].expires = repo.later(days=9)
    repo.publish(role)
    device.check(repo, later)
    assert requested(repo)[1:] == refetched


def test_the_newest_root_has_expired_and_is_kept(repo: RepositorySimulator) -> None:
    device = Device(repo)
    repo.root.expires = repo.later(days=-1)
    repo.publish("root")
    with pytest.raises(ExpiredError, match="root expired"):
        device.check(repo)
    # The timestamp was asked for its hint about a bundle; nothing is asked under the root.
    assert requested(repo) == ["2.root.json", "timestamp.json", "3.root.json"]
    assert device.versions() == {"root": 2}
    repo.root.expires = repo.later(days=1)
    repo.publish("root")
    device.check(repo)
    assert device.versions()["root"] == 3


def test_a_clock_of_1970_is_lifted_to_the_floor(repo: RepositorySimulator) -> None:
    early = NOW.replace(year=1970)
    device = Device(repo, Floors(int(repo.later(days=-9).timestamp()), 0, 0))
    updater = device.check(repo, early)
    assert updater.effective_now == repo.later(days=-9)
    assert updater.freshness is Freshness.UNPROVEN
    repo.timestamp.expires = repo.later(days=-9)
    repo.publish("timestamp")
    with pytest.raises(ExpiredError, match="timestamp"):
        device.check(repo, early)


def test_a_clock_of_2040_refuses_everything_and_leaves_no_trace(repo: RepositorySimulator) -> None:
    device = Device(repo)
    device.check(repo)
    before = device.store.state
    with pytest.raises(ExpiredError, match="root"):
        device.check(repo, NOW.replace(year=2040))
    assert device.store.state is before
    assert device.check(repo).freshness is Freshness.PROVEN


# Poisoned time


def poison(repo: RepositorySimulator) -> None:
    """A stolen timestamp key claims that almost a year has passed."""
    repo.timestamp.unrecognized_fields[ISSUED] = repo.later(days=364).strftime(SECONDS)
    repo.timestamp.expires = repo.later(days=3650)
    repo.publish("timestamp")


def poisoned_device(repo: RepositorySimulator, floors: Floors = FLOORS) -> Device:
    device = Device(repo, floors)
    poison(repo)
    device.check(repo)
    assert device.trust.time_floor == int(repo.later(days=364).timestamp())
    del repo.timestamp.unrecognized_fields[ISSUED]
    return device


def test_a_poisoned_floor_ends_with_the_key_that_made_it(repo: RepositorySimulator) -> None:
    device = poisoned_device(repo, Floors(1000, 0, 0))
    repo.root.expires = repo.timestamp.expires = repo.later(days=30)
    repo.rotate("timestamp")
    repo.publish("root", "timestamp")
    device.check(repo)
    assert device.trust.time_floor == 1000


def test_a_root_that_names_a_later_time_takes_the_floor_there(repo: RepositorySimulator) -> None:
    device = poisoned_device(repo, Floors(1000, 0, 0))
    repo.root.unrecognized_fields[ISSUED] = repo.later(days=-1).strftime(SECONDS)
    repo.rotate("timestamp")
    repo.publish("root", "timestamp")
    device.check(repo)
    assert device.trust.time_floor == int(repo.later(days=-1).timestamp())


@pytest.mark.parametrize("role", ["root", "snapshot", "targets"])
def test_another_rotation_does_not_take_the_floor_back(
    repo: RepositorySimulator, role: str
) -> None:
    device = poisoned_device(repo)
    repo.root.expires = repo.later(days=30)
    repo.rotate(role)
    repo.publish("root", "targets")
    with pytest.raises(ExpiredError, match="root"):
        device.check(repo)
    assert device.trust.time_floor == int(repo.later(days=364).timestamp())


def test_the_floor_is_taken_back_in_the_transaction_of_the_root(repo: RepositorySimulator) -> None:
    device = poisoned_device(repo, Floors(1000, 0, 0))
    repo.rotate("timestamp")
    repo.root.expires = repo.later(days=-1)
    repo.publish("root")
    with pytest.raises(ExpiredError, match="root"):
        device.check(repo)
    assert device.trust.time_floor == 1000
    assert device.trust.timestamp is None


def test_an_old_rotation_replayed_does_nothing(repo: RepositorySimulator) -> None:
    device = Device(repo)
    repo.rotate("timestamp")
    repo.publish("root", "timestamp")
    device.check(repo)
    poison(repo)
    device.check(repo)
    floor = device.trust.time_floor
    repo.files["metadata/3.root.json"] = repo.files["metadata/2.root.json"]
    with pytest.raises(MismatchError, match="version 2, expected 3"):
        device.check(repo)
    assert device.trust.time_floor == floor


# Durability


class Witness:
    """A fetcher that looks into the store at each request: what caused it must be durable."""

    def __init__(self, repo: RepositorySimulator, device: Device) -> None:
        self.repo = repo
        self.device = device

    def fetch(self, path: str, max_length: int) -> bytes:
        _, _, name = path.partition("/")
        number, _, rest = name.partition(".")
        versions = self.device.versions()
        if rest != "root.json":
            assert versions["root"] == self.repo.root.version
        if name != "timestamp.json" and rest != "root.json":
            assert versions["timestamp"] == self.repo.timestamp.version
        if number.isdecimal() and rest not in {"root.json", "snapshot.json"}:
            assert versions["snapshot"] == self.repo.snapshot.version
        if rest == f"{LEAF}.json":
            assert versions["targets"] == self.repo.targets.version
        return self.repo.fetch(path, max_length)

    def stream(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        return self.repo.stream(path, offset, length)


def test_nothing_is_asked_because_of_something_that_is_not_durable(
    repo: RepositorySimulator,
) -> None:
    device = Device(repo)
    for _ in range(3):
        repo.publish("root", LEAF, "targets")
        updater = Updater(device.store, Witness(repo, device), NOW)
        updater.refresh()
        updater.role(LEAF)
    assert device.versions()["root"] == 4


class FullDisk(MemoryStore):
    """A store that cannot make anything durable."""

    def commit(self, state: DeviceState, new_roots: Sequence[bytes] = ()) -> None:
        del state, new_roots
        raise LocalFailureError("no space left")


def test_a_store_that_fails_stops_the_refresh_before_the_next_request(
    repo: RepositorySimulator,
) -> None:
    store = FullDisk(initial_state(repo.files["metadata/1.root.json"], FLOORS))
    with pytest.raises(LocalFailureError):
        Updater(store, repo, NOW).refresh()
    assert requested(repo) == ["2.root.json", "timestamp.json"]


def test_a_store_that_was_emptied_meanwhile_is_not_filled_again(repo: RepositorySimulator) -> None:
    device = Device(repo)
    updater = Updater(device.store, repo, NOW)
    device.store.state = None
    with pytest.raises(LocalFailureError, match="emptied"):
        updater.refresh()
    assert device.store.commits == 0


# Roles and targets


def test_a_target_is_taken_from_the_role_that_is_named(repo: RepositorySimulator) -> None:
    repo.delegate("gateway-builds", ["builds/gateway/*/*"])
    repo.add_target("gateway-builds", "builds/gateway/1.0/a.img", b"image")
    repo.add_target("gateway-builds", MANIFEST, b"forged")
    repo.add_target("targets", MANIFEST, b"also forged")
    repo.publish("gateway-builds", "targets")
    updater = Device(repo).check(repo)
    assert updater.target("gateway-builds", MANIFEST) is None, "not a path of this delegation"
    assert updater.target(LEAF, "builds/gateway/1.0/a.img") is None
    assert updater.target("gateway-builds", "builds/gateway/1.0/b.img") is None
    assert updater.target("stranger", MANIFEST) is None
    manifest = updater.target(LEAF, MANIFEST)
    assert manifest is not None
    assert updater.fetch_target(manifest, 2) == b"{}"


def test_a_role_that_is_delegated_but_not_published_yet_is_absent(
    repo: RepositorySimulator,
) -> None:
    repo.delegate("later", ["later/*"])
    repo.publish("targets")
    updater = Device(repo).check(repo)
    assert updater.role("later") is None
    assert updater.target("later", "later/x") is None
    assert updater.role("never") is None


def test_a_role_is_verified_once_in_a_cycle(repo: RepositorySimulator) -> None:
    updater = Device(repo).check(repo)
    assert updater.role(LEAF) is updater.role(LEAF)


def test_a_role_that_is_listed_but_no_longer_delegated_is_absent(repo: RepositorySimulator) -> None:
    assert repo.targets.delegations is not None
    assert repo.targets.delegations.roles is not None
    del repo.targets.delegations.roles[LEAF]
    repo.publish("targets")
    updater = Device(repo).check(repo)
    assert updater.role(LEAF) is None
    assert updater.role("targets") is None


def test_delegations_in_a_circle_are_searched_once(repo: RepositorySimulator) -> None:
    repo.delegate("a", ["*"], terminating=False)
    repo.delegate("b", ["*"], delegator="a", terminating=False)
    repo.delegate("a", ["*"], delegator="b", terminating=False)
    repo.publish("a", "b", "targets")
    updater = Updater(Device(repo).store, repo, NOW)
    updater.refresh()
    repo.requests.clear()
    assert updater.find("x") is None
    assert requested(repo) == ["1.a.json", "1.b.json"]


def test_a_repository_without_delegations_has_no_roles() -> None:
    repo = RepositorySimulator()
    updater = Updater(Device(repo).store, repo, NOW)
    updater.refresh()
    assert updater.role(LEAF) is None
    assert updater.find("x") is None


def test_a_leaf_role_that_delegates_is_refused(repo: RepositorySimulator) -> None:
    repo.delegate("deeper", [MANIFEST], delegator=LEAF)
    repo.publish("deeper", LEAF)
    with pytest.raises(DelegationError, match="expected a leaf role"):
        Device(repo).check(repo)


def test_a_leaf_role_that_delegates_to_nobody_is_read(repo: RepositorySimulator) -> None:
    repo.role(LEAF).delegations = Delegations({}, {})
    repo.publish(LEAF)
    updater = Updater(Device(repo).store, repo, NOW)
    updater.refresh()
    assert updater.target(LEAF, MANIFEST) is not None


def test_targets_may_have_hash_bins_and_then_have_no_named_roles(repo: RepositorySimulator) -> None:
    bins = SuccinctRoles([], 1, 1, "bin")
    repo.targets.delegations = Delegations({}, succinct_roles=bins)
    for name in bins.get_roles():
        repo.signed[name] = Targets(expires=repo.later(days=1))
        repo.add_key(name, "targets")
    home = bins.get_role_for_target("any/file")
    repo.add_target(home, "any/file", b"x")
    repo.publish(*bins.get_roles(), "targets")
    updater = Updater(Device(repo).store, repo, NOW)
    updater.refresh()
    assert updater.role(home) is None
    assert updater.find("any/file") is not None


def test_a_target_that_is_longer_than_the_caller_allows_is_not_asked_for(
    repo: RepositorySimulator,
) -> None:
    updater = Device(repo).check(repo)
    target = updater.target(LEAF, MANIFEST)
    assert target is not None
    repo.requests.clear()
    with pytest.raises(MismatchError, match="2 bytes, expected at most 1"):
        updater.fetch_target(target, 1)
    assert repo.requests == []


def test_a_target_replaced_on_the_way_is_refused(repo: RepositorySimulator) -> None:
    updater = Device(repo).check(repo)
    target = updater.target(LEAF, MANIFEST)
    assert target is not None
    repo.files[updater.target_location(target)] = b"[]"
    with pytest.raises(MismatchError, match=MANIFEST):
        updater.fetch_target(target, 2)
    repo.files[updater.target_location(target)] = b"{} "
    with pytest.raises(NotTrustedError):
        updater.fetch_target(target, 9)


def test_a_target_is_asked_for_by_sha256_if_it_has_one(repo: RepositorySimulator) -> None:
    updater = Device(repo).check(repo)
    target = updater.target(LEAF, MANIFEST)
    assert target is not None
    target.hashes = {"sha512": "aa", "sha256": "bb"}
    assert updater.target_location(target) == "targets/channels/gateway/bb.stable.json"
    target.hashes = {"sha512": "aa"}
    assert updater.target_location(target) == "targets/channels/gateway/aa.stable.json"


def delegate_tree(repo: RepositorySimulator) -> None:
    for name, delegator, paths, terminating in [
        ("a", "targets", ["*.txt"], False),
        ("b", "targets", ["*.txt", "dir/*"], True),
        ("c", "targets", ["*.txt", "dir/*"], False),
        ("a1", "a", ["x*.txt"], False),
        ("b", "a1", ["*.txt"], False),
    ]:
        repo.delegate(name, paths, delegator=delegator, terminating=terminating)
    repo.add_target("a1", "x1.txt", b"from a1")
    repo.add_target("b", "y.txt", b"from b")
    repo.add_target("c", "z.txt", b"from c")
    repo.publish("a", "b", "c", "a1", "targets")


SEARCHES = [
    # path, found, roles asked in order
    ("x1.txt", True, ["a", "a1"]),
    ("x2.txt", False, ["a", "a1", "b"]),
    ("y.txt", True, ["a", "b"]),
    ("z.txt", False, ["a", "b"]),
    ("dir/z.txt", False, ["b"]),
    ("other", False, []),
]


@pytest.mark.parametrize(("path", "found", "asked"), SEARCHES, ids=[c[0] for c in SEARCHES])
def test_the_search_is_in_pre_order_and_ends_where_a_delegation_terminates(
    repo: RepositorySimulator, path: str, *, found: bool, asked: list[str]
) -> None:
    delegate_tree(repo)
    updater = Updater(Device(repo).store, repo, NOW)
    updater.refresh()
    repo.requests.clear()
    assert (updater.find(path) is not None) is found
    assert requested(repo) == [f"1.{role}.json" for role in asked]


def test_a_role_is_verified_for_each_delegator_that_names_it(repo: RepositorySimulator) -> None:
    for parent in ("left", "right"):
        repo.delegate(parent, [f"{parent}/*"])
        repo.delegate("shared", [f"{parent}/*"], delegator=parent)
    assert repo.role("right").delegations is not None
    right = repo.role("right").get_delegated_role("shared").keyids[0]
    del repo.signers["shared"][right]
    for parent in ("left", "right"):
        repo.add_target("shared", f"{parent}/x", b"x")
    repo.publish("shared", "left", "right", "targets")
    updater = Updater(Device(repo).store, repo, NOW)
    updater.refresh()
    assert updater.find("left/x") is not None
    with pytest.raises(BadSignatureError, match="shared"):
        updater.find("right/x")


def test_the_search_gives_up_after_many_roles(repo: RepositorySimulator) -> None:
    names = [f"r{number}" for number in range(40)]
    for name in names:
        repo.delegate(name, ["deep/*"], terminating=False)
    repo.add_target("r39", "deep/x", b"x")
    repo.publish(*names, "targets")
    updater = Updater(Device(repo).store, repo, NOW)
    updater.refresh()
    repo.requests.clear()
    assert updater.find("deep/x") is None
    assert len(repo.requests) == 32


def test_role_names_are_encoded_in_paths(repo: RepositorySimulator) -> None:
    repo.delegate("../up", ["*"])
    repo.publish("../up", "targets")
    updater = Updater(Device(repo).store, repo, NOW)
    updater.refresh()
    assert isinstance(updater.role("../up"), Targets)
    assert requested(repo)[-1] == "1...%2Fup.json"


def test_limits_bound_what_is_asked_for(repo: RepositorySimulator) -> None:
    asked: dict[str, int] = {}

    class Scale(Offline):
        def fetch(self, path: str, max_length: int) -> bytes:
            asked[path.removeprefix("metadata/")] = max_length
            return super().fetch(path, max_length)

    repo.snapshot.meta["targets.json"].length = 10**9
    repo.publish("snapshot")
    limits = Limits(root=400_000, timestamp=3_000, snapshot=200_000, targets=100_000)
    with pytest.raises(MismatchError):
        Updater(Device(repo).store, Scale(repo, ""), NOW, limits).refresh()
    assert asked == {
        "2.root.json": 400_000,
        "timestamp.json": 3_000,
        "3.snapshot.json": len(repo.files["metadata/3.snapshot.json"]),
        "2.targets.json": 100_000,
    }


# A root that came while this very refresh was under way


class Late:
    """Tells a device that there is no newer root, and has one a moment later."""

    def __init__(self, before: RepositorySimulator, after: RepositorySimulator) -> None:
        self.before = before
        self.after = after
        self.asked: list[str] = []

    def fetch(self, path: str, max_length: int) -> bytes:
        self.asked.append(path.removeprefix("metadata/"))
        source = self.before if len(self.asked) == 1 else self.after
        return source.fetch(path, max_length)

    def stream(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        return self.after.stream(path, offset, length)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_a_root_that_came_during_the_refresh_is_asked_for_again(
    role: str, repo: RepositorySimulator
) -> None:
    after = repo.fork()
    after.rotate(role)
    after.publish("root", "targets", "snapshot", "timestamp")
    device = Device(repo)
    late = Late(repo, after)
    updater = Updater(device.store, late, NOW)
    updater.refresh()
    assert updater.root.version == 2
    assert late.asked.count("2.root.json") == 2
    assert device.versions()[role] == 3


def test_a_bad_signature_costs_one_request_and_is_what_it_looks_like(
    repo: RepositorySimulator,
) -> None:
    thief = repo.fork()
    thief.signers["timestamp"].clear()
    thief.publish("timestamp")
    device = Device(repo)
    with pytest.raises(BadSignatureError, match="timestamp has good signatures of 0 keys"):
        device.check(thief)
    assert requested(thief) == ["2.root.json", "timestamp.json", "2.root.json"]
    device.check(repo)


def test_a_network_that_fails_at_the_second_question_hides_no_bad_signature(
    repo: RepositorySimulator,
) -> None:
    thief = repo.fork()
    thief.signers["timestamp"].clear()
    thief.publish("timestamp")
    late = Late(repo, thief)
    fetch = thief.fetch

    def failing(path: str, max_length: int) -> bytes:
        if path.endswith("2.root.json"):
            raise RetryLaterError("cut off")
        return fetch(path, max_length)

    thief.fetch = failing  # type: ignore[method-assign]  # this one alone
    device = Device(repo)
    with pytest.raises(BadSignatureError):
        Updater(device.store, late, NOW).refresh()
    device.check(repo)


@pytest.mark.parametrize(("own", "ends"), [("it said 403", ". it said 403"), ("", "verify`")])
def test_a_file_that_is_not_there_is_told_with_what_the_mirror_said(own: str, ends: str) -> None:
    said = lacking("1.targets.json", NotFoundError("gone", own))
    assert "lacks 1.targets.json, which signed metadata list: gone" in said.message
    assert said.hint.endswith(ends)
