"""A repository over HTTP, for trying out: `metadata/`, `targets/` and, in a lab, `recovery/`.

Ranges, entity tags and conditional requests are Starlette's. Ours are the cache rules of design 8
(versioned and hashed objects never change, `timestamp.json` is always asked again, errors are not
kept) and that nothing else of the storage is served: not the inbox, not files that begin with a dot
(they are still being written). A storage that is not on this machine is read as it is asked for.
Not for the internet: there a CDN or web server does this.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from client_reference.errors import ConfigurationError, FirmrootError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import BinaryIO

    from starlette.requests import Request
    from starlette.types import Scope

    from repo_tools.storage.protocol import Storage

__all__ = ["application", "listen", "run"]

IMMUTABLE = "public, max-age=31536000, immutable"
ALWAYS_ASK = "no-cache"
NEVER_KEEP = "no-store"
_PIECE = 1 << 18
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class _Objects(StaticFiles):
    """One public directory of a storage."""

    async def check_config(self) -> None:
        """A directory that is not there yet has no objects; that is no failure of the server."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """Find a file; names that begin with a dot are not objects."""
        if any(segment.startswith(".") for segment in path.split("/")):
            return "", None
        return super().lookup_path(path)

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """The file, with how long it may be cached."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["cache-control"] = _lifetime(str(full_path))
        return response


def _lifetime(path: str) -> str:
    return ALWAYS_ASK if path.endswith("/timestamp.json") else IMMUTABLE


def _stored(storage: Storage, name: str, below: str) -> Route:
    """What lies below a path of a storage that is not on this machine."""

    def answer(request: Request) -> Response:
        path = f"{below}{request.path_params['path']}"
        if any(segment.startswith(".") or not segment for segment in path.split("/")):
            raise HTTPException(404)
        try:
            with storage.open(path) as stream:
                length = stream.seek(0, os.SEEK_END)
        except NotFoundError as error:
            raise HTTPException(404) from error
        except FirmrootError as error:
            raise HTTPException(502) from error
        headers = {"accept-ranges": "bytes", "cache-control": _lifetime(path)}
        asked = _RANGE.fullmatch(request.headers.get("range", ""))
        if asked is None:
            headers["content-length"] = str(length)
            return StreamingResponse(_pieces(storage, path, 0, length), 200, headers)
        first, last = int(asked[1]), min(int(asked[2] or length), length - 1)
        if first > last:
            raise HTTPException(416, headers={"content-range": f"bytes */{length}"})
        headers["content-length"] = str(last + 1 - first)
        headers["content-range"] = f"bytes {first}-{last}/{length}"
        return StreamingResponse(_pieces(storage, path, first, last + 1), 206, headers)

    return Route(f"/{name}/{{path:path}}", answer, methods=["GET"])


def _pieces(storage: Storage, path: str, first: int, end: int) -> Iterator[bytes]:
    """The bytes from `first` to before `end`."""
    stream: BinaryIO
    with storage.open(path) as stream:
        stream.seek(first)
        while first < end and (piece := stream.read(min(_PIECE, end - first))):
            first += len(piece)
            yield piece


def _refuse(request: Request, error: Exception) -> Response:
    """A short answer that no cache keeps: `N+1.root.json` is probed on every check."""
    del request
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers: Mapping[str, str] | None = getattr(error, "headers", None)
    return PlainTextResponse(
        f"{status}\n", status, headers={**(headers or {}), "cache-control": NEVER_KEEP}
    )


def application(root: Path | Storage, recovery: Path | Storage | None = None) -> Starlette:
    """The storage and the recovery storage, in directories or not, as an ASGI application."""
    routes: list[BaseRoute] = [
        _local(name, root / name) if isinstance(root, Path) else _stored(root, name, f"{name}/")
        for name in ("metadata", "targets")
    ]
    if recovery is not None:
        routes.append(
            _local("recovery", recovery)
            if isinstance(recovery, Path)
            else _stored(recovery, "recovery", "")
        )
    return Starlette(routes=routes, exception_handlers={HTTPException: _refuse})


def _local(name: str, place: Path) -> Mount:
    return Mount(f"/{name}", _Objects(directory=place, check_dir=False))


def listen(host: str, port: int) -> socket.socket:
    """Take the address, so that what is wrong with it is known before anything starts.

    Args:
        host: name or address of an interface of this machine.
        port: 0 lets the system choose.

    Raises:
        ConfigurationError: the address is in use, not ours, or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        found = "is in use by another program" if error.errno == errno.EADDRINUSE else str(error)
        raise ConfigurationError(
            f"cannot listen on {host} port {port}: {found}",
            f"choose another one: firmroot serve --port {port + 1}",
        ) from error
    return listener


def run(
    root: Path | Storage,
    listener: socket.socket,
    ready: Callable[[str], None],
    *,
    log: bool,
    recovery: Path | Storage | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, then return.

    Args:
        root: directory of the storage, or the storage.
        listener: from `listen`.
        ready: told the URL once connections are answered.
        log: one line per request on the terminal.
        recovery: directory of the recovery storage, or that, served below `recovery/`.
    """
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
    config = uvicorn.Config(
        application(root, recovery),
        lifespan="off",
        log_config=uvicorn.config.LOGGING_CONFIG if log else None,
        access_log=log,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    # Uvicorn raises the signal that stopped it again when it is done; stopping is no failure here.
    before = {number: signal.signal(number, _ignore) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _Server(config, lambda: ready(url)).run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        listener.close()


def _ignore(*_: object) -> None:
    return None


class _Server(uvicorn.Server):
    """Says when it answers: the socket is bound long before."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then tell."""
        await super().startup(sockets)
        self._ready()
