"""Numbers that are kept by key and fade: of networks, countries, kinds of probes."""

import numpy as np

from hours import Arrays, Flags, Floats, Indices

UNIT = 2**20  # sums of multiples of 1/UNIT are exact: they don't depend on the order


def exact(values: Floats) -> Floats:
    """Return values rounded so that their sums do not depend on the order of what is added."""
    rounded: Floats = np.rint(values * UNIT) / UNIT
    return rounded


class Keyed:
    """Columns of numbers, with a row for each key that has ever been added to.

    Attributes:
        keys: sorted.
        columns: by name, as long.
    """

    def __init__(self, *names: str) -> None:
        self.keys: Indices = np.array([], dtype=np.int64)
        self.columns: dict[str, Floats] = {name: np.array([]) for name in names}

    def places(self, keys: Indices) -> Indices:
        """Return where keys are, after adding those that are new; they begin with zeros.

        Args:
            keys: sorted, each once.
        """
        new = keys[~self._has(keys)]
        if len(new):
            at = np.searchsorted(self.keys, new)
            self.keys = np.insert(self.keys, at, new)
            for name, column in self.columns.items():
                self.columns[name] = np.insert(column, at, 0.0)
        found: Indices = np.searchsorted(self.keys, keys)
        return found

    def read(self, keys: Indices, *names: str) -> list[Floats]:
        """Return columns at keys; zeros for a key that is new."""
        if not len(self.keys):
            return [np.zeros(len(keys)) for _ in names]
        places = self._nearest(keys)
        has = self.keys[places] == keys
        return [np.where(has, self.columns[name][places], 0.0) for name in names]

    def _has(self, keys: Indices) -> Flags:
        has: Flags = np.zeros(len(keys), dtype=bool)
        if len(self.keys):
            has = self.keys[self._nearest(keys)] == keys
        return has

    def _nearest(self, keys: Indices) -> Indices:
        """Return where keys are, or would be; never the place behind the last one."""
        return np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)

    def arrays(self) -> Arrays:
        """Return what is known, by name."""
        return {"keys": self.keys, **self.columns}

    def put(self, arrays: Arrays) -> None:
        """Take what `arrays` of another one returned.

        Raises:
            KeyError, ValueError: it is of another kind.
        """
        keys = arrays["keys"]
        if keys.dtype != np.int64 or (np.diff(keys) <= 0).any():
            raise ValueError("keys: not sorted")
        columns = {name: arrays[name] for name in self.columns}
        for name, column in columns.items():
            if column.dtype != np.float64 or column.shape != keys.shape:
                raise ValueError(f"{name}: {column.dtype} {column.shape}")
        self.keys = keys.copy()
        self.columns = {name: column.copy() for name, column in columns.items()}
