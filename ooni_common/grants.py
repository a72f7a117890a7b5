"""What a user of the database may do, read from SHOW GRANTS: nothing is tried, nothing written.

CHECK GRANT would be shorter, but 24.8 lacks it, and the first versions that have it deny what is
granted on a table that is not there yet.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ooni_common.database import Database, quoted
from ooni_common.doctor import Note
from ooni_common.errors import ConfigError, Unavailable

# A grant of any of these is one of the privilege, too.
IMPLIED_BY: Mapping[str, Sequence[str]] = {
    "SELECT": ("SELECT", "ALL"),
    "INSERT": ("INSERT", "ALL"),
    "CREATE TABLE": ("CREATE TABLE", "CREATE", "ALL"),
    "DROP TABLE": ("DROP TABLE", "DROP", "ALL"),
    "BACKUP": ("BACKUP", "ALL"),
}
_NAME = r"(?:`(?:[^`\\]|\\.)*`\*?|[\w*]+)"
_ON_TABLES = re.compile(rf"(GRANT|REVOKE) (.+) ON ({_NAME})\.({_NAME}) (?:TO|FROM) .*")
# Of table engines, named collections, …, and of a kind of source with a pattern of addresses.
_ON_NO_TABLE = re.compile(rf"(?:GRANT|REVOKE) .+ ON (?:{_NAME}|\w+\('.*'\)) (?:TO|FROM) .*")
_ROLES = re.compile(r"GRANT (?!.* ON )(.+) TO .*")
_PRIVILEGE = re.compile(r"\s*([A-Za-z_ ]+?)\s*(\([^)]*\))?\s*(?:,|$)")
_PLAIN = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Need:
    """The privileges that statements need on one table of the database."""

    table: str
    privileges: tuple[str, ...]


@dataclass(frozen=True)
class Grant:
    """A line of SHOW GRANTS.

    Attributes:
        privileges: name → whether it is for the whole table, and not for some columns.
        database: its name, or the start of names with `*` behind it.
        table: likewise.
        revoked: it takes away what a wider line gives.
    """

    privileges: Mapping[str, bool]
    database: str
    table: str
    revoked: bool

    def specificity(self, database: str, table: str) -> int:
        """Return how closely it describes a table; 0, if it is about others."""
        of_database, of_table = _closeness(self.database, database), _closeness(self.table, table)
        return of_database * 1000 + of_table if of_database and of_table else 0


def _closeness(pattern: str, name: str) -> int:
    if pattern == name:
        return 999
    if pattern.endswith("*") and name.startswith(pattern[:-1]):
        return len(pattern)
    return 0


@dataclass(frozen=True)
class Rights:
    """What SHOW GRANTS says of a user or of a role.

    Attributes:
        grants: on tables.
        roles: that it has.
        unread: lines of a form that is not expected.
    """

    grants: Sequence[Grant]
    roles: Sequence[str]
    unread: Sequence[str]

    def allows(self, privilege: str, database: str, table: str) -> bool | None:
        """Tell whether it has a privilege; None: for some columns of the table only."""
        close, whole, granted = 0, True, False
        for grant in self.grants:
            names = [name for name in IMPLIED_BY[privilege] if name in grant.privileges]
            specificity = grant.specificity(database, table)
            if not names or not specificity or specificity < close:
                continue
            if specificity > close:
                close, whole, granted = specificity, True, not grant.revoked
            granted = granted and not grant.revoked
            whole = whole and all(grant.privileges[name] for name in names)
        return granted if whole else None


def rights_of(lines: Sequence[str]) -> Rights:
    """Read the lines of SHOW GRANTS."""
    grants, roles, unread = [], [], []
    for line in lines:
        if line.startswith("REVOKE GRANT OPTION FOR "):  # the right itself stays
            continue
        if match := _ON_TABLES.fullmatch(line):
            privileges = {name: not columns for name, columns in _PRIVILEGE.findall(match[2])}
            database, table = map(_unquoted, (match[3], match[4]))
            grants.append(Grant(privileges, database, table, match[1] == "REVOKE"))
        elif match := _ROLES.fullmatch(line):
            roles += [_unquoted(name) for name in re.findall(_NAME, match[1])]
        elif not _ON_NO_TABLE.fullmatch(line):
            unread.append(line)
    return Rights(grants, roles, unread)


def _unquoted(name: str) -> str:
    if not name.startswith("`"):
        return name
    quoted_part, _, star = name[1:].rpartition("`")
    return re.sub(r"\\(.)", r"\1", quoted_part) + star


def check_grants(database: Database, name: str, needs: Sequence[Need]) -> str:
    """Say that the user has what is needed.

    Args:
        database: the connection.
        name: of the database.
        needs: by table.

    Raises:
        ConfigError: something is missing; with the statements that grant it.
    """
    missing, sure = list(needs), True
    for rights in _all_rights(database):
        missing, whole = _without(missing, rights, name)
        sure = sure and whole and not rights.unread
        if not missing:
            break
    if not missing and sure:
        return _described(needs)
    if not missing:
        return Note("some are for single columns only, or unreadable in SHOW GRANTS")
    statements = _statements(database, name, missing)
    if not sure:
        return Note(f"SHOW GRANTS does not tell whether these are missing: {statements}")
    raise ConfigError(f"the user of db_uri lacks privileges; run: {statements}")


def _without(needs: Sequence[Need], rights: Rights, name: str) -> tuple[list[Need], bool]:
    """Return what is needed beside some rights, and whether these are for whole tables."""
    missing, whole = [], True
    for need in needs:
        verdicts = {
            privilege: rights.allows(privilege, name, need.table) for privilege in need.privileges
        }
        whole = whole and None not in verdicts.values()
        lacking = tuple(privilege for privilege, verdict in verdicts.items() if verdict is False)
        missing += [Need(need.table, lacking)] if lacking else []
    return missing, whole


def _all_rights(database: Database) -> Iterator[Rights]:
    """Yield what the user has, and then what each of its roles has."""
    own = rights_of([line for (line,) in database.query("SHOW GRANTS")])
    yield own
    waiting, seen = list(own.roles), set()
    while waiting:
        role = waiting.pop()
        if role in seen:
            continue
        seen.add(role)
        try:
            lines = database.query(f"SHOW GRANTS FOR {quoted(role)}")
        except (ConfigError, Unavailable):  # it may not look
            yield Rights((), (), [role])
            continue
        rights = rights_of([line for (line,) in lines])
        yield rights
        waiting += rights.roles


def _described(needs: Sequence[Need]) -> str:
    tables: dict[Sequence[str], list[str]] = {}
    for need in needs:
        tables.setdefault(need.privileges, []).append(need.table)
    parts = [
        f"{', '.join(privileges)} on {f'{len(of)} tables' if len(of) > 1 else of[0]}"
        for privileges, of in tables.items()
    ]
    return "; ".join(parts) or "none are needed"


def _statements(database: Database, name: str, missing: Sequence[Need]) -> str:
    ((user,),) = database.query("SELECT currentUser()")
    return "; ".join(
        f"GRANT {', '.join(need.privileges)} ON {written(name)}.{written(need.table)}"
        f" TO {written(user)}"
        for need in missing
    )


def written(name: str) -> str:
    """Return an identifier as a person would write it."""
    return name if _PLAIN.fullmatch(name) else quoted(name)
