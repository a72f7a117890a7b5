"""What exports and backups cost at the size of production, and at ten times that: docs/scale.md.

    python -m dev.scale            print the tables
    python -m dev.scale --write    put them in the page

They are a model: costs that were measured on a small table, times rows. Prices, and all else that
another place has otherwise, are in dev/scale.toml.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
INPUTS = Path(__file__).with_suffix(".toml")
BEGIN, END = "<!-- tables of dev/scale.py -->\n", "<!-- end of the tables -->\n"
WEEKS_OF_MONTH, WEEKS_OF_YEAR, DAYS_OF_MONTH = 52 / 12, 52, 30
GB, LISTED = 1e9, 1000
MIB = 1024 * 1024
SMALLEST_PART, LARGEST_PART, MOST_PARTS, SPARE = 8 * MIB, 48 * MIB, 10_000, 5 / 4


class Cost(msgspec.Struct, frozen=True):
    """Of a row: microseconds of processors. Of a command: MiB of memory."""

    tool: float
    server: float
    memory: float


class Costs(msgspec.Struct, frozen=True):
    """What was measured; sizes are bytes of a row."""

    uncompressed: float
    on_disk: float
    key: float
    exported: float
    saved: float
    export: Cost
    verify: Cost
    restore: Cost
    backup: Cost
    restore_backup: Cost


class Table(msgspec.Struct, frozen=True):
    """A table, and how it grows."""

    rows: int
    months: int
    rows_a_week: int
    replicas: int


class Hosts(msgspec.Struct, frozen=True):
    """Cores of tool and server, bytes a second, and seconds of a request."""

    cores: int
    server_cores: int
    bandwidth: float
    delay: float


class Backups(msgspec.Struct, frozen=True):
    """How many weeks a chain of backups has, and how many chains are kept."""

    weeks: int
    chains: int


class StorageClass(msgspec.Struct, frozen=True):
    """Prices: of a GB a month, of 1,000 requests, of a GB read; and the least days."""

    name: str
    month: float
    writes: float
    reads: float
    retrieval: float
    days: int


class Tool(msgspec.Struct, frozen=True):
    """What a tool takes at most."""

    name: str
    memory: str
    disk: str


class Inputs(msgspec.Struct, frozen=True):
    """All that the model needs."""

    costs: Costs
    table: Table
    hosts: Hosts
    backups: Backups
    classes: list[StorageClass]
    tools: list[Tool]


@dataclass(frozen=True)
class Work:
    """A run: rows, bytes that the server reads and that go over the network, requests, seconds."""

    rows: float
    read: float
    sent: float
    requests: float
    seconds: float


def work(inputs: Inputs, rows: float, chunks: float, name: str) -> Work:
    """Return what a command costs for so many rows in so many objects."""
    costs, hosts = inputs.costs, inputs.hosts
    cost: Cost = getattr(costs, name)
    size = costs.saved if "backup" in name else costs.exported
    sent = rows * size
    sending = parts(sent / chunks)
    requests = chunks * (3 + sending if sending else 2)
    seconds = max(
        rows * cost.tool / 1e6 / hosts.cores,
        rows * cost.server / 1e6 / hosts.server_cores,
        sent / hosts.bandwidth,
        requests * hosts.delay / (4 * hosts.cores),
    )
    read = sent if name in ("verify", "restore", "restore_backup") else rows * costs.uncompressed
    return Work(rows, read, sent, requests, seconds)


def parts(size: float) -> int:
    """Return how many requests send an object beside the one that completes it (uploads.py)."""
    needed = math.ceil(size * SPARE / MOST_PARTS / MIB) * MIB
    part = min(max(needed, SMALLEST_PART), LARGEST_PART)
    return math.ceil(size / part) if size > part else 0


def page_of(inputs: Inputs) -> str:
    """Return the tables, for the size that is given and for ten times that."""
    sizes = [inputs, msgspec.structs.replace(inputs, table=grown(inputs.table, 10))]
    lines = [line for table in (runs, storage, recovery) for line in (*table(sizes), "")]
    return "\n".join([*lines, *tools(inputs), ""])


def grown(table: Table, times: int) -> Table:
    """Return a table with so many times the rows, which also grows as many times as fast."""
    return msgspec.structs.replace(
        table, rows=table.rows * times, rows_a_week=table.rows_a_week * times
    )


def weekly_rows(table: Table) -> float:
    """Return the rows of the chunk that grows, in the middle of its month."""
    return table.rows_a_week * WEEKS_OF_MONTH / 2


def runs(sizes: Sequence[Inputs]) -> Iterator[str]:
    """Yield what each command costs."""
    yield "| command | rows | read | to or from the store | requests | time |"
    yield "|---|---|---|---|---|---|"
    for inputs in sizes:
        table = inputs.table
        week = weekly_rows(table)
        listing = 10 + table.months // LISTED
        yield row("export, all of it", work(inputs, table.rows, table.months, "export"))
        yield row("export, each week", work(inputs, week, 1, "export"))
        yield row("export, nothing new", Work(0, 0, 0, listing, listing * inputs.hosts.delay))
        yield row("verify of the exports", work(inputs, table.rows, table.months, "verify"))
        yield row("backup, full", work(inputs, table.rows, table.months, "backup"))
        yield row("backup, each week", work(inputs, table.rows_a_week, 1, "backup"))
        yield row("restore of a backup", work(inputs, table.rows, table.months, "restore_backup"))
        yield row("restore of the exports", work(inputs, table.rows, table.months, "restore"))


def row(name: str, run: Work) -> str:
    """Return a line of the table of commands."""
    return (
        f"| {name} | {millions(run.rows)} | {size_of(run.read)} | {size_of(run.sent)}"
        f" | {run.requests:,.0f} | {time_of(run.seconds)} |"
    )


def storage(sizes: Sequence[Inputs]) -> Iterator[str]:
    """Yield what is kept and what it costs a month, by storage class."""
    yield "| rows | class | exports | kept backups | early deletion | dollars a month |"
    yield "|---|---|---|---|---|---|"
    for inputs in sizes:
        table, costs = inputs.table, inputs.costs
        exported = table.rows * costs.exported / GB
        kept = (
            inputs.backups.chains
            * (table.rows + inputs.backups.weeks * table.rows_a_week)
            * costs.saved
            / GB
        )
        replaced = WEEKS_OF_MONTH * weekly_rows(table) * costs.exported / GB
        writes = WEEKS_OF_MONTH * (
            work(inputs, weekly_rows(table), 1, "export").requests
            + work(inputs, table.rows_a_week, 1, "backup").requests
        )
        for kind in inputs.classes:
            early = replaced * max(kind.days - 7, 0) / DAYS_OF_MONTH
            dollars = (exported + kept + early) * kind.month + writes / 1000 * kind.writes
            yield (
                f"| {millions(table.rows)} | {kind.name} | {exported:,.0f} GB | {kept:,.0f} GB"
                f" | {early:,.1f} GB-months | {dollars:,.0f} |"
            )


def recovery(sizes: Sequence[Inputs]) -> Iterator[str]:
    """Yield how long a loss takes to be mended, and what it takes away."""
    yield "| rows | RPO | RTO from a backup | RTO from the exports | disk of each replica |"
    yield "|---|---|---|---|---|"
    for inputs in sizes:
        table = inputs.table
        run = work(inputs, table.rows_a_week, 1, "backup")
        backup, export = (
            work(inputs, table.rows, table.months, name) for name in ("restore_backup", "restore")
        )
        yield (
            f"| {millions(table.rows)} | 7 days and {time_of(run.seconds)}"
            f" | {time_of(backup.seconds)} | {time_of(export.seconds)}"
            f" | {size_of(table.rows * inputs.costs.on_disk)} |"
        )


def tools(inputs: Inputs) -> Iterator[str]:
    """Yield what each tool takes."""
    yield "| tool | memory, MiB | disk |"
    yield "|---|---|---|"
    yield from (f"| {tool.name} | {tool.memory} | {tool.disk} |" for tool in inputs.tools)


def millions(rows: float) -> str:
    """Return a number of rows for people."""
    return f"{rows / 1e6:,.0f} M"


def size_of(size: float) -> str:
    """Return a number of bytes for people."""
    return f"{size / GB:,.1f} GB" if size < 1e12 else f"{size / 1e12:,.2f} TB"


def time_of(seconds: float) -> str:
    """Return a time for people."""
    if seconds < 120:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def written(page: str, tables: str) -> str:
    """Return a page with these tables."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{tables}\n{END}{rest.partition(END)[2]}"


def read_inputs(text: str) -> Inputs:
    """Return what a text in TOML gives."""
    return msgspec.toml.decode(text, type=Inputs)


def main() -> None:
    """Print the tables, or put them in the page."""
    tables = page_of(read_inputs(INPUTS.read_text()))
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(written(PAGE.read_text(), tables))
    else:
        print(tables)


if __name__ == "__main__":
    main()
