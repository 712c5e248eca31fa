"""The rehearsal: what devices would do, as a pure function of (views, devices, time)."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import NotFoundError, NotTrustedError, RetryLaterError
from client_reference.selection import DevicePosition, Reason, Skip, Verdict
from client_reference.trust.state import InstallState
from client_reference.trust.updater import Floors, Updater
from repo_tools.publishing.factory import devices
from repo_tools.publishing.following import lead
from repo_tools.publishing.online import OnlineKeys
from repo_tools.publishing.prepare import admit_staged, prepare, read_base, sign_online
from repo_tools.publishing.rehearse import (
    Cached,
    Clock,
    Device,
    MappingFetcher,
    Moment,
    Outcome,
    Rehearsal,
    Views,
    first_expiry,
    meet,
    rehearse,
)
from repo_tools.signing.secrets import open_secrets
from tests.publishing.lab import HARDWARE, NOW, PRODUCT, Lab

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from client_reference.transport.fetcher import Fetcher
    from client_reference.trust.state import Store
    from repo_tools.publishing.prepare import Prepared


def _prepared(lab: Lab) -> Prepared:
    workspace = lab.workspace
    storage = workspace.storage()
    keys = OnlineKeys(workspace, open_secrets(None, {}, None, workspace.lab_passphrase))
    live = read_base(workspace, storage)
    admitted = admit_staged(workspace, live.state)
    signed = sign_online(workspace, storage, admitted, keys, lab.now)
    return prepare(workspace, storage, live, admitted, signed, lab.now)


def _device(lab: Lab, **position: object) -> Device:
    root = (lab.directory.parent / "factory-root.json").read_bytes()
    place = DevicePosition(PRODUCT, "stable", (HARDWARE,), "slot", "one")
    return Device("one", replace(place, **position), root, Floors(0, 0, 0))  # type: ignore[arg-type]  # any field


def _views(lab: Lab) -> Views:
    """Before and after: what is live twice."""
    objects = {
        str(path.relative_to(lab.repository)): path.read_bytes()
        for path in lab.repository.rglob("*.json")
    }
    expires = NOW + timedelta(days=7)
    return Views(objects, expires, objects, objects, expires)


def test_every_question_is_asked_about_every_device(following: Lab) -> None:
    rows = _prepared(following).rehearsal.rows
    assert {row.device for row in rows} == {
        "next export of gateway/stable",
        following.ok("--json", "factory", "list").json["exports"][0]["id"],
    }
    asked = {(row.cached, row.moment, row.clock) for row in rows}
    assert asked == {
        (cached, moment, clock)
        for cached in Cached
        for moment, clock in (
            (Moment.NOW, Clock.GOOD),
            (Moment.NOW, Clock.RESET),
            (Moment.NOW, Clock.AHEAD),
            (Moment.HORIZON, Clock.GOOD),
        )
    }
    assert len(rows) == 2 * len(asked)
    assert {(row.outcome, row.detail) for row in rows} == {(Outcome.UPDATES, "installs 1.1")}


def test_devices_see_what_is_live_then_everything_new_then_the_timestamp(
    following: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Views] = []

    def recorded(views: Views, devices: Sequence[Device], now: datetime) -> Rehearsal:
        seen.append(views)
        return rehearse(views, devices, now)

    monkeypatch.setattr("repo_tools.publishing.prepare.rehearse", recorded)
    following.now = following.later(days=1).now
    _prepared(following)
    (views,) = seen
    assert "metadata/2.snapshot.json" not in views.live
    assert "metadata/2.snapshot.json" in views.mid_publish
    assert views.mid_publish == {**views.candidate, **views.live}
    assert views.candidate["metadata/timestamp.json"] != views.live["metadata/timestamp.json"]
    assert views.live_expires == NOW + timedelta(days=7)
    assert views.candidate_expires == NOW + timedelta(days=8)


def test_before_the_first_publish_no_device_has_a_live_state(ready: Lab) -> None:
    rows = _prepared(ready).rehearsal.rows
    assert {row.cached for row in rows} == {Cached.FACTORY, Cached.MID_PUBLISH}


def test_the_same_question_has_the_same_answer(live: Lab) -> None:
    views, device = _views(live), _device(live)
    assert rehearse(views, [device], NOW) == rehearse(views, [device], NOW)


def test_a_device_that_cannot_follow_is_stranded_with_the_reason(live: Lab) -> None:
    views = _views(live)
    gone = {path: data for path, data in views.candidate.items() if "snapshot" not in path}
    found = rehearse(replace(views, candidate=gone), [_device(live)], NOW)
    stranded = {row.cached for row in found.rows if row.outcome is Outcome.STRANDED}
    assert stranded == {Cached.FACTORY}, "the others have the snapshot"
    assert found.stranded()["one"].detail.endswith("metadata/1.snapshot.json is not there")
    assert found.stranded()["one"].cached is Cached.FACTORY


def test_a_device_that_only_the_cached_state_strands_is_found(live: Lab) -> None:
    # Whoever saw version 2 refuses version 1; whoever is fresh from the factory does not notice.
    old = _views(live).candidate
    live.ok("refresh")
    views = replace(_views(live), candidate=old)
    found = rehearse(views, [_device(live)], NOW)
    assert {row.cached for row in found.rows if row.outcome is Outcome.STRANDED} == {
        Cached.LIVE,
        Cached.MID_PUBLISH,
    }


def test_a_device_that_only_mid_publish_strands_is_found(live: Lab) -> None:
    old = _views(live).candidate
    live.ok("refresh")
    views = Views(
        old, NOW + timedelta(days=7), _views(live).candidate, old, NOW + timedelta(days=7)
    )
    found = rehearse(views, [_device(live)], NOW)
    stranded = {row.cached for row in found.rows if row.outcome is Outcome.STRANDED}
    assert stranded == {Cached.MID_PUBLISH}


def test_a_device_is_asked_at_the_last_second_before_the_first_expiry(live: Lab) -> None:
    views = _views(live)
    at_the_end = rehearse(views, [_device(live)], NOW)
    assert not at_the_end.stranded()
    too_late = replace(views, candidate_expires=NOW + timedelta(days=7, seconds=1))
    stranded = rehearse(too_late, [_device(live)], NOW).stranded()
    assert stranded["one"].moment is Moment.HORIZON


def test_in_short_a_device_is_fresh_from_the_factory_now_with_a_good_clock(live: Lab) -> None:
    too_late = replace(_views(live), candidate_expires=NOW + timedelta(days=7, seconds=1))
    found = rehearse(too_late, [_device(live)], NOW).devices()
    assert found.keys() == {"one"}
    row = found["one"]
    assert (row.cached, row.moment, row.clock) == (Cached.FACTORY, Moment.NOW, Clock.GOOD)
    assert row.outcome is Outcome.UPDATES


def test_a_device_saw_the_live_state_while_it_was_good(live: Lab) -> None:
    # The live timestamp has expired; a device that checked in time knows its version all the same.
    old = _views(live)
    late = live.later(days=8)
    late.ok("refresh")
    rolled_back = replace(_views(late), live=_views(late).live, candidate=old.candidate)
    found = rehearse(rolled_back, [_device(live)], NOW + timedelta(days=8))
    assert found.stranded()


def test_a_clock_of_1970_is_asked_for_and_accepts_what_a_good_one_calls_expired(live: Lab) -> None:
    found = rehearse(_views(live), [_device(live)], NOW + timedelta(days=8))
    fresh = [row for row in found.rows if row.cached is Cached.FACTORY]
    assert {(row.clock, row.outcome) for row in fresh} == {
        (Clock.GOOD, Outcome.STRANDED),
        (Clock.RESET, Outcome.UPDATES),
        (Clock.AHEAD, Outcome.STRANDED),
    }, "a clock that was set right is a good one"


def test_a_clock_of_1970_is_no_reason_to_strand(live: Lab) -> None:
    device, fetcher = _device(live), MappingFetcher(_views(live).candidate)
    outcome, _ = meet(device, fetcher, datetime(1970, 1, 1, tzinfo=UTC))
    assert outcome is Outcome.UPDATES


FAR_AHEAD = datetime(2106, 2, 7, tzinfo=UTC)


def test_a_clock_far_ahead_refuses_and_leaves_nothing_behind(live: Lab) -> None:
    device, fetcher = _device(live), MappingFetcher(_views(live).candidate)
    outcome, detail = meet(device, fetcher, FAR_AHEAD)
    assert outcome is Outcome.STRANDED
    assert "expired" in detail
    outcome, detail = meet(device, fetcher, NOW, [(fetcher, FAR_AHEAD)])
    assert (outcome, detail) == (Outcome.UPDATES, "installs 1.0")


class _Poisoned(Updater):
    """A client that takes the raw clock for evidence."""

    def __init__(
        self,
        store: Store,
        fetcher: Fetcher,
        now: datetime,
        *,
        before_root: Callable[[], object] | None = None,
    ) -> None:
        state = store.load()
        assert state is not None
        floor = max(state.trust.time_floor, int(now.timestamp()))
        store.commit(state.with_trust(replace(state.trust, time_floor=floor)))
        super().__init__(store, fetcher, now, before_root=before_root)


def test_a_client_that_one_wild_clock_poisons_is_stranded(
    live: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repo_tools.publishing.rehearse.Updater", _Poisoned)
    found = rehearse(_views(live), [_device(live)], NOW)
    stranded = {(row.cached, row.clock) for row in found.rows if row.outcome is Outcome.STRANDED}
    assert stranded == {(cached, Clock.AHEAD) for cached in Cached}


STAYS: dict[str, dict[str, object]] = {
    "other hardware": {"hardware": ("acme,gw-9",)},
    "another handler": {"handler": "command"},
    "the release is installed": {"installed_sequence": 1},
}


@pytest.mark.parametrize("case", STAYS)
def test_a_device_for_which_there_is_nothing_stays(case: str, live: Lab) -> None:
    views = _views(live)
    found = rehearse(views, [_device(live, **STAYS[case])], NOW)
    assert {row.outcome for row in found.rows} == {Outcome.STAYS}
    assert not found.stranded()


def test_a_device_whose_channel_vanished_is_stranded_a_future_one_is_not(live: Lab) -> None:
    device = _device(live, channel="beta")
    assert rehearse(_views(live), [device], NOW).stranded()
    future = replace(device, promised=False)
    assert not rehearse(_views(live), [future], NOW).stranded()


def test_a_missing_stepping_stone_strands_a_wave_to_come_does_not(live: Lab) -> None:
    live.add("1.1")
    live.ok("channel", "promote", f"{PRODUCT}@1.1", "--to", "stable", "--from", f"{PRODUCT}@1.0")
    live.ok("sign")
    done = live.ok("plan")
    assert "updates, installs 1.0" in done.out, "1.0 stays: the new one is not for everybody"
    live.ok("publish")
    live.add("1.2")
    live.ok("channel", "promote", f"{PRODUCT}@1.2", "--to", "stable", "--from", f"{PRODUCT}@1.1")
    live.ok("channel", "minimum", f"{PRODUCT}@1.2", "--on", "stable")
    live.ok("sign")
    done = live.run("publish")
    assert done.code == 5
    assert "no stepping stone between is allowed now" in done.err
    assert "--accept-stranded" in done.err


def test_a_stone_whose_wave_is_to_come_strands_nobody(live: Lab) -> None:
    live.add("1.1")
    waves = ("--waves", "1@500,100@600")
    live.ok("channel", "promote", f"{PRODUCT}@1.1", "--to", "stable", "--stone", *waves)
    live.add("1.2")
    live.ok("channel", "promote", f"{PRODUCT}@1.2", "--to", "stable", "--from", f"{PRODUCT}@1.1")
    live.ok("channel", "minimum", f"{PRODUCT}@1.1", "--on", "stable")
    live.ok("sign")
    done = live.ok("plan")
    assert "stays, 1.2 installs from sequence 2 on, this device has 0" in done.out


OTHER = "acme,gw-3"


def _offer_to_other_hardware_only(lab: Lab) -> str:
    """1.5 has no payload for the registered hardware, and is the channel's minimum."""
    exports = lab.ok("--json", "factory", "list").json["exports"]
    (export,) = (each for each in exports if not each["retired"])
    lab.ok("product", "add", PRODUCT, "--hardware", OTHER)
    lab.ok("sign")
    file = lab.directory.parent / "other.img"
    file.write_bytes(b"other firmware")
    lab.ok("firmware", "add", file, "-p", PRODUCT, "-V", "1.5", "--hardware", OTHER)
    lab.promote("1.5")
    lab.ok("publish")
    lab.ok("channel", "minimum", f"{PRODUCT}@1.5", "--on", "stable")
    lab.ok("sign")
    return str(export["id"])


def test_hardware_that_a_channel_stops_to_serve_is_stranded(live: Lab) -> None:
    export = _offer_to_other_hardware_only(live)
    done = live.run("publish")
    assert done.code == 5
    assert f"{export}: with factory state, now, clock good: its channel had firmware" in done.err
    assert "it has no payload for this hardware (acme,gw-2)" in done.err
    assert live.run("publish", "--accept-stranded", "another").code == 5
    live.ok("publish", "--accept-stranded", export)
    live.ok("refresh")


def test_hardware_that_gets_a_release_above_the_minimum_is_served(live: Lab) -> None:
    export = _offer_to_other_hardware_only(live)
    assert export in live.run("publish").err
    live.add("1.6")
    live.promote("1.6")
    live.ok("publish")


def test_a_hold_strands_nobody_and_hides_no_loss_that_follows(live: Lab) -> None:
    live.ok("channel", "hold", f"{PRODUCT}@1.0", "--on", "stable")
    live.ok("sign")
    live.ok("publish")
    assert "it is on hold" in live.fresh_device()[1]
    export = _offer_to_other_hardware_only(live)
    assert export in live.run("publish").err, "held first, then dropped: as bad as at once"


UNFIT = {
    Reason.HARDWARE,
    Reason.HANDLER,
    Reason.BELOW_FLOOR,
    Reason.BELOW_MINIMUM,
    Reason.CLIENT_TOO_OLD,
}
STOPS = {Reason.WITHDRAWN, Reason.HELD, Reason.PAUSED, Reason.WAVE}


@pytest.mark.parametrize("reason", sorted(UNFIT | STOPS, key=str))
def test_what_can_never_fit_strands_what_the_publisher_stopped_does_not(
    reason: Reason, live: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decided(*_: object) -> Skip:
        newest = Verdict("1.5", 5, Reason.HARDWARE, "no payload")
        return Skip(Reason.HARDWARE, "why", (newest, Verdict("1.0", 1, reason, "so")))

    monkeypatch.setattr("repo_tools.publishing.rehearse.evaluate", decided)
    monkeypatch.setattr("repo_tools.publishing.rehearse.refreshed", lambda *_: InstallState())
    fetcher = MappingFetcher({})
    outcome, _ = meet(_device(live), fetcher, NOW, served=True)
    assert outcome is (Outcome.STRANDED if reason in UNFIT else Outcome.STAYS)
    outcome, _ = meet(_device(live), fetcher, NOW)
    assert outcome is Outcome.STAYS, "it had nothing before"


def test_an_accepted_stranding_names_its_object_and_goes_through(live: Lab) -> None:
    export = live.ok("--json", "factory", "list").json["exports"][0]["id"]
    root = live.directory / "factory" / export / "factory/root.json"
    root.write_bytes(root.read_bytes().replace(b'"sig":"', b'"sig":"00'))
    live.add("1.1")
    live.promote("1.1")
    done = live.run("publish")
    assert done.code == 5
    assert (
        f"this publish would strand 1 of the devices that were rehearsed:\n  {export}:" in done.err
    )
    assert live.run("--yes", "publish").code == 5, "--yes never accepts a stranding"
    assert live.run("publish", "--accept-stranded", "another").code == 5
    live.ok("publish", "--accept-stranded", export)
    live.ok("--yes", "factory", "retire", export)
    live.ok("refresh")


def test_the_first_expiry_is_that_of_the_weakest_role(live: Lab) -> None:
    state = read_base(live.workspace, live.workspace.storage()).state
    assert first_expiry(state) == NOW + timedelta(days=7)


def test_objects_in_memory_are_bounded_like_a_server(live: Lab) -> None:
    del live
    fetcher = MappingFetcher({"metadata/a": b"12345"})
    assert fetcher.fetch("metadata/a", 5) == b"12345"
    assert b"".join(fetcher.stream("metadata/a", 2, 3)) == b"345"
    with pytest.raises(NotTrustedError):
        fetcher.fetch("metadata/a", 4)
    with pytest.raises(NotFoundError):
        fetcher.fetch("metadata/b", 4)
    with pytest.raises(RetryLaterError):
        list(fetcher.stream("metadata/a", 2, 4))


def _older(lab: Lab) -> tuple[Views, Device]:
    """A fleet that was re-rooted, and a device that left the factory before."""
    ws = lab.workspace
    views = replace(_views(lab), lead=lead(ws))
    return views, next(device for device in devices(ws) if device.recovery is not None)


def test_a_device_of_an_older_epoch_walks_along_the_anchor(at: Callable[[str], Lab]) -> None:
    views, device = _older(at("there"))
    assert "metadata/e1/timestamp.json" in views.candidate
    assert (device.floors.epoch, views.lead.epoch) == (0, 1)
    found = rehearse(views, [device], NOW)
    assert {(row.cached, row.outcome, row.detail) for row in found.rows} == {
        (cached, Outcome.UPDATES, "installs 1.0") for cached in Cached
    }
    assert found == rehearse(views, [device], NOW), "a pure function"


def test_a_device_of_an_older_epoch_loses_its_firmware_as_any_other(
    at: Callable[[str], Lab],
) -> None:
    lab = at("there")
    export = _offer_to_other_hardware_only(lab)
    done = lab.run("publish")
    assert done.code == 5
    assert f"{export}: " in done.err
    assert "its channel had firmware for it and has none after this" in done.err
    lab.ok("publish", "--accept-stranded", export)


def test_a_device_that_the_anchor_does_not_lead_here_is_stranded(at: Callable[[str], Lab]) -> None:
    views, device = _older(at("there"))
    files = dict(views.lead.files)
    second = files["2.root.json"]
    # It could go on in epoch 0, whose metadata are still there.
    assert meet(device, MappingFetcher(views.candidate), NOW)[0] is Outcome.UPDATES
    for wrong in (
        {path: data for path, data in files.items() if path != "2.root.json"},
        files | {"2.root.json": re.sub(rb'("epoch": ?)1', rb"\g<1>0", second)},
        files | {"2.root.json": files["1.root.json"]},
    ):
        bad = replace(views, lead=replace(views.lead, files=wrong))
        found = rehearse(bad, [device], NOW)
        assert {row.outcome for row in found.rows} == {Outcome.STRANDED}
        assert found.stranded()[device.name].detail.startswith("stays in epoch 0, expected epoch 1")
    without = replace(device, recovery=None, obstacle="it has none")
    detail = rehearse(views, [without], NOW).stranded()[device.name].detail
    assert detail == "stays in epoch 0, expected epoch 1: it has none"
    assert not rehearse(views, [device], NOW).stranded()


def test_a_first_root_that_nobody_has_strands_who_must_follow(at: Callable[[str], Lab]) -> None:
    views, device = _older(at("there"))
    chain = {path: data for path, data in views.lead.files.items() if not path.startswith("e1/")}
    at_the_mirror = replace(views, lead=replace(views.lead, files=chain))
    assert not rehearse(at_the_mirror, [device], NOW).stranded()
    nowhere = {path: data for path, data in views.candidate.items() if "e1/1.root" not in path}
    found = rehearse(
        replace(at_the_mirror, live=nowhere, mid_publish=nowhere, candidate=nowhere), [device], NOW
    )
    assert "cannot be had" in found.stranded()[device.name].detail


def test_an_export_that_is_not_of_one_piece_is_stranded(at: Callable[[str], Lab]) -> None:
    views, device = _older(at("there"))
    wrong = replace(device, floors=replace(device.floors, epoch=1))
    detail = rehearse(views, [wrong], NOW).stranded()[device.name].detail
    assert "the recovery root is of epoch 0, the floors of epoch 1" in detail
    assert not rehearse(views, [device], NOW).stranded()


def test_the_floor_of_an_image_is_obeyed(live: Lab) -> None:
    views, device = _views(live), _device(live)
    newer = replace(device, floors=replace(device.floors, minimum_sequence=2))
    assert meet(newer, MappingFetcher(views.candidate), NOW)[0] is Outcome.STAYS
    assert meet(device, MappingFetcher(views.candidate), NOW)[0] is Outcome.UPDATES
