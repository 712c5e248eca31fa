"""Keys of a workspace: making and importing them, and their public halves in `keys/<name>.toml`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tomlkit

from client_reference.errors import ConfigurationError
from client_reference.nearest import did_you_mean
from keys_policy.checks import public_bytes
from keys_policy.model import ALGORITHMS, NAME, ONLINE_ROLES, KeyHolder
from repo_tools.files import create_file, replace_file
from repo_tools.signing.keyfiles import generate, public_key, write_private
from repo_tools.signing.services import KINDS, import_key
from repo_tools.signing.signers import FILES, load_file, open_signer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from securesystemslib.signer import Key

    from repo_tools.signing.secrets import Secrets
    from repo_tools.workspace import Workspace

__all__ = [
    "KEY_DIRECTORY",
    "About",
    "add_public",
    "add_to_roles",
    "import_private",
    "new_key",
    "usual_holder",
]

# Where private keys of this machine are, relative to the workspace.
KEY_DIRECTORY = ".firmroot/keys"


@dataclass(frozen=True)
class About:
    """What people say of a key; see `KeyHolder`."""

    contact: str = ""
    place: str = ""
    made: date | None = None


_NOTHING = About()

_YEAR = re.compile(r"-20\d\d")


def usual_holder(name: str) -> str:
    """Whose a key is if nobody says so: `alice-2026` and `alice-2027` are keys of one alice."""
    stem, year = name[:-5], name[-5:]
    return stem if stem and _YEAR.fullmatch(year) else name


def new_key(
    ws: Workspace,
    name: str,
    algorithm: str,
    holder: str,
    passphrase: bytes,
    about: About = _NOTHING,
) -> KeyHolder:
    """Make a key: private half encrypted below `.firmroot`, public half in `keys/`.

    Raises:
        ConfigurationError: the name is taken or malformed, or the passphrase is too short.
    """
    _check_new(ws, name)
    if algorithm not in ws.policy.algorithms:
        raise ConfigurationError(
            f"the policy does not allow {algorithm} keys, only {', '.join(ws.policy.algorithms)}",
            "choose another --type, or change algorithms in policy.toml",
        )
    private = generate(algorithm)
    path = ws.directory / KEY_DIRECTORY / f"{name}.pem"
    write_private(path, private, passphrase)
    ws.add_key_uri(name, f"file:{KEY_DIRECTORY}/{name}.pem")
    return add_public(ws, name, public_key(private), holder, "file", about)


def import_private(
    ws: Workspace,
    name: str,
    uri: str,
    holder: str,
    secrets: Secrets,
    about: About = _NOTHING,
) -> KeyHolder:
    """Use a private key where it is: only its public half and its place are written.

    A token or service tells the public half, and makes a test signature that must verify. Where
    the workspace knows the key under that name, this machine learns where its private half is.

    Args:
        ws: the workspace.
        name: what to call it.
        uri: `file:` or `ssh:` with an absolute path, or of a token or service.
        holder: who has it.
        secrets: its passphrase or PIN.
        about: what people say of it.

    Raises:
        ConfigurationError: the key or passphrase is wrong, or the name is taken.
        ActionRequiredError, RetryLaterError: the token or service is not there.
    """
    known = ws.keyring.get(name)
    if known is None:
        _check_new(ws, name)
    scheme, _, place = uri.partition(":")
    if scheme in FILES:
        key = public_key(load_file(scheme, Path(place), secrets, name))
        custody = "file"
    else:
        uri, key = import_key(uri, secrets)
        custody = KINDS[scheme].custody
    # A key that was adopted has the id that it had before.
    if known is not None and public_bytes(known.key) != public_bytes(key):
        _check_new(ws, name)
    about_key = KeyHolder(name, holder, custody, key)
    open_signer(uri, known or about_key, secrets, ws.directory)
    if known is not None:
        ws.add_key_uri(name, uri)
        return known
    made = add_public(ws, name, key, holder, custody, about)
    ws.add_key_uri(name, uri)
    return made


def add_public(
    ws: Workspace, name: str, key: Key, holder: str, custody: str, about: About = _NOTHING
) -> KeyHolder:
    """Write `keys/<name>.toml`.

    Raises:
        ConfigurationError: the name is taken, the key is here under another name, or its type is
            not used.
    """
    _check_new(ws, name)
    if (key.keytype, key.scheme) not in ALGORITHMS.values():
        raise ConfigurationError(
            f"a {key.keytype} key with {key.scheme} is not used here; "
            f"expected one of {', '.join(ALGORITHMS)}"
        )
    for other in ws.keyring.values():
        if public_bytes(other.key) == public_bytes(key):
            raise ConfigurationError(
                f"this key is here already, as {other.name}",
                "one key has one name: a threshold would count it twice; its private half comes "
                f"under that name: --name {other.name}",
            )
    document = tomlkit.document()
    fields = {
        "schema": 1,
        "holder": holder,
        "custody": custody,
        **{name: value for name, value in vars(about).items() if value},
        "keyid": key.keyid,
        "keytype": key.keytype,
        "scheme": key.scheme,
        "public": key.keyval["public"],
    }
    for field, value in fields.items():
        document[field] = (
            tomlkit.string(value, multiline=True)
            if isinstance(value, str) and "\n" in value
            else value
        )
    try:
        create_file(ws.directory / "keys" / f"{name}.toml", tomlkit.dumps(document).encode())
    except FileExistsError as error:
        raise ConfigurationError(f"keys/{name}.toml exists", "choose another name") from error
    return KeyHolder(name, holder, custody, key, about.contact, about.place, about.made)


def add_to_roles(ws: Workspace, name: str, roles: Sequence[str]) -> None:
    """Give a key a say in roles of the policy; for online roles `publish` also learns its URI.

    Raises:
        ConfigurationError: the policy has no such role.
    """
    path = ws.directory / "policy.toml"
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    sections = document["roles"]
    for role in roles:
        if role not in ws.policy.roles:
            raise ConfigurationError(
                f"the policy has no role {role!r}; it has {', '.join(ws.policy.roles)}"
                f"{did_you_mean(role, ws.policy.roles)}",
                "name one of them with --role",
            )
        keys = sections[role]["keys"]
        if name not in keys:
            keys.append(name)
    replace_file(path, tomlkit.dumps(document).encode())
    if set(roles).intersection(ONLINE_ROLES) and (uri := ws.key_uris().get(name)):
        set_online(ws, {**ws.config.online, name: uri})


def set_online(ws: Workspace, uris: dict[str, str]) -> None:
    """Write the key URIs that `publish` and `refresh` use by themselves."""
    path = ws.directory / "firmroot.toml"
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    table = tomlkit.table()
    for name, uri in sorted(uris.items()):
        table[name] = uri
    document["online"] = table
    replace_file(path, tomlkit.dumps(document).encode())


def _check_new(ws: Workspace, name: str) -> None:
    if NAME.fullmatch(name) is None:
        raise ConfigurationError(
            f"{name!r} is not a name for a key", "small letters and digits, with single '-' between"
        )
    if name in ws.keyring:
        raise ConfigurationError(
            f"there is a key {name} already ({ws.keyring[name].key.keyid[:8]})",
            "choose another name, such as the holder's with the year",
        )
