"""Several databases: what is done with those beside the one of db_uri.

Each is treated as if it had a configuration of its own. Its objects lie below a prefix of its own,
so that two tables of one name never meet, and those of the database of db_uri stay where they are:

    <prefix>/databases/<database>/…     as below <prefix>/

On the command line and in [tables], a name in another database is `database.name`.
"""

import argparse
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from urllib.parse import quote, urlsplit

from backup_config import Config
from ooni_common.config import SecretUrl
from ooni_common.errors import ScriptError, UsageError
from ooni_common.metrics import Metrics
from ooni_common.run import Job
from ooni_common.server_errors import ANOTHER_DATABASE
from tables.policy import TablePolicy, is_name, shipped_policies, with_months

log = logging.getLogger("ooni.db_backup")

# Of all databases together, a gauge is the sum; of these, what the worst of them has.
LEAST = {"backups", "last_verified"}
# Values of --from that mean the same of each database.
OF_EACH = ("", "all", "exports")

Work = Callable[[Job[Config]], Sequence[ScriptError] | None]  # it returns what failed, or raises it


class OtherConfig(Config, frozen=True, kw_only=True):
    """The configuration of another database; of its tables, nothing is public or private unlisted.

    Attributes:
        other: its name.
    """

    other: str = ""

    @property
    def qualifier(self) -> str:
        """What stands before the names of this database's tables."""
        return f"{self.other}."

    def _shipped(self) -> dict[str, TablePolicy]:
        """Return the tool's patterns; its names are those of tables in the database of db_uri."""
        return {name: one for name, one in shipped_policies().items() if not is_name(name)}

    def _listed(self) -> dict[str, TablePolicy]:
        """Return the policies of the listed tables."""
        return {name: with_months(name, policy) for name, policy in self.tables.items()}


def other_configs(config: Config) -> list[OtherConfig]:
    """Return the configuration of each database beside that of db_uri."""
    return [_config_of(config, name) for name in config.databases]


def _config_of(config: Config, name: str) -> OtherConfig:
    keys = {key: getattr(config, key) for key in config.__struct_fields__}
    uri = urlsplit(config.db_uri.reveal())._replace(path=f"/{quote(name, safe='')}").geturl()
    tables = {key: policy for key, policy in config.tables.items() if config.split(key)[0] == name}
    base_url = config.public_base_url.removesuffix("index.html").rstrip("/")
    own = {
        "other": name,
        "db_uri": SecretUrl(uri),
        "databases": [],
        "tables": {config.split(key)[1]: policy for key, policy in tables.items()},
        "backup_tables": {},
        "public_prefix": f"{config.public_prefix}/databases/{name}",
        "public_base_url": f"{base_url}/databases/{name}" if base_url else "",
        "private_prefix": f"{config.private_prefix}/databases/{name}",
    }
    return OtherConfig(**keys | own)


class JointMetrics(Metrics):
    """The metrics of a run over several databases: each gauge has what they are together.

    What only some of them say is not sent of what is the worst of all.
    """

    def __init__(self, metrics: Metrics, databases: int) -> None:
        """Send to `metrics` what so many databases say."""
        self.sent = metrics.sent
        self._sender = metrics
        self._databases = databases
        self._values: dict[str, list[float]] = {}

    def gauge(self, name: str, value: float) -> None:
        """Set a gauge of all databases, as far as they are done."""
        values = self._values.setdefault(name, [])
        values.append(value)
        if name not in LEAST:
            self._sender.gauge(name, sum(values))
        else:
            self._send_least(name)

    def leave_out_one(self) -> None:
        """Expect one database less to say what is the worst of all."""
        self._databases -= 1
        for name in LEAST & self._values.keys():
            self._send_least(name)

    def _send_least(self, name: str) -> None:
        if len(self._values[name]) >= self._databases:
            self._sender.gauge(name, min(self._values[name]))

    def count(self, name: str, value: int = 1) -> None:
        """Add to a counter."""
        self._sender.count(name, value)

    @contextlib.contextmanager
    def timer(self, name: str) -> Iterator[None]:
        """Time the block."""
        with self._sender.timer(name):
            yield


def of_each_database(job: Job[Config]) -> list[Job[Config]]:
    """Return the same job for each database, that of db_uri first."""
    others = other_configs(job.config)
    if not others:
        return [job]
    backed_up = sum(config.backs_up_any for config in (job.config, *others))
    metrics = JointMetrics(job.metrics, max(1, backed_up))
    return [replace(job, config=config, metrics=metrics) for config in (job.config, *others)]


def to_back_up(jobs: Sequence[Job[Config]]) -> Sequence[Job[Config]]:
    """Return those jobs whose database has to have private tables: one does, in any case."""
    if len(jobs) == 1:
        return jobs
    return [one for one in jobs if one.config.backs_up_any] or jobs[:1]


def without_backup(job: Job[Config]) -> None:
    """Let the metrics of all databases do without this one, where no table is private now.

    Of several databases, a pattern needs to match no table of each.
    """
    if isinstance(job.metrics, JointMetrics) and job.config.backs_up_any:
        job.metrics.leave_out_one()


def by_names(job: Job[Config], key: str) -> list[Job[Config]]:
    """Return the job for each database that has one of the names on the command line.

    Args:
        job: of the command.
        key: the argument that has the names. Where it is empty: each database.

    Raises:
        UsageError: one of them cannot be a name.
    """
    names: Sequence[str] = getattr(job.arguments, key)
    split = [split_name(job.config, name) for name in names]

    def own(database: str) -> list[str]:
        return [rest for of, rest in split if of == database]

    return [
        with_arguments(one, **{key: own(name_of_database(one))})
        for one in of_each_database(job)
        if not names or own(name_of_database(one))
    ]


def by_source(jobs: Sequence[Job[Config]], config: Config) -> list[Job[Config]]:
    """Return those of some jobs whose database has the backup that --from names.

    A name without a database is one of the only database that is asked for, else of that of db_uri.

    Raises:
        UsageError: none has it, or it cannot be a name.
    """
    source: str = jobs[0].arguments.source
    if source in OF_EACH:
        return list(jobs)
    database, name = split_name(config, source)
    if not database and len(jobs) == 1:
        return list(jobs)
    chosen = [with_arguments(one, source=name) for one in jobs if name_of_database(one) == database]
    if not chosen:
        raise UsageError(f"--from {source}: the database of these tables has no such backup")
    return chosen


def of_table(job: Job[Config]) -> Job[Config]:
    """Return the job for the database of the one table on the command line.

    Raises:
        UsageError: it has no name.
    """
    database, table = split_name(job.config, job.arguments.table)
    one = next(one for one in of_each_database(job) if name_of_database(one) == database)
    return with_arguments(one, table=table)


def split_name(config: Config, name: str) -> tuple[str, str]:
    """Return the database and the rest of a name on the command line; "" for that of db_uri.

    Raises:
        UsageError: it ends there, which must never mean all that the database has.
    """
    database, rest = config.split(name)
    if not rest:
        whose = f"of the database {database} " if database else ""
        raise UsageError(f"{name!r}: the name of a table or backup {whose}is missing")
    return database, rest


def with_arguments(job: Job[Config], **arguments: object) -> Job[Config]:
    """Return a job with other arguments."""
    return replace(job, arguments=argparse.Namespace(**vars(job.arguments) | arguments))


def each_in_turn(jobs: Sequence[Job[Config]], work: Work) -> None:
    """Do a work for each database; one that fails keeps no other from being done.

    Raises:
        ScriptError: the first failure; the others are logged.
    """
    raise_first(failures_in(jobs, work))


def failures_in(jobs: Sequence[Job[Config]], work: Work) -> list[ScriptError]:
    """Do a work for each database; return what has failed."""
    failures: list[ScriptError] = []
    for job in jobs:
        if job.config.qualifier:
            log.info("database %s", name_of_database(job))
        try:
            failed = work(job) or ()
        except ScriptError as error:
            failed = (error,)
        failures += [of_database(job.config, error) for error in failed]
    return failures


def raise_first(failures: Sequence[ScriptError]) -> None:
    """Raise the first failure, if there is one; log the others."""
    for failure in failures[1:]:
        log.error("%s", failure)
    if failures:
        raise failures[0]


def of_database(config: Config, error: ScriptError) -> ScriptError:
    """Return a failure whose message says of which database it is."""
    if config.qualifier:
        advise(error)
        error.args = (f"database {config.qualifier[:-1]}: {error}", *error.args[1:])
    return error


def advise(error: ScriptError) -> None:
    """Let a failure name the key that has the databases beside that of db_uri."""
    message = str(error).replace(ANOTHER_DATABASE, "correct its name in databases")
    error.args = (message, *error.args[1:])


def name_of_database(job: Job[Config]) -> str:
    """Return the name of a job's database; "" for that of db_uri."""
    return job.config.qualifier.removesuffix(".")
