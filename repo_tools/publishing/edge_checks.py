"""Pure: does what stands between the storage and the devices keep the rules? A table of checks.

Each row says what is expected of a mirror, why, and how to put it right; its function looks at what
was observed there (`through` gathers it) and yields what it found otherwise. The rules are those of
design 8: one object may change and is kept for a minute, all others never change, what is not there
is said so and not remembered, everything but artifacts is public, plain HTTP is spoken too.

A finding is an ERROR where devices would be misled, kept waiting or turned away; a WARNING where it
only costs them or you something.
"""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from client_reference.transport.policy import content_start, is_web_page
from repo_tools.publishing import cache_headers
from repo_tools.publishing.edges import LIFETIME
from repo_tools.publishing.verify import Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from repo_tools.publishing.probe import Reply
    from repo_tools.publishing.verify import Finding as Audited

__all__ = [
    "CHECKS",
    "Certificate",
    "Check",
    "EdgeFinding",
    "Evidence",
    "Found",
    "Part",
    "run_checks",
]

YEAR = 365 * 86_400
MARGIN_DAYS = 21
"""Days before its end at which a certificate should have been renewed by what renews it."""

_KEPT = int(LIFETIME)
_OK, _GONE, _FORBIDDEN, _PART, _UNCHANGED = 200, 404, 403, 206, 304
_UNAUTHORISED = 401
_REDIRECTS = range(300, 400)


@dataclass(frozen=True)
class Part:
    """Two overlapping parts of one artifact, as they were asked for.

    Attributes:
        path: in the repository.
        length: of the artifact, as it was signed.
        first: bytes from 0 on.
        second: bytes from the middle of the first on.
        size: bytes of each.
    """

    path: str
    length: int
    first: Reply
    second: Reply
    size: int


@dataclass(frozen=True)
class Certificate:
    """What an https mirror shows.

    Attributes:
        ends: when it expires; None if it shows none, or it cannot be read.
        distrust: why it does not verify; empty if it does.
    """

    ends: datetime | None
    distrust: str


@dataclass(frozen=True)
class Evidence:
    """What was observed at one mirror.

    Attributes:
        now: of the run.
        timestamp: the answers for `timestamp.json`, one after the other, without compression.
        packed: that and others again, by path, with gzip allowed; each with the answer without.
        revalidated: the answer with gzip allowed, as devices ask for it, and the one when its ETag
            was sent along; that is None if it had none that a device sends.
        origin: what the storage has as `timestamp.json`; None if that could not be asked.
        origin_trouble: why.
        absent: path of a root that does not exist, and two answers for it.
        immutable: answers for versioned and hashed objects, by path.
        public: answers for metadata and `trust/`, by path, asked without saying anything.
        plain: the answer for `timestamp.json` over plain HTTP, on the default port.
        part: None if there is no artifact to ask for.
        inbox: answers for what is in the inbox, or for the inbox itself, by path.
        top: the answer for the top of the mirror.
        certificate: None if it is not asked over TLS.
        audited: what the audit found, a device or a reader of everything.
    """

    now: datetime
    timestamp: tuple[Reply, ...]
    packed: Mapping[str, tuple[Reply, Reply]]
    revalidated: tuple[Reply, Reply | None]
    origin: bytes | None
    origin_trouble: str
    absent: tuple[str, tuple[Reply, Reply]]
    immutable: Mapping[str, Reply]
    public: Mapping[str, Reply]
    plain: Reply
    part: Part | None
    inbox: Mapping[str, Reply]
    top: Reply
    certificate: Certificate | None = None
    audited: tuple[Audited, ...] = field(default=())


@dataclass(frozen=True)
class Found:
    """What a check found.

    Attributes:
        text: of it.
        severity: None for the check's own.
    """

    text: str
    severity: Severity | None = None


@dataclass(frozen=True)
class Check:
    """One row of the table.

    Attributes:
        id: of its findings.
        severity: of what it finds.
        expected: the rule.
        why: what happens to devices otherwise.
        fix: what to do.
        find: everything that was observed otherwise.
    """

    id: str
    severity: Severity
    expected: str
    why: str
    fix: str
    find: Callable[[Evidence], Iterator[Found]]


@dataclass(frozen=True)
class EdgeFinding:
    """One line about a mirror: what was found, or that the rule is kept."""

    check: Check
    severity: Severity
    found: str


def run_checks(evidence: Evidence) -> tuple[EdgeFinding, ...]:
    """Every finding in the order of the table; a check without one is a line that says so."""
    findings: list[EdgeFinding] = []
    for check in CHECKS:
        found = [
            EdgeFinding(
                check, check.severity if each.severity is None else each.severity, each.text
            )
            for each in check.find(evidence)
        ]
        findings += found or [EdgeFinding(check, Severity.FINE, check.expected)]
    return tuple(findings)


def _answers(evidence: Evidence) -> Iterator[Found]:
    for reply in evidence.timestamp[:1]:
        if reply.status != _OK:
            yield Found(f"timestamp.json: {_told(reply)}")
        elif is_web_page(reply.headers.get("content-type"), reply.body):
            yield Found("timestamp.json: a web page")
    for path, reply in evidence.immutable.items():
        if reply.status not in {_OK, _PART}:
            yield Found(f"{path}: {_told(reply)}")


def _told(reply: Reply) -> str:
    where = reply.headers.get("location")
    return f"{reply.told}, to {where[:100]}" if where else reply.told


def _timestamp_lifetime(evidence: Evidence) -> Iterator[Found]:
    for reply in evidence.timestamp[:1]:
        if reply.status != _OK:
            return
        kept = cache_headers.lifetimes(reply.headers)
        if kept is None:
            yield Found("timestamp.json says nothing about caches: each keeps it as it likes")
        elif max(kept) > _KEPT:
            yield Found(f"timestamp.json may be kept for {max(kept)} s")


def _timestamp_age(evidence: Evidence) -> Iterator[Found]:
    oldest = max(evidence.timestamp, key=lambda reply: cache_headers.age(reply.headers))
    if (age := cache_headers.age(oldest.headers)) > _KEPT:
        yield Found(f"timestamp.json is {age} s old ({cache_headers.shown(oldest.headers)})")
    elif late := [each for each in evidence.timestamp if cache_headers.stale(each.headers)]:
        told = cache_headers.shown(late[0].headers)
        yield Found(f"a cache served timestamp.json past its time ({told})", Severity.WARNING)


def _origin(evidence: Evidence) -> Iterator[Found]:
    reply = evidence.timestamp[-1]
    if reply.status != _OK:
        return
    if evidence.origin is None:
        why = evidence.origin_trouble
        yield Found(f"the storage could not be asked from here: {why}", Severity.WARNING)
        return
    if reply.body == evidence.origin:
        return
    here, there = _version(reply.body), _version(evidence.origin)
    if here is None or there is None:
        yield Found("another timestamp.json than the storage has, and no version can be read")
    elif here > there:
        yield Found(f"timestamp {here}, the storage has {there}")
    elif here == there:
        yield Found(f"timestamp {here} with other bytes than the storage has")
    else:
        # Within a minute of a publish that is what caches are for.
        fresh = _published(evidence.origin, evidence.now) <= _KEPT
        text = f"timestamp {here}, the storage has {there}"
        yield (
            Found(f"{text} since less than {_KEPT} s: ask again", Severity.WARNING)
            if fresh
            else Found(text)
        )


def _version(data: bytes) -> int | None:
    try:
        return int(json.loads(data)["signed"]["version"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _published(data: bytes, now: datetime) -> float:
    """Seconds since it was made, by its own word; many if it does not say."""
    issued = json.loads(data)["signed"].get("x-firmroot-issued")
    text = f"{now:%Y-%m-%dT%H:%M:%SZ}"
    if not isinstance(issued, str) or issued > text:
        return float("inf")
    made = type(now).fromisoformat(issued)
    return (now - made).total_seconds()


def _immutable(evidence: Evidence) -> Iterator[Found]:
    for path, reply in evidence.immutable.items():
        if reply.status not in {_OK, _PART}:
            continue
        kept = cache_headers.lifetimes(reply.headers)
        if kept is None:
            yield Found(f"{path}: nothing about caches")
        elif min(kept) < YEAR:
            yield Found(f"{path}: may be kept for {min(kept)} s")


def _absent(evidence: Evidence) -> Iterator[Found]:
    path, (reply, _) = evidence.absent
    if reply.status == _FORBIDDEN:
        text = f"{path} is answered with status 403"
        yield Found(f"{text}: a device cannot tell that from a refusal", Severity.WARNING)
    elif reply.status != _GONE:
        yield Found(f"{path}, which does not exist: {_told(reply)}")


def _errors_kept(evidence: Evidence) -> Iterator[Found]:
    path, replies = evidence.absent
    first, again = replies
    if not _is_error(first) or not _is_error(again):
        return
    kept = cache_headers.lifetimes(first.headers)
    if cache_headers.hit(again.headers):
        yield Found(f"{path}: a cache remembered that ({cache_headers.shown(again.headers)})")
    elif kept is None:
        text = f"{path}: status {first.status} says nothing about caches, each may remember it"
        yield Found(text, Severity.WARNING)
    elif max(kept) > 0:
        yield Found(f"{path}: status {first.status} may be kept for {max(kept)} s")


def _is_error(reply: Reply) -> bool:
    return reply.status >= 400  # noqa: PLR2004 # errors by RFC 9110


def _range(evidence: Evidence) -> Iterator[Found]:
    if (part := evidence.part) is None:
        yield Found("no artifact is live that a part could be asked of", Severity.FINE)
        return
    for first, reply in ((0, part.first), (part.size // 2, part.second)):
        if reply.status in {_UNAUTHORISED, _FORBIDDEN}:
            text = f"{part.path}: {reply.told}; if it needs credentials, give --credentials FILE"
            yield Found(text)
            return
        if reply.status == _OK:
            text = f"{part.path}: bytes {first}-{first + part.size - 1} were asked for, all came"
            yield Found(text, Severity.WARNING)
            return
        if reply.status != _PART:
            yield Found(f"{part.path}: {_told(reply)} for a range")
            return
        said = reply.headers.get("content-range", "")
        if content_start(said) != first or len(reply.body) != part.size or not reply.whole:
            text = f"bytes {first}-{first + part.size - 1}, and {said or 'an unnamed part'} came"
            yield Found(f"{part.path}: asked for {text}")
            return
        if (total := said.rpartition("/")[2]) not in {str(part.length), "*"}:
            text = f"{total} bytes by its Content-Range, {part.length} were signed"
            yield Found(f"{part.path}: {text}")
            return
    half = part.size // 2
    if part.first.body[half:] != part.second.body[: part.size - half]:
        yield Found(f"{part.path}: two ranges that overlap differ")


def _gzip(evidence: Evidence) -> Iterator[Found]:
    for path, (plain, packed) in evidence.packed.items():
        if plain.status != _OK or packed.status != _OK:
            continue
        if (coding := _coding(plain)) != "identity":
            yield Found(f"{path}: came as {coding}, and nobody asked for that")
            continue
        coding = _coding(packed)
        if coding == "identity":
            continue
        if coding not in {"gzip", "x-gzip"}:
            yield Found(f"{path}: gzip was asked for, {coding[:40]} came")
            continue
        try:
            data = gzip.decompress(packed.body)
        except (OSError, EOFError, zlib.error) as error:
            yield Found(f"{path}: what came as gzip is none: {error}")
            continue
        if data != plain.body and not path.endswith("timestamp.json"):
            yield Found(f"{path}: the gzip holds other bytes than come without")
        if "accept-encoding" not in packed.headers.get("vary", "").lower():
            text = f"{path}: gzip without Vary: Accept-Encoding"
            yield Found(f"{text}; a cache may give it to who did not ask", Severity.WARNING)


def _coding(reply: Reply) -> str:
    return reply.headers.get("content-encoding", "identity").strip().lower()


def _etag(evidence: Evidence) -> Iterator[Found]:
    reply, unchanged = evidence.revalidated
    if reply.status != _OK:
        return
    if unchanged is None:
        etag = reply.headers.get("etag")
        shown = f"the ETag {etag[:60]}" if etag else "no ETag"
        yield Found(f"timestamp.json has {shown}, which no device sends back")
    elif unchanged.status == _OK:
        if unchanged.body == reply.body:
            yield Found("timestamp.json was sent again, whole, to who had it")
    elif unchanged.status != _UNCHANGED:
        yield Found(f"who has timestamp.json and asks: {_told(unchanged)}", Severity.ERROR)


def _public(evidence: Evidence) -> Iterator[Found]:
    for path, reply in evidence.public.items():
        if reply.status in {_UNAUTHORISED, _FORBIDDEN}:
            yield Found(f"{path}: status {reply.status} to who says nothing about itself")


def _plain_http(evidence: Evidence) -> Iterator[Found]:
    reply = evidence.plain
    if reply.status in _REDIRECTS:
        yield Found(f"plain HTTP is answered with {_told(reply)}")
    elif reply.status != _OK:
        yield Found(f"plain HTTP: {_told(reply)}")
    elif _version(reply.body) is None:
        yield Found("plain HTTP: what comes as timestamp.json is no metadata")


def _inbox(evidence: Evidence) -> Iterator[Found]:
    for path, reply in evidence.inbox.items():
        if reply.status in {_OK, _PART}:
            yield Found(f"{path} is served to everybody")
    if all(path.endswith("/") for path in evidence.inbox):
        text = "inbox/ itself is not served; nothing is known to lie in it that could be asked for"
        yield Found(text, Severity.FINE)


def _listing(evidence: Evidence) -> Iterator[Found]:
    if evidence.top.status == _OK and b"<ListBucketResult" in evidence.top.body:
        yield Found("the top of the mirror lists the bucket")


def _cookies(evidence: Evidence) -> Iterator[Found]:
    replies = (*evidence.timestamp, evidence.absent[1][0], *evidence.immutable.values())
    if any("set-cookie" in reply.headers for reply in replies):
        yield Found("answers come with Set-Cookie")


def _certificate(evidence: Evidence) -> Iterator[Found]:
    if (shown := evidence.certificate) is None:
        yield Found("this mirror is plain HTTP by its URL: there is none", Severity.FINE)
        return
    if shown.distrust:
        yield Found(shown.distrust)
    if shown.ends is None:
        return
    days = (shown.ends - evidence.now).days
    if days < MARGIN_DAYS:
        text = f"the certificate ends {shown.ends:%Y-%m-%dT%H:%M:%SZ}, in {days} days"
        yield Found(text, Severity.WARNING)


def _of(*rules: str) -> Callable[[Evidence], Iterator[Found]]:
    """What the audit found by these rules; without any it did not get that far."""

    def find(evidence: Evidence) -> Iterator[Found]:
        for each in evidence.audited:
            if each.rule in rules:
                yield Found(f"{each.subject}: {each.detail}", each.severity)

    return find


_HEADERS = "see docs/serving.md for a configuration of nginx and of CloudFront that does"

CHECKS: tuple[Check, ...] = (
    Check(
        "answers",
        Severity.ERROR,
        "What is live is answered with status 200, where it was asked for.",
        "A device takes any other answer for a mirror that failed, and follows redirects only to "
        "mirrors that it is configured with.",
        "point the mirror to the storage itself; no redirects, no login, no page for errors",
        _answers,
    ),
    Check(
        "certificate",
        Severity.ERROR,
        f"Verified TLS works, and the certificate is good for {MARGIN_DAYS} days more.",
        "Devices go on over degraded transport, without credentials: no artifacts that need them.",
        "renew the certificate and send its whole chain; --ca-bundle FILE for an authority of your "
        "own",
        _certificate,
    ),
    Check(
        "plain-http",
        Severity.ERROR,
        "Plain HTTP on the default port gives the same objects, without a redirect to https.",
        "A device with a dead CA bundle or a clock of 1970 has no other way to the next bundle.",
        "serve port 80 as well, with the same content; switch the redirect to https off",
        _plain_http,
    ),
    Check(
        "timestamp-lifetime",
        Severity.ERROR,
        f"timestamp.json may be kept for {_KEPT} s at most.",
        "It is the only object that changes: until a cache asks again, devices see no update and "
        "no hold.",
        f"send Cache-Control: max-age={_KEPT} with timestamp.json, whatever the CDN's own rules "
        f"are; {_HEADERS}",
        _timestamp_lifetime,
    ),
    Check(
        "timestamp-age",
        Severity.ERROR,
        f"timestamp.json comes from a cache that asked within {_KEPT} s.",
        "A cache that ignores what the origin says, or serves what is past its time.",
        "find the cache that the headers name; let it obey Cache-Control and serve nothing stale",
        _timestamp_age,
    ),
    Check(
        "origin",
        Severity.ERROR,
        "timestamp.json is the one that the storage has.",
        "Devices behind this mirror stand still, or see another repository.",
        "invalidate timestamp.json at the CDN, and correct what made it stay; if the mirror is "
        "newer than the storage, find out who writes there",
        _origin,
    ),
    Check(
        "immutable",
        Severity.WARNING,
        "Objects with a version or a hash in their name may be kept for a year.",
        "They never change; what is not kept is paid for again and again.",
        f"send Cache-Control: public, max-age={YEAR}, immutable with them; {_HEADERS}",
        _immutable,
    ),
    Check(
        "absent",
        Severity.ERROR,
        "What does not exist is answered with status 404.",
        "Every check asks for a root that does not exist yet. A 403 is taken for that, with a "
        "warning on each device; anything else is a mirror that failed.",
        "allow s3:ListBucket to who reads for the CDN (S3 says 403 to all others); no page of your "
        "own for 404",
        _absent,
    ),
    Check(
        "errors-kept",
        Severity.ERROR,
        "What is not there is not remembered by any cache.",
        "The next root is asked for before it exists: a cache that remembers hides it afterwards.",
        "send Cache-Control: no-store with every error; CloudFront: custom error responses with an "
        f"error caching minimum TTL of 0; {_HEADERS}",
        _errors_kept,
    ),
    Check(
        "range",
        Severity.ERROR,
        "A part of an artifact is answered with status 206 and exactly that part.",
        "A download that broke off goes on from there, and several mirrors serve one artifact.",
        "let the CDN pass on or make ranges, without compression of artifacts",
        _range,
    ),
    Check(
        "gzip",
        Severity.ERROR,
        "Metadata are compressed only for who asks for gzip, and hold the same bytes.",
        "A device that did not ask takes compressed bytes for metadata, and does not trust them.",
        "gzip alone, and Vary: Accept-Encoding; or no compression",
        _gzip,
    ),
    Check(
        "etag",
        Severity.WARNING,
        "timestamp.json has a strong ETag, and who has it is answered with status 304.",
        "Otherwise each check of each device costs a body.",
        "keep the ETag of the storage; nginx makes it weak where it compresses: not timestamp.json",
        _etag,
    ),
    Check(
        "public",
        Severity.ERROR,
        "Metadata and trust/ are there for everybody, without credentials or a user agent.",
        "Over degraded transport a device says nothing about itself; trust/ is what mends its TLS.",
        "ask for credentials below targets/builds/ only; no rule against requests without a user "
        "agent",
        _public,
    ),
    Check(
        "inbox",
        Severity.ERROR,
        "inbox/ is not served.",
        "Work that nobody has verified, and artifacts before their release, would be public.",
        "serve metadata/ and targets/ only",
        _inbox,
    ),
    Check(
        "listing",
        Severity.WARNING,
        "Nobody can list what is there.",
        "A list names what is not released yet.",
        "let the CDN alone read the bucket, and serve metadata/ and targets/ only",
        _listing,
    ),
    Check(
        "cookies",
        Severity.WARNING,
        "No answer sets a cookie.",
        "Devices send none back; many caches keep nothing that sets one.",
        "switch off what sets it: sessions, a bot filter, a load balancer that wants to know its "
        "clients",
        _cookies,
    ),
    Check(
        "device",
        Severity.ERROR,
        "A device of every export follows, with a good clock and with one that says 1970.",
        "That is what the mirror is for.",
        "firmroot verify says whether the storage has it too; then it is the CDN's",
        _of("device"),
    ),
    Check(
        "metadata",
        Severity.ERROR,
        "Every role verifies, from the root of the workspace down.",
        "Bytes that do not verify are discarded by each device, and the mirror is given up.",
        "compare with firmroot verify; invalidate at the CDN what differs",
        _of("metadata", "guards", "manifests"),
    ),
    Check(
        "root-chain",
        Severity.ERROR,
        "Every root there ever was is served, and its bundle; no root is marked LAB.",
        "A device from the shelf walks from its factory root to the newest, version by version.",
        "restore a root from metadata/root/ of the workspace; the next publish adds a bundle; a "
        "lab is for trying out",
        _of("root-chain"),
    ),
    Check(
        "hints",
        Severity.ERROR,
        "The timestamp says what is true: when it was issued, and the newest root.",
        "Devices take the first for a lower bound of the time.",
        "firmroot refresh, on a machine whose clock is right",
        _of("hints"),
    ),
    Check(
        "expiry",
        Severity.ERROR,
        "Nothing has expired, and nothing is due to be signed again.",
        "A device refuses what has expired, and looks no further on this mirror.",
        "firmroot refresh for timestamp and snapshot; for the others: firmroot status",
        _of("expiry"),
    ),
    Check(
        "targets",
        Severity.ERROR,
        "Each target that was read has the bytes that were signed.",
        "A device discards the segment, and tries the next mirror.",
        "invalidate it at the CDN; if the storage has it wrong too, restore it from a mirror",
        _of("targets"),
    ),
)
