"""What is prepared: only what is missing, from a storage that is there."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from repo_tools.publishing.prepare import StorageElsewhereError, check_present
from repo_tools.storage.overlay import OverlayStorage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.publishing.lab import Lab


def test_before_the_first_publish_nobody_misses_a_storage(ready: Lab) -> None:
    shutil.rmtree(ready.repository, ignore_errors=True)
    check_present(ready.workspace, ready.workspace.storage())


@pytest.mark.parametrize("moment", ["anchored", "there"])
def test_a_clone_misses_the_storage_in_every_epoch(at: Callable[[str], Lab], moment: str) -> None:
    lab = at(moment)
    check_present(lab.workspace, lab.workspace.storage())
    aside = lab.repository.rename(lab.repository.with_name("aside"))
    for mark in lab.workspace.private.rglob("high-water.json"):
        mark.unlink()  # of this machine alone: a clone has none
    with pytest.raises(StorageElsewhereError, match="this clone does not have the storage"):
        check_present(lab.workspace, lab.workspace.storage())
    aside.rename(lab.repository)
    lab.ok("refresh")


def test_a_storage_that_is_no_directory_is_asked_and_not_looked_for(live: Lab) -> None:
    remote = OverlayStorage(live.workspace.storage(), {})
    shutil.rmtree(live.repository)
    check_present(live.workspace, remote)  # type: ignore[arg-type] # one that is not local


def test_a_root_chain_that_is_there_is_not_published_again(following: Lab) -> None:
    assert "root-chain" not in following.ok("plan").out
    (following.repository / "metadata/root-chain/1").unlink()
    assert "create   metadata/root-chain/1 " in following.ok("plan").out
    following.ok("publish")
    assert (following.repository / "metadata/root-chain/1").exists()


def test_a_channel_is_signed_again_without_a_new_manifest(live: Lab) -> None:
    """Its manifest is live; no builder is waited for."""
    before = live.fresh_device()
    live.ok("ceremony", "start", "gateway-stable")
    live.ok("sign")
    live.ok("publish")
    assert (live.repository / "metadata/2.gateway-stable.json").exists()
    assert live.fresh_device() == before
