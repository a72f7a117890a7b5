"""How severe an incident is: on how many of the country's networks, with how many of its runs."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from counts import MEASURED
from numbered import COUNTRY, TARGET
from ooni_common.database import Database
from ooni_common.state import read_state, write_state
from outputs.counting import Counting, asked, by_time
from outputs.incidents import Incident, Key
from series import HOUR, Target, hour_of

PERIOD = timedelta(days=14)  # in which a network must have been measured to count

NETWORKS = f"""\
SELECT number, probe_asn, uniqExact(run)
FROM (
  SELECT {TARGET} AS target, {COUNTRY} AS country, probe_asn,
    toUnixTimestamp(measurement_start_time) AS time, cityHash64(report_id) AS run
  {MEASURED}
    AND probe_cc IN %(countries)s AND probe_asn > 0
) AS measured
INNER JOIN places USING (target, country)
WHERE time >= begin AND time < finish
GROUP BY number, probe_asn
"""
STRUCTURE = {
    "test_name": "String",
    "input": "String",
    "probe_cc": "String",
    "number": "UInt32",
    "begin": "Int64",
    "finish": "Int64",
}


class Severity(NamedTuple):
    """The networks and runs that measured the service in the country before an hour.

    The hour is that in which the last blocking of the incident was detected; later ends do not
    change this.

    Attributes:
        networks_blocked: those that were blocked then.
        networks_measured: all.
        runs_blocked: that came from the networks that were blocked then.
        runs: all.
    """

    networks_blocked: int
    networks_measured: int
    runs_blocked: int
    runs: int


class Settled(msgspec.Struct, frozen=True):
    """What is kept for the next runs, by fingerprint of the incident."""

    severities: dict[str, Severity] = {}


def severities_of(
    counting: Counting,
    incidents: Iterable[Incident],
    services: Mapping[Target, str],
    path: Path,
) -> dict[Key, Severity]:
    """Return how severe incidents are, where there are measurements that tell.

    Args:
        counting: has the database, and knows which hours can change.
        incidents: which.
        services: test and input → the name of the service.
        path: keeps what changes no more.
    """
    targets: dict[str, list[Target]] = {}
    for target, service in services.items():
        targets.setdefault(service, []).append(target)
    kept = read_state(path, Settled).severities
    prints = {
        incident.key: _fingerprint(incident, targets[incident.service]) for incident in incidents
    }
    unknown = [i for i in incidents if counting.reprocess or prints[i.key] not in kept]
    severities = {key: kept[prints[key]] for key in prints if prints[key] in kept}
    severities |= _asked(counting.database, unknown, targets)
    settled = {
        prints[incident.key]: severities[incident.key]
        for incident in incidents
        if incident.key in severities and hour_of(incident.last_detected) <= counting.settled_until
    }
    if settled != kept:
        write_state(path, Settled(settled))
    return severities


def _fingerprint(incident: Incident, targets: Sequence[Target]) -> str:
    what = (incident.service, incident.probe_cc, _blocked(incident), incident.last_detected)
    return hashlib.sha256(repr((*what, sorted(targets))).encode()).hexdigest()


def _blocked(incident: Incident) -> list[int]:
    """Return the networks that were blocked when the last blocking was detected."""
    time = incident.last_detected
    return sorted({b.series.probe_asn for b in incident.blockings if b.is_open_at(time)})


def _asked(
    database: Database, incidents: Sequence[Incident], targets: Mapping[str, Sequence[Target]]
) -> dict[Key, Severity]:
    runs: list[dict[int, int]] = [{} for _ in incidents]
    rows: list[tuple[Any, ...]] = []
    for number, incident in enumerate(incidents):
        finish = incident.last_detected
        times = (hour_of(finish - PERIOD) * HOUR, hour_of(finish) * HOUR)
        code = incident.probe_cc
        rows += [(*target, code, number, *times) for target in targets[incident.service]]
    for together in by_time(rows, list(STRUCTURE).index("begin")):
        for number, asn, count in asked(database, NETWORKS, "places", STRUCTURE, together):
            runs[number][asn] = count
    return {
        incident.key: _severity(_blocked(incident), of_networks)
        for incident, of_networks in zip(incidents, runs, strict=True)
        if of_networks
    }


def _severity(blocked: Sequence[int], runs: Mapping[int, int]) -> Severity:
    measured = [asn for asn in blocked if asn in runs]
    of_blocked = sum(runs[asn] for asn in measured)
    return Severity(len(measured), len(runs), of_blocked, sum(runs.values()))
