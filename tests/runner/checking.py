"""A guard that judges by single words, for tests of what becomes of its verdicts."""

from __future__ import annotations

from collections.abc import Sequence

from plugins.guarding import Action, Answered, Guard, Verdict
from plugins.scenario import Text


class Check(Guard):
    """Cuts what says "cut", flags what says "odd", and flags a case without statements."""

    id = "check"
    version = "2"
    codes = frozenset({"wrong", "odd", "silent"})

    def check(self, answered: Answered) -> Sequence[Verdict]:
        assert all(answered.cited(statement) for statement in answered.statements)
        found = []
        for n, statement in enumerate(answered.statements):
            if "cut" in statement.text:
                found.append(Verdict(Action.CUT, "wrong", Text("错", "wrong"), n))
            if "odd" in statement.text:
                found.append(Verdict(Action.FLAG, "odd", Text("可疑", "odd"), n))
        if not answered.statements:
            found.append(Verdict(Action.FLAG, "silent", Text("无陈述", "nothing was said")))
        return found
