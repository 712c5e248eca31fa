"""The loopback server between publisher and device, which can also lie, stall and be swapped.

It serves with the same application as `firmroot serve`, in a thread of this process. What it does
to the bytes of artifacts is set between two commands by the story.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Self

import uvicorn

from repo_tools.publishing import serve

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Network"]

STARTED_WITHIN = 10.0  # seconds
POLL = 0.02  # seconds


class Network:
    """A mirror on loopback. Use it as a context manager.

    Args:
        root: directory of the storage.
        recovery: directory of the recovery storage, served below `recovery/`.

    Attributes:
        tampering: flip one bit of every artifact.
        stall_after: stop sending an artifact after so many bytes, for as long as this is set.
        stalled: set once an artifact has stopped arriving.
    """

    def __init__(self, root: Path, recovery: Path | None = None) -> None:
        self._recovery = recovery
        self._application: ASGIApp = serve.application(root, recovery)
        self.tampering = False
        self.stall_after: int | None = None
        self.stalled = threading.Event()
        self._socket = serve.listen("127.0.0.1", 0)
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",
            lifespan="off",
            log_config=None,
            log_level="critical",  # a device without power hangs up in the middle of an answer
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )

    @property
    def url(self) -> str:
        """Where the mirror answers, with a final slash."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/"

    def swap(self, root: Path) -> None:
        """Serve another storage from now on, at the same address; the anchor's stays."""
        self._application = serve.application(root, self._recovery)

    def __enter__(self) -> Self:
        self._thread.start()
        waited = 0.0
        while not self._server.started:
            if waited > STARTED_WITHIN or not self._thread.is_alive():
                raise RuntimeError("the demo's server did not start")
            self.stalled.wait(POLL)
            waited += POLL
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stall_after = None
        self._server.should_exit = True
        self._thread.join(STARTED_WITHIN)
        self._socket.close()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        artifact = path.startswith("/targets/builds/") and not path.endswith(".segments")
        sent = 0

        async def mistreat(message: Message) -> None:
            nonlocal sent
            body = message.get("body", b"")
            if artifact and body:
                if self.tampering:
                    middle = len(body) // 2
                    body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
                if self.stall_after is not None and sent + len(body) > self.stall_after:
                    first = body[: self.stall_after - sent]
                    await send({**message, "body": first, "more_body": True})
                    self.stalled.set()
                    while self.stall_after is not None:  # noqa: ASYNC110  set by another thread
                        await asyncio.sleep(POLL)
                    raise ConnectionAbortedError("the power is back, the old connection is gone")
                sent += len(body)
            await send({**message, "body": body} if "body" in message else message)

        await self._application(scope, receive, mistreat)
