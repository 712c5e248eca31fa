from __future__ import annotations

import pytest

from client_reference.errors import ConfigurationError, NotTrustedError
from client_reference.transport.policy import (
    Attempt,
    Degraded,
    Meaning,
    Mirror,
    Trust,
    attempts,
    backoff,
    content_start,
    encode,
    is_web_page,
    meaning,
    parse_mirror,
    redirected,
)

ONE = Mirror("https", "one.example", 443, "/")
TWO = Mirror("https", "two.example", 443, "/fw/")
ODD = Mirror("https", "odd.example", 8443, "/")
LAB = Mirror("http", "127.0.0.1", 8080, "/")
ONE_PLAIN = Mirror("http", "one.example", 80, "/")

WAYS: dict[str, tuple[tuple[Mirror, ...], Degraded, dict[Mirror, Trust], list[Attempt]]] = {
    "mirrors in order, verified": (
        (ONE, TWO),
        Degraded.ALLOW,
        {},
        [Attempt(ONE, Trust.VERIFIED, ONE), Attempt(TWO, Trust.VERIFIED, TWO)],
    ),
    "after a bad certificate the other mirror's verified TLS comes first": (
        (ONE, TWO),
        Degraded.ALLOW,
        {ONE: Trust.VERIFIED},
        [Attempt(TWO, Trust.VERIFIED, TWO), Attempt(ONE, Trust.UNVERIFIED, ONE)],
    ),
    "after TLS itself failed, plain HTTP": (
        (ONE,),
        Degraded.ALLOW,
        {ONE: Trust.UNVERIFIED},
        [Attempt(ONE_PLAIN, Trust.PLAIN, ONE)],
    ),
    "a port of its own has no plain counterpart": (
        (ODD,), Degraded.ALLOW, {ODD: Trust.UNVERIFIED}, []
    ),
    "where degraded is forbidden a bad certificate ends it": (
        (ONE, TWO),
        Degraded.FORBID,
        {ONE: Trust.VERIFIED},
        [Attempt(TWO, Trust.VERIFIED, TWO)],
    ),
    "plain HTTP as it is configured": (
        (LAB,), Degraded.ALLOW, {}, [Attempt(LAB, Trust.PLAIN, LAB)]
    ),
    "plain HTTP where degraded is forbidden": ((LAB,), Degraded.FORBID, {}, []),
}  # fmt: skip


@pytest.mark.parametrize("sentence", WAYS)
def test_ways_to_ask(sentence: str) -> None:
    mirrors, degraded, failed, expected = WAYS[sentence]
    assert list(attempts(mirrors, degraded, failed)) == expected


MIRRORS = {
    "https://fw.acme.example/": Mirror("https", "fw.acme.example", 443, "/"),
    "https://fw.acme.example": Mirror("https", "fw.acme.example", 443, "/"),
    "https://FW.acme.example:8443/a/b": Mirror("https", "fw.acme.example", 8443, "/a/b/"),
    "http://[::1]:8080/": Mirror("http", "::1", 8080, "/"),
    "https://fw.acme.example/a b/": Mirror("https", "fw.acme.example", 443, "/a%20b/"),
    "https://bücher.example/": Mirror("https", "xn--bcher-kva.example", 443, "/"),
    "https://fw.acme.example/a%20b/": Mirror("https", "fw.acme.example", 443, "/a%20b/"),
}


@pytest.mark.parametrize("url", MIRRORS)
def test_a_mirror_is_read(url: str) -> None:
    assert parse_mirror(url) == MIRRORS[url]


def test_a_mirror_is_written_as_in_a_url() -> None:
    assert parse_mirror("http://[::1]:8080/x").url == "http://[::1]:8080/x/"
    assert parse_mirror("https://a.example:443/").authority == "a.example"


NO_MIRRORS = {
    "ftp://a.example/": "must begin with https",
    "fw.acme.example": "must begin with https",
    "https:///x": "must begin with https",
    "https://a.example:port/": "is not a URL",
    "https://user:secret@a.example/": "has a user name",
    "https://a.example/?token=1": "query or a fragment",
    "https://a.example/#x": "query or a fragment",
    "https://a b.example/": "a space or a control character",
    "https://a\0b.example/": "a space or a control character",
    f"https://{'ü' * 64}.example/": "no name",
}


@pytest.mark.parametrize("url", NO_MIRRORS)
def test_what_is_no_mirror_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=NO_MIRRORS[url]) as caught:
        parse_mirror(url)
    assert "secret" not in caught.value.message


def test_waiting_grows_and_is_never_the_same_for_all() -> None:
    assert [backoff(number, 0.0) for number in range(3)] == [0.5, 1.0, 2.0]
    assert backoff(1, 0.5) == 1.5


STATUSES = {
    200: Meaning.WHOLE,
    206: Meaning.PART,
    301: Meaning.REDIRECT,
    302: Meaning.REDIRECT,
    303: Meaning.REDIRECT,
    304: Meaning.UNCHANGED,
    307: Meaning.REDIRECT,
    308: Meaning.REDIRECT,
    400: Meaning.REFUSED,
    401: Meaning.REFUSED,
    403: Meaning.NOT_FOUND,
    404: Meaning.NOT_FOUND,
    408: Meaning.BUSY,
    410: Meaning.REFUSED,
    416: Meaning.REFUSED,
    429: Meaning.BUSY,
    500: Meaning.BUSY,
    503: Meaning.BUSY,
    599: Meaning.BUSY,
}


@pytest.mark.parametrize("status", STATUSES)
def test_what_a_status_means(status: int) -> None:
    assert meaning(status) is STATUSES[status]


RANGES = {
    "bytes 10-19/100": 10,
    "bytes 0-0/*": 0,
    f"bytes {10**17}-*/*": 10**17,
    f"bytes {10**18}-*/*": None,
    "bytes */100": None,
    f"bytes {'9' * 18}-": int("9" * 18),
    f"bytes {'9' * 19}-": None,
    f"bytes {'9' * 5000}-": None,
    "items 1-2/3": None,
    "bytes": None,
    "": None,
    None: None,
}


@pytest.mark.parametrize("header", RANGES)
def test_where_a_part_starts(header: str | None) -> None:
    assert content_start(header) == RANGES[header]


WEB_PAGES = {
    ("text/html", b"{}"): True,
    ("Text/HTML; charset=utf-8", b"{}"): True,
    ("application/xhtml+xml", b"{}"): True,
    (None, b" \n<!doctype html>"): True,
    ("application/json", b"<html>"): True,
    ("application/json", b'{"a": "<"}'): False,
    (None, b"{}"): False,
    ("text/plain", b""): False,
}


@pytest.mark.parametrize("answer", WEB_PAGES)
def test_what_is_a_web_page(answer: tuple[str | None, bytes]) -> None:
    assert is_web_page(*answer) is WEB_PAGES[answer]


def test_paths_are_encoded_below_the_base() -> None:
    assert encode(TWO, "targets/a b?#%/ä") == "/fw/targets/a%20b%3F%23%25/%C3%A4"


@pytest.mark.parametrize("path", ["../x", "a/../b", "a//b", "/a", "a/.", ""])
def test_a_path_that_leaves_the_repository_is_refused(path: str) -> None:
    with pytest.raises(NotTrustedError, match="has a segment that no repository has"):
        encode(ONE, path)


VERIFIED, UNVERIFIED, PLAIN = (
    Attempt(ONE, Trust.VERIFIED, ONE),
    Attempt(ONE, Trust.UNVERIFIED, ONE),
    Attempt(LAB, Trust.PLAIN, LAB),
)
REDIRECTS: dict[str, tuple[Attempt, str, tuple[Attempt, str] | None]] = {
    "within the mirror": (VERIFIED, "/b", (VERIFIED, "/b")),
    "relative": (VERIFIED, "c", (VERIFIED, "/x/c")),
    "to another mirror": (
        VERIFIED, "https://two.example/b?q=1", (Attempt(TWO, Trust.VERIFIED, ONE), "/b?q=1")
    ),
    "to a stranger": (VERIFIED, "https://evil.example/b", None),
    "to another port": (VERIFIED, "https://one.example:444/b", None),
    "from verified TLS to plain HTTP": (VERIFIED, "http://127.0.0.1:8080/b", None),
    "from plain HTTP to TLS, which is verified": (
        PLAIN, "https://two.example/b", (Attempt(TWO, Trust.VERIFIED, LAB), "/b")
    ),
    "unverified stays unverified": (
        UNVERIFIED, "https://two.example/b", (Attempt(TWO, Trust.UNVERIFIED, ONE), "/b")
    ),
    "with letters that no request line can carry": (
        VERIFIED, "/b?q=é&r=%20 x\r\n", (VERIFIED, "/b?q=%C3%A9&r=%20%20x")
    ),
    "to a host alone": (VERIFIED, "https://one.example", (VERIFIED, "/")),
    "to a host and a query alone": (VERIFIED, "https://one.example?q", (VERIFIED, "/?q")),
    "to nowhere": (VERIFIED, "https://[bad/b", None),
    "to a file": (VERIFIED, "file:///etc/passwd", None),
}  # fmt: skip


@pytest.mark.parametrize("sentence", REDIRECTS)
def test_redirects(sentence: str) -> None:
    way, location, expected = REDIRECTS[sentence]
    assert redirected(way, "/x/a", location, (ONE, TWO, LAB)) == expected
