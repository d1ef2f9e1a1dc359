"""What a demo starts from: photos by class, and the network's weights."""

from __future__ import annotations

import os
import random
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path

from flowers_batch.config import IMAGENET, RANDOM, WEIGHTS_ENVIRONMENT, EncodeConfig
from flowers_batch.demo.drawings import FLOWER_CLASSES, draw_photos
from flowers_batch.encoding.networks import ends_at_pool5
from flowers_batch.errors import InputError
from flowers_batch.progress import Reporter, no_progress
from flowers_batch.storage.locks import wait_for_lock
from flowers_batch.storage.scratch import scratch_folder
from tensorflow_vgg.download import DownloadError, PublishedFile, cache_folder, fetch, find_cached, is_reachable
from tensorflow_vgg.weights import PUBLISHED

PHOTOS_ENVIRONMENT = "FLOWERS_BATCH_PHOTOS"  # names a folder of photos, in a folder per class
RANDOM_WEIGHTS = f"{RANDOM}0"
# 3670 photos, CC BY 2.0 by their Flickr photographers, collected by the TensorFlow authors.
FLOWER_PHOTOS = PublishedFile(
    "https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz",
    228813984,
    "sha256:4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
)
_PHOTOS_WITHOUT_GPU = 600  # a sample of this size is used on a machine without a GPU


@dataclass(frozen=True)
class DemoPhotos:
    """Photos to run the demo on.

    Attributes:
        folder: The folder of real photos; None if the photos are synthetic.
        by_class: The photos of each class.
        notes: Sentences that a person should read beside the results.
    """

    folder: Path | None
    by_class: dict[str, list[Path]]
    notes: tuple[str, ...] = ()


def find_photos(synthetic: Path, count: int, offline: bool, reporter: Reporter) -> DemoPhotos:
    """Return real photos: those that the environment names, cached ones or downloaded ones; else draw synthetic ones.

    Args:
        synthetic: The folder to draw photos in, if there are no real ones.
        count: Number of photos to draw.
        offline: Whether to download nothing.
        reporter: Receives where the photos come from.

    Raises:
        InputError: The folder that the environment names does not exist, or contains no photos.
    """
    folder = _real_photos(offline, reporter)
    if folder is None:
        draw_photos(synthetic, count)
        note = f"The {count} photos are synthetic: drawn by a program, not taken by a camera."
        return DemoPhotos(None, {name: sorted((synthetic / name).iterdir()) for name in FLOWER_CLASSES}, (note,))
    classes = {entry.name: sorted(entry.glob("*.jpg")) for entry in sorted(folder.iterdir()) if entry.is_dir()}
    if not any(classes.values()):
        raise InputError(f"There are no folders with .jpg photos in {folder}: check {PHOTOS_ENVIRONMENT}.")
    total = sum(map(len, classes.values()))
    sample = ""
    if not _has_gpu() and total > _PHOTOS_WITHOUT_GPU:
        share, sample = _PHOTOS_WITHOUT_GPU / total, f"{_PHOTOS_WITHOUT_GPU} of "
        classes = {name: random.Random(0).sample(found, round(len(found) * share)) for name, found in classes.items()}
    reporter.message(f"using {sample}the {total} photos in {folder}")
    return DemoPhotos(folder, classes)


def find_weights(given: str | None, network: str, offline: bool, reporter: Reporter) -> EncodeConfig:
    """Return how to encode with the given weights, else with ImageNet's if available, else with random ones.

    Weights that end before the fully connected layers give averaged `pool5`, others the default codes.

    Args:
        given: The name of the weights; None to find some.
        network: The network that they are for.
        offline: Whether to download nothing.
        reporter: Receives why ImageNet's are not available.

    Raises:
        InputError: The given weights, or those that the environment names, are not available.
    """
    config = EncodeConfig(network=network, weights=given or _imagenet_or_random(offline, reporter))
    return replace(config, layer="pool5", pool="avg") if ends_at_pool5(config) else config


def _imagenet_or_random(offline: bool, reporter: Reporter) -> str:
    file = PUBLISHED[EncodeConfig.network]
    if os.environ.get(WEIGHTS_ENVIRONMENT) or _is_available(file, "weights", offline, reporter):
        return IMAGENET
    return RANDOM_WEIGHTS


def _real_photos(offline: bool, reporter: Reporter) -> Path | None:
    if given := os.environ.get(PHOTOS_ENVIRONMENT):
        if not Path(given).is_dir():
            raise InputError(f"There is no folder {given}: check {PHOTOS_ENVIRONMENT}, which names it.")
        return Path(given)
    try:
        folder = cache_folder() / "flower_photos"
    except DownloadError as error:
        reporter.message(f"photos: {error}")
        return None
    if folder.is_dir():
        return folder
    if not _is_available(FLOWER_PHOTOS, "photos", offline, reporter):
        return None
    with wait_for_lock(f"{folder}.lock", str(folder), no_progress):
        if not folder.is_dir():  # another process may have unpacked it meanwhile
            _unpack(folder)
    return folder


def _unpack(folder: Path) -> None:
    with scratch_folder(str(folder.parent)) as unpacked, tarfile.open(fetch(FLOWER_PHOTOS)) as archive:
        archive.extractall(unpacked, filter="data")
        Path(unpacked, folder.name).replace(folder)


def _is_available(file: PublishedFile, name: str, offline: bool, reporter: Reporter) -> bool:
    """Return whether a file is in the cache, after downloading it if possible; report why not."""
    if find_cached(file) is not None:
        return True
    if offline:
        reporter.message(f"{name}: not on this machine, and nothing is downloaded")
        return False
    if not is_reachable(file):
        reporter.message(f"{name}: {file.url} does not answer")
        return False
    reporter.message(f"{name}: downloading {file.size / 1e6:.0f} MB from {file.url}")
    try:
        fetch(file)
    except DownloadError as error:
        reporter.message(f"{name}: {error}")
        return False
    return True


def _has_gpu() -> bool:
    return Path("/dev/nvidia0").exists()
