"""What is done with a table: the policy of each, and those that the tool ships."""

from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tables.staging import is_of_a_restore

Policy = Literal["public", "private", "both", "none", "gone"]
ChunkBy = Literal["", "table", "month", "day", "range"]
Method = Literal["incremental", "full"]
Format = Literal["csv.zstd", "parquet"]


class TablePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is done with a table; the keys are explained in db-backup.conf."""

    policy: Policy
    chunk_by: ChunkBy = ""
    column: str = ""
    rows_per_chunk: Annotated[int, Meta(ge=1)] = 100_000_000
    key: tuple[str, ...] = ()
    version: str = ""
    final: bool = False
    method: Method = "incremental"
    checksum: bool = True
    formats: tuple[Format, ...] = ()
    binary_columns: tuple[str, ...] = ()

    @property
    def exported(self) -> bool:
        """Whether it is for the public."""
        return self.policy in ("public", "both")

    @property
    def backed_up(self) -> bool:
        """Whether it has private backups."""
        return self.policy in ("private", "both")

    @property
    def keeps_last(self) -> bool:
        """Whether what was saved last of it stays, if the database has it no more."""
        return self.policy != "none"


# The large tables that everybody has: months, because that is what researchers ask for.
MONTHS_OF = {"fastpath": "measurement_start_time", "jsonl": "date"}
# What the file does not say. The tables of these tools can be rebuilt from their upstreams, or from
# fastpath; of copies, the originals are saved. Nothing of a site's own is in here.
SHIPPED: Mapping[str, Policy] = {
    "fastpath": "public",
    "jsonl": "public",
    "citizenlab": "none",
    "fingerprints_dns": "none",
    "fingerprints_http": "none",
    "asnmeta": "none",
    "blocking_status": "none",
    "blocking_events": "none",
    "*_tmp": "none",
    "*_flip": "none",
    "*_restored": "none",
    "*_replaced_*": "none",
}


def shipped_policies() -> dict[str, TablePolicy]:
    """Return what the tool ships, by name and pattern."""
    return {name: with_months(name, policy) for name, policy in SHIPPED.items()}


def policy_among(listed: Mapping[str, TablePolicy], table: str) -> TablePolicy | None:
    """Return the policy of a table, by its name, else by the first pattern that fits."""
    if table in listed:
        return listed[table]
    if is_of_a_restore(table):
        return TablePolicy(policy="none")
    return next((policy for name, policy in listed.items() if fnmatchcase(table, name)), None)


def is_name(pattern: str) -> bool:
    """Tell whether a key of the table policy is a name, and not a pattern."""
    return not any(character in pattern for character in "*?[")


def with_months(name: str, policy: TablePolicy | Policy) -> TablePolicy:
    """Return a policy; that of a large table which everybody has gets chunks by month."""
    if not isinstance(policy, TablePolicy):
        policy = TablePolicy(policy=policy)
    if policy.chunk_by or name not in MONTHS_OF:
        return policy
    return msgspec.structs.replace(policy, chunk_by="month", column=MONTHS_OF[name])


def has_parquet(policy: TablePolicy, formats: Collection[Format]) -> bool:
    """Tell whether chunks are Parquet objects, too; `formats` are those of all tables."""
    return "parquet" in (policy.formats or formats)


def check_policies(tables: Mapping[str, TablePolicy | Policy], formats: Collection[Format]) -> None:
    """Raise ValueError unless what is said of tables can be done."""
    _check_formats("formats", formats)
    for name, policy in tables.items():
        if isinstance(policy, TablePolicy):
            _check_policy(name, policy)


def _check_formats(where: str, formats: Collection[Format]) -> None:
    if "csv.zstd" not in formats:
        raise ValueError(f"{where}: expected 'csv.zstd' among them, which restores read")


def _check_policy(name: str, policy: TablePolicy) -> None:
    if policy.formats:
        _check_formats(f"tables: {name}: formats", policy.formats)
    by_time = policy.chunk_by in ("month", "day")
    if by_time and not policy.column:
        raise ValueError(f"tables: {name}: chunk_by = {policy.chunk_by!r} needs a column")
    if policy.column and not by_time:
        raise ValueError(f"tables: {name}: column is for chunk_by = 'month' or 'day'")
