"""Starts decode workers quickly: a process of its own, in which the image libraries are loaded, and which forks.

A caller's script needs no main guard and is not run again, and the workers contain nothing of the network, of Ray or of
a store's threads. They end with the server, and the server ends with the process that started it, not with the thread.
"""

from __future__ import annotations

import gc
import os
import pickle
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import NoReturn

from flowers_batch.decoding.decode_worker import Setup, run_worker
from flowers_batch.decoding.sandbox import end_with_parent, prepare_libraries
from flowers_batch.pandas_import import keep_arrow_from_importing_pandas

READY, START, KILL = b"r", b"s", b"k"


class ForkServer:
    """The server's side: takes requests for workers, and reports their ends.

    Args:
        requests: Where requests come from: `START` with two descriptors, of a worker's channel and of its control.
        setup: What every worker is told.
    """

    def __init__(self, requests: socket.socket, setup: Setup):
        self._requests, self._setup = requests, setup
        self._controls: dict[int, socket.socket] = {}  # by the worker's process
        self._poll = select.poll()
        self._poll.register(requests, select.POLLIN)
        self._own: list[int] = []  # descriptors that no worker needs

    def serve(self, parent: int) -> None:
        """Serve until the parent ends, or closes the connection."""
        parent_end = -1
        if hasattr(os, "pidfd_open"):  # another process may have inherited the connection
            with suppress(OSError):
                parent_end = os.pidfd_open(parent)
                self._poll.register(parent_end, select.POLLIN)
                self._own.append(parent_end)
        if os.getppid() != parent:  # it has ended before
            return
        woken, wake = socket.socketpair()
        self._own += [self._requests.fileno(), woken.fileno(), wake.fileno()]
        for end in (woken, wake):
            end.setblocking(False)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._poll.register(woken, select.POLLIN)
        self._requests.sendall(READY)
        try:
            self._take_events(parent_end, woken)
        finally:
            signal.set_wakeup_fd(-1)  # while its socket is open

    def kill_all(self) -> None:
        """End all workers."""
        for process in self._controls:
            os.kill(process, signal.SIGKILL)

    def _take_events(self, parent_end: int, woken: socket.socket) -> None:
        """Take requests and the ends of workers, until the parent ends, or closes the connection."""
        while True:
            for handle, _ in self._poll.poll():
                if handle == parent_end:
                    return
                if handle == woken.fileno():
                    with suppress(BlockingIOError):
                        woken.recv(4096)
                elif handle == self._requests.fileno():
                    if not self._take_request():
                        return
                else:
                    self._take_control(handle)
            self._reap()  # closes descriptors, whose numbers may be used again

    def _take_request(self) -> bool:
        data, handles, _, _ = socket.recv_fds(self._requests, 1, 2)
        if not data:
            return False
        channel, control = (socket.socket(fileno=handle) for handle in handles)
        own = os.getpid()
        process = os.fork()
        if not process:
            self._be_worker(channel, control, own)
        channel.close()
        with suppress(OSError):
            control.sendall(process.to_bytes(8, "little"))
        self._controls[process] = control
        self._poll.register(control, select.POLLIN)
        return True

    def _be_worker(self, channel: socket.socket, control: socket.socket, server: int) -> NoReturn:
        code = 1
        try:
            end_with_parent(server)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for each in (control, *self._controls.values()):
                each.close()
            for handle in self._own:
                os.close(handle)
            run_worker(channel, self._setup)
            code = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)

    def _take_control(self, handle: int) -> None:
        """Kill a worker, as asked for, or because nothing waits for it any longer."""
        process = next((process for process, control in self._controls.items() if control.fileno() == handle), None)
        if process is not None:
            with suppress(OSError):
                self._controls[process].recv(1)
            os.kill(process, signal.SIGKILL)  # it was not waited for, so that the number is still its own
            self._poll.unregister(handle)

    def _reap(self) -> None:
        """Report how workers have ended."""
        while self._controls:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                return
            control = self._controls.pop(process)
            with suppress(KeyError):
                self._poll.unregister(control)
            with suppress(OSError):
                control.sendall((os.waitstatus_to_exitcode(status) + 256).to_bytes(8, "little"))
            control.close()


def main() -> None:
    """Run the server: arguments are the descriptor of its connection and its parent's process number."""
    requests, parent = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    size = int.from_bytes(requests.recv(8, socket.MSG_WAITALL), "little")
    pickled = requests.recv(size, socket.MSG_WAITALL)
    keep_arrow_from_importing_pandas()
    setup: Setup = pickle.loads(pickled)  # from the process that started this one
    os.chdir("/")  # Numba takes settings from the current folder, which may hold strangers' photos
    setup.output.load()  # with the image libraries, which the parent does not load
    prepare_libraries()
    gc.collect()
    gc.freeze()  # the workers' collections would copy the pages that they share
    server = ForkServer(requests, setup)
    try:
        server.serve(parent)
    finally:
        server.kill_all()


if __name__ == "__main__":
    main()
