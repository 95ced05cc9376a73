"""Every hook a plugin can implement, a class for each subject.

A hook of lifecycle or of metrics is called for the scenarios of every plugin; all others bring something, once, when
the plugin is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pluggy

from plugins.counters import Counter, Increment
from plugins.guarding import Guard
from plugins.knowledge import KnowledgeSource
from plugins.lifecycle import Failed, Inferred, Started
from plugins.model_backend import BackendFactory
from plugins.scenario import Locale, Scenario

hookspec = pluggy.HookspecMarker("careloom")
hookimpl = pluggy.HookimplMarker("careloom")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a plugin may know of the configuration.

    Attributes:
        state_dir: a folder of careloom's own; a plugin keeps what it must in one named after itself.
        locale: language of prompts and drafts.
        own: what stands in `[plugins.settings.<plugin>]`.
    """

    state_dir: Path
    locale: Locale
    own: Mapping[str, Any] = field(default_factory=dict)


class ScenarioSpecs:
    """Hooks that bring scenarios."""

    @hookspec
    def careloom_scenarios(self) -> Iterable[Scenario[Any]]:
        """The scenarios of this plugin, as instances.

        Example:
            from plugins.hookspecs import hookimpl
            from plugins.post_visit.follow_up import FollowUp

            class MyScenario(FollowUp):
                id = "post_visit.my_scenario"

            @hookimpl
            def careloom_scenarios():
                return [MyScenario()]
        """
        raise AssertionError("a specification is not called")


class ModelSpecs:
    """Hooks that bring ways to ask models."""

    @hookspec
    def careloom_model_backends(self) -> Mapping[str, BackendFactory]:
        """Kinds of model servers: `kind` in `[[models]]` -> what makes a backend of that entry.

        Example:
            from plugins.hookspecs import hookimpl
            from plugins.model_backend import ChatAnswer

            class Parrot:
                def __init__(self, settings):
                    self.says = settings.options["says"]

                async def chat(self, request):
                    return ChatAnswer(self.says, "stop", 0, 0, 0.0, "parrot")

                async def close(self):
                    pass

            @hookimpl
            def careloom_model_backends():
                return {"parrot": Parrot}
        """
        raise AssertionError("a specification is not called")


class GuardSpecs:
    """Hooks that bring guards."""

    @hookspec
    def careloom_guards(self) -> Iterable[Guard]:
        """Guards of this plugin, as instances; they look at the answers to every scenario.

        Example:
            from plugins.guarding import Action, Guard, Verdict
            from plugins.hookspecs import hookimpl
            from plugins.scenario import Text

            class NoShouting(Guard):
                id = "no-shouting"
                version = "1"
                codes = frozenset({"shouts"})

                def check(self, answered):
                    text = Text(zh="该陈述全为大写", en="This statement is all capitals")
                    return [
                        Verdict(Action.FLAG, "shouts", text, place)
                        for place, statement in enumerate(answered.statements)
                        if statement.text.isupper()
                    ]

            @hookimpl
            def careloom_guards():
                return [NoShouting()]
        """
        raise AssertionError("a specification is not called")


class KnowledgeSpecs:
    """Hooks that bring knowledge."""

    @hookspec
    def careloom_knowledge(self, settings: Settings) -> Iterable[KnowledgeSource]:
        """Sources of passages; asked for where rows are worked on, and not where they are only dispatched.

        Example:
            from plugins.hookspecs import hookimpl
            from plugins.scenario import Passage

            class House:
                id = "house-rules"

                def __init__(self, phone):
                    text = f"The ward's telephone is {phone}."
                    self.passage = Passage("house#1", text, "House rules", "urn:house:rules", "2026", "own", "en")

                def search(self, question, *, locale, cap):
                    return [self.passage] if "telephone" in question else []

            @hookimpl
            def careloom_knowledge(settings):
                return [House(settings.own.get("phone", "not known"))]
        """
        raise AssertionError("a specification is not called")


class LifecycleSpecs:
    """Hooks that are told what happens to a piece of work: ids, counts and codes, never a patient's data.

    They can change nothing. What they return is added to the plugin's own counters (`careloom_metrics`). A hook that
    fails is counted in `careloom_plugin_hook_errors_total` and harms no row.
    """

    @hookspec
    def careloom_before_infer(self, work: Started) -> Iterable[Increment] | None:
        """The record has been read, and rules have run; the model is asked next.

        Example:
            from plugins.counters import Counter, Increment
            from plugins.hookspecs import hookimpl

            @hookimpl
            def careloom_metrics():
                return [Counter("second_tries", "Tries after the first one.")]

            @hookimpl
            def careloom_before_infer(work):
                return [Increment("second_tries")] if work.attempt > 1 else []
        """
        raise AssertionError("a specification is not called")

    @hookspec
    def careloom_after_infer(self, inferred: Inferred) -> Iterable[Increment] | None:
        """The drafts are computed and lie in the outbox.

        Example:
            from plugins.counters import Counter, Increment
            from plugins.hookspecs import hookimpl

            @hookimpl
            def careloom_metrics():
                return [Counter("empty_results", "Pieces of work of which no draft came.")]

            @hookimpl
            def careloom_after_infer(inferred):
                return [] if inferred.drafts else [Increment("empty_results")]
        """
        raise AssertionError("a specification is not called")

    @hookspec
    def careloom_on_failure(self, failed: Failed) -> Iterable[Increment] | None:
        """A try failed; the row waits for another one, or is parked.

        Example:
            from plugins.counters import Counter, Increment
            from plugins.hookspecs import hookimpl

            @hookimpl
            def careloom_metrics():
                kinds = frozenset({"passing", "lasting"})
                return [Counter("failed_tries", "Tries that failed.", {"kind_of_failure": kinds})]

            @hookimpl
            def careloom_on_failure(failed):
                return [Increment("failed_tries", {"kind_of_failure": "passing" if failed.transient else "lasting"})]
        """
        raise AssertionError("a specification is not called")


class MetricSpecs:
    """Hooks that declare metrics."""

    @hookspec
    def careloom_metrics(self) -> Iterable[Counter]:
        """Counters of this plugin's own; its lifecycle hooks increase them.

        Prometheus shows them as `careloom_plugin_<plugin>_<name>_total`, with the label `scenario` added. Tasks are
        short-lived, so increments go through the ledger: none is lost with a worker, and none counts twice.

        Example:
            from plugins.counters import Counter, Increment
            from plugins.hookspecs import hookimpl

            @hookimpl
            def careloom_metrics():
                return [Counter("flags", "Drafts that raise a flag.")]

            @hookimpl
            def careloom_after_infer(inferred):
                return [Increment("flags", by=inferred.drafts.count("Flag"))]
        """
        raise AssertionError("a specification is not called")


#: All of them, in the order of the documentation.
SPECIFICATIONS = (ScenarioSpecs, ModelSpecs, GuardSpecs, KnowledgeSpecs, LifecycleSpecs, MetricSpecs)
#: Called while rows are worked on; all others when the plugin is loaded.
LIFECYCLE = tuple(name for name in vars(LifecycleSpecs) if name.startswith("careloom_"))
