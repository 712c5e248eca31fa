"""Single requests to a mirror: what is asked, over what, and what is kept of the answer."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest

from client_reference.transport.connect import Roots
from client_reference.transport.fetch import Ambient, Patience
from client_reference.transport.policy import parse_mirror
from repo_tools.publishing.probe import Prober, Reply
from tests.simulators.cdn import Asked, Cdn, Said
from tests.simulators.certificates import make_issuer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from client_reference.transport.connect import Address
    from tests.simulators.certificates import Issuer

HOST, PATH = "fw.acme.example", "metadata/timestamp.json"
FILES = {PATH: b"0123456789"}


def _ambient(ports: Mapping[int, int]) -> Ambient:
    """Only that host, and its ports here."""

    def resolve(host: str, port: int) -> Sequence[Address]:
        if host != HOST or port not in ports:
            raise socket.gaierror(socket.EAI_NONAME, f"{host}:{port} is not known here")
        return [(socket.AF_INET, ("127.0.0.1", ports[port]))]

    patience = Patience(connect=0.5, grace=0.5)
    return Ambient(time.monotonic, lambda _: None, lambda: 0.5, resolve, patience)


class Seen(Cdn):
    """A mirror that notes who asks."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(FILES, context)
        self.asked: list[dict[str, str]] = []
        self.wrong = self._note

    def _note(self, asked: Asked, said: Said) -> Said:
        self.asked.append({name.lower(): value for name, value in asked.headers.items()})
        return said

    @property
    def named(self) -> list[bool]:
        """Of each request, whether it said what asks."""
        return ["user-agent" in headers for headers in self.asked]


@pytest.fixture
def plain() -> Iterator[Seen]:
    with Seen() as mirror:
        yield mirror


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return make_issuer(tmp_path)


@pytest.fixture
def secure(issuer: Issuer) -> Iterator[Seen]:
    with Seen(issuer.server("server", names=(HOST,))) as mirror:
        yield mirror


def _prober(scheme: str, roots: Roots, ports: Mapping[int, int]) -> Prober:
    return Prober(parse_mirror(f"{scheme}://{HOST}/"), _ambient(ports), roots)


NOBODY = Roots(system=False)


def test_over_plain_http_nobody_says_who_asks(plain: Seen) -> None:
    prober = _prober("http", NOBODY, {80: plain.server_port})
    assert (prober.encrypts, prober.verified) == (False, False)
    reply = prober.ask(PATH, {"Range": "bytes=0-3"}, 10)
    assert (reply.status, reply.body, reply.told) == (206, b"0123", "status 206")
    assert prober.ask_plainly(PATH, 10).body == FILES[PATH]
    assert plain.named == [False, False]
    assert plain.asked[0]["range"] == "bytes=0-3"


def test_over_verified_tls_the_client_is_named_where_headers_are_given(
    secure: Seen, issuer: Issuer
) -> None:
    roots = Roots(system=False, bundle=issuer.bundle)
    prober = _prober("https", roots, {443: secure.server_port})
    assert prober.ask(PATH, {}, 10).status == 200
    assert prober.ask(PATH, most=10).status == 200
    assert (prober.encrypts, prober.verified, prober.distrust) == (True, True, "")
    assert secure.named == [True, False]


def test_where_tls_does_not_verify_it_goes_on_and_says_why(secure: Seen, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    roots = Roots(system=False, bundle=make_issuer(tmp_path / "other", "somebody else").bundle)
    prober = _prober("https", roots, {443: secure.server_port})
    assert prober.ask(PATH, {}, 10).body == FILES[PATH]
    assert (prober.encrypts, prober.verified) == (True, False)
    assert "certificate" in prober.distrust
    assert prober.ask(PATH, {}, 10).status == 200
    assert secure.named == [False, False]


def test_what_speaks_no_tls_is_asked_twice_and_no_more(plain: Seen, issuer: Issuer) -> None:
    roots = Roots(system=False, bundle=issuer.bundle)
    prober = _prober("https", roots, {443: plain.server_port})
    reply = prober.ask(PATH)
    assert (reply.status, reply.told) == (0, reply.trouble)
    assert reply.trouble
    assert prober.distrust


def test_plainly_is_the_default_port_of_the_same_host(secure: Seen, plain: Seen) -> None:
    ports = {443: secure.server_port, 80: plain.server_port}
    assert _prober("https", NOBODY, ports).ask_plainly(PATH, 10).body == FILES[PATH]
    assert (len(secure.asked), plain.named) == (0, [False])
    reply = _prober("https", NOBODY, {443: secure.server_port}).ask_plainly(PATH, 10)
    assert reply.status == 0
    assert reply.trouble


def test_no_more_is_kept_than_was_asked_for_and_it_is_said(plain: Seen) -> None:
    prober = _prober("http", NOBODY, {80: plain.server_port})
    found = [prober.ask(PATH, most=most) for most in (9, 10, 11)]
    assert [(each.body, each.whole) for each in found] == [
        (b"012345678", False),
        (b"0123456789", True),
        (b"0123456789", True),
    ]


def test_headers_that_come_twice_are_one_line(plain: Seen) -> None:
    plain.wrong = lambda _, said: Said(said.status, {"Vary": "Origin", "vary": "Cookie"}, said.body)
    reply = _prober("http", NOBODY, {80: plain.server_port}).ask(PATH, most=10)
    assert reply.headers["vary"] == "Origin, Cookie"


def test_an_answer_that_breaks_off_is_trouble(plain: Seen) -> None:
    plain.wrong = lambda _, said: Said(said.status, {"Content-Length": "99"}, said.body)
    reply = _prober("http", NOBODY, {80: plain.server_port}).ask(PATH, most=100)
    assert reply == Reply(0, trouble=reply.trouble)
    assert reply.trouble
