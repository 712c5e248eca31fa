"""Whole devices against real TLS servers: what is verified, what degrades, and who hears what."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization

from client_reference.payload.segments import SEGMENT
from client_reference.update import TLS_BUNDLE, TLS_ROLE
from tests.simulators.certificates import DAY, Issuer, make_issuer
from tests.simulators.device import DeviceOnDisk, Publisher
from tests.simulators.mirror import Mirror, Trouble
from tests.simulators.servers import Raw

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from client_reference.transport.connect import Address
    from tests.simulators.device import Output
    from tests.simulators.mirror import Seen

IMAGE = bytes(range(256)) * (2 * SEGMENT // 256) + b"end"
SECRET = "Bearer of the secret"
PUBLIC = {"host", "accept-encoding", "range"}
"""Header fields that any client of any repository sends."""


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return make_issuer(tmp_path_factory.mktemp("issuer"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return make_issuer(tmp_path_factory.mktemp("stranger"), "stranger")


@dataclass
class Site:
    """A publisher, a device, and the authority that the device knows."""

    publisher: Publisher
    device: DeviceOnDisk
    issuer: Issuer

    def configure(
        self, *mirrors: Mirror | str, tls: str = 'roots = "private"', repository: str = ""
    ) -> None:
        """The device follows these mirrors and trusts the authority."""
        root = self.publisher.repo.files["metadata/1.root.json"]
        urls = [one if isinstance(one, str) else one.url for one in mirrors]
        self.device.make(root, urls, tls=tls, repository=repository)
        bundle = self.device.directory / "factory" / "ca-bundle.pem"
        bundle.write_bytes(self.issuer.bundle.read_bytes())

    def run(self, command: str) -> Output:
        """Run a command of the device."""
        return self.device.run(command)

    def file(self, name: str, content: str) -> str:
        """A file beside the configuration, by its name."""
        (self.device.directory / name).write_text(content)
        return name


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str], issuer: Issuer) -> Site:
    publisher = Publisher()
    publisher.release("1.0", 1, IMAGE)
    return Site(publisher, DeviceOnDisk(tmp_path, capsys), issuer)


def tls_1_0(issuer: Issuer) -> ssl.SSLContext:
    context = issuer.server("old")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def ask_for_certificate(context: ssl.SSLContext, site: Site) -> ssl.SSLContext:
    """A server that asks each client who it is, and serves those without an answer as well."""
    context.load_verify_locations(site.issuer.bundle)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


BROKEN: dict[str, tuple[Callable[[Issuer, Issuer], ssl.SSLContext], str]] = {
    "expired": (lambda good, _: good.server("x", until=-DAY), "certificate has expired"),
    "unknown issuer": (
        lambda _, stranger: stranger.server("x"), "unable to get local issuer certificate"
    ),
    "wrong host name": (
        lambda good, _: good.server("x", address="127.0.0.2", names=("fw.example",)),
        "IP address mismatch, certificate is not valid for '127.0.0.1'",
    ),
    "TLS 1.0 only": (lambda good, _: tls_1_0(good), "TLS failed: "),
    "a clock of 1970": (
        # A device's TLS clock cannot be moved; to such a clock each certificate is in the future.
        lambda good, _: good.server("x", start=DAY, until=2 * DAY), "certificate is not yet valid"
    ),
}  # fmt: skip
broken = pytest.mark.parametrize("sentence", BROKEN)


@broken
def test_a_device_whose_tls_is_broken_updates_says_why_and_tells_nothing_of_itself(
    site: Site, stranger: Issuer, sentence: str
) -> None:
    make, why = BROKEN[sentence]
    context = ask_for_certificate(make(site.issuer, stranger), site)
    with Mirror(site.publisher.repo.files, context) as mirror:
        mirror.etags = True
        mirror.trouble = Trouble(headers={"Set-Cookie": "device=7", "Alt-Svc": 'h3=":443"'})
        crt, key = site.issuer.files("device")
        header = site.file("header", f"Authorization: {SECRET}")
        site.configure(
            mirror,
            repository=f'credentials = "{header}"\nclient_certificate = "{crt}"\n'
            f'client_key = "{key}"',
        )
        assert site.run("init").code == 0
        updated = site.run("update")
        assert updated.code == 0
        assert site.device.slot("B") == IMAGE
        assert f"degraded transport: {mirror.url} was read over unverified TLS" in updated.err
        assert why in updated.err
        assert site.run("confirm").code == 0
        assert site.run("check").code == 0
        assert len(mirror.seen) > 8
        for seen in mirror.seen:
            assert {name.lower() for name in seen.headers} <= PUBLIC
            assert seen.peer == ""
            assert seen.headers["Accept-Encoding"] in {"gzip", "identity"}


@broken
def test_where_degraded_is_forbidden_it_refuses_and_names_the_way_out(
    site: Site, stranger: Issuer, sentence: str
) -> None:
    make, why = BROKEN[sentence]
    with Mirror(site.publisher.repo.files, make(site.issuer, stranger)) as mirror:
        site.configure(mirror, tls='roots = "private"\ndegraded = "forbid"')
        site.run("init")
        refused = site.run("update")
        assert refused.code == 4
        assert why in refused.err
        assert "hint: check this device's clock and the mirror's certificate" in refused.err
        assert 'tls.degraded = "allow" in the device configuration, is the way out' in refused.err
        assert mirror.seen == []
        assert site.device.slot("B") == b""
        mirror.context = site.issuer.server("renewed")
        honest = site.run("update")
        assert honest.code == 0
        assert "degraded" not in honest.err
        assert site.device.slot("B") == IMAGE


@pytest.mark.parametrize("degraded", ["allow", "forbid"])
def test_a_port_that_speaks_no_tls_is_said_to_be_that(site: Site, degraded: str) -> None:
    def babble(peer: socket.socket) -> None:
        peer.recv(65_536)
        peer.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

    with Raw(babble) as server:
        url = f"https://127.0.0.1:{server.port}/"
        site.configure(url, tls=f'roots = "private"\ndegraded = "{degraded}"')
        site.run("init")
        said = site.run("check")
        port = server.port
    assert said.code == 4
    assert f"TLS failed: port {port} speaks no TLS" in said.err
    assert "hint: write http:// in repository.mirrors if it shall speak plain HTTP" in said.err
    assert "clock" not in said.err
    with Mirror(site.publisher.repo.files, site.issuer.server("honest")) as mirror:
        site.configure(mirror)
        assert site.run("check").code == 0


def test_in_degraded_mode_plain_http_is_told_nothing_either(site: Site) -> None:
    """Port 443 speaks no TLS that anybody understands; port 80 answers."""

    def babble(peer: socket.socket) -> None:
        peer.recv(65_536)
        peer.sendall(b"HTTP/1.1 400 What\r\n\r\n")

    with Raw(babble) as babbling, Mirror(site.publisher.repo.files) as plain:

        def resolve(_host: str, port: int) -> list[Address]:
            there = {443: babbling.port, 80: plain.server_port}[port]
            return [(socket.AF_INET, ("127.0.0.1", there))]

        site.device.ambient = replace(site.device.ambient, resolve=resolve)
        plain.etags = True
        header = site.file("header", f"Authorization: {SECRET}")
        settings = f'credentials = "{header}"'
        site.configure("https://fw.test/", repository=settings)
        site.run("init")
        updated = site.run("update")
        assert updated.code == 0
        assert "http://fw.test/ was read over plain HTTP (TLS failed: " in updated.err
        assert site.run("check").code == 0
        assert len(plain.seen) > 8
        for seen in plain.seen:
            assert {name.lower() for name in seen.headers} <= PUBLIC
        plain.seen.clear()
        site.configure(
            "https://fw.test/", tls='roots = "private"\ndegraded = "forbid"', repository=settings
        )
        assert site.run("check").code == 4
        assert plain.seen == []


def test_a_mirror_that_is_configured_as_plain_http_hears_no_secret(site: Site) -> None:
    with Mirror(site.publisher.repo.files) as plain:
        header = site.file("header", f"Authorization: {SECRET}")
        plain.etags = True
        site.configure(plain, repository=f'credentials = "{header}"')
        assert site.run("update").code == 0
        assert site.run("confirm").code == 0
        assert site.run("check").code == 0
        for seen in plain.seen:
            assert {name.lower() for name in seen.headers} <= PUBLIC | {"if-none-match"}
        assert plain.seen[-1].headers["If-None-Match"], "its own ETag, for the timestamp"


def test_another_intermediate_under_the_same_root_stays_verified(site: Site) -> None:
    """Nothing is pinned."""
    first, second = site.issuer.intermediate("first"), site.issuer.intermediate("second")
    with Mirror(site.publisher.repo.files, first.server("a")) as mirror:
        site.configure(mirror, tls='roots = "private"\ndegraded = "forbid"')
        site.run("init")
        assert site.run("check").code == 0
        for context in (second.server("b"), site.issuer.server("c"), first.server("d")):
            mirror.context = context
            said = site.run("check")
            assert said.code == 0
            assert "degraded" not in said.err


ROOTS = {
    "system": {"system": True, "private": False},
    "private": {"system": False, "private": True},
    "both": {"system": True, "private": True},
}


@pytest.mark.parametrize("roots", ROOTS)
def test_whose_certificates_are_believed(
    site: Site, stranger: Issuer, monkeypatch: pytest.MonkeyPatch, roots: str
) -> None:
    """The system's store is the stranger's here, the private bundle is the authority's."""
    monkeypatch.setenv("SSL_CERT_FILE", str(stranger.bundle))
    monkeypatch.setenv("SSL_CERT_DIR", str(site.device.directory))
    site.device.directory.mkdir(exist_ok=True)
    authorities = {"system": stranger, "private": site.issuer}
    with Mirror(site.publisher.repo.files) as mirror:
        for name, authority in authorities.items():
            mirror.context = authority.server("fw")
            site.configure(mirror, tls=f'roots = "{roots}"')
            said = site.run("check")
            assert said.code == 0
            assert ("degraded" not in said.err) is ROOTS[roots][name]


def publish_bundle(site: Site, issuer: Issuer) -> None:
    if TLS_ROLE not in site.publisher.repo.signed:
        site.publisher.repo.delegate(TLS_ROLE, [TLS_BUNDLE])
    site.publisher.repo.add_target(TLS_ROLE, TLS_BUNDLE, issuer.bundle.read_bytes())
    site.publisher.repo.publish(TLS_ROLE, "targets")


def test_after_the_new_bundle_it_is_back_on_verified_tls_and_the_old_root_is_gone(
    site: Site, stranger: Issuer
) -> None:
    publish_bundle(site, stranger)
    header = site.file("header", f"Authorization: {SECRET}")
    with Mirror(site.publisher.repo.files, stranger.server("new")) as mirror:
        site.configure(mirror, repository=f'credentials = "{header}"')
        first = site.run("check")
        assert "degraded transport" in first.err
        assert "a new CA bundle was accepted" in first.err
        site.configure(
            mirror,
            tls='roots = "private"\ndegraded = "forbid"',
            repository=f'credentials = "{header}"',
        )
        mirror.seen.clear()
        updated = site.run("update")
        assert updated.code == 0
        assert "degraded" not in updated.err
        assert any(seen.headers["Authorization"] for seen in mirror.seen)
        site.run("confirm")
        # Whoever has the old authority's key hears no credentials any more.
        site.publisher.release("1.1", 2, IMAGE[::-1])
        site.configure(mirror, repository=f'credentials = "{header}"')
        mirror.context = site.issuer.server("old")
        mirror.seen.clear()
        updated = site.run("update")
        assert updated.code == 0
        assert "degraded transport" in updated.err
        assert mirror.seen
        assert not any(seen.headers["Authorization"] for seen in mirror.seen)


def test_the_new_bundle_serves_the_very_update_that_accepted_it(
    site: Site, stranger: Issuer
) -> None:
    """Who is on verified TLS again gets artifacts behind credentials in the same run."""
    publish_bundle(site, stranger)
    header = site.file("header", f"Authorization: {SECRET}")
    with Mirror(site.publisher.repo.files, stranger.server("new")) as mirror:
        mirror.guard = lambda seen: not is_artifact(seen) or bool(seen.headers["Authorization"])
        site.configure(mirror, repository=f'credentials = "{header}"')
        updated = site.run("update")
        assert updated.code == 0
        assert "degraded transport" in updated.err
        assert "a new CA bundle was accepted" in updated.err


def test_the_old_authority_hears_no_credentials_in_the_update_that_accepted_a_new_one(
    site: Site, stranger: Issuer
) -> None:
    publish_bundle(site, stranger)
    header = site.file("header", f"Authorization: {SECRET}")
    with Mirror(site.publisher.repo.files, site.issuer.server("old")) as mirror:
        site.configure(mirror, repository=f'credentials = "{header}"')
        updated = site.run("update")
        assert updated.code == 0
        assert "a new CA bundle was accepted" in updated.err
        assert any(is_artifact(seen) for seen in mirror.seen)
        assert not any(seen.headers["Authorization"] for seen in mirror.seen)
        site.run("confirm")
        site.publisher.release("1.1", 2, IMAGE[::-1])
        mirror.context = stranger.server("new")
        assert site.run("update").code == 0
        assert any(seen.headers["Authorization"] for seen in mirror.seen)


# Artifacts behind credentials


def is_artifact(seen: Seen) -> bool:
    return seen.path.startswith("targets/builds/")


def test_a_header_opens_the_artifacts_and_is_shown_for_nothing_else(site: Site) -> None:
    publish_bundle(site, site.issuer)
    with Mirror(site.publisher.repo.files, site.issuer.server("fw")) as mirror:
        mirror.guard = lambda seen: not is_artifact(seen) or bool(seen.headers["Authorization"])
        site.configure(mirror)
        refused = site.run("update")
        assert refused.code == 4
        assert "repository.credentials or repository.client_certificate is missing" in refused.err
        header = site.file("header", f"Authorization: {SECRET}\n")
        site.configure(mirror, repository=f'credentials = "{header}"')
        mirror.seen.clear()
        shutil.rmtree(site.device.directory / "cache")
        updated = site.run("update")
        assert updated.code == 0
        assert "degraded" not in updated.err
        assert SECRET not in updated.err + updated.out
        assert site.device.slot("B") == IMAGE
        shown = {seen.path.split("/")[0] for seen in mirror.seen if seen.headers["Authorization"]}
        assert shown == {"targets"}
        for seen in mirror.seen:
            assert (seen.headers["Authorization"] is not None) is is_artifact(seen)
        told = {seen.connection for seen in mirror.seen if is_artifact(seen)}
        assert not told & {seen.connection for seen in mirror.seen if not is_artifact(seen)}
        for public in ("metadata/", "targets/channels/"):
            assert any(seen.path.startswith(public) for seen in mirror.seen)


def asking_for_certificates(site: Site, *, demanded: bool = False) -> ssl.SSLContext:
    context = ask_for_certificate(site.issuer.server("fw"), site)
    context.verify_mode = ssl.CERT_REQUIRED if demanded else ssl.CERT_OPTIONAL
    return context


@pytest.mark.parametrize("files", [1, 2])
def test_a_client_certificate_opens_the_artifacts_and_is_shown_for_nothing_else(
    site: Site, files: int
) -> None:
    publish_bundle(site, site.issuer)
    crt, key = site.issuer.files("device 7")
    if files == 1:
        crt.write_bytes(crt.read_bytes() + key.read_bytes())
    keys = f'\nclient_key = "{key}"' if files == 2 else ""  # as parametrized
    with Mirror(site.publisher.repo.files, asking_for_certificates(site)) as mirror:
        mirror.guard = lambda seen: not is_artifact(seen) or seen.peer == "device 7"
        site.configure(mirror, repository=f'client_certificate = "{crt}"{keys}')
        updated = site.run("update")
        assert updated.code == 0
        assert "degraded" not in updated.err
        assert site.device.slot("B") == IMAGE
        for seen in mirror.seen:
            assert (seen.peer == "device 7") is is_artifact(seen)
        together = {seen.connection for seen in mirror.seen if is_artifact(seen)}
        assert len(together) == 1, "one connection that shows it, kept"


def test_a_mirror_that_demands_a_certificate_for_artifacts_only(site: Site) -> None:
    """Two mirrors: one public, one that talks to known devices only."""
    crt, key = site.issuer.files("device 7")
    demanding = asking_for_certificates(site, demanded=True)
    public = {
        path: data
        for path, data in site.publisher.repo.files.items()
        if not path.startswith("targets/builds/")
    }
    with (
        Mirror(public, site.issuer.server("public")) as open_mirror,
        Mirror(site.publisher.repo.files, demanding) as closed,
    ):
        open_mirror.guard = lambda seen: not is_artifact(seen)
        site.configure(
            closed,
            open_mirror,
            repository=f'client_certificate = "{crt}"\nclient_key = "{key}"',
        )
        updated = site.run("update")
        assert updated.code == 0
        assert site.device.slot("B") == IMAGE
        assert {seen.peer for seen in closed.seen} == {"device 7"}
        assert all(is_artifact(seen) for seen in closed.seen)
        assert not any(is_artifact(seen) for seen in open_mirror.seen)


UNUSABLE = {
    "no file": "No such file",
    "no certificate": "",
    "an encrypted key": "the key is encrypted",
}


@pytest.mark.parametrize("sentence", UNUSABLE)
def test_a_client_certificate_that_cannot_be_used_is_named(site: Site, sentence: str) -> None:
    crt, key = site.issuer.files("device 7")
    mine = site.device.directory / "device.crt"
    if sentence != "no file":
        mine.write_bytes(crt.read_bytes() if "key" in sentence else b"none")
    if sentence == "an encrypted key":
        locked = site.device.directory / "locked.key"
        plain = serialization.load_pem_private_key(key.read_bytes(), None)
        locked.write_bytes(
            plain.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"secret"),
            )
        )
        key = locked
    with Mirror(site.publisher.repo.files, asking_for_certificates(site)) as mirror:
        site.configure(mirror, repository=f'client_certificate = "{mine}"\nclient_key = "{key}"')
        assert site.run("check").code == 0, "metadata is public"
        refused = site.run("update")
        assert refused.code == 2
        assert f"repository.client_certificate: {mine} cannot be used: " in refused.err
        assert UNUSABLE[sentence] in refused.err
        assert not any(is_artifact(seen) for seen in mirror.seen), "nothing degrades for it"
        site.configure(mirror)
        assert site.run("update").code == 0


def test_credentials_follow_a_redirect_to_a_configured_mirror_only(site: Site) -> None:
    crt, key = site.issuer.files("device 7")
    header = site.file("header", f"Authorization: {SECRET}")
    settings = f'credentials = "{header}"\nclient_certificate = "{crt}"\nclient_key = "{key}"'
    with (
        Mirror(site.publisher.repo.files, asking_for_certificates(site)) as first,
        Mirror(site.publisher.repo.files, asking_for_certificates(site)) as second,
    ):
        path = next(p for p in site.publisher.repo.files if p.endswith(".img"))
        first.trouble = Trouble(status=302, path=".img", headers={"Location": second.url + path})
        site.configure(first, repository=settings)
        refused = site.run("update")
        assert refused.code == 4
        assert "which is no configured mirror" in refused.err
        assert second.seen == []
        site.configure(first, second, repository=settings)
        assert site.run("update").code == 0
        (seen,) = {(seen.peer, seen.headers["Authorization"]) for seen in second.seen}
        assert seen == ("device 7", SECRET)


def test_a_redirect_that_anybody_could_have_sent_gets_no_credentials(site: Site) -> None:
    """Attack: who answers plain HTTP has the secret sent to a place of theirs on that host."""
    crt, key = site.issuer.files("device 7")
    header = site.file("header", f"Authorization: {SECRET}")
    settings = f'credentials = "{header}"\nclient_certificate = "{crt}"\nclient_key = "{key}"'
    files = site.publisher.repo.files
    path = next(p for p in files if p.endswith(".img"))
    with Mirror(files) as plain, Mirror(files, asking_for_certificates(site)) as mirror:
        mirror.guard = lambda seen: not is_artifact(seen) or bool(seen.headers["Authorization"])
        place = {"Location": f"{mirror.url}~thief/{path}"}
        plain.trouble = Trouble(status=302, path=".img", headers=place)
        site.configure(plain, mirror, repository=settings)
        assert site.run("update").code == 0
        lured = [seen for seen in mirror.seen if "~thief" in seen.path]
        assert lured
        assert {(seen.peer, seen.headers["Authorization"]) for seen in lured} == {("", None)}
        honest = [seen for seen in mirror.seen if seen.path == path]
        assert {(seen.peer, seen.headers["Authorization"]) for seen in honest} == {
            ("device 7", SECRET)
        }


def test_nothing_secret_is_in_what_the_device_says(site: Site) -> None:
    header = site.file("header", f"Authorization: {SECRET}")
    with Mirror(site.publisher.repo.files, site.issuer.server("x", until=-DAY)) as mirror:
        mirror.guard = lambda seen: not is_artifact(seen)
        site.configure(mirror, repository=f'credentials = "{header}"')
        site.run("init")
        said = site.device.run("update", before=("-v", "--json"))
        assert said.code == 4
        assert SECRET not in said.out + said.err
        assert not list(site.device.directory.rglob("transport.json"))
        mirror.guard = lambda _: True
        document = site.device.run("update", before=("--json",)).json
        assert document["forbidden"] == []
        (degraded,) = document["degraded"]
        assert "unverified TLS (TLS failed: the certificate does not verify" in degraded
        assert json.dumps(document).count(SECRET) == 0
