"""Servers on loopback that speak no HTTP, or too much of it: each connection is a function.

    with Raw(lambda peer: peer.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n")) as server:
        ...

Each function runs in a thread of its own; what it raises when the peer goes away is its own end.
`Unanswering` is an address where nobody ever picks up, `Proxy` an HTTP proxy.
"""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.simulators.mirror import Mirror


class Raw:
    """A TCP server."""

    def __init__(self, serve: Callable[[socket.socket], None], host: str = "127.0.0.1") -> None:
        self._serve = serve
        self._listener = socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.closing = threading.Event()
        self.connections = 0

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(5)

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(peer)
            self._start(partial(self._one, peer))

    def _one(self, peer: socket.socket) -> None:
        with peer, suppress(OSError):
            self._serve(peer)


class Unanswering:
    """A listener whose queue is full: a connection to it is neither made nor refused."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        listener = socket.socket()
        self._sockets.append(listener)
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            waiting = socket.socket()
            waiting.settimeout(0)
            with suppress(BlockingIOError):
                waiting.connect(listener.getsockname())
            self._sockets.append(waiting)
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._sockets:
            one.close()

    @property
    def port(self) -> int:
        return int(self._sockets[0].getsockname()[1])


class Proxy(Raw):
    """An HTTP proxy that knows where each host is, and notes the head of every request.

    Attributes:
        heads: as they arrived.
        answer: given to every request instead of an honest one.
        greeting: said when a connection through it stands.
    """

    def __init__(self, hosts: Mapping[str, Mirror]) -> None:
        super().__init__(self._proxy)
        self._hosts = hosts
        self.heads: list[str] = []
        self.answer = b""
        self.greeting = b"HTTP/1.1 200 Connection established\r\n\r\n"

    def _proxy(self, peer: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = peer.recv(1)
            if not byte:
                return
            head += byte
        text = head.decode()
        self.heads.append(text)
        if self.answer:
            peer.sendall(self.answer)
            return
        method, place, _ = text.split(" ", 2)
        host = place if method == "CONNECT" else place.split("/")[2]
        target = self._hosts[host.rpartition(":")[0] if ":" in host else host]
        with ExitStack() as stack:
            there = stack.enter_context(socket.create_connection(("127.0.0.1", target.server_port)))
            if method == "CONNECT":
                peer.sendall(self.greeting)
            else:
                path = "/" + place.split("/", 3)[3]
                own = [
                    line
                    for line in text.split("\r\n")[1:]
                    if not line.lower().startswith(("proxy-authorization:", "connection:"))
                ]
                lines = [f"{method} {path} HTTP/1.1", "Connection: close", *own]
                there.sendall("\r\n".join(lines).encode())
            self._start(lambda: _pump(there, peer))
            _pump(peer, there)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    for one in (source, sink):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
