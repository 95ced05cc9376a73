"""`tests/chaos/run.py`: does every fault to the house and accounts for every event; progress on standard error.

    tests/chaos/run.py                     all of it: about 40 minutes on 2 cores, and 10 of load
    tests/chaos/run.py --only kills,model  some of it
    tests/chaos/run.py --quick             the same faults, each a little
    tests/chaos/run.py --list              their names
    tests/chaos/run.py --only load --seconds 60    a minute of it

Ends with a table and, with `--json FILE`, the figures, which stand there after each fault; exits 1 where anything was
lost, doubled, wrong, stale or unaccounted for, or was not done to its end. Ctrl-C (or SIGTERM) ends the fault under
way: what it did drains and is accounted for, and the rest is left out; a second one breaks off.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from account import Outcome
from faults import FAULTS, Fault
from house import House
from options import Options
from table import table

from pipelines.fail_points import NAMES

_KILLS = 1000


def main() -> int:
    """Run the chosen faults; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names with commas; see --list")
    parser.add_argument("--without", default="", help="names with commas")
    parser.add_argument("--quick", action="store_true", help="each fault a little; CI has time for some of them")
    parser.add_argument(
        "--kills",
        type=int,
        help=f"kills at each of the {len(NAMES)} fail points (1,000 over all; with --quick 3 at each)",
    )
    parser.add_argument("--limit", type=float, default=1500, help="seconds until the kills end, done or not (1500)")
    parser.add_argument("--seconds", type=float, help="of the tenfold load (600; with --quick 20)")
    parser.add_argument("--rate", type=float, help="normal events/s; left out, an eighth of what is seen to be carried")
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--list", action="store_true", help="name the faults and end")
    asked = parser.parse_args()
    if asked.list:
        print("\n".join(f"{fault.name:12} {fault.what}" for fault in FAULTS))
        return 0
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # a broker that is killed on purpose is no news
    options = Options(
        quick=asked.quick,
        kills=asked.kills or (3 if asked.quick else -(-_KILLS // len(NAMES))),
        seconds=asked.seconds or (20.0 if asked.quick else 600.0),
        rate=asked.rate,
        seed=asked.seed,
        limit=asked.limit,
    )
    _end_when_asked(options)
    chosen, outcomes = _chosen(parser, asked), list[Outcome]()
    for outcome in _run(chosen, options):
        outcomes.append(outcome)
        if asked.json:
            _keep(asked.json, outcomes)
    print(table(outcomes))
    if options.over.is_set():
        print("broken off by a signal: what was done is accounted for above, the rest was not done", file=sys.stderr)
    return 0 if all(one.good for one in outcomes) and not options.over.is_set() else 1


def _keep(file: Path, outcomes: list[Outcome]) -> None:
    """Write the figures, so that there is no moment without a whole file."""
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps({"outcomes": [one.as_json() for one in outcomes]}, indent=1) + "\n", "utf-8")
    partial.replace(file)


def _end_when_asked(options: Options) -> None:
    """The first signal ends the fault under way, a second one everything."""

    def asked(number: int, _: object) -> None:
        if options.over.is_set():
            raise KeyboardInterrupt
        options.over.set()
        print("  ends after this fault's account; once more breaks off", file=sys.stderr, flush=True)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, asked)


def _chosen(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> list[Fault]:
    known = [fault.name for fault in FAULTS]
    only, without = (set(filter(None, text.split(","))) for text in (asked.only, asked.without))
    if unknown := (only | without) - set(known):
        parser.error(f"no fault named {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    wanted = only or {fault.name for fault in FAULTS if fault.short or not asked.quick}
    return [fault for fault in FAULTS if fault.name in wanted - without]


def _run(faults: list[Fault], options: Options) -> Iterator[Outcome]:
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:6.1f} s] {text}", file=sys.stderr, flush=True)

    for shared, group in itertools.groupby(faults, key=lambda fault: fault.in_house is not None):
        with House(say=say) if shared else contextlib.nullcontext() as house:
            for fault in group:
                if options.over.is_set():
                    return
                say(f"{fault.name}: {fault.what}")
                for outcome in fault.in_house(house, options) if shared else fault.alone(options, say):
                    say(f"  {'good' if outcome.good else 'BAD '} {outcome.name}: {outcome.line}")
                    yield outcome
                    if options.over.is_set():
                        return


if __name__ == "__main__":
    sys.exit(main())
