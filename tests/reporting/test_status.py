"""The status line: what is due, and the one command that is next."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Targets

from keys_policy.model import RolePolicy
from repo_tools.reporting.status import Due, Situation, early_report, report
from repo_tools.signing.ceremony import Base, Ceremony, CeremonyStatus, Quorum

NOW = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)
DAY = timedelta(days=1)
RULES = {
    "root": RolePolicy(2, ("alice", "bob", "carol"), 365, 60),
    "targets": RolePolicy(2, ("alice", "bob", "carol"), 365, 60),
    "timestamp": RolePolicy(1, ("publisher",), 7, 2),
    "gateway-stable": RolePolicy(2, ("rita", "sam", "tess"), 90, 30),
    "gateway-builds": RolePolicy(1, ("ci",), 365, 60),
}
WELL = Situation(
    now=NOW,
    rules=RULES,
    live={
        "root": (3, NOW + 300 * DAY),
        "targets": (5, NOW + 200 * DAY),
        "timestamp": (99, NOW + 5 * DAY),
        "gateway-stable": (7, NOW + 40 * DAY),
    },
    has_root=True,
    has_keys=True,
    products=("gateway",),
    mine=frozenset({"alice"}),
)


CHANNELS = {"gateway": ("gateway-stable",)}
BUILT = {"gateway-builds": (1, NOW + 300 * DAY)}


def ceremony(
    *signed: str, missing: tuple[str, ...] = (), problems: tuple[str, ...] = ()
) -> CeremonyStatus:
    opened = Ceremony(Path("ceremonies/targets-6"), "targets", Base(5, ""), Targets(6, expires=NOW))
    return CeremonyStatus(opened, (Quorum("root", 2, signed, missing),), (), problems)


MINE = ceremony("bob", missing=("alice", "carol"))
THEIRS = ceremony("alice", missing=("bob", "carol"))
COMPLETE = ceremony("alice", "bob")
SIGNED_CHANNEL = CeremonyStatus(
    Ceremony(
        Path("ceremonies/gateway-stable-8"),
        "gateway-stable",
        Base(7, ""),
        Targets(8, expires=NOW),
    ),
    (Quorum("targets", 2, ("rita", "sam"), ()),),
    (),
    (),
)

NEXT = [
    ("all is well", WELL, "", "timestamp is next, from 2026-03-05"),
    ("no key", replace(WELL, has_keys=False), "firmroot key new NAME", "there is no key yet"),
    ("a violation", replace(WELL, violations=("bad [x]",)), "firmroot policy check", "bad [x]"),
    (
        "the policy is ahead of the root",
        replace(WELL, violations=("root 1: bad [policy-binds]",), behind=("root",)),
        "firmroot ceremony start root",
        "root 1: bad [policy-binds]",
    ),
    (
        "the policy is ahead of the root, and there is an anchor",
        replace(WELL, violations=("root 1: bad [policy-binds]",), behind=("root",), anchored=True),
        "firmroot ceremony start root",
        "if a threshold of root is gone: firmroot anchor re-root",
    ),
    (
        "the policy is ahead of targets, which the anchor does not touch",
        replace(WELL, violations=("bad [policy-binds]",), behind=("targets",), anchored=True),
        "firmroot ceremony start targets",
        "bad [policy-binds]",
    ),
    (
        "no root",
        replace(WELL, has_root=False),
        "firmroot ceremony start root targets",
        "there is no root yet",
    ),
    (
        "my signature",
        replace(WELL, ceremonies=(MINE,)),
        "firmroot sign",
        "targets-6 waits for alice",
    ),
    (
        "somebody else's signature",
        replace(WELL, ceremonies=(THEIRS,)),
        "firmroot sign, by bob or carol",
        "targets-6 waits for them, in their clones or on a file: firmroot ceremony export targets",
    ),
    (
        "nobody is left to sign",
        replace(WELL, ceremonies=(ceremony("alice"),)),
        "firmroot sign, by nobody left",
        "targets-6 waits",
    ),
    (
        "nobody says who signs",
        replace(WELL, ceremonies=(replace(THEIRS, quorums=()),)),
        "firmroot ceremony start root",
        "no root role says who signs yet",
    ),
    ("complete", replace(WELL, ceremonies=(COMPLETE,)), "firmroot sign", "gets staged"),
    (
        "complete, but the role that says who signs it is not",
        replace(WELL, ceremonies=(SIGNED_CHANNEL, THEIRS)),
        "firmroot sign, by bob or carol",
        "targets-6 waits for them",
    ),
    (
        "complete, and so is the role that says who signs it",
        replace(WELL, ceremonies=(SIGNED_CHANNEL, COMPLETE)),
        "firmroot sign",
        "gets staged",
    ),
    (
        "mine comes before others'",
        replace(WELL, ceremonies=(THEIRS, MINE)),
        "firmroot sign",
        "waits for alice",
    ),
    ("no product", replace(WELL, products=()), "firmroot product add", "there is no product yet"),
    (
        "the storage does not answer",
        replace(WELL, live={}, unread="no route"),
        "firmroot verify",
        "no route",
    ),
    (
        "a channel is due",
        replace(WELL, live={"gateway-stable": (7, NOW + 30 * DAY)}),
        "firmroot ceremony start gateway-stable",
        "time to sign again",
    ),
    (
        "the timestamp is due",
        replace(WELL, live={"timestamp": (7, NOW + 2 * DAY)}),
        "firmroot refresh",
        "timestamp: time to sign again",
    ),
    (
        "the root has expired, and a channel with it",
        replace(WELL, live={"root": (3, NOW), "gateway-stable": (7, NOW)}),
        "firmroot recover expired-root",
        "time to sign again",
    ),
    (
        "the root is due and has not expired",
        replace(WELL, live={"root": (3, NOW + DAY)}),
        "firmroot ceremony start root",
        "root: time to sign again",
    ),
    (
        "the root has expired and is signed again already",
        replace(WELL, live={"root": (3, NOW)}, staged=("root",)),
        "firmroot publish",
        "root: signed and staged",
    ),
    (
        "what has expired beside what is signed again comes first",
        replace(
            WELL,
            live={"root": (3, NOW), "gateway-stable": (7, NOW), "timestamp": (9, NOW)},
            staged=("root",),
        ),
        "firmroot ceremony start gateway-stable",
        "gateway-stable: time to sign again",
    ),
    (
        "a root that has expired beside what is signed again comes first",
        replace(
            WELL,
            live={"root": (3, NOW), "gateway-stable": (7, NOW)},
            staged=("gateway-stable",),
        ),
        "firmroot recover expired-root",
        "root: time to sign again",
    ),
    (
        "what is due is signed already",
        replace(WELL, live={"gateway-stable": (7, NOW)}, staged=("gateway-stable",)),
        "firmroot publish",
        "gateway-stable: signed and staged",
    ),
    ("staged", replace(WELL, staged=("root",)), "firmroot publish", "root: signed and staged"),
    (
        "only builds are staged",
        replace(
            WELL, staged=("gateway-builds",), built={"gateway-builds": "1.1"}, channels=CHANNELS
        ),
        "firmroot channel promote gateway@1.1 --to stable",
        "no channel offers it",
    ),
    (
        "builds of this machine, and the publisher is elsewhere",
        replace(
            WELL,
            staged=("gateway-builds",),
            built={"gateway-builds": "1.1"},
            channels=CHANNELS,
            mine=frozenset({"ci"}),
        ),
        "firmroot submit",
        "gateway-builds: signed and staged; the publisher takes it on",
    ),
    (
        "builds that were handed in",
        replace(
            WELL,
            staged=("gateway-builds",),
            submitted=frozenset({"gateway-builds"}),
            mine=frozenset({"ci"}),
        ),
        "",
        "gateway-builds: handed in; firmroot submit --status tells the rest",
    ),
    (
        "builds of a machine that can promote them too",
        replace(
            WELL,
            staged=("gateway-builds",),
            built={"gateway-builds": "1.1"},
            channels=CHANNELS,
            mine=frozenset({"ci", "rita"}),
        ),
        "firmroot channel promote gateway@1.1 --to stable",
        "no channel offers it",
    ),
    (
        "a channel that was signed here, and the publisher is elsewhere",
        replace(WELL, staged=("gateway-stable",), mine=frozenset({"sam"})),
        "firmroot submit",
        "gateway-stable: signed and staged",
    ),
    (
        "with targets it goes by git",
        replace(WELL, staged=("gateway-stable", "targets"), mine=frozenset({"sam"})),
        "firmroot publish",
        "signed and staged; where the key publisher is",
    ),
    (
        "before the first publish nothing can be handed in",
        replace(WELL, live={}, staged=("gateway-stable",), mine=frozenset({"sam"})),
        "firmroot publish",
        "signed and staged; where the key publisher is",
    ),
    (
        "the publisher's own machine goes on by itself",
        replace(WELL, staged=("gateway-stable",), mine=frozenset({"sam", "publisher"})),
        "firmroot publish",
        "gateway-stable: signed and staged",
    ),
    (
        "the inbox has something for the publisher",
        replace(WELL, inbox=2),
        "firmroot publish",
        "the inbox has 2 submissions",
    ),
    (
        "builds are renewed and bring nothing new",
        replace(WELL, staged=("gateway-builds",)),
        "firmroot publish",
        "gateway-builds: signed and staged",
    ),
    (
        "nothing was ever promoted",
        replace(
            WELL,
            live={},
            staged=("gateway-builds", "root", "targets"),
            built={"gateway-builds": "1.0"},
        ),
        "firmroot channel promote gateway@1.0 --to CHANNEL",
        "gateway-builds: signed and staged, no channel offers it",
    ),
    (
        "the first root and targets, with nothing built",
        replace(WELL, live={}, staged=("root", "targets"), channels=CHANNELS),
        "firmroot publish",
        "root, targets: signed and staged; where the key publisher is",
    ),
    (
        "the publisher's own machine",
        replace(WELL, live={}, staged=("root", "targets"), mine=frozenset({"publisher"})),
        "firmroot publish",
        "root, targets: signed and staged",
    ),
    (
        "the first publish",
        replace(WELL, live={}, staged=("gateway-stable", "root")),
        "firmroot publish",
        "signed and staged",
    ),
    (
        "new targets of a live repository",
        replace(WELL, staged=("gateway-builds", "targets"), built={"gateway-builds": "1.1"}),
        "firmroot publish",
        "signed and staged",
    ),
    (
        "keys are missing",
        replace(WELL, lacking={"targets": 1, "hold": 1}, violations=("bad [x]",)),
        "firmroot key new NAME --role targets",
        "keys are missing for targets, hold",
    ),
    (
        "keys are missing that belong together",
        replace(WELL, lacking={"snapshot": 1, "timestamp": 1}),
        "firmroot key new NAME --role snapshot --role timestamp",
        "keys are missing for snapshot, timestamp",
    ),
    (
        "no root, and no product for its targets",
        replace(WELL, has_root=False, products=()),
        "firmroot product add NAME --hardware ID",
        "there is no product yet, and no root",
    ),
    (
        "no root, and targets waits for it",
        replace(WELL, has_root=False, ceremonies=(replace(THEIRS, quorums=()),)),
        "firmroot ceremony start root",
        "there is no root yet",
    ),
    (
        "live, and nothing was built",
        replace(WELL, live={"root": (1, NOW + 300 * DAY)}, channels=CHANNELS),
        "firmroot firmware add FILE -p gateway -V VERSION --hardware ID",
        "there is no firmware for gateway yet; where the key ci is",
    ),
    (
        "live, and nothing is offered",
        replace(WELL, live={"gateway-builds": (1, NOW + 300 * DAY)}, channels=CHANNELS),
        "firmroot channel promote gateway@VERSION --to stable",
        "no channel offers firmware of gateway yet",
    ),
    (
        "live, and no device was made",
        replace(WELL, live={**WELL.live, **BUILT}, channels=CHANNELS),
        "firmroot factory export gateway --to DIR",
        "no device of gateway was made yet",
    ),
    (
        "devices were made",
        replace(
            WELL, live={**WELL.live, **BUILT}, channels=CHANNELS, exported=frozenset({"gateway"})
        ),
        "",
        "timestamp is next",
    ),
    (
        "the storage is in another clone",
        replace(WELL, live={}, unread="not here", elsewhere=True),
        "firmroot verify",
        "not here",
    ),
    (
        "the storage is in another clone, and something is staged",
        replace(WELL, live={}, unread="not here", elsewhere=True, staged=("targets",)),
        "firmroot publish",
        "targets: signed and staged; where the key publisher is",
    ),
    (
        "an online role is due, elsewhere",
        replace(WELL, live={"timestamp": (7, NOW)}),
        "firmroot refresh",
        "time to sign again; where the key publisher is",
    ),
    ("nothing at all", replace(WELL, live={}), "firmroot firmware add", "nothing is published yet"),
]


@pytest.mark.parametrize(
    ("situation", "command", "reason"), [row[1:] for row in NEXT], ids=[row[0] for row in NEXT]
)
def test_the_next_command(situation: Situation, command: str, reason: str) -> None:
    found = report(situation)
    assert found.next_command.startswith(command)
    assert bool(found.next_command) == bool(command)
    if " " in command.removeprefix("firmroot "):
        assert command in found.lines()[-1]
    assert reason in found.reason
    assert found.lines()[-1].startswith(f"next: {command or 'nothing to do'}")
    assert found.facts()["next"] == found.next_command


@pytest.mark.parametrize(
    ("left", "due"),
    [
        (61 * DAY, Due.GOOD),
        (60 * DAY, Due.SIGN_NOW),
        (timedelta(seconds=1), Due.SIGN_NOW),
        (timedelta(), Due.EXPIRED),
        (-DAY, Due.EXPIRED),
    ],
)
def test_a_role_is_good_due_or_expired(left: timedelta, due: Due) -> None:
    found = report(replace(WELL, live={"root": (1, NOW + left)}))
    assert found.expiries[0].due is due


PROMOTE_MODEM = (
    "firmroot channel promote modem@7 --to CHANNEL  "
    "(modem-builds: signed and staged, no channel offers it)"
)
EXACT = [
    (
        "the first targets is open already",
        replace(WELL, has_root=False, ceremonies=(replace(THEIRS, quorums=()),)),
        "firmroot ceremony start root  (there is no root yet)",
    ),
    (
        "here is the publisher's key",
        replace(WELL, staged=("root",), mine=frozenset({"publisher"})),
        "firmroot publish  (root: signed and staged)",
    ),
    (
        "here is another key of the role",
        replace(WELL, live={"timestamp": (7, NOW)}, mine=frozenset({"publisher", "alice"})),
        "firmroot refresh  (timestamp: time to sign again)",
    ),
    (
        "nobody knows whose key it is",
        replace(WELL, staged=("root",), rules={}),
        "firmroot publish  (root: signed and staged)",
    ),
    (
        "the storage is damaged, and something is staged",
        replace(WELL, live={}, unread="a rollback", staged=("targets",)),
        "firmroot verify  (the live repository cannot be looked at: a rollback)",
    ),
    (
        "the second product was built",
        replace(
            WELL,
            products=("gateway", "modem"),
            channels=CHANNELS | {"modem": ("modem-stable", "modem-beta")},
            staged=("modem-builds",),
            built={"modem-builds": "7"},
        ),
        PROMOTE_MODEM,
    ),
]


@pytest.mark.parametrize(
    ("situation", "step"), [row[1:] for row in EXACT], ids=[row[0] for row in EXACT]
)
def test_the_next_step_to_the_letter(situation: Situation, step: str) -> None:
    assert report(situation).next_step == step


def test_before_the_first_publish_nothing_is_live() -> None:
    nothing = "live: nothing is published yet"
    assert nothing in report(replace(WELL, live={})).lines()
    assert nothing not in report(WELL).lines()
    assert nothing not in report(replace(WELL, live={}, unread="x")).lines()


def test_what_ends_now_ended_no_days_ago() -> None:
    (line,) = report(replace(WELL, live={"root": (3, NOW)})).lines()[:1]
    assert line == "root 3: live until 2026-03-02 (0 days); EXPIRED"


def test_what_does_not_need_the_live_state_is_said_without_it() -> None:
    for situation, early in (
        (replace(WELL, has_keys=False), True),
        (replace(WELL, ceremonies=(THEIRS,)), True),
        (replace(WELL, staged=("root",)), False),
        (WELL, False),
    ):
        found = early_report(situation)
        assert (found is not None) == early
        if found is not None:
            assert found.next_step == report(situation).next_step


def test_missing_keys_are_said_as_numbers() -> None:
    found = report(replace(WELL, lacking={"root": 2, "hold": 1}, violations=("threshold [x]",)))
    assert found.lines()[0] == "policy: keys still to be made: root 2, hold 1"
    assert found.facts()["violations"] == ["threshold [x]"], "scripts are told all"


def test_a_lab_says_that_it_is_one() -> None:
    assert report(replace(WELL, lab=True)).lines()[0] == "LAB: its keys protect nothing"
    assert report(replace(WELL, lab=True)).facts()["lab"] is True
    assert not any("LAB" in line for line in report(WELL).lines())


def test_a_ceremony_that_nobody_can_sign_yet_ignores_nothing() -> None:
    waits = replace(THEIRS, quorums=(), problems=("no root says who signs",))
    assert report(replace(WELL, ceremonies=(waits,))).lines()[0] == (
        "targets-6: no root says who signs"
    )


def test_a_role_without_rules_has_no_signing_period() -> None:
    assert report(replace(WELL, live={"x": (1, NOW + DAY)})).expiries[0].due is Due.GOOD


def test_a_monitor_fails_for_what_expires_within() -> None:
    found = report(WELL)
    assert found.failing(39 * DAY) == []
    assert found.failing(40 * DAY) == ["gateway-stable 7 expires 2026-04-11T06:00:00Z"]
    assert len(found.failing(300 * DAY)) == 3
    expired = report(replace(WELL, live={"root": (3, NOW)}))
    assert expired.failing(timedelta()) == ["root 3 expired 2026-03-02T06:00:00Z"]


HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("role", "rules", "lead"),
    [
        ("timestamp", RolePolicy(1, ("publisher",), 7, 2), DAY),
        ("snapshot", RolePolicy(1, ("publisher",), 30, 7), 3.5 * DAY),
        ("timestamp", RolePolicy(1, ("publisher",), 6, 0), DAY),
    ],
)
def test_a_monitor_counts_what_a_job_renews_once_the_job_is_late(
    role: str, rules: RolePolicy, lead: timedelta
) -> None:
    def failing(left: timedelta, within: timedelta) -> int:
        found = replace(WELL, rules={role: rules}, live={role: (9, NOW + left)})
        return len(report(found).failing(within))

    assert failing(lead + HOUR, 30 * DAY) == 0, "all the time that a job is given"
    assert failing(lead, 30 * DAY) == 1
    assert failing(lead, 12 * HOUR) == 0, "less was asked for"
    assert failing(-HOUR, HOUR) == 1


def test_a_monitor_fails_when_it_could_not_look() -> None:
    found = report(replace(WELL, live={}, unread="no route"))
    assert found.failing(DAY) == ["the live repository could not be looked at: no route"]
    assert "live: could not be looked at: no route" in found.lines()
    assert "live: nothing is published yet" not in found.lines()


def test_everybody_is_named() -> None:
    found = report(
        replace(WELL, ceremonies=(ceremony("bob", missing=("alice",), problems=("odd",)),))
    )
    assert found.lines()[:2] == [
        "targets-6: signed by bob for root; waits for 1 of alice",
        "targets-6: ignored: odd",
    ]
    assert report(replace(WELL, ceremonies=(COMPLETE,))).lines()[0] == (
        "targets-6: signed by alice, bob for root"
    )
    assert found.facts()["ceremonies"][0]["missing"] == ["alice"]


def test_lines_say_until_when() -> None:
    lines = report(
        replace(WELL, live={"root": (3, NOW + 61 * DAY), "targets": (1, NOW - DAY)})
    ).lines()
    assert lines[0] == "targets 1: live until 2026-03-01 (1 days ago); EXPIRED"
    assert lines[1] == "root 3: live until 2026-05-02 (61 days); sign again from 2026-03-03"
    assert "sign again now" in report(replace(WELL, live={"root": (3, NOW + DAY)})).lines()[0]
    assert report(replace(WELL, violations=("v",))).lines()[0] == "policy: v"
    staged = report(replace(WELL, staged=("root",))).lines()
    assert staged[0] == "root: signed and staged, not yet published"
