"""The passages of the knowledge base that a scenario asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from pipelines.runner.plugin_faults import of_plugin
from plugins.knowledge import KnowledgeSource
from plugins.scenario import Case, Locale, Passage, Question, Scenario


async def with_passages(scenario: Scenario[Any], case: Case, sources: Sequence[KnowledgeSource]) -> Case:
    """The case with its passages: each source is asked in turn until a query has as many as it wants.

    Of a query's questions the first that finds something counts. A query without one, or for which nothing is found,
    has no passages: the scenario says so.

    Raises:
        StepFailed: SCENARIO_ERROR: the scenario or a source failed. Half of what is known is not shown as all of it.
    """
    if not scenario.knowledge:
        return case
    with of_plugin("questions() of the scenario"):
        asked = scenario.questions(case)
        questions = {query.name: _questions(asked.get(query.name, ()), case.locale) for query in scenario.knowledge}
    passages: dict[str, Sequence[Passage]] = {}
    for query in scenario.knowledge:
        passages[query.name] = ()
        for question in questions[query.name]:
            if found := await _found(question, query.cap, sources):
                passages[query.name] = found
                break
    return replace(case, passages=MappingProxyType(passages))


def _questions(asked: str | Sequence[Question], locale: Locale) -> list[Question]:
    """Those that say something, each once."""
    given = [Question(asked, locale)] if isinstance(asked, str) else asked
    said = [replace(question, words=question.words.strip()) for question in given]
    return [question for question in dict.fromkeys(said) if question.words]


async def _found(question: Question, cap: int, sources: Sequence[KnowledgeSource]) -> tuple[Passage, ...]:
    """What the sources have on a question, in their order."""
    found: dict[str, Passage] = {}
    for source in sources:
        with of_plugin(f"knowledge source {source.id}"):
            offered = await asyncio.to_thread(source.search, question.words, locale=question.locale, cap=cap)
            for passage in offered:
                found.setdefault(passage.id, passage)
    return tuple(found.values())[:cap]
