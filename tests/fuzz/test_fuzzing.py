"""Every target under atheris for half a minute, with a fixed seed. `make fuzz` takes longer."""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING

import pytest

from scripts.fuzz import Bounds, MissingError, Outcome, fuzz_all, require_atheris
from tests.field import required
from tests.fuzz import TARGETS, corpus

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 30
# With a fixed seed so many executions repeat themselves: a quick machine finds nothing on CI that a
# slow one did not. What is new is for `make fuzz` to find.
EXECUTIONS = 3000
AT_ONCE = 2


def skip_without_atheris() -> None:
    """On CI it is there, where there are wheels; a test that needs it fails otherwise."""
    try:
        require_atheris()
    except MissingError as error:
        here = (sys.platform, platform.machine())
        if here == ("linux", "x86_64") and sys.version_info < (3, 15):
            pytest.skip(required(str(error)))
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    skip_without_atheris()
    artifacts: Path = tmp_path_factory.mktemp("findings")
    runs = fuzz_all(list(TARGETS), Bounds(SECONDS, executions=EXECUTIONS), artifacts, jobs=AT_ONCE)
    return {outcome.target: outcome for outcome in runs}


@pytest.mark.services
@pytest.mark.parametrize("name", TARGETS)
def test_half_a_minute_finds_nothing(outcomes: dict[str, Outcome], name: str) -> None:
    outcome = outcomes[name]
    print(outcome)
    assert not outcome.told, outcome.told
    assert not outcome.findings
    # It did fuzz: more than the seeds, and it saw the parser's branches.
    assert outcome.executions > len(corpus(name))
    assert outcome.edges >= 5
