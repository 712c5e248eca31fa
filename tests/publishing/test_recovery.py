"""The recovery storage: what is written when, what the audit sees, who follows, what stays."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from client_reference.errors import (
    ActionRequiredError,
    ConfigurationError,
    FirmrootError,
    LockedError,
    NotTrustedError,
    RefusedError,
)
from repo_tools.publishing.factory import devices, load_registry
from repo_tools.publishing.following import RECOVERY_ROOT, cannot_follow, followers, lead
from repo_tools.publishing.inherit import carried_files, inherited_builds, inherited_role
from repo_tools.publishing.prepare import read_base
from repo_tools.publishing.recovery import audit_anchor, check_epoch, live_lead, publish_anchor
from repo_tools.storage.local import LocalStorage
from repo_tools.storage.protocol import AccessDeniedError, Blob
from tests.publishing.conftest import stranded
from tests.publishing.lab import PRODUCT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from repo_tools.publishing.factory import Export
    from repo_tools.workspace import Workspace
    from tests.publishing.lab import Lab

BUILDS = f"{PRODUCT}-builds"


def exports(lab: Lab) -> tuple[Export, Export]:
    """The one that is older than the anchor, and the one that has it."""
    old, anchored = sorted(load_registry(lab.workspace), key=lambda each: each.recovery_version)
    return old, anchored


def recovery(lab: Lab) -> Path:
    return lab.directory / "recovery"


def problems(ws: Workspace) -> list[tuple[bool, str]]:
    return [(each.serious, each.detail) for each in audit_anchor(ws)]


# Publishing.


def test_the_first_anchor_is_one_object(at: Callable[[str], Lab]) -> None:
    lab = at("anchored")
    assert [path.name for path in recovery(lab).iterdir()] == ["1.root.json"]
    kept = (lab.directory / "metadata/recovery/1.json").read_bytes()
    assert (recovery(lab) / "1.root.json").read_bytes() == kept
    assert not (lab.directory / "staged/recovery.json").exists()
    assert publish_anchor(lab.workspace)[0] == (), "again: nothing to do"


def test_what_the_storage_lost_is_put_back(at: Callable[[str], Lab]) -> None:
    lab = at("there")
    shutil.rmtree(recovery(lab))
    assert [serious for serious, _ in problems(lab.workspace)] == [True, True, True]
    assert publish_anchor(lab.workspace)[0] == (1, 2)
    assert problems(lab.workspace) == []


def test_another_object_in_its_place_is_a_rival(at: Callable[[str], Lab]) -> None:
    lab = at("anchored")
    (recovery(lab) / "1.root.json").write_bytes(b"another")
    with pytest.raises(LockedError):
        publish_anchor(lab.workspace)
    (recovery(lab) / "1.root.json").unlink()
    assert publish_anchor(lab.workspace)[0] == (1,)


def test_nothing_is_published_that_is_not_signed(at: Callable[[str], Lab], live: Lab) -> None:
    with pytest.raises(ActionRequiredError, match="there is no recovery anchor yet"):
        publish_anchor(live.workspace)
    lab = at("named")
    with pytest.raises(ActionRequiredError, match="recovery-2 needs 2 more"):
        publish_anchor(lab.workspace)
    assert not (recovery(lab) / "2.root.json").exists()


def test_devices_are_sent_only_where_something_is(at: Callable[[str], Lab]) -> None:
    lab = at("staged")
    with pytest.raises(ActionRequiredError, match="epoch 1 is not live"):
        publish_anchor(lab.workspace)
    assert [path.name for path in recovery(lab).iterdir()] == ["1.root.json"]
    lab.ok("publish", *stranded(lab))
    new, statement = publish_anchor(lab.workspace)
    assert (new, statement.epoch) == ((2,), 1)


def test_the_root_is_beside_the_chain_before_anything_names_it(at: Callable[[str], Lab]) -> None:
    lab = at("staged")
    lab.ok("publish", *stranded(lab))
    (recovery(lab) / "2.root.json").mkdir()  # nothing can be created there
    with pytest.raises(FirmrootError):
        publish_anchor(lab.workspace)
    assert (recovery(lab) / "e1/1.root.json").exists()
    assert (lab.directory / "staged/e1/recovery.json").exists()
    (recovery(lab) / "2.root.json").rmdir()
    assert publish_anchor(lab.workspace)[0] == (2,)
    assert problems(lab.workspace) == []


def test_a_publish_that_was_killed_is_finished(at: Callable[[str], Lab]) -> None:
    lab = at("staged")
    lab.ok("publish", *stranded(lab))
    staged = lab.directory / "staged/e1/recovery.json"
    data = staged.read_bytes()
    publish_anchor(lab.workspace)
    staged.write_bytes(data)  # killed before the last step
    assert publish_anchor(lab.workspace)[0] == ()
    assert not staged.exists()
    (lab.directory / "metadata/recovery/2.json").unlink()
    staged.write_bytes(data)  # killed before the one before
    assert publish_anchor(lab.workspace)[0] == ()
    assert (lab.directory / "metadata/recovery/2.json").read_bytes() == data


# Epochs.


def test_an_epoch_is_published_when_the_anchor_has_named_its_root(at: Callable[[str], Lab]) -> None:
    for name in ("begun", "named"):
        lab = at(name)
        with pytest.raises(ActionRequiredError, match="the anchor has not named its root yet"):
            check_epoch(lab.workspace)
        assert lab.run("publish").code == 3
        assert lab.run("refresh").code == 3
    for name in ("anchored", "staged", "there"):
        check_epoch(at(name).workspace)


def test_an_epoch_that_ended_is_never_published_again(at: Callable[[str], Lab], live: Lab) -> None:
    lab = at("there")
    text = (lab.directory / "firmroot.toml").read_text()
    for wrong in (0, 2, 3):
        (lab.directory / "firmroot.toml").write_text(text.replace("epoch = 1", f"epoch = {wrong}"))
        done = lab.run("refresh")
        assert done.code in {3, 5}
    (lab.directory / "firmroot.toml").write_text(text.replace("epoch = 1", "epoch = 0"))
    done = lab.run("refresh")
    assert "firmroot.toml says epoch 0, the recovery anchor says 1" in done.err
    (lab.directory / "firmroot.toml").write_text(text)
    lab.ok("refresh")
    check_epoch(live.workspace)
    with pytest.raises(RefusedError, match="says epoch 1, the recovery anchor says 0"):
        check_epoch(live.workspace.after())


def test_an_epoch_starts_from_the_root_that_was_named(at: Callable[[str], Lab]) -> None:
    lab = at("staged")
    staged = lab.directory / "staged/e1/root.json"
    honest = staged.read_bytes()
    document = json.loads(honest)
    document["signatures"] = document["signatures"][::-1]
    staged.write_bytes(json.dumps(document).encode())
    done = lab.run("publish")
    assert (done.code, "this workspace starts from" in done.err) == (5, True)
    staged.write_bytes(honest)
    lab.ok("publish", *stranded(lab))


def test_a_clone_without_its_roots_is_told_so_by_the_publish(at: Callable[[str], Lab]) -> None:
    lab = at("anchored")
    shutil.rmtree(lab.directory / "metadata/root")
    check_epoch(lab.workspace)
    with pytest.raises(ActionRequiredError, match="there is no root yet"):
        read_base(lab.workspace, lab.workspace.storage())


def test_the_anchor_is_not_published_about_another_root(at: Callable[[str], Lab]) -> None:
    """Two clones re-rooted apart: the one that publishes must not send out the other's anchor."""
    lab = at("staged")
    lab.ok("publish", *stranded(lab))
    other = at("begun").later(minutes=5)
    other.ok("ceremony", "start", "root", "--discard-signatures", "root")
    other.ok("sign")
    other.ok("anchor", "re-root", *stranded(other))
    other.ok("sign")
    staged = lab.directory / "staged/e1/recovery.json"
    honest = staged.read_bytes()
    shutil.copy(other.directory / "staged/e1/recovery.json", staged)
    done = lab.run("anchor", "publish")
    assert (done.code, "this workspace starts from" in done.err) == (5, True)
    assert [path.name for path in recovery(lab).iterdir()] == ["1.root.json"]
    staged.write_bytes(honest)
    lab.ok("anchor", "publish")


# The audit.


def test_a_sound_anchor_has_no_problems(at: Callable[[str], Lab]) -> None:
    for name in ("anchored", "begun"):
        assert problems(at(name).workspace) == []
    lab = at("there")
    assert problems(lab.workspace) == []
    assert "ok       anchor: 2 versions, published" in lab.ok("verify").out


def test_no_anchor_is_a_warning(live: Lab) -> None:
    assert "warning  anchor: there is none: devices that are made now" in live.ok("verify").out
    assert "anchor" not in live.ok("verify", "--as-device").out
    assert "anchor" not in live.ok("verify", live.repository).out


def _lags(lab: Lab) -> None:
    (recovery(lab) / "2.root.json").unlink()


def _replaced(lab: Lab) -> None:
    shutil.copy(recovery(lab) / "1.root.json", recovery(lab) / "2.root.json")


def _no_root(lab: Lab) -> None:
    (recovery(lab) / "e1/1.root.json").write_bytes(b"another")


def _unknown(lab: Lab) -> None:
    (recovery(lab) / "3.root.json").write_bytes(b"what is this")


def _other_root(lab: Lab) -> None:
    shutil.copy(lab.directory / "metadata/root/1.json", lab.directory / "metadata/e1/root/1.json")


def _rootless(lab: Lab) -> None:
    shutil.rmtree(lab.directory / "metadata/e1/root")


DAMAGE = {
    "a workspace without its root": (_rootless, True, "first root of epoch 1; there is none"),
    "a version that is not published": (_lags, True, "2.root.json is not in recovery: devices"),
    "another version in its place": (_replaced, True, "is not metadata/recovery/2.json"),
    "another primary root beside it": (_no_root, True, "e1/1.root.json in recovery is not the"),
    "a version that git does not know": (_unknown, True, "3.root.json in recovery is not known"),
    "a workspace from another root": (_other_root, True, "as the first root of epoch 1; it is"),
}


@pytest.mark.parametrize(("damage", "serious", "detail"), DAMAGE.values(), ids=DAMAGE)
def test_the_audit_sees(
    at: Callable[[str], Lab], damage: Callable[[Lab], None], *, serious: bool, detail: str
) -> None:
    lab = at("there")
    damage(lab)
    found = problems(lab.workspace)
    assert found[0][0] is serious
    assert detail in found[0][1]


def test_a_recovery_storage_that_lost_a_version_is_audited_as_devices_find_it(
    at: Callable[[str], Lab],
) -> None:
    lab = at("there")
    assert "updates" in lab.ok("verify").out
    _lags(lab)
    done = lab.run("verify")
    assert done.code == 6
    assert "error    anchor: 2.root.json is not in recovery: devices that need it stay" in done.out
    stays = [line for line in done.out.splitlines() if "stays in epoch 0, expected epoch 1" in line]
    assert stays, done.out
    assert all(line.startswith("error    device gateway-stable") for line in stays)
    lab.ok("anchor", "publish")
    assert "trusted: everything that is live verifies" in lab.ok("verify").out


def test_an_anchor_that_these_credentials_may_not_read_is_no_alarm(
    at: Callable[[str], Lab],
) -> None:
    """It is in another account, where the publisher has no permission: verify ended with 6."""
    lab = at("there")
    read = LocalStorage.read

    def deny(self: LocalStorage, path: str, max_length: int) -> Blob:
        if self.root == recovery(lab):
            raise error
        return read(self, path, max_length)

    with patch.object(LocalStorage, "read", deny):
        error: FirmrootError = AccessDeniedError("access denied to GetObject")
        done = lab.ok("verify")
        assert "warning  anchor: not looked at: access denied to GetObject" in done.out
        error = ConfigurationError("there is no such bucket")
        assert "error    anchor: there is no such bucket" in lab.run("verify").out
    _lags(lab)
    assert lab.run("verify").code == 6


def test_a_re_rooting_that_is_under_way_strands_nobody(at: Callable[[str], Lab]) -> None:
    for name in ("begun", "staged"):
        ws = at(name).workspace
        assert live_lead(ws) == lead(ws)


def test_a_gap_in_git_is_told(at: Callable[[str], Lab]) -> None:
    lab = at("there")
    (lab.directory / "metadata/recovery/1.json").unlink()
    done = lab.run("status")
    assert (done.code, "metadata/recovery has versions [2]" in done.err) == (2, True)


def test_a_version_that_thieves_of_the_anchor_published_is_told(
    at: Callable[[str], Lab],
) -> None:
    """It verifies, so devices follow it: nothing but the audit sees that nobody here made it."""
    lab = at("there")
    thieves = lab.copy(lab.directory.parent / "thieves")
    thieves.ok("anchor", "renew")
    thieves.ok("sign")
    thieves.ok("anchor", "publish")
    shutil.copy(recovery(thieves) / "3.root.json", recovery(lab) / "3.root.json")
    assert problems(lab.workspace)[0][0] is True
    assert "it is signed, devices follow it" in problems(lab.workspace)[0][1]
    done = lab.run("verify")
    assert done.code == 6
    assert "error    anchor: 3.root.json" in done.out


# Who follows.


def test_an_export_follows_with_a_root_of_the_chain_and_somewhere_to_ask(
    at: Callable[[str], Lab],
) -> None:
    lab = at("anchored")
    old, anchored = exports(lab)
    ws = lab.workspace
    found = {each.export.id: each.obstacle for each in followers(ws, load_registry(ws))}
    assert found == {
        anchored.id: "",
        old.id: "it was made without a recovery root, so nothing but its old root leads it",
    }
    retired = replace(old, retired="2026-03-02")
    assert [each.export.id for each in followers(ws, [retired, anchored])] == [anchored.id]
    place = lab.directory / "factory" / anchored.id
    text = (place / "device.toml").read_text()
    (place / "device.toml").write_text(text.replace("recovery = [", "# recovery = ["))
    assert cannot_follow(ws, anchored.id) == "its device.toml names no URL of the recovery anchor"
    (place / "device.toml").write_text("[")
    assert cannot_follow(ws, anchored.id).startswith("its device.toml cannot be read")
    (place / "device.toml").write_text(text)
    (place / RECOVERY_ROOT).write_bytes((lab.directory / "metadata/root/1.json").read_bytes())
    assert "not one of this anchor" in cannot_follow(ws, anchored.id)


def test_a_chain_that_breaks_leads_nobody(at: Callable[[str], Lab]) -> None:
    lab = at("there")
    _, anchored = exports(lab)
    assert cannot_follow(lab.workspace, anchored.id) == ""
    second = lab.directory / "metadata/recovery/2.json"
    document = json.loads(second.read_bytes())
    document["signed"]["x-firmroot-primary"]["epoch"] = 7
    second.write_bytes(json.dumps(document).encode())
    assert "the chain of recovery roots breaks" in cannot_follow(lab.workspace, anchored.id)


def test_followers_are_rehearsed_as_they_left_the_factory(at: Callable[[str], Lab]) -> None:
    lab = at("staged")
    old, anchored = exports(lab)
    first = (lab.directory / "metadata/root/1.json").read_bytes()
    found = {device.name: device for device in devices(lab.workspace)}
    assert found.keys() == {old.id, anchored.id}
    assert {(device.root, device.floors.epoch) for device in found.values()} == {(first, 0)}
    carried = (lab.directory / "metadata/recovery/1.json").read_bytes()
    assert (found[anchored.id].recovery, found[anchored.id].obstacle) == (carried, "")
    assert found[old.id].recovery is None
    assert "made without a recovery root" in found[old.id].obstacle
    assert {each.obstacle for each in devices(at("anchored").workspace)} == {""}


def test_who_cannot_follow_is_stranded_and_named(at: Callable[[str], Lab]) -> None:
    lab = at("staged")
    old, anchored = exports(lab)
    done = lab.run("publish")
    assert (done.code, "would strand 1 of the devices" in done.err) == (5, True)
    assert f"{old.id}: with factory state, now, clock good: stays in epoch 0, " in done.err
    assert "expected epoch 1: it was made without a recovery root" in done.err
    assert anchored.id not in done.err
    done = lab.ok("publish", *stranded(lab))
    assert f"{anchored.id}: updates, installs 1.0" in done.out
    lab.ok("anchor", "publish")
    done = lab.run("refresh")
    assert (done.code, old.id in done.err) == (5, True)
    found = lab.run("verify", "--as-device")
    assert (found.code, f"device {old.id}: clock good: stranded, stays in" in found.out) == (
        6,
        True,
    )
    lab.ok("--yes", "factory", "retire", old.id)
    lab.ok("refresh")
    lab.ok("verify")


def test_an_export_with_nowhere_to_ask_is_stranded(at: Callable[[str], Lab]) -> None:
    lab = at("staged")
    _, anchored = exports(lab)
    path = lab.directory / "factory" / anchored.id / "device.toml"
    honest = path.read_text()
    path.write_text(honest.replace("recovery = [", "# recovery = ["))
    done = lab.run("publish", *stranded(lab))
    assert (done.code, f"{anchored.id}: with" in done.err) == (5, True)
    assert "names no URL of the recovery anchor" in done.err
    path.write_text(honest)
    lab.ok("publish", *stranded(lab))


def test_re_rooted_devices_are_rehearsed_with_the_floor_of_the_statement(
    at: Callable[[str], Lab],
) -> None:
    lab = at("begun")
    lab.ok("sign")
    lab.ok("anchor", "re-root", *stranded(lab), "--minimum", f"{PRODUCT}=2")
    lab.ok("sign")
    done = lab.ok("publish", *stranded(lab))
    _, anchored = exports(lab)
    assert f"{anchored.id}: stays, " in done.out, "1.0 has sequence 1"


# What is inherited.


def test_builds_are_taken_over_only_as_this_workspace_published_them(
    at: Callable[[str], Lab],
) -> None:
    lab = at("begun")
    ws = lab.workspace
    honest = inherited_builds(ws, PRODUCT)
    assert {path.rsplit("/", 1)[0] for path in honest} == {f"builds/{PRODUCT}/1.0"}
    assert inherited_builds(at("anchored").workspace, PRODUCT) == {}, "no earlier epoch"
    assert inherited_builds(ws, "another") == {}
    place = lab.repository / f"metadata/1.{BUILDS}.json"
    data = place.read_bytes()
    for bad in (data.replace(b"1.0", b"6.6"), b""):
        place.write_bytes(bad)
        with pytest.raises(NotTrustedError, match="is not what this workspace published"):
            inherited_builds(ws, PRODUCT)
    place.unlink()
    with pytest.raises(NotTrustedError, match="is not what this workspace published"):
        inherited_builds(ws, PRODUCT)
    place.write_bytes(data)
    assert inherited_builds(ws, PRODUCT) == honest


def test_a_damaged_record_is_told(at: Callable[[str], Lab]) -> None:
    lab = at("begun")
    (lab.directory / "history/000009.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"history/000009.json is damaged"):
        inherited_builds(lab.workspace, PRODUCT)


def test_what_a_builder_had_not_published_goes_along(at: Callable[[str], Lab]) -> None:
    lab = at("anchored")
    lab.add("1.1")
    text = (lab.directory / "firmroot.toml").read_text()
    (lab.directory / "firmroot.toml").write_text(f"epoch = 1\n{text}")
    found = inherited_builds(lab.workspace, PRODUCT)
    assert {path.split("/")[2] for path in found} == {"1.0", "1.1"}


def test_a_manifest_is_taken_over_as_it_was_signed(at: Callable[[str], Lab]) -> None:
    lab = at("begun")
    role = inherited_role(lab.workspace, f"{PRODUCT}-stable")
    assert role is not None
    (file,) = (lab.repository / f"targets/channels/{PRODUCT}").iterdir()
    honest = file.read_bytes()
    file.write_bytes(honest.replace(b'"1.0"', b'"6.6"'))
    with pytest.raises(NotTrustedError):
        carried_files(lab.workspace, role)
    file.write_bytes(honest)
    assert carried_files(lab.workspace, role) == {f"channels/{PRODUCT}/stable.json": honest}


def test_roles_of_people_come_from_git(at: Callable[[str], Lab]) -> None:
    lab = at("begun")
    kept = inherited_role(lab.workspace, f"{PRODUCT}-stable")
    assert kept is not None
    assert list(kept.targets) == [f"channels/{PRODUCT}/stable.json"]
    assert inherited_role(lab.workspace, f"{PRODUCT}-stable-hold") is None
    assert inherited_role(lab.workspace.after(), f"{PRODUCT}-stable") is not None
