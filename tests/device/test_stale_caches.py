"""A cache before a mirror that is stale or damaged: the mirror is asked once more, past it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from tuf.api.metadata import Root, Snapshot

from client_reference.errors import ExitCode
from client_reference.payload.segments import SEGMENT
from tests.simulators.mirror import Trouble

if TYPE_CHECKING:
    from tests.simulators.device import DeviceOnDisk, Publisher
    from tests.simulators.mirror import Mirror, Seen

IMAGE = random.Random(1).randbytes(SEGMENT + 17)


@pytest.fixture
def ready(publisher: Publisher, device: DeviceOnDisk) -> DeviceOnDisk:
    """An initialised device, and release 1.0."""
    publisher.release("1.0", 1, IMAGE)
    assert device.run("init").code == 0
    return device


def flipped(data: bytes) -> bytes:
    """The same with one bit changed in the middle."""
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


DAMAGED = {
    "the timestamp": "timestamp.json",
    "the snapshot": "snapshot.json",
    "the manifest": "stable.json",
    "the list of segments": ".segments",
    "the image": ".img",
}


@pytest.mark.parametrize("what", DAMAGED)
@pytest.mark.parametrize("gone", [True, False])
def test_a_damaged_cache_does_not_stop_an_update(
    publisher: Publisher, mirror: Mirror, ready: DeviceOnDisk, what: str, *, gone: bool
) -> None:
    files = publisher.repo.files
    path = next(path for path in reversed(files) if path.endswith(DAMAGED[what]))
    mirror.cached[path] = None if gone else flipped(files[path])
    assert ready.run("update").code == 0
    assert ready.slot("B") == IMAGE
    asked = [seen.headers["Cache-Control"] for seen in mirror.seen if seen.path == path]
    # A single segment is asked for again by the download itself first.
    segment_again = [None] if what == "the image" and not gone else []
    assert asked == [None, *segment_again, "no-cache"], "only after a failure"


def test_a_root_that_a_cache_believes_not_to_be_there(
    publisher: Publisher, mirror: Mirror, ready: DeviceOnDisk
) -> None:
    """The 404 of every check until then; the announced version tells it from "no newer root"."""
    repo = publisher.repo
    repo.rotate(Root.type)
    repo.publish(Root.type, Snapshot.type)
    repo.announce()
    mirror.cached["metadata/2.root.json"] = None
    assert ready.run("check").code == 0
    assert ready.run("status", before=("--json",)).json["roles"]["root"]["version"] == 2


def test_a_mirror_that_lies_past_its_caches_too_is_refused(
    publisher: Publisher, mirror: Mirror, ready: DeviceOnDisk
) -> None:
    whole = publisher.repo.files["metadata/timestamp.json"]
    publisher.repo.files["metadata/timestamp.json"] = flipped(whole)
    refused = ready.run("update")
    assert refused.code == ExitCode.NOT_TRUSTED
    assert len([path for path in mirror.paths if path.endswith("timestamp.json")]) == 2
    publisher.repo.files["metadata/timestamp.json"] = whole
    assert ready.run("update").code == 0
    assert ready.slot("B") == IMAGE


@pytest.mark.parametrize("status", [403, 503])
def test_what_was_refused_is_said_even_if_nobody_answers_any_more(
    publisher: Publisher, mirror: Mirror, ready: DeviceOnDisk, status: int
) -> None:
    """Attack: who lies once and then hangs up would pass for a bad network."""
    whole = publisher.repo.files["metadata/timestamp.json"]
    publisher.repo.files["metadata/timestamp.json"] = flipped(whole)

    def then_silence(seen: Seen) -> bool:
        if seen.headers["Cache-Control"]:
            mirror.trouble = Trouble(status=status)
        return True

    mirror.guard = then_silence
    assert ready.run("update").code == ExitCode.NOT_TRUSTED
    publisher.repo.files["metadata/timestamp.json"] = whole
    mirror.guard, mirror.trouble = (lambda _: True), Trouble(times=0)
    assert ready.run("update").code == 0
    assert ready.slot("B") == IMAGE
