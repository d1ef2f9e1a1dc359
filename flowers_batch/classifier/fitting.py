"""Fits heads to codes: a logistic regression, and a network with one hidden layer."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.evaluation import log_loss
from flowers_batch.classifier.head import Head, Layer, logits
from flowers_batch.classifier.labelled_codes import LabelledCodes
from flowers_batch.devices import init_tensorflow
from flowers_batch.progress import NULL_REPORTER, Progress, Reporter

LOGISTIC, MLP = "logistic", "mlp"
KINDS = (LOGISTIC, MLP)
# Weights of the loss against the penalty, as scikit-learn's `C`: cross-validation picks one.
C_CANDIDATES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_FOLDS = 3
_JUDGING_FOLDS = 5  # where labels are judged: four fifths of the others judge each
_FOLDED_PHOTOS = 4000  # are enough to tell strengths apart, which lie ten times from each other
_DEFAULT_STRENGTH = 1e-2  # where there are too few photos for folds
_ITERATIONS = 500  # at most
_GRADIENT, _IMPROVEMENT = 1e-4, 1e-7  # below either the regression has converged
_HIDDEN_UNITS = 256  # the notebook's
_DROPOUT = 0.5
_BATCHES = 64, 1024  # photos in a step: at least and at most; between them, an epoch has so many steps
_STEPS = 200
_JUDGED_PHOTOS = 8192  # of the validation side are enough to tell when to stop
_EPOCHS, _PATIENCE = 50, 4  # at most; and so many without a better loss on the validation side
_GAIN = 1e-3  # a share of the loss: what gains less is no better
_LEARNING_RATE = 0.03  # of Adam with the smallest steps, over the root of a code's width, whose sums move more


@dataclass(frozen=True)
class Fitted:
    """A head, and what was decided while it was fitted.

    Attributes:
        kind: One of `KINDS`.
        head: Without temperature and threshold.
        C: Of a logistic regression, as scikit-learn's `C`.
        epochs: Of a network: after how many it was best on the validation side.
    """

    kind: str
    head: Head
    C: float | None = None
    epochs: int | None = None


def fit(
    kind: str,
    train: LabelledCodes,
    validation: LabelledCodes,
    classes: tuple[str, ...],
    seed: int,
    C: float | None = None,
    reporter: Reporter = NULL_REPORTER,
) -> Fitted:
    """Fits a head; each class counts as much as any other, however few photos it has.

    Args:
        kind: One of `KINDS`.
        train: What it is fitted to; has photos of each class.
        validation: Tells a network when to stop.
        classes: The classes' names.
        seed: Equal seeds and codes give equal heads.
        C: Of a logistic regression; None chooses it by cross-validation in `train`.
        reporter: Receives how it goes.
    """
    train = train.loaded()
    scaler = _scaler(train)
    if kind == LOGISTIC:
        C = C or _choose_C(train, scaler, len(classes), seed, reporter)
    if kind == LOGISTIC and train.is_in_memory:
        layers = [_logistic(scaler(train.array()), train.targets, len(classes), C or 0, reporter)]
        epochs = None
    else:
        layers, epochs = _network(train, validation, scaler, len(classes), seed, C, reporter)
    return Fitted(kind, Head(classes, scaler.mean, scaler.scale, tuple(layers)), C, epochs)


def logits_of(head: Head, sample: LabelledCodes, reporter: Reporter = NULL_REPORTER) -> NDArray[np.float32]:
    """A head's logits float32 [N, classes] of a sample."""
    found = np.empty((len(sample), len(head.classes)), np.float32)
    for positions, codes in sample.chunks():
        found[positions] = head.logits(codes)
        reporter.update(Progress(f"predicting {len(sample)} photos"))
    return found


@dataclass(frozen=True)
class _Scaler:
    """Standardises codes: mean and scale, float32 [width] each."""

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    def __call__(self, codes: NDArray[np.floating]) -> NDArray[np.float32]:
        standardised = codes.astype(np.float32)
        standardised -= self.mean
        standardised /= self.scale
        return standardised


def _scaler(sample: LabelledCodes) -> _Scaler:
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler(copy=False)
    for _, codes in sample.chunks():
        scaler.partial_fit(codes.astype(np.float32))
    return _Scaler(scaler.mean_.astype(np.float32), scaler.scale_.astype(np.float32))


def _some(sample: LabelledCodes, count: int, seed: int) -> LabelledCodes:
    """A sample, or so many of its photos if it has more."""
    if len(sample) <= count:
        return sample
    return sample[np.sort(np.random.default_rng(seed).permutation(len(sample))[:count])]


def out_of_fold(
    sample: LabelledCodes, classes: tuple[str, ...], seed: int, reporter: Reporter = NULL_REPORTER
) -> NDArray[np.float32]:
    """Probabilities float32 [N, classes] of photos, each by a logistic regression that saw neither it nor a copy."""
    from sklearn.model_selection import StratifiedGroupKFold

    C: float | None = None
    probabilities = np.zeros((len(sample), len(classes)), np.float32)
    folds = StratifiedGroupKFold(_JUDGING_FOLDS, shuffle=True, random_state=seed)
    for inside, outside in folds.split(sample.targets, sample.targets, sample.groups):
        part = sample[inside]
        fitted = fit(LOGISTIC, part, part, classes, seed, C, reporter)
        C = fitted.C
        probabilities[outside] = fitted.head.probabilities_of(logits_of(fitted.head, sample[outside], reporter))
    return probabilities


def balanced_sample_weights(targets: NDArray[np.int_], classes: int) -> NDArray[np.float32]:
    """Weights [N] of photos, of mean 1, that sum to the same for each class."""
    counts = np.bincount(targets, minlength=classes)
    return (len(targets) / (np.count_nonzero(counts) * np.maximum(counts, 1)))[targets].astype(np.float32)


def _choose_C(sample: LabelledCodes, scaler: _Scaler, classes: int, seed: int, reporter: Reporter) -> float:
    """The strength of the least log loss on folds that were not fitted to; copies lie in one fold."""
    from sklearn.model_selection import StratifiedGroupKFold

    sample = _some(sample, _FOLDED_PHOTOS, seed)
    if np.bincount(sample.targets, minlength=classes).min() < _FOLDS:
        return _DEFAULT_STRENGTH
    codes, targets = scaler(sample.array()), sample.targets
    losses = np.zeros(len(C_CANDIDATES))
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer groups than folds
        for fold, (inside, outside) in enumerate(folds.split(targets, targets, sample.groups), 1):
            part, judge = codes[inside], codes[outside]
            layer: Layer | None = None
            for number, C in enumerate(C_CANDIDATES):
                reporter.update(Progress(f"logistic: C = {C:g} on fold {fold} of {_FOLDS}"))
                layer = _logistic(part, targets[inside], classes, C, reporter, layer)
                losses[number] += log_loss(logits(judge, [layer]), targets[outside]) * len(judge)
    return C_CANDIDATES[int(losses.argmin())]


def _logistic(
    codes: NDArray[np.float32],
    targets: NDArray[np.int_],
    classes: int,
    C: float,
    reporter: Reporter,
    start: Layer | None = None,
) -> Layer:
    """Kernel [width, classes] and bias [classes] of a multinomial regression with an L2 penalty on the kernel.

    The same minimum as scikit-learn's `LogisticRegression`, which would copy the codes to float64 at every step.
    """
    from scipy.optimize import minimize

    weights = balanced_sample_weights(targets, classes)
    weights /= weights.sum()
    rows = np.arange(len(targets))
    width = codes.shape[1]
    penalty = _penalty(C, len(targets))

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        kernel, bias = np.split(flat.reshape(width + 1, classes), [width])
        # The rest in float64, or the search for a lower loss would end in the noise of its last digits.
        values = (codes @ kernel.astype(np.float32)).astype(np.float64) + bias
        values -= values.max(1, keepdims=True)
        told = values[rows, targets]
        np.exp(values, out=values)
        total = values.sum(1)
        value = float(weights @ (np.log(total) - told)) + penalty / 2 * float((kernel**2).sum())
        values /= total[:, None]
        values[rows, targets] -= 1
        values *= weights[:, None]
        slope = codes.T @ values.astype(np.float32) + penalty * kernel
        reporter.update(Progress(f"logistic: {len(targets)} photos, loss {value:.4f}"))
        return value, np.concatenate([slope, values.sum(0, keepdims=True)]).ravel()

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


def _penalty(C: float, photos: int) -> float:
    """What half of the squared kernel counts in a loss that is the mean over photos."""
    return 1 / (C * photos)


def _network(
    train: LabelledCodes,
    validation: LabelledCodes,
    scaler: _Scaler,
    classes: int,
    seed: int,
    C: float | None,
    reporter: Reporter,
) -> tuple[list[Layer], int]:
    """Layers as they were when the log loss on photos of `validation` was least, and after how many epochs.

    With a strength there is no hidden layer: a logistic regression of photos that are too many for memory.
    """
    init_tensorflow()
    import keras

    judge = _some(validation, _JUDGED_PHOTOS, seed)
    judged = scaler(judge.array())
    with keras.device("cpu:0"):  # which a few batches a second do not need; actors may be using the GPUs
        penalty = None if C is None else keras.regularizers.L2(_penalty(C, len(train)) / 2)
        first, last = (keras.initializers.GlorotUniform((seed + number) % 2**32) for number in range(2))
        hidden = [
            keras.layers.Dense(_HIDDEN_UNITS, "relu", kernel_initializer=first),
            keras.layers.Dropout(_DROPOUT, seed=seed),
        ]
        output = keras.layers.Dense(classes, kernel_initializer=last, kernel_regularizer=penalty)
        model = keras.Sequential([keras.Input([train.codes.width]), *([] if C else hidden), output])
        step = int(np.clip(len(train) // _STEPS, *_BATCHES))
        optimizer = keras.optimizers.Adam(_LEARNING_RATE * (step / _BATCHES[0] / train.codes.width) ** 0.5)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, jit_compile=False)
        random = np.random.default_rng(seed)
        weights = balanced_sample_weights(train.targets, classes)
        best, kept, kept_at, epoch, kind = np.inf, list[Layer](), 0, 0, LOGISTIC if C else MLP
        while epoch < min(_EPOCHS, kept_at + _PATIENCE):
            epoch += 1
            done = 0
            for positions, codes in train.chunks(random):
                for start in range(0, len(positions), step):
                    batch = slice(start, start + step)
                    chosen = positions[batch]
                    model.train_on_batch(scaler(codes[batch]), train.targets[chosen], weights[chosen])
                done += len(positions)
                reporter.update(Progress(f"{kind}: {done} of {len(train)} photos of epoch {epoch}"))
            arrays = model.get_weights()
            found = list(zip(arrays[::2], arrays[1::2], strict=True))
            reached = log_loss(logits(judged, found), judge.targets)
            if reached < best * (1 - _GAIN):
                best, kept, kept_at = reached, found, epoch
            elif C:
                optimizer.learning_rate = float(optimizer.learning_rate) / 2  # the minimum is near
    return kept, kept_at
