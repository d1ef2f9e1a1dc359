"""Exceptions whose text is one sentence for the user: what is wrong with which thing, and what to do.

A text names settings as Python does, in backticks (`shard_size`); the command line shows them as its options.
"""

from __future__ import annotations


class FlowersError(Exception):
    """What a user can mend: its text is one sentence that says what is wrong with what, and what to do."""

    exit_code = 1


class InputError(FlowersError):
    """The command cannot be done as asked: bad usage or bad input."""

    exit_code = 2


class RunError(FlowersError):
    """The run began and could not be ended whole."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it says nothing; ends in a full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".") + "."
