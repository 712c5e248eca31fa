"""Workspaces at typical moments, made once and copied for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.publishing.lab import HARDWARE, PRODUCT, Lab

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def moments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Lab]:
    """`new` (only a root is signed), `ready` (1.0 is), `live` (1.0 is), `next` (1.1 is signed)."""
    top = tmp_path_factory.mktemp("moments")
    lab = Lab(top / "new" / "acme")
    lab.directory.parent.mkdir()
    lab.init()
    lab.ok("product", "add", PRODUCT, "--hardware", HARDWARE)
    found = {"new": lab}
    for name, step in (("ready", _sign_first), ("live", _publish), ("next", _sign_second)):
        (top / name).mkdir()
        lab = lab.copy(top / name / "acme")
        step(lab)
        found[name] = lab
    return found


def _sign_first(lab: Lab) -> None:
    lab.add("1.0")
    lab.promote("1.0")


def _publish(lab: Lab) -> None:
    lab.ok("publish")
    lab.ok("factory", "export", PRODUCT, "--to", lab.directory.parent / "device")


def _sign_second(lab: Lab) -> None:
    lab.add("1.1")
    lab.promote("1.1")


def _copy(moments: dict[str, Lab], name: str, tmp_path: Path) -> Lab:
    lab = moments[name].copy(tmp_path / "acme")
    (tmp_path / "factory-root.json").write_bytes(
        (moments["live"].directory / "metadata/root/1.json").read_bytes()
    )
    return lab


@pytest.fixture
def new(moments: dict[str, Lab], tmp_path: Path) -> Lab:
    """A lab with a product and nothing signed but the root."""
    return _copy(moments, "new", tmp_path)


@pytest.fixture
def ready(moments: dict[str, Lab], tmp_path: Path) -> Lab:
    """1.0 is signed and nothing was ever published."""
    return _copy(moments, "ready", tmp_path)


@pytest.fixture
def live(moments: dict[str, Lab], tmp_path: Path) -> Lab:
    """1.0 is live, one factory export is registered."""
    return _copy(moments, "live", tmp_path)


@pytest.fixture
def following(moments: dict[str, Lab], tmp_path: Path) -> Lab:
    """1.0 is live, 1.1 is signed."""
    return _copy(moments, "next", tmp_path)
