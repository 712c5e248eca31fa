"""A root of three of five by mail, by sticks and by git, with keys in files of several kinds."""

from __future__ import annotations

import importlib.util
import shutil
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import ExitCode
from tests.workflows.ceremonies import (
    Custody,
    Team,
    by_git,
    by_mail,
    by_sticks,
    encrypted_file,
    found,
    in_some_orders,
    openssh,
)

if TYPE_CHECKING:
    from pathlib import Path

# Alice and dave, bob and erin, carol. OpenSSH's own files are not opened without bcrypt.
CUSTODY: list[Custody] = [
    encrypted_file("ed25519", "keys"),
    openssh
    if importlib.util.find_spec("bcrypt")
    else encrypted_file("ecdsa-p256", "stick/in/the/safe"),
    encrypted_file("ml-dsa-65", "card"),
]


@pytest.fixture(scope="module")
def _founded(tmp_path_factory: pytest.TempPathFactory) -> Team:
    return found(tmp_path_factory.mktemp("ceremonies") / "acme", CUSTODY)


@pytest.fixture(scope="module")
def _waiting(_founded: Team, tmp_path_factory: pytest.TempPathFactory) -> Team:
    team = _founded.copy(tmp_path_factory.mktemp("waiting") / "acme")
    team.replaces_carol(CUSTODY[2])
    return team


@pytest.fixture
def founded(_founded: Team, tmp_path: Path) -> Team:
    """Root 1 and release 1.0 are live."""
    return _founded.copy(tmp_path / "acme")


@pytest.fixture
def team(_waiting: Team, tmp_path: Path) -> Team:
    """The same, and root 2 waits for signatures."""
    return _waiting.copy(tmp_path / "acme")


def test_three_of_five_sign_by_mail_while_the_business_goes_on(team: Team) -> None:
    by_mail(team)


def test_two_sticks_bring_the_signatures_and_nothing_else_is_shared(team: Team) -> None:
    by_sticks(team)


def test_branches_of_git_merge_in_any_order_without_a_conflict(team: Team) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    by_git(team, [in_some_orders])


def test_what_is_promoted_must_be_what_was_tested(founded: Team) -> None:
    team = founded
    team.ship("1.1")  # nothing was ever recorded as tested here, so nobody is stopped
    (team.top / "image").write_text("firmware 1.2")
    (team.top / "tested").write_text("firmware 1.2, as it came from the laboratory")
    for words in (
        (
            "firmware",
            "add",
            team.top / "image",
            "-p",
            "gateway",
            "-V",
            "1.2",
            "--hardware",
            "acme,gw-2",
        ),
        ("channel", "promote", "gateway@1.2", "--to", "stable"),
    ):
        team.firmroot(*words)
    said = team.firmroot("sign", "--tested", team.top / "tested", code=ExitCode.ACTION_REQUIRED)
    assert "UNUSUAL: builds/gateway/1.2/image was not tested on this machine" in said
    assert "--accept-unusual untested" in said
    team.firmroot("sign", code=ExitCode.ACTION_REQUIRED)  # the record stays
    said = team.firmroot("sign", "--tested", team.top / "image")
    assert "UNUSUAL" not in said
    team.firmroot("publish")
    assert team.device() == "installs 1.2"
