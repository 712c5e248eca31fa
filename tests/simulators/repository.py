"""A TUF repository in memory, with real keys, that is itself a `Fetcher`.

A test reads "change, publish, refresh, assert": change the public metadata objects, call `publish`,
let a client fetch from the simulator. `files` is what a mirror serves: tests that attack replace or
delete entries. `save` writes the same files into a directory, for clients that want HTTP.

    repo = RepositorySimulator()
    repo.delegate("gateway-stable", ["channels/gateway/stable.json"])
    repo.add_target("gateway-stable", "channels/gateway/stable.json", b"{}")
    repo.publish("gateway-stable", "targets")

Keys are made from a counter: two runs serve the same bytes (but for algorithms that sign with
randomness).
"""

from __future__ import annotations

import copy
import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner, Signer
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from client_reference.errors import NotFoundError, NotTrustedError
from client_reference.trust import rootchain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = datetime(2031, 5, 14, 12, 0, 0, tzinfo=UTC)
TOP_LEVEL = (Root.type, Timestamp.type, Snapshot.type, Targets.type)
SECONDS = "%Y-%m-%dT%H:%M:%SZ"


class RepositorySimulator:
    """See the module.

    Attributes:
        files: what is served, by repository path.
        requests: every path that was asked for, in order.
        signed: the newest metadata of each role, published or not; change them freely.
        signers: who signs each role, by key id; remove or exchange them freely.
        hashes: whether snapshot and timestamp carry lengths and hashes.
        now: the moment that expiry is computed from.
        epoch: of the recovery anchor; each has its own keys, and its own place from 1 on.
    """

    def __init__(
        self, now: datetime = NOW, *, hashes: bool = True, consistent: bool = True, epoch: int = 0
    ) -> None:
        self.now = now
        self.epoch = epoch
        self.hashes = hashes
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.signers: dict[str, dict[str, Signer]] = {}
        self._key_count = 0
        expires = self.later(days=365)
        self.signed: dict[str, Signed] = {
            Root.type: Root(version=1, expires=expires, consistent_snapshot=consistent),
            Timestamp.type: Timestamp(version=1, expires=expires),
            Snapshot.type: Snapshot(version=1, expires=expires),
            Targets.type: Targets(version=1, expires=expires),
        }
        for role in TOP_LEVEL:
            self.add_key(role)
        self.snapshot.meta.clear()
        for role in (Root.type, Targets.type, Snapshot.type, Timestamp.type):
            self.write(role)

    @property
    def root(self) -> Root:
        """The newest root, to change."""
        root = self.signed[Root.type]
        assert isinstance(root, Root)
        return root

    @property
    def timestamp(self) -> Timestamp:
        """The newest timestamp, to change."""
        timestamp = self.signed[Timestamp.type]
        assert isinstance(timestamp, Timestamp)
        return timestamp

    @property
    def snapshot(self) -> Snapshot:
        """The newest snapshot, to change."""
        snapshot = self.signed[Snapshot.type]
        assert isinstance(snapshot, Snapshot)
        return snapshot

    @property
    def targets(self) -> Targets:
        """The newest top-level targets, to change."""
        return self.role(Targets.type)

    def role(self, name: str) -> Targets:
        """The newest targets or delegated role, to change."""
        role = self.signed[name]
        assert isinstance(role, Targets)
        return role

    def later(self, **duration: float) -> datetime:
        """A moment after `now` (`timedelta` arguments)."""
        return self.now + timedelta(**duration)

    # Changing

    def new_signer(self) -> CryptoSigner:
        """An ed25519 key that nothing uses yet."""
        self._key_count += 1
        of_epoch = f" of epoch {self.epoch}" if self.epoch else ""
        name = f"simulated key {self._key_count}{of_epoch}"
        seed = hashlib.sha256(name.encode()).digest()
        return CryptoSigner(Ed25519PrivateKey.from_private_bytes(seed))

    def add_key(
        self, role: str, delegator: str = Root.type, signer: Signer | None = None
    ) -> Signer:
        """Let one more key sign a role, and let the delegator say so."""
        signer = signer or self.new_signer()
        above = self.root if role in TOP_LEVEL else self.role(delegator)
        above.add_key(signer.public_key, role)
        self.signers.setdefault(role, {})[signer.public_key.keyid] = signer
        return signer

    def rotate(self, role: str, delegator: str = Root.type) -> None:
        """Replace every key of a role by as many new ones.

        The old root keys go on signing the next root, as a chain needs; drop them from `signers`
        after it is published.
        """
        above = self.root if role in TOP_LEVEL else self.role(delegator)
        old = list(above.get_delegated_role(role).keyids)
        for keyid in old:
            above.revoke_key(keyid, role)
            if role != Root.type:
                self.signers[role].pop(keyid, None)  # a thief may not have it
        for _ in old:
            self.add_key(role, delegator)

    def delegate(
        self,
        name: str,
        paths: list[str],
        *,
        delegator: str = Targets.type,
        threshold: int = 1,
        keys: int = 1,
        terminating: bool = True,
    ) -> None:
        """Add a delegation and an empty role. Publish both."""
        above = self.role(delegator)
        if above.delegations is None:
            above.delegations = Delegations({}, {})
        assert above.delegations.roles is not None
        above.delegations.roles[name] = DelegatedRole(name, [], threshold, terminating, paths)
        if name not in self.signed:
            role = Targets(expires=self.later(days=365))
            role.version = 0  # the first publish makes it 1
            self.signed[name] = role
        for _ in range(keys):
            self.add_key(name, delegator)

    def add_target(self, role: str, path: str, data: bytes, custom: Any = None) -> TargetFile:  # noqa: ANN401 # any JSON value
        """Put a target file where clients look for it, and its hash into a role. Publish that."""
        target = TargetFile.from_data(path, data)
        if custom is not None:
            target.unrecognized_fields["custom"] = custom
        self.role(role).targets[path] = target
        places = target.get_prefixed_paths() if self.root.consistent_snapshot else [path]
        for place in places:
            self.files[f"targets/{place}"] = data
        return target

    def fork(self) -> Self:
        """The same repository in other hands, keys included: what happens to it stays there."""
        other = copy.copy(self)
        other.files = dict(self.files)
        other.requests = []
        other.signers = {role: dict(signers) for role, signers in self.signers.items()}
        other.signed = copy.deepcopy(self.signed)
        return other

    # Publishing

    def publish(self, *roles: str) -> None:
        """Write new versions of these roles, and of snapshot and timestamp where they follow.

        Root follows nothing and is written first: `publish("root")` writes a root alone.
        """
        follow = [role for role in roles if role not in TOP_LEVEL or role == Targets.type]
        last = [Snapshot.type, Timestamp.type]
        if not follow and Snapshot.type not in roles:
            last = [role for role in last if role in roles]
        first = [Root.type] if Root.type in roles else []
        for role in [*first, *follow, *last]:
            self.signed[role].version += 1
            self.write(role)

    def write(self, role: str) -> bytes:
        """Sign a role as it is, serve it, and note it in the metadata above."""
        data = self.sign(role)
        self.files[self.location(role)] = data
        self.note(role, data)
        return data

    def note(self, role: str, data: bytes) -> None:
        """Let snapshot or timestamp name this file of a role."""
        meta = MetaFile(self.signed[role].version)
        if self.hashes:
            meta.length, meta.hashes = len(data), {"sha256": hashlib.sha256(data).hexdigest()}
        if role == Snapshot.type:
            self.timestamp.snapshot_meta = meta
        elif role not in {Root.type, Timestamp.type}:
            self.snapshot.meta[f"{role}.json"] = meta

    def sign(self, role: str) -> bytes:
        """The role as it is, signed by all of its signers, served nowhere."""
        metadata = Metadata(cast("Root", copy.deepcopy(self.signed[role])))  # any of the four
        for signer in self.signers.get(role, {}).values():
            metadata.sign(signer, append=True)
        return metadata.to_bytes()

    def location(self, role: str, version: int | None = None) -> str:
        """Where clients look for a role."""
        version = version or self.signed[role].version
        versioned = role == Root.type or (
            role != Timestamp.type and bool(self.root.consistent_snapshot)
        )
        place = f"metadata/e{self.epoch}/" if self.epoch else "metadata/"
        return f"{place}{f'{version}.' if versioned else ''}{quote(role, safe='')}.json"

    def save(self, directory: Path) -> None:
        """Write what is served as files, laid out as on every storage."""
        for path, data in self.files.items():
            place = directory / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)

    def announce(self) -> None:
        """Publish the root-chain bundles that end with the newest root, and a timestamp for it."""
        newest = self.root.version
        chain = [self.files[self.location(Root.type, n)] for n in range(1, newest + 1)]
        for end in (newest, *rootchain.parse(rootchain.make(chain)).blocks):
            self.files[f"metadata/{rootchain.location(end)}"] = rootchain.make(chain[:end])
        self.timestamp.unrecognized_fields["x-firmroot-root"] = newest
        self.publish(Timestamp.type)

    # Serving

    def fetch(self, path: str, max_length: int) -> bytes:
        """See `Fetcher.fetch`."""
        self.requests.append(path)
        data = self.files.get(path)
        if data is None:
            raise NotFoundError(f"{path} is not served")
        if len(data) > max_length:
            raise NotTrustedError(f"{path} is longer than the {max_length} bytes allowed")
        return data

    def stream(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        """See `Fetcher.stream`."""
        data = self.fetch(path, 2**62)[offset : offset + length]
        for start in range(0, len(data), 65_536):
            yield data[start : start + 65_536]
