"""The guard API: what holds a model's answer against what it was shown, as pure values and functions.

The schema and the citations are held by the core for every answer. A guard looks at the statements that are left.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from pydantic import BaseModel

from plugins.scenario import Case, Fact, Risk, Statement, Text


class Action(StrEnum):
    """What becomes of a statement."""

    CUT = "cut"
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a guard found wrong with one statement, or with the case as a whole.

    Attributes:
        action: CUT takes the statement out of the answer; FLAG leaves it and tells the reader.
        code: what was wrong, of a closed set that the guard declares in `codes`; a metric label.
        text: for the clinician who reads the draft; never text of the record or of the answer.
        statement: place in `Answered.statements`; None where it is about the case (then it is a FLAG).
    """

    action: Action
    code: str
    text: Text
    statement: int | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """What a guard is given.

    Attributes:
        scenario: id of the scenario.
        risk: its risk class.
        case: the case that the model was asked about.
        statements: the answer's statements in order, citing "Type/id" or a passage's source.
        answer: the whole answer, for what is not a statement.
        facts: source -> texts of the facts about it that the model was shown.
        instruction: what the model was told to do; "" where it is not known.
    """

    scenario: str
    risk: Risk
    case: Case
    statements: Sequence[Statement]
    answer: BaseModel
    facts: Mapping[str, Sequence[str]]
    instruction: str = ""

    def cited(self, statement: Statement) -> list[Fact]:
        """The facts that a statement rests on."""
        return [Fact(source, text) for source in statement.sources for text in self.facts.get(source, ())]


class Guard(ABC):
    """One guard. Subclass it, fill the class attributes, return an instance from `careloom_guards`.

    Class attributes:
        id: lower-case words with hyphens, unique; a metric label.
        version: stands in Provenance with the id.
        codes: every code that a verdict of it may carry.
    """

    id: ClassVar[str]
    version: ClassVar[str]
    codes: ClassVar[frozenset[str]]

    @abstractmethod
    def check(self, answered: Answered) -> Sequence[Verdict]:
        """What is wrong; empty where nothing is. Pure: no I/O, no clock but `case.now`."""
