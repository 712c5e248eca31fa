"""The refresh job as a function of AWS Lambda (`infra/aws/refresher.yaml`): its entry point.

It wires `repo_tools.cloud.job` to a storage, to the `firmroot` command and to CloudWatch, and says
whose code ran. Libraries are imported only where nothing but this package and the standard library
is found, which is why the imports stand in functions. A run that ends badly raises, so that Lambda
counts it as well.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repo_tools.cloud.imported import (
    Survey,
    check,
    packaged_names,
    standard_places,
    survey,
    without_others,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["RefreshFailedError", "handler"]

PACKAGE = Path(__file__).resolve().parents[2]
NAMESPACE = "Firmroot"
_BEFORE = frozenset(sys.modules)
"""What was loaded before the first run: by the runtime, and by the lines above."""


class RefreshFailedError(Exception):
    """A run ended badly; its log says why, in the words of `firmroot refresh`."""


def handler(event: object, context: object) -> dict[str, Any]:
    """One run; what Lambda calls.

    Args:
        event: of the schedule; nothing in it is used.
        context: likewise.

    Returns:
        how it ended, what was measured, and where every module lies that was loaded.

    Raises:
        RefreshFailedError: it ended badly, or code was loaded that was not packaged.
    """
    del event, context
    with without_others(PACKAGE, standard_places()):
        report = _run(os.environ)
    sys.stdout.write(json.dumps(report, sort_keys=True) + "\n")
    sys.stdout.flush()
    if report["exit_code"]:
        raise RefreshFailedError(
            f"firmroot refresh ended with exit code {report['exit_code']}; the log says why"
        )
    return report


def _run(environment: Mapping[str, str]) -> dict[str, Any]:
    from client_reference.errors import ExitCode, FirmrootError  # noqa: PLC0415 # see above
    from repo_tools.cloud.measures import measures  # noqa: PLC0415 # likewise

    code, text = int(ExitCode.BUG), ""
    try:
        code, text = _judged(environment)
    except FirmrootError as error:
        sys.stderr.write(json.dumps({"error": error.message, "hint": error.hint}) + "\n")
        code = int(error.exit_code)
    finally:
        # Also of what is a bug, or a package that lacks something: the job has not fallen silent.
        measured = measures(text, code)
        _publish(measured, environment)
    return {"exit_code": code, "measures": measured, "modules": _survey().facts()}


def _judged(environment: Mapping[str, str]) -> tuple[int, str]:
    """Run the job between two looks at what is loaded.

    Raises:
        RefusedError: code was not packaged; if it was there before the run, nothing was signed.
    """
    # What signs is loaded here, with what it needs, and is judged before it does.
    import boto3  # noqa: F401, PLC0415 # see above

    from repo_tools.cli import publish  # noqa: F401, PLC0415 # likewise
    from repo_tools.cli.main import main  # noqa: PLC0415 # likewise
    from repo_tools.cloud.job import Job  # noqa: PLC0415 # likewise
    from repo_tools.signing import services  # noqa: F401, PLC0415 # likewise
    from repo_tools.storage.s3 import S3Storage  # noqa: PLC0415 # likewise

    check(_survey())
    state = S3Storage(environment["FIRMROOT_STATE"])
    code, text = Job(state, environment["FIRMROOT_FAIL_WITHIN"], main).run()
    check(_survey())
    return int(code), text


def _publish(measured: Mapping[str, int], environment: Mapping[str, str]) -> None:
    """Hand the measurements to CloudWatch."""
    import boto3  # noqa: PLC0415 # see above

    from repo_tools.cloud.measures import NAMES  # noqa: PLC0415 # likewise

    dimensions = [{"Name": "Repository", "Value": environment["FIRMROOT_REPOSITORY"]}]
    boto3.session.Session().client("cloudwatch").put_metric_data(
        Namespace=NAMESPACE,
        MetricData=[
            {"MetricName": name, "Dimensions": dimensions, "Value": value, "Unit": NAMES[name]}
            for name, value in measured.items()
        ],
    )


def _survey() -> Survey:
    return survey(
        sys.modules,
        PACKAGE,
        _BEFORE,
        places=standard_places(),
        names=packaged_names(PACKAGE),
    )
