"""A builds role is signed again on the machine that has its key, and nowhere else."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import pytest
from tuf.api.metadata import Metadata, TargetFile, Targets

from client_reference.errors import ActionRequiredError, ConfigurationError, RefusedError
from client_reference.payload.segments import SUFFIX
from repo_tools.metadata.bins import bins_of, is_bin
from repo_tools.metadata.edits import DROPPED_FIELD, assemble
from repo_tools.metadata.repository import parse
from repo_tools.publishing import renewal
from repo_tools.publishing.factory import load_registry
from repo_tools.publishing.firmware import Builds, open_signers, read_builds
from repo_tools.publishing.prepare import read_base
from repo_tools.publishing.renewal import (
    check_clients,
    convert,
    cut,
    rebase_whole,
    renew_builds,
)
from repo_tools.signing.secrets import Secrets
from tests.publishing.lab import PRODUCT, Lab, entry

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from repo_tools.metadata.repository import RepositoryState
    from repo_tools.workspace import Workspace

ROLE = f"{PRODUCT}-builds"


def _secrets(ws: Workspace) -> Secrets:
    return Secrets(ws.lab_passphrase.read_bytes().strip())


def renew(lab: Lab, workspace: Workspace | None = None, drop: Collection[str] = ()) -> Targets:
    ws = workspace or lab.workspace
    version = renew_builds(ws, PRODUCT, _secrets(ws), lab.now, drop).version
    signed = Metadata[Targets].from_file(str(ws.private / "staged/gateway-builds.json")).signed
    assert signed.version == version
    return signed


def versions(signed: Targets) -> set[str]:
    return {path.split("/")[2] for path in signed.targets}


def test_what_is_live_and_what_waits_is_signed_again_with_fresh_expiry(following: Lab) -> None:
    later = following.later(days=30)
    before = later.workspace.staged_role("gateway-builds")
    assert before is not None
    old = Metadata[Targets].from_bytes(before).signed
    signed = renew(later)
    assert versions(signed) == {"1.0", "1.1"}, "1.1 waits on this machine only"
    assert signed.version == old.version + 1
    assert signed.expires > old.expires
    later.ok("publish")
    assert later.fresh_device()[1] == "installs 1.1"


def test_what_nobody_ever_added_is_not_renewed(new: Lab) -> None:
    with pytest.raises(ConfigurationError, match="gateway-builds has no content yet"):
        renew(new)
    assert new.workspace.staged_role("gateway-builds") is None
    new.add("1.0")
    assert versions(renew(new)) == {"1.0"}


def test_without_the_private_key_nothing_is_signed(live: Lab) -> None:
    uri = live.workspace.key_uris()["ci"]
    live.workspace.remove_key_uri("ci")
    with pytest.raises(ActionRequiredError, match="this machine has the private keys of: none"):
        renew(live)
    assert live.workspace.staged_role("gateway-builds") is None
    live.workspace.add_key_uri("ci", uri)
    assert versions(renew(live)) == {"1.0"}


def test_one_of_two_needed_keys_is_named_and_is_not_enough(live: Lab) -> None:
    ws = live.workspace
    rules = replace(ws.policy.role("gateway-builds", "builds"), keys=("ci", "rita"), threshold=2)
    policy = replace(ws.policy, roles={**ws.policy.roles, "gateway-builds": rules})
    assert renew(live, replace(ws, policy=policy)).version == 2
    staged = live.workspace.staged_role("gateway-builds")
    ws.remove_key_uri("rita")
    with pytest.raises(ActionRequiredError, match=r"by 2 of ci, rita, .* of: ci$"):
        renew(live, replace(live.workspace, policy=policy))
    assert live.workspace.staged_role("gateway-builds") == staged


def _builds(lab: Lab) -> Builds:
    return read_builds(lab.workspace, lab.workspace.storage(), PRODUCT)


def _with(signed: Targets | None, *targets: TargetFile) -> Targets:
    assert signed is not None
    found = deepcopy(signed)
    found.targets |= {each.path: each for each in targets}
    return found


def _sequence(signed: Targets, version: str) -> int:
    (found,) = {
        each.unrecognized_fields["custom"]["sequence"]
        for path, each in signed.targets.items()
        if path.split("/")[2] == version and not path.endswith(".segments")
    }
    assert isinstance(found, int)
    return found


def test_what_a_thief_built_takes_no_sequence_from_what_waits(
    following: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds = _builds(following)
    theirs = entry("builds/gateway/6.6/x", "6.6", 900)
    bare = TargetFile(1, {"sha256": "00" * 32}, "builds/gateway/0.9/notes")
    there = replace(
        builds, live=_with(builds.live, theirs, bare), staged=_with(builds.staged, bare)
    )
    monkeypatch.setattr(renewal, "read_builds", lambda *_, **__: there)
    signed = renew(following, drop=["6.6"])
    assert versions(signed) == {"0.9", "1.0", "1.1"}
    assert signed.targets[bare.path] == bare, "what has no sequence stays as it is"
    assert _sequence(signed, "1.1") == 2
    again = renew(following)
    assert versions(again) == {"0.9", "1.0", "1.1", "6.6"}
    assert _sequence(again, "1.1") == 901, "unless it stays: then it was first"


# Hash bins.


def _staged(lab: Lab) -> tuple[Targets | None, dict[str, Targets]]:
    """The builds role that waits, and its bins."""
    found = {
        name: parse(data, Targets, name).signed
        for name, data in lab.workspace.staged_roles().items()
        if name == ROLE or is_bin(name)
    }
    return found.pop(ROLE, None), found


CARRIED = entry("builds/gateway/1.0/firmware.img", "1.0", 1)


@pytest.mark.parametrize("number", [0, 16])
def test_what_the_epoch_before_had_is_carried_as_the_product_has_it(
    new: Lab, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if number:
        new.ok("product", "bins", PRODUCT, "--number", str(number))
    inherited = Builds(None, None, {CARRIED.path: CARRIED})
    monkeypatch.setattr(renewal, "read_builds", lambda *_, **__: inherited)
    signed = renew(new)
    _, pieces = _staged(new)
    bins = bins_of(signed)
    assert (bins.number_of_bins if bins else 0) == number
    holder = next(iter(pieces.values())) if number else signed
    assert holder.targets == {CARRIED.path: CARRIED}


def test_a_cut_that_was_given_up_leaves_the_role_in_one_piece(live: Lab) -> None:
    live.ok("product", "bins", PRODUCT, "--number", "16")
    role, pieces = _staged(live)
    assert bins_of(role) is not None
    for name in (ROLE, *pieces):
        (live.workspace.private / f"staged/{name}.json").unlink()
    assert versions(renew(live)) == {"1.0"}


def test_a_role_in_bins_is_signed_again_with_every_bin(binned: Lab) -> None:
    later = binned.later(days=30)
    before = _builds(later)
    renewed = renew(later)
    role, pieces = _staged(later)
    assert role is not None
    assert bins_of(renewed) == bins_of(before.live)
    ((name, piece),) = pieces.items()
    assert (piece.version, piece.expires) == (2, role.expires)
    assert set(piece.targets) == {CARRIED.path}
    # Again, before it was published: that may have been uploaded.
    renew(later)
    assert _staged(later)[1][name].version == 3
    later.ok("publish")
    assert later.fresh_device()[1] == "installs 1.0"


def test_the_number_of_bins_is_the_one_that_is_live(binned: Lab) -> None:
    """Whatever the configuration says: another one would move every artifact."""
    config = binned.directory / "firmroot.toml"
    text = config.read_text()
    assert "bins = 64\n" in text
    config.write_text(text.replace("bins = 64\n", "bins = 16\n"))
    bins = bins_of(renew(binned))
    assert bins is not None
    assert bins.number_of_bins == 64


def test_a_cut_gives_a_sequence_that_is_free(live: Lab) -> None:
    """Another machine's release got the one that was given here."""
    builds = _builds(live)
    path = "builds/gateway/1.1/x"
    twice = replace(builds, staged=_with(builds.live, entry(path, "1.1", 1)))
    signers = open_signers(live.workspace, PRODUCT, _secrets(live.workspace))
    assert cut(live.workspace, PRODUCT, twice, 16, signers, live.now).renumbered == {"1.1": (1, 2)}
    found = {
        path: each for piece in _staged(live)[1].values() for path, each in piece.targets.items()
    }
    assert (found[path].custom or {})["sequence"] == 2
    assert len(found) == 2


def test_a_cut_is_refused_where_a_path_has_two_contents(live: Lab) -> None:
    builds = _builds(live)
    assert builds.live is not None
    path = next(path for path in builds.live.targets if not path.endswith(SUFFIX))
    other = replace(builds, staged=Targets(targets={path: entry(path, "1.0", 1)}))
    signers = open_signers(live.workspace, PRODUCT, _secrets(live.workspace))
    with pytest.raises(RefusedError, match=f"{path} is published already, with other bytes"):
        cut(live.workspace, PRODUCT, other, 16, signers, live.now)


def test_a_product_is_cut_once_and_without_its_lists_of_segments(live: Lab) -> None:
    ws = live.workspace
    assert convert(ws, PRODUCT, 16, _secrets(ws), live.now) == 2
    (piece,) = _staged(live)[1].values()
    assert set(piece.targets) == {CARRIED.path}
    with pytest.raises(RefusedError, match="gateway has 16 hash bins"):
        convert(live.workspace, PRODUCT, 32, _secrets(ws), live.now)
    assert live.workspace.config.products[PRODUCT].bins == 16
    live.ok("publish")
    assert live.fresh_device()[1] == "installs 1.0"


def test_a_product_without_firmware_has_bins_from_its_first_on(new: Lab) -> None:
    ws = new.workspace
    assert convert(ws, PRODUCT, 16, _secrets(ws), new.now) == 0
    assert _staged(new) == (None, {})
    assert new.workspace.config.products[PRODUCT].bins == 16


CLIENTS = {
    "0.1.0": True,
    "0.1.0+git.5": True,
    "1.0": True,
    "0.0.9": False,
    "0.0.9+1.0": False,
    "": False,
    "1.0rc1": False,
}


@pytest.mark.parametrize("client", CLIENTS)
def test_bins_are_for_devices_that_read_them(
    client: str, live: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    (export,) = load_registry(live.workspace)
    shipped = replace(export, client_version=client)
    registry = [shipped]
    monkeypatch.setattr(renewal, "load_registry", lambda _: registry)
    ws = live.workspace
    if CLIENTS[client]:
        check_clients(ws)
        return
    with pytest.raises(RefusedError, match=r"have a client that reads no hash bins: .*\(client "):
        convert(ws, PRODUCT, 16, _secrets(ws), live.now)
    assert _staged(live) == (None, {})
    registry[:] = [replace(shipped, retired="2026-03-02")]
    assert convert(ws, PRODUCT, 16, _secrets(ws), live.now) == 2


# A whole role that waits


@dataclass
class Waiting:
    """A builds role in bins that was signed again, and what is live."""

    lab: Lab
    state: RepositoryState
    files: dict[str, bytes]
    parts: dict[str, Targets]

    @classmethod
    def of(cls, lab: Lab) -> Self:
        ws = lab.workspace
        files = ws.staged_roles()
        parts = {name: parse(data, Targets, name).signed for name, data in files.items()}
        return cls(lab, read_base(ws, ws.storage()).state, files, parts)

    @property
    def bin(self) -> Targets:
        (found,) = (part for name, part in self.parts.items() if is_bin(name))
        return found

    def stands(self) -> bool:
        ws = self.lab.workspace
        return renewal._stands(ws, ws.storage(), self.state, ROLE, self.files, self.parts)

    def occupy(self, data: bytes) -> None:
        (home,) = (name for name in self.parts if is_bin(name))
        path = self.lab.repository / f"metadata/{self.bin.version}.{home}.json"
        path.write_bytes(data)


def _drop(signed: Targets, *, said: bool) -> None:
    (path,) = signed.targets
    del signed.targets[path]
    if said:
        signed.unrecognized_fields[DROPPED_FIELD] = [path]


def _other(signed: Targets) -> None:
    (target,) = signed.targets.values()
    target.length += 1


STANDS: dict[str, tuple[Callable[[Waiting], object], bool]] = {
    "as it was signed": (lambda _: None, True),
    "a role that is no newer": (lambda it: setattr(it.parts[ROLE], "version", 1), False),
    "a bin that is no newer": (lambda it: setattr(it.bin, "version", 1), False),
    "a bin that was left out": (
        lambda it: [it.parts.pop(name) for name in list(it.parts) if is_bin(name)],
        False,
    ),
    "an artifact that was lost": (lambda it: _drop(it.bin, said=False), False),
    "an artifact that was dropped": (lambda it: _drop(it.bin, said=True), True),
    "an artifact that is another": (lambda it: _other(it.bin), False),
    "a name that somebody took": (lambda it: it.occupy(b"{}"), False),
    "a name that has our own upload": (
        lambda it: it.occupy(next(each for name, each in it.files.items() if is_bin(name))),
        True,
    ),
}


@pytest.mark.parametrize("case", STANDS)
@pytest.mark.parametrize("flat", [False, True], ids=["in bins", "in one file"])
def test_a_whole_role_stands_on_what_is_live(
    request: pytest.FixtureRequest, case: str, *, flat: bool
) -> None:
    """What is live is in bins already, or was cut."""
    lab: Lab = request.getfixturevalue("live" if flat else "binned")
    if flat:
        convert(lab.workspace, PRODUCT, 64, _secrets(lab.workspace), lab.now)
    else:
        renew_builds(lab.workspace, PRODUCT, _secrets(lab.workspace), lab.now)
    it = Waiting.of(lab)
    change, stands = STANDS[case]
    change(it)
    if flat and case == "a bin that is no newer":
        stands = True  # the first of its name
    assert it.stands() is stands


def _rebased(lab: Lab) -> str | None:
    ws = lab.workspace
    state = read_base(ws, ws.storage()).state
    found = rebase_whole(ws, ws.storage(), state, PRODUCT, _secrets(ws), lab.now)
    return None if found is None else f"{found.role} {found.version}"


def test_what_does_not_wait_or_stands_is_not_made_anew(binned: Lab) -> None:
    assert _rebased(binned) is None, "nothing waits"
    renew_builds(binned.workspace, PRODUCT, _secrets(binned.workspace), binned.now)
    assert _rebased(binned) is None, "it stands"
    staged = binned.workspace.memory / "staged"
    for other in ("sensor_-00", "gateway-beta"):
        (staged / f"{other}.json").write_bytes(assemble(Targets(), []))
        (binned.repository / f"metadata/1.{other}.json").write_bytes(b"{}")
    assert _rebased(binned) is None, "what else waits is not asked"
    (binned.repository / f"metadata/2.{ROLE}.json").write_bytes(b"{}")
    assert _rebased(binned) == f"{ROLE} 3"
    published = binned.repository / f"metadata/1.{ROLE}.json"
    (staged / f"{ROLE}.json").write_bytes(published.read_bytes())
    assert _rebased(binned) is None, "what is live waits no more"


def test_a_role_in_one_file_is_made_anew_elsewhere(live: Lab) -> None:
    renew(live)
    (live.repository / f"metadata/2.{ROLE}.json").write_bytes(b"{}")
    assert _rebased(live) is None, "see `rebase_builds`"
