"""The programs that the recorder runs: each does one thing to a tree and says when it is done.

Run as `python drivers.py NAME TREE ...`; what follows `MARK` on standard output is what the program
has told the world. Tests import the same functions to know what must be there.
"""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import replace
from pathlib import Path

from client_reference.errors import FirmrootError
from client_reference.install.handlers import InstallSettings, open_installer
from client_reference.trust.state import DeviceState, Image, InstallState, Phase, TrustState
from client_reference.trust.store import SqliteStore, StoreLostError

ROOT = Path(__file__).resolve().parents[2]
PAYLOAD = bytes(range(256)) * 12  # six sectors: several writes, several places to tear one
PIECE = 1024
EPOCH = 100  # from this number on the states are of epoch 1, whose roots begin at 1 again
IMAGE = Image(hashlib.sha256(PAYLOAD).hexdigest(), len(PAYLOAD), "1.1", 2)


def argv(tree: Path, name: object, *words: object) -> list[str]:
    """The command line of a driver."""
    return [sys.executable, "-B", __file__, *map(str, (name, tree, *words))]


def environment() -> dict[str, str]:
    """An environment in which drivers import this copy of the project."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def root_file(number: int, epoch: int = 0) -> bytes:
    """A root file; large enough that a chain of them spreads over pages."""
    return f"root {number}{f' of epoch {epoch}' if epoch else ''}".encode() * 300


def state(number: int) -> DeviceState:
    """The state that commit `number` stores: every second one brings a root and drops metadata."""
    epoch, step = divmod(number, EPOCH)
    version = 1 + step // 2
    trust = TrustState(
        factory_sha256="ab" * 32,
        root=root_file(version, epoch),
        root_version=version,
        timestamp=f"timestamp {number}".encode() if number % 2 else None,
        snapshot=f"snapshot {number}".encode() * 100 if number % 2 else None,
        roles={"targets": f"targets {number}".encode() * 500, "gateway-stable": b"{}"},
        time_floor=number,
        epoch=epoch,
        recovery_root=f"recovery root {epoch}".encode() * 200,
        recovery_version=1 + epoch,
    )
    install = InstallState(phase=Phase.IDLE, confirmed_sequence=number)
    return DeviceState(trust, install)


def chain(number: int) -> list[bytes]:
    """The root chain after commit `number`."""
    epoch, step = divmod(number, EPOCH)
    return [root_file(version, epoch) for version in range(1, 2 + step // 2)]


def commit(tree: Path, first: int, last: int) -> None:
    """Commit the states from `first` to `last`."""
    with SqliteStore(tree / "state") as store:
        store.load()
        for number in range(first, last + 1):
            say(f"begin {number}")
            new_roots = [root_file(1 + number // 2)] if number and number % 2 == 0 else []
            store.commit(state(number), new_roots)
            say(f"done {number}")


def begin_epoch(tree: Path, number: int) -> None:
    """Commit a state whose root chain begins again."""
    with SqliteStore(tree / "state") as store:
        store.load()
        say(f"begin {number}")
        store.begin_again(state(number))
        say(f"done {number}")


def load(tree: Path) -> None:
    """Load, and act on it."""
    with SqliteStore(tree / "state") as store:
        found = store.load()
        say(f"done {found.trust.time_floor if found else None}")


def restart(tree: Path) -> None:
    """Start again from the factory, as a device does that has lost both copies."""
    with SqliteStore(tree / "state") as store:
        try:
            store.load()
        except StoreLostError:
            say("begin 0")
            store.commit(state(0))
            say("done 0")


def settings(tree: Path) -> InstallSettings:
    """Two slots, in a directory each: no sync of one covers the other by chance."""
    slots = {"A": tree / "slots" / "A.img", "B": tree / "second" / "B.img"}
    return InstallSettings("slot", tree / "cache", slots)


def install(tree: Path, *events: str) -> None:
    """Call the slot handler: begin, write, finish, activate, reboot, confirm, reject."""
    installer = open_installer(settings(tree))
    image = replace(IMAGE, slot="B")
    for event in events:
        say(f"begin {event}")
        match event:
            case "begin":
                image = installer.begin(IMAGE)
            case "write":
                for offset in range(0, len(PAYLOAD), PIECE):
                    installer.write(offset, PAYLOAD[offset : offset + PIECE])
            case "reboot":
                installer.reboot()
            case _:
                getattr(installer, event)(image)
        say(f"done {event}")


def say(text: str) -> None:
    """Tell the world."""
    os.write(1, f"MARK {text}\n".encode())


def main(name: str, tree: str, *words: str) -> None:
    """Run one driver."""
    match name:
        case "commit":
            commit(Path(tree), int(words[0]), int(words[1]))
        case "begin_epoch":
            begin_epoch(Path(tree), int(words[0]))
        case "load":
            load(Path(tree))
        case "restart":
            restart(Path(tree))
        case "install":
            install(Path(tree), *words)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except FirmrootError as failure:
        print(failure.message)
        sys.exit(failure.exit_code)
