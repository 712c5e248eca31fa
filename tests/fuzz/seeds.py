"""The seeds: honest files of the simulated repository, and hostile ones made by hand.

`python -m tests.fuzz.seeds` writes them into `corpus/`; other files there are left alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from client_reference import manifest, strictjson
from client_reference.trust import rootchain
from client_reference.trust.known_answers import ANSWERS
from tests.fuzz import CORPUS, SEPARATOR, TARGETS, memory, uptime
from tests.fuzz.honest import BUILDS, LEAF, MEANING, anchor, repository

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KINDS = {"root": 0, "timestamp": 1, "snapshot": 2, "targets": 3}
AS_IT_IS, ONE, TWO = 0, 2 << 2, 3 << 2
DELEGATED, BUILT = 1 << 4, 2 << 4
SHA = "3b1f" * 16
BOMB = base64.b64decode(
    "H4sIAAAAAAACA+3BMQEAAADCoPVPbQ0PoAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    "AIBXA32VEdSghgEA"
)
"""100,000 zeros. As it stands: another zlib may compress them in another way."""


def made() -> Mapping[str, Mapping[str, bytes]]:
    """Every seed, by target and name."""
    makers: Mapping[str, Callable[[], dict[str, bytes]]] = {
        "metadata": _metadata,
        "chain": _chain,
        "rootchain": _rootchain,
        "recovery": _recovery,
        "manifest": _manifest,
        "hold": _hold,
        "meaning": _meaning,
        "floors": _floors,
        "segments": _segments,
        "responses": _responses,
        "inflated": _inflated,
        "authorities": _authorities,
        "memory": _memory,
        "uptime": _uptime,
    }
    assert makers.keys() == TARGETS.keys()
    return {name: make() for name, make in makers.items()}


def write() -> None:
    """Into the tree."""
    for target, files in made().items():
        (CORPUS / target).mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (CORPUS / target / name).write_bytes(data)


def _compact(data: bytes | object) -> bytes:
    document = json.loads(data) if isinstance(data, bytes) else data
    return json.dumps(document, separators=(",", ":")).encode()


def _changed(data: bytes, change: Callable[[Any], object]) -> bytes:
    document = json.loads(data)
    change(document["signed"])
    return _compact(document)


def _metadata() -> dict[str, bytes]:
    repo = repository()
    found: dict[str, bytes] = {}
    for role, kind in KINDS.items():
        text = _compact(repo.sign(role))
        found[f"{role}-honest"] = bytes([kind | AS_IT_IS]) + text
        found[f"{role}-signed-by-two"] = bytes([kind | TWO]) + text
    targets, root = _compact(repo.sign("targets")), _compact(repo.sign("root"))
    leaf = _compact(repo.sign(LEAF))
    found["root-as-a-timestamp"] = bytes([1]) + root
    found["targets-signed-by-one"] = bytes([3 | ONE]) + targets
    found["delegated-honest"] = bytes([3 | DELEGATED]) + leaf
    found["delegated-signed-by-two"] = bytes([3 | TWO | DELEGATED]) + leaf
    found["builds-custom"] = bytes([3 | TWO | BUILT]) + _compact(repo.sign(BUILDS))
    for number, ((keytype, scheme), (public, _)) in enumerate(ANSWERS.items()):
        if keytype != "ed25519":
            public = f"-----BEGIN PUBLIC KEY-----\n{public}\n-----END PUBLIC KEY-----\n"  # noqa: PLW2901 # as it stands in metadata
        if keytype in {"rsa", "ml-dsa"} and number:
            public = public[:400]  # noqa: PLW2901 # too short to be a key: small, and hostile
        found[f"root-with-a-key-of-{scheme.replace('/', '-')}"] = bytes([0 | TWO]) + _changed(
            root, partial(_one_more_key, keytype=keytype, scheme=scheme, public=public)
        )
    for name, key in {
        "unknown-type": ("sphincs", "sphincs-shake-128s", "00"),
        "no-hexadecimal": ("ed25519", "ed25519", "zz"),
        "older-spelling": ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256", "-----BEGIN"),
    }.items():
        found[f"root-with-a-key-of-{name}"] = bytes([0 | TWO]) + _changed(
            root, partial(_one_more_key, keytype=key[0], scheme=key[1], public=key[2])
        )
    hostile: dict[str, Callable[[Any], object]] = {
        "bins": lambda s: s.update(delegations=_bins(s)),
        "bins-without-number": lambda s: s["delegations"].update(succinct_roles={}),
        "weak-hash-only": lambda s: s.update(
            targets={"a/b": {"length": 5, "hashes": {"md5": "a"}}}
        ),
        "path-hash-prefixes": lambda s: s["delegations"]["roles"][0].update(
            path_hash_prefixes=["ab"]
        ),
        "threshold-of-zero": lambda s: s["delegations"]["roles"][0].update(threshold=0),
        "year-one": lambda s: s.update(expires="0001-01-01T00:00:00Z"),
        "key-id-twice": lambda s: s["delegations"]["roles"][0]["keyids"].append(
            s["delegations"]["roles"][0]["keyids"][0]
        ),
    }
    for name, change in hostile.items():
        found[f"targets-{name}"] = bytes([3 | TWO]) + _changed(targets, change)
    stamp = _compact(repo.sign("timestamp"))
    for name, issued in {"of-the-far-future": "9999-01-01T00:00:00Z", "no-time": [1]}.items():
        found[f"timestamp-issued-{name}"] = bytes([1 | ONE]) + _changed(
            stamp, partial(_issued, issued=issued)
        )
    found |= {f"text-{name}": bytes([1]) + text for name, text in _strange(stamp).items()}
    return found


def _one_more_key(signed: Any, keytype: str, scheme: str, public: str) -> None:  # noqa: ANN401 # JSON
    keyid = "ab" * 32
    signed["keys"][keyid] = {"keytype": keytype, "scheme": scheme, "keyval": {"public": public}}
    signed["roles"]["root"]["keyids"].append(keyid)


def _issued(signed: Any, issued: object) -> None:  # noqa: ANN401 # JSON
    signed["x-firmroot-issued"] = issued


def _bins(signed: Any) -> dict[str, Any]:  # noqa: ANN401 # JSON
    keyids = list(signed["delegations"]["keys"])
    return {
        "keys": signed["delegations"]["keys"],
        "succinct_roles": {
            "keyids": keyids[:1],
            "threshold": 1,
            "bit_length": 4,
            "name_prefix": "gateway-builds",
        },
    }


def _strange(text: bytes) -> dict[str, bytes]:
    """JSON that two readers may understand differently, or choke on."""
    opened = text.rstrip().removesuffix(b"}")
    return {
        "name-twice": opened + b',"a":1,"a":2}',
        "fraction": opened + b',"a":1.0}',
        "not-a-number": opened + b',"a":NaN}',
        "huge-integer": opened + b',"a":9007199254740992}',
        "endless-integer": opened + b',"a":' + b"9" * 4400 + b"}",
        "negative": opened + b',"a":-1}',
        "deep": b"[" * 1200,
        "deep-and-closed": opened + b',"a":' + b"[" * 70 + b"]" * 70 + b"}",
        "byte-order-mark": b"\xef\xbb\xbf" + text,
        "sixteen-bits": b"\xff\xfe{\x00}\x00",
        "half-a-pair": opened + b',"\\ud800":"\\ud800"}',
        "escape-sequence": opened + b',"\\u001b[2J":"\\u202e"}',
        "long-name": opened + b',"' + b"x" * 2100 + b'":{"a":0.5}}',
        "two-documents": text + text,
        "cut": text[: len(text) // 2],
        "web-page": b"<!doctype html><title>Login</title>",
    }


def _strange_too(document: object) -> dict[str, bytes]:
    """The short ones of `_strange`: the long ones stand where a parser is met first."""
    strange = _strange(_compact(document))
    return {f"text-{name}": text for name, text in strange.items() if len(text) < 1000}


def _chain() -> dict[str, bytes]:
    repo = repository()
    links = [_compact(repo.files[f"metadata/{n}.root.json"]) for n in (2, 3, 4)]
    asis, everybody = bytes([1]), bytes([0b11110])

    def walk(*parts: bytes) -> bytes:
        return SEPARATOR.join(parts)

    other = _changed(links[0], lambda s: s["roles"]["timestamp"].update(threshold=2))
    return {
        "honest": walk(*(asis + link for link in links)),
        "signed-again": walk(*(everybody + link for link in links[:2])),
        "signed-by-one": bytes([2]) + links[0],
        "signed-by-two": walk(bytes([0b110]) + links[0], bytes([0b1100]) + links[1]),
        "same-link-twice": walk(asis + links[0], asis + links[0]),
        "link-left-out": walk(asis + links[0], asis + links[2]),
        "other-threshold": everybody + other,
        "no-role": everybody + _changed(links[0], lambda s: s["roles"].pop("snapshot")),
        "no-key": everybody + _changed(links[0], lambda s: s["keys"].clear()),
        "key-under-two-ids": everybody + _changed(links[0], _second_id),
        "issued-no-time": everybody
        + _changed(links[1], lambda s: s.update({"x-firmroot-issued": {}})),
        "empty-link": walk(asis + links[0], b""),
    }


def _second_id(signed: Any) -> None:  # noqa: ANN401 # JSON
    first = signed["roles"]["root"]["keyids"][0]
    signed["keys"]["cd" * 32] = signed["keys"][first]
    signed["roles"]["root"]["keyids"] = [first, "cd" * 32]


def _rootchain() -> dict[str, bytes]:
    # Nothing here looks into a link: short ones, which fuzzing can change as a whole.
    honest = rootchain.make([b"{}", b'{"a": 1}', b"three"])
    head = b"firmroot-root-chain 1\n"
    return {
        "honest": honest,
        "one": rootchain.make([b"{}"]),
        "later-block": head + b"blocks 64 131\n132 2\n{}\n133 3\n[1]\n",
        "empty-link": head + b"blocks\n1 0\n\n",
        "line-within-a-link": head + b"blocks\n1 9\na\n2 1\nb\n\n\n",
        "no-link": head + b"blocks\n",
        "link-left-out": head + b"blocks\n1 1\na\n3 1\nb\n",
        "blocks-that-fall": head + b"blocks 9 3\n4 1\na\n",
        "blocks-that-stay": head + b"blocks 3 3\n4 1\na\n",
        "leading-zero": head + b"blocks\n01 1\na\n",
        "length-too-long": head + b"blocks\n1 99\na\n",
        "length-too-short": head + b"blocks\n1 1\nabc\n",
        "number-of-many-digits": head + b"blocks " + b"9" * 40 + b"\n1 1\na\n",
        "last-line-cut": honest[:-1],
        "more": honest + b"\n",
        "next-format": honest.replace(b"chain 1", b"chain 2"),
        "nothing": b"",
    }


def _recovery() -> dict[str, bytes]:
    first, second, third = (_compact(link) for link in anchor().links)
    asis, everybody, of_an_image = bytes([1]), bytes([0b11110]), bytes([0b10011110])

    def says(link: bytes, **changes: object) -> bytes:
        return _changed(link, lambda signed: signed["x-firmroot-primary"].update(changes))

    return {
        "honest": SEPARATOR.join((asis + second, asis + third)),
        "signed-again": everybody + second,
        "signed-by-one": bytes([0b10]) + second,
        "of-an-image": of_an_image + first,
        "same-link-twice": SEPARATOR.join((asis + second, asis + second)),
        "link-left-out": asis + third,
        "epoch-left-out": everybody + says(second, epoch=2),
        "epoch-before": SEPARATOR.join((asis + second, everybody + says(third, epoch=0))),
        "forked": SEPARATOR.join((asis + second, everybody + says(third, sha256="00" * 32))),
        "no-statement": of_an_image
        + _changed(first, lambda signed: signed.pop("x-firmroot-primary")),
        "sequences-in-an-array": of_an_image + says(first, minimum_sequence=[]),
    }


def _release(**changes: object) -> dict[str, Any]:
    artifact = {"path": "builds/gateway/3.1.0/gw2.ext4", "length": 335544320, "sha256": SHA}
    delta = {
        "codec": "zstd-segments-1",
        "source": {"length": 314572800, "sha256": SHA},
        "artifact": artifact | {"path": "builds/gateway/3.1.0/gw2.delta"},
    }
    release = {
        "version": "3.1.0",
        "sequence": 47,
        "needs": [],
        "from": {"minimum_sequence": 40},
        "severity": "security",
        "notes": "https://acme.example/n/3.1.0",
        "rollout": {
            "start": "2026-03-02T06:00:00Z",
            "seed": "9f2c61d04ab87e35",
            "paused": False,
            "waves": [
                {"after_hours": 0, "groups": ["pilot"]},
                {"after_hours": 24, "permille": 10},
                {"after_hours": 120, "permille": 1000},
            ],
        },
        "payloads": [
            {
                "hardware": ["acme,gw-2"],
                "handler": "slot",
                "artifact": artifact,
                "deltas": [delta],
            }
        ],
    }
    return release | changes


def _manifest() -> dict[str, bytes]:
    def with_releases(*releases: object, **changes: object) -> bytes:
        return _compact(
            {
                "schema": [1, 0],
                "product": "gateway",
                "channel": "stable",
                "minimum_sequence": 30,
                "releases": list(releases),
                "withdrawn": [],
            }
            | changes
        )

    gone = {"version": "3.0.9", "sequence": 46, "since": "2026-02-20T11:30:00Z", "reason": "hangs"}
    late = _release()["rollout"] | {"start": "9999-12-31T00:00:00Z"}
    honest = with_releases(
        _release(), _release(version="2", sequence=40, stone=True), withdrawn=[gone]
    )
    read = manifest.serialize(manifest.parse(honest))
    return {
        "honest": read,
        "compact": honest,
        "empty": with_releases(),
        "needs-what-nobody-has": with_releases(_release(needs=["delta-7"], payloads=7)),
        "next-schema": with_releases(schema=[2, 0]),
        "next-minor": with_releases(schema=[1, 9], more={}),
        "sequence-twice": with_releases(_release(), _release()),
        "end-of-time": with_releases(_release(rollout=late)),
        "waves-at-once": with_releases(
            _release(
                rollout=_release()["rollout"]
                | {"waves": [{"after_hours": 0, "permille": share} for share in (1, 10, 100, 1000)]}
            )
        ),
        "waves-that-fall": with_releases(
            _release(
                rollout=_release()["rollout"]
                | {"waves": [{"after_hours": 2, "permille": 9}, {"after_hours": 1, "permille": 1}]}
            )
        ),
        "foreign-path": with_releases(
            _release(
                payloads=[
                    {
                        "hardware": ["a"],
                        "handler": "slot",
                        "artifact": {"path": "builds/other/1/../x", "length": 1, "sha256": SHA},
                    }
                ]
            )
        ),
        "release-of-one-field": with_releases({"version": "1", "sequence": 1}),
    } | {f"text-{name}": text for name, text in _strange(with_releases()).items()}


def _hold() -> dict[str, bytes]:
    hold = manifest.Hold("gateway", "stable", frozenset({46, 47}))
    honest = manifest.serialize_hold(hold)
    document = json.loads(honest)
    return {
        "honest": honest,
        "nothing-held": _compact(document | {"sequences": []}),
        "same-twice": _compact(document | {"sequences": [47, 47]}),
        "zero": _compact(document | {"sequences": [0]}),
        "next-schema": _compact(document | {"schema": [2]}),
        "true-for-one": _compact(document | {"schema": [True, 0], "sequences": [True]}),
    } | _strange_too(document)


def _meaning() -> dict[str, bytes]:
    return {
        "honest": _compact(MEANING),
        "nothing": b"null",
        "array": b"[]",
        "more-fields": _compact(MEANING | {"more": [1, {"a": None}]}),
        "hardware-twice": _compact(MEANING | {"hardware": ["a", "a"]}),
        "no-hardware": _compact(MEANING | {"hardware": []}),
        "glob": _compact(MEANING | {"hardware": ["*"]}),
        "sequence-in-words": _compact(MEANING | {"sequence": "47"}),
        "out-of-its-place": b'null}, "b": {"length": 1, "hashes": {"sha256": "a"}, "custom": {}',
    } | _strange_too(MEANING)


def _floors() -> dict[str, bytes]:
    floors: strictjson.Json = {
        "schema": 1,
        "product": "gateway",
        "time": "2031-05-14T12:00:00Z",
        "minimum_sequence": 30,
        "epoch": 0,
    }
    honest = strictjson.serialize(floors)
    document = json.loads(honest)
    return {
        "honest": honest,
        "before-1970": _compact(document | {"time": "0001-01-01T00:00:00Z"}),
        "end-of-time": _compact(document | {"time": "9999-12-31T23:59:59Z"}),
        "leap-second": _compact(document | {"time": "2016-12-31T23:59:60Z"}),
        "next-schema": _compact(document | {"schema": 2}),
        "epoch-of-many-digits": _compact(document | {"epoch": 2**53}),
    } | _strange_too(document)


def _segments() -> dict[str, bytes]:
    def listed(length: int, data: bytes) -> bytes:
        return (length - 1).to_bytes(7, "big") + data

    digest = bytes(range(32))
    return {
        "one": listed(1, digest),
        "exactly-one": listed(2**20, digest),
        "two": listed(2**20 + 1, digest * 2),
        "three": listed(3 * 2**20, digest * 3),
        "one-byte-short": listed(2**20 + 1, digest + digest[:-1]),
        "one-too-many": listed(2**20, digest * 2),
        "none": listed(1, b""),
        "longest": listed(2**53, digest),
    }


def _responses() -> dict[str, bytes]:
    part, endless, drip, two = 1, 2, 4, 8
    body = b'{"signed": {}}'
    image = b"\x42" * 300

    def answer(status: str, *headers: str, text: bytes = b"") -> bytes:
        return "\r\n".join((f"HTTP/1.1 {status}", *headers, "", "")).encode("latin-1") + text

    def chunks(*sizes: tuple[str, bytes]) -> bytes:
        return b"".join(size.encode() + b"\r\n" + data + b"\r\n" for size, data in sizes)

    def to(place: str) -> bytes:
        return answer("302 Found", f"Location: {place}", "Content-Length: 0")

    length, chunked = f"Content-Length: {len(body)}", "Transfer-Encoding: chunked"
    gzip = "Content-Encoding: gzip"
    whole = answer("200 OK", length, text=body)
    ranged = answer(
        "206 Partial Content",
        "Content-Length: 300",
        "Content-Range: bytes 100-399/9000",
        text=image,
    )
    cases: dict[str, tuple[int, bytes]] = {
        "whole": (0, whole),
        "whole-dripped": (drip, whole),
        "until-the-end": (0, answer("200 OK", text=body)),
        "old-protocol": (0, b"HTTP/1.0 200 OK\n\n" + body),
        "chunked": (0, answer("200 OK", chunked, text=chunks(("e", body), ("0", b"")))),
        "chunks": (
            0,
            answer(
                "200 OK", chunked, text=chunks(("7;a=b", body[:7]), ("7", body[7:]), ("0", b""))
            ),
        ),
        "chunk-below-zero": (0, answer("200 OK", chunked, text=chunks(("-2", body)))),
        "chunk-minus-one": (
            part | endless,
            answer("206 P", "Content-Range: bytes 100-/*", chunked, text=b"-1\r\n" + image + b"\n"),
        ),
        "chunk-of-no-number": (0, answer("200 OK", chunked, text=chunks(("zz", body)))),
        "chunk-huge": (0, answer("200 OK", chunked, text=chunks(("f" * 16, body)))),
        "chunk-cut": (0, answer("200 OK", chunked, text=b"ff\r\nabc")),
        "trailers": (
            endless,
            answer("200 OK", chunked, text=b"1\r\na\r\n0\r\nA: b\r\n"),
        ),
        "length-negative": (0, answer("200 OK", "Content-Length: -5", text=body)),
        "length-no-number": (0, answer("200 OK", "Content-Length: 1_0", text=body)),
        "length-endless": (0, answer("200 OK", "Content-Length: " + "9" * 5000, text=body)),
        "length-too-long": (0, answer("200 OK", "Content-Length: 4097", text=body)),
        "cut": (0, answer("200 OK", "Content-Length: 99", text=body)),
        "cut-then-whole": (two, answer("200 OK", "Content-Length: 99") + SEPARATOR + whole),
        "endless-body": (endless, answer("200 OK", text=b"a\n")),
        "endless-headers": (endless, b"HTTP/1.1 200 OK\r\nA: b\r\n"),
        "gzip": (0, answer("200 OK", gzip, text=_gzip(body))),
        "gzip-cut": (0, answer("200 OK", gzip, text=_gzip(body)[:-3])),
        "gzip-of-another-sum": (0, answer("200 OK", gzip, text=_gzip(body)[:-8] + bytes(8))),
        "gzip-and-more": (0, answer("200 OK", gzip, text=_gzip(body) * 2)),
        "coding-of-no-name": (0, answer("200 OK", "Content-Encoding: x" * 9, text=body)),
        "not-modified": (0, answer("304 Not Modified", 'ETag: "a"')),
        "not-there": (0, answer("404 Not Found", "Content-Length: 0")),
        "busy": (two, answer("503 Busy", "Content-Length: 0") + SEPARATOR + whole),
        "refused": (0, answer("400 Bad", "Content-Length: 3", text=b"no\n")),
        "teapot-endless": (endless, answer("418 I", "Content-Length: 9999999", text=b"a\n")),
        "web-page": (0, answer("200 OK", "Content-Type: text/html", text=b"<html>")),
        "redirect": (0, to("/fw/other") + whole),
        "redirect-elsewhere": (0, to("http://evil.example/")),
        "redirect-in-a-circle": (0, to("/fw/metadata/timestamp.json") * 9),
        "redirect-to-the-other": (two, to("http://192.0.2.2:8080/a?b=c") + SEPARATOR + whole),
        "redirect-to-no-port": (0, to("http://192.0.2.1:99999/")),
        "redirect-to-no-address": (0, to("http://[::1")),
        "redirect-with-blanks": (0, to("/fw/a b?c d")),
        "redirect-with-lines": (0, to("/fw/a%0d%0aHost: evil?x%0d%0a")),
        "redirect-with-foreign-letters": (0, to("/fw/\xe9?\xe9")),
        "redirect-without-place": (0, answer("301 Moved", "Content-Length: 0")),
        "continue-for-ever": (endless | 1 << 4, answer("100 Continue")),
        "continue-then-whole": (0, answer("100 Continue") + whole),
        "hints-then-whole": (
            0,
            answer("103 Early Hints", "Link: </a>") + answer("102 Processing", chunked) + whole,
        ),
        "hints-endless": (endless | 16, answer("103 Early Hints")),
        "switching": (0, answer("101 Switching Protocols", "Upgrade: x", text=body)),
        "no-content": (0, answer("204 No Content")),
        "reset": (0, answer("205 Reset Content", "Content-Length: 0")),
        "status-of-no-number": (0, answer("2x0 OK")),
        "status-of-four-digits": (0, answer("2000 OK")),
        "other-protocol": (0, b"SSH-2.0-OpenSSH_9.2\r\n"),
        "silence": (0, b""),
        "folded-header": (0, answer("200 OK", "A: b", " c", length, text=body)),
        "header-without-colon": (0, answer("200 OK", "abc", length, text=body)),
        "part": (part, ranged),
        "part-dripped": (part | drip, ranged),
        "part-from-elsewhere": (
            part,
            answer("206 P", "Content-Range: bytes 0-299/9000", "Content-Length: 300", text=image),
        ),
        "part-without-range": (part, answer("206 P", "Content-Length: 300", text=image)),
        "part-from-an-endless-number": (
            part,
            answer("206 P", f"Content-Range: bytes {'1' * 4400}-", text=image),
        ),
        "part-in-other-units": (
            part,
            answer("206 P", "Content-Range: lines 100-399/*", text=image),
        ),
        "part-of-a-whole": (
            part,
            answer("200 OK", "Content-Length: 401", text=b"\x41" * 4001),
        ),
        "part-chunked": (
            part,
            answer(
                "206 P",
                "Content-Range: bytes 100-399/9000",
                chunked,
                text=chunks(("64", image[:100]), ("c8", image[100:]), ("0", b"")),
            ),
        ),
        "part-cut-then-whole": (
            part | two,
            ranged[:-50] + SEPARATOR + answer("200 OK", text=b"\x43" * 420),
        ),
        "parts-of-multipart": (
            part,
            answer("206 P", "Content-Type: multipart/byteranges; boundary=x", text=b"--x\r\n"),
        ),
    }
    return {name: bytes([choice]) + text for name, (choice, text) in cases.items()}


def _gzip(data: bytes) -> bytes:
    """Stored, not compressed: the same bytes whatever zlib there is."""
    head = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
    size = len(data).to_bytes(2, "little")
    block = b"\x01" + size + bytes(byte ^ 0xFF for byte in size) + data
    tail = zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")
    return head + block + tail


def _inflated() -> dict[str, bytes]:
    body = b'{"signed": {}}'
    at_once, one_by_one, some = bytes([0]), bytes([1]), bytes([7])
    return {
        "honest": at_once + _gzip(body),
        "byte-by-byte": one_by_one + _gzip(body),
        "nothing-in-it": some + _gzip(b""),
        "as-long-as-allowed": some + _gzip(b"a" * 1000),
        "longer-than-allowed": some + _gzip(b"a" * 1001),
        "cut": some + _gzip(body)[:-3],
        "of-another-sum": at_once + _gzip(body)[:-8] + bytes(8),
        "bomb": at_once + BOMB,
        "bomb-in-pieces": some + BOMB,
        "no-gzip": at_once + body,
        "zlib": at_once + b"\x78\x01" + _gzip(body)[10:],
        "nothing": at_once,
    }


def _memory() -> dict[str, bytes]:
    hint = {
        "mirror": memory.MIRROR,
        "object": memory.NAME,
        "etag": '"33a64df5"',
        "sha256": hashlib.sha256(memory.STAMP).hexdigest(),
    }
    return {
        "honest": _compact(hint),
        "mirror-only": _compact(hint | {"object": "", "etag": "", "sha256": ""}),
        "another-object": _compact(hint | {"object": "metadata/1.root.json"}),
        "of-other-bytes": _compact(hint | {"sha256": SHA}),
        "no-etag": _compact(hint | {"etag": ""}),
        "number-for-a-mirror": _compact(hint | {"mirror": 7}),
        "nothing": b"",
        "text": b'"mirror"',
    } | _strange_too(hint)


def _uptime() -> dict[str, bytes]:
    note: dict[str, Any] = {"boot": uptime.BOOT, "floor": uptime.FLOOR, "at": 0}
    return {
        "honest": _compact(note),
        "another-boot": _compact(note | {"boot": "1"}),
        "another-floor": _compact(note | {"floor": 1}),
        "far-ahead": _compact(note | {"at": 2**53}),
        "long-before-the-boot": _compact(note | {"at": -(10**30)}),
        "deep": b"[" * 4000,
        "nothing": b"",
        "array": b"[]",
    } | _strange_too(note)


def _authorities() -> dict[str, bytes]:
    pem = _certificate("firmroot test authority")
    other = _certificate("another authority")
    return {
        "honest": pem,
        "two": pem + other,
        "with-comments": b"# ours\n" + pem + b"\n# theirs\n" + other,
        "nothing": b"",
        "foreign-letters": "# F\u0151tan\u00fas\u00edtv\u00e1ny\n".encode() + pem,
        "foreign-letters-within": pem[:200] + b"\xc5\x91" + pem[200:],
        "comment-only": b"# no certificate\n",
        "cut": pem[: len(pem) // 2],
        "second-cut": pem + other[: len(other) // 2],
        "damaged": pem.replace(b"M", b"N", 5),
        "empty-certificate": b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        "not-a-certificate": pem.replace(b"CERTIFICATE", b"PRIVATE KEY"),
        "trusted-certificate": pem.replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE"),
        "revocations": pem.replace(b"CERTIFICATE", b"X509 CRL"),
        "old-lines": pem.replace(b"\n", b"\r\n"),
        "web-page": b"<!doctype html>",
        "binary": bytes(range(256)),
    }


def _certificate(name: str) -> bytes:
    """Of an ed25519 key: the same bytes in every run."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(begun)
        .not_valid_after(begun.replace(year=2046))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, None)
    )
    return certificate.public_bytes(Encoding.PEM)


if __name__ == "__main__":
    write()
