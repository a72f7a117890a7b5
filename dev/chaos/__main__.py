"""Run all tools while things go wrong.

python -m dev.chaos run --seed 1 --minutes 10
python -m dev.chaos replay build/chaos/seed-1.jsonl --until 17
"""

import argparse
import itertools
import math
import sys
from pathlib import Path

from dev.chaos import schedule
from dev.chaos.kinds import BEDS
from dev.chaos.kinds.kind import EVERYBODY
from dev.chaos.loop import Report, possible_kinds, run_steps
from dev.chaos.tool import ROOT

STEPS_A_MINUTE = 120  # more than any machine takes
FOLDER = ROOT / "build" / "chaos"


def main() -> None:
    """Run, or replay, as the command line says."""
    arguments = _arguments()
    if arguments.command == "replay":
        steps = schedule.read(arguments.file)
        seconds, path = math.inf, arguments.file
        if arguments.until:
            steps = schedule.up_to(steps, arguments.until)
    else:
        bed = "" if arguments.bed == "server" else f"-{arguments.bed}"
        path = FOLDER / f"seed-{arguments.seed}{bed}.jsonl"
        steps = _write_schedule(path, arguments)
        seconds = 60 * arguments.minutes
    report = run_steps(
        steps,
        seconds=seconds,
        bed=arguments.bed,
        verbose=arguments.verbose,
        go_on=arguments.go_on,
    )
    _tell(report, f"--bed {arguments.bed} {path}")
    if report.violations:
        sys.exit(1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dev.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="draw a schedule, write it down, and run it")
    run.add_argument("--seed", type=int, default=1)
    run.add_argument("--minutes", type=float, default=10)
    run.add_argument("--streams", type=int, default=1, metavar="N", help="steps at the same time")
    run.add_argument("--actor", action="append", choices=EVERYBODY, help="only this tool")
    run.add_argument("--kind", action="append", help="only this kind of fault")
    replay = commands.add_parser("replay", help="run the steps of a file")
    replay.add_argument("file", type=Path)
    replay.add_argument(
        "--until", type=int, metavar="N", help="end after the step of this number, of its stream"
    )
    for command in (run, replay):
        command.add_argument("--bed", choices=BEDS, default="server", help="what the tools work on")
        command.add_argument("--go-on", action="store_true", help="do not end at a violation")
        command.add_argument("-v", "--verbose", action="store_true", help="tell how each run ended")
    return parser.parse_args()


def _write_schedule(path: Path, arguments: argparse.Namespace) -> list[schedule.Step]:
    actors_by_kind = possible_kinds(arguments.bed, arguments.actor or EVERYBODY)
    if arguments.kind:
        actors_by_kind = {name: actors_by_kind[name] for name in arguments.kind}
    count = math.ceil(STEPS_A_MINUTE * arguments.minutes)
    steps = list(
        itertools.islice(schedule.drawn(arguments.seed, actors_by_kind, arguments.streams), count)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    schedule.write(path, steps)
    print(f"{len(actors_by_kind)} kinds of faults; the schedule is in {path.relative_to(ROOT)}")
    return steps


def _tell(report: Report, replayed: str) -> None:
    print(f"\n{report.steps.total()} faults of {len(report.steps)} kinds")
    for kind, count in sorted(report.steps.items()):
        print(f"{count:6}  {kind}")
    for actor, seconds in sorted(report.seconds.items()):
        print(f"{actor}: {len(seconds)} steps, {sum(seconds) / len(seconds):.1f} s each")
    for step, violation in report.violations:
        print(f"\nstep {step.number} ({step.actor}: {step.kind}): {violation}")
        print(f"again: python -m dev.chaos replay -v --until {step.number} {replayed}")
    print(f"{len(report.violations)} violations")


if __name__ == "__main__":
    main()
