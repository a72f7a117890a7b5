"""The files tables.sql, the scripts and the database agree on every table."""

import re
from pathlib import Path

import pytest

import asnmeta_updater
import blocking_tables
import fingerprints_updater
from citizenlab.table import TABLE as CITIZENLAB
from conftest import Database as FreshDatabase
from ooni_common.database import Database
from ooni_common.swap.update import Table
from reference_tables import structure_of

ROOT = Path(__file__).parents[1]
FILES = [ROOT / folder / "tables.sql" for folder in ("analysis", "detector")]
TABLES = [
    CITIZENLAB,
    *fingerprints_updater.TABLES.values(),
    asnmeta_updater.TABLE,
    *blocking_tables.TABLES,
]
USERS = {"citizenlab": "citizenlab", "blocking_status": "detector", "blocking_events": "detector"}


def statements(kind: str) -> list[str]:
    without_comments = re.sub("--.*", "", "".join(file.read_text() for file in FILES))
    parts = [part.strip() for part in without_comments.split(";")]
    return [part for part in parts if part.startswith(kind)]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_first_run_creates_the_table_as_the_file_does(
    database: FreshDatabase, table: Table
) -> None:
    db = Database(database.client())
    (by_file,) = [text for text in statements("CREATE TABLE") if f" {table.name}\n" in text]
    db.query(by_file)
    expected = structure_of(db, table.name)
    db.query(f"DROP TABLE {table.name} SYNC")
    db.query(table.ddl(table.name))
    assert structure_of(db, table.name) == expected


def test_the_files_have_no_other_tables() -> None:
    assert len(statements("CREATE TABLE")) == len(TABLES)


def test_the_real_parser_accepts_every_statement(database: FreshDatabase) -> None:
    for kind in ("CREATE TABLE", "CREATE USER", "GRANT"):
        for statement in statements(kind):
            database.execute("SELECT formatQuery(%(text)s)", {"text": statement})


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_the_users_may_do_what_an_update_needs_on_both_tables(table: Table) -> None:
    needed = "SELECT, INSERT, CREATE TABLE, DROP TABLE"
    grants = [" ".join(grant.split()) for grant in statements("GRANT")]
    user = USERS.get(table.name, "api")
    assert f"GRANT {needed} ON default.{table.name} TO {user}" in grants
    assert f"GRANT {needed} ON default.{table.shadow} TO {user}" in grants
