"""Which of two forwarders is active: the table of roles and events, and the reasons given."""

from __future__ import annotations

import pytest

from failover.net.active_standby import (
    ACTIVE,
    BOUND,
    CHECK_INTERVAL,
    ELSEWHERE,
    HELD,
    HERE,
    STANDBY,
    TRANSITIONS,
    AddressEvent,
    HaState,
    Role,
)

FRESH = HaState("192.0.2.10:5060", STANDBY, 100.0, "has just started")


def after(*events, state=FRESH):
    for second, event in enumerate(events, 101):
        state = state.after(event, float(second))
    return state


def test_every_role_says_what_follows_from_each_event_it_can_meet():
    assert set(TRANSITIONS) == set(CHECK_INTERVAL) == set(Role)
    assert {event for events in TRANSITIONS.values() for event in events} == set(AddressEvent)
    for role, events in TRANSITIONS.items():
        for event, following in events.items():
            assert after(event, state=HaState("a:1", role, 0.0, "", HELD)).role is following


@pytest.mark.parametrize("events, event", [((), HERE), ((BOUND,), BOUND), ((BOUND,), HELD)])
def test_what_is_not_in_the_table_is_an_error(events, event):
    with pytest.raises(KeyError):
        after(*events, event)


def test_one_that_finds_the_address_free_at_the_start_is_active():
    one = after(BOUND)
    assert (one.role, one.since, one.why) == (
        ACTIVE,
        101.0,
        "192.0.2.10:5060 was free at the start",
    )
    assert after(HERE, HERE, state=one) is one


def test_one_that_finds_it_held_stands_by_until_it_is_free():
    one = after(HELD, HELD, HELD)
    assert (one.role, one.since, one.why) == (
        STANDBY,
        100.0,
        "192.0.2.10:5060 is held by another program",
    )
    assert one.after(HELD, 200.0) is one
    two = one.after(BOUND, 201.0)
    assert (two.role, two.since) == (ACTIVE, 201.0)
    assert two.why == "192.0.2.10:5060 is free, the program that held it is gone"


def test_one_whose_address_is_elsewhere_stands_by_until_it_has_come_and_again_once_it_has_left():
    one = after(ELSEWHERE)
    assert (one.role, one.why) == (
        STANDBY,
        "192.0.2.10:5060 is not an address of this computer now",
    )
    two = after(ELSEWHERE, HELD, ELSEWHERE, BOUND)
    assert (two.role, two.why) == (ACTIVE, "192.0.2.10:5060 is an address of this computer now")
    three = two.after(ELSEWHERE, 200.0)
    assert (three.role, three.since, three.why) == (STANDBY, 200.0, one.why)
