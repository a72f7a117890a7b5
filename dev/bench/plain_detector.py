"""What a plain detector looks like: the yardstick of `make bench`.

It reads all hourly counts into one frame, and follows each series by a weighted mean of its shares
of anomalies, as the detector of before did, in the style in which pandas is mostly written. It
writes nothing.

    python -m dev.bench.plain_detector DB_URI START END     (hours since 1970)
"""

import sys

import pandas as pd
from clickhouse_driver import Client

COUNTS = """\
SELECT test_name, input, probe_cc, probe_asn, toStartOfHour(measurement_start_time) AS hour,
    count() AS measurements, countIf(anomaly = 't') AS anomalies
FROM fastpath FINAL
WHERE measurement_start_time >= toDateTime({start}) AND measurement_start_time < toDateTime({end})
    AND test_name = 'web_connectivity' AND msm_failure != 't'
GROUP BY test_name, input, probe_cc, probe_asn, hour
ORDER BY hour
"""
SERIES = ["test_name", "input", "probe_cc", "probe_asn"]


def main() -> None:
    """Query, group, smooth, compare."""
    uri, start, end = sys.argv[1:]
    with Client.from_url(uri) as client:
        rows, columns = client.execute(
            COUNTS.format(start=int(start) * 3600, end=int(end) * 3600), with_column_types=True
        )
    frame = pd.DataFrame(rows, columns=[name for name, _ in columns])
    frame["share"] = frame["anomalies"] / frame["measurements"]
    changes = 0
    for _, group in frame.groupby(SERIES):
        mean = group["share"].ewm(alpha=0.01, adjust=False).mean()
        status = pd.Series(None, index=mean.index, dtype=object)
        status[mean >= 0.9] = "BLOCKED"
        status[mean <= 0.4] = "OK"
        status = status.ffill().dropna()
        changes += int((status != status.shift()).sum()) - 1
    print(f"{changes} changes")


if __name__ == "__main__":
    main()
