"""Eight publishers and a refresher at once on S3, each a process of its own.

Two publishers share each product, so they race for the same offline roles, and everybody races for
snapshot and timestamp. Whoever loses is told why, and does what the message says: runs the command
again, or takes what is live and makes the change again. The bucket keeps every version of every
object, and that is the proof: no name but `timestamp.json` ever had two, and the timestamps that
were ever live are exactly those that the processes say they committed.

`FIRMROOT_KILLS=full` plays 50 rounds, otherwise 5.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from tuf.api.metadata import Metadata, Targets, Timestamp

from client_reference.errors import ExitCode
from client_reference.selection import DevicePosition
from client_reference.trust.updater import Floors
from repo_tools.metadata.repository import sha256
from repo_tools.publishing.rehearse import Device, MappingFetcher, Outcome, meet
from repo_tools.storage import s3
from tests.publishing.bucket import BUCKET, Bucket, moved
from tests.publishing.lab import Lab, image
from tests.simulators.seaweed import ACCESS, SECRET, Service, seaweed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


pytestmark = pytest.mark.services

ROUNDS = 50 if os.environ.get("FIRMROOT_KILLS") == "full" else 5
PUBLISHERS = 8
PRODUCTS = [f"product-{number}" for number in range(PUBLISHERS // 2)]
ATTEMPTS = 60
TIMESTAMP = "metadata/timestamp.json"
# What a loser is told: exit code, and words of the message.
RACE = (
    "somebody else published",
    "a rival published it",
)
FORKED = (
    "what it was made from is no longer live",
    "firmware was added on another machine and published first",
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with seaweed(tmp_path_factory.mktemp("seaweed")) as running:
        client = running.client()
        client.create_bucket(Bucket=BUCKET)
        client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        yield running


@dataclass
class Publisher:
    """One clone of the workspace.

    Attributes:
        lab: the clone.
        product: whose firmware it ships.
        bucket: where it publishes.
        told: exit code and message of each command that failed, and what it committed.
    """

    lab: Lab
    product: str
    bucket: Bucket
    told: list[tuple[int, str]] = field(default_factory=list)

    def pull(self) -> None:
        """As `git pull`: what people signed and is live, and nothing that waits here."""
        for place in ("staged", ".firmroot/staged", "ceremonies"):
            shutil.rmtree(self.lab.directory / place, ignore_errors=True)
        objects = self.bucket.tags()
        role = f"{self.product}-stable"
        newest = max(int(path.split("/")[1].split(".")[0]) for path in objects if role in path)
        data = self.bucket.read(f"metadata/{newest}.{role}.json")
        (self.lab.directory / f"metadata/{role}.json").write_bytes(data)

    def prepare(self, version: str) -> None:
        """A change that is signed: firmware, and a channel that offers it."""
        self.pull()
        file = self.lab.directory.parent / "firmware.img"
        file.write_bytes(image(version, 1000))
        hardware = f"acme,{self.product}"
        self.lab.ok("firmware", "add", file, "-p", self.product, "-V", version,
                    "--hardware", hardware)  # fmt: skip
        self.lab.ok("channel", "promote", f"{self.product}@{version}", "--to", "stable")
        self.lab.ok("sign")

    def publish(self, version: str) -> dict[str, Any]:
        """Until it is live, doing what each error says."""
        for _ in range(ATTEMPTS):
            done = self.lab.run("--json", "publish")
            if done.code == 0:
                found: dict[str, Any] = done.json
                return found
            self.told.append((done.code, done.err))
            if done.code == ExitCode.REFUSED:
                self.prepare(version)
        pytest.fail(f"{version} is not live after {ATTEMPTS} attempts: {self.told}")

    def refresh(self) -> dict[str, Any]:
        """Once; to lose is to be done."""
        done = self.lab.run("--json", "refresh")
        assert done.code == 0, done
        found: dict[str, Any] = done.json
        return found


@dataclass(frozen=True)
class Child:
    """A process that waits for the start, does one thing and tells how it went."""

    pid: int
    answer: int

    def result(self) -> dict[str, Any]:
        with os.fdopen(self.answer, "rb") as pipe:
            told = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if code != 0:
            pytest.fail(f"process {self.pid} ended with {code}: {told.decode()}")
        found: dict[str, Any] = json.loads(told)
        return found


def started(publisher: Publisher, version: str, gate: tuple[int, int]) -> Child:
    """Publish that version, or refresh if there is none, when the gate is closed."""
    client = publisher.bucket.connected
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return Child(pid, reader)
    code = 70
    try:
        # This process ends with both; on the parent's connections it would read others' answers.
        s3.connect = lambda _: client  # type: ignore[assignment]
        vars(publisher.bucket)["client"] = client
        os.close(gate[1])
        os.read(gate[0], 1)
        found = publisher.publish(version) if version else publisher.refresh()
        os.write(writer, json.dumps({"done": found, "told": publisher.told}).encode())
        code = 0
    except BaseException as error:
        os.write(writer, json.dumps({"failed": repr(error), "told": publisher.told}).encode())
        raise
    finally:
        os._exit(code)


def raced(publishers: list[Publisher], refresher: Publisher, number: int) -> list[dict[str, Any]]:
    """One round: everybody at once, each until it is done."""
    versions = [f"{number}.{index}" for index in range(len(publishers))]
    for publisher, version in zip(publishers, versions, strict=True):
        publisher.prepare(version)
    gate = os.pipe()
    children = [started(*each, gate) for each in zip(publishers, versions, strict=True)]
    children.append(started(refresher, "", gate))
    os.close(gate[0])
    os.close(gate[1])
    return [child.result() for child in children]


def history(bucket: Bucket) -> dict[str, list[str]]:
    """Ids of every version that every object ever had, by path; oldest first."""
    pages = bucket.client.get_paginator("list_object_versions").paginate(
        Bucket=BUCKET, Prefix=f"{bucket.prefix}/"
    )
    found: dict[str, list[str]] = {}
    for page in pages:
        assert not page.get("DeleteMarkers"), "something was removed"
        for each in page.get("Versions", ()):
            path = each["Key"].removeprefix(f"{bucket.prefix}/")
            found.setdefault(path, []).insert(0, each["VersionId"])
    return found


def timestamps(bucket: Bucket, ids: list[str]) -> dict[int, str]:
    """Digest of every timestamp that ever was live, by version, which is used once."""
    found: dict[int, str] = {}
    for one in ids:
        data = bucket.client.get_object(
            Bucket=BUCKET, Key=f"{bucket.prefix}/{TIMESTAMP}", VersionId=one
        )["Body"].read()
        version = Metadata[Timestamp].from_bytes(data).signed.version
        assert version not in found, f"timestamp {version} was live with two contents"
        found[version] = sha256(data)
    return found


def check_consistent(bucket: Bucket, lab: Lab, root: bytes, number: int) -> None:
    """A device of each product installs a release of this round, and every release is there."""
    objects = bucket.objects()
    for index, product in enumerate(PRODUCTS):
        position = DevicePosition(product, "stable", (f"acme,{product}",), "slot", "test")
        device = Device("test", position, root, Floors(0, 0, 0))
        outcome, detail = meet(device, MappingFetcher(objects), lab.now)
        assert outcome is Outcome.UPDATES, detail
        mine = {f"installs {number}.{rival}" for rival in (2 * index, 2 * index + 1)}
        assert detail in mine, (product, detail)
        role = f"{product}-builds"
        newest = max(
            (path for path in objects if path.endswith(f".{role}.json")),
            key=lambda path: int(path.split("/")[1].split(".")[0]),
        )
        builds = Metadata[Targets].from_bytes(objects[newest]).signed
        for earlier in range(1, number + 1):
            for rival in (2 * index, 2 * index + 1):
                name = f"builds/{product}/{earlier}.{rival}/firmware.img"
                assert name in builds.targets, f"lost: {name}"
                stored = f"{builds.targets[name].hashes['sha256']}.firmware.img"
                assert f"targets/builds/{product}/{earlier}.{rival}/{stored}" in objects


def test_of_eight_publishers_and_a_refresher_nobody_s_update_is_lost(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    bucket = Bucket(service, "rivals")
    office = Lab(tmp_path / "office" / "acme")
    office.directory.parent.mkdir()
    office.init()
    for product in PRODUCTS:
        office.ok("product", "add", product, "--hardware", f"acme,{product}")
        file = tmp_path / "first.img"
        file.write_bytes(image(product, 1000))
        office.ok("firmware", "add", file, "-p", product, "-V", "0", "--hardware",
                  f"acme,{product}")  # fmt: skip
        office.ok("channel", "promote", f"{product}@0", "--to", "stable")
        office.ok("sign")
    office.ok("publish")
    root = (office.directory / "metadata/root/1.json").read_bytes()
    moved(office, bucket)
    publishers = [
        Publisher(office.copy(tmp_path / f"{number}" / "acme"), PRODUCTS[number // 2], bucket)
        for number in range(PUBLISHERS)
    ]
    refresher = Publisher(office.copy(tmp_path / "refresher" / "acme"), "", bucket)

    told: dict[str, int] = {}
    committed = {1}
    renewed = 0
    for number in range(1, ROUNDS + 1):
        for each in (*publishers, refresher):
            each.lab.now = office.now + timedelta(minutes=number)
        results = raced(publishers, refresher, number)
        assert not [each for each in results if "failed" in each], results
        for result in results[:-1]:
            version = result["done"]["record"]["timestamp"]["version"]
            assert version not in committed, f"timestamp {version} was committed twice"
            committed.add(version)
            for code, message in result["told"]:
                reason = known(code, message)
                assert reason, (code, message)
                told[reason] = told.get(reason, 0) + 1
        last = results[-1]["done"]
        renewed += last["refreshed"]
        assert last["refreshed"] or known(ExitCode.LOCKED, last["reason"]), last
        ids = history(bucket)
        assert {path for path, each in ids.items() if len(each) > 1} == {TIMESTAMP}
        live = timestamps(bucket, ids[TIMESTAMP])
        assert sorted(live) == list(range(1, len(live) + 1))
        assert committed <= live.keys()
        assert len(live) - len(committed) == renewed, "a commit that nobody knows of"
        for result in results[:-1]:
            record = result["done"]["record"]["timestamp"]
            assert live[record["version"]] == record["sha256"]
        check_consistent(bucket, publishers[0].lab, root, number)
        print(f"round {number}: {len(committed) - 1} publishes, {renewed} refreshes so far")
    told_of = ", ".join(f"{count} x {reason!r}" for reason, count in sorted(told.items()))
    print(f"\n{ROUNDS} rounds: {len(committed) - 1} publishes, {renewed} refreshes; told {told_of}")
    assert told, "nobody ever lost a race"


def known(code: int, message: str) -> str:
    """Why a command lost, in words that whoever ran it was told; empty if they were not."""
    reasons = {ExitCode.LOCKED: RACE, ExitCode.REFUSED: FORKED}.get(ExitCode(code), ())
    return next((each for each in reasons if each in message), "")
