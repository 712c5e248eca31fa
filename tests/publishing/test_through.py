"""What stands between the storage and the devices: one row for everything that may be wrong there.

The same over real caches and a real S3: `test_through_nginx`.
"""

from __future__ import annotations

import gzip
import json
import socket
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import RetryLaterError
from client_reference.transport.connect import Roots
from client_reference.transport.fetch import Ambient, Patience
from client_reference.transport.pace import TransportError
from repo_tools.publishing import through
from repo_tools.publishing.edge_checks import CHECKS
from repo_tools.publishing.factory import devices
from repo_tools.publishing.following import lead
from repo_tools.publishing.live import TIMESTAMP
from repo_tools.publishing.probe import Prober
from repo_tools.publishing.through import Expected, look
from repo_tools.publishing.verify import Severity
from repo_tools.storage.protocol import Blob
from tests.simulators.cdn import Asked, Cdn, Said
from tests.simulators.certificates import make_issuer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from _pytest.mark.structures import ParameterSet

    from client_reference.transport.connect import Address
    from repo_tools.publishing.through import Observed
    from tests.publishing.lab import Lab

    Wrong = Callable[[Asked, Said], Said]

ABSENT = "metadata/2.root.json"
SUBMISSION = "inbox/submissions/one/submission.json"
ERROR, WARNING, FINE = Severity.ERROR, Severity.WARNING, Severity.FINE
ALWAYS = ("root-chain", WARNING)
"""Every lab is told that it is one."""


def ambient(names: Mapping[tuple[str, int], int] | None = None) -> Ambient:
    """Short patience, and names of its own."""

    def resolve(host: str, port: int) -> Sequence[Address]:
        if names is None or (host, port) not in names:
            raise socket.gaierror(socket.EAI_NONAME, f"{host}:{port} is not known here")
        return [(socket.AF_INET, ("127.0.0.1", names[host, port]))]

    patience = Patience(connect=0.5, grace=0.5)
    return Ambient(time.monotonic, lambda _: None, lambda: 0.5, resolve, patience)


@dataclass
class Scene:
    """A live repository, the CDN before it, and what the workspace expects."""

    lab: Lab
    cdn: Cdn
    expected: Expected

    def look(self) -> Observed:
        self.cdn.times.clear()
        return look(self.cdn.url, self.expected, ambient())

    def trips(self) -> set[tuple[str, Severity]]:
        """What is found, besides what always is."""
        return problems(self.look())


def problems(observed: Observed) -> set[tuple[str, Severity]]:
    found = {(each.check.id, each.severity) for each in observed.findings}
    return {each for each in found if each[1] is not FINE} - {ALWAYS}


@pytest.fixture(scope="module")
def shared(moments: dict[str, Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    lab = moments["live"].copy(tmp_path_factory.mktemp("through") / "acme")
    waiting = lab.repository / SUBMISSION
    waiting.parent.mkdir(parents=True)
    waiting.write_bytes(b"{}")
    files = {
        path.relative_to(lab.repository).as_posix(): path.read_bytes()
        for path in lab.repository.rglob("*")
        if path.is_file()
    }
    workspace = lab.workspace
    expected = Expected(
        roots=workspace.roots(),
        policy=workspace.policy,
        now=lab.now,
        epoch=0,
        devices=devices(workspace),
        lead=lead(workspace),
        storage=workspace.whole_storage(),
    )
    with Cdn(files) as cdn:
        yield Scene(lab, cdn, expected)


@pytest.fixture
def scene(shared: Scene) -> Iterator[Scene]:
    yield replace(shared)
    shared.cdn.wrong = lambda _, said: said


def on(*paths: str, status: int = 0, body: bytes | None = None, **headers: str) -> Wrong:
    """Say something else where a path ends like this."""

    def wrong(asked: Asked, said: Said) -> Said:
        if not asked.path.endswith(paths):
            return said
        told = Said(status or said.status, said.headers, said.body if body is None else body)
        return told.but(**headers)

    return wrong


def again(wrong: Wrong) -> Wrong:
    """Only from the second time on."""
    return lambda asked, said: wrong(asked, said) if asked.times > 1 else said


def flipped(*paths: str) -> Wrong:
    """Change a bit of what ends like this."""

    def wrong(asked: Asked, said: Said) -> Said:
        body = said.body
        damaged = body and asked.path.endswith(paths)
        return replace(said, body=bytes([body[0] ^ 1]) + body[1:]) if damaged else said

    return wrong


def errors(status: int = 0, body: bytes | None = None, **headers: str) -> Wrong:
    """Say something else of what is not there."""

    def wrong(_: Asked, said: Said) -> Said:
        if said.status != 404:
            return said
        return Said(status or 404, said.headers, said.body if body is None else body).but(**headers)

    return wrong


def parts(change: Callable[[Asked, Said], Said]) -> Wrong:
    """Say something else where a part of an artifact is asked for."""

    def wrong(asked: Asked, said: Said) -> Said:
        part = asked.headers.get("Range") not in {None, "bytes=0-0"}
        return change(asked, said) if part and asked.path.endswith(".img") else said

    return wrong


def unasked(asked: Asked, said: Said) -> Said:
    """Compress whatever is asked."""
    if said.status != 200 or "Content-Encoding" in said.headers:
        return said
    if not asked.path.endswith(".snapshot.json"):
        return said
    return Said(200, said.headers, gzip.compress(said.body)).but(content_encoding="gzip")


def coded(change: Callable[[Said], Said]) -> Wrong:
    """Say something else where gzip comes."""
    return lambda _, said: change(said) if "Content-Encoding" in said.headers else said


STAMP = "timestamp.json"
LISTING = b'<?xml version="1.0"?><ListBucketResult></ListBucketResult>'
CASES: dict[str, tuple[Wrong, set[tuple[str, Severity]]]] = {
    "nothing": (lambda _, said: said, set()),
    "a timestamp that is kept an hour": (
        on(STAMP, cache_control="max-age=3600"),
        {("timestamp-lifetime", ERROR)},
    ),
    "a timestamp that shared caches keep an hour": (
        on(STAMP, cache_control="max-age=10, s-maxage=3600"),
        {("timestamp-lifetime", ERROR)},
    ),
    "a timestamp that is served while it is asked again": (
        on(STAMP, cache_control="max-age=60, stale-while-revalidate=1"),
        {("timestamp-lifetime", ERROR)},
    ),
    "a timestamp that says nothing of caches": (
        on(STAMP, cache_control=""),
        {("timestamp-lifetime", ERROR)},
    ),
    "a timestamp that is always asked again": (on(STAMP, cache_control="no-cache"), set()),
    "a timestamp that is a minute old": (on(STAMP, age="60", x_cache="HIT"), set()),
    "a timestamp that is older": (on(STAMP, age="61", via="1.1 edge"), {("timestamp-age", ERROR)}),
    "a timestamp past its time": (again(on(STAMP, x_cache="STALE")), {("timestamp-age", WARNING)}),
    "a timestamp without an ETag": (on(STAMP, etag=""), {("etag", WARNING)}),
    "a timestamp with a weak ETag": (on(STAMP, etag='W/"1"'), {("etag", WARNING)}),
    "a timestamp that is sent again to who has it": (
        lambda asked, said: Said(200, said.headers, asked.file) if said.status == 304 else said,
        {("etag", WARNING)},
    ),
    "a question about the timestamp that fails": (
        lambda _, said: Said(412) if said.status == 304 else said,
        {("etag", ERROR)},
    ),
    "a role that is kept a day": (
        on(".snapshot.json", cache_control="max-age=86400"),
        {("immutable", WARNING)},
    ),
    "a target that nobody may keep": (
        on(".stable.json", cache_control="no-store"),
        {("immutable", WARNING)},
    ),
    "artifacts that say nothing of caches": (
        on(".img", cache_control=""),
        {("immutable", WARNING)},
    ),
    "403 for what is not there": (errors(403), {("absent", WARNING)}),
    "a page for what is not there": (
        errors(200, b"<html>welcome</html>"),
        {("absent", ERROR), ("inbox", ERROR), ("metadata", ERROR), ("device", ERROR)},
    ),
    "a server error for what is not there": (
        errors(503),
        {("absent", ERROR), ("metadata", ERROR), ("device", ERROR)},
    ),
    "a 404 that may be kept": (errors(cache_control="max-age=10"), {("errors-kept", ERROR)}),
    "a 404 that says nothing": (errors(cache_control=""), {("errors-kept", WARNING)}),
    "a 404 out of a cache": (
        again(on(ABSENT, x_cache="Hit from cloudfront")),
        {("errors-kept", ERROR)},
    ),
    "a 404 that is some seconds old": (again(on(ABSENT, age="7")), {("errors-kept", ERROR)}),
    "an error page of the CDN that was not kept": (
        again(on(ABSENT, x_cache="Error from cloudfront")),
        set(),
    ),
    "no ranges": (
        parts(lambda _, said: Said(200, {}, said.body * 2)),
        {("range", WARNING)},
    ),
    "other ranges than were asked for": (
        parts(lambda _, said: said.but(content_range="bytes 5-20/1200000")),
        {("range", ERROR)},
    ),
    "a shorter artifact": (
        parts(lambda _, said: said.but(content_range=said.headers["Content-Range"][:-1])),
        {("range", ERROR)},
    ),
    "parts that do not fit together": (
        parts(lambda asked, said: replace(said, body=bytes([asked.times]) * len(said.body))),
        {("range", ERROR)},
    ),
    "ranges that fail": (parts(lambda *_: Said(416)), {("range", ERROR)}),
    "artifacts that need credentials": (
        parts(lambda *_: Said(403)),
        {("range", ERROR)},
    ),
    "gzip for who did not ask": (
        unasked,
        {("gzip", ERROR)},
    ),
    "gzip that is none": (
        coded(lambda said: replace(said, body=b"no")),
        {("gzip", ERROR), ("metadata", ERROR), ("device", ERROR)},
    ),
    "gzip of other bytes": (
        coded(lambda said: replace(said, body=gzip.compress(b"{}"))),
        {("gzip", ERROR), ("metadata", ERROR), ("device", ERROR)},
    ),
    "a coding that nobody asked for": (
        coded(lambda said: said.but(content_encoding="br")),
        {("gzip", ERROR), ("metadata", ERROR), ("device", ERROR)},
    ),
    "gzip that caches take for the same": (
        coded(lambda said: said.but(vary="")),
        {("gzip", WARNING)},
    ),
    "a role that needs credentials": (
        on(".targets.json", status=403),
        {
            ("answers", ERROR),
            ("public", ERROR),
            ("metadata", ERROR),
            ("device", ERROR),
        },
    ),
    "plain HTTP that leads to https": (
        on(STAMP, status=301, location="https://127.0.0.1/", body=b""),
        {
            ("answers", ERROR),
            ("plain-http", ERROR),
            ("metadata", ERROR),
        },
    ),
    "a web page instead of the timestamp": (
        on(STAMP, body=b"<html>log in</html>", content_type="text/html"),
        {
            ("answers", ERROR),
            ("plain-http", ERROR),
            ("origin", ERROR),
            ("metadata", ERROR),
        },
    ),
    "an inbox for everybody": (
        lambda asked, said: Said(200, {}, b"{}") if asked.path == SUBMISSION else said,
        {("inbox", ERROR)},
    ),
    "a list of the bucket": (
        lambda asked, said: Said(200, {}, LISTING) if not asked.path else said,
        {("listing", WARNING)},
    ),
    "a cookie": (on(STAMP, set_cookie="id=1"), {("cookies", WARNING)}),
    "an artifact with other bytes, that nobody reads": (on(".img", body=b"\0"), {("range", ERROR)}),
    "a manifest with other bytes": (
        flipped(".stable.json"),
        {("targets", ERROR), ("metadata", ERROR), ("device", ERROR)},
    ),
    "the first root is missing": (
        lambda asked, said: (
            Said(404, {"Cache-Control": "no-store"})
            if asked.path == "metadata/1.root.json"
            else said
        ),
        {("answers", ERROR), ("root-chain", ERROR)},
    ),
}


def _rows() -> Iterator[ParameterSet]:
    """The first row that trips a check is an ordinary test, the others are services tests."""
    tripped: set[str] = set()
    for case, (_, found) in CASES.items():
        new = {check for check, _ in found} - tripped
        tripped |= new
        marks = () if new or case == "nothing" else (pytest.mark.services,)
        yield pytest.param(case, marks=marks)


@pytest.mark.parametrize("case", list(_rows()))
def test_a_mirror_has(case: str, scene: Scene) -> None:
    scene.cdn.wrong, expected = CASES[case]
    assert scene.trips() == expected


@dataclass(frozen=True)
class Origin:
    """A storage that has this as its timestamp, or fails."""

    timestamp: bytes | None

    def read(self, path: str, _most: int) -> Blob:
        assert path == TIMESTAMP
        if self.timestamp is None:
            raise RetryLaterError("the bucket does not answer")
        return Blob(self.timestamp, "tag")

    def paths(self, _prefix: str) -> Iterator[str]:
        raise RetryLaterError("the bucket does not answer")


def _with(data: bytes, version: int, issued: object) -> bytes:
    document = json.loads(data)
    document["signed"] |= {"version": version, "x-firmroot-issued": issued}
    return json.dumps(document).encode()


ISSUED = "2026-03-02T06:00:00Z"
ORIGINS: dict[str, tuple[int, object, float, set[tuple[str, Severity]]]] = {
    "a newer timestamp since a minute": (2, ISSUED, 60, {("origin", WARNING)}),
    "a newer timestamp since more than a minute": (2, ISSUED, 61, {("origin", ERROR)}),
    "a newer timestamp that does not say since when": (2, 5, 0, {("origin", ERROR)}),
    "a newer timestamp of the future": (2, "2026-03-02T06:00:01Z", 0, {("origin", ERROR)}),
    "an older timestamp": (0, ISSUED, 0, {("origin", ERROR)}),
    "another timestamp of the same version": (1, "else", 0, {("origin", ERROR)}),
}


@pytest.mark.parametrize("case", ORIGINS)
def test_the_storage_has(case: str, scene: Scene) -> None:
    version, issued, seconds, expected = ORIGINS[case]
    data = _with(scene.cdn.files[TIMESTAMP], version, issued)
    scene.expected = replace(
        scene.expected,
        storage=Origin(data),  # type: ignore[arg-type]  # what is asked of it
        now=scene.lab.now + timedelta(seconds=seconds),
    )
    assert scene.trips() == expected


def test_a_storage_that_is_not_json_or_does_not_answer(scene: Scene) -> None:
    for data, severity in ((b"?", ERROR), (None, WARNING)):
        origin = Origin(data)
        scene.expected = replace(scene.expected, storage=origin)  # type: ignore[arg-type]
        assert scene.trips() == {("origin", severity)}
    (inbox,) = [each for each in scene.look().findings if each.check.id == "inbox"]
    assert "nothing is known to lie in it" in inbox.found


def test_without_a_storage_everything_else_is_judged(scene: Scene) -> None:
    scene.expected = replace(scene.expected, storage=None)
    assert scene.trips() == {("origin", WARNING)}
    scene.cdn.wrong = on(".snapshot.json", cache_control="max-age=86400")
    assert scene.trips() == {("origin", WARNING), ("immutable", WARNING)}
    scene.cdn.wrong = on(STAMP, body=b"<html>log in</html>", content_type="text/html")
    assert scene.trips() == {
        ("answers", ERROR), ("plain-http", ERROR), ("origin", WARNING), ("metadata", ERROR),
    }  # fmt: skip


def test_what_the_storage_has_is_asked_where_the_mirror_shows_nothing_to_believe(
    scene: Scene,
) -> None:
    asked: set[str] = set()

    def wrong(about: Asked, said: Said) -> Said:
        asked.add(about.path)
        return Said(200, {}, b"?") if about.path.endswith(STAMP) else said

    scene.cdn.wrong = wrong
    scene.look()
    assert {"metadata/1.gateway-stable.json", "metadata/root-chain/1"} <= asked


ROLES = {"root.json", "snapshot.json", "targets.json", "gateway-stable.json", "gateway-builds.json"}


@pytest.mark.parametrize("artifacts", [False, True])
def test_the_headers_of_each_kind_of_object_are_looked_at(scene: Scene, *, artifacts: bool) -> None:
    asked: set[str] = set()

    def note(about: Asked, said: Said) -> Said:
        if about.headers.get("Range") == "bytes=0-0":
            asked.add(about.path)
        return said

    scene.cdn.wrong = note
    scene.expected = replace(scene.expected, artifacts=artifacts)
    scene.look()
    assert "metadata/root-chain/1" in asked
    kinds = [path.rpartition("/")[2].partition(".")[2] for path in asked if "." in path]
    files = [kind for kind in kinds if kind.startswith("firmware.img")]
    assert sorted({*kinds} - {*files}) == sorted({*ROLES, "stable.json"})
    assert len(files) == (2 if artifacts else 1)


def test_only_roles_are_asked_for_with_gzip(scene: Scene) -> None:
    scene.cdn.wrong = on("root-chain/1", vary="")
    assert scene.trips() == set()


def test_only_artifacts_may_need_credentials_and_get_them_over_verified_tls_alone(
    scene: Scene, tmp_path: Path
) -> None:
    """Attack: what stands between would read them, or whoever serves plain HTTP."""
    host, given = "fw.acme.example", ("X-Device", "secret")
    shown: set[tuple[str, bool]] = set()

    def guarded(asked: Asked, said: Said) -> Said:
        artifact = asked.path.startswith("targets/builds/")
        known = asked.headers.get("X-Device") == "secret"
        shown.add(("artifact" if artifact else "other", known))
        return Said(403) if artifact and not known else said

    issuer, stranger = make_issuer(tmp_path), make_issuer(tmp_path, "somebody else")
    for trusted, passes in ((issuer, True), (stranger, False)):
        ca = Roots(system=False, bundle=trusted.bundle)
        expected = replace(scene.expected, ca=ca, credentials=given, now=datetime.now(UTC))
        shown.clear()
        with Cdn(scene.cdn.files, issuer.server("server", names=(host,))) as cdn:
            cdn.wrong = guarded
            names = {(host, 443): cdn.server_port, (host, 80): scene.cdn.server_port}
            found = problems(look(f"https://{host}/", expected, ambient(names)))
        assert (("range", ERROR) in found) is not passes
        assert ("public", ERROR) not in found
        assert ("other", True) not in shown
        assert (("artifact", True) in shown) is passes


def test_who_sends_no_etag_is_not_asked_about_it(scene: Scene) -> None:
    scene.cdn.wrong = on(STAMP, etag="")
    (etag,) = [each for each in scene.look().findings if each.check.id == "etag"]
    assert etag.found == "timestamp.json has no ETag, which no device sends back"


def test_a_part_is_asked_of_an_artifact_that_has_two_and_of_nothing_else(
    new: Lab, shared: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest is longer, and no artifact."""
    new.add("1.0", data=bytes(32))
    new.promote("1.0")
    new.ok("publish")
    expected = replace(
        shared.expected,
        roots=new.workspace.roots(),
        devices=(),
        storage=new.workspace.whole_storage(),
    )
    files = {
        path.relative_to(new.repository).as_posix(): path.read_bytes()
        for path in new.repository.rglob("*")
        if path.is_file()
    }
    for size, found in ((16, FINE), (17, FINE)):
        monkeypatch.setattr(through, "_PART", size)
        with Cdn(files) as cdn:
            observed = look(cdn.url, expected, ambient())
        (about,) = [each for each in observed.findings if each.check.id == "range"]
        assert about.severity is found
        none = about.found == "no artifact is live that a part could be asked of"
        assert none == (size == 17)


def test_a_certificate_that_cannot_be_seen_again_is_told(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: Prober) -> bytes:
        raise TransportError("the mirror went away")

    monkeypatch.setattr(Prober, "certificate", gone)
    issuer, stranger = make_issuer(tmp_path), make_issuer(tmp_path, "somebody else")
    host = "fw.acme.example"
    for trusted, text in ((issuer, "the mirror went away"), (stranger, "certificate")):
        ca = Roots(system=False, bundle=trusted.bundle)
        expected = replace(scene.expected, ca=ca, now=datetime.now(UTC))
        with Cdn(scene.cdn.files, issuer.server("server", names=(host,))) as cdn:
            names = {(host, 443): cdn.server_port}
            found = look(f"https://{host}/", expected, ambient(names)).findings
        (about,) = [each for each in found if each.check.id == "certificate"]
        assert about.severity is ERROR
        assert text in about.found


def test_artifacts_are_read_whole_only_on_request(scene: Scene) -> None:
    scene.cdn.wrong = lambda asked, said: (
        said
        if "-7" in asked.headers.get("Range", "") or not asked.path.endswith(".segments")
        else replace(said, body=bytes(len(said.body)))
    )
    assert scene.trips() == set()
    told: list[str] = []
    scene.expected = replace(
        scene.expected, artifacts=True, tell=lambda path, *_: told.append(path)
    )
    assert scene.trips() == {("targets", ERROR)}
    assert len(told) == 3


def test_what_expires_is_told(scene: Scene) -> None:
    scene.expected = replace(scene.expected, now=scene.lab.now + timedelta(days=6))
    assert scene.trips() == {("expiry", WARNING)}
    scene.expected = replace(scene.expected, now=scene.lab.now + timedelta(days=8))
    assert scene.trips() == {("expiry", ERROR), ("device", ERROR)}
    scene.expected = replace(scene.expected, now=scene.lab.now - timedelta(days=1))
    assert ("hints", ERROR) in scene.trips()


TLS: dict[str, tuple[str, float, bool, set[tuple[str, Severity]]]] = {
    # certificate, days that it is good for, port 80 is served
    "a good certificate and plain HTTP": ("good", 25, True, set()),
    "no plain HTTP": ("good", 25, False, {("plain-http", ERROR)}),
    "a certificate that ends soon": ("good", 20, True, {("certificate", WARNING)}),
    "a certificate of nobody": ("strange", 25, True, {("certificate", ERROR)}),
}


@pytest.mark.parametrize("case", TLS)
def test_a_mirror_over_tls_has(case: str, scene: Scene, tmp_path: Path) -> None:
    kind, days, plain, expected = TLS[case]
    issuer = make_issuer(tmp_path)
    other = make_issuer(tmp_path, "somebody else")
    host = "fw.acme.example"
    context = issuer.server("server", names=(host,), until=timedelta(days=days, hours=1))
    trusted = issuer if kind == "good" else other
    scene.expected = replace(
        scene.expected, ca=Roots(system=False, bundle=trusted.bundle), now=datetime.now(UTC)
    )
    with Cdn(scene.cdn.files, context) as cdn:
        names = {(host, 443): cdn.server_port}
        if plain:
            names[host, 80] = scene.cdn.server_port
        observed = look(f"https://{host}/", scene.expected, ambient(names))
    about_tls = {each for each in problems(observed) if each[0] in {"certificate", "plain-http"}}
    assert about_tls == expected


def test_plain_http_without_metadata_is_no_way_back(scene: Scene, tmp_path: Path) -> None:
    issuer = make_issuer(tmp_path)
    host = "fw.acme.example"
    scene.expected = replace(scene.expected, ca=Roots(system=False, bundle=issuer.bundle))
    scene.cdn.wrong = on(STAMP, body=b"welcome")
    with Cdn(scene.cdn.files, issuer.server("server", names=(host,))) as cdn:
        names = {(host, 443): cdn.server_port, (host, 80): scene.cdn.server_port}
        found = look(f"https://{host}/", scene.expected, ambient(names)).findings
        assert "plain HTTP: what comes as timestamp.json is no metadata" in [f.found for f in found]
        scene.cdn.wrong = on(STAMP, status=301, location="https://fw.acme.example/", body=b"")
        found = look(f"https://{host}/", scene.expected, ambient(names)).findings
        assert any("answered with status 301, to https://fw" in each.found for each in found)


def test_every_check_is_tripped_by_a_case() -> None:
    tripped = {check for _, found in CASES.values() for check, _ in found}
    tripped |= {check for *_, found in ORIGINS.values() for check, _ in found}
    tripped |= {check for *_, found in TLS.values() for check, _ in found}
    assert tripped | {"expiry", "hints"} == {check.id for check in CHECKS}


def test_the_command_says_what_to_do_and_ends_as_it_should(scene: Scene) -> None:
    done = scene.lab.ok("verify", "--through", scene.cdn.url)
    assert "every mirror keeps the rules, and everything that is live verifies" in done.out
    scene.cdn.wrong = on(STAMP, cache_control="max-age=3600", x_cache="HIT")
    done = scene.lab.run("--json", "verify", "--through", scene.cdn.url)
    assert done.code == 5
    (mirror,) = done.json["mirrors"]
    assert (mirror["url"], mirror["caches"]) == (scene.cdn.url, "x-cache: HIT")
    (error,) = [each for each in mirror["findings"] if each["severity"] == "error"]
    assert error["id"] == "timestamp-lifetime"
    assert error["found"] == "timestamp.json may be kept for 3600 s"
    assert error["expected"] == "timestamp.json may be kept for 60 s at most."
    assert "Cache-Control: max-age=60" in error["fix"]
    assert done.json["trusted"] is False
    # Bytes weigh more than caches.
    damaged, kept = flipped(".stable.json"), on(STAMP, cache_control="max-age=3600")
    scene.cdn.wrong = lambda asked, said: damaged(asked, kept(asked, said))
    done = scene.lab.run("verify", "--through", scene.cdn.url)
    assert done.code == 6
    assert "timestamp-lifetime" in done.out


def test_the_command_asks_every_mirror_that_devices_have(scene: Scene) -> None:
    config = scene.lab.directory / "firmroot.toml"
    config.write_text(config.read_text().replace("urls = []", f'urls = ["{scene.cdn.url}"]'))
    assert scene.cdn.url in config.read_text()
    (file,) = scene.lab.directory.glob("factory/*/device.toml")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    file.write_text(file.read_text().replace("http://127.0.0.1:8080/", f"http://127.0.0.1:{port}/"))
    done = scene.lab.run("--json", "verify", "--mirrors", "--through", scene.cdn.url)
    assert done.code == 4
    first, second = done.json["mirrors"]
    assert (first["url"], second["url"]) == (scene.cdn.url, f"http://127.0.0.1:{port}/")
    assert first["trouble"] == ""
    assert second["trouble"]
    assert second["findings"] == []


USAGE = {
    "a place besides": ("verify", "repository", "--through", "http://127.0.0.1/"),
    "only as a device": ("verify", "--as-device", "--mirrors"),
    "artifacts of nothing": ("verify", "--artifacts"),
    "no URL": ("verify", "--through", "ftp://example/"),
}


@pytest.mark.parametrize("case", USAGE)
def test_the_command_does_not_understand(case: str, scene: Scene) -> None:
    assert scene.lab.run(*USAGE[case]).code == 2
