"""The health table, walked; and the counting in a row around it."""

import pytest

from failover.upstream.health import (
    ANSWER,
    COUNTED,
    DOWN,
    FAILING,
    HEALTH,
    MISS,
    RECOVERING,
    REFUSED,
    UP,
    Health,
    Signal,
    State,
)


def walk(state, *signals, fall=3, rise=2):
    health = Health(state, 0.0, "start")
    for at, signal in enumerate(signals, start=1):
        health = health.after(signal, float(at), f"because {at}", fall, rise)
    return health


def test_every_state_knows_every_signal_and_leads_to_known_states_only():
    assert set(HEALTH) == set(State)
    for state, row in HEALTH.items():
        assert set(row) == set(Signal), state
        assert set(row.values()) <= set(State)


def test_every_state_can_be_reached_and_left():
    reached = {
        following
        for state, row in HEALTH.items()
        for following in row.values()
        if following is not state
    }
    assert reached == set(State)
    assert all(
        any(following is not state for following in row.values()) for state, row in HEALTH.items()
    )


def test_refused_is_certain_in_every_state():
    assert {row[REFUSED] for row in HEALTH.values()} == {DOWN}


def test_only_the_states_on_trial_count():
    assert COUNTED == {FAILING: MISS, RECOVERING: ANSWER}


@pytest.mark.parametrize(
    "state, signals, fall, rise, expected",
    [
        (UP, [MISS], 3, 2, FAILING),
        (UP, [MISS, MISS], 3, 2, FAILING),
        (UP, [MISS, MISS, MISS], 3, 2, DOWN),
        (UP, [MISS, MISS, ANSWER, MISS, MISS], 3, 2, FAILING),
        (UP, [MISS], 1, 2, DOWN),
        (UP, [REFUSED], 3, 2, DOWN),
        (UP, [MISS, REFUSED], 3, 2, DOWN),
        (DOWN, [MISS, REFUSED, MISS], 3, 2, DOWN),
        (DOWN, [ANSWER], 3, 2, RECOVERING),
        (DOWN, [ANSWER, ANSWER], 3, 2, UP),
        (DOWN, [ANSWER, MISS, ANSWER], 3, 2, RECOVERING),
        (DOWN, [ANSWER, REFUSED], 3, 2, DOWN),
        (DOWN, [ANSWER, ANSWER], 3, 3, RECOVERING),
        (DOWN, [ANSWER], 3, 1, UP),
    ],
)
def test_fall_and_rise_are_counted_in_a_row(state, signals, fall, rise, expected):
    assert walk(state, *signals, fall=fall, rise=rise).state is expected


def test_since_and_why_belong_to_the_change_not_to_the_last_signal():
    health = walk(UP, ANSWER, ANSWER, MISS, MISS)
    assert (health.state, health.since, health.why) == (FAILING, 3.0, "because 3")


def test_a_failing_server_is_still_used_and_a_recovering_one_not_yet():
    assert [state for state in State if Health(state, 0.0, "").alive] == [UP, FAILING]


# -- damping ---------------------------------------------------------------------------------------

BEAT = 0.05


def flap(health, flaps, up, down, alone=False, signal=REFUSED):
    """`flaps` times `up` seconds of answers, `down` seconds without. Returns the health and the
    states it came to."""
    states = [health.state]
    for beat in range(round(flaps * (up + down) / BEAT)):
        now = beat * BEAT
        answers = now % (up + down) < up
        health = health.after(ANSWER if answers else signal, now, "", 3, 2, alone)
        states += [health.state] if health.state is not states[-1] else []
    return health, states[1:]


def test_one_crash_and_return_is_welcomed_at_once():
    health = walk(UP, ANSWER, REFUSED, ANSWER, ANSWER)
    assert (health.state, health.since) == (UP, 4.0)


def test_a_server_that_was_never_there_has_nothing_to_be_forgotten():
    health = walk(FAILING, MISS, MISS, MISS, MISS, ANSWER, ANSWER)
    assert health.state is UP
    assert walk(FAILING, MISS, MISS, MISS, ANSWER, ANSWER, REFUSED, ANSWER, ANSWER).state is UP


@pytest.mark.parametrize("signal", [REFUSED, MISS])
def test_a_second_crash_within_a_minute_asks_for_a_second_of_answers_a_third_for_two(signal):
    health = Health(UP, 0.0, "")
    now, waited = 0.0, []
    for _ in range(9):
        for _ in range(3):
            now += BEAT
            health = health.after(signal, now, "gone", 3, 2)
        assert health.state is DOWN
        back = now + BEAT
        while health.state is not UP:
            now += BEAT
            health = health.after(ANSWER, now, "answers", 3, 2)
        waited.append(round(now - back, 1))
    assert waited == pytest.approx([0, 1, 2, 4, 8, 16, 32, 64, 0], abs=0.15), (
        "after a minute without a break, afresh"
    )


def test_a_held_server_says_why():
    health = walk(UP, ANSWER, REFUSED, ANSWER, ANSWER, REFUSED, ANSWER)
    assert (
        health.state is DOWN
        and health.why == "answers, but was gone 2 times lately: has to answer for 1 s"
    )
    assert health.after(REFUSED, 7.0, "refused", 3, 2).why == "refused"


@pytest.mark.parametrize("signal", [REFUSED, MISS])
@pytest.mark.parametrize(
    "flaps, up, down",
    [
        (100, 0.3, 0.3),
        (100, 0.05, 0.2),
        (100, 1.0, 1.0),
        (200, 5.0, 1.0),
        (300, 30.0, 5.0),
        (200, 0.5, 3.0),
        pytest.param(500, 30.0, 5.0, marks=pytest.mark.long),
        pytest.param(2000, 0.5, 3.0, marks=pytest.mark.long),
    ],
)
@pytest.mark.long
def test_a_server_that_flaps_for_long_changes_state_at_most_a_tenth_as_often(
    signal, flaps, up, down
):
    _health, states = flap(Health(UP, 0.0, ""), flaps, up, down, signal=signal)
    assert len(states) <= flaps / 10, states


def test_short_silences_leave_a_server_failing_not_flickering_and_used():
    health, states = flap(Health(UP, 0.0, ""), 200, 0.4, 0.1, signal=MISS)
    assert len(states) <= 20 and set(states) == {FAILING, UP} and health.alive


def test_the_only_server_there_is_is_never_held_back():
    _health, states = flap(Health(UP, 0.0, ""), 100, 0.3, 0.3, alone=True)
    assert states.count(UP) >= 99


def test_when_nobody_else_is_left_one_that_is_held_back_and_answers_is_in_use_at_once():
    health = Health(UP, 0.0, "")
    for at, signal in enumerate([REFUSED, ANSWER, ANSWER, REFUSED, ANSWER]):
        health = health.after(signal, at * BEAT, "", 3, 2)
    assert health.state is DOWN and health.undamped(1.0, 2) is health, "it has answered once"
    health = health.after(ANSWER, 0.5, "", 3, 2)
    assert (health.undamped(1.0, 2).state, health.undamped(1.0, 2).since) == (UP, 1.0)
    assert walk(UP, REFUSED).undamped(1.0, 2).state is DOWN, "this one does not answer"
