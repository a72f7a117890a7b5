"""CREATE statements from a bucket: what comes back is the same table, or a refusal."""

import itertools
from collections.abc import Mapping

import pytest

from backups.signature import signature_of, state_of
from conftest import Database
from dev.engines import Engine
from ooni_common.database import literal, quoted
from ooni_common.replicas import path_of
from schemas.create_table import create_statement, create_table
from schemas.references import in_order, moved
from schemas.tokens import DEEPEST, LONGEST, SchemaRefused
from schemas.types import checked_type

TABLES = {
    "clauses": """
        (x UInt64 DEFAULT -1 + 2*3 COMMENT 'it''s \\n `q` é' CODEC(Delta(8), ZSTD(3)),
        d DateTime64(3, 'UTC') MATERIALIZED now64(3),
        y String ALIAS concat(toString(x), 'a', "weird `name"),
        `weird ``name` LowCardinality(Nullable(String)),
        e Enum8('a' = 1, 'b\\'c' = -2), z String EPHEMERAL 'q', s String,
        INDEX i1 lower(s) TYPE bloom_filter(0.01) GRANULARITY 4,
        INDEX i2 (x, d) TYPE minmax, INDEX i3 s TYPE ngrambf_v1(3, 256, 2, 0),
        CONSTRAINT c1 CHECK x > 0 AND s IN ('a', 'b') OR s LIKE '%x', CONSTRAINT c2 ASSUME x != 3)
        ENGINE = ReplacingMergeTree(x) PARTITION BY toYYYYMM(d) ORDER BY (x, cityHash64(s))
        SAMPLE BY cityHash64(s)
        TTL toDateTime(d) + INTERVAL 3 MONTH DELETE WHERE x = 3,
            toDateTime(d) + toIntervalDay(4) RECOMPRESS CODEC(ZSTD(9))
        SETTINGS index_granularity = 1024, min_bytes_for_wide_part = '0' COMMENT 'hello'""",
    "projections": """
        (x UInt64, s String, PROJECTION p (SELECT x, count(), sumIf(x, s = 'a') GROUP BY x),
        PROJECTION q (SELECT * ORDER BY s)) ENGINE = MergeTree ORDER BY x""",
    "types": """
        (a Array(Tuple(x UInt8, `y z` Map(String, Nullable(Float64)))),
        n Nested(a UInt8, b String), ag AggregateFunction(quantiles(0.5, 0.9), UInt64),
        sa SimpleAggregateFunction(max, UInt64), p Point, dd Decimal(10, 2), f FixedString(3),
        u UUID, i IPv6, b Bool, t DateTime('Europe/Rome'), l Array(LowCardinality(String)))
        ENGINE = MergeTree ORDER BY tuple()""",
    "expressions": """
        (a String DEFAULT if(b > 0, 'a', 'b'), b Int32 DEFAULT -3,
        c String DEFAULT toString(arrayMap(x -> (x + 1), [1, 2, 3])[1]), d Bool DEFAULT true,
        e Nullable(String) DEFAULT NULL, f Float64 DEFAULT inf, g Array(UInt8) DEFAULT [],
        h Tuple(a UInt8, b String) DEFAULT (1, 'a'),
        i Int8 DEFAULT CASE WHEN b = 1 THEN 2 ELSE 3 END,
        j Float64 DEFAULT 1e-5, k Int64 DEFAULT h.1, l String DEFAULT b > 1 ? 'a' : 'b',
        m UInt8 DEFAULT b IS NOT NULL AND NOT (b BETWEEN 1 AND 3),
        n Int32 DEFAULT b::Int64 DIV 2,
        o UInt8 DEFAULT b IN (1, -2) AND b NOT IN (3), p UInt8 DEFAULT h.a + 0x1F,
        q Int32 DEFAULT -b,
        r String DEFAULT 'x' || substring(l FROM 1 FOR 2)) ENGINE = Memory""",
    "names": """
        (`a.b` UInt8, `select` UInt8, `ü` String, `1x` UInt8, `back\\\\slash` UInt8, from2 UInt8,
        format UInt8 DEFAULT `a.b` + 1) ENGINE = Log""",
    # The server quotes none of these names within expressions.
    "words": """
        (`TTL` UInt32, `GROUP` UInt32, `TYPE` UInt32, `INDEX` UInt32, `ORDER` UInt32, `SET` UInt32,
        `COMMENT` UInt32, `CODEC` UInt32, `SETTINGS` UInt32, `PRIMARY` UInt32, `DELETE` DateTime,
        `WHERE` UInt32, `TO` UInt32, `PARTITION` UInt32, `SAMPLE` UInt32, `RECOMPRESS` UInt32,
        a UInt32 DEFAULT `TTL` + `COMMENT` * `CODEC` COMMENT 'of TTL',
        b UInt32 ALIAS -`SETTINGS`, d UInt8 DEFAULT `TTL` NOT IN (1, 2),
        e DateTime TTL `DELETE` + toIntervalDay(1), f UInt8 MATERIALIZED (`TTL` + 1) * `PRIMARY`,
        INDEX `TYPE` `TYPE` TYPE minmax GRANULARITY 2, INDEX i (`TYPE`, `INDEX`) TYPE minmax,
        CONSTRAINT `CHECK` CHECK `CHECK` > 1, `CHECK` UInt8,
        PROJECTION `GROUP` (SELECT `GROUP`, count() GROUP BY `GROUP`, `ORDER`),
        PROJECTION q (SELECT `ORDER`, `GROUP` ORDER BY `ORDER`))
        ENGINE = SummingMergeTree(`SET`) PARTITION BY `PARTITION` % 10
        PRIMARY KEY (`ORDER`, `SAMPLE`) ORDER BY (`ORDER`, `SAMPLE`) SAMPLE BY `SAMPLE`
        TTL `DELETE` + toIntervalDay(1) DELETE WHERE `WHERE` > 1,
            `DELETE` + toIntervalDay(2) GROUP BY `ORDER`, `SAMPLE` SET `TO` = max(`TO`), a = any(a)
        SETTINGS deduplicate_merge_projection_mode = 'drop'""",
    "elements": """
        (t Tuple(`TTL` UInt8, `COMMENT` UInt8), c UInt8 DEFAULT t.`TTL`,
        d UInt8 DEFAULT t.`COMMENT`) ENGINE = Log""",
    "withs": """
        (x UInt64, s String, PROJECTION p (WITH x + 1 AS y, lower(s) AS z SELECT y, z ORDER BY y),
        PROJECTION q (WITH x % 2 AS y SELECT y, count() GROUP BY y))
        ENGINE = MergeTree ORDER BY x""",
    "zeros": """
        (x UInt64 COMMENT 'a\\0b', s String DEFAULT 'a\\0b' COMMENT '\\0', `a\\0b` UInt8)
        ENGINE = MergeTree ORDER BY x COMMENT 'a\\0b\\t\\x01'""",
    "documents": """
        (j JSON(max_dynamic_paths = 3, max_dynamic_types = 2, a.b UInt8, SKIP c.d,
        SKIP REGEXP 'x.*'), d Dynamic(max_types = 4), v Variant(UInt8, String))
        ENGINE = MergeTree ORDER BY tuple()""",
    "column clauses": """
        (x UInt64 SETTINGS (max_compress_block_size = 8192), y UInt8 PRIMARY KEY,
        z String EPHEMERAL, INDEX i x TYPE minmax) ENGINE = MergeTree""",
    "nothing": "(k String) ENGINE = Null",
    "rocksdb": "(k String, v String) ENGINE = EmbeddedRocksDB PRIMARY KEY k",
    "joined": "(k String, v String) ENGINE = Join(ANY, LEFT, k)",
    "collapsing": """(id UInt32, s Int8, v UInt8) ENGINE = VersionedCollapsingMergeTree(s, v)
        PRIMARY KEY id ORDER BY (id, s)""",
    "summing": "(id UInt32, s Int8, v UInt8) ENGINE = SummingMergeTree((s, v)) ORDER BY id",
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_comes_back_as_it_was(database: Database, name: str) -> None:
    table = quoted(name)
    database.execute(f"CREATE TABLE {table} {TABLES[name]}")
    ((original,),) = database.execute(f"SHOW CREATE TABLE {table}")
    database.execute(f"DROP TABLE {table} SYNC")
    database.execute(create_table(original).statement(table))
    assert database.execute(f"SHOW CREATE TABLE {table}") == [(original,)]


@pytest.mark.compat
@pytest.mark.parametrize("name", ["words", "zeros", "clauses"])
def test_so_it_does_on_all_versions(engines: Mapping[str, Engine], name: str) -> None:
    for version, engine in engines.items():
        engine.execute(f"CREATE TABLE {name} {TABLES[name]}")
        original = engine.execute(f"SHOW CREATE TABLE {name}", "RawBLOB").decode()
        engine.execute(f"DROP TABLE {name}")
        engine.execute(create_table(original).statement(quoted(name)))
        again = engine.execute(f"SHOW CREATE TABLE {name}", "RawBLOB").decode()
        assert again == original, version


def made(
    column: str = "`x` UInt8", engine: str = "MergeTree", rest: str = "ORDER BY tuple()"
) -> str:
    """Return a statement as SHOW CREATE writes it."""
    return f"CREATE TABLE d.t\n(\n    {column}\n)\nENGINE = {engine}\n{rest}"


CALLS = (
    "file('/etc/passwd')",
    "dictGet('d.secrets', 'v', x)",
    "dictGetOrDefault('d.secrets', 'v', x, 1)",
    "joinGet('d.secrets', 'v', x)",
    "getSetting('max_threads')",
    "getMacro('replica')",
    "hostName()",
    "currentUser()",
    "evalMLMethod(x)",
    "catboostEvaluate('/etc/passwd', x)",
    "aiGenerate('x')",
    "sleepEachRow(3)",
    "throwIf(1)",
    "in(x, d.accounts)",
    "globalIn(x, d.accounts)",
    "my_executable(x)",
    "`file`('/etc/passwd')",
    "FILE('/etc/passwd')",
    "toUInt8(plus(1, length(file('/etc/passwd'))))",
    "arrayMap(y -> file(y), ['/etc/passwd'])[1]",
    "EXISTS(SELECT 1)",
    "(x IN d.accounts)",
    "(x IN (accounts))",
    "x IN (SELECT 1)",
    "COLUMNS('.*')",
    "sumIf(file('a'), 1)",
    "my_executable.sum(x)",
    f"other{'If' * 300_000}(x)",
)
PLACES = {
    "DEFAULT": "`x` UInt8, `y` String DEFAULT {}",
    "MATERIALIZED": "`x` UInt8, `y` String MATERIALIZED {}",
    "ALIAS": "`x` UInt8, `y` String ALIAS {}",
    "EPHEMERAL": "`x` UInt8, `y` String EPHEMERAL {}",
    "TTL": "`x` UInt8, `y` String TTL {}",
    "INDEX": "`x` UInt8, INDEX i {} TYPE minmax GRANULARITY 1",
    "CHECK": "`x` UInt8, CONSTRAINT c CHECK {}",
    "ASSUME": "`x` UInt8, CONSTRAINT c ASSUME {}",
    "PROJECTION": "`x` UInt8, PROJECTION p (SELECT {} ORDER BY x)",
    "PROJECTION GROUP BY": "`x` UInt8, PROJECTION p (SELECT x GROUP BY {})",
}
CLAUSES = ("PARTITION BY", "ORDER BY", "PRIMARY KEY", "SAMPLE BY", "TTL")


@pytest.mark.parametrize("place", PLACES)
def test_what_sees_more_than_its_arguments_is_refused(place: str) -> None:
    for call in CALLS:
        with pytest.raises(SchemaRefused):
            create_table(made(PLACES[place].format(call)))


@pytest.mark.parametrize("clause", CLAUSES)
def test_so_it_is_in_keys(clause: str) -> None:
    for call in CALLS:
        with pytest.raises(SchemaRefused):
            create_table(made(rest=f"{clause} {call}"))


@pytest.mark.parametrize(
    "statement",
    [
        made(rest="ORDER BY tuple()\nAS SELECT * FROM url('http://127.0.0.1:1/', CSV)"),
        made(rest="ORDER BY tuple()\nAS SELECT 1"),
        made(rest="ORDER BY tuple() EMPTY AS SELECT 1"),
        made(rest="ORDER BY tuple(); DROP TABLE d.accounts"),
        made(rest="ORDER BY tuple() -- a comment"),
        made(rest="ORDER BY tuple() /* a comment */"),
        made(rest="ORDER BY tuple() # a comment"),
        made("`x` UInt8 /* */ DEFAULT 1"),
        made(rest="ORDER BY tuple()\nSETTINGS disk = 'backups'"),
        made(
            rest="ORDER BY tuple()\nSETTINGS disk = disk(type = s3, endpoint = 'http://127.0.0.1/')"
        ),
        made(rest="ORDER BY tuple()\nSETTINGS storage_policy = 'cold'"),
        made(rest="ORDER BY tuple()\nSETTINGS index_granularity = (SELECT 1)"),
        made(rest="ORDER BY tuple()\nTTL x + toIntervalDay(1) TO DISK 'cold'"),
        made(rest="ORDER BY tuple()\nTTL x + toIntervalDay(1) TO VOLUME 'cold'"),
        made("`x` UInt8 CODEC(AES_128_GCM_SIV)"),
        made("`x` UInt8 COMMENT concat('a', file('/etc/passwd'))"),
        made("`x` AggregateFunction(file, String)"),
        made("`x` Object(file('a'))"),
        made("`x` Secret"),
        made("`x` UInt8, INDEX i x TYPE annoying(file('a')) GRANULARITY 1"),
        made("`x` UInt8, PROJECTION p (SELECT x FROM d.accounts)").replace("FROM", "; FROM"),
        made("`x` UInt8, PROJECTION p (WITH (SELECT 1) AS y SELECT y)"),
        made("`x` UInt8, PROJECTION p (WITH y AS (SELECT 1) SELECT x)"),
        made("`x` UInt8, PROJECTION p (WITH file('/etc/passwd') AS y SELECT y)"),
        made("`x` UInt8, PROJECTION p (WITH x AS y SELECT y FROM d.accounts)"),
        made("`x` UInt8 DEFAULT TTL file('/etc/passwd')"),
        made("`x` UInt8 DEFAULT x IN TTL"),
        made("`x` UInt8 DEFAULT x NOT IN accounts"),
        made("`x` UInt8 DEFAULT NOT x IN accounts"),
        made(rest="ORDER BY ORDER ORDER"),
        made(rest="ORDER BY x TTL TTL TO DISK 'cold'"),
        made(rest="ORDER BY x SETTINGS SETTINGS disk = 'backups'"),
        made(rest="ORDER BY SETTINGS SETTINGS disk = 'backups'"),
        made(engine="URL('http://127.0.0.1:1/', 'CSV')", rest=""),
        made(engine="File('CSV')", rest=""),
        made(engine="S3('http://127.0.0.1:1/', 'CSV')", rest=""),
        made(engine="Executable('a.sh', 'CSV')", rest=""),
        made(engine="MySQL('127.0.0.1:3306', 'd', 't', 'u', 'p')", rest=""),
        made(engine="PostgreSQL('127.0.0.1:1', 'd', 't', 'u', 'p')", rest=""),
        made(engine="Distributed('c', 'd', 'accounts')", rest=""),
        made(engine="Merge('d', '.*')", rest=""),
        made(engine="Buffer('d', 'accounts', 1, 1, 1, 1, 1, 1, 1)", rest=""),
        made(engine="Dictionary('d.secrets')", rest=""),
        made(engine="Kafka", rest="SETTINGS kafka_broker_list = '127.0.0.1:1'"),
        made(engine="EmbeddedRocksDB(0, '/var/lib/clickhouse')", rest="PRIMARY KEY x"),
        made(engine="EmbeddedRocksDB('/etc')", rest="PRIMARY KEY x"),
        made(engine="KeeperMap('/somebody/elses')", rest="PRIMARY KEY x"),
        made("`x` Decimal(10, +)"),
        made("`x` AggregateFunction(quantiles(x), UInt8)"),
        made("`x` Dynamic(max_types = 'a')"),
        made("`x` UInt8, INDEX i x"),
        made("`x` UInt8, PROJECTION p (x)"),
        made("`x` UInt8 DEFAULT"),
        made("`x` UInt8 COMMENT 'a\\xZ'"),
        made("'x' UInt8"),
        made().replace("ENGINE = MergeTree", ""),
        made(engine="`MergeTree`"),
        made(engine="Merg\u0435Tree"),  # with a Cyrillic letter
        made("`x` UInt8 DEFAULT \uff46ile('/etc/passwd')"),
        made("`x` UInt8 DEFAULT 1\u00a0+ 1"),
        made("`x` UInt8 DEFAULT {parameter:UInt8}"),
        made("`x` UInt8 DEFAULT $$a$$"),
        made("`x` UInt8 DEFAULT @@version"),
        made("`x` UInt8 DEFAULT 'a\\u0027, file(1)'"),
        made("`x` UInt8 DEFAULT 'never ends"),
        made("`x` UInt8 DEFAULT " + "(" * (DEEPEST + 1) + "1" + ")" * (DEEPEST + 1)),
        made("`x` " + "Array(" * 100_000 + "UInt8" + ")" * 100_000),
        made(f"`x` UInt8 COMMENT '{'x' * LONGEST}'"),
        made(""),
        made(rest="ORDER BY tuple()").replace("CREATE TABLE", "ATTACH TABLE"),
        made(rest="ORDER BY tuple()").replace("CREATE TABLE", "CREATE OR REPLACE TABLE"),
        made(rest="ORDER BY tuple()").replace("d.t", "d.t ON CLUSTER c"),
        made(rest="ORDER BY tuple()").replace("d.t", "d.t AS d.accounts"),
        made(rest="ORDER BY tuple()").replace("d.t", "FUNCTION file('a')"),
        "CREATE VIEW d.t AS SELECT 1",
        "CREATE DICTIONARY d.t (`k` UInt8) PRIMARY KEY k SOURCE(HTTP(URL 'http://127.0.0.1:1/'))",
        "CREATE MATERIALIZED VIEW d.t TO d.u AS SELECT 1",
        "DROP TABLE d.t",
        "",
    ],
)
def test_a_hostile_statement_is_refused(statement: str) -> None:
    with pytest.raises(SchemaRefused):
        create_table(statement)


@pytest.mark.parametrize(
    ("engine", "plain"),
    [
        ("ReplicatedMergeTree('/a', '{replica}')", "MergeTree"),
        ("ReplicatedReplacingMergeTree('/a/{uuid}', 'r1', `v`)", "ReplacingMergeTree(`v`)"),
        ("SharedMergeTree", "MergeTree"),
        ("ReplicatedSummingMergeTree('/a', 'b', (`x`, `y`))", "SummingMergeTree((`x`, `y`))"),
    ],
)
def test_a_replicated_table_has_a_path_of_its_own_or_none(engine: str, plain: str) -> None:
    table = create_table(made(engine=engine))
    assert f"\nENGINE = {plain}\n" in table.statement("`u`")
    if "'" in engine:
        assert "MergeTree('/mine', " in table.statement("`u`", "/mine")
        assert "'/a" not in table.statement("`u`", "/mine")


@pytest.mark.parametrize("kind", ["AggregateFunction(1, sumMap, Map(String, UInt64))", "UInt8"])
def test_a_type_is_read_to_its_end(kind: str) -> None:
    assert checked_type(kind).replace(" ", "") == kind.replace(" ", "")
    with pytest.raises(SchemaRefused, match="the end of a type"):
        checked_type(f"{kind} DEFAULT 1")


def test_a_path_is_put_into_nothing_that_looks_like_an_engine() -> None:
    path = "P` UInt8) ENGINE = Log AS SELECT * FROM url($$http://127.0.0.1:1/$$) /* "
    name = f"x\nENGINE = ReplicatedMergeTree('{path}', 'r')"
    for engine in ("MergeTree", "ReplicatedMergeTree('/a', '{replica}')"):
        schema = made(f'"{name}" UInt8', engine)
        assert path_of(schema) == path
        create = create_statement(schema, "`u`", path_of(schema), "'r2'")
        again = create_table(create)
        assert again.columns == ((name, "UInt8"),)
        assert again.engine == engine.partition("(")[0]
        assert again.arguments in ((), (literal(path), "'r2'"))


@pytest.mark.parametrize(
    ("path", "replica"), [("a', 'b", ""), ("/a", "'r', file('a')"), ("\\", "")]
)
def test_a_path_is_one_literal(path: str, replica: str) -> None:
    with pytest.raises(SchemaRefused):
        create_statement(made(engine="ReplicatedMergeTree('/a', 'b')"), "`u`", path, replica)


def test_what_is_taken_for_a_keyword_is_a_column() -> None:
    table = create_table(made("`x` UInt8 DEFAULT select + from"))
    assert "DEFAULT `select` + `from`" in table.statement("`u`")


DEFINITIONS = {
    "accounts": "CREATE TABLE d.accounts\n(\n    `k` UInt64\n)\nENGINE = MergeTree\nORDER BY k",
    "by name": "CREATE DICTIONARY d.`by name`\n(\n    `k` UInt64\n)\nPRIMARY KEY k\n"
    "SOURCE(CLICKHOUSE(TABLE 'accounts' DB 'd' USER 'default'))\nLAYOUT(FLAT())",
    "a": "CREATE TABLE d.a\n(\n    `x` String DEFAULT dictGet('d.by name', 'v', 1)\n)\n"
    "ENGINE = Log",
    "b": "CREATE MATERIALIZED VIEW d.b TO d.c\n(\n    `x` String\n)\nAS SELECT 'd.none' AS x\n"
    "FROM d.a\nWHERE x = {p:String}",
    "c": "CREATE TABLE d.c\n(\n    `x` String COMMENT 'from d.a'\n)\nENGINE = Log",
    "0": "CREATE VIEW d.`0` AS SELECT b.x FROM d.b AS b, other.a, d.e",
}


def test_what_is_named_is_made_first() -> None:
    order = in_order(DEFINITIONS, "d")
    assert sorted(order) == sorted(DEFINITIONS)
    for first, second in [
        ("accounts", "by name"),
        ("by name", "a"),
        ("a", "b"),
        ("c", "b"),
        ("b", "0"),
    ]:
        assert order.index(first) < order.index(second)


def test_a_long_way_of_needs_is_no_recursion() -> None:
    last = 3000
    names = [f"t{number:04}" for number in range(last + 1)]
    chain = {
        name: f"CREATE VIEW d.{name} AS SELECT * FROM d.{needed}"
        for name, needed in itertools.pairwise([*names, "none"])
    }
    assert in_order(chain, "d") == names[::-1]


@pytest.mark.parametrize("quote", "'`")
def test_a_text_without_end_is_read_once(quote: str) -> None:
    text = f"CREATE VIEW d.v AS SELECT * FROM d.a WHERE x = {quote}" + f"\\{quote}" * 100_000
    assert in_order({"v": text, "a": "CREATE TABLE d.a"}, "d") == ["a", "v"]


def test_two_that_name_each_other_are_made_in_some_order() -> None:
    circle = {
        "a": "CREATE VIEW d.a AS SELECT * FROM d.b",
        "b": "CREATE VIEW d.b AS SELECT * FROM d.a",
    }
    assert sorted(in_order(circle, "d")) == ["a", "b"]


def test_a_statement_is_moved_to_another_database() -> None:
    text = {name: moved(create, "d", "n`w", DEFINITIONS) for name, create in DEFINITIONS.items()}
    assert text["by name"].startswith("CREATE DICTIONARY `n\\`w`.`by name`")
    assert "TABLE 'accounts' DB 'n`w' USER" in text["by name"]
    assert "dictGet('n`w.by name', 'v', 1)" in text["a"]
    assert "VIEW `n\\`w`.b TO `n\\`w`.c" in text["b"]
    assert "'d.none' AS x\nFROM `n\\`w`.a" in text["b"]
    assert "COMMENT 'from d.a'" in text["c"]
    assert text["0"] == "CREATE VIEW `n\\`w`.`0` AS SELECT b.x FROM `n\\`w`.b AS b, other.a, d.e"


def test_a_signature_is_of_a_key_and_every_byte() -> None:
    key, content = b"k" * 32, b'{"name": "20261127T000000Z"}'
    signature = signature_of(key, content)
    assert state_of(key, content, signature + b"\n") == "valid"
    assert state_of(b"l" * 32, content, signature) == "wrong"
    assert state_of(key, content + b" ", signature) == "wrong"
    assert state_of(key, content, b"") == "wrong"
    assert state_of(key, content, "é".encode()) == "wrong"
    assert state_of(key, content, None) == "missing"
    assert state_of(b"", content, signature) == "unchecked"
