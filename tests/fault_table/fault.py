"""One row of the fault table: what is done to the house, and who has to be told of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.fault_table.house import House

Do = Callable[[House], None]


@dataclass(frozen=True)
class Fault:
    """One row of the table.

    Attributes:
        name: for `--only`.
        what: what is wrong, for the table.
        make, mend: of the fault; `mend` may be called when it is mended already.
        alert: that has to be paged, and no other; None where nobody is to be told.
        about: what the alert has to be about: a dependency, a scenario; "" where there is but one.
        waits: seconds until it may be paged at the latest, of what does not scale: attempts, deadlines, heartbeats.
        windows: seconds of the rule's own wait and windows.
        linger: seconds that the fault stays after the page, to see what else is paged.
        pages: further runbooks that are for this fault: of alerts that it keeps quiet.
        by_hand: whether the page's commands under Mitigation mend it.
        first: what has to be done before them.
    """

    name: str
    what: str
    make: Do
    mend: Do
    alert: str | None
    about: str = ""
    waits: float = 60.0
    windows: float = 60.0
    linger: float = 20.0
    pages: tuple[str, ...] = ()
    by_hand: bool = False
    first: Do = lambda house: None
