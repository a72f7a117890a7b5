"""Install pinned packages into the virtual environment that runs this, and show how far it is.

    .venv/bin/python -m dev.install requirements/dev.txt

pip alone is silent for minutes, or prints a thousand lines. Where it fails, its last lines follow.
"""

import re
import subprocess
import sys
from collections import deque
from pathlib import Path

PIP = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
PINNED = re.compile(r"^[A-Za-z0-9][^ ]*==", re.MULTILINE)
BEGUN = re.compile(r"Collecting (\S+?)==")
LAST_LINES = 20
EVERY = 20  # packages; where nobody can be shown a line that changes


def main() -> int:
    """Install what a file of requirements names; return pip's exit status."""
    requirements = sys.argv[1]
    number = len(PINNED.findall(Path(requirements).read_text()))
    print(
        f"installing {number} packages into .venv; the first time, this takes minutes", flush=True
    )
    command = [*PIP, "--progress-bar", "off", "--require-hashes", "--no-deps", "-r", requirements]
    last = deque[str](maxlen=LAST_LINES)
    begun = 0
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pip:
        for line in pip.stdout or ():
            last.append(line)
            if match := BEGUN.search(line):
                begun += 1
                show(begun, number, match[1])
            elif line.startswith("Installing"):
                print(f"{erase()}  downloaded; unpacking", flush=True)
    if pip.returncode:
        print(f"{erase()}{''.join(last)}", end="", flush=True)
    return pip.returncode


def show(begun: int, number: int, name: str) -> None:
    """Say which package is being downloaded: in place on a terminal, seldom elsewhere."""
    if sys.stdout.isatty():
        print(f"{erase()}  {begun} of {number}: {name}", end="", flush=True)
    elif begun % EVERY == 1:
        print(f"  {begun} of {number}: {name}", flush=True)


def erase() -> str:
    """Return what erases the line that changes."""
    return "\r\x1b[K" if sys.stdout.isatty() else ""


if __name__ == "__main__":
    sys.exit(main())
