"""What `ooni-download-geoip doctor` examines."""

import functools
from collections.abc import Callable, Sequence

from downloads import DatabaseSource
from installation import Installation
from ooni_common.config import Config, SecretUrl
from ooni_common.doctor import Checks, machine_checks
from ooni_common.errors import ScriptError
from ooni_common.fetch import Fetcher
from ooni_common.fetch_errors import Forbidden, NotFound


def checks_of(
    config: Config,
    installation: Installation,
    fetcher: Fetcher,
    sources: Sequence[DatabaseSource],
    months: Sequence[str],
) -> Checks:
    """Yield the checks.

    Args:
        config: has what is the same for every tool.
        installation: where the databases go.
        fetcher: asks for them.
        sources: the databases.
        months: those that a run would try, the best first.
    """

    def outputs() -> str:
        installation.check_usable()
        return "databases can be installed"

    @functools.cache
    def failure(url: SecretUrl) -> ScriptError | None:
        """Return why an address does not answer."""
        try:
            fetcher.reach(url)
        except ScriptError as error:
            return error
        return None

    def upstream(source: DatabaseSource) -> str:
        url = source.of(_first_month(sources, months, failure)).url
        if error := failure(url):
            raise error
        return f"{url} answers"

    yield from machine_checks(config.state_dir, config.statsd)
    yield "outputs", outputs
    for source in sources:
        yield f"upstream, {source.kind.name}", functools.partial(upstream, source)


def _first_month(
    sources: Sequence[DatabaseSource],
    months: Sequence[str],
    failure: Callable[[SecretUrl], ScriptError | None],
) -> str:
    """Return the month that a run would install: the first that has all, else the last."""
    for month in months:
        failures = [failure(source.of(month).url) for source in sources]
        # Forbidden, too, is a month that is not out yet.
        if not any(isinstance(error, NotFound | Forbidden) for error in failures):
            return month
    return months[-1]
