"""What a chaos run happens on: one server, or three replicas."""

import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dev.chaos.replicas import Replicas
from dev.chaos.scene import OneServer, Scene
from dev.servers.fault_proxy import FaultProxy
from dev.servers.s3 import S3Server
from dev.servers.statsd import StatsdListener

BEDS: dict[str, type[OneServer | Replicas]] = {"server": OneServer, "replicas": Replicas}


@contextlib.contextmanager
def running_scene(bed: str) -> Iterator[Scene]:
    """Start the servers; end them and remove their files afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="ooni-chaos-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        s3 = stack.enter_context(S3Server())
        others = {
            "s3": s3,
            "store": stack.enter_context(FaultProxy(s3.endpoint)),
            "statsd": stack.enter_context(StatsdListener()),
            "token": secrets.token_hex(16),
        }
        scene = stack.enter_context(BEDS[bed].running(folder, others))
        stack.callback(scene.mend)
        yield scene
