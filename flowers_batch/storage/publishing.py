"""Files that get their names only once they are complete: renamed from a scratch file, or uploaded as one object."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from pyarrow import fs

from flowers_batch.storage.io_errors import storing, writing, writing_scratch
from flowers_batch.storage.local_files import finish, fsync
from flowers_batch.storage.retries import is_store_error, with_retries
from flowers_batch.storage.scratch import scratch_folder
from flowers_batch.storage.subfolders import open_subfolder, path_of


@contextmanager
def renamed(root: str, name: str, scratch: str, url: str) -> Iterator[str]:
    """Give the path of a scratch file, which is renamed to its target in the same folder after an fsync.

    Args:
        root: A folder on this machine.
        name: The target's name below it; no link is followed there.
        scratch: The scratch file's name, which no other process can know.
        url: The target for error messages.

    Raises:
        InputError: A folder below `root` is a link.
        RunError: The target cannot be written.
    """
    parent, base = os.path.split(name)
    with ExitStack() as stack:
        with writing(url, root):
            folder = stack.enter_context(open_subfolder(root, parent, make=True))
        where = path_of(folder)
        path = f"{where}/{scratch}"
        try:
            with writing(url, where):
                yield path
                finish(path)
                os.replace(path, f"{where}/{base}")
                os.fsync(folder)
        finally:
            with suppress(OSError):
                os.unlink(path)


@contextmanager
def uploaded(scratch: str, filesystem: fs.FileSystem, target: str, url: str, block_bytes: int) -> Iterator[str]:
    """Give the path of a scratch file in the temporary folder, which is uploaded to its target as one object.

    Args:
        scratch: Its name.
        filesystem: Where the target is.
        target: The target's name there.
        url: The target for error messages.
        block_bytes: Bytes in memory at a time.

    Raises:
        RunError: The scratch file, or the target, cannot be written.
    """
    with writing_scratch(), scratch_folder() as folder:
        path = os.path.join(folder, scratch)
        yield path
        fsync(path)
        with storing(url):
            with_retries(lambda: _upload(path, filesystem, target, block_bytes))


def _upload(path: str, filesystem: fs.FileSystem, target: str, block_bytes: int) -> None:
    if not filesystem.type_name.startswith(("s3", "gcs", "abfs")):
        filesystem.create_dir(os.path.dirname(target), recursive=True)
    with open(path, "rb") as file:
        stream = filesystem.open_output_stream(target)
        try:
            while block := file.read(block_bytes):
                stream.write(block)
        except BaseException as error:
            # A store that failed has made no object, and an object that another writer published stays.
            if not (isinstance(error, OSError) and is_store_error(error)):  # else it is closed short, and must not
                with suppress(OSError):
                    stream.close()
                if filesystem.get_file_info(target).type != fs.FileType.NotFound:
                    filesystem.delete_file(target)
            raise
        stream.close()
