"""The passages of the knowledge base that a scenario asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from pipelines.plugin_faults import of_plugin
from plugins.knowledge import KnowledgeSource
from plugins.scenario import Case, Passage, Scenario


async def with_passages(scenario: Scenario[Any], case: Case, sources: Sequence[KnowledgeSource]) -> Case:
    """The case with its passages: each source is asked in turn until a query has as many as it wants.

    A query without a question, or for which nothing is found, has none: the scenario says so.

    Raises:
        StepFailed: SCENARIO_ERROR: the scenario or a source failed. Half of what is known is not shown as all of it.
    """
    if not scenario.knowledge:
        return case
    with of_plugin("questions() of the scenario"):
        questions: Mapping[str, str] = dict(scenario.questions(case))
    passages: dict[str, Sequence[Passage]] = {}
    for query in scenario.knowledge:
        question = questions.get(query.name, "").strip()
        found: dict[str, Passage] = {}
        for source in sources if question else ():
            with of_plugin(f"knowledge source {source.id}"):
                offered = await asyncio.to_thread(source.search, question, locale=case.locale, cap=query.cap)
                for passage in offered:
                    found.setdefault(passage.id, passage)
        passages[query.name] = tuple(found.values())[: query.cap]
    return replace(case, passages=MappingProxyType(passages))
