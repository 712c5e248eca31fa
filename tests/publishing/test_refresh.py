"""A renewal by itself: of what is live, in the epoch that the anchor says, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from client_reference.errors import ActionRequiredError, RefusedError
from repo_tools.publishing.online import OnlineKeys
from repo_tools.publishing.refresh import Refreshed, refresh
from repo_tools.signing.secrets import open_secrets

if TYPE_CHECKING:
    from repo_tools.workspace import Workspace
    from tests.publishing.lab import Lab


def _keys(workspace: Workspace) -> OnlineKeys:
    return OnlineKeys(workspace, open_secrets(None, {}, None, workspace.lab_passphrase))


def test_nothing_is_renewed_before_anything_is_live(ready: Lab) -> None:
    """What is signed and waits is for a publish, which asks for more."""
    ws = ready.workspace
    with pytest.raises(ActionRequiredError, match="nothing is published yet"):
        refresh(ws, ws.storage(), _keys(ws), ready.now)
    assert not (ready.repository / "metadata/timestamp.json").exists()
    ready.ok("publish")
    assert isinstance(refresh(ws, ws.storage(), _keys(ws), ready.now), Refreshed)


def test_an_epoch_that_the_anchor_does_not_say_is_not_renewed(live: Lab) -> None:
    ws = live.workspace.after()
    with pytest.raises(RefusedError, match="says epoch 1, the recovery anchor says 0"):
        refresh(ws, ws.storage(), _keys(ws), live.now)
    ws = live.workspace
    assert isinstance(refresh(ws, ws.storage(), _keys(ws), live.now), Refreshed)
