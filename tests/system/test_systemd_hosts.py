"""The unit and the drop-ins of examples/ under a real systemd, installed by the very words of the
unit and of the manual.

Hosts are containers with a systemd of their own on the network of hosts_kit.py
(booted_hosts_kit.py).
"""

from __future__ import annotations

import contextlib
import signal
from types import SimpleNamespace

import pytest
from booted_hosts_kit import PROPERTIES, SECRET, BootedHost, cannot_boot
from hosts_kit import SHARED, Meter, Network, start_server, unfit
from takeover_kit import FIRST, HASTE, SECOND, Story, phones_started

pytestmark = pytest.mark.long
UNIT = "call-failover"
ANYWHERE = f"0.0.0.0:{SHARED[1]}"
RESTARTED = 5.0  # seconds that a restart may take on a busy computer


@pytest.fixture
def network():
    reason = unfit(nft="nftables", keepalived="keepalived") or cannot_boot()
    if reason:
        pytest.skip(reason)
    with Network() as hosts:
        yield hosts


@pytest.fixture
def host(network):
    with BootedHost(FIRST) as booted:
        booted.installs_forwarder(f"forwarder.listen={ANYWHERE}")
        booted.run("systemctl", "start", UNIT)
        yield booted


def main_process(host):
    return int(host.shows(UNIT, "MainPID"))


def runs_anew(host, before):
    return host.shows(UNIT, "ActiveState") == "active" and main_process(host) not in (0, before)


def test_the_unit_is_active_once_it_serves_as_a_user_who_may_do_nothing_else(host):
    assert host.shows(UNIT, "ActiveState") == "active" and host.shows(UNIT, "SubState") == "running"
    assert f"ready: {ANYWHERE}" in host.journal(UNIT)
    assert "0 of 2 live" in host.shows(UNIT, "StatusText")
    status = dict(
        line.split(":\t", 1)
        for line in host.read(f"/proc/{main_process(host)}/status").splitlines()
        if ":\t" in line
    )
    assert "0" not in status["Uid"].split(), "not root"
    assert {int(status[each], 16) for each in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    owner = status["Uid"].split()[0]
    assert host.run("stat", "--format=%a %u", SECRET).split() == ["600", owner]


def test_systemd_starts_it_again_when_it_was_killed_and_when_it_hangs(host, eventually):
    secret = host.read(SECRET)
    for number in (signal.SIGKILL, signal.SIGSTOP):
        before = main_process(host)
        host.kill(UNIT, number)
        watchdog = 3.0  # WatchdogSec=
        eventually(lambda before=before: runs_anew(host, before), watchdog + RESTARTED)
    assert host.shows(UNIT, "NRestarts") == "2"
    journal = host.journal(UNIT)
    assert "Watchdog timeout" in journal and "(most recent call first)" in journal
    assert host.read(SECRET) == secret, "it signs as before"


def test_a_reload_with_a_fault_fails_with_its_line_and_changes_nothing(host, eventually):
    before, good = main_process(host), host.read(PROPERTIES)
    host.write(PROPERTIES, f"{good}no.such=1\n")
    host.run("systemctl", "reload", UNIT, status=1)
    assert "servers.properties:5: unknown key 'no.such'" in host.journal(UNIT)
    host.write(PROPERTIES, f"{good}server3=192.0.2.21:5090\n")
    host.run("systemctl", "reload", UNIT)
    eventually(lambda: "0 of 3 live" in host.shows(UNIT, "StatusText"))
    assert main_process(host) == before


def test_a_second_unit_on_this_host_stands_by_and_serves_when_the_first_one_is_killed(
    host, eventually
):
    units = "/etc/systemd/system"
    host.run("cp", f"{units}/{UNIT}.service", f"{units}/{UNIT}-2.service")
    host.types("systemctl daemon-reload", f"systemctl start {UNIT}-2")
    eventually(lambda: host.shows(f"{UNIT}-2", "StatusText").startswith("standby:"))
    host.kill(UNIT)
    eventually(lambda: not host.shows(f"{UNIT}-2", "StatusText").startswith("standby:"))
    eventually(lambda: host.shows(UNIT, "StatusText").startswith("standby:"), RESTARTED)


@pytest.fixture
def story(network, tmp_path, eventually):
    """Two hosts by the manual's section 10, and servers; Alice and Bob talk, requests are being
    counted. `story.pair.hosts`: the two."""
    with contextlib.ExitStack() as stack:
        for number in (1, 2):
            start_server(stack, tmp_path, number)
        hosts = {}
        for name, example in ((FIRST, "active.conf"), (SECOND, "standby.conf")):
            hosts[name] = stack.enter_context(BootedHost(name))
            hosts[name].installs_forwarder(
                "forwarder.listen={}:{}".format(*SHARED),
                "forwarder.track.file=/run/call-failover/sees",
            )
            hosts[name].installs_keepalived(example)
        hosts[SECOND].write(SECRET, hosts[FIRST].read(SECRET))
        hosts[SECOND].run("systemctl", "restart", UNIT)
        pair = SimpleNamespace(hosts=hosts, store=tmp_path / "cluster.db")
        told = Story(eventually, pair, stack.enter_context(Meter()), *phones_started(stack))
        told.begins()
        yield told


def test_the_address_moves_as_the_manual_promises(story, outage, eventually):
    hosts = story.pair.hosts
    secrets = {host.journal(UNIT).split("secret: ")[-1][:8] for host in hosts.values()}
    assert len(secrets) == 1, "the second one shows the first one's fingerprint"
    story.is_at(FIRST)
    hosts[FIRST].kill(UNIT)
    story.is_at(SECOND)
    story.serves()
    eventually(lambda: hosts[FIRST].shows(UNIT, "StatusText").startswith("standby:"), RESTARTED)
    eventually(lambda: "2 of 2 live" in hosts[FIRST].shows(UNIT, "StatusText"))
    hosts[SECOND].run("systemctl", "stop", UNIT)
    story.is_at(FIRST)
    story.serves()
    hosts[SECOND].run("systemctl", "start", UNIT)
    eventually(lambda: "2 of 2 live" in hosts[SECOND].shows(UNIT, "StatusText"))
    hosts[FIRST].kill("keepalived")
    story.is_at(SECOND)  # once systemd has started it again
    eventually(lambda: hosts[FIRST].shows("keepalived", "NRestarts") == "1")
    story.serves()
    hosts[SECOND].run("systemctl", "poweroff", "--no-block")
    story.is_at(FIRST)
    story.serves()
    story.ends()
    outage(story, "killed, stopped, keepalived killed, host shut down", HASTE)
