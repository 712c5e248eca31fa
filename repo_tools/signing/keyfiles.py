"""Private keys in passphrase-encrypted PKCS#8 files, and what can be read from a PEM file.

Encrypted with the strongest that `cryptography` offers for PKCS#8 (PBES2: PBKDF2-SHA256 and
AES-256), which is readable by OpenSSL. Its iteration count is fixed and low, so a passphrase must
carry the weight: `MIN_PASSPHRASE`. A private key is never written unencrypted, not even for a
moment, and a key file is never overwritten.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    EllipticCurvePrivateKey,
)
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.signer import SSlibKey

from client_reference.errors import ConfigurationError
from client_reference.trust.selftest import check_key_types
from repo_tools.files import create_file

try:
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
except ImportError:
    check_key_types()  # it names the library that is too old
    raise

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

__all__ = [
    "MIN_PASSPHRASE",
    "MIN_RSA_BITS",
    "KeyFileError",
    "PrivateKey",
    "WrongPassphraseError",
    "check_strength",
    "generate",
    "is_private",
    "load_private",
    "load_public",
    "public_key",
    "read_key_file",
    "write_private",
]

MIN_PASSPHRASE = 12
MIN_RSA_BITS = 3072
_NEW_RSA_BITS = 4096
# An RSA key of 16384 bits takes less than a fifth of it.
_MAX_KEY_FILE = 65_536
_SEQUENCE, _SHORTEST = 0x30, 4

PrivateKey: TypeAlias = (
    Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey | MLDSA65PrivateKey
)

_GENERATORS: Mapping[str, Callable[[], PrivateKey]] = {
    "ed25519": Ed25519PrivateKey.generate,
    "ecdsa-p256": lambda: generate_ec(SECP256R1()),
    "ecdsa-p384": lambda: generate_ec(SECP384R1()),
    "rsa": lambda: generate_rsa(65537, _NEW_RSA_BITS),
    "ml-dsa-65": MLDSA65PrivateKey.generate,
}


class KeyFileError(ConfigurationError):
    """A file does not hold a key that can be used."""


class WrongPassphraseError(ConfigurationError):
    """The passphrase does not open the key file."""


def generate(algorithm: str) -> PrivateKey:
    """A new private key, from the operating system's randomness.

    Args:
        algorithm: a name of `keys_policy.model.ALGORITHMS`.
    """
    return _GENERATORS[algorithm]()


def public_key(private: PrivateKey) -> SSlibKey:
    """The public half, with the key id that securesystemslib derives from it."""
    return SSlibKey.from_crypto(private.public_key())


def write_private(path: Path, private: PrivateKey, passphrase: bytes) -> None:
    """Create a key file, readable by its owner only.

    Raises:
        ConfigurationError: the file exists, or the passphrase is too short.
    """
    if len(passphrase) < MIN_PASSPHRASE:
        raise ConfigurationError(
            f"the passphrase has {len(passphrase)} characters, expected at least {MIN_PASSPHRASE}",
            "whoever gets the file can try many per second: take several random words",
        )
    data = private.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase)
    )
    try:
        create_file(path, data, mode=0o600)
    except FileExistsError as error:
        raise ConfigurationError(
            f"{path} exists; a private key is never overwritten", "choose another name"
        ) from error


def load_private(path: Path, passphrase: bytes | None) -> PrivateKey:
    """Open a key file.

    Raises:
        WrongPassphraseError: it is a key, but not for this passphrase.
        KeyFileError: it is missing, no key, not encrypted, weak, or of a kind that is not used.
    """
    data = read_key_file(path)
    try:
        private = load_pem_private_key(data, passphrase)
    except TypeError as error:
        if passphrase is None:
            raise WrongPassphraseError(
                f"{path} is encrypted and no passphrase was given"
            ) from error
        raise KeyFileError(
            f"{path} holds a private key that is not encrypted",
            f"encrypt it: openssl pkcs8 -topk8 -v2 aes-256-cbc -in {path} -out NEW",
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        # One wrong passphrase in 256 leaves something that looks like padding, and then garbage.
        if b"ENCRYPTED" in data and ("password" in str(error).lower() or _is_whole(data)):
            raise WrongPassphraseError(
                f"wrong passphrase for {path}", "try again; nothing was signed"
            ) from error
        if b"BEGIN OPENSSH PRIVATE KEY-----" in data:
            raise KeyFileError(
                f"{path} is a private key of OpenSSH", f"its URI is ssh:{path}"
            ) from error
        if b"PRIVATE KEY-----" in data:
            raise KeyFileError(
                f"{path} is damaged or cut off ({len(data)} bytes)",
                "restore your backup of it; if there is none, the key is lost: "
                "firmroot recover lost-key NAME",
            ) from error
        raise KeyFileError(
            f"{path} is not a private key file: expected PEM with BEGIN ENCRYPTED PRIVATE KEY",
            "restore your backup of it; if it never was a key, make one: firmroot key new NAME",
        ) from error
    if passphrase is None:
        raise KeyFileError(f"{path} holds a private key that is not encrypted")
    if not isinstance(private, PrivateKey):
        raise KeyFileError(f"{path} holds a {type(private).__name__}, which is not used here")
    check_strength(private.public_key(), path)
    return private


def _is_whole(pem: bytes) -> bool:
    """Whether a PEM file ends where its outermost DER element says (X.690, 8.1.3)."""
    if not pem.rstrip().endswith(b"-----END ENCRYPTED PRIVATE KEY-----"):
        return False
    body = b"".join(line for line in pem.splitlines() if not line.startswith(b"-----"))
    try:
        der = base64.b64decode(body, validate=True)
    except ValueError:
        return False
    if len(der) < _SHORTEST or der[0] != _SEQUENCE:
        return False
    size = der[1] & 0x7F if der[1] & 0x80 else 0
    length = int.from_bytes(der[2 : 2 + size], "big") if size else der[1]
    return len(der) == 2 + size + length


def load_public(path: Path) -> SSlibKey:
    """Read a PEM public key.

    Raises:
        KeyFileError: it is missing, no key, weak, or of a kind that is not used.
    """
    try:
        key = load_pem_public_key(read_key_file(path))
        check_strength(key, path)
        return SSlibKey.from_crypto(key)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError(
            f"{path} is not a key file: expected PEM with BEGIN PUBLIC KEY or "
            "BEGIN ENCRYPTED PRIVATE KEY",
        ) from error


def is_private(path: Path) -> bool:
    """Whether a PEM file holds a private key, as its first line says."""
    return b"PRIVATE KEY-----" in read_key_file(path)


def check_strength(key: PublicKeyTypes, path: Path) -> None:
    """Raises `KeyFileError` for an RSA key that will not outlive the devices."""
    if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        raise KeyFileError(
            f"{path} is an RSA key of {key.key_size} bits, expected at least {MIN_RSA_BITS}",
            "make a stronger one with: firmroot key new NAME --type rsa",
        )


def read_key_file(path: Path) -> bytes:
    """The whole of a file that is no longer than a key: a device or a disk image has no end.

    Raises:
        KeyFileError: it cannot be read, or is longer.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_KEY_FILE + 1)
    except OSError as error:
        raise KeyFileError(
            f"{path} cannot be read: {error.strerror}", "check the path of the key file"
        ) from error
    if len(data) > _MAX_KEY_FILE:
        raise KeyFileError(
            f"{path} is not a key file: it is longer than {_MAX_KEY_FILE} bytes",
            "check the path of the key file",
        )
    return data
