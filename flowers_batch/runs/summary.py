"""The summary of a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Summary:
    """The summary of a run, which `_SUCCESS` holds as JSON.

    Attributes:
        images: Images in the manifest, each of them one row.
        ok, failed: Rows of each status.
        ignored: Files that are not images by their name.
        ignored_endings: These files by the ending of their names, such as `.mov`; "" without one, and rare endings
            as `others`.
        skipped: Photos that were left out, by what left them out: names of systems and programs such as `@eaDir`,
            `hidden`, and `exclude PATTERN`.
        skipped_at_least: Those of them of which there may be more than were counted.
        loops: Links to a folder that contains them, which are not followed: `count`, and the names of the `first`.
        broken_links: Links that lead nowhere, and are not named like images: `count`, and the names of the `first`.
        nameless_folders: Prefixes of keys in a store that go on with another slash, which cannot be opened: likewise.
        repeated: Images that a list names more than once; they are one row.
        duplicates: Images with the same bytes as an earlier one of all rows, so that of three copies two count.
        missing: Images that the last listing did not find; their rows are kept.
        changes: What this run's listing changed: images that were `new`, `changed`, `missing`, `returned`, `pruned`
            and `retried`; empty where nothing was listed.
        resumed: Images that earlier executions had done.
        seconds: Of this execution, start-up included.
        images_per_second: Of this execution, since the first actor was ready; 0 where nothing was left to do.
        stages: Seconds by stage, summed over actors; `read` and `decode` are averages over an actor's threads.
        stage_rates: Images/s that each stage would reach if it alone took time; the lowest limits the run. None for
            `wait`, in which the network had nothing to do.
        stage_shares: The share of the actors' time, 0 to 1, that each stage took; stages overlap.
        reasons: Failed rows by reason.
        fingerprint: What the rows depend on, `Fingerprint.digest`.
        shards: Number of files with rows.
        actors: Where this execution's actors ran: host, and GPUs as Ray numbers them.
        deaths: Actors that died and were replaced.
        stalls: Actors that made no progress and were replaced.
        weights: The name of the network's weights.
        notes: What a person should know about the rows.
    """

    images: int
    ok: int
    failed: int
    ignored: int
    ignored_endings: dict[str, int]
    skipped: dict[str, int]
    skipped_at_least: list[str]
    loops: dict[str, Any]
    broken_links: dict[str, Any]
    nameless_folders: dict[str, Any]
    repeated: int
    duplicates: int
    missing: int
    changes: dict[str, int]
    resumed: int
    seconds: float
    images_per_second: float
    stages: dict[str, float]
    stage_rates: dict[str, float | None]
    stage_shares: dict[str, float]
    reasons: dict[str, int]
    fingerprint: str
    shards: int
    actors: list[tuple[str, tuple[str, ...]]]
    deaths: int
    stalls: int
    weights: str
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON."""
        return asdict(self)
