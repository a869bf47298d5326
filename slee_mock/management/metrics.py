"""The data of /metrics: a snapshot as text for Prometheus. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slee_mock.management.snapshot import MOST_USERS, Snapshot

Samples = float | Mapping[str, float]  # of one metric, by labels


def metrics(status: Mapping[str, Any], snapshot: Snapshot | None) -> str:
    """Prometheus text. Label values come from fixed sets and from server names. Without a
    snapshot, because the store cannot be read, it has only the server's own numbers."""
    up = int(snapshot is not None and status["store"] == "ok")
    handled = {_labels(message=name): count for name, count in status["handled"].items()}
    dropped = {_labels(reason=name): count for name, count in status["dropped"].items()}
    text = (
        _gauge("slee_up", "Whether the store works for this server.", up)
        + _gauge("slee_uptime_seconds", "Time since this server started.", status["uptime"])
        + _counter("slee_handled_total", "Messages handled, by what they were.", handled)
        + _counter("slee_dropped_total", "Messages not passed on, by reason.", dropped)
        + _counter("slee_sent_total", "Datagrams sent.", status["sent"])
        + _counter(
            "slee_bills_closed_total",
            "Calls whose end this server wrote down.",
            status["bills_closed"],
        )
        + _gauge(
            "slee_waiting_facts", "What is known of calls and not saved yet.", status["waiting"]
        )
    )
    return text + (_store_metrics(snapshot) if snapshot else "")


def _store_metrics(snapshot: Snapshot) -> str:
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
    return (
        _gauge("slee_calls", "Calls of the cluster that have not ended, by state.", states)
        + _gauge("slee_bills", "Bills that the store keeps, of running calls too.", snapshot.bills)
        + _gauge("slee_users", "Users who are registered, or lately were.", bindings["users"])
        + _gauge("slee_bindings", newest, len(bindings["bindings"]))
        + _gauge("slee_member_alive", "Whether a member of the cluster shows signs of life.", alive)
        + _gauge("slee_member_role", "Which role the forwarder gave a member that is alive.", roles)
    )


def _gauge(name: str, words: str, samples: Samples) -> str:
    return _family(name, "gauge", words, samples)


def _counter(name: str, words: str, samples: Samples) -> str:
    return _family(name, "counter", words, samples)


def _family(name: str, kind: str, words: str, samples: Samples) -> str:
    """One metric; nothing if it has no sample yet."""
    found = samples if isinstance(samples, Mapping) else {"": samples}
    head = f"# HELP {name} {words}\n# TYPE {name} {kind}\n"
    return head + "".join(f"{name}{labels} {n}\n" for labels, n in found.items()) if found else ""


def _labels(**pairs: str) -> str:
    return "{" + ",".join(f'{name}="{_label(text)}"' for name, text in pairs.items()) + "}"


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
