"""A relay in front of a mirror that does to each connection what a bad network does.

    with FaultProxy(mirror, schedule(seed)) as network:
        ... network.url ...
        network.heal()

Each connection takes the next fault of the schedule; after the last one all are honest. It relays
bytes, not requests, so TLS goes through it as well. Offsets count what the mirror sends.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.simulators.servers import Raw

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.simulators.mirror import Mirror

PIECE = 16_384
_RESET = struct.pack("ii", 1, 0)
_FAR = 1 << 60


@dataclass(frozen=True)
class Fault:
    """What happens to one connection. Nothing, by default.

    Attributes:
        latency: seconds before each piece.
        rate: bytes per second; 0 for as fast as it goes.
        cut: bytes after which it is closed.
        reset: bytes after which it is reset.
        stall: bytes after which nothing comes any more, and nothing ends.
        flips: offsets of bits that arrive changed.
    """

    latency: float = 0.0
    rate: int = 0
    cut: int = _FAR
    reset: int = _FAR
    stall: int = _FAR
    flips: tuple[int, ...] = ()

    @property
    def end(self) -> int:
        """Bytes that still get through."""
        return min(self.cut, self.reset, self.stall)


def schedule(seed: int, longest: int) -> list[Fault]:
    """Faults for the first connections, by a seed.

    Args:
        seed: the same one gives the same faults.
        longest: bytes, the largest offset.
    """
    chance = random.Random(seed)

    def offset() -> int:
        # As many early ones, in headers and metadata, as late ones.
        return int(longest ** chance.random()) - 1

    def fault() -> Fault:
        late, flip = chance.uniform(0.001, 0.05), 8 * offset() + chance.randrange(8)
        kinds = (
            Fault(),
            Fault(latency=late),
            Fault(rate=int(10 ** chance.uniform(3, 7))),
            Fault(cut=offset()),
            Fault(reset=offset()),
            Fault(stall=offset()),
            Fault(flips=(flip, 8 * offset())),
            Fault(latency=late, cut=offset(), flips=(flip,)),
        )
        return chance.choice(kinds)

    return [fault() for _ in range(chance.randrange(1, 12))]


class FaultProxy(Raw):
    """See the module."""

    def __init__(self, mirror: Mirror, faults: Iterable[Fault]) -> None:
        super().__init__(self._relay)
        self._mirror = mirror
        self._faults = list(faults)
        self._lock = threading.Lock()
        self.met = 0

    @property
    def url(self) -> str:
        scheme = self._mirror.url.partition(":")[0]
        return f"{scheme}://127.0.0.1:{self.port}/"

    def heal(self) -> None:
        """No more faults for new connections."""
        with self._lock:
            self._faults.clear()

    def _next(self) -> Fault:
        with self._lock:
            if not self._faults:
                return Fault()
            self.met += 1
            return self._faults.pop(0)

    def _relay(self, peer: socket.socket) -> None:
        fault = self._next()
        with socket.create_connection(("127.0.0.1", self._mirror.server_port)) as there:
            self._start(lambda: _forward(peer, there))
            sent = 0
            while sent < fault.end and (data := there.recv(min(PIECE, fault.end - sent))):
                wait = fault.latency + (len(data) / fault.rate if fault.rate else 0)
                if wait and self.closing.wait(wait):
                    return
                peer.sendall(_flipped(data, sent, fault.flips))
                sent += len(data)
            if sent == fault.stall:
                self.closing.wait()
            if sent == fault.reset:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            else:
                peer.shutdown(socket.SHUT_WR)


def _forward(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(PIECE):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


def _flipped(data: bytes, start: int, flips: tuple[int, ...]) -> bytes:
    changed = bytearray(data)
    for bit in flips:
        place = bit // 8 - start
        if 0 <= place < len(changed):
            changed[place] ^= 1 << bit % 8
    return bytes(changed)
