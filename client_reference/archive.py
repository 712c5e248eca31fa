"""The archive of `doctor`: what somebody else needs to understand a device, without its secrets.

In it: the findings, versions of the libraries, the configuration files, the accepted metadata and
the root chain. Not in it: the file that `repository.credentials` names, keys of any kind, images.
A password in a URL of the configuration is struck out. Everything is read; nothing is changed.
"""

from __future__ import annotations

import io
import json
import platform
import re
import tarfile
from contextlib import suppress
from typing import TYPE_CHECKING

from client_reference.errors import ConfigurationError, FirmrootError
from client_reference.trust.selftest import installed_version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from client_reference.config import DeviceConfig
    from client_reference.doctor import Finding
    from client_reference.trust.store import SqliteStore

__all__ = ["write"]

_PACKAGES = ("firmroot", "tuf", "securesystemslib", "cryptography")
_USER = re.compile(rb"://[^/\s\"']*@")


def write(
    path: Path, config: DeviceConfig, store: SqliteStore, findings: Sequence[Finding]
) -> None:
    """Write the archive.

    Raises:
        ConfigurationError: it cannot be written there.
    """
    try:
        with tarfile.open(path, "w:gz") as archive:
            for name, data in _contents(config, store, findings).items():
                entry = tarfile.TarInfo(f"firmroot-doctor/{name}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror}", "name another file with --archive"
        ) from error


def _contents(
    config: DeviceConfig, store: SqliteStore, findings: Sequence[Finding]
) -> Mapping[str, bytes]:
    report = {
        "findings": [finding.document() for finding in findings],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: installed_version(name) for name in _PACKAGES},
    }
    contents = {"report.json": json.dumps(report, indent=1).encode()}
    drop_ins = sorted((config.path.parent / "device.d").glob("*.toml"))
    for file in (config.path, *drop_ins, config.trust.state / "device.toml"):
        with suppress(OSError):
            contents[f"config/{file.parent.name}/{file.name}"] = _USER.sub(
                b"://(struck out)@", file.read_bytes()
            )
    with suppress(FirmrootError):
        state = store.peek()
        trusted: dict[str, bytes | None] = {}
        if state is not None:
            trust = state.trust
            trusted = {"timestamp": trust.timestamp, "snapshot": trust.snapshot, **trust.roles}
        for role, data in trusted.items():
            if data is not None:
                contents[f"metadata/{role.replace('/', '%2F')}.json"] = data
        for position, root in enumerate(store.peek_chain()):
            contents[f"metadata/root-chain/{position}.json"] = root
    return contents
