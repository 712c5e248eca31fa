"""A device at its command line whose primary root is lost or stolen, and what the anchor does."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections import ChainMap
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from client_reference.transport.fetch import Ambient
from client_reference.transport.pace import Patience
from client_reference.trust import recovery
from client_reference.trust.clock import ISSUED
from client_reference.trust.state import Phase
from client_reference.trust.store import SqliteStore
from tests.simulators.anchor import AnchorSimulator, first_root
from tests.simulators.certificates import make_authority
from tests.simulators.device import DeviceOnDisk, Publisher
from tests.simulators.mirror import Mirror, Trouble
from tests.simulators.repository import NOW, SECONDS, RepositorySimulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from client_reference.manifest import Release
    from client_reference.trust.state import DeviceState
    from tests.simulators.device import Output

ROOT = Path(__file__).parents[2]
OLD = random.Random(1).randbytes(5000)
NEWER = random.Random(2).randbytes(6000)
HUGE = 2**53 - 2
NEVER, ALWAYS = '[check]\nevery = "0s"\n', '[check]\nevery = "24h"\n'


def second_publisher(epoch: int = 1) -> Publisher:
    """The primary repository of another epoch."""
    return Publisher(RepositorySimulator(epoch=epoch))


@dataclass
class World:
    """One device, its mirror, its recovery URLs, and who publishes there.

    Attributes:
        urls: of the anchor; each serves `anchor` until a test gives it something else.
    """

    device: DeviceOnDisk
    stack: ExitStack
    first: Publisher = field(default_factory=Publisher)
    second: Publisher = field(default_factory=second_publisher)
    urls: list[Mirror] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.anchor = AnchorSimulator(first_root(self.first.repo))
        self.served: ChainMap[str, bytes] = ChainMap(self.first.repo.files)
        self.mirror = self.stack.enter_context(Mirror(self.served))
        self.urls = [self.stack.enter_context(Mirror(self.anchor.files)) for _ in range(3)]
        self.make()
        self.first.release("1.0", 1, OLD)

    def make(self, extra: str = NEVER, **options: str) -> None:
        """The image and the configuration, as they left the factory."""
        recovery = json.dumps([url.url for url in self.urls])
        options["repository"] = f"recovery = {recovery}\n{options.get('repository', '')}"
        self.device.make(
            first_root(self.first.repo),
            [self.mirror.url],
            extra,
            recovery_root=self.anchor.files["1.root.json"],
            **options,  # type: ignore[arg-type] # sections only
        )

    def re_root(self, **minimum: int) -> None:
        """The first root is gone; the second repository stands beside the old one."""
        self.served.maps.append(self.second.repo.files)
        self.second.release("2.0", 5, NEWER)
        self.anchor.re_root(self.second.repo, **minimum)

    def settle(self) -> None:
        """A device that runs 1.0 of the first epoch."""
        for command in ("init", "update", "confirm"):
            assert self.device.run(command).code == 0

    def say(self, *command: str) -> Output:
        """Run a command with --json."""
        for server in (self.mirror, *self.urls):
            server.seen.clear()
        return self.device.run(*command, before=("--json",))

    @property
    def state(self) -> DeviceState:
        state = SqliteStore(self.device.directory / "state").peek()
        assert state is not None
        return state

    @property
    def epoch(self) -> int:
        return self.state.trust.epoch

    def updates(self) -> None:
        """The honest release of the second epoch installs and is confirmed."""
        updated = self.device.run("update")
        assert updated.code == 0, updated.err
        assert self.device.run("confirm").code == 0
        install = self.state.install
        assert install.current is not None
        assert (install.current.version, install.current.epoch) == ("2.0", 1)
        assert NEWER in {self.device.slot("A"), self.device.slot("B")}
        assert self.epoch == 1
        assert "2.0 is installed" in self.device.run("check").out


@pytest.fixture
def world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[World]:
    """It waits for nobody."""
    brief = Patience(grace=0.3)
    ambient = Ambient(time.monotonic, lambda _: None, random.random, patience=brief)
    with ExitStack() as stack:
        yield World(DeviceOnDisk(tmp_path, capsys, ambient=ambient), stack)


# A device in peace


def test_a_check_without_news_asks_twice_and_no_recovery_url(world: World) -> None:
    world.settle()
    world.device.run("check")
    said = world.say("check")
    assert (said.json["requests"], said.json["recovery"]) == (2, None)
    assert [url.paths for url in world.urls] == [[], [], []]


def test_a_check_that_drew_it_asks_each_recovery_url_once(world: World) -> None:
    world.settle()
    world.make(ALWAYS)
    world.device.run("check")
    said = world.say("check").json
    assert [url.paths for url in world.urls] == [["2.root.json", "1.root.json"]] * 3
    assert said["requests"] == 8
    assert said["recovery"] == {
        "occasion": "daily",
        "outcome": "current",
        "epoch": 0,
        "version": 1,
        "failures": {},
    }


def test_a_mistyped_recovery_url_is_seen_by_check_and_by_status(world: World) -> None:
    world.settle()
    world.make(ALWAYS)
    wrong = world.urls[0]
    wrong.files = {}
    assert list(world.say("check").json["recovery"]["failures"]) == [wrong.url]
    note = world.device.directory / "cache" / "recovery.json"
    written = note.stat().st_mtime_ns
    assert world.device.run("check").code == 0
    assert note.stat().st_mtime_ns == written, "only news are written"
    why = "it has neither 2.root.json nor 1.root.json, which this device trusts: there is no "
    why += "recovery repository, or one that lags behind"
    assert world.say("status").json["recovery_failures"] == {wrong.url: why}
    shown = world.device.run("status").out
    assert f"asked at 3 URL(s), 1 failed\n           {wrong.url}: {why}\n" in shown
    # A URL that is no longer configured is nobody's business.
    world.urls = world.urls[1:]
    world.make(NEVER)
    assert world.say("status").json["recovery_failures"] == {}
    assert "asked at 2 URL(s)\n" in world.device.run("status").out
    world.urls.insert(0, wrong)
    wrong.files = world.anchor.files
    world.make(ALWAYS)
    assert world.say("check").json["recovery"]["failures"] == {}
    assert world.say("status").json["recovery_failures"] == {}
    assert "asked at 3 URL(s)\n" in world.device.run("status").out
    world.re_root()
    world.updates()


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"[]",
        b"{}",
        b"{",
        b"[" * 5000,
        b'{"failures": {"URL": 1}, "fork": ""}',
        b'{"failures": {"URL": "x"}, "fork": 1}',
        b'{"failures": {"URL": "x"}}',
        b'{"failures": ["URL"], "fork": ""}',
        b'{"failures": {"URL": "x"}, "fork": ""',
        b"\xff",
        None,
    ],
)
def test_a_damaged_note_of_what_failed_says_nothing(world: World, damage: bytes | None) -> None:
    world.settle()
    world.make(ALWAYS)
    wrong = world.urls[0]
    wrong.files = {}
    note = world.device.directory / "cache" / "recovery.json"
    note.unlink(missing_ok=True)
    if damage is None:
        note.mkdir()
    else:
        note.write_bytes(damage.replace(b"URL", wrong.url.encode()))
    assert world.say("status").json["recovery_failures"] == {}
    assert world.device.run("check").code == 0
    failures = world.say("status").json["recovery_failures"]
    assert list(failures) == ([] if damage is None else [wrong.url])
    world.re_root()
    world.updates()


def test_how_likely_it_is_follows_from_how_often_a_device_checks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.settle()
    world.make('[check]\nevery = "6h"\n')
    for drawn, occasion in ((0.2499, "daily"), (0.2501, None)):
        monkeypatch.setattr(random.SystemRandom, "random", lambda _, drawn=drawn: drawn)
        recovery = world.say("check").json["recovery"]
        assert (recovery and recovery["occasion"]) == occasion


def test_other_recovery_keys_are_stored_and_shown(world: World) -> None:
    world.settle()
    world.anchor.renew()
    world.make(ALWAYS)
    said = world.say("check")
    assert (said.json["recovery"]["outcome"], said.json["recovery"]["version"]) == ("renewed", 2)
    status = world.say("status").json
    assert (status["epoch"], status["recovery_root"]) == (0, 2)
    shown = world.device.run("status").out
    assert "anchor     epoch 0, recovery root 2, asked at 3 URL(s)\n" in shown
    world.re_root()
    world.device.run("check")
    world.updates()


def test_nothing_is_loaded_for_an_anchor_that_nobody_configured(world: World) -> None:
    world.settle()
    world.device.make(first_root(world.first.repo), [world.mirror.url])
    program = (
        "import sys; from client_reference.cli import main; code = main(sys.argv[1:], {});"
        "print([m for m in sys.modules if m.endswith(('anchor', 'recovery'))]); sys.exit(code)"
    )
    command = [sys.executable, "-c", program, "--config", str(world.device.config), "check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]"), done.stderr


def test_a_recovery_root_that_is_never_asked_is_shown(world: World) -> None:
    world.settle()
    root = world.anchor.files["1.root.json"]
    world.device.make(first_root(world.first.repo), [world.mirror.url], recovery_root=root)
    said = world.device.run("status").out
    assert "anchor     epoch 0, recovery root 1, never asked: set repository.recovery\n" in said
    world.make(ALWAYS)
    world.re_root()
    world.updates()


def test_a_device_without_a_recovery_root_says_so_once_and_never_asks(world: World) -> None:
    (world.device.directory / "factory" / "recovery-root.json").unlink()
    world.re_root()
    said = world.device.run("init")
    assert "this device has no recovery root: it asks nobody" in said.err
    shown = world.device.run("status").out
    assert "anchor     epoch 0, none: it needs recovery-root.json of the factory export\n" in shown
    updated = world.say("update")
    assert (updated.code, updated.json["recovery"]) == (0, None)
    assert [url.paths for url in world.urls] == [[], [], []]
    status = world.say("status").json
    assert (status["epoch"], status["recovery_root"]) == (0, None)
    assert "anchor     epoch 0, none" in world.device.run("status").out


def test_a_recovery_root_of_another_repository_begins_nothing(world: World) -> None:
    place = world.device.directory / "factory" / "recovery-root.json"
    place.write_bytes(AnchorSimulator(first_root(world.second.repo)).newest())
    refused = world.device.run("init")
    assert refused.code == 6
    assert "the first primary root of epoch 0 has" in refused.err
    world.make()
    assert world.device.run("init").code == 0


def test_an_anchor_that_comes_with_a_later_image_is_taken(world: World) -> None:
    recovery_root = world.device.directory / "factory" / "recovery-root.json"
    recovery_root.unlink()
    world.settle()
    assert world.state.trust.recovery_version == 0
    # Of another repository: it speaks of other roots.
    recovery_root.write_bytes(AnchorSimulator(first_root(world.second.repo)).newest())
    assert world.device.run("check").code == 0
    assert world.state.trust.recovery_version == 0
    # Of another chain altogether.
    world.make()
    other = Publisher(RepositorySimulator(epoch=0))
    other.repo.rotate("root")
    foreign = other.repo.write("root")
    (world.device.directory / "factory" / "root.json").write_bytes(foreign)
    recovery_root.write_bytes(AnchorSimulator(foreign).newest())
    assert world.device.run("check").code == 0
    assert world.state.trust.recovery_version == 0
    before = world.state
    world.make()
    assert world.device.run("check").code == 0
    assert world.state.trust.recovery_root == world.anchor.newest()
    assert world.state.trust.recovery_version == 1
    assert world.state.trust.root == before.trust.root
    world.re_root()
    world.make(ALWAYS)
    world.updates()


def test_an_anchor_of_another_epoch_is_not_taken_from_an_image(world: World) -> None:
    (world.device.directory / "factory" / "recovery-root.json").unlink()
    world.settle()
    world.re_root()
    world.device.make(
        first_root(world.second.repo),
        [world.mirror.url],
        NEVER,
        recovery_root=world.anchor.newest(),
        epoch=1,
        repository=f"recovery = {json.dumps([world.urls[0].url])}",
    )
    assert world.device.run("check").code == 0
    assert (world.epoch, world.state.trust.recovery_root) == (0, None)


# Every occasion


def poisoned_timestamp(world: World) -> None:
    world.first.repo.files["metadata/timestamp.json"] = b"{}"


def empty_primary(world: World) -> None:
    del world.first.repo.files["metadata/timestamp.json"]


def lost_store(world: World) -> None:
    for copy in ("a.db", "b.db"):
        (world.device.directory / "state" / copy).unlink()


def ruined_store(world: World) -> None:
    for copy in ("a.db", "b.db"):
        (world.device.directory / "state" / copy).write_bytes(b"\xff" * 9000)


def new_root(world: World) -> None:
    world.first.repo.publish("root")


def announced(world: World) -> None:
    world.first.repo.timestamp.unrecognized_fields["x-firmroot-epoch"] = 1
    world.first.repo.publish("timestamp")


def nothing(_: World) -> None:
    """Things are as they were."""


OCCASIONS: dict[str, tuple[str, Callable[[World], None]]] = {
    # What `--json` names as the occasion, and what happened to a settled device before a check.
    "the store is lost": ("start", lost_store),
    "the store is ruined": ("start", ruined_store),
    "the primary does not answer": (
        "failure",
        lambda world: setattr(world.mirror, "trouble", Trouble(path="timestamp.json", status=503)),
    ),
    "the primary has nothing": ("failure", empty_primary),
    "the primary lies": ("failure", poisoned_timestamp),
    "the primary has expired": (
        "failure",
        lambda world: setattr(world.device, "now", "2032-05-13T12:00:00Z"),
    ),
    "there is a new primary root": ("root", new_root),
    "a new timestamp speaks of another epoch": ("announced", announced),
    "it is its turn": ("daily", lambda world: world.make(ALWAYS)),
}


@pytest.mark.parametrize("sentence", OCCASIONS)
def test_on_each_occasion_a_check_follows_the_anchor(world: World, sentence: str) -> None:
    occasion, happen = OCCASIONS[sentence]
    world.settle()
    world.re_root()
    assert world.say("check").json["recovery"] is None, "nobody told it"
    happen(world)
    if sentence == "the primary has expired":
        for role in ("timestamp", "snapshot", "targets", "root"):
            world.second.repo.signed[role].expires = world.second.repo.later(days=800)
        world.second.repo.publish("root", "targets", "gateway-stable", "gateway-builds")
    said = world.say("check")
    if world.mirror.trouble.status:
        # The new epoch is behind the same mirror: the device is in it all the same.
        assert said.code == 4
        world.mirror.trouble = Trouble(times=0)
    elif sentence != "the primary has expired":
        assert said.code == 0, said.err
        assert said.json["recovery"]["occasion"] == occasion
        assert said.json["recovery"]["outcome"] == "re-rooted"
        assert said.json["update"]["version"] == "2.0", "the same check goes on in the new epoch"
    assert "the recovery anchor re-rooted this device: epoch 0 has ended, epoch 1" in said.err
    assert world.epoch == 1
    if sentence != "the primary has expired":
        world.updates()


def test_before_an_install_the_anchor_is_asked_and_nothing_of_the_old_epoch_is_written(
    world: World,
) -> None:
    world.settle()
    world.first.release("1.1", 2, b"the thief's" * 100)
    assert world.device.run("check").code == 0
    world.re_root()
    slot = world.device.slot("A")
    updated = world.say("update")
    assert updated.code == 0
    assert updated.json["recovery"]["occasion"] == "install"
    assert (updated.json["image"]["version"], updated.json["outcome"]) == ("2.0", "rebooting")
    assert slot != world.device.slot("A") == NEWER
    assert not [path for path in world.mirror.paths if "builds/gateway/1.1" in path]
    assert world.device.run("confirm").code == 0


def test_a_check_that_finds_a_release_asks_whoever_offers_it(world: World) -> None:
    """The primary answers as ever, in a thief's hands; nothing of it is announced."""
    world.settle()
    world.re_root()
    world.first.release("9.9", 9, b"the thief's" * 100)
    said = world.say("check")
    assert (said.code, said.json["update"]["version"]) == (0, "2.0"), said.err
    assert (said.json["recovery"]["occasion"], world.epoch) == ("install", 1)
    world.updates()


def test_a_check_that_finds_a_release_asks_each_recovery_url_once(world: World) -> None:
    world.settle()
    world.first.release("1.1", 2, NEWER)
    assert world.device.run("check").code == 0
    said = world.say("check").json
    assert (said["update"]["version"], said["recovery"]["outcome"]) == ("1.1", "current")
    assert [url.paths for url in world.urls] == [["2.root.json", "1.root.json"]] * 3
    for command in ("update", "confirm", "check"):
        assert world.device.run(command).code == 0
    # Nothing to install: as cheap as ever.
    said = world.say("check").json
    assert (said["requests"], said["recovery"]) == (2, None)


def test_what_was_staged_in_an_ended_epoch_is_not_booted(world: World) -> None:
    world.settle()
    world.first.release("1.1", 2, b"the thief's" * 100)
    assert world.device.run("update", "--download-only").code == 0
    world.re_root()
    world.updates()
    assert world.state.install.confirmed_sequence == 5


def pending(world: World) -> None:
    """A thief's release waits for the restart, and the recovery URLs come back."""
    world.settle()
    for url in world.urls:
        url.trouble = Trouble(status=503)
    world.first.release("9.9", 9, b"the thief's" * 100)
    assert "boots next" in world.device.run("update", "--no-reboot").out
    for url in world.urls:
        url.trouble = Trouble(times=0)
    world.re_root()


def boots(world: World) -> dict[str, Any]:
    """What the boot loader of the handler `slot` remembers."""
    record: dict[str, Any] = json.loads((world.device.directory / "slots/boot.json").read_bytes())
    return record


GIVEN_UP = "release 9.9 is of epoch 0, which the recovery anchor has ended: it was given up"


def test_what_waits_for_the_restart_is_given_up_by_the_check_that_re_roots(world: World) -> None:
    pending(world)
    running = boots(world)["running"]
    assert boots(world)["trial"] == "A" != running
    world.make(ALWAYS)
    # Looking changes nothing, and says what will become of it.
    doctor = world.device.run("doctor")
    assert "which the recovery anchor has ended: the next check gives it up" in doctor.out
    assert (boots(world)["trial"], world.epoch) == ("A", 0)
    said = world.say("check")
    assert (said.code, said.json["recovery"]["outcome"]) == (0, "re-rooted")
    assert [GIVEN_UP in warning for warning in said.json["warnings"]] == [False, True]
    assert (said.json["trial"], said.json["next"][-6:]) == (None, "update")
    assert (boots(world)["trial"], boots(world)["bootable"]) == ("", [running])
    assert world.say("status").json["candidate"] is None
    # It is news once.
    assert GIVEN_UP not in world.device.run("check").err
    world.updates()
    assert world.state.install.rejected == ()


@pytest.mark.parametrize("command", ["check", "update"])
def test_what_waits_for_the_restart_is_given_up_even_if_the_next_epoch_cannot_begin(
    world: World, command: str
) -> None:
    """A thief who had it armed withholds the new root too."""
    pending(world)
    running = boots(world)["running"]
    hidden = world.second.repo.files.pop("metadata/e1/1.root.json")
    world.anchor.files.pop("e1/1.root.json")
    world.make(ALWAYS)
    said = world.device.run(command)
    assert (said.code, world.epoch) == (4, 0)
    assert "release 9.9 may not start: the recovery anchor has ended epoch 0, and the" in said.err
    assert (boots(world)["trial"], boots(world)["bootable"]) == ("", [running])
    assert world.say("status").json["candidate"] is None
    world.served["metadata/e1/1.root.json"] = hidden
    world.updates()


def test_what_runs_already_is_left_to_its_verdict_though_the_next_epoch_cannot_begin(
    world: World,
) -> None:
    world.settle()
    world.first.release("9.9", 9, b"the thief's" * 100)
    assert world.device.run("update").code == 0
    world.re_root()
    hidden = world.second.repo.files.pop("metadata/e1/1.root.json")
    world.anchor.files.pop("e1/1.root.json")
    world.make(ALWAYS)
    before = boots(world)
    said = world.device.run("check")
    assert (said.code, world.epoch) == (4, 0)
    assert "may not start" not in said.err
    assert (boots(world), world.state.install.phase) == (before, Phase.TRIAL)
    world.served["metadata/e1/1.root.json"] = hidden
    assert world.device.run("reject").code == 0
    world.updates()


def test_an_armed_boot_of_an_ended_epoch_that_no_record_tells_of_stops_no_check(
    world: World,
) -> None:
    """The trust state was lost as well: there is no image to speak of."""
    pending(world)
    hidden = world.second.repo.files.pop("metadata/e1/1.root.json")
    world.anchor.files.pop("e1/1.root.json")
    world.make(ALWAYS)
    shutil.rmtree(world.device.directory / "state")
    assert world.device.run("init").code == 0
    said = world.device.run("check")
    assert (said.code, world.epoch) == (4, 0), said.err
    assert "the recovery anchor has ended epoch 0" in said.err
    world.served["metadata/e1/1.root.json"] = hidden
    world.updates()


def test_an_update_asks_before_it_boots_what_an_earlier_one_left(world: World) -> None:
    pending(world)
    said = world.say("update")
    assert (said.code, said.json["image"]["version"]) == (0, "2.0")
    assert said.json["recovery"]["occasion"] == "install"
    assert any(GIVEN_UP in warning for warning in said.json["warnings"])
    assert world.device.run("confirm").code == 0
    assert "2.0 is installed" in world.device.run("check").out


def test_an_update_asks_before_it_boots_what_an_earlier_one_left_though_no_mirror_answers(
    world: World,
) -> None:
    pending(world)
    running = boots(world)["running"]
    world.mirror.trouble = Trouble(status=503)
    said = world.device.run("update")
    assert (said.code, world.epoch) == (4, 1)
    assert (boots(world)["running"], boots(world)["trial"]) == (running, "")
    assert GIVEN_UP in said.err
    world.mirror.trouble = Trouble(times=0)
    world.updates()


def test_an_update_boots_what_an_earlier_one_left_in_an_epoch_that_goes_on(world: World) -> None:
    world.settle()
    world.first.release("1.1", 2, NEWER)
    assert world.device.run("update", "--no-reboot").code == 0
    for url in world.urls:
        url.trouble = Trouble(status=503)
    said = world.say("update")
    assert (said.code, said.json["outcome"]) == (0, "rebooting")
    assert len(world.mirror.paths) == 2, "a check without news"
    (warning,) = said.json["warnings"]
    assert "the recovery anchor could not be asked" in warning
    assert world.device.run("confirm").code == 0


def test_a_cut_between_re_rooting_and_giving_up_is_shown_and_healed(world: World) -> None:
    pending(world)
    with SqliteStore(world.device.directory / "state") as store:
        state = store.load()
        assert state is not None
        newest = recovery.first_anchor(world.anchor.newest())
        root = first_root(world.second.repo)
        store.begin_again(recovery.rerooted(state, newest, root, "gateway"))
    shown = world.device.run("status").out
    assert "trial      9.9 (sequence 9) in slot A, of an epoch that has ended\n" in shown
    assert shown.endswith("device.toml update\n")
    world.updates()


@dataclass
class HandedOver:
    """A thief's release, that a program got before the anchor ended the thief's epoch."""

    world: World

    def __post_init__(self) -> None:
        names = ("install", "confirm", "reject", "restart")
        paths = {name: self.world.device.directory / f"{name}.sh" for name in names}
        for name, path in paths.items():
            path.write_text(f'#!/bin/sh\necho {name} >> "$(dirname "$0")/ran"\n')
            path.chmod(0o755)
        self.program = paths["install"]
        self.got = self.world.device.directory / "got"
        with self.program.open("a") as file:
            file.write(f'cp "$1" {self.got}\n')
        lines = [f'run = ["{self.program}", "{{path}}"]', f'reboot = ["{paths["restart"]}"]']
        lines += [f'{name} = ["{paths[name]}"]' for name in ("confirm", "reject")]
        section = "\n".join(['handler = "command"', "[install.command]", *lines])
        world, urls = self.world, self.world.urls
        world.make(install=section)
        assert world.device.run("init").code == 0
        for url in urls:
            url.trouble = Trouble(status=503)
        self.release(world.first, "9.9", 9, b"the thief's" * 100)
        assert "boots next" in world.device.run("update", "--no-reboot").out
        for url in urls:
            url.trouble = Trouble(times=0)
        world.served.maps.append(world.second.repo.files)
        world.anchor.re_root(world.second.repo)
        world.make(ALWAYS, install=section)

    def release(self, publisher: Publisher, version: str, sequence: int, image: bytes) -> None:
        def by_command(release: Release) -> Release:
            payloads = tuple(replace(one, handler="command") for one in release.payloads)
            return replace(release, payloads=payloads)

        publisher.release(version, sequence, image, by_command, handler="command")

    def told(self, command: str) -> str:
        """What a command says of the thief's release."""
        said = self.world.say(command)
        assert said.code == 0, said.err
        begins = "release 9.9 is of epoch 0, which the recovery anchor has ended: "
        (warning,) = [each for each in said.json["warnings"] if each.startswith(begins)]
        return str(warning.removeprefix(begins))

    @property
    def ran(self) -> list[str]:
        """The programs that were run, in order."""
        return (self.world.device.directory / "ran").read_text().split()

    def updates(self) -> None:
        """The honest release of the new epoch is installed instead."""
        device = self.world.device
        self.release(self.world.second, "2.0", 5, NEWER)
        assert "restarting into 2.0" in device.run("update").out
        assert self.got.read_bytes() == NEWER
        assert self.ran == ["install", "install", "restart"]
        device.restart()
        assert device.run("confirm").code == 0
        assert "2.0 is installed" in device.run("check").out


def test_what_a_command_has_is_told_to_the_owner_and_not_booted_from_here(world: World) -> None:
    handed = HandedOver(world)
    for command in ("check", "update", "check"):
        told = handed.told(command)
        assert told.startswith(f"{handed.program} has it, and it boots next: do not restart this")
        assert "before an update has put another release in its place" in told
        assert f"or take it back with {handed.program} by hand" in told
        assert handed.got.read_bytes().startswith(b"the thief's")
    shown = world.device.run("status").out
    assert "staged     9.9 (sequence 9), of an epoch that has ended\n" in shown
    assert shown.endswith("device.toml update\n")
    handed.updates()


def test_a_restart_in_spite_of_that_is_said_and_what_may_run_now_is_not_confirmed(
    world: World,
) -> None:
    handed = HandedOver(world)
    handed.told("check")
    world.device.restart()
    assert "nothing is on trial" in world.device.run("confirm").out
    assert handed.told("check").startswith(
        f"{handed.program} had it when this device restarted, so it may be what runs now; it is "
        "given up here and was not confirmed"
    )
    # Nobody here knows which system runs: its owner's programs are told nothing about it.
    assert handed.ran == ["install"]
    assert "phase      idle\n" in world.device.run("status").out
    assert world.state.install.confirmed_sequence == 0
    assert "epoch 0" not in world.device.run("check").err
    handed.updates()


def test_what_both_epochs_offer_is_of_the_new_one_once_it_is_installed(world: World) -> None:
    world.settle()
    world.first.release("2.0", 5, NEWER)
    assert world.device.run("update", "--download-only").code == 0
    world.re_root()
    world.updates()
    assert world.state.install.confirmed_sequence == 5


def test_an_announcement_is_heard_once_and_only_of_a_higher_epoch(world: World) -> None:
    """A thief of the timestamp key could otherwise have every check of every device ask."""
    world.settle()
    world.first.repo.timestamp.unrecognized_fields["x-firmroot-epoch"] = 0
    world.first.repo.publish("timestamp")
    assert world.say("check").json["recovery"] is None
    announced(world)
    said = world.say("check").json["recovery"]
    assert (said["occasion"], said["outcome"]) == ("announced", "current")
    assert world.say("check").json["recovery"] is None
    world.re_root()
    assert world.say("check").json["recovery"] is None
    world.first.repo.publish("timestamp")
    assert world.say("check").json["recovery"]["outcome"] == "re-rooted"
    world.updates()


@pytest.mark.parametrize("occasion", ["failure", "root"])
def test_in_the_new_epoch_every_mirror_counts_again(world: World, occasion: str) -> None:
    """One was given up for what it had of the old epoch; the other has nothing of the new one."""
    world.settle()
    other = world.stack.enter_context(Mirror(ChainMap(world.first.repo.files)))
    recovery = json.dumps([world.urls[0].url])
    world.device.make(
        first_root(world.first.repo),
        # The one that is asked first, again, has nothing; or was given up, and has it.
        [other.url, world.mirror.url] if occasion == "failure" else [world.mirror.url, other.url],
        NEVER,
        recovery_root=world.anchor.newest(),
        repository=f"recovery = {recovery}",
    )
    world.re_root()
    world.mirror.files = ChainMap(
        {"metadata/2.root.json": b"{}", "metadata/timestamp.json": b"{}"}, *world.served.maps
    )
    if occasion == "root":
        new_root(world)
    else:
        del world.first.repo.files["metadata/timestamp.json"]
    said = world.say("check")
    assert said.code == 0, said.err
    assert said.json["recovery"]["occasion"] == occasion
    world.updates()


def test_a_first_start_asks_before_the_primary(world: World) -> None:
    world.re_root()
    assert world.device.run("init").code == 0
    said = world.say("check")
    assert said.json["recovery"]["occasion"] == "start"
    assert all("/e1/" in f"/{path}" for path in world.mirror.paths if "metadata" in path)
    world.updates()


# Recovery URLs


@pytest.mark.parametrize("honest", range(3))
def test_one_honest_url_among_three_suffices(world: World, honest: int) -> None:
    """One withholds, one lies, one never answers; the honest one takes the place of each."""
    assert world.device.run("init").code == 0
    world.re_root()
    withheld = {"1.root.json": world.anchor.files["1.root.json"]}
    liar = AnchorSimulator(first_root(world.first.repo), number=2)
    liar.re_root(second_publisher(9).repo)
    troubles: list[Callable[[Mirror], None]] = [
        lambda url: setattr(url, "files", withheld),
        lambda url: setattr(url, "files", liar.files),
        lambda url: setattr(url, "trouble", Trouble(silent=True)),
    ]
    for number, url in enumerate(world.urls):
        if number != honest:
            troubles[number](url)
    said = world.say("update")
    assert (said.code, said.json["recovery"]["outcome"]) == (0, "re-rooted"), said.err
    failing = {world.urls[n].url for n in (1, 2) if n != honest}
    assert set(said.json["recovery"]["failures"]) == failing
    assert world.device.run("confirm").code == 0
    assert world.epoch == 1


def test_that_no_url_answers_stops_nothing_and_is_said_before_an_install(world: World) -> None:
    assert world.device.run("init").code == 0
    for url in world.urls:
        url.trouble = Trouble(status=503)
    said = world.say("update")
    assert said.code == 0
    assert said.json["recovery"]["outcome"] == "unreachable"
    assert set(said.json["recovery"]["failures"]) == {url.url for url in world.urls}
    assert "warning: the recovery anchor could not be asked" in said.err
    assert world.device.run("confirm").code == 0
    world.first.release("1.1", 2, b"whoever's" * 100)
    # By chance, and a rule rests on it: a release is about to be written.
    world.make(ALWAYS)
    said = world.say("update")
    assert (said.code, said.json["recovery"]["occasion"]) == (0, "daily")
    (warning,) = said.json["warnings"]
    assert "the recovery anchor could not be asked" in warning
    assert said.err.count("could not be asked") == 1
    assert world.device.run("confirm").code == 0
    # By chance: noted, not told.
    world.make(ALWAYS)
    said = world.say("check")
    assert (said.code, said.json["recovery"]["outcome"]) == (0, "unreachable")
    assert "could not be asked" not in said.err


def test_no_recovery_url_is_sent_what_is_meant_for_the_mirrors(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "ca").mkdir()
    authority = make_authority(tmp_path / "ca")
    world.urls = [
        world.stack.enter_context(Mirror(world.anchor.files, authority.good)) for _ in range(2)
    ]
    world.mirror = world.stack.enter_context(Mirror(world.served, authority.good))
    (tmp_path / "header").write_text("X-Secret: of the mirrors")
    world.make(repository='credentials = "header"')
    bundle = world.device.directory / "factory" / "ca-bundle.pem"
    bundle.write_bytes(authority.bundle.read_bytes())
    world.re_root()
    said = world.say("update")
    assert (said.code, said.json["recovery"]["outcome"]) == (0, "re-rooted")
    assert "degraded" not in said.err
    artifacts = [seen for seen in world.mirror.seen if seen.path.startswith("targets/builds/")]
    assert {seen.headers["X-Secret"] for seen in artifacts} == {"of the mirrors"}
    for url in world.urls:
        assert url.seen
        assert {seen.headers["X-Secret"] for seen in url.seen} == {None}


def test_a_recovery_url_over_broken_tls_is_read_all_the_same_and_said(
    world: World, tmp_path: Path
) -> None:
    world.settle()
    (tmp_path / "ca").mkdir()
    authority = make_authority(tmp_path / "ca")
    world.urls = [world.stack.enter_context(Mirror(world.anchor.files, authority.expired))]
    world.make(ALWAYS)
    world.re_root()
    said = world.device.run("check")
    assert said.code == 0
    assert f"degraded transport: {world.urls[0].url} was read over unverified TLS" in said.err
    assert world.epoch == 1


# A thief with every key of the primary


def stolen(world: World) -> Publisher:
    """The whole primary repository of epoch 0 in a thief's hands."""
    thief = Publisher.__new__(Publisher)
    thief.repo, thief.manifest = world.first.repo.fork(), world.first.manifest
    return thief


def more_roots(thief: Publisher) -> None:
    for _ in range(3):
        thief.repo.publish("root")


def far_versions(thief: Publisher) -> None:
    below = ("gateway-stable", "gateway-stable-hold", "gateway-builds")
    for role in ("timestamp", "snapshot", "targets", *below):
        thief.repo.signed[role].version = HUGE - 10
        thief.repo.signed[role].expires = thief.repo.later(days=30_000)
    thief.repo.timestamp.unrecognized_fields[ISSUED] = thief.repo.later(days=20_000).strftime(
        SECONDS
    )
    thief.repo.root.expires = thief.repo.later(days=30_000)
    thief.repo.publish("root", "targets", *below)


def own_epoch(thief: Publisher) -> None:
    """It serves its repository where the new epoch has its own."""
    files = dict(thief.repo.files)
    for path, data in files.items():
        if path.startswith("metadata/"):
            thief.repo.files[path.replace("metadata/", "metadata/e1/")] = data
            thief.repo.files[path.replace("metadata/", "metadata/e2/")] = data


def own_announcement(thief: Publisher) -> None:
    thief.repo.timestamp.unrecognized_fields["x-firmroot-epoch"] = 0
    thief.repo.publish("timestamp")


ATTACKS = {
    "the old primary replayed": lambda _: None,
    "more roots of the old primary": more_roots,
    "versions and time pushed forward": far_versions,
    "the old primary in the place of the new one": own_epoch,
    "an announcement that nothing happened": own_announcement,
}


@pytest.mark.parametrize("lost", [False, True], ids=["store kept", "store lost"])
@pytest.mark.parametrize("sentence", ATTACKS)
def test_a_thief_with_every_primary_key_cannot_undo_it(
    world: World, sentence: str, *, lost: bool
) -> None:
    assert world.device.run("init").code == 0
    world.re_root()
    world.updates()
    thief = stolen(world)
    ATTACKS[sentence](thief)
    thief.release("6.6", HUGE, b"the thief's" * 100)
    if sentence == "the old primary in the place of the new one":
        own_epoch(thief)
    world.mirror.files = thief.repo.files
    if lost:
        lost_store(world)
        assert world.device.run("init").code == 0, "with the old image's factory"
        assert world.epoch == 0
    before = world.state.trust
    for command in ("check", "update", "check"):
        said = world.device.run(command)
        assert said.code in {4, 6}, said.out
        assert world.epoch == 1
        assert b"the thief's" not in world.device.slot("A") + world.device.slot("B")
        if not lost:
            assert world.state.trust == before
    world.mirror.files = world.served
    world.device.run("update")
    assert world.device.run("check").code == 0
    if lost:
        world.device.run("confirm")
    assert "2.0 is installed" in world.device.run("check").out


def test_what_the_thief_did_before_is_forgotten(world: World) -> None:
    """Versions, time and sequence were pushed to the end on a device that trusted the thief."""
    world.settle()
    thief = stolen(world)
    far_versions(thief)
    thief.release("6.6", HUGE, b"the thief's" * 100)
    world.mirror.files = thief.repo.files
    for command in ("update", "confirm", "check"):
        assert world.device.run(command).code == 0
    state = world.state
    assert state.install.confirmed_sequence == HUGE
    assert state.trust.time_floor > NOW.timestamp() + 10_000 * 86_400
    world.mirror.files = world.served
    world.re_root(gateway=4)
    # Nothing in the old repository says so: the lot must fall on this check.
    world.make(ALWAYS)
    assert "re-rooted" in world.device.run("check").err
    state = world.state
    assert (state.trust.time_floor, state.trust.factory_floor) == (0, 0)
    assert state.install.confirmed_sequence == 4
    world.updates()
    assert world.state.install.confirmed_sequence == 5


def test_a_trial_of_an_ended_epoch_does_not_raise_the_floor_of_this_one(world: World) -> None:
    world.settle()
    thief = stolen(world)
    thief.release("6.6", HUGE, b"the thief's" * 100)
    world.mirror.files = thief.repo.files
    assert world.device.run("update").code == 0
    world.re_root(gateway=4)
    world.mirror.files = world.served
    world.make(ALWAYS)
    assert world.say("check").json["recovery"]["outcome"] == "re-rooted"
    assert world.device.run("confirm").code == 0
    assert world.state.install.confirmed_sequence == 4
    world.updates()


def test_a_device_that_runs_what_the_new_epoch_lists_has_nothing_to_do(world: World) -> None:
    world.settle()
    artifact = world.second.release("1.0", 3, OLD)
    assert artifact.sequence == 3
    world.served.maps.append(world.second.repo.files)
    world.anchor.re_root(world.second.repo)
    world.make(ALWAYS)
    said = world.device.run("check")
    assert "re-rooted" in said.err
    assert "no update: 1.0 is installed" in said.out
    world.second.release("2.0", 5, NEWER)
    world.updates()


# Images and boots


def test_no_image_takes_a_device_to_an_older_epoch(world: World) -> None:
    world.settle()
    world.re_root()
    world.make(ALWAYS)
    assert world.device.run("update").code == 0
    state = world.state
    # The trial is rolled back: the image of the old epoch runs again.
    again = world.device.run("init")
    assert (again.code, "nothing changed" in again.out) == (0, True)
    assert world.device.run("reject").code == 0
    for _ in range(2):
        assert world.device.run("init").code == 0
        world.device.run("check")
        assert (world.epoch, world.state.trust.recovery_version) == (1, 2)
    assert world.state.trust.root == state.trust.root
    # An image of epoch 0 that was built later is no other chain either.
    world.first.repo.publish("root")
    later = world.first.repo.files["metadata/2.root.json"]
    (world.device.directory / "factory" / "root.json").write_bytes(later)
    assert world.device.run("init").code == 0
    assert world.epoch == 1


def test_an_image_of_the_new_epoch_starts_in_it(world: World) -> None:
    world.re_root(gateway=5)
    world.second.repo.publish("root")
    world.device.make(
        world.second.repo.files["metadata/e1/2.root.json"],
        [world.mirror.url],
        NEVER,
        recovery_root=world.anchor.newest(),
        epoch=1,
        repository=f"recovery = {json.dumps([world.urls[0].url])}",
    )
    assert world.device.run("init").code == 0
    world.updates()
    assert not [path for path in world.mirror.paths if path.startswith("metadata/1.")]
    assert (world.state.trust.recovery_version, world.state.trust.root_version) == (2, 2)


def test_an_image_of_another_chain_is_refused_as_before(world: World) -> None:
    world.settle()
    stranger = Publisher(RepositorySimulator(epoch=7)).repo
    (world.device.directory / "factory" / "root.json").write_bytes(first_root(stranger))
    (world.device.directory / "factory" / "recovery-root.json").unlink()
    assert world.device.run("init").code == 2


# What cannot be followed


def test_two_roots_for_one_epoch_are_said_loudly_and_the_device_goes_on(world: World) -> None:
    world.settle()
    forked = world.anchor.fork()
    forked.re_root(second_publisher(9).repo)
    world.re_root()
    world.urls[1].files = forked.files
    world.first.release("1.1", 2, b"honest, of epoch 0" * 50)
    said = world.say("update")
    assert (said.code, said.json["image"]["version"]) == (0, "1.1")
    assert said.json["recovery"]["outcome"] == "forked"
    assert "the recovery anchor names two primary roots for epoch 1" in said.err
    assert world.device.run("confirm").code == 0
    assert (world.epoch, world.state.trust.recovery_version) == (0, 1)
    # Who looks later is told too, with the network gone as well.
    fork = world.say("status").json["recovery_fork"]
    assert "the recovery anchor names two primary roots for epoch 1: " in fork
    assert "tell the holders of the recovery keys" in fork
    shown = world.device.run("status").out
    assert f"asked at 3 URL(s), forked\n           {fork}\n" in shown
    assert "names two primary roots for epoch 1" in world.device.run("doctor").out
    world.urls[1].trouble = Trouble(status=503)
    doctor = world.device.run("doctor").out
    assert f"when an update asked last, with more answers than now: {fork}\n" in doctor
    world.urls[1].trouble = Trouble(times=0)
    # No news are not written.
    note = world.device.directory / "cache" / "recovery.json"
    written = note.stat().st_mtime_ns
    world.make(ALWAYS)
    assert world.say("check").json["recovery"]["outcome"] == "forked"
    assert note.stat().st_mtime_ns == written
    world.urls[1].files = world.anchor.files
    assert world.say("check").json["recovery"]["outcome"] == "re-rooted"
    assert world.say("status").json["recovery_fork"] is None
    assert ", forked" not in world.device.run("status").out
    assert "asked last" not in world.device.run("doctor").out
    world.make(ALWAYS)
    world.updates()


def test_until_the_new_root_can_be_had_nothing_changes_and_nothing_is_installed(
    world: World,
) -> None:
    world.settle()
    world.first.release("1.1", 2, b"of the old epoch" * 100)
    assert world.device.run("check").code == 0
    world.re_root()
    hidden = world.second.repo.files.pop("metadata/e1/1.root.json")
    assert world.anchor.files.pop("e1/1.root.json") == hidden
    before, slots = world.state, [world.device.slot(name) for name in ("A", "B")]
    refused = world.device.run("update")
    assert refused.code == 4
    assert "has ended epoch 0, and the first root of epoch 1 cannot be had" in refused.err
    world.make(ALWAYS)
    assert world.device.run("check").code == 4
    assert world.state == before
    assert [world.device.slot(name) for name in ("A", "B")] == slots
    world.served["metadata/e1/1.root.json"] = hidden
    world.updates()


# Clocks


@pytest.mark.parametrize("now", ["1970-01-01T00:00:00Z", "2106-02-07T06:28:15Z"])
def test_the_anchor_works_at_any_time(world: World, now: str) -> None:
    world.anchor = AnchorSimulator(first_root(world.first.repo), now=NOW)
    world.anchor.root.expires = NOW.replace(year=1999)
    world.anchor.write("root")
    for url in world.urls:
        url.files = world.anchor.files
    world.make()
    assert world.device.run("init").code == 0
    world.re_root()
    world.device.now = now
    said = world.device.run("check")
    assert "re-rooted this device" in said.err
    assert world.epoch == 1
    # What the new primary signed has ended by 2106, and a clock of 1970 proves nothing.
    assert said.code == (6 if now > "2100" else 0)
    world.device.now = "2031-05-14T12:00:00Z"
    world.updates()


def test_several_epochs_at_once(world: World) -> None:
    world.settle()
    world.anchor.renew()
    world.re_root()
    third = second_publisher(2)
    third.release("3.0", 7, NEWER[::-1])
    world.served.maps.append(third.repo.files)
    world.anchor.renew()
    world.anchor.re_root(third.repo, gateway=6)
    world.make(ALWAYS)
    said = world.say("update")
    assert (said.code, said.json["image"]["version"]) == (0, "3.0")
    assert said.json["recovery"]["epoch"] == 2
    assert world.device.run("confirm").code == 0
    assert (world.epoch, world.state.install.confirmed_sequence) == (2, 7)


def test_a_store_that_was_lost_during_the_trial_after_a_re_root(world: World) -> None:
    world.settle()
    world.re_root()
    world.make(ALWAYS)
    assert "runs on trial in slot A" in world.device.run("update").out
    for name in ("a.db", "b.db"):
        with (world.device.directory / "state" / name).open("r+b") as file:
            file.truncate(1000)
    for command in ("update", "confirm"):
        refused = world.device.run(command)
        assert (refused.code, "slot A is on trial" in refused.err) == (5, True)
    assert "given up" in world.device.run("reject").out
    world.updates()


def test_nothing_else_that_the_old_primary_had_believed_outlives_its_epoch(world: World) -> None:
    """Attack: its CA would hear the credentials; its sequence resets would hide the new ones."""
    world.settle()
    bundle = world.device.directory / "state/ca-bundle.pem"
    bundle.write_bytes(b"the thief's authority")
    with SqliteStore(world.device.directory / "state") as store:
        state = store.load()
        assert state is not None
        store.commit(state.with_install(replace(state.install, reset=50)))
    world.first.release("1.1", 2, NEWER)
    world.re_root()
    assert world.device.run("update").code == 0
    assert world.epoch == 1
    assert not bundle.exists()
    assert world.state.install.reset == 0
    assert world.device.run("reject").code == 0
