"""The review page's web server: on this machine only, behind a token."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import threading
import webbrowser
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from flowers_batch.decoding.formats import DecodeError
from flowers_batch.errors import FlowersError, InputError, first_line
from flowers_batch.pages.review.guard import Guard
from flowers_batch.pages.review.review import Review
from flowers_batch.sources.reading import ReadError
from flowers_batch.storage.folder import PathOrUrl

LABELS = "labels.csv"
_HOST = "127.0.0.1"
_BODY = 4 << 20  # bytes that a request may have: a hundred thousand rows
_FILES = {
    "": ("review.html", "text/html"),
    "review.js": ("review.js", "text/javascript"),
    "review.css": ("review.css", "text/css"),
}


def review(
    predictions: PathOrUrl,
    labels: PathOrUrl = LABELS,
    port: int = 0,
    *,
    opened: bool = True,
    tell: Callable[[str], None] = print,
) -> None:
    """Serves the page on which a person corrects labels, until SIGINT or SIGTERM.

    Args:
        predictions: A folder of predictions.
        labels: The CSV file on this machine that gets the labels; `train` takes it as `labels`.
        port: Of 127.0.0.1; 0 takes a free one.
        opened: Whether a browser is asked to open the page.
        tell: Is given the page's address.

    Raises:
        InputError: It is no such folder, the file cannot get labels, or the port is taken.
    """
    reviewed = Review(predictions, labels)
    try:
        listener = socket.create_server((_HOST, port))
    except (OSError, OverflowError):
        raise InputError(f"Port {port} of this machine is taken, or may not be: name another `port`, or 0.") from None
    with listener:
        token = secrets.token_urlsafe(24)
        origin = f"http://{_HOST}:{listener.getsockname()[1]}"
        app = Guard(application(reviewed), origin, token)
        server = _Server(uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=2))
        tell(f"{origin}/{token}/")
        if opened:  # apart: a browser in the terminal would keep the page from being served
            threading.Thread(target=webbrowser.open, args=(f"{origin}/{token}/",), daemon=True).start()
        try:
            server.run(sockets=[listener])
        finally:
            reviewed.journal.close()
    for command in reviewed.commands() if reviewed.journal.labels else ():
        tell(command)


class _Server(uvicorn.Server):
    """Ends in order when it is told to, and returns, so that its caller has the last word."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the server; a second one does at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self.handle_exit) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


def application(review: Review) -> Starlette:
    """The page and what it asks for."""
    # Pictures wait for each other, and labels for none of them.
    decoding = asyncio.Semaphore(os.cpu_count() or 1)

    def answer(work: Callable[[Request, dict[str, Any]], Any]) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            try:
                asked = await _asked(request)
                return JSONResponse(await _apart(lambda: work(request, asked)))
            except FlowersError as error:
                return JSONResponse({"error": str(error)}, 400 if isinstance(error, InputError) else 500)
            except Exception as error:
                return JSONResponse({"error": f"The server failed: {first_line(error)}"}, 500)

        return handle

    async def page(request: Request) -> Response:
        name, kind = _FILES[request.url.path.removeprefix("/")]
        return Response((files("flowers_batch.pages.review") / "static" / name).read_bytes(), media_type=kind)

    async def thumbnail(request: Request) -> Response:
        try:
            row = int(request.path_params["row"])
            async with decoding:
                if await request.is_disconnected():  # scrolled past
                    return Response(status_code=404)
                image = await _apart(lambda: review.thumbnail(row))
        except (ReadError, DecodeError, FlowersError, ValueError) as error:
            return PlainTextResponse(first_line(error), 404)
        return Response(image, media_type="image/webp", headers={"Cache-Control": "private, max-age=3600"})

    def view(request: Request, asked: dict[str, Any]) -> Any:
        return review.view(request.query_params.get("name", ""), request.query_params.get("label", ""))

    def labelled(request: Request, asked: dict[str, Any]) -> Any:
        rows, labels = _rows_in(asked), asked.get("labels")
        if not isinstance(labels, list):  # one for all
            labels = [labels] * len(rows)
        if len(labels) != len(rows) or not all(label is None or isinstance(label, str) for label in labels):
            raise InputError("Labels must be text, one for all photos or one for each.")
        return review.label(rows, labels)

    def train(request: Request, asked: dict[str, Any]) -> Any:
        if request.method == "POST":
            review.train()
        return vars(review.training)

    return Starlette(
        routes=[
            *(Route(f"/{name}", page) for name in _FILES),
            Route("/thumbnail/{row}", thumbnail),
            Route("/api/state", answer(lambda request, asked: review.state())),
            Route("/api/view", answer(view)),
            Route("/api/photos", answer(lambda request, asked: review.photos(_rows_in(asked))), methods=["POST"]),
            Route("/api/label", answer(labelled), methods=["POST"]),
            Route("/api/undo", answer(lambda request, asked: review.undo()), methods=["POST"]),
            Route("/api/train", answer(train), methods=["GET", "POST"]),
        ]
    )


async def _apart(work: Callable[[], Any]) -> Any:
    """Does something in a thread that nobody waits for when the server ends: judging labels may take minutes."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    found: list[Any] = []

    def run() -> None:
        try:
            found.append((work(), None))
        except BaseException as error:
            found.append((None, error))
        with suppress(RuntimeError):  # the server has ended
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, daemon=True).start()
    await done.wait()
    value, error = found[0]
    if error:
        raise error
    return value


async def _asked(request: Request) -> dict[str, Any]:
    """A request's body: a JSON object; empty where there is none."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _BODY:
            raise InputError("Too much was asked for at once.")
    try:
        asked = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        raise InputError("The request is no JSON object.")
    return asked


def _rows_in(asked: dict[str, Any]) -> list[int]:
    rows = asked.get("rows")
    if not isinstance(rows, list) or not rows or not all(type(row) is int for row in rows):
        raise InputError("Rows must be a list of whole numbers.")
    return rows
