"""A team for tests: three people and a workspace, whose clones have one private key each.

Keys are ed25519 and the passphrase is the same for all, so that a test costs milliseconds.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from repo_tools.creation import create_lab
from repo_tools.signing.ceremony import add_signature
from repo_tools.signing.secrets import Secrets
from repo_tools.signing.signers import open_signer, sign
from repo_tools.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from securesystemslib.signer import Signature

    from repo_tools.signing.ceremony import Ceremony

__all__ = ["NOW", "PASSPHRASE", "clone", "give", "make_lab", "publish_by_hand", "signature_of"]

NOW = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)
PASSPHRASE = b"correct horse battery"


def make_lab(directory: Path) -> Workspace:
    """A lab with a staged root and the product gateway, whose targets nobody has signed."""
    ws = create_lab(directory, "repository", PASSPHRASE, NOW)
    (directory / "firmroot.toml").write_text(
        (directory / "firmroot.toml").read_text()
        + '\n[products.gateway]\nhardware = ["acme,gw-2"]\nchannels = ["stable"]\n'
    )
    return Workspace.open(ws.directory)


def clone(ws: Workspace, directory: Path, *names: str) -> Workspace:
    """Somebody's clone: what git has, and the private keys of these names only."""
    shutil.copytree(ws.directory, directory, ignore=shutil.ignore_patterns(".firmroot"))
    config = directory / "firmroot.toml"
    config.write_text(config.read_text().replace("lab = true", "lab = false"))
    theirs = Workspace.open(directory)
    for name in names:
        theirs.add_key_uri(name, f"file:{ws.directory}/.firmroot/keys/{name}.pem")
    return theirs


def signature_of(ws: Workspace, name: str, payload: bytes) -> Signature:
    """A signature over any bytes, right or wrong."""
    holder = ws.keyring[name]
    uri = f"file:.firmroot/keys/{name}.pem"
    return sign(open_signer(uri, holder, Secrets(PASSPHRASE), ws.directory), holder, payload)


def give(ws: Workspace, ceremony: Ceremony, *names: str) -> None:
    """Sign a ceremony as these people."""
    for name in names:
        add_signature(ws, ceremony, signature_of(ws, name, ceremony.payload))


def publish_by_hand(ws: Workspace) -> None:
    """What a publish leaves in git: staged roles of people become the last verified live ones."""
    for role, data in ws.staged_roles().items():
        version_path = f"root/{len(ws.roots()) + 1}.json" if role == "root" else f"{role}.json"
        path = ws.metadata / version_path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        (ws.staged / f"{role}.json").unlink()
