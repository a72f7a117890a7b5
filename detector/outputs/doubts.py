"""Why an incident may be no blocking, as far as the numbers tell: said in the item itself."""

from collections.abc import Mapping
from datetime import timedelta

from outputs.incidents import Incident
from outputs.report import Report
from outputs.tallies import until_detected
from outputs.wording import counted

FEW_RUNS = 3
OTHERS = 3  # networks of the country that show nothing
AT_ONCE = timedelta(hours=3)  # between incidents that may have one cause
COUNTRIES = 4  # in which something begins at once: the same number as the detector's own rule


def doubts_of(report: Report, incident: Incident) -> Mapping[str, str]:
    """Return the doubts about an incident: names for programs, and sentences for people."""
    doubts: dict[str, str] = {}
    tally = report.tallies.get(until_detected(incident))
    if tally is not None and tally.runs <= FEW_RUNS:
        doubts["few_runs"] = f"Only {counted(tally.runs, 'run')} led to its detection."
    severity = report.severities.get(incident.key)
    if severity is not None and len(incident.networks) == 1:
        others = severity.networks_measured - severity.networks_blocked
        if others >= OTHERS:
            doubts["one_network"] = (
                f"{others:,} other networks of the country measured it, too, and show no "
                "signs of a new blocking."
            )
    countries = report.countries_at_once(incident, AT_ONCE)
    if countries >= COUNTRIES:
        doubts["worldwide"] = (
            f"In {countries - 1:,} other countries something appears to have been blocked "
            "from about the same hour on. The test or the service may have failed."
        )
    return doubts
