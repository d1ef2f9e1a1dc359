"""The share of a run's images that may fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pyarrow.compute as pc

from flowers_batch.dataset.manifest import Manifest, read_rows
from flowers_batch.dataset.manifest_part import MISSING
from flowers_batch.dataset.shard_file import Footer
from flowers_batch.dataset.shard_reading import read_shard
from flowers_batch.errors import RunError
from flowers_batch.storage.folder import Folder

MIN_IMAGES = 100  # of fewer, a large share may fail by chance


class FailedShare:
    """Ends a run in which a larger share of the images fails than may.

    Only images that the last listing found are counted. Rows of other images are kept, but say nothing of the source.

    Args:
        folder: The run's folder.
        kind: `CODES` or `PREDICTIONS`.
        manifest: All images of the run.
        limit: The largest share of them that may fail, 0 to 1.
        finished: The footers of shards that are finished.
    """

    def __init__(self, folder: Folder, kind: str, manifest: Manifest, limit: float, finished: Iterable[Footer]):
        self._folder, self._kind, self._shards, self._limit = folder, kind, manifest.shards, limit
        self._source, self._images = manifest.listing.source, manifest.images - manifest.missing
        self._finished = [*finished]
        self._certain = sum(map(self._at_least, self._finished))

    def add(self, footer: Footer) -> None:
        """Count another finished shard, which is not read.

        Raises:
            RunError: Too many images have failed, whatever becomes of the others.
        """
        self._finished.append(footer)
        self._certain += self._at_least(footer)
        if self._exceeds(self._certain):
            self.check()

    def check(self) -> None:
        """Check the finished shards, some of which are read if footers alone do not decide.

        Raises:
            RunError: Too many images have failed, whatever becomes of the others.
        """
        if not self._exceeds(sum(footer.failed for footer in self._finished)):
            return
        reasons: Counter[str] = Counter()
        for footer in self._finished:
            reasons.update(self._reasons(footer))
        if self._exceeds(reasons.total()):
            raise self._error(reasons)

    def _exceeds(self, failed: int) -> bool:
        return self._images >= MIN_IMAGES and failed / self._images > self._limit

    def _at_least(self, footer: Footer) -> int:
        """Return how many of a shard's images that the last listing found failed, at least."""
        return max(0, footer.failed - self._shards[footer.shard].missing)

    def _reasons(self, footer: Footer) -> Counter[str]:
        """Return how many of a shard's images that the last listing found failed, by reason."""
        shard = self._shards[footer.shard]
        if not (footer.failed and shard.missing):
            return Counter(footer.reasons)
        rows = read_rows(self._folder, shard)
        listed = rows.filter(pc.not_equal(rows["action"], MISSING))["path"].combine_chunks()
        found: Counter[str] = Counter()
        for batch in read_shard(self._folder, self._kind, shard, footer.fingerprint, ["path", "reason"]):
            reasons = batch.filter(pc.is_in(batch["path"], listed))["reason"]
            found.update(reasons.drop_null().to_pylist())
        return found

    def _error(self, reasons: Counter[str]) -> RunError:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
        shards = [self._shards[footer.shard] for footer in self._finished]
        done = sum(shard.images - shard.missing for shard in shards)
        left = f"; {self._images - done:,} not tried" if done < self._images else ""
        return RunError(
            f"{reasons.total():,} of {self._images:,} images failed ({counts}{left}), which `max_failed_share` "
            f"{self._limit:g} does not allow: check {self._source} and retry them with `retry_all`, or accept their "
            "rows with `max_failed_share` 1."
        )
