"""Which key takes the place of another, and what is signed again for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import TYPE_CHECKING

import pytest
from tuf.api.metadata import Metadata, Root

from client_reference.errors import ExitCode
from repo_tools.metadata.rotation import replace_key
from repo_tools.rotation import make_successor
from repo_tools.signing.ceremony import open_ceremonies
from repo_tools.signing.keyring import new_key
from repo_tools.workspace import Workspace
from tests.publishing.lab import HARDWARE, PRODUCT, Lab
from tests.signing.team import PASSPHRASE, make_lab

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path


@pytest.fixture(scope="module")
def _moments(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, Lab]:
    """1.0 is added and nothing but the root is signed by people; 1.0 is live."""
    top = tmp_path_factory.mktemp("rotation")
    lab = Lab(top / "acme")
    lab.init()
    lab.ok("product", "add", PRODUCT, "--hardware", HARDWARE)
    lab.add("1.0")
    added = lab.copy(top / "added")
    lab.promote("1.0")
    lab.ok("publish")
    return added, lab


@pytest.fixture
def added(_moments: tuple[Lab, Lab], tmp_path: Path) -> Lab:
    return _moments[0].copy(tmp_path / "acme")


@pytest.fixture
def live(_moments: tuple[Lab, Lab], tmp_path: Path) -> Lab:
    return _moments[1].copy(tmp_path / "acme")


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return make_lab(tmp_path / "acme")


def successor(ws: Workspace, old: str) -> str:
    return make_successor(ws, old, lambda _: PASSPHRASE)


def opened(lab: Lab) -> list[str]:
    return [each.name for each in open_ceremonies(lab.workspace)]


def end_of_root(lab: Lab) -> datetime:
    return Metadata[Root].from_bytes(lab.workspace.roots()[-1]).signed.expires


# Names of successors.


@pytest.mark.parametrize(
    ("old", "new"),
    [("alice", "alice-2"), ("gw-ci", "gw-ci-2"), ("ci-9", "ci-10"), ("7", "7-2")],
)
def test_a_successor_is_counted(ws: Workspace, old: str, new: str) -> None:
    if old not in ws.keyring:
        new_key(ws, old, ws.policy.algorithms[0], "alice", PASSPHRASE)
    assert successor(Workspace.open(ws.directory), old) == new


def test_a_successor_that_was_made_before_is_found_again(ws: Workspace) -> None:
    made = successor(ws, "alice")
    ws = Workspace.open(ws.directory)
    key = ws.keyring[made].key.keyid
    assert successor(ws, "alice") == made
    assert Workspace.open(ws.directory).keyring[made].key.keyid == key


def test_a_key_of_another_machine_is_no_successor(ws: Workspace) -> None:
    made = successor(ws, "alice")
    ws.remove_key_uri(made)
    assert successor(Workspace.open(ws.directory), "alice") == "alice-3"


def test_a_key_that_has_a_place_in_the_policy_is_no_successor(ws: Workspace) -> None:
    made = successor(ws, "alice")
    ws = Workspace.open(ws.directory)
    taken = replace(ws, policy=replace_key(ws.policy, "bob", made))
    assert successor(taken, "alice") == "alice-3"


def test_a_key_that_is_signed_into_a_role_is_no_successor(live: Lab) -> None:
    live.ok("rotate", "alice")
    live.ok("sign")
    ws = live.workspace
    undone = replace(ws, policy=replace_key(ws.policy, "alice-2", "alice"))
    assert not any(undone.policy.roles_of("alice-2"))
    assert successor(undone, "alice") == "alice-3"


def test_a_successor_has_the_algorithm_of_the_key_before_unless_that_has_ended(
    ws: Workspace,
) -> None:
    """Otherwise the rotation of a post-quantum key would end a hybrid role."""
    new_key(ws, "dora", "ecdsa-p384", "Dora", PASSPHRASE)
    ws = Workspace.open(ws.directory)
    today = date(2030, 1, 1)
    ends = {"ecdsa-p384": today, "ed25519": today - timedelta(days=1)}
    for until, now, scheme in (
        ({}, today, "ecdsa-sha2-nistp384"),
        (ends, today - timedelta(days=1), "ecdsa-sha2-nistp384"),
        (ends, today, "ecdsa-sha2-nistp256"),
    ):
        ended = replace(ws, policy=replace(ws.policy, algorithms_until=until))
        made = make_successor(ended, "dora", lambda _: PASSPHRASE, now)
        ws = Workspace.open(ws.directory)
        assert ws.keyring[made].key.scheme == scheme
        ws.remove_key_uri(made)


# What a rotation does.


@pytest.mark.parametrize("how", ["algorithm", "destroyed"])
def test_keys_that_the_policy_gives_up_are_rotated_one_after_the_other(live: Lab, how: str) -> None:
    """Each of them used to stop the rotation of the others."""
    keys, policy = ("alice", "bob"), live.directory / "policy.toml"
    if how == "algorithm":
        rules = policy.read_text().replace(
            "[roles.root]", '[roles.root]\nalgorithms = ["ecdsa-p256"]'
        )
        policy.write_text(rules.replace('"carol"]', '"carol-p"]', 1))
        live.ok("key", "new", "carol-p", "--type", "ecdsa-p256", "--holder", "carol")
    else:
        for name in keys:
            with (live.directory / f"keys/{name}.toml").open("a") as file:
                file.write("destroyed = 2026-01-31\n")
    first = live.run("rotate", "alice")
    assert first.code == 0, first.err
    done = live.run("sign")
    assert done.code == ExitCode.REFUSED
    assert "bob is" in done.err
    assert "alice" not in done.err
    live.ok("rotate", "bob")
    live.ok("sign")
    live.ok("publish")
    live.ok("verify")


def test_a_successor_that_the_policy_does_not_allow_is_refused(live: Lab) -> None:
    policy = live.directory / "policy.toml"
    policy.write_text(
        policy.read_text().replace("[roles.root]", '[roles.root]\nalgorithms = ["ecdsa-p384"]')
    )
    live.ok("key", "new", "alice-p", "--type", "ecdsa-p256", "--holder", "alice")
    before = live.tree()
    done = live.run("rotate", "alice", "--to", "alice-p")
    assert done.code == ExitCode.REFUSED
    assert "roles.root: alice-p is ecdsa" in done.err
    assert "bob" not in done.err
    assert live.tree() == before


def test_a_successor_that_nobody_has_is_named(live: Lab) -> None:
    before = live.tree()
    done = live.run("rotate", "alice", "--to", "nobody")
    assert done.code == 2
    assert "there is no key 'nobody'; there are: alice" in done.err
    assert "its holder makes it first: firmroot key new nobody" in done.err
    assert live.tree() == before


def test_builds_whose_keys_stay_are_not_signed_again(live: Lab) -> None:
    found = live.ok("--json", "rotate", "rita").json
    assert (found["ceremonies"], found["renewed"]) == (["targets-2"], [])
    assert live.workspace.staged_role("gateway-builds") is None


def test_before_targets_are_signed_for_the_first_time_builds_are_signed_again(added: Lab) -> None:
    for name in opened(added):
        added.ok("--yes", "ceremony", "abandon", name)
    found = added.ok("--json", "rotate", "ci").json
    assert (found["ceremonies"], found["renewed"]) == (["targets-1"], ["gateway-builds"])


def test_builds_that_wait_for_the_next_targets_stop_no_hold(live: Lab) -> None:
    """An emergency needs one key, also while people are asked about a new builder."""
    live.ok("recover", "lost-key", "ci")
    done = live.run("publish")
    assert done.code == ExitCode.ACTION_REQUIRED
    assert "nothing can be published: targets-2 needs 2 more signature(s)" in done.err
    assert "firmroot sign" in done.err
    live.ok("channel", "hold", f"{PRODUCT}@1.0", "--on", "stable")
    live.ok("sign", "--key", "oncall-1")
    said = live.ok("publish").out
    assert "gateway-stable-hold 1" in said
    assert "waits    gateway-builds: it has keys of targets 2, which waits for signatures" in said
    live.ok("sign")
    assert "targets 2, gateway-builds 2" in live.ok("publish").out


def test_an_online_key_of_another_machine_gets_no_address_here(live: Lab) -> None:
    live.ok("key", "new", "elsewhere", "--holder", "publisher")
    live.workspace.remove_key_uri("elsewhere")
    online = live.workspace.config.online
    live.ok("rotate", "publisher", "--to", "elsewhere")
    assert live.workspace.config.online == online
    assert live.workspace.policy.role("timestamp").keys == ("elsewhere",)


def test_no_file_takes_the_place_of_a_key_in_a_service_unasked(live: Lab) -> None:
    live.workspace.add_key_uri("publisher", "hv:publisher")
    said = live.ok("recover", "stolen-key", "ci").out
    assert "ci-2 takes the place of ci in: builds" in said
    assert "publisher-2" not in live.workspace.keyring
    assert "where publisher is: firmroot rotate publisher\n" in said
    assert live.workspace.policy.role("snapshot").keys == ("publisher",)


@pytest.mark.parametrize("names", [("bob", "carol"), ("alice", "bob", "carol")])
def test_rotations_in_a_row_end_in_a_publish(names: tuple[str, ...], live: Lab) -> None:
    """The live root asks its own keys, all of which have left the policy by then."""
    for name in names:
        live.ok("rotate", name)
        assert name in live.workspace.key_uris()
    live.ok("sign")
    live.ok("publish")
    root = live.workspace.newest_root()
    assert root is not None
    assert {live.workspace.key_name(each) for each in root.roles["root"].keyids} == {
        *({"alice", "bob", "carol"} - set(names)),
        *(f"{name}-2" for name in names),
    }
    assert not live.workspace.key_uris().keys() & set(names), "a root without them is live"
    live.ok("rotate", f"{names[-1]}-2")
    live.ok("sign")
    live.ok("publish")


def test_a_rotation_after_one_that_is_signed_but_not_live_keeps_the_keys(live: Lab) -> None:
    live.ok("rotate", "bob")
    live.ok("sign")
    assert live.run("rotate", "carol").code == 3, "every root must be published in turn"
    assert {"bob", "carol"} <= live.workspace.key_uris().keys()
    live.ok("publish")
    live.ok("rotate", "carol")
    live.ok("sign")
    live.ok("publish")
    assert not {"bob", "carol"} & live.workspace.key_uris().keys()


def test_a_key_that_signs_no_root_is_forgotten_at_once(live: Lab) -> None:
    live.ok("rotate", "rita")
    assert "rita" not in live.workspace.key_uris()


# What a recovery does.


def test_before_the_first_publish_there_is_no_root_to_recover(added: Lab) -> None:
    done = added.run("recover", "expired-root")
    assert done.code == 2
    assert "no root is published yet" in done.err


def test_what_is_good_until_now_is_signed_again(live: Lab) -> None:
    late = Lab(live.directory, end_of_root(live))
    found = late.ok("--json", "recover", "expired-root").json
    assert found["ceremonies"] == ["root-2", "targets-2", "gateway-stable-2"]
    assert found["renewed"] == ["gateway-builds"]


def test_what_was_signed_again_before_is_left_alone(live: Lab) -> None:
    """Published or not: it waits here for the next publish."""
    before = live.later(days=300)
    before.ok("ceremony", "start", "gateway-builds", "gateway-stable")
    before.ok("sign")
    late = Lab(live.directory, end_of_root(live))
    found = late.ok("--json", "recover", "expired-root").json
    assert (found["ceremonies"], found["renewed"]) == (["root-2", "targets-2"], [])


def test_an_expired_root_is_recovered_without_discarding_what_people_signed(live: Lab) -> None:
    """A channel's ceremony that has expired as well, with one signature: named, then asked for."""
    before = live.later(days=300)
    before.ok("ceremony", "start", "gateway-stable")
    uris = live.workspace.key_uris()
    for name in ("sam", "tess"):
        before.workspace.remove_key_uri(name)
    before.ok("sign")
    late = Lab(live.directory, end_of_root(live) + timedelta(days=400))
    tree = late.tree()
    done = late.run("recover", "expired-root")
    assert done.code == 3
    assert "gateway-stable-2 has been signed by rita" in done.err
    assert "--discard-signatures gateway-stable" in done.err
    assert late.tree() == tree
    found = late.ok(
        "--json", "recover", "expired-root", "--discard-signatures", "gateway-stable"
    ).json
    assert found["ceremonies"] == ["root-2", "targets-2", "gateway-stable-2"]
    for name in ("sam", "tess"):
        late.workspace.add_key_uri(name, uris[name])
    late.ok("sign")
    late.ok("publish")


def test_a_recovery_that_is_run_again_keeps_the_signatures(live: Lab) -> None:
    late = Lab(live.directory, end_of_root(live))
    late.ok("recover", "expired-root")
    late.workspace.remove_key_uri("bob")
    late.workspace.remove_key_uri("carol")
    late.ok("sign")
    later = late.later(hours=5)
    later.ok("recover", "expired-root")
    assert "signed by alice; 1 more of bob, carol" in later.ok("ceremony", "show", "root").out


def test_a_root_that_was_rotated_after_it_expired_goes_live_with_what_else_expired(
    live: Lab,
) -> None:
    late = Lab(live.directory, end_of_root(live))
    late.ok("rotate", "alice")
    late.ok("sign")
    done = late.run("publish")
    assert done.code == ExitCode.REFUSED
    assert "gateway-stable expired" in done.err
    said = late.ok("status").out
    (following,) = [each for each in said.splitlines() if each.startswith("next: ")]
    assert "firmroot ceremony start " in following
    assert "gateway-stable" in following
    assert "gateway-builds" in following
    found = late.ok("--json", "recover", "expired-root").json
    assert (found["ceremonies"], found["renewed"]) == (["gateway-stable-2"], ["gateway-builds"])
    late.ok("sign")
    assert "root 2, targets 2" in late.ok("publish").out
    assert "trusted: everything that is live verifies" in late.ok("verify").out


def test_a_root_ceremony_that_changes_keys_is_not_taken_for_the_recovery(live: Lab) -> None:
    late = Lab(live.directory, end_of_root(live))
    late.ok("rotate", "bob")
    late.workspace.remove_key_uri("carol")
    late.workspace.remove_key_uri("bob")
    late.workspace.remove_key_uri("bob-2")
    late.ok("sign")
    done = late.run("recover", "expired-root")
    assert done.code == 3
    assert "root-2 has been signed by alice" in done.err
