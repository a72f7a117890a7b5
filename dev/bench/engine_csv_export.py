"""The database engine exporting a table by itself: the limit in `make bench`.

It needs the engine in the same process, and writes a file.

    python -m dev.bench.engine_csv_export DATA_DIRECTORY TABLE FILE
"""

import sys

import chdb


def main() -> None:
    """Write the file with one SELECT … INTO OUTFILE."""
    data_directory, table, file = sys.argv[1:]
    connection = chdb.connect(data_directory)  # type: ignore[no-untyped-call]
    connection.query(
        f"SELECT * FROM {table} INTO OUTFILE '{file}' TRUNCATE FORMAT CSVWithNames"  # noqa: S608
    )
    connection.close()


if __name__ == "__main__":
    main()
