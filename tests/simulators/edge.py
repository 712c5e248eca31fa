"""An edge of a CDN on loopback: nginx with `proxy_cache` in front of an origin.

    with edge(tmp_path, service.endpoint) as cdn:
        HttpFetcher(Settings((parse_mirror(f"{cdn.url}bucket/prefix/"),)), ...)

It keeps what the origin lets it keep, by the headers of the answers, and answers "not there" never
from its cache. Nobody waits for a minute to pass: `pass_time` removes what would have expired.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.simulators.services import free_port, needed, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Edge", "edge"]

_CONFIG = """
daemon off;
worker_processes 1;
pid {top}/pid;
error_log {top}/error.log warn;
{user}
events {{ worker_connections 256; }}
http {{
    log_format asked '$upstream_cache_status $status $uri';
    access_log {top}/access.log asked;
    client_body_temp_path {top}/body;
    proxy_temp_path {top}/proxy;
    fastcgi_temp_path {top}/fastcgi;
    uwsgi_temp_path {top}/uwsgi;
    scgi_temp_path {top}/scgi;
    proxy_cache_path {top}/cache levels=1 keys_zone=edge:1m inactive=1h use_temp_path=off;
    server {{
        listen 127.0.0.1:{port};
        # Only two folders are public; the inbox and the rest of the bucket never.
        location ~ ^/[^/]+/[^/]+/(metadata|targets)/ {{
            proxy_pass {origin};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_cache edge;
            proxy_cache_key $uri;
            proxy_cache_lock on;
        }}
        location / {{ return 404; }}
    }}
}}
"""
_LIFETIME = re.compile(rb"cache-control:[^\r\n]*max-age=(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Edge:
    """A running one.

    Attributes:
        url: of its top, where buckets begin.
        directory: its own.
    """

    url: str
    directory: Path

    def pass_time(self, seconds: float) -> None:
        """What may be kept no longer than so is not kept any more."""
        for path in self._kept():
            with contextlib.suppress(FileNotFoundError):
                lifetime = _LIFETIME.search(path.read_bytes())
                if lifetime is None or int(lifetime.group(1)) <= seconds:
                    path.unlink()

    def forget(self) -> None:
        """Nothing is kept."""
        for path in self._kept():
            path.unlink(missing_ok=True)

    def holds(self, name: str) -> dict[str, str]:
        """Digests of the kept bodies of objects whose key ends so, by key."""
        found: dict[str, str] = {}
        for path in self._kept():
            with contextlib.suppress(FileNotFoundError):
                head, _, rest = path.read_bytes().partition(b"\nKEY: ")
                key = rest.partition(b"\n")[0].decode()
                if head and key.endswith(name):
                    found[key] = hashlib.sha256(rest.partition(b"\r\n\r\n")[2]).hexdigest()
        return found

    def answers(self) -> list[tuple[str, int, str]]:
        """How the cache had it, status and path of every request so far."""
        lines = (self.directory / "access.log").read_text().splitlines()
        rows = (line.split(" ", 2) for line in lines)
        return [(kept, int(status), path) for kept, status, path in rows]

    def _kept(self) -> list[Path]:
        return [path for path in (self.directory / "cache").rglob("*") if path.is_file()]


@contextlib.contextmanager
def edge(directory: Path, origin: str) -> Iterator[Edge]:
    """Run it until the end of the block; without nginx the test is skipped, on CI it fails.

    Args:
        directory: gets a folder for it.
        origin: URL of what it stands before.
    """
    program, port = needed("nginx", "apt-get install nginx-light"), free_port()
    top = directory / "edge"
    top.mkdir()
    user = "user root;" if os.getuid() == 0 else ""
    config = top / "nginx.conf"
    config.write_text(_CONFIG.format(top=top, port=port, origin=origin, user=user))
    line = [program, "-c", str(config), "-e", str(top / "error.log"), "-p", str(top)]
    url = f"http://127.0.0.1:{port}/"
    with running(line, {}, url, top / "nginx.log"):
        yield Edge(url, top)
