"""What must hold after every cut, as functions from a cut to the violations that it shows."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from client_reference.errors import FirmrootError, LocalFailureError
from client_reference.install.bootloader import TRIES, FileBootloader
from client_reference.install.handlers import open_installer
from client_reference.trust.store import SqliteStore, StoreLostError
from tests.power import drivers
from tests.power.replay import write_tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.power.replay import Cut, Tree

__all__ = ["FULL", "OLD", "OLDER", "STRIDE", "placed", "slots_after", "store_after", "workspace"]

# `make test` runs a reduced matrix, FIRMROOT_CUTS=full the whole of it; with a number N, the whole
# but for the cuts of whole devices, of which it is every Nth.
_ASKED = os.environ.get("FIRMROOT_CUTS", "")
FULL = bool(_ASKED)
STRIDE = int(_ASKED) if _ASKED.isdecimal() else 1

COPIES = ("a.db", "b.db")
_MEMORY = Path("/dev/shm")  # noqa: S108  a file system without a medium: thousands of trees


@contextmanager
def workspace() -> Iterator[Path]:
    """A directory that costs no disk."""
    where = _MEMORY if _MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=where) as name:
        yield Path(name).resolve()


@contextmanager
def placed(tree: Mapping[str, bytes | None]) -> Iterator[Path]:
    """A tree on disk."""
    with workspace() as root:
        write_tree(tree, root)
        yield root


def _number(text: str) -> int | None:
    return None if text == "None" else int(text)


def _said(cut: Cut, word: str) -> list[str]:
    return [mark.removeprefix(word + " ") for mark in cut.marks if mark.startswith(word + " ")]


def store_after(cut: Cut, at_least: int | None, *, lost: bool = False) -> list[str]:
    """The store starts, shows nothing older than what was acted on, and takes the next commit.

    What was acted on is in each copy by itself.

    Args:
        cut: of a recording of one of the store's drivers.
        at_least: the state before the recording; None if there was none.
        lost: the state was lost before the recording.
    """
    done = [number for number in map(_number, _said(cut, "done")) if number is not None]
    begun = [int(number) for number in _said(cut, "begin")]
    floor = max([*done, *([] if at_least is None else [at_least])], default=None)
    ceiling = max([*begun, *([] if floor is None else [floor])], default=None)
    wrong = []
    try:
        with placed(cut.tree) as root:
            wrong = _store_starts(root / "state", floor, ceiling)
    except StoreLostError as error:
        wrong = [] if lost and floor is None else [error.message]
    except FirmrootError as error:
        wrong = [f"{type(error).__name__}: {error.message}"]
    for copy in COPIES if done else ():
        number = copy_number(cut.tree, copy)
        if number is None or not max(done) <= number <= (ceiling or 0):
            wrong.append(f"{copy} alone holds {number}, not state {max(done)}")
    return [f"call {cut.index}, {cut.model.value}: {text}" for text in wrong]


def _store_starts(directory: Path, floor: int | None, ceiling: int | None) -> list[str]:
    with SqliteStore(directory) as store:
        state = store.load()
        number = state.trust.time_floor if state else None
        if number is None and floor is not None:
            return [f"the state is gone, it was {floor}"]
        if number is not None and not (floor or 0) <= number <= (ceiling or 0):
            return [f"the state is {number}, not {floor} to {ceiling}"]
        if number is not None and (
            state != drivers.state(number) or list(store.root_chain()) != drivers.chain(number)
        ):
            return [f"state {number} is not what was committed"]
    following = 0 if number is None else number + 1
    with SqliteStore(directory) as store:
        again = store.load()
        if again != state:
            return ["a second start finds another state"]
        roots = drivers.chain(following)[len(drivers.chain(number)) if number is not None else 0 :]
        store.commit(drivers.state(following), roots)
    found = SqliteStore(directory).peek()
    return [] if found == drivers.state(following) else ["the next commit was not taken"]


def copy_number(tree: Tree, copy: str) -> int | None:
    """The state that one copy holds when the other is gone; None if it holds none."""
    mine = {path: content for path, content in tree.items() if not _of_other(path, copy)}
    with placed(mine) as root, SqliteStore(root / "state") as store:
        try:
            state = store.load()
        except LocalFailureError:
            return None
        return state.trust.time_floor if state else None


def _of_other(path: str, copy: str) -> bool:
    (other,) = set(COPIES) - {copy}
    return path.startswith(f"state/{other}")


OLD = b"the image that the factory wrote" * 100
OLDER = b"the image before the last update" * 90
_WHOLE = {OLD, OLDER, drivers.PAYLOAD}


def slots_after(cut: Cut) -> list[str]:
    """Every bootable slot holds a whole image, the right one boots, and an update still works."""
    try:
        with placed(cut.tree) as root:
            wrong = _slots_boot(cut, root)
    except FirmrootError as error:
        wrong = [f"{type(error).__name__}: {error.message}"]
    return [f"call {cut.index}, {cut.model.value}: {text}" for text in wrong]


def _slots_boot(cut: Cut, root: Path) -> list[str]:
    slots = drivers.settings(root).slots
    loader = FileBootloader(root / "slots" / "boot.json", tuple(slots))
    for slot in loader.record().bootable:
        if not slots[slot].is_file() or slots[slot].read_bytes() not in _WHOLE:
            return [f"slot {slot} is bootable and does not hold a whole image"]
    expected = _expected_boot(cut)
    loader.reboot()
    if loader.running() not in expected:
        return [f"slot {loader.running()} boots, not {' or '.join(expected)}"]
    for _ in range(TRIES):
        if loader.running() != loader.primary():
            loader.reboot()
    if loader.running() != loader.primary():
        return ["an unconfirmed trial is booted for ever"]
    installer = open_installer(drivers.settings(root))
    image = installer.begin(drivers.IMAGE)
    installer.write(0, drivers.PAYLOAD)
    for step in (installer.finish, installer.activate):
        step(image)
    installer.reboot()
    installer.confirm(image)
    return [] if installer.running() == image.slot else ["the next update does not run"]


def _expected_boot(cut: Cut) -> str:
    """The slots that the next boot may take, by what was said so far."""
    expected = "A"
    for mark in cut.marks:
        match mark.split():
            case ["begin", "activate" | "reject"]:
                expected = "AB"
            case ["done", "activate"]:
                expected = "B"  # until its tries are used up, and for good once it is confirmed
            case ["done", "reject"]:
                expected = "A"
    return expected
