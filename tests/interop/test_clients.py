"""Independent clients read what firmroot publishes, before and after root was rotated.

`tuf.ngclient` (PyPI) and tuf-js (npm) start from the first root, refresh, and download every target
of the repository; then again over a rotation, once with what they had and once from nothing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tuf.api.metadata import Metadata, Snapshot, Targets

from keys_policy.model import ALGORITHMS
from tests.field import Release, required, serving
from tests.interop.clients import MissingError, install_tuf_js, ngclient, tuf_js
from tests.interop.typed import typed_lab
from tests.real_firmware.made import consecutive_images

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Client = Callable[[Path, str, bytes, list[str]], list[bytes]]

# Making ten RSA keys takes as long as all the other types together.
NGCLIENT_KNOWS = [
    pytest.param(name, marks=pytest.mark.services) if name == "rsa" else name for name in ALGORITHMS
]
# Key types that tuf-js verifies: its own list, of the pinned version.
TUF_JS_KNOWS = ("ed25519", "ecdsa-p256", "ecdsa-p384", "rsa")


def every_target(repository: Path) -> dict[str, bytes]:
    """Content by target path, for all roles of the live snapshot."""
    metadata = repository / "metadata"
    timestamp = json.loads((metadata / "timestamp.json").read_bytes())["signed"]
    version = timestamp["meta"]["snapshot.json"]["version"]
    snapshot = Metadata[Snapshot].from_file(str(metadata / f"{version}.snapshot.json")).signed
    found = {}
    for name, meta in snapshot.meta.items():
        path = metadata / f"{meta.version}.{name}"
        for target in Metadata[Targets].from_file(str(path)).signed.targets.values():
            stored = next(iter(target.get_prefixed_paths()))
            found[target.path] = (repository / "targets" / stored).read_bytes()
    return found


@pytest.fixture
def published(tmp_path: Path, request: pytest.FixtureRequest) -> Release:
    """A repository with one release, all of whose keys are of the parametrized type."""
    release = typed_lab(tmp_path, request.param)
    image = tmp_path / "firmware.img"
    image.write_bytes(consecutive_images("interop", (1 << 20) + 1)[0])
    release.ship(image, "1.0")
    return release


def reads_before_and_after_a_rotation(release: Release, scratch: Path, client: Client) -> None:
    first_root = (release.repository / "metadata" / "1.root.json").read_bytes()
    with serving(release) as url:
        before = every_target(release.repository)
        assert len(before) >= 3, "an artifact, its segments and a manifest"
        assert client(scratch / "old", url, first_root, list(before)) == list(before.values())
        release.run("--yes", "rotate", "carol")
        release.sign_and_publish()
        assert len(list((release.repository / "metadata").glob("*.root.json"))) > 1
        after = every_target(release.repository)
        assert client(scratch / "old", url, first_root, list(after)) == list(after.values())
        assert client(scratch / "new", url, first_root, list(after)) == list(after.values())


@pytest.mark.parametrize("published", NGCLIENT_KNOWS, indirect=True)
def test_ngclient_reads_what_is_published(published: Release, tmp_path: Path) -> None:
    reads_before_and_after_a_rotation(published, tmp_path, ngclient)


@pytest.mark.services
@pytest.mark.parametrize("published", TUF_JS_KNOWS, indirect=True)
def test_tuf_js_reads_what_is_published(published: Release, tmp_path: Path) -> None:
    try:
        modules = install_tuf_js()
    except MissingError as error:
        pytest.skip(required(str(error)))

    def client(directory: Path, url: str, root: bytes, targets: list[str]) -> list[bytes]:
        return tuf_js(modules, directory, url, root, targets)

    reads_before_and_after_a_rotation(published, tmp_path, client)
