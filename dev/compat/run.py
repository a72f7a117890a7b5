"""Running a record on all versions at the same time."""

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dev.compat.comparison import Comparison, read_listed
from dev.compat.histories import History, fewest, read_record
from dev.compat.replay import Outcome, Replay, running_engine
from dev.engines import VERSIONS, python_of
from dev.servers.s3 import S3Server


def compare_versions(record: Path) -> Comparison:
    """Run histories with all kinds of statements of a record on each version; compare these."""
    chosen = fewest(read_record(record))
    with ThreadPoolExecutor(len(VERSIONS)) as threads:
        runs = threads.map(lambda version: _outcomes(version, record, chosen), VERSIONS)
        by_version = dict(zip(VERSIONS, runs, strict=True))
    comparison = Comparison(read_listed())
    for place, history in enumerate(chosen):
        comparison.add(history, {version: run[place] for version, run in by_version.items()})
    return comparison


def _outcomes(version: str, record: Path, histories: Sequence[History]) -> list[list[Outcome]]:
    with (
        tempfile.TemporaryDirectory(prefix=f"compat-{version}-") as name,
        running_engine(python_of(version), Path(name)) as engine,
        S3Server() as store,
    ):
        replay = Replay(engine, record, Path(name), store)
        return [replay.outcomes(history) for history in histories]
