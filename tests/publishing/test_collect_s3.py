"""Clean-up on S3. The service's clock cannot be set, so the lab lives a little later than today."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from repo_tools.publishing.collect import is_marked
from repo_tools.storage.s3 import S3Storage
from tests.publishing.lab import HARDWARE, PRODUCT, Lab
from tests.simulators.seaweed import ACCESS, SECRET, seaweed

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.services


def test_what_no_state_of_the_window_needs_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with seaweed(tmp_path) as service:
        service.client().create_bucket(Bucket="acme")
        url = f"s3://acme/firmware?endpoint={service.endpoint}"
        lab = Lab(tmp_path / "acme", datetime.now(UTC).replace(microsecond=0))
        lab.init()
        config = lab.directory / "firmroot.toml"
        text = config.read_text()
        config.write_text(text.replace('storage = "repository"', f'storage = "{url}"'))
        lab.ok("product", "add", PRODUCT, "--hardware", HARDWARE)
        lab.ship("1.0")
        lab.ship("1.1")
        storage = S3Storage(url)
        storage.create("targets/of somebody else", b"", "e3b0c44298fc1c149afbf4c8996fb924"
                       "27ae41e4649b934ca495991b7852b855")  # fmt: skip
        # What a killed publish left of a large object, and somebody else's beside the repository.
        client = service.client()
        for key in ("firmware/targets/builds/large.img", "other/large.img"):
            begun = client.create_multipart_upload(Bucket="acme", Key=key)["UploadId"]
            client.upload_part(
                Bucket="acme", Key=key, UploadId=begun, PartNumber=1, Body=bytes(5 << 20)
            )
        now = lab.ok("--json", "gc", "--older", "1d", "--dry-run").json
        assert now["unfinished"] == [], "a publish may be at it"
        later = lab.later(days=90)
        later.ok("refresh")
        before = set(storage.paths(""))
        done = later.ok("--yes", "--json", "gc", "--older", "30d").json
        after = set(storage.paths(""))
        assert sorted(before - after) == done["paths"]
        assert "metadata/1.snapshot.json" in done["paths"]
        assert done["strangers"] == ["targets/of somebody else"]
        assert done["unfinished"] == ["targets/builds/large.img"]
        left = client.list_multipart_uploads(Bucket="acme")["Uploads"]
        assert [each["Key"] for each in left] == ["other/large.img"]
        assert not is_marked(storage)
        later.ok("verify")
        later.ship("1.2")
        later.ok("verify")
