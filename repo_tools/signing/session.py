"""One person signs in a workspace: what waits for my keys, what is unusual about it, signing it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from client_reference.errors import ConfigurationError, FirmrootError, RefusedError
from client_reference.nearest import did_you_mean
from repo_tools.metadata.roles import RECOVERY, hold_role
from repo_tools.publishing.channels import read_channel
from repo_tools.signing.ceremony import (
    add_signature,
    check_ceremony,
    check_member,
    members,
    open_ceremonies,
    predecessor,
    proven,
    status,
)
from repo_tools.signing.ceremony.reading import parse_role
from repo_tools.signing.keyfiles import public_key
from repo_tools.signing.known_good import FILE, KnownGood
from repo_tools.signing.review import review
from repo_tools.signing.services import KINDS, import_key
from repo_tools.signing.signers import FILES, load_file, open_signer, sign
from repo_tools.signing.unusual import Look, Person

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime

    from tuf.api.metadata import Root, Targets

    from repo_tools.signing.ceremony import Ceremony
    from repo_tools.signing.review import Review
    from repo_tools.signing.secrets import Secrets
    from repo_tools.workspace import Workspace

__all__ = [
    "Task",
    "my_keys",
    "open_memory",
    "people_of",
    "remember",
    "require_member",
    "review_ceremony",
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
        return _known(ws, public.keyid, full, secrets)
    if scheme not in FILES:
        raise ConfigurationError(
            f"this machine has no private key {key!r}; it has: {', '.join(uris) or 'none'}"
            f"{did_you_mean(key, uris)}",
            "name one of them, or a key file: --key file:PATH",
        )
    private = load_file(scheme, ws.directory / place, secrets, key)
    return _known(ws, public_key(private).keyid, key, secrets)


def _known(
    ws: Workspace, keyid: str, key: str, secrets: Secrets
) -> tuple[dict[str, str], str | None]:
    for name, holder in ws.keyring.items():
        if holder.key.keyid == keyid:
            secrets.share(key, name)
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


def sign_tasks(
    ws: Workspace,
    tasks: Sequence[Task],
    uris: dict[str, str],
    secrets: Secrets,
    keep: Callable[[], None] | None = None,
) -> int:
    """Sign; every key is opened once, and before anything is signed.

    Args:
        ws: the workspace; the caller holds its lock.
        tasks: what to sign.
        uris: of the keys, by name.
        secrets: where passphrases come from.
        keep: remembers what is signed. It is called before a signature is written: a run that was
            killed in between signs and remembers the same when it is run again.

    Returns:
        the number of signatures that were given.
    """
    names = dict.fromkeys(name for task in tasks for name in task.names)
    signers = {
        name: open_signer(uris[name], ws.keyring[name], secrets, ws.directory) for name in names
    }
    given = [
        (task.ceremony, sign(signers[name], ws.keyring[name], task.ceremony.payload))
        for task in tasks
        for name in task.names
    ]
    if keep is not None:
        keep()
    for ceremony, signature in given:
        add_signature(ws, ceremony, signature)
    return len(given)


def review_ceremony(ws: Workspace, ceremony: Ceremony, memory: KnownGood) -> Review:
    """What signing would change, and what is unusual about it, for the person of this clone.

    Raises:
        NotTrustedError: what this clone remembers of them is damaged.
    """
    data = predecessor(ws, ceremony.role)
    before = None if data is None else parse_role(data, ceremony.role, ceremony.role)
    known = memory.last(ceremony.role, (), ceremony.signed)
    look = Look(
        signed=ceremony.signed,
        before=before,
        proven=proven(ws, ceremony),
        known=known,
        at_known=None if known is None else _version(ws, ceremony.role, known.signed.version),
        people=people_of(ws),
        carries={path: file.read_bytes() for path, file in ceremony.carries.items()},
        tested=memory.tested,
        again=memory.has_signed(ceremony.role, (), ceremony.signed),
    )
    return review(ceremony.role, look, ws.key_name, _live_versions(ws, ceremony.role))


def _version(ws: Workspace, role: str, number: int) -> Root | Targets | None:
    """A version of a role that this clone still has, signed."""
    chain = {"root": ws.roots, RECOVERY: ws.recovery_roots}.get(role)
    if chain is not None:
        data = dict(enumerate(chain(), start=1)).get(number)
    else:
        data = predecessor(ws, role)
    found = None if data is None else parse_role(data, role, role)
    return found if found is not None and found.version == number else None


def open_memory(ws: Workspace) -> KnownGood:
    """What the person of this clone signed last, in this epoch. Raises as `KnownGood.open`."""
    return KnownGood.open(ws.memory / FILE, by_key=False)


def remember(ws: Workspace, memory: KnownGood, tasks: Sequence[Task], now: datetime) -> None:
    """Keep what was just signed as the last known-good of this clone's person."""
    for task in tasks:
        keyids = [ws.keyring[name].key.keyid for name in task.names]
        carries = {path: file.read_bytes() for path, file in task.ceremony.carries.items()}
        role, signed = task.ceremony.role, task.ceremony.signed
        memory.keep(role, keyids, signed, people_of(ws), carries, now)


def people_of(ws: Workspace) -> dict[str, Person]:
    """Who holds each key of `keys/`, by key id."""
    return {
        each.key.keyid: Person(each.name, each.holder, each.contact) for each in ws.keyring.values()
    }


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
