"""Keys that are lost or in other hands, as `gone.toml` of a workspace remembers them.

It says how a root without such a key goes live (`repo_tools.publishing.bridge`). Git shares it with
whoever publishes and refreshes, and remembers when.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import tomlkit

from client_reference.errors import ConfigurationError
from repo_tools.files import replace_file
from repo_tools.git import has_conflict
from repo_tools.publishing.bridge import Gone

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from repo_tools.workspace import Workspace

__all__ = ["gone_keys", "remember_gone"]

_FIRST = "# Keys that are lost or stolen. firmroot writes this file; no entry is ever removed.\n"


def gone_keys(ws: Workspace) -> Mapping[str, Gone]:
    """Key ids of the keys that are gone.

    Raises:
        ConfigurationError: the file is damaged.
    """
    return {ws.keyring[name].key.keyid: how for name, how in _read(_path(ws)) if name in ws.keyring}


def remember_gone(ws: Workspace, name: str, how: Gone) -> None:
    """Enter a key; what was stolen once is not merely lost later. Raises as `gone_keys`."""
    found = dict(_read(_path(ws)))
    if found.get(name) in {how, Gone.STOLEN}:
        return
    found[name] = how
    keys = {each: found[each].value for each in sorted(found)}
    replace_file(_path(ws), (_FIRST + tomlkit.dumps({"schema": 1, "keys": keys})).encode())


def _path(ws: Workspace) -> Path:
    return ws.directory / "gone.toml"


def _read(path: Path) -> list[tuple[str, Gone]]:
    data = b""
    try:
        data = path.read_bytes()
        table = tomllib.loads(data.decode())
        return [(str(name), Gone(how)) for name, how in table["keys"].items()]
    except FileNotFoundError:
        return []
    except (OSError, KeyError, ValueError, AttributeError) as error:
        if has_conflict(data):
            raise ConfigurationError(
                f"{path.name} has the marks of a git conflict: two people lost keys at once",
                f"keep the entries of both, remove the marks, then: git add {path.name}",
            ) from error
        raise ConfigurationError(
            f"{path} cannot be read: {error!r}",
            "take it from git: it says which keys must not be relied upon",
        ) from error
