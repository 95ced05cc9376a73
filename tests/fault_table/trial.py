"""One fault, from its making to the last alert's end: who was told of what, when, and whether the runbook is right."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy.exc import SQLAlchemyError

from tests.fault_table.fault import Fault
from tests.fault_table.flow import NOTE
from tests.fault_table.house import House
from tests.fault_table.pager import WATCHDOG, Call
from tests.fault_table.runbook import CarriedOut, carry_out

#: Seconds after the windows of the rules in which everything has to be over, and of quiet before the next fault.
_OVER, _QUIET = 240.0, 10.0
#: Pieces of work that are always under way on a busy machine.
_MUCH = 20
#: Of the longest window of a rule that a fault may leave firing: `increase(...[15m])`.
_LONGEST_WINDOW = 900.0


@dataclass
class Outcome:
    """What came of one fault; seconds are of the wall clock.

    Attributes:
        fault, what: of the row.
        alert: that was expected; None where nobody was to be told.
        scale: of the rules' waits and windows.
        at: date and time, UTC.
        fired: until Prometheus' alert was at Alertmanager.
        paged: until somebody was told; None when nobody was.
        receiver: who.
        resolved: from the mending until it no longer fired; None when it did not.
        others: alerts that were paged beside it.
        quiet: alerts that fired and were kept quiet.
        unsolved: what still fired in the end.
        runbooks: page -> what was wrong with it.
        commands: page -> how many of its commands were run.
        load: of the machine, on average over the last minute, at the page.
        machine: what it was run on, without naming it.
        trouble: what broke in the run itself.
    """

    fault: str
    what: str
    alert: str | None
    scale: float
    at: str
    fired: float | None = None
    paged: float | None = None
    receiver: str = ""
    resolved: float | None = None
    others: list[str] = field(default_factory=list)
    quiet: list[str] = field(default_factory=list)
    unsolved: list[str] = field(default_factory=list)
    runbooks: dict[str, list[str]] = field(default_factory=dict)
    commands: dict[str, int] = field(default_factory=dict)
    load: float = 0.0
    machine: str = ""
    trouble: str = ""

    @property
    def good(self) -> bool:
        """Whether the right one was paged alone and ended, and the runbooks were right."""
        told = self.alert is None or (self.paged is not None and self.resolved is not None)
        wrong = any(self.runbooks.values())
        return told and not (self.others or self.unsolved or wrong or self.trouble)


def machine() -> str:
    """What this runs on, without naming it."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.machine()}, Python {platform.python_version()}"


class Trial:
    """Makes one fault in the house.

    Args:
        house: running, with nothing firing.
        fault: to be made.
        say: told each step.
    """

    def __init__(self, house: House, fault: Fault, say: Callable[[str], None]) -> None:
        self._house, self._fault, self._say = house, fault, say
        now = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        self.outcome = Outcome(fault.name, fault.what, fault.alert, house.scale, now, machine=machine())
        self._calls_before = len(house.telephone.calls)

    def run(self) -> Outcome:
        """All of it."""
        house, fault, outcome = self._house, self._fault, self.outcome
        house.watch.begin()
        began = time.time()
        mended = None
        try:
            fault.make(house)
            self._wait_for_page(began)
            self._carry_out_runbooks("Diagnosis", fault.pages)
            time.sleep(fault.linger)
            if fault.by_hand and outcome.paged is not None:
                mended = time.time()
                fault.first(house)
                self._carry_out_runbooks("Mitigation", ())
        except Exception as error:
            outcome.trouble = f"{type(error).__name__}: {error}"[:300]
        finally:
            mended = mended or time.time()
            self._mend()
        self._wait_for_the_end(mended)
        return outcome

    def _mend(self) -> None:
        try:
            self._fault.mend(self._house)
        except Exception as error:
            self.outcome.trouble += f" mending: {type(error).__name__}: {error}"[:300]

    # --- what is paged -----------------------------------------------------------------------------------------------

    @property
    def _calls(self) -> list[Call]:
        """Of this trial: that something fires."""
        return [call for call in self._house.telephone.calls[self._calls_before :] if call.firing]

    @property
    def _expected(self) -> str | None:
        fault = self._fault
        return fault.alert and fault.alert + (f" ({fault.about})" if fault.about else "")

    def _page(self) -> Call | None:
        return next((call for call in self._calls if call.alert == self._expected), None)

    def _wait_for_page(self, began: float) -> None:
        fault, outcome = self._fault, self.outcome
        if fault.alert is None:
            return
        patience = 30 + fault.waits + fault.windows * self._house.scale + 20
        self._house.wait(lambda: self._page() is not None, patience)
        outcome.load = os.getloadavg()[0]
        page = self._page()
        seen = self._house.watch.seen().get(self._expected or "")
        outcome.fired = None if seen is None else round(seen.first - began, 1)
        if page is None:
            self._say(f"  {self._expected} was not paged within {patience:.0f} s")
            return
        outcome.paged, outcome.receiver = round(page.at - began, 1), page.receiver
        self._say(f"  {page.alert} paged {page.receiver} after {outcome.paged:.0f} s")

    def _wait_for_the_end(self, mended: float) -> None:
        house, outcome = self._house, self.outcome
        patience = _OVER + _LONGEST_WINDOW * house.scale
        quiet_since: list[float] = []

        def over() -> bool:
            if house.watch.active() or house.telephone.silent or self._behind():
                quiet_since.clear()
                return False
            quiet_since.append(time.monotonic())
            return quiet_since[-1] - quiet_since[0] > _QUIET

        house.wait(over, patience)
        seen = house.watch.seen()
        outcome.unsolved = sorted(house.watch.active())
        mine = seen.get(self._expected or "")
        if mine is not None and self._expected not in outcome.unsolved:
            outcome.resolved = round(max(0.0, mine.last - mended), 1)
        if self._expected == WATCHDOG and not house.telephone.silent:
            outcome.resolved = round(next(at for at in house.telephone.alive if at > mended) - mended, 1)
        told = {call.alert for call in self._calls}
        outcome.others = sorted(told - {self._expected})
        outcome.quiet = sorted(set(seen) - told - {self._expected})
        self._say(f"  over after {time.time() - mended:.0f} s; others {outcome.others}, quiet {outcome.quiet}")

    def _behind(self) -> bool:
        """Whether work of the fault is still to be done."""
        try:
            return self._house.unfinished() > _MUCH
        except SQLAlchemyError:  # it was down, and the pool does not know yet that it is back
            return True

    # --- runbooks ----------------------------------------------------------------------------------------------------

    def _carry_out_runbooks(self, heading: str, further: tuple[str, ...]) -> None:
        pages = (self._fault.alert, *further) if self.outcome.paged is not None else further
        for page in filter(None, pages):
            done = carry_out(
                page,
                heading,
                folder=self._house.places.house,
                environment=self._house.shell(),
                addresses=self._house.addresses(),
                words=self._words(),
                scale=self._house.scale,
            )
            self._note(done)

    def _note(self, done: CarriedOut) -> None:
        self.outcome.runbooks.setdefault(done.page, []).extend(done.wrong)
        self.outcome.commands[done.page] = self.outcome.commands.get(done.page, 0) + len(done.steps)
        for wrong in done.wrong:
            self._say(f"  runbook {done.page}: {wrong}")

    def _words(self) -> dict[str, str]:
        """What a page's placeholders stand for."""
        house = self._house
        words = {"SCENARIO": self._fault.about if "." in self._fault.about else NOTE, "SOURCE": "hospital"}
        if house.stack.out:  # the ledger may be among them
            return words
        parked, poison = house.ledger.dead_letters(), house.ledger.poison()
        words |= {"ID": str(parked[0].id)} if parked else {}
        words |= {"POISON": f"p{poison[-1].id}"} if poison else {}
        return words | house.words
