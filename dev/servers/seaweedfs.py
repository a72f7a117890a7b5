"""SeaweedFS, an S3 server that people run, as a process of its own on 127.0.0.1.

    with SeaweedFS(folder) as s3:
        s3.create_bucket("ooni-data")

It is a program of one file, from the package of requirements/stores.txt, or where SEAWEEDFS says.
It keeps its objects on the disk, checks signatures, and knows conditions and versions.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Self

from botocore.exceptions import BotoCoreError, ClientError

from dev.debian_programs import free_port
from dev.servers.s3 import KEY, KEY_ID, S3Server

INSTALLED = Path(__file__).parents[2] / "build" / "stores" / "bin" / "weed"
TRIES = 3  # a port that was free can be taken while it starts
START_SECONDS = 120
STOP_SECONDS = 30
POLL_SECONDS = 0.2
IDENTITIES = {
    "identities": [
        {
            "name": "tool",
            "credentials": [{"accessKey": KEY_ID, "secretKey": KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
    ]
}


class StartError(Exception):
    """The server did not start; the text is what it said last."""


def program() -> Path:
    """Return where the program is, or would be."""
    return Path(os.environ.get("SEAWEEDFS") or INSTALLED)


def missing() -> str:
    """Return why it can't be started here, "" when it can."""
    path = program()
    if os.access(path, os.X_OK):
        return ""
    return f"no SeaweedFS here: {path} is not a program; `make stores-check` installs it"


class SeaweedFS(S3Server):
    """The server process.

    Args:
        folder: for its objects, configuration and log.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self.log = folder / "weed.log"

    def __enter__(self) -> Self:
        """Start it and wait until it answers.

        Raises:
            StartError: it did not.
        """
        identities = self._folder / "s3.json"
        identities.write_text(json.dumps(IDENTITIES))
        for _ in range(TRIES):
            with self.log.open("wb") as output:
                self._process = subprocess.Popen(
                    self._command(identities),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
            if self._answers(self._process):
                return self
            self.__exit__()
        raise StartError("\n".join(self.log.read_text(errors="replace").splitlines()[-20:]))

    def __exit__(self, *_exception: object) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def version(self) -> str:
        """Return what the program says of itself."""
        said = subprocess.run(
            [program(), "version"], capture_output=True, text=True, check=True, timeout=60
        )
        return said.stdout.splitlines()[0]

    def _command(self, identities: Path) -> list[str]:
        ports = {
            f"-{part}.port{kind}": free_port()
            for part in ("master", "volume", "filer", "s3")
            for kind in ("", ".grpc")
        }
        self.endpoint = f"http://127.0.0.1:{ports['-s3.port']}"
        objects = self._folder / "objects"
        objects.mkdir(exist_ok=True)
        return [
            str(program()),
            "-logtostderr=true",
            "server",
            f"-dir={objects}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            # It would tell its makers of itself.
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=64",
            "-volume.max=100",
            "-s3",
            f"-s3.config={identities}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            *(f"{name}={port}" for name, port in ports.items()),
        ]

    def _answers(self, process: subprocess.Popen[bytes]) -> bool:
        end = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < end:
            try:
                self.create_bucket("is-it-ready")
            except (BotoCoreError, ClientError):
                time.sleep(POLL_SECONDS)
            else:
                return True
        return False
