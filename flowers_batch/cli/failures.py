"""Errors of a command: a sentence on standard error, and an exit code."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from flowers_batch.cli.options import as_options
from flowers_batch.errors import FlowersError
from flowers_batch.text import visible, visible_lines

RUN_FAILED, BAD_INPUT = 1, 2  # exit codes


@contextmanager
def failures_as_sentences(context: typer.Context, debug: bool) -> Iterator[None]:
    """End the process with a sentence and an exit code where the block raises an error that a user can fix.

    Other exceptions are faults of this program and pass, as their tracebacks are needed.
    """
    try:
        yield
    except FlowersError as error:
        _end(as_options(str(error), _settings(context)), error.exit_code, debug)
    except OSError as error:
        _end(f"{error.filename}: {error.strerror}." if error.filename else str(error), RUN_FAILED, debug)
    except ValueError as error:
        from tensorflow_vgg.formats import WeightsError

        if not isinstance(error, WeightsError):
            raise
        _end(str(error), BAD_INPUT, debug)


def _end(sentence: str, code: int, debug: bool) -> None:
    if debug:
        print(visible_lines(traceback.format_exc()), file=sys.stderr)
    print(f"error: {visible(sentence)}", file=sys.stderr)
    sys.exit(code)


def _settings(context: typer.Context) -> set[str]:
    """Return the names of the settings that are options of any command."""
    found: set[str] = set()
    commands: list[Any] = [context.find_root().command]
    while commands:
        command = commands.pop()
        commands += getattr(command, "commands", {}).values()
        found |= {each.name.rstrip("_") for each in command.params if each.opts[0].startswith("--")}
    return found
