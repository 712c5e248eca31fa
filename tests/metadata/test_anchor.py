"""Recovery roots as the release side makes them, read by the device's own code."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from securesystemslib.signer import CryptoSigner

from client_reference.errors import NotTrustedError
from client_reference.trust.recovery import FIELD, Statement, read_statement
from keys_policy.model import KeyHolder, Policy, RolePolicy
from repo_tools.metadata.anchor import as_field, names, next_recovery, statement_about, walk
from repo_tools.metadata.edits import assemble, is_lab_root, signed_bytes
from repo_tools.signing.keyfiles import generate, public_key
from tests.keys_policy.sample import policy_with

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tuf.api.metadata import Root

NOW = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)
PRIVATE = {name: generate("ed25519") for name in ("noor", "otto", "pia", "quentin")}
KEYRING = {
    name: KeyHolder(name, name, "file", public_key(private)) for name, private in PRIVATE.items()
}
FIRST = statement_about(b"the factory's root")
SECOND = statement_about(b"a new root", 1, {"gateway": 12})


def policy(*names: str) -> Policy:
    return policy_with(recovery=RolePolicy(2, names, 3650, 0))


ALL = policy("noor", "otto", "pia")


def signed(root: Root, names: Sequence[str] = ("noor", "otto")) -> bytes:
    signers = [CryptoSigner(PRIVATE[name], public_key(PRIVATE[name])) for name in names]
    return assemble(root, [each.sign(signed_bytes(root)) for each in signers])


def link(previous: Root | None, statement: Statement, rules: Policy = ALL) -> Root:
    return next_recovery(rules, KEYRING, previous, statement, NOW, lab=False)


def test_a_recovery_root_says_what_it_was_made_to_say() -> None:
    root = link(None, SECOND)
    assert read_statement(root) == SECOND
    assert (
        root.unrecognized_fields[FIELD]
        == as_field(SECOND)
        == {
            "epoch": 1,
            "sha256": SECOND.sha256,
            "length": len(b"a new root"),
            "minimum_sequence": {"gateway": 12},
        }
    )
    assert (root.version, root.consistent_snapshot) == (1, True)
    assert root.expires == NOW + timedelta(days=3650)
    keyids = {KEYRING[name].key.keyid for name in ("noor", "otto", "pia")}
    assert {name: (role.threshold, set(role.keyids)) for name, role in root.roles.items()} == (
        dict.fromkeys(("root", "targets", "snapshot", "timestamp"), (2, keyids))
    )
    assert not is_lab_root(root)
    assert is_lab_root(next_recovery(ALL, KEYRING, None, FIRST, NOW, lab=True))


def test_a_statement_names_exact_bytes() -> None:
    assert names(FIRST, b"the factory's root")
    assert not names(FIRST, b"the factory's ROOT")
    assert not names(replace(FIRST, length=17), b"the factory's root")


def test_a_chain_is_walked_to_its_end() -> None:
    first = link(None, FIRST)
    renewed = link(first, FIRST, policy("otto", "pia", "quentin"))
    last = link(renewed, SECOND, policy("otto", "pia", "quentin"))
    chain = [
        signed(first),
        signed(renewed, ("noor", "otto", "pia")),
        signed(last, ("pia", "quentin")),
    ]
    assert [(each.version, each.statement) for each in walk(chain)] == [
        (1, FIRST),
        (2, FIRST),
        (3, SECOND),
    ]
    assert walk(chain[1:])[-1].statement == SECOND
    assert walk([]) == []


def test_a_link_needs_the_threshold_before_and_its_own() -> None:
    first = link(None, FIRST)
    taken = link(first, SECOND, policy("quentin", "otto"))
    with pytest.raises(NotTrustedError):
        walk([signed(first), signed(taken, ("quentin", "otto"))])
    with pytest.raises(NotTrustedError):
        walk([signed(first), signed(link(first, SECOND), ("noor",))])
    with pytest.raises(NotTrustedError):
        walk([signed(first, ("noor",))])


def test_an_expired_anchor_is_as_good_as_ever() -> None:
    first = link(None, FIRST)
    first.expires = NOW - timedelta(days=9999)
    assert walk([signed(first), signed(link(first, SECOND))])[-1].statement == SECOND


REFUSED = {
    "an epoch that falls": (SECOND, FIRST, "is of epoch 0, expected 1 or 2"),
    "an epoch that jumps": (FIRST, replace(SECOND, epoch=2), "is of epoch 2, expected 0 or 1"),
    "another root for one epoch": (SECOND, replace(SECOND, sha256="ab" * 32), "two primary roots"),
    "another sequence for one epoch": (
        SECOND,
        replace(SECOND, minimum_sequence={"gateway": 11}),
        "changes minimum_sequence within epoch 1",
    ),
}


@pytest.mark.parametrize(("before", "after", "message"), REFUSED.values(), ids=REFUSED)
def test_what_no_device_would_follow_is_not_walked(
    before: Statement, after: Statement, message: str
) -> None:
    first = link(None, before)
    with pytest.raises(NotTrustedError, match=message):
        walk([signed(first), signed(link(first, after))])
    assert walk([signed(first), signed(link(first, before))])[-1].statement == before
