"""The gate: a failure in several countries at once does not count as a blocking.

Of an input in an hour and the two before it, those countries count in which the share of bad runs
exceeds the usual one by far, on networks that are OK. Where these are several, and a quarter of
those that are measured, the service or the test has failed, and the hour tells nothing.
"""

from dataclasses import dataclass

import numpy as np

from hours import NEVER, Arrays, Flags, Floats, Indices, Rows
from keyed import exact
from sequential import Detector
from series import OK

HOURS = 3  # this one, and those before it


@dataclass(frozen=True)
class GateParameters:
    """When it shuts.

    Attributes:
        excess: of a country's share of bad runs over the usual one.
        countries: in which there is one, at least.
        part: likewise, of those that are measured.
    """

    excess: float = 0.3
    countries: int = 4
    part: float = 0.25


class Gate:
    """Knows the last hours of each series.

    Args:
        series: how many.
        parameters: when it shuts.
    """

    def __init__(self, series: int, parameters: GateParameters | None = None) -> None:
        self._parameters = parameters or GateParameters()
        self._hours: Indices = np.full((HOURS, series), NEVER)
        self._runs: Floats = np.zeros((HOURS, series))
        self._excess: Floats = np.zeros((HOURS, series))  # bad runs, less those that are usual

    def arrays(self) -> Arrays:
        """Return what is known, by name."""
        parts = {"hours": self._hours, "runs": self._runs, "excess": self._excess}
        return {
            f"{name}_{slot}": array[slot] for name, array in parts.items() for slot in range(HOURS)
        }

    def shut(
        self,
        hour: int,
        rows: Rows,
        detector: Detector,
        groups: tuple[Indices, Indices],
    ) -> Flags:
        """Take the rows of an hour; tell which of them are in doubt.

        Args:
            hour: its number.
            rows: what counts of it.
            detector: knows what is OK, and usual.
            groups: by series: those with the same input in a country, and all over the world.
        """
        peers, everywhere = groups
        counted = rows.where(detector.status[rows.series] == OK)
        series, at = np.unique(counted.series, return_inverse=True)
        runs = np.bincount(at, counted.bad + counted.good, len(series))
        slot = hour % HOURS
        self._hours[slot, series], self._runs[slot, series] = hour, runs
        usual = detector.usual(series)
        bad = np.bincount(at, counted.bad, len(series))
        self._excess[slot, series] = exact(bad - usual * runs)
        used = slice(len(peers))
        fresh = self._hours[:, used] > hour - HOURS
        total = np.bincount(peers, (self._runs[:, used] * fresh).sum(axis=0))
        more = np.bincount(peers, exact((self._excess[:, used] * fresh).sum(axis=0)))
        measured = total > 0
        fails = measured & (more >= self._parameters.excess * total)
        of_peers = np.zeros(len(total), dtype=np.int64)
        of_peers[peers] = everywhere
        countries, failing = (np.bincount(of_peers, mask) for mask in (measured, fails))
        is_shut = (failing >= self._parameters.countries) & (
            failing >= self._parameters.part * countries
        )
        doubt: Flags = is_shut[everywhere[rows.series]]
        return doubt
