"""Settings and exit codes."""

from __future__ import annotations

import pytest

from flowers_batch.config import ClusterConfig, EncodeConfig, PredictConfig, TrainConfig
from flowers_batch.errors import FlowersError, InputError, RunError


@pytest.mark.parametrize(
    ("make", "setting"),
    [
        (lambda: EncodeConfig(network="resnet"), "network"),
        (lambda: EncodeConfig(pool="sum"), "pool"),
        (lambda: EncodeConfig(precision="float64"), "precision"),
        (lambda: EncodeConfig(code_dtype="int8"), "code_dtype"),
        (lambda: EncodeConfig(decode="half"), "decode"),
        (lambda: EncodeConfig(batch_size=0), "batch_size"),
        (lambda: EncodeConfig(shard_size=-1), "shard_size"),
        (lambda: EncodeConfig(max_failed_share=-0.1), "max_failed_share"),
        (lambda: PredictConfig(max_failed_share=1.1), "max_failed_share"),
        (lambda: PredictConfig(max_failed_share=float("nan")), "max_failed_share"),
        (lambda: TrainConfig(("folder",), head="forest"), "head"),
        (lambda: TrainConfig(("folder",), seed=-1), "seed"),
        (lambda: TrainConfig(("folder",), min_photos_per_class=0), "min_photos_per_class"),
        (lambda: TrainConfig(("folder",), seed=2**32), "seed"),
        (lambda: PredictConfig(top_k=0), "top_k"),
        (lambda: PredictConfig(batch_size=0), "batch_size"),
        (lambda: PredictConfig(shard_size=0), "shard_size"),
        (lambda: ClusterConfig(actors=0), "actors"),
    ],
)
def test_invalid_setting_is_refused_by_name(make, setting):
    with pytest.raises(InputError, match=f"^`{setting}`" + r" must .*Received: \S+\.$"):
        make()


def test_smallest_allowed_values_are_accepted():
    EncodeConfig(batch_size=1, shard_size=1, network="null", precision="bfloat16", code_dtype="float32")
    PredictConfig(top_k=1, batch_size=1, shard_size=1, max_failed_share=0)
    TrainConfig(("folder",), seed=2**32 - 1, head="mlp")
    ClusterConfig(actors=1)


def test_input_errors_exit_with_2_and_run_errors_with_1():
    assert (InputError("x").exit_code, RunError("x").exit_code) == (2, 1)
    assert issubclass(InputError, FlowersError) and issubclass(RunError, FlowersError)
