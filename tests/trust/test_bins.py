"""A builds role in hash bins: a device loads one bin, and believes nobody but the builder."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import DelegatedRole, Delegations, SuccinctRoles, Targets
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater as NgUpdater

from client_reference.errors import FirmrootError, NotFoundError
from client_reference.trust.state import MemoryStore
from client_reference.trust.updater import Floors, Updater, bin_prefix, initial_state
from client_reference.trust.verified import (
    BadSignatureError,
    DelegationError,
    MismatchError,
    RollbackError,
)
from tests.simulators.repository import NOW, RepositorySimulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BUILDS = "gateway-builds"
PATH = "builds/gateway/1.0/a.img"
BITS = 3


class Binned(RepositorySimulator):
    """A repository whose builds role has eight bins, of which the device needs one."""

    def __init__(self) -> None:
        super().__init__()
        self.delegate(BUILDS, ["builds/gateway/*/*"])
        self.cut()
        self.put(PATH)
        self.publish(BUILDS, "targets")

    def cut(self, prefix: str = bin_prefix(BUILDS)) -> None:
        """Let the builds role delegate to bins that its own keys sign."""
        own = self.targets.get_delegated_role(BUILDS)
        assert self.targets.delegations is not None
        keys = {keyid: self.targets.delegations.keys[keyid] for keyid in own.keyids}
        bins = SuccinctRoles(list(own.keyids), own.threshold, BITS, prefix)
        self.role(BUILDS).delegations = Delegations(keys, succinct_roles=bins)

    @property
    def bins(self) -> SuccinctRoles:
        delegations = self.role(BUILDS).delegations
        assert delegations is not None
        assert delegations.succinct_roles is not None
        return delegations.succinct_roles

    def home(self, path: str = PATH) -> str:
        return self.bins.get_role_for_target(path)

    def put(self, path: str, data: bytes = b"firmware", name: str = "") -> str:
        """Publish one artifact in its bin, or in another one."""
        name = name or self.home(path)
        if name not in self.signed:
            role = Targets(expires=self.later(days=365))
            role.version = 0
            self.signed[name] = role
        self.signers[name] = dict(self.signers[BUILDS])
        self.add_target(name, path, data)
        self.publish(name)
        return name

    def elsewhere(self) -> str:
        """A path of another bin than `PATH`."""
        paths = (f"builds/gateway/2.{number}/a.img" for number in range(100))
        return next(path for path in paths if self.home(path) != self.home())


class Device:
    """A store, and checks that begin anew each time as a process would."""

    def __init__(self, repo: RepositorySimulator) -> None:
        root = repo.files["metadata/1.root.json"]
        self.store = MemoryStore(initial_state(root, Floors(0, 0, 0)))

    def asks(self, repo: RepositorySimulator, path: str = PATH) -> bytes | None:
        """The digest that the builds role says for a path, None if it says nothing."""
        repo.requests.clear()
        updater = Updater(self.store, repo, NOW)
        updater.refresh()
        target = updater.target(BUILDS, path)
        updater.keep()
        return None if target is None else updater.fetch_target(target, 100)

    @property
    def stored(self) -> set[str]:
        assert self.store.state is not None
        return set(self.store.state.trust.roles)


@pytest.fixture
def repo() -> Binned:
    return Binned()


def test_a_device_loads_exactly_one_bin(repo: Binned) -> None:
    for number in range(40):
        repo.put(f"builds/gateway/3.{number}/a.img")
    assert len([name for name in repo.signed if "_" in name]) == 8
    device = Device(repo)
    assert device.asks(repo) == b"firmware"
    assert [each for each in repo.requests if "_" in each] == [repo.location(repo.home())]


def test_a_bin_that_did_not_change_is_not_fetched_again(repo: Binned) -> None:
    device = Device(repo)
    device.asks(repo)
    repo.put(repo.elsewhere())
    assert device.asks(repo) == b"firmware"
    assert not [each for each in repo.requests if "_" in each]


def test_a_device_keeps_the_bin_that_it_asked_last(repo: Binned) -> None:
    device, path = Device(repo), repo.elsewhere()
    repo.put(path)
    device.asks(repo)
    assert device.asks(repo, path) == b"firmware"
    assert device.stored == {"targets", BUILDS, repo.home(path)}


def test_a_path_that_no_bin_has_is_not_there(repo: Binned) -> None:
    path = repo.elsewhere()
    assert Device(repo).asks(repo, path) is None, "its bin was never written"
    repo.put(path)
    assert Device(repo).asks(repo, path + "2") is None or repo.home(path) != repo.home(path + "2")
    assert Device(repo).asks(repo, path) == b"firmware"


def test_a_path_of_another_role_is_not_looked_for(repo: Binned) -> None:
    assert Device(repo).asks(repo, "channels/gateway/stable.json") is None
    assert not [each for each in repo.requests if "_" in each]


# Attacks. Each is told to a device that has nothing and to one that was there before.


def _foreign_path(repo: Binned) -> str:
    """A bin speaks for a path of another bin, which has it no more."""
    del repo.role(repo.home()).targets[PATH]
    repo.publish(repo.home())
    repo.put(PATH, b"evil", repo.home(repo.elsewhere()))
    return PATH


def _missing(repo: Binned) -> str:
    repo.put(PATH, b"newer")
    del repo.files[repo.location(repo.home())]
    return PATH


def _older(repo: Binned) -> str:
    """The mirror has the bin as it was, under the name of the newest."""
    before = repo.files[repo.location(repo.home())]
    repo.put(PATH, b"newer")
    repo.files[repo.location(repo.home())] = before
    return PATH


def _older_in_snapshot(repo: Binned) -> str:
    """A thief of the online keys lists the bin as it was."""
    repo.snapshot.meta[f"{repo.home()}.json"].version -= 1
    repo.publish("snapshot")
    return PATH


def _unlisted(repo: Binned) -> str:
    del repo.snapshot.meta[f"{repo.home()}.json"]
    repo.publish("snapshot")
    return PATH


def _other_key(repo: Binned) -> str:
    signer = repo.new_signer()
    repo.signers[repo.home()] = {signer.public_key.keyid: signer}
    repo.publish(repo.home())
    return PATH


def _key_for_bins(repo: Binned) -> str:
    """A thief of the builder's key lets a key of their own sign the bins, for later."""
    signer = repo.new_signer()
    delegations = repo.role(BUILDS).delegations
    assert delegations is not None
    delegations.keys = {signer.public_key.keyid: signer.public_key}
    repo.bins.keyids = [signer.public_key.keyid]
    repo.signers[repo.home()] = {signer.public_key.keyid: signer}
    repo.publish(repo.home(), BUILDS)
    return PATH


def _key_beside(repo: Binned) -> str:
    """The thief's key stands beside the builder's."""
    signer = repo.new_signer()
    delegations = repo.role(BUILDS).delegations
    assert delegations is not None
    delegations.keys[signer.public_key.keyid] = signer.public_key
    repo.bins.keyids.append(signer.public_key.keyid)
    repo.signers[repo.home()] = {signer.public_key.keyid: signer}
    repo.publish(repo.home(), BUILDS)
    return PATH


def _same_id_other_key(repo: Binned) -> str:
    delegations = repo.role(BUILDS).delegations
    assert delegations is not None
    (keyid,) = delegations.keys
    other = copy.deepcopy(repo.new_signer().public_key)
    other.keyid = keyid
    delegations.keys = {keyid: other}
    repo.publish(BUILDS)
    return PATH


def _threshold(repo: Binned) -> str:
    repo.delegate(BUILDS, ["builds/gateway/*/*"], threshold=2, keys=2)
    repo.cut()
    repo.bins.threshold = 1
    repo.publish(BUILDS, repo.home(), "targets")
    return PATH


def _name(repo: Binned) -> str:
    """Bins are called after roles that somebody else signs."""
    repo.cut("gateway")
    repo.publish(BUILDS)
    return PATH


def _beside(repo: Binned) -> str:
    repo.add_target(BUILDS, PATH, b"evil")
    repo.publish(BUILDS)
    return PATH


def _deeper(repo: Binned) -> str:
    bin_ = repo.role(repo.home())
    bin_.delegations = Delegations({}, {"x": DelegatedRole("x", [], 1, terminating=True, paths=[])})
    repo.publish(repo.home())
    return PATH


ATTACKS: dict[str, tuple[Callable[[Binned], str], type[FirmrootError] | None]] = {
    "a bin that speaks for a path of another bin": (_foreign_path, None),
    "a bin that is missing": (_missing, NotFoundError),
    "a bin as it was before": (_older, MismatchError),
    "a snapshot that lists a bin as it was before": (_older_in_snapshot, RollbackError),
    "a snapshot that lists a bin no more": (_unlisted, RollbackError),
    "a bin that another key signed": (_other_key, BadSignatureError),
    "bins that are given another key": (_key_for_bins, DelegationError),
    "bins that are given one key more": (_key_beside, DelegationError),
    "bins that are given another key under the same id": (_same_id_other_key, DelegationError),
    "bins with a lower threshold": (_threshold, DelegationError),
    "bins that are named after other roles": (_name, DelegationError),
    "a role that lists targets beside its bins": (_beside, DelegationError),
    "a bin that delegates": (_deeper, DelegationError),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_on_bins_is_refused_and_the_honest_repository_is_followed(
    repo: Binned, attack: str
) -> None:
    play, error = ATTACKS[attack]
    repo.put(PATH)
    repo.put(repo.elsewhere())
    device, honest = Device(repo), repo.fork()
    assert device.asks(repo) == b"firmware"
    path = play(repo)
    if error is None:
        assert device.asks(repo, path) is None
    else:
        with pytest.raises(error):
            device.asks(repo, path)
    names = [name for name in honest.signed if "_" in name or name == BUILDS]
    for name in (*names, "targets", "snapshot", "timestamp"):
        honest.signed[name].version += 10  # above whatever the attack has used up
    honest.publish(*names, "targets")
    assert device.asks(honest) == b"firmware"


def test_a_key_of_the_builder_that_is_replaced_signs_no_bin_any_more(repo: Binned) -> None:
    device = Device(repo)
    device.asks(repo)
    repo.rotate(BUILDS, "targets")
    repo.cut()
    repo.publish(BUILDS, "targets")  # the bins stay as the old key signed them
    with pytest.raises(BadSignatureError):
        device.asks(repo)
    repo.put(PATH)
    assert device.asks(repo) == b"firmware"


# The oracle.


class Bridge(FetcherInterface):
    """The simulator as `tuf.ngclient` fetches."""

    def __init__(self, repo: RepositorySimulator) -> None:
        self.repo = repo

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            data = self.repo.fetch(url, 2**40)
        except NotFoundError as error:
            raise DownloadHTTPError("not served", 404) from error
        return iter([data])


def test_the_other_client_reads_the_same(repo: Binned, tmp_path: Path) -> None:
    path = repo.elsewhere()
    repo.put(path, b"other")
    updater = NgUpdater(
        str(tmp_path),
        "metadata/",
        str(tmp_path),
        "targets/",
        Bridge(repo),
        bootstrap=repo.files["metadata/1.root.json"],
    )
    # It reads the machine's clock; the simulator's files last for years.
    updater._trusted_set.reference_time = NOW
    updater.refresh()
    for each, data in ((PATH, b"firmware"), (path, b"other")):
        target = updater.get_targetinfo(each)
        assert target is not None
        place = updater.download_target(target, str(tmp_path / "file"))
        assert (tmp_path / "file").read_bytes() == data, place
