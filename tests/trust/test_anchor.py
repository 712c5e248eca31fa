"""Asking the recovery anchor: whom, how often, and what the device is afterwards."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import LocalFailureError, NotFoundError, RetryLaterError
from client_reference.trust.anchor import Occasion, Outcome, Probe, RecoveryAnchor
from client_reference.trust.state import MemoryStore
from client_reference.trust.updater import Floors, Updater, initial_state
from tests.simulators.anchor import AnchorSimulator, first_root
from tests.simulators.repository import NOW, RepositorySimulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from client_reference.transport.fetcher import Fetcher
    from client_reference.trust.state import DeviceState

FLOORS = Floors(time=0, minimum_sequence=0, epoch=0)
URL, OTHER, THIRD = "https://one/", "https://two/", "https://three/"


class Silent:
    """A URL where nobody answers."""

    def fetch(self, path: str, max_length: int) -> bytes:
        del max_length
        raise RetryLaterError(f"no answer for {path}")

    def stream(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        raise NotImplementedError


@dataclass
class Primary:
    """Mirrors of the primary, each a mapping of files."""

    mirrors: list[Mapping[str, bytes]] = field(default_factory=lambda: [{}])
    asked: list[str] = field(default_factory=list)
    at: int = 0

    def fetch(self, path: str, max_length: int) -> bytes:
        self.asked.append(path)
        data = self.mirrors[self.at].get(path)
        if data is None:
            raise NotFoundError(f"{path} is not there")
        return data[: max_length + 1]

    def stream(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        raise NotImplementedError

    def another_way(self, why: str = "") -> bool:  # noqa: ARG002 # of the protocol
        self.at += 1
        return self.at < len(self.mirrors)

    def every_mirror(self) -> None:
        self.at = 0


class Device:
    """A store, and cycles that begin anew each time as a process would."""

    def __init__(self, simulator: AnchorSimulator, primary: RepositorySimulator) -> None:
        self.store = MemoryStore(
            initial_state(first_root(primary), FLOORS, simulator.files["1.root.json"])
        )
        self.primary = Primary()
        self.told: list[str] = []

    @property
    def state(self) -> DeviceState:
        assert self.store.state is not None
        return self.store.state

    @property
    def place(self) -> tuple[int, int, int]:
        """Epoch, recovery root, primary root."""
        trust = self.state.trust
        return trust.epoch, trust.recovery_version, trust.root_version

    def cycle(
        self,
        *fetchers: Fetcher,
        due: bool = False,
        note: Callable[[Mapping[str, str], str], None] = lambda _, __: None,
    ) -> RecoveryAnchor:
        urls = dict(zip((URL, OTHER, THIRD), fetchers, strict=False))
        self.told.clear()
        return RecoveryAnchor(
            self.store, urls, self.primary, "gateway", due=due, tell=self.told.append, note=note
        )


@pytest.fixture
def repo() -> RepositorySimulator:
    return RepositorySimulator()


@pytest.fixture
def simulator(repo: RepositorySimulator) -> AnchorSimulator:
    return AnchorSimulator(first_root(repo))


@pytest.fixture
def device(simulator: AnchorSimulator, repo: RepositorySimulator) -> Device:
    return Device(simulator, repo)


@pytest.fixture
def second() -> RepositorySimulator:
    return RepositorySimulator(epoch=1)


def asked(device: Device, *fetchers: Fetcher) -> Probe:
    """One cycle that asks."""
    cycle = device.cycle(*fetchers)
    cycle.after_failure()
    assert cycle.probe is not None
    return cycle.probe


# What is asked, and what is stored


def test_nothing_newer_changes_nothing(device: Device, simulator: AnchorSimulator) -> None:
    other = simulator.fork()
    assert asked(device, simulator, other) == Probe(Occasion.FAILURE, Outcome.CURRENT, 0, 1, {})
    assert simulator.requests == other.requests == ["2.root.json", "1.root.json"]
    assert (device.store.commits, device.told) == (0, [])


def test_other_recovery_keys_are_stored_and_are_where_the_next_asking_begins(
    device: Device, simulator: AnchorSimulator
) -> None:
    before = device.state
    newest = simulator.renew()
    assert asked(device, simulator) == Probe(Occasion.FAILURE, Outcome.RENEWED, 0, 2, {})
    assert device.state.trust.recovery_root == newest
    assert (device.state.trust.root, device.state.install) == (before.trust.root, before.install)
    simulator.requests.clear()
    assert asked(device, simulator).outcome is Outcome.CURRENT
    assert simulator.requests == ["3.root.json", "2.root.json"]
    assert device.told == []


def test_a_higher_epoch_re_roots_in_one_transaction(
    device: Device, simulator: AnchorSimulator, second: RepositorySimulator
) -> None:
    newest = simulator.re_root(second, gateway=5)
    cycle = device.cycle(simulator)
    assert cycle.after_failure()
    assert cycle.probe == Probe(Occasion.FAILURE, Outcome.REROOTED, 1, 2, {})
    assert device.store.commits == 1
    assert device.place == (1, 2, 1)
    trust = device.state.trust
    assert (trust.root, trust.recovery_root) == (first_root(second), newest)
    assert list(device.store.root_chain()) == [first_root(second)]
    assert device.state.install.confirmed_sequence == 5
    (told,) = device.told
    assert "epoch 0 has ended, epoch 1 begins (recovery root 2)" in told
    # It is news once.
    assert asked(device, simulator).outcome is Outcome.CURRENT
    assert (device.told, device.store.commits) == ([], 1)


def test_keys_that_change_in_the_middle_and_several_epochs_at_once(
    device: Device, simulator: AnchorSimulator, second: RepositorySimulator
) -> None:
    third = RepositorySimulator(epoch=2)
    simulator.renew()
    simulator.re_root(second)
    simulator.renew()
    simulator.re_root(third)
    simulator.renew()
    assert asked(device, simulator).outcome is Outcome.REROOTED
    assert device.place == (2, 6, 1)
    assert device.state.trust.root == first_root(third)
    assert "e1/1.root.json" not in simulator.requests


# Recovery URLs that lie, withhold or hang


def liar(simulator: AnchorSimulator) -> Fetcher:
    """It shows a chain that its own keys signed."""
    other = AnchorSimulator(first_root(RepositorySimulator()), number=2)
    other.re_root(RepositorySimulator(epoch=9))
    del simulator
    return other


def garbage(simulator: AnchorSimulator) -> Fetcher:
    other = simulator.fork()
    other.files["2.root.json"] = b"<html>"
    return other


def endless(simulator: AnchorSimulator) -> Fetcher:
    other = simulator.fork()
    other.files["2.root.json"] = bytes(600_000)
    return other


def withholding(simulator: AnchorSimulator) -> Fetcher:
    other = simulator.fork()
    other.files = {"1.root.json": simulator.files["1.root.json"]}
    return other


def replaying(simulator: AnchorSimulator) -> Fetcher:
    other = simulator.fork()
    other.files["2.root.json"] = other.files["1.root.json"]
    return other


def silent(simulator: AnchorSimulator) -> Fetcher:
    del simulator
    return Silent()


def mistyped(simulator: AnchorSimulator) -> Fetcher:
    """A server that has nothing of it, and says "not there" for everything."""
    other = simulator.fork()
    other.files = {}
    return other


def of_somebody_else(simulator: AnchorSimulator) -> Fetcher:
    """Another anchor, that has nothing newer."""
    del simulator
    return AnchorSimulator(first_root(RepositorySimulator()), number=2)


BAD = (liar, garbage, endless, withholding, replaying, silent, mistyped, of_somebody_else)
FAILING = (liar, garbage, endless, replaying, silent, mistyped, of_somebody_else)


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
@pytest.mark.parametrize(
    "bad",
    [*itertools.combinations(BAD, 2)],
    ids=lambda pair: " and ".join(b.__name__ for b in pair),
)
def test_one_honest_url_among_three_suffices(
    device: Device,
    simulator: AnchorSimulator,
    second: RepositorySimulator,
    bad: tuple[Callable[[AnchorSimulator], Fetcher], ...],
    order: tuple[int, ...],
) -> None:
    simulator.re_root(second)
    urls = [simulator, *(each(simulator) for each in bad)]
    probe = asked(device, *(urls[i] for i in order))
    assert (probe.outcome, device.place) == (Outcome.REROOTED, (1, 2, 1))
    failing = {(URL, OTHER, THIRD)[order.index(1 + i)] for i, b in enumerate(bad) if b in FAILING}
    assert set(probe.failures) == failing
    assert len(device.told) == 1


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.__name__)
def test_a_bad_url_alone_moves_nothing_and_an_honest_one_later_does(
    device: Device,
    simulator: AnchorSimulator,
    second: RepositorySimulator,
    bad: Callable[[AnchorSimulator], Fetcher],
) -> None:
    simulator.re_root(second)
    before = device.state
    probe = asked(device, bad(simulator))
    expected = Outcome.UNREACHABLE if bad in FAILING else Outcome.CURRENT
    assert (probe.outcome, device.state, device.store.commits) == (expected, before, 0)
    assert list(probe.failures) == ([URL] if bad in FAILING else [])
    assert asked(device, simulator).outcome is Outcome.REROOTED


def test_a_url_without_a_recovery_repository_is_no_answer(
    device: Device, simulator: AnchorSimulator
) -> None:
    # It said "not there" for the next link, as an honest one does that has nothing newer.
    probe = asked(device, mistyped(simulator), simulator)
    assert probe.outcome is Outcome.CURRENT
    assert probe.failures == {
        URL: "it has neither 2.root.json nor 1.root.json, which this device trusts: there is no "
        "recovery repository, or one that lags behind"
    }
    probe = asked(device, of_somebody_else(simulator), mistyped(simulator))
    assert probe.outcome is Outcome.UNREACHABLE
    assert probe.failures[URL] == "its 1.root.json is not the one that this device trusts"
    assert "there is no recovery repository" in device.told[0]
    assert asked(device, simulator).outcome is Outcome.CURRENT


def test_one_that_lags_behind_is_no_answer_either(
    device: Device, simulator: AnchorSimulator
) -> None:
    behind = withholding(simulator)
    simulator.renew()
    assert asked(device, simulator).outcome is Outcome.RENEWED
    assert "lags behind" in asked(device, behind).failures[URL]
    behind.files.update(simulator.files)  # type: ignore[attr-defined] # a simulator
    assert asked(device, behind).failures == {}


class Closing:
    """A URL that says "not there" for the next link, and then nothing any more."""

    def __init__(self, trusted: str) -> None:
        self.trusted = trusted

    def fetch(self, path: str, max_length: int) -> bytes:
        del max_length
        if path == self.trusted:
            raise RetryLaterError(f"no answer for {path}")
        raise NotFoundError(f"{path} is not there")

    def stream(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        raise NotImplementedError


def test_one_that_cannot_be_asked_for_what_is_trusted_is_no_answer(
    device: Device, simulator: AnchorSimulator
) -> None:
    assert asked(device, Closing("1.root.json")).failures == {URL: "no answer for 1.root.json"}
    assert asked(device, simulator).failures == {}


def test_one_that_showed_a_link_is_asked_for_nothing_more(
    device: Device, simulator: AnchorSimulator
) -> None:
    simulator.renew()
    assert asked(device, simulator).failures == {}
    assert simulator.requests == ["2.root.json", "3.root.json"]


def test_what_failed_is_noted_each_time(
    device: Device, simulator: AnchorSimulator, second: RepositorySimulator
) -> None:
    noted: list[tuple[list[str], str]] = []

    def note(failures: Mapping[str, str], fork: str) -> None:
        noted.append((list(failures), fork))

    for urls, failing in (([Silent(), simulator], [URL]), ([simulator, simulator], [])):
        cycle = device.cycle(*urls, note=note)
        cycle.after_failure()
        assert noted.pop() == (failing, "")
    assert not device.cycle(simulator, note=note).at_start()
    assert noted.pop() == ([], "")
    device.cycle(simulator, note=note)
    assert noted == []
    other = simulator.fork()
    simulator.re_root(second)
    other.re_root(RepositorySimulator(epoch=8))
    cycle = device.cycle(simulator, other, note=note)
    assert not cycle.after_failure()
    assert noted.pop() == ([], device.told[0])
    # Withdrawn from one of the two.
    assert device.cycle(simulator, note=note).after_failure()
    assert noted.pop() == ([], "")


def test_links_before_a_bad_one_count(device: Device, simulator: AnchorSimulator) -> None:
    simulator.renew()
    simulator.renew()
    simulator.files["3.root.json"] = b"{}"
    probe = asked(device, simulator)
    assert (probe.outcome, probe.version, list(probe.failures)) == (Outcome.RENEWED, 2, [URL])


OCCASIONS: dict[Occasion, tuple[Callable[[RecoveryAnchor], bool], bool]] = {
    # How it is asked, and whether it must be told that nobody answered.
    Occasion.FAILURE: (RecoveryAnchor.after_failure, True),
    Occasion.ROOT: (RecoveryAnchor.before_root, True),
    Occasion.INSTALL: (RecoveryAnchor.before_install, True),
    Occasion.ANNOUNCED: (RecoveryAnchor.announced, False),
    Occasion.START: (RecoveryAnchor.at_start, True),
}


@pytest.mark.parametrize("occasion", OCCASIONS)
def test_that_nobody_answers_stops_nothing_and_is_told_where_a_rule_asks(
    device: Device, simulator: AnchorSimulator, occasion: Occasion
) -> None:
    ask, loud = OCCASIONS[occasion]
    cycle = device.cycle(Silent(), garbage(simulator))
    assert not ask(cycle)
    assert cycle.probe is not None
    assert (cycle.probe.occasion, cycle.probe.outcome) == (occasion, Outcome.UNREACHABLE)
    assert list(cycle.probe.failures) == [URL, OTHER]
    assert ["could not be asked" in told for told in device.told] == [True] * loud
    assert "no answer for 2.root.json" in "".join(device.told) or not loud
    cycle = device.cycle(Silent(), simulator)
    assert not ask(cycle)
    assert cycle.probe is not None
    assert (cycle.probe.outcome, device.told) == (Outcome.CURRENT, [])


CHANCES: dict[str, Callable[[RecoveryAnchor], bool]] = {
    # Askings on which no rule rests: whoever has the key of timestamp can bring one about.
    "announced": RecoveryAnchor.announced,
    "daily": RecoveryAnchor.at_start,
}
LATER: dict[str, tuple[Callable[[RecoveryAnchor], bool], ...]] = {
    "an install": (RecoveryAnchor.before_install,),
    "a root, then an install": (RecoveryAnchor.before_root, RecoveryAnchor.before_install),
    "a failure, then a failure": (RecoveryAnchor.after_failure, RecoveryAnchor.after_failure),
}


class Counting(Silent):
    """A silent URL that counts."""

    asked = 0

    def fetch(self, path: str, max_length: int) -> bytes:
        self.asked += 1
        return super().fetch(path, max_length)


@pytest.mark.parametrize("later", LATER)
@pytest.mark.parametrize("first", CHANCES)
def test_silence_that_was_met_by_chance_is_told_once_a_rule_rests_on_the_answer(
    device: Device, repo: RepositorySimulator, first: str, later: str
) -> None:
    accept_a_timestamp(device, repo)
    url = Counting()
    cycle = device.cycle(url, due=True)
    assert not CHANCES[first](cycle)
    assert (url.asked, device.told) == (1, [])
    for step in LATER[later]:
        assert not step(cycle)
        assert device.told == [
            f"the recovery anchor could not be asked: {URL}: no answer for 2.root.json"
        ]
    assert url.asked == 1


def test_an_answer_that_was_had_by_chance_counts_before_an_install(
    device: Device, simulator: AnchorSimulator
) -> None:
    cycle = device.cycle(simulator, Silent())
    assert not cycle.announced()
    assert not cycle.before_install()
    assert (device.told, simulator.requests) == ([], ["2.root.json", "1.root.json"])


# When


def accept_a_timestamp(device: Device, repo: RepositorySimulator) -> None:
    Updater(device.store, repo, NOW).refresh()


def test_a_device_that_has_trusted_nothing_of_the_primary_asks_first(
    device: Device, simulator: AnchorSimulator, repo: RepositorySimulator
) -> None:
    for _ in range(2):
        cycle = device.cycle(simulator)
        assert not cycle.at_start()
        assert cycle.probe is not None
        assert cycle.probe.occasion is Occasion.START
    accept_a_timestamp(device, repo)
    cycle = device.cycle(simulator)
    assert not cycle.at_start()
    assert cycle.probe is None


def test_otherwise_it_is_asked_when_the_lot_falls_on_it(
    device: Device,
    simulator: AnchorSimulator,
    repo: RepositorySimulator,
    second: RepositorySimulator,
) -> None:
    accept_a_timestamp(device, repo)
    simulator.re_root(second)
    cycle = device.cycle(Silent(), due=True)
    assert not cycle.at_start()
    assert cycle.probe is not None
    assert (cycle.probe.occasion, cycle.probe.outcome) == (Occasion.DAILY, Outcome.UNREACHABLE)
    assert device.told == []
    assert not device.cycle(simulator, due=False).at_start()
    assert device.cycle(simulator, due=True).at_start()
    assert device.place == (1, 2, 1)


@pytest.mark.parametrize("due", [False, True])
def test_it_is_asked_once_in_a_cycle(
    device: Device, simulator: AnchorSimulator, *, due: bool
) -> None:
    cycle = device.cycle(simulator, due=due)
    for ask in (cycle.at_start, cycle.before_root, cycle.before_install, cycle.after_failure):
        assert not ask()
    assert simulator.requests == ["2.root.json", "1.root.json"]


def test_after_re_rooting_a_cycle_asks_no_more(
    device: Device, simulator: AnchorSimulator, second: RepositorySimulator
) -> None:
    simulator.re_root(second)
    cycle = device.cycle(simulator)
    assert cycle.at_start()
    simulator.requests.clear()
    assert not cycle.at_start()
    assert not cycle.after_failure()
    assert simulator.requests == []


def test_a_device_that_was_made_without_an_anchor_never_asks(
    repo: RepositorySimulator, simulator: AnchorSimulator, second: RepositorySimulator
) -> None:
    device = Device(simulator, repo)
    device.store.state = initial_state(first_root(repo), FLOORS)
    simulator.re_root(second)
    cycle = device.cycle(simulator, due=True)
    for ask in (cycle.at_start, cycle.before_root, cycle.before_install, cycle.after_failure):
        assert not ask()
    assert (cycle.probe, simulator.requests) == (None, [])


def test_a_store_that_was_emptied_is_said(device: Device, simulator: AnchorSimulator) -> None:
    device.store.state = None
    with pytest.raises(LocalFailureError, match="the trust store is empty"):
        device.cycle(simulator).after_failure()


# The first root of an epoch


def test_the_recovery_urls_are_asked_for_it_before_the_mirrors(
    device: Device, simulator: AnchorSimulator, second: RepositorySimulator
) -> None:
    simulator.re_root(second)
    other = simulator.fork()
    del simulator.files["e1/1.root.json"]
    assert asked(device, simulator, Silent(), other).outcome is Outcome.REROOTED
    assert other.requests[-1] == "e1/1.root.json"
    assert device.primary.asked == []


def test_a_mirror_may_have_it_too(
    device: Device, simulator: AnchorSimulator, second: RepositorySimulator
) -> None:
    simulator.re_root(second)
    del simulator.files["e1/1.root.json"]
    path = "metadata/e1/1.root.json"
    lying = {path: first_root(RepositorySimulator(epoch=5))}
    longer = {path: first_root(second) + b" "}
    device.primary.mirrors = [lying, {}, longer, {path: first_root(second)}]
    assert asked(device, simulator).outcome is Outcome.REROOTED
    assert device.primary.asked == [path] * 4
    assert device.place == (1, 2, 1)


def absent(simulator: AnchorSimulator) -> None:
    del simulator.files["e1/1.root.json"]


def of_another(simulator: AnchorSimulator) -> None:
    simulator.files["e1/1.root.json"] = first_root(RepositorySimulator(epoch=4))


def longer(simulator: AnchorSimulator) -> None:
    simulator.files["e1/1.root.json"] += b" "


def shorter(simulator: AnchorSimulator) -> None:
    simulator.files["e1/1.root.json"] = simulator.files["e1/1.root.json"][:-1]


@pytest.mark.parametrize("damage", [absent, of_another, longer, shorter])
def test_until_it_can_be_had_nothing_changes_and_nothing_goes_on(
    device: Device,
    simulator: AnchorSimulator,
    second: RepositorySimulator,
    damage: Callable[[AnchorSimulator], None],
) -> None:
    simulator.renew()
    simulator.re_root(second)
    honest = simulator.fork()
    damage(simulator)
    before = device.state
    cycle = device.cycle(simulator)
    assert cycle.over == ""
    for ask in (cycle.at_start, cycle.before_install, cycle.after_failure):
        with pytest.raises(RetryLaterError, match="has ended epoch 0, and the first root of") as e:
            ask()
        assert cycle.over == e.value.message
        assert not isinstance(e.value, NotFoundError)
        assert "nothing of the old epoch is installed" in e.value.hint
    assert cycle.probe == Probe(Occasion.START, Outcome.PENDING, 0, 1, {})
    assert (device.state, device.store.commits) == (before, 0)
    assert asked(device, honest).outcome is Outcome.REROOTED
    assert device.place == (1, 3, 1)


def test_a_mirror_that_is_silent_is_not_asked_again_and_again(
    device: Device, simulator: AnchorSimulator, second: RepositorySimulator
) -> None:
    simulator.re_root(second)
    del simulator.files["e1/1.root.json"]

    class Unreachable(Primary):
        def fetch(self, path: str, max_length: int) -> bytes:
            self.asked.append(path)
            return Silent().fetch(path, max_length)

    device.primary = Unreachable([{}, {}])
    with pytest.raises(RetryLaterError, match=r"no answer for metadata/e1/1\.root\.json"):
        device.cycle(simulator).after_failure()
    assert device.primary.asked == ["metadata/e1/1.root.json"]


# What nobody may do


def test_two_roots_for_one_epoch_are_told_and_followed_by_nobody(
    device: Device, simulator: AnchorSimulator, second: RepositorySimulator
) -> None:
    other = simulator.fork()
    simulator.re_root(second)
    other.re_root(RepositorySimulator(epoch=8))
    before = device.state
    for urls in ((simulator, other), (other, simulator), (Silent(), other, simulator)):
        cycle = device.cycle(*urls)
        assert not cycle.before_install()
        assert cycle.probe is not None
        assert cycle.probe.outcome is Outcome.FORKED
        (told,) = device.told
        assert "two primary roots for epoch 1" in told
        assert "tell the holders of the recovery keys" in told
    assert (device.state, device.store.commits) == (before, 0)
    # A higher epoch on top of both is no way out: what forks below a longer chain is a fork.
    for each in (simulator, other):
        each.re_root(RepositorySimulator(epoch=2))
    for urls in ((simulator, other), (other, simulator)):
        assert asked(device, *urls).outcome is Outcome.FORKED
    assert (device.state, device.store.commits) == (before, 0)
    # The way out is that one of the two is withdrawn.
    assert asked(device, simulator, Silent()).outcome is Outcome.REROOTED
    assert device.place == (2, 3, 1)


def test_a_second_root_for_the_epoch_that_a_device_is_in_is_refused_too(
    device: Device, simulator: AnchorSimulator, second: RepositorySimulator
) -> None:
    simulator.re_root(second)
    asked(device, simulator)
    thief = simulator.fork()
    thief.says = thief.says | {"sha256": "ab" * 32}
    thief.publish("root")
    before = device.state
    probe = asked(device, thief, simulator)
    assert (probe.outcome, list(probe.failures)) == (Outcome.FORKED, [URL])
    assert "two primary roots for epoch 1" in device.told[0]
    assert device.state == before
    simulator.renew()
    assert asked(device, simulator).outcome is Outcome.RENEWED


def test_an_older_epoch_that_is_replayed_does_nothing(
    device: Device, simulator: AnchorSimulator, second: RepositorySimulator
) -> None:
    old = simulator.fork()
    simulator.re_root(second)
    asked(device, simulator)
    before = device.state
    old.renew()
    old.files["3.root.json"] = old.files["1.root.json"]
    for replay in (old, withholding(simulator), simulator):
        asked(device, replay)
        assert (device.state, device.store.commits) == (before, 1)
    simulator.renew()
    assert asked(device, old, simulator).outcome is Outcome.RENEWED
    assert device.place == (1, 3, 1)
