"""The database engine exporting a table by itself: the limit in `make bench`.

It needs the engine in the same process, and writes a file, or an object of an S3 store.

    python -m dev.bench.engine_csv_export DATA_DIRECTORY TABLE FILE|URL
"""

import sys

import chdb

from dev.servers.s3 import KEY, KEY_ID


def main() -> None:
    """Write the file with one SELECT … INTO OUTFILE, the object with one INSERT … SELECT."""
    data_directory, table, target = sys.argv[1:]
    select = f"SELECT * FROM {table}"  # noqa: S608
    connection = chdb.connect(data_directory)  # type: ignore[no-untyped-call]
    if target.startswith("http"):
        store = f"s3('{target}', '{KEY_ID}', '{KEY}', 'CSVWithNames')"
        connection.query(
            f"INSERT INTO FUNCTION {store} {select} SETTINGS s3_truncate_on_insert = 1"
        )
    else:
        connection.query(f"{select} INTO OUTFILE '{target}' TRUNCATE FORMAT CSVWithNames")
    connection.close()


if __name__ == "__main__":
    main()
