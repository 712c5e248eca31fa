"""What a signer must stop at: each check has a case that trips it and one that does not."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tuf.api.metadata import Root, Targets

from repo_tools.metadata.edits import LAB_FIELD
from repo_tools.signing.review import review
from repo_tools.signing.unusual import CHECKS, Known, Look, Person, offered, unusual
from tests.signing.team import NOW
from tests.test_manifest import FULL

if TYPE_CHECKING:
    from collections.abc import Callable

    Edit = Callable[[dict[str, Any]], None]

A, B, C, D = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)
PEOPLE = {
    A: Person("alice-1", "alice"),
    B: Person("bob", "bob"),
    C: Person("carol", "carol"),
    D: Person("alice-2", "alice"),
}


def key(letter: str) -> dict[str, Any]:
    return {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": letter}}


def root(version: int = 3, edit: Edit | None = None) -> Root:
    rule = {"keyids": [A, B, C], "threshold": 2}
    document = {
        "_type": "root",
        "spec_version": "1.0.31",
        "version": version,
        "expires": "2027-01-01T00:00:00Z",
        "consistent_snapshot": True,
        "keys": {each: key(each) for each in (A, B, C, D)},
        "roles": {
            name: copy.deepcopy(rule) for name in ("root", "targets", "snapshot", "timestamp")
        },
    }
    if edit is not None:
        edit(document)
    return Root.from_dict(document)


def expires(day: str) -> Edit:
    return lambda document: document.update(expires=f"{day}T00:00:00Z")


def threshold(value: int) -> Edit:
    return lambda document: document["roles"]["root"].update(threshold=value)


def keyids(*found: str) -> Edit:
    return lambda document: document["roles"]["root"].update(keyids=list(found))


def lab(document: dict[str, Any]) -> None:
    document[LAB_FIELD] = True


def targets(version: int, threshold: int) -> Targets:
    rule = {"name": "gateway-stable", "keyids": [A, B], "threshold": threshold, "terminating": True}
    delegations = {
        "keys": {each: key(each) for each in (A, B)},
        "roles": [{**rule, "paths": ["x"]}],
    }
    return _targets(version, delegations)


def bins(version: int) -> Targets:
    succinct = {"keyids": [A], "threshold": 1, "bit_length": 4, "name_prefix": "bin"}
    return _targets(version, {"keys": {A: key(A)}, "succinct_roles": succinct})


def _targets(version: int, delegations: dict[str, Any]) -> Targets:
    return Targets.from_dict(
        {
            "_type": "targets",
            "spec_version": "1.0.31",
            "version": version,
            "expires": "2027-01-01T00:00:00Z",
            "targets": {},
            "delegations": delegations,
        }
    )


def known(signed: Root | Targets, **fields: Any) -> Known:  # noqa: ANN401  fields of a value
    return Known(signed, PEOPLE, "2026-01-01", **fields)


BEFORE = root()
USUAL = Look(root(4), BEFORE, proven=True, known=known(BEFORE), at_known=root(), people=PEOPLE)
# Look, the check that it trips and what is said; None for a look that trips nothing.
CASES: list[tuple[str, Look, str | None, str]] = [
    ("nothing", USUAL, None, ""),
    ("the first time", replace(USUAL, known=None, at_known=None), None, ""),
    ("a threshold falls", replace(USUAL, signed=root(4, threshold(1))), "threshold-falls",
     "the threshold of root goes down, from 2 to 1"),
    ("a threshold of a delegation falls",
     Look(targets(2, 1), targets(1, 2), proven=True), "threshold-falls",
     "the threshold of gateway-stable goes down, from 2 to 1"),
    ("bins stay bins", Look(bins(2), bins(1), proven=True), None, ""),
    ("alice is known from before alone",
     replace(USUAL, signed=root(4, keyids(D, B, C)), people={}), "same-person", "of alice"),
    ("alice is known from the sender alone",
     replace(USUAL, signed=root(4, keyids(D, B, C)), known=None, at_known=None), "same-person",
     "of alice"),
    ("a threshold rises", replace(USUAL, signed=root(4, threshold(3))), None, ""),
    ("it fell from what I signed, if not from the predecessor",
     replace(USUAL, known=known(root(3, threshold(3))), at_known=root(3, threshold(3))),
     "threshold-falls", "from 3 to 2"),
    ("alice goes and alice comes", replace(USUAL, signed=root(4, keyids(D, B, C))), "same-person",
     r"root: a key of alice goes \(aaaaaaaa\) and another of alice comes \(dddddddd\)"),
    ("bob goes and alice comes", replace(USUAL, signed=root(4, keyids(A, D, C))), None, ""),
    ("alice comes", replace(USUAL, signed=root(4, keyids(A, B, C, D))), None, ""),
    ("strangers go and come",
     replace(USUAL, signed=root(4, keyids(D, B, C)), people={}, known=None, at_known=None),
     None, ""),
    ("expiry goes back", replace(USUAL, signed=root(4, expires("2026-12-31"))), "expiry-falls",
     r"ends on 2026-12-31, before what you signed last \(2027-01-01\)"),
    ("expiry goes back from the predecessor alone",
     replace(USUAL, known=None, signed=root(4, expires("2026-12-31"))), "expiry-falls",
     "before its predecessor"),
    ("expiry stays", replace(USUAL, signed=root(4, expires("2027-01-01"))), None, ""),
    ("versions without proof",
     replace(USUAL, signed=root(9), before=root(8), at_known=None, proven=False), "version-jump",
     "you signed version 3 and this is 9"),
    ("versions with proof", replace(USUAL, signed=root(9), before=root(8)), None, ""),
    ("the next one needs no proof", replace(USUAL, proven=False), None, ""),
    ("another predecessor", replace(USUAL, at_known=root(3, keyids(A, B))), "other-predecessor",
     "version 3, which it builds on, is not the one that you signed"),
    ("it goes back", replace(USUAL, signed=root(2), before=root(1), at_known=None),
     "other-predecessor", "you signed version 3 already, and this goes back"),
    ("a second content",
     replace(USUAL, signed=root(3, keyids(A, B)), before=root(2), at_known=None),
     "second-content", "you signed another content as version 3"),
    ("the same content again", replace(USUAL, signed=root(3), before=root(2), at_known=None),
     None, ""),
    ("a key has another name", replace(USUAL, people={**PEOPLE, B: Person("bert", "bob")}),
     "renamed-key", "key bbbbbbbb is now said to be bert of bob; it was bob of bob"),
    ("a key has another holder", replace(USUAL, people={**PEOPLE, B: Person("bob", "mallory")}),
     "renamed-key", "bob of mallory; it was bob of bob"),
    ("a contact changes", replace(USUAL, people={**PEOPLE, B: Person("bob", "bob", "+49")}),
     None, ""),
    ("it becomes a lab", replace(USUAL, signed=root(4, lab)), "lab-appears", "says LAB"),
    ("it stays a lab",
     replace(USUAL, signed=root(4, lab), known=known(root(3, lab)), at_known=root(3, lab)),
     None, ""),
    ("the first is a lab",
     Look(root(1, lab), people=PEOPLE), None, ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("look", "check", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_a_signer_is_stopped_at_what_is_unusual_alone(
    look: Look, check: str | None, said: str
) -> None:
    found = unusual(look)
    assert [each.id for each in found] == ([] if check is None else [check])
    assert all(re.search(said, each.detail) for each in found)


def test_every_check_has_a_case() -> None:
    assert {case[2] for case in CASES} | {"untested"} == {*CHECKS, None}


# What is promoted, and what was tested.

DATA = json.dumps(FULL).encode()
FILES = offered({"channels/gateway/stable.json": DATA})
LOOK = Look(Targets(2, expires=NOW), carries={"channels/gateway/stable.json": DATA})


def test_only_manifests_that_devices_read_offer_artifacts() -> None:
    assert FILES
    assert all(path.startswith("builds/") for path in FILES.values())
    assert offered({"holds/gateway/stable.json": DATA, "channels/x": b"{}"}) == {}


def test_an_artifact_that_is_not_the_tested_one_is_unusual() -> None:
    found = unusual(replace(LOOK, tested=frozenset({"0" * 64})))
    assert {each.id for each in found} == {"untested"}
    assert len(found) == len(FILES)
    assert unusual(replace(LOOK, tested=frozenset(FILES))) == ()


def test_where_nothing_is_recorded_it_is_only_said() -> None:
    told = review("gateway-stable", LOOK, lambda keyid: keyid[:8])
    assert told.stops == ()
    assert sum("not recorded as tested here: builds/" in note for note in told.notes) == len(FILES)


def test_what_was_offered_before_need_not_be_tested_again() -> None:
    last = Known(Targets(1, expires=NOW), files=frozenset(FILES))
    assert unusual(replace(LOOK, known=last, tested=frozenset({"0" * 64}))) == ()


def test_a_signer_is_told_what_it_is_compared_with_and_what_went_by_without_them() -> None:
    told = review("root", replace(USUAL, signed=root(7), before=root(6)), str)
    assert told.changes[0].startswith("root version 7 (replaces version 3)")
    assert told.notes[:2] == (
        "compared with version 3, which you signed here on 2026-01-01",
        "3 version(s) between were signed without you",
    )
    assert len(review("root", USUAL, str).notes) == 1
    first = replace(USUAL, known=None, at_known=None)
    assert "you have signed nothing of this here before" in review("root", first, str).notes[0]
    again = review("root", replace(first, again=True), str).notes
    assert again == ("exactly this was signed here already",)
    assert len(review("root", replace(USUAL, signed=root(3)), str).notes) == 1
