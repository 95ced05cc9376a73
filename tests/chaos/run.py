"""`tests/chaos/run.py`: does every fault to the house and accounts for every event; progress on standard error.

    tests/chaos/run.py                     all of it: about 35 minutes on 2 cores, and 10 of load
    tests/chaos/run.py --only kills,model  some of it
    tests/chaos/run.py --quick             the same faults, each a little
    tests/chaos/run.py --list              their names

Ends with a table and, with `--json FILE`, the figures; exits 1 where anything was lost, doubled, wrong, stale or
unaccounted for.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import sys
import time
from pathlib import Path

from account import Outcome
from faults import FAULTS, Fault
from house import House
from options import Options
from table import table


def main() -> int:
    """Run the chosen faults; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names with commas; see --list")
    parser.add_argument("--without", default="", help="names with commas")
    parser.add_argument("--quick", action="store_true", help="each fault a little: what CI has time for")
    parser.add_argument("--kills", type=int, help="kills at each of the 15 spots (67; with --quick 3)")
    parser.add_argument("--minutes", type=float, help="of the tenfold load (10; with --quick 0.3)")
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
        kills=asked.kills or (3 if asked.quick else 67),
        minutes=asked.minutes or (0.3 if asked.quick else 10.0),
        seed=asked.seed,
    )
    outcomes = _run(_chosen(parser, asked), options)
    print(table(outcomes))
    if asked.json:
        asked.json.write_text(json.dumps({"outcomes": [one.as_json() for one in outcomes]}, indent=1) + "\n", "utf-8")
    return 0 if all(one.good for one in outcomes) else 1


def _chosen(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> list[Fault]:
    known = [fault.name for fault in FAULTS]
    only, without = (set(filter(None, text.split(","))) for text in (asked.only, asked.without))
    if unknown := (only | without) - set(known):
        parser.error(f"no fault named {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    wanted = only or {fault.name for fault in FAULTS if fault.short or not asked.quick}
    return [fault for fault in FAULTS if fault.name in wanted - without]


def _run(faults: list[Fault], options: Options) -> list[Outcome]:
    began = time.monotonic()
    outcomes: list[Outcome] = []

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:6.1f} s] {text}", file=sys.stderr, flush=True)

    for shared, group in itertools.groupby(faults, key=lambda fault: fault.in_house is not None):
        with House(say=say) if shared else contextlib.nullcontext() as house:
            for fault in group:
                say(f"{fault.name}: {fault.what}")
                for outcome in fault.in_house(house, options) if shared else fault.alone(options, say):
                    outcomes.append(outcome)
                    say(f"  {'good' if outcome.good else 'BAD '} {outcome.name}: {outcome.line}")
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
