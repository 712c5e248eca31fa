"""One person signs: what waits for my keys, signing it, and carrying it by file between machines.

An exported ceremony and a signature are each one JSON file, so that a machine without network or
git can take part. Whatever arrives in a file is judged like what arrives through git: it is adopted
as a ceremony and checked before anybody signs, and a signature counts once it verifies.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from securesystemslib.signer import Signature
from tuf.api.metadata import Root, Targets

from client_reference.errors import ConfigurationError, FirmrootError, RefusedError
from client_reference.nearest import did_you_mean
from repo_tools.metadata.repository import parse
from repo_tools.metadata.roles import RECOVERY, hold_role
from repo_tools.publishing.channels import read_channel
from repo_tools.reporting.difference import describe_change
from repo_tools.signing.ceremony import (
    add_signature,
    check_ceremony,
    check_member,
    check_paths,
    find_ceremony,
    members,
    open_ceremonies,
    predecessor,
    start_ceremony,
    status,
)
from repo_tools.signing.keyfiles import public_key
from repo_tools.signing.rules import peoples_roles
from repo_tools.signing.services import KINDS, import_key
from repo_tools.signing.signers import FILES, load_file, open_signer, sign

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from repo_tools.signing.ceremony import Ceremony
    from repo_tools.signing.secrets import Secrets
    from repo_tools.workspace import Workspace

__all__ = [
    "Task",
    "adopt",
    "describe_ceremony",
    "export",
    "merge",
    "my_keys",
    "require_member",
    "sign_tasks",
    "waiting",
]


@dataclass(frozen=True)
class Task:
    """One ceremony, and those of my keys that it waits for."""

    ceremony: Ceremony
    names: tuple[str, ...]


def my_keys(ws: Workspace, key: str | None, secrets: Secrets) -> tuple[dict[str, str], str | None]:
    """The key URIs to sign with, by name; all of this machine's if none is named.

    Args:
        ws: the workspace.
        key: a key name or URI, or None.
        secrets: for a URI that no name is known for.

    Returns:
        the URIs, and the name of the one that was asked for.

    Raises:
        ConfigurationError: there is no such key here.
    """
    uris = ws.key_uris()
    if key is None:
        return {name: uri for name, uri in uris.items() if name in ws.keyring}, None
    for name, uri in uris.items():
        if key in {name, uri} and name in ws.keyring:
            return {name: uri}, name
    scheme, _, place = key.partition(":")
    if scheme in KINDS:
        full, public = import_key(key, secrets)
        return _known(ws, public.keyid, full)
    if scheme not in FILES:
        raise ConfigurationError(
            f"this machine has no private key {key!r}; it has: {', '.join(uris) or 'none'}"
            f"{did_you_mean(key, uris)}",
            "name one of them, or a key file: --key file:PATH",
        )
    private = load_file(scheme, ws.directory / place, secrets.passphrase(key))
    return _known(ws, public_key(private).keyid, key)


def _known(ws: Workspace, keyid: str, key: str) -> tuple[dict[str, str], str | None]:
    for name, holder in ws.keyring.items():
        if holder.key.keyid == keyid:
            return {name: key}, name
    raise ConfigurationError(
        f"{key} holds the key {keyid[:8]}, which is not in keys/",
        "bring in its public half first: firmroot key import FILE",
    )


def waiting(
    ws: Workspace, names: Collection[str], ceremonies: Sequence[Ceremony] | None = None
) -> list[Task]:
    """The ceremonies that some of these keys can sign and have not.

    Raises:
        RefusedError: one of them must not be signed by anybody.
    """
    tasks = []
    for ceremony in open_ceremonies(ws) if ceremonies is None else ceremonies:
        allowed = members(ws, ceremony)
        signed = status(ws, ceremony).signed
        mine = tuple(
            name for name in names if ws.keyring[name].key.keyid in allowed and name not in signed
        )
        if mine:
            check_ceremony(ws, ceremony)
            tasks.append(Task(ceremony, mine))
    return tasks


def sign_tasks(ws: Workspace, tasks: Sequence[Task], uris: dict[str, str], secrets: Secrets) -> int:
    """Sign; every key is opened once, and before anything is signed.

    Returns:
        the number of signatures that were given.
    """
    names = dict.fromkeys(name for task in tasks for name in task.names)
    signers = {
        name: open_signer(uris[name], ws.keyring[name], secrets, ws.directory) for name in names
    }
    for task in tasks:
        for name in task.names:
            signature = sign(signers[name], ws.keyring[name], task.ceremony.payload)
            add_signature(ws, task.ceremony, signature)
    return sum(len(task.names) for task in tasks)


def describe_ceremony(ws: Workspace, ceremony: Ceremony) -> list[str]:
    """What signing would change, one line each."""
    before = predecessor(ws, ceremony.role)
    carries = {path: file.read_bytes() for path, file in ceremony.carries.items()}
    old: Root | Targets | None = None
    if before is not None and isinstance(ceremony.signed, Root):
        old = parse(before, Root, "root").signed
    elif before is not None:
        old = parse(before, Targets, ceremony.role).signed
    versions = _live_versions(ws, ceremony.role)
    return describe_change(ceremony.role, old, ceremony.signed, carries, ws.key_name, versions)


def _live_versions(ws: Workspace, role: str) -> dict[int, str]:
    """What people call the sequences that a hold names; nothing if this clone cannot look.

    Only what is live: of an open ceremony a stranger may have written the versions.
    """
    for product in ws.config.products.values():
        for channel in product.channels:
            if role == hold_role(product.name, channel):
                with contextlib.suppress(FirmrootError):
                    live = read_channel(ws, ws.storage(), product.name, channel).live
                    return {each.sequence: each.version for each in live.releases} if live else {}
    return {}


def require_member(ws: Workspace, name: str, ceremonies: Sequence[Ceremony]) -> None:
    """Refuse a key that was named and has no say in anything that is open.

    Raises:
        RefusedError: names the roles that it does sign for.
    """
    for index, ceremony in enumerate(ceremonies):
        try:
            check_member(ws, ceremony, name)
        except RefusedError:
            if index + 1 == len(ceremonies):
                raise
        else:
            return


# By file.


def export(ceremony: Ceremony) -> bytes:
    """A ceremony as one file, for `adopt` on another machine."""
    document = {
        "ceremony": ceremony.name,
        "role": ceremony.role,
        "signed": ceremony.signed.to_dict(),
        "targets": {
            path: base64.b64encode(file.read_bytes()).decode()
            for path, file in ceremony.carries.items()
        },
    }
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def adopt(ws: Workspace, path: Path) -> Ceremony:
    """Bring an exported ceremony into this workspace, unless it is here already.

    The file may be a stranger's, and role and target paths become file names: nothing is written
    before all of it is judged.

    Raises:
        ConfigurationError: the file is not an exported ceremony.
        RefusedError: it does not follow what this workspace knows, or breaks a guard.
        DiscardedSignaturesError: another content of it has been signed here.
    """
    document = _read_json(path, "an exported ceremony")
    try:
        role = str(document["role"])
        data = json.dumps({"signatures": [], "signed": document["signed"]}).encode()
        carries = {
            str(target): base64.b64decode(content, validate=True)
            for target, content in document["targets"].items()
        }
    except (KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise ConfigurationError(
            f"{path} is not an exported ceremony: {error!r}",
            "make one with: firmroot ceremony export ROLE --to FILE",
        ) from error
    if role not in (known := peoples_roles(ws)):
        raise RefusedError(
            f"{path} is a ceremony of {role!r}; the roles that people sign here are: "
            f"{', '.join(known)}",
            "take the workspace as it is in git (git pull), or find out who wrote the file",
        )
    signed: Root | Targets
    if role in {"root", RECOVERY}:
        signed = parse(data, Root, str(path)).signed
    else:
        signed = parse(data, Targets, str(path)).signed
    check_paths(ws, role, signed)
    return start_ceremony(ws, role, signed, carries)


def merge(ws: Workspace, path: Path) -> tuple[Ceremony, str]:
    """Add a signature that came as a file.

    Returns:
        the ceremony, and the name of the key.

    Raises:
        ConfigurationError: the file is not a signature, or its ceremony is not open here.
        RefusedError: it does not verify, or its key is not in the role.
    """
    document = _read_json(path, "a signature file")
    try:
        signature = Signature(str(document["keyid"]), str(document["sig"]))
        name = f"{document['role']}-{document['version']}"
    except (KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} is not a signature file: {error!r}",
            "firmroot sign FILE writes it beside the exported ceremony",
        ) from error
    ceremony = find_ceremony(ws, name)
    add_signature(ws, ceremony, signature)
    return ceremony, ws.key_name(signature.keyid)


def _read_json(path: Path, what: str) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path} is not {what}: {error}") from error
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path} is not {what}: expected a JSON object")
    return document
