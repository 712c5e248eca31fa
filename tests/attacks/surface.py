"""What this design's own surface offers to attack: its formats, hints, parsers and handlers."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import DelegatedRole, Delegations, MetaFile, SuccinctRoles

from client_reference.errors import (
    NotFoundError,
    NotTrustedError,
    RefusedError,
    RetryLaterError,
)
from client_reference.manifest import (
    Manifest,
    Release,
    UnsupportedSchemaError,
    Withdrawn,
    serialize,
)
from client_reference.payload.download import BadSegmentError
from client_reference.payload.segments import SEGMENT, SUFFIX
from client_reference.selection import Reason
from client_reference.strictjson import MalformedJsonError
from client_reference.transport.fetch import WebPageError
from client_reference.trust import rootchain
from client_reference.trust.updater import bin_prefix
from client_reference.trust.verified import (
    BadSignatureError,
    DelegationError,
    ExpiredError,
    MalformedError,
    MismatchError,
    RollbackError,
)
from client_reference.update import DisagreementError
from tests.attacks.scene import (
    BUILDS,
    HOLD,
    IMAGES,
    ISSUED,
    NOW,
    STABLE,
    TLS,
    Back,
    Scene,
    later_the_same_year,
)
from tests.attacks.table import HONEST, ONLINE, UNHARMED, Chapter, exchanged
from tests.simulators.repository import RepositorySimulator

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_reference.errors import FirmrootError
    from tests.attacks.table import Mutation

Edit: TypeAlias = "Callable[[dict[str, Any]], object]"

SURFACE = Chapter("This design's own surface")

INSTALLED = "1.2 (sequence 3) runs on trial"
POISON = "2032-05-13T11:59:59Z"
MANIFEST = "channels/gateway/stable.json"


# Roots


@SURFACE.row(
    "a link of the root chain is left out",
    "design 4; TUF 5.3.5",
    does=MismatchError,
    says="root has version 4, expected 3",
)
def skipped_root(scene: Scene) -> None:
    scene.honest.repo.publish("root")
    scene.honest.repo.publish("root", "timestamp")
    files = scene.stolen.files
    files["metadata/3.root.json"] = files["metadata/4.root.json"]


@SURFACE.row(
    "the newest root is hidden from a device that needs it",
    "design 4, hints",
    does=BadSignatureError,
    says="timestamp has good signatures of 0 keys, 1 is needed",
)
def hidden_root(scene: Scene) -> None:
    scene.honest.repo.rotate("timestamp")
    scene.honest.repo.publish("root", "timestamp")
    del scene.stolen.files["metadata/3.root.json"]


@SURFACE.row(
    "a root that the timestamp announces is hidden from a device that can do without",
    "design 4, hints",
    does=UNHARMED,
    says="root 3 is announced and no mirror has it",
)
def withheld_root(scene: Scene) -> None:
    repo = scene.honest.repo
    repo.publish("root")
    repo.timestamp.unrecognized_fields["x-firmroot-root"] = repo.root.version
    repo.publish("timestamp")
    del scene.stolen.files["metadata/3.root.json"]


def _missed_roots(scene: Scene) -> list[bytes]:
    """The device has to catch up to root 5; the whole chain, as the honest bundle has it."""
    repo = scene.honest.repo
    for _ in range(3):
        repo.publish("root")
    repo.timestamp.unrecognized_fields["x-firmroot-root"] = repo.root.version
    repo.publish("timestamp")
    return [repo.files[f"metadata/{version}.root.json"] for version in range(1, 6)]


def _bundle(bend: Callable[[list[bytes]], bytes], scene: Scene) -> None:
    chain = _missed_roots(scene)
    bent = bend(chain)
    assert bent != rootchain.make(chain)
    scene.stolen.files["metadata/root-chain/5"] = bent

    def single_files_were_needed() -> None:
        paths = scene.mirror.paths
        assert paths.index("metadata/root-chain/5") < paths.index("metadata/5.root.json")
        assert paths.count("metadata/root-chain/5") == 1

    scene.afterwards = single_files_were_needed


def _with_a_gap(chain: list[bytes]) -> bytes:
    whole = rootchain.make(chain)
    link = b"4 %d\n%b\n" % (len(chain[3]), chain[3])
    assert whole.count(link) == 1
    return whole.replace(link, b"")


def _of_another_repository(_: list[bytes]) -> bytes:
    repo = RepositorySimulator(epoch=9)
    for _number in range(4):
        repo.publish("root")
    return rootchain.make([repo.files[repo.location("root", n)] for n in range(1, 6)])


for _id, _what, _bend in (
    (
        "forged-link-in-a-bundle",
        "a root-chain bundle with a link that nobody signed",
        lambda chain: rootchain.make([*chain[:4], chain[4].replace(b'"sig":"', b'"sig":"00')]),
    ),
    ("gap-in-a-bundle", "a root-chain bundle that leaves out a link", _with_a_gap),
    ("foreign-bundle", "the root-chain bundle of another repository", _of_another_repository),
    (
        "swapped-links-in-a-bundle",
        "a root-chain bundle whose links stand in another order",
        lambda chain: rootchain.make([*chain[:3], chain[4], chain[3]]),
    ),
    (
        "endless-bundle",
        "a root-chain bundle without an end",
        lambda chain: rootchain.make(chain) + bytes(2 * SEGMENT),
    ),
    (
        "blocks-without-links",
        "a root-chain bundle that names blocks and has no links",
        lambda _: b"firmroot-root-chain 1\nblocks 6 7 8 9 10 11 12\n",
    ),
    ("garbage-bundle", "a root-chain bundle of no form", lambda _: b"\x00" * 5000),
):
    SURFACE.add(
        _id,
        partial(_bundle, _bend),
        _what,
        "design 4, root chain",
        does=UNHARMED,
        says=INSTALLED,
    )


@SURFACE.row(
    "a root-chain bundle that names thousands of blocks, which bring nothing new",
    "design 4, root chain; TUF: endless data",
    does=UNHARMED,
    says=INSTALLED,
)
def endless_blocks(scene: Scene) -> None:
    chain, files = _missed_roots(scene), scene.stolen.files
    blocks = range(10, 9000)
    files |= {f"metadata/root-chain/{end}": rootchain.make(chain[:2]) for end in blocks}
    names = " ".join(str(end) for end in blocks)
    files["metadata/root-chain/5"] = f"firmroot-root-chain 1\nblocks {names}\n9000 1\na\n".encode()

    def two_were_fetched() -> None:
        asked = [path for path in scene.mirror.paths if "root-chain" in path]
        assert asked == ["metadata/root-chain/5", "metadata/root-chain/10"]

    scene.afterwards = two_were_fetched


@SURFACE.row(
    "the newest root is hidden from a device that catches up, in the bundle too",
    "design 4, hints and root chain",
    does=UNHARMED,
    says="root 5 is announced and no mirror has it, the newest here is 4",
)
def hidden_last_link(scene: Scene) -> None:
    chain = _missed_roots(scene)
    scene.stolen.files["metadata/root-chain/5"] = rootchain.make(chain[:4])
    del scene.stolen.files["metadata/5.root.json"]


@SURFACE.row(
    "a timestamp that nobody signed announces root 2^53-1 to a device that catches up",
    "design 4, hints",
    does=UNHARMED,
    says=INSTALLED,
)
def unsigned_hint(scene: Scene) -> None:
    _missed_roots(scene)
    forged = scene.honest.repo.files["metadata/timestamp.json"].replace(
        b'"x-firmroot-root":5', b'"x-firmroot-root":9007199254740991'
    )
    assert b"9007199254740991" in forged
    scene.trouble("timestamp.json", body=forged, times=1)


@SURFACE.row(
    "the mirror fails on the next root, so that it looks like the last",
    "design 4; TUF 5.3.3",
    does=RetryLaterError,
    says="metadata/3.root.json cannot be fetched",
)
def failing_root(scene: Scene) -> None:
    scene.trouble("3.root.json", status=500)


@SURFACE.row(
    "a fork of the chain, by a threshold of a root that was retired since",
    "design 7, stolen-retired-root",
    "root",
    does=BadSignatureError,
    says="root 4 has good signatures of 0 keys of root 3, 2 are needed",
    back=HONEST,
)
def forked_root(scene: Scene) -> None:
    repo = scene.honest.repo
    retired = dict(repo.signers["root"])
    repo.rotate("root")
    repo.publish("root", "timestamp")
    for keyid in retired:
        del repo.signers["root"][keyid]
    assert scene.run("check").code == 0
    scene.stolen.signers["root"] = retired
    scene.stolen.rotate("timestamp")
    scene.stolen.publish("root")


@SURFACE.row(
    "a root in which another holder's key id stands for the thief's key",
    "TUF 4.2, key ids",
    "root:1",
    does=BadSignatureError,
    says="root 3 has good signatures of 1 key of root 2, 2 are needed",
)
def reidentified_root(scene: Scene) -> None:
    own = scene.stolen.new_signer()
    root = scene.stolen.root
    other = next(
        one for one in root.roles["root"].keyids if one not in scene.stolen.signers["root"]
    )
    key = _renamed(own, other)
    root.keys[other] = key.public_key
    scene.stolen.signers["root"][other] = key
    scene.stolen.publish("root")


def _renamed(signer: CryptoSigner, keyid: str) -> CryptoSigner:
    """A signer whose key goes under another id."""
    public = signer.public_key
    named = SSlibKey(keyid, public.keytype, public.scheme, dict(public.keyval))
    return CryptoSigner(signer._private_key, named)


# Keys and signatures


@SURFACE.row(
    "one holder stands in the channel role under two key ids, and their key is stolen",
    "TUF 4.2, key ids",
    f"{STABLE}:1",
    *ONLINE,
    does=BadSignatureError,
    says="gateway-stable has good signatures of 1 key, 2 are needed",
)
def same_key_under_two_ids(scene: Scene) -> None:
    (holder, *_) = scene.honest.repo.signers[STABLE].values()
    assert isinstance(holder, CryptoSigner)
    again = _renamed(holder, "ab" * 32)
    scene.honest.repo.add_key(STABLE, "targets", again)
    scene.honest.repo.publish(STABLE, "targets")
    scene.stolen.signers[STABLE][again.public_key.keyid] = again
    scene.stolen.publish(STABLE)


@SURFACE.row(
    "a key of a type that this client does not know completes the threshold",
    "design 4",
    f"{STABLE}:1",
    *ONLINE,
    does=BadSignatureError,
    says="2 are needed; these keys cannot be used here: cdcdcdcd",
)
def unknown_key_type(scene: Scene) -> None:
    repo = scene.honest.repo
    repo.targets.add_key(SSlibKey("cd" * 32, "falcon", "falcon-512", {"public": "00"}), STABLE)
    repo.publish("targets")
    scene.stolen.role(STABLE).unrecognized_fields["x-thief"] = True
    scene.stolen.publish(STABLE)
    place = scene.stolen.location(STABLE)
    document = json.loads(scene.stolen.files[place])
    document["signatures"].append({"keyid": "cd" * 32, "sig": "00"})
    _replace_listed(scene, STABLE, json.dumps(document).encode())


def _replace_listed(scene: Scene, role: str, data: bytes) -> None:
    """Bytes of a role as they are, listed by snapshot and timestamp."""
    scene.stolen.files[scene.stolen.location(role)] = data
    scene.stolen.note(role, data)
    scene.stolen.publish("snapshot")


@SURFACE.row(
    "a root names keys of a type that this client does not know",
    "design 4",
    means="nothing: a later firmroot",
    does=UNHARMED,
    says=INSTALLED,
)
def root_of_the_future(scene: Scene) -> None:
    repo = scene.honest.repo
    repo.root.add_key(SSlibKey("cd" * 32, "falcon", "falcon-512", {"public": "00"}), "timestamp")
    repo.publish("root", "timestamp")


def _edit_timestamp(edit: Edit, scene: Scene) -> None:
    """Change the honest timestamp without any key."""
    document = json.loads(scene.stolen.files["metadata/timestamp.json"])
    edit(document)
    scene.stolen.files["metadata/timestamp.json"] = json.dumps(document).encode()


_EDITS: tuple[tuple[str, str, Edit, type[FirmrootError], str], ...] = (
    (
        "duplicate-signatures",
        "the same signature twice",
        lambda document: document["signatures"].append(document["signatures"][0]),
        MalformedError,
        "timestamp is not valid TUF metadata: Multiple signatures found for keyid",
    ),
    (
        "no-signatures",
        "the signatures are taken away",
        lambda document: document["signatures"].clear(),
        BadSignatureError,
        "timestamp has good signatures of 0 keys, 1 is needed",
    ),
    (
        "signed-changed",
        "one field is changed",
        lambda document: document["signed"].update(version=99),
        BadSignatureError,
        "timestamp has good signatures of 0 keys, 1 is needed",
    ),
    (
        "true-for-a-version",
        "`true` where the version belongs",
        lambda document: document["signed"].update(version=True),
        MalformedError,
        "expected an integer `version`",
    ),
    (
        "unhashable-type",
        "an object where the type belongs",
        lambda document: document["signed"].update(_type={}),
        MalformedError,
        'timestamp is not valid TUF metadata: unrecognized metadata type "{}"',
    ),
    (
        "control-characters",
        "escape sequences for the terminal of who reads the refusal",
        lambda document: document["signed"].update(_type="\x1b[2J\u202etimestamp"),
        MalformedError,
        "\\x1b[2J\\u202etimestamp",
    ),
)
for _id, _what, _edit, _error, _says in _EDITS:
    SURFACE.add(
        _id,
        partial(_edit_timestamp, _edit),
        f"{_what} (timestamp)",
        "TUF 4.2, 4.3; design 4",
        does=_error,
        says=_says,
    )


@SURFACE.row(
    "a snapshot in the place of the timestamp",
    "TUF 4.3",
    does=MalformedError,
    says="timestamp has the type snapshot, expected timestamp",
)
def other_type(scene: Scene) -> None:
    snapshot = scene.stolen.files[scene.stolen.location("snapshot")]
    scene.stolen.files["metadata/timestamp.json"] = snapshot


# Parsers


def _raw_timestamp(data: bytes, scene: Scene) -> None:
    scene.stolen.files["metadata/timestamp.json"] = data


def _before_the_rest(text: bytes, scene: Scene) -> None:
    """Put members before those of the honest timestamp."""
    honest = scene.stolen.files["metadata/timestamp.json"]
    at = honest.index(b'"signed":{') + len(b'"signed":{')
    _raw_timestamp(honest[:at] + text + honest[at:], scene)


for _id, _what, _mutate, _says in (
    (
        "empty-file",
        "an empty file",
        partial(_raw_timestamp, b""),
        "not valid TUF metadata: Expecting value",
    ),
    (
        "half-a-file",
        "half of the file",
        lambda scene: _raw_timestamp(scene.stolen.files["metadata/timestamp.json"][:200], scene),
        "not valid TUF metadata: Unterminated string",
    ),
    (
        "no-text",
        "bytes that are no text",
        partial(_raw_timestamp, b"\xff\xfe{}"),
        "codec can't decode byte 0xff",
    ),
    (
        "deep-nesting",
        "ten thousand open brackets",
        partial(_raw_timestamp, b"[" * 10_000 + b"]" * 10_000),
        "timestamp is not valid TUF metadata",
    ),
    (
        "nesting",
        "a hundred levels",
        partial(_before_the_rest, b'"x":' + b"[" * 100 + b"]" * 100 + b","),
        "nested deeper than 64",
    ),
    (
        "duplicate-keys",
        "the same name twice",
        partial(_before_the_rest, b'"version":99,'),
        "the same name twice in one object",
    ),
    (
        "huge-number",
        "a number of ten thousand digits",
        partial(_before_the_rest, b'"x":' + b"9" * 10_000 + b","),
        "an integer beyond 2^53-1",
    ),
    (
        "fraction",
        "a number with a fraction",
        partial(_before_the_rest, b'"x":1.5,'),
        "a number that is no integer: 1.5",
    ),
    (
        "not-a-number",
        "a number that is none",
        partial(_before_the_rest, b'"x":NaN,'),
        "a number that is no integer: NaN",
    ),
):
    SURFACE.add(
        _id,
        _mutate,
        f"{_what} (timestamp)",
        "design 4, 8",
        does=MalformedError,
        says=_says,
    )


def _manifest_with(old: bytes, new: bytes, scene: Scene) -> None:
    data = serialize(scene.thief.manifest)
    assert old in data
    scene.manifest(data.replace(old, new))


_MANIFESTS: tuple[tuple[str, str, Mutation, type[FirmrootError], str], ...] = (
    (
        "manifest-duplicate-keys",
        "the same key twice",
        partial(_manifest_with, b'"schema"', b'"channel": "beta", "schema"'),
        MalformedJsonError,
        'found the key "channel" twice',
    ),
    (
        "manifest-huge-number",
        "a sequence of a thousand digits",
        partial(_manifest_with, b'"sequence": 3', b'"sequence": 3' + b"0" * 1000),
        MalformedJsonError,
        "expected an integer from 0 to 2^53-1",
    ),
    (
        "manifest-nesting",
        "forty levels",
        partial(_manifest_with, b'"schema"', b'"x": ' + b"[" * 40 + b"]" * 40 + b', "schema"'),
        MalformedJsonError,
        "at most 32 levels",
    ),
    (
        "manifest-control-characters",
        "escape sequences in the notes",
        partial(_manifest_with, b'"notes": ""', b'"notes": "\\u001b[2J"'),
        MalformedJsonError,
        "expected text without control characters",
    ),
    (
        "manifest-path-traversal",
        "an artifact path that leads out",
        partial(
            _manifest_with,
            b"builds/gateway/1.2/gw2.img",
            b"builds/gateway/1.2/../../../etc/passwd",
        ),
        MalformedJsonError,
        '/../../../etc/passwd", expected a path builds/gateway/VERSION/FILE',
    ),
    (
        "manifest-other-product",
        "an artifact of another product",
        partial(_manifest_with, b"builds/gateway/1.2/", b"builds/sensor/1.2/"),
        MalformedJsonError,
        "builds/sensor/1.2/gw2.img",
    ),
    (
        "manifest-other-channel",
        "it is about another channel",
        partial(_manifest_with, b'"channel": "stable"', b'"channel": "beta"'),
        DisagreementError,
        "channels/gateway/stable.json is about gateway/beta, expected gateway/stable",
    ),
    (
        "manifest-other-schema",
        "a schema that does not exist",
        partial(_manifest_with, b'"schema": [\n    1,', b'"schema": [\n    9,'),
        UnsupportedSchemaError,
        "found major schema 9, expected 1",
    ),
    (
        "manifest-endless",
        "a megabyte",
        lambda scene: scene.manifest(serialize(scene.thief.manifest) + b" " * SEGMENT),
        MismatchError,
        "expected at most 262144",
    ),
)
for _id, _what, _mutate, _error, _says in _MANIFESTS:
    SURFACE.add(
        _id,
        _mutate,
        f"{_what} (manifest)",
        "design 4, 8; format",
        STABLE,
        *ONLINE,
        does=_error,
        says=_says,
    )


# Roles and paths


@SURFACE.row(
    "the builds role lists a manifest of its own",
    "design 4, Guard (shadowing)",
    BUILDS,
    *ONLINE,
    does=UNHARMED,
    says=INSTALLED,
)
def shadowed_manifest(scene: Scene) -> None:
    forged = replace(scene.thief.manifest, releases=())
    scene.stolen.add_target(BUILDS, MANIFEST, serialize(forged))
    scene.stolen.publish(BUILDS)


@SURFACE.row(
    "a role before the channel's lists a manifest; its name leads out of the repository",
    "design 4, Guard (shadowing); path traversal in role names",
    "targets",
    *ONLINE,
    does=UNHARMED,
    says=INSTALLED,
)
def shadowing_role(scene: Scene) -> None:
    name = "../../../../etc/passwd"
    scene.stolen.delegate(name, [MANIFEST])
    delegations = scene.stolen.targets.delegations
    assert delegations is not None
    assert delegations.roles is not None
    delegations.roles = {name: delegations.roles.pop(name), **delegations.roles}
    forged = replace(scene.thief.manifest, releases=())
    scene.stolen.role(name).targets.update(scene.stolen.role(STABLE).targets)
    scene.stolen.add_target(name, MANIFEST, serialize(forged))
    scene.stolen.publish(name, "targets")


@SURFACE.row(
    "the builds role lists an artifact under a path that leads out of the repository",
    "path traversal in target names",
    BUILDS,
    *ONLINE,
    does=UNHARMED,
    says=INSTALLED,
)
def target_path_traversal(scene: Scene) -> None:
    targets = scene.stolen.role(BUILDS).targets
    entry = targets["builds/gateway/1.2/gw2.img"]
    targets["builds/../../../../etc/passwd"] = _under(entry, "builds/../../../../etc/passwd")
    scene.stolen.publish(BUILDS)


def _under(entry: Any, path: str) -> Any:  # noqa: ANN401 # a target file of tuf
    """The same target under another path."""
    return type(entry)(entry.length, entry.hashes, path, entry.unrecognized_fields)


def _delegates(role: str, to: str, scene: Scene) -> None:
    own = scene.stolen.new_signer()
    key = own.public_key
    paths = [MANIFEST, "builds/gateway/*/*"]
    delegation = DelegatedRole(to, [key.keyid], 1, terminating=True, paths=paths)
    scene.stolen.role(role).delegations = Delegations({key.keyid: key}, {to: delegation})
    scene.stolen.publish(role)


for _id, _role, _to, _what in (
    ("leaf-delegates", STABLE, "thief", "the channel role lends its path to a key of the thief's"),
    ("colliding-role", BUILDS, STABLE, "the builds role delegates to another gateway-stable"),
):
    SURFACE.add(
        _id,
        partial(_delegates, _role, _to),
        _what,
        "design 4, Guard (shadowing)",
        _role,
        *ONLINE,
        does=DelegationError,
        says=f"{_role} delegates to other roles, expected a leaf role",
    )


@SURFACE.row(
    "the builds role is cut into hash bins, and a key of the thief's signs them, for later",
    "design 4, Guard (shadowing)",
    BUILDS,
    *ONLINE,
    does=DelegationError,
    says=f"{BUILDS} gives its hash bins other keys or another threshold than it has itself",
)
def bins_of_a_thief(scene: Scene) -> None:
    own, builds = scene.stolen.new_signer(), scene.stolen.role(BUILDS)
    key = own.public_key
    bins = SuccinctRoles([key.keyid], 1, 2, bin_prefix(BUILDS))
    builds.delegations, builds.targets = Delegations({key.keyid: key}, succinct_roles=bins), {}
    scene.stolen.publish(BUILDS)


@SURFACE.row(
    "targets names two roles by one name",
    "design 4, Guard (shadowing)",
    "targets",
    *ONLINE,
    does=MalformedError,
    says="targets is not valid TUF metadata: Duplicate role gateway-stable",
)
def role_named_twice(scene: Scene) -> None:
    scene.stolen.targets.version += 1
    signed = scene.stolen.targets.to_dict()
    roles = signed["delegations"]["roles"]
    roles.insert(0, {**roles[0], "paths": ["*"]})
    scene.sign_document("targets", signed)
    scene.stolen.publish("snapshot")


@SURFACE.row(
    "metadata of another role, with the signatures of that role",
    "TUF 5.6.3",
    *ONLINE,
    does=BadSignatureError,
    says="gateway-stable has good signatures of 0 keys, 2 are needed",
)
def other_role(scene: Scene) -> None:
    other = scene.stolen.files[scene.stolen.location(TLS)]
    scene.stolen.role(STABLE).version = scene.stolen.role(TLS).version
    scene.stolen.snapshot.meta.clear()
    scene.stolen.snapshot.meta.update(scene.honest.repo.snapshot.meta)
    scene.stolen.role(STABLE).version += 10
    _replace_listed(scene, STABLE, other)


@SURFACE.row(
    "the timestamp lists the snapshot with a weak hash only",
    "TUF 5.5.2; design 4",
    "timestamp",
    does=MismatchError,
    says="snapshot is listed with weak hashes only: md5",
)
def weak_hashes(scene: Scene) -> None:
    version = scene.stolen.snapshot.version
    scene.stolen.timestamp.snapshot_meta = MetaFile(version, hashes={"md5": "00" * 16})
    scene.stolen.publish("timestamp")


@SURFACE.row(
    "new bytes under the path, version and sequence of the release that is installed",
    "design 4, Guard (meaning)",
    STABLE,
    BUILDS,
    *ONLINE,
    does=Reason.UP_TO_DATE,
    says="1.1 is installed and is the newest release of the channel",
)
def reused_path(scene: Scene) -> None:
    first, second, _ = scene.thief.manifest.releases
    artifact = scene.thief.artifact("1.1", 2, scene.evil)
    (payload,) = second.payloads
    second = replace(second, payloads=(replace(payload, artifact=artifact),))
    scene.stolen.publish(BUILDS)
    scene.manifest(serialize(replace(scene.thief.manifest, releases=(first, second))))


@SURFACE.row(
    "another channel, that is behind",
    "design 9: selection",
    means="the device's channel setting",
    does=Reason.OLDER,
    says="1.0 (sequence 1) is not installed: sequence 2 is installed",
    back=Back("the channel that it had", lambda scene: scene.configure()),
)
def other_channel(scene: Scene) -> None:
    repo = scene.honest.repo
    manifest = Manifest("gateway", "beta", 0, scene.honest.manifest.releases[:1])
    repo.delegate("gateway-beta", ["channels/gateway/beta.json"])
    repo.add_target("gateway-beta", "channels/gateway/beta.json", serialize(manifest))
    repo.publish("gateway-beta", "targets")
    config = scene.device.config
    config.write_text(config.read_text().replace('channel = "stable"', 'channel = "beta"'))


# The timestamp's hints and the time floor


def _timestamp_says(fields: dict[str, Any], scene: Scene) -> None:
    scene.stolen.timestamp.unrecognized_fields.update(fields)
    scene.stolen.publish("timestamp")


for _id, _what, _fields, _says in (
    (
        "hint-of-a-far-root",
        "the newest root is 2^53-1",
        {"x-firmroot-root": 2**53 - 1},
        "root 9007199254740991 is announced and no mirror has it",
    ),
    ("hint-of-a-past-root", "the newest root is -1", {"x-firmroot-root": -1}, INSTALLED),
    ("hint-of-a-far-epoch", "the epoch is 2^53-1", {"x-firmroot-epoch": 2**53 - 1}, INSTALLED),
    (
        "hints-of-other-types",
        "hints that are no numbers",
        {"x-firmroot-root": ["../../etc/passwd"], "x-firmroot-epoch": True},
        INSTALLED,
    ),
):
    SURFACE.add(
        _id,
        partial(_timestamp_says, _fields),
        f"{_what}, says the timestamp",
        "design 4, hints",
        "timestamp",
        does=UNHARMED,
        says=_says,
    )

_TIMES: tuple[tuple[str, str, object, type[FirmrootError], str], ...] = (
    (
        "issued-in-the-far-future",
        "it was issued in 9999, says the timestamp",
        "9999-12-31T23:59:59Z",
        MismatchError,
        "timestamp says it was issued at 9999-12-31T23:59:59Z, which is not before timestamp",
    ),
    (
        "issued-at-no-time",
        "it was issued at no time, says the timestamp",
        ["soon"],
        MalformedError,
        "x-firmroot-issued of timestamp is ['soon'], expected YYYY-MM-DDTHH:MM:SSZ",
    ),
)
for _id, _what, _value, _error, _says in _TIMES:
    SURFACE.add(
        _id,
        partial(_timestamp_says, {ISSUED: _value}),
        _what,
        "design 5, Guard (poisoning)",
        "timestamp",
        does=_error,
        says=_says,
        back=HONEST,
    )


@SURFACE.row(
    "it was issued in 9998 and ends in 9999, says the timestamp",
    "design 5, Guard (poisoning)",
    "timestamp",
    does=MismatchError,
    says="timestamp says it was issued at 9998-12-31T23:59:59Z, which is not before root expires",
    back=HONEST,
)
def issued_after_the_root_ends(scene: Scene) -> None:
    scene.stolen.timestamp.expires = datetime(9999, 12, 31, tzinfo=UTC)
    _timestamp_says({ISSUED: "9998-12-31T23:59:59Z"}, scene)


def _forget_the_poison(scene: Scene) -> None:
    exchanged(*ONLINE).step(scene)
    scene.serve(scene.honest.repo.files)
    checked = scene.run("check")
    assert checked.code == 0, checked.err
    assert "freshness unproven" not in checked.err
    assert scene.status()["time_floor"] < POISON


@SURFACE.row(
    "the floor is raised as far as the online keys can, a second before the root expires",
    "design 5, Guard (poisoning)",
    *ONLINE,
    does=UNHARMED,
    says="unproven: this device's clock says 2031-05-14T12:00:00Z, signed evidence is later",
    back=Back(exchanged(*ONLINE).by, _forget_the_poison),
)
def poisoned_floor(scene: Scene) -> None:
    for role in (scene.stolen.timestamp, scene.stolen.snapshot):
        role.expires = scene.stolen.later(days=3000)
    scene.stolen.timestamp.unrecognized_fields[ISSUED] = POISON
    scene.stolen.publish("snapshot")


# Transport


@SURFACE.row(
    "304 for something that was not asked for conditionally",
    "design 8, forged 304",
    does=RetryLaterError,
    says="answered 304",
)
def forged_304(scene: Scene) -> None:
    scene.trouble(status=304)


def _asks_with_a_condition(scene: Scene) -> None:
    """The device has an ETag of this mirror, which answers "not modified" from now on."""
    scene.mirror.etags = True
    scene.serve(scene.seen)
    assert scene.run("check").code == 0
    scene.results.clear()
    scene.mirror.seen.clear()
    scene.serve(scene.honest.repo.files)
    scene.trouble("timestamp.json", status=304)

    def it_was_asked_with_one() -> None:
        asked = [one for one in scene.mirror.seen if one.path.endswith("timestamp.json")]
        assert asked[0].headers["If-None-Match"]
        assert not any(one.headers["If-None-Match"] for one in asked[1:])

    scene.afterwards = it_was_asked_with_one


@SURFACE.row(
    "304 for something that was asked for conditionally and has changed",
    "design 8, forged 304; TUF: indefinite freeze",
    does=Reason.UP_TO_DATE,
    says="1.1 is installed and is the newest release of the channel",
)
def freeze_by_304(scene: Scene) -> None:
    _asks_with_a_condition(scene)


@SURFACE.row(
    "the same, until the timestamp has expired",
    "design 8, forged 304; TUF: indefinite freeze (5.4.4)",
    does=ExpiredError,
    says="timestamp expired at 2031-06-13T10:00:00Z, it is 2031-07-01T00:00:00Z here",
)
def freeze_by_304_until_expiry(scene: Scene) -> None:
    _asks_with_a_condition(scene)
    later_the_same_year(scene)


def _gzip(data: bytes, scene: Scene) -> None:
    scene.trouble("timestamp.json", body=data, headers={"Content-Encoding": "gzip"})


@SURFACE.row(
    "a few bytes of gzip that inflate to megabytes (timestamp)",
    "TUF: endless data; design 8, gzip",
    does=NotTrustedError,
    says="is longer than the 65536 bytes allowed",
)
def gzip_bomb(scene: Scene) -> None:
    _gzip(gzip.compress(bytes(2**23), 9), scene)


@SURFACE.row(
    "gzip that ends early (timestamp)",
    "design 8, gzip",
    does=RetryLaterError,
    says="the gzip that it sent ended early",
)
def truncated_gzip(scene: Scene) -> None:
    _gzip(gzip.compress(scene.honest.repo.files["metadata/timestamp.json"])[:-4], scene)


@SURFACE.row(
    "the proxy alters the artifact",
    "design 8, proxies; TUF: arbitrary software",
    means="the only proxy",
    does=BadSegmentError,
    says="are not the bytes that were signed for, twice in a row; nothing of them was written",
)
def altering_proxy(scene: Scene) -> None:
    scene.through_a_proxy()
    scene.stolen.files[scene.place_of("1.2")] = scene.evil


@SURFACE.row(
    "the proxy sends its own timestamp",
    "design 8, proxies; TUF: arbitrary software",
    means="the only proxy",
    does=BadSignatureError,
    says="timestamp has good signatures of 0 keys, 1 is needed",
)
def forging_proxy(scene: Scene) -> None:
    scene.through_a_proxy()
    _edit_timestamp(lambda document: document["signed"].update(version=99), scene)


@SURFACE.row(
    "a redirect to another host",
    "design 8, redirects",
    does=RetryLaterError,
    says="redirects to 'http://thief.example/timestamp.json', which is no configured mirror",
)
def redirect(scene: Scene) -> None:
    location = {"Location": "http://thief.example/timestamp.json"}
    scene.trouble("timestamp.json", status=302, headers=location)


@SURFACE.row(
    "a redirect to a place with escape sequences in its name",
    "design 8, redirects",
    does=RetryLaterError,
    says="which is no configured mirror",
)
def redirect_with_control_characters(scene: Scene) -> None:
    location = {"Location": "http://thief.example/\x1b[2J\x9b"}
    scene.trouble("timestamp.json", status=302, headers=location)


@SURFACE.row(
    "a redirect to itself",
    "design 8, redirects",
    does=RetryLaterError,
    says="redirects more than 3 times",
)
def redirect_for_ever(scene: Scene) -> None:
    location = {"Location": "timestamp.json"}
    scene.trouble("timestamp.json", status=302, headers=location)


@SURFACE.row(
    "more headers than anybody needs",
    "TUF: endless data",
    does=RetryLaterError,
    says="got more than 100 headers",
)
def endless_headers(scene: Scene) -> None:
    scene.trouble("timestamp.json", headers={f"X-{number}": "x" for number in range(200)})


@SURFACE.row(
    "another range of the artifact than was asked for",
    "design 8, resume",
    does=RetryLaterError,
    says="answered from byte 17, asked for 0",
)
def other_range(scene: Scene) -> None:
    scene.trouble(".img", wrong_range=17)


@SURFACE.row(
    "a web page with status 200",
    "design 8, captive portals",
    does=WebPageError,
    says="Expected JSON, found HTML with status 200",
)
def captive_portal(scene: Scene) -> None:
    scene.trouble(body=b"<html>Welcome</html>", headers={"Content-Type": "text/html"})


# Bytes towards the installer


def _flip_in_the_second_segment(scene: Scene) -> None:
    scene.trouble(".img", flip=SEGMENT + 3)


SURFACE.add(
    "altered-segment",
    _flip_in_the_second_segment,
    "one bit of the second segment is flipped, every time",
    "design 4, Guard (segments)",
    does=BadSegmentError,
    says="bytes 1048576 to 1048592 of targets/builds/gateway/1.2/",
)


@SURFACE.row(
    "the same, for a handler that is a command",
    "design 4, Guard (segments)",
    does=BadSegmentError,
    says="bytes 1048576 to 1048592 of targets/builds/gateway/1.3/",
)
def altered_segment_for_a_command(scene: Scene) -> None:
    scene.use_command()
    scene.honest.release("1.3", 4, IMAGES["1.2"], _for_a_command, handler="command")
    _flip_in_the_second_segment(scene)


def _for_a_command(release: Release) -> Release:
    (payload,) = release.payloads
    return replace(release, payloads=(replace(payload, handler="command"),))


@SURFACE.row(
    "another list of segments, of other bytes",
    "design 4, Guard (segments)",
    does=MismatchError,
    says=".segments is not the file that was signed for",
)
def altered_list(scene: Scene) -> None:
    scene.stolen.files[scene.place_of("1.2", SUFFIX)] = bytes(64)


@SURFACE.row(
    "the list of segments of another artifact",
    "design 4, Guard (segments)",
    BUILDS,
    *ONLINE,
    does=DisagreementError,
    says="is not marked as the segments of builds/gateway/1.2/gw2.img",
)
def swapped_list(scene: Scene) -> None:
    targets = scene.stolen.role(BUILDS).targets
    other = targets["builds/gateway/1.0/gw2.img" + SUFFIX]
    path = "builds/gateway/1.2/gw2.img" + SUFFIX
    targets[path] = _under(other, path)
    scene.stolen.publish(BUILDS)


def _list_of_evil(scene: Scene) -> None:
    """The builds role lists segments of other bytes beside the honest artifact, and serves them."""
    builds = scene.stolen.role(BUILDS)
    path = "builds/gateway/1.2/gw2.img"
    artifact = builds.targets[path]
    scene.thief.artifact("1.2", 3, scene.evil)
    builds.targets[path] = artifact
    scene.stolen.publish(BUILDS)
    scene.stolen.files[scene.place_of("1.2")] = scene.evil


SURFACE.add(
    "list-of-other-bytes",
    _list_of_evil,
    "a signed list of segments of other bytes, and those bytes",
    "design 4, Guard (segments)",
    BUILDS,
    *ONLINE,
    does=BadSegmentError,
    says="though every segment matched its list",
    writes=True,
)


@SURFACE.row(
    "an artifact of a petabyte, whose list of segments alone has 32 GiB",
    "TUF: endless data; design 4, Guard (segments)",
    STABLE,
    BUILDS,
    *ONLINE,
    does=RefusedError,
    says="has 1125899906842624 bytes, firmroot installs at most 274877906944",
)
def endless_list(scene: Scene) -> None:
    targets = scene.stolen.role(BUILDS).targets
    path = "builds/gateway/1.2/gw2.img"
    targets[path].length = 2**50
    targets[path + SUFFIX].length = 2**35

    def edit(release: Release) -> Release:
        (payload,) = release.payloads
        artifact = replace(payload.artifact, length=2**50)
        return replace(release, payloads=(replace(payload, artifact=artifact),))

    scene.stolen.publish(BUILDS)
    scene.offer(edit)


# Releases that were stopped


@SURFACE.row(
    "a hold is withheld",
    "design 4, roles",
    does=NotFoundError,
    says="the mirror lacks version 2 of gateway-stable-hold, which signed metadata list",
)
def withheld_hold(scene: Scene) -> None:
    scene.honest.hold(3)
    del scene.stolen.files[scene.stolen.location(HOLD)]


@SURFACE.row(
    "a hold that the device knows is lifted by an older version of its role",
    "design 4, roles; TUF 5.5.5",
    *ONLINE,
    does=RollbackError,
    says="gateway-stable-hold.json in the snapshot has version 1, expected at least 2",
)
def rollback_hold(scene: Scene) -> None:
    scene.honest.hold(3)
    assert scene.run("check").code == 0
    scene.stolen.snapshot.meta[f"{HOLD}.json"] = MetaFile(1)
    scene.stolen.publish("snapshot")


@SURFACE.row(
    "a release is staged, then withdrawn",
    "interfaces, rule 6",
    means="nothing: an order of events",
    does=Reason.WITHDRAWN,
    says="1.2 (sequence 3) is not installed: it was withdrawn: it hangs",
)
def withdrawn_when_staged(scene: Scene) -> None:
    assert scene.run("update", "--download-only").code == 0
    scene.results.clear()
    _withdraw(scene)


def _withdraw(scene: Scene) -> None:
    entry = Withdrawn("1.2", 3, NOW, "it hangs")
    scene.honest.promote(*scene.honest.manifest.releases, withdrawn=(entry,))


@SURFACE.row(
    "a release is staged, then held",
    "design 4, roles",
    means="nothing: an order of events",
    does=Reason.HELD,
    says="1.2 (sequence 3) is not installed: it is on hold",
)
def held_when_staged(scene: Scene) -> None:
    assert scene.run("update", "--download-only").code == 0
    scene.results.clear()
    scene.honest.hold(3)


@SURFACE.row(
    "what was published before a withdrawal is replayed",
    "interfaces, rule 6",
    does=RollbackError,
    says="timestamp has version 8, expected at least 9 (5.4.3.1)",
)
def replay_before_withdrawal(scene: Scene) -> None:
    before = dict(scene.honest.repo.files)
    _withdraw(scene)
    assert scene.run("check").code == 0
    scene.serve(before)
