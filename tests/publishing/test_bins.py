"""Builds in hash bins: what one artifact more costs, and what nobody may do to bins."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any, Self
from unittest.mock import patch

import pytest
from tuf.api.metadata import Snapshot, Targets

from client_reference.errors import NotTrustedError
from client_reference.trust.updater import bin_prefix
from repo_tools.metadata import bins as pure
from repo_tools.metadata.bins import Release, bins_of, number_for, read_index, sizes
from repo_tools.metadata.repository import parse, sha256
from repo_tools.publishing import firmware, inbox, intake
from repo_tools.publishing.artifacts import stored_name
from repo_tools.publishing.firmware import open_signers, write_role
from repo_tools.publishing.inherit import inherited_builds
from repo_tools.publishing.live import read_bins
from repo_tools.publishing.prepare import read_base
from repo_tools.publishing.rehearse import Outcome
from repo_tools.publishing.renewal import renew_builds
from repo_tools.publishing.submit import handed_in_digests
from repo_tools.signing.secrets import Secrets
from repo_tools.storage.local import LocalStorage
from tests.publishing.lab import HARDWARE, NOW, PRODUCT, Lab, entry

if TYPE_CHECKING:
    from pathlib import Path


large = pytest.mark.services  # whole lives of a repository, beside the large matrices
BUILDS = f"{PRODUCT}-builds"
SMALL = b"firmware\n" * 50


def _copy(lab: Lab, tmp_path: Path) -> Lab:
    found = lab.copy(tmp_path / "acme")
    root = (found.directory / "metadata/root/1.json").read_bytes()
    (tmp_path / "factory-root.json").write_bytes(root)
    return found


@pytest.fixture
def live(binned_moments: dict[str, Lab], tmp_path: Path) -> Lab:
    return _copy(binned_moments["live"], tmp_path)


@pytest.fixture
def many(binned_moments: dict[str, Lab], tmp_path: Path) -> Lab:
    return _copy(binned_moments["many"], tmp_path)


def snapshot_of(lab: Lab) -> Snapshot:
    """The live snapshot."""
    data = read_base(lab.workspace, lab.workspace.storage()).state.snapshot
    assert data is not None
    return parse(data, Snapshot, "snapshot").signed


def live_bins(lab: Lab) -> dict[str, int]:
    """The version of each bin that the live snapshot lists."""
    return {
        name.removesuffix(".json"): meta.version
        for name, meta in snapshot_of(lab).meta.items()
        if "_" in name
    }


def stage(lab: Lab, role: str, signed: Targets) -> None:
    """Sign a role with the builder's key, as whoever has that key can, and stage it."""
    ws = lab.workspace
    secrets = Secrets(ws.lab_passphrase.read_bytes().strip())
    write_role(ws, role, signed, open_signers(ws, PRODUCT, secrets))


class Requests:
    """What a command asks of its storage; in a test that counts and does not time."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str, int]] = []

    def __enter__(self) -> Self:
        self._patches = [
            patch.object(LocalStorage, name, self._counted(what, getattr(LocalStorage, name)))
            for name, what in (
                ("read", "GET"),
                ("open", "OPEN"),
                ("create", "PUT"),
                ("replace", "PUT"),
                ("paths", "LIST"),
            )
        ]
        for each in self._patches:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._patches:
            each.stop()

    def _counted(self, what: str, method: Any) -> Any:  # noqa: ANN401  methods of any form
        def call(storage: LocalStorage, path: str, *arguments: Any) -> Any:  # noqa: ANN401
            size = 0
            if what == "PUT":
                source = arguments[0]
                size = len(source) if isinstance(source, bytes) else source.stat().st_size
            self.made.append((what, path, size))
            return method(storage, path, *arguments)

        return call

    @property
    def counted(self) -> list[tuple[str, str, int]]:
        """Requests besides the artifact; `read` opens, and is one request."""
        reads = Counter(path for what, path, _ in self.made if what == "GET")
        found = []
        for what, path, size in self.made:
            if what == "OPEN" and reads[path] > 0:
                reads[path] -= 1
            elif not path.startswith("targets/builds/"):
                found.append((what, path, size))
        return found

    def bins(self, *what: str) -> set[str]:
        """The bins that were asked for."""
        return {path for kind, path, _ in self.counted if kind in what and "_" in path}


# What it costs


def test_the_number_of_bins_is_the_one_with_which_devices_fetch_least() -> None:
    for artifacts in (1_000, 100_000, 1_000_000):
        chosen = number_for(PRODUCT, artifacts)
        for other in (chosen // 2, chosen * 2):
            assert (
                sizes(PRODUCT, artifacts, chosen).device <= sizes(PRODUCT, artifacts, other).device
            )
    assert [number_for(PRODUCT, n) for n in (100, 1_000, 100_000)] == [0, 64, 1024]


@large
def test_a_product_is_told_what_bins_cost(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "acme")
    lab.init()
    said = lab.ok("product", "add", "sensor", "--hardware", "s-1", "--expect", "100000").out
    assert "100000 artifacts in 1024 hash bins" in said
    assert "a bin, kB   snapshot, kB   a device fetches, kB" in said
    assert lab.workspace.config.products["sensor"].bins == 1024
    words = ("product", "add", "meter", "--hardware", "m-1", "--expect", "1000")
    told = lab.ok("--json", *words).json
    assert (told["bins"], [each["number"] for each in told["choices"]]) == (64, [0, 16, 64, 256])
    more = lab.ok("--json", "product", "add", "meter", "--channel", "beta").json
    assert (more["bins"], more["choices"]) == (64, [])
    listed = lab.ok("product", "list").out
    assert "1024 hash bins" in listed
    done = lab.run("product", "bins", "sensor", "--number", "100")
    assert (done.code, "a power of two from 2 to 16384" in done.err) == (2, True)


@large
def test_one_artifact_more_is_one_bin_more_and_the_role_stays(live: Lab) -> None:
    before = live_bins(live)
    live.ship("1.1")
    after = live_bins(live)
    assert len(after) == 2
    assert {name: after[name] for name in before} == before
    assert snapshot_of(live).meta[f"{BUILDS}.json"].version == 1
    assert all(
        meta.length is None for name, meta in snapshot_of(live).meta.items() if "_" in name
    ), "4,096 digests would be half a megabyte for every device"
    assert live.fresh_device() == (Outcome.UPDATES, "installs 1.1")
    assert read_index(snapshot_of(live), PRODUCT) == (
        Release("1.1", 2, ("firmware.img",)),
        Release("1.0", 1, ("firmware.img",)),
    )


def test_one_artifact_more_costs_ten_requests_and_one_bin(many: Lab) -> None:
    """Whatever their number: a publish of a machine that has published before."""
    assert len(live_bins(many)) == 64
    with Requests() as adding:
        many.add("new", data=SMALL)
    assert len(adding.bins("GET", "OPEN")) <= 2, "its own bin, and that of the newest release"
    many.promote("new")
    many.ok("publish")
    many.add("newer", data=SMALL)
    many.promote("newer")
    with Requests() as publishing:
        many.ok("publish")
    written = [path for what, path, _ in publishing.counted if what == "PUT"]
    assert len(publishing.counted) <= 10, publishing.counted
    assert len(written) == 5, "a manifest, a bin, the channel, the snapshot, the timestamp"
    assert len(publishing.bins("PUT")) == 1
    assert publishing.bins("GET", "OPEN") == set()
    assert many.fresh_device() == (Outcome.UPDATES, "installs newer")


@large
def test_a_machine_that_has_read_nothing_reads_no_bin_that_it_does_not_need(many: Lab) -> None:
    many.add("new", data=SMALL)
    many.promote("new")
    for file in (many.directory / ".firmroot/cache").iterdir():
        file.unlink()
    with Requests() as publishing:
        many.ok("publish")
    assert len(publishing.bins("GET", "OPEN")) <= 2, "what it changes, and what channels offer"


@large
def test_what_was_read_before_is_verified_again_or_read_again(many: Lab) -> None:
    """Whoever can write to the cache can write a bin into it that no builder signed."""
    many.add("new", data=SMALL)
    many.promote("new")
    cache = list((many.directory / ".firmroot/cache").iterdir())
    assert cache
    whole = {file: file.read_bytes() for file in cache}
    for file in cache:
        file.write_bytes(b"{}" if b"targets" in whole[file] else whole[file][:-1])
    many.ok("publish")
    many.ship("newer")
    assert many.fresh_device() == (Outcome.UPDATES, "installs newer")


@large
def test_a_root_of_somebody_else_is_seen_though_nobody_asks_for_it_first(
    live: Lab, tmp_path: Path
) -> None:
    """A publish that saves the first question leaves no device with a root and no timestamp."""
    other = live.copy(tmp_path / "other")
    other.ok("ceremony", "start", "root")
    other.ok("sign")
    other.ok("publish")
    live.add("1.1")
    root = (other.repository / "metadata/2.root.json").read_bytes()
    (live.repository / "metadata/2.root.json").write_bytes(root)
    live.ok("publish")
    timestamp = json.loads((live.repository / "metadata/timestamp.json").read_bytes())["signed"]
    assert timestamp["x-firmroot-root"] == 2
    live.promote("1.1")
    live.ok("publish")
    assert live.fresh_device() == (Outcome.UPDATES, "installs 1.1")


@large
def test_an_audit_samples_bins_and_says_so(many: Lab) -> None:
    # The artifacts of `fill` have no bytes: their errors are no matter here.
    said = json.loads(many.run("--json", "verify").out)
    (line,) = [
        each for each in said["findings"] if each["subject"] == BUILDS and "of" in each["detail"]
    ]
    assert line["detail"].startswith(("16 of 64", "17 of 64"))
    assert "--every-bin reads all" in line["detail"]
    said = json.loads(many.run("--json", "verify", "--every-bin").out)
    assert any(each["detail"] == "64 of 64 hash bins read" for each in said["findings"])


# What releases are


@large
def test_files_of_one_version_have_one_sequence_whatever_their_bins(live: Lab) -> None:
    live.ok("product", "add", PRODUCT, "--hardware", "acme,gw-3")
    live.ok("sign")
    live.add("2.0")
    more = live.directory.parent / "gw3.img"
    more.write_bytes(SMALL)
    labels = ("-p", PRODUCT, "-V", "2.0", "--hardware")
    live.ok("firmware", "add", more, *labels, "acme,gw-3")
    live.ok("publish")
    rest = live.directory.parent / "third.img"
    rest.write_bytes(SMALL)
    done = live.run("firmware", "add", rest, *labels, "acme,gw-3")
    assert (done.code, "already has builds/gateway/2.0/gw3.img" in done.err) == (5, True)
    live.ok("product", "add", PRODUCT, "--hardware", "acme,gw-4")
    live.ok("sign")
    done = live.ok("--json", "firmware", "add", rest, *labels, "acme,gw-4")
    assert done.json["sequence"] == 2
    live.promote("2.0")
    live.ok("publish")
    (release,) = [each for each in read_index(snapshot_of(live), PRODUCT) if each.version == "2.0"]
    assert release.files == ("firmware.img", "gw3.img", "third.img")
    shown = live.ok("firmware", "show", f"{PRODUCT}@2.0").out
    assert shown.count("published") == 3


@large
def test_the_same_file_again_is_there_already_and_other_bytes_are_refused(live: Lab) -> None:
    assert "is there already" in live.add("1.0").out
    file = live.directory.parent / "firmware.img"
    file.write_bytes(SMALL)
    done = live.run("firmware", "add", file, "-p", PRODUCT, "-V", "1.0", "--hardware", HARDWARE)
    assert (done.code, "was added with other bytes" in done.err) == (5, True)
    live.ship("1.1")


@large
def test_an_old_release_is_found_though_the_index_has_forgotten_it(live: Lab) -> None:
    with patch.object(pure, "RECENT", 1):
        live.add("1.1")
        live.ok("publish")
        live.ship("1.2")
    assert [each.version for each in read_index(snapshot_of(live), PRODUCT)] == ["1.2"]
    live.ok("channel", "promote", f"{PRODUCT}@1.1", "--to", "stable", "--stone")
    live.ok("sign")
    live.ok("publish")
    assert "1.1" not in live.ok("firmware", "list").out
    assert "gateway@1.1" in live.ok("firmware", "list", "--all").out
    assert "sequence 2" in live.ok("firmware", "show", f"{PRODUCT}@1.1").out
    done = live.run("channel", "promote", f"{PRODUCT}@7.0", "--to", "stable")
    assert (done.code, "there is no release gateway@7.0" in done.err) == (2, True)


@large
def test_history_proves_what_was_live_in_bins(live: Lab) -> None:
    live.ship("1.1")
    live.ok("history", "--verify")
    (record,) = [path for path in live.directory.glob("history/*.json") if "000002" in path.name]
    (name,) = [role for role in json.loads(record.read_bytes())["roles"] if "_" in role]
    digest = json.loads(record.read_bytes())["roles"][name]["sha256"]
    kept = live.directory / "history/objects" / digest
    data = kept.read_bytes()
    kept.write_bytes(data.replace(b'"1.1"', b'"6.6"'))
    assert live.run("history", "--verify").code == 6
    kept.write_bytes(data)
    live.ok("history", "--verify")


# Attacks on the index and on bins


@large
def test_a_sequence_that_no_builder_gave_is_not_believed(live: Lab) -> None:
    """Else a thief of the online key could exhaust the sequences of a product."""
    lie = (Release("1.0", 2**53 - 2, ("firmware.img",)),)
    with (
        patch.object(firmware, "read_index", lambda *_: lie),
        pytest.raises(AssertionError, match=r"no builder said so in builds/gateway/1\.0"),
    ):
        live.add("1.1")
    live.ship("1.1")
    assert live.fresh_device() == (Outcome.UPDATES, "installs 1.1")


@large
def test_a_snapshot_that_lost_its_index_costs_a_look_at_every_bin_and_no_sequence(
    live: Lab,
) -> None:
    with patch.object(firmware, "read_index", lambda *_: ()):
        done = live.add("1.1")
    assert "sequence 2" in done.out
    live.promote("1.1")
    live.ok("publish")


def _bin(lab: Lab, path: str, sequence: int, version: str) -> tuple[str, Targets]:
    state = read_base(lab.workspace, lab.workspace.storage()).state
    builds = state.role(BUILDS)
    bins = bins_of(builds)
    assert bins is not None
    assert builds is not None
    target = entry(path, version, sequence, SMALL)
    return bins.get_role_for_target(path), Targets(expires=builds.expires, targets={path: target})


@large
def test_two_builders_who_never_met_do_not_get_one_sequence(live: Lab) -> None:
    path = "builds/gateway/9.0/other.img"
    name, signed = _bin(live, path, 2, "9.0")
    assert name not in live_bins(live)
    mine = live.copy(live.directory.parent / "mine")
    live.ship("1.1")
    stage(mine, name, signed)
    outbox = mine.workspace.outbox / stored_path(signed, path)
    outbox.parent.mkdir(parents=True)
    outbox.write_bytes(SMALL)
    for place in ("repository", "metadata", "history"):
        _replace(live.directory / place, mine.directory / place)
    done = mine.run("publish")
    assert (
        done.code,
        "gateway@9.0 has sequence 2, which is not free: 2 is the highest" in done.err,
    ) == (
        5,
        True,
    )
    (mine.workspace.memory / "staged" / f"{name}.json").unlink()
    mine.add("9.0", data=SMALL)
    mine.promote("9.0")
    mine.ok("publish")
    assert read_index(snapshot_of(mine), PRODUCT)[0].sequence == 3


def stored_path(signed: Targets, path: str) -> str:

    return stored_name(path, signed.targets[path].hashes["sha256"])


def _replace(source: Path, destination: Path) -> None:
    if source.is_dir():
        shutil.rmtree(destination, ignore_errors=True)
        shutil.copytree(source, destination)
    else:
        shutil.copy(source, destination)


@large
def test_a_bin_that_lists_a_path_of_another_is_not_published(live: Lab) -> None:
    path = "builds/gateway/9.0/other.img"
    name, signed = _bin(live, path, 2, "9.0")
    wrong = f"{bin_prefix(BUILDS)}-{'00' if not name.endswith('-00') else '01'}"
    stage(live, wrong, signed)
    done = live.run("publish")
    assert (done.code, f"which is for {name} to say" in done.err) == (5, True)
    (live.workspace.memory / "staged" / f"{wrong}.json").unlink()
    live.ship("1.1")


@large
def test_a_role_that_gives_its_bins_another_key_is_not_published(live: Lab) -> None:
    state = read_base(live.workspace, live.workspace.storage()).state
    builds = state.role(BUILDS)
    assert builds is not None
    assert builds.delegations is not None
    (other,) = [each.key for name, each in live.workspace.keyring.items() if name == "rita"]
    builds.delegations.keys = {other.keyid: other}
    assert builds.delegations.succinct_roles is not None
    builds.delegations.succinct_roles.keyids = [other.keyid]
    builds.version += 1
    stage(live, BUILDS, builds)
    done = live.run("publish")
    assert (done.code, "gives its hash bins other keys" in done.err) == (5, True)
    (live.workspace.memory / "staged" / f"{BUILDS}.json").unlink()
    live.ship("1.1")


@large
def test_a_role_does_not_change_without_its_bins(live: Lab) -> None:
    builds = read_base(live.workspace, live.workspace.storage()).state.role(BUILDS)
    assert builds is not None
    builds.version += 1
    stage(live, BUILDS, builds)
    done = live.run("publish")
    assert (done.code, "1 of its hash bins were not signed with it" in done.err) == (3, True)
    live.ok("ceremony", "start", BUILDS)
    live.ok("publish")
    live.ship("1.1")


# A whole role


@large
def test_a_role_in_bins_is_renewed_with_every_bin(many: Lab) -> None:
    later = many.later(days=200)
    later.ok("refresh")
    later.ok("ceremony", "start", BUILDS)
    later.ok("publish")
    bins = live_bins(later)
    assert len(bins) == 64
    assert min(bins.values()) == 2
    assert later.fresh_device() == (Outcome.UPDATES, "installs 1.0")
    later.ship("new")
    assert later.fresh_device() == (Outcome.UPDATES, "installs new")


@large
def test_the_key_of_the_builder_is_replaced_with_every_bin(live: Lab) -> None:
    live.ship("1.1")
    (old,) = live.workspace.policy.role(BUILDS, "builds").keys
    live.ok("rotate", old)
    live.ok("sign")
    live.ok("publish")
    assert set(live_bins(live).values()) == {2}
    assert live.fresh_device() == (Outcome.UPDATES, "installs 1.1")
    live.ship("1.2")
    assert live.fresh_device() == (Outcome.UPDATES, "installs 1.2")


@large
def test_one_key_more_for_the_builder_takes_every_bin_along(live: Lab) -> None:
    live.ok("key", "new", "ci-2", "--role", "builds")
    live.ok("ceremony", "start", "targets")
    live.ok("sign")
    done = live.run("publish")
    assert (done.code, "targets gives gateway-builds other keys" in done.err) == (3, True)
    live.ok("ceremony", "start", BUILDS)
    live.ok("publish")
    live.ship("1.1")
    assert live.fresh_device() == (Outcome.UPDATES, "installs 1.1")


@large
def test_a_product_in_one_file_is_cut_into_bins_and_devices_go_on(following: Lab) -> None:
    """Artifacts with lists of segments; a device that has the flat role cached follows."""
    following.ok("publish")
    said = following.ok("product", "bins", PRODUCT, "--number", "16").out
    assert "gateway-builds 3: in 16 hash bins, signed and staged" in said
    done = following.ok("publish")
    assert "0 devices stranded" in done.out
    assert "gateway-stable" in done.out, "the device of the registry was rehearsed"
    assert following.fresh_device() == (Outcome.UPDATES, "installs 1.1")
    assert {each.version for each in read_index(snapshot_of(following), PRODUCT)} == {"1.0", "1.1"}
    state = read_base(following.workspace, following.workspace.storage()).state
    builds = state.role(BUILDS)
    assert builds is not None
    assert not builds.targets
    following.ok("verify")
    following.ship("1.2")
    assert following.fresh_device() == (Outcome.UPDATES, "installs 1.2")
    done = following.run("product", "bins", PRODUCT, "--number", "32")
    assert (done.code, "gateway has 16 hash bins" in done.err) == (5, True)


@large
def test_devices_with_a_client_that_reads_no_bins_stop_the_cut(following: Lab) -> None:
    registry = following.directory / "factory/registry.toml"
    text = registry.read_text()
    registry.write_text(text.replace('client_version = "', 'client_version = "0.0.9" # "'))
    done = following.run("product", "bins", PRODUCT, "--number", "16")
    assert (done.code, "(client 0.0.9)" in done.err) == (5, True)
    registry.write_text(text)
    following.ok("publish")
    following.ok("product", "bins", PRODUCT, "--number", "16")
    following.ok("publish")


@large
def test_a_cut_that_lost_a_race_says_so(following: Lab) -> None:
    """Somebody publishes firmware in the one file while it is cut into bins elsewhere."""
    following.ok("publish")
    other = following.copy(following.directory.parent / "other")
    following.ok("product", "bins", PRODUCT, "--number", "16")
    other.ship("1.2")
    for place in ("repository", "metadata", "history"):
        _replace(other.directory / place, following.directory / place)
    done = following.run("publish")
    assert done.code == 5
    assert "do not have builds/gateway/1.2" in done.err or "is live" in done.err


# Everybody else who reads bins


@large
def test_a_clean_up_keeps_what_bins_name_and_takes_bins_that_were_replaced(live: Lab) -> None:
    live.ship("1.1")
    (home, *_) = sorted(live_bins(live))
    live.ok("ceremony", "start", BUILDS)
    live.ok("publish")
    late = live.later(days=100)
    late.ok("refresh")
    for path in live.repository.rglob("*"):
        if path.is_file():
            _age(path)
    late.ok("--yes", "gc", "--older", "30d")
    names = {path.name for path in live.repository.rglob("*")}
    assert f"1.{home}.json" not in names
    assert f"2.{home}.json" in names
    assert len([name for name in names if name.endswith("firmware.img")]) == 2
    assert len([name for name in names if name.endswith(".segments")]) == 2


def _age(path: Path) -> None:

    os.utime(path, (NOW.timestamp(), NOW.timestamp()))


@large
def test_a_mirror_has_every_bin_and_every_artifact(live: Lab, tmp_path: Path) -> None:
    live.ship("1.1")
    live.ok("mirror", tmp_path / "mirror")
    here = {path.relative_to(live.repository) for path in live.repository.rglob("*_-*.json")}
    there = tmp_path / "mirror"
    assert {path.relative_to(there) for path in there.rglob("*_-*.json")} == here
    assert len(list((there / "targets").rglob("*.img*"))) == 4
    live.ok("verify", there)


# A builder who is not the publisher


@pytest.fixture
def apart(live: Lab, tmp_path: Path) -> tuple[Lab, Lab]:
    return _apart(live, tmp_path)


def _apart(live: Lab, tmp_path: Path) -> tuple[Lab, Lab]:
    """A builder and a publisher, each with a clone; one storage."""
    config = live.directory / "firmroot.toml"
    shared = f'storage = "file://{live.repository}"'
    config.write_text(config.read_text().replace('storage = "repository"', shared))
    assert shared in config.read_text()
    return live.copy(tmp_path / "builder" / "acme"), live


@large
def test_a_bin_that_was_handed_in_is_published(apart: tuple[Lab, Lab]) -> None:
    builder, publisher = apart
    builder.add("1.1")
    assert "handed in" in builder.ok("submit").out
    publisher.ok("publish")
    assert len(live_bins(publisher)) == 2
    publisher.promote("1.1")
    publisher.ok("publish")
    publisher.ok("verify")
    assert "published" in builder.ok("submit").out


@large
def test_what_goes_into_a_bin_that_is_live_is_handed_in_on_top_of_it(
    apart: tuple[Lab, Lab],
) -> None:
    builder, publisher = apart
    [home] = live_bins(publisher)
    versions = (f"2.{number}" for number in range(10_000))
    path = "builds/gateway/{}/firmware.img".format
    version = next(each for each in versions if _bin(publisher, path(each), 2, each)[0] == home)
    builder.add(version)
    assert f"{home} 2  handed in" in builder.ok("submit").out
    publisher.ok("publish")
    assert live_bins(publisher) == {home: 2}


@large
def test_a_builder_who_lost_the_race_gets_the_next_sequence(apart: tuple[Lab, Lab]) -> None:
    builder, publisher = apart
    builder.add("1.1")
    builder.add("1.2")
    publisher.add("other")
    publisher.ok("publish")
    said = builder.ok("submit").out
    assert "1.1" in said
    publisher.ok("publish")
    index = read_index(snapshot_of(publisher), PRODUCT)
    assert {each.version: each.sequence for each in index} == {
        "1.0": 1,
        "other": 2,
        "1.1": 3,
        "1.2": 4,
    }
    publisher.promote("1.2")
    publisher.ok("publish")
    publisher.ok("verify", "--every-bin")


@large
def test_a_bin_whose_name_somebody_took_and_left_is_made_anew(live: Lab) -> None:
    live.add("1.1")
    (name,) = [each for each in live.workspace.staged_roles() if pure.is_bin(each)]
    number = parse(live.workspace.staged_roles()[name], Targets, name).signed.version
    (live.repository / f"metadata/{number}.{name}.json").write_bytes(b"{}")
    done = live.run("publish")
    assert (done.code, "firmroot submit makes it anew" in done.err) == (7, True)
    live.ok("submit")
    live.ok("publish")
    assert (live.repository / f"metadata/{number + 1}.{name}.json").exists()
    live.ok("verify", "--every-bin")


@large
def test_a_bin_that_was_handed_in_with_a_foreign_path_is_refused(apart: tuple[Lab, Lab]) -> None:
    builder, publisher = apart
    path = "builds/gateway/9.0/other.img"
    name, signed = _bin(builder, path, 2, "9.0")
    wrong = f"{bin_prefix(BUILDS)}-{'00' if not name.endswith('-00') else '01'}"
    stage(builder, wrong, signed)
    with patch("repo_tools.publishing.examine.own_bins"):  # a thief asks nobody first
        outbox = builder.workspace.outbox / stored_path(signed, path)
        outbox.parent.mkdir(parents=True)
        outbox.write_bytes(SMALL)
        builder.ok("submit")
    assert f"which is for {name} to say" in publisher.run("publish").out
    (builder.workspace.memory / "staged" / f"{wrong}.json").unlink()
    builder.add("1.1")
    builder.ok("submit")
    publisher.ok("publish")
    assert len(live_bins(publisher)) == 2


def pull(source: Lab, target: Lab) -> None:
    """As `git pull`: what people sign and decide, and nothing of the machine."""
    for name in ("metadata", "firmroot.toml", "policy.toml", "keys", "history", "ceremonies",
                 "staged"):  # fmt: skip
        _replace(source.directory / name, target.directory / name)


def handed_in(lab: Lab) -> list[inbox.Submission]:
    """What is in the inbox."""
    storage = lab.workspace.storage()
    pending = inbox.list_inbox(storage).pending
    return [inbox.read_submission(storage, each) for each in pending]


@large
def test_the_first_builds_of_a_product_are_handed_in_with_their_bins(
    apart: tuple[Lab, Lab],
) -> None:
    """The second time with one bin more: that one has the other in it."""
    builder, publisher = apart
    publisher.ok("product", "add", "sensor", "--hardware", "s-1", "--expect", "5000")
    publisher.ok("sign")
    publisher.ok("publish")
    pull(publisher, builder)
    file = builder.directory.parent / "s.img"
    for version in ("1", "2"):
        file.write_bytes(SMALL + version.encode())
        builder.ok("firmware", "add", file, "-p", "sensor", "-V", version, "--hardware", "s-1")
        said = builder.ok("submit").out
        assert f"sensor-builds 1 with {version} hash bin{'s' * (version == '2')}  handed in" in said
    assert {each.role for each in handed_in(publisher)} == {"sensor-builds"}
    assert len(handed_in(publisher)) == 2
    publisher.ok("publish")
    assert len([name for name in live_bins(publisher) if name.startswith("sensor_")]) == 2
    done = builder.run("submit", "--status")
    assert (done.code, "sensor-builds 1  published" in done.out) == (0, True)
    assert not list(publisher.workspace.storage().paths("inbox/submissions/"))
    assert "sensor-builds 1  published" in builder.ok("submit").out


@large
def test_bins_of_one_builder_are_one_submission(apart: tuple[Lab, Lab]) -> None:
    """Sequences follow each other: of half of them the rest could not be published later."""
    builder, publisher = apart
    for version in ("1.1", "1.2", "1.3"):
        builder.add(version)
    said = builder.ok("submit").out
    assert said.count("handed in") == 1
    assert " with 2 hash bins  handed in" in said
    assert handed_in_digests(builder.workspace) == {
        sha256(data) for data in builder.workspace.staged_roles().values()
    }
    [remembered] = (builder.workspace.memory / "submitted").glob("*.bins")
    listed = remembered.read_bytes()
    for damaged in (listed[:-9], listed.replace(b"gateway_-", b"sensor_-", 1)):
        remembered.write_bytes(damaged)
        assert f"submitted/{remembered.name} is damaged" in builder.run("status").err
    remembered.unlink()
    builder.ok("status")
    builder.ok("submit")
    publisher.ok("publish")
    assert {each.version for each in read_index(snapshot_of(publisher), PRODUCT)} == {
        "1.0", "1.1", "1.2", "1.3",
    }  # fmt: skip
    assert "handed in" not in builder.ok("submit").out
    assert not list(publisher.workspace.storage().paths("inbox/submissions/"))
    publisher.promote("1.3")
    publisher.ok("publish")
    assert publisher.fresh_device() == (Outcome.UPDATES, "installs 1.3")


@large
def test_of_bins_that_are_live_in_part_the_others_go(apart: tuple[Lab, Lab]) -> None:
    """The first was published while the builder handed it in once more with the next one."""
    builder, publisher = apart
    early = publisher.copy(publisher.directory.parent / "early" / "acme")
    builder.add("1.1")
    builder.ok("submit")
    builder.add("1.2")
    builder.ok("submit")
    [more, one] = sorted(handed_in(publisher), key=lambda each: each.bins, reverse=True)
    assert (bool(more.bins), bool(one.bins)) == (True, False)
    with patch.object(intake, "batch", lambda *_: [one.id]):
        early.ok("publish")
    assert len(live_bins(publisher)) == 2
    said = publisher.ok("publish").out
    assert re.search(rf"^inbox +{more.role} .*: published$", said, re.MULTILINE)
    assert len(live_bins(publisher)) == 3
    assert "handed in" not in builder.ok("submit").out


@large
def test_bins_wait_for_one_that_the_publisher_has_staged(apart: tuple[Lab, Lab]) -> None:
    """Also if it is not the first of them."""
    builder, publisher = apart
    [home] = live_bins(publisher)
    bins = bins_of(read_base(builder.workspace, builder.workspace.storage()).state.role(BUILDS))
    assert bins is not None
    found: dict[str, int] = {}
    for number in range(1000):
        name = bins.get_role_for_target(f"builds/gateway/2.{number}/firmware.img")
        found.setdefault("here" if name == home else "before" if name < home else "", number)
    builder.add(f"2.{found['before']}")
    builder.add(f"2.{found['here']}")
    assert " with 1 hash bin  handed in" in builder.ok("submit").out
    publisher.ok("ceremony", "start", BUILDS)
    said = publisher.ok("publish").out
    assert f"waits: another {home} is staged in the publisher's workspace and goes first" in said
    assert "made anew" in builder.ok("submit").out
    publisher.ok("publish")
    assert len(read_index(snapshot_of(publisher), PRODUCT)) == 3


@pytest.fixture
def many_apart(many: Lab, tmp_path: Path) -> tuple[Lab, Lab]:
    return _apart(many, tmp_path)


@large
def test_a_whole_role_is_renewed_through_the_inbox(many_apart: tuple[Lab, Lab]) -> None:
    builder, publisher = (each.later(days=200) for each in many_apart)
    publisher.ok("refresh")
    builder.ok("ceremony", "start", BUILDS)
    assert f"{BUILDS} 2 with 64 hash bins  handed in" in builder.ok("submit").out
    assert len(handed_in(publisher)) == 1
    with patch.object(intake, "BATCH", 1), patch.object(intake, "_STEP", 32):
        said = publisher.ok("-v", "publish").out
    told = [line for line in said.splitlines() if line.startswith("look at ")]
    first = f"look at {BUILDS} in the inbox, hash bin 1"
    assert told == [first, first[:-1] + "33"] * 2, "before the publish and after it"
    assert re.search(rf"^inbox +{BUILDS} 2 \(.*\): published$", said, re.MULTILINE)
    assert set(live_bins(publisher).values()) == {2, 3}
    assert publisher.fresh_device() == (Outcome.UPDATES, "installs 1.0")
    assert f"{BUILDS} 2  published" in builder.ok("submit", "--status").out


@large
def test_a_whole_role_that_lost_a_race_is_made_anew_with_what_is_live(
    apart: tuple[Lab, Lab],
) -> None:
    builder, publisher = apart
    builder.add("mine")
    builder.ok("ceremony", "start", BUILDS)
    publisher.ship("1.1")
    said = builder.ok("submit").out
    assert f"{BUILDS}: somebody else was published first; made anew" in said
    assert "mine has sequence 3 now, not 2" in said
    assert "made anew" not in builder.ok("submit").out
    publisher.ok("publish")
    assert snapshot_of(publisher).meta[f"{BUILDS}.json"].version == 3
    assert {
        each.version: each.sequence for each in read_index(snapshot_of(publisher), PRODUCT)
    } == {"1.0": 1, "1.1": 2, "mine": 3}
    publisher.promote("mine")
    publisher.ok("publish")
    assert publisher.fresh_device() == (Outcome.UPDATES, "installs mine")


@large
def test_the_key_of_the_builder_is_replaced_through_the_inbox(apart: tuple[Lab, Lab]) -> None:
    """The next targets role and what only its keys have signed go together."""
    builder, publisher = apart
    publisher.ship("1.1")
    pull(publisher, builder)
    (old,) = builder.workspace.policy.role(BUILDS, "builds").keys
    builder.ok("rotate", old)
    builder.ok("sign")
    said = builder.ok("submit").out
    assert f"{BUILDS} 2 with 2 hash bins  handed in" in said
    assert "refused: gateway-builds has good signatures of 0 keys" in publisher.ok("publish").out
    assert set(live_bins(publisher).values()) == {1}
    pull(builder, publisher)
    builder.ok("submit", "--again")
    publisher.ok("publish")
    assert set(live_bins(publisher).values()) == {2}
    assert publisher.fresh_device() == (Outcome.UPDATES, "installs 1.1")
    builder.ok("submit")
    builder.ship("1.2")
    assert publisher.fresh_device() == (Outcome.UPDATES, "installs 1.2")


@large
def test_a_build_that_nobody_here_saw_is_not_signed_with_the_next_key(
    apart: tuple[Lab, Lab],
) -> None:
    """Attack: a thief of the key that goes has one more build published, and waits."""
    builder, publisher = apart
    (old,) = builder.workspace.policy.role(BUILDS, "builds").keys
    builder.ok("rotate", old)
    builder.ok("sign")
    publisher.add("thief")
    publisher.ok("publish")
    done = builder.run("submit")
    assert done.code == 5
    assert "changes its keys, and meanwhile builds/gateway/thief/firmware.img went live" in done.err
    assert f"firmroot ceremony start {BUILDS} --drop gateway@thief" in done.err
    builder.ok("ceremony", "start", BUILDS, "--drop", "gateway@thief")
    publisher.ok("ceremony", "start", BUILDS)
    publisher.ok("publish")
    builder.ok("submit")  # made anew; what was dropped is not asked about again
    pull(builder, publisher)
    publisher.ok("publish")
    assert {each.version for each in read_index(snapshot_of(publisher), PRODUCT)} == {"1.0"}
    assert publisher.fresh_device() == (Outcome.UPDATES, "installs 1.0")


@large
def test_what_was_dropped_does_not_come_back_with_the_next_firmware(
    apart: tuple[Lab, Lab],
) -> None:
    """Attack: a thief's build is dropped elsewhere; here it waits, with its bytes, in that bin."""
    builder, publisher = apart
    builder.add("thief")
    [home] = [name for name in builder.workspace.staged_roles() if pure.is_bin(name)]
    builder.ok("submit")
    publisher.ok("publish")
    publisher.ok("ceremony", "start", BUILDS, "--drop", "gateway@thief")
    publisher.ok("publish")
    path = "builds/gateway/{}/firmware.img".format
    versions = (f"2.{number}" for number in range(10_000))
    version = next(each for each in versions if _bin(publisher, path(each), 3, each)[0] == home)
    builder.add(version)
    builder.ok("submit")
    publisher.ok("publish")
    assert {each.version for each in read_index(snapshot_of(publisher), PRODUCT)} == {
        "1.0", version,
    }  # fmt: skip
    state = read_base(publisher.workspace, publisher.workspace.storage()).state
    live = read_bins(publisher.workspace.storage(), state, [home]).role(home)
    assert live is not None
    assert set(live.targets) == {path(version)}


@large
def test_what_was_dropped_from_one_file_does_not_come_back_with_the_next_firmware(
    following: Lab, tmp_path: Path
) -> None:
    """The same without hash bins."""
    following.ok("publish")
    builder, publisher = _apart(following, tmp_path)
    builder.add("thief")
    builder.ok("submit")
    publisher.ok("publish")
    publisher.ok("ceremony", "start", BUILDS, "--drop", "gateway@thief")
    publisher.ok("publish")
    builder.add("1.2")
    builder.ok("submit")
    publisher.ok("publish")
    state = read_base(publisher.workspace, publisher.workspace.storage()).state
    builds = state.role(BUILDS)
    assert builds is not None
    assert {path.split("/")[2] for path in builds.targets} == {"1.0", "1.1", "1.2"}


@large
def test_a_product_is_cut_into_bins_through_the_inbox(following: Lab, tmp_path: Path) -> None:
    """No artifact goes over again; another one that came meanwhile is cut as well."""
    following.ok("publish")
    builder, publisher = _apart(following, tmp_path)
    flat = publisher.copy(tmp_path / "other" / "acme")
    flat.add("1.3")
    builder.ok("product", "bins", PRODUCT, "--number", "16")
    assert "with 2 hash bins  handed in" in builder.ok("submit").out
    [names] = [
        set(each.iterdir()) for each in (publisher.repository / "inbox/submissions").iterdir()
    ]
    assert len(names) == 5, "the role, two bins, their list, and the document"
    publisher.ship("1.2")
    assert "refused: " in publisher.ok("publish").out
    assert "made anew" in builder.ok("submit").out
    publisher.ok("publish")
    assert {each.version for each in read_index(snapshot_of(publisher), PRODUCT)} == {
        "1.0", "1.1", "1.2",
    }  # fmt: skip
    assert publisher.fresh_device() == (Outcome.UPDATES, "installs 1.2")
    publisher.ok("verify", "--every-bin")

    # Whoever still has the one file adds to the bins from now on.
    done = flat.run("submit")
    assert done.code == 5
    assert "is one file, and meanwhile the builds are in hash bins" in done.err
    (flat.workspace.memory / f"staged/{BUILDS}.json").unlink()
    flat.add("1.3")
    assert "handed in" in flat.ok("submit").out
    publisher.ok("publish")
    assert "1.3" in {each.version for each in read_index(snapshot_of(publisher), PRODUCT)}


@large
def test_of_two_cuts_the_second_takes_the_number_that_is_live(
    following: Lab, tmp_path: Path
) -> None:
    """And is published at once: it has bins that were never staged on that machine before."""
    following.ok("publish")
    builder, publisher = _apart(following, tmp_path)
    builder.ok("product", "bins", PRODUCT, "--number", "16")
    builder.add("1.2")
    builder.ok("submit")
    publisher.ok("product", "bins", PRODUCT, "--number", "64")
    publisher.ok("publish")
    said = builder.ok("submit").out
    assert f"{BUILDS}: somebody else was published first; made anew" in said
    assert not {name for name in builder.workspace.staged_roles() if len(name) == len("gateway_-0")}
    assert re.search(
        rf"^inbox +{BUILDS} 4 .*: published$", publisher.ok("publish").out, re.MULTILINE
    )
    assert {each.version for each in read_index(snapshot_of(publisher), PRODUCT)} == {
        "1.0", "1.1", "1.2",
    }  # fmt: skip
    publisher.ok("verify", "--every-bin")


@large
@pytest.mark.parametrize("more", ["", "1.3"], ids=["its bins alone", "the whole role"])
def test_what_was_dropped_elsewhere_does_not_come_back_with_what_waits(
    apart: tuple[Lab, Lab], more: str
) -> None:
    """Attack: a build of a thief, in bins that were signed again here before it was dropped."""
    builder, publisher = apart
    publisher.add("thief")
    publisher.ok("publish")
    builder.ok("ceremony", "start", BUILDS)
    builder.add("1.2")
    if more:
        publisher.add(more)
    publisher.ok("ceremony", "start", BUILDS, "--drop", "gateway@thief")
    publisher.ok("publish")
    builder.ok("submit")
    publisher.ok("publish")
    wanted = {"1.0", "1.2"} | ({more} if more else set())
    assert {each.version for each in read_index(snapshot_of(publisher), PRODUCT)} == wanted
    # Whoever wants it after all adds it.
    builder.ok("submit")
    builder.add("thief")
    builder.ok("submit")
    publisher.ok("publish")
    index = read_index(snapshot_of(publisher), PRODUCT)
    assert {each.version for each in index} == {"thief", *wanted}


@large
def test_what_was_dropped_elsewhere_does_not_come_back_in_one_file(
    following: Lab, tmp_path: Path
) -> None:
    following.ok("publish")
    builder, publisher = _apart(following, tmp_path)
    publisher.add("thief")
    publisher.ok("publish")
    builder.ok("ceremony", "start", BUILDS)
    other = builder.copy(tmp_path / "other" / "acme")
    third = builder.copy(tmp_path / "third" / "acme")
    publisher.ok("ceremony", "start", BUILDS, "--drop", "gateway@thief")
    publisher.ok("publish")

    def live() -> set[str]:
        role = read_base(publisher.workspace, publisher.workspace.storage()).state.role(BUILDS)
        assert role is not None
        return {(each.custom or {}).get("version", "") for each in role.targets.values()} - {""}

    assert live() == {"1.0", "1.1"}
    assert f"{BUILDS}: everything that was staged here is live" in builder.ok("submit").out
    for lab, change in (
        (other, ("ceremony", "start", BUILDS)),
        (third, ("product", "bins", PRODUCT, "--number", "16")),
    ):
        lab.ok(*change)
        waiting = [parse(data, Targets, name).signed
                   for name, data in lab.workspace.staged_roles().items()]  # fmt: skip
        assert not [path for each in waiting for path in each.targets if "thief" in path]
    other.add("1.2")
    other.ok("submit")
    publisher.ok("publish")
    assert live() == {"1.0", "1.1", "1.2"}


@large
def test_bytes_under_a_name_of_a_submission_do_not_keep_it_out(apart: tuple[Lab, Lab]) -> None:
    """Attack: who can write to the inbox damages what waits; the builder hands it in once more."""
    builder, publisher = apart
    builder.ok("ceremony", "start", BUILDS)
    builder.ok("submit")
    [work] = handed_in(publisher)
    damaged = publisher.repository / inbox.object_path(work.id, work.sha256)
    damaged.write_bytes(b" " * work.length)
    assert "handed in" in builder.ok("submit").out
    assert "already there" in builder.ok("submit").out
    assert {each.attempt for each in handed_in(publisher)} == {1, 2}
    said = publisher.ok("publish").out
    assert (said.count(": refused: "), said.count(": published\n")) == (1, 1)
    assert set(live_bins(publisher).values()) == {2}
    create = LocalStorage.create

    def squatted(storage: LocalStorage, path: str, *rest: Any) -> object:  # noqa: ANN401
        if path.startswith("inbox/submissions/"):
            (publisher.repository / path).parent.mkdir(parents=True, exist_ok=True)
            (publisher.repository / path).write_bytes(b"x")
        return create(storage, path, *rest)

    builder.add("1.1")
    with patch.object(LocalStorage, "create", squatted):
        assert builder.run("submit").code == 7
    assert "handed in" in builder.ok("submit").out
    publisher.ok("publish")


@large
def test_what_is_live_without_its_bins_still_waits(apart: tuple[Lab, Lab]) -> None:
    builder, publisher = apart
    early = publisher.copy(publisher.directory.parent / "early" / "acme")
    builder.ok("ceremony", "start", BUILDS)
    builder.ok("submit")
    builder.add("1.1")
    builder.ok("submit")
    one, more = sorted(
        handed_in(publisher),
        key=lambda each: len(inbox.read_bin_list(publisher.workspace.storage(), each.id, each)),
    )
    with patch.object(intake, "batch", lambda *_: [one.id]):
        early.ok("publish")
    done = builder.run("submit", "--status", more.id)
    assert (done.code, f"{BUILDS} 2  waits" in done.out) == (4, True)
    publisher.ok("publish")
    done = builder.run("submit", "--status", more.id)
    assert (done.code, f"{BUILDS} 2  published" in done.out) == (0, True)
    assert "1.1" in {each.version for each in read_index(snapshot_of(publisher), PRODUCT)}


@large
def test_one_bad_bin_keeps_its_whole_submission_out_and_nothing_else(
    apart: tuple[Lab, Lab], tmp_path: Path
) -> None:
    """Attack: who can write to the inbox puts other bytes where a bin was."""
    builder, publisher = apart
    honest = builder.copy(tmp_path / "honest" / "acme")
    builder.ok("ceremony", "start", BUILDS)
    builder.add("1.1")
    builder.ok("submit")
    [work] = handed_in(publisher)
    storage = publisher.workspace.storage()
    *_, last = inbox.read_bin_list(storage, work.id, work)
    damaged = publisher.repository / inbox.object_path(work.id, last.sha256)
    data = damaged.read_bytes()
    damaged.write_bytes(b" " * len(data))
    assert f"the metadata of {last.role} has sha256" in publisher.ok("publish").out
    assert not list((publisher.workspace.memory / "inbox").rglob("*.json"))
    honest.add("1.1")
    honest.ok("submit")
    publisher.ok("publish")
    assert "1.1" in {each.version for each in read_index(snapshot_of(publisher), PRODUCT)}


# The next epoch


@large
def test_what_was_published_in_bins_is_carried_into_the_next_epoch(live: Lab) -> None:
    live.ship("1.1")
    live.add("1.2")
    found = inherited_builds(live.workspace.after(), PRODUCT)
    assert sorted((each.custom or {})["version"] for each in found.values()) == [
        "1.0",
        "1.1",
        "1.2",
    ]
    (home, *_) = sorted(live_bins(live))
    damaged = live.repository / "metadata" / f"1.{home}.json"
    data = damaged.read_bytes()
    damaged.write_bytes(data + b" ")
    with pytest.raises(NotTrustedError, match="is not what this workspace published"):
        inherited_builds(live.workspace.after(), PRODUCT)
    damaged.write_bytes(data)
    ws = live.workspace.after()
    secrets = Secrets(ws.lab_passphrase.read_bytes().strip())
    renew_builds(ws, PRODUCT, secrets, live.now)
    staged = {path.stem for path in (ws.memory / "staged").glob("*.json")}
    assert staged >= {BUILDS, *live_bins(live)}
