"""Labels a photo archive of any size.

    import flowers_batch as fb

    fb.encode("photos", "run/codes", fb.EncodeConfig(weights="random:0"))
    metrics = fb.train("run/codes", "run/model")
    fb.predict("archive", "run/predictions", "run/model")
    fb.report("run/predictions")
    assert fb.verify("run/predictions").is_whole

Everything is imported when it is first used, so that importing the package takes no time.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowers_batch.candidates import next_labels, suspects
    from flowers_batch.config import (
        ClusterConfig,
        EncodeConfig,
        FinetuneConfig,
        FlowersError,
        InputError,
        PredictConfig,
        RunError,
        TrainConfig,
    )
    from flowers_batch.export import export
    from flowers_batch.finetune import finetune
    from flowers_batch.report import report
    from flowers_batch.runs import Summary, encode, predict
    from flowers_batch.server import review
    from flowers_batch.training import train
    from flowers_batch.verify import Verification, verify

_ROOMS = {
    "candidates": ("next_labels", "suspects"),
    "config": (
        "ClusterConfig",
        "EncodeConfig",
        "FinetuneConfig",
        "FlowersError",
        "InputError",
        "PredictConfig",
        "RunError",
        "TrainConfig",
    ),
    "export": ("export",),
    "finetune": ("finetune",),
    "report": ("report",),
    "runs": ("Summary", "encode", "predict"),
    "server": ("review",),
    "training": ("train",),
    "verify": ("Verification", "verify"),
}

__all__ = [
    "ClusterConfig",
    "EncodeConfig",
    "FinetuneConfig",
    "FlowersError",
    "InputError",
    "PredictConfig",
    "RunError",
    "Summary",
    "TrainConfig",
    "Verification",
    "encode",
    "export",
    "finetune",
    "next_labels",
    "predict",
    "report",
    "review",
    "suspects",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    for room, names in _ROOMS.items():
        if name in names:
            value = getattr(import_module(f"flowers_batch.{room}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Package(ModuleType):
    """Rooms and calls share names (`report`, `verify`): importing a room must not put it in the call's place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in __all__):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
