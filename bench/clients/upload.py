"""One upload to S3 in a process of its own: ours, or `upload_file` of boto3.

    python upload.py ours|boto3 FILE s3://BUCKET/KEY?endpoint=URL SHA256

Prints, as JSON, seconds, seconds of CPU, and `VmHWM` in KiB; what it takes to start is not counted.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

from repo_tools.storage.s3 import S3Storage, connect, parse_place


def main() -> None:
    """Upload, and say what it took."""
    who, file, url, sha256 = sys.argv[1:]
    place = parse_place(url)
    client = connect(place)
    bucket, key = place.bucket, place.prefix.rstrip("/")
    client.list_objects_v2(Bucket=bucket, MaxKeys=1)
    wall, cpu = time.monotonic(), time.process_time()
    if who == "ours":
        storage = S3Storage(url.replace("/image?", "/bench?"), client)
        storage.create(key, Path(file), sha256)
    else:
        client.upload_file(file, bucket, key)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = re.search(r"VmHWM:\s+(\d+)", status)
    print(json.dumps([wall, cpu, int(peak[1]) if peak else 0]))  # noqa: T201 # its answer


main()
