"""The table of checks as a section of docs/policy.md, between two markers.

python -m tests.keys_policy.render      writes it anew
"""

from __future__ import annotations

from pathlib import Path

from keys_policy.checks import CHECKS

__all__ = ["COMMAND", "PAGE", "page"]

PAGE = Path(__file__).parent.parent.parent / "docs" / "policy.md"
COMMAND = "python -m tests.keys_policy.render"
BEGIN = f"<!-- checks: written by `{COMMAND}` -->\n"
END = "<!-- checks: end -->\n"


def page(text: str) -> str:
    """The page with the table as it is now."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} lacks the lines {BEGIN!r} and {END!r}")
    rows = [("id", "severity", "rule", "why", "how to fix it"), ("---",) * 5]
    rows += [
        (f"`{each.id}`", each.severity.value, each.what, each.why, each.fix) for each in CHECKS
    ]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
