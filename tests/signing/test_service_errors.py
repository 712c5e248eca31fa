"""What SDKs of tokens and services raise, as those errors of ours that say what to do.

The errors here are made by hand: no service that a test can start raises them.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from client_reference.errors import ActionRequiredError, ConfigurationError, RetryLaterError
from repo_tools.signing import services
from repo_tools.signing.secrets import Secrets

if TYPE_CHECKING:
    from pathlib import Path


def raised(module: str, kind: str, text: str = "", code: str = "") -> Exception:
    """An error as that module would raise it."""
    error: Any = type(kind, (Exception,), {"__module__": module})(text)
    if code:
        error.response = {"Error": {"Code": code}}
    return error  # type: ignore[no-any-return]


HSM, AWS, HV = "hsm:2?label=acme-root", "awskms:alias/ts", "hv:publisher/1"
PKCS11, BOTO, HVAC = "pkcs11.exceptions", "botocore.exceptions", "hvac.exceptions"
CASES = {
    "a locked PIN": (
        HSM, raised(PKCS11, "PinLocked"), ConfigurationError,
        "the PIN of token acme-root is locked after too many wrong ones", "PUK or the SO PIN",
    ),
    "a token that was pulled out": (
        HSM, raised(PKCS11, "DeviceRemoved"), ActionRequiredError,
        "token acme-root is not there", "plug it in",
    ),
    "whatever else a token says": (
        HSM, raised(PKCS11, "MechanismInvalid"), ConfigurationError,
        "the token answered: MechanismInvalid", "docs/signers.md",
    ),
    "no permission on a KMS key": (
        AWS, raised(BOTO, "ClientError", code="AccessDeniedException"), ConfigurationError,
        "awskms:alias/ts: no permission (AccessDeniedException)", "kms:Sign and kms:GetPublicKey",
    ),
    "a disabled KMS key": (
        AWS, raised(BOTO, "ClientError", code="DisabledException"), ConfigurationError,
        "the key is disabled", "rotate to another",
    ),
    "a KMS key for encryption": (
        AWS, raised(BOTO, "ClientError", code="InvalidKeyUsageException"), ConfigurationError,
        "this key is not for signing", "SIGN_VERIFY",
    ),
    "credentials that expired": (
        AWS, raised(BOTO, "ClientError", code="ExpiredTokenException"), ConfigurationError,
        "the credentials have expired", "sign in again",
    ),
    "no credentials": (
        AWS, raised(BOTO, "NoCredentialsError", "Unable to locate credentials"), ConfigurationError,
        "Unable to locate credentials", "AWS_PROFILE",
    ),
    "no region": (
        AWS, raised(BOTO, "NoRegionError", "You must specify a region."), ConfigurationError,
        "You must specify a region.", "set AWS_REGION to where the key is",
    ),
    "a busy KMS": (
        AWS, raised(BOTO, "ClientError", "slow down", code="ThrottlingException"), RetryLaterError,
        "slow down", "run the same command again",
    ),
    "a sealed Vault": (
        HV, raised(HVAC, "VaultDown", "Vault is sealed"), RetryLaterError,
        "Vault is sealed or down (Vault is sealed)", "unseal it",
    ),
    "a Vault that refuses": (
        HV, raised(HVAC, "InvalidRequest", "unsupported operation"), ConfigurationError,
        "Vault refuses (unsupported operation)", "of type ed25519",
    ),
    "no network to Vault": (
        HV, raised("requests.exceptions", "ConnectionError", "refused"), RetryLaterError,
        "Vault does not answer (refused)", "VAULT_ADDR",
    ),
    "an answer of a cloud that is not tested": (
        "gcpkms:projects/x", raised("google.api_core.exceptions", "Forbidden", "403"),
        ConfigurationError, "Google Cloud KMS answered: Forbidden: 403", "not tested by firmroot",
    ),
    "a URI that is none": (
        "hv:publisher/1/2", ValueError("too many values to unpack"), ConfigurationError,
        "hv:publisher/1/2 is not how Vault names a key", "docs/signers.md",
    ),
}  # fmt: skip


@pytest.mark.parametrize("sentence", CASES)
def test_an_error_of_an_sdk_says_what_to_do(sentence: str) -> None:
    uri, error, kind, message, hint = CASES[sentence]
    found = services.explain(uri, Secrets(), error)
    assert type(found) is kind
    assert message in found.message
    assert hint in found.hint


def test_a_bug_stays_a_bug() -> None:
    assert services.explain(AWS, Secrets(), RuntimeError("ours")) is None
    assert services.explain(HSM, Secrets(), RuntimeError("ours")) is None


def test_without_a_terminal_a_pin_is_not_asked_for() -> None:
    with pytest.raises(ActionRequiredError, match="the PIN of token acme-root is needed") as caught:
        Secrets().pin("acme-root")
    assert "--passphrase-fd" in caught.value.hint


def test_a_wrong_pin_is_asked_for_again() -> None:
    asked: list[str] = []

    def person(question: str) -> str:
        asked.append(question)
        return str(len(asked))

    secrets = Secrets(prompt=person)
    assert (secrets.pin("a"), secrets.pin("a"), secrets.pin("")) == ("1", "1", "2")
    services.explain("hsm:1?label=a", secrets, raised(PKCS11, "PinIncorrect"))
    assert secrets.pin("a") == "3"
    assert asked == ["PIN of token a", "PIN of the only token", "PIN of token a"]


def test_which_library_a_token_has_must_be_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYKCS11LIB", str(tmp_path / "none.so"))
    with pytest.raises(ConfigurationError, match=r"PYKCS11LIB names .*, which does not exist"):
        services.discover("hsm:")


def test_no_sdk_is_loaded_for_a_key_in_a_file(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from client_reference.__main__ import SDKS\n"
        "import repo_tools.__main__ as program\n"
        "try:\n"
        "    program.run()\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0, end.code\n"
        "print(sorted(name for name in SDKS if sys.modules.get(name)))\n"
    )
    for words in (("init", tmp_path / "acme", "--lab"), ("-C", tmp_path / "acme", "sign")):
        done = subprocess.run(
            [sys.executable, "-c", script, *map(str, words)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == "[]"
