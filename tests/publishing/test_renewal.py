"""A builds role is signed again on the machine that has its key, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tuf.api.metadata import Metadata, Targets

from client_reference.errors import ActionRequiredError, ConfigurationError
from repo_tools.publishing.renewal import renew_builds
from repo_tools.signing.secrets import Secrets
from tests.publishing.lab import PRODUCT, Lab

if TYPE_CHECKING:
    from repo_tools.workspace import Workspace


def renew(lab: Lab, workspace: Workspace | None = None) -> Targets:
    ws = workspace or lab.workspace
    secrets = Secrets(ws.lab_passphrase.read_bytes().strip())
    version = renew_builds(ws, PRODUCT, secrets, lab.now).version
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
