"""Offer and answer: what two phones agree to send each other, and what is refused with a reason.

Invariant of the fuzz tests: any bytes either parse or raise RemoteProtocolError, and so does every
use of the result.
"""

import random

import pytest
from fuzz_kit import noise

from sip.errors import RemoteProtocolError
from sip.sdp import MediaDirection, SessionDescription, answer, offer, offer_again, plan

SENDRECV, SENDONLY, RECVONLY, INACTIVE = MediaDirection

LINPHONE = """v=0
o=alice 2890844526 2890844526 IN IP4 host.example.test
s=Talk
c=IN IP4 192.0.2.7
b=AS:380
t=0 0
a=rtcp-xr:rcvr-rtt=all:10000 stat-summary=loss,dup,jitt,TTL voip-metrics
z=an old line that nobody reads
m=audio 7078 RTP/AVP 96 8 0 97 101
a=rtpmap:96 opus/48000/2
a=fmtp:96 useinbandfec=1
a=rtpmap:97 telephone-event/48000
a=rtpmap:101 telephone-event/8000
m=video 9078 RTP/AVP 98
a=rtpmap:98 VP8/90000
m=audio 7080 RTP/AVP 0
"""

HEAD = "v=0\r\no=- 1 1 IN IP4 192.0.2.7\r\ns=-\r\nt=0 0\r\n"


def described(*lines, head=HEAD):
    return SessionDescription.parse(head + "".join(f"{line}\r\n" for line in lines))


def refusal(work):
    with pytest.raises(RemoteProtocolError) as caught:
        work()
    return caught.value


def test_a_description_comes_back_as_it_came_with_the_lines_nobody_knows():
    parsed = SessionDescription.parse(LINPHONE)
    assert str(parsed) == LINPHONE.replace("\n", "\r\n")
    assert SessionDescription.parse(parsed.to_bytes()) == parsed


def test_bytes_that_are_not_utf8_survive():
    data = HEAD.replace("s=-", "s=caf\udce9").encode("utf-8", "surrogateescape")
    assert SessionDescription.parse(data).to_bytes() == data


def test_the_answer_picks_one_codec_and_its_telephone_event_and_turns_the_rest_down_in_order():
    answered = answer(
        SessionDescription.parse(LINPHONE), "192.0.2.9", 4000, session_id=5, version=1
    )
    assert [(stream.kind, stream.port, stream.formats) for stream in answered.media] == [
        ("audio", 4000, ("8", "101")),
        ("video", 0, ("98",)),
        ("audio", 0, ("0",)),
    ]


def test_both_sides_draw_the_same_plan_from_an_offer_and_its_answer():
    alice = offer("192.0.2.7", 4000, session_id=1)
    bob = answer(alice, "192.0.2.9", 5000, session_id=2)
    at_alice, at_bob = plan(alice, bob), plan(bob, alice)
    assert (at_alice.remote, at_bob.remote) == (("192.0.2.9", 5000), ("192.0.2.7", 4000))
    for agreed in (at_alice, at_bob):
        assert (agreed.payload_type, agreed.codec, agreed.telephone_event) == (0, "PCMU", 101)
        assert (agreed.direction, agreed.held_there) == (SENDRECV, False)


def test_the_offerers_order_of_codecs_wins():
    bob = answer(offer("192.0.2.7", 4000, codecs=("PCMA", "PCMU")), "192.0.2.9", 5000)
    assert bob.media[0].formats == ("8", "101")


def test_an_answer_with_two_codecs_means_its_first():
    alice = offer("192.0.2.7", 4000)
    bob = described("c=IN IP4 192.0.2.9", "m=audio 5000 RTP/AVP 8 0")
    agreed = plan(alice, bob)
    assert (agreed.codec, agreed.payload_type, agreed.telephone_event) == ("PCMA", 8, None)


def test_numbers_are_what_rtpmap_says_they_are():
    offered = described(
        "c=IN IP4 192.0.2.7",
        "m=audio 4000 RTP/AVP 0 110 96",
        "a=rtpmap:0 L16/8000",
        "a=rtpmap:110 pcma/8000/1",
        "a=rtpmap:96 Telephone-Event/8000",
    )
    ours = answer(offered, "192.0.2.9", 5000)
    assert ours.media[0].formats == ("110", "96")
    agreed = plan(ours, offered)
    assert (agreed.codec, agreed.payload_type, agreed.telephone_event) == ("PCMA", 110, 96)


@pytest.mark.parametrize(
    ("theirs", "wish", "ours"),
    [
        (SENDRECV, SENDRECV, SENDRECV),
        (SENDONLY, SENDRECV, RECVONLY),
        (RECVONLY, SENDRECV, SENDONLY),
        (INACTIVE, SENDRECV, INACTIVE),
        (SENDRECV, SENDONLY, SENDONLY),
        (SENDONLY, SENDONLY, INACTIVE),
    ],
)
def test_an_answer_never_claims_more_than_the_offer_leaves(theirs, wish, ours):
    offered = offer("192.0.2.7", 4000, direction=theirs)
    answered = answer(offered, "192.0.2.9", 5000, direction=wish)
    agreed = plan(answered, offered)
    assert (agreed.direction, agreed.held_there) == (ours, theirs in (SENDONLY, INACTIVE))


def test_hold_and_resume_keep_the_session_and_count_its_versions():
    talking = offer("192.0.2.7", 4000, session_id=77, version=3)
    held = offer_again(talking, "192.0.2.7", 77, 4, SENDONLY)
    resumed = offer_again(held, "192.0.2.7", 77, 5, SENDRECV)
    origins = [dict(each.lines)["o"] for each in (talking, held, resumed)]
    assert origins == [f"- 77 {version} IN IP4 192.0.2.7" for version in (3, 4, 5)]
    assert str(held).count("a=sendonly") == 1 and "a=sendrecv" not in str(held)
    assert str(resumed) == str(talking).replace("77 3", "77 5")


def test_an_offer_after_an_answer_keeps_the_streams_that_were_turned_down():
    answered = answer(SessionDescription.parse(LINPHONE), "192.0.2.9", 4000)
    again = offer_again(answered, "192.0.2.9", 1, 2, SENDONLY)
    assert [stream.port for stream in again.media] == [4000, 0, 0]


@pytest.mark.parametrize("nowhere", ["IN IP4 0.0.0.0", "IN IP6 ::", "IN IP6 phone.invalid"])
def test_the_old_hold_with_no_address_is_a_hold(nowhere):
    offered = described(f"c={nowhere}", "m=audio 4000 RTP/AVP 0")
    agreed = plan(answer(offered, "192.0.2.9", 5000), offered)
    assert (agreed.direction, agreed.held_there) == (RECVONLY, True)


def test_a_direction_of_the_session_holds_for_its_streams_until_they_say_otherwise():
    both = described(
        "c=IN IP4 192.0.2.7",
        "a=inactive",
        "m=audio 1 RTP/AVP 0",
        "m=audio 2 RTP/AVP 0",
        "a=sendonly",
    )
    assert [both.direction(stream) for stream in both.media] == [INACTIVE, SENDONLY]


def test_ipv6_addresses_and_the_streams_own_connection():
    offered = described("c=IN IP4 192.0.2.7", "m=audio 4000 RTP/AVP 0", "c=IN IP6 2001:DB8:0::7")
    answered = answer(offered, "2001:db8::9", 5000)
    assert plan(answered, offered).remote == ("2001:db8::7", 4000)
    assert "c=IN IP6 2001:db8::9\r\n" in str(answered)


def test_reports_go_where_a_rtcp_says():
    here = offer("192.0.2.9", 5000)
    stream = ("c=IN IP4 192.0.2.7", "m=audio 4000 RTP/AVP 0")
    assert plan(here, described(*stream)).remote_rtcp is None
    assert plan(here, described(*stream, "a=rtcp:4444")).remote_rtcp == ("192.0.2.7", 4444)
    assert plan(here, described(*stream, "a=rtcp:4444 IN IP4 192.0.2.8")).remote_rtcp == (
        "192.0.2.8",
        4444,
    )


def test_times_of_the_offer_are_the_times_of_the_answer():
    offered = described(
        "c=IN IP4 192.0.2.7", "m=audio 1 RTP/AVP 0", head=HEAD.replace("t=0 0", "t=10 20")
    )
    assert "t=10 20\r\n" in str(answer(offered, "192.0.2.9", 5000))


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("c=IN IP4 192.0.2.7", "m=audio 0 RTP/AVP 0"),
        ("c=IN IP4 192.0.2.7", "m=video 4000 RTP/AVP 31"),
        ("c=IN IP4 192.0.2.7", "m=audio 4000 RTP/SAVP 0"),
        ("c=IN IP4 192.0.2.7", "m=audio 4000 RTP/AVP 18 99"),
    ],
)
def test_an_offer_without_a_stream_for_us_is_not_acceptable_here(lines):
    assert refusal(lambda: answer(described(*lines), "192.0.2.9", 5000)).status == 488


@pytest.mark.parametrize(
    "host", ["phone.example.test", "239.1.2.3/127", "ff02::1", "255.255.255.255"]
)
def test_media_is_sent_only_to_the_literal_address_of_one_host(host):
    offered = described(f"c=IN {'IP6' if ':' in host else 'IP4'} {host}", "m=audio 4000 RTP/AVP 0")
    assert refusal(lambda: plan(answer(offered, "192.0.2.9", 5000), offered)).status == 488


def test_an_answer_that_rejects_the_stream_leaves_nothing_to_plan():
    rejected = described("c=IN IP4 192.0.2.9", "m=audio 0 RTP/AVP 0")
    assert refusal(lambda: plan(offer("192.0.2.7", 4000), rejected)).status == 488


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "type=value"),
        ("v=1\r\n", "v=0"),
        ("o=- 1 1 IN IP4 1.1.1.1\r\n", "v=0"),
        (HEAD + "hello\r\n", "'hello'"),
        (HEAD + "m=audio\r\n", "m="),
        (HEAD + "m=audio 70000 RTP/AVP 0\r\n", "65535"),
        (HEAD + "m=audio -1 RTP/AVP 0\r\n", "'-1'"),
        (HEAD + "m=audio 4000/x RTP/AVP 0\r\n", "'x'"),
    ],
)
def test_what_cannot_be_read_is_a_bad_request_that_names_the_line(text, fault):
    caught = refusal(lambda: SessionDescription.parse(text))
    assert caught.status == 400 and fault in str(caught)


def test_a_stream_without_a_connection_is_a_bad_request():
    assert (
        refusal(lambda: answer(described("m=audio 4000 RTP/AVP 0"), "192.0.2.9", 5000)).status
        == 400
    )


PIECES = """v=0
o=- 1 1 IN IP4 192.0.2.7
c=IN IP4 0.0.0.0
c=IN IP6 ::1
c=IN IP4 x
m=audio 4 RTP/AVP 0 8 101
m=audio 0 RTP/AVP 0
m=audio 99999 RTP/AVP 0
m=video 2/2 RTP/AVP 9
a=rtpmap:101 telephone-event/8000
a=rtpmap:8
a=rtcp:7 IN IP4 ff
a=rtcp:x
a=sendonly
a=inactive
t=0 0
t
=
b=\0"""


def use_or_refuse(data):
    here = offer("192.0.2.9", 5000)
    try:
        parsed = SessionDescription.parse(data)
        assert SessionDescription.parse(parsed.to_bytes()) == parsed
        plan(here, parsed)
        plan(answer(parsed, "192.0.2.9", 5000), parsed)
        offer_again(parsed, "192.0.2.9", 1, 2, SENDONLY)
    except RemoteProtocolError as refused:
        assert refused.status in (400, 488)


def test_any_bytes_parse_or_raise_remote_protocol_error():
    for data in noise(1000, longest=300):
        use_or_refuse(data)


def test_any_mix_of_lines_is_used_or_raises_remote_protocol_error():
    dice = random.Random(1)
    for _ in range(1000):
        pieces = dice.choices(PIECES.splitlines(), k=dice.randrange(13))
        use_or_refuse("v=0\r\no=- 1 1 IN IP4 192.0.2.7\r\n" + "\r\n".join(pieces))
