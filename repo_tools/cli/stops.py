"""What a signer must say before signing: that what is unusual is expected, and what was tested."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from client_reference.errors import ConfigurationError
from repo_tools.signing.unusual import CHECKS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from typing import Any, TypeVar

    from repo_tools.cli.context import Context
    from repo_tools.signing.unusual import Unusual

    F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["accept_option", "digests_of", "settle", "tested_option"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


def accept_option(command: F) -> F:
    """`--accept-unusual NAME`, for where nobody is there to ask."""
    return click.option(
        "--accept-unusual",
        "accepted",
        metavar="NAME",
        multiple=True,
        type=click.Choice(list(CHECKS)),
        help="Say that this unusual thing is expected.",
    )(command)


def tested_option(command: F) -> F:
    """`--tested SHA256|FILE`."""
    return click.option(
        "--tested",
        metavar="SHA256|FILE",
        multiple=True,
        help="Record that this artifact was tested; another one is then unusual.",
    )(command)


def digests_of(values: Iterable[str]) -> list[str]:
    """What `--tested` names: digests as they are, files by their content.

    Raises:
        ConfigurationError: it is neither.
    """
    return [value if _SHA256.fullmatch(value) else _hash(Path(value)) for value in values]


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigurationError(
            f"--tested {path}: {error.strerror}; expected 64 hex digits or a file"
        ) from error


def settle(context: Context, stops: Sequence[Unusual], accepted: Collection[str]) -> None:
    """Ask about each kind of unusual thing that was found; `--yes` does not answer.

    Raises:
        ActionRequiredError: nobody is there to ask, or the answer was no.
    """
    found = dict.fromkeys(each.id for each in stops if each.id not in accepted)
    for name in found:
        details = "; ".join(each.detail for each in stops if each.id == name)
        context.confirm(f"UNUSUAL: {details}. Expected?", option=f"--accept-unusual {name}")
