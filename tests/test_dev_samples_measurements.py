"""The sample tables of measurements."""

from datetime import date

from conftest import Database
from dev.samples.measurements import COLUMNS, create, fill


def test_the_tables_are_like_the_real_ones_and_always_the_same(database: Database) -> None:
    client = database.client()
    for kind in COLUMNS:
        checksums = []
        for table in (f"{kind}_1", f"{kind}_2"):
            create(client, kind, table)
            fill(client, kind, 10_000, table=table, start=date(2024, 2, 1), days=29)
            checksums += client.execute(f"SELECT count(), sum(cityHash64(*)) FROM {table}")
        assert checksums[0] == checksums[1]
        assert checksums[0][0] == 10_000
        keys = client.execute(f"SELECT uniqExact(measurement_uid), uniq(report_id) FROM {kind}_1")
        assert keys[0] == (10_000, 500)
    months = "SELECT DISTINCT toYYYYMM(measurement_start_time, 'UTC') FROM fastpath_1"
    assert client.execute(months) == [(202402,)]
    shares = client.execute(
        "SELECT avg(anomaly = 't'), avg(test_name = 'web_connectivity') FROM fastpath_1"
    )[0]
    for share, expected in zip(shares, (0.05, 0.8), strict=True):
        assert abs(share - expected) < 0.1
