"""Signing apart: with nothing but a ceremony's file and a key; no workspace and no network.

Whose key it is, the file says and the key proves. What this signer signed last is kept in a file of
the user (`repo_tools.signing.known_good`), by role and key: a file cannot choose what it is
compared with.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from client_reference.errors import ConfigurationError, RefusedError
from client_reference.nearest import did_you_mean
from keys_policy.model import KeyHolder
from repo_tools.signing.keyfiles import public_key
from repo_tools.signing.review import review
from repo_tools.signing.services import KINDS
from repo_tools.signing.signers import FILES, load_file
from repo_tools.signing.unusual import Look

if TYPE_CHECKING:
    from collections.abc import Collection

    from repo_tools.signing.known_good import KnownGood
    from repo_tools.signing.portable import Portable
    from repo_tools.signing.review import Review
    from repo_tools.signing.secrets import Secrets

__all__ = ["find_holder", "review_apart"]


def find_holder(
    portable: Portable, uri: str, name: str | None, secrets: Secrets, directory: Path
) -> KeyHolder:
    """Whose key a URI is, among those who may sign.

    Args:
        portable: the ceremony.
        uri: of the private key.
        name: of the key, if the user says it.
        secrets: for a key file, whose public half is in it.
        directory: what relative paths are relative to.

    Raises:
        ConfigurationError: it is no URI of a key, the file is no key, or it must be said whose the
            key is.
        RefusedError: the key has no say in this ceremony.
    """
    scheme, separator, place = uri.partition(":")
    if not separator or scheme not in {*FILES, *KINDS}:
        known = ", ".join(f"{each}:..." for each in (*FILES, *KINDS))
        plain = place or uri
        raise ConfigurationError(
            f"{uri!r} is not a key URI: expected {known}",
            f"a key in a file: --key file:{plain} (of OpenSSH: ssh:{plain}); in a token: "
            "--key hsm:NUMBER?label=TOKEN",
        )
    members = portable.electorate.members()
    names = {portable.name_of(keyid): keyid for keyid in members}
    if name is not None:
        if name not in names:
            raise RefusedError(
                f"{name} may not sign {portable.name}; those who may: {', '.join(sorted(names))}"
                f"{did_you_mean(name, names)}",
                "name the key as the file does, or find out who wrote the file",
            )
        keyid = names[name]
    elif scheme in FILES:
        path = directory / Path(place).expanduser()
        keyid = public_key(load_file(scheme, path, secrets, uri)).keyid
        if keyid not in members:
            raise RefusedError(
                f"{uri} holds the key {keyid[:8]}, which has no say in {portable.name}; those who "
                f"may sign: {', '.join(sorted(names))}",
                "take your other key, or ask who sent the file",
            )
    else:
        raise ConfigurationError(
            f"{uri} does not say whose key it is; those who may sign: {', '.join(sorted(names))}",
            "a token or service does not tell before its PIN is given; say which key is yours: "
            "--as NAME",
        )
    person = portable.people.get(keyid)
    called = person.name if person is not None else keyid[:8]
    return KeyHolder(called, person.holder if person else "", "", members[keyid])


def review_apart(portable: Portable, memory: KnownGood, keyids: Collection[str]) -> Review:
    """What signing it would change, and what is unusual about it, for the user of this machine.

    Args:
        portable: the ceremony.
        memory: what the user signed last.
        keyids: the user's key, or all that may sign where it is not known yet.

    Raises:
        NotTrustedError: the memory is damaged.
    """
    known = memory.last(portable.role, keyids, portable.signed)
    look = Look(
        signed=portable.signed,
        before=portable.before,
        proven=portable.proven,
        known=known,
        at_known=None if known is None else portable.version(known.signed.version),
        people=portable.people,
        carries=portable.carries,
        tested=memory.tested,
        again=memory.has_signed(portable.role, keyids, portable.signed),
    )
    return review(portable.role, look, portable.name_of)
