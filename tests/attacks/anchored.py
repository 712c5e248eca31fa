"""The recovery anchor: thieves of the primary, of recovery keys, and recovery URLs that lie.

The device has an anchor whose keys the primary's thief does not have. Where the anchor begins
epoch 1, the honest publisher of the last half of a row is that of epoch 1.
"""

from __future__ import annotations

import shutil
from collections import ChainMap
from functools import partial
from typing import TYPE_CHECKING, Any

from client_reference.errors import NotFoundError, RetryLaterError
from client_reference.trust.verified import BadSignatureError
from tests.attacks.scene import BUILDS, STABLE, Back, Scene
from tests.attacks.table import FALLS, HONEST, ONLINE, UNHARMED, Chapter
from tests.simulators.anchor import AnchorSimulator, first_root, statement
from tests.simulators.device import Publisher
from tests.simulators.mirror import Trouble
from tests.simulators.repository import RepositorySimulator

if TYPE_CHECKING:
    from collections.abc import Callable

ANCHORED = Chapter("The recovery anchor")

INSTALLED = "1.2 (sequence 3) runs on trial"
REROOTED = "the recovery anchor re-rooted this device: epoch 0 has ended, epoch 1 begins"
EVERYTHING = ("root", "targets", STABLE, BUILDS, *ONLINE)
HUGE = 2**53 - 2
HONEST_MIRROR = Back("an honest mirror of epoch 1")
HONEST_ANCHOR = Back("an honest recovery URL", Scene.serve_anchor)


# Who has the primary


def _fork_the_primary(scene: Scene) -> None:
    """A threshold of root lets its own keys speak for everything, and offers 6.6."""
    stolen = scene.stolen
    for role in ("targets", *ONLINE):
        stolen.rotate(role)
    stolen.publish("root")
    for role in (STABLE, BUILDS):
        stolen.rotate(role, "targets")
    stolen.publish("targets")
    scene.thief.release("6.6", 6, scene.evil)


@ANCHORED.row(
    "a threshold of root forks the primary, on every mirror; one recovery URL is honest",
    "design 7, stolen-root",
    "root",
    does=NotFoundError,
    says=REROOTED,
    back=HONEST_MIRROR,
)
def stolen_root(scene: Scene) -> None:
    scene.anchored()
    _fork_the_primary(scene)
    scene.follow(scene.re_root())


@ANCHORED.row(
    "the same, and one of two mirrors serves the new epoch",
    "design 7, stolen-root",
    "root",
    does=UNHARMED,
    says=REROOTED,
    back=HONEST_MIRROR,
)
def stolen_root_with_an_honest_mirror(scene: Scene) -> None:
    scene.anchored()
    _fork_the_primary(scene)
    thieves = scene.another_mirror(scene.stolen.files)
    scene.follow(scene.re_root())
    scene.serve(scene.honest.repo.files)
    scene.configure(thieves)


def _reach_the_anchor(scene: Scene) -> None:
    for url in scene.urls:
        url.trouble = Trouble(times=0)


@ANCHORED.row(
    "a threshold of root forks the primary, and no recovery URL can be reached",
    "design 7, stolen-root",
    "root",
    does=FALLS,
    says="the recovery anchor could not be asked",
    back=Back("one honest recovery URL", _reach_the_anchor),
)
def stolen_root_without_the_anchor(scene: Scene) -> None:
    scene.anchored()
    _fork_the_primary(scene)
    scene.follow(scene.re_root())
    scene.urls[0].trouble = Trouble(status=503)


@ANCHORED.row(
    "a release of the thief's waits for the restart; then one recovery URL is honest",
    "design 7, stolen-root",
    "root",
    does=UNHARMED,
    says="release 6.6 is of epoch 0, which the recovery anchor has ended: it was given up",
    back=HONEST_MIRROR,
    writes=True,
)
def pending_of_an_ended_epoch(scene: Scene) -> None:
    stolen_root_without_the_anchor(scene)
    said = scene.run("update", "--no-reboot")
    assert "6.6 (sequence 6) boots next" in said.out, said.err
    scene.results.clear()
    _reach_the_anchor(scene)
    scene.serve(scene.honest.repo.files)


# Replays after a re-rooting


def _in_epoch_1(scene: Scene, minimum: int | None = None) -> Publisher:
    """The device is in epoch 1 already; the publisher of epoch 0, for a thief."""
    scene.anchored()
    old = scene.thief
    scene.follow(scene.re_root(minimum))
    scene.serve(scene.honest.repo.files)
    # Epoch 0 is not served any more: the failure makes the device ask.
    assert scene.run("check").code == 0
    assert scene.status()["epoch"] == 1
    return old


@ANCHORED.row(
    "the primary of the old epoch is replayed, in the place of the new one too",
    "design 7, epochs",
    *EVERYTHING,
    does=BadSignatureError,
    says="root 2 has good signatures of 0 keys of root 1, 1 is needed",
    back=HONEST_MIRROR,
)
def old_epoch_replayed(scene: Scene) -> None:
    old = _in_epoch_1(scene)
    old.release("6.6", HUGE, scene.evil)
    for path, data in list(old.repo.files.items()):
        if path.startswith("metadata/"):
            old.repo.files[path.replace("metadata/", "metadata/e1/")] = data
    scene.serve(old.repo.files)


@ANCHORED.row(
    "the recovery root before is replayed as the next one",
    "design 7, epochs",
    does=UNHARMED,
    says="recovery root has version 1, expected 3",
    back=HONEST_ANCHOR,
)
def older_recovery_root(scene: Scene) -> None:
    _in_epoch_1(scene)
    files = scene.urls[0].files
    scene.urls[0].files = ChainMap({"3.root.json": files["1.root.json"]}, dict(files))


@ANCHORED.row(
    "the store is lost, and a thief has every key of the old epoch",
    "design 7, stolen-root; interfaces",
    *EVERYTHING,
    does=NotFoundError,
    says=REROOTED,
    back=HONEST_MIRROR,
)
def lost_store(scene: Scene) -> None:
    old = _in_epoch_1(scene, minimum=0)
    for copy in ("a.db", "b.db"):
        (scene.directory / "state" / copy).unlink()
    assert scene.run("init").code == 0
    assert scene.status()["epoch"] == 0
    old.release("6.6", HUGE, scene.evil)
    scene.serve(old.repo.files)


# Recovery URLs


def _beside_an_honest_url(files: Callable[[Scene], dict[str, bytes]], scene: Scene) -> None:
    scene.anchored(urls=2)
    withheld = files(scene)
    scene.follow(scene.re_root())
    scene.urls[0].files = withheld
    scene.serve(scene.honest.repo.files)


def _a_strangers_anchor(scene: Scene) -> dict[str, bytes]:
    stranger = AnchorSimulator(first_root(scene.honest.repo), number=2)
    stranger.re_root(RepositorySimulator(epoch=9))
    return stranger.files


def _as_it_was(scene: Scene) -> dict[str, bytes]:
    assert scene.anchor is not None
    return dict(scene.anchor.files)


for _id, _what, _files in (
    ("withholding-recovery-url", "withholds the new epoch", _as_it_was),
    ("lying-recovery-url", "has an anchor of its own", _a_strangers_anchor),
):
    ANCHORED.add(
        _id,
        partial(_beside_an_honest_url, _files),
        f"one of two recovery URLs {_what}",
        "design 7, recovery URLs",
        means="one of two recovery URLs",
        does=UNHARMED,
        says=REROOTED,
        back=HONEST_ANCHOR,
    )


def _another_first_root(bend: Callable[[bytes], bytes], scene: Scene) -> None:
    anchor = scene.anchored()
    second = scene.re_root()
    bent = bend(anchor.files["e1/1.root.json"])
    scene.urls[0].files = ChainMap({"e1/1.root.json": bent}, anchor.files)
    scene.follow(second)


for _id, _what, _bend, _says in (
    (
        "other-first-root",
        "other bytes of the same length in the place of the new epoch's first root",
        lambda root: bytes([*root[:-1], root[-1] ^ 1]),
        "of epoch 1 cannot be had: the first primary root of epoch 1 has",
    ),
    (
        "longer-first-root",
        "a longer file in the place of the new epoch's first root",
        lambda root: root + b" ",
        "of epoch 1 cannot be had: e1/1.root.json at",
    ),
    (
        "shorter-first-root",
        "a shorter file in the place of the new epoch's first root",
        lambda root: root[:-1],
        "of epoch 1 cannot be had: the first primary root of epoch 1 has",
    ),
):
    ANCHORED.add(
        _id,
        partial(_another_first_root, _bend),
        _what,
        "design 7, epochs",
        does=RetryLaterError,
        says=_says,
        back=HONEST_ANCHOR,
    )


# Who has recovery keys


@ANCHORED.row(
    "a new epoch with one signature of two",
    "design 7, stolen-recovery-key",
    "recovery:1",
    does=UNHARMED,
    says="recovery root 2 has good signatures of 1 key of recovery root 1, 2 are needed",
    back=HONEST_ANCHOR,
)
def recovery_below_threshold(scene: Scene) -> None:
    scene.anchored()
    stolen = scene.stolen_anchor
    stolen.re_root(RepositorySimulator(epoch=9))
    scene.urls[0].files = stolen.files


def _one_root_for_the_epoch(scene: Scene) -> None:
    """The holders see to it that one of the two is gone."""
    scene.serve_anchor()
    scene.follow(scene.rivals[0])


@ANCHORED.row(
    "two recovery URLs name different primary roots for one epoch, both signed well",
    "design 7, a forked anchor",
    "recovery",
    does=UNHARMED,
    says="the recovery anchor names two primary roots for epoch 1",
    back=Back("one root for the epoch, on every recovery URL", _one_root_for_the_epoch),
)
def forked_anchor(scene: Scene) -> None:
    scene.anchored(urls=2)
    stolen = scene.stolen_anchor
    stolen.re_root(RepositorySimulator(epoch=9))
    scene.rivals.append(scene.re_root())
    scene.urls[0].files = stolen.files


@ANCHORED.row(
    "a longer chain of the anchor, by recovery keys that were replaced since, on one of two URLs",
    "design 7, a forked anchor",
    "recovery",
    does=UNHARMED,
    says="the recovery anchor has two recovery roots 2, both signed well",
    back=Back("one chain, on every recovery URL", lambda scene: scene.serve_anchor()),
)
def forked_anchor_by_retired_keys(scene: Scene) -> None:
    scene.anchored(urls=2)
    stolen = scene.stolen_anchor
    for _ in range(2):
        stolen.add_recovery_key()
        stolen.publish("root")
    assert scene.anchor is not None
    scene.anchor.renew()
    scene.serve_anchor()
    scene.urls[0].files = stolen.files


def _reflash(scene: Scene) -> None:
    """A new image, with recovery keys that nobody has stolen; what the device stored is erased."""
    assert scene.anchor is not None
    renewed = scene.anchor.renew()
    (scene.directory / "factory" / "recovery-root.json").write_bytes(renewed)
    shutil.rmtree(scene.directory / "state")
    scene.serve_anchor()
    assert scene.run("init").code == 0


@ANCHORED.row(
    "a threshold of recovery keys begins an epoch with a primary of the thief's own",
    "design 7, residual risk",
    "recovery",
    does=FALLS,
    says=REROOTED,
    back=Back("reflashing, with other recovery keys", _reflash),
)
def stolen_recovery_threshold(scene: Scene) -> None:
    scene.anchored()
    stolen = scene.stolen_anchor
    theirs = Publisher(RepositorySimulator(epoch=1))
    theirs.release("6.6", 6, scene.evil)
    stolen.re_root(theirs.repo, gateway=0)
    scene.urls[0].files = stolen.files
    scene.serve(theirs.repo.files)


def _states(changes: dict[str, Any], scene: Scene) -> None:
    scene.anchored()
    stolen = scene.stolen_anchor
    stolen.says = statement(b"the thief's", 1, gateway=1) | changes
    stolen.publish("root")
    scene.urls[0].files = stolen.files


_STATEMENTS: tuple[tuple[str, str, dict[str, Any], str], ...] = (
    (
        "far-epoch",
        "the epoch is 2^53-1",
        {"epoch": 2**53 - 1},
        "recovery root 2 is of epoch 9007199254740991, expected 0 or 1",
    ),
    ("epoch-of-another-type", "the epoch is `true`", {"epoch": True}, "epoch: found true"),
    (
        "endless-first-root",
        "the first root has 2^53-1 bytes",
        {"length": 2**53 - 1},
        "length: found 9007199254740991, expected an integer from 1 to 512000",
    ),
    (
        "digest-of-another-form",
        "the digest is a path",
        {"sha256": "../../etc/passwd"},
        'sha256: found "../../etc/passwd"',
    ),
    (
        "sequences-of-another-type",
        "the minimum sequences are a list",
        {"minimum_sequence": [1]},
        "minimum_sequence: found an array of 1 items, expected an object",
    ),
)
for _id, _what, _changes, _told in _STATEMENTS:
    ANCHORED.add(
        f"statement-{_id}",
        partial(_states, _changes),
        f"{_what}, says the next recovery root",
        "design 7, statements",
        "recovery",
        does=UNHARMED,
        says=_told,
        back=HONEST_ANCHOR,
    )


@ANCHORED.row(
    "the minimum sequence rises without a new epoch, says the next recovery root",
    "design 7, statements",
    "recovery",
    does=UNHARMED,
    says="recovery root 2 changes minimum_sequence within epoch 0, expected a new epoch",
    back=HONEST_ANCHOR,
)
def floor_raised_within_an_epoch(scene: Scene) -> None:
    scene.anchored()
    stolen = scene.stolen_anchor
    stolen.says = stolen.says | {"minimum_sequence": {"gateway": HUGE}}
    stolen.publish("root")
    scene.urls[0].files = stolen.files


# Time


@ANCHORED.row(
    "the recovery roots expired years ago",
    "design 7, recovery roots do not expire",
    means="nothing: time",
    does=UNHARMED,
    says=REROOTED,
    back=HONEST,
)
def expired_anchor(scene: Scene) -> None:
    anchor = scene.anchored()
    anchor.root.expires = anchor.root.expires.replace(year=1999)
    anchor.write("root")
    scene.configure()
    scene.follow(scene.re_root())
    scene.serve(scene.honest.repo.files)
