"""The lines with which a file is read, as the pages show them; the tests run them."""

import re
from dataclasses import dataclass

from portal.catalogue import File, ParquetFile, Table

SAFE_NAME = re.compile(r"[A-Za-z0-9_.-]+")  # needs no quoting in any of the languages
COUNTRY = "IT"
NUMBER_SAID = f"the number of rows with the country {COUNTRY}"


@dataclass(frozen=True)
class Snippet:
    """Lines to copy.

    Attributes:
        name: tells it from the others of its page.
        title: what they are for.
        text: the lines.
        result: what they print; "" if that depends on the rows.
        said: the result in words, where there is none to show.
    """

    name: str
    title: str
    text: str
    result: str = ""
    said: str = ""


def example_of(table: Table) -> File | None:
    """Return the file that the snippets read: the newest one whose name needs no quoting."""
    names = [(file.path.rsplit("/", 1)[1], file) for file in table.files]
    return next((file for name, file in reversed(names) if SAFE_NAME.fullmatch(name)), None)


def snippets_of(table: Table, file: File, base: str) -> list[Snippet]:
    """Return the snippets of a table.

    Args:
        table: it.
        file: of the table, to be read.
        base: the address of the exports.
    """
    name = file.path.rsplit("/", 1)[1]
    columns = {column.name for column in table.columns}
    unique = "measurement_uid" if {"measurement_uid"} <= columns and table.replaces_rows else ""
    has_country = "probe_cc" in columns
    found = [*_shell(file, name, base), _duckdb(file, name)]
    if has_country:
        found.append(_duckdb_country(name, unique))
    found.append(_pandas(file, name))
    if has_country:
        found.append(_pandas_country(name, unique))
    found += _clickhouse(file, base)
    if file.parquet:
        found += _of_parquet(file, file.parquet, base)
    if has_country:
        found.append(_clickhouse_country(file, base, unique))
    return found


def _shell(file: File, name: str, base: str) -> list[Snippet]:
    text = (
        f"wget --no-verbose {base}/{file.path}\n"
        f'echo "{file.sha256}  {name}" | sha256sum --check\n'
        f"zstd --decompress --stdout {name} | head -n 3"
    )
    said = "that the file is OK, then the header and the first two rows"
    return [Snippet("shell", "Shell: download, check, look at the first rows", text, said=said)]


def _read_csv(name: str) -> str:
    return (
        f"read_csv('{name}', compression = 'zstd', header = true, delim = ',', quote = '\"',\n"
        "    escape = '\"', nullstr = '\\N', allow_quoted_nulls = false, sample_size = -1)"
    )


def _duckdb(file: File, name: str) -> Snippet:
    text = f"SELECT count(*) FROM {_read_csv(name)};"
    return Snippet("duckdb", "DuckDB: count the rows", text, f"{file.rows:,}")


def _duckdb_country(name: str, unique: str) -> Snippet:
    distinct = f"DISTINCT ON ({unique}) " if unique else ""
    text = (
        f"CREATE TABLE country AS SELECT {distinct}* FROM {_read_csv(name)}\n"
        f"    WHERE probe_cc = '{COUNTRY}';\n"
        "SELECT count(*) FROM country;"
    )
    return Snippet("duckdb-country", _of_a_country("DuckDB", unique), text, said=NUMBER_SAID)


def _pandas_arguments(name: str) -> str:
    return (
        f'"{name}", compression="zstd", na_values=["\\\\N"], keep_default_na=False,\n'
        '    dtype_backend="numpy_nullable"'
    )


def _pandas(file: File, name: str) -> Snippet:
    text = (
        "import pandas\n\n"
        f"rows = pandas.read_csv(\n    {_pandas_arguments(name)}, low_memory=False)\n"
        "print(len(rows))"
    )
    title = "pandas, with the package zstandard: all rows"
    return Snippet("pandas", title, text, str(file.rows))


def _pandas_country(name: str, unique: str) -> Snippet:
    last = f'\nrows = rows.drop_duplicates("{unique}")' if unique else ""
    text = (
        "import pandas\n\n"
        f"pieces = pandas.read_csv(\n    {_pandas_arguments(name)}, chunksize=100_000)\n"
        f'rows = pandas.concat(piece[piece["probe_cc"] == "{COUNTRY}"] for piece in pieces){last}\n'
        "print(len(rows))"
    )
    title = f"{_of_a_country('pandas', unique)}, in little memory"
    return Snippet("pandas-country", title, text, said=NUMBER_SAID)


def _clickhouse(file: File, base: str) -> list[Snippet]:
    rest = f"'{base}/{file.path}', {{}}'CSVWithNames', 'auto', 'zstd')"
    return [
        Snippet(
            "url",
            "ClickHouse, over HTTP: count the rows",
            f"SELECT count() FROM url({rest.format('')}",
            str(file.rows),
        ),
        Snippet(
            "s3",
            "ClickHouse, from S3",
            f"SELECT count() FROM s3({rest.format('NOSIGN, ')}",
            str(file.rows),
        ),
    ]


def _of_parquet(file: File, parquet: ParquetFile, base: str) -> list[Snippet]:
    name = parquet.path.rsplit("/", 1)[1]
    pandas = f'import pandas\n\nrows = pandas.read_parquet("{name}")\nprint(len(rows))'
    return [
        Snippet(
            "duckdb-parquet",
            "Parquet, DuckDB: count the rows",
            f"SELECT count(*) FROM read_parquet('{name}');",
            f"{file.rows:,}",
        ),
        Snippet(
            "pandas-parquet",
            "Parquet, pandas with the package pyarrow: all rows",
            pandas,
            str(file.rows),
        ),
        Snippet(
            "url-parquet",
            "Parquet, ClickHouse over HTTP: count the rows",
            f"SELECT count() FROM url('{base}/{parquet.path}', 'Parquet')",
            str(file.rows),
        ),
    ]


def _clickhouse_country(file: File, base: str, unique: str) -> Snippet:
    limit = f"\nLIMIT 1 BY {unique}" if unique else ""
    text = (
        f"SELECT * FROM url('{base}/{file.path}', 'CSVWithNames', 'auto', 'zstd')\n"
        f"WHERE probe_cc = '{COUNTRY}'{limit}"
    )
    said = f"the rows with the country {COUNTRY}"
    return Snippet("url-country", _of_a_country("ClickHouse", unique), text, said=said)


def _of_a_country(tool: str, unique: str) -> str:
    once = ", each measurement once" if unique else ""
    return f"{tool}: the rows of one country, here {COUNTRY}{once}"
