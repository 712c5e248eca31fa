"""Private keys that are not in files: tokens (PKCS#11), cloud KMS, Vault.

One table of kinds by URI scheme; the signing itself is securesystemslib's. What its SDKs raise is
translated here, once, into what the signer must do. No SDK is imported before a URI with its scheme
is used (`repo_tools.sdks`).

    hsm:2?label=acme-root        object 2 on the token with that label (YubiKey PIV: 2 is slot 9c)
    awskms:alias/firmroot-ts     a key of AWS KMS, by id, ARN or alias
    hv:firmroot-ts/1             version 1 of a key in the transit engine of Vault or OpenBao
    gcpkms:projects/...          Google Cloud KMS (not tested here)
    azurekms:VAULT/KEY           Azure Key Vault (not tested here)
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qs, urlencode, urlsplit

from securesystemslib.exceptions import UnsupportedAlgorithmError, UnsupportedLibraryError
from securesystemslib.signer import (
    AWSSigner,
    AzureSigner,
    GCPSigner,
    HSMSigner,
    Signer,
    SSlibKey,
    VaultSigner,
)

from client_reference.errors import (
    ActionRequiredError,
    ConfigurationError,
    FirmrootError,
    RetryLaterError,
)
from repo_tools.sdks import load
from repo_tools.signing.secrets import Secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from securesystemslib.signer import Key, SecretsHandler, Signature

__all__ = ["KINDS", "Found", "Kind", "discover", "explain", "import_key", "open_service"]

MODULE = "PYKCS11LIB"
"""The variable that names the PKCS#11 library of a token."""
_MODULES = (
    "libsofthsm2.so",
    "softhsm/libsofthsm2.so",
    "libykcs11.so",
    "opensc-pkcs11.so",
)
_TEST = b"firmroot: a key is imported"


@dataclass(frozen=True)
class Found:
    """A key that a token or service has.

    Attributes:
        uri: how it is imported.
        about: what it is, for people.
    """

    uri: str
    about: str


Import: TypeAlias = "Callable[[Any, str, Secrets], tuple[str, Key]]"


@dataclass(frozen=True)
class Kind:
    """A kind of place for private keys.

    Attributes:
        what: for people.
        custody: what `keys/<name>.toml` says.
        extra: of the distribution, which brings its SDK.
        signer: of securesystemslib, as it is without its SDK.
        read: public key and full URI for what follows the scheme.
        find: the keys that are there; None if it cannot be asked.
        tested: whether a test of this project signs with it.
    """

    what: str
    custody: str
    extra: str
    signer: type[Signer]
    read: Import
    find: Callable[[str], list[Found]] | None = None
    tested: bool = True


def open_service(uri: str, key: Key, secrets: Secrets) -> Signer:
    """A signer for a key that is not in a file.

    Raises:
        ConfigurationError, ActionRequiredError, RetryLaterError: see the table of this module.
    """
    kind, where = _kind(uri)
    with _translated(kind, uri, secrets):
        signer = load(kind.signer).from_priv_key_uri(uri, key, lambda _: secrets.pin(_token(where)))
    return _Translating(signer, kind, uri, secrets)


def import_key(uri: str, secrets: Secrets) -> tuple[str, SSlibKey]:
    """The public key that a token or service has, and the full URI of the private one.

    Raises:
        As `open_service`.
    """
    kind, where = _kind(uri)
    with _translated(kind, uri, secrets):
        full, key = kind.read(load(kind.signer), where, secrets)
    if not isinstance(key, SSlibKey):
        raise ConfigurationError(f"{uri} is a {type(key).__name__}, which is not used here")
    return full, key


def discover(uri: str) -> list[Found]:
    """The keys of a token or service, such as `hsm:`.

    Raises:
        As `open_service`.
    """
    kind, where = _kind(uri)
    if kind.find is None:
        raise ConfigurationError(
            f"{kind.what} cannot be asked for its keys", "name the key; see docs/signers.md"
        )
    with _translated(kind, uri, Secrets()):
        load(kind.signer)
        return kind.find(where)


class _Translating(Signer):
    """A signer whose errors are ours. See `securesystemslib.signer.Signer`."""

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> Signer:
        """Open one, with another source of PINs. Raises as `open_service`."""
        return open_service(priv_key_uri, public_key, Secrets(prompt=secrets_handler))

    def __init__(self, signer: Signer, kind: Kind, uri: str, secrets: Secrets) -> None:
        self._signer = signer
        self._kind = kind
        self._uri = uri
        self._secrets = secrets

    @property
    def public_key(self) -> Key:
        """The public half, as it was given."""
        return self._signer.public_key

    def sign(self, payload: bytes) -> Signature:
        """Sign. Raises as `open_service`."""
        with _translated(self._kind, self._uri, self._secrets):
            return self._signer.sign(payload)


def _kind(uri: str) -> tuple[Kind, str]:
    scheme, _, where = uri.partition(":")
    return KINDS[scheme], where


# Tokens


def _token(where: str) -> str:
    """The label of a token in a URI; empty if it names none."""
    return parse_qs(urlsplit(where).query).get("label", [""])[-1]


def _named(where: str) -> str:
    label = _token(where)
    return f"token {label}" if label else "the only token"


def _find_module() -> str:
    """The PKCS#11 library: what the environment says, else the only one that is installed."""
    if named := os.environ.get(MODULE):
        if not Path(named).exists():
            raise ConfigurationError(
                f"{MODULE} names {named}, which does not exist",
                "it is the PKCS#11 library of your token, such as libykcs11.so",
            )
        return named
    places = [
        *Path("/usr/lib").glob("*-linux-gnu"), Path("/usr/lib"), Path("/usr/local/lib"),
    ]  # fmt: skip
    there = [str(place / name) for name in _MODULES for place in places if (place / name).exists()]
    found = list({Path(each).resolve(): each for each in there}.values())
    if len(found) == 1:
        os.environ[MODULE] = found[0]
        return found[0]
    raise ConfigurationError(
        f"which PKCS#11 library is the token's? {MODULE} is not set, and "
        + (
            f"{', '.join(found)} are installed" if found else "none is installed that is known here"
        ),
        f"export {MODULE}=/path/of/the/library.so",
    )


def _read_token(signer: Any, where: str, secrets: Secrets) -> tuple[str, Key]:  # noqa: ANN401 # HSMSigner, with its SDK
    _find_module()
    number = urlsplit(where).path
    if number and not number.isdecimal():
        raise ConfigurationError(
            f"hsm:{where}: expected the number of an object, such as hsm:2?label=TOKEN",
            "firmroot key list hsm: shows what is on the tokens",
        )
    found: tuple[str, Key] = signer.import_(
        int(number) if number else None, _token(where) or None, lambda _: secrets.pin(_token(where))
    )
    return found


def _find_on_tokens(where: str) -> list[Found]:
    import pkcs11  # noqa: PLC0415 # only for who has a token

    found = []
    for token in pkcs11.lib(_find_module()).get_tokens(
        token_flags=pkcs11.TokenFlag.TOKEN_INITIALIZED
    ):
        label = token.label.strip()
        if _token(where) not in {"", label}:
            continue
        serial = token.serial.decode(errors="replace").strip()
        with token.open() as session:
            for each in session.get_objects(
                {
                    pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PUBLIC_KEY,
                    pkcs11.Attribute.KEY_TYPE: pkcs11.KeyType.EC,
                }
            ):
                number = int.from_bytes(each.id, "big")
                about = f"{each.label or 'EC key'} on token {label}, serial {serial}"
                found.append(Found(f"hsm:{number}?{urlencode({'label': label})}", about))
    return found


# Services


def _read_named(signer: Any, where: str, _: Secrets) -> tuple[str, Key]:  # noqa: ANN401 # AWSSigner or GCPSigner, with its SDK
    found: tuple[str, Key] = signer.import_(where)
    return found


def _find_in_aws(_: str) -> list[Found]:
    import boto3  # noqa: PLC0415 # only for who has keys there

    pages = boto3.client("kms").get_paginator("list_aliases").paginate()
    aliases = [each for page in pages for each in page["Aliases"] if "TargetKeyId" in each]
    return [
        Found(f"awskms:{each['AliasName']}", f"key {each['TargetKeyId']}")
        for each in aliases
        if not each["AliasName"].startswith("alias/aws/")
    ]


def _read_vault(signer: Any, where: str, secrets: Secrets) -> tuple[str, Key]:  # noqa: ANN401 # VaultSigner, with its SDK
    del secrets
    name, version = where.partition("/")[::2]
    full, key = signer.import_(name)
    if version and full != f"hv:{where}":
        raise ConfigurationError(
            f"hv:{where}: the newest version of this key is {full}", "import that one"
        )
    return full, key


def _find_in_vault(_: str) -> list[Found]:
    import hvac  # noqa: PLC0415 # only for who has keys there

    transit = hvac.Client().secrets.transit
    found = []
    for name in transit.list_keys()["data"]["keys"]:
        about = transit.read_key(name)["data"]
        found.append(Found(f"hv:{name}/{about['latest_version']}", str(about["type"])))
    return found


def _read_azure(signer: Any, where: str, secrets: Secrets) -> tuple[str, Key]:  # noqa: ANN401 # AzureSigner, with its SDK
    del secrets
    vault, name = where.partition("/")[::2]
    found: tuple[str, Key] = signer.import_(vault, name)
    return found


KINDS: Mapping[str, Kind] = {
    "hsm": Kind("a PKCS#11 token", "hsm", "hsm", HSMSigner, _read_token, _find_on_tokens),
    "awskms": Kind("AWS KMS", "kms", "awskms", AWSSigner, _read_named, _find_in_aws),
    "hv": Kind("Vault", "vault", "vault", VaultSigner, _read_vault, _find_in_vault),
    "gcpkms": Kind("Google Cloud KMS", "kms", "", GCPSigner, _read_named, tested=False),
    "azurekms": Kind("Azure Key Vault", "kms", "", AzureSigner, _read_azure, tested=False),
}


# Errors


@contextlib.contextmanager
def _translated(kind: Kind, uri: str, secrets: Secrets) -> Iterator[None]:
    """The one place where errors of SDKs become ours."""
    try:
        if kind.extra == "hsm":
            _find_module()
        yield
    except FirmrootError:
        raise
    except UnsupportedLibraryError as error:
        ours = f"firmroot[{kind.extra}]"
        extra = ours if kind.extra else f"securesystemslib[{uri.partition(':')[0]}]"
        raise ConfigurationError(
            f"{uri}: {kind.what} needs a library that is not installed ({error})",
            f"pip install '{extra}'",
        ) from error
    except UnsupportedAlgorithmError as error:
        raise ConfigurationError(
            f"{uri}: this key signs in no way that is used here: {error}",
            "ECDSA P-256, P-384 or RSA of 3072 bits, made for signing",
        ) from error
    except Exception as error:
        found = explain(uri, secrets, error)
        if found is None:
            raise
        raise found from error


def explain(uri: str, secrets: Secrets, error: Exception) -> FirmrootError | None:
    """What an error of an SDK means; None if it is none that is known, and so a bug.

    Args:
        uri: of the key that it is about.
        secrets: forget a PIN that was wrong.
        error: as it was raised.
    """
    kind, where = _kind(uri)
    module = type(error).__module__.partition(".")[0]
    if kind.extra == "hsm":
        return _explain_token(uri, where, secrets, error)
    if module in {"botocore", "boto3"}:
        return _explain_aws(uri, error)
    if module in {"hvac", "requests", "urllib3"}:
        return _explain_vault(uri, where, error)
    if isinstance(error, (ValueError, KeyError, AttributeError)) and kind.tested:
        return ConfigurationError(f"{uri} is not how {kind.what} names a key: {error}", _FORM)
    if not kind.tested:
        return ConfigurationError(
            f"{uri}: {kind.what} answered: {type(error).__name__}: {error}",
            "this kind of key is not tested by firmroot; see docs/signers.md",
        )
    return None


_FORM = "see docs/signers.md for the form of each URI"


_GONE = {"TokenNotPresent", "DeviceRemoved", "NoSuchToken", "SlotIDInvalid"}
_NO_KEY = {"NoSuchKey", "MultipleObjectsReturned"}
_WRONG = {"PinIncorrect", "PinInvalid", "PinLenRange"}


def _explain_token(
    uri: str, where: str, secrets: Secrets, error: Exception
) -> FirmrootError | None:
    name, kind, told = _named(where), type(error).__name__, str(error)
    found: FirmrootError | None = None
    if kind in _WRONG:
        secrets.forget_pin(_token(where))
        found = ConfigurationError(f"wrong PIN for {name}{_tries_left(where)}", secrets.after_wrong)
    elif kind == "PinLocked":
        found = ConfigurationError(
            f"the PIN of {name} is locked after too many wrong ones",
            "its maker's tool unblocks it with the PUK or the SO PIN",
        )
    elif kind in _GONE or "No PKCS#11 token" in told:
        found = ActionRequiredError(
            f"{name} is not there", "plug it in; firmroot key list hsm: shows what is there"
        )
    elif "Multiple PKCS#11 tokens" in told:
        found = ConfigurationError(
            f"{uri}: more than one token is there",
            "name one: hsm:NUMBER?label=LABEL; firmroot key list hsm: shows them",
        )
    elif kind in _NO_KEY or "ECDSA" in told or "No keys found" in told:
        found = ConfigurationError(
            f"{uri}: {told or kind}",
            "firmroot key list hsm: shows the keys that are on the tokens; EC P-256 and P-384 are "
            "used here",
        )
    elif type(error).__module__.startswith("pkcs11") or isinstance(error, (ValueError, OSError)):
        found = ConfigurationError(f"{uri}: the token answered: {told or kind}", _FORM)
    return found


def _tries_left(where: str) -> str:
    """What the token tells of tries that are left; it counts them, and says little."""
    with contextlib.suppress(Exception):
        import pkcs11  # noqa: PLC0415 # it was used already

        token = pkcs11.lib(_find_module()).get_token(token_label=_token(where) or None)
        flags = pkcs11.TokenFlag
        if token.flags & flags.USER_PIN_LOCKED:
            return "; it is locked now"
        if token.flags & flags.USER_PIN_FINAL_TRY:
            return "; ONE more wrong one locks it"
        if token.flags & flags.USER_PIN_COUNT_LOW:
            return "; it counts wrong ones and will lock itself"
    return ""


_AWS: Mapping[str, tuple[str, str]] = {
    "AccessDeniedException": (
        "no permission",
        "these credentials need kms:Sign and kms:GetPublicKey on this key",
    ),
    "NotFoundException": (
        "there is no such key in this region",
        "check the id and AWS_REGION; firmroot key list awskms: shows the aliases",
    ),
    "DisabledException": ("the key is disabled", "enable it, or rotate to another"),
    "KMSInvalidStateException": ("the key is being deleted or is not ready", "look at it in KMS"),
    "InvalidKeyUsageException": ("this key is not for signing", "it needs the usage SIGN_VERIFY"),
    "UnrecognizedClientException": ("these credentials are not valid", "sign in again"),
    "InvalidClientTokenId": ("these credentials are not valid", "sign in again"),
    "ExpiredTokenException": ("the credentials have expired", "sign in again"),
}


def _explain_aws(uri: str, error: Exception) -> FirmrootError:
    code = getattr(error, "response", {}).get("Error", {}).get("Code", "")
    if code in _AWS:
        what, hint = _AWS[code]
        return ConfigurationError(f"{uri}: {what} ({code})", hint)
    kind = type(error).__name__
    if kind in {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"}:
        return ConfigurationError(f"{uri}: {error}", "sign in, or set AWS_PROFILE")
    if kind == "NoRegionError":
        return ConfigurationError(f"{uri}: {error}", "set AWS_REGION to where the key is")
    if kind in {"ParamValidationError", "ValidationError"} or code == "ValidationException":
        return ConfigurationError(f"{uri} is not how KMS names a key: {error}", _FORM)
    return RetryLaterError(f"{uri}: {error}", "run the same command again")


def _explain_vault(uri: str, where: str, error: Exception) -> FirmrootError:
    name = where.partition("/")[0]
    kind = type(error).__name__
    told = f" ({str(error).splitlines()[0]})" if str(error) else ""
    if kind in {"Forbidden", "Unauthorized"}:
        return ConfigurationError(
            f"{uri}: no permission{told}",
            f"VAULT_TOKEN needs `update` on transit/sign/{name} and `read` on transit/keys/{name}",
        )
    if kind == "InvalidPath":
        return ConfigurationError(
            f"{uri}: there is no such key", "firmroot key list hv: shows those in transit/"
        )
    if kind in {"VaultDown", "VaultNotInitialized"}:
        return RetryLaterError(f"{uri}: Vault is sealed or down{told}", "unseal it, then try again")
    if kind in {"InvalidRequest", "ParamValidationError"}:
        return ConfigurationError(
            f"{uri}: Vault refuses{told}", "the key must be of type ed25519, in the engine transit/"
        )
    return RetryLaterError(
        f"{uri}: Vault does not answer{told}", "check VAULT_ADDR, then run the same command again"
    )
