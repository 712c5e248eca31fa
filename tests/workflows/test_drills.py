"""Every drill of design section 7 is played, under its own name."""

from __future__ import annotations

import pytest

from tests.workflows import (
    test_drills_anchor,
    test_drills_keys,
    test_drills_tls,
    test_drills_world,
)

PLAYED = {
    name
    for module in (test_drills_anchor, test_drills_keys, test_drills_tls, test_drills_world)
    for name in vars(module)
}
DRILLS = (
    "shelf-aged",
    "expired-root",
    "stolen-online-key",
    "lost-root-key",
    "stolen-root-key",
    "stolen-ci-key",
    "stolen-channel-key",
    "lost-root",
    "stolen-root",
    "stolen-retired-root",
    "dead-ca",
    "clock-1970",
    "clock-2040",
    "torn-state",
    "frozen-mirror",
)


@pytest.mark.parametrize("drill", DRILLS)
def test_a_drill_is_played(drill: str) -> None:
    story = f"test_{drill.replace('-', '_')}"
    assert any(name == story or name.startswith(f"{story}_") for name in PLAYED)
