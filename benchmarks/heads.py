"""The logistic head, with its cross-validation of C, against scikit-learn's regression at that C.

Both are fitted to the same drawn codes: values after a ReLU, of classes that overlap, so that neither can be perfect.
"""

from __future__ import annotations

import statistics

import numpy as np
from common import ratio_claim, report, run_interleaved, stopwatch
from sklearn.linear_model import LogisticRegression

from flowers_batch.classifier.fitting import LOGISTIC, fit
from flowers_batch.classifier.labelled_codes import LabelledCodes, labelled_codes_of
from flowers_batch.classifier.normalization import Normalization

PHOTOS, TESTED = 20_000, 4000
WIDTH, CLASSES, FACTORS = 4096, 10, 64
NOISE = 2.2  # of the factors, against the distance of the classes: about one photo in six is ambiguous
ROUNDS = 3


def drawn() -> LabelledCodes:
    """Codes of photos: a few factors, whose mean is the class's, seen through many random features and a ReLU."""
    random = np.random.default_rng(0)
    targets = random.integers(0, CLASSES, PHOTOS + TESTED)
    factors = random.normal(random.normal(0, 1, (CLASSES, FACTORS))[targets], NOISE).astype(np.float32)
    features = random.normal(0, FACTORS**-0.5, (FACTORS, WIDTH)).astype(np.float32)
    codes = factors @ features + random.normal(0, 1, (len(targets), WIDTH)).astype(np.float32)
    return labelled_codes_of(np.maximum(codes, 0).astype(np.float16), targets)


def main() -> None:
    """Fit both in turn and print times and accuracies."""
    codes = drawn()
    train, test = codes[np.arange(len(codes)) < PHOTOS], codes[np.arange(len(codes)) >= PHOTOS]
    classes = tuple(f"class {number}" for number in range(CLASSES))
    accuracies: dict[str, float] = {}
    chosen: list[tuple[float, Normalization]] = []

    def ours() -> float:
        with stopwatch() as seconds:
            fitted = fit(LOGISTIC, train, test, classes, 0)
            took = seconds()
        assert fitted.regression
        chosen.append((fitted.regression.C, fitted.head.normalization))
        accuracies["ours"] = float((fitted.head.logits(test.array()).argmax(1) == test.targets).mean())
        return took

    def scikit_learn() -> float:
        with stopwatch() as seconds:
            C, normalize = chosen[-1]
            model = LogisticRegression(C=C, max_iter=500).fit(normalize(train.array()), train.targets)
            took = seconds()
        accuracies["scikit-learn"] = model.score(normalize(test.array()), test.targets)
        return took

    times = run_interleaved(ROUNDS, ours=ours, scikit_learn=scikit_learn)
    claim = f"seconds to fit {PHOTOS} codes over scikit-learn's, choice of C included"
    report(
        "heads",
        [
            ratio_claim(claim, times["ours"], times["scikit_learn"], 1.0, at_least=False),
            ratio_claim(
                "accuracy over scikit-learn's, of 4,000 others",
                [accuracies["ours"]],
                [accuracies["scikit-learn"]],
                1 - 0.003 / accuracies["scikit-learn"],
            ),
        ],
        {f"{name}, s": f"{statistics.median(each):.1f}" for name, each in times.items()}
        | {f"{name}, accuracy": f"{value:.4f}" for name, value in accuracies.items()}
        | {"C": chosen[-1][0], "normalization": chosen[-1][1].name},
    )


if __name__ == "__main__":
    main()
