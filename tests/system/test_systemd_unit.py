"""examples/systemd/call-failover.service: what it says of the forwarder is true, and systemd
understands all of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "examples" / "systemd" / "call-failover.service"
LINES = [
    line
    for line in UNIT.read_text(encoding="utf-8").splitlines()
    if "=" in line and not line.startswith("#")
]


def values(key):
    return [line.partition("=")[2] for line in LINES if line.startswith(f"{key}=")]


def test_it_waits_for_ready_watches_and_restarts_at_once():
    assert values("Type") == ["notify"] and values("Restart") == ["always"]
    assert float(values("WatchdogSec")[0]) <= 5 and values("RestartSec") == ["100ms"]
    assert values("StartLimitIntervalSec") == ["0"], "a forwarder that gives up forwards nothing"


def test_a_reload_looks_at_the_file_before_it_asks_the_forwarder_to_read_it():
    check, ask = values("ExecReload")
    assert check == f"{values('ExecStart')[0]} --check" and ask == "/bin/kill -HUP $MAINPID"


def test_the_files_it_names_are_where_the_project_has_them():
    named = set(re.findall(r"/opt/call-failover/(\S+)", UNIT.read_text(encoding="utf-8")))
    assert named == {"forwarder.py", "docs/operations.txt"}
    assert all((ROOT / name).is_file() for name in named)


def test_it_may_reach_only_what_it_needs():
    for key, value in {
        "DynamicUser": "yes",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "CapabilityBoundingSet": "",
        "SystemCallFilter": "@system-service",
    }.items():
        assert values(key) == [value]
    assert values("StateDirectory") == ["call-failover"], (
        "where the secret goes (failover/config/shared_secret.py)"
    )


def test_systemd_has_nothing_to_say_against_it(tmp_path):
    analyze = shutil.which("systemd-analyze")
    if not analyze:
        pytest.skip("systemd-analyze is not installed (Debian: systemd)")
    unit = shutil.copy(UNIT, tmp_path)
    verdict = subprocess.run(
        [analyze, "verify", "--man=no", unit], capture_output=True, text=True, timeout=30
    )
    assert (verdict.returncode, verdict.stdout + verdict.stderr) == (0, "")


@pytest.mark.parametrize("name", ["call-failover", "keepalived"])
def test_systemd_has_nothing_to_say_against_what_keepalived_adds(tmp_path, name):
    analyze, unit = shutil.which("systemd-analyze"), UNIT
    if name == "keepalived":
        unit = Path("/lib/systemd/system/keepalived.service")
    if not analyze or not unit.exists():
        pytest.skip("systemd-analyze or keepalived is not installed (Debian: systemd, keepalived)")
    folder = tmp_path / f"{name}.service.d"
    folder.mkdir()
    shutil.copy(ROOT / "examples" / "keepalived" / f"{name}.service.conf", folder / "pair.conf")
    verify = [analyze, "verify", "--man=no", shutil.copy(unit, tmp_path)]
    verdict = subprocess.run(verify, capture_output=True, text=True, timeout=30)
    assert (verdict.returncode, verdict.stdout + verdict.stderr) == (0, "")


def test_the_two_files_of_keepalived_differ_only_in_what_they_say_they_do():
    folder = ROOT / "examples" / "keepalived"
    first, second = (
        [
            line.split()
            for line in re.sub(" *#.*", "", (folder / name).read_text()).splitlines()
            if line.strip()
        ]
        for name in ("active.conf", "standby.conf")
    )
    differences = [(one, other) for one, other in zip(first, second, strict=True) if one != other]
    assert [one[0] for one, _ in differences] == ["router_id", "priority"]
