"""The device and its recovery anchor during one cycle: when to ask, whom, and what to do with it.

`recovery` judges bytes; this module fetches, stores and reports. Rules (design 7):

 * Each recovery URL is asked on its own, from the trusted recovery root on, so that one that
   withholds, lies or hangs hides nothing of what another shows.
 * A link is never deleted, so a recovery URL without anything newer still has the trusted one. One
   that lacks it (a mistyped URL, a bucket that was emptied) has not answered.
 * It is asked once in a cycle, on the first of these occasions: nothing was trusted from the
   primary yet (first start, store lost); the primary failed; a new primary root is about to be
   accepted; a release is found that may be installed; a new timestamp announces a higher epoch (a
   hint, never believed); and otherwise when the caller drew it, about daily.
 * That nobody can be asked stops nothing. It is told once in a cycle, as soon as a rule rests on
   the answer, whatever the asking was for: otherwise whoever signs timestamps could announce an
   epoch, so that nobody hears of the silence before an install.
 * A higher epoch whose first root cannot be had stops everything and changes nothing in the store:
   the old epoch is not acted on any more (`over`).
 * Re-rooting is one transaction of the store. It is told in any case, and so is a fork.
"""

from __future__ import annotations

import enum
from dataclasses import field
from typing import TYPE_CHECKING

from client_reference.errors import (
    LocalFailureError,
    NotFoundError,
    NotTrustedError,
    RetryLaterError,
)
from client_reference.trust import recovery
from client_reference.trust.recovery import ForkedError, Walk
from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from client_reference.transport.fetcher import Fetcher
    from client_reference.trust.recovery import Anchor
    from client_reference.trust.state import DeviceState, Store
    from client_reference.update import Mirrors

__all__ = ["Occasion", "Outcome", "Probe", "RecoveryAnchor", "walk_from"]


class Occasion(enum.Enum):
    """Why the anchor was asked; the values are part of `--json`."""

    START = "start"
    FAILURE = "failure"
    ROOT = "root"
    INSTALL = "install"
    ANNOUNCED = "announced"
    DAILY = "daily"


class Outcome(enum.Enum):
    """What came of it; the values are part of `--json`."""

    CURRENT = "current"
    RENEWED = "renewed"
    REROOTED = "re-rooted"
    FORKED = "forked"
    PENDING = "pending"
    UNREACHABLE = "unreachable"


_CHANCE = frozenset({Occasion.DAILY, Occasion.ANNOUNCED})
"""Occasions on which no rule depends on an answer."""


@frozen
class Probe:
    """One asking of every recovery URL.

    Attributes:
        occasion: why.
        outcome: what came of it.
        epoch: that the device is in after it.
        version: of the recovery root that it trusts after it.
        failures: what was wrong with a recovery URL, by URL.
    """

    occasion: Occasion
    outcome: Outcome
    epoch: int
    version: int
    failures: Mapping[str, str] = field(default_factory=dict)


class RecoveryAnchor:
    """See the module. One object lives for one cycle.

    Args:
        store: entered and initialised. A device without a recovery root never asks.
        urls: who can be asked for `N.root.json`, by URL, in the order of the configuration.
        mirrors: of the primary, which may have the first root of an epoch as well.
        product: the device's own.
        due: whether this cycle asks without another occasion.
        tell: called with a sentence that a person must see, whatever the cycle comes to.
        forget: called before an epoch ends, to drop what else its primary had this device believe.
        note: called with the failures of each asking and with the fork that it showed, if any, for
            who looks later.
    """

    def __init__(
        self,
        store: Store,
        urls: Mapping[str, Fetcher],
        mirrors: Mirrors,
        product: str,
        *,
        due: bool,
        tell: Callable[[str], None],
        forget: Callable[[], None] = lambda: None,
        note: Callable[[Mapping[str, str], str], None] = lambda _, __: None,
    ) -> None:
        self._store = store
        self._urls = urls
        self._mirrors = mirrors
        self._product = product
        self._due = due
        self._tell = tell
        self._forget = forget
        self._note = note
        self._probe: Probe | None = None
        self._pending: RetryLaterError | None = None
        self._untold = ""

    @property
    def probe(self) -> Probe | None:
        """What was asked in this cycle; None if nothing was."""
        return self._probe

    @property
    def over(self) -> str:
        """Why nothing of the stored epoch may start although the next cannot begin; or empty."""
        return "" if self._pending is None else self._pending.message

    # Each of these tells whether the device is in another epoch now: the cycle begins again.
    # All raise RetryLaterError when it should be and cannot, LocalFailureError if the store fails.

    def at_start(self) -> bool:
        """Before anything is asked of the primary."""
        if self._state().trust.timestamp is None:
            return self._ask(Occasion.START)
        return self._due and self._ask(Occasion.DAILY)

    def after_failure(self) -> bool:
        """The primary could not be reached, or what it sent did not verify."""
        return self._ask(Occasion.FAILURE)

    def before_root(self) -> bool:
        """A new primary root verified and is about to be accepted."""
        return self._ask(Occasion.ROOT)

    def before_install(self) -> bool:
        """A check found a release that may be installed, or an image is about to be booted."""
        return self._ask(Occasion.INSTALL)

    def announced(self) -> bool:
        """A timestamp that was not there before speaks of a higher epoch."""
        return self._ask(Occasion.ANNOUNCED)

    def _ask(self, occasion: Occasion) -> bool:
        if self._pending is not None:
            raise self._pending
        state = self._state()
        if state.trust.recovery_root is None:
            return False
        if self._probe is not None:
            self._own_up(occasion)
            return False
        trusted = recovery.stored_anchor(state.trust.recovery_root)
        walks, failures = [], {}
        for url, fetcher in self._urls.items():
            walk, failure = walk_from(trusted, fetcher)
            walks.append(walk)
            if failure:
                failures[url] = failure
        decision = recovery.decide(trusted, state.trust.epoch, walks)
        self._note(failures, _fork(decision))
        outcome = self._follow(state, decision)
        if outcome is Outcome.CURRENT and len(failures) == len(self._urls):
            outcome = Outcome.UNREACHABLE
            told = "; ".join(f"{url}: {failure}" for url, failure in failures.items())
            self._untold = f"the recovery anchor could not be asked: {told}"
            self._own_up(occasion)
        trust = self._state().trust
        self._probe = Probe(occasion, outcome, trust.epoch, trust.recovery_version, failures)
        if self._pending is not None:
            raise self._pending
        return outcome is Outcome.REROOTED

    def _own_up(self, occasion: Occasion) -> None:
        """Tell that nobody answered, once a rule rests on the answer (never a silent fallback)."""
        if self._untold and occasion not in _CHANCE:
            self._tell(self._untold)
            self._untold = ""

    def _follow(self, state: DeviceState, decision: recovery.Decision) -> Outcome:
        match decision:
            case recovery.Fork():
                self._tell(_fork(decision))
                return Outcome.FORKED
            case recovery.Renew():
                self._store.commit(recovery.renewed(state, decision.anchor))
                return Outcome.RENEWED
            case recovery.Reroot():
                return self._reroot(state, decision.anchor)
        return Outcome.CURRENT

    def _reroot(self, state: DeviceState, anchor: Anchor) -> Outcome:
        old, new = state.trust.epoch, anchor.statement.epoch
        after, failures = self._in_new_epoch(state, anchor)
        if after is None:
            self._pending = RetryLaterError(
                f"the recovery anchor has ended epoch {old}, and the first root of epoch {new} "
                f"cannot be had: {'; '.join(failures)}",
                "nothing was changed, and nothing of the old epoch is installed; try again later",
            )
            return Outcome.PENDING
        # First: a cut between the two must not leave the old primary's CA in the new epoch.
        self._forget()
        self._store.begin_again(after)
        self._tell(
            f"the recovery anchor re-rooted this device: epoch {old} has ended, epoch {new} "
            f"begins (recovery root {anchor.version}); nothing of the old primary is trusted"
        )
        return Outcome.REROOTED

    def _in_new_epoch(
        self, state: DeviceState, anchor: Anchor
    ) -> tuple[DeviceState | None, Sequence[str]]:
        """The state with the new first root, or why nobody has it: recovery URLs, then mirrors."""
        path = recovery.first_root_path(anchor.statement.epoch)
        places: list[tuple[Fetcher, str]] = [(fetcher, path) for fetcher in self._urls.values()]
        places.append((self._mirrors, f"metadata/{path}"))
        failures: list[str] = []
        while places:
            fetcher, place = places.pop(0)
            try:
                root = fetcher.fetch(place, anchor.statement.length)
                return recovery.rerooted(state, anchor, root, self._product), failures
            except RetryLaterError as error:
                failures.append(error.message)
                turn_away = fetcher is self._mirrors and isinstance(error, NotFoundError)
            except NotTrustedError as error:
                failures.append(error.message)
                turn_away = fetcher is self._mirrors
            if turn_away and self._mirrors.another_way():
                places.append((fetcher, place))
        return None, failures

    def _state(self) -> DeviceState:
        state = self._store.load()
        if state is None:
            raise LocalFailureError("the trust store is empty", "run `firmroot-device init`")
        return state


def _fork(decision: recovery.Decision) -> str:
    """That a fork was seen, and what to do; empty if none was."""
    if not isinstance(decision, recovery.Fork):
        return ""
    return f"{decision.error.message}; {decision.error.hint}"


def walk_from(trusted: Anchor, fetcher: Fetcher) -> tuple[Walk, str]:
    """What one recovery URL shows, and what was wrong with it; empty if nothing was."""
    links: list[Anchor] = []
    newest = trusted
    try:
        while True:
            data = fetcher.fetch(recovery.link_path(newest.version + 1), recovery.MAX_ROOT)
            newest = recovery.next_anchor(newest, data)
            links.append(newest)
    except NotFoundError:
        return Walk(links), "" if links else _lacks(trusted, fetcher)
    except ForkedError as error:
        return Walk(links, error), error.message
    except (NotTrustedError, RetryLaterError) as error:
        return Walk(links), error.message


def _lacks(trusted: Anchor, fetcher: Fetcher) -> str:
    """Why a recovery URL without a newer link is none; empty if it has the trusted one."""
    here, newer = recovery.link_path(trusted.version), recovery.link_path(trusted.version + 1)
    try:
        if fetcher.fetch(here, recovery.MAX_ROOT) == trusted.data:
            return ""
    except NotFoundError:
        return (
            f"it has neither {newer} nor {here}, which this device trusts: there is no recovery "
            "repository, or one that lags behind"
        )
    except (NotTrustedError, RetryLaterError) as error:
        # Attack: a file there that does not end must not end the check.
        return error.message
    return f"its {here} is not the one that this device trusts"
