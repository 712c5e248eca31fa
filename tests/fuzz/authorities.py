"""The published CA bundle: `transport.bundle.BundleFile.keep`."""

from __future__ import annotations

import atexit
import functools
import shutil
import ssl
import tempfile
from pathlib import Path

from client_reference.errors import NotTrustedError
from client_reference.transport.bundle import BundleFile
from tests.fuzz.refusals import only


def run(data: bytes) -> None:
    path = _place() / "ca-bundle.pem"
    bundle = BundleFile(path)
    with only(NotTrustedError):
        bundle.keep(data)
        # What was accepted replaced the old bundle: a connection must be able to use it.
        assert path.read_bytes() == data
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(path)
        assert context.cert_store_stats()["x509"] > 0
    assert bool(bundle.sha256()) == path.exists()
    path.unlink(missing_ok=True)


@functools.cache
def _place() -> Path:
    """One directory for all inputs: making one for each takes longer than judging it."""
    place = tempfile.mkdtemp(prefix="authorities-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return Path(place)
