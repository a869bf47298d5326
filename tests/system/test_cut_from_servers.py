"""Two forwarders on two hosts; the way of one to the servers is cut, or of both, or breaks off and
comes back: the address goes to one that sees servers, stays where none does, and nobody is refused
because it moved.

Real keepalived, forwarders, servers and phones, as in test_takeover.py, from which the story is.
"""

from __future__ import annotations

import time

import pytest
from hosts_kit import allow, forbid
from takeover_kit import FIRST, SECOND

pytestmark = pytest.mark.long

SOON = 0.8  # seconds until requests are answered again
ALL_IS_LOST = 3.0  # seconds of an outage of everything


def stays(told, host, seconds):
    """The address is there and nowhere else, all the time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        told.is_at(host)
        time.sleep(0.05)


def test_the_active_one_is_cut_from_its_servers_and_the_other_one_gets_the_address(story, outage):
    told = story()
    told.pair.network.cut(FIRST)
    told.is_at(SECOND)
    told.serves()
    told.pair.network.heal(FIRST)
    told.serves()
    told.is_at(SECOND)  # who has it keeps it
    told.ends()
    outage(told, "cut from its servers", SOON)
    assert told.pair.moves() == 1


def test_who_hangs_up_and_calls_in_the_moment_of_the_cut_is_heard_by_the_other_one(story):
    told = story()
    told.pair.network.cut(FIRST)
    told.hangs_up()
    told.is_at(SECOND)
    told.pair.network.heal(FIRST)
    told.serves()
    told.pair.network.cut(SECOND)
    told.calls()
    told.is_at(FIRST)
    assert told.meter.refused == []


def test_what_its_own_firewall_forbids_is_no_different(story, outage):
    told = story(unicast=True)
    forbid(FIRST)
    told.is_at(SECOND)
    told.serves()
    allow(FIRST)
    told.ends()
    outage(told, "its firewall refuses its servers", SOON)
    assert told.pair.moves() == 1


def test_whose_way_is_mended_gets_it_back_when_the_other_one_is_cut_in_the_same_moment(
    story, outage
):
    told = story()
    told.pair.network.cut(FIRST)
    told.is_at(SECOND)
    told.serves()
    told.pair.network.heal(FIRST)
    told.pair.network.cut(SECOND)
    told.is_at(FIRST)
    told.serves()
    told.ends()
    outage(told, "cut one after the other", SOON)
    assert told.pair.moves() == 2


def test_where_neither_sees_a_server_the_address_stays_and_all_works_when_they_are_back(
    story, eventually
):
    told = story()
    for host in (FIRST, SECOND):
        told.pair.network.cut(host)
    stays(told, FIRST, ALL_IS_LOST)
    eventually(lambda: told.meter.refused)
    assert set(told.meter.refused) == {b"SIP/2.0 503 Service Unavailable"}, (
        "no longer a matter of the address"
    )
    for host in (SECOND, FIRST):
        told.pair.network.heal(host)
    told.serves()
    told.ends()
    assert told.pair.moves() == 0


def test_a_standby_that_sees_none_does_not_get_it_and_one_that_sees_them_again_does(story):
    told = story()
    told.pair.network.cut(SECOND)
    stays(told, FIRST, 1.0)
    told.pair.network.cut(FIRST)
    stays(told, FIRST, 1.5)
    told.pair.network.heal(SECOND)
    told.is_at(SECOND)
    told.serves()
    told.ends()
    assert told.pair.moves() == 1


def test_one_whose_way_to_its_servers_flaps_loses_the_address_once(story, outage):
    told = story()
    for _ in range(8):
        told.pair.network.cut(FIRST)
        time.sleep(0.6)  # the fault itself
        told.pair.network.heal(FIRST)
        time.sleep(0.4)
    told.serves()
    told.is_at(SECOND)
    told.ends()
    outage(told, "its way to the servers flaps", SOON)
    assert told.pair.moves() == 1


def test_where_both_ways_flap_in_turn_the_address_moves_ever_more_rarely(story):
    told = story()
    began = time.monotonic()
    cut, whole = FIRST, SECOND
    while time.monotonic() < began + 16.0:
        told.pair.network.cut(cut)
        time.sleep(0.8)
        told.pair.network.heal(cut)
        cut, whole = whole, cut
    told.serves()
    assert 1 <= told.pair.moves() <= 8, "of 20 times that the one that had it was cut off"
    told.ends()


def test_a_standby_that_hangs_does_not_get_it_though_it_saw_servers_when_it_was_heard_last(story):
    told = story()
    told.pair.forwarders[SECOND].freeze()
    told.has_said(SECOND, "Entering FAULT STATE")
    told.pair.network.cut(FIRST)
    stays(told, FIRST, 3.0)
    told.pair.forwarders[SECOND].thaw()
    told.is_at(SECOND)
    told.serves()
    told.ends()
    assert told.pair.moves() == 1


def test_who_comes_back_from_a_black_hole_refuses_nobody(story, outage):
    told = story()
    for host, other in ((FIRST, SECOND), (SECOND, FIRST), (FIRST, SECOND)):
        told.pair.network.blackhole(host)
        told.is_at(FIRST, SECOND)  # nobody has told it
        told.serves()
        told.serves(400)  # for long enough that it sees no server any more
        told.pair.network.mend(host)
        told.is_at(other)
        told.serves()
    told.ends()
    outage(told, "three black holes", 0.4)
