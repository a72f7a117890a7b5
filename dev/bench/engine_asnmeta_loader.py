"""The database engine loading the ASN map by itself: the limit in `make bench`.

It checks nothing, and needs the engine in the same process.

    python -m dev.bench.engine_asnmeta_loader FILE DATA_DIRECTORY
"""

import sys

import chdb


def main() -> None:
    """Read the file with one INSERT … SELECT."""
    file, data_directory = sys.argv[1:]
    quoted = file.replace("'", "\\'")
    connection = chdb.connect(data_directory)  # type: ignore[no-untyped-call]
    connection.query(
        "CREATE OR REPLACE TABLE asnmeta (asn UInt32, org_name String, cc String, changed Date,"
        " aut_name String, source String) ENGINE = MergeTree ORDER BY (asn, changed)"
    )
    connection.query(
        "INSERT INTO asnmeta SELECT toUInt32(pair.1), row[1], row[2],"  # noqa: S608 (a benchmark)
        " toDate(parseDateTime(row[3], '%Y%m%d')), row[4], row[5]"
        f" FROM (SELECT arrayJoin(JSONExtractKeysAndValuesRaw(document)) AS pair,"
        " arrayJoin(JSONExtract(pair.2, 'Array(Array(String))')) AS row"
        f" FROM file('{quoted}', RawBLOB, 'document String'))"
    )
    (rows,) = connection.query("SELECT count() FROM asnmeta").bytes().split()
    if int(rows) == 0:
        sys.exit("the engine has loaded nothing")
    connection.close()


if __name__ == "__main__":
    main()
