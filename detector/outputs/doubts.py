"""What is in doubt: incidents that may be no blocking, and measurements that are not believed."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from doubt import COUNTRIES
from ooni_common.output import counted
from outputs.incidents import Incident
from outputs.report import Report
from outputs.tallies import until_detected
from outputs.wording import clean, spoken, within

FEW_RUNS = 3
OTHERS = 3  # networks of the country that show nothing
AT_ONCE = timedelta(hours=3)  # between incidents that may have one cause


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


def wrong_measurements(report: Report) -> str:
    """Return a sentence on what the last hours say, and is not believed; "" where all is well."""
    failing, countries, held = report.in_doubt
    said = []
    if failing:
        names = [clean(name) for name, _ in failing]
        since = spoken(min(time for _, time in failing))
        verb = "has" if len(names) == 1 else "have"
        said.append(f"{_listed(names)} {verb} failed in many countries at once since {since}")
    if countries and not failing:
        places = [within(code) for code, _ in countries]
        since = spoken(min(time for _, time in countries))
        said.append(f"in {_listed(places)} most inputs have failed since {since}")
    if held:
        verb = "looks" if len(held) == 1 else "look"
        said.append(f"{len(held):,} series {verb} blocked, with too little to support it")
    if not said:
        return ""
    return f"Something is wrong with the measurements: {', and '.join(said)}; later ones decide."


def _listed(names: Sequence[str]) -> str:
    """Return names for people: "A", "A and B", "A, B and C"."""
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
