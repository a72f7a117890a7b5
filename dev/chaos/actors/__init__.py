"""The tools: what they are configured with, what is new upstream, and what readers may see."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager

from dev.chaos.actors.actor import Actor
from dev.chaos.actors.asnmeta import AsnMeta
from dev.chaos.actors.backup import Backup
from dev.chaos.actors.citizenlab import CitizenLab
from dev.chaos.actors.detector import Detector
from dev.chaos.actors.fingerprints import Fingerprints
from dev.chaos.actors.geoip import GeoIP
from dev.chaos.scene import Scene

ALL = (CitizenLab, Fingerprints, AsnMeta, GeoIP, Backup, Detector)


@contextmanager
def running_actors(scene: Scene, names: Collection[str]) -> Iterator[dict[str, Actor]]:
    """Start the upstreams of some tools; yield the tools by name."""
    with ExitStack() as stack:
        actors: dict[str, Actor] = {
            kind.name: stack.enter_context(kind.running(scene))
            for kind in ALL
            if kind.name in names
        }
        yield actors
