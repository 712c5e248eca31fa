"""What of a submission is live already, and what is not."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from tuf.api.metadata import Targets

from repo_tools.metadata.edits import assemble
from repo_tools.metadata.repository import RepositoryState
from repo_tools.publishing.examine import is_live
from repo_tools.publishing.prepare import read_base
from tests.publishing.lab import PRODUCT, entry

if TYPE_CHECKING:
    from tests.publishing.lab import Lab

BUILDS, STABLE = f"{PRODUCT}-builds", f"{PRODUCT}-stable"


@pytest.fixture
def state(following: Lab) -> RepositoryState:
    """1.0 and 1.1 are live, each role in its second version."""
    following.ok("publish")
    return read_base(following.workspace, following.workspace.storage()).state


def made(state: RepositoryState, role: str, version: int, *, only: str = "") -> bytes:
    """A role with what is live, or some of it, that expires on another day."""
    live = state.role(role)
    assert live is not None
    targets = {path: each for path, each in live.targets.items() if only in path}
    return assemble(Targets(version, expires=live.expires - timedelta(1), targets=targets), [])


def test_a_role_that_was_never_published_is_not_live(state: RepositoryState) -> None:
    assert not is_live(RepositoryState(), BUILDS, state.roles[BUILDS])


@pytest.mark.parametrize("role", [BUILDS, STABLE])
def test_the_same_content_is_live_whatever_its_signatures(
    state: RepositoryState, role: str
) -> None:
    live = state.role(role)
    assert live is not None
    assert is_live(state, role, assemble(live, []))


def test_builds_are_live_if_what_is_live_has_them_and_is_no_older(state: RepositoryState) -> None:
    assert is_live(state, BUILDS, made(state, BUILDS, 2))
    assert is_live(state, BUILDS, made(state, BUILDS, 1, only="/1.0/"))
    assert not is_live(state, BUILDS, made(state, BUILDS, 3)), "it renews them"
    live = state.role(BUILDS)
    assert live is not None
    for path in (f"builds/{PRODUCT}/1.2/x.img", f"builds/{PRODUCT}/1.0/firmware.img"):
        targets = live.targets | {path: entry(path, "1.2", 3)}
        other = Targets(2, expires=live.expires, targets=targets)
        assert not is_live(state, BUILDS, assemble(other, []))


def test_what_people_sign_is_live_to_the_letter_or_not_at_all(state: RepositoryState) -> None:
    """An older channel with the same manifest is no submission that has been published."""
    assert not is_live(state, STABLE, made(state, STABLE, 1))
    assert not is_live(state, STABLE, made(state, STABLE, 2))
