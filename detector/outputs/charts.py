"""The chart of an incident, as inline SVG: share of anomalies, measurements, the interval marked.

It is stretched to the width of the page, so that it holds no text; its colours are those of the
page's style sheet. Few bytes matter: there can be hundreds on a page.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from itertools import pairwise

from outputs.tallies import Chart

MOST = 120  # steps; more of them are put together
SHARE = 60  # the height of the upper part, where the line is
GAP = 6
BARS = 24  # the height of the lower part, where the bars are
HEIGHT = SHARE + GAP + BARS
WIDTH = 2  # of a step, so that its middle has a whole number, too


@dataclass(frozen=True)
class Drawing:
    """A chart to be shown.

    Attributes:
        svg: the picture.
        chart: what it shows, perhaps with longer steps than before.
        most: measurements of the step that has the most.
    """

    svg: str
    chart: Chart
    most: int


def drawing_of(chart: Chart, start: datetime, end: datetime | None, label: str) -> Drawing:
    """Draw a chart.

    Args:
        chart: the counts.
        start: of the interval to be marked.
        end: of it; None: up to the end of the chart.
        label: what the picture shows, for those who can't see it.
    """
    chart = shortened(chart)
    most = max(chart.measurements, default=0)
    width = WIDTH * len(chart.measurements)
    left = _place(chart, max(start, chart.start))
    right = _place(chart, min(end or chart.end, chart.end))
    svg = (
        f'<svg class="chart" viewBox="0 0 {width} {HEIGHT}" preserveAspectRatio="none" '
        f'role="img" aria-label="{escape(label)}">'
        f'<path class="marked" d="M{left} 0V{HEIGHT}H{right}V0z"/>'
        f'<path class="grid" d="M0 0H{width}M0 {SHARE // 2}H{width}M0 {SHARE}H{width}'
        f'M0 {HEIGHT}H{width}"/>'
        f'<path class="bars" d="{_bars(chart, most)}"/>'
        f'<path class="share" d="{_line(chart)}"/>'
        "</svg>"
    )
    return Drawing(svg, chart, most)


def _place(chart: Chart, time: datetime) -> str:
    """Return where a time is, from left to right."""
    return f"{WIDTH * ((time - chart.start) / chart.step):.1f}".removesuffix(".0")


def shortened(chart: Chart) -> Chart:
    """Return a chart with steps so long that there are not too many of them."""
    together = -(-len(chart.measurements) // MOST)
    if together <= 1:
        return chart
    starts = range(0, len(chart.measurements), together)
    return Chart(
        chart.start,
        chart.step * together,
        tuple(sum(chart.measurements[i : i + together]) for i in starts),
        tuple(sum(chart.anomalies[i : i + together]) for i in starts),
        tuple(sum(chart.runs[i : i + together]) for i in starts),
    )


def _bars(chart: Chart, most: int) -> str:
    """Return the outline of all bars, from the base line and back to it."""
    commands = [f"M0 {HEIGHT}"]
    height = 0
    run = 0
    for measurements in chart.measurements:
        # A bar that is not zero can be seen.
        new = max(1, round(BARS * measurements / most)) if measurements else 0
        if new != height:
            commands.append((f"h{run}" if run else "") + f"v{height - new}")
            height, run = new, 0
        run += WIDTH
    commands.append(f"h{run}v{height}z")
    return "".join(commands)


def _line(chart: Chart) -> str:
    """Return the line of the share of anomalies, with gaps where nothing was measured."""
    runs: list[list[tuple[int, int]]] = [[]]
    counts = zip(chart.measurements, chart.anomalies, strict=True)
    for number, (measurements, anomalies) in enumerate(counts):
        if measurements:
            share = round(SHARE * anomalies / measurements)
            runs[-1].append((WIDTH * number + WIDTH // 2, SHARE - share))
        elif runs[-1]:
            runs.append([])
    return "".join(_run(points) for points in runs if points)


def _run(points: Sequence[tuple[int, int]]) -> str:
    """Return a line without gaps; a point alone is as long as a step, so that it can be seen."""
    x, y = points[0]
    if len(points) == 1:
        return f"M{x - WIDTH // 2} {y}h{WIDTH}"
    steps = (f"l{WIDTH} {right - left}" for (_, left), (_, right) in pairwise(points))
    return f"M{x} {y}" + "".join(steps).replace(" -", "-")
