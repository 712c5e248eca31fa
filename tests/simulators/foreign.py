"""A repository that somebody else made with python-tuf, with its private keys at hand.

    theirs = make(tmp_path / "theirs", keys=tmp_path / "keys")

Three versions of root (a key was rotated), a targets role with files of its own, a delegated role
that is terminating and one that is not, key ids that are not derived from the keys, as other tools
have them, and private keys in several kinds of files.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PASSPHRASE = b"correct horse battery staple"
FILES = {
    "firmware/old-1.bin": b"old firmware, version 1\n" * 400,
    "notes.txt": b"read me\n",
}
PLUGINS = {"plugins/a.zip": b"plugin a\n", "plugins/deep/b.zip": b"plugin b\n"}
EXTRAS = {"extras/font.ttf": b"a font\n"}
EVERYTHING = {**FILES, **PLUGINS, **EXTRAS}


@dataclass
class Foreign:
    """Theirs.

    Attributes:
        directory: its storage.
        signers: by what the owners call the key.
        now: when everything was signed.
        roots: the chain.
    """

    directory: Path
    signers: dict[str, CryptoSigner]
    now: datetime
    roots: list[bytes] = field(default_factory=list)
    targets: Targets = field(default_factory=Targets)
    delegated: dict[str, Targets] = field(default_factory=dict)
    consistent: bool = True
    threshold: int = 2
    days: int = 200

    @property
    def expires(self) -> datetime:
        return self.now.replace(microsecond=0) + timedelta(days=self.days)

    def write(self, name: str, signed: Any, *signers: str) -> bytes:  # noqa: ANN401 # any role
        """Sign a role and put it where a consistent snapshot has it."""
        metadata: Metadata[Any] = Metadata(signed)
        for each in signers:
            metadata.sign(self.signers[each], append=True)
        data = metadata.to_bytes()
        path = self.directory / "metadata" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return data

    def add_root(self, *root_keys: str, signed_by: tuple[str, ...]) -> None:
        """The next version, with these keys in the role root."""
        root = Root(
            version=len(self.roots) + 1, expires=self.expires, consistent_snapshot=self.consistent
        )
        for role, names in {
            "root": root_keys,
            "targets": ("maria", "nils", "olga"),
            "snapshot": ("machine",),
            "timestamp": ("machine",),
        }.items():
            for name in names:
                root.add_key(self.signers[name].public_key, role)
            root.roles[role].threshold = self.threshold if role in {"root", "targets"} else 1
        self.roots.append(self.write(f"{root.version}.root.json", root, *signed_by))

    def add_file(self, role: Targets, path: str, data: bytes, *hashes: str) -> None:
        """A target, and its bytes under each of its hashes."""
        role.targets[path] = TargetFile.from_data(path, data, list(hashes or ("sha256",)))
        directory, _, name = path.rpartition("/")
        for digest in role.targets[path].hashes.values():
            stored = self.directory / "targets" / directory / f"{digest}.{name}"
            stored.parent.mkdir(parents=True, exist_ok=True)
            stored.write_bytes(data)

    def delegate(self, name: str, signer: str, *patterns: str, terminating: bool) -> Targets:
        """A role below targets."""
        delegations = self.targets.delegations or Delegations({}, {})
        self.targets.delegations = delegations
        assert delegations.roles is not None
        delegations.roles[name] = DelegatedRole(
            name, [], 1, terminating=terminating, paths=list(patterns)
        )
        self.targets.add_key(self.signers[signer].public_key, name)
        self.delegated[name] = Targets(version=4, expires=self.expires)
        return self.delegated[name]

    def publish(self, version: int) -> None:
        """Sign everything below root, and commit it."""
        self.targets.version, self.targets.expires = version, self.expires
        signed = {"targets": self.write(f"{version}.targets.json", self.targets, "maria", "nils")}
        for name, role in self.delegated.items():
            by = OWNERS.get(name, "paula")
            signed[name] = self.write(f"{role.version}.{name}.json", role, by)
        snapshot = Snapshot(version=version, expires=self.expires, meta={})
        for name, data in signed.items():
            number = version if name == "targets" else self.delegated[name].version
            snapshot.meta[f"{name}.json"] = MetaFile(number)
            del data
        self.write(f"{version}.snapshot.json", snapshot, "machine")
        # Neither length nor hashes, as some tools leave them out.
        timestamp = Timestamp(version=version + 5, expires=self.expires)
        timestamp.snapshot_meta = MetaFile(version)
        self.write("timestamp.json", timestamp, "machine")


OWNERS = {"plugins": "paula", "extras": "nils"}
NAMES = ("maria", "nils", "olga", "quentin", "machine", "paula")


def keys() -> dict[str, CryptoSigner]:
    """ed25519 and P-256, one with an id of another tool's making and a field with its owner."""
    found = {}
    for number, name in enumerate(NAMES):
        private = generate_private_key(SECP256R1()) if number % 2 else Ed25519PrivateKey.generate()
        key = SSlibKey.from_crypto(private.public_key())
        if name in {"maria", "machine"}:
            keyid = hashlib.sha256(f"{name} by another tool".encode()).hexdigest()
            owner = {"x-tuf-on-ci-keyowner": f"@{name}"}
            key = SSlibKey(keyid, key.keytype, key.scheme, key.keyval, owner)
        found[name] = CryptoSigner(private, key)
    return found


def write_keys(signers: dict[str, CryptoSigner], directory: Path) -> None:
    """Private keys in files: PKCS#8, and OpenSSH for some; all have one passphrase."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, signer in signers.items():
        form = PrivateFormat.OpenSSH if name == "nils" else PrivateFormat.PKCS8
        private = signer._private_key  # this test made the key, and forgot it
        (directory / f"{name}.pem").write_bytes(
            private.private_bytes(Encoding.PEM, form, BestAvailableEncryption(PASSPHRASE))
        )


def make(
    directory: Path,
    *,
    now: datetime | None = None,
    change: Callable[[Foreign], None] = lambda _: None,
    keys_in: Path | None = None,
) -> Foreign:
    """The whole repository.

    Args:
        directory: for its storage.
        now: when it is signed.
        change: whatever is different, before targets and what lies below are signed.
        keys_in: where the private keys go.
    """
    theirs = Foreign(directory, keys(), now or datetime.now(UTC))
    if keys_in is not None:
        write_keys(theirs.signers, keys_in)
    theirs.add_root("quentin", "maria", "nils", signed_by=("quentin", "maria"))
    theirs.add_root("olga", "maria", "nils", signed_by=("quentin", "maria", "olga"))
    for path, data in FILES.items():
        theirs.add_file(theirs.targets, path, data, "sha256", "sha512")
    plugins = theirs.delegate("plugins", "paula", "plugins/*", "plugins/*/*", terminating=False)
    for path, data in PLUGINS.items():
        theirs.add_file(plugins, path, data)
    extras = theirs.delegate("extras", "nils", "extras/*", terminating=True)
    for path, data in EXTRAS.items():
        theirs.add_file(extras, path, data)
    change(theirs)
    theirs.add_root("olga", "maria", "nils", signed_by=("olga", "nils"))
    theirs.publish(7)
    return theirs
