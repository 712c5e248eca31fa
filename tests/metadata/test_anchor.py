"""The recovery root: what it says, how it is read, and which link may follow which."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root

from client_reference.errors import NotTrustedError
from keys_policy.model import KeyHolder, Policy, RolePolicy
from repo_tools.metadata.anchor import (
    PRIMARY_FIELD,
    Statement,
    check_follows,
    next_recovery,
    read_statement,
    walk,
)
from repo_tools.metadata.edits import assemble, is_lab_root, signed_bytes
from repo_tools.signing.keyfiles import generate, public_key
from tests.keys_policy.sample import policy_with

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)
PRIVATE = {name: generate("ed25519") for name in ("noor", "otto", "pia", "quentin")}
KEYRING = {
    name: KeyHolder(name, name, "file", public_key(private)) for name, private in PRIVATE.items()
}
FIRST = Statement.about(b"the factory's root")
SECOND = Statement.about(b"a new root", 1, {"gateway": 12})


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
    assert root.unrecognized_fields[PRIMARY_FIELD] == {
        "epoch": 1,
        "sha256": SECOND.sha256,
        "length": len(b"a new root"),
        "minimum_sequence": {"gateway": 12},
    }
    assert (root.version, root.consistent_snapshot) == (1, True)
    assert root.expires == NOW + timedelta(days=3650)
    keyids = {KEYRING[name].key.keyid for name in ("noor", "otto", "pia")}
    assert {name: (role.threshold, set(role.keyids)) for name, role in root.roles.items()} == (
        dict.fromkeys(("root", "targets", "snapshot", "timestamp"), (2, keyids))
    )
    assert not is_lab_root(root)
    assert is_lab_root(next_recovery(ALL, KEYRING, None, FIRST, NOW, lab=True))


def test_a_statement_names_exact_bytes() -> None:
    assert FIRST.names(b"the factory's root")
    assert not FIRST.names(b"the factory's ROOT")
    assert not replace(FIRST, length=17).names(b"the factory's root")


def test_a_chain_is_walked_to_its_end() -> None:
    first = link(None, FIRST)
    renewed = link(first, FIRST, policy("otto", "pia", "quentin"))
    last = link(renewed, SECOND, policy("otto", "pia", "quentin"))
    chain = [
        signed(first),
        signed(renewed, ("noor", "otto", "pia")),
        signed(last, ("pia", "quentin")),
    ]
    assert [(root.version, said) for root, said in walk(chain)] == [
        (1, FIRST),
        (2, FIRST),
        (3, SECOND),
    ]
    assert walk(chain[1:])[-1][1] == SECOND
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
    assert walk([signed(first), signed(link(first, SECOND))])[-1][1] == SECOND


BROKEN: dict[str, dict[str, Any]] = {
    "a negative epoch": {"epoch": -1},
    "a fraction": {"epoch": 1.0},
    "a truth value": {"epoch": True},
    "an epoch beyond every reader": {"epoch": 2**53},
    "no epoch": {"epoch": None},
    "a digest in capitals": {"sha256": "AB" * 32},
    "a short digest": {"sha256": "ab" * 31},
    "no digest": {"sha256": None},
    "a length as text": {"length": "9"},
    "an empty root": {"length": 0},
    "a root that no device reads": {"length": 512_001},
    "a true length": {"length": True},
    "a list of products": {"minimum_sequence": []},
    "no products": {"minimum_sequence": None},
    "a negative sequence": {"minimum_sequence": {"gateway": -1}},
    "a true sequence": {"minimum_sequence": {"gateway": True}},
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_a_statement_of_another_form_is_refused(change: dict[str, Any]) -> None:
    root = link(None, FIRST)
    root.unrecognized_fields[PRIMARY_FIELD] = {**FIRST.to_dict(), **change}
    with pytest.raises(NotTrustedError, match="expected epoch, sha256, length"):
        read_statement(root)


def test_the_edges_of_a_statement_are_read() -> None:
    root = link(None, FIRST)
    for change in (
        {"length": 1},
        {"length": 512_000},
        {"epoch": 2**53 - 1},
        {"minimum_sequence": {"a": 0, "b": 2**53 - 1}},
    ):
        root.unrecognized_fields[PRIMARY_FIELD] = {**FIRST.to_dict(), **change}
        assert read_statement(root).to_dict() == {**FIRST.to_dict(), **change}


def test_a_root_without_a_statement_is_no_recovery_root() -> None:
    root = link(None, FIRST)
    nothings: tuple[object, ...] = (None, [], "text")
    for nothing in nothings:
        root.unrecognized_fields[PRIMARY_FIELD] = nothing
        with pytest.raises(NotTrustedError, match="says nothing about a primary root"):
            read_statement(root)


def test_fields_of_later_versions_are_passed_over() -> None:
    root = link(None, FIRST)
    root.unrecognized_fields[PRIMARY_FIELD] = {**FIRST.to_dict(), "later": 1}
    data = signed(root)
    assert read_statement(Metadata[Root].from_bytes(data).signed) == FIRST


REFUSED = {
    "an epoch that falls": (SECOND, FIRST, "is about epoch 0, expected 1 or 2"),
    "an epoch that jumps": (FIRST, replace(SECOND, epoch=2), "is about epoch 2, expected 0 or 1"),
    "another root for one epoch": (SECOND, replace(SECOND, sha256="ab" * 32), "otherwise than"),
    "another length for one epoch": (SECOND, replace(SECOND, length=1), "otherwise than"),
    "another sequence for one epoch": (
        SECOND,
        replace(SECOND, minimum_sequence={"gateway": 11}),
        "otherwise than",
    ),
}


@pytest.mark.parametrize(("before", "after", "message"), REFUSED.values(), ids=REFUSED)
def test_a_statement_only_rises(before: Statement, after: Statement, message: str) -> None:
    with pytest.raises(NotTrustedError, match=message):
        check_follows(before, after, "recovery 2")
    first = link(None, before)
    with pytest.raises(NotTrustedError, match=message):
        walk([signed(first), signed(link(first, after))])
    assert walk([signed(first), signed(link(first, before))])[-1][1] == before
