"""The server for trying out, as a process: what it serves, how it may be cached, how it stops."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from client_reference.errors import ConfigurationError
from repo_tools.publishing.serve import application, listen
from repo_tools.storage.local import LocalStorage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, MutableMapping

    from tests.publishing.lab import Lab


@dataclass
class Server:
    """A running `firmroot serve`."""

    process: subprocess.Popen[str]
    port: int

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers=named)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read(), dict(answer.headers))
        finally:
            connection.close()


@dataclass
class Answer:
    """What came back; header names in small letters."""

    status: int
    body: bytes
    headers: Mapping[str, str]


@contextmanager
def _serving(lab: Lab, *options: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "repo_tools", "-C", str(lab.directory), *options]
    environment = {**os.environ, "FIRMROOT_LAB_NOW": f"{lab.now:%Y-%m-%dT%H:%M:%SZ}"}
    with subprocess.Popen(
        [*command, "serve", "--port", "0"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if line.startswith("serving"))
            yield Server(process, int(line.split("127.0.0.1:")[1].split("/")[0]))
        finally:
            process.kill()


@pytest.fixture(scope="module")
def served(moments: dict[str, Lab]) -> Iterator[tuple[Server, Lab]]:
    lab = moments["live"]
    with _serving(lab) as server:
        yield server, lab


def test_it_serves_what_is_published_with_how_long_to_keep_it(served: tuple[Server, Lab]) -> None:
    server, lab = served
    timestamp = server.get("/metadata/timestamp.json")
    assert timestamp.status == 200
    assert timestamp.body == (lab.repository / "metadata/timestamp.json").read_bytes()
    assert timestamp.headers["cache-control"] == "no-cache"
    root = server.get("/metadata/1.root.json")
    assert root.headers["cache-control"] == "public, max-age=31536000, immutable"
    missing = server.get("/metadata/2.root.json")
    assert (missing.status, missing.headers["cache-control"]) == (404, "no-store")
    assert missing.body == b"404\n"


def test_ranges_and_entity_tags_are_honoured(served: tuple[Server, Lab]) -> None:
    server, lab = served
    (image,) = (lab.repository / "targets/builds/gateway/1.0").glob("*.img")
    path = f"/targets/builds/gateway/1.0/{image.name}"
    part = server.get(path, Range="bytes=1000-1999")
    assert (part.status, part.body) == (206, image.read_bytes()[1000:2000])
    assert part.headers["content-range"] == f"bytes 1000-1999/{image.stat().st_size}"
    tag = server.get(path, "HEAD").headers["etag"]
    again = server.get(path, If_None_Match=tag)
    assert (again.status, again.body) == (304, b"")
    assert server.get(path, Range="bytes=99999999-").status == 416


def test_a_lab_serves_its_recovery_storage_and_every_epoch(
    anchor_moments: dict[str, Lab], served: tuple[Server, Lab]
) -> None:
    assert served[0].get("/recovery/1.root.json").status == 404, "there is no anchor"
    lab = anchor_moments["there"]
    with _serving(lab) as server:
        for path, file in (
            ("/recovery/2.root.json", "recovery/2.root.json"),
            ("/recovery/e1/1.root.json", "repository/metadata/e1/1.root.json"),
            ("/metadata/e1/timestamp.json", "repository/metadata/e1/timestamp.json"),
            ("/metadata/timestamp.json", "repository/metadata/timestamp.json"),
        ):
            assert server.get(path).body == (lab.directory / file).read_bytes()
        following = server.get("/recovery/3.root.json")
        assert (following.status, following.headers["cache-control"]) == (404, "no-store")
        kept = server.get("/metadata/e1/timestamp.json").headers["cache-control"]
        assert kept == "no-cache", "it is replaced like the other"


PRIVATE = (
    "/",
    "/firmroot.toml",
    "/inbox/secret",
    "/metadata/",
    "/metadata/.hidden.tmp",
    "/metadata/../inbox/secret",
    "/metadata/%2e%2e/inbox/secret",
    "/targets/..%2f..%2f.firmroot/lab-passphrase",
    "/.lock",
)


@pytest.mark.parametrize("path", PRIVATE)
def test_nothing_else_is_served(path: str, served: tuple[Server, Lab]) -> None:
    server, lab = served
    (lab.repository / "inbox").mkdir(exist_ok=True)
    (lab.repository / "inbox/secret").write_bytes(b"secret")
    (lab.repository / "metadata/.hidden.tmp").write_bytes(b"half")
    try:
        answer = server.get(path)
    finally:
        (lab.repository / "metadata/.hidden.tmp").unlink()
        (lab.repository / "inbox/secret").unlink()
        (lab.repository / "inbox").rmdir()
    assert answer.status == 404
    assert answer.headers["cache-control"] == "no-store"


def test_it_cannot_be_written_to(served: tuple[Server, Lab]) -> None:
    server, _ = served
    answer = server.get("/metadata/timestamp.json", "PUT")
    assert answer.status == 405
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_when_it_is_told_to(number: signal.Signals, moments: dict[str, Lab]) -> None:
    with _serving(moments["live"]) as server:
        before = time.monotonic()
        server.process.send_signal(number)
        out, _ = server.process.communicate(timeout=10)
        assert server.process.returncode == 0
        assert out == "stopped\n"
        assert time.monotonic() - before < 5


def test_requests_are_logged_only_when_asked(moments: dict[str, Lab]) -> None:
    with _serving(moments["live"], "-v") as server:
        server.get("/metadata/timestamp.json")
        server.process.send_signal(signal.SIGTERM)
        out, _ = server.process.communicate(timeout=10)
        assert "GET /metadata/timestamp.json" in out


def test_a_port_in_use_is_said_and_another_one_named(live: Lab) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = live.run("serve", "--port", str(port))
    assert done.code == 2
    assert f"cannot listen on 127.0.0.1 port {port}: is in use by another program" in done.err
    assert f"firmroot serve --port {port + 1}" in done.err


def test_an_address_that_is_not_ours_is_said() -> None:
    with pytest.raises(ConfigurationError, match="cannot listen on 192"):
        listen("192.0.2.1", 0)


def ask(
    storage: LocalStorage, path: str, recovery: LocalStorage | None = None, **headers: str
) -> Answer:
    """One request to the application over a storage that is no directory to it."""
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    asyncio.run(application(storage, recovery)(scope, receive, send))
    head = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], b"".join(each.get("body", b"") for each in sent[1:]), head)


def test_a_storage_that_is_elsewhere_is_read_as_it_is_asked_for(live: Lab) -> None:
    storage = LocalStorage(live.repository)
    timestamp = (live.repository / "metadata/timestamp.json").read_bytes()
    found = ask(storage, "/metadata/timestamp.json")
    assert (found.status, found.body) == (200, timestamp)
    assert found.headers["cache-control"] == "no-cache"
    artifact = next(path for path in live.repository.rglob("*firmware.img"))
    path = f"/{artifact.relative_to(live.repository).as_posix()}"
    data = artifact.read_bytes()
    found = ask(storage, path)
    assert (found.status, found.body) == (200, data)
    assert found.headers["cache-control"] == "public, max-age=31536000, immutable"
    part = ask(storage, path, range="bytes=1000000-1000009")
    assert (part.status, part.body) == (206, data[1_000_000:1_000_010])
    assert part.headers["content-range"] == f"bytes 1000000-1000009/{len(data)}"
    rest = ask(storage, path, range=f"bytes={len(data) - 5}-")
    assert (rest.status, rest.body) == (206, data[-5:])
    beyond = ask(storage, path, range=f"bytes={len(data)}-")
    assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{len(data)}")


def test_a_recovery_storage_that_is_elsewhere_is_served_too(live: Lab) -> None:
    """A lab on S3 exported devices with that URL, and they were answered 404."""
    storage, recovery = LocalStorage(live.repository), LocalStorage(live.directory / "rescue")
    recovery.create("1.root.json", b"x", hashlib.sha256(b"x").hexdigest())
    recovery.create("e1/.root.json", b"x", hashlib.sha256(b"x").hexdigest())
    found = ask(storage, "/recovery/1.root.json", recovery)
    assert (found.status, found.body) == (200, b"x")
    assert ask(storage, "/recovery/1.root.json").status == 404
    for path in ("/recovery/2.root.json", "/recovery/e1/.root.json", "/recovery/../firmroot.toml"):
        assert ask(storage, path, recovery).status == 404


def test_nothing_but_the_public_folders_is_read(live: Lab) -> None:
    storage = LocalStorage(live.repository)
    storage.create("inbox/secret", b"x", hashlib.sha256(b"x").hexdigest())
    (live.repository / "metadata/.half").write_bytes(b"x")
    for path in (
        "/inbox/secret",
        "/metadata/../inbox/secret",
        "/metadata/.half",
        "/metadata/",
        "/metadata//timestamp.json",
        "/metadata/9.root.json",
    ):
        found = ask(storage, path)
        assert found.status == 404, path
        assert b"x" not in found.body
    assert found.headers["cache-control"] == "no-store"
