"""Changes that keep a JSON document one: what bytes changed at random seldom do.

Used beside the fuzzer's own mutations of bytes. Deterministic: the same seed, the same change.
"""

from __future__ import annotations

import copy
import json
import random
import re
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, TypeAlias

from tests.fuzz import SEPARATOR, Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

Place: TypeAlias = "tuple[dict[str, Any], str] | tuple[list[Any], int]"

WORD = re.compile(r"[!-~]{1,24}")
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    2,
    -1,
    999,
    2**31,
    2**53 - 1,
    2**53,
    2**64,
    10**30,
    0.5,
    float("nan"),
    "",
    "a",
    "0",
    "../x",
    "a/../b",
    "\x1b[2J",
    "\u202e",
    "\ud800",
    "é",
    "²",
    "x" * 300,
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "2031-02-29T12:00:00Z",
    "2031-05-14T12:00:60Z",
    "0" * 64,
    "sha256",
    "ed25519",
    "rsa",
    [],
    {},
    [[]],
    {"a": 1},
)


@dataclass(frozen=True)
class Mutator:
    """How the inputs of one target are changed.

    Attributes:
        shape: of the inputs.
        plain: changes bytes without knowing what they are, at most so many.
        words: values beside `VALUES`, such as those that the parser compares with.
        seeds: where a change begins now and then. Most of what the fuzzer keeps is malformed in a
            new way, and leads no further.
    """

    shape: Shape
    plain: Callable[[bytes, int], bytes]
    words: Sequence[Any] = ()
    seeds: Sequence[bytes] = ()

    def mutate(self, data: bytes, most: int, seed: int) -> bytes:
        """One more input, at most `most` bytes."""
        choose = random.Random(seed)
        if self.shape is Shape.BYTES or choose.random() < 0.3:
            return self.plain(data, most)
        if self.seeds and choose.random() < 0.3:
            data = choose.choice(self.seeds)
        parts = data.split(SEPARATOR) if self.shape is Shape.CHOSEN else [data]
        index = choose.randrange(len(parts))
        skipped = 1 if self.shape is Shape.CHOSEN else 0
        head, text = parts[index][:skipped], parts[index][skipped:]
        if skipped and choose.random() < 0.1:
            head = bytes([choose.randrange(256)])
        elif skipped and choose.random() < 0.1:
            parts.insert(index, parts[choose.randrange(len(parts))])
        else:
            try:
                document = json.loads(text)
            except (ValueError, RecursionError):
                return self.plain(data, most)
            for _ in range(choose.choice((1, 1, 1, 2, 3))):
                document = self._changed(document, choose)
            told = json.dumps(document, ensure_ascii=choose.random() < 0.5)
            text = told.encode(errors="surrogatepass")
        parts[index] = head + text
        made = SEPARATOR.join(parts)
        return made if len(made) <= most else self.plain(data, most)

    def _changed(self, document: Any, choose: random.Random) -> Any:  # noqa: ANN401 # any JSON value
        places = _places(document)
        if not places:
            return self._value(None, choose)
        holder, key = _high(document, choose) if choose.random() < 0.5 else choose.choice(places)
        if isinstance(holder, dict):
            self._change_member(holder, str(key), choose)
        else:
            self._change_item(holder, int(key), choose)
        if choose.random() < 0.1:
            other, name = choose.choice(places)
            value = copy.deepcopy(choose.choice((document, *VALUES)))
            if isinstance(other, dict):
                other[str(name)] = value
            elif int(name) < len(other):
                other[int(name)] = value
        return document

    def _change_member(self, holder: dict[str, Any], name: str, choose: random.Random) -> None:
        match choose.randrange(7):
            case 0:
                del holder[name]
            case 1:
                holder[self._text(name)] = holder.pop(name)
            case 2:
                holder[self._text(name)] = copy.deepcopy(holder[name])
            case _:
                holder[name] = self._value(holder[name], choose)

    def _change_item(self, holder: list[Any], index: int, choose: random.Random) -> None:
        match choose.randrange(6):
            case 0:
                del holder[index]
            case 1:
                holder.insert(index, copy.deepcopy(holder[index]))
            case 2:
                choose.shuffle(holder)
            case _:
                holder[index] = self._value(holder[index], choose)

    def _value(self, value: Any, choose: random.Random) -> Any:  # noqa: ANN401 # any JSON value
        """Another value; of the same type twice out of three times, as that gets further."""
        known = list(choose.choice((VALUES, self.words or VALUES)))
        if choose.random() < 0.67:
            known = [each for each in known if type(each) is type(value)] or known
            if isinstance(value, str) and choose.random() < 0.3:
                return self._text(value)
            if type(value) is int and choose.random() < 0.5:
                near = (value + 1, value - 1, value * 2, value // 2, -value)
                return choose.choice((*near, value * 10 ** choose.randrange(9)))
        return copy.deepcopy(choose.choice(known))

    def _text(self, value: str) -> str:
        old = value.encode(errors="surrogatepass")
        return self.plain(old or b"a", len(old) + 8).decode("utf-8", errors="replace")


def constants(*modules: ModuleType) -> list[Any]:
    """Texts and numbers in the code of modules: what a parser compares its input with."""
    found: dict[tuple[type, Any], Any] = {}
    left: list[Any] = []
    for module in modules:
        left.extend(one.__code__ for one in vars(module).values() if isinstance(one, FunctionType))
        for kind in (one for one in vars(module).values() if isinstance(one, type)):
            left.extend(
                each.__code__ for each in vars(kind).values() if isinstance(each, FunctionType)
            )
    while left:
        value = left.pop()
        if isinstance(value, CodeType):
            left.extend(value.co_consts)
        elif isinstance(value, tuple | frozenset):
            left.extend(value)
        elif type(value) is int or (isinstance(value, str) and WORD.fullmatch(value)):
            found[type(value), value] = value
    return sorted(found.values(), key=repr)


def _high(document: Any, choose: random.Random) -> Place:  # noqa: ANN401 # any JSON value
    """A place found from the top: few fields are there, and most of the rules."""
    holder = document
    while True:
        key = choose.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        below = holder[key]
        if not isinstance(below, dict | list) or not below or choose.random() < 0.3:
            return holder, key
        holder = below


def _places(document: Any) -> list[Place]:  # noqa: ANN401 # likewise
    found: list[Place] = []
    left = [document]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            found.extend((value, name) for name in value)
            left.extend(value.values())
        elif isinstance(value, list):
            found.extend((value, index) for index in range(len(value)))
            left.extend(value)
    return found
