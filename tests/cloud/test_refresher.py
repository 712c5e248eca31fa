"""The entry point: whose code may run, what is measured, and when Lambda is told of a failure.

The whole of it runs in `tests/infra/test_aws.py`; here is what must not happen there.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from client_reference.errors import RetryLaterError

# Loaded before: during a run only what is packaged is found.
from repo_tools.cli import main, publish  # noqa: F401
from repo_tools.cloud import job, refresher
from repo_tools.cloud.imported import Survey
from repo_tools.cloud.refresher import RefreshFailedError, handler
from repo_tools.signing import services  # noqa: F401

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GOOD = Survey(10, 20, ("awslambdaric",), ())
EVIL = Survey(10, 20, (), ("boto3 (/opt/python/boto3.py)",))


@dataclass
class Outside:
    """What the function reaches: a job that ends as it is told, and CloudWatch."""

    surveys: Iterator[Survey] = field(default_factory=lambda: iter([]))
    code: int = 0
    error: Exception | None = None
    runs: list[tuple[str, str]] = field(default_factory=list)
    measured: list[dict[str, Any]] = field(default_factory=list)

    def job(self, state: Any, within: str, command: object) -> Any:  # noqa: ANN401 # its stand-in
        del command

        def run() -> tuple[int, str]:
            self.runs.append((state.url, within))
            if self.error is not None:
                raise self.error
            return self.code, "firmroot_live_readable 1\n"

        return SimpleNamespace(run=run)

    def survey(self) -> Survey:
        return next(self.surveys, GOOD)

    def values(self) -> dict[str, int]:
        [put] = self.measured
        assert put["Namespace"] == "Firmroot"
        for each in put["MetricData"]:
            assert each["Dimensions"] == [{"Name": "Repository", "Value": "acme"}]
            assert each["Unit"]
        return {each["MetricName"]: each["Value"] for each in put["MetricData"]}


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Outside:
    made = Outside()
    client = SimpleNamespace(put_metric_data=lambda **put: made.measured.append(put))
    boto3 = ModuleType("boto3")
    vars(boto3)["session"] = SimpleNamespace(
        Session=lambda: SimpleNamespace(client=lambda _: client)
    )
    monkeypatch.setitem(sys.modules, "boto3", boto3)
    monkeypatch.setattr(job, "Job", made.job)
    monkeypatch.setattr(refresher, "_survey", made.survey)
    monkeypatch.setenv("FIRMROOT_STATE", "s3://state")
    monkeypatch.setenv("FIRMROOT_REPOSITORY", "acme")
    monkeypatch.setenv("FIRMROOT_FAIL_WITHIN", "14d")
    return made


def test_a_good_run_is_measured_and_says_whose_code_it_was(
    outside: Outside, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sys.path[:]
    report = handler({"anything": 1}, None)
    assert sys.path == before
    assert outside.runs == [("s3://state", "14d")]
    assert report["exit_code"] == 0
    assert report["modules"] == GOOD.facts()
    assert outside.values() == {"Heartbeat": 1, "Success": 1, "ExitCode": 0, "LiveReadable": 1}
    assert json.loads(capsys.readouterr().out) == report


def test_with_code_of_others_nothing_is_signed(
    outside: Outside, capsys: pytest.CaptureFixture[str]
) -> None:
    outside.surveys = iter([EVIL])
    with pytest.raises(RefreshFailedError, match="exit code 5"):
        handler({}, None)
    assert outside.runs == []
    assert "boto3 (/opt/python/boto3.py)" in capsys.readouterr().err
    assert outside.values() == {"Heartbeat": 1, "Success": 0, "ExitCode": 5}
    assert handler({}, None)["exit_code"] == 0


def test_code_of_others_that_came_during_the_run_is_a_failure(outside: Outside) -> None:
    outside.surveys = iter([GOOD, EVIL])
    with pytest.raises(RefreshFailedError, match="exit code 5"):
        handler({}, None)
    assert len(outside.runs) == 1
    assert outside.values()["Success"] == 0
    assert handler({}, None)["exit_code"] == 0


@pytest.mark.parametrize(
    "arrange",
    [
        lambda it: setattr(it, "code", 4),
        lambda it: setattr(it, "error", RetryLaterError("no answer", "again")),
    ],
    ids=["the command", "the job"],
)
def test_what_ends_badly_raises_after_it_was_measured(
    outside: Outside, arrange: Callable[[Outside], None]
) -> None:
    arrange(outside)
    with pytest.raises(RefreshFailedError, match="exit code 4"):
        handler({}, None)
    assert outside.values()["ExitCode"] == 4
    assert outside.values()["Success"] == 0


def test_a_bug_is_measured_and_told_as_it_is(outside: Outside) -> None:
    outside.error = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        handler({}, None)
    assert outside.values() == {"Heartbeat": 1, "Success": 0, "ExitCode": 1}
