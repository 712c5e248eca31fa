"""The CA bundle that a repository may publish for its devices (`trust/ca-bundle.pem`).

For this updater's own connections only, never for the system's store. It is hygiene: trust does not
rest on it, so that nothing that is wrong with it stops an update. Accepting a new one removes the
old (design 8).
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from client_reference.durable import SPARE, replace_file, sync_directory
from client_reference.errors import LocalFailureError, NotTrustedError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["BundleFile"]

_TRIAL = ".trial"
_UNFINISHED = (_TRIAL, ".new")  # the second is of `durable.replace_file`
_PEM = "the publisher must sign a PEM file for trust/ca-bundle.pem"


class BundleFile:
    """Where the accepted bundle is kept."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def sha256(self) -> str:
        """Hex digest of what is kept; empty if there is nothing."""
        try:
            return hashlib.sha256(self._path.read_bytes()).hexdigest()
        except OSError:
            return ""

    def forget(self) -> None:
        """Drop what is kept, durably: the repository that published it has ended.

        Raises:
            LocalFailureError: it could not be removed.
        """
        try:
            self._path.unlink(missing_ok=True)
            sync_directory(self._path.parent)
        except OSError as error:
            raise LocalFailureError(f"{self._path} cannot be removed: {error}") from error

    def require_room(self, length: int) -> None:
        """Whether a bundle of `length` bytes fits, with room left for the trust store beside it.

        Attack on itself: a bundle that fills this file system ends every later update. What a cut
        left of an earlier one goes first.

        Raises:
            LocalFailureError: it does not.
        """
        try:
            for suffix in _UNFINISHED:
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            volume = os.statvfs(self._path.parent)
        except OSError as error:
            raise LocalFailureError(f"{self._path.parent} cannot be used: {error}") from error
        room = max(volume.f_bavail * volume.f_frsize - SPARE, 0)
        if length > room:
            raise LocalFailureError(
                f"it has {length} bytes, {self._path.parent} has room for {room}",
                "free some space on its file system, or ask the publisher for fewer certificates",
            )

    def keep(self, data: bytes) -> None:
        """Replace what is kept, durably.

        Raises:
            NotTrustedError: it holds no certificates.
            LocalFailureError: it could not be written.
        """
        self._try(data)
        try:
            replace_file(self._path, data)
        except OSError as error:
            raise LocalFailureError(f"{self._path} cannot be written: {error}") from error

    def _try(self, data: bytes) -> None:
        """Load it from a file, as connections do: from memory OpenSSL takes what it refuses there.

        Attack: a bundle that was accepted and cannot be used would leave the device without roots.
        """
        import ssl  # noqa: PLC0415 # a bundle is rare, and so is its cost

        trial = self._path.with_name(self._path.name + _TRIAL)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            try:
                trial.write_bytes(data)
                context.load_verify_locations(trial)
            finally:
                trial.unlink(missing_ok=True)
            found = context.cert_store_stats()["x509"]
        except ssl.SSLError as error:
            raise NotTrustedError(
                f"the published CA bundle holds no certificates: {error}", _PEM
            ) from error
        except OSError as error:
            raise LocalFailureError(f"{self._path} cannot be written: {error}") from error
        if not found:
            raise NotTrustedError("the published CA bundle holds no certificates", _PEM)
