"""Roles of before an adoption: signed again as they were, with the keys that they had."""

from __future__ import annotations

import contextlib
import io
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from securesystemslib.signer import SSlibKey
from tuf.api.metadata import Metadata, TargetFile, Targets

from client_reference.errors import RefusedError
from repo_tools.cli.main import main
from repo_tools.files import replace_file
from repo_tools.metadata.edits import manifest_targets
from repo_tools.metadata.repository import parse
from repo_tools.signing.ceremony import check_ceremony, start_ceremony
from repo_tools.signing.rules import findings, templates
from repo_tools.signing.start import start_role, start_root, start_targets
from repo_tools.workspace import Workspace
from tests.simulators.foreign import PLUGINS, make

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime.now(tz=UTC)
MANIFEST = "channels/gateway/stable.json"


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("adopted")
    make(top / "theirs")
    with contextlib.redirect_stdout(io.StringIO()):
        code = main(["--yes", "adopt", str(top / "theirs"), str(top / "acme")])
    assert code == 0
    return top / "acme"


@pytest.fixture
def ws(_made: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(_made, tmp_path / "acme")
    return Workspace.open(tmp_path / "acme")


def plugins(ws: Workspace) -> Targets:
    """The next version of a role of theirs, with nothing else."""
    data = ws.published_role("plugins")
    assert data is not None
    signed = parse(data, Targets, "plugins").signed
    signed.version += 1
    return signed


def test_what_they_delegated_is_ruled_by_the_sections_that_adoption_made(ws: Workspace) -> None:
    assert {"plugins", "extras"} <= set(templates(ws))
    about = {"keyid-derived", "delegations", "policy-binds", "policy-ahead"}
    start_targets(ws, {}, NOW)
    assert [each.text for each in findings(ws, NOW) if each.check.id in about] == []


def test_a_role_is_signed_again_with_the_files_that_it_had(ws: Workspace) -> None:
    other = plugins(ws)
    other.targets["plugins/evil.zip"] = TargetFile.from_data("plugins/evil.zip", b"x", ["sha256"])
    fewer = plugins(ws)
    fewer.targets.popitem()
    for wrong in (other, fewer):
        with pytest.raises(RefusedError, match="is adopted, and speaks for other files than befo"):
            start_ceremony(ws, "plugins", wrong)
    with pytest.raises(RefusedError, match="is adopted, and speaks for other files than before"):
        start_ceremony(ws, "plugins", plugins(ws), PLUGINS)
    start_ceremony(ws, "plugins", plugins(ws))


def test_git_gets_none_of_their_files_and_all_of_ours(ws: Workspace) -> None:
    again = start_role(ws, "plugins", NOW)
    check_ceremony(ws, again)
    assert set(again.signed.to_dict()["targets"]) == set(PLUGINS)
    assert again.carries == {}
    config = ws.directory / "firmroot.toml"
    product = '\n[products.gateway]\nhardware = ["acme,gw-2"]\nchannels = ["stable"]\n'
    config.write_text(config.read_text() + product)
    ours = Workspace.open(ws.directory)
    rules = ours.policy.role("channel")
    signed = manifest_targets("gateway-stable", None, MANIFEST, b"{}", rules, NOW)
    replace_file(ours.staged / "gateway-stable.json", Metadata(signed).to_bytes())
    stored = signed.targets[MANIFEST].get_prefixed_paths()[0]
    replace_file(ours.staged / "targets" / stored, b"{}")
    channel = start_role(ours, "gateway-stable", NOW)
    assert channel.carries[MANIFEST].read_bytes() == b"{}"


def test_an_id_of_another_tool_stands_for_the_key_that_had_it_and_no_other(ws: Workspace) -> None:
    """Attack: signatures are verified with the key that the content puts under an id."""
    honest = start_targets(ws, {}, NOW)
    check_ceremony(ws, honest)
    signed = Targets.from_dict(honest.signed.to_dict())
    assert signed.delegations is not None
    keyid, key = next(iter(signed.delegations.keys.items()))
    adopted = ws.adopted()
    assert adopted is not None
    other = next(each for each in adopted.keys.values() if each.keyval != key.keyval)
    signed.delegations.keys[keyid] = SSlibKey(keyid, other.keytype, other.scheme, other.keyval)
    with pytest.raises(RefusedError, match="is another public key than its key id says"):
        start_ceremony(ws, "targets", signed)
    assert start_targets(ws, {}, NOW) == honest
    check_ceremony(ws, start_root(ws, NOW))
