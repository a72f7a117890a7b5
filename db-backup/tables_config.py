"""The keys of db-backup.conf that say which tables there are, and what is done with each."""

from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Meta

from ooni_common.config import SecretUrl, Section
from ooni_common.config_text import DEFAULT
from portal.pages_config import PagesConfig
from tables.policy import (
    MONTHS_OF,
    Format,
    Policy,
    TablePolicy,
    check_policies,
    is_name,
    policy_among,
    shipped_policies,
    with_months,
)

DatabaseName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]+\Z")]  # it is in the keys of objects


class TablesConfig(PagesConfig, frozen=True, kw_only=True):
    """The keys that say what is done with which table; each is explained in db-backup.conf."""

    db_uri: SecretUrl = SecretUrl("clickhouse://localhost/default")
    action: Literal["", "export", "backup"] = ""
    databases: list[DatabaseName] = msgspec.field(default_factory=list)
    tables: dict[str, TablePolicy | Policy] = msgspec.field(default_factory=dict)
    formats: tuple[Format, ...] = ("csv.zstd",)
    backup_tables: dict[str, Literal["ignore", "full", "incremental", "partition"]] = msgspec.field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        """Refuse what can't work together."""
        super().__post_init__()
        check_policies(self.tables, self.formats)
        self._check_databases()

    def _check_databases(self) -> None:
        """Refuse other databases that are none, and tables with a name that none has."""
        if self.database in self.databases:
            raise ValueError(f"databases: {self.database!r} is that of db_uri; list the others")
        if len(set(self.databases)) < len(self.databases):
            raise ValueError("databases: one of them is there twice")
        for name in self.tables if self.databases else ():
            if name.startswith(f"{self.database}."):
                raise ValueError(
                    f"tables: {name!r}: {self.database!r} is the database of db_uri; its tables are"
                    " listed without it"
                )

    @property
    def database(self) -> str:
        """The name of the database of db_uri."""
        return unquote(urlsplit(self.db_uri.reveal()).path.strip("/")) or "default"

    @property
    def qualifier(self) -> str:
        """What stands before the names of this database's tables; "" for that of db_uri."""
        return ""

    def listed(self, names: Iterable[str]) -> str:
        """Return the names of tables for a message, as the file has them."""
        return ", ".join(repr(self.qualifier + name) for name in names)

    @property
    def public_databases(self) -> tuple[str, ...]:
        """The other databases of which something is public, in their order in the file."""
        public = {
            self.split(name)[0]
            for name, policy in self.tables.items()
            if with_months("", policy).exported
        }
        return tuple(name for name in self.databases if name in public)

    def split(self, name: str) -> tuple[str, str]:
        """Return the database and the rest of a name; "" and the name, for that of db_uri."""
        database, dot, rest = name.partition(".")
        return (database, rest) if dot and database in self.databases else ("", name)

    @property
    def named_tables(self) -> list[str]:
        """The tables that the file names, without the patterns."""
        return [name for name in self._listed() if is_name(name)]

    @property
    def exports_any(self) -> bool:
        """Whether there is anything for the public."""
        return self.action != "backup" and any(one.exported for one in self._listed().values())

    @property
    def backs_up_any(self) -> bool:
        """Whether the file has anything to be backed up."""
        return self.action != "export" and any(one.backed_up for one in self._listed().values())

    def missing(self, existing: Collection[str]) -> list[str]:
        """Return the tables that the file names to be kept, and that are not there."""
        return [
            name
            for name in [*self.own_tables, *self.backup_tables]
            if is_name(name)
            and name not in existing
            and (policy := self.policy_of(name))
            and (policy.exported or policy.backed_up)
        ]

    def policy_of(self, table: str) -> TablePolicy | None:
        """Return what is done with a table: by its name, else by the first pattern that fits.

        What the file says goes before what the tool ships. None: neither says anything. What a
        restore has left fits no pattern: it has the rows of another table, which may be private.
        """
        if (policy := policy_among(self._listed(), table)) is not None:
            return policy
        return policy_among(self._shipped(), table)

    def unlisted(self, existing: Iterable[str]) -> list[str]:
        """Return the tables of which the file does not say what is done, or says they are gone."""
        policies = {name: self.policy_of(name) for name in existing}
        return [
            name for name, policy in policies.items() if policy is None or policy.policy == "gone"
        ]

    def is_gone(self, table: str) -> bool:
        """Tell whether somebody has said that a table is not there any more."""
        policy = self.policy_of(table)
        return policy is not None and policy.policy == "gone"

    def keeps_last(self, table: str) -> bool:
        """Tell whether the last backup of a table stays, whatever its age."""
        policy = self.policy_of(table)
        return policy is None or policy.keeps_last

    def is_backed_up(self, table: str) -> bool:
        """Tell whether a table has backups."""
        policy = self.policy_of(table)
        return policy is not None and policy.backed_up

    def is_exported(self, table: str) -> bool:
        """Tell whether a table is for the public."""
        policy = self.policy_of(table)
        return policy is not None and policy.exported

    def sections(self, sources: Mapping[str, str]) -> dict[str, Section]:
        """Return what is done with each table, the tool's own rules among them."""
        return {
            "tables": self.explained(sources.get("tables") or sources.get("backup_tables", DEFAULT))
        }

    def explained(self, source: str) -> dict[str, tuple[TablePolicy, str]]:
        """Return the policy of each name and pattern, and whether it is the file's or the tool's.

        Args:
            source: of the file's.
        """
        everything = self._listed() | {
            name: with_months(self.split(name)[1], policy) for name, policy in self.tables.items()
        }
        listed = {name: (policy, source) for name, policy in everything.items()}
        ours = {name: (policy, DEFAULT) for name, policy in self._shipped().items()}
        return listed | {name: pair for name, pair in ours.items() if name not in listed}

    @property
    def own_tables(self) -> dict[str, TablePolicy | Policy]:
        """What the file says of this database's tables."""
        return {name: policy for name, policy in self.tables.items() if not self.split(name)[0]}

    def _shipped(self) -> dict[str, TablePolicy]:
        """Return what the tool says of the tables that the file does not list."""
        return shipped_policies()

    def _listed(self) -> dict[str, TablePolicy]:
        """Return every listed table's policy. For a version-0 file, do what that version did.

        It exported the large tables whatever the file said, and nothing else.
        """
        listed = {name: with_months(name, policy) for name, policy in self.own_tables.items()}
        if not self.tables and self.action != "backup":
            listed = {name: with_months(name, "public") for name in MONTHS_OF}
        for name, how in self.backup_tables.items():
            if how == "ignore":
                listed.setdefault(name, TablePolicy(policy="none"))
            elif name not in self.tables:
                policy = listed.get(name, TablePolicy(policy="private"))
                listed[name] = msgspec.structs.replace(
                    policy,
                    policy="both" if policy.exported else "private",
                    method="full" if how == "full" else "incremental",
                )
        return listed
