"""Guard `echo`: a statement that hands back what the model was told to do says nothing of the patient.

Small models do it when the record has little to say. Words are compared (pairs of characters in Chinese), and only
where hardly any of them stands in the lines that the statement cites.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from plugins.guarding import Action, Answered, Guard, Verdict
from plugins.guards.support import MOST_UNSUPPORTED, unsupported
from plugins.hookspecs import hookimpl
from plugins.scenario import Text

#: Share of a statement's words that may not be the instruction's, for it to be an echo.
_OWN_WORDS = 0.25
_REPEATS = Text(zh="该陈述是对模型的指令的复述", en="repeats what the model was told to do")


class Echo(Guard):
    """Answers that repeat the instruction."""

    id: ClassVar[str] = "echo"
    version: ClassVar[str] = "1.0.0"
    codes: ClassVar[frozenset[str]] = frozenset({"repeats-instruction"})

    def check(self, answered: Answered) -> Sequence[Verdict]:
        """CUT each statement whose words are the instruction's and not the record's."""
        if not answered.instruction:
            return ()
        return [
            Verdict(Action.CUT, "repeats-instruction", _REPEATS, n)
            for n, statement in enumerate(answered.statements)
            if _told(statement.text, answered.instruction)
            and unsupported(statement.text, [fact.text for fact in answered.cited(statement)]) > MOST_UNSUPPORTED
        ]


@hookimpl
def careloom_guards() -> Iterable[Guard]:
    """This plugin's guard."""
    return [Echo()]


def _told(text: str, instruction: str) -> bool:
    """Whether a text that is long enough to tell is made of the instruction's words."""
    nothing = unsupported(text, ())  # 0 for a text that is too short
    return nothing > 0 and unsupported(text, [instruction]) <= _OWN_WORDS
