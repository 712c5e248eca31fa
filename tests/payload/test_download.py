from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import NotFoundError, RetryLaterError
from client_reference.payload.download import BadSegmentError, Download, whole_segments
from client_reference.payload.segments import SEGMENT, Segments, hash_segments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATH = "targets/builds/gateway/1.0/image"
IMAGE = random.Random(1).randbytes(3 * SEGMENT + 1000)
SMALL = IMAGE[:5000]


def cut(data: bytes) -> list[bytes]:
    return [data[at : at + SEGMENT] for at in range(0, len(data), SEGMENT)]


def download(data: bytes) -> Download:
    digest = hashlib.sha256(data).hexdigest()
    if len(data) <= SEGMENT:
        return Download(PATH, digest, whole_segments(digest, len(data)))
    return Download(PATH, digest, Segments(len(data), hash_segments(cut(data))))


@dataclass
class Network:
    """Serves an image; `bend` may change what is served, given the number of the request."""

    data: bytes
    bend: Callable[[int, int, bytes], bytes] = lambda _number, _offset, data: data
    asked: list[tuple[int, int]] = field(default_factory=list)
    piece: int = 65_536

    def fetch(self, path: str, max_length: int) -> bytes:
        raise AssertionError(f"{path} of {max_length} is not to be held whole")

    def stream(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        assert path == PATH
        self.asked.append((offset, length))
        part = self.bend(len(self.asked), offset, self.data[offset : offset + length])
        return iter([part[at : at + self.piece] for at in range(0, len(part), self.piece)])


@dataclass
class Sink:
    """Takes bytes, and checks that only right ones ever arrive, in order and once."""

    expected: bytes
    data: bytearray = field(default_factory=bytearray)
    writes: list[int] = field(default_factory=list)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.data[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        assert data == self.expected[offset : offset + len(data)], "an unverified byte arrived"
        self.writes.append(offset)
        self.data[offset : offset + len(data)] = data


def silent(_done: int, _whole: int) -> None:
    """Nobody watches."""


@pytest.mark.parametrize("piece", [1000, 65_536, SEGMENT, 5 * SEGMENT])
@pytest.mark.parametrize("data", [SMALL, IMAGE[:SEGMENT], IMAGE[: SEGMENT + 1], IMAGE])
def test_an_image_arrives_whole_with_one_request(data: bytes, piece: int) -> None:
    network, sink = Network(data, piece=piece), Sink(data)
    download(data).run(network, sink, 0, silent)
    assert bytes(sink.data) == data
    assert network.asked == [(0, len(data))]
    assert sink.writes == list(range(0, len(data), SEGMENT))


def test_progress_ends_at_the_whole() -> None:
    seen: list[tuple[int, int]] = []
    download(IMAGE).run(Network(IMAGE), Sink(IMAGE), 0, lambda *step: seen.append(step))
    whole = len(IMAGE)
    assert seen == [(SEGMENT, whole), (2 * SEGMENT, whole), (3 * SEGMENT, whole), (whole, whole)]


def flip(data: bytes, at: int) -> bytes:
    return bytes([*data[:at], data[at] ^ 1, *data[at + 1 :]])


def test_a_segment_that_is_bad_once_is_fetched_once_more_alone() -> None:
    at = 2 * SEGMENT + 5
    network = Network(IMAGE, lambda number, _, data: flip(data, at) if number == 1 else data)
    sink = Sink(IMAGE)
    download(IMAGE).run(network, sink, 0, silent)
    assert bytes(sink.data) == IMAGE
    assert network.asked == [(0, len(IMAGE)), (2 * SEGMENT, SEGMENT)]


@pytest.mark.parametrize("at", [0, SEGMENT - 1, SEGMENT, 3 * SEGMENT + 999])
def test_a_segment_that_stays_bad_never_reaches_the_sink(at: int) -> None:
    def bend(_number: int, offset: int, data: bytes) -> bytes:
        return flip(data, at - offset) if 0 <= at - offset < len(data) else data

    network, sink = Network(IMAGE, bend), Sink(IMAGE)
    with pytest.raises(BadSegmentError, match="twice in a row; nothing of them was written"):
        download(IMAGE).run(network, sink, 0, silent)
    assert len(sink.data) == at // SEGMENT * SEGMENT
    assert len(network.asked) == 2


def test_a_transfer_that_is_given_up_ends_now() -> None:
    """Not when the error, which holds the frames, is forgotten: a connection hangs on it."""
    ended: list[tuple[int, int]] = []

    class Held(Network):
        def stream(self, path: str, offset: int, length: int) -> Iterator[bytes]:
            try:
                yield from super().stream(path, offset, length)
            finally:
                ended.append((offset, length))

    with pytest.raises(BadSegmentError) as caught:
        download(IMAGE).run(Held(IMAGE, lambda _n, _o, data: flip(data, 0)), Sink(IMAGE), 0, silent)
    assert ended == [(0, SEGMENT), (0, len(IMAGE))]
    assert caught.tb is not None


def test_a_small_image_is_verified_as_a_whole_before_a_byte_is_written() -> None:
    network, sink = Network(SMALL, lambda _n, _o, data: flip(data, 4999)), Sink(SMALL)
    with pytest.raises(BadSegmentError):
        download(SMALL).run(network, sink, 0, silent)
    assert sink.writes == []


def test_segments_that_verify_do_not_help_a_wrong_whole() -> None:
    wrong = Download(PATH, "0" * 64, Segments(len(IMAGE), hash_segments(cut(IMAGE))))
    with pytest.raises(BadSegmentError, match="though every segment matched its list"):
        wrong.run(Network(IMAGE), Sink(IMAGE), 0, silent)


def test_an_early_end_is_retried_later() -> None:
    network = Network(IMAGE, lambda _n, _o, data: data[: SEGMENT + 10])
    sink = Sink(IMAGE)
    with pytest.raises(RetryLaterError, match="ended 1048566 bytes early"):
        download(IMAGE).run(network, sink, 0, silent)
    assert len(sink.data) == SEGMENT


# How much is there from before, and what is asked for then.
KEPT = {
    "nothing": (0, 0),
    "less than a segment": (SEGMENT - 1, 0),
    "one segment": (SEGMENT, SEGMENT),
    "a segment and a half": (SEGMENT + SEGMENT // 2, SEGMENT),
    "all but the last byte": (len(IMAGE) - 1, 3 * SEGMENT),
}


@pytest.mark.parametrize("sentence", KEPT)
def test_a_resume_asks_for_the_first_segment_that_is_missing(sentence: str) -> None:
    there, asked = KEPT[sentence]
    network, sink = Network(IMAGE), Sink(IMAGE, bytearray(IMAGE[:there]))
    download(IMAGE).run(network, sink, there, silent)
    assert bytes(sink.data) == IMAGE
    assert network.asked == [(asked, len(IMAGE) - asked)]


def test_a_whole_image_that_is_there_is_only_read_back() -> None:
    network, sink = Network(IMAGE), Sink(IMAGE, bytearray(IMAGE))
    download(IMAGE).run(network, sink, len(IMAGE), silent)
    assert network.asked == []
    assert sink.writes == []


def test_a_resume_believes_nothing_that_does_not_verify() -> None:
    torn = bytearray(IMAGE)
    torn[SEGMENT + 7] ^= 1
    network, sink = Network(IMAGE), Sink(IMAGE, torn)
    download(IMAGE).run(network, sink, len(IMAGE), silent)
    assert bytes(sink.data) == IMAGE
    assert network.asked == [(SEGMENT, len(IMAGE) - SEGMENT)]


def test_what_is_not_there_is_said_as_such() -> None:
    class Empty(Network):
        def stream(self, path: str, offset: int, length: int) -> Iterator[bytes]:
            raise NotFoundError(f"{path} {offset} {length}")

    with pytest.raises(NotFoundError):
        download(IMAGE).run(Empty(b""), Sink(IMAGE), 0, silent)


def test_a_long_artifact_cannot_do_without_its_list() -> None:
    with pytest.raises(ValueError, match="has a list of segments"):
        whole_segments("0" * 64, SEGMENT + 1)


MEASURE = """
import hashlib
from client_reference.payload.download import Download
from client_reference.payload.segments import SEGMENT, Segments

COUNT = 100
ONE = bytes(SEGMENT)

class Zeros:
    def fetch(self, path, max_length): ...
    def stream(self, path, offset, length):
        for _ in range(length // 65536):
            yield ONE[:65536]
    def read(self, offset, length): ...
    def write(self, offset, data): ...

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

whole = hashlib.sha256()
for _ in range(COUNT):
    whole.update(ONE)
digests = hashlib.sha256(ONE).digest() * COUNT
before = peak()
item = Download("x", whole.hexdigest(), Segments(COUNT * SEGMENT, digests))
item.run(Zeros(), Zeros(), 0, lambda done, whole: None)
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_image() -> None:
    """Words of measurement: `VmHWM` of the process itself."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 3 * 1024, "KiB above the base, for an image of 100 MiB"
