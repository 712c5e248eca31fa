"""A rotation that is killed at any file operation, and run again, is carried out once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from repo_tools.gone import gone_keys
from tests.publishing.kills import count_operations, run_killed
from tests.publishing.lab import HARDWARE, PRODUCT, Lab

if TYPE_CHECKING:
    from pathlib import Path

SPREAD = 25
COMMANDS = {
    "a stolen builder's key": ("recover", "stolen-key", "ci"),
    "a root key without hurry": ("rotate", "alice"),
    "a lost online key": ("recover", "lost-key", "publisher"),
    "a sequence reset": ("recover", "sequence", PRODUCT, "--to", "1"),
}


@pytest.mark.long
@pytest.mark.parametrize("case", COMMANDS)
def test_a_rotation_that_was_killed_is_taken_up_again(case: str, tmp_path: Path) -> None:
    command = COMMANDS[case]
    live = Lab(tmp_path / "live/acme")
    live.init()
    live.ok("product", "add", PRODUCT, "--hardware", HARDWARE)
    live.ship("1.0")
    root = (live.repository / "metadata/1.root.json").read_bytes()
    whole = live.copy(tmp_path / "whole/acme")
    count = count_operations(whole, *command)
    expected = _outcome(whole)
    every = os.environ.get("FIRMROOT_KILLS") == "full" or count <= SPREAD
    points = (
        range(1, count + 1)
        if every
        else sorted({1 + round(step * (count - 1) / (SPREAD - 1)) for step in range(SPREAD)})
    )
    for point in points:
        top = tmp_path / f"at {point}"
        lab = live.copy(top / "acme")
        (top / "factory-root.json").write_bytes(root)
        run_killed(lab, point, *command)
        lab.ok(*command)
        assert _outcome(lab) == expected, point
        lab.ok("sign")
        lab.ok("publish")
        assert lab.fresh_device()[1] == "installs 1.0"


def _outcome(lab: Lab) -> tuple[object, ...]:
    """What a rotation leaves, in names: keys are random."""
    ws = lab.workspace
    return (
        {name: rules.keys for name, rules in ws.policy.roles.items()},
        sorted(ws.keyring),
        sorted(path.name for path in ws.ceremonies.iterdir() if (path / "payload.json").exists()),
        sorted(ws.config.online),
        sorted(ws.key_name(keyid).split()[0] for keyid in gone_keys(ws)),
    )
