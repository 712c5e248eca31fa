"""Who this device is, read from where the configuration says: files, the device tree, a command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from client_reference.errors import ConfigurationError
from client_reference.manifest import HARDWARE

if TYPE_CHECKING:
    from client_reference.config import IdentitySource

__all__ = ["DEVICE_TREE", "device_id", "hardware"]

DEVICE_TREE = Path("/sys/firmware/devicetree/base/compatible")
_MAX = 4096
_SECONDS = 30
_LINES = {
    "identity.hardware": 'hardware = "literal:VENDOR,BOARD" or hardware = "command:PROGRAM"',
    "identity.device_id": 'device_id = "file:/etc/machine-id" or device_id = "literal:SERIAL"',
}


def hardware(source: IdentitySource, device_tree: Path = DEVICE_TREE) -> tuple[str, ...]:
    """Hardware ids, the most specific first.

    Raises:
        ConfigurationError: they cannot be read, or are none.
    """
    if source.kind == "device-tree":
        found = _file(device_tree, "identity.hardware").split("\0")
    else:
        found = _text(source, "identity.hardware").split("\n")
    ids = tuple(one.strip() for one in found if one.strip())
    for one in ids:
        if not HARDWARE.fullmatch(one):
            raise ConfigurationError(
                f"identity.hardware gives {one!r}, expected ids of the form {HARDWARE.pattern}"
            )
    if not ids:
        raise ConfigurationError("identity.hardware gives nothing, expected a hardware id")
    return ids


def device_id(source: IdentitySource) -> str:
    """Any text that differs between devices.

    Raises:
        ConfigurationError: it cannot be read, or is empty: all such devices would share one wave.
    """
    found = _text(source, "identity.device_id").strip("\0\r\n\t ")
    if not found:
        raise ConfigurationError(
            "identity.device_id is empty, expected a text that differs between devices"
        )
    return found


def _text(source: IdentitySource, key: str) -> str:
    if source.kind == "literal":
        return source.value
    if source.kind == "file":
        return _file(Path(source.value), key)
    return _output(source.value, key)


def _file(path: Path, key: str) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX).decode("utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{key}: {path} cannot be read ({error.strerror})",
            f"write one of these lines under [identity] in device.toml: {_LINES[key]}",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{key}: {path} is not UTF-8 text") from error


def _output(program: str, key: str) -> str:
    import subprocess  # noqa: PLC0415 # few devices ask a program

    try:
        done = subprocess.run(  # noqa: S603 # from the device's own configuration, no shell
            [program], capture_output=True, check=True, timeout=_SECONDS
        )
        return done.stdout[:_MAX].decode("utf-8")
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{key}: {program} gives no text: {error}", "run it by hand to see why"
        ) from error
