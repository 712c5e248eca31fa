"""On S3: killed at every request, before it is sent and after it was executed, a publish finishes.

After each kill devices from every earlier state see the old release or the new one; the same
command, run again, finishes; and then the bucket holds what an undisturbed publish leaves.
`FIRMROOT_KILLS=full` kills at each request; otherwise at a spread of them.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from client_reference.selection import DevicePosition
from client_reference.transport.fetcher import DirectoryFetcher
from client_reference.trust.updater import Floors
from repo_tools.cli.main import main
from repo_tools.publishing.rehearse import Device, Outcome, meet
from repo_tools.storage import s3
from repo_tools.storage.s3 import S3Client, S3Storage
from tests.publishing.lab import HARDWARE, PRODUCT, Lab
from tests.simulators.seaweed import ACCESS, SECRET, Service, seaweed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


pytestmark = pytest.mark.services

FULL = os.environ.get("FIRMROOT_KILLS") == "full"
SPREAD = 4
BUCKET = "firmware"
# Small enough that the firmware of a lab goes up in parts.
PART = 5 << 20

CASES = {
    "the first publish": ("ready", "publish", {"nothing", "1.0"}),
    "a publish onto a live state": ("next", "publish", {"1.0", "1.1"}),
    "a refresh": ("live", "refresh", {"1.0"}),
    "a publish with a new root": ("rotated", "publish", {"1.0"}),
    "handing in": ("next", "submit", {"1.0"}),
    "a publish of what was handed in": ("handed in", "publish", {"1.0", "1.1"}),
    "a publish into a hash bin": ("in bins", "publish", {"1.0", "1.1"}),
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with seaweed(tmp_path_factory.mktemp("seaweed")) as running:
        running.client().create_bucket(Bucket=BUCKET)
        yield running


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")


@dataclass
class Bucket:
    """One prefix of the bucket, as a lab's storage."""

    service: Service
    prefix: str

    @property
    def url(self) -> str:
        return f"s3://{BUCKET}/{self.prefix}?endpoint={self.service.endpoint}"

    def objects(self) -> dict[str, bytes]:
        """Everything that is there."""
        storage = S3Storage(self.url)
        return {path: storage.read(path, 1 << 30).data for path in storage.paths("")}

    def fill(self, objects: dict[str, bytes]) -> None:
        """Make it hold this and nothing else."""
        client = self.service.client()
        for path in set(self.objects()) - set(objects):
            client.delete_object(Bucket=BUCKET, Key=f"{self.prefix}/{path}")
        for path, data in objects.items():
            client.put_object(
                Bucket=BUCKET, Key=f"{self.prefix}/{path}", Body=data, ChecksumAlgorithm="SHA256"
            )


def moved(lab: Lab, bucket: Bucket) -> Lab:
    """The lab, with its repository on S3."""
    config = lab.directory / "firmroot.toml"
    text = config.read_text()
    assert 'storage = "repository"' in text
    config.write_text(text.replace('storage = "repository"', f'storage = "{bucket.url}"'))
    files = sorted(path for path in lab.repository.rglob("*") if path.is_file())
    bucket.fill(
        {
            path.relative_to(lab.repository).as_posix(): path.read_bytes()
            for path in files
            if not path.name.startswith(".")
        }
    )
    shutil.rmtree(lab.repository, ignore_errors=True)
    return lab


def offered(objects: dict[str, bytes], lab: Lab, root: bytes, top: Path) -> str:
    """The release that a device with the first root would install now."""
    if "metadata/timestamp.json" not in objects:
        return "nothing"
    shutil.rmtree(top, ignore_errors=True)
    for path, data in objects.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(data)
    position = DevicePosition(PRODUCT, "stable", (HARDWARE,), "slot", "test")
    device = Device("test", position, root, Floors(0, 0, 0))
    outcome, detail = meet(device, DirectoryFetcher(top), lab.now)
    assert outcome is Outcome.UPDATES, f"a device met {outcome.value}: {detail}"
    return detail.removeprefix("installs ")


class Requests:
    """Counts requests and answers of the SDK; at the chosen one the process dies."""

    def __init__(self, kill_at: int) -> None:
        self.kill_at = kill_at
        self.count = 0

    def step(self, **_: Any) -> None:  # noqa: ANN401 # whatever the SDK tells
        self.count += 1
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, client: S3Client) -> S3Client:
        client.meta.events.register("before-send.s3", self.step)
        client.meta.events.register("after-call.s3", self.step)
        return client


def run_counted(lab: Lab, verb: str, kill_at: int = 0) -> tuple[int, int]:
    """A command in a child: its wait status, and how many requests and answers there were."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            requests, connect = Requests(kill_at), s3.connect
            s3.connect = lambda place: requests.watch(connect(place))
            with lab.environment(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                code = main(["-C", str(lab.directory), verb])
            os.write(writer, str(requests.count).encode())
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        counted = pipe.read()
    return os.waitpid(child, 0)[1], int(counted or 0)


def started(moments: dict[str, Lab], moment: str, directory: Path) -> Lab:
    """A copy of the lab at that moment."""
    made = {"rotated": "live", "handed in": "next", "in bins": "binned"}
    lab = moments[made.get(moment, moment)].copy(directory)
    if moment == "handed in":
        lab.ok("submit")
        for place in ("staged", ".firmroot/staged", ".firmroot/outbox"):
            shutil.rmtree(lab.directory / place)
    if moment == "in bins":
        lab.add("1.1")
        lab.promote("1.1")
    if moment == "rotated":
        lab.ok("ceremony", "start", "root")
        lab.ok("sign")
    return lab


@pytest.mark.parametrize("case", CASES)
def test_killed_at_a_request_and_run_again_a_command_finishes(
    case: str,
    service: Service,
    moments: dict[str, Lab],
    binned_moments: dict[str, Lab],
    tmp_path: Path,
) -> None:
    moment, verb, allowed = CASES[case]
    bucket = Bucket(service, case.replace(" ", "-"))
    moments = {**moments, "binned": binned_moments["live"]}
    first = moments["binned" if moment == "in bins" else "live"]
    root = (first.directory / "metadata/root/1.json").read_bytes()
    start = moved(started(moments, moment, tmp_path / "start" / "acme"), bucket)
    before = bucket.objects()

    def fresh() -> Lab:
        shutil.rmtree(tmp_path / "trial", ignore_errors=True)
        bucket.fill(before)
        return start.copy(tmp_path / "trial" / "acme")

    status, count = run_counted(fresh(), verb)
    assert os.waitstatus_to_exitcode(status) == 0
    expected = bucket.objects()
    points = range(1, count + 1)
    for point in points if FULL else points[:: max(1, count // SPREAD)]:
        lab = fresh()
        where = f"{case}, killed at {point} of {count}"
        status, _ = run_counted(lab, verb, point)
        assert os.WIFSIGNALED(status), where
        seen = offered(bucket.objects(), lab, root, tmp_path / "seen")
        assert seen in allowed, where
        done = lab.run(verb)
        assert done.code == 0, f"{where}: {done}"
        found = bucket.objects()
        if verb == "refresh":
            found["metadata/timestamp.json"] = expected["metadata/timestamp.json"]
        assert found == expected, f"{where}: {sorted(found.items() ^ expected.items())[:3]}"
    print(f"{case}: killed at {count} requests and answers")


def test_one_artifact_more_in_bins_costs_ten_requests_on_s3(
    service: Service, binned_moments: dict[str, Lab], tmp_path: Path
) -> None:
    """As `test_bins` counts them on a directory; here on the wire, with the artifact's own."""
    bucket = Bucket(service, "ten")
    lab = moved(binned_moments["many"].copy(tmp_path / "acme"), bucket)
    for version in ("warm", "new"):
        lab.add(version, data=b"firmware")
        lab.promote(version)
        status, count = run_counted(lab, "publish")
        assert os.waitstatus_to_exitcode(status) == 0
    requests = count // 2 - 1
    print(f"{requests} requests besides the artifact")
    assert requests <= 10
