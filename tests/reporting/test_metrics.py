"""The file for Prometheus, and the rules that are made for it."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from repo_tools.reporting.metrics import NAMES, Run, render, succeeded_before

TOP = Path(__file__).parent.parent.parent
NOW = datetime(2031, 5, 14, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
RUN = Run(
    NOW,
    0,
    7,
    {"timestamp": NOW + timedelta(days=2), "root": NOW - timedelta(seconds=1)},
    NOW - timedelta(hours=1),
    3,
)


def _values(text: str) -> dict[str, int]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: int(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_everything_that_a_monitor_needs_is_there() -> None:
    assert _values(render(RUN)) == {
        "firmroot_refresh_heartbeat_timestamp_seconds": SECONDS,
        "firmroot_refresh_success_timestamp_seconds": SECONDS,
        "firmroot_refresh_exit_code": 0,
        "firmroot_live_readable": 1,
        'firmroot_expiry_timestamp_seconds{role="root"}': SECONDS - 1,
        'firmroot_expiry_timestamp_seconds{role="timestamp"}': SECONDS + 172_800,
        'firmroot_expiry_seconds{role="root"}': -1,
        'firmroot_expiry_seconds{role="timestamp"}': 172_800,
        "firmroot_timestamp_issued_timestamp_seconds": SECONDS - 3600,
        "firmroot_timestamp_age_seconds": 3600,
        "firmroot_open_ceremonies": 3,
    }


def test_what_was_not_seen_is_left_out_and_a_failure_keeps_the_last_success() -> None:
    text = render(replace(RUN, exit_code=4, expires=None, issued=None, ceremonies=None))
    assert _values(text) == {
        "firmroot_refresh_heartbeat_timestamp_seconds": SECONDS,
        "firmroot_refresh_success_timestamp_seconds": 7,
        "firmroot_refresh_exit_code": 4,
        "firmroot_live_readable": 0,
    }
    assert succeeded_before(text) == 7


def test_each_metric_is_introduced_once_before_its_values() -> None:
    seen: list[str] = []
    for line in render(RUN).splitlines():
        if line.startswith("# HELP "):
            seen.append(line.split()[2])
        elif not line.startswith("#"):
            assert re.split(r"[ {]", line)[0] == seen[-1]
    assert seen == [name for name in NAMES if name in seen]
    assert set(seen) == set(NAMES)


@pytest.mark.parametrize("text", ["", "garbage", "firmroot_refresh_success_timestamp_seconds x\n"])
def test_a_file_that_says_nothing_means_never(text: str) -> None:
    assert succeeded_before(text) == 0


@pytest.mark.parametrize(
    "path", ["infra/prometheus/firmroot.rules.yml", "docs/runbooks/refresh-job.md"]
)
def test_rules_and_runbook_name_metrics_that_exist(path: str) -> None:
    named = set(re.findall(r"\bfirmroot_[a-z_]+", (TOP / path).read_text()))
    assert named
    assert named <= set(NAMES)


def test_the_rules_know_expiry_and_silence() -> None:
    text = (TOP / "infra/prometheus/firmroot.rules.yml").read_text()
    expressions = re.findall(r"expr: (.*)", text)
    assert len(expressions) == len(re.findall(r"- alert: ", text))
    for needed in (
        'firmroot_expiry_timestamp_seconds{role="timestamp"} - time()',
        'firmroot_expiry_timestamp_seconds{role!~"timestamp|snapshot"} - time()',
        "time() - firmroot_refresh_heartbeat_timestamp_seconds",
        "absent(firmroot_refresh_heartbeat_timestamp_seconds)",
    ):
        assert any(needed in expression for expression in expressions), needed
