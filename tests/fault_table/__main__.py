"""`make fault-table`: makes every fault in the running stack, one after the other, and tells who was paged.

Each outcome is kept as soon as it is there; `--only` leaves the others in the file, and `--write` makes a page of all.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pipelines.errors import StackError
from pipelines.stack.part import PROJECT
from tests.fault_table import results
from tests.fault_table.fault import Fault
from tests.fault_table.faults import FAULTS
from tests.fault_table.house import House
from tests.fault_table.trial import Outcome, Trial

#: Seconds until the first drafts are written, and of quiet before the first fault.
_FIRST, _BEFORE = 300.0, 30.0


def main() -> int:
    """Returns 0 when every fault paged its alert alone, ended, and its runbook was right."""
    options = _options()
    if options.list:
        for fault in FAULTS:
            print(f"{fault.name:<22}{fault.what:<60}{fault.alert or '-'}")
        return 0
    wanted = _wanted(options.only)
    done = results.read(options.json) if options.page_only else _run(wanted, options)
    print(results.table(results.ordered(done)))
    if options.write:
        results.PAGE.write_text(results.page(results.ordered(done)), "utf-8")
    return 0 if all(done[fault.name].good for fault in wanted if fault.name in done) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fault_table", description=__doc__)
    parser.add_argument("--list", action="store_true", help="what faults there are")
    parser.add_argument("--only", default="", help="some of them, with commas, in this order")
    parser.add_argument("--scale", type=float, default=1.0, help="shorten the rules' waits and windows (0.25)")
    parser.add_argument("--json", type=Path, default=results.FILE, help="where outcomes are kept")
    parser.add_argument("--write", action="store_true", help=f"write {results.PAGE.relative_to(PROJECT)} from them")
    parser.add_argument("--page-only", action="store_true", help="run nothing: --write from what is kept")
    return parser.parse_args()


def _wanted(only: str) -> list[Fault]:
    names = [name for name in only.split(",") if name]
    known = {fault.name: fault for fault in FAULTS}
    if unknown := set(names) - set(known):
        sys.exit(f"no such fault: {', '.join(sorted(unknown))}; --list shows what there is")
    return [known[name] for name in names] or list(FAULTS)


def _run(wanted: Sequence[Fault], options: argparse.Namespace) -> dict[str, Outcome]:
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"[{time.monotonic() - began:6.0f} s] {what}", file=sys.stderr, flush=True)

    done = results.read(options.json)
    with tempfile.TemporaryDirectory(prefix="careloom-faults-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        with House(Path(folder), scale=options.scale, say=say) as house:
            _quiet_at_first(house, say)
            for number, fault in enumerate(wanted, 1):
                say(f"{number} of {len(wanted)}: {fault.name}, {fault.what}")
                done[fault.name] = Trial(house, fault, say).run()
                results.write(options.json, results.ordered(done))
            say(f"the dead man's switch was called {len(house.telephone.alive)} times; {house.flow.admitted} admitted")
    return done


def _quiet_at_first(house: House, say: Callable[[str], None]) -> None:
    """Wait until drafts are written and nothing fires."""
    if house.wait(lambda: house.ledger.account().work.get("written", 0) > 5, _FIRST) is None:  # type: ignore[call-overload]
        raise StackError(f"no draft was written within {_FIRST:.0f} s; states: {dict(house.ledger.account().work)}")
    say("drafts are written")
    time.sleep(_BEFORE * house.scale)
    if house.wait(lambda: not house.watch.active(), 120) is None:
        raise StackError(f"alerts fire before any fault was made: {sorted(house.watch.active())}")


if __name__ == "__main__":
    sys.exit(main())
