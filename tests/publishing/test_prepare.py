"""What is prepared: only what is missing, from a storage that is there."""

from __future__ import annotations

import contextlib
import shutil
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from tuf.api.metadata import DelegatedRole, Delegations, TargetFile, Targets

from client_reference.errors import (
    ActionRequiredError,
    ExitCode,
    NotTrustedError,
    RefusedError,
)
from client_reference.trust.updater import Limits
from repo_tools.metadata.adopted import Adopted
from repo_tools.metadata.bins import is_bin
from repo_tools.publishing.online import OnlineKeys
from repo_tools.publishing.plan import admit
from repo_tools.publishing.prepare import (
    Prepared,
    StorageElsewhereError,
    admit_staged,
    check_present,
    old_clients,
    prepare,
    read_base,
    sign_online,
    with_offered,
)
from repo_tools.signing.secrets import open_secrets
from repo_tools.storage.overlay import OverlayStorage
from repo_tools.workspace import Workspace
from tests.publishing.lab import PRODUCT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from repo_tools.storage.protocol import Storage
    from tests.publishing.lab import Lab


def _prepared(lab: Lab, storage: Storage | None = None) -> Prepared:
    ws = lab.workspace
    keys = OnlineKeys(ws, open_secrets(None, {}, None, ws.lab_passphrase))
    storage = ws.storage() if storage is None else storage
    live = read_base(ws, storage)
    admitted = admit_staged(ws, live.state)
    signed = sign_online(ws, storage, admitted, keys, lab.now)
    return prepare(ws, storage, live, admitted, signed, lab.now)


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


def test_a_first_publish_goes_where_nothing_of_others_is(ready: Lab) -> None:
    """A prefix that was forgotten: everything of others would be beside it, and public."""
    for name in ("targets/left-by-an-interrupted-one", "photos/1.jpg"):
        (ready.repository / name).parent.mkdir(parents=True)
        (ready.repository / name).write_bytes(b"x")
    done = ready.run("publish")
    assert done.code == ExitCode.REFUSED
    assert "repository holds other things than a repository: photos/1.jpg; expected" in done.err
    assert not (ready.repository / "metadata/timestamp.json").exists()
    shutil.rmtree(ready.repository / "photos")
    ready.ok("publish")
    assert ready.fresh_device()[1] == "installs 1.0"


@pytest.mark.parametrize("there", [None, b"{}"], ids=["missing", "another one"])
def test_the_newest_root_is_in_the_storage_and_is_that_of_git(
    live: Lab, there: bytes | None
) -> None:
    """Who follows the chain from git would not notice that devices no longer can."""
    root, ws = live.repository / "metadata/1.root.json", live.workspace
    honest = root.read_bytes()
    root.unlink() if there is None else root.write_bytes(there)
    with pytest.raises(NotTrustedError, match="missing; it is in" if there is None else "not the"):
        read_base(ws, ws.storage())
    root.write_bytes(honest)
    assert read_base(ws, ws.storage()).state.roots == (honest,)


def test_only_the_targets_that_wait_bring_keys(live: Lab) -> None:
    """Other ceremonies are open as well, and come first in the alphabet."""
    live.ok("channel", "hold", f"{PRODUCT}@1.0", "--on", "stable")
    ws = live.workspace
    base = read_base(ws, ws.storage()).state
    with patch("repo_tools.publishing.prepare.admit", wraps=admit) as asked:
        admit_staged(ws, base)
        live.ok("ceremony", "start", "targets")
        admit_staged(live.workspace, base)
    first, second = (call.args[3] for call in asked.call_args_list)
    assert first is None
    assert (second.type, second.version) == (Targets.type, 2)
    assert second.delegations is not None


def test_a_channel_waits_for_the_builds_that_it_offers(following: Lab) -> None:
    """Devices that find no artifact would be stranded, and that may be accepted by name."""
    staged = following.directory / f".firmroot/staged/{PRODUCT}-builds.json"
    data = staged.read_bytes()
    staged.unlink()
    with pytest.raises(ActionRequiredError, match="no builds role that lists it is live or on"):
        _prepared(following)
    staged.write_bytes(data)
    following.ok("publish")
    assert following.fresh_device()[1] == "installs 1.1"


# With hash bins


def test_what_channels_offer_is_looked_up_in_its_bins(binned: Lab) -> None:
    ws, storage = binned.workspace, binned.workspace.storage()
    base = read_base(ws, storage).state
    assert not [role for role in base.roles if is_bin(role)]
    assert len([role for role in with_offered(ws, storage, base).roles if is_bin(role)]) == 1


def test_what_this_machine_has_seen_there_is_not_asked_for_again(binned: Lab) -> None:
    storage = binned.workspace.storage()
    with (
        patch.object(storage, "read", wraps=storage.read) as read,
        patch.object(storage, "open", wraps=storage.open) as opened,
    ):
        _prepared(binned, storage)
    asked = {call.args[0] for call in (*read.call_args_list, *opened.call_args_list)}
    assert "metadata/timestamp.json" in asked
    assert "metadata/1.root.json" not in asked
    assert "metadata/root-chain/1" not in asked


# What was there before an adoption


@contextlib.contextmanager
def _adopted(lab: Lab, **delegated: tuple[str, ...]) -> Iterator[Adopted]:
    """The workspace as if it had adopted the live root, and targets with these roles."""
    root = read_base(lab.workspace, lab.workspace.storage()).state.root
    assert root is not None
    roles = {
        name.replace("_", "-"): DelegatedRole(name, [], 1, terminating=False, paths=list(paths))
        for name, paths in delegated.items()
    }
    targets = Targets(delegations=Delegations({}, roles) if roles else None)
    found = Adopted(root, targets)
    with patch.object(Workspace, "adopted", lambda _: found):
        yield found


def test_files_that_were_adopted_are_not_forgotten(following: Lab) -> None:
    with _adopted(following) as found:
        found.targets.targets["app"] = TargetFile.from_data("app", b"app")
        with pytest.raises(RefusedError, match="other target files than those that were adopted"):
            _prepared(following)
        found.targets.targets.clear()
        assert not _prepared(following).rehearsal.stranded()


@pytest.mark.services  # whole lives of a repository, beside the large matrices
def test_an_adopted_role_speaks_for_the_files_that_are_live(following: Lab) -> None:
    """Also signed again; one that was never published says nothing yet."""
    with (
        patch("repo_tools.publishing.prepare.check_alone"),
        _adopted(following, gateway_builds=("builds/*",)),
        pytest.raises(RefusedError, match="gateway-builds would speak for other files than are"),
    ):
        _prepared(following)
    with (
        patch("repo_tools.publishing.prepare.check_alone"),
        _adopted(following, plugins=("plugins/*",)),
    ):
        assert not _prepared(following).rehearsal.stranded()
    following.ok("publish")
    following.ok("ceremony", "start", f"{PRODUCT}-stable")
    following.ok("sign")
    with (
        patch("repo_tools.publishing.prepare.check_alone"),
        _adopted(following, gateway_stable=("channels/*",)),
    ):
        assert f"{PRODUCT}-stable" in _prepared(following).plan.admitted.roles


def test_clients_of_before_are_rehearsed_from_the_first_and_from_the_last_root(live: Lab) -> None:
    assert old_clients(live.workspace) == ()
    with _adopted(live) as found:
        assert [each.name for each in old_clients(live.workspace)] == [
            "client from before adoption, root 1"
        ]
        root = deepcopy(found.root)
        root.version = 2
        later = replace(found, root=root)
        second = live.workspace.metadata / "root/2.json"
        second.write_bytes(b"{}")
        with patch.object(Workspace, "adopted", lambda _: later):
            assert [(each.name, each.root) for each in old_clients(live.workspace)] == [
                ("client from before adoption, root 1", live.workspace.roots()[0]),
                ("client from before adoption, root 2", b"{}"),
            ]


def test_a_bridge_has_a_targets_role_that_devices_on_both_sides_accept(live: Lab) -> None:
    """Otherwise the bridge would go live, and the root behind it never."""
    for name in ("alice", "bob"):
        live.ok("rotate", name)
    live.ok("sign")
    targets = live.workspace.staged / "targets.json"
    signed = targets.read_bytes()
    targets.unlink()
    before = (live.repository / "metadata/timestamp.json").read_bytes()
    done = live.run("publish", "--no-wait")
    assert done.code == ExitCode.ACTION_REQUIRED
    assert "targets must be signed for both; for root 2: targets has good signatures of" in done.err
    assert (live.repository / "metadata/timestamp.json").read_bytes() == before
    targets.write_bytes(signed)
    live.ok("publish", "--no-wait")
    assert live.fresh_device()[1] == "installs 1.0"


def test_what_devices_do_not_read_to_its_end_is_not_published(
    following: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repo_tools.publishing.bridge.Limits", lambda: Limits(timestamp=100))
    done = following.run("publish")
    assert done.code == ExitCode.REFUSED
    assert "timestamp" in done.err
    monkeypatch.undo()
    following.ok("publish")


@pytest.mark.parametrize("left", [0, 100])
def test_a_waiting_manifest_that_was_cut_off_is_named_with_the_way_out(
    ready: Lab, left: int
) -> None:
    (waits,) = ready.workspace.staged.rglob("*.stable.json")
    whole = waits.read_bytes()
    waits.write_bytes(whole[:left])
    name = waits.relative_to(ready.directory)
    for command in (("publish",), ("ceremony", "start", "gateway-stable")):
        done = ready.run(*command)
        assert done.code == ExitCode.NOT_TRUSTED
        assert f"error: {name} is damaged or cut off ({left} bytes): " in done.err
        assert f"git checkout HEAD -- {name}\n" in done.err
    waits.write_bytes(whole)
    ready.ok("publish")


def test_a_staged_root_that_was_changed_is_not_blamed_on_the_storage(ready: Lab) -> None:
    waits = ready.workspace.staged / "root.json"
    whole = waits.read_bytes()
    waits.write_bytes(whole.replace(b'"version":1', b'"version":7', 1))
    done = ready.run("publish")
    assert done.code == ExitCode.NOT_TRUSTED
    assert "error: staged/root.json is not what was signed: root has good signatures" in done.err
    assert "hint: take it from git again: git checkout HEAD -- staged/root.json\n" in done.err
    waits.write_bytes(whole)
    ready.ok("publish")
