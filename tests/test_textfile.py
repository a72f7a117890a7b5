"""The metrics of a script as a file for node_exporter."""

from ooni_common.metrics import MetricKind
from ooni_common.textfile import metrics_of, textfile


def test_a_textfile_has_help_and_type_of_each_name_once() -> None:
    built = "When the installed database was built (Unix time)."
    sent = [
        (MetricKind.GAUGE, "geoip_asn_epoch", 1.5e9),
        (MetricKind.GAUGE, "geoip_cc_epoch", 1.6e9),
    ]
    assert textfile("t", metrics_of("ooni_download_geoip"), sent, "").splitlines() == [
        f"# HELP ooni_geoip_build_timestamp_seconds {built}",
        "# TYPE ooni_geoip_build_timestamp_seconds gauge",
        'ooni_geoip_build_timestamp_seconds{database="asn"} 1500000000',
        'ooni_geoip_build_timestamp_seconds{database="cc"} 1600000000',
        "# HELP ooni_geoip_checkfail_total How often new databases were refused.",
        "# TYPE ooni_geoip_checkfail_total counter",
        "ooni_geoip_checkfail_total 0",
        "# HELP ooni_geoip_updated_total How often new databases were installed.",
        "# TYPE ooni_geoip_updated_total counter",
        "ooni_geoip_updated_total 0",
    ]


def test_a_textfile_has_the_timers_of_the_tables_in_seconds() -> None:
    sent = [
        (MetricKind.TIMER, "table_fastpath_backup_time_ms", 1500.0),
        (MetricKind.TIMER, "table_jsonl_backup_time_ms", 250.0),
        (MetricKind.TIMER, "table_jsonl_backup_time_ms", 500.0),
    ]
    previous = 'ooni_db_backup_table_seconds_sum{table="old"} 3e-05\n'
    text = textfile("db-backup", metrics_of("db-backup"), sent, previous)
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        'ooni_db_backup_table_seconds_count{table="fastpath"} 1',
        'ooni_db_backup_table_seconds_count{table="jsonl"} 2',
        'ooni_db_backup_table_seconds_sum{table="fastpath"} 1.5',
        'ooni_db_backup_table_seconds_sum{table="jsonl"} 0.75',
        'ooni_db_backup_table_seconds_sum{table="old"} 3e-05',
    ]


def test_a_textfile_leaves_out_what_is_not_described() -> None:
    sent = [(MetricKind.GAUGE, "nonsense", 1.0), (MetricKind.COUNTER, "status", 1.0)]
    assert textfile("tool", metrics_of("tool"), sent, "nonsense 5\n") == ""
