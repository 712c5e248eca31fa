"""Drills of design section 7: keys that are lost, stolen or expired, and the way back.

The release side and the device are both at their command lines, in one common time. What a thief
does is played by `tests.workflows.drill.Thief`, who signs with copies of the lab's real keys.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tests.publishing.lab import PRODUCT, image
from tests.workflows.drill import BUILDS, HIGHEST, STABLE, TIME, hashed

if TYPE_CHECKING:
    from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

    from client_reference.manifest import Manifest
    from tests.workflows.drill import Drill, Thief

DAY = timedelta(days=1)
EVIL = image("6.6")


# expired-root


def test_expired_root(drill: Drill) -> None:
    """Nobody renewed the root in its year. Its own keys sign it again, and devices follow."""
    drill.later(days=360)
    assert "root 1 expires 2027-03-02T06:00:00Z" in drill.firmroot("refresh", code=3)
    drill.run("check")
    drill.later(days=6)
    assert "EXPIRED" in drill.firmroot("status")

    # The device keeps what it runs and what it trusts, and says what is wrong.
    said = drill.run("update", code=6)
    assert "root expired at 2027-03-02T06:00:00Z, it is 2027-03-03T06:00:00Z here" in said
    assert "your clock or a frozen mirror" in said
    assert "expired    root" in drill.run("status")
    drill.runs("1.0")

    drill.firmroot("recover", "expired-root")
    drill.firmroot("sign")
    drill.firmroot("publish")
    assert "no update: 1.0 is installed" in drill.run("check")
    assert drill.version("root") == 2
    unused = "expired    gateway-builds: renewed when a check needs them"
    assert unused in drill.run("status")
    drill.unharmed("1.1")
    assert drill.status["expired"] == []


def test_expired_root_of_a_device_that_slept_through_it(drill: Drill) -> None:
    """Years after the recovery a device comes back that knows only the expired root."""
    drill.lab.now = drill.lab.now.replace(year=2029)
    for command in (("recover", "expired-root"), ("sign",), ("publish",)):
        drill.firmroot(*command)
    drill.at(drill.lab.now)
    drill.unharmed("1.1")
    assert drill.version("root") == 2


# stolen-online-key


def fast_forward(thief: Thief, version: int) -> None:
    """Versions far ahead, and a time shortly before all that others signed ends."""
    wild = min(thief.newest(role).signed.expires for role in ("root", "targets"))

    def jump(signed: Snapshot | Timestamp) -> None:
        signed.version = version
        signed.expires = wild

    def poison(signed: Timestamp) -> None:
        jump(signed)
        signed.unrecognized_fields["x-firmroot-issued"] = (wild - DAY).strftime(TIME)

    thief.publish(snapshot=jump, timestamp=poison)


def cut(drill: Drill) -> None:
    """Other online keys, without a bridge."""
    said = drill.firmroot("recover", "stolen-key", "publisher")
    assert "publish, a cut: the new root" in said
    drill.firmroot("sign")
    drill.firmroot("publish")


def test_stolen_online_key(drill: Drill) -> None:
    """Timestamp and snapshot are pushed to the last version there is, the time to far ahead.

    The thief has the key and the device's network.
    """
    thief = drill.steals("publisher")
    fast_forward(thief, HIGHEST)
    assert "no update: 1.0 is installed" in drill.run("check")
    assert drill.version("timestamp") == drill.version("snapshot") == HIGHEST
    poisoned = drill.status["time_floor"]
    assert poisoned > drill.device.now

    # The honest mirror is back, and no honest version is high enough any more.
    drill.mirror.files = drill.honest
    drill.firmroot("refresh")
    said = drill.run("update", code=6)
    assert f"timestamp has version 2, expected at least {HIGHEST} (5.4.3.1)" in said
    drill.runs("1.0")

    # The new root takes the versions with it, and the floor.
    cut(drill)
    said = drill.run("check")
    assert "freshness unproven" not in said
    assert drill.status["time_floor"] < poisoned
    assert drill.status["time_floor"] <= drill.device.now
    assert drill.version("timestamp") < 10
    assert drill.version("snapshot") < 10
    drill.unharmed("1.1")

    # What the thief still has is worth nothing: it looks like a cut that is not finished.
    drill.mirror.files = thief.served
    drill.run("check", code=4)
    drill.unharmed("1.2")


@pytest.mark.parametrize("version", [1_000_000, HIGHEST - 1, HIGHEST])
@pytest.mark.parametrize("restored", [False, True])
def test_stolen_online_key_with_the_storage(drill: Drill, version: int, *, restored: bool) -> None:
    """The thief has the publisher's machine: the key, and what may be written with it.

    A scheduled refresh signs nothing on top of versions that were moved far ahead: it would make
    the thief's the newest that was ever live, and a restored backup would not be believed any more.
    Who has no backup may go on from there, unless it is the very last one.
    """
    thief = drill.steals("publisher")
    fast_forward(thief, version)
    backup = drill.honest["metadata/timestamp.json"]
    for path, data in thief.files.items():
        (drill.lab.repository / path).write_bytes(data)
    drill.mirror.files = drill.honest
    assert "no update: 1.0 is installed" in drill.run("check")
    assert drill.version("timestamp") == version
    poisoned = drill.status["time_floor"]
    said = drill.firmroot("verify", code=6)
    assert "which is still to come: it would move the clocks of devices" in said
    for _ in range(2):
        said = drill.firmroot("refresh", code=5)
        assert f"timestamp has version {version}, and version 1 was live before" in said
        assert "restore metadata/timestamp.json in the storage from before" in said
    drill.firmroot("recover", "stolen-key", "publisher")
    drill.firmroot("sign")
    if restored:
        (drill.lab.repository / "metadata/timestamp.json").write_bytes(backup)
        drill.firmroot("publish")
    elif version > HIGHEST - 2:
        drill.firmroot("publish", code=5)
        if version == HIGHEST:
            said = drill.firmroot("publish", "--accept-jump", code=5)
            assert f"version {HIGHEST}, the last one" in said
        (drill.lab.repository / "metadata/timestamp.json").write_bytes(backup)
        drill.firmroot("publish")
    else:
        drill.firmroot("publish", code=5)
        drill.firmroot("publish", "--accept-jump")
    drill.run("check")
    assert drill.status["time_floor"] < poisoned
    drill.firmroot("verify")
    drill.unharmed("1.1")


# lost-root-key, stolen-root-key


def test_lost_root_key(drill: Drill) -> None:
    """One of three root keys is gone for good. The two that remain sign it out."""
    (drill.lab.directory / ".firmroot/keys/alice.pem").unlink()
    assert "no update: 1.0 is installed" in drill.run("check")
    said = drill.firmroot("recover", "lost-key", "alice")
    assert "alice-2 takes the place of alice in: root, targets" in said
    drill.firmroot("sign")
    assert "no update" in drill.run("check")
    drill.firmroot("publish")
    drill.unharmed("1.1")
    assert drill.version("root") == 2


def test_stolen_root_key(drill: Drill) -> None:
    """A thief has one of three root keys, all online keys, and the device's mirror."""
    thief = drill.steals("alice", "publisher")

    def take_over(signed: Root) -> None:
        signed.roles["root"].keyids = [thief.keys["alice"].public_key.keyid]
        signed.roles["root"].threshold = 1

    thief.forge("root", take_over, "alice")
    thief.publish()
    said = drill.run("update", code=6)
    assert "has good signatures of 1 key" in said
    assert drill.version("root") == 1
    drill.runs("1.0")

    # The honest root 2 has other keys for all that the thief might have signed with that key.
    drill.mirror.files = drill.honest
    said = drill.firmroot("recover", "stolen-key", "alice")
    assert "alice-2 takes the place of alice in: root, targets" in said
    drill.firmroot("sign")
    drill.firmroot("publish")
    drill.run("check")
    assert drill.version("root") == 2
    drill.unharmed("1.1")


# stolen-ci-key


def test_stolen_ci_key(drill: Drill) -> None:
    """The builder is not the builder any more. Nothing that it signs reaches a channel."""
    # As CI it adds a release of its own, and the publisher publishes it like any other.
    drill.lab.add("6.6", data=EVIL)
    drill.firmroot("publish")
    assert "no update: 1.0 is installed" in drill.run("check")

    # With the online key as well it exchanges what the channel offers next.
    drill.lab.ship("1.1")
    thief = drill.steals("ci", "publisher")
    path = f"builds/{PRODUCT}/1.1/firmware.img"

    def exchange(signed: Targets) -> None:
        custom = signed.targets[path].custom
        thief.put(signed, path, EVIL, custom)

    thief.forge(BUILDS, exchange, "ci")
    thief.publish(BUILDS)
    said = drill.run("update", code=6)
    assert "gateway-builds says" in said
    assert "only what builder and release managers agree on is installed" in said
    drill.runs("1.0")

    # A new builder, and new online keys: devices forget the version that the thief pushed.
    drill.mirror.files = drill.honest
    drill.firmroot("recover", "stolen-key", "publisher")
    said = drill.firmroot("recover", "stolen-key", "ci", "--drop", f"{PRODUCT}@6.6")
    assert "publisher goes in: roles that are signed already" in said, "the same root does it"
    assert "dropped      gateway@6.6 (sequence 2), no channel offers it" in said
    assert "gateway-builds: signed again on this machine" in said
    drill.firmroot("sign")
    drill.firmroot("publish")
    drill.install("1.1")

    # The old builder's key speaks for nothing, even with the thief as the network.
    assert hashed(path, EVIL) in thief.files
    drill.mirror.files = thief.served
    drill.run("update", code=4)
    drill.unharmed("1.2")
    assert EVIL not in {drill.device.slot("A"), drill.device.slot("B")}
    assert "6.6" not in drill.firmroot("firmware", "list")


# stolen-channel-key


def raise_the_minimum(manifest: Manifest) -> Manifest:
    return replace(manifest, minimum_sequence=HIGHEST)


def test_stolen_channel_key_of_one_release_manager(drill: Drill) -> None:
    """One of three release managers is a thief, with the online keys besides: nothing."""
    drill.lab.ship("1.1")
    thief = drill.steals("rita", "publisher")
    thief.say(raise_the_minimum, "rita")
    thief.publish(STABLE)
    said = drill.run("update", code=6)
    assert "gateway-stable has good signatures of 1 key, 2 are needed" in said
    drill.runs("1.0")
    drill.mirror.files = drill.honest
    drill.firmroot("recover", "stolen-key", "rita")
    drill.firmroot("sign")
    drill.firmroot("publish")
    drill.install("1.1")
    drill.unharmed("1.2")


def test_stolen_channel_key_by_a_threshold(drill: Drill) -> None:
    """Two of three release managers: they choose among honest builds, and may choose none."""
    drill.lab.add("1.1-debug")  # no release manager lets that out
    drill.lab.ship("1.1")
    thief = drill.steals("rita", "sam", "publisher")
    thief.say(raise_the_minimum, "rita", "sam")
    thief.publish(STABLE)
    assert "the channel's minimum sequence is 9007199254740991" in drill.run("update")
    drill.runs("1.0")
    thief.offer("1.1-debug", 2, image("1.1-debug"), "rita", "sam")
    thief.publish(STABLE)
    drill.install("1.1-debug")

    # Two new release managers. The minimum was never stored, and the next sequence is higher.
    drill.mirror.files = drill.honest
    drill.firmroot("recover", "stolen-key", "rita")
    drill.firmroot("recover", "stolen-key", "sam")
    drill.firmroot("sign")
    drill.firmroot("publish")
    drill.install("1.1")
    drill.unharmed("1.2")


def test_stolen_channel_key_by_a_threshold_with_the_builder(drill: Drill) -> None:
    """With the builder's key as well a thief may install what they like, with any sequence.

    Stopping it takes other keys; taking back what devices have confirmed takes `targets`, which
    the thief cannot sign.
    """
    thief = drill.steals("rita", "sam", "ci", "publisher")
    thief.build("6.6", HIGHEST, EVIL, "ci")
    thief.offer("6.6", HIGHEST, EVIL, "rita", "sam")
    thief.publish(BUILDS, STABLE)
    drill.install("6.6")

    drill.mirror.files = drill.honest
    for name in ("rita", "sam", "ci"):
        drill.firmroot("recover", "stolen-key", name)
    drill.firmroot("sign")
    drill.firmroot("publish")
    drill.lab.ship("1.1")
    said = drill.run("update")
    assert f"1.1 (sequence 2) is not installed: sequence {HIGHEST} is installed" in said
    assert drill.status["confirmed_sequence"] == HIGHEST

    drill.firmroot("recover", "sequence", PRODUCT, "--to", "1")
    shown = drill.firmroot("ceremony", "show", "targets")
    assert "SEQUENCE RESET: every device of gateway that confirmed more goes back" in shown
    drill.firmroot("sign")
    drill.firmroot("publish")
    drill.resets += 1
    drill.install("1.1")
    assert drill.status["confirmed_sequence"] == 2
    drill.mirror.files = thief.served
    drill.run("update", code=4)
    drill.unharmed("1.2")
