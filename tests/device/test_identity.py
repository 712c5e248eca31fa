from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from client_reference import identity
from client_reference.config import IdentitySource
from client_reference.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def program(directory: Path, text: str) -> IdentitySource:
    path = directory / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return IdentitySource("command", str(path))


def test_the_device_tree_names_the_board_before_its_family(tmp_path: Path) -> None:
    compatible = tmp_path / "compatible"
    compatible.write_bytes(b"acme,gw-2\0acme,gw\0")
    assert identity.hardware(IdentitySource("device-tree"), compatible) == ("acme,gw-2", "acme,gw")


def test_a_program_prints_one_id_per_line(tmp_path: Path) -> None:
    source = program(tmp_path, "printf 'acme,gw-2\\nacme,gw\\n'")
    assert identity.hardware(source) == ("acme,gw-2", "acme,gw")


def test_a_device_id_comes_from_a_file_without_its_ends(tmp_path: Path) -> None:
    path = tmp_path / "serial"
    path.write_bytes(b"0042\n\0")
    assert identity.device_id(IdentitySource("file", str(path))) == "0042"
    assert identity.device_id(IdentitySource("literal", "x")) == "x"
    assert identity.device_id(program(tmp_path, "echo 7")) == "7"


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"identity.device_id: .*none cannot be read"):
        identity.device_id(IdentitySource("file", str(tmp_path / "none")))
    with pytest.raises(ConfigurationError, match=r"identity.hardware: .* cannot be read") as raised:
        identity.hardware(IdentitySource("device-tree"), tmp_path / "none")
    assert 'under [identity] in device.toml: hardware = "literal:' in raised.value.hint
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="is not UTF-8"):
        identity.device_id(IdentitySource("file", str(tmp_path / "binary")))


def test_a_program_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"gives no text: .*exit status 3"):
        identity.hardware(program(tmp_path, "exit 3"))
    with pytest.raises(ConfigurationError, match="gives no text"):
        identity.hardware(IdentitySource("command", str(tmp_path / "none")))


def test_an_empty_device_id_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(ConfigurationError, match="device_id is empty"):
        identity.device_id(IdentitySource("file", str(tmp_path / "empty")))


def test_hardware_that_is_none_or_has_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="gives nothing"):
        identity.hardware(program(tmp_path, "echo"))
    with pytest.raises(ConfigurationError, match=r"gives 'acme gw\*'"):
        identity.hardware(program(tmp_path, "echo 'acme gw*'"))
