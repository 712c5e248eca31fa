"""A pytest plugin for `mutants.py`: which lines of one module each test runs, and its time.

It notes what runs in the test's own process and thread only. That is enough to try likely tests
first; a mutant is never called a survivor before all tests of its module have run.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from types import FrameType

    from _typeshed import TraceFunction

FILE = os.environ["MUTANTS_FILE"]

_lines: dict[str, list[int]] = {}
_shared: dict[str, set[int]] = {}
_seconds: dict[str, float] = {}
_current: set[int] = set()


def _note(frame: FrameType, _event: str, _argument: object) -> TraceFunction | None:
    return _note_line if frame.f_code.co_filename == FILE else None


def _note_line(frame: FrameType, _event: str, _argument: object) -> TraceFunction:
    _current.add(frame.f_lineno)
    return _note_line


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object],
) -> Generator[None, object, object]:
    """Remember what a fixture runs that several tests share: each of them depends on it."""
    before = set(_current)
    _current.clear()
    try:
        return (yield)
    finally:
        if fixturedef.scope != "function":
            _shared.setdefault(fixturedef.argname, set()).update(_current)
        _current.update(before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Watch one test, its fixtures included."""
    _current.clear()
    start = time.process_time()
    sys.settrace(_note)
    try:
        return (yield)
    finally:
        sys.settrace(None)
        _seconds[item.nodeid] = time.process_time() - start
        used = (_shared.get(name, set()) for name in getattr(item, "fixturenames", ()))
        _lines[item.nodeid] = sorted(_current.union(*used))


def pytest_sessionfinish() -> None:
    """Write the table."""
    table = {"lines": _lines, "seconds": _seconds}
    Path(os.environ["MUTANTS_TRACE"]).write_text(json.dumps(table))
