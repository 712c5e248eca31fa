"""`firmroot history`: what was published is said, and what was tampered with is named."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from client_reference.errors import ExitCode
from repo_tools.metadata.repository import sha256
from repo_tools.signing.ceremony import Ending, find_ceremony, keep_record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.publishing.lab import Lab


@pytest.fixture
def two(following: Lab) -> Lab:
    """A workspace that published twice."""
    following.ok("publish")
    return following


def test_it_says_who_signed_what(two: Lab) -> None:
    said = two.ok("history").out
    assert "000001.json" in said
    assert "000002.json" in said
    assert "gateway-stable 2, signed by" in said
    assert "000001.json" not in two.ok("history", "gateway@1.1").out
    assert "000002.json" not in two.ok("history", "targets").out
    assert "000002.json" in two.ok("history", "gateway/stable").out
    assert two.run("history", "gateway@9").code == ExitCode.USAGE


def test_what_is_recorded_verifies_without_the_storage_also_after_a_refresh(two: Lab) -> None:
    later = two.later(days=-1)
    later.ok("refresh")
    later.repository.rename(later.directory / "away")
    assert "verified: 2 published states, " in later.ok("history", "--verify").out


def test_a_record_names_the_ceremonies_that_no_record_before_it_names(two: Lab) -> None:
    named = [
        name
        for path in sorted(two.workspace.history.glob("*.json"))
        for name in json.loads(path.read_bytes())["ceremonies"]
    ]
    assert sorted(named) == sorted(
        path.name for path in (two.workspace.history / "ceremonies").iterdir()
    )


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


def _refused(lab: Lab, text: str) -> None:
    done = lab.run("history", "--verify")
    assert done.code == ExitCode.NOT_TRUSTED
    assert text in done.out


def test_a_removed_record_is_named_and_given_back_all_verifies(two: Lab) -> None:
    path = two.directory / "history/000001.json"
    data = path.read_bytes()
    path.unlink()
    _refused(two, "history/000001.json is missing: 000002.json was made after it")
    path.write_bytes(data)
    two.ok("history", "--verify")


def test_the_newest_record_removed_is_missed_by_what_people_signed(two: Lab) -> None:
    (two.directory / "history/000002.json").unlink()
    _refused(two, "no record says how metadata/gateway-stable.json (version 2) came to be live")


def test_the_newest_record_removed_is_missed_by_a_root(live: Lab) -> None:
    live.ok("rotate", "publisher")
    live.ok("sign")
    live.ok("publish")
    live.ok("history", "--verify")
    *_, newest = sorted((live.directory / "history").glob("*.json"))
    while "root" not in json.loads(newest.read_bytes())["roles"]:
        newest.unlink()
        *_, newest = sorted((live.directory / "history").glob("*.json"))
    newest.unlink()
    _refused(live, "no record says how metadata/root/2.json came to be live")


def test_an_edited_record_is_named(two: Lab) -> None:
    _edit(two.directory / "history/000001.json", when="2020-01-01T00:00:00Z")
    _refused(two, "history/000001.json is not the one that 000002.json was made after")


def test_a_record_that_names_another_signer_is_named(two: Lab) -> None:
    path = two.directory / "history/000002.json"
    roles = json.loads(path.read_bytes())["roles"]
    roles["gateway-stable"]["signed_by"] = ["mallory"]
    _edit(path, roles=roles)
    _refused(two, "history/000002.json: gateway-stable was signed by")


def test_changed_and_missing_bytes_are_named(two: Lab) -> None:
    record = json.loads((two.directory / "history/000002.json").read_bytes())
    path = two.directory / f"history/objects/{record['timestamp']['sha256']}"
    path.write_bytes(path.read_bytes() + b" ")
    _refused(two, f"history/000002.json: history/objects/{path.name} was changed")
    path.unlink()
    _refused(two, f"history/000002.json: history/objects/{path.name} is missing")


def test_a_rotation_verifies_with_the_key_that_is_gone_and_the_new_one(live: Lab) -> None:
    live.ok("rotate", "alice")
    live.ok("sign")
    live.ok("publish")
    said = live.ok("history", "--verify", "root").out
    assert "root 2, signed by alice" in said
    assert "removes key alice" in said
    assert "verified: 3 published states" in said


def test_each_epoch_has_records_and_all_are_shown_and_verify(at: Callable[[str], Lab]) -> None:
    there = at("there")
    done = json.loads(there.ok("--json", "history", "--verify").out)
    assert [(each["epoch"], each["name"]) for each in done["published"]] == [
        (0, "000001.json"),
        (1, "000001.json"),
    ]
    said = there.ok("history", "--verify").out
    assert said.startswith("epoch 0\n")
    assert "epoch 1\n" in said
    assert "verified: 2 published states, 8 ceremonies" in said
    # Attack: what the fleet was sent before the re-rooting is rewritten.
    (there.directory / "history/000001.json").unlink()
    done = there.run("history", "--verify", "root")
    assert done.code == ExitCode.NOT_TRUSTED
    assert "no record says how metadata/root/1.json came to be live" in done.out


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (
            lambda text: text.replace('"version":2', '"version":3'),
            "ERROR metadata/recovery: recovery root 2 has good signatures of 0 keys",
        ),
        (None, "ERROR no record says who signed metadata/recovery/2.json"),
    ],
    ids=["changed", "without its ceremony"],
)
def test_the_recovery_roots_are_part_of_the_proof(
    damage: Callable[[str], str] | None, problem: str, at: Callable[[str], Lab]
) -> None:
    there = at("there")
    if damage is not None:
        link = there.directory / "metadata/recovery/2.json"
        link.write_text(damage(link.read_text()))
    else:
        for record in (there.directory / "history").rglob("recovery-2-*.json"):
            record.unlink()
    done = there.run("history", "--verify")
    assert done.code == ExitCode.NOT_TRUSTED
    assert problem in done.out


def test_a_ceremony_that_was_given_up_is_no_record_of_a_recovery_root(
    at: Callable[[str], Lab],
) -> None:
    there = at("there")
    for record in (there.directory / "history").rglob("recovery-2-*.json"):
        _edit(record, ending="abandoned", **{"ended-because": "given up"})
    done = there.run("history", "--verify")
    assert done.code == ExitCode.NOT_TRUSTED
    assert "no record says who signed metadata/recovery/2.json" in done.out


def test_why_is_shown_to_signers_and_kept_with_what_changed(live: Lab) -> None:
    live.add("1.1")
    live.ok("--why", "CVE-2026-1", "channel", "promote", "gateway@1.1", "--to", "stable")
    assert (
        "why, says who started it: CVE-2026-1" in live.ok("ceremony", "show", "gateway-stable").out
    )
    assert "why, says who started it: CVE-2026-1" in live.ok("sign").out
    live.ok("--why", "night of the fix", "publish")
    said = live.ok("history", "gateway/stable").out
    assert "ceremony gateway-stable-2 signed: CVE-2026-1" in said
    assert "published, 000002.json: night of the fix" in said
    assert "offers 1.1 (sequence 2)" in said
    assert "adds target builds/gateway/1.1" not in said, "only what was asked for is told in full"
    told = live.ok("--json", "history", "gateway/stable").json
    assert told["published"][-1]["why"] == "night of the fix"
    assert any("1.1" in line for line in told["published"][-1]["changes"]["gateway-stable"])


@pytest.mark.parametrize("why", ["two\nlines", "\x1b[2J", "x" * 401])
def test_a_reason_is_one_line_that_prints(live: Lab, why: str) -> None:
    done = live.run("--why", why, "publish")
    assert done.code == ExitCode.USAGE
    assert "--why: expected one line" in done.err
    assert "\x1b" not in done.err


def _ceremonies(lab: Lab, start: str) -> list[Path]:
    return sorted((lab.directory / "history/ceremonies").glob(f"{start}*.json"))


def test_a_ceremony_that_was_abandoned_stays_and_verifies(two: Lab) -> None:
    two.add("1.2")
    two.ok("channel", "promote", "gateway@1.2", "--to", "stable")
    ok = ("ceremony", "abandon", "gateway-stable", "--discard-signatures", "gateway-stable")
    two.ok("--yes", "--why", "wrong image", *ok)
    said = two.ok("history", "--verify", "gateway/stable").out
    assert "ceremony gateway-stable-3 abandoned\n  signed by nobody" in said
    assert "ended because: wrong image" in said


def test_signatures_that_were_discarded_for_another_content_stay(two: Lab) -> None:
    two.ok("ceremony", "start", "root")
    two.ok("sign", "--key", "alice")
    renewed = two.later(days=1)
    renewed.ok("ceremony", "start", "root", "--discard-signatures", "root")
    said = renewed.ok("history", "--verify", "root").out
    assert "ceremony root-2 replaced\n  signed by alice" in said


def test_a_ceremony_that_was_edited_or_removed_is_named(two: Lab) -> None:
    (path,) = _ceremonies(two, "gateway-stable-2")
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"ending": "signed"', b'"ending": "abandoned"'))
    _refused(two, f"history/ceremonies/{path.name} was changed")
    path.unlink()
    _refused(two, f"history/ceremonies/{path.name} is missing: 000002.json was made after it")
    path.write_bytes(data)
    two.ok("history", "--verify")


def test_a_ceremony_with_a_forged_signature_is_named(two: Lab) -> None:
    (path,) = _ceremonies(two, "gateway-stable-2")
    document = json.loads(path.read_bytes())
    document["version"], document["signed"]["version"] = 9, 9
    document["ceremony"] = "gateway-stable-9"
    data = json.dumps(document).encode()
    forged = path.with_name(f"gateway-stable-9-{sha256(data)[:16]}.json")
    forged.write_bytes(data)
    _refused(two, "does not verify")
    document["signatures"] = []
    data = json.dumps(document).encode()
    forged.unlink()
    path.with_name(f"gateway-stable-9-{sha256(data)[:16]}.json").write_bytes(data)
    _refused(two, "signers and has 0 signatures")


def test_a_signature_of_a_key_that_nobody_knows_proves_nothing(two: Lab) -> None:
    (path,) = _ceremonies(two, "gateway-stable-2")
    document = json.loads(path.read_bytes())
    document["signatures"][0]["keyid"] = "ab" * 32
    data = json.dumps(document).encode()
    path.with_name(f"gateway-stable-2-{sha256(data)[:16]}.json").write_bytes(data)
    _refused(two, "nothing here knows the key abababab")


def test_a_record_without_its_predecessor_or_a_field_is_a_problem(two: Lab) -> None:
    path = two.directory / "history/000002.json"
    whole = path.read_bytes()
    _edit(path, previous=None)
    _refused(two, "history/000002.json names no record before it, and it is not the first")
    for field in ("previous", "ceremonies", "root", "roles", "timestamp"):
        stripped = json.loads(whole)
        del stripped[field]
        path.write_text(json.dumps(stripped))
        done = two.run("history")
        assert done.code == ExitCode.NOT_TRUSTED
        assert "history/000002.json is damaged" in done.err
    path.write_bytes(whole)
    two.ok("history", "--verify")


def test_a_record_whose_fields_are_of_another_kind_is_damaged(two: Lab) -> None:
    path = two.directory / "history/000002.json"
    whole = path.read_bytes()
    for *way, last, value in (
        ("timestamp", "sha256", 1),
        ("timestamp", "sha256", "../../../../../../../../etc/hostname"),
        ("roles", "snapshot", "sha256", "\ud800"),
        ("roles", "snapshot", "sha256", []),
        ("previous", {}),
        ("previous", "name", []),
        ("previous", "sha256", 1),
        ("ceremonies", [[]]),
    ):
        document = table = json.loads(whole)
        for name in way:
            table = table[name]
        table[last] = value
        path.write_text(json.dumps(document))
        done = two.run("history", "--verify")
        assert done.code == ExitCode.NOT_TRUSTED, done.err
        assert "history/000002.json is damaged" in done.err
    path.write_bytes(whole)
    two.ok("history", "--verify")


def test_a_record_that_claims_another_root_or_role_is_named(two: Lab) -> None:
    path = two.directory / "history/000002.json"
    whole = path.read_bytes()
    _edit(path, root=7)
    _refused(two, "history/000002.json: root 7 is missing in metadata/root")
    record = json.loads(whole)
    del record["roles"]["gateway-stable"]
    path.write_text(json.dumps(record))
    _refused(two, "history/000002.json: metadata/2.gateway-stable.json is referenced")


def _rewrite(lab: Lab, number: int, **changes: object) -> dict[str, Any]:
    path = lab.directory / f"history/{number:06d}.json"
    _edit(path, **changes)
    return dict(json.loads(path.read_bytes()))


def _record(lab: Lab, number: int) -> dict[str, Any]:
    return dict(json.loads((lab.directory / f"history/{number:06d}.json").read_bytes()))


def test_one_signer_among_others_who_did_not_sign_is_named(two: Lab) -> None:
    roles = _record(two, 2)["roles"]
    honest = list(roles["gateway-stable"]["signed_by"])
    for said in ([*honest[:-1], "mallory"], [*honest, "mallory"]):
        roles["gateway-stable"]["signed_by"] = said
        _rewrite(two, 2, roles=roles)
        _refused(two, f"and the record says {', '.join(said)}")
    roles["gateway-stable"]["signed_by"] = honest
    _rewrite(two, 2, roles=roles)
    two.ok("history", "--verify")


def test_a_key_that_nobody_here_knew_then_may_be_known_now(two: Lab) -> None:
    roles, keys = _record(two, 2)["roles"], two.workspace.keyring
    roles["gateway-stable"]["signed_by"] = [
        f"unknown key {keys[name].key.keyid[:8]}" for name in roles["gateway-stable"]["signed_by"]
    ]
    _rewrite(two, 2, roles=roles)
    two.ok("history", "--verify")


def test_keys_that_have_left_the_workspace_still_prove_what_they_signed(two: Lab) -> None:
    two.ok("rotate", "rita")
    two.ok("sign")
    two.ok("publish")
    (two.directory / "keys/rita.toml").unlink()
    assert "signed by rita" in two.ok("history", "--verify", "gateway/stable").out


def test_an_older_state_that_is_recorded_as_a_new_one_is_named(two: Lab) -> None:
    newest = two.directory / "history/000002.json"
    replay = _record(two, 1) | {
        "previous": {"name": newest.name, "sha256": sha256(newest.read_bytes())},
        "ceremonies": [],
    }
    (two.directory / "history/000003.json").write_text(json.dumps(replay))
    _refused(two, "ERROR history/000003.json: ")


def test_a_record_that_adds_an_older_role_is_named(two: Lab) -> None:
    two.ok("ceremony", "start", "targets")
    two.ok("sign")
    two.ok("publish")
    added = _record(two, 3)["roles"] | {
        "gateway-stable": _record(two, 1)["roles"]["gateway-stable"]
    }
    _rewrite(two, 3, roles=added)
    _refused(two, "history/000003.json: gateway-stable is not the one that was live")


def test_signed_content_of_another_ceremony_is_named(two: Lab) -> None:
    (path,) = _ceremonies(two, "gateway-stable-2")
    data = json.dumps(json.loads(path.read_bytes()) | {"ceremony": "gateway-stable-7"}).encode()
    path.with_name(f"gateway-stable-7-{sha256(data)[:16]}.json").write_bytes(data)
    _refused(two, "it holds gateway-stable version 2")


def test_without_the_bytes_who_signed_is_shown_all_the_same(two: Lab) -> None:
    shutil.rmtree(two.directory / "history/objects")
    said = two.ok("history", "gateway/stable").out
    assert "gateway-stable 2, signed by" in said
    assert "offers" not in said


def test_bytes_that_were_changed_tell_nothing(two: Lab) -> None:
    digest = _record(two, 2)["roles"]["gateway-stable"]["sha256"]
    kept = two.directory / "history/objects" / digest
    kept.write_bytes(kept.read_bytes().replace(b'"version": 2', b'"version": 9'))
    assert "gateway-stable version" not in two.ok("history", "gateway@1.1").out


def test_a_workspace_that_was_opened_for_no_run_keeps_nothing(live: Lab) -> None:
    live.ok("ceremony", "start", "targets")
    ws = live.workspace
    before = _ceremonies(live, "")
    keep_record(ws, find_ceremony(ws, "targets"), Ending.ABANDONED)
    assert _ceremonies(live, "") == before
