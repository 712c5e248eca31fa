"""Builder, release managers and publisher over S3: the same inbox, on a real service."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import ExitCode
from client_reference.selection import DevicePosition
from client_reference.transport.fetcher import DirectoryFetcher
from client_reference.trust.updater import Floors
from repo_tools.publishing.rehearse import Device, meet
from repo_tools.storage.s3 import S3Storage
from tests.simulators.seaweed import ACCESS, SECRET, seaweed
from tests.workflows.identities import Company, found

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.services


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    (tmp_path / "service").mkdir()
    with seaweed(tmp_path / "service") as running:
        running.client().create_bucket(Bucket="firmware")
        yield f"s3://firmware/acme?endpoint={running.endpoint}"


def device(storage: S3Storage, mirror: Path) -> str:
    """What a device does with what a CDN has, which serves two folders."""
    for folder in ("metadata/", "targets/"):
        for path in storage.paths(folder):
            (mirror / path).parent.mkdir(parents=True, exist_ok=True)
            (mirror / path).write_bytes(storage.read(path, 1 << 30).data)
    position = DevicePosition("gateway", "stable", ("acme,gw-2",), "slot", "one")
    root = (mirror / "metadata/1.root.json").read_bytes()
    born = Device("one", position, root, Floors(0, 0, 0), promised=False)
    return meet(born, DirectoryFetcher(mirror), datetime.now(UTC))[1]


def inbox(storage: S3Storage, folder: str) -> list[str]:
    return list(storage.paths(f"inbox/{folder}/"))


def test_the_inbox_on_s3(url: str, tmp_path: Path) -> None:
    company: Company = found(tmp_path / "acme", url)
    storage = S3Storage(url)
    ci, other, publisher = company["ci"], company["ci-2"], company["publisher"]

    # Two builders at once, and somebody without a key.
    ci.build("1.0", bytes(range(256)) * 5000, name="one.img")
    other.build("1.1", name="two.img")
    ids = [ci.submission(), other.submission()]
    garbage = b"garbage"
    name = hashlib.sha256(garbage).hexdigest()
    storage.create(f"inbox/submissions/{name}/submission.json", garbage, name)
    assert "already there" in ci.submit()
    told = {each["id"]: each for each in publisher.json("publish")["inbox"]}
    assert told[name]["outcome"] == "refused"
    assert sorted(told[each]["outcome"] for each in ids) == ["published", "refused"]
    assert inbox(storage, "submissions") == []
    late = other if told[ids[1]]["outcome"] == "refused" else ci
    assert late.submit("--status", code=ExitCode.REFUSED)
    assert "signed again" in late.submit()
    publisher("publish")
    assert "published" in late.submit("--status")

    company.promote("1.0").submit()
    publisher("publish")
    assert device(storage, tmp_path / "mirror") == "installs 1.0"
    assert inbox(storage, "submissions") == inbox(storage, "waiting") == []
    assert len(inbox(storage, "answers")) == 5
