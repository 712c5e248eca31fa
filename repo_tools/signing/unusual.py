"""Pure: what a signer should stop at, compared with what they signed themselves the last time.

A table of checks. What the other side sends may be wrong or forged; what this signer signed before
is kept on the signer's own machine (`repo_tools.signing.known_good`) and decides. Nothing here
refuses: it is for a person to say that it is expected, each thing by its name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tuf.api.metadata import Root, Targets

from client_reference.errors import FirmrootError
from client_reference.manifest import parse
from repo_tools.metadata.edits import is_lab_root, signed_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from tuf.api.metadata import Role

__all__ = ["CHECKS", "Known", "Look", "Person", "Unusual", "offered", "untested", "unusual"]


@dataclass(frozen=True)
class Person:
    """Who is said to hold a key.

    Attributes:
        name: what people call the key.
        holder: the person or machine that has its private half.
        contact: how to reach them; may be empty.
    """

    name: str
    holder: str
    contact: str = ""


@dataclass(frozen=True)
class Known:
    """What this signer signed last of one role.

    Attributes:
        signed: the content.
        people: whose the keys were said to be then, by key id.
        when: the day.
        files: SHA-256 of the artifacts that it offered.
    """

    signed: Root | Targets
    people: Mapping[str, Person] = field(default_factory=dict)
    when: str = ""
    files: AbstractSet[str] = frozenset()


@dataclass(frozen=True)
class Look:
    """One content that somebody is asked to sign.

    Attributes:
        signed: the content.
        before: the predecessor that the other side names.
        proven: that predecessor is signed by the threshold that ruled over it, or its chain leads
            from what this signer signed.
        known: what this signer signed last.
        at_known: the content that the other side says to have had that version, where it tells.
        people: whose the keys are said to be, by key id.
        carries: target files that come with it, by path.
        tested: SHA-256 of what was recorded as tested on this machine.
        again: this signer has signed exactly this already.
    """

    signed: Root | Targets
    before: Root | Targets | None = None
    proven: bool = False
    known: Known | None = None
    at_known: Root | Targets | None = None
    people: Mapping[str, Person] = field(default_factory=dict)
    carries: Mapping[str, bytes] = field(default_factory=dict)
    tested: AbstractSet[str] = frozenset()
    again: bool = False

    @property
    def old(self) -> Root | Targets | None:
        """What to compare with: the signer's own last, else the predecessor."""
        return self.known.signed if self.known is not None else self.before


@dataclass(frozen=True)
class Unusual:
    """Something to stop at.

    Attributes:
        id: its name, by which a signer says that it is expected.
        detail: what was found.
    """

    id: str
    detail: str


def unusual(look: Look) -> tuple[Unusual, ...]:
    """Everything that this signer should stop at."""
    return tuple(Unusual(name, detail) for name, check in CHECKS.items() for detail in check(look))


def _threshold_falls(look: Look) -> Iterator[str]:
    old, new = _roles(look.old), _roles(look.signed)
    for name in sorted(old.keys() & new.keys()):
        was, now = old[name].threshold, new[name].threshold
        if now < was:
            yield f"the threshold of {name} goes down, from {was} to {now}"


def _same_person(look: Look) -> Iterator[str]:
    old, new = _roles(look.old), _roles(look.signed)
    for name in sorted(old.keys() & new.keys()):
        gone = set(old[name].keyids) - set(new[name].keyids)
        come = set(new[name].keyids) - set(old[name].keyids)
        for keyid in sorted(come):
            holder = _person(look, keyid).holder
            for other in sorted(gone):
                if holder and holder == _person(look, other).holder:
                    yield (
                        f"{name}: a key of {holder} goes ({other[:8]}) and another of {holder} "
                        f"comes ({keyid[:8]}): hear it from {holder}, by voice"
                    )


def _expiry_falls(look: Look) -> Iterator[str]:
    known = look.known.signed if look.known is not None else None
    for title, old in (("what you signed last", known), ("its predecessor", look.before)):
        if old is not None and look.signed.expires < old.expires:
            ends, before = (f"{each.expires:%Y-%m-%d}" for each in (look.signed, old))
            yield f"it ends on {ends}, before {title} ({before})"
            return


def _version_jump(look: Look) -> Iterator[str]:
    if look.known is None or look.proven:
        return
    last = look.known.signed.version
    if look.signed.version > last + 1:
        yield (
            f"you signed version {last} and this is {look.signed.version}; "
            "that the versions between were signed is not proven here"
        )


def _other_predecessor(look: Look) -> Iterator[str]:
    if look.known is None:
        return
    last = look.known.signed
    if look.signed.version < last.version:
        yield f"you signed version {last.version} already, and this goes back"
    elif look.at_known is not None and signed_bytes(look.at_known) != signed_bytes(last):
        yield f"version {last.version}, which it builds on, is not the one that you signed"


def _second_content(look: Look) -> Iterator[str]:
    if look.known is None or look.known.signed.version != look.signed.version:
        return
    if signed_bytes(look.known.signed) != signed_bytes(look.signed):
        yield f"you signed another content as version {look.signed.version}"


def _renamed_key(look: Look) -> Iterator[str]:
    known = look.known.people if look.known is not None else {}
    for keyid in sorted(known.keys() & look.people.keys()):
        was, now = known[keyid], look.people[keyid]
        if (was.name, was.holder) != (now.name, now.holder):
            yield (
                f"key {keyid[:8]} is now said to be {now.name} of {now.holder}; "
                f"it was {was.name} of {was.holder}"
            )


def _lab_appears(look: Look) -> Iterator[str]:
    old, new = look.old, look.signed
    if isinstance(new, Root) and is_lab_root(new) and isinstance(old, Root):
        if is_lab_root(old):
            return
        yield "the root says LAB, which it did not say before"


def _untested(look: Look) -> Iterator[str]:
    if look.tested:
        yield from (
            f"{path} was not tested on this machine ({digest[:16]}...)"
            for digest, path in untested(look).items()
        )


def untested(look: Look) -> dict[str, str]:
    """Artifacts that are newly offered and not recorded as tested: paths by SHA-256."""
    known = look.known.files if look.known is not None else frozenset()
    return {
        digest: path
        for digest, path in offered(look.carries).items()
        if digest not in look.tested and digest not in known
    }


def offered(carries: Mapping[str, bytes]) -> dict[str, str]:
    """Artifacts that the manifests among these files offer to devices: paths by SHA-256."""
    found = {}
    for path, data in carries.items():
        if not path.startswith("channels/"):
            continue
        try:
            releases = parse(data).releases
        except FirmrootError:  # told as what no device reads, where the change is described
            continue
        for release in releases:
            for payload in release.payloads:
                found[payload.artifact.sha256] = payload.artifact.path
    return found


# By name, in the order in which they are told.
CHECKS: Mapping[str, Callable[[Look], Iterator[str]]] = {
    "other-predecessor": _other_predecessor,
    "second-content": _second_content,
    "version-jump": _version_jump,
    "threshold-falls": _threshold_falls,
    "same-person": _same_person,
    "expiry-falls": _expiry_falls,
    "renamed-key": _renamed_key,
    "lab-appears": _lab_appears,
    "untested": _untested,
}


def _roles(signed: Root | Targets | None) -> Mapping[str, Role]:
    if isinstance(signed, Root):
        return signed.roles
    return (signed.delegations.roles or {}) if signed and signed.delegations else {}


def _person(look: Look, keyid: str) -> Person:
    """Who is said to hold a key; what this signer has heard before counts first."""
    known = look.known.people if look.known is not None else {}
    return known.get(keyid) or look.people.get(keyid) or Person("", "")
