"""Restoring tables on every node of a cluster, over a connection to each; never ON CLUSTER.

A table that replicates: of each shard, one node restores the rows into a plain table and compares
them. Then each node makes a replicated table under a path of its own, one gets the rows by ATTACH
PARTITION, the others fetch them, and when all have them each gives the table its name.
A table that does not replicate is restored on each node.

Whatever ends this, the next run goes on: a node that lacks what the others have joins them.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial

from backup_config import Config
from backups.comparison import Rows
from backups.definitions import Definitions, is_table
from backups.manifest import SavedTable
from backups.restore import Restored, Wanted, in_the_way, not_made
from backups.shards import check_shards
from backups.standings import Held, OutOfStep, Shard, Standings, lag_in_step
from backups.table_restore import attach, check_exchange, fill, put_in_place
from inventory import is_replicated
from ooni_common.database import ServerError, literal, quoted
from ooni_common.errors import ConfigError, DataRefused, Unavailable
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
from schemas.refusals import blamed_on, refused_schema
from staging import Place, drop, drop_leftovers, dropped_on_failure, exists

log = logging.getLogger("ooni.db_backup")

STALLED_AFTER = 600  # seconds in which a replica fetches nothing
NO_MACRO = 139  # ClickHouse's error code


class ReplicaElsewhere(ConfigError):
    """A node has what it is to get under another name; the other tables can be restored."""


def restore_on_cluster(nodes: Nodes, config: Config, wanted: Wanted) -> Restored:
    """Restore tables.

    Args:
        nodes: of the cluster, connected to a database that is there in any case.
        config: as ServerBackups has it.
        wanted: what is to be restored.

    Raises:
        ConfigError: there are tables of these names, or the cluster has other shards.
        Unavailable: as restore_tables; a node that fails while another one of its shard goes on
            only counts as absent.
    """
    check_shards(nodes, wanted.manifest)
    return _Restore(nodes, config, wanted).run()


class _Restore:
    def __init__(self, nodes: Nodes, config: Config, wanted: Wanted) -> None:
        self._nodes = nodes
        self._wanted = wanted
        self._standings = Standings(nodes, config, wanted)
        self._absent = set(nodes.absent)  # from the start
        self._started = self._standings.server(nodes.up[0]).clock()
        self._run = fresh_name()
        self._made: dict[tuple[str, str], Place] = {}  # node, table → where its rows are
        self._touched: set[str] = set()  # the tables that were not on all nodes
        self._statements: dict[str, str] = {}  # table → how a node that was away gets it
        self._restored = Restored()
        self._failed: set[str] = set()  # the tables that were not restored
        self._by_node: dict[str, Definitions] = {}

    def run(self) -> Restored:
        wanted, nodes, restored = self._wanted, self._nodes, self._restored
        database = quoted(wanted.database)
        create = f"CREATE DATABASE IF NOT EXISTS {database}"
        nodes.each(lambda node: node.database.query(create))
        views = {name for name in wanted.places if wanted.manifest.tables[name].is_view}
        standings = {name: self._standings.of(name) for name in wanted.places}
        self._refuse(standings, views)
        nodes.each(self._drop_leftovers)
        for name in wanted.names:
            if name not in wanted.places or name in views or not wanted.rows:
                self._try(self._define, name, {})
            elif name in wanted.places and name not in views:
                self._try(self._restore_table, name, standings[name])
            if name in views and wanted.rows and name not in self._failed:
                self._try(self._restore_view, name, standings[name])
        self._tell_absent()
        return restored

    def _try(self, restore: Callable[[str, Held], list[str]], name: str, standings: Held) -> None:
        """Restore one table; one that fails keeps no other from being restored."""
        try:
            with blamed_on(f"{self._wanted.manifest.name}: {name}"):
                self._restored.lines += restore(name, standings)
        except (DataRefused, OutOfStep, ReplicaElsewhere) as error:
            self._failed.add(name)
            self._restored.failures.append(error)

    def _drop_leftovers(self, node: Node) -> None:
        for place in self._wanted.places.values():
            drop_leftovers(node.database, place)

    def _refuse(self, standings: Mapping[str, Held], views: set[str]) -> None:
        """Raise ConfigError where other tables are in the way, or can't be replaced."""
        refused = []
        for name, place in self._wanted.places.items():
            others = [
                node for node, held in standings[name].items() if held and held.rows is Rows.OTHER
            ]
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
            raise in_the_way(refused)

    def _restore_table(self, name: str, standings: Held) -> list[str]:
        """Restore a table where it is missing; return lines about that."""
        place = self._wanted.places[name]
        standings = self._standings.settled(name, standings, self._started)
        lines: list[str] = []
        for shard in self._standings.shards(name, standings).values():
            lines += self._restore_shard(name, shard)
        if len(lines) > 1:
            rows = self._wanted.manifest.tables[name].rows
            return [f"{place}: {rows:,} rows on {len(lines)} shards"]
        return lines

    def _restore_shard(self, name: str, shard: Shard) -> list[str]:
        place, missing = self._wanted.places[name], shard.missing
        self._touched |= {name} if missing else set()
        shard.check_in_step(place)
        if not missing:
            standing = shard.held[shard.good[0]]
            log.info("%s is there already, %s", place, standing.rows.value if standing else "")
            return []
        if not is_replicated(shard.saved.engine):
            done = self._nodes.each(lambda node: self._plain(name, node), among=missing)
            return list(done.values())[:1]
        for node, path in shard.strays.items():
            log.warning(
                "%s on %s is no replica of the others' table, but %s: it joins them, and the old"
                " one is kept",
                place,
                node,
                f"one of {path}" if path else "a table of its own",
            )
        if shard.path:
            return self._joined(name, shard)
        if shard.is_one_empty_table:
            line = self._attached(name, shard.saved, missing[0])
            self._nodes.each(lambda node: self._wait(node, place), among=missing)
            return [line]
        return self._replicated(name, shard.saved, missing)

    def _plain(self, name: str, node: Node) -> str:
        """Restore a table that does not replicate on one node."""
        manifest, place = self._standings.manifest(node.shard), self._wanted.places[name]
        staging = place.staging(self._started)
        with dropped_on_failure(node.database, [staging]):
            self._fill(node, name, staging)
        return put_in_place(node.database, manifest.tables[name], staging, place, self._started)

    def _fill(self, node: Node, name: str, staging: Place) -> None:
        """Fill a plain table on one node, and compare its rows."""
        server, manifest = self._standings.server(node), self._standings.manifest(node.shard)
        wanted = self._wanted
        fill(server, manifest, name, staging, trusted=wanted.trusted, looked=wanted.looked)

    def _replicated(self, name: str, saved: SavedTable, among: list[Node]) -> list[str]:
        """Restore a table of one shard that replicates, on these nodes."""
        place, writer = self._wanted.places[name], among[0]
        staging, target = place.staging(self._started), place.replicated(self._started)
        with dropped_on_failure(writer.database, [staging, target]):
            self._fill(writer, name, staging)
            path = self._path(name, saved.storage_schema, writer, target)

            def make(node: Node) -> Place:
                return self._make(node, name, saved.storage_schema, path)

            made = self._nodes.each(make, among=among)
            if writer not in made:
                raise Unavailable(
                    f"{writer}: {self._nodes.absent.get(writer.name, 'it has failed')}"
                )
            writer.database.query(f"ALTER TABLE {target} ATTACH PARTITION ALL FROM {staging}")
            drop(writer.database, staging)
        return self._spread(name, saved, made)

    def _joined(self, name: str, shard: Shard) -> list[str]:
        """Let nodes that lack a table join those that have it."""
        place, model = self._wanted.places[name], shard.good[0]
        ((statement,),) = model.database.query(f"SHOW CREATE TABLE {place}")
        late = [
            node for node in shard.missing if (one := shard.held[node]) and one.path == shard.path
        ]
        self._nodes.each(lambda node: self._wait(node, place), among=late)

        joining = [node for node in shard.missing if node not in late]
        begun = self._begun(place, shard.path, joining)

        def join(node: Node) -> Place:
            return begun.get(node) or self._make(
                node, name, str(statement), path_literal(shard.path)
            )

        made = self._nodes.each(join, among=joining)
        lines = self._spread(name, shard.saved, made)
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
        self._made[node.name, name] = target
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

    def _attached(self, name: str, saved: SavedTable, writer: Node) -> str:
        """Fill a replicated table that is there and empty on all nodes."""
        place = self._wanted.places[name]
        with dropped_on_failure(writer.database, [place.staging(self._started)]):
            self._fill(writer, name, place.staging(self._started))
        return attach(writer.database, saved, place, self._started)

    def _spread(self, name: str, saved: SavedTable, made: Mapping[Node, Place]) -> list[str]:
        """Wait until each node has the rows of a replicated table; then give it its name there."""
        place = self._wanted.places[name]

        def caught_up(node: Node) -> None:
            self._wait(node, made[node])
            node.database.query(f"SYSTEM START MERGES {made[node]}")

        def put(node: Node) -> str:
            return put_in_place(node.database, saved, made[node], place, self._started)

        complete = self._nodes.each(caught_up, among=list(made))
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

    def _define(self, name: str, _: Held) -> list[str]:
        """Make a view, a dictionary, or a table without rows, where it is missing."""
        place, manifest = self._wanted.place(name), self._wanted.manifest
        present = self._nodes.each(lambda node: exists(node.database, place))
        missing = [node for node, is_there in present.items() if not is_there]
        schema = manifest.definitions.get(name, "")
        if not missing or not schema:
            return []
        if is_table(schema) and path_of(schema):
            return self._empty_replicas(name, schema, missing)
        made = self._nodes.each(lambda node: self._definitions(node).make(name), among=missing)
        return [f"{place}: its definition"] if any(made.values()) else []

    def _definitions(self, node: Node) -> Definitions:
        """Return what makes definitions on a node."""
        if node.name not in self._by_node:
            self._by_node[node.name] = Definitions(
                node.database,
                self._standings.manifest(node.shard),
                self._wanted.database,
                trusted=self._wanted.trusted,
            )
        return self._by_node[node.name]

    def _empty_replicas(self, name: str, schema: str, missing: list[Node]) -> list[str]:
        """Make a table that replicates, without rows, under one path for all nodes of a shard."""
        place = self._wanted.place(name)
        lines: list[str] = []
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
            made = self._nodes.each(
                partial(self._make, name=name, statement=schema, path=path), among
            )
            lines += self._nodes.each(
                partial(self._named, made=made, place=place), list(made)
            ).values()
        return lines[:1]

    def _named(self, node: Node, made: Mapping[Node, Place], place: Place) -> str:
        node.database.query(f"SYSTEM START MERGES {made[node]}")
        node.database.query(f"RENAME TABLE {made[node]} TO {place}")
        return f"{place}: without rows, its definition"

    def _restore_view(self, name: str, standings: Held) -> list[str]:
        """Fill the table of a view that each node has by now: where it replicates, on one node."""
        place = self._wanted.places[name]
        if not all(self._nodes.each(lambda node: exists(node.database, place)).values()):
            raise not_made(place)
        standings = self._standings.settled(name, standings, self._started)
        lines: list[str] = []
        for shard in self._standings.shards(name, standings).values():
            shard.check_in_step(place)
            missing = shard.missing
            if not missing:
                log.info("%s is there already", place)
            self._touched |= {name} if missing else set()
            if is_replicated(shard.saved.engine):
                missing = missing[:1] if len(missing) == len(shard.held) else []
            lines += [self._attached(name, shard.saved, node) for node in missing]
        return lines[:1]

    def _tell_absent(self) -> None:
        """Say what is to be done on the nodes that are absent, when they are back."""
        for node, why in self._nodes.absent.items():
            log.warning("%s was not restored on: %s", node, why)
            for name in self._wanted.places:
                if name in self._touched - self._failed:
                    log.warning("%s: when it is back: %s", node, self._advice(node, name))
        if failed := sorted(self._nodes.absent.keys() - self._absent):
            reasons = "; ".join(f"{name}: {self._nodes.absent[name]}" for name in failed)
            count = "1 node has" if len(failed) == 1 else f"{len(failed)} nodes have"
            self._restored.failures.append(
                Unavailable(f"{count} failed, and not all of it is there ({reasons})")
            )

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


def _has_macro(node: Node) -> bool:
    """Tell whether a node has a name for its replicas."""
    try:
        node.database.query("SELECT getMacro('replica')")
    except ServerError as error:
        if error.code != NO_MACRO:
            raise
        return False
    return True
