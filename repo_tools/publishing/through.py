"""Looks at a repository through what serves it: gathers what `edge_checks` judges.

As a device and as an auditor, over HTTP: the device's own fetcher reads everything that is signed,
and single requests (`probe`) show the headers that a fetcher does not. Nothing is written anywhere;
without `artifacts` only a few bytes of artifacts are read.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC
from typing import TYPE_CHECKING

from cryptography import x509
from tuf.api.metadata import Root, Targets

from client_reference.errors import FirmrootError
from client_reference.transport.connect import Roots
from client_reference.transport.fetch import HttpFetcher, Settings
from client_reference.transport.pace import TransportError
from client_reference.transport.policy import is_artifact, parse_mirror, strong_etag
from repo_tools.metadata.repository import parse
from repo_tools.publishing.artifacts import stored_name
from repo_tools.publishing.cache_headers import shown
from repo_tools.publishing.edge_checks import Certificate, Evidence, Part, run_checks
from repo_tools.publishing.inbox import INBOX
from repo_tools.publishing.live import (
    MAX_METADATA,
    TIMESTAMP,
    metadata_path,
    read_live,
    root_chain_object,
)
from repo_tools.publishing.probe import Prober
from repo_tools.publishing.verify import Audit, Finding, Severity, judge, meet_devices, read
from repo_tools.storage.epoch import EpochFetcher, EpochStorage, epoch_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from client_reference.transport.fetch import Ambient
    from keys_policy.model import Policy
    from repo_tools.metadata.adopted import Adopted
    from repo_tools.metadata.repository import RepositoryState
    from repo_tools.publishing.edge_checks import EdgeFinding
    from repo_tools.publishing.live import Live
    from repo_tools.publishing.probe import Reply
    from repo_tools.publishing.rehearse import Device, Lead
    from repo_tools.storage.protocol import Storage

__all__ = ["Expected", "Observed", "look"]

_PART = 16
"""Bytes of an artifact that are asked for."""
_TOP = 65_536
"""Bytes of a listing that are read, if there is one."""


@dataclass(frozen=True)
class Expected:
    """What the workspace knows of the repository.

    Attributes:
        roots: the chain, oldest first.
        policy: for how early a signature should be renewed.
        now: aware UTC.
        epoch: that is live.
        devices: that must be able to follow.
        lead: where the recovery anchor leads them.
        storage: the origin, all epochs; None if it is not asked.
        adopted: what was there before `firmroot adopt`.
        ca: for verified TLS.
        credentials: a header for artifacts.
        artifacts: whether each is read, whole.
        tell: told which target is read, and of how many.
    """

    roots: tuple[bytes, ...]
    policy: Policy
    now: datetime
    epoch: int
    devices: Sequence[Device]
    lead: Lead
    storage: Storage | None
    adopted: Adopted | None = None
    ca: Roots = field(default_factory=Roots)
    credentials: tuple[str, str] | None = field(default=None, repr=False)
    artifacts: bool = False
    tell: Callable[[str, int, int], None] = lambda _path, _number, _count: None


@dataclass(frozen=True)
class Observed:
    """What was found at one mirror.

    Attributes:
        url: of it.
        caches: what its headers say about caches, in a few words.
        findings: of every check; none if it does not answer at all.
        trouble: why it does not.
    """

    url: str
    caches: str
    findings: tuple[EdgeFinding, ...]
    trouble: str = ""


def look(url: str, expected: Expected, ambient: Ambient) -> Observed:
    """Ask one mirror everything.

    Args:
        url: as devices have it in their configuration.
        expected: of it.
        ambient: clock, names, patience.

    Raises:
        ConfigurationError: that is no URL of a mirror.
    """
    mirror = parse_mirror(url)
    prober = Prober(mirror, ambient, expected.ca)
    first = prober.ask(epoch_path(TIMESTAMP, expected.epoch), most=MAX_METADATA)
    if not first.status:
        return Observed(mirror.url, "", (), first.trouble)
    settings = Settings((mirror,), roots=expected.ca, credentials=expected.credentials)
    with HttpFetcher(settings, ambient) as fetcher:
        state, audited = _audit(fetcher, expected)
    evidence = _Look(prober, expected, state or _stored(expected)).evidence(audited)
    return Observed(mirror.url, shown(evidence.timestamp[-1].headers), run_checks(evidence))


def _audit(
    fetcher: HttpFetcher, expected: Expected
) -> tuple[RepositoryState | None, tuple[Finding, ...]]:
    """As a device and as a reader of everything; the state, if it verifies."""
    about = Audit(
        EpochFetcher(fetcher, expected.epoch),
        expected.roots,
        expected.policy,
        expected.now,
        expected.adopted,
        artifacts=expected.artifacts,
        tell=expected.tell,
    )
    found: list[Finding] = []
    try:
        found += meet_devices(expected.devices, fetcher, expected.now, expected.lead)
        live = read(about)
        if isinstance(live, Finding):
            return None, (*found, live)
        found += judge(about, live)
    except FirmrootError as error:
        return None, (*found, Finding(Severity.ERROR, "metadata", error.message))
    return _whole(live, expected), tuple(found)


def _stored(expected: Expected) -> RepositoryState | None:
    """What the storage has, where the mirror shows nothing that can be believed."""
    if expected.storage is None:
        return None
    try:
        storage = EpochStorage(expected.storage, expected.epoch)
        return _whole(read_live(storage, expected.roots[-1]), expected)
    except FirmrootError:
        return None


def _whole(live: Live, expected: Expected) -> RepositoryState:
    """With the whole chain of roots."""
    return replace(live.state, roots=expected.roots[:-1] + live.state.roots)


@dataclass(frozen=True)
class _Look:
    """The single requests to one mirror."""

    prober: Prober
    expected: Expected
    state: RepositoryState | None

    def evidence(self, audited: tuple[Finding, ...]) -> Evidence:
        """Ask them all. The same object twice, since a cache shows itself at the second time."""
        timestamp = self._path(TIMESTAMP)
        asked = [self.prober.ask(timestamp, {}, MAX_METADATA) for _ in range(2)]
        origin, trouble = self._origin()
        absent = self._path(metadata_path("root", self._newest_root() + 1))
        named = [self._path(path) for path in self._immutable()]
        packed = [timestamp, *(path for path in named if path.endswith(".json"))][:3]
        public = [timestamp, *(path for path in named if not is_artifact(path))]
        return Evidence(
            now=self.expected.now,
            timestamp=tuple(asked),
            packed={path: self._both(path) for path in packed},
            revalidated=self._revalidated(timestamp),
            origin=origin,
            origin_trouble=trouble,
            absent=(absent, (self.prober.ask(absent, {}), self.prober.ask(absent, {}))),
            immutable={path: self._first_byte(path) for path in named},
            public={path: self.prober.ask(path, most=1) for path in public},
            plain=self.prober.ask_plainly(timestamp, MAX_METADATA),
            part=self._part(),
            inbox={path: self.prober.ask(path, most=1) for path in self._inbox()},
            top=self.prober.ask("", most=_TOP),
            certificate=self._certificate(),
            audited=audited,
        )

    def _revalidated(self, path: str) -> tuple[Reply, Reply | None]:
        """As devices ask: with gzip allowed, and then with the ETag that came."""
        asked = {"Accept-Encoding": "gzip"}
        reply = self.prober.ask(path, asked, MAX_METADATA)
        etag = strong_etag(reply.headers.get("etag"))
        if not etag:
            return reply, None
        return reply, self.prober.ask(path, {**asked, "If-None-Match": etag}, MAX_METADATA)

    def _path(self, path: str) -> str:
        return epoch_path(path, self.expected.epoch)

    def _both(self, path: str) -> tuple[Reply, Reply]:
        """Without compression, and with gzip allowed."""
        packed = {"Accept-Encoding": "gzip"}
        return self.prober.ask(path, {}, MAX_METADATA), self.prober.ask(path, packed, MAX_METADATA)

    def _first_byte(self, path: str) -> Reply:
        """The headers of an object, and not all of it where ranges are known."""
        return self.prober.ask(path, {**self._identified(path), "Range": "bytes=0-0"}, 1)

    def _identified(self, path: str) -> dict[str, str]:
        """Credentials, where a device would send them: for artifacts, over verified TLS."""
        given = self.expected.credentials
        if given is None or not is_artifact(path) or not self.prober.verified:
            return {}
        return {given[0]: given[1]}

    def _newest_root(self) -> int:
        roots = self.expected.roots if self.state is None else self.state.roots
        return parse(roots[-1], Root, "root").signed.version

    def _immutable(self) -> Iterator[str]:
        """What never changes: each role, the newest root, its bundle, and targets of each kind."""
        yield metadata_path("root", self._newest_root())
        if self.state is None:
            return
        yield root_chain_object(self.state)[0]
        for role, signed in self.state.newest().items():
            if role not in {"root", "timestamp"}:
                yield metadata_path(role, signed.version)
        kinds: set[str] = set()
        for path, stored, _ in self._targets():
            kind = path.partition("/")[0]
            if self.expected.artifacts or kind not in kinds:
                kinds.add(kind)
                yield stored

    def _targets(self) -> Iterator[tuple[str, str, int]]:
        """Path, place and length of every target."""
        for signed in () if self.state is None else self.state.newest().values():
            if isinstance(signed, Targets):
                for path, target in signed.targets.items():
                    yield path, stored_name(path, target.hashes["sha256"]), target.length

    def _part(self) -> Part | None:
        """Two parts of the longest artifact."""
        artifacts = [
            (length, stored) for _, stored, length in self._targets() if is_artifact(stored)
        ]
        length, stored = max(artifacts, default=(0, ""))
        if length < 2 * _PART:
            return None
        first, second = (
            self.prober.ask(
                stored,
                {**self._identified(stored), "Range": f"bytes={start}-{start + _PART - 1}"},
                _PART,
            )
            for start in (0, _PART // 2)
        )
        return Part(stored, length, first, second, _PART)

    def _inbox(self) -> Iterator[str]:
        """What lies in the inbox, as far as is known; a mirror that serves it says so itself."""
        yield INBOX
        if self.expected.storage is not None:
            try:
                yield from list(self.expected.storage.paths(INBOX))[:1]
            except FirmrootError:
                return

    def _origin(self) -> tuple[bytes | None, str]:
        if self.expected.storage is None:
            return None, "this workspace has no storage that can be asked"
        try:
            return self.expected.storage.read(self._path(TIMESTAMP), MAX_METADATA).data, ""
        except FirmrootError as error:
            return None, error.message

    def _certificate(self) -> Certificate | None:
        if not self.prober.encrypts:
            return None
        try:
            shown = x509.load_der_x509_certificate(self.prober.certificate())
        except (TransportError, ValueError) as error:
            return Certificate(None, self.prober.distrust or str(error))
        ends = shown.not_valid_after_utc.astimezone(UTC)
        return Certificate(ends, self.prober.distrust)
