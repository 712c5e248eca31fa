"""A release is withdrawn: what the next manifest says, what devices do, what people are told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import ConfigurationError, RefusedError
from client_reference.manifest import (
    Artifact,
    Manifest,
    Payload,
    Release,
    Rollout,
    ShareWave,
    Withdrawn,
    parse,
)
from client_reference.selection import DevicePosition, Selection, Skip, Waves
from client_reference.transport.fetcher import DirectoryFetcher
from client_reference.trust.state import MemoryStore
from client_reference.trust.updater import Floors, Updater, initial_state
from client_reference.update import evaluate
from repo_tools.metadata.roles import manifest_path
from repo_tools.publishing.channels import read_channel
from repo_tools.publishing.factory import load_registry
from repo_tools.publishing.live import HighWater, read_live
from repo_tools.publishing.promote import next_manifest
from repo_tools.publishing.rehearse import Device
from repo_tools.publishing.withdraw import (
    Built,
    Follows,
    built_releases,
    check_left_behind,
    effects,
    fallback,
    offered,
    without,
)
from tests.publishing.lab import HARDWARE, PRODUCT, Lab, entry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NOW = datetime(2031, 5, 14, tzinfo=UTC)
OPEN = Rollout(NOW, "0" * 16, paused=False, waves=(ShareWave(0, 1000),))
STABLE = f"{PRODUCT}/stable"
WHY = ("--on", "stable", "--reason", "the modem hangs")


def _release(sequence: int, origin: int = 0, *, stone: bool = False) -> Release:
    artifact = Artifact(f"builds/gateway/{sequence}.0/x", 1, f"{sequence:064x}")
    payloads = (Payload(("acme,gw-2",), "slot", artifact),)
    version = f"{sequence}.0"
    return Release(version, sequence, OPEN, payloads, from_sequence=origin, stone=stone)


def _manifest(*releases: Release) -> Manifest:
    return Manifest("gateway", "stable", 0, releases)


def _built(*sequences: int, hardware: str = "acme,gw-2") -> list[Built]:
    return [Built(f"{each}.0", each, frozenset({(hardware, "slot")})) for each in sequences]


DEVICE = Device(
    "gateway-stable-1",
    DevicePosition("gateway", "stable", ("acme,gw-2",), "slot", "one"),
    b"",
    Floors(time=0, minimum_sequence=0, epoch=0),
)

# (releases, withdrawn, built, floor of the image) -> what becomes of each situation.
FATES: dict[str, tuple[Sequence[Release], str, Sequence[Built], int, dict[str, Follows]]] = {
    "an older one is offered beside it": (
        (_release(2), _release(1)),
        "2.0",
        _built(1, 2),
        0,
        {"": Follows.INSTEAD, "1.0": Follows.WAITS, "2.0": Follows.STAYS},
    ),
    "nothing else is offered": (
        (_release(2),),
        "2.0",
        _built(1, 2),
        0,
        {"": Follows.WAITS, "1.0": Follows.WAITS, "2.0": Follows.STAYS},
    ),
    "an older one, whose devices stay untouched": (
        (_release(2), _release(1, stone=True)), "1.0", _built(1, 2), 0, {"1.0": Follows.MOVES_ON}
    ),
    "a stepping stone": (
        (_release(3, 2), _release(2, stone=True)),
        "2.0",
        _built(1, 2, 3),
        0,
        {"": Follows.STRANDED, "1.0": Follows.STRANDED, "2.0": Follows.MOVES_ON},
    ),
    "a stepping stone that these devices are past": (
        (_release(3, 2), _release(2, stone=True)), "2.0", _built(1, 2, 3), 2,
        {"2.0": Follows.MOVES_ON},
    ),
    "a dead end, which it was before": (
        (_release(3, 2), _release(1)), "1.0", _built(1), 0,
        {"": Follows.STRANDED, "1.0": Follows.STAYS},
    ),
    "one that this board never had": (
        (_release(2), _release(1)),
        "2.0",
        [*_built(1), *_built(2, hardware="acme,gw-3")],
        0,
        {"": Follows.INSTEAD, "1.0": Follows.WAITS},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FATES)
def test_it_says_who_is_affected_and_who_can_follow(case: str) -> None:
    releases, version, built, floor, expected = FATES[case]
    before = _manifest(*releases)
    after = without(before, version, "hangs", NOW)
    device = replace(DEVICE, floors=replace(DEVICE.floors, minimum_sequence=floor))
    found = effects(before, after, frozenset(), [device], built, NOW)
    assert {each.runs: each.follows for each in found} == expected


def test_devices_of_another_channel_are_not_concerned() -> None:
    other = replace(DEVICE, position=replace(DEVICE.position, channel="beta"))
    before = _manifest(_release(2))
    after = without(before, "2.0", "hangs", NOW)
    assert effects(before, after, frozenset(), [other], _built(2), NOW) == ()


def test_what_is_on_hold_already_changes_nothing_for_those_who_wait() -> None:
    before = _manifest(_release(2))
    after = without(before, "2.0", "hangs", NOW)
    found = effects(before, after, frozenset({2}), [DEVICE], _built(1, 2), NOW)
    assert [each.runs for each in found] == ["2.0"]


def test_the_only_way_forward_is_taken_from_nobody_unnoticed() -> None:
    before = _manifest(_release(3, 2), _release(2, stone=True))
    after = without(before, "2.0", "hangs", NOW)
    found = effects(before, after, frozenset(), [DEVICE], _built(1, 2, 3), NOW)
    with pytest.raises(RefusedError, match="gateway-stable-1 as shipped would be stranded"):
        check_left_behind(found, ())
    running = [each for each in found if each.runs]
    with pytest.raises(RefusedError, match=r"gateway-stable-1 with 1\.0 would be stranded"):
        check_left_behind(running, ())
    check_left_behind(found, ("gateway-stable-1",))


def test_a_release_runs_on_the_boards_of_all_its_artifacts_and_of_no_other_product() -> None:
    first, second, other = (entry(f"builds/{each}", "1.0", 1) for each in "abc")
    second.unrecognized_fields["custom"]["hardware"] = ["acme,gw-3"]
    other.unrecognized_fields["custom"] |= {"product": "sensor", "sequence": 2}
    builds = {each.path: each for each in (first, second, other)}
    boards = frozenset({(HARDWARE, "slot"), ("acme,gw-3", "slot")})
    assert built_releases(PRODUCT, builds) == (Built("1.0", 1, boards),)


def test_it_stays_listed_and_marked() -> None:
    after = without(_manifest(_release(2), _release(1)), "2.0", " hangs ", NOW)
    assert after.withdrawn == (Withdrawn("2.0", 2, NOW, "hangs"),)
    assert [each.sequence for each in after.releases] == [2, 1]
    assert [each.sequence for each in offered(after)] == [1]


def test_a_reason_has_400_characters_at_most() -> None:
    (gone,) = without(_manifest(_release(2)), "2.0", "a" * 400, NOW).withdrawn
    assert gone.reason == "a" * 400


REFUSED = {
    "what is not offered": ("9.0", "hangs", "does not offer 9.0; it offers: 2.0"),
    "without a reason": ("2.0", "  ", "expected a reason of one line"),
    "with a reason that no terminal shows": ("2.0", "a\x1bb", "characters that print"),
    "with a tale": ("2.0", "a" * 401, "at most 400"),
    "what was withdrawn before": ("3.0", "hangs", "3.0 was withdrawn from gateway/stable at 2031"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_withdrawn(case: str) -> None:
    version, reason, message = REFUSED[case]
    manifest = without(_manifest(_release(3), _release(2)), "3.0", "hangs", NOW)
    with pytest.raises(ConfigurationError, match=message):
        without(manifest, version, reason, NOW)


def test_an_older_release_is_promoted_again_after_a_withdrawal_and_not_before() -> None:
    before = _manifest(_release(2))
    with pytest.raises(RefusedError, match=r"already offers 2\.0") as refused:
        next_manifest(before, _release(1), NOW)
    assert "firmroot channel withdraw gateway@2.0 --on stable" in refused.value.hint
    after = next_manifest(without(before, "2.0", "hangs", NOW), _release(1), NOW)
    assert [each.sequence for each in after.releases] == [2, 1]
    # What takes its place lets it go.
    assert [each.sequence for each in next_manifest(after, _release(3), NOW).releases] == [3]


# (withdrawn besides 3, offered, minimum) -> what may be offered again instead of 3.
FALLBACKS: dict[str, tuple[tuple[str, ...], tuple[int, ...], int, int | None]] = {
    "the newest below it": ((), (3,), 0, 2),
    "not one that was withdrawn": (("2.0",), (3, 2), 0, 1),
    "not one that is offered": ((), (3, 2), 0, 1),
    "not one below the minimum": ((), (3, 2), 2, None),
    "the minimum itself": ((), (3,), 2, 2),
}


@pytest.mark.parametrize("case", FALLBACKS)
def test_what_may_be_offered_again(case: str) -> None:
    gone, listed, minimum, expected = FALLBACKS[case]
    manifest = replace(_manifest(*map(_release, listed)), minimum_sequence=minimum)
    for version in ("3.0", *gone):
        manifest = without(manifest, version, "hangs", NOW)
    found = fallback(manifest, _built(1, 2, 3, 4), 3)
    assert (found.sequence if found else None) == expected


def test_what_may_be_offered_instead_is_older() -> None:
    found = fallback(_manifest(_release(4)), _built(1, 2, 3, 4), 3)
    assert found is not None
    assert found.sequence == 2


# Through the command line


def _decide(lab: Lab, installed: int | None) -> Selection | Skip:
    """The decision of a device that runs a release, over what is published."""
    root = (lab.directory.parent / "factory-root.json").read_bytes()
    store = MemoryStore(initial_state(root, Floors(time=0, minimum_sequence=0, epoch=0)))
    updater = Updater(store, DirectoryFetcher(lab.repository), lab.now)
    updater.refresh()
    position = DevicePosition(
        PRODUCT,
        "stable",
        (HARDWARE,),
        "slot",
        "one",
        installed_sequence=installed,
        confirmed_sequence=installed or 0,
    )
    return evaluate(updater, position, Waves.OBEY)


@pytest.fixture(scope="module")
def _followed(moments: dict[str, Lab], tmp_path_factory: pytest.TempPathFactory) -> Lab:
    lab = moments["next"].copy(tmp_path_factory.mktemp("followed") / "acme")
    lab.ok("publish")
    return lab


@pytest.fixture
def followed(_followed: Lab, tmp_path: Path) -> Lab:
    """1.1 is live in the place of 1.0."""
    root = (_followed.directory / "metadata/root/1.json").read_bytes()
    (tmp_path / "factory-root.json").write_bytes(root)
    return _followed.copy(tmp_path / "acme")


def _ok(lab: Lab, *words: str) -> str:
    return lab.ok(*words).out


def test_a_release_is_withdrawn_with_higher_versions_and_devices_tell_the_truth(
    followed: Lab,
) -> None:
    lab = followed
    root = (lab.directory.parent / "factory-root.json").read_bytes()
    storage = lab.workspace.storage()
    before = HighWater.of(read_live(storage, root).state).marks
    out = _ok(lab, "channel", "withdraw", f"{PRODUCT}@1.1", *WHY)
    (export,) = load_registry(lab.workspace)
    assert "gateway@1.1 is withdrawn from gateway/stable, which then offers nothing" in out
    assert f"{export.id}, {HARDWARE}, as shipped: waits, 1.1 (sequence 2) is not installed" in out
    assert f"{export.id}, {HARDWARE}, on 1.1: stays, 1.1 is installed; it was withdrawn" in out
    assert "not got so far: firmroot channel promote gateway@1.0 --to stable" in out
    assert "for devices that run 1.1: firmroot firmware add FILE -p gateway -V NEW" in out
    assert "gateway-stable 3 waits for signatures" in out
    shown = _ok(lab, "channel", "diff", STABLE)
    assert "withdrawn 1.1\n" in shown
    assert "withdrawn: 1.1 (sequence 2)" in _ok(lab, "sign")
    lab.ok("publish")
    assert "; WITHDRAWN: the modem hangs\n" in _ok(lab, "channel", "show", STABLE)
    assert lab.ok("--json", "channel", "show", STABLE).json["withdrawn"] == ["1.1"]
    assert _ok(lab, "channel", "list") == "gateway/stable  nothing\n"
    stays = _decide(lab, 2)
    assert isinstance(stays, Skip)
    assert stays.detail.startswith("1.1 is installed; it was withdrawn (the modem hangs)")
    waits = _decide(lab, 1)
    assert isinstance(waits, Skip)
    assert waits.detail == ("1.1 (sequence 2) is not installed: it was withdrawn: the modem hangs")
    # Stepping back, for those who did not get so far: forward, with higher versions again.
    lab.promote("1.0")
    lab.ok("publish")
    after = HighWater.of(read_live(storage, root).state).marks
    assert all(after[role].version >= mark.version for role, mark in before.items())
    assert after["gateway-stable"].version == before["gateway-stable"].version + 2
    assert lab.fresh_device()[1] == "installs 1.0"
    still = _decide(lab, 2)
    assert isinstance(still, Skip), "nobody goes back"
    assert still.detail.endswith("and nothing newer is offered yet")
    # The way on for everybody.
    lab.ship("1.2")
    for running in (None, 1, 2):
        found = _decide(lab, running)
        assert isinstance(found, Selection)
        assert found.release.version == "1.2"


def test_withdrawal_and_what_is_offered_instead_are_one_ceremony(followed: Lab) -> None:
    followed.ok("channel", "withdraw", f"{PRODUCT}@1.1", *WHY)
    followed.ok("channel", "promote", f"{PRODUCT}@1.0", "--to", "stable")
    open_now = [path.name for path in (followed.directory / "ceremonies").iterdir()]
    assert [name for name in open_now if name.startswith(f"{PRODUCT}-stable")] == [
        f"{PRODUCT}-stable-3"
    ]
    path = manifest_path(PRODUCT, "stable")
    ceremony = followed.directory / f"ceremonies/{PRODUCT}-stable-3/targets" / path
    manifest = parse(ceremony.read_bytes())
    assert [each.version for each in manifest.withdrawn] == ["1.1"]
    followed.ok("sign")
    followed.ok("publish")
    assert followed.fresh_device()[1] == "installs 1.0"


def test_signatures_over_another_manifest_are_not_lost_by_it(followed: Lab) -> None:
    followed.add("1.2")
    followed.ok("channel", "promote", f"{PRODUCT}@1.2", "--to", "stable")
    followed.ok("sign", "--key", "rita")
    words = ("channel", "withdraw", f"{PRODUCT}@1.2", *WHY)
    done = followed.run(*words)
    assert done.code == 3
    assert "--discard-signatures gateway-stable" in done.err
    followed.ok(*words, "--discard-signatures", "gateway-stable")


def test_a_stone_that_devices_need_is_withdrawn_only_by_accepting_their_loss(live: Lab) -> None:
    live.add("1.1")
    live.ok("channel", "promote", f"{PRODUCT}@1.1", "--to", "stable", "--stone")
    live.add("1.2")
    live.ok(*("channel", "promote", f"{PRODUCT}@1.2", "--to", "stable", "--from", f"{PRODUCT}@1.1"))
    live.ok("sign")
    live.ok("publish")
    before = live.tree()
    done = live.run("channel", "withdraw", f"{PRODUCT}@1.1", *WHY)
    (export,) = load_registry(live.workspace)
    assert done.code == 5
    assert f"{export.id} as shipped would be stranded" in done.err
    assert f"--accept-stranded {export.id}" in done.err
    assert live.tree() == before
    done = live.ok(
        *("--json", "channel", "withdraw", f"{PRODUCT}@1.1", *WHY),
        *("--accept-stranded", export.id),
    )
    follows = {each["runs"]: each["follows"] for each in done.json["devices"]}
    assert follows == {"": "stranded", "1.0": "stranded", "1.1": "moves on"}
    live.ok("sign")
    assert live.run("publish").code == 5, "and the publish asks once more"


def test_other_channels_that_offer_it_are_named(live: Lab) -> None:
    live.ok("product", "add", PRODUCT, "--channel", "beta")
    live.ok("sign")
    live.ok("channel", "promote", f"{PRODUCT}@1.0", "--to", "beta")
    out = _ok(live, "channel", "withdraw", f"{PRODUCT}@1.0", *WHY)
    assert "gateway@1.0 is still offered on gateway/beta" in out
    assert "still offered on gateway/stable" not in out
    manifest = read_channel(live.workspace, live.workspace.storage(), PRODUCT, "beta").next
    assert manifest is not None
    assert manifest.withdrawn == ()


def test_other_channels_that_offer_something_else_are_not(following: Lab) -> None:
    following.ok("product", "add", PRODUCT, "--channel", "beta", "--channel", "empty")
    following.ok("sign")
    following.ok("channel", "promote", f"{PRODUCT}@1.0", "--to", "beta")
    out = _ok(following, "channel", "withdraw", f"{PRODUCT}@1.1", *WHY)
    assert "still offered" not in out


def test_from_a_channel_that_offers_nothing_nothing_is_withdrawn(new: Lab) -> None:
    done = new.run("channel", "withdraw", f"{PRODUCT}@1.0", *WHY)
    assert done.code == 2
    assert "gateway/stable does not offer 1.0" in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((f"{PRODUCT}@9", *WHY), "does not offer 9"),
        ((f"{PRODUCT}@1.0", "--on", "stable"), "Missing option '--reason'"),
        ((f"{PRODUCT}@1.0", "--on", "stable", "--reason", "a\x1b[2J"), "one line"),
        ((f"{PRODUCT}@1.0", "--on", "beta", "--reason", "x"), "there is no channel gateway/beta"),
    ],
)
def test_a_wrong_withdrawal_changes_nothing(
    live: Lab, words: tuple[str, ...], message: str
) -> None:
    before = live.tree()
    done = live.run("channel", "withdraw", *words)
    assert done.code == 2, done
    assert message in done.err
    assert live.tree() == before
