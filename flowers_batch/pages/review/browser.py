"""A browser that opens the review page, without showing its token to other users of the machine."""

from __future__ import annotations

import os
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flowers_batch.progress import Reporter
from flowers_batch.storage.local_files import reason_of
from flowers_batch.storage.scratch import scratch_folder

_FILE = "review.html"
_REDIRECT = (
    '<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer"><title>Review labels</title>'
    '<meta http-equiv="refresh" content="0; url={0}"><a href="{0}">Review labels</a>\n'
)
_SECONDS = 15  # until a browser that has started should have opened the page
_ADVICE = "open the address above in one"


@contextmanager
def opened_in_browser(url: str, entered: threading.Event, reporter: Reporter) -> Iterator[None]:
    """Open a page in a browser while the block runs.

    Other users see the arguments of the browser's process. Therefore it is given a file that only this user can read,
    and that leads on to the page. Some browsers, such as those in a snap or on another machine, cannot read it either.

    Args:
        url: The page's address, which is a secret.
        entered: Set when the page was opened.
        reporter: Receives a message if it was not.
    """
    with ExitStack() as stack:
        stack.callback(entered.set)  # no message after the end
        try:
            file = _write_redirect(stack.enter_context(scratch_folder()), url)
        except OSError as error:
            reporter.message(f"No browser is opened, since no file can be made for it ({reason_of(error)}): {_ADVICE}.")
        else:
            # In a thread: a browser in the terminal would keep the page from being served.
            threading.Thread(target=_open, args=(file, entered, reporter), daemon=True).start()
        yield


def _write_redirect(folder: str, url: str) -> Path:
    file = Path(folder, _FILE)
    with open(file, "x", encoding="utf-8", opener=_private) as stream:
        stream.write(_REDIRECT.format(url))
    return file


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _open(file: Path, entered: threading.Event, reporter: Reporter) -> None:
    if not webbrowser.open(file.as_uri()) or not entered.wait(_SECONDS):
        reporter.message(f"No browser has opened the page: {_ADVICE}.")
