"""The review's server lets in only the page that it served itself, and gives nothing but what that page shows."""

from __future__ import annotations

import http.client
import json
import shutil
import tarfile
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from helpers import draw_archive

import flowers_batch as fb
from flowers_batch.pages.review import server
from flowers_batch.pages.review.guard import Guard
from flowers_batch.pages.review.review import Review, _next


@pytest.fixture(scope="module")
def base(local_ray, tmp_path_factory) -> Path:
    """Predictions of 30 pictures from their codes, and a secret beside the photos that a link in them leads to."""
    base = tmp_path_factory.mktemp("server")
    photos = draw_archive(base / "photos", 10)
    secret = draw_archive(base / "secret", 1) / "red" / "0000.png"
    (photos / "red" / "link.png").symlink_to(secret)
    fb.encode(photos, base / "codes", fb.EncodeConfig(network="null"))
    fb.train(base / "codes", base / "model", fb.TrainConfig(head="logistic"))
    fb.predict(base / "codes", base / "predictions", base / "model")
    return base


@dataclass(frozen=True)
class Client:
    """What asks the server, with whatever headers."""

    url: str

    def ask(
        self, path: str, body: Any = None, method: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        where = urlsplit(self.url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=20)
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        own = {"Origin": f"http://{where.netloc}"} if data is not None else {}
        connection.putrequest(method or ("GET" if data is None else "POST"), path, skip_host="Host" in headers)
        for name, value in (own | headers | ({"Content-Length": str(len(data))} if data is not None else {})).items():
            connection.putheader(name, value)
        connection.endheaders(data)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    def __call__(self, name: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        return self.ask(urlsplit(self.url).path + name, body, **headers)


@pytest.fixture
def client(base, tmp_path, monkeypatch):
    """A server as `review` starts it."""
    told: list[str] = []
    began = threading.Event()
    servers = []
    made = server._Server.__init__

    def remembered(self, config):
        servers.append(self)
        made(self, config)

    monkeypatch.setattr(server._Server, "__init__", remembered)

    def tell(line: str) -> None:
        told.append(line)
        began.set()

    def serve() -> None:
        fb.review(base / "predictions", tmp_path / "labels.csv", opened=False, tell=tell)

    thread = threading.Thread(target=serve)
    thread.start()
    assert began.wait(60)
    yield Client(told[0])
    servers[0].should_exit = True
    thread.join(20)
    assert not thread.is_alive()


def test_the_page_and_its_parts_are_served_with_a_policy(client):
    for name, kind in (("", "text/html"), ("review.js", "text/javascript"), ("review.css", "text/css")):
        status, headers, content = client(name)
        assert status == 200 and headers["content-type"].startswith(kind) and content
        assert "default-src 'none'" in headers["content-security-policy"] and "unsafe" not in str(headers)
        assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"


def test_nobody_gets_in_without_the_token(client):
    token = urlsplit(client.url).path
    assert len(token) > 32
    for path in (
        "/",
        "/review.js",
        "/api/state",
        f"/{'x' * 32}/",
        token[:-1] + "x/",
        token.rstrip("/")[:-1],
        "//" + token,
    ):
        assert client.ask(path)[0] == 404, path
    assert client.ask("/api/label", {"rows": [0], "labels": "red"})[0] == 404


@pytest.mark.parametrize("host", ["localhost:1", "evil.example", "127.0.0.1", "127.0.0.1:1", ""])
def test_other_hosts_are_refused(client, host):
    assert client("api/state", Host=host)[0] in (400, 403)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1", "https://127.0.0.1"])
def test_other_origins_are_refused(client, origin):
    assert client("api/state", Origin=origin)[0] == 403
    assert client("api/label", {"rows": [0], "labels": "red"}, Origin=origin)[0] == 403
    status, _, content = client("api/state")
    assert status == 200 and json.loads(content)["labelled"] == 0


def test_a_change_must_come_from_the_page(client):
    assert client("api/label", {"rows": [0], "labels": "red"}, Origin="")[0] == 403
    assert client.ask(urlsplit(client.url).path + "api/label", method="GET")[0] == 405


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "thumbnail/../../etc/passwd",
        "thumbnail/%2e%2e%2fetc%2fpasswd",
        "thumbnail/x",
        "thumbnail/-1",
        "thumbnail/999999",
        "thumbnail/1e3",
        "thumbnail/" + "9" * 5000,
        "static/review.js",
        "photos/red/0000.png",
    ],
)
def test_no_path_reaches_the_file_system(client, name):
    status, _, content = client(name)
    assert status == 404 and b"root:" not in content


def test_a_thumbnail_is_made_anew_and_small(client, base):
    rows = json.loads(client("api/view?name=uncertain")[2])["rows"]
    photos = {photo["path"]: photo for photo in json.loads(client("api/photos", {"rows": rows})[2])}
    assert len(photos) == 31
    status, headers, content = client(f"thumbnail/{photos['red/0001.png']['row']}")
    assert status == 200 and headers["content-type"] == "image/webp" and content[:4] == b"RIFF"
    shown = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert abs(shown.reshape(-1, 3).mean(0) - (40, 40, 200)).max() < 12
    status, _, content = client(f"thumbnail/{photos['red/link.png']['row']}")
    assert status == 404 and b"outside" in content


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        {"rows": 3},
        {"rows": ["0"]},
        {"rows": [True]},
        {"rows": [-1]},
        {"rows": [10**6]},
        {"rows": [10**30]},
        {"rows": []},
        {"rows": [0], "labels": ""},
        {"rows": [0], "labels": "  "},
        {"rows": [0], "labels": 3},
        {"rows": [0], "labels": ["a", "b"]},
        {"rows": [0], "labels": "x" * 201},
        {"rows": [0], "labels": "\ud800"},
        {"rows": [0], "labels": [3]},
    ],
)
def test_what_makes_no_sense_is_told_in_a_sentence_and_changes_nothing(client, body, tmp_path):
    status, _, content = client("api/label", body)
    assert status == 400 and json.loads(content)["error"].endswith(".")
    assert len((tmp_path / "labels.csv").read_text().splitlines()) == 1


def test_too_large_a_request_is_refused(client, monkeypatch):
    monkeypatch.setattr(server, "_BODY", 1000)
    assert client("api/label", {"rows": [0] * 1000})[0] == 400


def test_an_unknown_view_is_refused(client):
    status, _, content = client("api/view?name=all")
    assert status == 400 and "uncertain" in json.loads(content)["error"]


def test_a_taken_port_and_a_folder_of_codes_are_told_in_a_sentence(client, base, tmp_path):
    with pytest.raises(fb.InputError, match="is taken"):
        fb.review(base / "predictions", tmp_path / "other.csv", urlsplit(client.url).port or 0, opened=False)
    with pytest.raises(fb.InputError, match="by another review"):
        fb.review(base / "predictions", tmp_path / "labels.csv", opened=False)
    with pytest.raises(fb.InputError):
        fb.review(base / "codes", tmp_path / "more.csv", opened=False)


def test_the_guard_passes_only_http():
    async def never(*_: Any) -> None:
        raise AssertionError

    # No `asyncio.run`: the browser's tests leave a loop that runs.
    answer = Guard(never, "http://127.0.0.1:1", "token")({"type": "websocket"}, never, never)
    with pytest.raises(StopIteration):
        answer.send(None)


def test_labels_are_of_this_classifier_only_while_it_is_the_one(base, tmp_path):
    """Predictions whose classifier is gone, or whose codes are, can still be looked at and labelled."""
    moved = tmp_path / "predictions"
    shutil.copytree(base / "predictions", moved)
    for key in ("model", "codes"):
        job = json.loads((base / "predictions" / "job.json").read_text())
        job[key] = str(tmp_path / f"no {key}")
        (moved / "job.json").write_text(json.dumps(job))
        review = Review(moved, tmp_path / f"{key}.csv")
        assert len(review.view("uncertain")["rows"]) == 31
        assert review.label(review.view("uncertain")["rows"][:2], ["red", "red"])["labelled"] == 2
        assert key in review.state()["why_not"] and review.commands() == []
        with pytest.raises(fb.InputError, match="Nothing can be trained here"):
            review.train()
        review.journal.close()


def test_photos_in_tars_have_thumbnails(local_ray, base, tmp_path):
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        tar.add(base / "photos" / "green", "green")
        tar.add(base / "photos" / "blue", "blue")
    fb.predict(tmp_path / "photos.tar", tmp_path / "predictions", base / "model", fb.PredictConfig(shard_size=8))
    review = Review(tmp_path / "predictions", tmp_path / "labels.csv")
    rows = review.view("uncertain")["rows"]
    assert len(rows) == 20
    for photo in review.photos(rows):
        shown = cv2.imdecode(np.frombuffer(review.thumbnail(photo["row"]), np.uint8), cv2.IMREAD_COLOR)
        kind = "blue" if "/blue/" in photo["path"].replace("!", "/") else "green"
        assert {"blue": 0, "green": 1}[kind] == shown.reshape(-1, 3).mean(0).argmax(), photo["path"]
    assert review.commands() == [] and "encode" in review.state()["why_not"]
    review.journal.close()


def test_a_path_that_predictions_were_made_to_name_is_not_read(base, tmp_path):
    """Whoever can write the predictions still gets nothing from outside the photos' folder."""
    review = Review(base / "predictions", tmp_path / "labels.csv")
    image = review._image(0, "red/0001.png")
    assert not review._photos.leads_outside(image)
    for path in ("../secret/red/0000.png", "/etc/passwd", "red/../../secret/red/0000.png", "//bytes/..%2Fsecret"):
        assert review._photos.leads_outside(replace(image, path=path)), path
    review.journal.close()


def test_views_are_in_the_order_that_they_promise(base, tmp_path):
    review = Review(base / "predictions", tmp_path / "labels.csv")
    sure = [photo["probability"] for photo in review.photos(review.view("uncertain")["rows"])]
    assert sure == sorted(sure) and len(sure) == 31
    first = review.view("uncertain")["rows"][0]
    review.label([first], ["blue"])
    assert first not in review.view("uncertain")["rows"] and review.view("labelled")["rows"] == [first]
    assert first in review.view("class", "blue")["rows"]
    others = review.photos(review.view("class", "green")["rows"])
    assert all((photo["label"] or photo["prediction"]) == "green" for photo in others)
    review.label([first], [None])
    assert review.photos([first])[0]["label"] == review.photos([first])[0]["prediction"]
    review.undo()
    assert review.photos([first])[0]["label"] == "blue"
    review.undo()
    assert review.view("labelled")["rows"] == [] and first in review.view("uncertain")["rows"]
    review.journal.close()


def test_models_and_predictions_from_a_review_have_names_of_their_own(base, tmp_path):
    assert [_next(name) for name in ("m", "m/", "m-corrected", "m-corrected-2", "a-corrected/m")] == [
        "m-corrected",
        "m-corrected",
        "m-corrected-2",
        "m-corrected-3",
        "a-corrected/m-corrected",
    ]
    review = Review(base / "predictions", tmp_path / "labels.csv")
    train, predict = review.commands()
    assert (
        f"{base}/model-corrected" in train and f"{base}/predictions-corrected --model {base}/model-corrected" in predict
    )
    review.journal.close()


def test_labels_that_a_classifier_was_trained_on_are_kept_when_it_was_trained_anew(base, tmp_path):
    """The model folder is another than that which made the predictions, and its labels still count."""
    shutil.copytree(base / "model", tmp_path / "model")
    shutil.copytree(base / "predictions", tmp_path / "predictions")
    job = json.loads((base / "predictions" / "job.json").read_text())
    (tmp_path / "predictions" / "job.json").write_text(json.dumps(job | {"model": str(tmp_path / "model")}))
    fb.train(base / "codes", tmp_path / "model", fb.TrainConfig(head="mlp"))
    review = Review(tmp_path / "predictions", tmp_path / "labels.csv")
    assert review.model is None and "--labels folder --labels" in review.commands()[0]
    review.journal.close()


def test_several_labels_are_one_change_and_failed_photos_get_none(base, tmp_path):
    review = Review(base / "predictions", tmp_path / "labels.csv")
    rows = review.view("uncertain")["rows"][:3]
    assert review.label(rows, ["red", None, "a"])["skipped"] == 0
    told = review.photos(rows)
    assert [photo["label"] for photo in told] == ["red", told[1]["prediction"], "a"]
    review.undo()
    assert [photo["label"] for photo in review.photos(rows)] == [None] * 3
    review.journal.close()
