"""nginx on loopback with the configuration of `infra/nginx`, whole or with a part that was changed.

with nginx(tmp_path, origin="127.0.0.1:8333", prefix="/acme/firmware") as url:
    ...
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.simulators.services import free_port, missing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONFIG = Path(__file__).parent.parent.parent / "infra" / "nginx" / "firmroot-cdn.conf"
READY_WITHIN = 20.0
_PLACES = ("/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx", "/usr/local/bin/nginx")


def find_nginx() -> str:
    """The program; skips the test where there is none, fails on CI."""
    found = next((place for place in _PLACES if Path(place).exists()), None)
    if found is None:
        missing("nginx is not installed: apt-get install nginx-light")
    return found


@contextlib.contextmanager
def nginx(
    directory: Path, *, origin: str, prefix: str, changes: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run it until the end of the block; its URL.

    Args:
        directory: for its cache and logs.
        origin: host and port of the storage.
        prefix: of the repository there.
        changes: parts of the configuration, each of which must be there, and what is there instead.
    """
    program, port = find_nginx(), free_port()
    directory.mkdir(parents=True, exist_ok=True)
    text = CONFIG.read_text()
    for before, after in (changes or {}).items():
        assert before in text, f"{before!r} is not in {CONFIG.name}"
        text = text.replace(before, after)
    for name, value in (
        ("@ORIGIN@", origin),
        ("@PREFIX@", prefix),
        ("@CACHE@", str(directory / "cache")),
        ("@LISTEN@", f"127.0.0.1:{port}"),
    ):
        text = text.replace(name, value)
    bodies = "\n".join(
        f"{kind}_temp_path {directory / kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = directory / "nginx.conf"
    config.write_text(
        f"daemon off; master_process off; pid {directory / 'pid'}; error_log stderr warn;\n"
        f"events {{ worker_connections 64; }}\nhttp {{ access_log off; {bodies}\n"
        f"types {{ application/json json; }} default_type application/octet-stream;\n{text}\n}}\n"
    )
    log = directory / "nginx.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [program, "-p", str(directory), "-c", str(config), "-e", "stderr"],
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        _wait(process, port, log)
        yield f"http://127.0.0.1:{port}/"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    ends = time.monotonic() + READY_WITHIN
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 2):
            return
        if process.poll() is not None or time.monotonic() > ends:
            pytest.fail(f"nginx is not ready:\n{log.read_text()[-2000:]}")
        time.sleep(0.02)
