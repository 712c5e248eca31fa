"""During a rotation: a device stopped after any request, continued after any step of the publisher.

The publisher's steps are those of the real `firmroot publish`, recorded: every object that it
creates, every `timestamp.json`, every wait for caches. The device is the real state machine of
`client_reference.trust.updater` over what a cache serves: of `timestamp.json` anything that was
current since the last wait, of all else what is there; "not there" is never cached (design 8).

An interleaving says, for each request of one refresh, after which step of the publisher it is
answered, never an earlier one than before, and which `timestamp.json` the cache picks. What a
device does depends on the answers alone, so each different row of answers is run once, and the
interleavings that lead to it are counted. Nothing is sampled.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
from tuf.api import exceptions as tuf_errors
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater as NgUpdater

from client_reference.errors import ExitCode, NotFoundError, NotTrustedError, RetryLaterError
from client_reference.trust.state import MemoryStore
from client_reference.trust.updater import Floors, Updater, initial_state
from client_reference.trust.verified import ReplacedKeysError
from repo_tools.publishing.live import TIMESTAMP
from repo_tools.publishing.online import OnlineKeys
from repo_tools.publishing.publish import publish
from repo_tools.signing.secrets import open_secrets
from repo_tools.storage.local import LocalStorage
from tests.publishing.lab import HARDWARE, NOW, PRODUCT, Lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from client_reference.trust.state import DeviceState
    from repo_tools.storage.protocol import Created

ROLES = (f"{PRODUCT}-stable", f"{PRODUCT}-builds")


@dataclass(frozen=True)
class Moment:
    """What is served after one step of the publisher.

    Attributes:
        step: what it did.
        files: every object, by path.
        cached: each `timestamp.json` that a cache may still have, oldest first.
    """

    step: str
    files: Mapping[str, bytes]
    cached: tuple[bytes, ...]

    def answers(self, path: str) -> tuple[bytes | None, ...]:
        """Everything that a request may get; None for "not there"."""
        return self.cached if path == TIMESTAMP else (self.files.get(path),)


class Recording(LocalStorage):
    """A storage that remembers every step of a publish; also its edges."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.files = {path: (root / path).read_bytes() for path in self.paths("")}
        self.moments = [Moment("before", dict(self.files), (self.files[TIMESTAMP],))]

    def create(self, path: str, source: bytes | Path, sha256: str) -> Created:
        """See `Storage.create`."""
        created = super().create(path, source, sha256)
        self._note(path)
        return created

    def replace(self, path: str, data: bytes, tag: str | None) -> str:
        """See `Storage.replace`."""
        found = super().replace(path, data, tag)
        self._note(path)
        return found

    def wait(self, path: str, data: bytes) -> None:
        """See `Edges.wait`: what is older than the live timestamp has left every cache."""
        assert self.files[path] == data
        self.moments.append(Moment("wait", dict(self.files), (self.files[TIMESTAMP],)))

    def _note(self, path: str) -> None:
        self.files[path] = (self.root / path).read_bytes()
        cached = self.moments[-1].cached
        if path == TIMESTAMP:
            cached = (*cached, self.files[path])
        self.moments.append(Moment(path, dict(self.files), cached))


class Paused(BaseException):
    """The device waits for the answer to a request."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


@dataclass
class Scripted:
    """Answers requests in order; pauses the device at the first that has no answer yet."""

    answers: Sequence[bytes | None]
    asked: int = 0

    def fetch(self, path: str, max_length: int) -> bytes:
        """See `Fetcher.fetch`."""
        if self.asked == len(self.answers):
            raise Paused(path)
        data = self.answers[self.asked]
        self.asked += 1
        if data is None:
            raise NotFoundError(path)
        assert len(data) <= max_length
        return data

    def stream(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        """No image is fetched here."""
        raise AssertionError((path, offset, length))


@dataclass(frozen=True)
class End:
    """What one row of answers comes to.

    Attributes:
        answers: to the requests of one refresh.
        interleavings: how many lead to these answers.
        error: why the refresh failed; None if it succeeded.
    """

    answers: tuple[bytes | None, ...]
    interleavings: int
    error: Exception | None


def ours(state: DeviceState, answers: Sequence[bytes | None]) -> MemoryStore:
    """One check of our client, as far as the answers go."""
    store = MemoryStore(state)
    updater = Updater(store, Scripted(answers), NOW)
    updater.refresh()
    for role in ROLES:
        assert updater.role(role) is not None
    updater.keep()
    return store


class _Theirs(FetcherInterface):
    """Hands the answers to ngclient."""

    def __init__(self, answers: Sequence[bytes | None]) -> None:
        self._script = Scripted(answers)

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            return iter([self._script.fetch(url, 2**62)])
        except NotFoundError as error:
            raise tuf_errors.DownloadHTTPError("not there", 404) from error


def theirs(root: bytes, directory: Path, answers: Sequence[bytes | None]) -> None:
    """One check of `tuf.ngclient`, new from the factory."""
    with tempfile.TemporaryDirectory(dir=directory) as fresh:
        updater = NgUpdater(fresh, "metadata/", fetcher=_Theirs(answers), bootstrap=root)
        # ngclient reads the clock itself and takes no time from its caller (design 6).
        updater._trusted_set.reference_time = NOW
        updater.refresh()


def explore(
    check: Callable[[tuple[bytes | None, ...]], object],
    moments: Sequence[Moment],
    least: int = 0,
) -> list[End]:
    """Every interleaving of one refresh with the publisher.

    Args:
        check: the refresh, as far as the answers go; raises `Paused` where they end.
        moments: the publisher's.
        least: the moment of the first request at the earliest.
    """
    ends: list[End] = []
    start = [1 if index >= least else 0 for index in range(len(moments))]
    todo: list[tuple[tuple[bytes | None, ...], list[int]]] = [((), start)]
    while todo:
        answers, ways = todo.pop()
        error: Exception | None = None
        try:
            check(answers)
        except Paused as pause:
            todo += [
                ((*answers, answer), weights)
                for answer, weights in _answers(pause.path, ways, moments, first=not answers)
            ]
            continue
        except (NotTrustedError, RetryLaterError, tuf_errors.RepositoryError) as failure:
            error = failure
        ends.append(End(answers, sum(ways), error))
    return ends


def count(ends: Sequence[End]) -> tuple[int, int, int]:
    """Different rows of answers; interleavings that succeed; all interleavings."""
    good = sum(end.interleavings for end in ends if end.error is None)
    return len(ends), good, sum(end.interleavings for end in ends)


def _answers(
    path: str, ways: Sequence[int], moments: Sequence[Moment], *, first: bool
) -> Iterator[tuple[bytes | None, list[int]]]:
    """Each answer that a request may get, and in how many ways at each moment.

    `ways[m]` counts how the requests so far were answered, the last one at moment m. The next is
    answered at m or later; the first at any moment.
    """
    reach = list(ways) if first else [sum(ways[: index + 1]) for index in range(len(ways))]
    every = dict.fromkeys(
        answer
        for index, moment in enumerate(moments)
        if reach[index]
        for answer in moment.answers(path)
    )
    for answer in every:
        weights = [
            reach[index] * moment.answers(path).count(answer)
            for index, moment in enumerate(moments)
        ]
        yield answer, weights


@dataclass(frozen=True)
class Rotation:
    """A rotation as it was published.

    Attributes:
        moments: what was served after each step.
        factory: a device that never checked.
        before: one that checked before it.
        bridge: one that checked when the bridge was live; as `before` during a cut.
    """

    moments: Sequence[Moment]
    factory: DeviceState
    before: DeviceState
    bridge: DeviceState


def record(lab: Lab) -> Rotation:
    """Publish what is signed, and look at every step."""
    ws = lab.workspace
    storage = Recording(lab.repository)
    keys = OnlineKeys(ws, open_secrets(None, {}, None, ws.lab_passphrase))
    publish(ws, storage, keys, NOW, edges=storage)
    moments = storage.moments
    root = moments[0].files["metadata/1.root.json"]
    factory = initial_state(root, Floors(time=0, minimum_sequence=0, epoch=0))
    first = next(n for n, each in enumerate(moments) if each.step == TIMESTAMP)
    return Rotation(
        moments, factory, settled(factory, moments[0]), settled(factory, moments[first])
    )


def settled(state: DeviceState, moment: Moment) -> DeviceState:
    """The same device after an undisturbed check, with the newest timestamp of a moment."""
    answers: list[bytes | None] = []
    while True:
        try:
            found = ours(state, answers).state
        except Paused as pause:
            answers.append(moment.answers(pause.path)[-1])
        else:
            assert found is not None
            return found


@pytest.fixture(scope="module")
def _live(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    lab = Lab(tmp_path_factory.mktemp("interleavings") / "acme")
    lab.init()
    lab.ok("product", "add", PRODUCT, "--hardware", HARDWARE)
    lab.ship("1.0")
    return lab


@pytest.fixture(scope="module")
def bridge(_live: Lab, tmp_path_factory: pytest.TempPathFactory) -> Rotation:
    """Other keys for timestamp, snapshot and targets, all in one root, without hurry."""
    lab = _live.copy(tmp_path_factory.mktemp("bridge") / "acme")
    for name in ("publisher", "alice", "bob"):
        lab.ok("rotate", name)
    lab.ok("sign")
    return record(lab)


@pytest.fixture(scope="module")
def cut(_live: Lab, tmp_path_factory: pytest.TempPathFactory) -> Rotation:
    """The online key is stolen, and two of three targets keys with it."""
    lab = _live.copy(tmp_path_factory.mktemp("cut") / "acme")
    for name in ("publisher", "alice", "bob"):
        lab.ok("recover", "stolen-key", name)
    lab.ok("sign")
    return record(lab)


def test_a_bridge_takes_these_steps(bridge: Rotation) -> None:
    assert [each.step.removeprefix("metadata/") for each in bridge.moments] == [
        "before",
        "2.targets.json",
        "2.snapshot.json",
        "timestamp.json",
        "wait",
        "3.snapshot.json",
        "2.root.json",
        "root-chain/2",
        "wait",
        "timestamp.json",
    ]


# What the device trusted before -> different rows of answers, interleavings: 6625 together.
BRIDGES = {"factory": (10, 5978), "before": (10, 573), "bridge": (5, 74)}


@pytest.mark.parametrize("start", BRIDGES)
def test_during_a_bridge_every_interleaving_succeeds(start: str, bridge: Rotation) -> None:
    moments, least = bridge.moments, 0
    if start == "bridge":
        # A cache that has shown a device the bridge has it from then on.
        least = next(n for n, each in enumerate(moments) if each.step == TIMESTAMP)
        moments = [replace(each, cached=each.cached[-1:]) for each in moments]
    found = explore(partial(ours, getattr(bridge, start)), moments, least)
    rows, good, every = count(found)
    assert good == every
    assert (rows, every) == BRIDGES[start]


@pytest.mark.parametrize("without", ["timestamp.json", "2.root.json"])
def test_each_wait_is_needed_or_the_question_that_stands_in_for_it(
    without: str, bridge: Rotation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the root nothing replaces the wait. After it, a device asks for a newer root."""
    if without == "timestamp.json":
        old = bridge.moments[0].cached
        moments = [replace(each, cached=(*old, *each.cached)) for each in bridge.moments]
    else:
        moments = list(bridge.moments)
        monkeypatch.setattr(Updater, "_is_outdated", lambda _: False)
    _, good, every = count(explore(partial(ours, bridge.before), moments))
    assert 0 < good < every


def test_another_client_succeeds_unless_it_sleeps_through_a_wait(
    bridge: Rotation, tmp_path: Path
) -> None:
    """`tuf.ngclient` does not ask again: told "no newer root", it must not be stopped for a minute.

    So it fails in exactly those interleavings in which that answer is from before the root, and
    the timestamp is the one that drops the old signatures.
    """
    root = bridge.moments[0].files["metadata/1.root.json"]
    last = bridge.moments[-1].files[TIMESTAMP]
    found = explore(partial(theirs, root, tmp_path), bridge.moments)
    for end in found:
        slept = end.answers[0] is None and last in end.answers
        assert (end.error is not None) == slept, end
    assert count(found) == NGCLIENT


# Different rows of answers, interleavings that succeed, all.
NGCLIENT = (5, 858, 864)
CUTS = {"factory": (9, 453, 483), "before": (9, 34, 64)}


@pytest.mark.parametrize("start", CUTS)
def test_during_a_cut_a_device_fails_retryably_at_worst(start: str, cut: Rotation) -> None:
    """With the root there, and the timestamp of the thieves' keys before it: retry later."""
    state = getattr(cut, start)
    found = explore(partial(ours, state), cut.moments)
    assert count(found) == CUTS[start]
    failed = [end for end in found if end.error is not None]
    assert {type(end.error) for end in failed} == {ReplacedKeysError}
    assert ReplacedKeysError.exit_code == ExitCode.RETRY_LATER
    for end in failed:
        store = MemoryStore(state)
        with pytest.raises(ReplacedKeysError, match="in the middle of a change of keys"):
            Updater(store, Scripted(end.answers), NOW).refresh()
        assert store.state is not None
        settled(store.state, cut.moments[-1])
