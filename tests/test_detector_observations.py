"""What `detector evaluate` reads: files that are right, and what is said of others."""

import gzip
from datetime import UTC, datetime
from pathlib import Path

import pytest

from evaluation.controls import controlled
from evaluation.observations import Details, read_observations, read_others
from ooni_common.errors import DataRefused
from series import hour_of

FIRST = hour_of(datetime(2025, 1, 1, tzinfo=UTC))
HEADER = "series,t,cnt,anomaly_cnt\n"
HOUR_0 = "a,2025-01-01T00:00:00"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", ":1: expected the columns series,t,cnt,anomaly_cnt"),
        (HEADER + "a,2025-01-01T00:30:00,1,0\n", ":2: t is '2025-01-01T00:30:00': expected a full"),
        (
            HEADER + "a,yesterday,1,0\n",
            ":2: t is 'yesterday': expected a full hour, as 2025-01-31T",
        ),
        (HEADER + "a,1925-01-01T00:00:00,1,0\n", ":2: t is '1925-01-01T00:00:00': expected a full"),
        (HEADER + HOUR_0 + ",1,2\n", ":2: more anomalies than measurements: expected anomaly_cnt"),
        (HEADER + HOUR_0 + ",-1,0\n", ":2: '-1' is not a count: expected a whole number"),
        (HEADER + HOUR_0 + ",1,0.5\n", ":2: '0.5' is not a count"),
        (
            HEADER + HOUR_0 + ",99999999999999999999,0\n",
            ":2: '99999999999999999999' is not a count",
        ),
        (HEADER + HOUR_0 + "\n", ":2: 2 columns: expected 4 or more"),
        (HEADER + HOUR_0 + ",1,0\n\n", ":3: 0 columns: expected 4 or more"),
        (HEADER + HOUR_0 + ',1,0\n"b', ":3: unexpected end of data: expected CSV"),
        (HEADER + 2 * (HOUR_0 + ",1,0\n"), ":3: a second row of 'a' for 2025-01-01T00:00:00"),
        (HEADER + '"a\nb",2025-01-01T00:00:00,1,0\n' + HOUR_0 + ",x,0\n", ":4: 'x' is not a count"),
        (HEADER[:-1] + ",failure_cnt\n" + HOUR_0 + ",2,0,3\n", ":2: more failures than measure"),
    ],
)
def test_observations_that_are_none_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "o.csv"
    path.write_text(text)
    with pytest.raises(DataRefused) as refused:
        read_observations(path)
    assert reason in str(refused.value)
    assert str(refused.value).count("\n") == 0


def test_the_first_wrong_row_of_a_large_file_is_reported(tmp_path: Path) -> None:
    rows = [f"series {number},2025-01-01T00:00:00,1,0\n" for number in range(25_000)]
    path = tmp_path / "o.csv"
    for wrong in (9_998, 10_000, 24_999):
        path.write_text("".join([HEADER, *rows[:wrong], HOUR_0 + ",1\n", *rows[wrong + 1 :]]))
        with pytest.raises(DataRefused, match=f"o.csv:{wrong + 2}: 3 columns"):
            read_observations(path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x1f\x8b\x08\x00", "o.csv: Compressed file ended"),
        (gzip.compress(HEADER.encode())[:-4], "o.csv: Compressed file ended"),
        (HEADER.encode() + b"\xff,2025-01-01T00:00:00,1,0\n", "o.csv:2: '\\udcff': expected UTF-8"),
        (None, "No such file"),
    ],
    ids=["empty", "cut-off", "not-utf-8", "missing"],
)
def test_files_that_cannot_be_read_are_refused(
    tmp_path: Path, data: bytes | None, reason: str
) -> None:
    path = tmp_path / "o.csv"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DataRefused) as refused:
        read_observations(path)
    assert reason in str(refused.value)


@pytest.mark.parametrize("name", ["o.csv", "o.csv.gz"])
def test_observations_may_be_compressed_and_have_more_columns(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    text = (
        b"\xef\xbb\xbfseries,t,cnt,anomaly_cnt,confirmed_cnt\r\nb,2025-01-01T02:00:00,3,1,0\r\n"
        b"a,2025-01-01T01:00:00Z,2,2,0\r\na,2025-01-01T00:00:00,0,0,0"
    )
    for data in (text, gzip.compress(text)):
        path.write_bytes(data)
        observations = read_observations(path)
        assert observations.series == ["b", "a"]
        assert observations.hour.tolist() == [FIRST + 1, FIRST + 2]
        assert observations.index.tolist() == [1, 0]
        assert observations.measurements.tolist() == [2, 3]
        assert observations.anomalies.tolist() == [2, 1]


def test_measurements_that_failed_are_not_counted(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    path.write_text(
        "series,t,cnt,anomaly_cnt,confirmed_cnt,failure_cnt\n"
        "a,2025-01-01T00:00:00,5,1,0,2\n"
        "a,2025-01-01T01:00:00,5,4,0,2\n"
        "a,2025-01-01T02:00:00,5,0,0,5\n"
    )
    observations = read_observations(path)
    assert observations.hour.tolist() == [FIRST, FIRST + 1]
    assert observations.measurements.tolist() == [3, 4]


CONTEXT = "series,t,cnt,anomaly_cnt,world,service,probe_cc,probe_asn,input,control,runs,bad_runs\n"
IN_ITALY = ",w,Facebook,IT,1,https://www.facebook.com/,"


def test_observations_may_have_a_row_for_each_bucket_of_the_runs(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    path.write_text(
        CONTEXT
        + "".join(
            f"{HOUR_0},{counts}\n" for counts in (f"5,4{IN_ITALY}4,3,2", f"2,0{IN_ITALY}0,1,0")
        )
        + f"a,2025-01-01T01:00:00,1,1{IN_ITALY}0,1,1\n"
    )
    observations = read_observations(path)
    assert observations.series == ["a"]
    assert observations.details == [
        Details("w", "Facebook", "IT", "1", "https://www.facebook.com/")
    ]
    columns = (observations.control, observations.runs, observations.bad_runs)
    assert [of_all.tolist() for of_all in columns if of_all is not None] == [
        [0, 4, 0],
        [1, 3, 1],
        [0, 2, 1],
    ]
    summed = observations.summed()
    assert summed.hour.tolist() == [FIRST, FIRST + 1]
    assert summed.measurements.tolist() == [7, 1]
    assert summed.anomalies.tolist() == [4, 1]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ((f"5,4{IN_ITALY}5,3,2",), ":2: expected control from 0 to 4"),
        ((f"5,4{IN_ITALY}4,6,2",), ":2: more runs than measurements: expected runs from 0 to cnt"),
        ((f"5,4{IN_ITALY}4,3,4",), ":2: more bad runs than runs"),
        ((f"5,1{IN_ITALY}4,3,2",), ":2: more bad runs than anomalies"),
        (2 * (f"5,4{IN_ITALY}4,3,2",), ":3: a second row of 'a' for 2025-01-01T00:00:00"),
        ((f"5,4{IN_ITALY}4,3,2", f"5,4{IN_ITALY.replace('IT', 'FR')}3,3,2"), "'a' has several"),
    ],
)
def test_context_that_cannot_be_true_is_refused(
    tmp_path: Path, rows: tuple[str, ...], reason: str
) -> None:
    path = tmp_path / "o.csv"
    path.write_text(CONTEXT + "".join(f"{HOUR_0},{row}\n" for row in rows))
    with pytest.raises(DataRefused) as refused:
        read_observations(path)
    assert reason in str(refused.value)


def test_others_are_counted_by_network(tmp_path: Path) -> None:
    path = tmp_path / "others.csv"
    header = "world,probe_cc,probe_asn,t,cnt,anomaly_cnt\n"
    rows = ["w,IT,1,2025-01-01T01:00:00,9,1\n", "w,FR,2,2025-01-01T00:00:00,3,3\n"]
    path.write_text(header + "".join(rows))
    others = read_others(path)
    assert others.networks == [("w", "IT", "1"), ("w", "FR", "2")]
    assert (others.hour - FIRST).tolist() == [0, 1]
    assert others.index.tolist() == [1, 0]
    assert others.measurements.tolist() == [3, 9]
    path.write_text(header + 2 * rows[0])
    with pytest.raises(DataRefused, match=r"others.csv:3: a second row of 'w IT 1' for 2025-01-01"):
        read_others(path)
    path.write_text(HEADER)
    with pytest.raises(DataRefused, match=r"others.csv:1: expected the columns world,probe_cc"):
        read_others(path)


def test_hours_have_controls_where_the_country_is_measured(tmp_path: Path) -> None:
    of_app = ",w,Signal,IT,1,,0,1,0"
    times = [f"2025-01-01T0{hour}:00:00" for hour in range(4)]
    rows = [f"a,{time},1,0{of_app}\n" for time in times]
    (tmp_path / "o.csv").write_text(CONTEXT + "".join(rows) + f"b,{times[3]},1,0{IN_ITALY}2,1,0\n")
    (tmp_path / "others.csv").write_text(
        "world,probe_cc,probe_asn,t,cnt,anomaly_cnt\n"
        f"w,IT,2,{times[1]},9,1\nanother,IT,1,{times[0]},9,1\nw,FR,1,{times[3]},9,1\n"
    )
    observations = read_observations(tmp_path / "o.csv")
    assert controlled(observations, read_others(tmp_path / "others.csv")) == [0.5, 1.0]
    assert controlled(observations, None) == [0.0, 1.0]
    (tmp_path / "o.csv").write_text(HEADER + HOUR_0 + ",1,0\n")
    assert controlled(read_observations(tmp_path / "o.csv"), None) == [None]
