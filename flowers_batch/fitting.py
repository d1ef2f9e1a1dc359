"""Fits heads to codes: a logistic regression, and a network with one hidden layer. The only room with scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flowers_batch.device import share_gpus
from flowers_batch.evaluation import log_loss
from flowers_batch.heads import Head, Layer

LOGISTIC, MLP = "logistic", "mlp"
KINDS = (LOGISTIC, MLP)
# Weights of the loss against the penalty, as scikit-learn's `C`: cross-validation picks one.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_FOLDS = 3
_JUDGING_FOLDS = 5  # where labels are judged: four fifths of the others judge each
_FOLDED_PHOTOS = 4000  # are enough to tell strengths apart, which lie ten times from each other
_DEFAULT_STRENGTH = 1e-2  # where there are too few photos for folds
_ITERATIONS = 500  # at most
_GRADIENT, _IMPROVEMENT = 1e-4, 1e-7  # below either the regression has converged
_HIDDEN_UNITS = 256  # the notebook's
_DROPOUT = 0.5
_BATCH = 64
_EPOCHS, _PATIENCE = 50, 4  # at most; and so many without a better loss on the validation side
_LEARNING_RATE = 5e-4


@dataclass(frozen=True)
class Sample:
    """Photos that a head is fitted to, or judged by.

    Attributes:
        codes: [N, width].
        targets: int [N]: the number of each one's class.
        groups: int [N]: photos of equal groups are copies of each other.
    """

    codes: NDArray[np.floating]
    targets: NDArray[np.int_]
    groups: NDArray[np.int_]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, chosen: NDArray[np.bool_]) -> Sample:
        return Sample(self.codes[chosen], self.targets[chosen], self.groups[chosen])


@dataclass(frozen=True)
class Fitted:
    """A head, and what was decided while it was fitted.

    Attributes:
        kind: One of `KINDS`.
        head: Without temperature and threshold.
        strength: Of a logistic regression, as scikit-learn's `C`.
        epochs: Of a network: after how many it was best on the validation side.
    """

    kind: str
    head: Head
    strength: float | None = None
    epochs: int | None = None


def fit(
    kind: str,
    train: Sample,
    validation: Sample,
    classes: tuple[str, ...],
    seed: int,
    strength: float | None = None,
) -> Fitted:
    """Fits a head; each class counts as much as any other, however few photos it has.

    Args:
        kind: One of `KINDS`.
        train: What it is fitted to; has photos of each class.
        validation: Tells a network when to stop.
        classes: The classes' names.
        seed: Equal seeds and codes give equal heads.
        strength: Of a logistic regression; None chooses it by cross-validation in `train`.
    """
    from sklearn.preprocessing import StandardScaler

    codes = train.codes.astype(np.float32)
    scaler = StandardScaler(copy=False).fit(codes)
    mean, scale = scaler.mean_.astype(np.float32), scaler.scale_.astype(np.float32)
    standardised = Sample((codes - mean) / scale, train.targets, train.groups)
    if kind == LOGISTIC:
        strength = strength or _choose_strength(standardised, len(classes), seed)
        layers = [_logistic(standardised, len(classes), strength)]
        return Fitted(kind, Head(classes, mean, scale, tuple(layers)), strength=strength)
    judge = Sample((validation.codes.astype(np.float32) - mean) / scale, validation.targets, validation.groups)
    network, epochs = _network(standardised, judge, len(classes), seed)
    return Fitted(kind, Head(classes, mean, scale, tuple(network)), epochs=epochs)


def out_of_fold(sample: Sample, classes: tuple[str, ...], seed: int) -> NDArray[np.float32]:
    """Probabilities float32 [N, classes] of photos, each by a logistic regression that saw neither it nor a copy."""
    from sklearn.model_selection import StratifiedGroupKFold

    strength: float | None = None
    probabilities = np.zeros((len(sample), len(classes)), np.float32)
    for inside, outside in StratifiedGroupKFold(_JUDGING_FOLDS, shuffle=True, random_state=seed).split(
        sample.codes, sample.targets, sample.groups
    ):
        part = Sample(sample.codes[inside], sample.targets[inside], sample.groups[inside])
        fitted = fit(LOGISTIC, part, part, classes, seed, strength)
        strength = fitted.strength
        probabilities[outside] = fitted.head.probabilities(sample.codes[outside])
    return probabilities


def _balance(targets: NDArray[np.int_], classes: int) -> NDArray[np.float32]:
    """Weights [N] of photos, of mean 1, that sum to the same for each class."""
    counts = np.bincount(targets, minlength=classes)
    return (len(targets) / (np.count_nonzero(counts) * np.maximum(counts, 1)))[targets].astype(np.float32)


def _choose_strength(sample: Sample, classes: int, seed: int) -> float:
    """The strength of the least log loss on folds that were not fitted to; copies lie in one fold."""
    from sklearn.model_selection import StratifiedGroupKFold

    if len(sample) > _FOLDED_PHOTOS:
        chosen = np.zeros(len(sample), bool)
        chosen[np.random.default_rng(seed).permutation(len(sample))[:_FOLDED_PHOTOS]] = True
        sample = sample[chosen]
    if np.bincount(sample.targets, minlength=classes).min() < _FOLDS:
        return _DEFAULT_STRENGTH
    losses = np.zeros(len(STRENGTHS))
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer groups than folds
        for inside, outside in folds.split(sample.codes, sample.targets, sample.groups):
            part, judge = (Sample(sample.codes[i], sample.targets[i], sample.groups[i]) for i in (inside, outside))
            layer: Layer | None = None
            for number, strength in enumerate(STRENGTHS):
                layer = _logistic(part, classes, strength, layer)
                losses[number] += log_loss(judge.codes @ layer[0] + layer[1], judge.targets) * len(judge)
    return STRENGTHS[int(losses.argmin())]


def _logistic(sample: Sample, classes: int, strength: float, start: Layer | None = None) -> Layer:
    """Kernel [width, classes] and bias [classes] of a multinomial regression with an L2 penalty on the kernel.

    The same minimum as scikit-learn's `LogisticRegression`, which would copy the codes to float64 at every step.
    """
    from scipy.optimize import minimize

    codes, targets = sample.codes, sample.targets
    weights = _balance(targets, classes)
    weights /= weights.sum()
    rows = np.arange(len(targets))
    width = codes.shape[1]
    penalty = 1 / (strength * len(targets))

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        kernel, bias = np.split(flat.reshape(width + 1, classes), [width])
        # The rest in float64, or the search for a lower loss would end in the noise of its last digits.
        logits = (codes @ kernel.astype(np.float32)).astype(np.float64) + bias
        logits -= logits.max(1, keepdims=True)
        told = logits[rows, targets]
        np.exp(logits, out=logits)
        total = logits.sum(1)
        value = float(weights @ (np.log(total) - told)) + penalty / 2 * float((kernel**2).sum())
        logits /= total[:, None]
        logits[rows, targets] -= 1
        logits *= weights[:, None]
        slope = codes.T @ logits.astype(np.float32) + penalty * kernel
        return value, np.concatenate([slope, logits.sum(0, keepdims=True)]).ravel()

    first = np.zeros((width + 1, classes)) if start is None else np.concatenate([start[0], start[1][None]])
    options = {"maxiter": _ITERATIONS, "gtol": _GRADIENT, "ftol": _IMPROVEMENT}
    with _one_blas():
        found = minimize(loss, first.astype(np.float64).ravel(), jac=True, method="L-BFGS-B", options=options).x
    kernel, bias = np.split(found.reshape(width + 1, classes).astype(np.float32), [width])
    return kernel, bias[0]


@contextmanager
def _one_blas() -> Iterator[None]:
    """Leaves the cores to numpy's products: SciPy brings threads of its own, which would wait in their way, turning."""
    from threadpoolctl import ThreadpoolController

    controller = ThreadpoolController()
    own = [library.filepath for library in controller.lib_controllers if "scipy.libs" in Path(library.filepath).parts]
    with controller.select(filepath=own).limit(limits=1):
        yield


def _network(train: Sample, validation: Sample, classes: int, seed: int) -> tuple[list[Layer], int]:
    """Layers of a network with a hidden layer, as they were when the log loss on `validation` was least; the epoch."""
    import keras

    share_gpus()
    with keras.device("cpu:0"):  # which a few batches a second do not need; actors may be using the GPUs
        sizes = (train.codes.shape[1], _HIDDEN_UNITS, classes)
        dense = [
            keras.layers.Dense(
                size, activation, kernel_initializer=keras.initializers.GlorotUniform((seed + number) % 2**32)
            )
            for number, (size, activation) in enumerate(zip(sizes[1:], ("relu", None), strict=True))
        ]
        dropout = keras.layers.Dropout(_DROPOUT, seed=seed)
        model = keras.Sequential([keras.Input(sizes[:1]), dense[0], dropout, dense[1]])
        model.compile(
            keras.optimizers.Adam(_LEARNING_RATE),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=False,
        )
        random = np.random.default_rng(seed)
        weights = _balance(train.targets, classes)
        best, kept, kept_at, epoch = np.inf, [], 0, 0
        while epoch < min(_EPOCHS, kept_at + _PATIENCE):
            epoch += 1
            order = random.permutation(len(train))
            for start, end in pairwise([*range(0, len(order), _BATCH), len(order)]):
                rows = order[start:end]
                model.train_on_batch(train.codes[rows], train.targets[rows], weights[rows])
            kernels = model.get_weights()
            found = list(zip(kernels[::2], kernels[1::2], strict=True))
            loss = log_loss(_logits(found, validation.codes), validation.targets)
            if loss < best:
                best, kept, kept_at = loss, found, epoch
    return kept, kept_at


def _logits(layers: list[Layer], values: NDArray[np.float32]) -> NDArray[np.float32]:
    (first, second) = layers
    return np.maximum(values @ first[0] + first[1], 0) @ second[0] + second[1]
