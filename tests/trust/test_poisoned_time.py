"""Poison, rotate, cut after each link: the device always comes back.

A thief of the timestamp key raised the time floor by a year, so all that is honest looks expired.
The owner rotates that key with one of three new roots. The check that brings them ends after any of
its requests, by the network or by a kill; a check or two later the device is where it belongs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from client_reference.errors import FirmrootError, RetryLaterError
from client_reference.trust import updater
from client_reference.trust.clock import ISSUED
from client_reference.trust.state import MemoryStore
from client_reference.trust.updater import Floors, Updater, initial_state
from client_reference.trust.verified import BadSignatureError, ExpiredError
from tests.simulators.repository import NOW, SECONDS, RepositorySimulator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client_reference.trust.state import DeviceState, TrustState

LEAF = "gateway-stable"
MANIFEST = "channels/gateway/stable.json"
FACTORY = 1000
LINKS = 3


class Killed(BaseException):
    """The process is gone: nothing that would run after this runs."""


@dataclass
class Road:
    """What is on the mirror between the device and the newest metadata, and how far it leads.

    Attributes:
        repo: honest.
        left: requests that are answered.
        kill: the process ends at the next one, not the network.
        ended: it did.
    """

    repo: RepositorySimulator
    left: int
    kill: bool
    ended: bool = field(default=False, init=False)

    def fetch(self, path: str, max_length: int) -> bytes:
        if self.left == 0:
            self.ended = True
            raise Killed if self.kill else RetryLaterError("the network is gone")
        self.left -= 1
        return self.repo.fetch(path, max_length)

    stream = RepositorySimulator.stream  # never asked for


class Disk(MemoryStore):
    """A store that a dead process does not write to."""

    road: Road | None = None

    def commit(self, state: DeviceState, new_roots: Sequence[bytes] = ()) -> None:
        if self.road is None or not (self.road.ended and self.road.kill):
            super().commit(state, new_roots)


def check(store: Disk, road: Road) -> TrustState:
    store.road = road
    found = Updater(store, road, NOW)
    found.refresh()
    found.role(LEAF)
    found.keep()
    assert store.state is not None
    return store.state.trust


def whole(repo: RepositorySimulator) -> Road:
    return Road(repo, 1000, kill=False)


@dataclass(frozen=True)
class Scene:
    """The device that was fooled, what the thief signed, and what its owner did about it."""

    frozen: DeviceState
    poison: bytes
    repo: RepositorySimulator
    requests: int


def scene(link: int, *, bundle: bool) -> Scene:
    repo = RepositorySimulator()
    repo.delegate(LEAF, [MANIFEST])
    repo.add_target(LEAF, MANIFEST, b"1")
    repo.publish(LEAF, "targets")
    store = Disk(initial_state(repo.files["metadata/1.root.json"], Floors(FACTORY, 0, 0)))
    stolen = repo.fork()
    stolen.timestamp.unrecognized_fields[ISSUED] = repo.later(days=364).strftime(SECONDS)
    stolen.timestamp.expires = repo.later(days=3650)
    stolen.publish("timestamp")
    poisoned = check(store, whole(stolen))
    assert poisoned.time_floor == int(repo.later(days=364).timestamp())
    assert store.state is not None

    repo.root.expires = repo.timestamp.expires = repo.later(days=30)
    repo.timestamp.version = stolen.timestamp.version
    repo.add_target(LEAF, MANIFEST, b"2")
    repo.publish(LEAF, "targets")
    with pytest.raises(ExpiredError):
        check(Disk(store.state), whole(repo))
    for number in range(LINKS):
        if number == link:
            repo.rotate("timestamp")
        repo.publish("root")
    repo.publish("timestamp")
    if bundle:
        repo.announce()
    repo.requests.clear()
    check(Disk(store.state), whole(repo))
    return Scene(store.state, stolen.files["metadata/timestamp.json"], repo, len(repo.requests))


ENDS = [
    # killed, or left by the network; roots that one commit holds
    (False, 64),
    (True, 64),
    (True, 1),
]


@pytest.mark.parametrize("bundle", [False, True], ids=["single files", "bundle"])
@pytest.mark.parametrize("link", range(LINKS))
def test_poison_rotate_cut_after_each_link_the_device_always_comes_back(
    link: int, *, bundle: bool
) -> None:
    found = scene(link, bundle=bundle)
    newest = found.repo.files["metadata/timestamp.json"]
    for kill, batch in ENDS:
        for answered in range(found.requests):
            store = Disk(found.frozen)
            store.chain = [found.repo.files["metadata/1.root.json"]]
            road = Road(found.repo, answered, kill=kill)
            with (
                patch.object(updater, "ROOT_BATCH", batch),
                pytest.raises(Killed if kill else FirmrootError),
            ):
                check(store, road)
            assert road.ended
            trust = back(store, found.repo)
            assert (trust.timestamp, trust.root_version) == (newest, 1 + LINKS)
            assert trust.time_floor == FACTORY
            assert len(store.chain) == 1 + LINKS
    # What the thief has left is a key that nobody believes.
    found.repo.files["metadata/timestamp.json"] = found.poison
    with pytest.raises(BadSignatureError):
        check(store, whole(found.repo))
    found.repo.files["metadata/timestamp.json"] = newest
    assert check(store, whole(found.repo)).time_floor == FACTORY


def back(store: Disk, repo: RepositorySimulator) -> TrustState:
    """Where the device is after a check, or two if the first one fails."""
    try:
        return check(store, whole(repo))
    except FirmrootError:
        return check(store, whole(repo))
