"""The stage of every attack: an honest repository, a device that follows it, and a thief.

The repository has the thresholds that the policy asks for (two of three for root, targets, the
channel and device-tls) and three states, an hour apart:

    FIRST   1.0 is the newest release
    SEEN    1.1; the device has installed and confirmed it, and knows everything up to here
    LATEST  1.2; the device has not seen it yet

An attack changes what the mirror serves. Its thief is a copy of the repository in which only the
keys that the row says were stolen can sign, so that no row can claim less than it uses. `drive`
runs the row: the attack, what must still be true, and then the honest update to 1.9, which is the
same for every row, since a device that refuses everything is no device.
"""

from __future__ import annotations

import copy
import enum
import itertools
import json
import shutil
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from io import StringIO
from typing import TYPE_CHECKING, Any, Self, TypeVar

from securesystemslib.formats import encode_canonical

from client_reference import cli, terminal, update, wiring
from client_reference.errors import ExitCode, FirmrootError
from client_reference.install import handlers
from client_reference.manifest import Payload, Release, serialize
from client_reference.payload.segments import SEGMENT
from client_reference.transport.fetch import Ambient
from tests.simulators.anchor import AnchorSimulator
from tests.simulators.device import DeviceOnDisk, Output, Publisher
from tests.simulators.mirror import Mirror, Trouble
from tests.simulators.repository import RepositorySimulator
from tests.simulators.servers import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import pytest

    from client_reference.install.handlers import Installer
    from client_reference.selection import Reason

__all__ = [
    "Attack",
    "Back",
    "Ending",
    "Scene",
    "attack_half",
    "drive",
    "first_device",
    "honest_half",
    "later_the_same_year",
]

R = TypeVar("R", bound=RepositorySimulator)

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
NOW = datetime(2031, 5, 14, 12, 0, 0, tzinfo=UTC)
TIME = "%Y-%m-%dT%H:%M:%SZ"
ISSUED = "x-firmroot-issued"
STABLE = "gateway-stable"
BUILDS = "gateway-builds"
HOLD = "gateway-stable-hold"
TLS = "device-tls"
STATUS = "status.json"
STRANGERS = 100_000
"""Keys from this number on belong to no honest party."""


def _image(seed: int) -> bytes:
    """One segment and a little of the next."""
    return bytes([seed]) * SEGMENT + bytes([seed + 1]) * 17


IMAGES = {"1.0": _image(10), "1.1": _image(11), "1.2": _image(12), "1.9": _image(19)}
EVIL = _image(66)


def later_the_same_year(scene: Scene) -> None:
    """Time passes until the online metadata of `LATEST` have expired."""
    scene.device.now = "2031-07-01T00:00:00Z"


class Ending(enum.Enum):
    """What the device does about an attack."""

    REFUSES = "refuses"
    """It says what is wrong and changes nothing."""
    WAITS = "installs nothing"
    """All that it saw verifies, and none of it lets it start a release."""
    UNHARMED = "installs the honest release"
    """The attack has no effect on what is installed."""
    FALLS = "**installs it**"
    """Whoever has so many keys is, for the device, the publisher."""


@dataclass(frozen=True)
class Back:
    """How the fleet gets back to normal.

    Attributes:
        by: for the table.
        step: what the honest people do first; then they publish 1.9.
    """

    by: str
    step: Callable[[Scene], None] = lambda _: None


@dataclass(frozen=True)
class Attack:
    """One row of the table.

    Attributes:
        id: stable.
        name: what is attacked, and how.
        source: who names it: a clause of TUF, Uptane, or a section of the design.
        keys: what was stolen: a role for all of its keys, `role:1` for one of them.
        means: what else the attacker has.
        mutate: does it.
        ending: what becomes of it.
        error: the class of the refusal; its exit code is that of the command.
        reason: why the device waits, if it does.
        says: part of what is said, on standard output or standard error.
        back: see there.
        writes: whether bytes that the thief signed reach the slot that is not in use.
    """

    id: str
    name: str
    source: str
    keys: tuple[str, ...]
    means: str
    mutate: Callable[[Scene], None]
    ending: Ending
    error: type[FirmrootError] | None
    reason: Reason | None
    says: str
    back: Back
    writes: bool = False

    @property
    def code(self) -> ExitCode:
        """How `firmroot-device update` exits."""
        return ExitCode.DONE if self.error is None else self.error.exit_code


@dataclass
class _World:
    """An honest repository and what it served at each state."""

    publisher: Publisher
    first: dict[str, bytes] = field(default_factory=dict)
    seen: dict[str, bytes] = field(default_factory=dict)

    @property
    def repo(self) -> RepositorySimulator:
        return self.publisher.repo


@lru_cache(maxsize=1)
def _world() -> _World:
    publisher = Publisher()
    repo = publisher.repo
    assert repo.targets.delegations is not None
    assert repo.targets.delegations.roles is not None
    for role in ("root", "targets"):
        _two_of_three(repo, role)
        repo.root.roles[role].threshold = 2
    _two_of_three(repo, STABLE)
    repo.targets.delegations.roles[STABLE].threshold = 2
    repo.delegate(TLS, ["trust/ca-bundle.pem"], threshold=2, keys=3)
    repo.publish("root")
    repo.publish(STABLE, TLS, "targets")
    world = _World(publisher)
    _release(publisher, "1.0", 1, NOW - 3 * HOUR)
    world.first = dict(repo.files)
    repo.publish("targets")
    _release(publisher, "1.1", 2, NOW - 2 * HOUR)
    world.seen = dict(repo.files)
    repo.publish("targets")
    _release(publisher, "1.2", 3, NOW - HOUR)
    return world


def _two_of_three(repo: RepositorySimulator, role: str) -> None:
    for _ in range(2):
        repo.add_key(role, "targets")


def _release(publisher: Publisher, version: str, sequence: int, time: datetime) -> None:
    stamp(publisher.repo, time)
    publisher.release(version, sequence, IMAGES[version])


@lru_cache(maxsize=1)
def _second() -> Publisher:
    """The primary of epoch 1, for a device whose first root is lost or stolen."""
    publisher = Publisher(RepositorySimulator(epoch=1))
    _release(publisher, "1.2", 3, NOW - HOUR)
    return publisher


@lru_cache(maxsize=1)
def _anchor() -> AnchorSimulator:
    return AnchorSimulator(_world().repo.files["metadata/1.root.json"], now=NOW)


def stamp(repo: RepositorySimulator, time: datetime) -> None:
    """What the publisher's next timestamp says of the time, the roots and its own end."""
    fields = repo.timestamp.unrecognized_fields
    fields[ISSUED] = time.strftime(TIME)
    fields["x-firmroot-root"] = repo.root.version
    fields["x-firmroot-epoch"] = repo.epoch
    for role in (repo.timestamp, repo.snapshot):
        role.expires = time + 30 * DAY


class _Recording:
    """An installer that notes every byte that it is given, in front of the real one."""

    def __init__(self, real: Installer, writes: list[tuple[int, bytes]]) -> None:
        self._real = real
        self._writes = writes

    def write(self, offset: int, data: bytes) -> None:
        self._writes.append((offset, data))
        self._real.write(offset, data)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 # whatever the real one has
        return getattr(self._real, name)


def first_device(directory: Path) -> Path:
    """The files of a device that has installed and confirmed 1.1; every scene has a copy."""
    world = _world()
    device = DeviceOnDisk(directory, _Nothing(), NOW.strftime(TIME))  # type: ignore[arg-type] # as much as it needs
    with Mirror(world.seen) as mirror, redirect_stderr(StringIO()) as complaints:
        device.make(world.repo.files["metadata/2.root.json"], [mirror.url])
        for command in ("init", "update", "confirm"):
            with redirect_stdout(StringIO()):
                assert device.run(command).code == 0, complaints.getvalue()
        with redirect_stdout(StringIO()) as said:
            device.run("status", before=("--json",))
    (directory / STATUS).write_text(said.getvalue())
    return directory


class _Nothing:
    """Stands for the capture of a test before there is one."""

    def readouterr(self) -> Output:
        return Output(0, "", "")


class Scene:
    """One attack on one device. What a row's mutation and way back may use.

    Attributes:
        honest: the publisher, who has every key.
        device: at its command line.
        mirror: serves the thief's files, once there are any.
        handler: how the device installs.
        evil: what the thief would like to run everywhere.
        caught: the class of the error that the last command ended with.
        results: what updates came to.
        writes: what reached the installer.
        anchor: the honest recovery anchor, of a scene that is `anchored`.
        urls: its recovery URLs, each a mirror.
        rivals: publishers of a new epoch that nobody follows yet.
        afterwards: what must be true besides, once the device has met the attack.
        forgotten: roles whose versions an honest cut has the device forget.
    """

    def __init__(
        self,
        attack: Attack,
        base: Path,
        directory: Path,
        capture: pytest.CaptureFixture[str],
        patch: pytest.MonkeyPatch,
    ) -> None:
        world = _world()
        self.attack = attack
        self.first: Mapping[str, bytes] = world.first
        self.seen: Mapping[str, bytes] = world.seen
        self.factory = world.repo.files["metadata/2.root.json"]
        self.honest = copy.copy(world.publisher)
        self.honest.repo = world.repo.fork()
        self.directory = directory
        self.patch = patch
        self.handler = "slot"
        self.evil = EVIL
        self.caught: type[BaseException] | None = None
        self.results: list[update.Result] = []
        self.writes: list[tuple[int, bytes]] = []
        self.moved = False
        self.anchor: AnchorSimulator | None = None
        self.urls: list[Mirror] = []
        self.rivals: list[Publisher] = []
        self.afterwards: Callable[[], None] = lambda: None
        self.forgotten: tuple[str, ...] = ()
        self._thief: Publisher | None = None
        self._stack = ExitStack()
        shutil.copytree(base, directory, dirs_exist_ok=True)
        self.device = DeviceOnDisk(directory, capture, NOW.strftime(TIME))

    def __enter__(self) -> Self:
        self.mirror = self.another_mirror(self.honest.repo.files)
        self.configure()
        self._observe()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # What happened

    def _observe(self) -> None:
        """Note what the command line does not say: classes of errors, decisions, writes."""
        failure, updated, opened = terminal.failure_of, update.update, handlers.open_installer

        def on_failure(error: BaseException) -> Any:  # noqa: ANN401 # what the real one gives
            self.caught = type(error)
            return failure(error)

        def on_update(*given: Any) -> update.Result:  # noqa: ANN401 # as the real one
            result = updated(*given)
            self.results.append(result)
            return result

        def on_open(*given: Any) -> Any:  # noqa: ANN401 # likewise
            return _Recording(opened(*given), self.writes)

        self.patch.setattr(cli, "failure_of", on_failure)
        self.patch.setattr(update, "update", on_update)
        self.patch.setattr(wiring, "open_installer", on_open)

    def ambient(self, monotonic: Callable[[], float]) -> None:
        """The device waits for nobody in earnest, and measures time with this."""
        self.device.ambient = Ambient(monotonic, lambda _: None, lambda: 0.5)

    def run(self, *arguments: str) -> Output:
        """One command of the device."""
        self.caught = None
        self.moved = True
        said = self.device.run(*arguments)
        for text in (said.out, said.err):
            # Whatever the attack, nobody repaints the screen of who reads about it.
            assert all(each.isprintable() or each == "\n" for each in text), repr(text)
        return said

    def status(self) -> dict[str, Any]:
        """What the device says about itself."""
        if not self.moved:
            first: dict[str, Any] = json.loads((self.directory / STATUS).read_text())
            return first
        return self.device.run("status", before=("--json",)).json

    # The device and the network

    def configure(self, *first: Mirror, **sections: str) -> None:
        """Write the device's configuration anew: mirrors to ask before the usual one, lines."""
        urls = [mirror.url for mirror in (*first, self.mirror)]
        recovery_root = None
        if self.anchor is not None:
            recovery_root = self.anchor.files["1.root.json"]
            recovery = json.dumps([url.url for url in self.urls])
            sections["repository"] = f"recovery = {recovery}\n{sections.get('repository', '')}"
        # The lot falls on no cycle: an anchor is asked where a rule says so.
        extra = "" if self.anchor is None else '[check]\nevery = "0s"\n'
        self.device.make(
            self.factory, urls, extra, recovery_root=recovery_root, epoch=0, **sections
        )

    def use_command(self) -> None:
        """Another device: new from the factory, it installs with a command that copies."""
        shutil.rmtree(self.directory / "state")
        program = self.directory / "install"
        program.write_text(f'#!/bin/sh\ncp "$1" {self.directory}/installed\n')
        program.chmod(0o755)
        self.handler = "command"
        run = f'[install.command]\nrun = ["{program}", "{{path}}"]'
        self.configure(install=f'handler = "command"\nreboot = "ask"\n{run}')
        assert self.run("init").code == 0

    def another_mirror(self, files: Mapping[str, bytes]) -> Mirror:
        """One more server, until the end of the scene."""
        return self._stack.enter_context(Mirror(files))

    def through_a_proxy(self) -> Proxy:
        """From now on the device asks its mirror through a proxy, and knows no other way."""
        proxy = self._stack.enter_context(Proxy({"mirror.example": self.mirror}))
        self.configure(tls=f'proxy = "http://127.0.0.1:{proxy.port}"')
        text = self.device.config.read_text()
        self.device.config.write_text(text.replace(self.mirror.url, "http://mirror.example/"))
        return proxy

    def serve(self, files: Mapping[str, bytes]) -> None:
        """Let the mirror serve these files."""
        self.mirror.files = files

    def trouble(self, path: str = "", **how: Any) -> None:  # noqa: ANN401 # fields of Trouble
        """Let the mirror do this to every path that ends so."""
        self.mirror.trouble = Trouble(path=path, **how)

    # The recovery anchor

    def anchored(self, urls: int = 1) -> AnchorSimulator:
        """Give the device a recovery anchor, with so many recovery URLs."""
        self.anchor = _anchor().fork()
        self.urls = [self.another_mirror(self.anchor.files) for _ in range(urls)]
        self.configure()
        return self.anchor

    def re_root(self, minimum: int | None = None) -> Publisher:
        """The holders of the recovery keys begin epoch 1; `follow` makes it the honest one.

        Args:
            minimum: sequence, what the device has confirmed if not given.
        """
        assert self.anchor is not None
        second = copy.copy(_second())
        second.repo = second.repo.fork()
        floor = self.status()["confirmed_sequence"] if minimum is None else minimum
        self.anchor.re_root(second.repo, gateway=floor)
        return second

    def follow(self, publisher: Publisher) -> None:
        """From now on this publisher is the honest one; who serves it is another matter."""
        self.honest = publisher

    def serve_anchor(self) -> None:
        """Every recovery URL is honest again."""
        assert self.anchor is not None
        for url in self.urls:
            url.files = self.anchor.files

    @property
    def stolen_anchor(self) -> AnchorSimulator:
        """A copy of the anchor in which only the stolen keys of `recovery` sign."""
        assert self.anchor is not None
        keys = (key for key in self.attack.keys if key.startswith("recovery"))
        return thieved(self.anchor, tuple(key.replace("recovery", "root") for key in keys))

    # The thief

    @property
    def thief(self) -> Publisher:
        """A copy of the honest repository in which only stolen keys sign; the mirror serves it."""
        if self._thief is None:
            self._thief = copy.copy(self.honest)
            self._thief.repo = thieved(self.honest.repo, self.attack.keys)
            self.serve(self._thief.repo.files)
        return self._thief

    @property
    def stolen(self) -> RepositorySimulator:
        """The thief's repository."""
        return self.thief.repo

    def place_of(self, version: str, suffix: str = ".img") -> str:
        """Where an artifact of a release is served."""
        (place,) = (
            path
            for path in self.honest.repo.files
            if f"/{version}/" in path and path.endswith(suffix)
        )
        return place

    def manifest(self, data: bytes) -> None:
        """The thief lets the channel say this, and publishes it."""
        self.stolen.add_target(STABLE, "channels/gateway/stable.json", data)
        self.stolen.publish(STABLE)

    def offer(self, edit: Callable[[Release], Release], **changes: Any) -> None:  # noqa: ANN401 # fields of the manifest
        """The thief offers the newest release in another form."""
        manifest = self.thief.manifest
        *before, newest = manifest.releases
        changed = replace(manifest, releases=(*before, edit(newest)), **changes)
        self.manifest(serialize(changed))

    def sign_document(self, role: str, signed: Mapping[str, Any]) -> bytes:
        """Metadata that no library would write, with the signatures of the thief's keys."""
        payload = encode_canonical(dict(signed)).encode()  # type: ignore[union-attr] # None only with a callback
        signatures = [
            signer.sign(payload).to_dict() for signer in self.stolen.signers[role].values()
        ]
        data = json.dumps({"signatures": signatures, "signed": signed}).encode()
        self.stolen.files[self.stolen.location(role)] = data
        self.stolen.note(role, data)
        return data


def thieved(repo: R, keys: tuple[str, ...]) -> R:
    """A copy in which only these keys sign."""
    stolen = repo.fork()
    stolen._key_count += STRANGERS
    counts = dict(key.partition(":")[::2] for key in keys)
    stolen.signers = {
        role: dict(itertools.islice(signers.items(), int(counts[role] or len(signers))))
        if role in counts
        else {}
        for role, signers in repo.signers.items()
    }
    return stolen


def drive(scene: Scene) -> None:
    """Play a row: the attack, what must be true after it, and the honest update."""
    attack_half(scene)
    honest_half(scene)


def attack_half(scene: Scene) -> Output:
    """The attack and what the device makes of it."""
    attack = scene.attack
    attack.mutate(scene)
    before = scene.status()
    said = scene.run("update")
    assert (said.code, scene.caught) == (attack.code, attack.error), said.out + said.err
    assert attack.says in said.out + said.err, said.out + said.err
    if attack.error is not None:
        assert "\nhint: " in said.err, f"a refusal that says not what to do: {said.err}"
    scene.afterwards()
    after = scene.status()
    _nothing_went_back(before, after, scene.forgotten)
    if attack.ending is Ending.WAITS:
        (result,) = scene.results
        assert result.image is None
        assert result.checked is not None
        assert getattr(result.checked.decision, "reason", None) is attack.reason
    if attack.ending in {Ending.UNHARMED, Ending.FALLS}:
        honest = attack.ending is Ending.UNHARMED
        assert after["phase"] == "trial"
        image = IMAGES["1.2"] if honest else scene.evil
        _runs(scene, after["candidate"]["slot"], after["running"], image)
        scene.device.restart()
        assert scene.run("confirm" if honest else "reject").code == 0
    else:
        _nothing_changed(scene, before, after)
    _only_verified_bytes_were_written(scene)
    return said


def honest_half(scene: Scene) -> None:
    """The honest people act, and the device follows them at once."""
    scene.mirror.trouble = Trouble(times=0)
    scene.attack.back.step(scene)
    repo = scene.honest.repo
    # The publisher's clock is right, whatever became of the device's.
    stamp(repo, max(NOW, datetime.strptime(scene.device.now, TIME).replace(tzinfo=UTC)))
    scene.honest.release("1.9", 9, IMAGES["1.9"], _for_handler(scene), handler=scene.handler)
    scene.serve(repo.files)
    said = scene.run("update")
    assert said.code == 0, said.err
    assert "1.9 (sequence 9)" in said.out, said.out + said.err
    scene.device.restart()
    confirmed = scene.run("confirm")
    assert confirmed.code == 0, confirmed.err
    status = scene.status()
    _runs(scene, status["installed"]["slot"], status["running"], IMAGES["1.9"])
    assert status["installed"]["version"] == "1.9"
    assert status["confirmed_sequence"] == 9
    assert status["roles"]["timestamp"]["version"] == repo.timestamp.version


def _for_handler(scene: Scene) -> Callable[[Release], Release]:
    def edit(release: Release) -> Release:
        payloads: tuple[Payload, ...] = tuple(
            replace(payload, handler=scene.handler) for payload in release.payloads
        )
        return replace(release, payloads=payloads)

    return edit


def _nothing_went_back(
    before: dict[str, Any], after: dict[str, Any], forgotten: tuple[str, ...]
) -> None:
    assert after["epoch"] >= before["epoch"]
    if after["epoch"] > before["epoch"]:
        return  # whoever had the old keys pushed forward what they liked: nothing of it counts
    followed = after["roles"]["root"]["version"] > before["roles"]["root"]["version"]
    for role, trusted in before["roles"].items():
        if followed and role in forgotten:
            continue
        if role in after["roles"] or not followed:
            assert after["roles"][role]["version"] >= trusted["version"], role
    assert after["confirmed_sequence"] >= before["confirmed_sequence"]
    if not followed:
        assert after["time_floor"] >= before["time_floor"]


def _nothing_changed(scene: Scene, before: dict[str, Any], after: dict[str, Any]) -> None:
    for what in ("installed", "running", "confirmed_sequence", "rejected"):
        assert after[what] == before[what], what
    assert after["phase"] in {before["phase"], "idle", "writing"}
    if scene.handler == "command":
        assert not (scene.directory / "installed").exists()
    else:
        assert scene.device.slot(after["running"]) == IMAGES["1.1"]
        record = json.loads((scene.device.directory / "slots" / "boot.json").read_bytes())
        assert (record["running"], record["primary"]) == ("B", "B")
        assert not record.get("trial")


def _runs(scene: Scene, slot: str, running: str, image: bytes) -> None:
    assert slot == running
    if scene.handler == "slot":
        assert scene.device.slot(running) == image
    else:
        assert (scene.directory / "installed").read_bytes() == image


def _only_verified_bytes_were_written(scene: Scene) -> None:
    allowed = [*IMAGES.values()]
    if scene.attack.ending is Ending.FALLS or scene.attack.writes:
        allowed.append(scene.evil)
    for offset, data in scene.writes:
        assert any(image[offset : offset + len(data)] == data for image in allowed), offset
