from __future__ import annotations

import errno
import os
import re

import pytest

from flowers_batch.errors import InputError
from flowers_batch.storage import locks
from flowers_batch.storage.opening import open_folder

NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # NFS without its lock service, FUSE


def failing(number: int):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", NO_LOCKS, ids=errno.errorcode.get)
def test_file_system_without_locks_is_named_and_not_another_run(tmp_path, monkeypatch, number):
    monkeypatch.setattr(locks.fcntl, "flock", failing(number))
    message = (
        rf"^The file system of {re.escape(str(tmp_path))} cannot lock files \({re.escape(os.strerror(number))}\): "
        r"have it mounted with locks, or choose a place on another one\.$"
    )
    with pytest.raises(InputError, match=message), open_folder(tmp_path).locked():
        pass


def test_holder_that_cannot_be_written_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(locks.os, "pwrite", failing(errno.ENOSPC))
    message = r"cannot be written to \(No space left on device\): choose another folder\.$"
    with pytest.raises(InputError, match=message), open_folder(tmp_path).locked():
        pass
