"""A Debian system in a container, with the real systemd: for the end-to-end test.

It needs root, mmdebstrap and systemd-nspawn. The container shares this machine's network, so that
the servers that tests start on 127.0.0.1 are there for it, too.
"""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PACKAGES = (
    "systemd,systemd-sysv,python3,git,ca-certificates,man-db,util-linux,bash-completion,acl,dbus"
)
BOOT_SECONDS = 60


def base_system(folder: Path, release: str) -> Path:
    """Return a Debian root file system as a tar archive; it is made once for the same packages."""
    archive, made_with = folder / f"base-{release}.tar", folder / f"base-{release}.packages"
    if not (archive.exists() and made_with.exists() and made_with.read_text() == PACKAGES):
        print(f"making a Debian {release} with mmdebstrap", flush=True)
        new = archive.with_suffix(".new.tar")
        subprocess.run(
            ["mmdebstrap", "--quiet", f"--include={PACKAGES}", release, str(new)], check=True
        )
        new.replace(archive)
        made_with.write_text(PACKAGES)
    return archive


class Container:
    """A running container; ended by the process that was started."""

    def __init__(self, root: Path, process: subprocess.Popen[bytes]) -> None:
        self.root = root
        self._process = process
        self._init = ""

    def run(self, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of the shell as root in the container; return what it printed.

        Raises:
            RuntimeError: it failed, and `check` is set.
        """
        done = subprocess.run(
            [
                "nsenter",
                "-t",
                self._init,
                "-m",
                "-u",
                "-i",
                "-n",
                "-p",
                "-C",
                "/bin/sh",
                "-c",
                command,
            ],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "COLUMNS": "100"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"$ {command}\n{done.stdout}{done.stderr}exit {done.returncode}")
        return done

    def output(self, command: str) -> str:
        """Run a command and return what it printed to its standard output."""
        return self.run(command).stdout

    def journal(self, identifier: str, options: str) -> str:
        """Return what the journal has by now of an identifier."""
        return self.output(f"journalctl --sync; journalctl -q -t {identifier} {options}")

    def wait_until_booted(self) -> None:
        """Wait until systemd has started everything."""
        deadline = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < deadline:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
            self._init = next(iter(children.read_text().split()), "")
            if self._init:
                state = self.run("systemctl is-system-running", check=False).stdout.strip()
                if state in ("running", "degraded"):
                    return
            if self._process.poll() is not None:
                raise RuntimeError("the container ended while it booted")
            time.sleep(0.2)
        raise RuntimeError("the container did not boot in time")

    def stop(self) -> None:
        """Power it off."""
        if self._init:
            self.run("systemctl poweroff", check=False)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def running(archive: Path, folder: Path) -> Iterator[Container]:
    """Unpack a root file system below `folder`, boot it, and remove it afterwards."""
    root = folder / "root"
    root.mkdir()
    subprocess.run(["tar", "-xf", str(archive), "-C", str(root)], check=True)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (root / "etc/machine-id").write_text("")
    command = ["systemd-nspawn", "--boot", "--quiet", "--register=no", "--keep-unit"]
    process = subprocess.Popen(
        [*command, "--console=read-only", "-D", str(root)],
        stdin=subprocess.DEVNULL,
        stdout=(folder / "console.log").open("wb"),
        stderr=subprocess.STDOUT,
    )
    container = Container(root, process)
    try:
        container.wait_until_booted()
        yield container
    finally:
        container.stop()
        shutil.rmtree(root)
