"""A storage that an argument names: a folder seen from here, `file:///...` or `s3://...`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from client_reference.errors import ConfigurationError
from repo_tools.storage.local import LocalStorage

if TYPE_CHECKING:
    from repo_tools.storage.protocol import Storage

__all__ = ["open_place"]


def open_place(text: str, argument: str, more: str = "") -> Storage:
    """The storage there.

    Args:
        text: as it was given.
        argument: what the help calls it.
        more: what else it may be.

    Raises:
        ConfigurationError: it is something else.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        return LocalStorage(Path(text).absolute())
    if scheme == "file" and rest.startswith("/"):
        return LocalStorage(Path(rest), text)
    if scheme == "s3":
        from repo_tools.storage.s3 import S3Storage  # noqa: PLC0415 # for those who have one

        return S3Storage(text)
    raise ConfigurationError(
        f"{argument} is {text!r}; expected a folder, file:///... or s3://...{more}",
        "for example /srv/mirror",
    )
