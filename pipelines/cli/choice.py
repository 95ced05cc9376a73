"""Which dead letters a person means: by their numbers, or all of a scenario, of a class, or of any kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from pipelines.cli.letters import Name, read_class
from pipelines.errors import ErrorClass, PoisonReason

if TYPE_CHECKING:
    from pipelines.ledger import Ledger
    from pipelines.ledger.dead_letters import Chosen, PoisonRow


@dataclass(frozen=True, slots=True)
class Choice:
    """Dead letters that were chosen.

    Attributes:
        names: by number; empty where they are chosen by what they are.
        scenario: only work of this one; "" for any.
        kind: only of this class of work, or this reason of poison; None for any.
    """

    names: tuple[Name, ...] = ()
    scenario: str = ""
    kind: ErrorClass | PoisonReason | None = None

    @classmethod
    def read(cls, letters: Sequence[str], scenario: str, class_: str, all_: bool) -> Choice:
        """From what a person typed.

        Raises:
            typer.BadParameter: nothing is chosen, or in two ways at once.
        """
        by_kind = bool(scenario or class_)
        if [bool(letters), by_kind, all_].count(True) != 1:
            raise typer.BadParameter("choose by numbers, or by --scenario and --class, or --all; one of the three")
        if scenario and isinstance(read_class(class_), PoisonReason):
            raise typer.BadParameter(f"{class_} is a reason of poison, which belongs to no scenario")
        return cls(tuple(map(Name.read, letters)), scenario, read_class(class_))

    @property
    def work(self) -> Chosen | None:
        """The parked work that is chosen by what it is; None for none."""
        from pipelines.ledger.dead_letters import Chosen

        if self.names or isinstance(self.kind, PoisonReason):
            return None
        return Chosen(self.scenario or None, self.kind)

    @property
    def any_poison(self) -> bool:
        """Whether poison is chosen by what it is: of `reason`, or all."""
        return not (self.names or self.scenario or isinstance(self.kind, ErrorClass))

    @property
    def reason(self) -> PoisonReason | None:
        """The reason of the poison that is chosen; None for any."""
        return self.kind if isinstance(self.kind, PoisonReason) else None

    def work_ids(self) -> list[int]:
        """The pieces of work that are chosen by number."""
        return [name.number for name in self.names if not name.poison]

    def poison(self, ledger: Ledger) -> Iterator[PoisonRow]:
        """The poison that is chosen.

        Raises:
            LedgerError: a number is that of none.
        """
        yield from (ledger.poison_one(name.number) for name in self.names if name.poison)
        if self.any_poison:
            yield from ledger.each_poison(self.reason)

    def confirm(self, ledger: Ledger, yes: bool) -> None:
        """Tell how many are chosen by what they are, and end here unless `yes`; what is numbered needs no telling.

        Raises:
            typer.Exit: with 1: nothing was changed.
        """
        if self.names:
            return
        work = 0 if self.work is None else ledger.dead_letter_count(self.work)
        poison = ledger.poison_count(self.reason) if self.any_poison else 0
        typer.echo(f"chosen: {work} pieces of work, {poison} records that are no events", err=True)
        if not yes:
            typer.echo("nothing is changed; add --yes to do it", err=True)
            raise typer.Exit(1)
