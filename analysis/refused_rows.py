"""Which of the refused rows upstream has added: those that it has had for long keep no others out.

Rows of a file that was loaded but for them count no more, nor do those that the live table has from
an older version, which took them. Others count for some days: then somebody had time to look.
"""

from collections.abc import Mapping, Set
from pathlib import Path

from ooni_common.state import read_state, write_state
from refusals import DAY, Moment, RefusedForNow

BESIDE_LOADED = 0.0  # in the place of a time

Since = dict[str, Moment]  # what a row is known by → when it was first refused, in Unix time


class RefusedRows:
    """The refused rows of some tables, as a file in the state directory has them."""

    def __init__(self, state_file: Path, hold_days: int, now: float) -> None:
        """Read what earlier runs have refused."""
        self._path = state_file.with_suffix(".rows.json")
        self._hold = hold_days * DAY
        self._now = now
        self._since = read_state(self._path, dict[str, Since])

    def note(self, refused: Mapping[str, Set[str]]) -> None:
        """Note what is refused now, by table.

        A table that is not among them has what its file has: what another version of the file had
        too much counts no more.
        """
        for table in self._since.keys() - refused.keys():
            since = self._since[table].items()
            self._since[table] = {row: time for row, time in since if time == BESIDE_LOADED}
        for table, rows in refused.items():
            before = self._since.get(table, {})
            self._since[table] = {
                row: min(before.get(row, self._now), self._now)  # a clock may have been wrong
                for row in sorted(rows)
            }

    def check(self, most: int) -> None:
        """Raise RefusedForNow when more than `most` of them count."""
        times = [time for since in self._since.values() for time in since.values()]
        counted = sorted(
            time for time in times if time > max(self._now - self._hold, BESIDE_LOADED)
        )
        if len(counted) > most:
            until = counted[len(counted) - most - 1] + self._hold
            raise RefusedForNow(
                f"{len(counted)} rows that upstream has added are refused, more than"
                f" max_rejected_rows = {most}",
                until,
            )

    def load_beside(self) -> None:
        """Note that the files are loaded but for these rows."""
        for since in self._since.values():
            since.update(dict.fromkeys(since, BESIDE_LOADED))

    def write(self) -> None:
        """Keep them for the next run."""
        write_state(self._path, self._since)
