"""`firmroot sign FILE --key URI` where there is no workspace: a file, a key, and nothing else."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from client_reference.errors import ConfigurationError
from repo_tools.cli.ceremony_show import quorum_lines
from repo_tools.cli.stops import digests_of, settle
from repo_tools.files import replace_file
from repo_tools.signing.apart import find_holder, review_apart
from repo_tools.signing.known_good import KnownGood, user_file
from repo_tools.signing.portable import read_portable
from repo_tools.signing.secrets import Secrets
from repo_tools.signing.signers import FILES, open_signer
from repo_tools.signing.signers import sign as sign_payload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keys_policy.model import KeyHolder
    from repo_tools.cli.context import Context
    from repo_tools.signing.portable import Portable
    from repo_tools.signing.review import Review

__all__ = ["sign_apart"]


@dataclass(frozen=True)
class _Task:
    file: Path
    portable: Portable
    holder: KeyHolder
    told: Review

    @property
    def target(self) -> Path:
        """Where the signature goes."""
        return self.file.with_name(f"{self.portable.name}.{self.holder.name}.sig.json")


def sign_apart(
    context: Context,
    files: Sequence[Path],
    key: str | None,
    called: str | None,
    descriptor: int | None,
    tested: Sequence[str],
    accepted: Sequence[str],
) -> None:
    """Show what the files ask for, ask, and write a signature beside each.

    Arguments are those of the command. Nothing is signed before all of it was judged and shown.

    Raises:
        ConfigurationError: no key is named.
    """
    if key is None:
        raise ConfigurationError(
            "there is no workspace here, so the key must be named",
            f"firmroot sign {files[0]} --key file:KEY.pem",
        )
    secrets = context.secrets(None, descriptor)
    memory = KnownGood.open(user_file(os.environ), by_key=True)
    memory.record_tested(digests_of(tested), context.now)
    tasks = [_task(file, key, called, secrets, memory) for file in files]
    for task in tasks:
        _show(context, task)
    settle(context, [stop for task in tasks for stop in task.told.stops], accepted)
    who = ", ".join(dict.fromkeys(task.holder.name for task in tasks))
    context.confirm(f"Sign {len(tasks)} time(s), with {who}?")
    _sign(key, tasks, secrets)
    for task in tasks:
        found, keyid = task.portable, task.holder.key.keyid
        memory.keep(found.role, [keyid], found.signed, found.people, found.carries, context.now)
        context.printer.say(f"{found.name}: signed by {task.holder.name}")
        context.printer.say(
            f"wrote {task.target}; send it back for: firmroot ceremony merge {task.target.name}"
        )
    context.printer.result(
        {
            "signed": {task.portable.name: [task.holder.name] for task in tasks},
            "files": [str(task.target) for task in tasks],
            "words": {task.portable.name: task.told.words for task in tasks},
        }
    )


def _task(file: Path, key: str, called: str | None, secrets: Secrets, memory: KnownGood) -> _Task:
    portable = read_portable(file)
    holder = find_holder(portable, key, called, secrets, Path())
    return _Task(file, portable, holder, review_apart(portable, memory, [holder.key.keyid]))


def _show(context: Context, task: _Task) -> None:
    for index, line in enumerate(task.told.lines):
        context.printer.say(f"{'  ' if index else ''}{line}")
    for line in quorum_lines(task.portable):
        context.printer.say(line)
    who = f"{task.holder.name}, {task.holder.key.keyid[:8]}"
    context.printer.say(f"your key: {who}")
    context.printer.say(f"read aloud: {task.told.words}")


def _sign(key: str, tasks: Sequence[_Task], secrets: Secrets) -> None:
    """Each key is opened once, so that one PIN is enough, and before anything is signed."""
    if key.partition(":")[0] in FILES:  # its passphrase was asked for to see whose key it is
        secrets = Secrets(secrets.passphrase(key))
    holders = {task.holder.key.keyid: task.holder for task in tasks}
    signers = {
        keyid: open_signer(key, holder, secrets, Path()) for keyid, holder in holders.items()
    }
    for task in tasks:
        found = task.portable
        signature = sign_payload(signers[task.holder.key.keyid], task.holder, found.payload)
        document = {**signature.to_dict(), "role": found.role, "version": found.signed.version}
        data = json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"
        replace_file(task.target, data)
