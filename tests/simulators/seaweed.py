"""SeaweedFS as S3 on loopback: a real one, with conditional writes and checksums.

    with seaweed(tmp_path) as service:
        client = service.client()

It is started with a data folder of its own and is ready once a PUT succeeds. It ends by its process
id, and with it everything that it started. Its sockets for gRPC have fixed names in /tmp, for which
there is no option: they are removed at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from repo_tools.storage.s3 import S3Client


ACCESS, SECRET = "publisher", "only on loopback"
READY_WITHIN = 60.0
_PORTS = ("master", "volume", "filer", "s3")
_OFFSET = 10_000
"""SeaweedFS opens its gRPC ports so far above the others."""


@dataclass(frozen=True)
class Service:
    """A running service.

    Attributes:
        endpoint: its URL.
        process: what to kill.
    """

    endpoint: str
    process: subprocess.Popen[bytes]

    def client(self, *, access: str = ACCESS, secret: str = SECRET) -> S3Client:
        """A client of the SDK with these credentials."""
        import boto3  # not there in every environment
        from botocore.config import Config  # likewise

        return boto3.session.Session(
            aws_access_key_id=access, aws_secret_access_key=secret, region_name="us-east-1"
        ).client(
            "s3",
            endpoint_url=self.endpoint,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 3}),
        )


def find_weed() -> str:
    """The program; skips the test where there is none, fails on CI."""
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    try:
        import boto3  # noqa: F401 # only whether it is there
    except ImportError:
        found = None
    if found is None:
        text = "SeaweedFS or boto3 is not installed: sh scripts/bootstrap services"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    return found


@contextlib.contextmanager
def seaweed(directory: Path, others: Sequence[Mapping[str, object]] = ()) -> Iterator[Service]:
    """Run it until the end of the block.

    Args:
        directory: gets its folders.
        others: further identities, in the service's own words (`anonymous` is who has no key).
    """
    program = find_weed()
    data, config = directory / "seaweed", directory / "s3.json"
    data.mkdir()
    credentials = [{"accessKey": ACCESS, "secretKey": SECRET}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identities = [{"name": "it", "credentials": credentials, "actions": actions}, *others]
    config.write_text(json.dumps({"identities": identities}))
    ports = _free_ports(len(_PORTS))
    line = [program, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]
    line += [f"-{name}.port={port}" for name, port in zip(_PORTS, ports, strict=True)]
    line += [
        f"-{name}.port.grpc={port + _OFFSET}" for name, port in zip(_PORTS, ports, strict=True)
    ]
    # Two of them may run at once, and what listens on a fixed port by itself is not needed.
    line += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    line += [f"-s3.config={config}", "-s3.autoCreateBucket=false"]
    # Below its data folder, and relative to it: a socket's whole path has 108 bytes at most.
    line += ["-filer.localSocket=../filer.sock", "-s3.localSocket=../s3.sock"]
    line += ["-master.volumeSizeLimitMB=256", "-volume.max=20"]
    with (directory / "seaweed.log").open("wb") as log:
        process = subprocess.Popen(line, stdout=log, stderr=log, cwd=data, start_new_session=True)
    service = Service(f"http://127.0.0.1:{ports[-1]}", process)
    try:
        _wait(service, directory / "seaweed.log")
        yield service
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for name, port in zip(_PORTS, ports, strict=True):
            Path(f"/tmp/seaweedfs-{name}-grpc-{port + _OFFSET}.sock").unlink(  # noqa: S108 # its own
                missing_ok=True
            )


def _wait(service: Service, log: Path) -> None:
    client = service.client()
    ends = time.monotonic() + READY_WITHIN
    while True:
        try:
            client.create_bucket(Bucket="ready")
            client.put_object(Bucket="ready", Key="x", Body=b"x")
        except Exception as error:  # noqa: BLE001 # whatever it is, it is asked again
            if service.process.poll() is not None or time.monotonic() > ends:
                pytest.fail(f"SeaweedFS is not ready: {error}\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        else:
            return


def _free_ports(count: int) -> list[int]:
    """Ports that are free together with those at the offset above them."""
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            one = stack.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            if port + _OFFSET > 65_535:
                continue
            with contextlib.suppress(OSError), socket.socket() as other:
                other.bind(("127.0.0.1", port + _OFFSET))
                found.append(port)
    return found
