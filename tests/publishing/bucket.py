"""A lab's repository in a bucket behind a cache, and a command killed at one of its requests.

The command runs in a forked child. What it asks of the bucket is counted where the SDK sends a
request and where it has the answer, what it asks of the cache likewise; the minute that it waits
for caches passes at once.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import threading
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from client_reference.transport.fetch import HttpFetcher
from repo_tools.cli import publish as publishing
from repo_tools.cli.main import main
from repo_tools.publishing.edges import AwaitedEdges
from repo_tools.storage import s3

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from client_reference.transport.fetcher import Fetcher
    from repo_tools.storage.s3 import S3Client
    from tests.publishing.lab import Lab
    from tests.simulators.edge import Edge
    from tests.simulators.seaweed import Service

__all__ = ["BUCKET", "PART", "Bucket", "Run", "SmallParts", "moved", "run"]

BUCKET = "firmware"
PART = 5 << 20
"""S3's least for every part but the last."""


class SmallParts(s3.S3Storage):
    """The same storage, to which the firmware of a lab is large enough to go up in parts."""

    def __init__(
        self, url: str, client: S3Client | None = None, *, proof: Path | None = None
    ) -> None:
        super().__init__(url, client, part=PART, large=PART + 1, proof=proof)


@dataclass(frozen=True)
class Bucket:
    """One prefix of the bucket."""

    service: Service
    prefix: str

    @property
    def url(self) -> str:
        return f"s3://{BUCKET}/{self.prefix}?endpoint={self.service.endpoint}"

    @cached_property
    def client(self) -> S3Client:
        return self.service.client()

    @cached_property
    def connected(self) -> S3Client:
        """For children: made once, since that takes longer than most commands.

        Not used here: a child that is forked off would have the connections of this process.
        """
        return s3.make_client(s3.parse_place(self.url))

    def tags(self) -> dict[str, str]:
        """The ETag of everything that is there, by path."""
        top = f"{self.prefix}/"
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=top)
        return {
            found["Key"].removeprefix(top): found["ETag"]
            for page in pages
            for found in page.get("Contents", ())
        }

    def read(self, path: str) -> bytes:
        """One object."""
        found = self.client.get_object(Bucket=BUCKET, Key=f"{self.prefix}/{path}")
        data: bytes = found["Body"].read()
        return data

    def objects(self) -> dict[str, bytes]:
        """Everything that is there."""
        return {path: self.read(path) for path in self.tags()}

    def fill(self, objects: Mapping[str, bytes], tags: Mapping[str, str]) -> dict[str, str]:
        """Make it hold this and nothing else, also no upload that was begun; the ETags of it all.

        Args:
            objects: what, by path.
            tags: what this returned before for the same objects; saves requests.
        """
        found = self.tags()
        for path in found.keys() - objects.keys():
            self.client.delete_object(Bucket=BUCKET, Key=f"{self.prefix}/{path}")
        for path, data in objects.items():
            if path not in found or found[path] != tags.get(path):
                self.client.put_object(
                    Bucket=BUCKET,
                    Key=f"{self.prefix}/{path}",
                    Body=data,
                    ChecksumAlgorithm="SHA256",
                    CacheControl=f"max-age={60 if path.endswith('/timestamp.json') else 31536000}",
                )
        for key, upload in self.uploads():
            self.client.abort_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload)
        return self.tags()

    def uploads(self) -> list[tuple[str, str]]:
        """Key and id of every upload that was begun and not ended."""
        found = self.client.list_multipart_uploads(Bucket=BUCKET, Prefix=f"{self.prefix}/")
        return [(each["Key"], each["UploadId"]) for each in found.get("Uploads", ())]


def moved(lab: Lab, bucket: Bucket, urls: tuple[str, ...] = ()) -> Lab:
    """The lab, with its repository in a bucket, and devices that fetch from these URLs."""
    config = lab.directory / "firmroot.toml"
    text = config.read_text()
    assert 'storage = "repository"' in text
    assert "\nurls = []" in text
    text = text.replace('storage = "repository"', f'storage = "{bucket.url}"')
    config.write_text(text.replace("\nurls = []", f"\nurls = {json.dumps(urls)}"))
    files = sorted(path for path in lab.repository.rglob("*") if path.is_file())
    bucket.fill(
        {
            path.relative_to(lab.repository).as_posix(): path.read_bytes()
            for path in files
            if not path.name.startswith(".")
        },
        {},
    )
    shutil.rmtree(lab.repository, ignore_errors=True)
    return lab


class _Counter:
    """Names each point at which the command can be killed; at the chosen one it is."""

    def __init__(self, kill_at: int) -> None:
        self._kill_at = kill_at
        self._lock = threading.Lock()
        self.points: list[str] = []

    def step(self, point: str) -> None:
        with self._lock:
            self.points.append(point)
            if len(self.points) == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    def before(self, event_name: str, **_: Any) -> None:  # noqa: ANN401 # whatever the SDK tells
        """The SDK is about to send a request."""
        self.step(f"before {event_name.rpartition('.')[2]}")

    def after(self, event_name: str, **_: Any) -> None:  # noqa: ANN401 # likewise
        """The SDK has the answer."""
        self.step(f"after {event_name.rpartition('.')[2]}")


class _Counted(HttpFetcher):
    """What a publish asks a cache whether it shows the new bytes."""

    counter: _Counter

    def fetch(self, path: str, max_length: int) -> bytes:
        """See `Fetcher.fetch`."""
        self.counter.step("before a question to the cache")
        data = super().fetch(path, max_length)
        self.counter.step("after a question to the cache")
        return data


@dataclass(frozen=True)
class Run:
    """How a command in a child ended.

    Attributes:
        code: its exit code; minus the signal that killed it.
        points: at which it could have been killed; empty if it was.
    """

    code: int
    points: tuple[str, ...]


def run(lab: Lab, bucket: Bucket, edge: Edge, *words: str, kill_at: int = 0) -> Run:
    """A command in a child, up to a point if one is named."""
    client = bucket.connected
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.close(reader)
            counter = _Counter(kill_at)
            _install(counter, client, edge)
            with lab.environment(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                code = main(["-C", str(lab.directory), *words])
            os.write(writer, json.dumps(counter.points).encode())
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Run(code, tuple(json.loads(told or b"[]")))


def _install(counter: _Counter, client: S3Client, edge: Edge) -> None:
    """In the child, which ends with the command: let everything that it asks pass the counter."""
    client.meta.events.register("before-send.s3", counter.before)
    client.meta.events.register("after-call.s3", counter.after)

    def wait(seconds: float) -> None:
        counter.step("before a wait")
        edge.pass_time(seconds)
        counter.step("after a wait")

    def awaited(probes: Mapping[str, Fetcher], *_: object) -> AwaitedEdges:
        return AwaitedEdges(probes, wait)

    _Counted.counter = counter
    for module, name, other in (
        (s3, "connect", lambda _: client),
        (s3, "S3Storage", SmallParts),
        (publishing, "AwaitedEdges", awaited),
        (publishing, "HttpFetcher", _Counted),
    ):
        setattr(module, name, other)
