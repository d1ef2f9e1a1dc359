"""Training of small networks, in this process and without Ray."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers import KINDS, ROOT, assert_parameters_equal, draw_archive, images_in, source, write
from thread_pool import ThreadPool

from flowers_batch.classifier.head import Head
from flowers_batch.classifier.model_folder import NETWORK
from flowers_batch.classifier.normalization import STANDARDIZED, Normalization
from flowers_batch.config import EncodeConfig, FinetuneConfig, TrainConfig
from flowers_batch.decoding.pool import PoolSettings
from flowers_batch.encoding.micro_batcher import pixel_type
from flowers_batch.encoding.networks import build_network, weights_identity
from flowers_batch.encoding.weights import convert_weights
from flowers_batch.errors import InputError, RunError
from flowers_batch.finetuning.checkpoint import EPOCHS
from flowers_batch.finetuning.job import FinetuningJob, TrainingPhotos
from flowers_batch.finetuning.optimizer import learning_rates
from flowers_batch.finetuning.pixels import PixelReader
from flowers_batch.finetuning.trainable_model import build_trainable_model, unfrozen_layers
from flowers_batch.finetuning.trainer import Trainer
from flowers_batch.finetuning.training_devices import TrainingDevices
from flowers_batch.finetuning.training_state import TrainingState
from flowers_batch.progress import NULL_REPORTER, NullReporter, Progress
from flowers_batch.sources.images import batches_of

pytestmark = pytest.mark.usefixtures("thin", "in_threads")
OPTIONS = {"layer": "relu6", "unfreeze": "all", "epochs": 4, "augment": ("flip",)}


class Killed(BaseException):
    """Stands for the death of the training's process."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return draw_archive(tmp_path_factory.mktemp("photos"), 12)


@pytest.fixture(scope="module")
def few_photos(tmp_path_factory) -> Path:
    """Enough for a batch, where nothing need be learnt."""
    return draw_archive(tmp_path_factory.mktemp("few"), 4)


@pytest.fixture(scope="module")
def undisturbed(thin, photos, tmp_path_factory):
    """A training that nothing disturbed: its job, and its results."""
    job = build_job(photos, tmp_path_factory.mktemp("undisturbed"), **OPTIONS)
    return job, *train(job)


@lru_cache
def codes_of_photos(photos: Path, layer: str):
    """Return source, images, digests and codes of a folder's photos by random weights."""
    origin = source(photos)
    images = images_in(origin)
    network, _ = build_network(EncodeConfig(weights="random:3", layer=layer), "float32")
    digests = [hashlib.sha256(origin.read(image)).digest() for image in images]
    table = pa.Table.from_batches(batches_of(images))
    reader = PixelReader(origin, table, digests, 8, PoolSettings(2, EncodeConfig.max_pixels, 60.0))
    codes = np.concatenate([network.predict_on_batch(pixels) for pixels in reader.batches(np.arange(len(images)))])
    reader.close()
    return origin, images, digests, codes


def build_job(
    photos, out, layer="relu7", precision="float32", seed=0, batch_size=9, normalization=None, **options
) -> FinetuningJob:
    """Return a job on photos, of which every third validates, with a head of zeros."""
    origin, images, digests, codes = codes_of_photos(photos, layer)
    encoding = EncodeConfig(weights="random:3", layer=layer, precision=precision)
    width, classes = codes.shape[1], tuple(sorted(KINDS))
    normalization = normalization or Normalization(STANDARDIZED, codes.mean(0), codes.std(0) + 1e-3)
    layers = ((np.zeros((width, len(classes)), np.float32), np.zeros(len(classes), np.float32)),)
    return FinetuningJob(
        config=FinetuneConfig(
            encode=encoding, train=TrainConfig(("folder",), seed=seed), batch_size=batch_size, **options
        ),
        encoding=encoding,
        weights=weights_identity(encoding)[0],
        photos=TrainingPhotos(
            source=origin,
            images=pa.Table.from_batches(batches_of(images)),
            digests=digests,
            targets=np.array([classes.index(image.path.split("/")[0]) for image in images]),
            is_training=np.arange(len(images)) % 3 != 0,
        ),
        head=Head(classes, normalization, layers),
        folder=str(out),
        codes="CODES",
    )


class KillingReporter:
    """Kills the training at the progress text that begins like this."""

    def __init__(self, text: str):
        self._text = text

    def message(self, sentence: str) -> None:
        if sentence.startswith(self._text):
            raise Killed

    def update(self, progress: Progress) -> None:
        self.message(progress.text)


def train(job: FinetuningJob, kill_at: str | None = None, devices: int = 1, **options):
    """Return state, head layer and network's weights of a training; None if it is killed."""
    trainer = Trainer(job, 2, devices, **options)
    try:
        state = trainer.train(KillingReporter(kill_at) if kill_at else NULL_REPORTER)
        layer = trainer.publish(state)
    except Killed:
        return None
    finally:
        trainer.close()
    return state, layer, published(job)


def published(job: FinetuningJob, name: str = NETWORK):
    from tensorflow_vgg import weights

    path = Path(job.folder, name)
    return list(weights.load(weights.Weights(str(path), path), "vgg16", job.encoding.layer))


def initial(job: FinetuningJob):
    from tensorflow_vgg import weights

    return list(weights.load(weights.find(job.encoding.weights), "vgg16", job.encoding.layer))


@pytest.mark.parametrize(
    ("unfreeze", "layer", "expected"),
    [
        ("head", "relu7", []),
        ("fc", "relu6", ["fc6"]),
        ("fc", "relu7", ["fc6", "fc7"]),
        ("conv5", "relu6", ["conv5_1", "conv5_2", "conv5_3", "fc6"]),
        ("conv5", "pool5", ["conv5_1", "conv5_2", "conv5_3"]),
    ],
)
def test_layers_are_unfrozen_from_the_top(unfreeze, layer, expected):
    assert unfrozen_layers("vgg16", layer, unfreeze) == expected
    assert len(unfrozen_layers("vgg19", "relu7", "all")) == 18


def test_unfreezing_missing_layers_is_refused():
    with pytest.raises(InputError, match="vgg16 up to pool5 has no layers of `unfreeze` fc: unfreeze more, or head"):
        unfrozen_layers("vgg16", "pool5", "fc")


def test_training_learns_and_keeps_the_best_epoch(undisturbed):
    _, state, *_ = undisturbed
    accuracy = [epoch.accuracy for epoch in state.epochs[1:]]
    assert max(accuracy[1:]) > accuracy[0] + 0.1
    losses = [epoch.validation_loss for epoch in state.epochs]
    assert losses[state.best] == min(losses) < 0.8 * losses[0]


def test_training_on_normalised_codes_with_zeros_stays_finite(few_photos, tmp_path):
    """The gradient of a square root is infinite at 0, which half of the values after a ReLU are."""
    job = build_job(few_photos, tmp_path, normalization=Normalization("sqrt_l2"), epochs=2, batch_size=3)
    state, layer, network = train(job)
    assert state.best and len(state.epochs) == 3
    arrays = [*layer, *(array for _, *parameters in network for array in parameters)]
    assert all(np.isfinite(array).all() for array in arrays)


@pytest.mark.parametrize("fits_on_disk", [True, False])
def test_photos_are_decoded_once_in_stored_order(few_photos, tmp_path, monkeypatch, fits_on_disk):
    job = build_job(few_photos, tmp_path, unfreeze="head", epochs=1)
    listed = [image.path for image in images_in(job.photos.source)]
    read: list[str] = []
    once = ThreadPool.submit
    monkeypatch.setattr(
        ThreadPool, "submit", lambda pool, rows, slot: read.extend(rows["path"].to_pylist()) or once(pool, rows, slot)
    )
    if not fits_on_disk:
        monkeypatch.setattr("flowers_batch.finetuning.pixels._scratch", lambda size: None)
    trainer = Trainer(job, 1, 1)
    trainer.train(NULL_REPORTER)
    trainer.close()
    assert (read == listed) == fits_on_disk
    validated = [path for path, is_training in zip(listed, job.photos.is_training, strict=True) if not is_training]
    assert Counter(read) == Counter(listed) + Counter([] if fits_on_disk else validated), (
        "validated before and after the epoch"
    )


def test_epochs_are_saved_before_they_are_reported(few_photos, tmp_path):
    """A message counts as progress: an actor that dies each time it saves must not seem to make any."""
    saved = []

    class Listener(NullReporter):
        def message(self, sentence: str) -> None:
            saved.append(sorted(tmp_path.glob(f"{EPOCHS}/epoch-*"))[-1].name)

    trainer = Trainer(build_job(few_photos, tmp_path, unfreeze="head", epochs=2), 2, 1)
    trainer.train(Listener())
    trainer.close()
    assert saved == ["epoch-0001.safetensors", "epoch-0002.safetensors"]


@pytest.mark.parametrize("unfreeze", ["head", "fc", "conv5", "all"])
def test_only_unfrozen_layers_change(few_photos, tmp_path, monkeypatch, unfreeze):
    monkeypatch.setattr(TrainingState, "after", lambda state, epoch: TrainingState((*state.epochs, epoch), epoch.epoch))
    job = build_job(few_photos, tmp_path, unfreeze=unfreeze, epochs=1, batch_size=3)
    state, (kernel, _), after = train(job)
    assert state.best == 1
    changed = [name for (name, *new), (_, *old) in zip(after, initial(job), strict=True) if (new[0] != old[0]).any()]
    assert changed == unfrozen_layers("vgg16", "relu7", unfreeze)
    assert (kernel != job.head.layers[0][0]).any()


def test_deeper_layers_of_a_pretrained_network_learn_slower(few_photos, tmp_path):
    job = build_job(few_photos, tmp_path, unfreeze="all")
    assert job.is_from_scratch
    assert not replace(job, encoding=replace(job.encoding, weights="w.safetensors")).is_from_scratch
    model = build_trainable_model(job, steps_per_epoch=1)
    names = [variable.path.split("/")[-2] for variable in model.classifier.trainable_variables]
    inputs = [np.prod(model.network.get_layer(name).kernel.shape[:-1]) for name in names if name != "head"]
    for is_random, deepest in ((True, 1.0), (False, 0.1)):
        rates = learning_rates(model.classifier, model.network, model.unfrozen, is_random)
        moved = np.array(rates[:-2]) * inputs  # of a layer's output
        assert (np.diff(moved) >= -1e-12).all() and names[-2:] == ["head", "head"]
        assert moved[0] <= deepest * moved[-1] * (1 + 1e-9)


@pytest.mark.parametrize(
    "at",
    [
        pytest.param("before: validating", marks=pytest.mark.nightly),
        pytest.param("epoch 1 of 4: 18", marks=pytest.mark.faults),
        pytest.param("epoch 3 of 4: 9", marks=pytest.mark.nightly),
        pytest.param("epoch 4 of 4: 24", marks=pytest.mark.nightly),
    ],
)
def test_killed_training_resumes_to_the_same_result(photos, undisturbed, tmp_path, at):
    _, state, layer, network = undisturbed
    broken = build_job(photos, tmp_path, **OPTIONS)
    assert train(broken, kill_at=at) is None
    state_after, layer_after, network_after = train(broken)
    figures = [
        [(e.loss, e.accuracy, e.validation_loss, e.lr_multiplier) for e in each.epochs] for each in (state, state_after)
    ]
    assert figures[0] == figures[1] and state.best == state_after.best
    for one, other in zip(layer, layer_after, strict=True):
        np.testing.assert_array_equal(one, other)
    assert_parameters_equal(network_after, network)


def test_bfloat16_training_keeps_weights_in_float32(few_photos, tmp_path):
    job = build_job(few_photos, tmp_path, precision="bfloat16", unfreeze="fc", epochs=1)
    trainer = Trainer(job, 2, 1)
    layer = trainer.model.network.get_layer("fc6")
    assert (layer.compute_dtype, layer.variable_dtype) == ("bfloat16", "float32")
    trainer.close()
    _, _, network = train(job)
    fc6 = next(kernel for name, kernel, _ in network if name == "fc6")
    assert (fc6.view(np.uint32) & 0xFFFF).any()  # digits that bfloat16 has not


def test_weights_are_those_of_the_best_epoch(few_photos, tmp_path, monkeypatch):
    """Later epochs validate badly, so the network is published as it was before them."""
    losses = iter([1.0, 0.5, 2.0, 2.0, 2.0, 2.0])
    monkeypatch.setattr(Trainer, "validate", lambda *_: (next(losses), 0.5))
    state, layer, network = train(build_job(few_photos, tmp_path / "long", unfreeze="fc", epochs=9))
    assert (state.best, len(state.epochs)) == (1, 5)  # it ended early
    assert [epoch.lr_multiplier for epoch in state.epochs[1:]] == [1.0, 1.0, 0.5, 0.25]
    losses = iter([1.0, 0.5])
    _, layer_after_one, network_after_one = train(build_job(few_photos, tmp_path / "one", unfreeze="fc", epochs=1))
    assert_parameters_equal(network, network_after_one)
    np.testing.assert_array_equal(layer[0], layer_after_one[0])


def test_training_without_a_better_epoch_keeps_the_initial_weights(few_photos, tmp_path, monkeypatch):
    losses = iter([1.0, 2.0, 2.0, 2.0])
    monkeypatch.setattr(Trainer, "validate", lambda *_: (next(losses), 0.5))
    job = build_job(few_photos, tmp_path, unfreeze="fc")
    state, layer, network = train(job)
    assert state.best == 0 and len(state.epochs) == 4
    np.testing.assert_array_equal(layer[0], job.head.layers[0][0])
    assert_parameters_equal(network, initial(job))


def test_checkpoints_of_earlier_epochs_are_deleted(undisturbed):
    job, state, *_ = undisturbed
    names = sorted(path.name for path in Path(job.folder, EPOCHS).iterdir())
    assert names == [f"epoch-{number:04d}.safetensors" for number in sorted({state.best, len(state.epochs) - 1})]


def test_weights_convert_to_the_notebooks_file_and_back(undisturbed):
    job, _, _, network = undisturbed
    convert_weights(str(Path(job.folder, NETWORK)), str(Path(job.folder, "vgg16.npy")), "float32")
    assert_parameters_equal(published(job, "vgg16.npy"), network)
    assert weights_identity(replace(job.encoding, weights=str(Path(job.folder, NETWORK))))[0] != job.weights


@pytest.mark.slow
def test_seed_decides_on_the_training(few_photos, tmp_path):
    options = {"unfreeze": "head", "epochs": 1, "batch_size": 3}
    losses = [train(build_job(few_photos, tmp_path / str(seed), seed=seed, **options))[0] for seed in (0, 1)]
    assert losses[0].epochs[1].loss != losses[1].epochs[1].loss


def test_augmentation_and_dropout_act_in_training_only(photos, tmp_path):
    """In validation, the classifier gives the logits of the head on the network's codes."""
    job = build_job(photos, tmp_path, unfreeze="head")
    kernel = np.random.default_rng(0).normal(size=job.head.layers[0][0].shape).astype(np.float32)
    head = replace(job.head, layers=((kernel, np.arange(3, dtype=np.float32)),))
    trainer = Trainer(replace(job, head=head), 2, 1)
    pixels = next(iter(trainer.read_pixels(np.arange(9), {})))
    validated = [trainer.devices.predict(trainer.model.classifier, pixels) for _ in range(2)]
    np.testing.assert_array_equal(*validated)
    augmented = [np.asarray(trainer.model.classifier(pixels, training=True)) for _ in range(2)]
    assert (augmented[0] != augmented[1]).any()
    network, _ = build_network(job.encoding, "float32")
    codes = network.predict_on_batch(pixels.astype(pixel_type("float32")))
    np.testing.assert_allclose(validated[0], head.logits(codes), rtol=1e-4, atol=1e-4)
    trainer.close()


def test_diverged_first_epoch_suggests_smaller_steps(few_photos, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingDevices, "step", lambda *_: {"loss": float("nan"), "accuracy": 0.0})
    message = r"became NaN or infinite in epoch 1: start .* `lr_multiplier` 0\.1, by `flowers-batch finetune CODES"
    with pytest.raises(RunError, match=message):
        train(build_job(few_photos, tmp_path, unfreeze="head"))


@pytest.mark.slow
def test_later_divergence_keeps_the_best_epoch(undisturbed, tmp_path, monkeypatch):
    job, state, *_ = undisturbed
    steps, once = [], TrainingDevices.step

    def diverge(devices, *arrays):
        steps.append(arrays)
        return once(devices, *arrays) if len(steps) <= 3 else {"loss": float("nan"), "accuracy": 0.0}

    monkeypatch.setattr(TrainingDevices, "step", diverge)
    found, layer, _ = train(replace(job, folder=str(tmp_path)))
    assert [epoch.loss for epoch in found.epochs] == [epoch.loss for epoch in state.epochs[:2]]
    assert found.best == 1 and np.isfinite(layer[0]).all()


@pytest.mark.parametrize(
    ("error", "kind", "figures"),
    [
        (
            ValueError("OOM when allocating tensor with shape[9,224,224,64]"),
            RunError,
            r"A step of 9 photos does not fit .* a smaller `batch_size`, or `unfreeze` less, by `flowers-batch",
        ),
        (InputError("BLOOMS/1.jpg is gone."), InputError, "BLOOMS/1.jpg is gone"),
    ],
)
def test_step_that_exceeds_memory_suggests_smaller_settings(few_photos, tmp_path, monkeypatch, error, kind, figures):
    def fail(*_):
        raise error

    monkeypatch.setattr(TrainingDevices, "step", fail)
    with pytest.raises(kind, match=figures):
        build_job(few_photos, tmp_path, unfreeze="head")(2, 0, NULL_REPORTER)


def test_other_weights_of_the_same_name_are_refused(few_photos, tmp_path):
    job = replace(build_job(few_photos, tmp_path), weights="0" * 64)
    with pytest.raises(InputError, match="random:3 holds other weights here: give all nodes the same files"):
        Trainer(job, 1, 1)


_TWO_DEVICES = """
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from pathlib import Path
from tensorflow_vgg import network
from MODULE import build_job, train
network.FILTERS, network.FC_WIDTH = (2, 3, 4, 5, 6), 8
photos, out = map(Path, sys.argv[1:])
for devices in (1, 2):
    job = build_job(photos, out / str(devices), unfreeze="all", epochs=2, augment=(), batch_size=8)
    state, layer, _ = train(job, devices=devices, dropout=1e-9)  # devices drop different values
    print("LOSSES", *(epoch.loss for epoch in state.epochs[1:]), *(epoch.validation_loss for epoch in state.epochs))
"""


@pytest.mark.nightly
def test_two_devices_share_batches_and_train_the_same(photos, tmp_path):
    write(tmp_path, {"two.py": _TWO_DEVICES.replace("MODULE", __name__).encode()})
    folders = f"{ROOT}:{ROOT}/tests:{ROOT}/tests/finetuning"
    found = subprocess.run(
        [sys.executable, str(tmp_path / "two.py"), str(photos), str(tmp_path)],
        env={"PYTHONPATH": folders, "TF_CPP_MIN_LOG_LEVEL": "2", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    losses = [list(map(float, line.split()[1:])) for line in found.stdout.splitlines() if line.startswith("LOSSES")]
    assert len(losses) == 2, found.stderr[-2000:]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
