"""A pytest plugin for `mutants.py`: the functions that each test calls, and its time.

It notes calls in the test's own process only. That is enough to try likely tests first; a mutant is
never called a survivor before all tests of its module have run.
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
    from collections.abc import Iterator
    from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = tuple(
    f"{ROOT}{os.sep}{name}{os.sep}" for name in ("client_reference", "keys_policy", "repo_tools")
)

_calls: dict[str, dict[str, dict[str, float]]] = {}
_seconds: dict[str, float] = {}
_current: set[tuple[str, str]] = set()


def _note(frame: FrameType, event: str, _argument: object) -> None:
    if event == "call" and frame.f_code.co_filename.startswith(PACKAGES):
        _current.add((frame.f_code.co_filename, frame.f_code.co_qualname))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Watch one test, its fixtures included."""
    _current.clear()
    start = time.process_time()
    sys.setprofile(_note)
    try:
        return (yield)
    finally:
        sys.setprofile(None)
        _seconds[item.nodeid] = time.process_time() - start
        for name, function in _current:
            file = str(Path(name).relative_to(ROOT))
            _calls.setdefault(file, {}).setdefault(function, {})[item.nodeid] = len(_current)


def pytest_sessionfinish() -> None:
    """Write the table: the most narrow tests of a function first."""
    table = {
        file: {name: sorted(tests, key=tests.__getitem__) for name, tests in functions.items()}
        for file, functions in _calls.items()
    }
    Path(os.environ["MUTANTS_TRACE"]).write_text(json.dumps({"calls": table, "seconds": _seconds}))
