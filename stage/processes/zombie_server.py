"""A server that answers heartbeats and nothing else: `python -m stage.processes.zombie_server
HOST:PORT`.

Its heartbeats are the forwarder's own OPTIONS, which have one Via; whatever the forwarder passes on
has two or more.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence

from plumbing.address import parse_address
from plumbing.udp_socket import bind_udp
from sip.errors import RemoteProtocolError
from sip.message import Request, parse, reply


def main(arguments: Sequence[str]) -> int:
    sock = bind_udp(parse_address(arguments[0]))
    sock.setblocking(True)
    print(f"ready: a zombie at {arguments[0]}", flush=True)
    while True:
        answer(sock)


def answer(sock: socket.socket) -> None:
    try:
        data, source = sock.recvfrom(65_535)
        message = parse(data)
    except (OSError, RemoteProtocolError):
        return
    heartbeat = isinstance(message, Request) and message.method == "OPTIONS"
    if isinstance(message, Request) and heartbeat and len(message.values("Via")) == 1:
        sock.sendto(reply(message, 200, to_tag="zombie").to_bytes(), source)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
