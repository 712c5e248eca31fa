"""Mutation check: every verification step, sync and condition is held by a named test.

For each listed module this makes one mutant per rule below and place, runs the tests that the table
`MODULES` names for it, and says which test failed. A mutant that no test notices is a survivor: a
missing test, unless `mutants.toml` says why it cannot be noticed.

Each mutant gets a process of its own, forked from one that has imported the test framework and
the libraries but nothing of the project. Its limit is in CPU seconds, so that a busy machine makes
no verdicts, and the kernel holds it: a mutant that loops ends even if this script was killed.

Rules: a condition never holds; a filter or the guard of a case always does; a comparison is negated
or moves its boundary; one operand of `and` or `or` goes; a sync goes; a call that is there only to
verify goes.

It is not a general mutation tester: it changes no arithmetic, constants or messages. Mutants are
made in copies of the tree, never in the tree itself.
"""

from __future__ import annotations

import argparse
import ast
import json
import multiprocessing
import os
import queue
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

# The terminal is what this script is for.
# ruff: noqa: T201

ROOT = Path(__file__).resolve().parent.parent
EQUIVALENTS = ROOT / "scripts" / "mutants.toml"
COPIED = ("bench", "client_reference", "docs", "keys_policy", "repo_tools", "tests", "scripts")
COPIED_FILES = ("pyproject.toml",)
# CPU seconds of one run of tests at least, and how often the wall clock may be slower.
MINIMUM_LIMIT = 10
SLOWNESS = 15
# So many tests that reach the changed place are tried before the others.
NEAR = 150
# With --quiet, a line after so many verdicts.
TOLD = 20

# Which tests answer for which module. Narrow on purpose: a mutant that only a distant test notices
# is a module whose own tests do not state its rules.
GAPS = "tests/mutation_gaps"
DIRECTORY = "mutants-{}-"
# What every test imports and no mutant changes.
LIBRARIES = (
    "pytest",
    "hypothesis",
    "tuf.api.metadata",
    "securesystemslib.signer",
    "sqlite3",
    "ssl",
)
FORKS = multiprocessing.get_context("forkserver")
# Not the updates under faults: they are to find what nobody thought of, and take their time.
TRANSPORT = tuple(
    f"tests/transport/test_{name}.py"
    for name in ("policy", "pace", "fetch", "connect", "conditional", "proxy", "tls_servers")
)
CEREMONY = tuple(
    f"tests/signing/test_{name}.py" for name in ("ceremony", "strangers", "anchor_ceremony")
)
BINS = ("tests/publishing/test_bins.py",)
IDENTITIES = (
    "tests/workflows/test_identities.py",
    "tests/workflows/test_identities_keys.py",
)
INBOX = (
    "tests/publishing/test_inbox.py",
    "tests/workflows/test_inbox_attacks.py",
    *IDENTITIES,
)
MODULES: Mapping[str, tuple[str, ...]] = {
    "client_reference/trust/verified.py": ("tests/trust", "tests/oracle"),
    "client_reference/trust/clock.py": (
        "tests/trust/test_clock.py",
        "tests/trust/test_uptime.py",
        "tests/trust/test_updater.py",
    ),
    "client_reference/trust/updater.py": (
        "tests/trust/test_updater.py",
        "tests/trust/test_bins.py",
        "tests/trust/test_rootchain.py",
        "tests/trust/test_uptime.py",
        "tests/trust/test_epochs.py",
        "tests/device/test_sequence_reset.py",
        "tests/oracle",
    ),
    "client_reference/trust/rootchain.py": ("tests/trust/test_rootchain.py",),
    "client_reference/trust/uptime.py": ("tests/trust/test_uptime.py",),
    "client_reference/trust/recovery.py": ("tests/trust/test_recovery.py",),
    "client_reference/trust/reset.py": ("tests/device/test_sequence_reset.py",),
    "client_reference/trust/anchor.py": ("tests/trust/test_anchor.py",),
    "client_reference/trust/asked.py": ("tests/device/test_recovery.py",),
    "client_reference/trust/store.py": (
        "tests/trust/test_store.py",
        "tests/power/test_store_cuts.py",
    ),
    "client_reference/trust/record.py": ("tests/trust/test_store.py",),
    "client_reference/durable.py": (
        "tests/install/test_slots.py",
        "tests/install/test_command.py",
        "tests/power/test_slot_cuts.py",
    ),
    "client_reference/install/slots.py": (
        "tests/install/test_slots.py",
        "tests/power/test_slot_cuts.py",
    ),
    "client_reference/install/bootloader.py": (
        "tests/install/test_bootloader.py",
        "tests/install/test_slots.py",
        "tests/power/test_slot_cuts.py",
    ),
    "client_reference/install/command.py": ("tests/install/test_command.py",),
    "client_reference/lifecycle.py": ("tests/test_lifecycle.py",),
    "client_reference/payload/download.py": ("tests/payload",),
    "client_reference/payload/segments.py": ("tests/payload",),
    "client_reference/doctor.py": (
        "tests/device/test_doctor.py",
        "tests/device/test_examination.py",
    ),
    "client_reference/archive.py": ("tests/device/test_doctor.py",),
    "client_reference/update.py": ("tests/device",),
    "client_reference/refused.py": ("tests/device/test_cli.py",),
    "client_reference/selection.py": ("tests/test_selection.py",),
    "client_reference/manifest.py": ("tests/test_manifest.py",),
    "client_reference/rollout.py": ("tests/test_rollout.py",),
    "client_reference/strictjson.py": ("tests/test_strictjson.py", "tests/test_manifest.py"),
    "client_reference/nearest.py": ("tests/test_nearest.py",),
    "client_reference/factory.py": ("tests/device/test_factory.py",),
    "client_reference/trust/selftest.py": ("tests/trust/test_selftest.py",),
    "client_reference/transport/fetch.py": TRANSPORT,
    "client_reference/transport/policy.py": TRANSPORT,
    "client_reference/transport/pace.py": TRANSPORT,
    "client_reference/transport/connect.py": TRANSPORT,
    "client_reference/transport/answer.py": TRANSPORT,
    "client_reference/transport/memory.py": TRANSPORT,
    "client_reference/transport/proxy.py": ("tests/transport/test_proxy.py",),
    "client_reference/transport/bundle.py": ("tests/device/test_bundle.py",),
    "client_reference/transport/cache.py": ("tests/transport/test_cache.py",),
    "repo_tools/publishing/publish.py": (
        "tests/publishing/test_commits.py",
        "tests/publishing/test_publish.py",
        "tests/publishing/test_recovery.py",
        "tests/publishing/test_interrupted.py",
        "tests/publishing/test_journal.py",
        "tests/publishing/test_bridge.py",
        "tests/publishing/test_collect.py",
        "tests/publishing/test_history.py",
        "tests/publishing/test_replaced.py",
    ),
    "repo_tools/publishing/rehearse.py": ("tests/publishing/test_rehearse.py",),
    "repo_tools/publishing/live.py": ("tests/publishing/test_live.py",),
    "repo_tools/publishing/refresh.py": (
        "tests/publishing/test_refresh.py",
        "tests/publishing/test_replaced.py",
        "tests/publishing/test_publish.py",
        "tests/publishing/test_recovery.py",
        "tests/publishing/test_interrupted.py",
    ),
    "repo_tools/publishing/replaced.py": ("tests/publishing/test_replaced.py",),
    "repo_tools/publishing/plan.py": ("tests/publishing/test_plan.py",),
    "repo_tools/publishing/prepare.py": (
        "tests/publishing/test_prepare.py",
        "tests/publishing/test_commits.py",
        "tests/publishing/test_publish.py",
        "tests/publishing/test_interrupted.py",
        "tests/publishing/test_rehearse.py",
        "tests/cli/test_next.py",
        "tests/workflows/test_identities_keys.py",
    ),
    "repo_tools/publishing/journal.py": (
        "tests/publishing/test_journal.py",
        "tests/publishing/test_interrupted.py",
    ),
    "repo_tools/publishing/online.py": (
        "tests/publishing/test_online.py",
        "tests/publishing/test_interrupted.py",
        "tests/publishing/test_publish.py",
    ),
    "repo_tools/publishing/abandoned.py": (
        "tests/publishing/test_abandoned.py",
        "tests/publishing/test_publish.py",
    ),
    "repo_tools/publishing/artifacts.py": ("tests/publishing/test_artifacts.py",),
    "repo_tools/publishing/promote.py": (
        "tests/publishing/test_promote.py",
        "tests/publishing/test_withdraw.py",
    ),
    "repo_tools/publishing/collect.py": ("tests/publishing/test_collect.py",),
    "repo_tools/metadata/bins.py": BINS,
    "repo_tools/publishing/binned.py": ("tests/publishing/test_binned.py", *BINS),
    "repo_tools/publishing/bulk.py": ("tests/publishing/test_bulk.py",),
    "repo_tools/publishing/cache.py": ("tests/publishing/test_cache.py",),
    "repo_tools/publishing/cleaning.py": (
        "tests/publishing/test_cleaning.py",
        "tests/publishing/test_collect.py",
        "tests/publishing/test_replaced.py",
    ),
    "repo_tools/publishing/mirror.py": (
        "tests/publishing/test_mirror.py",
        "tests/workflows/test_mirror.py",
    ),
    "repo_tools/publishing/watch.py": (
        "tests/publishing/test_watch.py",
        "tests/publishing/test_refresh_job.py",
    ),
    "repo_tools/reporting/metrics.py": ("tests/reporting/test_metrics.py",),
    "repo_tools/publishing/withdraw.py": ("tests/publishing/test_withdraw.py",),
    "repo_tools/publishing/examine.py": ("tests/publishing/test_examine.py", *INBOX, *BINS),
    "repo_tools/publishing/inbox.py": INBOX,
    "repo_tools/publishing/intake.py": (*INBOX, *BINS),
    "repo_tools/publishing/submit.py": ("tests/publishing/test_examine.py", *INBOX, *BINS),
    "repo_tools/publishing/rebase.py": (
        "tests/publishing/test_rebase.py",
        *IDENTITIES,
        "tests/publishing/test_publish.py",
        *BINS,
    ),
    "repo_tools/publishing/verify.py": ("tests/publishing/test_verify.py",),
    "repo_tools/publishing/cache_headers.py": ("tests/publishing/test_cache_headers.py",),
    "repo_tools/publishing/edge_checks.py": ("tests/publishing/test_edge_checks.py",),
    "repo_tools/publishing/probe.py": ("tests/publishing/test_probe.py",),
    "repo_tools/publishing/through.py": ("tests/publishing/test_through.py",),
    "repo_tools/publishing/factory.py": (
        "tests/publishing/test_factory.py",
        "tests/publishing/test_recovery.py",
    ),
    "repo_tools/publishing/recovery.py": ("tests/publishing/test_recovery.py",),
    "repo_tools/publishing/following.py": (
        "tests/publishing/test_following.py",
        "tests/publishing/test_recovery.py",
    ),
    "repo_tools/publishing/inherit.py": (
        "tests/publishing/test_inherit.py",
        "tests/publishing/test_recovery.py",
    ),
    "repo_tools/anchor.py": (
        "tests/signing/test_anchor_ceremony.py",
        "tests/publishing/test_anchor.py",
    ),
    "repo_tools/adoption.py": ("tests/workflows/test_adopt.py",),
    "repo_tools/metadata/adopted.py": (
        "tests/metadata/test_adopted.py",
        "tests/workflows/test_adopt.py",
    ),
    "repo_tools/metadata/anchor.py": ("tests/metadata/test_anchor.py",),
    "repo_tools/storage/epoch.py": ("tests/storage/test_epoch.py",),
    "repo_tools/reporting/situation.py": (
        "tests/cli/test_next.py",
        "tests/cli/test_team.py",
        "tests/cli/test_recovery.py",
    ),
    "repo_tools/reporting/history.py": (
        "tests/publishing/test_history.py",
        "tests/publishing/test_replaced.py",
    ),
    "repo_tools/reporting/refreshes.py": ("tests/publishing/test_replaced.py",),
    "repo_tools/reporting/status.py": ("tests/reporting",),
    "repo_tools/cloud/imported.py": ("tests/cloud/test_imported.py",),
    "repo_tools/cloud/job.py": ("tests/cloud/test_job.py",),
    "repo_tools/cloud/measures.py": ("tests/cloud/test_measures.py",),
    "repo_tools/cloud/refresher.py": ("tests/cloud/test_refresher.py",),
    "repo_tools/git.py": ("tests/test_git.py",),
    "repo_tools/storage/local.py": ("tests/storage",),
    "repo_tools/storage/overlay.py": ("tests/storage",),
    "repo_tools/files.py": ("tests/test_files.py",),
    "repo_tools/publishing/channels.py": (
        "tests/publishing/test_channel.py",
        "tests/publishing/test_withdraw.py",
    ),
    "repo_tools/publishing/firmware.py": (
        "tests/publishing/test_binned.py",
        "tests/publishing/test_firmware.py",
        "tests/publishing/test_artifacts.py",
        *BINS,
    ),
    "repo_tools/publishing/renewal.py": ("tests/publishing/test_renewal.py", *BINS),
    "repo_tools/publishing/bridge.py": ("tests/publishing/test_bridge.py",),
    "repo_tools/publishing/edges.py": ("tests/publishing/test_bridge.py",),
    "repo_tools/rotation.py": (
        "tests/cli/test_rotation.py",
        "tests/cli/test_recovery.py",
        "tests/workflows/test_drills_anchor_keys.py",
    ),
    "repo_tools/signing/ceremony/reading.py": (*CEREMONY, "tests/signing/test_portable.py"),
    "repo_tools/signing/ceremony/guards.py": (
        *CEREMONY,
        "tests/signing/test_adopted.py",
        "tests/workflows/test_adopt.py",
    ),
    "repo_tools/signing/ceremony/signatures.py": CEREMONY,
    "repo_tools/signing/ceremony/course.py": CEREMONY,
    "repo_tools/signing/ceremony/electorate.py": (*CEREMONY, "tests/signing/test_portable.py"),
    "repo_tools/signing/ceremony/chronicle.py": ("tests/publishing/test_history.py",),
    "repo_tools/signing/signers.py": ("tests/signing/test_session.py",),
    "repo_tools/signing/session.py": (
        "tests/signing/test_session.py",
        "tests/signing/test_strangers.py",
    ),
    "repo_tools/signing/exchange.py": (
        "tests/signing/test_portable.py",
        "tests/signing/test_session.py",
        "tests/signing/test_strangers.py",
    ),
    "repo_tools/signing/portable.py": (
        "tests/signing/test_portable.py",
        "tests/signing/test_session.py",
        "tests/signing/test_strangers.py",
        "tests/signing/test_anchor_ceremony.py",
    ),
    "repo_tools/signing/apart.py": ("tests/signing/test_portable.py", "tests/cli/test_apart.py"),
    "repo_tools/signing/unusual.py": ("tests/signing/test_unusual.py",),
    "repo_tools/signing/review.py": ("tests/signing/test_unusual.py",),
    "repo_tools/signing/known_good.py": ("tests/signing/test_known_good.py",),
    "repo_tools/signing/words.py": ("tests/signing/test_words.py",),
    "repo_tools/signing/asking.py": ("tests/cli/test_apart.py",),
    "repo_tools/signing/start.py": (
        "tests/signing/test_session.py",
        "tests/signing/test_ceremony.py",
        "tests/signing/test_adopted.py",
    ),
    "repo_tools/signing/rules.py": (
        "tests/signing/test_rules.py",
        "tests/signing/test_adopted.py",
        "tests/signing/test_anchor_ceremony.py",
        "tests/publishing/test_policy_stops.py",
        "tests/signing/test_session.py",
        "tests/signing/test_strangers.py",
    ),
    "repo_tools/signing/keyfiles.py": ("tests/signing/test_keyfiles.py",),
    "repo_tools/signing/keyring.py": ("tests/signing/test_keyring.py",),
    "repo_tools/signing/secrets.py": ("tests/signing/test_secrets.py",),
    "repo_tools/metadata/edits.py": ("tests/metadata",),
    "repo_tools/metadata/roles.py": ("tests/metadata",),
    "repo_tools/metadata/rotation.py": ("tests/metadata/test_rotation.py",),
    "repo_tools/metadata/repository.py": ("tests/metadata/test_repository.py",),
    "keys_policy/checks.py": ("tests/keys_policy",),
    "keys_policy/delegations.py": ("tests/keys_policy", "tests/metadata/test_roles.py"),
    "keys_policy/sizes.py": ("tests/keys_policy",),
}

NEGATED: Mapping[type[ast.cmpop], str] = {
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
BOUNDARY: Mapping[type[ast.cmpop], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
}
WRITTEN: Mapping[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Is: "is",
    ast.IsNot: "is not",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
SYNC = re.compile(r"sync")
VERIFYING = re.compile(
    r"verif|check|require|ensure|refuse|_must_|validate|compare|accept|authentic|^(first|next)_root$"
)
# What must keep its brackets where it is moved to; the syntax tree does not have them.
LOOSE = (ast.BoolOp, ast.IfExp, ast.Lambda, ast.NamedExpr)


@dataclass(frozen=True)
class Mutant:
    """One change of one place.

    Attributes:
        file: path in the tree.
        function: dotted name of what encloses the place; `<module>` at the top.
        rule: which rule made it.
        line: of the place, from 1.
        before: source text of the place, white space folded.
        after: what takes its place, as it is written into the file.
        start: first byte of the place in the file.
        end: first byte after it.
        height: lines of the place.
    """

    file: str
    function: str
    rule: str
    line: int
    before: str
    after: str
    start: int
    end: int
    height: int = 1

    @property
    def change(self) -> str:
        """The change in one line: the name of this mutant within its function."""
        return f"{self.before} -> {' '.join(self.after.split())}"

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.function}: {self.rule}: {self.change}"


@dataclass(frozen=True)
class Verdict:
    """What the tests said about a mutant: the test that failed, or None."""

    mutant: Mutant
    killer: str | None
    seconds: float


@dataclass(frozen=True)
class Equivalent:
    """A mutant that cannot be noticed, and why."""

    file: str
    function: str
    change: str
    reason: str

    def matches(self, mutant: Mutant) -> bool:
        """Whether this entry is about that mutant."""
        return (self.file, self.function, self.change) == (
            mutant.file,
            mutant.function,
            mutant.change,
        )


class Source:
    """The text of a module, addressed by the byte positions that `ast` gives."""

    def __init__(self, file: str, text: bytes) -> None:
        self.file = file
        self.text = text
        self._lines = [0]
        for line in text.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """First byte, and first byte after."""
        if node.end_lineno is None or node.end_col_offset is None:
            raise ValueError(f"{self.file}: a node without an end")
        return (
            self._lines[node.lineno - 1] + node.col_offset,
            self._lines[node.end_lineno - 1] + node.end_col_offset,
        )

    def of(self, node: ast.expr | ast.stmt) -> str:
        """The text of a node."""
        start, end = self.span(node)
        return self.text[start:end].decode()

    def mutant(self, node: ast.expr | ast.stmt, function: str, rule: str, after: str) -> Mutant:
        """A mutant in which `after` stands in the place of `node`."""
        start, end = self.span(node)
        return Mutant(
            file=self.file,
            function=function,
            rule=rule,
            line=node.lineno,
            before=" ".join(self.of(node).split()),
            after=after,
            start=start,
            end=end,
            height=(node.end_lineno or node.lineno) - node.lineno + 1,
        )

    def apply(self, mutant: Mutant) -> bytes:
        """The module with that one change."""
        return self.text[: mutant.start] + mutant.after.encode() + self.text[mutant.end :]


class Maker(ast.NodeVisitor):
    """Walks one module and collects its mutants."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._where: list[str] = []
        self.mutants: list[Mutant] = []

    def _add(self, node: ast.expr | ast.stmt, rule: str, after: str) -> None:
        function = ".".join(self._where) or "<module>"
        self.mutants.append(self.source.mutant(node, function, rule, after))

    def _scope(self, node: ast.ClassDef | ast.FunctionDef) -> None:
        self._where.append(node.name)
        self.generic_visit(node)
        self._where.pop()

    visit_ClassDef = _scope  # noqa: N815 - the name that ast.NodeVisitor looks for
    visit_FunctionDef = _scope  # noqa: N815 - likewise

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Leave messages alone: before Python 3.12 places inside an f-string are not known."""

    def visit_If(self, node: ast.If) -> None:
        """A condition never holds."""
        if not _is_type_checking(node.test):
            self._add(node.test, "condition never holds", "False")
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """A condition never holds."""
        self._add(node.test, "condition never holds", "False")
        self.generic_visit(node)

    def visit_match_case(self, node: ast.match_case) -> None:
        """The guard of a case never holds, or always does."""
        if node.guard is not None:
            self._add(node.guard, "condition never holds", "False")
            self._add(node.guard, "condition always holds", "True")
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        """A filter lets everything through."""
        for test in node.ifs:
            self._add(test, "condition always holds", "True")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        """A comparison is negated, or moves its boundary."""
        for index, operator in enumerate(node.ops):
            for rule, table in (("boundary moved", BOUNDARY), ("negated", NEGATED)):
                if type(operator) in table:
                    self._add(node, rule, self._compared(node, index, table[type(operator)]))
        self.generic_visit(node)

    def _compared(self, node: ast.Compare, index: int, changed: str) -> str:
        parts = [self._part(node.left)]
        for position, (operator, right) in enumerate(zip(node.ops, node.comparators, strict=True)):
            parts.append(changed if position == index else WRITTEN[type(operator)])
            parts.append(self._part(right))
        return f"({' '.join(parts)})"

    def _part(self, node: ast.expr) -> str:
        """The text of an operand, with its brackets."""
        text = self.source.of(node)
        return f"({text})" if isinstance(node, LOOSE) else text

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """One operand goes."""
        word = " and " if isinstance(node.op, ast.And) else " or "
        for index in range(len(node.values)):
            kept = [self._part(v) for i, v in enumerate(node.values) if i != index]
            self._add(node, "operand dropped", f"({word.join(kept)})")
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        """A sync, or a call that is there only to verify, goes."""
        if isinstance(node.value, ast.Call):
            name = _called(node.value)
            if SYNC.search(name) or _is_sync_pragma(node.value):
                self._add(node, "sync removed", "pass")
            elif VERIFYING.search(name):
                self._add(node, "verification removed", "pass")
        self.generic_visit(node)


def _called(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _is_sync_pragma(call: ast.Call) -> bool:
    first = call.args[0] if call.args else None
    text = first.value if isinstance(first, ast.Constant) else None
    return isinstance(text, str) and text.startswith("PRAGMA synchronous")


def _is_type_checking(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def make_mutants(file: str, text: bytes) -> list[Mutant]:
    """Every mutant of a module, in the order of the text; the same change twice counts once."""
    maker = Maker(Source(file, text))
    maker.visit(ast.parse(text))
    unique = {(m.start, m.end, m.after): m for m in maker.mutants}
    return sorted(unique.values(), key=lambda m: (m.start, m.end, m.after))


def read_equivalents(path: Path = EQUIVALENTS) -> list[Equivalent]:
    """The table of mutants that cannot be noticed."""
    table = tomllib.loads(path.read_text()) if path.exists() else {}
    return [Equivalent(**entry) for entry in table.get("equivalent", [])]


def stale(equivalents: Iterable[Equivalent], mutants: Sequence[Mutant]) -> list[Equivalent]:
    """Entries about code that is no longer there."""
    return [e for e in equivalents if not any(e.matches(m) for m in mutants)]


class Tree:
    """A private copy of the project in which one worker changes one module at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in COPIED:
            shutil.copytree(
                ROOT / name,
                directory / name,
                ignore=shutil.ignore_patterns("__pycache__", ".hypothesis"),
            )
        for name in COPIED_FILES:
            shutil.copy2(ROOT / name, directory / name)

    def tests(
        self, arguments: Sequence[str], limit: int | None = None, *, trace: str = ""
    ) -> tuple[int, str]:
        """Run pytest on this copy.

        Args:
            arguments: tests.
            limit: CPU seconds of one process, or None.
            trace: a module of which to write `trace.json`.

        Returns:
            The exit code (negative: a signal ended it, as it does at the limit) and the output.
        """
        output = self.directory / "output.txt"
        process = FORKS.Process(
            target=_run_tests, args=(self.directory, arguments, limit, output, trace)
        )
        process.start()
        process.join(None if limit is None else limit * SLOWNESS)
        code = process.exitcode
        if process.pid is not None:
            # The whole session: a test's own children may still run.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.join()
        process.close()
        return -signal.SIGKILL if code is None else code, output.read_text(errors="replace")

    def write(self, file: str, text: bytes) -> None:
        """Replace a module, and forget what was compiled from the one before."""
        path = self.directory / file
        path.write_bytes(text)
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()


def _run_tests(
    directory: Path,
    arguments: Sequence[str],
    limit: int | None,
    output: Path,
    trace: str,
) -> None:
    """In the forked process: become pytest on one copy of the tree."""
    os.setsid()
    # Tests send it; a shell that started this script in the background has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for descriptor in (1, 2):
        os.dup2(written, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(directory)
    os.environ["PYTHONPATH"] = str(directory)
    for name in [n for n in sys.modules if n.partition(".")[0] in COPIED]:
        del sys.modules[name]
    sys.path[:] = [str(directory), *(p for p in sys.path if Path(p).resolve() != ROOT)]
    options = ["-x", "-q", "-rfE", "--tb=no", "--no-header", "-p", "no:cacheprovider"]
    # Plugins that are merely installed cost more than most tests.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    if trace:
        os.environ["MUTANTS_TRACE"] = str(directory / "trace.json")
        os.environ["MUTANTS_FILE"] = str(directory / trace)
        options += ["-p", "scripts.mutants_trace"]
    else:
        # A mutant of the same length within the same second would be hidden by its `.pyc`.
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        sys.dont_write_bytecode = True
    import pytest  # noqa: PLC0415 - `FORKS` has imported it; the script itself has no use for it

    code = int(pytest.main([*options, *arguments]))
    sys.stdout.flush()
    # Threads that a failed test left behind would keep the process.
    os._exit(code)


@dataclass(frozen=True)
class Baseline:
    """How the tests of a module behave without a mutant.

    Attributes:
        paths: the test paths that exist.
        seconds: of CPU that each test takes.
        lines: by test, the lines of the module that it runs.
    """

    paths: tuple[str, ...]
    seconds: Mapping[str, float]
    lines: Mapping[str, Sequence[int]]

    def reaching(self, mutant: Mutant) -> list[str]:
        """The tests that run the place of a mutant, quickest first."""
        place = range(mutant.line, mutant.line + mutant.height)
        tests = [test for test, lines in self.lines.items() if not {*lines}.isdisjoint(place)]
        return sorted(tests, key=self.seconds.__getitem__)


def baseline(tree: Tree, file: str) -> Baseline:
    """Run the module's tests unchanged and note which test runs which lines.

    Raises:
        SystemExit: there are none, or they fail: mutants would prove nothing.
    """
    gap = f"{GAPS}/test_{Path(file).stem}.py"
    paths = tuple(p for p in (*MODULES[file], gap) if (tree.directory / p).exists())
    if not paths:
        raise SystemExit(f"{file}: none of its tests exists: {', '.join(MODULES[file])}")
    code, output = tree.tests(paths, trace=file)
    if code != 0:
        raise SystemExit(f"{file}: its tests fail without a mutant:\n{output[-3000:]}")
    trace = json.loads((tree.directory / "trace.json").read_text())
    return Baseline(paths, trace["seconds"], trace["lines"])


def judge(
    tree: Tree, original: Source, mutant: Mutant, base: Baseline, *, near_only: bool = False
) -> Verdict:
    """Whether a test notices: first those that reach the place, then the others.

    With `near_only` the others are left, if there are any that reach it.
    """
    start = time.monotonic()
    text = original.apply(mutant)
    # One that does not compile would count as noticed by every test.
    compile(text, mutant.file, "exec")
    tree.write(mutant.file, text)
    try:
        near = base.reaching(mutant)[:NEAR]
        killer = _first_failure(tree, near, base, near) if near else None
        if killer is None and not (near and near_only):
            killer = _first_failure(tree, base.paths, base, base.seconds)
    finally:
        tree.write(mutant.file, original.text)
    return Verdict(mutant, killer, time.monotonic() - start)


def _first_failure(
    tree: Tree, arguments: Sequence[str], base: Baseline, tests: Iterable[str]
) -> str | None:
    limit = MINIMUM_LIMIT + int(4 * sum(base.seconds[test] for test in tests))
    code, output = tree.tests(arguments, limit)
    if code == 0:
        return None
    if code < 0:
        return f"tests that no longer end ({limit} s of CPU)"
    found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, re.MULTILINE)
    return found[1] if found else f"pytest, exit code {code}"


def new_since(revision: str, mutants: Sequence[Mutant]) -> list[Mutant]:
    """The mutants that a revision of git did not have: those of conditions written since."""
    known: dict[str, Counter[tuple[str, str, str]]] = {}
    for file in {mutant.file for mutant in mutants}:
        line = ["git", "-C", str(ROOT), "show", f"{revision}:{file}"]
        done = subprocess.run(line, capture_output=True, check=False)  # noqa: S603 - git, of our own tree
        before = make_mutants(file, done.stdout) if done.returncode == 0 else []
        known[file] = Counter(_name(mutant) for mutant in before)
    found = []
    for mutant in mutants:
        if known[mutant.file][_name(mutant)] > 0:
            known[mutant.file][_name(mutant)] -= 1
        else:
            found.append(mutant)
    return found


def _name(mutant: Mutant) -> tuple[str, str, str]:
    return mutant.function, mutant.rule, mutant.change


def chosen(arguments: argparse.Namespace) -> list[Mutant]:
    """The mutants asked for."""
    files = [f for f in MODULES if not arguments.file or arguments.file in f]
    mutants = [
        mutant
        for file in files
        if (ROOT / file).exists()
        for mutant in make_mutants(file, (ROOT / file).read_bytes())
        if arguments.only in str(mutant)
    ]
    if arguments.since:
        mutants = new_since(arguments.since, mutants)
    if arguments.sample and arguments.sample < len(mutants):
        picked = random.Random(arguments.seed).sample(range(len(mutants)), arguments.sample)  # noqa: S311 - a reproducible sample, no secret
        mutants = [mutants[i] for i in sorted(picked)]
    return mutants


def run(
    mutants: Sequence[Mutant], jobs: int, budget: float | None, *, near_only: bool = False
) -> Iterator[Verdict]:
    """Judge mutants with several workers, each in a copy of its own, until the time is up.

    Of a mutant that is called equivalent only the tests are asked that reach its place: all the
    others would run to their end each time.
    """
    equivalents = read_equivalents()
    brief = {m for m in mutants if near_only or any(e.matches(m) for e in equivalents)}
    by_file: dict[str, list[Mutant]] = {}
    for mutant in mutants:
        by_file.setdefault(mutant.file, []).append(mutant)
    deadline = time.monotonic() + budget if budget else None
    work: queue.Queue[Mutant] = queue.Queue()
    for waiting in by_file.values():
        for mutant in waiting:
            work.put(mutant)
    done: queue.Queue[Verdict | BaseException | None] = queue.Queue()
    # Forked processes inherit the seed of their server.
    os.environ["PYTHONHASHSEED"] = "0"
    FORKS.set_forkserver_preload([*LIBRARIES])
    _sweep()
    with tempfile.TemporaryDirectory(prefix=DIRECTORY.format(os.getpid())) as directory:
        trees = [Tree(Path(directory) / str(n)) for n in range(jobs)]
        for tree in trees:
            arguments = (tree, work, done, deadline, brief)
            threading.Thread(target=_worker, args=arguments, daemon=True).start()
        running = jobs
        try:
            while running:
                item = done.get()
                if item is None:
                    running -= 1
                elif isinstance(item, BaseException):
                    raise item
                else:
                    yield item
        finally:
            # Of a script that was interrupted: it would wait for them.
            for process in multiprocessing.active_children():
                process.kill()


def _sweep() -> None:
    """Remove the trees of earlier runs that could not do so themselves."""
    for left in Path(tempfile.gettempdir()).glob(DIRECTORY.format("*")):
        owner = left.name.split("-")[1]
        if owner.isdecimal() and not _lives(int(owner)):
            shutil.rmtree(left, ignore_errors=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _worker(
    tree: Tree,
    work: queue.Queue[Mutant],
    done: queue.Queue[Verdict | BaseException | None],
    deadline: float | None,
    brief: Collection[Mutant],
) -> None:
    bases: dict[str, Baseline] = {}
    try:
        while deadline is None or time.monotonic() < deadline:
            try:
                mutant = work.get_nowait()
            except queue.Empty:
                break
            file = mutant.file
            if file not in bases:
                bases[file] = baseline(tree, file)
            source = Source(file, (tree.directory / file).read_bytes())
            near_only = mutant in brief
            done.put(judge(tree, source, mutant, bases[file], near_only=near_only))
    except BaseException as error:  # noqa: BLE001 - handed to the main thread, which raises it
        done.put(error)
    done.put(None)


def report(verdicts: Sequence[Verdict], mutants: Sequence[Mutant]) -> bool:
    """Print the summary; whether everything is explained."""
    equivalents = read_equivalents()
    survivors = [v.mutant for v in verdicts if v.killer is None]
    explained = [m for m in survivors if any(e.matches(m) for e in equivalents)]
    open_ = [m for m in survivors if m not in explained]
    # Of two places in a function that read alike, an entry may be about one.
    killed_all_the_same = [
        (e, v.mutant)
        for e in equivalents
        for v in verdicts
        if v.killer is not None and e.matches(v.mutant) and not any(map(e.matches, survivors))
    ]
    # Of the other modules a test of this script says so.
    judged = {mutant.file for mutant in mutants}
    there = [m for file in judged for m in make_mutants(file, (ROOT / file).read_bytes())]
    gone = stale([e for e in equivalents if e.file in judged], there)
    for mutant in open_:
        print(f"SURVIVED {mutant}")
    for entry in gone:
        print(f"STALE    {entry.file} {entry.function}: {entry.change}: no such code")
    for entry, mutant in killed_all_the_same:
        print(f"STALE    {mutant}: called equivalent ({entry.reason}), yet a test notices it")
    print(
        f"{len(verdicts)} of {len(mutants)} mutants judged: "
        f"{len(verdicts) - len(survivors)} killed, {len(explained)} explained in mutants.toml, "
        f"{len(open_)} survived"
    )
    return not (open_ or gone or killed_all_the_same)


def main() -> int:
    """Run the command line; the exit code is 1 if a survivor is not explained."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--list", action="store_true", help="print the mutants, run nothing")
    parser.add_argument("--file", default="", help="only modules whose path contains this")
    parser.add_argument("--only", default="", help="only mutants whose line contains this")
    parser.add_argument("--since", default="", help="only conditions written since this revision")
    parser.add_argument("--sample", type=int, help="judge only so many, chosen by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", type=float, help="start no mutant after so many seconds")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--quiet", action="store_true", help="do not print each killed mutant")
    parser.add_argument(
        "--near",
        action="store_true",
        help="ask only the tests that reach the changed place: quick, and may call some alive "
        "that another test notices",
    )
    arguments = parser.parse_args()
    # So that the trees are removed when the script is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    mutants = chosen(arguments)
    if arguments.list:
        for mutant in mutants:
            print(mutant)
        print(f"{len(mutants)} mutants")
        return 0
    verdicts = []
    for verdict in run(mutants, arguments.jobs, arguments.budget, near_only=arguments.near):
        verdicts.append(verdict)
        if verdict.killer and not arguments.quiet:
            print(f"killed   {verdict.mutant}\n         by {verdict.killer}", flush=True)
        elif not verdict.killer:
            print(f"ALIVE    {verdict.mutant}", flush=True)
        if arguments.quiet and len(verdicts) % TOLD == 0:
            print(f"{len(verdicts)} of {len(mutants)} judged", flush=True)
    return 0 if report(verdicts, mutants) else 1


if __name__ == "__main__":
    raise SystemExit(main())
