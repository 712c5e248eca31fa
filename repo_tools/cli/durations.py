"""How commands read a length of time."""

from __future__ import annotations

import re
from datetime import timedelta

from client_reference.errors import ConfigurationError

__all__ = ["parse_duration"]

_DURATION = re.compile(r"(\d{1,5})(h|d)")


def parse_duration(text: str) -> timedelta:
    """Read `30d` or `36h`.

    Raises:
        ConfigurationError: it is something else.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ConfigurationError(f"{text!r} is not a time; expected such as 30d or 36h")
    number = int(match[1])
    return timedelta(days=number) if match[2] == "d" else timedelta(hours=number)
