"""Pure: text of strangers on a terminal. What would move the cursor or hide text is spelt out."""

from __future__ import annotations

__all__ = ["visible"]


def visible(text: str, keep: str = "\n\t") -> str:
    r"""The same text with every character that does not print as `\x1b` or `\u202e`.

    Metadata is read before anybody trusts it: with escape sequences, or with marks that turn the
    direction of writing, it could show something else than what is signed.

    Args:
        text: what may come from metadata.
        keep: characters that are layout of our own.
    """
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode()
        for each in text
    )
