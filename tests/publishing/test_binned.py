"""Pure rules of hash bins on the release side, each by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from repo_tools.metadata.bins import bins_of
from repo_tools.publishing.binned import artifact, check_loaded
from repo_tools.publishing.live import read_bins
from repo_tools.publishing.prepare import read_base
from tests.publishing.lab import PRODUCT

if TYPE_CHECKING:
    from tests.publishing.lab import Lab

PATH = f"builds/{PRODUCT}/1.0/firmware.img"


def test_a_bin_that_nobody_read_is_not_taken_for_one_that_does_not_exist(binned: Lab) -> None:
    """A release of years ago would be free to be given again."""
    storage = binned.workspace.storage()
    state = read_base(binned.workspace, storage).state
    bins = bins_of(state.role(f"{PRODUCT}-builds"))
    assert bins is not None
    home = bins.get_role_for_target(PATH)
    with pytest.raises(AssertionError, match=f"{home} is live and was not read"):
        artifact(state, PRODUCT, PATH)
    other = next(name for name in bins.get_roles() if name != home)
    check_loaded(state, other)
    state = read_bins(storage, state, [home])
    assert artifact(state, PRODUCT, PATH) is not None
    assert artifact(state, "sensor", PATH) is None
