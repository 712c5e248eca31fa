"""Making a workspace: the whole directory appears at once, or not at all.

It is built beside its final place and renamed into it, so that an interrupted `init` leaves nothing
that looks like a workspace.
"""

from __future__ import annotations

import shutil
from importlib.resources import files
from typing import TYPE_CHECKING

from client_reference.errors import ConfigurationError
from repo_tools.files import create_file, make_directory, replace_file, sync_directory
from repo_tools.metadata.edits import next_root
from repo_tools.signing.ceremony import add_signature, finish, start_ceremony
from repo_tools.signing.keyring import KEY_DIRECTORY, About, new_key
from repo_tools.signing.secrets import Secrets
from repo_tools.signing.signers import open_signer, sign
from repo_tools.workspace import Occasion, Workspace

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

__all__ = [
    "LAB_KEYS",
    "POLICIES",
    "appear",
    "create_lab",
    "create_workspace",
    "draft_of",
    "write_files",
]

# Every key of a lab, by the role that it has in the story.
LAB_KEYS = (
    *("alice", "bob", "carol"),
    *("rita", "sam", "tess"),
    *("oncall-1", "oncall-2", "ci", "publisher"),
    *("noor", "otto", "pia"),
)

_GITIGNORE = """\
# Keys, locks and what waits on this machine alone.
/.firmroot/
# The default storages.
/repository/
/recovery/
"""

_CONFIG = """\
# firmroot.toml: where the repository lives and what is in it. Rules are in policy.toml.

schema = 1
{lab}
# Where publish writes: a directory in this workspace, or file:///somewhere/else.
storage = "{storage}"

# Where devices fetch from, first choice first; goes into factory exports.
urls = []

# The recovery anchor (firmroot anchor): a storage in another account, and where devices ask it.
{recovery}
recovery_urls = []

# Keys that publish and refresh use by themselves: name = "file:PATH".
[online]
{online}"""


# The policies that a workspace may begin with, the usual one first (`keys_policy.examples`).
POLICIES = ("team", "maker", "fleet")


def create_workspace(directory: Path, storage: str, example: str = POLICIES[0]) -> Workspace:
    """Make a workspace without keys.

    Args:
        directory: where; absent or empty.
        storage: as in `firmroot.toml`.
        example: whose policy it begins with, one of `POLICIES`.

    Raises:
        ConfigurationError: the directory exists and is not empty, or the storage is unknown.
    """
    draft = draft_of(directory)
    try:
        write_files(draft, storage, example, lab=False)
        return appear(draft, directory)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def create_lab(directory: Path, storage: str, passphrase: bytes, now: datetime) -> Workspace:
    """Make a lab: every key on this machine, and a signed root marked LAB.

    Args:
        directory: where; absent or empty.
        storage: as in `firmroot.toml`.
        passphrase: random; encrypts every lab key and is kept beside them.
        now: the time, for the root's expiry.

    Raises:
        ConfigurationError: as `create_workspace`.
    """
    draft = draft_of(directory)
    try:
        write_files(draft, storage, "lab", lab=True)
        create_file(draft / ".firmroot/lab-passphrase", passphrase + b"\n", mode=0o600)
        _make_lab_keys(draft, passphrase, now)
        _sign_lab_root(Workspace.open(draft, occasion=Occasion(now)), passphrase, now)
        return appear(draft, directory)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def draft_of(directory: Path) -> Path:
    """An empty directory beside the final place, in which a workspace is built.

    Raises:
        ConfigurationError: the final place exists and is not empty.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigurationError(
            f"{directory} exists and is not an empty directory",
            "name a directory that does not exist yet",
        )
    final = directory.absolute()
    draft = final.parent / f".{final.name}.init"
    # What a killed run left; nothing of it was ever used.
    shutil.rmtree(draft, ignore_errors=True)
    make_directory(draft)
    return draft


def appear(draft: Path, directory: Path) -> Workspace:
    """Move a finished draft to its place."""
    draft.replace(directory)
    sync_directory(directory.absolute().parent)
    return Workspace.open(directory)


def write_files(draft: Path, storage: str, example: str, *, lab: bool) -> None:
    """The files with which a workspace begins. Raises as `create_workspace`."""
    online = f'publisher = "file:{KEY_DIRECTORY}/publisher.pem"\n' if lab else ""
    mark = "lab = true   # made by init --lab: for trying out, never for devices in the field\n"
    recovery = f'{"" if lab else "# "}recovery_storage = "{"recovery" if lab else "file:///..."}"'
    config = _CONFIG.format(
        lab=mark if lab else "", storage=storage, recovery=recovery, online=online
    )
    policy = files("keys_policy.examples").joinpath(f"{example}.toml").read_bytes()
    replace_file(draft / ".gitignore", _gitignore(storage).encode())
    replace_file(draft / "firmroot.toml", config.encode())
    replace_file(draft / "policy.toml", policy)
    make_directory(draft / "keys")
    make_directory(draft / ".firmroot", mode=0o700)
    Workspace.open(draft, missing_keys=True).storage()


def _gitignore(storage: str) -> str:
    """A storage in the workspace is no part of what git keeps."""
    own = f"/{storage.strip('/')}/\n"
    return _GITIGNORE if "://" in storage or own in _GITIGNORE else _GITIGNORE + own


def _make_lab_keys(draft: Path, passphrase: bytes, now: datetime) -> None:
    for name in LAB_KEYS:
        ws = Workspace.open(draft, missing_keys=True)
        new_key(ws, name, "ed25519", name, passphrase, About(made=now.date()))


def _sign_lab_root(ws: Workspace, passphrase: bytes, now: datetime) -> None:
    root = next_root(ws.policy, ws.keyring, None, now, lab=True)
    ceremony = start_ceremony(ws, "root", root)
    for name in ws.policy.role("root").keys:
        holder = ws.keyring[name]
        signer = open_signer(ws.key_uris()[name], holder, Secrets(passphrase), ws.directory)
        add_signature(ws, ceremony, sign(signer, holder, ceremony.payload))
    finish(ws, ceremony)
