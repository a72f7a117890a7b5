"""A stand-in for the OONI API in a container: its user, its folder, and a service that spools.

They are as OONI deploys them: /var/lib/ooniapi is the user ooniapi's, and the service runs as this
user, may write there, and has no StateDirectory. It never stops spooling measurements and removes
old ones, as the uploader does; the journal has each failure.
"""

import time

from dev.e2e.container import Container

FOLDER = "/var/lib/ooniapi"
SPOOL = f"{FOLDER}/measurements/incoming"
IDENTIFIER = "ooni-api"
LET_IN = f"setfacl -m u:ooni:rwx {FOLDER}"
SECONDS = 30  # within which something is spooled; far more than it takes
UNIT = f"""\
[Service]
User=ooniapi
ExecStart=/usr/bin/python3 /usr/local/bin/spool
SyslogIdentifier={IDENTIFIER}
ProtectSystem=strict
ReadWriteDirectories={FOLDER}
"""
SPOOLER = f"""\
import contextlib, itertools, os, time

spooled = 0
for number in itertools.count():
    hour = f"{SPOOL}/{{number // 50}}"
    old = f"{SPOOL}/{{number // 50 - 2}}"
    try:
        os.makedirs(hour, exist_ok=True)
        with open(f"{{hour}}/.{{number}}", "w") as file:
            file.write("a measurement")
        os.rename(f"{{hour}}/.{{number}}", f"{{hour}}/{{number}}")
        spooled += 1
        if spooled % 20 == 0:
            print("spooled", spooled, flush=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{{old}}/{{number - 100}}")
            if number % 50 == 49:
                os.rmdir(old)
    except OSError as error:
        print("failed:", error, flush=True)
    time.sleep(0.01)
"""
# Files of the API besides the spool: among them links that lead out of the folder.
INSTALL = f"""\
useradd --system --home-dir {FOLDER} ooniapi
install -d -o ooniapi -g ooniapi {FOLDER} {FOLDER}/measurements {SPOOL}
cd {FOLDER}/measurements
install -m 640 -o ooniapi -g ooniapi /dev/null private
ln -s /etc/passwd link
ln -s /etc links
chown -h ooniapi:ooniapi link links
systemctl daemon-reload
systemctl start ooni-api
"""


class OoniApi:
    """The API in a container, spooling."""

    def __init__(self, container: Container) -> None:
        """Install and start it."""
        self._container = container
        (container.root / "usr/local/bin/spool").write_text(SPOOLER)
        (container.root / "etc/systemd/system/ooni-api.service").write_text(UNIT)
        container.run(f"set -e; {INSTALL}")
        self.wait_until("spooled")

    def failures(self) -> int:
        """Return how often it could not spool."""
        return self._lines("failed")

    def wait_until(self, word: str) -> None:
        """Wait until it has "spooled" or "failed" some times more.

        Raises:
            RuntimeError: it does not within a time that is ample.
        """
        lines, deadline = self._lines(word), time.monotonic() + SECONDS
        while self._lines(word) < lines + 3:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the API has not {word} in {SECONDS} s")
            time.sleep(0.1)

    def owners_and_modes(self) -> str:
        """Return type, owner, mode and path of everything but the spooled and the tool's files."""
        return self._container.output(
            f"find {FOLDER} -not -path '{SPOOL}/*' -not -name '*.mmdb*' -not -name 'geoipdbts*'"
            " -printf '%y %u:%g %m %p\\n' | sort"
        )

    def taken(self) -> str:
        """Return the paths of the spool that are not the API's any more."""
        return self._container.output(
            f"find {SPOOL} -ignore_readdir_race -not '(' -user ooniapi -group ooniapi ')' || true"
        )

    def remove(self) -> None:
        """Remove all of it."""
        self._container.run(
            f"systemctl stop ooni-api; rm -r {FOLDER} /etc/systemd/system/ooni-api.service;"
            " userdel ooniapi; systemctl daemon-reload"
        )

    def _lines(self, beginning: str) -> int:
        lines = self._container.journal(IDENTIFIER, "-o cat").splitlines()
        return sum(line.startswith(beginning) for line in lines)
