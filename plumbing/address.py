"""Addresses as people write them: `host:port`, `[ipv6]:port`."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

from plumbing.shorten_text import shortened

Address = tuple[str, int]

MAX_LENGTH = 64  # characters of an IP address with its IPv6 zone

_HOST_PORT = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]\s]+))(?:\s*:\s*(?P<port>\S+))?\Z")


def parse_address(text: str, default_port: int | None = None, literal: bool = False) -> Address:
    """ "127.0.0.1:5060", "[::1]:5060", "server : 5060" -> (host, port); `literal` refuses names.

    Raises ValueError with a sentence that says what is wrong and what would be right.
    """
    text = text.strip()
    match = _HOST_PORT.match(text)
    if not match:
        hint = "; IPv6 goes in brackets, as in [::1]:5060" if text.count(":") > 1 else ""
        raise ValueError(f"'{text}' is not host:port{hint}")
    host = match["v6"] or match["host"]
    if match["port"] is None and default_port is None:
        if re.fullmatch("[0-9]{1,5}", text):
            raise ValueError(f"'{text}' is a port without an address; write 127.0.0.1:{text}, say")
        raise ValueError(f"'{text}' has no port; write {text}:PORT")
    port = match["port"] or str(default_port)
    if not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f"'{shortened(port, 20)}' is not a port in '{text}' (0 to 65535)")
    if match["v6"] or literal or re.fullmatch("[0-9.]+", host):  # no name is of digits alone
        try:
            host = str(ipaddress.ip_address(host))
        except ValueError:
            raise ValueError(f"'{host}' is not an IP address in '{text}'") from None
    return host, int(port)


def literal(address: Address) -> bool:
    """Is this a unicast IP address with a port? (The message path must not look up names in DNS,
    and a whole network would answer a broadcast.)"""
    return address[1] > 0 and len(address[0]) <= MAX_LENGTH and _unicast(address[0])


@lru_cache(maxsize=4096)
def _unicast(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return not (address.is_multicast or address.is_unspecified or host == "255.255.255.255")


def format_address(address: Address) -> str:
    """("::1", 5060) -> "[::1]:5060"."""
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
