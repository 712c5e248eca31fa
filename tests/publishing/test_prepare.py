"""A clone without the storage, told from a storage that is gone."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from repo_tools.publishing.prepare import StorageElsewhereError, check_present

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
