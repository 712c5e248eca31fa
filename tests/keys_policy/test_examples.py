"""The example policies: with a key in each place that they ask for, nothing stops them."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import ExitCode
from keys_policy.checks import Evidence, Severity, run_checks
from keys_policy.load import parse_policy
from repo_tools.cli.main import main
from repo_tools.creation import POLICIES
from tests.keys_policy.sample import holder

if TYPE_CHECKING:
    from pathlib import Path

    from keys_policy.model import KeyHolder

# How many classical and post-quantum keys each role has.
FLEET = {
    "root": (3, 3),
    "targets": (3, 3),
    "recovery": (3, 3),
    "channel": (2, 2),
    "builds": (1, 1),
    "snapshot": (1, 0),
    "timestamp": (1, 0),
    "hold": (1, 0),
}
PEOPLE = {"root": (3, 0), "targets": (3, 0), "recovery": (3, 0), "channel": (3, 0)}
ALONE = dict.fromkeys(FLEET, (1, 0))
COUNTS = {"fleet": FLEET, "team": {**ALONE, **PEOPLE}, "maker": {**ALONE, "recovery": (0, 0)}}


def filled(example: str) -> Evidence:
    """The example with as many keys, each of another person."""
    text = files("keys_policy.examples").joinpath(f"{example}.toml").read_text()
    keyring: dict[str, KeyHolder] = {}
    for role, counts in COUNTS[example].items():
        names = []
        for algorithm, count in zip(("ed25519", "ml-dsa-65"), counts, strict=True):
            names += [f"{role}-{algorithm}-{number}" for number in range(count)]
            keyring |= {name: holder(name, algorithm) for name in names if name not in keyring}
        start = text.find(f"[roles.{role}]")
        before, after = text[:start], text[start:]
        text = before + after.replace("keys = []", f"keys = {names}", 1) if start >= 0 else text
    return Evidence(parse_policy(text, keyring=keyring), keyring)


@pytest.mark.parametrize("example", POLICIES)
def test_an_example_with_its_keys_is_sound(example: str) -> None:
    assert [
        each.detail for each in run_checks(filled(example)) if each.severity is not Severity.WARNING
    ] == []


def test_the_fleet_claims_to_be_hybrid_wherever_its_claim_needs_it() -> None:
    roles = filled("fleet").policy.roles
    hybrid = {name: rules.hybrid_left for name, rules in roles.items() if rules.hybrid_left}
    assert hybrid == {"root": 2, "targets": 2, "recovery": 2, "channel": 1, "builds": 1}


@pytest.mark.parametrize("example", POLICIES)
def test_init_begins_with_the_policy_that_was_chosen(example: str, tmp_path: Path) -> None:
    made = tmp_path / "acme"
    assert main(["init", str(made), "--policy", example]) == ExitCode.DONE
    expected = files("keys_policy.examples").joinpath(f"{example}.toml").read_text()
    assert tomllib.loads((made / "policy.toml").read_text()) == tomllib.loads(expected)


def test_a_lab_has_rules_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "acme"
    assert main(["init", str(made), "--lab", "--policy", "fleet"]) != ExitCode.DONE
    assert "--lab has rules of its own, found --policy fleet" in capsys.readouterr().err
    assert not made.exists()
    assert main(["init", str(made), "--policy", "fleet"]) == ExitCode.DONE
