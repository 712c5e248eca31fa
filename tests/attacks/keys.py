"""What each stolen key, and each combination of them below a threshold, is worth."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from client_reference.manifest import Release, Withdrawn, serialize
from client_reference.selection import Reason
from client_reference.trust.verified import BadSignatureError, MismatchError
from client_reference.update import DisagreementError
from tests.attacks.scene import BUILDS, HOLD, NOW, STABLE, TLS, Back, Scene
from tests.attacks.table import FALLS, HONEST, ONLINE, UNHARMED, Chapter
from tests.simulators.certificates import make_authority

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS = Chapter("Stolen keys")

INSTALLED = "1.2 (sequence 3) runs on trial"


def _signed_and_listed(role: str, scene: Scene) -> None:
    """A new version of a role, published with the online keys."""
    scene.stolen.role(role).unrecognized_fields["x-thief"] = True
    scene.stolen.publish(role)


# Online keys


@KEYS.row(
    "a snapshot of the next version, that no timestamp names",
    "TUF: key compromise",
    "snapshot",
    does=UNHARMED,
    says=INSTALLED,
)
def snapshot_key(scene: Scene) -> None:
    scene.stolen.snapshot.meta.clear()
    scene.stolen.publish("snapshot")
    scene.stolen.files["metadata/timestamp.json"] = scene.honest.repo.files[
        "metadata/timestamp.json"
    ]


@KEYS.row(
    "another snapshot under the name of the honest one",
    "TUF: key compromise (5.5.2)",
    "snapshot",
    does=MismatchError,
    says="snapshot is not the file that was signed for",
    back=HONEST,
)
def snapshot_key_in_place(scene: Scene) -> None:
    scene.stolen.snapshot.meta.clear()
    scene.stolen.files[scene.stolen.location("snapshot")] = scene.stolen.sign("snapshot")


@KEYS.row(
    "a timestamp that names a snapshot which the thief cannot sign",
    "TUF: key compromise (5.5.3)",
    "timestamp",
    does=BadSignatureError,
    says="snapshot has good signatures of 0 keys, 1 is needed",
)
def timestamp_key(scene: Scene) -> None:
    scene.stolen.publish("snapshot")


for _role, _got in (
    ("targets:1", "targets has good signatures of 1 key, 2 are needed"),
    (f"{STABLE}:1", "gateway-stable has good signatures of 1 key, 2 are needed"),
):
    _name = _role.partition(":")[0]
    KEYS.add(
        f"{_name}-below-threshold",
        partial(_signed_and_listed, _name),
        f"a {_name} role with one signature of two",
        "TUF: key compromise; design 7, stolen-channel-key",
        _role,
        *ONLINE,
        does=BadSignatureError,
        says=_got,
    )


@KEYS.row(
    "the next root with one signature of two",
    "TUF: key compromise (5.3.4); design 7, stolen-root-key",
    "root:1",
    does=BadSignatureError,
    says="root 3 has good signatures of 1 key of root 2, 2 are needed",
)
def root_below_threshold(scene: Scene) -> None:
    scene.stolen.root.roles["root"].threshold = 1
    scene.stolen.publish("root")


@KEYS.row(
    "the next root, signed by one old key and two of the thief's own",
    "TUF: key compromise (5.3.4)",
    "root:1",
    does=BadSignatureError,
    says="root 3 has good signatures of 1 key of root 2, 2 are needed",
)
def root_with_own_keys(scene: Scene) -> None:
    for _ in range(2):
        scene.stolen.add_key("root")
    scene.stolen.publish("root")


@KEYS.row(
    "a threshold of targets lets its own keys speak for channel and builds",
    "TUF: key compromise",
    "targets",
    *ONLINE,
    does=FALLS,
    says="6.6 (sequence 6) runs on trial",
)
def targets_threshold(scene: Scene) -> None:
    for role in (STABLE, BUILDS):
        scene.stolen.rotate(role, "targets")
    scene.stolen.publish("targets")
    scene.thief.release("6.6", 6, scene.evil)


# Builds


@KEYS.row(
    "another builds role under the name of the honest one",
    "design 7, stolen-ci-key",
    BUILDS,
    does=MismatchError,
    says="gateway-builds is not the file that was signed for",
    back=HONEST,
)
def builds_key(scene: Scene) -> None:
    scene.stolen.role(BUILDS).targets.clear()
    scene.stolen.files[scene.stolen.location(BUILDS)] = scene.stolen.sign(BUILDS)


@KEYS.row(
    "other bytes for the path of a release that a channel offers",
    "design 4, Guard (meaning); design 7, stolen-ci-key",
    BUILDS,
    *ONLINE,
    does=DisagreementError,
    says="the role gateway-builds says sha256",
)
def builds_key_and_online_keys(scene: Scene) -> None:
    scene.thief.artifact("1.2", 3, scene.evil)
    scene.stolen.publish(BUILDS)


@KEYS.row(
    "a build with the highest sequence, that no channel names",
    "design 7, stolen-ci-key",
    BUILDS,
    *ONLINE,
    does=UNHARMED,
    says=INSTALLED,
)
def builds_key_invents(scene: Scene) -> None:
    scene.thief.artifact("6.6", 2**53 - 1, scene.evil)
    scene.stolen.publish(BUILDS)


@KEYS.row(
    "the builds role forgets the release",
    "design 7, stolen-ci-key",
    BUILDS,
    *ONLINE,
    does=DisagreementError,
    says="the channel offers builds/gateway/1.2/gw2.img, which the role gateway-builds does not",
)
def builds_key_removes(scene: Scene) -> None:
    scene.stolen.role(BUILDS).targets.clear()
    scene.stolen.publish(BUILDS)


def _begin_the_builds_role_again(scene: Scene) -> None:
    repo = scene.honest.repo
    repo.rotate(BUILDS, "targets")
    repo.rotate("snapshot")
    repo.role(BUILDS).version = 10
    repo.publish("root")
    repo.publish(BUILDS, "targets")


@KEYS.row(
    "the highest version there is, for the builds role; the publisher publishes it",
    "design 4, Guard (fast-forward)",
    BUILDS,
    means="a publisher who is fooled",
    does=UNHARMED,
    says=INSTALLED,
    back=Back("other keys for gateway-builds and snapshot", _begin_the_builds_role_again),
)
def builds_key_fast_forwards(scene: Scene) -> None:
    scene.honest.repo.role(BUILDS).version = 2**53 - 2
    scene.honest.repo.publish(BUILDS)


# Channel


@KEYS.row(
    "a release that nobody built",
    "design 7, stolen-channel-key",
    STABLE,
    *ONLINE,
    does=DisagreementError,
    says="the channel offers builds/gateway/6.6/gw2.img, which the role gateway-builds does not",
)
def channel_threshold(scene: Scene) -> None:
    # The thief writes the entry into the builds role too, but has no key of it to publish it with.
    builds = dict(scene.stolen.role(BUILDS).targets)
    artifact = scene.thief.artifact("6.6", 6, scene.evil)
    scene.stolen.role(BUILDS).targets = builds

    def edit(release: Release) -> Release:
        (payload,) = release.payloads
        payload = replace(payload, artifact=artifact)
        return replace(release, version="6.6", sequence=6, payloads=(payload,))

    scene.offer(edit)


@KEYS.row(
    "another sequence for the artifact of an honest release",
    "design 4, Guard (meaning)",
    STABLE,
    *ONLINE,
    does=DisagreementError,
    says="the role gateway-builds says sequence 3, the channel says 9007199254740991",
)
def channel_threshold_renumbers(scene: Scene) -> None:
    scene.offer(lambda release: replace(release, sequence=2**53 - 1))


@KEYS.row(
    "a minimum sequence that no release reaches",
    "design 4, Guard (fast-forward)",
    STABLE,
    *ONLINE,
    does=Reason.BELOW_MINIMUM,
    says="the channel's minimum sequence is 9007199254740991",
)
def channel_threshold_raises_the_minimum(scene: Scene) -> None:
    scene.offer(lambda release: release, minimum_sequence=2**53 - 1)


def _next_manifest(scene: Scene) -> None:
    scene.honest.promote(*scene.honest.manifest.releases, minimum_sequence=0)


@KEYS.row(
    "release managers raise the minimum sequence by mistake, the publisher publishes it",
    "design 4, Guard (fast-forward)",
    means="insiders of the channel",
    does=Reason.BELOW_MINIMUM,
    says="the channel's minimum sequence is 9007199254740991",
    back=Back("the next manifest: no device keeps a minimum", _next_manifest),
)
def minimum_raised_by_insiders(scene: Scene) -> None:
    scene.honest.promote(*scene.honest.manifest.releases, minimum_sequence=2**53 - 1)


@KEYS.row(
    "every release is withdrawn",
    "design 7, stolen-channel-key",
    STABLE,
    *ONLINE,
    does=Reason.WITHDRAWN,
    says="it was withdrawn: because",
)
def channel_threshold_withdraws(scene: Scene) -> None:
    releases = scene.thief.manifest.releases
    entries = tuple(Withdrawn(one.version, one.sequence, NOW, "because") for one in releases)
    scene.offer(lambda release: release, withdrawn=entries)


@KEYS.row(
    "no release is offered any more",
    "design 7, stolen-channel-key",
    STABLE,
    *ONLINE,
    does=Reason.NOTHING_OFFERED,
    says="the channel gateway/stable offers no release",
)
def channel_threshold_empties(scene: Scene) -> None:
    scene.manifest(serialize(replace(scene.thief.manifest, releases=())))


@KEYS.row(
    "a threshold of the channel and the builds key",
    "design 7, stolen-channel-key and stolen-ci-key",
    STABLE,
    BUILDS,
    *ONLINE,
    does=FALLS,
    says="6.6 (sequence 6) runs on trial",
)
def channel_threshold_and_builds_key(scene: Scene) -> None:
    scene.thief.release("6.6", 6, scene.evil)


# Hold


@KEYS.row(
    "every release is put on hold",
    "design 4, roles",
    HOLD,
    *ONLINE,
    does=Reason.HELD,
    says="1.2 (sequence 3) is not installed: it is on hold",
)
def hold_key(scene: Scene) -> None:
    scene.thief.hold(1, 2, 3)


@KEYS.row(
    "an honest hold is lifted",
    "design 4, roles",
    HOLD,
    *ONLINE,
    does=UNHARMED,
    says=INSTALLED,
)
def hold_key_lifts(scene: Scene) -> None:
    scene.honest.hold(3)
    assert scene.run("update").code == 0
    scene.results.clear()
    scene.thief.hold()


@KEYS.row(
    "the hold file of another product",
    "design 4, Guard (shadowing)",
    HOLD,
    *ONLINE,
    does=DisagreementError,
    says="holds/gateway/stable.json is about sensor/stable, expected gateway/stable",
)
def hold_key_confuses(scene: Scene) -> None:
    scene.thief.hold(3, product="sensor")


# The CA bundle


def _own_authority(scene: Scene) -> bytes:
    return make_authority(scene.directory).bundle.read_bytes()


def _no_certificates(_: Scene) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n"


def _bundle(make: Callable[[Scene], bytes], scene: Scene) -> None:
    scene.stolen.add_target(TLS, "trust/ca-bundle.pem", make(scene))
    scene.stolen.publish(TLS)


for _id, _keys, _make, _what, _says in (
    (
        "ca-bundle-below-threshold",
        f"{TLS}:1",
        _own_authority,
        "a CA bundle with one signature of two",
        "a new CA bundle could not be had: device-tls has good signatures of 1 key, 2 are needed",
    ),
    (
        "ca-bundle",
        TLS,
        _own_authority,
        "the thief's own CA becomes the device's",
        "a new CA bundle was accepted; it serves from now on",
    ),
    (
        "ca-bundle-garbage",
        TLS,
        _no_certificates,
        "a CA bundle without certificates",
        "a new CA bundle could not be had: the published CA bundle holds no certificates",
    ),
):
    KEYS.add(
        _id,
        partial(_bundle, _make),
        _what,
        "design 8, hostile CA bundle",
        _keys,
        *ONLINE,
        does=UNHARMED,
        says=_says,
    )
