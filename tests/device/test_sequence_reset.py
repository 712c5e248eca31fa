"""The sequence reset: what a device believes of its own past when `targets` takes it back.

The attack: with a channel's threshold and the builder's key somebody had the device confirm the
highest sequence there is. Each attack on the reset itself ends with an honest update.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import NotTrustedError
from client_reference.selection import Skip
from client_reference.strictjson import MalformedJsonError
from client_reference.trust.reset import FIELD, Reset, followed, read_reset, read_resets
from client_reference.trust.state import InstallState
from client_reference.trust.verified import MismatchError
from client_reference.update import RESET, Outcome, check, confirm
from tests.device.test_update import NEW, OLD, Bench

if TYPE_CHECKING:
    from tuf.api.metadata import Targets

HIGHEST = 2**53 - 1


@pytest.fixture
def bench() -> Bench:
    """A device that runs what a thief had it confirm, and an honest 1.1 that it does not take."""
    found = Bench()
    found.install("1.0", 1, OLD)
    found.install("6.6", HIGHEST, NEW)
    withdraw(found, "6.6")
    offer(found)
    decision = check(found.machine).decision
    assert isinstance(decision, Skip)
    assert f"sequence {HIGHEST} is installed" in decision.detail
    return found


def withdraw(bench: Bench, version: str) -> None:
    """The thief's release is gone from manifest and builds role."""
    publisher = bench.publisher
    publisher.manifest = replace(
        publisher.manifest,
        releases=tuple(each for each in publisher.manifest.releases if each.version != version),
    )


def offer(bench: Bench, version: str = "1.1", sequence: int = 2) -> None:
    bench.publisher.release(version, sequence, OLD + version.encode())


def reset(bench: Bench, to: int, since: int | None = None, role: str = "targets") -> int:
    """Let a role say it; the version of `targets` that it names."""
    repo = bench.publisher.repo
    since = repo.targets.version + 1 if since is None else since
    repo.role(role).unrecognized_fields[FIELD] = {"gateway": {"since": since, "to": to}}
    repo.publish(role)
    return since


def installs(bench: Bench, version: str, sequence: int) -> None:
    """The honest update that ends each test."""
    assert bench.update() is Outcome.REBOOTING
    image = confirm(bench.machine)
    assert image is not None
    assert (image.version, image.sequence) == (version, sequence)
    assert bench.state.install.confirmed_sequence == sequence


def test_the_name_of_the_field_is_one() -> None:
    assert RESET == FIELD


def test_a_reset_takes_back_what_a_thief_had_confirmed(bench: Bench) -> None:
    since = reset(bench, to=1)
    check(bench.machine)
    assert bench.state.install.confirmed_sequence == 1
    assert bench.state.install.reset == since
    installs(bench, "1.1", 2)


def test_a_reset_binds_once(bench: Bench) -> None:
    """It stays in every later targets, and what is confirmed after it counts."""
    reset(bench, to=1)
    installs(bench, "1.1", 2)
    bench.publisher.repo.publish("targets")
    decision = check(bench.machine).decision
    assert isinstance(decision, Skip)
    assert bench.state.install.confirmed_sequence == 2
    offer(bench, "1.2", 3)
    installs(bench, "1.2", 3)


@pytest.mark.parametrize("role", ["gateway-stable", "gateway-builds"])
def test_neither_channel_nor_builds_resets_anything(bench: Bench, role: str) -> None:
    reset(bench, to=0, role=role)
    check(bench.machine)
    assert bench.state.install.confirmed_sequence == HIGHEST
    del bench.publisher.repo.role(role).unrecognized_fields[FIELD]
    reset(bench, to=1)
    installs(bench, "1.1", 2)


def test_an_older_targets_that_comes_back_resets_nothing_again(bench: Bench) -> None:
    """After a cut of the snapshot key devices forget versions; the reset that they followed stays.

    A thief of the online keys then brings back a targets of before, with its reset to 1.
    """
    first = reset(bench, to=1)
    repo = bench.publisher.repo
    old = repo.sign("targets"), repo.targets.version
    installs(bench, "1.1", 2)
    offer(bench, "1.2", 3)
    installs(bench, "1.2", 3)
    second = reset(bench, to=2)
    check(bench.machine)
    assert (bench.state.install.reset, bench.state.install.confirmed_sequence) == (second, 2)
    assert second > first

    trust = replace(bench.state.trust, timestamp=None, snapshot=None)
    bench.store.state = bench.state.with_trust(trust)
    thief = repo.fork()
    thief.signed["targets"].version = old[1]
    thief.files[thief.location("targets")] = old[0]
    thief.note("targets", old[0])
    thief.publish("snapshot", "timestamp")
    bench.network.repo = thief
    check(bench.machine)
    assert bench.state.install.confirmed_sequence == 2, "the old reset says 1"
    assert bench.state.install.reset == second

    bench.network.repo = repo
    bench.store.state = bench.state.with_trust(replace(trust, roles={}))
    offer(bench, "1.3", 4)
    installs(bench, "1.3", 4)


def test_other_targets_keys_undo_a_reset_that_a_thief_said(bench: Bench) -> None:
    """Attack: a reset since the last version that there is; nothing honest would be newer."""
    repo = bench.publisher.repo
    honest = repo.targets.version
    repo.targets.version = HIGHEST - 1
    reset(bench, to=HIGHEST, since=HIGHEST)
    check(bench.machine)
    assert bench.state.install.reset == HIGHEST
    del repo.targets.unrecognized_fields[FIELD]
    repo.targets.version, repo.snapshot.version, repo.timestamp.version = honest, 50, 50
    for role in ("snapshot", "timestamp"):
        repo.rotate(role)
    repo.publish("root", "targets", "snapshot", "timestamp")
    check(bench.machine)
    assert bench.state.install.reset == HIGHEST, "the same targets keys vouch for it"
    repo.rotate("targets")
    repo.publish("root", "targets", "snapshot", "timestamp")
    check(bench.machine)
    assert bench.state.install.reset == 0
    assert bench.state.install.confirmed_sequence == HIGHEST, "a rotation alone lowers nothing"
    reset(bench, to=1)
    installs(bench, "1.1", 2)


def test_a_reset_never_raises_a_sequence(bench: Bench) -> None:
    reset(bench, to=1)
    installs(bench, "1.1", 2)
    reset(bench, to=40)
    check(bench.machine)
    assert bench.state.install.confirmed_sequence == 2
    offer(bench, "1.2", 3)
    installs(bench, "1.2", 3)


def test_nothing_below_a_reset_is_installed(bench: Bench) -> None:
    reset(bench, to=3)
    decision = check(bench.machine).decision
    assert isinstance(decision, Skip), "1.1 is sequence 2"
    assert bench.state.install.confirmed_sequence == 3
    offer(bench, "1.2", 3)
    installs(bench, "1.2", 3)


def test_a_reset_of_another_product_is_not_ours(bench: Bench) -> None:
    repo = bench.publisher.repo
    repo.targets.unrecognized_fields[FIELD] = {"camera": {"since": 1, "to": 0}}
    repo.publish("targets")
    check(bench.machine)
    assert bench.state.install.confirmed_sequence == HIGHEST
    reset(bench, to=1)
    installs(bench, "1.1", 2)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ([], MalformedJsonError),
        ({"gateway": 1}, MalformedJsonError),
        ({"gateway": {"since": 1}}, MalformedJsonError),
        ({"gateway": {"since": 0, "to": 1}}, MalformedJsonError),
        ({"gateway": {"since": 1, "to": -1}}, MalformedJsonError),
        ({"gateway": {"since": 1, "to": True}}, MalformedJsonError),
        ({"gateway": {"since": 99, "to": 1}}, MismatchError),
    ],
)
def test_a_reset_that_makes_no_sense_changes_nothing(
    bench: Bench, field: object, expected: type[NotTrustedError]
) -> None:
    """One of a version to come would hide every reset until then."""
    repo = bench.publisher.repo
    repo.targets.unrecognized_fields[FIELD] = field
    repo.publish("targets")
    before = bench.state.install
    with pytest.raises(expected):
        check(bench.machine)
    assert bench.state.install == before
    reset(bench, to=1)
    installs(bench, "1.1", 2)


NONSENSE: tuple[object, ...] = (
    1,
    None,
    {},
    {"since": 1},
    {"since": 0, "to": 1},
    {"since": 1, "to": -1},
    {"since": "1", "to": 1},
    {"since": HIGHEST, "to": 1},
)


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_what_makes_no_sense_of_one_product_is_no_other_products_business(
    bench: Bench, nonsense: object
) -> None:
    repo = bench.publisher.repo
    repo.targets.unrecognized_fields[FIELD] = {"camera": nonsense}
    repo.publish("targets")
    check(bench.machine)
    assert bench.state.install.confirmed_sequence == HIGHEST
    since = repo.targets.version + 1
    said = {"camera": nonsense, "gateway": {"since": since, "to": 1}, "modem": nonsense}
    repo.targets.unrecognized_fields[FIELD] = said
    repo.publish("targets")
    installs(bench, "1.1", 2)
    with pytest.raises(NotTrustedError):  # a publisher judges them all
        read_resets(repo.targets)
    for product in ("camera", "modem"):
        with pytest.raises(NotTrustedError):
            read_reset(repo.targets, product)


def test_a_trial_from_before_a_reset_raises_no_floor() -> None:
    """The thief's image is on trial when the reset arrives: confirmed, it counts as nothing."""
    bench = Bench()
    bench.install("1.0", 1, OLD)
    bench.publisher.release("6.6", HIGHEST, NEW)
    assert bench.update() is Outcome.REBOOTING
    withdraw(bench, "6.6")
    offer(bench)
    reset(bench, to=1)
    check(bench.machine)
    confirm(bench.machine)
    assert bench.state.install.confirmed_sequence == 1
    installs(bench, "1.1", 2)


def test_what_was_staged_before_a_reset_is_staged_again() -> None:
    """Else what the publisher stands by would be confirmed without raising the floor."""
    from client_reference.update import Stop

    bench = Bench()
    bench.install("1.0", 1, OLD)
    offer(bench)
    assert bench.update(Stop.AFTER_STAGING) is Outcome.STAGED
    reset(bench, to=1)
    installs(bench, "1.1", 2)


def test_the_floors_of_an_image_know_the_resets_before_them() -> None:
    install = InstallState(confirmed_sequence=12, reset=7)
    assert followed(install, Reset(since=7, to=2)) is install
    assert followed(install, Reset(since=8, to=2)).confirmed_sequence == 2
    assert followed(install, None) is install


def test_no_field_is_no_reset(bench: Bench) -> None:
    targets: Targets = bench.publisher.repo.targets
    assert read_resets(targets) == {}
    assert read_reset(targets, "gateway") is None
