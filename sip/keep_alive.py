"""Datagrams that only keep a NAT binding or a firewall's hole open, and are no SIP messages."""

from __future__ import annotations

BLANK = b"\r\n\0 \t"  # CRLF (RFC 5626 3.5.1, 4.4.1), and what phones make of it
SHORT = 4  # octets; "jaK", "hi", "\0\0\0\0": no SIP message is that short
STUN_HEADER = 20  # octets (RFC 8489 5); the length of what follows stands in the third and fourth
STUN_BINDING = {b"\0\x01", b"\0\x11"}  # request and indication


def is_keep_alive(data: bytes) -> bool:
    """Is the datagram blank, tiny, or a STUN binding request (RFC 5626 4.4.2; RFC 3489's too)?"""
    if not data.strip(BLANK) or len(data) <= SHORT:
        return True
    if data[:2] not in STUN_BINDING or len(data) < STUN_HEADER:
        return False
    return int.from_bytes(data[2:4], "big") == len(data) - STUN_HEADER and len(data) % 4 == 0
