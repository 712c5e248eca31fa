"""Proof that signatures of every supported key type verify on this very machine.

An old `cryptography` makes securesystemslib fall back without a word: a good ML-DSA signature then
counts as a bad one, and a threshold of two looks like an attack. So at `init`, in `doctor` and when
metadata did not verify, built-in signatures with known answers are verified, and what is too old
is named.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Key, Signature

from client_reference.errors import ConfigurationError
from client_reference.trust.known_answers import ANSWERS, MESSAGE

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["MINIMUM_VERSIONS", "check_key_types", "installed_version"]

MINIMUM_VERSIONS = {"cryptography": "48", "securesystemslib": "1.6"}


def check_key_types(required: Collection[tuple[str, str]] | None = None) -> None:
    """Verify the known answers.

    Args:
        required: (keytype, scheme) pairs; all supported ones if None.

    Raises:
        ConfigurationError: one does not verify, or is not supported at all.
    """
    for keytype, scheme in sorted(ANSWERS if required is None else required):
        if (keytype, scheme) not in ANSWERS:
            raise ConfigurationError(
                f"keys of type {keytype}/{scheme} are not supported by this client",
                f"it verifies {', '.join(sorted(known for _, known in ANSWERS))}",
            )
        if not _verifies(keytype, scheme):
            found = ", ".join(f"{name} {installed_version(name)}" for name in MINIMUM_VERSIONS)
            needed = ", ".join(f"{name} >= {least}" for name, least in MINIMUM_VERSIONS.items())
            raise ConfigurationError(
                f"good signatures of type {keytype}/{scheme} do not verify here: found {found}, "
                f"expected {needed}",
                "install the versions that firmroot asks for, for this Python",
            )


def _verifies(keytype: str, scheme: str) -> bool:
    public, signature = ANSWERS[keytype, scheme]
    if keytype != "ed25519":
        public = f"-----BEGIN PUBLIC KEY-----\n{public}\n-----END PUBLIC KEY-----\n"
    fields = {"keytype": keytype, "scheme": scheme, "keyval": {"public": public}}
    good = Signature("known", base64.b64decode(signature).hex())
    try:
        key = Key.from_dict("known", fields)
        key.verify_signature(good, MESSAGE)
    except (UnverifiedSignatureError, ValueError):
        return False
    try:
        key.verify_signature(good, MESSAGE + b"!")
    except UnverifiedSignatureError:
        return True
    return False


def installed_version(package: str) -> str:
    """Of a distribution, for a message."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 # slow, rarely used

    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
