"""Let atheris look for bytes that a parser neither reads nor refuses.

    python -m dev.fuzz TARGET FOLDER [options of libFuzzer, for example -max_total_time=50]

What it finds worth keeping goes into FOLDER; it begins with what is there and in corpus/TARGET.
"""

import sys
from pathlib import Path

import atheris

# Coverage of the parsers alone: libraries would take minutes to import.
MEASURED = [
    *("asn_map_file", "backups", "checkpoint", "citizenlab", "csv_source", "documents"),
    *("downloads", "exports", "fingerprints_file", "mmdb", "mmdb_records", "mmdb_tree"),
    *("ooni_common", "refusals", "schemas"),
]
CORPUS = Path(__file__).parent / "corpus"


def main() -> None:
    """Run one target until an option of libFuzzer ends it, or a fault."""
    name, folder, *options = sys.argv[1:]
    with atheris.instrument_imports(include=MEASURED):
        from dev.fuzz.targets import TARGETS  # noqa: PLC0415 (instrumented while it is imported)
    Path(folder).mkdir(parents=True, exist_ok=True)
    atheris.Setup([sys.argv[0], *options, folder, str(CORPUS / name)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
