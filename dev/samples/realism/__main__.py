"""Write the suite: `python -m dev.samples.realism FOLDER --seeds 1 2 3 4 5`.

FOLDER/seed-N has observations.csv.gz, others.csv.gz and labels.json of a seed; `detector evaluate`
takes those of several.
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3] / "detector"))

from dev.embedded_clickhouse import EmbeddedClickHouse
from dev.samples.realism.files import write
from dev.samples.realism.worlds import worlds_of


def main() -> int:
    """Write the files that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], metavar="N")
    parser.add_argument(
        "--worlds", type=int, nargs="+", metavar="N", help="only these, for a quick look"
    )
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        started = time.monotonic()
        # In the same folder: a temporary one may be in memory.
        arguments.folder.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=arguments.folder) as folder,
            EmbeddedClickHouse(Path(folder) / "db") as db,
        ):
            worlds = list(worlds_of(seed, arguments.worlds))
            counts = write(arguments.folder / f"seed-{seed}", db.uri(), seed, worlds)
        figures = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        print(f"seed {seed}: {figures}; {time.monotonic() - started:.0f} s", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"at most {peak:.0f} MB in this process")
    return 0


if __name__ == "__main__":
    sys.exit(main())
