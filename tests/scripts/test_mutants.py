"""The mutation check itself: which mutants it makes, and that its table is true of the tree."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest

from scripts.mutants import (
    MODULES,
    ROOT,
    Equivalent,
    Source,
    make_mutants,
    new_since,
    read_equivalents,
    stale,
)

CASES = {
    "a condition never holds": (
        "def f(a):\n    if a:\n        raise ValueError\n",
        ["a -> False"],
    ),
    "an order comparison moves its boundary": (
        "def f(a):\n    return a < 3\n",
        ["a < 3 -> (a <= 3)"],
    ),
    "an equality is negated": (
        "def f(a):\n    return a == 3\n",
        ["a == 3 -> (a != 3)"],
    ),
    "each link of a chained comparison is moved": (
        "def f(a):\n    return 0 < a <= 3\n",
        ["0 < a <= 3 -> (0 < a < 3)", "0 < a <= 3 -> (0 <= a <= 3)"],
    ),
    "each operand is dropped in turn": (
        "def f(a, b, c):\n    return a and b and c\n",
        ["a and b and c -> (a and b)", "a and b and c -> (a and c)", "a and b and c -> (b and c)"],
    ),
    "what is named while it is compared stays named": (
        "def f(a):\n    return (b := a()) is None\n",
        ["(b := a()) is None -> ((b := a()) is not None)"],
    ),
    "brackets stay around what they hold together": (
        "def f(a, b, c):\n    return a and (b or c)\n",
        [
            "a and (b or c) -> ((b or c))",
            "a and (b or c) -> (a)",
            "b or c -> (b)",
            "b or c -> (c)",
        ],
    ),
    "the guard of a case never and always holds": (
        "def f(a, b):\n    match a:\n        case 1 if b:\n            return\n",
        ["b -> False", "b -> True"],
    ),
    "a filter lets everything through": (
        "def f(a):\n    return [b for b in a if b]\n",
        ["b -> True"],
    ),
    "a sync is removed": ("def f(os, fd):\n    os.fsync(fd)\n", ["os.fsync(fd) -> pass"]),
    "the sync mode of a database is removed": (
        'def f(db):\n    db.execute("PRAGMA synchronous = EXTRA")\n',
        ['db.execute("PRAGMA synchronous = EXTRA") -> pass'],
    ),
    "a statement of a database is left alone": ("def f(db):\n    db.execute('BEGIN')\n", []),
    "a verification is removed": ("def f(x):\n    x.verify(1)\n", ["x.verify(1) -> pass"]),
    "a root that is only looked at is a verification": (
        "def f(x):\n    next_root(x, 1)\n",
        ["next_root(x, 1) -> pass"],
    ),
    "a call whose result is used is not removed": ("def f(x):\n    return x.verify(1)\n", []),
    "a type-checking import is not a condition": (
        "if TYPE_CHECKING:\n    import os\n",
        [],
    ),
    "messages are left alone": ("def f(a):\n    return f'{a == 1}'\n", []),
}


@pytest.mark.parametrize(("text", "changes"), CASES.values(), ids=CASES)
def test_mutants_of(text: str, changes: list[str]) -> None:
    mutants = make_mutants("m.py", text.encode())
    assert [m.change for m in mutants] == changes
    for mutant in mutants:
        compile(Source("m.py", text.encode()).apply(mutant), "m.py", "exec")


def test_a_mutant_changes_its_place_and_nothing_else() -> None:
    text = (
        "# Grüße\ndef f(a, b):\n    return (  # why\n        a < 1\n        or b\n    )\n".encode()
    )
    source = Source("m.py", text)
    changed = [source.apply(m).decode() for m in make_mutants("m.py", text)]
    assert "# Grüße\ndef f(a, b):\n    return (  # why\n        (b)\n    )\n" in changed
    assert all(c.startswith("# Grüße\ndef f(a, b):\n    return (  # why\n") for c in changed)


def test_an_explanation_goes_stale_with_its_code() -> None:
    mutants = make_mutants("m.py", b"def f(a):\n    return a < 3\n")
    here = Equivalent("m.py", "f", "a < 3 -> (a <= 3)", "a is even")
    gone = Equivalent("m.py", "f", "a < 4 -> (a <= 4)", "a is even")
    assert stale([here, gone], mutants) == [gone]


@pytest.mark.parametrize("file", MODULES)
def test_listed_modules_and_their_tests_exist(file: str) -> None:
    assert (ROOT / file).is_file()
    missing = [path for path in MODULES[file] if not (ROOT / path).exists()]
    assert not missing


def test_explanations_are_about_code_that_is_there() -> None:
    table = read_equivalents()
    assert {e.file for e in table} <= MODULES.keys()
    mutants = [m for f in {e.file for e in table} for m in make_mutants(f, (ROOT / f).read_bytes())]
    assert not stale(table, mutants)
    assert Path(ROOT / "scripts" / "mutants.toml").is_file()


def test_only_conditions_written_since_a_revision_are_asked_for() -> None:
    file = "keys_policy/checks.py"
    line = ["git", "-C", str(ROOT), "show", f"HEAD:{file}"]
    done = subprocess.run(line, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("this copy of the project is not in git")
    mutants = make_mutants(file, done.stdout)
    added = dataclasses.replace(mutants[0], after="never")
    again = dataclasses.replace(mutants[0])
    assert new_since("HEAD", [*mutants, added, again]) == [added, again]
    assert new_since("no-such-revision", mutants) == mutants
