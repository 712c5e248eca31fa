"""Pure: the sequence reset, by which `targets` takes back what a device confirmed (design 4).

Whoever had a channel's threshold and the builder's key could have a device confirm any sequence, up
to the last one there is; nothing honest would ever be newer. So `targets`, which neither of them
signs, may say for a product: what was confirmed before counts as no more than this.

Rules:
 * Only the `targets` role that a root names is asked; a channel or builds role that carries the
   same field says nothing.
 * A reset names the version of `targets` that first said it, and stays in later versions, so that
   a device from the shelf finds it. A device follows each once, and only one that is newer than
   the last that it followed: an old `targets`, replayed, resets nothing again.
 * Root keys judge `targets`: a root with other targets keys has the device forget which reset it
   followed last, in the transaction of that root. One that is still published then is followed once
   more, and takes the floor to what it says, no further.
 * A device reads the entry of its own product alone. If that makes no sense the check is refused:
   nothing of it counts, and a floor that was to fall stays. What is wrong with another product's
   entry stops no device of this one.
 * It never raises a sequence, and never lowers one below what it says.
 * What an image claimed to be before a reset is doubted after it, as after a re-rooting: the
   manifest in hand says what it is, or the floor does (`selection`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from client_reference.strictjson import Node
from client_reference.trust.verified import MismatchError
from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tuf.api.metadata import Targets

    from client_reference.trust.state import InstallState

__all__ = ["FIELD", "Reset", "followed", "read_reset", "read_resets"]

FIELD = "x-firmroot-sequence-reset"


@frozen
class Reset:
    """What `targets` says about the sequences of one product.

    Attributes:
        since: version of `targets` that first said it.
        to: a confirmed sequence above it is taken back to it.
    """

    since: int
    to: int


def read_resets(targets: Targets) -> Mapping[str, Reset]:
    """The resets of a targets role, by product; fields that are not known here are ignored.

    Raises:
        MalformedJsonError: the field is not as it must be.
        MismatchError: a reset is of a version that is still to come.
    """
    return {product: _entry(targets, product) for product in _products(targets)}


def read_reset(targets: Targets, product: str) -> Reset | None:
    """The reset of one product, None if there is none; those of others are not looked at.

    Raises:
        MalformedJsonError: the field, or the entry of this product, is not as it must be.
        MismatchError: the reset is of a version that is still to come.
    """
    return _entry(targets, product) if product in _products(targets) else None


def _field(targets: Targets) -> Node:
    return Node(targets.unrecognized_fields, "targets").member(FIELD)


def _products(targets: Targets) -> Iterable[str]:
    if FIELD not in targets.unrecognized_fields:
        return ()
    node = _field(targets)
    if not isinstance(node.value, dict):
        raise node.wrong("an object")
    return node.value


def _entry(targets: Targets, product: str) -> Reset:
    entry = _field(targets).member(product)
    reset = Reset(entry.member("since").integer(1), entry.member("to").integer())
    if reset.since > targets.version:
        raise MismatchError(
            f"targets {targets.version} has a sequence reset of {product} since version "
            f"{reset.since}, expected {targets.version} at most",
            "ask the publisher to say it anew: `firmroot recover sequence`",
        )
    return reset


def followed(install: InstallState, reset: Reset | None) -> InstallState:
    """The install state after a reset; the same one if it was followed before, or there is none."""
    if reset is None or reset.since <= install.reset:
        return install
    return replace(
        install,
        reset=reset.since,
        confirmed_sequence=min(install.confirmed_sequence, reset.to),
    )
