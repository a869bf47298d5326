"""Many datagrams with one system call: recvmmsg(2) and sendmmsg(2) on Linux, else one by one.

When it pays

  One call for 32 datagrams costs less than 32 calls, but more than one or two: a request of a
  backlog costs 3 us less, a single one a sixth to a third more. So a Channel receives one datagram
  at a time, looks at every LOOK_EVERY-th call whether more wait, and takes batches for as long as a
  batch brings at least BATCH_PAYS. It sends in batches from BATCH_PAYS datagrams on.

How MmsgIO works

  It prepares its memory once, since to fill in the headers for each call would cost as much as ten
  datagrams. One anonymous mapping has SLOTS slots, each with room for a socket address and the
  largest datagram; the kernel provides a page only when something touches it. Arrays of `iovec` and
  `mmsghdr` point into it, a set of headers for each kind of socket. Memoryviews over these arrays
  read all lengths, and write all lengths, with one operation. The bytes of a socket address are
  translated to (host, port), and back, once per peer and kept, up to MAX_KNOWN.

Traps

  The kernel overwrites `msg_controllen` at each call, so it is set again before the next one.
  sendmmsg stops before the first datagram that fails and reports its error only when that one is
  the first: the rest is sent by further calls. A target that cannot be packed (a name, an IPv6
  zone, a port out of range) sends that batch one by one, which reports the right one as failed. One
  MmsgIO belongs to one thread, since its memory is shared by all sockets.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import socket
import struct
import sys
from collections.abc import Mapping, Sequence

from plumbing.address import Address
from plumbing.packet_info import CONTROL, Ancillary, LocalAddresses, Noticed, can_tell

Datagram = tuple[bytes, Address]  # and its source
Outgoing = tuple[bytes, Address | None]  # and its target; None on a connected socket
Failure = tuple[int, OSError]  # the index of a datagram that was not sent, and why

SLOTS = 32  # datagrams in a batch
MAX_DATAGRAM = 65_535  # octets, the limit of IP itself: no datagram is cut
BATCH_PAYS = 3  # datagrams from which on a batch costs less than single calls
LOOK_EVERY = 8  # calls of Channel.receive
MAX_KNOWN = 4_096  # addresses kept in the kernel's form


class DatagramIO:
    """A way to receive and send many datagrams on a non-blocking UDP socket. This one makes a
    system call for each (recvfrom, sendto), and works everywhere."""

    def receive(
        self, sock: socket.socket, peer: Address | None, local: LocalAddresses | None = None
    ) -> tuple[list[Datagram], OSError | None]:
        """Up to SLOTS datagrams, and the error met after them. `peer`: the address that the socket
        is connected to; `local` is told to which of our addresses each datagram came."""
        found: list[Datagram] = []
        try:
            while len(found) < SLOTS:
                if local:
                    found.append(_receive_one(sock, local))
                    continue
                data, source = sock.recvfrom(MAX_DATAGRAM)
                found.append((data, peer or source[:2]))
        except BlockingIOError:
            pass
        except OSError as error:
            return found, error
        return found, None

    def send(
        self, sock: socket.socket, datagrams: Sequence[Outgoing], connected: bool
    ) -> list[Failure]:
        """Sends all it can of at most SLOTS datagrams."""
        return _send_each(sock, datagrams)


SINGLE_IO = DatagramIO()


class Channel:
    """A non-blocking UDP socket, bound or connected, which uses batches only while they pay. The
    owner closes `sock`. With `noticed`, a socket that is bound to all addresses answers each peer
    from the address that the peer has sent to, and reports that address (LocalAddresses)."""

    def __init__(self, sock: socket.socket, io: DatagramIO, noticed: Noticed | None = None) -> None:
        self.sock, self._io = sock, io
        self.peer = _peer(sock)
        self._local = LocalAddresses(sock, noticed) if noticed and can_tell(sock) else None
        self._calls = 0
        self._backlog = False  # the last batch paid

    def receive(self) -> tuple[list[Datagram], OSError | None]:
        """One datagram or a batch, and the error met after them; neither if the queue is empty.
        Others may wait: the loop calls again while the socket is ready."""
        if self._backlog:
            return self.drain()
        self._calls += 1
        if not self._calls % LOOK_EVERY:
            return self._take(SINGLE_IO)
        try:
            if self.peer:
                return [(self.sock.recv(MAX_DATAGRAM), self.peer)], None
            if self._local:
                return [_receive_one(self.sock, self._local)], None
            data, source = self.sock.recvfrom(MAX_DATAGRAM)
            return [(data, source[:2])], None
        except BlockingIOError:
            return [], None
        except OSError as error:
            return [], error

    def drain(self) -> tuple[list[Datagram], OSError | None]:
        """A batch, and the error met after it; neither if the queue is empty."""
        return self._take(self._io)

    def _take(self, io: DatagramIO) -> tuple[list[Datagram], OSError | None]:
        datagrams, error = io.receive(self.sock, self.peer, self._local)
        self._backlog = len(datagrams) >= BATCH_PAYS
        return datagrams, error

    def send(self, datagrams: Sequence[Outgoing]) -> list[Failure]:
        """Sends all of them, in order; a failure stops no other."""
        if self._local and self._local.unlike:
            return _send_each(self.sock, datagrams, self._local.unlike)
        if len(datagrams) < BATCH_PAYS:
            return _send_each(self.sock, datagrams)
        failures: list[Failure] = []
        for first in range(0, len(datagrams), SLOTS):
            failed = self._io.send(
                self.sock, datagrams[first : first + SLOTS], self.peer is not None
            )
            failures += [(first + index, error) for index, error in failed]
        return failures


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
    """`length`: octets of the datagram received."""

    _fields_ = [("message", _MsgHdr), ("length", ctypes.c_uint)]


# A slot: NAME octets for a socket address (struct sockaddr_in6 has 28), then the datagram.
# STRIDE is no power of two, so that the beginnings of all slots do not share CPU cache lines.
NAME = 32
STRIDE = NAME + MAX_DATAGRAM + 1 + 4096 + 64
STARTS = [slot * STRIDE + NAME for slot in range(SLOTS)]
NAME_LENGTH = {socket.AF_INET: 16, socket.AF_INET6: 28}
NAMES = {
    size: [slice(at - NAME, at - NAME + size) for at in STARTS] for size in NAME_LENGTH.values()
}
HEADER = ctypes.sizeof(_MmsgHdr)


class MmsgIO(DatagramIO):
    """recvmmsg and sendmmsg, for one thread. Raises OSError if the C library has neither."""

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
            return _send_each(sock, datagrams)  # which reports the one at fault
        box.rooms[:count] = memoryview(struct.pack(f"@{count}P", *sizes)).cast("P")
        headers, failures, done = box.headers(size).address, [], 0
        # sendmmsg stops before the first that fails, and reports the error once that is the first
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
        """The address in a struct sockaddr_in or sockaddr_in6, as Python's sockets return it."""
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
        """The struct sockaddr_in or sockaddr_in6 for an address. Raises OSError, ValueError or
        struct.error where it cannot be packed, as with an IPv6 zone."""
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
    """The mmsghdr array for sockets whose addresses have `size` octets; 0: connected sockets.
    `lengths`: a view of the received lengths. `controls`: with room for ancillary data."""

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
        view, word = memoryview(self._headers).cast("B"), ctypes.sizeof(ctypes.c_size_t)
        self.lengths = view.cast("I")[_MmsgHdr.length.offset // 4 :: HEADER // 4]
        self._rooms = view.cast("P")[_MsgHdr.control_length.offset // word :: HEADER // word]
        self._full = memoryview(struct.pack(f"@{SLOTS}P", *[CONTROL] * SLOTS)).cast("P")

    def room_for_controls(self) -> None:
        """Sets msg_controllen to the room there is, before each call."""
        self._rooms[:] = self._full

    def control(self, slot: int, field: slice) -> bytes:
        at = slot * CONTROL
        return bytes(self._told[at + field.start : at + field.stop])


class _Slots:
    """Memory for SLOTS datagrams with their addresses, and the headers that point there."""

    def __init__(self) -> None:
        self.area = mmap.mmap(-1, SLOTS * STRIDE)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self.area))
        self._vectors = (_IoVec * SLOTS)(*(_IoVec(self._base + at, MAX_DATAGRAM) for at in STARTS))
        # All iov_len of the vectors in one view ("P" is as wide as size_t).
        self.rooms = memoryview(self._vectors).cast("B").cast("P")[1::2]
        self._headers: dict[tuple[int, bool], _Headers] = {}

    def headers(self, size: int, controls: bool = False) -> _Headers:
        known = self._headers.get((size, controls))
        if not known:
            vectors = ctypes.addressof(self._vectors)
            known = self._headers[size, controls] = _Headers(self._base, vectors, size, controls)
        return known


def fastest_io() -> DatagramIO:
    """The cheapest DatagramIO of this system, for one thread."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return MmsgIO()
    return SINGLE_IO


def _receive_one(sock: socket.socket, local: LocalAddresses) -> Datagram:
    data, told, _, source = sock.recvmsg(MAX_DATAGRAM, CONTROL)
    local.note_ancillary(source[:2], told)
    return data, source[:2]


def _send_each(
    sock: socket.socket,
    datagrams: Sequence[Outgoing],
    unlike: Mapping[Address, list[Ancillary]] | None = None,
) -> list[Failure]:
    """Sends them one by one, to each target in `unlike` from the address that it uses."""
    failures: list[Failure] = []
    for index, (data, target) in enumerate(datagrams):
        try:
            if not target:
                sock.send(data)
            elif unlike and (told := unlike.get(target)):
                sock.sendmsg([data], told, 0, target)
            else:
                sock.sendto(data, target)
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
    """ "%eth0", as getnameinfo(3) writes it; "%2" once that interface is gone."""
    try:
        return f"%{socket.if_indextoname(scope)}" if scope else ""
    except OSError:
        return f"%{scope}"


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
