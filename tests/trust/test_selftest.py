"""A library that is too old is named, instead of counting good signatures as bad ones."""

from __future__ import annotations

import base64
from importlib.metadata import PackageNotFoundError

import pytest
import securesystemslib.signer._key as library

from client_reference.errors import ConfigurationError
from client_reference.trust import known_answers, selftest, verified


def test_every_supported_key_type_has_a_known_answer() -> None:
    assert set(known_answers.ANSWERS) == verified.SUPPORTED_KEYS


def test_this_machine_verifies_all_of_them() -> None:
    selftest.check_key_types()


def test_an_old_cryptography_without_ml_dsa_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # What securesystemslib does by itself where `cryptography` lacks the module.
    monkeypatch.setattr(library, "MLDSA_IMPORT_ERROR", "'cryptography>=48.0.0' required")
    monkeypatch.setattr(library, "MLDSA65PublicKey", None)
    found = {"cryptography": "42.0.8", "securesystemslib": "1.6.0"}
    monkeypatch.setattr("importlib.metadata.version", found.__getitem__)
    with pytest.raises(ConfigurationError) as caught:
        selftest.check_key_types()
    assert "ml-dsa/ml-dsa-65/1" in caught.value.message
    assert "found cryptography 42.0.8, securesystemslib 1.6.0" in caught.value.message
    assert "expected cryptography >= 48, securesystemslib >= 1.6" in caught.value.message
    selftest.check_key_types([("ed25519", "ed25519"), ("rsa", "rsassa-pss-sha256")])


def test_an_old_securesystemslib_that_does_not_know_the_type_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(library.KEY_FOR_TYPE_AND_SCHEME, ("ml-dsa", "ml-dsa-65/1"))
    with pytest.raises(ConfigurationError, match=r"securesystemslib >= 1\.6"):
        selftest.check_key_types()


def test_a_package_that_is_not_installed_is_said_to_be_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(library, "MLDSA_IMPORT_ERROR", "'cryptography>=48.0.0' required")
    monkeypatch.setattr("importlib.metadata.version", missing)
    with pytest.raises(ConfigurationError, match=r"cryptography \(not installed\)"):
        selftest.check_key_types()


@pytest.mark.parametrize("pair", sorted(known_answers.ANSWERS), ids="/".join)
def test_an_answer_that_is_wrong_is_noticed(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[str, str]
) -> None:
    public, signature = known_answers.ANSWERS[pair]
    spoiled = bytearray(base64.b64decode(signature))
    spoiled[-1] ^= 1
    answers = {pair: (public, base64.b64encode(spoiled).decode())}
    monkeypatch.setattr(selftest, "ANSWERS", answers)
    with pytest.raises(ConfigurationError, match=pair[1]):
        selftest.check_key_types()


def test_a_library_that_accepts_everything_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.SSlibKey, "verify_signature", lambda *_: None)
    with pytest.raises(ConfigurationError, match="do not verify here"):
        selftest.check_key_types()


def test_a_key_type_that_nobody_supports_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="sphincs/shake are not supported"):
        selftest.check_key_types([("sphincs", "shake")])
