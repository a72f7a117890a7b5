"""The configuration of the backup tool, and what it says of each table."""

import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast, get_args

import msgspec
from msgspec import Meta

from ooni_common.config import MOST_SECONDS, Count, Seconds, Secret, SecretUrl, check_url
from ooni_common.database_uri import with_login
from ooni_common.errors import ConfigError
from ooni_common.suggestions import did_you_mean
from ooni_common.tls import load_certificates
from parallel import MOST_JOBS
from store.client import Addressing, Store
from tables_config import TablesConfig

Side = Literal["public", "private"]
Sse = Literal["", "AES256", "aws:kms"]
Period = Literal["daily", "weekly", "monthly", "yearly"]
LOW_PRIORITY = 10  # after the queries of those that wait for an answer
MOST_DAYS = 36_500
SHORTEST_KEY = 32  # characters
Days = Annotated[float, Meta(ge=0, le=MOST_DAYS)]
Wait = Annotated[float, Meta(ge=0, le=MOST_SECONDS)]
BUCKET_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}|arn:\S+")  # as boto3 takes them
Prefix = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$")]


class Config(TablesConfig, frozen=True, kw_only=True):
    """The keys of db-backup.conf, where each is explained."""

    state_dir: Path = Path("/var/lib/ooni-db-backup")
    http_url: SecretUrl = SecretUrl("")
    ca_file: Path | None = None
    public_bucket_name: str = ""
    public_prefix: Prefix = "clickhouse_export"
    public_aws_access_key_id: Secret = Secret("")
    public_aws_secret_access_key: Secret = Secret("")
    public_aws_session_token: Secret = Secret("")
    public_endpoint: str = ""
    public_region: str = ""
    public_addressing: Addressing = ""
    public_storage_class: str = ""
    public_sse: Sse = ""
    public_sse_kms_key_id: str = ""
    public_ca_file: Path | None = None
    private_bucket_name: str = ""
    private_prefix: Prefix = "clickhouse_backup"
    private_aws_access_key_id: Secret = Secret("")
    private_aws_secret_access_key: Secret = Secret("")
    private_aws_session_token: Secret = Secret("")
    private_named_collection: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_]*$")] = ""
    private_endpoint: str = ""
    private_region: str = ""
    private_addressing: Addressing = ""
    private_storage_class: str = ""
    private_sse: Sse = ""
    private_sse_kms_key_id: str = ""
    private_ca_file: Path | None = None
    private_retries: Count = 100
    manifest_key: Secret = Secret("")
    restore_user: str = ""
    restore_password: Secret = Secret("")
    full_every: Annotated[int, Meta(ge=1)] = 5
    max_backup_time: Seconds = 3 * 86400
    keep_chains: Annotated[int, Meta(ge=1)] = 3
    keep_days: Days = 0
    heartbeat_url: Secret = Secret("")
    keep: dict[str, Annotated[int, Meta(ge=1)]] = msgspec.field(default_factory=dict)
    prune_after_days: Days = 0
    compression_level: Annotated[int, Meta(ge=1, le=19)] = 3
    max_running_queries: Annotated[int, Meta(ge=1)] = 20
    max_wait: Wait = 6 * 3600
    rest: Annotated[float, Meta(ge=0, le=10)] = 0.2
    max_bandwidth: Count = 0
    jobs: Annotated[int, Meta(ge=0, le=MOST_JOBS)] = 0
    max_threads: Count = 0
    max_execution_time: Annotated[int, Meta(ge=1)] = 3 * 3600
    read_timeout: Seconds = 300
    retries: Count = 2
    retry_wait: Wait = 30
    ver: Literal[0] = 0

    aliases: ClassVar[Mapping[str, str]] = {"clickhouse_url": "db_uri"}

    def __post_init__(self) -> None:
        """Refuse what can't work together."""
        super().__post_init__()
        if self.http_url.reveal():
            check_url("http_url", self.http_url.reveal(), ("https", "http"))
        if self.heartbeat_url.reveal():
            check_url("heartbeat_url", self.heartbeat_url.reveal(), ("https", "http"))
        for side in get_args(Side):
            self._check_store(side)
        self._check_prefixes()
        if self.restore_password.reveal() and not self.restore_user:
            raise ValueError("restore_password: expected with restore_user")
        if self.manifest_key.reveal() and len(self.manifest_key.reveal()) < SHORTEST_KEY:
            raise ValueError(
                f"manifest_key: expected at least {SHORTEST_KEY} characters, as of"
                " `openssl rand -hex 32`"
            )
        if 0 < self.prune_after_days < 1:
            raise ValueError("prune_after_days: expected 0 for never, or 1 or more")
        for period in self.keep:
            if period not in get_args(Period):
                meant = did_you_mean(period, get_args(Period))
                raise ValueError(f"keep: unknown {period!r}; {meant}")

    def _check_prefixes(self) -> None:
        """Refuse one bucket in which one side's objects would lie among the other's."""
        places = [(self.public_bucket_name, self.public_endpoint)]
        if not self.public_bucket_name or places != [
            (self.private_bucket_name, self.private_endpoint)
        ]:
            return
        public, private = f"{self.public_prefix}/", f"{self.private_prefix}/"
        if public.startswith(private) or private.startswith(public):
            raise ValueError(
                "private_prefix: in the same bucket, neither of public_prefix and private_prefix"
                " may lie in the other: prune would take backups for leftovers of exports"
            )

    @property
    def schedule(self) -> Mapping[Period, int]:
        """How many backups of which periods stay; empty: no run deletes any."""
        return cast("Mapping[Period, int]", self.keep)

    @property
    def signing_key(self) -> bytes:
        """The key of the signatures of backups; empty: they are not signed."""
        return self.manifest_key.reveal().encode()

    @property
    def as_restoring(self) -> "Config":
        """The same, with the database's user that restores and verifies, if there is one."""
        if not self.restore_user:
            return self
        password = self.restore_password.reveal()
        uri = with_login(self.db_uri.reveal(), self.restore_user, password)
        return msgspec.structs.replace(self, db_uri=SecretUrl(uri))

    @property
    def query_settings(self) -> dict[str, int]:
        """The settings of the queries that read whole tables."""
        settings = {"priority": LOW_PRIORITY, "max_execution_time": self.max_execution_time}
        return settings | ({"max_threads": self.max_threads} if self.max_threads else {})

    @property
    def settings_clause(self) -> str:
        """The same as SQL, for the end of a query."""
        return ", ".join(f"{key} = {value}" for key, value in self.query_settings.items())

    def store(self, side: Side) -> Store:
        """Return the bucket of the exports or of the backups, and how objects are put there.

        Raises:
            ConfigError: it has no name, or its CA file can't be used.
        """

        def key(name: str) -> Any:  # noqa: ANN401 (of several types)
            return getattr(self, f"{side}_{name}")

        if not key("bucket_name"):
            contents = "exports" if side == "public" else "backups"
            raise ConfigError(f"{side}_bucket_name is missing: where do the {contents} go?")
        if ca_file := key("ca_file"):
            load_certificates(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), f"{side}_ca_file", ca_file)
        options = {
            "StorageClass": key("storage_class"),
            "ServerSideEncryption": key("sse"),
            "SSEKMSKeyId": key("sse_kms_key_id"),
        }
        return Store(
            bucket=key("bucket_name"),
            endpoint=key("endpoint"),
            region=key("region"),
            addressing=key("addressing"),
            key_id=key("aws_access_key_id"),
            key=key("aws_secret_access_key"),
            session_token=key("aws_session_token"),
            ca_file=ca_file,
            options={name: value for name, value in options.items() if value},
        )

    def _check_store(self, side: Side) -> None:
        name = getattr(self, f"{side}_bucket_name")
        if name and not BUCKET_NAME.fullmatch(name):
            raise ValueError(
                f"{side}_bucket_name: {name[:80]!r} can't name a bucket: expected up to 255"
                " letters, digits and - . _"
            )
        if endpoint := getattr(self, f"{side}_endpoint"):
            check_url(f"{side}_endpoint", endpoint, ("https", "http"))
        key_id, key = f"{side}_aws_access_key_id", f"{side}_aws_secret_access_key"
        if bool(getattr(self, key_id).reveal()) != bool(getattr(self, key).reveal()):
            raise ValueError(f"{key}: expected with {key_id}, or neither")
        session_token = f"{side}_aws_session_token"
        if not getattr(self, session_token).reveal():
            return
        if not getattr(self, key).reveal():
            raise ValueError(f"{session_token}: expected with {key}")
        if side == "private" and not self.private_named_collection:
            raise ValueError(
                f"{session_token}: expected with private_named_collection: BACKUP takes no session"
                " token, so the server needs credentials of its own"
            )
