"""`demo.py pack`: the forwarder as one file, used as its user would on a computer without the
project."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import pytest
from forwarder_kit import ask, fake_servers, field, plain_phone

ROOT = Path(__file__).resolve().parents[2]


def pack(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-S", str(ROOT / "demo.py"), "pack", *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, cwd=cwd)


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    said = pack(cwd=folder)
    assert (said.returncode, said.stderr) == (0, "")
    assert [path.name for path in folder.iterdir()] == ["forwarder.pyz"], (
        "and nothing is left beside it"
    )
    return folder / "forwarder.pyz"


def run(archive: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Far from the project: -I takes neither this folder nor PYTHONPATH."""
    argv = [sys.executable, "-I", "-S", str(archive), *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, cwd="/")


def test_it_reads_the_properties_beside_it_wherever_it_is_started(archive, tmp_path):
    own = shutil.copy(archive, tmp_path)
    (tmp_path / "servers.properties").write_text("server1=192.0.2.11:5060\n")
    said = run(own, "--check")
    assert (said.returncode, said.stderr) == (0, "")
    assert "servers, in order: server1 192.0.2.11:5060" in said.stdout
    assert f"secret: {tmp_path / 'forwarder.secret'}, to be made by the first start" in said.stdout


@pytest.mark.skipif(os.name != "posix", reason="a file that says what runs it is POSIX's")
def test_it_is_a_program_by_itself(archive):
    said = subprocess.run([archive, "--version"], capture_output=True, text=True, timeout=30)
    assert (said.returncode, said.stdout.split()[0]) == (0, "forwarder")


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL and SIGHUP are POSIX's")
def test_it_forwards_fails_over_and_reloads_and_a_newer_one_may_take_its_place_meanwhile(
    archive, tmp_path, free_port
):
    own, file = Path(shutil.copy(archive, tmp_path)), tmp_path / "servers.properties"
    listen = ("127.0.0.1", free_port())
    with fake_servers(free_port) as (one, other), plain_phone() as phone:
        lines = [
            f"{server.name}={server.address[0]}:{server.address[1]}" for server in (one, other)
        ]
        file.write_text(
            "\n".join(
                [*lines, f"forwarder.listen={listen[0]}:{listen[1]}", "admin.listen=127.0.0.1:0"]
            )
        )
        running = subprocess.Popen(
            [sys.executable, "-I", "-S", str(own)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
        )
        try:
            told = "".join(iter(running.stdout.readline, f"ready: {listen[0]}:{listen[1]}\n"))
            page = re.search(r"http://127\.0\.0\.1:\d+/", told)[0]
            for name, part in (("", "<h1>"), ("page.css", ":root"), ("page.js", "fetch(")):
                with urlopen(page + name, timeout=5) as answer:
                    assert part in answer.read().decode()
            assert field(ask(phone, listen, "z9hG4bK1"), "X-Server") == "server1"
            assert pack(own, cwd=tmp_path).returncode == 0
            one.kill()
            assert field(ask(phone, listen, "z9hG4bK2"), "X-Server") == "server2"
            running.send_signal(signal.SIGHUP)
            assert any("reload" in line for line in running.stdout)
            assert field(ask(phone, listen, "z9hG4bK3"), "X-Server") == "server2"
            running.terminate()
            assert running.wait(5) == 0
        finally:
            with suppress(OSError):
                running.kill()
            running.wait()
            running.stdout.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="systemd is Linux's")
def test_it_tells_systemd_that_it_is_ready(archive, tmp_path, free_port):
    file = tmp_path / "servers.properties"
    file.write_text(
        f"server1=127.0.0.1:{free_port()}\nforwarder.listen=127.0.0.1:{free_port()}\nadmin.listen=\n"
    )
    with (
        tempfile.TemporaryDirectory() as short,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
    ):
        systemd.bind(f"{short}/notify")
        systemd.settimeout(20)
        argv = [sys.executable, "-S", str(archive), str(file)]
        environment = {**os.environ, "NOTIFY_SOCKET": f"{short}/notify"}
        running = subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL)
        try:
            while b"READY=1" not in systemd.recv(4096).split(b"\n"):
                pass  # what it knows of its servers may be said before
        finally:
            running.terminate()
            assert running.wait(5) == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere/forwarder.pyz"], "There is no folder nowhere"),
        (["."], "is a folder"),
        (["one", "two"], "unrecognized arguments: two"),
    ],
)
def test_where_it_cannot_be_made_is_said_and_nothing_is_left(tmp_path, arguments, told):
    said = pack(*arguments, cwd=tmp_path)
    assert said.returncode != 0 and told in said.stderr and "Traceback" not in said.stderr
    assert list(tmp_path.iterdir()) == []
