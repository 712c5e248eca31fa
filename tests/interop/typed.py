"""A lab workspace all of whose keys are of one type."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from unittest import mock

from repo_tools import creation
from repo_tools.signing import keyring
from tests.field import HARDWARE, PRODUCT, Release

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keys_policy.model import KeyHolder
    from repo_tools.workspace import Workspace

__all__ = ["typed_lab"]


def typed_lab(directory: Path, algorithm: str) -> Release:
    """What `firmroot init --lab` makes, but with `algorithm` in the place of ed25519."""
    workspace = directory / "acme"
    now = datetime.now(UTC).replace(microsecond=0)
    with _all_keys_are(algorithm):
        creation.create_lab(workspace, "repository", b"lab passphrase of a test", now)
    release = Release(workspace)
    release.run("product", "add", PRODUCT, "--hardware", HARDWARE)
    return release


@contextmanager
def _all_keys_are(algorithm: str) -> Iterator[None]:
    def new_key(
        ws: Workspace, name: str, _: str, holder: str, passphrase: bytes, about: keyring.About
    ) -> KeyHolder:
        return keyring.new_key(ws, name, algorithm, holder, passphrase, about)

    with mock.patch.object(creation, "new_key", new_key):
        yield
