"""The review page as a web application: its files, thumbnails, and a JSON API."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from flowers_batch.decoding.formats import DecodeError
from flowers_batch.errors import FlowersError, InputError, first_line
from flowers_batch.pages.review.review import Review
from flowers_batch.sources.reading import ReadError

_MAX_BODY_BYTES = 4 << 20  # of a request: a hundred thousand rows
_STATIC = files("flowers_batch.pages.review") / "static"
_INDEX = "review.html"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}

Work = Callable[[Request, dict[str, Any]], Any]
Endpoint = Callable[[Request], Awaitable[Response]]


def application(review: Review) -> Starlette:
    """Return the web application of a review."""
    api = _json_endpoint
    return Starlette(
        routes=[
            *(Route(f"/{'' if name == _INDEX else name}", _static_endpoint(name)) for name in _static_files()),
            Route("/thumbnail/{row}", _thumbnail_endpoint(review)),
            Route("/api/state", api(lambda request, body: review.state())),
            Route("/api/view", api(lambda request, body: _select_view(review, request))),
            Route("/api/photos", api(lambda request, body: review.photos(_rows_in(body))), methods=["POST"]),
            Route("/api/label", api(lambda request, body: _label(review, body)), methods=["POST"]),
            Route("/api/undo", api(lambda request, body: review.labels.undo()), methods=["POST"]),
            Route("/api/train", api(lambda request, body: _train(review, request)), methods=["GET", "POST"]),
        ]
    )


def _static_files() -> list[str]:
    return sorted(file.name for file in _STATIC.iterdir() if os.path.splitext(file.name)[1] in _TYPES)


def _static_endpoint(name: str) -> Endpoint:
    media_type = _TYPES[os.path.splitext(name)[1]]

    async def endpoint(request: Request) -> Response:
        return Response((_STATIC / name).read_bytes(), media_type=media_type)

    return endpoint


def _thumbnail_endpoint(review: Review) -> Endpoint:
    # Limits threads that decode, not those that label: thumbnails wait for each other, labels do not wait for them.
    decoding = asyncio.Semaphore(os.cpu_count() or 1)

    async def endpoint(request: Request) -> Response:
        try:
            row = int(request.path_params["row"])
            async with decoding:
                if await request.is_disconnected():  # scrolled out of sight
                    return Response(status_code=404)
                image = await _in_daemon_thread(lambda: review.thumbnails.thumbnail(row))
        except (ReadError, DecodeError, FlowersError, ValueError) as error:
            return PlainTextResponse(first_line(error), 404)
        return Response(image, media_type="image/webp", headers={"Cache-Control": "private, max-age=3600"})

    return endpoint


def _json_endpoint(work: Work) -> Endpoint:
    """Return an endpoint that answers with the result of `work` as JSON, or `{"error": ...}`."""

    async def endpoint(request: Request) -> Response:
        try:
            body = await _json_body(request)
            return JSONResponse(await _in_daemon_thread(lambda: work(request, body)))
        except FlowersError as error:
            return JSONResponse({"error": str(error)}, 400 if isinstance(error, InputError) else 500)
        except Exception as error:
            return JSONResponse({"error": f"The server failed: {first_line(error)}"}, 500)

    return endpoint


def _select_view(review: Review, request: Request) -> Any:
    return review.views.select(request.query_params.get("name", ""), request.query_params.get("label", ""))


def _label(review: Review, body: dict[str, Any]) -> Any:
    rows, labels = _rows_in(body), body.get("labels")
    if not isinstance(labels, list):  # one for all
        labels = [labels] * len(rows)
    if len(labels) != len(rows) or not all(label is None or isinstance(label, str) for label in labels):
        raise InputError("`labels` must be text: one label for all photos, or one per photo.")
    return review.labels.set(rows, labels)


def _train(review: Review, request: Request) -> Any:
    if request.method == "POST":
        review.retraining.start()
    return vars(review.retraining.status)


async def _in_daemon_thread(work: Callable[[], Any]) -> Any:
    """Return the result of `work`, run in a thread that the server does not wait for when it stops.

    Finding label errors may take minutes.
    """
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append((work(), None))
        except BaseException as error:
            outcome.append((None, error))
        with suppress(RuntimeError):  # the server has stopped
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, daemon=True).start()
    await done.wait()
    value, error = outcome[0]
    if error:
        raise error
    return value


async def _json_body(request: Request) -> dict[str, Any]:
    """Return a request's body, which must be a JSON object; empty if there is no body."""
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > _MAX_BODY_BYTES:
            raise InputError("The request is too large: select fewer photos.")
    try:
        body = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise InputError("The request's body must be a JSON object.")
    return body


def _rows_in(body: dict[str, Any]) -> list[int]:
    rows = body.get("rows")
    if not isinstance(rows, list) or not rows or not all(type(row) is int for row in rows):
        raise InputError("`rows` must be a list of integers, at least one.")
    return rows
