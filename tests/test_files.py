"""Durable files: the order of syncs and names, and what is left after a failure."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from client_reference.errors import ExitCode, LockedError
from repo_tools.files import (
    DiskFullError,
    create_file,
    describe,
    exclusive_lock,
    make_directory,
    remove_file,
    replace_file,
    sweep,
    sync_directory,
    temporary_file,
)
from tests.simulators.disk import full_disk, names, recorded

if TYPE_CHECKING:
    from pathlib import Path


def test_replace_syncs_the_bytes_then_renames_then_syncs_the_directory(tmp_path: Path) -> None:
    with recorded() as calls:
        replace_file(tmp_path / "a", b"new")
    assert calls == ["sync file", "rename a", f"sync directory {tmp_path.name}"]
    assert (tmp_path / "a").read_bytes() == b"new"


def test_create_syncs_the_bytes_then_links_then_syncs_the_directory(tmp_path: Path) -> None:
    with recorded() as calls:
        create_file(tmp_path / "a", b"new")
    assert calls == ["sync file", "link a", f"sync directory {tmp_path.name}"]


def test_create_never_touches_a_file_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_remove_is_durable(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with recorded() as calls:
        remove_file(tmp_path / "a")
    assert calls == ["unlink a", f"sync directory {tmp_path.name}"]


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    remove_file(tmp_path / "a")


def test_new_directories_are_durable_in_their_parents(tmp_path: Path) -> None:
    with recorded() as calls:
        make_directory(tmp_path / "a" / "b")
    assert calls == [f"sync directory {tmp_path.name}", "sync directory a"]


def test_a_directory_that_is_there_costs_nothing(tmp_path: Path) -> None:
    with recorded() as calls:
        make_directory(tmp_path)
    assert calls == []


def test_a_directory_that_another_process_makes_meanwhile_is_no_error(tmp_path: Path) -> None:
    with patch("pathlib.Path.is_dir", lambda self: self == tmp_path):
        (tmp_path / "a").mkdir()
        make_directory(tmp_path / "a")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_file_and_says_what_to_do(tmp_path: Path, number: int) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with full_disk(number), pytest.raises(DiskFullError) as caught:
        replace_file(tmp_path / "a", b"new")
    assert f"the disk is full: {tmp_path}" in caught.value.message
    assert "nothing was half-written" in caught.value.message
    assert caught.value.hint == "free some space, then run the same command again"
    assert caught.value.exit_code == ExitCode.RETRY_LATER
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_full_disk_creates_nothing(tmp_path: Path) -> None:
    with full_disk(errno.ENOSPC), pytest.raises(DiskFullError):
        create_file(tmp_path / "a", b"new")
    assert names(tmp_path) == []


def test_another_failure_of_the_disk_stays_what_it_is(tmp_path: Path) -> None:
    with full_disk(errno.EIO), pytest.raises(OSError, match="Input/output error") as caught:
        replace_file(tmp_path / "a", b"new")
    assert not isinstance(caught.value, DiskFullError)


def test_short_writes_are_continued(tmp_path: Path) -> None:
    write = os.write
    with patch("os.write", lambda descriptor, data: write(descriptor, bytes(data[:3]))):
        replace_file(tmp_path / "a", b"0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_the_mode_holds_before_the_file_has_its_name(tmp_path: Path) -> None:
    create_file(tmp_path / "key", b"secret", mode=0o600)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    replace_file(tmp_path / "shared", b"", mode=0o644)
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o644


def test_a_temporary_file_is_beside_its_target_and_goes_away(tmp_path: Path) -> None:
    with temporary_file(tmp_path, "a") as (_, temporary):
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".a.")
        assert temporary.name.endswith(".tmp")
    assert names(tmp_path) == []


def test_a_second_holder_of_a_lock_is_refused_by_name(tmp_path: Path) -> None:
    with (
        exclusive_lock(tmp_path / "x" / "lock", wait=False, owner="workspace acme"),
        pytest.raises(LockedError) as caught,
        exclusive_lock(tmp_path / "x" / "lock", wait=False, owner="workspace acme"),
    ):
        pass
    assert caught.value.message == "another firmroot command is at work on workspace acme"


def test_a_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), exclusive_lock(tmp_path / "l", wait=False, owner="w"):
        raise ZeroDivisionError
    with exclusive_lock(tmp_path / "l", wait=False, owner="w"):
        pass


def test_a_waiting_lock_waits(tmp_path: Path) -> None:
    modes: list[int] = []
    with (
        patch("fcntl.flock", lambda _, mode: modes.append(mode)),
        exclusive_lock(tmp_path / "l", wait=True, owner="w"),
    ):
        pass
    import fcntl

    assert modes == [fcntl.LOCK_EX]


def test_what_the_system_said_is_told_with_its_file() -> None:
    assert describe(OSError(errno.EACCES, "Permission denied", "x")) == "x: Permission denied"
    assert describe(OSError(errno.EACCES, "Permission denied")) == "Permission denied"
    assert describe(OSError("odd")) == "odd"


def test_a_directory_is_synced_not_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(NotADirectoryError):
        sync_directory(tmp_path / "a")


# What killed processes left.


def _abandon(directory: Path, name: str = "image") -> Path:
    """A temporary file whose process was killed."""
    with patch("pathlib.Path.unlink"), temporary_file(directory, name) as (_, temporary):
        pass
    assert temporary.exists()
    return temporary


def test_what_nobody_writes_any_more_goes_wherever_it_is(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    make_directory(below)
    left = [_abandon(tmp_path), _abandon(below), _abandon(below, "x" * 200)]
    sweep(tmp_path)
    assert not [path for path in left if path.exists()]
    assert below.is_dir()


def test_what_somebody_writes_stays(tmp_path: Path) -> None:
    with temporary_file(tmp_path, "a") as (descriptor, temporary):
        os.write(descriptor, b"new")
        sweep(tmp_path)
        temporary.replace(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_what_another_process_writes_stays_until_it_is_killed(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with temporary_file(tmp_path, "a"):
            os.write(writer, b".")
            signal.pause()
    os.read(reader, 1)
    sweep(tmp_path)
    assert len(names(tmp_path)) == 1
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    sweep(tmp_path)
    assert names(tmp_path) == []


NOT_OURS = ("a.img", ".a.tmp", ".gitignore", "a.abcdefgh.tmp", ".a.ABCDEFGH.tmp", ".a.abcdefg.tmp")


@pytest.mark.parametrize("name", NOT_OURS)
def test_what_is_not_ours_stays(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    sweep(tmp_path)
    assert names(tmp_path) == [name]


def test_a_link_with_a_name_of_ours_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    (tmp_path / ".a.abcdefgh.tmp").symlink_to(tmp_path / "precious")
    sweep(tmp_path)
    assert (tmp_path / "precious").exists()


def test_a_directory_can_be_left_alone(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    left = _abandon(tmp_path / "other")
    sweep(tmp_path, but=[tmp_path / "other"])
    assert left.exists()


def test_a_sweep_between_creating_and_locking_costs_one_more_try(tmp_path: Path) -> None:
    lock = fcntl.flock
    swept: list[str] = []

    def interrupted(descriptor: int, operation: int) -> None:
        if not swept and operation == fcntl.LOCK_EX:
            swept.extend(names(tmp_path))
            sweep(tmp_path)
        lock(descriptor, operation)

    with patch("fcntl.flock", interrupted):
        replace_file(tmp_path / "a", b"new")
    assert len(swept) == 1
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"new"
