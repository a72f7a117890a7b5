"""Rows of every type that come back: from an export by CSV, and from a backup."""

import pytest

from db_backup_harness import BackupTool

SETTINGS: dict[str, int] = {
    "allow_experimental_variant_type": 1,
    "allow_experimental_dynamic_type": 1,
    "allow_experimental_json_type": 1,
    "allow_suspicious_low_cardinality_types": 1,
    "allow_experimental_qbit_type": 1,
    "enable_time_time64_type": 1,
    "flatten_nested": 0,
}
# Those that generateRandom makes values of; floats without NaN, of which CSV has only one.
RANDOM = """
UInt8; UInt64; Int128; UInt256; Decimal(10, 2); Decimal(76, 20); Bool; String; FixedString(5); UUID;
IPv4; IPv6; Date; Date32; DateTime; DateTime('Europe/Rome'); DateTime('America/New_York');
DateTime64(3); DateTime64(9, 'Europe/Rome'); Enum8('a' = 1, 'b,c' = 2, 'd"e' = 3);
Enum16('x' = 300, 'y' = -2); Nullable(UInt8); Nullable(String); Nullable(DateTime('Europe/Rome'));
Nullable(FixedString(3)); Nullable(Bool); Nullable(IPv6); Nullable(UUID); Nullable(Decimal(9, 3));
LowCardinality(String); LowCardinality(Nullable(String)); LowCardinality(FixedString(2));
Array(UInt8); Array(String); Array(Nullable(String)); Array(Array(String)); Array(Bool);
Array(Date);
Array(DateTime('Europe/Rome')); Array(FixedString(2)); Array(UUID); Array(IPv4);
Array(Enum8('a,b' = 1)); Map(String, UInt8); Map(String, Array(Nullable(String)));
Map(UInt8, DateTime64(3)); Tuple(UInt8, String); Tuple(a UInt8, b Nullable(String));
Array(Tuple(UInt8, String)); Tuple(Array(String), Map(String, String));
Tuple(a DateTime('America/New_York')); SimpleAggregateFunction(max, UInt8)
"""
# Hours that occur twice, or not at all, and values that generateRandom does not make.
CHOSEN = {
    "Float64": "[0, -0., 1e308, 1e-308, inf, -inf, nan, 0.1][number % 8 + 1]",
    "Float32": "[0, -0., 1e38, 1e-38, inf, -inf, nan, 0.1][number % 8 + 1]",
    "BFloat16": "number::BFloat16",
    "Time": "toTime('12:34:56')",
    "IntervalDay": "toIntervalDay(number)",
    "DateTime('Europe/Berlin')": "toDateTime(1792882800 + number * 600, 'Europe/Berlin')",
    "DateTime('America/Sao_Paulo')": "toDateTime(1518912000 + number * 600, 'America/Sao_Paulo')",
    "Nested(a UInt8, b String)": "[(number % 256, 'a,\"b\\n'), (1, '')]",
    "Point": "(number, -0.5)",
    "Polygon": "[[(0, 0), (0, 1), (number, 1)]]",
}
# CSV has no place for which type a value is of.
OPEN = {
    "Variant(UInt8, String)": "if(number % 2, '1', '2')::Variant(UInt8, String)",
    "Dynamic": "if(number % 2, 1::Dynamic, '1'::Dynamic)",
    "JSON": '\'{"a": "2026-01-01", "b": {"c": "1"}}\'::JSON',
}
ROWS = 200


def make(tool: BackupTool) -> list[str]:
    """Create a table of each type, with rows; return their names."""
    client = tool.database.client()
    kinds = [kind.strip() for kind in RANDOM.replace("\n", " ").split(";")]
    made = []
    for index, kind in enumerate([*kinds, *CHOSEN, *OPEN]):
        name = f"t{index}"
        client.execute(
            f'CREATE TABLE {name} (n UInt32, `c ,"` {kind}) ENGINE = MergeTree ORDER BY n',
            settings=SETTINGS,
        )
        if value := (CHOSEN | OPEN).get(kind):
            source = f"SELECT number, {value} FROM numbers({ROWS})"
        else:
            structure = f"c {kind}".replace("'", "\\'")
            source = (
                "SELECT rowNumberInAllBlocks(), c FROM"
                f" generateRandom('{structure}', 1, 8, 4) LIMIT {ROWS}"
            )
        client.execute(f"INSERT INTO {name} {source}", settings=SETTINGS)
        made.append(name)
    return made


def values(tool: BackupTool, table: str) -> object:
    """Return the rows of a table as a checksum; NaNs are all one."""
    floats = "arrayMap(x -> toString(x), [c])" if "Float" in kind_of(tool, table) else "[]"
    return tool.database.execute(
        f"SELECT count(), sum(cityHash64({floats}, formatRow('RowBinary', n,"
        f' {"1" if floats != "[]" else "c"}))) FROM (SELECT n, `c ,"` AS c FROM {table})'
    )


def kind_of(tool: BackupTool, table: str) -> str:
    """Return the type of the column."""
    ((kind,),) = tool.database.execute(
        f"SELECT type FROM system.columns WHERE database = currentDatabase() AND table = '{table}'"
        " AND position = 2"
    )
    return str(kind)


@pytest.mark.long
def test_every_type_comes_back(backup_tool: BackupTool) -> None:
    names = make(backup_tool)
    backup_tool.keep_private(tables=dict.fromkeys(names, "both"))
    status, printed = backup_tool.run("run")
    assert status == 0, printed
    for name in names:
        kind = kind_of(backup_tool, name)
        for source in ("exports", backup_tool.backups()[-1].name):
            target = f"{name}_{source[0]}"
            status, printed = backup_tool.run("restore", name, "--from", source, "--as", target)
            assert status == 0, f"{kind}: {printed}"
            carried = source != "exports" or not kind.startswith(("Variant", "Dynamic", "JSON"))
            if carried:
                assert source != "exports" or "the rows are those that were exported" in printed
                assert values(backup_tool, name) == values(backup_tool, target), kind
            else:
                assert "CSV can't carry" in printed


def test_what_csv_cannot_carry_is_told_before_the_disaster(backup_tool: BackupTool) -> None:
    backup_tool.database.client().execute(
        "CREATE TABLE t (n UInt32, v Variant(UInt8, String), `JSON` String)"
        " ENGINE = MergeTree ORDER BY n",
        settings=SETTINGS,
    )
    backup_tool.configure(tables={"t": "public"})
    printed = backup_tool.run("doctor")[1]
    assert "note    tables" in printed
    assert "CSV can't carry the types of t.v (Variant)" in printed
    status, printed = backup_tool.run("export")
    assert (status, "may get other values: v (Variant)" in printed) == (0, True), printed
