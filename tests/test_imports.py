"""What importing the package loads. `make lint` checks which package imports which."""

from __future__ import annotations

import subprocess
import sys

import pytest
from codes_folder import labels, write_codes
from helpers import ROOT, draw_archive
from PIL import Image

LATER = (  # what the review uses after its first groups
    *("faiss", "jinja2", "lxml", "matplotlib", "multiprocessing.pool", "numpy.ma", "pandas", "scipy", "sklearn"),
    *(
        f"flowers_batch.classifier.{name}"
        for name in ("label_issues", "labels", "labelling", "suggestions", "training")
    ),
    *("flowers_batch.decoding.pool", "flowers_batch.metadata", "flowers_batch.pages.report"),
    *("flowers_batch.search.duplicates", "flowers_batch.search.similar"),
)
HEAVY = ("numpy", "ray", "tensorflow", "sklearn", "matplotlib", "pyarrow", "keras", "PIL", "skimage")


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("module", ["flowers_batch", "flowers_batch.cli.main"])
def test_package_and_command_load_nothing_heavy(module):
    assert run(f"import sys, {module}; print(*sorted(set(sys.modules) & set({HEAVY})))").split() == []


def test_package_loads_no_framework_until_it_is_used():
    script = (
        "import sys, flowers_batch as fb; [getattr(fb, name) for name in fb.__all__]; "
        "print(*sorted(set(sys.modules) & {'ray', 'tensorflow', 'keras', 'sklearn', 'matplotlib'}))"
    )
    assert run(script).split() == []


def test_shrinking_loads_no_tensorflow(tmp_path):
    draw_archive(tmp_path / "photos", 1)
    script = """
import sys
import pyarrow as pa
from flowers_batch.config import ShrinkConfig
from flowers_batch.dataset.listing_differences import new_rows
from flowers_batch.encoding.shrinking import ShrinkFactory
from flowers_batch.sources.opening import open_source
import flowers_batch.runs.shrink
source = open_source(sys.argv[1])
rows = pa.Table.from_batches(map(new_rows, source.batches()))
batches = [*ShrinkFactory(ShrinkConfig(), source)(1, False).batches(0, rows, {})]
print(sum(len(batch["pixels"].drop_null()) for batch in batches), *sys.modules.keys() & {"tensorflow", "keras", "ray"})
"""
    assert run(script, str(tmp_path / "photos")).split() == ["3"]


def test_package_exports_only_classes_and_functions():
    script = "import flowers_batch as fb; print(*(type(getattr(fb, name)).__name__ for name in fb.__all__))"
    assert set(run(script).split()) <= {"type", "function", "_ProtocolMeta"}


def test_arrow_imports_pandas_only_if_it_is_asked_for_its_objects():
    script = (
        "import sys; from flowers_batch.pandas_import import keep_arrow_from_importing_pandas as keep; keep(); "
        "import flowers_batch.dataset.schema, pyarrow as pa; pa.array(['a']); print('pandas' in sys.modules); "
        "print(len(pa.table({'a': [1, 2]}).to_pandas()))"
    )
    assert run(script).split() == ["False", "2"]


def test_fork_server_of_decode_workers_imports_no_pandas():
    assert run("import sys, flowers_batch.decoding.fork_server; print('pandas' in sys.modules)") == "False\n"


def test_processes_that_decode_nothing_load_no_image_library():
    modules = [f"flowers_batch.{name}" for name in ("pages.review.server", "cluster.actors", "finetuning.pixels")]
    libraries = {"cv2", "PIL", "simplejpeg", "pillow_heif", "rawpy", "imagecodecs"}
    assert run(f"import sys, {', '.join(modules)}; print(*sorted(set(sys.modules) & {libraries}))").split() == []


def test_only_pools_that_resize_photos_load_a_compiler():
    script = """
import sys
from flowers_batch.decoding.outputs import ShrunkPhoto, SquarePixels, WebpThumbnail
from flowers_batch.metadata.file_keywords import KeywordsOutput
print(*sys.modules.keys() & {"cv2", "numba"})
for output in (WebpThumbnail(64), KeywordsOutput(), ShrunkPhoto()):
    output.load()
    print("numba" in sys.modules)
"""
    assert run(script).splitlines() == ["", "False", "False", "True"]


def test_workers_load_and_compile_nothing_more_when_they_write(tmp_path):
    draw_archive(tmp_path, 1)
    photo = next(path for path in tmp_path.rglob("*") if path.is_file())
    large = tmp_path / "large.jpg"
    Image.open(photo).resize((700, 600)).save(large)
    script = """
import sys
from pathlib import Path
import numpy as np
from flowers_batch.decoding.outputs import ShrunkPhoto, WebpThumbnail
from flowers_batch.metadata.file_keywords import KeywordsOutput
data = Path(sys.argv[1]).read_bytes()
for output in (KeywordsOutput(), WebpThumbnail(64), ShrunkPhoto(thumbnail=WebpThumbnail(64))):
    output.load()
    loaded = set(sys.modules)
    output.write(data, np.zeros(output.shape, output.dtype), 10**6, None)
    print(*sorted(set(sys.modules) - loaded))
"""
    assert run(script, str(large)).split() == []


def test_review_shows_groups_of_an_earlier_start_before_it_loads_the_rest(tmp_path):
    codes = write_codes(tmp_path / "codes", labels(daisy=40, rose=30))
    script = f"""
import sys, time
from flowers_batch.pandas_import import keep_arrow_from_importing_pandas
keep_arrow_from_importing_pandas()
from flowers_batch.pages.review.filters import Filters
from flowers_batch.pages.review.review import Review
from flowers_batch.pages.review.server import ReviewServer, listen
review = Review(*sys.argv[1:])
server = ReviewServer(review, listen(0))
review.start()
while "computing" in (found := review.views.groups(Filters(labelled=False))):
    time.sleep(0.01)
print(len(found["groups"]) > 1, len(found["random"]), *sorted(set({LATER}) & set(sys.modules)))
review.close()
"""
    first, kept = (run(script, str(codes), str(tmp_path / "labels.csv")).split() for _ in range(2))
    assert kept == ["True", "60"] and first[:2] == kept and "faiss" in first
