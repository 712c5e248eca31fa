"""What the image carries from the factory is read whole, or named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from client_reference.errors import ConfigurationError
from client_reference.factory import MAX_FLOORS, MAX_ROOT, load
from client_reference.trust.updater import Floors

if TYPE_CHECKING:
    from pathlib import Path

FLOORS = (
    b'{"schema": 1, "product": "gateway", "time": "2026-03-02T06:00:00Z",'
    b' "minimum_sequence": 3, "epoch": 0}'
)


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    (tmp_path / "root.json").write_bytes(b"{}")
    (tmp_path / "floors.json").write_bytes(FLOORS)
    return tmp_path


def test_root_and_floors_are_read(factory: Path) -> None:
    found = load(factory)
    assert (found.product, found.root) == ("gateway", b"{}")
    assert found.floors == Floors(time=1772431200, minimum_sequence=3, epoch=0)


LIMITS = {"root.json": MAX_ROOT, "floors.json": MAX_FLOORS}


@pytest.mark.parametrize("name", LIMITS)
def test_a_file_of_the_greatest_length_is_read_and_a_longer_one_is_not(
    factory: Path, name: str
) -> None:
    file = factory / name
    file.write_bytes(file.read_bytes().ljust(LIMITS[name]))
    assert load(factory).product == "gateway"
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ConfigurationError, match=f"{name} is longer than {LIMITS[name]} bytes"):
        load(factory)


@pytest.mark.parametrize("name", LIMITS)
def test_a_file_that_is_missing_is_named(factory: Path, name: str) -> None:
    (factory / name).unlink()
    with pytest.raises(
        ConfigurationError, match=rf"{name} cannot be read \(No such file"
    ) as caught:
        load(factory)
    assert "trust.factory" in caught.value.hint


@pytest.mark.parametrize("wrong", [b"", b"[]", FLOORS.replace(b"1,", b"2,", 1)])
def test_floors_that_are_malformed_or_of_another_schema_are_told(
    factory: Path, wrong: bytes
) -> None:
    (factory / "floors.json").write_bytes(wrong)
    with pytest.raises(ConfigurationError) as caught:
        load(factory)
    assert "firmroot factory export" in caught.value.hint
    (factory / "floors.json").write_bytes(FLOORS)
    assert load(factory).product == "gateway"
