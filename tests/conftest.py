"""What tests share: drawn photos, real ones where they are, and one local Ray."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

KINDS = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (40, 60, 200)}


def draw_archive(folder: Path, per_class: int, seed: int = 0) -> Path:
    """Writes small noisy pictures of three colours into a folder for each: learnable from any network's codes."""
    random = np.random.default_rng(seed)
    for kind, colour in KINDS.items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            height, width = random.integers(30, 60, 2)
            pixels = np.clip(random.normal(colour, 40, (height, width, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{number:04d}.png")
    return folder


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 drawn pictures in three folders, and a file that is no image."""
    folder = draw_archive(tmp_path_factory.mktemp("archive"), 10)
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture(scope="session")
def real_photos() -> Path:
    """The folder of real photos that FLOWERS_BATCH_PHOTOS names."""
    if not os.environ.get("FLOWERS_BATCH_PHOTOS"):
        pytest.skip("FLOWERS_BATCH_PHOTOS is not set: no real photos to test with")
    return Path(os.environ["FLOWERS_BATCH_PHOTOS"])


@pytest.fixture(scope="session")
def local_ray():
    """One Ray for all tests that need one: two cores, no GPU."""
    import ray

    os.environ.pop("RAY_ADDRESS", None)
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=100 << 20,
    )
    yield
    ray.shutdown()


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """VGG16 and VGG19 with all their layers, each of another width, and none of them wide: quick to make and to run."""
    from tensorflow_vgg import network

    monkeypatch.setattr(network, "_FILTERS", (2, 3, 4, 5, 6))
    monkeypatch.setattr(network, "FC_WIDTH", 8)
    monkeypatch.setattr(network, "CLASSES", 10)
