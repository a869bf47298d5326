"""The SLEE around the services: a service in one file, deployed by name; and timers that outlive
who set them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from slee_kit import Cluster, DictStore, phone_request

from slee_mock.container.deployment import DeployError
from slee_mock.container.timers import BATCH
from slee_mock.store.interface import ConditionalWrite

# Answers MESSAGEs to sip:alarm@... at once, and notes the time, as many seconds later as its
# argument says.
ALARM = """
from __future__ import annotations
from dataclasses import dataclass, replace
from typing import ClassVar
from slee_mock.container.events import NOTHING, Outcome, RequestEvent, TimerEvent
from slee_mock.store.records import Record
from slee_mock.container.sbb import InitialEvent, timer_of

@dataclass(frozen=True)
class Alarm(Record):
    KIND: ClassVar[str] = "alarm"
    user: str
    at: float | None = None
    rung: tuple[float, ...] = ()

    @property
    def due(self):
        return self.at

def is_for_us(event):
    return event.request.method == "MESSAGE"

class Service:
    name = "alarm"
    records = (Alarm,)
    events = (InitialEvent(RequestEvent, name=lambda event: event.request.from_.uri.user, when=is_for_us), timer_of(Alarm))

    def __init__(self, answers, seconds):
        self.answers, self.seconds = answers, seconds

    def handle(self, event, entity):
        alarm = entity.get(Alarm) or Alarm(entity.name)
        if isinstance(event, TimerEvent):
            if not alarm.is_due(event.time):
                return NOTHING
            return Outcome(writes=(replace(alarm, at=None, rung=(*alarm.rung, event.time)),), consumed=True)
        sends = (self.answers.answer(event, 202),)
        return Outcome(writes=(replace(alarm, at=event.time + self.seconds),), sends=sends, consumed=True)

def deploy(context, argument):
    return Service(context.answers, float(argument))
"""


@pytest.fixture
def alarm_file(tmp_path, monkeypatch):
    (tmp_path / "test_alarm.py").write_text(ALARM)
    monkeypatch.syspath_prepend(str(tmp_path))


def wish(user: str = "alice"):
    return phone_request("MESSAGE", "sip:alarm@failover.test", user)


def rung(cluster: Cluster, user: str = "alice") -> list[float]:
    from test_alarm import Alarm

    return list(cluster.get(Alarm, user).rung)


def test_a_service_in_one_file_answers_for_whom_its_convergence_name_says(alarm_file):
    cluster = Cluster(deploy=("test_alarm:30",))
    assert cluster.one(wish()).status == 202
    assert cluster.one(wish("bob"), at="server2").status == 202
    assert sorted(key for _, key, _ in cluster.store.walk("alarm")) == ["alice", "bob"]


def test_a_timer_of_a_dead_server_runs_out_at_the_survivors(alarm_file):
    cluster = Cluster(deploy=("test_alarm:30",))
    cluster.one(wish(), at="server1")
    cluster.now += 29.9
    cluster.tick("server2")
    assert rung(cluster) == []
    cluster.now += 0.1
    cluster.tick("server2")
    assert rung(cluster) == [cluster.now]


def test_a_timer_that_all_members_see_runs_out_once(alarm_file):
    cluster = Cluster(deploy=("test_alarm:30",))
    cluster.one(wish())
    cluster.now += 31
    # between the reading and the saving of server1
    cluster.store.before_save = lambda: cluster.tick("server2")
    cluster.tick("server1")
    cluster.tick("server2")
    assert rung(cluster) == [cluster.now]


def test_timers_of_services_that_a_server_was_not_given_do_not_hide_the_others(alarm_file):
    cluster = Cluster(deploy=("test_alarm:30",))
    cluster.store.save(
        [ConditionalWrite("foreign", str(number), "{}", 0, 1.0) for number in range(2 * BATCH + 5)]
    )
    cluster.one(wish())
    cluster.now += 31
    for _ in range(4):
        cluster.tick()
    assert rung(cluster) == [cluster.now]


def test_a_store_that_is_down_costs_no_timer(alarm_file):
    cluster = Cluster(deploy=("test_alarm:30",))
    cluster.one(wish())
    cluster.now += 31
    cluster.store.down = True
    assert cluster.tick() == [] and cluster.nodes["server1"].trouble
    cluster.store.down = False
    cluster.tick()
    assert rung(cluster) == [cluster.now]


@pytest.mark.parametrize(
    ("deploy", "sentence"),
    [
        ("nowhere:x", "there is no service 'nowhere': no file nowhere.py in this folder, where"),
        ("no/where.py", "'no/where.py' is not NAME:ARGUMENT, as in prepaid:balances.txt"),
        ("", "is not NAME:ARGUMENT"),
        (
            "textwrap",
            r"textwrap is not a service to deploy: it has no function deploy\(context, argument\)",
        ),
        ("test_alarm:soon", "test_alarm: could not convert string to float: 'soon'"),
        ("test_broken", "test_broken cannot be read: SyntaxError"),
        (
            "test_needy",
            "test_needy cannot be read: ModuleNotFoundError: No module named 'not_installed'",
        ),
    ],
)
def test_what_cannot_be_deployed_is_a_sentence(alarm_file, tmp_path, deploy, sentence):
    (tmp_path / "test_broken.py").write_text("def deploy(:")
    (tmp_path / "test_needy.py").write_text("import not_installed")
    with pytest.raises(DeployError, match=sentence):
        Cluster(store=DictStore(), deploy=(deploy,))


def test_a_service_of_the_user_s_comes_before_an_example_of_its_name(tmp_path, monkeypatch):
    (tmp_path / "prepaid.py").write_text(
        "def deploy(context, argument):\n    raise ValueError('mine')"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "prepaid", raising=False)
    with pytest.raises(DeployError, match="prepaid: mine"):
        Cluster(deploy=("prepaid:x",))
    sys.modules.pop("prepaid")


def test_the_program_says_so_and_ends(tmp_path, free_port):
    command = [
        sys.executable,
        "-m",
        "slee_mock",
        "--listen",
        f"127.0.0.1:{free_port()}",
        "--management",
        "",
        "--store",
        str(tmp_path / "cluster.db"),
        "--deploy",
        "nowhere:x",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1 and ended.stderr.startswith(
        "slee_mock: --deploy: there is no service 'nowhere'"
    )


def test_the_service_that_the_manual_shows_works_as_it_stands_there(tmp_path, monkeypatch):
    manual = (Path(__file__).parents[2] / "docs" / "slee.txt").read_text(encoding="ascii")
    begins, ends = (
        "    from slee_mock.container.events import Outcome",
        "  `context` is the server's",
    )
    code = manual[manual.index(begins) : manual.index(ends)]
    (tmp_path / "greeter.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(str(tmp_path))
    said = Cluster(deploy=("greeter:Hello",)).one(
        phone_request("MESSAGE", "sip:greeter@failover.test")
    )
    assert (said.status, said.reason) == (200, "Hello alice")
