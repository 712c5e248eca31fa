"""The story, scene by scene: from a firmware file to a device that outlives its certificates.

Each scene is a function of the stage; `tell` is the order. A scene ends with statements that are
held against what really happened (`Stage.insist`).
"""

from __future__ import annotations

import hashlib
import random
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from client_reference.errors import ConfigurationError
from repo_tools.demo.network import Network
from repo_tools.demo.stage import Stage
from repo_tools.demo.thief import Thief
from repo_tools.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

__all__ = ["tell"]

MADE_LENGTH = 3_500_000  # bytes of a firmware image that the demo makes itself
SECTOR = 512  # bytes; the unit in which a dying disk tears
YEARS_ON_THE_SHELF = 6
ROTATIONS = 3  # in these years; after each, a release
AFTER_THE_LOSS = 2  # version of the root without the lost key


@dataclass(frozen=True)
class Scenery:
    """What every scene needs.

    Attributes:
        stage: runs and shows commands.
        network: the mirror that the devices are configured with.
        firmware: file names beside the workspace, one per release of the story.
    """

    stage: Stage
    network: Network
    firmware: Sequence[str]

    @property
    def repository(self) -> Path:
        """Where the workspace publishes to."""
        return self.stage.directory / "acme" / "repository"

    def workspace(self) -> Workspace:
        """The workspace as it is now."""
        return Workspace.open(self.stage.directory / "acme")

    def mirror(self, name: str) -> Path:
        """A copy of the repository that somebody else controls."""
        copy = self.stage.directory / name
        shutil.copytree(self.repository, copy)
        return copy

    def release(self, version: str, *, quiet: bool = False) -> None:
        """Add, promote, sign and publish the next firmware file."""
        self.promote(version, quiet=quiet)
        self.stage.firmroot("sign", quiet=quiet)
        self.stage.firmroot("publish", quiet=quiet)

    def promote(self, version: str, *, quiet: bool = False) -> None:
        """Add and promote the next firmware file; it then waits for two release managers."""
        image = self.firmware[int(version.rpartition(".")[2]) % len(self.firmware)]
        add = f"firmware add ../{image} -p gateway -V {version} --hardware acme,gw-2"
        self.stage.firmroot(add, quiet=quiet)
        self.stage.firmroot(f"channel promote gateway@{version} --to stable", quiet=quiet)


def tell(directory: Path, images: Sequence[Path], now: datetime) -> int:
    """Tell the whole story.

    Args:
        directory: empty; everything is made in it.
        images: none, or two firmware files of the user.
        now: aware UTC time at which the story begins.

    Returns:
        how many statements of the story were checked.

    Raises:
        ConfigurationError: a firmware file cannot be read, is empty, or is given twice.
        StoryError: something went otherwise than told.
    """
    _check_firmware(images)
    firmware = _firmware(directory, images)
    stage = Stage(directory, now)
    acme = directory / "acme"
    with Network(acme / "repository", acme / "recovery") as network:
        scenery = Scenery(stage, network, firmware)
        for scene in (
            _repository,
            _first_release,
            _second_release,
            _stolen_build_key,
            _usurped_channel,
            _tampering_mirror,
            _lost_root_key,
            _six_years,
            _expired_root,
            _power_cut,
            _stolen_root,
        ):
            scene(scenery)
    return stage.checks


def _check_firmware(images: Sequence[Path]) -> None:
    """Two files that a device can tell apart; or the story is of updates that do not happen."""
    files = 'give two files: make demo FIRMWARE="old.img new.img"'
    seen: dict[str, Path] = {}
    for image in images:
        try:
            with image.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                length = file.tell()
        except OSError as error:
            raise ConfigurationError(
                f"the firmware file {image} cannot be read: {error.strerror}", files
            ) from error
        if not length:
            raise ConfigurationError(f"the firmware file {image} is empty", files)
        if digest in seen:
            raise ConfigurationError(
                f"{seen[digest]} and {image} have the same content, expected an old and a new "
                "firmware: nothing could be updated",
                files,
            )
        seen[digest] = image


def _firmware(directory: Path, images: Sequence[Path]) -> list[str]:
    names = []
    for number, image in enumerate(images):
        name = (
            f"{number}-{image.name}" if len({i.name for i in images}) < len(images) else image.name
        )
        try:
            shutil.copyfile(image, directory / name)
        except OSError as error:
            raise ConfigurationError(
                f"the firmware file {image} cannot be read: {error.strerror}",
                'give two files: make demo FIRMWARE="old.img new.img"',
            ) from error
        names.append(name)
    if not names:
        seed = random.Random(1970)  # noqa: S311  made-up firmware, the same every time
        base = bytearray(seed.randbytes(MADE_LENGTH))
        for number in range(ROTATIONS + 4):
            start = seed.randrange(MADE_LENGTH // 2)
            base[start : start + MADE_LENGTH // 4] = seed.randbytes(MADE_LENGTH // 4)
            names.append(f"gateway-{number}.img")
            (directory / names[-1]).write_bytes(base)
    return names


def _repository(scenery: Scenery) -> None:
    stage = scenery.stage
    stage.scene(
        "A repository, 2 of 3 keys",
        "Alice, Bob and Carol hold the root: any two of them decide. Releases are decided by two",
        "of Rita, Sam and Tess. The build server and the publisher have keys that decide nothing.",
        "Noor, Otto and Pia hold the recovery anchor, and are not needed for a long time.",
    )
    stage.firmroot("init acme --lab", place=".")
    stage.firmroot("product add gateway --hardware acme,gw-2")
    stage.firmroot("anchor init")
    root = scenery.workspace().newest_root()
    stage.insist(
        root is not None
        and (root.roles["root"].threshold, len(root.roles["root"].keyids)) == (2, 3),
        "root needs two signatures of three keys",
    )


def _first_release(scenery: Scenery) -> None:
    stage = scenery.stage
    stage.scene(
        "Firmware 1.0, published and installed",
        "The publish is rehearsed with the device's own code before anything is visible.",
    )
    scenery.release("1.0")
    stage.firmroot("anchor publish")
    stage.firmroot(f"factory export gateway --to ../device --server {scenery.network.url}")
    shutil.copytree(stage.directory / "device", stage.directory / "shelf")
    stage.device("init")
    stage.device("update")
    stage.device("confirm")
    stage.insist(stage.status()["installed"]["version"] == "1.0", "the device runs 1.0, confirmed")


def _second_release(scenery: Scenery) -> None:
    stage = scenery.stage
    stage.scene("Firmware 1.1, promoted with two signatures and installed")
    scenery.release("1.1")
    stage.device("update")
    stage.device("confirm")
    stage.insist(stage.status()["installed"]["version"] == "1.1", "the device runs 1.1, confirmed")


def _stolen_build_key(scenery: Scenery) -> None:
    stage = scenery.stage
    stage.scene(
        "Attack: the build server's key is stolen",
        "The thief signs other bytes for 1.1 with it, and the publisher publishes them unaware.",
        "Another device, fresh from the factory, meets that mirror.",
    )
    image = scenery.firmware[1 % len(scenery.firmware)]
    victim = stage.directory / "neighbour"
    shutil.copytree(stage.directory / "shelf", victim)
    mirror = scenery.mirror("mirror-1")
    evil = bytes(byte ^ 0x66 for byte in (stage.directory / image).read_bytes())
    path = f"builds/gateway/1.1/{image}"
    Thief(scenery.workspace(), mirror).swap_artifact(path, evil, ["ci"])
    scenery.network.swap(mirror)
    stage.device("init", name="neighbour")
    stage.device("update", name="neighbour", exits=6)
    scenery.network.swap(scenery.repository)
    stage.insist(
        stage.status("neighbour")["installed"] is None
        and not any(
            evil[:SECTOR] in slot.read_bytes() for slot in (victim / "slots").glob("*.img")
        ),
        "refused: builds and channel must agree; no stolen byte reached a slot",
    )


def _usurped_channel(scenery: Scenery) -> None:
    stage = scenery.stage
    stage.scene(
        "Attack: the build key tries to speak for the channel",
        "1.2 waits for two release managers. The thief signs it first with the tool itself, then",
        "with a forgery that the publisher publishes unaware.",
    )
    scenery.promote("1.2", quiet=True)
    stage.firmroot(f"sign --key {scenery.workspace().key_uris()['ci']}", exits=5)
    mirror = scenery.mirror("mirror-2")
    Thief(scenery.workspace(), mirror).speak_for_channel("gateway", "stable", ["ci"])
    shutil.copytree(stage.directory / "device", stage.directory / "twin")
    scenery.network.swap(mirror)
    output = stage.device("check", name="twin", exits=6)
    scenery.network.swap(scenery.repository)
    stage.insist("good signatures of 0 keys" in output, "refused: not one of its signatures counts")


def _tampering_mirror(scenery: Scenery) -> None:
    stage = scenery.stage
    stage.scene(
        "Attack: a mirror changes one bit of every artifact",
        "1.2 gets its two signatures. The mirror lies, then is honest again.",
    )
    stage.firmroot("sign", quiet=True)
    stage.firmroot("publish", quiet=True)
    scenery.network.tampering = True
    stage.device("update", exits=6)
    scenery.network.tampering = False
    stage.insist(
        stage.status()["installed"]["version"] == "1.1", "refused: the device still runs 1.1"
    )
    stage.device("update")
    stage.device("confirm")
    stage.insist(
        stage.status()["installed"]["version"] == "1.2", "an honest mirror: 1.2 is installed"
    )


def _lost_root_key(scenery: Scenery) -> None:
    stage = scenery.stage
    stage.scene("Carol loses her root key; it is rotated out")
    stage.firmroot("rotate carol")
    stage.firmroot("sign")
    stage.firmroot("publish")
    stage.device("check")
    root = AFTER_THE_LOSS
    stage.insist(
        stage.status()["roles"]["root"]["version"] == root, f"the device followed to root {root}"
    )


def _six_years(scenery: Scenery) -> None:
    stage = scenery.stage
    stage.scene(
        f"{YEARS_ON_THE_SHELF} years pass",
        "The device is switched off. Every two years a key is rotated and a release published.",
    )
    for rotation, holder in enumerate(("alice", "bob", "carol-2")[:ROTATIONS]):
        stage.pass_time(YEARS_ON_THE_SHELF / ROTATIONS)
        stage.firmroot(f"rotate {holder}", quiet=True)
        scenery.release(f"1.{rotation + 3}", quiet=True)
    click.echo()
    click.echo("   Every root that the device knows has expired. It is switched on:")
    stage.device("update")
    stage.device("confirm")
    status = stage.status()
    stage.insist(
        status["roles"]["root"]["version"] == AFTER_THE_LOSS + ROTATIONS,
        f"it walked from root {AFTER_THE_LOSS} to root {AFTER_THE_LOSS + ROTATIONS}",
    )
    newest = f"1.{ROTATIONS + 2}"
    stage.insist(status["installed"]["version"] == newest, f"it runs {newest}, confirmed")
    click.echo("   Another one never left its box. Root 1 is all that it has:")
    stage.device("init", name="shelf")
    stage.device("update", name="shelf")
    stage.device("confirm", name="shelf")
    stage.insist(
        stage.status("shelf")["installed"]["version"] == newest,
        "from the factory root to the newest release, in one update",
    )


def _expired_root(scenery: Scenery) -> None:
    stage = scenery.stage
    stage.scene("The newest root itself expires, and is signed again")
    stage.pass_time(2)
    stage.device("check", exits=6)
    stage.firmroot("recover expired-root")
    stage.firmroot("sign")
    stage.firmroot("publish")
    stage.device("check")
    stage.insist(
        stage.status()["roles"]["root"]["version"] == AFTER_THE_LOSS + ROTATIONS + 1,
        "signed again by the threshold of before; the device followed",
    )


def _power_cut(scenery: Scenery) -> None:
    stage, network = scenery.stage, scenery.network
    number = ROTATIONS + 3
    stage.scene(
        "A power cut in the middle of an update",
        "Half of the image has arrived when the power goes; the sector being written is torn.",
    )
    scenery.release(f"1.{number}", quiet=True)
    image = stage.directory / scenery.firmware[number % len(scenery.firmware)]
    network.stalled.clear()
    network.stall_after = image.stat().st_size // 2
    stage.cut_power_during("update", network.stalled)
    network.stall_after = None
    status = stage.status()
    stage.insist(
        status["installed"]["version"] == f"1.{number - 1}",
        f"after the cut the device still runs 1.{number - 1}",
    )
    _tear(stage.directory / "device" / "slots" / f"{status['candidate']['slot']}.img")
    stage.device("update")
    stage.device("confirm")
    stage.insist(
        stage.status()["installed"]["version"] == f"1.{number}",
        f"the same command again: 1.{number} is installed, confirmed",
    )


def _stolen_root(scenery: Scenery) -> None:
    stage = scenery.stage
    stage.scene(
        "A threshold of root keys is stolen: the recovery anchor re-roots the fleet",
        "The thief signs the next root, as good as any, and shows it to the device. New people",
        "take over the root; Noor, Otto and Pia say so, and nothing of the old one counts then.",
    )
    names = scenery.workspace().policy.role("root").keys
    mirror = scenery.mirror("mirror-3")
    forged = Thief(scenery.workspace(), mirror).take_root(names[:2])
    for name in ("ada", "ben", "cleo"):
        stage.firmroot(f"key new {name} --role root --role targets", quiet=True)
    stage.firmroot(f"anchor re-root {' '.join(f'--without {name}' for name in names)}")
    stage.firmroot("sign", quiet=True)
    stage.firmroot("anchor re-root", quiet=True)
    version = f"1.{ROTATIONS + 4}"
    scenery.release(version, quiet=True)
    stage.firmroot("anchor publish")
    # The thief keeps a whole mirror: the new epoch stands beside the forged root.
    shutil.copytree(scenery.repository, mirror, dirs_exist_ok=True)
    scenery.network.swap(mirror)
    output = stage.device("update")
    stage.device("confirm")
    scenery.network.swap(scenery.repository)
    status = stage.status()
    stage.insist(
        "the recovery anchor re-rooted this device" in output
        and (status["epoch"], status["roles"]["root"]["version"]) == (1, 1),
        f"refused: not the thief's root {forged}, but root 1 of a new epoch",
    )
    stage.insist(status["installed"]["version"] == version, f"{version} is installed, confirmed")


def _tear(slot: Path) -> None:
    """Leave noise in the last sector that had been written, as a dying disk may."""
    written = slot.read_bytes().rstrip(b"\0")
    with slot.open("r+b") as file:
        file.seek(max(0, len(written) - SECTOR))
        file.write(b"\xa5" * min(SECTOR, len(written)))
