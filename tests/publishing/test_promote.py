"""The next manifest of a channel: what stays, what goes, what is refused. Pure."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from datetime import timedelta

import pytest
from tuf.api.metadata import TargetFile

from client_reference.errors import ConfigurationError, RefusedError
from client_reference.manifest import (
    Artifact,
    GroupWave,
    Hold,
    Manifest,
    Payload,
    Release,
    Rollout,
    ShareWave,
    Withdrawn,
    parse,
    serialize,
)
from repo_tools.publishing.promote import (
    EVERYBODY,
    Reference,
    describe_difference,
    next_hold,
    next_manifest,
    parse_channel,
    parse_reference,
    parse_waves,
    release_payloads,
    to_toml,
    with_minimum,
)
from tests.publishing.lab import NOW

SEED = "00112233445566aa"
SLOW = (ShareWave(0, 10), ShareWave(24, 1000))


def _release(sequence: int, *, hardware: str = "acme,gw-2", **other: object) -> Release:
    version = f"{sequence}.0"
    artifact = Artifact(f"builds/gateway/{version}/f.img", 5, "ab" * 32)
    release = Release(
        version=version,
        sequence=sequence,
        rollout=Rollout(NOW, SEED, paused=False, waves=EVERYBODY),
        payloads=(Payload((hardware,), "slot", artifact),),
    )
    return replace(release, **other)  # type: ignore[arg-type]  # any field, from a table


def _rollout(waves: tuple[ShareWave | GroupWave, ...], *, paused: bool = False) -> Rollout:
    return Rollout(NOW, SEED, paused=paused, waves=waves)


EMPTY = Manifest("gateway", "stable", 0, ())

KEPT = {
    "a newer release for everybody replaces the old one": (
        [_release(1)],
        _release(2),
        [2],
    ),
    "the old one stays while the new one is rolled out": (
        [_release(1)],
        _release(2, rollout=_rollout(SLOW)),
        [2, 1],
    ),
    "the old one stays while the new one is paused": (
        [_release(1)],
        _release(2, rollout=_rollout(EVERYBODY, paused=True)),
        [2, 1],
    ),
    "the old one stays if only groups get the new one": (
        [_release(1)],
        _release(2, rollout=_rollout((GroupWave(0, ("pilot",)),))),
        [2, 1],
    ),
    "the old one stays for hardware that the new one leaves out": (
        [_release(1, hardware="acme,gw-3")],
        _release(2),
        [2, 1],
    ),
    "the old one stays for devices that the new one does not accept": (
        [_release(1)],
        _release(2, from_sequence=1),
        [2, 1],
    ),
    "a stepping stone stays": ([_release(1, stone=True)], _release(2), [2, 1]),
    "a release with needs replaces nothing": (
        [_release(1), _release(2, needs=("later",))],
        _release(3, rollout=_rollout(SLOW)),
        [3, 2, 1],
    ),
    "promoting it again changes its rollout": (
        [_release(1), _release(2, rollout=_rollout(SLOW))],
        _release(2),
        [2],
    ),
    "an older one for other hardware may be promoted later": (
        [_release(2)],
        _release(1, hardware="acme,gw-3"),
        [2, 1],
    ),
    "an older one may be promoted as a stepping stone": (
        [_release(2)],
        _release(1, stone=True),
        [2, 1],
    ),
}


@pytest.mark.parametrize("case", KEPT)
def test_a_manifest_keeps_what_somebody_needs(case: str) -> None:
    before, release, expected = KEPT[case]
    manifest = next_manifest(replace(EMPTY, releases=tuple(before)), release, NOW)
    assert [each.sequence for each in manifest.releases] == expected


def test_a_complete_rollout_ends_the_need_for_its_predecessor() -> None:
    slow = replace(EMPTY, releases=(_release(2, rollout=_rollout(SLOW)), _release(1)))
    again = _release(3, hardware="acme,gw-3")
    early = next_manifest(slow, again, NOW + timedelta(hours=24) - timedelta(seconds=1))
    assert [each.sequence for each in early.releases] == [3, 2, 1]
    late = next_manifest(slow, again, NOW + timedelta(hours=24))
    assert [each.sequence for each in late.releases] == [3, 2]


def test_nobody_loses_a_place_when_the_same_waves_are_promoted_again() -> None:
    before = replace(EMPTY, releases=(_release(1, rollout=_rollout(SLOW)),))
    other = "ffffffffffffffff"
    same = _release(1, rollout=replace(_rollout(SLOW), seed=other))
    assert next_manifest(before, same, NOW).releases[0].rollout.seed == SEED
    faster = _release(1, rollout=replace(_rollout(EVERYBODY), seed=other))
    assert next_manifest(before, faster, NOW).releases[0].rollout.seed == other


def test_a_new_release_does_not_take_the_places_of_another() -> None:
    before = replace(EMPTY, releases=(_release(1, rollout=_rollout(SLOW)),))
    own = "ffffffffffffffff"
    after = next_manifest(before, _release(2, rollout=replace(_rollout(SLOW), seed=own)), NOW)
    assert [each.rollout.seed for each in after.releases] == [own, SEED]


REFUSED = {
    "what is withdrawn": (
        replace(EMPTY, withdrawn=(Withdrawn("1.0", 1, NOW, "modem"),)),
        "1.0 is withdrawn from gateway/stable",
    ),
    "what is below the minimum": (replace(EMPTY, minimum_sequence=2), "below the minimum 2"),
    "what everybody has outgrown": (
        replace(EMPTY, releases=(_release(3), _release(2))),
        r"already offers 3.0 \(sequence 3\), newer than 1.0",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_devices_never_go_back(case: str) -> None:
    manifest, message = REFUSED[case]
    with pytest.raises(RefusedError, match=message):
        next_manifest(manifest, _release(1), NOW)


def test_the_minimum_may_be_promoted_itself() -> None:
    assert next_manifest(replace(EMPTY, minimum_sequence=1), _release(1), NOW).releases


def test_a_minimum_rises_drops_what_is_below_and_never_falls() -> None:
    manifest = replace(EMPTY, releases=(_release(3), _release(2, stone=True), _release(1)))
    raised = with_minimum(manifest, _release(2))
    assert (raised.minimum_sequence, [r.sequence for r in raised.releases]) == (2, [3, 2])
    assert with_minimum(raised, _release(2)) == raised
    with pytest.raises(RefusedError, match="is sequence 2, above"):
        with_minimum(raised, _release(1))


def test_a_hold_gains_and_loses_sequences() -> None:
    hold = next_hold(Hold("gateway", "stable", frozenset({1})), add=2)
    assert hold.sequences == {1, 2}
    assert next_hold(hold, remove=1).sequences == {2}


WAVES = {
    "1,20,100": ((0, 10), (24, 200), (48, 1000)),
    "100": ((0, 1000),),
    "0.5,100": ((0, 5), (24, 1000)),
    "1@0,20@12,100@48": ((0, 10), (12, 200), (48, 1000)),
    " 5 , 100@6 ": ((0, 50), (6, 1000)),
}


@pytest.mark.parametrize("text", WAVES)
def test_waves_are_percent_and_hours(text: str) -> None:
    assert parse_waves(text) == tuple(ShareWave(*each) for each in WAVES[text])


@pytest.mark.parametrize(
    "text", ["", "0", "101", "20,10", "20,20", "a", "1@x", "1@5,2@4", "1,,100", "inf", "-1", "nan"]
)
def test_waves_that_fall_or_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--waves"):
        parse_waves(text)


def test_references_name_releases_and_channels() -> None:
    assert parse_reference("gateway@1.1") == Reference("gateway", "1.1")
    assert parse_channel("gateway/stable") == ("gateway", "stable")


@pytest.mark.parametrize("text", ["", "gateway", "gateway@", "@1", "gateway/stable"])
def test_what_is_no_release_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="does not name a release"):
        parse_reference(text)


@pytest.mark.parametrize("text", ["", "gateway", "gateway/", "/stable", "a/b/c"])
def test_what_is_no_channel_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="does not name a channel"):
        parse_channel(text)


def _target(path: str, version: str, sequence: int) -> TargetFile:
    custom = {
        "product": "gateway",
        "hardware": ["acme,gw-2"],
        "version": version,
        "sequence": sequence,
        "handler": "slot",
    }
    return TargetFile(5, {"sha256": "ab" * 32}, path, {"custom": custom})


def _builds(*targets: TargetFile) -> dict[str, TargetFile]:
    return {target.path: target for target in targets}


def test_a_release_is_every_artifact_of_its_version_but_no_segment_list() -> None:
    segments = TargetFile(
        32, {"sha256": "cd" * 32}, "builds/gateway/1.0/a.segments", {"custom": {"segments-of": "a"}}
    )
    builds = _builds(
        _target("builds/gateway/1.0/b", "1.0", 4),
        _target("builds/gateway/1.0/a", "1.0", 4),
        _target("builds/gateway/2.0/a", "2.0", 5),
        segments,
    )
    sequence, payloads = release_payloads(Reference("gateway", "1.0"), builds)
    assert sequence == 4
    assert [payload.artifact.path[-1] for payload in payloads] == ["a", "b"]


def test_a_release_that_is_not_there_or_not_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="there is no release gateway@9"):
        release_payloads(Reference("gateway", "9"), {})
    one = _builds(_target("builds/gateway/1.0/a", "1.0", 4))
    with pytest.raises(ConfigurationError, match=r"there is no release router@1\.0"):
        release_payloads(Reference("router", "1.0"), one)
    two = _builds(
        _target("builds/gateway/1.0/a", "1.0", 4), _target("builds/gateway/1.0/b", "1.0", 5)
    )
    with pytest.raises(RefusedError, match="different sequences"):
        release_payloads(Reference("gateway", "1.0"), two)


def test_the_readable_form_is_toml_and_says_everything() -> None:
    manifest = Manifest(
        "gateway",
        "stable",
        1,
        (
            _release(
                3,
                stone=True,
                notes='say "hi"',
                rollout=_rollout((GroupWave(0, ("pilot",)), ShareWave(24, 1000))),
            ),
        ),
        (Withdrawn("2.0", 2, NOW, 'a "quoted" reason'),),
    )
    table = tomllib.loads(to_toml(manifest))
    release = table["release"][0]
    assert table["minimum_sequence"] == 1
    assert (release["version"], release["stone"], release["notes"]) == ("3.0", True, 'say "hi"')
    assert release["waves"][0] == {"after_hours": 0, "groups": ["pilot"]}
    assert release["payload"][0]["hardware"] == ["acme,gw-2"]
    assert table["withdrawn"][0]["reason"] == 'a "quoted" reason'
    assert parse(serialize(manifest)) == manifest


def test_what_is_withdrawn_keeps_no_better_release_from_being_replaced() -> None:
    """A stone stays; what nobody needs goes, and what is withdrawn is no reason to drop another."""
    gone = Withdrawn("3.0", 3, NOW, "modem")
    before = replace(EMPTY, releases=(_release(3), _release(2, stone=True)), withdrawn=(gone,))
    after = next_manifest(before, _release(1, hardware="acme,gw-3"), NOW)
    assert [each.sequence for each in after.releases] == [3, 2, 1]
    with pytest.raises(RefusedError, match=r"already offers 2\.0"):
        next_manifest(before, _release(1), NOW)


def test_a_difference_names_what_is_withdrawn_since() -> None:
    first, second = Withdrawn("1.0", 1, NOW, "modem"), Withdrawn("2.0", 2, NOW, "modem")
    before = replace(EMPTY, withdrawn=(first,))
    after = replace(EMPTY, withdrawn=(first, second))
    assert describe_difference(before, after).withdrawn == ("2.0",)


def test_a_difference_names_what_came_went_and_changed() -> None:
    stays = _release(4)
    before = replace(EMPTY, releases=(_release(1), _release(2), stays))
    changed = (_release(2, stone=True), _release(3), stays)
    after = replace(EMPTY, minimum_sequence=2, releases=changed)
    change = describe_difference(before, after)
    assert (change.added, change.removed, change.changed) == (("3.0",), ("1.0",), ("2.0",))
    assert change.minimum == (0, 2)
    assert describe_difference(before, before).minimum is None
