"""Pure: the recovery anchor, a second factory root that says which primary root is to be trusted.

It is a chain of TUF root files that other people sign, in other places (design 7). Each carries a
statement, `x-firmroot-primary`: the epoch, and hash and length of the primary root that this epoch
starts from. Fetching, and when to ask, is `anchor`; here bytes and values are judged.

Rules:
 * A link is read and chained as any root: version exactly one higher, signed by the threshold of
   the link before and by its own. Neither expiry nor clock nor floor is consulted: the statement
   only ever moves forward, so expiry could do nothing but disable it.
 * Along the chain the epoch stays or rises by one. While it stays, nothing in the statement
   changes. A link that breaks this is not accepted, and nothing after it.
 * Two verified links that name different primary roots for one epoch are a fork, in one chain or
   in two: neither is followed (`decide`). One of them was signed by mistake or by thieves, and a
   device cannot know which.
 * So are two verified links of one version that say different things. Attack: whoever gathered a
   threshold of retired recovery keys shows a longer chain than the honest one, with the same epochs
   and keys of their own, and would lead every device that lay on a shelf from then on.
 * The longest chain wins: a recovery URL that withholds links hides nothing that another one shows.
 * An epoch is never left for a lower one, whatever an image or a boot rollback brings.
 * The first primary root of an epoch is the file that the statement names, byte for byte.
 * What was learnt under the old epoch is forgotten with it (`rerooted`): versions and time floor,
   since the thief of the old keys may have pushed them forward. The sequence floor becomes the
   statement's, and may be lower than before for the same reason.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import field, replace
from typing import TYPE_CHECKING, TypeAlias

from tuf.api.metadata import Root

from client_reference.errors import NotTrustedError
from client_reference.strictjson import Node
from client_reference.trust import clock, verified
from client_reference.trust.verified import MismatchError
from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from client_reference.trust.state import DeviceState, TrustState

__all__ = [
    "FIELD",
    "MAX_ROOT",
    "Anchor",
    "Decision",
    "Fork",
    "ForkedError",
    "Renew",
    "Reroot",
    "Statement",
    "Stay",
    "Walk",
    "check_follows",
    "check_origin",
    "decide",
    "first_anchor",
    "first_root_path",
    "link_path",
    "next_anchor",
    "primary_root",
    "read_statement",
    "renewed",
    "rerooted",
    "stored_anchor",
]

FIELD = "x-firmroot-primary"
MAX_ROOT = 512_000
"""Bytes of a recovery root file, and of a primary root that one may name."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


@frozen
class Statement:
    """What a recovery root says about the primary repository.

    Attributes:
        epoch: counts how often the primary root was begun anew.
        sha256: hex digest of the first primary root file of this epoch.
        length: its bytes.
        minimum_sequence: by product; nothing below it may be installed. A product that is not
            named: 0.
    """

    epoch: int
    sha256: str
    length: int
    minimum_sequence: Mapping[str, int] = field(default_factory=dict)

    @property
    def primary(self) -> tuple[str, int]:
        """What identifies the first primary root."""
        return self.sha256, self.length


@frozen
class Anchor:
    """A recovery root that verified.

    Attributes:
        data: the exact bytes.
        root: what they say; it signs for the next one.
        statement: what it says about the primary repository.
    """

    data: bytes
    root: Root
    statement: Statement

    @property
    def version(self) -> int:
        """Of the recovery root file."""
        return self.root.version


class ForkedError(NotTrustedError):
    """The signatures are good, and there are two primary roots for one epoch, or two chains.

    Attributes:
        epoch: which.

    Args:
        epoch: likewise.
        first, second: hex digests, of the primary roots or of the links.
        version: of the recovery root that is there twice; 0 if it is the primary root.
    """

    def __init__(self, epoch: int, first: str, second: str, version: int = 0) -> None:
        has = f"names two primary roots for epoch {epoch}"
        if version:
            has = f"has two recovery roots {version}, both signed well, with SHA-256"
        super().__init__(
            f"the recovery anchor {has}: {first} and {second}",
            "tell the holders of the recovery keys; this device follows neither",
        )
        self.epoch = epoch


@frozen
class Walk:
    """What one recovery URL showed after the trusted link.

    Attributes:
        links: verified, oldest first.
        fork: what ended the walk, if it was a fork.
    """

    links: Sequence[Anchor] = ()
    fork: ForkedError | None = None


@frozen
class Stay:
    """Nothing is newer than what is trusted."""


@frozen
class Renew:
    """A newer recovery root for the epoch that the device is in: keys of the anchor changed."""

    anchor: Anchor


@frozen
class Reroot:
    """A higher epoch: the primary repository was begun anew."""

    anchor: Anchor


@frozen
class Fork:
    """Two primary roots for one epoch, both signed well. Neither is followed."""

    error: ForkedError


Decision: TypeAlias = Stay | Renew | Reroot | Fork


def link_path(version: int) -> str:
    """Where a recovery repository keeps a link."""
    return f"{version}.root.json"


def first_root_path(epoch: int) -> str:
    """Where it keeps the first primary root of an epoch."""
    return f"e{epoch}/1.root.json"


def read_statement(root: Root) -> Statement:
    """The statement of a recovery root; fields that are not known here are ignored.

    Raises:
        MalformedJsonError: there is none, or it is not as it must be.
    """
    node = Node(root.unrecognized_fields, "recovery root").member(FIELD)
    sequences = node.member("minimum_sequence")
    if not isinstance(sequences.value, dict):
        raise sequences.wrong("an object")
    return Statement(
        epoch=node.member("epoch").integer(),
        sha256=node.member("sha256").text(_SHA256),
        length=node.member("length").integer(1, MAX_ROOT),
        minimum_sequence={
            product: sequences.member(product).integer() for product in sequences.value
        },
    )


def first_anchor(data: bytes) -> Anchor:
    """A recovery root that is trusted because it came with the image.

    Raises:
        MalformedError, BadSignatureError: it is not a root signed by itself.
        MalformedJsonError: its statement cannot be read.
    """
    root = verified.first_root(data)
    return Anchor(data, root, read_statement(root))


def stored_anchor(data: bytes) -> Anchor:
    """The recovery root that was accepted before. Its signatures are not looked at again.

    Raises:
        MalformedError, MalformedJsonError: it cannot be read.
    """
    root = verified.read(Root, "recovery root", data).signed
    return Anchor(data, root, read_statement(root))


def next_anchor(trusted: Anchor, data: bytes) -> Anchor:
    """The link after `trusted`.

    Raises:
        MalformedError, BadSignatureError, MismatchError: see `verified.next_root`.
        MalformedJsonError: its statement cannot be read.
        MismatchError: its statement does not follow from the one before.
        ForkedError: it names another primary root for the same epoch.
    """
    root = verified.next_root(trusted.root, data, "recovery root")
    statement = read_statement(root)
    check_follows(trusted.statement, statement, f"recovery root {root.version}")
    return Anchor(data, root, statement)


def check_follows(before: Statement, after: Statement, place: str) -> None:
    """Whether a statement may come after another one.

    Args:
        before: of the link before.
        after: of this link.
        place: what to call this link.

    Raises:
        MismatchError: the epoch falls or jumps, or minimum_sequence changes within one.
        ForkedError: another primary root for the same epoch.
    """
    if after.epoch not in {before.epoch, before.epoch + 1}:
        raise MismatchError(
            f"{place} is of epoch {after.epoch}, expected {before.epoch} or {before.epoch + 1}"
        )
    if after.epoch == before.epoch:
        if after.primary != before.primary:
            raise ForkedError(after.epoch, before.sha256, after.sha256)
        if after.minimum_sequence != before.minimum_sequence:
            raise MismatchError(
                f"{place} changes minimum_sequence within epoch {after.epoch}, expected a new epoch"
            )


def decide(trusted: Anchor, epoch: int, walks: Sequence[Walk]) -> Decision:
    """What to make of everything that the recovery URLs showed.

    Args:
        trusted: the recovery root from which every walk began.
        epoch: the device is in.
        walks: one for each URL, in the order of the configuration.
    """
    named = {trusted.statement.epoch: trusted.statement}
    newest, shown = trusted, dict[int, Anchor]()
    for walk in walks:
        if walk.fork is not None:
            return Fork(walk.fork)
        for link in walk.links:
            one, other = link.statement, named.setdefault(link.statement.epoch, link.statement)
            if one.primary != other.primary:
                return Fork(ForkedError(one.epoch, other.sha256, one.sha256))
            twin = shown.setdefault(link.version, link)
            # Another signature on the same root is no fork.
            if twin.root != link.root:
                first, second = (hashlib.sha256(each.data).hexdigest() for each in (twin, link))
                return Fork(ForkedError(one.epoch, first, second, link.version))
            if link.version > newest.version:
                newest = link
    if newest.statement.epoch > epoch:
        return Reroot(newest)
    return Stay() if newest is trusted else Renew(newest)


def primary_root(statement: Statement, data: bytes) -> Root:
    """The first primary root of an epoch.

    Raises:
        MismatchError: the bytes are not those that the statement names, or have another version.
        MalformedError, BadSignatureError: they are not a root signed by itself.
    """
    found = hashlib.sha256(data).hexdigest()
    if (found, len(data)) != statement.primary:
        raise MismatchError(
            f"the first primary root of epoch {statement.epoch} has {len(data)} bytes and SHA-256 "
            f"{found}, expected {statement.length} bytes and {statement.sha256}",
            "another recovery URL or mirror may have the right file",
        )
    root = verified.first_root(data)
    if root.version != 1:
        raise MismatchError(
            f"the first primary root of epoch {statement.epoch} has version {root.version}, "
            "expected 1"
        )
    return root


def check_origin(anchor: Anchor, epoch: int, root: bytes) -> None:
    """Whether a factory export is of one piece.

    Args:
        anchor: the recovery root that it carries.
        epoch: that its floors say.
        root: the primary root file that it carries.

    Raises:
        MismatchError: the anchor speaks of another epoch or another repository.
    """
    statement = anchor.statement
    if statement.epoch != epoch:
        raise MismatchError(
            f"the recovery root is of epoch {statement.epoch}, the floors of epoch {epoch}"
        )
    if verified.first_root(root).version == 1:
        primary_root(statement, root)


def renewed(state: DeviceState, anchor: Anchor) -> DeviceState:
    """The same device with a newer recovery root."""
    return state.with_trust(_with_anchor(state.trust, anchor))


def rerooted(state: DeviceState, anchor: Anchor, root: bytes, product: str) -> DeviceState:
    """The device in the epoch of `anchor`, in which nothing of the old one counts any more.

    Args:
        state: before.
        anchor: the newest recovery root.
        root: the primary root file that its statement names.
        product: the device's own.

    Raises:
        As `primary_root`.
    """
    first = primary_root(anchor.statement, root)
    floor = clock.reset(0, first)
    trust = replace(
        _with_anchor(state.trust, anchor),
        epoch=anchor.statement.epoch,
        root=root,
        root_version=first.version,
        timestamp=None,
        snapshot=None,
        roles={},
        time_floor=floor,
        factory_floor=floor,
    )
    minimum = anchor.statement.minimum_sequence.get(product, 0)
    # The versions of `targets` begin again with the epoch, and the resets that they bring.
    install = replace(state.install, confirmed_sequence=minimum, reset=0)
    return replace(state, trust=trust, install=install)


def _with_anchor(trust: TrustState, anchor: Anchor) -> TrustState:
    return replace(trust, recovery_root=anchor.data, recovery_version=anchor.version)
