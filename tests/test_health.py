"""The health table, walked; and the counting in a row around it."""

import pytest

from failover.health import ANSWER, DOWN, FAILING, HEALTH, MISS, RECOVERING, REFUSED, TRIAL, UP, Health, Signal, State


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
    reached = {following for state, row in HEALTH.items() for following in row.values() if following is not state}
    assert reached == set(State)
    assert all(any(following is not state for following in row.values()) for state, row in HEALTH.items())


def test_refused_is_certain_in_every_state():
    assert {row[REFUSED] for row in HEALTH.values()} == {DOWN}


def test_only_the_states_on_trial_count():
    assert TRIAL == {FAILING: MISS, RECOVERING: ANSWER}


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
