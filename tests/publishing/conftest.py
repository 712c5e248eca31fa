"""Workspaces at typical moments, made once and copied for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from bench.many import fill
from repo_tools.publishing.factory import load_registry
from tests.publishing.lab import HARDWARE, NOW, PRODUCT, Lab

if TYPE_CHECKING:
    from collections.abc import Callable
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


LOST = ("alice", "bob", "carol")


@pytest.fixture(scope="session")
def anchor_moments(
    moments: dict[str, Lab], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Lab]:
    """From a live repository to a fleet that was re-rooted.

    `anchored` (one export is older than the anchor, one has it), `begun` (epoch 1 waits for its
    root), `named` (the recovery root waits for signatures), `staged` (nothing does), `there`
    (and the old export is retired).
    """
    top = tmp_path_factory.mktemp("anchor")
    found: dict[str, Lab] = {}
    lab = moments["live"]
    for name, step in (
        ("anchored", _anchor),
        ("begun", _begin),
        ("named", _name_root),
        ("staged", lambda lab: lab.ok("sign")),
        ("there", _send),
    ):
        (top / name).mkdir()
        lab = found[name] = lab.copy(top / name / "acme")
        step(lab)
    return found


def _anchor(lab: Lab) -> None:
    lab.ok("anchor", "init")
    lab.ok("sign")
    lab.ok("anchor", "publish")
    lab.ok("factory", "export", PRODUCT, "--to", lab.directory.parent / "anchored-device")


def stranded(lab: Lab) -> tuple[str, str]:
    """The option that accepts the loss of the export which is older than the anchor."""
    export = next(each for each in load_registry(lab.workspace) if not each.recovery_version)
    return "--accept-stranded", export.id


def _begin(lab: Lab) -> None:
    for name in ("ada", "ben", "cleo"):
        lab.ok("key", "new", name, "--role", "root", "--role", "targets")
    lost = [word for name in LOST for word in ("--without", name)]
    lab.ok("anchor", "re-root", *lost, *stranded(lab))


def _name_root(lab: Lab) -> None:
    lab.ok("sign")
    lab.ok("anchor", "re-root", *stranded(lab))


def _send(lab: Lab) -> None:
    lab.ok("publish", *stranded(lab))
    lab.ok("anchor", "publish")
    lab.ok("--yes", "factory", "retire", stranded(lab)[1])


@pytest.fixture
def at(anchor_moments: dict[str, Lab], tmp_path: Path) -> Callable[[str], Lab]:
    """A copy of the lab at a moment of `anchor_moments`."""

    def copy(name: str) -> Lab:
        return anchor_moments[name].copy(tmp_path / name / "acme")

    return copy


@pytest.fixture(scope="session")
def binned_moments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Lab]:
    """`live`: 64 bins, 1.0 is live and exported; `many`: with 300 artifacts more."""
    top = tmp_path_factory.mktemp("binned")
    lab = Lab(top / "live" / "acme")
    lab.directory.parent.mkdir()
    lab.init()
    lab.ok("product", "add", PRODUCT, "--hardware", HARDWARE)
    lab.ok("product", "bins", PRODUCT, "--number", "64")
    lab.ship("1.0")
    lab.ok("factory", "export", PRODUCT, "--to", top / "device")
    (top / "many").mkdir()
    many = lab.copy(top / "many" / "acme")
    with patch("bench.many.datetime") as clock:
        clock.now.return_value = NOW
        fill(many.directory, 640, PRODUCT)
    return {"live": lab, "many": many}


@pytest.fixture
def binned(binned_moments: dict[str, Lab], tmp_path: Path) -> Lab:
    """1.0 is live in 64 hash bins."""
    found = binned_moments["live"].copy(tmp_path / "acme")
    root = (found.directory / "metadata/root/1.json").read_bytes()
    (tmp_path / "factory-root.json").write_bytes(root)
    return found
