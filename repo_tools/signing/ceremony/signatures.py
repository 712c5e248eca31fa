"""Who has signed, who is missing, and what is ignored. Each signature is verified when read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from securesystemslib.signer import Signature
from tuf.api.metadata import Root, Targets

from client_reference.errors import RefusedError
from client_reference.trust.verified import rotated
from repo_tools.files import replace_file
from repo_tools.metadata.edits import assemble as assemble_metadata
from repo_tools.metadata.repository import parse
from repo_tools.metadata.roles import TOP_LEVEL
from repo_tools.signing.ceremony.electorate import Electorate, Quorum, is_signed
from repo_tools.signing.ceremony.reading import (
    ROOTS,
    SIGNATURE,
    predecessor,
    readable,
    root_in_force,
    targets_in_force,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tuf.api.metadata import Key

    from repo_tools.signing.ceremony.reading import Ceremony
    from repo_tools.workspace import Workspace

__all__ = [
    "CeremonyStatus",
    "Quorum",
    "add_signature",
    "assemble",
    "check_member",
    "electorate",
    "members",
    "proven",
    "signature_path",
    "status",
]


@dataclass(frozen=True)
class CeremonyStatus:
    """Who has signed, who is missing, and what is wrong.

    Attributes:
        ceremony: of which.
        quorums: all of them must be reached.
        signatures: those that verified.
        problems: signatures that were ignored, and why.
    """

    ceremony: Ceremony
    quorums: tuple[Quorum, ...]
    signatures: tuple[Signature, ...]
    problems: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every threshold is reached."""
        return bool(self.quorums) and not any(quorum.needed for quorum in self.quorums)

    @property
    def signed(self) -> tuple[str, ...]:
        """Names of the keys that have signed."""
        return tuple(dict.fromkeys(name for quorum in self.quorums for name in quorum.signed))

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the keys that can still bring it forward."""
        return tuple(
            dict.fromkeys(
                name for quorum in self.quorums if quorum.needed for name in quorum.missing
            )
        )


def _delegators(ws: Workspace, ceremony: Ceremony) -> list[tuple[str, Root | Targets]]:
    """Whose thresholds must be reached, each with the name by which people know it."""
    found: list[tuple[str, Root | Targets | None]] = []
    if isinstance(ceremony.signed, Root):
        before = predecessor(ws, ceremony.role)
        old = None if before is None else parse(before, Root, ceremony.role).signed
        found = [("the root before", old), ("the new root", ceremony.signed)]
    elif ceremony.role in TOP_LEVEL:
        found = [("root", root_in_force(ws)), *_bridged_from(ws)]
    else:
        found = [("targets", targets_in_force(ws))]
    return [(title, delegator) for title, delegator in found if delegator is not None]


def _bridged_from(ws: Workspace) -> list[tuple[str, Root | Targets | None]]:
    """The live root, if devices that have it must accept the new `targets` too (design 8)."""
    # Where only files are signed, the libraries of a workspace are not installed.
    from repo_tools.gone import gone_keys  # noqa: PLC0415
    from repo_tools.publishing.bridge import Passage, passage  # noqa: PLC0415

    following, live = root_in_force(ws), next(reversed(ws.roots()), None)
    old = None if live is None else parse(live, Root, Root.type).signed
    if old is None or following is None or following.version != old.version + 1:
        return []
    if not rotated(old, following, Targets.type):
        return []
    # Expiry needs no look: whoever still has the keys of an expired root may as well sign.
    way = passage(old, following, gone_keys(ws), old.expires - timedelta(seconds=1))
    return [(f"root {old.version}, until it is replaced", old)] if way is Passage.BRIDGE else []


def electorate(ws: Workspace, ceremony: Ceremony) -> Electorate:
    """Who may sign a ceremony, by what is in force in this workspace."""
    return Electorate(
        ceremony.name,
        ceremony.role,
        ceremony.tuf_role,
        ceremony.payload,
        tuple(_delegators(ws, ceremony)),
        ws.key_name,
    )


def proven(ws: Workspace, ceremony: Ceremony) -> bool:
    """Whether the predecessor has the signatures that rule over it now.

    A root that this workspace has was verified when it was published, link by link.
    """
    data = predecessor(ws, ceremony.role)
    if ceremony.role in ROOTS:
        return True
    if data is None:
        return False
    return any(
        is_signed(delegator, ceremony.role, data) for _, delegator in _delegators(ws, ceremony)
    )


def members(ws: Workspace, ceremony: Ceremony) -> dict[str, Key]:
    """Every key whose signature counts for at least one of the thresholds.

    Raises:
        ConfigurationError: nobody delegates to the role.
    """
    return electorate(ws, ceremony).members()


def check_member(ws: Workspace, ceremony: Ceremony, name: str) -> None:
    """Refuse a key that has no say in a ceremony.

    Raises:
        RefusedError: names the roles that the key does sign for.
    """
    if ws.keyring[name].key.keyid in members(ws, ceremony):
        return
    roles = ", ".join(ws.policy.roles_of(name)) or "none"
    raise RefusedError(
        f"key {name} is not in role {ceremony.role}; it is in: {roles}",
        f"firmroot ceremony show {ceremony.role} names the keys that may sign",
    )


def add_signature(ws: Workspace, ceremony: Ceremony, signature: Signature) -> None:
    """Keep a signature, after it has verified.

    Raises:
        RefusedError: its key is not in the role, or it does not verify.
    """
    if (problem := electorate(ws, ceremony).problem(signature)) is not None:
        raise RefusedError(problem, f"firmroot ceremony show {ceremony.role}")
    data = {**signature.to_dict(), "role": ceremony.role, "version": ceremony.version}
    replace_file(signature_path(ceremony, signature.keyid), readable(data))


def signature_path(ceremony: Ceremony, keyid: str) -> Path:
    """Where the signature of a key is kept."""
    return ceremony.directory / f"{keyid}{SIGNATURE}"


def _read_signatures(
    ws: Workspace, ceremony: Ceremony, voters: Electorate
) -> tuple[list[Signature], list[str]]:
    good, problems = [], []
    for path in sorted(ceremony.directory.glob(f"*{SIGNATURE}")):
        try:
            fields = json.loads(path.read_bytes())
            signature = Signature(str(fields["keyid"]), str(fields["sig"]))
        except (ValueError, KeyError, TypeError) as error:
            problems.append(f"{path.name} is not a signature file: {error!r}")
            continue
        problem = voters.problem(signature)
        if problem is None and path.name != f"{signature.keyid}{SIGNATURE}":
            problem = f"a second signature of {ws.key_name(signature.keyid)}, in {path.name}"
        if problem is None:
            good.append(signature)
        else:
            problems.append(problem)
    return good, problems


def status(ws: Workspace, ceremony: Ceremony) -> CeremonyStatus:
    """Verify every signature file, and count."""
    voters = electorate(ws, ceremony)
    signatures, problems = _read_signatures(ws, ceremony, voters)
    quorums = voters.quorums(signatures)
    if not quorums:
        missing = "root" if ceremony.role in TOP_LEVEL else "targets"
        problems.append(f"there is no {missing} role yet that says who signs {ceremony.role}")
    return CeremonyStatus(ceremony, quorums, tuple(signatures), tuple(problems))


def assemble(ws: Workspace, ceremony: Ceremony) -> bytes | None:
    """The metadata file, or None while signatures are missing."""
    found = status(ws, ceremony)
    return assemble_metadata(ceremony.signed, found.signatures) if found.complete else None
