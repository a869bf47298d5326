"""Which local process has bound a UDP address: Linux tells in /proc (proc(5))."""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import ip_address
from pathlib import Path

from plumbing.address import Address

MAX_COMMAND = 120  # characters


def port_owner(address: Address, proc: Path = Path("/proc")) -> str:
    """`python3 forwarder.py (pid 4711)`; "" if it is not known, as for another user's process."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(address, proc)}
    for process in proc.glob("[0-9]*") if sockets else ():
        try:
            if any(os.readlink(each) in sockets for each in (process / "fd").iterdir()):
                return f"{_command(process)} (pid {process.name})"
        except OSError:  # another user's process, or it has ended
            continue
    return ""


def _inodes(address: Address, proc: Path) -> list[str]:
    """The inodes of UDP sockets that conflict with the address; a wildcard conflicts with all."""
    wanted, found = ip_address(address[0].partition("%")[0]), []
    for name in ("udp", "udp6"):
        try:
            lines = (proc / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for local, inode in ((fields[1], fields[9]) for fields in map(str.split, lines)):
            host, _, port = local.partition(":")
            bound = ip_address(_host(host))
            conflicts = bound == wanted or bound.is_unspecified or wanted.is_unspecified
            if int(port, 16) == address[1] and conflicts:
                found.append(inode)
    return found


def _host(text: str) -> str:
    """The IP address in /proc/net/udp: 32-bit words in this processor's byte order, in hex."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words))


def _command(process: Path) -> str:
    words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    shown = words.strip()[:MAX_COMMAND]
    return "".join(each if each.isprintable() else "?" for each in shown) or "a program"
