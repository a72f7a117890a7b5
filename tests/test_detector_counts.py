"""What is counted of the rows of an hour: runs, their kinds, and the other inputs beside."""

from typing import Any

import pytest

from conftest import Database as FreshDatabase
from context import OthersCount, RunCount, counts_by_hour
from detector_config import Config
from detector_harness import FACEBOOK, START, WHATSAPP
from dev.samples.measurements import create
from ooni_common.config import SecretUrl
from ooni_common.database import connected
from series import WEB_TEST, Series, hour_of

FIRST = hour_of(START)
TARGETS = (FACEBOOK, WHATSAPP, (WEB_TEST, "https://x.com/"), ("signal", ""))
OTHER = (WEB_TEST, "https://other.example/")
NETWORK = ("IT", 2**31 - 1)
COLUMNS = {
    "measurement_uid": "",
    "report_id": "run",
    "test_name": WEB_TEST,
    "input": FACEBOOK[1],
    "probe_cc": NETWORK[0],
    "probe_asn": NETWORK[1],
    "test_start_time": 0.5,
    "measurement_start_time": 0.5,
    "anomaly": "f",
    "confirmed": "f",
    "msm_failure": "f",
    "platform": "",
    "software_name": "",
    "software_version": "",
    "architecture": "",
}
TIMES = ("test_start_time", "measurement_start_time")  # in hours after START


def row(target: tuple[str, str] = FACEBOOK, /, **values: Any) -> dict[str, Any]:
    return {**COLUMNS, "test_name": target[0], "input": target[1], **values}


def counted(
    database: FreshDatabase, rows: list[dict[str, Any]], hours: int = 2
) -> tuple[list[RunCount], list[OthersCount]]:
    create(database.client(), "fastpath")
    first = int(START.timestamp())
    values = [
        [first + int(3600 * value) if name in TIMES else value for name, value in row.items()]
        for row in ({**row, "measurement_uid": f"{n:030}"} for n, row in enumerate(rows))
    ]
    into = f"INSERT INTO fastpath ({', '.join(COLUMNS)}) VALUES"
    database.client().execute(into, values)
    with connected(Config(db_uri=SecretUrl(database.uri))) as measurements:
        return counts_by_hour(measurements, TARGETS, FIRST, FIRST + hours)


def source_of(database: FreshDatabase, *texts: str) -> int:
    ((source,),) = database.execute(
        "SELECT 1 + modulo(cityHash64(%(a)s, %(b)s, %(c)s, %(d)s), 1048575)",
        dict(zip("abcd", texts, strict=True)),
    )
    return int(source)


def test_a_run_of_two_kinds_of_probes_is_one_run_and_its_others_are_of_both(
    database: FreshDatabase,
) -> None:
    kinds = [("android", "ooniprobe", version, "") for version in ("3.19.0", "3.20.1")]
    names = ("platform", "software_name", "software_version", "architecture")
    old, new = (dict(zip(names, kind, strict=True)) for kind in kinds)
    rows = [
        row(**old),
        row(**new, anomaly="t"),
        row(OTHER, **old),
        row(OTHER, **old, anomaly="t"),
        row(OTHER, **new),
    ]
    runs, others = counted(database, rows)
    first, second = (source_of(database, *kind) for kind in kinds)
    # Half of its measurements are bad, and a third of the others.
    assert runs == [(*FACEBOOK, *NETWORK, FIRST, min(first, second), 3, 2, 1, 0, 1, 1)]
    assert sorted(others) == sorted(
        [(*NETWORK, FIRST, first, 2, 1), (*NETWORK, FIRST, second, 1, 0)]
    )


def test_measurements_without_a_report_are_runs_of_their_own(database: FreshDatabase) -> None:
    rows = [row(report_id="") for _ in range(3)] + [row(WHATSAPP, report_id="", anomaly="t")]
    runs, others = counted(database, rows)
    assert runs == [
        (*FACEBOOK, *NETWORK, FIRST, 0, 0, 3, 0, 0, 3, 0),
        (*WHATSAPP, *NETWORK, FIRST, 0, 0, 1, 1, 0, 1, 1),
    ]
    assert others == []


def test_a_run_that_goes_on_and_repeats_an_input_counted_when_it_began(
    database: FreshDatabase,
) -> None:
    later = {"measurement_start_time": 1.5, "anomaly": "t", "confirmed": "t"}
    x = (WEB_TEST, "https://x.com/")
    rows = [row(), row(**later), row(**later), row(x, **later), row(OTHER, **later)]
    runs, others = counted(database, rows)
    assert runs == [
        (*FACEBOOK, *NETWORK, FIRST, 0, 0, 1, 0, 0, 1, 0),
        (*FACEBOOK, *NETWORK, FIRST + 1, 0, 4, 2, 2, 2, 0, 0),
        (*x, *NETWORK, FIRST + 1, 0, 4, 1, 1, 1, 1, 1),
    ]
    assert others == [(*NETWORK, FIRST + 1, 0, 1, 1)]


@pytest.mark.parametrize(
    "values",
    [
        {"probe_cc": "ZZ"},
        {"probe_cc": ""},
        {"probe_cc": "it"},
        {"probe_cc": "ITA"},
        {"probe_cc": "I\x00"},
        {"probe_asn": 0},
        {"probe_asn": -1},
        {"msm_failure": "t"},
        {"test_name": "signal"},
        {"test_name": "ndt"},
        {"measurement_start_time": 2},
    ],
)
def test_what_is_of_no_network_or_failed_or_is_followed_by_nobody_is_not_counted(
    database: FreshDatabase, values: dict[str, Any]
) -> None:
    assert counted(database, [row(**values), row(OTHER, **values)]) == ([], [])


def test_inputs_of_a_test_that_others_have_are_followed_in_theirs_alone(
    database: FreshDatabase,
) -> None:
    # No target: web_connectivity of "".
    runs, others = counted(database, [row(("signal", "")), row((WEB_TEST, ""))])
    assert runs == [("signal", "", *NETWORK, FIRST, 0, 0, 1, 0, 0, 1, 0)]
    assert others == [(*NETWORK, FIRST, 0, 1, 0)]


def test_series_are_in_order(database: FreshDatabase) -> None:
    networks = [("AZ", 9), ("BA", 1), ("BA", 2**31 - 1), ("ZA", 2)]
    rows = [
        row(target, probe_cc=cc, probe_asn=asn, report_id=f"{cc}{asn}")
        for target in sorted(TARGETS)
        for cc, asn in networks
    ]
    runs, _ = counted(database, rows[::-1])
    expected = [Series(*target, *network) for target in sorted(TARGETS) for network in networks]
    assert [Series(*run[:4]) for run in runs] == expected
