"""The course of a clean-up: when it looks at all, and what of a second look may go."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from client_reference.errors import (
    ActionRequiredError,
    ConfigurationError,
    RefusedError,
    RetryLaterError,
)
from repo_tools.publishing.cleaning import clean, look
from repo_tools.publishing.collect import is_marked
from repo_tools.publishing.online import OnlineKeys
from repo_tools.signing.secrets import open_secrets
from repo_tools.storage.local import LocalStorage

if TYPE_CHECKING:
    from tests.publishing.lab import Lab


def _keys(lab: Lab) -> OnlineKeys:
    workspace = lab.workspace
    return OnlineKeys(workspace, open_secrets(None, {}, None, workspace.lab_passphrase))


def test_of_another_epoch_than_the_anchor_says_nothing_is_looked_at(live: Lab) -> None:
    """Everything that devices of the right one need would count as garbage of a wrong one."""
    cutoff = live.now - timedelta(days=1)
    with pytest.raises(RefusedError, match="says epoch 1, the recovery anchor says 0"):
        look(live.workspace.after(), cutoff)
    assert look(live.workspace, cutoff).garbage.entries == ()


def test_before_anything_is_live_nothing_is_looked_at(ready: Lab) -> None:
    """Whatever lies there may be what an interrupted first publish is about to need."""
    cutoff = ready.now - timedelta(days=1)
    with pytest.raises(ActionRequiredError, match="nothing is published yet"):
        look(ready.workspace, cutoff)
    ready.ok("publish")
    assert look(ready.workspace, cutoff).garbage.entries == ()


def test_while_a_root_is_ahead_of_the_timestamp_nothing_is_looked_at(live: Lab) -> None:
    live.ok("ceremony", "start", "root")
    live.ok("sign")
    with patch.object(LocalStorage, "replace", side_effect=RetryLaterError("the network is gone")):
        assert live.run("publish").code == 4
    assert (live.repository / "metadata/2.root.json").exists()
    cutoff = live.now - timedelta(days=1)
    with pytest.raises(ActionRequiredError, match="a publish was interrupted"):
        look(live.workspace, cutoff)
    live.ok("publish")
    assert look(live.workspace, cutoff).garbage.entries == ()


def test_what_nobody_was_shown_stays(live: Lab) -> None:
    """It may have become garbage between the question and the answer; the next run shows it."""
    storage = live.workspace.whole_storage()
    then = (live.now - timedelta(days=9)).timestamp()
    paths = []
    for data in (b"x", b"y"):
        digest = hashlib.sha256(data).hexdigest()
        paths.append(f"targets/{digest}.x")
        storage.create(paths[-1], data, digest)
        os.utime(live.repository / paths[-1], (then, then))
    found = look(live.workspace, live.now - timedelta(days=1))
    assert {entry.path for entry in found.garbage.entries} == set(paths)
    first, second = found.garbage.entries
    asked = replace(found, garbage=replace(found.garbage, entries=(first,)))
    assert clean(live.workspace, asked, _keys(live), live.now) == (1, 1)
    assert [path for path in paths if (live.repository / path).exists()] == [second.path]
    again = look(live.workspace, live.now - timedelta(days=1))
    assert clean(live.workspace, again, _keys(live), live.now) == (1, 1)
    assert not is_marked(storage)


def _add_garbage(lab: Lab) -> str:
    digest = hashlib.sha256(b"x").hexdigest()
    path = f"targets/{digest}.x"
    lab.workspace.whole_storage().create(path, b"x", digest)
    then = (lab.now - timedelta(days=9)).timestamp()
    os.utime(lab.repository / path, (then, then))
    return path


def test_who_may_not_remove_stops_no_publish(live: Lab) -> None:
    """The mark stayed, and the hint of every publish named a command that could not end it."""
    _add_garbage(live)
    denied = ConfigurationError("access denied to DeleteObject")
    found = look(live.workspace, live.now - timedelta(days=1))
    with (
        patch.object(LocalStorage, "remove", side_effect=denied),
        pytest.raises(ConfigurationError),
    ):
        clean(live.workspace, found, _keys(live), live.now)
    assert not is_marked(live.workspace.whole_storage())


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        # Answered: an object under a lock, say.
        (ConfigurationError("access denied to DeleteObject"), False),
        # Not answered: it may still be carried out, and remove what a publish relies on.
        (RetryLaterError("the network is gone"), True),
    ],
)
def test_the_mark_stays_while_something_may_still_be_removed(
    error: Exception, *, stays: bool, live: Lab
) -> None:
    path = _add_garbage(live)
    found = look(live.workspace, live.now - timedelta(days=1))
    with (
        patch.object(LocalStorage, "remove_all", side_effect=error),
        pytest.raises(type(error)),
    ):
        clean(live.workspace, found, _keys(live), live.now)
    assert is_marked(live.workspace.whole_storage()) is stays
    assert (live.repository / path).exists()
    live.ok("--yes", "gc", "--older", "1d")
    assert not (live.repository / path).exists()
    assert not is_marked(live.workspace.whole_storage())
