"""A bad release in the field: what a device says that runs it, and how it gets on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.workflows.drill import Drill

WHY = ("--on", "stable", "--reason", "the modem hangs")


def test_a_device_on_a_withdrawn_release_says_so_until_it_moves_on(drill: Drill) -> None:
    drill.lab.ship("1.1")
    drill.install("1.1")
    drill.firmroot("channel", "withdraw", "gateway@1.1", *WHY)
    drill.firmroot("channel", "promote", "gateway@1.0", "--to", "stable")
    drill.firmroot("sign")
    drill.firmroot("publish")
    told = "1.1 is installed; it was withdrawn (the modem hangs) and nothing newer is offered yet"
    assert told in drill.run("check")
    assert told in drill.run("update")
    drill.runs("1.1")
    drill.unharmed("1.2")
    assert "1.2 is installed and is the newest release" in drill.run("check")


def test_a_device_that_has_staged_it_does_not_start_it(drill: Drill) -> None:
    drill.lab.ship("1.1")
    drill.run("update", "--download-only")
    drill.firmroot("channel", "withdraw", "gateway@1.1", *WHY)
    drill.firmroot("sign")
    drill.firmroot("publish")
    assert "channels/gateway/stable.json: offers nothing" in drill.firmroot("verify")
    said = drill.run("update")
    assert "1.1 (sequence 2) is not installed: it was withdrawn: the modem hangs" in said
    drill.runs("1.0")
    drill.unharmed("1.2")
