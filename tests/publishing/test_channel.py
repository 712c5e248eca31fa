"""Channels through the command line: promotion, holds, minimum, and what is shown."""

from __future__ import annotations

import json
import shutil
import tomllib

import pytest

from client_reference.manifest import parse
from repo_tools.publishing import channels, firmware
from repo_tools.publishing.channels import offered_paths, read_channel
from tests.publishing.lab import PRODUCT, Lab

STABLE = f"{PRODUCT}/stable"


def _hold_on(lab: Lab, word: str, version: str) -> None:
    lab.ok("channel", word, f"{PRODUCT}@{version}", "--on", "stable")
    lab.ok("sign")
    lab.ok("publish")


def test_a_promotion_writes_a_readable_source_and_opens_a_ceremony(live: Lab) -> None:
    live.add("1.1")
    done = live.ok(
        "channel",
        *("promote", f"{PRODUCT}@1.1", "--to", "stable", "--waves", "1,20,100"),
        *("--severity", "security", "--notes", "https://acme.example/n/1.1"),
    )
    assert "gateway@1.1 goes to gateway/stable, which then offers 1.1, 1.0" in done.out
    assert "gateway-stable 2 waits for signatures" in done.out
    table = tomllib.loads((live.directory / "manifests/gateway/stable.toml").read_text())
    assert [release["version"] for release in table["release"]] == ["1.1", "1.0"]
    carried = live.directory / "ceremonies/gateway-stable-2/targets/channels/gateway/stable.json"
    manifest = parse(carried.read_bytes())
    release = manifest.releases[0]
    assert (release.severity, release.notes) == ("security", "https://acme.example/n/1.1")
    assert [wave.after_hours for wave in release.rollout.waves] == [0, 24, 48]
    assert release.rollout.start == live.now


def test_two_promotions_before_a_signature_are_both_kept(live: Lab) -> None:
    live.add("1.1")
    live.add("1.2")
    live.ok("channel", "promote", f"{PRODUCT}@1.1", "--to", "stable", "--stone")
    done = live.ok("channel", "promote", f"{PRODUCT}@1.2", "--to", "stable")
    assert "which then offers 1.2, 1.1" in done.out
    assert [path.name for path in (live.directory / "ceremonies").iterdir()] == ["gateway-stable-2"]


def test_a_promotion_that_would_discard_a_signature_names_the_role(live: Lab) -> None:
    live.add("1.1")
    live.add("1.2")
    live.ok("channel", "promote", f"{PRODUCT}@1.1", "--to", "stable")
    live.ok("sign", "--key", "rita")
    done = live.run("channel", "promote", f"{PRODUCT}@1.2", "--to", "stable")
    assert done.code == 3
    assert "signed by rita" in done.err
    assert "--discard-signatures gateway-stable" in done.err
    wrong = ("--discard-signatures", "targets")
    done = live.run("channel", "promote", f"{PRODUCT}@1.2", "--to", "stable", *wrong)
    assert done.code == 2
    assert "this command changes gateway-stable" in done.err
    right = ("--discard-signatures", "gateway-stable")
    live.ok("channel", "promote", f"{PRODUCT}@1.2", "--to", "stable", *right)


def test_a_held_release_is_not_started_and_goes_on_when_it_is_released(live: Lab) -> None:
    _hold_on(live, "hold", "1.0")
    outcome, detail = live.fresh_device()
    assert (outcome.value, "on hold" in detail) == ("stays", True)
    shown = live.ok("channel", "show", STABLE).out
    assert "; HELD\n" in shown, "nothing waits any more"
    assert live.ok("channel", "list").out == "gateway/stable  1.0  1.0: HELD\n"
    assert live.ok("--json", "channel", "list").json[STABLE]["held"] == [1]
    assert "HELD: gateway@1.0 on stable: no device starts it\n" in live.ok("status").out
    assert live.ok("--json", "status").json["held"] == ["gateway@1.0 on stable"]
    done = live.run("channel", "hold", f"{PRODUCT}@1.0", "--on", "stable")
    assert done.code == 2
    assert "gateway@1.0 is held already on gateway/stable" in done.err
    _hold_on(live, "unhold", "1.0")
    assert live.fresh_device()[1] == "installs 1.0"
    assert live.run("channel", "unhold", f"{PRODUCT}@1.0", "--on", "stable").code == 2


def test_who_signs_a_hold_reads_what_it_stops(live: Lab) -> None:
    live.ok("channel", "hold", f"{PRODUCT}@1.0", "--on", "stable")
    assert "; hold waits\n" in live.ok("channel", "show", STABLE).out
    assert "HELD" not in live.ok("status").out
    assert "  holds gateway@1.0 (sequence 1) on gateway/stable\n" in live.ok("sign").out
    live.ok("publish")
    live.ok("channel", "unhold", f"{PRODUCT}@1.0", "--on", "stable")
    assert "; HELD; unhold waits\n" in live.ok("channel", "show", STABLE).out
    live.repository.rename(live.directory / "elsewhere")
    (live.directory / ".firmroot/high-water.json").unlink()
    assert "  holds nothing any more on gateway/stable\n" in live.ok("sign").out


def test_what_another_machine_built_is_promoted_there_or_once_it_is_live(live: Lab) -> None:
    builder = live.copy(live.directory.with_name("builder"))
    builder.add("1.3")
    done = live.run("channel", "promote", f"{PRODUCT}@1.3", "--to", "stable")
    assert done.code == 2
    assert "there is no release gateway@1.3 that this clone knows" in done.err
    assert "added on another machine: promote it there, or here once it is live" in done.err
    assert "firmroot firmware add FILE -p gateway -V 1.3" in done.err
    builder.ok("publish")
    shutil.rmtree(live.repository)
    shutil.copytree(builder.repository, live.repository)
    live.ok("channel", "promote", f"{PRODUCT}@1.3", "--to", "stable")


def test_a_minimum_reaches_devices(following: Lab) -> None:
    following.ok("channel", "minimum", f"{PRODUCT}@1.1", "--on", "stable")
    following.ok("sign")
    following.ok("publish")
    assert following.fresh_device()[1] == "installs 1.1"
    assert "live: minimum sequence 2" in following.ok("channel", "show", STABLE).out
    done = following.run("channel", "promote", f"{PRODUCT}@1.0", "--to", "stable")
    assert done.code == 5
    assert "below the minimum 2" in done.err


def test_lists_and_differences_show_live_and_next(following: Lab) -> None:
    assert following.ok("channel", "list").out == "gateway/stable  1.0  next: 1.1\n"
    assert following.ok("channel", "diff", STABLE).out == "+ 1.1\n- 1.0\n"
    shown = following.ok("--json", "channel", "show", STABLE).json
    assert (shown["live"], shown["next"]) == (["1.0"], ["1.1"])
    following.ok("publish")
    assert following.ok("channel", "list").out == "gateway/stable  1.1\n"
    assert "no difference" in following.ok("channel", "diff", STABLE).out


def test_before_anything_is_promoted_it_says_so(new: Lab) -> None:
    assert new.ok("channel", "list").out == "gateway/stable  nothing\n"
    assert "nothing was promoted to it yet" in new.ok("channel", "show", STABLE).out
    assert "no firmware yet" in new.ok("firmware", "list").out


def test_a_release_is_shown_with_its_files(live: Lab) -> None:
    done = live.ok("firmware", "show", f"{PRODUCT}@1.0")
    assert "gateway@1.0  sequence 1" in done.out
    assert "builds/gateway/1.0/firmware.img  published" in done.out
    assert "1200000 bytes, sha256" in done.out


WRONG = {
    "no such release": ("channel", "promote", f"{PRODUCT}@9", "--to", "stable"),
    "no such channel": ("channel", "promote", f"{PRODUCT}@1.0", "--to", "beta"),
    "no such product": ("channel", "promote", "router@1.0", "--to", "stable"),
    "not a reference": ("channel", "promote", "gateway", "--to", "stable"),
    "not a channel": ("channel", "show", "gateway"),
    "a release that is not offered": ("channel", "hold", f"{PRODUCT}@9", "--on", "stable"),
    "waves that fall": ("channel", "promote", f"{PRODUCT}@1.0", "--to", "stable", "--waves", "9,1"),
    "an origin of another product": (
        *("channel", "promote", f"{PRODUCT}@1.0", "--to", "stable", "--from", "router@1"),
    ),
    "a release to show that is not there": ("firmware", "show", f"{PRODUCT}@9"),
    "a product to list that is not there": ("firmware", "list", "-p", "router"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_name_is_named_and_nothing_changes(case: str, live: Lab) -> None:
    before = live.tree()
    done = live.run(*WRONG[case])
    assert done.code == 2, done
    assert done.err.startswith("error: ")
    assert "hint: " in done.err or "router" in done.err
    assert live.tree() == before


def test_a_manifest_that_was_tampered_with_is_not_built_upon(live: Lab) -> None:
    (stored,) = (live.repository / "targets/channels/gateway").iterdir()
    stored.write_bytes(stored.read_bytes().replace(b'"1.0"', b'"6.6"'))
    done = live.run("channel", "show", STABLE)
    assert done.code == 6
    assert "channels/gateway/stable.json is not the file that was signed for" in done.err


def test_what_another_machine_published_first_of_all_is_seen(
    ready: Lab, moments: dict[str, Lab]
) -> None:
    """Its root is here, signed and not known to be published."""
    assert ready.ok("channel", "list").out == "gateway/stable  nothing  next: 1.0\n"
    shutil.copytree(moments["live"].repository, ready.repository, dirs_exist_ok=True)
    assert ready.ok("channel", "list").out == "gateway/stable  1.0\n"


def test_before_any_root_is_signed_a_channel_says_nothing(new: Lab) -> None:
    (new.directory / "staged/root.json").unlink()
    found = read_channel(new.workspace, new.workspace.storage(), PRODUCT, "stable")
    assert (found.live, found.next) == (None, None)


def test_two_holds_before_a_signature_are_both_kept(live: Lab) -> None:
    live.add("1.1")
    live.add("1.2")
    live.ok("channel", "promote", f"{PRODUCT}@1.1", "--to", "stable", "--stone")
    live.ok("channel", "promote", f"{PRODUCT}@1.2", "--to", "stable")
    live.ok("channel", "hold", f"{PRODUCT}@1.1", "--on", "stable")
    live.ok("channel", "hold", f"{PRODUCT}@1.2", "--on", "stable")
    assert live.ok("--json", "channel", "show", STABLE).json["next_held"] == [2, 3]


STABLE_JSON = "channels/gateway/stable.json"


def test_a_waiting_manifest_that_a_stranger_exchanged_is_not_built_upon(live: Lab) -> None:
    live.add("1.1")
    live.add("1.2")
    live.ok("channel", "promote", f"{PRODUCT}@1.1", "--to", "stable")
    carried = live.directory / "ceremonies/gateway-stable-2/targets" / STABLE_JSON
    honest = carried.read_bytes()
    carried.write_bytes(honest.replace(b'"1.1"', b'"6.6"'))
    done = live.run("channel", "promote", f"{PRODUCT}@1.2", "--to", "stable")
    assert done.code == 5
    assert f"carries another {STABLE_JSON} than the one that is to be signed" in done.err
    carried.write_bytes(honest)
    live.promote("1.2")
    live.ok("publish")
    assert live.fresh_device()[1] == "installs 1.2"


def test_a_signed_manifest_that_a_stranger_exchanged_is_not_built_upon(following: Lab) -> None:
    following.add("1.2")
    (staged,) = (following.directory / "staged/targets/channels/gateway").iterdir()
    honest = staged.read_bytes()
    staged.write_bytes(honest.replace(b'"1.1"', b'"6.6"'))
    done = following.run("channel", "promote", f"{PRODUCT}@1.2", "--to", "stable")
    assert done.code == 6
    assert f"{STABLE_JSON} is not the file that was signed for" in done.err
    staged.write_bytes(honest)
    following.promote("1.2")
    following.ok("publish")
    assert following.fresh_device()[1] == "installs 1.2"


def test_a_waiting_role_without_a_manifest_takes_none_away(live: Lab) -> None:
    document = json.loads((live.directory / "metadata/gateway-stable.json").read_bytes())
    document["signed"]["targets"] = {}
    (live.directory / "staged").mkdir(exist_ok=True)
    (live.directory / "staged/gateway-stable.json").write_text(json.dumps(document))
    assert live.ok("channel", "list").out == "gateway/stable  1.0\n"


def test_the_paths_that_channels_offer_are_those_of_live_and_waiting_manifests(
    following: Lab,
) -> None:
    ws = following.workspace
    old, new = (f"builds/gateway/{version}/firmware.img" for version in ("1.0", "1.1"))
    assert offered_paths(ws, ws.storage(), PRODUCT) == (old, new)
    assert offered_paths(ws, ws.storage(), PRODUCT, "1.1") == (new,)
    assert offered_paths(ws, ws.storage(), PRODUCT, "9") == ()


def test_a_release_of_the_index_is_promoted_without_a_look_at_every_bin(
    binned: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    binned.ok("product", "add", PRODUCT, "--channel", "beta")
    binned.ok("sign")
    asked: list[firmware.Near] = []
    real = firmware.read_builds

    def read_builds(*arguments: object, **options: object) -> firmware.Builds:
        asked.extend(each for each in arguments if isinstance(each, firmware.Near))
        return real(*arguments, **options)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(channels, "read_builds", read_builds)
    binned.ok("channel", "promote", f"{PRODUCT}@1.0", "--to", "beta")
    assert asked == [firmware.Near(versions=("1.0",))]
    asked.clear()
    assert binned.run("channel", "promote", f"{PRODUCT}@9", "--to", "beta").code == 2
    assert asked == [firmware.Near(versions=("9",)), firmware.Near(every=True)]


def test_builds_that_do_not_say_what_they_are_are_named(live: Lab) -> None:
    live.add("1.1")
    staged = live.directory / ".firmroot/staged/gateway-builds.json"
    document = json.loads(staged.read_bytes())
    bare = {"length": 1, "hashes": {"sha256": "00" * 32}}
    document["signed"]["targets"]["builds/gateway/0.9/notes"] = bare
    staged.write_text(json.dumps(document))
    for version in ("1.1", "9"):
        done = live.run("channel", "promote", f"{PRODUCT}@{version}", "--to", "stable")
        assert done.code == 6
        assert "builds/gateway/0.9/notes" in done.err
