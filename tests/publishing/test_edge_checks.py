"""What is found in what was observed at a mirror: pure, one row for each difference."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from repo_tools.publishing import verify
from repo_tools.publishing.edge_checks import (
    CHECKS,
    MARGIN_DAYS,
    YEAR,
    Certificate,
    Evidence,
    Part,
    run_checks,
)
from repo_tools.publishing.probe import Reply
from repo_tools.publishing.verify import Severity
from tests.publishing.lab import NOW

if TYPE_CHECKING:
    from collections.abc import Callable

ERROR, WARNING, FINE = Severity.ERROR, Severity.WARNING, Severity.FINE


def _stamp(version: int = 3, issued: object = f"{NOW:%Y-%m-%dT%H:%M:%SZ}") -> bytes:
    return json.dumps({"signed": {"version": version, "x-firmroot-issued": issued}}).encode()


STAMP = Reply(200, {"cache-control": "max-age=60", "etag": '"1"'}, _stamp())
FOREVER = Reply(206, {"cache-control": f"max-age={YEAR}"}, b"{")
GONE = Reply(404, {"cache-control": "no-store"})
ROLE = Reply(200, {}, b'{"signed": {}}')
PACKED = Reply(
    200, {"content-encoding": "gzip", "vary": "Accept-Encoding"}, gzip.compress(ROLE.body)
)
PART = Part(
    "targets/a.img",
    64,
    Reply(206, {"content-range": "bytes 0-15/64"}, bytes(range(16))),
    Reply(206, {"content-range": "bytes 8-23/64"}, bytes(range(8, 24))),
    16,
)
GOOD = Evidence(
    now=NOW,
    timestamp=(STAMP, STAMP),
    packed={"metadata/timestamp.json": (STAMP, STAMP), "metadata/1.targets.json": (ROLE, PACKED)},
    revalidated=(STAMP, Reply(304)),
    origin=STAMP.body,
    origin_trouble="",
    absent=("metadata/2.root.json", (GONE, GONE)),
    immutable={"metadata/1.targets.json": FOREVER, "targets/a.img": replace(FOREVER, status=200)},
    public={"metadata/timestamp.json": STAMP},
    plain=STAMP,
    part=PART,
    inbox={"inbox/": GONE, "inbox/one.json": GONE},
    top=Reply(404),
    certificate=Certificate(NOW + timedelta(days=MARGIN_DAYS), ""),
)


def _said(reply: Reply, **headers: str) -> Reply:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return replace(reply, headers={**reply.headers, **names})


def _bare(reply: Reply, name: str) -> Reply:
    return replace(reply, headers={k: v for k, v in reply.headers.items() if k != name})


def _stamps(first: Reply, again: Reply = STAMP) -> Evidence:
    return replace(GOOD, timestamp=(first, again))


def _absent(first: Reply, again: Reply = GONE) -> Evidence:
    return replace(GOOD, absent=("metadata/2.root.json", (first, again)))


def _kept(reply: Reply) -> Evidence:
    return replace(GOOD, immutable={"targets/a.img": reply})


def _parts(change: Callable[[Reply], Reply], *, second: bool = False) -> Evidence:
    changed = (
        replace(PART, second=change(PART.second))
        if second
        else replace(PART, first=change(PART.first))
    )
    return replace(GOOD, part=changed)


def _zipped(path: str, plain: Reply, packed: Reply) -> Evidence:
    return replace(GOOD, packed={path: (plain, packed)})


def _older(seconds: int, issued: object = None) -> Evidence:
    """The storage has the next timestamp since then."""
    made = NOW - timedelta(seconds=seconds)
    text = f"{made:%Y-%m-%dT%H:%M:%SZ}" if issued is None else issued
    return replace(GOOD, origin=_stamp(4, text))


SNAPSHOT = "metadata/1.snapshot.json"
MOVED = Reply(301, {"location": "https://elsewhere/"})
OF = "timestamp.json"
ROWS: dict[str, tuple[Evidence, set[tuple[str, Severity, str]]]] = {
    "a good mirror": (GOOD, set()),
    # answers
    "a timestamp that is elsewhere": (
        _stamps(MOVED),
        {("answers", ERROR, f"{OF}: status 301, to https://elsewhere/")},
    ),
    "a timestamp that does not come": (
        _stamps(Reply(0, trouble="nobody listens")),
        {("answers", ERROR, f"{OF}: nobody listens")},
    ),
    "a web page": (
        _stamps(_said(STAMP, content_type="text/html")),
        {("answers", ERROR, f"{OF}: a web page")},
    ),
    "an object that fails": (
        _kept(Reply(503)),
        {("answers", ERROR, "targets/a.img: status 503")},
    ),
    # timestamp-lifetime
    "a timestamp that is kept a second too long": (
        _stamps(_said(STAMP, cache_control="max-age=61")),
        {("timestamp-lifetime", ERROR, f"{OF} may be kept for 61 s")},
    ),
    "a timestamp that shared caches keep too long": (
        _stamps(_said(STAMP, cache_control="max-age=1, s-maxage=61")),
        {("timestamp-lifetime", ERROR, f"{OF} may be kept for 61 s")},
    ),
    "a timestamp without a word about caches": (
        _stamps(_bare(STAMP, "cache-control")),
        {("timestamp-lifetime", ERROR, (f"{OF} says nothing about caches: each keeps it as it "
          "likes"))},
    ),
    # timestamp-age
    "a timestamp of a minute": (_stamps(_said(STAMP, age="60")), set()),
    "a timestamp of more than a minute": (
        _stamps(STAMP, _said(STAMP, age="61")),
        {("timestamp-age", ERROR, f"{OF} is 61 s old (age: 61)")},
    ),
    "a timestamp past its time": (
        _stamps(STAMP, _said(STAMP, x_cache="STALE")),
        {("timestamp-age", WARNING, f"a cache served {OF} past its time (x-cache: STALE)")},
    ),
    # origin
    "the second timestamp fails": (_stamps(STAMP, Reply(503)), set()),
    "a storage that cannot be asked": (
        replace(GOOD, origin=None, origin_trouble="no bucket"),
        {("origin", WARNING, "the storage could not be asked from here: no bucket")},
    ),
    "a storage with what is no metadata": (
        replace(GOOD, origin=b"?"),
        {("origin", ERROR, f"another {OF} than the storage has, and no version can be read")},
    ),
    "a mirror with what is no metadata": (
        _stamps(STAMP, replace(STAMP, body=b"{}")),
        {("origin", ERROR, f"another {OF} than the storage has, and no version can be read")},
    ),
    "a mirror that is ahead": (
        replace(GOOD, origin=_stamp(2)),
        {("origin", ERROR, "timestamp 3, the storage has 2")},
    ),
    "a mirror with another one": (
        replace(GOOD, origin=_stamp(3, "else")),
        {("origin", ERROR, "timestamp 3 with other bytes than the storage has")},
    ),
    "a mirror that is behind since a minute": (
        _older(60),
        {("origin", WARNING, "timestamp 3, the storage has 4 since less than 60 s: ask again")},
    ),
    "a mirror that is behind since now": (
        _older(0),
        {("origin", WARNING, "timestamp 3, the storage has 4 since less than 60 s: ask again")},
    ),
    "a mirror that is behind since longer": (
        _older(61),
        {("origin", ERROR, "timestamp 3, the storage has 4")},
    ),
    "a mirror that is behind, and nobody says since when": (
        _older(0, 5),
        {("origin", ERROR, "timestamp 3, the storage has 4")},
    ),
    "a mirror that is behind what is still to come": (
        _older(-1),
        {("origin", ERROR, "timestamp 3, the storage has 4")},
    ),
    # immutable
    "an object that is kept less than a year": (
        _kept(_said(FOREVER, cache_control=f"max-age={YEAR - 1}")),
        {("immutable", WARNING, f"targets/a.img: may be kept for {YEAR - 1} s")},
    ),
    "an object that shared caches keep less": (
        _kept(_said(FOREVER, cache_control=f"max-age={YEAR}, s-maxage=5")),
        {("immutable", WARNING, "targets/a.img: may be kept for 5 s")},
    ),
    "an object without a word about caches": (
        _kept(_bare(FOREVER, "cache-control")),
        {("immutable", WARNING, "targets/a.img: nothing about caches")},
    ),
    # absent, errors-kept
    "403 for what is not there": (
        _absent(replace(GONE, status=403)),
        {("absent", WARNING, ("metadata/2.root.json is answered with status 403: a device cannot "
          "tell that from a refusal"))},
    ),
    "a bad request for what is not there": (
        _absent(replace(GONE, status=400), _said(replace(GONE, status=400), age="1")),
        {
            ("absent", ERROR, "metadata/2.root.json, which does not exist: status 400"),
            ("errors-kept", ERROR, "metadata/2.root.json: a cache remembered that (age: 1)"),
        },
    ),
    "a page for what is not there": (
        _absent(replace(STAMP, headers={})),
        {("absent", ERROR, "metadata/2.root.json, which does not exist: status 200")},
    ),
    "what is not there until it is": (
        _absent(_bare(GONE, "cache-control"), _said(STAMP, age="1")), set()
    ),
    "an error that says nothing": (
        _absent(_bare(GONE, "cache-control")),
        {("errors-kept", WARNING, ("metadata/2.root.json: status 404 says nothing about caches, "
          "each may remember it"))},
    ),
    "an error that may be kept a second": (
        _absent(_said(GONE, cache_control="max-age=1")),
        {("errors-kept", ERROR, "metadata/2.root.json: status 404 may be kept for 1 s")},
    ),
    # range
    "no artifact": (
        replace(GOOD, part=None),
        {("range", FINE, "no artifact is live that a part could be asked of")},
    ),
    "artifacts for those who are known": (
        _parts(lambda _: Reply(401)),
        {("range", ERROR, ("targets/a.img: status 401; if it needs credentials, give --credentials "
          "FILE"))},
    ),
    "a refusal at the second part": (
        _parts(lambda _: Reply(403), second=True),
        {("range", ERROR, ("targets/a.img: status 403; if it needs credentials, give --credentials "
          "FILE"))},
    ),
    "all instead of a part": (
        _parts(lambda reply: replace(reply, status=200), second=True),
        {("range", WARNING, "targets/a.img: bytes 8-23 were asked for, all came")},
    ),
    "no part": (
        _parts(lambda _: Reply(416)),
        {("range", ERROR, "targets/a.img: status 416 for a range")},
    ),
    "another part": (
        _parts(lambda reply: _said(reply, content_range="bytes 5-20/64")),
        {("range", ERROR, "targets/a.img: asked for bytes 0-15, and bytes 5-20/64 came")},
    ),
    "a part that says nothing": (
        _parts(lambda reply: _bare(reply, "content-range")),
        {("range", ERROR, "targets/a.img: asked for bytes 0-15, and an unnamed part came")},
    ),
    "a part that ends early": (
        _parts(lambda reply: replace(reply, body=reply.body[:-1])),
        {("range", ERROR, "targets/a.img: asked for bytes 0-15, and bytes 0-15/64 came")},
    ),
    "a part that goes on": (
        _parts(lambda reply: replace(reply, whole=False)),
        {("range", ERROR, "targets/a.img: asked for bytes 0-15, and bytes 0-15/64 came")},
    ),
    "a part of a length that nobody says": (
        _parts(lambda reply: _said(reply, content_range="bytes 0-15/*")), set()
    ),
    "a part of another length": (
        _parts(lambda reply: _said(reply, content_range="bytes 0-15/63")),
        {("range", ERROR, "targets/a.img: 63 bytes by its Content-Range, 64 were signed")},
    ),
    "parts that differ": (
        _parts(lambda reply: replace(reply, body=bytes(16))),
        {("range", ERROR, "targets/a.img: two ranges that overlap differ")},
    ),
    # gzip
    "gzip of what fails without": (_zipped(SNAPSHOT, Reply(503), PACKED), set()),
    "gzip that fails": (_zipped(SNAPSHOT, _said(ROLE, content_encoding="br"), Reply(503)), set()),
    "gzip for who did not ask": (
        _zipped(SNAPSHOT, PACKED, PACKED),
        {("gzip", ERROR, f"{SNAPSHOT}: came as gzip, and nobody asked for that")},
    ),
    "no gzip": (_zipped(SNAPSHOT, ROLE, ROLE), set()),
    "gzip by its old name": (
        _zipped(SNAPSHOT, ROLE, _said(PACKED, content_encoding=" X-GZIP")), set()
    ),
    "another coding": (
        _zipped(SNAPSHOT, ROLE, _said(PACKED, content_encoding="br")),
        {("gzip", ERROR, f"{SNAPSHOT}: gzip was asked for, br came")},
    ),
    "gzip that is none": (
        _zipped(SNAPSHOT, ROLE, replace(PACKED, body=b"no")),
        {("gzip", ERROR, f"{SNAPSHOT}: what came as gzip is none: Not a gzipped file (b'no')")},
    ),
    "gzip of other bytes": (
        _zipped(SNAPSHOT, ROLE, replace(PACKED, body=gzip.compress(b"{}"))),
        {("gzip", ERROR, f"{SNAPSHOT}: the gzip holds other bytes than come without")},
    ),
    "gzip of a timestamp that moved on between the two": (
        _zipped("metadata/timestamp.json", ROLE, replace(PACKED, body=gzip.compress(b"{}"))),
        set(),
    ),
    "gzip that caches give to all": (
        _zipped(SNAPSHOT, ROLE, _bare(PACKED, "vary")),
        {("gzip", WARNING, (f"{SNAPSHOT}: gzip without Vary: Accept-Encoding; a cache may give it "
          "to who did not ask"))},
    ),
    # etag
    "a question that is not answered": (
        replace(GOOD, revalidated=(Reply(503, {}, STAMP.body), None)), set()
    ),
    "no ETag": (
        replace(GOOD, revalidated=(_bare(STAMP, "etag"), None)),
        {("etag", WARNING, f"{OF} has no ETag, which no device sends back")},
    ),
    "a weak ETag": (
        replace(GOOD, revalidated=(_said(STAMP, etag='W/"1"'), None)),
        {("etag", WARNING, f'{OF} has the ETag W/"1", which no device sends back')},
    ),
    "the same again": (
        replace(GOOD, revalidated=(STAMP, STAMP)),
        {("etag", WARNING, f"{OF} was sent again, whole, to who had it")},
    ),
    "the next one meanwhile": (
        replace(GOOD, revalidated=(STAMP, replace(STAMP, body=_stamp(4)))), set()
    ),
    "a question that fails": (
        replace(GOOD, revalidated=(STAMP, Reply(412))),
        {("etag", ERROR, f"who has {OF} and asks: status 412")},
    ),
    # public, plain-http
    "metadata for those who are known": (
        replace(GOOD, public={"metadata/timestamp.json": Reply(401), "metadata/2.x": Reply(404)}),
        {("public", ERROR, "metadata/timestamp.json: status 401 to who says nothing about itself")},
    ),
    "plain HTTP that leads on": (
        replace(GOOD, plain=MOVED),
        {("plain-http", ERROR, "plain HTTP is answered with status 301, to https://elsewhere/")},
    ),
    "no plain HTTP": (
        replace(GOOD, plain=Reply(0, trouble="nobody listens")),
        {("plain-http", ERROR, "plain HTTP: nobody listens")},
    ),
    "plain HTTP for something else": (
        replace(GOOD, plain=replace(STAMP, body=b"welcome")),
        {("plain-http", ERROR, f"plain HTTP: what comes as {OF} is no metadata")},
    ),
    # inbox, listing, cookies
    "an inbox for everybody": (
        replace(GOOD, inbox={"inbox/": GONE, "inbox/one.json": Reply(206)}),
        {("inbox", ERROR, "inbox/one.json is served to everybody")},
    ),
    "an inbox of which nothing is known": (
        replace(GOOD, inbox={"inbox/": GONE}),
        {("inbox", FINE, ("inbox/ itself is not served; nothing is known to lie in it that could "
          "be asked for"))},
    ),
    "a list": (
        replace(GOOD, top=Reply(200, {}, b"<?xml?><ListBucketResult>")),
        {("listing", WARNING, "the top of the mirror lists the bucket")},
    ),
    "a list in a refusal": (
        replace(GOOD, top=Reply(403, {}, b"<?xml?><ListBucketResult>")), set()
    ),
    "a page of welcome": (replace(GOOD, top=Reply(200, {}, b"welcome")), set()),
    "a cookie": (
        _kept(_said(FOREVER, set_cookie="id=1")),
        {("cookies", WARNING, "answers come with Set-Cookie")},
    ),
    # certificate
    "no TLS": (
        replace(GOOD, certificate=None),
        {("certificate", FINE, "this mirror is plain HTTP by its URL: there is none")},
    ),
    "a certificate of nobody": (
        replace(GOOD, certificate=Certificate(None, "self-signed")),
        {("certificate", ERROR, "self-signed")},
    ),
    "a certificate that ends soon": (
        replace(GOOD, certificate=Certificate(NOW + timedelta(days=20, hours=23), "")),
        {("certificate", WARNING, "the certificate ends 2026-03-23T05:00:00Z, in 20 days")},
    ),
    # what the audit found
    "what has expired": (
        replace(GOOD, audited=(verify.Finding(WARNING, "snapshot", "is due", "expiry"),)),
        {("expiry", WARNING, "snapshot: is due")},
    ),
    "what has no rule here": (
        replace(GOOD, audited=(verify.Finding(ERROR, "x", "y", "something else"),)), set()
    ),
}  # fmt: skip


def _groups() -> dict[str, list[str]]:
    """The rows by what they trip: few tests, so that each mutant can be shown to all of them."""
    found: dict[str, list[str]] = {}
    for case, (_, expected) in ROWS.items():
        found.setdefault(min((check for check, *_ in expected), default="nothing"), []).append(case)
    return found


@pytest.mark.parametrize("group", _groups())
def test_it_is_found(group: str) -> None:
    kept = {(each.id, FINE, each.expected) for each in CHECKS}
    for case in _groups()[group]:
        evidence, expected = ROWS[case]
        found = [(each.check.id, each.severity, each.found) for each in run_checks(evidence)]
        assert set(found) - kept == expected, case
        tripped = {check for check, _, _ in expected}
        fine = {check for check, *_ in set(found) & kept}
        assert fine == {each.id for each in CHECKS} - tripped, case
        assert [check for check, *_ in found] == [each.id for each in CHECKS], "in order, once"
