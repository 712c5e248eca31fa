"""The sequence reset, by which `targets` takes back what devices confirmed: who else may say it.

The device has confirmed 1.1, sequence 2. A reset that it should not have followed shows as another
confirmed sequence.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from client_reference.strictjson import MalformedJsonError
from client_reference.trust.reset import FIELD
from client_reference.trust.verified import BadSignatureError, MismatchError, RollbackError
from tests.attacks.scene import BUILDS, STABLE, Back, Scene
from tests.attacks.table import ONLINE, UNHARMED, Chapter, exchanged

if TYPE_CHECKING:
    from client_reference.errors import FirmrootError
    from tests.simulators.repository import RepositorySimulator

__all__ = ["RESETS"]

RESETS = Chapter("The sequence reset")
SOURCE = "design 4, Guard (fast-forward)"
INSTALLED = "1.2 (sequence 3) runs on trial"
LAST = 2**53 - 1


def _says(repo: RepositorySimulator, field: object, role: str = "targets") -> None:
    repo.role(role).unrecognized_fields[FIELD] = field
    repo.publish(role)


def _resets(repo: RepositorySimulator, to: int) -> None:
    """A reset as it should be."""
    _says(repo, {"gateway": {"since": repo.targets.version + 1, "to": to}})


def _heard(scene: Scene, confirmed: int) -> None:
    """The device meets what the honest people published, and nothing else yet."""
    scene.serve(scene.honest.repo.files)
    said = scene.run("check")
    assert said.code == 0, said.err
    assert scene.status()["confirmed_sequence"] == confirmed


def _still(scene: Scene, confirmed: int) -> None:
    def as_before() -> None:
        assert scene.status()["confirmed_sequence"] == confirmed

    scene.afterwards = as_before


# A reset of before


@RESETS.row(
    "an earlier targets, with a reset to a lower sequence, is replayed by whoever has the new "
    "online keys, after a cut that had devices forget versions",
    SOURCE,
    *ONLINE,
    does=UNHARMED,
    says=INSTALLED,
)
def replayed_reset(scene: Scene) -> None:
    repo = scene.honest.repo
    _resets(repo, to=0)
    old, version = repo.files[repo.location("targets")], repo.targets.version
    _resets(repo, to=1)
    _heard(scene, 1)
    for role in ONLINE:
        repo.rotate(role)
    repo.publish("root", *ONLINE)
    stolen = scene.stolen
    stolen.targets.version = version
    stolen.files[stolen.location("targets")] = old
    stolen.note("targets", old)
    stolen.publish(*ONLINE)
    scene.forgotten = ("targets",)
    _still(scene, 1)


@RESETS.row(
    "an earlier targets, with a reset to a lower sequence, is replayed without a cut",
    SOURCE,
    *ONLINE,
    does=RollbackError,
    says="targets.json in the snapshot has version",
)
def replayed_reset_without_a_cut(scene: Scene) -> None:
    repo = scene.honest.repo
    _resets(repo, to=0)
    old, version = repo.files[repo.location("targets")], repo.targets.version
    _resets(repo, to=1)
    _heard(scene, 1)
    stolen = scene.stolen
    stolen.targets.version = version
    stolen.files[stolen.location("targets")] = old
    stolen.note("targets", old)
    stolen.publish(*ONLINE)
    _still(scene, 1)


# A reset by somebody else


@RESETS.row(
    "the keys of channel and builds sign a targets with a reset",
    SOURCE,
    STABLE,
    BUILDS,
    *ONLINE,
    does=BadSignatureError,
    says="targets has good signatures of 0 keys, 2 are needed",
)
def reset_by_other_keys(scene: Scene) -> None:
    stolen = scene.stolen
    stolen.signers["targets"] = {**stolen.signers[STABLE], **stolen.signers[BUILDS]}
    _resets(stolen, to=0)
    _still(scene, 2)


@RESETS.row(
    "one key of targets signs a targets with a reset",
    SOURCE,
    "targets:1",
    *ONLINE,
    does=BadSignatureError,
    says="targets has good signatures of 1 key, 2 are needed",
)
def reset_below_threshold(scene: Scene) -> None:
    _resets(scene.stolen, to=0)
    _still(scene, 2)


def _says_a_leaf(role: str, scene: Scene) -> None:
    _says(scene.stolen, {"gateway": {"since": 1, "to": 0}}, role)
    _still(scene, 2)


for _id, _role in (("reset-by-the-channel", STABLE), ("reset-by-the-builder", BUILDS)):
    RESETS.add(
        _id,
        partial(_says_a_leaf, _role),
        f"a reset in {_role}",
        SOURCE,
        _role,
        *ONLINE,
        does=UNHARMED,
        says=INSTALLED,
    )


@RESETS.row(
    "a reset by the targets keys of before a cut, with the online keys of after it",
    SOURCE,
    "targets",
    *ONLINE,
    does=BadSignatureError,
    says="targets has good signatures of 0 keys, 2 are needed",
)
def reset_by_the_thief_of_before(scene: Scene) -> None:
    repo = scene.honest.repo
    old = dict(repo.signers["targets"])
    repo.rotate("targets")
    repo.publish("root", "targets")
    _heard(scene, 2)
    scene.stolen.signers["targets"] = old
    _resets(scene.stolen, to=0)
    _still(scene, 2)


def _cut_and_reset(scene: Scene) -> None:
    exchanged("targets", *ONLINE).step(scene)
    _resets(scene.honest.repo, to=1)
    _heard(scene, 1)


@RESETS.row(
    "a threshold of targets says a reset of the last version that there is, after which no honest "
    "one would be newer",
    SOURCE,
    "targets",
    *ONLINE,
    does=UNHARMED,
    says=INSTALLED,
    back=Back("other keys for targets and the online roles, and an honest reset", _cut_and_reset),
)
def reset_of_the_last_version(scene: Scene) -> None:
    scene.stolen.targets.version = LAST - 1
    _says(scene.stolen, {"gateway": {"since": LAST, "to": LAST}})
    _still(scene, 2)


# A reset that is not this product's, or makes no sense


@RESETS.row(
    "a reset of another product",
    SOURCE,
    "targets",
    *ONLINE,
    does=UNHARMED,
    says=INSTALLED,
)
def reset_of_another_product(scene: Scene) -> None:
    _says(scene.stolen, {"camera": {"since": 1, "to": 0}})
    _still(scene, 2)


def _malformed(field: object, scene: Scene) -> None:
    _says(scene.stolen, field)
    _still(scene, 2)


_NONSENSE: tuple[tuple[str, str, object, type[FirmrootError], str], ...] = (
    (
        "reset-that-is-no-object",
        "the resets are a list",
        [{"gateway": {"since": 1, "to": 0}}],
        MalformedJsonError,
        "targets.x-firmroot-sequence-reset",
    ),
    (
        "reset-below-zero",
        "a reset to -1",
        {"gateway": {"since": 1, "to": -1}},
        MalformedJsonError,
        "targets.x-firmroot-sequence-reset.gateway.to",
    ),
    (
        "reset-without-a-version",
        "a reset that does not say since when",
        {"gateway": {"to": 0}},
        MalformedJsonError,
        "targets.x-firmroot-sequence-reset.gateway.since",
    ),
    (
        "reset-of-a-version-to-come",
        "a reset of a version that is still to come",
        {"gateway": {"since": LAST, "to": 0}},
        MismatchError,
        "has a sequence reset of gateway since version 9007199254740991, expected",
    ),
)
for _id, _what, _field, _error, _text in _NONSENSE:
    RESETS.add(
        _id,
        partial(_malformed, _field),
        _what,
        SOURCE,
        "targets",
        *ONLINE,
        does=_error,
        says=_text,
    )


@RESETS.row(
    "a reset of another product that makes no sense",
    SOURCE,
    "targets",
    *ONLINE,
    does=UNHARMED,
    says=INSTALLED,
)
def malformed_reset_of_another_product(scene: Scene) -> None:
    _malformed({"camera": {"since": "yesterday"}, "modem": 1}, scene)
