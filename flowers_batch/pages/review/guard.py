"""The guard in front of the review server: a token, the host's name, and headers."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from starlette.responses import PlainTextResponse

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Lets only those through who know the token, by the machine's own name, from the page itself.

    Args:
        app: What is guarded; it sees paths without the token.
        origin: Scheme, host and port of the page.
        token: What the path of each request begins with.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], origin: str, token: str):
        self._app, self._origin, self._token = app, origin, token

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serves a request (ASGI)."""
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        host, origin = (headers.get(name, b"").decode("latin-1") for name in (b"host", b"origin"))
        # A page of another site that a browser shows could otherwise have this machine's name resolve to here.
        own = {self._origin} if scope["method"] == "POST" else {self._origin, ""}
        _, token, rest = (*scope["path"].split("/", 2), "", None)[:3]

        async def hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((n.lower().encode(), v.encode()) for n, v in _HEADERS.items() if n.lower().encode() not in given),
                ]
            await send(message)

        if f"http://{host}" != self._origin or origin not in own:
            await PlainTextResponse("This address is for its own page only.", 403)(scope, receive, hardened)
        elif rest is None or not secrets.compare_digest(token.encode(), self._token.encode()):
            await PlainTextResponse("There is no such page.", 404)(scope, receive, hardened)
        else:
            inner = {**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode()}
            with suppress(asyncio.CancelledError):  # the server ends, and waits for nobody
                await self._app(inner, receive, hardened)
