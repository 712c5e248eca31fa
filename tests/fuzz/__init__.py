"""Fuzzing: every parser of remote bytes, fed with bytes that nobody thought of.

One module for each target, with `run(data)`: it gives the bytes to the parser, lets only the typed
errors through that the parser's documentation names, and asserts what must be true of everything
that the parser accepts. A target touches no network and leaves no file.

`corpus/TARGET/` holds what fuzzing starts from: honest files of the simulators and crafted hostile
ones, written by `python -m tests.fuzz.seeds`, and inputs that once found something.

`TARGET.dict` has words of its format, where bytes are no JSON.

A new target is a module here, a line in `TARGETS`, and a function in `seeds.py`.
`scripts/fuzz.py` runs targets under atheris; `python -m tests.fuzz TARGET` is one such run.
"""

from __future__ import annotations

import enum
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
SEPARATOR = b"\n\x00\n"
"""Between the parts of an input that has several; a NUL byte is in no JSON text."""


class Shape(enum.Enum):
    """What the inputs of a target look like, so that mutations can keep to it."""

    BYTES = "bytes"
    JSON = "one JSON document"
    CHOSEN = "JSON documents, each after a byte of choices, SEPARATOR between them"


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        about: what is parsed, for people.
        shape: of its inputs.
        most: bytes of an input.
        traced: packages whose branches guide the fuzzer, besides `client_reference`.
    """

    about: str
    shape: Shape = Shape.BYTES
    most: int = 4096
    traced: tuple[str, ...] = ()


TUF = ("tuf", "securesystemslib")
TARGETS = {
    "metadata": Target("metadata of the four types, their signatures", Shape.CHOSEN, 16_384, TUF),
    "chain": Target("a chain of roots, link by link", Shape.CHOSEN, 16_384, TUF),
    "rootchain": Target("the root-chain bundle"),
    "recovery": Target("the recovery anchor, link by link", Shape.CHOSEN, 16_384, TUF),
    "manifest": Target("the release manifest", Shape.JSON, 16_384),
    "hold": Target("the hold file", Shape.JSON),
    "meaning": Target("the `custom` of a builds target", Shape.JSON, 4096, TUF),
    "floors": Target("the floors of a factory export", Shape.JSON),
    "segments": Target("the list of segment hashes"),
    "responses": Target("HTTP responses", Shape.BYTES, 8192, ("http",)),
    "inflated": Target("gzip, as a body may be sent"),
    "authorities": Target("the published CA bundle"),
    "memory": Target("what the transport remembers", Shape.JSON),
    "uptime": Target("the note of this boot", Shape.JSON),
}


def runner(name: str) -> Callable[[bytes], None]:
    """The function that takes one input of a target."""
    return cast("Callable[[bytes], None]", importlib.import_module(f"tests.fuzz.{name}").run)


def words(name: str) -> Path | None:
    """The dictionary of a target."""
    path = HERE / f"{name}.dict"
    return path if path.is_file() else None


def corpus(name: str) -> list[Path]:
    """What is committed for a target, in a stable order."""
    return sorted(path for path in (CORPUS / name).iterdir() if path.is_file())
