"""Exceptions whose text is one sentence for the user: what is wrong with which thing, and what to do.

A text names settings as Python does, in backticks (`shard_size`); the command line shows them as its options.
"""

from __future__ import annotations


class FlowersError(Exception):
    """An error that a user can fix; its text says what is wrong with which thing, and what to do."""

    exit_code = 1


class InputError(FlowersError):
    """Bad usage or bad input."""

    exit_code = 2


class RunError(FlowersError):
    """The run started, and failed or is incomplete."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type if it has none; ends in a full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".") + "."
