"""What a classifier says about the rows of a run, in memory: some bytes of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flowers_batch.classifier.head import Head

NO_CLASS = -1


@dataclass(frozen=True)
class Predictions:
    """The likeliest class of each row; never changed, but replaced as a whole by those of another classifier.

    Attributes:
        classes: Names.
        codes: int32 [rows]: positions in `classes`, -1 where there is no prediction.
        probabilities: float32 [rows]: of these classes.
        margins: float32 [rows]: how much more probable they are than the second likeliest ones; None if not known.
        head: The classifier; None if it is not in memory.
        number: Which classifier of this review it is, from 1; 0 for that of the run.
    """

    classes: tuple[str, ...]
    codes: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    margins: NDArray[np.float32] | None = None
    head: Head | None = None
    number: int = 0

    def top(self, row: int) -> tuple[str, float] | None:
        """Return the likeliest class of a row and its probability; None if it has no prediction."""
        code = int(self.codes[row])
        return None if code == NO_CLASS else (self.classes[code], float(self.probabilities[row]))

    def labels_of(self, rows: NDArray[np.int_]) -> pa.Array:
        """Return the likeliest classes of rows: string [rows], null where there is no prediction."""
        codes = self.codes[rows]
        return pa.array(self.classes, pa.string()).take(pa.array(codes, mask=codes == NO_CLASS))

    def is_label(self, label: str) -> NDArray[np.bool_]:
        """Return whether each row's likeliest class has a name: bool [rows]."""
        code = self.classes.index(label) if label in self.classes else len(self.classes)
        return self.codes == code

    def least_certain(self, is_chosen: NDArray[np.bool_], count: int) -> NDArray[np.int_]:
        """Return at most `count` of the chosen rows, the least certain first."""
        rows = np.flatnonzero(is_chosen)
        if len(rows) > count:
            rows = np.sort(rows[np.argpartition(self.probabilities[rows], count)[:count]])
        return rows[np.argsort(self.probabilities[rows], kind="stable")]
