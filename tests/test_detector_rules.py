"""Single rules of control and pooling, on the numbers that they are about."""

import numpy as np
import pytest

from control import Control, OtherRows, RunRows, network_key
from hours import Lowered, Rows
from pooling import Grouping, Pool, PoolParameters
from sequential import Detector
from series import OK

SOURCE = 7
ITALY, FRANCE = 1, 2
ALL_THAT_CAN_BE = 1 - PoolParameters().most
NOISE = PoolParameters().noise


def network(country: int = ITALY, asn: int = 1) -> int:
    return int(network_key(country, asn))


def measured(of: int, anomalies: int, count: int) -> OtherRows:
    """Return other inputs of an hour that probes of one kind have measured in a network."""
    keys, sources = np.array([of]), np.array([SOURCE])
    return OtherRows(keys, sources, np.array([float(count)]), np.array([float(anomalies)]))


def nothing() -> OtherRows:
    return OtherRows(np.array([], np.int64), np.array([], np.int64), np.array([]), np.array([]))


def judged(control: Control, hour: int, of: int, bucket: int = 0) -> Rows:
    """Return what counts of a good run, of these probes, in an hour without other inputs."""
    place = np.zeros(1, np.int64)
    run = RunRows(
        place, place + of, place + SOURCE, place + bucket, np.array([1.0]), np.array([0.0])
    )
    return control.judged(hour, run, nothing())


def after(*hours: tuple[int, OtherRows]) -> Control:
    """Return what has taken some hours."""
    control = Control()
    empty = np.array([], np.int64)
    no_runs = RunRows(empty, empty, empty, empty, np.array([]), np.array([]))
    for hour, others in hours:
        control.judged(hour, no_runs, others)
    return control


def test_one_network_does_not_say_that_a_release_fails_all_over_the_world() -> None:
    control = after((0, measured(network(), 500, 500)))
    (excess,) = judged(control, 1, network(FRANCE)).excess.tolist()
    assert 0.05 < excess < 0.2


def test_what_a_release_has_shifted_all_over_the_world_is_forgotten() -> None:
    control = after(*[(hour, measured(network(FRANCE, hour), 5, 5)) for hour in range(8)])
    soon, late = (judged(control, hour, network()).excess[0] for hour in (8, 400))
    assert soon > 0.25
    assert late < 0.01


def test_one_busy_hour_does_not_say_what_is_usual_in_a_network() -> None:
    quiet = [(hour, measured(network(), 0, 10)) for hour in range(40)]
    control = after(*quiet, (40, measured(network(), 400, 1000)))
    broken = judged(control, 43, network(), bucket=3)
    assert len(broken.series) == 0


def test_what_probes_of_a_kind_found_in_a_network_fades() -> None:
    control = after((0, measured(network(), 50, 50)))
    soon, late = (judged(control, hour, network()).excess[0] for hour in (3, 250))
    assert soon > 0.2
    assert late < 0.05


# --- pooling ---


def lowered(*others: tuple[float, int]) -> Lowered:
    """Return what suffices for a network that shows nothing.

    Args:
        others: how much of the evidence for a beginning another network of the country has, and how
            many hours ago it was measured.
    """
    hour, grouping = 1000, Grouping()
    detector = Detector(1 + len(others))
    for asn, (begins, age) in enumerate([(0.0, 1), *others]):
        grouping.add(0, (ITALY, asn), "input", "service")
        detector.status[asn], detector.last[asn] = OK, hour - age
        detector.begins[asn] = begins
    pool = Pool(len(detector.status))
    return pool.lowered(hour, grouping.groups(), detector, np.array([0]))


def test_one_network_alone_does_not_lower_all_that_can_be_lowered() -> None:
    assert ALL_THAT_CAN_BE + 0.05 < lowered((1.0, 1)).beginnings[0] < 0.7
    assert lowered((1.0, 1), (1.0, 1)).beginnings[0] == pytest.approx(ALL_THAT_CAN_BE)


def test_some_evidence_of_two_networks_lowers_less_than_that_of_three() -> None:
    two, three = ([(NOISE + 0.3, 1)] * count for count in (2, 3))
    assert ALL_THAT_CAN_BE + 0.05 < lowered(*two).beginnings[0] < 0.7
    assert lowered(*three).beginnings[0] == pytest.approx(ALL_THAT_CAN_BE)


def test_networks_that_were_not_measured_for_a_day_do_not_disagree() -> None:
    alone = lowered((1.0, 1)).beginnings[0]
    assert lowered((1.0, 1), *[(0.0, 25)] * 9).beginnings[0] == alone
    assert lowered((1.0, 1), *[(0.0, 23)] * 9).beginnings[0] > alone + 0.1
