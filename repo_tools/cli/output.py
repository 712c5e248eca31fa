"""Standard output of `firmroot`, which says of itself that it takes nothing.

Python raises the same error for a full disk under the workspace and for one under the file that
output was sent to. The first stops the work, the second comes after work that is done: so each
write to standard output names itself here, whichever command or library makes it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["OutputError", "named_output"]


class OutputError(OSError):
    """Standard output takes nothing. What the command did until then is done."""


class _Named:
    """A stream whose failures are told apart from those of files."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._failed = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._failures():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._failures():
            self._stream.flush()

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            # Whoever read it has gone (`| head -1`). The command goes on unread: to stop here would
            # leave a publish half done, or end one that was done with a code that says otherwise.
            self._discard()
        except OSError as error:
            self._failed = True
            raise OutputError(f"standard output cannot be written: {error}") from error

    def end(self) -> None:
        """Give up what could not be written."""
        # Or the interpreter would try it once more at exit, and fail with a code of its own. Not
        # before: click tries a stream out, and must not find that it works after all.
        if self._failed:
            self._discard()

    def _discard(self) -> None:
        with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())


@contextlib.contextmanager
def named_output() -> Iterator[None]:
    """Have standard output name itself in what it raises, within this context."""
    stream = sys.stdout
    if stream is None:  # it was closed before the program began: nobody wants to read it
        yield
        return
    named = _Named(stream)
    try:
        with contextlib.redirect_stdout(named):
            yield
    finally:
        named.end()
