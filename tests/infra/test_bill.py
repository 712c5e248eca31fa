"""The bill of `infra/aws`: the page shows what the inputs give, and the sums are right."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from scripts.bill import FLEETS, INPUTS, bill, page, table, tiered

TOP = Path(__file__).parent.parent.parent
BEGIN, END = "<!-- bill: begin -->\n", "<!-- bill: end -->"
STEPS = [[10_240, 0.085], [51_200, 0.080], [153_600, 0.060]]


@pytest.fixture
def inputs() -> dict[str, Any]:
    return tomllib.loads(INPUTS.read_text())


def test_the_page_shows_what_the_inputs_give() -> None:
    text = (TOP / "infra/aws/README.md").read_text()
    shown = text.partition(BEGIN)[2].partition(END)[0]
    assert shown == page(), "python scripts/bill.py"
    line = [sys.executable, "scripts/bill.py"]
    done = subprocess.run(line, cwd=TOP, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == page()


# Amount: what it costs with 1,024 free.
TIERED = {
    0: 0.0,
    1_024: 0.0,
    1_025: 0.085,
    10_240: 9_216 * 0.085,
    10_241: 9_216 * 0.085 + 0.080,
    51_200: 9_216 * 0.085 + 40_960 * 0.080,
    200_000: 9_216 * 0.085 + 40_960 * 0.080 + 102_400 * 0.060 + 46_400 * 0.060,
}


@pytest.mark.parametrize("amount", TIERED)
def test_each_step_has_its_price(amount: int) -> None:
    assert tiered(amount, 1_024, STEPS) == pytest.approx(TIERED[amount])


def test_a_million_devices_by_hand(inputs: dict[str, Any]) -> None:
    lines = {line.what: line.dollars for line in bill(1_000_000, inputs)}
    # 120 checks of two requests, 12 for a release; 30 probes in the other account.
    assert lines["CDN, requests"] == pytest.approx((252e6 - 10e6 + 30e6 - 10e6) / 10_000 * 0.01)
    # 120 checks and 30 probes that are told "not there", and timestamp.json for 60 caches.
    assert lines["S3, reads by the CDN"] == pytest.approx(
        (1_000_000 * 150 + 60 * 43_200) / 1_000 * 0.0004
    )
    gib = 1_000_000 * (120 * 2_400 + 30 * 1_000 + 50 * 2**20 + 40_000) / 2**30
    assert 10_240 < gib < 51_200
    assert lines["CDN, transfer"] == pytest.approx(9_216 * 0.085 + (gib - 10_240) * 0.080)
    assert lines["KMS"] == pytest.approx(2 + 264 / 10_000 * 0.15)


@pytest.mark.parametrize("devices", FLEETS)
def test_the_sum_is_that_of_the_lines(inputs: dict[str, Any], devices: int) -> None:
    lines = bill(devices, inputs)
    total = sum(line.dollars for line in lines)
    last = table(devices, inputs).splitlines()[-1]
    assert last.endswith(f"**{total:,.2f}** |")
    assert last.startswith("| **all** |")


def test_every_input_counts(inputs: dict[str, Any]) -> None:
    """An input that changes nothing is one that somebody forgot."""
    before = [line.dollars for line in bill(1_000_000, inputs)]
    for part, values in inputs.items():
        for name, value in values.items():
            if name in {"as_of", "region"}:
                continue
            more = [[a, b * 2] for a, b in value] if isinstance(value, list) else value * 2
            changed = {**inputs, part: {**values, name: more}}
            assert [line.dollars for line in bill(1_000_000, changed)] != before, name
