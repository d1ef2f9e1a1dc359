"""Headers of tars within the limits of what photos need; tarfile reads them whatever their size."""

from __future__ import annotations

import re
import tarfile

_MAX_BYTES = 64 << 10  # of a header before a member's own: long names, PAX records; and of all global ones of a tar
_MAX_NAME = 16 << 10  # characters; Linux allows 4096 bytes in a path
_EXTENSIONS = {
    tarfile.XHDTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}
# In Python before 3.11.10, tarfile takes quadratic time over digits (CVE-2024-6232).
_MANY_DIGITS = re.compile(rb"[0-9]{256}")


class Member(tarfile.TarInfo):
    """A member whose extension headers are refused if they are large; maps of sparse files are not read."""

    def _proc_member(self, tar: Tar) -> tarfile.TarInfo:
        if self.type in _EXTENSIONS:
            self._check_extension(tar)
        member: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        if max(len(member.name), len(member.linkname)) > _MAX_NAME:
            raise tarfile.ReadError(f"a name has more than {_MAX_NAME} characters")
        return member

    def _check_extension(self, tar: Tar) -> None:
        if self.type == tarfile.XGLTYPE:
            tar.global_bytes += self.size
        if max(self.size, tar.global_bytes) > _MAX_BYTES:
            raise tarfile.ReadError(f"a name or its other attributes take more than {_MAX_BYTES} bytes")
        file = tar.fileobj
        assert file
        start = file.tell()
        if _MANY_DIGITS.search(file.read(max(0, self.size))):
            raise tarfile.ReadError("a name or attribute has more than 255 digits in a row")
        file.seek(start)

    def _proc_sparse(self, tar: Tar) -> tarfile.TarInfo:
        """Skip the map of an old GNU sparse file, which may be as long as the tar."""
        _, goes_on, size = self._sparse_structs  # type: ignore[attr-defined]
        assert tar.fileobj
        while goes_on:
            goes_on = tar.fileobj.read(tarfile.BLOCKSIZE)[504]  # where tar.h has `isextended`
        self.sparse = b""  # not None: it is sparse
        self.offset_data = tar.fileobj.tell()
        tar.offset = self.offset_data + self._block(self.size)  # type: ignore[attr-defined]
        self.size = size
        return self

    def _proc_gnusparse_10(self, member: Member, pax_headers: object, tar: Tar) -> None:
        """Skip the map of a PAX sparse file, version 1.0, which stands in its data."""
        member.sparse = b""


class Tar(tarfile.TarFile):
    """A tar whose members are read as `Member`, within these limits.

    Attributes:
        global_bytes: The size of the global headers that were read, all together.
    """

    tarinfo = Member
    global_bytes = 0
