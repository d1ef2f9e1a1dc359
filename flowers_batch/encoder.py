"""Image bytes in, a table out: a network and, for prediction, a head. Runs without Ray."""

from __future__ import annotations

import ctypes
import hashlib
import math
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from flowers_batch.config import NULL_NETWORK, EncodeConfig, Fingerprint, FlowersError, InputError, RunError
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
from flowers_batch.decode import Picture, PixelBudget, decode
from flowers_batch.heads import Head
from flowers_batch.inspection import find_culprits
from flowers_batch.sources import Image, Source, images_of
from flowers_batch.storage import open_folder, split_file

_COPY_BYTES = 8 << 20
_M_MMAP_THRESHOLD = -3  # malloc.h
_BATCHES_AHEAD = 3  # decoded or being decoded while the network is busy with one
_PIXELS_A_THREAD = 32_000_000  # more than most cameras take, and a fifth of the largest photo that is allowed
_LARGE_FILE = 64 << 20  # bytes; files that have more are held in memory one at a time
# Why an image failed; exceptions that are faults of the program may have a `reason` too (UnicodeError).
_REASONS = {"missing", "unreadable", "not_an_image", "truncated", "too_large", "unsupported"}
_REASONS |= {"crashed_decoder", "timeout"}
_NO_PIXELS = np.empty(0, np.float32)

Pixels = dict[bytes, NDArray[np.float32]]  # by the SHA-256 of the files
Codes = dict[bytes, NDArray[np.floating]]
Network = Callable[[NDArray[np.float32]], NDArray[np.float32]]
Count = Callable[[int, int], None]


Condemned = Mapping[str, tuple[str, str]]  # reason and message, by path, of images that are not to be touched
_NONE: Condemned = {}


class Worker(Protocol):
    """What an actor runs on a shard: `Encoder` or `CodesLabeller`."""

    schema: pa.Schema
    fingerprint: Fingerprint
    keeps_rows: bool  # whether rows of an older file of a shard may be carried over
    touched: int  # images so far: as long as this grows, it gets on

    def batches(
        self, shard: int, rows: pa.Table, stages: dict[str, float], condemned: Condemned = _NONE
    ) -> Iterator[pa.RecordBatch]:
        """Yields a shard's rows in the manifest's order, and adds seconds to the stages."""


class NullNetwork:
    """Stands in for VGG in tests and benchmarks: a code is 768 of the photo's pixels, and takes no time."""

    width = 768

    def __call__(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Codes float32 [N, 768] of pixels float32 [N, 224, 224, 3]: a 16x16 grid of them."""
        return np.ascontiguousarray(pixels[:, 7::14, 7::14]).reshape(len(pixels), -1)


@dataclass(frozen=True)
class Loaded:
    """An image after reading and decoding; `picture` or `failure` is set."""

    image: Image
    size: int | None
    sha256: bytes | None
    picture: Picture | None
    failure: tuple[str, str] | None
    seconds_reading: float
    seconds_decoding: float


class Encoder:
    """Turns shards of images into tables of codes or, with a head, of labels.

    Args:
        network: Pixels float32 [N, 224, 224, 3] to codes float32 [N, width].
        width: Numbers in a code.
        source: Where images are read from.
        fingerprint: What the rows depend on.
        batch_size: Images in one pass through the network.
        threads: Threads that read and decode.
        labeller: What is put on top of the codes; None stores the codes.
        max_pixels: Photos with more fail as `too_large`.
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
    ):
        self.schema = predictions_schema() if labeller else codes_schema(width, fingerprint.store)
        self.fingerprint = fingerprint
        self.keeps_rows, self.touched = True, 0
        self._network, self._width, self._source = network, width, source
        self._batch_size, self._max_pixels, self._labeller = batch_size, max_pixels, labeller
        self._budget, self._large_file = PixelBudget(threads * _PIXELS_A_THREAD), threading.Lock()
        self._decoding = ThreadPoolExecutor(threads, "decode", _prepare_decoding)
        self._computing = ThreadPoolExecutor(1, "network")

    def batches(
        self, shard: int, rows: pa.Table, stages: dict[str, float], condemned: Condemned = _NONE
    ) -> Iterator[pa.RecordBatch]:
        """Encodes a shard: reading and decoding run ahead, and the network works while what it gave is made a table.

        Equal files go through the network once.

        Args:
            shard: Its number.
            rows: Its manifest rows.
            condemned: Images that fail without being touched, since they would end or stall the process.
            stages: Gains the seconds spent in `read` and `decode` (over all threads), `wait` (for the next batch's
                pixels), and `network`.

        Raises:
            RunError: A code does not fit into the type that it is stored in.
        """
        previous: tuple[list[Loaded], Future[NDArray[np.floating]]] | None = None
        loaded = self._load_ahead(images_of(rows), condemned)
        known: set[bytes] = set()
        codes: Codes = {}
        while True:
            begun = time.perf_counter()
            chunk, new = self._fill(loaded, known)
            _add(stages, "wait", time.perf_counter() - begun)
            current = (chunk, self._computing.submit(self._codes, chunk, new, codes, stages)) if chunk else None
            if previous:
                yield self._table(*previous)
            if not current:
                return
            previous = current

    def _load_ahead(self, images: Iterable[Image], condemned: Condemned) -> Iterator[Loaded]:
        submitted = (self._decoding.submit(self._load, image, condemned.get(image.path)) for image in images)
        futures = deque(islice(submitted, self._batch_size * _BATCHES_AHEAD))
        while futures:
            loaded = futures.popleft().result()
            self.touched += 1
            futures.extend(islice(submitted, 1))
            yield loaded

    def _load(self, image: Image, failure: tuple[str, str] | None) -> Loaded:
        if failure:
            return Loaded(image, None, None, None, failure, 0.0, 0.0)
        with self._large_file if image.bytes > _LARGE_FILE else nullcontext():
            return self._decoded(image)

    def _decoded(self, image: Image) -> Loaded:
        data = picture = failure = None
        begun = time.perf_counter()
        read = begun
        try:
            data = self._source.read(image)
            read = time.perf_counter()
            picture = decode(data, self._max_pixels, self._budget)
        except FlowersError:
            raise
        except Exception as error:
            reason = getattr(error, "reason", None)
            if reason not in _REASONS:
                raise RunError(f"{image.path} stopped the run by a fault of the program: {error!r}.") from error
            failure = (reason, str(error))
        ended = time.perf_counter()
        if data is None:
            return Loaded(image, None, None, None, failure, ended - begun, 0.0)
        digest = hashlib.sha256(data).digest()
        return Loaded(image, len(data), digest, picture, failure, read - begun, ended - read)

    def _fill(self, loaded: Iterator[Loaded], known: set[bytes]) -> tuple[list[Loaded], Pixels]:
        """The next images, without their pixels, and a batch of pixels: those of files that were not known."""
        chunk: list[Loaded] = []
        new: Pixels = {}
        for image in loaded:
            if image.picture and image.sha256:
                if image.sha256 not in known:
                    known.add(image.sha256)
                    new[image.sha256] = image.picture.pixels
                image = replace(image, picture=replace(image.picture, pixels=_NO_PIXELS))
            chunk.append(image)
            if len(new) == self._batch_size:
                break
        return chunk, new

    def _codes(self, chunk: list[Loaded], new: Pixels, codes: Codes, stages: dict[str, float]) -> NDArray[np.floating]:
        """The codes of a chunk's pictures; `codes` has those of earlier chunks, and gains those of the new pixels."""
        for image in chunk:
            _add(stages, "read", image.seconds_reading)
            _add(stages, "decode", image.seconds_decoding)
        if new:
            begun = time.perf_counter()
            computed = self._network(np.stack(list(new.values())))
            _add(stages, "network", time.perf_counter() - begun)
            codes.update(zip(new, _stored(computed, self.fingerprint.store), strict=True))
        found = [codes[image.sha256] for image in chunk if image.picture and image.sha256]
        return np.stack(found) if found else np.empty((0, self._width), self.fingerprint.store)

    def _table(self, chunk: list[Loaded], codes: Future[NDArray[np.floating]]) -> pa.RecordBatch:
        columns: dict[str, pa.Array] = _image_columns(chunk)
        ok = np.array([image.picture is not None for image in chunk])
        if self._labeller:
            columns |= self._labeller.columns(codes.result(), ok)
        else:
            columns["code"] = _code_column(codes.result(), ok, self.schema.field("code").type)
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
        self.keeps_rows, self.touched = False, 0  # labels are made in no time, and codes may have been made anew
        self._codes, self._labeller = open_folder(codes), labeller

    def batches(
        self, shard: int, rows: pa.Table, stages: dict[str, float], condemned: Condemned = _NONE
    ) -> Iterator[pa.RecordBatch]:
        """Labels the codes of a shard; `stages` gains the seconds spent in `read` and `network`."""
        begun = time.perf_counter()
        for batch in read_shard(self._codes, CODES, shard, [*IMAGE_COLUMNS, "code"]):
            self.touched += len(batch)
            _add(stages, "read", time.perf_counter() - begun)
            begun = time.perf_counter()
            codes, ok = codes_of(batch)
            columns = {name: batch[name] for name in IMAGE_COLUMNS} | self._labeller.columns(codes, ok)
            _add(stages, "network", time.perf_counter() - begun)
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
        if config.network == NULL_NETWORK:
            network, precision = NullNetwork(), "float32"
            weights = NULL_NETWORK
        else:
            from tensorflow_vgg import weights as vgg
            from tensorflow_vgg.network import build

            _prepare_device(threads, gpu)
            precision = hardware_precision(gpu) if config.precision == "auto" else config.precision
            identity = vgg.Identity()
            with _weights_errors():
                found = vgg.find(weights_on_this_machine(config.weights), config.network)
                parameters = identity.of(vgg.load(found, config.network, config.layer))
                model = build(config.network, config.layer, parameters, precision, config.pool)
            network, weights = model.predict_on_batch, identity.hexdigest
        fingerprint = codes_fingerprint(config, weights, precision)
        labeller = None
        if self.head is not None and self.top_k is not None:
            fingerprint = replace(fingerprint, head=self.head.identity, top_k=self.top_k)
            labeller = Labeller(self.head, self.top_k)
        return Encoder(
            network, width, self.source, fingerprint, config.batch_size, threads, labeller, config.max_pixels
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


def hardware_precision(gpu: bool) -> str:
    """`bfloat16` where the hardware computes in it, `float32` elsewhere."""
    if gpu:
        import tensorflow as tf

        details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
        return "bfloat16" if details.get("compute_capability", (0, 0)) >= (8, 0) else "float32"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return "float32"
    return "bfloat16" if {"avx512_bf16", "amx_bf16"} & set(flags) else "float32"


def _prepare_decoding() -> None:
    """Shares the cores out between the decoding threads, and has them give back the memory that a photo took."""
    threadpool_limits(1, "blas")
    cv2.setNumThreads(1)
    # glibc would keep for each thread what its largest photo took: eight times the memory of one.
    with suppress(AttributeError):  # of another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 4 << 20)


def _prepare_device(threads: int, gpu: bool) -> None:
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU")
    if gpu and not devices:
        raise InputError(
            "Ray gave an actor a GPU that TensorFlow cannot see: install the [gpu] extra "
            "(pip install 'flowers-batch[gpu]') where the actors run, or hide the GPU by CUDA_VISIBLE_DEVICES= (empty)."
        )
    for device in devices:
        # Else TensorFlow takes the whole GPU's memory at once.
        tf.config.experimental.set_memory_growth(device, True)
    with suppress(RuntimeError):  # a process that has used TensorFlow before, as no actor has, keeps its threads
        tf.config.threading.set_intra_op_parallelism_threads(threads)


def _stored(codes: NDArray[np.float32], store: str) -> NDArray[np.floating]:
    """Codes in the type that they are stored in, so that labels from photos equal labels from a codes folder."""
    with np.errstate(over="ignore"):
        stored = codes.astype(store)
    if not np.isfinite(stored).all():
        worst = np.abs(codes).max()
        raise RunError(
            f"A code holds {worst:g}, which {store} cannot: "
            + ("encode with --store float32." if np.isfinite(worst) else "check the network's weights.")
        )
    return stored


def _image_columns(chunk: list[Loaded]) -> dict[str, pa.Array]:
    pictures = [image.picture for image in chunk]
    failures = [image.failure or (None, None) for image in chunk]
    values: dict[str, list[Any]] = {
        "path": [loaded.image.path for loaded in chunk],
        "folder": [folder_of(loaded.image.path, loaded.image.source) for loaded in chunk],
        "sha256": [image.sha256 for image in chunk],
        "phash": [picture and picture.phash for picture in pictures],
        "bytes": [image.size for image in chunk],
        "width": [picture and picture.width for picture in pictures],
        "height": [picture and picture.height for picture in pictures],
        "status": [OK if picture else FAILED for picture in pictures],
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


def _add(stages: dict[str, float], name: str, seconds: float) -> None:
    stages[name] = stages.get(name, 0.0) + seconds
