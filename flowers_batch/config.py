"""What a run is asked to do: frozen dataclasses, one per command."""

from __future__ import annotations

from dataclasses import dataclass, field

from flowers_batch.errors import InputError

UNFREEZE = ("head", "fc", "conv5", "all")
AUGMENT = ("crop", "flip", "colour")
POOLS = ("avg", "max", "flatten")
IMAGENET = "imagenet"  # names the published weights, and the classifier that they end in
WEIGHTS_ENVIRONMENT = "FLOWERS_BATCH_WEIGHTS"  # names the file that `imagenet` stands for
NULL_NETWORK = "null"  # stands in for VGG in tests and benchmarks: see encoder.NullNetwork


@dataclass(frozen=True)
class ClusterConfig:
    """Where a run's actors come from.

    Attributes:
        address: A Ray cluster's address; None takes RAY_ADDRESS, else starts a Ray of the run's own. A Ray that
            the calling program has joined is used in any case.
        actors: How many actors; None takes `actors_per_gpu` a GPU, or one a node where there are no GPUs.
        stall_timeout: Seconds after which an actor that makes no progress is killed, and its shard retried.
        actors_per_gpu: How many actors share a GPU, and the cores beside it.
    """

    address: str | None = None
    actors: int | None = None
    stall_timeout: float = 600.0
    actors_per_gpu: int = 1

    def __post_init__(self) -> None:
        if self.actors is not None:
            _at_least_one("actors", self.actors)
        _at_least_one("stall_timeout", self.stall_timeout)
        _at_least_one("actors_per_gpu", self.actors_per_gpu)


@dataclass(frozen=True, kw_only=True)
class ArchiveConfig:
    """What encoding and labelling an archive have in common.

    Attributes:
        root: What the paths of a list are relative to; None: the folder that the list lies in.
        batch_size: Photos in one pass through the network; None takes what suits the device, and what fits into its
            memory.
        shard_size: Photos in one shard, which is what a killed run loses at most, an actor.
        max_pixels: Photos with more pixels become rows that failed as `too_large`.
        prune: Whether photos that vanished lose their rows, instead of being marked.
        retry_failed: Whether rows that failed for a reason that may have passed are tried again.
        cluster: Where the actors come from.
    """

    root: str | None = None
    batch_size: int | None = None
    shard_size: int = 4096
    max_pixels: int = 178_000_000  # a little below where Pillow refuses
    prune: bool = False
    retry_failed: bool = False
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        if self.batch_size is not None:
            _at_least_one("batch_size", self.batch_size)
        _at_least_one("shard_size", self.shard_size)
        _at_least_one("max_pixels", self.max_pixels)


@dataclass(frozen=True, kw_only=True)
class EncodeConfig(ArchiveConfig):
    """How photos become codes; besides these, see `ArchiveConfig`.

    Attributes:
        weights: `imagenet`, a weights file, or `random:SEED`.
        network: `vgg16` or `vgg19` (`null`, for tests and benchmarks, takes no time and no weights).
        layer: The layer whose values are the code.
        pool: What makes a row of a layer that is a map: `avg` or `max` over its places, or `flatten`.
        precision: `auto` (bfloat16 where the hardware computes in it), `float32` or `bfloat16`.
        code_dtype: The code's type on disk, `float16` or `float32`.
    """

    weights: str = IMAGENET
    network: str = "vgg16"
    layer: str = "relu6"
    pool: str | None = None
    precision: str = "auto"
    code_dtype: str = "float16"

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("network", self.network, ("vgg16", "vgg19", NULL_NETWORK))
        if self.pool is not None:
            _one_of("pool", self.pool, POOLS)
        _one_of("precision", self.precision, ("auto", "float32", "bfloat16"))
        _one_of("code_dtype", self.code_dtype, ("float16", "float32"))


@dataclass(frozen=True)
class TrainConfig:
    """How a classifier is trained on codes.

    Attributes:
        labels: Each `folder` (a photo's class is the name of its folder), or a CSV or Parquet file `path,label`; of
            several labels of a photo, the last one counts.
        head: `logistic` (multinomial regression), `mlp` (256 hidden units) or `auto`, the better one on the validation
            side.
        min_precision: How often labels are to be right that are not said to be unknown.
        max_memory_mb: Megabytes that codes may take; more are streamed in batches. None: half of what is free.
        seed: Decides whatever is drawn at random, the split not among it.
    """

    labels: tuple[str, ...] = ("folder",)
    head: str = "auto"
    min_precision: float = 0.95
    max_memory_mb: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.labels or isinstance(self.labels, str):
            raise InputError(f"`labels` must be a tuple of `folder` and files. Received: {self.labels!r}.")
        _one_of("head", self.head, ("auto", "logistic", "mlp"))
        if not 0 < self.min_precision <= 1:
            raise InputError(f"`min_precision` must lie above 0, and be 1 at most. Received: {self.min_precision}.")
        if self.max_memory_mb is not None:
            _at_least_one("max_memory_mb", self.max_memory_mb)
        if not 0 <= self.seed < 2**32:
            raise InputError(f"`seed` must lie in 0..{2**32 - 1}. Received: {self.seed}.")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """How a network is trained further, together with a classifier on top of it.

    Attributes:
        encode: How photos become codes before: its weights are what training begins with (`random:SEED`: from
            scratch), its layer is what the classifier stands on; its cluster is not used. None: as usual or, of a
            codes folder, as that was made.
        train: What the labels are, and how the classifier on frozen codes, which training begins with, is fitted; its
            head is always `logistic`.
        unfreeze: What is trained: the `head` alone, the fully connected layers too (`fc`), the last block of
            convolutions too (`conv5`), or `all`.
        epochs: How often all photos are gone through at most; it ends sooner when validation gets no better.
        batch_size: Photos in a step of training, over all GPUs.
        lr_multiplier: Times the usual learning rates.
        augment: What is varied at random: `crop`, `flip`, `colour`; empty: nothing.
        cluster: Where the actors come from.
    """

    encode: EncodeConfig | None = None
    train: TrainConfig = field(default_factory=TrainConfig)
    unfreeze: str = "fc"
    epochs: int = 10
    batch_size: int = 32
    lr_multiplier: float = 1.0
    augment: tuple[str, ...] = AUGMENT
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        _one_of("unfreeze", self.unfreeze, UNFREEZE)
        _at_least_one("epochs", self.epochs)
        _at_least_one("batch_size", self.batch_size)
        if not 0 < self.lr_multiplier < float("inf"):
            raise InputError(f"`lr_multiplier` must be above 0. Received: {self.lr_multiplier}.")
        if not set(self.augment) <= set(AUGMENT):
            raise InputError(
                f"`augment` must be of {', '.join(AUGMENT)}, or none of them. Received: {','.join(self.augment)}."
            )


@dataclass(frozen=True, kw_only=True)
class PredictConfig(ArchiveConfig):
    """How photos, or codes, get labels; besides these, see `ArchiveConfig` (predictions from codes keep their shards).

    Attributes:
        weights: Where the model's weights lie, if no longer where the model says; None trusts the model.
        top_k: How many of the likeliest labels are kept for each photo.
    """

    weights: str | None = None
    top_k: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least_one("top_k", self.top_k)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"`{name}` must be one of {', '.join(allowed)}. Received: {value}.")


def _at_least_one(name: str, value: float) -> None:
    if not value >= 1:
        raise InputError(f"`{name}` must be 1 or more. Received: {value}.")
