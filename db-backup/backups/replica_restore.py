"""Restoring a table that replicates, on the nodes of a cluster.

Of each shard, one node restores the rows into a plain table and compares them. Then each node makes
a replicated table under a path of its own, one gets the rows by ATTACH PARTITION, the others fetch
them, and when all have them each gives the table its name.
"""

import logging
from collections.abc import Mapping
from datetime import datetime
from functools import partial

from backups.attempt import Attempt
from backups.manifest import SavedTable
from backups.restore import Wanted
from backups.standings import Shard, Standings, lag_in_step
from backups.table_restore import attach, fill, put_in_place
from ooni_common.database import ServerError, literal
from ooni_common.errors import ConfigError, Unavailable
from ooni_common.nodes import Node, Nodes
from ooni_common.replicas import (
    create_replica,
    fresh_name,
    fresh_path,
    path_literal,
    path_of,
    replica_argument,
)
from schemas.create_table import create_statement
from schemas.references import moved
from schemas.refusals import refused_schema
from tables.staging import Place, drop, dropped_on_failure, exists

log = logging.getLogger("ooni.db_backup")

STALLED_AFTER = 600  # seconds in which a replica fetches nothing
NO_MACRO = 139  # ClickHouse's error code


class ReplicaElsewhere(ConfigError):
    """A node has what it is to get under another name; the other tables can be restored."""


class ReplicaRestore:
    """Makes the replicas of tables, and fills them.

    Args:
        nodes: of the cluster.
        wanted: what is to be restored.
        standings: looks at the nodes.
        started: the time of the run, UTC.

    Attributes:
        made: node, table → where its rows are.
        statements: table → how a node that was away gets it.
    """

    def __init__(
        self, nodes: Nodes, wanted: Wanted, standings: Standings, started: datetime
    ) -> None:
        self._nodes = nodes
        self._wanted = wanted
        self._standings = standings
        self._started = started
        self._run = fresh_name()
        self.made: dict[tuple[str, str], Place] = {}
        self.statements: dict[str, str] = {}

    def restore(self, name: str, shard: Shard, attempt: Attempt) -> list[str]:
        """Restore a table of one shard where it is missing; return lines about that.

        Args:
            name: of the table.
            shard: what its nodes have.
            attempt: is told of the nodes that do not get it; the others do.
        """
        place = self._wanted.places[name]
        for node, path in shard.strays.items():
            log.warning(
                "%s on %s is not a replica of the others' table, but %s: it joins them, and the old"
                " one is kept",
                place,
                node,
                f"one of {path}" if path else "a table of its own",
            )
        if shard.path:
            return self._joined(name, shard, attempt)
        if shard.is_one_empty_table:
            line = self.attach_rows(name, shard.saved, shard.missing[0])
            attempt.each(lambda node: self._wait(node, place), among=shard.missing)
            return [line]
        return self._replicated(name, shard.saved, shard.missing, attempt)

    def attach_rows(self, name: str, saved: SavedTable, writer: Node) -> str:
        """Fill a replicated table that is there and empty on all nodes."""
        place = self._wanted.places[name]
        with dropped_on_failure(writer.database, [place.staging(self._started)]):
            self.fill_beside(writer, name, place.staging(self._started))
        return attach(writer.database, saved, place, self._started)

    def make_empty(self, name: str, schema: str, missing: list[Node]) -> list[str]:
        """Make a table that replicates, without rows, under one path for all nodes of a shard."""
        place = self._wanted.place(name)
        attempt, lines = Attempt(self._nodes, place), list[str]()
        for shard in self._nodes.shards:
            nodes = self._nodes.of_shard(shard)
            among = [node for node in nodes if node in missing]
            if not among:
                continue
            model = next((node for node in nodes if node not in missing), None)
            if model:
                ((statement,),) = model.database.query(f"SHOW CREATE TABLE {place}")
                schema, path = str(statement), path_of(str(statement))
            else:
                path = self._path(name, schema, among[0], place.replicated(self._started))
            made = attempt.each(partial(self._make, name=name, statement=schema, path=path), among)
            lines += attempt.each(partial(self._named, made=made, place=place), list(made)).values()
        attempt.check()
        return lines[:1]

    def fill_beside(self, node: Node, name: str, staging: Place) -> None:
        """Fill a plain table on one node, and compare its rows."""
        server, manifest = self._standings.server(node), self._standings.manifest(node.shard)
        fill(server, manifest, name, staging, self._wanted.filling)

    def _replicated(
        self, name: str, saved: SavedTable, among: list[Node], attempt: Attempt
    ) -> list[str]:
        """Restore a table of one shard that replicates, on these nodes."""
        place, writer = self._wanted.places[name], among[0]
        staging, target = place.staging(self._started), place.replicated(self._started)
        with dropped_on_failure(writer.database, [staging, target]):
            self.fill_beside(writer, name, staging)
            path = self._path(name, saved.storage_schema, writer, target)

            def make(node: Node) -> Place:
                return self._make(node, name, saved.storage_schema, path)

            made = attempt.each(make, among=among)
            if writer not in made:
                attempt.check()
                raise Unavailable(
                    f"{writer}: {self._nodes.absent.get(writer.name, 'it has failed')}"
                )
            writer.database.query(f"ALTER TABLE {target} ATTACH PARTITION ALL FROM {staging}")
            drop(writer.database, staging)
        return self._spread(name, saved, made, attempt)

    def _joined(self, name: str, shard: Shard, attempt: Attempt) -> list[str]:
        """Let nodes that lack a table join those that have it."""
        place, model = self._wanted.places[name], shard.good[0]
        ((statement,),) = model.database.query(f"SHOW CREATE TABLE {place}")
        late = [
            node for node in shard.missing if (one := shard.held[node]) and one.path == shard.path
        ]
        attempt.each(lambda node: self._wait(node, place), among=late)

        joining = [node for node in shard.missing if node not in late]
        begun = self._begun(place, shard.path, joining)

        def join(node: Node) -> Place:
            return begun.get(node) or self._make(
                node, name, str(statement), path_literal(shard.path)
            )

        made = attempt.each(join, among=joining)
        lines = self._spread(name, shard.saved, made, attempt)
        return [f"{line}; {', '.join(map(str, made))} joined" for line in lines]

    def _begun(self, place: Place, path: str, among: list[Node]) -> dict[Node, Place]:
        """Return the replicas that a run has made which was killed before it could swap them in.

        Raises:
            ReplicaElsewhere: there is another one, which nobody may touch.
        """
        query = "SELECT database, table FROM system.replicas WHERE zookeeper_path = %(path)s"
        parameters = {"path": path[path.index("/") :]}
        replicas = self._nodes.each(
            lambda node: [Place(*row) for row in node.database.query(query, parameters)], among
        )
        begun = {node: places[0] for node, places in replicas.items() if places}
        for node, replica in begun.items():
            if replica.database != place.database or not place.is_kept(replica.table):
                raise ReplicaElsewhere(
                    f"{node}: {replica} is a replica of the others' {place}: rename it to {place},"
                    " or drop it, and restore again"
                )
        return begun

    def _make(self, node: Node, name: str, statement: str, path: str) -> Place:
        """Make an empty replicated table that merges nothing for now; return where it is."""
        target = self._wanted.place(name).replicated(self._started)
        create_replica(node, self._create(node, name, statement, path))
        self.made[node.name, name] = target
        node.database.query(f"SYSTEM STOP MERGES {target}")
        return target

    def _create(self, node: Node, name: str, statement: str, path: str) -> str:
        """Return the statement that creates a replicated table on a node, like that of another."""
        place, wanted = self._wanted.place(name), self._wanted
        own = ""
        for source in (place, Place(self._wanted.manifest.database, name)):
            if not path_of(own) and exists(node.database, source):
                own = str(node.database.query(f"SHOW CREATE TABLE {source}")[0][0])
        replica = replica_argument(statement, own)
        if "{" in replica and not _has_macro(node):
            replica = literal(node.name)
        target = place.replicated(self._started)
        try:
            create = create_statement(statement, str(target), path, replica, trusted=wanted.trusted)
        except ValueError as error:
            raise refused_schema(name, statement, error) from None
        return moved(create, wanted.manifest.database, wanted.database, wanted.manifest.definitions)

    def _spread(
        self, name: str, saved: SavedTable, made: Mapping[Node, Place], attempt: Attempt
    ) -> list[str]:
        """Wait until each node has the rows of a replicated table; then give it its name there."""
        place = self._wanted.places[name]

        def caught_up(node: Node) -> None:
            self._wait(node, made[node])
            node.database.query(f"SYSTEM START MERGES {made[node]}")

        def put(node: Node) -> str:
            return put_in_place(node.database, saved, made[node], place, self._started)

        complete = attempt.each(caught_up, among=list(made))
        lines = attempt.each(put, among=list(complete))
        for node in list(lines)[:1]:
            ((create,),) = node.database.query(f"SHOW CREATE TABLE {place}")
            self.statements[name] = " ".join(str(create).split())
        return list(lines.values())[:1]

    def _wait(self, node: Node, place: Place) -> None:
        """Return when a replica has carried out all entries of the log.

        Raises:
            Unavailable: it carries out none for a while.
        """
        if lag_in_step(self._nodes, node, place, STALLED_AFTER):
            raise Unavailable(
                f"{node}: {place} has fetched nothing for {STALLED_AFTER} s; see"
                " system.replication_queue there"
            )

    def _path(self, name: str, schema: str, node: Node, target: Place) -> str:
        """Return the path that a table had, or a fresh one like it where that is in use.

        Whether it is, a table there tells best: it may be a node's that is absent, or gone.
        """
        place, path = self._wanted.place(name), path_of(schema)
        fresh = fresh_path(schema, place.table, self._run)
        if place != Place(self._wanted.manifest.database, name) or "{uuid}" in path:
            return fresh
        if exists(node.database, place):
            return fresh
        try:
            node.database.query(self._create(node, name, schema, path))
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

    def _named(self, node: Node, made: Mapping[Node, Place], place: Place) -> str:
        node.database.query(f"SYSTEM START MERGES {made[node]}")
        node.database.query(f"RENAME TABLE {made[node]} TO {place}")
        return f"{place}: without rows, its definition"


def _has_macro(node: Node) -> bool:
    """Tell whether a node has a name for its replicas."""
    try:
        node.database.query("SELECT getMacro('replica')")
    except ServerError as error:
        if error.code != NO_MACRO:
            raise
        return False
    return True
