"""Uploading a large artifact to S3: ours beside `upload_file` of boto3, to the same server.

    python -m bench.upload [--size MIB] [--pairs N]

Both in whole processes, in turn, each to a new SeaweedFS on loopback. Ours proves
what it sends by SHA-256, of the whole and of each part, and creates only; boto3 sends a CRC32.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.simulators.seaweed import ACCESS, SECRET, seaweed

# The terminal is what this program is for.
# ruff: noqa: T201

TARGET = 0.8
SIZE, PAIRS = 1024, 5
MIB = 1 << 20
CLIENT = Path(__file__).parent / "clients" / "upload.py"
Figures = tuple[float, float, float]


def is_possible() -> bool:
    """Whether the service and the SDK are installed (`sh scripts/bootstrap services`)."""
    return (Path(sys.executable).parent / "weed").exists()


def upload(who: str, file: Path, digest: str, top: Path) -> Figures:
    """Seconds, seconds of CPU and MiB of one upload, to a service that is new."""
    directory = Path(tempfile.mkdtemp(dir=top))
    with seaweed(directory) as service:
        client = service.client()
        client.create_bucket(Bucket="bench")
        environment = {
            **os.environ,
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "PYTHONPATH": str(Path(__file__).parent.parent),
        }
        url = f"s3://bench/image?endpoint={service.endpoint}"
        line = [sys.executable, str(CLIENT), who, str(file), url, digest]
        done = subprocess.run(line, env=environment, stdout=subprocess.PIPE, check=True)  # noqa: S603 # our own
        key = "bench/image" if who == "ours" else "image"
        found = client.head_object(Bucket="bench", Key=key)["ContentLength"]
    shutil.rmtree(directory)
    if found != file.stat().st_size:
        raise SystemExit(f"{who} uploaded {found} bytes of {file.stat().st_size}")
    wall, cpu, peak = json.loads(done.stdout)
    return wall, cpu, peak / 1024


def measure(size: int, pairs: int) -> list[tuple[Figures, Figures]]:
    """Ours and the peer's, in turn."""
    with tempfile.TemporaryDirectory(prefix="firmroot-bench-") as directory:
        top = Path(directory)
        file, whole = top / "image", hashlib.sha256()
        noise = random.Random(1)  # noqa: S311 # bytes to send
        with file.open("wb") as out:
            for _ in range(size):
                piece = noise.randbytes(MIB)
                whole.update(piece)
                out.write(piece)
        digest = whole.hexdigest()
        return [
            (upload("ours", file, digest, top), upload("boto3", file, digest, top))
            for _ in range(pairs)
        ]


def show(size: int, found: list[tuple[Figures, Figures]]) -> bool:
    """The row; whether the target is met."""
    ours, peer = (
        [statistics.median(each) for each in zip(*side, strict=True)]
        for side in zip(*found, strict=True)
    )
    print(f"\nupload of {size} MiB to S3 (SeaweedFS), medians of {len(found)} pairs")
    print(f"  {'':22}{'ours':>12}{'boto3':>12}{'ratio':>8}")
    rows = [
        ("throughput", size / ours[0], size / peer[0], "MiB/s"),
        ("wall", ours[0], peer[0], "s"),
        ("CPU, user + system", ours[1], peer[1], "s"),
        ("peak RSS", ours[2], peer[2], "MiB"),
    ]
    for name, mine, other, unit in rows:
        print(f"  {name:22}{mine:>12.1f}{other:>12.1f}{mine / other:>8.2f}  {unit}")
    return bool(peer[0] / ours[0] >= TARGET)


def main() -> int:
    """Run the command line; the exit code is 1 if the target is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.upload", description=__doc__)
    parser.add_argument("--size", type=int, default=SIZE, metavar="MIB")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    arguments = parser.parse_args()
    if not is_possible():
        print("SeaweedFS is not installed: sh scripts/bootstrap services")
        return 0
    if show(arguments.size, measure(arguments.size, arguments.pairs)):
        return 0
    print(f"MISSED upload: less than {TARGET} of the throughput of boto3")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
