"""What a run that replaces tables needs of the database, on one server or on each node."""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from ooni_common.config import DatabaseConfig
from ooni_common.database_checks import ServerFacts, check_profile, check_zone, facts_of
from ooni_common.doctor import Check, Note
from ooni_common.errors import ConfigError
from ooni_common.grants import Need, check_grants, written
from ooni_common.node_checks import attendance, check_clocks, on_all
from ooni_common.nodes import Node, Nodes, connected_nodes
from ooni_common.replica_checks import Replica, check_replicas, replicas_of
from ooni_common.swap.agreement import agreement_of, live_standings
from ooni_common.swap.shadow import check_database, check_engine
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


@dataclass
class RunChecks:
    """The checks that a run makes before it writes: six statements a node, and no row is read.

    Attributes:
        nodes: where the tables are.
        tables: those that it uses.
        clock: this machine's.
        facts: of the nodes that have answered.
        ahead: how many seconds this machine was ahead of each when it answered.
        replicas: of the nodes whose tables fit.
        sound: tables and replicas are as they must be, so that their rows can be compared.
    """

    nodes: Nodes
    tables: Tables
    clock: Callable[[], float] = time.time
    facts: dict[Node, ServerFacts] = field(default_factory=dict)
    ahead: dict[Node, float] = field(default_factory=dict)
    replicas: dict[Node, list[Replica]] = field(default_factory=dict)
    sound: bool = False

    def __iter__(self) -> Iterator[tuple[str, Check]]:
        """Yield them; those that depend on an answer only where there is one."""
        yield "database", lambda: on_all(self.nodes, self.nodes.up, self._database)
        if not self.facts:
            return
        answered = list(self.facts)
        yield "grants", lambda: on_all(self.nodes, answered, self._grants)
        yield "time zone", lambda: on_all(self.nodes, answered, self._zone)
        yield "database, clock", lambda: check_clocks(self.nodes, self.ahead)
        yield "tables", lambda: on_all(self.nodes, answered, self._tables)
        if self.replicas:
            yield "replicas", self._replicas

    def _database(self, node: Node) -> str:
        self.facts[node] = facts_of(node.database)
        self.ahead[node] = self.clock() - self.facts[node].clock
        check_database(node)
        return str(self.facts[node])

    def _grants(self, node: Node) -> str:
        check_profile(self.facts[node])
        return check_grants(node.database, self.facts[node].database, self.tables.needs)

    def _zone(self, node: Node) -> str:
        return check_zone(self.facts[node])

    def _tables(self, node: Node) -> str:
        text = check_structure(node, self.tables)
        self.replicas[node] = replicas_of(node, self.tables.replaced)
        return text

    def _replicas(self) -> str:
        text = check_replicas(self.nodes, self.replicas)
        self.sound = True
        return text


def check_structure(node: Node, tables: Tables) -> str:
    """Say that the tables have the columns that are needed, or will be made.

    Raises:
        ConfigError: a column is missing, or the database computes it; or it isn't a table.
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
    engines = node.database.query(
        "SELECT name, engine FROM system.tables"
        " WHERE database = currentDatabase() AND name IN %(names)s",
        {"names": tuple(wanted)},
    )
    for name, engine in engines if wanted else ():
        check_engine(name, engine)
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
    absent = set(nodes.absent)
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
    lost = [f"{name}: {why}" for name, why in nodes.absent.items() if name not in absent]
    text = "; ".join(parts + lost)
    return Note(text) if noted or lost else text
