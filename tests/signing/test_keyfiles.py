"""Key files: never unencrypted, never overwritten, and a clear word for every wrong one."""

from __future__ import annotations

import base64
import errno
import importlib
import os
import stat
import sys
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.dsa import generate_private_key as generate_dsa
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from securesystemslib.signer import CryptoSigner

from client_reference.errors import ConfigurationError, ExitCode
from repo_tools.files import DiskFullError
from repo_tools.signing.keyfiles import (
    MIN_RSA_BITS,
    KeyFileError,
    WrongPassphraseError,
    generate,
    is_private,
    load_private,
    load_public,
    public_key,
    write_private,
)
from tests.simulators.disk import full_disk, names

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PASSPHRASE = b"correct horse battery"
ALGORITHMS = {
    "ed25519": ("ed25519", "ed25519"),
    "ecdsa-p256": ("ecdsa", "ecdsa-sha2-nistp256"),
    "ecdsa-p384": ("ecdsa", "ecdsa-sha2-nistp384"),
    "rsa": ("rsa", "rsassa-pss-sha256"),
    "ml-dsa-65": ("ml-dsa", "ml-dsa-65/1"),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_kind_of_key_survives_its_file_and_signs(tmp_path: Path, algorithm: str) -> None:
    made = generate(algorithm)
    write_private(tmp_path / "k.pem", made, PASSPHRASE)
    loaded = load_private(tmp_path / "k.pem", PASSPHRASE)
    key = public_key(loaded)
    assert (key.keytype, key.scheme) == ALGORITHMS[algorithm]
    assert key.keyid == public_key(made).keyid
    key.verify_signature(CryptoSigner(loaded, key).sign(b"data"), b"data")


def test_a_key_file_is_encrypted_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    write_private(tmp_path / "k.pem", generate("ed25519"), PASSPHRASE)
    assert (tmp_path / "k.pem").read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert stat.S_IMODE((tmp_path / "k.pem").stat().st_mode) == 0o600
    assert is_private(tmp_path / "k.pem")


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "k.pem").write_text("mine")
    with pytest.raises(ConfigurationError, match="a private key is never overwritten"):
        write_private(tmp_path / "k.pem", generate("ed25519"), PASSPHRASE)
    assert (tmp_path / "k.pem").read_text() == "mine"


def test_a_full_disk_leaves_no_part_of_a_key(tmp_path: Path) -> None:
    with full_disk(errno.ENOSPC), pytest.raises(DiskFullError):
        write_private(tmp_path / "k.pem", generate("ed25519"), PASSPHRASE)
    assert names(tmp_path) == []


def test_a_short_passphrase_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        write_private(tmp_path / "k.pem", generate("ed25519"), b"x" * 11)
    assert caught.value.message == "the passphrase has 11 characters, expected at least 12"
    assert names(tmp_path) == []
    write_private(tmp_path / "k.pem", generate("ed25519"), b"x" * 12)


def test_a_wrong_passphrase_is_told(tmp_path: Path) -> None:
    path = tmp_path / "k.pem"
    write_private(path, generate("ed25519"), PASSPHRASE)
    with pytest.raises(WrongPassphraseError) as caught:
        load_private(path, b"wrong wrong wrong")
    assert caught.value.message == f"wrong passphrase for {path}"
    assert caught.value.hint == "try again; nothing was signed"
    assert caught.value.exit_code == ExitCode.USAGE
    with pytest.raises(WrongPassphraseError, match="no passphrase was given"):
        load_private(path, None)


def test_a_wrong_passphrase_that_decrypts_to_garbage_is_no_damage(tmp_path: Path) -> None:
    """One in 256 does: its last byte looks like padding. So many are tried that some do."""
    path = tmp_path / "k.pem"
    write_private(path, generate("ed25519"), PASSPHRASE)
    for number in range(1500):
        with pytest.raises(WrongPassphraseError, match="wrong passphrase for"):
            load_private(path, b"%d" % number)


@pytest.mark.parametrize(
    ("der", "said"),
    [
        (b"", "is damaged"),
        (b"\x30\x01\x00", "is damaged"),
        (b"\x31\x02\x05\x00", "is damaged"),
        (b"\x30\x03\x05\x00", "is damaged"),
        (b"\x30\x02\x05\x00", "wrong passphrase"),
    ],
    ids=["nothing", "too short", "no sequence", "cut off", "whole"],
)
def test_only_what_is_whole_may_have_another_passphrase(
    tmp_path: Path, der: bytes, said: str
) -> None:
    """Who believes that a cut-off key has another passphrase looks for that, not for a backup."""
    path, body = tmp_path / "k.pem", base64.b64encode(der)
    name = b"ENCRYPTED PRIVATE KEY-----\n"
    path.write_bytes(b"-----BEGIN " + name + body + b"\n-----END " + name)
    with pytest.raises((KeyFileError, WrongPassphraseError), match=said):
        load_private(path, PASSPHRASE)


def test_the_older_kind_of_encrypted_file_has_a_wrong_passphrase_too(tmp_path: Path) -> None:
    path, made = tmp_path / "k.pem", generate("ecdsa-p256")
    assert isinstance(made, EllipticCurvePrivateKey)
    path.write_bytes(
        made.private_bytes(
            Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(PASSPHRASE)
        )
    )
    with pytest.raises(WrongPassphraseError, match="wrong passphrase for"):
        load_private(path, b"wrong wrong wrong")
    assert public_key(load_private(path, PASSPHRASE)).keyid == public_key(made).keyid


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"\xff\xfe",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    ],
)
def test_what_is_not_a_key_file_is_told(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "k.pem").write_bytes(data)
    with pytest.raises(KeyFileError) as caught:
        load_private(tmp_path / "k.pem", PASSPHRASE)
    said = "is not a private key file: expected PEM"
    if b"PRIVATE KEY" in data:
        said = "is damaged or cut off"
    assert said in caught.value.message
    with pytest.raises(KeyFileError, match="is not a key file: expected PEM"):
        load_public(tmp_path / "k.pem")


@pytest.mark.parametrize("left", [30, 60, -30])
def test_a_key_file_that_is_cut_off_is_named_and_its_backup(tmp_path: Path, left: int) -> None:
    path = tmp_path / "k.pem"
    write_private(path, generate("ed25519"), PASSPHRASE)
    whole = path.read_bytes()
    path.write_bytes(whole[:left])
    with pytest.raises(KeyFileError, match=f"^{path} is ") as caught:
        load_private(path, PASSPHRASE)
    assert caught.value.hint.startswith("restore your backup of it")
    assert ("is damaged or cut off" in caught.value.message) == (left != 30)
    path.write_bytes(whole)
    assert load_private(path, PASSPHRASE)


def test_a_key_of_openssh_has_a_uri_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "id_ed25519"
    path.write_bytes(
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----"
    )
    with pytest.raises(KeyFileError, match="is a private key of OpenSSH") as caught:
        load_private(path, PASSPHRASE)
    assert caught.value.hint == f"its URI is ssh:{path}"


def test_a_missing_key_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot be read: No such file or directory"):
        load_private(tmp_path / "k.pem", PASSPHRASE)


@pytest.mark.parametrize("passphrase", [PASSPHRASE, None])
def test_an_unencrypted_key_is_refused(tmp_path: Path, passphrase: bytes | None) -> None:
    path = tmp_path / "k.pem"
    path.write_bytes(
        generate("ed25519").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    with pytest.raises(KeyFileError, match="holds a private key that is not encrypted"):
        load_private(path, passphrase)


def test_a_small_rsa_key_is_refused(tmp_path: Path) -> None:
    private = generate_rsa(65537, 2048)
    path = tmp_path / "k.pem"
    encryption = BestAvailableEncryption(PASSPHRASE)
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    with pytest.raises(KeyFileError, match="RSA key of 2048 bits, expected at least 3072"):
        load_private(path, PASSPHRASE)
    public = private.public_key()
    path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(KeyFileError, match="RSA key of 2048 bits, expected at least 3072"):
        load_public(path)


def test_an_rsa_key_of_the_least_size_is_used(tmp_path: Path) -> None:
    private = generate_rsa(65537, MIN_RSA_BITS)
    write_private(tmp_path / "k.pem", private, PASSPHRASE)
    assert public_key(load_private(tmp_path / "k.pem", PASSPHRASE)) == public_key(private)


def test_a_kind_of_key_that_is_not_used_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "k.pem"
    encryption = BestAvailableEncryption(PASSPHRASE)
    private = generate_dsa(2048)
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    with pytest.raises(KeyFileError, match="which is not used here"):
        load_private(path, PASSPHRASE)


def test_a_public_key_is_read(tmp_path: Path) -> None:
    private = generate("ecdsa-p256")
    path = tmp_path / "k.pem"
    data = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path.write_bytes(data)
    assert not is_private(path)
    assert load_public(path) == public_key(private)


def test_a_cryptography_without_ml_dsa_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.mldsa", None)
    monkeypatch.delitem(sys.modules, "repo_tools.signing.keyfiles")
    monkeypatch.setattr("client_reference.trust.selftest._verifies", lambda *_: False)
    with pytest.raises(
        ConfigurationError, match=r"found cryptography .*expected cryptography >= 48"
    ):
        importlib.import_module("repo_tools.signing.keyfiles")


@pytest.mark.parametrize("reads", [load_public, is_private, lambda path: load_private(path, b"")])
def test_a_file_that_does_not_end_is_not_read_to_its_end(
    reads: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "image.pem"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: whoever reads all of it has no memory left
    with pytest.raises(KeyFileError, match="it is longer than 65536 bytes"):
        reads(path)
    for short in (65_536, 0):
        os.truncate(path, short)
        assert not is_private(path)
