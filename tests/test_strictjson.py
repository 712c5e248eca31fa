from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from client_reference.strictjson import (
    MAX_DEPTH,
    MAX_INTEGER,
    MalformedJsonError,
    format_time,
    parse,
    parse_time,
    serialize,
)

REFUSED = {
    "a key twice": (b'{"a": {"b": 1, "c": 2, "b": 3}}', "$.a", 'the key "b" twice'),
    "a key twice by an escape": (b'{"a": 1, "\\u0061": 2}', "$", 'the key "a" twice'),
    "a float": (b'{"a": [0, 1.5]}', "$.a[1]", "the number 1.5"),
    "an exponent": (b"[1e3]", "$[0]", "the number 1e3"),
    "NaN": (b"[NaN]", "$[0]", "the number NaN"),
    "infinity": (b'{"a": -Infinity}', "$.a", "the number -Infinity"),
    "minus one": (b"[-1]", "$[0]", "the number -1"),
    "minus zero": (b"[-0]", "$[0]", "the number -0"),
    "2^53": (b"9007199254740992", "$", "the number 9007199254740992"),
    "a million digits": (b"1" * 1_000_000, "$", "the number 1111111111"),
    "a level too deep": (b"[" * 33 + b"]" * 33, "$" + "[0]" * 32, "level 33"),
    "an object too deep": (b'{"a":' * 33 + b"1" + b"}" * 33, "$" + ".a" * 32, "level 33"),
    "endless nesting": (b"[" * 200_000, "$", "endless nesting"),
    "half a surrogate pair": (b'{"a": "\\ud800"}', "$.a", "half a surrogate pair"),
    "half a pair in a key": (b'{"\\udc00": 1}', "$", "half a surrogate pair"),
    "a byte that is no UTF-8": (b'"\xff"', "$", "a bad byte at 1"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "$", "a bad byte at 0"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "$", "an error at character 0"),
    "two documents": (b"{} {}", "$", "an error at character 3"),
    "a comment": (b"{} // x", "$", "an error at character 3"),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_could_be_read_in_two_ways_is_refused(sentence: str) -> None:
    data, path, found = REFUSED[sentence]
    with pytest.raises(MalformedJsonError) as caught:
        parse(data, 2_000_000)
    assert caught.value.path == path
    assert caught.value.found.startswith(found)


def test_the_largest_integer_and_the_deepest_nesting_are_read() -> None:
    assert parse(str(MAX_INTEGER).encode(), 100).integer() == MAX_INTEGER
    parse(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, 100)


def test_the_longest_text_is_read() -> None:
    assert len(parse(b'"' + b"x" * 1024 + b'"', 2000).text()) == 1024
    with pytest.raises(MalformedJsonError, match="at most 1024 characters"):
        parse(b'"' + b"x" * 1025 + b'"', 2000).text()


FOUND = {
    "an object": (b'{"a": 1, "b": 2}', "an object with 2 members"),
    "an array": (b"[1, 2, 3]", "an array of 3 items"),
    "what is short enough to show": (b'"' + b"x" * 58 + b'"', '"' + "x" * 58 + '"'),
    "what is too long to show": (b'"' + b"x" * 59 + b'"', '"' + "x" * 59 + "…"),
}


@pytest.mark.parametrize("sentence", FOUND)
def test_what_was_found_is_told_briefly(sentence: str) -> None:
    data, found = FOUND[sentence]
    with pytest.raises(MalformedJsonError) as caught:
        parse(data, 100).integer()
    assert caught.value.found == found


def test_many_keys_twice_do_not_take_for_ever() -> None:
    data = b"{" + b",".join(b'"%d": 1' % number for number in range(40_000)) + b',"0": 1}'
    with pytest.raises(MalformedJsonError, match='the key "0" twice'):
        parse(data, len(data))


@pytest.mark.parametrize(
    "text",
    [
        b'{"' + b"x" * 9000 + b'": 0.5}',
        b'{"' + b"x" * 9000 + b'": 1, "' + b"x" * 9000 + b'": 2}',
    ],
    ids=["in a path", "twice"],
)
def test_an_error_does_not_quote_a_whole_document(text: bytes) -> None:
    with pytest.raises(MalformedJsonError) as caught:
        parse(text, 100_000)
    assert "xxx…" in caught.value.message
    assert len(caught.value.message) < 400


def test_length_is_judged_before_anything_else() -> None:
    with pytest.raises(MalformedJsonError, match="found 3 bytes, expected at most 2"):
        parse(b"\xff\xff\xff", 2)


def test_one_form_is_written() -> None:
    assert serialize({"b": [1, "ä"], "a": None}) == (
        b'{\n  "a": null,\n  "b": [\n    1,\n    "\\u00e4"\n  ]\n}\n'
    )


TIMES = {
    "with a fraction": "2026-03-02T06:00:00.5Z",
    "with an offset": "2026-03-02T06:00:00+00:00",
    "with a space": "2026-03-02 06:00:00Z",
    "a month 13": "2026-13-02T06:00:00Z",
    "other digits": "２026-03-02T06:00:00Z",  # noqa: RUF001 # the point of the case
    "with a newline": "2026-03-02T06:00:00Z\n",
}


@pytest.mark.parametrize("sentence", TIMES)
def test_another_form_of_time_is_not_read(sentence: str) -> None:
    assert parse_time(TIMES[sentence]) is None


def test_time_is_written_in_utc_and_read_back() -> None:
    time = datetime(2026, 3, 2, 8, 0, 0, 999, tzinfo=timezone(timedelta(hours=2)))
    assert format_time(time) == "2026-03-02T06:00:00Z"
    assert parse_time("2026-03-02T06:00:00Z") == datetime(2026, 3, 2, 6, tzinfo=UTC)
