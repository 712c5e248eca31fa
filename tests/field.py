"""Both halves in the field: a lab workspace, its server and a device, driven by their commands.

Tests that use it see what a person at a terminal would: exit codes and `--json`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DeviceCommands", "Release", "lab", "new_device", "required", "serving"]

BIN = Path(sys.executable).parent
PRODUCT, HARDWARE, CHANNEL = "gateway", "acme,gw-2", "stable"


def _json(*command: str | Path, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120
    )
    said = f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.returncode in codes, said
    assert "Traceback" not in done.stderr, said
    result = json.loads(done.stdout) if done.stdout.strip() else {}
    assert isinstance(result, dict), said
    return result


@dataclass(frozen=True)
class Release:
    """A release engineer's workspace.

    Attributes:
        workspace: its directory.
    """

    workspace: Path

    @property
    def repository(self) -> Path:
        """What is published, on the default storage."""
        return self.workspace / "repository"

    def run(self, *arguments: str | Path, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
        """One `firmroot` command; fails the test unless its exit code is among `codes`."""
        return _json(BIN / "firmroot", "-C", self.workspace, "--json", *arguments, codes=codes)

    def ship(self, image: Path, version: str) -> None:
        """From a file to the channel, signed and live."""
        options = ("-p", PRODUCT, "-V", version, "--hardware", HARDWARE)
        self.run("firmware", "add", image, *options)
        self.run("channel", "promote", f"{PRODUCT}@{version}", "--to", CHANNEL)
        self.sign_and_publish()

    def sign_and_publish(self) -> None:
        """Make what is prepared live."""
        self.run("sign")
        self.run("publish")


@dataclass(frozen=True)
class DeviceCommands:
    """A device and its `firmroot-device`."""

    directory: Path

    def run(self, *arguments: str | Path, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
        """One `firmroot-device` command; fails the test unless its code is among `codes`."""
        config = self.directory / "device.toml"
        return _json(BIN / "firmroot-device", "--config", config, "--json", *arguments, codes=codes)

    def slot(self, name: str) -> bytes:
        """What is in a slot."""
        return (self.directory / "slots" / f"{name}.img").read_bytes()


def lab(directory: Path) -> Release:
    """A lab workspace with one product."""
    workspace = directory / "acme"
    _json(BIN / "firmroot", "--json", "init", workspace, "--lab")
    release = Release(workspace)
    release.run("product", "add", PRODUCT, "--hardware", HARDWARE)
    return release


@contextlib.contextmanager
def serving(release: Release) -> Iterator[str]:
    """`firmroot serve` on a free port; yields the URL, which ends in `/`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command: list[str | Path] = [BIN / "firmroot", "-C", release.workspace]
    command += ["serve", "--port", str(port)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        else:
            raise AssertionError(f"firmroot serve did not start: {process.poll()}")
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.communicate(timeout=20)


def new_device(release: Release, directory: Path, url: str) -> DeviceCommands:
    """A device fresh from the factory, that fetches from `url`."""
    release.run("factory", "export", PRODUCT, "--to", directory)
    config = directory / "device.toml"
    text, changed = re.subn(r"(?m)^mirrors = .*$", f'mirrors = ["{url}"]', config.read_text())
    assert changed == 1, text
    config.write_text(text)
    device = DeviceCommands(directory)
    device.run("init")
    return device


def required(reason: str) -> str:
    """Why a test cannot run here, for its skip; on CI, where everything is there, it fails."""
    if os.environ.get("CI"):
        raise AssertionError(f"missing on CI: {reason}")
    return reason
