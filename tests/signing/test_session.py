"""One person signs: finding their work, opening their keys, and files between machines."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tuf.api.metadata import Targets

from client_reference.errors import ConfigurationError, NotTrustedError, RefusedError
from client_reference.trust.reset import read_resets
from repo_tools.creation import LAB_KEYS
from repo_tools.metadata.edits import manifest_targets
from repo_tools.signing import session
from repo_tools.signing.ceremony import (
    DiscardedSignaturesError,
    abandon,
    find_ceremony,
    finish,
    open_ceremonies,
    signature_path,
    start_ceremony,
    status,
)
from repo_tools.signing.exchange import adopt, export, merge
from repo_tools.signing.keyfiles import generate, write_private
from repo_tools.signing.rules import PolicyViolationError, enforce
from repo_tools.signing.secrets import Secrets
from repo_tools.signing.session import (
    my_keys,
    open_memory,
    people_of,
    require_member,
    review_ceremony,
    sign_tasks,
    waiting,
)
from repo_tools.signing.signers import open_signer, sign
from repo_tools.signing.start import start_role, start_root, start_targets
from repo_tools.workspace import Workspace
from tests.signing.team import (
    NOW,
    PASSPHRASE,
    clone,
    give,
    make_lab,
    publish_by_hand,
    signature_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tuf.api.metadata import Root

    from repo_tools.signing.ceremony import Ceremony

SECRETS = Secrets(PASSPHRASE)


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lab(tmp_path_factory.mktemp("session") / "acme").directory


@pytest.fixture
def ws(_made: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(_made, tmp_path / "acme")
    return Workspace.open(tmp_path / "acme")


@pytest.fixture
def targets(ws: Workspace) -> Ceremony:
    return start_targets(ws, ws.config.products, NOW)


# Signers.


def uri(name: str) -> str:
    return f"file:.firmroot/keys/{name}.pem"


def test_a_signer_is_proven_before_it_is_used(ws: Workspace) -> None:
    holder = ws.keyring["alice"]
    signer = open_signer(uri("alice"), holder, SECRETS, ws.directory)
    holder.key.verify_signature(sign(signer, holder, b"data"), b"data")
    with pytest.raises(ConfigurationError, match=r"bob\.pem is not the private key of alice"):
        open_signer(uri("bob"), holder, SECRETS, ws.directory)
    with pytest.raises(ConfigurationError, match="private key of bob signs does not verify"):
        sign(signer, ws.keyring["bob"], b"data")


def test_a_uri_of_an_unknown_scheme_is_told(ws: Workspace) -> None:
    with pytest.raises(ConfigurationError, match="'gpg:1' is not a key URI: expected file:"):
        open_signer("gpg:1", ws.keyring["alice"], SECRETS, ws.directory)


# What waits for whom.


def test_each_clone_finds_its_own_work(ws: Workspace, targets: Ceremony, tmp_path: Path) -> None:
    hers = clone(ws, tmp_path / "alice", "alice", "rita")
    tasks = waiting(hers, hers.key_uris())
    assert [(task.ceremony.name, task.names) for task in tasks] == [(targets.name, ("alice",))]
    assert sign_tasks(hers, tasks, hers.key_uris(), SECRETS) == 1
    assert waiting(hers, hers.key_uris()) == []
    assert status(hers, find_ceremony(hers, "targets")).signed == ("alice",)


def test_nothing_is_offered_that_must_not_be_signed(ws: Workspace, targets: Ceremony) -> None:
    (ws.metadata / "targets.json").parent.mkdir(exist_ok=True)
    (ws.metadata / "targets.json").write_bytes(b'"somebody published"')
    assert targets
    with pytest.raises(RefusedError, match="no longer the newest signed one"):
        waiting(ws, ["alice"])


def test_a_wrong_passphrase_signs_nothing_at_all(ws: Workspace, targets: Ceremony) -> None:
    tasks = waiting(ws, ["alice", "bob"])
    with pytest.raises(ConfigurationError, match=r"wrong passphrase for .*alice\.pem"):
        sign_tasks(ws, tasks, ws.key_uris(), Secrets(b"wrong wrong wrong"))
    assert status(ws, targets).signed == ()


def test_a_named_key_must_have_a_say_somewhere(ws: Workspace, targets: Ceremony) -> None:
    require_member(ws, "alice", [targets])
    require_member(ws, "rita", [])
    with pytest.raises(RefusedError, match="key rita is not in role targets; it is in: channel"):
        require_member(ws, "rita", [targets])
    publish_by_hand(ws)
    policy = ws.directory / "policy.toml"
    policy.write_text(policy.read_text().replace('"carol"]', '"carol", "tess"]', 1))
    changed = Workspace.open(ws.directory)
    require_member(changed, "tess", [targets, start_root(changed, NOW)])


def test_keys_are_chosen_by_name_uri_or_file(ws: Workspace, tmp_path: Path) -> None:
    everything, named = my_keys(ws, None, SECRETS)
    assert (len(everything), named) == (len(LAB_KEYS), None)
    assert my_keys(ws, "alice", SECRETS) == ({"alice": uri("alice")}, "alice")
    assert my_keys(ws, uri("bob"), SECRETS) == ({"bob": uri("bob")}, "bob")
    stick = f"file:{shutil.copy(ws.directory / '.firmroot/keys/bob.pem', tmp_path / 'stick.pem')}"
    assert my_keys(ws, stick, SECRETS) == ({"bob": stick}, "bob")
    with pytest.raises(ConfigurationError, match="this machine has no private key 'dave'; it has:"):
        my_keys(ws, "dave", SECRETS)
    write_private(tmp_path / "new.pem", generate("ed25519"), PASSPHRASE)
    with pytest.raises(ConfigurationError, match="which is not in keys/"):
        my_keys(ws, f"file:{tmp_path / 'new.pem'}", SECRETS)


def test_a_key_of_a_token_is_known_by_what_the_token_tells(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = "hsm:2?label=acme"
    monkeypatch.setattr(session, "import_key", lambda *_: (full, ws.keyring["bob"].key))
    assert my_keys(ws, "hsm:2", SECRETS) == ({"bob": full}, "bob")


def test_one_passphrase_is_enough_for_all_that_waits_for_a_key(
    ws: Workspace, targets: Ceremony
) -> None:
    publish_by_hand(ws)
    root = start_root(ws, NOW)
    asked: list[str] = []

    def answer(question: str) -> str:
        asked.append(question)
        return PASSPHRASE.decode()

    ws.remove_key_uri("bob")
    secrets = Secrets(prompt=answer)
    uris, _ = my_keys(ws, f"file:{ws.directory}/.firmroot/keys/bob.pem", secrets)
    assert sign_tasks(ws, waiting(ws, uris, [root, targets]), uris, secrets) == 2
    assert len(asked) == 1
    assert [status(ws, each).signed for each in (root, targets)] == [("bob",), ("bob",)]


def test_a_private_key_that_nobody_here_knows_signs_nothing(ws: Workspace) -> None:
    ws.add_key_uri("ghost", uri("alice"))
    everything, _ = my_keys(ws, None, SECRETS)
    assert "ghost" not in everything
    with pytest.raises(ConfigurationError, match="this machine has no private key 'ghost'"):
        my_keys(ws, "ghost", SECRETS)
    assert my_keys(ws, uri("alice"), SECRETS) == ({"alice": uri("alice")}, "alice")


# By file.


def test_a_ceremony_travels_by_file_and_its_signature_back(ws: Workspace, tmp_path: Path) -> None:
    far = clone(ws, tmp_path / "far", "rita")
    for each in (ws, far):
        start_targets(each, each.config.products, NOW)
    path = "channels/gateway/stable.json"
    signed = manifest_targets("gateway-stable", None, path, b"{}", ws.policy.role("channel"), NOW)
    near = start_ceremony(ws, "gateway-stable", signed, {path: b"{}"})
    (tmp_path / "c.json").write_bytes(export(ws, near, []))
    adopted = adopt(far, tmp_path / "c.json")
    assert (adopted.name, adopted.payload) == (near.name, near.payload)
    assert adopted.carries[path].read_bytes() == b"{}"
    sign_tasks(far, waiting(far, ["rita"], [adopted]), far.key_uris(), SECRETS)
    back = signature_path(adopted, ws.keyring["rita"].key.keyid)
    found = merge(ws, back)
    assert (found.ceremony, found.added) == (near.name, ("rita",))
    assert status(ws, near).signed == ("rita",)


def test_an_exported_root_is_a_root(ws: Workspace, tmp_path: Path) -> None:
    publish_by_hand(ws)
    root = start_root(ws, NOW)
    (tmp_path / "c.json").write_bytes(export(ws, root, []))
    assert adopt(ws, tmp_path / "c.json") == root


def test_what_arrives_by_file_is_judged_like_everything(
    ws: Workspace, targets: Ceremony, tmp_path: Path
) -> None:
    document = json.loads(export(ws, targets, []))
    document["signed"]["version"] = 9
    (tmp_path / "c.json").write_text(json.dumps(document))
    with pytest.raises(RefusedError, match="targets-9 does not follow the version before it"):
        adopt(ws, tmp_path / "c.json")
    document["signed"] = {}
    (tmp_path / "c.json").write_text(json.dumps(document))
    with pytest.raises(NotTrustedError):
        adopt(ws, tmp_path / "c.json")


def test_a_file_never_replaces_what_was_signed_here(
    ws: Workspace, targets: Ceremony, tmp_path: Path
) -> None:
    document = json.loads(export(ws, targets, []))
    document["signed"]["expires"] = "2026-04-01T00:00:00Z"
    (tmp_path / "c.json").write_text(json.dumps(document))
    give(ws, targets, "alice")
    with pytest.raises(DiscardedSignaturesError, match="has been signed by alice") as caught:
        adopt(ws, tmp_path / "c.json")
    # `firmroot sign` has no --discard-signatures: whoever wants the file ends the other first.
    assert "c.json has another content than the targets-1 that is open here" in str(caught.value)
    assert "firmroot ceremony abandon targets, then sign it again" in caught.value.hint
    abandon(targets)
    assert adopt(ws, tmp_path / "c.json").payload != targets.payload


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"role": 1, "signed": {}, "targets": []}'])
def test_what_is_neither_ceremony_nor_signature_is_told(
    ws: Workspace, tmp_path: Path, data: bytes
) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ConfigurationError, match="is not an exported ceremony"):
        adopt(ws, tmp_path / "x")
    with pytest.raises(ConfigurationError, match="is not a signature file"):
        merge(ws, tmp_path / "x")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        merge(ws, tmp_path / "none")


def test_json_that_is_no_object_is_told(ws: Workspace, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"[]")
    with pytest.raises(ConfigurationError, match="expected a JSON object"):
        adopt(ws, tmp_path / "x")


def test_a_forged_signature_file_is_ignored_by_name(
    ws: Workspace, targets: Ceremony, tmp_path: Path
) -> None:
    forged = signature_of(ws, "alice", b"other")
    content = {**forged.to_dict(), "role": "targets", "version": 1}
    (tmp_path / "s.json").write_text(json.dumps(content))
    said = "a signature that claims to be by alice does not verify over targets-1"
    assert merge(ws, tmp_path / "s.json").ignored == (said,)
    content["version"] = 2
    (tmp_path / "s.json").write_text(json.dumps(content))
    assert merge(ws, tmp_path / "s.json").ignored == ("no ceremony targets-2 is open here",)
    assert status(ws, targets).signed == ()


# Opening by name, and the gate.


def changes(ws: Workspace, ceremony: Ceremony) -> list[str]:
    return list(review_ceremony(ws, ceremony, open_memory(ws)).changes)


def test_a_difference_is_told_to_the_predecessor(ws: Workspace, targets: Ceremony) -> None:
    lines = changes(ws, targets)
    keyid = ws.keyring["ci"].key.keyid
    assert lines[0] == "targets version 1 (the first), good until 2027-03-02"
    assert f"role gateway-builds: 1 of ci ({keyid[:8]}) for builds/gateway/*/*" in lines
    publish_by_hand(ws)
    assert changes(ws, start_root(ws, NOW))[1:] == ["nothing but version and expiry changes"]


def test_the_first_root_replaces_nothing(ws: Workspace) -> None:
    (ws.staged / "root.json").unlink()
    lines = changes(ws, start_root(ws, NOW))
    assert lines[0].startswith("root version 1 (the first)")


def test_targets_are_told_by_what_changes_in_them(ws: Workspace, targets: Ceremony) -> None:
    give(ws, targets, "alice", "bob")
    finish(ws, targets)
    lines = changes(ws, start_targets(ws, ws.config.products, NOW))
    assert lines[1:] == ["nothing but version and expiry changes"]


def test_only_roles_of_people_have_ceremonies(ws: Workspace) -> None:
    for role in ("snapshot", "gateway-builds", "nonsense"):
        with pytest.raises(ConfigurationError, match="is not a role that people sign"):
            start_role(ws, role, NOW)
    with pytest.raises(ConfigurationError, match="gateway-stable has no content yet"):
        start_role(ws, "gateway-stable", NOW)
    publish_by_hand(ws)
    assert start_role(ws, "targets", NOW).name == "targets-1"
    assert start_role(ws, "root", NOW).name == "root-2"


def test_a_channel_is_renewed_with_its_manifest(ws: Workspace, targets: Ceremony) -> None:
    assert targets
    path = "channels/gateway/stable.json"
    signed = manifest_targets("gateway-stable", None, path, b"{}", ws.policy.role("channel"), NOW)
    stored = f"targets/{signed.targets[path].get_prefixed_paths()[0]}"
    digest = signed.targets[path].hashes["sha256"]
    give(ws, start_ceremony(ws, "gateway-stable", signed, {path: b"{}"}), "rita", "sam")
    give(ws, targets, "alice", "bob")
    from repo_tools.signing.ceremony import finish_complete

    finish_complete(ws)
    again = start_role(ws, "gateway-stable", NOW)
    assert (again.version, again.carries[path].read_bytes()) == (2, b"{}")
    publish_by_hand(ws)
    shutil.rmtree(ws.staged / "targets")
    ws.storage().create(stored, b"{}", digest)
    assert start_role(ws, "gateway-stable", NOW).carries[path].read_bytes() == b"{}"
    assert len(open_ceremonies(ws)) == 1


def test_a_violation_names_the_rule_and_the_fix(ws: Workspace) -> None:
    enforce(ws, NOW)
    rules = {**ws.policy.roles, "root": replace(ws.policy.roles["root"], threshold=4)}
    broken = replace(ws, policy=replace(ws.policy, roles=rules))
    with pytest.raises(PolicyViolationError) as caught:
        enforce(broken, NOW)
    assert caught.value.message == (
        "the policy forbids this: "
        "policy.toml: roles.root: threshold 4 is above its 3 keys [threshold-reachable]\n       "
        "policy.toml: roles.recovery: threshold 2, root has 4 [recovery-threshold]\n       "
        "root 1: root is 2 of alice, bob, carol; the policy expects 4 of alice, bob, carol "
        "[policy-binds]"
    )
    assert "(firmroot policy explain threshold-reachable)" in caught.value.hint


# What this clone remembers, and what waits.


def stops(ws: Workspace, ceremony: Ceremony, known: Root | Targets) -> list[str]:
    """What a person is asked about who signed that version last."""
    memory = open_memory(ws)
    memory.keep(ceremony.role, [ws.keyring["alice"].key.keyid], known, people_of(ws), {}, NOW)
    return [stop.id for stop in review_ceremony(ws, ceremony, memory).stops]


def other(signed: Root | Targets) -> Root | Targets:
    """The same version, as somebody else would have signed it."""
    return type(signed).from_dict({**signed.to_dict(), "expires": "2026-12-24T00:00:00Z"})


def test_a_root_is_compared_with_the_one_that_was_signed_however_old(ws: Workspace) -> None:
    first = ws.newest_root()
    assert first is not None
    publish_by_hand(ws)
    second = start_root(ws, NOW)
    give(ws, second, "alice", "bob")
    finish(ws, second)
    publish_by_hand(ws)
    third = start_root(ws, NOW)
    assert "other-predecessor" in stops(ws, third, other(first))
    assert stops(ws, third, first) == []
    assert "other-predecessor" in stops(ws, third, other(second.signed))
    assert "other-predecessor" not in stops(ws, third, other(third.signed)), "it is not signed yet"


def test_targets_are_compared_with_the_version_that_is_here_only(
    ws: Workspace, targets: Ceremony
) -> None:
    assert stops(ws, targets, targets.signed) == []
    assert "other-predecessor" not in stops(ws, targets, other(targets.signed)), "none is here"
    give(ws, targets, "alice", "bob")
    finish(ws, targets)
    second = start_targets(ws, ws.config.products, NOW)
    assert "other-predecessor" in stops(ws, second, other(targets.signed))
    assert stops(ws, second, targets.signed) == []
    give(ws, second, "alice", "bob")
    finish(ws, second)
    third = start_targets(ws, ws.config.products, NOW)
    assert "other-predecessor" not in stops(ws, third, targets.signed), "only version 2 is here"


def test_what_is_signed_is_remembered_before_a_signature_is_written(
    ws: Workspace, targets: Ceremony
) -> None:
    seen: list[tuple[str, ...]] = []
    names, _ = my_keys(ws, "alice", SECRETS)
    tasks = waiting(ws, names)
    sign_tasks(ws, tasks, names, SECRETS, lambda: seen.append(status(ws, targets).signed))
    assert seen == [()]
    assert status(ws, targets).signed == ("alice",)


def since(ceremony: Ceremony) -> dict[str, tuple[int, int]]:
    assert isinstance(ceremony.signed, Targets)
    return {name: (one.since, one.to) for name, one in read_resets(ceremony.signed).items()}


def test_a_sequence_reset_waits_on_when_targets_are_planned_again(
    ws: Workspace, targets: Ceremony
) -> None:
    give(ws, targets, "alice", "bob")
    finish(ws, targets)
    products = ws.config.products
    assert since(start_targets(ws, products, NOW, resets={"gateway": 3})) == {"gateway": (2, 3)}
    signed = manifest_targets("gateway-stable", None, "a", b"{}", ws.policy.role("channel"), NOW)
    signed.targets.clear()
    start_ceremony(ws, "gateway-stable", signed)
    again = start_targets(ws, products, NOW)
    assert since(again) == {"gateway": (2, 3)}
    give(ws, again, "alice", "bob")
    finish(ws, again)
    for _ in range(2):  # what is signed is not begun anew by what waits
        assert since(start_targets(ws, products, NOW)) == {"gateway": (2, 3)}
