"""Pure: the durable facts of a device, as frozen values, and the protocol of a store for them.

A `DeviceState` is the whole of what must survive a power cut. Code computes a new value from an old
one and hands it to `Store.commit`, which makes it durable as one transaction or not at all. Nothing
here knows SQLite, files or clocks; rehearsal and tests use `MemoryStore`.
"""

from __future__ import annotations

import enum
from dataclasses import field, replace
from typing import TYPE_CHECKING, Protocol, Self

from client_reference.errors import LocalFailureError
from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

__all__ = [
    "DeviceState",
    "Image",
    "InstallState",
    "MemoryStore",
    "Phase",
    "Store",
    "TrustState",
]


@frozen
class TrustState:
    """What the device trusts. All metadata are the exact bytes that were verified.

    Attributes:
        factory_sha256: hex digest of the factory root file from which this state grew.
        root: newest accepted root file.
        root_version: its version.
        timestamp: last accepted timestamp file, or None after a cut (design 4, fast-forward).
        snapshot: last accepted snapshot file, or None likewise.
        roles: last accepted files of targets and delegated roles, by role name.
        time_floor: Unix seconds; the earliest time that verified evidence allows it to be now.
        epoch: of the recovery anchor; 0 until a re-root. Never falls.
        factory_floor: Unix seconds; the floor that the image carries, to which a root link with
            new timestamp keys takes `time_floor` back (design 5, poisoning).
        recovery_root: newest accepted root file of the recovery anchor; None on a device that was
            made without one.
        recovery_version: its version; 0 without one.
    """

    factory_sha256: str
    root: bytes
    root_version: int
    timestamp: bytes | None = None
    snapshot: bytes | None = None
    roles: Mapping[str, bytes] = field(default_factory=dict)
    time_floor: int = 0
    epoch: int = 0
    factory_floor: int = 0
    recovery_root: bytes | None = None
    recovery_version: int = 0


@frozen
class Image:
    """A payload that is, or was, in a slot.

    Attributes:
        sha256: hex digest of the full payload.
        length: bytes.
        version: label, never compared.
        sequence: release sequence (interfaces, manifest rule 1).
        slot: name of the slot it was written to; empty for handlers that own their slots.
        epoch: in which it was offered. What the release managers of an ended epoch said of it is
            not believed any more.
        reset: version of the sequence reset that was followed last when it was offered; likewise.
    """

    sha256: str
    length: int
    version: str
    sequence: int
    slot: str = ""
    epoch: int = 0
    reset: int = 0


class Phase(enum.Enum):
    """Where the device stands between two releases (see `client_reference.lifecycle`)."""

    IDLE = "idle"
    WRITING = "writing"
    STAGED = "staged"
    TRIAL = "trial"


@frozen
class InstallState:
    """What is installed.

    Attributes:
        phase: the step of the update in hand.
        current: the confirmed image, None while only the factory image has run.
        candidate: the image being written, staged or on trial.
        confirmed_sequence: the anti-rollback floor; raised at confirm, never at staging.
        rejected: digests of payloads that were rolled back here, newest last, at most 16.
        known: images that were confirmed here, newest last, at most 16; the running sequence is
            looked up here by payload digest (interfaces, manifest rule 4).
        reset: version of `targets` that brought the sequence reset which was followed last
            (`trust.reset`); 0 before the first.
    """

    phase: Phase = Phase.IDLE
    current: Image | None = None
    candidate: Image | None = None
    confirmed_sequence: int = 0
    rejected: Sequence[str] = ()
    known: Sequence[Image] = ()
    reset: int = 0


@frozen
class DeviceState:
    """Everything that must survive a power cut."""

    trust: TrustState
    install: InstallState = field(default_factory=InstallState)

    def with_trust(self, trust: TrustState) -> DeviceState:
        """The same device with another trust state."""
        return replace(self, trust=trust)

    def with_install(self, install: InstallState) -> DeviceState:
        """The same device with another install state."""
        return replace(self, install=install)


class Store(Protocol):
    """Durable state of one device, held by one process at a time.

    Used as a context manager: entering takes the lock, leaving releases it.
    """

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            LockedError: another process holds it.
        """

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release the lock."""

    def load(self) -> DeviceState | None:
        """The last committed state, or None if there never was one.

        Raises:
            LocalFailureError: no copy can be read; the caller may start again from the factory.
        """

    def commit(self, state: DeviceState, new_roots: Sequence[bytes] = ()) -> None:
        """Make `state` durable in every copy, as one transaction, before returning.

        Args:
            state: the whole new state.
            new_roots: root files accepted since the last commit, oldest first, for the stored
                chain; the last one is `state.trust.root`.

        Raises:
            LocalFailureError: it could not be made durable; the state before is kept.
        """

    def begin_again(self, state: DeviceState) -> None:
        """Make `state` durable as `commit` does, with a root chain of nothing but its root.

        Raises as `commit`.
        """

    def root_chain(self) -> Sequence[bytes]:
        """Every accepted root of this epoch, the one that it began with first."""


class MemoryStore:
    """A store for rehearsals and tests: durable for as long as the object lives."""

    def __init__(self, state: DeviceState | None = None) -> None:
        self.state = state
        self.chain: list[bytes] = [state.trust.root] if state else []
        self.commits = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def load(self) -> DeviceState | None:
        """The last committed state."""
        return self.state

    def commit(self, state: DeviceState, new_roots: Sequence[bytes] = ()) -> None:
        """Keep `state`."""
        if new_roots and new_roots[-1] != state.trust.root:
            raise LocalFailureError("the last new root is not the state's root")
        self.state = state
        self.chain.extend(new_roots)
        self.commits += 1

    def begin_again(self, state: DeviceState) -> None:
        """Keep `state`, and forget every root but its own."""
        self.state = state
        self.chain = [state.trust.root]
        self.commits += 1

    def root_chain(self) -> Sequence[bytes]:
        """Every accepted root of this epoch, the one that it began with first."""
        return tuple(self.chain)
