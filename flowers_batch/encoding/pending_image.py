"""An image on its way through the network, and the batch that it is in."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from flowers_batch.decoding.resizing import Pixels
from flowers_batch.sources.images import Image

CodeArray = NDArray[np.floating]


class PendingImage:
    """An image on its way through the network, and finally its results.

    Attributes:
        image: As it was listed.
        size, sha256: Of the file's bytes; None where it could not be read.
        width, height, phash: Of the picture, as in `decode.Picture`; None where there is no picture.
        failure: Reason and message; None where there is a picture.
        code: The network's output; None where there is no picture.
    """

    __slots__ = (
        "batch",
        "chunk",
        "code",
        "failure",
        "height",
        "image",
        "phash",
        "sha256",
        "size",
        "slot",
        "waited",
        "width",
    )

    def __init__(self, image: Image, chunk: Chunk):
        self.image = image
        self.size: int | None = None
        self.sha256: bytes | None = None
        self.width: int | None = None
        self.height: int | None = None
        self.phash: int | None = None
        self.failure: tuple[str, str] | None = None
        self.code: CodeArray | None = None
        self.chunk: Chunk | None = chunk  # None once all results are there
        self.batch: PixelBatch | None = None
        self.slot: int | PendingImage = 0  # in its batch; or the first image with equal bytes
        self.waited = 0.0  # seconds, for a slot


class Chunk:
    """Consecutive images, which become rows together."""

    def __init__(self) -> None:
        self.images: list[PendingImage] = []
        self.busy = 0  # images that threads are working on
        self.decoded = threading.Event()  # set once all images were decoded or have failed


class PixelBatch:
    """Pixels that several threads fill, and the codes that they become."""

    def __init__(self, pixels: Pixels):
        self.pixels = pixels
        self.taken = self.filled = 0
        self.codes: Future[CodeArray] = Future()
