"""The guard in front of the review page: checks of token, host and origin, and security headers."""

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
    """Passes only requests that carry the token, address this machine, and come from the page itself.

    Args:
        app: The application (ASGI), which sees paths without the token.
        origin: Scheme, host and port of the page.
        token: The first part of the path of each request.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], origin: str, token: str):
        self._app, self._origin, self._token = app, origin, token

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve a request (ASGI)."""
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        host, origin = (headers.get(name, b"").decode("latin-1") for name in (b"host", b"origin"))
        # Against DNS rebinding: another site, open in a browser here, could have its own name resolve to this machine.
        allowed_origins = {self._origin} if scope["method"] == "POST" else {self._origin, ""}
        _, token, rest = (*scope["path"].split("/", 2), "", None)[:3]

        async def send_hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                ours = ((name.lower().encode(), value.encode()) for name, value in _HEADERS.items())
                message["headers"] = [*message["headers"], *(header for header in ours if header[0] not in present)]
            await send(message)

        if f"http://{host}" != self._origin or origin not in allowed_origins:
            await PlainTextResponse("Only the review page itself may use this address.", 403)(
                scope, receive, send_hardened
            )
        elif rest is None or not secrets.compare_digest(token.encode(), self._token.encode()):
            await PlainTextResponse("There is no such page.", 404)(scope, receive, send_hardened)
        else:
            inner = {**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode()}
            with suppress(asyncio.CancelledError):  # the server stops without waiting for requests
                await self._app(inner, receive, send_hardened)
