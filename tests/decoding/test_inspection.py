from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import encoded, images_in, poisonous, random_pixels, source, write
from threadpoolctl import threadpool_limits

from flowers_batch.decoding import inspection
from flowers_batch.decoding.decode import decode
from flowers_batch.errors import FlowersError, RunError

SECONDS = 3.0  # that an image may take: far more than a good one needs
MAX_PIXELS = 10_000_000


def good(count: int) -> dict[str, bytes]:
    return {f"{n:03d}.png": encoded(random_pixels(30, 40, seed=n)) for n in range(count)}


@pytest.fixture
def poison(tmp_path, monkeypatch) -> None:
    """Files that begin with POISON crash, hang or exhaust the processes that decode them."""
    monkeypatch.syspath_prepend(poisonous(tmp_path / "poison"))


def poison_in(folder: Path, progress=lambda done: None, seconds: float = SECONDS) -> dict[str, tuple[str, str]]:
    images = images_in(source(folder))
    return inspection.find_poison_images(str(folder), None, images, MAX_PIXELS, seconds, progress)


@pytest.mark.faults
def test_images_that_crash_hang_or_exhaust_memory_are_found(tmp_path, poison):
    photos = good(12) | {"004.png": b"POISON crash", "007.png": b"POISON hang", "008.png": b"POISON memory"}
    done: list[int] = []
    assert poison_in(write(tmp_path / "photos", photos), done.append) == {
        "004.png": ("crashed_decoder", "Decoding it ends the process with SIGSEGV."),
        "007.png": ("timeout", "Reading and decoding it takes more than 3 seconds."),
        "008.png": ("crashed_decoder", "Decoding it takes all memory."),
    }
    assert done == list(range(1, 13))


def test_image_that_ends_the_process_only_once_is_not_blamed(tmp_path, poison):
    photos = good(4) | {"002.png": f"POISON once:{tmp_path / 'state'}".encode()}
    assert poison_in(write(tmp_path / "photos", photos)) == {}
    assert (tmp_path / "state").exists()


def test_images_that_fail_to_decode_are_not_blamed(tmp_path):
    photos = good(3) | {"a.png": b"a letter", "b.png": b"", "c.png": encoded(random_pixels(40, 40))[:300]}
    folder = write(tmp_path / "photos", photos)
    (folder / "missing.png").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.png")
    assert poison_in(folder) == {}


def test_photo_beyond_the_limit_of_pixels_is_not_blamed(tmp_path):
    folder = write(tmp_path / "photos", {"large.png": encoded(random_pixels(30, 40))})
    listed = images_in(source(folder))
    assert inspection.find_poison_images(str(folder), None, listed, 100, SECONDS, lambda done: None) == {}


def test_names_of_all_kinds_reach_the_child(tmp_path, poison):
    names = ["a b.png", "'\".png", "line\nfeed.png", "ü 🌸.png", os.fsdecode(b"\xff\xfe.png")]
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"POISON crash")
    assert set(poison_in(folder)) == {image.path for image in images_in(source(folder))}


def test_output_of_libraries_is_no_answer(tmp_path, monkeypatch):
    hook = Path(poisonous(tmp_path / "poison"))
    noise = (
        "import os\nkill = os.kill\nos.kill = lambda *at: (print('[]', flush=True), os.write(1, b'[]\\n'), kill(*at))\n"
    )
    (hook / "sitecustomize.py").write_text(noise + (hook / "sitecustomize.py").read_text())
    monkeypatch.syspath_prepend(hook)
    photos = good(2) | {"001.png": b"POISON crash"}
    assert set(poison_in(write(tmp_path / "photos", photos))) == {"001.png"}


def test_child_that_cannot_start_is_reported(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['cv2'] = None")
    monkeypatch.syspath_prepend(str(tmp_path))
    expected = r"^The process that tries images one by one does not start: ModuleNotFoundError: .*cv2.*$"
    with pytest.raises(RunError, match=expected):
        poison_in(write(tmp_path / "photos", good(1)))


def test_missing_source_is_reported(tmp_path):
    folder = write(tmp_path / "photos", good(1))
    images = images_in(source(folder))
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(FlowersError, match=r"^There is no "):
        inspection.find_poison_images(str(folder), None, images, MAX_PIXELS, SECONDS, lambda done: None)


def children_of(process: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


def wait_until(condition, seconds: float = 20.0) -> bool:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)
    return condition()


def test_child_dies_with_its_parent_even_while_it_hangs(tmp_path, poison):
    folder = write(tmp_path / "photos", {"a.png": b"POISON hang"})
    script = (
        "import sys; from flowers_batch.decoding.inspection import find_poison_images\n"
        "from flowers_batch.sources.images import Image\n"
        "find_poison_images(sys.argv[1], None, [Image('a.png')], 10**6, 3600, print)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, "-c", script, str(folder)], env=environment)
    try:
        assert wait_until(lambda: children_of(parent.pid))
        (child,) = children_of(parent.pid)
        time.sleep(2)  # it hangs by now
        assert Path(f"/proc/{child}").exists()
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert wait_until(lambda: not Path(f"/proc/{child}").exists(), 5)


def test_good_images_take_little_longer_than_decoding_them(tmp_path):
    data = encoded(random_pixels(300, 400), "JPEG")
    folder = write(tmp_path / "photos", {f"{n}.jpg": data for n in range(300)})
    times: list[float] = []
    assert poison_in(folder, lambda done: times.append(time.perf_counter())) == {}
    with threadpool_limits(1):
        begun = time.perf_counter()
        for _ in times:
            decode(data)
    assert times[-1] - times[0] < 2 * (time.perf_counter() - begun) + 1
