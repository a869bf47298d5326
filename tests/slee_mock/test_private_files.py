"""Files with keys and passwords are their owner's alone: the store, its companions, and the list of
users."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat

import pytest

from slee_mock.settings import SettingsError, parse_arguments
from slee_mock.store.interface import ConditionalWrite, StoreDown
from slee_mock.store.sqlite_store import SqliteStore
from stage.processes.cluster import Cluster, Ports

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
OPEN = [0o604, 0o640, 0o644, 0o620, 0o666]


@pytest.fixture
def careless():
    """An operator whose umask lets everybody read what he makes."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder):
    return {name: stat.S_IMODE((folder / name).stat().st_mode) for name in os.listdir(folder)}


def test_a_store_and_all_that_stands_beside_it_is_made_for_its_owner_alone(tmp_path, careless):
    store = SqliteStore(str(tmp_path / "cluster.db"))
    store.save([ConditionalWrite("secret", "cluster", "the cluster's key", 0)])
    reader = SqliteStore(str(tmp_path / "cluster.db"), reading=True)
    assert modes(tmp_path) == dict.fromkeys(
        ["cluster.db", "cluster.db-wal", "cluster.db-shm", ".cluster.db.lock"], 0o600
    )
    os.unlink(tmp_path / ".cluster.db.lock")
    store.due(0.0, 1)  # looks, and makes the lock file again
    assert modes(tmp_path)[".cluster.db.lock"] == 0o600
    reader.close()
    store.close()
    assert modes(tmp_path) == {"cluster.db": 0o600}


def test_so_it_is_behind_a_link_that_leads_to_nothing_yet(tmp_path, careless):
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
    SqliteStore(str(tmp_path / "link.db")).close()
    assert modes(tmp_path)["real.db"] == 0o600


@pytest.mark.parametrize("mode", OPEN)
def test_a_store_that_others_may_read_is_refused_with_the_remedy_as_the_forwarders_secret_is(
    tmp_path, mode
):
    path = tmp_path / "cluster.db"
    SqliteStore(str(path)).close()
    path.chmod(mode)
    with pytest.raises(StoreDown) as caught:
        SqliteStore(str(path))
    remedy = f"chmod 600 {path}"
    told = f"the store {path} is open to other users (mode {mode:04o}): {remedy}"
    assert str(caught.value) == told
    os.system(remedy)
    SqliteStore(str(path)).close()


def test_a_log_that_others_may_read_holds_the_same_secrets(tmp_path):
    path = tmp_path / "cluster.db"
    killed = SqliteStore(str(path))
    (tmp_path / "cluster.db-wal").chmod(0o644)
    with pytest.raises(StoreDown, match=r"cluster.db-wal is open to other users .*: chmod 600"):
        SqliteStore(str(path))
    killed.close()


def test_another_programs_database_is_told_as_that(tmp_path):
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as theirs:
        theirs.execute("CREATE TABLE x (y)")
    path.chmod(0o644)
    with pytest.raises(StoreDown, match="another program's database"):
        SqliteStore(str(path))


def test_a_backup_that_everybody_may_read_is_used_as_soon_as_it_is_its_owners(tmp_path):
    path, copy = tmp_path / "cluster.db", tmp_path / "copy.db"
    store = SqliteStore(str(path))
    store.save([ConditionalWrite("bill", "c1", "one", 0)])
    with sqlite3.connect(copy) as backup, sqlite3.connect(path) as running:
        running.backup(backup)
    copy.chmod(0o644)
    shutil.move(copy, path)
    with pytest.raises(StoreDown):
        store.due(0.0, 1)
    with pytest.raises(StoreDown, match=r"is open to other users \(mode 0644\): chmod 600"):
        store.get("bill", "c1")
    path.chmod(0o600)
    assert store.get("bill", "c1").text == "one"
    store.close()


@pytest.mark.parametrize("mode", OPEN)
def test_a_list_of_passwords_that_others_may_read_is_refused_with_the_remedy(tmp_path, mode):
    path = tmp_path / "users"
    path.write_text("bob:builder\n")
    path.chmod(mode)
    with pytest.raises(SettingsError) as caught:
        parse_arguments(["--users", str(path)])
    told = f"--users: {path} is open to other users (mode {mode:04o}): chmod 600 {path}"
    assert str(caught.value) == told


def test_passwords_may_come_through_a_pipe(tmp_path):
    reading, writing = os.pipe()
    os.write(writing, b"bob:builder\n")
    os.close(writing)
    assert parse_arguments(["--users", f"/dev/fd/{reading}"]).users == {"bob": "builder"}
    os.close(reading)


def test_the_demo_makes_its_users_for_itself_alone(careless):
    cluster = Cluster(Ports.free(), users={"alice": "wonderland"})
    try:
        assert modes(cluster.folder)["users"] == 0o600
    finally:
        cluster.stop()
