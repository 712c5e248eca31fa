"""The same with three real kinds of custody: a file, a file of OpenSSH, and a token of carol's."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING

import pytest

from repo_tools.signing.secrets import Secrets
from repo_tools.signing.services import import_key
from tests.simulators.services import SoftHsm, missing, needed
from tests.workflows.ceremonies import (
    PASSPHRASE,
    PLUGGED,
    Custody,
    Team,
    by_git,
    by_mail,
    by_sticks,
    encrypted_file,
    found,
    in_all_orders,
    in_some_orders,
    openssh,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.services


def plug_in(home: Path) -> SoftHsm:
    """The tokens in a home, which nobody has who is not there."""
    tokens = SoftHsm(home / "softhsm")
    (home / PLUGGED).write_text(json.dumps(tokens.environment))
    return tokens


def on_a_token(home: Path, name: str) -> str:
    """A key on a token of its own."""
    tokens = plug_in(home)
    tokens.token(name)
    tokens.key(name, 2, "secp256r1")
    with pytest.MonkeyPatch.context() as patched:
        for variable, value in tokens.environment.items():
            patched.setenv(variable, value)
        uri, key = import_key(f"hsm:2?label={name}", Secrets(PASSPHRASE))
    (home / f"{name}.pub.pem").write_text(key.keyval["public"])
    return uri


# Alice and dave, bob and erin, carol.
CUSTODY: list[Custody] = [encrypted_file("ed25519", "keys"), openssh, on_a_token]


@pytest.fixture(scope="module")
def _waiting(tmp_path_factory: pytest.TempPathFactory) -> Team:
    if importlib.util.find_spec("pkcs11") is None:
        missing("python-pkcs11 is not installed: sh scripts/bootstrap services")
    needed("ssh-keygen", "apt-get install openssh-client")
    team = found(tmp_path_factory.mktemp("custody") / "acme", CUSTODY)
    team.replaces_carol(on_a_token)
    return team


@pytest.fixture
def team(_waiting: Team, tmp_path: Path) -> Team:
    """Root 1 and release 1.0 are live, root 2 waits; a token is on each of carol's two keys."""
    copied = _waiting.copy(tmp_path / "acme")
    plug_in(copied.home("carol").directory)
    kinds = {name: copied.home(name).uri.partition(":")[0] for name in ("dave", "erin", "carol")}
    assert kinds == {"dave": "file", "erin": "ssh", "carol": "hsm"}
    assert copied.home("carol-2").uri == "hsm:2?label=carol-2"
    return copied


# The old root has its three only with carol's token, the new one only with her other token.


def test_three_kinds_of_custody_sign_by_mail(team: Team) -> None:
    by_mail(team)


def test_three_kinds_of_custody_sign_on_two_sticks(team: Team) -> None:
    by_sticks(team)


def test_three_kinds_of_custody_sign_in_git_and_all_orders_of_merging_end_alike(
    team: Team,
) -> None:
    needed("git", "apt-get install git")
    by_git(team, [in_some_orders, in_all_orders])
