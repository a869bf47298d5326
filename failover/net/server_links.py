"""Opens, reopens and closes the sockets to the servers. Used on the `sip` thread only.

A socket that cannot be opened (no route yet, no file descriptor left) is tried again at the next
open_all(); its server is DOWN meanwhile, and the other servers do not notice. Sockets are opened
again, too, when pings cannot be sent or the shared address has come or gone, for they may be bound
to an address that this computer no longer has.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from failover.admin.event_log import EventLog
from failover.net.active_standby import can_move
from failover.net.options_ping import PingSockets
from failover.net.relay import Relay
from failover.net.sockets import ServerLink, open_side
from plumbing.address import Address, format_address
from plumbing.event_loop import Loop
from plumbing.udp_batch import Channel, DatagramIO


class ServerLinks:
    """`by_name`: the links, in the order of the server table; replace() changes the same object, so
    that all who read it agree."""

    def __init__(
        self,
        loop: Loop,
        event_log: EventLog,
        relay: Relay,
        listen: Address,
        io: DatagramIO,
    ) -> None:
        self._loop, self._event_log, self._relay = loop, event_log, relay
        self._listen, self._io = listen, io
        self.by_name = relay.links

    def replace(self, links: Mapping[str, ServerLink]) -> list[ServerLink]:
        """Uses these links from now on; returns those that are gone, to be closed."""
        gone = [link for link in self.by_name.values() if link not in links.values()]
        self.by_name.clear()
        self.by_name.update(links)
        return gone

    def open_all(self) -> None:
        """Opens whatever is not open."""
        for link in list(self.by_name.values()):
            self._loop.call(partial(self._open, link))

    def rebind_pings(self) -> None:
        """The listen address has come or gone: pings are to leave from it while it is here."""
        for link in self.by_name.values():
            link.rebind = can_move(self._listen)
        self.open_all()

    def close_sides(self) -> None:
        for link in self.by_name.values():
            self.close_side(link)

    def close_all(self) -> None:
        for link in self.replace({}):
            self._loop.call(partial(self.close, link))

    def close(self, link: ServerLink) -> None:
        self.close_side(link)
        if link.ping:
            self._drop_ping(link.ping)
            link.ping = None

    def close_side(self, link: ServerLink) -> None:
        if link.channel:
            self.drop(link.channel.sock)
            link.channel = None

    def drop(self, sock: socket.socket) -> None:
        """Closes a watched socket, whatever fails: an open one would keep the address from its next
        owner, which may be ourselves."""
        self._loop.call(partial(self._loop.unwatch, sock))
        sock.close()

    # -- inside ------------------------------------------------------------------------------------

    def _open(self, link: ServerLink) -> None:
        active = self._relay.phones is not None
        try:
            if not link.ping or link.rebind:
                self._open_ping(link)
            if active and not link.channel:
                self._open_side(link)
        except OSError as error:
            if link.ping and (link.channel or not active):
                return  # the sockets from before are open: the old route may come back
            self.close(link)
            self._unreachable(link, error)

    def _open_side(self, link: ServerLink) -> None:
        sock, landed = open_side(self._listen, link.server.address)
        link.channel = channel = Channel(sock, self._io)
        self._loop.watch(sock, partial(self._relay.receive, channel, link.server.name))
        self._loop.post(partial(self._relay.take_landed, landed))

    def _open_ping(self, link: ServerLink) -> None:
        former = link.ping
        ping = PingSockets(link.server.address, secrets.token_hex(8), self._listen[0])
        link.ping, link.rebind = ping, False
        if former:
            moved = former.host != ping.host
            self._drop_ping(former)
            if moved and link.channel:
                self.close_side(link)
                self._open_side(link)
        for sock in ping.socks:
            self._loop.watch(sock, partial(self._relay.checker.receive, link))

    def _drop_ping(self, ping: PingSockets) -> None:
        for sock in ping.socks:
            self.drop(sock)

    def _unreachable(self, link: ServerLink, error: OSError) -> None:
        """Marks the server DOWN, so that nothing is sent to it."""
        server, text = link.server, (error.strerror or str(error)).lower()
        if text != link.error:
            link.error = text
            self._event_log.trouble("open", f"a socket to {server.name}: {error}")
        why = f"{format_address(server.address)} cannot be reached: {text}"
        self._relay.server_refused(server.name, why)
        # the signal sets `why` only when the state changes, and it may be another reason now
        server.health = replace(server.health, why=why)
