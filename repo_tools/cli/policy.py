"""`firmroot policy`: check and explain the policy."""

from __future__ import annotations

import click

from client_reference.errors import ConfigurationError, ExitCode
from client_reference.nearest import did_you_mean
from keys_policy.checks import CHECKS, Severity
from repo_tools.cli.context import Context, example
from repo_tools.signing.rules import judge

__all__ = ["policy"]

# The id, under --json, of what cannot be read at all and so is no finding of a check.
SHAPE = "shape"


@click.group(epilog=example("firmroot policy check"))
def policy() -> None:
    """Check and explain the policy."""


@policy.command(epilog=example("firmroot policy check", "firmroot --json policy check"))
@click.pass_context
def check(context: click.Context) -> None:
    """Check policy.toml, the keys, and what is signed or waits to be.

    Exit code 5 if there is an error; warnings do not fail. Exit code 2 if a field cannot be read:
    then it is judged by what does not depend on that field.
    """
    ours: Context = context.obj
    mistakes, found = judge(ours.directory, ours.now)
    for mistake in mistakes:
        ours.printer.say(f"error: {mistake.text}")
        ours.printer.say(f"  {mistake.fix}")
    for each in found:
        ours.printer.say(f"{each.severity.value}: {each.text} [{each.check.id}]")
        ours.printer.say(f"  {each.check.fix}")
    failed = any(each.severity is not Severity.WARNING for each in found)
    ours.printer.say(f"{len(CHECKS)} checks, {len(mistakes) + len(found)} finding(s)")
    if mistakes:
        ours.printer.say("more may be found when what cannot be read is corrected")
    ours.printer.result(
        {
            "ok": not (mistakes or failed),
            "findings": [
                *(
                    {
                        "id": SHAPE,
                        "severity": Severity.ERROR.value,
                        "file": each.file,
                        "detail": each.detail,
                        "fix": each.fix,
                    }
                    for each in mistakes
                ),
                *(
                    {
                        "id": each.check.id,
                        "severity": each.severity.value,
                        "file": each.file,
                        "detail": each.detail,
                        "fix": each.check.fix,
                    }
                    for each in found
                ),
            ],
        }
    )
    if mistakes:
        context.exit(ExitCode.USAGE)
    context.exit(ExitCode.REFUSED if failed else ExitCode.DONE)


@policy.command(epilog=example("firmroot policy explain threshold-spare"))
@click.argument("check_id", metavar="[ID]", required=False)
@click.pass_obj
def explain(context: Context, check_id: str | None) -> None:
    """Explain a check: what it looks for, why, and how to put it right. All without ID."""
    chosen = [each for each in CHECKS if check_id in {None, each.id}]
    if not chosen:
        raise ConfigurationError(
            f"there is no check {check_id!r}; there are: {', '.join(each.id for each in CHECKS)}"
            f"{did_you_mean(check_id or '', (each.id for each in CHECKS))}",
            "firmroot policy explain",
        )
    for each in chosen:
        context.printer.say(f"{each.id} ({each.severity.value})")
        for title, text in (("what", each.what), ("why", each.why), ("fix", each.fix)):
            context.printer.say(f"  {title}: {text}")
    context.printer.result(
        {
            each.id: {
                "severity": each.severity.value,
                "what": each.what,
                "why": each.why,
                "fix": each.fix,
            }
            for each in chosen
        }
    )
