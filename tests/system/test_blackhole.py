"""Datagrams that vanish: a server cut off, a network that loses three in ten, in network namespaces
of the test's own.

All of it runs in tests/kits/blackhole_play.py, which enters a new namespace before anything else;
whatever it changes there ends with it. Needs the right to make namespaces (root has it), iproute2,
and tc with netem, nft or iptables.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's"),
    pytest.mark.skipif(
        not shutil.which("ip") or not shutil.which("unshare"), reason="iproute2 is not installed"
    ),
]


def play(scenario, *more):
    """What the play saw, a dictionary; skips with its reason where this computer cannot stage
    it."""
    argv = [
        "unshare",
        "--net",
        sys.executable,
        str(ROOT / "tests" / "kits" / "blackhole_play.py"),
        scenario,
        *more,
    ]
    if os.geteuid() != 0:
        argv[1:1] = ["--map-root-user"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "kits")]),
    }
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, env=environment)
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("how", ["to", "from", "both", "link"])
def test_a_server_cut_off_costs_no_request_and_at_most_200_ms(how):
    seen = [one for one in (play("cut", how) for _ in range(5)) if one["calm"]][:3]
    if len(seen) < 3:
        pytest.skip("this computer is too busy: it was not calm before the cut")
    assert [one["lost"] for one in seen] == [0, 0, 0]
    assert statistics.median(one["repeated"] for one in seen) == 0, seen
    assert statistics.median(one["gap"] for one in seen) <= 0.200, seen
    assert all(one["server2"] > 100 for one in seen)
    assert all(one["back"] for one in seen), "it is used again once its datagrams pass"
    assert all(one["stale"] == 0 for one in seen)


def test_a_network_that_loses_three_in_ten_takes_no_server_down():
    """Both ways, between the forwarder and its servers, idle but for heartbeats and then with
    traffic."""
    seen = play("loss", "30")
    assert seen["dropped"] > 300, "the loss was real"
    assert seen["down"] == [], seen
    assert seen["answered"] > 0.3 * seen["asked"], (
        "each request and each answer has seven chances in ten"
    )


def test_a_hung_server_is_noticed_in_time_however_lossy_the_network_is():
    seen = play("freeze", "30")
    assert seen["noticed"] is not None and seen["noticed"] <= 0.25, seen
