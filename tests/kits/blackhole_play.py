"""Played inside a network namespace of its own by test_blackhole.py: cuts servers off, loses
datagrams, prints JSON.

The forwarder and the phone are at one end of two virtual cables, each server at the other of its
own, in a namespace that ends with the process which holds it. Exit status 77 says that this
computer cannot stage it, and stderr why.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time

from load_kit import forwarder_started
from process_kit import wait_until

from benchmarks.load import Load, Server, calm, gap, lost, repeated, stale

HERE, SERVERS = "10.77.0.1", {"server1": "10.77.0.11", "server2": "10.77.0.12"}
PORT, FORWARDER = 5070, (HERE, 5060)
LOST_HEARTBEATS = 200
NOTICED = 0.25  # seconds that the forwarder may take to notice a server that hangs

STARTED: list[subprocess.Popen[bytes]] = []


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


class Cable:
    """Leads to one server, in a namespace of its own. `cut` returns at once: whoever sends a
    thousand requests a second has no time to wait for a firewall."""

    def __init__(self, number: int, name: str, address: str) -> None:
        self.address, self.near, self.far = address, f"near{number}", f"far{number}"
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "300"])
        here = os.readlink("/proc/self/ns/net")
        wait_until(lambda: os.readlink(f"/proc/{self._holder.pid}/ns/net") != here)
        self.inside = ("nsenter", f"--net=/proc/{self._holder.pid}/ns/net")
        run(
            "ip",
            "link",
            "add",
            self.near,
            "type",
            "veth",
            "peer",
            "name",
            self.far,
            "netns",
            str(self._holder.pid),
        )
        run("ip", "link", "set", self.near, "up")
        run("ip", "route", "add", address, "dev", self.near, "src", HERE)
        self.beyond("ip", "addr", "add", f"{address}/32", "dev", self.far)
        self.beyond("ip", "link", "set", self.far, "up")
        self.beyond("ip", "route", "add", HERE, "dev", self.far, "src", address)
        self.server = Server(name, (address, PORT))
        self.server.prefix = self.inside

    def beyond(self, *argv: str) -> str:
        return run(*self.inside, *argv)

    def close(self) -> None:
        self.server.stop()
        self._holder.kill()
        self._holder.wait()

    def cut(self, how: str) -> None:
        """Nobody is told: what arrives is dropped here ("from"), there ("to"), or both; or the
        interface is down."""
        if how == "link":
            start(*self.inside, "ip", "link", "set", self.far, "down")
        if how in ("from", "both"):
            start(*dropping(self.near, 100))
        if how in ("to", "both"):
            start(*self.inside, *dropping(self.far, 100))

    def mend(self, how: str) -> None:
        if how == "link":
            both = f"ip link set {self.far} up && ip route add {HERE} dev {self.far} src {self.address}"
            start(*self.inside, "sh", "-c", both)
        if how in ("from", "both"):
            start(*passing())
        if how in ("to", "both"):
            start(*self.inside, *passing())

    def lose(self, percent: int) -> None:
        """So many of a hundred, each way."""
        for argv, interface in (((), self.near), (self.inside, self.far)):
            try:
                run(
                    *argv,
                    "tc",
                    "qdisc",
                    "add",
                    "dev",
                    interface,
                    "root",
                    "netem",
                    "loss",
                    f"{percent}%",
                )
            except OSError:  # this kernel has no netem
                run(*argv, *dropping(interface, percent))

    def dropped(self) -> int:
        """What `lose` has made vanish."""
        total = 0
        for argv, interface in (((), self.near), (self.inside, self.far)):
            said = run(*argv, "tc", "-s", "qdisc", "show", "dev", interface)
            if "netem" in said:
                total += sum(map(int, re.findall(r"dropped (\d+)", said)))
            elif shutil.which("nft"):
                said = run(*argv, "nft", "list", "ruleset")
                total += sum(map(int, re.findall(rf'"{interface}".*packets (\d+)', said)))
            else:
                said = run(*argv, "iptables", "-w", "-nvxL", "INPUT")
                total += sum(
                    map(
                        int,
                        re.findall(rf"^\s*(\d+)\s+\d+\s+DROP.* {interface} ", said, re.MULTILINE),
                    )
                )
        return total


def start(*argv: str) -> None:
    STARTED.append(subprocess.Popen(argv))


def dropping(interface: str, percent: int) -> tuple[str, ...]:
    """The command that drops what comes in there: silently, which a rule for what goes out would
    not be."""
    if shutil.which("nft"):
        chance = f"numgen random mod 100 < {percent}" if percent < 100 else ""
        rule = f'add rule ip play input iifname "{interface}" ip protocol udp {chance} counter drop'
        chain = "add table ip play; add chain ip play input { type filter hook input priority 0; }"
        return ("nft", f"{chain}; {rule}")
    chance = f"-m statistic --mode random --probability {percent / 100}" if percent < 100 else ""
    return ("sh", "-c", f"iptables -w -A INPUT -i {interface} -p udp {chance} -j DROP")


def passing() -> tuple[str, ...]:
    return ("nft", "delete table ip play") if shutil.which("nft") else ("iptables", "-w", "-F")


@contextlib.contextmanager
def stage():
    """(the cable to server1, the one to server2, the forwarder's log), everything answering."""
    with contextlib.ExitStack() as ending:
        ending.callback(lambda: [process.wait() for process in STARTED])
        run("ip", "link", "set", "lo", "up")
        run("ip", "addr", "add", f"{HERE}/32", "dev", "lo")
        cables = []
        for number, (name, address) in enumerate(SERVERS.items()):
            cables.append(Cable(number, name, address))
            ending.callback(cables[-1].close)
            cables[-1].server.start()
        servers = [cable.server for cable in cables]
        log = ending.enter_context(
            forwarder_started(servers, FORWARDER[1], "limit.rate=0", host=HERE)
        )
        yield *cables, log


def states(log: list[str], name: str = "server") -> list[str]:
    return [line for line in log if re.search(rf"{name}\d? is [A-Z]+:", line)]


def cut(how: str) -> dict[str, object]:
    with stage() as (first, _second, log):
        load = Load(FORWARDER, 1000, HERE)
        # neighbours look for one another again but once a second
        seconds = 5.0 if how == "link" else 2.0
        asked = load.run(seconds, [(0.5, lambda: first.cut(how)), (1.2, lambda: first.mend(how))])
    began = load.began
    return {
        "calm": calm(asked, began + 0.1, began + 0.45),
        "lost": lost(asked),
        "repeated": repeated(asked),
        "gap": gap(asked, began + 0.45, began + 1.2),
        "server2": sum(one.answers[0][2] == "server2" for one in asked if one.answers),
        "stale": stale(asked, began + 1.2, "server1"),
        "back": any(one.answers[0][2] == "server1" for one in asked[-200:] if one.answers),
        "log": log,
    }


def loss(percent: int) -> dict[str, object]:
    with stage() as (first, second, log):
        first.lose(percent)
        second.lose(percent)
        # lost so far: heartbeats only; each look starts programs
        wait_until(lambda: first.dropped() + second.dropped() > LOST_HEARTBEATS, 30.0, every=0.2)
        load = Load(FORWARDER, 200, HERE)
        asked = load.run(5.0, patience=0.0)
        dropped = first.dropped() + second.dropped()
    down = [line for line in states(log) if "is DOWN" in line]
    return {
        "dropped": dropped,
        "down": down,
        "asked": len(asked),
        "answered": sum(bool(one.answers) for one in asked),
    }


def loss_and_freeze(percent: int) -> dict[str, object]:
    with stage() as (first, _second, log):
        first.lose(percent)
        wait_until(lambda: first.dropped() > LOST_HEARTBEATS / 4, every=0.2)
        frozen = time.time()
        first.server.freeze()
        time.sleep(4 * NOTICED)
    down = [line for line in states(log, "server1") if "is DOWN" in line]
    noticed = None
    if down:
        date, _, milliseconds = down[0][:23].partition(",")
        noticed = (
            time.mktime(time.strptime(date, "%Y-%m-%d %H:%M:%S"))
            + int(milliseconds) / 1000
            - frozen
        )
    return {"noticed": noticed, "log": log}


def main() -> int:
    scenario, word = sys.argv[1:]
    try:
        seen = (
            cut(word)
            if scenario == "cut"
            else {"loss": loss, "freeze": loss_and_freeze}[scenario](int(word))
        )
    except (OSError, FileNotFoundError) as error:
        print(f"this computer cannot stage it: {error}", file=sys.stderr)
        return 77
    print(json.dumps(seen))
    return 0


if __name__ == "__main__":
    sys.exit(main())
