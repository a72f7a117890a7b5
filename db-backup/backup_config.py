"""The configuration of the backup tool, and the policy of each table."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from ooni_common.config import DatabaseConfig, Secret, SecretUrl, check_url

Policy = Literal["public", "private", "both", "none"]
Kind = Literal["", "table", "month", "day", "range"]
Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0)]


class TablePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is done with a table; the keys are explained in db-backup.conf."""

    policy: Policy
    chunk_by: Kind = ""
    column: str = ""
    rows_per_chunk: Annotated[int, Meta(ge=1)] = 100_000_000
    key: tuple[str, ...] = ()
    version: str = ""
    final: bool = False

    @property
    def exported(self) -> bool:
        """Whether it is for the public."""
        return self.policy in ("public", "both")

    @property
    def backed_up(self) -> bool:
        """Whether it has private backups."""
        return self.policy in ("private", "both")


LOW_PRIORITY = 10  # after the queries of those that wait for an answer
# The large tables that everybody has: months, because that is what researchers ask for.
MONTHS_OF = {"fastpath": "measurement_start_time", "jsonl": "date"}


class Config(DatabaseConfig, frozen=True, kw_only=True):
    """The keys of db-backup.conf, where each is explained."""

    state_dir: Path = Path("/var/lib/ooni-db-backup")
    db_uri: SecretUrl = SecretUrl("clickhouse://localhost/default")
    http_url: SecretUrl = SecretUrl("")
    ca_file: Path | None = None
    action: Literal["", "export", "backup"] = ""
    tables: dict[str, TablePolicy | Policy] = msgspec.field(default_factory=dict)
    public_bucket_name: str = ""
    public_prefix: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$")] = (
        "clickhouse_export"
    )
    public_aws_access_key_id: Secret = Secret("")
    public_aws_secret_access_key: Secret = Secret("")
    public_endpoint: str = ""
    public_region: str = ""
    public_storage_class: str = ""
    public_sse: Literal["", "AES256", "aws:kms"] = ""
    public_sse_kms_key_id: str = ""
    public_ca_file: Path | None = None
    compression_level: Annotated[int, Meta(ge=1, le=19)] = 3
    max_running_queries: Annotated[int, Meta(ge=1)] = 20
    max_wait: Seconds = 6 * 3600
    rest: Annotated[float, Meta(ge=0, le=10)] = 0.2
    max_bandwidth: Count = 0
    max_threads: Count = 0
    max_execution_time: Annotated[int, Meta(ge=1)] = 3 * 3600
    read_timeout: Annotated[float, Meta(gt=0)] = 300
    retries: Count = 2
    retry_wait: Seconds = 30
    ver: Literal[0] = 0
    backup_tables: dict[str, Literal["ignore", "full", "incremental", "partition"]] = msgspec.field(
        default_factory=dict
    )

    aliases: ClassVar[Mapping[str, str]] = {"clickhouse_url": "db_uri"}

    def __post_init__(self) -> None:
        """Refuse what can't work together."""
        super().__post_init__()
        if self.http_url.reveal():
            check_url("http_url", self.http_url.reveal(), ("https", "http"))
        if self.public_endpoint:
            check_url("public_endpoint", self.public_endpoint, ("https", "http"))
        key_id, key = self.public_aws_access_key_id, self.public_aws_secret_access_key
        if bool(key_id.reveal()) != bool(key.reveal()):
            raise ValueError(
                "public_aws_secret_access_key: expected with public_aws_access_key_id, or neither"
            )
        for name, policy in self.tables.items():
            if isinstance(policy, TablePolicy):
                _check_chunks(name, policy)

    @property
    def query_settings(self) -> dict[str, int]:
        """The settings of the queries that read whole tables."""
        settings = {"priority": LOW_PRIORITY, "max_execution_time": self.max_execution_time}
        return settings | ({"max_threads": self.max_threads} if self.max_threads else {})

    def policy_of(self, table: str) -> TablePolicy | None:
        """Return what is done with a table: by its name, else by the first pattern that fits.

        None: it is not listed.
        """
        listed = self._listed()
        if table in listed:
            return listed[table]
        return next((each for name, each in listed.items() if fnmatchcase(table, name)), None)

    def _listed(self) -> dict[str, TablePolicy]:
        """Return the policies, in a file of old those that its version of the tool followed.

        That one exported the large tables whatever the file said, and nothing else.
        """
        listed = {name: _with_chunks(name, policy) for name, policy in self.tables.items()}
        if not listed and self.action != "backup":
            listed = {name: _with_chunks(name, "public") for name in MONTHS_OF}
        for name, method in self.backup_tables.items():
            if method == "ignore":
                listed.setdefault(name, TablePolicy(policy="none"))
            elif name not in self.tables:
                known = listed.get(name, TablePolicy(policy="private"))
                policy: Policy = "both" if known.exported else "private"
                listed[name] = msgspec.structs.replace(known, policy=policy)
        return listed


def _with_chunks(name: str, policy: TablePolicy | Policy) -> TablePolicy:
    if not isinstance(policy, TablePolicy):
        policy = TablePolicy(policy=policy)
    if policy.chunk_by or name not in MONTHS_OF:
        return policy
    return msgspec.structs.replace(policy, chunk_by="month", column=MONTHS_OF[name])


def _check_chunks(name: str, policy: TablePolicy) -> None:
    by_time = policy.chunk_by in ("month", "day")
    if by_time and not policy.column:
        raise ValueError(f"tables: {name}: chunk_by = {policy.chunk_by!r} needs a column")
    if policy.column and not by_time:
        raise ValueError(f"tables: {name}: column is for chunk_by = 'month' or 'day'")
