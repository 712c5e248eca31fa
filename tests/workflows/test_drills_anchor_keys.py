"""A recovery key is replaced: the people of the anchor change, and every device follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from repo_tools.metadata.anchor import walk
from tests.workflows.test_drills_anchor import NEW_PEOPLE, OLD_PEOPLE, RE_ROOTED

if TYPE_CHECKING:
    from tests.workflows.drill import Drill


def mine(drill: Drill) -> set[str]:
    """The private keys of recovery holders that the lab can use."""
    names = ("noor", "otto", "pia")
    return {name for name in drill.lab.workspace.own_key_uris() if name.startswith(names)}


def people(drill: Drill) -> set[str]:
    """Who holds the published anchor."""
    ws = drill.lab.workspace
    anchor = ws.newest_recovery()
    assert anchor is not None
    return {ws.key_name(keyid) for keyid in anchor.roles["root"].keyids}


def test_every_recovery_key_but_one_is_rotated_and_a_device_of_before_is_re_rooted(
    rescue: Drill,
) -> None:
    rescue.run("init")
    rescue.install("1.0")
    said = rescue.firmroot("rotate", "noor")
    assert "1. a new recovery root 2, signed by 2 of its own keys and 2 of those of the" in said
    assert "2. anchor publish: " in said
    assert "3. factory export: " in said
    assert "recovery-2: open, waits for signatures" in said
    assert "next: firmroot sign" in said
    # A second one before the first is signed: the old threshold is noor and otto, or pia.
    said = rescue.firmroot("rotate", "otto")
    assert "recovery-2: open" in said
    assert mine(rescue) == {"noor", "noor-2", "otto", "otto-2", "pia"}

    assert "next: firmroot anchor publish" in rescue.firmroot("sign")
    said = rescue.firmroot("anchor", "publish")
    assert people(rescue) == {"noor-2", "otto-2", "pia"}
    assert mine(rescue) == {"noor-2", "otto-2", "pia"}, "the old ones have signed for the last time"
    assert [link.version for link in walk(rescue.lab.workspace.recovery_roots())] == [1, 2]
    assert "firmroot anchor" not in rescue.firmroot("status").splitlines()[-1]

    # Root is gone, and the new people of the anchor lead the device on, whose anchor is the old.
    rescue.later(days=366)
    for name in NEW_PEOPLE:
        rescue.firmroot("key", "new", name, "--role", "root", "--role", "targets")
    rescue.firmroot("anchor", "re-root", *(w for name in OLD_PEOPLE for w in ("--without", name)))
    rescue.firmroot("sign")
    assert "recovery-3: open" in rescue.firmroot("anchor", "re-root")
    for command in ("sign", "publish"):
        rescue.firmroot(command)
    rescue.firmroot("anchor", "publish")
    assert RE_ROOTED in rescue.run("check")
    assert rescue.status["epoch"] == 1
    rescue.unharmed("1.1")


@pytest.mark.parametrize("how", ["lost-key", "stolen-key"])
def test_a_recovery_key_that_is_gone(rescue: Drill, how: str) -> None:
    ws = rescue.lab.workspace
    if how == "lost-key":
        (ws.directory / ws.own_key_uris()["otto"].removeprefix("file:")).unlink()
    said = rescue.firmroot("recover", how, "otto")
    assert ("recovery: with 1 more key(s) its thief signs it" in said) == (how == "stolen-key")
    assert ("otto" in mine(rescue)) == (how == "stolen-key")
    assert "next: firmroot sign" in said
    rescue.firmroot("sign")
    rescue.firmroot("anchor", "publish")
    assert people(rescue) == mine(rescue) == {"noor", "otto-2", "pia"}


def test_a_rotation_of_a_recovery_key_that_was_killed_is_led_on(rescue: Drill) -> None:
    rescue.firmroot("rotate", "noor")
    rescue.firmroot("--yes", "ceremony", "abandon", "recovery-2")
    assert "next: firmroot anchor renew  (the policy gives" in rescue.firmroot("status")
    said = rescue.firmroot("rotate", "noor")
    assert "recovery-2: open, waits for signatures" in said
    rescue.firmroot("sign")
    rescue.firmroot("anchor", "publish")
    assert people(rescue) == {"noor-2", "otto", "pia"}
