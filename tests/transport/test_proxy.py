from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from client_reference.errors import ConfigurationError, NotFoundError, RetryLaterError
from client_reference.transport.fetch import Roots
from client_reference.transport.policy import Degraded
from client_reference.transport.policy import Mirror as Place
from client_reference.transport.proxy import (
    ProxyServer,
    configured_proxy,
    environment_proxy,
    tunnel_status,
)
from tests.simulators.certificates import Issuer, make_issuer
from tests.simulators.mirror import Mirror
from tests.simulators.servers import Proxy, Raw
from tests.transport.fetchers import FILES, IMAGE, META, fetcher

if TYPE_CHECKING:
    import socket

    from client_reference.transport.fetch import HttpFetcher

PROXY = ProxyServer("proxy.example", 3128)
HTTPS = Place("https", "fw.acme.example", 443, "/")
HTTP = Place("http", "fw.acme.example", 80, "/")
ODD = Place("https", "fw.acme.example", 8443, "/")
V4 = Place("https", "192.0.2.7", 443, "/")
V6 = Place("https", "2001:db8::7", 443, "/")
LOCAL = Place("http", "127.0.0.1", 8080, "/")

URL = "http://proxy.example:3128"
ENVIRONMENTS: dict[str, tuple[dict[str, str], Place, ProxyServer | None]] = {
    "nothing": ({}, HTTPS, None),
    "empty": ({"https_proxy": ""}, HTTPS, None),
    "by the scheme": ({"https_proxy": URL, "http_proxy": "http://other:1"}, HTTPS, PROXY),
    "not the other scheme": ({"https_proxy": URL}, HTTP, None),
    "plain": ({"http_proxy": URL}, HTTP, PROXY),
    "all": ({"all_proxy": URL}, HTTPS, PROXY),
    "scheme before all": ({"all_proxy": "http://other:1", "https_proxy": URL}, HTTPS, PROXY),
    "upper case": ({"HTTPS_PROXY": URL}, HTTPS, PROXY),
    "lower before upper": ({"HTTPS_PROXY": "http://other:1", "https_proxy": URL}, HTTPS, PROXY),
    "upper case all": ({"ALL_PROXY": URL}, HTTPS, PROXY),
    "without a scheme": ({"https_proxy": "proxy.example:3128"}, HTTPS, PROXY),
    "without a port": (
        {"https_proxy": "http://proxy.example"}, HTTPS, ProxyServer("proxy.example", 80)
    ),
    "an address of version 6": (
        {"https_proxy": "http://[2001:db8::1]:3128"}, HTTPS, ProxyServer("2001:db8::1", 3128)
    ),
    "this machine": ({"http_proxy": URL}, LOCAL, None),
    "this machine by name": ({"http_proxy": URL}, Place("http", "localhost", 80, "/"), None),
    "this machine, version 6": ({"http_proxy": URL}, Place("http", "::1", 80, "/"), None),
    "a name that begins like this machine": (
        {"http_proxy": URL}, Place("http", "127.evil.example", 80, "/"), PROXY
    ),
    "no_proxy all": ({"https_proxy": URL, "no_proxy": "*"}, HTTPS, None),
    "no_proxy host": ({"https_proxy": URL, "no_proxy": "a, FW.acme.example"}, HTTPS, None),
    "no_proxy domain": ({"https_proxy": URL, "no_proxy": "acme.example"}, HTTPS, None),
    "no_proxy dotted domain": ({"https_proxy": URL, "no_proxy": ".acme.example"}, HTTPS, None),
    "no_proxy star domain": ({"https_proxy": URL, "no_proxy": "*.acme.example"}, HTTPS, None),
    "no_proxy ends at dots": ({"https_proxy": URL, "no_proxy": "me.example"}, HTTPS, PROXY),
    "no_proxy other host": ({"https_proxy": URL, "no_proxy": "b.example,,"}, HTTPS, PROXY),
    "no_proxy with empty entries, a host that ends with a dot": (
        {"https_proxy": URL, "no_proxy": "a,,b"}, Place("https", "fw.acme.", 443, "/"), PROXY
    ),
    "no_proxy a single dot": ({"https_proxy": URL, "no_proxy": "."}, HTTPS, PROXY),
    "no_proxy upper case": ({"https_proxy": URL, "NO_PROXY": "acme.example"}, HTTPS, None),
    "no_proxy port": ({"https_proxy": URL, "no_proxy": "fw.acme.example:8443"}, ODD, None),
    "no_proxy other port": ({"https_proxy": URL, "no_proxy": "fw.acme.example:8443"}, HTTPS, PROXY),
    "no_proxy address": ({"https_proxy": URL, "no_proxy": "192.0.2.7"}, V4, None),
    "no_proxy network": ({"https_proxy": URL, "no_proxy": "192.0.2.0/24"}, V4, None),
    "no_proxy other network": ({"https_proxy": URL, "no_proxy": "198.51.100.0/24"}, V4, PROXY),
    "no_proxy network and a name": ({"https_proxy": URL, "no_proxy": "192.0.2.0/24"}, HTTPS, PROXY),
    "no_proxy no network": ({"https_proxy": URL, "no_proxy": "here/there"}, V4, PROXY),
    "no_proxy version 6": ({"https_proxy": URL, "no_proxy": "2001:db8::7"}, V6, None),
    "no_proxy version 6 in brackets": ({"https_proxy": URL, "no_proxy": "[2001:db8::7]"}, V6, None),
    "no_proxy version 6 and port": (
        {"https_proxy": URL, "no_proxy": "[2001:db8::7]:8443"}, V6, PROXY
    ),
    "what is not used is not read": (
        {"all_proxy": "socks5://s:1", "https_proxy": URL}, HTTPS, PROXY
    ),
    "what is bypassed is not read": (
        {"https_proxy": "socks5://s:1", "no_proxy": "acme.example"}, HTTPS, None
    ),
}  # fmt: skip


@pytest.mark.parametrize("sentence", ENVIRONMENTS)
def test_the_environment_names_a_proxy(sentence: str) -> None:
    environment, mirror, expected = ENVIRONMENTS[sentence]
    assert environment_proxy(environment, mirror) == expected


NO_PROXIES = {
    "socks5://user:secret@s.example:1080": r"names a SOCKS proxy \(socks5://\), expected http://",
    "socks5h://s.example": "names a SOCKS proxy",
    "https://p.example:443": "names a proxy by https://, expected http://HOST:PORT",
    "http://user:secret@": "names a proxy by http://, expected",
    "http://user:secret@p.example:port": "is not the URL of a proxy",
    "http://user:secret@[p.example": "is not the URL of a proxy",
}


@pytest.mark.parametrize("url", NO_PROXIES)
def test_what_is_no_proxy_is_an_error_that_shows_no_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match=f"https_proxy {NO_PROXIES[url]}") as caught:
        environment_proxy({"https_proxy": url}, HTTPS)
    assert 'tls.proxy = "none"' in caught.value.hint
    assert "secret" not in caught.value.message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_the_password_of_a_proxy_is_never_shown() -> None:
    server = environment_proxy({"https_proxy": "http://us%3Aer:sec%20ret@p:1"}, HTTPS)
    assert server is not None
    secret = base64.b64encode(b"us:er:sec ret").decode()
    assert server.headers == {"Proxy-Authorization": f"Basic {secret}"}
    assert secret not in repr(server)


def test_a_configured_proxy_has_no_password() -> None:
    assert configured_proxy(URL) == PROXY
    with pytest.raises(ConfigurationError, match="has a user name in its URL") as caught:
        configured_proxy("http://user:secret@proxy.example:3128")
    assert "secret" not in str(caught.value)


LONGEST = b"HTTP/1.1 200 OK\r\n" + b"A: ".ljust(8192 - 17 - 4, b"b") + b"\r\n\r\n"


@pytest.mark.parametrize(("more", "works"), [(b"", True), (b"b", False)])
def test_the_answer_of_a_proxy_has_a_bound(issuer: Issuer, more: bytes, *, works: bool) -> None:
    assert len(LONGEST) == 8192
    roots = Roots(system=False, bundle=issuer.bundle)
    with (
        Mirror(FILES, issuer.server("fw", names=("fw.test",))) as mirror,
        Proxy({"fw.test": mirror}) as proxy,
        through(proxy, "https://fw.test/", roots=roots) as http,
    ):
        proxy.greeting = LONGEST[:-4] + more + LONGEST[-4:]
        if works:
            assert http.fetch(META, 100) == FILES[META]
        else:
            with pytest.raises(RetryLaterError, match="does not answer as a proxy does"):
                http.fetch(META, 100)


REPLIES = {
    b"HTTP/1.1 200 Connection established\r\n\r\n": 200,
    b"HTTP/1.0 200\r\n\r\n": 200,
    b"HTTP/1.1 407 Who\r\nA: b\r\n\r\n": 407,
    b"HTTP/2 200\r\n\r\n": None,
    b"HTTP/1.1 2000 X\r\n\r\n": None,
    b"HTTP/1.1 20\r\n\r\n": None,
    b"HTTP/1.1 2x0 X\r\n\r\n": None,
    b"SSH-2.0-x\r\n\r\n": None,
    b"\r\n\r\n": None,
    b"": None,
}


@pytest.mark.parametrize("head", REPLIES)
def test_what_a_proxy_answers(head: bytes) -> None:
    assert tunnel_status(head) == REPLIES[head]


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return make_issuer(tmp_path_factory.mktemp("issuer"))


def through(proxy: Raw, *mirrors: str, password: str = "", **settings: Any) -> HttpFetcher:  # noqa: ANN401 # fields of any type
    """A fetcher whose environment names this proxy."""
    user = f"device:{password}@" if password else ""
    environment = {"all_proxy": f"http://{user}127.0.0.1:{proxy.port}"}
    return fetcher(*mirrors, proxy=lambda place: environment_proxy(environment, place), **settings)


def test_a_plain_request_goes_through_the_proxy_in_absolute_form() -> None:
    with (
        Mirror(FILES) as mirror,
        Proxy({"fw.test": mirror}) as proxy,
        through(proxy, "http://fw.test:8000/a/", password="secret") as http,
    ):
        with pytest.raises(NotFoundError):
            http.fetch(META, 100)
        (head,) = proxy.heads
        assert head.startswith(
            f"GET http://fw.test:8000/a/{META} HTTP/1.1\r\nHost: fw.test:8000\r\n"
        )
        assert f"Proxy-Authorization: Basic {base64.b64encode(b'device:secret').decode()}" in head
        (seen,) = mirror.seen
        assert seen.path == f"a/{META}"
        assert seen.headers["Proxy-Authorization"] is None


def test_tls_goes_through_the_proxy_end_to_end(issuer: Issuer) -> None:
    """The proxy sees the host and nothing of what is asked."""
    with (
        Mirror(FILES, issuer.server("fw", names=("fw.test",))) as mirror,
        Proxy({"fw.test": mirror}) as proxy,
        through(
            proxy,
            "https://fw.test/",
            password="secret",
            roots=Roots(system=False, bundle=issuer.bundle),
            credentials=("Authorization", "Bearer artifact"),
            degraded=Degraded.FORBID,
        ) as http,
    ):
        assert http.fetch(META, 100) == FILES[META]
        assert b"".join(http.stream(IMAGE, 0, 300_000)) == FILES[IMAGE]
        assert http.degraded == {}
        (head,) = proxy.heads
        assert head.startswith("CONNECT fw.test:443 HTTP/1.1\r\nHost: fw.test:443\r\nProxy-Auth")
        assert "artifact" not in head
        assert [seen.headers["Proxy-Authorization"] for seen in mirror.seen] == [None, None]
        assert mirror.seen[1].headers["Authorization"] == "Bearer artifact"


def test_an_address_of_version_6_is_asked_for_in_brackets(issuer: Issuer) -> None:
    with (
        Mirror(FILES, issuer.server("six", address="2001:db8::7")) as mirror,
        Proxy({"[2001:db8::7]": mirror}) as proxy,
        through(
            proxy, "https://[2001:db8::7]:8443/", roots=Roots(system=False, bundle=issuer.bundle)
        ) as http,
    ):
        assert http.fetch(META, 100) == FILES[META]
        assert http.degraded == {}
        assert proxy.heads[0].startswith("CONNECT [2001:db8::7]:8443 HTTP/1.1\r\n")


ANSWERS = {
    "asks for a user name": (b"HTTP/1.1 407 Who are you\r\n\r\n", "asks for a user name", 1),
    "refuses": (b"HTTP/1.1 403 Forbidden\r\n\r\n", "answered 403 to CONNECT fw.test:443", 3),
    "fails": (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "answered 502 to CONNECT fw.test:443", 3),
    "is none": (b"SSH-2.0-OpenSSH\r\n\r\n", "does not answer as a proxy does", 1),
    "hangs up": (b"HTTP/1.1 200", "it closed the connection", 3),
    "never ends": (b"HTTP/1.1 200 OK\r\n" + 10_000 * b"A: b\r\n", "does not answer as a proxy", 1),
}  # fmt: skip


@pytest.mark.parametrize("sentence", ANSWERS)
def test_what_goes_wrong_with_a_proxy_degrades_nothing(sentence: str, issuer: Issuer) -> None:
    answer, message, times = ANSWERS[sentence]
    with (
        Mirror(FILES, issuer.server("fw", names=("fw.test",))) as mirror,
        Proxy({"fw.test": mirror}) as proxy,
        through(
            proxy,
            "https://fw.test/",
            password="secret",
            roots=Roots(system=False, bundle=issuer.bundle),
        ) as http,
    ):
        proxy.answer = answer
        with pytest.raises(RetryLaterError, match=message) as caught:
            http.fetch(META, 100)
        assert not isinstance(caught.value, NotFoundError)
        assert f"the proxy 127.0.0.1:{proxy.port}" in caught.value.message
        assert "secret" not in caught.value.message
        assert len(proxy.heads) == times
        assert mirror.seen == []
        proxy.answer = b""
        assert http.fetch(META, 100) == FILES[META]
        assert http.degraded == {}


def test_a_proxy_that_asks_for_a_user_name_in_plain_is_no_absence() -> None:
    with Mirror(FILES) as mirror, Proxy({"fw.test": mirror}) as proxy:
        proxy.answer = b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n"
        with through(proxy, "http://fw.test/") as http, pytest.raises(RetryLaterError) as caught:
            http.fetch(META, 100)
    assert not isinstance(caught.value, NotFoundError)
    assert "answered 407" in caught.value.message


DEAD = 9
"""A port on loopback at which nobody listens."""


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_dead_proxy_is_named_with_the_place_that_names_it(scheme: str) -> None:
    url = f"http://user:secret@127.0.0.1:{DEAD}"
    variable = f"{scheme}_proxy"
    sources = {
        f"the environment variable {variable}": lambda mirror: environment_proxy(
            {variable: url}, mirror
        ),
        "tls.proxy": lambda _: configured_proxy(f"http://127.0.0.1:{DEAD}"),
    }
    for source, proxy in sources.items():
        http = fetcher(f"{scheme}://fw.test/", proxy=proxy)
        with http, pytest.raises(RetryLaterError) as caught:
            http.fetch(META, 100)
        text = f"the proxy 127.0.0.1:{DEAD} (named by {source}): "
        assert text in caught.value.message
        assert "secret" not in caught.value.message + caught.value.hint
        assert caught.value.hint.startswith("check that proxy")
        assert http.degraded == {}


def test_a_proxy_that_hangs_up_on_a_plain_request_is_named() -> None:
    with Raw(lambda peer: peer.close()) as proxy:
        text = (
            rf"the proxy 127.0.0.1:{proxy.port} \(named by the environment variable all_proxy\): "
        )
        with through(proxy, "http://fw.test/") as http, pytest.raises(RetryLaterError, match=text):
            http.fetch(META, 100)
    with (
        Mirror(FILES) as mirror,
        Proxy({"fw.test": mirror}) as honest,
        through(honest, "http://fw.test/") as http,
    ):
        assert http.fetch(META, 100) == FILES[META]


def test_a_proxy_that_drips_its_answer_is_left_at_the_deadline() -> None:
    def drip(peer: socket.socket) -> None:
        for byte in b"HTTP/1.1 200 OK\r\n" + 100 * b"A: b\r\n":
            if proxy.closing.wait(0.05):
                return
            peer.sendall(bytes([byte]))

    with (
        Raw(drip) as proxy,
        through(proxy, "https://fw.test/", connect=0.3) as http,
        pytest.raises(RetryLaterError, match=r"the proxy .*: no answer in time"),
    ):
        http.fetch(META, 100)


def test_a_socks_proxy_is_an_error_of_the_configuration() -> None:
    environment = {"https_proxy": "socks5://127.0.0.1:1"}
    with (
        fetcher(
            "https://fw.test/", proxy=lambda place: environment_proxy(environment, place)
        ) as http,
        pytest.raises(ConfigurationError, match="https_proxy names a SOCKS proxy"),
    ):
        http.fetch(META, 100)


def test_a_socks_proxy_of_a_degraded_way_is_one_way_less(issuer: Issuer) -> None:
    """Plain HTTP below https is nothing that anybody configured."""
    with Raw(lambda peer: peer.sendall(b"no TLS at all\r\n")) as server, Proxy({}) as proxy:
        environment = {
            "https_proxy": f"http://127.0.0.1:{proxy.port}",
            "http_proxy": "socks5://s:1",
        }
        proxy._hosts = {"fw.test": type("Place", (), {"server_port": server.port})()}
        with (
            fetcher(
                "https://fw.test/",
                proxy=lambda place: environment_proxy(environment, place),
                roots=Roots(system=False, bundle=issuer.bundle),
            ) as http,
            pytest.raises(RetryLaterError, match="http_proxy names a SOCKS proxy"),
        ):
            http.fetch(META, 100)


def test_an_explicit_proxy_serves_this_machine_too() -> None:
    with Mirror(FILES) as mirror, Proxy({"127.0.0.1": mirror}) as proxy:
        server = configured_proxy(f"http://127.0.0.1:{proxy.port}")
        with fetcher(mirror, proxy=lambda _: server) as http:
            assert http.fetch(META, 100) == FILES[META]
        assert len(proxy.heads) == 1
