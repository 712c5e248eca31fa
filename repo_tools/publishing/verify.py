"""The audit of a live repository: as a device, and as somebody who reads everything.

A device checks only what it needs; an auditor checks that nothing else is wrong either: every role
verifies, every byte of every target is what was signed, every guard of design 4 holds, nothing is
about to expire. Each rule is a function that yields findings; a rule that cannot be judged because
an object is missing or damaged is itself a finding. Nothing is changed.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tuf.api.metadata import Root, Targets

from client_reference import manifest as formats
from client_reference.errors import FirmrootError, NotFoundError, NotTrustedError, RetryLaterError
from client_reference.payload.segments import SEGMENT, SUFFIX, has_segments, list_length
from client_reference.transport.policy import is_artifact
from repo_tools.metadata.bins import (
    bins_of,
    builds_of,
    check_bins,
    files_of,
    is_bin,
    listed_bins,
)
from repo_tools.metadata.edits import ISSUED_FIELD, ROOT_FIELD, format_time, is_lab_root
from repo_tools.metadata.repository import parse, sha256
from repo_tools.metadata.roles import check_delegations, check_leaf
from repo_tools.publishing.artifacts import stored_name
from repo_tools.publishing.binned import artifact, offered_bins, own_bins
from repo_tools.publishing.live import (
    MAX_METADATA,
    TIMESTAMP,
    metadata_path,
    read_bins,
    read_live,
    root_chain_object,
)
from repo_tools.publishing.rehearse import Clock, Outcome, meet
from repo_tools.publishing.withdraw import offered
from repo_tools.storage.epoch import epoch_path
from repo_tools.storage.protocol import Blob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tuf.api.metadata import Snapshot, TargetFile, Timestamp

    from client_reference.transport.fetcher import Fetcher
    from keys_policy.model import Policy
    from repo_tools.metadata.adopted import Adopted
    from repo_tools.metadata.repository import RepositoryState
    from repo_tools.publishing.live import Live
    from repo_tools.publishing.rehearse import Device, Lead

__all__ = ["Audit", "Finding", "Reader", "Severity", "audit", "judge", "meet_devices", "read"]

SAMPLE = 16
"""Hash bins of a product that an audit reads beside those that it must."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Severity(enum.Enum):
    """What a finding means for the verdict."""

    FINE = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """One line of the audit.

    Attributes:
        severity: what it means.
        subject: what it is about.
        detail: what was found.
        rule: by which it was judged, such as `root-chain`.
    """

    severity: Severity
    subject: str
    detail: str
    rule: str = "metadata"


@dataclass(frozen=True)
class Audit:
    """What an audit needs.

    Attributes:
        fetcher: the repository, as devices reach it.
        roots: the chain that the workspace knows, oldest first.
        policy: for how early a signature should be renewed.
        now: aware UTC.
        adopted: what was there before `firmroot adopt`.
        artifacts: whether the bytes of artifacts are read; all other targets always are.
        tell: told which target is read, and of how many.
        every_bin: read every hash bin, and every byte that they name; otherwise a sample.
    """

    fetcher: Fetcher
    roots: tuple[bytes, ...]
    policy: Policy
    now: datetime
    adopted: Adopted | None = None
    artifacts: bool = True
    tell: Callable[[str, int, int], None] = lambda _path, _number, _count: None
    every_bin: bool = False


@dataclass(frozen=True)
class Reader:
    """A repository behind a fetcher, as `read_live` asks for it."""

    fetcher: Fetcher

    def read(self, path: str, max_length: int) -> Blob:
        """One whole object. Raises as `Fetcher.fetch`."""
        data = self.fetcher.fetch(path, max_length)
        return Blob(data, sha256(data))


def audit(about: Audit) -> tuple[Finding, ...]:
    """Read everything that is live, and judge it.

    Raises:
        RetryLaterError: the repository cannot be reached at all, or a web page answers for it.
    """
    live = read(about)
    return (live,) if isinstance(live, Finding) else judge(about, live)


def read(about: Audit) -> Live | Finding:
    """What is live there, or why it cannot be judged. Raises as `audit`."""
    try:
        live = read_live(Reader(about.fetcher), about.roots[-1])
    except NotTrustedError as error:
        return Finding(Severity.ERROR, "metadata", error.message)
    if live.tag is None:
        return Finding(Severity.ERROR, "timestamp", "nothing is published there")
    return live


def judge(about: Audit, live: Live) -> tuple[Finding, ...]:
    """Every rule on a state that was read there. Raises as `audit`."""
    state = replace(live.state, roots=about.roots[:-1] + live.state.roots)
    try:
        state, sampled = _with_sample(about, state)
    except FirmrootError as error:
        return (Finding(Severity.ERROR, "hash bins", error.message),)
    findings = [finding for rule in _RULES for finding in _guarded(rule, about, state)]
    if live.root_ahead:
        text = "the newest root has no timestamp after it: finish it with `firmroot publish`"
        findings.insert(0, Finding(Severity.WARNING, "root", text, "root-chain"))
    return (*findings, *sampled)


def _with_sample(
    about: Audit, state: RepositoryState
) -> tuple[RepositoryState, tuple[Finding, ...]]:
    """The state with the hash bins that channels send devices to, and a sample of the others.

    The sample moves with the version of the timestamp: in time, every bin has its turn.
    """
    reader, snapshot = Reader(about.fetcher), state.parsed_snapshot()
    offered = offered_bins(state, _offered(about, state))
    timestamp = state.parsed_timestamp()
    turn = timestamp.version if timestamp is not None else 0
    found: list[Finding] = []
    for role in tuple(state.roles):
        if (bins := bins_of(state.role(role))) is None:
            continue
        every = listed_bins(snapshot, bins)
        step = max(len(every) // SAMPLE, 1)
        wanted = {*every[turn % step :: step], *offered.intersection(every)}
        if about.every_bin:
            wanted = set(every)
        state = read_bins(reader, state, sorted(wanted))
        text = f"{len(wanted)} of {len(every)} hash bins read"
        if len(wanted) < len(every):
            text += ": those that channels send devices to, and a sample; --every-bin reads all"
        found.append(Finding(Severity.FINE, role, text))
    return state, tuple(found)


def _offered(about: Audit, state: RepositoryState) -> Iterator[formats.Manifest]:
    """The manifests that can be read; `_manifests` says what is wrong with the others."""
    for _, targets in _leaves(state):
        for path, target in targets.targets.items():
            with contextlib.suppress(FirmrootError):
                if path.startswith("channels/"):
                    stored = stored_name(path, target.hashes["sha256"])
                    yield formats.parse(about.fetcher.fetch(stored, formats.MAX_MANIFEST))


def _guarded(
    rule: Callable[[Audit, RepositoryState], Iterator[Finding]],
    about: Audit,
    state: RepositoryState,
) -> Iterator[Finding]:
    """The findings of a rule; what stops it is one more."""
    name = rule.__name__.strip("_")
    try:
        for finding in rule(about, state):
            yield replace(finding, rule=name.replace("_", "-"))
    except FirmrootError as error:
        subject = name.replace("_", " ")
        yield Finding(Severity.ERROR, subject, error.message, name.replace("_", "-"))


def _root_chain(about: Audit, state: RepositoryState) -> Iterator[Finding]:
    """Every root there ever was is still there: devices on the shelf walk all of them."""
    for data in state.roots:
        path = metadata_path("root", parse(data, Root, "root").signed.version)
        try:
            found = about.fetcher.fetch(path, len(data) + 1)
        except NotFoundError:
            yield Finding(Severity.ERROR, path, "is missing; shelf devices cannot walk past it")
            continue
        if found != data:
            yield Finding(Severity.ERROR, path, "is not the root that the workspace knows")
    yield from _root_chain_bundle(about, state)
    root = parse(state.roots[-1], Root, "root").signed
    yield Finding(
        Severity.FINE, "root chain", f"{len(state.roots)} versions, newest {root.version}"
    )
    if is_lab_root(root):
        yield Finding(Severity.WARNING, "root", "LAB: never for devices in the field")


def _root_chain_bundle(about: Audit, state: RepositoryState) -> Iterator[Finding]:
    """The bundle of the newest root says what the chain says."""
    path, expected = root_chain_object(state)
    try:
        found = about.fetcher.fetch(path, len(expected) + 1)
    except NotFoundError:
        text = "is missing: a device that missed many roots asks for each; the next publish adds it"
        yield Finding(Severity.WARNING, path, text)
        return
    if found != expected:
        yield Finding(Severity.ERROR, path, "is not the bundle of the root chain")


def _expiry(about: Audit, state: RepositoryState) -> Iterator[Finding]:
    """Nothing has expired, nothing is due."""
    signed: dict[str, Root | Timestamp | Snapshot | Targets | None] = {
        "root": state.root,
        "timestamp": state.parsed_timestamp(),
        "snapshot": state.parsed_snapshot(),
        **{role: state.role(role) for role in state.roles},
    }
    for role, metadata in signed.items():
        if metadata is None:
            continue
        ends = metadata.expires
        text = f"version {metadata.version}, good until {format_time(ends)}"
        if ends <= about.now:
            yield Finding(
                Severity.ERROR, role, f"version {metadata.version} expired {format_time(ends)}"
            )
        elif ends <= about.now + _margin(about.policy, role):
            yield Finding(Severity.WARNING, role, f"{text}: time to sign it again")
        elif not is_bin(role):  # it ends with its builds role
            yield Finding(Severity.FINE, role, text)


def _margin(policy: Policy, role: str) -> timedelta:
    """How long before its end a role should be signed again; a third of its life by default."""
    if is_bin(role):
        role = builds_of(role)
    template = next((name for name in ("builds", "hold") if role.endswith(f"-{name}")), "channel")
    try:
        rules = policy.role(role, template)
    except KeyError:
        return timedelta()
    return timedelta(days=rules.signing_days or rules.expiry_days / 3)


def _hints(about: Audit, state: RepositoryState) -> Iterator[Finding]:
    """What the timestamp tells devices about time and root."""
    if (timestamp := state.parsed_timestamp()) is None:
        return
    fields = timestamp.unrecognized_fields
    newest = parse(state.roots[-1], Root, "root").signed.version
    if (hint := fields.get(ROOT_FIELD)) is not None and hint != newest:
        yield Finding(Severity.WARNING, "timestamp", f"names root {hint}, the newest is {newest}")
    issued = fields.get(ISSUED_FIELD)
    if isinstance(issued, str) and issued > format_time(about.now):
        yield Finding(
            Severity.ERROR,
            "timestamp",
            f"was issued at {issued}, which is still to come: it would move the clocks of devices",
        )


def _guards(about: Audit, state: RepositoryState) -> Iterator[Finding]:
    """Design 4: who may speak for what."""
    if (targets := state.targets) is None:
        return
    check_delegations(
        targets.delegations, about.adopted.delegations if about.adopted is not None else None
    )
    if targets.targets != (about.adopted.files if about.adopted is not None else {}):
        yield Finding(Severity.ERROR, "targets", "names target files itself, beside delegations")
    delegated = (targets.delegations.roles or {}) if targets.delegations else {}
    for role, data in state.roles.items():
        if role == "targets":
            continue
        signed = parse(data, Targets, role).signed
        if is_bin(role):
            if (bins := bins_of(state.role(builds_of(role)))) is not None:
                own_bins(role, bins, signed)
            check_leaf(role, signed)
        elif bins_of(signed) is not None:
            check_bins(role, signed, targets)
        else:
            check_leaf(role, signed)
        for path in signed.targets:
            if not delegated[builds_of(role) if is_bin(role) else role].is_delegated_path(path):
                yield Finding(Severity.ERROR, role, f"speaks for {path}, which is not its own")
    yield Finding(Severity.FINE, "guards", f"{len(delegated)} delegations are disjoint")


def _targets(about: Audit, state: RepositoryState) -> Iterator[Finding]:
    """Every byte of every target is what was signed."""
    wanted = [
        (role, targets, path)
        for role, targets in _leaves(state)
        for path in targets.targets
        if about.artifacts or not is_artifact(f"targets/{path}")
    ]
    length = 0
    for number, (role, targets, path) in enumerate(wanted, 1):
        about.tell(path, number, len(wanted))
        target = targets.targets[path]
        problem = _check_bytes(about.fetcher, target, targets.targets.get(path + SUFFIX))
        if problem is not None:
            yield Finding(Severity.ERROR, path, f"({role}) {problem}")
        length += target.length
    yield Finding(Severity.FINE, "targets", f"{len(wanted)} files, {length} bytes, hashed")


def _leaves(state: RepositoryState) -> Iterator[tuple[str, Targets]]:
    """Every role with its target files; `targets` itself has some only if it was adopted."""
    for role, data in state.roles.items():
        if (signed := parse(data, Targets, role).signed).targets:
            yield role, signed


def _check_bytes(fetcher: Fetcher, target: TargetFile, listed: TargetFile | None) -> str | None:
    """What is wrong with a stored target, or None."""
    stored = stored_name(target.path, target.hashes["sha256"])
    whole, segments, rest = hashlib.sha256(), bytearray(), b""
    try:
        for piece in fetcher.stream(stored, 0, target.length):
            whole.update(piece)
            rest += piece
            while len(rest) >= SEGMENT:
                segments += hashlib.sha256(rest[:SEGMENT]).digest()
                rest = rest[SEGMENT:]
    except RetryLaterError as error:
        return f"cannot be read: {error.message}"
    if rest:
        segments += hashlib.sha256(rest).digest()
    if whole.hexdigest() != target.hashes["sha256"]:
        return f"has sha256 {whole.hexdigest()}, {target.hashes['sha256']} was signed"
    is_artifact = target.path.startswith("builds/") and not target.path.endswith(SUFFIX)
    if is_artifact and has_segments(target.length):
        for inside in list(files_of(target))[1:]:  # a bin's own word for it
            listed = inside
            if (problem := _check_bytes(fetcher, inside, None)) is not None:
                return f"its list of segment hashes {problem}"
        return _check_list(target, listed, hashlib.sha256(segments).hexdigest())
    return None


def _check_list(target: TargetFile, listed: TargetFile | None, digest: str) -> str | None:
    """What is wrong with the list of segment hashes of an artifact, or None."""
    if listed is None or listed.length != list_length(target.length):
        return "has no list of segment hashes of the right length beside it"
    if digest != listed.hashes["sha256"]:
        return "is not what its list of segment hashes says"
    return None


def _manifests(about: Audit, state: RepositoryState) -> Iterator[Finding]:
    """Every manifest can be read, and the builds role agrees with each of its payloads."""
    for role, targets in _leaves(state):
        for path, target in targets.targets.items():
            if not path.startswith("channels/"):
                continue
            stored = stored_name(path, target.hashes["sha256"])
            manifest = formats.parse(about.fetcher.fetch(stored, formats.MAX_MANIFEST))
            if path != f"channels/{manifest.product}/{manifest.channel}.json":
                text = f"({role}) is about {manifest.product}/{manifest.channel}"
                yield Finding(Severity.ERROR, path, text)
            paths = [each.artifact.path for r in manifest.releases for each in r.payloads]
            builds = {each: artifact(state, manifest.product, each) for each in paths}
            yield from _payloads(path, manifest, builds)
            versions = ", ".join(release.version for release in offered(manifest))
            yield Finding(Severity.FINE, path, f"offers {versions or 'nothing'}")


def _payloads(
    path: str, manifest: formats.Manifest, builds: Mapping[str, TargetFile | None]
) -> Iterator[Finding]:
    for release in manifest.releases:
        for payload in release.payloads:
            artifact = payload.artifact
            target = builds[artifact.path]
            if target is None:
                text = f"offers {artifact.path}, which the builds role does not list"
                yield Finding(Severity.ERROR, path, text)
                continue
            said = formats.Meaning(
                manifest.product,
                frozenset(payload.hardware),
                release.version,
                release.sequence,
                payload.handler,
            )
            same_bytes = (target.length, target.hashes.get("sha256")) == (
                artifact.length,
                artifact.sha256,
            )
            if not same_bytes or formats.parse_meaning(target.custom, artifact.path) != said:
                text = f"and the builds role disagree about {artifact.path}"
                yield Finding(Severity.ERROR, path, text)


_RULES: Sequence[Callable[[Audit, RepositoryState], Iterator[Finding]]] = (
    _root_chain,
    _expiry,
    _hints,
    _guards,
    _targets,
    _manifests,
)


def meet_devices(
    devices: Sequence[Device], fetcher: Fetcher, now: datetime, lead: Lead
) -> Iterator[Finding]:
    """What each device does with the repository, with a good clock and with one that says 1970.

    Raises:
        RetryLaterError: the repository cannot be reached at all, or a web page answers for it.
    """
    try:
        fetcher.fetch(epoch_path(TIMESTAMP, lead.epoch), MAX_METADATA)
    except NotFoundError as error:
        text = f"nothing is published there: {error.message}"
        yield Finding(Severity.ERROR, "timestamp", text, "device")
        return
    for device in devices:
        for clock, reading in ((Clock.GOOD, now), (Clock.RESET, _EPOCH)):
            outcome, detail = meet(device, fetcher, reading, lead=lead)
            severity = Severity.ERROR if outcome is Outcome.STRANDED else Severity.FINE
            text = f"clock {clock.value}: {outcome.value}, {detail}"
            yield Finding(severity, f"device {device.name}", text, "device")
