"""The row of the benchmark that needs a server: it runs, whatever it measures."""

from __future__ import annotations

import pytest

from bench import upload
from tests.simulators.seaweed import find_weed

pytestmark = pytest.mark.services


def test_both_uploads_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    find_weed()
    ((ours, peer),) = upload.measure(1, 1)
    assert min(*ours, *peer) > 0
    upload.show(1, [(ours, peer)])
    assert "upload of 1 MiB to S3" in capsys.readouterr().out
