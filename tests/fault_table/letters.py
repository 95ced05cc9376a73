"""An outside plugin of the fault run's house: short letters that rules alone write, each ward's a scenario of its own.

The house's own scenarios have minutes until their drafts are late, and events all the while. A ward's letters are few
and due after seconds, so that a fault can say how many of them are late, and shows within minutes what takes days.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from plugins.fhir_text import DEVICE, Line, narrative, source_of, subject
from plugins.hookspecs import hookimpl
from plugins.scenario import Case, Draft, Finding, Prompt, Risk, Scenario, Stage, Text, Trigger

#: Wards whose letters are due after `DUE`, and the archive, which has time.
WARDS, ARCHIVE = ("north", "east", "south", "west", "children", "surgery"), "archive"
DUE, HAS_TIME = timedelta(seconds=20), timedelta(hours=1)
#: Of an Encounter whose letter is to be written; nothing else of the house is triggered by it.
STATUS = "onleave"


class Nothing(BaseModel):
    """No model is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    said: Literal["nothing"]


class Letter(Scenario[Nothing]):
    """One prepared Communication."""

    version = "1.0.0"
    stage = Stage.POST_VISIT
    risk = Risk.A
    record = ()
    output_model = Nothing
    prompt_version = "letter-1"
    ward: ClassVar[str]

    def prompt(self, case: Case) -> Prompt:
        """Never asked for."""
        return Prompt("", [])

    def asks(self, case: Case, findings: Sequence[Finding]) -> bool:
        """Rules write all of it."""
        return False

    def rule_drafts(self, case: Case, findings: Sequence[Finding]) -> Sequence[Draft]:
        """The letter."""
        source = source_of(case.trigger)
        resource = {
            "resourceType": "Communication",
            "text": narrative([("Letter", [Line(self.ward, (source,))])], case.locale),
            "status": "preparation",
            "subject": {"reference": subject(case)},
            "sender": {"reference": DEVICE},
            "payload": [{"contentString": self.ward}],
        }
        return [Draft("letter", resource, (source,))]

    def drafts(self, case: Case, answer: Nothing, findings: Sequence[Finding]) -> Sequence[Draft]:
        """Never asked for."""
        return ()


def scenario(ward: str) -> str:
    """The id of a ward's letters."""
    return f"post_visit.letter_{ward}"


def _letters(of: str, due: timedelta) -> Letter:
    class Ward(Letter):
        id = scenario(of)
        title = Text(zh=f"信件 {of}", en=f"Letters of {of}")
        triggers = (Trigger("Encounter", {"status": (STATUS,), "serviceType.text": (of,)}, why="a letter is due"),)
        deadline = due
        ward = of

    return Ward()


@hookimpl
def careloom_scenarios() -> Iterable[Scenario[Any]]:
    """Every ward's, and the archive's."""
    return [*(_letters(ward, DUE) for ward in WARDS), _letters(ARCHIVE, HAS_TIME)]
