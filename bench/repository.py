"""What is measured against: a lab repository made by firmroot's own commands, and its device."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Device", "Repository", "make_repository"]

MIB = 1 << 20


@dataclass(frozen=True)
class Device:
    """A device's directory, as `factory export` made it, pointed at one server."""

    directory: Path

    @property
    def config(self) -> Path:
        """Its `device.toml`."""
        return self.directory / "device.toml"

    @property
    def state(self) -> Path:
        """Its trust store."""
        return self.directory / "state"


@dataclass(frozen=True)
class Repository:
    """A published repository.

    Attributes:
        directory: of `metadata/` and `targets/`.
        factory: a factory export of its product, never run.
        image: path of the published image below `directory`.
    """

    directory: Path
    factory: Path
    image: str

    @property
    def root(self) -> Path:
        """The root that devices are made with."""
        return self.factory / "factory" / "root.json"

    def device(self, directory: Path, url: str) -> Device:
        """A new device that fetches from `url`."""
        if directory.exists():
            shutil.rmtree(directory)
        shutil.copytree(self.factory, directory)
        device = Device(directory)
        text, changed = re.subn(
            r"(?m)^mirrors = .*$", f'mirrors = ["{url}"]', device.config.read_text()
        )
        if changed != 1:
            raise RuntimeError(f"{device.config} has {changed} lines of mirrors, expected 1")
        device.config.write_text(text)
        return device


def make_repository(scratch: Path, size: int) -> Repository:
    """Publish one image of `size` bytes and export its factory files."""
    image = scratch / "firmware.img"
    with image.open("wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
    workspace = scratch / "acme"
    _firmroot("init", str(workspace), "--lab")
    inside = ("-C", str(workspace))
    _firmroot(*inside, "product", "add", "gateway", "--hardware", "acme,gw-2")
    add = ("firmware", "add", str(image), "-p", "gateway", "-V", "1.0", "--hardware", "acme,gw-2")
    _firmroot(*inside, *add)
    image.unlink()
    _firmroot(*inside, "channel", "promote", "gateway@1.0", "--to", "stable")
    _firmroot(*inside, "sign")
    _firmroot(*inside, "publish")
    _firmroot(*inside, "factory", "export", "gateway", "--to", str(scratch / "factory"))
    directory = workspace / "repository"
    largest = max((directory / "targets").rglob("*"), key=lambda path: path.stat().st_size)
    return Repository(directory, scratch / "factory", str(largest.relative_to(directory)))


def _firmroot(*arguments: str) -> None:
    command = [sys.executable, "-c", "from repo_tools.cli.main import run; run()", *arguments]
    done = subprocess.run(  # noqa: S603 - our own command
        command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        raise RuntimeError(f"firmroot {' '.join(arguments)}: {done.returncode}\n{done.stderr}")
