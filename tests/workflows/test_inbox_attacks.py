"""Whoever can write to the inbox, with or without a stolen key: refused, and in nobody's way.

All attacks are in the inbox at once, beside the honest work of a builder. One publish refuses each
for its own reason and takes the honest one; then the company goes on as if nothing had happened.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from tuf.api.metadata import Delegations, Metadata, TargetFile, Targets

from client_reference.errors import ExitCode
from client_reference.manifest import Manifest, Meaning, parse, serialize
from client_reference.payload.segments import SEGMENT, SUFFIX
from client_reference.trust.updater import Limits
from repo_tools.metadata.edits import assemble, signed_bytes
from repo_tools.publishing import intake
from repo_tools.publishing.examine import examine
from repo_tools.publishing.inbox import Submission
from repo_tools.signing.secrets import Secrets
from repo_tools.signing.signers import open_signer, sign
from tests.workflows.identities import PASSPHRASE, Company

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BUILDS, STABLE = "gateway-builds", "gateway-stable"
HOLDERS = {BUILDS: "ci or ci-2", STABLE: "rita or sam or tess"}
EVIL = b"evil firmware"
LATER = datetime.now(UTC).replace(microsecond=0) + timedelta(days=90)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Plant:
    """What somebody puts into the inbox, and how.

    Attributes:
        role: whose next version it is.
        signed: its content.
        keys: who signs it.
        objects: files beside it, by the digest that they are filed under.
        say: what the document says otherwise than it is.
        name: its id, if it is not the right one.
        raw: the document as it is written; that of an honest submitter if None.
        missing: the metadata are not there.
    """

    role: str
    signed: Targets
    keys: tuple[str, ...] = ("ci",)
    objects: dict[str, bytes] = field(default_factory=dict)
    say: dict[str, Any] = field(default_factory=dict)
    raw: bytes | None = None
    name: str = ""
    missing: bool = False


@dataclass(frozen=True)
class Den:
    """A thief who can write to the inbox of a company, and has copied keys."""

    company: Company

    def live(self, role: str) -> Targets | None:
        """What is live of a role."""
        found = sorted((self.company.storage / "metadata").glob(f"*.{role}.json"))
        return Metadata[Targets].from_bytes(found[-1].read_bytes()).signed if found else None

    def builds(self, *targets: TargetFile, **fields: Any) -> Targets:  # noqa: ANN401  of any type
        """The next builds role, with more targets than are live."""
        live = self.live(BUILDS)
        assert live is not None
        everything = {**live.targets, **{each.path: each for each in targets}}
        return Targets(version=live.version + 1, expires=LATER, targets=everything, **fields)

    def signed(self, signed: Targets, keys: tuple[str, ...]) -> bytes:
        signatures = []
        for name in keys:
            machine = self.company[name]
            ws = machine.workspace
            secrets = Secrets(PASSPHRASE.strip().encode())
            holder = ws.keyring[name]
            signer = open_signer(ws.key_uris()[name], holder, secrets, ws.directory)
            signatures.append(sign(signer, holder, signed_bytes(signed)))
        return assemble(signed, signatures)

    def base(self, role: str) -> str:
        found = sorted((self.company.storage / "metadata").glob(f"*.{role}.json"))
        return sha256(found[-1].read_bytes()) if found else ""

    def put(self, plant: Plant, attempt: int = 1) -> str:
        """Write it, as no honest submitter would; the id."""
        data = self.signed(plant.signed, plant.keys)
        told: dict[str, Any] = {
            "role": plant.role,
            "version": plant.signed.version,
            "length": len(data),
            "sha256": sha256(data),
            "base": self.base(plant.role),
            "epoch": 0,
            "attempt": attempt,
        }
        document = Submission(**(told | plant.say)).to_json() if plant.raw is None else plant.raw
        identity = plant.name or sha256(document)
        top = self.company.inbox / "submissions" / identity
        top.mkdir(parents=True)
        if not plant.missing:
            (top / str(plant.say.get("sha256", sha256(data)))).write_bytes(data)
        for digest, content in plant.objects.items():
            (top / digest).write_bytes(content)
        (top / "submission.json").write_bytes(document)
        return str(identity)


def artifact(
    path: str = "builds/gateway/6.6/evil.img",
    data: bytes = EVIL,
    *,
    digest: str = "",
    length: int = 0,
    **meaning: Any,  # noqa: ANN401  fields of any type
) -> TargetFile:
    """An entry of a builds role."""
    says: dict[str, Any] = {
        "product": "gateway",
        "hardware": frozenset({"acme,gw-2"}),
        "version": "6.6",
        "sequence": 2,
        "handler": "slot",
    }
    custom = Meaning(**(says | meaning)).custom()
    hashes = {"sha256": digest or sha256(data)}
    return TargetFile(length or len(data), hashes, path, {"custom": custom})


def evil(den: Den, entry: TargetFile | None = None, *more: TargetFile, **fields: Any) -> Plant:  # noqa: ANN401  of any type
    """A build of a thief with the builder's key, its bytes beside it."""
    entry = entry or artifact()
    return Plant(BUILDS, den.builds(entry, *more, **fields), objects={sha256(EVIL): EVIL})


def unlabelled(path: str, custom: object) -> TargetFile:
    """An entry with something else in the place of labels."""
    fields = {"length": len(EVIL), "hashes": {"sha256": sha256(EVIL)}, "custom": custom}
    return TargetFile.from_dict(fields, path)


def segmented(*, listed: bytes) -> tuple[TargetFile, TargetFile, dict[str, bytes]]:
    """A long artifact, and what is said to be the list of its segments."""
    data = EVIL * (SEGMENT // len(EVIL) + 1)
    entry = artifact(data=data)
    path = entry.path + SUFFIX
    beside = TargetFile(
        len(listed), {"sha256": sha256(listed)}, path, {"custom": {"segments-of": entry.path}}
    )
    return entry, beside, {sha256(data): data, sha256(listed): listed}


def channel(
    den: Den, manifest: bytes, *keys: str, path: str = "channels/gateway/stable.json"
) -> Plant:
    """The next version of the channel, signed by these."""
    live = den.live(STABLE)
    assert live is not None
    target = TargetFile.from_data(path, manifest, ["sha256"])
    signed = Targets(version=live.version + 1, expires=LATER, targets={path: target})
    return Plant(STABLE, signed, keys, {sha256(manifest): manifest})


def drops(den: Den) -> Plant:
    plant = evil(den)
    del plant.signed.targets["builds/gateway/1.0/gw2.img"]
    return plant


def rewrites(den: Den, **fields: Any) -> Plant:  # noqa: ANN401  of any type
    path = "builds/gateway/1.0/gw2.img"
    return evil(den, artifact(path, version="1.0", sequence=1), **fields)


def long(den: Den, *, listed: bytes | None) -> Plant:
    entry, beside, objects = segmented(listed=listed or b"")
    plant = evil(den, entry, *([beside] if listed else []))
    return replace(plant, objects=objects)


def delegates(den: Den) -> Plant:
    return Plant(BUILDS, den.builds(artifact(), delegations=Delegations({}, {})))


def jumps(den: Den) -> Plant:
    plant = evil(den)
    plant.signed.version += 100_000
    return plant


def expired(den: Den) -> Plant:
    plant = evil(den)
    plant.signed.expires = datetime(2020, 1, 1, tzinfo=UTC)
    return plant


def exchanged(den: Den) -> Plant:
    """Other metadata than the document names, filed under its digest."""
    return replace(evil(den), say={"sha256": sha256(b"honest")})


# What it is: how it is made, and what is said about it.
ATTACKS: dict[str, tuple[Callable[[Den], Plant], str]] = {
    # The document.
    "garbage": (lambda den: replace(evil(den), raw=b"\xff\x00garbage"), "a bad byte at 0"),
    "half a document": (lambda den: replace(evil(den), raw=b'{"schema": 1, "ro'), "an error at"),
    "no document at all": (lambda den: replace(evil(den), raw=b"[]"), "expected an object"),
    "a document of a megabyte": (
        lambda den: replace(evil(den), raw=b"x" * (1 << 20)),
        "longer than",
    ),
    "a document under another name": (
        lambda den: replace(evil(den), name="0" * 64),
        "expected its name",
    ),
    "a role that leads out": (
        lambda den: replace(evil(den), raw=_document(role="../../metadata/1.root")),
        "expected text of the form",
    ),
    "a role that nobody delegates": (
        lambda den: replace(evil(den), role="router-builds"),
        "does not delegate to 'router-builds'",
    ),
    "root": (lambda den: replace(evil(den), role="root"), "does not delegate to 'root'"),
    "targets": (lambda den: replace(evil(den), role="targets"), "does not delegate to 'targets'"),
    "another epoch": (
        lambda den: replace(evil(den), say={"epoch": 1}),
        "was handed in for epoch 1; the repository is in epoch 0",
    ),
    "a stale base": (
        lambda den: replace(evil(den), say={"base": sha256(b"before")}),
        "was made from what is no longer live",
    ),
    # The metadata.
    "metadata of six megabytes": (
        lambda den: replace(evil(den), say={"length": 6_000_000}),
        "stops reading at 5000000",
    ),
    "longer metadata than it says": (
        lambda den: replace(evil(den), say={"length": 10}),
        "longer than the 10 bytes allowed",
    ),
    "other metadata than it says": (exchanged, "the metadata of gateway-builds has sha256"),
    "the key of another role": (
        lambda den: replace(evil(den), keys=("rita",)),
        "gateway-builds has good signatures of 0 keys, 1 is needed",
    ),
    "one release manager of two": (
        lambda den: channel(den, serialize(Manifest("gateway", "stable", 0, ())), "rita"),
        "gateway-stable has good signatures of 1 key, 2 are needed",
    ),
    "a builder who promotes": (
        lambda den: channel(den, serialize(Manifest("gateway", "stable", 0, ())), "ci"),
        "gateway-stable has good signatures of 0 keys",
    ),
    "a version far ahead": (jumps, "expected at most 1000 more"),
    "an old version": (
        lambda den: replace(evil(den), signed=replace_version(den.builds(artifact()), 1)),
        "was made from what is no longer live",
    ),
    "metadata that have expired": (expired, "expired at 2020-01-01"),
    "a builder who delegates": (delegates, "delegates to other roles; only targets may"),
    # What it speaks for.
    "a path of a channel": (
        lambda den: evil(den, artifact("channels/gateway/stable.json")),
        "may not speak for channels/gateway/stable.json",
    ),
    "a path of another product": (
        lambda den: evil(den, artifact("builds/router/6.6/evil.img", product="router")),
        "may not speak for builds/router/6.6/evil.img",
    ),
    "a path that leads out": (
        lambda den: evil(den, artifact("builds/gateway/../../metadata")),
        "expected segments with single '/' between them",
    ),
    "a digest that leads out": (
        lambda den: evil(den, artifact(digest="../../../metadata/timestamp")),
        "has no SHA-256 of 64 hex digits",
    ),
    "a file that is never there": (
        lambda den: evil(den, artifact("builds/gateway/6.6/.evil.img")),
        "cannot be published",
    ),
    "more bytes than a device reads": (
        lambda den: evil(den, artifact(length=2**40)),
        "has 1099511627776 bytes, expected 1 to",
    ),
    # What it says about firmware.
    "other bytes under a published path": (
        rewrites,
        "a published path never changes|is published with other bytes",
    ),
    "other bytes under a path that it drops": (
        lambda den: rewrites(
            den,
            unrecognized_fields={"x-firmroot-dropped": ["builds/gateway/1.0/gw2.img"]},
        ),
        "is published with other bytes",
    ),
    "live firmware left out": (drops, "does not have builds/gateway/1.0/gw2.img as it is live"),
    "firmware without labels": (
        lambda den: evil(
            den, TargetFile(len(EVIL), {"sha256": sha256(EVIL)}, "builds/gateway/6.6/evil.img")
        ),
        "custom of builds/gateway/6.6/evil.img",
    ),
    "labels that are no labels": (
        lambda den: evil(den, artifact(), unlabelled("builds/gateway/6.6/two.img", [1])),
        "custom of builds/gateway/6.6/two.img",
    ),
    "labels of another version": (
        lambda den: evil(den, artifact(version="7.7")),
        "is labelled as builds/gateway/7.7/evil.img",
    ),
    "the sequence of a live release": (
        lambda den: evil(den, artifact(sequence=1)),
        "sequence 1 is given to",
    ),
    "two sequences for one version": (
        lambda den: evil(
            den, artifact(), artifact("builds/gateway/6.6/x.img", sequence=3, handler="command")
        ),
        "6.6 has the sequences",
    ),
    "the last sequence that there is": (
        lambda den: evil(den, artifact(sequence=2**53 - 1)),
        "the highest that is live is 1: expected at most 1000 more",
    ),
    "a second file for the same hardware": (
        lambda den: evil(den, artifact(), artifact("builds/gateway/6.6/two.img")),
        "gateway@6.6 already has builds/gateway/6.6/",
    ),
    "a long file without segments": (lambda den: long(den, listed=None), "no list of segments"),
    "a list of other segments": (
        lambda den: long(den, listed=bytes(64)),
        "is not the list of its segments",
    ),
    "a list that is too short": (
        lambda den: long(den, listed=bytes(32)),
        "is not the list of segments of",
    ),
    "a list of nothing": (
        lambda den: evil(
            den,
            unlabelled("builds/gateway/6.6/no" + SUFFIX, {"segments-of": "builds/gateway/6.6/no"}),
        ),
        "belongs to no artifact",
    ),
    # The files.
    "another file than is signed": (
        lambda den: replace(evil(den), objects={sha256(EVIL): b"evil firmwarf"}),
        "evil.img has 13 bytes with sha256",
    ),
    "a longer file than is signed": (
        lambda den: replace(evil(den), objects={sha256(EVIL): EVIL * 200_000}),
        "expected 13 bytes with",
    ),
    "a shorter file than is signed": (
        lambda den: replace(evil(den), objects={sha256(EVIL): b"evil"}),
        "evil.img has 4 bytes",
    ),
    "a manifest that is none": (
        lambda den: channel(den, b"{}", "rita", "sam"),
        "found nothing, expected a value|expected",
    ),
    "the manifest of another channel": (
        lambda den: channel(den, serialize(Manifest("gateway", "beta", 0, ())), "rita", "sam"),
        "what belongs into channels/gateway/beta.json",
    ),
}

WAITING: dict[str, tuple[Callable[[Den], Plant], str]] = {
    "metadata that are not there": (
        lambda den: replace(evil(den), missing=True),
        "its bytes are not all there",
    ),
    "a file that is not there": (
        lambda den: replace(
            channel(den, serialize(Manifest("gateway", "stable", 0, ())), "rita", "sam"), objects={}
        ),
        "its bytes are not all there",
    ),
}


def _document(**fields: Any) -> bytes:  # noqa: ANN401  of any type
    told = {
        "role": BUILDS, "version": 2, "length": 1, "sha256": "0" * 64, "base": "", "epoch": 0,
    }  # fmt: skip
    return json.dumps({"schema": 1, **told, "attempt": 1, **fields}).encode()


def replace_version(signed: Targets, version: int) -> Targets:
    signed.version = version
    return signed


@pytest.fixture(scope="module")
def company(shipped: Company, tmp_path_factory: pytest.TempPathFactory) -> Company:
    return shipped.copy(tmp_path_factory.mktemp("inbox") / "acme")


@pytest.fixture(scope="module")
def told(company: Company) -> dict[str, dict[str, Any]]:
    """What the publisher said about each, and about the honest builder's work, in one publish."""
    den = Den(company)
    planted = {**ATTACKS, **WAITING}
    ids = {name: den.put(planted[name][0](den), n) for n, name in enumerate(planted, start=1)}
    assert len(set(ids.values())) == len(ids), "each is another one"
    strange = company.inbox / "somewhere/else"
    strange.parent.mkdir()
    strange.write_bytes(b"x")
    honest = company["ci"]
    honest.build("1.1")
    honest_id = honest.submission()
    before = {path.name for path in (company.storage / "metadata").iterdir() if path.is_file()}
    verdicts = {each["id"]: each for each in company["publisher"].json("publish")["inbox"]}
    after = {path.name for path in (company.storage / "metadata").iterdir() if path.is_file()}
    assert after - before == {"2.gateway-builds.json", f"{_newest(after)}.snapshot.json"}
    assert strange.read_bytes() == b"x", "it is nobody's, and stays"
    assert not list(company.top.rglob("evil*")), "nothing of it is anywhere"
    return {**{name: verdicts[id_] for name, id_ in ids.items()}, "honest": verdicts[honest_id]}


def _newest(names: set[str]) -> int:
    return max(int(name.split(".")[0]) for name in names if name.endswith(".snapshot.json"))


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_for_its_own_reason(
    name: str, told: dict[str, dict[str, Any]], company: Company
) -> None:
    verdict = told[name]
    assert verdict["outcome"] == "refused", verdict
    assert re.search(ATTACKS[name][1], verdict["reason"]), verdict
    if "good signatures" in verdict["reason"]:
        role = verdict["role"]
        assert verdict["hint"].startswith(f"{role} is signed by {HOLDERS[role]}; ")
    answer = json.loads((company.inbox / "answers" / f"{verdict['id']}.json").read_bytes())
    assert answer["reason"] == verdict["reason"], "its submitter is told"
    assert not (company.inbox / "submissions" / verdict["id"]).exists(), "it is cleared"


@pytest.mark.parametrize("name", WAITING)
def test_what_is_not_all_there_waits(
    name: str, told: dict[str, dict[str, Any]], company: Company
) -> None:
    verdict = told[name]
    assert verdict["outcome"] == "waits"
    assert WAITING[name][1] in verdict["reason"]
    assert (company.inbox / "waiting" / f"{verdict['id']}.json").exists()
    assert (company.inbox / "submissions" / verdict["id"] / "submission.json").exists()


def test_nothing_of_it_is_in_the_way_of_honest_work(
    told: dict[str, dict[str, Any]], company: Company
) -> None:
    assert told["honest"]["outcome"] == "published"
    for name in ("rita", "sam", "ci"):
        company[name].submit()
    company.promote("1.1").submit()
    company["publisher"]("publish")
    assert company.device() == "installs 1.1"


def test_a_submission_that_meets_a_bug_is_in_nobodys_way(company: Company, tmp_path: Path) -> None:
    here = company.copy(tmp_path / "acme")
    for name in ("rita", "sam", "ci"):
        here[name].submit()
    den = Den(here)
    identity = den.put(evil(den), 99)
    here["ci"].build("2.0")
    honest = here["ci"].submission()

    def stumbles(state: Any, submission: Submission, *rest: Any) -> Any:  # noqa: ANN401  the real one's
        if submission.attempt == 99:
            raise ZeroDivisionError("oops")
        return examine(state, submission, *rest)

    with patch.object(intake, "examine", stumbles):
        told = {each["id"]: each for each in here["publisher"].json("publish")["inbox"]}
    assert told[honest]["outcome"] == "published"
    assert told[identity]["outcome"] == "waits"
    assert told[identity]["reason"] == "this is a bug in firmroot: ZeroDivisionError: oops"


def test_a_promotion_that_strands_devices_waits_and_can_be_replaced(
    company: Company, tmp_path: Path
) -> None:
    here = company.copy(tmp_path / "acme")
    publisher = here["publisher"]
    publisher("factory", "export", "gateway", "--to", tmp_path / "d", "--server", "http://x/")
    den = Den(here)
    stored = sorted((here.storage / "targets/channels/gateway").iterdir())
    live = parse(max(stored, key=lambda path: path.stat().st_mtime_ns).read_bytes())
    [release] = live.releases
    [payload] = release.payloads
    wrong = replace(payload, artifact=replace(payload.artifact, sha256=sha256(b"another image")))
    bad = replace(live, releases=(replace(release, payloads=(wrong,)),))
    identity = den.put(channel(den, serialize(bad), "rita", "sam"))
    for name in ("rita", "sam", "ci"):
        here[name].submit()
    here["ci"].build("2.0")
    honest = here["ci"].submission()
    found = {each["id"]: each for each in publisher.json("publish")["inbox"]}
    assert found[honest]["outcome"] == "published", "it is in nobody's way"
    assert found[identity]["outcome"] == "waits"
    assert "would strand 2 of the devices that were rehearsed" in found[identity]["reason"]
    assert here.device() == f"installs {release.version}"

    # The release managers hand in a better one, from the same base; the other one is stale then.
    for name in ("rita", "sam", "ci"):
        here[name].submit()
    here.promote("2.0")
    better = here["sam"].submission()
    found = {each["id"]: each for each in publisher.json("publish")["inbox"]}
    assert found[identity]["outcome"] == "refused"
    assert found[better]["outcome"] == "published"
    assert here.device() == "installs 2.0"


def test_what_was_refused_is_told_to_its_submitter_and_can_be_handed_in_again(
    shipped: Company, tmp_path: Path
) -> None:
    """Somebody refuses honest work with a forged answer: it is told, and overruled by --again."""
    here = shipped.copy(tmp_path / "acme")
    for name in ("rita", "sam", "ci"):
        here[name].submit()
    builder = here["ci"]
    builder.build("2.0")
    identity = builder.submission()
    answer = {
        "schema": 1, "outcome": "refused", "role": STABLE, "version": 9, "when": "",
        "reason": "no \x1b[31mreason", "hint": "give up",
    }  # fmt: skip
    (here.inbox / "answers").mkdir(exist_ok=True)
    (here.inbox / "answers" / f"{identity}.json").write_text(json.dumps(answer))
    said = builder.submit("--status", code=ExitCode.REFUSED)
    assert "gateway-builds 2  refused" in said, "it is the submitter who knows what it was"
    assert "no \\x1b[31mreason" in said
    assert "give up" in builder.submit(code=ExitCode.REFUSED)
    assert "handed in" in builder.submit("--again")
    assert "already there" in builder.submit()
    # Of two refusals the last one is told, also when what it refused was cleared away since.
    again = builder.submission()
    assert again != identity
    answer["reason"] = "a second time"
    (here.inbox / "answers" / f"{again}.json").write_text(json.dumps(answer))
    shutil.move(here.inbox / "submissions" / again, tmp_path / "cleared")
    said = builder.submit(code=ExitCode.REFUSED)
    assert "a second time" in said
    assert again in said
    assert "handed in" in builder.submit("--again")
    here["publisher"]("publish")
    assert "published" in builder.submit("--status")


def test_what_people_signed_is_looked_at_before_it_is_handed_in(
    shipped: Company, tmp_path: Path
) -> None:
    """What the publisher would refuse, and what nobody has, is told to who signed it."""
    here = shipped.copy(tmp_path / "acme")
    sam, den = here["sam"], Den(here)
    sam.submit()
    before = sorted(here.inbox.rglob("*"))
    plant = channel(den, serialize(Manifest("gateway", "beta", 0, ())), "rita", "sam")
    staged = sam.directory / "staged"
    staged.mkdir(exist_ok=True)
    (staged / f"{STABLE}.json").write_bytes(den.signed(plant.signed, plant.keys))
    [(digest, manifest)] = plant.objects.items()
    there = staged / "targets/channels/gateway"
    there.mkdir(parents=True, exist_ok=True)
    (there / f"{digest}.stable.json").write_bytes(manifest)
    said = sam.submit(code=ExitCode.REFUSED)
    assert "channels/gateway/stable.json what belongs into channels/gateway/beta.json" in said
    (there / f"{digest}.stable.json").unlink()
    said = sam.submit(code=ExitCode.REFUSED)
    assert "stable.json is signed, but its bytes are neither here nor in the storage" in said
    assert sorted(here.inbox.rglob("*")) == before
    shutil.rmtree(staged)
    here.ship("2.0")


def test_a_role_that_no_client_reads_to_its_end_is_refused_by_its_length(
    shipped: Company, tmp_path: Path
) -> None:
    here = shipped.copy(tmp_path / "acme")
    builder, publisher = here["ci"], here["publisher"]
    builder.build("2.0")
    builder.submit()
    length = len(builder.staged.read_bytes())
    with patch.object(intake, "Limits", lambda: Limits(targets=length - 1)):
        said = publisher("publish")
    assert f"2 has {length} bytes; every client that was shipped stops reading at" in said
    builder.submit("--again")
    with patch.object(intake, "Limits", lambda: Limits(targets=length)):
        assert "): published" in publisher("publish")


def test_an_answer_that_says_published_is_not_believed(company: Company, tmp_path: Path) -> None:
    here = company.copy(tmp_path / "acme")
    builder = here["ci-2"]
    builder.build("3.0")
    identity = builder.submission()
    answer = {
        "schema": 1, "outcome": "published", "role": BUILDS, "version": 9, "when": "",
        "reason": "", "hint": "",
    }  # fmt: skip
    (here.inbox / "answers").mkdir(exist_ok=True)
    (here.inbox / "answers" / f"{identity}.json").write_text(json.dumps(answer))
    said = builder.submit()
    assert "handed in" in said, "it is not live, so it is handed in again"
    assert identity not in said
    here["publisher"]("publish")
    assert "published" in builder.submit("--status")
