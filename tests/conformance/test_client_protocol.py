"""`firmroot-conformance` over HTTP: the protocol of tuf-conformance, stated in our own words.

The suite itself is run by hand at a named commit; these are the rules that it measures: exit codes,
the order of requests, the files that are trusted afterwards.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from tuf.api.metadata import Metadata, MetaFile

from client_reference import conformance
from tests.simulators.mirror import Mirror
from tests.simulators.repository import RepositorySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOP = ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"]


class Client:
    """The executable with its two directories, and the mirror that it asks."""

    def __init__(self, repo: RepositorySimulator, mirror: Mirror, directory: Path) -> None:
        self.repo = repo
        self.mirror = mirror
        self.metadata = directory / "metadata"
        self.targets = directory / "targets"
        self.root = directory / "initial_root.json"
        self.metadata.mkdir()
        self.targets.mkdir()
        self.root.write_bytes(repo.files["metadata/1.root.json"])

    def run(self, *arguments: str) -> int:
        self.mirror.seen.clear()
        self.mirror.files = self.repo.files
        return conformance.run(["--metadata-dir", str(self.metadata), *arguments])

    def init(self) -> int:
        return self.run("init", str(self.root))

    def refresh(self) -> int:
        return self.run("--metadata-url", f"{self.mirror.url}metadata/", "refresh")

    def download(self, *names: str) -> int:
        wanted = [word for name in names for word in ("--target-name", name)]
        return self.run(
            *("--metadata-url", f"{self.mirror.url}metadata/"),
            *("--target-base-url", f"{self.mirror.url}targets"),
            *("--target-dir", str(self.targets)),
            *wanted,
            "download",
        )

    @property
    def asked(self) -> list[str]:
        return [path.removeprefix("metadata/") for path in self.mirror.paths]

    def trusted(self) -> dict[str, int]:
        return {
            path.name.removesuffix(".json"): Metadata.from_file(str(path)).signed.version
            for path in sorted(self.metadata.iterdir())
        }

    def downloaded(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted(self.targets.iterdir())]


@pytest.fixture
def repo() -> RepositorySimulator:
    # The suite's repositories end by the clock of the machine.
    return RepositorySimulator(now=datetime.now(UTC).replace(microsecond=0))


@pytest.fixture
def client(repo: RepositorySimulator, tmp_path: Path) -> Iterator[Client]:
    with Mirror(repo.files) as mirror:
        yield Client(repo, mirror, tmp_path)


def test_init_trusts_the_root_and_asks_nothing(client: Client) -> None:
    assert client.init() == 0
    assert client.trusted() == {"root": 1}
    assert client.asked == []


def test_init_refuses_a_root_that_is_not_signed(client: Client) -> None:
    document = json.loads(client.root.read_bytes())
    document["signatures"][0]["sig"] = "ab" * 64
    client.root.write_text(json.dumps(document))
    assert client.init() == 1
    assert client.refresh() == 1
    assert client.asked == []


def test_an_option_is_never_guessed(client: Client) -> None:
    client.init()
    url = f"{client.mirror.url}metadata/"
    assert client.run("--metadata-u", url, "refresh") == 1
    assert client.asked == []
    assert client.run("--metadata-url", url, "refresh") == 0


def test_refresh_asks_in_order_and_keeps_the_served_bytes(client: Client) -> None:
    client.repo.files["metadata/timestamp.json"] += b" \n"
    client.init()
    assert client.refresh() == 0
    assert client.asked == TOP
    for role in ("timestamp", "snapshot", "targets"):
        served = client.repo.files[client.repo.location(role)]
        assert (client.metadata / f"{role}.json").read_bytes() == served


def test_a_second_refresh_fetches_only_what_may_have_changed(client: Client) -> None:
    client.init()
    client.refresh()
    assert client.refresh() == 0
    assert client.asked == TOP[:2]


def test_a_download_refreshes_first_and_fails_if_there_is_no_such_target(client: Client) -> None:
    client.init()
    assert client.download("nothing") == 1
    assert client.asked == TOP
    assert client.trusted() == {"root": 1, "snapshot": 1, "targets": 1, "timestamp": 1}


REFUSALS: list[tuple[str, dict[str, int]]] = [
    ("root", {"root": 1}),
    ("timestamp", {"root": 2}),
    ("snapshot", {"root": 2, "timestamp": 2}),
    ("targets", {"root": 2, "snapshot": 2, "timestamp": 2}),
]


@pytest.mark.parametrize(("role", "kept"), REFUSALS, ids=[c[0] for c in REFUSALS])
def test_a_role_without_signatures_is_refused_and_what_came_before_it_is_kept(
    client: Client, role: str, kept: dict[str, int]
) -> None:
    client.repo.signers[role].clear()
    client.repo.publish("root", "targets")
    client.init()
    assert client.refresh() == 1
    assert client.trusted() == kept


def test_a_timestamp_that_changes_without_a_new_version_is_not_taken(client: Client) -> None:
    client.init()
    client.refresh()
    before = (client.metadata / "timestamp.json").read_bytes()
    client.repo.timestamp.snapshot_meta.version = 100
    client.repo.write("timestamp")
    assert client.refresh() == 0
    assert (client.metadata / "timestamp.json").read_bytes() == before
    assert client.asked == TOP[:2]


def test_a_snapshot_that_calls_itself_a_timestamp_is_refused(client: Client) -> None:
    signer = next(iter(client.repo.signers["timestamp"].values()))
    client.repo.add_key("snapshot", signer=signer)
    client.repo.snapshot.meta = {"snapshot.json": MetaFile(1)}
    client.repo.publish("root", "snapshot")
    client.repo.files["metadata/timestamp.json"] = client.repo.files["metadata/2.snapshot.json"]
    client.init()
    assert client.refresh() == 1
    assert client.trusted() == {"root": 2}


def test_an_expired_root_is_kept_and_nothing_else_moves(client: Client) -> None:
    client.init()
    client.refresh()
    client.repo.root.expires = client.repo.later(days=-1)
    client.repo.publish("root", "targets")
    assert client.refresh() == 1
    assert client.trusted() == {"root": 2, "snapshot": 1, "targets": 1, "timestamp": 1}


def test_rotated_online_keys_remove_the_files_of_the_old(client: Client) -> None:
    for _ in range(9):
        client.repo.publish("targets")
    client.init()
    client.refresh()
    client.repo.rotate("timestamp")
    client.repo.rotate("snapshot")
    client.repo.timestamp.version = client.repo.snapshot.version = client.repo.targets.version = 0
    client.repo.publish("root", "targets")
    missing = client.repo.files.pop("metadata/timestamp.json")
    assert client.refresh() == 1
    assert client.trusted() == {"root": 2, "targets": 10}
    client.repo.files["metadata/timestamp.json"] = missing
    assert client.refresh() == 0
    assert client.trusted() == {"root": 2, "snapshot": 1, "targets": 1, "timestamp": 1}


def test_a_download_is_verified_and_not_repeated(client: Client) -> None:
    client.repo.add_target("targets", "path/to/file.txt", b"content")
    client.repo.publish("targets")
    client.init()
    assert client.download("path/to/file.txt") == 0
    assert client.downloaded() == [b"content"]
    assert client.download("path/to/file.txt") == 0
    assert not [path for path in client.asked if path.startswith("targets/")]


def test_a_changed_target_replaces_the_file_that_was_there(client: Client) -> None:
    client.init()
    for content in (b"first", b"second"):
        client.repo.add_target("targets", "file.txt", content)
        client.repo.publish("targets")
        assert client.download("file.txt") == 0
        assert client.downloaded() == [content]


def test_a_substituted_target_is_refused_and_ends_the_command(client: Client) -> None:
    for name in ("a", "b"):
        client.repo.add_target("targets", name, name.encode())
    client.repo.publish("targets")
    place = next(path for path in client.repo.files if path.endswith(".a"))
    client.repo.files[place] = b"!"
    client.init()
    assert client.download("a", "b") == 1
    assert client.downloaded() == []


@pytest.mark.parametrize("role", ["?", "#", "/delegated", "../delegated", "a b", "50%"])
def test_role_names_are_encoded_in_requests_and_file_names(client: Client, role: str) -> None:
    client.repo.delegate(role, ["*"])
    client.repo.publish(role, "targets")
    client.init()
    # The mirror decodes a request once; the simulator names its files as they are on a disk.
    place = client.repo.location(role)
    client.repo.files[f"metadata/1.{role}.json"] = client.repo.files.pop(place)
    assert client.download("nothing") == 1
    assert client.asked[-1] == f"1.{role}.json"
    assert len(client.trusted()) == 5
    assert all(path.parent == client.metadata for path in client.metadata.rglob("*.json"))


USES = [
    ("no command", []),
    ("an unknown command", ["--metadata-dir", "x", "update"]),
    ("no directory", ["refresh"]),
    ("refresh without URL", ["--metadata-dir", "x", "refresh"]),
    ("download without target", ["--metadata-dir", "x", "--metadata-url", "http://x/", "download"]),
    ("a root that is not there", ["--metadata-dir", "x", "init", "nowhere.json"]),
    ("a URL that is none", ["--metadata-dir", "x", "--metadata-url", "ftp://x/", "refresh"]),
]


@pytest.mark.parametrize("arguments", [c[1] for c in USES], ids=[c[0] for c in USES])
def test_whatever_fails_is_exit_code_one_and_says_why(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert conformance.run(arguments) == 1
    assert "Error: " in capsys.readouterr().err


def test_the_installed_command_runs(client: Client) -> None:
    command = [sys.executable, "-c", "from client_reference.conformance import run; exit(run())"]
    arguments = ["--metadata-dir", str(client.metadata), "init", str(client.root)]
    assert subprocess.run([*command, *arguments], check=False).returncode == 0
    assert client.trusted() == {"root": 1}
