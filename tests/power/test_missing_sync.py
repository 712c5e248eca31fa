"""The harness is not blind: with any sync taken out of the code, some cut shows the damage."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.power import drivers
from tests.power.checks import slots_after, store_after, workspace
from tests.power.recorder import record
from tests.power.replay import cuts
from tests.power.test_slot_cuts import WHOLE, furnish

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.power.replay import Cut

INSTALL = ("install", *WHOLE, "confirm")
COMMIT = ("commit", 0, 2)


def in_store(cut: Cut) -> list[str]:
    return store_after(cut, None)


@dataclass(frozen=True)
class Sabotage:
    """One change to a copy of the code, and the run that it must spoil."""

    file: str
    found: str
    instead: str
    words: tuple[object, ...]
    check: Callable[[Cut], list[str]]
    second: bool = True


EXTRA = "PRAGMA synchronous = EXTRA"
SABOTAGES = {
    "the store does not sync its directory after a commit": Sabotage(
        "trust/store.py", EXTRA, "PRAGMA synchronous = FULL", COMMIT, in_store
    ),
    "the store syncs its journal once only": Sabotage(
        "trust/store.py", EXTRA, "PRAGMA synchronous = NORMAL", COMMIT, in_store
    ),
    "the store syncs nothing": Sabotage(
        "trust/store.py", EXTRA, "PRAGMA synchronous = OFF", COMMIT, in_store
    ),
    "the store writes one copy only": Sabotage(
        "trust/store.py",
        "for path in self._paths:\n                self._write",
        "for path in self._paths[:1]:\n                self._write",
        COMMIT,
        in_store,
    ),
    "the store keeps its journal in memory": Sabotage(
        "trust/store.py", EXTRA, "PRAGMA journal_mode = MEMORY", COMMIT, in_store
    ),
    "the state directory's own name is not synced": Sabotage(
        "durable.py",
        "exist_ok=True)\n    sync_directory(path.parent)\n", "exist_ok=True)\n",
        COMMIT, in_store,
    ),
    "a replaced file is not synced": Sabotage(
        "durable.py", "        os.fsync(file.fileno())\n", "", INSTALL, slots_after
    ),
    "a replaced file's directory is not synced": Sabotage(
        "durable.py", "        raise\n    sync_directory(path.parent)", "        raise",
        INSTALL, slots_after,
    ),
    "a file is replaced in place": Sabotage(
        "durable.py", 'path.with_name(path.name + ".new")', "path", INSTALL, slots_after
    ),
    "a slot is not synced before it may boot": Sabotage(
        "durable.py", "    os.fsync(descriptor)\n    os.posix", "    os.posix",
        INSTALL, slots_after,
    ),
    "a slot's name is not synced before it may boot": Sabotage(
        "install/slots.py", "                    sync_directory(path.parent)\n", "",
        INSTALL, slots_after, second=False,
    ),
    "a slot is written while it may boot": Sabotage(
        "install/slots.py", "                self._bootloader.disable(slot)\n", "",
        INSTALL, slots_after,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_missing_sync_is_seen(name: str, tmp_path: Path) -> None:
    sabotage = SABOTAGES[name]
    code = tmp_path / "client_reference"
    shutil.copytree(drivers.ROOT / "client_reference", code, ignore=lambda *_: ["__pycache__"])
    source = (code / sabotage.file).read_text()
    assert source.count(sabotage.found) == 1, "the sabotage does not fit the code any more"
    (code / sabotage.file).write_text(source.replace(sabotage.found, sabotage.instead))
    with workspace() as tree:
        if sabotage.words[0] == "install":
            furnish(tree, second=sabotage.second)
        environment = drivers.environment() | {"PYTHONPATH": str(tmp_path)}
        recording = record(drivers.argv(tree, *sabotage.words), tree, env=environment)
    assert recording.exit_code == 0, recording.output
    wrong = itertools.chain.from_iterable(map(sabotage.check, cuts(recording)))
    assert next(wrong, None), "no cut showed it"
