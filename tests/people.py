"""Who is who in the tests: a small company, and the roles in which each of its people signs."""

from __future__ import annotations

__all__ = ["PEOPLE"]

PEOPLE = {
    "alice": ("root", "targets"),
    "bob": ("root", "targets"),
    "carol": ("root", "targets"),
    "rita": ("channel",),
    "sam": ("channel",),
    "tess": ("channel",),
    "oncall-1": ("hold",),
    "oncall-2": ("hold",),
    "ci": ("builds",),
    "publisher": ("snapshot", "timestamp"),
}
