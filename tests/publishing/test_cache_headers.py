"""What headers say about caches: pure."""

from __future__ import annotations

import pytest

from repo_tools.publishing import cache_headers

LIFETIMES: dict[str, tuple[dict[str, str], tuple[int, int] | None]] = {
    "nothing": ({}, None),
    "max-age": ({"cache-control": "public, max-age=60"}, (60, 60)),
    "what is quoted": ({"cache-control": 'Max-Age="60"'}, (60, 60)),
    "what shared caches do": ({"cache-control": "max-age=1, s-maxage=9"}, (1, 9)),
    "what only shared caches do": ({"cache-control": "s-maxage=9"}, (9, 9)),
    "private": ({"cache-control": "private, max-age=9"}, (9, 0)),
    "no-store before all": ({"cache-control": "no-store, max-age=9"}, (0, 0)),
    "no-cache before all": ({"cache-control": "max-age=9, no-cache"}, (0, 0)),
    "what is past its time": (
        {"cache-control": "max-age=9, s-maxage=5, stale-while-revalidate=2"},
        (11, 7),
    ),
    "nothing past its time": ({"cache-control": "max-age=0, stale-while-revalidate=9"}, (0, 0)),
    "a date for who is not told otherwise": (
        {
            "cache-control": "s-maxage=9",
            "expires": "Mon, 02 Mar 2026 06:01:00 GMT",
            "date": "Mon, 02 Mar 2026 06:00:00 GMT",
        },
        (60, 9),
    ),
    "a date, and a number that comes first": (
        {"cache-control": "max-age=5", "expires": "Mon, 02 Mar 2026 06:01:00 GMT"},
        (5, 5),
    ),
    "private alone": ({"cache-control": "private"}, None),
    "a number of ten digits": ({"cache-control": "max-age=9999999999"}, (9999999999, 9999999999)),
    "a number of eleven digits": ({"cache-control": "max-age=99999999999"}, None),
    "a number that is empty": ({"cache-control": "max-age="}, None),
    "nothing between commas": ({"cache-control": ", max-age=60,"}, (60, 60)),
    "a shared cache with nothing, past its time": (
        {"cache-control": "max-age=9, s-maxage=0, stale-while-revalidate=2"},
        (11, 0),
    ),
    "what is no number": ({"cache-control": "max-age=soon"}, None),
    "a number of many digits": ({"cache-control": f"max-age={'9' * 5000}"}, None),
    "a date": (
        {"expires": "Mon, 02 Mar 2026 06:01:00 GMT", "date": "Mon, 02 Mar 2026 06:00:00 GMT"},
        (60, 60),
    ),
    "a date that is past": (
        {"expires": "Mon, 02 Mar 2026 05:00:00 GMT", "date": "Mon, 02 Mar 2026 06:00:00 GMT"},
        (0, 0),
    ),
    "a date without a date": ({"expires": "Mon, 02 Mar 2026 06:01:00 GMT"}, (0, 0)),
    "what is no date": ({"expires": "0", "date": "Mon, 02 Mar 2026 06:00:00 GMT"}, (0, 0)),
}


@pytest.mark.parametrize("case", LIFETIMES)
def test_caches_are_told(case: str) -> None:
    headers, expected = LIFETIMES[case]
    assert cache_headers.lifetimes(headers) == expected


HITS = {
    "X-Cache: HIT, MISS": True,
    "X-Cache: MISS": False,
    "X-Cache: RefreshHit from cloudfront": False,
    "X-Cache: Hit from cloudfront": True,
    "CF-Cache-Status: HIT": True,
    "Cache-Status: Edge; hit; ttl=30": True,
    "Cache-Status: Edge; fwd=miss": False,
    "Age: 1": True,
    "Age: 0": False,
    "Age: hit": False,
}


@pytest.mark.parametrize("header", HITS)
def test_a_cache_shows_itself(header: str) -> None:
    name, _, value = header.partition(": ")
    assert cache_headers.hit({name.lower(): value}) is HITS[header]


def test_a_directive_has_a_name_and_the_first_counts() -> None:
    headers = {"cache-control": ' Public, , MAX-AGE="1", max-age=2, =3'}
    assert cache_headers.directives(headers) == {"public": "", "max-age": "1"}


def test_age_is_what_caches_tell() -> None:
    assert cache_headers.age({"age": "7"}) == 7
    assert cache_headers.age({}) == 0
    assert cache_headers.age({"age": "-1"}) == 0


@pytest.mark.parametrize(
    ("header", "late"),
    [("STALE", True), ("UPDATING", True), ("HIT", False), ("stalemate", False)],
)
def test_a_cache_tells_that_it_served_what_was_past_its_time(header: str, late: bool) -> None:  # noqa: FBT001  a table
    assert cache_headers.stale({"x-cache-status": header}) is late


def test_what_caches_say_is_shown_and_nothing_else() -> None:
    said = {"x-cache": "HIT" * 30, "age": "7", "etag": "1", "via": "1.1 edge"}
    assert cache_headers.shown(said) == f"age: 7, x-cache: {'HIT' * 20}, via: 1.1 edge"
    assert cache_headers.shown({"etag": "1"}) == "no cache says anything"
