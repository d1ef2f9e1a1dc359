"""The epochs of a training so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

_PATIENCE = 3  # epochs without a better loss on the validation side, after each of which the rate is halved


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to.

    Attributes:
        epoch: Counted from 1; 0 is how it was before.
        validation_loss: Mean log loss on the validation side, at the temperature of the least.
        validation_accuracy: Likewise, 0 to 1.
        loss, accuracy: On the training side, with all that is varied at random; 0 before.
        lr_multiplier: Times the usual learning rates.
        seconds: Since the epoch before was done, or the training was begun or gone on with.
        stages: Of these, by stage: `wait` for pixels, `network`, and `save`, of the epoch before.
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
class State:
    """How far a training is.

    Attributes:
        epochs: What was done, the state before training first.
        best: The epoch of the least loss on the validation side.
    """

    epochs: tuple[Epoch, ...] = ()
    best: int = 0

    def after(self, epoch: Epoch) -> State:
        """The state after another epoch."""
        least = self.epochs[self.best].validation_loss if self.epochs else math.inf
        best = epoch.epoch if epoch.validation_loss < least else self.best
        return State((*self.epochs, epoch), best)

    def ended(self, epochs: int) -> bool:
        """Whether no other epoch is to come, of so many at most."""
        last = len(self.epochs) - 1
        return last >= epochs or last - self.best >= _PATIENCE
