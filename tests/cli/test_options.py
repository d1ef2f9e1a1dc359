"""Options that are derived from the fields of configs."""

from __future__ import annotations

from dataclasses import dataclass, fields

import pytest

from flowers_batch.cli.options import ConfigOptions, as_options, explanations
from flowers_batch.config import ClusterConfig, EncodeConfig, FinetuneConfig, PredictConfig, TrainConfig


@dataclass(frozen=True)
class Brush:
    """What paints.

    Attributes:
        width: Pixels across.
    """

    width: int = 3


@dataclass(frozen=True, kw_only=True)
class Painting(Brush):
    """How to paint.

    Attributes:
        colours: Names of colours, thicker ones
            with a larger `width`.
        size: Metres.
        signed: Sign it.
    """

    colours: tuple[str, ...] = ("red",)
    size: float | None = None
    signed: bool = False


def options_of(options: ConfigOptions) -> dict[str, tuple[object, str]]:
    """Return the default and the explanation of each option."""
    return {each.name: (each.default, each.annotation.__metadata__[0].help) for each in options.parameters()}


def test_fields_become_options_with_defaults_and_help():
    assert options_of(ConfigOptions(TrainConfig)).keys() == {each.name for each in fields(TrainConfig)}
    options = options_of(ConfigOptions(Painting))
    assert options["colours"] == (
        ["red"],
        "Names of colours, thicker ones with a larger --width. May be given several times.",
    )
    assert list(options) == ["colours", "size", "signed", "width"], "a class's own fields come before its bases'"
    assert options["width"] == (3, "Pixels across.")


@pytest.mark.parametrize("config", [ClusterConfig, EncodeConfig, FinetuneConfig, PredictConfig, TrainConfig])
def test_settings_have_a_help_text(config):
    assert {each.name for each in fields(config)} <= explanations(config).keys()


def test_config_is_built_from_own_and_nested_fields():
    options = ConfigOptions(EncodeConfig)
    values = {each.name: each.default for each in options.parameters()}
    assert options.build(values) == EncodeConfig()
    built = options.build(values | {"actors": "2", "prune": True, "layer": "relu7"})
    assert built == EncodeConfig(layer="relu7", prune=True, cluster=ClusterConfig(actors=2))


def test_partial_options_contain_only_given_values():
    options = ConfigOptions(EncodeConfig, only=("layer", "pool"), partial=True)
    assert options_of(options)["layer"][0] is None
    assert options.build({"layer": None, "pool": "avg"}) == {"pool": "avg"}


def test_augmentations_are_separated_by_commas():
    options = ConfigOptions(FinetuneConfig, only=("augment",))
    assert options.build({"augment": "crop,flip"}).augment == ("crop", "flip")
    assert options.build({"augment": "none"}).augment == ()


def test_settings_in_a_sentence_become_options():
    sentence = "`shard_size` must be 1 or more: run `encode` with `labels`."
    assert (
        as_options(sentence, {"shard_size", "labels"}) == "--shard-size must be 1 or more: run `encode` with --labels."
    )
