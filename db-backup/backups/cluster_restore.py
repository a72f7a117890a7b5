"""Restoring tables on every node of a cluster, over a connection to each; never ON CLUSTER.

A table that replicates is restored by its replicas together (replica_restore.py); one that does not
is restored on each node.

Whatever ends this, the next run goes on: a node that lacks what the others have joins them.
"""

import logging
from collections.abc import Callable, Mapping

from backup_config import Config
from backups.attempt import Attempt
from backups.comparison import Rows
from backups.definitions import Definitions, is_table
from backups.replica_restore import ReplicaElsewhere, ReplicaRestore
from backups.restore import Restored, Wanted, in_the_way, not_made
from backups.shards import check_shards
from backups.standings import Held, OutOfStep, Shard, Standings
from backups.table_restore import check_exchange, put_in_place
from ooni_common.database import StatementFailed, StatementRefused, quoted
from ooni_common.errors import ConfigError, DataRefused, Unavailable
from ooni_common.nodes import Node, Nodes
from ooni_common.replicas import path_of
from schemas.refusals import blamed_on
from tables.inventory import is_replicated
from tables.staging import drop_leftovers, dropped_on_failure, exists

log = logging.getLogger("ooni.db_backup")

# The other tables can be restored.
OF_ONE_TABLE = (DataRefused, OutOfStep, ReplicaElsewhere, StatementFailed, StatementRefused)


def restore_on_cluster(nodes: Nodes, config: Config, wanted: Wanted, restored: Restored) -> None:
    """Restore tables.

    Args:
        nodes: of the cluster, connected to a database that is there in any case.
        config: as ServerBackups has it.
        wanted: what is to be restored.
        restored: is told what has become of the tables.

    Raises:
        ConfigError: there are tables of these names, or the cluster has other shards.
        Unavailable: as restore_tables; a node that fails while another one of its shard goes on
            only counts as absent.
    """
    check_shards(nodes, wanted.manifest)
    _Restore(nodes, config, wanted, restored).run()


class _Restore:
    def __init__(self, nodes: Nodes, config: Config, wanted: Wanted, restored: Restored) -> None:
        self._nodes = nodes
        self._wanted = wanted
        self._standings = Standings(nodes, config, wanted)
        self._absent = set(nodes.absent)  # from the start
        self._started = self._standings.server(nodes.up[0]).clock()
        self._replicas = ReplicaRestore(nodes, wanted, self._standings, self._started)
        self._touched: set[str] = set()  # the tables that were not on all nodes
        self._restored = restored
        self._failed: set[str] = set()  # the tables that were not restored
        self._by_node: dict[str, Definitions] = {}

    def run(self) -> None:
        wanted, nodes = self._wanted, self._nodes
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

    def _try(self, restore: Callable[[str, Held], list[str]], name: str, standings: Held) -> None:
        """Restore one table; one that fails keeps no other from being restored."""
        try:
            with blamed_on(f"{self._wanted.manifest.name}: {name}"):
                self._restored.lines += restore(name, standings)
        except OF_ONE_TABLE as error:
            self._failed.add(name)
            self._restored.add_failure(self._wanted.place(name), error)

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
            raise in_the_way(refused, self._wanted)

    def _restore_table(self, name: str, standings: Held) -> list[str]:
        """Restore a table where it is missing; return lines about that."""
        place = self._wanted.places[name]
        standings = self._standings.settled(name, standings, self._started)
        attempt, lines = Attempt(self._nodes, place), list[str]()
        for shard in self._standings.shards(name, standings).values():
            lines += self._restore_shard(name, shard, attempt)
        attempt.check()
        if len(lines) > 1:
            rows = self._wanted.manifest.tables[name].rows
            return [f"{place}: {rows:,} rows on {len(lines)} shards"]
        return lines

    def _restore_shard(self, name: str, shard: Shard, attempt: Attempt) -> list[str]:
        place, missing = self._wanted.places[name], shard.missing
        self._touched |= {name} if missing else set()
        shard.check_in_step(place)
        if not missing:
            standing = shard.held[shard.good[0]]
            log.info("%s is there already, %s", place, standing.rows.value if standing else "")
            return []
        if not is_replicated(shard.saved.engine):
            done = attempt.each(lambda node: self._plain(name, node), among=missing)
            return list(done.values())[:1]
        return self._replicas.restore(name, shard, attempt)

    def _plain(self, name: str, node: Node) -> str:
        """Restore a table that does not replicate on one node."""
        manifest, place = self._standings.manifest(node.shard), self._wanted.places[name]
        staging = place.staging(self._started)
        with dropped_on_failure(node.database, [staging]):
            self._replicas.fill_beside(node, name, staging)
        return put_in_place(node.database, manifest.tables[name], staging, place, self._started)

    def _define(self, name: str, _: Held) -> list[str]:
        """Make a view, a dictionary, or a table without rows, where it is missing."""
        place, manifest = self._wanted.place(name), self._wanted.manifest
        present = self._nodes.each(lambda node: exists(node.database, place))
        missing = [node for node, is_there in present.items() if not is_there]
        schema = manifest.definitions.get(name, "")
        if not missing or not schema:
            return []
        if is_table(schema) and path_of(schema):
            return self._replicas.make_empty(name, schema, missing)
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
            lines += [self._replicas.attach_rows(name, shard.saved, node) for node in missing]
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
        place, create = self._wanted.places[name], self._replicas.statements.get(name)
        replaced = self._wanted.replace
        if create is None:
            return f"restore {name} once more"
        if target := self._replicas.made.get((node, name)):
            if replaced:
                return f"EXCHANGE TABLES {target} AND {place}"
            return f"RENAME TABLE {target} TO {place}"
        away = f"RENAME TABLE {place} TO {place.kept(self._started)}; " if replaced else ""
        return away + create
