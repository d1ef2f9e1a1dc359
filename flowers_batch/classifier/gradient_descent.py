"""Heads fitted by Adam in batches: a network with one hidden layer, and a regression on codes that exceed memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from flowers_batch.classifier.calibration import log_loss
from flowers_batch.classifier.class_weights import balanced_sample_weights
from flowers_batch.classifier.head import Layer, apply_layers
from flowers_batch.classifier.labelled_codes import LabelledCodes
from flowers_batch.classifier.logistic import mean_squared_norm, penalty_weight
from flowers_batch.classifier.normalization import Normalization
from flowers_batch.devices import init_tensorflow
from flowers_batch.progress import Progress, Reporter

if TYPE_CHECKING:
    import keras

_HIDDEN_UNITS = 256  # as in the course notebook
_DROPOUT = 0.5
_BATCH_SIZES = 64, 1024  # bounds of the batch size; between them an epoch has _STEPS_PER_EPOCH steps
_STEPS_PER_EPOCH = 200
_MAX_VALIDATION_PHOTOS = 8192  # enough for early stopping
_MAX_EPOCHS, _PATIENCE = 50, 4  # epochs in all, and epochs without a better validation loss
_MIN_IMPROVEMENT = 1e-3  # of the validation loss, relative; less is no improvement
# Of Adam with the smallest batch, times 1/sqrt(width): a logit is a sum over the width, and moves more the wider it is.
_LEARNING_RATE = 0.03


def fit_by_gradient_descent(
    train: LabelledCodes,
    validation: LabelledCodes,
    normalization: Normalization,
    classes: int,
    seed: int,
    C: float | None,
    reporter: Reporter,
) -> tuple[list[Layer], int]:
    """Fit layers with early stopping.

    Args:
        train: Codes to fit to; each class counts equally.
        validation: Codes whose log loss decides when to stop.
        normalization: Of the codes.
        classes: Number of classes.
        seed: Decides on initial weights, dropout and the order of the photos.
        C: Inverse regularisation strength of a logistic regression, which has no hidden layer; None: a network with
            one hidden layer.
        reporter: Receives progress.

    Returns:
        The layers of the epoch with the smallest validation loss, and that epoch, counted from 1.
    """
    init_tensorflow()
    import keras

    validation = validation.subsample(_MAX_VALIDATION_PHOTOS, seed)
    validation_codes = normalization(validation.array())
    # The layers are trained on values that are about 1, as their initial weights and learning rate expect.
    unit = (mean_squared_norm(validation_codes) / train.codes.width) ** 0.5 or 1.0
    batch_size = int(np.clip(len(train) // _STEPS_PER_EPOCH, *_BATCH_SIZES))
    name = "mlp" if C is None else "logistic"
    with keras.device("cpu:0"):  # fast enough for a few batches a second, and actors may be using the GPUs
        model = _build(train.codes.width, classes, seed, None if C is None else penalty_weight(C, len(train)) / unit**2)
        optimizer = keras.optimizers.Adam(_LEARNING_RATE * (batch_size / _BATCH_SIZES[0] / train.codes.width) ** 0.5)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, jit_compile=False)
        random = np.random.default_rng(seed)
        least, best, best_epoch, epoch = np.inf, list[Layer](), 0, 0
        while epoch < min(_MAX_EPOCHS, best_epoch + _PATIENCE):
            epoch += 1
            for done in _train_epoch(model, train, normalization, unit, batch_size, random):
                reporter.update(Progress(f"{name}: {done} of {len(train)} photos of epoch {epoch}"))
            arrays = model.get_weights()
            layers = [(arrays[0] / np.float32(unit), arrays[1]), *zip(arrays[2::2], arrays[3::2], strict=True)]
            reached = log_loss(apply_layers(validation_codes, layers), validation.targets)
            if reached < least * (1 - _MIN_IMPROVEMENT):
                least, best, best_epoch = reached, layers, epoch
            elif C is not None:
                optimizer.learning_rate = float(optimizer.learning_rate) / 2  # the minimum is near
    return best, best_epoch


def _build(width: int, classes: int, seed: int, penalty: float | None) -> keras.Sequential:
    """Return a network with a hidden layer or, with a penalty on half the squared kernel, without one."""
    import keras

    first, last = (keras.initializers.GlorotUniform((seed + number) % 2**32) for number in range(2))
    hidden = [
        keras.layers.Dense(_HIDDEN_UNITS, "relu", kernel_initializer=first),
        keras.layers.Dropout(_DROPOUT, seed=seed),
    ]
    regularizer = None if penalty is None else keras.regularizers.L2(penalty / 2)
    output = keras.layers.Dense(classes, kernel_initializer=last, kernel_regularizer=regularizer)
    return keras.Sequential([keras.Input([width]), *(hidden if penalty is None else []), output])


def _train_epoch(
    model: keras.Sequential,
    train: LabelledCodes,
    normalization: Normalization,
    unit: float,
    batch_size: int,
    random: np.random.Generator,
) -> Iterator[int]:
    """Train on all codes once, in a random order; yield the number of photos so far."""
    weights = balanced_sample_weights(train.targets)
    done = 0
    for positions, codes in train.chunks(random):
        for start in range(0, len(positions), batch_size):
            batch = slice(start, start + batch_size)
            chosen = positions[batch]
            values = normalization(codes[batch]) / np.float32(unit)
            model.train_on_batch(values, train.targets[chosen], weights[chosen])
        done += len(positions)
        yield done
