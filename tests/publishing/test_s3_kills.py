"""On S3 behind a cache: killed at every request, before it is sent and after it was executed.

After each kill, devices from every earlier state ask the origin and an edge that still has the
`timestamp.json` of before: each is offered the old release or the new one (in a cut it may also
fail, to be tried again). The same command, run again, is killed once more; and run again, finishes.
Then the bucket holds what an undisturbed run leaves, and every device has arrived: at the origin at
once, behind the edge once its minute is over.

`FIRMROOT_KILLS=full` kills at each point; otherwise around a few of the writes. What devices see
depends on nothing but what origin and edge hold, so that is looked at once; and a second kill is
tried after those that left another state behind, not between two readings.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from client_reference.selection import DevicePosition
from client_reference.transport.fetch import Ambient, HttpFetcher, Settings
from client_reference.transport.policy import parse_mirror
from client_reference.trust.updater import Floors
from repo_tools.publishing.rehearse import Device, MappingFetcher, Outcome, meet
from tests.publishing.bucket import BUCKET, PART, Bucket, Run, moved, run
from tests.publishing.lab import HARDWARE, PRODUCT, Lab, image
from tests.simulators.edge import Edge, edge
from tests.simulators.seaweed import ACCESS, SECRET, Service, seaweed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


pytestmark = pytest.mark.services

FULL = os.environ.get("FIRMROOT_KILLS") == "full"
SPREAD = {"a publish onto a live state": 4, "a publish over a bridge": 4, "a cut": 4}
SIGKILL = -9
KNOWN = "is still signed with the keys before root 2: the publisher is in the middle of a change"
TIMESTAMP = "metadata/timestamp.json"


@dataclass(frozen=True)
class Case:
    """One command.

    Attributes:
        moment: of the lab before it.
        words: the command.
        offers: what a device may be offered, from before to after.
        cut: whether devices may fail meanwhile.
        refreshed: how often before: each timestamp of those is kept.
    """

    moment: str
    words: tuple[str, ...]
    offers: tuple[str, ...]
    cut: bool = False
    refreshed: int = 0


CASES = {
    "the first publish": Case("ready", ("publish",), ("nothing", "1.0")),
    "a publish onto a live state": Case("next", ("publish",), ("1.1", "1.2"), refreshed=2),
    "a refresh": Case("second", ("refresh",), ("1.1",), refreshed=1),
    "a publish with a new root": Case("renewed", ("publish",), ("1.1",)),
    "a publish over a bridge": Case("bridge", ("publish", "--wait"), ("1.1",)),
    "a cut": Case("cut", ("publish",), ("1.1",), cut=True),
    "handing in": Case("next", ("submit",), ("1.1",)),
    "a publish of what was handed in": Case("handed in", ("publish",), ("1.1", "1.2")),
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    public = {"name": "anonymous", "actions": [f"Read:{BUCKET}"]}
    with seaweed(tmp_path_factory.mktemp("seaweed"), [public]) as running:
        running.client().create_bucket(Bucket=BUCKET)
        yield running


@pytest.fixture(scope="module")
def cdn(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with edge(tmp_path_factory.mktemp("edge"), service.endpoint) as running:
        yield running


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")


@pytest.fixture(scope="module")
def labs(moments: dict[str, Lab], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Lab]:
    """`first` (1.0 is live), `second` (1.1 is), and what may come next."""
    top = tmp_path_factory.mktemp("labs")
    found = {"ready": moments["ready"], "first": moments["live"]}
    found["second"] = moments["next"].copy(top / "second" / "acme")
    found["second"].ok("publish")

    def following(name: str) -> Lab:
        found[name] = found["second"].copy(top / name / "acme")
        return found[name]

    lab = following("next")
    lab.add("1.2", data=image("1.2", 2 * PART + 17))
    lab.promote("1.2")
    lab = following("renewed")
    lab.ok("ceremony", "start", "root")
    lab.ok("sign")
    lab = following("bridge")
    for name in ("publisher", "alice"):
        lab.ok("rotate", name)
    lab.ok("sign")
    lab = following("cut")
    lab.ok("recover", "stolen-key", "publisher")
    lab.ok("sign")
    return found


def published(lab: Lab) -> Mapping[str, bytes]:
    """What a lab's own storage has for devices."""
    top = lab.repository
    paths = [path for path in top.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {path.relative_to(top).as_posix(): path.read_bytes() for path in paths}


@dataclass
class Fleet:
    """Devices from every earlier state, before one bucket and its edge.

    Attributes:
        case: what is being published.
        bucket: where.
        edge: what stands before it.
        lab: whose time it is.
        root: of the factory.
        seen: what each device was served before, by a word for that state.
        looked: what origin and edge held when devices looked, and whether one of them failed.
    """

    case: Case
    bucket: Bucket
    edge: Edge
    lab: Lab
    root: bytes
    seen: Mapping[str, tuple[Mapping[str, bytes], ...]]
    looked: dict[object, bool] = field(default_factory=dict)

    @property
    def behind(self) -> str:
        """Where devices fetch from the edge."""
        return f"{self.edge.url}{BUCKET}/{self.bucket.prefix}/"

    def ask(self, url: str, *seen: Mapping[str, bytes]) -> tuple[Outcome, str]:
        """What one device does with what is served at a URL."""
        position = DevicePosition(PRODUCT, "stable", (HARDWARE,), "slot", "test")
        device = Device("test", position, self.root, Floors(0, 0, 0))
        ambient = Ambient(time.monotonic, lambda _: None, lambda: 0.5)
        before = [(MappingFetcher(objects), self.lab.now) for objects in seen]
        with HttpFetcher(Settings((parse_mirror(url),)), ambient) as fetcher:
            return meet(device, fetcher, self.lab.now, before)

    def look(self, where: str) -> bool:
        """In the middle of it: every device at the origin and behind the edge.

        Returns:
            whether one of them fails in this state, and this was the first time.
        """
        tags = {path: tag for path, tag in self.bucket.tags().items() if path[:6] != "inbox/"}
        held = (frozenset(tags.items()), frozenset(self.edge.holds("timestamp.json").items()))
        if held in self.looked or TIMESTAMP not in tags:
            return False
        self.looked[held] = False
        for url in (f"{self.bucket.service.endpoint}/{BUCKET}/{self.bucket.prefix}/", self.behind):
            for name, seen in self.seen.items():
                outcome, detail = self.ask(url, *seen)
                place = f"{where}: a device {name} at {url} met {outcome.value}: {detail}"
                if outcome is Outcome.STRANDED and self.case.cut:
                    assert KNOWN in detail, place
                    self.looked[held] = True
                    continue
                assert outcome is Outcome.UPDATES, place
                assert detail.removeprefix("installs ") in self.case.offers, place
        return self.looked[held]

    def arrive(self, where: str, meanwhile: Mapping[str, bytes]) -> None:
        """In the end: every device, also one that looked in the middle of it, has what is new."""
        for url in (f"{self.bucket.service.endpoint}/{BUCKET}/{self.bucket.prefix}/", self.behind):
            for name, seen in self.seen.items():
                outcome, detail = self.ask(url, *seen, *([meanwhile] if meanwhile else []))
                place = f"{where}: in the end a device {name} at {url} met {outcome.value}"
                assert detail == f"installs {self.case.offers[-1]}", f"{place}: {detail}"


@dataclass
class Trials:
    """One command, again and again, each time from the same start.

    Attributes:
        name: of the case.
        start: the lab before it.
        fleet: who looks.
        before: what the bucket holds then.
        top: a directory for the trials.
        tags: of what is in the bucket then.
        kills: how many there were.
    """

    name: str
    start: Lab
    fleet: Fleet
    before: Mapping[str, bytes]
    top: Path
    tags: dict[str, str] = field(default_factory=dict)
    kills: int = 0

    def fresh(self) -> Lab:
        """Everything is as it was before."""
        fleet = self.fleet
        shutil.rmtree(self.top / "trial", ignore_errors=True)
        self.tags = fleet.bucket.fill(self.before, self.tags)
        fleet.edge.forget()
        if TIMESTAMP in self.before:  # the edge has it for a minute from now on
            assert fleet.ask(fleet.behind)[1] == f"installs {fleet.case.offers[0]}"
        return self.start.copy(self.top / "trial" / "acme")

    def run(self, lab: Lab, kill_at: int = 0) -> Run:
        """The command, up to a point if one is named."""
        done = run(lab, self.fleet.bucket, self.fleet.edge, *self.fleet.case.words, kill_at=kill_at)
        self.kills += done.code == SIGKILL
        return done

    def killed(self, point: int, every: tuple[str, ...], expected: Mapping[str, str]) -> None:
        """Killed at one point, and run again until it is done."""
        fleet, lab = self.fleet, self.fresh()
        where = f"{self.name}, killed at {point} of {len(every)}: {every[point - 1]}"
        assert self.run(lab, point).code == SIGKILL, where
        failing = fleet.look(where)
        meanwhile = fleet.bucket.objects() if failing else {}
        if writes(every[point - 1]):
            again = 1 + point * 7919 % len(every)
            where = f"{where}, and at {again}"
            assert self.run(lab, again).code in {0, SIGKILL}, where
            fleet.look(where)
        assert self.run(lab).code == 0, where
        fleet.look(where)
        found = fleet.bucket.tags()
        if fleet.case.words == ("refresh",):
            # One that had committed was run once more, and that kept what the one before made.
            found[TIMESTAMP] = expected[TIMESTAMP]
            for version in (4, 5):
                found.pop(f"metadata/{version}.timestamp.json", None)
        assert found == expected, f"{where}: {sorted(found.items() ^ expected.items())[:3]}"
        if failing:
            fleet.edge.pass_time(60)
            fleet.arrive(where, meanwhile)


@pytest.mark.parametrize("name", CASES)
def test_killed_at_a_request_and_run_again_a_command_finishes(
    name: str, service: Service, cdn: Edge, labs: dict[str, Lab], tmp_path: Path
) -> None:
    case, bucket = CASES[name], Bucket(service, name.replace(" ", "-"))
    moment = "next" if case.moment == "handed in" else case.moment
    lab = labs[moment].copy(tmp_path / "start" / "acme")
    start = moved(lab, bucket, (f"{cdn.url}{BUCKET}/{bucket.prefix}/",))
    for _ in range(case.refreshed):
        start.ok("refresh")
    if case.moment == "handed in":
        start.ok("submit")
        for place in ("staged", ".firmroot/staged", ".firmroot/outbox"):
            shutil.rmtree(start.directory / place)
    first, second = published(labs["first"]), published(labs["second"])
    seen: dict[str, tuple[Mapping[str, bytes], ...]] = {"from the factory": ()}
    before = bucket.objects()
    if TIMESTAMP in before:
        seen |= {"since 1.0": (first,), "since 1.1": (second,), "since both": (first, second)}
    root = (labs["first"].directory / "metadata/root/1.json").read_bytes()
    trials = Trials(name, start, Fleet(case, bucket, cdn, start, root, seen), before, tmp_path)

    undisturbed = trials.run(trials.fresh())
    assert undisturbed.code == 0
    every, expected = undisturbed.points, bucket.tags()
    # The bridge waits before the root and after it; nothing else waits.
    assert every.count("after a wait") == (2 if name == "a publish over a bridge" else 0)
    chosen = points(every, SPREAD.get(name, 2))
    for point in chosen:
        trials.killed(point, every, expected)
    cdn.pass_time(60)
    trials.fleet.arrive(name, {})

    looked, stale = trials.fleet.looked, stale_answers(cdn, bucket)
    assert stale or TIMESTAMP not in before
    if case.cut:
        assert any(looked.values()), "no device looked in the middle of the cut"
    print(
        f"\n{name}: {len(every)} points, killed at {len(chosen)} of them, {trials.kills} kills; "
        f"devices looked at {len(looked)} states of origin and edge, and failed for now in "
        f"{sum(looked.values())}; {stale} timestamps came from the edge's memory"
    )


def stale_answers(cdn: Edge, bucket: Bucket) -> int:
    """How often the edge answered with a `timestamp.json` that it had."""
    path = f"/{BUCKET}/{bucket.prefix}/{TIMESTAMP}"
    return sum(kept == "HIT" and asked == path for kept, _, asked in cdn.answers())


def writes(point: str) -> bool:
    """Whether there is something else after it than before, in the bucket or behind the edge."""
    return point.endswith(("PutObject", "UploadPart", "CompleteMultipartUpload", "wait"))


def points(every: tuple[str, ...], spread: int) -> list[int]:
    """At which to kill: all of them, or a few around the writes, and the last of those."""
    if FULL:
        return list(range(1, len(every) + 1))
    found = [number for number, point in enumerate(every, 1) if writes(point)]
    step = max(1, len(found) // (spread - 1))
    return sorted({*found[step - 1 : -1 : step][: spread - 1], found[-1]})
