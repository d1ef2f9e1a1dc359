"""What a listing left out, for people; loads quickly, since the command does so at its start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flowers_batch.sources.skipping import kind_text

_NAMED = {
    "loops": "links to a folder that contains them, not followed",
    "broken_links": "links that lead nowhere",
    "nameless_folders": "keys with an empty part, which cannot be opened",
}


def describe_left_out(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return what was left out, by what it is: `{"ignored": "3 .mov, 1 .txt"}`.

    Args:
        summary: What `LeftOut.to_json` returned, among others; version 0.1 wrote nothing of it.
    """
    skipped = skipped_text(summary.get("skipped", {}), summary.get("skipped_at_least", ()))
    found = {"skipped": skipped, "ignored": endings_text(summary.get("ignored_endings", {}))}
    found |= {words: _names_text(summary[name]) for name, words in _NAMED.items() if name in summary}
    return {words: text for words, text in found.items() if text}


def skipped_text(skipped: Mapping[str, int], at_least: Sequence[str]) -> str:
    """Return what was skipped: `168 in @eaDir, 100,000 or more in #snapshot`."""
    more = dict.fromkeys(at_least, " or more")
    return ", ".join(f"{count:,}{more.get(kind, '')} {kind_text(kind)}" for kind, count in skipped.items())


def endings_text(endings: Mapping[str, int]) -> str:
    """Return what was ignored: `3 .mov, 1 .txt, 1 without ending`."""
    return ", ".join(f"{count:,} {ending or 'without ending'}" for ending, count in endings.items())


def _names_text(names: Mapping[str, Any]) -> str:
    """Return names, or the first of them: `daisy/again, ... (12 in all)`."""
    rest = [f"... ({names['count']:,} in all)"] if names["count"] > len(names["first"]) else []
    return ", ".join(names["first"] + rest)
