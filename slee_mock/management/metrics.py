"""The data of /metrics: a snapshot as text for Prometheus. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slee_mock.management.snapshot import MOST_USERS, Snapshot

Samples = float | Mapping[str, float]  # of one metric, by labels
Metric = tuple[str, str, Samples]  # name without "slee_", words, samples


def metrics(status: Mapping[str, Any], snapshot: Snapshot | None) -> str:
    """Prometheus text. Label values come from fixed sets and from server names. Without a
    snapshot, because the store cannot be read, it has only the server's own numbers."""
    up = int(snapshot is not None and status["store"] == "ok")
    handled = {_labels(message=name): count for name, count in status["handled"].items()}
    dropped = {_labels(reason=name): count for name, count in status["dropped"].items()}
    own: list[Metric] = [
        ("up", "Whether the store works for this server.", up),
        ("uptime_seconds", "Time since this server started.", status["uptime"]),
        ("handled_total", "Messages handled, by what they were.", handled),
        ("dropped_total", "Messages not passed on, by reason.", dropped),
        ("sent_total", "Datagrams sent.", status["sent"]),
        ("bills_closed_total", "Calls whose end this server wrote down.", status["bills_closed"]),
        ("waiting_facts", "What is known of calls and not saved yet.", status["waiting"]),
    ]
    return "".join(_family(*each) for each in [*own, *(_of_store(snapshot) if snapshot else ())])


def _of_store(snapshot: Snapshot) -> list[Metric]:
    members, bindings = snapshot.members["members"], snapshot.bindings
    states = {
        _labels(state=state): snapshot.running[state]
        for state in ("offered", "ringing", "answered")
    }
    alive = {_labels(member=each["name"]): int(each["alive"]) for each in members}
    roles = {
        _labels(member=each["name"], role=role): int(each["role"] == role)
        for each in members
        for role in ("hot", "live", "replica")
    }
    newest = f"Contacts of the newest {MOST_USERS} users that can be reached now."
    return [
        ("calls", "Calls of the cluster that have not ended, by state.", states),
        ("bills", "Bills that the store keeps, of running calls too.", snapshot.bills),
        ("users", "Users who are registered, or lately were.", bindings["users"]),
        ("bindings", newest, len(bindings["bindings"])),
        ("member_alive", "Whether a member of the cluster shows signs of life.", alive),
        ("member_role", "Which role the forwarder gave a member that is alive.", roles),
    ]


def _family(name: str, words: str, samples: Samples) -> str:
    """One metric, a counter if its name ends in "total"; nothing if it has no sample yet."""
    found = samples if isinstance(samples, Mapping) else {"": samples}
    kind = "counter" if name.endswith("_total") else "gauge"
    head = f"# HELP slee_{name} {words}\n# TYPE slee_{name} {kind}\n"
    lines = (f"slee_{name}{labels} {number}\n" for labels, number in found.items())
    return head + "".join(lines) if found else ""


def _labels(**pairs: str) -> str:
    return "{" + ",".join(f'{name}="{_label(text)}"' for name, text in pairs.items()) + "}"


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
