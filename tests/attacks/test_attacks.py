"""Every row of the table, on the whole device at its command line."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from client_reference import update
from client_reference.errors import NotTrustedError
from client_reference.trust import verified
from client_reference.trust.verified import BadSignatureError
from tests.attacks import render
from tests.attacks.scene import Attack, Scene, attack_half, drive, first_device, honest_half

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = [row for chapter in render.CHAPTERS for row in chapter.rows]
MEMORY = Path("/dev/shm")  # noqa: S108 # each row syncs dozens of times, and power is not the matter


@pytest.fixture(scope="session")
def files() -> Iterator[Path]:
    """A directory in memory, where there is such a thing."""
    parent = MEMORY if os.access(MEMORY, os.W_OK) else None
    with TemporaryDirectory(prefix="attacks-", dir=parent) as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def base(files: Path) -> Path:
    """A device that has installed 1.1."""
    return first_device(files / "base")


@pytest.fixture
def directory(files: Path) -> Iterator[Path]:
    """Of one scene."""
    with TemporaryDirectory(dir=files) as made:
        yield Path(made)


@pytest.mark.parametrize("attack", ROWS, ids=lambda attack: attack.id)
def test_attack(
    attack: Attack,
    base: Path,
    directory: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Scene(attack, base, directory, capsys, monkeypatch) as scene:
        drive(scene)


# What drives a row is the same for all: some of them show it each time, all of them with services.
REFUSED = [
    pytest.param(row, marks=() if number % 10 == 0 else pytest.mark.services, id=row.id)
    for number, row in enumerate(ROWS)
]


@pytest.mark.parametrize("attack", REFUSED)
def test_a_device_that_refuses_everything_fails_each_row(
    attack: Attack,
    base: Path,
    directory: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The honest half is asked of every row, and no refusal passes it."""

    def refuse(*_: object) -> None:
        raise NotTrustedError("nothing is good enough")

    with Scene(attack, base, directory, capsys, monkeypatch) as scene:
        attack.mutate(scene)
        monkeypatch.setattr(update, "_check", refuse)
        with pytest.raises(AssertionError, match="nothing is good enough"):
            honest_half(scene)


FORGED = [row for row in ROWS if row.error is BadSignatureError]


@pytest.mark.parametrize("attack", FORGED, ids=lambda attack: attack.id)
def test_a_device_that_counts_no_signatures_fails_what_rests_on_them(
    attack: Attack,
    base: Path,
    directory: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verified, "_check_signatures", lambda *_: None)
    with (
        Scene(attack, base, directory, capsys, monkeypatch) as scene,
        pytest.raises(AssertionError),
    ):
        attack_half(scene)


def test_the_thief_has_no_other_keys_than_the_row_says(
    base: Path,
    directory: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (attack,) = (row for row in ROWS if row.id == "gateway-stable-below-threshold")
    with Scene(attack, base, directory, capsys, monkeypatch) as scene:
        honest = scene.honest.repo.signers
        stolen = {role: keys for role, keys in scene.stolen.signers.items() if keys}
        assert set(stolen) == {"gateway-stable", "snapshot", "timestamp"}
        assert [len(stolen["gateway-stable"]), len(honest["gateway-stable"])] == [1, 3]
        new = {scene.stolen.new_signer().public_key.keyid for _ in range(50)}
        ours = {scene.honest.repo.new_signer().public_key.keyid for _ in range(50)}
        assert new.isdisjoint(ours)


# TUF specification 1.5.2, and what the Uptane standard adds to it.
NAMES = {
    "TUF": (
        "arbitrary software",
        "endless data",
        "extraneous dependencies",
        "fast-forward",
        "indefinite freeze",
        "key compromise",
        "malicious mirror",
        "mix-and-match",
        "rollback",
        "slow retrieval",
        "wrong software",
    ),
    "Uptane": ("drop-request", "mixed bundles", "partial bundle", "partial freeze", "rollback"),
}


@pytest.mark.parametrize(("who", "name"), [(who, name) for who in NAMES for name in NAMES[who]])
def test_every_attack_that_is_named_has_a_row(who: str, name: str) -> None:
    assert [row.id for row in ROWS if who in row.source and name in row.source]


def test_rows_have_ids_and_names_of_their_own() -> None:
    for values in ([row.id for row in ROWS], [row.name for row in ROWS]):
        twice = {value for value in values if values.count(value) > 1}
        assert not twice


def test_the_page_is_what_the_table_renders() -> None:
    text = render.PAGE.read_text()
    assert render.page(text) == text, f"{render.PAGE.name} is not the table: `{render.COMMAND}`"
