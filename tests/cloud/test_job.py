"""The refresh job where no disk stays: what it is given, what it remembers, what it refuses."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import (
    ConfigurationError,
    LockedError,
    NotTrustedError,
    RetryLaterError,
)
from repo_tools.cloud import job as module
from repo_tools.cloud.job import MEMORY, WORKSPACE, Job, recall, remember, unpack
from repo_tools.files import create_file
from repo_tools.publishing.live import HighWater, Mark
from repo_tools.storage.local import LocalStorage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from repo_tools.storage.protocol import Blob


def mark(version: int) -> bytes:
    return HighWater({"timestamp": Mark(version, f"{version:064x}")}).to_json()


def version_of(data: bytes) -> int:
    return HighWater.from_json(data).marks["timestamp"].version


def archive(files: dict[str, bytes], *more: tarfile.TarInfo) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        for entry in more:
            tar.addfile(entry)
    return made.getvalue()


WHOLE = archive({"firmroot.toml": b"schema = 1\n", "keys/it.toml": b"schema = 1\n"})


@dataclass
class Command:
    """Stands for `firmroot`: sees version 7 live, leaves metrics, ends as it is told."""

    code: int = 0
    sees: int = 7
    words: list[str] = field(default_factory=list)
    found: dict[str, bytes] = field(default_factory=dict)

    def __call__(self, words: list[str]) -> int:
        self.words = words
        top = Path(words[1])
        self.found = {
            path.relative_to(top).as_posix(): path.read_bytes()
            for path in top.rglob("*")
            if path.is_file()
        }
        (top / ".firmroot/e2").mkdir(parents=True, exist_ok=True)
        (top / ".firmroot/high-water.json").write_bytes(mark(self.sees))
        (top / ".firmroot/e2/high-water.json").write_bytes(mark(self.sees + 1))
        (top / ".firmroot/publish.json").write_bytes(b"{}")
        Path(words[-1]).write_text("firmroot_live_readable 1\n")
        return self.code


@pytest.fixture
def state(tmp_path: Path) -> LocalStorage:
    create_file(tmp_path / "state" / WORKSPACE, WHOLE)
    return LocalStorage(tmp_path / "state", "state")


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the job works; nothing is left there."""
    place = tmp_path / "scratch"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def test_a_run_has_the_workspace_and_the_memory_and_keeps_what_it_saw(
    state: LocalStorage, tmp_path: Path, scratch: Path
) -> None:
    create_file(tmp_path / "state" / MEMORY / "high-water.json", mark(5))
    create_file(tmp_path / "state" / MEMORY / "e1/high-water.json", mark(3))
    create_file(tmp_path / "state" / MEMORY / "notes.txt", b"not ours")
    command = Command()
    assert Job(state, "14d", command).run() == (0, "firmroot_live_readable 1\n")
    assert command.words[2:6] == ["--json", "refresh", "--fail-within", "14d"]
    assert command.found == {
        "firmroot.toml": b"schema = 1\n",
        "keys/it.toml": b"schema = 1\n",
        ".firmroot/high-water.json": mark(5),
        ".firmroot/e1/high-water.json": mark(3),
    }
    assert version_of(state.read(f"{MEMORY}high-water.json", 1 << 20).data) == 7
    assert version_of(state.read(f"{MEMORY}e1/high-water.json", 1 << 20).data) == 3
    assert version_of(state.read(f"{MEMORY}e2/high-water.json", 1 << 20).data) == 8
    assert f"{MEMORY}publish.json" not in set(state.paths(MEMORY)), "a journal is not kept"
    assert list(scratch.iterdir()) == []


def test_a_run_that_ends_badly_remembers_too(state: LocalStorage, scratch: Path) -> None:
    assert Job(state, "14d", Command(code=3)).run() == (3, "firmroot_live_readable 1\n")
    assert version_of(state.read(f"{MEMORY}high-water.json", 1 << 20).data) == 7
    assert list(scratch.iterdir()) == []


def test_without_a_workspace_nothing_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], state: LocalStorage
) -> None:
    empty = LocalStorage(tmp_path / "empty", "s3://nothing")
    command = Command()
    assert Job(empty, "14d", command).run() == (3, "")
    assert command.words == []
    told = json.loads(capsys.readouterr().err)
    assert "workspace.tar.gz is not in s3://nothing" in told["error"]
    assert "git archive" in told["hint"]
    assert Job(state, "14d", command).run()[0] == 0


def test_a_damaged_memory_is_not_taken_for_none(
    state: LocalStorage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create_file(tmp_path / "state" / MEMORY / "high-water.json", b"{}")
    assert Job(state, "14d", Command()).run()[0] == 6
    assert "high-water mark is damaged" in capsys.readouterr().err
    (tmp_path / "state" / MEMORY / "high-water.json").unlink()
    assert Job(state, "14d", Command()).run()[0] == 0


def test_a_bug_of_the_command_leaves_no_files(state: LocalStorage, scratch: Path) -> None:
    def broken(words: list[str]) -> int:
        raise ZeroDivisionError(words)

    with pytest.raises(ZeroDivisionError):
        Job(state, "14d", broken).run()
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(("before", "seen", "after"), [(9, 7, 9), (7, 7, 7), (5, 7, 7)])
def test_the_mark_never_goes_back(
    state: LocalStorage, tmp_path: Path, before: int, seen: int, after: int
) -> None:
    create_file(tmp_path / "state" / MEMORY / "high-water.json", mark(before))
    create_file(tmp_path / "private/high-water.json", mark(seen))
    remember(state, tmp_path / "private")
    assert version_of(state.read(f"{MEMORY}high-water.json", 1 << 20).data) == after


class Contested(LocalStorage):
    """Others write each time, before we do."""

    def __init__(self, top: Path, others: Iterator[int]) -> None:
        super().__init__(top, "contested")
        self.others = others

    def replace(self, path: str, data: bytes, tag: str | None) -> str:
        """A rival was faster, as long as there is one."""
        version = next(self.others, None)
        if version is not None:
            found: Blob = self.read(path, 1 << 20)
            super().replace(path, mark(version), found.tag)
            raise LockedError("somebody else", "again")
        return super().replace(path, data, tag)


@pytest.mark.parametrize(("others", "after"), [([6], 7), ([6, 9], 9), ([8], 8)])
def test_two_runs_at_once_keep_the_newest(
    state: LocalStorage, tmp_path: Path, others: list[int], after: int
) -> None:
    del state
    create_file(tmp_path / "state" / MEMORY / "high-water.json", mark(5))
    create_file(tmp_path / "private/high-water.json", mark(7))
    contested = Contested(tmp_path / "state", iter(others))
    remember(contested, tmp_path / "private")
    assert version_of(contested.read(f"{MEMORY}high-water.json", 1 << 20).data) == after


def test_a_rival_each_time_is_asked_again_later(tmp_path: Path) -> None:
    create_file(tmp_path / "state" / MEMORY / "high-water.json", mark(1))
    create_file(tmp_path / "private/high-water.json", mark(7))
    contested = Contested(tmp_path / "state", iter([2, 3, 4]))
    with pytest.raises(RetryLaterError, match="changes all the time"):
        remember(contested, tmp_path / "private")
    remember(contested, tmp_path / "private")
    assert version_of(contested.read(f"{MEMORY}high-water.json", 1 << 20).data) == 7


def test_a_name_that_is_no_mark_is_not_laid_out(state: LocalStorage, tmp_path: Path) -> None:
    for name in ("keys/it.pem", "e0/high-water.json", "e1/e2/high-water.json", "x-high-water.json"):
        create_file(tmp_path / "state" / MEMORY / name, mark(1))
    recall(state, tmp_path / "private")
    assert not (tmp_path / "private").exists()


def _link(name: str, target: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    return entry


REFUSED = {
    "no archive": (b"garbage", "is not what git archive makes"),
    "an archive that ends early": (WHOLE[:60], "is not what git archive makes"),
    "a file outside": (archive({"../it": b""}), "is not what git archive makes"),
    "a link to the outside": (
        archive({"a": b""}, _link("b", "/etc/passwd")),
        "is not what git archive",
    ),
    "a mark that came by git": (
        archive({".firmroot/high-water.json": mark(1)}),
        "belongs to one machine",
    ),
    "a key that came by git": (archive({"x/.firmroot/keys/it.pem": b""}), "belongs to one machine"),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_is_no_workspace_is_refused(tmp_path: Path, sentence: str) -> None:
    data, told = REFUSED[sentence]
    with pytest.raises(ConfigurationError, match=told):
        unpack(data, tmp_path / "refused")
    assert not (tmp_path / "it").exists()
    unpack(WHOLE, tmp_path / "workspace")
    assert (tmp_path / "workspace/keys/it.toml").exists()


@pytest.mark.parametrize(("limit", "name"), [(1, "MAX_FILES"), (21, "MAX_UNPACKED")])
def test_an_archive_has_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, name: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, name, limit)
        with pytest.raises(ConfigurationError, match="larger than any workspace"):
            unpack(WHOLE, tmp_path / "refused")
        patch.setattr(module, name, limit + 1)
        unpack(WHOLE, tmp_path / "workspace")


def test_a_mark_without_a_version_is_no_mark(tmp_path: Path, state: LocalStorage) -> None:
    create_file(tmp_path / "private/high-water.json", b"[]")
    with pytest.raises(NotTrustedError):
        remember(state, tmp_path / "private")
