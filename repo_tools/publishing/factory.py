"""Factory exports: what a device is born with, and the register of everything that ever was.

An export is entered in `factory/registry.toml` before anybody gets it: the rehearsal asks every
registered root before each publish, so a device that is not registered could be stranded unnoticed.
The id of an export comes from its content; the same export twice is one entry.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import tomlkit

from client_reference.errors import ConfigurationError
from client_reference.factory import load as load_factory
from client_reference.nearest import did_you_mean
from client_reference.selection import DevicePosition
from client_reference.trust.updater import Floors
from repo_tools.files import replace_file, sweep
from repo_tools.git import committed
from repo_tools.publishing.following import RECOVERY_ROOT, cannot_follow
from repo_tools.publishing.rehearse import Device

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from repo_tools.workspace import Workspace

__all__ = [
    "Export",
    "Package",
    "Target",
    "device_toml",
    "devices",
    "future_devices",
    "load_registry",
    "make_package",
    "register",
    "retire",
    "write_package",
]

_RESTORE = "git checkout factory/registry.toml"


@dataclass(frozen=True)
class Export:
    """One entry of the registry.

    Attributes:
        id: names it, for ever.
        product: what it is for.
        channel: what its devices follow.
        hardware: ids of the boards that it may run on.
        handler: how they install.
        date: when it was made, ISO.
        root_version: of the factory root.
        client_version: of the client that was current then.
        count: devices that were made with it, as far as anybody said.
        retired: when the last of them was taken out of service; empty while there are any.
        epoch: of the factory root.
        recovery_version: of the recovery root that it carries, 0 if it has none.
    """

    id: str
    product: str
    channel: str
    hardware: tuple[str, ...]
    handler: str
    date: str
    root_version: int
    client_version: str
    count: int = 0
    retired: str = ""
    epoch: int = 0
    recovery_version: int = 0


@dataclass(frozen=True)
class Target:
    """What a device is made for.

    Attributes:
        product: whose firmware it runs.
        channel: what it follows.
        hardware: ids of its boards.
        handler: how it installs.
        mirrors: where it fetches, first choice first.
        recovery: where it asks for the recovery anchor; none without an anchor.
    """

    product: str
    channel: str
    hardware: tuple[str, ...]
    handler: str
    mirrors: tuple[str, ...]
    recovery: tuple[str, ...] = ()


@dataclass(frozen=True)
class Package:
    """The files of an export, by path below its directory."""

    files: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        """What its id is made of."""
        whole = hashlib.sha256()
        for path in sorted(self.files):
            whole.update(f"{path}\0{len(self.files[path])}\0".encode() + self.files[path])
        return whole.hexdigest()


def make_package(
    product: str,
    root: bytes,
    floor: str,
    minimum_sequence: int,
    configuration: str,
    *,
    epoch: int = 0,
    recovery: bytes | None = None,
    reset: int = 0,
) -> Package:
    """Pure: the files that a device is born with.

    Args:
        product: of the floors.
        root: the newest root.
        floor: `YYYY-MM-DDTHH:MM:SSZ`, from signed metadata, never from a raw clock.
        minimum_sequence: nothing older is ever installed on these devices.
        configuration: from `device_toml`.
        epoch: of the root.
        recovery: the newest recovery root; None if there is no anchor.
        reset: version of `targets` that brought the newest sequence reset of the product, if any;
            what it says lies behind these devices.
    """
    floors: dict[str, int | str] = {
        "schema": 1,
        "product": product,
        "epoch": epoch,
        "time": floor,
        "minimum_sequence": minimum_sequence,
        **({"reset": reset} if reset else {}),
    }
    files = {
        "device.toml": configuration.encode(),
        "factory/root.json": root,
        "factory/floors.json": json.dumps(floors, indent=1).encode() + b"\n",
    }
    return Package(files if recovery is None else {**files, RECOVERY_ROOT: recovery})


def device_toml(target: Target, *, lab: bool) -> str:
    """Pure: the configuration of a device.

    A lab device lives in one directory and answers to its literal hardware id; the others follow
    the usual places of a Linux system, and are edited before they are shipped.
    """
    mirrors = ", ".join(_text(url) for url in target.mirrors)
    recovery = ", ".join(_text(url) for url in target.recovery)
    lines = [
        "schema = 1",
        "[repository]",
        f"product = {_text(target.product)}",
        f"channel = {_text(target.channel)}",
        f"mirrors = [{mirrors}]",
        *([f"recovery = [{recovery}]"] if recovery else []),
        "[identity]",
        f"hardware = {_text('literal:' + target.hardware[0] if lab else 'device-tree')}",
        'device_id = "literal:lab"'
        if lab
        else '# device_id = "file:/etc/machine-id"  # or "literal:...", without a device tree',
        "[trust]",
        f"factory = {_text('factory' if lab else '/usr/share/firmroot')}",
        f"state = {_text('state' if lab else '/data/firmroot')}",
        "[download]",
        f"directory = {_text('cache' if lab else '/data/firmroot/cache')}",
        "[install]",
        f"handler = {_text(target.handler)}",
    ]
    if target.handler == "slot":
        place = "slots/{}.img" if lab else "/data/slots/{}.img"
        slots = ", ".join(f"{slot} = {_text(place.format(slot))}" for slot in ("A", "B"))
        lines += ['bootloader = "file"', f"slots = {{ {slots} }}", 'reboot = "automatic"']
    else:
        lines += ["[install.command]", 'run = ["rauc", "install", "{path}"]']
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    return tomlkit.string(value).as_string()


def write_package(package: Package, directory: Path) -> None:
    """Write an export.

    Raises:
        ConfigurationError: another one is there.
    """
    for path, data in package.files.items():
        file = directory / path
        if file.exists() and file.read_bytes() != data:
            raise ConfigurationError(
                f"{file} exists and is not part of this export",
                "name another directory with --to, or empty this one",
            )
    sweep(directory)
    for path, data in package.files.items():
        replace_file(directory / path, data)


def load_registry(workspace: Workspace, *, entering: str = "") -> tuple[Export, ...]:
    """Every export that was ever made, oldest first.

    Attack, or a bad merge: an entry is lost, and nobody rehearses its devices any more.

    Args:
        workspace: whose registry.
        entering: an id whose files may be there already.

    Raises:
        ConfigurationError: the registry is damaged, or does not name an export that is there.
    """
    path = _registry(workspace)
    try:
        exports = _parse_all(path.read_text(encoding="utf-8")) if path.exists() else ()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error!r}",
            "it names every device that the rehearsal must not strand: restore it from git",
        ) from error
    there = {
        each.name
        for each in path.parent.glob("*")
        if each.is_dir() and not each.name.startswith(".")
    }
    if lost := sorted(there - {each.id for each in exports} - {entering}):
        raise ConfigurationError(
            f"{path} does not name {', '.join(lost)}, whose files are in factory/: "
            "nobody would notice that these devices are stranded",
            f"{_RESTORE}; if an export was interrupted and handed out to nobody, remove its "
            "directory",
        )
    return exports


def _parse_all(text: str) -> tuple[Export, ...]:
    return tuple(_parse(entry) for entry in tomllib.loads(text).get("export", []))


def _check_history(workspace: Workspace, exports: Iterable[Export]) -> None:
    """What the last commit registers must still be registered, even if its files are gone as well.

    Raises:
        ConfigurationError: entries are gone.
    """
    try:
        before = _parse_all(committed(workspace.directory, "factory/registry.toml").decode())
    except (ValueError, KeyError, TypeError, AttributeError):
        return  # what was committed damaged says nothing; the file of today was read
    if lost := sorted({each.id for each in before} - {each.id for each in exports}):
        raise ConfigurationError(
            f"factory/registry.toml does not name {', '.join(lost)}, which the last commit "
            "registers: nobody would notice that these devices are stranded",
            f"{_RESTORE}; devices that are out of service: firmroot factory retire ID",
        )


def _parse(entry: Mapping[str, Any]) -> Export:
    return Export(
        id=str(entry["id"]),
        product=str(entry["product"]),
        channel=str(entry["channel"]),
        hardware=tuple(str(each) for each in entry["hardware"]),
        handler=str(entry["handler"]),
        date=str(entry["date"]),
        root_version=int(entry["root_version"]),
        client_version=str(entry["client_version"]),
        count=int(entry["count"]),
        retired=str(entry["retired"]),
        epoch=int(entry.get("epoch", 0)),
        recovery_version=int(entry.get("recovery_version", 0)),
    )


def _save(workspace: Workspace, exports: Iterable[Export]) -> None:
    document = tomlkit.document()
    document.add(tomlkit.comment("Every factory export there ever was. Never delete an entry."))
    tables = tomlkit.aot()
    for export in exports:
        table = tomlkit.table()
        table.update({**asdict(export), "hardware": list(export.hardware)})
        tables.append(table)
    document["export"] = tables
    replace_file(_registry(workspace), tomlkit.dumps(document).encode())


def _registry(workspace: Workspace) -> Path:
    return workspace.directory / "factory" / "registry.toml"


def register(workspace: Workspace, export: Export, package: Package) -> Export:
    """Keep the files and enter the export; the same content again adds to its count.

    Args:
        workspace: whose registry; the caller holds its lock.
        export: with an empty id.
        package: its files.

    Returns:
        the entry, with its id.
    """
    named = replace(export, id=f"{export.product}-{export.channel}-{package.digest[:8]}")
    exports = {each.id: each for each in load_registry(workspace, entering=named.id)}
    for path, data in package.files.items():
        replace_file(workspace.directory / "factory" / named.id / path, data)
    if (known := exports.get(named.id)) is not None:
        named = replace(known, count=known.count + export.count, retired="")
    if named != known:
        _save(workspace, (exports | {named.id: named}).values())
    return named


def retire(workspace: Workspace, name: str, date: str) -> Export:
    """Say that no device of an export is in service any more: it is rehearsed no longer.

    Raises:
        ConfigurationError: there is no such export.
    """
    exports = {each.id: each for each in load_registry(workspace)}
    if name not in exports:
        raise ConfigurationError(
            f"there is no factory export {name!r}{did_you_mean(name, exports)}",
            "firmroot factory list shows them",
        )
    if not exports[name].retired:
        exports[name] = replace(exports[name], retired=date)
        _save(workspace, exports.values())
    return exports[name]


def devices(workspace: Workspace) -> tuple[Device, ...]:
    """One device for each board of each export that is in service.

    Raises:
        ConfigurationError: an entry is lost, or files of an export are missing or damaged.
    """
    found: list[Device] = []
    exports = load_registry(workspace)
    _check_history(workspace, exports)
    for export in exports:
        if export.retired:
            continue
        directory = workspace.directory / "factory" / export.id / "factory"
        try:
            born = load_factory(directory)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"the files of factory export {export.id} are not as they were: {error.message}",
                "restore factory/ from git; without them nobody knows what these devices trust",
            ) from error
        elsewhere = export.epoch != workspace.epoch
        obstacle = cannot_follow(workspace, export.id) if elsewhere else ""
        found += [
            Device(
                export.id,
                _position(export, hardware),
                born.root,
                born.floors,
                recovery=None if obstacle else born.recovery_root,
                obstacle=obstacle,
            )
            for hardware in export.hardware
        ]
    return tuple(found)


def _position(export: Export, hardware: str) -> DevicePosition:
    return DevicePosition(
        product=export.product,
        channel=export.channel,
        hardware=(hardware,),
        handler=export.handler,
        device_id=export.id,
    )


def future_devices(workspace: Workspace, root: bytes) -> tuple[Device, ...]:
    """What the next export of each product and channel would be: it must work as well."""
    return tuple(
        Device(
            f"next export of {product.name}/{channel}",
            DevicePosition(product.name, channel, (hardware,), "slot", "next"),
            root,
            Floors(time=0, minimum_sequence=0, epoch=workspace.epoch),
            promised=False,
        )
        for product in workspace.config.products.values()
        for channel in product.channels
        for hardware in product.hardware
    )
