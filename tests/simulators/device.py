"""A product's repository and a device that follows it, as files in a directory.

The repository has the roles of design section 4; releases are added with `release`. The device is
driven through the command line's own entry point, `main`, so that a test sees what a user sees.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from client_reference import cli
from client_reference.install import command
from client_reference.manifest import (
    Artifact,
    Hold,
    Manifest,
    Meaning,
    Payload,
    Release,
    Rollout,
    ShareWave,
    serialize,
    serialize_hold,
)
from client_reference.payload.segments import SEGMENT, SUFFIX, has_segments, hash_segments
from client_reference.transport.fetch import Ambient
from tests.simulators.repository import RepositorySimulator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

START = datetime(2031, 1, 1, tzinfo=UTC)
LAB_NOW = "2031-05-14T12:00:00Z"
EVERYBODY = (ShareWave(0, 1000),)
IMPATIENT = Ambient(time.monotonic, lambda _: None, lambda: 0.5)
"""A device that does not wait between its rounds."""


@dataclass
class Publisher:
    """A repository with one product and one channel, and its release managers."""

    repo: RepositorySimulator = field(default_factory=RepositorySimulator)
    manifest: Manifest = field(default_factory=lambda: Manifest("gateway", "stable", 0, ()))

    def __post_init__(self) -> None:
        self.repo.root.unrecognized_fields["x-firmroot-lab"] = True
        self.repo.write("root")
        self.repo.delegate("gateway-stable", ["channels/gateway/stable.json"])
        self.repo.delegate("gateway-stable-hold", ["holds/gateway/stable.json"])
        self.repo.delegate("gateway-builds", ["builds/gateway/*/*"])
        self.repo.publish("gateway-stable", "gateway-stable-hold", "gateway-builds", "targets")

    def artifact(self, release: str, number: int, image: bytes, **meaning: Any) -> Artifact:  # noqa: ANN401 # fields of any type
        """Put an artifact into the builds role, with its list of segments."""
        path = f"builds/gateway/{release}/gw2.img"
        says: dict[str, Any] = {
            "product": "gateway",
            "hardware": frozenset({"acme,gw-2"}),
            "version": release,
            "sequence": number,
            "handler": "slot",
        }
        custom = Meaning(**(says | meaning)).custom()
        target = self.repo.add_target("gateway-builds", path, image, custom)
        if has_segments(len(image)):
            pieces = (image[at : at + SEGMENT] for at in range(0, len(image), SEGMENT))
            of = {"segments-of": path}
            self.repo.add_target("gateway-builds", path + SUFFIX, hash_segments(pieces), of)
        return Artifact(path, len(image), target.hashes["sha256"])

    def release(
        self,
        version: str,
        sequence: int,
        image: bytes,
        edit: Callable[[Release], Release] = lambda release: release,
        **meaning: Any,  # noqa: ANN401 # fields of any type
    ) -> Release:
        """Build an artifact, promote it and publish."""
        artifact = self.artifact(version, sequence, image, **meaning)
        release = edit(
            Release(
                version=version,
                sequence=sequence,
                rollout=Rollout(START, "0" * 16, False, EVERYBODY),  # noqa: FBT003 # not paused
                payloads=(Payload(("acme,gw-2",), "slot", artifact),),
            )
        )
        self.promote(*self.manifest.releases, release)
        return release

    def promote(self, *releases: Release, **changes: Any) -> None:  # noqa: ANN401 # fields of any type
        """Publish the manifest with these releases."""
        fields = {**vars(self.manifest), "releases": releases, **changes}
        self.manifest = Manifest(**fields)
        self.repo.add_target(
            "gateway-stable", "channels/gateway/stable.json", serialize(self.manifest)
        )
        self.repo.publish("gateway-builds", "gateway-stable")

    def hold(self, *sequences: int, product: str = "gateway") -> None:
        """Publish a hold file."""
        data = serialize_hold(Hold(product, "stable", frozenset(sequences)))
        self.repo.add_target("gateway-stable-hold", "holds/gateway/stable.json", data)
        self.repo.publish("gateway-stable-hold")


@dataclass
class Output:
    """What a run of the command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output as JSON."""
        document: dict[str, Any] = json.loads(self.out)
        return document


@dataclass
class DeviceOnDisk:
    """The files of one device, and its command line."""

    directory: Path
    capture: pytest.CaptureFixture[str]
    now: str = LAB_NOW
    environment: dict[str, str] = field(default_factory=dict)
    ambient: Ambient = field(default_factory=lambda: IMPATIENT)
    boots: int = 1

    def restart(self) -> None:
        """Another boot, as the handler `command` sees it."""
        self.boots += 1

    def make(
        self,
        root: bytes,
        mirrors: list[str],
        extra: str = "",
        *,
        recovery_root: bytes | None = None,
        epoch: int = 0,
        **sections: str,
    ) -> None:
        """Write the factory export and the configuration.

        Args:
            root: the factory root.
            mirrors: their URLs.
            recovery_root: of the export, if the repository has an anchor.
            epoch: of the export.
            extra: TOML at the end.
            sections: lines that are added to a section, by its name.
        """
        factory = self.directory / "factory"
        factory.mkdir(parents=True, exist_ok=True)
        (factory / "root.json").write_bytes(root)
        (factory / "recovery-root.json").unlink(missing_ok=True)
        if recovery_root is not None:
            (factory / "recovery-root.json").write_bytes(recovery_root)
        floors = {
            "schema": 1,
            "product": "gateway",
            "epoch": epoch,
            "time": "2031-01-01T00:00:00Z",
            "minimum_sequence": 0,
        }
        (factory / "floors.json").write_text(json.dumps(floors))
        (self.directory / "device.toml").write_text(
            f"""schema = 1
[repository]
product = "gateway"
channel = "stable"
mirrors = {json.dumps(mirrors)}
{sections.get("repository", "")}
[identity]
hardware = "literal:acme,gw-2"
device_id = "literal:device-1"
{sections.get("identity", "")}
[trust]
factory = "factory"
state = "state"
[tls]
{sections.get("tls", "")}
[download]
directory = "cache"
{sections.get("download", "")}
[install]
{sections.get("install", 'slots = { A = "slots/A.img", B = "slots/B.img" }')}
{extra}
"""
        )

    @property
    def config(self) -> Path:
        return self.directory / "device.toml"

    def run(self, *arguments: str, before: tuple[str, ...] = ()) -> Output:
        """Run the command with this device's configuration."""
        self.capture.readouterr()
        environment = {"FIRMROOT_LAB_NOW": self.now} if self.now else {}
        line = [*before, "--config", str(self.config), *arguments]
        boot_id = self.directory / "boot_id"
        boot_id.write_text(f"boot {self.boots}\n")
        with patch.object(command, "BOOT_ID", boot_id):
            code = cli.main(line, environment | self.environment, self.ambient)
        said = self.capture.readouterr()
        return Output(code, said.out, said.err)

    def slot(self, name: str) -> bytes:
        """What is in a slot."""
        path = self.directory / "slots" / f"{name}.img"
        return path.read_bytes() if path.exists() else b""
