"""Mirrors to and from S3."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from repo_tools.storage.s3 import S3Storage
from tests.simulators.seaweed import ACCESS, SECRET, seaweed
from tests.workflows.drill import Drill, Published

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.services


def test_to_s3_and_back_again(
    drill: Drill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with seaweed(tmp_path) as service:
        service.client().create_bucket(Bucket="acme")
        url = f"s3://acme/mirror?endpoint={service.endpoint}"
        drill.firmroot("mirror", url)
        drill.lab.ship("1.1")
        done = drill.lab.ok("--json", "mirror", url, "--check").json
        assert (done["destination"], done["objects"]) == (url, 6)
        storage = S3Storage(url)
        assert {path: storage.read(path, 1 << 30).data for path in storage.paths("")} == {
            path: data for path, data in drill.honest.items() if "/." not in f"/{path}"
        }
        assert "trusted: everything" in drill.firmroot("verify", url)
        nobody = url.replace("/mirror?", "/nothing?")
        assert "nothing is published there" in drill.firmroot("verify", nobody, code=6)
        config = drill.lab.directory / "firmroot.toml"
        text = config.read_text()
        config.write_text(text.replace('storage = "repository"', f'storage = "{url}"'))
        itself = url.replace("/mirror?", "/mirror/?roots=hold&")
        assert "the storage of this workspace itself" in drill.firmroot("mirror", itself, code=2)
        drill.firmroot("mirror", tmp_path / "back")
    drill.mirror.files = Published(tmp_path / "back")
    drill.install("1.1")
