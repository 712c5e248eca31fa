"""`firmroot recover sequence`: what it refuses, what people see, what it leaves in force."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from client_reference.trust.reset import Reset, read_resets
from tests.publishing.lab import HARDWARE, PRODUCT, Lab

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@pytest.fixture(scope="module")
def _live(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    lab = Lab(tmp_path_factory.mktemp("reset") / "acme")
    lab.init()
    lab.ok("product", "add", PRODUCT, "--hardware", HARDWARE)
    lab.ship("1.0")
    lab.ship("1.1")
    return lab


@pytest.fixture
def lab(_live: Lab, tmp_path: Path) -> Lab:
    return _live.copy(tmp_path / "acme")


def resets(lab: Lab) -> Mapping[str, Reset]:
    targets = lab.workspace.newest_targets()
    assert targets is not None
    return read_resets(targets)


def test_a_reset_says_what_may_be_installed_again_and_who_signs(lab: Lab) -> None:
    said = lab.ok("recover", "sequence", PRODUCT, "--to", "1").out
    assert "may be installed again: 1.0 (sequence 1), 1.1 (sequence 2)" in said
    assert "targets-2: open, waits for signatures" in said
    shown = lab.ok("ceremony", "show", "targets").out
    assert "SEQUENCE RESET: every device of gateway that confirmed more goes back" in shown
    lab.ok("sign")
    lab.ok("publish")
    assert resets(lab) == {PRODUCT: Reset(since=2, to=1)}


def test_a_reset_stays_in_every_later_targets(lab: Lab) -> None:
    """A device from the shelf would miss it otherwise; a rotation writes targets anew."""
    lab.ok("recover", "sequence", PRODUCT, "--to", "1")
    lab.ok("rotate", "rita", "--discard-signatures", "targets")
    lab.ok("sign")
    lab.ok("publish")
    lab.ok("rotate", "ci")
    lab.ok("sign")
    lab.ok("publish")
    assert resets(lab) == {PRODUCT: Reset(since=2, to=1)}


def test_a_second_reset_takes_the_place_of_the_first(lab: Lab) -> None:
    for least in ("1", "2"):
        lab.ok("recover", "sequence", PRODUCT, "--to", least)
        lab.ok("sign")
        lab.ok("publish")
    assert resets(lab) == {PRODUCT: Reset(since=3, to=2)}


def test_a_factory_export_is_born_behind_the_reset(lab: Lab, tmp_path: Path) -> None:
    lab.ok("recover", "sequence", PRODUCT, "--to", "1")
    lab.ok("sign")
    lab.ok("publish")
    lab.ok("factory", "export", PRODUCT, "--to", tmp_path / "device")
    floors: dict[str, Any] = json.loads((tmp_path / "device/factory/floors.json").read_bytes())
    assert floors["reset"] == 2


def test_what_may_refuse_refuses_before_anything_is_written(lab: Lab) -> None:
    before = lab.tree()
    done = lab.run("recover", "sequence", "gatewy", "--to", "1")
    assert done.code == 2
    assert "there is no product 'gatewy'; there is: gateway" in done.err
    done = lab.run("recover", "sequence", PRODUCT, "--to", "3")
    assert done.code == 5
    assert "no build of gateway has sequence 3 or more" in done.err
    assert "the newest has 2" in done.err
    assert lab.tree() == before


def test_a_reset_discards_signatures_only_by_name(lab: Lab) -> None:
    lab.ok("ceremony", "start", "targets")
    lab.workspace.remove_key_uri("bob")
    lab.workspace.remove_key_uri("carol")
    lab.ok("sign")
    done = lab.run("recover", "sequence", PRODUCT, "--to", "1")
    assert done.code == 3
    assert "targets-2 has been signed by alice" in done.err
    lab.ok("recover", "sequence", PRODUCT, "--to", "1", "--discard-signatures", "targets")
