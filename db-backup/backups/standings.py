"""What each node of a cluster has in the place of a table that is to be restored."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from backup_config import Config
from backups.comparison import Rows, rows_of
from backups.manifest import BackupManifest, SavedTable
from backups.restore import Wanted, settled
from backups.server import ServerBackups
from backups.shards import server_of
from ooni_common.errors import Unavailable
from ooni_common.nodes import Node, Nodes
from ooni_common.replicas import UNKNOWN_LAG, lag_of, shared_path
from tables.inventory import is_replicated, storage_of
from tables.staging import Place, exists

IN_STEP_AFTER = 60  # seconds in which a replica fetches nothing, and counts as lagging then
POLL = 0.1  # seconds


class OutOfStep(Unavailable):
    """A replica lacks rows that others have; the other tables can be restored."""


@dataclass(frozen=True)
class Standing:
    """What a node has in the place of a table.

    Attributes:
        path: in ZooKeeper; "" if it does not replicate.
        rows: compared with the backup.
        lag: how many entries of the replicas' log it has yet to carry out.
    """

    path: str
    rows: Rows
    lag: int = 0


Held = Mapping[Node, Standing | None]


@dataclass(frozen=True)
class Shard:
    """What the nodes of a shard have of a table.

    Attributes:
        saved: what the backup has of it.
        held: what each node has, None for nothing.
        path: the one that most share of the nodes that are as in the backup; "": none, or the table
            does not replicate.
        good: the nodes that have nothing to get.
        missing: the others.
    """

    saved: SavedTable
    held: Held
    path: str
    good: list[Node]
    missing: list[Node]

    @classmethod
    def of(cls, saved: SavedTable, held: Held) -> "Shard":
        """Return it.

        Replicas under several paths are several tables: what is written to one of them never
        reaches the others. So those that do not share the path have to join the one that most have.
        """
        complete = {node: one.path for node, one in held.items() if one and one.rows.is_good}
        path = ""
        if is_replicated(saved.engine):
            paths = Counter(filter(None, complete.values()))
            path = paths.most_common(1)[0][0] if paths else ""
            complete = {node: its for node, its in complete.items() if path and its == path}
        missing = [node for node in held if node not in complete]
        return cls(saved, held, path, list(complete), missing)

    @property
    def strays(self) -> dict[Node, str]:
        """Nodes that are as in the backup, but not under the path of the others → their path."""
        held = ((node, self.held[node]) for node in self.missing)
        return {node: one.path for node, one in held if one and one.rows.is_good}

    @property
    def lagging(self) -> dict[Node, int]:
        """The nodes that lack rows of the others, and how many entries of the log."""
        return {node: one.lag for node, one in self.held.items() if one and one.rows is Rows.LAGS}

    @property
    def is_one_empty_table(self) -> bool:
        """Whether the nodes have replicas of one table, which somebody made and nobody filled."""
        held = [one for one in self.held.values() if one and one.rows is Rows.NONE]
        return len(held) == len(self.held) and len({one.path for one in held}) == 1

    def check_in_step(self, place: Place) -> None:
        """Raise OutOfStep where nodes lack rows that may be those of the backup."""
        if not self.lagging:
            return
        nodes = ", ".join(
            f"{node} ({'no connection to ZooKeeper' if lag >= UNKNOWN_LAG else f'{lag:,} to do'})"
            for node, lag in self.lagging.items()
        )
        raise OutOfStep(
            f"{place} lags on {nodes}: what others have written may be on a node that is away; see"
            " system.replication_queue there, and restore again"
        )


class Standings:
    """Looks at the nodes.

    Args:
        nodes: of the cluster.
        config: as ServerBackups has it.
        wanted: what is to be restored.
    """

    def __init__(self, nodes: Nodes, config: Config, wanted: Wanted) -> None:
        self._nodes = nodes
        self._config = config
        self._wanted = wanted

    def manifest(self, shard: int) -> BackupManifest:
        """Return what the backup has of a shard."""
        return self._wanted.manifest.by_shard[self._nodes.shards.index(shard)]

    def saved(self, name: str, shard: int) -> SavedTable | None:
        """Return what the backup has of a table and shard."""
        return self.manifest(shard).tables.get(name)

    def server(self, node: Node) -> ServerBackups:
        """Return what restores on a node."""
        return server_of(self._nodes, node, self._config, self._wanted.manifest.collection)

    def shards(self, name: str, standings: Held) -> dict[int, Shard]:
        """Return what the nodes that are up have, of each shard that the backup has."""
        shards = {}
        for number in self._nodes.shards:
            held = {node: standings.get(node) for node in self._nodes.of_shard(number)}
            if saved := self.saved(name, number):
                shards[number] = Shard.of(saved, held)
        return shards

    def of(self, name: str) -> Held:
        """Return what each node has in the place of a table; None for nothing."""
        place = self._wanted.places[name]

        def path(node: Node) -> str | None:
            return _path_of(node, place) if exists(node.database, place) else None

        paths = self._nodes.each(path)
        among = [node for node in paths if paths[node] is not None]
        # What all nodes have alike is refused or replaced, whatever it is.
        alike = len(among) == len(paths) and all(
            len({paths[node] for node in among if node.shard == shard}) <= 1
            for shard in self._nodes.shards
        )

        def standing(node: Node) -> Standing:
            saved = self.saved(name, node.shard)
            if saved and (self._wanted.everything or not alike):
                return self._compared(node, saved, place, paths[node] or "")
            return Standing(paths[node] or "", Rows.OTHER)

        standings: dict[Node, Standing | None] = dict.fromkeys(paths)
        return standings | self._nodes.each(standing, among=among)

    def _compared(self, node: Node, saved: SavedTable, place: Place, path: str) -> Standing:
        """Compare a node's rows; where they are others, when it has all that it is to get."""
        server, replaces = self.server(node), self._wanted.replace
        rows, lag = rows_of(server, saved, place, replace=replaces), _lag_of(node, place)
        if rows.is_good or (replaces and rows is not Rows.NONE) or not lag:
            return Standing(path, rows)
        lag = lag_in_step(self._nodes, node, place, IN_STEP_AFTER)
        rows = rows_of(server, saved, place, replace=replaces)
        return Standing(path, Rows.LAGS if lag and not rows.is_good else rows, lag)

    def settled(self, name: str, standings: Held, started: datetime) -> Held:
        """Return the standings, where fewer rows than the backup's are those that became one.

        Args:
            name: of the table.
            standings: what each node has.
            started: the time of the run, UTC.

        Raises:
            DataRefused: rows are missing.
        """

        def table_of(node: Node, standing: Standing) -> tuple[int, str]:
            return node.shard, standing.path or node.name

        held = {node: one for node, one in standings.items() if one and node in self._nodes.up}
        # Replicas of one table that are in step differ in nothing but what they have merged.
        verdicts = {table_of(node, one): one.rows for node, one in held.items() if one.rows.is_good}
        result = dict(standings)
        for node, one in held.items():
            if one.rows is not Rows.FEWER:
                continue
            table = table_of(node, one)
            if table not in verdicts:
                manifest, place = self.manifest(node.shard), self._wanted.places[name]
                verdicts[table] = settled(
                    self.server(node), self._wanted, name, place, started, manifest
                )
            result[node] = replace(one, rows=verdicts[table])
        return result


def lag_in_step(nodes: Nodes, node: Node, place: Place, patience: float) -> int:
    """Wait until a replica has carried out all entries of the log; return how many are left.

    Args:
        nodes: have the clock.
        node: of the replica.
        place: the table.
        patience: seconds without any progress, after which it is given up.
    """
    least, waited = _lag_of(node, place), 0.0
    while (lag := _lag_of(node, place)) and waited <= patience:
        if lag < least:
            least, waited = lag, 0.0
        nodes.sleep(POLL)
        waited += POLL
    return lag


def _lag_of(node: Node, place: Place) -> int:
    storage = storage_of(node.database, place.table, place.database)
    return lag_of(node.database, place.database, storage)


def _path_of(node: Node, place: Place) -> str:
    """Return the path of a table in ZooKeeper; "" if it does not replicate."""
    storage = Place(place.database, storage_of(node.database, place.table, place.database))
    rows = node.database.query(
        "SELECT zookeeper_path FROM system.replicas"
        " WHERE database = %(database)s AND table = %(table)s",
        {"database": storage.database, "table": storage.table},
    )
    if not rows:
        return ""
    ((statement,),) = node.database.query(f"SHOW CREATE TABLE {storage}")
    return shared_path(str(statement), str(rows[0][0]))
