"""Photos without a label: a sample of them that fits in memory, however large the archive is."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.classifier.labelled_codes import CodesOnDisk
from flowers_batch.classifier.random_order import content_keys
from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.schema import OK, PREDICTIONS
from flowers_batch.progress import Progress, Reporter


def sample_unlabelled(run: Run, count: int, labelled: pa.Array, given: pa.Array, reporter: Reporter) -> pa.Table:
    """Return a random sample of the photos without a label; of equal files, one.

    A photo's content decides whether it is in the sample, so that equal archives give equal samples. Twice `count` rows
    and one batch are in memory.

    Args:
        run: Codes or predictions.
        count: How many photos, at most.
        labelled: SHA-256 of photos to leave out.
        given: Paths of photos to leave out.
        reporter: Receives progress.

    Returns:
        `path`, `sha256`, `phash` and, of predictions, `prediction`, `probability` and `margin`: the difference between
        the probabilities of the two likeliest labels.
    """
    columns = ["path", "sha256", "phash", "status"]
    if run.job.kind == PREDICTIONS:
        columns += ["prediction", "probability", "top_probabilities"]
    held: list[pa.Table] = []
    read = 0
    for batch in run.batches(columns):
        rows = pa.Table.from_batches([batch.filter(pc.equal(batch["status"], OK))]).drop_columns(["status"])
        known = pc.or_(pc.is_in(rows["sha256"], labelled), pc.is_in(rows["path"], given))
        rows = rows.filter(pc.invert(known))
        held.append(_with_margins(rows) if run.job.kind == PREDICTIONS else rows)
        if sum(map(len, held)) > 2 * count:
            held = [_sample_by_content(pa.concat_tables(held), count)]
        read += len(batch)
        reporter.update(Progress(f"looking for photos without a label: {read} of {run.manifest.images}"))
    return _sample_by_content(pa.concat_tables(held), count)


def _with_margins(rows: pa.Table) -> pa.Table:
    """Return predictions with `margin` in place of `top_probabilities`."""
    pairs = pc.list_slice(rows["top_probabilities"], 0, 2, return_fixed_size_list=True)  # null if there is one label
    best, second = pc.fill_null(pc.list_flatten(pairs), 0).to_numpy().reshape(-1, 2).T
    return rows.drop_columns(["top_probabilities"]).append_column("margin", pa.array(best - second))


def _sample_by_content(rows: pa.Table, count: int) -> pa.Table:
    """Return the `count` rows that come first in the random order; of equal files, one."""
    keys = content_keys(rows["sha256"].combine_chunks())
    return rows.take(pa.array(np.unique(keys, return_index=True)[1][:count]))


def find_codes(run: Run, paths: pa.Array) -> tuple[np.ndarray, CodesOnDisk]:
    """Return the codes of some photos.

    Args:
        run: The codes folder.
        paths: The photos' keys, string [N].

    Returns:
        The positions in `paths`, int [found], of those that have a code, and these codes in the same order.
    """
    positions: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    before = 0
    for batch in run.batches(["path", "status"]):
        found = pc.index_in(pc.if_else(pc.equal(batch["status"], OK), batch["path"], None), paths)
        has_code = np.flatnonzero(found.is_valid())
        positions.append(found.drop_null().to_numpy())
        rows.append(before + has_code)
        before += len(batch)
    return np.concatenate(positions), CodesOnDisk(run, np.concatenate(rows), 0)
