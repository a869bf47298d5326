"""The secret file: made once, for its owner's eyes only, and the same for every forwarder that has
it."""

from __future__ import annotations

import os
import stat
import threading

import pytest

from failover.config import shared_secret
from failover.config.shared_secret import SecretError, describe, open_secret, secret_path

POSIX = pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
GOOD = "0123456789abcdef0123456789abcdef"


def written(path, text=GOOD, mode=0o600):
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_first_start_makes_it_and_the_second_finds_it(tmp_path):
    path = tmp_path / "forwarder.secret"
    first = open_secret(path)
    assert (first.kept, first.origin) == (True, f"{path}, made now")
    second = open_secret(path)
    assert (second.key, second.origin, second.fingerprint) == (
        first.key,
        str(path),
        first.fingerprint,
    )
    assert os.listdir(tmp_path) == ["forwarder.secret"], "no draft is left"


@POSIX
def test_it_is_made_for_its_owner_only_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        open_secret(tmp_path / "s")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600


def test_a_copy_on_another_computer_is_the_same_secret_even_with_another_end_of_line(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    ours = open_secret(tmp_path / "s")
    theirs = written(tmp_path / "elsewhere" / "s", (tmp_path / "s").read_text().strip() + "\r\n\n")
    assert open_secret(theirs).key == ours.key
    assert open_secret(written(tmp_path / "other")).fingerprint != ours.fingerprint


@POSIX
@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o620, 0o666])
def test_one_that_others_can_read_or_write_is_refused_with_the_remedy(tmp_path, mode):
    path = written(tmp_path / "s", mode=mode)
    with pytest.raises(SecretError) as caught:
        open_secret(path)
    assert str(caught.value) == f"{path} is open to other users (mode {mode:04o}): chmod 600 {path}"


def test_a_short_one_is_refused_and_not_written_over(tmp_path):
    path = written(tmp_path / "s", "too short\n")
    with pytest.raises(SecretError, match="less than 32 characters: delete it"):
        open_secret(path)
    assert path.read_text() == "too short\n"


def test_a_folder_and_a_pipe_are_no_secrets(tmp_path):
    with pytest.raises(SecretError, match="is not a file"):
        open_secret(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe", 0o600)
        with pytest.raises(SecretError, match="is not a file"):
            open_secret(tmp_path / "pipe")


def test_a_link_to_nothing_is_a_sentence(tmp_path):
    (tmp_path / "s").symlink_to(tmp_path / "gone")
    with pytest.raises(SecretError, match="a link to nothing"):
        open_secret(tmp_path / "s")
    with pytest.raises(SecretError, match="a link to nothing"):
        describe(tmp_path / "s")


@POSIX
def test_one_that_cannot_be_reached_is_not_taken_for_one_that_is_not_there(tmp_path):
    """A forwarder of a pair that started with a secret of its own would lose the other's calls."""
    shut = tmp_path / "shut"
    shut.mkdir()
    there = written(shut / "s")
    if os.geteuid():
        shut.chmod(0)  # root may enter any folder; what follows holds for root too
    else:
        there = there / "under-a-file"
    for look in (open_secret, describe):
        with pytest.raises(SecretError, match="let this user read it"):
            look(there)
    shut.chmod(0o700)


def test_where_it_cannot_be_written_there_is_one_for_this_run_and_a_sentence(tmp_path, monkeypatch):
    there_is_none = tmp_path / "no such folder" / "s"
    made = open_secret(there_is_none)
    assert not made.kept
    assert (
        made.origin
        == f"this run only ({there_is_none} cannot be written: no such file or directory)"
    )

    def read_only(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(shared_secret, "_make", read_only)
    other = open_secret(tmp_path / "s")
    assert "read-only file system" in other.origin and other.key != made.key


def test_it_is_whole_or_not_there_whenever_its_maker_is_killed(tmp_path, monkeypatch):
    def killed(_handle):
        assert not (tmp_path / "secret").exists()
        raise OSError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", killed)
        assert not open_secret(tmp_path / "secret").kept
    assert list(tmp_path.iterdir()) == []
    assert open_secret(tmp_path / "secret").kept
    assert [each.name for each in tmp_path.iterdir()] == ["secret"]


def test_without_a_name_it_ends_with_the_process(tmp_path):
    assert secret_path("", tmp_path / "f") is None
    assert open_secret(None).origin == "this run only (forwarder.secret.file is empty)"


def test_a_relative_name_is_beside_the_settings_or_where_systemd_keeps_the_state_of_a_service(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    file = tmp_path / "servers.properties"
    assert secret_path("forwarder.secret", file) == tmp_path.resolve() / "forwarder.secret"
    absolute = tmp_path / "elsewhere" / "s"
    assert secret_path(str(absolute), file) == absolute
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}/state:/other")
    assert secret_path("forwarder.secret", file) == tmp_path / "state" / "forwarder.secret"
    assert secret_path(str(absolute), file) == absolute


def test_forwarders_that_start_at_the_same_moment_agree(tmp_path):
    gate, found = threading.Barrier(8), []

    def start():
        gate.wait()
        found.append(open_secret(tmp_path / "s").key)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1
    assert os.listdir(tmp_path) == ["s"]
