"""What a thief can do with stolen keys and a mirror under their control.

The forgeries are whole and well signed, as far as the stolen keys reach: what refuses them is the
device, not a clumsy forgery. Works on a copy of the repository, the mirror; never on the original.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from client_reference.payload.segments import SEGMENT, SUFFIX
from client_reference.trust.verified import next_root
from repo_tools.signing.secrets import Secrets
from repo_tools.signing.signers import open_signer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from securesystemslib.signer import Signer

    from repo_tools.workspace import Workspace

__all__ = ["Thief"]


@dataclass(frozen=True)
class Thief:
    """Somebody with a mirror and some of a lab workspace's keys.

    Attributes:
        workspace: whose keys were stolen.
        mirror: a copy of the repository, served to a device.
    """

    workspace: Workspace
    mirror: Path

    def swap_artifact(self, path: str, evil: bytes, stolen: Sequence[str]) -> None:
        """Put other bytes behind an artifact that a channel already offers.

        Args:
            path: target path of the artifact.
            evil: the bytes.
            stolen: names of the keys: those of the builds role, and `publisher` to have it all
                published as if it were an honest build.
        """
        role = f"{path.split('/')[1]}-builds"
        builds = Metadata[Targets].from_bytes(self._newest(role))
        self._put_target(builds, path, evil)
        if path + SUFFIX in builds.signed.targets:
            hashes = b"".join(
                hashlib.sha256(evil[start : start + SEGMENT]).digest()
                for start in range(0, len(evil), SEGMENT)
            )
            self._put_target(builds, path + SUFFIX, hashes)
        self._publish(role, builds, stolen)

    def speak_for_channel(self, product: str, channel: str, stolen: Sequence[str]) -> None:
        """Sign the channel's role, as if that were theirs to sign.

        Args:
            product: whose channel.
            channel: its name.
            stolen: names of keys; none of them is a release manager's.
        """
        role = f"{product}-{channel}"
        self._publish(role, Metadata[Targets].from_bytes(self._newest(role)), stolen)

    def take_root(self, stolen: Sequence[str]) -> int:
        """Sign the next root, as every device of the old root would believe it; it is theirs alone.

        Args:
            stolen: names of keys: a threshold of root.

        Returns:
            its version.
        """
        newest = self._newest("root")
        root, before = (Metadata[Root].from_bytes(newest) for _ in range(2))
        kept = {self.workspace.keyring[name].key.keyid for name in stolen}
        for keyid in set(before.signed.roles[Root.type].keyids) - kept:
            root.signed.revoke_key(keyid, Root.type)
        root.signed.version += 1
        next_root(before.signed, self._write("root", root, stolen))  # what a device would say
        return root.signed.version

    def _newest(self, role: str) -> bytes:
        files = (self.mirror / "metadata").glob(f"*.{role}.json")
        return max(files, key=lambda file: int(file.name.partition(".")[0])).read_bytes()

    def _put_target(self, role: Metadata[Targets], path: str, data: bytes) -> None:
        old = role.signed.targets[path]
        new = TargetFile.from_data(path, data, ["sha256"])
        new.unrecognized_fields = old.unrecognized_fields
        role.signed.targets[path] = new
        directory, _, name = path.rpartition("/")
        (self.mirror / "targets" / directory / f"{new.hashes['sha256']}.{name}").write_bytes(data)

    def _publish(self, role: str, metadata: Metadata[Targets], stolen: Sequence[str]) -> None:
        """Sign with what was stolen, then have snapshot and timestamp name the forgery."""
        metadata.signed.version += 1
        forged = self._write(role, metadata, stolen)

        snapshot = Metadata[Snapshot].from_bytes(self._newest("snapshot"))
        snapshot.signed.meta[f"{role}.json"] = MetaFile.from_data(
            metadata.signed.version, forged, ["sha256"]
        )
        snapshot.signed.version += 1
        listed = self._write("snapshot", snapshot, ["publisher"])

        place = self.mirror / "metadata" / "timestamp.json"
        timestamp = Metadata[Timestamp].from_bytes(place.read_bytes())
        timestamp.signed.snapshot_meta = MetaFile.from_data(
            snapshot.signed.version, listed, ["sha256"]
        )
        timestamp.signed.version += 1
        self._sign(timestamp, ["publisher"])
        place.write_bytes(timestamp.to_bytes())

    def _write(
        self,
        role: str,
        metadata: Metadata[Root] | Metadata[Targets] | Metadata[Snapshot],
        stolen: Sequence[str],
    ) -> bytes:
        self._sign(metadata, stolen)
        data = metadata.to_bytes()
        place = self.mirror / "metadata" / f"{metadata.signed.version}.{role}.json"
        place.write_bytes(data)
        return data

    def _sign(
        self,
        metadata: Metadata[Root] | Metadata[Targets] | Metadata[Snapshot] | Metadata[Timestamp],
        stolen: Sequence[str],
    ) -> None:
        metadata.signatures.clear()
        for name in stolen:
            metadata.sign(self._signer(name), append=True)

    def _signer(self, name: str) -> Signer:
        workspace = self.workspace
        secrets = Secrets(workspace.lab_passphrase.read_bytes().strip())
        return open_signer(
            workspace.key_uris()[name], workspace.keyring[name], secrets, workspace.directory
        )
