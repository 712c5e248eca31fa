"""A lab workspace that tests drive through the real command line, in this process.

`FIRMROOT_LAB_NOW` fixes the time and every lab key is ed25519, so the same commands give the same
bytes: two histories of one workspace can be compared file by file.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from tuf.api.metadata import TargetFile

from client_reference.selection import DevicePosition
from client_reference.transport.fetcher import DirectoryFetcher
from client_reference.trust.updater import Floors
from repo_tools.cli.main import main
from repo_tools.publishing.rehearse import Device, Outcome, meet
from repo_tools.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["HARDWARE", "NOW", "PRODUCT", "Done", "Lab", "entry", "image"]

NOW = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)
PRODUCT, HARDWARE = "gateway", "acme,gw-2"


def image(label: str, length: int = 1_200_000) -> bytes:
    """Firmware that differs by label, a little longer than one segment."""
    line = f"{label} firmware, not compressed, not random\n".encode()
    return (line * (length // len(line) + 1))[:length]


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401  whatever the command printed
        return json.loads(self.out)


def entry(path: str, version: str, sequence: int, data: bytes = b"firmware") -> TargetFile:
    """What a builds role or a bin says of one artifact."""
    target = TargetFile.from_data(path, data, ["sha256"])
    target.unrecognized_fields["custom"] = {
        "handler": "slot",
        "hardware": [HARDWARE],
        "product": PRODUCT,
        "sequence": sequence,
        "version": version,
    }
    return target


@dataclass
class Lab:
    """One workspace at one moment.

    Attributes:
        directory: its top.
        now: what its clock says.
    """

    directory: Path
    now: datetime = NOW

    @property
    def workspace(self) -> Workspace:
        return Workspace.open(self.directory)

    @property
    def repository(self) -> Path:
        return self.directory / "repository"

    def copy(self, directory: Path) -> Lab:
        """The same workspace, elsewhere."""
        shutil.copytree(self.directory, directory)
        return Lab(directory, self.now)

    def later(self, **ago: float) -> Lab:
        """The same workspace, some time later."""
        return Lab(self.directory, self.now + timedelta(**ago))

    def run(self, *arguments: str | Path) -> Done:
        """One command, whatever comes of it."""
        out, err = io.StringIO(), io.StringIO()
        with (
            self.environment(),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = main(["-C", str(self.directory), *map(str, arguments)])
        return Done(code, out.getvalue(), err.getvalue())

    @contextlib.contextmanager
    def environment(self) -> Iterator[None]:
        """The variables with which a command of this lab runs."""
        with (
            patch.dict(os.environ, {"FIRMROOT_LAB_NOW": f"{self.now:%Y-%m-%dT%H:%M:%SZ}"}),
            # Where a bridge waits for caches: there are none.
            patch("repo_tools.cli.publish.time.sleep", lambda _: None),
        ):
            yield

    def ok(self, *arguments: str | Path) -> Done:
        """One command that must succeed."""
        done = self.run(*arguments)
        assert done.code == 0, f"{arguments}: {done}"
        return done

    def init(self) -> None:
        """Make the workspace."""
        out = io.StringIO()
        with self.environment(), contextlib.redirect_stdout(out):
            assert main(["init", str(self.directory), "--lab"]) == 0, out.getvalue()

    def add(self, version: str, *, data: bytes | None = None) -> Done:
        """Add firmware under a version."""
        file = self.directory.parent / "firmware.img"
        file.write_bytes(image(version) if data is None else data)
        return self.ok(
            "firmware", "add", file, "-p", PRODUCT, "-V", version, "--hardware", HARDWARE
        )

    def promote(self, version: str) -> None:
        """Offer a version on the stable channel, and sign that."""
        self.ok("channel", "promote", f"{PRODUCT}@{version}", "--to", "stable")
        self.ok("sign")

    def ship(self, version: str) -> None:
        """From a file to live."""
        self.add(version)
        self.promote(version)
        self.ok("publish")

    def tree(self) -> dict[str, bytes]:
        """Every file but locks and what a killed process left half-written."""
        return {
            str(path.relative_to(self.directory)): path.read_bytes()
            for path in sorted(self.directory.rglob("*"))
            if path.is_file() and not path.name.startswith(".") and path.name != "lock"
        }

    def fresh_device(self) -> tuple[Outcome, str]:
        """What a device with the first root does with what is in the repository now."""
        root = self.directory.parent / "factory-root.json"
        floors = Floors(time=0, minimum_sequence=0, epoch=0)
        position = DevicePosition(PRODUCT, "stable", (HARDWARE,), "slot", "test")
        device = Device("test", position, root.read_bytes(), floors)
        return meet(device, DirectoryFetcher(self.repository), self.now)
