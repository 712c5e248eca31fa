"""What a repository on AWS costs in a month: `python scripts/bill.py`.

From the prices and the fleet of `infra/aws/prices.toml`. Prints the table of `infra/aws/README.md`,
each line with its arithmetic. A test compares the two.
"""

from __future__ import annotations

import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INPUTS = Path(__file__).resolve().parent.parent / "infra/aws/prices.toml"
FLEETS = (10_000, 1_000_000)
GIB, MIB = 1 << 30, 1 << 20


@dataclass(frozen=True)
class Line:
    """One line of a bill.

    Attributes:
        what: is paid for.
        how: the arithmetic, with its numbers.
        dollars: a month.
    """

    what: str
    how: str
    dollars: float


def tiered(amount: float, free: float, steps: list[list[float]]) -> float:
    """The price of an amount of which the first part is free, and each step has its own price.

    Args:
        amount: of units.
        free: units that cost nothing; they count towards the first step.
        steps: upper end of each step, and the price of a unit in it.
    """
    total, below = 0.0, free
    for end, price in steps:
        if amount <= below:
            break
        total += (min(amount, end) - below) * price
        below = max(below, end)
    if amount > below:
        total += (amount - below) * steps[-1][1]
    return total


def bill(devices: int, inputs: dict[str, Any]) -> list[Line]:
    """Every line, for a fleet of so many devices."""
    p, f, r = inputs["prices"], inputs["fleet"], inputs["repository"]
    checks = f["days"] * f["checks_a_day"]
    probes = f["days"] * f["recovery_probes_a_day"]
    requests = devices * (checks * f["requests_a_check"] + f["releases"] * f["requests_a_release"])
    asked = devices * probes
    release = f["release_mib"] * MIB + f["bytes_of_metadata"]
    each = checks * f["bytes_a_check"] + probes * f["bytes_a_probe"] + f["releases"] * release
    gib = devices * each / GIB
    paid = sum(max(0, count - p["cdn_requests_free"]) for count in (requests, asked))
    # Errors are not cached, so each question for the next root reaches the bucket.
    misses = devices * (checks + probes) + r["edges"] * f["days"] * 24 * 60
    refreshes = f["days"] * r["refreshes_a_day"]
    puts = refreshes * r["puts_a_refresh"] + r["publishes"] * r["puts_a_publish"]
    stored = r["releases_kept"] * r["images_a_release"] * f["release_mib"] / 1024
    signatures = refreshes * r["signatures_a_refresh"] + r["publishes"] * r["signatures_a_refresh"]
    seconds = refreshes * r["lambda_seconds"] * r["lambda_gib"]
    logged = refreshes * r["log_bytes_a_refresh"] / GIB
    return [
        Line(
            "CDN, transfer",
            f"{devices:,} x {each / MIB:.2f} MiB = {gib:,.0f} GiB, {p['cdn_gib_free']:,} free",
            tiered(gib, p["cdn_gib_free"], p["cdn_gib"]),
        ),
        Line(
            "CDN, requests",
            f"{requests / 1e6:,.2f} M, and {asked / 1e6:,.2f} M for the anchor, "
            f"{p['cdn_requests_free'] / 1e6:.0f} M of each free, x {p['cdn_https_10000']} / 10,000",
            paid / 10_000 * p["cdn_https_10000"],
        ),
        Line(
            "S3, reads by the CDN",
            f"{devices:,} x {checks + probes} roots that are not there, and {r['edges']} edges "
            f"each minute = {misses / 1e6:,.2f} M x {p['s3_get_1000']} / 1,000",
            misses / 1000 * p["s3_get_1000"],
        ),
        Line(
            "S3, storage",
            f"{stored:.1f} GiB x {p['gib_stored_month']}",
            stored * p["gib_stored_month"],
        ),
        Line(
            "S3, writes", f"{puts:,} x {p['s3_put_1000']} / 1,000", puts / 1000 * p["s3_put_1000"]
        ),
        Line(
            "KMS",
            f"{r['keys']} keys x {p['kms_key_month']:.2f}, {signatures} signatures x "
            f"{p['kms_sign_10000']} / 10,000",
            r["keys"] * p["kms_key_month"] + signatures / 10_000 * p["kms_sign_10000"],
        ),
        Line(
            "Lambda",
            f"{refreshes} runs x {r['lambda_seconds']} s x {r['lambda_gib']} GiB x "
            f"{p['lambda_gib_second']:.10f}",
            seconds * p["lambda_gib_second"] + refreshes / 1e6 * p["lambda_million"],
        ),
        Line(
            "CloudWatch",
            f"{r['metrics']} metrics x {p['metric_month']:.2f}, {r['alarms']} alarms x "
            f"{p['alarm_month']:.2f}, logs",
            r["metrics"] * p["metric_month"]
            + r["alarms"] * p["alarm_month"]
            + logged * p["log_gib"],
        ),
    ]


def table(devices: int, inputs: dict[str, Any]) -> str:
    """The bill as a table in Markdown, with its sum."""
    lines = bill(devices, inputs)
    total = sum(line.dollars for line in lines)
    rows = [f"| {line.what} | {line.how} | {line.dollars:,.2f} |" for line in lines]
    head = [f"| {devices:,} devices | arithmetic | $ a month |", "|---|---|---:|"]
    end = f"| **all** | {total / devices:.5f} for each device | **{total:,.2f}** |"
    return "\n".join([*head, *rows, end])


def page() -> str:
    """Both tables, and what they rest on."""
    inputs = tomllib.loads(INPUTS.read_text(encoding="utf-8"))
    prices = inputs["prices"]
    said = f"Prices of {prices['as_of']}, {prices['region']}."
    return "\n\n".join([said, *(table(devices, inputs) for devices in FLEETS)]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
