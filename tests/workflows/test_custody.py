"""A root of three of five whose keys are in a file, in a file of OpenSSH and on a token."""

from __future__ import annotations

import importlib.util
import subprocess
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)

from repo_tools.signing.secrets import Secrets
from repo_tools.signing.services import import_key
from tests.simulators.services import PIN, SoftHsm, missing, needed
from tests.workflows.test_ceremonies import PASSPHRASE, encrypted_file, found

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.services


def openssh(home: Path, name: str) -> str:
    """A key of `ssh-keygen`."""
    program = needed("ssh-keygen", "apt-get install openssh-client")
    line = [program, "-q", "-t", "ed25519", "-N", PIN, "-f", str(home / name)]
    subprocess.run(line, check=True)
    public = load_ssh_public_key((home / f"{name}.pub").read_bytes())
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (home / f"{name}.pub.pem").write_bytes(pem)
    return f"ssh:{name}"


def on_a_token(tokens: SoftHsm) -> Callable[[Path, str], str]:
    """A key on a token of its holder's own."""

    def make(home: Path, name: str) -> str:
        tokens.token(name)
        tokens.key(name, 2, "secp256r1")
        uri, key = import_key(f"hsm:2?label={name}", Secrets(PASSPHRASE))
        (home / f"{name}.pub.pem").write_text(key.keyval["public"])
        return uri

    return make


def test_three_kinds_of_custody_sign_one_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("pkcs11") is None:
        missing("python-pkcs11 is not installed: sh scripts/bootstrap services")
    tokens = SoftHsm(tmp_path / "softhsm")
    for name, value in tokens.environment.items():
        monkeypatch.setenv(name, value)
    custodies = [encrypted_file("ed25519", "keys"), openssh, on_a_token(tokens)]
    team = found(tmp_path / "acme", custodies)
    assert team.device() == "installs 1.0"
    team.firmroot("ceremony", "start", "root")
    file = team.export("root", team.top / "root-2.json")
    # alice and dave have files, bob and erin keys of OpenSSH, carol a token.
    for name in ("carol", "erin", "dave"):
        home = team.home(name)
        assert f"your key: {name}" in home.sign(home.receives(file))
        team.firmroot("ceremony", "merge", home.directory / f"root-2.{name}.sig.json")
    team.ends("1.1")
