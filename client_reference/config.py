"""The device configuration: TOML files into one frozen `DeviceConfig`.

Layers, each merged over the one before (tables key by key, everything else replaced):

1. `device.toml`, by default `/etc/firmroot/device.toml`;
2. `device.d/*.toml` beside it, in the order of their names;
3. `device.toml` in the trust state directory, the device owner's; it may set the channel, the
   groups and the window, and nothing else.

Relative paths are relative to the first file. A key that does not exist is an error that names the
file, the key and the nearest key that does. A setting that is known but not honoured by this
version is an error where safety could depend on it, and a warning otherwise; it is never silently
ignored.
"""

from __future__ import annotations

import enum
import os
import re
import tomllib
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from client_reference.errors import ConfigurationError
from client_reference.install.handlers import HANDLERS, InstallSettings
from client_reference.manifest import HARDWARE, NAME
from client_reference.transport.policy import Degraded, Mirror, parse_mirror
from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from client_reference.transport.proxy import ProxyServer

__all__ = [
    "DEFAULT_PATH",
    "DeviceConfig",
    "DownloadConfig",
    "Identity",
    "IdentitySource",
    "InstallSettings",
    "Proxy",
    "Reboot",
    "RepositoryConfig",
    "TlsConfig",
    "TlsRoots",
    "TrustConfig",
    "load",
]

DEFAULT_PATH = Path("/etc/firmroot/device.toml")
SCHEMA = 1

E = TypeVar("E", bound=enum.Enum)

_DURATION = re.compile(r"([0-9]+)(s|min|h|d)")
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
_SIZE = re.compile(r"([0-9]+)(B|KiB|MiB|GiB)")
_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_WINDOW = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]")
_BOOTLOADERS = ("file",)
_MOST = 262_144
"""Characters of one file: a device has no memory for one that does not end, such as /dev/zero."""
_OWNER_MAY = frozenset({"repository.channel", "identity.groups", "check.window"})


class TlsRoots(enum.Enum):
    """Whose certificates mirrors may show."""

    SYSTEM = "system"
    PRIVATE = "private"
    BOTH = "both"


class Proxy(enum.Enum):
    """Where to look for a proxy."""

    ENVIRONMENT = "environment"
    NONE = "none"


class Reboot(enum.Enum):
    """Who restarts the device into a staged release."""

    AUTOMATIC = "automatic"
    ASK = "ask"


class _Metered(enum.Enum):
    METADATA_ONLY = "metadata-only"
    ALL = "all"


class _WithoutNetwork(enum.Enum):
    CONFIRM = "confirm"
    WAIT = "wait"


@frozen
class RepositoryConfig:
    """What is followed and where it is served.

    Attributes:
        product, channel: names.
        mirrors: of the primary repository, at least one.
        recovery: URLs of the recovery anchor, each asked on its own.
        credentials: a file with one header, for artifacts of `mirrors` only.
        client_certificate: a PEM file, likewise.
        client_key: its key, if that is in a file of its own.
    """

    product: str
    channel: str
    mirrors: tuple[Mirror, ...]
    credentials: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    recovery: tuple[Mirror, ...] = ()


@frozen
class IdentitySource:
    """Where an identity is read: `kind` is a scheme such as `literal`, `value` what follows it."""

    kind: str
    value: str = ""


@frozen
class Identity:
    """Who the device is."""

    hardware: IdentitySource
    device_id: IdentitySource
    groups: tuple[str, ...] = ()


@frozen
class TrustConfig:
    """`factory`: read-only directory of the export; `state`: directory of the trust store."""

    factory: Path
    state: Path


@frozen
class TlsConfig:
    """How mirrors are authenticated. Trust never rests on it."""

    roots: TlsRoots = TlsRoots.BOTH
    degraded: Degraded = Degraded.ALLOW
    proxy: Proxy | ProxyServer = Proxy.ENVIRONMENT


@frozen
class DownloadConfig:
    """`directory` and `quota` (bytes) are for whole files; `minimum_rate` is bytes per second."""

    directory: Path
    quota: int
    minimum_rate: int


@frozen
class DeviceConfig:
    """The whole configuration.

    Attributes:
        path: the first file.
        check_every: seconds between two checks, as the device's owner plans them.
        warnings: sentences on settings that this version does not honour.
    """

    path: Path
    repository: RepositoryConfig
    identity: Identity
    trust: TrustConfig
    tls: TlsConfig
    download: DownloadConfig
    install: InstallSettings
    reboot: Reboot
    check_every: int
    warnings: tuple[str, ...] = field(default=())


def load(
    path: Path = DEFAULT_PATH, drop_ins: Path | None = None, owner: Path | None = None
) -> DeviceConfig:
    """Read every layer.

    Args:
        path: the first file.
        drop_ins: directory of the second layer, if it is not `device.d` beside `path`.
        owner: file of the third layer, if it is not `device.toml` in the trust state directory.

    Raises:
        ConfigurationError: a file cannot be read, or something in it is wrong.
    """
    layers = _Layers(path)
    layers.merge(path)
    directory = path.parent / "device.d" if drop_ins is None else drop_ins
    for drop_in in sorted(directory.glob("*.toml")):
        layers.merge(drop_in)
    trust = _trust(layers)
    owners = trust.state / "device.toml" if owner is None else owner
    try:
        has_owners = owners.exists()
    except OSError as error:
        raise ConfigurationError(
            f"trust.state: user {os.geteuid()} may not look into {owners.parent} "
            f"({error.strerror})",
            "run this as the user to whom that directory belongs",
        ) from error
    if has_owners:
        layers.merge(owners, only=_OWNER_MAY)
    return _read(layers, trust)


def _read(layers: _Layers, trust: TrustConfig) -> DeviceConfig:
    config = DeviceConfig(
        path=layers.path,
        repository=_repository(layers),
        identity=_identity(layers),
        trust=trust,
        tls=_tls(layers),
        download=_download(layers),
        install=InstallSettings(handler="", directory=trust.state),
        reboot=layers.choice("install.reboot", Reboot, Reboot.AUTOMATIC),
        check_every=layers.duration("check.every", "6h"),
    )
    config = replace(config, install=_install(layers, config.download))
    _not_yet(layers)
    layers.refuse_unknown()
    for key, mirrors in (
        ("repository.mirrors", config.repository.mirrors),
        ("repository.recovery", config.repository.recovery),
    ):
        plain = [mirror.url for mirror in mirrors if mirror.scheme == "http"]
        if plain and config.tls.degraded is Degraded.FORBID:
            raise layers.wrong(
                key, plain[0], 'https:// mirrors only, since tls.degraded = "forbid"'
            )
    return replace(config, warnings=tuple(layers.warnings))


def _repository(layers: _Layers) -> RepositoryConfig:
    mirrors = _urls(layers, "repository.mirrors", None)
    if not mirrors:
        raise layers.wrong("repository.mirrors", [], "at least one URL")
    certificate = layers.file("repository.client_certificate")
    key = layers.file("repository.client_key")
    if key is not None and certificate is None:
        raise layers.wrong(
            "repository.client_key", str(key), "a repository.client_certificate that it belongs to"
        )
    return RepositoryConfig(
        product=layers.text("repository.product", None, NAME),
        channel=layers.text("repository.channel", None, NAME),
        mirrors=mirrors,
        credentials=layers.file("repository.credentials"),
        client_certificate=certificate,
        client_key=key,
        recovery=_urls(layers, "repository.recovery", ()),
    )


def _urls(layers: _Layers, key: str, default: Sequence[str] | None) -> tuple[Mirror, ...]:
    urls = layers.texts(key, default)
    try:
        return tuple(parse_mirror(url) for url in urls)
    except ConfigurationError as error:
        raise ConfigurationError(f"{layers.place(key)}: {error.message}", error.hint) from error


def _identity(layers: _Layers) -> Identity:
    hardware = _source(layers, "identity.hardware", "device-tree", ("literal", "command"))
    if hardware.kind == "literal" and not HARDWARE.fullmatch(hardware.value):
        raise layers.wrong("identity.hardware", hardware.value, f"an id {HARDWARE.pattern}")
    serial = "file:/sys/firmware/devicetree/base/serial-number"
    return Identity(
        hardware=hardware,
        device_id=_source(layers, "identity.device_id", serial, ("file", "literal", "command")),
        groups=layers.texts("identity.groups", (), NAME),
    )


def _source(layers: _Layers, key: str, default: str, schemes: Sequence[str]) -> IdentitySource:
    text = layers.text(key, default)
    kind, colon, value = text.partition(":")
    if text == default == "device-tree":
        return IdentitySource("device-tree")
    if not colon or kind not in schemes or not value:
        choices = [f"{scheme}:…" for scheme in schemes]
        if default == "device-tree":
            choices.insert(0, default)
        raise layers.wrong(key, text, " or ".join(choices))
    if kind in {"file", "command"}:
        value = str(layers.absolute(value))
    return IdentitySource(kind, value)


def _trust(layers: _Layers) -> TrustConfig:
    off = False
    layers.unless_default("trust.set_clock", layers.flag("trust.set_clock", default=off), off)
    return TrustConfig(
        factory=layers.absolute(layers.text("trust.factory", "/usr/share/firmroot")),
        state=layers.absolute(layers.text("trust.state", "/data/firmroot")),
    )


def _tls(layers: _Layers) -> TlsConfig:
    return TlsConfig(
        roots=layers.choice("tls.roots", TlsRoots, TlsRoots.BOTH),
        degraded=layers.choice("tls.degraded", Degraded, Degraded.ALLOW),
        proxy=_proxy(layers),
    )


def _proxy(layers: _Layers) -> Proxy | ProxyServer:
    text = layers.text("tls.proxy", Proxy.ENVIRONMENT.value)
    for one in Proxy:
        if text == one.value:
            return one
    if ":" not in text:
        raise layers.wrong("tls.proxy", text, '"environment", "none" or "http://HOST:PORT"')
    from client_reference.transport.proxy import configured_proxy  # noqa: PLC0415 # rare

    try:
        return configured_proxy(text)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{layers.place('tls.proxy')}: {error.message}", error.hint
        ) from error


def _download(layers: _Layers) -> DownloadConfig:
    layers.flag("download.deltas", default=True)
    return DownloadConfig(
        directory=layers.absolute(layers.text("download.directory", "/data/firmroot/cache")),
        quota=layers.size("download.quota", "512MiB"),
        minimum_rate=layers.size("download.minimum_rate", "4KiB/s", "/s"),
    )


def _install(layers: _Layers, download: DownloadConfig) -> InstallSettings:
    handler = layers.text("install.handler", "slot")
    bootloader = layers.text("install.bootloader", "file")
    names = layers.table("install.slots")
    for key, found, known in (
        ("install.handler", handler, tuple(HANDLERS)),
        ("install.bootloader", bootloader, _BOOTLOADERS),
    ):
        if found not in known:
            raise layers.wrong(key, found, f"one that this version has: {', '.join(known)}")
    if handler == "command" and not layers.texts("install.command.run", ()):
        raise layers.wrong("install.command.run", [], 'a command, as ["rauc", "install", "{path}"]')
    slots = {name: layers.absolute(layers.text(f"install.slots.{name}", None)) for name in names}
    if handler == "slot":
        _check_slots(layers, slots)
    return InstallSettings(
        handler=handler,
        directory=download.directory,
        slots=slots,
        bootloader=bootloader,
        run=layers.texts("install.command.run", ()),
        confirm=layers.texts("install.command.confirm", ()),
        reject=layers.texts("install.command.reject", ()),
        reboot=layers.texts("install.command.reboot", ()),
    )


def _check_slots(layers: _Layers, slots: Mapping[str, Path]) -> None:
    """Two places at least: one runs while the other is written."""
    if len(slots) < 2:  # noqa: PLR2004  see above
        found = ", ".join(slots) or "nothing"
        raise ConfigurationError(
            f"{layers.path}: install.slots: found {found}, expected two slots or more, since "
            'install.handler is "slot"',
            'name the places, as slots = { A = "/dev/...", B = "/dev/..." }, or set '
            'install.handler = "command"',
        )
    seen: dict[Path, str] = {}
    for name, path in slots.items():
        if (other := seen.setdefault(path.resolve(), name)) != name:
            raise layers.wrong(
                f"install.slots.{name}", str(path), f"another place than that of {other}"
            )


def _not_yet(layers: _Layers) -> None:
    """Read what later versions honour. Where safety could rest on it, only the default will do."""
    checks = "/usr/lib/firmroot/confirm.d"
    layers.unless_default("confirm.checks", layers.text("confirm.checks", checks), checks)
    if not layers.texts("repository.recovery", ()):
        # With an anchor it says how likely a check is to ask it; nothing keeps a schedule yet.
        every = layers.duration("check.every", "6h")
        layers.warn_unless_default("check.every", every, _duration("6h"))
    for key, default in (
        ("check.jitter", "1h"),
        ("confirm.within", "15min"),
    ):
        layers.warn_unless_default(key, layers.duration(key, default), _duration(default))
    window = layers.text("check.window", "")
    if window and not _WINDOW.fullmatch(window):
        raise layers.wrong("check.window", window, 'a time of day, as "01:00-05:00"')
    layers.warn_unless_default("check.window", window, "")
    metered = layers.choice("check.metered", _Metered, _Metered.METADATA_ONLY)
    layers.warn_unless_default("check.metered", metered, _Metered.METADATA_ONLY)
    limit = layers.text("download.limit", "")
    if limit:
        layers.size("download.limit", "", "/s")
    layers.warn_unless_default("download.limit", limit, "")
    offline = layers.choice("confirm.without_network", _WithoutNetwork, _WithoutNetwork.CONFIRM)
    layers.unless_default("confirm.without_network", offline, _WithoutNetwork.CONFIRM)
    layers.warn_unless_default("report.to", layers.text("report.to", "off"), "off")


def _duration(text: str) -> int | None:
    match = _DURATION.fullmatch(text)
    return int(match[1]) * _SECONDS[match[2]] if match else None


class _Layers:
    """Merged TOML values by dotted key, the file each came from, and which keys exist at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.warnings: list[str] = []
        self._values: dict[str, object] = {}
        self._files: dict[str, Path] = {}
        self._tables: set[str] = set()
        self._known: set[str] = {"schema"}

    def merge(self, file: Path, only: frozenset[str] | None = None) -> None:
        """Put one file over what is there."""
        try:
            with file.open(encoding="utf-8") as opened:
                text = opened.read(_MOST + 1)
            if len(text) > _MOST:
                raise ConfigurationError(
                    f"{file} is longer than {_MOST} characters, expected the device configuration",
                    "name it with --config; `firmroot factory export` writes one",
                )
            document = tomllib.loads(text)
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"{file} does not exist, expected the device configuration",
                "name it with --config; `firmroot factory export` writes one",
            ) from error
        except OSError as error:
            raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{file} is not TOML: {error}", "correct that line") from error
        self._check_schema(file, document)
        for key, value in _flatten(document, ""):
            if only is not None and key not in {*only, "schema"}:
                raise ConfigurationError(
                    f"{file}: {key} cannot be set here, only {', '.join(sorted(only))}",
                    f"move it to {self.path}",
                )
            self._values[key] = value
            self._files[key] = file

    def _check_schema(self, file: Path, document: Mapping[str, object]) -> None:
        found = document.get("schema", None if file == self.path else SCHEMA)
        if type(found) is not int or found != SCHEMA:
            shown = "nothing" if found is None else repr(found)
            raise ConfigurationError(
                f"{file}: schema: found {shown}, expected {SCHEMA}",
                "a higher number needs a newer firmroot-device",
            )

    def place(self, key: str) -> str:
        """File and key, for a message."""
        return f"{self._files.get(key, self.path)}: {key}"

    def wrong(self, key: str, found: object, expected: str) -> ConfigurationError:
        """The error for a value."""
        return ConfigurationError(
            f"{self.place(key)}: found {_shown(found)}, expected {expected}",
            "correct it and run the command again",
        )

    def absolute(self, path: str) -> Path:
        """A path, relative to the first file."""
        if "\0" in path:
            raise ConfigurationError(
                f"{self.path}: found the path {path!r}, expected one without a null character",
                "correct it and run the command again",
            )
        return self.path.absolute().parent / path

    def file(self, key: str) -> Path | None:
        """A path that need not be given."""
        text = self.text(key, "")
        return self.absolute(text) if text else None

    def text(self, key: str, default: str | None, pattern: re.Pattern[str] | None = None) -> str:
        """A string. Without a default it must be there."""
        found = self._get(key, default)
        if not isinstance(found, str):
            raise self.wrong(key, found, "a string")
        if pattern is not None and not pattern.fullmatch(found):
            raise self.wrong(key, found, f"text of the form {pattern.pattern}")
        return found

    def texts(
        self,
        key: str,
        default: Sequence[str] | None,
        pattern: re.Pattern[str] | None = None,
    ) -> tuple[str, ...]:
        """An array of strings."""
        found = self._get(key, default)
        if not isinstance(found, (list, tuple)) or not all(isinstance(one, str) for one in found):
            raise self.wrong(key, found, "an array of strings")
        texts = tuple(cast("list[str]", found))
        for one in texts:
            if pattern is not None and not pattern.fullmatch(one):
                raise self.wrong(key, one, f"text of the form {pattern.pattern}")
        return texts

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false."""
        found = self._get(key, default)
        if not isinstance(found, bool):
            raise self.wrong(key, found, "true or false")
        return found

    def choice(self, key: str, kind: type[E], default: E) -> E:
        """One of the values of an enum."""
        found = self._get(key, default.value)
        for one in kind:
            if found == one.value:
                return one
        raise self.wrong(key, found, " or ".join(f'"{one.value}"' for one in kind))

    def duration(self, key: str, default: str) -> int:
        """Seconds."""
        text = self.text(key, default)
        found = _duration(text)
        if found is None:
            raise self.wrong(key, text, 'a duration, as "90s", "15min", "6h" or "2d"')
        return found

    def size(self, key: str, default: str, suffix: str = "") -> int:
        """Bytes, or bytes per second with the suffix `/s`; at least 1."""
        text = self.text(key, default)
        match = _SIZE.fullmatch(text.removesuffix(suffix)) if text.endswith(suffix) else None
        if match is None or int(match[1]) == 0:
            raise self.wrong(key, text, f'a size, as "4KiB{suffix}" or "512MiB{suffix}"')
        return int(match[1]) * _BYTES[match[2]]

    def table(self, key: str) -> tuple[str, ...]:
        """Names of the members of a table whose keys are the user's, in the order of the file."""
        self._tables.add(key)
        found = self._values.get(key)
        if found is not None:
            raise self.wrong(key, found, "a table")
        return tuple(
            name.removeprefix(f"{key}.") for name in self._values if name.startswith(f"{key}.")
        )

    def unless_default(self, key: str, found: object, default: object) -> None:
        """Refuse a setting that safety could rest on and that is not honoured yet."""
        if found != default:
            raise ConfigurationError(
                f"{self.place(key)}: this version does not honour it yet, only the default",
                f"remove {key}, or install a newer firmroot-device",
            )

    def warn_unless_default(self, key: str, found: object, default: object) -> None:
        """Say that a setting has no effect yet."""
        if found != default:
            self.warnings.append(f"{self.place(key)} is not yet honoured by this version")

    def refuse_unknown(self) -> None:
        """Every key that was never asked for is a mistake."""
        for key in self._values:
            if key not in self._known:
                raise ConfigurationError(
                    f"{self._files[key]}: unknown key {key}{self._nearest(key)}",
                    "correct or remove it; docs/format.md lists every key",
                )

    def _nearest(self, key: str) -> str:
        import difflib  # noqa: PLC0415 # only for the message

        own = {one for one in self._known if one.rpartition(".")[0] in self._tables}
        known = sorted(self._known - own | self._tables)
        last = key.rpartition(".")[2]
        near = [one for one in known if one.rpartition(".")[2] == last]
        near += difflib.get_close_matches(key, known, n=1, cutoff=0.6)
        return f"; did you mean {near[0]}?" if near else ""

    def _get(self, key: str, default: object) -> object:
        self._known.add(key)
        for depth in range(1, key.count(".") + 1):
            outer = ".".join(key.split(".")[:depth])
            if outer in self._values:
                raise self.wrong(outer, self._values[outer], "a table")
        if key not in self._values and default is None:
            self._refuse_absent(key)
        return self._values.get(key, default)

    def _refuse_absent(self, key: str) -> None:
        # A misspelt key is the likeliest reason why this one is absent.
        import difflib  # noqa: PLC0415 # only for the message

        section = key.partition(".")[0]
        misspelt = [one for one in self._values if one.partition(".")[0] == section]
        near = difflib.get_close_matches(key, misspelt, n=1, cutoff=0.8)
        if near:
            raise ConfigurationError(
                f"{self._files[near[0]]}: unknown key {near[0]}; did you mean {key}?",
                "correct it and run the command again",
            )
        raise ConfigurationError(
            f"{self.path}: {key} is missing", "add it; docs/format.md describes every key"
        )


def _flatten(table: Mapping[str, object], prefix: str) -> list[tuple[str, object]]:
    flat: list[tuple[str, object]] = []
    for name, value in table.items():
        if isinstance(value, dict):
            flat += _flatten(value, f"{prefix}{name}.")
        else:
            flat.append((f"{prefix}{name}", value))
    return flat


def _shown(value: object) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
