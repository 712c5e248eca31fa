"""Tokens and key services on this machine, real ones, for tests that sign with them.

Each is started here, on loopback, and ends with its block, by process id. Where one is not
installed the test is skipped and says so; on CI it fails.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

READY_WITHIN = 60.0
SOFTHSM = ("libsofthsm2.so", "softhsm/libsofthsm2.so")
PIN, OFFICER_PIN = "correct horse battery", "97531864"


def needed(program: str, package: str) -> str:
    """The path of a program; where it is missing the test is skipped, and on CI it fails."""
    beside = Path(sys.executable).parent / program
    found = str(beside) if beside.exists() else shutil.which(program)
    if found is None:
        missing(f"{program} is not installed: {package}")
    return found


def missing(text: str) -> NoReturn:
    """Skip, or fail on CI."""
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextlib.contextmanager
def running(
    line: list[str], environment: Mapping[str, str], ready: str, log: Path
) -> Iterator[None]:
    """A server, from the moment that a URL answers to the end of the block."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            line,
            stdout=file,
            stderr=file,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    try:
        ends = time.monotonic() + READY_WITHIN
        while True:
            try:
                urlopen(ready, timeout=2).close()  # noqa: S310 # http on loopback
                break
            except HTTPError:
                break
            except (URLError, OSError):
                if process.poll() is not None or time.monotonic() > ends:
                    pytest.fail(f"{line[0]} is not ready:\n{log.read_text()[-2000:]}")
                time.sleep(0.1)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@dataclass
class SoftHsm:
    """Tokens of SoftHSM2 in a directory of their own."""

    directory: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.utility = needed("softhsm2-util", "apt-get install softhsm2")
        self.tool = needed("pkcs11-tool", "apt-get install opensc")
        tokens = self.directory / "tokens"
        tokens.mkdir(parents=True, exist_ok=True)
        config = self.directory / "softhsm2.conf"
        config.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\n")
        places = [Path("/usr/lib"), Path("/usr/local/lib"), *Path("/usr/lib").glob("*-linux-gnu")]
        found = [place / name for place in places for name in SOFTHSM if (place / name).exists()]
        self.environment = {"SOFTHSM2_CONF": str(config), "PYKCS11LIB": str(found[0])}
        # A process that has loaded the module keeps the directory of then.
        with contextlib.suppress(ImportError):
            import pkcs11

            pkcs11.unload(str(found[0]))

    def token(self, label: str) -> None:
        """A new token."""
        self._run(
            self.utility, "--init-token", "--free", "--label", label,
            "--pin", PIN, "--so-pin", OFFICER_PIN,
        )  # fmt: skip

    def key(self, label: str, number: int, curve: str) -> None:
        """A new key on it, such as of the curve `secp256r1`."""
        self._run(
            self.tool, "--module", self.environment["PYKCS11LIB"], "--token-label", label,
            "--login", "--pin", PIN, "--keypairgen", "--key-type", f"EC:{curve}",
            "--id", f"{number:02x}", "--label", f"key-{number}",
        )  # fmt: skip

    def _run(self, *line: str) -> None:
        done = subprocess.run(
            line,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@contextlib.contextmanager
def openbao(directory: Path) -> Iterator[dict[str, str]]:
    """OpenBao's development server with a transit engine; the variables that lead to it."""
    program, port = needed("bao", "sh scripts/bootstrap services"), free_port()
    address = f"http://127.0.0.1:{port}"
    line = [program, "server", "-dev", "-dev-root-token-id=root", "-dev-no-store-token"]
    line += [f"-dev-listen-address=127.0.0.1:{port}"]
    home = {"HOME": str(directory)}
    with running(line, home, f"{address}/v1/sys/health", directory / "openbao.log"):
        yield {"VAULT_ADDR": address, "VAULT_TOKEN": "root"}


@contextlib.contextmanager
def ministack(directory: Path, *, auth: bool = False) -> Iterator[dict[str, str]]:
    """An emulator of AWS; the variables that lead to it, and make their bearer its root user.

    Args:
        directory: for its log.
        auth: whether it asks who may do what.
    """
    program, port = needed("ministack", "sh scripts/bootstrap services"), free_port()
    address = f"http://127.0.0.1:{port}"
    environment = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "false",
        "AUTH": str(auth).lower(),
        # It unpacks functions there, and leaves them.
        "TMPDIR": str(directory),
        "HOME": str(directory),
    }
    with running(
        [program], environment, f"{address}/_ministack/health", directory / "ministack.log"
    ):
        yield {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
