"""Which scenarios a resource version starts: the cheap tests first, FHIRPath compiled once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fhir_adapters import fhirpath
from plugins.scenario import Resource, Scenario, Trigger


class Matcher:
    """The compiled triggers of a set of scenarios.

    Args:
        scenarios: those that run; each comes back from `match` at most once, in this order.
    """

    def __init__(self, scenarios: Iterable[Scenario[Any]]) -> None:
        self._by_type: dict[str, list[_Compiled]] = {}
        for scenario in scenarios:
            for trigger in scenario.triggers:
                self._by_type.setdefault(trigger.resource_type, []).append(_compile(scenario, trigger))

    @property
    def types(self) -> frozenset[str]:
        """The resource types that some scenario waits for: what must be subscribed to."""
        return frozenset(self._by_type)

    def match(self, resource: Resource) -> list[Scenario[Any]]:
        """The scenarios that this resource version starts.

        Raises:
            FhirPathError: a trigger's expression fails on this resource: whether it starts something is unknown.
        """
        candidates = self._by_type.get(str(resource.get("resourceType")), ())
        found = {c.scenario.id: c.scenario for c in candidates if c.matches(resource)}
        return list(found.values())


@dataclass(frozen=True, slots=True)
class _Compiled:
    scenario: Scenario[Any]
    where: tuple[tuple[tuple[str, ...], frozenset[str]], ...]
    predicate: Callable[[Mapping[str, Any]], bool] | None

    def matches(self, resource: Resource) -> bool:
        for path, allowed in self.where:
            if allowed.isdisjoint(_values(resource, path)):
                return False
        return self.predicate is None or self.predicate(resource)


def _compile(scenario: Scenario[Any], trigger: Trigger) -> _Compiled:
    where = tuple((tuple(path.split(".")), frozenset(values)) for path, values in trigger.where.items())
    return _Compiled(scenario, where, fhirpath.compile(trigger.fhirpath) if trigger.fhirpath else None)


def _values(node: Any, path: tuple[str, ...]) -> Iterator[str]:
    """Every value at the path, as FHIR writes it; lists on the way are walked."""
    if isinstance(node, list | tuple):
        for element in node:
            yield from _values(element, path)
    elif not path:
        if isinstance(node, bool):
            yield "true" if node else "false"
        elif isinstance(node, str):
            yield node
    elif isinstance(node, Mapping) and path[0] in node:
        yield from _values(node[path[0]], path[1:])
