"""Two forwarders on two hosts share an address that keepalived moves: whatever befalls the one that
has it, the call that is going on ends with a BYE that is answered and a bill that is right, and new
requests are soon answered again.

Real keepalived with exactly the files of examples/keepalived, real forwarders, servers and phones,
on the network of hosts_kit.py. Each test prints its outage: the time between the last request that
was answered before it and the first one after, of one every four milliseconds, none of which is
ever repeated.
"""

from __future__ import annotations

import pytest
from hosts_kit import deafen, hear
from takeover_kit import FIRST, HASTE, SECOND

pytestmark = pytest.mark.long


def test_the_active_forwarder_is_killed(story, outage):
    told = story()
    told.pair.forwarders[FIRST].kill()
    told.is_at(SECOND)
    told.serves()
    told.ends()
    outage(told, "forwarder killed", HASTE)


def test_a_forwarder_that_comes_back_stands_by_and_takes_over_when_its_turn_comes(story, outage):
    told = story(unicast=True)
    told.pair.forwarders[FIRST].kill()
    told.is_at(SECOND)
    told.pair.forwarders[FIRST].is_ready_again()
    told.serves()
    told.is_at(SECOND)
    told.pair.forwarders[SECOND].kill()
    told.is_at(FIRST)
    told.serves()
    told.ends()
    outage(told, "one killed after the other", HASTE)


def test_keepalived_of_the_active_one_is_killed_and_leaves_the_address_behind(story, outage):
    told = story()
    told.pair.keepers[FIRST].kill()
    told.is_at(FIRST, SECOND)
    told.is_at(SECOND)  # once systemd has started it again
    told.serves()
    told.ends()
    outage(told, "keepalived killed", HASTE)


def test_the_link_of_the_active_one_is_unplugged(story, outage):
    told = story()
    told.pair.network.unplug(FIRST)
    told.is_at(SECOND)
    told.serves()
    told.pair.network.plug(FIRST)
    told.serves()
    told.is_at(SECOND)
    told.ends()
    outage(told, "unplugged, and plugged in again", HASTE)


def test_the_active_one_vanishes_in_a_black_hole_and_comes_back(story, outage):
    told = story()
    told.pair.network.blackhole(FIRST)
    told.is_at(FIRST, SECOND)  # nobody has told it
    told.serves()
    told.pair.network.mend(FIRST)
    told.is_at(SECOND)  # of two that have it the one that sees servers keeps it
    told.serves()
    told.ends()
    outage(told, "black hole, and back", HASTE)


def test_who_hangs_up_while_nobody_has_the_address_is_heard_and_billed_all_the_same(story, outage):
    told = story()
    told.pair.network.blackhole(FIRST)
    told.hangs_up()
    told.is_at(FIRST, SECOND)
    told.serves()
    outage(told, "black hole, and a BYE into it", HASTE)


def test_both_have_the_address_and_then_hear_of_one_another(story, outage):
    told = story()
    for host in (FIRST, SECOND):
        deafen(host)
    told.is_at(FIRST, SECOND)
    told.serves()
    for host in (FIRST, SECOND):
        hear(host)
    told.is_at(FIRST)
    told.serves()
    told.ends()
    outage(told, "split brain, and healed", HASTE)


def test_a_polite_stop(story, outage):
    told = story()
    told.pair.forwarders[FIRST].stop()
    told.is_at(SECOND)
    told.serves()
    told.ends()
    outage(told, "polite stop", 0.1)


def test_a_forwarder_that_hangs_is_found_out_by_asking_it(story, outage):
    told = story()
    told.pair.forwarders[FIRST].freeze()
    told.is_at(SECOND)
    told.serves()
    told.pair.forwarders[FIRST].thaw()
    told.serves()
    told.is_at(SECOND)
    told.ends()
    outage(told, "forwarder frozen, with no watchdog to end it", 4.0)
