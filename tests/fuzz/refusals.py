"""What a parser may answer besides a value: a typed error that can be shown to a person."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client_reference.errors import FirmrootError

LONGEST = 2000
"""Characters. Attack: an error that quotes a whole hostile file fills the log of a device."""


@contextmanager
def only(*kinds: type[FirmrootError]) -> Iterator[None]:
    """Let these errors pass in silence; whatever else is raised is a finding."""
    try:
        yield
    except kinds as error:
        _judge(error)


def _judge(error: FirmrootError) -> None:
    assert error.message, f"{type(error).__name__} says nothing"
    told = len(error.message) + len(error.hint)
    assert told <= LONGEST, f"{type(error).__name__} says it in {told} characters"
