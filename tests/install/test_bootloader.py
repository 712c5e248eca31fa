"""The boot record: there is a slot to boot after any sequence of events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_reference.errors import ConfigurationError, LocalFailureError
from client_reference.install.bootloader import (
    TRIES,
    BootRecord,
    FileBootloader,
    open_bootloader,
)

if TYPE_CHECKING:
    from pathlib import Path

SLOTS = ("A", "B", "C")
FACTORY = BootRecord("A", ("A",), "A")
ARMED = BootRecord("A", ("A", "B"), "A", "B", 1)
TRYING = BootRecord("A", ("A", "B"), "B", "B", 0)
BOTH = BootRecord("A", ("A", "B"), "A")


@pytest.mark.parametrize(
    ("before", "event", "after"),
    [
        pytest.param(BOTH, "disable B", FACTORY, id="a free slot is made unbootable"),
        pytest.param(ARMED, "disable B", FACTORY, id="a slot on trial that is written is no trial"),
        pytest.param(BOTH, "disable A", None, id="the primary slot stays bootable"),
        pytest.param(TRYING, "disable B", None, id="the running slot stays bootable"),
        pytest.param(FACTORY, "disable B", FACTORY, id="an unbootable slot stays so"),
        pytest.param(FACTORY, "arm B", ARMED, id="a written slot is tried next"),
        pytest.param(BOTH, "arm B", ARMED, id="a bootable slot is tried next"),
        pytest.param(FACTORY, "arm A", None, id="the primary slot cannot be on trial"),
        pytest.param(TRYING, "arm B", None, id="the running slot cannot be on trial again"),
        pytest.param(ARMED, "boot", TRYING, id="a boot takes the trial and counts it"),
        pytest.param(
            BootRecord("A", ("A", "B"), "A", "B", 2),
            "boot",
            BootRecord("A", ("A", "B"), "B", "B", 1),
            id="a trial with tries left is taken",
        ),
        pytest.param(TRYING, "boot", FACTORY, id="a trial that nobody confirmed falls back"),
        pytest.param(BOTH, "boot", BOTH, id="a boot without a trial takes the primary slot"),
        pytest.param(
            TRYING, "confirm B", BootRecord("B", ("A", "B"), "B"), id="the trial becomes primary"
        ),
        pytest.param(ARMED, "confirm B", None, id="a slot that does not run is not confirmed"),
        pytest.param(FACTORY, "confirm A", FACTORY, id="confirming again changes nothing"),
        pytest.param(ARMED, "revert B", FACTORY, id="a trial to come is called off"),
        pytest.param(TRYING, "revert B", TRYING, id="a running trial ends with the next boot"),
        pytest.param(
            BootRecord("A", ("A", "B"), "B", "B", 2),
            "revert B",
            TRYING,
            id="a running trial with tries left ends with the next boot",
        ),
        pytest.param(FACTORY, "revert A", None, id="a confirmed slot is not given up"),
    ],
)
def test_each_event(before: BootRecord, event: str, after: BootRecord | None) -> None:
    if after is None:
        with pytest.raises(ValueError, match="slot"):
            apply(before, event)
    else:
        assert apply(before, event) == after


def test_what_is_confirmed_is_called_so_when_it_is_given_up() -> None:
    for record in (FACTORY, TRYING):
        with pytest.raises(ValueError, match="slot 'A' is confirmed"):
            record.revert("A")


def apply(record: BootRecord, event: str, tries: int = 1) -> BootRecord:
    name, _, slot = event.partition(" ")
    match name:
        case "boot":
            return record.boot()
        case "arm":
            return record.arm(slot, tries)
        case _:
            after: BootRecord = getattr(record, name)(slot)
            return after


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(("A", (), "A"), id="nothing bootable"),
        pytest.param(("A", ("B",), "B"), id="the primary slot not bootable"),
        pytest.param(("A", ("A",), "B"), id="the running slot not bootable"),
        pytest.param(("A", ("A",), "A", "B", 1), id="an unbootable slot on trial"),
        pytest.param(("A", ("A",), "A", "A", 1), id="the primary slot on trial"),
        pytest.param(("A", ("A",), "A", "", 1), id="tries without a trial"),
        pytest.param(("A", ("A", "B"), "A", "B", -1), id="less than no tries"),
    ],
)
def test_a_record_that_could_strand_the_device_cannot_be_built(
    values: tuple[str, tuple[str, ...], str],
) -> None:
    with pytest.raises(ValueError, match=r"slot|tries"):
        BootRecord(*values)


EVENTS = [
    "boot",
    *(f"{name} {slot}" for name in ("disable", "arm", "confirm", "revert") for slot in SLOTS),
]


@given(st.lists(st.sampled_from(EVENTS), max_size=60), st.integers(1, 3))
def test_whatever_happens_a_bootable_slot_boots(events: list[str], tries: int) -> None:
    record = FACTORY
    for event in events:
        try:
            after = apply(record, event, tries)
        except ValueError:
            continue
        assert after.primary in after.bootable
        assert after.boot().running in after.boot().bootable
        if event == "boot":
            assert after.running in record.bootable
        else:
            assert after.running == record.running
        if after.primary != record.primary:
            assert event == f"confirm {record.running}"
        record = after
    for _ in range(tries + 1):
        record = record.boot()
    assert record.running == record.primary


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "boot.json"


def test_a_missing_record_is_a_device_from_the_factory(path: Path) -> None:
    loader = FileBootloader(path, SLOTS)
    assert (loader.running(), loader.primary(), loader.trial()) == ("A", "A", "")
    loader.reboot()
    assert loader.running() == "A"


def test_every_change_is_on_disk_when_the_call_returns(path: Path) -> None:
    FileBootloader(path, SLOTS).arm("B")
    assert FileBootloader(path, SLOTS).trial() == "B"
    FileBootloader(path, SLOTS).reboot()
    assert FileBootloader(path, SLOTS).running() == "B"
    assert FileBootloader(path, SLOTS).record().tries == TRIES - 1
    FileBootloader(path, SLOTS).confirm("B")
    assert FileBootloader(path, SLOTS).primary() == "B"
    FileBootloader(path, SLOTS).disable("A")
    assert FileBootloader(path, SLOTS).record().bootable == ("B",)
    assert json.loads(path.read_text())["schema"] == 1


def test_a_rejected_trial_goes_back_at_the_next_boot(path: Path) -> None:
    loader = FileBootloader(path, SLOTS, tries=3)
    loader.arm("B")
    loader.reboot()
    loader.revert("B")
    assert (loader.running(), loader.trial()) == ("B", "")
    loader.reboot()
    assert (loader.running(), loader.record().bootable) == ("A", ("A",))


def test_a_trial_survives_power_cuts_and_ends_after_its_tries(path: Path) -> None:
    loader = FileBootloader(path, SLOTS)
    loader.arm("B")
    for _ in range(TRIES):
        loader.reboot()
        assert loader.running() == "B"
    loader.reboot()
    assert loader.running() == "A"


def test_an_event_that_changes_nothing_writes_nothing(path: Path) -> None:
    loader = FileBootloader(path, SLOTS)
    loader.reboot()
    before = path.stat().st_ino
    loader.reboot()
    assert path.stat().st_ino == before


def test_what_the_record_refuses_is_a_local_failure_and_changes_nothing(path: Path) -> None:
    loader = FileBootloader(path, SLOTS)
    loader.arm("B")
    before = path.read_bytes()
    with pytest.raises(LocalFailureError, match="'A' is what this device boots from"):
        loader.disable("A")
    assert path.read_bytes() == before


GOOD = {"schema": 1, "primary": "A", "bootable": ["A"], "running": "A", "trial": "", "tries": 0}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut off"),
        pytest.param(b"\xff\xfe", id="not text"),
        pytest.param(b"[]", id="a list"),
        pytest.param(json.dumps(GOOD | {"schema": 2}).encode(), id="a newer schema"),
        pytest.param(json.dumps(GOOD | {"primary": "B"}).encode(), id="an unbootable primary"),
        pytest.param(
            json.dumps(GOOD | {"bootable": ["A", "Z"]}).encode(), id="a slot nobody configured"
        ),
        pytest.param(json.dumps(GOOD | {"more": 1}).encode(), id="an unknown field"),
        pytest.param(json.dumps({"schema": 1}).encode(), id="missing fields"),
        pytest.param(json.dumps(GOOD | {"tries": "x"}).encode(), id="a word for a number"),
    ],
)
def test_a_record_that_makes_no_sense_is_reported(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(LocalFailureError, match=r"boot\.json cannot be used") as caught:
        FileBootloader(path, SLOTS).running()
    assert "restore it" in caught.value.hint


def test_what_to_do_without_a_usable_record_asks_which_slot_is_to_boot(path: Path) -> None:
    path.write_bytes(b"{")
    with pytest.raises(LocalFailureError) as caught:
        FileBootloader(path, SLOTS).running()
    restored = caught.value.hint[caught.value.hint.index("{") :]
    assert "in place of A the slot that is to boot" in caught.value.hint
    path.write_text(restored.replace('"A"', '"B"'))
    loader = FileBootloader(path, SLOTS)
    assert (loader.running(), loader.primary(), loader.trial()) == ("B", "B", "")
    path.write_text(restored)
    assert loader.record() == FACTORY


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    return {name: tmp_path / f"{name}.img" for name in SLOTS}


@pytest.mark.parametrize("content", [b"x", bytes(70_000) + b"x", b"\xff" * 70_000 + b"x"])
def test_a_lost_record_is_no_factory_where_another_slot_holds_something(
    places: dict[str, Path], content: bytes
) -> None:
    # Attack on itself: whoever deletes the record while B runs would have B written.
    places["A"].write_bytes(b"the factory image")
    places["C"].write_bytes(content)
    loader = open_bootloader("file", places)
    for ask in (loader.running, loader.primary, loader.trial):
        with pytest.raises(LocalFailureError, match=r"boot\.json is missing.*slot C is not empty"):
            ask()
    with pytest.raises(LocalFailureError):
        loader.disable("B")
    assert not places["A"].with_name("boot.json").exists()
    places["C"].write_bytes(b"")
    assert loader.running() == "A"


def test_an_erased_partition_holds_nothing(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A block device has its length whatever was written; tests have none to give.
    monkeypatch.setattr("client_reference.install.bootloader.stat.S_ISBLK", lambda _: True)
    loader = open_bootloader("file", places)
    for blank in (bytes(1_000_000), b"\xff" * 1_000_000):
        places["B"].write_bytes(blank)
        assert loader.running() == "A"
    for written in (b"x" + bytes(4096), bytes(4095) + b"\xff", b"\xff" * 4095 + b"\0"):
        places["B"].write_bytes(written)
        with pytest.raises(LocalFailureError, match="slot B is not empty"):
            loader.running()


def test_a_slot_that_cannot_be_read_says_nothing_about_the_record(
    places: dict[str, Path],
) -> None:
    places["B"].mkdir()
    assert open_bootloader("file", places).running() == "A"


@pytest.mark.parametrize("content", [b"[]", json.dumps(GOOD | {"schema": 2}).encode()])
def test_what_is_no_boot_record_of_this_schema_is_called_so(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(LocalFailureError, match="it is not a boot record of schema 1"):
        FileBootloader(path, SLOTS).running()


def test_a_record_that_cannot_be_written_is_a_local_failure(tmp_path: Path) -> None:
    with pytest.raises(LocalFailureError, match="cannot be written"):
        FileBootloader(tmp_path / "missing" / "boot.json", SLOTS).arm("B")


def test_the_record_lies_beside_the_first_slot(tmp_path: Path) -> None:
    slots = {"A": tmp_path / "slots" / "A.img", "B": tmp_path / "B.img"}
    (tmp_path / "slots").mkdir()
    open_bootloader("file", slots).arm("B")
    assert (tmp_path / "slots" / "boot.json").is_file()


def test_an_unknown_boot_loader_names_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'grub'; this firmroot has file"):
        open_bootloader("grub", {"A": tmp_path})


def test_a_boot_loader_without_slots_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="slots is empty"):
        open_bootloader("file", {})
