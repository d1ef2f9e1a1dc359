"""Sockets on which processes listen, as Linux shows them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

Address = IPv4Address | IPv6Address
_LISTEN = "0A"  # a state in /proc/net/tcp


def listening(pids: Iterable[int]) -> list[tuple[int, Address, int]]:
    """Return the process, address and port of each TCP socket on which one of the processes listens."""
    owners = {inode: pid for pid in pids for inode in _inodes(pid)}
    found = []
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text().splitlines()[1:]:
            _, local, _, state, *_ = columns = line.split()
            if state == _LISTEN and (owner := owners.get(columns[9])):
                address, port = local.split(":")
                found.append((owner, _address(address), int(port, 16)))
    return found


def unix_sockets(pids: Iterable[int]) -> set[str]:
    """Return the paths of the processes' Unix sockets; those of abstract ones begin with @."""
    owned = {inode for pid in pids for inode in _inodes(pid)}
    lines = [line.split(maxsplit=7) for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return {columns[7] for columns in lines if len(columns) == 8 and columns[6] in owned}


def _inodes(pid: int) -> list[str]:
    inodes = []
    with suppress(FileNotFoundError):  # it, or the descriptor, has just gone
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):
                kind, _, rest = os.readlink(f"/proc/{pid}/fd/{descriptor}").partition(":[")
                if kind == "socket":
                    inodes.append(rest.rstrip("]"))
    return inodes


def _address(text: str) -> Address:
    """Return an address of /proc/net/tcp: words of four bytes in the machine's order, here little-endian."""
    packed = bytes.fromhex(text)
    address = ip_address(b"".join(packed[start : start + 4][::-1] for start in range(0, len(packed), 4)))
    return getattr(address, "ipv4_mapped", None) or address
