"""The guard in front of the review page: who may enter, checks of host and origin, and security headers."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, PlainTextResponse, Response

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_OWN_SITES = ("", "none", "same-origin")  # Sec-Fetch-Site: of old browsers and scripts, of a person, of the page
_ENTRANCE = (
    '<!doctype html><title>Review labels</title><link rel="icon" href="data:,">'
    '<meta http-equiv="refresh" content="0; url={0}"><a href="{0}">Review labels</a>'
)
_NOT_THE_PAGE = "Only the review page itself may use this address."
_NO_COOKIE = "This address works only in a browser that has opened the one which the review printed: open that again."


class Guard:
    """Passes only requests of a browser that has shown the token, that address this machine and come from the page.

    The address with the token gives the browser a cookie and leads on to the page, whose address has no token. A
    browser sends a cookie to every port of a machine; the page's path, which nobody can guess, keeps it from servers of
    other users.

    Args:
        app: The application (ASGI), which sees paths below the page's.
        origin: Scheme, host and port of the page.

    Attributes:
        single_use_url: As `url`, with another token, which works once. A browser's history keeps it on the disk.
        entered: Set once a browser has shown a token.
    """

    def __init__(self, app: Application, origin: str):
        self._app, self._origin = app, origin
        self._token, self._single_use_token, path, cookie = (secrets.token_urlsafe(24) for _ in range(4))
        self._page = f"/{path}/"
        self._cookie = f"flowers-review-{urlsplit(origin).port}={cookie}"
        self.single_use_url = f"{origin}/?token={self._single_use_token}"
        self.entered = threading.Event()

    @property
    def url(self) -> str:
        """The address with the token; it works until the review ends, any number of times."""
        return f"{self._origin}/?token={self._token}"

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve a request (ASGI)."""
        if scope["type"] != "http":
            return

        async def send_hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                ours = ((name.lower().encode(), value.encode()) for name, value in _HEADERS.items())
                message["headers"] = [*message["headers"], *(header for header in ours if header[0] not in present)]
            await send(message)

        answer = self._answer(scope)
        if answer is not None:
            await answer(scope, receive, send_hardened)
            return
        rest = scope["path"][len(self._page) - 1 :]
        inner = {**scope, "path": rest, "raw_path": rest.encode()}
        with suppress(asyncio.CancelledError):  # the server stops without waiting for requests
            await self._app(inner, receive, send_hardened)

    def _answer(self, scope: Message) -> Response | None:
        """Return the guard's own answer to a request; None if the application is to answer it."""
        headers = Headers(scope=scope)
        is_reading = scope["method"] in ("GET", "HEAD")
        # Against DNS rebinding: another site, open in a browser here, could have its own name resolve to this machine.
        if f"http://{headers.get('host', '')}" != self._origin:
            return _refusal(_NOT_THE_PAGE)
        if headers.get("origin", "") not in ((self._origin, "") if is_reading else (self._origin,)):
            return _refusal(_NOT_THE_PAGE)
        if is_reading and scope["path"] == "/" and self._is_token(scope["query_string"]):
            self.entered.set()
            # Not a redirect: as the last step of a navigation from another site it would come without the cookie.
            cookie = f"{self._cookie}; Path={self._page}; HttpOnly; SameSite=Strict"
            return HTMLResponse(_ENTRANCE.format(self._page), headers={"Set-Cookie": cookie})
        # A site is all ports of a host: a page of another server on this machine has the browser send the cookie, too.
        if headers.get("sec-fetch-site", "") not in _OWN_SITES:
            return _refusal(_NOT_THE_PAGE)
        if not scope["path"].startswith(self._page) or not self._has_cookie(headers):
            return _refusal(_NO_COOKIE)
        return None

    def _is_token(self, query: bytes) -> bool:
        given = parse_qs(query.decode("latin-1")).get("token", [""])[0].encode()
        if secrets.compare_digest(given, self._single_use_token.encode()):
            self._single_use_token = secrets.token_urlsafe(24)
            return True
        return secrets.compare_digest(given, self._token.encode())

    def _has_cookie(self, headers: Headers) -> bool:
        cookies = "; ".join(headers.getlist("cookie")).split("; ")
        return any(secrets.compare_digest(each.encode(), self._cookie.encode()) for each in cookies)


def _refusal(sentence: str) -> Response:
    """Return an answer after which the connection is closed, so that nothing more is read from it."""
    return PlainTextResponse(sentence, 403, {"Connection": "close"})
