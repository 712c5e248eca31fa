"""Pure: which proxy a mirror is asked through.

A proxy is a stranger on the way, like every router: it is told the host of the mirror and nothing
else, since TLS goes through it end to end. Its own password is sent to it alone and shown nowhere.

Rules for the environment, as other programs read it: `http_proxy` and `https_proxy` by the scheme
of the mirror, else `all_proxy`; lower case before upper case; `no_proxy` lists hosts, domains,
addresses and networks that are reached directly, `*` all. This machine itself is always reached
directly. Only plain HTTP to the proxy is spoken; a SOCKS proxy is an error, never ignored.
"""

from __future__ import annotations

import binascii
from dataclasses import field, replace
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from client_reference.errors import ConfigurationError
from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from client_reference.transport.policy import Mirror

__all__ = ["ProxyServer", "configured_proxy", "environment_proxy", "tunnel_status"]

_PORT = 80
_HINT = 'correct it, or set tls.proxy = "none" or to http://HOST:PORT in the device configuration'


@frozen
class ProxyServer:
    """Where a proxy listens.

    Attributes:
        host: name or address.
        port: TCP port.
        authorization: what it is told in `Proxy-Authorization`; may be empty.
        source: what names it, for messages.
    """

    host: str
    port: int
    authorization: str = field(default="", repr=False)
    source: str = field(default="the caller", compare=False)

    @property
    def named(self) -> str:
        """It in a message: where it is and who says so, never what it is told."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"the proxy {host}:{self.port} (named by {self.source})"

    @property
    def headers(self) -> dict[str, str]:
        """What only the proxy may see."""
        return {"Proxy-Authorization": self.authorization} if self.authorization else {}


def configured_proxy(url: str) -> ProxyServer:
    """The proxy of `tls.proxy`.

    Raises:
        ConfigurationError: it is no proxy, or has a password that anyone can read there.
    """
    server = _parse("tls.proxy", url)
    if server.authorization:
        raise ConfigurationError(
            "tls.proxy has a user name in its URL, which anyone can read",
            'set tls.proxy = "environment", and https_proxy for this service alone',
        )
    return server


def environment_proxy(environment: Mapping[str, str], mirror: Mirror) -> ProxyServer | None:
    """The proxy that the environment names for a mirror; None if it is reached directly.

    Raises:
        ConfigurationError: what it names is no HTTP proxy.
    """
    for name in (f"{mirror.scheme}_proxy", "all_proxy"):
        variable = name if environment.get(name) else name.upper()
        url = environment.get(variable, "")
        if url:
            bypass = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
            if _direct(mirror, bypass):
                return None
            return replace(_parse(variable, url), source=f"the environment variable {variable}")
    return None


def _parse(name: str, url: str) -> ProxyServer:
    """Read a URL. It may hold a password: no message repeats it."""
    if "://" not in url:
        url = f"http://{url}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigurationError(f"{name} is not the URL of a proxy", _HINT) from None
    if parts.scheme.startswith("socks"):
        raise ConfigurationError(
            f"{name} names a SOCKS proxy ({parts.scheme}://), expected http://HOST:PORT", _HINT
        )
    if parts.scheme != "http" or not parts.hostname:
        raise ConfigurationError(
            f"{name} names a proxy by {parts.scheme}://, expected http://HOST:PORT", _HINT
        )
    authorization = ""
    if parts.username is not None:
        secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        authorization = f"Basic {binascii.b2a_base64(secret, newline=False).decode()}"
    return ProxyServer(parts.hostname, _PORT if port is None else port, authorization, name)


def _direct(mirror: Mirror, bypass: str) -> bool:
    """Whether a mirror is on this machine, or on the list."""
    host = mirror.host
    loopback = host.startswith("127.") and host.replace(".", "").isdigit()
    if loopback or host in {"localhost", "::1"}:
        return True
    return any(_listed(mirror, entry.strip().lower()) for entry in bypass.split(","))


def _listed(mirror: Mirror, entry: str) -> bool:
    if "/" in entry:
        return _in_network(mirror.host, entry)
    if entry.startswith("["):
        name, _, port = entry[1:].partition("]")
        port = port.removeprefix(":")
    elif entry.count(":") > 1:
        name, port = entry, ""
    else:
        name, _, port = entry.partition(":")
    if port and port != str(mirror.port):
        return False
    name = name.removeprefix("*").removeprefix(".")
    return entry == "*" or (
        name != "" and (mirror.host == name or mirror.host.endswith(f".{name}"))
    )


def _in_network(host: str, network: str) -> bool:
    import ipaddress  # noqa: PLC0415 # rare, and not free

    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def tunnel_status(head: bytes) -> int | None:
    """The status in a proxy's answer to CONNECT, None if that cannot be read."""
    version, _, rest = head.partition(b"\r\n")[0].partition(b" ")
    status = rest[:3]
    known = version.startswith(b"HTTP/1.") and len(status) == len("200") and status.isdigit()
    return int(status) if known and not rest[3:4].strip() else None
