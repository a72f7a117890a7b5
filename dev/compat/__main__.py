"""Run the statements of a record on each version of the engine, and tell what differs.

python -m dev.compat build/statements
"""

import argparse
import sys
from pathlib import Path

from dev.compat.run import compare_versions


def main() -> None:
    """Print numbers and what is not listed; end with status 1 if there is any."""
    parser = argparse.ArgumentParser(prog="python -m dev.compat", description=__doc__)
    parser.add_argument("record", type=Path, help="folder of a record, see dev.embedded_clickhouse")
    comparison = compare_versions(parser.parse_args().record)
    print(f"{len(comparison.kinds)} kinds of statements of the tools")
    for version, kinds in comparison.kinds_without_error.items():
        print(f"{len(kinds)} of them without an error on {version}")
    for deviation in comparison.unlisted():
        print(f"not listed: {deviation.version}: {deviation.outcome}: {deviation.kind}")
        print(f"    {deviation.example}")
    for text in comparison.superfluous():
        print(f"listed, but not seen: {text}")
    sys.exit(bool(comparison.unlisted() or comparison.superfluous()))


if __name__ == "__main__":
    main()
