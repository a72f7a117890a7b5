"""What a run needs of a server: its version, a profile that may write, clock and time zone."""

from dataclasses import dataclass

from ooni_common.database import Database
from ooni_common.doctor import Note
from ooni_common.errors import ConfigError

MOST_SKEW = 60  # seconds; S3 refuses requests whose clock is 15 minutes wrong
MOST_WRONG = 3600  # seconds; the hours and months of a run are told by this machine's clock
FACTS = (
    "SELECT version(), currentDatabase(), timezone(), serverTimezone(), toFloat64(now64(3)),"
    " getSetting('readonly'), getSetting('allow_ddl')"
)


@dataclass(frozen=True)
class ServerFacts:
    """What a server says of itself and of the session.

    Attributes:
        version: of the server.
        database: the current one.
        session_zone: the time zone of the session.
        server_zone: the server's own.
        clock: its time, in Unix seconds.
        readonly: the setting of this name.
        allow_ddl: the setting of this name.
    """

    version: str
    database: str
    session_zone: str
    server_zone: str
    clock: float
    readonly: int
    allow_ddl: bool

    def __str__(self) -> str:
        return f"ClickHouse {self.version}, database {self.database}"


def facts_of(database: Database) -> ServerFacts:
    """Ask a server for its facts, with one statement.

    Raises:
        ConfigError: it is too old, or does not let the user in.
        Unavailable: it does not answer.
    """
    ((version, name, session_zone, server_zone, clock, readonly, allow_ddl),) = database.query(
        FACTS
    )
    return ServerFacts(
        version, name, session_zone, server_zone, clock, int(readonly), bool(int(allow_ddl))
    )


def check_profile(facts: ServerFacts) -> str:
    """Say that the settings profile of the user lets it write.

    Raises:
        ConfigError: it does not.
    """
    if facts.readonly:
        raise ConfigError(
            f"the user of db_uri has readonly = {facts.readonly} and cannot write; give the user of"
            " db_uri a settings profile with readonly = 0"
        )
    if not facts.allow_ddl:
        raise ConfigError(
            "the user of db_uri has allow_ddl = 0 and can make no table; give the user of db_uri a"
            " profile with allow_ddl = 1"
        )
    return "readonly = 0, allow_ddl = 1"


def check_zone(facts: ServerFacts) -> str:
    """Say which time zone the server has; the sessions are in UTC.

    Raises:
        ConfigError: they are not.
    """
    if facts.session_zone != "UTC":
        raise ConfigError(
            f"the session is in {facts.session_zone} and not in UTC; let the settings profile of"
            " the user of db_uri set session_timezone"
        )
    return f"the server has {facts.server_zone}; sessions are in UTC"


def check_clock(
    theirs: float, ours: float, clock: str = "the database's clock", most: float = MOST_WRONG
) -> str:
    """Compare a server's clock with this machine's, in Unix seconds.

    Args:
        theirs: the time there.
        ours: here.
        clock: what it is called.
        most: seconds that a run can bear; of a database, more make it take other hours for over.

    Raises:
        ConfigError: they differ by more.
    """
    seconds = round(ours - theirs)
    if is_near(seconds):
        return f"{abs(seconds)} s from this machine's"
    direction = "ahead of" if seconds > 0 else "behind"
    text = f"this machine is {abs(seconds)} s {direction} {clock}; check its NTP"
    if abs(seconds) > most:
        raise ConfigError(text)
    return Note(text)


def is_near(seconds: float) -> bool:
    """Tell whether two clocks that differ so much are as good as one."""
    return abs(round(seconds)) <= MOST_SKEW
