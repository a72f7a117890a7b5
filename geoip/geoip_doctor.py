"""What `ooni-download-geoip doctor` examines."""

import contextlib
import functools
from collections.abc import Mapping, Sequence

from downloads import DatabaseSource
from installation import Installation
from ooni_common.config import Config, SecretUrl
from ooni_common.doctor import Checks, machine_checks
from ooni_common.fetch import Fetcher, Forbidden, NotFound


def checks_of(
    config: Config,
    installation: Installation,
    fetcher: Fetcher,
    sources: Mapping[DatabaseSource, Sequence[str]],
) -> Checks:
    """Yield the checks.

    Args:
        config: has what is the same for every tool.
        installation: where the databases go.
        fetcher: asks for them.
        sources: the databases, with the months that a run would try, the best first.
    """

    def outputs() -> str:
        installation.check_usable()
        return "databases can be installed"

    def upstream(source: DatabaseSource, months: Sequence[str]) -> str:
        return f"{published_address(fetcher, source, months)} answers"

    yield from machine_checks(config.state_dir, config.statsd)
    yield "outputs", outputs
    for source, months in sources.items():
        yield f"upstream, {source.kind.name}", functools.partial(upstream, source, months)


def published_address(fetcher: Fetcher, source: DatabaseSource, months: Sequence[str]) -> SecretUrl:
    """Return the address of the first month that is published.

    Raises:
        NotFound, Forbidden: none is.
        Unavailable, DataRefused, ConfigError: as `Fetcher.fetch`.
    """
    *better, last = (source.of(month).url for month in months)
    for url in better:
        with contextlib.suppress(NotFound, Forbidden):  # as of a month that is not out yet
            fetcher.reach(url)
            return url
    fetcher.reach(last)
    return last
