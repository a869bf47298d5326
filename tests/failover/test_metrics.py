"""/metrics as Prometheus reads it, whatever state the servers are in and whatever they are
called."""

from __future__ import annotations

import pytest
from forwarder_kit import ACTIVE_ONE, ALICE, answer, make_core, request
from prometheus_kit import read

from failover.admin.metrics import metrics
from failover.config.settings import FIRST_LIVE, PHONES
from failover.upstream.health import ANSWER, MISS, REFUSED
from failover.upstream.server_table import AdminState


def told(core, now=110.0):
    return read(metrics(core, ACTIVE_ONE, 100.0, now, 1_700_000_010.0))


def of(families, name, **labels):
    return families[f"forwarder_{name}"][1][tuple(sorted(labels.items()))]


def test_a_fresh_forwarder_is_valid_and_says_who_is_hot():
    families = told(make_core())
    assert of(families, "server_status", server="server1", state="UP") == 1
    assert of(families, "server_status", server="server1", state="DOWN") == 0
    assert (
        of(families, "server_hot", server="server1") == 1
        and of(families, "server_hot", server="server2") == 0
    )
    assert (
        of(families, "process_start_time_seconds") == 1_700_000_000.0
        and of(families, "uptime_seconds") == 10.0
    )
    assert of(families, "servers_live") == 2
    assert "forwarder_events_total" not in families, (
        "nothing was counted yet, and a family is never empty"
    )
    assert all(name.startswith("forwarder_") for name in families)


def test_a_failover_shows_in_all_that_it_changes():
    core = make_core()
    core.receive(
        answer(core.receive(request(), PHONES, ALICE, 100.0).sends[0].data), "server1", ALICE, 100.1
    )
    core.receive(request(branch="z9hG4bK2"), PHONES, ALICE, 100.2)
    core.failover.signal("server2", MISS, 100.5, "")
    core.failover.signal("server1", REFUSED, 101.0, "refused")
    core.failover.signal("server1", ANSWER, 103.0, "answers")
    core.failover.set_admin_state("server2", AdminState.DRAINING, 104.0)
    families = told(core, 105.0)
    assert of(families, "server_status", server="server1", state="RECOVERING") == 1
    assert of(families, "server_check_up_down_total", server="server1") == 1
    assert of(families, "server_downtime_seconds_total", server="server1") == 4.0
    assert of(families, "server_check_failures_total", server="server2") == 1
    assert of(families, "server_requests_total", server="server1") == 2
    assert of(families, "server_responses_total", server="server1") == 1
    assert of(families, "server_wish", server="server2", wish="DRAINING") == 1
    assert of(families, "server_open", server="server2") == 0
    assert of(families, "failovers_total") == 1 and of(families, "replayed_total") == 1
    assert of(families, "in_flight") == 1
    assert of(families, "events_total", what="passed.requests") == 3


@pytest.mark.parametrize(
    "name", ['quo"te', "back\\slash", "[::1]:5070", "line\nfeed", "ünïcode", "a,b=c}"]
)
def test_any_name_of_a_server_is_a_valid_label_and_reads_as_it_is(name):
    core = make_core(FIRST_LIVE, {name: ("192.0.2.11", 5070)})
    assert of(told(core), "server_hot", server=name) == 1


def test_without_servers_it_is_valid_too():
    assert of(told(make_core(FIRST_LIVE, {})), "servers_live") == 0


@pytest.mark.parametrize(
    "text, fault",
    [
        ("# TYPE a gauge\na 1\n", "a type out of place"),
        ("# HELP a b\n# TYPE a gauge\na 1\na 1\n", "a sample twice"),
        ("# HELP a b\n# TYPE a counter\na 1\n", "counters, and they only"),
        ("# HELP a b\n# TYPE a gauge\na{x=1} 1\n", "not a label"),
        ('# HELP a b\n# TYPE a gauge\na{x="1\n"} 1\n', "not a sample"),
        ("# HELP a_ms b\n# TYPE a_ms gauge\na_ms 1\n", "the units"),
    ],
)
def test_the_reader_of_these_tests_is_strict(text, fault):
    with pytest.raises(AssertionError, match=fault):
        read(text)
