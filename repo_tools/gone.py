"""Keys that are lost or in other hands, as `gone.toml` of a workspace remembers them.

It says how a root without such a key goes live (`repo_tools.publishing.bridge`). Git shares it with
whoever publishes and refreshes, and remembers when.

A key is remembered by its key id, which is a digest of the key. Attack: a stolen key comes back
under another name, or its file is removed first. Each has one line, so that two people who lose
keys at once resolve a conflict by keeping both sides.
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
    return {keyid: how for keyid, (_, how) in _entries(ws).items()}


def remember_gone(ws: Workspace, name: str, how: Gone) -> None:
    """Enter a key; what was stolen once is not merely lost later. Raises as `gone_keys`."""
    found, keyid = _entries(ws), ws.keyring[name].key.keyid
    if keyid in found and found[keyid][1] in {how, Gone.STOLEN}:
        return
    found[keyid] = (name, how)
    text = tomlkit.document()
    text["schema"] = 2
    keys = tomlkit.table()
    for each in sorted(found):
        line = tomlkit.inline_table()
        line.update({"name": found[each][0], "how": found[each][1].value})
        keys[each] = line
    text["keys"] = keys
    replace_file(_path(ws), (_FIRST + tomlkit.dumps(text)).encode())


def _entries(ws: Workspace) -> dict[str, tuple[str, Gone]]:
    """Name and fate by key id, of keys that a file of schema 1 remembers by name as well."""
    return {
        ws.keyring[key].key.keyid if key in ws.keyring else key: each
        for key, each in _read(_path(ws)).items()
    }


def _path(ws: Workspace) -> Path:
    return ws.directory / "gone.toml"


def _read(path: Path) -> dict[str, tuple[str, Gone]]:
    """Name and fate by key id; by name in a file of schema 1."""
    data = b""
    try:
        data = path.read_bytes()
        entries = tomllib.loads(data.decode())["keys"].items()
        return {
            key: (key, Gone(each)) if isinstance(each, str) else (each["name"], Gone(each["how"]))
            for key, each in entries
        }
    except FileNotFoundError:
        return {}
    except (OSError, KeyError, ValueError, AttributeError, TypeError) as error:
        if has_conflict(data):
            raise ConfigurationError(
                f"{path.name} has the marks of a git conflict: two people lost keys at once",
                f"keep the entries of both, remove the marks, then: git add {path.name}",
            ) from error
        raise ConfigurationError(
            f"{path} cannot be read: {error!r}",
            "take it from git: it says which keys must not be relied upon",
        ) from error
