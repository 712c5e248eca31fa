from __future__ import annotations

import socket
import time

import pytest

from client_reference.transport.connect import _Deadline
from client_reference.transport.pace import HEAD, Pace, PacedSocket, TransportError, explain


def test_a_transfer_has_its_grace_and_what_it_earned() -> None:
    pace = Pace(lambda: 0.0, 1000, 2.0)
    assert pace.left() == 2.0
    pace.spent = 1.5
    assert pace.left() == 0.5
    pace.received = 1000
    assert pace.left() == 1.5
    pace.received = 1_000_000
    assert pace.left() == 2.0, "one wait is never longer than the grace"


@pytest.mark.parametrize("spent", [3.0, 3.5])
def test_a_transfer_that_spent_all_its_time_has_none(spent: float) -> None:
    pace = Pace(lambda: 0.0, 1000, 2.0, spent=spent, received=1000)
    with pytest.raises(TimeoutError):
        pace.left()


@pytest.mark.parametrize("now", [5.0, 6.0])
def test_a_deadline_that_has_passed_leaves_no_time(now: float) -> None:
    assert _Deadline(lambda: 4.0, 5.0).left() == 1.0
    with pytest.raises(TimeoutError):
        _Deadline(lambda: now, 5.0).left()


def test_a_socket_gives_as_many_bytes_as_an_answer_may_have() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        paced = PacedSocket(ours, Pace(time.monotonic, 1, 1.0))
        buffer = memoryview(bytearray(HEAD))
        with pytest.raises(OSError, match="without an end"):
            paced.receive_into(buffer)
        paced.allow_head()
        theirs.sendall(bytes(HEAD) + b"x")
        received = 0
        while received < HEAD:
            received += paced.receive_into(buffer[: HEAD - received])
        with pytest.raises(OSError, match="without an end"):
            paced.receive_into(buffer)
        paced.allow_body(0)
        assert paced.receive_into(buffer) == 1
        assert not paced.ended
        theirs.close()
        assert paced.receive_into(buffer) == 0
        assert paced.ended


def test_errors_are_told_in_words() -> None:
    assert explain(TimeoutError("timed out")).startswith("no answer in time")
    assert explain(OSError("refused")) == "refused"
    assert explain(OSError()) == "OSError"
    assert TransportError("x").hint.startswith("check the network")
