"""Near misses of names."""

from __future__ import annotations

import pytest

from client_reference.nearest import did_you_mean

NAMES = ["stable", "beta", "gateway", "alice", "1.1", "gateway-stable"]

NEAR = {
    "letters exchanged": ("stabel", "stable"),
    "a letter lost": ("gatway", "gateway"),
    "a letter more": ("betta", "beta"),
    "a capital": ("Alice", "alice"),
    "a v before the version": ("v1.1", "1.1"),
    "a longer one": ("gateway-stabel", "gateway-stable"),
}


@pytest.mark.parametrize("sentence", NEAR)
def test_a_near_miss_is_named(sentence: str) -> None:
    found, meant = NEAR[sentence]
    assert did_you_mean(found, NAMES) == f"; did you mean {meant}?"


@pytest.mark.parametrize("found", ["nightly", "1.2", "2.1", "bob", ""])
def test_what_is_far_from_everything_is_not_guessed(found: str) -> None:
    assert did_you_mean(found, NAMES) == ""


def test_among_nothing_nothing_is_near() -> None:
    assert did_you_mean("stable", []) == ""
