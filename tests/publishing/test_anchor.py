"""`firmroot anchor`, and what the other commands say about it at each moment of a re-rooting."""

from __future__ import annotations

import json
import shutil
import tomllib
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import ActionRequiredError
from client_reference.trust.recovery import read_statement
from repo_tools.anchor import (
    check_begin,
    least_offered,
    least_sequences,
    underway,
    without_keys,
)
from repo_tools.publishing.factory import load_registry
from repo_tools.signing.ceremony import open_ceremonies
from tests.publishing.conftest import LOST, stranded
from tests.publishing.lab import PRODUCT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.publishing.lab import Lab

WITHOUT = [word for name in LOST for word in ("--without", name)]


def opened(lab: Lab) -> list[str]:
    return [each.name for each in open_ceremonies(lab.workspace)]


def with_new_keys(lab: Lab) -> Lab:
    for name in ("ada", "ben", "cleo"):
        lab.ok("key", "new", name, "--role", "root", "--role", "targets")
    return lab


def unchanged(lab: Lab) -> Callable[[], bool]:
    """Whether a refused command left everything as it was."""
    before = lab.tree()
    return lambda: lab.tree() == before


# Beginning.


def test_a_re_rooting_opens_everything_that_people_sign(at: Callable[[str], Lab]) -> None:
    lab = at("begun")
    assert opened(lab) == ["root-1", "targets-1", f"{PRODUCT}-stable-1"]
    assert (lab.directory / f".firmroot/e1/staged/{PRODUCT}-builds.json").is_file()
    config = (lab.directory / "firmroot.toml").read_text()
    assert "\nepoch = 1\n" in config
    assert "# Where publish writes" in config, "what people wrote stays"
    assert set(lab.workspace.policy.role("root").keys) == {"ada", "ben", "cleo"}
    assert set(lab.workspace.policy.role("targets").keys) == {"ada", "ben", "cleo"}
    assert underway(lab.workspace)
    assert not underway(at("anchored").workspace)
    assert not underway(at("there").workspace)


def test_it_says_first_who_follows_and_from_where(at: Callable[[str], Lab]) -> None:
    lab = with_new_keys(at("anchored"))
    done = lab.ok("anchor", "re-root", *WITHOUT, *stranded(lab))
    entries = {bool(each.recovery_version): each.id for each in load_registry(lab.workspace)}
    assert f"{entries[True]}  unknown devices  follow to epoch 1" in done.out
    assert f"{entries[False]}  unknown devices  STAY BEHIND: it was made without" in done.out
    assert f"devices of {PRODUCT} then install nothing below sequence 1" in done.out
    assert "next: firmroot sign  (root-1 waits for" in done.out
    facts = lab.ok("--json", "anchor", "re-root", *stranded(lab)).json
    assert {each["id"]: each["follows"] for each in facts["exports"]} == {
        entries[True]: True,
        entries[False]: False,
    }
    assert (facts["epoch"], facts["opened"], facts["statement"]) == (1, [], None)


REFUSED = {
    "the old holders would hold the new root": ((), 5, "could sign the new root"),
    "a threshold of them stays": (("--without", "alice"), 5, "2 of bob, carol could sign"),
    "a key that is not": (("--without", "eve"), 2, "--without eve: there is no such key"),
    "a sequence that is no number": (("--minimum", "gateway=x"), 2, "expected such as gateway=12"),
    "a product without a sequence": (("--minimum", "gateway"), 2, "expected such as gateway=12"),
    "a product that is not": ((*WITHOUT, "--minimum", "x=1"), 2, "there is no such product"),
}


@pytest.mark.parametrize(("options", "code", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_changes_nothing(
    at: Callable[[str], Lab], options: tuple[str, ...], code: int, message: str
) -> None:
    lab = with_new_keys(at("anchored"))
    same = unchanged(lab)
    done = lab.run("anchor", "re-root", *options, *stranded(lab))
    assert (done.code, message in done.err) == (code, True), done.err
    assert same()
    lab.ok("anchor", "re-root", *WITHOUT, *stranded(lab))


def test_one_who_stays_below_the_threshold_may_stay(at: Callable[[str], Lab]) -> None:
    lab = with_new_keys(at("anchored"))
    lab.ok("anchor", "re-root", *WITHOUT[:4], *stranded(lab))
    assert set(lab.workspace.policy.role("root").keys) == {"carol", "ada", "ben", "cleo"}


def test_a_policy_that_would_break_a_rule_begins_nothing(at: Callable[[str], Lab]) -> None:
    lab = at("anchored")
    lab.ok("key", "new", "ada", "--role", "root", "--role", "targets")
    same = unchanged(lab)
    done = lab.run("anchor", "re-root", *WITHOUT, *stranded(lab))
    assert (done.code, "threshold 2 is above its 1 keys" in done.err) == (5, True)
    assert same()


def test_who_stays_behind_must_be_named(at: Callable[[str], Lab]) -> None:
    lab = with_new_keys(at("anchored"))
    same = unchanged(lab)
    done = lab.run("--yes", "anchor", "re-root", *WITHOUT)
    assert done.code == 5
    assert " ".join(stranded(lab)) in done.err
    assert same()
    lab.ok("--yes", "factory", "retire", stranded(lab)[1])
    lab.ok("anchor", "re-root", *WITHOUT)


def test_without_a_published_anchor_nothing_leads_away(live: Lab) -> None:
    live.ok("anchor", "init")
    assert "next: firmroot anchor publish" in live.ok("sign").out
    with_new_keys(live)
    done = live.run("anchor", "re-root", *WITHOUT)
    assert (done.code, "no recovery anchor is published" in done.err) == (3, True)


def test_a_clone_without_its_roots_begins_nothing(at: Callable[[str], Lab]) -> None:
    lab = with_new_keys(at("anchored"))
    ws = lab.workspace
    kept = lab.directory / "metadata/root/1.json"
    data = kept.read_bytes()
    kept.unlink()
    policy = without_keys(ws, LOST)
    with pytest.raises(ActionRequiredError, match="nothing is published that could be left"):
        check_begin(ws, policy, lab.now, discard_signatures=False)
    kept.write_bytes(data)
    check_begin(ws, policy, lab.now, discard_signatures=False)


def test_a_version_of_the_anchor_that_is_signed_goes_first(at: Callable[[str], Lab]) -> None:
    lab = at("anchored")
    lab.ok("anchor", "renew")
    lab.ok("sign")
    with_new_keys(lab)
    done = lab.run("anchor", "re-root", *WITHOUT, *stranded(lab))
    assert (done.code, "recovery 2 is signed and not yet published" in done.err) == (3, True)
    lab.ok("ceremony", "start", "root", "targets")
    lab.ok("anchor", "publish")
    lab.ok("anchor", "re-root", *WITHOUT, *stranded(lab))


# Going on.


def test_killed_after_it_began_it_goes_on(at: Callable[[str], Lab]) -> None:
    lab = at("begun")
    shutil.rmtree(lab.directory / "ceremonies/e1/targets-1")
    shutil.rmtree(lab.directory / ".firmroot/e1")
    done = lab.ok("anchor", "re-root", *stranded(lab))
    assert "targets-1: open" in done.out
    assert f"{PRODUCT}-builds: signed again on this machine" in done.out
    assert "root-1: open" not in done.out
    assert opened(lab) == ["root-1", "targets-1", f"{PRODUCT}-stable-1"]


def test_run_again_it_keeps_signatures(at: Callable[[str], Lab]) -> None:
    lab = at("begun")
    lab.ok("sign", "--key", "ada")
    same = unchanged(lab)
    again = lab.later(hours=5).ok("anchor", "re-root", *stranded(lab))
    assert "next: firmroot sign  (root-1 waits for" in again.out
    assert same()
    lab.ok("anchor", "re-root", *WITHOUT, *stranded(lab))
    assert same(), "they have gone already"
    done = lab.run("anchor", "re-root", "--without", "ada", *stranded(lab))
    assert (done.code, "--without changes nothing any more" in done.err) == (2, True)
    assert same()


def test_the_statement_waits_for_the_root_that_it_names(at: Callable[[str], Lab]) -> None:
    lab = at("begun")
    lab.ok("anchor", "re-root", *stranded(lab))
    assert "recovery-2" not in opened(lab)
    lab.ok("sign")
    assert opened(lab) == []
    lab.ok("anchor", "re-root", *stranded(lab), "--minimum", f"{PRODUCT}=7")
    assert opened(lab) == ["recovery-2"]
    shown = lab.ok("ceremony", "show", "recovery").out
    assert "RE-ROOTS THE FLEET: every device leaves epoch 0 for the root with sha256" in shown
    assert "nothing signed by the root before counts any more" in shown
    assert f"devices of {PRODUCT} then install nothing below sequence 7" in shown
    again = lab.later(hours=5).ok("anchor", "re-root", *stranded(lab))
    assert "recovery-2: open" not in again.out
    lab.ok("sign")
    anchor = lab.workspace.newest_recovery()
    assert anchor is not None
    assert read_statement(anchor).minimum_sequence == {PRODUCT: 7}
    done = lab.ok("anchor", "re-root", *stranded(lab))
    assert "next: firmroot publish  (" in done.out


def test_the_anchor_is_not_renewed_in_between(at: Callable[[str], Lab]) -> None:
    done = at("begun").run("anchor", "renew")
    assert (done.code, "epoch 1 has begun" in done.err) == (3, True)
    lab = at("there")
    lab.ok("anchor", "renew")
    shown = lab.ok("sign").out
    assert "devices stay in epoch 1; only the keys of the anchor change" in shown
    lab.ok("anchor", "publish")
    lab.ok("verify")


def test_the_same_holders_do_not_re_root_twice_by_accident(at: Callable[[str], Lab]) -> None:
    done = at("there").run("anchor", "re-root")
    assert (done.code, "could sign the new root" in done.err) == (5, True)


def test_a_second_epoch_follows_the_first(at: Callable[[str], Lab]) -> None:
    lab = at("there")
    old = lab.tree()
    lab.ship("1.1")
    for name in ("dan", "eli", "fay"):
        lab.ok("key", "new", name, "--role", "root", "--role", "targets")
    lost = [word for name in ("ada", "ben", "cleo") for word in ("--without", name)]
    done = lab.ok("anchor", "re-root", *lost, *stranded(lab))
    assert "follow to epoch 2" in done.out
    lab.ok("sign")
    lab.ok("anchor", "re-root", *stranded(lab))
    lab.ok("sign")
    done = lab.ok("publish")
    assert "installs 1.1" in done.out
    lab.ok("anchor", "publish")
    lab.ok("verify")
    assert {path.name for path in (lab.directory / "recovery").iterdir()} == {
        *("1.root.json", "2.root.json", "3.root.json", "e1", "e2")
    }
    kept = [path for path in old if path.startswith(("metadata/root", "metadata/e1/root"))]
    assert len(kept) == 2
    assert all(lab.tree()[path] == old[path] for path in kept)


def test_a_builder_elsewhere_signs_on_its_own_machine(
    at: Callable[[str], Lab], tmp_path: Path
) -> None:
    lab = with_new_keys(at("anchored"))
    builder = lab.copy(tmp_path / "builder" / "acme")
    (lab.directory / ".firmroot/keys/ci.pem").unlink()
    keys = lab.directory / ".firmroot/keys.toml"
    keys.write_text("\n".join(x for x in keys.read_text().splitlines() if not x.startswith("ci ")))
    done = lab.ok("anchor", "re-root", *WITHOUT, *stranded(lab))
    role = f"{PRODUCT}-builds"
    assert f"on the builder's machine: firmroot ceremony start {role}" in done.out
    lab.ok("sign")
    for name in ("firmroot.toml", "policy.toml"):
        shutil.copy(lab.directory / name, builder.directory / name)
    for name in ("keys", "staged", "ceremonies"):
        shutil.copytree(lab.directory / name, builder.directory / name, dirs_exist_ok=True)
    builder.ok("ceremony", "start", role)
    signed = json.loads((builder.directory / f".firmroot/e1/staged/{role}.json").read_bytes())
    assert signed["signed"]["version"] == 1
    assert all("1.0" in path for path in signed["signed"]["targets"])


# The least sequence.


def test_the_least_sequence_is_what_a_channel_still_offers(at: Callable[[str], Lab]) -> None:
    lab = at("anchored")
    lab.ship("1.1")
    lab.ok("channel", "promote", f"{PRODUCT}@1.0", "--to", "stable", "--stone")
    after = lab.workspace.after()
    assert least_offered(after, PRODUCT) == 2, "what is signed only in a ceremony does not count"
    assert least_offered(lab.workspace, PRODUCT) == 0, "the first epoch inherits nothing"
    assert least_sequences(after, {}) == {PRODUCT: 2}
    assert least_sequences(after, {PRODUCT: 0}) == {}
    for path in (lab.repository / f"targets/channels/{PRODUCT}").iterdir():
        path.unlink()
    with_new_keys(lab)
    done = lab.run("anchor", "re-root", *WITHOUT, *stranded(lab))
    assert done.code == 2
    assert f"--minimum {PRODUCT}=SEQUENCE" in done.err


# What the others say.


def test_status_says_where_the_anchor_stands(live: Lab) -> None:
    assert "anchor: none; devices that are made now can never" in live.ok("status").out
    live.ok("anchor", "init")
    assert "anchor: not signed yet" in live.ok("status").out
    assert "next: firmroot sign" in live.ok("status").out
    live.ok("sign")
    assert "signed, not yet published\nnext: firmroot anchor publish" in live.ok("status").out
    live.ok("anchor", "publish")
    said = live.ok("status").out
    assert "anchor: version 1, epoch 0, 2 of noor, otto, pia\n" in said
    assert "next: nothing to do" in said


def test_status_leads_through_a_re_rooting(at: Callable[[str], Lab]) -> None:
    lab = at("begun")
    assert "; epoch 1 has begun" in lab.ok("status").out
    assert "next: firmroot sign " in lab.ok("status").out
    lab.ok("sign")
    assert "next: firmroot anchor re-root  (the anchor must name" in lab.ok("status").out
    lab.ok("anchor", "re-root", *stranded(lab))
    assert "next: firmroot sign " in lab.ok("status").out
    lab.ok("sign")
    assert "next: firmroot publish " in lab.ok("status").out
    lab.ok("publish", *stranded(lab))
    assert "next: firmroot anchor publish " in lab.ok("status").out
    lab.ok("anchor", "publish")
    assert "anchor: version 2, epoch 1, " in lab.ok("status").out
    assert "next: nothing to do" in lab.ok("status").out
    assert lab.ok("--json", "status").json["anchor"].startswith("version 2, epoch 1")


def test_an_export_carries_the_anchor_and_its_epoch(
    at: Callable[[str], Lab], tmp_path: Path
) -> None:
    for name, epoch, version in (("anchored", 0, 1), ("there", 1, 2)):
        lab = at(name)
        out = tmp_path / f"out-{name}"
        lab.ok("factory", "export", PRODUCT, "--to", out, "--server", "http://127.0.0.1:9/x")
        kept = (lab.directory / f"metadata/recovery/{version}.json").read_bytes()
        assert (out / "factory/recovery-root.json").read_bytes() == kept
        assert json.loads((out / "factory/floors.json").read_bytes())["epoch"] == epoch
        repository = tomllib.loads((out / "device.toml").read_text())["repository"]
        assert repository["recovery"] == ["http://127.0.0.1:9/x/recovery/"]
        entry = load_registry(lab.workspace)[-1]
        assert (entry.epoch, entry.recovery_version) == (epoch, version)
        assert f"epoch {epoch}, recovery {version}" in lab.ok("factory", "list").out


def test_nobody_leaves_the_factory_between_two_epochs(
    at: Callable[[str], Lab], tmp_path: Path
) -> None:
    lab = at("staged")
    lab.ok("publish", *stranded(lab))
    done = lab.run("factory", "export", PRODUCT, "--to", tmp_path / "out")
    assert (done.code, "the published anchor is at epoch 0, this" in done.err) == (3, True)
    lab.ok("anchor", "publish")
    lab.ok("factory", "export", PRODUCT, "--to", tmp_path / "out")


def test_an_export_without_an_anchor_has_nothing_of_it(live: Lab, tmp_path: Path) -> None:
    live.ok("factory", "export", PRODUCT, "--to", tmp_path / "out")
    assert not (tmp_path / "out/factory/recovery-root.json").exists()
    assert "recovery" not in (tmp_path / "out/device.toml").read_text()
    assert "epoch 0, no anchor" in live.ok("factory", "list").out


def test_a_key_of_the_anchor_is_rotated_by_renewing_it(at: Callable[[str], Lab]) -> None:
    lab = at("anchored")
    done = lab.ok("rotate", "noor")
    assert "a new recovery root 2, signed by 2 of its own keys and 2 of" in done.out
    assert opened(lab) == ["recovery-2"]
    lab.ok("sign")
    lab.ok("anchor", "publish")
    assert "2 of noor-2, otto, pia" in lab.ok("status").out
