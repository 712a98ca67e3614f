"""The one way in which the stores use SQLite."""

import sqlite3
import stat
import threading
from pathlib import Path

import pytest

from firstlight.errors import StoreError
from firstlight.stores.database import Database, Schema, prepare

MAIN = Schema("a thing", "CREATE TABLE thing (name TEXT PRIMARY KEY) STRICT; CREATE INDEX by_name ON thing (name);", 3)
GUEST = Schema(
    "a guest",
    "CREATE TABLE IF NOT EXISTS guest (id INTEGER PRIMARY KEY) STRICT;"
    "CREATE TABLE IF NOT EXISTS guest_meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;",
    7,
    meta="guest_meta",
)
PLAIN = Schema("plain", "CREATE TABLE IF NOT EXISTS plain (id INTEGER PRIMARY KEY) STRICT")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.sqlite"


def tables(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    found = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    connection.close()
    return found


def names(database: Database) -> set[str]:
    return {name for (name,) in database.rows("SELECT name FROM thing")}


def test_a_file_is_private_and_durable_and_a_second_opening_finds_what_was_written(path: Path) -> None:
    database = Database.open(path, MAIN, busy_seconds=20)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for pragma, value in {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 20_000}.items():
        assert database.row(f"PRAGMA {pragma}") == (value,)
    with database.transaction() as connection:
        connection.execute("INSERT INTO thing VALUES ('a')")
    database.close()
    again = Database.open(path, MAIN)
    assert names(again) == {"a"}
    assert again.row("SELECT * FROM thing WHERE name = ?", "b") is None
    again.close()


def test_components_share_a_file_each_with_a_version_of_its_own(path: Path) -> None:
    opened = [Database.open(path, schema) for schema in (PLAIN, GUEST, MAIN, MAIN, GUEST, PLAIN)]
    assert tables(path) == {"thing", "guest", "guest_meta", "plain"}
    assert opened[0].row("PRAGMA user_version") == (3,)
    assert opened[0].rows("SELECT * FROM guest_meta") == [("version", 7)]
    for one in opened:
        one.close()


@pytest.mark.parametrize("version", [2, 4, -1])
@pytest.mark.parametrize("schema", [MAIN, GUEST])
def test_what_another_version_made_is_refused_and_left_alone(path: Path, schema: Schema, version: int) -> None:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE guest_meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT")
    other.execute("INSERT INTO guest_meta VALUES ('version', ?)", (version,))
    other.execute(f"PRAGMA user_version = {version}")
    other.commit()
    other.close()
    with pytest.raises(StoreError, match=f"^schema-unknown: {schema.name} of version {version}, not {schema.version}$"):
        Database.open(path, schema)
    assert tables(path) == {"guest_meta"}


def test_a_version_of_zero_in_a_table_is_a_version(path: Path) -> None:
    database = Database.open(path, GUEST)
    with database.transaction() as connection:
        connection.execute("UPDATE guest_meta SET value = 0")
    database.close()
    with pytest.raises(StoreError, match="schema-unknown"):
        Database.open(path, GUEST)


def test_tables_are_made_whole_or_not_at_all(path: Path) -> None:
    wrong = Schema("wrong", "CREATE TABLE one (id INTEGER); CREATE TABEL two (id INTEGER)", 1)
    with pytest.raises(StoreError, match="database-unusable"):
        Database.open(path, wrong)
    assert tables(path) == set()
    Database.open(path, MAIN).close()


def test_several_make_the_tables_at_once(path: Path) -> None:
    start, opened = threading.Barrier(4), list[Database]()
    sqlite3.connect(path).execute("PRAGMA journal_mode = WAL")

    def work() -> None:
        start.wait()
        opened.append(Database.open(path, MAIN))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4
    for one in opened:
        one.close()


def test_reading_an_open_file_waits_for_no_writer(path: Path) -> None:
    first = Database.open(path, MAIN)
    with first.transaction() as connection:
        connection.execute("INSERT INTO thing VALUES ('a')")
        second = Database.open(path, MAIN, busy_seconds=0)
        assert names(second) == set()
    assert names(second) == {"a"}
    first.close()
    second.close()


def test_a_transaction_that_fails_leaves_nothing() -> None:
    database = Database.in_memory(MAIN)

    def fail(error: Exception) -> None:
        with database.transaction() as connection:
            connection.execute("INSERT INTO thing VALUES ('a')")
            raise error

    for error, raised in ((KeyError(), KeyError), (sqlite3.Error(), StoreError), (OSError(), StoreError)):
        with pytest.raises(raised):
            fail(error)
        assert not database.connection.in_transaction
        assert names(database) == set()


def test_a_part_of_a_transaction_fails_alone() -> None:
    database = Database.in_memory(MAIN)

    def part(name: str, *, fail: bool) -> None:
        with database.transaction() as connection:
            connection.execute("INSERT INTO thing VALUES (?)", (name,))
            if fail:
                raise KeyError

    with database.transaction():
        part("a", fail=False)
        with database.transaction():
            part("b", fail=False)
            with pytest.raises(KeyError):
                part("c", fail=True)
        with pytest.raises(KeyError):
            part("d", fail=True)
        part("e", fail=False)
    assert names(database) == {"a", "b", "e"}


def test_a_full_disc_undoes_all_and_the_next_transaction_goes_on(path: Path) -> None:
    database = Database.open(path, MAIN)
    pages = database.rows("PRAGMA page_count")[0][0]
    database.rows(f"PRAGMA max_page_count = {pages + 1}")

    def fill() -> None:
        with database.transaction() as connection, database.transaction():
            connection.execute("INSERT INTO thing VALUES (?)", ("x" * 100_000,))

    with pytest.raises(StoreError, match="database-unusable"):
        fill()
    assert not database.connection.in_transaction
    with database.transaction() as connection:
        connection.execute("INSERT INTO thing VALUES ('a')")
    assert names(database) == {"a"}
    database.close()


def test_a_commit_that_fails_is_undone() -> None:
    schema = Schema(
        "tied",
        "CREATE TABLE a (id INTEGER PRIMARY KEY) STRICT;"
        "CREATE TABLE b (a INTEGER REFERENCES a DEFERRABLE INITIALLY DEFERRED) STRICT",
        1,
    )
    database = Database.in_memory(schema)

    def tie() -> None:
        with database.transaction() as connection:
            connection.execute("INSERT INTO b VALUES (1)")

    for _ in range(2):
        with pytest.raises(StoreError, match="database-unusable: FOREIGN KEY"):
            tie()
        assert database.rows("SELECT * FROM b") == []


def test_tables_are_made_through_a_connection_of_somebody_else() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for _ in range(2):
        prepare(connection, GUEST)
        prepare(connection, PLAIN)
    assert connection.execute("SELECT value FROM guest_meta").fetchall() == [(7,)]
    connection.close()


def test_a_closed_database_is_a_store_error() -> None:
    database = Database.in_memory(MAIN)
    database.close()
    with pytest.raises(StoreError, match="database-unusable"):
        database.rows("SELECT 1")
    with pytest.raises(StoreError, match="database-unusable"), database.reading() as connection:
        connection.execute("SELECT 1")
