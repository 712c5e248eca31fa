"""The table of handlers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from client_reference.errors import ConfigurationError
from client_reference.install.handlers import HANDLERS, InstallSettings, open_installer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", HANDLERS)
def test_every_handler_opens_under_its_own_name(name: str, tmp_path: Path) -> None:
    slots = {"A": tmp_path / "A.img", "B": tmp_path / "B.img"}
    settings = InstallSettings(name, tmp_path, slots, run=["true", "{path}"])
    assert open_installer(settings).name == name


def test_an_unknown_handler_names_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'rauc'; this firmroot has slot, command"):
        open_installer(InstallSettings("rauc", tmp_path))
