"""Accuracy and time of heads on a codes folder, over several splits: `python benchmarks/heads.py CODES`."""

import argparse
import json
import statistics
import time

import numpy as np

from flowers_batch import training
from flowers_batch.config import TrainConfig
from flowers_batch.dataset import CODES, open_run

SPLITS = 6
VARIANTS = [("logistic", "_LOGISTIC_C", value) for value in (1e-4, 1e-3, 1e-2, 1e-1, 1.0)]
VARIANTS += [("mlp", "_MLP_EPOCHS", value) for value in (5, 20, 60)]


def main() -> None:
    """Trains each variant on the same splits, prints a table and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("codes")
    labelled = training.read_labelled(open_run(parser.parse_args().codes, CODES), "folder")
    classes, targets = np.unique(labelled.labels, return_inverse=True)
    results = []
    for head, setting, value in VARIANTS:
        setattr(training, setting, value)
        accuracies, began = [], time.perf_counter()
        for seed in range(SPLITS):
            sides = training.split(targets, seed)
            config = TrainConfig(head=head, seed=seed)
            fitted = training._fit(labelled.codes[sides == 0], targets[sides == 0], tuple(classes.tolist()), config)
            held_out = fitted.probabilities(labelled.codes[sides != 0]).argmax(1)
            accuracies.append(float((held_out == targets[sides != 0]).mean()))
        seconds = (time.perf_counter() - began) / SPLITS
        mean, spread = statistics.mean(accuracies), statistics.stdev(accuracies)
        results.append({"head": head, setting.strip("_").lower(): value, "accuracy": mean, "spread": spread})
        print(f"{head:9} {setting:14} {value:<8g} accuracy {mean:.3f} +- {spread:.3f}  {seconds:5.2f} s")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
