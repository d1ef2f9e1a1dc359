from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import threading

import pytest
from decode_pools import SECONDS, Photos, good, open_pool
from scripted_photos import script

from flowers_batch.decoding.sandbox import LARGE_PIXELS, LargePhotoTurns
from flowers_batch.decoding.shared_memory import make_memory_file, map_array

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")

# What a worker is and has, as the message of a row: it can write no file.
_CENSUS = """
import json, resource, sys
from flowers_batch.decoding.errors import DecodeError
def link(handle):
    try:
        return os.readlink(f"/proc/self/fd/{handle}")
    except OSError:  # of the folder that is listed
        return None
def refused(act):
    try:
        return act() and None
    except OSError as error:
        return error.errno
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
limits = {name: resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in ("CORE", "FSIZE", "NOFILE", "AS")}
memory = next(int(handle) for handle in os.listdir("/proc/self/fd") if "decoded images" in (link(handle) or ""))
raise DecodeError("unsupported", json.dumps(CENSUS))
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "there")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("NUMBA_DISABLE_JIT", "1")
        (folder / ".numba_config.yaml").write_text("disable_jit: 1")
        patch.chdir(folder)
        with open_pool(folder / "other") as other, open_pool(folder) as pool:
            Photos(folder / "other", other).failures(good(1))
            yield Photos(folder, pool)


def ask(photos: Photos, name: str, census: str):
    """Return what an expression is in a worker."""
    (found,) = photos.failures({name: script(_CENSUS.replace("CENSUS", census))}).values()
    return json.loads(found[1])


def test_worker_has_no_rights_to_gain_and_writes_no_files(photos):
    assert ask(photos, "rights", 'status["NoNewPrivs"].strip()') == "1"
    limits = ask(photos, "limits", "limits")
    assert limits["CORE"] == limits["FSIZE"] == [0, 0] and limits["NOFILE"][1] <= 1024
    assert 0 < limits["AS"][0] == limits["AS"][1] != resource.RLIM_INFINITY
    write = f"refused(lambda: open('{photos.folder}/written', 'w').write('x' * 99999))"
    assert ask(photos, "write", write) == errno.EFBIG


def test_worker_knows_neither_ray_nor_secrets_of_stores(photos):
    assert ask(photos, "names", '[name for name in os.environ if name.startswith(("RAY_", "AWS_"))]') == []


def test_worker_resizes_by_compiled_code_whatever_the_settings_of_numba(photos):
    compiled = 'len(sys.modules["flowers_batch.decoding.resize_products"]._multiply_rows.signatures)'
    assert ask(photos, "compiled", compiled) == 1


def test_worker_has_only_the_descriptors_that_it_needs(photos):
    """None of the parent's, of another pool's, or of another worker's."""
    links = [link for link in ask(photos, "files", 'list(map(link, os.listdir("/proc/self/fd")))') if link]
    kinds = [link.partition("[")[0].partition(" ")[0].rstrip(":") for link in sorted(links)]
    memory = [link.removeprefix("/memfd:").removesuffix(" (deleted)") for link in links if link.startswith("/memfd:")]
    assert sorted(set(memory)) == ["decode workers", "decoded images"] and len(memory) <= 4  # Python maps a copy
    others = [link for link in links if not link.startswith("/memfd:")]
    assert sorted(link.partition("[")[0] for link in others if "flowers-large-photos" not in link) == [
        "/dev/null",
        "pipe:",
        "pipe:",
        "socket:",
    ]
    assert len(others) == 5 and kinds
    assert len({link for link in links if link.startswith("pipe:")}) == 1


def test_worker_cannot_shrink_the_shared_memory(photos):
    assert ask(photos, "shrink", "refused(lambda: os.ftruncate(memory, 1))") == errno.EPERM
    assert ask(photos, "grow", "refused(lambda: os.ftruncate(memory, 1 << 40))") in (errno.EPERM, errno.EFBIG)


def test_shared_memory_is_seen_by_both_and_has_a_fixed_size():
    handle = make_memory_file(12, "test")
    one, other = (map_array(handle, (3,), "<i4") for _ in range(2))
    one[:] = 1, 2, 3
    assert other.tolist() == [1, 2, 3] and os.fstat(handle).st_size == 12
    os.close(handle)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)


def test_limits_leave_room_for_photos_where_memory_is_scarce(photos):
    assert ask(photos, "memory", 'limits["AS"][0] - 1024 * int(status["VmSize"].split()[0])') > 32 * 9_000_000
    assert photos.submit(good(3)).result(SECONDS).rows["reason"].null_count == 3


_HOLD = """
import os, sys, time
from flowers_batch.decoding.sandbox import LARGE_PIXELS, LargePhotoTurns
handle = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
with LargePhotoTurns(handle, lambda: None, lambda: None).hold(LARGE_PIXELS + 1):
    print("held", flush=True)
    time.sleep(3600)
"""


def test_large_photos_take_turns_that_end_with_their_process(tmp_path):
    file = tmp_path / "lock"
    seen: list[str] = []
    handle = os.open(file, os.O_RDWR | os.O_CREAT)
    turns = LargePhotoTurns(handle, lambda: seen.append("waiting"), lambda: seen.append("decoding"))

    def decode_large() -> None:
        with turns.hold(LARGE_PIXELS + 1):
            pass

    with subprocess.Popen([sys.executable, "-c", _HOLD, str(file)], stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline() == b"held\n"
        with turns.hold(LARGE_PIXELS):
            assert not seen
        thread = threading.Thread(target=decode_large)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive() and seen == ["waiting"]
        other.kill()
        thread.join(SECONDS)
    assert seen == ["waiting", "decoding"]
    os.close(handle)
