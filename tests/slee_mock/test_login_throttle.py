"""Guessing passwords is slowed after ten, on whichever server, and nobody else suffers from it."""

from __future__ import annotations

import pytest
from slee_kit import KEY, Cluster, invite, register

from sip.digest import Challenge, answer, make_nonce
from slee_mock.services.login_throttle import (
    MEMORY_SECONDS,
    MOST_PER_SLOT,
    SLOTS,
    FailedLogins,
    FailedLoginSlot,
)
from slee_mock.store.interface import Transaction

REALM = "failover.test"
RIGHT = {"alice": "wonderland", "bob": "builder"}


class Guard:
    """A cluster that asks for passwords. Every try has a Call-ID of its own, as a guesser's program
    would."""

    def __init__(self):
        self.cluster = Cluster(users=RIGHT)
        self._tries = 0

    def challenge(self, address="192.0.2.7"):
        return Challenge(REALM, make_nonce(KEY, self.cluster.now, f"{REALM} {address}"))

    def request(self, password, user="bob", address="192.0.2.7", made=register, challenge=None):
        self._tries += 1
        request = made(user=user, call_id=f"try{self._tries}", cseq=self._tries)
        request.set("Via", request.all("Via")[0])
        request.add(
            "Via", f"SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK{self._tries};rport=9;received={address}"
        )
        credentials = answer(
            challenge or self.challenge(address), request.method, request.uri, user, password, "cn"
        )
        request.add(
            "Authorization" if made is register else "Proxy-Authorization", str(credentials)
        )
        return request

    def says(self, password, at="server1", **more):
        return self.cluster.one(self.request(password, **more), at)

    def guesses(self, count, **more):
        return [self.says(f"guess{self._tries}", **more).status for _ in range(count)]


@pytest.fixture
def guard():
    return Guard()


def test_after_ten_wrong_passwords_each_further_one_has_to_wait_and_the_right_one_ends_it(guard):
    assert guard.guesses(10) == [401] * 10
    refused = guard.says("guess")
    assert (refused.status, refused.reason, refused.get("Retry-After")) == (
        500,
        "Too Many Wrong Passwords",
        "1",
    )
    assert guard.cluster.outcome.drop_reason == "guessing_slowed", (
        "counted, for the management page"
    )
    assert guard.says("builder").status == 500, (
        "the right one is not looked at: else nobody would have to wait"
    )
    guard.cluster.now += 1
    assert guard.says("builder").status == 200
    assert guard.guesses(10) == [401] * 10, "forgotten"


def test_waits_double_up_to_a_minute_and_all_is_forgotten_after_an_hour(guard):
    guard.guesses(10)
    waits = []
    for _ in range(8):
        waits.append(int(guard.says("guess").get("Retry-After")))
        guard.cluster.now += waits[-1] - 0.5
        assert guard.says("guess").status == 500
        guard.cluster.now += 0.5
        assert guard.guesses(1) == [401]
    assert waits == [1, 2, 4, 8, 16, 32, 64, 64]
    guard.cluster.now += MEMORY_SECONDS + 1
    assert guard.guesses(11) == [401] * 10 + [500]


def test_a_guesser_goes_on_counting_from_where_he_was_when_another_server_takes_over(guard):
    guard.guesses(6, at="server1")
    assert guard.guesses(5, at="server2") == [401] * 4 + [500]
    assert guard.guesses(1, at="server1") == [500]


def test_the_real_user_at_another_address_notices_nothing(guard):
    guard.guesses(30, address="198.51.100.66")
    assert guard.says("builder", address="192.0.2.7").status == 200
    assert guard.guesses(1, address="198.51.100.66") == [500], "whose success is not the guesser's"
    assert guard.says("wonderland", user="alice", address="198.51.100.66").status == 200


def test_an_unknown_user_cannot_be_told_from_a_known_one(guard):
    def heard(user):
        found = []
        for _ in range(12):
            response = guard.says("guess", user=user)
            found.append(
                (
                    response.status,
                    response.reason,
                    [field.name for field in response.fields],
                    response.all("WWW-Authenticate"),
                    response.get("Retry-After"),
                    [type(each) for each in guard.cluster.outcome.writes],
                )
            )
        return found

    assert heard("bob") == heard("eve")


def test_passwords_guessed_with_calls_and_with_registrations_are_added_up(guard):
    assert guard.guesses(5, made=invite, user="alice") == [407] * 5
    assert guard.guesses(6, user="alice") == [401] * 5 + [500]


def test_with_an_old_nonce_or_somebody_elses_no_password_is_looked_at(guard):
    old, others = guard.challenge(), guard.challenge("198.51.100.66")
    guard.cluster.now += 301
    for challenge in (old, others, Challenge(REALM, "5f5e100.made-up")):
        heard = [
            guard.says(password, challenge=challenge) for password in ["guess"] * 11 + ["builder"]
        ]
        assert {each.status for each in heard} == {401}
        assert len({each.get("WWW-Authenticate") for each in heard}) == 1, "right or wrong"
        assert Challenge.parse(heard[0].get("WWW-Authenticate")).stale
    assert guard.cluster.store.rows == {}


def test_nobody_can_have_a_user_wait_by_writing_his_address_on_wrong_passwords(guard):
    heard_by_the_attacker = guard.challenge("198.51.100.66")
    guard.guesses(30, address="192.0.2.7", challenge=heard_by_the_attacker)
    assert guard.says("builder", address="192.0.2.7").status == 200


def test_a_retransmission_is_no_guess_and_hears_what_it_heard(guard):
    guard.guesses(9)
    tenth = guard.request("guess")
    heard = [guard.cluster.one(tenth, at).to_bytes() for at in ("server1", "server1", "server1")]
    assert heard == heard[:1] * 3
    assert guard.cluster.outcome.writes == ()
    assert guard.cluster.one(tenth, "server2").status == 401
    guard.cluster.now += 1
    assert guard.says("builder").status == 200


def test_a_flood_of_guesses_that_are_not_looked_at_writes_nothing(guard):
    guard.guesses(10)
    before = dict(guard.cluster.store.rows)
    assert set(guard.guesses(50)) == {500}
    assert guard.cluster.store.rows == before


@pytest.mark.long
def test_a_flood_of_names_fills_a_fixed_number_of_rows_of_a_fixed_length(guard):
    store = guard.cluster.store
    for number in range(18 * SLOTS):
        transaction = Transaction(store)
        transaction.commit(
            [
                FailedLogins.read(transaction, KEY, f"user{number}", "192.0.2.66").failed(
                    "x", guard.cluster.now
                )
            ]
        )
    rows = store.walk(FailedLoginSlot.KIND)
    assert len(rows) == SLOTS
    assert (
        max(len(Transaction(store).read(FailedLoginSlot, key).guessers) for _, key, _ in rows)
        == MOST_PER_SLOT
    )
    assert max(len(row.text) for _, _, row in rows) < 3000


def test_a_clock_set_back_by_a_day_locks_nobody_out(guard):
    guard.guesses(15)
    guard.cluster.now -= 86_400
    assert guard.says("builder").status == 200


def test_who_proves_nothing_is_asked_and_not_counted(guard):
    for _ in range(20):
        assert guard.cluster.one(register()).status == 401
    sess = "Digest " + ", ".join(f'{name}="x"' for name in ("username", "nonce", "uri", "response"))
    for more in (
        'algorithm=MD5-sess, realm="failover.test"',
        'qop=auth-int, realm="failover.test"',
        'realm="else"',
    ):
        for _ in range(11):
            assert (
                guard.cluster.one(register(fields=[("Authorization", f"{sess}, {more}")])).status
                == 401
            )
    assert guard.cluster.store.rows == {}


def test_the_credentials_for_us_are_found_among_those_for_others(guard):
    request = guard.request("builder")
    own = request.get("Authorization")
    request.remove("Authorization")
    for value in ("Basic Ym9iOmJ1aWxkZXI=", own.replace(REALM, "other.test"), "Digest half", own):
        request.add("Authorization", value)
    assert guard.cluster.one(request).status == 200


@pytest.mark.parametrize("user", ['bob "the" builder', "b\\ob", "bøb", "b,ob=x"])
def test_any_name_can_be_asked_for_its_password(user):
    cluster = Cluster(users={user: 'pass"word\\,ü'}, digest=("SHA-256",))
    escaped = "".join(
        each
        if each.isascii() and each.isalnum()
        else "".join(f"%{byte:02X}" for byte in each.encode())
        for each in user
    )
    request = register(user=escaped)
    challenge = Challenge(REALM, make_nonce(KEY, cluster.now, f"{REALM} 127.0.0.1"), "SHA-256")
    request.add(
        "Authorization",
        str(answer(challenge, "REGISTER", request.uri, user, 'pass"word\\,ü', "cn")),
    )
    assert cluster.one(request).status == 200


def test_the_right_password_for_another_uri_is_no_guess_and_no_key(guard):
    for _ in range(11):
        request = guard.request("builder")
        credentials = answer(guard.challenge(), "REGISTER", "sip:else.test", "bob", "builder", "cn")
        request.set("Authorization", str(credentials))
        refused = guard.cluster.one(request)
        assert refused.status == 401
        assert Challenge.parse(refused.get("WWW-Authenticate")).stale
    assert guard.says("builder").status == 200


def test_algorithms_are_offered_as_the_operator_prefers_them_and_no_other_is_taken():
    both = ("SHA-256", "MD5")
    offered = Cluster(users=RIGHT, digest=both).one(register()).all("WWW-Authenticate")
    assert tuple(Challenge.parse(value).algorithm for value in offered) == both
    for digest in (both, *((each,) for each in both)):
        for algorithm in both:
            cluster = Cluster(users=RIGHT, digest=digest)
            challenge = Challenge(
                REALM, make_nonce(KEY, cluster.now, f"{REALM} 127.0.0.1"), algorithm
            )
            request = register()
            request.add(
                "Authorization",
                str(answer(challenge, "REGISTER", request.uri, "bob", "builder", "cn")),
            )
            assert cluster.one(request).status == (200 if algorithm in digest else 401)
