"""The figures of an evaluation as tables for people, at most 80 columns wide."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from evaluation.outcomes import ENOUGH

Figures = Mapping[str, Any]
Results = Mapping[str, Figures]

OURS, CUSUM = "sequential", "cusum"  # side by side in all tables but the first
NAME = 24  # letters of a row's name, and a blank
TITLE = 35  # likewise, of a total
MOST_HOURS = 14  # of a fault that fit
TOTALS = {
    "tp": ("events found", "d"),
    "fn": ("events missed", "d"),
    "fp": ("false changes", "d"),
    "precision": ("precision", ".3f"),
    "recall": ("recall", ".3f"),
    "recall_of_clear_events": ("recall of clear events", ".3f"),
    "median_delay_h": ("median delay, hours", ".0f"),
    "p90_delay_h": ("90 % of the delays, hours", ".0f"),
    "false_per_100_series": ("false changes per 100 series", ".1f"),
    "false_per_1000_series_weeks": ("per 1,000 weeks of a series", ".1f"),
}
LEGEND = f"""\
An event is a change to BLOCKED or back. It is found if the change is detected
after it, before the next event and within 20 days. All other changes are false,
those back to OK too. Delays are those of the events found; 90 % of them are no
longer than so many hours. A clear event has {ENOUGH} measurements or more before the
next one; the end of a blocking is one only if its beginning is. Brackets hold
95 % intervals, for which all series of one story count as one group."""
NOT_JUDGED = "* reported, and in no total"


class Column(NamedTuple):
    """A column of a table: its title, its width, and the text of a row's figures."""

    title: str
    width: int
    text: Callable[[Figures], str]


def shown(results: Results) -> str:
    """Return the figures of some detectors, by name."""
    tables = [
        _totals(results),
        _beginnings(results),
        _ends(results),
        _incidents(results),
        _false(results),
        _by_hours(results[OURS]["by_fault_hours"]),
        _by_rate(results),
    ]
    return "\n\n".join("\n".join(table) for table in tables if table) + f"\n\n{LEGEND}"


def _totals(results: Results) -> list[str]:
    """Return the totals of all detectors, with spread and interval where they have one."""
    first = next(iter(results.values()))
    lines: list[str] = []

    def add(title: str, texts: Iterable[str]) -> None:
        lines.append(f"{title:{TITLE}}" + "".join(f"{text:>15}" for text in texts))

    suites = f" of {first['suites']} seeds" if first["suites"] > 1 else ""
    add(f"{first['series']:,} series{suites}", results)
    for key, (title, form) in TOTALS.items():
        add(title, [_value(figures[key], form) for figures in results.values()])
        spreads = [figures.get("seeds", {}).get(key) for figures in results.values()]
        if any(spreads):
            add("  seeds: mean", [_value(s and s["mean"], form) for s in spreads])
            ranges = [s and (s["least"], s["most"]) for s in spreads]
            add("  seeds: least to most", [_range(limits, form) for limits in ranges])
        intervals = [figures["intervals"].get(key) for figures in results.values()]
        if any(intervals):
            add("  95 % interval", [_interval(limits, form) for limits in intervals])
    return lines


def _beginnings(results: Results) -> list[str]:
    """Return how many blockings were found, and how soon, by class."""
    found = Column("found", 6, lambda f: _percent(f["beginnings_recall"]))
    times = [
        Column("median", 7, lambda f: _hours(f["beginnings_median_delay_h"])),
        Column("90 %", 7, lambda f: _hours(f["beginnings_p90_delay_h"])),
    ]
    interval = Column("", 9, lambda f: _percents(f["intervals"]["beginnings_recall"]))
    events = Column("events", 7, lambda f: _value(f["beginnings_events"], "d"))
    return _by_class(
        "Beginnings of blockings by class",
        results,
        ([events, found, interval, *times], [found, *times]),
        lambda figures: bool(figures["beginnings_events"]),
    )


def _ends(results: Results) -> list[str]:
    """Return how soon the end of a blocking was told, by class."""
    events = Column("events", 8, lambda f: _value(f["ends_events"], "d"))
    columns = [
        Column("found", 8, lambda f: _percent(f["ends_recall"])),
        Column("in 96 h", 8, lambda f: _percent(f["ends_within_96_h"])),
        Column("median", 8, lambda f: _hours(f["ends_median_delay_h"])),
        Column("95 %", 7, lambda f: _hours(f["ends_p95_delay_h"])),
    ]
    return _by_class(
        "Ends of blockings by class",
        results,
        ([events, *columns], columns[1::2]),
        lambda figures: bool(figures["ends_events"]),
    )


def _incidents(results: Results) -> list[str]:
    """Return when the networks of a blocking were told to be back."""
    columns = [
        Column("half", 9, lambda f: _hours(f["half_back_median_h"], "never")),
        Column("all", 9, lambda f: _hours(f["all_back_median_h"], "never")),
        Column("week", 7, lambda f: _percent(f["not_all_back_in_a_week"])),
    ]
    count = Column("", 6, lambda f: _value(f["incidents"], "d"))
    ours, cusum = (results[name]["incidents_by_scenario"] for name in (OURS, CUSUM))
    title = (
        "Blockings that ended in three networks or more: hours until half, and all of\n"
        "these were told to be back (median); and how many were not after a week"
    )
    rows = [(name, [figures, cusum[name]]) for name, figures in ours.items()]
    return _table(title, ([count, *columns], columns), rows)


def _false(results: Results) -> list[str]:
    """Return the false changes by class."""
    columns = [
        Column("per 100", 8, lambda f: _value(f["false_per_100_series"], ".1f")),
        Column("", 14, lambda f: _interval(f["intervals"]["false_per_100_series"], ".1f")),
    ]
    about = [
        Column("series", 6, lambda f: _value(f["series"], "d")),
        Column("web", 6, lambda f: _percent(f["hours_with_controls"])),
    ]
    return _by_class(
        'False changes per 100 series, by class; "web": hours with other inputs',
        results,
        ([*about, *columns], columns),
        lambda _: True,
    )


def _by_hours(by_scenario: Mapping[str, Mapping[str, Figures]]) -> list[str]:
    """Return the false changes of ours by how long a fault lasts."""
    hours = sorted({int(hour) for figures in by_scenario.values() for hour in figures})
    columns = [
        Column(str(hour), 4, lambda f, key=str(hour): _whole(f.get(key)))  # type: ignore[misc]
        for hour in hours[:MOST_HOURS]
    ]
    title = f"False changes of {OURS} per 100 series, by the hours of a fault"
    rows = [(name, [figures]) for name, figures in by_scenario.items()]
    return _table(title, (columns,), rows, headings=False)


def _by_rate(results: Results) -> list[str]:
    """Return the figures by rate."""
    columns = [
        Column("found", 7, lambda f: _percent(f["recall"])),
        Column("median", 7, lambda f: _hours(f["median_delay_h"])),
        Column("false", 7, lambda f: _value(f["false_per_100_series"], ".1f")),
    ]
    events = Column("events", 7, lambda f: _value(f["events"], "d"))
    slow = Column("90 %", 7, lambda f: _hours(f["p90_delay_h"]))
    ours, cusum = (results[name]["by_rate"] for name in (OURS, CUSUM))
    rates = sorted(ours, key=float)
    rows = [(f"{rate} an hour", [ours[rate], cusum[rate]]) for rate in rates]
    title = "By rate of a series; false changes per 100 series"
    return _table(title, ([events, *columns[:2], slow, columns[2]], columns), rows)


def _by_class(
    title: str,
    results: Results,
    columns: Sequence[Sequence[Column]],
    wanted: Callable[[Figures], bool],
) -> list[str]:
    """Return a table of ours and the CUSUM, with a row for each class that is wanted."""
    ours, cusum = (results[name]["by_scenario"] for name in (OURS, CUSUM))
    names = [name for name, figures in ours.items() if wanted(figures)]
    marks = {name: "" if ours[name]["judged"] else "*" for name in names}
    rows = [(name + marks[name], [ours[name], cusum[name]]) for name in names]
    return _table(title, columns, rows) + [NOT_JUDGED] * any(marks.values())


def _table(
    title: str,
    columns: Sequence[Sequence[Column]],
    rows: Sequence[tuple[str, Sequence[Figures]]],
    *,
    headings: bool = True,
) -> list[str]:
    """Return a table; no lines where it has no rows.

    Args:
        title: above it.
        columns: of each detector.
        rows: a name, and the figures of each detector.
        headings: the detectors are named.
    """
    if not rows:
        return []
    names = zip((OURS, CUSUM), columns, strict=False)
    widths = [(name, sum(column.width for column in some)) for name, some in names]
    lines = [title]
    if headings:
        lines.append(" " * NAME + "".join(f"{name:>{width}}" for name, width in widths))
    titles = (f"{column.title:>{column.width}}" for some in columns for column in some)
    lines.append(" " * NAME + "".join(titles))
    for name, of_row in rows:
        texts = (
            f"{column.text(figures):>{column.width}}"
            for figures, some in zip(of_row, columns, strict=True)
            for column in some
        )
        lines.append(f"{_printable(name)[: NAME - 1]:{NAME}}" + "".join(texts))
    return [line.rstrip() for line in lines]


def _value(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _whole(figures: Figures | None) -> str:
    return "" if figures is None else f"{figures['false_per_100_series']:.0f}"


def _hours(value: float | None, never: str = "-") -> str:
    return never if value is None else f"{value:.0f} h"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _percents(limits: Sequence[float] | None) -> str:
    return f"[{100 * limits[0]:.0f}-{100 * limits[1]:.0f}]" if limits else ""


def _range(limits: Sequence[float] | None, form: str) -> str:
    return "-".join(format(limit, form) for limit in limits) if limits else ""


def _interval(limits: Sequence[float] | None, form: str) -> str:
    return f"[{_range(limits, form)}]" if limits else ""


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
