"""The floor goes on within a boot, and only there."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from client_reference.trust.clock import ISSUED, Lead, effective_now
from client_reference.trust.state import MemoryStore
from client_reference.trust.updater import Floors, Updater, initial_state
from client_reference.trust.uptime import Uptime
from client_reference.trust.verified import ExpiredError
from tests.simulators.repository import NOW, SECONDS, RepositorySimulator

if TYPE_CHECKING:
    from pathlib import Path

    from client_reference.trust.state import TrustState

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Boot:
    """One boot: its name, and a clock that only the test moves."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1000.0
        self.name = directory / "boot_id"
        self.name.write_text("boot-1\n")
        self.uptime = Uptime(directory / "uptime.json", self.name)
        monkeypatch.setattr(time, "clock_gettime", lambda _: self.seconds)


@pytest.fixture
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Boot:
    return Boot(tmp_path, monkeypatch)


def test_what_was_proven_an_hour_ago_leads_by_an_hour(boot: Boot) -> None:
    assert boot.uptime.lead() == Lead()
    boot.uptime.keep(5000)
    boot.seconds += 3600
    assert boot.uptime.lead() == Lead(5000, 3600)


def test_what_another_boot_proved_is_at_least_as_old_as_this_one(boot: Boot) -> None:
    """Or a mirror that froze before a restart would not be noticed for a whole boot."""
    boot.uptime.keep(5000)
    boot.name.write_text("boot-2\n")
    up = int(time.clock_gettime(time.CLOCK_BOOTTIME))
    lead = boot.uptime.lead()
    assert lead.floor == 5000
    assert up <= lead.seconds <= up + 5


def test_a_note_of_the_future_says_nothing(boot: Boot) -> None:
    boot.uptime.keep(5000)
    boot.seconds -= 1
    assert boot.uptime.lead() == Lead()


GARBAGE = [
    ("empty", ""),
    ("cut off", '{"boot": "boot-1", "flo'),
    ("no object", "[1]"),
    ("a field is missing", '{"boot": "boot-1", "at": 0}'),
    ("a floor that is no integer", '{"boot": "boot-1", "floor": "9", "at": 0}'),
    ("a floor that is true", '{"boot": "boot-1", "floor": true, "at": 0}'),
    ("a time with a fraction", '{"boot": "boot-1", "floor": 9, "at": 0.5}'),
    ("a time long before the boot", '{"boot": "boot-1", "floor": 9, "at": -1}'),
    ("deep nesting", "[" * 4000),
    ("a time that is no number", '{"boot": "boot-1", "floor": 9, "at": "0"}'),
    ("far too long", '{"boot": "boot-1", "floor": 9, "at": 0, "x": "' + "x" * 5000 + '"}'),
]


@pytest.mark.parametrize("text", [case[1] for case in GARBAGE], ids=[c[0] for c in GARBAGE])
def test_a_damaged_note_says_nothing(boot: Boot, tmp_path: Path, text: str) -> None:
    (tmp_path / "uptime.json").write_text(text)
    assert boot.uptime.lead() == Lead()


def test_a_note_that_cannot_be_written_is_no_failure(boot: Boot, tmp_path: Path) -> None:
    (tmp_path / "uptime.json").mkdir()
    boot.uptime.keep(5000)
    assert boot.uptime.lead() == Lead()


def test_the_note_of_the_kernel_is_read_as_it_is(tmp_path: Path) -> None:
    uptime = Uptime(tmp_path / "uptime.json")
    uptime.keep(5000)
    assert json.loads((tmp_path / "uptime.json").read_text())["boot"]
    lead = uptime.lead()
    assert lead.floor == 5000
    assert lead.seconds >= 0


# With a floor


def test_a_lead_belongs_to_one_floor() -> None:
    assert effective_now(EPOCH, 5000, Lead(5000, 60)).timestamp() == 5060
    assert effective_now(EPOCH, 4999, Lead(5000, 60)).timestamp() == 4999
    assert effective_now(EPOCH, 5000).timestamp() == 5000
    assert effective_now(NOW, 5000, Lead(5000, 60)) == NOW


def test_a_floor_at_the_end_of_all_dates_leads_no_further() -> None:
    """Where nothing expires before the year 10000, a thief may sign such evidence."""
    last = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    floor = int(last.timestamp()) - 1
    assert effective_now(EPOCH, floor, Lead(floor, 60)) == last


def _issued(repo: RepositorySimulator) -> None:
    repo.timestamp.unrecognized_fields[ISSUED] = repo.now.strftime(SECONDS)
    repo.publish("timestamp")


def test_a_frozen_mirror_is_seen_within_a_boot_by_a_device_of_1970() -> None:
    repo = RepositorySimulator()
    repo.timestamp.expires = repo.later(days=7)
    _issued(repo)
    store = MemoryStore(initial_state(repo.files["metadata/1.root.json"], Floors(0, 0, 0)))
    Updater(store, repo, EPOCH).refresh()
    assert store.state is not None
    floor = store.state.trust.time_floor
    six, eight = Lead(floor, 6 * 86_400), Lead(floor, 8 * 86_400)
    Updater(store, repo, EPOCH, lead=six).refresh()
    with pytest.raises(ExpiredError, match="timestamp"):
        Updater(store, repo, EPOCH, lead=eight).refresh()
    repo.now = repo.later(days=8)
    repo.timestamp.expires = repo.later(days=7)
    _issued(repo)
    Updater(store, repo, EPOCH, lead=eight).refresh()
    assert store.state.trust.time_floor == int(repo.now.timestamp())


def test_a_poisoned_floor_takes_its_lead_with_it() -> None:
    repo = RepositorySimulator()
    repo.root.unrecognized_fields[ISSUED] = repo.now.strftime(SECONDS)
    poisoned = int(repo.later(days=300).timestamp())
    state = initial_state(repo.files["metadata/1.root.json"], Floors(poisoned, 0, 0))
    store = MemoryStore(state.with_trust(replace_floor(state.trust, poisoned)))
    lead = Lead(poisoned, 100 * 86_400)
    with pytest.raises(ExpiredError):
        Updater(store, repo, EPOCH, lead=lead).refresh()
    repo.rotate("timestamp")
    repo.publish("root", "timestamp")
    updater = Updater(store, repo, EPOCH, lead=lead)
    updater.refresh()
    assert updater.effective_now == repo.now


def replace_floor(trust: TrustState, floor: int) -> TrustState:
    return replace(trust, time_floor=floor, factory_floor=0)
