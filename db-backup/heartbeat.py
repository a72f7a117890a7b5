"""Telling a service that waits for it that a run has succeeded, as healthchecks.io does.

Where nothing comes, it tells somebody: also when this machine is gone.
"""

import io
import logging
from urllib.parse import urlsplit

from ooni_common.config import Secret, SecretUrl
from ooni_common.errors import ScriptError
from ooni_common.fetch import Fetcher, Limits

log = logging.getLogger("ooni.db_backup")

# Of the answer nothing matters but its status. A second try is that of the next run.
LIMITS = Limits(max_bytes=1_000_000, total_time=20, read_timeout=10, retries=0)


def tell_success(url: Secret, user_agent: str) -> None:
    """Ask for an address; whatever comes of it, the run has succeeded.

    Args:
        url: of the service; empty: nobody is told. It often is a secret as a whole, its path too,
            so that nothing of it but the host is logged.
        user_agent: of the tool.
    """
    if not url.reveal():
        return
    try:
        Fetcher(user_agent, LIMITS).fetch(SecretUrl(url.reveal()), io.BytesIO())
    except (ScriptError, OSError, ValueError) as error:
        # What it says has the address, without the password that it may have.
        reason = str(error).rpartition(f"{SecretUrl(url.reveal())}: ")[2]
        hides = urlsplit(url.reveal()).path.strip("/")
        if hides and hides in reason:
            reason = "it failed"
        host = urlsplit(url.reveal()).hostname
        log.warning("heartbeat_url (%s): %s; the run is done all the same", host, reason)
