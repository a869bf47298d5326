"""The limit per source: who is dropped, what is kept for calls, and that strangers cannot fill its
table."""

from __future__ import annotations

from collections import Counter

import pytest

from failover.config.networks import LOOPBACK, Networks
from failover.proxy import rate_limit
from failover.proxy.rate_limit import RateLimit

INVITE, BYE = b"INVITE sip:bob@failover.test SIP/2.0\r\n", b"BYE sip:bob@failover.test SIP/2.0\r\n"
ALICE, MALLORY = "192.0.2.7", "203.0.113.66"


def make(rate=10, burst=20, exempt=LOOPBACK):
    return RateLimit(rate, burst, exempt, Counter())


def admitted(limit, count, host=MALLORY, data=INVITE, now=100.0):
    return sum(limit.admits(data, host, now) for _ in range(count))


def test_a_flood_is_cut_to_the_burst_and_then_to_the_rate():
    one = make()
    assert admitted(one, 1000) == 15, "three quarters of the burst begin something"
    assert [admitted(one, 1000, now=100.0 + n) for n in range(1, 5)] == [10] * 4


def test_a_large_datagram_counts_for_as_many_as_it_could_have_been():
    assert admitted(make(), 100, data=INVITE + b"x" * 7500) == 2
    one = make()
    assert admitted(one, 100, data=BYE + b"x" * 3000) == 6 and admitted(one, 100, data=BYE) == 2


def test_others_do_not_notice():
    one = make()
    admitted(one, 100_000)
    assert admitted(one, 15, host=ALICE) == 15


@pytest.mark.parametrize(
    "data", [BYE, b"ACK sip:x SIP/2.0", b"CANCEL sip:x SIP/2.0", b"SIP/2.0 200 OK"]
)
def test_what_belongs_to_calls_still_passes_when_nothing_new_does(data):
    one = make()
    admitted(one, 1000)
    assert admitted(one, 5, data=data) == 5
    assert admitted(one, 1, data=data) == 0, "for a flood of those is a flood too"


def test_a_source_that_keeps_quiet_has_its_whole_burst_again_and_no_more():
    one = make()
    admitted(one, 1000)
    assert admitted(one, 1000, now=100_000.0) == 15


def test_of_ipv6_a_network_is_one_source_for_a_host_may_have_all_its_addresses():
    one = make()
    assert sum(one.admits(INVITE, f"2001:db8::{n:x}", 100.0) for n in range(1000)) == 15
    assert admitted(one, 1, host="2001:db8:0:1::1") == 1
    assert len(one) == 2


def test_exempt_networks_and_a_rate_of_zero_limit_nobody():
    assert admitted(make(), 1000, host="127.0.0.9") == admitted(make(), 1000, host="::1") == 1000
    assert admitted(make(exempt=Networks.parse("203.0.113.0/24")), 1000) == 1000
    assert admitted(make(rate=0), 1000) == 1000


def test_a_burst_of_one_lets_calls_begin():
    assert admitted(make(burst=1), 5) == 1
    assert admitted(make(burst=0), 5) == 1


def test_forged_sources_cannot_fill_the_table(monkeypatch):
    monkeypatch.setattr(rate_limit, "MAX_SOURCES", 100)
    counters = Counter()
    one = RateLimit(10, 20, LOOPBACK, counters)
    for n in range(1000):
        assert one.admits(INVITE, f"198.51.{n // 250}.{n % 250}", 100.0)
    assert len(one) == 100 and counters["limit.forgotten"] == 900


@pytest.mark.parametrize("later", [0.0, 0.5])
def test_ten_thousand_forged_sources_give_one_that_floods_no_second_burst(later):
    one = make()
    admitted(one, 1000)
    for n in range(30_000):
        assert one.admits(INVITE, f"198.{n >> 16}.{n >> 8 & 255}.{n & 255}", 100.0 + later), (
            "each has its own"
        )
    assert admitted(one, 1000, now=100.0 + later) == int(10 * later), (
        "and it has what a second gives, no more"
    )


@pytest.mark.parametrize("of_calls", [False, True])
def test_where_all_sources_of_the_table_are_limited_who_comes_back_is_limited_too(
    monkeypatch, of_calls
):
    monkeypatch.setattr(rate_limit, "MAX_SOURCES", 500)
    one = make()
    hosts = [f"198.51.{n // 250}.{n % 250}" for n in range(500)]
    for host in hosts:
        admitted(one, 30, host=host, data=BYE if of_calls else INVITE)
    for host in (ALICE, *hosts, *(f"203.0.113.{n}" for n in range(250)), *hosts):
        assert admitted(one, 30, host=host) == 0, "to be forgotten is no way to a full bucket"
    assert len(one) == 500
    assert admitted(one, 30, host=ALICE, now=101.0) > 0, (
        "a second later there is room for somebody new"
    )


def test_forgetting_makes_no_tokens(monkeypatch):
    """Whoever sends whatever: all together get what the table of buckets holds, and what time adds
    to it."""
    monkeypatch.setattr(rate_limit, "MAX_SOURCES", 50)
    one = make()
    passed = sum(one.admits(BYE, f"198.51.{n // 250}.{n % 250}", 100.0) for n in range(5_000))
    assert passed == 50 * 20


def test_an_exempt_host_stays_exempt_whoever_else_sends(monkeypatch):
    monkeypatch.setattr(rate_limit, "MAX_SOURCES", 50)
    one = make(exempt=Networks.parse("192.0.2.7, 2001:db8::7"))
    assert admitted(one, 100, host="2001:db8::8") == 15, "of its /64 one host is exempt"
    for n in range(5_000):
        one.admits(INVITE, f"198.51.{n // 250}.{n % 250}", 100.0)
        assert one.admits(INVITE, ALICE, 100.0) and one.admits(INVITE, "2001:db8::7", 100.0)
    assert (
        one.is_exempt(ALICE) and one.is_exempt("2001:db8::7") and not one.is_exempt("2001:db8::8")
    )
    assert len(one) == 50
