"""Which way the refresh job names to people, by what has ended and what is about to."""

from __future__ import annotations

from datetime import timedelta

import pytest

from client_reference.errors import ActionRequiredError
from repo_tools.publishing.watch import Ending, check_people
from repo_tools.reporting.status import Due, Expiry
from tests.publishing.lab import NOW

SECOND = timedelta(seconds=1)


def _ending(role: str, left: timedelta, *keys: str) -> Ending:
    return Ending(Expiry(role, 7, NOW + left, NOW, Due.EXPIRED), len(keys), keys)


# What ends, and how long from now -> the way on.
WAYS = {
    "a root that is about to end": ({"root": SECOND}, "firmroot ceremony start root;"),
    "a root that ends at this moment": ({"root": 0 * SECOND}, "firmroot recover expired-root;"),
    "a channel that has ended": (
        {"gateway-stable": -SECOND},
        "firmroot ceremony start gateway-stable;",
    ),
    "a channel that has ended beside a root that has not": (
        {"root": SECOND, "gateway-stable": -SECOND},
        "firmroot ceremony start root gateway-stable;",
    ),
    "a root that has ended beside a channel that has not": (
        {"gateway-stable": SECOND, "root": -SECOND},
        "firmroot recover expired-root;",
    ),
}


@pytest.mark.parametrize("case", WAYS)
def test_only_a_root_that_has_ended_has_a_way_of_its_own(case: str) -> None:
    left, way = WAYS[case]
    found = [_ending(role, each, "rita") for role, each in left.items()]
    with pytest.raises(ActionRequiredError) as caught:
        check_people(found, now=NOW)
    assert caught.value.hint.startswith(way)


def test_who_signs_is_named_or_that_nobody_can() -> None:
    assert str(_ending("root", SECOND, "ada", "ben")).endswith("(to sign: 2 of ada, ben)")
    assert str(_ending("old-stable", SECOND)).endswith("(to sign: nobody has its keys)")


def test_where_nothing_ends_nobody_must_act() -> None:
    check_people((), now=NOW)
