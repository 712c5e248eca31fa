"""The policy in force: what is wrong with it, and the gate that every signing command passes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tuf.api.metadata import Root, Targets

from client_reference.errors import ConfigurationError, NotTrustedError, RefusedError
from client_reference.factory import load as load_factory
from keys_policy.checks import MENDED, ROTATED, Evidence, Severity, Shipped, run_checks
from keys_policy.load import PolicyError, read_rules
from repo_tools.gone import gone_keys
from repo_tools.metadata.repository import parse
from repo_tools.metadata.roles import RECOVERY, delegated_roles
from repo_tools.publishing.bridge import Gone
from repo_tools.publishing.factory import load_registry
from repo_tools.signing.ceremony import open_ceremonies
from repo_tools.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from pathlib import Path

    from keys_policy.checks import Finding
    from keys_policy.load import Mistake

__all__ = [
    "PolicyViolationError",
    "enforce",
    "enforce_sound",
    "findings",
    "judge",
    "peoples_roles",
    "shipped",
    "templates",
]


class PolicyViolationError(RefusedError):
    """A rule of the policy is violated; message and hint name the rule and the fix."""


def templates(ws: Workspace) -> dict[str, str]:
    """The section of the policy that rules each delegated role."""
    products = {name: product.channels for name, product in ws.config.products.items()}
    adopted = ws.adopted()
    roles = delegated_roles(
        products,
        device_tls="device-tls" in ws.policy.roles,
        adopted=adopted.roles if adopted is not None else (),
    )
    return {role.name: role.template for role in roles}


def peoples_roles(ws: Workspace) -> tuple[str, ...]:
    """The roles of this workspace that have ceremonies; a machine signs builds by itself."""
    kinds = templates(ws).items()
    anchor = (RECOVERY,) if ws.policy.recovery is not None else ()
    return ("root", "targets", *(name for name, kind in kinds if kind != "builds"), *anchor)


def findings(ws: Workspace, now: datetime) -> list[Finding]:
    """Everything that is wrong with policy, keys, what is signed and what waits to be."""
    return run_checks(_evidence(ws, now))


def judge(directory: Path, now: datetime) -> tuple[tuple[Mistake, ...], list[Finding]]:
    """What is misshapen in policy and keys, and what is wrong whatever was meant there.

    Raises:
        ConfigurationError: as `Workspace.open`, but for no mistake of policy or keys.
    """
    try:
        return (), findings(Workspace.open(directory), now)
    except ConfigurationError as error:
        if not isinstance(error.__cause__, PolicyError):
            raise
    reading = read_rules(directory)
    least, most = (
        _judge_guess(Workspace.open_with(directory, *each), now, gaps=reading.gaps)
        for each in reading.guesses
    )
    kept = {(each.check.id, each.detail) for each in most}
    return reading.mistakes, [each for each in least if (each.check.id, each.detail) in kept]


def _judge_guess(ws: Workspace, now: datetime, *, gaps: bool) -> list[Finding]:
    evidence = _evidence(ws, now)
    if gaps:  # who may sign cannot be told from who did
        evidence = replace(evidence, signed={}, pending={}, live={})
    return run_checks(evidence)


def _evidence(ws: Workspace, now: datetime) -> Evidence:
    signed: dict[str, Root | Targets] = {}
    if (root := ws.newest_root()) is not None:
        signed["root"] = root
    if (targets := ws.newest_targets()) is not None:
        signed["targets"] = targets
    if ws.policy.recovery is not None and (anchor := ws.newest_recovery()) is not None:
        signed[RECOVERY] = anchor
    kinds = templates(ws)
    known = {"root", "targets", *kinds, *peoples_roles(ws)}
    pending = {each.role: each.signed for each in open_ceremonies(ws) if each.role in known}
    adopted = ws.adopted()
    return Evidence(
        ws.policy,
        ws.keyring,
        signed,
        pending,
        kinds,
        now,
        _live(ws),
        shipped(ws),
        frozenset(adopted.delegations) if adopted is not None else frozenset(),
        adopted.keys if adopted is not None else {},
        frozenset(keyid for keyid, how in gone_keys(ws).items() if how is Gone.STOLEN),
    )


def shipped(ws: Workspace) -> tuple[Shipped, ...]:
    """What the registry of the factory says is in service.

    Nothing if the registry or a file is damaged: `publish` refuses that, with the way to mend it.
    """
    try:
        return tuple(
            Shipped(each.id, each.client_version, each.count, _born_with(ws, each.id))
            for each in load_registry(ws)
            if not each.retired
        )
    except (ConfigurationError, NotTrustedError):
        return ()


def _born_with(ws: Workspace, export: str) -> dict[str, frozenset[str]]:
    born = load_factory(ws.directory / "factory" / export / "factory")
    root = parse(born.root, Root, f"the root of factory export {export}").signed
    found = {name: frozenset(role.keyids) for name, role in root.roles.items()}
    if born.recovery_root is not None:
        where = f"the recovery root of factory export {export}"
        anchor = parse(born.recovery_root, Root, where).signed
        found[RECOVERY] = frozenset(anchor.roles[Root.type].keyids)
    return found


def _live(ws: Workspace) -> dict[str, Root | Targets]:
    live: dict[str, Root | Targets] = {}
    if (root := next(reversed(ws.roots()), None)) is not None:
        live["root"] = parse(root, Root, "root").signed
    if (targets := ws.published_role("targets")) is not None:
        live["targets"] = parse(targets, Targets, "targets").signed
    return live


def enforce(ws: Workspace, now: datetime) -> None:
    """Stop here, before anybody signs or publishes, if a rule is violated.

    Raises:
        PolicyViolationError: names every violation, its rule and the fix of the first.
    """
    _stop_at(findings(ws, now))


def enforce_sound(ws: Workspace, now: datetime, before: Workspace | None = None) -> None:
    """Stop here if a rule is violated, but not for one that opening a ceremony mends.

    Args:
        ws: the workspace, as it will be.
        now: the time.
        before: as it is, where one key is replaced: what is wrong with others is no reason to keep
            it, since they are replaced one after the other.

    Raises:
        PolicyViolationError: as `enforce`.
    """
    there = findings(before, now) if before is not None else ()
    known = {(each.check.id, each.detail) for each in there if each.check.id in ROTATED}
    _stop_at(
        each
        for each in findings(ws, now)
        if each.check.id not in MENDED and (each.check.id, each.detail) not in known
    )


def _stop_at(found: Iterable[Finding]) -> None:
    violations = [each for each in found if each.severity is Severity.ERROR]
    if violations:
        details = "\n       ".join(f"{each.text} [{each.check.id}]" for each in violations)
        first = violations[0].check
        raise PolicyViolationError(
            f"the policy forbids this: {details}",
            f"{first.fix} (firmroot policy explain {first.id})",
        )
