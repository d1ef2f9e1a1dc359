"""The parent's side of the fork server and of one decode worker."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import psutil

from flowers_batch.decoding.fork_server import KILL, READY, START
from flowers_batch.decoding.groups import Answer, receive_answer
from flowers_batch.errors import RunError
from flowers_batch.text import visible

_START_SECONDS = 120.0  # the libraries may be on a slow disk
_END_SECONDS = 10.0  # a large process takes its time to end
_TICK_SECONDS = 1.0
_RECEIVED_BYTES = 1 << 16  # at once: mostly an answer and its head
_SERVER = "flowers_batch.decoding.fork_server"
_KEPT_LINES, _LINE_BYTES = 20, 4096  # of what the server and its workers print
_LAUNCHES = 5  # in a row, of a server that is killed while it starts
# Unused threads would count as memory.
_ONE_THREAD = {
    "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    "TOKIO_WORKER_THREADS": "1",  # of obstore
}
# Beginnings of variables that workers have no use for (with Numba's they would resize without compiled code, or not at
# all); those of stores only where photos are in one.
_HIDDEN, _STORES = ("RAY_", "NUMBA_"), ("AWS_", "AZURE_", "GOOGLE_")


class WorkerEnd(Exception):
    """A worker has ended.

    Attributes:
        code: Its exit code, or the signal that ended it as a negative number; None if nobody knows, since the fork
            server has ended too.
        kind: What it was given up for; None if it ended by itself.
    """

    def __init__(self, code: int | None, kind: str | None = None):
        super().__init__(code, kind)
        self.code, self.kind = code, kind


class WorkerProcess:
    """A decode worker.

    Args:
        channel: Where requests go to and answers come from.
        control: Where its process number and its exit code come from, and by which it is killed.
    """

    def __init__(self, channel: socket.socket, control: socket.socket):
        self._channel, self._control, self._received = channel, control, bytearray()
        self._next_tick = 0.0
        channel.settimeout(_TICK_SECONDS)
        control.settimeout(_START_SECONDS)
        self._process = int.from_bytes(self._hear() or b"", "little")

    def send(self, data: bytes, tick: Callable[[], None]) -> None:
        """Send a request.

        Args:
            data: As `Request.encode` returns it.
            tick: Called every second.
        """
        view = memoryview(data)
        while view:
            try:
                view = view[self._channel.send(view) :]
            except TimeoutError:
                if self._has_ended(tick):
                    return  # receiving says so
            except (BrokenPipeError, ConnectionResetError):
                return

    def receive(self, tick: Callable[[], None]) -> Answer:
        """Return the next answer.

        Args:
            tick: Called every second.

        Raises:
            WorkerEnd: The worker has ended.
            BrokenAnswerError: It sends something else.
        """

        def read(size: int) -> bytes | None:
            while len(self._received) < size:
                try:
                    part = self._channel.recv(_RECEIVED_BYTES)
                except TimeoutError:
                    if self._has_ended(tick):
                        return None
                    continue
                except ConnectionResetError:
                    return None
                if not part:
                    return None
                self._received += part
                self._tick(tick)  # it may send little at a time, for ever
            data = bytes(self._received[:size])
            del self._received[:size]
            return data

        answer = receive_answer(read)
        if answer is None:
            raise WorkerEnd(self.end())
        return answer

    def _has_ended(self, tick: Callable[[], None]) -> bool:
        """Tick; return whether the worker has ended: a fork of this process may keep its end of the channel open."""
        self._tick(tick)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        return bool(poll.poll(0))

    def _tick(self, tick: Callable[[], None]) -> None:
        if (now := time.monotonic()) >= self._next_tick:
            self._next_tick = now + _TICK_SECONDS
            tick()

    def cpu_seconds(self) -> float:
        """Return the CPU time that the worker has used; 0 if it has ended."""
        with suppress(psutil.Error):
            used = psutil.Process(self._process).cpu_times()
            return used.user + used.system
        return 0.0

    def kill(self) -> None:
        """Kill the worker."""
        with suppress(OSError):
            self._control.sendall(KILL)

    def end(self) -> int | None:
        """Close the connection, and return the worker's exit code as `WorkerEnd` has it; kill it if it goes on.

        Called again, it returns None.
        """
        self._channel.close()
        if self._control.fileno() < 0:
            return None
        self._control.settimeout(_END_SECONDS)
        heard = None
        for _ in range(2):
            with suppress(TimeoutError):
                heard = self._hear()
                break
            self.kill()
        self._control.close()
        return int.from_bytes(heard, "little") - 256 if heard else None

    def _hear(self) -> bytes | None:
        with suppress(ConnectionResetError):
            return self._control.recv(8, socket.MSG_WAITALL) or None
        return None


class ForkServerProcess:
    """A fork server, which is started again if it ends; many threads may start workers.

    Args:
        setup: What every worker is told.
        handles: Descriptors that the workers inherit.
        may_read_stores: Whether workers need the secrets of stores, since images may be in one.
    """

    def __init__(self, setup: bytes, handles: Sequence[int], may_read_stores: bool):
        self._setup, self._handles = setup, handles
        self._hidden = _HIDDEN if may_read_stores else _HIDDEN + _STORES
        self._lock = threading.Lock()
        self._printed: deque[str] = deque(maxlen=_KEPT_LINES)
        self._is_closed = False
        self._launch()

    def start_worker(self, index: int) -> WorkerProcess:
        """Start a worker.

        Raises:
            RunError: The server does not start.
        """
        with self._lock:
            self._wait_until_ready()
            channel, channel_end = socket.socketpair()
            control, control_end = socket.socketpair()
            with channel_end, control_end:
                try:
                    socket.send_fds(self._requests, [START], [channel_end.fileno(), control_end.fileno()])
                except OSError:  # the server has ended: so will the worker seem to
                    self._stop()
        with suppress(OSError):
            channel.sendall(index.to_bytes(4, "little"))
        return WorkerProcess(channel, control)

    def close(self) -> None:
        """End the server and all workers."""
        self._is_closed = True
        with suppress(OSError):
            self._requests.shutdown(socket.SHUT_RDWR)
        self._requests.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._stop()

    def _stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _launch(self) -> None:
        self._requests, end = socket.socketpair()
        arguments = str(end.fileno()), str(os.getpid())
        with end:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", _SERVER, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[end.fileno(), *self._handles],
                env=self._environment(),
                start_new_session=True,  # Ctrl-C is the parent's to answer
            )
        self._is_ready = False
        if self._is_closed:  # meanwhile, by another thread
            self._stop()
        self._printer = threading.Thread(target=self._print, args=(self._process,), name="decode-log", daemon=True)
        self._printer.start()
        with suppress(OSError):  # it has ended: it will not get ready
            self._requests.sendall(len(self._setup).to_bytes(8, "little") + self._setup)

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(self._hidden)}
        return kept | _ONE_THREAD | {"PYTHONPATH": path}

    def _wait_until_ready(self) -> None:
        """Wait for the server, and start it again if it was killed."""
        for _ in range(_LAUNCHES):
            code = self._process.poll()
            if code is not None and (self._is_ready or code < 0) and not self._is_closed:
                self._requests.close()
                self._launch()
            self._is_ready = self._is_ready or self._is_closed or self._hears_ready()
            if self._is_ready:
                return
            with suppress(subprocess.TimeoutExpired):
                if self._process.wait(1.0) < 0:
                    continue
            break
        self._stop()
        self._printer.join(_END_SECONDS)
        last = self._printed[-1] if self._printed else "it says nothing."
        raise RunError(f"The processes that decode images do not start: {last}")

    def _hears_ready(self) -> bool:
        self._requests.settimeout(_START_SECONDS)
        with suppress(OSError):
            return self._requests.recv(1) == READY
        return False

    def _print(self, process: subprocess.Popen[bytes]) -> None:
        """Pass on what the server and the workers print, which may write no files."""
        assert process.stdout
        with process.stdout as lines:
            while line := lines.readline(_LINE_BYTES):
                text = visible(line.decode(errors="replace").rstrip())
                self._printed.append(text)
                print(text, file=sys.stderr, flush=True)
