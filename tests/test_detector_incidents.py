"""From events to incidents."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from outputs.incidents import Incident, blockings_of, incidents_of
from outputs.timeline import MOSTLY_OVER, OVER, doubtful_of, phase_of, turns_of
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


def blocked_networks(incident: Incident) -> list[int]:
    """Return the ASNs of the networks in which a blocking has not ended."""
    return sorted({one.series.probe_asn for one in incident.blockings if one.end is None})


def test_a_blocking_lasts_from_its_event_to_the_next_one() -> None:
    (incident,) = incidents([event(1, "BLOCKED", 0, 5), event(1, "OK", 30, 36)])
    assert incident.start == START
    assert incident.detected == START + timedelta(hours=5)
    assert incident.end == START + timedelta(hours=30)
    assert incident.end_detected == START + timedelta(hours=36)
    assert blocked_networks(incident) == []


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
    assert len(blocked_networks(incident)) == 29
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


def test_a_network_that_joins_late_makes_no_incident_and_moves_none() -> None:
    nation = [event(asn, "BLOCKED", 10, 15 + asn) for asn in range(1, 6)]
    (published,) = incidents(nation)
    late = [event(6, "BLOCKED", 5, 200), event(7, "BLOCKED", 300, 310)]
    (incident,) = incidents([*nation, *late])
    assert incident.networks == [1, 2, 3, 4, 5, 6, 7]
    assert incident.key == published.key
    assert incident.start == published.start == START + timedelta(hours=10)


def test_where_one_network_is_blocked_for_months_a_nation_is_news() -> None:
    local = event(1, "BLOCKED", 0, 5)
    nation = [event(asn, "BLOCKED", 1000, 1005) for asn in range(2, 14)]
    assert [len(incident.networks) for incident in incidents([local, *nation])] == [1, 12]


def test_what_begins_after_the_end_is_another_incident_and_what_began_earlier_is_not() -> None:
    first = [event(1, "BLOCKED", 0, 5), event(1, "OK", 20, 25)]
    late, again = event(2, "BLOCKED", 10, 30), event(3, "BLOCKED", 26, 31)
    assert [incident.networks for incident in incidents([*first, late])] == [[1, 2]]
    assert [incident.networks for incident in incidents([*first, again])] == [[1], [3]]


def test_one_network_that_flaps_while_the_others_are_back_is_no_other_incident() -> None:
    events = [event(asn, "BLOCKED", 0, 5) for asn in range(1, 6)]
    events += [event(asn, "OK", 100, 105) for asn in range(1, 5)]
    (incident,) = incidents([*events, event(2, "BLOCKED", 140, 150)])
    assert blocked_networks(incident) == [2, 5]


def test_most_networks_end_an_incident_and_not_the_slowest() -> None:
    events = [event(asn, "BLOCKED", 0, 5) for asn in range(15)]
    events += [event(asn, "OK", 100 + asn, 110 + asn) for asn in range(13)]
    (incident,) = incidents(events)
    assert incident.end is None
    (turn,) = turns_of(incident)
    assert (turn.kind, len(turn.over), turn.blocked) == (MOSTLY_OVER, 8, tuple(range(8, 15)))
    assert (turn.end, turn.detected) == tuple(START + timedelta(hours=h) for h in (107, 117))
    assert phase_of(incident) == MOSTLY_OVER
    (incident,) = incidents([*events, *(event(asn, "OK", 300, 310) for asn in (13, 14))])
    assert [turn.kind for turn in turns_of(incident)] == [MOSTLY_OVER, OVER]
    assert phase_of(incident) == OVER


def test_networks_that_are_not_measured_any_more_keep_no_incident_going() -> None:
    events = [event(asn, "BLOCKED", 0, 5) for asn in range(1, 7)]
    events += [event(1, "OK", 400, 410), event(2, "OK", 400, 410)]
    (incident,) = incidents(events)
    assert turns_of(incident) == []
    doubtful = list(doubtful_of(incident))
    assert {asn for asn, _ in doubtful} == {3, 4, 5, 6}
    (turn,) = turns_of(incident, {pair for pair in doubtful if pair[0] > 3})
    assert (turn.over, turn.blocked, turn.silent) == ((1, 2), (3,), (4, 5, 6))


def test_an_end_that_was_told_stays_when_a_network_is_found_later() -> None:
    events = [event(1, "BLOCKED", 0, 5), event(1, "OK", 20, 25)]
    (before,) = map(turns_of, incidents(events))
    events += [event(2, "BLOCKED", 10, 30), event(2, "OK", 40, 45)]
    (after,) = map(turns_of, incidents(events))
    assert before == after[:1]
    assert [turn.end for turn in after] == [START + timedelta(hours=h) for h in (20, 40)]


def test_what_seems_to_have_begun_earlier_by_chance_does_not_count_among_many() -> None:
    blocks = [event(asn, "BLOCKED", 20, 30) for asn in range(28)]
    early = [event(asn, "BLOCKED", asn - 28, 30) for asn in (28, 29)]
    (incident,) = incidents([*early, *blocks])
    assert incident.start == START + timedelta(hours=20)


LIVES = st.lists(
    st.tuples(
        st.integers(1, 6), st.integers(0, 300), st.integers(1, 100), st.none() | st.integers(0, 200)
    ),
    max_size=30,
)


@given(LIVES, st.integers(0, 700))
def test_what_was_published_keeps_its_name_and_stays_true(
    lives: list[tuple[int, int, int, int | None]], hour: int
) -> None:
    events = []
    for number, (asn, begun, delay, length) in enumerate(lives):
        target = f"https://{'ab'[number % 2]}/" if number < 2 else f"https://a/{number}"
        sure = begun + delay
        events.append(event(asn, "BLOCKED", begun, sure, target=target))
        if length is not None:
            events.append(event(asn, "OK", sure + length, sure + length + 5, target=target))
    until = START + timedelta(hours=hour)
    services = {one.series.target: "A" for one in events}

    def at(time: datetime) -> list[Incident]:
        seen = [one for one in events if one.detection_time <= time]
        return incidents_of(blockings_of(seen), services, WINDOW)

    after = {incident.key: incident for incident in at(START + timedelta(days=999))}
    for incident in at(until):
        later = after[incident.key]
        assert set(incident.networks) <= set(later.networks)
        told = turns_of(incident)
        assert told == turns_of(later)[: len(told)]
        if incident.detected + WINDOW <= until:
            assert incident.start == later.start
