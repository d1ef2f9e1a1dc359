"""The connections of the review's server: bounded in number, and closed if they keep it waiting."""

from __future__ import annotations

import asyncio
import resource
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from flowers_batch.pages.review.guard import Application, Message, Receive, Send

HEADER_SECONDS = 10  # for the whole header of a request, from the connection or from the first byte after an answer
IDLE_SECONDS = 60  # for reading an answer and beginning the next request
_MAX_CONNECTIONS = 256  # a browser opens six per page
_MAX_BACKLOG = 32  # connections that the kernel holds until they are accepted


def max_connections() -> int:
    """Return how many connections may be open: at most a quarter of the files that the process may open."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_CONNECTIONS if files == resource.RLIM_INFINITY else max(1, min(_MAX_CONNECTIONS, files // 4))


def backlog() -> int:
    """Return how many connections may wait in the kernel; the event loop accepts as many at once, beyond the bound."""
    return min(_MAX_BACKLOG, max_connections() // 2 + 1)


class Connections:
    """Passes requests (ASGI) to an application, and bounds the connections on which they come.

    If there are too many, the one that has waited longest for a request is closed, so that strangers who open
    connections and say nothing do not keep the page's own from being served.

    Args:
        app: The application.
        limit: How many may be open.
    """

    def __init__(self, app: Application, limit: int):
        self._app, self._limit = app, limit
        self._open: dict[Any, Connection] = {}  # by the client's address
        self._waiting: dict[Connection, None] = {}  # for a request, the one that has waited longest first

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve a request (ASGI)."""
        connection = self._open.get(scope.get("client"))
        if connection is None:  # it was closed meanwhile
            await self._app(scope, receive, send)
            return

        async def send_watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                connection.wait(IDLE_SECONDS, is_idle=True)
            await send(message)

        connection.stop_waiting()
        await self._app(scope, receive, send_watched)

    def add(self, connection: Connection) -> None:
        """Register a new connection; close another one if there are too many."""
        self._open[connection.client] = connection
        if len(self._open) > self._limit:
            longest = next(iter(self._waiting), connection)
            longest.transport.abort()
            self.remove(longest)

    def remove(self, connection: Connection) -> None:
        """Forget a connection that was closed."""
        self._waiting.pop(connection, None)
        if self._open.get(connection.client) is connection:
            del self._open[connection.client]

    def set_waiting(self, connection: Connection, is_waiting: bool) -> None:
        """Note whether a connection waits for a request."""
        self._waiting.pop(connection, None)
        if is_waiting and self._open.get(connection.client) is connection:
            self._waiting[connection] = None


class Connection(H11Protocol):
    """A connection to a server whose application is `Connections`. It is closed if no request comes in time."""

    _timer: asyncio.TimerHandle | None = None
    _is_idle = False  # whether no byte has come since the last answer

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._all: Connections = self.config.app  # type: ignore[assignment]
        self._all.add(self)
        self.wait(HEADER_SECONDS)

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request."""
        if self._is_idle:
            self.wait(HEADER_SECONDS)
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.stop_waiting()
        self._all.remove(self)
        super().connection_lost(exc)

    def wait(self, seconds: float, *, is_idle: bool = False) -> None:
        """Close the connection unless a request begins within some seconds.

        Args:
            seconds: From now on.
            is_idle: Whether it is the next byte that is waited for, after an answer.
        """
        self.stop_waiting()
        self._is_idle = is_idle
        if not self.transport.is_closing():
            self._timer = self.loop.call_later(seconds, self.transport.abort)
            self._all.set_waiting(self, True)

    def stop_waiting(self) -> None:
        """A request has begun, or the connection has ended."""
        self._is_idle = False
        if self._timer:
            self._timer.cancel()
        self._all.set_waiting(self, False)
