"""What a run measured, as CloudWatch is told."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from repo_tools.cloud.measures import NAMES, measures
from repo_tools.reporting.metrics import Run, render

NOW = datetime(2031, 5, 14, tzinfo=UTC)
RUN = Run(
    NOW,
    3,
    7,
    {
        "timestamp": NOW + timedelta(days=2),
        "snapshot": NOW + timedelta(days=20),
        "root": NOW + timedelta(days=300),
        "gateway-stable": NOW - timedelta(seconds=5),
    },
    NOW - timedelta(hours=1),
    3,
)


def test_a_whole_run() -> None:
    assert measures(render(RUN), 3) == {
        "Heartbeat": 1,
        "Success": 0,
        "ExitCode": 3,
        "LiveReadable": 1,
        "TimestampExpiresIn": 172_800,
        "SnapshotExpiresIn": 20 * 86_400,
        "PeopleExpireIn": -5,
        "TimestampAge": 3600,
        "OpenCeremonies": 3,
    }


def test_a_run_that_saw_nothing_has_a_heartbeat_all_the_same() -> None:
    assert measures("", 2) == {"Heartbeat": 1, "Success": 0, "ExitCode": 2}
    blind = Run(NOW, 4, 7, None, None, None)
    assert measures(render(blind), 4) == {
        "Heartbeat": 1,
        "Success": 0,
        "ExitCode": 4,
        "LiveReadable": 0,
    }


def test_the_exit_code_of_the_whole_run_counts() -> None:
    good = render(Run(NOW, 0, 7, {}, None, 0))
    assert measures(good, 0)["Success"] == 1
    # The command ended well, and what it saw could not be kept.
    assert measures(good, 4)["Success"] == 0


INFRA = Path(__file__).parent.parent.parent / "infra/aws"


def test_what_watches_names_measurements_that_exist() -> None:
    alarms = set(re.findall(r"MetricName: (\w+)", (INFRA / "refresher.yaml").read_text()))
    assert alarms
    assert alarms <= set(NAMES)
    _, _, watched = (INFRA / "README.md").read_text().partition("## What is watched")
    told = set(re.findall(r"^\| `([A-Z]\w+)`", watched, re.MULTILINE))
    assert told == set(NAMES) == set(measures(render(RUN), 0))
