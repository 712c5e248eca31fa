"""The slot handler and the boot record, cut at every system call: some slot always boots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from client_reference.install.bootloader import FileBootloader
from tests.power import drivers
from tests.power.checks import OLD, OLDER, slots_after, workspace
from tests.power.recorder import record
from tests.power.replay import cuts

if TYPE_CHECKING:
    from pathlib import Path

WHOLE = ("begin", "write", "finish", "activate", "reboot")
CASES = {
    "a first update that is confirmed": (False, (*WHOLE, "confirm")),
    "an update over a slot that can still boot": (True, (*WHOLE, "confirm")),
    "an update that is rejected on trial": (True, (*WHOLE, "reject", "reboot")),
    "an update that is rejected before its trial": (True, (*WHOLE[:4], "reject", "reboot")),
    "an update that nobody confirms": (True, (*WHOLE, "reboot")),
}


def furnish(tree: Path, *, second: bool) -> None:
    """A device that runs slot A; with `second`, B holds the image before that, bootable."""
    slots = tree / "slots"
    slots.mkdir()
    (slots / "A.img").write_bytes(OLD)
    if second:
        (tree / "second").mkdir()
        (tree / "second" / "B.img").write_bytes(OLDER)
        loader = FileBootloader(slots / "boot.json", ("B", "A"))
        loader.arm("A")
        loader.reboot()
        loader.confirm("A")


@pytest.mark.parametrize("name", CASES)
def test_after_every_cut_a_whole_image_boots_and_an_update_works(name: str) -> None:
    second, events = CASES[name]
    with workspace() as tree:
        furnish(tree, second=second)
        recording = record(drivers.argv(tree, "install", *events), tree, env=drivers.environment())
    assert recording.exit_code == 0, recording.output
    states = list(cuts(recording))
    print(f"{len(states)} cuts: {name}")
    wrong = [text for cut in states for text in slots_after(cut)]
    assert not wrong, "\n".join(wrong[:20])
    assert len(states) > 50
