"""Reading where a workspace stands, and the one place that says which command is next.

`status`, and every command that ends with a "next:" line, ask here, so that they cannot disagree.
The rules are those of `repo_tools.reporting.status`, which is pure. The live state is read last,
and only if the next command depends on it: who signs need not reach the storage.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tuf.api.metadata import Targets

from client_reference.errors import NotTrustedError, RetryLaterError
from client_reference.manifest import parse_meaning
from client_reference.payload.segments import SUFFIX
from keys_policy.checks import AHEAD, BINDS, KEY_CHECKS, Severity, missing_keys
from repo_tools.anchor import describe_anchor
from repo_tools.metadata.bins import builds_of, is_bin
from repo_tools.metadata.repository import RepositoryState, parse, sha256
from repo_tools.metadata.roles import builds_role, channel_role, hold_role
from repo_tools.publishing.channels import read_channel
from repo_tools.publishing.factory import load_registry
from repo_tools.publishing.inbox import list_inbox
from repo_tools.publishing.online import is_here
from repo_tools.publishing.prepare import StorageElsewhereError, read_base
from repo_tools.publishing.submit import handed_in_digests
from repo_tools.reporting.status import Situation, early_report, report
from repo_tools.signing.ceremony import open_ceremonies
from repo_tools.signing.ceremony import status as ceremony_status
from repo_tools.signing.rules import findings, templates

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from client_reference.manifest import Meaning
    from keys_policy.checks import Finding
    from repo_tools.reporting.status import Report
    from repo_tools.signing.ceremony import CeremonyStatus
    from repo_tools.storage.protocol import Storage
    from repo_tools.workspace import Workspace

__all__ = ["look", "next_step"]


_DELEGATORS = frozenset({"root", "targets"})


def next_step(ws: Workspace, now: datetime, live: RepositoryState | None = None) -> Report:
    """The next command, and why; its other findings may be incomplete.

    Args:
        ws: the workspace.
        now: the time.
        live: what a publish has just made live, the inbox taken in before; None to look.
    """
    found = _look_inside(ws, now)
    return early_report(found) or report(_look_outside(ws, found, live))


def look(ws: Workspace, now: datetime) -> Situation:
    """Everything that a report is made of."""
    return _look_outside(ws, _look_inside(ws, now))


def _look_inside(ws: Workspace, now: datetime) -> Situation:
    """What the workspace alone says."""
    kinds = templates(ws)
    ceremonies = tuple(ceremony_status(ws, each) for each in open_ceremonies(ws))
    rules = {role: ws.policy.role(role) for role in ("root", "targets", "snapshot", "timestamp")}
    rules |= {role: ws.policy.role(role, kind) for role, kind in kinds.items()}
    bins = {role: builds_of(role) for role in ws.staged_roles() if is_bin(role)}
    rules |= {role: rules[above] for role, above in bins.items() if above in rules}
    found = findings(ws, now)
    errors = [each for each in found if each.severity is Severity.ERROR]
    ahead = [each for each in found if each.check.id == AHEAD]
    anchor, anchor_next = describe_anchor(ws)
    lacking = all(each.check.id in KEY_CHECKS for each in errors)
    return Situation(
        now=now,
        rules=rules,
        ceremonies=ceremonies,
        staged=tuple(ws.staged_roles()),
        submitted=_submitted(ws),
        behind=_behind(errors, ahead, ceremonies),
        ahead=tuple(f"{each.detail} [{each.check.id}]" for each in ahead),
        violations=tuple(f"{each.detail} [{each.check.id}]" for each in errors),
        lacking=missing_keys(ws.policy) if lacking else {},
        has_root=ws.newest_root() is not None or any(s.ceremony.role == "root" for s in ceremonies),
        has_keys=bool(ws.keyring),
        products=tuple(ws.config.products),
        channels={
            name: tuple(channel_role(name, each) for each in product.channels)
            for name, product in ws.config.products.items()
        },
        exported=frozenset(each.product for each in load_registry(ws)),
        mine=frozenset(name for name, uri in ws.key_uris().items() if is_here(ws, uri)),
        lab=ws.config.lab,
        anchor=anchor,
        anchored=ws.newest_recovery() is not None,
        anchor_next=anchor_next,
    )


def _behind(
    errors: Sequence[Finding], ahead: Sequence[Finding], ceremonies: Sequence[CeremonyStatus]
) -> tuple[str, ...]:
    """Root or targets, where a ceremony mends all that is wrong and nobody has signed one yet.

    If all that is wrong is a policy that is ahead, signatures that were given are not thrown away
    for it: what is open is signed first.
    """
    if any(each.check.id != BINDS for each in errors):
        return ()
    # The detail begins with the role: "root 3: gateway-stable is ...".
    wrong = {each.detail.partition(" ")[0] for each in errors}
    begun = {each.ceremony.role for each in ceremonies if each.signed}
    if wrong & begun or not wrong <= _DELEGATORS:
        return ()
    later = {each.detail.partition(" ")[0] for each in ahead} & _DELEGATORS
    return tuple(sorted(wrong | (later - begun)))


def _look_outside(
    ws: Workspace, found: Situation, live: RepositoryState | None = None
) -> Situation:
    """The same with what is live."""
    if not ws.roots():
        return replace(found, built=_built(ws, RepositoryState()))
    try:
        storage = ws.storage()
        state = read_base(ws, storage).state if live is None else live
        held = _held(ws, storage, state)
        inbox = _inbox(ws, found, storage) if live is None else 0
    except StorageElsewhereError as error:
        built = _built(ws, RepositoryState())
        return replace(found, unread=error.message, elsewhere=True, built=built)
    except (RetryLaterError, NotTrustedError) as error:
        return replace(found, unread=error.message)
    newest = state.newest().items()
    # A hash bin ends with its builds role.
    versions = {role: (each.version, each.expires) for role, each in newest if not is_bin(role)}
    built = _built(ws, state)
    return replace(found, live=versions, held=held, built=built, inbox=inbox)


def _submitted(ws: Workspace) -> frozenset[str]:
    """The staged roles that were handed in as they are."""
    handed = handed_in_digests(ws)
    return frozenset(role for role, data in ws.staged_roles().items() if sha256(data) in handed)


def _inbox(ws: Workspace, found: Situation, storage: Storage) -> int:
    """How many submissions a publisher has not looked at; others need not look."""
    if not found.mine.intersection(ws.policy.role("timestamp").keys):
        return 0
    listing = list_inbox(storage)
    return len(set(listing.pending) - listing.noted)


def _held(ws: Workspace, storage: Storage, state: RepositoryState) -> tuple[str, ...]:
    """The live releases that a live hold stops."""
    found: list[str] = []
    for product in ws.config.products.values():
        for name in product.channels:
            if hold_role(product.name, name) not in state.roles:
                continue
            channel = read_channel(ws, storage, product.name, name)
            found.extend(
                f"{product.name}@{each.version} on {name}"
                for each in (channel.live.releases if channel.live else ())
                if each.sequence in channel.live_hold.sequences
            )
    return tuple(found)


def _built(ws: Workspace, live: RepositoryState) -> dict[str, str]:
    """The builds roles of this machine that have what the live ones have not, and the newest of it.

    Of a product in hash bins that is the newest of them all: their names say nothing of releases.
    """
    found: dict[str, list[str]] = {}
    releases: dict[str, list[Meaning]] = {}
    ours = set(map(builds_role, ws.config.products))
    for role, data in ws.staged_roles().items():
        above = builds_of(role) if is_bin(role) else role
        if above not in ours:
            continue
        before = live.role(role)
        known = before.targets if before is not None else {}
        new = [
            parse_meaning(target.custom, path)
            for path, target in parse(data, Targets, role).signed.targets.items()
            if path not in known and not path.endswith(SUFFIX)
        ]
        if new:
            releases.setdefault(above, []).extend(new)
            found.setdefault(above, []).append(role)
            if is_bin(role) and ws.staged_role(above) is not None:
                found[above].append(above)
    newest = {
        above: max(new, key=lambda each: each.sequence).version for above, new in releases.items()
    }
    return {role: newest[above] for above, roles in found.items() for role in roles}
