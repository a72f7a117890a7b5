"""From events to incidents."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from outputs.incidents import Incident, blockings_of, incidents_of
from series import Event, Series

START = datetime(2025, 3, 1, tzinfo=UTC)
WINDOW = timedelta(hours=48)
WEB = "web_connectivity"
SERVICES = {(WEB, "https://a/"): "A", (WEB, "https://b/"): "A", ("whatsapp", ""): "W"}


def event(
    asn: int, status: str, begun: int, detected: int, *, cc: str = "IT", target: str = "https://a/"
) -> Event:
    series = Series(WEB if target else "whatsapp", target, cc, asn)
    return Event(series, status, START + timedelta(hours=begun), START + timedelta(hours=detected))


def incidents(events: Sequence[Event]) -> list[Incident]:
    return incidents_of(blockings_of(events), SERVICES, WINDOW)


def test_a_blocking_lasts_from_its_event_to_the_next_one() -> None:
    (incident,) = incidents([event(1, "BLOCKED", 0, 5), event(1, "OK", 30, 36)])
    assert incident.start == START
    assert incident.detected == START + timedelta(hours=5)
    assert incident.end == START + timedelta(hours=30)
    assert incident.end_detected == START + timedelta(hours=36)
    assert incident.blocked_networks == []


def test_an_incident_has_begun_before_it_was_detected() -> None:
    first = event(1, "BLOCKED", 0, 5)
    (incident,) = incidents([first, *(event(asn, "BLOCKED", 8, 12) for asn in range(2, 30))])
    assert (incident.start, incident.detected) == (first.time, first.detection_time)


def test_an_end_without_a_beginning_is_no_incident() -> None:
    assert incidents([event(1, "OK", 30, 36)]) == []


def test_blockings_that_begin_within_the_window_are_one_incident() -> None:
    (incident,) = incidents(
        [event(asn, "BLOCKED", asn, asn + 5) for asn in range(30)]
        + [event(3, "OK", 40, 50)]
        + [event(7, "BLOCKED", 10, 12, target="https://b/")]
    )
    assert incident.networks == list(range(30))
    assert incident.end is None
    assert len(incident.blocked_networks) == 29
    assert incident.targets == [(WEB, "https://a/"), (WEB, "https://b/")]


def test_the_window_begins_anew_with_each_blocking() -> None:
    events = [event(asn, "BLOCKED", 40 * asn, 40 * asn + 5) for asn in range(5)]
    (incident,) = incidents(events)
    assert incident.networks == [0, 1, 2, 3, 4]


def test_later_blockings_other_countries_and_other_services_are_other_incidents() -> None:
    separate = incidents(
        [
            event(1, "BLOCKED", 0, 5),
            event(2, "BLOCKED", 49, 60),
            event(3, "BLOCKED", 0, 5, cc="FR"),
            event(4, "BLOCKED", 0, 5, target=""),
            event(5, "BLOCKED", 0, 5, target="https://unknown/"),
        ]
    )
    assert sorted(
        (incident.service, incident.probe_cc, *incident.networks) for incident in separate
    ) == [
        ("A", "FR", 3),
        ("A", "IT", 1),
        ("A", "IT", 2),
        ("W", "IT", 4),
    ]


def test_a_network_that_is_found_late_belongs_to_what_it_began_with() -> None:
    (incident,) = incidents([event(1, "BLOCKED", 10, 15), event(2, "BLOCKED", 5, 200)])
    assert incident.start == START + timedelta(hours=5)
    assert incident.detected == START + timedelta(hours=15)


def test_what_seems_to_have_begun_earlier_by_chance_does_not_count_among_many() -> None:
    blocks = [event(asn, "BLOCKED", 20, 30) for asn in range(28)]
    early = [event(asn, "BLOCKED", asn - 28, 30) for asn in (28, 29)]
    (incident,) = incidents([*early, *blocks])
    assert incident.start == START + timedelta(hours=20)


BEGINNINGS = st.lists(
    st.tuples(st.integers(1, 9), st.integers(0, 300), st.integers(1, 100)), max_size=30
)


@given(BEGINNINGS, st.integers(0, 400))
def test_what_was_published_keeps_its_name(
    beginnings: list[tuple[int, int, int]], hour: int
) -> None:
    events = [
        event(asn, "BLOCKED", begun, begun + delay)
        for asn, (_, begun, delay) in enumerate(beginnings, start=1)
    ]
    until = START + timedelta(hours=hour)
    before = incidents([event for event in events if event.detection_time <= until])
    after = {incident.key: incident for incident in incidents(events)}
    for incident in before:
        assert set(incident.networks) <= set(after[incident.key].networks)
