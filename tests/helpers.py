"""Helpers for tests of several packages: small pictures, folders, manifests, classifiers, processes."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import pickle
import socket
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from pyarrow import fs
from thread_pool import decoding_in_threads

from flowers_batch.classifier.head import Head
from flowers_batch.classifier.normalization import STANDARDIZED, Normalization
from flowers_batch.cluster.actors import ShardActor
from flowers_batch.cluster.messages import PoolResult, ShardJob
from flowers_batch.dataset.listing_differences import new_rows
from flowers_batch.dataset.manifest_part import MANIFEST_SCHEMA
from flowers_batch.encoding import feed
from flowers_batch.fingerprint import Fingerprint
from flowers_batch.sources.folders import FolderSource
from flowers_batch.sources.images import Image as Listed
from flowers_batch.sources.images import batches_of, images_of
from flowers_batch.sources.opening import open_source
from flowers_batch.sources.source import Source
from flowers_batch.storage.folder import Folder

KINDS = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (40, 60, 200)}  # RGB of the drawn classes
ROOT = Path(__file__).parent.parent  # of the repository
DATA = ROOT / "tests" / "data"
START = datetime(2024, 5, 1, 12, 0, 0, 123456, UTC)


def draw_archive(folder: Path, per_class: int, seed: int = 0) -> Path:
    """Draw small noisy pictures of three colours, in a folder each: classes that the codes of any network separate."""
    random = np.random.default_rng(seed)
    for kind, colour in KINDS.items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            height, width = random.integers(30, 60, 2)
            pixels = np.clip(random.normal(colour, 40, (height, width, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{number:04d}.png")
    return folder


def random_pixels(height: int, width: int, seed: int = 0, channels: int = 3) -> NDArray[np.uint8]:
    """Return noise, the hardest picture to resize correctly: uint8 [height, width, channels]."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(picture: Image.Image | NDArray[np.uint8], kind: str = "PNG", **options: Any) -> bytes:
    """Return a picture as the bytes of a file."""
    buffer = io.BytesIO()
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files and their folders, and return the folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file by the names of its columns."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


_AT_IMPORT = """
import sys
from importlib.machinery import PathFinder
CODE

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != "MODULE":
            return None
        spec = PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def load_changed(module):
            load(module)
            change(module)

        spec.loader.exec_module = load_changed
        return spec


sys.meta_path.insert(0, Finder())
"""


def changing(folder: Path, module: str, code: str) -> str:
    """Make a folder for PYTHONPATH by which Python processes call the code's `change(module)` after they import it."""
    text = _AT_IMPORT.replace("MODULE", module).replace("CODE", code)
    write(folder, {"sitecustomize.py": text.encode()})
    return str(folder)


_POISON = """
import os, signal, time


def change(module):
    open_image = module.open_image

    def open_or_die(data, *rest):
        kind, _, state = data.decode(errors="replace").partition(":")
        if kind == "POISON once" and not os.path.exists(state):
            open(state, "w").close()
            kind = "POISON crash"
        if kind == "POISON crash":
            signal.raise_signal(11)  # in this thread, which ends, as after a real crash
        if kind == "POISON hang":
            time.sleep(3600)
        while kind == "POISON spin":
            pass
        if kind == "POISON memory":
            bytearray(1 << 50)
        return open_image(data, *rest)

    module.open_image = open_or_die
"""


def poisonous(folder: Path) -> str:
    """Make a folder for PYTHONPATH by which files that begin with `POISON` crash, hang or exhaust Python processes.

    `POISON crash`, `POISON hang`, `POISON spin`, `POISON memory`, or `POISON once:FILE`, which crashes the process
    unless there is a file of that name, and makes it first.
    """
    return changing(folder, "flowers_batch.decoding.formats", _POISON)


def store(path: Path) -> Folder:
    """Return a folder that is opened like one in an object store."""
    path.mkdir(parents=True, exist_ok=True)
    return Folder("store://bucket/run", fs.SubTreeFileSystem(str(path.parent), fs.LocalFileSystem()), path.name)


def source(path: Path) -> FolderSource:
    """Return a local folder as a source of images."""
    return open_source(str(path))


def images_in(source: Source) -> list[Listed]:
    """Return all images that a source lists."""
    return [image for batch in source.batches() for image in images_of(batch)]


def fingerprint(**changes: Any) -> Fingerprint:
    """Return a fingerprint of codes, with some fields changed."""
    values = {"network": "null", "layer": "relu6", "weights": "null", "precision": "float32", "code_dtype": "float16"}
    return Fingerprint(**(values | changes))


def listed(paths: Iterable[str], size: int = 1) -> list[Listed]:
    """Return images as a source lists them, with times a minute apart."""
    return [Listed(path, size + number, START + timedelta(minutes=number)) for number, path in enumerate(paths)]


def manifest_rows(paths: list[str]) -> pa.Table:
    """Return a shard's manifest rows, as an encoder receives them."""
    return pa.Table.from_batches(map(new_rows, batches_of(listed(paths))), MANIFEST_SCHEMA)


def some_head(
    classes: tuple[str, ...],
    width: int,
    seed: int = 0,
    hidden: int = 0,
    normalization: str = STANDARDIZED,
    **options: Any,
) -> Head:
    """Return a classifier with random parameters, and with a hidden layer if `hidden` is not 0."""
    random = np.random.default_rng(seed)
    sizes = [width, *([hidden] if hidden else []), len(classes)]

    def draw(*shape: int) -> NDArray[np.float32]:
        return random.normal(0, shape[0] ** -0.5, shape).astype(np.float32)

    layers = tuple((draw(before, after), draw(after)) for before, after in pairwise(sizes))
    scale = random.uniform(0.5, 2, width).astype(np.float32)
    if normalization != STANDARDIZED:
        return Head(classes, Normalization(normalization), layers, **options)
    return Head(classes, Normalization(normalization, draw(width), scale), layers, **options)


def digests_of(names: Iterable[Any]) -> NDArray[np.bytes_]:
    """Return the SHA-256 of each name, as an array."""
    return np.array([hashlib.sha256(str(name).encode()).digest() for name in names], "S32")


def assert_parameters_equal(found: Any, expected: Any) -> None:
    """Assert that names, kernels and biases are equal, in the same order, and float32."""
    assert [name for name, *_ in found] == [name for name, *_ in expected]
    for (name, *ours), (_, *theirs) in zip(found, expected, strict=True):
        for our, their in zip(ours, theirs, strict=True):
            assert our.dtype == np.float32, name
            np.testing.assert_array_equal(our, their, err_msg=name)


def descendants(pid: int) -> dict[int, str]:
    """Return the command lines of a process's descendants, by process ID."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            status = (folder / "stat").read_text()
            parents[int(folder.name)] = int(status.rpartition(")")[2].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    found: dict[int, str] = {}
    young = [pid]
    while young:
        young = [child for child, parent in parents.items() if parent in young]
        found |= {child: names[child] for child in young}
    return found


def decode_processes() -> list[int]:
    """Return this process's fork servers of decode workers, and the workers."""
    return [process for process, line in descendants(os.getpid()).items() if "decoding.fork_server" in line]


def narrowing(folder: Path) -> str:
    """Make a folder for PYTHONPATH by which Python processes have VGG with all its layers, but narrow ones."""
    code = "def change(module): module.FILTERS, module.FC_WIDTH = (4, 6, 8, 10, 12), 24"
    return changing(folder, "tensorflow_vgg.network", code)


@contextmanager
def ending_feeds() -> Iterator[None]:
    """End the feeds, and thereby the decode workers, that are made in the block, as the end of an actor would."""
    before = set(feed._FEEDS)
    try:
        yield
    finally:
        for each in set(feed._FEEDS) - before:
            each.end()


@ending_feeds()
@decoding_in_threads()
def run_shards_here(
    job: ShardJob, shards: Any, cluster: Any, on_first_fingerprint: Any, reporter: Any, *, on_shard_finished: Any
) -> PoolResult:
    """Do what `driver.run_shards` does in threads of this process, without Ray; the job is sent as to an actor."""
    actor = ShardActor(pickle.loads(pickle.dumps(job)), 2, (), "here")
    on_first_fingerprint(actor.start().fingerprint)
    results = {}
    for shard in shards:
        results[shard.number] = actor.run(shard)
        on_shard_finished(results[shard.number].footer)
    reused = sum(each.reused for each in results.values())
    footers = {number: each.footer for number, each in results.items()}
    return PoolResult(footers, seconds=1.0, mean_actors=1.0, reused=reused)


@ending_feeds()
@decoding_in_threads()
def run_on_one_actor_here(job: Any, cluster: Any, reporter: Any) -> Any:
    """Do what `single_actor.run_on_one_actor` does, in this process and without Ray; the job is sent as to an actor."""
    return pickle.loads(pickle.dumps(job))(2, 0, reporter)


def free_port() -> int:
    """Return a port that nothing on this machine listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def add_sparse(file: tarfile.TarFile, name: str) -> None:
    """Add a sparse member of 100 bytes, of which the tar holds one."""
    header = tarfile.TarInfo(name)
    header.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "100", "GNU.sparse.numblocks": "1"}
    header.size = 1
    file.addfile(header, io.BytesIO(b"x"))
