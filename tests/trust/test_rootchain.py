"""The root-chain bundle: its form, and a device that catches up with it or without it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import NotFoundError, RetryLaterError
from client_reference.trust import rootchain
from client_reference.trust.rootchain import BLOCK, MAX_BUNDLE, Bundle, make, parse
from client_reference.trust.state import MemoryStore
from client_reference.trust.updater import Floors, Updater, initial_state
from client_reference.trust.verified import BadSignatureError, MalformedError
from tests.simulators.repository import NOW, RepositorySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator

BIG = b"r" * (BLOCK // 2)


@pytest.mark.parametrize("count", [1, 2, 9])
def test_a_short_chain_is_one_block_and_reads_as_it_was_made(count: int) -> None:
    chain = [b"root %d\n" % n for n in range(1, count + 1)]
    assert parse(make(chain)) == Bundle((), dict(enumerate(chain, 1)))


def test_blocks_are_cut_greedily_and_each_object_names_those_before_it() -> None:
    chain = [BIG, BIG, b"3", BIG, BIG]
    assert parse(make(chain[:2])) == Bundle((), {1: BIG, 2: BIG})
    assert parse(make(chain[:3])) == Bundle((2,), {3: b"3"})
    assert parse(make(chain[:4])) == Bundle((2,), {3: b"3", 4: BIG})
    assert parse(make(chain)) == Bundle((2, 4), {5: BIG})


def test_a_root_longer_than_a_block_is_a_block_of_its_own() -> None:
    long = b"r" * (BLOCK + 1)
    assert parse(make([b"1", long, b"3"])) == Bundle((1, 2), {3: b"3"})
    assert parse(make([long, b"2"])) == Bundle((1,), {2: b"2"})


def test_the_longest_object_is_within_what_a_device_reads() -> None:
    # The shortest root that can be: every link costs a line as well.
    chain = [b"r" * 300] * 4000
    assert BLOCK <= len(make(chain[: BLOCK // 300])) <= MAX_BUNDLE


def test_a_chain_without_roots_is_no_chain() -> None:
    with pytest.raises(ValueError, match="at least one root"):
        make([])


GOOD = make([b"one", b"two"])
BAD = [
    ("nothing", b"", "begins"),
    ("another head", GOOD.replace(b"chain 1", b"chain 2"), "begins"),
    ("no line of blocks", GOOD.replace(b"blocks\n", b""), "begins"),
    ("blocks that are no numbers", GOOD.replace(b"blocks", b"blocks x"), "begins"),
    ("a block 0", GOOD.replace(b"blocks", b"blocks 0"), "begins"),
    ("blocks that fall", GOOD.replace(b"blocks", b"blocks 7 5"), "do not rise"),
    ("blocks that stay", GOOD.replace(b"blocks", b"blocks 5 5"), "do not rise"),
    ("no roots", b"firmroot-root-chain 1\nblocks\n", "holds no root"),
    ("another first version", GOOD.replace(b"\n1 3\n", b"\n2 3\n"), "no root 1"),
    ("a gap", GOOD.replace(b"\n2 3\n", b"\n3 3\n"), "no root 2"),
    ("a version after other blocks", GOOD.replace(b"blocks", b"blocks 5"), "no root 6"),
    ("a length that is too short", GOOD.replace(b"2 3\n", b"2 2\n"), "another length"),
    ("a length that is too long", GOOD.replace(b"2 3\n", b"2 4\n"), "another length"),
    ("a huge length", GOOD.replace(b"2 3\n", b"2 99999999\n"), "no root 2"),
    ("a length of nothing", GOOD.replace(b"2 3\n", b"2 0\n"), "no root 2"),
    ("cut off", GOOD[:-1], "another length"),
    ("more behind it", GOOD + b"x", "no root 3"),
]


@pytest.mark.parametrize(("data", "message"), [c[1:] for c in BAD], ids=[c[0] for c in BAD])
def test_what_has_another_form_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        parse(data)


# A device


def aged(versions: int) -> RepositorySimulator:
    """A repository that has rotated its online keys with every root."""
    repo = RepositorySimulator()
    for _ in range(versions - 1):
        repo.rotate("timestamp")
        repo.publish("root")
    repo.announce()
    return repo


def device(repo: RepositorySimulator) -> MemoryStore:
    return MemoryStore(initial_state(repo.files["metadata/1.root.json"], Floors(0, 0, 0)))


def refresh(store: MemoryStore, repo: RepositorySimulator) -> Updater:
    repo.requests.clear()
    updater = Updater(store, repo, NOW)
    updater.refresh()
    return updater


def roots(repo: RepositorySimulator) -> list[str]:
    """What was asked for on the way to the newest root, and the timestamp."""
    names = [path.removeprefix("metadata/") for path in repo.requests]
    return names[: max(i for i, name in enumerate(names) if name == "timestamp.json") + 1]


def test_a_device_that_is_far_behind_makes_three_requests_more() -> None:
    repo = aged(120)
    store = device(repo)
    assert refresh(store, repo).root.version == 120
    assert roots(repo) == [
        "2.root.json",
        "timestamp.json",
        "root-chain/120",
        "121.root.json",
        "timestamp.json",
    ]
    assert len(store.chain) == 120
    refresh(store, repo)
    assert roots(repo) == ["121.root.json", "timestamp.json"]


def test_1000_root_versions_are_caught_up_with() -> None:
    repo = aged(1000)
    first = repo.files["metadata/1.root.json"]
    store = MemoryStore(initial_state(first, Floors(0, 0, 0)))
    assert refresh(store, repo).root.version == 1000
    assert len(store.chain) == 1000
    asked = [path.removeprefix("metadata/") for path in repo.requests]
    blocks = [path for path in asked if path.startswith("root-chain/")]
    # A megabyte of roots is one object, and the last one names those before it.
    assert blocks[0] == "root-chain/1000"
    assert len(blocks) == 1 + sum(map(len, store.chain)) // BLOCK
    assert [path for path in asked if "root" in path and path not in blocks] == [
        "2.root.json",
        "1001.root.json",
    ]
    assert len(asked) == len(blocks) + 6
    # Without bundles each costs a request, and none is beyond reach.
    repo.files = {path: data for path, data in repo.files.items() if "root-chain" not in path}
    single = MemoryStore(initial_state(first, Floors(0, 0, 0)))
    assert refresh(single, repo).root.version == 1000
    assert single.chain == store.chain
    numbers = [path for path in repo.requests if path.endswith(".root.json")]
    assert numbers == [f"metadata/{n}.root.json" for n in range(2, 1002)]
    refresh(single, repo)
    assert roots(repo) == ["1001.root.json", "timestamp.json"]


def test_a_device_that_is_one_root_behind_asks_for_no_bundle() -> None:
    repo = aged(2)
    refresh(device(repo), repo)
    assert roots(repo) == ["2.root.json", "timestamp.json", "3.root.json", "timestamp.json"]


def test_blocks_before_the_newest_are_fetched_where_they_are_needed() -> None:
    repo = aged(6)
    chain = [repo.files[f"metadata/{n}.root.json"] for n in range(1, 7)]
    bundle = make(chain)
    head, _, frames = bundle.partition(b"blocks\n")
    cut = frames.index(b"5 %d\n" % len(chain[4]))
    repo.files["metadata/root-chain/4"] = head + b"blocks\n" + frames[:cut]
    repo.files["metadata/root-chain/6"] = head + b"blocks 4\n" + frames[cut:]
    store = device(repo)
    assert refresh(store, repo).root.version == 6
    assert roots(repo) == [
        "2.root.json",
        "timestamp.json",
        "root-chain/6",
        "root-chain/4",
        "7.root.json",
        "timestamp.json",
    ]
    late = MemoryStore(initial_state(chain[2], Floors(0, 0, 0)))
    assert refresh(late, repo).root.version == 6
    assert roots(repo)[:4] == ["4.root.json", "timestamp.json", "root-chain/6", "7.root.json"]


HOSTILE = [
    ("it is not there", None),
    ("it is no bundle", b"<html>"),
    ("it ends early", b"firmroot-root-chain 1\nblocks\n1 4\nroot\n"),
    ("it is too long", b"firmroot-root-chain 1\nblocks\n" + b"x" * MAX_BUNDLE),
    ("it names blocks without links", b"firmroot-root-chain 1\nblocks 3 4\n5 1\nx\n"),
]


@pytest.mark.parametrize("data", [case[1] for case in HOSTILE], ids=[c[0] for c in HOSTILE])
def test_whatever_is_wrong_with_a_bundle_the_single_files_remain(data: bytes | None) -> None:
    repo = aged(5)
    path = f"metadata/{rootchain.location(5)}"
    del repo.files[path]
    if data is not None:
        repo.files[path] = data
    store = device(repo)
    assert refresh(store, repo).root.version == 5
    assert len(store.chain) == 5


def test_blocks_that_bring_nothing_are_not_followed() -> None:
    repo = aged(5)
    useless = b"firmroot-root-chain 1\nblocks\n1 1\nx\n"
    ends = range(3, 2000)
    numbers = b" ".join(b"%d" % end for end in ends)
    newest = b"firmroot-root-chain 1\nblocks %s\n2000 1\nx\n" % numbers
    repo.files["metadata/root-chain/5"] = newest
    repo.files |= {f"metadata/root-chain/{end}": useless for end in ends if end != 5}
    assert refresh(device(repo), repo).root.version == 5
    asked = [path for path in repo.requests if "root-chain" in path]
    assert asked == ["metadata/root-chain/5", "metadata/root-chain/3"]


def test_a_link_of_a_bundle_is_verified_like_any_other() -> None:
    repo = aged(5)
    chain = [repo.files[f"metadata/{n}.root.json"] for n in range(1, 6)]
    forged = [*chain[:3], chain[3].replace(b'"threshold":1', b'"threshold":2', 1), chain[4]]
    assert forged[3] != chain[3]
    repo.files["metadata/root-chain/5"] = make(forged)
    store = device(repo)
    assert refresh(store, repo).root.version == 5
    assert store.chain == chain
    assert [path for path in repo.requests if "root.json" in path] == [
        "metadata/2.root.json",
        "metadata/4.root.json",
        "metadata/5.root.json",
        "metadata/6.root.json",
    ]


HINTS = [
    ("none", None),
    ("a lower one", 1),
    ("the one it has", 2),
    ("one beyond all", 2**53 - 1),
    ("no number", "5"),
    ("true", True),
]


@pytest.mark.parametrize("hint", [case[1] for case in HINTS], ids=[case[0] for case in HINTS])
def test_a_hostile_hint_costs_one_request_and_nothing_else(hint: object) -> None:
    repo = aged(5)
    repo.timestamp.unrecognized_fields["x-firmroot-root"] = hint
    if hint is None:
        del repo.timestamp.unrecognized_fields["x-firmroot-root"]
    repo.publish("timestamp")
    store = device(repo)
    assert refresh(store, repo).root.version == 5
    assert len([path for path in repo.requests if "root-chain" in path]) <= 1
    assert [path for path in repo.requests if "root.json" in path] == [
        f"metadata/{n}.root.json" for n in range(2, 7)
    ]


class Broken:
    """A repository whose bundles cannot be had now."""

    def __init__(self, repo: RepositorySimulator) -> None:
        self.repo = repo

    def fetch(self, path: str, max_length: int) -> bytes:
        if "root-chain" in path:
            raise RetryLaterError("no answer in time")
        return self.repo.fetch(path, max_length)

    def stream(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        return self.repo.stream(path, offset, length)


def test_a_bundle_that_cannot_be_had_now_stops_nothing() -> None:
    repo = aged(5)
    updater = Updater(device(repo), Broken(repo), NOW)
    updater.refresh()
    assert updater.root.version == 5


# What a mirror hides


def test_a_root_that_is_announced_and_not_there_is_told() -> None:
    repo = RepositorySimulator()
    repo.publish("root")
    repo.announce()
    hidden = repo.files.pop("metadata/2.root.json")
    store = device(repo)
    updater = refresh(store, repo)
    assert updater.missing_root == 2
    assert not updater.finds_next_root()
    repo.files["metadata/2.root.json"] = RepositorySimulator().files["metadata/1.root.json"]
    assert not updater.finds_next_root(), "it is signed by nobody whom this device trusts"
    repo.files["metadata/2.root.json"] = hidden
    assert updater.finds_next_root()
    updater = refresh(store, repo)
    assert updater.missing_root is None
    assert updater.root.version == 2


def test_a_repository_that_announces_nothing_hides_nothing() -> None:
    repo = RepositorySimulator()
    assert refresh(device(repo), repo).missing_root is None


def test_a_chain_whose_middle_is_missing_ends_before_the_hole() -> None:
    repo = aged(6)
    hole = "metadata/4.root.json", "metadata/root-chain/6"
    lost = {path: repo.files.pop(path) for path in hole}
    store = device(repo)
    with pytest.raises(BadSignatureError):
        refresh(store, repo)
    assert len(store.chain) == 3
    repo.files |= lost
    assert refresh(store, repo).root.version == 6, "it goes on from the root before the hole"
    assert store.chain == [repo.files[f"metadata/{n}.root.json"] for n in range(1, 7)]


# Fast-forward


@pytest.mark.parametrize("role", ["timestamp", "snapshot"])
def test_a_new_root_forgets_what_its_keys_do_not_vouch_for(role: str) -> None:
    repo = RepositorySimulator()
    store = device(repo)
    refresh(store, repo)
    stranger = repo.fork()
    stranger.signers[role] = {"": stranger.new_signer()}
    assert store.state is not None
    trust, foreign = store.state.trust, stranger.sign(role)
    store.state = store.state.with_trust(
        replace(trust, timestamp=foreign)
        if role == "timestamp"
        else replace(trust, snapshot=foreign)
    )
    repo.publish("root")
    del repo.files["metadata/timestamp.json"]
    with pytest.raises(NotFoundError):
        Updater(store, repo, NOW).refresh()
    kept = {"timestamp": store.state.trust.timestamp, "snapshot": store.state.trust.snapshot}
    assert kept.pop(role) is None
    assert None not in kept.values(), "what it vouches for stays"
