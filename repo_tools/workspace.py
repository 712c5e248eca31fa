"""The workspace: the directory, kept in git, in which people decide and sign.

Opens and describes it; what happens in it belongs to the other modules. Nothing here reads the
clock, asks or prints. Layout and file names are those of the format page; everything that one
machine alone must know (its keys, locks, builds that wait to be published) is below `.firmroot/`,
which git ignores.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import tomllib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import tomlkit
from tuf.api.metadata import Root, Targets

from client_reference.errors import ConfigurationError, NotTrustedError
from client_reference.trust.verified import authentic, check_target
from keys_policy.load import PolicyError, load_keyring, load_policy
from keys_policy.model import NAME, RECOVERY
from repo_tools.files import exclusive_lock, replace_file, sweep
from repo_tools.git import has_conflict
from repo_tools.metadata.adopted import Adopted
from repo_tools.metadata.bins import bits
from repo_tools.metadata.repository import parse
from repo_tools.storage.epoch import EpochStorage
from repo_tools.storage.local import LocalStorage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from tuf.api.metadata import TargetFile

    from keys_policy.model import KeyHolder, Policy
    from repo_tools.storage.protocol import Storage

__all__ = ["Config", "Occasion", "Product", "Workspace"]


@dataclass(frozen=True)
class Product:
    """A family of devices that share a manifest.

    Attributes:
        name: first part of its role names.
        hardware: ids of the boards that its firmware is for.
        channels: release channels, at least one.
        bins: hash bins of its builds role from the first artifact on; 0 for one file.
    """

    name: str
    hardware: tuple[str, ...]
    channels: tuple[str, ...]
    bins: int = 0


@dataclass(frozen=True)
class Config:
    """The whole of `firmroot.toml`.

    Attributes:
        storage: `repository` (a directory relative to the workspace) or `file:///...`.
        urls: where devices fetch from, for factory exports.
        recovery_storage: likewise, where the recovery anchor is published; another account.
        recovery_urls: where devices fetch it from.
        epoch: how often the fleet was re-rooted; changed by `anchor re-root` alone.
        lab: `init --lab` made this workspace.
        online: key name to key URI of the keys that `publish` and `refresh` use by themselves.
        products: by name, in the order in which they were added.
    """

    storage: str = "repository"
    urls: tuple[str, ...] = ()
    recovery_storage: str = ""
    recovery_urls: tuple[str, ...] = ()
    epoch: int = 0
    lab: bool = False
    online: Mapping[str, str] = field(default_factory=dict)
    products: Mapping[str, Product] = field(default_factory=dict)


@dataclass(frozen=True)
class Occasion:
    """When a command ran, and why, as whoever ran it says.

    Attributes:
        when: UTC.
        why: one line; empty if they gave no reason.
    """

    when: datetime
    why: str = ""


@dataclass(frozen=True)
class Workspace:
    """One opened workspace. Open it again after changing its files.

    Attributes:
        directory: its top.
        config: `firmroot.toml`.
        policy: `policy.toml`.
        keyring: `keys/*.toml` by key name.
        occasion: of the run that opened it, for what `history/` keeps; None if it keeps nothing.
        taken: directories with verified work from the inbox, laid out as `staged/` (`intake`).
    """

    directory: Path
    config: Config
    policy: Policy
    keyring: Mapping[str, KeyHolder]
    occasion: Occasion | None = None
    taken: tuple[Path, ...] = ()

    @classmethod
    def open(
        cls, directory: Path, *, missing_keys: bool = False, occasion: Occasion | None = None
    ) -> Workspace:
        """Read the files that configure a workspace.

        Args:
            directory: its top.
            occasion: of the run that opens it.
            missing_keys: accept a policy that names keys which are not there yet, for the commands
                that bring them.

        Raises:
            ConfigurationError: it is not a workspace, or a file of it is wrong; every mistake of
                policy and keys is in the message.
            NotTrustedError: there is a symbolic link where strangers may write.
        """
        config = _read_config(directory)
        try:
            keyring = load_keyring(directory / "keys")
            policy = load_policy(directory / "policy.toml", None if missing_keys else keyring)
        except PolicyError as error:
            raise ConfigurationError(
                "\n       ".join(error.problems), "correct the file, then: firmroot policy check"
            ) from error
        return cls._checked(cls(directory, config, policy, keyring, occasion))

    @classmethod
    def open_with(
        cls, directory: Path, policy: Policy, keyring: Mapping[str, KeyHolder]
    ) -> Workspace:
        """Open it to look, with rules that its files may not have. Raises as `open`."""
        return cls._checked(cls(directory, _read_config(directory), policy, keyring))

    @staticmethod
    def _checked(ws: Workspace) -> Workspace:
        for name in ("ceremonies", "staged"):
            _check_no_links(ws.directory / name)
        return ws

    @property
    def is_large(self) -> bool:
        """Whether a product has hash bins: then what was read once is kept (`publishing.cache`)."""
        return any(product.bins for product in self.config.products.values())

    # Epochs. Each has places of its own, so that what an old one leaves is never touched.

    @property
    def epoch(self) -> int:
        """The epoch that people work in; see `repo_tools.anchor`."""
        return self.config.epoch

    def before(self) -> Workspace | None:
        """This workspace as it was in the epoch before; None in the first."""
        if not self.epoch:
            return None
        return replace(self, config=replace(self.config, epoch=self.epoch - 1), taken=())

    def after(self) -> Workspace:
        """This workspace as it would be in the next epoch."""
        return replace(self, config=replace(self.config, epoch=self.epoch + 1), taken=())

    def _of_epoch(self, top: Path) -> Path:
        return top / f"e{self.epoch}" if self.epoch else top

    # Places.

    @property
    def private(self) -> Path:
        """What this machine alone knows; ignored by git."""
        return self.directory / ".firmroot"

    @property
    def memory(self) -> Path:
        """What this machine alone knows of this epoch: builds that wait, what it saw live."""
        return self._of_epoch(self.private)

    @property
    def staged(self) -> Path:
        """Roles signed to their threshold by people and not yet published; in git."""
        return self._of_epoch(self.directory / "staged")

    @property
    def outbox(self) -> Path:
        """Artifacts of this machine that wait to be published, laid out as in a storage."""
        return self.private / "outbox"

    @property
    def ceremonies(self) -> Path:
        """What waits for signatures; in git."""
        return self._of_epoch(self.directory / "ceremonies")

    @property
    def metadata(self) -> Path:
        """Last verified live metadata of the roles that people sign; in git."""
        return self._of_epoch(self.directory / "metadata")

    @property
    def history(self) -> Path:
        """What was ever live, and every ceremony that ended; only added to, in git."""
        return self._of_epoch(self.directory / "history")

    @property
    def anchor(self) -> Path:
        """The published chain of recovery roots, of all epochs; in git."""
        return self.directory / "metadata" / RECOVERY

    @property
    def lab_passphrase(self) -> Path:
        """The one passphrase of all keys of a lab workspace."""
        return self.private / "lab-passphrase"

    def storage(self) -> Storage:
        """The storage that this workspace publishes to, as this epoch sees it.

        Raises:
            ConfigurationError: `storage` in firmroot.toml has a scheme that does not exist.
        """
        whole = self.whole_storage()
        return EpochStorage(whole, self.epoch) if self.epoch else whole

    def whole_storage(self) -> Storage:
        """The storage with every epoch in it. Raises as `storage`."""
        return self._open_storage("storage", self.config.storage)

    def recovery_storage(self) -> Storage:
        """The storage of the recovery anchor.

        Raises:
            ConfigurationError: there is none, or it is the one that the anchor is to replace.
        """
        url = self.config.recovery_storage or (RECOVERY if self.config.lab else "")
        if not url:
            raise ConfigurationError(
                "firmroot.toml: recovery_storage: expected where the recovery anchor is published",
                "name a storage in another account than `storage`: file:///...",
            )
        here, there = (self.place(each) for each in (url, self.config.storage))
        if here.startswith(there) or there.startswith(here):
            relation = "also `storage`" if here == there else "one within the other with `storage`"
            raise ConfigurationError(
                f"firmroot.toml: recovery_storage is {url!r}, which is {relation}: "
                "who can write to one must not be able to write to the other",
                "name a storage in another account",
            )
        return self._open_storage("recovery_storage", url)

    def place(self, url: str) -> str:
        """Where a storage is, however it is written; what is within it begins with that.

        Raises:
            ConfigurationError: it begins with s3:// and is no storage there.
        """
        scheme, separator, rest = url.partition("://")
        service = ""
        if scheme == "s3" and separator:
            from repo_tools.storage.s3 import parse_place  # noqa: PLC0415 # for those who have one

            at = parse_place(url)
            service, rest = at.endpoint.rstrip("/"), f"{at.bucket}/{at.prefix}"
        elif not separator or scheme == "file":
            rest = str((self.directory / (rest if separator else url)).resolve())
        path = "/".join(part for part in rest.split("/") if part)
        return f"{scheme if separator else 'file'}:{service}//{path}/"

    def _open_storage(self, key: str, url: str) -> Storage:
        scheme, separator, rest = url.partition("://")
        if not separator:
            return LocalStorage(self.directory / url, url)
        if scheme == "file" and rest.startswith("/"):
            return LocalStorage(type(self.directory)(rest), url)
        if scheme == "s3":
            from repo_tools.storage.s3 import S3Storage  # noqa: PLC0415 # for those who have one

            return S3Storage(url, proof=self.private / "conditions")
        raise ConfigurationError(
            f"firmroot.toml: {key}: expected a directory, file:///... or s3://..., found {url!r}",
            "other storages do not exist",
        )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """One changing command at a time, which finds nothing that a killed one left half-written.

        Raises:
            LockedError: another is at work.
        """
        owner = f"workspace {self.directory}"
        with exclusive_lock(self.private / "lock", wait=False, owner=owner):
            # A storage in here is swept by its publishers, when they commit.
            sweep(
                self.directory,
                but=(self.directory / ".git", self.directory / self.config.storage),
            )
            yield

    # Metadata that people sign.

    def roots(self) -> tuple[bytes, ...]:
        """The published root chain, oldest first.

        Raises:
            ConfigurationError: a version is missing in `metadata/root`.
        """
        return self._chain(self.metadata / "root")

    def recovery_roots(self) -> tuple[bytes, ...]:
        """The published chain of the recovery anchor, oldest first. Raises as `roots`."""
        return self._chain(self.anchor)

    def _chain(self, directory: Path) -> tuple[bytes, ...]:
        numbers = sorted(
            int(path.stem) for path in directory.glob("*.json") if path.stem.isdecimal()
        )
        if numbers != list(range(1, len(numbers) + 1)):
            raise ConfigurationError(
                f"{directory.relative_to(self.directory)} has versions {numbers}, "
                "expected every one from 1 on",
                "the chain is never deleted: take the missing files from git",
            )
        paths = [directory / f"{n}.json" for n in numbers]
        return tuple(self._whole(path, path.read_bytes()) for path in paths)

    def _whole(self, path: Path, data: bytes) -> bytes:
        """What a metadata file of this workspace holds; what is wrong with it is told by its path.

        Raises:
            NotTrustedError: git could not merge it, or it is no JSON: cut off, or damaged.
        """
        name = path.relative_to(self.directory)
        if has_conflict(data):
            raise NotTrustedError(
                f"{name} has the marks of a git conflict: two people completed it at once",
                f"each side is whole, take either: git checkout --theirs {name} && git add {name}",
            )
        try:
            json.loads(data)
        except (ValueError, RecursionError) as error:
            raise NotTrustedError(
                f"{name} is damaged or cut off ({len(data)} bytes): {error}", self._again(path)
            ) from error
        return data

    def published_role(self, name: str) -> bytes | None:
        """Last verified live bytes of `targets` or a channel, None before its first publish."""
        path = self.metadata / f"{name}.json"
        data = _read_optional(path)
        return None if data is None else self._whole(path, data)

    def staged_role(self, name: str) -> bytes | None:
        """Signed bytes that wait for a publish, of people's roles or of this machine's builds."""
        for directory in (self.staged, self.memory / "staged", *self.taken):
            path = directory / f"{name}.json"
            if (data := _read_optional(path)) is not None:
                return self._whole(path, data)
        return None

    def staged_roles(self) -> dict[str, bytes]:
        """Everything signed that waits for a publish, by role name; root included.

        Not the recovery anchor, which goes to a storage of its own.
        """
        return {
            path.stem: self._whole(path, path.read_bytes())
            for directory in (*self.taken, self.memory / "staged", self.staged)
            for path in sorted(directory.glob("*.json"))
            if path.stem != RECOVERY
        }

    def staged_targets(self) -> dict[str, Path]:
        """Target files that wait for a publish, by storage path (`targets/...`)."""
        return {
            path.relative_to(top).as_posix(): path
            for top in (self.outbox, self.staged, *self.taken)
            for path in sorted((top / "targets").rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        }

    def waiting(self, stored: str) -> Path | None:
        """The target file of that storage path that waits, without a look at all the others."""
        tops = (*reversed(self.taken), self.staged, self.outbox)
        return next((path for top in tops if (path := top / stored).is_file()), None)

    def staged_target(self, path: Path, target: TargetFile) -> bytes:
        """What a small target file that waits holds; what is wrong with it is told by its path.

        Raises:
            NotTrustedError: it is not what was signed for.
        """
        data = path.read_bytes()
        try:
            check_target(target, data)
        except NotTrustedError as error:
            name = path.relative_to(self.directory)
            raise NotTrustedError(
                f"{name} is damaged or cut off ({len(data)} bytes): {error.message}",
                self._again(path),
            ) from error
        return data

    def _again(self, path: Path) -> str:
        """How a damaged file of this workspace is to be had again."""
        if path.is_relative_to(self.private):
            return "remove it, and run again the command that made it"
        return f"take it from git again: git checkout HEAD -- {path.relative_to(self.directory)}"

    def adopted(self) -> Adopted | None:
        """What was there before `firmroot adopt`; None if nothing was, or in a later epoch.

        Attack: who can write to git adds what was never there, and the next ceremony carries it.

        Raises:
            NotTrustedError: it is damaged, or is not what the others signed.
        """
        directory = self.metadata / "adopted"
        data = _read_optional(directory / "targets.json")
        last = _read_optional(directory / "root.json")
        if data is None or last is None:
            return None
        restore = "find out who changed it, then: git checkout metadata/adopted"
        if last not in self.roots():
            raise NotTrustedError(
                "metadata/adopted/root.json is not what was adopted: it is no root of the chain in "
                "metadata/root/",
                restore,
            )
        root = parse(last, Root, "root.json").signed
        try:
            return Adopted(root, authentic(Targets, root, Targets.type, data))
        except NotTrustedError as error:
            raise NotTrustedError(
                f"metadata/adopted/targets.json is not what was adopted: {error.message}", restore
            ) from error

    def newest_recovery(self) -> Root | None:
        """The newest recovery root signed to its threshold: staged, else published."""
        data = self.staged_role(RECOVERY) or next(reversed(self.recovery_roots()), None)
        return None if data is None else parse(data, Root, RECOVERY).signed

    def newest_root(self) -> Root | None:
        """The newest root signed to its threshold: staged, else published."""
        data = self.staged_role("root") or next(reversed(self.roots()), None)
        return None if data is None else parse(data, Root, "root").signed

    def ruling_root(self) -> Root | None:
        """The newest signed root; while an epoch has none yet, that of the epoch before it."""
        if (found := self.newest_root()) is not None:
            return found
        before = self.before()
        return None if before is None else before.ruling_root()

    def newest_targets(self) -> Targets | None:
        """The newest targets signed to its threshold: staged, else published."""
        data = self.staged_role("targets") or self.published_role("targets")
        return None if data is None else parse(data, Targets, "targets").signed

    # Keys of this machine.

    def key_uris(self) -> dict[str, str]:
        """Private keys that this machine can use, name to URI: its own, then the online ones."""
        return {**self.config.online, **self.own_key_uris()}

    def own_key_uris(self) -> dict[str, str]:
        """Those that are this machine's alone: git shares the online ones with every clone."""
        return _read_uris(self.private / "keys.toml")

    def add_key_uri(self, name: str, uri: str) -> None:
        """Remember that this machine holds a private key."""
        self._write_key_uris({**_read_uris(self.private / "keys.toml"), name: uri})

    def remove_key_uri(self, name: str) -> None:
        """Forget a private key of this machine; the key file stays."""
        uris = _read_uris(self.private / "keys.toml")
        if uris.pop(name, None) is not None:
            self._write_key_uris(uris)

    def _write_key_uris(self, uris: Mapping[str, str]) -> None:
        document = tomlkit.document()
        document.add(tomlkit.comment("Private keys that this machine can use. Never in git."))
        for each in sorted(uris):
            document[each] = uris[each]
        data = tomlkit.dumps(document).encode()
        replace_file(self.private / "keys.toml", data, mode=0o600)

    def key_name(self, keyid: str) -> str:
        """What people call a key; its short id if nobody here knows it."""
        for name, holder in self.keyring.items():
            if holder.key.keyid == keyid:
                return name
        return f"unknown key {keyid[:8]}"


def _read_config(directory: Path) -> Config:
    path = directory / "firmroot.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"{directory} is not a firmroot workspace: it has no firmroot.toml",
            "go there, name it with -C DIR, or make one: firmroot init DIR",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    return _parse_config(text)


def _check_no_links(top: Path) -> None:
    """Git keeps symbolic links, so a stranger's could lead reading and tidying anywhere."""
    inside = (
        type(top)(directory) / name
        for directory, folders, files in os.walk(top)
        for name in (*folders, *files)
    )
    for path in itertools.chain((top,), inside):  # the top first: walk would follow it
        if path.is_symlink():
            name = path.relative_to(top.parent)
            raise NotTrustedError(
                f"{name} is a symbolic link; {top.name}/ may hold none",
                f"find out who made it (git log -- {name}), then remove it: git rm {name}",
            )


def _read_optional(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _read_uris(path: Path) -> dict[str, str]:
    data = _read_optional(path)
    if data is None:
        return {}
    try:
        table = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(
            f"{path}: not TOML: {error}",
            "correct it, or remove it and name the keys of this machine again: firmroot key import",
        ) from error
    if wrong := [name for name, uri in table.items() if not isinstance(uri, str)]:
        raise ConfigurationError(f"{path}: {wrong[0]}: expected a key URI such as file:PATH")
    return table


def _parse_config(text: str) -> Config:
    """`firmroot.toml`; every mistake in one error."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        if has_conflict(text.encode()):
            raise ConfigurationError(
                "firmroot.toml has the marks of a git conflict: two people changed it at once",
                "put together what both sides wanted, remove the marks, then: git add",
            ) from error
        raise ConfigurationError(
            f"firmroot.toml: not TOML: {error}", "correct the line that is named"
        ) from error
    problems: list[str] = []

    def take(name: str, kind: type, default: Any, expected: str) -> Any:  # noqa: ANN401  TOML values
        value = table.pop(name, default)
        if not isinstance(value, kind):
            problems.append(f"firmroot.toml: {name}: expected {expected}, found {value!r}")
            return default
        return value

    if (schema := table.pop("schema", 1)) != 1:
        problems.append(f"firmroot.toml: schema: this firmroot reads 1, found {schema!r}")
    config = Config(
        storage=take("storage", str, "repository", "a directory or URL"),
        urls=tuple(take("urls", list, [], "a list of URLs")),
        recovery_storage=take("recovery_storage", str, "", "a directory or URL"),
        recovery_urls=tuple(take("recovery_urls", list, [], "a list of URLs")),
        epoch=take("epoch", int, 0, "a whole number"),
        lab=take("lab", bool, False, "true or false"),  # noqa: FBT003  a default, not a switch
        online=take("online", dict, {}, "a table of key URIs"),
        products={
            name: _parse_product(name, value, problems)
            for name, value in take("products", dict, {}, "tables of products").items()
        },
    )
    problems.extend(f"firmroot.toml: {name} is not known" for name in table)
    problems.extend(
        f"firmroot.toml: online.{name}: expected a key URI, found {uri!r}"
        for name, uri in config.online.items()
        if not isinstance(uri, str)
    )
    if config.epoch < 0 or isinstance(config.epoch, bool):
        problems.append(f"firmroot.toml: epoch: expected a whole number, found {config.epoch!r}")
    problems.extend(
        f"firmroot.toml: {key}: expected http(s)://.../, found {url!r}"
        for key, urls in (("urls", config.urls), ("recovery_urls", config.recovery_urls))
        for url in urls
        if not (isinstance(url, str) and url.startswith(("http://", "https://")))
    )
    if problems:
        raise ConfigurationError("\n       ".join(problems), "correct firmroot.toml")
    return config


def _parse_product(name: str, value: object, problems: list[str]) -> Product:
    where = f"firmroot.toml: products.{name}"
    table = dict(value) if isinstance(value, dict) else {}
    lists = {}
    for each in ("hardware", "channels"):
        found = table.pop(each, None)
        if not isinstance(found, list) or not found or not all(isinstance(x, str) for x in found):
            problems.append(f"{where}.{each}: expected a list of names, found {found!r}")
            found = []
        lists[each] = tuple(found)
    bins = table.pop("bins", 0)
    if bins != 0 or isinstance(bins, bool):
        try:
            bits(bins if type(bins) is int else -1)
        except ConfigurationError as error:
            problems.append(f"{where}.bins: {error.message}")
            bins = 0
    problems.extend(f"{where}.{each} is not known" for each in table)
    problems.extend(
        f"{where}: {each!r} is not a name (small letters, digits, single '-')"
        for each in (name, *lists["channels"])
        if NAME.fullmatch(each) is None
    )
    return Product(name, lists["hardware"], lists["channels"], bins)
