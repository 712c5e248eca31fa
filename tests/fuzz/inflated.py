"""The gzip that a mirror may send (`transport.answer.inflate`).

The first byte is how many bytes come at once, 0 for all; the rest is the body.
"""

from __future__ import annotations

import zlib
from contextlib import suppress
from typing import TYPE_CHECKING

from client_reference.transport.answer import inflate
from client_reference.transport.pace import TransportError
from tests.fuzz.refusals import only

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST = 1000


def run(data: bytes) -> None:
    step, body = data[0] if data else 0, data[1:]
    pieces = [body[at : at + step] for at in range(0, len(body), step)] if step else [body]
    in_pieces = b""
    with suppress(TransportError):
        in_pieces = _read(pieces)
    with only(TransportError):
        whole = _read([body])
        if len(whole) > MOST:
            return
        assert in_pieces == whole, "it depends on how it was cut"
        # By zlib alone: one member, to its end, and nothing behind it.
        stream = zlib.decompressobj(wbits=31)
        assert stream.decompress(body) == whole
        assert stream.eof
        assert not stream.unused_data


def _read(pieces: Iterable[bytes]) -> bytes:
    data = b"".join(inflate(pieces, MOST))
    assert len(data) <= MOST + 1, "a few bytes became many"
    return data
