"""Restoring tables on every node of a cluster, over a connection to each; never ON CLUSTER.

A table that replicates: of each shard, one node restores the rows into a plain table and compares
them. Then each node makes a replicated table under a path of its own, one gets the rows by ATTACH
PARTITION, the others fetch them, and when all have them each gives the table its name.
A table that does not replicate is restored on each node.

Whatever ends this, the next run goes on: a node that lacks what the others have joins them.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from backup_config import Config
from backups.manifest import BackupManifest, SavedTable
from backups.restore import (
    Wanted,
    attach,
    check_exchange,
    fill,
    put_in_place,
    restore_definitions,
    rows_of,
)
from backups.server import ServerBackups
from backups.shards import check_shards, server_of
from inventory import is_replicated, renamed, storage_of
from ooni_common.database import Database, ServerError, quoted
from ooni_common.errors import ConfigError, Unavailable
from ooni_common.nodes import Node, Nodes
from ooni_common.replicas import fresh_name, fresh_path, lag_of, path_of
from staging import Place, drop, drop_leftovers, dropped_on_failure, exists

log = logging.getLogger("ooni.db_backup")

STALLED_AFTER = 600  # seconds in which a replica fetches nothing
POLL = 0.1  # seconds


@dataclass(frozen=True)
class Standing:
    """What a node has in the place of a table.

    Attributes:
        path: in ZooKeeper; "" if it does not replicate.
        rows: None: none at all; "": others than the backup has; else which, for people.
    """

    path: str
    rows: str | None


def restore_on_cluster(nodes: Nodes, config: Config, wanted: Wanted) -> list[str]:
    """Restore tables; return what was done, a line for each.

    Args:
        nodes: of the cluster, connected to a database that is there in any case.
        config: as ServerBackups has it.
        wanted: what is to be restored.

    Raises:
        ConfigError: there are tables of these names, or the cluster has other shards.
        DataRefused, Unavailable: as restore_tables; a node that fails while another one of its
            shard goes on only counts as absent.
    """
    check_shards(nodes, wanted.manifest)
    return _Restore(nodes, config, wanted).run()


class _Restore:
    def __init__(self, nodes: Nodes, config: Config, wanted: Wanted) -> None:
        self._nodes = nodes
        self._config = config
        self._wanted = wanted
        self._started = self._server(nodes.up[0]).clock()
        self._run = fresh_name()
        self._made: dict[tuple[str, str], Place] = {}  # node, table → where its rows are
        self._touched: set[str] = set()  # the tables that were not on all nodes
        self._statements: dict[str, str] = {}  # table → how a node that was away gets it

    def run(self) -> list[str]:
        wanted, nodes = self._wanted, self._nodes
        database = quoted(wanted.database)
        create = f"CREATE DATABASE IF NOT EXISTS {database}"
        nodes.each(lambda node: node.database.query(create))
        views = {name for name in wanted.places if wanted.manifest.tables[name].is_view}
        standings = {name: self._standings(name) for name in wanted.places}
        self._refuse(standings, views)
        nodes.each(self._drop_leftovers)
        done: list[str] = []
        for name in wanted.places:
            if name not in views:
                done += self._restored(name, standings[name])
        if wanted.everything:
            definitions = nodes.each(self._definitions)
            done += list(dict.fromkeys(line for lines in definitions.values() for line in lines))
        for name in sorted(views):
            done += self._restored_view(name, standings[name])
        self._tell_absent()
        return done

    def _drop_leftovers(self, node: Node) -> None:
        for place in self._wanted.places.values():
            drop_leftovers(node.database, place)

    def _server(self, node: Node) -> ServerBackups:
        return server_of(self._nodes, node, self._config, self._wanted.manifest.collection)

    def _manifest(self, shard: int) -> BackupManifest:
        """Return what the backup has of a shard."""
        return self._wanted.manifest.by_shard[self._nodes.shards.index(shard)]

    def _saved(self, name: str, shard: int) -> SavedTable | None:
        return self._manifest(shard).tables.get(name)

    def _standings(self, name: str) -> dict[Node, Standing | None]:
        """Return what each node has in the place of a table; None for nothing."""
        place = self._wanted.places[name]

        def path(node: Node) -> str | None:
            if not exists(node.database, place):
                return None
            return _path_of_table(node.database, place)

        paths = self._nodes.each(path)
        among = [node for node in paths if paths[node] is not None]
        # What all nodes have alike is refused or replaced, whatever it is.
        alike = len(among) == len(paths) and all(
            len({paths[node] for node in among if node.shard == shard}) <= 1
            for shard in self._nodes.shards
        )

        def standing(node: Node) -> Standing:
            saved = self._saved(name, node.shard)
            rows: str | None = ""
            if saved and (self._wanted.everything or not alike):
                server = self._server(node)
                # That some rows were merged is said of no table that was asked for by its name.
                replace = self._wanted.replace or not self._wanted.everything
                rows = rows_of(server, saved, place, replace=replace)
            return Standing(paths[node] or "", rows)

        standings: dict[Node, Standing | None] = dict.fromkeys(paths)
        return standings | self._nodes.each(standing, among=among)

    def _refuse(self, standings: dict[str, dict[Node, Standing | None]], views: set[str]) -> None:
        """Raise ConfigError where other tables are in the way, or can't be replaced."""
        refused = []
        for name, place in self._wanted.places.items():
            others = [node for node, held in standings[name].items() if held and held.rows == ""]
            if others and self._wanted.replace and name not in views:
                for node in others:
                    check_exchange(node.database, place)
            elif others and self._wanted.replace:
                raise ConfigError(
                    f"{place} is a materialized view and can't be replaced as a whole; restore it"
                    " under another name (--as), and then REPLACE its partitions"
                )
            elif others:
                refused.append(f"{place} on {', '.join(map(str, others))}")
        if refused:
            raise ConfigError(
                f"there already: {', '.join(refused)}; use --as, --to-database, or --replace, which"
                " keeps the old content under another name"
            )

    def _restored(self, name: str, standings: dict[Node, Standing | None]) -> list[str]:
        """Restore a table where it is missing; return lines about that."""
        place = self._wanted.places[name]
        lines: list[str] = []
        for shard in self._nodes.shards:
            saved = self._saved(name, shard)
            if saved is None:
                continue
            held = {node: standings.get(node) for node in self._nodes.of_shard(shard)}
            missing = [node for node, standing in held.items() if not (standing and standing.rows)]
            good = [node for node in held if node not in missing]
            self._touched |= {name} if missing else set()
            if not missing:
                log.info("%s is there already, %s", place, held[good[0]].rows)  # type: ignore[union-attr]
            elif not is_replicated(saved.engine):
                done = self._nodes.each(lambda node: self._plain(name, node), among=missing)
                lines += list(done.values())[:1]
            elif good:
                lines += self._joined(name, saved, good[0], missing)
            elif _are_one_empty_table(list(held.values())):
                lines.append(self._attached(name, saved, missing[0]))
                self._nodes.each(lambda node: self._wait(node, place), among=missing)
            else:
                lines += self._replicated(name, saved, missing)
        if len(lines) > 1:
            rows = self._wanted.manifest.tables[name].rows
            return [f"{place}: {rows:,} rows on {len(lines)} shards"]
        return lines

    def _plain(self, name: str, node: Node) -> str:
        """Restore a table that does not replicate on one node."""
        manifest, place = self._manifest(node.shard), self._wanted.places[name]
        staging = place.staging(self._started)
        with dropped_on_failure(node.database, [staging]):
            fill(self._server(node), manifest, name, staging)
        return put_in_place(node.database, manifest.tables[name], staging, place, self._started)

    def _replicated(self, name: str, saved: SavedTable, among: Sequence[Node]) -> list[str]:
        """Restore a table of one shard that replicates, on these nodes."""
        place, writer = self._wanted.places[name], among[0]
        staging, target = place.staging(self._started), place.replicated(self._started)
        with dropped_on_failure(writer.database, [staging, target]):
            fill(self._server(writer), self._manifest(writer.shard), name, staging)
            path = self._path(name, saved, writer, target)
            create = renamed(saved.storage_schema, str(target), path)
            makers = self._make(name, create, target, among)
            if writer not in makers:
                raise Unavailable(
                    f"{writer}: {self._nodes.absent.get(writer.name, 'it has failed')}"
                )
            writer.database.query(f"ALTER TABLE {target} ATTACH PARTITION ALL FROM {staging}")
            drop(writer.database, staging)
        return self._spread(name, saved, target, makers)

    def _joined(
        self, name: str, saved: SavedTable, model: Node, among: Sequence[Node]
    ) -> list[str]:
        """Let nodes that lack a table join those that have it."""
        place = self._wanted.places[name]
        target = place.replicated(self._started)
        ((statement,),) = model.database.query(f"SHOW CREATE TABLE {place}")
        create = renamed(str(statement), str(target), path_of(str(statement)))
        makers = self._make(name, create, target, among)
        lines = self._spread(name, saved, target, makers)
        return [f"{line}; {', '.join(map(str, makers))} joined" for line in lines]

    def _make(self, name: str, create: str, target: Place, among: Sequence[Node]) -> Sequence[Node]:
        """Make an empty replicated table that merges nothing for now; return where it is."""

        def make(node: Node) -> None:
            node.database.query(create)
            self._made[node.name, name] = target
            node.database.query(f"SYSTEM STOP MERGES {target}")

        return list(self._nodes.each(make, among=list(among)))

    def _attached(self, name: str, saved: SavedTable, writer: Node) -> str:
        """Fill a replicated table that is there and empty on all nodes."""
        place = self._wanted.places[name]
        with dropped_on_failure(writer.database, [place.staging(self._started)]):
            fill(
                self._server(writer),
                self._manifest(writer.shard),
                name,
                place.staging(self._started),
            )
        return attach(writer.database, saved, place, self._started)

    def _spread(
        self, name: str, saved: SavedTable, target: Place, among: Sequence[Node]
    ) -> list[str]:
        """Wait until each node has the rows of a replicated table; then give it its name there."""
        place = self._wanted.places[name]

        def caught_up(node: Node) -> None:
            self._wait(node, target)
            node.database.query(f"SYSTEM START MERGES {target}")

        def put(node: Node) -> str:
            return put_in_place(node.database, saved, target, place, self._started)

        complete = self._nodes.each(caught_up, among=list(among))
        lines = self._nodes.each(put, among=list(complete))
        for node in list(lines)[:1]:
            ((create,),) = node.database.query(f"SHOW CREATE TABLE {place}")
            self._statements[name] = " ".join(str(create).split())
        return list(lines.values())[:1]

    def _wait(self, node: Node, place: Place) -> None:
        """Return when a replica has carried out all entries of the log.

        Raises:
            Unavailable: it carries out none for a while.
        """
        least, waited = lag_of(node.database, place.database, place.table), 0.0
        while lag := lag_of(node.database, place.database, place.table):
            if lag < least:
                least, waited = lag, 0.0
            if waited > STALLED_AFTER:
                raise Unavailable(
                    f"{node}: {place} has fetched nothing for {STALLED_AFTER} s; see"
                    " system.replication_queue there"
                )
            self._nodes.sleep(POLL)
            waited += POLL

    def _path(self, name: str, saved: SavedTable, node: Node, target: Place) -> str:
        """Return the path that a table had, or a fresh one like it where that is in use.

        Whether it is, a table there tells best: it may be a node's that is absent, or gone.
        """
        place, path = self._wanted.places[name], path_of(saved.storage_schema)
        fresh = fresh_path(saved.storage_schema, place.table, self._run)
        if place != Place(self._wanted.manifest.database, name) or "{uuid}" in path:
            return fresh
        if exists(node.database, place):
            return fresh
        try:
            node.database.query(renamed(saved.storage_schema, str(target), path))
            replicas = node.database.query(
                "SELECT total_replicas FROM system.replicas"
                " WHERE database = %(database)s AND table = %(table)s",
                {"database": target.database, "table": target.table},
            )
        except ServerError as error:
            log.debug("%s: %s", path, error)
            replicas = []
        drop(node.database, target)
        return path if replicas == [(1,)] else fresh

    def _definitions(self, node: Node) -> list[str]:
        wanted = replace(self._wanted, manifest=self._manifest(node.shard))
        return restore_definitions(self._server(node), wanted)

    def _restored_view(self, name: str, standings: dict[Node, Standing | None]) -> list[str]:
        """Fill the table of a view that each node has by now: where it replicates, on one node."""
        lines: list[str] = []
        for shard in self._nodes.shards:
            saved = self._saved(name, shard)
            held = {node: standings.get(node) for node in self._nodes.of_shard(shard)}
            missing = [node for node, standing in held.items() if not (standing and standing.rows)]
            if saved is None:
                continue
            if not missing:
                log.info("%s is there already", self._wanted.places[name])
            self._touched |= {name} if missing else set()
            if is_replicated(saved.engine):
                missing = missing[:1] if len(missing) == len(held) else []
            lines += [self._attached(name, saved, node) for node in missing]
        return lines[:1]

    def _tell_absent(self) -> None:
        """Say what is to be done on the nodes that are absent, when they are back."""
        for node, why in self._nodes.absent.items():
            log.warning("%s was not restored on: %s", node, why)
            for name in self._wanted.places:
                if name in self._touched:
                    log.warning("%s: when it is back: %s", node, self._advice(node, name))

    def _advice(self, node: str, name: str) -> str:
        place, create = self._wanted.places[name], self._statements.get(name)
        replaced = self._wanted.replace
        if create is None:
            return f"restore {name} once more"
        if target := self._made.get((node, name)):
            if replaced:
                return f"EXCHANGE TABLES {target} AND {place}"
            return f"RENAME TABLE {target} TO {place}"
        away = f"RENAME TABLE {place} TO {place.kept(self._started)}; " if replaced else ""
        return away + create


def _are_one_empty_table(standings: Sequence[Standing | None]) -> bool:
    """Tell whether nodes have replicas of one table, which somebody has made and nobody filled."""
    held = [standing for standing in standings if standing and standing.rows is None]
    return len(held) == len(standings) and len({standing.path for standing in held}) == 1


def _path_of_table(database: Database, place: Place) -> str:
    storage = storage_of(database, place.table, place.database)
    rows = database.query(
        "SELECT zookeeper_path FROM system.replicas"
        " WHERE database = %(database)s AND table = %(table)s",
        {"database": place.database, "table": storage},
    )
    return str(rows[0][0]) if rows else ""
