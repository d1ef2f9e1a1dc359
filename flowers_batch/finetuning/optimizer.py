"""Adam with a learning rate per variable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


def _optimizer(lr_multiplier: float, rates: Sequence[float], warm_up: int) -> keras.Optimizer:
    """Adam (arXiv 1412.6980) with a rate of its own for each variable, times one that may change.

    Adam's first steps are its largest, since it knows each slope from one batch alone: rates rise for `warm_up` steps.
    """
    import keras

    class Adam(keras.optimizers.Adam):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            warm = keras.ops.minimum(1.0, (keras.ops.cast(self.iterations, "float32") + 1) / warm_up)
            own = rates[self._get_variable_index(variable)]
            super().update_step(gradient, variable, learning_rate * own * warm)

    return Adam(lr_multiplier)
