"""Private keys in OpenSSH's own files (`ssh:PATH`): ed25519, ECDSA and RSA, encrypted.

As with PKCS#8, a file that is not encrypted is refused. `ssh-agent` is not asked: it signs what SSH
signs, not metadata.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from client_reference.errors import ConfigurationError
from repo_tools.signing.keyfiles import (
    KeyFileError,
    PrivateKey,
    WrongPassphraseError,
    check_strength,
    read_key_file,
)

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["is_openssh", "load_openssh"]

_HEADER = b"-----BEGIN OPENSSH PRIVATE KEY-----"


def is_openssh(path: Path) -> bool:
    """Whether a file says that it is OpenSSH's.

    Raises:
        KeyFileError: it cannot be read.
    """
    return read_key_file(path).lstrip().startswith(_HEADER)


def load_openssh(path: Path, passphrase: bytes) -> PrivateKey:
    """Open one.

    Raises:
        WrongPassphraseError: it is a key, but not for this passphrase.
        KeyFileError: it is no such file, is not encrypted, or of a kind or size that is not used.
        ConfigurationError: a library that opens it is missing.
    """
    data = read_key_file(path)
    if not data.lstrip().startswith(_HEADER):
        raise KeyFileError(
            f"{path} is not a private key of OpenSSH: expected {_HEADER.decode()}",
            "for a PEM file the URI is file:PATH",
        )
    if not _is_encrypted(data):
        raise KeyFileError(
            f"{path} holds a private key that is not encrypted",
            f"give it a passphrase: ssh-keygen -p -f {path}",
        )
    try:
        private = load_ssh_private_key(data, passphrase)
    except UnsupportedAlgorithm as error:
        if "bcrypt" in str(error):
            raise ConfigurationError(
                f"{path} is encrypted as OpenSSH does it, which needs bcrypt",
                "pip install 'firmroot[ssh]'",
            ) from error
        raise KeyFileError(f"{path}: {error}") from error
    except ValueError as error:
        if "check" in str(error).lower() or "password" in str(error).lower():
            raise WrongPassphraseError(
                f"wrong passphrase for {path}", "try again; nothing was signed"
            ) from error
        raise KeyFileError(
            f"{path} is damaged or cut off ({len(data)} bytes)", "restore your backup of it"
        ) from error
    if not isinstance(private, PrivateKey):
        raise KeyFileError(f"{path} holds a {type(private).__name__}, which is not used here")
    check_strength(private.public_key(), path)
    return private


def _is_encrypted(data: bytes) -> bool:
    """By trying without a passphrase, which the library refuses for one that is."""
    try:
        load_ssh_private_key(data, None)
    except TypeError:
        return True
    except (ValueError, UnsupportedAlgorithm):
        return True  # what is wrong with it is said when it is opened
    return False
