"""The whole system in memory, with what stands between phones: a PBX behind a binding, a crashed
phone, a stranger whom somebody names."""

from __future__ import annotations

import pytest
from slee_kit import FORWARDER
from wire import World

from sip.message import Request, parse
from slee_mock.services.call_record import Call
from slee_mock.store.interface import Transaction

PBX = ("127.0.0.1", 5090)
STRANGER = ("127.0.0.77", 9999)


class Ear:
    """A stranger who hears what is sent to it, and says nothing."""

    deadline = None

    def __init__(self, world, address):
        self.heard = []
        world.network.join(address, self)

    def receive(self, data, source, now):
        self.heard.append(data)
        return []


class Pbx(Ear):
    """A stateless proxy that is registered as Bob and sends his calls on to Carol."""

    def __init__(self, world, records):
        super().__init__(world, PBX)
        self.records = records

    def receive(self, data, source, now):
        self.heard.append(data)
        message = parse(data)
        if not isinstance(message, Request):
            message.pop("Via")
            return [(message.to_bytes(), FORWARDER)] if message.all("Via") else []
        routes = message.values("Route")
        if routes and "5090" in routes[0]:
            message.pop("Route")
        elif message.method in ("INVITE", "CANCEL", "ACK") and not message.to_tag.startswith("x"):
            message.uri = "sip:carol@failover.test"
        if self.records and message.method == "INVITE":
            message.push("Record-Route", "<sip:127.0.0.1:5090;lr>")
        branch = f"z9hG4bKp{message.via.branch[7:]}"
        message.push("Via", f"SIP/2.0/UDP 127.0.0.1:5090;branch={branch}")
        return [(message.to_bytes(), FORWARDER)]


def register_raw(world, user, address):
    contact = f"<sip:{user}@{address[0]}:{address[1]}>"
    via = f"SIP/2.0/UDP {address[0]}:{address[1]};branch=z9hG4bKreg{user}"
    request = Request(
        "REGISTER",
        "sip:failover.test",
        [
            ("Via", via),
            ("Max-Forwards", "70"),
            ("Contact", contact),
            ("Expires", "300"),
            ("From", f"<sip:{user}@failover.test>;tag=r"),
            ("To", f"<sip:{user}@failover.test>"),
            ("Call-ID", f"reg-{user}"),
            ("CSeq", "1 REGISTER"),
        ],
    )
    world.network.send([(request.to_bytes(), FORWARDER)], address)
    world.run()


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("records", [False, True])
def test_a_pbx_sends_the_call_on_to_another_user_and_all_of_it_goes_on_through_a_crash(
    records, killed
):
    world = World()
    carol = world.phone("carol", 5068)
    world.register(world.alice, carol)
    pbx = Pbx(world, records)
    register_raw(world, "bob", PBX)
    world.alice.calls("bob")
    world.run()
    assert world.bill.state == "ringing", world.network.ladder()
    carol.answers()
    world.run()
    assert world.bill.state == "answered", world.network.ladder()
    if killed:
        world.kill("server1")
    world.run(12)
    world.alice.does("hang_up")
    world.run()
    assert (world.bill.final, world.bill.seconds, world.bill.why) == (True, 12, "Alice hung up")
    assert len(pbx.heard) > 2
    (call,) = Transaction(world.cluster.store).scan(Call)
    assert len(call.legs) == 2


@pytest.mark.parametrize("killed", [False, True])
def test_a_crashed_second_phone_does_not_hide_the_first_for_longer_than_two_seconds(killed):
    world = World()
    world.register()
    second = world.phone("bob", 5066)
    world.run(1)
    world.register(second)
    world.network.leave(second.address)
    world.alice.calls("bob")
    world.run(1)
    if killed:
        world.kill("server1")
    world.run(2)
    world.bob.answers()
    world.run(10)
    assert world.bill.state == "answered", world.network.ladder()
    world.bob.does("hang_up")
    world.run()
    assert world.bill.final and world.bill.why == "Bob hung up"


def test_a_stranger_whom_a_phone_names_in_its_dialog_hears_nothing():
    world = World()
    ear = Ear(world, STRANGER)
    world.talk()
    ack = next(p.message for p in world.network.passed if p.name == "ACK")
    for number, (method, uri, route) in enumerate(
        [
            ("INFO", ack.uri, "<sip:127.0.0.77:9999;lr>"),
            ("INFO", "sip:bob@127.0.0.77:9999", ""),
            ("BYE", "sip:bob@127.0.0.77:9999", "<sip:127.0.0.77:9999>"),
        ]
    ):
        own = ack.get("Route")
        fields = [
            ("Via", f"SIP/2.0/UDP 127.0.0.1:5062;branch=z9hG4bKstrange{number}"),
            ("Max-Forwards", "70"),
        ]
        fields += [("Route", f"{own}, {route}" if route else own)]
        fields += [(name, ack.get(name)) for name in ("From", "To", "Call-ID")]
        request = Request(method, uri, [*fields, ("CSeq", f"{50 + number} {method}")])
        world.network.send([(request.to_bytes(), FORWARDER)], world.alice.address)
        world.run()
    assert ear.heard == [] and world.bill.final
