"""What version 0.1 wrote, under the names of this version.

Files of version 0.1 carry no format number. Each function takes the content of one of them and returns it as this
version would have written it; fields that are not renamed are left as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.dataset.schema import CODES
from flowers_batch.dataset.tunings import UNKNOWN_TUNING

PART_KEY = b"flowers_batch.manifest.3"  # of a manifest part's footer
SYNTHETIC_MARK = "DRAWN.txt"  # in a folder of photos that the demo drew, with this text
SYNTHETIC_TEXT = "These photos are drawn by a program."
FROZEN_FOLDER = "fixed"  # of a model folder: codes and classifier without fine-tuning
_OWN_FOLDER = "folder:-1"  # what `folder` meant as labels: the folder that a photo is in
_TUNED_WEIGHTS = "/network.safetensors"
_MISSING = "gone"  # the action of manifest rows whose images a listing did not find


def upgrade_job(job: dict[str, Any]) -> dict[str, Any]:
    """Return the content of `job.json`; the weights' name alone said that they were fine-tuned."""
    is_tuned = job.get("kind") == CODES and str(job.get("weights")).endswith(_TUNED_WEIGHTS)
    tuned_on = [UNKNOWN_TUNING] if is_tuned else []
    return job | {"fingerprint": _upgrade_fingerprint(job.get("fingerprint")), "tuned_on": tuned_on}


def upgrade_footer(footer: dict[str, Any]) -> dict[str, Any]:
    """Return what the footer of a shard's file says."""
    return _renamed(footer, {"inputs": "inputs_digest", "content": "content_digest"})


def upgrade_summary(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the content of `_SUCCESS`."""
    summary = _renamed(summary, {"vanished": "missing", "already_done": "resumed"})
    return summary | {"changes": _renamed(summary.get("changes", {}), {"vanished": "missing"})}


def upgrade_part(part: dict[str, Any]) -> dict[str, Any]:
    """Return what the footer of a manifest part says."""
    names = ("number", "images", "inputs_digest", "missing")
    return part | {"shards": [dict(zip(names, shard, strict=True)) for shard in part["shards"]]}


def upgrade_rows(rows: pa.Table) -> pa.Table:
    """Return rows of a manifest part."""
    place = rows.schema.get_field_index("action")
    action = pc.if_else(pc.equal(rows["action"], _MISSING), "missing", rows["action"])
    return rows.set_column(place, rows.schema.field(place), action)


def upgrade_model(model: dict[str, Any]) -> dict[str, Any]:
    """Return the content of `model.json`."""
    training = _renamed(model.get("training", {}), {"memory": "max_memory_mb"})
    training = _renamed(training, {"from": "initial_weights"})
    if "labels" in training:
        training |= {"labels": [_OWN_FOLDER if name == "folder" else name for name in training["labels"]]}
    return model | {
        "normalization": "standardized",
        "fingerprint": _upgrade_fingerprint(model.get("fingerprint")),
        "training": training,
    }


def upgrade_metrics(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the content of `metrics.json`."""
    heads = {kind: _renamed(head, {"strength": "C"}) for kind, head in metrics.get("heads", {}).items()}
    if "tuning" not in metrics:
        return metrics | {"heads": heads}
    tuning = _renamed(metrics["tuning"], {"from": "initial_weights", "fixed": "frozen"})
    tuning |= {"epochs": [_renamed(epoch, {"rate": "lr_multiplier"}) for epoch in tuning.get("epochs", [])]}
    return metrics | {"heads": heads, "tuning": tuning}


def split_columns(columns: Sequence[str], there: Sequence[str]) -> list[str]:
    """Return the names that columns of `split.parquet` have in a file whose columns are `there`."""
    return ["side" if name == "split" and name not in there else name for name in columns]


def upgrade_tuning(tuning: dict[str, Any]) -> dict[str, Any]:
    """Return the content of `tuning.json`."""
    return _renamed(tuning, {"rate": "lr_multiplier"})


def upgrade_training_state(state: dict[str, Any]) -> dict[str, Any]:
    """Return what a file of `epochs/` says of the training."""
    return state | {"epochs": [_renamed(epoch, {"rate": "lr_multiplier"}) for epoch in state["epochs"]]}


def _upgrade_fingerprint(fingerprint: Any) -> Any:
    return _renamed(fingerprint, {"store": "code_dtype"})


def _renamed(content: Any, names: dict[str, str]) -> Any:
    """Return a JSON object with fields renamed; anything else as it is, for the reader to refuse."""
    if not isinstance(content, dict):
        return content
    return {names.get(name, name): value for name, value in content.items()}
