"""sip.digest against the examples that the RFCs print."""

import pytest

from sip.digest import Challenge, Credentials, answer, check, hash_password, make_nonce, nonce_age
from sip.errors import RemoteProtocolError


def test_the_example_of_rfc_2617():
    challenge = Challenge.parse(
        'Digest realm="testrealm@host.com", qop="auth,auth-int", '
        'nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc"'
    )
    given = answer(
        challenge, "GET", "/dir/index.html", "Mufasa", "Circle Of Life", cnonce="0a4f113b"
    )
    assert given.response == "6629fae49393a05397450978507c4ef1"


@pytest.mark.parametrize(
    "algorithm, response",
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_examples_of_rfc_7616(algorithm, response):
    challenge = Challenge(
        "http-auth@example.org", "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", algorithm
    )
    cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
    given = answer(challenge, "GET", "/dir/index.html", "Mufasa", "Circle of Life", cnonce)
    assert given.response == response
    ha1 = hash_password("Mufasa", "http-auth@example.org", "Circle of Life", algorithm)
    assert check(Credentials.parse(str(given)), "GET", ha1)


@pytest.mark.parametrize("qop", [(), ("auth",)])
def test_a_server_accepts_its_user_and_nobody_else(qop):
    challenge = Challenge.parse(str(Challenge("failover.test", "n1", "SHA-256", qop, stale=True)))
    assert challenge.stale and challenge.qop == qop
    given = Credentials.parse(
        str(answer(challenge, "REGISTER", "sip:failover.test", "alice", 'p"w', "c", nc=2))
    )
    assert given.nc == ("00000002" if qop else "")
    assert check(given, "REGISTER", hash_password("alice", "failover.test", 'p"w', "SHA-256"))
    assert not check(given, "INVITE", hash_password("alice", "failover.test", 'p"w', "SHA-256"))
    assert not check(given, "REGISTER", hash_password("alice", "failover.test", "guess", "SHA-256"))


def test_what_we_cannot_do_we_say():
    with pytest.raises(RemoteProtocolError):
        answer(Challenge("r", "n", "SHA-512-256"), "REGISTER", "sip:x", "u", "p", "c")
    with pytest.raises(RemoteProtocolError):
        answer(Challenge("r", "n", qop=("auth-int",)), "REGISTER", "sip:x", "u", "p", "c")
    for broken in ("", "Basic abc", "Digest", 'Digest realm="r"', 'Digest username="u"'):
        with pytest.raises(RemoteProtocolError):
            Credentials.parse(broken)


def test_a_nonce_is_known_by_all_who_share_the_key_and_tells_its_age():
    nonce = make_nonce(b"cluster", wall=1000.7, scope="r")
    assert nonce_age(b"cluster", nonce, wall=1030.0, scope="r") == 30.0
    assert nonce_age(b"other", nonce, wall=1030.0, scope="r") is None
    assert nonce_age(b"cluster", nonce, wall=1030.0, scope="another") is None
    assert (
        nonce_age(b"cluster", "ffffffff" + nonce[nonce.index(".") :], wall=1030.0, scope="r")
        is None
    )
    assert nonce_age(b"cluster", "\udcff", wall=1030.0, scope="r") is None
