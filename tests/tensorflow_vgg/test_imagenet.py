import functools
import hashlib
import http.server
import json
import threading

import numpy as np
import pytest

from tensorflow_vgg import imagenet
from tensorflow_vgg.download import DownloadError, PublishedFile

NAMES = ["tench", "goldfish", "shark", "ray", "cock", "hen"]


def class_index(path, count=12):
    """A class index like Keras', its numbers in alphabetical order, which is not theirs."""
    numbers = sorted(str(number) for number in range(count))
    path.write_text(json.dumps({number: [f"n{number}", f"class{number}"] for number in numbers}))
    return path


@pytest.fixture
def publisher(tmp_path):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_class_names_are_in_the_order_of_the_numbers(tmp_path):
    names = imagenet.class_names(class_index(tmp_path / "index.json"))
    assert names == [f"class{number}" for number in range(12)]


def test_class_names_are_downloaded_by_default(tmp_path, monkeypatch, publisher):
    content = class_index(tmp_path / "index.json").read_bytes()
    url = f"{publisher}/index.json"
    published = PublishedFile(url, len(content), f"md5:{hashlib.md5(content).hexdigest()}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(imagenet, "CLASS_INDEX", published)
    assert imagenet.class_names() == [f"class{number}" for number in range(12)]
    assert (tmp_path / "cache" / "flowers_batch" / "index.json").read_bytes() == content


def test_class_index_that_cannot_be_fetched_is_a_download_error(tmp_path, monkeypatch, publisher):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(imagenet, "CLASS_INDEX", PublishedFile(f"{publisher}/none.json", 5, "md5:0"))
    with pytest.raises(DownloadError, match=r"none\.json"):
        imagenet.class_names()


def test_top_classes_are_sorted_by_probability():
    probabilities = np.array([0.05, 0.3, 0.1, 0.4, 0.02, 0.13], np.float32)
    best = imagenet.top_classes(probabilities, NAMES, 3)
    assert [name for name, _ in best] == ["ray", "goldfish", "hen"]
    assert [probability for _, probability in best] == pytest.approx([0.4, 0.3, 0.13])
    assert all(type(probability) is float for _, probability in best)


def test_top_classes_are_five_by_default():
    assert len(imagenet.top_classes(np.full(6, 1 / 6), NAMES)) == 5


def test_top_classes_keeps_the_order_of_equal_probabilities():
    names = [str(number) for number in range(1000)]
    probabilities = np.full(1000, 0.0009)
    probabilities[[700, 30, 400]] = 0.001
    assert [name for name, _ in imagenet.top_classes(probabilities, names, 8)] == [
        "30",
        "400",
        "700",
        "0",
        "1",
        "2",
        "3",
        "4",
    ]


def test_print_top_classes_prints_one_line_per_class(capsys):
    imagenet.print_top_classes(np.array([0.05, 0.25, 0.125, 0.5, 0.025, 0.05]), NAMES, 3)
    assert capsys.readouterr().out == " 50.00%  ray\n 25.00%  goldfish\n 12.50%  shark\n"


def test_print_top_classes_aligns_probabilities(capsys):
    imagenet.print_top_classes(np.array([1.0, 0.0]), NAMES, 2)
    assert capsys.readouterr().out == "100.00%  tench\n  0.00%  goldfish\n"
