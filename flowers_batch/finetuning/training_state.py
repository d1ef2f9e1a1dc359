"""The epochs of a training run so far, and early stopping."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

_PATIENCE = 3  # epochs without a better validation loss


@dataclass(frozen=True)
class Epoch:
    """The figures of one epoch.

    Attributes:
        epoch: Counted from 1; 0 is the state before training.
        validation_loss: Mean log loss on the validation photos, at the temperature that minimises it.
        validation_accuracy: On the validation photos, 0 to 1.
        loss, accuracy: On the training photos, with augmentation and dropout; 0 for epoch 0.
        lr_multiplier: Factor of the usual learning rates.
        seconds: Since the epoch before ended, or since the training was started or resumed.
        stages: Seconds by stage: `wait` for pixels, `network`, and `save` of the epoch before.
    """

    epoch: int
    validation_loss: float
    validation_accuracy: float
    loss: float = 0.0
    accuracy: float = 0.0
    lr_multiplier: float = 0.0
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingState:
    """How far a training run is.

    Attributes:
        epochs: All epochs so far, epoch 0 included.
        best: The epoch of the smallest validation loss.
    """

    epochs: tuple[Epoch, ...] = ()
    best: int = 0

    def after(self, epoch: Epoch) -> TrainingState:
        """Return the state after another epoch."""
        least = self.epochs[self.best].validation_loss if self.epochs else math.inf
        best = epoch.epoch if epoch.validation_loss < least else self.best
        return TrainingState((*self.epochs, epoch), best)

    def is_finished(self, max_epochs: int) -> bool:
        """Return whether all epochs are done, or the validation loss has stopped improving."""
        last = len(self.epochs) - 1
        return last >= max_epochs or last - self.best >= _PATIENCE
