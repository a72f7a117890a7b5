"""What a plain loader of the ASN map looks like: the yardstick of `make bench`.

It trusts everything: json.load, strptime, a list of dicts, one INSERT, EXCHANGE.

    python -m dev.bench.plain_asnmeta_loader URL DB_URI
"""

import json
import sys
import urllib.request
from datetime import UTC, datetime

from clickhouse_driver import Client

COLUMNS = (
    "(asn UInt32, org_name String, cc String, changed Date, aut_name String, source String)"
    " ENGINE = MergeTree ORDER BY (asn, changed)"
)


def main() -> None:
    """Fetch, parse, insert, exchange."""
    url, db_uri = sys.argv[1:]
    with urllib.request.urlopen(url) as response:  # noqa: S310 (the benchmark's own server)
        document = json.load(response)
    rows = [
        {
            "asn": int(asn),
            "org_name": org_name,
            "cc": cc,
            "changed": datetime.strptime(changed, "%Y%m%d").replace(tzinfo=UTC).date(),
            "aut_name": aut_name,
            "source": source,
        }
        for asn, history in document.items()
        for org_name, cc, changed, aut_name, source in history
    ]
    with Client.from_url(db_uri) as client:
        for table in ("asnmeta", "asnmeta_tmp"):
            client.execute(f"CREATE TABLE IF NOT EXISTS {table} {COLUMNS}")
        client.execute("TRUNCATE TABLE asnmeta_tmp")
        client.execute(
            "INSERT INTO asnmeta_tmp (asn, org_name, cc, changed, aut_name, source) VALUES", rows
        )
        client.execute("EXCHANGE TABLES asnmeta_tmp AND asnmeta")


if __name__ == "__main__":
    main()
