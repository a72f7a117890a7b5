"""Take newer libraries into the packages: what to do when one of them has a security hole.

    make refresh                          # all that reach a server
    make refresh PACKAGES="urllib3 idna"  # only these, and what they need

The pins in requirements/ become those of today, with hashes, and CHANGELOG.md says which changed.
Python itself, OpenSSL, git and the like are Debian's: there, `apt upgrade` is enough
(debian/README.md).
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT / "requirements"
CHANGELOG = ROOT / "CHANGELOG.md"
TOOLS = ROOT / "build/pip-tools"
ON_SERVERS = ("runtime", "detector")
PIN = re.compile(r"(?m)^([a-z0-9-]+)==(\S+)")
HEADING = re.compile(r"(?m)^(## \S+ \(unreleased\)\n)")
COMMON = (
    "--quiet",
    "--generate-hashes",
    "--strip-extras",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--no-emit-trusted-host",
)

Pins = dict[str, str]


def main(packages: list[str]) -> int:
    """Refresh the pins of these packages, or of all; return the exit status."""
    old = pins()
    if unknown := sorted(set(packages) - old.keys()):
        print(f"no server has {', '.join(unknown)}; there are: {', '.join(sorted(old))}")
        return 2
    compile_all(packages)
    changed = changes(old, pins())
    if not changed:
        print("no library has a newer version")
        return 0
    CHANGELOG.write_text(with_libraries(CHANGELOG.read_text(), changed))
    print("\n".join(changed))
    return 0


def pins() -> Pins:
    """Return the versions of the libraries that reach a server."""
    texts = [(REQUIREMENTS / f"{name}.txt").read_text() for name in ON_SERVERS]
    return dict(pin for text in texts for pin in PIN.findall(text))


def compile_all(packages: list[str]) -> None:
    """Pin them again; what only developers need follows, and is not upgraded by itself."""
    if not (TOOLS / "bin/pip-compile").exists():
        subprocess.run([sys.executable, "-m", "venv", TOOLS], check=True)
        subprocess.run([TOOLS / "bin/pip", "install", "--quiet", "pip-tools"], check=True)
    newer = [f"--upgrade-package={package}" for package in packages] or ["--upgrade"]
    left_out = [f"--unsafe-package={package}" for package in os.environ["UNUSED"].split()]
    pip_compile("runtime", *newer, *left_out)
    pip_compile("detector", *newer, "--allow-unsafe")
    pip_compile("dev", "--allow-unsafe")


def pip_compile(name: str, *options: str) -> None:
    """Make NAME.txt of NAME.in."""
    subprocess.run(
        [TOOLS / "bin/pip-compile", *COMMON, *options, "-o", f"{name}.txt", f"{name}.in"],
        cwd=REQUIREMENTS,
        env=os.environ | {"CUSTOM_COMPILE_COMMAND": "make requirements"},
        check=True,
    )


def changes(old: Pins, new: Pins) -> list[str]:
    """Return what is another library now, a line for each."""
    names = sorted({name for name, _ in {*old.items()} ^ {*new.items()}})
    return [f"{name} {old.get(name, '(new)')} → {new.get(name, '(gone)')}" for name in names]


def with_libraries(text: str, changed: list[str]) -> str:
    """Return CHANGELOG.md with them in the unreleased version, which may begin here."""
    if not HEADING.search(text):
        major, minor, patch = re.findall(r"(?m)^## (\d+)\.(\d+)\.(\d+) ", text)[0]
        heading = f"## {major}.{minor}.{int(patch) + 1} (unreleased)\n\n"
        text = re.sub("(?m)^## ", f"{heading}## ", text, count=1)
    head, heading, rest = HEADING.split(text, maxsplit=1)
    section, next_heading, older = f"\n{rest.lstrip()}".partition("\n## ")
    title, lines = "### Libraries\n\n", "".join(f"- {line}\n" for line in changed)
    if title in section:
        section = section.replace(title, title + lines, 1)
    else:
        section = "\n" + "\n\n".join(filter(None, (section.strip(), title + lines)))
    return head + heading + section + next_heading + older


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
