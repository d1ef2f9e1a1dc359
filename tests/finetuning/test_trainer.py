"""A network that is trained further: tiny ones, in this process; nothing here needs Ray."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from helpers import KINDS, ROOT, assert_parameters_equal, draw_archive, images_in, source, write

from flowers_batch.classifier.head import Head
from flowers_batch.classifier.model_folder import NETWORK
from flowers_batch.config import EncodeConfig, FinetuneConfig, TrainConfig
from flowers_batch.encoding.micro_batcher import pixel_type
from flowers_batch.encoding.networks import build_network, weights_identity
from flowers_batch.encoding.weights import convert_weights
from flowers_batch.errors import InputError, RunError
from flowers_batch.finetuning import training_state
from flowers_batch.finetuning.pixels import PixelReader
from flowers_batch.finetuning.trainer import EPOCHS, Trainer, Tuning, unfrozen
from flowers_batch.finetuning.training_devices import TrainingDevices
from flowers_batch.sources.images import batches_of

pytestmark = pytest.mark.usefixtures("thin")
OPTIONS = {"layer": "relu6", "unfreeze": "all", "epochs": 4, "augment": ("flip",)}


class Killed(BaseException):
    """A training that ends without a word."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return draw_archive(tmp_path_factory.mktemp("photos"), 12)


@pytest.fixture(scope="module")
def whole(thin, photos, tmp_path_factory):
    """A training that nothing disturbed: its work, and what came of it."""
    work = tuning_of(photos, tmp_path_factory.mktemp("whole"), **OPTIONS)
    return work, *trained(work)


def tuning_of(photos, out, layer="relu7", precision="float32", seed=0, batch_size=9, **options) -> Tuning:
    """Three classes of twelve photos, of which every third validates, and a head that knows nothing."""
    origin = source(photos)
    images = images_in(origin)
    encoding = EncodeConfig(weights="random:3", layer=layer, precision=precision)
    weights, _ = weights_identity(encoding)
    network, _ = build_network(encoding, "float32")
    digests = [hashlib.sha256(origin.read(image)).digest() for image in images]
    reader = PixelReader(origin, images, digests, 8, 2)
    codes = np.concatenate([network.predict_on_batch(pixels) for pixels in reader.batches(np.arange(len(images)))])
    reader.close()
    width, classes = codes.shape[1], tuple(sorted(KINDS))
    layers = ((np.zeros((width, len(classes)), np.float32), np.zeros(len(classes), np.float32)),)
    config = FinetuneConfig(encode=encoding, train=TrainConfig(seed=seed), batch_size=batch_size, **options)
    return Tuning(
        config=config,
        encoding=encoding,
        weights=weights,
        source=origin,
        photos=pa.Table.from_batches(batches_of(images)),
        targets=np.array([classes.index(image.path.split("/")[0]) for image in images]),
        trained=np.arange(len(images)) % 3 != 0,
        head=Head(classes, codes.mean(0), codes.std(0) + 1e-3, layers),
        folder=str(out),
        codes="CODES",
        digests=digests,
    )


def trained(work: Tuning, kill_at: str | None = None, devices: int = 1):
    """The state, the head and the network's weights that a training ends with; None if it is killed."""
    tuner = Trainer(work, 2, devices)

    def kill(sentence: str) -> None:
        if kill_at and sentence.startswith(kill_at):
            raise Killed

    reporter = SimpleNamespace(message=kill, update=lambda progress: kill(progress.text))
    try:
        state = tuner.train(reporter)
        layer = tuner.publish(state)
    except Killed:
        return None
    finally:
        tuner.close()
    return state, layer, published(work)


def published(work: Tuning, name: str = NETWORK):
    from tensorflow_vgg import weights

    path = Path(work.folder, name)
    return list(weights.load(weights.Weights(str(path), path), "vgg16", work.encoding.layer))


def initial(work: Tuning):
    from tensorflow_vgg import weights

    return list(weights.load(weights.find(work.encoding.weights), "vgg16", work.encoding.layer))


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
    assert unfrozen("vgg16", layer, unfreeze) == expected
    assert len(unfrozen("vgg19", "relu7", "all")) == 18


def test_unfreezing_what_is_not_there_is_refused():
    with pytest.raises(InputError, match="vgg16 up to pool5 has no layers of `unfreeze` fc: unfreeze more, or head"):
        unfrozen("vgg16", "pool5", "fc")


def test_training_learns_and_keeps_the_best(whole):
    _, state, *_ = whole
    accuracy = [epoch.accuracy for epoch in state.epochs[1:]]
    assert max(accuracy[1:]) > accuracy[0] + 0.1
    losses = [epoch.validation_loss for epoch in state.epochs]
    assert losses[state.best] == min(losses) < 0.8 * losses[0]


@pytest.mark.parametrize("room", [True, False])
def test_photos_are_decoded_once_and_in_the_order_in_which_they_lie(photos, tmp_path, monkeypatch, room):
    work = tuning_of(photos, tmp_path, unfreeze="head", epochs=1)
    listed = [image.path for image in images_in(work.source)]
    read: list[str] = []
    once = type(work.source).read
    monkeypatch.setattr(type(work.source), "read", lambda source, image: read.append(image.path) or once(source, image))
    if not room:
        monkeypatch.setattr("flowers_batch.finetuning.pixels._scratch", lambda size: None)
    tuner = Trainer(work, 1, 1)
    tuner.train(lambda *_: None)
    tuner.close()
    assert (read == listed) == room
    judged = [path for path, is_trained in zip(listed, work.trained, strict=True) if not is_trained]
    assert Counter(read) == Counter(listed) + Counter([] if room else judged), "judged before and after the epoch"


def test_what_is_told_to_stay_is_saved(photos, tmp_path):
    """By it an actor shows that it got on: one that dies again and again while it saves must not seem to."""
    work = tuning_of(photos, tmp_path, unfreeze="head", epochs=2)
    saved = []
    tuner = Trainer(work, 2, 1)
    tuner.train(lambda _, stays: saved.append(sorted(tmp_path.glob(f"{EPOCHS}/epoch-*"))[-1].name) if stays else None)
    tuner.close()
    assert saved == ["epoch-0001.safetensors", "epoch-0002.safetensors"]


@pytest.mark.parametrize("unfreeze", ["head", "fc", "conv5", "all"])
def test_only_what_is_unfrozen_changes(photos, tmp_path, monkeypatch, unfreeze):
    monkeypatch.setattr(
        training_state.State,
        "after",
        lambda state, epoch: training_state.State((*state.epochs, epoch), epoch.epoch),
    )
    work = tuning_of(photos, tmp_path, unfreeze=unfreeze, epochs=1)
    state, (kernel, _), after = trained(work)
    assert state.best == 1
    changed = [name for (name, *new), (_, *old) in zip(after, initial(work), strict=True) if (new[0] != old[0]).any()]
    assert changed == unfrozen("vgg16", "relu7", unfreeze)
    assert (kernel != work.head.layers[0][0]).any()


def test_deeper_layers_learn_slower_but_from_scratch_all_alike(photos, tmp_path):
    work = tuning_of(photos, tmp_path, unfreeze="all")
    from_scratch = Trainer(work, 1, 1)
    convert_weights("random:3", str(tmp_path / "w.safetensors"), "float32")
    encoding = replace(work.encoding, weights=str(tmp_path / "w.safetensors"))
    further = Trainer(replace(work, encoding=encoding), 1, 1)
    for tuner, deepest in ((from_scratch, 1.0), (further, 0.1)):
        names = [variable.path.split("/")[-2] for variable in tuner._model.trainable_variables]
        inputs = [np.prod(tuner._network.get_layer(name).kernel.shape[:-1]) for name in names if name != "head"]
        moved = np.array(tuner._rates()[:-2]) * inputs  # of what a layer gives
        assert (np.diff(moved) >= -1e-12).all() and names[-2:] == ["head", "head"]
        assert moved[0] <= deepest * moved[-1] * (1 + 1e-9)
        tuner.close()


@pytest.mark.parametrize(
    "at",
    [
        pytest.param("before: judging", marks=pytest.mark.slow),
        pytest.param("epoch 1 of 4: 18", marks=pytest.mark.slow),
        "epoch 3 of 4: 9",
        pytest.param("epoch 4 of 4: 24", marks=pytest.mark.slow),
    ],
)
def test_killed_training_goes_on_and_ends_as_one_that_was_not(photos, whole, tmp_path, at):
    _, state, layer, network = whole
    broken = tuning_of(photos, tmp_path, **OPTIONS)
    assert trained(broken, kill_at=at) is None
    state_after, layer_after, network_after = trained(broken)
    told = [
        [(e.loss, e.accuracy, e.validation_loss, e.lr_multiplier) for e in each.epochs] for each in (state, state_after)
    ]
    assert told[0] == told[1] and state.best == state_after.best
    for one, other in zip(layer, layer_after, strict=True):
        np.testing.assert_array_equal(one, other)
    assert_parameters_equal(network_after, network)


def test_in_bfloat16_weights_are_kept_in_float32(photos, tmp_path):
    work = tuning_of(photos, tmp_path, precision="bfloat16", unfreeze="fc", epochs=1)
    tuner = Trainer(work, 2, 1)
    layer = tuner._network.get_layer("fc6")
    assert (layer.compute_dtype, layer.variable_dtype) == ("bfloat16", "float32")
    tuner.close()
    _, _, network = trained(work)
    fc6 = next(kernel for name, kernel, _ in network if name == "fc6")
    assert (fc6.view(np.uint32) & 0xFFFF).any()  # digits that bfloat16 has not


def test_weights_are_those_of_the_best_epoch(photos, tmp_path, monkeypatch):
    """Later epochs are made to judge badly: what is published is the network as it was."""
    losses = iter([1.0, 0.5, 2.0, 2.0, 2.0, 2.0])
    monkeypatch.setattr(Trainer, "_judge", lambda *_: (next(losses), 0.5))
    state, layer, network = trained(tuning_of(photos, tmp_path / "long", unfreeze="fc", epochs=9))
    assert (state.best, len(state.epochs)) == (1, 5)  # it ended early
    assert [epoch.lr_multiplier for epoch in state.epochs[1:]] == [1.0, 1.0, 0.5, 0.25]
    losses = iter([1.0, 0.5])
    _, layer_after_one, network_after_one = trained(tuning_of(photos, tmp_path / "one", unfreeze="fc", epochs=1))
    assert_parameters_equal(network, network_after_one)
    np.testing.assert_array_equal(layer[0], layer_after_one[0])


def test_training_that_makes_nothing_better_gives_back_what_it_began_with(photos, tmp_path, monkeypatch):
    losses = iter([1.0, 2.0, 2.0, 2.0])
    monkeypatch.setattr(Trainer, "_judge", lambda *_: (next(losses), 0.5))
    work = tuning_of(photos, tmp_path, unfreeze="fc")
    state, layer, network = trained(work)
    assert state.best == 0 and len(state.epochs) == 4
    np.testing.assert_array_equal(layer[0], work.head.layers[0][0])
    assert_parameters_equal(network, initial(work))


def test_checkpoints_of_earlier_epochs_do_not_pile_up(whole):
    work, state, *_ = whole
    names = sorted(path.name for path in Path(work.folder, EPOCHS).iterdir())
    assert names == [f"epoch-{number:04d}.safetensors" for number in sorted({state.best, len(state.epochs) - 1})]


def test_weights_become_the_notebooks_file_and_load_back_equal(whole):
    work, _, _, network = whole
    convert_weights(str(Path(work.folder, NETWORK)), str(Path(work.folder, "vgg16.npy")), "float32")
    assert_parameters_equal(published(work, "vgg16.npy"), network)
    assert weights_identity(replace(work.encoding, weights=str(Path(work.folder, NETWORK))))[0] != work.weights


def test_seed_decides_on_what_is_random(photos, tmp_path):
    options = {"unfreeze": "head", "epochs": 1}
    losses = [trained(tuning_of(photos, tmp_path / str(seed), seed=seed, **options))[0] for seed in (0, 1)]
    assert losses[0].epochs[1].loss != losses[1].epochs[1].loss


def test_head_alone_sees_varied_photos_and_judging_does_not(photos, tmp_path):
    """Without variation and dropout, the loss on the training side would be what judging it gives."""
    work = tuning_of(photos, tmp_path, unfreeze="head")
    kernel = np.random.default_rng(0).normal(size=work.head.layers[0][0].shape).astype(np.float32)
    head = replace(work.head, layers=((kernel, np.arange(3, dtype=np.float32)),))
    tuner = Trainer(replace(work, head=head), 2, 1)
    pixels = next(iter(tuner._read(np.arange(9), {})))
    judged = [tuner._devices.predict(tuner._model, pixels) for _ in range(2)]
    np.testing.assert_array_equal(*judged)
    varied = [np.asarray(tuner._model(pixels, training=True)) for _ in range(2)]
    assert (varied[0] != varied[1]).any()
    network, _ = build_network(work.encoding, "float32")
    codes = network.predict_on_batch(pixels.astype(pixel_type("float32")))
    np.testing.assert_allclose(judged[0], head.logits(codes), rtol=1e-4, atol=1e-4)
    tuner.close()


def test_loss_that_is_no_number_ends_it_in_a_sentence(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingDevices, "step", lambda *_: {"loss": float("nan"), "accuracy": 0.0})
    told = (
        r"no number any more in epoch 1: begin again .* such as `lr_multiplier` 0\.1, by `flowers-batch finetune CODES"
    )
    with pytest.raises(RunError, match=told):
        trained(tuning_of(photos, tmp_path, unfreeze="head"))


def test_loss_that_is_no_number_later_leaves_the_best_epoch(whole, tmp_path, monkeypatch):
    work, state, *_ = whole
    steps, once = [], TrainingDevices.step

    def diverge(devices, *arrays):
        steps.append(arrays)
        return once(devices, *arrays) if len(steps) <= 3 else {"loss": float("nan"), "accuracy": 0.0}

    monkeypatch.setattr(TrainingDevices, "step", diverge)
    found, layer, _ = trained(replace(work, folder=str(tmp_path)))
    assert [epoch.loss for epoch in found.epochs] == [epoch.loss for epoch in state.epochs[:2]]
    assert found.best == 1 and np.isfinite(layer[0]).all()


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (
            ValueError("OOM when allocating tensor with shape[9,224,224,64]"),
            RunError,
            r"A step of 9 photos does not fit .* a smaller `batch_size`, or `unfreeze` less, by `flowers-batch",
        ),
        (InputError("BLOOMS/1.jpg is gone."), InputError, "BLOOMS/1.jpg is gone"),
    ],
)
def test_step_that_does_not_fit_into_memory_says_what_to_ask_for(photos, tmp_path, monkeypatch, error, kind, told):
    def fail(*_):
        raise error

    monkeypatch.setattr(TrainingDevices, "step", fail)
    with pytest.raises(kind, match=told):
        tuning_of(photos, tmp_path, unfreeze="head")(2, 0, lambda *_: None)


def test_other_weights_under_the_same_name_are_refused(photos, tmp_path):
    work = replace(tuning_of(photos, tmp_path), weights="0" * 64)
    with pytest.raises(InputError, match="random:3 holds other weights here: give all nodes the same files"):
        Trainer(work, 1, 1)


_TWO_DEVICES = """
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from pathlib import Path
from flowers_batch.finetuning import trainer
from tensorflow_vgg import network
from MODULE import trained, tuning_of
network.FILTERS, network.FC_WIDTH = (2, 3, 4, 5, 6), 8
trainer._DROPOUT = 1e-9  # each device drops others
photos, out = map(Path, sys.argv[1:])
for devices in (1, 2):
    work = tuning_of(photos, out / str(devices), unfreeze="all", epochs=2, augment=(), batch_size=8)
    state, layer, _ = trained(work, devices=devices)
    print("LOSSES", *(epoch.loss for epoch in state.epochs[1:]), *(epoch.validation_loss for epoch in state.epochs))
"""


@pytest.mark.slow
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
