"""Metadata of the four types: `trust.verified.read`, `authentic` and what accepts them.

The first byte chooses the type (2 bits), how many good signatures the document is given (2 bits:
as it is, none, one, two) and which role of type targets is meant (2 bits). The rest is the file.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from client_reference.errors import NotTrustedError
from client_reference.trust import clock, verified
from tests.fuzz.honest import BUILDS, LEAF, have_signed, keys, repository, signed_again
from tests.fuzz.refusals import only

KINDS: tuple[type[Any], ...] = (
    Root,
    Timestamp,
    Snapshot,
    Targets,
)
DELEGATED = {1: LEAF, 2: BUILDS}
PATHS = ("builds/gateway/3.1.0/gw2.ext4", "channels/gateway/stable.json", "a/b")


def run(data: bytes) -> None:
    choice, text = data[0] if data else 0, data[1:]
    kind = KINDS[choice & 3]
    role = DELEGATED.get(choice >> 4 & 3, kind.type) if kind is Targets else kind.type
    signers = (choice >> 2) & 3
    if signers:
        text = signed_again(text, keys(role)[::-1][: signers - 1])
    with only(verified.MalformedError):
        file = verified.read(kind, role, text)
        _read_once_more(kind, role, text, file)
    with only(NotTrustedError):
        _accept(kind, role, text)


def _read_once_more(
    kind: type[Any],
    role: str,
    text: bytes,
    file: verified.Unverified[Any],
) -> None:
    """However it is spelled, it means the same and is signed over the same bytes."""
    spelled = json.dumps(json.loads(text), indent=1, sort_keys=True).encode()
    again = verified.read(kind, role, spelled)
    assert again.payload == file.payload
    assert again.signed == file.signed
    assert isinstance(file.signed, kind)
    assert type(file.signed.version) is int
    assert 0 < file.signed.version <= verified.MAX_INTEGER


def _accept(kind: type[Any], role: str, text: bytes) -> None:
    repo = repository()
    if kind is Root:
        root = verified.first_root(text)
        for name in ("root", "timestamp", "snapshot", "targets"):
            verified.rotated(repo.root, root, name)
            verified.rotated(root, repo.root, name)
        assert clock.reset(0, root) >= 0
        return
    delegator = repo.targets if role in DELEGATED.values() else repo.root
    signed = verified.authentic(kind, delegator, role, text)
    file = verified.read(kind, role, text)
    needed = delegator.get_delegated_role(role).threshold
    found = have_signed(
        keys(role), [each.signature for each in file.signatures.values()], file.payload
    )
    assert found >= needed, f"accepted with {found} of {needed} signatures"
    assert signed == file.signed
    if isinstance(signed, Timestamp):
        verified.accept_timestamp(repo.root, text, repo.timestamp, repo.now)
        accepted = verified.accept_timestamp(repo.root, text, None, repo.now)
        clock.check_issued(accepted, repo.root, repo.snapshot, repo.targets)
        assert clock.raised(0, accepted) < accepted.expires.timestamp()
    elif isinstance(signed, Snapshot):
        verified.accept_snapshot(repo.root, _above()[0], text, repo.snapshot, repo.now)
    elif isinstance(signed, Targets):
        verified.accept_targets(delegator, role, _above()[1], text, repo.now)
        _follow(signed)


@functools.cache
def _above() -> tuple[Timestamp, Snapshot]:
    """A timestamp and a snapshot that name versions only: whatever bytes have them are listed."""
    repo = repository()
    timestamp = verified.read(Timestamp, "timestamp", repo.sign("timestamp")).signed
    snapshot = verified.read(Snapshot, "snapshot", repo.sign("snapshot")).signed
    for meta in (timestamp.snapshot_meta, *snapshot.meta.values()):
        meta.length = meta.hashes = None
    return timestamp, snapshot


@functools.cache
def _built() -> bytes:
    return repository().sign(BUILDS)


def _follow(targets: Targets) -> None:
    """What a client does with targets that it accepted: search, and read what is delegated."""
    for target in targets.targets.values():
        with only(NotTrustedError):
            verified.check_target(target, b"image")
    if targets.delegations is None:
        return
    for path in PATHS:
        list(targets.delegations.get_roles_for_target(path))
    for role in (*(targets.delegations.roles or {}), LEAF, BUILDS):
        with only(NotTrustedError):
            verified.authentic(Targets, targets, role, _built())
