"""What the image carries from the factory: roots and floors, read-only files.

Written by `firmroot factory export`. Nothing here changes after the image was built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from client_reference import strictjson
from client_reference.errors import ConfigurationError, NotTrustedError
from client_reference.manifest import NAME
from client_reference.trust import verified
from client_reference.trust.updater import Floors
from client_reference.values import frozen

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Factory", "load", "require_roots"]

SCHEMA = 1
MAX_ROOT = 512_000
MAX_FLOORS = 16_384
_EXPORT = (
    "copy the directory `factory` of `firmroot factory export` there, or correct trust.factory in "
    "device.toml"
)


@frozen
class Factory:
    """A factory export: `root` and `recovery_root` are the bytes of files, not verified yet.

    A repository without a recovery anchor exports no recovery root.
    """

    product: str
    root: bytes
    floors: Floors
    recovery_root: bytes | None = None


def load(directory: Path) -> Factory:
    """Read `root.json`, `floors.json` and, if it is there, `recovery-root.json`.

    Raises:
        ConfigurationError: one is missing or malformed.
    """
    root = _read(directory / "root.json", MAX_ROOT)
    recovery = directory / "recovery-root.json"
    path = directory / "floors.json"
    try:
        document = strictjson.parse(_read(path, MAX_FLOORS), MAX_FLOORS, str(path))
        document.member("schema").integer(SCHEMA, SCHEMA)
        reset = document.find("reset")
        return Factory(
            product=document.member("product").text(NAME),
            root=root,
            floors=Floors(
                time=int(document.member("time").time().timestamp()),
                minimum_sequence=document.member("minimum_sequence").integer(),
                epoch=document.member("epoch").integer(),
                reset=0 if reset is None else reset.integer(),
            ),
            recovery_root=_read(recovery, MAX_ROOT) if recovery.exists() else None,
        )
    except NotTrustedError as error:
        raise ConfigurationError(error.message, _EXPORT) from error


def require_roots(directory: Path, export: Factory) -> None:
    """Whether each root of an export is one, signed by itself; asked when it could not be used.

    Raises:
        ConfigurationError: a file is no root at all. It is this device's own: no mirror sent it.
        BadSignatureError: it is not signed by itself.
    """
    files = {"root.json": export.root, "recovery-root.json": export.recovery_root}
    for name, data in files.items():
        if data is None:
            continue
        path = directory / name
        try:
            verified.first_root(data)
        except verified.MalformedError as error:
            raise ConfigurationError(
                f"{path} ({len(data)} bytes) is damaged or no root: {error.message}", _EXPORT
            ) from error


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read ({error.strerror}), expected part of a factory export", _EXPORT
        ) from error
    if len(data) > most:
        raise ConfigurationError(f"{path} is longer than {most} bytes", _EXPORT)
    return data
