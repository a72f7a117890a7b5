"""Errors, typed by what the operator does about them.

`ooni_common.run.execute` turns them into the exit status of the process; nothing else does.
"""

import errno

# Of these errors of the system another run may see nothing.
OUT_OF_SOMETHING = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class ScriptError(Exception):
    """A failure with a message for the operator: one line, with the file or table it is about."""

    status = 70


class DataRefused(ScriptError):
    """The data is wrong. Nothing was changed; somebody has to look at the data."""

    status = 65


class NotStored(DataRefused):
    """The database stored something else than it was sent: it is not the upstream's fault."""


class RefusedBefore(DataRefused):
    """The data is what an earlier run has refused, and has said so: the log has it already."""


class Unavailable(ScriptError):
    """The upstream, the database or the object store did not do its part. Nothing is lost."""

    status = 69


class TryAgainLater(ScriptError):
    """Another run is at work, or a resource of this machine ran out."""

    status = 75


class ConfigError(ScriptError):
    """The configuration has to be changed."""

    status = 78


class UsageError(ScriptError):
    """The command line asks for what does not go together."""

    status = 2


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGINT arrived.

    It is a KeyboardInterrupt, so that no `except Exception` swallows it, and the database driver
    drops the connection that it interrupts.
    """

    status = 75
