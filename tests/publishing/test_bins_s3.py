"""Hash bins on S3: what one artifact more costs on the wire, and a publish that is killed."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.publishing.bucket import BUCKET, Bucket, moved, run
from tests.simulators.edge import Edge, edge
from tests.simulators.seaweed import ACCESS, SECRET, Service, seaweed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.publishing.lab import Lab

pytestmark = pytest.mark.services
SIGKILL = -9


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    public = {"name": "anonymous", "actions": [f"Read:{BUCKET}"]}
    with seaweed(tmp_path_factory.mktemp("seaweed"), [public]) as running:
        running.client().create_bucket(Bucket=BUCKET)
        yield running


@pytest.fixture(scope="module")
def cdn(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with edge(tmp_path_factory.mktemp("edge"), service.endpoint) as running:
        yield running


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")


def test_one_artifact_more_in_bins_costs_ten_requests(
    service: Service, cdn: Edge, binned_moments: dict[str, Lab], tmp_path: Path
) -> None:
    """As `test_bins` counts them on a directory; here on the wire, and the artifact's own."""
    bucket = Bucket(service, "ten")
    lab = moved(binned_moments["many"].copy(tmp_path / "acme"), bucket)
    sent: list[str] = []
    for version in ("warm", "new"):
        lab.add(version, data=b"firmware")
        lab.promote(version)
        done = run(lab, bucket, cdn, "publish")
        assert done.code == 0
        sent = [point for point in done.points if point.startswith("before ")]
    print(f"{len(sent) - 1} requests besides the artifact")
    assert len(sent) - 1 <= 10, sent


def test_a_publish_into_a_bin_that_is_killed_is_finished_by_the_next(
    service: Service, cdn: Edge, binned_moments: dict[str, Lab], tmp_path: Path
) -> None:
    bucket = Bucket(service, "killed")
    start = moved(binned_moments["live"].copy(tmp_path / "start" / "acme"), bucket)
    start.add("1.1")
    start.promote("1.1")
    before, tags = bucket.objects(), bucket.tags()
    whole = run(start.copy(tmp_path / "whole" / "acme"), bucket, cdn, "publish")
    assert whole.code == 0
    expected = bucket.tags()
    points = range(1, len(whole.points) + 1, 4)
    for point in points:
        tags = bucket.fill(before, tags)
        shutil.rmtree(tmp_path / "trial", ignore_errors=True)
        lab = start.copy(tmp_path / "trial" / "acme")
        assert run(lab, bucket, cdn, "publish", kill_at=point).code == SIGKILL
        assert run(lab, bucket, cdn, "publish").code == 0, whole.points[point - 1]
        assert bucket.tags() == expected, whole.points[point - 1]
    print(f"killed at {len(points)} of {len(whole.points)} points")
