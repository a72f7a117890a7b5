"""The metrics of a script as a file for node_exporter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from ooni_common.metrics import MetricKind, Sent
from ooni_common.textfile import metrics_of, textfile

BACKUP = metrics_of("db-backup")
GEOIP = metrics_of("ooni_download_geoip")
RUN: Sent = (MetricKind.TIMER, "run", 1500.0)


def samples(text: bytes) -> dict[str, float]:
    lines = [line for line in text.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_a_textfile_has_help_and_type_of_each_name_once() -> None:
    built = "When the installed database was built (Unix time)."
    sent = [
        (MetricKind.GAUGE, "geoip_asn_epoch", 1.5e9),
        (MetricKind.GAUGE, "geoip_cc_epoch", 1.6e9),
    ]
    assert textfile("t", GEOIP, sent, "").decode().splitlines() == [
        f"# HELP ooni_geoip_build_timestamp_seconds {built}",
        "# TYPE ooni_geoip_build_timestamp_seconds gauge",
        'ooni_geoip_build_timestamp_seconds{database="asn"} 1.5e+09',
        'ooni_geoip_build_timestamp_seconds{database="cc"} 1.6e+09',
        "# HELP ooni_geoip_checkfail_total How often new databases were refused.",
        "# TYPE ooni_geoip_checkfail_total counter",
        "ooni_geoip_checkfail_total 0.0",
        "# HELP ooni_geoip_updated_total How often new databases were installed.",
        "# TYPE ooni_geoip_updated_total counter",
        "ooni_geoip_updated_total 0.0",
    ]


def test_timers_are_gauges_of_the_last_run_in_seconds() -> None:
    sent = [
        (MetricKind.TIMER, "table_fastpath_backup_time_ms", 1500.0),
        (MetricKind.TIMER, "table_jsonl_backup_time_ms", 250.0),
        (MetricKind.TIMER, "table_jsonl_backup_time_ms", 500.0),
    ]
    previous = 'ooni_db_backup_table_last_seconds{table="old"} 3e-05\n'
    text = textfile("db-backup", BACKUP, sent, previous)
    assert samples(text) == {
        'ooni_db_backup_table_last_seconds{table="fastpath"}': 1.5,
        'ooni_db_backup_table_last_seconds{table="jsonl"}': 0.75,
        'ooni_db_backup_table_last_seconds{table="old"}': 3e-05,
        'ooni_db_backup_table_last_calls{table="fastpath"}': 1,
        'ooni_db_backup_table_last_calls{table="jsonl"}': 2,
    }
    families = text_string_to_metric_families(text.decode())
    assert {family.type for family in families} == {"gauge"}


def test_the_next_run_replaces_what_a_timer_had() -> None:
    """What `increase()` would be asked of has to be in no file: it stands still."""
    first = textfile("detector", metrics_of("detector"), [RUN, RUN], "")
    second = textfile("detector", metrics_of("detector"), [RUN], first.decode())
    assert samples(first)['ooni_run_last_calls{script="detector"}'] == 2
    assert samples(second) == {
        'ooni_run_last_seconds{script="detector"}': 1.5,
        'ooni_run_last_calls{script="detector"}': 1,
    }


def test_the_summaries_of_version_2_0_1_are_left_out() -> None:
    previous = (
        "# TYPE ooni_run_seconds summary\n"
        'ooni_run_seconds_sum{script="detector"} 4\n'
        'ooni_run_seconds_count{script="detector"} 1\n'
        'ooni_exit_status{script="detector"} 69\n'
    )
    text = textfile("detector", metrics_of("detector"), [], previous)
    assert samples(text) == {'ooni_exit_status{script="detector"}': 69}


def test_a_textfile_leaves_out_what_is_not_described() -> None:
    sent = [(MetricKind.GAUGE, "nonsense", 1.0), (MetricKind.COUNTER, "status", 1.0)]
    previous = 'nonsense 5\nooni_status{host="x"} 1\nooni_status 1\n'
    assert textfile("tool", metrics_of("tool"), sent, previous) == b""


@pytest.mark.parametrize("number", [0, 7, 1764213607, 1.5, 3e-05, 123456789012345])
def test_a_number_keeps_all_its_digits(number: float) -> None:
    sent = [(MetricKind.GAUGE, "backup_bytes", number)]
    text = textfile("db-backup", BACKUP, sent, "")
    assert samples(text) == {"ooni_db_backup_backup_bytes": number}
    assert textfile("db-backup", BACKUP, [], text.decode()) == text


@given(
    st.text(alphabet='ab_{}"\\\n,=# 0e+-.x\0é') | st.text(),
    st.sampled_from(["", "ooni_status", "ooni_geoip_updated_total", 'ooni_status{script="']),
)
def test_whatever_is_in_the_previous_file_the_next_one_can_be_read(rest: str, start: str) -> None:
    text = textfile("ooni_download_geoip", GEOIP, [RUN], start + rest)
    again = textfile("ooni_download_geoip", GEOIP, [RUN], text.decode())
    assert samples(again)['ooni_run_last_seconds{script="ooni_download_geoip"}'] == 1.5
    assert list(text_string_to_metric_families(text.decode()))
