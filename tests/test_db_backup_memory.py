"""Memory of the backup tool that is freed goes back to the system."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PART = 8 * 1024 * 1024  # bytes
# Once it has freed a block of that size, a thread takes many of them and frees all but the last.
PROGRAM = f"""
import contextlib, io, resource, sys, threading

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def work():
    bytes(b"x" * {PART + 1})
    before = resident()
    parts = [b"x" * {PART} for _ in range(20)]
    del parts[:-1]
    print(resident() - before)

import ooni_db_backup
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    ooni_db_backup.main(["--help"])
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def test_freed_parts_take_no_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"PYTHONPATH": f"{ROOT / 'db-backup'}:{ROOT}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 3 * PART
