"""The recovery anchor judged as values: statements, links, walks, and what a device becomes."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from client_reference.strictjson import MalformedJsonError
from client_reference.trust import recovery
from client_reference.trust.clock import ISSUED
from client_reference.trust.recovery import (
    FIELD,
    MAX_ROOT,
    Fork,
    ForkedError,
    Renew,
    Reroot,
    Statement,
    Stay,
    Walk,
    check_origin,
    decide,
    first_anchor,
    next_anchor,
    primary_root,
    renewed,
    rerooted,
    stored_anchor,
)
from client_reference.trust.state import DeviceState, Image, InstallState, Phase, TrustState
from client_reference.trust.verified import BadSignatureError, MalformedError, MismatchError
from tests.simulators.anchor import AnchorSimulator, first_root, statement
from tests.simulators.repository import NOW, SECONDS, RepositorySimulator

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_reference.errors import NotTrustedError
    from client_reference.trust.recovery import Anchor

FIRST = first_root(RepositorySimulator())
SECOND = first_root(RepositorySimulator(epoch=1))
THIRD = first_root(RepositorySimulator(epoch=2))


@pytest.fixture
def simulator() -> AnchorSimulator:
    return AnchorSimulator(FIRST)


def links(simulator: AnchorSimulator, trusted: Anchor) -> list[Anchor]:
    """Every link that it serves after `trusted`, verified."""
    found = []
    while (data := simulator.files.get(f"{trusted.version + 1}.root.json")) is not None:
        trusted = next_anchor(trusted, data)
        found.append(trusted)
    return found


# Statements


def test_a_statement_is_what_was_said(simulator: AnchorSimulator) -> None:
    simulator.says = statement(FIRST, 0, gateway=3, sensor=0)
    simulator.write("root")
    said = simulator.anchor().statement
    assert said == Statement(0, said.sha256, len(FIRST), {"gateway": 3, "sensor": 0})
    assert said.primary == (statement(FIRST)["sha256"], len(FIRST))


@pytest.mark.parametrize("length", [1, MAX_ROOT])
def test_what_a_later_version_adds_is_ignored(simulator: AnchorSimulator, length: int) -> None:
    simulator.says |= {"length": length, "later": [1]}
    simulator.write("root")
    assert simulator.anchor().statement.length == length


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no epoch": ({"epoch": None}, "recovery root.x-firmroot-primary.epoch: found null"),
    "an epoch of true": ({"epoch": True}, "epoch: found true"),
    "an epoch below 0": ({"epoch": -1}, "epoch: found -1"),
    "an epoch as text": ({"epoch": "1"}, 'epoch: found "1"'),
    "a hash in capitals": ({"sha256": "AB" * 32}, "sha256: found"),
    "a short hash": ({"sha256": "ab" * 31}, "sha256: found"),
    "a long hash": ({"sha256": "ab" * 33}, "sha256: found"),
    "a hash with a line end": ({"sha256": "ab" * 32 + "\n"}, "sha256: found"),
    "a hash as a number": ({"sha256": 12}, "sha256: found 12"),
    "a length of nothing": (
        {"length": 0},
        f"length: found 0, expected an integer from 1 to {MAX_ROOT}",
    ),
    "a length that no root has": ({"length": MAX_ROOT + 1}, "length: found 512001"),
    "a length of false": ({"length": False}, "length: found false"),
    "sequences as an array": ({"minimum_sequence": []}, "minimum_sequence: found an array"),
    "sequences as null": ({"minimum_sequence": None}, "minimum_sequence: found null"),
    "a sequence below 0": ({"minimum_sequence": {"gateway": -1}}, "minimum_sequence.gateway"),
    "a sequence as text": ({"minimum_sequence": {"gateway": "3"}}, "minimum_sequence.gateway"),
    "one bad sequence among good ones": (
        {"minimum_sequence": {"a": 1, "b": True}},
        "minimum_sequence.b: found true",
    ),
}


@pytest.mark.parametrize("sentence", BAD)
def test_a_statement_that_is_not_as_it_must_be_is_refused_by_its_place(
    simulator: AnchorSimulator, sentence: str
) -> None:
    wrong, message = BAD[sentence]
    trusted = simulator.anchor()
    simulator.says |= wrong
    simulator.publish("root")
    with pytest.raises(MalformedJsonError) as caught:
        next_anchor(trusted, simulator.newest())
    assert message in caught.value.message
    with pytest.raises(MalformedJsonError):
        first_anchor(simulator.newest())
    with pytest.raises(MalformedJsonError):
        stored_anchor(simulator.newest())


@pytest.mark.parametrize("name", ["epoch", "sha256", "length", "minimum_sequence"])
def test_every_part_of_a_statement_must_be_there(simulator: AnchorSimulator, name: str) -> None:
    del simulator.says[name]
    simulator.write("root")
    with pytest.raises(MalformedJsonError, match=f"{name}: found nothing"):
        simulator.anchor()


@pytest.mark.parametrize("said", [[], "text", None, 3])
def test_a_statement_is_an_object(simulator: AnchorSimulator, said: Any) -> None:  # noqa: ANN401 # any JSON
    simulator.root.unrecognized_fields[FIELD] = said
    simulator.write("root")
    with pytest.raises(MalformedJsonError, match="expected an object"):
        simulator.anchor()


def test_a_primary_root_is_no_recovery_root() -> None:
    with pytest.raises(MalformedJsonError, match="x-firmroot-primary: found nothing"):
        first_anchor(FIRST)


def test_a_recovery_root_in_an_image_is_signed_by_itself(simulator: AnchorSimulator) -> None:
    simulator.signers["root"].popitem()
    simulator.signers["root"].popitem()
    data = simulator.write("root")
    with pytest.raises(BadSignatureError):
        first_anchor(data)
    # What was stored was verified before: it is only read.
    assert stored_anchor(data).data == data
    with pytest.raises(MalformedError):
        stored_anchor(data[:-10])


# Links


def test_a_chain_of_all_that_may_happen(simulator: AnchorSimulator) -> None:
    trusted = simulator.anchor()
    simulator.renew()
    simulator.re_root(SECOND, gateway=4)
    simulator.renew()
    simulator.re_root(THIRD)
    found = links(simulator, trusted)
    assert [(link.version, link.statement.epoch) for link in found] == [
        (2, 0),
        (3, 1),
        (4, 1),
        (5, 2),
    ]
    assert found[2].statement.minimum_sequence == {"gateway": 4}
    assert [link.data for link in found] == [
        simulator.files[f"{n}.root.json"] for n in (2, 3, 4, 5)
    ]


def sets(**changed: Any) -> Callable[[AnchorSimulator], None]:  # noqa: ANN401 # any JSON
    def change(simulator: AnchorSimulator) -> None:
        simulator.says = simulator.says | changed

    return change


def one_signature(simulator: AnchorSimulator) -> None:
    """Below the threshold of two."""
    while len(simulator.signers["root"]) > 1:
        simulator.signers["root"].popitem()


def other_keys(simulator: AnchorSimulator) -> None:
    """New keys that the old ones did not sign for."""
    simulator.renew()
    simulator.root.version = 1


def skipped(simulator: AnchorSimulator) -> None:
    simulator.root.version = 2


BROKEN: dict[str, tuple[Callable[[AnchorSimulator], None], type[NotTrustedError], str]] = {
    "too few signatures": (
        one_signature,
        BadSignatureError,
        "recovery root 2 has good signatures of 1 key of recovery root 1",
    ),
    "keys of nobody": (other_keys, BadSignatureError, "has good signatures of 0 keys"),
    "a version left out": (skipped, MismatchError, "root has version 3, expected 2"),
    "an epoch left out": (sets(epoch=3), MismatchError, "is of epoch 3, expected 1 or 2"),
    "an epoch taken back": (sets(epoch=0), MismatchError, "is of epoch 0, expected 1 or 2"),
    "another hash in the same epoch": (
        sets(sha256="ab" * 32),
        ForkedError,
        "names two primary roots for epoch 1",
    ),
    "another length in the same epoch": (sets(length=9), ForkedError, "two primary roots"),
    "another sequence in the same epoch": (
        sets(minimum_sequence={"gateway": 5}),
        MismatchError,
        "recovery root 2 changes minimum_sequence within epoch 1",
    ),
    "one product less in the same epoch": (
        sets(minimum_sequence={}),
        MismatchError,
        "changes minimum_sequence",
    ),
}


@pytest.mark.parametrize("sentence", BROKEN)
def test_a_link_that_breaks_the_chain_is_refused(sentence: str) -> None:
    change, kind, message = BROKEN[sentence]
    simulator = AnchorSimulator(SECOND)
    simulator.says = statement(SECOND, 1, gateway=4)
    simulator.write("root")
    trusted, honest = simulator.anchor(), simulator.fork()
    change(simulator)
    simulator.publish("root")
    with pytest.raises(kind, match=message) as caught:
        next_anchor(trusted, simulator.newest())
    if isinstance(caught.value, ForkedError):
        assert caught.value.epoch == 1
    honest.re_root(THIRD, gateway=2)
    assert next_anchor(trusted, honest.newest()).statement.epoch == 2


@pytest.mark.parametrize("years", [0, 11, 75])
def test_neither_expiry_nor_time_is_looked_at(years: int) -> None:
    simulator = AnchorSimulator(FIRST, now=datetime(1970, 1, 2, tzinfo=UTC))
    trusted = simulator.anchor()
    simulator.root.expires = datetime(1971, 1, 1, tzinfo=UTC) + timedelta(days=365 * years)
    simulator.root.unrecognized_fields[ISSUED] = "2106-01-01T00:00:00Z"
    simulator.re_root(SECOND)
    assert next_anchor(trusted, simulator.newest()).statement.epoch == 1


# Walks


def branches() -> tuple[Anchor, AnchorSimulator, AnchorSimulator]:
    """An anchor of epoch 0, and two servers of it."""
    simulator = AnchorSimulator(FIRST)
    return simulator.anchor(), simulator, simulator.fork()


def test_nothing_newer_is_nothing_to_do() -> None:
    trusted, _, _ = branches()
    assert decide(trusted, 0, []) == Stay()
    assert decide(trusted, 0, [Walk(), Walk()]) == Stay()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_longest_chain_wins_in_whatever_order(order: tuple[int, int]) -> None:
    trusted, one, _ = branches()
    one.renew()
    one.renew()
    long = links(one, trusted)
    walks = [Walk(long[:1]), Walk(long)]
    assert decide(trusted, 0, [walks[i] for i in order]) == Renew(long[-1])
    one.re_root(SECOND)
    longer = links(one, trusted)
    assert decide(trusted, 0, [Walk(longer), Walk(long), Walk()]) == Reroot(longer[-1])


def test_two_chains_of_the_same_epochs_are_followed_by_nobody() -> None:
    """Attack: the longer one is of whoever gathered a threshold of retired recovery keys."""
    trusted, one, other = branches()
    one.renew()
    one.re_root(SECOND)
    other.add_recovery_key()
    other.publish("root")
    other.re_root(SECOND)
    other.renew()
    honest, thief = links(one, trusted), links(other, trusted)
    assert len(thief) > len(honest)
    for shown in ([honest, thief], [thief, honest], [honest[:1], thief], [thief[:1], honest]):
        decision = decide(trusted, 0, [Walk(), *map(Walk, shown)])
        assert isinstance(decision, Fork)
        assert decision.error.epoch == 0
        assert "two recovery roots 2, both signed well, with SHA-256" in decision.error.message
        for each in (honest[0], thief[0]):
            assert hashlib.sha256(each.data).hexdigest() in decision.error.message
    # The way out is that one of the two is withdrawn.
    assert decide(trusted, 0, [Walk(honest), Walk()]) == Reroot(honest[-1])


def test_another_signature_on_the_same_root_is_no_fork() -> None:
    trusted, one, _ = branches()
    one.renew()
    (first,) = links(one, trusted)
    fewer = json.loads(first.data)
    fewer["signatures"] = fewer["signatures"][::-1]
    second = next_anchor(trusted, json.dumps(fewer).encode())
    assert first.data != second.data
    assert decide(trusted, 0, [Walk([first]), Walk([second])]) == Renew(first)


def test_several_epochs_at_once_lead_to_the_newest() -> None:
    trusted, one, _ = branches()
    one.re_root(SECOND)
    one.re_root(THIRD)
    decision = decide(trusted, 0, [Walk(links(one, trusted))])
    assert isinstance(decision, Reroot)
    assert (decision.anchor.statement.epoch, decision.anchor.version) == (2, 3)


def test_an_epoch_that_the_device_is_in_or_has_left_moves_nothing() -> None:
    simulator = AnchorSimulator(FIRST)
    trusted = simulator.anchor()
    simulator.re_root(SECOND)
    walk = Walk(links(simulator, trusted))
    assert isinstance(decide(trusted, 1, [walk]), Renew)
    assert isinstance(decide(trusted, 2, [walk]), Renew)
    # A recovery root that names a higher epoch than the device is in counts even if it is stored.
    assert isinstance(decide(simulator.anchor(), 0, [Walk()]), Reroot)


def test_two_primary_roots_for_one_epoch_are_followed_by_nobody() -> None:
    trusted, one, other = branches()
    one.re_root(SECOND)
    other.re_root(THIRD)
    walks = [Walk(links(one, trusted)), Walk(links(other, trusted))]
    for shown in (walks, walks[::-1], [Walk(), *walks]):
        decision = decide(trusted, 0, shown)
        assert isinstance(decision, Fork)
        assert decision.error.epoch == 1
        assert statement(SECOND)["sha256"] in decision.error.message
        assert statement(THIRD)["sha256"] in decision.error.message


def test_a_fork_below_a_longer_chain_is_a_fork() -> None:
    trusted, one, other = branches()
    one.re_root(SECOND)
    one.re_root(THIRD)
    other.re_root(THIRD)
    walks = [Walk(links(one, trusted)), Walk(links(other, trusted))]
    assert isinstance(decide(trusted, 0, walks), Fork)


def test_a_fork_within_one_chain_is_followed_by_nobody_either() -> None:
    trusted, one, _ = branches()
    one.re_root(SECOND)
    error = ForkedError(1, "aa", "bb")
    honest = Walk(links(one, trusted))
    assert decide(trusted, 0, [honest, Walk(honest.links, error)]) == Fork(error)
    assert isinstance(decide(trusted, 0, [honest]), Reroot)


# First primary roots


def test_the_first_primary_root_is_the_file_that_was_named() -> None:
    said = Statement(1, **{k: statement(SECOND)[k] for k in ("sha256", "length")})
    assert primary_root(said, SECOND).version == 1
    for wrong in (FIRST, SECOND + b"\n", SECOND[:-1], b""):
        with pytest.raises(MismatchError, match="the first primary root of epoch 1 has"):
            primary_root(said, wrong)
    with pytest.raises(MismatchError, match="expected 7 bytes"):
        primary_root(replace(said, length=7), SECOND)


def test_the_first_primary_root_is_a_root_of_version_1_signed_by_itself() -> None:
    repo = RepositorySimulator(epoch=1)
    repo.publish("root")
    second = repo.files["metadata/e1/2.root.json"]
    said = Statement(1, statement(second)["sha256"], len(second))
    with pytest.raises(MismatchError, match="has version 2, expected 1"):
        primary_root(said, second)
    del repo.signers["root"]
    unsigned = repo.sign("root")
    with pytest.raises(BadSignatureError):
        primary_root(Statement(1, statement(unsigned)["sha256"], len(unsigned)), unsigned)


def test_an_export_is_of_one_piece(simulator: AnchorSimulator) -> None:
    anchor = simulator.anchor()
    check_origin(anchor, 0, FIRST)
    repo = RepositorySimulator()
    repo.publish("root")
    check_origin(anchor, 0, repo.files["metadata/2.root.json"])
    with pytest.raises(MismatchError, match="is of epoch 0, the floors of epoch 1"):
        check_origin(anchor, 1, FIRST)
    with pytest.raises(MismatchError, match="the first primary root of epoch 0"):
        check_origin(anchor, 0, SECOND)


# What a device becomes


TRUST = TrustState(
    factory_sha256="ab" * 32,
    root=FIRST,
    root_version=7,
    timestamp=b"t",
    snapshot=b"s",
    roles={"targets": b"x"},
    time_floor=4_000_000_000,
    factory_floor=1_000,
)
IMAGE = Image("cd" * 32, 5, "9.9", 9_000)
STATE = DeviceState(TRUST, InstallState(Phase.STAGED, IMAGE, IMAGE, 9_000, ("ef" * 32,), (IMAGE,)))


def test_a_renewed_anchor_changes_nothing_else(simulator: AnchorSimulator) -> None:
    anchor = simulator.anchor()
    after = renewed(STATE, anchor)
    assert (after.trust.recovery_root, after.trust.recovery_version) == (anchor.data, 1)
    assert after == STATE.with_trust(replace(TRUST, recovery_root=anchor.data, recovery_version=1))


def test_re_rooting_forgets_versions_and_time_and_takes_the_floor_of_the_statement(
    simulator: AnchorSimulator,
) -> None:
    anchor = first_anchor(simulator.re_root(SECOND, gateway=3))
    after = rerooted(STATE, anchor, SECOND, "gateway")
    assert after.trust == TrustState(
        factory_sha256="ab" * 32,
        root=SECOND,
        root_version=1,
        epoch=1,
        recovery_root=anchor.data,
        recovery_version=2,
    )
    assert after.install == replace(STATE.install, confirmed_sequence=3)
    other = rerooted(STATE, anchor, SECOND, "sensor")
    assert other.install.confirmed_sequence == 0


def test_the_time_floor_of_a_new_epoch_is_what_its_root_says() -> None:
    repo = RepositorySimulator(epoch=1)
    repo.root.unrecognized_fields[ISSUED] = NOW.strftime(SECONDS)
    root = repo.write("root")
    simulator = AnchorSimulator(FIRST)
    anchor = first_anchor(simulator.re_root(root))
    after = rerooted(STATE, anchor, root, "gateway").trust
    assert (after.time_floor, after.factory_floor) == (int(NOW.timestamp()),) * 2


def test_a_root_that_nobody_named_begins_no_epoch(simulator: AnchorSimulator) -> None:
    anchor = first_anchor(simulator.re_root(SECOND))
    before = copy.deepcopy(STATE)
    with pytest.raises(MismatchError):
        rerooted(STATE, anchor, THIRD, "gateway")
    assert before == STATE


def test_where_things_are() -> None:
    assert recovery.link_path(12) == "12.root.json"
    assert recovery.first_root_path(3) == "e3/1.root.json"
