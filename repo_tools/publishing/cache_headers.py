"""Pure: what the headers of an answer say about caches (RFC 9111, RFC 9211).

Two questions: how long may whoever stands between keep this, and did it come from such a keeper.
Servers and CDNs differ in how they say the second; what is not understood is shown as it came.
"""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AGE_MEANS_KEPT", "age", "directives", "hit", "lifetimes", "shown", "stale"]

AGE_MEANS_KEPT = 1
"""Seconds of `Age` from which on an answer cannot have come from the origin just now."""

_TOLD_BY = ("cache-status", "x-cache", "x-cache-status", "cf-cache-status", "x-proxy-cache")
_HIT = re.compile(r"\bhit\b", re.IGNORECASE)
_STALE = re.compile(r"\b(stale|updating)\b", re.IGNORECASE)
_MAX_DIGITS = 10


def directives(headers: Mapping[str, str]) -> dict[str, str]:
    """The directives of Cache-Control, in lower case; those without an argument are empty.

    Args:
        headers: by name in lower case.
    """
    found: dict[str, str] = {}
    for part in headers.get("cache-control", "").split(","):
        name, _, value = part.strip().partition("=")
        if name:
            found.setdefault(name.lower(), value.strip().strip('"'))
    return found


def lifetimes(headers: Mapping[str, str]) -> tuple[int, int] | None:
    """Seconds for which a private cache, and a shared one, may serve this without asking.

    What may be served while it is asked again (`stale-while-revalidate`) counts: devices get it.

    Returns:
        None if nothing is said, so that each cache may choose (RFC 9111, 4.2.2).
    """
    said = directives(headers)
    if said.keys() & {"no-store", "no-cache"}:
        return 0, 0
    longer = _seconds(said.get("stale-while-revalidate")) or 0
    own = _seconds(said.get("max-age"))
    if own is None:
        own = _until_expires(headers)
    shared = _seconds(said.get("s-maxage"))
    if shared is None:
        shared = own
    if own is None:
        own = shared
    if "private" in said:
        shared = 0
    if own is None or shared is None:
        return None
    return own + (longer if own else 0), shared + (longer if shared else 0)


def age(headers: Mapping[str, str]) -> int:
    """Seconds since the origin said this, as far as caches tell; 0 if none does."""
    return _seconds(headers.get("age")) or 0


def hit(headers: Mapping[str, str]) -> bool:
    """Whether a cache answered, and did not ask the origin for it."""
    told = any(_HIT.search(headers.get(name, "")) for name in _TOLD_BY)
    return told or age(headers) >= AGE_MEANS_KEPT


def stale(headers: Mapping[str, str]) -> bool:
    """Whether a cache says that it served what it should have asked for again."""
    return any(_STALE.search(headers.get(name, "")) for name in _TOLD_BY)


def shown(headers: Mapping[str, str]) -> str:
    """What the headers say about caches on the way, in a few words."""
    told = [
        f"{name}: {headers[name][:60]}" for name in ("age", *_TOLD_BY, "via") if name in headers
    ]
    return ", ".join(told) or "no cache says anything"


def _seconds(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) <= _MAX_DIGITS else None


def _until_expires(headers: Mapping[str, str]) -> int | None:
    if "expires" not in headers:
        return None
    try:
        ends = parsedate_to_datetime(headers["expires"])
        begins = parsedate_to_datetime(headers["date"])
        return max(0, int((ends - begins).total_seconds()))
    except (KeyError, ValueError, TypeError):
        return 0  # a date that cannot be read is past (RFC 9111, 5.3)
