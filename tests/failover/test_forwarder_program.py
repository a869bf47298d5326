"""`python -S forwarder.py` as its user meets it: options, faults, signals, and a real kill -9."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys

import pytest
from forwarder_kit import ask, fake_servers, field, plain_phone
from forwarder_program_kit import Running, run

# -- options and faults ----------------------------------------------------------------------------


def test_check_says_what_it_read_and_what_it_promises():
    said = run("--check")
    assert (said.returncode, said.stderr) == (0, "")
    assert "server1 127.0.0.1:5070, server2 127.0.0.1:5080" in said.stdout
    assert "a killed server is noticed at once, a hung one within 0.2 s" in said.stdout


def test_check_says_where_servers_may_register(tmp_path):
    file = tmp_path / "servers.properties"
    file.write_text("registration.listen=10.0.0.1:5065\nregistration.allow=10.0.0.0/8\n")
    said = run(file, "--check")
    assert (said.returncode, said.stderr) == (0, "")
    assert "servers, in order: none but those that come" in said.stdout
    assert (
        "register themselves at 10.0.0.1:5065 (UDP), their own address, from 10.0.0.0/8; forgotten "
        "after 10 s" in (said.stdout)
    )


def test_check_names_the_secret_and_makes_none(tmp_path):
    file = tmp_path / "servers.properties"
    file.write_text("server1=127.0.0.1:5070\n")
    secret = tmp_path / "forwarder.secret"
    assert (
        f"secret: {secret}, to be made by the first start"
        in run(file, "--check").stdout.splitlines()
    )
    assert not secret.exists()
    secret.write_text("x" * 40)
    secret.chmod(0o600)
    told = run(file, "--check").stdout
    assert re.search(rf"^secret: [0-9a-f]{{8}}, from {re.escape(str(secret))}$", told, re.MULTILINE)
    assert "xxxx" not in told
    file.write_text("server1=127.0.0.1:5070\nforwarder.secret.file=\n")
    assert (
        "secret: for this run only (forwarder.secret.file is empty)"
        in run(file, "--check").stdout.splitlines()
    )


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
@pytest.mark.parametrize("options", [[], ["--check"]])
def test_a_secret_that_others_can_read_is_refused_with_the_remedy(tmp_path, options):
    file, secret = tmp_path / "servers.properties", tmp_path / "forwarder.secret"
    file.write_text("server1=127.0.0.1:5070\nadmin.listen=\n")
    secret.write_text("x" * 40)
    secret.chmod(0o644)
    said = run(file, *options)
    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr == f"{secret} is open to other users (mode 0644): chmod 600 {secret}\n"


@pytest.mark.parametrize(
    "admin, warned",
    [("0.0.0.0:8060", True), ("127.0.0.1:8060", False), ("[::1]:8060", False), ("", False)],
)
def test_check_warns_of_pages_that_other_computers_reach(tmp_path, admin, warned):
    file = tmp_path / "servers.properties"
    file.write_text(f"server1=127.0.0.1:5070\nadmin.listen={admin}\n")
    told = run(file, "--check")
    assert told.returncode == 0 and told.stdout.endswith("\n") and not told.stdout.endswith("\n\n")
    assert ("warning: the pages at 0.0.0.0:8060 have no password" in told.stdout) == warned


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (
            "server1=192.0.2.11:5060\nforwarder.listen=127.0.0.1:5060\n",
            "forwarder.listen=127.0.0.1:5060 is of this computer only: "
            "no requests of server1 192.0.2.11:5060 arrive there",
        ),
        (
            "server1=127.0.0.1:5070\nforwarder.listen=192.0.2.77:5060\n",
            "forwarder.listen=192.0.2.77:5060: this computer has no such address now; "
            "it stands by until it has",
        ),
        (
            "server1=127.0.0.1:5070\nforwarder.listen=192.0.2.77:5060\nforwarder.standby=no\n",
            "forwarder.listen=192.0.2.77:5060: this computer has no such address now; "
            "it does not start until then",
        ),
        (
            "server1=127.0.0.1:5070\nadmin.links=server9 http://127.0.0.1:8071/\n",
            "admin.links names server9, and no server is called so",
        ),
    ],
)
def test_check_warns_of_what_can_be_and_will_not_work(tmp_path, lines, told):
    file = tmp_path / "servers.properties"
    file.write_text(lines)
    assert f"warning: {told}" in run(file, "--check").stdout.splitlines()


def test_check_tells_what_the_forwarder_writes_and_is_called(tmp_path):
    file = tmp_path / "servers.properties"
    file.write_text(
        "server1=127.0.0.1:5070\nforwarder.advertise=192.0.2.9:5060\nforwarder.names=sip.test\n"
    )
    told = run(file, "--check").stdout.splitlines()
    assert "writes 192.0.2.9:5060 into messages" in told
    assert "is meant by these, too: sip.test" in told


def test_check_promises_by_what_the_file_says(tmp_path):
    file = tmp_path / "servers.properties"
    file.write_text(
        "server1=127.0.0.1:5070\nheartbeat.interval=0.5\nheartbeat.fall=5\nheartbeat.rise=4\n"
        "forwarder.policy=call-id\nforwarder.convergence=X-Session\n"
    )
    told = run(file, "--check").stdout
    assert "new calls go by call-id (sessions named by X-Session)" in told
    assert (
        "heartbeats every 0.5 s: a killed server is noticed at once, a hung one within 3 s" in told
    )
    assert "one that is back is used after 4 answers, 2 s" in told


def test_the_default_file_is_the_one_beside_the_program(tmp_path):
    assert run("--check", cwd=tmp_path).returncode == 0


def test_version_and_help():
    assert re.fullmatch(r"forwarder \d+\.\d+\.\d+\n", run("--version").stdout)
    assert "--check" in run("--help").stdout
    assert run("--chekc").returncode == 2


@pytest.mark.parametrize("options", [[], ["--check"]])
def test_every_fault_is_shown_at_once_with_its_line(tmp_path, options):
    file = tmp_path / "servers.properties"
    file.write_text(
        "server1=127.0.0.1:5070\nhartbeat.interval=1\nheartbeat.fall=many\n127.0.0.1:5070\n"
    )
    said = run(file, *options)
    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr.splitlines() == [
        "servers.properties:2: unknown key 'hartbeat.interval' (did you mean "
        "'heartbeat.interval'?)",
        "servers.properties:3: heartbeat.fall: 'many' is not a whole number from 1 to 100",
        "servers.properties:4: 127.0.0.1:5070 is on line 1 already, as server1",
    ]


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path):
    for file in (tmp_path / "nowhere.properties", tmp_path):
        said = run(file)
        assert (
            said.returncode == 1 and len(said.stderr.splitlines()) == 1 and str(file) in said.stderr
        )
    huge = tmp_path / "huge"
    huge.write_bytes(b"#" * (1 << 21))
    assert "too large" in run(huge).stderr


def test_a_port_that_is_taken_is_one_sentence_with_the_remedy(program, free_port):
    with fake_servers(free_port) as servers:
        running, address, file = program(servers, "forwarder.standby=no")
        said = run(file)
        assert said.returncode == 1 and "ready" not in said.stdout
        taken, remedy = said.stderr.split(" has this port; ")
        where = f"Address already in use (127.0.0.1:{address[1]}): "
        if sys.platform == "linux":
            assert taken.startswith(f"{where}{sys.executable} -S ") and taken.endswith(
                f" (pid {running.process.pid})"
            )
        else:
            assert taken == f"{where}another program"
        waits = "or let this one wait for it (forwarder.standby=yes)"
        assert remedy == f"stop it, or choose another in servers.properties, {waits}\n"


def test_a_taken_port_of_the_pages_stops_the_start_as_well(tmp_path, free_port):
    file, port = tmp_path / "servers.properties", free_port()
    with fake_servers(free_port, 1) as servers, socket.create_server(("127.0.0.1", port)):
        lines = [
            f"forwarder.listen=127.0.0.1:{free_port()}",
            f"admin.listen=127.0.0.1:{port}",
            "forwarder.standby=no",
        ]
        file.write_text("\n".join([f"127.0.0.1:{servers[0].address[1]}", *lines]))
        said = run(file)
    assert (
        said.returncode == 1 and f"(127.0.0.1:{port}): another program has this port" in said.stderr
    )


def test_an_address_of_another_computer_is_one_sentence(tmp_path):
    file = tmp_path / "servers.properties"
    file.write_text(
        "127.0.0.1:5070\nforwarder.listen=192.0.2.1:5060\nforwarder.standby=no\nadmin.listen="
    )
    assert "this computer has no such address" in run(file).stderr


# -- running ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_says_when_it_is_ready_forwards_and_stops_cleanly(program, free_port, how):
    with fake_servers(free_port) as servers, plain_phone() as phone:
        running, address, _ = program(servers)
        assert running.said[-1] == f"ready: 127.0.0.1:{address[1]}"
        assert any("a hung one within 0.2 s" in line for line in running.said)
        assert field(ask(phone, address, "z9hG4bK1"), "X-Server") == "server1"
        assert running.stop(how) == 0
        assert "Traceback" not in running.log.read_text()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_sighup_reads_the_file_again_and_a_bad_one_changes_nothing(program, free_port, eventually):
    with fake_servers(free_port) as servers, plain_phone() as phone:
        running, address, file = program(servers[:1])
        good = file.read_text()
        file.write_text(good + "\nhartbeat.fall=1")
        running.process.send_signal(signal.SIGHUP)
        eventually(lambda: "unknown key 'hartbeat.fall'" in running.log.read_text())
        assert field(ask(phone, address, "z9hG4bK1"), "X-Server") == "server1"
        file.write_text(
            good.replace("server1=", "old=") + f"\nserver2=127.0.0.1:{servers[1].address[1]}"
        )
        running.process.send_signal(signal.SIGHUP)
        eventually(
            lambda: f"+ server2 127.0.0.1:{servers[1].address[1]}" in running.log.read_text()
        )
        assert running.stop() == 0


def test_verbose_tells_the_way_and_the_reason_of_every_message(program, free_port, eventually):
    with fake_servers(free_port) as servers, plain_phone() as phone:
        running, address, _ = program(servers, options=["-v"])
        ask(phone, address, "z9hG4bK1", call_id="the-call")
        where = f"127.0.0.1:{servers[0].address[1]}"
        line = f"call=the-call OPTIONS phones -> server1 {where} (first-live)"
        eventually(lambda: line in running.log.read_text())


def test_a_stranger_writes_at_most_a_line_a_second_into_the_log_and_no_control_characters(
    program, free_port
):
    with fake_servers(free_port) as servers, plain_phone() as phone:
        running, address, _ = program(servers)
        for n in range(200):
            phone.sendto(f"INVITE \x1b[2J{n}\nVia: x\n\n".encode(), address)
        assert field(ask(phone, address, "z9hG4bK1"), "X-Server") == "server1"
        lines = [line for line in running.log.read_text().splitlines() if "malformed" in line]
        assert 1 <= len(lines) <= 2 and "\x1b" not in "".join(lines)


def test_the_secret_is_made_at_the_first_start_and_used_at_the_second(program, free_port):
    with fake_servers(free_port) as servers, plain_phone() as phone:
        first, address, file = program(servers)
        secret = file.parent / "forwarder.secret"
        assert os.name != "posix" or secret.stat().st_mode & 0o777 == 0o600
        assert first.said[-2].endswith(f"{secret}, made now")
        via = field(sent_on(phone, address, servers[0]), "Via")
        first.stop()
        second = Running(file)
        try:
            assert second.said[-2].endswith(f", from {secret}")
            assert second.said[-2].partition(",")[0] == first.said[-2].partition(",")[0], (
                "the same fingerprint"
            )
            assert field(sent_on(phone, address, servers[0]), "Via") == via
        finally:
            second.stop()


def sent_on(phone, address, server):
    """What the server gets of one and the same request."""
    ask(phone, address, "z9hG4bKsame")
    return server.heard[-1]


def test_a_secret_that_cannot_be_written_is_said_and_stops_nothing(program, free_port, tmp_path):
    with fake_servers(free_port) as servers, plain_phone() as phone:
        nowhere = tmp_path / "no such folder" / "secret"
        running, address, _ = program(servers, f"forwarder.secret.file={nowhere}")
        assert field(ask(phone, address, "z9hG4bK1"), "X-Server") == "server1"
        why = f"{nowhere} cannot be written: no such file or directory"
        assert (
            f"the secret is for this run only ({why}): after a restart" in running.log.read_text()
        )


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")
def test_under_systemd_a_line_has_its_level_and_no_time(
    program, free_port, eventually, monkeypatch, tmp_path
):
    with fake_servers(free_port) as servers, plain_phone() as phone:
        monkeypatch.setattr(Running, "journal", True)
        running, address, file = program(servers, options=["-v"])
        ask(phone, address, "z9hG4bK1", call_id="the-call")
        eventually(lambda: "<7>call=the-call OPTIONS phones -> server1" in running.log.read_text())
        servers[0].kill()
        eventually(lambda: "<4>server1 is DOWN: its port refused" in running.log.read_text())
        file.write_text("one.fault=1\nanother.fault=2")
        running.process.send_signal(signal.SIGHUP)
        eventually(lambda: "<3>reload refused, nothing changed: " in running.log.read_text())
        lines = running.log.read_text().splitlines()
        assert all(re.match("<[2-7]>[^0-9]", line) for line in lines), (
            "one line an event, each with its level"
        )


def test_a_failover_reads_well_at_three_in_the_morning(program, free_port, eventually):
    with fake_servers(free_port) as servers, plain_phone() as phone:
        running, address, _ = program(servers)
        ask(phone, address, "z9hG4bK1")
        servers[0].kill()
        ask(phone, address, "z9hG4bK2")
        eventually(lambda: "failover over" in running.log.read_text())
        log = running.log.read_text()
        gone = r"failover: server1 is gone \(its port refused a (message|heartbeat)\), last heard [0-9.]+ ms before"
        assert re.search(gone + r"; server2 takes over; \d of \d in flight sent on", log)
        over = r"failover over: first answer of server2, to a request that had waited [0-9.]+ ms, "
        over += r"[0-9.]+ ms after"
        assert re.search(over, log)
        servers[1].kill()
        ask(phone, address, "z9hG4bK3", call_id="unlucky")
        eventually(lambda: "NOBODY IS LEFT TO TAKE OVER" in running.log.read_text())
        where = f"127.0.0.1:{phone.getsockname()[1]}"
        refused = f"dropped (no-server) from phones {where} OPTIONS call=unlucky: no server lives"
        assert refused in running.log.read_text()
