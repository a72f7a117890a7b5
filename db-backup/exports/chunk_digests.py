"""Reading the digests of chunks, of which one that can't be read holds up no other."""

from collections.abc import Callable, Sequence

from exports.chunk_failures import FAILURES_OF_THE_SERVER
from exports.fingerprint import Fingerprint
from exports.steps import Step
from ooni_common.database import ServerError


def read_digests(
    steps: Sequence[Step],
    read: Callable[[Sequence[Step]], dict[str, Fingerprint]],
    *,
    one_by_one: bool = False,
) -> tuple[dict[str, Fingerprint], dict[str, ServerError]]:
    """Return the digests of chunks, and why some have none, by name.

    Where so many in a row have none that it may be the server, the rest is not asked.

    Args:
        steps: whose chunks are read.
        read: returns the digests of some.
        one_by_one: whether each gets a statement of its own at once, and not only when one for all
            of them has failed.
    """
    if not one_by_one or len(steps) == 1:
        try:
            return read(steps), {}
        except ServerError as error:
            if len(steps) == 1:
                return {}, {steps[0].chunk.name: error}
    digests: dict[str, Fingerprint] = {}
    unread: dict[str, ServerError] = {}
    in_a_row = 0
    for step in steps:
        try:
            digests |= read([step])
            in_a_row = 0
        except ServerError as error:
            unread[step.chunk.name] = error
            in_a_row += 1
            if in_a_row == FAILURES_OF_THE_SERVER:
                break
    return digests, unread
