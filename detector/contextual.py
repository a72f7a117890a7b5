"""The detector with the context of its counts: what else the runs found, and the networks around.

    runs and others of an hour → control → gate → the sequential test ← support, pooling

All state is in arrays: by series, and by key in tables (networks, countries, kinds of probes).
"""

import numpy as np

from control import Control, ControlParameters, OtherRows, RunRows
from gate import Gate, GateParameters
from hours import NEVER, Arrays, Indices, States, distinct
from pooling import Groups, Pool, PoolParameters
from sequential import Detector, Parameters
from support import SupportParameters

PARAMETERS = (
    Parameters(),
    SupportParameters(),
    ControlParameters(),
    GateParameters(),
    PoolParameters(),
)
LATELY = 3  # hours for which what was left out last is in doubt
CONTROL = "control_"  # begins the names of arrays that aren't series'


class ContextDetector:
    """Follows the states of many series, hour by hour.

    Args:
        series: how many.
        world_of: see Control.
    """

    def __init__(self, series: int, world_of: Indices | None = None) -> None:
        self.test = Detector(series, support=SupportParameters())
        self._control = Control(world_of)
        self._gate = Gate(series)
        self._pool = Pool(series)
        self._left_out: Indices = np.full(series, NEVER)  # the last hour, if it was that
        self._since: Indices = np.full(series, NEVER)  # the first one of those

    @property
    def status(self) -> States:
        """UNKNOWN, OK or BLOCKED, for each series."""
        return self.test.status

    def left_out_since(self, until: int) -> Indices:
        """Return since when nothing of what series measure counts; NEVER where it does.

        Args:
            until: the hour after the last one; what was measured long before it is not in doubt.
        """
        return np.asarray(np.where(self._left_out >= until - LATELY, self._since, NEVER))

    def arrays(self) -> Arrays:
        """Return all that is known, by name; those that begin with CONTROL are not by series."""
        parts = {
            "": self.test.arrays(),
            "gate_": self._gate.arrays(),
            "pool_": self._pool.arrays(),
            "doubt_": {"left_out": self._left_out, "since": self._since},
            CONTROL: self._control.arrays(),
        }
        return {
            prefix + name: array
            for prefix, arrays in parts.items()
            for name, array in arrays.items()
        }

    def put(self, arrays: Arrays) -> None:
        """Know what `arrays` of another one says, which may have fewer series.

        Raises:
            KeyError, ValueError: it is of another kind.
        """
        self.test.put(arrays)
        for name, array in self.arrays().items():
            if name.startswith(("gate_", "pool_", "doubt_")):
                given = arrays[name]
                if given.dtype != array.dtype or len(given) > len(array):
                    raise ValueError(name)
                array[: len(given)] = given
        self._control.put({name.removeprefix(CONTROL): array for name, array in arrays.items()})

    def advance(
        self, hour: int, runs: RunRows, others: OtherRows, groups: Groups
    ) -> tuple[Indices, States, Indices]:
        """Take an hour; return what has changed.

        Args:
            hour: its number; each one is higher than those before.
            runs: of the series.
            others: what was measured beside.
            groups: what all series belong to.

        Returns:
            The series whose state has changed; their state before, UNKNOWN where it is their first
            one; those whose first state BLOCKED is news now, whenever they got it.
        """
        rows = self._control.judged(hour, runs, others)
        seen = self.test.see(hour, distinct(runs.series))
        doubt = self._gate.shut(hour, rows, self.test, (groups.peers, groups.everywhere))
        rows = rows.where(~doubt)
        counted = distinct(rows.series)
        self._note(hour, distinct(runs.series[runs.runs > 0]), counted)
        lowered = self._pool.lowered(hour, groups, self.test, counted)
        changed, old = self.test.follow(hour, rows, seen, lowered)
        news = self._pool.news(hour, groups, changed, (old, self.test.status[changed]))
        return changed, old, news

    def _note(self, hour: int, measured: Indices, counted: Indices) -> None:
        """Note which series are measured, and nothing of it counts."""
        self._left_out[counted] = NEVER
        out = np.setdiff1d(measured, counted, assume_unique=True)
        begins = out[self._left_out[out] < hour - LATELY]
        self._since[begins] = hour
        self._left_out[out] = hour
