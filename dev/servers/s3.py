"""An S3 server on 127.0.0.1 for tests, demo and benchmarks: moto's, as a process of its own.

    with S3Server() as s3:
        s3.create_bucket("ooni-data")
        s3.client().list_objects_v2(Bucket="ooni-data")

Its objects are in its memory and gone with it.
"""

import os
import select
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

KEY_ID, KEY = "AKIADEMODEMODEMODEMO", "demo-secret-demo-secret-demo-secret-demo"
REGION: Final = "eu-central-1"
START_SECONDS = 120
# It logs each request, and says nowhere which port it has taken.
PROGRAM = """
import logging, os, threading
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
os.read(0, 1)  # until the end of the process that has started this one
server.stop()
"""


class S3Server:
    """The server process; it ends with this one at the latest.

    Args:
        least_part: bytes that a part of an upload must have, but for the last one; S3's 5 MiB.

    Attributes:
        endpoint: its address.
    """

    def __init__(self, least_part: int = 5 * 1024 * 1024) -> None:
        self._least_part = least_part
        self.endpoint = ""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=os.environ | {"S3_UPLOAD_PART_MIN_SIZE": str(self._least_part)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        output: Any = self._process.stdout
        ready, _, _ = select.select([output], [], [], START_SECONDS)
        port = output.readline().decode().strip() if ready else ""
        if not port:
            self.__exit__()
            raise RuntimeError("the S3 server did not start")
        self.endpoint = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._process:
            self._process.kill()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe:
                    pipe.close()
            self._process.wait()

    @property
    def pid(self) -> int:
        """Return the process, 0 when there is none."""
        return self._process.pid if self._process else 0

    def client(self) -> "S3Client":
        """Return a client."""
        import boto3.session  # noqa: PLC0415 (takes long)

        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=KEY,
        )

    def create_bucket(self, name: str) -> None:
        """Create a bucket."""
        self.client().create_bucket(
            Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION}
        )


def contents(client: "S3Client", bucket: str) -> dict[str, int]:
    """Return the keys of a bucket and the sizes of its objects."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {entry["Key"]: entry["Size"] for page in pages for entry in page.get("Contents", [])}
