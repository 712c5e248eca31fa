"""The course of a publish: what it asks of the storage, and when it begins again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from client_reference.errors import LockedError, NotTrustedError
from repo_tools.publishing.live import TIMESTAMP
from repo_tools.publishing.online import OnlineKeys
from repo_tools.publishing.prepare import Prepared
from repo_tools.publishing.publish import NothingToDo, Published, plan_publish, publish
from repo_tools.signing.secrets import open_secrets
from repo_tools.storage.local import LocalStorage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from repo_tools.storage.protocol import Created
    from tests.publishing.lab import Lab

large = pytest.mark.services  # whole lives of a repository, beside the large matrices
AGAIN = "somebody else published meanwhile; starting again from what is live now"
ROOT = "metadata/2.root.json"
SNAPSHOT = "metadata/2.snapshot.json"


class Storage(LocalStorage):
    """Notes what is read; something happens after the first object was created."""

    def __init__(self, root: Path, happens: Callable[[], object]) -> None:
        super().__init__(root)
        self.happens: list[Callable[[], object]] = [happens]

    def create(self, path: str, source: bytes | Path, sha256: str) -> Created:
        """See `LocalStorage.create`."""
        done = super().create(path, source, sha256)
        while self.happens:
            self.happens.pop()()
        return done


class Course:
    """One publish: what it read, and what it said."""

    def __init__(self, lab: Lab, happens: Callable[[], object] = lambda: None) -> None:
        ws = lab.workspace
        storage = Storage(lab.repository, happens)
        keys = OnlineKeys(ws, open_secrets(None, {}, None, ws.lab_passphrase))
        self.said: list[str] = []
        with patch.object(storage, "read", wraps=storage.read) as read:
            self.found = publish(ws, storage, keys, lab.now, progress=self.said.append)
        self.read = [call.args[0] for call in read.call_args_list]


def _sign_root(lab: Lab) -> bytes:
    lab.ok("ceremony", "start", "root")
    lab.ok("sign")
    return (lab.directory / "staged/root.json").read_bytes()


def _timestamp(lab: Lab) -> dict[str, object]:
    signed = json.loads((lab.repository / TIMESTAMP).read_bytes())["signed"]
    assert isinstance(signed, dict)
    return signed


# What it asks.


def test_a_publish_asks_twice_for_a_root_and_for_no_snapshot_of_others(following: Lab) -> None:
    """At the beginning, and when the commit is near; names are looked for when one was taken."""
    course = Course(following)
    assert isinstance(course.found, Published)
    assert course.read.count(ROOT) == 2
    assert course.read.count(TIMESTAMP) == 2, "first, and when it is read back"
    assert SNAPSHOT not in course.read


def test_with_nothing_to_publish_it_looks_once(live: Lab) -> None:
    course = Course(live)
    assert isinstance(course.found, NothingToDo)
    assert (course.read.count(ROOT), course.read.count(TIMESTAMP)) == (1, 1)


@large
def test_with_hash_bins_a_root_is_asked_for_first_only_where_that_matters(binned: Lab) -> None:
    binned.add("1.1")
    assert Course(binned).read == [TIMESTAMP, "gc/running.json", ROOT, TIMESTAMP]
    _sign_root(binned)
    assert Course(binned).read[:3] == [TIMESTAMP, ROOT, TIMESTAMP], "before a root goes"
    course = Course(binned)
    assert isinstance(course.found, NothingToDo)
    assert course.read == [TIMESTAMP, "metadata/3.root.json", TIMESTAMP], "before nothing is done"


@large
@pytest.mark.parametrize("news", ["a build", "nothing"])
def test_with_hash_bins_a_root_that_is_ahead_is_found(
    binned: Lab, tmp_path: Path, news: str
) -> None:
    root = _sign_root(binned.copy(tmp_path / "other"))
    (binned.repository / ROOT).write_bytes(root)
    if news == "a build":
        binned.add("1.1")
        ws = binned.workspace
        keys = OnlineKeys(ws, open_secrets(None, {}, None, ws.lab_passphrase))
        plan = plan_publish(ws, ws.storage(), keys, binned.now)
        assert isinstance(plan, Prepared)
        assert len(plan.plan.candidate.roots) == 2, "nobody asks later for what is only looked at"
    assert Course(binned).said.count(AGAIN) == (news == "a build")
    assert _timestamp(binned)["x-firmroot-root"] == 2
    assert binned.fresh_device()[1] == "installs 1.0"


# When it begins again.


def test_a_root_that_is_ahead_is_seen_before_anything_is_uploaded(
    following: Lab, tmp_path: Path
) -> None:
    root = _sign_root(following.copy(tmp_path / "other"))
    (following.repository / ROOT).write_bytes(root)
    assert AGAIN not in Course(following).said
    assert _timestamp(following)["x-firmroot-root"] == 2
    assert following.fresh_device()[1] == "installs 1.1"


def test_a_root_that_somebody_uploads_meanwhile_is_not_passed_over(
    following: Lab, tmp_path: Path
) -> None:
    """A timestamp without its keys, committed after it, would stop every device."""
    root = _sign_root(following.copy(tmp_path / "other"))
    course = Course(following, lambda: (following.repository / ROOT).write_bytes(root))
    again = course.said.index(AGAIN)
    assert not [line for line in course.said[:again] if line.startswith("commit")]
    assert _timestamp(following)["x-firmroot-root"] == 2
    assert following.fresh_device()[1] == "installs 1.1"


def test_a_timestamp_of_somebody_else_stops_a_root_before_it_is_there(
    live: Lab, tmp_path: Path
) -> None:
    rival = live.copy(tmp_path / "rival")
    config = rival.directory / "firmroot.toml"
    place = f'storage = "file://{live.repository}"'
    config.write_text(config.read_text().replace('storage = "repository"', place))
    _sign_root(live)
    course = Course(live, lambda: rival.later(hours=1).ok("refresh"))
    assert course.said.index(AGAIN) < course.said.index(f"upload {ROOT}")
    assert (_timestamp(live)["version"], _timestamp(live)["x-firmroot-root"]) == (3, 2)
    assert live.fresh_device()[1] == "installs 1.0"


def test_a_snapshot_that_somebody_left_is_stepped_over(following: Lab) -> None:
    (following.repository / SNAPSHOT).write_bytes(b"{}")
    assert Course(following).said.count(AGAIN) == 1
    assert (following.repository / "metadata/3.snapshot.json").exists()
    assert following.fresh_device()[1] == "installs 1.1"


@large
def test_a_name_that_another_role_has_is_tried_three_times(following: Lab) -> None:
    """Whoever has uploaded it may be about to publish it."""
    taken = following.repository / "metadata/2.gateway-stable.json"
    taken.write_bytes(b"{}")
    with (
        patch.object(LocalStorage, "create", autospec=True, side_effect=LocalStorage.create) as put,
        pytest.raises(LockedError) as caught,
    ):
        Course(following)
    tried = [call.args[1] for call in put.call_args_list]
    assert tried.count("metadata/2.gateway-stable.json") == 3
    assert "what nobody publishes is removed by firmroot gc" in caught.value.hint
    taken.unlink()
    Course(following)
    assert following.fresh_device()[1] == "installs 1.1"


# What is read back.


def test_a_root_is_read_back_from_the_storage(live: Lab) -> None:
    _sign_root(live)
    honest: list[bytes] = []

    class Damaging(Storage):
        def create(self, path: str, source: bytes | Path, sha256: str) -> Created:
            """See `LocalStorage.create`."""
            done = super().create(path, source, sha256)
            if path == ROOT:
                honest.append((self.root / path).read_bytes())
                (self.root / path).write_bytes(b"{}")
            return done

    with (
        patch(f"{__name__}.Storage", Damaging),
        pytest.raises(NotTrustedError, match="published, but a device that reads it back fails"),
    ):
        Course(live)
    (live.repository / ROOT).write_bytes(honest[0])
    assert isinstance(Course(live).found, NothingToDo)
    assert live.fresh_device()[1] == "installs 1.0"
