"""What waits for signatures: the directories of `ceremonies/` as values. Writes nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from tuf.api.metadata import Root, Targets
from tuf.api.serialization import SerializationError

from client_reference.errors import ConfigurationError, NotTrustedError
from client_reference.nearest import did_you_mean
from repo_tools.git import has_conflict
from repo_tools.metadata.edits import signed_bytes
from repo_tools.metadata.repository import parse
from repo_tools.metadata.roles import RECOVERY

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tuf.api.metadata import Role

    from repo_tools.workspace import Workspace

__all__ = [
    "ROOTS",
    "SIGNATURE",
    "Base",
    "Ceremony",
    "Signable",
    "find_ceremony",
    "load_ceremony",
    "open_ceremonies",
    "parse_role",
    "predecessor",
    "readable",
    "root_in_force",
    "targets_in_force",
]

Signable: TypeAlias = Root | Targets

SIGNATURE = ".sig.json"

# Roles whose metadata are root files, with the command that publishes what is staged of them.
ROOTS: Mapping[str, str] = {Root.type: "firmroot publish", RECOVERY: "firmroot anchor publish"}


@dataclass(frozen=True)
class Base:
    """The predecessor that a ceremony replaces; version 0 and no digest where there is none."""

    version: int
    sha256: str


@dataclass(frozen=True)
class Ceremony:
    """One open ceremony.

    Attributes:
        directory: where it lives.
        role: what is being replaced.
        base: by which it expects it.
        signed: the new content.
        carries: target files that will be published with it, by target path.
        why: the reason that whoever started it gave, one line; no signature covers it.
    """

    directory: Path
    role: str
    base: Base
    signed: Signable
    carries: Mapping[str, Path] = field(default_factory=dict)
    why: str = ""

    @property
    def name(self) -> str:
        """Such as `gateway-stable-3`."""
        return self.directory.name

    @property
    def tuf_role(self) -> str:
        """What TUF calls the role: the recovery anchor is a root as well."""
        return Root.type if isinstance(self.signed, Root) else self.role

    @property
    def version(self) -> int:
        """The version that it makes."""
        return self.signed.version

    @property
    def payload(self) -> bytes:
        """The bytes that signatures cover."""
        return signed_bytes(self.signed)


def open_ceremonies(ws: Workspace) -> list[Ceremony]:
    """Everything that waits for signatures, delegators before the roles that they delegate to."""
    found = [load_ceremony(path.parent) for path in sorted(ws.ceremonies.glob("*/payload.json"))]
    order = {"root": 0, "targets": 1}
    return sorted(found, key=lambda each: (order.get(each.role, 2), each.name))


def find_ceremony(ws: Workspace, name: str) -> Ceremony:
    """The open ceremony of a role, or of a name such as `root-3`.

    Raises:
        ConfigurationError: there is none.
    """
    ceremonies = open_ceremonies(ws)
    for ceremony in ceremonies:
        if name in {ceremony.role, ceremony.name}:
            return ceremony
    there = ", ".join(each.name for each in ceremonies) or "none"
    known = [known for each in ceremonies for known in (each.name, each.role)]
    raise ConfigurationError(
        f"there is no open ceremony {name!r}; open: {there}{did_you_mean(name, known)}",
        "firmroot ceremony list",
    )


def predecessor(ws: Workspace, role: str) -> bytes | None:
    """The newest bytes of a role that are signed to their threshold: staged, else published."""
    # A staged root must be published before the next: devices walk the chain one by one.
    if role == "root":
        return next(reversed(ws.roots()), None)
    if role == RECOVERY:
        return next(reversed(ws.recovery_roots()), None)
    return ws.staged_role(role) or ws.published_role(role)


def targets_in_force(ws: Workspace) -> Targets | None:
    """The newest targets role, signed or still waiting."""
    for each in open_ceremonies(ws):
        if each.role == "targets" and isinstance(each.signed, Targets):
            return each.signed
    return ws.newest_targets()


def root_in_force(ws: Workspace) -> Root | None:
    """The newest root, signed or still waiting."""
    for each in open_ceremonies(ws):
        if each.role == Root.type and isinstance(each.signed, Root):
            return each.signed
    return ws.newest_root()


def load_ceremony(directory: Path) -> Ceremony:
    """Read one.

    Raises:
        NotTrustedError: it is damaged, renamed, or git could not merge it.
    """
    try:
        payload = (directory / "payload.json").read_bytes()
        base = json.loads((directory / "base.json").read_bytes())
        role, expected = str(base["role"]), Base(int(base["version"]), str(base["sha256"]))
        why = str(base.get("why", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotTrustedError(
            f"ceremony {directory.name} is damaged: {error!r}",
            "take its directory from git again, or end it by removing the directory",
        ) from error
    if has_conflict(payload):
        raise NotTrustedError(
            f"ceremonies/{directory.name}/payload.json has the marks of a git conflict: two people "
            "started it at once",
            "take one side's directory, and sign that: git checkout --theirs "
            f"ceremonies/{directory.name} && git add ceremonies/{directory.name}",
        )
    data = b'{"signatures": [], "signed": ' + payload + b"}"
    signed = parse_role(data, role, f"ceremony {directory.name}")
    if directory.name != f"{role}-{signed.version}":
        raise NotTrustedError(
            f"ceremony {directory.name} holds {role} version {signed.version}: "
            "its directory was renamed, or its payload exchanged",
            "take its directory from git again",
        )
    top = directory / "targets"
    carries = {
        path.relative_to(top).as_posix(): path
        for path in sorted(top.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }
    return Ceremony(directory, role, expected, signed, carries, why)


def parse_role(data: bytes, role: str, name: str) -> Signable:
    """The content of a metadata file of this role, of a form that can be signed.

    Raises:
        NotTrustedError: it is not; or as `parse`.
    """
    signed = parse(data, Root, name).signed if role in ROOTS else parse(data, Targets, name).signed
    try:
        signed_bytes(signed)  # there are none for a fraction, or half a character
    except SerializationError as error:
        raise NotTrustedError(
            f"{name} has no canonical form, so nobody can sign it: {error.__cause__}",
            "find out who wrote this",
        ) from error
    for title, held in _roles(signed).items():
        if wrong := [keyid for keyid in held.keyids if not isinstance(keyid, str)]:
            raise NotTrustedError(
                f"{name}: a key id of {title} is {wrong[0]!r}, expected text",
                "find out who wrote this",
            )
    return signed


def _roles(signed: Signable) -> Mapping[str, Role]:
    if isinstance(signed, Root):
        return signed.roles
    return (signed.delegations.roles or {}) if signed.delegations else {}


def readable(value: Any) -> bytes:  # noqa: ANN401  any JSON value
    """JSON as files in git have it: one field on each line."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"
