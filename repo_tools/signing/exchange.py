"""Ceremonies and signatures that travel by file between a workspace and machines elsewhere.

Whatever arrives in a file is judged like what arrives through git: a ceremony is checked before
anybody signs it, and a signature counts once it verifies. Signatures merge in any order, from any
number of copies of a file, as often as one likes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from securesystemslib.signer import Signature

from client_reference.errors import ConfigurationError
from repo_tools.metadata.edits import signed_bytes
from repo_tools.signing.ceremony import (
    DiscardedSignaturesError,
    add_signature,
    check_paths,
    electorate,
    open_ceremonies,
    predecessor,
    start_ceremony,
    status,
)
from repo_tools.signing.ceremony.guards import carried, keys_of
from repo_tools.signing.ceremony.reading import ROOTS, parse_role
from repo_tools.signing.portable import (
    FORMAT,
    Portable,
    pack,
    read_json,
    read_portable,
)
from repo_tools.signing.rules import peoples_roles
from repo_tools.signing.session import people_of

if TYPE_CHECKING:
    from pathlib import Path

    from repo_tools.signing.ceremony import Ceremony
    from repo_tools.workspace import Workspace

__all__ = ["Merged", "adopt", "export", "merge", "portable"]


def portable(ws: Workspace, ceremony: Ceremony) -> Portable:
    """A ceremony with everything that a machine elsewhere needs.

    Raises:
        RefusedError: what it carries is not what it signs.
    """
    before = predecessor(ws, ceremony.role)
    roots: tuple[bytes, ...] = ()
    if ceremony.role in ROOTS:
        roots = ws.roots() if ceremony.role == "root" else ws.recovery_roots()
        before = None
    voters = electorate(ws, ceremony)
    mentioned = {*keys_of(ceremony.signed), *voters.members()}
    for data in (*roots[-1:], *((before,) if before is not None else ())):
        mentioned.update(keys_of(parse_role(data, ceremony.role, ceremony.role)))
    people = {keyid: who for keyid, who in people_of(ws).items() if keyid in mentioned}
    return Portable(
        role=ceremony.role,
        signed=ceremony.signed,
        carries=carried(ceremony),
        roots=roots,
        predecessor=before,
        delegators=() if ceremony.role in ROOTS else tuple(voters.delegators),
        people=people,
        signatures=status(ws, ceremony).signatures,
    )


def export(ws: Workspace, ceremony: Ceremony, changes: list[str]) -> bytes:
    """A ceremony as one file. Raises as `portable`."""
    return pack(portable(ws, ceremony), changes)


def adopt(ws: Workspace, path: Path) -> Ceremony:
    """Bring an exported ceremony into this workspace, unless it is here already.

    The file may be a stranger's, and role and target paths become file names: nothing is written
    before all of it is judged. Who may sign, and what it replaces, this workspace knows itself.

    Raises:
        ConfigurationError: the file is not an exported ceremony.
        NotTrustedError: metadata in it does not verify.
        RefusedError: it does not follow what this workspace knows, or breaks a guard.
        DiscardedSignaturesError: another content of it has been signed here.
    """
    found = read_portable(path, among=peoples_roles(ws))
    check_paths(ws, found.role, found.signed)
    try:
        return start_ceremony(ws, found.role, found.signed, found.carries)
    except DiscardedSignaturesError as error:
        raise DiscardedSignaturesError(
            f"{path} has another content than the {found.name} that is open here; {error.message}",
            "compare the words of both (firmroot ceremony show). If the file is right: firmroot "
            f"ceremony abandon {found.role}, then sign it again",
        ) from error


# Signatures that come back.


@dataclass(frozen=True)
class Merged:
    """What one file brought.

    Attributes:
        path: of the file.
        ceremony: for which.
        added: names of the keys whose signatures are new here.
        known: of those that were here already.
        ignored: what did not count, and why.
    """

    path: Path
    ceremony: str
    added: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def merge(ws: Workspace, path: Path) -> Merged:
    """Add the signatures of a file: of a signature file, or of a copy of an exported ceremony.

    Raises:
        ConfigurationError: the file is neither.
    """
    document = read_json(path, "a signature file")
    try:
        if FORMAT in document:
            found = read_portable(path)
            name, payload, given = found.name, found.payload, list(found.signatures)
        else:
            given = [Signature(str(document["keyid"]), str(document["sig"]))]
            name, payload = f"{document['role']}-{document['version']}", None
    except (KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} is not a signature file: {error!r}",
            "firmroot sign FILE writes it beside the exported ceremony",
        ) from error
    ceremony = next((each for each in open_ceremonies(ws) if each.name == name), None)
    if ceremony is None:
        return Merged(path, name, ignored=(f"no ceremony {name} is open here",))
    if payload is not None and payload != signed_bytes(ceremony.signed):
        return Merged(path, name, ignored=(f"{name} here has another content",))
    return _add(ws, path, ceremony, given)


def _add(ws: Workspace, path: Path, ceremony: Ceremony, given: list[Signature]) -> Merged:
    voters = electorate(ws, ceremony)
    here = {signature.keyid for signature in status(ws, ceremony).signatures}
    added, known, ignored = [], [], []
    for signature in given:
        if (problem := voters.problem(signature)) is not None:
            ignored.append(problem)
        elif signature.keyid in here:
            known.append(ws.key_name(signature.keyid))
        else:
            add_signature(ws, ceremony, signature)
            here.add(signature.keyid)
            added.append(ws.key_name(signature.keyid))
    return Merged(path, ceremony.name, tuple(added), tuple(known), tuple(ignored))
