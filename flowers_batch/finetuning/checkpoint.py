"""Epochs of a training run on disk: all that the next epoch depends on, in one file each."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowers_batch.classifier.head import Layer
from flowers_batch.classifier.model_folder import NETWORK
from flowers_batch.classifier.model_shapes import STATE_SHAPE, check_epochs
from flowers_batch.dataset import formats_0_1
from flowers_batch.dataset.format_version import in_current_format, with_format
from flowers_batch.dataset.tunings import tuning_on
from flowers_batch.encoding.networks import TRAINED_FURTHER, TUNED_ON
from flowers_batch.errors import InputError
from flowers_batch.finetuning.job import FinetuningJob
from flowers_batch.finetuning.trainable_model import TRAINED, TrainableModel, to_numpy
from flowers_batch.finetuning.training_state import Epoch, TrainingState
from flowers_batch.json_values import check_shape, parse_json
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.local_files import reason_of

if TYPE_CHECKING:
    from safetensors import safe_open

EPOCHS = "epochs"  # a folder in the model folder, until the training is finished


def save_epoch(folder: Folder, model: TrainableModel, state: TrainingState) -> float:
    """Publish the state after an epoch, and delete all older ones but the best.

    Returns:
        The seconds that it took.
    """
    from tensorflow_vgg.formats import save_arrays

    started = time.monotonic()
    arrays = {name: to_numpy(variable) for name, variable in model.variables().items()}
    last = _file_of(len(state.epochs) - 1)
    with folder.publish(last) as scratch:
        save_arrays(arrays, scratch, {"state": json.dumps(with_format(asdict(state)))})
    for name in folder.names(EPOCHS):
        if f"{EPOCHS}/{name}" not in (_file_of(state.best), last):
            folder.delete(f"{EPOCHS}/{name}")
    return time.monotonic() - started


def restore_last_epoch(folder: Folder, model: TrainableModel) -> TrainingState | None:
    """Restore the model as it was after the last saved epoch, and return the state then; None if no epoch was saved."""
    saved = [name for name in folder.names(EPOCHS) if name.startswith("epoch-")]
    if not saved:
        return None
    last = f"{EPOCHS}/{saved[-1]}"
    with _opened(folder, last) as file:
        for name, variable in model.variables().items():
            variable.assign(file.get_tensor(name))
        content = parse_json(file.metadata()["state"])
        state = in_current_format(content, folder.url_of(last), formats_0_1.upgrade_training_state)
        return _state_from_json(state)


def _state_from_json(state: dict[str, Any]) -> TrainingState:
    check_shape(state, STATE_SHAPE)
    check_epochs(state["epochs"], state["best"])
    names = [field.name for field in fields(Epoch)]
    epochs = ({name: epoch[name] for name in names} for epoch in state["epochs"])
    return TrainingState(tuple(Epoch(**epoch) for epoch in epochs), state["best"])


@contextmanager
def _opened(folder: Folder, name: str) -> Iterator[safe_open]:
    """Open a file of `epochs/` until the block ends, in which everything about it is checked.

    Raises:
        InputError: It is missing, or is not an epoch of this training.
    """
    from safetensors import SafetensorError, safe_open

    with folder.local_copy(name) as path:
        try:
            with safe_open(path, "numpy") as file:
                yield file
        except (SafetensorError, FileNotFoundError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{folder.url_of(name)} is missing or damaged ({reason_of(error)}): delete "
                f"{folder.url_of(EPOCHS)}, and run the same command again, which trains from the first epoch."
            ) from None


def publish_best_epoch(folder: Folder, model: TrainableModel, state: TrainingState, job: FinetuningJob) -> Layer:
    """Write the network's weights of the best epoch into the model folder; return the head's kernel and bias."""
    with _opened(folder, _file_of(state.best)) as file:
        for name, variable in model.variables().items():
            if name.startswith(TRAINED):
                variable.assign(file.get_tensor(name))
    # Of epoch 0 they are the initial ones.
    _write_weights(folder, model, job, model.unfrozen if state.best else ())
    kernel, bias = model.head.get_weights()
    return kernel, bias


def _write_weights(folder: Folder, model: TrainableModel, job: FinetuningJob, trained: Sequence[str]) -> None:
    from tensorflow_vgg.formats import write
    from tensorflow_vgg.weights import LICENCE

    encoding, photos = job.encoding, job.photos
    tunings = [*job.tuned_on, *([tuning_on(photos.source.url, photos.digests)] if trained else [])]
    about = {
        "network": encoding.network,
        "licence": "none: random numbers, trained" if job.is_from_scratch else LICENCE,
        "source": f"{encoding.weights} ({job.weights})",
    }
    if tunings:
        about |= {TRAINED_FURTHER: " ".join(trained) or "as before", TUNED_ON: json.dumps(tunings)}
    with folder.publish(NETWORK) as scratch:
        write(Path(scratch), model.parameters(encoding.network, encoding.layer), "float32", about)


def _file_of(epoch: int) -> str:
    return f"{EPOCHS}/epoch-{epoch:04d}.safetensors"
