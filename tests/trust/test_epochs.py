"""The TUF workflow in an epoch of the recovery anchor, and while the anchor moves under it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import LocalFailureError
from client_reference.strictjson import MalformedJsonError
from client_reference.trust import recovery
from client_reference.trust.state import MemoryStore
from client_reference.trust.updater import EpochEndedError, Floors, Updater, initial_state
from client_reference.trust.verified import BadSignatureError, MismatchError
from tests.simulators.anchor import AnchorSimulator, first_root
from tests.simulators.repository import NOW, RepositorySimulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FLOORS = Floors(time=0, minimum_sequence=0, epoch=0)


@pytest.fixture
def repo() -> RepositorySimulator:
    return RepositorySimulator()


@pytest.fixture
def anchor(repo: RepositorySimulator) -> AnchorSimulator:
    return AnchorSimulator(first_root(repo))


@pytest.fixture
def store(repo: RepositorySimulator, anchor: AnchorSimulator) -> MemoryStore:
    return MemoryStore(initial_state(first_root(repo), FLOORS, anchor.newest()))


def test_a_device_is_born_with_the_recovery_root_of_its_image(
    store: MemoryStore, anchor: AnchorSimulator
) -> None:
    assert store.state is not None
    trust = store.state.trust
    assert (trust.recovery_root, trust.recovery_version, trust.epoch) == (anchor.newest(), 1, 0)


def test_a_recovery_root_that_does_not_fit_begins_nothing(
    repo: RepositorySimulator, anchor: AnchorSimulator
) -> None:
    root = first_root(repo)
    with pytest.raises(MalformedJsonError):
        initial_state(root, FLOORS, root)
    with pytest.raises(MismatchError):
        initial_state(root, replace(FLOORS, epoch=1), anchor.newest())
    with pytest.raises(MismatchError):
        initial_state(first_root(RepositorySimulator(epoch=1)), FLOORS, anchor.newest())
    anchor.signers["root"].popitem()
    anchor.signers["root"].popitem()
    with pytest.raises(BadSignatureError):
        initial_state(root, FLOORS, anchor.write("root"))


@pytest.mark.parametrize("epoch", [1, 12])
def test_an_epoch_has_its_metadata_in_a_place_of_its_own(epoch: int) -> None:
    repo = RepositorySimulator(epoch=epoch)
    repo.delegate("gateway-stable", ["channels/gateway/stable.json"])
    repo.add_target("gateway-stable", "channels/gateway/stable.json", b"{}")
    repo.publish("gateway-stable", "targets")
    repo.publish("root")
    store = MemoryStore(initial_state(first_root(repo), replace(FLOORS, epoch=epoch)))
    updater = Updater(store, repo, NOW)
    updater.refresh()
    target = updater.target("gateway-stable", "channels/gateway/stable.json")
    assert target is not None
    assert updater.fetch_target(target, 100) == b"{}"
    place = f"metadata/e{epoch}"
    assert repo.requests[:-1] == [
        f"{place}/2.root.json",
        f"{place}/timestamp.json",
        f"{place}/3.root.json",
        f"{place}/timestamp.json",
        f"{place}/2.snapshot.json",
        f"{place}/2.targets.json",
        f"{place}/1.gateway-stable.json",
    ]
    assert repo.requests[-1].startswith("targets/channels/gateway/")


def test_before_the_first_new_root_somebody_is_asked_once(
    store: MemoryStore, repo: RepositorySimulator
) -> None:
    asked: list[int] = []

    def ask() -> None:
        assert store.state is not None
        asked.append(store.state.trust.root_version)

    Updater(store, repo, NOW, before_root=ask).refresh()
    assert asked == []
    repo.publish("root")
    repo.publish("root")
    Updater(store, repo, NOW, before_root=ask).refresh()
    assert asked == [1]
    assert store.state is not None
    assert store.state.trust.root_version == 3


def test_a_root_that_does_not_verify_asks_nobody(
    store: MemoryStore, repo: RepositorySimulator
) -> None:
    repo.publish("root")
    honest = repo.files["metadata/2.root.json"]
    repo.files["metadata/2.root.json"] = first_root(RepositorySimulator(epoch=3))
    updater = Updater(store, repo, NOW, before_root=lambda: pytest.fail("asked"))
    with pytest.raises(BadSignatureError):
        updater.refresh()
    repo.files["metadata/2.root.json"] = honest
    Updater(store, repo, NOW).refresh()


def test_what_the_question_raises_ends_the_refresh_with_nothing_changed(
    store: MemoryStore, repo: RepositorySimulator
) -> None:
    repo.publish("root")
    before = store.state

    def refuse() -> None:
        raise EpochEndedError("another epoch")

    with pytest.raises(EpochEndedError):
        Updater(store, repo, NOW, before_root=refuse).refresh()
    assert (store.state, store.commits) == (before, 0)
    Updater(store, repo, NOW).refresh()
    assert store.commits


class Rotating:
    """A repository whose keys of the timestamp change right after it said "no newer root"."""

    def __init__(self, repo: RepositorySimulator, before: RepositorySimulator) -> None:
        self.repo, self.before = repo, before

    def fetch(self, path: str, max_length: int) -> bytes:
        now, self.before = self.before, self.repo
        return now.fetch(path, max_length)

    def stream(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        return self.repo.stream(path, offset, length)


def test_an_epoch_that_ends_before_the_second_look_for_a_root_is_no_bad_signature(
    store: MemoryStore, repo: RepositorySimulator
) -> None:
    # Attack on itself: "not trusted" would be reported, and nothing begun again.
    before = repo.fork()
    repo.rotate("timestamp")
    repo.publish("root", "timestamp")
    started = store.state

    def ended() -> None:
        raise EpochEndedError("another epoch")

    with pytest.raises(EpochEndedError):
        Updater(store, Rotating(repo, before), NOW, before_root=ended).refresh()
    assert store.state == started
    Updater(store, Rotating(repo, before), NOW).refresh()
    assert store.state is not None
    assert store.state.trust.root_version == 2


def test_an_epoch_that_ends_while_a_bundle_is_taken_ends_the_refresh(
    store: MemoryStore, repo: RepositorySimulator, anchor: AnchorSimulator
) -> None:
    for _ in range(70):  # more than share a transaction
        repo.publish("root")
    repo.announce()
    anchor.re_root(RepositorySimulator(epoch=1))
    fetch = repo.fetch

    def re_rooting(path: str, max_length: int) -> bytes:
        data = fetch(path, max_length)
        if "root-chain/71" in path:
            assert store.state is not None
            first = anchor.files["e1/1.root.json"]
            store.begin_again(recovery.rerooted(store.state, anchor.anchor(), first, "gateway"))
        return data

    repo.fetch = re_rooting  # type: ignore[method-assign] # the moment that counts
    with pytest.raises(EpochEndedError):
        Updater(store, repo, NOW).refresh()
    assert repo.requests[-1] in {"metadata/root-chain/71", "metadata/root-chain/64"}
    assert store.state is not None
    assert store.state.trust.epoch == 1


def moved_by(store: MemoryStore, anchor: AnchorSimulator) -> Callable[[], None]:
    """The anchor renews its keys while a refresh runs."""

    def move() -> None:
        assert store.state is not None
        anchor.renew()
        store.commit(recovery.renewed(store.state, anchor.anchor()))

    return move


def test_an_anchor_that_was_renewed_during_a_refresh_stays_renewed(
    store: MemoryStore, repo: RepositorySimulator, anchor: AnchorSimulator
) -> None:
    repo.publish("root")
    updater = Updater(store, repo, NOW, before_root=moved_by(store, anchor))
    updater.refresh()
    assert store.state is not None
    trust = store.state.trust
    assert (trust.root_version, trust.recovery_version) == (2, 2)
    assert trust.recovery_root == anchor.newest()
    assert trust.timestamp is not None
    assert updater.state == store.state


def test_an_epoch_that_began_during_a_refresh_takes_nothing_of_the_old_one(
    store: MemoryStore, repo: RepositorySimulator, anchor: AnchorSimulator
) -> None:
    second = RepositorySimulator(epoch=1)
    anchor.re_root(second)
    updater = Updater(store, repo, NOW)
    assert store.state is not None
    after = recovery.rerooted(store.state, anchor.anchor(), first_root(second), "gateway")
    store.begin_again(after)
    with pytest.raises(EpochEndedError, match="is in epoch 1 now, the check began in epoch 0"):
        updater.refresh()
    assert store.state == after
    Updater(store, second, NOW).refresh()
    assert store.state.trust.timestamp == second.files["metadata/e1/timestamp.json"]


def test_a_store_that_was_emptied_during_a_refresh_is_no_new_epoch(
    store: MemoryStore, repo: RepositorySimulator
) -> None:
    updater = Updater(store, repo, NOW)
    store.state = None
    with pytest.raises(LocalFailureError, match="emptied"):
        updater.refresh()
