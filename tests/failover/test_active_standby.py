"""Who of two forwarders is active: the table of roles and signs, and what is said about it."""

from __future__ import annotations

import pytest

from failover.net.active_standby import (
    ACTIVE,
    BOUND,
    ELSEWHERE,
    HELD,
    HERE,
    LOOK,
    STANDBY,
    STANDING,
    Role,
    Sign,
    Standing,
)

FRESH = Standing("192.0.2.10:5060", STANDBY, 100.0, "has just started")


def after(*signs, standing=FRESH):
    for second, sign in enumerate(signs, 101):
        standing = standing.after(sign, float(second))
    return standing


def test_every_role_says_what_follows_from_each_sign_it_can_meet():
    assert set(STANDING) == set(LOOK) == set(Role)
    assert {sign for signs in STANDING.values() for sign in signs} == set(Sign)
    for role, signs in STANDING.items():
        for sign, following in signs.items():
            assert after(sign, standing=Standing("a:1", role, 0.0, "", HELD)).role is following


@pytest.mark.parametrize("signs, sign", [((), HERE), ((BOUND,), BOUND), ((BOUND,), HELD)])
def test_what_is_not_in_the_table_is_an_error(signs, sign):
    with pytest.raises(KeyError):
        after(*signs, sign)


def test_one_that_finds_the_address_free_at_the_start_is_active():
    one = after(BOUND)
    assert (one.role, one.since, one.why) == (
        ACTIVE,
        101.0,
        "192.0.2.10:5060 was free at the start",
    )
    assert after(HERE, HERE, standing=one) is one


def test_one_that_finds_it_held_stands_by_until_it_is_free():
    one = after(HELD, HELD, HELD)
    assert (one.role, one.since, one.why) == (
        STANDBY,
        100.0,
        "192.0.2.10:5060 is held by another forwarder",
    )
    assert one.after(HELD, 200.0) is one
    two = one.after(BOUND, 201.0)
    assert (two.role, two.since) == (ACTIVE, 201.0)
    assert two.why == "192.0.2.10:5060 is free, the forwarder that held it is gone"


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
