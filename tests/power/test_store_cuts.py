"""The trust store, cut at every system call in every model: nothing accepted is ever lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.power import drivers
from tests.power.checks import FULL, placed, store_after, workspace
from tests.power.recorder import Mark, Open, read_tree, record
from tests.power.replay import Cut, Model, cuts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class Case:
    """A recording to cut.

    Attributes:
        before: the last state that is committed before, None for an empty tree.
        words: the driver and its arguments.
        damage: what happens to the store after that.
        lost: whether that damage is the loss of the state.
    """

    before: int | None
    words: tuple[object, ...]
    damage: Callable[[Path], None] = lambda _: None
    lost: bool = False


def remove_second(state: Path) -> None:
    (state / "b.db").unlink()


def ruin_first(state: Path) -> None:
    (state / "a.db").write_bytes(b"\xff" * 8192)


def ruin_second(state: Path) -> None:
    content = bytearray((state / "b.db").read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    (state / "b.db").write_bytes(content)


def age_second(state: Path) -> None:
    """As a cut between the two copies leaves it."""
    with workspace() as other:
        drivers.commit(other, 0, 2)
        (state / "b.db").write_bytes((other / "state" / "b.db").read_bytes())


def ruin_both(state: Path) -> None:
    ruin_first(state)
    ruin_second(state)


LAST = 6 if FULL else 2
CASES = {
    "the first commit and those after it": Case(None, ("commit", 0, LAST)),
    "commits with and without roots on an old store": Case(3, ("commit", 4, 5 if FULL else 4)),
    "an epoch that begins": Case(5, ("begin_epoch", drivers.EPOCH)),
    "an epoch that begins over a ruined copy": Case(3, ("begin_epoch", drivers.EPOCH), ruin_second),
    "a load after a cut between the two copies": Case(3, ("load",), age_second),
    "a load that finds the first copy ruined": Case(3, ("load",), ruin_first),
    "a load that finds the second copy ruined": Case(3, ("load",), ruin_second),
    "a load that finds the second copy missing": Case(3, ("load",), remove_second),
    "a start from the factory with both copies ruined": Case(3, ("restart",), ruin_both, lost=True),
}


def prepared(case: Case, tree: Path) -> None:
    if case.before is not None:
        drivers.commit(tree, 0, case.before)
        case.damage(tree / "state")


@pytest.mark.parametrize("name", CASES)
def test_after_every_cut_the_store_starts_and_no_accepted_version_is_lower(name: str) -> None:
    case = CASES[name]
    with workspace() as tree:
        prepared(case, tree)
        recording = record(drivers.argv(tree, *case.words), tree, env=drivers.environment())
    assert recording.exit_code == 0, recording.output
    states = list(cuts(recording))
    print(f"{len(states)} cuts: {name}")
    wrong = [
        text
        for cut in states
        for text in store_after(cut, None if case.lost else case.before, lost=case.lost)
    ]
    assert not wrong, "\n".join(wrong[:20])
    assert len(states) > 50


def test_a_load_that_finds_all_well_changes_nothing() -> None:
    with workspace() as tree:
        drivers.commit(tree, 0, 3)
        recording = record(drivers.argv(tree, "load"), tree, env=drivers.environment())
    assert recording.exit_code == 0, recording.output
    assert not [call for call in recording.calls if not isinstance(call, Open | Mark)]


WRITING_CALLS = ("pwrite64", "fdatasync", "unlink")


@pytest.mark.parametrize("call", WRITING_CALLS)
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_whichever_call_fails_first_the_state_is_the_old_one_or_the_new_one(
    call: str, error: str
) -> None:
    with workspace() as tree:
        drivers.commit(tree, 0, 1)
        whole = read_tree(tree)
    codes = set()
    for number in range(1, 40 if FULL else 16, 1 if FULL else 3):
        with placed(whole) as tree:
            command = drivers.argv(tree, "commit", 2, 2)
            rule = f"{call}:error={error}:when={number}+"
            recording = record(command, tree, env=drivers.environment(), inject=[rule])
            codes.add(recording.exit_code)
            assert "Traceback" not in recording.output, f"{rule}: {recording.output}"
            wrong = store_after(Cut(0, Model.KILL, ("begin 2",), read_tree(tree)), 1)
            assert not wrong, f"{rule}: {wrong}"
    assert codes <= {0, 5}
    assert 5 in codes
