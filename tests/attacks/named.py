"""The attacks that the TUF specification (1.5.2) and the Uptane standard (4.2) name."""

from __future__ import annotations

import itertools
from collections import ChainMap
from dataclasses import replace
from functools import partial

from tuf.api.metadata import Metadata, MetaFile, Timestamp

from client_reference.errors import NotFoundError, NotTrustedError, RetryLaterError
from client_reference.manifest import Manifest, Payload, Release, serialize
from client_reference.payload.download import BadSegmentError
from client_reference.payload.segments import SEGMENT
from client_reference.selection import Reason
from client_reference.trust.verified import (
    BadSignatureError,
    ExpiredError,
    MalformedError,
    MismatchError,
    RollbackError,
)
from client_reference.update import DisagreementError
from tests.attacks.scene import BUILDS, HOLD, IMAGES, STABLE, Back, Scene, later_the_same_year
from tests.attacks.table import FALLS, HONEST, ONLINE, UNHARMED, Chapter

NAMED = Chapter("What TUF and Uptane name")


# Arbitrary software


@NAMED.row(
    "other bytes in the place of the artifact",
    "TUF: arbitrary software",
    does=BadSegmentError,
    says="are not the bytes that were signed for, twice in a row; nothing of them was written",
)
def arbitrary_software(scene: Scene) -> None:
    scene.stolen.files[scene.place_of("1.2")] = scene.evil


@NAMED.row(
    "a whole repository with other keys",
    "TUF: arbitrary software",
    does=BadSignatureError,
    says="root 3 has good signatures of 0 keys of root 2, 2 are needed",
)
def arbitrary_repository(scene: Scene) -> None:
    for role in ("root", "targets", "snapshot", "timestamp"):
        scene.stolen.rotate(role)
    scene.stolen.publish("root")
    scene.stolen.publish("targets")


@NAMED.row(
    "a timestamp signed with some other key",
    "TUF: arbitrary software",
    does=BadSignatureError,
    says="timestamp has good signatures of 0 keys, 1 is needed",
)
def arbitrary_timestamp(scene: Scene) -> None:
    stranger = scene.stolen.new_signer()
    scene.stolen.signers["timestamp"] = {stranger.public_key.keyid: stranger}
    scene.stolen.publish("timestamp")


# Rollback


@NAMED.row(
    "an older root in the place of the next one",
    "TUF: rollback (5.3.5)",
    does=MismatchError,
    says="root has version 2, expected 3",
)
def rollback_root(scene: Scene) -> None:
    files = scene.stolen.files
    files["metadata/3.root.json"] = files["metadata/2.root.json"]


@NAMED.row(
    "an older timestamp, with all that it names",
    "TUF: rollback (5.4.3.1)",
    does=RollbackError,
    says="timestamp has version 4, expected at least 6 (5.4.3.1)",
)
def rollback_timestamp(scene: Scene) -> None:
    scene.serve(scene.first)


@NAMED.row(
    "a new timestamp that names an older snapshot",
    "TUF: rollback (5.4.3.2)",
    "timestamp",
    does=RollbackError,
    says="the timestamp's snapshot has version 4, expected at least 6 (5.4.3.2)",
    back=HONEST,
)
def rollback_snapshot(scene: Scene) -> None:
    older = Metadata[Timestamp].from_bytes(scene.first["metadata/timestamp.json"]).signed
    scene.stolen.timestamp.snapshot_meta = older.snapshot_meta
    scene.stolen.publish("timestamp")


def _older_role(role: str, scene: Scene) -> None:
    scene.stolen.snapshot.meta[f"{role}.json"] = MetaFile(1)
    scene.stolen.publish("snapshot")


for _role in ("targets", STABLE, BUILDS):
    NAMED.add(
        f"rollback-{_role}",
        partial(_older_role, _role),
        f"a new snapshot that lists an older {_role}",
        "TUF: rollback (5.5.5)",
        *ONLINE,
        does=RollbackError,
        says=f"{_role}.json in the snapshot has version 1, expected at least",
    )


@NAMED.row(
    "a new snapshot that leaves out the holds",
    "TUF: rollback (5.5.5)",
    *ONLINE,
    does=RollbackError,
    says="gateway-stable-hold.json is missing from the new snapshot",
)
def rollback_by_omission(scene: Scene) -> None:
    del scene.stolen.snapshot.meta[f"{HOLD}.json"]
    scene.stolen.publish("snapshot")


@NAMED.row(
    "a new manifest that offers only an older release",
    "Uptane: rollback",
    STABLE,
    *ONLINE,
    does=Reason.OLDER,
    says="1.0 (sequence 1) is not installed: sequence 2 is installed",
)
def rollback_release(scene: Scene) -> None:
    oldest = scene.thief.manifest.releases[0]
    scene.manifest(serialize(replace(scene.thief.manifest, releases=(oldest,))))


# Freeze


@NAMED.row(
    "the mirror stands still, nothing has expired yet",
    "TUF: indefinite freeze",
    does=Reason.UP_TO_DATE,
    says="1.1 is installed and is the newest release of the channel",
)
def freeze_before_expiry(scene: Scene) -> None:
    scene.serve(scene.seen)


@NAMED.row(
    "the mirror stands still until the timestamp has expired",
    "TUF: indefinite freeze (5.4.4)",
    does=ExpiredError,
    says="timestamp expired at 2031-06-13T10:00:00Z, it is 2031-07-01T00:00:00Z here",
)
def freeze(scene: Scene) -> None:
    scene.serve(scene.seen)
    later_the_same_year(scene)


@NAMED.row(
    "a stolen timestamp key keeps an old snapshot alive",
    "TUF: indefinite freeze (5.5.6)",
    "timestamp",
    does=ExpiredError,
    says="snapshot expired at 2031-06-13T10:00:00Z, it is 2031-07-01T00:00:00Z here",
)
def freeze_with_timestamp_key(scene: Scene) -> None:
    seen = Metadata[Timestamp].from_bytes(scene.seen["metadata/timestamp.json"]).signed
    scene.stolen.timestamp.snapshot_meta = seen.snapshot_meta
    scene.stolen.timestamp.expires = scene.stolen.later(days=3000)
    scene.stolen.publish("timestamp")
    later_the_same_year(scene)


@NAMED.row(
    "the timestamp moves on, the snapshot that it names is withheld",
    "Uptane: partial freeze",
    does=NotFoundError,
    says="the mirror lacks version 8 of snapshot, which signed metadata list",
)
def partial_freeze(scene: Scene) -> None:
    del scene.stolen.files[scene.stolen.location("snapshot")]


@NAMED.row(
    "the device's clock is set back, and the mirror stands still",
    "TUF: indefinite freeze; design 5",
    means="network, clock",
    does=Reason.UP_TO_DATE,
    says="freshness unproven: this device's clock says 1970-01-01T00:00:00Z",
)
def freeze_with_clock_of_1970(scene: Scene) -> None:
    scene.serve(scene.seen)
    scene.device.now = "1970-01-01T00:00:00Z"


def _right_clock(scene: Scene) -> None:
    scene.device.now = "2031-05-14T13:00:00Z"


@NAMED.row(
    "the device's clock is set far ahead",
    "design 5",
    means="clock",
    does=ExpiredError,
    says="your clock or a frozen mirror: set the clock if it is wrong",
    back=Back("the right clock", _right_clock),
)
def clock_of_2040(scene: Scene) -> None:
    scene.device.now = "2040-01-01T00:00:00Z"


# Mix and match


@NAMED.row(
    "an older snapshot under the name of the new one",
    "TUF: mix-and-match (5.5.2)",
    does=MismatchError,
    says="snapshot is not the file that was signed for",
)
def mixed_snapshot(scene: Scene) -> None:
    place = scene.stolen.location("snapshot")
    scene.stolen.files[place] = scene.seen["metadata/6.snapshot.json"]


@NAMED.row(
    "an older builds role under the name of the new one",
    "TUF: mix-and-match (5.6.2)",
    does=MismatchError,
    says="gateway-builds is not the file that was signed for",
)
def mixed_builds(scene: Scene) -> None:
    version = scene.stolen.role(BUILDS).version
    older = scene.seen[f"metadata/{version - 1}.{BUILDS}.json"]
    scene.stolen.files[f"metadata/{version}.{BUILDS}.json"] = older


@NAMED.row(
    "the artifact of another release, in the place of the new one",
    "TUF: mix-and-match; Uptane: mixed bundles",
    does=BadSegmentError,
    says="are not the bytes that were signed for, twice in a row; nothing of them was written",
)
def mixed_artifact(scene: Scene) -> None:
    scene.stolen.files[scene.place_of("1.2")] = IMAGES["1.0"]


# Fast-forward


@NAMED.row(
    "the highest version there is, for the timestamp",
    "TUF: fast-forward (5.3.11)",
    "timestamp",
    does=UNHARMED,
    says="1.2 (sequence 3) runs on trial",
)
def fast_forward_timestamp(scene: Scene) -> None:
    scene.stolen.timestamp.version = 2**53 - 2
    scene.stolen.publish("timestamp")


@NAMED.row(
    "the highest version there is, for the snapshot",
    "TUF: fast-forward (5.3.11)",
    *ONLINE,
    does=UNHARMED,
    says="1.2 (sequence 3) runs on trial",
)
def fast_forward_snapshot(scene: Scene) -> None:
    scene.stolen.snapshot.version = 2**53 - 2
    scene.stolen.publish("snapshot")


@NAMED.row(
    "the snapshot lists a version of the channel role that nobody signed",
    "TUF: fast-forward (5.3.11); design 4",
    *ONLINE,
    does=NotFoundError,
    says="the mirror lacks version 9007199254740991 of gateway-stable, which signed metadata list",
)
def fast_forward_role(scene: Scene) -> None:
    scene.stolen.snapshot.meta[f"{STABLE}.json"] = MetaFile(2**53 - 1)
    scene.stolen.publish("snapshot")


@NAMED.row(
    "a version beyond 2^53-1",
    "TUF: fast-forward; design 4",
    "timestamp",
    does=MalformedError,
    says="timestamp is not valid TUF metadata: an integer beyond 2^53-1",
    back=HONEST,
)
def fast_forward_beyond(scene: Scene) -> None:
    scene.stolen.timestamp.version = 2**53 - 1
    scene.stolen.publish("timestamp")


@NAMED.row(
    "a release with the highest sequence there is, and its build",
    "TUF: fast-forward; design 4",
    STABLE,
    BUILDS,
    *ONLINE,
    does=FALLS,
    says="6.6 (sequence 9007199254740991) runs on trial",
)
def fast_forward_sequence(scene: Scene) -> None:
    scene.thief.release("6.6", 2**53 - 1, scene.evil)


# Endless data, slow retrieval


def _endless(path: str, length: int, scene: Scene) -> None:
    scene.trouble(path, body=b"x" * (length + 1), announce=False)


for _role, _path, _length, _most in (
    ("root", "3.root.json", 512_000, "the 512000"),
    ("timestamp", "timestamp.json", 65_536, "the 65536"),
    ("snapshot", "snapshot.json", 2_000_000, ""),
    ("targets", "targets.json", 5_000_000, ""),
    (STABLE, f"{STABLE}.json", 5_000_000, ""),
):
    NAMED.add(
        f"endless-{_role}",
        partial(_endless, _path, _length),
        f"a {_role} file without an end",
        "TUF: endless data",
        does=NotTrustedError,
        says=f"is longer than {_most} bytes allowed" if _most else "bytes allowed",
    )


@NAMED.row(
    "an artifact without an end",
    "TUF: endless data",
    does=UNHARMED,
    says="1.2 (sequence 3) runs on trial",
)
def endless_artifact(scene: Scene) -> None:
    body = IMAGES["1.2"] + bytes(2 * SEGMENT)
    scene.trouble("/1.2/" + scene.place_of("1.2").rpartition("/")[2], body=body, ranges=False)


def _slow(path: str, scene: Scene) -> None:
    """Each look at the clock is 5 s after the one before, so that no test waits."""
    ticks = itertools.count(0, 5)
    scene.ambient(lambda: float(next(ticks)))
    scene.trouble(path, drip=0.001)


for _what, _path in (("timestamp", "timestamp.json"), ("artifact", ".img")):
    NAMED.add(
        f"slow-{_what}",
        partial(_slow, _path),
        f"{'an' if _what == 'artifact' else 'a'} {_what} byte by byte",
        "TUF: slow retrieval",
        does=RetryLaterError,
        says="slower than download.minimum_rate",
    )


# Wrong software, extraneous dependencies


@NAMED.row(
    "a release for other hardware",
    "TUF: wrong software",
    STABLE,
    *ONLINE,
    does=Reason.HARDWARE,
    says="it has no payload for this hardware (acme,gw-2)",
)
def wrong_hardware(scene: Scene) -> None:
    def edit(release: Release) -> Release:
        (payload,) = release.payloads
        return replace(release, payloads=(replace(payload, hardware=("acme,gw-3",)),))

    scene.offer(edit)


@NAMED.row(
    "an artifact that was built for other hardware",
    "TUF: wrong software; Uptane: mixed bundles",
    STABLE,
    *ONLINE,
    does=DisagreementError,
    says="the role gateway-builds says hardware ['acme,gw-3'], the channel says ['acme,gw-2']",
)
def wrong_artifact(scene: Scene) -> None:
    def edit(release: Release) -> Release:
        return replace(release, payloads=(Payload(("acme,gw-2",), "slot", other),))

    other = scene.honest.artifact("1.3", 4, scene.evil, hardware=frozenset({"acme,gw-3"}))
    scene.honest.repo.publish(BUILDS)
    scene.offer(edit)


@NAMED.row(
    "the build names further things to install",
    "TUF: extraneous dependencies",
    BUILDS,
    *ONLINE,
    does=UNHARMED,
    says="1.2 (sequence 3) runs on trial",
)
def extraneous_dependency(scene: Scene) -> None:
    builds = scene.stolen.role(BUILDS)
    path = "builds/gateway/1.2/gw2.img"
    builds.targets[path].custom["needs"] = ["builds/gateway/6.6/gw2.img"]
    builds.targets[path].custom["depends"] = ["builds/gateway/6.6/gw2.img"]
    scene.thief.artifact("6.6", 66, scene.evil)
    scene.stolen.publish(BUILDS)


@NAMED.row(
    "a stepping stone before the release, that nobody built",
    "TUF: extraneous dependencies",
    STABLE,
    *ONLINE,
    does=DisagreementError,
    says="the channel offers builds/gateway/0.5/gw2.img, which the role gateway-builds",
)
def extraneous_stone(scene: Scene) -> None:
    *before, newest = scene.thief.manifest.releases
    (payload,) = newest.payloads
    artifact = replace(payload.artifact, path="builds/gateway/0.5/gw2.img")
    stone = replace(
        newest,
        version="0.5",
        sequence=7,
        stone=True,
        payloads=(replace(payload, artifact=artifact),),
    )
    newest = replace(newest, sequence=8, from_sequence=7)
    releases = (*before, stone, newest)
    manifest: Manifest = replace(scene.thief.manifest, releases=releases)
    scene.manifest(serialize(manifest))


# Malicious mirrors, dropped requests, part of a bundle


@NAMED.row(
    "the first mirror forges",
    "TUF: malicious mirror",
    means="one of two mirrors",
    does=UNHARMED,
    says="1.2 (sequence 3) runs on trial",
)
def malicious_mirror(scene: Scene) -> None:
    files = dict(scene.honest.repo.files)
    files["metadata/timestamp.json"] = files["metadata/1.snapshot.json"]
    scene.configure(scene.another_mirror(files))


@NAMED.row(
    "the first mirror has nothing",
    "TUF: malicious mirror",
    means="one of two mirrors",
    does=UNHARMED,
    says="1.2 (sequence 3) runs on trial",
)
def empty_mirror(scene: Scene) -> None:
    scene.configure(scene.another_mirror({}))


@NAMED.row(
    "the first mirror alters the artifact",
    "TUF: malicious mirror",
    means="one of two mirrors",
    does=UNHARMED,
    says="1.2 (sequence 3) runs on trial",
)
def altering_mirror(scene: Scene) -> None:
    altered = {scene.place_of("1.2"): scene.evil}
    scene.configure(scene.another_mirror(ChainMap(altered, scene.honest.repo.files)))


@NAMED.row(
    "the first mirror stands still, nothing has expired yet",
    "TUF: malicious mirror, indefinite freeze",
    means="one of two mirrors",
    does=Reason.UP_TO_DATE,
    says="1.1 is installed and is the newest release of the channel",
    back=Back("the expiry of what the first mirror has", later_the_same_year),
)
def still_mirror(scene: Scene) -> None:
    scene.configure(scene.another_mirror(scene.seen))


@NAMED.row(
    "every request is answered with 503",
    "Uptane: drop-request",
    does=RetryLaterError,
    says="answered 503",
)
def refused_requests(scene: Scene) -> None:
    scene.trouble(status=503)


@NAMED.row(
    "every connection is cut",
    "Uptane: drop-request",
    does=RetryLaterError,
    says="metadata/timestamp.json cannot be fetched",
)
def dropped_requests(scene: Scene) -> None:
    scene.trouble(".json", cut=0)


@NAMED.row(
    "every object is missing",
    "Uptane: drop-request",
    does=NotFoundError,
    says="answers 404 for /metadata/timestamp.json",
)
def denied_requests(scene: Scene) -> None:
    scene.serve({})


@NAMED.row(
    "a bundle of two payloads, one of which this device cannot install",
    "Uptane: partial bundle",
    STABLE,
    *ONLINE,
    does=Reason.HANDLER,
    says="it needs the handler rauc, this device has slot",
)
def partial_bundle(scene: Scene) -> None:
    def edit(release: Release) -> Release:
        (payload,) = release.payloads
        return replace(release, payloads=(payload, replace(payload, handler="rauc")))

    scene.offer(edit)


@NAMED.row(
    "the artifact ends early, every time",
    "Uptane: partial bundle",
    does=RetryLaterError,
    says="broke off again and again",
)
def truncated_artifact(scene: Scene) -> None:
    scene.trouble(".img", cut=10)
