"""The words that people read to each other: what the list promises, and that it never changes."""

from __future__ import annotations

import hashlib
import math
from itertools import combinations, pairwise

import pytest

from repo_tools.signing.words import COUNT, WORDS, fingerprint

_SOUNDS = {
    letter: digit
    for digit, letters in enumerate(("bfpv", "cgjkqsxz", "dt", "l", "mn", "r"), start=1)
    for letter in letters
}


def soundex(word: str) -> str:
    """The code of the American census: words that sound alike share it."""
    sounds = [_SOUNDS.get(letter, 0) for letter in word if letter not in "hw"]
    kept = [
        after
        for before, after in pairwise([_SOUNDS.get(word[0], 0), *sounds[1:]])
        if after and after != before
    ]
    return f"{word[0]}{''.join(map(str, kept))}000"[:4]


def distance(one: str, other: str) -> int:
    """Letters that must be changed, added or left out to get from one word to the other."""
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, start=1):
        last, row[0] = row[0], number
        for place, against in enumerate(other, start=1):
            last, row[place] = (
                row[place],
                min(row[place] + 1, row[place - 1] + 1, last + (letter != against)),
            )
    return row[-1]


def test_a_word_is_one_byte_and_plain_to_say() -> None:
    assert len(set(WORDS)) == 256
    assert list(WORDS) == sorted(WORDS)
    assert all(word.isascii() and word.isalpha() and word.islower() for word in WORDS)
    assert all(4 <= len(word) <= 8 for word in WORDS)
    assert COUNT * math.log2(len(WORDS)) >= 64


def test_no_two_words_are_taken_for_each_other() -> None:
    assert len({soundex(word) for word in WORDS}) == len(WORDS)
    assert len({word[:3] for word in WORDS}) == len(WORDS)
    assert min(distance(one, other) for one, other in combinations(WORDS, 2)) >= 3


def test_the_measures_of_this_test_are_right() -> None:
    assert (soundex("robert"), soundex("rupert"), soundex("ashcraft")) == ("r163", "r163", "a261")
    assert (distance("kitten", "sitting"), distance("same", "same")) == (3, 0)


def test_the_list_is_frozen() -> None:
    digest = hashlib.sha256("\n".join(WORDS).encode()).hexdigest()
    assert digest == "4777bc1381fcc86cee7bfe212096fcc585b47d4a3023250d428b79b2c76d2c9f"


@pytest.mark.parametrize(
    ("role", "payload", "words"),
    [
        ("root", b"{}", "temple sketch zigzag olive morning emperor coconut meadow potato hickory"),
        (
            "gateway-stable",
            b"{}",
            "avenue igloo freckle island dungeon cotton orbit insect sunset topaz",
        ),
        (
            "root",
            b'{"version":1}',
            "kayak blossom cement jaguar rodeo furnace magpie spider farmer doctor",
        ),
    ],
)
def test_the_same_words_on_every_machine(role: str, payload: bytes, words: str) -> None:
    assert fingerprint(role, payload) == words
