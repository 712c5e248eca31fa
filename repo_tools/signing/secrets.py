"""Where passphrases come from: a file descriptor, a file, or a person. Never the command line.

An argument is visible to every user of the machine (`ps`), stays in the shell's history and in CI
logs. Each source is asked at most once for each key; passphrases stay in memory only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from client_reference.errors import ActionRequiredError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["PASSPHRASE_FILE", "Secrets", "open_secrets"]

PASSPHRASE_FILE = "FIRMROOT_PASSPHRASE_FILE"  # noqa: S105  the name of a variable

_MAX_PASSPHRASE = 4096
_TOKEN = "token "  # noqa: S105  in front of labels: no name of a key has a space


@dataclass
class Secrets:
    """Passphrases by key name.

    Attributes:
        fixed: one passphrase for every key, from a descriptor or file; None to ask.
        source: where that is from, as an error names it.
        prompt: asks a person, given the question; None where nobody is there.
    """

    fixed: bytes | None = field(default=None, repr=False)
    prompt: Callable[[str], str] | None = None
    source: str = ""
    _known: dict[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def after_wrong(self) -> str:
        """What to do about a passphrase or PIN that was wrong; nothing was signed."""
        if self.fixed is None:
            return "nothing was signed; try again"
        return (
            f"nothing was signed; it is from {self.source}: correct that, or leave it to be asked"
        )

    def passphrase(self, name: str) -> bytes:
        """The passphrase of a key.

        Raises:
            ActionRequiredError: nobody can be asked; names the options.
        """
        if self.fixed is not None:
            return self.fixed
        if name not in self._known:
            if self.prompt is None:
                raise ActionRequiredError(
                    f"the passphrase of {name} is needed and there is no terminal to ask",
                    f"give --passphrase-fd N, or the path of a file in {PASSPHRASE_FILE}",
                )
            self._known[name] = self.prompt(f"Passphrase of {name}").encode()
        return self._known[name]

    def pin(self, token: str) -> str:
        """The PIN of a token, asked once for everything that waits for it.

        Args:
            token: its label; empty where only one is there.

        Raises:
            ActionRequiredError: nobody can be asked.
        """
        if self.fixed is not None:
            return self.fixed.decode()
        known = f"{_TOKEN}{token}"
        if known not in self._known:
            what = f"token {token}" if token else "the only token"
            if self.prompt is None:
                raise ActionRequiredError(
                    f"the PIN of {what} is needed and there is no terminal to ask",
                    f"give --passphrase-fd N, or the path of a file in {PASSPHRASE_FILE}",
                )
            self._known[known] = self.prompt(f"PIN of {what}").encode()
        return self._known[known].decode()

    def forget_pin(self, token: str) -> None:
        """Ask for it again next time: it was wrong."""
        self._known.pop(f"{_TOKEN}{token}", None)

    def share(self, name: str, other: str) -> None:
        """Two names are one key: who has given its passphrase is not asked again."""
        if name in self._known:
            self._known[other] = self._known[name]

    def forget(self, name: str) -> None:
        """Ask again next time: it was wrong."""
        self._known.pop(name, None)


def open_secrets(
    descriptor: int | None,
    environment: Mapping[str, str],
    prompt: Callable[[str], str] | None,
    fallback: Path | None = None,
) -> Secrets:
    """Choose the source: descriptor, then the environment's file, then `fallback`, then a person.

    Args:
        descriptor: of `--passphrase-fd`; its first line is read.
        environment: of the process; only `FIRMROOT_PASSPHRASE_FILE` is looked at.
        prompt: asks a person; None without a terminal.
        fallback: the passphrase file of a lab workspace.

    Raises:
        ConfigurationError: the source that was named cannot be read or is empty.
    """
    if descriptor is not None:
        return Secrets(_read_descriptor(descriptor), source=f"--passphrase-fd {descriptor}")
    if path := environment.get(PASSPHRASE_FILE):
        return Secrets(
            _read_file(Path(path), PASSPHRASE_FILE), source=f"{PASSPHRASE_FILE} ({path})"
        )
    if fallback is not None and fallback.exists():
        what = "the lab passphrase"
        return Secrets(_read_file(fallback, what), source=f"{what} ({fallback})")
    return Secrets(prompt=prompt)


def _read_descriptor(descriptor: int) -> bytes:
    try:
        with os.fdopen(os.dup(descriptor), "rb") as file:
            return _first_line(file.read(_MAX_PASSPHRASE), f"--passphrase-fd {descriptor}")
    except OSError as error:
        raise ConfigurationError(
            f"--passphrase-fd {descriptor} cannot be read: {error.strerror}",
            f"open it in the shell, such as --passphrase-fd 3 3<FILE, or use {PASSPHRASE_FILE}",
        ) from error


def _read_file(path: Path, what: str) -> bytes:
    try:
        return _first_line(path.read_bytes()[:_MAX_PASSPHRASE], f"{what} ({path})")
    except OSError as error:
        raise ConfigurationError(f"{what}: {path} cannot be read: {error.strerror}") from error


def _first_line(data: bytes, what: str) -> bytes:
    line = data.split(b"\n", 1)[0].removesuffix(b"\r")
    if not line:
        raise ConfigurationError(f"{what} is empty, expected a passphrase in its first line")
    return line
