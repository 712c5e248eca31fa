"""Drills of design section 7 in which root itself is gone: the recovery anchor re-roots the fleet.

Both sides are at their command lines. The anchor is published on a server of its own, which the
thief does not control: one honest recovery URL is what these drills rest on.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root

from tests.publishing.lab import image
from tests.workflows.drill import BUILDS, HIGHEST, STABLE

if TYPE_CHECKING:
    from tuf.api.metadata import Targets

    from tests.workflows.drill import Drill, Thief

EVIL = image("6.6")
RE_ROOTED = "re-rooted this device: epoch 0 has ended, epoch 1 begins"
NEW_PEOPLE = ("ada", "ben", "cleo")
OLD_PEOPLE = ("alice", "bob", "carol")


def re_root(drill: Drill, *options: str, old: tuple[str, ...] = OLD_PEOPLE) -> None:
    """New people make a new root, the anchor's people name it, and both go out."""
    for name in NEW_PEOPLE:
        drill.firmroot("key", "new", name, "--role", "root", "--role", "targets")
    without = [word for name in old for word in ("--without", name)]
    drill.firmroot("anchor", "re-root", *without, *options)
    drill.firmroot("sign")
    said = drill.firmroot("anchor", "re-root", *options)
    assert "recovery-2: open, waits for signatures" in said
    said = drill.firmroot("sign")
    assert "RE-ROOTS THE FLEET" in said
    drill.firmroot("publish")
    drill.firmroot("anchor", "publish")


def usurp(thief: Thief, base: bytes, *names: str) -> None:
    """With a threshold of root all other roles are the thief's, by a key of their own."""
    own = thief.keys["own"] = CryptoSigner.generate_ed25519()
    root: Metadata[Root] = Metadata.from_bytes(base)

    def crown(signed: Root) -> None:
        signed.version = root.signed.version + 1
        for role in ("targets", "snapshot", "timestamp"):
            for keyid in list(signed.roles[role].keyids):
                signed.revoke_key(keyid, role)
            signed.add_key(own.public_key, role)
            signed.roles[role].threshold = 1

    thief.files[f"metadata/{root.signed.version}.root.json"] = base
    thief.forge("root", crown, *names)

    def take(signed: Targets) -> None:
        assert signed.delegations is not None
        assert signed.delegations.roles is not None
        for role in (BUILDS, STABLE):
            for keyid in list(signed.delegations.roles[role].keyids):
                signed.revoke_key(keyid, role)
            signed.add_key(own.public_key, role)
            signed.delegations.roles[role].threshold = 1

    thief.forge("targets", take, "own")
    thief.build("6.6", HIGHEST, EVIL, "own")
    thief.offer("6.6", HIGHEST, EVIL, "own")
    thief.publish("targets", BUILDS, STABLE, by="own")


def test_lost_root(rescue: Drill) -> None:
    """Two of three root keys are gone. All goes well until the root must be renewed."""
    rescue.run("init")
    rescue.install("1.0")
    ws = rescue.lab.workspace
    for name in ("alice", "bob"):
        (rescue.lab.directory / f".firmroot/keys/{name}.pem").unlink()
        ws.remove_key_uri(name)
    rescue.later(days=366)
    rescue.firmroot("recover", "expired-root")
    rescue.firmroot("sign")
    waits = "root-2: signed by carol for the root before; waits for 1 of alice, bob"
    assert waits in rescue.firmroot("status")
    said = rescue.run("update", code=6)
    assert "root expired at 2027-03-02T06:00:00Z" in said
    rescue.runs("1.0")

    # The device asks the anchor because its primary fails, and finds the way by itself.
    re_root(rescue)
    said = rescue.run("check")
    assert RE_ROOTED in said
    assert rescue.status["epoch"] == 1
    assert rescue.version("root") == 1
    rescue.unharmed("1.1")
    rescue.unharmed("1.2")


def test_stolen_root(rescue: Drill) -> None:
    """A thief with a threshold of root is the publisher for every device, and installs at will."""
    rescue.run("init")
    rescue.install("1.0")
    thief = rescue.steals("alice", "bob")
    usurp(thief, thief.copied["metadata/1.root.json"], "alice", "bob")
    rescue.install("6.6")
    assert rescue.status["confirmed_sequence"] == HIGHEST

    # The honest people have nothing that such a device believes; the anchor's people have.
    rescue.mirror.files = rescue.honest
    assert "timestamp is still signed with the keys before" in rescue.run("update", code=4)
    re_root(rescue)
    rescue.lab.ship("1.1")
    rescue.install("1.1")
    assert rescue.status["epoch"] == 1
    assert rescue.status["confirmed_sequence"] == 2

    # With every old key and the network the thief cannot undo it, not even after the store is lost.
    rescue.mirror.files = thief.served
    assert "answers 404 for /metadata/e1/timestamp.json" in rescue.run("update", code=4)
    rescue.runs("1.1")
    shutil.rmtree(rescue.device.directory / "state")
    rescue.last = {}
    said = rescue.run("update", code=4)
    assert "started from the factory root and its floors" in said
    assert RE_ROOTED in said
    assert rescue.status["epoch"] == 1
    assert rescue.status["confirmed_sequence"] < HIGHEST
    rescue.mirror.files = rescue.honest
    rescue.install("1.1")
    rescue.unharmed("1.2")


def test_stolen_retired_root(rescue: Drill) -> None:
    """The keys of the factory root were retired long ago, and not destroyed: they fork the chain.

    Devices in the field know newer roots. Those on a shelf know nothing else.
    """
    thief_of_later = rescue.steals("alice", "bob")
    rescue.mirror.files = rescue.honest
    for name in OLD_PEOPLE:
        rescue.firmroot("rotate", name)
        rescue.firmroot("sign")
        rescue.firmroot("publish")
    thief = rescue.steals()
    thief.keys |= thief_of_later.keys
    first = thief.copied["metadata/1.root.json"]
    for path in [path for path in thief.copied if "root" in path]:
        del thief.copied[path]
    usurp(thief, first, "alice", "bob")
    rescue.run("init")
    assert "update available: 6.6" in rescue.run("check")

    # Found out, the fleet gets another root. The device asks the anchor before it installs.
    re_root(rescue, old=tuple(f"{name}-2" for name in OLD_PEOPLE))
    rescue.mirror.files = thief.served
    said = rescue.run("update", code=4)
    assert RE_ROOTED in said
    assert "answers 404 for /metadata/e1/timestamp.json" in said
    assert rescue.status["epoch"] == 1
    assert EVIL not in {rescue.device.slot("A"), rescue.device.slot("B")}
    rescue.mirror.files = rescue.honest
    rescue.install("1.0")
    rescue.unharmed("1.1")


def test_stolen_channel_key_by_a_threshold_with_the_builder_is_undone(rescue: Drill) -> None:
    """Devices that confirmed the highest sequence there is take nothing more from their root.

    While there is no sequence reset (`test_drills_keys`), another epoch is the way back.
    """
    rescue.run("init")
    rescue.install("1.0")
    thief = rescue.steals("rita", "sam", "ci", "publisher")
    thief.build("6.6", HIGHEST, EVIL, "ci")
    thief.offer("6.6", HIGHEST, EVIL, "rita", "sam")
    thief.publish(BUILDS, STABLE)
    rescue.install("6.6")
    rescue.mirror.files = rescue.honest
    re_root(rescue)
    for name in ("rita", "sam", "ci"):
        rescue.firmroot("recover", "stolen-key", name)
    rescue.firmroot("sign")
    rescue.firmroot("publish")
    assert RE_ROOTED in rescue.run("check")
    assert rescue.status["epoch"] == 1
    rescue.unharmed("1.1")
    assert rescue.status["confirmed_sequence"] == 2
