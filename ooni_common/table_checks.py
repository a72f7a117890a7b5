"""What a run that replaces tables needs of the database, on one server or on each node."""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from ooni_common.config import DatabaseConfig
from ooni_common.database_checks import (
    ServerFacts,
    check_clock,
    check_profile,
    check_zone,
    facts_of,
)
from ooni_common.doctor import Check, Note, worst_of
from ooni_common.errors import ConfigError, Unavailable
from ooni_common.grants import Need, check_grants, written
from ooni_common.nodes import Node, Nodes, connected_nodes
from ooni_common.replica_checks import Replica, check_replicas, replicas_of
from ooni_common.swap.agreement import agreement_of, live_standings
from ooni_common.swap.shadow import check_database
from ooni_common.swap.update import Table

REPLACES = ("SELECT", "INSERT", "CREATE TABLE", "DROP TABLE")  # with EXCHANGE TABLES


@dataclass(frozen=True)
class Tables:
    """The tables that a tool uses.

    Attributes:
        replaced: as a whole, by way of their shadows.
        read: name → the columns that are needed of a table that others fill.
    """

    replaced: Sequence[Table]
    read: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def needs(self) -> list[Need]:
        """The privileges on them."""
        names = [name for table in self.replaced for name in (table.name, table.shadow)]
        return [
            *(Need(name, REPLACES) for name in names),
            *(Need(name, ("SELECT",)) for name in self.read),
        ]


def database_checks(config: DatabaseConfig, tables: Tables) -> Iterator[tuple[str, Check]]:
    """Yield the checks of `doctor`: all of a run, absent nodes, and what the tables hold.

    A connection is made by the first one; where that fails, the others have nothing to look at.
    """
    with ExitStack() as stack:
        reached: list[Nodes] = []

        def reach() -> str:
            reached.append(stack.enter_context(connected_nodes(config)))
            return attendance(reached[0], config)

        yield "cluster", reach
        for nodes in reached:
            checks = RunChecks(nodes, tables)
            yield from checks
            if checks.sound:
                yield "rows", functools.partial(check_rows, nodes, tables)


def attendance(nodes: Nodes, config: DatabaseConfig) -> str:
    """Say which nodes are there; a run does without a minority."""
    if not nodes.is_cluster:
        return "not set; one server"
    total = len(nodes.up) + len(nodes.absent)
    count = f"{len(nodes.up)} of {total} nodes of {config.cluster or '`nodes`'}"
    if not nodes.absent:
        return count
    return Note("; ".join([count, *(f"{name}: {why}" for name, why in nodes.absent.items())]))


@dataclass
class RunChecks:
    """The checks that a run makes before it writes: five statements a node, and no row is read.

    Attributes:
        nodes: where the tables are.
        tables: those that it uses.
        clock: this machine's.
        facts: of the nodes that have answered.
        replicas: of the nodes whose tables fit.
        sound: tables and replicas are as they must be, so that their rows can be compared.
    """

    nodes: Nodes
    tables: Tables
    clock: Callable[[], float] = time.time
    facts: dict[Node, ServerFacts] = field(default_factory=dict)
    replicas: dict[Node, list[Replica]] = field(default_factory=dict)
    sound: bool = False

    def __iter__(self) -> Iterator[tuple[str, Check]]:
        """Yield them; those that depend on an answer only where there is one."""
        yield "database", lambda: on_all(self.nodes, self.nodes.up, self._database)
        if not self.facts:
            return
        for name, check in {
            "grants": self._grants,
            "time zone": lambda node: check_zone(self.facts[node]),
            "database, clock": lambda node: check_clock(self.facts[node].clock, self.clock()),
            "tables": self._tables,
        }.items():
            yield name, functools.partial(on_all, self.nodes, list(self.facts), check)
        if self.replicas:
            yield "replicas", self._replicas

    def _database(self, node: Node) -> str:
        self.facts[node] = facts_of(node.database)
        check_database(node)
        return str(self.facts[node])

    def _grants(self, node: Node) -> str:
        check_profile(self.facts[node])
        return check_grants(node.database, self.facts[node].database, self.tables.needs)

    def _tables(self, node: Node) -> str:
        text = check_structure(node, self.tables)
        self.replicas[node] = replicas_of(node, self.tables.replaced)
        return text

    def _replicas(self) -> str:
        text = check_replicas(self.nodes, self.replicas)
        self.sound = True
        return text


def on_all(nodes: Nodes, among: Sequence[Node], check: Callable[[Node], str]) -> str:
    """Make a check on each node; return what was said, once if it is the same everywhere.

    A run goes on without the nodes that fail, as long as a majority is left.

    Raises:
        ConfigError, Unavailable: no majority is left.
    """
    texts: dict[str, list[Node]] = {}
    failures: dict[Node, ConfigError | Unavailable] = {}
    for node in among:
        try:
            texts.setdefault(check(node), []).append(node)
        except (ConfigError, Unavailable) as error:
            failures[node] = error
            texts.setdefault(str(error), []).append(node)
    if failures and not _majority_without(nodes, failures):
        raise worst_of(list(failures.values()))
    if len(texts) == 1:
        return next(iter(texts))
    said = "; ".join(f"{', '.join(map(str, at))}: {text}" for text, at in texts.items())
    noted = failures or any(isinstance(text, Note) for text in texts)
    return Note(said) if noted else said


def _majority_without(nodes: Nodes, failures: Mapping[Node, Exception]) -> bool:
    return all(
        nodes.is_majority(shard, sum(node not in failures for node in nodes.of_shard(shard)))
        for shard in nodes.shards
    )


def check_structure(node: Node, tables: Tables) -> str:
    """Say that the tables have the columns that are needed, or will be made.

    Raises:
        ConfigError: a column is missing, or the database computes it.
    """
    wanted = {table.name: list(table.columns) for table in tables.replaced}
    rows = node.database.query(
        "SELECT table, name, default_kind FROM system.columns"
        " WHERE database = currentDatabase() AND table IN %(tables)s",
        {"tables": (*wanted, *tables.read)},
    )
    columns: dict[str, dict[str, str]] = {}
    for name, column, default in rows:
        columns.setdefault(name, {})[column] = default
    for name, needed in tables.read.items():
        if name not in columns:
            raise ConfigError(f"{name}: no such table; name the database of OONI in db_uri")
        _refuse_missing(name, needed, columns[name])
    for table in tables.replaced:
        if table.name in columns:
            _refuse_unfit(table, columns[table.name])
    missing = [name for name in wanted if name not in columns]
    present = [name for name in (*wanted, *tables.read) if name in columns]
    parts = [f"{', '.join(present)}: as needed"] if present else []
    parts += [f"{', '.join(missing)}: not there yet, a run makes it"] if missing else []
    return "; ".join(parts)


def _refuse_unfit(table: Table, present: Mapping[str, str]) -> None:
    _refuse_missing(table.name, table.columns, present, table.columns)
    for column in table.columns:
        if present[column] in ("MATERIALIZED", "ALIAS"):
            raise ConfigError(
                f"table {table.name}: column {column} is {present[column]}, but a run writes it;"
                f" ALTER TABLE {written(table.name)} MODIFY COLUMN {written(column)} REMOVE"
                f" {present[column]}, see tables.sql"
            )


def _refuse_missing(
    name: str,
    needed: Sequence[str] | Mapping[str, str],
    present: Mapping[str, str],
    types: Mapping[str, str] | None = None,
) -> None:
    missing = [column for column in needed if column not in present]
    if not missing:
        return
    text = f"table {name} has no column {', '.join(missing)}; see tables.sql"
    if types:
        added = ", ".join(f"ADD COLUMN {written(column)} {types[column]}" for column in missing)
        text += f", or ALTER TABLE {written(name)} {added}"
    raise ConfigError(text)


def check_rows(nodes: Nodes, tables: Tables) -> str:
    """Say how many rows the live tables have, and which nodes have others; reads every row.

    Raises:
        ConfigError, Unavailable: as `live_standings`.
    """
    parts: list[str] = []
    noted = False
    for table in tables.replaced:
        standings = live_standings(nodes, table)
        agreement = agreement_of(nodes, standings)
        if not any(standings.values()):
            parts.append(f"{table.name}: none")
        elif agreement is None:
            parts.append(f"{table.name}: no majority has the same; the next run loads them again")
        else:
            parts.append(f"{table.name}: {agreement.content.rows:,}")
            if agreement.odd:
                odd = ", ".join(map(str, agreement.odd))
                parts[-1] += f", but others on {odd}; the next run mends that"
        noted = noted or bool(any(standings.values()) and (agreement is None or agreement.odd))
    text = "; ".join(parts)
    return Note(text) if noted else text
