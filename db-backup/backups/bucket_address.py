"""The bucket of the backups, as the server's own statements name it."""

from dataclasses import dataclass

from backup_config import Config
from ooni_common.config import Secret
from ooni_common.database import literal, quoted
from store.client import url_of

ROWS_FORMAT = "Native"


@dataclass(frozen=True)
class BucketAddress:
    """The bucket, as the server reaches it.

    Attributes:
        collection: the named collection that has address and credentials; "" for none.
        url: the address of the bucket, for a server without such a collection.
        key_id: with `key`; without them, the server uses its own.
        key: the secret one. The server shows it in no log and in no system table.
    """

    collection: str
    url: str
    key_id: Secret
    key: Secret

    def backup(self, path: str) -> str:
        """Return where BACKUP writes to and RESTORE reads from, as SQL."""
        if self.collection:
            return f"S3({quoted(self.collection)}, {literal(path)})"
        return f"S3({', '.join((literal(self.url + path), *self._credentials))})"

    def rows(self, key: str) -> str:
        """Return the table function of an object with rows, as SQL."""
        if self.collection:
            name = quoted(self.collection)
            return f"s3({name}, filename = {literal(key)}, format = {literal(ROWS_FORMAT)})"
        arguments = (literal(self.url + key), *self._credentials, literal(ROWS_FORMAT))
        return f"s3({', '.join(arguments)})"

    @property
    def has_key(self) -> bool:
        """Whether the credentials are in the statements."""
        return not self.collection and bool(self.key.reveal())

    @property
    def _credentials(self) -> tuple[str, ...]:
        if not self.has_key:
            return ()
        return literal(self.key_id.reveal()), literal(self.key.reveal())


def address_of(config: Config, collection: str) -> BucketAddress:
    """Return how the server reaches the bucket of the backups; `collection` is "" for none."""
    store = config.store("private")
    return BucketAddress(
        collection=collection, url=url_of(store), key_id=store.key_id, key=store.key
    )
