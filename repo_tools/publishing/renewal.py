"""Signing a builds role again: with fresh expiry, or with the key that has taken another's place.

Builds roles are signed by machines at once, without a ceremony; the result waits in the outbox of
this machine for the next publish, like added firmware.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from client_reference.errors import ActionRequiredError, ConfigurationError
from repo_tools.files import replace_file
from repo_tools.metadata.edits import add_artifacts, assemble, signed_bytes, without
from repo_tools.metadata.roles import builds_role
from repo_tools.publishing.firmware import read_builds
from repo_tools.publishing.rebase import Rebased, numbered, renumbered, sequences
from repo_tools.signing.signers import open_signer, sign

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from repo_tools.signing.secrets import Secrets
    from repo_tools.workspace import Workspace

__all__ = ["renew_builds"]


def renew_builds(
    ws: Workspace, product: str, secrets: Secrets, now: datetime, drop: Collection[str] = ()
) -> Rebased:
    """Sign everything that the role says already as its next version.

    Args:
        ws: the workspace.
        product: whose builds.
        secrets: passphrases.
        now: the time.
        drop: versions to leave out; the caller has made sure that nothing needs them.

    Returns:
        the version, and releases whose sequence somebody else's got first.

    Raises:
        ConfigurationError: no firmware was ever added.
        ActionRequiredError: too few of its keys are on this machine.
    """
    role = builds_role(product)
    rules, uris = ws.policy.role(role, "builds"), ws.key_uris()
    builds = read_builds(ws, ws.storage(), product, anew=True)
    if not builds.targets:
        raise ConfigurationError(
            f"{role} has no content yet, so there is nothing to renew", "firmroot firmware add FILE"
        )
    mine = [ws.keyring[name] for name in rules.keys if name in uris]
    if len(mine) < rules.threshold:
        raise ActionRequiredError(
            f"{role} is signed by {rules.threshold} of {', '.join(rules.keys)}, and this machine "
            f"has the private keys of: {', '.join(each.name for each in mine) or 'none'}",
            f"on the builder's machine: firmroot ceremony start {role}",
        )
    live = builds.live.targets if builds.live is not None else {}
    gone = {path for path, each in live.items() if (each.custom or {}).get("version") in drop}
    gone |= builds.dropped
    new = {each.path: each for each in builds.waiting if live.get(each.path) != each}
    given = sequences({path: each for path, each in live.items() if path not in gone}, new)
    targets = [numbered(each, given) for each in new.values()]
    signed = without(add_artifacts(role, builds.live, targets, rules, now), drop, builds.dropped)
    # Above what was staged before as well: an interrupted publish may have uploaded that.
    signed.version = builds.version + 1
    payload = signed_bytes(signed)
    signatures = [
        sign(open_signer(uris[each.name], each, secrets, ws.directory), each, payload)
        for each in mine
    ]
    replace_file(ws.memory / "staged" / f"{role}.json", assemble(signed, signatures))
    return Rebased(role, signed.version, renumbered(new, given))
