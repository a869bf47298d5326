"""The nine steps of the document: each fulfilled by what is observed, in whatever order, and by
nothing less."""

from __future__ import annotations

import pytest

from stage.observation.observations import (
    Audio,
    Bill,
    CallStateChanged,
    ForwarderActivated,
    MembersSeen,
    MessageForwarded,
    ProcessExited,
    ProcessKilled,
    Registration,
    ServerFailover,
    ServersUp,
)
from stage.scenes.state import Roles
from stage.scenes.use_case import UseCase, milliseconds

BOTH = frozenset({"server1", "server2"})
CALL = "call-1"


def ready() -> list[object]:
    return [
        ServersUp(0.0, BOTH, "server1"),
        MembersSeen(0.1, BOTH),
        Registration(0.2, "Alice", True),
        MessageForwarded(0.2, "server1", "Alice", "REGISTER", 200, "r1"),
        Registration(0.3, "Bob", True),
        MessageForwarded(0.3, "server1", "Bob", "REGISTER", 200, "r2"),
    ]


def ringing(call: str = CALL) -> list[object]:
    return [
        CallStateChanged(1.0, "Alice", "calling", call),
        CallStateChanged(1.012, "Bob", "incoming", call),
        CallStateChanged(1.013, "Alice", "ringing", call),
    ]


def answer(call: str = CALL) -> list[object]:
    return [
        CallStateChanged(2.0, "Bob", "talking", call, 2.0),
        MessageForwarded(2.0, "server1", "Alice", "INVITE", 200, call),
        CallStateChanged(2.001, "Alice", "talking", call, 2.001),
        audio("Alice", 2.5, 20),
        audio("Bob", 2.5, 20),
    ]


def crash() -> list[object]:
    return [ProcessKilled(9.0, "server1", 4711), ProcessExited(9.001, "server1", -9)]


def takeover() -> list[object]:
    return [
        ServerFailover(9.0012, "server1", "server2", 1),
        ServerFailover(9.0012, "server1", "server2", 1, first_answer_at=9.0018),
        MessageForwarded(9.0018, "server2", "Alice", "OPTIONS", 200, CALL),
    ]


def hang_up(who: str = "Alice") -> list[object]:
    return [
        CallStateChanged(14.0, who, "ending", CALL, 2.001),
        MessageForwarded(14.0, who, "server2", "BYE", None, CALL),
        CallStateChanged(14.002, "Bob", "ended", CALL, 2.0, 14.002),
        CallStateChanged(14.003, "Alice", "ended", CALL, 2.001, 14.001),
    ]


def audio(phone: str, at: float, packets: int, gap: float = 21.0, lost: int = 0) -> Audio:
    return Audio(at, phone, packets, gap, lost)


def bill(server: str = "server2", call: str = CALL, final: bool = True) -> Bill:
    return Bill(14.5, server, call, 12, "0.20", "EUR", final)


def play(*scenes: list[object]) -> UseCase:
    script = UseCase()
    for scene in scenes:
        for seen in scene:
            script.observe(seen)
    return script


def observed(script: UseCase) -> list[int | str]:
    return [row.number for row in script.rows if row.observed]


def complete(script: UseCase) -> bool:
    return all(row.observed for row in script.rows)


def words(script: UseCase, number: int) -> str:
    return script.rows[number - 1].words


WHOLE = [
    ready(),
    ringing(),
    answer(),
    crash(),
    takeover(),
    [audio("Alice", 10, 99), audio("Bob", 10, 99)],
    hang_up(),
    [bill()],
]


def test_the_whole_use_case_fulfils_all_nine_steps_with_their_measures() -> None:
    script = play(*WHOLE)
    assert complete(script)
    assert [row.words for row in script.rows] == [
        "server1 first",
        "through server1",
        "Bob rings after 12 ms",
        "through server1",
        "process 4711 killed",
        "1.8 ms",
        "gap at crash 21 ms, 0 lost",
        "after 12.0 s",
        "0.20 EUR",
    ]
    assert script.state.takeover_ms == pytest.approx(1.8)
    assert script.state.talk_seconds == pytest.approx(12.0)


def test_steps_are_told_once_and_in_order_as_they_are_fulfilled() -> None:
    script = UseCase()
    told = [row.number for scene in WHOLE for seen in scene for row in script.observe(seen)]
    assert told == [1, 2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("missing", range(len(WHOLE)))
def test_no_scene_can_be_left_out(missing: int) -> None:
    assert not complete(play(*(scene for index, scene in enumerate(WHOLE) if index != missing)))


def test_two_servers_up_are_not_a_cluster_until_each_sees_the_other() -> None:
    assert (
        observed(play([ServersUp(0, BOTH, "server1"), MembersSeen(0, frozenset({"server1"}))]))
        == []
    )


def test_a_dead_server_is_named_in_step_one() -> None:
    script = play([ServersUp(0, frozenset({"server2"}), "server2")])
    assert words(script, 1) == "server1 down"


def test_registered_through_the_other_server_is_registered_and_said() -> None:
    again = [MessageForwarded(0.4, "server2", "Bob", "REGISTER", 200, "r2")]
    script = play(ready(), again, ringing())
    assert observed(script) == [1, 2, 3]
    assert words(script, 2) == "Alice through server1, Bob through server2"


def test_a_probe_answered_by_the_server_before_it_died_is_no_takeover() -> None:
    early = MessageForwarded(9.0002, "server1", "Alice", "OPTIONS", 200, CALL)
    script = play(ready(), ringing(), answer(), crash(), [early])
    assert script.state.takeover_ms is None
    for seen in [
        ServerFailover(9.06, "server1", "server2", 0, first_answer_at=9.1),
        MessageForwarded(9.1, "server2", "Alice", "OPTIONS", 200, CALL),
    ]:
        script.observe(seen)
    assert script.state.takeover_ms == pytest.approx(100.0)


def test_the_order_in_which_two_programs_tell_of_one_message_does_not_matter() -> None:
    script = play(ready(), ringing(), answer(), crash(), list(reversed(takeover())))
    assert words(script, 6) == "1.8 ms"


def test_killed_before_the_answer_the_ringing_call_survives() -> None:
    script = play(ready(), ringing(), crash(), [ServerFailover(9.001, "server1", "server2", 1)])
    assert 6 not in observed(script) and words(script, 6) == "server2 chosen after 1.0 ms"
    script.observe(MessageForwarded(9.005, "server2", "Bob", "INVITE", None, CALL))
    assert 6 in observed(script) and 5 in observed(script) and words(script, 6) == "5.0 ms"
    script.observe(ServerFailover(9.001, "server1", "server2", 1, first_answer_at=12.0))
    for phone in ("Alice", "Bob"):
        script.observe(CallStateChanged(12.0, phone, "talking", CALL, 12.0))
    assert words(script, 6) == "5.0 ms", "and not the time that Bob took to answer"
    assert script.state.counted_to == "its next message"


def test_a_server_that_ends_by_itself_did_not_crash() -> None:
    stopped = [ProcessKilled(9.0, "server1", 4711), ProcessExited(9.1, "server1", 0)]
    assert 5 not in observed(play(ready(), ringing(), answer(), stopped))


def test_a_long_pause_of_the_audio_is_an_interruption() -> None:
    script = play(*WHOLE[:5], [audio("Alice", 10, 99, gap=900.0), audio("Bob", 10, 99)])
    assert 7 not in observed(script) and words(script, 7) == "gap at crash 900 ms, 0 lost"


def test_audio_that_stopped_at_the_crash_does_not_count_as_continued() -> None:
    assert 7 not in observed(play(*WHOLE[:5], [audio("Alice", 10, 99), audio("Bob", 10, 21)]))


def test_the_steps_name_who_hangs_up() -> None:
    script = play(*WHOLE[:6], hang_up("Bob"), [bill()])
    assert script.rows[7].text == "Bob hangs up." and observed(script) == list(range(1, 10))


def test_whoever_calls_the_steps_are_those_of_that_call() -> None:
    script = play(
        ready(),
        [
            CallStateChanged(1.0, "Bob", "calling", CALL, peer="Alice"),
            CallStateChanged(1.1, "Alice", "incoming", CALL, peer="Bob"),
        ],
    )
    assert [row.text for row in script.rows[2:4]] == ["Bob calls Alice.", "Alice answers."]
    assert observed(script) == [1, 2, 3]


def test_a_guests_phone_takes_part() -> None:
    script = play(
        ready(),
        [
            CallStateChanged(1.0, "Bob", "incoming", CALL, peer="Carol"),
            CallStateChanged(2.0, "Bob", "talking", CALL, 2.0, peer="Carol"),
        ],
    )
    assert script.state.talking and observed(script) == [1, 2, 3, 4]
    assert script.rows[2].text == "Carol calls Bob."


def test_the_server_that_dies_is_the_one_that_carries_the_call() -> None:
    """server2 is hot, server1 a replica: the death of the replica is not the step's."""
    hot = [ServersUp(0.5, BOTH, "server2")]
    idle = play(ready(), hot, ringing(), [ProcessKilled(9.0, "server1", 1)])
    assert idle.state.killed is None and idle.rows[4].text == "Server2 crashes."
    script = play(ready(), hot, ringing(), [ProcessKilled(9.0, "server2", 1)])
    assert script.state.killed and script.state.second == "server1"
    assert script.rows[5].text.startswith("Server1 takes over")


def test_start_again_is_a_list_anew_with_what_still_holds() -> None:
    script = play(*WHOLE)
    script.start_again()
    assert observed(script) == [1, 2] and script.state.bill is None
    script.observe(CallStateChanged(15.0, "Alice", "ended", CALL, 2.0, 14.0))
    assert observed(script) == [1, 2], "the late end of a call that was put away"


def test_what_dies_of_a_message_before_the_phone_tells_of_it_belongs_to_the_call() -> None:
    script = play(ready(), [ProcessKilled(1.0005, "server1", 1)], ringing())
    assert script.state.killed is not None
    script = play(ready(), [ProcessKilled(0.9, "server1", 1)], ringing())
    assert script.state.killed is None


def test_the_pause_is_that_around_the_crash_and_then_stays() -> None:
    late = [audio("Alice", 10, 99, gap=30.0), audio("Bob", 10, 99), audio("Alice", 60, 999, 151.0)]
    script = play(*WHOLE[:5], late)
    assert words(script, 7) == "gap at crash 30 ms, 0 lost"


def test_nothing_is_said_to_go_on_while_the_call_is_held() -> None:
    held = [CallStateChanged(9.5, "Bob", "talking", CALL, 2.0, held=True)]
    script = play(*WHOLE[:5], held, [audio("Alice", 10, 99), audio("Bob", 10, 99)])
    assert 7 not in observed(script) and words(script, 7) == "on hold"


def test_one_failover_has_its_moments_in_order_and_one_number() -> None:
    told = [
        ServerFailover(9.0012, "server1", "server2", 1, 1, "refused", 8.98, 9.0018),
        MessageForwarded(9.0018, "server2", "Alice", "OPTIONS", 200, CALL),
    ]
    script = play(ready(), ringing(), answer(), crash(), told)
    (failover,) = script.state.failovers
    moments = script.state.time_axis(failover)
    assert [round(at, 1) for _, at in moments] == [-20.0, 0.0, 1.2, 1.8]
    assert (
        script.state.takeover_ms == pytest.approx(moments[-1][1]) and words(script, 6) == "1.8 ms"
    )


@pytest.mark.parametrize("wrong", [bill("server1"), bill(call="another"), bill(final=False)])
def test_only_the_final_bill_of_this_call_on_server2_counts(wrong: Bill) -> None:
    assert 9 not in observed(play(*WHOLE[:7], [wrong]))


def test_a_new_call_starts_the_list_anew_with_what_still_holds() -> None:
    script = play(
        *WHOLE,
        [ServersUp(20, BOTH, "server1")],
        [CallStateChanged(21.0, "Alice", "calling", "call-2")],
    )
    assert observed(script) == [1, 2]
    assert script.state.bill is None and script.state.killed is None


def test_a_call_turned_away_while_talking_leaves_the_list_alone() -> None:
    script = play(*WHOLE[:3], [CallStateChanged(3.0, "Bob", "ended", "stranger")])
    assert observed(script) == [1, 2, 3, 4] and script.state.call_state("Bob") == "talking"


def test_bobs_phone_may_tell_of_the_call_before_alices_does() -> None:
    scene = ringing()
    script = play(
        ready(),
        [
            scene[1],
            ProcessKilled(1.2, "server1", 4711),
            scene[0],
            scene[2],
            ProcessExited(1.3, "server1", -9),
        ],
    )
    assert observed(script) == [1, 2, 3, 5] and script.state.placed_by == "Alice"


def test_alice_may_call_again_while_her_last_call_is_still_ending() -> None:
    hasty = [
        CallStateChanged(3.0, "Alice", "ending", CALL, 2.0),
        CallStateChanged(3.1, "Alice", "calling", "call-2"),
    ]
    script = play(*WHOLE[:3], hasty)
    assert observed(script) == [1, 2] and script.state.call_id == "call-2"


def test_a_cast_of_other_names_plays_the_same_script() -> None:
    script = UseCase(Roles("Alice", "Bob", "server2", "server1"))
    script.observe(ServersUp(0, BOTH, "server2"))
    script.observe(MembersSeen(0, BOTH))
    assert words(script, 1) == "server2 first"


@pytest.mark.parametrize(
    ("value", "text"), [(1.94, "1.9 ms"), (21.2, "21 ms"), (999.0, "999 ms"), (1234.0, "1.2 s")]
)
def test_durations_are_as_precise_as_it_matters(value: float, text: str) -> None:
    assert milliseconds(value) == text


# -- two forwarders


def pair(*scenes: list[object]) -> UseCase:
    script = UseCase(Roles(forwarders=("forwarder1", "forwarder2")))
    for scene in ([ForwarderActivated(0.0, "forwarder1")], *scenes):
        for seen in scene:
            script.observe(seen)
    return script


def audio_goes_on() -> list[object]:
    return [audio("Alice", 11, 99), audio("Bob", 11, 99)]


def forwarder_crash() -> list[object]:
    return [
        ProcessKilled(12.0, "forwarder1", 4712),
        ProcessExited(12.001, "forwarder1", -9),
        ForwarderActivated(12.02, "forwarder2"),
    ]


def through_the_other(at: float = 12.03) -> list[object]:
    return [
        answered_through("forwarder2", 12.024),
        MessageForwarded(at, "server2", "Alice", "OPTIONS", 200, CALL, "forwarder2"),
    ]


def asked_through_the_other() -> MessageForwarded:
    return MessageForwarded(12.03, "Alice", "server2", "OPTIONS", None, CALL, "forwarder2")


def answered_through(forwarder: str, at: float) -> MessageForwarded:
    return MessageForwarded(at, "server2", "Alice", "REGISTER", 200, "r1", forwarder)


TALK = (ready(), ringing(), answer(), crash(), takeover(), audio_goes_on())


def pair_words(script: UseCase) -> str:
    return next(row.words for row in script.rows if row.number == "7a")


def test_a_pair_plays_one_step_more_and_the_documents_keep_their_numbers() -> None:
    script = pair(*TALK, forwarder_crash(), through_the_other(), hang_up(), [bill()])
    assert observed(script) == [1, 2, 3, 4, 5, 6, 7, "7a", 8, 9] and complete(script)
    assert pair_words(script) == "24 ms" and script.state.forwarder_takeover_ms == pytest.approx(
        24.0
    )


def test_what_the_two_forwarders_tell_may_come_in_any_order() -> None:
    script = pair(
        *TALK, forwarder_crash()[:1], list(reversed(through_the_other())), forwarder_crash()[1:]
    )
    assert "7a" in observed(script)


@pytest.mark.parametrize(
    "scene",
    [
        [forwarder_crash()],
        [forwarder_crash(), through_the_other()[:1]],
        [forwarder_crash(), [asked_through_the_other()]],
        [forwarder_crash()[:2], through_the_other()],
        [through_the_other()],
    ],
)
def test_the_address_is_not_taken_before_an_answer_and_the_call_itself_passed(
    scene: list[list[object]],
) -> None:
    assert "7a" not in observed(pair(*TALK, *scene))


def test_answers_before_the_crash_prove_nothing() -> None:
    script = pair(
        *TALK,
        [answered_through("forwarder2", 11.9)],
        forwarder_crash(),
        [asked_through_the_other()],
        [answered_through("forwarder1", 12.5)],
    )
    assert "7a" not in observed(script) and pair_words(script) == "forwarder2 is active"


def test_the_end_of_the_standby_is_no_takeover() -> None:
    script = pair(*TALK, [ProcessKilled(12.0, "forwarder2", 4713)], through_the_other())
    assert script.state.forwarder_killed is None and pair_words(script) == ""


def test_a_forwarder_that_comes_back_itself_took_nothing_over() -> None:
    script = pair(
        *TALK,
        forwarder_crash()[:1],
        [ForwarderActivated(15.0, "forwarder1"), answered_through("forwarder1", 15.1)],
    )
    assert "7a" not in observed(script) and pair_words(script) == "no standby for forwarder1"


def test_the_takeover_the_other_way_round_counts_and_names_the_two() -> None:
    script = pair(
        [ForwarderActivated(0.1, "forwarder2")],
        *TALK,
        [
            ProcessKilled(12.0, "forwarder2", 4713),
            ForwarderActivated(12.02, "forwarder1"),
            answered_through("forwarder1", 12.024),
            MessageForwarded(12.03, "server2", "Alice", "OPTIONS", 200, CALL, "forwarder1"),
        ],
    )
    assert "7a" in observed(script) and pair_words(script) == "24 ms"
    row = next(row for row in script.rows if row.number == "7a")
    assert row.text == "Forwarder2 crashes, forwarder1 takes over."


def test_who_has_the_address_outlives_a_call() -> None:
    script = pair(*TALK, forwarder_crash(), through_the_other(), hang_up(), [bill()])
    script.observe(CallStateChanged(21.0, "Alice", "calling", "call-2"))
    assert script.state.active == "forwarder2" and script.state.forwarder_killed is None


@pytest.mark.parametrize("crashes", [True, False])
def test_a_ticked_step_keeps_its_words_whoever_dies_afterwards(crashes: bool) -> None:
    script = play(*(scene for scene in WHOLE if crashes or scene not in (WHOLE[3], WHOLE[4])))
    before = [row.text for row in script.rows if row.observed]
    for seen in (
        ProcessKilled(20, "server1", 4711),
        ServersUp(20.1, BOTH - {"server1"}, "server2"),
    ):
        script.observe(seen)
    assert [row.text for row in script.rows if row.observed] == before
    assert before[-1] == "Server2's management page shows the total bill."
