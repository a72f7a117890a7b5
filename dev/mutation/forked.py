"""Run pytest in a copy of the tree, again and again: libraries are imported once, before.

To start Python and import them takes a second, and most tests of a pure module a tenth of that.
"""

import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What tests need that is not in the tree.
LIBRARIES = (
    *("pytest", "hypothesis", "hypothesis.strategies", "xdist"),
    *("numpy", "msgspec", "clickhouse_driver", "idna", "urllib3", "zstandard", "boto3", "geoip2"),
)


def status_of_tests(tree: Path, arguments: Sequence[str], seconds: float) -> int | None:
    """Run pytest in a folder; return its exit status, or None where it did not end in time.

    Args:
        tree: the folder, a copy of this tree.
        arguments: of pytest.
        seconds: for all of it.
    """
    for library in LIBRARIES:
        importlib.import_module(library)
    process = multiprocessing.get_context("fork").Process(target=_run, args=(tree, arguments))
    process.start()
    process.join(seconds)
    if process.is_alive() and process.pid:
        os.killpg(process.pid, signal.SIGKILL)  # with all that it has started
        process.join()
        return None
    return process.exitcode


def _run(tree: Path, arguments: Sequence[str]) -> None:
    """Run pytest in this process, which knows nothing of the tree that it comes from."""
    import pytest  # noqa: PLC0415 (a library of developers that is imported already)

    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.chdir(tree)
    os.environ |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    sys.path = [str(tree), *(path for path in sys.path if path not in ("", str(ROOT)))]
    for name in [name for name in sys.modules if name.partition(".")[0] == "dev"]:
        del sys.modules[name]
    # A plugin that is imported already can't have its assertions explained, which nobody reads.
    sys.exit(pytest.main(["-W", "ignore::pytest.PytestAssertRewriteWarning", *arguments]))
