"""Programs of Debian's packages, without installing these: some of them would start a service."""

import shutil
import socket
import subprocess
from pathlib import Path

UNPACKED = Path(__file__).parents[1] / "build/debian"


def find_programs(package: str, *programs: str) -> list[str] | None:
    """Return the paths of programs of a package; None: they can't be had here.

    They are those on PATH; where these are missing, those of the package, unpacked in build/.
    """
    installed = [path for program in programs if (path := shutil.which(program))]
    if len(installed) == len(programs):
        return installed
    folder = UNPACKED / package
    paths = [str(folder / "usr/bin" / program) for program in programs]
    if not all(map(shutil.which, paths)) and shutil.which("apt-get"):
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "-qq", "download", package], cwd=folder, check=False)
        for file in folder.glob(f"{package}_*.deb"):
            subprocess.run(["dpkg-deb", "--extract", file, folder], check=False)
            file.unlink()
    return paths if all(map(shutil.which, paths)) else None


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """Return a port of 127.0.0.1 that nobody has."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
