"""The page about serving has the checks of `verify --through`."""

from __future__ import annotations

from pathlib import Path

from repo_tools.publishing.edge_checks import CHECKS

PAGE = Path(__file__).parent.parent.parent / "docs" / "serving.md"


def test_the_page_has_every_check_word_for_word() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert rows == [
        f"| `{each.id}` | {each.severity.value} | {each.expected} | {each.why} | {each.fix} |"
        for each in CHECKS
    ]
