"""What one plugin brings, through a plugin manager of its own, each thing held to the rules of its hook."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import pluggy

from plugins import checks, counters
from plugins.counters import Counter
from plugins.errors import FAULTS, OfferRefused, PluginBroken, PluginError, told
from plugins.guarding import Guard
from plugins.hookspecs import LIFECYCLE, SPECIFICATIONS, Settings
from plugins.knowledge import KnowledgeSource
from plugins.lifecycle import Hooked
from plugins.model_backend import OWN_KINDS, BackendFactory
from plugins.scenario import Scenario

PROJECT = "careloom"
"""Name of the hook project and of the entry point group."""

_ID = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_RULE = "lower-case words with hyphens, at most 48 characters"
_T = TypeVar("_T")
_PARSER = pluggy.PluginManager(PROJECT)


@dataclass(frozen=True, slots=True)
class Offers:
    """What one plugin brings.

    Attributes:
        scenarios, guards, knowledge: as instances.
        backends: kind -> factory.
        counters: its own.
        lifecycle: its lifecycle hooks, None where it implements none.
        refused: why something of it may not be used.
    """

    scenarios: tuple[Scenario[Any], ...] = ()
    guards: tuple[Guard, ...] = ()
    knowledge: tuple[KnowledgeSource, ...] = ()
    backends: Mapping[str, BackendFactory] = field(default_factory=dict)
    counters: tuple[Counter, ...] = ()
    lifecycle: Hooked | None = None
    refused: tuple[str, ...] = ()


def offers(name: str, plugin: object, settings: Settings | None) -> Offers:
    """Ask a plugin for everything it brings.

    Args:
        name: of the plugin.
        plugin: module or object with hook implementations.
        settings: for `careloom_knowledge`; None leaves knowledge out.

    Raises:
        PluginBroken: it implements no hook, or misspells one or its arguments.
    """
    manager = _registered(name, plugin)
    refused: list[str] = []

    def kept(hook: str, check: Callable[[Any], _T], **arguments: object) -> tuple[_T, ...]:
        try:
            offered = _offered(manager, hook, **arguments)
        except PluginError as error:
            refused.append(str(error))
            return ()
        return tuple(_checked(offered, check, refused))

    declared = kept("careloom_metrics", _counter)
    hooked = Hooked(name, manager.hook, {counter.name: counter for counter in declared})
    return Offers(
        scenarios=kept("careloom_scenarios", checks.check),
        guards=kept("careloom_guards", _guard),
        knowledge=kept("careloom_knowledge", _knowledge, settings=settings) if settings is not None else (),
        backends=dict(kept("careloom_model_backends", _backend)),
        counters=declared,
        lifecycle=hooked if any(getattr(manager.hook, hook).get_hookimpls() for hook in LIFECYCLE) else None,
        refused=tuple(refused),
    )


class _Manager(pluggy.PluginManager):
    """One that looks at a specification once a process: by itself it would do so for every plugin, in every task."""

    def parse_hookspec_opts(self, module_or_class: Any, name: str) -> pluggy.HookspecOpts | None:
        """See pluggy; meant to be overridden."""
        return _specified(module_or_class, name)


@cache
def _specified(specification: Any, name: str) -> pluggy.HookspecOpts | None:
    return _PARSER.parse_hookspec_opts(specification, name)


def _registered(name: str, plugin: object) -> pluggy.PluginManager:
    manager = _Manager(PROJECT)
    for specification in SPECIFICATIONS:
        manager.add_hookspecs(specification)
    try:
        manager.register(plugin, name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        known = ", ".join(sorted(hook for spec in SPECIFICATIONS for hook in vars(spec) if hook.startswith(PROJECT)))
        raise PluginBroken(f"{error}; the hooks are {known}, their arguments are in plugins/hookspecs.py") from error
    if not manager.get_hookcallers(plugin):
        raise PluginBroken("it implements no hook; have you forgotten @hookimpl on careloom_scenarios?")
    return manager


def _offered(manager: pluggy.PluginManager, hook: str, **arguments: object) -> list[object]:
    """What a hook returns, in a list.

    Raises:
        PluginBroken: it failed, or returned nothing that can be gone through.
    """
    caller = getattr(manager.hook, hook)
    try:
        returned = caller(**arguments)
        offered = [one for offer in returned for one in (offer.items() if isinstance(offer, Mapping) else offer)]
    except FAULTS as error:
        raise PluginBroken(f"{hook} failed with {told(error)}; repair it") from error
    if caller.get_hookimpls() and not returned:  # pluggy leaves None out
        raise PluginBroken(f"{hook} returned None; have you forgotten `return`?")
    return offered


def _checked(offered: Iterable[object], check: Callable[[Any], _T], refused: list[str]) -> Iterator[_T]:
    for offer in offered:
        try:
            yield check(offer)
        except PluginError as error:
            refused.append(str(error))
        except FAULTS as error:  # an attribute of another shape than a rule expects, or a property that fails
            refused.append(f"{type(offer).__name__}: looking at it failed with {told(error)}; repair it")


def _guard(guard: object) -> Guard:
    if not isinstance(guard, Guard):
        what = guard.__name__ if isinstance(guard, type) else type(guard).__name__
        raise OfferRefused(f"{what} is not a Guard instance; return [MyGuard()], with the parentheses")
    id_ = _identified("guard", guard)
    version, codes = getattr(guard, "version", None), getattr(guard, "codes", None)
    if not (isinstance(version, str) and version):
        raise OfferRefused(f"guard {id_}: version is missing; it stands in Provenance")
    if not (isinstance(codes, frozenset) and codes and all(isinstance(c, str) and _short(c) for c in codes)):
        raise OfferRefused(f"guard {id_}: codes must be a frozenset of every code that it can give: {_RULE}")
    return guard


def _knowledge(source: Any) -> KnowledgeSource:
    id_ = _identified("knowledge source", source)
    if not callable(getattr(source, "search", None)):
        raise OfferRefused(f"knowledge source {id_}: search(question, *, locale, cap) is missing")
    return source  # type: ignore[no-any-return]


def _backend(offer: tuple[object, object]) -> tuple[str, BackendFactory]:
    if not (isinstance(offer, tuple) and len(offer) == 2):
        raise OfferRefused('careloom_model_backends must return a mapping: {"my-kind": MyBackend}')
    kind, factory = offer
    if not (isinstance(kind, str) and _short(kind)):
        raise OfferRefused(f"model backend {kind!r}: a kind is {_RULE}")
    if kind in OWN_KINDS:
        raise OfferRefused(f"model backend {kind}: careloom has one of that kind; rename this one")
    if not callable(factory):
        raise OfferRefused(f"model backend {kind}: give its class or another factory, not {type(factory).__name__}")
    return kind, factory


def _counter(counter: object) -> Counter:
    if (fault := counters.fault(counter)) is not None or not isinstance(counter, Counter):
        raise OfferRefused(str(fault))
    return counter


def _identified(what: str, one: object) -> str:
    id_ = getattr(one, "id", None)
    if isinstance(one, type) or not (isinstance(id_, str) and _short(id_)):
        raise OfferRefused(f"{what} {getattr(one, '__name__', type(one).__name__)}: id {id_!r} must be {_RULE}")
    return id_


def _short(text: str) -> bool:
    return len(text) <= 48 and _ID.fullmatch(text) is not None
