"""docs/operations.txt explains every setting and every counter; these tests hold it to the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import prometheus_kit
import pytest
from forwarder_kit import ACTIVE_ONE, make_core

from failover.admin.metrics import metrics
from failover.config.settings import SETTINGS
from failover.upstream.health import REFUSED

ROOT = Path(__file__).resolve().parents[2]
MANUAL = (ROOT / "docs" / "operations.txt").read_text(encoding="utf-8")
# these count by a reason they are given
REASONED = {"_drop": "dropped.", "Refused": "dropped.", "trouble": "trouble."}
SECOND_BIND, SECOND_NAME = ("bind=10.0.0.11", "bind=10.0.0.12"), ("asterisk1", "asterisk2")
NAME = re.compile(r"[a-z][a-z0-9-]*\Z")


def counters():
    """Every name the forwarder may count by: in counters["..."], and the reasons given to what
    counts by reason."""
    for file in sorted((ROOT / "failover").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Subscript) and _called(node.value).endswith("counters"):
                yield from (name.rstrip(".") for name in _texts(ast.walk(node.slice)))
            elif isinstance(node, ast.Call) and _called(node.func) in REASONED:
                yield from (
                    REASONED[_called(node.func)] + reason
                    for reason in _texts(node.args)
                    if NAME.match(reason)
                )


def _texts(nodes):
    return (
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _called(node):
    return (
        node.attr
        if isinstance(node, ast.Attribute)
        else node.id
        if isinstance(node, ast.Name)
        else ""
    )


def explained(name):
    """A line that begins with the name and goes on (or whose next line is deeper indented)."""
    return re.search(rf"^  {re.escape(name)}(\.[A-Z]+)?( +\S|\n {{4,}}\S)", MANUAL, re.MULTILINE)


@pytest.mark.parametrize("key", [setting.key for setting in SETTINGS])
def test_every_setting_is_explained(key):
    assert re.search(rf"^  {re.escape(key)}\b", MANUAL, re.MULTILINE), (
        f"section 2 does not explain {key}"
    )


@pytest.mark.parametrize("name", sorted(set(counters())))
def test_every_counter_is_explained(name):
    assert explained(name), f"section 5 does not explain {name}"


def test_the_page_has_words_for_every_counter():
    script = (ROOT / "failover" / "admin" / "page.js").read_text(encoding="utf-8")
    words = set(re.findall(r"^  '([a-z.-]+)': '", script, re.MULTILINE))
    groups = {"answered", "dropped", "registration", "trouble"}
    assert set(counters()) - groups <= words


def test_every_metric_is_explained():
    core = make_core()
    core.failover.signal("server1", REFUSED, 1.0, "refused")
    core.table.servers[1].check_duration = 0.001
    families = prometheus_kit.read(metrics(core, ACTIVE_ONE, 0.0, 1.0, 1.0))
    assert len(families) > 15
    for name in families:
        assert re.search(rf"(^ |;|,) +{name}\b", MANUAL, re.MULTILINE), (
            f"section 9 does not explain {name}"
        )


def test_the_search_for_counters_finds_what_is_known_to_be_counted():
    found = set(counters())
    assert {
        "keepalives",
        "passed.requests",
        "dropped.fenced",
        "dropped.no-server",
        "trouble.send",
        "answered",
    } <= found


def test_section_1_names_every_file_of_the_asterisks_and_the_lines_in_which_the_two_differ():
    part = MANUAL[MANUAL.index("  Two Asterisks\n") : MANUAL.index("  Two forwarders\n")]
    folder = ROOT / "examples" / "asterisk"
    files = {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir()}
    for name in files:
        assert re.search(rf"\b{re.escape(name)}\b", part), f"{name} is not there"
    for name, (before, after) in {"pjsip.conf": SECOND_BIND, "asterisk.conf": SECOND_NAME}.items():
        assert files[name].count(f"{before}\n") + files[name].count(f"{before}:") == 1
        assert f"s/{before}/{after}/" in part
