"""Adam with a learning rate per variable, which follows from the sizes of the layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

# Of the classifier, times 1/sqrt(width of the codes): as where a classifier alone is trained.
_HEAD_RATE = 0.03
# Adam moves each weight by about its learning rate, and thus a layer's output by up to rate * inputs * x, where weights
# of He's initialisation (arXiv 1502.01852) give sqrt(2) * x: a rate of sqrt(2) * share / inputs moves it by `share`.
_PRETRAINED_SHARE = 0.03  # of the topmost block of a pretrained network
_SHARE_DECAY = 0.6  # from each block to the one below
_RANDOM_SHARE = 0.02  # of all layers of a network with random weights


def build_optimizer(lr_multiplier: float, rates: Sequence[float], warm_up_steps: int) -> keras.Optimizer:
    """Return Adam (arXiv 1412.6980) with a learning rate per variable.

    Adam's first steps are its largest, since it knows each gradient from one batch alone: rates rise linearly for some
    steps.

    Args:
        lr_multiplier: The optimizer's own learning rate, which multiplies all others and may change.
        rates: Of each variable.
        warm_up_steps: Steps until the rates are reached.
    """
    import keras

    class Adam(keras.optimizers.Adam):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            warm_up = keras.ops.minimum(1.0, (keras.ops.cast(self.iterations, "float32") + 1) / warm_up_steps)
            own = rates[self._get_variable_index(variable)]
            super().update_step(gradient, variable, learning_rate * own * warm_up)

    return Adam(lr_multiplier)


def learning_rates(
    classifier: keras.Model, network: keras.Model, unfrozen: list[str], is_random: bool, typical_value: float = 1.0
) -> list[float]:
    """Return the learning rate of each trainable variable.

    Args:
        classifier: The network with a head on top.
        network: The network alone.
        unfrozen: Its layers that are trained, in the network's order.
        is_random: Whether training starts from random weights.
        typical_value: The root mean square of the head's inputs: the smaller they are, the larger are its steps.
    """
    blocks = list(dict.fromkeys(layer[:5] for layer in reversed(unfrozen)))  # fc7, fc6, conv5, ...
    rates = []
    for variable in classifier.trainable_variables:
        layer = variable.path.split("/")[-2]  # of `fc6/kernel`, `conv5_1/bias`, `head/kernel`
        if layer == "head":
            rates.append(_HEAD_RATE / math.sqrt(classifier.get_layer(layer).kernel.shape[0]) / typical_value)
            continue
        inputs = math.prod(network.get_layer(layer).kernel.shape[:-1])
        share = _RANDOM_SHARE if is_random else _PRETRAINED_SHARE * _SHARE_DECAY ** blocks.index(layer[:5])
        rates.append(math.sqrt(2) * share / inputs)
    return rates
