"""The stage of every drill of design section 7: a lab that is live, a mirror, a device, a thief.

The lab is driven by `firmroot`, the device by `firmroot-device`, both at their command lines and
in one common time. In between is a real server on loopback. Each command of the device is followed
by the question that matters in all drills: did anything that it had accepted go back?
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from tuf.api.metadata import Metadata, MetaFile, Snapshot, TargetFile, Targets, Timestamp

from client_reference.manifest import Artifact, Meaning, parse, serialize
from client_reference.payload.segments import SEGMENT, SUFFIX, hash_segments
from repo_tools.signing.secrets import Secrets
from repo_tools.signing.signers import open_signer
from tests.publishing.lab import HARDWARE, PRODUCT, Lab, image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from securesystemslib.signer import Signer

    from client_reference.manifest import Manifest
    from tests.simulators.device import DeviceOnDisk
    from tests.simulators.mirror import Mirror

__all__ = [
    "BUILDS",
    "HIGHEST",
    "STABLE",
    "TIME",
    "Drill",
    "Published",
    "Thief",
    "hashed",
    "live_lab",
]

STABLE, BUILDS = f"{PRODUCT}-stable", f"{PRODUCT}-builds"
MANIFEST = f"channels/{PRODUCT}/stable.json"
TIME = "%Y-%m-%dT%H:%M:%SZ"
HIGHEST = 2**53 - 1


def live_lab(directory: Path, *, anchored: bool = False) -> Lab:
    """A lab with release 1.0 live, and the factory export of a device beside it, in `device`.

    Args:
        directory: for both.
        anchored: with a recovery anchor.
    """
    lab = Lab(directory / "acme")
    lab.init()
    lab.ok("product", "add", PRODUCT, "--hardware", HARDWARE)
    if anchored:
        lab.ok("anchor", "init")
    lab.ship("1.0")
    if anchored:
        lab.ok("anchor", "publish")
    lab.ok("factory", "export", PRODUCT, "--to", directory / "device")
    return lab


class Published(Mapping[str, bytes]):
    """What a web server in front of the storage has, at every moment."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __getitem__(self, path: str) -> bytes:
        try:
            return (self._root / path).read_bytes()
        except OSError:
            raise KeyError(path) from None

    def __iter__(self) -> Iterator[str]:
        files = (path for path in sorted(self._root.rglob("*")) if path.is_file())
        return (str(path.relative_to(self._root)) for path in files)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass
class Drill:
    """One accident.

    Attributes:
        lab: the release side.
        device: from the lab's factory export.
        mirror: serves what the lab published, until a thief takes it over.
        last: what the device said of itself last.
        resets: sequence resets that were published and not met by the device yet.
    """

    lab: Lab
    device: DeviceOnDisk
    mirror: Mirror
    last: dict[str, Any] = field(default_factory=dict)
    resets: int = 0

    @property
    def honest(self) -> Published:
        """What the lab published."""
        return Published(self.lab.repository)

    def mirrors(self, *urls: str, key: str = "mirrors") -> None:
        """Write the mirrors, or the recovery URLs, into the device's configuration."""
        text = self.device.config.read_text()
        text = re.sub(f"^{key} = .*", f"{key} = {json.dumps(urls)}", text, flags=re.MULTILINE)
        self.device.config.write_text(text)

    # Time, the same on both sides

    def at(self, moment: datetime) -> None:
        """It is this moment everywhere."""
        self.lab.now = moment
        self.device.now = moment.strftime(TIME)

    def later(self, **ago: float) -> None:
        """Time passes."""
        self.at(self.lab.now + timedelta(**ago))

    # The release side

    def firmroot(self, *words: str | Path, code: int = 0) -> str:
        """One command of the release side; everything that it said."""
        done = self.lab.run(*words)
        assert done.code == code, f"{words}: {done}"
        return done.out + done.err

    # The device

    def run(self, *words: str, code: int = 0) -> str:
        """One command of the device; everything that it said."""
        done = self.device.run(*words)
        assert done.code == code, f"{words}: {done}"
        self._nothing_went_back()
        return done.out + done.err

    @property
    def status(self) -> dict[str, Any]:
        """What the device says about itself."""
        return self.device.run("status", before=("--json",)).json

    def _nothing_went_back(self) -> None:
        """Versions fall with a newer root; what may be installed, with an epoch or a reset."""
        now, before = self.status, self.last
        self.last = now
        if not before:
            return
        followed = _root(now) > _root(before)
        assert _root(now) >= _root(before)
        fell = now["confirmed_sequence"] < before["confirmed_sequence"]
        if fell and now["epoch"] == before["epoch"]:
            assert self.resets, "nobody published a sequence reset"
            self.resets -= 1
        if followed:
            return
        assert now["time_floor"] >= before["time_floor"]
        for role in before["roles"]:
            assert now["roles"][role]["version"] >= before["roles"][role]["version"], role

    def version(self, role: str) -> int:
        """Which version of a role the device trusts."""
        found: int = self.status["roles"][role]["version"]
        return found

    def install(self, version: str) -> str:
        """The device updates to a version that is on offer, and keeps it."""
        said = self.run("update")
        assert f"{version} (sequence" in said, said
        assert f"confirmed: {version}" in self.run("confirm")
        self.runs(version)
        return said

    def runs(self, version: str) -> None:
        """The device runs this version, whole, and says so."""
        status = self.status
        assert status["installed"]["version"] == version
        assert status["running"] == status["installed"]["slot"]
        assert self.device.slot(status["running"]) == image(version)

    def unharmed(self, version: str) -> None:
        """The accident is over: an honest release goes out, and the device takes it."""
        before = self.status["confirmed_sequence"]
        self.mirror.files = self.honest
        self.lab.ship(version)
        self.install(version)
        assert self.status["confirmed_sequence"] > before

    # The thief

    def steals(self, *names: str) -> Thief:
        """Somebody copies these keys, and takes over the mirror."""
        ws = self.lab.workspace
        secrets = Secrets(ws.lab_passphrase.read_bytes().strip())
        uris = ws.key_uris()
        keys = {
            name: open_signer(uris[name], ws.keyring[name], secrets, ws.directory) for name in names
        }
        thief = Thief(self.honest, keys)
        self.mirror.files = thief.served
        return thief


def _root(status: dict[str, Any]) -> tuple[int, int]:
    return status["epoch"], status["roles"]["root"]["version"]


def hashed(path: str, data: bytes) -> str:
    """Where a target is served."""
    directory, _, name = path.rpartition("/")
    return f"targets/{directory}/{hashlib.sha256(data).hexdigest()}.{name}"


class Thief:
    """Somebody who has keys and the device's mirror; what they forge stands before what is honest.

    Attributes:
        files: what they forged.
        copied: what was honest when they came; to be withheld.
        served: that, and what is honest where they forged nothing.
        keys: what they stole, by name.
    """

    def __init__(self, honest: Mapping[str, bytes], keys: dict[str, Signer]) -> None:
        self.files: dict[str, bytes] = {}
        self.copied = dict(honest)
        self.served: Mapping[str, bytes] = ChainMap(self.files, self.copied)
        self.keys = keys

    def newest(self, role: str) -> Metadata[Any]:
        """The newest metadata of a role on the mirror."""
        if role == "timestamp":
            return Metadata.from_bytes(self.served["metadata/timestamp.json"])
        name = re.compile(rf"metadata/(\d+)\.{re.escape(role)}\.json")
        found = [match for path in self.served if (match := name.fullmatch(path))]
        newest = max(found, key=lambda match: int(match[1]))
        return Metadata.from_bytes(self.served[newest[0]])

    def forge(self, role: str, edit: Callable[[Any], None], *names: str) -> bytes:
        """The next version of a role, changed and signed with stolen keys."""
        metadata = self.newest(role)
        metadata.signed.version += 1
        edit(metadata.signed)
        metadata.signatures.clear()
        for name in names or self.keys:
            metadata.sign(self.keys[name], append=True)
        data = metadata.to_bytes()
        place = "" if role == "timestamp" else f"{metadata.signed.version}."
        self.files[f"metadata/{place}{role}.json"] = data
        return data

    def put(self, role: Targets, path: str, data: bytes, custom: object = None) -> None:
        """Put a target into a role, and on the mirror."""
        target = TargetFile.from_data(path, data, ["sha256"])
        if custom is not None:
            target.unrecognized_fields["custom"] = custom
        role.targets[path] = target
        self.files[hashed(path, data)] = data

    def say(self, edit: Callable[[Manifest], Manifest], *names: str) -> None:
        """Let the channel say something else."""
        target = self.newest(STABLE).signed.targets[MANIFEST]
        directory, _, name = MANIFEST.rpartition("/")
        place = f"targets/{directory}/{target.hashes['sha256']}.{name}"
        data = serialize(edit(parse(self.served[place])))
        self.forge(STABLE, lambda signed: self.put(signed, MANIFEST, data), *names)

    def offer(self, version: str, sequence: int, data: bytes, *names: str) -> None:
        """Let the channel offer this release, and nothing else."""
        path = f"builds/{PRODUCT}/{version}/firmware.img"
        artifact = Artifact(path, len(data), hashlib.sha256(data).hexdigest())

        def edit(manifest: Manifest) -> Manifest:
            newest = manifest.releases[-1]
            payload = replace(newest.payloads[0], artifact=artifact)
            release = replace(newest, version=version, sequence=sequence, payloads=(payload,))
            return replace(manifest, minimum_sequence=0, releases=(release,))

        self.say(edit, *names)

    def build(self, version: str, sequence: int, data: bytes, *names: str) -> None:
        """Let the builds role list this release."""
        path = f"builds/{PRODUCT}/{version}/firmware.img"
        means = Meaning(PRODUCT, frozenset({HARDWARE}), version, sequence, "slot")
        pieces = (data[at : at + SEGMENT] for at in range(0, len(data), SEGMENT))
        segments = hash_segments(pieces)

        def edit(signed: Targets) -> None:
            self.put(signed, path, data, means.custom())
            self.put(signed, path + SUFFIX, segments, {"segments-of": path})

        self.forge(BUILDS, edit, *names)

    def publish(
        self,
        *roles: str,
        by: str = "publisher",
        snapshot: Callable[[Snapshot], None] = lambda _: None,
        timestamp: Callable[[Timestamp], None] = lambda _: None,
    ) -> None:
        """Let snapshot and timestamp name what was forged, with a stolen online key."""

        def list_roles(signed: Snapshot) -> None:
            for role in roles:
                metadata = self.newest(role)
                data = self.files[f"metadata/{metadata.signed.version}.{role}.json"]
                version = metadata.signed.version
                signed.meta[f"{role}.json"] = MetaFile.from_data(version, data, ["sha256"])
            snapshot(signed)

        data = self.forge("snapshot", list_roles, by)
        listed: Snapshot = Metadata[Snapshot].from_bytes(data).signed

        def name_snapshot(signed: Timestamp) -> None:
            signed.snapshot_meta = MetaFile.from_data(listed.version, data, ["sha256"])
            timestamp(signed)

        self.forge("timestamp", name_snapshot, by)
