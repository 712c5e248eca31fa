"""What a stranger may put into git or a file, and that nobody signs or loses anything by it."""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import SSlibKey

from client_reference.errors import NotTrustedError, RefusedError
from repo_tools.files import create_file
from repo_tools.metadata.edits import manifest_targets, next_targets
from repo_tools.signing.ceremony import (
    Ceremony,
    abandon,
    check_ceremony,
    find_ceremony,
    finish,
    open_ceremonies,
    start_ceremony,
    tidy,
)
from repo_tools.signing.ceremony.course import _write
from repo_tools.signing.exchange import adopt, export
from repo_tools.signing.portable import read_portable
from repo_tools.signing.rules import PolicyViolationError, enforce, enforce_sound
from repo_tools.signing.start import start_root, start_targets
from repo_tools.workspace import Workspace
from tests.signing.team import NOW, give, make_lab, publish_by_hand
from tests.simulators.disk import names

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHANNEL = "gateway-stable"
MANIFEST = "channels/gateway/stable.json"
Document = dict[str, Any]


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ws = make_lab(tmp_path_factory.mktemp("strangers") / "acme")
    targets = start_targets(ws, ws.config.products, NOW)
    give(ws, targets, "alice", "bob")
    finish(ws, targets)
    publish_by_hand(ws)
    return ws.directory


@pytest.fixture
def ws(_made: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(_made, tmp_path / "acme")
    return Workspace.open(tmp_path / "acme")


def promotion(ws: Workspace) -> Ceremony:
    rules = ws.policy.role("channel")
    signed = manifest_targets(CHANNEL, None, MANIFEST, b"{}", rules, NOW)
    return start_ceremony(ws, CHANNEL, signed, {MANIFEST: b"{}"})


# Keys under the ids of others.


def _stranger(key: Document, _: Document) -> None:
    raw = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    key.update(keytype="ed25519", scheme="ed25519", keyval={"public": raw.hex()})


def _spelling(key: Document, _: Document) -> None:
    key["keyval"]["public"] = key["keyval"]["public"].upper()


def _addition(_: Document, keys: Document) -> None:
    found = SSlibKey.from_crypto(Ed25519PrivateKey.generate().public_key())
    keys[found.keyid] = found.to_dict()


SWAPS = [
    ("another key under the same id", _stranger, "another public key than its key id says"),
    ("the same key in another spelling", _spelling, "is written otherwise than the key"),
    ("a key that nobody knows", _addition, "neither in keys/ nor in the version before"),
]


@pytest.mark.parametrize("role", ["root", "targets"])
@pytest.mark.parametrize(
    ("swap", "message"), [row[1:] for row in SWAPS], ids=[row[0] for row in SWAPS]
)
def test_keys_of_strangers_are_refused_by_file_and_by_git(
    ws: Workspace,
    tmp_path: Path,
    role: str,
    swap: Callable[[Document, Document], None],
    message: str,
) -> None:
    honest = start_root(ws, NOW) if role == "root" else start_targets(ws, ws.config.products, NOW)
    document = json.loads(export(ws, honest, []))
    delegator = document["signed"] if role == "root" else document["signed"]["delegations"]
    swap(
        delegator["keys"][ws.keyring["publisher" if role == "root" else "rita"].key.keyid],
        delegator["keys"],
    )
    payload = honest.directory / "payload.json"
    payload.write_text(json.dumps(document["signed"]))
    with pytest.raises(RefusedError, match=message):
        check_ceremony(ws, find_ceremony(ws, role))
    abandon(honest)
    (tmp_path / "c.json").write_text(json.dumps(document))
    with pytest.raises(RefusedError, match=message):
        adopt(ws, tmp_path / "c.json")
    assert names(ws.ceremonies) == []


def test_a_key_of_the_version_before_may_stay_although_keys_has_it_no_more(ws: Workspace) -> None:
    again = start_targets(ws, ws.config.products, NOW)
    keyring = {name: holder for name, holder in ws.keyring.items() if name != "rita"}
    check_ceremony(replace(ws, keyring=keyring), again)


# Files that lead elsewhere.


def _carry(path: str) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        document["targets"][path] = base64.b64encode(b"x").decode()

    return change


def _sign_for(path: str) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        targets = document["signed"]["targets"]
        targets[path] = targets.pop(MANIFEST)
        document["targets"] = {path: document["targets"][MANIFEST]}

    return change


def _role(name: str) -> Callable[[Document], None]:
    return lambda document: document.update(role=name)


def _hash(document: Document) -> None:
    document["signed"]["targets"][MANIFEST]["hashes"]["sha512"] = "../../../../x"


FILES = [
    ("a carried path that climbs", _carry("../../../../x"), "is not a target path"),
    ("an absolute carried path", _carry("/x"), "is not a target path"),
    ("a carried path with an empty segment", _carry("a//x"), "is not a target path"),
    ("a carried path of another system", _carry("..\\x"), "is not a target path"),
    ("a carried path that moves the cursor", _carry("a\x1b[2J"), "is not a target path"),
    ("a carried file that is not signed", _carry("channels/x"), "which it does not sign"),
    ("a signed path that climbs", _sign_for("channels/gateway/../../../x"), "may not speak for|is"),
    ("a signed path of another role", _sign_for("holds/gateway/stable.json"), "may not speak for"),
    ("a hash that climbs", _hash, "carries another"),
    ("a role that climbs", _role("../../x"), "is a ceremony of '../../x'"),
    ("a role that nobody has", _role("gateway-nightly"), "is a ceremony of 'gateway-nightly'"),
    ("a role of a machine", _role("gateway-builds"), "is a ceremony of 'gateway-builds'"),
]


@pytest.mark.parametrize(
    ("change", "message"), [row[1:] for row in FILES], ids=[row[0] for row in FILES]
)
def test_a_file_of_a_stranger_writes_nothing(
    ws: Workspace, tmp_path: Path, change: Callable[[Document], None], message: str
) -> None:
    honest = promotion(ws)
    document = json.loads(export(ws, honest, []))
    abandon(honest)
    change(document)
    (tmp_path / "c.json").write_text(json.dumps(document))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RefusedError, match=message):
        adopt(ws, tmp_path / "c.json")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("path", ["../up", "a//b", "a/./b"])
def test_a_ceremony_writes_no_path_that_leads_out_whoever_starts_it(
    ws: Workspace, path: str
) -> None:
    made = promotion(ws)
    before = names(ws.directory.parent)
    abandon(made)
    with pytest.raises(RefusedError, match="path"):
        _write(made, {path: b"x"})
    assert not (ws.directory / "up").exists()
    assert set(names(ws.directory.parent)) <= set(before)


def test_a_file_does_not_say_itself_what_a_role_may_speak_for(
    ws: Workspace, tmp_path: Path
) -> None:
    """Attack: it brings targets of its own, which let the role offer the builds of another."""
    honest = promotion(ws)
    document = json.loads(export(ws, honest, []))
    abandon(honest)
    path = "channels/gateway/other.json"
    _sign_for(path)(document)
    for delegator in document["delegators"]:
        for role in delegator["signed"]["delegations"]["roles"]:
            role["paths"] = ["channels/gateway/*"]
    file = tmp_path / "c.json"
    file.write_text(json.dumps(document))
    assert read_portable(file).role == CHANNEL
    with pytest.raises(RefusedError, match=f"{CHANNEL} may not speak for {path}"):
        adopt(ws, file)
    assert all(each.role != CHANNEL for each in open_ceremonies(ws))
    assert promotion(ws) == honest


def test_an_honest_file_is_adopted(ws: Workspace, tmp_path: Path) -> None:
    honest = promotion(ws)
    (tmp_path / "c.json").write_bytes(export(ws, honest, []))
    abandon(honest)
    assert adopt(ws, tmp_path / "c.json") == honest


def test_a_file_in_git_that_is_not_signed_is_not_carried_along(ws: Workspace) -> None:
    honest = promotion(ws)
    create_file(honest.directory / "targets" / "channels" / "x", b"x")
    with pytest.raises(RefusedError, match="carries channels/x, which it does not sign"):
        check_ceremony(ws, find_ceremony(ws, CHANNEL))


# Symbolic links in git.

LINKS = [
    ("a ceremony", "ceremonies/root-2"),
    ("a file of a ceremony", "ceremonies/root-2/payload.json"),
    ("all ceremonies", "ceremonies"),
    ("what is staged", "staged"),
    ("a staged role", "staged/root.json"),
    ("a staged target", "staged/targets/channels"),
]


@pytest.mark.parametrize("place", [row[1] for row in LINKS], ids=[row[0] for row in LINKS])
@pytest.mark.parametrize("exists", [True, False], ids=["to a directory", "to nothing"])
def test_a_symbolic_link_is_refused(
    ws: Workspace, tmp_path: Path, place: str, *, exists: bool
) -> None:
    create_file(tmp_path / "victim" / "base.json", b"mine")
    path = ws.directory / place
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(tmp_path / ("victim" if exists else "nowhere"))
    with pytest.raises(NotTrustedError, match=f"{place} is a symbolic link") as caught:
        Workspace.open(ws.directory)
    assert caught.value.hint.endswith(f"git rm {place}")


def test_tidying_follows_no_link_and_keeps_what_it_does_not_know(
    ws: Workspace, tmp_path: Path
) -> None:
    create_file(tmp_path / "victim" / "base.json", b"mine")
    create_file(tmp_path / "victim" / "targets" / "a", b"mine")
    left = ws.ceremonies / "targets-9"
    for name in ("base.json", "targets/a/b", "ab.sig.json", ".base.json.x.tmp", "notes.txt"):
        create_file(left / name, b"")
    (left / "ab2.sig.json").symlink_to(tmp_path / "victim" / "base.json")
    (left / "targets" / "link").symlink_to(tmp_path / "victim")
    (ws.ceremonies / "root-2").symlink_to(tmp_path / "victim")
    other = ws.ceremonies / "root-3"
    other.mkdir()
    (other / "targets").symlink_to(tmp_path / "victim" / "targets")
    tidy(ws)
    victims = sorted(path.name for path in (tmp_path / "victim").rglob("*"))
    assert victims == ["a", "base.json", "targets"]
    found = sorted(str(path.relative_to(left)) for path in left.rglob("*"))
    assert found == ["ab2.sig.json", "notes.txt", "targets", "targets/link"]


# The policy binds.


def lowered(ws: Workspace) -> Ceremony:
    """A targets role that lets one key speak for the channel."""
    before = start_targets(ws, ws.config.products, NOW)
    abandon(before)
    section = replace(ws.policy.role("channel"), threshold=1)
    policy = replace(ws.policy, roles={**ws.policy.roles, "channel": section})
    signed = next_targets(policy, ws.keyring, {"gateway": ["stable"]}, ws.newest_targets(), NOW)
    return start_ceremony(ws, "targets", signed)


def test_a_threshold_below_the_policy_stops_signing_but_not_its_correction(ws: Workspace) -> None:
    ceremony = lowered(ws)
    message = "targets 2: gateway-stable is 1 of rita, sam, tess; the policy expects 2 of rita, sam"
    with pytest.raises(PolicyViolationError, match=message) as caught:
        enforce(ws, NOW)
    assert "firmroot ceremony start ROLE" in caught.value.hint
    give(ws, ceremony, "alice", "bob")
    finish(ws, ceremony)
    with pytest.raises(PolicyViolationError, match=message):
        enforce(ws, NOW)
    enforce_sound(ws, NOW)
    start_targets(ws, ws.config.products, NOW)
    enforce(ws, NOW)


def test_a_ceremony_that_ends_too_late_stops_signing_but_not_its_correction(ws: Workspace) -> None:
    start_targets(ws, ws.config.products, NOW)
    section = replace(ws.policy.role("targets"), expiry_days=90)
    ws = replace(ws, policy=replace(ws.policy, roles={**ws.policy.roles, "targets": section}))
    with pytest.raises(PolicyViolationError, match="targets 2 expires on") as caught:
        enforce(ws, NOW)
    assert "Start the ceremony again" in caught.value.hint
    enforce_sound(ws, NOW)
    start_targets(ws, ws.config.products, NOW)
    enforce(ws, NOW)
