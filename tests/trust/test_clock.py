"""The floor: what raises it, what takes it back, what is refused as evidence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from client_reference.trust import clock
from client_reference.trust.clock import Freshness
from client_reference.trust.verified import MalformedError, MismatchError

NOON = datetime(2031, 5, 14, 12, tzinfo=UTC)
SECONDS = int(NOON.timestamp())
HOUR = timedelta(hours=1)


def timestamp(issued: Any, expires: datetime = NOON + 9 * HOUR) -> Timestamp:  # noqa: ANN401 # also what is no time
    fields = {} if issued is None else {clock.ISSUED: issued}
    return Timestamp(expires=expires, unrecognized_fields=fields)


def root(issued: Any, expires: datetime = NOON + 9 * HOUR) -> Root:  # noqa: ANN401 # also what is no time
    fields = {} if issued is None else {clock.ISSUED: issued}
    return Root(expires=expires, unrecognized_fields=fields)


CLOCKS = [
    # name, floor, effective, freshness
    ("behind the floor", SECONDS + 10, NOON + timedelta(seconds=10), Freshness.UNPROVEN),
    ("at the floor", SECONDS, NOON, Freshness.PROVEN),
    ("ahead of the floor", SECONDS - 10, NOON, Freshness.PROVEN),
    ("without a floor", 0, NOON, Freshness.PROVEN),
]


@pytest.mark.parametrize(
    ("floor", "effective", "fresh"), [c[1:] for c in CLOCKS], ids=[c[0] for c in CLOCKS]
)
def test_the_later_of_clock_and_floor_counts(
    floor: int, effective: datetime, fresh: Freshness
) -> None:
    assert clock.effective_now(NOON, floor) == effective
    assert clock.freshness(NOON, floor) is fresh


ENDS = [
    # name, the timestamp ends, freshness
    ("in a second", NOON + timedelta(seconds=1), Freshness.PROVEN),
    ("now", NOON, Freshness.UNPROVEN),
    ("an hour ago", NOON - HOUR, Freshness.UNPROVEN),
    ("never, there is none", None, Freshness.PROVEN),
]


@pytest.mark.parametrize(("expires", "fresh"), [c[1:] for c in ENDS], ids=[c[0] for c in ENDS])
def test_a_timestamp_that_has_ended_proves_nothing(
    expires: datetime | None, fresh: Freshness
) -> None:
    assert clock.freshness(NOON, SECONDS, expires) is fresh
    assert clock.freshness(NOON, SECONDS + 1, expires) is Freshness.UNPROVEN


RISES = [
    # name, floor, issued, new floor
    ("later evidence", SECONDS, "2031-05-14T13:00:00Z", SECONDS + 3600),
    ("earlier evidence", SECONDS, "2031-05-14T11:00:00Z", SECONDS),
    ("no evidence", SECONDS, None, SECONDS),
    ("the first evidence", 0, "2031-05-14T12:00:00Z", SECONDS),
]


@pytest.mark.parametrize(
    ("floor", "issued", "new"), [c[1:] for c in RISES], ids=[c[0] for c in RISES]
)
def test_a_whole_refresh_raises_the_floor_and_never_lowers_it(
    floor: int, issued: str | None, new: int
) -> None:
    assert clock.raised(floor, timestamp(issued)) == new


RESETS = [
    # name, floor of the image, issued of the root, new floor
    ("the root says nothing", SECONDS, root(None), SECONDS),
    ("the root is later than the image", SECONDS, root("2031-05-14T13:00:00Z"), SECONDS + 3600),
    ("the root is earlier than the image", SECONDS, root("2031-05-14T11:00:00Z"), SECONDS),
    ("the root says no time", SECONDS, root("soon"), SECONDS),
    ("the root outlives itself", SECONDS, root("2031-05-14T21:00:00Z"), SECONDS),
    ("the root ends a second later", SECONDS, root("2031-05-14T20:59:59Z"), SECONDS + 32399),
]


@pytest.mark.parametrize(
    ("factory", "link", "new"), [c[1:] for c in RESETS], ids=[c[0] for c in RESETS]
)
def test_other_timestamp_keys_take_the_floor_back(factory: int, link: Root, new: int) -> None:
    assert clock.reset(factory, link) == new


EARLY = NOON + HOUR
EVIDENCE: list[tuple[str, Timestamp, tuple[Root | Snapshot | Targets, ...], str]] = [
    ("before every expiry", timestamp("2031-05-14T12:59:59Z"), (Root(expires=EARLY),), ""),
    ("absent", timestamp(None, expires=NOON), (Root(expires=NOON),), ""),
    ("at its own expiry", timestamp("2031-05-14T21:00:00Z"), (), "before timestamp expires"),
    ("after its own expiry", timestamp("2031-05-15T12:00:00Z"), (), "before timestamp expires"),
    ("at root's", timestamp("2031-05-14T13:00:00Z"), (Root(expires=EARLY),), "root expires"),
    (
        "at snapshot's",
        timestamp("2031-05-14T13:00:00Z"),
        (Root(expires=NOON + 9 * HOUR), Snapshot(expires=EARLY)),
        "snapshot expires",
    ),
    (
        "at targets'",
        timestamp("2031-05-14T13:00:00Z"),
        (Snapshot(expires=NOON + 9 * HOUR), Targets(expires=EARLY)),
        "targets expires",
    ),
]


@pytest.mark.parametrize(
    ("evidence", "others", "words"), [c[1:] for c in EVIDENCE], ids=[c[0] for c in EVIDENCE]
)
def test_evidence_that_would_make_its_own_company_look_expired_is_refused(
    evidence: Timestamp, others: tuple[Root | Snapshot | Targets, ...], words: str
) -> None:
    if not words:
        clock.check_issued(evidence, *others)
        return
    with pytest.raises(MismatchError, match=words):
        clock.check_issued(evidence, *others)


@pytest.mark.parametrize(
    "value",
    ["yesterday", "2031-05-14", 1_936_526_400, True, ["x"], "", "2" * 9000, "2031-5-14T13:0:0Z"],
)
def test_evidence_that_is_no_time_is_malformed(value: Any) -> None:  # noqa: ANN401 # any JSON value
    with pytest.raises(MalformedError, match=r"x-firmroot-issued of timestamp.{,300}$"):
        clock.check_issued(timestamp(value))


def test_null_is_no_time_either() -> None:
    with pytest.raises(MalformedError, match="is None"):
        clock.check_issued(Timestamp(expires=NOON, unrecognized_fields={clock.ISSUED: None}))
