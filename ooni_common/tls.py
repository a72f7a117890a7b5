"""Whose certificates are trusted."""

import ssl
from pathlib import Path

from ooni_common.errors import ConfigError


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return the settings of TLS: the system's CA store, and a private CA beside it.

    Raises:
        ConfigError: `ca_file` can't be used.
    """
    context = ssl.create_default_context()
    if ca_file:
        load_certificates(context, "ca_file", ca_file)
    return context


def load_certificates(context: ssl.SSLContext, key: str, ca_file: Path) -> None:
    """Let a context trust the CAs in a file; `key` is where the configuration names it.

    Raises:
        ConfigError: the file can't be used.
    """
    try:
        context.load_verify_locations(ca_file)
    except ssl.SSLError:
        raise ConfigError(f"{key} {ca_file}: holds no certificate in PEM format") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{key} {ca_file}: {reason}") from None
