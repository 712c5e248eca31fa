"""A repository of another tool is taken over, and the clients that use it notice nothing.

The other tool is python-tuf, since its keys must be at hand; the clients that were there before are
`tuf.ngclient` and tuf-js. Repositories that others signed are adopted as far as their public half
goes.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from securesystemslib.signer import SSlibKey
from tuf.api.metadata import DelegatedRole, Delegations, SuccinctRoles, TargetFile

from client_reference.errors import NotTrustedError
from repo_tools.adoption import inspect
from repo_tools.cli.main import main
from repo_tools.metadata.adopted import claims_ours, section_of
from repo_tools.metadata.edits import assemble, signed_bytes
from repo_tools.publishing.live import read_live
from repo_tools.storage.local import LocalStorage
from repo_tools.workspace import Workspace
from tests.interop.clients import MissingError, install_tuf_js, ngclient, tuf_js
from tests.simulators.foreign import EVERYTHING, FILES, PASSPHRASE, Foreign, make
from tests.simulators.mirror import Mirror
from tests.simulators.seaweed import ACCESS, SECRET, seaweed

if TYPE_CHECKING:
    from collections.abc import Callable

REAL = Path(__file__).parents[3] / "shared" / "fixtures" / "real-repositories"
NOW = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 # whatever the command printed
        return json.loads(self.out)


def run(*arguments: str | Path, passphrase: Path | None = None) -> Done:
    out, err = io.StringIO(), io.StringIO()
    more = {} if passphrase is None else {"FIRMROOT_PASSPHRASE_FILE": str(passphrase)}
    with (
        patch.dict("os.environ", more),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = main([*map(str, arguments)])
    return Done(code, out.getvalue(), err.getvalue())


# What cannot be adopted.


def _hash_bins(theirs: Foreign) -> None:
    theirs.delegated.clear()
    theirs.targets.delegations = Delegations({}, None, SuccinctRoles([], 1, 2, "bin"))
    key = theirs.signers["paula"].public_key
    theirs.targets.delegations.keys[key.keyid] = key
    assert theirs.targets.delegations.succinct_roles is not None
    theirs.targets.delegations.succinct_roles.keyids.append(key.keyid)


def _prefixes(theirs: Foreign) -> None:
    assert theirs.targets.delegations is not None
    assert theirs.targets.delegations.roles is not None
    role = theirs.targets.delegations.roles["extras"]
    theirs.targets.delegations.roles["extras"] = DelegatedRole(
        "extras", role.keyids, 1, terminating=True, path_hash_prefixes=["0", "1"]
    )


def _nested(theirs: Foreign) -> None:
    theirs.delegated["plugins"].delegations = Delegations({}, {})


def _unsigned(theirs: Foreign) -> None:
    del theirs.delegated["extras"]


def _builds(theirs: Foreign) -> None:
    theirs.add_file(theirs.targets, "builds/gateway/1.0/a.img", b"a")


def _any_segment(theirs: Foreign) -> None:
    theirs.delegated["both"] = theirs.delegate("both", "paula", "*/special", terminating=True)


def _our_name(theirs: Foreign) -> None:
    theirs.delegated["device-tls"] = theirs.delegate("device-tls", "paula", "x/*", terminating=True)


def _one_section(theirs: Foreign) -> None:
    theirs.delegated["Extras"] = theirs.delegate("Extras", "paula", "y/*", terminating=True)


def _sha512(theirs: Foreign) -> None:
    theirs.targets.targets["z"] = TargetFile.from_data("z", b"z", ["sha512"])


def _old_key_type(theirs: Foreign) -> None:
    key = theirs.signers["nils"].public_key
    kind = "ecdsa-sha2-nistp256"
    old = SSlibKey(key.keyid, kind, key.scheme, key.keyval)
    theirs.signers["nils"]._public_key = old  # as older tools wrote it
    assert theirs.targets.delegations is not None
    theirs.targets.delegations.keys[key.keyid] = old


def _two_ids(theirs: Foreign) -> None:
    key = theirs.signers["paula"].public_key
    assert theirs.targets.delegations is not None
    again = SSlibKey("f" * 64, key.keytype, key.scheme, key.keyval)
    theirs.targets.delegations.keys["f" * 64] = again
    assert theirs.targets.delegations.roles is not None
    theirs.targets.delegations.roles["plugins"].keyids.append("f" * 64)


def _inconsistent(theirs: Foreign) -> None:
    theirs.consistent = False


OBSTACLES: dict[str, tuple[Callable[[Foreign], None], set[str]]] = {
    "nothing": (lambda _: None, set()),
    "no consistent snapshot": (_inconsistent, {"consistent-snapshot"}),
    "hash bins": (_hash_bins, {"hash-bins"}),
    "hash prefixes": (_prefixes, {"hash-bins"}),
    "a role that delegates further": (_nested, {"nested"}),
    "a role that nobody signed": (_unsigned, {"unsigned-role"}),
    "a file where builds are": (_builds, {"collision"}),
    "a pattern that matches ours": (_any_segment, {"collision"}),
    "a role with a name of ours": (_our_name, {"collision"}),
    "two roles for one section": (_one_section, {"collision"}),
    "a file without sha256": (_sha512, {"no-sha256"}),
    "a key type of older tools": (_old_key_type, {"key-type"}),
    "one key under two ids": (_two_ids, {"one-key-two-ids"}),
}


@pytest.mark.parametrize("case", OBSTACLES)
def test_a_repository_has(case: str, tmp_path: Path) -> None:
    change, expected = OBSTACLES[case]
    make(tmp_path / "theirs", now=NOW, change=change)
    plan = inspect(LocalStorage(tmp_path / "theirs"), None, NOW)
    assert {each.id for each in plan.obstacles} == expected
    assert all(each.fix for each in plan.obstacles)


def test_what_has_expired_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "theirs", now=NOW)
    storage = LocalStorage(tmp_path / "theirs")
    last = NOW + timedelta(days=200)
    assert inspect(storage, None, last - timedelta(seconds=1)).obstacles == ()
    plan = inspect(storage, None, last)
    assert {each.id for each in plan.obstacles} == {"expired"}
    assert len(plan.obstacles) == 6


def test_a_root_of_others_is_not_believed(tmp_path: Path) -> None:
    theirs = make(tmp_path / "theirs", now=NOW)
    other = make(tmp_path / "other", now=NOW)
    storage = LocalStorage(tmp_path / "theirs")
    with pytest.raises(NotTrustedError, match="is not one of the 3 versions there"):
        inspect(storage, other.roots[1], NOW)
    assert inspect(storage, theirs.roots[1], NOW).obstacles == ()


def test_what_does_not_verify_or_is_not_there_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "theirs", now=NOW)
    storage, metadata = LocalStorage(tmp_path / "theirs"), tmp_path / "theirs/metadata"
    role = metadata / "4.plugins.json"
    good = role.read_bytes()
    role.write_bytes(good.replace(b'"version":4', b'"version":5'))
    assert [each.id for each in inspect(storage, None, NOW).obstacles] == ["unverified"]
    role.write_bytes(good)
    (metadata / "timestamp.json").unlink()
    assert [each.id for each in inspect(storage, None, NOW).obstacles] == ["nothing-live"]
    (metadata / "1.root.json").unlink()
    assert [each.id for each in inspect(storage, None, NOW).obstacles] == ["root-chain"]


PATTERNS = {
    "builds/a/1/b": True,
    "b*/x": True,
    "*/x": True,
    "[abc]hannels/*": True,
    "*": False,
    "builds": False,
    "plugins/builds/*": False,
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_claims_what_is_ours(pattern: str) -> None:
    assert claims_ours(pattern) is PATTERNS[pattern]


def test_sections_have_names_that_a_policy_can_have() -> None:
    names = ("plugins", "Role_1.x", "-")
    assert [section_of(each) for each in names] == [
        "adopted-plugins",
        "adopted-role-1-x",
        "adopted-role",
    ]


# Repositories that other people signed.

REPOSITORIES = {
    "sigstore-2022-11": ("team", 5, "root-format"),
    "sigstore-roots": ("team", 5, "root-format"),
    "bottlerocket-roots": ("team", 5, "nothing-live"),
    "tuf-on-ci-0.11": ("maker", 0, ""),
}


@pytest.mark.skipif(not REAL.is_dir(), reason="real repositories are not beside the project")
@pytest.mark.parametrize("folder", REPOSITORIES)
def test_a_repository_of_others_is(folder: str) -> None:
    policy, code, obstacle = REPOSITORIES[folder]
    done = run("--json", "adopt", "--plan", REAL / folder, "--policy", policy)
    assert done.code == code
    assert [each["id"] for each in done.json["obstacles"]] == ([obstacle] if obstacle else [])


@pytest.mark.skipif(not REAL.is_dir(), reason="real repositories are not beside the project")
def test_a_workspace_is_made_of_one_by_tuf_on_ci(tmp_path: Path) -> None:
    source = REAL / "tuf-on-ci-0.11"
    before = {path: path.stat().st_mtime_ns for path in source.rglob("*")}
    for arguments in (("--plan", source), (source, tmp_path / "refused")):
        done = run("--yes", "adopt", *arguments)
        assert done.code == 5
        assert "threshold 1, expected at least 2 [threshold-two]" in done.err
        assert not (tmp_path / "refused").exists()
    done = run("--yes", "--json", "adopt", source, tmp_path / "acme", "--policy", "maker")
    assert done.code == 0, done
    names = {each["name"]: each["roles"] for each in done.json["keys"]}
    assert names == {
        "jku": ["root", "targets", "adopted-delegatedrole"],
        "snapshot-1": ["snapshot", "timestamp"],
        "test-user": ["adopted-delegatedrole"],
    }
    ws = Workspace.open(tmp_path / "acme")
    assert ws.policy.roles["adopted-delegatedrole"].keys == ("jku", "test-user")
    status = run("-C", tmp_path / "acme", "status")
    assert "delegatedrole 2: live until 2044-08-10" in status.out
    assert {path: path.stat().st_mtime_ns for path in source.rglob("*")} == before


# The command, and the workspace that it makes.


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Foreign:
    """A repository that these tests only read."""
    return make(tmp_path_factory.mktemp("shared") / "theirs")


def test_the_command_asks_and_refuses_what_it_cannot_do(shared: Foreign, tmp_path: Path) -> None:
    source, there = shared.directory, tmp_path / "there"
    there.mkdir()
    (there / "file").write_bytes(b"")
    for code, *arguments in (
        (2, "adopt", source),
        (2, "adopt", "--plan", source, tmp_path / "acme"),
        (2, "adopt", "--plan", tmp_path / "nowhere"),
        (2, "adopt", "--plan", "ftp://acme.example/"),
        (2, "--yes", "adopt", source, there),
        (3, "adopt", source, tmp_path / "acme"),
    ):
        assert run(*arguments).code == code, arguments
    assert not (tmp_path / "acme").exists()
    assert run("--yes", "adopt", source, tmp_path / "acme").code == 0


def test_a_folder_may_have_a_name_that_a_url_would_escape(shared: Foreign, tmp_path: Path) -> None:
    """The workspace looked for its storage where the name is spelled with %20."""
    (tmp_path / "their own").symlink_to(shared.directory)
    source = tmp_path / "their own"
    for number, each in enumerate((str(source), f"file://{source}")):
        acme = tmp_path / f"acme{number}"
        assert run("--yes", "adopt", each, acme).code == 0
        storage = Workspace.open(acme, missing_keys=True).storage()
        assert read_live(storage, shared.roots[0]).state.timestamp is not None


def test_a_url_is_good_for_a_plan_and_for_no_more(shared: Foreign, tmp_path: Path) -> None:
    with served(shared.directory) as mirror:
        done = run("--json", "adopt", "--plan", mirror.url)
        assert done.code == 0
        assert done.json["adoptable"] is True
        assert done.json["roots"] == 3
        done = run("--yes", "adopt", mirror.url, tmp_path / "acme")
        assert done.code == 2
        assert "name its storage" in done.err
        assert not (tmp_path / "acme").exists()


def test_a_target_whose_bytes_are_missing_is_named(tmp_path: Path) -> None:
    theirs = make(tmp_path / "theirs")
    (stored,) = theirs.directory.glob("targets/plugins/deep/*.b.zip")
    data = stored.read_bytes()
    stored.unlink()
    done = run("--yes", "--json", "adopt", theirs.directory, tmp_path / "acme")
    assert done.code == 5
    assert done.json["missing"] == ["plugins/deep/b.zip"]
    stored.write_bytes(data)
    assert run("--yes", "adopt", theirs.directory, tmp_path / "acme").code == 0


def test_what_was_adopted_is_believed_only_as_it_was_signed(
    shared: Foreign, tmp_path: Path
) -> None:
    """Attack: who can write to git adds a file, and the next ceremony would carry it."""
    assert run("--yes", "adopt", shared.directory, tmp_path / "acme").code == 0
    ws = Workspace.open(tmp_path / "acme")
    assert run("-C", tmp_path / "acme", "history", "--verify").code == 0
    kept = tmp_path / "acme/metadata/adopted"
    for name, before, after in (
        ("targets", b'"notes.txt"', b'"evil.txt"'),
        ("root", b'"threshold":2', b'"threshold":1'),
    ):
        path = kept / f"{name}.json"
        good = path.read_bytes()
        assert before in good
        path.write_bytes(good.replace(before, after))
        with pytest.raises(NotTrustedError, match="is not what was adopted"):
            ws.adopted()
        path.write_bytes(good)
    adopted = ws.adopted()
    assert adopted is not None
    assert list(adopted.files) == sorted(FILES)


@pytest.mark.services
def test_a_key_comes_under_the_name_that_it_has(tmp_path: Path) -> None:
    theirs = make(tmp_path / "theirs", keys_in=tmp_path / "keys")
    (tmp_path / "passphrase").write_bytes(PASSPHRASE + b"\n")
    way = Way(theirs, tmp_path / "acme", tmp_path)
    assert run("--yes", "adopt", theirs.directory, way.directory).code == 0
    file, secret = tmp_path / "keys/maria.pem", tmp_path / "passphrase"
    done = run("-C", way.directory, "key", "import", file, "--name", "mary", passphrase=secret)
    assert done.code == 2
    assert "this key is here already, as maria" in done.err
    wrong = tmp_path / "keys/olga.pem"
    done = run("-C", way.directory, "key", "import", wrong, "--name", "maria", passphrase=secret)
    assert done.code == 2
    assert "there is a key maria already" in done.err
    way.ok("key", "import", file, "--name", "maria")
    way.ok("key", "test", "maria")
    # What python-tuf and securesystemslib write is not encrypted; the page says how it is made so.
    plain, encrypted = tmp_path / "plain.pem", tmp_path / "encrypted.pem"
    plain.write_bytes(theirs.signers["paula"].private_bytes)
    name = way_name(way, "paula")
    done = run("-C", way.directory, "key", "import", plain, "--name", name, passphrase=secret)
    assert done.code == 2
    assert "openssl pkcs8 -topk8 -v2 aes-256-cbc" in done.err
    line = ["openssl", "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-in", str(plain)]
    subprocess.run([*line, "-out", str(encrypted), "-passout", f"file:{secret}"], check=True)
    way.ok("key", "import", encrypted, "--name", name)
    way.ok("key", "test", name)


@pytest.mark.services
def test_a_repository_in_a_bucket_is_adopted_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = make(tmp_path / "theirs")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with seaweed(tmp_path) as service:
        client = service.client()
        client.create_bucket(Bucket="acme")
        for path in theirs.directory.rglob("*"):
            if path.is_file():
                key = f"fw/{path.relative_to(theirs.directory).as_posix()}"
                client.put_object(Bucket="acme", Key=key, Body=path.read_bytes())
        url = f"s3://acme/fw?endpoint={service.endpoint}"
        done = run("--yes", "adopt", url, tmp_path / "acme")
        assert done.code == 0, done
        done = run("-C", tmp_path / "acme", "verify")
        assert done.code == 0, done
        assert "targets: 5 files" in done.out


def test_the_policy_holds_for_their_keys_too(tmp_path: Path) -> None:
    def one_is_enough(theirs: Foreign) -> None:
        theirs.threshold = 1

    make(tmp_path / "theirs", change=one_is_enough)
    for policy, code in (("team", 5), ("maker", 0)):
        done = run("adopt", "--plan", tmp_path / "theirs", "--policy", policy)
        assert done.code == code
        assert ("[threshold-two]" in done.err) == bool(code)
        done = run("--yes", "adopt", tmp_path / "theirs", tmp_path / policy, "--policy", policy)
        assert done.code == code
        assert (tmp_path / policy).exists() == (not code)


# The whole way.


def served(directory: Path) -> Mirror:
    """A repository over HTTP, as it is now."""
    return Mirror(
        {
            path.relative_to(directory).as_posix(): path.read_bytes()
            for path in directory.rglob("*")
            if path.is_file()
        }
    )


@cache
def tuf_js_modules() -> Path | None:
    """A second client of others, where it can be installed; on CI it must be."""
    try:
        return install_tuf_js()
    except MissingError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        return None


@dataclass
class Way:
    """One adoption, from the other tool's repository on.

    Attributes:
        theirs: the repository.
        directory: of the workspace.
        top: of everything.
        visits: how often clients came.
    """

    theirs: Foreign
    directory: Path
    top: Path
    visits: int = 0

    def ok(self, *arguments: str | Path) -> Done:
        done = run("--yes", "-C", self.directory, *arguments, passphrase=self.top / "passphrase")
        assert done.code == 0, f"{arguments}: {done}"
        return done

    def clients_find_everything(self, place: Path | None = None) -> None:
        """Old ones that come every time, and new ones with each root, download all targets."""
        self.visits += 1
        with served(place or self.theirs.directory) as mirror:
            if (modules := tuf_js_modules()) is not None:
                client = self.top / "tuf-js"
                found = tuf_js(modules, client, mirror.url, self.theirs.roots[0], list(EVERYTHING))
                assert found == list(EVERYTHING.values())
            for number, root in enumerate(self.theirs.roots, 1):
                for name in (f"kept-{number}", f"fresh-{number}-{self.visits}"):
                    found = ngclient(self.top / name, mirror.url, root, list(EVERYTHING))
                    assert found == list(EVERYTHING.values())


def begin(tmp_path: Path) -> Way:
    """Theirs is live, and the workspace is made."""
    theirs = make(tmp_path / "theirs", keys_in=tmp_path / "keys")
    (tmp_path / "passphrase").write_bytes(PASSPHRASE + b"\n")
    (tmp_path / "shipped.json").write_bytes(theirs.roots[1])
    way = Way(theirs, tmp_path / "acme", tmp_path)
    way.clients_find_everything()
    pinned = ("--root", tmp_path / "shipped.json")
    done = run("--yes", "adopt", tmp_path / "theirs", way.directory, *pinned)
    assert done.code == 0, done
    assert "one of them is the root you trust" in done.out
    return way


NEW_KEYS = {
    "channel": ("rita", "sam", "tess"),
    "hold": ("oncall-1", "oncall-2"),
    "builds": ("ci",),
}


@pytest.mark.services
def test_devices_of_before_find_everything_after_adoption_and_after_a_product(
    tmp_path: Path,
) -> None:
    way = begin(tmp_path)
    for name, called in {
        "maria": "maria",
        "nils": way_name(way, "nils"),
        "olga": way_name(way, "olga"),
        "paula": way_name(way, "paula"),
    }.items():
        way.ok("key", "import", tmp_path / f"keys/{name}.pem", "--name", called)
    online = ("--role", "snapshot", "--role", "timestamp")
    way.ok("key", "import", tmp_path / "keys/machine.pem", "--name", "machine", *online)
    for role, names in NEW_KEYS.items():
        for name in names:
            way.ok("key", "new", name, "--role", role)
    # The root, signed by the old threshold and with the same keys.
    way.ok("ceremony", "start", "root")
    way.ok("sign")
    way.ok("publish")
    assert (way.theirs.directory / "metadata/4.root.json").exists()
    way.clients_find_everything()
    way.ok("verify")
    refuse_what_forgets(way)
    # A product beside what was there.
    way.ok("product", "add", "gateway", "--hardware", "acme,gw-2")
    (tmp_path / "new.img").write_bytes(b"new firmware\n" * 1000)
    way.ok("firmware", "add", tmp_path / "new.img", "-p", "gateway", "-V", "1.0",
           "--hardware", "acme,gw-2")  # fmt: skip
    way.ok("channel", "promote", "gateway@1.0", "--to", "stable")
    way.ok("sign")
    way.ok("publish")
    way.clients_find_everything()
    done = way.ok("verify")
    assert "clock 1970: updates, installs 1.0" in done.out
    assert "targets: 7 files" in done.out
    way.ok("history", "--verify")
    way.ok("mirror", tmp_path / "mirror")
    way.clients_find_everything(tmp_path / "mirror")
    assert way.ok("--json", "gc", "--dry-run").json["paths"] == []
    # Their delegated role is signed again as it is, by its own key.
    way.ok("ceremony", "start", "plugins")
    way.ok("sign")
    way.ok("publish")
    state = read_live(LocalStorage(way.theirs.directory), way.theirs.roots[0]).state
    plugins, targets = state.role("plugins"), state.targets
    assert plugins is not None
    assert targets is not None
    assert plugins.version == 5
    delegations = targets.delegations
    assert delegations is not None
    assert delegations.roles is not None
    assert list(delegations.roles)[:2] == ["plugins", "extras"]
    assert delegations.roles["plugins"].terminating is False
    way.clients_find_everything()
    # A key of theirs is rotated: clients of before go on.
    way.ok("key", "new", "olga-2027")
    way.ok("rotate", way_name(way, "olga"), "--to", "olga-2027")
    way.ok("sign")
    way.ok("publish", "--no-wait")
    way.clients_find_everything()


def refuse_what_forgets(way: Way) -> None:
    """Signed by the right keys, past every ceremony, and without what clients of before need."""
    state = read_live(LocalStorage(way.theirs.directory), way.theirs.roots[0]).state
    staged = way.directory / "staged"
    targets, plugins = state.targets, state.role("plugins")
    assert targets is not None
    assert plugins is not None
    targets.targets.pop("notes.txt")
    plugins.targets.pop("plugins/a.zip")
    for role, signed, keys, message in (
        ("targets", targets, ("maria", "nils"), "other target files than those that were adopted"),
        ("plugins", plugins, ("paula",), "plugins would speak for other files than are live"),
    ):
        signed.version += 1
        given = [way.theirs.signers[each].sign(signed_bytes(signed)) for each in keys]
        staged.mkdir(exist_ok=True)
        (staged / f"{role}.json").write_bytes(assemble(signed, given))
        done = run("-C", way.directory, "publish", passphrase=way.top / "passphrase")
        assert done.code == 5, done
        assert message in done.err
        (staged / f"{role}.json").unlink()


def way_name(way: Way, name: str) -> str:
    """What the workspace calls a key of theirs."""
    keyid = way.theirs.signers[name].public_key.keyid
    return Workspace.open(way.directory, missing_keys=True).key_name(keyid)
