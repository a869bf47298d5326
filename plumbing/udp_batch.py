"""Many datagrams in one call of the system: recvmmsg(2) and sendmmsg(2), where there are such; else
one by one.

One call for many costs less than as many calls, and more than one or two. So a channel takes one
datagram at a time, looks now and then whether there are more, and as long as there are takes them
in batches. Measured: a request of a backlog costs 3 us less; where there is none, batches would
cost a sixth to a third more.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import struct
import sys
from collections.abc import Sequence
from typing import Protocol

from plumbing.address import Address
from plumbing.local_address import CONTROL, Ancillary, LocalAddresses, Noticed, can_tell

Datagram = tuple[bytes, Address]  # and where it came from
Outgoing = tuple[bytes, Address | None]  # and where it is to go; None on a connected socket
Failure = tuple[int, OSError]  # which one was not sent, and why

SLOTS = 32  # datagrams in a batch
LARGEST = 65_535  # octets, of IP itself: no datagram is cut
FEW = 3  # from so many on a batch costs less
NOW_AND_THEN = 8
MAX_KNOWN = 4_096  # addresses remembered in the system's form


class Manner(Protocol):
    """A way to move many datagrams."""

    def receive(
        self, sock: socket.socket, peer: Address | None, local: LocalAddresses | None = None
    ) -> tuple[list[Datagram], OSError | None]:
        """What is there, up to SLOTS; and the error that was met after it. `peer`: whom it is
        connected to; `local` notes which of our addresses each was sent to."""

    def send(
        self, sock: socket.socket, datagrams: Sequence[Outgoing], connected: bool
    ) -> list[Failure]:
        """Sends all it can, up to SLOTS."""


class Channel:
    """A non-blocking UDP socket, bound or connected, which uses batches only while they pay. Close
    the socket. With `noticed` one that is bound to every address answers each peer from the address
    that this one has sent to, and says which that is (LocalAddresses)."""

    def __init__(self, sock: socket.socket, manner: Manner, noticed: Noticed | None = None) -> None:
        self.sock, self._manner = sock, manner
        self.peer = _peer(sock)
        self._local = LocalAddresses(sock, noticed) if noticed and can_tell(sock) else None
        self._turn = 0
        self._many = False  # it paid the last time

    def receive(self) -> tuple[list[Datagram], OSError | None]:
        """One datagram, or many; and the error that was met after them. To be called again when the
        socket is ready."""
        if self._many:
            return self.drain()
        self._turn += 1
        if not self._turn % NOW_AND_THEN:
            return self._take(SINGLY)
        try:
            if self.peer:
                return [(self.sock.recv(LARGEST), self.peer)], None
            if self._local:
                return [_receive_one(self.sock, self._local)], None
            data, source = self.sock.recvfrom(LARGEST)
            return [(data, source[:2])], None
        except BlockingIOError:
            return [], None
        except OSError as error:
            return [], error

    def drain(self) -> tuple[list[Datagram], OSError | None]:
        """As many as a batch holds. Nothing and no error: the queue is empty."""
        return self._take(self._manner)

    def _take(self, manner: Manner) -> tuple[list[Datagram], OSError | None]:
        datagrams, error = manner.receive(self.sock, self.peer, self._local)
        self._many = len(datagrams) >= FEW
        return datagrams, error

    def send(self, datagrams: Sequence[Outgoing]) -> list[Failure]:
        """All of them, in order; those that fail stop no other."""
        if self._local and self._local.unlike:
            return self._send_from(self._local.unlike, datagrams)
        if len(datagrams) < FEW:
            return _send_each(self.sock, datagrams)
        failures: list[Failure] = []
        for first in range(0, len(datagrams), SLOTS):
            failed = self._manner.send(
                self.sock, datagrams[first : first + SLOTS], self.peer is not None
            )
            failures += [(first + index, error) for index, error in failed]
        return failures

    def _send_from(
        self, unlike: dict[Address, list[Ancillary]], datagrams: Sequence[Outgoing]
    ) -> list[Failure]:
        """Each from the address that its peer uses, where the system would use another."""
        failures: list[Failure] = []
        for index, datagram in enumerate(datagrams):
            told = unlike.get(datagram[1]) if datagram[1] else None
            try:
                if told and datagram[1]:
                    self.sock.sendmsg([datagram[0]], told, 0, datagram[1])
                    continue
            except OSError as error:
                failures.append((index, error))
                continue
            failures += [(index, error) for _, error in _send_each(self.sock, [datagram])]
        return failures


class Singly:
    """What every system can."""

    def receive(
        self, sock: socket.socket, peer: Address | None, local: LocalAddresses | None = None
    ) -> tuple[list[Datagram], OSError | None]:
        found: list[Datagram] = []
        try:
            while len(found) < SLOTS:
                if local:
                    found.append(_receive_one(sock, local))
                    continue
                data, source = sock.recvfrom(LARGEST)
                found.append((data, peer or source[:2]))
        except BlockingIOError:
            pass
        except OSError as error:
            return found, error
        return found, None

    def send(
        self, sock: socket.socket, datagrams: Sequence[Outgoing], connected: bool
    ) -> list[Failure]:
        return _send_each(sock, datagrams)


SINGLY = Singly()


class _IoVec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _MsgHdr(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iov_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class _MmsgHdr(ctypes.Structure):
    """`length`: of the datagram that came."""

    _fields_ = [("message", _MsgHdr), ("length", ctypes.c_uint)]


NAME = 32  # octets before each datagram, for its address (struct sockaddr_in6 has 28)
# a little askew, so that not all slots share the same lines of the cache
STRIDE = NAME + LARGEST + 1 + 4096 + 64
STARTS = [slot * STRIDE + NAME for slot in range(SLOTS)]
NAME_LENGTH = {socket.AF_INET: 16, socket.AF_INET6: 28}
NAMES = {
    size: [slice(at - NAME, at - NAME + size) for at in STARTS] for size in NAME_LENGTH.values()
}
HEADER = ctypes.sizeof(_MmsgHdr)


class Batches:
    """Linux. Every slot has room for the largest datagram; of the memory only what was ever touched
    counts. Belongs to one thread. Raises OSError where the C library has no such calls."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            self._recvmmsg, self._sendmmsg = libc.recvmmsg, libc.sendmmsg
        except AttributeError as error:
            raise OSError(errno.ENOSYS, "no recvmmsg and sendmmsg") from error
        arguments = ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int
        self._recvmmsg.argtypes, self._sendmmsg.argtypes = (*arguments, ctypes.c_void_p), arguments
        self._inbox, self._outbox = _Slots(), _Slots()
        self._hosts: dict[bytes, Address] = {}
        self._names: dict[int, dict[Address, bytes]] = {family: {} for family in NAME_LENGTH}

    def receive(
        self, sock: socket.socket, peer: Address | None, local: LocalAddresses | None = None
    ) -> tuple[list[Datagram], OSError | None]:
        box, size = self._inbox, 0 if peer else NAME_LENGTH[sock.family]
        headers = box.headers(size, local is not None)
        if local:
            headers.room_for_controls()
        got = self._recvmmsg(sock.fileno(), headers.address, SLOTS, socket.MSG_DONTWAIT, None)
        if got < 0:
            error = _error()
            return [], None if isinstance(error, BlockingIOError | InterruptedError) else error
        area, lengths = box.area, headers.lengths[:got].tolist()
        if peer:
            return [
                (area[at : at + length], peer) for at, length in zip(STARTS, lengths, strict=False)
            ], None
        hosts, found = self._hosts, []
        for at, length, named in zip(STARTS, lengths, NAMES[size], strict=False):
            name = area[named]
            found.append((area[at : at + length], hosts.get(name) or self._host(name)))
        if local:
            known, field = local.known, local.field
            for slot, (_, source) in enumerate(found):
                packed = headers.control(slot, field)
                if known.get(source) != packed:
                    local.note(source, packed)
        return found, None

    def send(
        self, sock: socket.socket, datagrams: Sequence[Outgoing], connected: bool
    ) -> list[Failure]:
        box, family, count = self._outbox, sock.family, len(datagrams)
        size = 0 if connected else NAME_LENGTH[family]
        area, sizes, names = box.area, [len(data) for data, _ in datagrams], self._names[family]
        try:
            for at, length, (data, _) in zip(STARTS, sizes, datagrams, strict=False):
                area[at : at + length] = data
            if size:
                for named, (_, target) in zip(NAMES[size], datagrams, strict=False):
                    if target:
                        area[named] = names.get(target) or self._name(family, target)
        except (OSError, ValueError, IndexError, OverflowError, struct.error):
            return _send_each(sock, datagrams)  # which says whose fault it is
        box.rooms[:count] = memoryview(struct.pack(f"@{count}P", *sizes)).cast("P")
        headers, failures, done = box.headers(size).address, [], 0
        # it stops before the first that fails, and says why when that is the first
        while done < count:
            sent = self._sendmmsg(
                sock.fileno(), headers + done * HEADER, count - done, socket.MSG_DONTWAIT
            )
            if sent > 0:
                done += sent
            elif not isinstance(error := _error(), InterruptedError):
                failures.append((done, error))
                done += 1
        return failures

    def _host(self, name: bytes) -> Address:
        """The address in a struct sockaddr_in or sockaddr_in6, as Python's sockets would say it."""
        (port,) = struct.unpack_from("!H", name, 2)
        if len(name) == NAME_LENGTH[socket.AF_INET]:
            address = socket.inet_ntop(socket.AF_INET, name[4:8]), port
        else:
            (scope,) = struct.unpack_from("@I", name, 24)
            address = socket.inet_ntop(socket.AF_INET6, name[8:24]) + _zone(scope), port
        if len(self._hosts) >= MAX_KNOWN:
            self._hosts.clear()
        self._hosts[name] = address
        return address

    def _name(self, family: int, address: Address) -> bytes:
        """The other way round; addresses with a zone are left to those who know its number. Raises
        OSError and more."""
        host, port = address
        packed = socket.inet_pton(family, host)
        head = struct.pack("@H", family) + struct.pack("!H", port)
        name = (
            head + packed + bytes(8)
            if family == socket.AF_INET
            else head + bytes(4) + packed + bytes(4)
        )
        names = self._names[family]
        if len(names) >= MAX_KNOWN:
            names.clear()
        names[address] = name
        return name


class _Headers:
    """One for each slot, for sockets whose addresses have `size` octets; 0: they are connected.
    `lengths`: a view of all that came. With `controls` there is room for what the system tells of
    each datagram."""

    def __init__(self, area: int, vectors: int, size: int, controls: bool) -> None:
        self._controls = ctypes.create_string_buffer(SLOTS * CONTROL if controls else 1)
        control = ctypes.addressof(self._controls)
        self._told = memoryview(self._controls).cast("B")
        self._headers = (_MmsgHdr * SLOTS)()
        for slot, header in enumerate(self._headers):
            message = header.message
            message.iov, message.iov_length = vectors + slot * ctypes.sizeof(_IoVec), 1
            message.name, message.name_length = (
                (area + STARTS[slot] - NAME, size) if size else (None, 0)
            )
            if controls:
                message.control, message.control_length = control + slot * CONTROL, CONTROL
        self.address = ctypes.addressof(self._headers)
        self.lengths = (
            memoryview(self._headers)
            .cast("B")
            .cast("I")[_MmsgHdr.length.offset // 4 :: HEADER // 4]
        )
        at = _MsgHdr.control_length.offset // ctypes.sizeof(ctypes.c_size_t)
        self._rooms = (
            memoryview(self._headers)
            .cast("B")
            .cast("P")[at :: HEADER // ctypes.sizeof(ctypes.c_size_t)]
        )
        self._full = memoryview(struct.pack(f"@{SLOTS}P", *[CONTROL] * SLOTS)).cast("P")

    def room_for_controls(self) -> None:
        """Before each call, for the system writes there how much it has told."""
        self._rooms[:] = self._full

    def control(self, slot: int, field: slice) -> bytes:
        at = slot * CONTROL
        return bytes(self._told[at + field.start : at + field.stop])


class _Slots:
    """Memory for SLOTS datagrams with their addresses, and headers that point there, for each kind
    of socket some: to write them anew for the next socket would cost as much as ten datagrams."""

    def __init__(self) -> None:
        self.area = mmap.mmap(-1, SLOTS * STRIDE)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self.area))
        self._vectors = (_IoVec * SLOTS)(*(_IoVec(self._base + at, LARGEST) for at in STARTS))
        # A view of the rooms for all datagrams at once (P: as wide as size_t).
        self.rooms = memoryview(self._vectors).cast("B").cast("P")[1::2]
        self._headers: dict[tuple[int, bool], _Headers] = {}

    def headers(self, size: int, controls: bool = False) -> _Headers:
        known = self._headers.get((size, controls))
        if not known:
            vectors = ctypes.addressof(self._vectors)
            known = self._headers[size, controls] = _Headers(self._base, vectors, size, controls)
        return known


def best() -> Manner:
    """The one that costs least on this system. A new one for each thread."""
    if sys.platform == "linux":
        try:
            return Batches()
        except OSError:
            pass
    return Singly()


def _receive_one(sock: socket.socket, local: LocalAddresses) -> Datagram:
    data, told, _, source = sock.recvmsg(LARGEST, CONTROL)
    local.note_ancillary(source[:2], told)
    return data, source[:2]


def _send_each(sock: socket.socket, datagrams: Sequence[Outgoing]) -> list[Failure]:
    failures: list[Failure] = []
    for index, (data, target) in enumerate(datagrams):
        try:
            if target:
                sock.sendto(data, target)
            else:
                sock.send(data)
        except OSError as error:
            failures.append((index, error))
        except (OverflowError, ValueError, TypeError) as error:
            failures.append((index, OSError(errno.EINVAL, str(error))))
    return failures


def _peer(sock: socket.socket) -> Address | None:
    try:
        host, port, *_ = sock.getpeername()
    except OSError:
        return None
    return host, port


def _zone(scope: int) -> str:
    """By the interface's name, as getnameinfo(3) writes it; by its number once it is gone."""
    try:
        return f"%{socket.if_indextoname(scope)}" if scope else ""
    except OSError:
        return f"%{scope}"


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
