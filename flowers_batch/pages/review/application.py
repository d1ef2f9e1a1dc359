"""The review page as a web application: its files, pictures of photos, and a JSON API.

Requests are worked on in lanes, so that neither many thumbnails nor a slow view delay a label.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from flowers_batch.errors import FlowersError, InputError, first_line
from flowers_batch.pages.review.filters import filters_in
from flowers_batch.pages.review.lanes import Busy, Lane, NoLongerWanted
from flowers_batch.pages.review.requests import (
    chosen_in,
    integer_in,
    json_object,
    labels_in,
    number_in,
    read_body,
    rows_in,
)
from flowers_batch.pages.review.review import Review
from flowers_batch.pages.thumbnails import LARGE, SMALL, NoThumbnail

_STATIC = files("flowers_batch.pages.review") / "static"
_INDEX = "review.html"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
_SIMILAR = 100  # photos, if a request does not say how many
# The report has styles and pictures in it, and nothing else; the guard adds the other headers.
_REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)

Work = Callable[[Request, dict[str, Any]], Any]
Endpoint = Callable[[Request], Awaitable[Response]]


def application(review: Review) -> Starlette:
    """Return the web application of a review."""
    labels = Lane(threads=1, waiting=32)  # changes are written one after the other anyway
    views = Lane(threads=2, waiting=32)
    searches = Lane(threads=2, waiting=16)  # which read codes
    thumbnails = Lane(threads=SMALL.in_flight, waiting=128)  # which wait for decode workers
    large = Lane(threads=LARGE.in_flight, waiting=8)
    return Starlette(
        routes=[
            *(Route(f"/{'' if name == _INDEX else name}", _static_endpoint(name)) for name in _static_files()),
            Route("/thumbnail/{row}", _picture_endpoint(lambda request: _thumbnail(review, request), thumbnails)),
            Route("/large/{row}", _picture_endpoint(lambda request: _large(review, request), large)),
            Route("/report", _report_endpoint(review, views)),
            _get("/api/state", lambda request, body: review.state(), views),
            _get("/api/view", lambda request, body: _select_view(review, request), views),
            _get("/api/groups", lambda request, body: review.views.groups(filters_in(request.query_params)), views),
            _post("/api/photos", lambda request, body: review.photos(rows_in(body)), views),
            _get("/api/photo/{row}", lambda request, body: review.photo(_row(request)), searches),
            _post("/api/split", lambda request, body: _split(review, request, body), searches),
            _post("/api/similar", lambda request, body: _similar(review, body), searches),
            _post("/api/label", lambda request, body: _label(review, body), labels),
            _post("/api/undo", lambda request, body: review.undo(), labels),
            _get("/api/train", lambda request, body: _train(review, request), views, "POST"),
            _get("/api/finish", lambda request, body: _finish(review, request), views, "POST"),
        ],
        exception_handlers={Busy: _answer_busy},
    )


def _get(path: str, work: Work, lane: Lane, *more: str) -> Route:
    return Route(path, _json_endpoint(work, lane), methods=["GET", *more])


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


def _picture_endpoint(make: Callable[[Request], bytes], lane: Lane) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        async def is_wanted() -> bool:
            return not await request.is_disconnected()  # as it is when scrolled out of sight

        try:
            with lane.place():
                image = await lane.run(lambda: make(request), is_wanted)
        except NoLongerWanted:
            return Response(status_code=404)
        except (NoThumbnail, FlowersError) as error:
            return PlainTextResponse(first_line(error), 404)
        return Response(image, media_type="image/webp")

    return endpoint


def _report_endpoint(review: Review, lane: Lane) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        try:
            with lane.place():
                page = await lane.run(review.training.finishing.page)
        except (FlowersError, OSError) as error:
            return PlainTextResponse(first_line(error), 404)
        return Response(page, media_type="text/html", headers={"Content-Security-Policy": _REPORT_POLICY})

    return endpoint


def _json_endpoint(work: Work, lane: Lane) -> Endpoint:
    """Return an endpoint that answers with the result of `work` as JSON, or `{"error": ...}`."""

    async def endpoint(request: Request) -> Response:
        with lane.place():
            try:
                content = await read_body(request)
                # Texts of megabytes are parsed and written in the thread, too.
                return await lane.run(lambda: JSONResponse(work(request, json_object(content))))
            except FlowersError as error:
                return JSONResponse({"error": str(error)}, 400 if isinstance(error, InputError) else 500)
            except Exception as error:
                return JSONResponse({"error": f"The server failed: {first_line(error)}"}, 500)

    return endpoint


def _thumbnail(review: Review, request: Request) -> bytes:
    return review.images.thumbnail(_row(request))


def _large(review: Review, request: Request) -> bytes:
    edge = request.query_params.get("edge", str(LARGE.edge))
    return review.images.large(_row(request), number_in(edge, "edge"))


def _row(request: Request) -> int:
    return number_in(request.path_params["row"], "row")


def _select_view(review: Review, request: Request) -> Any:
    return review.views.select(request.query_params.get("name", ""), filters_in(request.query_params))


def _split(review: Review, request: Request, body: dict[str, Any]) -> Any:
    return review.views.split(integer_in(body, "id"), filters_in(request.query_params))


def _similar(review: Review, body: dict[str, Any]) -> Any:
    return review.similar.nearest(rows_in(body), integer_in(body, "count", _SIMILAR))


def _label(review: Review, body: dict[str, Any]) -> Any:
    rows = rows_in(body)
    return review.label(rows, labels_in(body, len(rows)), chosen_in(body, len(rows)))


def _train(review: Review, request: Request) -> Any:
    if request.method == "POST":
        review.training.start()
    return review.training.status()


def _finish(review: Review, request: Request) -> Any:
    if request.method == "POST":
        review.training.finishing.start()
    return vars(review.training.finishing.status)
