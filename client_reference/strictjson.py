"""Pure: JSON that can be read in one way only, and typed access that names the place of an error.

Two readers of the same signed bytes must never understand different things. So there are no
duplicate keys, no floats, no NaN, no integers from 2^53 on (a reader with doubles rounds them), no
negative integers (no format here has one), no lone surrogates, no byte order mark, and at most
`MAX_DEPTH` levels. What is wrong is named by its path, with what was found and what was expected.

Not for TUF metadata, which `tuf.api` reads.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

from client_reference.errors import NotTrustedError, shortened
from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "MAX_DEPTH",
    "MAX_INTEGER",
    "Json",
    "MalformedJsonError",
    "Node",
    "format_time",
    "parse",
    "parse_time",
    "serialize",
]

MAX_DEPTH = 32
MAX_INTEGER = 2**53 - 1
_SHOWN = 60
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")

Json: TypeAlias = "str | int | bool | Mapping[str, Json] | Sequence[Json] | None"


class MalformedJsonError(NotTrustedError):
    """The bytes are not the document that was expected."""

    def __init__(self, path: str, found: str, expected: str) -> None:
        super().__init__(
            f"{path}: found {found}, expected {expected}",
            "the document is malformed or made by a newer release; nothing of it was used",
        )
        self.path = path
        self.found = found
        self.expected = expected


@frozen
class _Unreadable:
    """Stands for a value that strict JSON does not have, until its path is known."""

    found: str
    expected: str


def _members(pairs: list[tuple[str, object]]) -> object:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
    return _Unreadable(f"the key {shortened(json.dumps(twice))} twice", "each key once")


def _integer(text: str) -> object:
    # The length is judged first: int() of a million digits is an attack of its own.
    if text.startswith("-") or len(text) > len(str(MAX_INTEGER)) or int(text) > MAX_INTEGER:
        return _refused_number(text)
    return int(text)


def _refused_number(text: str) -> object:
    return _Unreadable(f"the number {text[:_SHOWN]}", "an integer from 0 to 2^53-1")


def parse(data: bytes, max_length: int, name: str = "$") -> Node:
    """Read one document.

    Args:
        data: UTF-8, at most `max_length` bytes.
        max_length: bytes.
        name: what the document is called at the start of every path in an error.

    Raises:
        MalformedJsonError: it is not strict JSON.
    """
    if len(data) > max_length:
        raise MalformedJsonError(name, f"{len(data)} bytes", f"at most {max_length}")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_members,
            parse_int=_integer,
            parse_float=_refused_number,
            parse_constant=_refused_number,
        )
    except UnicodeDecodeError as error:
        raise MalformedJsonError(name, f"a bad byte at {error.start}", "UTF-8") from error
    except json.JSONDecodeError as error:
        found = f"an error at character {error.pos} ({error.msg})"
        raise MalformedJsonError(name, found, "a complete JSON document") from error
    except RecursionError as error:
        raise MalformedJsonError(name, "endless nesting", f"at most {MAX_DEPTH} levels") from error
    _refuse_unreadable(value, name, 1)
    return Node(value, name)


def _refuse_unreadable(value: object, path: str, depth: int) -> None:
    if isinstance(value, _Unreadable):
        raise MalformedJsonError(path, value.found, value.expected)
    if isinstance(value, str):
        _refuse_surrogates(value, path)
    if not isinstance(value, (dict, list)):
        return
    if depth > MAX_DEPTH:
        raise MalformedJsonError(path, f"level {depth}", f"at most {MAX_DEPTH} levels")
    if isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_unreadable(item, f"{path}[{index}]", depth + 1)
        return
    for name, member in value.items():
        _refuse_surrogates(name, path)
        _refuse_unreadable(member, f"{path}.{shortened(name)}", depth + 1)


def _refuse_surrogates(text: str, path: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise MalformedJsonError(path, "half a surrogate pair", "Unicode text") from error


def serialize(value: Json) -> bytes:
    """The one form in which documents are written: sorted keys, ASCII, two spaces, a newline."""
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=True) + "\n").encode("ascii")


def parse_time(text: str) -> datetime | None:
    """`YYYY-MM-DDTHH:MM:SSZ` as aware UTC, None if it is anything else."""
    if not _TIME.fullmatch(text):
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def format_time(time: datetime) -> str:
    """Aware time as `YYYY-MM-DDTHH:MM:SSZ`, seconds rounded down."""
    return f"{time.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat()}Z"


@frozen
class Node:
    """One value of a document and the path to it. Every method raises `MalformedJsonError`."""

    value: object
    path: str

    def wrong(self, expected: str) -> MalformedJsonError:
        """The error that says what is here instead of what was expected."""
        return MalformedJsonError(self.path, _describe(self.value), expected)

    def find(self, name: str) -> Node | None:
        """A member of this object, None if it is absent."""
        if not isinstance(self.value, dict):
            raise self.wrong("an object")
        if name not in self.value:
            return None
        return Node(self.value[name], f"{self.path}.{name}")

    def member(self, name: str) -> Node:
        """A member that must be there."""
        node = self.find(name)
        if node is None:
            raise MalformedJsonError(f"{self.path}.{name}", "nothing", "a value")
        return node

    def items(self) -> Iterator[Node]:
        """The items of this array."""
        if not isinstance(self.value, list):
            raise self.wrong("an array")
        for index, item in enumerate(self.value):
            yield Node(item, f"{self.path}[{index}]")

    def text(
        self, pattern: re.Pattern[str] | None = None, max_length: int = 1024, form: str = ""
    ) -> str:
        """Text without control or direction characters: it may be shown on a terminal.

        Args:
            pattern: that the whole of it matches.
            max_length: characters.
            form: what the pattern means, for people; else the pattern is shown.
        """
        if not isinstance(self.value, str):
            raise self.wrong("text")
        if len(self.value) > max_length:
            raise self.wrong(f"at most {max_length} characters")
        if _CONTROL.search(self.value):
            raise self.wrong("text without control characters")
        if pattern is not None and not pattern.fullmatch(self.value):
            raise self.wrong(form or f"text of the form {pattern.pattern}")
        return self.value

    def texts(self, pattern: re.Pattern[str]) -> tuple[str, ...]:
        """An array of texts, none twice."""
        found = tuple(item.text(pattern) for item in self.items())
        if len(set(found)) != len(found):
            raise self.wrong("no item twice")
        return found

    def integer(self, least: int = 0, most: int = MAX_INTEGER) -> int:
        """An integer within bounds, both included. `true` is not one."""
        if type(self.value) is not int or not least <= self.value <= most:
            raise self.wrong(f"an integer from {least} to {most}")
        return self.value

    def flag(self) -> bool:
        """True or false."""
        if not isinstance(self.value, bool):
            raise self.wrong("true or false")
        return self.value

    def time(self) -> datetime:
        """A time as aware UTC."""
        found = parse_time(self.value) if isinstance(self.value, str) else None
        if found is None:
            raise self.wrong("a time YYYY-MM-DDTHH:MM:SSZ")
        return found


def _describe(value: object) -> str:
    if isinstance(value, dict):
        return f"an object with {len(value)} members"
    if isinstance(value, list):
        return f"an array of {len(value)} items"
    shown = json.dumps(value, default=repr)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
