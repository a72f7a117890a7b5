"""Some steps of a chaos run on three replicas."""

import itertools
import math

import pytest

from dev.chaos import kinds, schedule
from dev.chaos.loop import run_steps

pytestmark = [pytest.mark.production, pytest.mark.timeout(1200)]

STEADY = ("replica away", "two replicas away", "shadow dropped", "rolled back")


@pytest.mark.usefixtures("zookeeper_is_installed")
def test_steps_that_end_alike_on_every_machine_show_no_violation_on_replicas() -> None:
    possible = {
        kind.name: ["asnmeta", "citizenlab"]
        for kind in kinds.BEDS["replicas"]
        if kind.name in STEADY
    }
    steps = list(itertools.islice(schedule.drawn(1, possible), 2 * len(STEADY)))
    report = run_steps(steps, seconds=math.inf, bed="replicas")
    assert report.violations == []
    assert report.steps.total() == 2 * len(STEADY)
