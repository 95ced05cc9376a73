"""What guards find wrong with an answer, applied: statements are cut or flagged, and the reader is told of each."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from pipelines.runner.plugin_faults import of_plugin
from plugins.guarding import Action, Answered, Guard, Verdict
from plugins.scenario import Case, Fact, Finding, Scenario, Severity, Statement, Text

Answer = TypeVar("Answer", bound=BaseModel)

#: Characters of a flagged statement by which its reader finds it.
_QUOTED = 40


@dataclass(frozen=True, slots=True)
class Judged(Generic[Answer]):
    """An answer after the guards.

    Attributes:
        answer: without the statements that were cut.
        cut: how many those are.
        findings: what its reader must be told, each once.
        counts: (guard, code, action) -> how often.
    """

    answer: Answer
    cut: int
    findings: tuple[Finding, ...]
    counts: Mapping[tuple[str, str, str], int]


def judged(
    guards: Sequence[Guard],
    answer: Answer,
    *,
    scenario: Scenario[Any],
    case: Case,
    facts: Sequence[Fact],
    instruction: str = "",
) -> Judged[Answer]:
    """Have every guard look at an answer, then do what they say. Each sees all statements, also those that others cut.

    Args:
        guards: in the order in which they look.
        answer: has passed `pipelines.runner.guard.guarded`.
        scenario: whose it is.
        case: that the model was asked about.
        facts: that the model was shown.
        instruction: what it was told to do.

    Raises:
        StepFailed: SCENARIO_ERROR: a guard failed, or gave a verdict that it has not declared. An answer that cannot
            be guarded is not let through.
    """
    statements = tuple(_statements(answer))
    answered = Answered(scenario.id, scenario.risk, case, statements, answer, _by_source(facts), instruction)
    cut: set[int] = set()
    findings: dict[tuple[str, Text], Finding] = {}
    counts: Counter[tuple[str, str, str]] = Counter()
    for guard in guards:
        with of_plugin(f"guard {guard.id}"):
            verdicts = tuple(guard.check(answered))
            for verdict in verdicts:
                _check(guard, verdict, len(statements))
        for verdict in verdicts:
            if verdict.action is Action.CUT and verdict.statement is not None:
                cut.add(verdict.statement)
            finding = _finding(guard, verdict, statements)
            findings.setdefault((finding.code, finding.text), finding)
            counts[guard.id, verdict.code, verdict.action.value] += 1
    kept = _without(answer, cut, itertools.count()) if cut else answer
    return Judged(kept, len(cut), tuple(findings.values()), dict(counts))


def _statements(value: Any) -> Iterator[Statement]:
    """An answer's statements in the order of its fields."""
    if isinstance(value, Statement):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _statements(getattr(value, name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _statements(item)


def _without(value: Any, cut: set[int], places: Iterator[int]) -> Any:
    """`value` without the statements at these places, counted as `_statements` does."""
    if isinstance(value, Statement):
        return None if next(places) in cut else value
    if isinstance(value, BaseModel):
        update = {name: _without(getattr(value, name), cut, places) for name in type(value).model_fields}
        return value.model_copy(update=update)
    if isinstance(value, list | tuple):
        kept = [(item, _without(item, cut, places)) for item in value]
        return type(value)(after for before, after in kept if after is not None or before is None)
    return value


def _by_source(facts: Sequence[Fact]) -> Mapping[str, Sequence[str]]:
    texts: dict[str, list[str]] = {}
    for fact in facts:
        texts.setdefault(fact.source, []).append(fact.text)
    return texts


def _check(guard: Guard, verdict: Verdict, statements: int) -> None:
    if verdict.code not in guard.codes:
        raise ValueError("a verdict's code must be one of the guard's codes")
    if verdict.statement is None and verdict.action is not Action.FLAG:
        raise ValueError("what is about the case can only be flagged")
    if verdict.statement is not None and not 0 <= verdict.statement < statements:
        raise ValueError("a verdict must be about a statement that is there")


def _finding(guard: Guard, verdict: Verdict, statements: Sequence[Statement]) -> Finding:
    text, sources = verdict.text, ()  # type: Text, tuple[str, ...]
    if verdict.statement is not None:
        statement = statements[verdict.statement]
        sources = statement.sources
        if verdict.action is Action.CUT:
            text = Text(f"已删除一条陈述:{text.zh}", f"A statement was cut: {text.en}")
        else:
            said = statement.text if len(statement.text) <= _QUOTED else f"{statement.text[: _QUOTED - 1]}…"
            text = Text(f"请核对“{said}”:{text.zh}", f"Check “{said}”: {text.en}")
    citation = f"careloom guard {guard.id} {guard.version}"
    return Finding(f"guard.{guard.id}.{verdict.code}", Severity.WARNING, text, sources, citation)
