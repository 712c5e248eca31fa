"""`firmroot-conformance`: the client protocol of tuf-conformance over the production updater.

https://github.com/theupdateframework/tuf-conformance describes the protocol in CLIENT-CLI.md: three
commands, exit code 0 or 1, trusted metadata as plain files in a directory. Nothing of the workflow
is here: `Updater` decides, this module gives it a store of plain files and two base URLs. The store
keeps no time floor, since a directory of metadata files has no place for one; a device uses
`trust.store`.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self
from urllib.parse import quote, unquote, urlsplit

from tuf.api.metadata import Root, Snapshot, Timestamp

from client_reference.errors import (
    ConfigurationError,
    FirmrootError,
    NotFoundError,
    NotTrustedError,
)
from client_reference.transport.fetch import Ambient, HttpFetcher, Settings
from client_reference.transport.policy import Mirror, parse_mirror
from client_reference.trust import verified
from client_reference.trust.state import DeviceState, TrustState
from client_reference.trust.updater import Floors, Updater, initial_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

__all__ = ["run"]


class MetadataDirectory:
    """A `Store` in the form that the suite reads: one file for each role, without version."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def load(self) -> DeviceState | None:
        """What the files say; None without a root."""
        files = {
            unquote(path.name.removesuffix(".json")): path.read_bytes()
            for path in self._directory.glob("*.json")
        }
        root = files.get(Root.type)
        if root is None:
            return None
        special = {Root.type, Timestamp.type, Snapshot.type}
        return DeviceState(
            TrustState(
                factory_sha256=hashlib.sha256(root).hexdigest(),
                root=root,
                root_version=verified.read(Root, Root.type, root).signed.version,
                timestamp=files.get(Timestamp.type),
                snapshot=files.get(Snapshot.type),
                roles={name: data for name, data in files.items() if name not in special},
            )
        )

    def commit(self, state: DeviceState, new_roots: Sequence[bytes] = ()) -> None:
        """Write what changed, remove what is no longer trusted."""
        del new_roots
        trust = state.trust
        files: Mapping[str, bytes | None] = {
            **trust.roles,
            Root.type: trust.root,
            Timestamp.type: trust.timestamp,
            Snapshot.type: trust.snapshot,
        }
        for name, data in files.items():
            self._keep(self._directory / f"{quote(name, safe='')}.json", data)

    def begin_again(self, state: DeviceState) -> None:
        """The protocol keeps the newest root only."""
        self.commit(state)

    def root_chain(self) -> Sequence[bytes]:
        """The newest root only: the protocol keeps no others."""
        state = self.load()
        return () if state is None else (state.trust.root,)

    @staticmethod
    def _keep(path: Path, data: bytes | None) -> None:
        if data is None:
            path.unlink(missing_ok=True)
        elif not path.exists() or path.read_bytes() != data:
            _write(path, data)


class Urls:
    """A `Fetcher` for a repository whose metadata and targets have URLs of their own."""

    def __init__(self, metadata: str, targets: str) -> None:
        self._bases = {"metadata": _verbatim(metadata), "targets": _verbatim(targets)}
        self._fetchers: dict[str, HttpFetcher] = {}

    def close(self) -> None:
        """Close every connection."""
        for fetcher in self._fetchers.values():
            fetcher.close()

    def fetch(self, path: str, max_length: int) -> bytes:
        """See `Fetcher.fetch`."""
        fetcher, rest = self._split(path)
        return fetcher.fetch(rest, max_length)

    def stream(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        """See `Fetcher.stream`."""
        fetcher, rest = self._split(path)
        return fetcher.stream(rest, offset, length)

    def _split(self, path: str) -> tuple[HttpFetcher, str]:
        """The fetcher for a path's base URL, and the rest of the path.

        A role may have any name here, `../x` included, so `Updater` hands it over encoded. The
        transport encodes names itself: what is encoded already becomes part of the base.
        """
        area, _, name = path.partition("/")
        base = self._bases[area]
        if area == "metadata" and "%" in name:
            cut = name.rindex("%") + len("%2F")
            base, name = replace(base, base=base.base + name[:cut]), name[cut:]
        if base.url not in self._fetchers:
            ambient = Ambient(time.monotonic, time.sleep, random.random)
            self._fetchers[base.url] = HttpFetcher(Settings(mirrors=(base,)), ambient)
        return self._fetchers[base.url], name


def _verbatim(url: str) -> Mirror:
    """A mirror whose path is asked for exactly as the suite wrote it, `%2F` included."""
    return replace(parse_mirror(url), base=urlsplit(url).path.rstrip("/") + "/")


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(data)
    temporary.replace(path)


def _download(updater: Updater, names: Sequence[str], directory: Path) -> None:
    for name in names:
        target = updater.find(name)
        if target is None:
            raise NotFoundError(f"no role of this repository has a target {name}")
        place = directory / quote(name, safe="")
        if place.exists():
            with suppress(NotTrustedError):
                verified.check_target(target, place.read_bytes())
                continue
        _write(place, updater.fetch_target(target, target.length))


class _Parser(argparse.ArgumentParser):
    """The protocol has one exit code for everything that failed; argparse would exit with 2.

    And its options have one name each.
    """

    def __init__(self, **named: Any) -> None:  # noqa: ANN401 # as argparse declares them
        super().__init__(**named | {"allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(message)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="firmroot-conformance", description=__doc__)
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url")
    parser.add_argument("--target-name", action="append", default=[])
    parser.add_argument("--target-base-url")
    parser.add_argument("--target-dir", type=Path)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init", help="trust this root").add_argument("trusted_root", type=Path)
    commands.add_parser("refresh", help="bring the top-level metadata up to date")
    commands.add_parser("download", help="refresh, then fetch --target-name")
    options = parser.parse_args(arguments)
    needed = {
        "init": (),
        "refresh": ("metadata_url",),
        "download": ("metadata_url", "target_name", "target_base_url", "target_dir"),
    }
    for name in needed[options.command]:
        if not getattr(options, name):
            parser.error(f"{options.command} needs --{name.replace('_', '-')}")
    return options


def _execute(options: argparse.Namespace) -> None:
    store = MetadataDirectory(options.metadata_dir)
    if options.command == "init":
        store.commit(initial_state(options.trusted_root.read_bytes(), Floors(0, 0, 0)))
        return
    urls = Urls(options.metadata_url, options.target_base_url or options.metadata_url)
    with closing(urls):
        updater = Updater(store, urls, datetime.now(UTC))
        updater.refresh()
        if options.command == "download":
            _download(updater, options.target_name, options.target_dir)


def run(arguments: Sequence[str] | None = None) -> int:
    """Execute one command of the protocol.

    Returns:
        0, or 1 with the reason on standard error.
    """
    try:
        _execute(_parse(arguments))
    except (FirmrootError, OSError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return 0
