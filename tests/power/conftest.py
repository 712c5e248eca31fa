"""What every power test needs."""

from __future__ import annotations

import pytest

from tests.power.recorder import require_strace


@pytest.fixture(autouse=True)
def _strace() -> None:
    require_strace()
