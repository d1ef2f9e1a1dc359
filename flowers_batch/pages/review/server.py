"""The review page's web server: on this machine only, behind a token."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from typing import Any

import uvicorn

from flowers_batch.errors import InputError
from flowers_batch.pages.review.application import application
from flowers_batch.pages.review.browser import opened_in_browser
from flowers_batch.pages.review.connections import IDLE_SECONDS, Connection, Connections, backlog, max_connections
from flowers_batch.pages.review.guard import Guard
from flowers_batch.pages.review.review import Review
from flowers_batch.progress import NULL_REPORTER, Reporter
from flowers_batch.storage.opening import PathOrUrl

LABELS = "labels.csv"
_HOST = "127.0.0.1"
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)  # of `accept`


def review(
    folder: PathOrUrl,
    labels: PathOrUrl = LABELS,
    port: int = 0,
    *,
    images: PathOrUrl | None = None,
    root: PathOrUrl | None = None,
    model: PathOrUrl | None = None,
    codes: PathOrUrl | None = None,
    min_precision: float | None = None,
    follow_links: bool = False,
    open_browser: bool = True,
    announce: Callable[[str], None] = print,
    reporter: Reporter = NULL_REPORTER,
) -> None:
    """Serve the page on which a person gives or corrects labels, until SIGINT or SIGTERM.

    Args:
        folder: A folder of codes, which needs no labels, or of predictions.
        labels: The CSV file on this machine that gets the labels; `train` takes it as `labels`.
        port: On 127.0.0.1; 0 takes a free one.
        images, root, model, codes: Where the photos, what a list of them is relative to, the model and the codes are;
            None: where `job.json` says, if that may be followed.
        min_precision: The precision that labels must reach with a confidence of 95% to count as certain; None: that of
            the predictions' classifier, or 0.95.
        follow_links: Whether photos are shown that links in the photos' folder name, but that are outside it.
        open_browser: Whether to open the page in a browser.
        announce: Called with the page's address, which is a secret, and when the review ends with the commands that
            train and predict from the labels, one at a time.
        reporter: Receives where photos are read from, how many are not shown without `follow_links`, whether no browser
            opened the page, and whether the end of the labels file was moved away.

    Raises:
        InputError: It is a folder of neither codes nor predictions, its rows do not fit in memory, labels cannot be
            written to the file, or the port is in use.
    """
    given = {"images": images, "root": root, "model": model, "codes": codes}
    reviewed = Review(folder, labels, follow_links=follow_links, min_precision=min_precision, **given)
    with closing(reviewed), listen(port) as listener:
        reviewed.start()
        reporter.message(f"photos are read from {reviewed.table.run.photos[0]}")
        server = ReviewServer(reviewed, listener)
        announce(server.url)
        if torn := reviewed.labels.journal.torn:
            reporter.message(f"The last row of {labels} was written in part only: it has been moved to {torn}.")
        reviewed.outside_links.start(reporter)
        with opened_in_browser(server.single_use_url, server.entered, reporter) if open_browser else nullcontext():
            server.run()
    for command in reviewed.training.plan.commands() if len(reviewed.labels) else ():
        announce(command)


def listen(port: int) -> socket.socket:
    """Return a socket that listens on a port of this machine; 0 takes a free one.

    Raises:
        InputError: The port is in use, or not allowed.
    """
    try:
        return socket.create_server((_HOST, port))
    except (OSError, OverflowError):
        raise InputError(f"Port {port} is in use or not allowed: choose another `port`, or 0 for a free one.") from None


class ReviewServer:
    """Serves a review to browsers that have opened an address with a new token.

    Args:
        review: The review.
        listener: The socket to serve on.

    Attributes:
        url: The address with the token.
        single_use_url: An address that works once.
        entered: Set once a browser has opened one of them.
    """

    def __init__(self, review: Review, listener: socket.socket):
        guard = Guard(application(review), f"http://{_HOST}:{listener.getsockname()[1]}")
        self.url, self.single_use_url, self.entered = guard.url, guard.single_use_url, guard.entered
        self._listener = listener
        self._server = _Server(
            uvicorn.Config(
                Connections(guard, max_connections()),
                http=Connection,
                ws="none",
                lifespan="off",
                proxy_headers=False,  # they would let a client claim another address
                log_level="error",
                use_colors=False,  # control sequences are printed as escapes
                backlog=backlog(),
                timeout_keep_alive=IDLE_SECONDS,
                timeout_graceful_shutdown=2,
            )
        )

    def run(self) -> None:
        """Serve until `stop` is called or, in the main thread, until SIGINT or SIGTERM."""
        self._server.run(sockets=[self._listener])

    def stop(self) -> None:
        """Have `run` return soon; may be called from any thread."""
        self._server.should_exit = True


class _Server(uvicorn.Server):
    """Stops on signals without passing them on, so that its caller continues, and restores their handlers."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections."""
        asyncio.get_running_loop().set_exception_handler(_log_unless_out_of_files)
        await super().startup(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop the server at SIGINT or SIGTERM, immediately at a second one."""
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


def _log_unless_out_of_files(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error of the event loop, but not that no connection can be accepted for now.

    The loop tries that again each second, and would log it once for each connection that waits.
    """
    if getattr(context.get("exception"), "errno", None) not in _OUT_OF_FILES or "socket" not in context:
        loop.default_exception_handler(context)
