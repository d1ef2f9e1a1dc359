"""The review page as a web application: its files, thumbnails, and a JSON API.

Requests are worked on in three lanes, so that neither many thumbnails nor a slow view delay a label.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from flowers_batch.errors import FlowersError, InputError, first_line
from flowers_batch.pages.review.lanes import Busy, Lane, NoLongerWanted
from flowers_batch.pages.review.review import Review
from flowers_batch.pages.review.views import MAX_ROWS
from flowers_batch.pages.thumbnails import IN_FLIGHT, NoThumbnail

_MAX_BODY_BYTES = 4 << 20  # of a request: more than the rows of a view
_BODY_SECONDS = 30  # for the body of a request to arrive
_STATIC = files("flowers_batch.pages.review") / "static"
_INDEX = "review.html"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}

Work = Callable[[Request, dict[str, Any]], Any]
Endpoint = Callable[[Request], Awaitable[Response]]


def application(review: Review) -> Starlette:
    """Return the web application of a review."""
    labels = Lane(threads=1, waiting=32)  # changes are written one after the other anyway
    views = Lane(threads=2, waiting=32)
    thumbnails = Lane(threads=IN_FLIGHT, waiting=128)  # which wait for decode workers
    return Starlette(
        routes=[
            *(Route(f"/{'' if name == _INDEX else name}", _static_endpoint(name)) for name in _static_files()),
            Route("/thumbnail/{row}", _thumbnail_endpoint(review, thumbnails)),
            Route("/api/state", _json_endpoint(lambda request, body: review.state(), views)),
            Route("/api/view", _json_endpoint(lambda request, body: _select_view(review, request), views)),
            _post("/api/photos", lambda request, body: review.photos(_rows_in(body)), views),
            _post("/api/label", lambda request, body: _label(review, body), labels),
            _post("/api/undo", lambda request, body: review.labels.undo(), labels),
            Route(
                "/api/train",
                _json_endpoint(lambda request, body: _train(review, request), views),
                methods=["GET", "POST"],
            ),
        ],
        exception_handlers={Busy: _answer_busy},
    )


def _post(path: str, work: Work, lane: Lane) -> Route:
    return Route(path, _json_endpoint(work, lane), methods=["POST"])


async def _answer_busy(request: Request, error: Exception) -> Response:
    sentence = "The server has too many requests to answer: try again in a second."
    return JSONResponse({"error": sentence}, 503, {"Retry-After": "1"})


def _static_files() -> list[str]:
    return sorted(file.name for file in _STATIC.iterdir() if os.path.splitext(file.name)[1] in _TYPES)


def _static_endpoint(name: str) -> Endpoint:
    media_type = _TYPES[os.path.splitext(name)[1]]

    async def endpoint(request: Request) -> Response:
        return Response((_STATIC / name).read_bytes(), media_type=media_type)

    return endpoint


def _thumbnail_endpoint(review: Review, lane: Lane) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        async def is_wanted() -> bool:
            return not await request.is_disconnected()  # as it is when scrolled out of sight

        try:
            row = int(request.path_params["row"])
            with lane.place():
                image = await lane.run(lambda: review.thumbnails.thumbnail(row), is_wanted)
        except NoLongerWanted:
            return Response(status_code=404)
        except (NoThumbnail, FlowersError, ValueError) as error:
            return PlainTextResponse(first_line(error), 404)
        return Response(image, media_type="image/webp")

    return endpoint


def _json_endpoint(work: Work, lane: Lane) -> Endpoint:
    """Return an endpoint that answers with the result of `work` as JSON, or `{"error": ...}`."""

    async def endpoint(request: Request) -> Response:
        with lane.place():
            try:
                content = await _body(request)
                # Texts of megabytes are parsed and written in the thread, too.
                return await lane.run(lambda: JSONResponse(work(request, _json_object(content))))
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


async def _body(request: Request) -> bytes:
    content = b""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                content += part
                if len(content) > _MAX_BODY_BYTES:
                    raise InputError("The request is too large: select fewer photos.")
    except TimeoutError:
        raise InputError(f"The request took more than {_BODY_SECONDS} s to arrive: try again.") from None
    return content


def _json_object(content: bytes) -> dict[str, Any]:
    """Return a request's body, which must be a JSON object; empty if there is no body."""
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
    if len(rows) > MAX_ROWS:
        raise InputError(f"At most {MAX_ROWS:,} photos are labelled at once. Received: {len(rows):,}.")
    return rows
