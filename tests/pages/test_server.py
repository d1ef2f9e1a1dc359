"""The review's server answers only its own page, and only with what that page shows."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np
import pytest
from archive_runs import predict_with_link
from browsing import command, enter, serving
from helpers import descendants, poisonous

import flowers_batch as fb
from flowers_batch.classifier.labels_file import read_labels
from flowers_batch.pages.review.guard import Guard

pytestmark = pytest.mark.usefixtures("in_threads")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Folders `codes`, `model` and `predictions` of 31 photos, one of them outside the photos' folder."""
    return predict_with_link(tmp_path_factory.mktemp("server"))


@dataclass(frozen=True)
class Client:
    """Sends requests with any headers.

    Attributes:
        url: The address with the token.
        page: The path of the page.
        cookie: What the address with the token gave.
    """

    url: str
    page: str = ""
    cookie: str = ""

    @classmethod
    def entered(cls, url: str) -> Client:
        """Return a client that has opened the address with the token."""
        return cls(url, *enter(url))

    @property
    def origin(self) -> str:
        return self.url.partition("/?")[0]

    def open(self, **headers: str) -> tuple[int, dict[str, str], bytes]:
        return self.request(self.url.removeprefix(self.origin), **headers)

    def request(
        self, path: str, body: Any = None, method: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        where = urlsplit(self.url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=20)
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        own = {"Cookie": self.cookie} | ({"Origin": self.origin} if data is not None else {})
        connection.putrequest(method or ("GET" if data is None else "POST"), path, skip_host="Host" in headers)
        for name, value in (own | headers | ({"Content-Length": str(len(data))} if data is not None else {})).items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(data)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    def __call__(self, name: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        return self.request(self.page + name, body, **headers)


@pytest.fixture(scope="module")
def shared(base, tmp_path_factory):
    """A client of one server for all tests that label nothing."""
    with serving(base / "predictions", tmp_path_factory.mktemp("shared") / "labels.csv") as url:
        yield Client.entered(url)


@pytest.fixture
def client(base, tmp_path):
    with serving(base / "predictions", tmp_path / "labels.csv") as url:
        yield Client.entered(url)


def test_static_files_have_security_headers(shared):
    for name, kind in (
        ("", "text/html"),
        ("review.js", "text/javascript"),
        ("grid.js", "text/javascript"),
        ("review.css", "text/css"),
    ):
        status, headers, content = shared(name)
        assert status == 200 and headers["content-type"].startswith(kind) and content
        assert "default-src 'none'" in headers["content-security-policy"] and "unsafe" not in str(headers)
        assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
        assert headers["x-frame-options"] == "DENY" and headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == headers["cross-origin-opener-policy"] == "same-origin"


def test_only_the_token_gives_the_cookie(shared):
    for _ in range(2):  # after a browser's restart it is to be opened again
        status, headers, content = shared.open(Cookie="", Sec_Fetch_Site="cross-site")
        assert status == 200 and headers["cache-control"] == "no-store" and headers["referrer-policy"] == "no-referrer"
        name, *attributes = headers["set-cookie"].split("; ")
        assert name.startswith(f"flowers-review-{urlsplit(shared.url).port}=") and len(name) > 50
        assert attributes == [f"Path={shared.page}", "HttpOnly", "SameSite=Strict"]
        token = parse_qs(urlsplit(shared.url).query)["token"][0]
        assert token not in str(headers) + content.decode() + shared.page and len(token) == 32
    for query in (
        "",
        "?",
        "?token=",
        "?token",
        f"?token={token[:-1]}",
        f"?token={token}x",
        "?token=%c3%b6",
        "?token=x&y",
    ):
        status, headers, _ = shared.request(f"/{query}", Cookie="")
        assert status == 403 and "set-cookie" not in headers, query
    assert shared.request(f"/?token={token}", {}, Cookie="")[0] == 403, "only for reading"


def test_requests_without_the_cookie_are_refused_and_their_connection_closed(shared):
    name, _, value = shared.cookie.partition("=")
    paths = (
        "/",
        "/review.js",
        "/api/state",
        f"/{'x' * 32}/",
        shared.page[:-1],
        "/" + shared.page,
        shared.page + "api/state",
    )
    for path in paths:
        for cookie in ("", f"{name}=", f"{name}={value[:-1]}", f"{name}={value}x", f"other={value}", value, "=;;=\xff"):
            status, headers, content = shared.request(path, Cookie=cookie)
            assert status == 403 and headers["connection"] == "close", (path, cookie)
            assert b"printed" in content
    for path in paths[:-1]:
        assert shared.request(path)[0] == 403, path
    assert shared("api/label", {"rows": [0], "labels": "red"}, Cookie="")[0] == 403
    assert shared("api/state", Cookie=f"{name}=planted; a=b; {shared.cookie}")[0] == 200


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
def test_pages_of_other_ports_and_sites_are_refused(shared, site):
    """The browser sends a `SameSite=Strict` cookie with requests of pages on another port of the same machine."""
    for name in ("", "api/state", "review.js", "thumbnail/0"):
        assert shared(name, Sec_Fetch_Site=site)[0] == 403, name
    assert shared("api/label", {"rows": [0], "labels": "red"}, Sec_Fetch_Site=site)[0] == 403
    assert shared("api/state", Sec_Fetch_Site="same-origin")[0] == shared("", Sec_Fetch_Site="none")[0] == 200


@pytest.mark.parametrize("host", ["localhost:1", "evil.example", "127.0.0.1", "127.0.0.1:1", ""])
def test_other_hosts_are_refused(shared, host):
    assert shared("api/state", Host=host)[0] in (400, 403)
    assert shared.open(Host=host)[0] in (400, 403)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1", "https://127.0.0.1"])
def test_other_origins_are_refused(shared, origin):
    assert shared("api/state", Origin=origin)[0] == 403
    assert shared("api/label", {"rows": [0], "labels": "red"}, Origin=origin)[0] == 403
    status, _, content = shared("api/state")
    assert status == 200 and json.loads(content)["labelled"] == 0


def test_changes_need_an_origin_and_post(shared):
    assert shared("api/label", {"rows": [0], "labels": "red"}, Origin="")[0] == 403
    assert shared.request(shared.page + "api/label", method="GET")[0] == 405
    assert shared.request(shared.page + "api/state", method="PUT")[0] == 403
    assert shared.request(shared.page + "api/state", method="PUT", Origin=shared.origin)[0] == 405


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
        "../application.py",
        "photos/red/0000.png",
    ],
)
def test_no_path_reaches_the_file_system(shared, name):
    status, _, content = shared(name)
    assert status in (403, 404) and b"root:" not in content


def test_thumbnail_is_small_and_never_from_outside(shared):
    rows = json.loads(shared("api/view?name=uncertain")[2])["rows"]
    photos = {photo["path"]: photo for photo in json.loads(shared("api/photos", {"rows": rows})[2])}
    assert len(photos) == 31
    status, headers, content = shared(f"thumbnail/{photos['red/0001.png']['row']}")
    assert status == 200 and headers["content-type"] == "image/webp" and content[:4] == b"RIFF"
    assert headers["cache-control"] == "no-store"
    shown = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert abs(shown.reshape(-1, 3).mean(0) - (40, 40, 200)).max() < 12
    status, _, content = shared(f"thumbnail/{photos['red/link.png']['row']}")
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
        {"rows": [0], "labels": "x" * 256},
        {"rows": [0], "labels": "\ud800"},
        {"rows": [0], "labels": "nul\0"},
        {"rows": [0], "labels": [3]},
    ],
)
def test_invalid_bodies_are_refused_and_change_nothing(shared, body):
    status, _, content = shared("api/label", body)
    assert status == 400 and json.loads(content)["error"].endswith(".")
    assert json.loads(shared("api/state")[2])["labelled"] == 0


def test_too_large_requests_are_refused(shared):
    body = b'{"rows": [0], "labels": "red"}'
    assert shared("api/label", body + b" " * (4 << 20))[0] == 400


def test_too_many_rows_are_refused(shared):
    assert shared("api/label", {"rows": [0] * 100_001, "labels": "red"})[0] == 400
    status, _, content = shared("api/photos", {"rows": [0] * 501})
    assert status == 400 and "500" in json.loads(content)["error"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("label", {"rows": [0], "labels": "red", "chosen": "lottery"}),
        ("label", {"rows": [0, 1], "labels": "red", "chosen": ["random"]}),
        ("label", {"rows": [0], "labels": "red", "chosen": None}),
        ("similar", {"rows": []}),
        ("similar", {"rows": [0] * 101}),
        ("similar", {"rows": [0], "count": 10**9}),
        ("similar", {"rows": [0], "count": "5"}),
        ("similar", {"rows": [10**30]}),
        ("split", {}),
        ("split", {"id": True}),
        ("split", {"id": 10**30}),
        ("photo/31000", None),
        ("photo/x", None),
        ("photo/" + "9" * 5000, None),
        ("view?name=all&low=2", None),
        ("groups?labelled=maybe", None),
        ("view?name=all&search=" + "x" * 1001, None),
    ],
)
def test_values_out_of_bounds_are_refused_with_a_sentence(shared, path, body):
    status, _, content = shared(f"api/{path}", body)
    assert status == 400 and json.loads(content)["error"].endswith(".")
    assert json.loads(shared("api/state")[2])["labelled"] == 0


def test_large_pictures_are_made_in_three_sizes(shared):
    (row,) = (row for row in range(32) if json.loads(shared(f"api/photo/{row}")[2])["path"] == "red/0001.png")
    for edge in ("", "?edge=800", "?edge=2400"):
        status, headers, content = shared(f"large/{row}{edge}")
        assert status == 200 and headers["content-type"] == "image/webp" and headers["cache-control"] == "no-store"
        shown = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        assert max(shown.shape) < 60, "it is not enlarged"
        assert abs(shown.reshape(-1, 3).mean(0) - (40, 40, 200)).max() < 12
    for name in (f"{row}?edge=801", f"{row}?edge=1600000", f"{row}?edge=x", "x", "-1", "99999"):
        assert shared(f"large/{name}")[0] == 404, name
    outside = next(row for row in range(32) if json.loads(shared(f"api/photo/{row}")[2])["path"] == "red/link.png")
    status, _, content = shared(f"large/{outside}")
    assert status == 404 and b"outside" in content


def test_label_is_quick_while_searches_and_large_pictures_are_slow(client, monkeypatch):
    """Each has a lane of its own; of too many, some are to be requested again."""
    hold, started = threading.Event(), []

    def wait(*_: Any, **__: Any) -> Any:
        started.append(1)
        hold.wait(20)
        return b"RIFF"

    monkeypatch.setattr("flowers_batch.pages.review.row_images.RowImages.large", wait)
    monkeypatch.setattr("flowers_batch.pages.review.similar_photos.SimilarPhotos.nearest", lambda *_: wait() and {})
    with ThreadPoolExecutor(70) as executor:
        similar = [executor.submit(client, "api/similar", {"rows": [0]}) for _ in range(30)]
        large = [executor.submit(client, "large/0") for _ in range(30)]
        while len(started) < 3:
            time.sleep(0.01)
        time.sleep(0.2)
        began = time.monotonic()
        for _ in range(5):
            assert client("api/label", {"rows": [0], "labels": "red"})[0] == 200
            assert client("api/view?name=all")[0] == client("api/groups")[0] == 200
        seconds = time.monotonic() - began
        hold.set()
        assert {each.result()[0] for each in similar} == {each.result()[0] for each in large} == {200, 503}
    assert seconds < 5


@pytest.mark.slow
def test_report_is_served_once_it_is_there_with_a_strict_policy(client, monkeypatch, tmp_path):
    assert client("report")[0] == 404 and json.loads(client("api/finish")[2])["state"] == "idle"
    predicted = []

    def predict(_: Any, codes: str, out: str, model: str, reporter: Any) -> None:
        predicted.append(out)
        fb.predict(codes, out, model)

    monkeypatch.setattr("flowers_batch.pages.review.prediction_process.PredictionProcess.predict", predict)
    assert client("api/finish", {}, Origin="")[0] == 403
    assert client("api/label", {"rows": [0, 1, 2], "labels": ["red", "green", "<blue>"], "chosen": "random"})[0] == 200
    assert json.loads(client("api/finish", {})[2])["state"] == "running"
    while (status := json.loads(client("api/finish")[2]))["state"] == "running":
        time.sleep(0.02)
    assert status["state"] == "done", status
    result = status["result"]
    assert predicted == [result["predictions"]] and result["report"] == f"{result['predictions']}/report.html"
    assert fb.verify(result["predictions"]).is_complete and (Path(result["model"]) / "head.safetensors").exists()
    status, headers, content = client("report")
    assert status == 200 and headers["content-type"].startswith("text/html") and b"<h1>" in content
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script" not in policy and "sandbox" in policy
    assert headers["x-frame-options"] == "DENY" and headers["cache-control"] == "no-store"
    assert client("report", Cookie="")[0] == 403 and client("report", Sec_Fetch_Site="cross-site")[0] == 403


def test_label_is_quick_while_thumbnails_and_views_are_slow(client, monkeypatch):
    """Of 200 thumbnails requested at once, those for which there is no place are to be requested again."""
    hold, decoding = threading.Event(), []

    def make(*_: Any) -> bytes:
        decoding.append(1)
        hold.wait(20)
        return b"RIFF"

    monkeypatch.setattr("flowers_batch.pages.thumbnails.ThumbnailPool.make", make)
    monkeypatch.setattr("flowers_batch.classifier.suggestions.suggest", lambda *_, **__: hold.wait(20) and [])
    rows = json.loads(client("api/view?name=class&label=green")[2])["rows"]
    with ThreadPoolExecutor(220) as executor:
        views = [executor.submit(client, "api/view?name=suggestions") for _ in range(8)]
        thumbnails = [executor.submit(client, f"thumbnail/{rows[n % len(rows)]}") for n in range(200)]
        while not decoding:
            time.sleep(0.01)
        time.sleep(0.3)
        started = time.monotonic()
        for _ in range(5):
            assert client("api/label", {"rows": rows[:1], "labels": "red"})[0] == 200
        seconds = time.monotonic() - started
        hold.set()
        answers = [each.result() for each in thumbnails]
        assert {each.result()[0] for each in views} == {200}
    assert seconds < 1
    refused = [headers for status, headers, _ in answers if status == 503]
    assert {status for status, *_ in answers} == {200, 503}
    assert refused and all(headers["retry-after"] == "1" for headers in refused)


@pytest.mark.faults
def test_server_outlives_photos_and_no_process_outlives_the_server(base, tmp_path, monkeypatch):
    """A photo that crashes the process that decodes it has no thumbnail; the others have one."""
    photo = base / "photos" / "blue" / "0003.png"
    before = photo.read_bytes()
    monkeypatch.setenv("PYTHONPATH", poisonous(tmp_path / "poison"))
    with command(base / "predictions", tmp_path / "labels.csv") as (url, server):
        client = Client.entered(url)
        paths = [each["path"] for each in json.loads(client("api/photos", {"rows": [*range(31)]})[2])]
        photo.write_bytes(b"POISON crash")
        try:
            status, _, content = client(f"thumbnail/{paths.index('blue/0003.png')}")
        finally:
            photo.write_bytes(before)
        assert (status, content) == (404, b"Decoding it ends the process with SIGSEGV.")
        assert client(f"thumbnail/{paths.index('blue/0004.png')}")[0] == 200
        started = descendants(server.pid)
        assert len(started) > 1
        server.kill()
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{process}").exists() for process in started):
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.faults
def test_killed_review_of_codes_goes_on_and_is_finished(base, tmp_path):
    """All labels are there after kill -9, the classifier is fitted again, and the end is the report on all photos."""
    codes = shutil.copytree(base / "codes", tmp_path / "codes")
    labels = tmp_path / "labels.csv"

    def until(client: Client, name: str, is_reached: Callable[[Any], bool]) -> Any:
        deadline = time.monotonic() + 120
        while not is_reached(answer := json.loads(client(f"api/{name}")[2])):
            assert time.monotonic() < deadline, answer
            time.sleep(0.05)
        return answer

    with command(codes, labels) as (url, server):
        client = Client.entered(url)
        assert until(client, "groups?labelled=no", lambda found: "groups" in found)["groups"]
        for row in range(32):
            photo = json.loads(client(f"api/photo/{row}")[2])
            if photo["width"]:
                kind = photo["path"].partition("/")[0]
                assert client("api/label", {"rows": [row], "labels": kind, "chosen": "random"})[0] == 200
        server.kill()
    assert len(read_labels(str(labels)).labels) == 31
    with command(codes, labels) as (url, server):
        client = Client.entered(url)
        state = until(client, "state", lambda state: state["fit"]["number"] and not state["fit"]["running"])
        assert state["labelled"] == state["fit"]["labels"] == 31 and state["fit"]["accuracy"]["photos"] > 20
        assert state["class_counts"] == {"blue": 10, "green": 10, "red": 11}
        client("api/finish", {})
        finished = until(client, "finish", lambda status: status["state"] in ("done", "failed"))
        assert finished["state"] == "done", finished
        assert client("report")[0] == 200
        server.send_signal(signal.SIGINT)
        assert server.stdout
        commands = server.stdout.read().splitlines()
    assert finished["result"]["predictions"] == str(tmp_path / "predictions")
    assert fb.verify(tmp_path / "predictions").is_complete
    assert commands == [
        f"flowers-batch train {codes} {tmp_path}/model --labels {labels}",
        f"flowers-batch predict {codes} {tmp_path}/predictions --model {tmp_path}/model",
    ]


def test_views_that_take_long_are_computed_once_for_all_requests(client, monkeypatch):
    """Possible label errors once per training, suggestions once until labels change, and never two at a time."""
    running, started = threading.Semaphore(1), []

    def compute(name: str, found: list[dict[str, Any]]) -> Any:
        def work(*_: Any, **__: Any) -> list[dict[str, Any]]:
            assert running.acquire(blocking=False), "two at a time"
            started.append(name)
            time.sleep(0.1)
            running.release()
            return found

        return work

    issue = {"path": "red/0001.png", "label": "red", "suggested": "blue", "probability": 0.9}
    monkeypatch.setattr("flowers_batch.classifier.label_issues.label_issues", compute("label_issues", [issue]))
    monkeypatch.setattr(
        "flowers_batch.classifier.suggestions.suggest", compute("suggestions", [{"path": "red/0002.png"}])
    )

    def view(name: str) -> dict[str, Any]:
        while "computing" in (found := json.loads(client(f"api/view?name={name}")[2])):
            time.sleep(0.01)
        return found

    with ThreadPoolExecutor(16) as executor:
        found = [*executor.map(view, ["label_issues", "suggestions"] * 8)]
    assert all(len(each["rows"]) == 1 for each in found), found
    assert found[0]["suggested"] == {str(found[0]["rows"][0]): ["blue", 0.9]}
    assert sorted(started) == ["label_issues", "suggestions"]
    client("api/label", {"rows": [0], "labels": "red"})
    assert len(view("suggestions")["rows"]) == len(view("label_issues")["rows"]) == 1
    client("api/undo", {})
    view("suggestions")
    assert sorted(started) == ["label_issues", *["suggestions"] * 3]


def test_unknown_views_are_refused(shared):
    status, _, content = shared("api/view?name=everything")
    assert status == 400 and "uncertain" in json.loads(content)["error"]


def test_port_or_file_in_use_and_other_folders_are_refused(client, base, tmp_path):
    with pytest.raises(fb.InputError, match="is in use"):
        fb.review(base / "predictions", tmp_path / "other.csv", urlsplit(client.url).port or 0, open_browser=False)
    with pytest.raises(fb.InputError, match="by another review"):
        fb.review(base / "predictions", tmp_path / "labels.csv", open_browser=False)
    for name in ("model", "photos", "nowhere"):
        with pytest.raises(fb.InputError, match="neither codes nor predictions"):
            fb.review(base / name, tmp_path / "more.csv", open_browser=False)


def test_guard_passes_only_http():
    async def never(*_: Any) -> None:
        raise AssertionError

    # No `asyncio.run`: the browser's tests leave a loop that runs.
    answer = Guard(never, "http://127.0.0.1:1")({"type": "websocket"}, never, never)
    with pytest.raises(StopIteration):
        answer.send(None)


def test_address_for_a_single_use_works_once():
    """It is what the browser that the command starts is given, and remains in its history."""

    async def never(*_: Any) -> None:
        raise AssertionError

    guard, statuses = Guard(never, "http://127.0.0.1:1"), []

    async def send(message: Any) -> None:
        statuses.append(message.get("status"))

    for url in (guard.single_use_url, guard.single_use_url, guard.url, guard.url):
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "query_string": urlsplit(url).query.encode(),
            "headers": [(b"host", b"127.0.0.1:1")],
        }
        with pytest.raises(StopIteration):
            guard(scope, never, send).send(None)
    assert [status for status in statuses if status] == [200, 403, 200, 200]
