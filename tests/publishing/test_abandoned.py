"""Names that somebody's upload has, and nobody published: what is as good, and what is not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tuf.api.metadata import Targets

from repo_tools.metadata.repository import RepositoryState, parse
from repo_tools.publishing.abandoned import other_upload, take_over, way_out
from repo_tools.publishing.live import metadata_path
from repo_tools.publishing.plan import Admitted, admit
from repo_tools.publishing.prepare import read_base

if TYPE_CHECKING:
    from pathlib import Path

    from tests.publishing.lab import Lab

ROLES = ("targets", "gateway-builds", "gateway-stable")


def first(lab: Lab) -> Admitted:
    """What a first publish takes along."""
    staged = lab.workspace.staged_roles()
    return admit(RepositoryState(), staged, dict.fromkeys(staged))


def place(lab: Lab, role: str) -> Path:
    """Where a role is staged on this machine."""
    found = [*lab.directory.glob(f"staged/{role}.json"), *lab.directory.glob(f".f*/*/{role}.json")]
    [path] = found
    return path


def upload(lab: Lab, role: str, data: bytes) -> None:
    version = parse(place(lab, role).read_bytes(), Targets, role).signed.version
    there = lab.repository / metadata_path(role, version)
    there.parent.mkdir(parents=True, exist_ok=True)
    there.write_bytes(data)


def written_otherwise(data: bytes) -> bytes:
    """The same content and signatures in other bytes."""
    return json.dumps(json.loads(data), indent=3).encode()


@pytest.mark.parametrize("role", ROLES)
def test_the_same_content_is_taken_over_where_it_is_staged(ready: Lab, role: str) -> None:
    ours = place(ready, role).read_bytes()
    upload(ready, role, written_otherwise(ours))
    assert take_over(ready.workspace, ready.workspace.storage(), first(ready)) == ()
    assert place(ready, role).read_bytes() == written_otherwise(ours)


@pytest.mark.parametrize("role", ROLES)
def test_another_content_is_not_though_the_same_people_signed_it(ready: Lab, role: str) -> None:
    ours = place(ready, role).read_bytes()
    ready.add("1.1")
    if role == "gateway-stable":
        ready.promote("1.1")
    elif role == "targets":
        ready.ok("product", "add", "sensor", "--hardware", "s-1")
        ready.ok("sign")
    other = place(ready, role).read_bytes()
    assert other != ours
    place(ready, role).write_bytes(ours)
    upload(ready, role, other)
    assert role in take_over(ready.workspace, ready.workspace.storage(), first(ready))
    assert place(ready, role).read_bytes() == ours


def test_what_is_staged_elsewhere_is_not_written_here(ready: Lab) -> None:
    """It came by the inbox: its copy is somebody else's to replace."""
    admitted, role = first(ready), "gateway-builds"
    upload(ready, role, written_otherwise(place(ready, role).read_bytes()))
    place(ready, role).unlink()
    assert take_over(ready.workspace, ready.workspace.storage(), admitted) == (role,)


def test_an_own_upload_is_no_other(ready: Lab) -> None:
    storage, role = ready.workspace.storage(), "gateway-builds"
    ours = place(ready, role).read_bytes()
    assert other_upload(storage, role, ours) is None
    upload(ready, role, ours)
    assert other_upload(storage, role, ours) is None
    upload(ready, role, written_otherwise(ours))
    assert other_upload(storage, role, ours) == written_otherwise(ours)


def test_a_bin_is_taken_over_if_the_keys_of_its_role_signed_it(binned: Lab) -> None:
    binned.add("1.1")
    ws = binned.workspace
    base = read_base(ws, ws.storage()).state
    admitted = admit(base, ws.staged_roles(), dict.fromkeys(ws.staged_roles()))
    [role] = admitted.roles
    ours = place(binned, role).read_bytes()
    upload(binned, role, written_otherwise(ours))
    assert take_over(ws, ws.storage(), admitted) == ()
    assert place(binned, role).read_bytes() == written_otherwise(ours)


def test_the_way_out_is_of_who_signed_them() -> None:
    again = "firmroot submit makes it anew"
    assert again in way_out(["gateway-builds", "gateway_-0a"])
    assert again not in way_out(["gateway-builds", "gateway-stable"])
