"""`make bench`: every benchmark, one after the other; one JSON and one table.

Each result is written as soon as it is there, and a run of some (`--only`) leaves the figures of the others in the
file: what was broken off goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from importlib import import_module
from pathlib import Path

from pipelines.stack.part import PROJECT
from tests.bench import figures

BENCHES = {
    "event_to_code": "event_to_code",
    "burst": "burst",
    "gateway": "gateway_rate",
    "model_path": "model_path",
    "prefix_cache": "prefix_cache",
    "profile": "hot_spots",
    "metrics_exact": "metrics_exact",
    "scrape": "scrape",
    "monitoring_cost": "monitoring_cost",
}
FILE = PROJECT / ".careloom" / "bench" / "figures.json"


def main() -> int:
    """Returns 0 when every bar holds that was measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", default="", help=f"some of {', '.join(BENCHES)}, with commas")
    parser.add_argument("--quick", action="store_true", help="fewer of everything: a look, no figure to rely on")
    parser.add_argument("--json", type=Path, default=FILE, help=f"default: {FILE.relative_to(PROJECT)}")
    options = parser.parse_args()
    wanted = [name for name in options.only.split(",") if name] or list(BENCHES)
    if unknown := set(wanted) - set(BENCHES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    done = {result.bench: result for result in figures.read(options.json)} if options.only else {}
    for name in wanted:
        done[name] = _run(name, options.quick)
        figures.write(options.json, [done[one] for one in BENCHES if one in done])
        print(figures.table([done[name]]), file=sys.stderr)
    ran = [done[name] for name in wanted]
    print(figures.table(ran))
    figures.say(f"written to {options.json}")
    return figures.verdict(ran) or int(any(result.why_not for result in ran))


def _run(name: str, quick: bool) -> figures.Result:
    """One benchmark; one that breaks is told of, and the others go on."""
    bench = import_module(f"tests.bench.{BENCHES[name]}").bench
    try:
        return figures.timed(name, bench, quick)
    except Exception as error:
        traceback.print_exc()
        return figures.Result(name, why_not=f"it broke: {type(error).__name__}: {error}")


if __name__ == "__main__":
    sys.exit(main())
