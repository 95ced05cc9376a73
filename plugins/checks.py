"""What must be true of a scenario before it may run; each refusal names the rule, the place and the remedy."""

from __future__ import annotations

import re
import string
from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from fhir_adapters import fhirpath
from fhir_adapters.resource_types import versions_of
from plugins.errors import ScenarioRefused
from plugins.output_schema import check_bounded
from plugins.scenario import FIRST, Autonomy, KnowledgeQuery, RecordQuery, Risk, Scenario, Stage, Step, Text

#: What a query's parameters may stand open for (see `RecordQuery.params`).
PLACEHOLDERS = frozenset({"patient", "encounter"})

#: Questions that one piece of work may ask of a model, the first one included.
MOST_QUESTIONS = 5
#: Passages that one look into the knowledge base may bring.
MOST_PASSAGES = 20

_ATTRIBUTES: dict[str, type | tuple[type, ...]] = {
    "id": str,
    "version": str,
    "title": Text,
    "stage": Stage,
    "risk": Risk,
    "autonomy": Autonomy,
    "triggers": tuple,
    "record": tuple,
    "max_tokens": int,
    "temperature": (int, float),
    "deadline": timedelta,
    "objective": float,
    "prompt_version": str,
    "knowledge": tuple,
    "steps": tuple,
    "panel": bool,
}


def check(scenario: object) -> Scenario[Any]:
    """The same object, now known to be a scenario that the house can run safely.

    Raises:
        ScenarioRefused: a missing or mistyped attribute; an id that is not `<stage>.<name>`; no trigger; a resource
            type that is not in FHIR R4; FHIRPath that does not compile; two queries of one name; an unknown
            placeholder; an output model with anything unbounded; a look into the knowledge base, a step or a panel that
            nothing in the class goes with.
    """
    if not isinstance(scenario, Scenario):
        what = scenario.__name__ if isinstance(scenario, type) else type(scenario).__name__
        raise ScenarioRefused(f"{what} is not a Scenario instance; return [MyScenario()], with the parentheses")
    for rule in (_attributes, _identity, _triggers, _record, _knowledge, _answer, _steps, _panel):
        rule(scenario)
    return scenario


def _attributes(scenario: Scenario[Any]) -> None:
    for name, kind in _ATTRIBUTES.items():
        value = getattr(scenario, name, None)
        if value is None:
            raise ScenarioRefused(f"{_name(scenario)}: {name} is missing; set it on the class")
        if not isinstance(value, kind) or value == "":
            raise ScenarioRefused(f"{_name(scenario)}: {name} is empty or of the wrong type ({type(value).__name__})")
    if scenario.deadline <= timedelta(0) or scenario.max_tokens < 1:
        raise ScenarioRefused(f"{_name(scenario)}: deadline and max_tokens must be greater than zero")
    if not 0 < scenario.objective < 1:
        raise ScenarioRefused(f"{_name(scenario)}: objective is a share between 0 and 1, both excluded, as 0.95 is")


def _identity(scenario: Scenario[Any]) -> None:
    if not re.fullmatch(rf"{scenario.stage}\.[a-z][a-z0-9_]{{0,47}}", scenario.id):
        raise ScenarioRefused(
            f"{scenario.id!r} is not <stage>.<name>; its stage is {scenario.stage}, so call it "
            f"{scenario.stage}.<name> with a name of lower-case letters, digits and _"
        )


def _triggers(scenario: Scenario[Any]) -> None:
    if not scenario.triggers:
        raise ScenarioRefused(f"{scenario.id}: nothing triggers it; give it at least one Trigger")
    for trigger in scenario.triggers:
        _type(scenario, trigger.resource_type, "trigger")
        for path, allowed in trigger.where.items():
            if isinstance(allowed, str) or not allowed:
                raise ScenarioRefused(f"{scenario.id}: where[{path!r}] must be a tuple of allowed values; add a comma")
        if trigger.fhirpath is not None:
            try:
                # An unknown function compiles; it fails only when it is run, so run it once.
                fhirpath.compile(trigger.fhirpath)({"resourceType": trigger.resource_type})
            except fhirpath.FhirPathError as error:
                raise ScenarioRefused(f"{scenario.id}: trigger: {error}; correct the expression") from error


def _record(scenario: Scenario[Any]) -> None:
    names: set[str] = set()
    for query in scenario.record:
        if query.name in names:
            raise ScenarioRefused(f"{scenario.id}: two queries are called {query.name!r}; rename one")
        names.add(query.name)
        _type(scenario, query.resource_type, f"query {query.name!r}")
        _query(scenario, query)


def _query(scenario: Scenario[Any], query: RecordQuery) -> None:
    where = f"{scenario.id}: query {query.name!r}"
    for parameter, value in query.params.items():
        try:
            unknown = {part[1] for part in string.Formatter().parse(value) if part[1] is not None} - PLACEHOLDERS
        except ValueError:
            raise ScenarioRefused(f"{where}: {parameter}={value!r} has an open brace; write {{{{ for a brace") from None
        if unknown:
            known = ", ".join(f"{{{p}}}" for p in sorted(PLACEHOLDERS))
            raise ScenarioRefused(f"{where}: {parameter}={value!r}: unknown placeholder; known are {known}")
    if query.cap < 1:
        raise ScenarioRefused(f"{where}: cap must be at least 1")
    if query.window is not None and query.date_param is None:
        raise ScenarioRefused(f"{where}: window needs date_param, the search parameter that it applies to")


def _knowledge(scenario: Scenario[Any]) -> None:
    names: set[str] = set()
    for query in scenario.knowledge:
        if not isinstance(query, KnowledgeQuery):
            raise ScenarioRefused(f"{scenario.id}: knowledge holds a {type(query).__name__}; give KnowledgeQuery(...)")
        if query.name in names:
            raise ScenarioRefused(f"{scenario.id}: two knowledge queries are called {query.name!r}; rename one")
        names.add(query.name)
        if not 1 <= query.cap <= MOST_PASSAGES:
            raise ScenarioRefused(f"{scenario.id}: knowledge {query.name!r}: cap must be 1 to {MOST_PASSAGES}")
    _goes_with(scenario, "knowledge", "questions", needed=bool(names))


def _answer(scenario: Scenario[Any]) -> None:
    _output(scenario.id, getattr(scenario, "output_model", None))


def _steps(scenario: Scenario[Any]) -> None:
    if len(scenario.steps) >= MOST_QUESTIONS:
        raise ScenarioRefused(f"{scenario.id}: {len(scenario.steps)} steps; {MOST_QUESTIONS - 1} at most: ask for less")
    names = {FIRST}
    for step in scenario.steps:
        if not isinstance(step, Step):
            raise ScenarioRefused(f"{scenario.id}: steps holds a {type(step).__name__}; give Step(name, output_model)")
        if not step.name or step.name in names:
            raise ScenarioRefused(
                f"{scenario.id}: step {step.name!r}: its name is empty, taken or {FIRST!r}; rename it"
            )
        names.add(step.name)
        if step.max_tokens < 1:
            raise ScenarioRefused(f"{scenario.id}: step {step.name!r}: max_tokens must be greater than zero")
        _output(f"{scenario.id}: step {step.name!r}", step.output_model)
    _goes_with(scenario, "steps", "next_prompt", needed=bool(scenario.steps))


def _panel(scenario: Scenario[Any]) -> None:
    if scenario.panel and scenario.steps:
        raise ScenarioRefused(f"{scenario.id}: a panel answers one question; leave out steps, or panel = True")
    _goes_with(scenario, "panel = True", "drafts_of_panel", needed=scenario.panel)


def _goes_with(scenario: Scenario[Any], attribute: str, method: str, *, needed: bool) -> None:
    """An attribute and the method that it needs are there both, or neither."""
    there = getattr(type(scenario), method) is not getattr(Scenario, method)
    if needed and not there:
        raise ScenarioRefused(f"{scenario.id}: {attribute} without {method}(); write it, or leave {attribute} out")
    if there and not needed:
        raise ScenarioRefused(f"{scenario.id}: {method}() is never called without {attribute}; set it on the class")


def _output(where: str, model: object) -> None:
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise ScenarioRefused(f"{where}: output_model is missing or no pydantic model class")
    try:
        check_bounded(model)
    except ScenarioRefused as refused:
        raise ScenarioRefused(f"{where}: output_model {refused}") from None


def _type(scenario: Scenario[Any], resource_type: str, where: str) -> None:
    if "R4" not in versions_of(resource_type):
        raise ScenarioRefused(
            f"{scenario.id}: {where}: FHIR R4 has no resource type {resource_type!r}; check its spelling"
        )


def _name(scenario: Scenario[Any]) -> str:
    return str(getattr(scenario, "id", None) or type(scenario).__name__)
