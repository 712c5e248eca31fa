"""A ceremony as a file: what it carries, and that a forged one is judged before it is shown."""

from __future__ import annotations

import base64
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from tuf.api.metadata import Targets

from client_reference.errors import ConfigurationError, NotTrustedError, RefusedError
from repo_tools.metadata.edits import manifest_targets
from repo_tools.signing import portable as module
from repo_tools.signing.apart import find_holder, review_apart
from repo_tools.signing.ceremony import finish, signature_path, start_ceremony, status
from repo_tools.signing.ceremony.guards import keys_of
from repo_tools.signing.exchange import export, merge
from repo_tools.signing.known_good import KnownGood
from repo_tools.signing.portable import read_portable
from repo_tools.signing.secrets import Secrets
from repo_tools.signing.start import start_root, start_targets
from repo_tools.workspace import Workspace
from tests.signing.team import NOW, PASSPHRASE, give, make_lab, publish_by_hand, signature_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from repo_tools.signing.ceremony import Ceremony
    from repo_tools.signing.portable import Portable

    Change = Callable[[dict[str, Any]], None]

MANIFEST = "channels/gateway/stable.json"


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lab(tmp_path_factory.mktemp("portable") / "acme").directory


@pytest.fixture
def ws(_made: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(_made, tmp_path / "acme")
    return Workspace.open(tmp_path / "acme")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "c.json"


def second_root(ws: Workspace) -> Ceremony:
    publish_by_hand(ws)
    return start_root(ws, NOW)


def targets(ws: Workspace) -> Ceremony:
    publish_by_hand(ws)
    return start_targets(ws, ws.config.products, NOW)


def channel(ws: Workspace) -> Ceremony:
    waiting = targets(ws)
    give(ws, waiting, "alice", "bob")
    finish(ws, waiting)
    rules = ws.policy.role("channel")
    signed = manifest_targets("gateway-stable", None, MANIFEST, b"{}", rules, NOW)
    return start_ceremony(ws, "gateway-stable", signed, {MANIFEST: b"{}"})


OPEN: dict[str, Callable[[Workspace], Ceremony]] = {
    "root": second_root,
    "targets": targets,
    "channel": channel,
}


def sent(ws: Workspace, ceremony: Ceremony, file: Path, change: Change | None = None) -> Path:
    document = json.loads(export(ws, ceremony, ["words of the sender"]))
    if change is not None:
        change(document)
    file.write_text(json.dumps(document))
    return file


@pytest.mark.parametrize("kind", OPEN)
def test_a_file_has_everything_that_a_signer_must_see(ws: Workspace, file: Path, kind: str) -> None:
    ceremony = OPEN[kind](ws)
    first = "rita" if kind == "channel" else "alice"
    give(ws, ceremony, first)
    found = read_portable(sent(ws, ceremony, file))
    assert (found.name, found.payload) == (ceremony.name, ceremony.payload)
    quorums, ignored = found.count()
    assert quorums == tuple(
        type(each)(found.electorate.delegators[index][0], *list(vars(each).values())[1:])
        for index, each in enumerate(status(ws, ceremony).quorums)
    )
    assert all(each.signed == (first,) for each in quorums)
    assert ignored == ()
    assert found.people[ws.keyring[first].key.keyid].holder == first
    assert json.loads(file.read_text())["read-aloud"] == found.words
    before = found.before
    assert (before is None) == (kind != "root")
    assert found.version(ceremony.version) is None
    assert found.version(1) == before
    assert found.proven == (kind == "root")


def test_a_predecessor_is_proven_by_who_rules_over_it(ws: Workspace, file: Path) -> None:
    waiting = targets(ws)
    give(ws, waiting, "alice", "bob")
    finish(ws, waiting)
    publish_by_hand(ws)
    again = start_targets(ws, ws.config.products, NOW)
    found = read_portable(sent(ws, again, file))
    assert found.proven
    assert found.before is not None
    assert (found.version(1), found.version(2)) == (found.before, None)

    def unsigned(document: dict[str, Any]) -> None:
        before = json.loads(document["predecessor"])
        document["predecessor"] = json.dumps({**before, "signatures": before["signatures"][:1]})

    assert not read_portable(sent(ws, again, file, unsigned)).proven


def test_a_file_names_the_keys_of_before_and_of_now_and_no_others(
    ws: Workspace, file: Path
) -> None:
    """Signers read whose key goes; and who else has keys is nobody's business."""
    waiting = targets(ws)
    give(ws, waiting, "alice", "bob")
    finish(ws, waiting)
    publish_by_hand(ws)
    policy = ws.directory / "policy.toml"
    policy.write_text(policy.read_text().replace('["rita", "sam", "tess"]', '["rita", "sam"]'))
    ws = Workspace.open(ws.directory)
    found = read_portable(sent(ws, start_targets(ws, ws.config.products, NOW), file))
    named = {who.name for who in found.people.values()}
    assert {"rita", "sam", "tess", "alice", "bob", "carol"} <= named
    assert not {"publisher", "noor"} & named
    assert ws.keyring["tess"].key.keyid not in keys_of(found.signed)


def edit(place: str, value: object) -> Change:
    """Set a field, by its dotted path."""
    *way, last = place.split(".")

    def change(document: dict[str, Any]) -> None:
        for name in way:
            document = document[name]
        document[last] = value

    return change


def delegator_beside(document: dict[str, Any]) -> None:
    targets = Targets(expires=NOW).to_dict()
    document["delegators"].append({"title": "targets", "signed": targets})


def unsigned_link(document: dict[str, Any]) -> None:
    first = json.loads(document["roots"][0])
    document["roots"][0] = json.dumps({**first, "signatures": first["signatures"][:1]})


def bins_only(document: dict[str, Any]) -> None:
    bins = {"keyids": [], "threshold": 1, "bit_length": 2, "name_prefix": "bin"}
    delegations = {"keys": {}, "succinct_roles": bins}
    document["delegators"][0]["signed"]["delegations"] = delegations


def other_path(document: dict[str, Any]) -> None:
    for files in (document["targets"], document["signed"]["targets"]):
        files["channels/gateway/other.json"] = files.pop(MANIFEST)


def fraction_in_link(document: dict[str, Any]) -> None:
    first = json.loads(document["roots"][0])
    first["signed"]["x-more"] = 1.5
    document["roots"][0] = json.dumps(first)


def other_key(document: dict[str, Any]) -> None:
    first, second = list(document["signed"]["keys"])[:2]
    document["signed"]["keys"][first] = document["signed"]["keys"][second]


def key_id_that_is_no_text(document: dict[str, Any]) -> None:
    document["signed"]["delegations"]["roles"][0]["keyids"] = [None]


def climbing_name(document: dict[str, Any]) -> None:
    next(iter(document["people"].values()))["name"] = "../x"


def two_of_one_name(document: dict[str, Any]) -> None:
    for who in document["people"].values():
        who["name"] = "alice"


FORGED: list[tuple[str, str, Change, type[Exception], str]] = [
    ("a link without its threshold", "root", unsigned_link, NotTrustedError,
     "root 1 in the file is not signed as it must be"),
    ("a chain that skips", "root", lambda d: d["roots"].append(d["roots"][0]), NotTrustedError,
     "root 1 stands where 2 should"),
    ("a chain that was left out", "root", edit("roots", []), RefusedError,
     "root-2 does not follow the version before it that is in the file: expected version 1"),
    ("a version too far", "root", edit("signed.version", 9), RefusedError, "expected version 2"),
    ("a predecessor beside the chain", "root", edit("predecessor", "{}"), RefusedError,
     "has a predecessor beside its chain"),
    ("a delegator beside the chain", "root", delegator_beside, RefusedError,
     "has a predecessor beside its chain"),
    ("a key under another id", "root", other_key, RefusedError,
     "is another public key than its key id says"),
    ("no consistent snapshots", "root", edit("signed.consistent_snapshot", False), RefusedError,  # noqa: FBT003  a value
     "turns consistent snapshots off"),
    ("a chain of roots for a channel", "channel", edit("roots", ["{}"]), RefusedError,
     "has a chain of roots, and is none"),
    ("nobody who says who signs", "channel", edit("delegators", []), RefusedError,
     "does not say who may sign"),
    ("a delegator that does not know the role", "channel", edit("role", "gateway-nightly"),
     RefusedError, "gateway-nightly may not speak for"),
    ("a delegator that delegates nothing", "channel",
     lambda d: d["delegators"][0]["signed"].pop("delegations"), RefusedError,
     "gateway-stable may not speak for"),
    ("a delegator of hash bins", "channel", bins_only, RefusedError,
     "gateway-stable may not speak for"),
    ("the path of another role", "channel", other_path, RefusedError,
     "gateway-stable may not speak for channels/gateway/other.json"),
    ("another file than is signed", "channel",
     edit("targets", {MANIFEST: base64.b64encode(b"x").decode()}), RefusedError,
     "carries another channels/gateway/stable.json"),
    ("a path that climbs", "channel", edit("targets", {"../x": ""}), RefusedError,
     "is not a target path"),
    ("targets that names files", "targets",
     lambda d: d["signed"].update(targets={"a": {"length": 0, "hashes": {"sha256": "00"}}}),
     RefusedError, "it may only delegate"),
    ("a role that climbs", "channel", edit("role", "../up"), RefusedError,
     "is not the name of a role"),
    ("a name that climbs", "channel", climbing_name,
     RefusedError, "is not the name of one key"),
    ("two keys of one name", "channel", two_of_one_name, RefusedError,
     "'alice' is not the name of one key"),
    ("another format", "channel", edit("firmroot-ceremony", 2), ConfigurationError,
     "firmroot-ceremony is 2, expected 1"),
    ("no list of people", "channel", edit("people", []), ConfigurationError, "AttributeError"),
    ("a file that is not base64", "channel", edit("targets", {MANIFEST: "?"}), ConfigurationError,
     "is not an exported ceremony"),
    ("signatures that are none", "channel", edit("signatures", [1]), ConfigurationError,
     "is not an exported ceremony"),
    ("metadata that is none", "root", edit("roots", ["nothing"]), NotTrustedError, "root 1 is not"),
    ("a fraction", "root", edit("signed.x-more", 1.5), NotTrustedError,
     "c.json has no canonical form, so nobody can sign it"),
    ("half a character", "channel", edit("signed.x-more", "\ud800"), NotTrustedError,
     "c.json has no canonical form, so nobody can sign it"),
    ("a fraction in a root before", "root", fraction_in_link, NotTrustedError,
     "root 1 has no canonical form"),
    ("a key id that is no text", "root", edit("signed.roles.snapshot.keyids", [None]),
     NotTrustedError, "a key id of snapshot is None, expected text"),
    ("a delegated key id that is no text", "targets", key_id_that_is_no_text,
     NotTrustedError, "is None, expected text"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "change", "error", "said"),
    [case[1:] for case in FORGED],
    ids=[case[0] for case in FORGED],
)
def test_a_forged_file_is_refused_before_it_is_shown(
    ws: Workspace, file: Path, kind: str, change: Change, error: type[Exception], said: str
) -> None:
    ceremony = OPEN[kind](ws)
    with pytest.raises(error, match=said):
        read_portable(sent(ws, ceremony, file, change))
    assert read_portable(sent(ws, ceremony, file)).name == ceremony.name


@pytest.mark.parametrize("lacks", ["bob", "tess"])
def test_a_chain_has_the_thresholds_of_both_generations_at_each_link(
    ws: Workspace, file: Path, lacks: str
) -> None:
    """Whoever has the new keys only would begin a chain of his own after an honest root."""
    publish_by_hand(ws)
    policy = ws.directory / "policy.toml"
    policy.write_text(
        policy.read_text().replace('["alice", "bob", "carol"]', '["tess", "sam", "alice"]', 1)
    )
    ws = Workspace.open(ws.directory)
    second = start_root(ws, NOW)
    give(ws, second, "alice", "bob", "tess")
    finish(ws, second)
    publish_by_hand(ws)
    third = start_root(ws, NOW)

    def one_less(document: dict[str, Any]) -> None:
        link, keyid = json.loads(document["roots"][1]), ws.keyring[lacks].key.keyid
        link["signatures"] = [each for each in link["signatures"] if each["keyid"] != keyid]
        document["roots"][1] = json.dumps(link)

    with pytest.raises(NotTrustedError, match="root 2 in the file is not signed as it must be"):
        read_portable(sent(ws, third, file, one_less))
    found = read_portable(sent(ws, third, file))
    chain = [found.version(number) for number in range(4)]
    assert [each and each.version for each in chain] == [None, 1, 2, None]
    assert chain[2] == found.before


def test_the_first_root_is_signed_by_its_own_keys(ws: Workspace, file: Path) -> None:
    (ws.staged / "root.json").unlink()
    found = read_portable(sent(ws, start_root(ws, NOW), file))
    assert [quorum.delegator for quorum in found.count()[0]] == ["the new root"]
    assert len(found.electorate.members()) == 3


def test_a_key_id_without_a_key_cannot_sign_and_stops_nobody(ws: Workspace, file: Path) -> None:
    """TUF allows it: such an id never counts."""
    ceremony = channel(ws)

    def one_key_less(document: dict[str, Any]) -> None:
        delegations = document["delegators"][0]["signed"]["delegations"]
        role = next(each for each in delegations["roles"] if each["name"] == "gateway-stable")
        del delegations["keys"][role["keyids"][0]]

    found = read_portable(sent(ws, ceremony, file, one_key_less))
    assert len(found.electorate.members()) == 2
    assert len(found.count()[0][0].missing) == 2
    assert len(read_portable(sent(ws, ceremony, file)).electorate.members()) == 3


def test_a_file_without_end_is_not_read_to_it(
    ws: Workspace, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent(ws, targets(ws), file)
    monkeypatch.setattr(module, "MAX_FILE", file.stat().st_size - 1)
    with pytest.raises(ConfigurationError, match="it is longer than"):
        read_portable(file)
    monkeypatch.setattr(module, "MAX_FILE", file.stat().st_size)
    assert read_portable(file).role == "targets"


# Signing with nothing else.


def opened(ws: Workspace, file: Path) -> Portable:
    return read_portable(sent(ws, second_root(ws), file))


def test_a_key_file_says_whose_it_is(ws: Workspace, file: Path) -> None:
    found, keys = opened(ws, file), ws.directory / ".firmroot/keys"
    secrets = Secrets(PASSPHRASE)
    holder = find_holder(found, "file:bob.pem", None, secrets, keys)
    assert (holder.name, holder.holder) == ("bob", ws.keyring["bob"].holder)
    assert holder.key == ws.keyring["bob"].key
    with pytest.raises(ConfigurationError, match="'file' is not a key URI: expected file:"):
        find_holder(found, "file", None, secrets, keys)
    with pytest.raises(RefusedError, match=r"which has no say in root-2; .*: alice, bob, carol"):
        find_holder(found, "file:rita.pem", None, secrets, keys)


def test_for_a_token_it_is_said_whose_it_is(ws: Workspace, file: Path) -> None:
    found, secrets = opened(ws, file), Secrets(PASSPHRASE)
    with pytest.raises(ConfigurationError, match="does not say whose key it is") as caught:
        find_holder(found, "hsm:1", None, secrets, ws.directory)
    assert caught.value.hint.startswith("a token or service does not tell before its PIN is given")
    assert caught.value.hint.endswith("say which key is yours: --as NAME")
    assert find_holder(found, "hsm:1", "carol", secrets, ws.directory).name == "carol"
    with pytest.raises(RefusedError, match="rita may not sign root-2"):
        find_holder(found, "hsm:1", "rita", secrets, ws.directory)


def test_a_key_that_the_file_does_not_name_has_a_short_id(ws: Workspace, file: Path) -> None:
    found = read_portable(sent(ws, second_root(ws), file, edit("people", {})))
    keys = ws.directory / ".firmroot/keys"
    holder = find_holder(found, "file:bob.pem", None, Secrets(PASSPHRASE), keys)
    assert (holder.name, holder.holder) == (holder.key.keyid[:8], "")


def test_a_signer_is_compared_with_their_own_last_and_not_with_the_file(
    ws: Workspace, file: Path
) -> None:
    found = opened(ws, file)
    memory = KnownGood.open(file.with_name("known.json"), by_key=True)
    alice = ws.keyring["alice"].key.keyid
    before = found.before
    assert before is not None
    assert review_apart(found, memory, [alice]).stops == ()
    mine = type(before).from_dict({**before.to_dict(), "expires": "2030-01-01T00:00:00Z"})
    memory.keep("root", [alice], mine, found.people, {}, NOW)
    stops = review_apart(found, memory, [alice]).stops
    assert [stop.id for stop in stops] == ["other-predecessor", "expiry-falls"]
    bob = ws.keyring["bob"].key.keyid
    assert review_apart(found, memory, [bob]).stops == ()


# Merging.


def test_signatures_merge_in_any_order_and_as_often_as_one_likes(
    ws: Workspace, file: Path, tmp_path: Path
) -> None:
    ceremony = targets(ws)
    give(ws, ceremony, "bob")
    sent(ws, ceremony, file)
    kept = signature_path(ceremony, ws.keyring["bob"].key.keyid)
    kept.unlink()
    copy = tmp_path / "copy.json"
    shutil.copy(file, copy)
    assert merge(ws, file).added == ("bob",)
    written = kept.read_bytes()
    assert (merge(ws, copy).added, merge(ws, copy).known) == ((), ("bob",))
    assert kept.read_bytes() == written


def test_what_does_not_count_is_named_and_the_rest_is_taken(ws: Workspace, file: Path) -> None:
    ceremony = targets(ws)
    give(ws, ceremony, "alice", "bob")
    good = signature_of(ws, "carol", ceremony.payload)

    def spoil(document: dict[str, Any]) -> None:
        document["signatures"][0]["sig"] = "00"
        forged = signature_of(ws, "rita", ceremony.payload)
        document["signatures"] += [forged.to_dict(), good.to_dict()]

    sent(ws, ceremony, file, spoil)
    for name in ("alice", "bob"):
        signature_path(ceremony, ws.keyring[name].key.keyid).unlink()
    spoilt = json.loads(file.read_text())["signatures"][0]["keyid"]
    claimed = ws.key_name(spoilt)
    found = merge(ws, file)
    assert found.ignored == (
        f"a signature that claims to be by {claimed} does not verify over targets-1",
        "a signature of rita, which is not in role targets",
    )
    assert sorted(found.added) == sorted({"alice", "bob", "carol"} - {claimed})


def test_signatures_over_another_content_are_not_taken(ws: Workspace, file: Path) -> None:
    ceremony = targets(ws)
    give(ws, ceremony, "alice")
    sent(ws, ceremony, file, edit("signed.expires", "2026-04-01T00:00:00Z"))
    assert merge(ws, file).ignored == ("targets-1 here has another content",)
