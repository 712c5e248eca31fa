"""How a root with other keys goes live: which way, whether the bridge stands, what fits, waits."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import (
    ActionRequiredError,
    NotFoundError,
    RefusedError,
    RetryLaterError,
)
from client_reference.trust.updater import Limits
from repo_tools.metadata.edits import next_root
from repo_tools.metadata.repository import RepositoryState
from repo_tools.publishing.bridge import (
    Gone,
    Passage,
    check_bridged,
    check_sizes,
    is_bridged,
    passage,
)
from repo_tools.publishing.edges import AwaitedEdges, NoEdges
from tests.keys_policy.sample import KEYRING, POLICY
from tests.simulators.repository import RepositorySimulator

if TYPE_CHECKING:
    from tuf.api.metadata import Root

NOW = datetime(2026, 3, 2, tzinfo=UTC)


def root(keys: list[str], threshold: int = 2, role: str = "targets") -> Root:
    rules = replace(POLICY.roles[role], keys=tuple(keys), threshold=threshold)
    policy = replace(POLICY, roles={**POLICY.roles, role: rules})
    return next_root(policy, KEYRING, None, NOW, lab=False)


THREE = ["alice", "bob", "carol"]
# live targets keys, next ones, gone -> the way
WAYS: dict[str, tuple[list[str], list[str], dict[str, Gone], Passage]] = {
    "the same keys": (THREE, THREE, {"alice": Gone.STOLEN}, Passage.SAME_KEYS),
    "one without hurry": (THREE, ["bob", "carol", "rita"], {}, Passage.BRIDGE),
    "one that is lost": (THREE, ["bob", "carol"], {"alice": Gone.LOST}, Passage.BRIDGE),
    "fewer stolen than a threshold": (
        THREE,
        ["bob", "carol"],
        {"alice": Gone.STOLEN},
        Passage.BRIDGE,
    ),
    "a threshold stolen": (
        [*THREE, "rita"],
        ["carol", "rita"],
        {"alice": Gone.STOLEN, "bob": Gone.STOLEN},
        Passage.CUT,
    ),
    "as many lost as a threshold, and enough are left": (
        [*THREE, "rita"],
        ["carol", "rita"],
        {"alice": Gone.LOST, "bob": Gone.LOST},
        Passage.BRIDGE,
    ),
    "too few are left": (
        THREE,
        ["carol", "rita"],
        {"alice": Gone.LOST, "bob": Gone.LOST},
        Passage.CUT,
    ),
    "too few are left of lost and stolen": (
        THREE,
        ["carol", "rita"],
        {"alice": Gone.LOST, "bob": Gone.STOLEN},
        Passage.CUT,
    ),
    "a key of no such role": (THREE, ["bob", "carol"], {"ci": Gone.STOLEN}, Passage.BRIDGE),
}


@pytest.mark.parametrize("case", WAYS)
def test_the_way_from_one_root_to_the_next(case: str) -> None:
    before, after, gone, expected = WAYS[case]
    keyids = {KEYRING[name].key.keyid: how for name, how in gone.items()}
    assert passage(root(before), root(after), keyids, NOW) is expected


def test_an_expired_root_has_no_bridge() -> None:
    live, following = root(THREE), root(["bob", "carol"])
    assert passage(live, following, {}, live.expires - timedelta(seconds=1)) is Passage.BRIDGE
    assert passage(live, following, {}, live.expires) is Passage.CUT


@pytest.mark.parametrize("role", ["timestamp", "snapshot"])
def test_every_online_role_counts(role: str) -> None:
    live, following = root(["ci"], 1, role), root(["rita"], 1, role)
    assert passage(live, following, {}, NOW) is Passage.BRIDGE
    stolen = {KEYRING["ci"].key.keyid: Gone.STOLEN}
    assert passage(live, following, stolen, NOW) is Passage.CUT


def test_another_threshold_needs_a_bridge_too() -> None:
    assert passage(root(THREE, 2), root(THREE, 3), {}, NOW) is Passage.BRIDGE


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_a_bridge_stands_on_three_roles(role: str) -> None:
    """Signed for one root only, each of them would stop devices with the other."""
    repo = RepositorySimulator()
    live = copy.deepcopy(repo.root)
    old = dict(repo.signers[role])
    repo.rotate(role)
    following = copy.deepcopy(repo.root)
    for name in ("targets", "snapshot", "timestamp"):
        repo.write(name)

    def state() -> RepositoryState:
        files = repo.files
        return RepositoryState(
            (),
            files["metadata/timestamp.json"],
            files[repo.location("snapshot")],
            {"targets": files[repo.location("targets")]},
        )

    assert not is_bridged(state(), (live, following))
    assert is_bridged(state(), (following,))
    repo.signers[role].update(old)
    for name in ("targets", "snapshot", "timestamp"):
        repo.write(name)
    assert is_bridged(state(), (live, following))
    assert not is_bridged(replace(state(), timestamp=None), (live,))
    assert not is_bridged(replace(state(), snapshot=None), (live,))
    assert not is_bridged(replace(state(), roles={}), (live,))


def test_targets_that_are_signed_for_one_root_only_are_no_bridge() -> None:
    repo = RepositorySimulator()
    live = copy.deepcopy(repo.root)
    only_old = repo.sign("targets")
    old = dict(repo.signers["targets"])
    repo.rotate("targets")
    following = copy.deepcopy(repo.root)
    following.version = 2
    only_new = repo.sign("targets")
    repo.signers["targets"].update(old)
    with pytest.raises(ActionRequiredError, match=r"for root 2: .* good signatures of 0 keys"):
        check_bridged(only_old, live, following)
    with pytest.raises(ActionRequiredError, match=r"for root 1: .* good signatures of 0 keys"):
        check_bridged(only_new, live, following)
    check_bridged(repo.sign("targets"), live, following)


# Sizes.


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_what_devices_would_not_read_to_its_end_is_refused(role: str) -> None:
    """The arithmetic: how much of it are signatures, and where clients stop."""
    repo = RepositorySimulator()
    files = {
        "root": repo.sign("root"),
        "timestamp": repo.sign("timestamp"),
        "snapshot": repo.sign("snapshot"),
        "targets": repo.sign("targets"),
    }
    state = RepositoryState(
        (files["root"],), files["timestamp"], files["snapshot"], {"targets": files["targets"]}
    )
    check_sizes(state)
    check_sizes(RepositoryState())
    exact = {name: len(data) for name, data in files.items()}
    check_sizes(state, Limits(**exact))
    with pytest.raises(RefusedError) as caught:
        check_sizes(state, Limits(**{**exact, role: exact[role] - 1}))
    message = caught.value.message
    assert message.startswith(f"{role} has {exact[role]} bytes, ")
    assert message.endswith(f"stops reading at {exact[role] - 1}")


def test_a_bridge_of_long_signatures_fits_our_clients() -> None:
    """Six ML-DSA-65 signatures, of three old and three new keys: 40 KB, limit 64 KB."""
    repo = RepositorySimulator()
    long = {"keyid": "00" * 32, "sig": "00" * 3309}
    data = repo.sign("timestamp")[:-1] + f',"more":{[long] * 6}}}'.encode()
    check_sizes(RepositoryState(timestamp=data.replace(b"'", b'"')))
    assert 16_384 < len(data) < Limits().timestamp, "too long for other clients"


# Edges.


@dataclass
class Edge:
    """Shows the old bytes a number of times."""

    old: int
    asked: list[str] = field(default_factory=list)

    def fetch(self, path: str, max_length: int) -> bytes:
        assert max_length >= 3
        self.asked.append(path)
        if len(self.asked) == 1:
            raise NotFoundError("nothing yet")
        return b"old" if len(self.asked) <= self.old else b"new"


def test_every_edge_is_asked_until_it_shows_the_new_bytes() -> None:
    slept: list[float] = []
    edges = {"https://one/": Edge(3), "https://two/": Edge(1)}
    AwaitedEdges(edges, slept.append).wait("x", b"new")  # type: ignore[arg-type]  # no stream
    assert [len(edge.asked) for edge in edges.values()] == [4, 2]
    assert slept == [60.0, 5.0, 5.0, 5.0, 5.0]


def test_the_lifetime_of_caches_passes_even_without_an_edge_to_ask() -> None:
    slept: list[float] = []
    told: list[str] = []
    AwaitedEdges({}, slept.append, told.append).wait("x", b"new")
    assert slept == [60.0]
    assert told == ["waiting 60 s until no cache has an older x"]
    NoEdges().wait("x", b"new")


def test_an_edge_that_stays_old_ends_the_run_and_is_named() -> None:
    slept: list[float] = []
    edges = AwaitedEdges({"https://one/": Edge(9**9)}, slept.append, patience=10.0)  # type: ignore[dict-item]  # no stream
    with pytest.raises(RetryLaterError, match="https://one/ does not show the new x after 70 s"):
        edges.wait("x", b"new")
    assert slept == [60.0, 5.0, 5.0]
