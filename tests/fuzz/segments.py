"""The list of segment hashes: `payload.segments.parse_segments`.

The first seven bytes are the length of the artifact, the rest is the list.
"""

from __future__ import annotations

from client_reference.errors import NotTrustedError
from client_reference.payload.segments import SEGMENT, list_length, parse_segments
from tests.fuzz.refusals import only

LENGTH = 7


def run(data: bytes) -> None:
    length = 1 + int.from_bytes(data[:LENGTH], "big") % 2**53
    listed = data[LENGTH:]
    assert list_length(length) >= 32
    with only(NotTrustedError):
        segments = parse_segments(listed, length)
        sizes = [segments.size(index) for index in range(len(segments))]
        assert sum(sizes) == length
        assert all(0 < size <= SEGMENT for size in sizes)
        assert all(size == SEGMENT for size in sizes[:-1])
        assert len(segments) * 32 == len(listed)
        last = len(segments) - 1
        assert not segments.matches(last, bytes(sizes[last] + 1))
        assert not segments.matches(last, b"")
