"""Who has a UDP address, where the system tells: Linux does, in /proc (proc(5))."""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import ip_address
from pathlib import Path

from plumbing.address import Address

MOST_WORDS = 120  # characters of a command line


def holder(address: Address, proc: Path = Path("/proc")) -> str:
    """`python3 forwarder.py (pid 4711)`; "" where it cannot be told, as of another user's
    program."""
    inodes = {f"socket:[{inode}]" for inode in _sockets(address, proc)}
    if not inodes:
        return ""
    for process in proc.glob("[0-9]*"):
        try:
            if any(os.readlink(each) in inodes for each in (process / "fd").iterdir()):
                return f"{_command(process)} (pid {process.name})"
        except OSError:  # another user's, or gone
            continue
    return ""


def _sockets(address: Address, proc: Path) -> list[str]:
    """The inodes of UDP sockets that are bound to it, or to all addresses of its port, or to one of
    them."""
    wanted, found = ip_address(address[0].partition("%")[0]), []
    for name in ("udp", "udp6"):
        try:
            lines = (proc / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for local, inode in ((fields[1], fields[9]) for fields in map(str.split, lines)):
            host, _, port = local.partition(":")
            bound = ip_address(_host(host))
            if int(port, 16) == address[1] and (
                bound == wanted or bound.is_unspecified or wanted.is_unspecified
            ):
                found.append(inode)
    return found


def _host(text: str) -> str:
    """The system writes each word of 32 bits as this processor reads it."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words))


def _command(process: Path) -> str:
    words = (
        (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    )
    return (
        "".join(each if each.isprintable() else "?" for each in words[:MOST_WORDS]) or "a program"
    )
