"""Text of strangers on a terminal."""

from __future__ import annotations

import pytest

from repo_tools.reporting.visible import visible

CASES = [
    ("plain text stays", "a -> b ✓ é", "a -> b ✓ é"),
    ("lines and tabs of our own stay", "a\n\tb", "a\n\tb"),
    ("an escape sequence is spelt out", "\x1b[2Jx", "\\x1b[2Jx"),
    ("a carriage return is spelt out", "a\rb", "a\\rb"),
    ("a control character of one byte is spelt out", "\x9b2J\x7f", "\\x9b2J\\x7f"),
    ("a mark that turns the direction is spelt out", "\u202eabc", "\\u202eabc"),
    ("half a character is spelt out", "\ud800", "\\ud800"),
]


@pytest.mark.parametrize(
    ("text", "shown"), [row[1:] for row in CASES], ids=[row[0] for row in CASES]
)
def test_only_what_prints_reaches_a_terminal(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_line_has_no_line_breaks() -> None:
    assert visible("a\nb\tc", keep="") == "a\\nb\\tc"
