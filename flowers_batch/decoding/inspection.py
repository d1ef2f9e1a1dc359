"""Finds the images that end or stall whatever decodes them: a child process tries each, and may die of it.

The child gets one image at a time, as a line of JSON, and answers with another; so the parent knows which image
was in progress when no answer comes. Nothing but these lines passes between them.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from flowers_batch.decoding.decode import decode
from flowers_batch.errors import FlowersError, RunError
from flowers_batch.sources.images import Image
from flowers_batch.sources.opening import open_source

_START_SECONDS = 120.0  # the libraries may be on a slow disk
_END_SECONDS = 10.0  # a large process takes its time to end
_BYTES_PER_PIXEL = 32  # twice what WebP takes, which needs the most
_COPIES = 4  # of a file, that libraries may hold at once
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Unused threads would count as memory.
_ONE_THREAD = {
    "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
}


def find_poison_images(
    url: str,
    root: str | None,
    images: Sequence[Image],
    max_pixels: int,
    seconds: float,
    progress: Callable[[int], None],
) -> dict[str, tuple[str, str]]:
    """Read and decode images in a child process, and return those that end or stall it.

    An image is poisonous if it does so twice, the second time alone in a new process.

    Args:
        url: The source of the images.
        root: What the paths of a list are relative to.
        images: In the order in which they are tried.
        max_pixels: Photos with more are not decoded.
        seconds: Time that an image may take.
        progress: Called after each image with the number of images that are done.

    Returns:
        Reason (`crashed_decoder` or `timeout`) and message of each poisonous image, by path.

    Raises:
        RunError: The child does not start, or the images cannot be read at all.
    """
    memory = max_pixels * _BYTES_PER_PIXEL + _COPIES * max((image.bytes for image in images), default=0)
    source = [url] if root is None else [url, root]
    task = {"source": source, "max_pixels": max_pixels, "memory": memory}
    found: dict[str, tuple[str, str]] = {}
    done = 0
    while done < len(images):
        with _child(task) as child:
            while done < len(images) and not child.fault_of(images[done], seconds):
                done += 1
                progress(done)
        if done < len(images):
            with _child(task) as child:
                fault = child.fault_of(images[done], seconds)
            if fault:
                found[images[done].path] = fault
            done += 1
            progress(done)
    return found


class _Child:
    """The parent's side of a child."""

    def __init__(self, process: subprocess.Popen[bytes]):
        assert process.stdin and process.stdout
        self._process, self._requests, self._answers = process, process.stdin, process.stdout
        self._poll = select.poll()
        self._poll.register(self._answers, select.POLLIN)

    def ask(self, request: dict[str, Any], seconds: float) -> str:
        """Have the child do something, and return its answer: `done` or `out of memory`.

        Raises:
            TimeoutError: There is no answer in time.
            EOFError: The child has ended.
            RunError: The child cannot go on, and says why.
        """
        with contextlib.suppress(BrokenPipeError):  # it has ended: there will be no answer
            self._requests.write(json.dumps(request, default=datetime.isoformat).encode() + b"\n")
        if not self._poll.poll(seconds * 1000):
            raise TimeoutError
        line = self._answers.readline()
        if not line:
            raise EOFError
        answer, error = json.loads(line)
        if error:
            raise RunError(error)
        return answer

    def fault_of(self, image: Image, seconds: float) -> tuple[str, str] | None:
        """Have the child read and decode an image; return reason and message if that ends or stalls it, else None."""
        try:
            answer = self.ask(asdict(image), seconds)
        except TimeoutError:
            return "timeout", f"Reading and decoding it takes more than {seconds:g} seconds."
        except EOFError:
            return "crashed_decoder", f"Decoding it ends the process with {self._end()}."
        return None if answer == "done" else ("crashed_decoder", "Decoding it takes all memory.")

    def _end(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        code = self._process.returncode
        return signal.Signals(-code).name if code and code < 0 else f"exit code {code}"


@contextlib.contextmanager
def _child(task: dict[str, Any]) -> Iterator[_Child]:
    """Start a child that is ready for images; kill it when the block ends."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [sys.executable, "-P", "-m", "flowers_batch.decoding.inspection"],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | _ONE_THREAD | {"PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is the parent's to answer
        ) as process,
    ):
        try:
            child = _Child(process)
            try:
                child.ask(task, _START_SECONDS)
            except (TimeoutError, EOFError):
                raise RunError(
                    f"The process that tries images one by one does not start: {_last_line(errors)}"
                ) from None
            yield child
        finally:
            process.kill()


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    return (errors.read().decode(errors="replace").strip().splitlines() or ["it says nothing."])[-1]


def _serve() -> None:
    """Run the child: answer each line of standard input, until there are no more."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever the libraries print is no answer

    def answer(text: str, error: str | None = None) -> None:
        answers.write(json.dumps([text, error]).encode() + b"\n")

    _end_with_parent()
    try:
        task = json.loads(sys.stdin.readline())
        source = open_source(*task["source"])
        _limit_memory(task["memory"])
        answer("done")
        for line in sys.stdin:
            image = json.loads(line)
            image["mtime"] = datetime.fromisoformat(image["mtime"])
            try:
                decode(source.read(Image(**image)), task["max_pixels"])
                answer("done")
            except FlowersError:
                raise
            except Exception as error:  # becomes a row, or ends the run, where the image is encoded
                answer("out of memory" if isinstance(error.__cause__ or error, MemoryError) else "done")
    except FlowersError as error:
        answer("failed", str(error))


def _end_with_parent() -> None:
    """End this process when the thread that started it ends; on Linux, this process ends even if it hangs."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # crashes are expected: no core dumps
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit_memory(memory: int) -> None:
    """Allow this process `memory` more bytes, but no more than half of what the machine has available."""
    if sys.platform != "linux":
        return
    import psutil  # needed in the child only

    used, available = psutil.Process().memory_info().vms, psutil.virtual_memory().available
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = used + min(memory, available // 2)
    resource.setrlimit(resource.RLIMIT_AS, (soft if hard < 0 else min(soft, hard), hard))
    Path("/proc/self/oom_score_adj").write_text("1000")  # in a container with less memory, it goes first


if __name__ == "__main__":
    _serve()
