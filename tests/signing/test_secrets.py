"""Where passphrases come from, in order, and never from the command line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import ActionRequiredError, ConfigurationError
from repo_tools.signing.secrets import Secrets, open_secrets

if TYPE_CHECKING:
    from pathlib import Path


def never(question: str) -> str:
    raise AssertionError(question)


def descriptor_with(data: bytes) -> int:
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    return reader


@pytest.fixture
def sources(tmp_path: Path) -> tuple[dict[str, str], Path]:
    (tmp_path / "named").write_bytes(b"from the file\r\nsecond line\n")
    (tmp_path / "lab").write_bytes(b"from the lab\n")
    return {"FIRMROOT_PASSPHRASE_FILE": str(tmp_path / "named")}, tmp_path / "lab"


def test_the_descriptor_goes_first(sources: tuple[dict[str, str], Path]) -> None:
    environment, lab = sources
    descriptor = descriptor_with(b"from the descriptor\nmore")
    secrets = open_secrets(descriptor, environment, never, lab)
    assert secrets.passphrase("alice") == b"from the descriptor"
    os.close(descriptor)


def test_then_the_file_that_the_environment_names(sources: tuple[dict[str, str], Path]) -> None:
    environment, lab = sources
    assert open_secrets(None, environment, never, lab).passphrase("alice") == b"from the file"


def test_then_the_lab(sources: tuple[dict[str, str], Path]) -> None:
    assert open_secrets(None, {}, never, sources[1]).passphrase("alice") == b"from the lab"


def test_then_a_person_once_for_each_key(tmp_path: Path) -> None:
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return "typed"

    secrets = open_secrets(None, {}, ask, tmp_path / "no")
    assert secrets.passphrase("alice") == secrets.passphrase("alice") == b"typed"
    secrets.passphrase("bob")
    assert asked == ["Passphrase of alice", "Passphrase of bob"]
    secrets.forget("alice")
    secrets.passphrase("alice")
    assert len(asked) == 3


def test_what_was_wrong_is_told_with_where_it_is_from(
    sources: tuple[dict[str, str], Path],
) -> None:
    environment, lab = sources
    named = environment["FIRMROOT_PASSPHRASE_FILE"]
    for secrets, where in (
        (open_secrets(None, environment, never, lab), f"from FIRMROOT_PASSPHRASE_FILE ({named}): "),
        (open_secrets(None, {}, never, lab), f"from the lab passphrase ({lab}): "),
        (open_secrets(None, {}, never), "nothing was signed; try again"),
    ):
        assert where in secrets.after_wrong


def test_without_a_terminal_the_options_are_named() -> None:
    with pytest.raises(ActionRequiredError) as caught:
        open_secrets(None, {}, None).passphrase("alice")
    assert "the passphrase of alice is needed and there is no terminal" in caught.value.message
    assert "--passphrase-fd N" in caught.value.hint
    assert "FIRMROOT_PASSPHRASE_FILE" in caught.value.hint


def test_a_source_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--passphrase-fd 999 cannot be read: Bad file"):
        open_secrets(999, {}, never)
    missing = {"FIRMROOT_PASSPHRASE_FILE": str(tmp_path / "none")}
    with pytest.raises(ConfigurationError, match="none cannot be read: No such file"):
        open_secrets(None, missing, never)
    descriptor = descriptor_with(b"\n")
    with pytest.raises(ConfigurationError, match="is empty, expected a passphrase"):
        open_secrets(descriptor, {}, never)
    os.close(descriptor)


def test_secrets_do_not_show_what_was_typed() -> None:
    secrets = Secrets(prompt=lambda _: "typed secret")
    secrets.passphrase("alice")
    assert "typed secret" not in repr(secrets)
    assert "fixed secret" not in repr(Secrets(b"fixed secret"))
