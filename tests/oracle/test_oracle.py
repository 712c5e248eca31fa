"""The oracle: the same life of a repository leads this client and `tuf.ngclient` to one verdict.

Hypothesis invents lives: honest changes, attacks, and time that passes. After each step both
clients check the same simulator at the same moment, and are compared: accepted or refused, for a
reason of the same family, and the very bytes that each of them trusts for every role.

FIRMROOT_ORACLE_CASES raises the number of lives (300).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import Metadata, Root, Targets
from tuf.api.serialization import DeserializationError
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater as NgUpdater

from client_reference.errors import FirmrootError, NotFoundError, NotTrustedError
from client_reference.trust import verified
from client_reference.trust.state import MemoryStore
from client_reference.trust.updater import Floors, Updater, initial_state
from client_reference.trust.verified import (
    BadSignatureError,
    ExpiredError,
    MalformedError,
    MismatchError,
    RollbackError,
)
from tests.oracle.mutations import ATTACKS, DIFFERENCES, HONEST, LEAF, PATH, new_repository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from tests.simulators.repository import RepositorySimulator

CASES = int(os.environ.get("FIRMROOT_ORACLE_CASES", "300"))
ROLES = ("root", "timestamp", "snapshot", "targets", LEAF)
REJECTIONS = (
    BadSignatureError,
    RollbackError,
    ExpiredError,
    MismatchError,
    MalformedError,
    NotFoundError,
    NotTrustedError,
)


class Ours:
    """This client with a store in memory."""

    def __init__(self, root: bytes) -> None:
        self.store = MemoryStore(initial_state(root, Floors(0, 0, 0)))

    def check(self, repo: RepositorySimulator, now: datetime) -> FirmrootError | None:
        """The error, None if all was accepted."""
        try:
            updater = Updater(self.store, repo, now)
            updater.refresh()
            updater.find(PATH)
        except FirmrootError as error:
            return error
        return None

    def trusted(self) -> dict[str, bytes | None]:
        """Stored bytes by role."""
        assert self.store.state is not None
        trust = self.store.state.trust
        return {
            "root": trust.root,
            "timestamp": trust.timestamp,
            "snapshot": trust.snapshot,
            "targets": trust.roles.get("targets"),
            LEAF: trust.roles.get(LEAF),
        }


class SimulatorFetcher(FetcherInterface):
    """Hands the simulator to ngclient."""

    def __init__(self, repo: RepositorySimulator) -> None:
        self.repo = repo

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            data = self.repo.fetch(url, 2**62)
        except NotFoundError as error:
            raise tuf_errors.DownloadHTTPError("not served", 404) from error
        return iter([data])


class Theirs:
    """`tuf.ngclient` with its directory."""

    def __init__(self, root: bytes, directory: Path) -> None:
        self.directory = directory
        self.root = root

    def check(self, repo: RepositorySimulator, now: datetime) -> Exception | None:
        """The error, None if all was accepted."""
        try:
            updater = NgUpdater(
                str(self.directory),
                "metadata/",
                fetcher=SimulatorFetcher(repo),
                bootstrap=self.root,
            )
            # ngclient reads the clock itself and takes no time from its caller (design 6).
            updater._trusted_set.reference_time = now
            updater.get_targetinfo(PATH)
        except (
            tuf_errors.RepositoryError,
            tuf_errors.DownloadError,
            DeserializationError,
        ) as error:
            return error
        return None

    def trusted(self) -> dict[str, bytes | None]:
        """Stored bytes by role."""
        return {
            role: path.read_bytes() if (path := self.directory / f"{role}.json").exists() else None
            for role in ROLES
        }


def believed(files: dict[str, bytes | None]) -> dict[str, bytes | None]:
    """Files that the root among them signs for: both clients leave others where they are."""
    assert files["root"] is not None
    root = verified.read(Root, "root", files["root"]).signed
    return {
        role: data if role in {"root", LEAF} or _signed_by(root, role, data) else None
        for role, data in files.items()
    }


def _signed_by(root: Root, role: str, data: bytes | None) -> bool:
    if data is None:
        return False
    metadata: Metadata[Targets] = Metadata.from_bytes(data)
    return bool(root.get_verification_result(role, metadata.signed_bytes, metadata.signatures))


FAMILIES: list[tuple[str, tuple[type[Exception], ...]]] = [
    ("signature", (BadSignatureError, tuf_errors.UnsignedMetadataError)),
    ("expired", (ExpiredError, tuf_errors.ExpiredMetadataError)),
    ("missing", (NotFoundError, tuf_errors.DownloadHTTPError)),
    ("content", (Exception,)),
]


def family(error: Exception | None) -> str:
    """What kind of refusal it is; versions, hashes, lengths and malformed bytes are one kind."""
    if error is None:
        return "accepted"
    return next(name for name, kinds in FAMILIES if isinstance(error, kinds))


def forgotten(ours: dict[str, bytes | None], theirs: dict[str, bytes | None]) -> bool:
    """Whether we only trust less: 5.3.11 cleared what ngclient still holds, and nothing came after.

    Happens when a link of the root chain exchanges an online key and the same refresh fails later.
    """
    return all(
        ours[role] == theirs[role] or (role in {"timestamp", "snapshot"} and ours[role] is None)
        for role in ROLES
    )


@dataclass
class Tally:
    """What the lives brought."""

    lives: int = 0
    checks: int = 0
    accepted: int = 0
    refused: Counter[type[Exception]] = field(default_factory=Counter)
    attacks: Counter[str] = field(default_factory=Counter)
    differences: Counter[str] = field(default_factory=Counter)


class Life:
    """One repository and both clients."""

    def __init__(self, directory: Path, tally: Tally) -> None:
        self.repo = new_repository()
        root = self.repo.files["metadata/1.root.json"]
        self.ours = Ours(root)
        self.theirs = Theirs(root, directory)
        self.tally = tally
        self.story: list[str] = []

    def check(self, served: RepositorySimulator) -> tuple[FirmrootError | None, Exception | None]:
        """Both clients, at the same moment."""
        ours = self.ours.check(served, self.repo.now)
        theirs = self.theirs.check(served, self.repo.now)
        self.tally.checks += 1
        self.tally.accepted += ours is None
        if ours is not None:
            self.tally.refused[type(ours)] += 1
        return ours, theirs

    def step(self, name: str, days: int) -> bool:
        """Let one thing happen, and compare; False if the two may no longer be compared."""
        self.repo.now += timedelta(days=days)
        self.story.append(f"{days} days later: {name}")
        if name in DIFFERENCES:
            self._differ(name)
            return False
        served = self.repo
        if name in ATTACKS:
            served = self.repo.fork()
            ATTACKS[name](served)
        else:
            HONEST[name](served)
        ours, theirs = self.check(served)
        if name in ATTACKS:
            self.tally.attacks[name] += ours is not None
            self._go_beyond(served)
        return self._compare(ours, theirs)

    def _go_beyond(self, attacked: RepositorySimulator) -> None:
        """Some attacks need an online key; whoever repairs publishes higher versions than they."""
        for role in ("timestamp", "snapshot", "targets", LEAF):
            ours = self.repo.signed[role]
            ours.version = max(ours.version, attacked.signed[role].version)
        self.repo.publish(LEAF, "targets")

    def _compare(self, ours: FirmrootError | None, theirs: Exception | None) -> bool:
        told = f"{self.story}: ours {ours!r}, theirs {theirs!r}"
        assert (ours is None) == (theirs is None), told
        # We stop at an expired root or timestamp; ngclient goes on to ask for the next file, and
        # may stumble over that one.
        stopped = isinstance(ours, ExpiredError) and ours.role in {"root", "timestamp"}
        if not stopped:
            assert family(ours) == family(theirs), told
        mine, other = believed(self.ours.trusted()), believed(self.theirs.trusted())
        if mine == other:
            return True
        assert ours is not None, told
        assert forgotten(mine, other), told
        self.tally.differences["forgotten"] += 1
        return False

    def _differ(self, name: str) -> None:
        """A named exception, from a state in which both clients are content."""
        served = self.repo.fork()
        HONEST["everything new"](served)
        ours, theirs = self.check(served)
        if ours is not None or theirs is not None:
            self._compare(ours, theirs)
            return
        difference = DIFFERENCES[name]
        difference.mutate(served)
        ours, theirs = self.check(served)
        told = f"{self.story}: ours {ours!r}, theirs {theirs!r}"
        assert (None if ours is None else type(ours)) is difference.ours, told
        assert (theirs is None) == (difference.ours is not None), told
        self.tally.differences[name] += 1


NAMES = st.one_of(
    st.sampled_from(sorted(ATTACKS)),
    st.sampled_from(sorted(HONEST)),
    st.sampled_from(sorted(HONEST)),
    st.sampled_from(sorted(DIFFERENCES)),
)
DAYS = st.sampled_from([0, 0, 0, 0, 1, 1, 25, 70, 210, 420])
LIVES = st.lists(st.tuples(NAMES, DAYS), min_size=2, max_size=6)


def live(steps: list[tuple[str, int]], tally: Tally) -> None:
    """One life, in a directory of its own."""
    directory = Path(tempfile.mkdtemp(prefix="firmroot-oracle-"))
    try:
        life = Life(directory, tally)
        tally.lives += 1
        for name, days in steps:
            if not life.step(name, days):
                break
    finally:
        shutil.rmtree(directory)


def test_both_clients_reach_one_verdict() -> None:
    tally = Tally()

    @settings(
        max_examples=CASES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(LIVES)
    def run(steps: list[tuple[str, int]]) -> None:
        live(steps, tally)

    run()
    print(
        f"\noracle: {tally.lives} lives, {tally.checks} checks, {tally.accepted} accepted, "
        f"{sum(tally.refused.values())} refused: "
        + ", ".join(f"{kind.__name__} {count}" for kind, count in tally.refused.most_common())
    )
    assert tally.lives >= CASES
    assert tally.accepted >= 0.3 * tally.checks
    assert sum(tally.refused.values()) >= 0.3 * tally.checks
    assert not set(REJECTIONS) - set(tally.refused), "every class of rejection is hit"


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_each_attack_is_refused_by_both(name: str, tmp_path: Path) -> None:
    life = Life(tmp_path, Tally())
    assert life.step("nothing new", 0)
    assert life.step(name, 0)
    assert life.tally.attacks[name] == 1
    assert life.step("everything new", 0)
    assert life.step("everything new", 0)


@pytest.mark.parametrize("name", sorted(HONEST))
def test_each_honest_change_is_accepted_by_both(name: str, tmp_path: Path) -> None:
    life = Life(tmp_path, Tally())
    for step in ("nothing new", name, "everything new", name):
        assert life.step(step, 0)
    assert life.tally.accepted == 4


@pytest.mark.parametrize("name", sorted(DIFFERENCES))
def test_each_named_exception_is_one(name: str, tmp_path: Path) -> None:
    life = Life(tmp_path, Tally())
    life.step(name, 0)
    assert life.tally.differences[name] == 1
    assert DIFFERENCES[name].reason
