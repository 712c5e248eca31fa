"""The online keys: which are here, and whose signatures each root gets."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from tuf.api.metadata import Metadata, Root, Timestamp

from repo_tools.metadata.repository import parse
from repo_tools.publishing.online import OnlineKeys, OnlineKeysMissingError, can_sign, is_here
from repo_tools.signing import signers
from repo_tools.signing.secrets import open_secrets

if TYPE_CHECKING:
    from tests.publishing.lab import Lab


def _keys(lab: Lab) -> OnlineKeys:
    workspace = lab.workspace
    return OnlineKeys(workspace, open_secrets(None, {}, None, workspace.lab_passphrase))


def _root(lab: Lab, threshold: int, *names: str) -> Root:
    """The live root with other keys for the timestamp."""
    root = parse(lab.workspace.roots()[-1], Root, "root").signed
    role = root.get_delegated_role(Timestamp.type)
    role.threshold = threshold
    role.keyids = [lab.workspace.keyring[name].key.keyid for name in names]
    return root


def _signers(lab: Lab, data: bytes) -> list[str]:
    signatures = Metadata[Timestamp].from_bytes(data).signatures
    return sorted(lab.workspace.key_name(keyid) for keyid in signatures)


def test_a_service_is_anywhere_and_a_key_file_where_it_is(live: Lab) -> None:
    ws = live.workspace
    uri = ws.key_uris()["publisher"]
    assert is_here(ws, uri)
    assert is_here(ws, "awskms:alias/publisher")
    assert can_sign(ws, Timestamp.type)
    (live.directory / uri.partition(":")[2]).unlink()
    assert not is_here(ws, uri)
    assert not can_sign(ws, Timestamp.type)


def test_a_key_that_this_machine_does_not_have_signs_nothing(live: Lab) -> None:
    ws = live.workspace
    assert can_sign(ws, "targets")
    for name in ws.policy.role("targets").keys:
        ws.remove_key_uri(name)
    assert not can_sign(ws, "targets")


def test_every_root_gets_its_threshold_and_every_key_signs_once(live: Lab) -> None:
    keys = _keys(live)
    roots = [_root(live, 1, "publisher"), _root(live, 2, "publisher", "alice")]
    with (
        patch("repo_tools.publishing.online.sign", wraps=signers.sign) as sign,
        patch("repo_tools.publishing.online.open_signer", wraps=signers.open_signer) as opened,
    ):
        data = keys.sign(roots, Timestamp())
        assert _signers(live, data) == ["alice", "publisher"]
        assert sign.call_count == 2
        keys.sign(roots, Timestamp())
        assert opened.call_count == 2, "each was opened once"


@pytest.mark.parametrize("lost", ["its file", "its name", "its holder"])
def test_a_key_that_is_not_here_is_missed_only_below_the_threshold(live: Lab, lost: str) -> None:
    one, two = (_root(live, threshold, "publisher", "alice") for threshold in (1, 2))
    ws = live.workspace
    if lost == "its file":
        (live.directory / ws.key_uris()["alice"].partition(":")[2]).unlink()
    elif lost == "its name":
        ws.remove_key_uri("alice")
    else:
        for root in (one, two):
            root.get_delegated_role(Timestamp.type).keyids[1] = "f" * 64
    assert _signers(live, _keys(live).sign([one], Timestamp())) == ["publisher"]
    who = "unknown key ffffffff" if lost == "its holder" else "alice"
    with pytest.raises(OnlineKeysMissingError) as caught:
        _keys(live).sign([two], Timestamp())
    message = f"timestamp needs 2 signature(s), and this machine cannot sign as {who}"
    assert caught.value.message == message
    with pytest.raises(OnlineKeysMissingError, match=r"signature\(s\) for root 1, and"):
        _keys(live).sign([one, two], Timestamp())
