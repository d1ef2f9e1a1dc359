from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from decode_pools import IMAGE_TIMEOUT, SECONDS, Photos, good, open_pool
from helpers import encoded, random_pixels
from scripted_photos import READ, script, tries_of

from flowers_batch.decoding import watch, worker_process
from flowers_batch.errors import RunError


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Iterator[Photos]:
    """A pool for all tests that leave it working, which is every pool's promise."""
    folder = tmp_path_factory.mktemp("photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker_process, "_TICK_SECONDS", 0.1)
        with open_pool(folder) as pool:
            yield Photos(folder, pool)


PHOTO = encoded(random_pixels(8, 9, seed=1000))


def test_pixels_and_rows_are_those_of_each_image(photos):
    files = good(16)
    assert photos.failures(files) == {}
    rows = photos.submit(files, 40).result(SECONDS).rows
    assert rows["bytes"].to_pylist() == [len(data) for data in files.values()]
    assert photos.pool.slots[40:56].any(axis=(1, 2, 3)).all()
    assert not photos.pool.slots[56:].any()


def test_image_that_crashes_the_decoder_twice_fails_alone(photos, tmp_path):
    kinds = {"SIGSEGV": 11, "SIGBUS": 7, "SIGABRT": 6}
    bad = {name: script(f"tried('{tmp_path / name}'); os.kill(os.getpid(), {n})") for name, n in kinds.items()}
    bad["exit"] = script(f"tried('{tmp_path / 'exit'}'); os._exit(3)")
    ways = {**{name: name for name in kinds}, "exit": "exit code 3"}
    assert photos.failures(good(5) | bad | good(5, 5)) == {
        name: ("crashed_decoder", f"Decoding it ends the process with {way}.") for name, way in ways.items()
    }
    assert [tries_of(tmp_path / name) for name in bad] == [2, 2, 2, 2]


def test_image_that_crashes_the_decoder_once_is_encoded(photos, tmp_path):
    code = f"import glob; first = not glob.glob('{tmp_path}/a-*'); tried('{tmp_path}/a'); first and os.abort()"
    assert photos.failures(good(3) | {"once.png": script(code, PHOTO)} | good(3, 3)) == {}
    assert tries_of(tmp_path / "a") == 2


@pytest.mark.faults
def test_cpu_time_used_up_is_a_timeout_at_once(photos, tmp_path):
    native = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
    bad = {"spin": f"tried('{tmp_path}/spin')\nwhile True: pass", "native": f"tried('{tmp_path}/native'); {native}"}
    expected = "timeout", "Decoding it takes more than 1 seconds of CPU time."
    files = good(3) | {name: script(code) for name, code in bad.items()} | good(3, 3)
    assert photos.failures(files) == dict.fromkeys(bad, expected)
    assert [tries_of(tmp_path / name) for name in bad] == [1, 1]


@pytest.mark.faults
def test_ten_bad_images_among_a_thousand_cost_ten_limits_and_little_more(photos):
    codes = [
        "while True: pass",
        "os.kill(os.getpid(), 11)",
        "bytearray(1 << 50)",
        "os._exit(3)",
        "for _ in iter(int, 1): pass",
    ]
    groups = [good(50, first) for first in range(0, 1000, 50)]

    def seconds() -> float:
        started = time.monotonic()
        for group in groups:
            reasons = photos.submit(group).result(SECONDS).rows["reason"].to_pylist()
            assert [reason is None for reason in reasons] == [name.startswith("good") for name in group]
        return time.monotonic() - started

    without = seconds()
    for number, (group, code) in enumerate(zip(groups[::2], codes * 2, strict=True)):
        del group[f"good-{100 * number + 20:03d}.png"]
        group[f"bad-{number}.png"] = script(code)
    assert seconds() < without + 10 * IMAGE_TIMEOUT + 30


def test_lack_of_memory_is_too_large_at_once(photos, tmp_path):
    bad = {"huge": script(f"tried('{tmp_path}/huge'); bytearray(1 << 50)")}
    assert photos.failures(good(3) | bad) == {"huge": ("too_large", "It does not fit in memory.")}
    assert tries_of(tmp_path / "huge") == 1


@pytest.mark.faults
def test_hang_gets_one_more_try_and_a_stalled_read_two(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "HANG_SECONDS", 0.5)
    monkeypatch.setattr(watch, "READ_SECONDS", 1.0)
    stall = script(f"tried('{tmp_path}/stall'); time.sleep(3600)", when=READ)
    hang = script(f"tried('{tmp_path}/hang'); time.sleep(3600)")
    assert photos.failures(good(2) | {"stall": stall, "hang": hang} | good(2, 2)) == {
        "stall": ("unreadable", "Reading it takes more than 1 seconds."),
        "hang": ("timeout", "Decoding it waits for ever."),
    }
    assert (tries_of(tmp_path / "stall"), tries_of(tmp_path / "hang")) == (3, 2)


@pytest.mark.faults
def test_slow_read_or_machine_condemns_nothing(photos, tmp_path, monkeypatch):
    """Neither reading for longer than decoding may take, nor decoding that rarely gets the processor."""
    monkeypatch.setattr(watch, "HANG_SECONDS", 1.5)
    slow = script(f"tried('{tmp_path}/slow'); time.sleep(1.3 * {IMAGE_TIMEOUT})", PHOTO, READ)
    code = f"tried('{tmp_path}/rare')\nfor _ in range(7):\n time.sleep(0.3); end = time.process_time() + 0.03\n"
    code += " while time.process_time() < end: pass"
    assert photos.failures({"slow": slow, "rare": script(code, PHOTO)}) == {}
    assert (tries_of(tmp_path / "slow"), tries_of(tmp_path / "rare")) == (1, 1)


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (40, "signal 40")])
def test_fifth_kill_in_a_row_ends_in_a_sentence(photos, tmp_path, number, name):
    bad = {f"kill-{number}.png": script(f"tried('{tmp_path}/kill'); os.kill(os.getpid(), {number})")}
    expected = rf"^The process that decodes kill-{number}.png was killed 5 times in a row \({name}\): .* again\.$"
    with pytest.raises(RunError, match=expected):
        photos.submit(good(3) | bad).result(SECONDS)
    assert tries_of(tmp_path / "kill") == 5
    assert photos.failures(good(3)) == {}


def test_crash_after_the_last_image_of_a_group_fails_one_image(photos):
    """As when an image damages the heap, and the process finds out later."""
    bad = {"later.png": script("answer_with(lambda answer: os.abort())", PHOTO)}
    expected = "crashed_decoder", "Decoding it ends the process with SIGABRT."
    assert photos.failures(good(3) | bad | good(3, 3)) == {"later.png": expected}


LIES = {
    "other group": "answer_with(lambda a: groups._ANSWER.pack(0, a.number + 1, b'D', 0, 0))",
    "too large": "answer_with(lambda a: groups._ANSWER.pack(1 << 31, a.number, b'D', 0, 0))",
    "a pickle": "import pickle; data = pickle.dumps(os.system); "
    "answer_with(lambda a: groups._ANSWER.pack(len(data), a.number, b'D', 0, 0) + data)",
    "endless": "answer_with(lambda a: bytes(1 << 20))",
    "ends early": "answer_with(lambda a: groups._ANSWER.pack(99, a.number, b'D', 0, 0)); "
    "groups.receive_request = None; threading.Timer(0.3, lambda: os._exit(0)).start()",
    "says nothing": "answer_with(lambda a: groups._ANSWER.pack(0, a.number, b'B', 0, 0))",
}


def test_worker_that_answers_nonsense_costs_one_image(photos):
    expected = "crashed_decoder", "Decoding it ends the process"
    found = photos.failures(good(2) | {name: script(code, PHOTO) for name, code in LIES.items()} | good(2, 2))
    assert {name: (reason, message[: len(expected[1])]) for name, (reason, message) in found.items()} == dict.fromkeys(
        LIES, expected
    )


@pytest.mark.faults
def test_worker_that_answers_nothing_is_replaced(photos, monkeypatch):
    monkeypatch.setattr(watch, "READ_SECONDS", 0.5)
    silent = script("answer_with(lambda a: time.sleep(3600))", PHOTO)
    trickle = "def drip(a):\n while True: os.write(worker.fileno(), b'x'); time.sleep(0.02)\nimport socket, gc\n"
    trickle += "worker = next(s for s in gc.get_objects() if isinstance(s, socket.socket) and s.fileno() >= 0)\n"
    trickle += "answer_with(drip)"
    assert set(photos.failures(good(2) | {"silent": silent, "trickle": script(trickle, PHOTO)})) == {
        "silent",
        "trickle",
    }


def test_bug_of_ours_ends_the_run_with_its_traceback(photos, capfd):
    bad = {"bug.png": script("raise KeyError('ours')")}
    with pytest.raises(
        RunError, match=r"^Decoding stopped because of a bug, on one of 3 images from .*: KeyError: 'ours'\.$"
    ):
        photos.submit(good(2) | bad).result(SECONDS)
    assert "Traceback (most recent call last)" in capfd.readouterr().err
    assert photos.failures(good(3)) == {}


def test_worker_prints_through_its_parent_in_bounded_lines(photos, capfd):
    noise = "os.write(2, b'\\x1b[31m' + b'x' * 10000 + b'\\n'); os.write(1, b'to stdout\\n')"
    assert photos.failures({"loud.png": script(noise, PHOTO)}) == {}
    err = ""
    for _ in range(100):  # its pipe is read by another thread
        out, more = capfd.readouterr()
        err += more
        assert out == ""
        if "to stdout" in err:
            break
        time.sleep(0.05)
    assert "to stdout" in err and "\\u001b[31m" in err
    assert max(map(len, err.splitlines())) < 5000
