"""What the transport remembers, in a file that may be torn or altered (`transport.memory`).

It is a hint: whatever the file holds, nothing is raised, and no other bytes are believed.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from client_reference.transport.memory import Memory
from client_reference.transport.policy import strong_etag
from tests.fuzz.refusals import only

MIRROR = "https://updates.example/fw/"
NAME = "metadata/timestamp.json"
STAMP = b'{"signed": {}}'


def run(data: bytes) -> None:
    path = _place() / "hint.json"
    path.write_bytes(data)
    with only():
        memory = Memory(path, STAMP)
        for mirror in {MIRROR, memory.mirror}:
            etag, stands_for = memory.condition(mirror, NAME)
            assert bool(etag) == bool(stands_for)
            assert stands_for in {b"", STAMP}
            assert strong_etag(etag) == etag
            assert Memory(path, None).condition(mirror, NAME) == ("", b"")
            # The digest of other bytes may be in the file: the fuzzer watches what is compared.
            other = Memory(path, STAMP + b" ").condition(mirror, NAME)[1]
            assert other in {b"", STAMP + b" "}
            assert not (other and stands_for), "one ETag for two timestamps"
        memory.received(MIRROR, NAME, '"an etag"', STAMP)
        memory.keep(MIRROR, first=False)
        again = Memory(path, STAMP)
        assert again.mirror == MIRROR
        assert again.condition(MIRROR, NAME)[1] == STAMP


@functools.cache
def _place() -> Path:
    """One directory for all inputs: making one for each takes longer than judging it."""
    place = tempfile.mkdtemp(prefix="memory-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return Path(place)
