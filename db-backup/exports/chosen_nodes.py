"""Steps of a cluster's tables, as they are on the nodes that the rows come from.

They may be other ones than those that were asked when a step was planned, and lack rows.
"""

from dataclasses import replace

from exports.fingerprint import counted
from exports.manifest_file import ManifestFile
from exports.reader import Reader
from exports.steps import Step
from tables.parts import read_snapshot


class ChosenNodes:
    """The nodes that a table is read from, chosen again before each chunk.

    Args:
        file: of the manifest, which gets the blocks that other nodes have.
    """

    def __init__(self, file: ManifestFile) -> None:
        self._file = file
        self._planned = _nodes_of(file.reader)
        self._storages: dict[tuple[str, ...], str] = {}  # the names, by other nodes

    def step(self, step: Step, reader: Reader) -> Step:
        """Choose the nodes of a reader, and return a step as it is there."""
        if not reader.replicas:
            return step
        reader.replicas.choose()
        nodes, condition = _nodes_of(reader), step.chunk.condition
        if nodes == self._planned:
            return step
        planned, storage = step.fingerprint, self._storage_of(reader, nodes)
        if storage and not planned.is_read:
            return replace(step, fingerprint=counted(reader.count(condition)), storage=storage)
        # Without blocks, nothing but the digest of all columns will tell of cells that change.
        whole = not storage or planned.whole is not None
        fingerprint = reader.fingerprint(condition, whole=whole)
        return replace(step, fingerprint=fingerprint, storage=storage)

    def _storage_of(self, reader: Reader, nodes: tuple[str, ...]) -> str:
        """Return the name of the blocks that nodes had when they were first chosen.

        "" if their parts don't tell.
        """
        with self._file.lock:
            name = self._storages.get(nodes)
        if name is None:
            snapshot = read_snapshot(reader.databases, reader.table)
            name = snapshot.storage.name if snapshot else ""
            with self._file.lock:
                self._storages[nodes] = name
                if snapshot:
                    self._file.manifest.storages[name] = snapshot.storage
        return name


def _nodes_of(reader: Reader) -> tuple[str, ...]:
    """Return the names of the nodes that a table is read from."""
    return tuple(node.name for node in reader.replicas.chosen) if reader.replicas else ()
