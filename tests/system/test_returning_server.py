"""A server that comes back is told its role, and shows what the others show. Real programs, kill -9
is real."""

from __future__ import annotations

import csv
import io
import json
import urllib.error
import urllib.request

import pytest
from parties_kit import Scene, absent
from process_kit import free_port, wait_until

pytestmark = [pytest.mark.long, pytest.mark.skipif(bool(absent("sipp")), reason=absent("sipp"))]


class Pages:
    """What the servers of a scene show."""

    def __init__(self, scene):
        self.scene = scene
        self.addresses = {name: f"127.0.0.1:{free_port()}" for name in ("server1", "server2")}

    def start(self, *names):
        for name in names:
            self.scene.mock(name, management=self.addresses[name])

    def text(self, name, path):
        with urllib.request.urlopen(f"http://{self.addresses[name]}{path}", timeout=10) as answer:
            return answer.read().decode()

    def data(self, name, path):
        return json.loads(self.text(name, path))

    def roles(self, name):
        try:
            told = self.data(name, "/members")
        except urllib.error.URLError:
            return {}
        return {each["name"]: each["role"] for each in told["members"]}


@pytest.fixture
def scene(tmp_path):
    with Scene(tmp_path) as made:
        yield made


def test_a_call_that_ended_elsewhere_stands_alike_on_the_pages_of_a_server_that_returns(scene):
    pages = Pages(scene)
    scene.forwarder()
    pages.start("server1", "server2")
    scene.up("server1", "server2")
    wait_until(lambda: pages.roles("server2") == {"server1": "hot", "server2": "replica"})

    caller, callee = scene.play("caller", "callee", 1, talk=4000)
    wait_until(
        lambda: [c["state"] for c in pages.data("server1", "/calls")["calls"]] == ["answered"]
    )
    wait_until(lambda: pages.data("server2", "/calls")["calls"][0]["seconds"] >= 2)
    scene.processes["server1"].kill()
    wait_until(lambda: pages.roles("server2") == {"server1": "", "server2": "hot"})
    caller.end()
    callee.end()

    pages.start("server1")
    scene.up("server1")
    wait_until(
        lambda: (
            pages.roles("server1")
            == pages.roles("server2")
            == {"server1": "hot", "server2": "replica"}
        )
    )
    bills = {name: pages.data(name, "/calls")["calls"] for name in ("server1", "server2")}
    assert bills["server1"] == bills["server2"]
    (bill,) = bills["server1"]
    assert (bill["state"], bill["seconds"] >= 4, bill["total"]) == ("ended", True, "0.15")
    assert [share["server"] for share in bill["carried"]] == ["server1", "server2"]
    assert sum(share["seconds"] for share in bill["carried"]) == bill["seconds"]

    tables = {name: pages.text(name, "/calls.csv") for name in ("server1", "server2")}
    assert tables["server1"] == tables["server2"]
    (row,) = csv.DictReader(io.StringIO(tables["server1"], newline=""))
    assert (row["total"], row["talk_seconds"]) == (bill["total"], str(bill["seconds"]))
    shares = "; ".join(f"{share['server']}: {share['seconds']}" for share in bill["carried"])
    assert row["carried_seconds_by_server"] == shares


def test_where_calls_are_shared_out_every_server_is_live(scene):
    pages = Pages(scene)
    scene.forwarder("forwarder.policy=call-id")
    pages.start("server1", "server2")
    scene.up("server1", "server2")
    wait_until(lambda: pages.roles("server1") == {"server1": "live", "server2": "live"})
    assert pages.data("server1", "/members")["hot"] is None
