"""Pure: what the device says about itself, as one JSON object and as lines for people.

Both come from the same values, so that they cannot tell different stories. What a mirror sent may
be quoted in an error before anybody verified it: `printable` keeps it from steering a terminal.
"""

from __future__ import annotations

from dataclasses import field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from client_reference.selection import Selection
from client_reference.strictjson import Json, format_time
from client_reference.trust import clock, verified
from client_reference.trust.state import Phase
from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tuf.api.metadata import T

    from client_reference.selection import Skip
    from client_reference.transport.fetch import HttpFetcher
    from client_reference.transport.policy import Mirror
    from client_reference.trust.anchor import Probe
    from client_reference.trust.state import DeviceState, Image, InstallState, TrustState
    from client_reference.update import Checked

__all__ = [
    "LAB",
    "LAB_MEANS",
    "Standing",
    "check_document",
    "check_lines",
    "expired",
    "image_document",
    "is_lab",
    "outlived",
    "printable",
    "size",
    "status_document",
    "status_lines",
    "timestamp_expires",
    "without_tls",
]

LAB = "x-firmroot-lab"
LAB_MEANS = "its keys protect nothing"


def is_lab(root: bytes) -> bool:
    """Whether a root says of itself that its keys protect nothing."""
    fields = verified.read(Root, Root.type, root).signed.unrecognized_fields
    return fields.get(LAB) is True


def without_tls(mirrors: Sequence[Mirror]) -> str:
    """A sentence on mirrors that are configured as plain HTTP; empty if there is none."""
    plain = ", ".join(mirror.url for mirror in mirrors if mirror.scheme == "http")
    return f"{plain}: no TLS, as configured; what is trusted rests on signatures" if plain else ""


def printable(text: str) -> str:
    """A text with everything escaped that a terminal or a log would not show as it is.

    Attack: an escape sequence, or a character that turns the writing direction, in metadata that
    nobody signed repaints the screen of whoever reads the refusal.
    """
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode()
        for each in text
    )


def size(count: int) -> str:
    """Bytes for people."""
    if count < 1024:  # noqa: PLR2004 # a KiB
        return f"{count} B"
    for unit, power in (("GiB", 3), ("MiB", 2), ("KiB", 1)):
        if count >= 1024**power:
            return f"{count / 1024**power:.1f} {unit}"
    raise AssertionError("every count is below a KiB or not")


def check_document(
    checked: Checked, transport: HttpFetcher, probe: Probe | None = None
) -> dict[str, Json]:
    """The outcome of a check for scripts. `probe`: of the recovery anchor, if it was asked."""
    decision = checked.decision
    document: dict[str, Json] = {
        "boot": checked.boot.value,
        "lab": checked.updater.root.unrecognized_fields.get(LAB) is True,
        "freshness": checked.updater.freshness.value,
        "root": checked.updater.root.version,
        "missing_root": checked.updater.missing_root,
        "requests": transport.traffic.requests,
        "received": transport.traffic.received,
        "degraded": list(transport.degraded.values()),
        "forbidden": list(transport.forbidden.values()),
        "mirrors": dict(transport.failures),
        "recovery": _probe_document(probe),
        "releases": [
            {
                "version": verdict.version,
                "sequence": verdict.sequence,
                "reason": verdict.reason.value if verdict.reason else None,
                "detail": verdict.detail,
            }
            for verdict in decision.verdicts
        ],
    }
    if isinstance(decision, Selection):
        release, artifact = decision.release, decision.payload.artifact
        document["update"] = {
            "version": release.version,
            "sequence": release.sequence,
            "severity": release.severity,
            "notes": release.notes,
            "length": artifact.length,
            "sha256": artifact.sha256,
            "destination": decision.destination.version,
        }
    else:
        document["update"] = None
        document["reason"] = decision.reason.value
        document["detail"] = decision.detail
    return document


def _probe_document(probe: Probe | None) -> Json:
    if probe is None:
        return None
    return {
        "occasion": probe.occasion.value,
        "outcome": probe.outcome.value,
        "epoch": probe.epoch,
        "version": probe.version,
        "failures": dict(probe.failures),
    }


def check_lines(decision: Selection | Skip, *, explain: bool) -> list[str]:
    """The outcome of a check for people."""
    if isinstance(decision, Selection):
        release = decision.release
        severity = f", {release.severity}" if release.severity else ""
        length = size(decision.payload.artifact.length)
        lines = [f"update available: {release.version} ({length}{severity})"]
        if decision.destination != release:
            lines.append(f"  as a stepping stone to {decision.destination.version}")
        if release.notes:
            lines.append(f"  {release.notes}")
    else:
        lines = [f"no update: {decision.detail}"]
    if explain:
        for verdict in decision.verdicts:
            place = f"{verdict.version} (sequence {verdict.sequence})"
            lines.append(f"  {place}: {verdict.detail}")
    return lines


@frozen
class Standing:
    """What `status` looks at.

    Attributes:
        product, channel: from the configuration.
        state: what is stored.
        install: what is installed, with the last boot taken into account.
        running: the slot that runs; may be empty.
        pending: whether the next boot will try a release.
        now: aware UTC reading of the system clock.
        program: how this command was called, for the next one.
        mirrors, recovery: from the configuration.
        unknown: the slot on trial of which nothing is stored; empty if there is none.
        refused: digests of payloads that somebody rejected here.
        recovery_failures: what was wrong with a recovery URL when it was asked last, by URL.
        recovery_fork: that two primary roots were seen then, and what to do; empty if not.
    """

    product: str
    channel: str
    state: DeviceState
    install: InstallState
    running: str
    pending: bool
    now: datetime
    program: str
    mirrors: Sequence[Mirror] = ()
    recovery: Sequence[Mirror] = ()
    unknown: str = ""
    refused: Sequence[str] = ()
    recovery_failures: Mapping[str, str] = field(default_factory=dict)
    recovery_fork: str = ""


def status_document(standing: Standing) -> dict[str, Json]:
    """Everything about the device for scripts."""
    trust, install = standing.state.trust, standing.install
    return {
        "product": standing.product,
        "channel": standing.channel,
        "lab": is_lab(trust.root),
        "roles": _roles(standing.state),
        "expired": list(expired(standing.state, standing.now)),
        "without_tls": [one.url for one in standing.mirrors if one.scheme == "http"],
        "clock": format_time(standing.now),
        "time_floor": format_time(datetime.fromtimestamp(trust.time_floor, UTC)),
        "freshness": _freshness(standing).value,
        "epoch": trust.epoch,
        "recovery_root": trust.recovery_version or None,
        "recovery_failures": dict(standing.recovery_failures),
        "recovery_fork": standing.recovery_fork or None,
        "phase": install.phase.value,
        "running": standing.running,
        "installed": image_document(install.current),
        "candidate": image_document(install.candidate),
        "unknown_trial": standing.unknown or None,
        "confirmed_sequence": install.confirmed_sequence,
        "rejected": list(install.rejected),
        "rejected_by_request": [one for one in install.rejected if one in standing.refused],
        "next": _next(standing),
    }


def _roles(state: DeviceState) -> Mapping[str, Json]:
    """Version and expiry of every stored role, in the order in which they are verified."""
    trust = state.trust
    roles: dict[str, Json] = {"root": _role(Root, "root", trust.root)}
    if trust.timestamp is not None:
        roles["timestamp"] = _role(Timestamp, "timestamp", trust.timestamp)
    if trust.snapshot is not None:
        roles["snapshot"] = _role(Snapshot, "snapshot", trust.snapshot)
    for name, data in sorted(trust.roles.items()):
        roles[name] = _role(Targets, name, data)
    return roles


def _role(kind: type[T], name: str, data: bytes) -> Json:
    signed = verified.read(kind, name, data).signed
    return {"version": signed.version, "expires": format_time(signed.expires)}


def expired(state: DeviceState, now: datetime) -> list[str]:
    """Stored roles that are no longer valid, by the later of clock and floor."""
    then = format_time(clock.effective_now(now, state.trust.time_floor))
    return [
        name
        for name, role in _roles(state).items()
        if isinstance(role, dict) and str(role["expires"]) <= then
    ]


def image_document(image: Image | None) -> Json:
    """An image for scripts; null if there is none."""
    if image is None:
        return None
    return {
        "version": image.version,
        "sequence": image.sequence,
        "slot": image.slot,
        "length": image.length,
        "sha256": image.sha256,
    }


def _freshness(standing: Standing) -> clock.Freshness:
    """Without an accepted timestamp no clock, however right, proves that anything is fresh."""
    expires = timestamp_expires(standing.state)
    if expires is None:
        return clock.Freshness.UNPROVEN
    return clock.freshness(standing.now, standing.state.trust.time_floor, expires)


def timestamp_expires(state: DeviceState) -> datetime | None:
    """When the timestamp ends that was accepted last; None before the first."""
    data = state.trust.timestamp
    if data is None:
        return None
    return verified.read(Timestamp, Timestamp.type, data).signed.expires


def outlived(expires: datetime) -> str:
    """What to think of a clock that says that the timestamp has ended."""
    return (
        f"timestamp expired at {format_time(expires)}, your clock or a frozen mirror if the next "
        "check does not renew it"
    )


def _next(standing: Standing) -> str:
    phase = standing.install.phase
    if standing.unknown:
        return f"{standing.program} reject"
    if phase is Phase.TRIAL and not standing.pending:
        return f"{standing.program} confirm"
    if phase is Phase.TRIAL and not _of_an_ended_epoch(standing):
        return "restart the device"
    return f"{standing.program} update"


def _of_an_ended_epoch(standing: Standing) -> bool:
    image = standing.install.candidate
    return image is not None and image.epoch != standing.state.trust.epoch


def status_lines(standing: Standing) -> list[str]:
    """Everything about the device for people."""
    install, trust = standing.install, standing.state.trust
    floor = format_time(datetime.fromtimestamp(trust.time_floor, UTC))
    fresh = _freshness(standing).value
    expires = timestamp_expires(standing.state)
    if expires is None:
        fresh += ": nothing was checked yet"
    elif clock.ended(standing.now, expires):
        fresh += f": {outlived(expires)}"
    lab = f"  (LAB: {LAB_MEANS})" if is_lab(trust.root) else ""
    lines = [
        f"channel    {standing.product}/{standing.channel}{lab}",
        f"installed  {_place(install.current) or 'the factory image'}",
    ]
    if install.candidate is not None:
        ended = ", of an epoch that has ended" if _of_an_ended_epoch(standing) else ""
        lines.append(f"{install.phase.value:<10} {_place(install.candidate)}{ended}")
    else:
        lines.append("phase      idle")
    if standing.unknown:
        lines.append(f"unknown    slot {standing.unknown} is on trial, nothing is stored about it")
    lines += [
        f"floor      sequence {install.confirmed_sequence}, time {floor}",
        f"clock      {format_time(standing.now)}, freshness {fresh}",
        "roles      " + _role_line(standing.state),
    ]
    if stale := expired(standing.state, standing.now):
        names = ", ".join(stale)
        lines.append(f"expired    {names}: renewed when a check needs them, or it says why not")
    if plain := without_tls(standing.mirrors):
        lines.append(f"transport  {plain}")
    failed = standing.recovery_failures
    some = f", {len(failed)} failed" if failed else ""
    some += ", forked" if standing.recovery_fork else ""
    lines.append(f"anchor     {_anchor(trust, standing.recovery)}{some}")
    lines += [f"           {standing.recovery_fork}"] if standing.recovery_fork else []
    lines += [f"           {url}: {why}" for url, why in failed.items()]
    if install.rejected:
        lines.append(f"rejected   {_rejections(install.rejected, standing.refused)}")
    lines.append(f"next       {_next(standing)}")
    return lines


def _rejections(rejected: Sequence[str], refused: Sequence[str]) -> str:
    asked = sum(digest in refused for digest in rejected)
    fallen = len(rejected) - asked
    parts = [f"{asked} by `reject`"] if asked else []
    parts += [f"{fallen} did not come up and was rolled back"] if fallen else []
    return f"{len(rejected)} payload{'s' * (len(rejected) > 1)}: {', '.join(parts)}"


def _anchor(trust: TrustState, urls: Sequence[Mirror]) -> str:
    """Where the device stands with its recovery anchor, and what it lacks to be led by it."""
    if not trust.recovery_version:
        lacks = "recovery-root.json of the factory export"
        lacks += "" if urls else " and repository.recovery of device.toml"
        return f"epoch {trust.epoch}, none: it needs {lacks}"
    asked = f"asked at {len(urls)} URL(s)" if urls else "never asked: set repository.recovery"
    return f"epoch {trust.epoch}, recovery root {trust.recovery_version}, {asked}"


def _place(image: Image | None) -> str:
    if image is None:
        return ""
    slot = f" in slot {image.slot}" if image.slot else ""
    return f"{image.version} (sequence {image.sequence}){slot}"


def _role_line(state: DeviceState) -> str:
    parts = []
    for name, role in _roles(state).items():
        if isinstance(role, dict):
            parts.append(f"{name} {role['version']}")
    return ", ".join(parts)
