"""Labels on real photos: unknown classes against known ones, and suggested labels against random ones.

Both start from photos in one folder per class. Weights are random unless others are named; then the figures say nothing
about trained weights.
"""

from __future__ import annotations

import csv
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from common import Claim, parse_arguments, report

import flowers_batch as fb
from flowers_batch.classifier.evaluation import auroc
from flowers_batch.classifier.model_folder import load_model
from flowers_batch.dataset.run_folder import open_run
from flowers_batch.dataset.schema import CODES, codes_of

FIRST, CHOSEN = 0.15, 0.15  # shares of the photos that have a label at first, and that get one
SEEDS = 5


def codes_by_class(folder: Path) -> dict[str, np.ndarray]:
    """Codes of each class."""
    found: dict[str, list[np.ndarray]] = {}
    for batch in open_run(folder, CODES).batches(["folder", "code"]):
        codes, ok = codes_of(batch)
        for name, code in zip(np.array(batch["folder"].to_pylist())[ok], codes, strict=True):
            found.setdefault(name, []).append(code)
    return {name: np.stack(each) for name, each in found.items()}


def label(path: Path, rows: list[tuple[str, str]]) -> tuple[str, ...]:
    """A file of labels."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    return (str(path),)


def unknown_classes(codes: Path, scratch: Path) -> tuple[list[dict[str, object]], list[float]]:
    """Return a row and the AUROC of each class: a model trained without it rates its photos and known test photos."""
    by_class = codes_by_class(codes)
    paths = pq.read_table(codes / "codes", columns=["path", "folder"]).to_pylist()
    rows: list[dict[str, object]] = []
    values = []
    for unknown in by_class:
        known = [(row["path"], row["folder"]) for row in paths if row["folder"] != unknown]
        metrics = fb.train(codes, scratch / unknown, fb.TrainConfig(label(scratch / "known.csv", known)))
        split = pq.read_table(scratch / unknown / "split.parquet", filters=[("split", "=", "test")])
        head = load_model(scratch / unknown).head
        known_probabilities = split["probability"].to_numpy()
        unknown_probabilities = head.probabilities(by_class[unknown]).max(1)
        value = auroc(known_probabilities, unknown_probabilities)
        assert value is not None and head.threshold is not None
        values.append(value)
        rows.append(
            {
                "unknown": unknown,
                "AUROC": f"{value:.3f}",
                "known classes marked unknown": f"{(known_probabilities < head.threshold).mean():.0%}",
                "unknown classes marked unknown": f"{(unknown_probabilities < head.threshold).mean():.0%}",
                "test accuracy": f"{metrics['test']['accuracy']:.1%}",
            }
        )
    return rows, values


def chosen_or_random(codes: Path, scratch: Path, seed: int) -> tuple[float, float]:
    """Return the accuracy on the photos that stay unlabelled, with suggested labels and with as many random ones.

    Both begin with the same few random labels.
    """
    random = np.random.default_rng(seed)
    rows = pq.read_table(codes / "codes", columns=["path", "folder"]).to_pylist()
    truth = {row["path"]: row["folder"] for row in rows}
    order = random.permutation(sorted(truth)).tolist()
    first = order[: round(FIRST * len(order))]
    count = round(CHOSEN * len(order))
    model, predictions = scratch / f"first-{seed}", scratch / f"predictions-{seed}"
    config = fb.TrainConfig(label(scratch / "first.csv", [(path, truth[path]) for path in first]), head="logistic")
    fb.train(codes, model, config)
    fb.predict(codes, predictions, model)
    picks = {
        "chosen": [row["path"] for row in fb.suggest(predictions, count)],
        "random": order[len(first) : len(first) + count],
    }
    rest = set(truth) - set(first) - set(picks["chosen"]) - set(picks["random"])
    accuracies = {}
    for name, pick in picks.items():
        labelled = [(path, truth[path]) for path in (*first, *pick)]
        again = scratch / f"{name}-{seed}"
        fb.train(codes, again, fb.TrainConfig(label(scratch / "again.csv", labelled), head="logistic"))
        fb.predict(codes, scratch / f"{name}-predictions-{seed}", again)
        predicted = pq.read_table(
            scratch / f"{name}-predictions-{seed}" / "predictions", columns=["path", "prediction"]
        ).to_pylist()
        right = [row["prediction"] == truth[row["path"]] for row in predicted if row["path"] in rest]
        accuracies[name] = statistics.mean(right)
    return accuracies["chosen"], accuracies["random"]


def main() -> None:
    """Measure both and print."""
    options = parse_arguments(__doc__, weights={"default": "random:0"})
    if options.photos is None:
        raise SystemExit("Name a folder that has one subfolder of photos per class, with --photos.")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        fb.encode(options.photos, scratch / "codes", fb.EncodeConfig(weights=options.weights))
        rows, values = unknown_classes(scratch / "codes", scratch)
        pairs = []
        for seed in range(SEEDS):
            pairs.append(chosen_or_random(scratch / "codes", scratch, seed))
            print(f"seed {seed}: chosen {pairs[-1][0]:.3f}, random {pairs[-1][1]:.3f}", file=sys.stderr)
    gains = [chosen - random for chosen, random in pairs]
    report(
        "labels",
        [
            Claim("AUROC of probabilities, known over unknown classes, mean", statistics.mean(values), 0.5),
            Claim(
                "accuracy that chosen labels gain over as many random ones",
                statistics.mean(gains),
                0.0,
                spread=(min(gains), max(gains)),
            ),
        ],
        {"weights": options.weights, "unknown_classes": rows},
    )


if __name__ == "__main__":
    main()
