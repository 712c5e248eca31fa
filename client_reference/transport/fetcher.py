"""Pure: the protocol by which the core asks for bytes.

The core names objects by their path in the repository and knows no URLs, mirrors, HTTP codes or
retries. What implements this: `transport.fetch` over HTTP, the rehearsal over a storage overlay,
the repository simulator of the tests, and a directory (`DirectoryFetcher`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from client_reference.errors import NotFoundError, NotTrustedError, RetryLaterError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["DirectoryFetcher", "Fetcher"]

CHUNK = 64 * 1024


class Fetcher(Protocol):
    """Bounded, untrusted bytes by repository path (`metadata/...` or `targets/...`)."""

    def fetch(self, path: str, max_length: int) -> bytes:
        """One whole object.

        Args:
            path: such as `metadata/timestamp.json`; segments are already percent-decoded.
            max_length: bytes; never more than this is read or held.

        Raises:
            NotFoundError: the other side says that it is not there.
            NotTrustedError: it is longer than `max_length`.
            RetryLaterError: it could not be had now.
        """

    def stream(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        """The bytes from `offset` on, at most `length` of them, in pieces.

        Raises:
            NotFoundError: the other side says that it is not there.
            RetryLaterError: it could not be had now, or it ended early.
        """


class DirectoryFetcher:
    """A repository in a local directory, laid out as on every storage."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def fetch(self, path: str, max_length: int) -> bytes:
        """One whole file. See `Fetcher.fetch`."""
        try:
            with (self._root / path).open("rb") as file:
                data = file.read(max_length + 1)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise NotFoundError(f"{path} is not in {self._root}") from error
        except OSError as error:
            raise RetryLaterError(f"{path} cannot be read in {self._root}: {error}") from error
        if len(data) > max_length:
            raise NotTrustedError(f"{path} is longer than the {max_length} bytes allowed")
        return data

    def stream(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        """Part of a file. See `Fetcher.stream`."""
        left = length
        try:
            with (self._root / path).open("rb") as file:
                file.seek(offset)
                while left and (chunk := file.read(min(CHUNK, left))):
                    left -= len(chunk)
                    yield chunk
        except FileNotFoundError as error:
            raise NotFoundError(f"{path} is not in {self._root}") from error
        except OSError as error:
            raise RetryLaterError(f"{path} cannot be read in {self._root}: {error}") from error
        if left:
            raise RetryLaterError(f"{path} ended {left} bytes early")
