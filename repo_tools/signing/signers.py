"""Key URIs to signers: one explicit table of schemes.

`file:PATH` is a key file (`repo_tools.signing.keyfiles`), `ssh:PATH` one of OpenSSH
(`repo_tools.signing.openssh`), both relative to the workspace; tokens and services are in
`repo_tools.signing.services`. A signer is proven before it is used: what it signs must verify with
the public key that the workspace knows under that name, so a mixed-up file is found here and not by
devices.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import CryptoSigner, SSlibKey

from client_reference.errors import ConfigurationError
from keys_policy.checks import public_bytes
from repo_tools.signing.keyfiles import WrongPassphraseError, load_private, public_key
from repo_tools.signing.openssh import load_openssh
from repo_tools.signing.services import KINDS, open_service

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from securesystemslib.signer import Signature, Signer

    from keys_policy.model import KeyHolder
    from repo_tools.signing.keyfiles import PrivateKey
    from repo_tools.signing.secrets import Secrets

__all__ = ["FILES", "load_file", "open_signer", "sign"]

_PROBE = b"firmroot: which key is this?"


def open_signer(uri: str, holder: KeyHolder, secrets: Secrets, directory: Path) -> Signer:
    """Open a private key and prove that it belongs to the public one.

    Args:
        uri: such as `file:.firmroot/keys/alice.pem`.
        holder: the public key that it must belong to.
        secrets: where its passphrase comes from.
        directory: what relative paths are relative to.

    Raises:
        ConfigurationError: the URI, the file or the passphrase is wrong, or it is another key.
        ActionRequiredError: the passphrase is needed and nobody can be asked.
    """
    scheme, _, rest = uri.partition(":")
    if scheme in FILES:
        signer = _open_file(scheme, rest, holder, secrets, directory)
    elif scheme in KINDS:
        signer = open_service(uri, holder.key, secrets)
    else:
        known = ", ".join(f"{each}:..." for each in (*FILES, *KINDS))
        raise ConfigurationError(
            f"{uri!r} is not a key URI: expected {known}",
            f"correct it in .firmroot/keys.toml or firmroot.toml, for {holder.name}",
        )
    sign(signer, holder, _PROBE)
    return signer


def sign(signer: Signer, holder: KeyHolder, payload: bytes) -> Signature:
    """Sign, and verify at once: a faulty token or library is found before anybody relies on it.

    Raises:
        ConfigurationError: the signature does not verify with the holder's public key.
    """
    signature = signer.sign(payload)
    try:
        holder.key.verify_signature(signature, payload)
    except UnverifiedSignatureError as error:
        raise ConfigurationError(
            f"what the private key of {holder.name} signs does not verify with keys/"
            f"{holder.name}.toml: they do not belong together",
            "firmroot key list shows which private key belongs to which name",
        ) from error
    return signature


def load_file(scheme: str, path: Path, secrets: Secrets, name: str) -> PrivateKey:
    """Open a key file of either form with the passphrase of that name.

    Raises:
        ActionRequiredError: as `Secrets.passphrase`.
        WrongPassphraseError, KeyFileError: as `keyfiles.load_private`; says where a wrong one is
            from.
    """
    passphrase = secrets.passphrase(name)
    try:
        return FILES[scheme](path, passphrase)
    except WrongPassphraseError as error:
        raise WrongPassphraseError(error.message, secrets.after_wrong) from error


def _open_file(
    scheme: str, path: str, holder: KeyHolder, secrets: Secrets, directory: Path
) -> Signer:
    place = directory / Path(path).expanduser()
    private = load_file(scheme, place, secrets, holder.name)
    found = public_key(private)
    if not isinstance(holder.key, SSlibKey) or public_bytes(found) != public_bytes(holder.key):
        raise ConfigurationError(
            f"{path} is not the private key of {holder.name}: its key id is {found.keyid[:8]}, "
            f"keys/{holder.name}.toml has {holder.key.keyid[:8]}",
            "if another one was made under its name elsewhere, move this file away; firmroot key "
            "list shows which private key belongs to which name",
        )
    return CryptoSigner(private, holder.key)


FILES: Mapping[str, Callable[[Path, bytes], PrivateKey]] = {
    "file": load_private,
    "ssh": load_openssh,
}
"""Schemes of URIs that name a file of this machine, and how it is opened."""
