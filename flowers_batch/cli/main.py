"""The `flowers-batch` command's process: its commands, its signals, its exit code."""

from __future__ import annotations

import io
import os
import signal
import stat
import sys
from typing import NoReturn

# Each of these registers its commands; help lists them in this order.
import flowers_batch.cli.photo_commands
import flowers_batch.cli.result_commands
import flowers_batch.cli.search_commands
import flowers_batch.cli.tagging_commands
import flowers_batch.cli.tree_commands
import flowers_batch.cli.weights_commands  # noqa: F401
from flowers_batch.cli.app import app
from flowers_batch.devices import hide_startup_messages
from flowers_batch.text import VisibleStream, unfiltered

_SECONDS_TO_END = 7  # for an orderly end; then what remains on this machine ends by itself, soon after its driver


def main(arguments: list[str] | None = None) -> None:
    """Run the command, and end the process with its exit code: 0 done, 1 the run failed, 2 bad input.

    Args:
        arguments: The command's arguments; by default the process's.
    """
    _print_any_text_visibly()
    os.umask(os.umask(0o077) | stat.S_IWOTH)  # nothing is made that every user can write, whatever the umask was
    stopped_by: list[int] = []

    def stop(number: int, frame: object) -> NoReturn:
        signal.signal(number, signal.SIG_DFL)  # a second signal ends the process at once
        # An exit that is requested while Python is in a callback is lost, and Ray may be slow to end.
        signal.signal(signal.SIGALRM, lambda *_: os._exit(128 + number))
        signal.alarm(_SECONDS_TO_END)
        stopped_by.append(number)
        print("Stopped. Run encode, finetune, predict or shrink again to resume.", file=sys.stderr)
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    hide_startup_messages()
    try:
        app(sys.argv[1:] if arguments is None else arguments, prog_name="flowers-batch")
    except SystemExit:
        if stopped_by:  # Ray turns an exit that is requested while it waits into one with code 1
            sys.exit(128 + stopped_by[0])
        raise


def _print_any_text_visibly() -> None:
    """Have invisible characters printed as escapes, and those that the terminal's encoding lacks.

    Names of photos may have any; they also stand in errors of libraries and in tracebacks.
    """
    for name in ("stdout", "stderr"):
        stream = unfiltered(getattr(sys, name))
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, VisibleStream(stream))
