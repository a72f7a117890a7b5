"""Packages as servers get them: from a signed repository of apt, upgraded, and taken back."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dev.e2e.container import Container, running
from dev.e2e.installation import expect_no_failure_before_a_configuration
from dev.e2e.steps import expect, title
from dev.e2e.upgrades import APT, PACKAGES, build_package

ROOT = Path(__file__).parents[2]
SOURCES = """\
Types: deb
URIs: file:/srv/repo
Suites: {release}
Components: main
Signed-By: /etc/apt/keyrings/ooni.asc
"""
KEY = """\
%no-protection
Key-Type: eddsa
Key-Curve: ed25519
Name-Real: OONI packages, for a test
Name-Email: packages@example.org
Expire-Date: 1d
"""
KEEP = "-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold"
LOOK = "sha256sum /etc/ooni/*.conf /etc/prometheus/rules/ooni-site.yml 2> /dev/null; true"


def install_from_repository(archive: Path, release: str, packages: Path, scratch: Path) -> None:
    """Install everything on a fresh system from a signed repository; upgrade, go back, purge.

    Those of an earlier version in the folder previous, where there are any, are upgraded, too.
    """
    title(f"a fresh Debian {release} installs from a signed repository")
    folder = scratch / "repository"
    folder.mkdir()
    build = folder / "build"
    with signing_key(folder) as environment, running(archive, folder) as container:
        repo = make_repository(build, release, packages, environment)
        publish(container, repo, release)
        refuse_what_was_tampered_with(container, repo)
        install(container)
        expect_no_failure_before_a_configuration(container)
        run_autopkgtests(container)
        upgrade_and_downgrade(container, build, release, environment)
        purge(container)
        if previous := sorted((packages / "previous").glob("*.deb")):
            upgrade_from_previous(container, previous)
            purge(container)


@contextmanager
def signing_key(folder: Path) -> Iterator[dict[str, str]]:
    """Make a key of a day; give the environment in which gpg has it."""
    home = folder / "gnupg"
    home.mkdir(mode=0o700)
    environment = {"GNUPGHOME": str(home), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    subprocess.run(
        ["gpg", "--batch", "--quiet", "--generate-key"],
        input=KEY, text=True, env=environment, check=True,
    )  # fmt: skip
    try:
        yield environment
    finally:
        subprocess.run(["gpgconf", "--kill", "all"], env=environment, check=False)


def make_repository(build: Path, release: str, packages: Path, environment: dict[str, str]) -> Path:
    """Make it of packages as `make repo` does."""
    place = build if release == "bookworm" else build / release
    place.mkdir(parents=True, exist_ok=True)
    for name in PACKAGES:
        for file in packages.glob(f"{name}_*.deb"):
            shutil.copy(file, place)
    command = [str(ROOT / "debian/repo"), str(build), "packages@example.org"]
    subprocess.run(command, env=environment, check=True)
    return build / "repo"


def publish(container: Container, repo: Path, release: str) -> None:
    """Let the container have the repository, as debian/README.md says."""
    copy(repo, container)
    container.run("install -D -m 644 /srv/repo/ooni.asc /etc/apt/keyrings/ooni.asc")
    sources = container.root / "etc/apt/sources.list.d/ooni.sources"
    sources.write_text(SOURCES.format(release=release))
    update(container)


def copy(repo: Path, container: Container) -> None:
    """Copy what is published of a repository into the container."""
    place = container.root / "srv/repo"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(repo, place, ignore=shutil.ignore_patterns("conf", "db"))
    subprocess.run(["chmod", "-R", "a+rX", place], check=True)


def update(container: Container, *, check: bool = True) -> str:
    """Ask this repository alone: Debian's may be out of reach."""
    only = "-o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts=/etc/apt/sources.list.d"
    done = container.run(f"apt-get {only} update 2>&1", check=check)
    return done.stdout


def refuse_what_was_tampered_with(container: Container, repo: Path) -> None:
    """Change a list of packages: apt refuses it."""
    lists = container.root / "srv/repo/dists"
    for file in [*lists.rglob("Packages"), *lists.rglob("Packages.gz")]:
        file.write_bytes(file.read_bytes() + b"\n")
    container.run("rm -rf /var/lib/apt/lists/*srv_repo*")
    printed = update(container, check=False)
    expect(re.search("(?m)^[EW]: .*(size|Hash)", printed) is not None, f"apt refuses it: {printed}")
    copy(repo, container)
    update(container)


def install(container: Container) -> None:
    """Install everything."""
    printed = container.output(f"{APT} install {' '.join(PACKAGES)} 2>&1")
    print(printed)
    expect(waiting_timers(container) == installed_timers(container), "all timers wait")
    expect(container.output("apt-cache policy analysis").count("/srv/repo") == 1, "from there")


def run_autopkgtests(container: Container) -> None:
    """Run debian/tests as autopkgtest does: on the installed system, with a folder each."""
    title("debian/tests on the installed packages")
    tests = container.root / "srv/tree/debian/tests"
    shutil.copytree(ROOT / "debian/tests", tests)
    listed = re.findall("(?m)^Tests: (.*)$", (tests / "control").read_text())
    for name in ", ".join(listed).split(", "):
        run = f"folder=$(mktemp -d); cd /srv/tree; AUTOPKGTEST_TMP=$folder debian/tests/{name} 2>&1"
        done = container.run(run, check=False)
        print(done.stdout)
        expect(done.returncode == 0, f"debian/tests/{name}")


def upgrade_and_downgrade(
    container: Container, build: Path, release: str, environment: dict[str, str]
) -> None:
    """Publish a newer version, upgrade with everything edited, and go back."""
    title("a newer version in the repository, and back")
    edit_everything(container)
    edited = container.output(LOOK)
    old = version_of(container, "analysis")
    place = build if release == "bookworm" else build / release
    for file in sorted(place.glob("*.deb")):
        newer_package(file, place)
    make_repository(build, release, build / "none", environment)
    copy(build / "repo", container)
    update(container)
    container.run(f"{APT} {KEEP} upgrade")
    expect(version_of(container, "analysis") == f"{old}+1", "everything is upgraded")
    expect(container.output(LOOK) == edited, "what was edited stays")
    files = f"/srv/repo/all/{release}/*_{old}_*.deb"
    half = container.run(
        f"{APT} --allow-downgrades --no-remove install"
        f" /srv/repo/all/{release}/ooni-backend-tools-venv_{old}_*.deb 2>&1",
        check=False,
    )
    print(half.stdout)
    expect(half.returncode != 0, "half of a downgrade is refused")
    container.run(f"{APT} {KEEP} --allow-downgrades install {files}")
    expect(version_of(container, "analysis") == old, "all of it at once is done")
    expect(container.output(LOOK) == edited, "what was edited stays")
    run_again(container)


def upgrade_from_previous(container: Container, files: list[Path]) -> None:
    """Install the packages of an earlier version, edit everything, upgrade, and go back."""
    version = files[0].name.split("_")[1]
    title(f"packages of version {version} are upgraded, and come back")
    for file in files:
        shutil.copy(file, container.root / "srv")
    names = " ".join(f"/srv/{file.name}" for file in files)
    container.run(f"{APT} --allow-downgrades install {names}")
    edit_everything(container)
    container.run("systemctl disable --now ooni-update-fingerprints.timer")
    edited = container.output(LOOK)
    print(container.output(f"{APT} {KEEP} upgrade 2>&1"))
    expect(version_of(container, "analysis") != version, "everything is upgraded")
    expect(container.output(LOOK) == edited, "what was edited stays")
    disabled = installed_timers(container) - waiting_timers(container)
    expect(disabled == {"ooni-update-fingerprints.timer"}, f"a disabled timer stays so: {disabled}")
    run_again(container)
    container.run(f"{APT} {KEEP} --allow-downgrades install {names}")
    expect(version_of(container, "analysis") == version, "going back is done at once")
    expect(container.output(LOOK) == edited, "what was edited stays")
    container.run(f"{APT} {KEEP} upgrade")


def newer_package(file: Path, place: Path) -> None:
    """Make a package of the next version, whose configuration files differ."""
    tree = place / "newer"
    subprocess.run(["dpkg-deb", "-R", file, tree], check=True)
    control = tree / "DEBIAN/control"
    text = control.read_text()
    version = re.findall("(?m)^Version: (.*)$", text)[0]
    control.write_text(text.replace(version, f"{version}+1"))
    for config in [*tree.glob("etc/ooni/*.conf"), *tree.glob("etc/prometheus/rules/ooni-site.yml")]:
        config.write_text(config.read_text() + "\n# new\n")
    build_package(tree, place / file.name.replace(version, f"{version}+1"))
    shutil.rmtree(tree)


def edit_everything(container: Container) -> None:
    """Edit every configuration file, as administrators do."""
    container.run("for file in /etc/ooni/*.conf; do echo '# ours' >> $file; done")
    container.run(
        "! test -e /etc/prometheus/rules/ooni-site.yml"
        " || sed -i '/script: detector/d' /etc/prometheus/rules/ooni-site.yml"
    )


def run_again(container: Container) -> None:
    """Let a tool read its configuration, and a service start."""
    container.run("ooni-update-citizenlab --check-config --stdout")
    container.run("systemctl start ooni-update-citizenlab", check=False)
    status = container.output("systemctl show -P ExecMainStatus ooni-update-citizenlab").strip()
    expect(status == "69", f"without a database the service ends with 69: {status}")
    container.run("systemctl reset-failed")


def waiting_timers(container: Container) -> set[str]:
    """Return the timers that systemd has started."""
    listed = container.output("systemctl list-timers --no-legend 'ooni-*' 'detector*'")
    return set(re.findall(r"(\S+[.]timer)", listed))


def installed_timers(container: Container) -> set[str]:
    """Return the timers that the packages have."""
    listed = container.output(f"dpkg -L {' '.join(PACKAGES)} | sed -n 's|.*/system/||p'")
    return {name for name in listed.splitlines() if name.endswith(".timer")}


def version_of(container: Container, package: str) -> str:
    """Return the version that is installed."""
    return container.output(f"dpkg-query -f '${{Version}}' -W {package}")


def purge(container: Container) -> None:
    """Purge everything: nothing is left but the user."""
    container.run(f"{APT} purge {' '.join(PACKAGES)}")
    left = container.output(
        "find /etc /usr /var/lib"
        " \\( -path '*ooni*' -o -path '*/analysis*' -o -path '*/detector*' \\)"
        " -not -path '/etc/apt/*' -not -path '/var/lib/apt/*' -not -path '/usr/lib/python3*'"
        " -not -path '/usr/share/bash-completion/*' | sort"
    )
    expect(left == "", f"nothing is left:\n{left}")
