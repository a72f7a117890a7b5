"""Release a version: check, date the changelogs, commit and tag.

    make release VERSION=2.0.2            # KEY=… signs the tag
    python -m dev.release 2.0.2 --dry-run # only say what would be written

CHANGELOG.md has to have `## VERSION (unreleased)`. Its sentences in bold become the entry of
debian/changelog. What debian/PACKAGE.NEWS.next has becomes the entry of debian/PACKAGE.NEWS, which
apt shows before it upgrades. Nothing is pushed: publish with `make repo` and `git push`.
"""

import argparse
import re
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = "ooni-backend-tools"
MAINTAINER = "OONI <contact@openobservatory.org>"
LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
UNRELEASED = "unreleased"


class NotReadyError(Exception):
    """Why there can be no release now: what to do about it."""


def main() -> int:
    """Release what the command line names; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("version", metavar="VERSION")
    parser.add_argument("--key", help="sign the tag with this key of gpg", default="")
    parser.add_argument("--dry-run", action="store_true", help="change nothing")
    arguments = parser.parse_args()
    now = datetime.now(UTC)
    try:
        check(ROOT, arguments.version)
        files = released(ROOT, arguments.version, now)
    except NotReadyError as error:
        print(f"no release of {arguments.version}: {error}", file=sys.stderr)
        return 1
    if arguments.dry_run:
        for path, text in files.items():
            print(f"--- {path.relative_to(ROOT)}\n{(text or '(deleted)')[:2000]}")
        return 0
    write(files)
    if subprocess.run(["make", "lint", "test"], cwd=ROOT, check=False).returncode:
        print("the tests fail: the files are dated, nothing is committed", file=sys.stderr)
        return 1
    commit_and_tag(ROOT, arguments.version, arguments.key)
    print(f"v{arguments.version} is tagged. Next: make deb repo KEY=…; git push --follow-tags")
    return 0


def check(root: Path, version: str) -> None:
    """Check what git has.

    Raises:
        NotReadyError: the tree is not clean, not of the branch main, or the version is there.
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise NotReadyError("a version has three numbers, such as 2.0.2")
    if changed := git(root, "status", "--porcelain"):
        raise NotReadyError(f"commit or remove first:\n{changed}")
    if (branch := git(root, "branch", "--show-current")) != "main":
        raise NotReadyError(f"releases are made on main, this is {branch or 'no branch'}")
    if git(root, "tag", "--list", f"v{version}"):
        raise NotReadyError(f"the tag v{version} exists")
    current = re.findall('__version__ = "(.*)"', (root / "ooni_common/__init__.py").read_text())[0]
    if numbers(version) <= numbers(current):
        raise NotReadyError(f"{current} is released already")


def released(root: Path, version: str, now: datetime) -> dict[Path, str | None]:
    """Return the files of a release; None: it is deleted.

    Raises:
        NotReadyError: CHANGELOG.md says nothing of the version.
    """
    changelog = root / "CHANGELOG.md"
    text = changelog.read_text()
    heading = f"## {version} ({UNRELEASED})\n"
    if heading not in text:
        raise NotReadyError(f"CHANGELOG.md has no line {heading.strip()!r}")
    section = text.partition(heading)[2].partition("\n## ")[0]
    module, debian = root / "ooni_common/__init__.py", root / "debian/changelog"
    files: dict[Path, str | None] = {
        changelog: text.replace(heading, f"## {version} ({now:%Y-%m-%d})\n"),
        module: re.sub('(?<=__version__ = ").*(?=")', version, module.read_text()),
        debian: entry(version, bullets(section), now) + "\n" + debian.read_text(),
    }
    for following in sorted((root / "debian").glob("*.NEWS.next")):
        news = following.with_suffix("")
        old = f"\n{news.read_text()}" if news.exists() else ""
        files[news] = entry(version, following.read_text(), now) + old
        files[following] = None
    return files


def bullets(section: str) -> str:
    """Return the sentences in bold of a section of CHANGELOG.md as debian/changelog has them."""
    sentences = [
        " ".join(text.split()) for text in re.findall(r"\*\*(.+?)\*\*", section, re.DOTALL)
    ]
    sentences = [LINK.sub(r"\1", sentence).replace("`", "").rstrip(".") for sentence in sentences]
    sentences.append(f"/usr/share/doc/{SOURCE}-venv/CHANGELOG.md.gz has the whole list")
    return "".join(
        textwrap.fill(
            f"{sentence}.",
            width=78,
            initial_indent="  * ",
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        + "\n"
        for sentence in sentences
    )


def entry(version: str, text: str, now: datetime) -> str:
    """Return an entry as debian/changelog and NEWS have them."""
    head = f"{SOURCE} ({version}) bookworm; urgency=medium"
    return f"{head}\n\n{text.rstrip()}\n\n -- {MAINTAINER}  {format_datetime(now)}\n"


def write(files: dict[Path, str | None]) -> None:
    """Write the files, and delete those without text."""
    for path, text in files.items():
        if text is None:
            path.unlink()
        else:
            path.write_text(text)


def commit_and_tag(root: Path, version: str, key: str) -> None:
    """Commit everything and tag it; signed, if there is a key."""
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", f"Version {version}")
    how = ["--sign", "--local-user", key] if key else ["--annotate"]
    git(root, "tag", *how, "--message", f"Version {version}", f"v{version}")


def numbers(version: str) -> tuple[int, ...]:
    """Return a version as it is compared."""
    return tuple(map(int, re.findall(r"\d+", version)))


def git(root: Path, *arguments: str) -> str:
    """Return what git prints."""
    done = subprocess.run(
        ["git", "-C", root, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
