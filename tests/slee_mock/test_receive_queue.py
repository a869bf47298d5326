"""What a busy server handles first."""

from __future__ import annotations

import socket

import pytest

from plumbing.udp_batch import Channel, fastest_io
from plumbing.udp_socket import bind_udp
from slee_mock import receive_queue
from slee_mock.receive_queue import ReceiveQueue


@pytest.fixture
def pair():
    """(a socket that hears, one that is connected to it)"""
    with (
        bind_udp(("127.0.0.1", 0)) as ours,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs,
    ):
        theirs.connect(ours.getsockname())
        yield ours, theirs


def filled(pair, *sent, frozen_seconds=0.0):
    ours, theirs = pair
    for data in sent:
        theirs.send(data)
    waiting = ReceiveQueue(lambda: 100.0)
    waiting.fill(Channel(ours, fastest_io()), frozen_seconds)
    return waiting


def taken(waiting, most):
    return [datagram.data for datagram in waiting.take(most)]


def test_a_server_that_was_frozen_takes_no_old_registration_or_call_out_of_its_socket(pair):
    sent = (b"REGISTER 1", b"BYE 2", b"OPTIONS 3", b"INVITE 4")
    waiting = filled(pair, *sent, frozen_seconds=16.5)
    assert waiting.dropped == {"stale": 2}
    assert taken(waiting, 9) == [b"OPTIONS 3", b"BYE 2"]
    pair[1].send(b"REGISTER 1")
    waiting.fill(Channel(pair[0], fastest_io()))
    assert waiting.dropped == {"stale": 2}, "no repetition of what is gone"
    assert taken(waiting, 9) == [b"REGISTER 1"]


def test_a_heartbeat_does_not_wait_behind_the_work(pair):
    waiting = filled(pair, b"INVITE 1", b"INVITE 2", b"BYE 3", b"OPTIONS 4")
    assert taken(waiting, 2) == [b"OPTIONS 4", b"INVITE 1"]
    assert taken(waiting, 9) == [b"INVITE 2", b"BYE 3"] and len(waiting) == 0


def test_a_flood_of_questions_leaves_the_work_every_other_turn(pair):
    waiting = filled(pair, *[f"OPTIONS {n}".encode() for n in range(8)], b"INVITE 1", b"INVITE 2")
    assert taken(waiting, 4) == [b"OPTIONS 0", b"INVITE 1", b"OPTIONS 1", b"INVITE 2"]
    assert len(taken(waiting, 99)) == 6


def test_what_there_is_no_room_for_stays_in_the_socket(pair, monkeypatch):
    monkeypatch.setattr(receive_queue, "MOST_WAITING", 2)
    waiting = filled(pair, b"BYE 1", b"BYE 2", b"BYE 3")
    assert taken(waiting, 9) == [b"BYE 1", b"BYE 2"]
    waiting.fill(Channel(pair[0], fastest_io()))
    assert taken(waiting, 9) == [b"BYE 3"]


def test_who_asks_again_while_the_first_one_waits_makes_no_more_work(pair):
    waiting = filled(pair, b"INVITE 1", b"BYE 2")
    pair[1].send(b"INVITE 1")
    waiting.fill(Channel(pair[0], fastest_io()))
    assert waiting.dropped == {"repeated": 1}
    assert taken(waiting, 9) == [b"INVITE 1", b"BYE 2"]
    pair[1].send(b"INVITE 1")
    waiting.fill(Channel(pair[0], fastest_io()))
    assert waiting.dropped == {"repeated": 1}
    assert taken(waiting, 9) == [b"INVITE 1"], "the answer to the first one may have been lost"
