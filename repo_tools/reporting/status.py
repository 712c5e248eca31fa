"""Pure: where a workspace stands, and the one command that brings it forward.

The rule is that of a good status line: it never says "nothing to do" when something could not be
looked at, and each state names the next command.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from repo_tools.metadata.edits import format_time
from repo_tools.metadata.roles import builds_role

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from keys_policy.model import RolePolicy
    from repo_tools.signing.ceremony import CeremonyStatus

__all__ = ["Due", "Expiry", "Report", "Situation", "renewal_command", "report"]


class Due(enum.Enum):
    """Where a role is between two signatures."""

    GOOD = "good"
    SIGN_NOW = "sign now"
    EXPIRED = "expired"


@dataclass(frozen=True)
class Expiry:
    """A live role: until when it is good, and from when on it should be signed again."""

    role: str
    version: int
    expires: datetime
    sign_from: datetime
    due: Due


@dataclass(frozen=True)
class Situation:
    """What was found in a workspace and its storage.

    Attributes:
        now: the time.
        rules: the policy's section for each role.
        live: version and expiry of each live role.
        unread: why the live state could not be looked at; empty if it was.
        ceremonies: what waits for signatures.
        staged: roles that wait to be published.
        violations: errors of the policy.
        has_root: there is a root, signed or waiting.
        has_keys: there is any key.
        products: names.
        mine: names of the keys of this machine.
        anchor: the recovery anchor in one line; empty if nobody looked.
        anchor_next: the command that brings it forward, with its reason; None if nothing is due.
    """

    now: datetime
    rules: Mapping[str, RolePolicy] = field(default_factory=dict)
    live: Mapping[str, tuple[int, datetime]] = field(default_factory=dict)
    unread: str = ""
    ceremonies: Sequence[CeremonyStatus] = ()
    staged: Sequence[str] = ()
    violations: Sequence[str] = ()
    has_root: bool = False
    has_keys: bool = False
    products: Sequence[str] = ()
    mine: frozenset[str] = frozenset()
    anchor: str = ""
    anchor_next: tuple[str, str] | None = None


@dataclass(frozen=True)
class Report:
    """What `firmroot status` says.

    Attributes:
        expiries: live roles, soonest first.
        next_command: the one command that brings it forward; empty if nothing is to be done.
        reason: why that one.
    """

    situation: Situation
    expiries: tuple[Expiry, ...]
    next_command: str
    reason: str

    def failing(self, within: timedelta) -> list[str]:
        """What a monitor must shout about: what expires within that time, or was not seen."""
        horizon = self.situation.now + within
        found = [
            f"{each.role} {each.version} "
            f"{'expired' if each.due is Due.EXPIRED else 'expires'} {format_time(each.expires)}"
            for each in self.expiries
            if each.expires <= horizon
        ]
        if self.situation.unread:
            found.append(f"the live repository could not be looked at: {self.situation.unread}")
        return found

    def lines(self) -> list[str]:
        """For people."""
        situation = self.situation
        found = [f"policy: {each}" for each in situation.violations]
        for ceremony in situation.ceremonies:
            found.extend(_ceremony_lines(ceremony))
        found.extend(f"{role}: signed and staged, not yet published" for role in situation.staged)
        if situation.unread:
            found.append(f"live: could not be looked at: {situation.unread}")
        for each in self.expiries:
            left = _days(each.expires - situation.now)
            note = {
                Due.GOOD: f"sign again from {each.sign_from:%Y-%m-%d}",
                Due.SIGN_NOW: "sign again now",
                Due.EXPIRED: "EXPIRED",
            }[each.due]
            found.append(
                f"{each.role} {each.version}: live until {each.expires:%Y-%m-%d} ({left}); {note}"
            )
        if not self.expiries and not situation.unread:
            found.append("live: nothing is published yet")
        if situation.anchor:
            found.append(f"anchor: {situation.anchor}")
        found.append(f"next: {self.next_command or 'nothing to do'}  ({self.reason})")
        return found

    def facts(self) -> dict[str, Any]:
        """For scripts."""
        situation = self.situation
        return {
            "now": format_time(situation.now),
            "violations": list(situation.violations),
            "ceremonies": [
                {
                    "name": each.ceremony.name,
                    "signed": list(each.signed),
                    "missing": list(each.missing),
                    "complete": each.complete,
                    "problems": list(each.problems),
                }
                for each in situation.ceremonies
            ],
            "staged": list(situation.staged),
            "live": {
                each.role: {
                    "version": each.version,
                    "expires": format_time(each.expires),
                    "sign_from": format_time(each.sign_from),
                    "due": each.due.value,
                }
                for each in self.expiries
            },
            "unread": situation.unread,
            "anchor": situation.anchor,
            "next": self.next_command,
            "reason": self.reason,
        }


def report(situation: Situation) -> Report:
    """Judge a situation."""
    expiries = sorted(
        (_expiry(situation, role) for role in situation.live), key=lambda each: each.expires
    )
    command, reason = next(_steps(situation, expiries))
    return Report(situation, tuple(expiries), command, reason)


def _expiry(situation: Situation, role: str) -> Expiry:
    version, expires = situation.live[role]
    rules = situation.rules.get(role)
    sign_from = expires - timedelta(days=rules.signing_days if rules else 0)
    due = Due.GOOD
    if situation.now >= expires:
        due = Due.EXPIRED
    elif situation.now >= sign_from:
        due = Due.SIGN_NOW
    return Expiry(role, version, expires, sign_from, due)


def _steps(situation: Situation, expiries: Sequence[Expiry]) -> Iterator[tuple[str, str]]:
    """Commands that bring it forward, each with its reason; the first one stands in the way."""
    if not situation.has_keys:
        yield "firmroot key new NAME --role root --role targets", "there is no key yet"
    if situation.violations:
        yield "firmroot policy check", situation.violations[0]
    if not situation.has_root:
        yield "firmroot ceremony start root targets", "there is no root yet"
    if situation.ceremonies:
        yield _next_signature(situation)
    if situation.anchor_next is not None and not _must_publish_first(situation):
        yield situation.anchor_next
    yield from _steps_in_operation(situation, expiries)


def _must_publish_first(situation: Situation) -> bool:
    """The anchor goes last: what it names must be live."""
    command = situation.anchor_next[0] if situation.anchor_next is not None else ""
    return command == "firmroot anchor publish" and not situation.live


def _steps_in_operation(
    situation: Situation, expiries: Sequence[Expiry]
) -> Iterator[tuple[str, str]]:
    if not situation.products:
        yield "firmroot product add NAME --hardware ID", "there is no product yet"
    if situation.unread:
        yield "firmroot verify", f"the live repository cannot be looked at: {situation.unread}"
    if due := {each.role: each.due for each in expiries if each.due is not Due.GOOD}:
        yield _next_renewal(situation, due)
    if situation.staged:
        yield _next_staged(situation)
    if not expiries:
        yield "firmroot firmware add FILE -p PRODUCT -V VERSION", "nothing is published yet"
    for soonest in sorted(expiries, key=lambda each: each.sign_from):
        yield "", f"{soonest.role} is next, from {soonest.sign_from:%Y-%m-%d}"


def _next_signature(situation: Situation) -> tuple[str, str]:
    for each in situation.ceremonies:
        if mine := sorted(situation.mine.intersection(each.missing)):
            return "firmroot sign", f"{each.ceremony.name} waits for {', '.join(mine)}"
    if any(each.complete for each in situation.ceremonies):
        return "firmroot sign", "what has its signatures gets staged"
    if stuck := [each for each in situation.ceremonies if not each.quorums]:
        missing = "root" if stuck[0].ceremony.role == "targets" else "targets"
        return f"firmroot ceremony start {missing}", f"no {missing} role says who signs yet"
    first = situation.ceremonies[0]
    waits = f"{first.ceremony.name} waits for {' or '.join(first.missing)}"
    return (
        f"firmroot ceremony export {first.ceremony.role} --to FILE",
        f"{waits}, who run firmroot sign in their clone or on that file",
    )


def _next_renewal(situation: Situation, due: Mapping[str, Due]) -> tuple[str, str]:
    if waiting := due.keys() & set(situation.staged):
        return "firmroot publish", f"{', '.join(sorted(waiting))}: signed and staged"
    command = renewal_command(due, root_expired=due.get("root") is Due.EXPIRED)
    return command, f"{', '.join(due)}: time to sign again"


def renewal_command(roles: Iterable[str], *, root_expired: bool) -> str:
    """What signs these live roles again.

    Args:
        roles: which, at least one.
        root_expired: the recovery of the root signs everything else that has expired as well.
    """
    if root_expired:
        return "firmroot recover expired-root"
    if people := [role for role in roles if role not in {"snapshot", "timestamp"}]:
        return f"firmroot ceremony start {' '.join(people)}"
    return "firmroot refresh"


def _next_staged(situation: Situation) -> tuple[str, str]:
    builds = {builds_role(product) for product in situation.products}
    reason = f"{', '.join(situation.staged)}: signed and staged"
    if not set(situation.staged) - builds - {"root", "targets"} and (
        not situation.live or set(situation.staged) <= builds
    ):
        return (
            "firmroot channel promote PRODUCT@VERSION --to CHANNEL",
            f"{reason}, no channel offers it",
        )
    return "firmroot publish", reason


def _ceremony_lines(found: CeremonyStatus) -> list[str]:
    name = found.ceremony.name
    lines = [
        f"{name}: signed by {', '.join(quorum.signed) or 'nobody'} for {quorum.delegator}"
        + (f"; waits for {quorum.needed} of {', '.join(quorum.missing)}" if quorum.needed else "")
        for quorum in found.quorums
    ]
    return [*lines, *(f"{name}: ignored: {problem}" for problem in found.problems)]


def _days(left: timedelta) -> str:
    return f"{left.days} days" if left >= timedelta() else f"{-left.days} days ago"
