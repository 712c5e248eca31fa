"""A bug planted in a copy of a parser is found within a minute, and not by the seeds alone.

A minute is counted in executions: so many are made in less on a machine that does nothing else, and
with a fixed seed the same ones each time.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.fuzz import Bounds, fuzz
from tests.fuzz import TARGETS
from tests.fuzz.test_fuzzing import skip_without_atheris

ROOT = Path(__file__).parent.parent.parent
COPIED = ("client_reference", "tests/fuzz", "tests/simulators")
A_MINUTE = Bounds(seconds=240, executions=100_000)
REPLAY = Bounds(executions=0)


@dataclass(frozen=True)
class Plant:
    """One bug.

    Attributes:
        about: what the parser does wrong now.
        file: of the tree.
        old: a text that is in it once.
        new: in its place.
        raised: what it leads to.
    """

    about: str
    file: str
    old: str
    new: str
    raised: str


PLANTS = {
    "metadata": Plant(
        "only those errors are translated that a library documents",
        "client_reference/trust/verified.py",
        "    except Exception as error:",
        "    except (KeyError, RecursionError, TypeError, ValueError) as error:",
        "AttributeError",
    ),
    "chain": Plant(
        "a role that names a key which is not there",
        "client_reference/trust/verified.py",
        "new.keys.get(keyid)",
        "new.keys[keyid]",
        "KeyError",
    ),
    "rootchain": Plant(
        "what stands after a link is not looked at",
        "client_reference/trust/rootchain.py",
        'if data[end : end + 1] != b"\\n":',
        "if end >= len(data):",
        "AssertionError",
    ),
    "recovery": Plant(
        "a first root may be of any length",
        "client_reference/trust/recovery.py",
        'length=node.member("length").integer(1, MAX_ROOT)',
        'length=node.member("length").integer(1)',
        "AssertionError",
    ),
    "manifest": Plant(
        "the least length is off by one",
        "client_reference/manifest.py",
        'length=node.member("length").integer(1)',
        'length=node.member("length").integer()',
        "AssertionError",
    ),
    "hold": Plant(
        "a crash behind one value of one field",
        "client_reference/manifest.py",
        "        sequences=frozenset(",
        '        sequences=frozenset() if document.find("channel").value != "nightly" else {}["a"]'
        " or frozenset(",
        "KeyError",
    ),
    "meaning": Plant(
        "an untyped error for a field that is missing",
        "client_reference/strictjson.py",
        'raise MalformedJsonError(f"{self.path}.{name}", "nothing", "a value")',
        "raise KeyError(name)",
        "KeyError",
    ),
    "floors": Plant(
        "the form of a name is not looked at",
        "client_reference/factory.py",
        'product=document.member("product").text(NAME)',
        'product=document.member("product").text()',
        "AssertionError",
    ),
    "segments": Plant(
        "bytes after the last digest are overlooked",
        "client_reference/payload/segments.py",
        "if len(data) != list_length(length):",
        "if len(data) // _DIGEST != list_length(length) // _DIGEST:",
        "AssertionError",
    ),
    "responses": Plant(
        "an untyped error for a status that no standard knows",
        "client_reference/transport/policy.py",
        "    return Meaning.REFUSED\n",
        '    return Meaning.REFUSED if __import__("http").HTTPStatus(status) else Meaning.BUSY\n',
        "ValueError",
    ),
    "inflated": Plant(
        "what follows the end is not looked at",
        "client_reference/transport/answer.py",
        "if stream.eof and (stream.unused_data or rest):",
        "if stream.eof and rest:",
        "AssertionError",
    ),
    "authorities": Plant(
        "a crash behind a comment of one form",
        "client_reference/transport/bundle.py",
        "                trial.write_bytes(data)",
        '                _ = {}["a"] if data[:2] == b"##" else 0\n'
        "                trial.write_bytes(data)",
        "KeyError",
    ),
    "memory": Plant(
        "a weak ETag is remembered",
        "client_reference/transport/memory.py",
        "good = hint.etag and strong_etag(hint.etag) == hint.etag",
        "good = hint.etag",
        "AssertionError",
    ),
    "uptime": Plant(
        "a time with a fraction is a time",
        "client_reference/trust/uptime.py",
        "type(at) is int and 0",
        "isinstance(at, int | float) and 0",
        "AssertionError",
    ),
}


def tree(place: Path, plant: Plant) -> Path:
    """A copy of what is fuzzed, with the bug."""
    for name in COPIED:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, place / name, ignore=ignored)
    shutil.copy(ROOT / "tests/__init__.py", place / "tests")
    file = place / plant.file
    text = file.read_text("utf-8")
    assert text.count(plant.old) == 1, f"{plant.file} has changed: plant another bug"
    file.write_text(text.replace(plant.old, plant.new), "utf-8")
    return place


def test_every_target_has_a_planted_bug() -> None:
    assert PLANTS.keys() == TARGETS.keys()


@pytest.mark.parametrize("name", PLANTS)
def test_what_is_planted_is_still_where_it_was(tmp_path: Path, name: str) -> None:
    tree(tmp_path, PLANTS[name])


@pytest.mark.long
@pytest.mark.services
@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_is_found_within_a_minute(tmp_path: Path, name: str) -> None:
    skip_without_atheris()
    plant = PLANTS[name]
    root, findings = tree(tmp_path / "tree", plant), tmp_path / "findings"
    findings.mkdir()
    before = fuzz(name, REPLAY, findings, root=root)
    assert not before.told, f"the seeds alone find it, which proves nothing: {before.told}"
    outcome = fuzz(name, A_MINUTE, findings, root=root)
    print(f"{plant.about}: found after {outcome.executions} executions")
    assert outcome.told.startswith(plant.raised), outcome
    assert outcome.findings
