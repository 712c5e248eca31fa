"""Rules of the workflow that only the mutation check found untested."""

from __future__ import annotations

from unittest import mock

from client_reference.trust.state import MemoryStore
from client_reference.trust.updater import Floors, Updater, initial_state
from tests.simulators.repository import NOW, RepositorySimulator

PATH = "channels/gateway/stable.json"


def refreshed(repo: RepositorySimulator) -> Updater:
    store = MemoryStore(initial_state(repo.files["metadata/1.root.json"], Floors(0, 0, 0)))
    updater = Updater(store, repo, NOW)
    updater.refresh()
    return updater


def test_a_role_of_the_snapshot_that_nobody_delegates_to_does_not_exist() -> None:
    repo = RepositorySimulator()
    repo.delegate("gateway-stable", [PATH])
    repo.add_target("gateway-stable", PATH, b"{}")
    repo.publish("gateway-stable", "targets")
    assert repo.targets.delegations is not None
    assert repo.targets.delegations.roles is not None
    del repo.targets.delegations.roles["gateway-stable"]
    repo.publish("targets")
    assert "gateway-stable.json" in repo.snapshot.meta
    updater = refreshed(repo)
    assert updater.role("gateway-stable") is None
    assert updater.target("gateway-stable", PATH) is None


def test_a_search_asks_a_role_once_even_if_two_delegate_to_it() -> None:
    repo = RepositorySimulator()
    for name in ("left", "right"):
        repo.delegate(name, ["*"], terminating=False)
    for above in ("left", "right"):
        repo.delegate("shared", ["*"], delegator=above, terminating=False)
    repo.publish("shared", "left", "right", "targets")
    updater = refreshed(repo)
    with mock.patch.object(updater, "_load_targets", wraps=updater._load_targets) as load:
        assert updater.find("nowhere") is None
    assert [call.args[0] for call in load.call_args_list].count("shared") == 1
