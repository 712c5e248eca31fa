"""A fetcher over loopback for tests: short patience, no real sleeps, names of its own."""

from __future__ import annotations

import random
import socket
import time
from typing import TYPE_CHECKING, Any

from client_reference.transport.fetch import Ambient, HttpFetcher, Patience, Roots, Settings
from client_reference.transport.policy import parse_mirror

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from client_reference.transport.connect import Address
    from client_reference.transport.memory import Memory
    from tests.simulators.mirror import Mirror

META = "metadata/timestamp.json"
ROOT = "metadata/2.root.json"
MANIFEST = "targets/channels/gateway/stable.json"
IMAGE = "targets/builds/gateway/1.0/image"
FILES = {
    META: b'{"signed": {}}',
    MANIFEST: b'{"schema": [1, 0]}',
    IMAGE: random.Random(1).randbytes(300_000),
}


def no_names(host: str, port: int) -> list[Address]:
    raise socket.gaierror(socket.EAI_NONAME, f"{host}:{port}: no name is known here")


def fetcher(
    *mirrors: Mirror | str,
    resolve: Callable[[str, int], Sequence[Address]] = no_names,
    memory: Memory | None = None,
    connect: float = 5.0,
    grace: float = 5.0,
    sleep: Callable[[float], None] = lambda _: None,
    **settings: Any,  # noqa: ANN401 # fields of any type
) -> HttpFetcher:
    """Fetch from these mirrors, whose certificates the system does not know."""
    urls = [one if isinstance(one, str) else one.url for one in mirrors]
    given: dict[str, Any] = {"roots": Roots(system=False), **settings}
    return HttpFetcher(
        Settings(mirrors=tuple(parse_mirror(url) for url in urls), **given),
        Ambient(time.monotonic, sleep, lambda: 0.5, resolve, Patience(connect, grace)),
        memory,
    )
