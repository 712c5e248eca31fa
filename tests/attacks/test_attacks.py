"""Every row of the table, on the whole device at its command line."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from tests.attacks.render import CHAPTERS
from tests.attacks.scene import Attack, Scene, drive, first_device

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = [row for chapter in CHAPTERS for row in chapter.rows]
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
