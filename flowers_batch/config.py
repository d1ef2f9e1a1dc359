"""Settings of each command, as frozen dataclasses.

The command line derives its options from the fields, and their explanations from the docstrings' `Attributes`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from flowers_batch.errors import InputError

UNFREEZE = ("head", "fc", "conv5", "all")
AUGMENT = ("crop", "flip", "colour")
FULL, LIGHTROOM = SIDECARS = ("full", "lightroom")
POOLS = ("avg", "max", "flatten")
IMAGENET = "imagenet"  # names the published weights, and the classifier that they end in
WEIGHTS_ENVIRONMENT = "FLOWERS_BATCH_WEIGHTS"  # names the file that `imagenet` stands for
RANDOM = "random:"  # begins the name of weights that are drawn from a seed
XMP = "xmp"  # names the labels that are photos' keywords
EXACT, FAST = "exact", "fast"  # how photos are decoded
NULL_NETWORK = "null"  # stands in for VGG in tests and benchmarks: see encoding.networks.NullNetwork


@dataclass(frozen=True)
class ClusterConfig:
    """Where a run's actors come from. A Ray cluster that the calling program has joined is always used.

    Attributes:
        address: Ray cluster to join; by default RAY_ADDRESS, else a local Ray for this run alone.
        actors: Number of actors; by default one per GPU, or one per node if there are no GPUs, and more as nodes join
            the cluster.
        stall_timeout: Seconds without progress after which an actor is killed and its shard retried.
    """

    address: str | None = None
    actors: int | None = None
    stall_timeout: float = 600.0

    def __post_init__(self) -> None:
        if self.actors is not None:
            _at_least_one("actors", self.actors)
        _at_least_one("stall_timeout", self.stall_timeout)


@dataclass(frozen=True, kw_only=True)
class ArchiveConfig:
    """Settings that encoding, labelling and shrinking have in common.

    Attributes:
        root: Folder that the paths in a list are relative to; by default the list's own folder.
        include_hidden: Take hidden files and folders, and those of systems and programs such as @eaDir, too.
        exclude: Files and folders to leave out: names, such as *.bak.jpg or raw/ (folders only), or paths from the top,
            such as 2019/*/raw or **/raw/*.jpg.
        shard_size: Photos per shard; an actor that is killed loses at most the two shards that it is working on.
        max_pixels: Photos with more pixels are not decoded; they fail as too_large.
        image_timeout: Seconds of CPU time that decoding a photo may take; those that take more fail as timeout.
        prune: Remove the rows of photos that are missing now, instead of marking them.
        retry_failed: Retry photos that failed as missing, unreadable, timeout or too_large.
        retry_all: Retry photos that failed for any reason but crashed_decoder: a newer version may decode more.
        max_failed_share: The share of the photos, 0 to 1, that may fail: a run of 100 photos or more in which more fail
            ends as failed. Its rows are kept, and 1 accepts them.
        cluster: Where the actors come from.
    """

    root: str | None = None
    include_hidden: bool = False
    exclude: tuple[str, ...] = ()
    shard_size: int = 4096
    max_pixels: int = 178_000_000  # a little below where Pillow refuses
    image_timeout: float = 60.0
    prune: bool = False
    retry_failed: bool = False
    retry_all: bool = False
    max_failed_share: float = 0.5
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        _at_least_one("shard_size", self.shard_size)
        _at_least_one("max_pixels", self.max_pixels)
        _at_least_one("image_timeout", self.image_timeout)
        if not 0 <= self.max_failed_share <= 1:
            raise InputError(f"`max_failed_share` must be from 0 to 1. Received: {self.max_failed_share}.")


@dataclass(frozen=True, kw_only=True)
class EncodeConfig(ArchiveConfig):
    """How photos become codes.

    Tests and benchmarks use the network `null`, which takes no time and no weights.

    Attributes:
        weights: `imagenet`, a .npy, .h5 or .safetensors file (a path or a URL), or `random:SEED`.
        network: vgg16 or vgg19.
        layer: The layer whose activations are the code.
        pool: How a feature map becomes a row: avg or max over its positions, or flatten.
        precision: float32, bfloat16, or auto: bfloat16 where the hardware supports it.
        code_dtype: The type of codes on disk: float16 or float32.
        decode: exact; fast: a large JPEG to a half, a quarter or an eighth of its size, which changes codes about as
            much as rounding pixels to bytes; or auto: fast where the network computes in bfloat16.
        uint8_pixels: Round pixels to bytes although the network computes in float32, as is done in bfloat16 and of
            shrunk photos in any case.
        batch_size: Photos per pass through the network; by default a size that suits the device and fits in its
            memory.
    """

    weights: str = IMAGENET
    network: str = "vgg16"
    layer: str = "relu6"
    pool: str | None = None
    precision: str = "auto"
    code_dtype: str = "float16"
    decode: str = "auto"
    uint8_pixels: bool = False
    batch_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size is not None:
            _at_least_one("batch_size", self.batch_size)
        _one_of("network", self.network, ("vgg16", "vgg19", NULL_NETWORK))
        if self.pool is not None:
            _one_of("pool", self.pool, POOLS)
        _one_of("precision", self.precision, ("auto", "float32", "bfloat16"))
        _one_of("code_dtype", self.code_dtype, ("float16", "float32"))
        _one_of("decode", self.decode, ("auto", EXACT, FAST))


@dataclass(frozen=True, kw_only=True)
class ShrinkConfig(ArchiveConfig):
    """How photos are shrunk to what a network sees of them.

    Attributes:
        decode: fast: a large JPEG to a half, a quarter or an eighth of its size, as for networks that compute in
            bfloat16; or exact.
        thumbnails: Keep thumbnails, too, of 512 pixels, for the report and the review. They take more time than
            decoding.
    """

    decode: str = FAST
    thumbnails: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("decode", self.decode, (EXACT, FAST))


@dataclass(frozen=True)
class TrainConfig:
    """How a classifier is trained on codes.

    Attributes:
        labels: `folder` (the first level of folders that tells classes apart), folder:N (level N below the root; -1
            is the photo's own folder), column:NAME (a column of the photos' table, or the members beside them in a
            tar, such as column:cls and column:json.label), xmp (the keywords in photos and in their XMP sidecars, with
            `classes`), or a CSV or Parquet file with the columns path,label and perhaps chosen (how each photo was
            chosen: figures come from random ones only). There is no default: without it, the command says what there
            is to choose from. If a photo has several labels, the last one counts, and those that files disagree on are
            listed.
        classes: Which keywords are classes, for `labels` xmp: names, such as rose,tulip or animal/bird; a name with its
            synonyms, such as rose=Rosa,roses; or a text file of these, one per line, such as classes.txt.
        head: logistic (multinomial regression), mlp (256 hidden units), or auto: logistic, or with more than 10,000
            labels the one with the lower validation loss.
        min_precision: Precision that labels must reach with a confidence of 95%, above 0 and up to 1; less certain
            labels are marked unknown.
        min_photos_per_class: Classes with fewer photos that are no copies of each other are left out, and named. With
            fewer than 3, a class is trained, but cannot be tested.
        max_memory_mb: Megabytes of memory for codes, which are streamed if they need more; by default half of the
            free memory.
        seed: Seed of everything random; the split does not depend on it.
        images: Where the photos of the codes are, if they have moved, or are on another store than the codes.
    """

    labels: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    head: str = "auto"
    min_precision: float = 0.95
    min_photos_per_class: int = 1
    max_memory_mb: int | None = None
    seed: int = 0
    images: str | None = None

    def __post_init__(self) -> None:
        for name, value, example in (("labels", self.labels, "folder"), ("classes", self.classes, "rose")):
            if isinstance(value, str):
                raise InputError(f"`{name}` must be a tuple, such as ('{example}',). Received: {value!r}.")
        if self.classes and XMP not in self.labels:
            raise InputError(f"`classes` says which keywords are classes: add `labels` {XMP}, or leave `classes` out.")
        _one_of("head", self.head, ("auto", "logistic", "mlp"))
        if not 0 < self.min_precision <= 1:
            raise InputError(f"`min_precision` must be above 0 and at most 1. Received: {self.min_precision}.")
        _at_least_one("min_photos_per_class", self.min_photos_per_class)
        if self.max_memory_mb is not None:
            _at_least_one("max_memory_mb", self.max_memory_mb)
        if not 0 <= self.seed < 2**32:
            raise InputError(f"`seed` must be from 0 to {2**32 - 1}. Received: {self.seed}.")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """How a network is trained further, together with a classifier on top of it.

    Attributes:
        encode: How photos are encoded before training; its weights are where training starts (`random:SEED`: from
            scratch), and its layer is below the classifier. Its cluster is not used. None takes the defaults or, for a
            folder of codes, the settings that made it.
        train: The labels, and how the classifier on frozen codes, with which training starts, is fitted; its head is
            always `logistic`.
        unfreeze: What is trained: head (the classifier alone), fc (the fully connected layers too), conv5 (the last
            convolutions too), or all.
        epochs: Passes over all photos at most; training stops early if validation does not improve.
        batch_size: Photos per training step, over all GPUs; fewer need less memory.
        lr_multiplier: Factor of all learning rates.
        augment: Random changes of the training photos: any of crop, flip and colour.
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
    """How photos, or codes, are labelled. Predictions from codes keep the shards of the codes.

    Attributes:
        weights: The weights' file, if it is no longer where the model says.
        top_k: Number of most likely labels that are kept per photo.
        batch_size: Photos per pass through the network; by default a size that suits the device and fits in its
            memory.
    """

    weights: str | None = None
    top_k: int = 5
    batch_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size is not None:
            _at_least_one("batch_size", self.batch_size)
        _at_least_one("top_k", self.top_k)


@dataclass(frozen=True, kw_only=True)
class OrganizeConfig:
    """Which photos a tree with a folder per class shows, and how.

    Attributes:
        hardlink: Make hard links, second names of the same files, instead of symbolic links.
        copy: Copy the photos instead of making links.
        min_probability: Show photos whose label has at least this probability, 0 to 1, whether they are marked unknown
            or not; by default those that are not unknown.
        dry_run: Change nothing: only count, and show examples.
    """

    hardlink: bool = False
    copy: bool = False
    min_probability: float | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.hardlink and self.copy:
            raise InputError("Photos are either linked or copied: leave out `hardlink` or `copy`.")
        if self.min_probability is not None and not 0 <= self.min_probability <= 1:
            raise InputError(f"`min_probability` must be from 0 to 1. Received: {self.min_probability}.")


@dataclass(frozen=True, kw_only=True)
class TagConfig:
    """How predictions become keywords in XMP sidecars beside the photos.

    Attributes:
        min_probability: Write labels of at least this probability, 0 to 1, whether they are marked unknown or not; by
            default those that are not unknown.
        sidecar: The sidecars' names: full (photo.jpg.xmp, as darktable, digiKam and Immich read them) or lightroom
            (photo.xmp, which a RAW file and its JPEG share; Lightroom reads those of RAW files only).
        remove: Take away what this program wrote, in sidecars of both names, instead of writing labels.
        dry_run: Change nothing: only count, and show examples.
    """

    min_probability: float | None = None
    sidecar: str = "full"
    remove: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.min_probability is not None and not 0 <= self.min_probability <= 1:
            raise InputError(f"`min_probability` must be from 0 to 1. Received: {self.min_probability}.")
        _one_of("sidecar", self.sidecar, SIDECARS)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"`{name}` must be one of {', '.join(allowed)}. Received: {value}.")


def _at_least_one(name: str, value: float) -> None:
    if not value >= 1:
        raise InputError(f"`{name}` must be 1 or more. Received: {value}.")
