"""docs/policy.md names every field and every check."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from keys_policy.checks import CHECKS
from keys_policy.model import KeyHolder, Policy, RolePolicy
from tests.keys_policy import render

IDS = (
    "threshold-reachable",
    "threshold-two",
    "threshold-spare",
    "section-used",
    "distinct-holders",
    "distinct-custody",
    "custody-known",
    "online-offline",
    "builds-channel",
    "recovery-keys",
    "recovery-holders",
    "recovery-threshold",
    "recovery-behind",
    "duplicate-key",
    "keyid-derived",
    "rsa-size",
    "algorithm",
    "client-reads",
    "retired-keys",
    "destroyed-keys",
    "stolen-keys",
    "signed-size",
    "signed-size-elsewhere",
    "algorithm-until",
    "algorithm-ending",
    "key-age",
    "lead-time",
    "hybrid-quorum",
    "signing-period",
    "root-outlives-targets",
    "expiry",
    "policy-binds",
    "policy-ahead",
    "delegations",
    "lab",
)


def test_no_check_is_missing_from_the_table() -> None:
    assert {each.id for each in CHECKS} == set(IDS)


def test_the_page_has_the_table_of_checks() -> None:
    text = render.PAGE.read_text()
    assert render.page(text) == text, f"docs/policy.md is not the table: {render.COMMAND}"


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks the lines"):
        render.page("# The policy\n")


def test_the_page_names_every_field() -> None:
    named = set(re.findall(r"^\| `([a-z_]+)", render.PAGE.read_text(), re.MULTILINE))
    expected = {each.name for kind in (KeyHolder, Policy, RolePolicy) for each in fields(kind)}
    assert expected - {"source", "name", "key"} <= named
