"""The audit of a live repository: a table of damages, each with what is said about it."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from tuf.api.metadata import Targets

from client_reference.payload.segments import SEGMENT
from client_reference.transport.fetcher import DirectoryFetcher
from keys_policy.model import RolePolicy
from repo_tools.metadata.adopted import Adopted
from repo_tools.metadata.bins import bins_of, delegating, is_bin
from repo_tools.metadata.edits import (
    ISSUED_FIELD,
    ROOT_FIELD,
    assemble,
    next_snapshot,
    next_timestamp,
    signed_bytes,
)
from repo_tools.publishing.live import read_bins, read_live
from repo_tools.publishing.online import OnlineKeys
from repo_tools.publishing.verify import Audit, Finding, Severity, audit
from repo_tools.signing.secrets import open_secrets
from repo_tools.signing.signers import open_signer, sign
from tests.publishing.lab import NOW, PRODUCT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from securesystemslib.signer import Signature

    from tests.publishing.lab import Lab


def _errors(lab: Lab, *arguments: str) -> list[str]:
    done = lab.run("--json", "verify", *arguments)
    assert done.code in {0, 6}, done
    findings = done.json["findings"]
    errors = [f"{f['subject']}: {f['detail']}" for f in findings if f["severity"] == "error"]
    assert (done.code == 6) == bool(errors)
    assert done.json["trusted"] == (not errors)
    return errors


def test_a_good_repository_is_trusted_and_marked_lab(live: Lab) -> None:
    done = live.ok("verify")
    assert "trusted: everything that is live verifies" in done.out
    assert "warning  root: LAB: never for devices in the field" in done.out
    assert "ok       targets: 3 files" in done.out
    assert "channels/gateway/stable.json: offers 1.0" in done.out
    assert "clock 1970: updates, installs 1.0" in done.out
    assert _errors(live) == []


def _damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def _one(lab: Lab, pattern: str) -> Path:
    (found,) = lab.repository.glob(pattern)
    return found


DAMAGES: dict[str, tuple[Callable[[Lab], object], str]] = {
    "one bit of an artifact": (
        lambda lab: _damage(_one(lab, "targets/builds/gateway/1.0/*.img")),
        "builds/gateway/1.0/firmware.img: (gateway-builds) has sha256",
    ),
    "an artifact that ends early": (
        lambda lab: _one(lab, "targets/builds/gateway/1.0/*.img").write_bytes(b"short"),
        "bytes early",
    ),
    "an artifact that is gone": (
        lambda lab: _one(lab, "targets/builds/gateway/1.0/*.img").unlink(),
        "cannot be read",
    ),
    "one bit of a segment list": (
        lambda lab: _damage(_one(lab, "targets/builds/gateway/1.0/*.segments")),
        "firmware.img.segments: (gateway-builds) has sha256",
    ),
    "one bit of the manifest": (
        lambda lab: _damage(_one(lab, "targets/channels/gateway/*.json")),
        "device gateway-stable",
    ),
    "the manifest is gone": (
        lambda lab: _one(lab, "targets/channels/gateway/*.json").unlink(),
        "device gateway-stable",
    ),
    "one bit of a role": (
        lambda lab: _damage(_one(lab, "metadata/1.gateway-builds.json")),
        "metadata: metadata/1.gateway-builds.json is damaged, or is not what was published: ",
    ),
    "one bit of the root-chain bundle": (
        lambda lab: _damage(_one(lab, "metadata/root-chain/1")),
        "metadata/root-chain/1: is not the bundle of the root chain",
    ),
    "the snapshot is gone": (
        lambda lab: _one(lab, "metadata/1.snapshot.json").unlink(),
        "metadata: metadata/1.snapshot.json is referenced",
    ),
    "the timestamp is gone": (
        lambda lab: _one(lab, "metadata/timestamp.json").unlink(),
        "timestamp.json",
    ),
    "the first root is gone": (
        lambda lab: _one(lab, "metadata/1.root.json").unlink(),
        "metadata/1.root.json: is missing; shelf devices cannot walk past it",
    ),
    "the first root is another one": (
        lambda lab: _damage(_one(lab, "metadata/1.root.json")),
        "metadata/1.root.json: is not the root that the workspace knows",
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damage_is_found_and_named(case: str, live: Lab) -> None:
    damage, message = DAMAGES[case]
    damage(live)
    errors = _errors(live)
    assert any(message in error for error in errors), errors
    done = live.run("verify")
    assert done.code == 6
    assert "publish nothing before it is understood" in done.err


def test_as_device_reads_no_artifact_and_sees_what_a_device_sees(live: Lab) -> None:
    _damage(_one(live, "targets/builds/gateway/1.0/*.img"))
    assert _errors(live, "--as-device") == []
    _one(live, "metadata/1.targets.json").unlink()
    assert _errors(live, "--as-device")


def test_expiry_is_an_error_and_its_approach_a_warning(live: Lab) -> None:
    done = live.later(days=6).ok("verify")
    warning = "warning  timestamp: version 1, good until 2026-03-09T06:00:00Z: time to sign"
    assert warning in done.out
    errors = _errors(live.later(days=7))
    assert "timestamp: version 1 expired 2026-03-09T06:00:00Z" in errors
    assert any("device gateway-stable" in error for error in errors)


MARGINS: dict[str, tuple[str, RolePolicy, str, timedelta, Severity]] = {
    "within its signing days": (
        "timestamp",
        RolePolicy(1, ("publisher",), 7, 2),
        "timestamp",
        timedelta(days=5),
        Severity.WARNING,
    ),
    "a second before its signing days": (
        "timestamp",
        RolePolicy(1, ("publisher",), 7, 2),
        "timestamp",
        timedelta(days=5, seconds=-1),
        Severity.FINE,
    ),
    "within the last third, where the policy does not say": (
        "snapshot",
        RolePolicy(1, ("publisher",), 30, 0),
        "snapshot",
        timedelta(days=20),
        Severity.WARNING,
    ),
    "before the last third, where the policy does not say": (
        "snapshot",
        RolePolicy(1, ("publisher",), 30, 0),
        "snapshot",
        timedelta(days=20, seconds=-1),
        Severity.FINE,
    ),
    "a channel by the rules of channels": (
        "channel",
        RolePolicy(2, ("rita", "sam", "tess"), 365, 100),
        "gateway-stable",
        timedelta(days=300),
        Severity.WARNING,
    ),
    "builds by the rules of builds": (
        "channel",
        RolePolicy(2, ("rita", "sam", "tess"), 365, 100),
        "gateway-builds",
        timedelta(days=300),
        Severity.FINE,
    ),
    "its last second": (
        "timestamp",
        RolePolicy(1, ("publisher",), 7, 2),
        "timestamp",
        timedelta(days=7),
        Severity.ERROR,
    ),
}


@pytest.mark.parametrize("case", MARGINS)
def test_a_role_is_due(case: str, live: Lab) -> None:
    section, rules, role, later, severity = MARGINS[case]
    policy = live.workspace.policy
    policy = replace(policy, roles={**policy.roles, section: rules})
    found = audit(
        Audit(DirectoryFetcher(live.repository), live.workspace.roots(), policy, live.now + later)
    )
    (about,) = [each for each in found if each.subject == role and "version" in each.detail]
    assert about.severity is severity


HINTS: dict[str, tuple[dict[str, object], list[str]]] = {
    "an older root than the newest": ({ROOT_FIELD: 0}, ["names root 0, the newest is 1"]),
    "the newest root": ({ROOT_FIELD: 1}, []),
    "nothing, as other repositories": ({}, []),
    "what is no time": ({ISSUED_FIELD: 5}, []),
    "a time that is still to come": (
        {ISSUED_FIELD: "2026-03-02T06:00:01Z"},
        ["was issued at 2026-03-02T06:00:01Z, which is still to come"],
    ),
    "this very second": ({ISSUED_FIELD: "2026-03-02T06:00:00Z"}, []),
}


@pytest.mark.parametrize("case", HINTS)
def test_a_timestamp_says(case: str, live: Lab) -> None:
    fields, expected = HINTS[case]
    workspace = live.workspace
    state = read_live(workspace.storage(), workspace.roots()[-1]).state
    root, timestamp = state.root, state.parsed_timestamp()
    assert root is not None
    assert timestamp is not None
    timestamp.unrecognized_fields = fields
    keys = OnlineKeys(workspace, open_secrets(None, {}, None, workspace.lab_passphrase))
    (live.repository / "metadata/timestamp.json").write_bytes(keys.sign([root], timestamp))
    found = [
        each.detail
        for each in audit(
            Audit(DirectoryFetcher(live.repository), workspace.roots(), workspace.policy, live.now)
        )
        if each.subject == "timestamp" and each.severity is not Severity.FINE
    ]
    assert len(found) == len(expected)
    assert all(detail.startswith(text) for detail, text in zip(found, expected, strict=True))


def test_roots_without_a_timestamp_are_nothing_to_audit(live: Lab) -> None:
    (live.repository / "metadata/timestamp.json").unlink()
    workspace = live.workspace
    fetcher = DirectoryFetcher(live.repository)
    assert audit(Audit(fetcher, workspace.roots(), workspace.policy, live.now)) == (
        Finding(Severity.ERROR, "timestamp", "nothing is published there"),
    )


def test_a_timestamp_from_the_future_is_an_error(live: Lab) -> None:
    errors = _errors(live.later(days=-1))
    assert any("still to come" in error for error in errors)


def _resign(lab: Lab, role: str, change: Callable[[dict[str, object]], None]) -> None:
    """What a thief of every key could publish: no signature is wrong."""

    workspace = lab.workspace
    storage = workspace.storage()
    state = read_live(storage, workspace.roots()[-1]).state
    if is_bin(role):
        state = read_bins(storage, state, [role])
    secrets = open_secrets(None, {}, None, workspace.lab_passphrase)
    uris = workspace.key_uris()

    def signatures(payload: bytes) -> list[Signature]:
        found = []
        for name, holder in workspace.keyring.items():
            signer = open_signer(uris[name], holder, secrets, workspace.directory)
            found.append(sign(signer, holder, payload))
        return found

    signed = state.role(role)
    assert signed is not None
    document = signed.to_dict()
    change(document)
    document["version"] = signed.version + 1
    changed = Targets.from_dict(document)
    data = assemble(changed, signatures(signed_bytes(changed)))
    storage.create(
        f"metadata/{changed.version}.{role}.json", data, hashlib.sha256(data).hexdigest()
    )
    rules = workspace.policy.role("snapshot")
    snapshot = next_snapshot(state.parsed_snapshot(), {role: data}, rules, lab.now)
    listed = assemble(snapshot, signatures(signed_bytes(snapshot)))
    path = f"metadata/{snapshot.version}.snapshot.json"
    storage.create(path, listed, hashlib.sha256(listed).hexdigest())
    timestamp = next_timestamp(state.parsed_timestamp(), listed, 1, rules, lab.now)
    tag = storage.read("metadata/timestamp.json", 1 << 20).tag
    storage.replace(
        "metadata/timestamp.json",
        assemble(timestamp, signatures(signed_bytes(timestamp))),
        tag,
    )


def _set(document: dict[str, object], *path: object) -> None:
    *keys, last, value = path
    place: dict[object, object] = document  # type: ignore[assignment]  # JSON
    for key in keys:
        place = place[key]  # type: ignore[assignment]  # JSON
    place[last] = value


def _drop_segments(document: dict[str, object]) -> None:
    targets = document["targets"]
    assert isinstance(targets, dict)
    targets.pop("builds/gateway/1.0/firmware.img.segments")


IMAGE = "builds/gateway/1.0/firmware.img"

GUARDS: dict[str, tuple[str, Callable[[dict[str, object]], None], str]] = {
    "a delegation that is not terminating": (
        "targets",
        lambda d: d["delegations"]["roles"][0].update(terminating=False),  # type: ignore[index]  # JSON
        "guards: targets: the delegation to gateway-stable is not terminating",
    ),
    "a channel role that speaks for builds": (
        "targets",
        lambda d: d["delegations"]["roles"][0].update(paths=["builds/gateway/*/*"]),  # type: ignore[index]  # JSON
        "guards: targets: gateway-stable is listed before holds roles",
    ),
    "targets that name a file": (
        "targets",
        lambda d: _set(d, "targets", "x", {"length": 1, "hashes": {"sha256": "00" * 32}}),
        "targets: names target files itself",
    ),
    "a leaf that delegates": (
        "gateway-builds",
        lambda d: _set(d, "delegations", {"keys": {}, "roles": []}),
        "gateway-builds delegates to other roles",
    ),
    "a role that speaks for what is not its own": (
        "gateway-stable",
        lambda d: _set(
            d, "targets", "holds/gateway/stable.json", {"length": 1, "hashes": {"sha256": "0" * 64}}
        ),
        "gateway-stable: speaks for holds/gateway/stable.json",
    ),
    "an artifact without its list of segments": (
        "gateway-builds",
        _drop_segments,
        "has no list of segment hashes",
    ),
    "builds that name other bytes than the channel": (
        "gateway-builds",
        lambda d: _set(d, "targets", IMAGE, "length", 1_199_999),
        "and the builds role disagree about builds/gateway/1.0/firmware.img",
    ),
    "builds that disagree with the channel": (
        "gateway-builds",
        lambda d: _set(d, "targets", IMAGE, "custom", "sequence", 9),
        "and the builds role disagree about builds/gateway/1.0/firmware.img",
    ),
}


@pytest.mark.parametrize("case", GUARDS)
def test_a_broken_guard_is_found_under_good_signatures(case: str, live: Lab) -> None:
    role, change, message = GUARDS[case]
    _resign(live, role, change)
    errors = _errors(live)
    assert any(message in error for error in errors), errors


LISTS = {
    "of other segments": (64, "is not what its list of segment hashes says"),
    "of too few segments": (32, "has no list of segment hashes of the right length"),
}


@pytest.mark.parametrize("case", LISTS)
def test_a_list_is_found(case: str, live: Lab) -> None:
    length, message = LISTS[case]
    other = b"\0" * length
    digest = hashlib.sha256(other).hexdigest()
    directory = live.repository / "targets/builds/gateway/1.0"
    (directory / f"{digest}.firmware.img.segments").write_bytes(other)
    listed = {"length": length, "hashes": {"sha256": digest}, "custom": {"segments-of": IMAGE}}
    _resign(live, "gateway-builds", lambda d: _set(d, "targets", f"{IMAGE}.segments", listed))
    errors = _errors(live)
    assert any(message in error for error in errors), errors


LISTLESS = {
    "a list itself": ("gateway-builds", "builds/gateway/1.0/other.segments"),
    "what is no artifact": ("gateway-stable", "channels/gateway/big"),
}


@pytest.mark.parametrize("case", LISTLESS)
def test_no_list_of_segments_is_wanted_of(case: str, live: Lab) -> None:
    role, path = LISTLESS[case]
    data = b"\0" * (SEGMENT + 1)
    digest = hashlib.sha256(data).hexdigest()
    directory, _, name = path.rpartition("/")
    (live.repository / "targets" / directory / f"{digest}.{name}").write_bytes(data)
    target = {"length": len(data), "hashes": {"sha256": digest}}
    _resign(live, role, lambda d: _set(d, "targets", path, target))
    assert not [error for error in _errors(live) if "list of segment hashes" in error]


def test_a_small_artifact_needs_no_list_of_segments(live: Lab) -> None:
    live.add("1.1", data=b"small")
    live.promote("1.1")
    live.ok("publish")
    assert _errors(live) == []


def test_a_manifest_of_another_channel_is_found(live: Lab) -> None:
    path = "channels/gateway/stable.json"
    document = json.loads(_one(live, "targets/channels/gateway/*.json").read_bytes())
    data = json.dumps({**document, "channel": "beta"}).encode()
    digest = hashlib.sha256(data).hexdigest()
    (live.repository / f"targets/channels/gateway/{digest}.stable.json").write_bytes(data)
    target = {"length": len(data), "hashes": {"sha256": digest}}
    _resign(live, "gateway-stable", lambda d: _set(d, "targets", path, target))
    assert f"{path}: (gateway-stable) is about gateway/beta" in _errors(live)


def test_an_offer_that_the_builder_does_not_know_is_found(live: Lab) -> None:
    def forget(document: dict[str, object]) -> None:
        document["targets"] = {}

    _resign(live, "gateway-builds", forget)
    errors = _errors(live)
    assert any("which the builds role does not list" in error for error in errors), errors


def test_an_unfinished_root_is_a_warning(live: Lab) -> None:
    live.ok("ceremony", "start", "root")
    live.ok("sign")
    root = (live.directory / "staged/root.json").read_bytes()
    (live.repository / "metadata/2.root.json").write_bytes(root)
    done = live.ok("verify")
    assert "warning  root: the newest root has no timestamp after it" in done.out
    live.ok("publish")
    assert "no timestamp after it" not in live.ok("verify").out


def test_a_path_and_a_url_are_read_like_the_storage(live: Lab, tmp_path: Path) -> None:
    assert _errors(live, str(live.repository)) == []
    assert _errors(live, str(tmp_path / "nowhere"))


@pytest.fixture
def web_page() -> Iterator[str]:
    """A captive portal: HTML and status 200 for every path."""

    class Portal(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = b"<!DOCTYPE html><html><body>Welcome to the hotel</body></html>"
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name it has
            del format, args

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Portal)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_web_page_is_no_repository(live: Lab, web_page: str) -> None:
    done = live.run("verify", web_page)
    assert done.code == 4, done
    assert "web page" in done.err


def test_nothing_published_is_nothing_to_verify(ready: Lab) -> None:
    done = ready.run("verify")
    assert done.code == 3
    assert "nothing is published yet" in done.err


# What was there before `firmroot adopt` may stay as it was, and nothing else.


def _audit(lab: Lab, **fields: object) -> tuple[Finding, ...]:
    workspace = lab.workspace
    fetcher = DirectoryFetcher(lab.repository)
    about = Audit(fetcher, workspace.roots(), workspace.policy, lab.now)
    return audit(replace(about, **fields))  # type: ignore[arg-type]  # any of its fields


def _wrong(found: tuple[Finding, ...]) -> list[str]:
    return [f"{e.subject}: {e.detail}" for e in found if e.severity is Severity.ERROR]


def test_what_was_adopted_is_no_finding(live: Lab) -> None:
    (live.repository / f"targets/{hashlib.sha256(b'x').hexdigest()}.x").write_bytes(b"x")
    theirs = {"length": 1, "hashes": {"sha256": hashlib.sha256(b"x").hexdigest()}}

    def old(document: dict[str, object]) -> None:
        _set(document, "targets", "x", theirs)
        document["delegations"]["roles"][0].update(terminating=False)  # type: ignore[index]  # JSON

    _resign(live, "targets", old)
    state = read_live(live.workspace.storage(), live.workspace.roots()[-1]).state
    assert state.root is not None
    assert state.targets is not None
    assert state.targets.delegations is not None
    assert state.targets.delegations.roles is not None
    targets = Targets.from_dict(state.targets.to_dict())
    assert targets.delegations is not None
    first, *_ = state.targets.delegations.roles.items()
    targets.delegations.roles = dict([first])
    assert _wrong(_audit(live, adopted=Adopted(state.root, targets))) == []
    assert any("is not terminating" in each for each in _wrong(_audit(live)))
    targets.targets = {}
    assert _wrong(_audit(live, adopted=Adopted(state.root, targets))) == [
        "targets: names target files itself, beside delegations"
    ]


def test_without_artifacts_everything_else_is_read(live: Lab) -> None:
    _damage(_one(live, "targets/builds/gateway/1.0/*.img"))
    found = _audit(live, artifacts=False)
    assert _wrong(found) == []
    (read,) = (each.detail for each in found if each.subject == "targets" and "hash" in each.detail)
    assert read.startswith("1 files, "), "the manifest"


# Hash bins.


class _Noting(DirectoryFetcher):
    """Notes which hash bins are fetched."""

    bins: set[str]

    def fetch(self, path: str, max_length: int) -> bytes:
        if "_-" in path:
            self.bins.add(path.split(".")[1])
        return super().fetch(path, max_length)


def test_a_sample_of_bins_moves_and_has_those_that_devices_are_sent_to(
    binned_moments: dict[str, Lab], tmp_path: Path
) -> None:
    lab = binned_moments["many"].copy(tmp_path / "acme")
    turns = []
    for number in range(2):
        found = lab.later(seconds=number)
        fetcher = _Noting(lab.repository)
        fetcher.bins = set()
        told = _audit(found, fetcher=fetcher, artifacts=False)
        assert _wrong(told) == []
        (sampled,) = (each.detail for each in told if "hash bins read" in each.detail)
        assert sampled == (
            f"{len(fetcher.bins)} of 64 hash bins read: those that channels send devices to, "
            "and a sample; --every-bin reads all"
        )
        turns.append(fetcher.bins)
        found.ok("refresh")
    assert all(len(turn) in {16, 17} for turn in turns)
    assert set.intersection(*turns) == {delegated(lab, IMAGE)}, "in time, every bin has its turn"
    told = _audit(lab.later(seconds=2), every_bin=True, artifacts=False)
    assert "64 of 64 hash bins read" in [each.detail for each in told]


def delegated(lab: Lab, path: str) -> str:
    """The bin that speaks for a path."""
    state = read_live(lab.workspace.storage(), lab.workspace.roots()[-1]).state
    bins = bins_of(state.role(f"{PRODUCT}-builds"))
    assert bins is not None
    return bins.get_role_for_target(path)


def test_a_bin_is_due_by_the_rules_of_builds(binned: Lab) -> None:
    policy = binned.workspace.policy
    rules = RolePolicy(2, ("rita", "sam", "tess"), 365, 100_000)
    policy = replace(policy, roles={**policy.roles, "channel": rules})
    due = {e.subject for e in _audit(binned, policy=policy) if e.severity is Severity.WARNING}
    assert "gateway-stable" in due
    assert not {each for each in due if "builds" in each or is_bin(each)}


def test_the_list_of_segments_that_a_bin_names_is_read(binned: Lab) -> None:
    assert _wrong(_audit(binned)) == []
    _damage(_one(binned, "targets/builds/gateway/1.0/*.segments"))
    assert any(
        error.startswith(f"{IMAGE}: ") and "its list of segment hashes has sha256" in error
        for error in _wrong(_audit(binned))
    )


def _foreign(document: dict[str, object]) -> None:
    for number in range(20):
        target = {"length": 1, "hashes": {"sha256": "00" * 32}}
        _set(document, "targets", f"builds/gateway/9/{number}", target)


BINS: dict[str, tuple[Callable[[dict[str, object]], None], str]] = {
    "that lists what another speaks for": (_foreign, "is for gateway_-"),
    "that delegates": (
        lambda d: _set(d, "delegations", {"keys": {}, "roles": []}),
        "delegates to other roles",
    ),
}


@pytest.mark.parametrize("case", BINS)
def test_a_bin_is_found(case: str, binned: Lab) -> None:
    change, message = BINS[case]
    home = delegated(binned, IMAGE)
    _resign(binned, home, change)
    assert any(f"guards: {home} " in e and message in e for e in _wrong(_audit(binned)))


def test_a_builds_role_whose_bins_have_another_key_is_found(live: Lab) -> None:
    """Nothing was put into them yet."""
    stranger = live.workspace.keyring["rita"].key
    cut = delegating(PRODUCT, 16, [stranger], 1, NOW + timedelta(days=30)).to_dict()
    _resign(live, "gateway-builds", lambda d: d.update({**cut, "version": d["version"]}))
    errors = _wrong(_audit(live))
    assert any("gives its hash bins other keys" in error for error in errors), errors
