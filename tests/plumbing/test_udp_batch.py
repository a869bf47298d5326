"""plumbing.udp_batch: many datagrams in one call, and the same one by one where the system has no
such call."""

from __future__ import annotations

import random
import socket
import sys
from contextlib import contextmanager

import pytest

from plumbing import udp_batch
from plumbing.udp_batch import LOOK_EVERY, MAX_DATAGRAM, SLOTS, Channel, DatagramIO, MmsgIO
from plumbing.udp_socket import bind_udp

MOST = 65_507  # what UDP over IPv4 carries
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="recvmmsg and sendmmsg are Linux's")
IOS = [pytest.param(DatagramIO, id="singly"), pytest.param(MmsgIO, id="batches", marks=LINUX)]


@pytest.fixture(params=IOS)
def io(request):
    return request.param()


@contextmanager
def pair(io, host="127.0.0.1", connected=False):
    with bind_udp((host, 0)) as one, bind_udp((host, 0)) as other:
        if connected:
            one.connect(other.getsockname())
            other.connect(one.getsockname())
        yield Channel(one, io), Channel(other, io)


def target_of(channel, other):
    return None if channel.peer else other.sock.getsockname()[:2]


def everything(channel):
    found = []
    while True:
        datagrams, error = channel.drain()
        assert error is None
        if not datagrams:
            return found
        found += datagrams


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_all_come_whole_and_in_order_whatever_their_size(io, host, connected):
    sizes = [0, 1, 500, 1472, 4096, 9000, MOST, 3, 0, MOST, 700]
    with pair(io, host, connected) as (here, there):
        texts = [random.Random(n).randbytes(size) for n, size in enumerate(sizes)]
        assert there.send([(text, target_of(there, here)) for text in texts]) == []
        assert everything(here) == [(text, there.sock.getsockname()[:2]) for text in texts]


@pytest.mark.parametrize("connected", [False, True])
def test_more_datagrams_than_slots_need_more_than_one_batch_and_nobody_notices(io, connected):
    with pair(io, connected=connected) as (here, there):
        texts = [b"%d" % n for n in range(2 * SLOTS + 5)]
        assert there.send([(text, target_of(there, here)) for text in texts]) == []
        first, error = here.drain()
        assert len(first) == SLOTS and error is None
        assert [data for data, _ in first + everything(here)] == texts


def test_a_slot_remembers_nothing_of_what_it_held_before(io):
    with pair(io) as (here, there), pair(io) as (_, stranger):
        target = here.sock.getsockname()
        for sender, letter in (
            (there, b"a" * 3000),
            (stranger, b"b"),
            (there, b"c" * 10),
            (stranger, b""),
        ):
            sender.send([(letter, target)] * 5)
            assert everything(here) == [(letter, sender.sock.getsockname())] * 5


def test_each_datagram_says_where_it_is_from_and_goes_where_it_is_to(io):
    with pair(io) as (here, there), pair(io) as (other, stranger):
        here.send(
            [(b"%d" % n, (there if n % 3 else stranger).sock.getsockname()) for n in range(12)]
        )
        assert [int(data) for data, _ in everything(stranger)] == [0, 3, 6, 9]
        assert [int(data) for data, _ in everything(there)] == [1, 2, 4, 5, 7, 8, 10, 11]
        for n in range(6):
            (there if n % 2 else other).send([(b"%d" % n, here.sock.getsockname())])
        origins = [other.sock.getsockname(), there.sock.getsockname()] * 3
        assert everything(here) == [(b"%d" % n, origins[n]) for n in range(6)]


def test_an_empty_socket_is_no_error(io):
    with pair(io) as (here, _):
        assert [here.receive() for _ in range(3 * LOOK_EVERY)] == [([], None)] * 3 * LOOK_EVERY


def test_what_cannot_be_sent_says_so_and_stops_no_other(io):
    with pair(io) as (here, there):
        good = there.sock.getsockname()
        refused = [
            (b"x", ("127.0.0.1", 0)),
            (b"broadcast", ("255.255.255.255", 5060)),
            (b"x" * (MOST + 1), good),
            (b"x" * (MAX_DATAGRAM + 10_000), good),
            (b"the other family", ("::1", 5060)),
            (b"no port", ("127.0.0.1", 70_000)),
        ]
        datagrams = [item for n, one in enumerate(refused) for item in ((b"%d" % n, good), one)] + [
            (b"last", good)
        ]
        failures = here.send(datagrams)
        assert [index for index, _ in failures] == [1, 3, 5, 7, 9, 11]
        assert all(str(error) for _, error in failures)
        assert [data for data, _ in everything(there)] == [
            b"0",
            b"1",
            b"2",
            b"3",
            b"4",
            b"5",
            b"last",
        ]


def test_one_that_the_system_refuses_in_the_middle_of_a_batch_stops_no_other(io):
    """Such as the kernel alone can tell: nothing is wrong with the address as such."""
    with pair(io) as (here, there):
        good = there.sock.getsockname()
        failures = here.send(
            [(b"a", good), (b"b", ("255.255.255.255", 5060)), (b"c", good), (b"d", good)]
        )
        assert [(index, type(error)) for index, error in failures] == [(1, PermissionError)]
        assert [data for data, _ in everything(there)] == [b"a", b"c", b"d"]


def test_a_peer_that_is_gone_refuses_the_next_send(io, eventually):
    with pair(io, connected=True) as (here, there):
        there.sock.close()
        assert here.send([(b"lost", None)]) == []
        failures = []
        eventually(lambda: failures.extend(here.send([(b"x", None)] * 4)) or failures)
        assert isinstance(failures[0][1], ConnectionRefusedError)


@pytest.mark.parametrize("connected", [True])
def test_a_peer_that_is_gone_refuses_the_next_receive_and_what_it_had_said_still_comes(
    io, connected
):
    with pair(io, connected=connected) as (here, there):
        there.send([(b"%d" % n, None) for n in range(5)])
        there.sock.close()
        here.send([(b"anybody?", None)])
        found, errors = [], []
        while len(found) < 5 or not errors:
            datagrams, error = here.drain()
            assert datagrams or error
            found += [data for data, _ in datagrams]
            errors += [error] if error else []
        assert found == [b"0", b"1", b"2", b"3", b"4"]
        assert [type(error) for error in errors] == [ConnectionRefusedError]


def test_a_closed_socket_is_an_error(io):
    with pair(io) as (here, there):
        here.sock.close()
        assert all(isinstance(here.receive()[1], OSError) for _ in range(LOOK_EVERY + 1))
        failures = here.send([(b"x", there.sock.getsockname())] * 5)
        assert [index for index, _ in failures] == [0, 1, 2, 3, 4]


def test_a_channel_takes_many_at_a_time_while_there_are_many(io):
    with pair(io) as (here, there):
        there.send([(b"%d" % n, here.sock.getsockname()) for n in range(200)])
        taken, turns = 0, 0
        while taken < 200:
            datagrams, error = here.receive()
            assert error is None
            taken, turns = taken + len(datagrams), turns + 1
        assert turns < LOOK_EVERY + 200 / SLOTS + 2
        for _ in range(LOOK_EVERY + 1):  # and one at a time when there is one at a time
            there.send([(b"x", here.sock.getsockname())])
            assert here.receive() == ([(b"x", there.sock.getsockname())], None)


def test_more_strangers_than_are_remembered_are_still_told_apart(io, monkeypatch):
    monkeypatch.setattr(udp_batch, "MAX_KNOWN", 4)
    with (
        pair(io) as (here, _),
        pair(io) as (a, b),
        pair(io) as (c, d),
        pair(io) as (e, f),
    ):
        for n in range(30):
            (a, b, c, d, e, f)[n % 6].send([(b"%d" % n, here.sock.getsockname())])
        heard = everything(here)
        names = [channel.sock.getsockname() for channel in (a, b, c, d, e, f)]
        assert heard == [(b"%d" % n, names[n % 6]) for n in range(30)]
        assert here.send([(b"back", source) for _, source in heard]) == []
        assert len(everything(f)) == 5


@LINUX
def test_linux_gets_batches_and_a_c_library_without_them_gets_none(monkeypatch):
    assert isinstance(udp_batch.fastest_io(), MmsgIO)
    monkeypatch.setattr(udp_batch.ctypes, "CDLL", lambda *_, **__: object())
    assert type(udp_batch.fastest_io()) is DatagramIO


def test_other_systems_get_one_by_one(monkeypatch):
    monkeypatch.setattr(udp_batch.sys, "platform", "darwin")
    assert type(udp_batch.fastest_io()) is DatagramIO


@LINUX
def test_an_address_with_a_zone_reads_as_the_system_reads_it():
    index, name = socket.if_nameindex()[0]
    packed = socket.inet_pton(socket.AF_INET6, "fe80::1")
    raw = socket.AF_INET6.to_bytes(2, sys.byteorder) + (5060).to_bytes(2, "big") + bytes(4) + packed
    assert MmsgIO()._host(raw + index.to_bytes(4, sys.byteorder)) == (f"fe80::1%{name}", 5060)


@LINUX
def test_the_zone_of_an_interface_that_is_gone_is_its_number():
    packed = socket.inet_pton(socket.AF_INET6, "fe80::1")
    raw = socket.AF_INET6.to_bytes(2, sys.byteorder) + (5060).to_bytes(2, "big") + bytes(4) + packed
    assert MmsgIO()._host(raw + (1_000_000).to_bytes(4, sys.byteorder)) == (
        "fe80::1%1000000",
        5060,
    )
