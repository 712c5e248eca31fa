"""A hybrid role: the sum that the policy shows, and what both clients make of the threshold."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import TYPE_CHECKING, TypeVar

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater as NgUpdater

from client_reference.trust import verified
from client_reference.trust.verified import BadSignatureError
from keys_policy.checks import Evidence, Severity, run_checks
from keys_policy.load import PolicyError, parse_policy
from keys_policy.model import KeyHolder, RolePolicy
from repo_tools.signing.keyfiles import generate
from tests.keys_policy.sample import KEYRING, holder, policy_with

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)

CLASSICAL = ("alice", "bob", "carol")
QUANTUM = ("quinn", "uma", "vera")
HYBRID: Mapping[str, KeyHolder] = {
    **KEYRING,
    **{name: holder(name, "ml-dsa-65") for name in QUANTUM},
}


def found(threshold: int, keys: Sequence[str], left: int = 2, **pockets: str) -> list[str]:
    """The details of `hybrid-quorum` for a root; `pockets` gives keys to other holders."""
    keyring = {
        name: replace(each, holder=pockets.get(name, each.holder)) for name, each in HYBRID.items()
    }
    policy = policy_with(root=RolePolicy(threshold, tuple(keys), 365, 60, left))
    findings = [
        each for each in run_checks(Evidence(policy, keyring)) if each.check.id == "hybrid-quorum"
    ]
    assert all(each.severity is Severity.ERROR for each in findings)
    return [each.detail for each in findings]


def message(broken: str, threshold: int, keys: int, left: int, people: int) -> str:
    return (
        f"roles.root: if the {broken} keys fall, threshold {threshold} - {keys} {broken} keys = "
        f"{left} signatures are left to get, which {people} people can give; expected at least 2"
    )


def test_three_and_three_at_five_leave_two_people() -> None:
    assert found(5, CLASSICAL + QUANTUM) == []


def test_the_sum_is_shown_for_each_family_that_leaves_too_few() -> None:
    assert found(4, CLASSICAL + QUANTUM) == [
        message("classical", 4, 3, 1, 1),
        message("post-quantum", 4, 3, 1, 1),
    ]
    assert found(4, CLASSICAL + QUANTUM[:2]) == [message("classical", 4, 3, 1, 1)]
    assert found(2, CLASSICAL) == [
        message("classical", 2, 3, 0, 0),
    ], "one family alone is no hybrid"


def test_two_keys_in_one_pocket_are_one_person() -> None:
    assert found(5, CLASSICAL + QUANTUM, uma="quinn") == [message("classical", 5, 3, 2, 1)]
    assert found(5, CLASSICAL + QUANTUM, quinn="alice", uma="bob", vera="carol") == []


def test_a_builder_may_have_a_key_of_each_family_and_a_channel_not() -> None:
    rules = RolePolicy(2, ("ci", "ci-q"), 365, 60, 1)
    keyring = {**HYBRID, "ci-q": replace(holder("ci-q", "ml-dsa-65"), holder="ci")}
    assert run_checks(Evidence(policy_with(builds=rules), keyring)) == []
    alone = replace(rules, hybrid_left=0)
    (only,) = run_checks(Evidence(policy_with(builds=alone), keyring))
    assert only.detail == "roles.builds: threshold 2, but its keys have 1 holders: ci"
    people = replace(rules, keys=("rita", "rita-q", "sam"))
    keyring["rita-q"] = replace(holder("rita-q", "ml-dsa-65"), holder="sam")
    keyring["rita"] = replace(keyring["rita"], holder="sam")
    details = [each.detail for each in run_checks(Evidence(policy_with(channel=people), keyring))]
    assert "roles.channel: threshold 2, but its keys have 1 holders: sam" in details


def test_nothing_is_said_where_nothing_is_claimed_or_keys_are_still_to_come() -> None:
    assert found(2, CLASSICAL, left=0) == []
    assert found(5, (*CLASSICAL, *QUANTUM[:2], "later")) == []
    assert found(5, ()) == found(5, CLASSICAL) == []


def test_the_claim_is_read_from_the_policy() -> None:
    text = (
        'schema = 1\n[roles.root]\nthreshold = 5\nkeys = []\nexpiry_days = 9\nhybrid_left = "2"\n'
    )
    with pytest.raises(PolicyError, match=r"roles\.root\.hybrid_left: expected a whole number"):
        parse_policy(text)
    with pytest.raises(PolicyError, match="hybrid_let is not known; did you mean hybrid_left"):
        parse_policy(text.replace("hybrid_left", "hybrid_let"))


SIGNERS = [CryptoSigner(generate("ed25519")) for _ in range(3)] + [
    CryptoSigner(generate("ml-dsa-65")) for _ in range(3)
]
ONLINE = CryptoSigner(generate("ed25519"))
LATER = datetime.now(UTC) + timedelta(days=1)  # ngclient reads the clock of the machine


def root_signed_by(version: int, signers: Sequence[CryptoSigner]) -> bytes:
    root = Root(version=version, expires=LATER, consistent_snapshot=True)
    for signer in SIGNERS:
        root.add_key(signer.public_key, "root")
    root.roles["root"].threshold = 5
    for role in ("timestamp", "snapshot", "targets"):
        root.add_key(ONLINE.public_key, role)
    return signed(root, signers)


def signed(role: T, signers: Sequence[CryptoSigner]) -> bytes:
    file = Metadata(role)
    for signer in signers:
        file.sign(signer, append=True)
    return file.to_bytes()


class Files(FetcherInterface):
    """Serves a root 2 and what belongs to it."""

    def __init__(self, root: bytes) -> None:
        self.files = {
            "2.root.json": root,
            "timestamp.json": signed(Timestamp(expires=LATER), [ONLINE]),
            "1.snapshot.json": signed(Snapshot(expires=LATER), [ONLINE]),
            "1.targets.json": signed(Targets(expires=LATER), [ONLINE]),
        }

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.rsplit("/", 1)[-1]
        if name not in self.files:
            raise tuf_errors.DownloadHTTPError("not served", 404)
        return iter([self.files[name]])


def theirs(first: bytes, second: bytes, directory: Path) -> int:
    """The version of the root that `tuf.ngclient` trusts after a refresh."""
    updater = NgUpdater(str(directory), "https://x.test/", fetcher=Files(second), bootstrap=first)
    updater.refresh()
    return Metadata[Root].from_bytes((directory / "root.json").read_bytes()).signed.version


def test_both_clients_take_any_five_signatures_and_refuse_any_four(tmp_path: Path) -> None:
    """With either family broken, its three signatures still lack two of the other."""
    first = root_signed_by(1, SIGNERS)
    trusted = verified.first_root(first)
    fours = [root_signed_by(2, each) for each in combinations(SIGNERS, 4)]
    fives = [root_signed_by(2, each) for each in combinations(SIGNERS, 5)]
    assert (len(fours), len(fives)) == (15, 6)
    for number, file in enumerate(fours):
        with pytest.raises(BadSignatureError):
            verified.next_root(trusted, file)
        with pytest.raises(tuf_errors.UnsignedMetadataError):
            theirs(first, file, tmp_path / f"four-{number}")
    for number, file in enumerate(fives):
        assert verified.next_root(trusted, file).version == 2
        assert theirs(first, file, tmp_path / f"five-{number}") == 2
