"""The sound of a call over real sockets and threads: two phones that talk, hold, and stop without a
trace."""

import socket
import threading
import time

import pytest

from plumbing.udp_socket import bind_udp
from sip.sdp import MediaDirection, MediaPlan, answer, offer, offer_again, plan
from softphone.media import session as session_module
from softphone.media.rtp import Packet
from softphone.media.session import MediaSession
from softphone.media.tone_generator import ToneSource

LOOPBACK = "127.0.0.1"


class Ear:
    """An AudioSink that remembers how loud it was."""

    def __init__(self):
        self.peak = 0

    def write(self, samples):
        self.peak = max(self.peak, max(samples))


def session(source=None, sink=None, on_digit=lambda digit, sent: None, host=LOOPBACK):
    """A session with a test tone, and nobody who listens."""
    return MediaSession(host, source or ToneSource(), sink or Ear(), on_digit)


class Broken:
    def read(self, samples):
        raise OSError("the microphone was pulled out")

    def write(self, samples):
        raise OSError("the loudspeaker was pulled out")


@pytest.fixture
def sessions():
    made = []

    def make(**more):
        made.append(session(**more))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def connect(alice, bob, *how):
    """Offer, answer and start, as two phones do it."""
    offered = offer(LOOPBACK, alice.port)
    answered = answer(offered, LOOPBACK, bob.port)
    bob.apply(plan(answered, offered))
    alice.apply(plan(offered, answered), *how)
    return offered, answered


def test_two_phones_hear_each_other(sessions, eventually):
    ears, digits = (Ear(), Ear()), []
    alice = sessions(source=ToneSource(440), sink=ears[0])
    bob = sessions(source=ToneSource(660), sink=ears[1], on_digit=lambda *told: digits.append(told))
    assert alice.port % 2 == bob.port % 2 == 0 and alice.port != bob.port
    connect(alice, bob)
    assert [t.name for t in threading.enumerate() if t.name == f"media-{alice.port}"]
    alice.dtmf("7")
    eventually(lambda: digits == [("7", False)])
    eventually(lambda: min(ears[0].peak, ears[1].peak) > 3000)
    eventually(lambda: bob.stats().packets_received >= 20)
    told = bob.stats()
    assert (
        told.lost == 0
        and told.codec == "PCMU"
        and told.level_in > 0
        and 15 < told.longest_gap_ms < 500
    )


def test_mute_goes_on_sending_but_silence(sessions, eventually):
    ear = Ear()
    alice, bob = sessions(), sessions(sink=ear)
    alice.mute(True)
    connect(alice, bob)
    eventually(lambda: bob.stats().packets_received >= 15)
    assert ear.peak == 0 and alice.stats().level_out == 0
    alice.mute(False)
    eventually(lambda: ear.peak > 1000)


def test_before_the_answer_silence_is_sent_and_the_microphone_is_off(sessions, eventually):
    class Microphone:
        asked = 0

        def read(self, samples):
            self.asked += 1
            return ToneSource(440).read(samples)

    microphone, heard, ears = Microphone(), Ear(), Ear()
    alice, bob = sessions(source=microphone, sink=heard), sessions(sink=ears)
    offered, answered = connect(alice, bob, False, False)
    eventually(lambda: bob.stats().packets_received >= 15 and heard.peak > 1000)
    assert (ears.peak, microphone.asked, alice.stats().level_out) == (0, 0, 0)
    alice.apply(plan(offered, answered))
    eventually(lambda: ears.peak > 1000)


def test_hold_and_resume_over_sdp(sessions, eventually):
    alice, bob = sessions(), sessions()
    offered, answered = connect(alice, bob)
    eventually(lambda: bob.stats().packets_received >= 5)
    held = offer_again(offered, LOOPBACK, 1, 2, MediaDirection.SENDONLY)
    agreed = answer(held, LOOPBACK, bob.port)
    bob.apply(plan(agreed, held))
    alice.apply(plan(held, agreed), held=True)
    eventually(lambda: quiet(alice, bob))
    resumed = offer_again(held, LOOPBACK, 1, 3, MediaDirection.SENDRECV)
    alice.apply(plan(resumed, answered))
    bob.apply(plan(answered, resumed))
    count = bob.stats().packets_received
    eventually(lambda: bob.stats().packets_received > count + 5)
    assert bob.stats().longest_gap_ms < 500


def quiet(*sessions):
    """Nothing was sent for five ticks."""
    before = [session.stats().packets_sent for session in sessions]
    time.sleep(0.1)
    return [session.stats().packets_sent for session in sessions] == before


def test_what_is_agreed_before_the_thread_looks_is_followed_too(sessions, eventually, monkeypatch):
    may_run, forget = threading.Event(), MediaSession._forget_what_came_early

    def late(session):
        assert may_run.wait(5.0)
        forget(session)

    monkeypatch.setattr(MediaSession, "_forget_what_came_early", late)
    first = MediaPlan((LOOPBACK, 40000), 0, "PCMU", None, MediaDirection.SENDRECV)
    second = MediaPlan((LOOPBACK, 40002), 8, "PCMA", None, MediaDirection.SENDRECV)
    moved, held = sessions(), sessions()
    moved.apply(first)
    moved.apply(second)
    held.apply(first, held=True)
    may_run.set()
    eventually(lambda: moved.stats().packets_sent > 5)
    assert moved._stream.plan is second and held.stats().packets_sent == 0


def test_packets_are_paced_by_the_clock(sessions, eventually):
    alice, bob = sessions(), sessions()
    connect(alice, bob)
    began, first = time.monotonic(), alice.stats().packets_sent
    eventually(lambda: alice.stats().packets_sent >= first + 50)
    assert 0.9 < time.monotonic() - began < 1.5


def test_sound_that_came_before_the_answer_is_not_played_late(sessions, eventually):
    bob = sessions()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as early:
        early.bind((LOOPBACK, 0))
        for sequence in range(200):
            early.sendto(
                Packet(0, sequence, 160 * sequence, 7, bytes(160)).to_bytes(), (LOOPBACK, bob.port)
            )
        bob.apply(MediaPlan(early.getsockname(), 0, "PCMU", None, MediaDirection.SENDRECV))
        eventually(lambda: bob.stats().packets_sent >= 3)
    assert bob.stats().packets_received == 0


def assert_free(port):
    """Both sockets of a session at this port are closed."""
    for number in (port, port + 1):
        bind_udp((LOOPBACK, number)).close()


def test_stop_leaves_no_thread_and_no_socket_and_may_be_called_again(sessions, eventually):
    alice, bob = sessions(), sessions()
    connect(alice, bob)
    eventually(lambda: alice.stats().packets_sent > 2)
    port = alice.port
    for _ in range(2):
        alice.stop()
    assert_free(port)
    told = alice.stats()
    assert told.packets_sent > 2 and told.level_in == told.level_out == 0


def test_a_session_that_never_started_stops_too():
    made = session()
    made.stop()
    made.stop()
    assert_free(made.port)


@pytest.mark.parametrize("taken", [0, 1])
def test_both_ports_must_be_free_and_the_fault_names_them(sessions, monkeypatch, taken):
    port = sessions().port
    monkeypatch.setattr(session_module, "PORTS", range(port - taken, port + 2, 2))
    with pytest.raises(OSError, match=f"two ports from {port - taken} to .* on {LOOPBACK}"):
        session()


def test_a_host_that_is_not_ours_is_named(sessions):
    with pytest.raises(OSError, match=r"192\.0\.2\.1"):
        session(host="192.0.2.1")


def test_a_device_that_fails_does_not_end_the_stream(sessions, eventually, caplog):
    broken = Broken()
    alice, bob = sessions(source=broken, sink=broken), sessions()
    connect(alice, bob)
    eventually(lambda: bob.stats().packets_received >= 10)
    assert "pulled out" in caplog.text and len(caplog.records) <= 2


def test_digits_are_refused_where_the_other_side_takes_none(sessions):
    alice = sessions()
    with pytest.raises(ValueError, match="no digits"):
        alice.dtmf("1")
    alice.apply(MediaPlan((LOOPBACK, alice.port), 0, "PCMU", None, MediaDirection.SENDRECV))
    with pytest.raises(ValueError, match="no digits"):
        alice.dtmf("1")


def test_ipv6(eventually):
    try:
        alice, bob = session(host="::1"), session(host="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    alice.apply(MediaPlan(("::1", bob.port), 8, "PCMA", None, MediaDirection.SENDRECV))
    bob.apply(MediaPlan(("::1", alice.port), 8, "PCMA", None, MediaDirection.SENDRECV))
    eventually(lambda: bob.stats().packets_received >= 3)
    alice.stop()
    bob.stop()
