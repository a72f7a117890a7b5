"""What a plain download of a GeoIP database looks like: the yardstick of `make bench`.

It trusts everything: urlopen, gunzip, write.

    python -m dev.bench.plain_geoip_download URL FILE
"""

import gzip
import shutil
import sys
import urllib.request
from pathlib import Path


def main() -> None:
    """Download, decompress, write."""
    url, file = sys.argv[1:]
    with (
        urllib.request.urlopen(url) as response,  # noqa: S310 (the benchmark's own server)
        gzip.open(response) as source,
        Path(file).open("wb") as target,
    ):
        shutil.copyfileobj(source, target)


if __name__ == "__main__":
    main()
