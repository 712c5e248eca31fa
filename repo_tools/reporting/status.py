"""Pure: where a workspace stands, and the one command that brings it forward.

The rule is that of a good status line: it never says "nothing to do" when something could not be
looked at, and each state names the next command.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from keys_policy.model import ONLINE_ROLES
from repo_tools.metadata.edits import format_time
from repo_tools.metadata.roles import builds_role, delegator

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from keys_policy.model import RolePolicy
    from repo_tools.signing.ceremony import CeremonyStatus

__all__ = ["Due", "Expiry", "Report", "Situation", "early_report", "renewal_command", "report"]

# Roles whose keys are usually the same people's or the same machine's.
_TOGETHER = (("root", "targets"), ("snapshot", "timestamp"))


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
        elsewhere: that is because this clone does not have the storage.
        ceremonies: what waits for signatures.
        staged: roles that wait to be published.
        submitted: those of them that lie in the inbox as they are.
        inbox: how many submissions the publisher did not look at yet, where its keys are here.
        built: the newest version in each staged builds role that brings firmware.
        violations: errors of the policy.
        behind: signed roles that a new version brings in line with the policy, where nothing else
            is wrong with it.
        ahead: where the policy is ahead of what is signed, which stops nothing.
        lacking: how many keys each role still needs, where nothing else is wrong with the policy.
        has_root: there is a root, signed or waiting.
        has_keys: there is any key.
        products: names.
        held: releases that are live and stopped, such as `gateway@1.2 on stable`.
        channels: the channel roles of each product.
        exported: products for which devices were made.
        mine: names of the keys of this machine.
        lab: the keys were made for trying out.
        anchor: the recovery anchor in one line; empty if nobody looked.
        anchored: there is a recovery anchor that can re-root.
        anchor_next: the command that brings it forward, with its reason; None if nothing is due.
    """

    now: datetime
    rules: Mapping[str, RolePolicy] = field(default_factory=dict)
    live: Mapping[str, tuple[int, datetime]] = field(default_factory=dict)
    unread: str = ""
    elsewhere: bool = False
    ceremonies: Sequence[CeremonyStatus] = ()
    staged: Sequence[str] = ()
    submitted: frozenset[str] = frozenset()
    inbox: int = 0
    built: Mapping[str, str] = field(default_factory=dict)
    violations: Sequence[str] = ()
    behind: Sequence[str] = ()
    ahead: Sequence[str] = ()
    lacking: Mapping[str, int] = field(default_factory=dict)
    has_root: bool = False
    has_keys: bool = False
    products: Sequence[str] = ()
    held: Sequence[str] = ()
    channels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    exported: frozenset[str] = frozenset()
    mine: frozenset[str] = frozenset()
    lab: bool = False
    anchor: str = ""
    anchored: bool = False
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

    @property
    def next_step(self) -> str:
        """The next command with its reason, in the words of every command that names one."""
        return f"{self.next_command or 'nothing to do'}  ({self.reason})"

    def failing(self, within: timedelta) -> list[str]:
        """What a monitor must shout about: what expires within that time, or was not seen.

        Snapshot and timestamp live shortly and are renewed by a job: they count once half of
        the time in which it should have renewed them has passed.
        """
        now = self.situation.now
        found = [
            f"{each.role} {each.version} "
            f"{'expired' if each.due is Due.EXPIRED else 'expires'} {format_time(each.expires)}"
            for each in self.expiries
            if each.expires <= now + min(within, _patience(self.situation, each.role))
        ]
        if self.situation.unread:
            found.append(f"the live repository could not be looked at: {self.situation.unread}")
        return found

    def lines(self) -> list[str]:
        """For people."""
        situation = self.situation
        found = ["LAB: its keys protect nothing"] if situation.lab else []
        found += _policy_lines(situation)
        for ceremony in situation.ceremonies:
            found.extend(_ceremony_lines(ceremony))
        found.extend(
            f"{role}: signed and staged, "
            f"{'handed in, ' if role in situation.submitted else ''}not yet published"
            for role in situation.staged
        )
        if situation.inbox:
            found.append(f"inbox: {_submissions(situation.inbox)} for the publisher")
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
        found.extend(f"HELD: {each}: no device starts it" for each in situation.held)
        if not self.expiries and not situation.unread:
            found.append("live: nothing is published yet")
        if situation.anchor:
            found.append(f"anchor: {situation.anchor}")
        found.append(f"next: {self.next_step}")
        return found

    def facts(self) -> dict[str, Any]:
        """For scripts."""
        situation = self.situation
        return {
            "now": format_time(situation.now),
            "lab": situation.lab,
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
            "submitted": sorted(situation.submitted),
            "inbox": situation.inbox,
            "live": {
                each.role: {
                    "version": each.version,
                    "expires": format_time(each.expires),
                    "sign_from": format_time(each.sign_from),
                    "due": each.due.value,
                }
                for each in self.expiries
            },
            "held": list(situation.held),
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


def early_report(situation: Situation) -> Report | None:
    """The report, if the next command does not depend on what is live; else None."""
    first = next(_early_steps(situation), None)
    return None if first is None else Report(situation, (), *first)


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


def _patience(situation: Situation, role: str) -> timedelta:
    """How long before its end a role is a monitor's business, whatever it was asked for."""
    rules = situation.rules.get(role)
    if role not in ONLINE_ROLES or rules is None:
        return timedelta.max
    return timedelta(days=rules.signing_days or rules.expiry_days / 3) / 2


def _steps(situation: Situation, expiries: Sequence[Expiry]) -> Iterator[tuple[str, str]]:
    """Commands that bring it forward, each with its reason; the first one stands in the way."""
    yield from _early_steps(situation)
    yield from _steps_in_operation(situation, expiries)


def _early_steps(situation: Situation) -> Iterator[tuple[str, str]]:
    """Those that do not depend on what is live."""
    if not situation.has_keys:
        yield "firmroot key new NAME --role root --role targets", "there is no key yet"
    if situation.lacking:
        yield _next_key(situation)
    if situation.behind:
        yield _next_in_line(situation)
    elif situation.violations:
        yield "firmroot policy check", situation.violations[0]
    if not situation.has_root:
        yield _next_root(situation)
    if situation.ceremonies:
        yield _next_signature(situation)
    if situation.anchor_next is not None and not _goes_last(situation.anchor_next[0]):
        yield situation.anchor_next


def _next_key(situation: Situation) -> tuple[str, str]:
    first = next(iter(situation.lacking))
    roles = next((pair for pair in _TOGETHER if first in pair), (first,))
    named = " ".join(f"--role {role}" for role in roles if role in situation.lacking)
    return f"firmroot key new NAME {named}", f"keys are missing for {', '.join(situation.lacking)}"


def _next_in_line(situation: Situation) -> tuple[str, str]:
    """The policy was edited, or a key was made: what is signed follows with a new version."""
    reason = (*situation.violations, *situation.ahead)[0]
    if situation.violations and situation.anchored and "root" in situation.behind:
        reason += "; if a threshold of root is gone: firmroot anchor re-root --without KEY"
    return f"firmroot ceremony start {' '.join(situation.behind)}", reason


def _next_root(situation: Situation) -> tuple[str, str]:
    # The first targets delegates to the products: with them it is signed once, not twice.
    if not situation.products:
        return "firmroot product add NAME --hardware ID", "there is no product yet, and no root"
    opened = {each.ceremony.role for each in situation.ceremonies}
    roles = "root" if "targets" in opened else "root targets"
    return f"firmroot ceremony start {roles}", "there is no root yet"


def _goes_last(command: str) -> bool:
    """What the anchor names must be live before it is published."""
    return command == "firmroot anchor publish"


def _steps_in_operation(
    situation: Situation, expiries: Sequence[Expiry]
) -> Iterator[tuple[str, str]]:
    if not situation.products:
        yield "firmroot product add NAME --hardware ID", "there is no product yet"
    if situation.elsewhere and situation.staged:
        yield _next_staged(situation)
    if situation.unread:
        yield "firmroot verify", f"the live repository cannot be looked at: {situation.unread}"
    if situation.anchor_next is not None and situation.live:
        yield situation.anchor_next
    if due := {each.role: each.due for each in expiries if each.due is not Due.GOOD}:
        yield _next_renewal(situation, due)
    if situation.staged:
        yield _next_staged(situation)
    if situation.inbox:
        yield "firmroot publish", f"the inbox has {_submissions(situation.inbox)}"
    yield from _steps_to_devices(situation, expiries)
    for soonest in sorted(expiries, key=lambda each: each.sign_from):
        yield "", f"{soonest.role} is next, from {soonest.sign_from:%Y-%m-%d}"


def _steps_to_devices(
    situation: Situation, expiries: Sequence[Expiry]
) -> Iterator[tuple[str, str]]:
    """From a repository to the first device of each product."""
    live = {each.role for each in expiries}
    for product, channels in situation.channels.items():
        builds = builds_role(product)
        if builds not in live:
            yield (
                f"firmroot firmware add FILE -p {product} -V VERSION --hardware ID",
                f"there is no firmware for {product} yet{_where(situation, builds)}",
            )
        elif not live.intersection(channels):
            command = _promotion(situation, product, "VERSION")
            yield command, f"no channel offers firmware of {product} yet"
        elif product not in situation.exported:
            command = f"firmroot factory export {product} --to DIR"
            yield command, f"no device of {product} was made yet"
    if not expiries:
        command = "firmroot firmware add FILE -p PRODUCT -V VERSION --hardware ID"
        yield command, "nothing is published yet"


def _where(situation: Situation, role: str) -> str:
    """Where the keys of a role are, if not on this machine."""
    rules = situation.rules.get(role)
    if rules is None or situation.mine.intersection(rules.keys):
        return ""
    return f"; where the key {' or '.join(rules.keys)} is"


def _next_signature(situation: Situation) -> tuple[str, str]:
    for each in situation.ceremonies:
        if mine := sorted(situation.mine.intersection(each.missing)):
            return "firmroot sign", f"{each.ceremony.name} waits for {', '.join(mine)}"
    if any(_can_be_staged(situation, each) for each in situation.ceremonies):
        return "firmroot sign", "what has its signatures gets staged"
    if stuck := [each for each in situation.ceremonies if not each.quorums]:
        missing = "root" if stuck[0].ceremony.role == "targets" else "targets"
        return f"firmroot ceremony start {missing}", f"no {missing} role says who signs yet"
    first = next(each for each in situation.ceremonies if not each.complete)
    by_file = f"firmroot ceremony export {first.ceremony.role} --to FILE"
    return (
        f"firmroot sign, by {' or '.join(first.missing) or 'nobody left'}",
        f"{first.ceremony.name} waits for them, in their clones or on a file: {by_file}",
    )


def _can_be_staged(situation: Situation, found: CeremonyStatus) -> bool:
    """Nothing is staged before the role that says who signs it."""
    waits = [x for x in situation.ceremonies if x.ceremony.role == delegator(found.ceremony.role)]
    return found.complete and all(_can_be_staged(situation, each) for each in waits)


def _next_renewal(situation: Situation, due: Mapping[str, Due]) -> tuple[str, str]:
    staged = set(situation.staged)
    # Devices stop at each of these: nothing else can be published before.
    left = [
        role
        for role, how in due.items()
        if how is Due.EXPIRED and role not in staged and role not in ONLINE_ROLES
    ]
    if (waiting := due.keys() & staged) and not left:
        return _publish(situation, f"{', '.join(sorted(waiting))}: signed and staged")
    roles = left if waiting else list(due)
    expired = "root" in roles and due["root"] is Due.EXPIRED
    command = renewal_command(roles, root_expired=expired)
    where = _where(situation, "timestamp") if command == "firmroot refresh" else ""
    return command, f"{', '.join(roles)}: time to sign again{where}"


def _publish(situation: Situation, reason: str) -> tuple[str, str]:
    return "firmroot publish", f"{reason}{_where(situation, 'timestamp')}"


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


def _submissions(count: int) -> str:
    return "1 submission" if count == 1 else f"{count} submissions"


def _goes_by_inbox(situation: Situation) -> bool:
    """Whether what is staged was signed on this machine, and the online keys are elsewhere."""

    def here(role: str) -> bool:
        rules = situation.rules.get(role)
        return rules is not None and bool(situation.mine.intersection(rules.keys))

    elsewhere = bool(situation.live) and not here("timestamp")
    ours = [role for role in situation.staged if here(role)]
    if _by_git(situation):
        # Builds whose key changes go the same way: that targets role is published with them.
        builds = {builds_role(each) for each in situation.products}.intersection(situation.live)
        ours = [role for role in ours if role in builds and role not in situation.submitted]
    return elsewhere and bool(ours)


def _by_git(situation: Situation) -> set[str]:
    """What comes to the publisher with the policy and the keys that it puts into force."""
    return {"root", "targets"}.intersection(situation.staged)


def _next_submission(situation: Situation) -> tuple[str, str]:
    done = situation.submitted | _by_git(situation)
    if left := [role for role in situation.staged if role not in done]:
        return "firmroot submit", f"{', '.join(left)}: signed and staged; the publisher takes it on"
    return "", f"{', '.join(situation.staged)}: handed in; firmroot submit --status tells the rest"


def _next_staged(situation: Situation) -> tuple[str, str]:
    managed = {
        role
        for roles in situation.channels.values()
        for role in roles
        if role in situation.rules and situation.mine.intersection(situation.rules[role].keys)
    }
    if _goes_by_inbox(situation) and not (situation.built and managed):
        return _next_submission(situation)
    # Firmware that no channel offers; alone, or with the very first root, it can wait for one.
    beside = set() if situation.live else {"root", "targets"}
    if situation.built and set(situation.staged) <= situation.built.keys() | beside:
        role = min(situation.built)
        product = next(each for each in situation.products if builds_role(each) == role)
        return (
            _promotion(situation, product, situation.built[role]),
            f"{', '.join(sorted(situation.built))}: signed and staged, no channel offers it",
        )
    return _publish(situation, f"{', '.join(situation.staged)}: signed and staged")


def _promotion(situation: Situation, product: str, version: str) -> str:
    channels = situation.channels.get(product, ())
    name = channels[0].removeprefix(f"{product}-") if len(channels) == 1 else "CHANNEL"
    return f"firmroot channel promote {product}@{version} --to {name}"


def _policy_lines(situation: Situation) -> list[str]:
    if situation.lacking:
        wanted = ", ".join(f"{role} {count}" for role, count in situation.lacking.items())
        return [f"policy: keys still to be made: {wanted}"]
    return [f"policy: {each}" for each in (*situation.violations, *situation.ahead)]


def _ceremony_lines(found: CeremonyStatus) -> list[str]:
    name = found.ceremony.name
    lines = [
        f"{name}: signed by {', '.join(quorum.signed) or 'nobody'} for {quorum.delegator}"
        + (f"; waits for {quorum.needed} of {', '.join(quorum.missing)}" if quorum.needed else "")
        for quorum in found.quorums
    ]
    # Without a quorum it is not a signature that is ignored: nobody can give one yet.
    word = "ignored: " if found.quorums else ""
    return [*lines, *(f"{name}: {word}{problem}" for problem in found.problems)]


def _days(left: timedelta) -> str:
    return f"{left.days} days" if left >= timedelta() else f"{-left.days} days ago"
