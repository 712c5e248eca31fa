"""What an interrupted publish leaves, and how the next one goes on: journal, roots, rotations."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import NotTrustedError, RetryLaterError
from repo_tools.publishing.online import OnlineKeys
from repo_tools.publishing.publish import publish
from repo_tools.publishing.refresh import LostRace, refresh
from repo_tools.signing.secrets import open_secrets
from repo_tools.storage.local import LocalStorage
from repo_tools.storage.protocol import Blob
from tests.publishing.lab import PRODUCT, Lab

if TYPE_CHECKING:
    from pathlib import Path

    from repo_tools.storage.protocol import Created


class _Failing(LocalStorage):
    """Fails at the object whose path contains a word; everything before it is done."""

    def __init__(self, root: Path, word: str) -> None:
        super().__init__(root)
        self._word = word

    def create(self, path: str, source: bytes | Path, sha256: str) -> Created:
        """See `Storage.create`."""
        if self._word in path:
            raise RetryLaterError(f"{path}: the storage failed")
        return super().create(path, source, sha256)

    def replace(self, path: str, data: bytes, tag: str | None) -> str:
        """See `Storage.replace`."""
        if self._word in path:
            raise RetryLaterError(f"{path}: the storage failed")
        return super().replace(path, data, tag)


def _keys(lab: Lab) -> OnlineKeys:
    workspace = lab.workspace
    return OnlineKeys(workspace, open_secrets(None, {}, None, workspace.lab_passphrase))


def _interrupt(lab: Lab, word: str) -> None:
    with pytest.raises(RetryLaterError):
        publish(lab.workspace, _Failing(lab.repository, word), _keys(lab), lab.now)


def _timestamp(lab: Lab) -> dict[str, object]:
    signed = json.loads((lab.repository / "metadata/timestamp.json").read_bytes())["signed"]
    assert isinstance(signed, dict)
    return signed


def test_the_next_publish_uses_what_was_signed(following: Lab) -> None:
    _interrupt(following, "timestamp.json")
    following.later(minutes=59).ok("publish")
    assert _timestamp(following)["x-firmroot-issued"] == "2026-03-02T06:00:00Z"
    assert not (following.repository / "metadata/3.snapshot.json").exists()


AGAIN = {
    "it was signed more than an hour ago": ({"hours": 1, "seconds": 1}, ()),
    "it was signed in what is now the future": ({"seconds": -1}, ()),
    "the user says so": ({"minutes": 1}, ("--no-resume",)),
}


@pytest.mark.parametrize("case", AGAIN)
def test_the_next_publish_signs_anew_if(case: str, following: Lab) -> None:
    later, options = AGAIN[case]
    _interrupt(following, "timestamp.json")
    lab = following.later(**later)
    lab.ok("publish", *options)
    assert _timestamp(lab)["x-firmroot-issued"] == f"{lab.now:%Y-%m-%dT%H:%M:%SZ}"
    assert (lab.repository / "metadata/3.snapshot.json").exists()


def test_work_that_was_added_meanwhile_goes_along(following: Lab) -> None:
    _interrupt(following, "timestamp.json")
    following.ok("channel", "hold", f"{PRODUCT}@1.1", "--on", "stable")
    following.ok("sign")
    following.ok("publish")
    assert "on hold" in following.fresh_device()[1]


def test_a_base_that_moved_meanwhile_is_built_upon(following: Lab, tmp_path: Path) -> None:
    rival = following.copy(tmp_path / "rival" / "acme")
    text = (rival.directory / "firmroot.toml").read_text()
    place = f'storage = "file://{following.repository}"'
    text = text.replace('storage = "repository"', place)
    (rival.directory / "firmroot.toml").write_text(text)
    _interrupt(following, "timestamp.json")
    rival.ok("refresh")
    following.ok("publish")
    assert _timestamp(following)["version"] == 3
    assert following.fresh_device()[1] == "installs 1.1"


def test_bytes_that_reached_the_storage_are_not_needed_here_again(following: Lab) -> None:
    _interrupt(following, "snapshot")
    shutil.rmtree(following.directory / ".firmroot/outbox")
    following.ok("publish")
    assert following.fresh_device()[1] == "installs 1.1"


def test_work_that_is_done_is_cleared_away_while_a_ceremony_is_open(
    following: Lab, tmp_path: Path
) -> None:
    staged = following.directory / "staged"
    shutil.copytree(staged, tmp_path / "merged")
    following.ok("publish")
    shutil.copytree(tmp_path / "merged", staged, dirs_exist_ok=True)
    following.ok("channel", "hold", f"{PRODUCT}@1.1", "--on", "stable")
    done = following.ok("publish")
    assert "nothing to publish" in done.out
    assert "still waits: gateway-stable-hold-1" in done.out
    assert not [path for path in staged.rglob("*") if path.is_file()]
    done = following.run("publish")
    assert done.code == 3, "now a signature is all that is missing"
    assert "gateway-stable-hold-1 needs 1 more signature(s)" in done.err


def test_a_root_alone_is_no_repository(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "acme")
    lab.init()
    done = lab.run("publish")
    assert done.code == 3
    assert "a root and a targets role are needed" in done.err


DAMAGED = {
    "the journal": ("publish.json", "is damaged"),
    "the high-water mark": ("high-water.json", "the high-water mark is damaged"),
    "a record of a publish": ("../history/000001.json", "history/000001.json is damaged"),
    "a role that was live": (
        "../metadata/gateway-stable.json",
        "metadata/gateway-stable.json is damaged",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_memory_is_said_and_not_guessed(case: str, following: Lab) -> None:
    name, message = DAMAGED[case]
    (following.directory / ".firmroot" / name).write_text("{")
    done = following.run("publish")
    assert done.code == 6
    assert message in done.err
    assert "remove" in done.err or "take it from git" in done.err


# Keys that change hands.


def _rotate_online_key(lab: Lab) -> None:
    """The next root names another key for snapshot and timestamp."""
    secret = str(lab.workspace.lab_passphrase)
    with lab.environment(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIRMROOT_PASSPHRASE_FILE", secret)
        lab.ok("key", "new", "publisher-2")
    policy = lab.directory / "policy.toml"
    policy.write_text(policy.read_text().replace('"publisher"', '"publisher-2"'))
    lab.ok("ceremony", "start", "root")
    lab.ok("sign")


def _signers(lab: Lab, path: str) -> set[str]:
    signatures = json.loads((lab.repository / path).read_bytes())["signatures"]
    return {lab.workspace.key_name(signature["keyid"]) for signature in signatures}


def test_while_a_key_changes_old_and_new_sign(live: Lab) -> None:
    """First a bridge, on which a device with either root goes; then the root without the old."""
    _rotate_online_key(live)
    live.ok("publish")
    assert _signers(live, "metadata/2.snapshot.json") == {"publisher", "publisher-2"}
    assert _signers(live, "metadata/3.snapshot.json") == {"publisher-2"}
    assert _signers(live, "metadata/timestamp.json") == {"publisher-2"}
    assert _timestamp(live)["version"] == 3
    assert live.fresh_device()[1] == "installs 1.0"
    assert live.ok("--json", "verify").json["trusted"]
    records = [json.loads(live.tree()[f"history/{n:06}.json"])["roles"] for n in (2, 3)]
    assert ["root" in record for record in records] == [False, True]


def test_a_refresh_before_the_root_signs_for_both(live: Lab) -> None:
    _rotate_online_key(live)
    live.ok("refresh")
    assert _signers(live, "metadata/timestamp.json") == {"publisher", "publisher-2"}
    assert _signers(live, "metadata/2.snapshot.json") == {"publisher", "publisher-2"}


@pytest.mark.parametrize("command", ["refresh", "publish"])
@pytest.mark.parametrize("name", ["publisher", "publisher-2"])
def test_who_lacks_a_key_of_either_root_refuses(command: str, name: str, live: Lab) -> None:
    _rotate_online_key(live)
    key = live.directory / f".firmroot/keys/{name}.pem"
    key.rename(key.with_suffix(".away"))
    before = live.tree()
    done = live.run(command)
    assert done.code == 3
    number = 1 if name == "publisher" else 2
    assert f"needs 1 signature(s) for root {number}, and this machine cannot sign as {name}" in (
        done.err
    )
    assert {path for path in live.tree() if path.startswith("repository/")} == {
        path for path in before if path.startswith("repository/")
    }
    key.with_suffix(".away").rename(key)
    live.ok(command)
    assert live.fresh_device()[1] == "installs 1.0"


@pytest.mark.parametrize("where", ["timestamp.json", "2.root.json", "root-chain"])
def test_a_bridge_that_was_interrupted_serves_every_device_and_is_finished(
    where: str, live: Lab
) -> None:
    _rotate_online_key(live)
    _interrupt(live, where)
    assert live.fresh_device()[1] == "installs 1.0"
    later = live.later(hours=2)
    later.ok("publish")
    assert later.fresh_device()[1] == "installs 1.0"
    assert _signers(live, "metadata/timestamp.json") == {"publisher-2"}
    assert _timestamp(live)["x-firmroot-root"] == 2
    assert "nothing to publish" in later.ok("publish").out


def test_a_cut_that_died_after_its_root_is_rolled_forward(live: Lab) -> None:
    live.ok("rotate", "publisher", "--compromised")
    live.ok("sign")
    _interrupt(live, "timestamp.json")
    assert (live.repository / "metadata/2.root.json").exists()
    assert live.fresh_device()[0].value == "stranded", "a retryable failure, until it goes on"
    later = live.later(hours=2)
    later.ok("publish")
    assert later.fresh_device()[1] == "installs 1.0"
    assert _signers(live, "metadata/timestamp.json") == {"publisher-2"}
    assert _timestamp(live)["x-firmroot-root"] == 2
    assert "metadata/root/2.json" in live.tree()
    record = json.loads(live.tree()["history/000002.json"])
    assert record["roles"]["root"]["version"] == 2
    assert "nothing to publish" in later.ok("publish").out


def test_the_root_waits_for_caches_and_so_does_what_drops_the_old_signatures(live: Lab) -> None:
    _rotate_online_key(live)
    told: list[str] = []

    class Watched:
        def wait(self, path: str, data: bytes) -> None:
            assert (live.repository / path).read_bytes() == data
            root = (live.repository / "metadata/2.root.json").exists()
            told.append(f"{path} {'with' if root else 'without'} root 2")
            assert _signers(live, "metadata/timestamp.json") == {"publisher", "publisher-2"}

    keys = _keys(live)
    publish(live.workspace, live.workspace.storage(), keys, live.now, edges=Watched())
    assert told == [
        "metadata/timestamp.json without root 2",
        "metadata/2.root.json with root 2",
    ]


class _Noted:
    """Edges that show everything at once, and note what was waited for."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def wait(self, path: str, _data: bytes) -> None:
        """See `Edges.wait`."""
        self.paths.append(path)


def test_a_bridge_that_died_after_its_root_waits_for_that_root_alone(live: Lab) -> None:
    _rotate_online_key(live)
    _interrupt(live, "root-chain")
    assert (live.repository / "metadata/2.root.json").exists()
    edges = _Noted()
    publish(live.workspace, live.workspace.storage(), _keys(live), live.now, edges=edges)
    assert edges.paths == ["metadata/2.root.json"]
    assert live.fresh_device()[1] == "installs 1.0"


def test_what_was_signed_since_crosses_the_bridge_before_the_root(live: Lab) -> None:
    _rotate_online_key(live)
    _interrupt(live, "2.root.json")
    assert _timestamp(live)["version"] == 2
    live.add("1.1")
    live.ok("publish")
    assert _timestamp(live)["version"] == 4, "once more for both roots, then for the new one"
    assert _signers(live, "metadata/timestamp.json") == {"publisher-2"}
    assert live.fresh_device()[1] == "installs 1.0"


def test_a_cut_waits_for_nobody(live: Lab) -> None:
    live.ok("rotate", "publisher", "--compromised")
    live.ok("sign")
    edges = _Noted()
    publish(live.workspace, live.workspace.storage(), _keys(live), live.now, edges=edges)
    assert edges.paths == []
    assert live.fresh_device()[1] == "installs 1.0"


class _Rival(LocalStorage):
    """Somebody publishes root 2 after this storage was asked for it."""

    asked = 0

    def read(self, path: str, max_length: int) -> Blob:
        """See `Storage.read`."""
        if path == "metadata/2.root.json":
            self.asked += 1
            if self.asked > 1:
                return Blob(b"a root", "")
        return super().read(path, max_length)


def test_a_refresh_that_knows_no_newer_root_does_not_commit_under_it(live: Lab) -> None:
    before = _timestamp(live)
    found = refresh(live.workspace, _Rival(live.repository), _keys(live), live.now)
    assert isinstance(found, LostRace)
    assert _timestamp(live) == before
    live.ok("refresh")
    assert _timestamp(live)["version"] == 2


def test_a_root_that_renews_only_itself_does_not_disturb_devices_midway(live: Lab) -> None:
    live.ok("ceremony", "start", "root")
    live.ok("sign")
    _interrupt(live, "timestamp.json")
    assert live.fresh_device()[1] == "installs 1.0"
    live.ok("publish")
    assert _timestamp(live)["x-firmroot-root"] == 2


# After the commit.


class _Old(LocalStorage):
    """Serves the old timestamp although it took the new one, as a cache would."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._old: Blob | None = None

    def read(self, path: str, max_length: int) -> Blob:
        """See `Storage.read`."""
        if path == "metadata/timestamp.json" and self._old is not None:
            return self._old
        return super().read(path, max_length)

    def replace(self, path: str, data: bytes, tag: str | None) -> str:
        """See `Storage.replace`."""
        old = self.read(path, 1 << 20)
        found = super().replace(path, data, tag)
        self._old = old
        return found


class _Damaging(LocalStorage):
    """Keeps something else than what it was given."""

    def replace(self, path: str, data: bytes, tag: str | None) -> str:
        """See `Storage.replace`."""
        return super().replace(path, data.replace(b'"version":2', b'"version":3'), tag)


def test_a_storage_that_serves_an_old_copy_is_noticed(following: Lab) -> None:
    with pytest.raises(NotTrustedError, match="published timestamp 2, but a device reads 1"):
        publish(following.workspace, _Old(following.repository), _keys(following), following.now)


def test_a_storage_that_damages_what_it_stores_is_noticed(following: Lab) -> None:
    storage = _Damaging(following.repository)
    with pytest.raises(NotTrustedError, match="published, but a device that reads it back fails"):
        publish(following.workspace, storage, _keys(following), following.now)


def test_a_refresh_that_would_strand_is_refused_as_well(live: Lab) -> None:
    renewed = live.later(days=200)
    for words in (("ceremony", "start", "root"), ("sign",), ("publish",)):
        renewed.ok(*words)
    done = live.later(days=366).run("refresh")  # the root is good, what others signed is not
    assert done.code == 5
    assert "would strand" in done.err
    assert _timestamp(live)["version"] == 2
