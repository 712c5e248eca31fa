from __future__ import annotations

import hashlib

import pytest

from client_reference.errors import NotTrustedError
from client_reference.payload.segments import (
    SEGMENT,
    Segments,
    has_segments,
    hash_segments,
    list_length,
    parse_segments,
)

LENGTHS = {
    1: 1,
    SEGMENT - 1: 1,
    SEGMENT: 1,
    SEGMENT + 1: 2,
    2 * SEGMENT: 2,
    320 * SEGMENT: 320,
    2**53 - 1: 2**33,
}


@pytest.mark.parametrize("length", LENGTHS)
def test_the_list_has_one_digest_for_each_started_segment(length: int) -> None:
    assert list_length(length) == 32 * LENGTHS[length]
    assert has_segments(length) == (LENGTHS[length] > 1)


@pytest.mark.parametrize("wrong", [0, 63, 65, 96, 32])
def test_a_list_of_another_length_is_refused(wrong: int) -> None:
    with pytest.raises(NotTrustedError, match=f"has {wrong} bytes, expected 64 for an artifact of"):
        parse_segments(b"x" * wrong, SEGMENT + 1)


def test_segments_are_cut_and_matched_by_place() -> None:
    data = bytes(SEGMENT) + b"rest"
    segments = parse_segments(hash_segments([data[:SEGMENT], data[SEGMENT:]]), len(data))
    assert len(segments) == 2
    assert [segments.offset(index) for index in range(2)] == [0, SEGMENT]
    assert [segments.size(index) for index in range(2)] == [SEGMENT, 4]
    assert segments.matches(0, data[:SEGMENT])
    assert segments.matches(1, b"rest")
    assert not segments.matches(0, b"rest")
    assert not segments.matches(1, b"resT")


def test_bytes_of_another_length_never_match() -> None:
    segments = Segments(4, hashlib.sha256(b"longer").digest())
    assert not segments.matches(0, b"longer")
