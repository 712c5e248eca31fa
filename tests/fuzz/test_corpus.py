"""The committed corpus, through every target, without atheris: what was found once stays found."""

from __future__ import annotations

import random
from contextlib import nullcontext
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from client_reference import manifest, strictjson
from client_reference.errors import (
    FirmrootError,
    NotFoundError,
    NotTrustedError,
    RetryLaterError,
)
from client_reference.transport.memory import Memory
from client_reference.trust.uptime import Uptime
from tests.fuzz import CORPUS, SEPARATOR, TARGETS, Shape, corpus, memory, runner, uptime
from tests.fuzz.mutation import Mutator, constants
from tests.fuzz.refusals import LONGEST, only
from tests.fuzz.seeds import made

if TYPE_CHECKING:
    from pathlib import Path

LARGEST = 220_000


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_raises_nothing_but_typed_errors(name: str) -> None:
    run = runner(name)
    for seed in corpus(name):
        run(seed.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_are_what_the_simulators_make_today(name: str) -> None:
    committed = {seed.name: seed.read_bytes() for seed in corpus(name)}
    wanted = made()[name]
    assert {known: committed.get(known) for known in wanted} == wanted, (
        "renew them: python -m tests.fuzz.seeds"
    )


def test_the_corpus_is_small_and_has_no_stranger() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    sizes = [seed.stat().st_size for name in TARGETS for seed in corpus(name)]
    assert sum(sizes) < LARGEST
    for name, target in TARGETS.items():
        assert all(seed.stat().st_size <= target.most for seed in corpus(name))


# Fuzzing from files that are refused at once would learn nothing.
ACCEPTED = {
    "metadata": (
        "root-honest",
        "root-signed-by-two",
        "root-with-a-key-of-unknown-type",
        "timestamp-honest",
        "timestamp-signed-by-two",
        "snapshot-honest",
        "snapshot-signed-by-two",
        "builds-custom",
    ),
    "chain": ("honest", "signed-again", "other-threshold"),
    "rootchain": ("honest", "one", "later-block"),
    "recovery": ("honest", "signed-again", "of-an-image"),
    "manifest": ("honest", "compact", "needs-what-nobody-has", "next-minor", "waves-at-once"),
    "hold": ("honest", "nothing-held"),
    "meaning": ("honest", "more-fields"),
    "floors": ("honest", "before-1970"),
    "segments": ("one", "exactly-one", "two", "three"),
    "responses": (
        "whole",
        "whole-dripped",
        "chunks",
        "until-the-end",
        "cut-then-whole",
        "redirect-to-the-other",
        "continue-then-whole",
        "hints-then-whole",
        "part",
        "part-dripped",
        "part-of-a-whole",
        "part-chunked",
        "part-cut-then-whole",
    ),
    "inflated": ("honest", "byte-by-byte", "nothing-in-it", "as-long-as-allowed"),
    "authorities": ("honest", "two", "with-comments", "foreign-letters", "old-lines"),
    "memory": ("honest", "mirror-only"),
    "uptime": ("honest", "another-floor"),
}
HONEST = [(target, name) for target, names in ACCEPTED.items() for name in names]


@pytest.mark.parametrize(("target", "name"), HONEST)
def test_an_honest_seed_is_accepted(
    monkeypatch: pytest.MonkeyPatch, target: str, name: str
) -> None:
    monkeypatch.setattr(import_module(f"tests.fuzz.{target}"), "only", lambda *_: nullcontext())
    runner(target)((CORPUS / target / name).read_bytes())


def test_an_honest_hint_and_an_honest_note_are_understood(tmp_path: Path) -> None:
    """Nothing is ever refused of these, so that being accepted says little."""
    hint = Memory(CORPUS / "memory" / "honest", memory.STAMP)
    assert hint.condition(memory.MIRROR, memory.NAME) == ('"33a64df5"', memory.STAMP)
    (tmp_path / "boot_id").write_text(uptime.BOOT)
    lead = Uptime(CORPUS / "uptime" / "honest", tmp_path / "boot_id").lead()
    assert (lead.floor, lead.seconds > 0) == (uptime.FLOOR, True)


def test_every_target_accepts_something() -> None:
    assert ACCEPTED.keys() == TARGETS.keys()


def refuse(error: Exception, *named: type[FirmrootError]) -> None:
    with only(*named):
        raise error


UNNAMED = [ValueError("bare"), KeyError("a"), RetryLaterError("later"), NotTrustedError("")]


@pytest.mark.parametrize("error", UNNAMED, ids=repr)
def test_an_error_that_was_not_named_is_a_finding(error: Exception) -> None:
    with pytest.raises((type(error), AssertionError)):
        refuse(error, NotTrustedError)


def test_an_error_that_quotes_too_much_is_a_finding() -> None:
    refuse(NotTrustedError("x" * LONGEST), NotTrustedError)
    with pytest.raises(AssertionError, match="2001 characters"):
        refuse(NotTrustedError("x" * LONGEST, "y"), NotTrustedError)


def test_a_narrower_error_than_the_named_one_passes() -> None:
    refuse(NotFoundError("not there"), RetryLaterError)


def plain(data: bytes, most: int) -> bytes:
    """What libFuzzer does to bytes, more or less."""
    choose = random.Random(data)
    at = choose.randrange(len(data) + 1)
    return (data[:at] + choose.randbytes(2) + data[at + 1 :])[:most]


STRUCTURED = [name for name, target in TARGETS.items() if target.shape is not Shape.BYTES]


@pytest.mark.parametrize("name", STRUCTURED)
def test_mutations_are_bounded_repeatable_and_different(name: str) -> None:
    target = TARGETS[name]
    mutator = Mutator(target.shape, plain, ("a word", 7))
    run = runner(name)
    different = set()
    for seed in corpus(name)[:6]:
        data = seed.read_bytes()
        for number in range(10):
            changed = mutator.mutate(data, target.most, number)
            assert changed == mutator.mutate(data, target.most, number)
            assert len(changed) <= target.most
            run(changed)
            different.add(changed)
    assert len(different) > 12


def test_a_mutation_keeps_to_the_shape() -> None:
    honest = (CORPUS / "chain" / "honest").read_bytes()
    mutator = Mutator(Shape.CHOSEN, plain)
    changed = [mutator.mutate(honest, 16_384, number) for number in range(50)]
    assert sum(each.count(SEPARATOR) >= 2 for each in changed) > 25


def test_a_mutation_tries_what_the_parser_compares_with() -> None:
    words = constants(manifest, strictjson)
    assert {"sequence", "minimum_sequence", "after_hours"} <= set(words)
    mutator = Mutator(Shape.JSON, plain, ["a-rare-word"])
    changed = [mutator.mutate(b'{"a": "b"}', 100, number) for number in range(300)]
    assert b'{"a": "a-rare-word"}' in changed


def test_a_mutation_begins_with_a_seed_now_and_then() -> None:
    mutator = Mutator(Shape.JSON, plain, seeds=[b'{"seed": [1, 2]}'])
    changed = [mutator.mutate(b"malformed", 100, number) for number in range(50)]
    assert 0 < sum(b"seed" in each for each in changed) < 25
