"""Image bytes in, a table out: a network and, for prediction, a head. Runs without Ray."""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flowers_batch.config import NULL_NETWORK, EncodeConfig, Fingerprint, InputError
from flowers_batch.dataset import (
    CODES,
    FAILED,
    IMAGE_COLUMNS,
    OK,
    codes_of,
    codes_schema,
    folder_of,
    predictions_schema,
    read_shard,
)
from flowers_batch.device import CPU_BATCH, GPU_BATCH, Passes, compiled, hardware_precision, pixel_type, prepare_device
from flowers_batch.feed import Condemned, Fed, Feed, Network, add
from flowers_batch.heads import Head
from flowers_batch.inspection import find_culprits
from flowers_batch.sources import Image, Source, images_of
from flowers_batch.storage import open_folder, split_file

if TYPE_CHECKING:
    import keras

_COPY_BYTES = 8 << 20
_ROWS_AT_ONCE = 1024  # of a manifest that are made objects
_NONE: Condemned = {}
_REMOTE_READS = 32  # at once, of photos in a store: each takes tens of milliseconds, in which nothing is computed


class Worker(Protocol):
    """What an actor runs on a shard: `Encoder` or `CodesLabeller`."""

    schema: pa.Schema
    fingerprint: Fingerprint
    keeps_rows: bool  # whether rows of an older file of a shard may be carried over

    @property
    def touched(self) -> int:
        """Images so far: as long as this grows, it gets on."""

    def batches(
        self, shard: int, rows: pa.Table, stages: dict[str, float], condemned: Condemned = _NONE
    ) -> Iterator[pa.RecordBatch]:
        """Yields a shard's rows in the manifest's order, and adds seconds to the stages."""


class NullNetwork:
    """Stands in for VGG in tests and benchmarks: a code is 768 of the photo's pixels, and takes no time."""

    width = 768

    def __call__(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Codes [N, 768] of pixels [N, 224, 224, 3]: a 16x16 grid of them."""
        return np.ascontiguousarray(pixels[:, 7::14, 7::14]).reshape(len(pixels), -1)


class Encoder:
    """Turns shards of images into tables of codes or, with a head, of labels.

    Args:
        network: Pixels [N, 224, 224, 3], of `device.pixel_type` of the precision, to codes float32 [N, width].
        width: Numbers in a code.
        source: Where images are read from.
        fingerprint: What the rows depend on.
        batch_size: Images in one pass through the network.
        threads: Images that are decoded at once.
        labeller: What is put on top of the codes; None stores the codes.
        max_pixels: Photos with more fail as `too_large`.
        reads: Images that are read at once, at least.
    """

    def __init__(
        self,
        network: Network,
        width: int,
        source: Source,
        fingerprint: Fingerprint,
        batch_size: int,
        threads: int,
        labeller: Labeller | None = None,
        max_pixels: int = EncodeConfig.max_pixels,
        reads: int = 1,
    ):
        self.schema = predictions_schema() if labeller else codes_schema(width, fingerprint.store)
        self.fingerprint, self.keeps_rows = fingerprint, True
        self._width, self._labeller = width, labeller
        pixels = pixel_type(fingerprint.precision)
        self._feed = Feed(network, source, batch_size, pixels, fingerprint.store, threads, max_pixels, reads)

    @property
    def touched(self) -> int:
        """Images so far."""
        return self._feed.touched

    def batches(
        self, shard: int, rows: pa.Table, stages: dict[str, float], condemned: Condemned = _NONE
    ) -> Iterator[pa.RecordBatch]:
        """Encodes a shard; another thread may ask for the next one meanwhile, which then follows without a pause.

        Equal files go through the network once, if they do not lie too far from each other.

        Args:
            shard: Its number.
            rows: Its manifest rows.
            condemned: Images that fail without being touched, since they would end or stall the process.
            stages: Gains the seconds spent in `read` and `decode` (by all threads together), `wait` (for the next
                batch's pixels), and `network`.

        Raises:
            RunError: A code does not fit into the type that it is stored in.
        """
        for fed in self._feed.run(_images(rows), condemned, stages):
            yield self._table(fed)

    def _table(self, fed: list[Fed]) -> pa.RecordBatch:
        columns: dict[str, pa.Array] = _image_columns(fed)
        ok = np.array([image.code is not None for image in fed])
        codes = [image.code for image in fed if image.code is not None]
        stacked = np.stack(codes) if codes else np.empty((0, self._width), self.fingerprint.store)
        if self._labeller:
            columns |= self._labeller.columns(stacked, ok)
        else:
            columns["code"] = _code_column(stacked, ok, self.schema.field("code").type)
        return pa.RecordBatch.from_arrays([columns[name] for name in self.schema.names], schema=self.schema)


class Labeller:
    """A head, and how many labels a prediction keeps."""

    def __init__(self, head: Head, top_k: int):
        self._head = head
        self._top_k = min(top_k, len(head.classes))

    def columns(self, codes: NDArray[np.floating], ok: NDArray[np.bool_]) -> dict[str, pa.Array]:
        """The columns of a prediction.

        Args:
            codes: [images with ok, width].
            ok: bool [images]: which rows have a code; the others become nulls.
        """
        classes = np.array(self._head.classes, object)
        probabilities = self._head.probabilities(codes) if len(codes) else np.empty((0, len(classes)), np.float32)
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, : self._top_k]
        best = np.take_along_axis(probabilities, order, axis=1)
        threshold = self._head.threshold or 0.0
        schema = predictions_schema()
        values: dict[str, list[Any]] = {
            "prediction": classes[order[:, 0]].tolist(),
            "probability": best[:, 0].tolist(),
            "top_labels": classes[order].tolist(),
            "top_probabilities": best.tolist(),
            "is_unknown": (best[:, 0] < threshold).tolist(),
        }
        return {name: _spread(value, ok, schema.field(name).type) for name, value in values.items()}


class CodesLabeller:
    """Turns shards of codes into tables of labels: no network, no photo.

    Args:
        codes: The codes folder's path or URL.
        fingerprint: Of the predictions.
        labeller: The head.
    """

    def __init__(self, codes: str, fingerprint: Fingerprint, labeller: Labeller):
        self.schema = predictions_schema()
        self.fingerprint = fingerprint
        self.touched = 0
        self.keeps_rows = False  # labels are made in no time, and codes may have been made anew
        self._codes, self._labeller = open_folder(codes), labeller

    def batches(
        self, shard: int, rows: pa.Table, stages: dict[str, float], condemned: Condemned = _NONE
    ) -> Iterator[pa.RecordBatch]:
        """Labels the codes of a shard; `stages` gains the seconds spent in `read` and `network`."""
        begun = time.perf_counter()
        for batch in read_shard(self._codes, CODES, shard, [*IMAGE_COLUMNS, "code"]):
            self.touched += len(batch)
            add(stages, "read", time.perf_counter() - begun)
            begun = time.perf_counter()
            codes, ok = codes_of(batch)
            columns = {name: batch[name] for name in IMAGE_COLUMNS} | self._labeller.columns(codes, ok)
            add(stages, "network", time.perf_counter() - begun)
            yield pa.RecordBatch.from_arrays([columns[name] for name in self.schema.names], schema=self.schema)
            begun = time.perf_counter()


@dataclass(frozen=True)
class EncoderFactory:
    """Makes an encoder where it is to run; itself it is small, and travels to the actors.

    Attributes:
        config: How photos become codes.
        source: Where they are read from.
        head: What labels the codes; None stores them.
        top_k: Labels that a prediction keeps; None for codes.
    """

    config: EncodeConfig
    source: Source
    head: Head | None = None
    top_k: int | None = None

    def with_precision(self, precision: str) -> EncoderFactory:
        """The same factory, told what to compute in."""
        return replace(self, config=replace(self.config, precision=precision))

    @property
    def wants_gpu(self) -> bool:
        """Whether what it makes computes on a GPU where the cluster has one."""
        return True

    def culprits(self, images: Sequence[Image], seconds: float, progress: Callable[[int], None]) -> Condemned:
        """Finds the images that end the process that decodes them, or keep it for more than so many seconds."""
        return find_culprits(self.source.url, self.source.root, images, self.config.max_pixels, seconds, progress)

    def __call__(self, threads: int, gpu: bool) -> Worker:
        """Builds the network from its weights, and with it the encoder.

        Args:
            threads: Threads that read, decode and, on a CPU, compute.
            gpu: Whether the network must run on a GPU.

        Raises:
            InputError: TensorFlow sees no GPU although it should; the weights are not to be had, or do not fit.
        """
        config = self.config
        network: Network
        width = code_width(config)
        batch_size = config.batch_size or (GPU_BATCH if gpu else CPU_BATCH)
        if config.network == NULL_NETWORK:
            network, precision = NullNetwork(), "float32"
            weights = NULL_NETWORK
        else:
            prepare_device(threads, gpu)
            precision = hardware_precision(gpu) if config.precision == "auto" else config.precision
            model, weights = build_network(config, precision)
            passes = Passes(compiled(model, pixel_type(precision)), batch_size)
            # On a GPU the largest batch, to see whether it fits; a CPU only compiles what is compiled at first use.
            passes.fit(np.zeros((batch_size if gpu else 1, *model.input_shape[1:]), pixel_type(precision)))
            network, batch_size = passes, passes.size
        fingerprint = codes_fingerprint(config, weights, precision)
        labeller = None
        if self.head is not None and self.top_k is not None:
            fingerprint = replace(fingerprint, head=self.head.identity, top_k=self.top_k)
            labeller = Labeller(self.head, self.top_k)
        reads = 1 if self.source.folder.is_local else _REMOTE_READS
        return Encoder(
            network, width, self.source, fingerprint, batch_size, threads, labeller, config.max_pixels, reads
        )


@dataclass(frozen=True)
class LabellerFactory:
    """Makes a `CodesLabeller` where it is to run.

    Attributes:
        codes: The codes folder.
        fingerprint: Of those codes.
        head: What labels them.
        top_k: Labels that a prediction keeps.
    """

    codes: str
    fingerprint: Fingerprint
    head: Head
    top_k: int

    def with_precision(self, precision: str) -> LabellerFactory:
        """The same: no code is computed anew."""
        return self

    @property
    def wants_gpu(self) -> bool:
        """Whether what it makes computes on a GPU: labelling codes does not."""
        return False

    def culprits(self, images: Sequence[Image], seconds: float, progress: Callable[[int], None]) -> Condemned:
        """None: codes are read, not decoded."""
        return {}

    def __call__(self, threads: int, gpu: bool) -> Worker:
        """Makes the labeller; it needs neither threads nor a GPU."""
        fingerprint = replace(self.fingerprint, head=self.head.identity, top_k=self.top_k)
        return CodesLabeller(self.codes, fingerprint, Labeller(self.head, self.top_k))


def codes_fingerprint(config: EncodeConfig, weights: str, precision: str) -> Fingerprint:
    """The fingerprint of codes made so.

    Args:
        config: How photos become codes.
        weights: The identity of the weights.
        precision: `auto`, resolved.
    """
    return Fingerprint(config.network, config.layer, weights, precision, config.store, config.pool)


def code_width(config: EncodeConfig) -> int:
    """How many numbers a code has.

    Raises:
        InputError: The network has no such layer, or its layer is a map and nothing says how it becomes a row.
    """
    if config.network == NULL_NETWORK:
        return NullNetwork.width
    from tensorflow_vgg.network import layer_shape

    try:
        shape = layer_shape(config.network, config.layer)
    except ValueError as error:
        raise InputError(str(error)) from None
    if len(shape) == 1 and config.pool:
        raise InputError(f"Layer {config.layer} gives a row of numbers already: leave --pool {config.pool} out.")
    if len(shape) == 3 and not config.pool:
        raise InputError(
            f"Layer {config.layer} gives a map of {shape[0]} x {shape[1]} x {shape[2]} numbers, not a row: say how it "
            "becomes one with --pool avg, max or flatten, or choose a layer such as relu6."
        )
    return shape[-1] if config.pool in ("avg", "max") else math.prod(shape)


def build_network(config: EncodeConfig, precision: str, dropout: float = 0.0, seed: int = 0) -> tuple[keras.Model, str]:
    """VGG up to the layer of the codes, and the identity of its weights.

    Args:
        config: How photos become codes.
        precision, dropout, seed: As for `tensorflow_vgg.network.build`.

    Raises:
        InputError: The weights are not to be had, or do not fit the network.
    """
    from tensorflow_vgg import weights as vgg
    from tensorflow_vgg.network import build

    identity = vgg.Identity()
    with _weights_errors():
        found = vgg.find(weights_on_this_machine(config.weights), config.network)
        parameters = identity.of(vgg.load(found, config.network, config.layer))
        model = build(config.network, config.layer, parameters, precision, config.pool, dropout, seed)
    return model, identity.hexdigest


def weights_identity(config: EncodeConfig) -> tuple[str, str]:
    """The identity of a network's weights, and the name that any machine finds them by.

    Raises:
        InputError: They are not to be had, or do not fit the network.
    """
    if config.network == NULL_NETWORK:
        return NULL_NETWORK, NULL_NETWORK
    from tensorflow_vgg import weights as vgg

    code_width(config)
    with _weights_errors():
        found = vgg.find(weights_on_this_machine(config.weights), config.network)
        name = config.weights if "://" in config.weights else found.name
        return vgg.identity(vgg.load(found, config.network, config.layer)), name


def weights_on_this_machine(name: str) -> str:
    """Weights behind a URL as a file in the cache, copied once a machine; other names as they are.

    Raises:
        InputError: There is no such file.
    """
    if "://" not in name:
        return name
    from tensorflow_vgg.download import cache_folder

    folder, file = split_file(name)
    if not folder.exists(file):
        raise InputError(f"There is no weights file {name}: check its name.")
    info = folder.filesystem.get_file_info(folder.at(file))
    key = hashlib.sha256(f"{name} {info.size} {info.mtime}".encode()).hexdigest()[:16]
    cache = open_folder(cache_folder())
    local = f"{key}-{file}"
    if not cache.exists(local):
        with cache.locked(), folder.open(file) as source:
            if not cache.exists(local):  # another actor of this machine may have been first
                with cache.publish(local) as scratch, open(scratch, "wb") as out:
                    shutil.copyfileobj(source, out, _COPY_BYTES)
    return cache.at(local)


def convert_weights(source: str, target: str, store: str) -> None:
    """`tensorflow_vgg.weights.convert`, with either file behind a URL if need be.

    Raises:
        InputError, WeightsError: The source is no weights file, or the target cannot be written so.
    """
    from tensorflow_vgg.weights import convert

    folder, name = split_file(target)
    local = weights_on_this_machine(source)
    if folder.is_local:
        convert(local, folder.at(name), store)
        return
    with tempfile.TemporaryDirectory() as scratch:
        convert(local, Path(scratch, name), store)
        with folder.publish(name) as published:
            shutil.copyfile(Path(scratch, name), published)


@contextmanager
def _weights_errors() -> Iterator[None]:
    """Makes what is wrong with weights the user's to mend."""
    from tensorflow_vgg.download import DownloadError
    from tensorflow_vgg.weights import WeightsError

    try:
        yield
    except (WeightsError, DownloadError) as error:
        raise InputError(str(error)) from None


def _images(rows: pa.Table) -> Iterator[Image]:
    """A shard's images, of which only some are objects of Python at a time."""
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield from images_of(rows.slice(start, _ROWS_AT_ONCE))


def _image_columns(fed: list[Fed]) -> dict[str, pa.Array]:
    failures = [image.failure or (None, None) for image in fed]
    values: dict[str, list[Any]] = {
        "path": [image.image.path for image in fed],
        "folder": [folder_of(image.image.path, image.image.source) for image in fed],
        "sha256": [image.sha256 for image in fed],
        "phash": [image.phash for image in fed],
        "bytes": [image.size for image in fed],
        "width": [image.width for image in fed],
        "height": [image.height for image in fed],
        "status": [FAILED if image.failure else OK for image in fed],
        "reason": [reason for reason, _ in failures],
        "message": [message for _, message in failures],
    }
    schema = predictions_schema()
    return {name: pa.array(value, schema.field(name).type) for name, value in values.items()}


def _code_column(codes: NDArray[np.floating], ok: NDArray[np.bool_], kind: pa.DataType) -> pa.Array:
    spread = np.zeros((len(ok), kind.list_size), codes.dtype)
    spread[ok] = codes
    return pa.FixedSizeListArray.from_arrays(pa.array(spread.ravel()), type=kind, mask=pa.array(~ok))


def _spread(values: list[Any], ok: NDArray[np.bool_], kind: pa.DataType) -> pa.Array:
    remaining = iter(values)
    return pa.array([next(remaining) if present else None for present in ok], kind)
