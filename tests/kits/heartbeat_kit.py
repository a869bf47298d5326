"""The heartbeats by which Mobicents' servers register."""

from __future__ import annotations


def body(ip="127.0.0.1", port=5080, hostname="server2", *more):
    return (
        "\n".join([f"hostname={hostname}", f"ip={ip}", f"udpPort={port}", f"tcpPort={port}", *more])
        + "\n"
    )


def beat(
    text=None,
    number=1,
    call_id="life-1",
    method="OPTIONS",
    mark="Mobicents-Heartbeat: 1",
    via="127.0.0.1:5080",
):
    """A heartbeat as Mobicents' servers write it."""
    text = (body() if text is None else text).encode()
    lines = [
        f"{method} sip:127.0.0.1:5065 SIP/2.0",
        f"Via: SIP/2.0/UDP {via};branch=z9hG4bK{call_id}.{number}",
        "Max-Forwards: 70",
        "From: <sip:server2@127.0.0.1>;tag=1",
        "To: <sip:127.0.0.1:5065>",
        f"Call-ID: {call_id}",
        f"CSeq: {number} {method}",
        *([mark] if mark else []),
        f"Content-Length: {len(text)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + text
